//! The byte streams of both hops: TCP, Unix socket or TLS, behind one type each.
//!
//! Enums and not trait objects: the session's hot loop reads and writes through them. The TLS variants are boxed, so
//! that a clear-text connection does not pay for their size.
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::tls::Leaf;
use crate::session::driver::ServerEnd;

/// The connection to the application.
pub enum ClientStream {
    /// Clear text over TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<ClientTls>),
}

/// A client's TLS connection with the certificate that was shown on it.
pub struct ClientTls {
    pub(super) stream: tokio_rustls::server::TlsStream<TcpStream>,
    pub(super) leaf: Arc<Leaf>,
}

/// The connection to the server.
pub enum ServerStream {
    /// Clear text over TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl ClientStream {
    /// Whether the hop is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, ClientStream::Tls(_))
    }

    /// The certificate that the proxy showed to this client.
    pub fn leaf(&self) -> Option<&Leaf> {
        match self {
            ClientStream::Tls(tls) => Some(&tls.leaf),
            ClientStream::Tcp(_) | ClientStream::Unix(_) => None,
        }
    }
}

impl ServerStream {
    /// Whether the hop is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, ServerStream::Tls(_))
    }

    /// The certificate that the server showed.
    pub fn leaf(&self) -> Option<Leaf> {
        match self {
            ServerStream::Tls(tls) => Leaf::of_peer(tls.get_ref().1),
            ServerStream::Tcp(_) | ServerStream::Unix(_) => None,
        }
    }
}

impl ServerEnd for ServerStream {
    fn close(&self) {
        let socket = match self {
            ServerStream::Tcp(stream) => SockRef::from(stream),
            ServerStream::Unix(stream) => SockRef::from(stream),
            ServerStream::Tls(tls) => SockRef::from(tls.get_ref().0),
        };
        // An error says that it is closed.
        let _ = socket.shutdown(Shutdown::Write);
    }
}

/// Passes every call on to the variant's stream.
macro_rules! delegate {
    ($stream:ident, $tls:ident => $inner:expr) => {
        impl AsyncRead for $stream {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
                    $stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
                    $stream::Tls($tls) => Pin::new($inner).poll_read(cx, buf),
                }
            }
        }

        impl AsyncWrite for $stream {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
                    $stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
                    $stream::Tls($tls) => Pin::new($inner).poll_write(cx, buf),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                    $stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                    $stream::Tls($tls) => Pin::new($inner).poll_write_vectored(cx, bufs),
                }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
                    $stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
                    $stream::Tls($tls) => Pin::new($inner).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
                    $stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
                    $stream::Tls($tls) => Pin::new($inner).poll_shutdown(cx),
                }
            }
        }
    };
}

delegate!(ClientStream, tls => &mut tls.stream);
delegate!(ServerStream, tls => tls.as_mut());
