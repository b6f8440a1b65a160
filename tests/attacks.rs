//! Ways to make the proxy lose track of its session, forward a plaintext or show a cell. None of them may work (T5).
use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::postgres::{Cluster, Version, connect_at};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::{Tap, contains};

const POLICY: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\nname = \"public.users\"\ntenant = { column = \"account_id\" }\n\n\
    [database.table.columns]\nemail = { type = \"text\", equality = \"tenant\" }\n\n\
    [[database.table]]\nname = \"public.a23456789_123456789_123456789_123456789_123456789_123456789_123\"\ntenant = { name = \"1\" }\n\n\
    [database.table.columns]\nemail = { type = \"text\" }\n";

struct Scene {
    cluster: Cluster,
    _site: Site,
    tap: Tap,
    proxy: Proxy,
}

fn scene() -> Scene {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let tap = Tap::start(cluster.host_port());
    let site = Site::with_upstream(tap.address(), &cluster, POLICY);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1"]);
    site.run_ok(&["tenant", "register", "2"]);
    cluster.psql("app", "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, note text)");
    cluster.psql("app", "CREATE TABLE a23456789_123456789_123456789_123456789_123456789_123456789_123 (email rowseal.text)");
    cluster.psql("app", "CREATE SCHEMA users_plain; CREATE TABLE users_plain.users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email text, note text)");
    cluster.psql("app", "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.users (LIKE users_plain.users)");
    cluster.psql("app", "CREATE FUNCTION everybody() RETURNS SETOF users LANGUAGE sql AS 'SELECT * FROM public.users'");
    let proxy = site.serve();
    Scene { cluster, _site: site, tap, proxy }
}

fn run<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

async fn outcome(client: &Client, sql: &str) -> Result<Vec<Option<String>>, String> {
    let messages = client.simple_query(sql).await.map_err(|error| match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => format!("connection broken: {error:?}"),
    })?;
    let value = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(value).collect())
}

/// A client that writes messages of its own making.
struct Raw(TcpStream);

impl Raw {
    async fn connect(scene: &Scene) -> Raw {
        let mut stream = TcpStream::connect(scene.proxy.address()).await.unwrap();
        let mut body = BytesMut::new();
        body.put_i32(196_608);
        body.put_slice(b"user\0postgres\0database\0app\0\0");
        stream.write_all(&[&(body.len() as i32 + 4).to_be_bytes()[..], &body[..]].concat()).await.unwrap();
        let mut raw = Raw(stream);
        raw.until_ready().await;
        raw
    }

    /// Sends messages, then reads up to ReadyForQuery: tag and body of each.
    async fn round(&mut self, messages: &[(u8, Vec<u8>)]) -> Vec<(u8, Vec<u8>)> {
        let mut out = BytesMut::new();
        for (tag, body) in messages {
            out.put_u8(*tag);
            out.put_i32(body.len() as i32 + 4);
            out.put_slice(body);
        }
        self.0.write_all(&out).await.unwrap();
        self.until_ready().await
    }

    async fn until_ready(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut replies = Vec::new();
        loop {
            let read = async {
                let tag = self.0.read_u8().await.unwrap();
                let mut body = vec![0; self.0.read_i32().await.unwrap() as usize - 4];
                self.0.read_exact(&mut body).await.unwrap();
                (tag, body)
            };
            let reply = tokio::time::timeout(std::time::Duration::from_secs(10), read).await.expect("the proxy hangs");
            replies.push(reply);
            if replies.last().unwrap().0 == b'Z' {
                return replies;
            }
        }
    }
}

fn parse(name: &str, sql: &str) -> (u8, Vec<u8>) {
    (b'P', [name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat())
}

fn bind(portal: &str, name: &str, params: &[&str]) -> (u8, Vec<u8>) {
    let mut body = BytesMut::new();
    body.put_slice(&[portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0"].concat());
    body.put_u16(params.len() as u16);
    for param in params {
        body.put_i32(param.len() as i32);
        body.put_slice(param.as_bytes());
    }
    body.put_u16(0);
    (b'B', body.to_vec())
}

fn execute(portal: &str) -> (u8, Vec<u8>) {
    (b'E', [portal.as_bytes(), b"\0\0\0\0\0"].concat())
}

fn close(name: &str) -> (u8, Vec<u8>) {
    (b'C', [b"S", name.as_bytes(), b"\0"].concat())
}

fn query(sql: &str) -> (u8, Vec<u8>) {
    (b'Q', [sql.as_bytes(), b"\0"].concat())
}

const SYNC: (u8, Vec<u8>) = (b'S', Vec::new());

fn tags(replies: &[(u8, Vec<u8>)]) -> String {
    replies.iter().map(|(tag, _)| char::from(*tag)).collect()
}

const INSERT: &str = "INSERT INTO users (id, account_id, email) VALUES ($1, 1, $2)";

/// What the search path, the role or the tenant is, is asked anew after every statement that may change it.
#[test]
fn facts_never_go_stale() {
    let scene = scene();
    run(async {
        let changes = [
            // (change, back)
            ("SET search_path = users_plain", "SET search_path = public"),
            ("DO $$ BEGIN PERFORM set_config('search_path', 'elsewhere', false); END $$", "RESET search_path"),
            ("PREPARE p AS SELECT set_config('search_path', 'elsewhere', false); EXECUTE p", "RESET search_path"),
        ];
        for (n, (change, back)) in changes.into_iter().enumerate() {
            let client = connect_at(scene.proxy.address(), "app").await;
            outcome(&client, back).await.unwrap();
            outcome(&client, &format!("INSERT INTO users (id, account_id, email) VALUES ({n}, 1, 'first')")).await.unwrap();
            for part in change.split("; EXECUTE").enumerate().map(|(i, p)| if i == 0 { p.to_owned() } else { format!("EXECUTE{p}") }) {
                outcome(&client, &part).await.unwrap();
                if part.starts_with("PREPARE") {
                    outcome(&client, "SELECT email FROM users LIMIT 0").await.unwrap();
                }
            }
            outcome(&client, &format!("INSERT INTO users (id, account_id, email) VALUES ({n}, 1, 'plain {n}')")).await
                .unwrap_or_else(|e| panic!("{change}: {e}"));
            let stored = scene.cluster.psql("app", &format!("SELECT email FROM users_plain.users WHERE id = {n} UNION ALL SELECT email FROM elsewhere.users WHERE id = {n}"));
            assert_eq!(stored.trim(), format!("plain {n}"), "after {change}");
            outcome(&client, back).await.unwrap();
            outcome(&client, &format!("UPDATE users SET email = 'canary7f3-{n}' WHERE id = {n}")).await.unwrap();
        }
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    });
}

/// A setting made for an implicit transaction ends with its Sync.
#[test]
fn settings_local_to_a_pipeline_end_with_it() {
    let scene = scene();
    run(async {
        let mut raw = Raw::connect(&scene).await;
        let local = "SELECT set_config('search_path', 'users_plain', true)";
        let first = [parse("", local), bind("", "", &[]), execute(""), parse("", INSERT), bind("", "", &["1", "first"]), execute(""), SYNC];
        assert_eq!(tags(&raw.round(&first).await), "12DC12CZ");
        let second = [parse("", INSERT), bind("", "", &["1", "canary7f3"]), execute(""), SYNC];
        assert_eq!(tags(&raw.round(&second).await), "12CZ");
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    });
}

/// What the server skips after an error has not happened.
#[test]
fn skipped_messages_change_nothing() {
    let scene = scene();
    run(async {
        let mut raw = Raw::connect(&scene).await;
        assert_eq!(tags(&raw.round(&[parse("s", INSERT), parse("", INSERT), SYNC]).await), "11Z");
        let failing = [parse("x", "SELECT nothing"), close("s"), query("SELECT 1"), SYNC];
        assert_eq!(tags(&raw.round(&failing).await), "EZ");
        assert_eq!(tags(&raw.round(&[bind("", "s", &["1", "canary7f3"]), execute(""), SYNC]).await), "2CZ");
        assert_eq!(tags(&raw.round(&[bind("", "", &["2", "canary7f3"]), execute(""), SYNC]).await), "2CZ");
        assert_eq!(tags(&raw.round(&[close("s"), parse("s", "SELECT $1::text"), bind("", "s", &["x"]), execute(""), SYNC]).await), "312DCZ");
        let set = [parse("p", "SET search_path = users_plain"), SYNC];
        assert_eq!(tags(&raw.round(&set).await), "1Z");
        assert_eq!(tags(&raw.round(&[parse("p", "SELECT 1"), SYNC]).await), "EZ");
        assert_eq!(tags(&raw.round(&[query("SELECT email FROM users LIMIT 0")]).await), "TCZ");
        assert_eq!(tags(&raw.round(&[bind("", "p", &[]), execute(""), SYNC]).await), "2CZ");
        assert_eq!(tags(&raw.round(&[query("INSERT INTO users VALUES (7, 1, 'seven')")]).await), "CZ");
        assert_eq!(scene.cluster.psql("app", "SELECT email FROM users_plain.users").trim(), "seven");
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    });
}

/// The proxy's own statements may run any number of times in one transaction.
#[test]
fn own_statements_repeat_in_a_transaction() {
    let scene = scene();
    run(async {
        let client = connect_at(scene.proxy.address(), "app").await;
        outcome(&client, "INSERT INTO users (id, account_id, email) VALUES (1, 1, 'one'), (2, 2, 'two')").await.unwrap();
        outcome(&client, "BEGIN").await.unwrap();
        for round in 0..3 {
            outcome(&client, &format!("SET x.y = '{round}'")).await.unwrap();
            outcome(&client, &format!("UPDATE users SET email = 'round {round}'")).await.unwrap();
            let rows = outcome(&client, "SELECT email FROM users ORDER BY id").await.unwrap();
            assert_eq!(rows, vec![Some(format!("round {round}")); 2]);
        }
        outcome(&client, "COMMIT").await.unwrap();
    });
}

/// Names are cut at 63 bytes; backslashes escape when the session says so.
#[test]
fn texts_are_read_as_the_server_reads_them() {
    let scene = scene();
    run(async {
        let client = connect_at(scene.proxy.address(), "app").await;
        let long = "INSERT INTO a23456789_123456789_123456789_123456789_123456789_123456789_123more (email) VALUES ('canary7f3')";
        let _ = outcome(&client, long).await;
        outcome(&client, "SET standard_conforming_strings = off").await.unwrap();
        let escaped = r"INSERT INTO users (id, account_id, note, email) VALUES (5, 1, 'a\', 'b', 'canary7f3\'c')";
        let _ = outcome(&client, escaped).await;
        let escaped = r"SELECT '\' || email FROM users; --', '\'canary7f3'";
        let _ = outcome(&client, escaped).await;
        let escaped = r"SELECT '\'; INSERT INTO users (id, account_id, email) VALUES (6, 1, $$canary7f3$$) --'";
        let _ = outcome(&client, escaped).await;
        let escaped = r"INSERT INTO users (id, account_id, email) VALUES (6, 1, '\\canary7f4')";
        let _ = outcome(&client, escaped).await;
        assert!(!contains(&scene.tap.to_server(), b"canary7f"), "a plaintext reached the server");
    });
}

/// No form of a cell passes.
#[test]
fn no_form_of_a_cell_passes() {
    let scene = scene();
    run(async {
        let client = connect_at(scene.proxy.address(), "app").await;
        outcome(&client, "INSERT INTO users (id, account_id, email) VALUES (1, 1, 'one')").await.unwrap();
        for style in ["hex", "escape"] {
            outcome(&client, &format!("SET bytea_output = {style}")).await.unwrap();
            for sql in [
                "SELECT email FROM everybody()",
                "SELECT * FROM everybody()",
                "SELECT everybody()",
                "SELECT to_jsonb(e) FROM everybody() e",
                "SELECT array_agg(e) FROM everybody() e",
                "SELECT (SELECT row_to_json(u.*) FROM (SELECT 1) x) FROM users u",
                "SELECT (SELECT encode(convert_to(row_to_json(u.*)::text, 'UTF8'), 'base64') FROM (SELECT 1) x) FROM users u",
                "SELECT email(u) FROM users u",
                "SELECT u.email::text FROM users u",
                "SELECT (u).email FROM users u",
                "SELECT string_agg(email, '') FROM users",
                "SELECT x FROM users u, LATERAL (SELECT u.email || ''::bytea) x(x)",
                "SELECT CASE WHEN true THEN email END FROM users",
                "SELECT max(u::text) FROM users u",
                "SELECT count(*) FROM users GROUP BY email",
                "TABLE users",
                "SELECT query_to_xml('select email from users', true, false, '')",
            ] {
                let before = scene.tap.to_client().len();
                let rows = outcome(&client, sql).await;
                assert!(!matches!(&rows, Err(e) if e.starts_with("connection")), "{sql}: {rows:?}");
                let _ = before;
                let shown = format!("{rows:?}");
                assert!(!shown.contains("c15253") && !shown.contains("301RS"), "{style}, {sql}: {shown}");
                assert!(rows.is_err() || !sql.contains("encode"), "{style}, {sql}: {shown}");
            }
        }
    });
}
