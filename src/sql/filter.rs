//! The lexical filter: one scan that says whether a text needs to be looked at.
use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind};

use crate::catalog::Catalog;

/// What a scan found. All flags over-approximate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hits {
    /// Names a relation that exposes a sealed column, or may do so with `U&"`.
    pub touches: bool,
    /// May change session facts (search_path, role, tenant ...).
    pub facts: bool,
    /// May change the schema.
    pub ddl: bool,
    /// Works on SQL-level prepared statements or cursors, or cannot be looked into (COPY, DO).
    pub sql_prepare: bool,
}

/// The scanner for one catalog.
#[derive(Debug)]
pub struct Filter {
    patterns: AhoCorasick,
    /// The ASCII parts, in lower case, of each name that is not all ASCII: how a text writes the rest of it depends on
    /// the client's encoding.
    encoded: Vec<Vec<String>>,
    /// How many patterns come before those that mean a sealed relation: the setters, then functions that may set.
    setting: usize,
    /// How many come before those of relations: behind `setting` functions that give cells.
    calling: usize,
}

/// What changes settings wherever it stands in a text.
const SETTERS: [&str; 2] = ["set_config", "pg_settings"];

impl Filter {
    /// A filter for the relations of a catalog.
    ///
    /// # Errors
    /// When there are too many names.
    pub fn new(catalog: &Catalog) -> Result<Self, BuildError> {
        let mut names: Vec<String> = SETTERS.iter().map(ToString::to_string).collect();
        names.extend(catalog.setters.iter().cloned());
        let setting = names.len();
        names.extend(catalog.calls().flat_map(|name| written(name)));
        let calling = names.len();
        names.push("u&\"".to_owned());
        names.extend(catalog.needles().iter().flat_map(|name| written(name)));
        let kind = if names.len() < 2000 { Some(AhoCorasickKind::DFA) } else { None };
        let patterns = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(kind)
            .build(names)?;
        let all = catalog.needles().iter().chain(catalog.calls());
        let encoded = all.filter(|name| !name.is_ascii()).map(|name| ascii_parts(name)).collect();
        Ok(Filter { patterns, encoded, setting, calling })
    }

    /// Scans a text.
    pub fn scan(&self, text: &[u8]) -> Hits {
        let mut hits = Hits { touches: self.may_name_encoded(text), ..Hits::default() };
        for found in self.patterns.find_overlapping_iter(text) {
            match found.pattern().as_usize() {
                pattern if pattern >= self.calling => hits.touches = true,
                pattern if pattern >= self.setting => hits.touches |= is_word(text, found.range()),
                // An operator stands where it likes.
                pattern => {
                    let symbol = !text[found.start()].is_ascii_alphanumeric() && text[found.start()] != b'_';
                    hits.facts |= pattern < SETTERS.len() || symbol || is_word(text, found.range());
                }
            }
        }
        leading(text, &mut hits);
        for semicolon in memchr::memchr_iter(b';', text) {
            leading(&text[semicolon + 1..], &mut hits);
        }
        hits
    }

    /// True when a text that is not ASCII has the ASCII parts of a name that is not.
    fn may_name_encoded(&self, text: &[u8]) -> bool {
        if self.encoded.is_empty() || text.is_ascii() {
            return false;
        }
        let text = text.to_ascii_lowercase();
        let named =
            |parts: &Vec<String>| parts.iter().all(|part| memchr::memmem::find(&text, part.as_bytes()).is_some());
        self.encoded.iter().any(named)
    }
}

/// True when what stands there is not a part of a longer name.
fn is_word(text: &[u8], range: std::ops::Range<usize>) -> bool {
    let part = |at: Option<usize>| {
        at.and_then(|at| text.get(at)).is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | 0x80..))
    };
    !part(range.start.checked_sub(1)) && !part(Some(range.end))
}

/// How a text may have a name: as it is, and with its quotes doubled.
fn written(name: &str) -> impl Iterator<Item = String> {
    let doubled = name.contains('"').then(|| name.replace('"', "\"\""));
    std::iter::once(name.to_owned()).chain(doubled)
}

fn ascii_parts(name: &str) -> Vec<String> {
    name.split(|c: char| !c.is_ascii()).filter(|part| !part.is_empty()).map(str::to_ascii_lowercase).collect()
}

/// Looks at the first word of a statement.
fn leading(text: &[u8], hits: &mut Hits) {
    let text = skip_blanks(text);
    let end = text.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(text.len()).min(16);
    let mut word = [0u8; 16];
    word[..end].copy_from_slice(&text[..end]);
    word.make_ascii_lowercase();
    match &word[..end] {
        b"discard" => (hits.facts, hits.ddl) = (true, true),
        b"set" | b"reset" | b"rollback" | b"abort" | b"commit" | b"end" => hits.facts = true,
        // Membership of roles, and their names, decide what is shown.
        b"grant" | b"revoke" => hits.facts = true,
        b"alter" | b"drop" => (hits.ddl, hits.facts) = (true, true),
        // It may EXECUTE what changes a setting.
        b"create" => (hits.ddl, hits.facts) = (true, true),
        b"explain" => hits.facts = true,
        b"prepare" => (hits.sql_prepare, hits.facts) = (true, true),
        b"execute" | b"fetch" | b"move" => (hits.sql_prepare, hits.facts) = (true, true),
        b"declare" | b"deallocate" | b"copy" => hits.sql_prepare = true,
        b"do" | b"call" => (hits.sql_prepare, hits.facts, hits.ddl) = (true, true, true),
        _ => {}
    }
}

/// True for a text that is nothing but the end of a transaction, or of a part of it: COMMIT, END, ROLLBACK, ABORT, also TO
/// a savepoint. It names no table, whatever its words look like; and in a transaction that has failed, where no question
/// would be answered, it is what the server still carries out.
pub fn ends_transaction(text: &[u8]) -> bool {
    const START: &[&str] = &["commit", "end", "rollback", "abort"];
    const REST: &[&str] = &["work", "transaction", "and", "no", "chain", "to", "savepoint"];
    let one_of = |word: &[u8], words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()));
    let (mut rest, mut before): (_, &[u8]) = (skip_blanks(text), b"");
    while !rest.is_empty() {
        let end = match rest {
            [b'"', tail @ ..] => memchr::memchr(b'"', tail).map_or(0, |at| at + 2),
            _ => rest.iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'_').unwrap_or(rest.len()),
        };
        let (word, tail) = rest.split_at(end);
        rest = skip_blanks(tail);
        let known = one_of(word, if before.is_empty() { START } else { REST });
        let name = rest.is_empty() && one_of(before, &["to", "savepoint"]);
        if word.is_empty() || !(known || name) {
            return false;
        }
        before = word;
    }
    !before.is_empty()
}

/// Skips blanks, comments and opening parentheses.
pub fn skip_blanks(mut text: &[u8]) -> &[u8] {
    loop {
        match text {
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | b'(' | b';', rest @ ..] => text = rest,
            [b'-', b'-', rest @ ..] => {
                let end = rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
                text = &rest[end..];
            }
            [b'/', b'*', rest @ ..] => text = skip_comment(rest),
            _ => return text,
        }
    }
}

fn skip_comment(text: &[u8]) -> &[u8] {
    let (mut depth, mut i) = (1usize, 0);
    while i + 1 < text.len() {
        match &text[i..i + 2] {
            b"/*" => (depth, i) = (depth + 1, i + 2),
            b"*/" => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return &text[i..];
        }
    }
    &[]
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_transaction_is_nothing_else() {
        for text in [
            "COMMIT",
            "end;",
            "ROLLBACK /* controller='users' */",
            "-- users\nrollback to savepoint \"users 1\" ;",
            "ABORT WORK AND NO CHAIN",
        ] {
            assert!(ends_transaction(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "SELECT 1",
            "commits",
            "COMMIT; INSERT INTO users VALUES ('x')",
            "COMMIT PREPARED 'users'",
            "ROLLBACK TO \"x",
            "COMMIT INSERT INTO users DEFAULT VALUES",
            "END $$ users $$",
            "COMMIT -- x\rINSERT INTO users",
            "COMMIT; TABLE users",
            "ROLLBACK TO; TABLE users",
        ] {
            assert!(!ends_transaction(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn finds_what_matters() {
        let filter = Filter::new(&crate::sql::cases::catalog()).unwrap();
        let none = Hits::default();
        for (text, expected) in [
            ("SELECT 1", none),
            ("SELECT * FROM USERS", Hits { touches: true, ..none }),
            ("SELECT * FROM \"Odd\"", Hits { touches: true, ..none }),
            ("SELECT u&\"x\"", Hits { touches: true, ..none }),
            ("  /* a /* b */ */ -- c\n set x = 1", Hits { facts: true, ..none }),
            ("SELECT 1; RESET ALL", Hits { facts: true, ..none }),
            ("SELECT settings", none),
            ("SELECT set_config('a', 'b', true)", Hits { facts: true, ..none }),
            ("begin;Rollback", Hits { facts: true, ..none }),
            ("Revoke staff FROM joe", Hits { facts: true, ..none }),
            ("CREATE TABLE x ()", Hits { ddl: true, facts: true, ..none }),
            ("EXPLAIN ANALYZE EXECUTE p", Hits { facts: true, ..none }),
            ("DISCARD TEMP", Hits { facts: true, ddl: true, ..none }),
            ("UPDATE pg_settings SET setting = 'a'", Hits { facts: true, ..none }),
            ("SELECT Enter_Tenant(7)", Hits { facts: true, ..none }),
            ("SELECT enter_tenants(7)", none),
            ("EXECUTE p(1)", Hits { sql_prepare: true, facts: true, ..none }),
            ("((SELECT 1))", none),
            ("/* open", none),
            ("", none),
        ] {
            assert_eq!(filter.scan(text.as_bytes()), expected, "{text}");
        }
    }
}
