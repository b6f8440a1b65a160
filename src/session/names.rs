//! Which statement a name means. A Bind carries plaintext unless its statement is known to be sealed, so where that is
//! not certain it waits, or goes on without its values.
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::catalog::Catalog;
use crate::refusal::{Class, Refusal};
use crate::sql::plan::{ParamRole, StatementPlan, Verdict};
use crate::sql::{self, Protocol, filter::skip_blanks};
use crate::wire::frame::{HEADER, Header};
use crate::wire::frontend;

use super::facts::Facts;
use super::machine::{Fatal, Held, Hold, Machine, Prepared};
use super::queue::Expect;

/// The last names of sealed statements that are no more.
#[derive(Default)]
pub(super) struct Gone(VecDeque<Bytes>);

impl Gone {
    const NAMES_MAX: usize = 64;

    pub(super) fn add(&mut self, name: Bytes) {
        if self.0.len() == Self::NAMES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(name);
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        self.0.retain(|gone| **gone != *name);
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.0.iter().any(|gone| **gone == *name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Machine {
    /// Postgres's own error for a statement on a table of the policy that does not exist. Sure only outside a transaction,
    /// which may have made it.
    pub(super) fn no_table(
        &self,
        text: &[u8],
        catalog: &Catalog,
        (facts, protocol): (&Facts, Protocol),
    ) -> Option<Refusal> {
        if self.status != b'I' || !self.queue.is_empty() {
            return None;
        }
        let context = sql::Context { catalog, search_path: &facts.search_path, protocol, declared: &[] };
        let name = sql::missing::missing_table(std::str::from_utf8(text).ok()?, &context)?;
        let hint = "The policy has sealed columns for this table: create it with them before it is used.";
        Some(Refusal::new(Class::NoTable, format!("relation \"{name}\" does not exist")).hint(hint))
    }

    /// A Parse has failed: its name means what it did before, also for a later Parse of that name under way. A sealed
    /// statement of before is only used where it seals what the failed one would have.
    pub(super) fn restore(&mut self, name: Bytes, before: Option<Arc<Prepared>>) {
        if let Some(later) = self.queue.before_next_parse(&name) {
            *later = before;
            return;
        }
        let failed = self.statements.get(&name);
        match before {
            Some(before) if failed.is_none_or(|failed| before.seals_like(failed)) => {
                self.statements.insert(name, before);
            }
            _ if self.statements.remove(&name).is_some() => self.gone.add(name),
            _ => {}
        }
    }

    /// A Parse over sealed tables that does not reach the server: what is bound to its name is not sent either, unless
    /// there is another sealed statement of that name.
    pub(super) fn forget(&mut self, tag: u8, body: &[u8]) {
        if tag == b'Q' {
            // Whatever else has that name: the values are not meant for it.
            for name in prepared_names(body).into_iter().filter(|name| !self.gone.contains(name)).collect::<Vec<_>>() {
                self.gone.add(Bytes::from(name));
            }
        }
        if tag != b'P' {
            return;
        }
        let Ok(parse) = frontend::parse(body) else { return };
        self.watched.refused(parse.name);
        if !self.statements.contains_key(parse.name) && self.scan(parse.text).touches {
            self.gone.add(Bytes::copy_from_slice(parse.name));
        }
    }

    /// A PREPARE over sealed tables has not succeeded, or not yet: an EXECUTE of its name has values that are not for the
    /// server, unless there is another sealed statement of that name that seals them too.
    pub(super) fn doubt(&mut self, name: &[u8], plan: &[StatementPlan]) {
        let older = self.statements.get(name).and_then(|older| older.plan.first().zip(plan.first()));
        if !older.is_some_and(|(older, new)| seals_like(older, new)) && !self.gone.contains(name) {
            self.gone.add(Bytes::copy_from_slice(name));
        }
    }

    /// The message that is held up is dropped; gives its tag.
    pub(super) fn drop_held(&mut self) -> Option<u8> {
        if matches!(self.hold, Some(Hold::Copy)) {
            return None;
        }
        if matches!(self.hold, Some(Hold::Schema(_))) {
            // The next message must not be planned with what is not loaded yet.
            self.reload = true;
        }
        let Some(
            Hold::Facts(held)
            | Hold::Names(held, _)
            | Hold::Lock(held, _)
            | Hold::Source(held, _)
            | Hold::Keys(held)
            | Hold::Schema(held),
        ) = self.hold.take()
        else {
            return None;
        };
        self.forget(held.tag, &held.body);
        Some(held.tag)
    }

    /// True while it is open what the statement's name means: a Parse of it is under way, and a Sync stands between that
    /// and this message. If the Parse fails, this message is carried out all the same, on the statement of before.
    pub(super) fn is_undecided(&self, header: Header, input: &BytesMut) -> bool {
        if self.parsed.is_none() && self.queue.is_empty() {
            return false;
        }
        let body = &input[HEADER..input.len().min(header.total)];
        let name = match header.tag {
            b'B' => frontend::bind_names(body).map(|(_, statement)| (b'S', statement)),
            _ => frontend::target(body),
        };
        let Ok((b'S', name)) = name else { return false };
        let parsed = self.parsed.as_ref().and_then(|parsed| parsed.get(name));
        parsed.is_some_and(|sync| self.queue.is_undecided(*sync)) || self.queue.prepares(name)
    }

    /// True when a Bind must not pass as it is: its statement is sealed, or was.
    pub(super) fn bind_is_sealed(&mut self, header: Header, input: &BytesMut) -> Result<bool, Fatal> {
        let have = input.len().min(header.total);
        match frontend::bind_names(&input[HEADER..have]) {
            Ok((_, statement)) => Ok(self.statements.contains_key(statement)
                || self.gone.contains(statement)
                || self.passed_elsewhere(statement)
                || self.is_watched(statement)),
            Err(_) if have < header.total => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// A Bind of a statement that passed: if it named a sealed table, it goes on only if it passes now too. What came of
    /// other changes has been looked at.
    pub(super) fn bind_passed(
        &mut self,
        body: &[u8],
        (portal, statement): (&[u8], &[u8]),
        facts: &Arc<Facts>,
    ) -> Result<(), Refusal> {
        if let Some((text, _)) = self.passed.get(statement).cloned() {
            let asked = Held { named: true, ..Held::default() };
            let (verdict, _) = self.verdict(&text, facts, (Protocol::Extended, &[], &asked))?;
            if !matches!(verdict, Verdict::Pass) {
                return Err(Refusal::new(
                    Class::NotSupported,
                    "the prepared statement means a sealed table under this search_path",
                )
                .hint("Prepare it again."));
            }
            self.passed.insert(Bytes::copy_from_slice(statement), (text, facts.clone()));
        }
        self.portals.remove(portal);
        self.fact_portals.remove(portal);
        if let Some(changes) = self.fact_statements.get(statement) {
            self.fact_portals.insert(Bytes::copy_from_slice(portal), *changes);
        }
        self.queue.push(Expect::Bind(None));
        frontend::put_raw(&mut self.to_server, b'B', body);
        Ok(())
    }

    /// True when a statement passed under another search path or policy than now: the server resolves its names anew.
    fn passed_elsewhere(&self, statement: &[u8]) -> bool {
        let Some((_, then)) = self.passed.get(statement) else { return false };
        let same = |now: &Arc<Facts>| now.search_path == then.search_path && Arc::ptr_eq(&now.policy, &then.policy);
        !self.known_facts().as_ref().is_some_and(same)
    }
}

impl Prepared {
    /// True when this statement seals every parameter that the other one does.
    fn seals_like(&self, other: &Prepared) -> bool {
        self.plan.first().zip(other.plan.first()).is_some_and(|(plan, other)| seals_like(plan, other))
    }
}

/// True when `older` sends on no parameter that stands for a sealed value in `new`. With another number of them it takes
/// none at all.
fn seals_like(older: &StatementPlan, new: &StatementPlan) -> bool {
    let sealed = |role: &ParamRole| matches!(role, ParamRole::Sealed(..) | ParamRole::SealedMany(..));
    let kept = |(older, new): (&ParamRole, &ParamRole)| sealed(older) || matches!(new, ParamRole::Plain);
    older.params.len() != new.params.len() || older.params.iter().zip(&new.params).all(kept)
}

/// The names that a text may PREPARE, however it goes on: what follows each word PREPARE.
fn prepared_names(text: &[u8]) -> Vec<Vec<u8>> {
    const WORD: &[u8] = b"prepare";
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | 0x80..);
    let mut names = Vec::new();
    for at in 0..text.len().saturating_sub(WORD.len()) {
        let after = &text[at + WORD.len()..];
        if !text[at..].get(..WORD.len()).is_some_and(|w| w.eq_ignore_ascii_case(WORD)) || is_word(&after[0]) {
            continue;
        }
        match skip_blanks(after) {
            [b'"', rest @ ..] => {
                let end = memchr::memchr(b'"', rest).unwrap_or(rest.len());
                names.push(rest[..end].to_vec());
            }
            rest => {
                let end = rest.iter().position(|b| !is_word(b)).unwrap_or(rest.len());
                names.push(rest[..end].to_ascii_lowercase());
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::prepared_names;

    #[test]
    fn finds_what_a_text_prepares() {
        let names = |text: &str| prepared_names(text.as_bytes());
        assert_eq!(names("PREPARE p AS SELECT 1"), [b"p"]);
        assert_eq!(names("/* x */ prepare /* y */ Big_1(int4) AS"), [b"big_1"]);
        assert_eq!(names("SELECT 1; Prepare\n\"A b\" AS SELECT 1; PREPARE"), [b"A b"]);
        assert!(names("SELECT prepared, prepare_ FROM x").is_empty());
    }
}
