//! Statements over columns that are sealed or unsealed in place. Those that were prepared before the switch are prepared
//! again behind it, without the client's noticing; while it is imminent, those that would come in its way wait.
use std::sync::Arc;

use bytes::Bytes;

use crate::refusal::{Class, Refusal};
use crate::sql::plan::Verdict;
use crate::sql::{self, Protocol};
use crate::wire::frontend;

use super::facts::Facts;
use super::literals;
use super::machine::{Fatal, Held, Machine, Prepared};
use super::messages::{declared_fit, names_any, server_oids};
use super::queue::{Expect, Own};

/// How often the schema is read again before a statement goes on though a switch seems imminent still.
const WAITS_MAX: u32 = 120;

/// A prepared statement that may come to mean something else.
pub(super) struct Watched {
    text: Bytes,
    /// Parameter types the client gave.
    oids: Vec<u32>,
    /// The snapshot of the schema that it was last planned against.
    version: u64,
}

impl Machine {
    /// Remembers what the client prepares, if columns of a table that it names may be sealed or unsealed in place.
    pub(super) fn watch(&mut self, tag: u8, body: &[u8]) {
        let Some(parse) = (tag == b'P').then(|| frontend::parse(body).ok()).flatten() else { return };
        let schema = self.shared.schema.load();
        if names_any(parse.text, &schema.catalog.watched) {
            let (text, version) = (Bytes::copy_from_slice(parse.text), schema.catalog.version);
            self.watched.insert(Bytes::copy_from_slice(parse.name), Watched { text, oids: parse.oids, version });
        } else if !self.watched.is_empty() {
            self.watched.remove(parse.name);
        }
    }

    /// True when a Bind of this statement must be looked at, whatever the statement was when it was prepared.
    pub(super) fn is_watched(&self, statement: &[u8]) -> bool {
        let Some(watched) = self.watched.get(statement) else { return false };
        watched.version != self.shared.schema.load().catalog.version
            || self.is_in_the_way(&watched.text)
            || self.shared.freshness.is_stale()
    }

    /// A Bind that must not pass as it is; the schema by which it is looked at is no older than the last DDL.
    pub(super) fn look_at_bind(&mut self, held: Held) -> Result<(), Fatal> {
        if self.shared.freshness.is_stale() && !self.copy_in { self.wait_for_schema(held) } else { self.resume(held) }
    }

    /// True when this message should wait for a switch that is imminent: it is the first of a transaction, so that nobody
    /// waits for it.
    pub(super) fn waits_for_switch(&self, held: &Held) -> bool {
        if held.waited >= WAITS_MAX || held.locked.is_some() || held.copied.is_some() {
            return false;
        }
        match held.tag {
            b'B' => frontend::bind_names(&held.body)
                .is_ok_and(|(_, name)| self.watched.get(name).is_some_and(|watched| self.is_in_the_way(&watched.text))),
            _ => self.is_in_the_way(&held.body),
        }
    }

    fn is_in_the_way(&self, text: &[u8]) -> bool {
        let schema = self.shared.schema.load();
        let switching = &schema.catalog.switching;
        !switching.is_empty() && self.status == b'I' && self.queue.is_empty() && names_any(text, switching)
    }

    /// Plans a prepared statement again, and prepares it again at the server, if the schema has changed since.
    ///
    /// # Errors
    /// That of the statement as it is now, or 0A000 where it cannot be prepared again here.
    pub(super) fn look_again(&mut self, statement: &[u8], facts: &Arc<Facts>) -> Result<(), Refusal> {
        let version = self.shared.schema.load().catalog.version;
        let Some(watched) = self.watched.get(statement).filter(|watched| watched.version != version) else {
            return Ok(());
        };
        let (name, text, oids) = (Bytes::copy_from_slice(statement), watched.text.clone(), watched.oids.clone());
        let asked = Held { named: true, ..Held::default() };
        let (verdict, _) = self.verdict(&text, facts, (Protocol::Extended, &oids, &asked))?;
        match verdict {
            Verdict::Refuse(refusal) => return Err(refusal),
            Verdict::Ask(_) => return Err(prepare_again()),
            Verdict::Pass => {
                if self.statements.contains_key(&name) {
                    self.replace(&name, &text, &oids)?;
                    self.statements.remove(&name);
                }
                self.passed.insert(name.clone(), (text, facts.clone()));
            }
            Verdict::Rewrite(plan) => {
                let [one] = &plan[..] else { return Err(prepare_again()) };
                declared_fit(one, &oids, facts)?;
                literals::check(one, facts)?;
                self.refuse_names(one)?;
                let read = String::from_utf8_lossy(&text);
                let rewritten = sql::render::render_extended(&read, one);
                let positions = Arc::new(rewritten.positions(&read));
                self.replace(&name, rewritten.text.as_bytes(), &server_oids(one, &oids))?;
                self.passed.remove(&name);
                let prepared = Prepared { plan, oids, facts: facts.clone(), positions };
                self.statements.insert(name.clone(), Arc::new(prepared));
            }
        }
        if let Some(watched) = self.watched.get_mut(&name) {
            watched.version = version;
        }
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
        self.queue.push(Expect::Own(Own::Step));
        self.queue.push(Expect::Own(Own::Step));
        Ok(())
    }
}

fn prepare_again() -> Refusal {
    let message = "a column of a prepared statement has been sealed or unsealed since";
    Refusal::new(Class::NotSupported, message).hint("Prepare it again.")
}
