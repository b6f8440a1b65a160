//! text, varchar and citext: UTF-8 without zero bytes.
use super::ValueError;

/// The bytes as text, when Postgres would take them in a UTF-8 database.
pub(super) fn checked(bytes: &[u8]) -> Result<&str, ValueError> {
    if memchr::memchr(0, bytes).is_some() {
        return Err(ValueError::BadEncoding);
    }
    std::str::from_utf8(bytes).map_err(|_| ValueError::BadEncoding)
}

/// The canonical form is the text.
pub(super) fn canonical(value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(value.as_bytes());
}

/// The same for varchar(n): blanks past the limit are dropped on assignment, anything else there is an error.
pub(super) fn canonical_limited(value: &str, limit: Option<u32>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    canonical(within(value, limit, "character varying")?, out);
    Ok(())
}

/// The part of a value that a type of limited length keeps.
pub(super) fn within<'a>(value: &'a str, limit: Option<u32>, ty: &'static str) -> Result<&'a str, ValueError> {
    let Some(limit) = limit else { return Ok(value) };
    let characters = usize::try_from(limit).unwrap_or(usize::MAX);
    let Some((end, _)) = value.char_indices().nth(characters) else { return Ok(value) };
    let (kept, excess) = value.split_at(end);
    if excess.bytes().all(|b| b == b' ') { Ok(kept) } else { Err(ValueError::TooLong { ty, limit }) }
}

/// What citext compares: each character in lower case by itself, whatever stands beside it and whatever the locale, so
/// that a token never depends on a server's settings. Bytes that are no text stay as they are.
pub(super) fn folded(canonical: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(canonical) {
        Ok(text) => text.chars().flat_map(char::to_lowercase).collect::<String>().into_bytes(),
        Err(_) => canonical.to_vec(),
    }
}
