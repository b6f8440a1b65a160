//! Registering a tenant (K1): a master key of its own in the KMS, its index root, its first branch key.
//!
//! The intent is written first and tags the key, so that after a crash at any point the next attempt finds the key it
//! made and goes on. Nothing of the tenant can be used before the one transaction at the end.
use std::time::Duration;

use tokio_postgres::Client;

use super::{Registry, RegistryError, Wrapping};
use crate::crypto::{BranchKey, IndexRoot, KeyId, random_bytes};
use crate::keys::context::{self, TAG_DATABASE, TAG_INTENT, TAG_TENANT};
use crate::keys::kms::{KeyArn, KeyState, Kms, KmsError, KmsErrorClass};
use crate::policy::GLOBAL_TENANT;

/// A fresh key may be unknown or denied for a while (FACTS: eventual consistency): how often to try.
const ATTEMPTS: u32 = 8;

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
    database: String,
    active: bool,
    wrapping: Wrapping,
}

/// All that the last transaction records.
struct NewKeys {
    arn: KeyArn,
    canary: bytes::Bytes,
    index_root: bytes::Bytes,
    branch: Option<bytes::Bytes>,
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
    client.execute(insert, &[&tenant, &wrapping.as_str()]).await?;
    let read = "SELECT t.intent::pg_catalog.text, i.id::pg_catalog.text, t.state = 'active', t.wrapping
                FROM rowseal.tenant t, rowseal.installation i WHERE t.name = $1";
    let row = client.query_one(read, &[&tenant]).await?;
    Ok(Intent { id: row.get(0), database: row.get(1), active: row.get(2), wrapping: Wrapping::parse(row.get(3))? })
}

/// The key that an earlier attempt made for this intent, or a new one.
async fn find_or_create(kms: &dyn Kms, tenant: &str, intent: &Intent) -> Result<KeyArn, RegistryError> {
    let mut found = kms.find_by_tag(TAG_INTENT, &intent.id).await?;
    found.sort();
    for arn in found {
        let key = kms.describe(&arn).await?;
        if key.state == KeyState::Enabled && key.tag(TAG_TENANT) == Some(tenant) {
            return Ok(arn);
        }
    }
    let tags = [(TAG_TENANT, tenant), (TAG_INTENT, &*intent.id), (TAG_DATABASE, &*intent.database)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(kms.create_key(&tags).await?)
}

async fn make_keys(kms: &dyn Kms, tenant: &str, wrapping: Wrapping, arn: KeyArn) -> Result<NewKeys, RegistryError> {
    round_trip(kms, tenant, &arn).await?;
    let (canary, _) = kms.encrypt(&arn, &random_bytes::<16>(), &context::canary(tenant)).await?;
    let (index_root, _) = kms.encrypt(&arn, IndexRoot::random().expose(), &context::index(tenant)).await?;
    let branch = match wrapping {
        Wrapping::Direct => None,
        Wrapping::Hierarchical => {
            Some(kms.encrypt(&arn, BranchKey::random().expose(), &context::branch(tenant)).await?.0)
        }
    };
    Ok(NewKeys { arn, canary, index_root, branch })
}

/// Wraps and unwraps once, waiting for a key that the whole service does not know yet.
async fn round_trip(kms: &dyn Kms, tenant: &str, arn: &KeyArn) -> Result<(), RegistryError> {
    let mut pause = Duration::from_millis(100);
    for _ in 1..ATTEMPTS {
        match try_round_trip(kms, tenant, arn).await {
            Err(RegistryError::Kms(error)) if may_pass(&error) => tokio::time::sleep(pause).await,
            outcome => return outcome,
        }
        pause *= 2;
    }
    try_round_trip(kms, tenant, arn).await
}

fn may_pass(error: &KmsError) -> bool {
    match error.class {
        KmsErrorClass::NotFound | KmsErrorClass::AccessDenied => true,
        KmsErrorClass::Throttled | KmsErrorClass::Transient => true,
        KmsErrorClass::Disabled | KmsErrorClass::PendingDeletion | KmsErrorClass::WrongContextOrBlob => false,
    }
}

async fn try_round_trip(kms: &dyn Kms, tenant: &str, arn: &KeyArn) -> Result<(), RegistryError> {
    let context = context::verify(tenant);
    let made = kms.generate_data_key(arn, &context).await?;
    let (opened, _) = kms.decrypt(arn, &made.blob, &context).await?;
    if opened.as_slice() == made.plaintext.as_slice() { Ok(()) } else { Err(RegistryError::RoundTrip) }
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
