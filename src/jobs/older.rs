//! Older versions of a master key, which rotations have left behind: enabled for a while for a restored backup (K3), and
//! deleted once nothing needs them (K4).
use super::custody::Custody;
use super::keyset::{KeySet, MasterKey};
use super::revocation::refuse_shredded;
use super::{JobError, Worker, verify};

/// Enables the deactivated versions for some hours, so that what a restored backup brought can be read and wrapped again.
///
/// # Errors
/// [`JobError::Refused`] for a tenant that is not active, or has no such version.
///
/// # Cancel safety
/// As after a crash: call again.
pub async fn lend(custody: &Custody<'_>, hours: u16, reason: &str) -> Result<Vec<MasterKey>, JobError> {
    let keys = custody.keys().await?;
    refuse_shredded(custody, &keys.state)?;
    if keys.state != "active" {
        return Err(JobError::Refused(format!("tenant {:?} is {}: reactivate it first", custody.tenant, keys.state)));
    }
    let lent = lent(custody).await?;
    let of = |key: &&MasterKey| key.state == "deactivated" || lent.contains(&key.id.0.to_vec());
    let older: Vec<MasterKey> = keys.masters.iter().filter(of).cloned().collect();
    if older.is_empty() {
        return Err(JobError::Refused(format!("tenant {:?} has no deactivated version of its key", custody.tenant)));
    }
    for key in &older {
        let about = format!("for a restored backup, for {hours} hours: {reason}");
        custody.enable(key, &about).await?;
        let lend =
            "UPDATE rowseal.master_key SET state = 'retiring', restore_until = now() + make_interval(hours => $2)
            WHERE key_id = $1 AND (state = 'deactivated' OR restore_until IS NOT NULL)";
        custody.change(lend, &[&&key.id.0[..], &i32::from(hours)]).await?;
    }
    Ok(older)
}

/// Versions that are enabled for a restored backup.
async fn lent(custody: &Custody<'_>) -> Result<Vec<Vec<u8>>, JobError> {
    let lent =
        "SELECT key_id FROM rowseal.master_key WHERE tenant = $1 AND state = 'retiring' AND restore_until IS NOT NULL";
    let rows = custody.client.query(lent, &[&custody.tenant]).await.map_err(JobError::server("read the registry"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Deactivates again the versions whose time for a restored backup is over; proxies refuse them already.
///
/// # Errors
/// A server or key service that does not answer.
pub async fn take_back(custody: &Custody<'_>) -> Result<(), JobError> {
    let over = "SELECT key_id FROM rowseal.master_key
        WHERE tenant = $1 AND state = 'retiring' AND restore_until <= clock_timestamp()";
    let rows = custody.client.query(over, &[&custody.tenant]).await.map_err(JobError::server("read the registry"))?;
    if rows.is_empty() {
        return Ok(());
    }
    let keys = custody.keys().await?;
    for row in &rows {
        let id: &[u8] = row.get(0);
        let Some(key) = keys.masters.iter().find(|key| key.id.0 == *id) else { continue };
        custody.disable(key, "its time for a restored backup is over").await?;
        let back = "UPDATE rowseal.master_key SET state = 'deactivated', restore_until = NULL
            WHERE key_id = $1 AND state = 'retiring' AND restore_until IS NOT NULL";
        custody.change(back, &[&id]).await?;
    }
    Ok(())
}

/// The deactivated versions, if nothing needs them.
///
/// # Errors
/// [`JobError::Refused`] when there are none, when cells hang on one (with their counts), or while one is enabled for a
/// restored backup; [`JobError::Rights`] when the control role may not read a table with sealed columns.
pub async fn purgeable(custody: &Custody<'_>, worker: &Worker<'_>) -> Result<Vec<MasterKey>, JobError> {
    let keys = custody.keys().await?;
    refuse_shredded(custody, &keys.state)?;
    custody.no_rotation().await?;
    if !lent(custody).await?.is_empty() {
        let message = format!(
            "a version of the key of tenant {:?} is enabled for a restored backup: run `rowseal key rewrap` first",
            custody.tenant
        );
        return Err(JobError::Refused(message));
    }
    let older: Vec<MasterKey> = keys.masters.iter().filter(|key| key.state == "deactivated").cloned().collect();
    if older.is_empty() {
        return Err(JobError::Refused(format!("tenant {:?} has no deactivated version of its key", custody.tenant)));
    }
    nothing_hangs(&keys, &older)?;
    let ids: Vec<_> = older.iter().flat_map(|key| keys.ids_under(key.id)).collect();
    let left = verify::rows_left(worker, &ids).await?;
    if left.is_empty() {
        return Ok(older);
    }
    let counts: String = left.iter().map(|(table, rows)| format!("\n  {table}: {rows} rows")).collect();
    Err(JobError::Refused(format!(
        "rows hang on a deactivated version of the key of tenant {:?}:{counts}",
        custody.tenant
    )))
}

/// The index root and the branch key for new data are wrapped by the active version.
fn nothing_hangs(keys: &KeySet, older: &[MasterKey]) -> Result<(), JobError> {
    let needed = keys.wrapped.iter().filter(|key| key.is_active || key.is_index);
    let mut masters = needed.map(|key| key.master);
    match masters.find(|master| older.iter().any(|key| key.id == *master)) {
        Some(_) => Err(JobError::Blocked("a key that is in use is wrapped by a deactivated version".to_owned())),
        None => Ok(()),
    }
}

/// Schedules the deletion of versions that [`purgeable`] gave.
///
/// # Errors
/// A server or key service that does not answer; the same call goes on.
pub async fn purge(custody: &Custody<'_>, keys: &[MasterKey], days: u8) -> Result<(), JobError> {
    // The count may have seen commits that are not on disk yet, and that a crash of the server undoes. They are once a
    // later one is.
    custody.change("UPDATE rowseal.tenant SET state = state WHERE name = $1", &[&custody.tenant]).await?;
    for key in keys {
        custody.schedule_deletion(key, days, "purged: nothing hangs on it").await?;
    }
    Ok(())
}

/// Cancels the deletion of purged versions, which are deactivated then.
///
/// # Errors
/// [`JobError::Refused`] when there are none.
pub async fn unpurge(custody: &Custody<'_>, reason: &str) -> Result<Vec<MasterKey>, JobError> {
    let keys = custody.keys().await?;
    refuse_shredded(custody, &keys.state)?;
    let purged: Vec<MasterKey> = keys.masters.into_iter().filter(|key| key.state == "purged").collect();
    if purged.is_empty() {
        return Err(JobError::Refused(format!("tenant {:?} has no purged version of its key", custody.tenant)));
    }
    custody.each(&purged, |key| custody.cancel_deletion(key, reason)).await?;
    Ok(purged)
}
