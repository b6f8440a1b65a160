//! Rotation of a tenant's master key (K2): creating → switching → rewrapping → verifying → deactivating → done.
//!
//! Each step can be repeated, and the state is in the registry: a rotation that was broken off at any point goes on when
//! it is started again. `record` keeps the row, `proxies` waits for the proxies, the passes are in
//! [`rewrap`](super::rewrap), the last look in `verify`.
use std::sync::Arc;

use super::journal::Note;
use super::keyset::{KeySet, MasterKey};
use super::reseal::Columns;
use super::rewrap::{self, Passes, listed};
use super::wraps::Wraps;
use super::{Damage, Event, JobError, Worker, tables, verify};
use crate::crypto::{BranchKey, KeyId};
use crate::keys::context;
use crate::keys::kms::{KeyState, KmsErrorClass, Under};
use crate::keys::registry::Wrapping;
use crate::keys::registry::fresh::{FreshMaster, KeyIntent, fresh_master, wrap_under};
use crate::policy;

mod proxies;
mod record;

pub use record::{Depth, Record, Request, State, latest, recent};

/// How often it is counted in vain before something must be wrong.
const FUTILE_MAX: u32 = 3;

/// What a rotation did.
#[derive(Debug, Clone)]
pub struct Done {
    /// Rows whose cells were wrapped again.
    pub rows: u64,
    /// Their cells.
    pub cells: u64,
    /// The key that was left, now disabled.
    pub old: String,
    /// The key for new data.
    pub new: String,
}

/// A key that the last transaction of `creating` records.
struct Wrapped {
    id: KeyId,
    blob: bytes::Bytes,
}

/// Begins a rotation or goes on with the one that runs, and stays until it is done.
///
/// # Errors
/// [`JobError::Refused`] by the rule of 24 hours, for a tenant that is not active; [`JobError::Rights`] before anything
/// is changed; [`JobError::Damaged`] when cells keep the old key from being disabled. After any error the same call goes
/// on where this one stopped.
///
/// # Cancel safety
/// As after a crash.
pub async fn rotate(worker: &Worker<'_>, request: &Request, policy: &policy::Database) -> Result<Done, JobError> {
    let purpose = tables::Use::Change { silences_triggers: worker.silences_triggers };
    let tables = tables::stored(&worker.client, purpose).await?;
    let firing: Vec<Arc<str>> = tables.iter().filter(|table| table.has_triggers).map(|t| t.name.clone()).collect();
    if !firing.is_empty() {
        let why = if worker.silences_triggers { "that fire ALWAYS" } else { "that this role may not silence" };
        let names = listed(&firing);
        worker.tell(Event::Warning(&format!("triggers or rules {why} will run for every row of {names}")));
    }
    if request.depth == Depth::Reseal {
        Columns::read(&worker.client, policy, &tables).await?;
    }
    let record = record::begin(worker, request).await?;
    Rotation { worker, policy, damage: Damage::default(), futile: 0 }.run(record).await
}

struct Rotation<'a> {
    worker: &'a Worker<'a>,
    policy: &'a policy::Database,
    /// What the last pass could not unwrap.
    damage: Damage,
    /// How often rows were counted in vain.
    futile: u32,
}

impl Rotation<'_> {
    async fn run(mut self, mut record: Record) -> Result<Done, JobError> {
        loop {
            self.worker.tell(Event::State(record.state));
            match record.state {
                State::Creating => self.create(&record).await?,
                State::Switching => {
                    proxies::acknowledged(self.worker, record.switched_epoch).await?;
                    record.advance(self.worker, State::Rewrapping).await?;
                }
                State::Rewrapping => self.rewrap(&record).await?,
                State::Verifying => self.verify(&record).await?,
                State::Deactivating => self.deactivate(&record).await?,
                State::Done => return self.done(&record).await,
            }
            record = record.again(self.worker).await?;
        }
    }

    async fn keys(&self) -> Result<KeySet, JobError> {
        let keys = KeySet::read(&self.worker.client, &self.worker.tenant).await?;
        keys.ok_or(JobError::Internal("the tenant is gone"))
    }

    async fn create(&self, record: &Record) -> Result<(), JobError> {
        let (worker, keys) = (self.worker, self.keys().await?);
        let old = master(&keys, record.old_key)?;
        worker.journal.say(format!("create a master key ({})", record.about()), None).await?;
        let intent = KeyIntent {
            id: record.intent.clone(),
            database: record.database.clone(),
            is_new: record.is_new,
            is_young: record.is_young,
        };
        let new = fresh_master(&*worker.kms, &worker.tenant, &intent).await?;
        let mut kms_requests = vec![new.request_id.clone()];
        let (roots, requests) = self.roots(&keys, old, &new).await?;
        kms_requests.extend(requests);
        let branch = match keys.wrapping {
            Wrapping::Direct => None,
            Wrapping::Hierarchical => {
                let (key, context) = (BranchKey::random(), context::branch(&worker.tenant));
                let (blob, request) = wrap_under(&*worker.kms, &new.arn, key.expose(), &context).await?;
                kms_requests.push(request);
                Some(Wrapped { id: KeyId::random(), blob })
            }
        };
        let detail = format!("{} was created; switch new data to it from {} ({})", new.arn, old.arn, record.about());
        worker.journal.note(Note { detail, key: Some(old.id), kms_requests, ..Note::default() }).await?;
        record.switch(worker, &new, (&roots, branch)).await
    }

    /// The index roots under the old key, wrapped under the new one. The keys themselves stay, and tokens with them.
    async fn roots(
        &self,
        keys: &KeySet,
        old: &MasterKey,
        new: &FreshMaster,
    ) -> Result<(Vec<Wrapped>, Vec<String>), JobError> {
        let context = context::index(&self.worker.tenant);
        let (mut roots, mut requests) = (Vec::new(), Vec::new());
        for root in keys.wrapped.iter().filter(|key| key.is_index && key.master == old.id) {
            let (source, destination) =
                (Under { key: &old.arn, context: &context }, Under { key: &new.arn, context: &context });
            let (blob, request) = self.worker.kms.re_encrypt(source, destination, &root.wrapped).await?;
            roots.push(Wrapped { id: root.id, blob });
            requests.push(request);
        }
        Ok((roots, requests))
    }

    async fn rewrap(&mut self, record: &Record) -> Result<(), JobError> {
        let (worker, keys) = (self.worker, self.keys().await?);
        let old = master(&keys, record.old_key)?;
        worker.journal.say(format!("wrap all data keys again ({})", record.about()), Some(old.id)).await?;
        let calls_max = worker.pace.kms_calls_max;
        let wraps = Wraps::open(worker.kms.clone(), worker.tenant.clone(), &keys, &[old.id], calls_max).await?;
        wraps.record_opening(worker, Some(old.id)).await?;
        let ids = keys.ids_under(old.id);
        let known;
        let depth = match record.depth {
            Depth::Rewrap => rewrap::Depth::Rewrap,
            Depth::Reseal => {
                let tables = tables::stored(&worker.client, tables::Use::Read).await?;
                known = Columns::read(&worker.client, self.policy, &tables).await?;
                rewrap::Depth::Reseal(&known)
            }
        };
        let mut passes = Passes::new(worker, (&wraps, depth, &ids), Some(&record.id), record.progress.clone());
        self.damage = passes.run().await?;
        let progress = passes.progress();
        if progress.rows > record.progress.rows {
            self.futile = 0;
        }
        let (rows, cells) = (progress.rows, progress.cells);
        let told = format!("{rows} rows, {cells} cells were wrapped again ({})", record.about());
        worker.journal.note(Note { detail: told, key: Some(old.id), rows, ..Note::default() }).await?;
        record.advance(worker, State::Verifying).await
    }

    async fn verify(&mut self, record: &Record) -> Result<(), JobError> {
        proxies::acknowledged(self.worker, record.switched_epoch).await?;
        let left = verify::rows_left(self.worker, &self.keys().await?.ids_under(record.old_key)).await?;
        if left.is_empty() {
            return record.advance(self.worker, State::Deactivating).await;
        }
        if self.damage.cells > 0 {
            return Err(JobError::Damaged(std::mem::take(&mut self.damage)));
        }
        self.futile += 1;
        if self.futile > FUTILE_MAX {
            let names: Vec<Arc<str>> = left.into_iter().map(|(name, _)| name).collect();
            let names = listed(&names);
            return Err(JobError::Blocked(format!(
                "rows of {names} keep cells under the old key, which stays enabled"
            )));
        }
        record.advance(self.worker, State::Rewrapping).await
    }

    async fn deactivate(&self, record: &Record) -> Result<(), JobError> {
        let (worker, keys) = (self.worker, self.keys().await?);
        let old = master(&keys, record.old_key)?;
        let requests = disable(worker, old, &record.about()).await?;
        record.finish(worker).await?;
        let detail = format!("{} was disabled: the rotation is done ({})", old.arn, record.about());
        worker.journal.note(Note { detail, key: Some(old.id), kms_requests: requests, ..Note::default() }).await
    }

    async fn done(&self, record: &Record) -> Result<Done, JobError> {
        let keys = self.keys().await?;
        let new = record.new_key.ok_or(JobError::Internal("a rotation without a new key"))?;
        Ok(Done {
            rows: record.progress.rows,
            cells: record.progress.cells,
            old: master(&keys, record.old_key)?.arn.to_string(),
            new: master(&keys, new)?.arn.to_string(),
        })
    }
}

fn master(keys: &KeySet, id: KeyId) -> Result<&MasterKey, JobError> {
    keys.master(id).ok_or(JobError::Internal("a rotation of a key that is not in the registry"))
}

/// Records and disables; a key that somebody has scheduled for deletion refuses every use already.
pub(super) async fn disable(worker: &Worker<'_>, key: &MasterKey, about: &str) -> Result<Vec<String>, JobError> {
    worker.journal.say(format!("disable {} ({about})", key.arn), Some(key.id)).await?;
    match worker.kms.disable(&key.arn).await {
        Ok(request) => Ok(vec![request]),
        Err(error) if error.class == KmsErrorClass::PendingDeletion => {
            let described = worker.kms.describe(&key.arn).await?;
            if described.state == KeyState::PendingDeletion { Ok(Vec::new()) } else { Err(error.into()) }
        }
        Err(error) => Err(error.into()),
    }
}
