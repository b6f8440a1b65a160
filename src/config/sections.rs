//! Checks everything but the databases.
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::error::{ConfigError, Source};
use super::raw::{self, At};
use super::{
    Audit, Keys, Limits, Listen, Provider, Settings, Tls, Upstream, UpstreamAddress, UpstreamTls, Wrapping, database,
};
use crate::audit::Durability;

const POSTGRES_PORT: u16 = 5432;
const CACHE_BYTES_DEFAULT: u64 = 64 << 20;
const LEASE_SECONDS_MAX: u64 = 15;
const MESSAGE_BYTES_DEFAULT: u64 = 64 << 20;
const PLAN_BYTES_DEFAULT: u64 = 32 << 20;

/// Checks the whole file.
pub(super) fn settings(raw: raw::File, source: &Source<'_>) -> Result<Settings, ConfigError> {
    let upstream = upstream(raw.upstream, source)?;
    let databases = database::databases(raw.databases, &upstream, source)?;
    let admin = raw.admin.unwrap_or_default();
    Ok(Settings {
        file: source.path().to_owned(),
        listen: listen(raw.listen, source)?,
        upstream,
        admin: admin.address.map(|at| socket_address(&at, source)).transpose()?,
        console: admin.console.map_or(Ok(Vec::new()), |at| console(at, source))?,
        keys: keys(raw.keys, source)?,
        audit: audit(raw.audit, source),
        limits: limits(&raw.limits, source)?,
        databases,
    })
}

fn listen(raw: raw::Listen, source: &Source<'_>) -> Result<Listen, ConfigError> {
    let address = match &raw.address {
        Some(at) => socket_address(at, source)?,
        None => SocketAddr::from(([127, 0, 0, 1], 6432)),
    };
    let tls = raw
        .tls
        .map(|tls| Tls { certificate: source.relative(&tls.certificate.value), key: source.relative(&tls.key.value) });
    Ok(Listen { address, tls })
}

/// Each an exact name, as in `pg_roles`.
fn console(at: At<Vec<String>>, source: &Source<'_>) -> Result<Vec<String>, ConfigError> {
    if at.value.iter().any(|name| name.is_empty() || name.contains('\0')) {
        return Err(source.error(&at.place, "the name of a role is empty or holds a zero byte"));
    }
    Ok(at.value)
}

fn socket_address(at: &At<String>, source: &Source<'_>) -> Result<SocketAddr, ConfigError> {
    at.value.parse().map_err(|_| {
        source.error(&at.place, format!("{:?} is not an IP address and port, as in \"127.0.0.1:6432\"", at.value))
    })
}

fn upstream(raw: raw::Upstream, source: &Source<'_>) -> Result<Upstream, ConfigError> {
    let address = match &raw.address {
        Some(at) => upstream_address(at, source)?,
        None => UpstreamAddress::Tcp { host: "127.0.0.1".to_owned(), port: POSTGRES_PORT },
    };
    let tls = raw.tls.as_ref().map_or(UpstreamTls::Prefer, |at| at.value);
    if let Some(at) = raw.root_certificate.as_ref().filter(|_| tls != UpstreamTls::VerifyFull) {
        return Err(source.error(&at.place, "root_certificate is used with tls = \"verify-full\" alone"));
    }
    match (&address, &raw.tls) {
        (UpstreamAddress::Unix { .. }, Some(at)) if matches!(tls, UpstreamTls::Require | UpstreamTls::VerifyFull) => {
            Err(source.error(&at.place, "there is no TLS on a unix socket"))
        }
        _ => Ok(Upstream { address, tls, root_certificate: raw.root_certificate.map(|at| source.relative(&at.value)) }),
    }
}

fn upstream_address(at: &At<String>, source: &Source<'_>) -> Result<UpstreamAddress, ConfigError> {
    let wrong = || {
        let message = format!("{:?} is neither host:port nor the directory of a unix socket", at.value);
        source.error(&at.place, message)
    };
    if at.value.contains('/') {
        let (directory, port) = split_port(&at.value).unwrap_or((&at.value, POSTGRES_PORT));
        return Ok(UpstreamAddress::Unix { directory: source.relative(directory), port });
    }
    let (host, port) = split_port(&at.value).ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_name = !host.is_empty() && !host.contains(char::is_whitespace) && !host.contains(['[', ']']);
    let is_unbracketed = host.contains(':') && !at.value.starts_with('[');
    if !is_name || is_unbracketed {
        return Err(wrong());
    }
    Ok(UpstreamAddress::Tcp { host: host.to_owned(), port })
}

fn split_port(text: &str) -> Option<(&str, u16)> {
    let (before, port) = text.rsplit_once(':')?;
    port.parse().ok().filter(|&port| port != 0).map(|port| (before, port))
}

fn keys(raw: raw::Keys, source: &Source<'_>) -> Result<Keys, ConfigError> {
    Ok(Keys {
        provider: provider(&raw, source)?,
        wrapping: raw.wrapping.map_or(Wrapping::Direct, |at| at.value),
        auto_register: raw.auto_register.is_some_and(|at| at.value),
        confirm_interval: duration(raw.confirm_interval.as_ref(), 60, source)?,
        lease: lease(raw.lease.as_ref(), source)?,
        cache_bytes_max: number(raw.cache_bytes_max.as_ref(), CACHE_BYTES_DEFAULT, 1 << 16, source)?,
        pool_size: count(raw.pool_size.as_ref(), 32, source)?,
        kms_concurrency: count(raw.kms_concurrency.as_ref(), 64, source)?,
    })
}

/// A rotation counts on the longest one (docs/decisions/2026-11-key-lifecycle.md); the heartbeat comes each second.
fn lease(at: Option<&At<String>>, source: &Source<'_>) -> Result<Duration, ConfigError> {
    let lease = duration(at, LEASE_SECONDS_MAX, source)?;
    match at {
        Some(at) if !(Duration::from_secs(2)..=Duration::from_secs(LEASE_SECONDS_MAX)).contains(&lease) => {
            Err(source.error(&at.place, format!("must be 2s to {LEASE_SECONDS_MAX}s")))
        }
        _ => Ok(lease),
    }
}

fn provider(raw: &raw::Keys, source: &Source<'_>) -> Result<Provider, ConfigError> {
    let text = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone());
    if let Some(at) = raw.aws.endpoint.as_ref().filter(|at| !is_safe_endpoint(&at.value)) {
        return Err(source.error(&at.place, format!("{:?} {UNSAFE_ENDPOINT}", at.value)));
    }
    Ok(match raw.provider.as_ref().map_or(raw::ProviderName::Local, |at| at.value) {
        raw::ProviderName::Local => {
            Provider::Local { keyring: source.relative(raw.keyring.as_ref().map_or("keyring.toml", |at| &at.value)) }
        }
        raw::ProviderName::Aws => Provider::Aws {
            region: text(&raw.aws.region),
            endpoint: text(&raw.aws.endpoint),
            profile: text(&raw.aws.profile),
        },
    })
}

/// What is wrong with an address that is not [`is_safe_endpoint`].
pub(crate) const UNSAFE_ENDPOINT: &str =
    "is not an https:// address; plaintext keys come from there, so http:// is for a stand-in on this machine alone";

/// Whether plaintext keys may come from this address: through TLS, or from this machine.
pub(crate) fn is_safe_endpoint(address: &str) -> bool {
    if let Some(rest) = address.strip_prefix("https://") {
        return !rest.is_empty();
    }
    let Some(rest) = address.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let loopback = |host: &str| host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    // Before an @ stands a name, not the host.
    !authority.contains('@') && (host == "localhost" || loopback(host.trim_start_matches('[').trim_end_matches(']')))
}

fn audit(raw: raw::Audit, source: &Source<'_>) -> Audit {
    Audit {
        directory: source.relative(raw.directory.as_ref().map_or("audit", |at| &at.value)),
        durability: raw.durability.map_or(Durability::Group, |at| at.value),
        key: raw.key.map(|at| source.relative(&at.value)),
    }
}

fn limits(raw: &raw::Limits, source: &Source<'_>) -> Result<Limits, ConfigError> {
    let bytes = |at: Option<&At<u64>>, default| {
        number(at, default, 1 << 16, source).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
    };
    Ok(Limits {
        connections_max: count(raw.connections_max.as_ref(), 1000, source)?,
        message_bytes_max: bytes(raw.message_bytes_max.as_ref(), MESSAGE_BYTES_DEFAULT)?,
        plan_bytes_max: bytes(raw.plan_bytes_max.as_ref(), PLAN_BYTES_DEFAULT)?,
        login_timeout: duration(raw.login_timeout.as_ref(), 60, source)?,
        drain_timeout: duration(raw.drain_timeout.as_ref(), 30, source)?,
    })
}

fn count(at: Option<&At<u64>>, default: u64, source: &Source<'_>) -> Result<usize, ConfigError> {
    number(at, default, 1, source).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}

fn number(at: Option<&At<u64>>, default: u64, least: u64, source: &Source<'_>) -> Result<u64, ConfigError> {
    match at {
        Some(at) if at.value < least => Err(source.error(&at.place, format!("must be at least {least}"))),
        Some(at) => Ok(at.value),
        None => Ok(default),
    }
}

fn duration(at: Option<&At<String>>, seconds: u64, source: &Source<'_>) -> Result<Duration, ConfigError> {
    let Some(at) = at else {
        return Ok(Duration::from_secs(seconds));
    };
    let parsed = at.value.parse::<jiff::SignedDuration>().ok();
    parsed
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| source.error(&at.place, format!("{:?} is not a duration, as in \"60s\" or \"5m\"", at.value)))
}
