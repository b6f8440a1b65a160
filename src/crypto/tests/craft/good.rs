//! Cells that open.
use super::{ADA, Parts, Recipes, counting, extended, padded, plain, searchable};

pub(super) fn good(all: &mut Recipes) {
    let value = |value: &[u8]| Parts { value: value.to_vec(), ..plain() };
    all.good(
        "plain",
        "A text in direct mode: no token, no padding, a KMS blob of 184 bytes as AWS makes them.",
        plain(),
    );
    all.good(
        "padded-exactly",
        "Padme leaves 20 bytes as they are: the padded flag is set though no padding follows.",
        padded(),
    );
    all.good(
        "padded",
        "Padme: 17 bytes of plaintext become 18.",
        Parts { value: ADA[..12].to_vec(), zeros: 1, ..padded() },
    );
    all.good(
        "padded-least",
        "The shortest padded plaintext is 16 bytes: type tag, length, 1 byte of value, 10 zeros.",
        Parts { value: b"x".to_vec(), zeros: 10, ..padded() },
    );
    all.good(
        "padded-empty",
        "The empty value, padded to 16 bytes. It is not NULL.",
        Parts { value: vec![], zeros: 11, ..padded() },
    );
    all.good(
        "padded-long",
        "1,005 bytes of plaintext become 1,024.",
        Parts { value: vec![b'a'; 1000], zeros: 19, ..padded() },
    );
    all.good(
        "padded-zeros",
        "A value that itself ends in zero bytes: the length decides, not the zeros.",
        Parts { value: vec![0; 10], zeros: 1, ..padded() },
    );
    all.good("fixed", "Padding to a fixed 32 bytes of value.", Parts { padding: (2, Some(32)), zeros: 17, ..padded() });
    all.good(
        "fixed-exceeded",
        "A value longer than its fixed padding of 4 bytes is not padded; the flag stays set.",
        Parts { padding: (2, Some(4)), ..padded() },
    );
    all.good("empty", "The empty value without padding, the shortest there is of this blob.", value(b""));
    all.good(
        "shortest",
        "The shortest cell: the empty value and a blob of one byte, 109 bytes.",
        Parts { blob: vec![7], ..value(b"") },
    );
    all.good("blob-6144", "The longest blob that AWS KMS documents.", Parts { blob: vec![0xB1; 6144], ..plain() });
    all.good(
        "int4",
        "Another type tag and four bytes of value: int4 42.",
        Parts { type_tag: 3, ..value(&[0, 0, 0, 42]) },
    );
    all.good(
        "nul-bytes",
        "The value is bytes; NUL and invalid UTF-8 are as good as any.",
        Parts { type_tag: 0xFF, ..value(&[0, 0xFF, 0, 0xC1]) },
    );
    all.good("value-like-cell", "A client value that is itself a cell is data like any other.", value(&plain().cell()));
    all.good(
        "searchable",
        "A searchable text in hierarchical mode: token, wrapped key of 60 bytes, padded.",
        searchable(),
    );
    all.good(
        "searchable-direct",
        "A searchable text in direct mode.",
        Parts { branch_key: None, algorithm: 1, ..searchable() },
    );
    all.good(
        "searchable-empty",
        "The token of the empty value is a token like any other.",
        Parts { value: vec![], zeros: 11, ..searchable() },
    );
    all.good(
        "join-group",
        "The token's scope is a join group, not the column.",
        Parts { index_root: Some((counting(0xA0), "codes")), ..searchable() },
    );
    all.good(
        "hierarchical",
        "Hierarchical mode without token or padding.",
        Parts { branch_key: Some(counting(0x80)), algorithm: 2, ..plain() },
    );
    all.good(
        "names-utf8",
        "Tenant and column are UTF-8; their lengths count bytes.",
        Parts { tenant: "Łódź", column: "public.\u{65e5}\u{672c}.名", ..searchable() },
    );
    all.good("tenant-empty", "An empty tenant name is a name.", Parts { tenant: "", ..searchable() });
    all.good(
        "ids-zero",
        "Ids are random bytes: all zero is as good as any.",
        Parts { dek_id: [0; 16], key_id: [0; 16], ..searchable() },
    );
    all.good(
        "ids-ones",
        "Ids are random bytes: all ones is as good as any.",
        Parts { dek_id: [0xFF; 16], key_id: [0xFF; 16], ..searchable() },
    );
    all.good(
        "extension",
        "An extension of unknown type 01 with 2 bytes of value: not critical, so skipped.",
        extended(&[1, 2, 0xAA, 0xBB]),
    );
    all.good(
        "extensions",
        "Three extensions in ascending order, one of them empty, the last of the greatest type that is not critical.",
        extended(&[1, 1, 9, 2, 0, 0x7F, 2, 1, 2]),
    );
    all.good(
        "extensions-longest",
        "Extensions of 255 bytes, all that the length byte can say.",
        extended(&[&[5, 253][..], &[0xEE; 253]].concat()),
    );
    let rotated = Parts { branch_key: Some(counting(0xC0)), key_id: counting(0xD0), ..searchable() };
    all.good("rotated", "The cell of good-searchable after rotation: another branch key, key_id and wrapped key, the payload untouched.", rotated);
}
