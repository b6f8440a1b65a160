//! Registering a tenant (K1): a master key of its own in the KMS, its index root, its first branch key.
//!
//! The intent is written first and tags the key, so that after a crash at any point the next attempt finds the key it
//! made and goes on. Nothing of the tenant can be used before the one transaction at the end.
use std::collections::HashMap;

use bytes::Bytes;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::fresh::{FreshMaster, KeyIntent, fresh_master, provider, wrap_under};
use super::{Registry, RegistryError, Standing, Wrapping};
use crate::crypto::{BranchKey, IndexRoot, KeyId};
use crate::keys::context;
use crate::keys::kms::Kms;
use crate::policy::GLOBAL_TENANT;

type Parameter<'a> = &'a (dyn ToSql + Sync);

/// What a registration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The tenant is new, or its registration was completed.
    Now,
    /// It was registered before.
    Already,
}

/// What the registry has of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// `None`: its registration was begun and has not been completed.
    pub standing: Option<Standing>,
    /// How its data keys are wrapped.
    pub wrapping: Wrapping,
}

/// What the intent says.
struct Intent {
    key: KeyIntent,
    active: bool,
    wrapping: Wrapping,
}

/// All that the last transaction records.
struct NewKeys {
    master: FreshMaster,
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

    /// The same without loading the records again: for one of many, of which nobody here uses the keys.
    ///
    /// # Errors
    /// As [`Registry::register`].
    ///
    /// # Cancel safety
    /// As [`Registry::register`].
    pub async fn register_only(
        &self,
        tenant: &str,
        wrapping: Wrapping,
        kms: &dyn Kms,
    ) -> Result<Registered, RegistryError> {
        check_name(tenant)?;
        self.record_tenant(tenant, wrapping, kms).await
    }

    /// All tenants as they are recorded now, also those that cannot be used.
    ///
    /// # Errors
    /// The server did not answer, or a record that this release does not understand.
    pub async fn entries(&self) -> Result<HashMap<String, Entry>, RegistryError> {
        let read = "SELECT name, state, wrapping FROM rowseal.tenant";
        let rows = self.dedicated().await?.query(read, &[]).await?;
        let entry = |row: &tokio_postgres::Row| {
            let entry = Entry { standing: Standing::parse(row.get(1))?, wrapping: Wrapping::parse(row.get(2))? };
            Ok((row.get(0), entry))
        };
        rows.iter().map(entry).collect()
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
        let registered = self.record_tenant(tenant, wrapping, kms).await?;
        self.refresh().await?;
        Ok(registered)
    }

    async fn record_tenant(
        &self,
        tenant: &str,
        wrapping: Wrapping,
        kms: &dyn Kms,
    ) -> Result<Registered, RegistryError> {
        let mut client = self.dedicated().await?;
        // A server that crashes must not forget the intent of a key that has been made.
        client.batch_execute("SET synchronous_commit = on").await?;
        // Released with the connection: one registration of a tenant at a time, over all proxies.
        let lock = "SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('rowseal tenant ' || $1, 0))";
        client.execute(lock, &[&tenant]).await?;
        let intent = write_intent(&client, tenant, wrapping).await?;
        if intent.wrapping != wrapping {
            return Err(RegistryError::OtherWrapping(intent.wrapping));
        }
        if intent.active {
            return Ok(Registered::Already);
        }
        let master = fresh_master(kms, tenant, &intent.key).await?;
        let keys = make_keys(kms, tenant, wrapping, master).await?;
        record(&mut client, tenant, &intent, &keys).await?;
        Ok(Registered::Now)
    }
}

/// Whether a tenant can have this name: the characters that a tag may have at AWS, so that it can move between providers.
///
/// # Errors
/// [`RegistryError::Name`] and [`RegistryError::Reserved`].
pub fn check_name(tenant: &str) -> Result<(), RegistryError> {
    if tenant.starts_with(GLOBAL_TENANT) {
        return Err(RegistryError::Reserved);
    }
    let fits = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
    let length = tenant.chars().count();
    // Of a varchar the server cuts blanks at the end: the stored row would be of another tenant than its cells.
    let has_ends = tenant.trim() == tenant;
    if has_ends && (1..=256).contains(&length) && tenant.chars().all(fits) { Ok(()) } else { Err(RegistryError::Name) }
}

async fn write_intent(client: &Client, tenant: &str, wrapping: Wrapping) -> Result<Intent, RegistryError> {
    let insert = "INSERT INTO rowseal.tenant (name, wrapping) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    let is_new = client.execute(insert, &[&tenant, &wrapping.as_str()]).await? == 1;
    let read = "SELECT t.intent::pg_catalog.text, i.id::pg_catalog.text, t.state, t.wrapping,
                coalesce(t.changed_at, t.created_at) > pg_catalog.now() - '1 minute'::pg_catalog.interval
                FROM rowseal.tenant t, rowseal.installation i WHERE t.name = $1";
    let row = client.query_one(read, &[&tenant]).await?;
    if !is_new {
        // This attempt may make a key, too, which the next one may have to wait for.
        let again = "UPDATE rowseal.tenant SET changed_at = pg_catalog.now() WHERE name = $1 AND state = 'registering'";
        client.execute(again, &[&tenant]).await?;
    }
    let wrapping = Wrapping::parse(row.get(3))?;
    let key = KeyIntent { id: row.get(0), database: row.get(1), is_new, is_young: row.get(4) };
    match Standing::parse(row.get(2))? {
        Some(standing @ (Standing::Revoked | Standing::Shredded)) => Err(RegistryError::Barred(standing)),
        standing => Ok(Intent { key, active: standing.is_some(), wrapping }),
    }
}

async fn make_keys(
    kms: &dyn Kms,
    tenant: &str,
    wrapping: Wrapping,
    master: FreshMaster,
) -> Result<NewKeys, RegistryError> {
    let root = IndexRoot::random();
    let (index_root, _) = wrap_under(kms, &master.arn, root.expose(), &context::index(tenant)).await?;
    let branch = match wrapping {
        Wrapping::Direct => None,
        Wrapping::Hierarchical => {
            Some(wrap_under(kms, &master.arn, BranchKey::random().expose(), &context::branch(tenant)).await?.0)
        }
    };
    Ok(NewKeys { master, index_root, branch })
}

/// The one step that makes the tenant usable.
async fn record(client: &mut Client, tenant: &str, intent: &Intent, keys: &NewKeys) -> Result<(), RegistryError> {
    let master = KeyId::random();
    let transaction = client.transaction().await?;
    let insert = "INSERT INTO rowseal.master_key (key_id, tenant, version, provider, arn, state, intent, canary)
                  VALUES ($1, $2, 1, $3, $4, 'active', $5::pg_catalog.text::pg_catalog.uuid, $6)";
    let (arn, canary) = (&keys.master.arn, keys.master.canary.as_ref());
    let parameters = [&&master.0[..] as Parameter<'_>, &tenant, &provider(arn), &arn.as_str(), &intent.key.id, &canary];
    transaction.execute(insert, &parameters).await?;
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
