//! bool.
use super::{ValueError, trimmed};

/// Any unambiguous beginning of true, false, yes, no, on, off, and 1 and 0.
pub(super) fn parse(bytes: &[u8]) -> Result<bool, ValueError> {
    let word = trimmed(bytes).to_ascii_lowercase();
    match word.as_slice() {
        b"1" | b"on" => Ok(true),
        b"0" | b"of" | b"off" => Ok(false),
        [] => Err(ValueError::BadText { ty: "boolean" }),
        begin if b"true".starts_with(begin) || b"yes".starts_with(begin) => Ok(true),
        begin if b"false".starts_with(begin) || b"no".starts_with(begin) => Ok(false),
        _ => Err(ValueError::BadText { ty: "boolean" }),
    }
}
