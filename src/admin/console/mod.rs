//! The console: database `rowseal`, which is none. It shows how the proxy is and does what an operator may ask of it.
//!
//! Who comes here has proven to the server which role it is (`server::console`); whether the role may come in is decided
//! here. `text` cuts statements, `command` knows them, `shows`, `acts` and `keys` carry them out, `talk` speaks the
//! protocol and `answer` writes its messages. To add something to be shown: an entry in `shows`; an act: one in `command`.
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::rotations::Rotations;
use super::running::Running;
use crate::audit::{Audit, Who, WhoFields};
use crate::keys::kms::Kms;
use crate::refusal::{Class, Refusal};
use crate::server::console::{CONSOLE, Console, Visitor, parameters};
use crate::server::live::Live;
use crate::session::machine::Peer;
use answer::Replies;
use talk::{Next, Talk};

mod acts;
mod answer;
mod command;
mod keys;
mod shows;
mod talk;
mod text;

/// The names of all roles that a role is a member of, itself first among them. Looked up, not asked of pg_has_role, for which a
/// superuser is a member of every role.
const MEMBER_OF: &str = "WITH RECURSIVE mine(id) AS (\
     SELECT oid FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name \
     UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m, mine WHERE m.member OPERATOR(pg_catalog.=) mine.id) \
     SELECT r.rolname::pg_catalog.text FROM mine, pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) mine.id";

/// How long a command, or the question about roles, may take.
const COMMAND_MAX: Duration = Duration::from_secs(120);
const ROLES_MAX: Duration = Duration::from_secs(10);
/// Answers beyond this are sent before the next message is read.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// The console of a proxy.
pub struct Desk {
    running: Arc<Running>,
    audit: Arc<Audit>,
    live: Arc<Live>,
    /// The runtime of the registries' connections.
    control: Handle,
    kms: Arc<dyn Kms>,
    rotations: Arc<Rotations>,
}

impl Desk {
    /// A console over this proxy. `control` is the runtime on which the registries live, `kms` the key service as jobs use
    /// it.
    pub fn new(
        running: Arc<Running>,
        audit: Arc<Audit>,
        live: Arc<Live>,
        (control, kms): (Handle, Arc<dyn Kms>),
    ) -> Desk {
        Desk { running, audit, live, control, kms, rotations: Arc::default() }
    }
}

impl Console for Desk {
    fn proving_database(&self) -> Result<Arc<str>, Refusal> {
        let settings = self.running.settings();
        match settings.databases.first() {
            Some(database) if !settings.console.is_empty() => Ok(database.name.clone()),
            _ => Err(Refusal::new(Class::Denied, "this proxy lets nobody into its console")
                .hint("The operator of the proxy can name roles in admin.console.")),
        }
    }

    fn serve(&self, visitor: Visitor) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let Visitor { client, client_buffered, told, role, peer, drain } = visitor;
        let visit = Visit {
            running: self.running.clone(),
            audit: self.audit.clone(),
            live: self.live.clone(),
            control: self.control.clone(),
            kms: self.kms.clone(),
            rotations: self.rotations.clone(),
            parameters: parameters(&told),
            role,
            peer,
            statements: AtomicU64::new(0),
        };
        Box::pin(async move {
            let (mut client, mut drain) = (client, drain);
            let ended = converse(Arc::new(visit), (&mut client, client_buffered, told), async {
                if drain.wait_for(|stop| *stop).await.is_err() {
                    std::future::pending().await
                }
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "a client of the console went away");
            }
            let _ = client.shutdown().await;
        })
    }
}

/// One client of the console.
struct Visit {
    running: Arc<Running>,
    audit: Arc<Audit>,
    live: Arc<Live>,
    control: Handle,
    kms: Arc<dyn Kms>,
    rotations: Arc<Rotations>,
    /// What the server told of itself.
    parameters: Vec<(String, String)>,
    role: String,
    peer: Peer,
    statements: AtomicU64,
}

impl Visit {
    /// Who it is for the audit log.
    fn who(&self, database: &str) -> Who {
        Who::new(WhoFields {
            database: if database.is_empty() { CONSOLE } else { database },
            user: &self.role,
            role: &self.role,
            client: &self.peer.client,
            application: &self.peer.application,
            session: self.peer.session,
        })
    }

    fn count_statement(&self) {
        self.statements.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of the act under way.
    fn statement(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// A setting that clients ask for.
    fn parameter(&self, name: &str) -> Option<String> {
        let told = self.parameters.iter().find(|(told, _)| told.eq_ignore_ascii_case(name));
        told.map(|(_, value)| value.clone()).or_else(|| (name == "search_path").then(String::new))
    }

    /// Runs work on the runtime where the connections to the databases live, for a bounded time.
    async fn on_control<T: Send + 'static>(
        self: Arc<Self>,
        work: Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>,
    ) -> Result<T, Refusal> {
        let slow = || Refusal::new(Class::Unreachable, "the command takes too long").hint("Try again.");
        let done = self.control.spawn(timeout(COMMAND_MAX, work)).await;
        let failed = |_| Refusal::new(Class::Internal, "the command failed");
        done.map_err(failed)?.map_err(|_| slow())?
    }

    /// Refuses a role that is not let in.
    async fn admitted(self: Arc<Self>) -> Result<(), Refusal> {
        let settings = self.running.settings();
        let is_listed = |role: &String| settings.console.contains(role);
        if is_listed(&self.role) {
            return Ok(());
        }
        let visit = self.clone();
        let roles = timeout(ROLES_MAX, self.clone().on_control(Box::pin(async move { visit.member_of().await })));
        let unknown =
            || Refusal::new(Class::Unreachable, "the roles of the database cannot be asked for").hint("Try again.");
        if roles.await.map_err(|_| unknown())??.iter().any(is_listed) {
            return Ok(());
        }
        Err(Refusal::new(Class::Denied, format!("role \"{}\" may not use the console", self.role))
            .hint("The operator of the proxy can name roles in admin.console."))
    }

    async fn member_of(&self) -> Result<Vec<String>, Refusal> {
        let databases = self.running.databases();
        let Some((_, Some(database))) = databases.first() else {
            return Err(Refusal::new(Class::Unreachable, "the database of the login cannot be served yet"));
        };
        let unanswered = |error: &dyn std::error::Error| {
            tracing::warn!(error = super::chain(error), "the console could not ask for roles");
            Refusal::new(Class::Unreachable, "the roles of the database cannot be asked for").hint("Try again.")
        };
        let client = database.connection().await.map_err(|error| unanswered(&error))?;
        let rows = client.query(MEMBER_OF, &[&self.role]).await.map_err(|error| unanswered(&error))?;
        rows.iter().map(|row| row.try_get(0).map_err(|error| unanswered(&error))).collect()
    }
}

/// Lets the client in and answers it until it leaves or is told to.
async fn converse<C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    visit: Arc<Visit>,
    (client, mut input, told): (&mut C, BytesMut, BytesMut),
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    if let Err(refusal) = visit.clone().admitted().await {
        tracing::info!(role = visit.role, client = %visit.peer.client, %refusal, "not let into the console");
        return client.write_all(&crate::server::fatal(&refusal)).await;
    }
    let mut talk = Talk::new(visit);
    talk.replies.0.extend_from_slice(&told);
    talk.ready();
    let mut stop = std::pin::pin!(stop);
    loop {
        while let Some(next) = talk.answer(&mut input).await {
            if next == Next::Over {
                client.write_all(&talk.replies.0).await?;
                return client.flush().await;
            }
            if talk.replies.0.len() > REPLY_BYTES_MAX {
                client.write_all(&std::mem::take(&mut talk.replies).0).await?;
            }
        }
        client.write_all(&std::mem::take(&mut talk.replies).0).await?;
        client.flush().await?;
        tokio::select! {
            () = &mut stop => {
                let mut goodbye = Replies::default();
                goodbye.error(&Refusal::new(Class::Stopping, "terminating connection because the proxy is stopping"));
                return client.write_all(&goodbye.0).await;
            }
            read = client.read_buf(&mut input) => if read? == 0 {
                return Ok(());
            }
        }
    }
}
