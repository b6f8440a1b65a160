//! Acts on the keys of one tenant that touch no cell: revoking and reactivating, purging and shredding.
//!
//! Each is recorded before it is done, and can be repeated where it stopped. What stops proxies is written to the registry
//! first and undone last, so that after a crash a key is refused rather than served.
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::journal::Note;
use super::keyset::{KeySet, MasterKey};
use super::rotation::latest;
use super::{Event, JobError, Journal, Watch};
use crate::keys::kms::{KeyState, Kms, KmsError};
use crate::keys::registry::{COUNTED_OUT_AFTER, Registry};

const PAUSE: Duration = Duration::from_millis(50);

/// How often a call is made that is not repeated where all others are, and what is left between.
const ATTEMPTS: u32 = 3;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);

/// What it takes to act on the keys of one tenant.
pub struct Custody<'a> {
    pub(super) client: Client,
    pub(super) kms: Arc<dyn Kms>,
    pub(super) journal: Journal,
    pub(super) tenant: &'a str,
    pub(super) watch: Watch<'a>,
}

/// How the proxies took it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenUp {
    /// How many there are that live.
    pub proxies: usize,
    /// Those that have been silent for so long that they are not waited for.
    pub silent: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// A change of the registry that proxies have to take up.
pub(super) struct Change {
    epoch: i64,
    at: Instant,
}

impl<'a> Custody<'a> {
    /// Connects.
    ///
    /// # Errors
    /// A server that does not answer.
    pub async fn new(
        registry: &Registry,
        (kms, journal): (Arc<dyn Kms>, Journal),
        tenant: &'a str,
        watch: Watch<'a>,
    ) -> Result<Custody<'a>, JobError> {
        let client = registry.dedicated().await?;
        let session = "SET search_path = pg_catalog; SET synchronous_commit = on";
        client.batch_execute(session).await.map_err(JobError::server("prepare the session"))?;
        Ok(Custody { client, kms, journal, tenant, watch })
    }

    /// All keys of the tenant.
    ///
    /// # Errors
    /// [`JobError::Refused`] for one that is not registered.
    pub(super) async fn keys(&self) -> Result<KeySet, JobError> {
        let keys = KeySet::read(&self.client, self.tenant).await?.filter(|keys| keys.state != "registering");
        keys.ok_or_else(|| JobError::Refused(format!("tenant {:?} is not registered", self.tenant)))
    }

    /// Refuses what a rotation that is under way would undo.
    pub(super) async fn no_rotation(&self) -> Result<(), JobError> {
        if latest(&self.client, self.tenant).await?.is_some_and(|rotation| rotation.finished_at.is_none()) {
            let message =
                format!("a rotation of tenant {:?} is under way: end it with `rowseal key rotate`", self.tenant);
            return Err(JobError::Refused(message));
        }
        Ok(())
    }

    /// Runs a statement that changes one row.
    pub(super) async fn change(&self, statement: &str, of: &[&(dyn ToSql + Sync)]) -> Result<(), JobError> {
        let changed = self.client.execute(statement, of).await.map_err(JobError::server("change the registry"))?;
        if changed == 1 {
            Ok(())
        } else {
            Err(JobError::Blocked("the registry has changed meanwhile: try again".into()))
        }
    }

    /// Changes what the tenant is. A transaction that has seen it active may still be about to give it another key, so
    /// its row is waited for.
    pub(super) async fn stand(&self, to: &str, from: &[&str], reason: &str) -> Result<Change, JobError> {
        let update = "UPDATE rowseal.tenant SET state = $2, reason = $3, changed_at = now()
            WHERE name = $1 AND state = ANY ($4)";
        self.change(update, &[&self.tenant, &to, &reason, &from]).await?;
        let at = Instant::now();
        let epoch = self.client.query_one("SELECT value FROM rowseal.epoch", &[]).await;
        Ok(Change { epoch: epoch.map_err(JobError::server("read the epoch"))?.get(0), at })
    }

    /// Waits until every proxy that lives goes by a change.
    ///
    /// # Errors
    /// A server that does not answer.
    pub(super) async fn taken_up(&self, change: &Change) -> Result<TakenUp, JobError> {
        let look = "SELECT id::text, coalesce(taken_up, epoch) < $1,
            heartbeat < clock_timestamp() - make_interval(secs => $2) FROM rowseal.proxy ORDER BY id";
        loop {
            let rows = self.client.query(look, &[&change.epoch, &COUNTED_OUT_AFTER.as_secs_f64()]).await;
            let rows = rows.map_err(JobError::server("read the table of proxies"))?;
            let silent = rows.iter().filter(|row| row.get(1) && row.get(2)).map(|row| row.get(0)).collect::<Vec<_>>();
            if rows.iter().all(|row| !row.get::<_, bool>(1) || row.get(2)) {
                return Ok(TakenUp { proxies: rows.len() - silent.len(), silent, took: change.at.elapsed() });
            }
            sleep(PAUSE).await;
        }
    }

    /// Makes a key refuse every use. One that does so already is left as it is.
    pub(super) async fn disable(&self, key: &MasterKey, about: &str) -> Result<bool, JobError> {
        if self.kms.describe(&key.arn).await?.state != KeyState::Enabled {
            return Ok(false);
        }
        self.act("disable", key, about).await?;
        let request = self.kms.disable(&key.arn).await?;
        self.done("disabled", key, Some(request)).await.map(|()| true)
    }

    /// Makes a disabled key usable.
    ///
    /// # Errors
    /// [`JobError::Refused`] for one that is pending deletion.
    pub(super) async fn enable(&self, key: &MasterKey, about: &str) -> Result<bool, JobError> {
        match self.kms.describe(&key.arn).await?.state {
            KeyState::Enabled => return Ok(false),
            KeyState::Disabled => {}
            KeyState::PendingDeletion | KeyState::Unavailable => {
                let message = format!("{} is pending deletion or its state does not allow it", key.arn);
                return Err(JobError::Refused(message));
            }
        }
        self.act("enable", key, about).await?;
        let request = self.kms.enable(&key.arn).await?;
        self.done("enabled", key, Some(request)).await.map(|()| true)
    }

    /// Schedules the deletion of a key, and records that it is purged.
    pub(super) async fn schedule_deletion(&self, key: &MasterKey, days: u8, about: &str) -> Result<bool, JobError> {
        if self.kms.describe(&key.arn).await?.state != KeyState::PendingDeletion {
            self.act(&format!("schedule, in {days} days, the deletion of"), key, about).await?;
            let schedule = || self.kms.schedule_deletion(&key.arn, days);
            let request = self.ask(key, schedule, |state| state == KeyState::PendingDeletion).await?;
            self.done("scheduled for deletion", key, request).await?;
        }
        let purged = "UPDATE rowseal.master_key SET state = 'purged', restore_until = NULL,
            deletion_at = now() + make_interval(days => $2) WHERE key_id = $1";
        self.change(purged, &[&&key.id.0[..], &i32::from(days)]).await.map(|()| true)
    }

    /// Cancels the deletion of a key, which leaves it disabled.
    pub(super) async fn cancel_deletion(&self, key: &MasterKey, about: &str) -> Result<bool, JobError> {
        if self.kms.describe(&key.arn).await?.state == KeyState::PendingDeletion {
            self.act("cancel the deletion of", key, about).await?;
            let cancel = || self.kms.cancel_deletion(&key.arn);
            let request = self.ask(key, cancel, |state| state != KeyState::PendingDeletion).await?;
            self.done("kept, and disabled", key, request).await?;
        }
        let kept = "UPDATE rowseal.master_key SET state = 'deactivated', deletion_at = NULL
            WHERE key_id = $1 AND state = 'purged'";
        self.change(kept, &[&&key.id.0[..]]).await.map(|()| true)
    }

    /// Makes a call that fails if it was carried out before: one whose answer was lost may have been, which the state of the
    /// key tells. Gives the service's name for the call, where there is one.
    async fn ask<F>(
        &self,
        key: &MasterKey,
        call: impl Fn() -> F,
        is_done: impl Fn(KeyState) -> bool,
    ) -> Result<Option<String>, JobError>
    where
        F: Future<Output = Result<String, KmsError>>,
    {
        for _ in 1..ATTEMPTS {
            match call().await {
                Err(error) if error.class.is_passing() => {
                    if is_done(self.kms.describe(&key.arn).await?.state) {
                        return Ok(error.request_id);
                    }
                    sleep(ATTEMPT_PAUSE).await;
                }
                answer => return Ok(Some(answer?)),
            }
        }
        Ok(Some(call().await?))
    }

    async fn act(&self, what: &str, key: &MasterKey, about: &str) -> Result<(), JobError> {
        self.journal.say(format!("{what} {} ({about})", key.arn), Some(key.id)).await
    }

    async fn done(&self, what: &str, key: &MasterKey, request: Option<String>) -> Result<(), JobError> {
        let detail = format!("{} was {what}", key.arn);
        let kms_requests = request.into_iter().collect();
        self.journal.note(Note { detail, key: Some(key.id), kms_requests, ..Note::default() }).await
    }

    /// Does something to each key, also when it fails for one of them; gives for how many it was done.
    pub(super) async fn each<'k, F>(
        &self,
        keys: impl IntoIterator<Item = &'k MasterKey>,
        act: impl Fn(&'k MasterKey) -> F,
    ) -> Result<usize, JobError>
    where
        F: Future<Output = Result<bool, JobError>>,
    {
        let (mut done, mut failed) = (0, None);
        for key in keys {
            match act(key).await {
                Ok(did) => done += usize::from(did),
                Err(error) => {
                    (self.watch)(Event::Warning(&format!("{}: {error}", key.arn)));
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(done), Err)
    }
}
