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
    cluster.psql(
        "app",
        "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, note text)",
    );
    cluster.psql(
        "app",
        "CREATE TABLE a23456789_123456789_123456789_123456789_123456789_123456789_123 (email rowseal.text)",
    );
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
            outcome(&client, &format!("INSERT INTO users (id, account_id, email) VALUES ({n}, 1, 'first')"))
                .await
                .unwrap();
            for part in change
                .split("; EXECUTE")
                .enumerate()
                .map(|(i, p)| if i == 0 { p.to_owned() } else { format!("EXECUTE{p}") })
            {
                outcome(&client, &part).await.unwrap();
                if part.starts_with("PREPARE") {
                    outcome(&client, "SELECT email FROM users LIMIT 0").await.unwrap();
                }
            }
            outcome(&client, &format!("INSERT INTO users (id, account_id, email) VALUES ({n}, 1, 'plain {n}')"))
                .await
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
        let first = [
            parse("", local),
            bind("", "", &[]),
            execute(""),
            parse("", INSERT),
            bind("", "", &["1", "first"]),
            execute(""),
            SYNC,
        ];
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
        assert_eq!(
            tags(
                &raw.round(&[close("s"), parse("s", "SELECT $1::text"), bind("", "s", &["x"]), execute(""), SYNC])
                    .await
            ),
            "312DCZ"
        );
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
        outcome(&client, "INSERT INTO users (id, account_id, email) VALUES (1, 1, 'one'), (2, 2, 'two')")
            .await
            .unwrap();
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
        scene
            .cluster
            .psql("app", "INSERT INTO users SELECT n, 1, email FROM users, generate_series(2, 20) n; ANALYZE users");
        let statistics = "SELECT most_common_vals::text FROM pg_stats WHERE attname = 'email'";
        assert!(scene.cluster.psql("app", statistics).contains("c15253"), "the statistics hold no cell to be seen");
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
                "SELECT query_to_xml('select email from users', true, false, '') FROM ROWS FROM (generate_series(1, 1))",
                "SELECT histogram_bounds::text, most_common_vals::text FROM pg_stats WHERE attname = 'email'",
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

fn describe(kind: u8, name: &str) -> (u8, Vec<u8>) {
    (b'D', [&[kind], name.as_bytes(), b"\0"].concat())
}

fn some_rows(portal: &str, limit: u8) -> (u8, Vec<u8>) {
    (b'E', [portal.as_bytes(), b"\0\0\0\0", &[limit]].concat())
}

fn values(replies: &[(u8, Vec<u8>)]) -> Vec<String> {
    let rows = replies.iter().filter(|(tag, _)| *tag == b'D');
    rows.map(|(_, body)| String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into_owned()).collect()
}

/// Replies stay in step when a value cannot be opened, with row limits, and with errors in the middle.
#[test]
fn replies_stay_in_step() {
    let scene = scene();
    run(async {
        let mut raw = Raw::connect(&scene).await;
        let rows = "INSERT INTO users (id, account_id, email) VALUES (1, 1, 'one'), (2, 1, 'two'), (3, 2, 'three'), (4, 2, '')";
        assert_eq!(tags(&raw.round(&[query(rows)]).await), "CZ");
        let select = "SELECT email FROM users WHERE id < $1 ORDER BY id";
        let limited = [
            parse("s", select),
            bind("a", "s", &["9"]),
            bind("b", "s", &["9"]),
            some_rows("a", 1),
            some_rows("b", 2),
            some_rows("a", 2),
            some_rows("b", 9),
            execute("a"),
            SYNC,
        ];
        let replies = raw.round(&limited).await;
        assert_eq!(tags(&replies), "122DsDDsDDsDDCDCZ");
        assert_eq!(values(&replies).join(","), "one,one,two,two,three,three,,");
        let described = [describe(b'S', "s"), bind("", "s", &["2"]), describe(b'P', ""), execute(""), SYNC];
        assert_eq!(tags(&raw.round(&described).await), "tT2TDCZ");
        let erring = [bind("", "s", &["x"]), execute(""), describe(b'S', "s"), SYNC];
        assert_eq!(tags(&raw.round(&erring).await), "EZ");
        assert_eq!(values(&raw.round(&[bind("", "s", &["2"]), execute(""), SYNC]).await), ["one"]);
        // A cell of another tenant in row 2.
        scene.cluster.psql("app", "UPDATE users SET email = (SELECT email FROM users WHERE id = 3) WHERE id = 2");
        let damaged =
            [bind("", "s", &["9"]), execute(""), parse("z", "SELECT 1"), bind("", "z", &[]), execute(""), SYNC];
        let replies = raw.round(&damaged).await;
        assert!(tags(&replies).ends_with("EZ") && !tags(&replies).contains('1'), "{}", tags(&replies));
        assert_eq!(values(&raw.round(&[bind("", "s", &["2"]), execute(""), SYNC]).await), ["one"]);
        let replies = raw.round(&[query("SELECT 1; SELECT email FROM users ORDER BY id; SELECT 3")]).await;
        assert_eq!(tags(&replies).replace('D', ""), "TCTEZ");
        assert_eq!(tags(&raw.round(&[query("BEGIN")]).await), "CZ");
        let replies = raw.round(&[query("SELECT email FROM users ORDER BY id")]).await;
        assert_eq!(replies.last().unwrap().1, b"E", "{}", tags(&replies));
        assert_eq!(tags(&raw.round(&[query("SELECT 1")]).await), "EZ");
        assert_eq!(tags(&raw.round(&[query("ROLLBACK")]).await), "CZ");
        assert_eq!(values(&raw.round(&[query("SELECT email FROM users WHERE id = 4")]).await), [""]);
        assert!(!contains(&scene.tap.to_server(), b"three"), "a plaintext reached the server");
    });
}

/// Portals pipelined over several Syncs keep their rows, wherever the bytes are cut.
#[test]
fn syncs_in_a_pipeline_keep_portals() {
    let scene = scene();
    run(async {
        let mut raw = Raw::connect(&scene).await;
        raw.round(&[query("INSERT INTO users (id, account_id, email) VALUES (1, 1, 'one')")]).await;
        raw.round(&[parse("s", "SELECT email FROM users"), SYNC]).await;
        for _ in 0..20 {
            let mut all = Vec::new();
            for (tag, body) in [bind("", "s", &[]), execute(""), SYNC, bind("", "s", &[]), execute(""), SYNC] {
                all.push(tag);
                all.extend((body.len() as i32 + 4).to_be_bytes());
                all.extend(body);
            }
            for piece in all.chunks(13) {
                raw.0.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            assert_eq!(tags(&raw.until_ready().await), "2DCZ");
            assert_eq!(tags(&raw.until_ready().await), "2DCZ");
        }
    });
}

/// A session confined to a tenant sees, finds and writes nothing of another.
#[test]
fn confinement_holds() {
    let scene = scene();
    run(async {
        let client = connect_at(scene.proxy.address(), "app").await;
        outcome(&client, "INSERT INTO users (id, account_id, email) VALUES (1, 1, 'one'), (2, 2, 'two')")
            .await
            .unwrap();
        outcome(&client, "SET rowseal.tenant = '1'").await.unwrap();
        assert_eq!(outcome(&client, "SELECT email FROM users WHERE id = 1").await.unwrap(), [Some("one".to_owned())]);
        for sql in [
            "SELECT email FROM users WHERE id = 2",
            "SELECT * FROM users ORDER BY id",
            "SELECT s.email FROM (SELECT email, id FROM users OFFSET 0) s WHERE s.id = 2",
            "WITH c AS (SELECT * FROM users) SELECT email FROM c WHERE id = 2",
            "SELECT id FROM users WHERE account_id = 2 AND email = 'two'",
            "SELECT id FROM users WHERE account_id IN (1, 2) AND email = 'two'",
            "INSERT INTO users (id, account_id, email) VALUES (3, 2, 'x')",
            "UPDATE users SET email = 'x' WHERE id = 2",
            "UPDATE users SET email = 'x' WHERE id = 2 AND account_id = 2",
            "UPDATE users SET email = 'x'",
            "UPDATE users SET note = 'x' WHERE id = 2 RETURNING email",
            "BEGIN; DELETE FROM users WHERE id = 2 RETURNING *",
        ] {
            let outcome = outcome(&client, sql).await;
            assert!(outcome.is_err(), "{sql}: {outcome:?}");
        }
        outcome(&client, "ROLLBACK").await.unwrap();
        outcome(&client, "RESET rowseal.tenant").await.unwrap();
        let all = outcome(&client, "SELECT email FROM users ORDER BY id").await.unwrap();
        assert_eq!(all, [Some("one".to_owned()), Some("two".to_owned())]);
    });
}

/// Messages that lie end the connection, never the proxy.
#[test]
fn lies_end_the_connection_only() {
    let scene = scene();
    run(async {
        let mut lies: Vec<(u8, Vec<u8>)> = Vec::new();
        for tag in *b"QPBDCEdcfFHSp\0\xff" {
            for body in
                [&b""[..], b"\0", b"s", b"\0s\0\0\x01", b"\0s\0\xff\xff\xff\xff", b"Ss", b"S\0\0", b"\0\0\x7f\xff"]
            {
                lies.push((tag, body.to_vec()));
            }
        }
        for values in [
            &b"\0\x02\0\0\0\x01x\x7f\xff\xff\xff"[..],
            b"\0\x02\xff\xff\xff\xf0",
            b"\0\x01\0\0\0\x011\0\0",
            b"\0\x02\0\0\0\x011\0\0\0\x01x\0\x09\0\x01",
        ] {
            lies.push((b'B', [b"\0s\0\0\0", values].concat()));
        }
        lies.push((b'B', b"\0s\0\0\x01\0\x07\0\x02\0\0\0\x011\0\0\0\x01x\0\0".to_vec()));
        lies.push((b'Q', b"SELECT email FROM users \xff\xfe\0".to_vec()));
        lies.push((b'Q', b"SELECT 1 \xff\0".to_vec()));
        lies.push(query(&format!("SELECT id FROM users WHERE {}true", "NOT ".repeat(20_000))));
        lies.push(query(&format!("SELECT {}1{} FROM users", "(".repeat(20_000), ")".repeat(20_000))));
        lies.push(query(&format!("SELECT id FROM users WHERE id IN ({}1)", "1,".repeat(50_000))));
        lies.push(query(&format!(
            "INSERT INTO users (id, account_id, email) VALUES (77, 1, '{}')",
            "x".repeat(3_000_000)
        )));
        for (tag, body) in lies {
            let mut raw = Raw::connect(&scene).await;
            raw.round(&[parse("s", INSERT), SYNC]).await;
            let mut out = vec![tag];
            out.extend((body.len() as i32 + 4).to_be_bytes());
            out.extend(&body);
            out.extend(b"S\0\0\0\x04X\0\0\0\x04");
            raw.0.write_all(&out).await.unwrap();
            let mut rest = Vec::new();
            let end = tokio::time::timeout(std::time::Duration::from_secs(20), raw.0.read_to_end(&mut rest)).await;
            assert!(end.is_ok(), "hangs on {} {:?}", char::from(tag), &body[..body.len().min(20)]);
        }
        let client = connect_at(scene.proxy.address(), "app").await;
        assert_eq!(outcome(&client, "SELECT count(*) FROM users WHERE id = 77").await.unwrap(), [Some("1".to_owned())]);
    });
    assert!(!scene.proxy.log().contains("panicked"), "{}", scene.proxy.log());
    assert!(!contains(&scene.tap.to_server(), b"xxxxxxxx"), "a plaintext reached the server");
}

/// A trigger that notifies of whole rows shows no cell.
#[test]
fn notifications_show_no_cell() {
    let scene = scene();
    scene.cluster.psql("app", "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_notify(''c'', left(row_to_json(NEW)::text, 2000)); RETURN NULL; END'");
    scene.cluster.psql("app", "CREATE TRIGGER tell AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION tell()");
    run(async {
        let mut raw = Raw::connect(&scene).await;
        raw.round(&[query("LISTEN c")]).await;
        let replies = raw.round(&[query("INSERT INTO users (id, account_id, email) VALUES (1, 1, 'one')")]).await;
        let told = replies.iter().find(|(tag, _)| *tag == b'A').expect("a notification");
        assert!(!contains(&told.1, b"c15253"), "{}", String::from_utf8_lossy(&told.1));
        assert!(contains(&told.1, b"[sealed]") && told.1.ends_with(b"\0"), "{}", String::from_utf8_lossy(&told.1));
        assert_eq!(tags(&raw.round(&[query("SELECT 1")]).await), "TDCZ");
    });
}

/// A role that sees masks cannot find values by comparing columns.
#[test]
fn masked_roles_cannot_compare() {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let policy = POLICY.replace("equality = \"tenant\"", "equality = \"global\"")
        + "\n[[database.role]]\nname = \"analyst\"\nread = \"mask\"\n[[database.role]]\nname = \"postgres\"\nread = \"open\"\n";
    let site = Site::new(&cluster, &policy);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1"]);
    cluster.psql("app", "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text); CREATE ROLE analyst; GRANT ALL ON users TO analyst");
    let proxy = site.serve();
    run(async {
        let client = connect_at(proxy.address(), "app").await;
        outcome(&client, "INSERT INTO users VALUES (1, 1, 'one'), (2, 1, 'one')").await.unwrap();
        let join = "SELECT a.id FROM users a JOIN users b ON a.email = b.email WHERE b.id = 2";
        assert_eq!(outcome(&client, join).await.unwrap().len(), 2);
        outcome(&client, "SET ROLE analyst").await.unwrap();
        assert_eq!(outcome(&client, "SELECT email FROM users").await.unwrap(), [None, None]);
        for sql in [join, "SELECT id FROM users WHERE email = 'one'", "DELETE FROM users WHERE email IN ('one')"] {
            let refused = outcome(&client, sql).await.unwrap_err();
            assert!(refused.starts_with("42501"), "{sql}: {refused}");
        }
    });
}

/// A statement prepared under one search path is not run under another one unseen.
#[test]
fn prepared_statements_follow_the_search_path() {
    let scene = scene();
    run(async {
        let mut raw = Raw::connect(&scene).await;
        raw.round(&[query("SET search_path = elsewhere")]).await;
        assert_eq!(
            tags(&raw.round(&[parse("s", INSERT), bind("", "s", &["1", "plain"]), execute(""), SYNC]).await),
            "12CZ"
        );
        raw.round(&[query("SET search_path = public")]).await;
        let replies = raw.round(&[bind("", "s", &["2", "canary7f3"]), execute(""), SYNC]).await;
        assert_eq!(tags(&replies), "EZ");
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
        raw.round(&[parse("t", INSERT), SYNC]).await;
        raw.round(&[query("SET search_path = elsewhere")]).await;
        let replies = raw.round(&[bind("", "t", &["3", "third"]), execute(""), SYNC]).await;
        assert_eq!(tags(&replies), "EZ");
        assert!(!scene.cluster.psql("app", "SELECT email FROM elsewhere.users").contains("c15253"));
    });
}

const SHADOW: &str = "CREATE SCHEMA s; CREATE TABLE s.users (LIKE users_plain.users)";
/// DDL, after which the session's next statement is planned with what the schema is then.
const FRESH: &str = "CREATE TABLE IF NOT EXISTS fresh ()";
const CANARY: &str = "INSERT INTO users (id, account_id, email) VALUES (7, 1, 'canary7f3')";

/// What a name means, and whose row it is, is known also after a setting was changed by a function, a trigger or an
/// update of pg_settings.
#[test]
fn settings_changed_by_functions_are_noticed() {
    let scene = scene();
    for sql in [
        "CREATE FUNCTION go(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('search_path', $1, false) $$",
        "CREATE FUNCTION go_on(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN public.go($1); END $$",
        "CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET search_path = public; RETURN NULL; END $$",
        "CREATE TABLE doors (n int)",
        "CREATE TRIGGER leaves AFTER INSERT ON doors EXECUTE FUNCTION leave()",
        "CREATE FUNCTION enter(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('SET rowseal.tenant = %L', $1); END $$",
        "CREATE VIEW looks AS SELECT go('public') AS p; CREATE VIEW looks_on AS SELECT p || 'x' FROM looks",
        "CREATE TABLE ruled (n int); CREATE RULE r AS ON INSERT TO ruled DO ALSO SELECT public.go('public')",
        "CREATE TABLE lazy (n int, p text DEFAULT public.go('public'))",
        "CREATE TABLE checked (n int CHECK (public.go('public') IS NOT NULL))",
        "CREATE FUNCTION go_both(int, int) RETURNS text LANGUAGE sql AS $$ SELECT public.go('public') $$",
        "CREATE OPERATOR @@> (function = go_both, leftarg = int, rightarg = int)",
        "CREATE FUNCTION go_next(text, text) RETURNS text LANGUAGE sql AS $$ SELECT public.go('public') $$",
        "CREATE AGGREGATE gather(text) (sfunc = go_next, stype = text, initcond = '')",
    ] {
        scene.cluster.psql("app", sql);
    }
    run(async {
        for change in [
            "SELECT * FROM public.looks",
            "SELECT * FROM public.looks_on",
            "INSERT INTO public.ruled VALUES (1)",
            "INSERT INTO public.lazy (n) VALUES (1)",
            "INSERT INTO public.checked VALUES (1)",
            "SELECT 1 OPERATOR(public.@@>) 2",
            "SELECT public.gather('x')",
            "SELECT public.go('public')",
            "SELECT public.go_on('public')",
            "SELECT public.\"go\"('public')",
            "INSERT INTO public.doors VALUES (1)",
            "UPDATE pg_settings SET setting = 'public' WHERE name = 'search_path'",
            "EXPLAIN ANALYZE EXECUTE p",
            "CREATE TEMP TABLE t AS EXECUTE p",
        ] {
            let client = connect_at(scene.proxy.address(), "app").await;
            outcome(&client, FRESH).await.unwrap();
            let start = "PREPARE p AS SELECT set_config('search_path', 'public', false)";
            outcome(&client, start).await.unwrap();
            outcome(&client, "SET search_path = users_plain").await.unwrap();
            outcome(&client, "SELECT email FROM users LIMIT 0").await.unwrap();
            let together = outcome(&client, &format!("{change}; {CANARY}")).await;
            assert!(together.is_err(), "{change} in one text");
            outcome(&client, change).await.unwrap_or_else(|e| panic!("{change}: {e}"));
            outcome(&client, CANARY).await.unwrap_or_else(|e| panic!("after {change}: {e}"));
            outcome(&client, "DELETE FROM users WHERE id = 7").await.unwrap();
        }
        let client = connect_at(scene.proxy.address(), "app").await;
        outcome(&client, "INSERT INTO users (id, account_id, email) VALUES (2, 2, 'two')").await.unwrap();
        outcome(&client, "SELECT enter('1')").await.unwrap();
        let foreign = outcome(&client, "SELECT email FROM users WHERE id = 2").await;
        assert!(foreign.as_ref().is_err_and(|e| e.starts_with("42501")), "{foreign:?}");
        outcome(&client, "SELECT enter('2')").await.unwrap();
        assert_eq!(outcome(&client, "SELECT email FROM users WHERE id = 2").await.unwrap(), [Some("two".to_owned())]);
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    });
}

/// A plain table that hides a sealed one may go away.
#[test]
fn shadows_go_away() {
    let scene = scene();
    scene.cluster.psql("app", SHADOW);
    run(async {
        for steps in [
            &["DROP TABLE s.users; INSERT"][..],
            &["ALTER TABLE s.users RENAME TO gone; INSERT"],
            &["DROP SCHEMA s CASCADE; INSERT"],
            &["BEGIN", "DROP SCHEMA s CASCADE", "INSERT"],
            &["BEGIN", "ALTER SCHEMA s RENAME TO t", "INSERT"],
        ] {
            let client = connect_at(scene.proxy.address(), "app").await;
            outcome(&client, FRESH).await.unwrap();
            outcome(&client, "SET search_path = s, public").await.unwrap();
            outcome(&client, "SELECT email FROM users LIMIT 0").await.unwrap();
            for step in steps {
                let result = outcome(&client, &step.replace("INSERT", CANARY)).await;
                // In a transaction of its own the session is asked what the name means now.
                let refused = step.contains("INSERT") && steps[0] != "BEGIN";
                assert_eq!(result.is_err(), refused, "{steps:?}: {result:?}");
            }
        }
        for discard in ["DISCARD TEMP", "DISCARD ALL"] {
            let client = connect_at(scene.proxy.address(), "app").await;
            outcome(&client, "CREATE TEMP TABLE users (id int8, account_id int8, email text)").await.unwrap();
            outcome(&client, "SELECT email FROM users LIMIT 0").await.unwrap();
            outcome(&client, discard).await.unwrap();
            outcome(&client, CANARY).await.unwrap_or_else(|e| panic!("after {discard}: {e}"));
            outcome(&client, "DELETE FROM users WHERE id = 7").await.unwrap();
        }
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    });
}

/// What is written to is the table, also where a WITH query has its name.
#[test]
fn a_with_query_does_not_hide_the_table_written_to() {
    let scene = scene();
    run(async {
        let client = connect_at(scene.proxy.address(), "app").await;
        for change in [
            "INSERT INTO users (id, account_id, email) VALUES (7, 1, 'canary7f3')",
            "UPDATE users SET email = 'canary7f3' WHERE id = 1",
            "DELETE FROM users WHERE email = 'canary7f3'",
        ] {
            let result = outcome(&client, &format!("WITH users AS (SELECT 1 AS id, '' AS email) {change}")).await;
            assert!(result.as_ref().is_err_and(|e| e.starts_with("0A000")), "{change}: {result:?}");
        }
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    });
}

/// Names of statements and portals are cut at 63 bytes, as in the server.
#[test]
fn names_of_statements_are_cut_like_the_servers() {
    let scene = scene();
    run(async {
        let mut raw = Raw::connect(&scene).await;
        let long = "n".repeat(70);
        assert_eq!(tags(&raw.round(&[parse(&long, INSERT), SYNC]).await), "1Z");
        let other = [bind("", &"n".repeat(65), &["1", "canary7f3"]), execute(""), SYNC];
        assert_eq!(tags(&raw.round(&other).await), "2CZ");
        let sql = format!("EXECUTE {long}(2, 'canary7f3')");
        assert!(tags(&raw.round(&[query(&sql)]).await).ends_with("CZ"));
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    });
}

/// The row type of a sealed table takes no plaintext to the server either.
#[test]
fn row_types_take_no_plaintext() {
    let scene = scene();
    run(async {
        let client = connect_at(scene.proxy.address(), "app").await;
        for sql in [
            "SELECT ROW(1, 1, 'canary7f3', NULL)::users",
            "SELECT CAST('(1,1,canary7f3,)' AS public.users)",
            "SELECT users '(1,1,canary7f3,)'",
            "SELECT '{\"(1,1,canary7f3,)\"}'::users[]",
        ] {
            let result = outcome(&client, sql).await;
            assert!(result.as_ref().is_err_and(|e| e.starts_with("0A000")), "{sql}: {result:?}");
        }
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    });
}
