//! Revoking a tenant (K5): nobody may use its keys, whatever is cached, until they are reactivated; and shredding it, which
//! is for ever.
use super::custody::{Custody, TakenUp};
use super::keyset::MasterKey;
use super::{Event, JobError};

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// How many keys changed in the key service.
    pub keys: usize,
    /// How the proxies took it up.
    pub taken_up: TakenUp,
}

/// Stops every proxy, then disables the tenant's keys.
///
/// # Errors
/// [`JobError::Refused`] for a tenant that is not registered, or shredded. After another error the tenant may be revoked
/// already; the same call goes on.
///
/// # Cancel safety
/// As after a crash: call again.
pub async fn revoke(custody: &Custody<'_>, reason: &str) -> Result<Done, JobError> {
    let keys = custody.keys().await?;
    refuse_shredded(custody, &keys.state)?;
    custody.journal.say(format!("revoke the tenant ({reason})"), None).await?;
    let change = custody.stand("revoked", &["active", "revoked"], reason).await?;
    // What has come in the meantime is stopped too; nothing comes any more.
    let keys = custody.keys().await?;
    let usable: Vec<_> = keys.masters.iter().filter(|key| key.state != "purged").collect();
    let (disabled, taken_up) =
        tokio::join!(custody.each(usable, |key| custody.disable(key, reason)), custody.taken_up(&change));
    ended(custody, disabled, taken_up?)
}

/// Enables the keys of a revoked tenant, then lets proxies use them again.
///
/// # Errors
/// [`JobError::Refused`] for a tenant that is not revoked.
///
/// # Cancel safety
/// As after a crash: call again.
pub async fn reactivate(custody: &Custody<'_>, reason: &str) -> Result<Done, JobError> {
    let keys = custody.keys().await?;
    refuse_shredded(custody, &keys.state)?;
    if keys.state != "revoked" {
        let message =
            format!("tenant {:?} is {}; for older versions of its key say --for-restore", custody.tenant, keys.state);
        return Err(JobError::Refused(message));
    }
    custody.journal.say(format!("reactivate the tenant ({reason})"), None).await?;
    let serving = |key: &&MasterKey| matches!(&*key.state, "active" | "retiring");
    let serving: Vec<_> = keys.masters.iter().filter(serving).collect();
    let enabled = custody.each(serving, |key| custody.enable(key, reason)).await?;
    let change = custody.stand("active", &["revoked"], reason).await?;
    Ok(Done { keys: enabled, taken_up: custody.taken_up(&change).await? })
}

/// Stops every proxy for ever, then schedules the deletion of all keys of the tenant.
///
/// # Errors
/// [`JobError::Refused`] for a tenant that is not registered. After another error the tenant may be shredded already; the
/// same call goes on.
///
/// # Cancel safety
/// As after a crash: call again.
pub async fn shred(custody: &Custody<'_>, days: u8, reason: &str) -> Result<Done, JobError> {
    custody.keys().await?;
    custody.journal.say(format!("shred the tenant ({reason})"), None).await?;
    let change = custody.stand("shredded", &["active", "revoked", "shredded"], reason).await?;
    let keys = custody.keys().await?;
    let there: Vec<_> = keys.masters.iter().filter(|key| key.state != "purged").collect();
    let (scheduled, taken_up) = tokio::join!(
        custody.each(there, |key| custody.schedule_deletion(key, days, reason)),
        custody.taken_up(&change)
    );
    ended(custody, scheduled, taken_up?)
}

/// Where the key service has failed, it is said that the proxies have stopped all the same.
fn ended(custody: &Custody<'_>, keys: Result<usize, JobError>, taken_up: TakenUp) -> Result<Done, JobError> {
    if keys.is_err() {
        let proxies = taken_up.proxies;
        let text = format!("{proxies} proxies refuse the tenant's keys, but the key service does not: run this again");
        (custody.watch)(Event::Warning(&text));
    }
    Ok(Done { keys: keys?, taken_up })
}

pub(super) fn refuse_shredded(custody: &Custody<'_>, state: &str) -> Result<(), JobError> {
    if state == "shredded" {
        return Err(JobError::Refused(format!("tenant {:?} is shredded, which is for ever", custody.tenant)));
    }
    Ok(())
}
