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
    let said = |word: &str| sealed.contains(word);
    if said("the tenant of the row is not known") && !plain.contains("E(ERROR") {
        return Some("a tenant that is NULL is none, where Postgres finds no rows");
    }
    if said("is not registered") && !plain.contains("E(ERROR") {
        return Some("a tenant is registered before its sealed values are written or searched");
    }
    if told_earlier(plain, sealed) {
        return Some("a value of a sealed column is judged at Parse or Bind, where the server does so at Execute");
    }
    if sql.starts_with("SELECT coalesce(v, $1), coalesce(v, $2::varchar)") && plain.contains("255, 255, 0, 0, 0, 24") {
        return Some("the server gives the length of a column beside a parameter that is NULL");
    }
    if *sql == "PREPARE p (numeric, unknown) AS UPDATE users SET email = 'SECRET' WHERE id = $1 AND account_id = 7" {
        return Some("a parameter that is declared and not used has a type here");
    }
    if said("cannot be kept when its row moves to another tenant") {
        return Some("a row moves to another tenant only with all of its sealed columns");
    }
    if said("a query that changes settings cannot also use sealed columns") {
        return Some("a setting and a sealed column do not stand in one simple query");
    }
    if case.file == "names" && plain.contains("E(ERROR 42703)") && said("E(ERROR 42703)") {
        return Some("a misspelt name is found before anything else of a text is run");
    }
    if plain.contains("E(ERROR 42P02)") && said("E(ERROR 42P02)") && sealed.ends_with(" at ;") {
        return Some("the first step of two says which parameter is not there");
    }
    if ["tableoid", "pg_catalog.format_type", "information_schema.columns", "SELECT c.oid"]
        .iter()
        .any(|word| sql.contains(word))
    {
        return Some("the catalog shows the numbers and types of what is stored");
    }
    if plain.contains("unique constraint \"mail_of_all\"") && said("C(INSERT") {
        return Some("an index over tokens of each tenant tells values within a tenant apart");
    }
    if sql.contains("ADD UNIQUE (account_id, email), ADD CONSTRAINT v UNIQUE") {
        return Some("constraints over sealed columns are indexes that are made after all others");
    }
    if *sql == "ALTER TABLE users DROP CONSTRAINT users_email_key" {
        return Some("a unique index may be dropped as the constraint that it stands for");
    }
    if plain.contains("schema \"rowseal\" does not exist") {
        return Some("only a protected database has the types and functions of rowseal");
    }
    if *sql == "ALTER TABLE users ALTER COLUMN email TYPE text" {
        return Some("a change to the type that a sealed column has is none");
    }
    if *sql == "CREATE UNIQUE INDEX ON users (account_id, email)" {
        return Some("an index without a name gets one from its expressions");
    }
    if case.file == "update" && sql.contains(" = (CASE WHEN") && plain.contains("C(UPDATE 2") {
        return Some("a parameter in a CASE that is cast is described as of the column's type");
    }
    if matches!(&*case.file, "copied" | "update") && but_position(plain, sealed) {
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

/// True for the same error of a value, which comes with less in front of it through the proxy.
fn told_earlier(plain: &str, sealed: &str) -> bool {
    let (Some(theirs), Some(ours)) = (plain.find("E(ERROR 22"), sealed.find("E(ERROR 22")) else { return false };
    plain[theirs..] == sealed[ours..] && plain[..theirs].starts_with(&sealed[..ours])
}

/// True for errors that are the same, but that one says no place.
fn but_position(plain: &str, sealed: &str) -> bool {
    let without = |shown: &str| shown.rsplit_once(" at ").map(|(before, _)| before.to_owned());
    sealed.ends_with(" at ;") && plain.contains("E(ERROR") && without(plain) == without(sealed)
}
