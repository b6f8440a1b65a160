//! `rowseal serve`: runs the proxy.
//!
//! Only what is wrong with the configuration keeps it from starting. A database or registry that cannot be reached is
//! tried again until it is there, its connections being refused meanwhile; a key service that cannot be reached shows
//! in the statements that need keys.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connect;
use super::connect::Control;
use crate::admin::check::check;
use crate::admin::console::Desk;
use crate::admin::running::{Running, reload_on_hangup};
use crate::audit::Audit;
use crate::config::Settings;
use crate::keys::kms::Kms;
use crate::keys::{Keys, KeysSettings};
use crate::policy;
use crate::server::database::{Bounds, Database, Served};
use crate::server::live::Live;
use crate::server::runner::Sessions;
use crate::server::{ListenAddress, ListenTls, ServerSettings, Upstream, serve};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the port stays closed for databases that do not answer.
const FIRST_ATTEMPT_MAX: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long the end is held up by registries that do not answer.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// Runs the proxy until it is told to stop. Sessions run on worker threads of their own; registries, keys and signals
/// live on the runtime made here.
///
/// # Errors
/// What keeps it from starting.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(start(settings))
}

async fn start(settings: Settings) -> anyhow::Result<()> {
    let Prepared { server, sessions, running, audit } = prepare(&settings).await?;
    reload_on_hangup(running.clone(), audit)?;
    serve(server, sessions.clone(), |handle| running.started(handle)).await?;
    if timeout(FAREWELL_MAX, sessions.farewell()).await.is_err() {
        tracing::warn!("the registries do not answer: they will notice the silence of this proxy");
    }
    Ok(())
}

/// A proxy before its port opens.
pub(super) struct Prepared {
    pub(super) server: ServerSettings,
    pub(super) sessions: Arc<Sessions>,
    pub(super) running: Arc<Running>,
    pub(super) audit: Arc<Audit>,
}

/// Everything a proxy needs before its port opens. Registries and keys live on the runtime this is called in. Databases
/// that can be reached are open when it returns.
///
/// # Errors
/// What is wrong with the configuration.
pub(super) async fn prepare(settings: &Settings) -> anyhow::Result<Prepared> {
    let server = server_settings(settings)?;
    let directory = &settings.audit.directory;
    let audit = Audit::open_with_key(directory, settings.audit.durability, settings.audit.key.as_deref());
    let audit = Arc::new(audit.with_context(|| format!("the audit directory {}", directory.display()))?);
    let (kms, kms_of_jobs) = connect::kms_of_proxy(settings, &audit).await?;
    let (mut databases, mut order, mut tried) = (HashMap::new(), Vec::new(), JoinSet::new());
    for policy in &settings.databases {
        let control = Control::of(settings, policy)?;
        let served = Arc::new(Served::default());
        databases.insert(policy.name.clone(), served.clone());
        order.push(served.clone());
        let opening = Opening {
            policy: policy.clone(),
            control,
            kms: kms.clone(),
            keys: keys_settings(settings),
            audit: audit.clone(),
            bounds: bounds(settings),
        };
        let (first, attempt) = oneshot::channel();
        tokio::spawn(opening.until_open(served, first));
        tried.spawn(attempt);
    }
    // One that does not even refuse does not keep the others waiting.
    let _ = timeout(FIRST_ATTEMPT_MAX, tried.join_all()).await;
    let (running, live) = (Arc::new(Running::new(settings.clone(), order)), Arc::new(Live::default()));
    let control = tokio::runtime::Handle::current();
    let desk = Desk::new(running.clone(), audit.clone(), live.clone(), (control.clone(), kms_of_jobs));
    let sessions = Arc::new(Sessions::new(databases, control).with_console(Arc::new(desk), live));
    Ok(Prepared { server, sessions, running, audit })
}

/// What it takes to open a database.
struct Opening {
    policy: policy::Database,
    control: Control,
    kms: Arc<dyn Kms>,
    keys: KeysSettings,
    audit: Arc<Audit>,
    bounds: Bounds,
}

impl Opening {
    /// Tries until it succeeds, with growing pauses; says when it has tried once.
    async fn until_open(self, served: Arc<Served>, first: oneshot::Sender<()>) {
        let (name, mut first, mut pause) = (&self.policy.name, Some(first), FIRST_PAUSE);
        loop {
            match self.open().await {
                Ok(database) => {
                    served.open(database);
                    return tracing::info!(database = %name, "open");
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(database = %name, error, again_after = ?pause, "the database cannot be served yet");
                }
            }
            // Nobody waits for a first attempt that took long.
            let _ = first.take().map(|first| first.send(()));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn open(&self) -> anyhow::Result<Arc<Database>> {
        warn_of_findings(&self.policy, &self.control).await?;
        let registry = Arc::new(self.control.registry().await?);
        let keys = Arc::new(Keys::new(registry.clone(), self.kms.clone(), self.keys.clone()));
        let database =
            Database::open(self.policy.clone(), registry.clone(), keys, self.audit.clone(), self.bounds).await;
        if database.is_err() {
            // The next attempt is another proxy to the registry.
            let _ = registry.farewell().await;
        }
        Ok(database?)
    }
}

fn bounds(settings: &Settings) -> Bounds {
    let wrapping = connect::wrapping(settings.keys.wrapping);
    Bounds {
        auto_register: settings.keys.auto_register.then_some(wrapping),
        message_bytes_max: settings.limits.message_bytes_max,
        plan_bytes_max: settings.limits.plan_bytes_max,
    }
}

/// Holds the policy against the live database and logs what does not fit.
async fn warn_of_findings(policy: &policy::Database, control: &Control) -> anyhow::Result<()> {
    let client = control.client().await?;
    for finding in check(&client, policy).await? {
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
        address: settings.upstream.address.clone(),
        tls: connect::upstream_tls(settings.upstream.tls, settings.upstream.root_certificate.as_deref())?,
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
        registry_stale: keys.lease,
        pool_target: keys.pool_size,
        unwraps_max: keys.kms_concurrency,
        generates_max: keys.kms_concurrency,
        cache_bytes_max: usize::try_from(keys.cache_bytes_max).unwrap_or(usize::MAX),
        ..KeysSettings::default()
    };
    bounds.pool_target_max = bounds.pool_target_max.max(keys.pool_size);
    bounds
}
