//! The TOML file, checked into [`Settings`] before a port opens.
//!
//! Three steps, a file each: `raw` is the file as written, `env` lays the `ROWSEAL_...` variables over it, `sections`
//! and `database` check every value. Each error names its place as `file:line:column`. Nothing here connects anywhere:
//! holding the policy against a live database is the work of `rowseal check`.
//!
//! Start reading at [`load`].
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::audit::Durability;
use crate::policy;

pub mod control;
mod database;
mod env;
mod error;
pub mod ident;
mod raw;
mod sections;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

pub use control::{Control, ControlError};
pub use env::variable_for_database;
pub use error::ConfigError;
pub(crate) use sections::{UNSAFE_ENDPOINT, is_safe_endpoint};

/// Everything the file says, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file it was read from.
    pub file: PathBuf,
    /// Where clients connect.
    pub listen: Listen,
    /// Where the server is.
    pub upstream: Upstream,
    /// Where metrics and health are served; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// Roles that may use the console, they and their members; empty: nobody.
    pub console: Vec<String>,
    /// The key service.
    pub keys: Keys,
    /// The audit log.
    pub audit: Audit,
    /// Bounds on what clients may ask for.
    pub limits: Limits,
    /// The policies, one a database.
    pub databases: Vec<policy::Database>,
}

impl Settings {
    /// The control string of a database, its words about TLS taken out and resolved.
    ///
    /// # Errors
    /// None for settings that [`load`] has checked.
    pub fn control(&self, database: &policy::Database) -> Result<Control, ControlError> {
        Control::read(&database.control, &self.upstream, self.file.parent().unwrap_or(Path::new("")))
    }

    /// The policy of the database with this name; `None`: it passes through untouched.
    pub fn database(&self, name: &str) -> Option<&policy::Database> {
        self.databases.iter().find(|database| *database.name == *name)
    }
}

/// Where clients connect.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// TLS towards clients; `None`: an SSLRequest is answered `N`.
    pub tls: Option<Tls>,
}

/// A certificate chain and its key, both PEM files.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Where the server is.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its address.
    pub address: UpstreamAddress,
    /// Whether TLS is used towards it.
    pub tls: UpstreamTls,
    /// Roots for `verify-full`; `None`: those of the operating system.
    pub root_certificate: Option<PathBuf>,
}

/// The address of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamAddress {
    /// A host name or IP address, and a port.
    Tcp {
        /// Without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// The directory of a unix socket.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The port, which is part of the socket's name.
        port: u16,
    },
}

impl UpstreamAddress {
    /// The path of the socket itself; `None` for TCP.
    pub fn socket(&self) -> Option<PathBuf> {
        match self {
            UpstreamAddress::Tcp { .. } => None,
            UpstreamAddress::Unix { directory, port } => Some(directory.join(format!(".s.PGSQL.{port}"))),
        }
    }
}

/// Whether TLS is used towards the server; the words are libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamTls {
    /// Never.
    Disable,
    /// If the server has it; certificates are not checked.
    Prefer,
    /// Always; certificates are not checked.
    Require,
    /// Always; the chain and the host name are checked.
    VerifyFull,
}

/// The key service and the bounds of the key cache.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Where master keys live.
    pub provider: Provider,
    /// How data keys are wrapped, where a tenant has no choice of its own.
    pub wrapping: Wrapping,
    /// Whether an unknown tenant is registered at its first write.
    pub auto_register: bool,
    /// How long a cached key may be used without its master key being confirmed.
    pub confirm_interval: Duration,
    /// How long the registry may be silent before nothing is sealed, and nothing that was sealed is sent.
    pub lease: Duration,
    /// Bound of the cache of opened data keys.
    pub cache_bytes_max: u64,
    /// Data keys kept ready for each active tenant (direct mode).
    pub pool_size: usize,
    /// KMS calls under way at one time.
    pub kms_concurrency: usize,
}

/// Where master keys live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// In a keyring file on this machine.
    Local {
        /// The file.
        keyring: PathBuf,
    },
    /// In AWS KMS. What is absent comes from the SDK's own chain.
    Aws {
        /// Such as `eu-central-1`.
        region: Option<String>,
        /// Instead of the region's endpoint; `https://`, or `http://` on this machine.
        endpoint: Option<String>,
        /// A profile of `~/.aws/config`.
        profile: Option<String>,
    },
}

/// How data keys are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wrapping {
    /// Each by the KMS under the master key.
    Direct,
    /// Under a branch key, which the KMS wraps.
    Hierarchical,
}

/// The audit log.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Its directory.
    pub directory: PathBuf,
    /// When a record is on disk.
    pub durability: Durability,
    /// The file with the key that signs it; `None`: in its directory.
    pub key: Option<PathBuf>,
}

/// Bounds on what clients may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Client connections at one time.
    pub connections_max: usize,
    /// The largest message that is held for rewriting.
    pub message_bytes_max: usize,
    /// Bound of the cache of plans.
    pub plan_bytes_max: usize,
    /// How long a client may take to log in.
    pub login_timeout: Duration,
    /// How long open sessions may go on after a stop.
    pub drain_timeout: Duration,
}

/// Reads and checks the file at `path`, with `ROWSEAL_...` variables of the environment laid over it.
///
/// # Errors
/// [`ConfigError`], whose text begins with the place of the fault.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { file: path.display().to_string(), source })?;
    parse(&text, path, &|name| std::env::var(name).ok())
}

/// The same for a text already read; `variable` looks up environment variables, and relative paths start at the
/// directory of `path`.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<Settings, ConfigError> {
    let source = error::Source::new(path, text);
    let mut raw: raw::File = toml::from_str(text).map_err(|error| source.toml(&error))?;
    env::overlay(&mut raw, variable)?;
    sections::settings(raw, &source)
}
