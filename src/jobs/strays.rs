//! Cells that hang on another master key than the active one (K3), as a restored backup brings them: they are wrapped
//! again, and the keys that were enabled for them are disabled once more.
use std::sync::Arc;

use super::journal::Note;
use super::keyset::{KeySet, MasterKey};
use super::rewrap::{Depth, Passes, Progress, listed};
use super::rotation::{disable, latest};
use super::wraps::Wraps;
use super::{JobError, Worker, tables, verify};
use crate::crypto::KeyId;
use crate::keys::kms::KeyState;

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Rows whose cells were wrapped again.
    pub rows: u64,
    /// Their cells.
    pub cells: u64,
    /// The keys that were disabled again.
    pub disabled: Vec<String>,
    /// Tables with cells under keys that cannot be used.
    pub out_of_reach: Vec<(Arc<str>, u64)>,
}

/// Wraps again every cell of the tenant whose master key is not the active one but can be used, and disables those keys.
///
/// # Errors
/// [`JobError::Refused`] while a rotation runs or for a tenant that is not active; otherwise as
/// [`rotate`](super::rotation::rotate).
///
/// # Cancel safety
/// As after a crash: call again.
pub async fn rewrap(worker: &Worker<'_>) -> Result<Done, JobError> {
    let keys = admitted(worker).await?;
    let purpose = tables::Use::Change { silences_triggers: worker.silences_triggers };
    tables::stored(&worker.client, purpose).await?;
    let (mut usable, mut lost) = (Vec::new(), Vec::new());
    for master in keys.masters.iter().filter(|master| matches!(&*master.state, "retiring" | "deactivated")) {
        let is_usable = worker.kms.describe(&master.arn).await?.state == KeyState::Enabled;
        if is_usable { usable.push(master) } else { lost.push(master) }
    }
    let mut done = Done::default();
    if !usable.is_empty() {
        (done.rows, done.cells) = wrap_again(worker, &keys, &usable).await?;
        done.disabled = disable_again(worker, &usable).await?;
    }
    let ids: Vec<KeyId> = lost.iter().flat_map(|master| keys.ids_under(master.id)).collect();
    if !ids.is_empty() {
        let tables = tables::stored(&worker.client, tables::Use::Read).await?;
        done.out_of_reach = super::references::rows_under(&worker.client, &tables, &ids).await?;
    }
    Ok(done)
}

async fn admitted(worker: &Worker<'_>) -> Result<KeySet, JobError> {
    let tenant = &*worker.tenant;
    let keys = KeySet::read(&worker.client, tenant).await?;
    let keys = keys.ok_or_else(|| JobError::Refused(format!("tenant {tenant:?} is not registered")))?;
    if keys.state != "active" {
        return Err(JobError::Refused(format!("tenant {tenant:?} is {}", keys.state)));
    }
    if latest(&worker.client, tenant).await?.is_some_and(|rotation| rotation.finished_at.is_none()) {
        let hint = "it wraps all cells again; go on with `rowseal key rotate`";
        return Err(JobError::Refused(format!("a rotation of tenant {tenant:?} is under way: {hint}")));
    }
    Ok(keys)
}

async fn wrap_again(worker: &Worker<'_>, keys: &KeySet, usable: &[&MasterKey]) -> Result<(u64, u64), JobError> {
    let masters: Vec<KeyId> = usable.iter().map(|master| master.id).collect();
    let ids: Vec<KeyId> = masters.iter().flat_map(|master| keys.ids_under(*master)).collect();
    for master in usable {
        let detail = format!("wrap again what hangs on {}", master.arn);
        worker.journal.say(detail, Some(master.id)).await?;
    }
    let calls_max = worker.pace.kms_calls_max;
    let wraps = Wraps::open(worker.kms.clone(), worker.tenant.clone(), keys, &masters, calls_max).await?;
    wraps.record_opening(worker, keys.active().map(|master| master.id)).await?;
    let mut passes = Passes::new(worker, (&wraps, Depth::Rewrap, &ids), None, Progress::default());
    let damage = passes.run().await?;
    let left = verify::rows_left(worker, &ids).await?;
    if damage.cells > 0 && !left.is_empty() {
        return Err(JobError::Damaged(damage));
    }
    if !left.is_empty() {
        let names: Vec<Arc<str>> = left.into_iter().map(|(name, _)| name).collect();
        return Err(JobError::Blocked(format!("rows of {} came meanwhile: start again", listed(&names))));
    }
    Ok((passes.progress().rows, passes.progress().cells))
}

async fn disable_again(worker: &Worker<'_>, usable: &[&MasterKey]) -> Result<Vec<String>, JobError> {
    let mut disabled = Vec::new();
    for master in usable {
        let kms_requests = disable(worker, master, "nothing hangs on it any more").await?;
        let update = "UPDATE rowseal.master_key SET state = 'deactivated', restore_until = NULL WHERE key_id = $1";
        let done = worker.client.execute(update, &[&&master.id.0[..]]).await;
        done.map_err(JobError::server("record the state of a key"))?;
        let detail = format!("{} was disabled", master.arn);
        worker.journal.note(Note { detail, key: Some(master.id), kms_requests, ..Note::default() }).await?;
        disabled.push(master.arn.to_string());
    }
    Ok(disabled)
}
