//! Ways to what the subcommands work on: the control connection, the registry, the key service.
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, NoTls};

use super::Failure;
use crate::config::{self, Provider, Settings, Wrapping};
use crate::keys::kms::aws::{AwsKms, AwsSettings};
use crate::keys::kms::local::LocalKms;
use crate::keys::kms::{Kms, Patient};
use crate::keys::registry::{self, Registry};
use crate::policy;

const TIMEOUT: Duration = Duration::from_secs(5);
const SOCKET_DIRECTORY: &str = "/var/run/postgresql";

/// Runs a subcommand that waits.
pub(super) fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work)
}

/// The policy's `control`; without a host it is the usual socket, without a password that of `PGPASSWORD`.
///
/// # Errors
/// When it is not a connection string.
pub(super) fn control_settings(database: &policy::Database) -> anyhow::Result<tokio_postgres::Config> {
    let mut config: tokio_postgres::Config =
        database.control.parse().with_context(|| format!("the control of database {:?}", database.name))?;
    if config.get_hosts().iter().all(|host| matches!(host, Host::Tcp(name) if name.is_empty())) {
        config.host_path(SOCKET_DIRECTORY);
    }
    if let (None, Ok(password)) = (config.get_password(), std::env::var("PGPASSWORD")) {
        config.password(password);
    }
    config.connect_timeout(TIMEOUT).application_name("rowseal");
    Ok(config)
}

/// Connects as the policy's `control` says.
pub(super) async fn control(database: &policy::Database) -> anyhow::Result<Client> {
    let name = &database.name;
    let (client, connection) = control_settings(database)?
        .connect(NoTls)
        .await
        .with_context(|| format!("database {name:?} cannot be reached"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// The registry of a database.
pub(super) async fn registry(database: &policy::Database) -> anyhow::Result<Registry> {
    let name = &database.name;
    let hint = || format!("the registry of database {name:?} (has `rowseal setup` run?)");
    Registry::connect(&database.control).await.with_context(hint)
}

/// The key service of the settings, asked again when it fails in passing; a keyring that does not exist yet is made.
pub(super) async fn kms(settings: &Settings) -> anyhow::Result<Arc<dyn Kms>> {
    let provider: Arc<dyn Kms> = match &settings.keys.provider {
        Provider::Local { keyring } => Arc::new(LocalKms::open_or_create(keyring)?),
        Provider::Aws { region, endpoint, profile } => {
            if endpoint.is_none() {
                check_usual_endpoints()?;
            }
            let settings = AwsSettings { region: region.clone(), endpoint: endpoint.clone(), profile: profile.clone() };
            Arc::new(AwsKms::connect(&settings).await)
        }
    };
    Ok(Arc::new(Patient::new(provider)))
}

/// The variables in which AWS's tools find another address, held to the same rule as the policy's.
fn check_usual_endpoints() -> anyhow::Result<()> {
    for name in ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"] {
        if let Ok(address) = std::env::var(name) {
            anyhow::ensure!(config::is_safe_endpoint(&address), "{name}: {address:?} {}", config::UNSAFE_ENDPOINT);
        }
    }
    Ok(())
}

/// The registry's word for a mode.
pub(super) fn wrapping(wrapping: Wrapping) -> registry::Wrapping {
    match wrapping {
        Wrapping::Direct => registry::Wrapping::Direct,
        Wrapping::Hierarchical => registry::Wrapping::Hierarchical,
    }
}
