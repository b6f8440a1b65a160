//! Statements that were prepared before the policy or the schema changed, as when a column is sealed in place. Each
//! is planned again before a value is bound to it, and prepared again at the server where that has to know another text.
//! The client does not notice; where it would, it is told to prepare again.
use std::sync::Arc;

use bytes::Bytes;

use crate::policy::Database;
use crate::refusal::Refusal;
use crate::sql::plan::{ParamRole, ResultColumn, StatementPlan, Verdict};
use crate::sql::{self, Protocol};
use crate::types::LogicalType;
use crate::wire::frontend;

use super::copy::without_values;
use super::facts::Facts;
use super::literals;
use super::machine::{Held, Machine, Prepared, prepare_again};
use super::messages::{declared_fit, server_oids};
use super::queue::{Expect, Own};

impl Held {
    /// Notes the policy that a message is planned under. What was fetched for it under another one is of no use any more.
    ///
    /// # Errors
    /// 0A000 when rows have been fetched that the first of two steps locked.
    pub(super) fn under(&mut self, policy: &Arc<Database>) -> Result<(), Refusal> {
        let before = self.begun.replace(policy.clone());
        if before.is_none_or(|before| Arc::ptr_eq(&before, policy) || before.plans_like(policy)) {
            return Ok(());
        }
        self.granted = None;
        if self.locked.is_some() || self.copied.is_some() { Err(prepare_again()) } else { Ok(()) }
    }
}

/// A prepared statement that may mean something else by now.
struct Outdated {
    text: Bytes,
    /// Parameter types the client gave.
    oids: Vec<u32>,
    since: Since,
}

/// What has changed since a statement was prepared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    /// The policy, which may give columns other types.
    Policy,
    /// The schema. Columns that were sealed or unsealed in place have, for the client, the type that they had.
    Schema,
}

impl Machine {
    /// Plans a prepared statement again, if it may mean something else by now, and prepares it again at the server if that
    /// needs another text.
    ///
    /// # Errors
    /// That of the statement as it is now, or 0A000 where it would be another one for the client or cannot be prepared
    /// again here.
    pub(super) fn look_again(&mut self, name: &[u8], facts: &Arc<Facts>) -> Result<(), Refusal> {
        let Some(outdated) = self.outdated(name, facts)? else { return Ok(()) };
        let version = self.with_schema(|schema| schema.catalog.version);
        let asked = Held { named: true, ..Held::default() };
        let of = (Protocol::Extended, &outdated.oids[..], &asked);
        match self.verdict(&outdated.text, facts, of)?.0 {
            Verdict::Refuse(refusal) => return Err(refusal),
            Verdict::Ask(_) => return Err(prepare_again()),
            Verdict::Pass => self.passes_now(name, &outdated, facts)?,
            Verdict::Rewrite(plan) => self.rewritten_now(name, outdated, (plan, facts))?,
        }
        self.watched.planned(name, Some(version));
        Ok(())
    }

    fn outdated(&self, name: &[u8], facts: &Facts) -> Result<Option<Outdated>, Refusal> {
        if let Some(prepared) = self.statements.get(name)
            && let before = &prepared.facts.policy
            && !Arc::ptr_eq(before, &facts.policy)
            && !before.plans_like(&facts.policy)
        {
            let outdated = |text| Outdated { text, oids: prepared.oids.clone(), since: Since::Policy };
            return Ok(prepared.text.clone().map(outdated));
        }
        let version = self.with_schema(|schema| schema.catalog.version);
        let Some(watched) = self.watched.get(name) else {
            // Forgotten for there were too many: nobody knows what it means now.
            return if self.watched.is_lost(name) { Err(prepare_again()) } else { Ok(None) };
        };
        let syncs = self.queue.syncs();
        if !watched.is_behind(version, syncs) {
            return Ok(None);
        }
        if watched.is_doubtful(syncs) {
            return Err(prepare_again());
        }
        let text = Bytes::copy_from_slice(&watched.text);
        Ok(Some(Outdated { text, oids: watched.oids.clone(), since: Since::Schema }))
    }

    /// The statement needs no rewriting any more.
    fn passes_now(&mut self, name: &[u8], outdated: &Outdated, facts: &Arc<Facts>) -> Result<(), Refusal> {
        if self.statements.contains_key(name) {
            if outdated.since == Since::Policy {
                return Err(prepare_again());
            }
            self.replace(name, &outdated.text, &outdated.oids)?;
            self.statements.remove(name);
        }
        self.passed.insert(Bytes::copy_from_slice(name), (outdated.text.clone(), facts.clone()));
        Ok(())
    }

    fn rewritten_now(
        &mut self,
        name: &[u8],
        outdated: Outdated,
        (plan, facts): (Arc<[StatementPlan]>, &Arc<Facts>),
    ) -> Result<(), Refusal> {
        let Outdated { text, oids, since } = outdated;
        let [statement] = &plan[..] else { return Err(prepare_again()) };
        self.preparable(statement, &oids, facts)?;
        let read = String::from_utf8_lossy(&text);
        let before = self.statements.get(name).cloned();
        let before = before.as_ref().and_then(|before| before.plan.first());
        if since == Since::Policy && !before.is_some_and(|before| told_alike(before, statement)) {
            return Err(prepare_again());
        }
        let rewritten = sql::render::render_extended(&read, statement);
        let at_server = server_oids(statement, &oids);
        let is_there = |before: &StatementPlan| {
            sql::render::render_extended(&read, before).text == rewritten.text
                && server_oids(before, &oids) == at_server
        };
        if !before.is_some_and(is_there) {
            self.replace(name, rewritten.text.as_bytes(), &at_server)?;
        }
        let positions = Arc::new(rewritten.positions(&read));
        self.passed.remove(name);
        let prepared = Prepared { plan, oids, facts: facts.clone(), positions, text: Some(text) };
        self.statements.insert(Bytes::copy_from_slice(name), Arc::new(prepared));
        Ok(())
    }

    /// Puts another statement in the place of the server's.
    fn replace(&mut self, name: &[u8], text: &[u8], oids: &[u32]) -> Result<(), Refusal> {
        if self.status == b'E' {
            // The server would close the one and not take the other.
            return Err(prepare_again());
        }
        frontend::put_close(&mut self.to_server, b'S', name);
        frontend::put_parse(&mut self.to_server, name, text, oids);
        let (name, before) = (Bytes::copy_from_slice(name), self.statements.get(name).cloned());
        self.parsed.get_or_insert_default().insert(name.clone(), self.queue.syncs());
        self.queue.push(Expect::Own(Own::Step));
        self.queue.push(Expect::Renewed { name, before });
        Ok(())
    }

    /// The server has skipped what was to take the statement's place, or refused it: it is as outdated as before.
    pub(super) fn not_renewed(&mut self, name: Bytes, before: Option<Arc<Prepared>>) {
        if let Some(later) = self.queue.before_next_parse(&name) {
            *later = before;
            return;
        }
        self.watched.planned(&name, None);
        match before {
            Some(before) => self.statements.insert(name, before),
            None => self.statements.remove(&name),
        };
    }

    /// Refuses what could not be prepared as it is planned.
    pub(super) fn preparable(
        &self,
        statement: &StatementPlan,
        oids: &[u32],
        facts: &Arc<Facts>,
    ) -> Result<(), Refusal> {
        declared_fit(statement, oids, facts)?;
        without_values(statement)?;
        literals::check(statement, facts)?;
        self.refuse_names(statement)
    }
}

/// True when the client has been told the same types.
fn told_alike(before: &StatementPlan, now: &StatementPlan) -> bool {
    before.params.iter().map(param).eq(now.params.iter().map(param))
        && before.hidden == now.hidden
        && results(before) == results(now)
}

/// What the client is told of a parameter, and whether the server gets it.
fn param(role: &ParamRole) -> (u8, Option<LogicalType>) {
    match role {
        ParamRole::Plain => (0, None),
        ParamRole::Sealed(_, told) => (1, Some(*told)),
        ParamRole::SealedMany(_, told) => (2, Some(*told)),
        ParamRole::Both(column) => (3, Some(column.logical)),
        ParamRole::Unused => (4, None),
    }
}

/// What the client is told of the columns; `None` where the server builds something around cells.
fn results(plan: &StatementPlan) -> Option<Vec<Option<LogicalType>>> {
    let told = |column: &ResultColumn| match column {
        ResultColumn::Plain => Some(None),
        ResultColumn::Sealed { described, .. } => Some(Some(*described)),
        ResultColumn::Built(_) => None,
    };
    plan.result.iter().flat_map(|columns| columns.iter()).map(told).collect()
}
