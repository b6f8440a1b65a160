//! Ways to what the subcommands work on: the control connection, the registry, the key service.
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio_postgres::Client;

use super::Failure;
use crate::audit::{self, Audit, Durability};
use crate::config::{self, Provider, Settings, Wrapping};
use crate::keys::kms::aws::{AwsKms, AwsSettings};
use crate::keys::kms::local::LocalKms;
use crate::keys::kms::{Kms, LogPlace, Patient, Recorded, Recorder};
use crate::keys::registry::{self, Registry};
use crate::policy;
use crate::server::control::is_local;
use crate::server::tls::TlsError;
use crate::server::{ControlTls, UpstreamTls};

/// Where below the audit directory the log of subcommands is.
pub(super) const OPERATOR_DIRECTORY: &str = "operator";

/// The log of `column`.
const COLUMN_DIRECTORY: &str = "column";

/// Runs a subcommand that waits.
pub(super) fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work)
}

/// How the proxy reaches the registry of one database, TLS included.
#[derive(Clone)]
pub(super) struct Control {
    name: Arc<str>,
    config: tokio_postgres::Config,
    tls: ControlTls,
}

impl Control {
    /// As the policy's `control` says, and where it says nothing of TLS, `[upstream]`. Reads root certificates.
    ///
    /// # Errors
    /// When it is not a connection string, or there are no roots to check against.
    pub(super) fn of(settings: &Settings, database: &policy::Database) -> anyhow::Result<Control> {
        let name = database.name.clone();
        let context = || format!("the control of database {name:?}");
        let control = settings.control(database).with_context(context)?;
        let config = registry::settings(&control.text).with_context(context)?;
        let tls = if is_local(&config) { Ok(UpstreamTls::Disable) } else { control_tls(&control) };
        Ok(Control { tls: ControlTls(tls.with_context(context)?), config, name })
    }

    /// The role that connects, as far as it is known beforehand.
    pub(super) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// One connection, which needs no registry to be there.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        let opened = registry::open(&self.tls, &self.config).await;
        opened.with_context(|| format!("database {:?} cannot be reached", self.name))
    }

    /// The registry. It connects again in the same way.
    pub(super) async fn registry(&self) -> anyhow::Result<Registry> {
        let registry = Registry::connect_by(self.config.clone(), Box::new(self.tls.clone())).await;
        registry.with_context(|| format!("the registry of database {:?} (has `rowseal setup` run?)", self.name))
    }
}

fn control_tls(control: &config::Control) -> Result<UpstreamTls, TlsError> {
    match (control.tls, &control.root_certificate) {
        (config::UpstreamTls::Require, Some(roots)) => UpstreamTls::verify_chain(roots),
        (mode, roots) => upstream_tls(mode, roots.as_deref()),
    }
}

/// The mode of the settings, prepared.
///
/// # Errors
/// When there are no roots to check against.
pub(super) fn upstream_tls(mode: config::UpstreamTls, roots: Option<&Path>) -> Result<UpstreamTls, TlsError> {
    match mode {
        config::UpstreamTls::Disable => Ok(UpstreamTls::Disable),
        config::UpstreamTls::Prefer => UpstreamTls::prefer(),
        config::UpstreamTls::Require => UpstreamTls::require(),
        config::UpstreamTls::VerifyFull => UpstreamTls::verify_full(roots),
    }
}

/// The log in which subcommands record their own uses of keys, below that of the proxy, which may have its own open.
pub(super) fn operator_log(settings: &Settings) -> LogPlace {
    let config::Audit { directory, durability, key } = settings.audit.clone();
    LogPlace { directory: directory.join(OPERATOR_DIRECTORY), durability, key }
}

/// Leaves the last checkpoint of that log in a registry. To be called when the key service is dropped: that closes the log.
pub(super) async fn keep_operator_checkpoint(settings: &Settings, registry: &Registry) {
    let directory = operator_log(settings).directory;
    let Ok((published, verifier)) = audit::published(&directory) else { return };
    let goes_through = |note: &str| audit::goes_through(&directory, &verifier, note);
    match registry.keep_checkpoint(&published, &verifier, goes_through).await {
        Ok(true) => {}
        Ok(false) => tracing::error!("the log of subcommands does not go through the checkpoint in the registry"),
        Err(error) => tracing::warn!(%error, "the audit checkpoint of this command was not kept in the registry"),
    }
}

/// As [`kms_recorded`], for a subcommand.
pub(super) async fn kms(settings: &Settings) -> anyhow::Result<Arc<dyn Kms>> {
    kms_recorded(settings, Recorder::at(operator_log(settings))).await
}

/// As [`kms`], for a command that may work for hours, whose journal has each ReEncrypt: it keeps no log open.
pub(super) async fn kms_of_jobs(settings: &Settings) -> anyhow::Result<Arc<dyn Kms>> {
    let recorded = Recorded::new(provider(settings).await?, Recorder::Briefly(operator_log(settings)));
    Ok(Arc::new(Patient::new(Arc::new(recorded.without_rewraps()))))
}

/// The key service of a proxy, all in its own log: as its statements use it, and as the jobs do that it does in the background,
/// whose journal has each ReEncrypt.
pub(super) async fn kms_of_proxy(
    settings: &Settings,
    audit: &Arc<Audit>,
) -> anyhow::Result<(Arc<dyn Kms>, Arc<dyn Kms>)> {
    let provider = provider(settings).await?;
    let recorded = || Recorded::new(provider.clone(), Recorder::Log(audit.clone()));
    let (statements, jobs) = (recorded(), recorded().without_rewraps());
    Ok((Arc::new(Patient::new(Arc::new(statements))), Arc::new(Patient::new(Arc::new(jobs)))))
}

/// The log of `column`, which uses keys for each row: a log of its own, which stays open once it is needed.
pub(super) fn column_log(settings: &Settings) -> Recorder {
    let directory = settings.audit.directory.join(COLUMN_DIRECTORY);
    Recorder::at(LogPlace { directory, durability: Durability::Strict, ..operator_log(settings) })
}

/// The key service of the settings, each call recorded, and asked again when it fails in passing; a keyring that does not
/// exist yet is made.
pub(super) async fn kms_recorded(settings: &Settings, recorder: Recorder) -> anyhow::Result<Arc<dyn Kms>> {
    Ok(Arc::new(Patient::new(Arc::new(Recorded::new(provider(settings).await?, recorder)))))
}

async fn provider(settings: &Settings) -> anyhow::Result<Arc<dyn Kms>> {
    Ok(match &settings.keys.provider {
        Provider::Local { keyring } => Arc::new(LocalKms::open_or_create(keyring)?),
        Provider::Aws { region, endpoint, profile } => {
            if endpoint.is_none() {
                check_usual_endpoints()?;
            }
            let settings = AwsSettings { region: region.clone(), endpoint: endpoint.clone(), profile: profile.clone() };
            Arc::new(AwsKms::connect(&settings).await)
        }
    })
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
