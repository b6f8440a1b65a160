//! A fresh master key for an intent: found by its tag or made, and tried before anything hangs on it.
//!
//! Whoever wants a key has written the intent down first. It tags the key, so that after a crash at any point the next
//! attempt finds the key that was made and goes on with it.
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::RegistryError;
use crate::crypto::random_bytes;
use crate::keys::context::{self, TAG_DATABASE, TAG_INTENT, TAG_TENANT};
use crate::keys::kms::patient::again_while;
use crate::keys::kms::{Encrypted, EncryptionContext, KeyArn, KeyState, Kms, KmsError, KmsErrorClass};

/// A service of many machines may not know a fresh key everywhere at once: how long that is waited for.
const SETTLE_FOR: Duration = Duration::from_secs(15);

/// Between two looks for a key that may have been made a moment ago.
const SEARCH_PAUSE: Duration = Duration::from_millis(500);

/// What a key is wanted for, as it was written down before.
#[derive(Debug, Clone)]
pub struct KeyIntent {
    /// Tags the key.
    pub id: String,
    /// The installation, which tags it too.
    pub database: String,
    /// Written just now, so that no key can have been made for it.
    pub is_new: bool,
    /// A key for it may have been made so lately that a search does not find it at once.
    pub is_young: bool,
}

/// A master key that passed its round trip.
#[derive(Debug, Clone)]
pub struct FreshMaster {
    /// Its name.
    pub arn: KeyArn,
    /// A blob under it whose only use is to be decrypted.
    pub canary: Bytes,
    /// The service's name for the call that made the canary.
    pub request_id: String,
}

/// The tenant's master key for this intent. Safe to repeat.
///
/// # Errors
/// [`RegistryError::Kms`] and [`RegistryError::RoundTrip`]; the same call goes on where this one stopped.
///
/// # Cancel safety
/// As after a crash: call again, with an intent that is not new.
pub async fn fresh_master(kms: &dyn Kms, tenant: &str, intent: &KeyIntent) -> Result<FreshMaster, RegistryError> {
    let arn = find_or_create(kms, tenant, intent).await?;
    check_key(kms, tenant, &arn).await?;
    let (canary, request_id) = wrap_under(kms, &arn, &random_bytes::<16>(), &context::canary(tenant)).await?;
    Ok(FreshMaster { arn, canary, request_id })
}

/// Wraps a key under a master key that may be fresh.
///
/// # Errors
/// What the service says.
pub async fn wrap_under(
    kms: &dyn Kms,
    arn: &KeyArn,
    key: &[u8],
    context: &EncryptionContext,
) -> Result<Encrypted, KmsError> {
    settled(|| kms.encrypt(arn, key, context)).await
}

/// Which provider a name is of: `aws` of `arn:aws:kms:...`, `local` of `local:key/...`.
pub fn provider(arn: &KeyArn) -> &str {
    arn.as_str().trim_start_matches("arn:").split([':', '-']).next().unwrap_or_default()
}

/// The key that an earlier attempt made for this intent, or a new one. A search asks for the tags of every key of the
/// account, so none is made for an intent that is new.
async fn find_or_create(kms: &dyn Kms, tenant: &str, intent: &KeyIntent) -> Result<KeyArn, RegistryError> {
    let patience = if intent.is_young { kms.settles_within() } else { Duration::ZERO };
    if !intent.is_new
        && let Some(arn) = search(kms, tenant, intent, patience).await?
    {
        return Ok(arn);
    }
    let tags = [(TAG_TENANT, tenant), (TAG_INTENT, &*intent.id), (TAG_DATABASE, &*intent.database)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    // Refused for coming too soon, it was not created.
    let too_soon = |class| class == KmsErrorClass::Throttled;
    match again_while(SETTLE_FOR, too_soon, || kms.create_key(&tags)).await {
        Ok(arn) => Ok(arn),
        // It may have been created all the same: a second one would be an orphan.
        Err(error) if error.class == KmsErrorClass::Transient => {
            search(kms, tenant, intent, kms.settles_within()).await?.ok_or(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn search(
    kms: &dyn Kms,
    tenant: &str,
    intent: &KeyIntent,
    patience: Duration,
) -> Result<Option<KeyArn>, RegistryError> {
    let end = Instant::now() + patience;
    loop {
        let found = find(kms, tenant, intent).await?;
        if found.is_some() || Instant::now() + SEARCH_PAUSE >= end {
            return Ok(found);
        }
        tokio::time::sleep(SEARCH_PAUSE).await;
    }
}

async fn find(kms: &dyn Kms, tenant: &str, intent: &KeyIntent) -> Result<Option<KeyArn>, RegistryError> {
    let mut found = kms.find_by_tag(TAG_INTENT, &intent.id).await?;
    found.sort();
    for arn in found {
        let key = settled(|| kms.describe(&arn)).await?;
        if key.state == KeyState::Enabled && key.tag(TAG_TENANT) == Some(tenant) {
            return Ok(Some(arn));
        }
    }
    Ok(None)
}

/// What every use of the key will ask of it: that its tags name the tenant, and that it gives back what it wrapped.
async fn check_key(kms: &dyn Kms, tenant: &str, arn: &KeyArn) -> Result<(), RegistryError> {
    let context = context::verify(tenant);
    let described = settled(|| kms.describe(arn)).await?;
    let made = settled(|| kms.generate_data_key(arn, &context)).await?;
    let (opened, _) = settled(|| kms.decrypt(arn, &made.blob, &context)).await?;
    let is_right = described.tag(TAG_TENANT) == Some(tenant) && opened.as_slice() == made.plaintext.expose();
    if is_right { Ok(()) } else { Err(RegistryError::RoundTrip) }
}

/// Asks a fresh key again while the part of the service that is asked may not know it yet. What fails in passing is for
/// the provider to repeat.
async fn settled<T, F>(call: impl Fn() -> F) -> Result<T, KmsError>
where
    F: Future<Output = Result<T, KmsError>>,
{
    let is_unknown = |class| matches!(class, KmsErrorClass::NotFound | KmsErrorClass::AccessDenied);
    again_while(SETTLE_FOR, is_unknown, call).await
}
