//! Are values taken apart and put together again byte for byte, and is what is not as planned refused?
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::policy::{Column, Mask, Padding};
use crate::sql::inside::Field;
use crate::types::{LogicalType, json_string};

/// The least that begins like a cell.
const CELL: &[u8] = b"\xc1\x52\x53\x01\x01\x00\x00";

fn leaf(kind: Kind, whose: Whose) -> Inside {
    let column = Arc::new(Column {
        binding: "t.c".into(),
        join_group: None,
        qualified: "t.c".into(),
        name: "c".into(),
        logical: LogicalType::Int4,
        equality: None,
        padding: Padding::None,
        mask: Mask::Null,
    });
    Inside::Cell(Leaf { column, whose, constants: Default::default(), kind })
}

fn cell() -> Inside {
    leaf(Kind::Json, Whose::Unknown)
}

fn field(name: &str, inside: Inside) -> Field {
    Field { name: name.into(), param: None, inside }
}

fn of(inside: Inside) -> Built {
    Built { inside, is_text: false, has_typmod: false }
}

fn json(inside: Inside) -> Built {
    of(Inside::Json(Box::new(inside), Kind::Json))
}

/// Opens each cell to the bytes in it, in brackets; `?` is NULL.
struct Shows<'a> {
    value: &'a [u8],
    decoded: &'a [u8],
    cells: &'a [Inner<'a>],
}

impl Opens for Shows<'_> {
    fn bytes(&self, bytes: &Bytes) -> &[u8] {
        match bytes {
            Bytes::Sent(range) => &self.value[range.clone()],
            Bytes::Decoded(range) => &self.decoded[range.clone()],
        }
    }

    fn cell(&mut self, cell: usize, how: How, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        let found = &self.cells[cell];
        let tenant = found.beside.clone().map(|at| [&b"@"[..], &self.decoded[at]].concat()).unwrap_or_default();
        let bytes = &self.decoded[found.bytes.clone()];
        let shown = [b"<", bytes, &tenant, b">"].concat();
        match how {
            _ if bytes == b"?" => return Ok(false),
            How::Part(_) => json_string(&shown, out),
            How::Wire(_) => out.extend_from_slice(&shown),
        }
        Ok(true)
    }
}

fn opened(built: &Built, format: Format, value: &[u8]) -> Result<Vec<u8>, Refusal> {
    let (mut decoded, mut cells) = (Vec::new(), Vec::new());
    let mut finds = Finds { decoded: &mut decoded, cells: &mut cells, sees_cells: false };
    let node = read(built, format, value, &mut finds)?;
    let mut out = Vec::new();
    write(&node, &mut Shows { value, decoded: &decoded, cells: &cells }, &mut out)?;
    Ok(out)
}

fn text(built: &Built, value: &str) -> String {
    String::from_utf8(opened(built, Format::Text, value.as_bytes()).unwrap()).unwrap()
}

fn refused(built: &Built, value: &str) -> &'static str {
    opened(built, Format::Text, value.as_bytes()).unwrap_err().class.sqlstate()
}

#[test]
fn documents_keep_what_is_not_a_cell() {
    let row = || Inside::Fields(vec![field("id", Inside::Plain), field("a\"b", cell())]);
    let list = json(Inside::Each(Box::new(row())));
    assert_eq!(
        text(&list, "[{\"id\" : 1,\n \"a\\\"b\":\"\\\\x6869\"} , \n {\"a\\u0022b\":null,\"id\":[{\"a\":\"\\\\x\"}]}]"),
        "[{\"id\" : 1,\n \"a\\\"b\":\"<hi>\"} , \n {\"a\\u0022b\":null,\"id\":[{\"a\":\"\\\\x\"}]}]"
    );
    // What stands in for a value that is missing.
    for other in ["[]", "null", " {} ", "[null, null]", "[1, {}]"] {
        assert_eq!(text(&list, other), other);
    }
    let places = json(Inside::Places(vec![Inside::Plain, cell()]));
    assert_eq!(text(&places, "[1, \"\\\\x3f\", \"\\\\x3f\"]"), "[1, null, \"\\\\x3f\"]");
    let ordered = json(Inside::Ordered(vec![Inside::Plain, cell()]));
    assert_eq!(
        text(&ordered, r#"{"a" : "\\x61", "a" : "\\x61", "b":"\\x61"}"#),
        r#"{"a" : "\\x61", "a" : "<a>", "b":"\\x61"}"#
    );
    let map = json(Inside::Map(Box::new(cell())));
    assert_eq!(
        text(&map, r#"{ "x" : "\\x61", "y" : "b\\101\\\\", "z":null }"#),
        r#"{ "x" : "<a>", "y" : "<bA\\>", "z":null }"#
    );
}

#[test]
fn the_tenant_of_a_row_is_told_to_the_cells_in_it() {
    let beside = || leaf(Kind::Json, Whose::Beside { field: 1, type_oid: 20 });
    let row = || Inside::Fields(vec![field("e", beside()), field("tenant", Inside::Plain)]);
    let list = json(Inside::Each(Box::new(row())));
    let sent = r#"[{"e":"\\x61","tenant":7},{"tenant":8,"x":{"tenant":9},"e":"\\x62"},{"e":"\\x63"},{"tenant":null,"e":"\\x64"}]"#;
    assert_eq!(
        text(&list, sent),
        sent.replace(r"\\x61", "<a@7>").replace(r"\\x62", "<b@8>").replace(r"\\x63", "<c>").replace(r"\\x64", "<d>")
    );
    assert_eq!(text(&of(row()), r#"("\\x61",7)"#), "(<a@7>,7)");
    assert_eq!(text(&of(row()), r#"("\\x61",)"#), "(<a>,)");
    assert_eq!(refused(&of(row()), r#"("\\x61",x)"#), "XX001");
}

#[test]
fn rows_and_arrays_are_quoted_anew() {
    let row = of(Inside::Fields(vec![field("a", Inside::Plain), field("b", cell()), field("c", cell())]));
    assert_eq!(text(&row, r#"("x ""y"" \\ z","\\x28202c","\\x3f")"#), r#"("x ""y"" \\ z","<( ,>",)"#);
    assert_eq!(text(&row, "(,,)"), "(,,)");
    assert_eq!(text(&row, r#"("","\\x22","\\x5c")"#), r#"("","<"">","<\\>")"#);
    let array = of(Inside::Each(Box::new(cell())));
    assert_eq!(text(&array, r#"{"\\x612062",NULL,"\\x3f","\\x22"}"#), r#"{"<a b>",NULL,NULL,"<\">"}"#);
    assert_eq!(text(&array, "{}"), "{}");
    let documents = of(Inside::Each(Box::new(Inside::Json(Box::new(Inside::Each(Box::new(cell()))), Kind::Json))));
    assert_eq!(text(&documents, r#"{"[\"\\\\x61\", null]",NULL}"#), r#"{"[\"<a>\", null]",NULL}"#);
}

#[test]
fn what_is_not_as_planned_is_refused() {
    let list = json(Inside::Each(Box::new(cell())));
    for bad in ["[\"x\\\\\"]", "[\"\\\\xz\"]", "[\"\\\\x61\"", "[\"\\\\x61", "", "[1]]", "[\"\\u00\"]"] {
        assert_eq!(refused(&list, bad), "XX001", "{bad}");
    }
    let row = of(Inside::Fields(vec![field("a", Inside::Plain), field("b", cell())]));
    for bad in ["(1)", "(1,2,3)"] {
        assert_eq!(refused(&row, bad), "0A000", "{bad}");
    }
    for bad in ["1,2", "(1,\"x", "(1,\\", ""] {
        assert_eq!(refused(&row, bad), "XX001", "{bad}");
    }
    let array = of(Inside::Each(Box::new(cell())));
    for bad in ["{", "{{a},{b}}", "a", "{\"a}"] {
        assert_eq!(refused(&array, bad), "XX001", "{bad}");
    }
    // A cell where none was planned.
    let hex = "\\\\xc1525301010000";
    assert_eq!(refused(&list, &format!("[{{\"a\":\"{hex}\"}}]")), "0A000");
    assert_eq!(refused(&row, &format!("(\"{hex}\",)")), "0A000");
    assert_eq!(refused(&of(Inside::Fields(vec![field("a", Inside::Plain)])), &format!("(\"{hex}\")")), "0A000");
}

/// A binary array or row of these values.
fn counted(head: &[u32], values: &[Option<&[u8]>], oids: bool) -> Vec<u8> {
    let mut out: Vec<u8> = head.iter().flat_map(|number| number.to_be_bytes()).collect();
    for value in values {
        if oids {
            out.extend(17_u32.to_be_bytes());
        }
        out.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
        out.extend_from_slice(value.unwrap_or_default());
    }
    out
}

#[test]
fn binary_forms_get_the_types_of_the_client() {
    let array = of(Inside::Each(Box::new(cell())));
    let sent = counted(&[1, 0, 17, 3, 1], &[Some(b"a"), None, Some(b"?")], false);
    let shown = counted(&[1, 1, 23, 3, 1], &[Some(b"<a>"), None, None], false);
    assert_eq!(opened(&array, Format::Binary, &sent).unwrap(), shown);
    assert_eq!(
        opened(&array, Format::Binary, &counted(&[0, 0, 17], &[], false)).unwrap(),
        counted(&[0, 0, 23], &[], false)
    );
    let row = of(Inside::Fields(vec![
        field("t", Inside::Plain),
        field("a", leaf(Kind::Json, Whose::Beside { field: 0, type_oid: 25 })),
        field("j", Inside::Json(Box::new(Inside::Each(Box::new(cell()))), Kind::Jsonb)),
    ]));
    let sent = counted(&[3], &[Some(b"me"), Some(b"a"), Some(b"\x01[\"\\\\x62\"]")], true);
    let mut shown = counted(&[3], &[Some(b"me"), Some(b"<a@me>"), Some(b"\x01[\"<b>\"]")], true);
    let second = 4 + 8 + 2;
    shown[second..second + 4].copy_from_slice(&23_u32.to_be_bytes());
    assert_eq!(opened(&row, Format::Binary, &sent).unwrap(), shown);
    for end in 0..sent.len() {
        assert!(opened(&row, Format::Binary, &sent[..end]).is_err(), "{end}");
    }
    let unplanned = counted(&[3], &[Some(CELL), None, None], true);
    assert_eq!(opened(&row, Format::Binary, &unplanned).unwrap_err().class.sqlstate(), "0A000");
}

/// Values of every shape.
fn shapes() -> Vec<Built> {
    let row = || {
        Inside::Fields(vec![
            field("a", Inside::Plain),
            field("b", leaf(Kind::Jsonb, Whose::Beside { field: 0, type_oid: 23 })),
        ])
    };
    let each = |inside| Inside::Each(Box::new(inside));
    vec![
        json(each(row())),
        json(Inside::Map(Box::new(Inside::Places(vec![cell(), row()])))),
        of(each(row())),
        of(row()),
        of(each(Inside::Json(Box::new(row()), Kind::Jsonb))),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for built in shapes() {
            let _ = opened(&built, Format::Text, &bytes);
            let _ = opened(&built, Format::Binary, &bytes);
        }
    }

    #[test]
    fn near_documents_are_read_or_refused(text in r#"[\[\]{}(),:"\\x61 0-9abnul]{0,60}"#) {
        for built in shapes() {
            let _ = opened(&built, Format::Text, text.as_bytes());
        }
    }

    /// Whatever strings and keys hold, what was planned as plain comes back as it was sent.
    #[test]
    fn plain_parts_come_back_as_they_were_sent(key in ".{0,12}", string in ".{0,40}") {
        // Of these the plan knows more.
        prop_assume!(!matches!(key.as_str(), "a" | "b"));
        let mut sent = b"[{".to_vec();
        json_string(key.as_bytes(), &mut sent);
        sent.extend_from_slice(b": [");
        json_string(string.as_bytes(), &mut sent);
        sent.extend_from_slice(b", -1.5e3, true]}, {\"a\": 5}]");
        prop_assert_eq!(opened(&shapes()[0], Format::Text, &sent).unwrap(), sent);
    }
}
