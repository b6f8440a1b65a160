//! The way to the console: a login to the database `rowseal` is proven by the server, at another database, and then it is
//! the console that answers. No statement of such a client ever reaches the server.
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Established;
use super::connection::refuse;
use super::stream::{ClientStream, ServerStream};
use crate::refusal::{Class, Refusal};
use crate::session::machine::Peer;
use crate::wire::frame::{self, HEADER};

/// The name of the database that is none.
pub const CONSOLE: &str = "rowseal";

/// How long the server may take to say what it says behind a login.
const TOLD_MAX: Duration = Duration::from_secs(10);
/// How much that may be.
const TOLD_BYTES_MAX: usize = 64 * 1024;

/// Answers those who have proven who they are.
pub trait Console: Send + Sync + 'static {
    /// The database at which a login is proven.
    ///
    /// # Errors
    /// What the client is told when there is no console.
    fn proving_database(&self) -> Result<Arc<str>, Refusal>;

    /// Serves one client to its end.
    fn serve(&self, visitor: Visitor) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A client of the console. That it is this role has been proven; whether the role may use the console has not.
pub struct Visitor {
    /// Its connection.
    pub client: ClientStream,
    /// Bytes read from it behind the login.
    pub client_buffered: BytesMut,
    /// What the server told of itself, for the client: ParameterStatus and BackendKeyData.
    pub told: BytesMut,
    /// The role that logged in.
    pub role: String,
    /// Who it is for the audit log.
    pub peer: Peer,
    /// Becomes true when the proxy drains.
    pub drain: watch::Receiver<bool>,
}

/// Takes a connection over from the server, which is left.
pub(super) async fn take_over(mut established: Established, peer: Peer) -> Option<Visitor> {
    let told = timeout(TOLD_MAX, told(&mut established.server, &mut established.server_buffered)).await;
    // Terminate, so that the server does not report a lost connection.
    let _ = established.server.write_all(b"X\0\0\0\x04").await;
    drop(established.server);
    let lost = || Refusal::new(Class::ServerLost, "the server did not finish the login");
    let role = established.startup.user().map(|user| String::from_utf8_lossy(user).into_owned());
    match (told, role) {
        (Ok(Some(Told { is_ready: true, told })), Some(role)) => Some(Visitor {
            client: established.client,
            client_buffered: established.client_buffered,
            told,
            role,
            peer,
            drain: established.drain,
        }),
        (Ok(Some(Told { told, .. })), _) => {
            // An error of the server's, such as a role that may not connect.
            let _ = established.client.write_all(&told).await;
            let _ = established.client.shutdown().await;
            None
        }
        _ => {
            refuse(established.client, &lost(), &peer.client).await;
            None
        }
    }
}

/// What a server says behind AuthenticationOk.
struct Told {
    is_ready: bool,
    told: BytesMut,
}

/// Reads up to ReadyForQuery, or an error; `None` when the server goes or says too much.
async fn told(server: &mut ServerStream, buffered: &mut BytesMut) -> Option<Told> {
    let mut told = BytesMut::new();
    loop {
        while let Some(header) = frame::header(buffered).ok()?.filter(|header| buffered.len() >= header.total) {
            let message = buffered.split_to(header.total);
            match header.tag {
                b'Z' => return Some(Told { is_ready: true, told }),
                b'E' => return Some(Told { is_ready: false, told: message }),
                b'S' | b'K' => told.extend_from_slice(&message),
                _ => {}
            }
        }
        if told.len() + buffered.len() > TOLD_BYTES_MAX || server.read_buf(buffered).await.ok()? == 0 {
            return None;
        }
    }
}

/// The settings among what the server told.
pub fn parameters(told: &[u8]) -> Vec<(String, String)> {
    let mut rest = told;
    let mut found = Vec::new();
    while let Ok(Some(header)) = frame::header(rest)
        && let Some(message) = rest.get(..header.total)
    {
        let mut texts =
            message[HEADER..].split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
        if let (b'S', Some(name), Some(value)) = (header.tag, texts.next(), texts.next()) {
            found.push((name, value));
        }
        rest = &rest[header.total..];
    }
    found
}
