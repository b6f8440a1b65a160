//! Runs established sessions: those on protected databases through the machine, all others as a plain relay.
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::session::driver::{self, Ends};
use crate::session::machine::{Machine, Peer};

use super::connection::refuse;
use super::database::Served;
use super::{Established, SessionRunner};
use crate::refusal::{Class, Refusal};

/// Longest `application_name` kept for the audit log, in bytes.
const APPLICATION_BYTES_MAX: usize = 64;

/// The sessions of one proxy.
pub struct Sessions {
    databases: HashMap<Arc<str>, Arc<Served>>,
    control: Handle,
    count: AtomicU64,
}

impl Sessions {
    /// Sessions over these protected databases. `control` is the runtime on which their registries live.
    pub fn new(databases: HashMap<Arc<str>, Arc<Served>>, control: Handle) -> Self {
        Sessions { databases, control, count: AtomicU64::new(0) }
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
    fn run(&self, established: Established) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let name = established.startup.database().or_else(|| established.startup.user());
        let name = name.map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
        let Some(served) = self.databases.get(name.as_str()) else { return Box::pin(relay(established)) };
        let Some(database) = served.database() else { return Box::pin(turn_away(established)) };
        let peer = self.peer(&established);
        let shared = database.shared.clone();
        let machine = Machine::new(shared.clone(), peer.clone());
        let reload = database.reloader(self.control.clone());
        Box::pin(async move {
            let ends = Ends {
                client: established.client,
                server: established.server,
                client_in: established.client_buffered,
                server_in: established.server_buffered,
            };
            let end = driver::run(ends, machine, shared, reload, established.drain).await;
            tracing::debug!(session = peer.session, ?end, "session ended");
        })
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
