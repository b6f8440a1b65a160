//! The hop to the server: TCP or a Unix socket, TLS as configured.
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::stream::ServerStream;
use super::tls::{self, UpstreamTls, UpstreamTlsConfig};
pub use crate::config::UpstreamAddress;
use crate::refusal::{Class, Refusal};
use crate::wire::startup::SSL_REQUEST;

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamAddress::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            UpstreamAddress::Tcp { host, port } => write!(f, "{host}:{port}"),
            UpstreamAddress::Unix { directory, port } => write!(f, "{}", socket_path(directory, *port).display()),
        }
    }
}

/// How a server is reached.
#[derive(Clone)]
pub struct Upstream {
    /// Where it is.
    pub address: UpstreamAddress,
    /// How the hop is protected; a Unix socket never has TLS.
    pub tls: UpstreamTls,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
}

/// Why there is no connection to the server.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Connecting, writing or the handshake failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The server has no TLS and the configuration demands it.
    #[error("the server does not offer TLS, which this proxy is configured to require")]
    TlsRefused,
    /// The server answered the request for TLS with an error message.
    #[error("the server answered the request for TLS with an error")]
    TlsAnsweredWithError,
    /// The server closed the connection instead of answering.
    #[error("the server closed the connection when asked for TLS")]
    TlsClosed,
    /// One byte that is neither S, N nor E.
    #[error("the server answered the request for TLS with something that is not Postgres")]
    TlsNonsense,
    /// The TLS handshake failed.
    #[error("the TLS handshake with the server failed: {0}")]
    Handshake(io::Error),
}

impl UpstreamError {
    /// What a client hears: 08001, naming the upstream.
    pub fn refusal(&self, address: &UpstreamAddress) -> Refusal {
        let message = format!("could not connect to the server at {address}");
        Refusal::new(Class::ServerUnreachable, message).detail(format!("The reason: {self}."))
    }
}

impl Upstream {
    /// Connects, with TLS as configured. Nothing of a session has been sent yet.
    ///
    /// # Errors
    /// [`UpstreamError`]; never waits longer than `connect_timeout`.
    pub async fn connect(&self) -> Result<ServerStream, UpstreamError> {
        match tokio::time::timeout(self.connect_timeout, self.connect_unbounded()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(UpstreamError::Timeout(self.connect_timeout)),
        }
    }

    async fn connect_unbounded(&self) -> Result<ServerStream, UpstreamError> {
        match &self.address {
            UpstreamAddress::Tcp { host, port } => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await?;
                tune(&tcp)?;
                self.protect(tcp, host).await
            }
            UpstreamAddress::Unix { directory, port } => {
                Ok(ServerStream::Unix(UnixStream::connect(socket_path(directory, *port)).await?))
            }
        }
    }

    async fn protect(&self, mut tcp: TcpStream, host: &str) -> Result<ServerStream, UpstreamError> {
        match &self.tls {
            UpstreamTls::Disable => Ok(ServerStream::Tcp(tcp)),
            UpstreamTls::Prefer(config) => match ask_for_tls(&mut tcp).await? {
                Offer::Tls => handshake(config, host, tcp).await,
                Offer::Clear => Ok(ServerStream::Tcp(tcp)),
            },
            UpstreamTls::Require(config) => match ask_for_tls(&mut tcp).await? {
                Offer::Tls => handshake(config, host, tcp).await,
                Offer::Clear => Err(UpstreamError::TlsRefused),
            },
        }
    }
}

enum Offer {
    Tls,
    Clear,
}

/// Reads exactly one byte of answer, so that nothing sent in clear text can be taken for what TLS protects.
async fn ask_for_tls(tcp: &mut TcpStream) -> Result<Offer, UpstreamError> {
    tcp.write_all(&SSL_REQUEST).await?;
    let mut answer = [0];
    match tcp.read(&mut answer).await? {
        0 => Err(UpstreamError::TlsClosed),
        _ => match answer {
            [b'S'] => Ok(Offer::Tls),
            [b'N'] => Ok(Offer::Clear),
            // What follows is not authenticated: it is not shown to anybody (CVE-2024-10977).
            [b'E'] => Err(UpstreamError::TlsAnsweredWithError),
            _ => Err(UpstreamError::TlsNonsense),
        },
    }
}

async fn handshake(config: &UpstreamTlsConfig, host: &str, tcp: TcpStream) -> Result<ServerStream, UpstreamError> {
    tls::connect(config, host, tcp).await.map_err(UpstreamError::Handshake)
}

/// TCP_NODELAY, and keepalive so that a peer that vanished is noticed within minutes.
pub(super) fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

fn socket_path(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!(".s.PGSQL.{port}"))
}
