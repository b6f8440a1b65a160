//! Cells inside built values are kept as apart as others: by tenant, role and plan; their use is recorded.
use rowseal::keys::kms::local::LocalKms;
use rowseal::keys::kms::{KeyArn, Kms};

use crate::support::peer::{Out, Peer, field, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::Tap;

const POLICY: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\nname = \"public.people\"\n\
    tenant = { column = \"account_id\" }\n\n[database.table.columns]\nemail = { type = \"text\", equality = \"tenant\", mask = { keep_last = 2 } }\n\
    age = { type = \"int4\" }\n\n[[database.role]]\nname = \"masked\"\nread = \"mask\"\n\n[[database.role]]\nname = \"cells\"\nread = \"sealed\"\n\n\
    [[database.role]]\nname = \"nobody\"\nread = \"deny\"\n";

/// The same two cells of one row, in all the ways that a server builds around them.
const BUILT: &[&str] = &[
    "SELECT to_json(p) FROM people p WHERE id = 2",
    "SELECT to_jsonb(p.*)::text FROM people p WHERE id = 2",
    "SELECT json_build_object('e', email, 'a', age) FROM people WHERE id = 2",
    "SELECT jsonb_agg(email) FROM people WHERE id = 2",
    "SELECT array_agg(email) FROM people WHERE id = 2",
    "SELECT ARRAY[email, NULL] FROM people WHERE id = 2",
    "SELECT ROW(email, age) FROM people WHERE id = 2",
    "SELECT p FROM people p WHERE id = 2",
    "SELECT array_agg(p) FROM people p WHERE id = 2",
    "SELECT json_agg(x) FROM (SELECT account_id, email FROM people WHERE id = 2) x",
    "UPDATE people SET note = note WHERE id = 2 RETURNING people",
];

struct People {
    cluster: Cluster,
    tap: Tap,
    site: Site,
    proxy: Proxy,
}

fn people() -> People {
    people_with("")
}

/// The same with another setting of the database.
fn people_with(setting: &str) -> People {
    let cluster = Cluster::start(Version::Any);
    let tap = Tap::start(cluster.host_port());
    cluster.createdb("app");
    let policy = POLICY.replacen("control =", &format!("{setting}\ncontrol ="), 1);
    let site = Site::with_upstream(tap.address(), &cluster, &policy);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1"]);
    site.run_ok(&["tenant", "register", "2"]);
    cluster.psql(
        "app",
        "CREATE TABLE people (id int8 PRIMARY KEY, account_id int8, email rowseal.text, age rowseal.int4, note text);
         CREATE ROLE masked; CREATE ROLE cells; CREATE ROLE nobody;
         GRANT SELECT, INSERT, UPDATE ON people TO masked, cells, nobody;
         CREATE VIEW docs AS SELECT id, email, to_jsonb(people) AS doc FROM people;
         CREATE FUNCTION all_people() RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT to_jsonb(p) FROM people p';",
    );
    let proxy = site.serve();
    let mut peer = Peer::connect(proxy.address(), "app");
    let inserted = peer.ask(
        "INSERT INTO people VALUES (1, 1, 'ada@example.com', 36, 'n'), (2, 2, 'bob@example.com', 41, 'n'), (3, 2, NULL, NULL, NULL)",
    );
    assert!(inserted.contains("INSERT 0 3"), "{inserted}");
    People { cluster, tap, site, proxy }
}

/// What a statement gives in a protocol and format: all its rows in one, or an SQLSTATE.
fn outcome(peer: &mut Peer, sql: &str, format: Option<i16>) -> Result<Vec<u8>, String> {
    let out = match format {
        None => Out::new().query(sql),
        Some(format) => Out::new().parse("", sql).bind_as("", &[], &[format]).execute("", 0).sync(),
    };
    peer.send(&out.0);
    let replies = peer.until_ready(1);
    assert!(replies.last().unwrap().1 == b"I", "{sql}: {}", show(&replies));
    match replies.iter().find(|(tag, _)| *tag == b'E') {
        Some((_, body)) => Err(field(body, b'C')),
        None => Ok(replies.into_iter().filter(|(tag, _)| *tag == b'D').flat_map(|(_, body)| body).collect()),
    }
}

const FORMATS: [Option<i16>; 3] = [None, Some(0), Some(1)];

fn each(mut check: impl FnMut(&str, Option<i16>)) {
    for sql in BUILT {
        FORMATS.iter().for_each(|format| check(sql, *format));
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[test]
fn roles_see_what_they_may() {
    let people = people();
    let mut peer = Peer::connect(people.proxy.address(), "app");
    each(|sql, format| {
        let shown = outcome(&mut peer, sql, format).unwrap();
        assert!(contains(&shown, b"bob@example.com"), "{sql} {format:?}");
        assert!(!contains(&shown, b"c152") && !contains(&shown, b"\xc1\x52\x53"), "{sql} {format:?}");
    });
    peer.ask("SET ROLE masked");
    each(|sql, format| {
        let shown = outcome(&mut peer, sql, format).unwrap();
        assert!(contains(&shown, b"*************om") && !contains(&shown, b"bob@"), "{sql} {format:?}");
        assert!(!contains(&shown, b"41") && !contains(&shown, b"\0\0\0\x29"), "{sql} {format:?}");
    });
    assert_eq!(
        outcome(&mut peer, "SELECT to_json(p) FROM people p WHERE id = 2", None).unwrap()[6..],
        *br#"{"id":2,"account_id":2,"email":"*************om","age":null,"note":"n"}"#
    );
    peer.ask("SET ROLE cells");
    each(|sql, format| {
        let shown = outcome(&mut peer, sql, format).unwrap();
        let cells = contains(&shown, b"\\xc15253") || contains(&shown, b"\xc1\x52\x53\x01");
        assert!(cells && !contains(&shown, b"bob@"), "{sql} {format:?}");
    });
    peer.ask("SET ROLE nobody");
    each(|sql, format| assert_eq!(outcome(&mut peer, sql, format), Err("42501".to_owned()), "{sql} {format:?}"));
    peer.ask("RESET ROLE");
    assert!(outcome(&mut peer, BUILT[0], None).is_ok());
    // Nor does one that is taken on the way.
    for sql in [BUILT[0], BUILT[4], BUILT[7], "SELECT note FROM people; SELECT p FROM people p"] {
        let state = outcome(&mut peer, &format!("SET ROLE nobody; {sql}"), None);
        assert_eq!(state, Err("0A000".to_owned()), "{sql}");
    }
    let (log, sent) = (people.proxy.log() + &people.cluster.log(), people.tap.to_server());
    assert!(!log.contains("example.com") && !contains(&sent, b"example.com"));
}

#[test]
fn tenants_are_kept_apart() {
    let people = people();
    let mut peer = Peer::connect(people.proxy.address(), "app");
    // A session of one tenant sees its own rows alone.
    peer.ask("SET rowseal.tenant = '1'");
    each(|sql, format| assert_eq!(outcome(&mut peer, sql, format), Err("42501".to_owned()), "{sql} {format:?}"));
    peer.ask("SET rowseal.tenant = '2'");
    each(|sql, format| assert!(outcome(&mut peer, sql, format).is_ok(), "{sql} {format:?}"));
    peer.ask("RESET rowseal.tenant");
    // A cell pasted into another tenant's row.
    people.cluster.psql("app", "UPDATE people SET email = (SELECT email FROM people WHERE id = 1) WHERE id = 2");
    each(|sql, format| assert_eq!(outcome(&mut peer, sql, format), Err("XX001".to_owned()), "{sql} {format:?}"));
    // A row without a tenant.
    people.cluster.psql("app", "UPDATE people SET account_id = NULL WHERE id = 2");
    each(|sql, format| assert_eq!(outcome(&mut peer, sql, format), Err("XX001".to_owned()), "{sql} {format:?}"));
    // A cell of another column.
    people.cluster.psql("app", "UPDATE people SET account_id = 2, email = age::bytea WHERE id = 2");
    each(|sql, format| assert_eq!(outcome(&mut peer, sql, format), Err("XX001".to_owned()), "{sql} {format:?}"));
    assert!(!people.proxy.log().contains("panicked"), "{}", people.proxy.log());
}

#[test]
fn what_was_not_planned_stops_the_statement() {
    let people = people();
    let mut peer = Peer::connect(people.proxy.address(), "app");
    for sql in [
        "SELECT doc FROM docs",
        "SELECT p.email, d.doc FROM people p JOIN docs d ON d.id = p.id",
        "SELECT p, d.doc FROM people p JOIN docs d ON d.id = p.id",
        "SELECT to_json(x) FROM (SELECT p.id, p.account_id, p.email, d.doc FROM people p JOIN docs d ON d.id = p.id) x",
        "SELECT json_build_object('e', p.email, 'd', d.doc) FROM people p JOIN docs d ON d.id = p.id",
        "SELECT json_build_array(p.email, a) FROM people p, all_people() a",
        "SELECT ROW(p.email, a) FROM people p, all_people() a",
        "SELECT array_agg(ROW(p.email, d.doc)) FROM people p JOIN docs d ON d.id = p.id",
        "SELECT to_json(a) FROM all_people() a",
        "SELECT a FROM all_people() a",
    ] {
        for format in FORMATS {
            let state = outcome(&mut peer, sql, format).expect_err(sql);
            assert!(state == "0A000" || state == "XX001", "{sql} {format:?}: {state}");
        }
    }
    for format in ["text", "csv", "binary"] {
        let query = "SELECT p.email, d.doc FROM people p JOIN docs d ON d.id = p.id";
        let replies = peer.ask(&format!("COPY ({query}) TO STDOUT (FORMAT {format})"));
        assert!(replies.ends_with("E(ERROR 0A000) Z(I)") && !replies.contains("c15253"), "{format}: {replies}");
    }
    // A plain text that looks like a built value is no more than that.
    people.cluster.psql("app", "UPDATE people SET note = '{\"email\": \"\\xc1\"}, (\\\\xc1,'");
    for sql in BUILT {
        assert!(outcome(&mut peer, sql, None).is_ok(), "{sql}");
    }
    // One that holds a cell is not shown.
    people.cluster.psql("app", "UPDATE people SET note = email::bytea::text");
    for sql in ["SELECT to_json(p) FROM people p", "SELECT p FROM people p", "SELECT email, note FROM people"] {
        for format in FORMATS {
            assert_eq!(outcome(&mut peer, sql, format), Err("0A000".to_owned()), "{sql} {format:?}");
        }
    }
}

#[test]
fn keys_are_fetched_and_their_use_is_recorded() {
    let people = people();
    // The proxy's own: that of subcommands is shown behind it.
    let directory = people.site.path().join("audit");
    let log = || people.site.run_ok(&["audit", "show", "--json", "--directory", directory.to_str().unwrap()]);
    assert_eq!(people.proxy.stop(), 0);
    for sql in BUILT {
        for format in FORMATS {
            let before = log().len();
            // With no key at hand, in a proxy that has just begun.
            let proxy = people.site.serve();
            let mut peer = Peer::connect(proxy.address(), "app");
            let shown = outcome(&mut peer, sql, format);
            assert!(shown.is_ok_and(|shown| contains(&shown, b"bob@example.com")), "{sql} {format:?}");
            assert_eq!(proxy.stop(), 0);
            let records = log()[before..].to_owned();
            assert!(records.contains("public.people.email"), "{sql}: {records}");
            if sql.contains("age") || sql.contains("(p") {
                assert!(records.contains("public.people.age"), "{sql}: {records}");
            }
            assert!(!records.contains("example.com"));
        }
    }
    people.site.run_ok(&["audit", "verify"]);
}

#[test]
fn a_tenant_without_a_key_is_null_where_the_policy_says_so() {
    const JSON: &str = "SELECT json_agg(p ORDER BY id) FROM people p WHERE id < 3";
    let shown = |setting: &str| {
        let people = people_with(setting);
        assert_eq!(people.proxy.stop(), 0);
        let arn = people.cluster.psql("app", "SELECT arn FROM rowseal.master_key WHERE tenant = '2'");
        let keyring = LocalKms::open(people.site.path().join("keyring.toml")).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(keyring.disable(&KeyArn::new(arn.trim()))).unwrap();
        let proxy = people.site.serve();
        let mut peer = Peer::connect(proxy.address(), "app");
        [JSON, BUILT[4], BUILT[6], BUILT[7]].map(|sql| FORMATS.map(|format| outcome(&mut peer, sql, format)))
    };
    for outcomes in shown("").iter().flatten() {
        assert_eq!(*outcomes, Err("55000".to_owned()));
    }
    let [json, array, row, whole] = shown("on_key_unavailable = \"null\"").map(|all| all.map(Result::unwrap));
    for format in json {
        let text = String::from_utf8_lossy(&format).into_owned();
        assert!(text.contains("ada@example.com") && text.contains(r#""email":null,"age":null"#), "{text}");
    }
    assert_eq!([&array[0][6..], &array[1][6..]], [b"{NULL}"; 2]);
    assert_eq!(array[2][6..], *b"\0\0\0\x01\0\0\0\x01\0\0\0\x19\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff");
    assert_eq!(row[0][6..], *b"(,)");
    assert_eq!(row[2][6..], *b"\0\0\0\x02\0\0\0\x19\xff\xff\xff\xff\0\0\0\x17\xff\xff\xff\xff");
    assert_eq!(whole[1][6..], *b"(2,2,,,n)");
}
