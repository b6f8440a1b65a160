//! What a masked value looks like.
use super::Mask;

/// How many characters [`Mask::Hash`] shows.
pub const HASH_CHARS: u32 = 32;

/// The masked form of a text value; `None` is NULL. `hash` computes what [`Mask::Hash`] shows.
///
/// Characters are counted, not bytes. A value with no more characters than a rule keeps is shown whole, as the rule
/// says.
///
/// # Secrets
/// What the rule keeps is plaintext: the result goes to the client or is dropped, never logged.
pub fn apply(mask: &Mask, value: &str, hash: impl FnOnce() -> Option<String>) -> Option<String> {
    match mask {
        Mask::Null => None,
        Mask::Fixed(text) => Some(text.clone()),
        Mask::Hash => hash(),
        Mask::KeepFirst(n) => Some(starred(value, |i, _| i < *n as usize)),
        Mask::KeepLast(n) => Some(starred(value, |i, length| i + *n as usize >= length)),
    }
}

fn starred(value: &str, keeps: impl Fn(usize, usize) -> bool) -> String {
    let length = value.chars().count();
    value.chars().enumerate().map(|(i, c)| if keeps(i, length) { c } else { '*' }).collect()
}
