//! One connection on its worker: from the socket to the session, under one deadline.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::accept::{Closing, Opening, open};
use super::auth::{AuthOutcome, relay};
use super::bounds::SessionBounds;
use super::listener::ServerSettings;
use super::stream::{ClientStream, ServerStream};
use super::{Established, SessionRunner, cancel, fatal};
use crate::refusal::{Class, Refusal};
use crate::wire::startup::StartupMessage;

/// How long a refused client may take to read why, before its socket is closed.
const LINGER: Duration = Duration::from_millis(500);

/// What all connections share.
pub(super) struct Shared {
    pub(super) settings: ServerSettings,
    pub(super) bounds: ArcSwap<SessionBounds>,
    pub(super) runner: Arc<dyn SessionRunner>,
    pub(super) sessions: AtomicUsize,
    pub(super) drain: watch::Receiver<bool>,
}

/// One place among the sessions; dropped when it ends.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Place> {
        let place = Place(Arc::clone(shared));
        let before = shared.sessions.fetch_add(1, Ordering::Relaxed);
        (before < shared.bounds.load().sessions_max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one connection to its end.
pub(super) async fn serve_connection(client: ClientStream, peer: String, shared: Arc<Shared>) {
    let deadline = Instant::now() + shared.bounds.load().login_timeout;
    match timeout_at(deadline, open(client, shared.settings.tls.as_deref())).await {
        Err(_) => debug!(peer, "no startup packet in time"),
        Ok(Err(Closing::Quiet(reason))) => debug!(peer, reason, "closed before startup"),
        Ok(Err(Closing::Refused(client, refusal))) => refuse(*client, &refusal, &peer).await,
        Ok(Ok(Opening::Cancel(client, request))) => {
            if let Err(error) = cancel::forward(client, &request, &shared.settings.upstream).await {
                debug!(peer, %error, "cancel request not delivered");
            }
        }
        Ok(Ok(Opening::Session(client, startup))) => session(client, startup, peer, &shared, deadline).await,
    }
}

async fn session(
    mut client: ClientStream,
    startup: StartupMessage,
    peer: String,
    shared: &Arc<Shared>,
    deadline: Instant,
) {
    let Some(_place) = Place::take(shared) else {
        let refusal = Refusal::new(Class::TooManyConnections, "too many connections to the proxy");
        return refuse(client, &refusal, &peer).await;
    };
    let ended = match timeout_at(deadline, log_in(&mut client, &startup, shared)).await {
        Ok(Ok(login)) => {
            let drain = shared.drain.clone();
            let Login { server, client_buffered, server_buffered } = login;
            let established = Established { client, server, startup, peer, client_buffered, server_buffered, drain };
            return shared.runner.run(established).await;
        }
        Ok(Err(ended)) => ended,
        Err(_) => Ended::Refused(Refusal::new(Class::LoginFailed, "the login was not finished in time")),
    };
    match ended {
        Ended::Told => {
            let _ = client.shutdown().await;
        }
        Ended::Gone => debug!(peer, "the client went away during login"),
        Ended::Refused(refusal) => refuse(client, &refusal, &peer).await,
    }
}

/// A login that succeeded.
struct Login {
    server: ServerStream,
    client_buffered: BytesMut,
    server_buffered: BytesMut,
}

/// A login that did not.
enum Ended {
    /// The server has told the client.
    Told,
    /// Nobody is there to be told.
    Gone,
    /// The proxy has to tell.
    Refused(Refusal),
}

async fn log_in(client: &mut ClientStream, startup: &StartupMessage, shared: &Shared) -> Result<Login, Ended> {
    if *shared.drain.borrow() {
        return Err(Ended::Refused(Refusal::new(Class::Stopping, "the proxy is stopping")));
    }
    let upstream = &shared.settings.upstream;
    let forwarded = match shared.runner.proving_database(startup).map_err(Ended::Refused)? {
        Some(database) => startup.for_database(&database).forwarded(),
        None => startup.forwarded(),
    };
    let connected = async {
        let mut server = upstream.connect().await?;
        server.write_all(&forwarded.packet).await?;
        server.flush().await?;
        Ok(server)
    };
    let mut server = connected.await.map_err(|error: super::upstream::UpstreamError| {
        tracing::warn!(upstream = %upstream.address, %error, "no connection to the server");
        Ended::Refused(error.refusal(&upstream.address))
    })?;
    match relay(client, &mut server, forwarded.negotiation).await {
        Ok(AuthOutcome::Authenticated { client_buffered, server_buffered }) => {
            Ok(Login { server, client_buffered, server_buffered })
        }
        Ok(AuthOutcome::Rejected) => Err(Ended::Told),
        Err(error) => Err(error.refusal().map_or(Ended::Gone, Ended::Refused)),
    }
}

/// Sends a FATAL and closes. What the client still had under way is read and dropped for a moment: closing on unread
/// bytes would reset the connection and could take the message along.
pub(super) async fn refuse(mut client: ClientStream, refusal: &Refusal, peer: &str) {
    debug!(peer, %refusal, "refused");
    let told = async {
        client.write_all(&fatal(refusal)).await?;
        client.shutdown().await?;
        let mut scrap = [0; 1024];
        while let 1.. = client.read(&mut scrap).await? {}
        Ok::<(), std::io::Error>(())
    };
    let _ = timeout(LINGER, told).await;
}
