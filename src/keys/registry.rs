//! The registry: tenants and their keys as the protected database records them.
//!
//! Owns the control connection, which it opens again when it is lost, and a [`Snapshot`] of all records that is
//! replaced whole when the epoch has moved. It holds wrapped keys and ids only; what a key *is* belongs to
//! [`Keys`](super::Keys). The tables are in `setup/schema.sql`; registration is in [`register`].
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio_postgres::config::Host;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls};

use super::kms::KmsError;

mod checkpoints;
pub mod fresh;
mod records;
pub mod register;

pub use checkpoints::KeptCheckpoint;
pub use records::{BranchRecord, MasterRecord, MasterState, Purpose, Snapshot, Standing, TenantRecord, Wrapping};
pub use register::{Entry, Registered};

/// How long one statement on the control connection may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A proxy whose heartbeat is older is not counted: its lease of at most 15 s is over.
pub const COUNTED_OUT_AFTER: Duration = Duration::from_secs(20);

/// Why the registry could not answer.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The `control` setting is not a connection string.
    #[error("the control connection string is not valid")]
    Control(#[source] tokio_postgres::Error),
    /// The server refused a statement, or the connection failed.
    #[error("the registry cannot be reached")]
    Server(#[from] tokio_postgres::Error),
    /// The server did not answer in time.
    #[error("the registry did not answer in time")]
    Timeout,
    /// A record that this release does not understand.
    #[error("the registry has a {0} record that this release does not understand")]
    Record(&'static str),
    /// A name that a tenant cannot have.
    #[error("a tenant's name has 1 to 256 letters, digits, characters of _.:/=+-@ and, not at its ends, spaces")]
    Name,
    /// A name that the proxy keeps for itself.
    #[error("tenant names that begin with \"_rowseal\" are reserved")]
    Reserved,
    /// Registered already, in the other wrapping mode.
    #[error("the tenant is registered with {}", .0.as_str())]
    OtherWrapping(Wrapping),
    /// The key service refused or failed.
    #[error("the key service did not carry out the registration")]
    Kms(#[from] KmsError),
    /// The keys of the tenant are not to be used.
    #[error("the tenant is {}", .0.as_str())]
    Barred(Standing),
    /// A fresh master key that does not give back what it wrapped.
    #[error("the new master key failed its round trip")]
    RoundTrip,
}

impl RegistryError {
    /// Whether asking again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            RegistryError::Server(_) | RegistryError::Timeout => true,
            RegistryError::Kms(error) => !error.is_definitive(),
            RegistryError::Control(_)
            | RegistryError::Record(_)
            | RegistryError::Name
            | RegistryError::Reserved
            | RegistryError::OtherWrapping(_)
            | RegistryError::Barred(_)
            | RegistryError::RoundTrip => false,
        }
    }
}

/// A way to the server; with TLS it is another than [`Plain`].
pub trait Connector: Send + Sync {
    /// Opens a connection and keeps it going until its client is dropped.
    fn connect<'a>(
        &'a self,
        config: &'a Config,
    ) -> Pin<Box<dyn Future<Output = Result<Client, tokio_postgres::Error>> + Send + 'a>>;
}

/// Connections without TLS: sockets of this machine, or a network that is trusted.
pub struct Plain;

impl Connector for Plain {
    fn connect<'a>(
        &'a self,
        config: &'a Config,
    ) -> Pin<Box<dyn Future<Output = Result<Client, tokio_postgres::Error>> + Send + 'a>> {
        Box::pin(async move {
            let (client, connection) = config.connect(NoTls).await?;
            // Ends when the client is dropped or the server goes; the client then says that it is closed.
            tokio::spawn(connection);
            Ok(client)
        })
    }
}

/// The registry of one database.
pub struct Registry {
    config: Config,
    connector: Box<dyn Connector>,
    client: Mutex<Option<Arc<Client>>>,
    snapshot: ArcSwap<Snapshot>,
    /// When the latest refresh began; held while one runs.
    refreshed: Mutex<Option<Instant>>,
    /// False once this proxy has taken its leave; held while it is said that it lives, or that it leaves.
    present: Mutex<bool>,
    proxy: String,
    started: Instant,
    /// What the database's clock showed when this registry was started, in milliseconds since 1970.
    started_at: AtomicI64,
}

impl Registry {
    /// Connects with a libpq connection string or URL, without TLS, and loads all records.
    ///
    /// # Errors
    /// A bad string, a server that does not answer, or a database without schema `rowseal`.
    pub async fn connect(control: &str) -> Result<Registry, RegistryError> {
        Registry::connect_by(settings(control)?, Box::new(Plain)).await
    }

    /// As [`Registry::connect`], by another way; every connection that is opened later takes it too.
    ///
    /// # Errors
    /// As [`Registry::connect`].
    pub async fn connect_by(config: Config, connector: Box<dyn Connector>) -> Result<Registry, RegistryError> {
        let registry = Registry {
            config,
            connector,
            client: Mutex::new(None),
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            refreshed: Mutex::new(None),
            present: Mutex::new(true),
            started: Instant::now(),
            started_at: AtomicI64::new(0),
            proxy: uuid::Uuid::from_bytes(crate::crypto::random_bytes()).to_string(),
        };
        registry.refresh().await?;
        Ok(registry)
    }

    /// The records as they were last loaded.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Loads the records again when the epoch has moved. Callers that wait for the same refresh share it.
    ///
    /// # Errors
    /// The server did not answer; the snapshot stays.
    ///
    /// # Cancel safety
    /// Safe: the snapshot is replaced at the end or not at all.
    pub async fn refresh(&self) -> Result<(), RegistryError> {
        let asked = Instant::now();
        let mut refreshed = self.refreshed.lock().await;
        if refreshed.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        let began = Instant::now();
        let client = self.client().await?;
        let look = "SELECT value, (1000 * extract(epoch FROM pg_catalog.clock_timestamp()))::pg_catalog.int8
                    FROM rowseal.epoch";
        let row = self.timed(client.query_one(look, &[])).await?;
        // Its clock showed that later than now: what is to end by it ends too early rather than too late.
        self.started_at.store(row.get::<_, i64>(1) - self.since_start(began), SeqCst);
        if row.get::<_, i64>(0) != self.snapshot.load().epoch {
            let rows = self.timed(client.query(records::LOAD, &[])).await?;
            self.snapshot.store(Arc::new(Snapshot::from_rows(&rows)?));
        }
        *refreshed = Some(began);
        Ok(())
    }

    /// What the database's clock shows now, as far as is known: milliseconds since 1970.
    pub fn database_now(&self) -> i64 {
        self.started_at.load(SeqCst).saturating_add(self.since_start(Instant::now()))
    }

    fn since_start(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(i64::MAX)
    }

    /// The epoch of the records as they were last loaded.
    pub fn epoch(&self) -> i64 {
        self.snapshot.load().epoch
    }

    /// Puts this proxy on the list of those that rotation waits for, with the epoch that it acknowledges and the one that
    /// it has taken up; nothing after [`Registry::farewell`].
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn enlist(&self, acknowledged: i64, taken_up: i64) -> Result<(), RegistryError> {
        let enlist = "INSERT INTO rowseal.proxy (id, epoch, taken_up)
                      VALUES ($1::pg_catalog.text::pg_catalog.uuid, $2, $3)
                      ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, taken_up = excluded.taken_up,
                          heartbeat = pg_catalog.now()";
        self.tell(enlist, &[&self.proxy, &acknowledged, &taken_up]).await.map(|_| ())
    }

    /// Records that this proxy lives, the epoch that it acknowledges and the one that it has taken up. False when it is
    /// not on the list: whoever waits for proxies does not wait for this one.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn heartbeat(&self, acknowledged: i64, taken_up: i64) -> Result<bool, RegistryError> {
        let beat = "UPDATE rowseal.proxy SET epoch = $2, taken_up = $3, heartbeat = pg_catalog.now()
                    WHERE id = $1::pg_catalog.text::pg_catalog.uuid";
        Ok(self.tell(beat, &[&self.proxy, &acknowledged, &taken_up]).await? == 1)
    }

    /// Tells the registry something of this proxy; gives how many rows that changed, none once it has taken its leave.
    async fn tell(&self, what: &str, of: &[&(dyn ToSql + Sync)]) -> Result<u64, RegistryError> {
        let present = self.present.lock().await;
        if !*present {
            return Ok(0);
        }
        let client = self.client().await?;
        self.timed(client.execute(what, of)).await
    }

    /// Says nothing from now on, so that this proxy stays on the list until its silence is noticed: for one that ends
    /// while cells may be on their way.
    pub async fn fall_silent(&self) {
        *self.present.lock().await = false;
    }

    /// Takes this proxy off the list of those that rotation waits for. The last thing a proxy does: no heartbeat is sent
    /// from then on.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn farewell(&self) -> Result<(), RegistryError> {
        let mut present = self.present.lock().await;
        *present = false;
        let client = self.client().await?;
        let leave = "DELETE FROM rowseal.proxy WHERE id = $1::pg_catalog.text::pg_catalog.uuid";
        self.timed(client.execute(leave, &[&self.proxy])).await?;
        Ok(())
    }

    /// This proxy's id in the table of proxies.
    pub fn proxy_id(&self) -> &str {
        &self.proxy
    }

    /// A connection of the caller's own, for what needs a transaction or a lock.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn dedicated(&self) -> Result<Client, RegistryError> {
        open(&*self.connector, &self.config).await
    }

    async fn client(&self) -> Result<Arc<Client>, RegistryError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let client = Arc::new(open(&*self.connector, &self.config).await?);
        *slot = Some(client.clone());
        Ok(client)
    }

    /// A connection that does not answer in time is given up, not waited for.
    async fn timed<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, RegistryError> {
        match tokio::time::timeout(STATEMENT_TIMEOUT, statement).await {
            Ok(done) => Ok(done?),
            Err(_) => {
                *self.client.lock().await = None;
                Err(RegistryError::Timeout)
            }
        }
    }
}

/// Reads a libpq connection string or URL. Without a host, the usual socket directory is used; without a password,
/// `PGPASSWORD`.
///
/// # Errors
/// [`RegistryError::Control`].
pub fn settings(control: &str) -> Result<Config, RegistryError> {
    let mut config: Config = control.parse().map_err(RegistryError::Control)?;
    if config.get_hosts().is_empty() {
        // The name that a certificate must carry is the address then.
        for address in config.get_hostaddrs().to_vec() {
            config.host(address.to_string());
        }
    }
    if config.get_hosts().iter().all(|host| matches!(host, Host::Tcp(name) if name.is_empty())) {
        config.host_path("/var/run/postgresql");
    }
    if let (None, Ok(password)) = (config.get_password(), std::env::var("PGPASSWORD")) {
        config.password(password);
    }
    if config.get_application_name().is_none() {
        config.application_name("rowseal");
    }
    config.connect_timeout(STATEMENT_TIMEOUT);
    Ok(config)
}

/// One connection, for what is done before there is a registry: setup, checks.
///
/// # Errors
/// A server that does not answer.
pub async fn open(connector: &dyn Connector, config: &Config) -> Result<Client, RegistryError> {
    let connecting = tokio::time::timeout(STATEMENT_TIMEOUT, connector.connect(config));
    Ok(connecting.await.map_err(|_| RegistryError::Timeout)??)
}
