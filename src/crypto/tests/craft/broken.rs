//! Cells that must fail, by where on the road of a read they do.
use super::{ADA, COLUMN, Parts, Recipes, TENANT, counting, extended, padded, plain, searchable};

/// Offsets in the cell of `searchable()`: 16 bytes of token, no extensions, a wrapped key of 60 bytes.
const DEK_ID: usize = 24;
const ALGORITHM: usize = 40;
const KEY_ID: usize = 41;
const WRAPPED_LEN: usize = 57;
const WRAPPED: usize = 59;
const NONCE: usize = 119;
const COMMITMENT: usize = 131;
const CIPHERTEXT: usize = 163;

pub(super) fn does_not_parse(all: &mut Recipes) {
    let mut spoilt = |name: &str, comment: &str, spoil: fn(&mut Vec<u8>)| {
        all.spoilt(&format!("parse-{name}"), comment, searchable(), spoil);
    };
    spoilt("empty", "No bytes at all.", |cell| cell.clear());
    spoilt("magic-only", "Nothing but the magic.", |cell| cell.truncate(3));
    spoilt("magic-1", "The first byte of the magic is C0.", |cell| cell[0] = 0xC0);
    spoilt("magic-2", "The second byte of the magic is 72.", |cell| cell[1] = 0x72);
    spoilt("magic-3", "The third byte of the magic is 73.", |cell| cell[2] = 0x73);
    spoilt("version-0", "Version 0.", |cell| cell[3] = 0);
    spoilt("version-2", "Version 2, of which this page knows nothing.", |cell| cell[3] = 2);
    spoilt("suite-0", "Suite 0.", |cell| cell[4] = 0);
    spoilt("suite-2", "Suite 2, of which this page knows nothing.", |cell| cell[4] = 2);
    spoilt("flag-2", "An unknown flag, bit 2.", |cell| cell[5] |= 0x04);
    spoilt("flag-7", "An unknown flag, bit 7.", |cell| cell[5] |= 0x80);
    spoilt("flags-all", "All flags.", |cell| cell[5] = 0xFF);
    spoilt("token-length-1", "A token of 1 byte.", |cell| cell[6] = 1);
    spoilt("token-length-15", "A token of 15 bytes.", |cell| cell[6] = 15);
    spoilt("token-length-17", "A token of 17 bytes.", |cell| cell[6] = 17);
    spoilt("token-length-255", "A token of 255 bytes.", |cell| cell[6] = 255);
    spoilt("cut-header", "Cut inside the header.", |cell| cell.truncate(7));
    spoilt("cut-token", "Cut inside the token.", |cell| cell.truncate(DEK_ID - 1));
    spoilt("cut-dek-id", "Cut inside dek_id.", |cell| cell.truncate(ALGORITHM - 1));
    spoilt("cut-wrapped", "Cut inside the wrapped key.", |cell| cell.truncate(NONCE - 1));
    spoilt("cut-nonce", "Cut inside the nonce.", |cell| cell.truncate(COMMITMENT - 1));
    spoilt("cut-commitment", "Cut inside the commitment.", |cell| cell.truncate(CIPHERTEXT - 1));
    spoilt("cut-payload", "Only 20 bytes of ciphertext and tag: 5 of plaintext and 16 of tag are the least.", |cell| {
        cell.truncate(CIPHERTEXT + 20);
    });
    spoilt("prefixed", "A byte before the magic.", |cell| cell.insert(0, 0));
    spoilt("hex-text", "The cell as Postgres would print it, not the bytes.", |cell| {
        let hex: String = cell.iter().map(|byte| format!("{byte:02x}")).collect();
        *cell = format!("\\x{hex}").into_bytes();
    });
    spoilt("plaintext", "A plain e-mail address in a sealed column.", |cell| *cell = ADA.to_vec());
}

pub(super) fn slot_does_not_parse(all: &mut Recipes) {
    let direct = |blob: usize| Parts { blob: vec![0xB1; blob], ..plain() };
    let mut spoilt = |name: &str, comment: &str, spoil: fn(&mut Vec<u8>)| {
        all.spoilt(&format!("parse-{name}"), comment, searchable(), spoil);
    };
    spoilt("algorithm-0", "Wrap algorithm 0.", |cell| cell[ALGORITHM] = 0);
    spoilt("algorithm-3", "Wrap algorithm 3, of which this page knows nothing.", |cell| cell[ALGORITHM] = 3);
    spoilt("wrapped-59", "A key wrapped by a branch key is 60 bytes, not 59.", |cell| {
        cell[WRAPPED_LEN + 1] = 59;
        cell.remove(WRAPPED);
    });
    spoilt("wrapped-61", "A key wrapped by a branch key is 60 bytes, not 61.", |cell| {
        cell[WRAPPED_LEN + 1] = 61;
        cell.insert(WRAPPED, 0);
    });
    spoilt("wrapped-beyond", "w says more bytes than there are.", |cell| {
        cell[ALGORITHM] = 1;
        cell[WRAPPED_LEN] = 0xFF;
    });
    spoilt("wrapped-all", "w takes all that is left: no payload.", |cell| {
        cell[ALGORITHM] = 1;
        let rest = (cell.len() - WRAPPED) as u16;
        cell[WRAPPED_LEN..WRAPPED].copy_from_slice(&rest.to_be_bytes());
    });
    all.bad("parse-blob-empty", "A KMS blob of no bytes.", direct(0));
}

pub(super) fn extensions_do_not_parse(all: &mut Recipes) {
    let mut bad = |name: &str, comment: &str, extensions: &[u8]| {
        all.bad(&format!("parse-extension-{name}"), comment, extended(extensions));
    };
    bad(
        "critical-80",
        "The least critical type, unknown: the cell must not be opened without understanding it.",
        &[0x80, 0],
    );
    bad("critical-ff", "The greatest critical type, unknown.", &[0xFF, 1, 1]);
    bad("critical-second", "A critical type after one that is not.", &[1, 0, 0x81, 0]);
    bad("cut-type", "A type without a length.", &[1]);
    bad("cut-value", "A length beyond the extensions.", &[1, 2, 0]);
    bad("cut-second", "A second extension without a length.", &[1, 1, 0, 2]);
    bad("twice", "The same type twice.", &[1, 1, 0, 1, 1, 0]);
    bad("descending", "Types in descending order.", &[2, 0, 1, 0]);
    bad("none", "The flag says extensions, the length says none.", &[]);
    let unannounced = Parts { header: plain().header, ..extended(&[1, 2, 0xAA, 0xBB]) };
    all.bad("parse-extension-unannounced", "Extensions without their flag.", unannounced);
}

pub(super) fn does_not_unwrap(all: &mut Recipes) {
    let mut spoilt = |name: &str, comment: &str, spoil: fn(&mut Vec<u8>)| {
        all.spoilt(&format!("unwrap-{name}"), comment, searchable(), spoil);
    };
    spoilt("iv", "One bit of the wrap's iv.", |cell| cell[WRAPPED] ^= 1);
    spoilt("key", "One bit of the wrapped key.", |cell| cell[WRAPPED + 12] ^= 0x80);
    spoilt("tag", "One bit of the wrap's tag.", |cell| cell[NONCE - 1] ^= 1);
    spoilt("key-id", "One bit of key_id, which the wrap authenticates.", |cell| cell[KEY_ID] ^= 1);
    spoilt("dek-id", "One bit of dek_id, which wrap and payload authenticate.", |cell| cell[DEK_ID] ^= 1);
    spoilt("zero", "A wrapped key of zeros.", |cell| cell[WRAPPED..NONCE].fill(0));
    let slot_of = |parts: Parts| parts.cell()[DEK_ID..NONCE].to_vec();
    let foreign = slot_of(Parts { tenant: "globex", ..searchable() });
    all.spoilt(
        "unwrap-tenant",
        "The slot was wrapped for tenant globex, under the same branch key.",
        searchable(),
        move |cell| {
            cell[DEK_ID..NONCE].copy_from_slice(&foreign);
        },
    );
    let foreign = slot_of(Parts { branch_key: Some(counting(0xC0)), ..searchable() });
    all.spoilt("unwrap-branch", "The slot was wrapped under another branch key.", searchable(), move |cell| {
        cell[DEK_ID..NONCE].copy_from_slice(&foreign);
    });
}

pub(super) fn does_not_open(all: &mut Recipes) {
    let direct = || Parts { branch_key: None, algorithm: 1, blob: vec![0xB1; 60], ..searchable() };
    let mut spoilt = |name: &str, comment: &str, spoil: fn(&mut Vec<u8>)| {
        all.spoilt(&format!("open-{name}"), comment, direct(), spoil);
    };
    spoilt("commitment-first", "One bit at the start of the commitment.", |cell| cell[COMMITMENT] ^= 0x80);
    spoilt("commitment-last", "One bit at the end of the commitment.", |cell| cell[CIPHERTEXT - 1] ^= 1);
    spoilt("nonce", "One bit of the nonce.", |cell| cell[NONCE] ^= 1);
    spoilt("ciphertext", "One bit of the ciphertext.", |cell| cell[CIPHERTEXT] ^= 1);
    spoilt("tag", "One bit of the tag.", |cell| *cell.last_mut().unwrap() ^= 1);
    spoilt("longer", "A byte after the tag.", |cell| cell.push(0));
    spoilt("shorter", "The last byte is missing.", |cell| cell.truncate(cell.len() - 1));
    spoilt("twice", "The cell twice in a row.", |cell| cell.extend_from_within(..));
    spoilt("dek-id", "One bit of dek_id, which the payload authenticates.", |cell| cell[DEK_ID] ^= 1);
    spoilt("flag-padded-cleared", "The padded flag is cleared, which the payload authenticates.", |cell| cell[5] = 0);
    spoilt("token-taken-for-slot", "The token length says 0 but the token's bytes are there.", |cell| {
        cell[6] = 0;
        // What is now read as algorithm and w, so that the cell still parses.
        cell[24] = 1;
        cell[41..43].copy_from_slice(&[0, 60]);
    });
    spoilt("extension-added", "An extension is slipped in.", |cell| {
        cell[5] |= 2;
        cell[7] = 2;
        cell.splice(DEK_ID..DEK_ID, [1, 0]);
    });
    moved(all);
    mixed(all);
}

/// Cells that are in the wrong place.
fn moved(all: &mut Recipes) {
    let mut moved = |name: &str, comment: &str, from: Parts, to: Parts| {
        let cell = from.cell();
        all.spoilt(&format!("open-{name}"), comment, to, move |spoilt| *spoilt = cell);
    };
    moved(
        "tenant",
        "Copied from a row of tenant globex, under the same data key.",
        Parts { tenant: "globex", ..plain() },
        plain(),
    );
    moved(
        "column",
        "Copied from column public.customers.name.",
        Parts { column: "public.customers.name", ..plain() },
        plain(),
    );
    moved(
        "table",
        "Copied from the column of the same name in another table.",
        Parts { column: "public.clients.email", ..plain() },
        plain(),
    );
    moved("case", "The column differs in case only.", Parts { column: "public.Customers.email", ..plain() }, plain());
    moved(
        "boundary",
        "Tenant and column are the same letters, split elsewhere.",
        Parts { tenant: "acmep", column: "ublic.customers.email", ..plain() },
        plain(),
    );
    moved("swapped", "Tenant and column are exchanged.", Parts { tenant: COLUMN, column: TENANT, ..plain() }, plain());
    moved("dek", "Sealed under another data key.", Parts { dek: counting(0x01), ..plain() }, plain());
}

/// Cells of which one part is another's.
fn mixed(all: &mut Recipes) {
    let other = Parts { dek: counting(0x01), dek_id: counting(0x41), ..plain() }.cell();
    let slot_end = 8 + 35 + 184;
    all.spoilt("open-row", "The payload of another row behind this row's slot.", plain(), move |cell| {
        *cell = [&cell[..slot_end], &other[slot_end..]].concat();
    });
    all.bad("open-two-keys", "The commitment is to the data key, the payload encrypted under another: AES-GCM alone would let a cell open differently under two keys.", Parts { payload_dek: Some(counting(0x01)), ..plain() });
    let extended = || extended(&[1, 2, 0xAA, 0xBB]);
    all.spoilt("open-extension-changed", "One bit of an extension's value.", extended(), |cell| cell[11] ^= 1);
    all.spoilt("open-extension-retyped", "An extension of type 01 becomes type 02.", extended(), |cell| cell[8] = 2);
    all.spoilt("open-extension-removed", "The extensions and their flag are removed.", extended(), |cell| {
        cell[5] = 0;
        cell[7] = 0;
        cell.drain(8..12);
    });
    all.spoilt("open-padding-claimed", "The padded flag is set on a cell sealed without.", plain(), |cell| cell[5] = 1);
}

/// Authentic payloads that no writer may make.
pub(super) fn plaintext_is_malformed(all: &mut Recipes) {
    let mut bad = |name: &str, comment: &str, base: Parts, plaintext: &[u8]| {
        all.bad(&format!("open-{name}"), comment, Parts { plaintext: Some(plaintext.to_vec()), ..base });
    };
    bad("length-beyond", "The value's length is one more than what is there.", plain(), &[1, 0, 0, 0, 3, b'a', b'b']);
    bad("length-huge", "The value's length is the greatest there is.", plain(), &[1, 0xFF, 0xFF, 0xFF, 0xFF, b'a']);
    bad("padding-unannounced", "A zero byte after the value, and no padded flag.", plain(), &[1, 0, 0, 0, 1, b'a', 0]);
    bad("padding-first", "The first byte of padding is not zero.", padded(), &[1, 0, 0, 0, 1, b'a', 1, 0, 0, 0]);
    bad("padding-last", "The last byte of padding is not zero.", padded(), &[1, 0, 0, 0, 1, b'a', 0, 0, 0, 0x80]);
    bad(
        "length-beyond-padded",
        "The value's length is more than value and padding.",
        padded(),
        &[1, 0, 0, 0, 9, b'a', 0, 0, 0, 0],
    );
    bad(
        "length-little-endian",
        "The value's length with its bytes in the wrong order.",
        plain(),
        &[1, 1, 0, 0, 0, b'a'],
    );
}

pub(super) fn has_another_token(all: &mut Recipes) {
    let token_of = |parts: Parts| parts.cell()[8..DEK_ID].to_vec();
    let others = [
        (
            "value",
            "The token of another value: the row would be found by it.",
            Parts { value: b"eve@example.com".to_vec(), ..searchable() },
        ),
        (
            "scope",
            "The token of the same value in another scope.",
            Parts { index_root: Some((counting(0xA0), "public.customers.name")), ..searchable() },
        ),
        (
            "root",
            "The token of the same value under another tenant's index root.",
            Parts { index_root: Some((counting(0xA1), COLUMN)), ..searchable() },
        ),
    ];
    for (name, comment, other) in others {
        let token = token_of(other);
        all.spoilt(&format!("token-{name}"), comment, searchable(), move |cell| {
            cell[8..DEK_ID].copy_from_slice(&token)
        });
    }
    all.spoilt("token-first", "One bit at the start of the token.", searchable(), |cell| cell[8] ^= 0x80);
    all.spoilt("token-last", "One bit at the end of the token.", searchable(), |cell| cell[DEK_ID - 1] ^= 1);
    all.spoilt("token-zero", "A token of zeros.", searchable(), |cell| cell[8..DEK_ID].fill(0));
    all.spoilt("token-stripped", "The token is taken away: the row would no longer be found.", searchable(), |cell| {
        cell[6] = 0;
        cell.drain(8..DEK_ID);
    });
}
