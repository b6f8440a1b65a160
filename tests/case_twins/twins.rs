//! Two databases with one schema, one of them sealed and behind the proxy: runs a statement on both.
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use memchr::memmem;

use super::schema;
use crate::random_sql::compare::{self, shows_cell};
use crate::support::peer::{Message, Out, Peer, field, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::Tap;

/// No statement takes longer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// In every text that is meant for a sealed column, and in hexadecimal digits.
const MARKS: &[&[u8]] = &[b"SECRET", b"534543524554", "SÉCRET".as_bytes()];

/// The servers of all, with databases that are the same.
pub struct Servers {
    sealed: Cluster,
    plain: Cluster,
    proxy: Proxy,
    _site: Site,
    tap: Tap,
    /// The last bytes that were looked at: what is looked for may stand across two looks.
    seen: Mutex<Vec<u8>>,
}

/// One of the databases on either side.
pub struct Twins<'a> {
    servers: &'a Servers,
    database: String,
    sealed_peer: Peer,
    plain_peer: Peer,
    /// Types of the sealed side that the plain one has under another number.
    types: Vec<([u8; 4], [u8; 4])>,
    binary: HashMap<(u32, String), Vec<u8>>,
}

/// What both sides said to a statement.
pub struct Answers {
    pub plain: Vec<Message>,
    pub sealed: Vec<Message>,
}

fn peer(address: SocketAddr, database: &str) -> Peer {
    let mut peer = Peer::connect(address, database);
    peer.wait_at_most(REPLY_TIMEOUT);
    peer
}

impl Servers {
    /// With so many databases: the first is filled, the others are copies of it.
    pub fn start(version: Version, databases: usize) -> Servers {
        let start = || Cluster::start_with(version, &[("max_connections", "200")]);
        let (sealed, plain) = (start(), start());
        let tap = Tap::start(sealed.host_port());
        let first = Site::with_upstream(tap.address(), &sealed, &schema::policy(1));
        [&sealed, &plain].iter().for_each(|cluster| cluster.createdb("app0"));
        first.run_ok(&["setup"]);
        schema::TENANTS.iter().for_each(|tenant| drop(first.run_ok(&["tenant", "register", tenant])));
        sealed.psql("app0", &schema::create(true));
        plain.psql("app0", &schema::create(false));
        fill(&first, &sealed, &plain);
        let policy =
            schema::policy(databases).replace("{control}", &format!("postgres://postgres@{}", sealed.host_port()));
        let text = std::fs::read_to_string(first.config()).unwrap();
        let own = text.find("[[database]]").unwrap();
        std::fs::write(first.config(), text[..own].to_owned() + &policy).unwrap();
        let copies = |cluster: &Cluster| {
            (1..databases)
                .for_each(|n| drop(cluster.psql("postgres", &format!("CREATE DATABASE app{n} TEMPLATE app0"))));
        };
        [&sealed, &plain].into_iter().for_each(copies);
        let proxy = first.serve();
        Servers { sealed, plain, proxy, _site: first, tap, seen: Mutex::default() }
    }

    /// A value of a sealed column in what the server was sent since this was asked last.
    fn leak(&self) -> Option<String> {
        let mut seen = self.seen.lock().unwrap();
        seen.extend(self.tap.take_to_server());
        let found = leak(&seen).map(|leak| format!("the server was sent {leak}"));
        let end = seen.len().saturating_sub(64);
        seen.drain(..end);
        if found.is_some() {
            seen.clear();
        }
        found
    }

    /// The same in what the server, or the proxy, has logged.
    pub fn leak_in_logs(&self) -> Option<String> {
        let (server, own) = (self.sealed.log(), self.proxy.log());
        assert!(!own.contains("panicked"), "{own}");
        leak(server.as_bytes()).or_else(|| leak(own.as_bytes())).map(|leak| format!("in a log: {leak}"))
    }
}

/// The rows, put in by the client of each side, and kept.
fn fill(site: &Site, sealed: &Cluster, plain: &Cluster) {
    let proxy = site.serve();
    let (mut sealed_peer, mut plain_peer) = (peer(proxy.address(), "app0"), peer(plain.host_port(), "app0"));
    for sql in schema::ROWS {
        let insert = [Some("BEGIN"), schema::session(sql), Some(*sql), Some("COMMIT")];
        for sql in insert.into_iter().flatten() {
            let (sealed, plain) = (sealed_peer.asked(sql), plain_peer.asked(sql));
            assert!(sealed[0].0 == 'C' && sealed == plain, "{sealed:?} {plain:?}");
        }
    }
    for cluster in [sealed, plain] {
        // Not sealed yet: its rows are the same on both sides.
        cluster.psql("app0", &format!("INSERT INTO raw VALUES (1, 'x'); {}", schema::keep()));
    }
    drop((sealed_peer, plain_peer));
    assert_eq!(proxy.stop(), 0);
    let idle = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app0'";
    [sealed, plain].into_iter().for_each(|cluster| drop(cluster.psql("postgres", idle)));
}

impl<'a> Twins<'a> {
    pub fn of(servers: &'a Servers, n: usize) -> Twins<'a> {
        let database = format!("app{n}");
        let sealed_peer = peer(servers.proxy.address(), &database);
        let plain_peer = peer(servers.plain.host_port(), &database);
        let types = types(servers, &database);
        Twins { servers, database, sealed_peer, plain_peer, types, binary: HashMap::new() }
    }

    /// Runs a statement, as these messages say, in a transaction that is rolled back, behind what it needs.
    ///
    /// # Errors
    /// With what is wrong whatever the other side says: something leaked, or a session was lost.
    pub fn run(&mut self, before: &[String], out: &Out, is_copy: bool) -> Result<Answers, String> {
        let mut steps = vec![Out::new().query("BEGIN")];
        steps.extend(before.iter().map(|sql| Out::new().query(sql)));
        let at = steps.len();
        steps.push(out.clone());
        let back = [Out::new().query("ROLLBACK"), Out::new().query("DEALLOCATE ALL")];
        let answers = |peer: &mut Peer| {
            let answers = exchange(peer, &steps, is_copy)?;
            // What stands behind a value that could not be opened would end the session, as it could not be stopped.
            exchange(peer, &back, is_copy).map(|_| answers)
        };
        let plain = answers(&mut self.plain_peer).map_err(|why| format!("plain: {why}"));
        let sealed = answers(&mut self.sealed_peer).map_err(|why| format!("sealed: {why}"));
        let leak = self.servers.leak();
        let (mut plain, mut sealed) = match (plain, sealed) {
            (Ok(plain), Ok(sealed)) => (plain, sealed),
            (plain, sealed) => {
                self.restore();
                return Err(leak.or(sealed.err()).or(plain.err()).unwrap_or_default());
            }
        };
        let ended = |replies: &[Vec<Message>]| replies[at].last().is_some_and(|(_, state)| state == b"I");
        if ended(&plain) || ended(&sealed) {
            self.restore();
        }
        let cell =
            sealed.iter().find_map(|messages| shows_cell(messages)).map(|cell| format!("a client was sent {cell}"));
        if let Some(leak) = leak.or(cell) {
            return Err(leak);
        }
        for messages in &mut sealed[..at] {
            if messages.iter().any(|(tag, _)| *tag == b'E') {
                return Err(format!("what comes before: {}", show(messages)));
            }
        }
        let mut sealed = sealed.swap_remove(at);
        self.rename_types(&mut sealed);
        Ok(Answers { plain: plain.swap_remove(at), sealed })
    }

    /// After something was committed, or a session was lost.
    fn restore(&mut self) {
        // The old sessions end first: they may hold locks.
        let servers = self.servers;
        self.sealed_peer = peer(servers.proxy.address(), &self.database);
        self.plain_peer = peer(servers.plain.host_port(), &self.database);
        for cluster in [&servers.sealed, &servers.plain] {
            cluster.psql(&self.database, &format!("SET lock_timeout = '9s'; {}", schema::restore()));
        }
    }

    fn rename_types(&self, messages: &mut [Message]) {
        for (_, body) in messages.iter_mut().filter(|(tag, _)| matches!(tag, b'T' | b'D' | b't')) {
            for (sealed, plain) in &self.types {
                let found: Vec<usize> = memmem::find_iter(body, sealed).collect();
                found.into_iter().for_each(|at| body[at..at + 4].copy_from_slice(plain));
            }
        }
    }

    /// The types that the plain server finds for the parameters of a statement, or `None` if it is not one.
    pub fn param_types(&mut self, sql: &str) -> Option<Vec<u32>> {
        self.plain_peer.send(&Out::new().parse("", sql).describe('S', "").sync().0);
        let replies = self.plain_peer.until_ready(1);
        let (_, body) = replies.iter().find(|(tag, _)| *tag == b't')?;
        Some(body[2..].chunks(4).map(|oid| u32::from_be_bytes(oid.try_into().unwrap())).collect())
    }

    /// The binary form of a value, as the server itself gives it; `None` if it is no value of the type.
    pub fn binary(&mut self, oid: u32, text: &str) -> Option<Vec<u8>> {
        if let Some(bytes) = self.binary.get(&(oid, text.to_owned())) {
            return Some(bytes.clone());
        }
        let out = Out::new().parse_as("", "SELECT $1", &[oid]).bind("", "", &[Some(text)], 1).execute("", 0).sync();
        self.plain_peer.send(&out.0);
        let replies = self.plain_peer.until_ready(1);
        let (_, row) = replies.iter().find(|(tag, _)| *tag == b'D')?;
        self.binary.insert((oid, text.to_owned()), row[6..].to_vec());
        Some(row[6..].to_vec())
    }
}

/// The SQLSTATE of the first error.
pub fn state(messages: &[Message]) -> Option<String> {
    messages.iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| field(body, b'C'))
}

/// A value of a sealed column in bytes.
fn leak(bytes: &[u8]) -> Option<String> {
    let mark = MARKS.iter().find_map(|mark| memmem::find(bytes, mark));
    let place = mark.or_else(|| compare::needles().iter().find_map(|needle| compare::find(bytes, needle)))?;
    Some(bytes[place.saturating_sub(150)..(place + 60).min(bytes.len())].escape_ascii().to_string())
}

/// The replies to each step. All steps are sent at once, but for a COPY, which takes what comes after it for rows.
fn exchange(peer: &mut Peer, steps: &[Out], is_copy: bool) -> Result<Vec<Vec<Message>>, String> {
    let bytes: Vec<u8> = steps.iter().flat_map(|out| out.0.clone()).collect();
    if !is_copy {
        peer.send_anyway(&bytes);
    }
    let mut all = Vec::new();
    for out in steps {
        if is_copy {
            peer.send_anyway(&out.0);
        }
        let mut replies = Vec::new();
        while replies.last().is_none_or(|(tag, _)| *tag != b'Z') {
            match peer.try_receive() {
                // Of a COPY that failed before it took the Sync for rows there are two of these.
                Ok(Some((b'Z', _))) if is_copy && replies.is_empty() => {}
                Ok(Some(message)) => replies.push(message),
                Ok(None) => return Err(format!("closed after {}", show(&replies))),
                Err(error) => return Err(format!("{error} after {}", show(&replies))),
            }
            if replies.last().is_some_and(|(tag, _)| *tag == b'G') {
                let is_simple = out.0.first() == Some(&b'Q');
                let done = Out::new().raw(b'c', b"");
                peer.send_anyway(&if is_simple { done } else { done.sync() }.0);
            }
        }
        all.push(replies);
    }
    Ok(all)
}

/// Types that are made with the tables, by name, with their numbers on either side.
fn types(servers: &Servers, database: &str) -> Vec<([u8; 4], [u8; 4])> {
    let of = |cluster: &Cluster| -> HashMap<String, u32> {
        let sql = "SELECT t.typname, t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace \
                   WHERE t.oid >= 16384 AND n.nspname = 'public'";
        let told = cluster.psql(database, sql);
        told.lines()
            .filter_map(|line| line.split_once('|'))
            .map(|(n, oid)| (n.to_owned(), oid.parse().unwrap()))
            .collect()
    };
    let plain = of(&servers.plain);
    let pairs = of(&servers.sealed).into_iter().filter_map(|(name, oid)| Some((oid, *plain.get(&name)?)));
    pairs.map(|(sealed, plain)| (sealed.to_be_bytes(), plain.to_be_bytes())).collect()
}
