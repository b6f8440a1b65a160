//! The members of an array as a client sends it, in text or binary form. Pure functions on bytes.
use std::borrow::Cow;

use crate::refusal::Refusal;
use crate::types::{Format, ValueError};

use super::seal::bad_value;

/// One member: its bytes in the array's own format; `None` for NULL.
pub type Member<'a> = Option<Cow<'a, [u8]>>;

/// An array as it was sent.
pub struct Array<'a> {
    /// OID of the type of its members, where it is known: the binary form says it, else the declared type of the array.
    pub element: Option<u32>,
    /// Its members, of any number of dimensions, in order.
    pub members: Vec<Member<'a>>,
}

/// Reads an array that was declared to be of this type (0 when it was not).
///
/// # Errors
/// 22P02 or 22P03 for bytes that are not an array.
pub fn array(format: Format, bytes: &[u8], declared: u32) -> Result<Array<'_>, Refusal> {
    let found = match format {
        Format::Text => {
            let bad = || if is_nested(bytes) { ValueError::Dimensions } else { ValueError::BadText { ty: "array" } };
            let members = text(bytes).ok_or_else(bad);
            members.map(|members| Array { element: element_oid(declared), members })
        }
        Format::Binary => binary(bytes).ok_or(ValueError::BadBinary { ty: "array" }),
    };
    found.map_err(|error| bad_value(&error))
}

/// The type of the members of an array type that a client may declare in place of a column's own.
fn element_oid(array: u32) -> Option<u32> {
    match array {
        1005 => Some(21),
        1007 => Some(23),
        1016 => Some(20),
        1009 => Some(25),
        1015 => Some(1043),
        1014 => Some(1042),
        _ => None,
    }
}

/// Dimensions (at most 6), flags, element type, size and lower bound of each dimension, then length and bytes of each
/// member.
fn binary(bytes: &[u8]) -> Option<Array<'_>> {
    let mut rest = bytes;
    let dimensions = take(&mut rest)?;
    let _flags = take(&mut rest)?;
    let element = u32::try_from(take(&mut rest)?).ok()?;
    if !(0..=6).contains(&dimensions) {
        return None;
    }
    let mut count = usize::from(dimensions > 0);
    for _ in 0..dimensions {
        count = count.checked_mul(usize::try_from(take(&mut rest)?).ok()?)?;
        let _lower = take(&mut rest)?;
    }
    let mut members = Vec::new();
    for _ in 0..count {
        let length = take(&mut rest)?;
        if length == -1 {
            members.push(None);
            continue;
        }
        let (member, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        members.push(Some(Cow::Borrowed(member)));
        rest = after;
    }
    rest.is_empty().then_some(Array { element: Some(element), members })
}

fn take(rest: &mut &[u8]) -> Option<i32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(i32::from_be_bytes(*number))
}

/// `{a,"b c",NULL}`, one dimension. Bounds before it (`[0:1]=`) are skipped.
pub fn text(bytes: &[u8]) -> Option<Vec<Member<'_>>> {
    let mut rest = bytes.trim_ascii();
    if rest.starts_with(b"[") {
        let equals = rest.iter().position(|b| *b == b'=')?;
        rest = rest[equals + 1..].trim_ascii_start();
    }
    rest = rest.strip_prefix(b"{")?.strip_suffix(b"}")?.trim_ascii();
    let mut members = Vec::new();
    if rest.is_empty() {
        return Some(members);
    }
    loop {
        let (member, after) = member(rest)?;
        members.push(member);
        match after.split_first() {
            None => return Some(members),
            Some((b',', after)) => rest = after.trim_ascii_start(),
            Some(_) => return None,
        }
    }
}

/// True for what begins as the text form of an array of several dimensions, which is not taken apart here.
fn is_nested(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii();
    let head = bytes.iter().position(|b| *b == b'=').filter(|_| bytes.starts_with(b"["));
    let rest = head.map_or(bytes, |equals| bytes[equals + 1..].trim_ascii_start());
    rest.strip_prefix(b"{").is_some_and(|inside| inside.trim_ascii_start().starts_with(b"{"))
}

/// One member, and what comes after it and after blanks.
fn member(bytes: &[u8]) -> Option<(Member<'_>, &[u8])> {
    let quoted = bytes.first() == Some(&b'"');
    let (mut value, mut at, mut kept) = (Vec::new(), usize::from(quoted), 0);
    loop {
        match (bytes.get(at), quoted) {
            (Some(b'\\'), _) => {
                value.push(*bytes.get(at + 1)?);
                at += 2;
                kept = value.len();
            }
            (Some(b'"'), true) => {
                return Some((Some(Cow::Owned(value)), bytes[at + 1..].trim_ascii_start()));
            }
            (None, true) | (Some(b'"' | b'{' | b'}'), false) => return None,
            (None | Some(b','), false) => break,
            (Some(byte), _) => {
                value.push(*byte);
                at += 1;
                // Blanks at the end of a bare member are not part of it.
                if quoted || !byte.is_ascii_whitespace() {
                    kept = value.len();
                }
            }
        }
    }
    value.truncate(kept);
    let bare = &bytes[..at];
    match (value.is_empty(), bare.trim_ascii().eq_ignore_ascii_case(b"null")) {
        (true, _) => None,
        (_, true) => Some((None, &bytes[at..])),
        _ => Some((Some(Cow::Owned(value)), &bytes[at..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Class;

    fn read(text_form: &str) -> Option<Vec<Option<String>>> {
        let own = |m: Member<'_>| m.map(|m| String::from_utf8_lossy(&m).into_owned());
        text(text_form.as_bytes()).map(|members| members.into_iter().map(own).collect())
    }

    #[test]
    fn text_arrays_are_read_as_postgres_reads_them() {
        let some = |list: &[&str]| Some(list.iter().map(|s| Some((*s).to_owned())).collect::<Vec<_>>());
        assert_eq!(read("{}"), Some(vec![]));
        assert_eq!(read(" { a , b c ,\"d\\\"e\" } "), some(&["a", "b c", "d\"e"]));
        assert_eq!(read("{\"\",\"NULL\",nu\\ll}"), some(&["", "NULL", "null"]));
        assert_eq!(read("{NULL,x}"), Some(vec![None, Some("x".into())]));
        assert_eq!(read("[0:1]={a,b}"), some(&["a", "b"]));
        for bad in ["", "a", "{", "{a", "{a,}", "{,a}", "{\"a}", "{a\"b}", "{{a}}", "{a}b"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn text_arrays_of_several_dimensions_are_refused_by_name() {
        let class = |text: &str| array(Format::Text, text.as_bytes(), 0).map(|_| ()).map_err(|refusal| refusal.class);
        for nested in ["{{a,b},{c,d}}", " { {a}}", "[1:1][1:2]={{a,b}}"] {
            assert_eq!(class(nested), Err(Class::NotSupported), "{nested}");
        }
        for bad in ["{a", "{a,{b}}", "[1:2]={a}b"] {
            assert_eq!(class(bad), Err(Class::BadText), "{bad}");
        }
    }

    #[test]
    fn binary_arrays_are_read_within_their_bounds() {
        let good = b"\0\0\0\x01\0\0\0\0\0\0\0\x19\0\0\0\x02\0\0\0\x01\0\0\0\x01a\xff\xff\xff\xff";
        let expected = vec![Some(Cow::Borrowed(&b"a"[..])), None];
        let read = |bytes: &'static [u8]| binary(bytes).map(|array| (array.element, array.members));
        assert_eq!(read(good), Some((Some(25), expected)));
        assert_eq!(read(b"\0\0\0\0\0\0\0\0\0\0\0\x19"), Some((Some(25), vec![])));
        for end in 0..good.len() {
            assert_eq!(read(&good[..end]), None);
        }
    }
}
