//! The proxy as it runs: its settings, its databases, its listener. What an operator asks of it comes here, by a signal or
//! from the console.
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::check::{self, CheckError, Finding, Severity};
use crate::audit::{Audit, AuditError, Who, WhoFields};
use crate::config::{self, ConfigError, Settings};
use crate::policy;
use crate::server::ServerHandle;
use crate::server::bounds::SessionBounds;
use crate::server::console::CONSOLE;
use crate::server::database::{Database, DatabaseError, Renewal, Served};
use crate::server::tls::{Certificate, TlsError};

/// What a reload is called in the audit log.
pub(super) const RELOAD: &str = "reload the policy file";

/// How long the databases may take to be looked at.
const CHECK_MAX: Duration = Duration::from_secs(30);

/// Why the policy file was not taken up. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It changes what stays as it is while the proxy runs.
    #[error("{0} cannot change while the proxy runs: that needs a restart")]
    Restart(String),
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A database of it is not being served yet.
    #[error("database {0:?} cannot be reached yet, so its policy cannot be checked")]
    NotOpen(Arc<str>),
    /// A database does not answer.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The check of a database did not come to an end.
    #[error("database {name:?} could not be checked: {source}")]
    Check {
        /// The database.
        name: Arc<str>,
        /// What went wrong.
        source: CheckError,
    },
    /// The policy does not fit a database.
    #[error("the policy does not fit database {name:?}: {finding}")]
    Unfit {
        /// The database.
        name: Arc<str>,
        /// What does not fit, by name.
        finding: String,
    },
    /// A database takes too long.
    #[error("the databases did not answer within {CHECK_MAX:?}")]
    Slow,
    /// It could not be recorded that it is read.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The proxy has not come so far.
    #[error("the proxy is still starting")]
    Starting,
}

/// A proxy that runs.
pub struct Running {
    settings: ArcSwap<Settings>,
    /// Held while they are replaced.
    reloading: Mutex<()>,
    databases: Vec<Arc<Served>>,
    server: OnceLock<ServerHandle>,
}

impl Running {
    /// A proxy with these settings; `databases` are in their order.
    pub fn new(settings: Settings, databases: Vec<Arc<Served>>) -> Running {
        Running {
            settings: ArcSwap::from_pointee(settings),
            reloading: Mutex::new(()),
            databases,
            server: OnceLock::new(),
        }
    }

    /// The listener is there.
    pub fn started(&self, server: ServerHandle) {
        // The first one stays, should there be two.
        let _ = self.server.set(server);
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// The databases of the policy, in its order; `None` for one that could not be opened yet.
    pub fn databases(&self) -> Vec<(Arc<str>, Option<Arc<Database>>)> {
        let settings = self.settings();
        let one =
            |(policy, served): (&policy::Database, &Arc<Served>)| (policy.name.clone(), served.database().cloned());
        settings.databases.iter().zip(&self.databases).map(one).collect()
    }

    /// Reads the policy file again and puts it in force: all of it, or nothing.
    ///
    /// # Errors
    /// [`ReloadError`]; everything stays as it is then.
    ///
    /// # Cancel safety
    /// Safe: it takes effect at once at the end, or not at all.
    pub async fn reload(&self) -> Result<(), ReloadError> {
        let _alone = self.reloading.lock().await;
        let settings = self.settings();
        let server = self.server.get().ok_or(ReloadError::Starting)?;
        let fresh = config::load(&settings.file)?;
        if let Some(what) = needs_restart(&settings, &fresh) {
            return Err(ReloadError::Restart(what));
        }
        let certificate = read_certificate(server, &fresh)?;
        let databases = self.open_databases(&fresh)?;
        let renewals = timeout(CHECK_MAX, renewals(&databases)).await.map_err(|_| ReloadError::Slow)??;
        // Nothing fails from here on.
        renewals.into_iter().for_each(|renewal| renewal.put_in_force());
        let limits = fresh.limits;
        for (database, _) in &databases {
            database.bound(limits.message_bytes_max, limits.plan_bytes_max);
        }
        server.bound(SessionBounds {
            sessions_max: limits.connections_max,
            login_timeout: limits.login_timeout,
            drain_timeout: limits.drain_timeout,
        });
        if let Some(certificate) = certificate {
            server.show(certificate);
        }
        self.settings.store(Arc::new(fresh));
        Ok(())
    }

    /// Each database with its policy in the settings, which name the same ones in the same order.
    fn open_databases<'a>(
        &self,
        settings: &'a Settings,
    ) -> Result<Vec<(Arc<Database>, &'a policy::Database)>, ReloadError> {
        let open = |(served, policy): (&Arc<Served>, &'a policy::Database)| {
            let database = served.database().ok_or_else(|| ReloadError::NotOpen(policy.name.clone()))?;
            Ok((database.clone(), policy))
        };
        self.databases.iter().zip(&settings.databases).map(open).collect()
    }
}

/// Checks each policy against its database, then reads the schemas under them.
async fn renewals<'a>(databases: &'a [(Arc<Database>, &policy::Database)]) -> Result<Vec<Renewal<'a>>, ReloadError> {
    for (database, policy) in databases {
        check(database, policy).await?;
    }
    let mut renewals = Vec::with_capacity(databases.len());
    for (database, policy) in databases {
        renewals.push(database.renewal(Arc::new((*policy).clone())).await?);
    }
    Ok(renewals)
}

fn read_certificate(server: &ServerHandle, settings: &Settings) -> Result<Option<Certificate>, ReloadError> {
    let Some(tls) = &settings.listen.tls else { return Ok(None) };
    Ok(server.read_certificate(&tls.certificate, &tls.key)?)
}

/// Refuses a policy for which statements would be refused that are not now.
async fn check(database: &Database, policy: &policy::Database) -> Result<(), ReloadError> {
    let name = || policy.name.clone();
    let client = database.connection().await?;
    let failed = |source| ReloadError::Check { name: name(), source };
    let is_error = |finding: &Finding| finding.severity == Severity::Error;
    let found = check::check(&client, policy).await.map_err(failed)?;
    if !found.iter().any(is_error) {
        return Ok(());
    }
    let before = check::check(&client, &database.shared.policy()).await.map_err(failed)?;
    match found.into_iter().find(|finding| is_error(finding) && !before.contains(finding)) {
        Some(finding) => Err(ReloadError::Unfit { name: name(), finding: finding.message }),
        None => Ok(()),
    }
}

/// What differs that is looked at only at the start, by the names of the file.
fn needs_restart(now: &Settings, fresh: &Settings) -> Option<String> {
    fn differ(a: &impl std::fmt::Debug, b: &impl std::fmt::Debug) -> bool {
        format!("{a:?}") != format!("{b:?}")
    }
    let mut what = Vec::new();
    let mut changed = |is_changed: bool, name: &str| {
        if is_changed {
            what.push(name.to_owned());
        }
    };
    changed(now.listen.address != fresh.listen.address, "listen.address");
    changed(now.listen.tls.is_some() != fresh.listen.tls.is_some(), "whether there is listen.tls");
    changed(differ(&now.upstream, &fresh.upstream), "upstream");
    changed(now.admin != fresh.admin, "admin.address");
    changed(differ(&now.keys, &fresh.keys), "keys");
    changed(differ(&now.audit, &fresh.audit), "audit");
    let names = |settings: &Settings| settings.databases.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
    changed(names(now) != names(fresh), "the list of databases");
    for (now, fresh) in now.databases.iter().zip(&fresh.databases) {
        let is_changed = now.name == fresh.name && now.control != fresh.control;
        changed(is_changed, &format!("control of database {:?}", now.name));
    }
    (!what.is_empty()).then(|| what.join(", "))
}

/// Reads the file again on SIGHUP, for as long as the proxy runs.
///
/// # Errors
/// Signals cannot be listened to.
pub fn reload_on_hangup(running: Arc<Running>, audit: Arc<Audit>) -> std::io::Result<()> {
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let who =
                WhoFields { database: CONSOLE, user: "", role: "", client: "signal", application: "", session: 0 };
            let outcome = match super::record_act(&audit, (Who::new(who), 0), "", (RELOAD, "ok")) {
                Ok(()) => running.reload().await,
                Err(error) => Err(error.into()),
            };
            log(&outcome, &running.settings().file);
        }
    });
    Ok(())
}

/// Says in the log how a reload ended.
pub fn log(outcome: &Result<(), ReloadError>, file: &Path) {
    match outcome {
        Ok(()) => tracing::info!(file = %file.display(), "the policy file has been read again and is in force"),
        Err(error) => {
            let error = super::chain(error);
            tracing::error!(file = %file.display(), error, "the policy file is not taken up: everything stays as it is");
        }
    }
}
