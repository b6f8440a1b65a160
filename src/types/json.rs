//! json: kept as it was written, once it is seen to be a document.
use serde::de::IgnoredAny;

use super::ValueError;

/// The canonical form is the text itself, white space and repeated keys included.
pub(super) fn canonical(document: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    // Only the grammar counts here, as in Postgres: numbers of any size and escapes of any code point are taken.
    serde_json::from_str::<IgnoredAny>(document).map_err(|_| ValueError::BadText { ty: "json" })?;
    out.extend_from_slice(document.as_bytes());
    Ok(())
}
