//! The session as a state machine without I/O: bytes of either side in, bytes for either side and work for the driver
//! out. It must never forward what it did not understand, and never let a plaintext reach the server or a cell the
//! client. Start reading at [`Machine::on_client`] (client.rs) and [`Machine::on_server`] (server_side.rs).
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

use crate::audit::{Act, Audit, AuditError, Record, Who, WhoFields};
use crate::catalog::Catalog;
use crate::hash::HashMap;
use crate::keys::registry::Wrapping;
use crate::keys::{Granted, Keys};
use crate::policy::Database;
use crate::refusal::{Class, Refusal};
use crate::sql::filter::{Filter, Hits};
use crate::sql::plan::StatementPlan;
use crate::sql::render::Positions;
use crate::wire::frame::Malformed;

use super::copied::{CopiedRows, Sent};
use super::copy::CopyIn;
use super::copy_out::Sending;
use super::define::Defined;
use super::facts::Facts;
use super::hold::Pinned;
use super::named::{Cursor, Reply};
use super::names::Gone;
use super::open::Rows;
use super::queue::{Expect, Queue};
use super::schema::{Freshness, OwnSchema, UnderWay};
use super::seal::{LockedRow, Use};
use super::switched::Remembered;
use super::work::{ClientWork, Work};

/// Bytes waiting for one side beyond which the other side is not read.
pub const OUT_BYTES_MAX: usize = 256 * 1024;

/// One snapshot of the schema with what is derived from it.
pub struct Schema {
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// The lexical filter over its names.
    pub filter: Filter,
    /// The policy that it was joined with.
    pub policy: Arc<Database>,
}

/// What all sessions on one database share.
pub struct Shared {
    /// The database's name.
    pub name: Arc<str>,
    /// The schema as last loaded, with the policy in force: a reload of either replaces both.
    pub schema: arc_swap::ArcSwap<Schema>,
    /// Whether that is as good as the server's.
    pub freshness: Arc<Freshness>,
    /// Which roles there are and who is a member of which, as last seen ([`crate::catalog::roles`]).
    pub roles: arc_swap::ArcSwap<String>,
    /// The keys.
    pub keys: Arc<Keys>,
    /// The audit log.
    pub audit: Arc<Audit>,
    /// How a tenant that is unknown at a write is registered; `None`: not at all.
    pub auto_register: Option<Wrapping>,
    /// What [`Shared::message_bytes_max`] gives.
    pub message_bytes: AtomicUsize,
    /// The cache of plans.
    pub plans: crate::sql::cache::Cache,
}

impl Shared {
    /// The policy in force.
    pub fn policy(&self) -> Arc<Database> {
        self.schema.load().policy.clone()
    }

    /// The largest message of a client's that is held to be looked at or rewritten (`limits.message_bytes_max`), for
    /// sessions that begin now.
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes.load(Ordering::Relaxed)
    }
}

/// Who is on the other end of a session; goes into every audit record.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Client address.
    pub client: Arc<str>,
    /// `application_name`.
    pub application: Arc<str>,
    /// Session number on this proxy.
    pub session: u64,
}

/// A prepared statement that touches a sealed column. Its `Debug` form leaves the text out: there may be literals in it.
#[derive(Clone)]
pub struct Prepared {
    /// Its plan: one statement.
    pub plan: Arc<[StatementPlan]>,
    /// Parameter types the client gave.
    pub oids: Vec<u32>,
    /// The session's facts when it was planned.
    pub facts: Arc<Facts>,
    /// Where the pieces of its rewritten text stand.
    pub positions: Arc<Positions>,
    /// The client's text, where it was prepared by the protocol: it is planned again under another policy.
    pub text: Option<Bytes>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("plan", &self.plan).field("oids", &self.oids).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Refuses the use of a statement whose names may mean something else by now.
    ///
    /// # Errors
    /// 0A000 when the search path is another than when it was planned, or the policy has other columns.
    pub(super) fn same_schemas(&self, facts: &Facts) -> Result<(), Refusal> {
        fn schemas(facts: &Facts) -> impl Iterator<Item = &String> {
            facts.search_path.iter().filter(|schema| !schema.starts_with("pg_temp"))
        }
        if !Arc::ptr_eq(&self.facts.policy, &facts.policy) && !self.facts.policy.plans_like(&facts.policy) {
            return Err(prepare_again());
        }
        if schemas(&self.facts).eq(schemas(facts)) {
            return Ok(());
        }
        Err(Refusal::new(Class::NotSupported, "search_path has changed since the statement was prepared")
            .hint("Prepare it again."))
    }
}

/// Postgres's own words where a statement must be prepared again: drivers know them and do so by themselves.
pub(super) fn prepare_again() -> Refusal {
    Refusal::new(Class::NotSupported, "cached plan must not change result type")
        .detail("Its columns, or the proxy's policy for them, have changed since the statement was prepared.")
        .hint("Prepare it again.")
}

/// The end of a session for a broken protocol or a fault of ours.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub Refusal);

impl From<Malformed> for Fatal {
    fn from(error: Malformed) -> Self {
        Fatal(Refusal::new(Class::ProtocolViolation, error.to_string()))
    }
}

/// A client message that waits for facts, keys or locked rows.
#[derive(Default)]
pub(super) struct Held {
    pub tag: u8,
    pub body: Bytes,
    pub locked: Option<Vec<LockedRow>>,
    /// The rows of the query of an INSERT ... SELECT.
    pub copied: Option<CopiedRows>,
    pub granted: Option<Granted>,
    pub reloaded: bool,
    /// The server knows the names in it.
    pub named: bool,
    /// The server has told the session's facts for it.
    pub told: bool,
    /// How often the schema was read again for it while a switch was imminent.
    pub waited: u32,
    /// The policy under which it was first planned; what has been fetched for it since then is by that.
    pub begun: Option<Arc<Database>>,
}

/// Why the client's direction is held up.
pub(super) enum Hold {
    /// The facts query is under way.
    Facts(Held),
    /// Questions about the names in it are under way; with the refusal that follows if the server knows them.
    Names(Held, Option<Refusal>),
    /// The lock query is under way.
    Lock(Held, Vec<LockedRow>),
    /// The query of an INSERT ... SELECT is under way.
    Source(Held, Sent),
    /// Keys are awaited.
    Keys(Held),
    /// The schema is being loaded.
    Schema(Held),
    /// Rows of a COPY wait for their keys.
    Copy,
}

/// What has been sent since the last Sync that a Sync of the proxy's own would end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unsynced {
    /// Nothing.
    Nothing,
    /// A Bind: its portal lives as long as its transaction.
    Bound,
    /// An Execute: its transaction is not to be committed yet.
    Executed,
}

/// What a statement may change when it is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    /// Facts of the session.
    Facts,
    /// The schema too.
    Schema,
}

impl Changes {
    /// What a text with these hits may change, if anything.
    pub fn of(hits: Hits) -> Option<Self> {
        match (hits.ddl, hits.facts) {
            (true, _) => Some(Changes::Schema),
            (false, true) => Some(Changes::Facts),
            (false, false) => None,
        }
    }
}

/// How the server's replies are treated while a refusal in mid-result is carried through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mute {
    /// Replies go to the client.
    Off,
    /// Replies are swallowed until the next ReadyForQuery.
    UntilReady,
}

/// One session.
pub struct Machine {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Peer,
    /// The bound that was in force when the session began: one that changed in the middle of a message or of rows would not be
    /// the same for all that is decided by it.
    pub(super) message_bytes_max: usize,
    pub(super) facts: Option<Arc<Facts>>,
    /// The last answer was to a question under another policy: to be asked again.
    pub(super) outdated: bool,
    pub(super) queue: Queue,
    pub(super) statements: HashMap<Bytes, Arc<Prepared>>,
    /// Names of sealed statements that failed to be prepared or were closed: no value is bound to one of these.
    pub(super) gone: Gone,
    /// By statement name: the number of the Sync that follows its last Parse. Kept once a sealed statement was seen.
    pub(super) parsed: Option<HashMap<Bytes, u64>>,
    /// A message waits until the server has said whether the statement it names is the new one or the old one.
    pub(super) undecided: bool,
    pub(super) portals: HashMap<Bytes, Reply>,
    /// Cursors over sealed columns, by name.
    pub(super) cursors: HashMap<Arc<str>, Cursor>,
    /// Statements and portals that change something once they are executed.
    pub(super) fact_statements: HashMap<Bytes, Changes>,
    pub(super) fact_portals: HashMap<Bytes, Changes>,
    /// Statements that name a sealed table but pass: text, and the facts under which they do.
    pub(super) passed: HashMap<Bytes, (Bytes, Arc<Facts>)>,
    /// What the client has prepared: it may come to mean something else.
    pub(super) watched: Remembered,
    /// A setting may have been changed since the last Sync.
    pub(super) facts_local: bool,
    pub(super) hold: Option<Hold>,
    pub(super) pinned: Pinned,
    pub(super) skipping: bool,
    pub(super) unsynced: Unsynced,
    /// The lock query of a simple query has opened an implicit transaction that nothing has ended yet.
    pub(super) lock_open: bool,
    pub(super) reload: bool,
    /// DDL of this session that the others are to be told of.
    pub(super) ddl: UnderWay,
    pub(super) own_schema: OwnSchema,
    pub(super) defined: Option<Defined>,
    pub(super) copy_in: bool,
    pub(super) copy: CopyIn,
    /// The last Query was a COPY that named something sealed.
    pub(super) after_copy: bool,
    pub(super) sending: Option<Box<Sending>>,
    pub(super) tunnel: bool,
    pub(super) mute: Mute,
    pub(super) client_pass: usize,
    pub(super) client_skip: usize,
    pub(super) server_pass: usize,
    pub(super) server_skip: usize,
    /// The description of rows that the client is told once there are some, or their end.
    pub(super) described: BytesMut,
    pub(super) rows: Rows,
    pub(super) rows_wait: bool,
    pub(super) statement: u64,
    pub(super) client_work: ClientWork,
    pub(super) server_work: Option<Work>,
    pub(super) status: u8,
    pub(super) fatal_seen: bool,
    pub(super) terminated: bool,
    /// Where others look what it does.
    observer: Option<Arc<AtomicU8>>,
    /// Who the session is by these facts.
    who: Option<(Arc<Facts>, Who)>,
    /// To be written before anything leaves.
    records: Vec<Record>,
    /// Bytes for the server.
    pub to_server: BytesMut,
    /// Bytes for the client.
    pub to_client: BytesMut,
}

impl Machine {
    /// A machine for a session whose login has just succeeded.
    pub fn new(shared: Arc<Shared>, peer: Peer) -> Self {
        let mut queue = Queue::default();
        queue.push(Expect::Startup);
        Machine {
            message_bytes_max: shared.message_bytes_max(),
            ddl: UnderWay::none(&shared.freshness),
            shared,
            peer,
            facts: None,
            outdated: false,
            queue,
            statements: HashMap::default(),
            gone: Gone::default(),
            parsed: None,
            undecided: false,
            portals: HashMap::default(),
            cursors: HashMap::default(),
            fact_statements: HashMap::default(),
            fact_portals: HashMap::default(),
            passed: HashMap::default(),
            watched: Remembered::default(),
            facts_local: false,
            hold: None,
            pinned: Pinned::default(),
            skipping: false,
            unsynced: Unsynced::Nothing,
            lock_open: false,
            reload: false,
            own_schema: OwnSchema::default(),
            defined: None,
            copy_in: false,
            copy: CopyIn::default(),
            after_copy: false,
            sending: None,
            tunnel: false,
            mute: Mute::Off,
            client_pass: 0,
            client_skip: 0,
            server_pass: 0,
            server_skip: 0,
            described: BytesMut::new(),
            rows: Rows::default(),
            rows_wait: false,
            statement: 0,
            client_work: ClientWork::default(),
            server_work: None,
            status: 0,
            fatal_seen: false,
            terminated: false,
            observer: None,
            who: None,
            records: Vec::new(),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
        }
    }

    /// From now on [`Machine::tell_state`] leaves there what it does.
    pub fn observe(&mut self, observer: Arc<AtomicU8>) {
        self.observer = Some(observer);
    }

    /// Leaves the status of the transaction for others to see, or `A` while something is under way.
    pub fn tell_state(&self) {
        if let Some(observer) = &self.observer {
            let is_active = self.hold.is_some() || !self.queue.is_empty();
            observer.store(if is_active { b'A' } else { self.status }, Ordering::Relaxed);
        }
    }

    /// True when nothing is under way: no reply expected, no transaction open.
    pub fn is_idle(&self) -> bool {
        self.status == b'I' && self.queue.is_empty() && self.hold.is_none()
    }

    /// True once a FATAL or PANIC of the server's has been forwarded.
    pub fn is_fatal_seen(&self) -> bool {
        self.fatal_seen
    }

    /// True while rows of the server wait for keys.
    pub fn is_waiting_for_keys(&self) -> bool {
        self.rows_wait
    }

    /// True while messages of the client wait for something.
    pub fn is_held(&self) -> bool {
        self.hold.is_some() || self.undecided
    }

    /// True once the client has said goodbye.
    pub fn is_terminated(&self) -> bool {
        self.terminated
    }

    /// Records key uses. The driver writes the records before the bytes they stand for leave; while the log fails they
    /// are written here, so that the statement is refused instead of the session ended.
    ///
    /// # Errors
    /// 58030 when a record cannot be written: the key use must not happen then.
    pub(super) fn audit(&mut self, uses: Vec<Use>, rows: u64, requests: Vec<String>) -> Result<(), Refusal> {
        if !self.shared.audit.is_failing() {
            for used in uses {
                let record = self.record(used, rows, &requests);
                self.records.push(record);
            }
            return Ok(());
        }
        let records: Vec<Record> = uses.into_iter().map(|used| self.record(used, rows, &requests)).collect();
        self.shared.audit.append(&records).map_err(|error| unrecorded(&error))
    }

    /// Takes the records that are to be written before anything in [`Machine::to_server`] and [`Machine::to_client`]
    /// leaves.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// The answer when they could not be written: what would have left does not.
    ///
    /// # Errors
    /// 58030, always: the end of the session, for neither side can be told where the other one stands.
    pub fn on_unrecorded(&mut self, error: &AuditError) -> Fatal {
        self.to_server.clear();
        self.to_client.clear();
        Fatal(unrecorded(error))
    }

    fn record(&mut self, used: Use, rows: u64, requests: &[String]) -> Record {
        Record {
            act: used.act,
            who: self.who(),
            statement: self.statement,
            tenant: used.tenant,
            key: used.key,
            rows: if used.act == Act::Search { 0 } else { rows.max(used.dek_ids.len() as u64) },
            dek_ids: used.dek_ids,
            columns: used.columns,
            result: "ok",
            kms_requests: requests.to_vec(),
            detail: None,
        }
    }

    /// Who this session is by its present facts; nobody while there are none.
    fn who(&mut self) -> Who {
        if let (Some(facts), Some((of, who))) = (&self.facts, &self.who)
            && Arc::ptr_eq(facts, of)
        {
            return who.clone();
        }
        let who = Who::new(WhoFields {
            database: &self.shared.name,
            user: self.facts.as_ref().map_or("", |facts| &facts.user),
            role: self.facts.as_ref().map_or("", |facts| &facts.role),
            client: &self.peer.client,
            application: &self.peer.application,
            session: self.peer.session,
        });
        self.who = self.facts.clone().map(|facts| (facts, who.clone()));
        who
    }

    /// The session's facts, unless roles have changed since they were asked for. A transaction that sees other roles than
    /// the proxy does, its own or those of an old snapshot, is asked before each statement.
    pub(super) fn known_facts(&self) -> Option<Arc<Facts>> {
        self.facts.clone().filter(|facts| facts.roles == **self.shared.roles.load())
    }

    /// Records a refusal.
    pub(super) fn audit_refusal(&mut self, refusal: &Refusal) {
        let used = Use { act: Act::Refuse, tenant: "".into(), key: None, dek_ids: vec![], columns: vec![] };
        let mut record = self.record(used, 0, &[]);
        record.result = refusal.class.sqlstate();
        self.records.push(record);
    }
}

fn unrecorded(error: &AuditError) -> Refusal {
    tracing::error!(%error, "audit record not written");
    Refusal::unrecorded()
}
