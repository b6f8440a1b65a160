//! Rows that are written while their column is sealed: is the last word of each writer kept?
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::{error, seal, site};
use crate::support::guard::poll;
use crate::support::peer::{Out, Peer, field};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;

/// Rows of each writer when it begins.
const ROWS: i64 = 2_500;

/// What a statement may fail with at the moment of the switch: the server has looked at it, as it was planned before,
/// when the column was another.
const AT_THE_SWITCH: [&str; 4] = ["0A000", "42804", "23514", "22P02"];

pub const USERS: &str = "
    CREATE TABLE users (region text, id bigint, account_id int NOT NULL, email text NOT NULL, note text, n int NOT NULL DEFAULT 0,
        PRIMARY KEY (region, id), CONSTRAINT one_email UNIQUE (account_id, email));
    CREATE INDEX by_email ON users (email);
    COMMENT ON COLUMN users.email IS 'it''s an address';
    CREATE ROLE clerk LOGIN;
    GRANT SELECT (email), UPDATE (email) ON users TO clerk";

/// What a writer knows of its rows: account, email, note.
pub type Model = BTreeMap<i64, (i32, String, Option<String>)>;

/// The rows that are there from the start.
pub fn fill(cluster: &Cluster, region: &str) -> Model {
    cluster.psql(
        "app",
        &format!(
            "INSERT INTO users SELECT '{region}', id, 1 + id % 2, CASE WHEN id < 2 AND '{region}' = 'direct' THEN ''
             ELSE '{region}-' || id || '-öñ👋@example.org' END, CASE id % 3 WHEN 0 THEN '' WHEN 1 THEN 'canary7f3 ' || id END
             FROM generate_series(0, {}) id",
            ROWS - 1
        ),
    );
    let email = |id: i64| match (id, region) {
        (0 | 1, "direct") => String::new(),
        _ => format!("{region}-{id}-öñ👋@example.org"),
    };
    let note = |id: i64| match id % 3 {
        0 => Some(String::new()),
        1 => Some(format!("canary7f3 {id}")),
        _ => None,
    };
    (0..ROWS).map(|id| (id, (1 + (id % 2) as i32, email(id), note(id)))).collect()
}

/// A client that changes its own rows and remembers how.
pub struct Writer {
    pub region: &'static str,
    pub address: SocketAddr,
    pub column: &'static str,
    pub through_proxy: bool,
    pub model: Model,
    pub seed: u64,
}

/// A writer at work.
pub struct Writing {
    stop: Arc<AtomicBool>,
    pub done: Arc<AtomicU64>,
    thread: JoinHandle<(Model, Vec<String>)>,
}

impl Writing {
    /// Stops it; gives what it knows, and the SQLSTATEs of statements that failed.
    pub fn stop(self) -> (Model, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Writer {
    pub fn start(self) -> Writing {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, done) = (stop.clone(), done.clone());
            move || self.work(&stop, &done)
        });
        Writing { stop, done, thread }
    }

    fn random(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as usize % below
    }

    fn work(mut self, stop: &AtomicBool, done: &AtomicU64) -> (Model, Vec<String>) {
        let mut peer = Peer::connect(self.address, "app");
        let update = format!("UPDATE users SET {} = $1 WHERE region = $2 AND id = $3", self.column);
        peer.send(&Out::new().parse("change", &update).sync().0);
        peer.until_ready(1);
        let mut errors = Vec::new();
        let mut next = self.model.keys().max().copied().unwrap_or(ROWS);
        while !stop.load(Ordering::Relaxed) {
            next += 1;
            match self.step(&mut peer, next) {
                Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                // Another row has the address.
                Err(code) if code == "23505" => (),
                Err(code) => {
                    assert!(AT_THE_SWITCH.contains(&code.as_str()), "{}: {code}", self.region);
                    errors.push(code);
                    if !self.through_proxy {
                        // The column is sealed: nothing more can be written past the proxy.
                        break;
                    }
                }
            }
        }
        (self.model, errors)
    }

    /// One statement; what it does is remembered if it succeeds.
    fn step(&mut self, peer: &mut Peer, next: i64) -> Result<(), String> {
        let ids: Vec<i64> = self.model.keys().copied().collect();
        let id = ids[self.random(ids.len())];
        let mut row = self.model[&id].clone();
        let value = match self.random(6) {
            0 if self.column == "note" => None,
            1 if self.column == "note" => Some(String::new()),
            _ => Some(format!("{}-{next}-ß'日@example.org", self.region)),
        };
        let place = format!("WHERE region = '{}' AND id = {id}", self.region);
        let written = value.as_ref().map_or("NULL".to_owned(), |value| format!("'{}'", value.replace('\'', "''")));
        match self.random(8) {
            0 => {
                let account = 1 + self.random(2) as i32;
                let email = format!("new-{}-{next}", self.region);
                let mut row = (account, email, None);
                set(&mut row, self.column, value);
                let quoted = |text: &Option<String>| {
                    text.as_ref().map_or("NULL".to_owned(), |text| format!("'{}'", text.replace('\'', "''")))
                };
                run(
                    peer,
                    &format!(
                        "INSERT INTO users (region, id, account_id, email, note) VALUES ('{}', {next}, {account}, {}, {})",
                        self.region,
                        quoted(&Some(row.1.clone())),
                        quoted(&row.2)
                    ),
                )?;
                self.model.insert(next, row);
            }
            1 => {
                run(peer, &format!("DELETE FROM users {place}"))?;
                self.model.remove(&id);
            }
            2 if !self.through_proxy => {
                // It names the column, so that it fails once that is sealed: the server itself would take it, and
                // the row's cells would be those of the tenant that it has left.
                let column = self.column;
                run(peer, &format!("UPDATE users SET account_id = 3 - account_id, {column} = {column}::text {place}"))?;
                row.0 = 3 - row.0;
                self.model.insert(id, row);
            }
            3 => {
                let params = [value.as_deref(), Some(self.region), Some(&id.to_string())];
                let messages = Out::new().bind("", "change", &params, 0).execute("", 0).sync();
                peer.send(&messages.0);
                answer(peer)?;
                set(&mut row, self.column, value);
                self.model.insert(id, row);
            }
            4 => run(peer, &format!("UPDATE users SET n = n + 1 {place}"))?,
            5 if self.through_proxy => {
                let read = run_for_rows(
                    peer,
                    &format!("SELECT coalesce({}, '<null>') {place}", self.column)
                        .replace(" WHERE", " FROM users WHERE"),
                );
                let expected = if self.column == "note" { row.2.unwrap_or("<null>".to_owned()) } else { row.1 };
                match read {
                    Ok(rows) => assert_eq!(rows, [expected], "{place}"),
                    Err(code) => return Err(code),
                }
            }
            _ => {
                run(peer, &format!("UPDATE users SET {} = {written} {place}", self.column))?;
                set(&mut row, self.column, value);
                self.model.insert(id, row);
            }
        }
        Ok(())
    }
}

fn set(row: &mut (i32, String, Option<String>), column: &str, value: Option<String>) {
    match column {
        "note" => row.2 = value,
        _ => row.1 = value.unwrap(),
    }
}

/// Runs a statement that changes one row.
fn run(peer: &mut Peer, sql: &str) -> Result<(), String> {
    peer.send(&Out::new().query(sql).0);
    answer(peer)
}

fn answer(peer: &mut Peer) -> Result<(), String> {
    let messages = peer.until_ready(1);
    if let Some((_, body)) = messages.iter().find(|(tag, _)| *tag == b'E') {
        return Err(field(body, b'C'));
    }
    let complete = messages.iter().find(|(tag, _)| *tag == b'C').expect("a reply");
    assert!(complete.1.ends_with(b" 1\0"), "{}", String::from_utf8_lossy(&complete.1));
    Ok(())
}

/// The first column of the rows.
fn run_for_rows(peer: &mut Peer, sql: &str) -> Result<Vec<String>, String> {
    peer.send(&Out::new().query(sql).0);
    let messages = peer.until_ready(1);
    if let Some((_, body)) = messages.iter().find(|(tag, _)| *tag == b'E') {
        return Err(field(body, b'C'));
    }
    let text = |body: &[u8]| String::from_utf8_lossy(&body[6..]).into_owned();
    Ok(messages.iter().filter(|(tag, _)| *tag == b'D').map(|(_, body)| text(body)).collect())
}

/// All rows of a region as the proxy shows them.
pub fn stored(cluster: &Cluster, address: SocketAddr, region: &str) -> String {
    let sql = format!(
        "SELECT id, account_id, email, coalesce(note, '<null>') FROM users WHERE region = '{region}' ORDER BY id"
    );
    cluster.psql_at(address, "app", &sql).unwrap()
}

/// The same as a writer knows it.
pub fn known(model: &Model) -> String {
    let row = |(id, (account, email, note)): (&i64, &(i32, String, Option<String>))| {
        format!("{id}|{account}|{email}|{}", note.as_deref().unwrap_or("<null>"))
    };
    model.iter().map(row).collect::<Vec<_>>().join("\n")
}

/// No two rows have a data key in common, and nothing readable stands in the column.
pub fn check_cells(cluster: &Cluster, column: &str) {
    let deks = format!(
        "SELECT count({column}) = count(DISTINCT substring(rowseal.slot({column}) FROM 1 FOR 16)), count({column}) > 0,
            count(*) FILTER (WHERE position('example'::bytea IN {column}::bytea) > 0 OR position('canary'::bytea IN {column}::bytea) > 0)
         FROM users"
    );
    assert_eq!(cluster.psql("app", &deks), "t|t|0");
}

#[test]
fn what_is_written_meanwhile_is_kept() {
    let cluster = Cluster::start(Version::V15);
    let site = site(&cluster);
    cluster.psql("app", USERS);
    let models = ["direct", "proxy"].map(|region| fill(&cluster, region));
    let proxy = site.serve();
    let [direct, through] = models;
    let past = |model| Writer {
        region: "direct",
        address: cluster.host_port(),
        column: "email",
        through_proxy: false,
        model,
        seed: 1,
    };
    let direct = past(direct).start();
    let by_proxy = |model, seed| Writer {
        region: "proxy",
        address: proxy.address(),
        column: "email",
        through_proxy: true,
        model,
        seed,
    };
    let through = by_proxy(through, 2).start();
    let sealed = seal(&site, "public.users.email", &["--batch", "100"]);
    assert!(sealed.status.success(), "{}", error(&sealed));
    let so_far = through.done.load(Ordering::Relaxed);
    poll("writes after the switch", || (through.done.load(Ordering::Relaxed) > so_far + 300).then_some(()));
    let (direct, _) = direct.stop();
    let (through, errors) = through.stop();
    assert_eq!(stored(&cluster, proxy.address(), "direct"), known(&direct));
    assert_eq!(stored(&cluster, proxy.address(), "proxy"), known(&through));
    check_cells(&cluster, "email");
    check_shape(&cluster, &site, proxy.address());
    assert!(errors.is_empty(), "statements through the proxy failed: {errors:?}");
    // And the way back.
    let through = by_proxy(through, 4).start();
    let opened = site.run(&["column", "unseal", "public.users.email"]);
    assert!(opened.status.success(), "{}", error(&opened));
    let so_far = through.done.load(Ordering::Relaxed);
    poll("writes after the switch", || (through.done.load(Ordering::Relaxed) > so_far + 300).then_some(()));
    let (through, errors) = through.stop();
    assert!(errors.is_empty(), "statements through the proxy failed: {errors:?}");
    assert_eq!(stored(&cluster, cluster.host_port(), "proxy"), known(&through));
    assert_eq!(stored(&cluster, cluster.host_port(), "direct"), known(&direct));
    assert!(!proxy.log().contains("example.org"), "a value is in the log");
}

fn check_shape(cluster: &Cluster, site: &Site, proxy: SocketAddr) {
    let ask = |sql: &str| cluster.psql_at(proxy, "app", sql);
    ask("INSERT INTO users (region, id, account_id, email) VALUES ('x', 1, 1, 'twice')").unwrap();
    let twice = ask("INSERT INTO users (region, id, account_id, email) VALUES ('x', 2, 1, 'twice')").unwrap_err();
    assert!(twice.contains("one_email"), "{twice}");
    ask("INSERT INTO users (region, id, account_id, email) VALUES ('x', 2, 2, 'twice')").unwrap();
    let null = ask("INSERT INTO users (region, id, account_id, email) VALUES ('x', 3, 1, NULL)").unwrap_err();
    assert!(null.contains("null value in column \"email\""), "{null}");
    let plan = ask("EXPLAIN SELECT id FROM users WHERE account_id = 1 AND email = 'twice'").unwrap();
    assert!(plan.contains("by_email") || plan.contains("one_email"), "{plan}");
    let shape = "SELECT attnotnull, format_type(atttypid, atttypmod), col_description(attrelid, attnum), attacl FROM pg_attribute
        WHERE attrelid = 'users'::regclass AND attname = 'email'";
    assert_eq!(cluster.psql("app", shape), "t|rowseal.text|it's an address|{clerk=rw/postgres}");
    let traces = "SELECT count(*) FROM pg_class WHERE relname LIKE 'rowseal%' UNION ALL SELECT count(*) FROM pg_trigger
        WHERE tgrelid = 'users'::regclass UNION ALL SELECT count(*) FROM pg_constraint WHERE conname LIKE 'rowseal%'";
    assert_eq!(cluster.psql("app", traces), "0\n0\n0");
    let admin = site.path().join("audit/column");
    let uses = site.run_ok(&["audit", "show", "--directory", admin.to_str().unwrap(), "--json"]);
    let sealed: u64 = uses.lines().filter(|line| line.contains("\"act\":\"seal\"")).map(rows).sum();
    assert!(sealed >= 4_900, "{sealed} rows are recorded");
    assert!(uses.contains("column seal begin") && uses.contains("column seal end"), "begin and end");
    assert!(!uses.contains("example.org"), "a value is in the audit log");
}

fn rows(line: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    value["rows"].as_u64().unwrap()
}
