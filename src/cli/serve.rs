//! `rowseal serve`: runs the proxy.
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Settings};
use crate::keys::KeysSettings;
use crate::server::{ListenAddress, ListenTls, ServerSettings, Upstream, UpstreamAddress, UpstreamTls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the proxy until it is told to stop.
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
