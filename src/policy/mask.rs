//! What a masked value looks like.
use super::Mask;

/// The masked form of a text value; `None` is NULL.
///
/// Characters are counted, not bytes. A value with no more characters than a rule keeps is shown whole, as the rule
/// says.
///
/// # Secrets
/// What the rule keeps is plaintext: the result goes to the client or is dropped, never logged.
pub fn apply(mask: &Mask, value: &str) -> Option<String> {
    match mask {
        Mask::Null => None,
        Mask::Fixed(text) => Some(text.clone()),
        Mask::KeepFirst(n) => Some(starred(value, |i, _| i < *n as usize)),
        Mask::KeepLast(n) => Some(starred(value, |i, length| i + *n as usize >= length)),
    }
}

fn starred(value: &str, keeps: impl Fn(usize, usize) -> bool) -> String {
    let length = value.chars().count();
    value.chars().enumerate().map(|(i, c)| if keeps(i, length) { c } else { '*' }).collect()
}
