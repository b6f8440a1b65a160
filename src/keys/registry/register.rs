//! Registering a tenant (K1): a master key of its own in the KMS, its index root, its first branch key.
//!
//! The intent is written first and tags the key, so that after a crash at any point the next attempt finds the key it
//! made and goes on. Nothing of the tenant can be used before the one transaction at the end.
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::{Registry, RegistryError, Wrapping};
use crate::crypto::{BranchKey, IndexRoot, KeyId, random_bytes};
use crate::keys::context::{self, TAG_DATABASE, TAG_INTENT, TAG_TENANT};
use crate::keys::kms::patient::again_while;
use crate::keys::kms::{EncryptionContext, KeyArn, KeyState, Kms, KmsError, KmsErrorClass};
use crate::policy::GLOBAL_TENANT;

/// A service of many machines may not know a fresh key everywhere at once: how long that is waited for.
const SETTLE_FOR: Duration = Duration::from_secs(15);

/// Between two looks for a key that may have been made a moment ago.
const SEARCH_PAUSE: Duration = Duration::from_millis(500);

/// What a registration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The tenant is new, or its registration was completed.
    Now,
    /// It was registered before.
    Already,
}

/// What the intent says.
struct Intent {
    id: String,
    /// Written just now, so that no key can have been made for it.
    is_new: bool,
    /// A key for it may have been made so lately that a search does not find it at once.
    is_young: bool,
    database: String,
    active: bool,
    wrapping: Wrapping,
}

/// All that the last transaction records.
struct NewKeys {
    arn: KeyArn,
    canary: Bytes,
    index_root: Bytes,
    branch: Option<Bytes>,
}

impl Registry {
    /// Registers a tenant and loads the records again. Safe to repeat, also after a crash half-way.
    ///
    /// # Errors
    /// A name that cannot be, a tenant registered in the other mode, a KMS or server that fails. After an error the
    /// same call goes on where this one stopped.
    ///
    /// # Cancel safety
    /// As after a crash: call again.
    pub async fn register(&self, tenant: &str, wrapping: Wrapping, kms: &dyn Kms) -> Result<Registered, RegistryError> {
        check_name(tenant)?;
        self.register_checked(tenant, wrapping, kms).await
    }

    /// Registers the reserved tenant whose index root serves `equality = "global"`.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub async fn register_reserved(&self, kms: &dyn Kms) -> Result<Registered, RegistryError> {
        self.register_checked(GLOBAL_TENANT, Wrapping::Direct, kms).await
    }

    async fn register_checked(
        &self,
        tenant: &str,
        wrapping: Wrapping,
        kms: &dyn Kms,
    ) -> Result<Registered, RegistryError> {
        let mut client = self.dedicated().await?;
        // Released with the connection: one registration of a tenant at a time, over all proxies.
        let lock = "SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('rowseal tenant ' || $1, 0))";
        client.execute(lock, &[&tenant]).await?;
        let intent = write_intent(&client, tenant, wrapping).await?;
        if intent.wrapping != wrapping {
            return Err(RegistryError::OtherWrapping(intent.wrapping));
        }
        let registered = if intent.active {
            Registered::Already
        } else {
            let arn = find_or_create(kms, tenant, &intent).await?;
            let keys = make_keys(kms, tenant, wrapping, arn).await?;
            record(&mut client, tenant, &intent, &keys).await?;
            Registered::Now
        };
        self.refresh().await?;
        Ok(registered)
    }
}

/// The characters that a tag may have at AWS, so that a tenant can move between providers.
fn check_name(tenant: &str) -> Result<(), RegistryError> {
    if tenant.starts_with(GLOBAL_TENANT) {
        return Err(RegistryError::Reserved);
    }
    let fits = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
    let length = tenant.chars().count();
    if (1..=256).contains(&length) && tenant.chars().all(fits) { Ok(()) } else { Err(RegistryError::Name) }
}

async fn write_intent(client: &Client, tenant: &str, wrapping: Wrapping) -> Result<Intent, RegistryError> {
    let insert = "INSERT INTO rowseal.tenant (name, wrapping) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    let is_new = client.execute(insert, &[&tenant, &wrapping.as_str()]).await? == 1;
    let read = "SELECT t.intent::pg_catalog.text, i.id::pg_catalog.text, t.state = 'active', t.wrapping,
                t.created_at > pg_catalog.now() - '1 minute'::pg_catalog.interval
                FROM rowseal.tenant t, rowseal.installation i WHERE t.name = $1";
    let row = client.query_one(read, &[&tenant]).await?;
    let wrapping = Wrapping::parse(row.get(3))?;
    let (active, is_young) = (row.get(2), row.get(4));
    Ok(Intent { id: row.get(0), is_new, is_young, database: row.get(1), active, wrapping })
}

/// The key that an earlier attempt made for this intent, or a new one. A search asks for the tags of every key of the
/// account, so none is made for an intent that is new.
async fn find_or_create(kms: &dyn Kms, tenant: &str, intent: &Intent) -> Result<KeyArn, RegistryError> {
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
    intent: &Intent,
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

async fn find(kms: &dyn Kms, tenant: &str, intent: &Intent) -> Result<Option<KeyArn>, RegistryError> {
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

async fn make_keys(kms: &dyn Kms, tenant: &str, wrapping: Wrapping, arn: KeyArn) -> Result<NewKeys, RegistryError> {
    check_key(kms, tenant, &arn).await?;
    let canary = wrap(kms, &arn, &random_bytes::<16>(), &context::canary(tenant)).await?;
    let index_root = wrap(kms, &arn, IndexRoot::random().expose(), &context::index(tenant)).await?;
    let branch = match wrapping {
        Wrapping::Direct => None,
        Wrapping::Hierarchical => Some(wrap(kms, &arn, BranchKey::random().expose(), &context::branch(tenant)).await?),
    };
    Ok(NewKeys { arn, canary, index_root, branch })
}

async fn wrap(kms: &dyn Kms, arn: &KeyArn, key: &[u8], context: &EncryptionContext) -> Result<Bytes, RegistryError> {
    Ok(settled(|| kms.encrypt(arn, key, context)).await?.0)
}

/// What every use of the key will ask of it: that its tags name the tenant, and that it gives back what it wrapped.
async fn check_key(kms: &dyn Kms, tenant: &str, arn: &KeyArn) -> Result<(), RegistryError> {
    let context = context::verify(tenant);
    let described = settled(|| kms.describe(arn)).await?;
    let made = settled(|| kms.generate_data_key(arn, &context)).await?;
    let (opened, _) = settled(|| kms.decrypt(arn, &made.blob, &context)).await?;
    let is_right = described.tag(TAG_TENANT) == Some(tenant) && opened.as_slice() == made.plaintext.as_slice();
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

/// The one step that makes the tenant usable.
async fn record(client: &mut Client, tenant: &str, intent: &Intent, keys: &NewKeys) -> Result<(), RegistryError> {
    let master = KeyId::random();
    let transaction = client.transaction().await?;
    let insert = "INSERT INTO rowseal.master_key (key_id, tenant, version, provider, arn, state, intent, canary)
                  VALUES ($1, $2, 1, $3, $4, 'active', $5::pg_catalog.text::pg_catalog.uuid, $6)";
    let (arn, canary) = (keys.arn.as_str(), keys.canary.as_ref());
    transaction.execute(insert, &[&&master.0[..], &tenant, &provider(arn), &arn, &intent.id, &canary]).await?;
    let wrapped = [Some(("index", &keys.index_root)), keys.branch.as_ref().map(|branch| ("wrap", branch))];
    for (purpose, blob) in wrapped.into_iter().flatten() {
        let insert = "INSERT INTO rowseal.branch_key (key_id, tenant, purpose, master_key, wrapped)
                      VALUES ($1, $2, $3, $4, $5)";
        let id = KeyId::random();
        transaction.execute(insert, &[&&id.0[..], &tenant, &purpose, &&master.0[..], &blob.as_ref()]).await?;
    }
    transaction.execute("UPDATE rowseal.tenant SET state = 'active' WHERE name = $1", &[&tenant]).await?;
    transaction.commit().await?;
    Ok(())
}

/// `aws` of `arn:aws:kms:...`, `local` of `local:key/...`.
fn provider(arn: &str) -> &str {
    arn.trim_start_matches("arn:").split([':', '-']).next().unwrap_or_default()
}
