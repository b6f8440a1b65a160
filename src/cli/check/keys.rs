//! Whether the key service can be reached and the tenants' master keys be used.
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Finding, error, warning};
use crate::keys::context;
use crate::keys::kms::{KeyState, Kms, KmsError};
use crate::keys::registry::{MasterRecord, MasterState, Snapshot};

/// Keys that are asked for at a time.
const CONCURRENCY: usize = 16;

/// What is wrong with the active master keys. One finding stands for all of them when the service itself is the trouble.
pub(super) async fn findings(kms: &Arc<dyn Kms>, snapshot: &Snapshot) -> Vec<Finding> {
    let mut active: Vec<_> =
        snapshot.masters.values().filter(|key| key.state == MasterState::Active).cloned().collect();
    active.sort_by(|a, b| a.tenant.cmp(&b.tenant));
    // The first alone, so that a service that cannot be reached is waited for once.
    let mut rest = active.into_iter();
    let Some(first) = rest.next() else { return Vec::new() };
    let first = match of_key(&**kms, &first).await {
        Ok(finding) => finding,
        Err(failure) => return vec![unreachable(&failure)],
    };
    let mut found: Vec<Finding> = first.into_iter().collect();
    let mut asked = JoinSet::new();
    loop {
        while asked.len() < CONCURRENCY
            && let Some(key) = rest.next()
        {
            let kms = kms.clone();
            asked.spawn(async move { of_key(&*kms, &key).await });
        }
        match asked.join_next().await {
            Some(Ok(Ok(finding))) => found.extend(finding),
            Some(Ok(Err(failure))) => {
                found.push(unreachable(&failure));
                return found;
            }
            Some(Err(_)) => {}
            None => return found,
        }
    }
}

/// What is wrong with one key.
///
/// # Errors
/// When the service could not say.
async fn of_key(kms: &dyn Kms, key: &MasterRecord) -> Result<Option<Finding>, KmsError> {
    let (tenant, arn) = (&key.tenant, &key.arn);
    let described = match kms.describe(arn).await {
        Err(failure) if failure.is_definitive() => return Ok(Some(refused(key, &failure))),
        described => described?,
    };
    if described.tag(context::TAG_TENANT) != Some(&**tenant) {
        return Ok(Some(error(format!("the tags of key {arn} do not name tenant {tenant:?}: it will not be used"))));
    }
    if described.state != KeyState::Enabled {
        // Someone may mean it so.
        let text = format!("the key of tenant {tenant:?} is not enabled ({arn}): its values cannot be opened");
        return Ok(Some(warning(text)));
    }
    match kms.decrypt(arn, &key.canary, &context::canary(tenant)).await {
        Err(failure) if failure.is_definitive() => Ok(Some(refused(key, &failure))),
        decrypted => decrypted.map(|_| None),
    }
}

fn refused(key: &MasterRecord, failure: &KmsError) -> Finding {
    error(format!("the key of tenant {:?} cannot be used ({}): {failure}", key.tenant, key.arn))
}

fn unreachable(failure: &KmsError) -> Finding {
    error(format!("the key service cannot be used: {failure}"))
}
