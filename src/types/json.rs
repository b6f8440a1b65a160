//! json: kept as it was written, once it is seen to be a document.
use serde::de::IgnoredAny;

use super::ValueError;

const BAD: ValueError = ValueError::BadText { ty: "json" };
/// Deeper documents are refused: Postgres runs out of stack somewhere beyond.
const DEPTH_MAX: usize = 512;

/// The canonical form is the text itself, white space and repeated keys included.
pub(super) fn canonical(document: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    // Only the grammar counts here, as in Postgres: numbers of any size and escapes of any code point are taken.
    serde_json::from_str::<IgnoredAny>(document).map_err(|_| BAD)?;
    if depth(document) > DEPTH_MAX {
        return Err(BAD);
    }
    out.extend_from_slice(document.as_bytes());
    Ok(())
}

/// The most arrays and objects that lie in each other, of a document that is one.
fn depth(document: &str) -> usize {
    let (mut depth, mut deepest, mut in_string) = (0_usize, 0, false);
    let mut bytes = document.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => drop(bytes.next()),
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
