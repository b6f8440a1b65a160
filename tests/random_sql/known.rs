//! Differences that are known, each with its reason: why it is not mended, and exactly which answers it covers.
use super::grammar::Step;

/// The answers to one statement on either side, as [`show`](crate::support::peer::show) writes them.
pub struct Answers<'a> {
    pub step: &'a Step,
    pub plain: &'a str,
    pub sealed: &'a str,
    /// What another connection has done to the tables before.
    pub elsewhere: &'a [String],
}

/// Why two answers may differ, if they may.
pub fn reason(answers: &Answers<'_>) -> Option<&'static str> {
    let Answers { step, plain, sealed, elsewhere } = answers;
    // What the proxy would have to read first is not sent on in a failed transaction: a statement that is no SQL and one
    // that is get the same answer there.
    if alone(plain, "42601") && alone(sealed, "25P02") {
        return Some("in a failed transaction nothing is read");
    }
    // Only the server knows that a name is gone, and by then the values for it have been read.
    if step.sql.to_ascii_lowercase().starts_with("execute") && alone(plain, "26000") && is_error(sealed) {
        return Some("EXECUTE of a name that is gone is read before the server looks for it");
    }
    // A star that is written out has the columns that the proxy knew of; it reads the schema again within a second.
    let added = elsewhere.iter().any(|sql| sql.contains("ADD COLUMN extra"));
    if added && step.sql.contains('*') && !plain.contains("E(ERROR") && but_column(plain, "extra", sealed) {
        return Some("a column added from elsewhere is not yet in *");
    }
    // The server's planner leaves such a NULL out, and what is left has the column's length. Before it is planned, in the
    // description of a prepared statement, it has none, on either side.
    if step.sql.contains(", NULL)") && step.sql.to_ascii_lowercase().contains("coalesce(") && but_length(plain, sealed)
    {
        return Some("coalesce of a varchar and NULL has no length");
    }
    None
}

/// True when an answer has a column that the other, which is no error, does not have.
fn but_column(plain: &str, column: &str, sealed: &str) -> bool {
    let (field, labels) = (format!("{column}:["), |shown: &str| shown.matches(":[0, ").count());
    let twice = labels(plain) == labels(sealed) + plain.matches(&field).count();
    plain.contains(&field) && !sealed.contains(&field) && !sealed.contains("E(ERROR") && twice
}

/// True for answers that are the same but for the length of a varchar(12) that is no table's column.
fn but_length(plain: &str, sealed: &str) -> bool {
    let without = |shown: &str| {
        shown.replace(
            "[0, 0, 0, 0, 4, 19, 255, 255, 0, 0, 0, 16, ",
            "[0, 0, 0, 0, 4, 19, 255, 255, 255, 255, 255, 255, ",
        )
    };
    !plain.contains("E(ERROR") && without(plain) == without(sealed)
}

/// True for an answer that is one error of this SQLSTATE.
fn alone(shown: &str, code: &str) -> bool {
    is_error(shown) && shown.starts_with(&format!("E(ERROR {code})"))
}

/// True for an answer that is an error and nothing else.
fn is_error(shown: &str) -> bool {
    shown.starts_with("E(ERROR ") && shown.split(' ').count() == 3
}
