//! Rows whose COPY was not begun. psql, which reads a file on, takes them for a statement and sends them as one; the server
//! would answer with a syntax error, and have them in its log.
use crate::refusal::{Class, Refusal};

/// The words that a statement of Postgres begins with.
const FIRST: &[&str] = &[
    "abort",
    "alter",
    "analyse",
    "analyze",
    "begin",
    "call",
    "checkpoint",
    "close",
    "cluster",
    "comment",
    "commit",
    "copy",
    "create",
    "deallocate",
    "declare",
    "delete",
    "discard",
    "do",
    "drop",
    "end",
    "execute",
    "explain",
    "fetch",
    "grant",
    "import",
    "insert",
    "listen",
    "load",
    "lock",
    "merge",
    "move",
    "notify",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "release",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "security",
    "select",
    "set",
    "show",
    "start",
    "table",
    "truncate",
    "unlisten",
    "update",
    "vacuum",
    "values",
    "with",
];

/// True for a COPY whose rows the client sends.
pub(super) fn copies(text: &[u8]) -> bool {
    let takes_rows = || memchr::memmem::find(&text.to_ascii_lowercase(), b"stdin").is_some();
    first_word(text).is_some_and(|word| word.eq_ignore_ascii_case(b"copy")) && takes_rows()
}

/// True for a text that no statement begins with. An empty one is none of these.
pub(super) fn is_no_statement(text: &[u8]) -> bool {
    if text.iter().all(|byte| byte.is_ascii_whitespace() || *byte == b';') {
        return false;
    }
    let known = |word: &[u8]| FIRST.iter().any(|first| word.eq_ignore_ascii_case(first.as_bytes()));
    !first_word(text).is_some_and(known)
}

/// What the client is told in place of the server's syntax error.
pub(super) fn refused() -> Refusal {
    Refusal::new(Class::NotSupported, "what follows a COPY over sealed columns is no statement")
        .detail("The rows of a COPY that was not begun were sent as a statement.")
        .hint("See to the error of the COPY.")
}

/// The word behind white space, comments and parentheses.
fn first_word(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    loop {
        let skipped = rest.iter().take_while(|byte| byte.is_ascii_whitespace() || matches!(byte, b';' | b'(')).count();
        rest = &rest[skipped..];
        let comment = match rest {
            [b'-', b'-', ..] => memchr::memchr(b'\n', rest)? + 1,
            [b'/', b'*', ..] => memchr::memmem::find(rest, b"*/")? + 2,
            _ => break,
        };
        rest = &rest[comment..];
    }
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | 0x80..)).count();
    (length > 0).then(|| &rest[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_no_statements() {
        for row in
            ["1\tada\n\\.\n", "ada\t1", "\\N\tx", "'a',b\n\\.\nselect 1", "-- ", "selected\t1", "é\tselect", "{1}"]
        {
            assert!(is_no_statement(row.as_bytes()), "{row}");
        }
        for text in ["", " ; ", "select 1", "\n -- c\n /* d */ ((SELECT 1))", "Table t", "with x as (select 1) table x"]
        {
            assert!(!is_no_statement(text.as_bytes()), "{text}");
        }
        assert!(copies(b" /* c */ COPY t from stdin") && !copies(b"copying stdin") && !copies(b"COPY t TO stdout"));
    }
}
