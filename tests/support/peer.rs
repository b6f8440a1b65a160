//! A client that speaks the protocol byte by byte: what it sends is exactly what a test wrote.
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any reply takes, shorter than anybody's patience.
const REPLY_TIMEOUT: Duration = Duration::from_secs(90);

/// Messages of a client, one after the other.
#[derive(Debug, Default, Clone)]
pub struct Out(pub Vec<u8>);

impl Out {
    /// Nothing yet.
    pub fn new() -> Out {
        Out::default()
    }

    /// A message with any tag and body.
    pub fn raw(mut self, tag: u8, body: &[u8]) -> Out {
        self.0.push(tag);
        self.0.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        self.0.extend_from_slice(body);
        self
    }

    /// Query.
    pub fn query(self, sql: &str) -> Out {
        self.raw(b'Q', format!("{sql}\0").as_bytes())
    }

    /// Parse without parameter types.
    pub fn parse(self, name: &str, sql: &str) -> Out {
        self.raw(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
    }

    /// Bind with parameters in text form and all results in one format.
    pub fn bind(self, portal: &str, statement: &str, params: &[Option<&str>], result: i16) -> Out {
        let mut body = format!("{portal}\0{statement}\0\0\0").into_bytes();
        body.extend_from_slice(&(params.len() as i16).to_be_bytes());
        for param in params {
            let length = param.map_or(-1, |text| text.len() as i32);
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(param.unwrap_or_default().as_bytes());
        }
        body.extend_from_slice(&1_i16.to_be_bytes());
        body.extend_from_slice(&result.to_be_bytes());
        self.raw(b'B', &body)
    }

    /// Describe of a statement (`S`) or portal (`P`).
    pub fn describe(self, kind: char, name: &str) -> Out {
        self.raw(b'D', format!("{kind}{name}\0").as_bytes())
    }

    /// Execute with a row limit, 0 for none.
    pub fn execute(self, portal: &str, rows_max: i32) -> Out {
        let mut body = format!("{portal}\0").into_bytes();
        body.extend_from_slice(&rows_max.to_be_bytes());
        self.raw(b'E', &body)
    }

    /// Parse, Bind, Describe and Execute of one statement, unnamed.
    pub fn run(self, sql: &str, params: &[Option<&str>]) -> Out {
        self.parse("", sql).bind("", "", params, 0).describe('P', "").execute("", 0)
    }

    /// Close of a statement (`S`) or portal (`P`).
    pub fn close(self, kind: char, name: &str) -> Out {
        self.raw(b'C', format!("{kind}{name}\0").as_bytes())
    }

    /// Flush.
    pub fn flush(self) -> Out {
        self.raw(b'H', b"")
    }

    /// Sync.
    pub fn sync(self) -> Out {
        self.raw(b'S', b"")
    }
}

/// A startup packet of protocol 3.0.
pub fn startup(params: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_i32.to_be_bytes().to_vec();
    for (name, value) in params {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    let mut packet = (body.len() as i32 + 4).to_be_bytes().to_vec();
    packet.extend_from_slice(&body);
    packet
}

/// A message of the server.
pub type Message = (u8, Vec<u8>);

/// The client's end of one connection, logged in as postgres.
pub struct Peer {
    stream: TcpStream,
    /// Process id and secret for a CancelRequest.
    pub key: Vec<u8>,
}

impl Peer {
    /// Only connected.
    pub fn bare(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(REPLY_TIMEOUT)).unwrap();
        Peer { stream, key: Vec::new() }
    }

    /// Logged in, everybody being trusted.
    pub fn connect(address: SocketAddr, db: &str) -> Peer {
        Peer::connect_in(address, db, usize::MAX)
    }

    /// The same with the startup packet cut into pieces.
    pub fn connect_in(address: SocketAddr, db: &str, chunk: usize) -> Peer {
        let mut peer = Peer::bare(address);
        peer.send_in(&startup(&[("user", "postgres"), ("database", db)]), chunk);
        for (tag, body) in peer.until_ready(1) {
            assert_ne!(tag, b'E', "no login: {}", String::from_utf8_lossy(&body));
            if tag == b'K' {
                peer.key = body;
            }
        }
        peer
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends bytes where the other side may have hung up already.
    pub fn send_anyway(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends bytes in pieces of `chunk`, each a write of its own.
    pub fn send_in(&mut self, bytes: &[u8], chunk: usize) {
        for piece in bytes.chunks(chunk.min(bytes.len()).max(1)) {
            self.send(piece);
            std::thread::yield_now();
        }
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The next message, or `None` at the end.
    pub fn receive(&mut self) -> Option<Message> {
        let mut header = [0; 5];
        match self.stream.read_exact(&mut header) {
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
            result => result.unwrap(),
        }
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).unwrap();
        Some((header[0], body))
    }

    /// Messages up to and including one with this tag.
    pub fn until(&mut self, tag: u8) -> Vec<Message> {
        let mut all = Vec::new();
        while all.last().is_none_or(|(last, _)| *last != tag) {
            let message = self.receive();
            all.push(message.unwrap_or_else(|| panic!("closed after {}", show(&all))));
        }
        all
    }

    /// Messages up to and including the `n`th ReadyForQuery.
    pub fn until_ready(&mut self, n: usize) -> Vec<Message> {
        (0..n).flat_map(|_| self.until(b'Z')).collect()
    }

    /// All bytes up to the end.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// One simple query and its replies.
    pub fn asked(&mut self, sql: &str) -> Vec<(char, String)> {
        self.send(&Out::new().query(sql).0);
        self.until_ready(1).into_iter().map(|(t, b)| (t as char, String::from_utf8_lossy(&b).into_owned())).collect()
    }

    /// One simple query and its replies, shown.
    pub fn ask(&mut self, sql: &str) -> String {
        self.send(&Out::new().query(sql).0);
        show(&self.until_ready(1))
    }
}

/// A CancelRequest for a connection's key.
pub fn cancel(key: &[u8]) -> Vec<u8> {
    let mut packet = (key.len() as i32 + 8).to_be_bytes().to_vec();
    packet.extend_from_slice(&80_877_102_i32.to_be_bytes());
    packet.extend_from_slice(key);
    packet
}

/// A field of an ErrorResponse or NoticeResponse.
pub fn field(body: &[u8], code: u8) -> String {
    let fields = body.split(|byte| *byte == 0);
    let text = fields.filter_map(|field| field.split_first()).find(|(first, _)| **first == code);
    text.map(|(_, text)| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}

/// Messages in a form that two servers can be compared by: errors by SQLSTATE, row descriptions without table OIDs.
pub fn show(messages: &[Message]) -> String {
    messages.iter().map(|(tag, body)| one(*tag, body)).collect::<Vec<_>>().join(" ")
}

fn one(tag: u8, body: &[u8]) -> String {
    let name = char::from(tag);
    match tag {
        b'E' | b'N' => format!("{name}({} {})", field(body, b'V'), field(body, b'C')),
        b'T' => {
            let (mut at, mut all) = (2, Vec::new());
            while at < body.len() {
                let end = at + body[at..].iter().position(|byte| *byte == 0).unwrap();
                let label = String::from_utf8_lossy(&body[at..end]);
                let rest = &body[end + 5..end + 19];
                all.push(format!("{label}:{:?}", rest));
                at = end + 19;
            }
            format!("T({})", all.join(", "))
        }
        _ if body.is_empty() => name.to_string(),
        _ => format!("{name}({})", body.escape_ascii()),
    }
}
