//! Runs established sessions: those on protected databases through the machine, all others as a plain relay.
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::session::driver::{self, Ends, Stop};
use crate::session::machine::{Machine, Peer};

use super::connection::refuse;
use super::console::{CONSOLE, Console, take_over};
use super::database::Served;
use super::live::{Live, LiveSession, Present};
use super::{Established, SessionRunner};
use crate::refusal::{Class, Refusal};
use crate::wire::startup::StartupMessage;

/// Longest `application_name` kept for the audit log, in bytes.
const APPLICATION_BYTES_MAX: usize = 64;

/// A session in the list of those that there are.
struct Entered {
    status: Arc<AtomicU8>,
    present: Present,
}

/// The sessions of one proxy.
pub struct Sessions {
    databases: HashMap<Arc<str>, Arc<Served>>,
    control: Handle,
    count: AtomicU64,
    live: Arc<Live>,
    console: Option<Arc<dyn Console>>,
}

impl Sessions {
    /// Sessions over these protected databases. `control` is the runtime on which their registries live.
    pub fn new(databases: HashMap<Arc<str>, Arc<Served>>, control: Handle) -> Self {
        Sessions { databases, control, count: AtomicU64::new(0), live: Arc::default(), console: None }
    }

    /// The same with a console, at the database of its name unless a protected one has it.
    #[must_use]
    pub fn with_console(mut self, console: Arc<dyn Console>, live: Arc<Live>) -> Self {
        self.live = live;
        self.console = Some(console);
        self
    }

    /// The console, if that is where the client wants to go. It has to say so: the name of its role is not enough.
    fn console(&self, startup: &StartupMessage) -> Option<&Arc<dyn Console>> {
        let is_named = startup.parameter(b"database").is_some_and(|name| name == CONSOLE);
        self.console.as_ref().filter(|_| is_named && !self.databases.contains_key(CONSOLE))
    }

    fn enter(&self, established: &Established, (database, status): (String, u8), peer: &Peer) -> Entered {
        let status = Arc::new(AtomicU8::new(status));
        let user = established.startup.user().map(|user| String::from_utf8_lossy(user).into_owned());
        let present = self.live.enter(LiveSession {
            id: peer.session,
            database,
            user: user.unwrap_or_default(),
            client: peer.client.clone(),
            application: peer.application.clone(),
            since: SystemTime::now(),
            status: status.clone(),
        });
        Entered { status, present }
    }

    /// Tells the registries that this proxy is gone. To be called on their runtime, after the last session.
    pub async fn farewell(&self) {
        let mut told = JoinSet::new();
        for database in self.databases.values().filter_map(|served| served.database()) {
            let database = database.clone();
            told.spawn(async move { database.farewell().await });
        }
        told.join_all().await;
    }

    fn peer(&self, established: &Established) -> Peer {
        let application = established.startup.parameter(b"application_name");
        let application = application.map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
        Peer {
            client: established.peer.as_str().into(),
            application: cut(&application, APPLICATION_BYTES_MAX).into(),
            session: self.count.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

impl SessionRunner for Sessions {
    fn proving_database(&self, startup: &StartupMessage) -> Result<Option<Arc<str>>, Refusal> {
        self.console(startup).map(|console| console.proving_database()).transpose()
    }

    fn run(&self, established: Established) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let peer = self.peer(&established);
        if let Some(console) = self.console(&established.startup).cloned() {
            let entered = self.enter(&established, (CONSOLE.to_owned(), LiveSession::CONSOLE), &peer);
            return Box::pin(async move {
                let _present = entered.present;
                if let Some(visitor) = take_over(established, peer).await {
                    console.serve(visitor).await;
                }
            });
        }
        let name = established.startup.database().or_else(|| established.startup.user());
        let name = name.map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
        let Some(served) = self.databases.get(name.as_str()) else {
            let entered = self.enter(&established, (name, LiveSession::RELAYED), &peer);
            return Box::pin(async move {
                let _present = entered.present;
                relay(established).await;
            });
        };
        let Some(database) = served.database() else { return Box::pin(turn_away(established)) };
        let entered = self.enter(&established, (name, 0), &peer);
        let shared = database.shared.clone();
        let outgrown = database.outgrown();
        let mut machine = Machine::new(shared.clone(), peer.clone());
        machine.observe(entered.status);
        let reload = database.reloader(self.control.clone());
        Box::pin(async move {
            let _present = entered.present;
            let ends = Ends {
                client: established.client,
                server: established.server,
                client_in: established.client_buffered,
                server_in: established.server_buffered,
            };
            let end = driver::run(ends, machine, shared, reload, stop(established.drain, outgrown)).await;
            tracing::debug!(session = peer.session, ?end, "session ended");
        })
    }
}

/// Resolves when the session is to end.
async fn stop(mut drain: watch::Receiver<bool>, outgrown: impl Future<Output = ()>) -> Stop {
    let drained = async {
        if drain.wait_for(|stop| *stop).await.is_err() {
            std::future::pending().await
        }
    };
    tokio::select! {
        () = drained => Stop::Proxy,
        () = outgrown => Stop::Policy,
    }
}

/// A session on a protected database that could not be opened yet.
async fn turn_away(mut established: Established) {
    let refusal = Refusal::new(Class::Unreachable, "this database cannot be served yet")
        .detail("Its registry cannot be reached or read. The proxy keeps trying and passes nothing through until then.")
        .hint("Try again.");
    // Terminate, so that the server does not report a lost connection.
    let _ = established.server.write_all(b"X\0\0\0\x04").await;
    refuse(established.client, &refusal, &established.peer).await;
}

/// A session on a database without a policy: bytes go through untouched.
async fn relay(mut established: Established) {
    let copied = async {
        established.server.write_all(&established.client_buffered).await?;
        established.client.write_all(&established.server_buffered).await?;
        established.client.flush().await?;
        established.server.flush().await?;
        tokio::io::copy_bidirectional(&mut established.client, &mut established.server).await
    };
    if let Err(error) = copied.await {
        tracing::debug!(%error, "relay ended");
    }
}

/// At most `bytes` bytes of `text`, on a character boundary.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
