//! Differences that are known, each with its reason: why it is not mended, and exactly which answers it covers.
use super::grammar::{Run, Step};
use super::params::Param;

/// The answers to one statement on either side, as [`show`](crate::support::peer::show) writes them.
pub struct Answers<'a> {
    /// The statement, behind those of its case that came before.
    pub steps: &'a [Step],
    pub plain: &'a str,
    pub sealed: &'a str,
}

/// Why two answers may differ, if they may.
pub fn reason(answers: &Answers<'_>) -> Option<&'static str> {
    let Answers { steps, plain, sealed } = answers;
    let (step, before) = steps.split_last()?;
    let sql = step.sql.to_ascii_lowercase();
    // What the proxy would have to read first is not sent on in a failed transaction: a statement that is no SQL and one
    // that is get the same answer there.
    if alone(plain, "42601") && alone(sealed, "25P02") {
        return Some("in a failed transaction nothing is read");
    }
    // Only the server knows that a name is gone, and by then the values for it have been read.
    if sql.starts_with("execute") && alone(plain, "26000") && is_error(sealed) {
        return Some("EXECUTE of a name that is gone is read before the server looks for it");
    }
    // All values of a text are sealed before it is sent: one that cannot be is found before an earlier statement runs,
    // or fails. Nothing of the text is carried out on either side.
    if step.kind == "several" && alone(sealed, "22") && plain.contains("E(ERROR") {
        return Some("a bad value in a text of several statements comes first");
    }
    // So is a name that only the server can judge: it is asked about before any of the text is sent, and says no. Where the
    // text gives an error on the other side too, nothing of it is carried out on either.
    let misspelt = |shown: &str| ["42703", "42P01", "42702"].iter().any(|code| alone(shown, code));
    if step.kind == "several" && misspelt(sealed) && plain.contains("E(ERROR") {
        return Some("a misspelt name in a text of several statements comes first");
    }
    // The same of a table that the proxy does not yet know to be gone.
    let dropped = |step: &Step| step.run == Run::Aside && step.sql.contains("DROP TABLE");
    if before.iter().any(dropped) && alone(plain, "42P01") && alone(sealed, "22") {
        return Some("a bad value for a table that was dropped from elsewhere comes first");
    }
    // A star that is written out has the columns that the proxy knew of; it reads the schema again within a second.
    let added = |step: &Step| step.run == Run::Aside && step.sql.contains("ADD COLUMN extra");
    if before.iter().any(added) && sql.contains('*') && but_column(plain, "extra", sealed) {
        return Some("a column added from elsewhere is not yet in *");
    }
    // The texts of the two steps are the proxy's own.
    if (sql.contains("update") || step.kind == "insert select") && but_position(plain, sealed) {
        return Some("an error in a statement in two steps does not say where it is");
    }
    // That error is the proxy's: the server is not shown the statement.
    if alone(plain, "42P01") && same_message(plain, sealed) && sealed.contains("The policy has sealed columns for") {
        return Some("a table of the policy that does not exist is told without the place, and with a hint");
    }
    // A literal or parameter without a type is text in columns of VALUES, and where rows are told apart or put together; an
    // array without a type is none that unnest takes. The proxy reads both as values of the column that they go to.
    let texts = plain.contains("but expression is of type text") && alone(plain, "42804");
    if texts && ["values (", "distinct", "union"].iter().any(|word| sql.contains(word)) {
        return Some("a value without a type among several rows is read as one of its column");
    }
    if alone(plain, "42725") && plain.contains("unnest(unknown)") {
        return Some("an array without a type is read as one of the column that its elements go to");
    }
    // Such a parameter is described with the type of its column; to Postgres it is a text.
    if matches!(step.kind, "update from values" | "merge") && but_varchar(plain, sealed) {
        return Some("a parameter without a type in VALUES is described as its column's varchar");
    }
    // The SELECT is a statement of its own, or stands in a WITH: the server proposes columns of less.
    if step.kind == "insert select" && alone(plain, "42703") && but_proposal(plain, sealed) {
        return Some("a misspelt name in a statement in two steps is told without the columns of the other step");
    }
    // The server's planner leaves such a NULL out, and what is left has the column's length. Before it is planned, in the
    // description of a prepared statement, it has none, on either side.
    let coalesces = |step: &Step| {
        let sql = step.sql.to_ascii_lowercase().split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let null = |params: &[Param]| params.iter().any(|param| param.text.is_none());
        let bound = matches!(&step.run, Run::Extended { params, .. } if null(params));
        sql.contains("coalesce(") && (sql.contains(", null)") || bound)
    };
    if steps.iter().any(coalesces) && but_length(plain, sealed) {
        return Some("coalesce of a column and NULL has no length");
    }
    None
}

/// True for errors that are the same, but that one says no place.
fn but_position(plain: &str, sealed: &str) -> bool {
    let without = |shown: &str| shown.rsplit_once(" at ").map(|(before, _)| before.to_owned());
    sealed.ends_with(" at ;") && plain.contains("E(ERROR") && without(plain) == without(sealed)
}

/// True for answers that are the same but that a parameter is described as varchar in place of text.
fn but_varchar(plain: &str, sealed: &str) -> bool {
    let described = |shown: &str| {
        let (before, after) = shown.split_once(" t(")?;
        let (types, rest) = after.split_once(')')?;
        Some(format!("{before} t({}){rest}", types.replace(r"\x00\x00\x04\x13", r"\x00\x00\x00\x19")))
    };
    described(plain).is_some() && described(plain) == described(sealed)
}

/// True for errors that are the same but for the columns that they propose, and the place.
fn but_proposal(plain: &str, sealed: &str) -> bool {
    let said = |shown: &str| shown.split_once(" Perhaps you meant ").map(|(before, _)| before.to_owned());
    said(plain).is_some() && said(plain) == said(sealed)
}

/// True for errors with one SQLSTATE and message.
fn same_message(plain: &str, sealed: &str) -> bool {
    let said = |shown: &str| shown.rsplit_once("\" ").map(|(before, _)| before.to_owned());
    said(plain).is_some() && said(plain) == said(sealed)
}

/// True when an answer has a column that the other does not have, and neither is an error.
fn but_column(plain: &str, column: &str, sealed: &str) -> bool {
    let (field, fields) = (format!("{column}:["), |shown: &str| shown.matches(":[0, ").count());
    let more = plain.matches(&field).count();
    let errors = plain.contains("E(ERROR") || sealed.contains("E(ERROR");
    !errors && more > 0 && !sealed.contains(&field) && fields(plain) == fields(sealed) + more
}

/// True for answers that are the same but for the length of a varchar(12) or numeric(12,2) that is no table's column.
fn but_length(plain: &str, sealed: &str) -> bool {
    const TEXT: &str = "[0, 0, 0, 0, 4, 19, 255, 255, ";
    const NUMBER: &str = "[0, 0, 0, 0, 6, 164, 255, 255, ";
    let none = |kind: &str| format!("{kind}255, 255, 255, 255, ");
    let without = |shown: &str| {
        let shown = shown.replace(&format!("{TEXT}0, 0, 0, 16, "), &none(TEXT));
        shown.replace(&format!("{NUMBER}0, 12, 0, 6, "), &none(NUMBER))
    };
    !plain.contains("E(ERROR") && without(plain) == without(sealed)
}

/// True for an answer that is one error with a SQLSTATE that begins so.
fn alone(shown: &str, code: &str) -> bool {
    is_error(shown) && shown.starts_with(&format!("E(ERROR {code}"))
}

/// True for an answer that is an error and nothing else.
fn is_error(shown: &str) -> bool {
    let answer = shown.split(" \"").next().unwrap_or_default();
    answer.starts_with("E(ERROR ") && answer.split(' ').count() == 3
}
