//! Two databases with one schema, one of them sealed and behind the proxy: runs a statement on both.
use std::collections::HashMap;
use std::net::SocketAddr;
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

pub struct Twins {
    sealed: Cluster,
    plain: Cluster,
    proxy: Proxy,
    _site: Site,
    tap: Tap,
    sealed_peer: Peer,
    plain_peer: Peer,
    /// Types of the sealed side that the plain one has under another number.
    types: Vec<([u8; 4], [u8; 4])>,
    binary: HashMap<(u32, String), Vec<u8>>,
    log_read: usize,
}

/// What both sides said to a statement.
pub struct Answers {
    pub plain: Vec<Message>,
    pub sealed: Vec<Message>,
}

fn peer(address: SocketAddr) -> Peer {
    let mut peer = Peer::connect(address, "app");
    peer.wait_at_most(REPLY_TIMEOUT);
    peer
}

impl Twins {
    pub fn start(version: Version) -> Twins {
        let (sealed, plain) = (Cluster::start(version), Cluster::start(version));
        let tap = Tap::start(sealed.host_port());
        let site = Site::with_upstream(tap.address(), &sealed, schema::POLICY);
        sealed.createdb("app");
        plain.createdb("app");
        site.run_ok(&["setup"]);
        schema::TENANTS.iter().for_each(|tenant| drop(site.run_ok(&["tenant", "register", tenant])));
        sealed.psql("app", &schema::create(true));
        plain.psql("app", &schema::create(false));
        let proxy = site.serve();
        let (mut sealed_peer, mut plain_peer) = (peer(proxy.address()), peer(plain.host_port()));
        for sql in schema::ROWS {
            let insert = [Some("BEGIN"), schema::session(sql), Some(*sql), Some("COMMIT")];
            for sql in insert.into_iter().flatten() {
                let (sealed, plain) = (sealed_peer.asked(sql), plain_peer.asked(sql));
                assert!(sealed[0].0 == 'C' && sealed == plain, "{sealed:?} {plain:?}");
            }
        }
        [&sealed, &plain].into_iter().for_each(|cluster| drop(cluster.psql("app", &schema::keep())));
        // Not sealed yet: its rows are the same on both sides.
        [&sealed, &plain].into_iter().for_each(|cluster| drop(cluster.psql("app", "INSERT INTO raw VALUES (1, 'x')")));
        let types = types(&sealed, &plain);
        let (binary, log_read) = (HashMap::new(), 0);
        Twins { sealed, plain, proxy, _site: site, tap, sealed_peer, plain_peer, types, binary, log_read }
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
        let back = [Out::new().query("ROLLBACK")];
        let answers = |peer: &mut Peer| {
            let answers = exchange(peer, &steps, is_copy)?;
            // What stands behind a value that could not be opened would end the session, as it could not be stopped.
            exchange(peer, &back, is_copy).map(|_| answers)
        };
        let plain = answers(&mut self.plain_peer).map_err(|why| format!("plain: {why}"));
        let sealed = answers(&mut self.sealed_peer).map_err(|why| format!("sealed: {why}"));
        let leak = leak(&self.tap.take_to_server()).map(|leak| format!("the server was sent {leak}"));
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
        let cell = sealed.iter().find_map(|messages| shows_cell(messages)).map(|cell| format!("a client was sent {cell}"));
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
        (self.sealed_peer, self.plain_peer) = (peer(self.proxy.address()), peer(self.plain.host_port()));
        for cluster in [&self.sealed, &self.plain] {
            cluster.psql("app", &format!("SET lock_timeout = '9s'; {}", schema::restore()));
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

    /// A value of a sealed column in what the server, or the proxy, has logged since this was asked last.
    pub fn leak_in_logs(&mut self) -> Option<String> {
        let (server, own) = (self.sealed.log(), self.proxy.log());
        let from = std::mem::replace(&mut self.log_read, server.len());
        assert!(!own.contains("panicked"), "{own}");
        leak(&server.as_bytes()[from..]).or_else(|| leak(own.as_bytes())).map(|leak| format!("in a log: {leak}"))
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
fn types(sealed: &Cluster, plain: &Cluster) -> Vec<([u8; 4], [u8; 4])> {
    let of = |cluster: &Cluster| -> HashMap<String, u32> {
        let sql = "SELECT t.typname, t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace \
                   WHERE t.oid >= 16384 AND n.nspname = 'public'";
        let told = cluster.psql("app", sql);
        told.lines().filter_map(|line| line.split_once('|')).map(|(n, oid)| (n.to_owned(), oid.parse().unwrap())).collect()
    };
    let plain = of(plain);
    let pairs = of(sealed).into_iter().filter_map(|(name, oid)| Some((oid, *plain.get(&name)?)));
    pairs.map(|(sealed, plain)| (sealed.to_be_bytes(), plain.to_be_bytes())).collect()
}
