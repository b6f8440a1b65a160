//! bpchar: text whose trailing blanks are padding. The canonical form of `char(n)` is padded to n characters, as
//! `bpcharsend` gives it.
use super::ValueError;

const NAME: &str = "character";

/// Cut or padded to the limit; only blanks may be cut.
pub(super) fn canonical(value: &str, limit: Option<u32>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let kept = super::text::within(value, limit, NAME)?;
    out.extend_from_slice(kept.as_bytes());
    let missing = limit.map_or(0, |limit| usize::try_from(limit).unwrap_or(0).saturating_sub(kept.chars().count()));
    out.resize(out.len() + missing, b' ');
    Ok(())
}

/// Without the padding.
pub(super) fn token_form(canonical: &[u8]) -> &[u8] {
    let end = canonical.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    &canonical[..end]
}
