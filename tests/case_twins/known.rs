//! Differences that are known, each with its reason and exactly the answers it covers.
use super::files::Case;

/// Both answers to a case, as they are compared.
pub struct Told<'a> {
    pub case: &'a Case,
    /// What was sent: the case's statement, or one with parameters in place of literals.
    pub sql: &'a str,
    pub plain: &'a str,
    pub sealed: &'a str,
}

/// Why the answers may differ, if they may.
pub fn reason(_told: &Told<'_>) -> Option<&'static str> {
    None
}
