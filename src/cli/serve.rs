//! `rowseal serve`: runs the proxy.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::{check, connect};
use crate::audit::Audit;
use crate::config::{self, Settings};
use crate::keys::kms::Kms;
use crate::keys::{Keys, KeysSettings};
use crate::policy;
use crate::server::database::{Bounds, Database};
use crate::server::runner::Sessions;
use crate::server::{ListenAddress, ListenTls, ServerSettings, Upstream, UpstreamAddress, UpstreamTls, serve};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the proxy until it is told to stop. Sessions run on worker threads of their own; registries, keys and signals
/// live on the runtime made here.
///
/// # Errors
/// What keeps it from starting.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    crate::server::listener::forbid_core_dumps();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(start(settings))
}

async fn start(settings: Settings) -> anyhow::Result<()> {
    let (server, sessions) = prepare(&settings).await?;
    tracing::info!(address = %settings.listen.address, "listening");
    serve(server, sessions).await?;
    Ok(())
}

/// Everything a proxy needs before its port opens. Registries and keys live on the runtime this is called in.
///
/// # Errors
/// What keeps it from starting.
pub(super) async fn prepare(settings: &Settings) -> anyhow::Result<(ServerSettings, Arc<Sessions>)> {
    let server = server_settings(settings)?;
    let kms = connect::kms(settings).await?;
    let audit = Arc::new(Audit::open(&settings.audit.directory, settings.audit.durability)?);
    let mut databases = HashMap::new();
    for policy in &settings.databases {
        databases.insert(policy.name.clone(), database(policy, settings, kms.clone(), audit.clone()).await?);
    }
    let sessions = Sessions::new(databases, tokio::runtime::Handle::current());
    Ok((server, Arc::new(sessions)))
}

async fn database(
    policy: &policy::Database,
    settings: &Settings,
    kms: Arc<dyn Kms>,
    audit: Arc<Audit>,
) -> anyhow::Result<Arc<Database>> {
    warn_of_findings(policy).await.with_context(|| format!("database {:?}", policy.name))?;
    let registry = Arc::new(connect::registry(policy).await?);
    let keys = Arc::new(Keys::new(registry.clone(), kms, keys_settings(settings)));
    let wrapping = connect::wrapping(settings.keys.wrapping);
    let bounds = Bounds {
        auto_register: settings.keys.auto_register.then_some(wrapping),
        message_bytes_max: settings.limits.message_bytes_max,
        plan_bytes_max: settings.limits.plan_bytes_max,
    };
    let database = Database::open(policy.clone(), registry, keys, audit, bounds).await;
    database.with_context(|| format!("database {:?} cannot be served", policy.name))
}

/// Holds the policy against the live database and logs what does not fit.
async fn warn_of_findings(policy: &policy::Database) -> anyhow::Result<()> {
    let client = connect::control(policy).await?;
    for finding in check::check(&client, policy).await? {
        tracing::warn!(database = %policy.name, finding = %finding.message, "the policy does not fit");
    }
    Ok(())
}

/// What the outside of the proxy needs to know; reads the certificates.
///
/// # Errors
/// A certificate or key that cannot be used.
pub fn server_settings(settings: &Settings) -> anyhow::Result<ServerSettings> {
    let upstream = Upstream {
        address: upstream_address(&settings.upstream.address),
        tls: upstream_tls(&settings.upstream)?,
        connect_timeout: CONNECT_TIMEOUT,
    };
    let mut outside = ServerSettings::new(ListenAddress::Tcp(settings.listen.address), upstream);
    if let Some(tls) = &settings.listen.tls {
        outside.tls = Some(Arc::new(ListenTls::from_files(&tls.certificate, &tls.key)?));
    }
    outside.sessions_max = settings.limits.connections_max;
    outside.login_timeout = settings.limits.login_timeout;
    outside.drain_timeout = settings.limits.drain_timeout;
    Ok(outside)
}

/// What the keys need to know; the bounds that the file does not name keep their defaults.
pub fn keys_settings(settings: &Settings) -> KeysSettings {
    let keys = &settings.keys;
    let mut bounds = KeysSettings {
        confirm_interval: keys.confirm_interval,
        pool_target: keys.pool_size,
        unwraps_max: keys.kms_concurrency,
        generates_max: keys.kms_concurrency,
        cache_bytes_max: usize::try_from(keys.cache_bytes_max).unwrap_or(usize::MAX),
        ..KeysSettings::default()
    };
    bounds.pool_target_max = bounds.pool_target_max.max(keys.pool_size);
    bounds
}

fn upstream_address(address: &config::UpstreamAddress) -> UpstreamAddress {
    match address {
        config::UpstreamAddress::Tcp { host, port } => UpstreamAddress::Tcp { host: host.clone(), port: *port },
        config::UpstreamAddress::Unix { directory, port } => {
            UpstreamAddress::Unix { directory: directory.clone(), port: *port }
        }
    }
}

fn upstream_tls(upstream: &config::Upstream) -> anyhow::Result<UpstreamTls> {
    Ok(match upstream.tls {
        config::UpstreamTls::Disable => UpstreamTls::Disable,
        config::UpstreamTls::Prefer => UpstreamTls::prefer()?,
        config::UpstreamTls::Require => UpstreamTls::require()?,
        config::UpstreamTls::VerifyFull => UpstreamTls::verify_full(upstream.root_certificate.as_deref())?,
    })
}
