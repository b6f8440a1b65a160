//! What there is to be said of databases, tenants, keys and proxies: asked by the command line and by the console alike.
use std::sync::Arc;

use tokio_postgres::Client;

use crate::keys::registry::{Snapshot, Wrapping};
use crate::policy::GLOBAL_TENANT;
use crate::setup;

/// Live proxies first; ages in whole seconds, by the server's clock.
const PROXIES: &str = "
    SELECT id::pg_catalog.text, epoch, extract(epoch FROM pg_catalog.now() - heartbeat)::pg_catalog.int8
    FROM rowseal.proxy ORDER BY heartbeat DESC";
const TENANTS: &str = "SELECT count(*) FROM rowseal.tenant WHERE state = 'active' AND name <> $1";

/// Why a database could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The version of schema rowseal cannot be read.
    #[error(transparent)]
    Setup(#[from] setup::SetupError),
    /// The server did not answer.
    #[error("schema rowseal cannot be read")]
    Server(#[from] tokio_postgres::Error),
}

/// One tenant.
pub struct TenantFacts {
    /// Its name.
    pub name: Arc<str>,
    /// How its new data keys are wrapped; `None` until it is registered to the end.
    pub wrapping: Option<Wrapping>,
    /// Whether it has an index root.
    pub searchable: bool,
    /// How many versions its master key has.
    pub master_keys: usize,
    /// `active`, `registering`, `revoked` or `shredded`.
    pub state: &'static str,
}

/// The tenants of a database by name, without the reserved one.
pub fn tenants(snapshot: &Snapshot) -> Vec<TenantFacts> {
    let is_own = |name: &Arc<str>| &**name != GLOBAL_TENANT;
    let active = snapshot.tenants.values().map(|tenant| TenantFacts {
        name: tenant.name.clone(),
        wrapping: Some(tenant.wrapping),
        searchable: tenant.index.is_some(),
        master_keys: keys(snapshot).filter(|key| key.tenant == tenant.name).count(),
        state: "active",
    });
    let barred = snapshot.barred.iter().map(|(name, standing)| TenantFacts {
        name: name.clone(),
        wrapping: None,
        searchable: false,
        master_keys: keys(snapshot).filter(|key| key.tenant == *name).count(),
        state: standing.as_str(),
    });
    let begun = snapshot.registering.iter().map(|name| TenantFacts {
        name: name.clone(),
        wrapping: None,
        searchable: false,
        master_keys: 0,
        state: "registering",
    });
    let mut tenants: Vec<_> = active.chain(barred).chain(begun).filter(|tenant| is_own(&tenant.name)).collect();
    tenants.sort_by(|a, b| (a.wrapping.is_none(), &a.name).cmp(&(b.wrapping.is_none(), &b.name)));
    tenants
}

/// One version of a master key.
pub struct KeyFacts {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Its name in the key service.
    pub arn: String,
    /// What it is used for: active, retiring, deactivated or purged.
    pub state: String,
}

/// The versions of all master keys, in no order.
pub fn keys(snapshot: &Snapshot) -> impl Iterator<Item = KeyFacts> {
    snapshot.masters.values().map(|master| KeyFacts {
        tenant: master.tenant.clone(),
        arn: master.arn.as_str().to_owned(),
        state: format!("{:?}", master.state).to_lowercase(),
    })
}

/// A proxy that serves a database.
pub struct ProxyFacts {
    /// Its id.
    pub id: String,
    /// What it has taken up of the registry's changes.
    pub epoch: i64,
    /// How long ago it was heard of.
    pub seen_seconds: i64,
}

/// How a database is.
pub struct Status {
    /// The version of schema rowseal; 0 when it is not installed.
    pub version: u32,
    /// How many tenants are active.
    pub tenants: i64,
    /// Those that serve it.
    pub proxies: Vec<ProxyFacts>,
}

/// Asks a database how it is.
///
/// # Errors
/// [`FactsError`] when it does not answer.
pub async fn status(client: &Client) -> Result<Status, FactsError> {
    let version = setup::version(client).await?;
    if version == 0 {
        return Ok(Status { version, tenants: 0, proxies: Vec::new() });
    }
    let tenants = client.query_one(TENANTS, &[&GLOBAL_TENANT]).await?.try_get(0)?;
    let mut proxies = Vec::new();
    for row in client.query(PROXIES, &[]).await? {
        proxies.push(ProxyFacts { id: row.try_get(0)?, epoch: row.try_get(1)?, seen_seconds: row.try_get(2)? });
    }
    Ok(Status { version, tenants, proxies })
}
