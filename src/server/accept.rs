//! The client's side up to its startup packet: TLS, GSS encryption, cancel.
//!
//! Each packet is read exactly, length first, so that no byte sent in clear text is ever taken for one that came
//! through TLS (CVE-2021-23214). Whoever is not a Postgres client is left without an answer.
use std::io;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stream::ClientStream;
use super::tls::{Alpn, ListenTls};
use crate::refusal::{Class, Refusal};
use crate::wire::startup::{CancelRequest, FirstPacket, StartupError, StartupMessage, body_bytes};

/// The first byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a connection turned out to want.
pub enum Opening {
    /// A session.
    Session(ClientStream, StartupMessage),
    /// A cancel.
    Cancel(ClientStream, CancelRequest),
}

/// Why a connection ends before it was one.
pub enum Closing {
    /// Not a Postgres client, or one that went away: closed without an answer, a debug line at most.
    Quiet(String),
    /// A client that must be told.
    Refused(Box<ClientStream>, Refusal),
}

impl Closing {
    fn quiet(reason: impl ToString) -> Closing {
        Closing::Quiet(reason.to_string())
    }

    fn refused(client: ClientStream, class: Class, message: impl Into<std::borrow::Cow<'static, str>>) -> Closing {
        Closing::Refused(Box::new(client), Refusal::new(class, message))
    }
}

impl From<io::Error> for Closing {
    fn from(error: io::Error) -> Closing {
        Closing::quiet(error)
    }
}

/// What the client may still ask for; each at most once, and nothing within TLS.
#[derive(Clone, Copy)]
struct Allowed {
    tls: bool,
    gssenc: bool,
}

/// Brings a fresh connection to its startup packet or cancel request.
///
/// # Errors
/// [`Closing`] says whether the client is owed an answer.
///
/// # Cancel safety
/// Not cancel safe: dropped on a deadline, the connection is closed.
pub async fn open(client: ClientStream, tls: Option<&ListenTls>) -> Result<Opening, Closing> {
    let mut allowed = Allowed { tls: true, gssenc: true };
    let mut client = match client {
        ClientStream::Tcp(tcp) if first_byte(&tcp).await? == TLS_HANDSHAKE => {
            allowed = Allowed { tls: false, gssenc: false };
            secure(tcp, tls, Alpn::Required).await?
        }
        other => other,
    };
    loop {
        let packet = read_packet(&mut client).await?;
        match FirstPacket::parse(packet) {
            Ok(FirstPacket::Ssl) if allowed.tls => {
                client = answer_ssl(client, tls, &mut allowed).await?;
            }
            Ok(FirstPacket::Gssenc) if allowed.gssenc => {
                allowed.gssenc = false;
                client.write_all(b"N").await?;
            }
            Ok(FirstPacket::Ssl | FirstPacket::Gssenc) => {
                return Err(Closing::refused(client, Class::ProtocolViolation, "encryption was asked for twice"));
            }
            Ok(FirstPacket::Cancel(request)) => return Ok(Opening::Cancel(client, request)),
            Ok(FirstPacket::Startup(startup)) => return session(client, startup, tls),
            Err(error) => return Err(wrong_packet(client, error)),
        }
    }
}

fn session(client: ClientStream, startup: StartupMessage, tls: Option<&ListenTls>) -> Result<Opening, Closing> {
    let in_clear = matches!(client, ClientStream::Tcp(_));
    if in_clear && tls.is_some_and(ListenTls::is_required) {
        return Err(Closing::Refused(
            Box::new(client),
            Refusal::new(Class::TlsRequired, "this proxy takes connections over TLS only")
                .hint("Connect with sslmode=require or stronger."),
        ));
    }
    Ok(Opening::Session(client, startup))
}

fn wrong_packet(client: ClientStream, error: StartupError) -> Closing {
    match error {
        StartupError::Length(_) | StartupError::RequestLength => Closing::quiet(error),
        StartupError::Layout => Closing::refused(client, Class::ProtocolViolation, error.to_string()),
        StartupError::Version(_) => Closing::refused(client, Class::NotSupported, error.to_string()),
    }
}

/// S and a handshake, or N and on in clear text. A Unix socket has no TLS, as with Postgres.
async fn answer_ssl(
    client: ClientStream,
    tls: Option<&ListenTls>,
    allowed: &mut Allowed,
) -> Result<ClientStream, Closing> {
    allowed.tls = false;
    let mut tcp = match (client, tls) {
        (ClientStream::Tcp(tcp), Some(_)) => tcp,
        (mut client, _) => {
            client.write_all(b"N").await?;
            return Ok(client);
        }
    };
    if has_unread(&tcp)? {
        let message = "received unencrypted data after the request for TLS";
        return Err(Closing::refused(ClientStream::Tcp(tcp), Class::ProtocolViolation, message));
    }
    allowed.gssenc = false;
    tcp.write_all(b"S").await?;
    secure(tcp, tls, Alpn::Optional).await
}

async fn secure(tcp: TcpStream, tls: Option<&ListenTls>, alpn: Alpn) -> Result<ClientStream, Closing> {
    let tls = tls.ok_or_else(|| Closing::quiet("direct TLS, but no certificate is configured"))?;
    let stream = tls.accept(tcp, alpn).await?;
    Ok(ClientStream::Tls(Box::new(stream)))
}

/// Waits for the first byte and leaves it where it is.
async fn first_byte(tcp: &TcpStream) -> Result<u8, Closing> {
    let mut byte = [0];
    match tcp.peek(&mut byte).await? {
        0 => Err(Closing::quiet("opened and closed")),
        _ => Ok(byte[0]),
    }
}

/// Whether the client has already sent more than it was asked for. Asks the kernel, not the reactor, which may not
/// have heard of it yet.
fn has_unread(tcp: &TcpStream) -> io::Result<bool> {
    let mut space = [MaybeUninit::uninit()];
    match SockRef::from(tcp).peek(&mut space) {
        Ok(bytes) => Ok(bytes > 0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads one packet and not a byte more.
async fn read_packet(client: &mut ClientStream) -> Result<Bytes, Closing> {
    let mut length = [0; 4];
    client.read_exact(&mut length).await?;
    let body = body_bytes(u32::from_be_bytes(length)).map_err(Closing::quiet)?;
    let mut packet = BytesMut::zeroed(4 + body);
    packet[..4].copy_from_slice(&length);
    client.read_exact(&mut packet[4..]).await?;
    Ok(packet.freeze())
}
