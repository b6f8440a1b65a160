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
pub fn reason(told: &Told<'_>) -> Option<&'static str> {
    let Told { case, sql, plain, sealed } = told;
    if sealed.contains("another tenant than this session's") && !plain.contains("E(ERROR") {
        return Some("a session of one tenant is shown no row of another");
    }
    if sealed.contains("COPY of a query that searches sealed columns cannot be prepared") {
        return Some("COPY of a query that searches sealed columns goes by the simple protocol only");
    }
    if *sql == "CREATE OR REPLACE FUNCTION mail_of(int4) RETURNS text LANGUAGE sql AS 'SELECT 1'" {
        return Some("the function gives a sealed type here and a text there");
    }
    if case.file == "copied" && but_position(plain, sealed) {
        return Some("an error in a statement in two steps does not say where it is");
    }
    if plain.contains("function any_value(text) does not exist") && plain.replace("(text)", "(bytea)") == **sealed {
        return Some("a function that the server does not have is named with the type of cells");
    }
    if plain.contains("function unnest(unknown) is not unique") {
        return Some("an array without a type is read as one of the column that its elements go to");
    }
    if plain.contains("inconsistent types deduced for parameter") {
        return Some("a parameter for a sealed column may have another type elsewhere");
    }
    None
}

/// True for errors that are the same, but that one says no place.
fn but_position(plain: &str, sealed: &str) -> bool {
    let without = |shown: &str| shown.rsplit_once(" at ").map(|(before, _)| before.to_owned());
    sealed.ends_with(" at ;") && plain.contains("E(ERROR") && without(plain) == without(sealed)
}
