//! The login, relayed: messages pass verbatim in both directions and no secret stays in the proxy.
//!
//! The one thing that is looked at is SCRAM with channel binding, which binds the login to the certificate the client
//! saw. [`Binding`] is the table of what can work. Start at [`relay`]; `Login` is its state, without I/O.
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroize;

use super::stream::{ClientStream, ServerStream};
use crate::refusal::{Class, Refusal};
use crate::wire::startup::{Negotiation, message};

/// The greatest message of a client during login, as in Postgres (GSS tokens).
const CLIENT_MESSAGE_BYTES_MAX: usize = 65_536;
/// The greatest message of a server during login.
const SERVER_MESSAGE_BYTES_MAX: usize = 1 << 20;
const HEADER_BYTES: usize = 5;
const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";

/// How a login ended that was not broken off.
pub enum AuthOutcome {
    /// AuthenticationOk has been forwarded; what was read beyond it is here.
    Authenticated {
        /// From the client.
        client_buffered: BytesMut,
        /// From the server.
        server_buffered: BytesMut,
    },
    /// The server said no, and the client has been told in the server's words.
    Rejected,
}

/// Why a login was broken off.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The client closed or its connection broke.
    #[error("the client went away during login")]
    ClientGone,
    /// The server closed, or its connection broke, before it said why.
    #[error("the server went away during login")]
    ServerGone,
    /// The proxy cannot let this login go on.
    #[error(transparent)]
    Refused(Refusal),
}

impl AuthError {
    /// What the client is to be told; nothing when it has gone.
    pub fn refusal(self) -> Option<Refusal> {
        match self {
            AuthError::ClientGone => None,
            AuthError::ServerGone => {
                Some(Refusal::new(Class::ServerLost, "the server closed the connection during login"))
            }
            AuthError::Refused(refusal) => Some(refusal),
        }
    }
}

/// What channel binding can do between these two hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Both hops show the same certificate, or the server hop has no TLS: nothing to do.
    Keep,
    /// The client's hop is in clear text: libpq gives up when it is offered PLUS there.
    Strip,
    /// Two certificates: only a client that does without channel binding gets in, whatever is announced.
    Broken,
}

impl Binding {
    /// Looks at the certificates of both hops.
    pub fn between(client: &ClientStream, server: &ServerStream) -> Binding {
        match (client.leaf(), server.leaf()) {
            (_, None) => Binding::Keep,
            (None, Some(_)) => Binding::Strip,
            (Some(shown), Some(seen)) if *shown == seen => Binding::Keep,
            (Some(_), Some(_)) => Binding::Broken,
        }
    }
}

/// Relays messages until AuthenticationOk has been forwarded, or an error of the server.
///
/// The startup packet has been sent. `negotiation` is what the client must be told of the packet's changes.
///
/// # Errors
/// [`AuthError`]; both connections are of no further use then, but for a last FATAL to the client.
///
/// # Cancel safety
/// Not cancel safe.
///
/// # Secrets
/// Passwords pass through the client's buffer, which is wiped behind each of them.
pub async fn relay(
    client: &mut ClientStream,
    server: &mut ServerStream,
    negotiation: Option<Negotiation>,
) -> Result<AuthOutcome, AuthError> {
    let mut login = Login::new(Binding::between(client, server), negotiation);
    let (mut from_client, mut from_server) = (BytesMut::with_capacity(1024), BytesMut::with_capacity(4096));
    loop {
        tokio::select! {
            read = server.read_buf(&mut from_server) => some(read).ok_or(AuthError::ServerGone)?,
            read = client.read_buf(&mut from_client), if from_client.len() <= CLIENT_MESSAGE_BYTES_MAX => {
                some(read).ok_or(AuthError::ClientGone)?;
            }
        }
        while let Some(frame) = cut(&mut from_server, SERVER_MESSAGE_BYTES_MAX)? {
            let (out, next) = login.server_message(frame)?;
            send(client, &out).await.map_err(|_| AuthError::ClientGone)?;
            match next {
                Next::More => {}
                Next::Rejected => return Ok(AuthOutcome::Rejected),
                Next::Authenticated => {
                    return Ok(AuthOutcome::Authenticated {
                        client_buffered: from_client,
                        server_buffered: from_server,
                    });
                }
            }
        }
        while let Some(mut frame) = login.client_message(&mut from_client)? {
            let sent = send(server, &frame).await;
            frame.as_mut().zeroize();
            // A server that closes here may have said why: its side is read first.
            drop(sent);
        }
    }
}

fn some(read: io::Result<usize>) -> Option<()> {
    read.ok().filter(|bytes| *bytes > 0).map(|_| ())
}

async fn send(to: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Takes one whole message out of a buffer, header included.
fn cut(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<BytesMut>, AuthError> {
    let Some(mut length) = buffer.get(1..HEADER_BYTES) else { return Ok(None) };
    let length = length.get_u32() as usize;
    if !(4..=bytes_max).contains(&length) {
        let message = "a message during login has an impossible length";
        return Err(AuthError::Refused(Refusal::new(Class::ProtocolViolation, message)));
    }
    Ok((buffer.len() > length).then(|| buffer.split_to(length + 1)))
}

/// What the server's last request lets the client send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// Nothing: bytes of the client stay where they are and belong to the session.
    Nothing,
    /// The choice of a SASL mechanism.
    SaslChoice,
    /// A password or the next token.
    Reply,
}

enum Next {
    More,
    Authenticated,
    Rejected,
}

/// The state of one login.
struct Login {
    binding: Binding,
    negotiation: Option<Negotiation>,
    awaited: Awaited,
    plus_announced: bool,
}

impl Login {
    fn new(binding: Binding, negotiation: Option<Negotiation>) -> Login {
        Login { binding, negotiation, awaited: Awaited::Nothing, plus_announced: false }
    }

    /// What a message of the server becomes for the client.
    fn server_message(&mut self, frame: BytesMut) -> Result<(Bytes, Next), AuthError> {
        match frame.first() {
            Some(b'E') => Ok((frame.freeze(), Next::Rejected)),
            Some(b'v') => Ok((self.merged_negotiation(frame.freeze()), Next::More)),
            Some(b'R') => self.request(frame),
            _ => Ok((frame.freeze(), Next::More)),
        }
    }

    /// An authentication message, preceded by our own negotiation where the server had nothing to negotiate.
    fn request(&mut self, frame: BytesMut) -> Result<(Bytes, Next), AuthError> {
        let Some(code) = frame.get(HEADER_BYTES..HEADER_BYTES + 4).map(|mut code| code.get_u32()) else {
            return Err(AuthError::Refused(Refusal::new(
                Class::ProtocolViolation,
                "the server sent an authentication message that is too short",
            )));
        };
        let (mut out, mut next) = (frame, Next::More);
        self.awaited = match code {
            0 => {
                next = Next::Authenticated;
                Awaited::Nothing
            }
            10 => {
                out = self.sasl(out);
                Awaited::SaslChoice
            }
            12 => Awaited::Nothing,
            _ => Awaited::Reply,
        };
        let Some(negotiation) = self.negotiation.take() else { return Ok((out.freeze(), next)) };
        let mut both = BytesMut::from(negotiation.message().as_ref());
        both.unsplit(out);
        Ok((both.freeze(), next))
    }

    /// AuthenticationSASL, without PLUS where the client could not use it.
    fn sasl(&mut self, frame: BytesMut) -> BytesMut {
        let names: Vec<&[u8]> = frame[HEADER_BYTES + 4..].split(|byte| *byte == 0).filter(|n| !n.is_empty()).collect();
        self.plus_announced = names.contains(&PLUS);
        if self.binding != Binding::Strip || !self.plus_announced {
            return frame;
        }
        let mut body = BytesMut::new();
        body.put_u32(10);
        for name in names.into_iter().filter(|name| *name != PLUS) {
            body.put_slice(name);
            body.put_u8(0);
        }
        body.put_u8(0);
        BytesMut::from(message(b'R', &body).as_ref())
    }

    /// The server's own negotiation and ours in one message: libpq takes a second one for an error.
    fn merged_negotiation(&mut self, frame: Bytes) -> Bytes {
        let Some(mut ours) = self.negotiation.take() else { return frame };
        let Some(theirs) = Negotiation::parse(&frame[HEADER_BYTES..]) else { return frame };
        ours.protocol = ours.protocol.min(theirs.protocol);
        ours.dropped.extend(theirs.dropped);
        ours.message()
    }

    /// The client's next message for the server, taken out of its buffer; none when it is not whole or its time has
    /// not come.
    fn client_message(&mut self, buffer: &mut BytesMut) -> Result<Option<BytesMut>, AuthError> {
        if self.awaited == Awaited::Nothing {
            return Ok(None);
        }
        match buffer.first() {
            None | Some(b'p') => {}
            Some(b'X') => return Err(AuthError::ClientGone),
            Some(_) => {
                let message = "expected an answer to the authentication request";
                return Err(AuthError::Refused(Refusal::new(Class::ProtocolViolation, message)));
            }
        }
        let Some(frame) = cut(buffer, CLIENT_MESSAGE_BYTES_MAX)? else { return Ok(None) };
        if self.awaited == Awaited::SaslChoice && self.binding == Binding::Broken && self.plus_announced {
            refuse_binding(&frame[HEADER_BYTES..])?;
        }
        self.awaited = Awaited::Nothing;
        Ok(Some(frame))
    }
}

/// Refuses a client that binds its login to the certificate it saw (`p=`), or that would tell the server that it saw
/// no offer to (`y`): the server would refuse both, in words that mislead. `n` may pass.
fn refuse_binding(sasl_initial: &[u8]) -> Result<(), AuthError> {
    let mechanism_end = sasl_initial.iter().position(|byte| *byte == 0).unwrap_or(sasl_initial.len());
    let flag = sasl_initial.get(mechanism_end + 5);
    if sasl_initial.get(..mechanism_end) != Some(PLUS) && flag == Some(&b'n') {
        return Ok(());
    }
    let refusal = Refusal::new(Class::TlsRequired, "channel binding cannot work through this proxy")
        .detail(
            "The proxy shows another TLS certificate than the server, and SCRAM binds the login to the certificate.",
        )
        .hint(
            "Give the proxy the server's certificate and key, or connect with channel_binding=disable, or let the \
             proxy reach the server without TLS on a trusted network.",
        );
    Err(AuthError::Refused(refusal))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const BOTH: &[u8] = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

    fn announce(binding: Binding) -> (Login, Bytes) {
        let mut login = Login::new(binding, None);
        let (out, _) = login.server_message(BytesMut::from(message(b'R', BOTH).as_ref())).unwrap();
        (login, out)
    }

    fn initial(mechanism: &str, gs2: &str) -> BytesMut {
        let mut body = BytesMut::new();
        body.put_slice(mechanism.as_bytes());
        body.put_u8(0);
        body.put_u32(gs2.len() as u32);
        body.put_slice(gs2.as_bytes());
        BytesMut::from(message(b'p', &body).as_ref())
    }

    #[test]
    fn plus_is_stripped_only_for_clients_in_clear_text() {
        assert_eq!(announce(Binding::Keep).1, message(b'R', BOTH));
        assert_eq!(announce(Binding::Broken).1, message(b'R', BOTH));
        assert_eq!(announce(Binding::Strip).1, message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"));
    }

    #[test]
    fn broken_binding_is_refused_early_unless_the_client_does_without() {
        for (mechanism, gs2, passes) in [
            ("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=x", false),
            ("SCRAM-SHA-256", "y,,n=,r=x", false),
            ("SCRAM-SHA-256", "n,,n=,r=x", true),
        ] {
            let (mut login, _) = announce(Binding::Broken);
            assert_eq!(login.client_message(&mut initial(mechanism, gs2)).is_ok(), passes, "{gs2}");
            let (mut login, _) = announce(Binding::Keep);
            assert!(login.client_message(&mut initial(mechanism, gs2)).unwrap().is_some());
        }
    }

    #[test]
    fn a_pipelined_statement_stays_in_the_buffer() {
        let mut login = Login::new(Binding::Keep, None);
        let mut buffer = BytesMut::from(message(b'Q', b"select 1\0").as_ref());
        assert!(login.client_message(&mut buffer).unwrap().is_none());
        let (_, next) = login.server_message(BytesMut::from(message(b'R', &[0; 4]).as_ref())).unwrap();
        assert!(matches!(next, Next::Authenticated));
        assert!(login.client_message(&mut buffer).unwrap().is_none());
        assert_eq!(buffer, message(b'Q', b"select 1\0"));
    }

    #[test]
    fn a_statement_in_place_of_a_password_is_refused() {
        let mut login = Login::new(Binding::Keep, None);
        login.server_message(BytesMut::from(message(b'R', &[0, 0, 0, 3]).as_ref())).unwrap();
        let mut buffer = BytesMut::from(message(b'Q', b"select 1\0").as_ref());
        assert!(matches!(login.client_message(&mut buffer), Err(AuthError::Refused(_))));
    }

    #[test]
    fn one_negotiation_reaches_the_client() {
        let ours = || Some(Negotiation { protocol: 0x30002, dropped: vec![Bytes::from_static(b"_pq_.a")] });
        let mut login = Login::new(Binding::Keep, ours());
        let ok = BytesMut::from(message(b'R', &[0; 4]).as_ref());
        let (out, _) = login.server_message(ok.clone()).unwrap();
        assert_eq!(out, [ours().unwrap().message(), message(b'R', &[0; 4])].concat());

        let mut login = Login::new(Binding::Keep, ours());
        let theirs = Negotiation { protocol: 0x30000, dropped: vec![] };
        let (out, _) = login.server_message(BytesMut::from(theirs.message().as_ref())).unwrap();
        let merged = Negotiation { protocol: 0x30000, dropped: ours().unwrap().dropped };
        assert_eq!(out, merged.message());
        assert_eq!(login.server_message(ok).unwrap().0, message(b'R', &[0; 4]));
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for header in [&b"p\0\0\0\x03"[..], b"p\xff\xff\xff\xff", b"p\0\x01\0\x01"] {
            assert!(cut(&mut BytesMut::from(header), CLIENT_MESSAGE_BYTES_MAX).is_err());
        }
        assert!(cut(&mut BytesMut::from(&b"p\0\0\0"[..]), 9).unwrap().is_none());
    }
}
