//! The first packets of a connection and the messages the proxy makes before a session exists.
//!
//! Pure functions on bytes: no I/O and no decoding as UTF-8. Start at [`FirstPacket::parse`]. Nothing here may
//! allocate by a length that was not checked first; [`body_bytes`] is that check. Sources: PostgreSQL
//! documentation, "Message Flow: Start-up" and "Message Formats".
use bytes::{BufMut, Bytes, BytesMut};

/// The least length of a first packet, its own four bytes included.
pub const PACKET_BYTES_MIN: usize = 8;
/// The greatest length of a first packet, as in Postgres.
pub const PACKET_BYTES_MAX: usize = 10_000;
/// The greatest key of a cancel request.
pub const CANCEL_KEY_BYTES_MAX: usize = 256;
/// The packet that asks for TLS, whole.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// The newest protocol version that the proxy speaks: 3.2.
pub const PROTOCOL_NEWEST: u32 = (3 << 16) | 2;

const CODE_CANCEL: u32 = 80_877_102;
const CODE_SSL: u32 = 80_877_103;
const CODE_GSSENC: u32 = 80_877_104;
const OPTION_PREFIX: &[u8] = b"_pq_.";

/// Why a first packet is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length is outside 8..=10,000: mostly not a Postgres client at all.
    #[error("a first packet cannot be {0} bytes long")]
    Length(u32),
    /// A cancel request whose key has not 4 to 256 bytes, or another request with bytes behind it.
    #[error("the request has a wrong length")]
    RequestLength,
    /// Parameters that are not pairs of strings with an end.
    #[error("the parameters of the startup packet are not laid out as they must be")]
    Layout,
    /// A major version other than 3.
    #[error("protocol version {major}.{minor} is not supported", major = .0 >> 16, minor = .0 & 0xffff)]
    Version(u32),
}

/// The first packet of a connection, or the next one after a request was answered.
#[derive(Debug)]
pub enum FirstPacket {
    /// The client asks for TLS.
    Ssl,
    /// The client asks for GSS encryption.
    Gssenc,
    /// The client wants a statement of another connection cancelled.
    Cancel(CancelRequest),
    /// The client begins a session.
    Startup(StartupMessage),
}

impl FirstPacket {
    /// Reads one whole packet, its length included.
    ///
    /// # Errors
    /// [`StartupError`] says what is wrong; a packet is never read past its own end.
    pub fn parse(packet: Bytes) -> Result<FirstPacket, StartupError> {
        let length = word(&packet, 0).ok_or(StartupError::Length(0))?;
        if body_bytes(length)? + 4 != packet.len() {
            return Err(StartupError::Length(length));
        }
        let code = word(&packet, 4).ok_or(StartupError::Length(length))?;
        match code {
            CODE_SSL | CODE_GSSENC if packet.len() != 8 => Err(StartupError::RequestLength),
            CODE_SSL => Ok(FirstPacket::Ssl),
            CODE_GSSENC => Ok(FirstPacket::Gssenc),
            CODE_CANCEL => CancelRequest::parse(packet).map(FirstPacket::Cancel),
            version if version >> 16 == 3 => StartupMessage::parse(version, packet).map(FirstPacket::Startup),
            version => Err(StartupError::Version(version)),
        }
    }
}

/// How many bytes follow the length word of a first packet.
///
/// # Errors
/// [`StartupError::Length`] for a length outside 8..=10,000; nothing may be allocated before this check.
pub fn body_bytes(length: u32) -> Result<usize, StartupError> {
    let bytes = usize::try_from(length).map_err(|_| StartupError::Length(length))?;
    if !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&bytes) {
        return Err(StartupError::Length(length));
    }
    Ok(bytes - 4)
}

/// A cancel request: forwarded as it came, its key never looked at.
///
/// # Secrets
/// The key lets anybody cancel; `Debug` leaves it out.
pub struct CancelRequest {
    raw: Bytes,
}

impl CancelRequest {
    fn parse(packet: Bytes) -> Result<CancelRequest, StartupError> {
        let key_bytes = packet.len().checked_sub(12).ok_or(StartupError::RequestLength)?;
        if !(4..=CANCEL_KEY_BYTES_MAX).contains(&key_bytes) {
            return Err(StartupError::RequestLength);
        }
        Ok(CancelRequest { raw: packet })
    }

    /// The whole packet.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }
}

impl std::fmt::Debug for CancelRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CancelRequest")
    }
}

/// The packet that begins a session. Names and values are bytes in the client's encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupMessage {
    /// The version the client asked for: major in the upper half, minor in the lower.
    pub protocol: u32,
    /// The packet as it came, its length included.
    pub raw: Bytes,
    /// Every parameter, in order, duplicates kept.
    pub parameters: Vec<(Bytes, Bytes)>,
}

/// What goes to the server in place of the client's packet, and what the client must hear of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The packet for the server; the client's own bytes when nothing had to change.
    pub packet: Bytes,
    /// Present when something was taken away.
    pub negotiation: Option<Negotiation>,
}

/// What a NegotiateProtocolVersion message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiation {
    /// The version that will be spoken.
    pub protocol: u32,
    /// The `_pq_.` options that were not understood.
    pub dropped: Vec<Bytes>,
}

impl StartupMessage {
    fn parse(protocol: u32, raw: Bytes) -> Result<StartupMessage, StartupError> {
        let mut parameters = Vec::new();
        let mut at = 8;
        loop {
            let name = string_at(&raw, at).ok_or(StartupError::Layout)?;
            at += name.len() + 1;
            if name.is_empty() {
                break;
            }
            let value = string_at(&raw, at).ok_or(StartupError::Layout)?;
            at += value.len() + 1;
            parameters.push((name, value));
        }
        if at != raw.len() {
            return Err(StartupError::Layout);
        }
        Ok(StartupMessage { protocol, raw, parameters })
    }

    /// The last value of a parameter: Postgres lets the last one win.
    pub fn parameter(&self, name: &[u8]) -> Option<&Bytes> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The role that logs in; the server refuses a packet without one.
    pub fn user(&self) -> Option<&Bytes> {
        self.parameter(b"user").filter(|user| !user.is_empty())
    }

    /// The database: the role's name where the packet names none.
    pub fn database(&self) -> Option<&Bytes> {
        self.parameter(b"database").filter(|database| !database.is_empty()).or_else(|| self.user())
    }

    /// The settings the session begins with, in the order the server applies them (the last one wins): those of
    /// `options`, then the parameters that are settings. Names are in lower case.
    pub fn settings(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let options = self.parameter(b"options").map(|text| option_settings(text)).unwrap_or_default();
        let own = self.parameters.iter().filter(|(name, _)| is_setting(name));
        options.into_iter().chain(own.map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))).collect()
    }

    /// The same login at another database, for ordinary statements.
    #[must_use]
    pub fn for_database(&self, name: &str) -> StartupMessage {
        let other = |(key, _): &&(Bytes, Bytes)| key != "database" && key != "replication";
        let mut parameters: Vec<_> = self.parameters.iter().filter(other).cloned().collect();
        parameters.push((Bytes::from_static(b"database"), Bytes::copy_from_slice(name.as_bytes())));
        let raw = startup_packet(self.protocol, &parameters.iter().collect::<Vec<_>>());
        StartupMessage { protocol: self.protocol, raw, parameters }
    }

    /// The packet for the server: versions newer than 3.2 are asked for as 3.2, `_pq_.` options are left out, and all
    /// else stays byte for byte.
    pub fn forwarded(&self) -> Forwarded {
        let (dropped, kept): (Vec<_>, Vec<_>) =
            self.parameters.iter().partition(|(name, _)| name.starts_with(OPTION_PREFIX));
        let protocol = self.protocol.min(PROTOCOL_NEWEST);
        if protocol == self.protocol && dropped.is_empty() {
            return Forwarded { packet: self.raw.clone(), negotiation: None };
        }
        let dropped = dropped.into_iter().map(|(name, _)| name.clone()).collect();
        Forwarded { packet: startup_packet(protocol, &kept), negotiation: Some(Negotiation { protocol, dropped }) }
    }
}

impl Negotiation {
    /// Reads the body of a NegotiateProtocolVersion message.
    pub fn parse(body: &[u8]) -> Option<Negotiation> {
        let protocol = word(body, 0)?;
        let count = word(body, 4)?;
        let body = Bytes::copy_from_slice(body);
        let (mut at, mut dropped) = (8, Vec::new());
        for _ in 0..count {
            let name = string_at(&body, at)?;
            at += name.len() + 1;
            dropped.push(name);
        }
        (at == body.len()).then_some(Negotiation { protocol, dropped })
    }

    /// The message for the client.
    pub fn message(&self) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u32(self.protocol);
        body.put_u32(self.dropped.len() as u32);
        for name in &self.dropped {
            put_string(&mut body, name);
        }
        message(b'v', &body)
    }
}

/// A FATAL ErrorResponse. An empty detail or hint is left out.
pub fn fatal_error(sqlstate: &str, text: &str, detail: &str, hint: &str) -> Bytes {
    let mut body = BytesMut::new();
    let fields = [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', sqlstate), (b'M', text), (b'D', detail), (b'H', hint)];
    for (code, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        body.put_u8(code);
        put_string(&mut body, value.as_bytes());
    }
    body.put_u8(0);
    message(b'E', &body)
}

/// One message: type, length, body.
pub fn message(kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len() + 5);
    out.put_u8(kind);
    out.put_u32(body.len() as u32 + 4);
    out.put_slice(body);
    out.freeze()
}

fn startup_packet(protocol: u32, parameters: &[&(Bytes, Bytes)]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u32(protocol);
    for (name, value) in parameters {
        put_string(&mut body, name);
        put_string(&mut body, value);
    }
    body.put_u8(0);
    let mut packet = BytesMut::with_capacity(body.len() + 4);
    packet.put_u32(body.len() as u32 + 4);
    packet.put_slice(&body);
    packet.freeze()
}

/// Appends a string and its end. A NUL inside would end it early, so it is left out.
fn put_string(out: &mut BytesMut, text: &[u8]) {
    out.extend(text.iter().filter(|byte| **byte != 0));
    out.put_u8(0);
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    four.try_into().ok().map(u32::from_be_bytes)
}

fn string_at(bytes: &Bytes, at: usize) -> Option<Bytes> {
    let length = memchr::memchr(0, bytes.get(at..)?)?;
    Some(bytes.slice(at..at + length))
}

fn is_setting(name: &[u8]) -> bool {
    !matches!(name, b"user" | b"database" | b"options" | b"replication") && !name.starts_with(OPTION_PREFIX)
}

/// Cuts the text of `options` into words at white space; a backslash keeps the byte behind it (as pg_split_opts).
pub fn split_options(text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut current: Option<Vec<u8>> = None;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => words.extend(current.take()),
            b'\\' => current.get_or_insert_default().extend(bytes.next()),
            byte => current.get_or_insert_default().push(byte),
        }
    }
    words.extend(current);
    words
}

/// The settings among the words of `options`: `-c name=value`, `-cname=value` and `--name=value`.
fn option_settings(text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut words = split_options(text).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix(b"--") {
            settings.extend(setting(long));
        } else if let Some(flags) = word.strip_prefix(b"-") {
            settings.extend(flag_setting(flags, &mut words));
        }
    }
    settings
}

/// One word of one-letter flags. A flag with an argument takes the rest of the word, or the next word.
fn flag_setting(flags: &[u8], words: &mut impl Iterator<Item = Vec<u8>>) -> Option<(Vec<u8>, Vec<u8>)> {
    let at = flags.iter().position(|flag| b"BCcDdfhkNprStvW".contains(flag))?;
    let glued = flags.get(at + 1..).filter(|rest| !rest.is_empty()).map(<[u8]>::to_vec);
    let argument = match glued {
        Some(rest) => rest,
        None => words.next()?,
    };
    (flags.get(at) == Some(&b'c')).then(|| setting(&argument)).flatten()
}

fn setting(text: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let at = memchr::memchr(b'=', text)?;
    let (name, value) = (text.get(..at)?, text.get(at + 1..)?);
    let name = name.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_lowercase() });
    Some((name.collect(), value.to_vec()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(protocol: u32, parameters: &[(&str, &str)]) -> Bytes {
        let owned: Vec<_> =
            parameters.iter().map(|(n, v)| (Bytes::from(n.to_string()), Bytes::from(v.to_string()))).collect();
        startup_packet(protocol, &owned.iter().collect::<Vec<_>>())
    }

    fn startup(protocol: u32, parameters: &[(&str, &str)]) -> StartupMessage {
        match FirstPacket::parse(packet(protocol, parameters)) {
            Ok(FirstPacket::Startup(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plain_versions_pass_byte_for_byte() {
        for protocol in [0x30000, 0x30002] {
            let message = startup(protocol, &[("user", "ann"), ("user", "bob"), ("x", "\u{e9}")]);
            assert_eq!(message.forwarded(), Forwarded { packet: message.raw.clone(), negotiation: None });
            assert_eq!(message.user().unwrap().as_ref(), b"bob");
            assert_eq!(message.database().unwrap().as_ref(), b"bob");
        }
    }

    #[test]
    fn newer_versions_are_clamped_and_options_reported() {
        let message = startup(0x3270f, &[("user", "ann"), ("_pq_.test", "1"), ("database", "app")]);
        let forwarded = message.forwarded();
        assert_eq!(forwarded.packet, packet(PROTOCOL_NEWEST, &[("user", "ann"), ("database", "app")]));
        let negotiation = forwarded.negotiation.unwrap();
        let sent = negotiation.message();
        assert_eq!(sent.as_ref(), b"v\0\0\0\x16\0\x03\0\x02\0\0\0\x01_pq_.test\0");
        assert_eq!(Negotiation::parse(&sent[5..]), Some(negotiation));
    }

    #[test]
    fn wrong_packets_are_refused() {
        let cut = |bytes: &[u8]| FirstPacket::parse(Bytes::copy_from_slice(bytes)).unwrap_err();
        assert_eq!(cut(b"GET / HTTP/1.1\r\n"), StartupError::Length(0x4745_5420));
        assert_eq!(cut(&[0, 0, 0, 7, 0, 3, 0, 0]), StartupError::Length(7));
        assert_eq!(cut(&[0, 0, 0, 8, 0, 3, 0, 0]), StartupError::Layout);
        assert_eq!(cut(&[0, 0, 0, 8, 0, 2, 0, 0]), StartupError::Version(0x20000));
        assert_eq!(cut(b"\0\0\0\x0f\0\x03\0\0user\0a\0"), StartupError::Layout);
        assert_eq!(cut(b"\0\0\0\x0b\0\x03\0\0\0ab"), StartupError::Layout);
        assert_eq!(cut(&[0, 0, 0, 9, 4, 0xd2, 0x16, 0x2f, 0]), StartupError::RequestLength);
        assert_eq!(body_bytes(10_001), Err(StartupError::Length(10_001)));
    }

    #[test]
    fn cancel_keys_have_4_to_256_bytes() {
        for (key_bytes, right) in [(3, false), (4, true), (32, true), (256, true), (257, false)] {
            let mut raw = BytesMut::new();
            raw.put_u32(12 + key_bytes as u32);
            raw.put_u32(CODE_CANCEL);
            raw.put_bytes(7, 4 + key_bytes);
            assert_eq!(FirstPacket::parse(raw.freeze()).is_ok(), right, "{key_bytes}");
        }
    }

    #[test]
    fn options_are_read_with_their_escapes() {
        let options = r"-c search_path=a\ b --Tenant-id=x -cfoo=\\y -d 3 -Ec z=1 -e --broken";
        let message = startup(0x30000, &[("options", options), ("user", "u"), ("SEARCH_PATH", "last")]);
        let settings: Vec<(String, String)> = message
            .settings()
            .into_iter()
            .map(|(n, v)| (String::from_utf8(n).unwrap(), String::from_utf8(v).unwrap()))
            .collect();
        let expected =
            [("search_path", "a b"), ("tenant_id", "x"), ("foo", r"\y"), ("z", "1"), ("search_path", "last")];
        assert_eq!(settings, expected.map(|(n, v)| (n.to_string(), v.to_string())));
    }

    #[test]
    fn fatal_errors_leave_out_what_is_empty() {
        let bytes = fatal_error("08001", "no server", "", "Start it.");
        assert_eq!(&bytes[5..], b"SFATAL\0VFATAL\0C08001\0Mno server\0HStart it.\0\0");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200), code in 0usize..5) {
            let code = [0x30000, CODE_SSL, CODE_CANCEL, CODE_GSSENC, 0x3ffff][code];
            let mut raw = BytesMut::new();
            raw.put_u32(8 + body.len() as u32);
            raw.put_u32(code);
            raw.put_slice(&body);
            if let Ok(FirstPacket::Startup(message)) = FirstPacket::parse(raw.freeze()) {
                let _ = (message.settings(), message.forwarded());
            }
        }
    }
}
