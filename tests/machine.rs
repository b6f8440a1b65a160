//! The session's machine alone, fed bytes: whatever comes from either side, it does not panic, and what a client means
//! for a sealed column does not come out towards the server (T5). Its parts are real (schema, keys, audit log); only
//! the sockets are played.
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestRunner};
use rowseal::audit::Audit;
use rowseal::keys::kms::local::LocalKms;
use rowseal::keys::registry::Registry;
use rowseal::keys::{Keys, KeysSettings};
use rowseal::server::database::{Bounds, Database};
use rowseal::session::machine::{Fatal, Machine, Peer, Shared};
use rowseal::session::work::{Side, Work, WorkId};

use crate::support::peer::Out;
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;
use crate::support::tap::contains;
use crate::wire::POLICY;

/// Stands wherever a client writes what is to be sealed.
const CANARY: &str = "canary-5d1e";

struct Parts {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Runtime,
    _database: Arc<Database>,
    _site: Site,
    _cluster: Cluster,
}

fn parts() -> Parts {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let site = Site::new(&cluster, POLICY);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1"]);
    cluster.psql(
        "app",
        "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, age rowseal.int4, \
         code rowseal.varchar, amount rowseal.numeric, note text); CREATE TABLE notes (id int8, body text)",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let settings = rowseal::config::load(&site.config()).unwrap();
    let control = format!("postgres://postgres@{}/app", cluster.host_port());
    let database = runtime.block_on(async {
        let registry = Arc::new(Registry::connect(&control).await.unwrap());
        let kms = Arc::new(LocalKms::open(site.path().join("keyring.toml")).unwrap());
        let keys = Arc::new(Keys::new(registry.clone(), kms, KeysSettings::default()));
        let audit = Arc::new(Audit::open(&settings.audit.directory, settings.audit.durability).unwrap());
        let bounds = Bounds { auto_register: None, message_bytes_max: 1 << 20, plan_bytes_max: 1 << 20 };
        Database::open(settings.databases[0].clone(), registry, keys, audit, bounds).await.unwrap()
    });
    Parts { shared: database.shared.clone(), runtime, _database: database, _site: site, _cluster: cluster }
}

/// One machine with both its ends played.
struct Play<'a> {
    parts: &'a Parts,
    machine: Machine,
    client_in: BytesMut,
    server_in: BytesMut,
    /// Everything that was to go to the server.
    sent: Vec<u8>,
    /// What of it the played server has read.
    read: usize,
    server: Server,
}

impl<'a> Play<'a> {
    fn new(parts: &'a Parts, faults: Vec<u8>) -> Play<'a> {
        let peer = Peer { client: "test".into(), application: "test".into(), session: 1 };
        let machine = Machine::new(parts.shared.clone(), peer);
        let server_in = BytesMut::from(&b"Z\0\0\0\x05I"[..]);
        let roles = parts.shared.roles.load().to_string();
        let server = Server { faults, at: 0, question: None, skipping: false, roles };
        Play { parts, machine, client_in: BytesMut::new(), server_in, sent: Vec::new(), read: 0, server }
    }

    /// Lets both directions and the work go on until nothing moves. False once the session has ended.
    fn settle(&mut self) -> bool {
        for _ in 0..2000 {
            let before = (self.client_in.len(), self.server_in.len(), self.sent.len());
            if !self.pass() {
                return false;
            }
            let Some(worked) = self.work() else { return false };
            if !worked && before == (self.client_in.len(), self.server_in.len(), self.sent.len()) {
                return true;
            }
        }
        true
    }

    /// Lets both directions go on. False once the session has ended.
    fn pass(&mut self) -> bool {
        if self.machine.on_server(&mut self.server_in).is_err() || self.machine.on_client(&mut self.client_in).is_err()
        {
            return false;
        }
        self.machine.to_client.clear();
        let out = self.machine.to_server.split();
        self.sent.extend_from_slice(&out);
        let (replies, read) = self.server.reply(&self.sent[self.read..]);
        self.read += read;
        self.server_in.extend_from_slice(&replies);
        true
    }

    /// Does the machine's work; `None` once the session has ended.
    fn work(&mut self) -> Option<bool> {
        let mut worked = false;
        for side in [Side::Client, Side::Server] {
            let Some((id, work)) = self.machine.take_work(side) else { continue };
            self.answer(id, work).ok()?;
            worked = true;
        }
        Some(worked)
    }

    fn answer(&mut self, id: WorkId, work: Work) -> Result<(), Fatal> {
        match work {
            Work::Reload => self.machine.on_reloaded(id, Ok(())),
            Work::Grant(need) => {
                let granted = self.parts.runtime.block_on(self.parts.shared.keys.grant(need));
                let refusal = rowseal::refusal::Refusal::damaged();
                self.machine.on_granted(id, granted.map_err(|_| refusal))
            }
        }
    }
}

/// A server that answers in the right order, and goes wrong where `faults` says so.
struct Server {
    faults: Vec<u8>,
    at: usize,
    /// The text of the proxy's own statement under way.
    question: Option<String>,
    skipping: bool,
    /// Its roles, as the proxy has seen them.
    roles: String,
}

impl Server {
    fn fault(&mut self) -> u8 {
        self.at += 1;
        self.faults.get(self.at % self.faults.len().max(1)).copied().unwrap_or(0)
    }

    /// Answers the whole messages at the start of `bytes`; second: how long they are.
    fn reply(&mut self, bytes: &[u8]) -> (Vec<u8>, usize) {
        let (mut out, mut read) = (Out::new(), 0);
        while let [tag, a, b, c, d, rest @ ..] = &bytes[read..] {
            let length = (u32::from_be_bytes([*a, *b, *c, *d]) as usize).saturating_sub(4);
            let Some(body) = rest.get(..length) else { break };
            read += 5 + length;
            out = self.one(*tag, body, out);
        }
        (out.0, read)
    }

    fn one(&mut self, tag: u8, body: &[u8], out: Out) -> Out {
        if self.skipping && tag != b'S' {
            return out;
        }
        if tag == b'P' {
            let text = String::from_utf8_lossy(body).into_owned();
            self.question = text.starts_with("rowseal_internal_").then_some(text);
        }
        let fault = self.fault();
        let error = b"SERROR\0VERROR\0C22012\0Mwrong\0\0";
        match (tag, fault) {
            (b'P' | b'B' | b'E' | b'D' | b'C', 1..=12) => {
                self.skipping = true;
                out.raw(b'E', error)
            }
            (b'Q', 1..=12) => out.raw(b'E', error).raw(b'Z', b"E"),
            (_, 13..=15) => out.raw(b'N', error),
            (_, 16) => out.raw(b'?', b"what"),
            (_, 17) => out.raw(b'T', b"\0\x05short"),
            (b'P', _) => out.raw(b'1', b""),
            (b'B', _) => out.raw(b'2', b""),
            (b'C', _) => out.raw(b'3', b""),
            (b'D', _) if body.first() == Some(&b'S') => out.raw(b't', b"\0\0").raw(b'n', b""),
            (b'D', _) => out.raw(b'n', b""),
            (b'E', _) => self.execute(out, fault),
            (b'S', _) => {
                self.skipping = false;
                out.raw(b'Z', if fault.is_multiple_of(4) { b"T" } else { b"I" })
            }
            (b'Q', _) if body.starts_with(b"SELECT rowseal.refuse") => out.raw(b'E', error).raw(b'Z', b"I"),
            (b'Q', _) => out.raw(b'C', b"SELECT 0\0").raw(b'Z', b"I"),
            _ => out,
        }
    }

    fn execute(&mut self, out: Out, fault: u8) -> Out {
        let row = |values: &[&str]| {
            let mut row = (values.len() as u16).to_be_bytes().to_vec();
            for value in values {
                row.extend_from_slice(&(value.len() as u32).to_be_bytes());
                row.extend_from_slice(value.as_bytes());
            }
            row
        };
        let question = self.question.take().unwrap_or_default();
        if question.contains("json_build_object") {
            let encoding = if fault == 18 { "LATIN1" } else { "UTF8" };
            let facts = format!(
                "{{\"path\": [\"pg_catalog\", \"public\"], \"login\": \"a\", \"role\": \"a\", \"tenant\": null, \
                 \"date_style\": \"ISO, MDY\", \"time_zone\": \"UTC\", \"bytea_output\": \"hex\", \
                 \"interval_style\": \"postgres\", \"float_digits\": \"1\", \"encoding\": \"{encoding}\", \
                 \"conforming\": \"on\", \"member\": [], \"roles\": \"{}\"}}",
                self.roles
            );
            let hex: String = facts.bytes().map(|byte| format!("{byte:02x}")).collect();
            return out.raw(b'D', &row(&[&hex])).raw(b'C', b"SELECT 1\0");
        }
        if question.contains("FOR UPDATE") {
            return out.raw(b'D', &row(&["16400", "(0,1)", "1"])).raw(b'C', b"SELECT 1\0");
        }
        if question.contains("rowseal.refuse") {
            self.skipping = true;
            return out.raw(b'E', b"SERROR\0VERROR\0C0A000\0Mno\0\0");
        }
        out.raw(b'C', if fault.is_multiple_of(2) { b"SELECT 0\0" } else { b"INSERT 1\0" })
    }
}

/// What a client that means well does: the canary stands only where a value for a sealed column stands.
fn meant(n: u8, out: Out) -> Out {
    let (insert, update) = (
        "INSERT INTO users (id, account_id, email) VALUES ($1, $2, $3)",
        "UPDATE users SET email = $3 WHERE id = $1 AND account_id = $2",
    );
    let values = [Some("1"), Some("1"), Some(CANARY)];
    let name = if n.is_multiple_of(2) { "" } else { "s" };
    match n % 27 {
        0 | 1 => out.parse(name, insert),
        2 | 3 => out.parse(name, update),
        4 | 5 => out.parse(name, "INSERT INTO users (id, account_id, email, nothing) VALUES ($1, $2, $3, 1)"),
        6..=9 => out.bind("", name, &values, 0),
        10 => out.execute("", 0),
        11 => out.describe('S', name),
        12 => out.close('S', name),
        13 => out.query(&insert.replace("$3", &format!("'{CANARY}'")).replace("$1", "1").replace("$2", "1")),
        14 => out.query(&format!("UPDATE users SET email = '{CANARY}', note = 'n' WHERE id > 3")),
        15 => out.query(&format!("SELECT 1; SELECT id FROM users WHERE account_id = 1 AND email = '{CANARY}'")),
        16 => out.query(&format!("SELECT id FROM users WHERE email LIKE '{CANARY}'")),
        17 => out.query(&format!("this is not SQL about users, {CANARY}")),
        18 => out.query(&format!("EXECUTE s(1, 1, '{CANARY}') /* users */")),
        19 => out.query("SELECT 1"),
        20 => out.query("SET search_path = elsewhere"),
        21 => out.flush(),
        22 => out.query("CREATE TABLE other (id int8)"),
        23 => out.parse("d", "ALTER TABLE other ADD COLUMN more int8").bind("", "d", &[], 0).execute("", 0),
        24 => out.query("BEGIN"),
        25 => out.query("ROLLBACK"),
        _ => out.sync(),
    }
}

fn runner(seed: u64, file: &'static str) -> TestRunner {
    let base = Config::default();
    assert!(Path::new("tests/data").is_dir());
    TestRunner::new(Config {
        rng_seed: if base.rng_seed == RngSeed::Random { RngSeed::Fixed(seed) } else { base.rng_seed },
        cases: if std::env::var("PROPTEST_CASES").is_ok() { base.cases } else { 1500 },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..base
    })
}

/// As long as a run may take on a slow machine.
const RUN: Duration = Duration::from_secs(10);

#[test]
fn what_is_meant_for_a_sealed_column_never_goes_to_the_server() {
    let parts = parts();
    let start = Instant::now();
    let acts = prop::collection::vec(any::<u8>(), 1..30);
    let faults = prop::collection::vec(prop_oneof![3 => 20..255_u8, 1 => 0..20_u8], 1..40);
    let pieces = prop::collection::vec(1..200_usize, 1..8);
    let mut runner = runner(1, "tests/data/machine_meant.seeds");
    let outcome = runner.run(&(acts, faults, pieces), |(acts, faults, pieces)| {
        if start.elapsed() > RUN {
            return Ok(());
        }
        let mut play = Play::new(&parts, faults);
        // Both names are prepared over the sealed table, with success or without.
        let bytes = acts.iter().fold(meant(1, meant(0, Out::new())), |out, n| meant(*n, out)).0;
        let mut rest = &bytes[..];
        for length in pieces.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*length));
            rest = after;
            play.client_in.extend_from_slice(piece);
            let goes_on = play.settle();
            let end = &play.sent[play.sent.len().saturating_sub(400)..];
            prop_assert!(!contains(&play.sent, CANARY.as_bytes()), "sent at last: {}", end.escape_ascii());
            if rest.is_empty() || !goes_on {
                break;
            }
        }
        Ok(())
    });
    outcome.unwrap();
}

/// Bytes of a valid stream with some changed, left out, doubled; or noise.
fn mangled(valid: &[u8], changes: &[(u16, u8, u8)]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for (at, kind, byte) in changes {
        let at = usize::from(*at) % bytes.len().max(1);
        match kind % 4 {
            0 if !bytes.is_empty() => bytes[at] = *byte,
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 => bytes.insert(at, *byte),
            _ => {
                let end = (at + usize::from(*byte)).min(bytes.len());
                let twice = bytes[at..end].to_vec();
                bytes.splice(at..at, twice);
            }
        }
        bytes.truncate(64 * 1024);
    }
    bytes
}

#[test]
fn no_bytes_of_either_side_make_it_panic() {
    let parts = parts();
    let start = Instant::now();
    let changes = || prop::collection::vec((any::<u16>(), any::<u8>(), any::<u8>()), 0..12);
    let acts = prop::collection::vec(any::<u8>(), 1..20);
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let mut runner = runner(2, "tests/data/machine_bytes.seeds");
    let outcome = runner.run(&(acts, changes(), changes(), noise), |(acts, client, server, noise)| {
        if start.elapsed() > RUN {
            return Ok(());
        }
        let mut play = Play::new(&parts, Vec::new());
        let valid = acts.iter().fold(Out::new(), |out, n| meant(*n, out)).0;
        let from_client = [&mangled(&valid, &client)[..], &noise].concat();
        for piece in from_client.chunks(97) {
            play.client_in.extend_from_slice(piece);
            // The replies to come are mangled too.
            let replies = mangled(&play.server_in, &server);
            play.server_in = BytesMut::from(&replies[..]);
            if !play.settle() {
                return Ok(());
            }
        }
        play.server_in.extend_from_slice(&noise);
        play.settle();
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn keys_that_come_late_are_not_for_the_next_message() {
    let parts = parts();
    let mut play = Play::new(&parts, Vec::new());
    play.client_in.extend_from_slice(
        &Out::new().parse("s", "SELECT id FROM users WHERE account_id = $1 AND email = $2").sync().0,
    );
    assert!(play.settle());
    // What comes before the message that waits for keys fails.
    let search = Out::new().parse("", "SELECT 1 / 0").bind("", "s", &[Some("1"), Some(CANARY)], 0).execute("", 0);
    play.client_in.extend_from_slice(&search.0);
    play.machine.on_client(&mut play.client_in).unwrap();
    let (first, first_work) = play.machine.take_work(Side::Client).unwrap();
    assert!(matches!(first_work, Work::Grant(_)) && play.machine.is_held());
    let mut error = BytesMut::from(&Out::new().raw(b'E', b"SERROR\0VERROR\0C22012\0Mwrong\0\0").0[..]);
    play.machine.on_server(&mut error).unwrap();
    assert!(!play.machine.is_held());
    play.machine.to_server.clear();
    // The next one waits for others.
    let insert = format!("INSERT INTO users (id, account_id, email) VALUES (1, 1, '{CANARY}')");
    play.client_in.extend_from_slice(&Out::new().sync().query(&insert).0);
    assert!((0..5).all(|_| play.pass()));
    let (second, second_work) = play.machine.take_work(Side::Client).unwrap();
    assert!(matches!(second_work, Work::Grant(_)) && play.machine.is_held());
    play.machine.to_client.clear();
    play.machine.to_server.clear();
    play.answer(first, first_work).unwrap();
    assert!(play.machine.is_held() && play.machine.to_server.is_empty() && play.machine.to_client.is_empty());
    play.answer(second, second_work).unwrap();
    assert!(!play.machine.is_held() && play.machine.to_client.is_empty());
    assert!(contains(&play.machine.to_server, b"INSERT INTO users"));
    assert!(!contains(&play.machine.to_server, CANARY.as_bytes()));
}
