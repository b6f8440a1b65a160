//! `rowseal serve`: runs the proxy.
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Settings};
use crate::server::{ListenAddress, ListenTls, ServerSettings, Upstream, UpstreamAddress, UpstreamTls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

use anyhow::Context as _;

use super::connect;
use crate::audit::Audit;
use crate::config::{self, Settings};
use crate::keys::kms::Kms;
use crate::keys::{Keys, KeysSettings};
use crate::policy;
use crate::server::database::Database;
use crate::server::runner::Sessions;
use crate::server::{ListenAddress, ListenTls, ServerSettings, Upstream, UpstreamAddress, UpstreamTls, serve};

/// Runs the proxy until it is told to stop. Sessions run on worker threads of their own; registries, keys and signals
/// live on the runtime made here.
///
/// # Errors
/// What keeps it from starting.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    let outside = server_settings(&settings)?;
    anyhow::bail!("this build cannot serve {} yet", outside.upstream.address)
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
