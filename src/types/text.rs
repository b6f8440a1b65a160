//! text and varchar: UTF-8 without zero bytes.
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
    let kept = match limit {
        Some(limit) => within(value, limit)?,
        None => value,
    };
    canonical(kept, out);
    Ok(())
}

fn within(value: &str, limit: u32) -> Result<&str, ValueError> {
    let characters = usize::try_from(limit).unwrap_or(usize::MAX);
    let Some((end, _)) = value.char_indices().nth(characters) else { return Ok(value) };
    let (kept, excess) = value.split_at(end);
    if excess.bytes().all(|b| b == b' ') { Ok(kept) } else { Err(ValueError::TooLong { limit }) }
}
