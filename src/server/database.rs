//! One protected database: its registry, keys, catalog and audit log, shared by all its sessions.
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard, watch};

use super::witness::Witness;
use crate::audit::Audit;
use crate::catalog::{Marks, load, marks, roles, switching};
use crate::keys::Keys;
use crate::keys::registry::{Registry, RegistryError, Wrapping};
use crate::policy;
use crate::refusal::{Class, Refusal};
use crate::session::driver::Reload;
use crate::session::machine::{Schema, Shared};
use crate::session::schema::Freshness;
use crate::sql::cache::Cache;
use crate::sql::filter::Filter;

/// How often the schema is looked at for changes made elsewhere.
const SCHEMA_POLL: Duration = Duration::from_secs(1);

/// Between two looks while a column is about to be switched.
const SWITCH_PAUSE: Duration = Duration::from_millis(50);

/// Why a database cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The registry does not answer.
    #[error("registry of database \"{name}\": {source}")]
    Registry {
        /// The database.
        name: Arc<str>,
        /// What went wrong.
        source: crate::keys::registry::RegistryError,
    },
    /// The names of its tables make no filter.
    #[error("filter of database \"{name}\": {source}")]
    Filter {
        /// The database.
        name: Arc<str>,
        /// What went wrong.
        source: aho_corasick::BuildError,
    },
    /// The schema cannot be read.
    #[error("schema of database \"{name}\": {source}")]
    Catalog {
        /// The database.
        name: Arc<str>,
        /// What went wrong.
        source: crate::catalog::CatalogError,
    },
}

/// What the settings say of all databases alike.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How a tenant that is unknown at a write is registered; `None`: not at all.
    pub auto_register: Option<Wrapping>,
    /// The largest message of a client's that is held for rewriting.
    pub message_bytes_max: usize,
    /// Bound of the cache of plans.
    pub plan_bytes_max: usize,
}

/// The place of a protected database among those that are served. While it is empty, because the database could not be
/// opened yet, connections to the database are refused, never passed through.
#[derive(Default)]
pub struct Served(OnceLock<Arc<Database>>);

impl Served {
    /// From now on connections reach the database.
    pub fn open(&self, database: Arc<Database>) {
        // The first one stays, should there be two.
        let _ = self.0.set(database);
    }

    /// The database, if it has been opened.
    pub fn database(&self) -> Option<&Arc<Database>> {
        self.0.get()
    }
}

/// A protected database that is being served.
pub struct Database {
    /// What its sessions share.
    pub shared: Arc<Shared>,
    registry: Arc<Registry>,
    witness: Arc<Witness>,
    control: Mutex<Control>,
    /// How often the policy has grown.
    grown: watch::Sender<u64>,
}

/// The connection that reads the schema.
struct Control {
    client: tokio_postgres::Client,
    /// Where the system catalogs were when the schema was last read.
    marks: Marks,
    /// When it was last begun to be read, with success.
    begun: Instant,
}

impl Database {
    /// Reads the schema and keeps an eye on it from then on.
    ///
    /// # Errors
    /// [`DatabaseError`] when the registry's connection or the schema cannot be had.
    pub async fn open(
        policy: policy::Database,
        registry: Arc<Registry>,
        keys: Arc<Keys>,
        audit: Arc<Audit>,
        bounds: Bounds,
    ) -> Result<Arc<Database>, DatabaseError> {
        let (name, policy) = (policy.name.clone(), Arc::new(policy));
        let client =
            registry.dedicated().await.map_err(|source| DatabaseError::Registry { name: name.clone(), source })?;
        let unread = |source| DatabaseError::Catalog { name: name.clone(), source };
        let freshness = Arc::new(Freshness::default());
        let marks = marks(&client).await.map_err(unread)?;
        let roles = roles::read(&client, &policy).await.map_err(|error| unread(error.into()))?;
        let catalog = load(&client, &policy, None).await.map_err(unread)?;
        let marks = if catalog.is_partial { Marks::default() } else { marks };
        let filter = Filter::new(&catalog).map_err(|source| DatabaseError::Filter { name: name.clone(), source })?;
        let schema = ArcSwap::from_pointee(Schema { catalog: Arc::new(catalog), filter, policy });
        let Bounds { auto_register, message_bytes_max, plan_bytes_max } = bounds;
        let (plans, message_bytes) = (Cache::new(plan_bytes_max), message_bytes_max.into());
        let roles = ArcSwap::from_pointee(roles);
        let witness = Witness::new(audit.clone(), registry.clone(), name.clone());
        let shared = Shared { name, schema, freshness, roles, keys, audit, auto_register, message_bytes, plans };
        let shared = Arc::new(shared);
        let database = Arc::new(Database {
            shared,
            registry,
            witness,
            control: Mutex::new(Control { client, marks, begun: Instant::now() }),
            grown: watch::Sender::new(0),
        });
        tokio::spawn(watch(Arc::downgrade(&database)));
        Ok(database)
    }

    /// Reads the schema again; sessions plan against it from then on if it has changed.
    ///
    /// # Errors
    /// 58030 when the registry's connection cannot be had.
    pub async fn reload(&self) -> Result<(), Refusal> {
        if !self.shared.schema.load().catalog.switching.is_empty() {
            // Sessions ask until it is over.
            tokio::time::sleep(SWITCH_PAUSE).await;
        }
        let asked = Instant::now();
        let mut control = self.control.lock().await;
        if control.begun > asked {
            // Read for another one while this one waited.
            return Ok(());
        }
        let (begun, ended) = (Instant::now(), self.shared.freshness.ended());
        let unreachable = |error: &dyn std::error::Error| {
            tracing::warn!(database = %self.shared.name, %error, "schema not read");
            Refusal::new(Class::Unreachable, "the schema of the database cannot be read").hint("Try again.")
        };
        self.revive(&mut control).await.map_err(|error| unreachable(&error))?;
        let policy = self.shared.policy();
        let roles = roles::read(&control.client, &policy).await.map_err(|error| unreachable(&error))?;
        if *roles != **self.shared.roles.load() {
            self.shared.roles.store(Arc::new(roles));
        }
        let marks = marks(&control.client).await.map_err(|error| unreachable(&error))?;
        let before = self.shared.schema.load_full();
        let is_over = !before.catalog.switching.is_empty()
            && switching(&control.client).await.map_err(|error| unreachable(&error))?.is_empty();
        if marks == control.marks && !is_over {
            self.shared.freshness.knows(ended);
            control.begun = begun;
            return Ok(());
        }
        let loaded = load(&control.client, &policy, Some(&before.catalog)).await;
        let catalog = loaded.map_err(|error| unreachable(&error))?;
        let marks = if catalog.is_partial { Marks::default() } else { marks };
        if catalog.version != before.catalog.version {
            let filter = Filter::new(&catalog).map_err(|error| unreachable(&error))?;
            self.shared.schema.store(Arc::new(Schema { catalog: Arc::new(catalog), filter, policy }));
        }
        self.shared.freshness.knows(ended);
        (control.marks, control.begun) = (marks, begun);
        Ok(())
    }

    /// Connects again where the server has closed.
    async fn revive(&self, control: &mut Control) -> Result<(), RegistryError> {
        if control.client.is_closed() {
            control.client = self.registry.dedicated().await?;
        }
        Ok(())
    }

    /// Reads the schema under another policy, which is not in force yet. Until the result is dropped or put in force the
    /// schema stays as it is.
    ///
    /// # Errors
    /// [`DatabaseError`] when the registry's connection or the schema cannot be had: nothing has changed then.
    pub async fn renewal(&self, policy: Arc<policy::Database>) -> Result<Renewal<'_>, DatabaseError> {
        let name = || self.shared.name.clone();
        let mut control = self.control.lock().await;
        self.revive(&mut control).await.map_err(|source| DatabaseError::Registry { name: name(), source })?;
        let unread = |source| DatabaseError::Catalog { name: name(), source };
        let marks = marks(&control.client).await.map_err(unread)?;
        let roles = roles::read(&control.client, &policy).await.map_err(|error| unread(error.into()))?;
        let before = self.shared.schema.load_full();
        let catalog = load(&control.client, &policy, Some(&before.catalog)).await.map_err(unread)?;
        let marks = if catalog.is_partial { Marks::default() } else { marks };
        let filter = Filter::new(&catalog).map_err(|source| DatabaseError::Filter { name: name(), source })?;
        let schema = Schema { catalog: Arc::new(catalog), filter, policy };
        Ok(Renewal { database: self, control, marks, schema, roles })
    }

    /// Bounds the largest message for rewriting, in sessions that begin from now on, and the cache of plans.
    pub fn bound(&self, message_bytes_max: usize, plan_bytes_max: usize) {
        self.shared.message_bytes.store(message_bytes_max, Ordering::Relaxed);
        self.shared.plans.hold_at_most(plan_bytes_max);
    }

    /// A connection to the database as the registry makes it.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn connection(&self) -> Result<tokio_postgres::Client, DatabaseError> {
        let failed = |source| DatabaseError::Registry { name: self.shared.name.clone(), source };
        self.registry.dedicated().await.map_err(failed)
    }

    /// Resolves when the policy has come to look after more columns than it does now.
    pub fn outgrown(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut grown = self.grown.subscribe();
        let now = *grown.borrow_and_update();
        async move {
            if grown.wait_for(|times| *times > now).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Leaves the last checkpoint of the audit log in the registry and takes this proxy off its list of those that live; the
    /// database is not served any more then.
    pub async fn farewell(&self) {
        self.witness.keep_last().await;
        if self.shared.keys.is_pinned() {
            tracing::warn!(database = %self.shared.name, "sealed values are still on their way to the server");
            return self.registry.fall_silent().await;
        }
        if let Err(error) = self.registry.farewell().await {
            tracing::warn!(database = %self.shared.name, %error, "the registry was not told of the end");
        }
    }

    /// The function by which sessions ask for a reload. It runs on the runtime of the registry's connection.
    pub fn reloader(self: &Arc<Self>, control: tokio::runtime::Handle) -> Reload {
        let database = self.clone();
        Arc::new(move || {
            let database = database.clone();
            let reload = control.spawn(async move { database.reload().await });
            Box::pin(async move {
                reload.await.unwrap_or_else(|_| Err(Refusal::new(Class::Internal, "schema reload failed")))
            })
        })
    }
}

/// A policy that is sure to be usable, with the schema as it is under it.
pub struct Renewal<'a> {
    database: &'a Database,
    control: MutexGuard<'a, Control>,
    marks: Marks,
    schema: Schema,
    roles: String,
}

impl Renewal<'_> {
    /// From now on statements are planned under this policy. Sessions ask anew what their roles may do; those that may
    /// have prepared what it looks after since then end when they are idle.
    pub fn put_in_force(mut self) {
        let shared = &self.database.shared;
        let grows = self.schema.policy.covers_more(&shared.policy());
        shared.schema.store(Arc::new(self.schema));
        shared.roles.store(Arc::new(self.roles));
        self.control.marks = self.marks;
        if grows {
            self.database.grown.send_modify(|times| *times += 1);
        }
    }
}

async fn watch(database: std::sync::Weak<Database>) {
    let mut ticks = tokio::time::interval(SCHEMA_POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(database) = database.upgrade() else { return };
        // A failure is logged by `reload`; the next tick tries again.
        let _ = database.reload().await;
    }
}
