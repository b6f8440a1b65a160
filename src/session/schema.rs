//! Which schema a session's statements are planned against: the snapshot that all sessions share, or, in a transaction
//! that has changed it, the one that the session itself sees. Every text behind DDL waits until that is known, whatever it
//! names: what the DDL has made may have any name.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::catalog::Seen;
use crate::refusal::{Class, Refusal};
use crate::sql::filter::{Filter, Hits, ends_transaction};
use crate::sql::plan::Verdict;
use crate::sql::{self, Protocol};

use super::facts::Facts;
use super::machine::{Fatal, Held, Hold, Machine, Schema};
use super::messages::{after_ddl, allowed, defines_sealed, names_any, not_yet, readable};
use super::work::{Work, WorkId};

/// Whether the shared snapshot knows of all DDL that any session of this proxy has been told the end of. What is changed
/// past this proxy is found by looking for it from time to time.
#[derive(Debug, Default)]
pub struct Freshness {
    /// Transactions with DDL that have ended.
    ended: AtomicU64,
    /// How many of them had ended when the snapshot was begun.
    known: AtomicU64,
}

impl Freshness {
    /// How many have ended; to be asked before the snapshot is begun.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// A snapshot is there that was begun when so many had ended.
    pub fn knows(&self, ended: u64) {
        self.known.fetch_max(ended, Ordering::SeqCst);
    }

    pub(super) fn is_stale(&self) -> bool {
        self.known.load(Ordering::SeqCst) < self.ended()
    }

    fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// DDL of this session that is under way: its end is told to all others before the client learns of it, and also where the
/// session ends first.
pub(super) struct UnderWay {
    freshness: Arc<Freshness>,
    is_ddl: bool,
}

impl UnderWay {
    pub(super) fn none(freshness: &Arc<Freshness>) -> Self {
        UnderWay { freshness: freshness.clone(), is_ddl: false }
    }

    /// DDL is on its way to the server.
    pub(super) fn begin(&mut self) {
        self.is_ddl = true;
    }

    /// The server has completed a command.
    pub(super) fn completed(&self, tag: &[u8]) {
        // A prepared transaction may be anyone's.
        if tag.starts_with(b"COMMIT PREPARED") || (self.is_ddl && tag.starts_with(b"COMMIT")) {
            self.freshness.end();
        }
    }

    /// The server is outside a transaction; `is_last` when it has answered everything.
    pub(super) fn ended(&mut self, is_last: bool) {
        if self.is_ddl {
            self.freshness.end();
            self.is_ddl = !is_last;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.ended(true);
    }
}

/// The schema as this session sees it.
#[derive(Default)]
pub(super) struct OwnSchema {
    /// What its server has told; `None` while the shared snapshot is as good.
    schema: Option<Arc<Schema>>,
    /// True when the next question for facts is to ask for it.
    wanted: bool,
    /// True when a statement has been sent since that may have changed it.
    stale: bool,
}

impl OwnSchema {
    /// The server is to be asked with the next question.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// A statement may change it once it runs.
    pub(super) fn doubt(&mut self) {
        self.stale = true;
    }

    /// True when another policy is in force by now.
    fn is_by_another(&self, shared: &ArcSwap<Schema>) -> bool {
        self.schema.as_ref().is_some_and(|own| !Arc::ptr_eq(&own.policy, &shared.load().policy))
    }

    /// Nothing is uncommitted any more.
    pub(super) fn forget(&mut self) {
        *self = OwnSchema { wanted: self.wanted, ..OwnSchema::default() };
    }
}

impl Machine {
    /// Looks at the schema that statements are planned against now.
    pub(super) fn with_schema<T>(&self, look: impl FnOnce(&Schema) -> T) -> T {
        match &self.own_schema.schema {
            Some(own) => look(own),
            None => look(&self.shared.schema.load()),
        }
    }

    /// Scans a text for what must be looked at.
    pub(super) fn scan(&self, text: &[u8]) -> Hits {
        self.with_schema(|schema| schema.filter.scan(text))
    }

    /// True when the text has the name of a policy table that does not exist.
    pub(super) fn names_missing(&self, text: &[u8]) -> bool {
        self.with_schema(|schema| names_any(text, &schema.catalog.missing))
    }

    /// True when the schema must be read before this text is planned; to be called once for each text, which may itself
    /// change the schema.
    pub(super) fn schema_is_stale(&mut self, text: &[u8], hits: Hits) -> bool {
        if std::mem::take(&mut self.own_schema.stale) || self.own_schema.is_by_another(&self.shared.schema) {
            self.own_schema.forget();
        }
        if self.reload && ends_transaction(text) {
            // It is not held, so what it commits or takes back is read before the next one.
            self.own_schema.stale = true;
            return false;
        }
        if hits.ddl {
            self.ddl.begin();
        }
        let moved = self.shared.freshness.is_stale();
        if moved {
            self.own_schema.forget();
        }
        // Behind DDL whose reply is still to come, the session's own server is asked.
        let stale = (self.reload || moved) && self.own_schema.schema.is_none() && !self.copy_in;
        if stale || hits.ddl {
            self.reload = hits.ddl;
        }
        // Also ROLLBACK TO takes changes back.
        self.own_schema.stale = hits.ddl || hits.facts;
        stale
    }

    /// True when this session may have changed the schema since it was last looked at.
    pub(super) fn own_schema_is_stale(&self) -> bool {
        (self.own_schema.stale && self.own_schema.schema.is_some())
            || (self.reload && self.own_schema.schema.is_none())
            || self.own_schema.is_by_another(&self.shared.schema)
    }

    /// True when the schema must be read before a value is bound; `is_own` where what changes it is the statement itself.
    pub(super) fn must_read_schema(&mut self, is_own: bool) -> bool {
        let moved = self.shared.freshness.is_stale();
        if moved || self.own_schema.is_by_another(&self.shared.schema) {
            self.own_schema.forget();
        }
        if !is_own && self.own_schema.schema.is_some() && std::mem::take(&mut self.own_schema.stale) {
            self.own_schema.forget();
        }
        let stale = ((self.reload && !is_own) || moved) && self.own_schema.schema.is_none() && !self.copy_in;
        if stale {
            self.reload = is_own && self.reload;
        }
        stale
    }

    /// The server's answer, laid over the shared snapshot.
    ///
    /// # Errors
    /// [`Fatal`] when its names cannot be scanned for: nothing else is as good.
    pub(super) fn see(&mut self, seen: Seen) -> Result<(), Fatal> {
        let shared = self.shared.schema.load_full();
        let catalog = seen.over(&shared.catalog, &shared.policy);
        let filter = Filter::new(&catalog).map_err(|error| Fatal(Refusal::new(Class::Internal, error.to_string())))?;
        self.own_schema.wanted = false;
        self.own_schema.schema =
            Some(Arc::new(Schema { catalog: Arc::new(catalog), filter, policy: shared.policy.clone() }));
        Ok(())
    }

    /// Reads the schema before the statement goes on: it may name a policy table that has just come into being.
    #[expect(clippy::unnecessary_wraps, reason = "one of the ways a held message goes on")]
    pub(super) fn wait_for_schema(&mut self, held: Held) -> Result<(), Fatal> {
        self.hold = Some(Hold::Schema(held));
        self.client_work.put(Work::Reload);
        Ok(())
    }

    /// The answer to [`Work::Reload`]: the shared schema has been replaced, or could not be.
    ///
    /// # Errors
    /// [`Fatal`] as in [`Machine::on_client`].
    pub fn on_reloaded(&mut self, id: WorkId, loaded: Result<(), Refusal>) -> Result<(), Fatal> {
        let waits = |hold: &mut Hold| matches!(hold, Hold::Schema(_)) && self.client_work.is_last(id);
        let Some(Hold::Schema(held)) = self.hold.take_if(waits) else { return Ok(()) };
        match loaded {
            Ok(()) => {
                if self.status != b'I' || !self.queue.is_empty() {
                    // What is not committed yet is not in the snapshot; the session's own server knows it.
                    self.reload = true;
                    self.own_schema.want();
                    self.facts = None;
                }
                self.resume(held)
            }
            Err(refusal) => {
                self.reload = true;
                self.forget(held.tag, &held.body);
                self.refuse(held.tag, &refusal)
            }
        }
    }

    /// What is to be done with a text; [`Verdict::Ask`] only where the server has not been asked yet.
    pub(super) fn verdict(
        &self,
        text: &[u8],
        facts: &Facts,
        (protocol, declared, held): (Protocol, &[u32], &Held),
    ) -> Result<(Verdict, Hits), Refusal> {
        let (verdict, hits) =
            self.with_schema(|schema| self.planned(schema, text, (facts, (protocol, declared), held)))?;
        Ok((if held.named { verdict } else { self.with_prepared(text, verdict)? }, hits))
    }

    fn planned(
        &self,
        schema: &Schema,
        text: &[u8],
        (facts, (protocol, declared), held): (&Facts, (Protocol, &[u32]), &Held),
    ) -> Result<(Verdict, Hits), Refusal> {
        let hits = schema.filter.scan(text);
        if defines_sealed(text, hits) {
            sql::gives_to_defined(&String::from_utf8_lossy(text))?;
        }
        let missing = &schema.catalog.missing;
        if names_any(text, missing) {
            let read = String::from_utf8_lossy(text);
            if sql::writes_to(&read, missing) || sql::asks_with_values(&read, missing) {
                return Err(self.no_table(text, &schema.catalog, (facts, protocol)).unwrap_or_else(not_yet));
            }
        }
        if !hits.touches && !self.may_name(text, hits.sql_prepare) {
            return Ok((Verdict::Pass, hits));
        }
        let text = readable(text, facts)?;
        let context = sql::Context { catalog: &schema.catalog, search_path: &facts.search_path, protocol, declared };
        let verdict = match self.shared.plans.plan(text, &context) {
            Verdict::Ask(asked) if held.named => asked.then.clone(),
            verdict => verdict,
        };
        if let Verdict::Rewrite(plans) = &verdict {
            allowed(plans, facts)?;
        }
        // DDL came between the text and its Bind.
        if self.reload && self.own_schema.schema.is_none() && hits.touches && !hits.ddl {
            return Err(after_ddl());
        }
        Ok((verdict, hits))
    }
}
