//! The outside of the proxy: listener and workers, TLS, the way to the server, the login, cancel, drain.
//!
//! Owns every socket until a session is established, then hands both to a [`SessionRunner`]. It never looks at a
//! statement. rustls has its only home here ([`tls`]). Reading order: [`listener`] (who runs where), [`accept`] (the
//! client's first packets), [`upstream`] (the hop to the server), [`auth`] (the login), [`cancel`]. What may change while it runs is in [`bounds`]. [`console`] is the way to the console, [`live`] the list of sessions.
//! The proxy's own connections, to the registry, are [`control`]; `witness` keeps checkpoints of the audit log there.
pub mod accept;
mod affinity;
pub mod auth;
pub mod bounds;
pub mod cancel;
mod connection;
pub mod console;
pub mod control;
pub mod database;
pub mod listener;
pub mod live;
pub mod runner;
pub mod stream;
pub mod tls;
pub mod upstream;
mod witness;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use crate::refusal::Refusal;
use crate::wire::startup::{StartupMessage, fatal_error};

pub use bounds::SessionBounds;
pub use control::ControlTls;
pub use listener::{ListenAddress, ServeError, Server, ServerHandle, ServerSettings, serve};
pub use stream::{ClientStream, ServerStream};
pub use tls::{ListenTls, UpstreamTls};
pub use upstream::{Upstream, UpstreamAddress};

/// A connection whose login succeeded: AuthenticationOk has been forwarded to the client.
///
/// What the server sends next (ParameterStatus, BackendKeyData, ReadyForQuery) is still to be read; its beginning may
/// already be in `server_buffered`.
pub struct Established {
    /// The application's side.
    pub client: ClientStream,
    /// The server's side.
    pub server: ServerStream,
    /// What the session began with.
    pub startup: StartupMessage,
    /// Where the client is, for logs and the audit: an address and port, or `unix`.
    pub peer: String,
    /// Bytes read from the client behind the login, to be treated before anything read later.
    pub client_buffered: BytesMut,
    /// Bytes read from the server behind AuthenticationOk.
    pub server_buffered: BytesMut,
    /// Becomes true when the proxy drains: end the session at its next idle moment.
    pub drain: watch::Receiver<bool>,
}

/// What runs a session once it is established; the session module implements it.
pub trait SessionRunner: Send + Sync + 'static {
    /// The database at which the login is proven, where that is not the one that the client named.
    ///
    /// # Errors
    /// What the client is told instead of being asked for a password.
    fn proving_database(&self, _startup: &StartupMessage) -> Result<Option<Arc<str>>, Refusal> {
        Ok(None)
    }

    /// Runs one session to its end. The future stays on the worker thread that accepted the connection.
    fn run(&self, established: Established) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A refusal as a FATAL message.
pub fn fatal(refusal: &Refusal) -> Bytes {
    fatal_error(refusal.class.sqlstate(), &refusal.message, &refusal.detail, &refusal.hint)
}
