//! DDL of this session that is not committed: the snapshot of the schema does not show it, and statements in the same
//! transaction already mean what it made. What is noted here is more than there is; nothing is refused but writes, and
//! searches with values.
use crate::refusal::{Class, Refusal};
use crate::sql::plan::Verdict;
use crate::sql::{self, Context};

use super::machine::Machine;

/// What DDL has done since the schema was read outside of a transaction.
#[derive(Debug, Default)]
pub(super) struct Uncommitted {
    /// A schema may have another name.
    moved: bool,
    /// A type of schema `rowseal` was named.
    seals: bool,
    /// A domain may have been made over such a type. The session's own server is not asked about those.
    domains: bool,
    /// Relations that may have columns of such a type.
    tables: Vec<String>,
}

impl Uncommitted {
    /// Notes a text that may change the schema.
    pub(super) fn note(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text).to_lowercase();
        let words = words(&text);
        let has = |word: &str| words.contains(&word);
        self.moved |= (has("rename") && has("schema")) || has("do") || has("call");
        self.seals |= text.contains("rowseal");
        self.domains |= self.seals && has("domain");
        if self.seals {
            self.tables.extend(made(&words));
        }
    }

    /// True when a text names a relation that may have sealed columns of which nothing is known.
    pub(super) fn names(&self, text: &[u8]) -> bool {
        if self.tables.is_empty() {
            return false;
        }
        let text = String::from_utf8_lossy(text).to_lowercase();
        let parts = words(&text).into_iter().flat_map(|word| word.split('.'));
        parts.map(bare).any(|part| self.tables.iter().any(|table| table == part))
    }

    /// True when what the session's own server tells is not all.
    pub(super) fn is_beyond_own_schema(&self) -> bool {
        self.domains
    }

    /// Refuses values for such a relation.
    ///
    /// # Errors
    /// 0A000.
    pub(super) fn refuse_values(&self, text: &[u8]) -> Result<(), Refusal> {
        if !self.names(text) {
            return Ok(());
        }
        let text = String::from_utf8_lossy(text);
        if sql::writes(&text) || sql::has_values(&text) {
            return Err(Refusal::new(
                Class::NotSupported,
                "a table that this transaction has made with sealed columns cannot be used with values yet",
            )
            .hint("Commit first."));
        }
        Ok(())
    }
}

impl Machine {
    /// True when a statement that is to be passed on may give a value to a sealed table that is not seen to be one.
    pub(super) fn is_uncertain(&self, text: &str, context: &Context<'_>) -> bool {
        (sql::writes(text) && sql::names_sealed(text, context))
            || (self.uncommitted.moved && sql::gives_sealed(text, context))
    }
}

/// The parts of a text that are passed on as they are.
pub(super) fn passed_on<'t>(verdict: &Verdict, text: &'t str) -> impl Iterator<Item = &'t str> {
    let plans = match verdict {
        Verdict::Rewrite(plans) => {
            plans.iter().filter(|plan| plan.values.is_empty() && plan.edits.is_empty()).collect()
        }
        Verdict::Pass | Verdict::Refuse(_) | Verdict::Ask(_) => Vec::new(),
    };
    let whole = matches!(verdict, Verdict::Pass).then_some(text);
    let parts: Vec<&str> = plans.into_iter().filter_map(|plan| text.get(plan.range.clone())).chain(whole).collect();
    parts.into_iter()
}

/// Words, names with their dots and quotes.
fn words(text: &str) -> Vec<&str> {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.' | '"');
    text.split(|c| !part(c)).filter(|word| !word.is_empty()).collect()
}

/// The names that stand behind TABLE, VIEW and TO, without schemas.
fn made(words: &[&str]) -> Vec<String> {
    let renames = words.contains(&"rename");
    let before = |at: usize| matches!(words[at], "table" | "view") || (renames && words[at] == "to");
    let named = |at: usize| {
        let name = words[at + 1..].iter().find(|word| !matches!(**word, "if" | "not" | "exists" | "only"))?;
        Some(bare(name.rsplit('.').next()?).to_owned()).filter(|name| !name.is_empty())
    };
    (0..words.len()).filter(|at| before(*at)).filter_map(named).collect()
}

fn bare(name: &str) -> &str {
    name.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::Uncommitted;

    #[test]
    fn what_was_made_is_noted() {
        let noted = |texts: &[&str]| {
            let mut all = Uncommitted::default();
            texts.iter().for_each(|text| all.note(text.as_bytes()));
            all
        };
        let made = noted(&["CREATE TABLE IF NOT EXISTS public.\"Ab c\"(email rowseal.text)"]);
        assert!(made.names(b"insert into public.\"Ab c\" values") && !made.names(b"insert into abc"));
        let made = noted(&["CREATE DOMAIN mail AS rowseal.text", "CREATE TABLE t (m mail); ALTER TABLE t RENAME TO u"]);
        assert!(made.names(b"INSERT INTO t") && made.names(b"INSERT INTO U"));
        let made = noted(&["CREATE TABLE t (m text)", "ALTER TABLE t ADD COLUMN x int"]);
        assert!(!made.names(b"INSERT INTO t") && !made.moved);
        assert!(noted(&["ALTER SCHEMA a RENAME TO b"]).moved);
    }
}
