//! The row of a rotation in the registry.
use std::fmt;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::Wrapped;
use crate::crypto::KeyId;
use crate::jobs::keyset::{KeySet, key_id};
use crate::jobs::rewrap::Progress;
use crate::jobs::{JobError, Worker};
use crate::keys::registry::fresh::{FreshMaster, provider};

type Parameter<'a> = &'a (dyn ToSql + Sync);

/// How far a rotation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The new master key is made and tried.
    Creating,
    /// The proxies take it up.
    Switching,
    /// Cells get slots under it.
    Rewrapping,
    /// Nothing is to hang on the old one.
    Verifying,
    /// The old one is disabled.
    Deactivating,
    /// Nothing is left to do.
    Done,
}

const STATES: [(State, &str); 6] = [
    (State::Creating, "creating"),
    (State::Switching, "switching"),
    (State::Rewrapping, "rewrapping"),
    (State::Verifying, "verifying"),
    (State::Deactivating, "deactivating"),
    (State::Done, "done"),
];

impl State {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        STATES.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }

    fn parse(text: &str) -> Result<State, JobError> {
        let found = STATES.iter().find(|(_, word)| *word == text);
        found.map(|(state, _)| *state).ok_or(JobError::Internal("a state that this release does not know"))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is done to each cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Depth {
    /// Its data key is wrapped by the new key.
    #[default]
    Rewrap,
    /// Its value is sealed anew, under a data key that is new too.
    Reseal,
}

impl Depth {
    /// As it is stored and asked for.
    pub fn as_str(self) -> &'static str {
        match self {
            Depth::Rewrap => "rewrap",
            Depth::Reseal => "reseal",
        }
    }
}

/// What an operator asks for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// What is done to each cell.
    pub depth: Depth,
    /// Why; with it the key counts as compromised, and the rule of 24 hours does not hold.
    pub compromised: Option<String>,
}

/// One rotation.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Whose key it is.
    pub tenant: String,
    /// How far it has come.
    pub state: State,
    /// What is done to each cell.
    pub depth: Depth,
    /// The key that is left.
    pub old_key: KeyId,
    /// The key for new data, once it is there.
    pub new_key: Option<KeyId>,
    /// The reason, where the key counts as compromised.
    pub compromised: Option<String>,
    /// How far the passes have come.
    pub progress: Progress,
    /// The epoch that every proxy must have taken up.
    pub switched_epoch: Option<i64>,
    /// When it was started and finished, by the server's clock.
    pub started_at: String,
    /// The same.
    pub finished_at: Option<String>,
    pub(super) intent: String,
    pub(super) database: String,
    pub(super) is_new: bool,
    pub(super) is_young: bool,
}

const READ: &str = "
    SELECT r.id::text, r.state, r.old_key, r.new_key, CASE WHEN r.compromised THEN r.reason END, r.progress::text,
        r.switched_epoch, r.intent::text, i.id::text, r.updated_at > now() - interval '1 minute',
        to_char(r.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
        to_char(r.finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
        r.depth, r.tenant
    FROM rowseal.rotation r, rowseal.installation i ";

/// The latest rotation of a tenant, whether it runs or not.
///
/// # Errors
/// A server that does not answer, or a record that this release does not understand.
pub async fn latest(client: &Client, tenant: &str) -> Result<Option<Record>, JobError> {
    let read = format!("{READ} WHERE r.tenant = $1 ORDER BY r.finished_at IS NOT NULL, r.started_at DESC LIMIT 1");
    let row = client.query_opt(&read, &[&tenant]).await.map_err(JobError::server("read the rotations"))?;
    row.as_ref().map(record).transpose()
}

/// The latest rotations of all tenants, the latest first; at most `max`.
///
/// # Errors
/// As [`latest`].
pub async fn recent(client: &Client, max: i64) -> Result<Vec<Record>, JobError> {
    let read = format!("{READ} ORDER BY r.started_at DESC LIMIT $1");
    let rows = client.query(&read, &[&max]).await.map_err(JobError::server("read the rotations"))?;
    rows.iter().map(record).collect()
}

fn record(row: &Row) -> Result<Record, JobError> {
    let id = |at: usize| row.get::<_, Option<&[u8]>>(at).map(key_id).transpose();
    Ok(Record {
        id: row.get(0),
        tenant: row.get(13),
        state: State::parse(row.get(1))?,
        depth: if row.get::<_, &str>(12) == "reseal" { Depth::Reseal } else { Depth::Rewrap },
        old_key: id(2)?.ok_or(JobError::Internal("a rotation without an old key"))?,
        new_key: id(3)?,
        compromised: row.get(4),
        progress: serde_json::from_str(row.get(5)).map_err(|_| JobError::Internal("progress that cannot be read"))?,
        switched_epoch: row.get(6),
        intent: row.get(7),
        database: row.get(8),
        is_new: false,
        is_young: row.get(9),
        started_at: row.get(10),
        finished_at: row.get(11),
    })
}

/// The rotation that runs, or a new one if the rules allow it.
pub(super) async fn begin(worker: &Worker<'_>, request: &Request) -> Result<Record, JobError> {
    let (client, tenant) = (&worker.client, &*worker.tenant);
    let keys = KeySet::read(client, tenant).await?;
    let keys = keys.ok_or_else(|| JobError::Refused(format!("tenant {tenant:?} is not registered")))?;
    if keys.state != "active" {
        return Err(JobError::Refused(format!("tenant {tenant:?} is {}: only an active one is rotated", keys.state)));
    }
    if let Some(mut running) = latest(client, tenant).await?.filter(|record| record.finished_at.is_none()) {
        if request.depth != running.depth {
            let depth = running.depth.as_str();
            return Err(JobError::Refused(format!(
                "a rotation of tenant {tenant:?} with --depth {depth} is under way"
            )));
        }
        if running.state == State::Creating {
            // This attempt may make a key, too, which the next one may have to wait for.
            let again = "UPDATE rowseal.rotation SET updated_at = now() WHERE id = $1::text::uuid";
            client.execute(again, &[&running.id]).await.map_err(JobError::server("change the rotation"))?;
        }
        if request.compromised.is_some() && request.compromised != running.compromised {
            running.compromised.clone_from(&request.compromised);
            worker.journal.say(format!("declare the key compromised ({})", running.about()), None).await?;
            let update = "UPDATE rowseal.rotation SET compromised = true, reason = $2 WHERE id = $1::text::uuid";
            let updated = client.execute(update, &[&running.id, &running.compromised]).await;
            updated.map_err(JobError::server("change the rotation"))?;
        }
        return Ok(running);
    }
    if request.compromised.is_none() {
        check_interval(client, tenant).await?;
    }
    let old = keys.active().ok_or(JobError::Internal("the tenant has no active master key"))?;
    let reason = request.compromised.as_deref().map_or("by hand".to_owned(), |reason| format!("compromised: {reason}"));
    worker.journal.say(format!("rotate {} ({reason})", old.arn), Some(old.id)).await?;
    let insert = "INSERT INTO rowseal.rotation (tenant, state, old_key, compromised, reason, depth)
        VALUES ($1, 'creating', $2, $3, $4, $5)";
    let parameters: [Parameter<'_>; 5] =
        [&tenant, &&old.id.0[..], &request.compromised.is_some(), &request.compromised, &request.depth.as_str()];
    client.execute(insert, &parameters).await.map_err(JobError::server("begin the rotation"))?;
    let begun = latest(client, tenant).await?.ok_or(JobError::Internal("a rotation that is not there"))?;
    Ok(Record { is_new: true, ..begun })
}

/// At most one rotation begins in 24 hours.
async fn check_interval(client: &Client, tenant: &str) -> Result<(), JobError> {
    let left = "SELECT ceil(extract(epoch FROM max(started_at) + interval '24 hours' - clock_timestamp()) / 60)::int8
        FROM rowseal.rotation WHERE tenant = $1";
    let row = client.query_one(left, &[&tenant]).await.map_err(JobError::server("read the rotations"))?;
    match row.get::<_, Option<i64>>(0).filter(|minutes| *minutes > 0) {
        None => Ok(()),
        Some(minutes) => Err(JobError::Refused(format!(
            "tenant {tenant:?} was rotated less than 24 hours ago: again in {} h {} min, or at once with --compromised \
             --reason",
            minutes / 60,
            minutes % 60
        ))),
    }
}

impl Record {
    /// For the audit log: which rotation, and why.
    pub(super) fn about(&self) -> String {
        let reason = self.compromised.as_deref().map(|reason| format!(", compromised: {reason}"));
        format!("rotation {}{}", self.id, reason.unwrap_or_default())
    }

    /// As it is in the registry now.
    pub(super) async fn again(&self, worker: &Worker<'_>) -> Result<Record, JobError> {
        let read = format!("{READ} WHERE r.id = $1::text::uuid");
        let row = worker.client.query_one(&read, &[&self.id]).await;
        record(&row.map_err(JobError::server("read the rotation"))?)
    }

    /// Goes on to another state.
    pub(super) async fn advance(&self, worker: &Worker<'_>, to: State) -> Result<(), JobError> {
        let advance = "UPDATE rowseal.rotation SET state = $3, updated_at = now()
            WHERE id = $1::text::uuid AND state = $2";
        let done = worker.client.execute(advance, &[&self.id, &self.state.as_str(), &to.as_str()]).await;
        one(done.map_err(JobError::server("keep the state"))?)
    }

    /// The one transaction that ends `creating`: new data goes under the new key from here on.
    pub(super) async fn switch(
        &self,
        worker: &Worker<'_>,
        new: &FreshMaster,
        keys: (&[Wrapped], Option<Wrapped>),
    ) -> Result<(), JobError> {
        in_transaction(worker, self.switch_steps(worker, new, keys)).await
    }

    async fn switch_steps(
        &self,
        worker: &Worker<'_>,
        new: &FreshMaster,
        (roots, branch): (&[Wrapped], Option<Wrapped>),
    ) -> Result<(), JobError> {
        let (tenant, id, old) = (&*worker.tenant, KeyId::random(), &self.old_key.0[..]);
        let (arn, provider, canary) = (new.arn.as_str(), provider(&new.arn), new.canary.as_ref());
        let run = async |statement: &str, parameters: &[Parameter<'_>]| {
            let done = worker.client.execute(statement, parameters).await;
            one(done.map_err(JobError::server("switch to the new key"))?)
        };
        // A tenant that is being revoked is not given a key that works.
        let active = "UPDATE rowseal.tenant SET state = state WHERE name = $1 AND state = 'active'";
        run(active, &[&tenant]).await?;
        run("UPDATE rowseal.master_key SET state = 'retiring' WHERE key_id = $1 AND state = 'active'", &[&old]).await?;
        let insert = "INSERT INTO rowseal.master_key (key_id, tenant, version, provider, arn, state, intent, canary)
            SELECT $1, $2, max(version) + 1, $3, $4, 'active', $5::text::uuid, $6
            FROM rowseal.master_key WHERE tenant = $2";
        run(insert, &[&&id.0[..], &tenant, &provider, &arn, &self.intent, &canary]).await?;
        for root in roots {
            let wrap =
                "UPDATE rowseal.branch_key SET master_key = $2, wrapped = $3 WHERE key_id = $1 AND master_key = $4";
            run(wrap, &[&&root.id.0[..], &&id.0[..], &root.blob.as_ref(), &old]).await?;
        }
        if let Some(branch) = branch {
            let retire = "UPDATE rowseal.branch_key SET state = 'retired'
                WHERE tenant = $1 AND purpose = 'wrap' AND state = 'active'";
            run(retire, &[&tenant]).await?;
            let insert = "INSERT INTO rowseal.branch_key (key_id, tenant, purpose, master_key, wrapped)
                VALUES ($1, $2, 'wrap', $3, $4)";
            run(insert, &[&&branch.id.0[..], &tenant, &&id.0[..], &branch.blob.as_ref()]).await?;
        }
        // Last, because each of the statements before has moved the epoch.
        let switched = "UPDATE rowseal.rotation SET state = 'switching', new_key = $2, updated_at = now(),
            switched_epoch = (SELECT value FROM rowseal.epoch) WHERE id = $1::text::uuid AND state = 'creating'";
        run(switched, &[&self.id, &&id.0[..]]).await
    }

    /// The old key is disabled; nothing is left to do.
    pub(super) async fn finish(&self, worker: &Worker<'_>) -> Result<(), JobError> {
        in_transaction(worker, async {
            let run = async |statement: &str, parameters: &[Parameter<'_>]| {
                let done = worker.client.execute(statement, parameters).await;
                one(done.map_err(JobError::server("finish the rotation"))?)
            };
            let key = "UPDATE rowseal.master_key SET state = 'deactivated' WHERE key_id = $1 AND state = 'retiring'";
            run(key, &[&&self.old_key.0[..]]).await?;
            let done = "UPDATE rowseal.rotation SET state = 'done', finished_at = now(), updated_at = now()
                WHERE id = $1::text::uuid AND state = 'deactivating'";
            run(done, &[&self.id]).await
        })
        .await
    }
}

fn one(rows: u64) -> Result<(), JobError> {
    if rows == 1 { Ok(()) } else { Err(JobError::Blocked("somebody else has changed the tenant's keys".to_owned())) }
}

async fn in_transaction(
    worker: &Worker<'_>,
    steps: impl Future<Output = Result<(), JobError>>,
) -> Result<(), JobError> {
    worker.client.batch_execute("BEGIN").await.map_err(JobError::server("begin a transaction"))?;
    let done = match steps.await {
        Ok(()) => worker.commit().await,
        Err(error) => Err(error),
    };
    if done.is_err() {
        worker.roll_back().await;
    }
    done
}
