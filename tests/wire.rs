//! The protocol on raw sockets: what a client that sends sealed statements sees must be, byte for byte, what Postgres
//! shows for a plain twin (T1, T3). Numbers in test names are those of the wire checklist in the design notes: portals
//! 17, formats 19, COPY 23 and so on.
use std::net::SocketAddr;

use crate::support::guard::poll;
use crate::support::peer::{Out, Peer, cancel, field, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::Tap;

pub const POLICY: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\nname = \"public.users\"\ntenant = { column = \"account_id\" }\n\n\
    [database.table.columns]\nemail = { type = \"text\", equality = \"tenant\" }\nage = { type = \"int4\" }\n\
    code = { type = \"varchar(20)\" }\namount = { type = \"numeric(12,2)\" }\n";

pub const ROWS: &str = "INSERT INTO users (id, account_id, email, age, code, amount) VALUES (1, 1, 'a@x', 31, 'c1', 1.5), \
    (2, 1, 'b@x', 32, 'c2', 2.5), (3, 1, 'c@x', NULL, NULL, NULL), (4, 1, 'd@x', 34, '', 4.25), (5, 1, 'e@x', 35, 'c5', 0)";

/// A cluster with `app` behind the proxy and, in `twin`, the same tables without sealing.
pub struct Wired {
    pub cluster: Cluster,
    pub site: Site,
    pub proxy: Proxy,
    /// What stands between the proxy and the server, if anything.
    pub tap: Option<Tap>,
}

pub fn wired() -> Wired {
    wired_on(Version::Any, "")
}

/// The same with a certain Postgres and further sections of the configuration.
pub fn wired_on(version: Version, sections: &str) -> Wired {
    let cluster = Cluster::start(version);
    let site = Site::new(&cluster, &format!("{sections}{POLICY}"));
    served(cluster, site, None)
}

/// The same with something between the proxy and the server.
pub fn wired_behind(version: Version, between: impl FnOnce(SocketAddr) -> Tap) -> Wired {
    let cluster = Cluster::start(version);
    let tap = between(cluster.host_port());
    let site = Site::with_upstream(tap.address(), &cluster, POLICY);
    served(cluster, site, Some(tap))
}

fn served(cluster: Cluster, site: Site, tap: Option<Tap>) -> Wired {
    cluster.createdb("app");
    cluster.createdb("twin");
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1"]);
    site.run_ok(&["tenant", "register", "2"]);
    let plain = "CREATE TABLE notes (id int8, body text); \
                 CREATE FUNCTION say() RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''hello''; END'; \
                 INSERT INTO notes SELECT n, 'note ' || n FROM generate_series(1, 5) n;";
    cluster.psql(
        "app",
        &format!(
            "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, \
        age rowseal.int4, code rowseal.varchar, amount rowseal.numeric, note text); {plain}"
        ),
    );
    cluster.psql(
        "twin",
        &format!(
            "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email text, age int4, \
        code varchar(20), amount numeric(12,2), note text); {plain}"
        ),
    );
    let proxy = site.serve();
    Wired { cluster, site, proxy, tap }
}

impl Wired {
    /// A connection through the proxy and one to the twin, the same rows in both.
    pub fn pair(&self) -> (Peer, Peer) {
        let (mut sealed, mut plain) = (self.peer(), Peer::connect(self.cluster.host_port(), "twin"));
        for peer in [&mut sealed, &mut plain] {
            assert_eq!(peer.ask("TRUNCATE users"), "C(TRUNCATE TABLE\\x00) Z(I)");
            assert_eq!(peer.ask(ROWS), "C(INSERT 0 5\\x00) Z(I)");
        }
        (sealed, plain)
    }

    pub fn peer(&self) -> Peer {
        Peer::connect(self.proxy.address(), "app")
    }
}

/// Where the replies to a step end.
#[derive(Clone, Copy)]
enum Stop {
    Ready(usize),
    Tag(u8),
}

type Step = (Out, Stop);

fn ready(out: Out) -> Step {
    (out, Stop::Ready(1))
}

fn play(peer: &mut Peer, steps: &[Step], chunk: usize) -> Vec<String> {
    let mut shown = Vec::new();
    for (out, stop) in steps {
        peer.send_in(&out.0, chunk);
        shown.push(show(&match stop {
            Stop::Ready(n) => peer.until_ready(*n),
            Stop::Tag(tag) => peer.until(*tag),
        }));
    }
    shown
}

/// Plays the steps on both and compares each step's replies; gives them.
fn agree(wired: &Wired, what: &str, steps: &[Step]) -> Vec<String> {
    let (mut sealed, mut plain) = wired.pair();
    let mut all = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let step = std::slice::from_ref(step);
        let expected = play(&mut plain, step, usize::MAX);
        let got = play(&mut sealed, step, usize::MAX);
        assert_eq!(got, expected, "{what}, step {at}\n{}", wired.proxy.log());
        all.extend(got);
    }
    let end = "SELECT id, email, age FROM users ORDER BY id";
    assert_eq!(sealed.ask(end), plain.ask(end), "{what}: the connection afterwards");
    all
}

const ALL: &str = "SELECT id, email, age, code, amount FROM users ORDER BY id";
const INSERT: &str = "INSERT INTO users (id, account_id, email, age) VALUES ($1, $2, $3, $4)";

fn insert(out: Out, id: &str, email: &str) -> Out {
    out.run(INSERT, &[Some(id), Some("1"), Some(email), Some("40")])
}

#[test]
fn line_17_portals_with_row_limits() {
    let wired = wired();
    for sql in [ALL, "SELECT id, body FROM notes ORDER BY id"] {
        let open = Out::new().query("BEGIN").parse("s", sql).bind("p", "s", &[], 0).bind("q", "s", &[], 1);
        let steps = [
            (open.execute("p", 2).execute("q", 1).sync(), Stop::Ready(2)),
            ready(Out::new().execute("p", 2).execute("q", 2).execute("p", 2).execute("p", 1).sync()),
            ready(Out::new().close('P', "p").execute("q", 0).sync()),
            ready(Out::new().execute("p", 1).sync()),
            ready(Out::new().query("ROLLBACK")),
        ];
        let shown = agree(&wired, sql, &steps);
        assert_eq!(shown[0].matches(" s").count(), 2, "{}", shown[0]);
    }
}

#[test]
fn lines_15_16_18_20_flush_describe_less_execute_close() {
    let wired = wired();
    agree(
        &wired,
        "flush",
        &[
            (Out::new().run(ALL, &[]).flush(), Stop::Tag(b'C')),
            (insert(Out::new(), "6", "f@x").flush(), Stop::Tag(b'C')),
            ready(Out::new().sync()),
        ],
    );
    agree(
        &wired,
        "an error comes before Sync",
        &[
            (Out::new().parse("", "SELECT nothing FROM users").flush(), Stop::Tag(b'E')),
            ready(Out::new().bind("", "", &[], 0).execute("", 0).sync()),
        ],
    );
    agree(
        &wired,
        "execute without describe",
        &[
            ready(Out::new().parse("", ALL).bind("", "", &[], 0).execute("", 0).sync()),
            ready(Out::new().parse("", ALL).bind("", "", &[], 1).execute("", 0).sync()),
        ],
    );
    agree(
        &wired,
        "unnamed statement across syncs",
        &[
            ready(Out::new().parse("", ALL).describe('S', "").sync()),
            ready(Out::new().bind("", "", &[], 0).execute("", 0).sync()),
            ready(Out::new().query("SELECT 1")),
            ready(Out::new().bind("", "", &[], 0).execute("", 0).sync()),
        ],
    );
    agree(
        &wired,
        "close",
        &[
            ready(Out::new().close('S', "none").close('P', "none").sync()),
            ready(
                Out::new()
                    .parse("s", ALL)
                    .bind("p", "s", &[], 0)
                    .close('P', "p")
                    .bind("p", "s", &[], 0)
                    .execute("p", 0)
                    .sync(),
            ),
            ready(Out::new().parse("s", ALL).sync()),
            ready(Out::new().close('S', "s").sync()),
            ready(Out::new().bind("", "s", &[], 0).execute("", 0).sync()),
            ready(Out::new().parse("s", "SELECT $1::text").bind("", "s", &[Some("x")], 0).execute("", 0).sync()),
        ],
    );
}

#[test]
fn lines_12_13_14_errors_and_pipelines() {
    let wired = wired();
    let bad = |out: Out| out.run("SELECT 1/0 FROM users", &[]);
    agree(
        &wired,
        "an error in a pipeline",
        &[
            ready(insert(bad(insert(Out::new(), "6", "f@x")), "7", "g@x").sync()),
            ready(insert(Out::new(), "7", "g@x").sync()),
        ],
    );
    agree(
        &wired,
        "a bad value of a sealed column in a pipeline",
        &[
            ready(
                insert(Out::new(), "6", "f@x")
                    .run(INSERT, &[Some("7"), Some("1"), Some("x"), Some("no number")])
                    .run(ALL, &[])
                    .sync(),
            ),
            ready(Out::new().run(ALL, &[]).sync()),
        ],
    );
    let three = insert(Out::new(), "6", "f@x").sync();
    let three = insert(bad(three).query("SELECT 'skipped'"), "7", "g@x").sync();
    agree(
        &wired,
        "several pipelines in one write",
        &[(insert(three, "8", "h@x").run(ALL, &[]).sync(), Stop::Ready(3))],
    );
    agree(
        &wired,
        "refusals in several pipelines",
        &[(
            bad(Out::new())
                .sync()
                .run(INSERT, &[Some("9"), Some("1"), None, Some("zz")])
                .sync()
                .query(ALL)
                .run(ALL, &[])
                .sync(),
            Stop::Ready(4),
        )],
    );
    agree(
        &wired,
        "a simple query after extended ones without sync",
        &[
            ready(insert(Out::new(), "6", "f@x").query(ALL)),
            ready(insert(Out::new(), "7", "g@x").query("SELECT 1")),
            ready(insert(Out::new(), "8", "h@x").query("SELECT 1/0 FROM users")),
        ],
    );
    agree(
        &wired,
        "an aborted transaction",
        &[
            ready(Out::new().query("BEGIN")),
            ready(Out::new().query("INSERT INTO users (id, account_id, email) VALUES (1, 1, 'again')")),
            ready(Out::new().query(ALL)),
            ready(insert(Out::new(), "8", "h@x").sync()),
            ready(Out::new().query("ROLLBACK")),
        ],
    );
    agree(
        &wired,
        "statements in one query",
        &[
            ready(Out::new().query("BEGIN; INSERT INTO users (id, account_id, email) VALUES (8, 1, 'h'); COMMIT")),
            ready(Out::new().query("SELECT 1; SELECT email FROM users WHERE id = 8; SELECT 1/0; SELECT 2")),
            ready(Out::new().query("")),
            ready(Out::new().query(";;")),
        ],
    );
}

#[test]
fn lines_25_26_notices_notifications_and_function_calls() {
    let wired = wired();
    let mut call = 1397_u32.to_be_bytes().to_vec();
    call.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, b'-', b'7', 0, 0]);
    let mut lying = 1397_u32.to_be_bytes().to_vec();
    lying.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
    agree(
        &wired,
        "function calls",
        &[
            ready(Out::new().raw(b'F', &call)),
            ready(Out::new().raw(b'F', &lying)),
            (Out::new().raw(b'F', &call).query(ALL).raw(b'F', &call), Stop::Ready(3)),
        ],
    );
    agree(
        &wired,
        "notices",
        &[
            ready(Out::new().query("SELECT say()")),
            ready(Out::new().query("DROP TABLE IF EXISTS nothing_there")),
            ready(Out::new().run("DROP TABLE IF EXISTS nothing_there", &[]).sync()),
        ],
    );
    let mut listener = wired.peer();
    assert_eq!(listener.ask("LISTEN news"), "C(LISTEN\\x00) Z(I)");
    wired.cluster.psql("app", "NOTIFY news, 'while idle'");
    let (tag, body) = listener.receive().unwrap();
    assert_eq!((tag, &body[4..]), (b'A', &b"news\0while idle\0"[..]));
    assert!(listener.ask(ALL).ends_with("Z(I)"));
}

#[test]
fn line_23_copy() {
    let wired = wired();
    let data = |out: Out| out.raw(b'd', b"6\tsi").raw(b'd', b"x\n7\tseven\n").raw(b'c', b"");
    agree(
        &wired,
        "copy of a plain table",
        &[
            (Out::new().query("COPY notes FROM STDIN"), Stop::Tag(b'G')),
            ready(data(Out::new())),
            (Out::new().run("COPY notes FROM STDIN", &[]).flush(), Stop::Tag(b'G')),
            ready(data(Out::new()).sync()),
            (Out::new().run("COPY notes FROM STDIN", &[]).sync(), Stop::Tag(b'G')),
            ready(data(Out::new()).sync()),
            (Out::new().query("COPY notes FROM STDIN"), Stop::Tag(b'G')),
            ready(Out::new().raw(b'd', b"8\tx\n").raw(b'f', b"changed my mind\0")),
            (Out::new().query("COPY notes FROM STDIN"), Stop::Tag(b'G')),
            ready(Out::new().raw(b'd', b"no number\tx\n").raw(b'd', b"9\tx\n").raw(b'c', b"")),
            ready(Out::new().query("COPY notes TO STDOUT (FORMAT csv, HEADER)")),
            ready(Out::new().run("COPY (SELECT * FROM notes ORDER BY id) TO STDOUT", &[]).sync()),
            ready(Out::new().query("SELECT * FROM notes ORDER BY id, body")),
            ready(Out::new().query("DELETE FROM notes WHERE id > 5")),
        ],
    );
    let rows = |out: Out| out.raw(b'd', b"26\t1\tsi").raw(b'd', b"x@x\t7\n27\t1\t\\N\t\\N\n").raw(b'c', b"");
    let wrong = |out: Out| out.raw(b'd', b"26\t1\tx\ty\n").raw(b'd', b"27\t1\tx\t7\n").raw(b'c', b"");
    let copy = "COPY users (id, account_id, email, age) FROM STDIN";
    agree(
        &wired,
        "copy of a sealed table",
        &[
            ready(Out::new().query(ROWS)),
            (Out::new().query(copy), Stop::Tag(b'G')),
            ready(rows(Out::new())),
            ready(
                Out::new().query("COPY (SELECT id, email, age FROM users ORDER BY id) TO STDOUT (FORMAT csv, HEADER)"),
            ),
            ready(Out::new().run("COPY (SELECT id, email FROM users ORDER BY id) TO STDOUT", &[]).sync()),
            ready(Out::new().query("DELETE FROM users WHERE id > 25")),
            (Out::new().run(copy, &[]).flush(), Stop::Tag(b'G')),
            ready(rows(Out::new()).sync()),
            ready(Out::new().query("DELETE FROM users WHERE id > 25")),
            (Out::new().run(copy, &[]).sync(), Stop::Tag(b'G')),
            ready(rows(Out::new()).sync()),
            (Out::new().query(copy), Stop::Tag(b'G')),
            ready(Out::new().raw(b'd', b"28\t1\tx\t1\n").raw(b'f', b"changed my mind\0")),
            (Out::new().query(copy), Stop::Tag(b'G')),
            ready(rows(Out::new())),
            (Out::new().query(copy), Stop::Tag(b'G')),
            ready(wrong(Out::new())),
            (Out::new().run(copy, &[]).flush(), Stop::Tag(b'G')),
            ready(wrong(Out::new()).sync()),
            ready(Out::new().query(ALL)),
            ready(Out::new().query("DELETE FROM users WHERE id > 25")),
        ],
    );
    let (mut sealed, _) = wired.pair();
    for sql in [
        "COPY users FROM '/tmp/x'",
        "COPY users (id, email) TO PROGRAM 'cat'",
        "COPY users FROM STDIN (ON_ERROR ignore)",
    ] {
        assert_eq!(sealed.ask(sql), "E(ERROR 0A000) Z(I)", "{sql}");
        sealed.send(&Out::new().run(sql, &[]).sync().0);
        assert_eq!(show(&sealed.until_ready(1)), "E(ERROR 0A000) Z(I)", "{sql}");
        assert!(sealed.ask(ALL).contains("e@x"), "usable after {sql}");
    }
    // A client that goes on with its rows does not know yet that it was refused.
    sealed.send(&data(Out::new().query("COPY users FROM STDIN (ON_ERROR ignore)")).0);
    assert_eq!(show(&sealed.until_ready(1)), "E(ERROR 0A000) Z(I)");
    assert!(sealed.ask(ALL).contains("e@x"));
}

#[test]
fn line_19_types_of_sealed_columns() {
    let wired = wired();
    let described = agree(
        &wired,
        "types",
        &[
            ready(
                Out::new()
                    .parse("", "SELECT email, age, code, amount FROM users WHERE account_id = $1 AND email = $2")
                    .describe('S', "")
                    .sync(),
            ),
            ready(
                Out::new()
                    .parse(
                        "",
                        "INSERT INTO users (id, account_id, email, age, code, amount) VALUES ($1, $2, $3, $4, $5, $6)",
                    )
                    .describe('S', "")
                    .sync(),
            ),
            ready(Out::new().parse("s", ALL).bind("p", "s", &[], 1).describe('P', "p").execute("p", 0).sync()),
            ready(Out::new().parse("s2", ALL).bind("p", "s2", &[], 0).describe('P', "p").execute("p", 0).sync()),
            ready(Out::new().query(ALL)),
            ready(Out::new().query("UPDATE users SET age = 50 WHERE account_id = 1 AND id = 1 RETURNING age, code")),
        ],
    );
    assert!(
        described[0].contains("t(\\x00\\x02\\x00\\x00\\x00\\x14\\x00\\x00\\x00\\x19)"),
        "int8, text: {}",
        described[0]
    );
    // Column number 4; type 23, 4 bytes, no typmod; text format.
    assert!(described[0].contains("age:[0, 4, 0, 0, 0, 23, 0, 4, 255, 255, 255, 255, 0, 0]"), "{}", described[0]);
    assert!(described[0].contains("code:[0, 5, 0, 0, 4, 19, 255, 255, 0, 0, 0, 24, 0, 0]"), "{}", described[0]);
}

/// One session: everything that frames can be, with what it takes to play it again.
fn session() -> Vec<Step> {
    let cells = Out::new().parse("i", INSERT);
    let cells = ["6", "7", "8"]
        .iter()
        .fold(cells, |out, id| out.bind("", "i", &[Some(id), Some("2"), Some("Zoë ☃"), None], 0).execute("", 0));
    vec![
        ready(Out::new().query("TRUNCATE users")),
        ready(Out::new().query(ROWS)),
        ready(cells.sync()),
        ready(Out::new().query(ALL)),
        ready(
            Out::new()
                .run("SELECT id, email FROM users WHERE account_id = $1 AND email = $2", &[Some("1"), Some("b@x")])
                .sync(),
        ),
        ready(Out::new().run("SELECT nothing FROM users", &[]).run(ALL, &[]).sync()),
        ready(Out::new().query("SELECT 1/0 FROM users")),
        (Out::new().query("COPY notes FROM STDIN"), Stop::Tag(b'G')),
        ready(Out::new().raw(b'd', b"99\tninety").raw(b'd', b" nine\n").raw(b'c', b"")),
        ready(Out::new().query("DELETE FROM notes WHERE id = 99 RETURNING body")),
        ready(Out::new().query("COPY users FROM '/tmp/x'")),
        (Out::new().query("COPY users (id, account_id, email) FROM STDIN"), Stop::Tag(b'G')),
        ready(Out::new().raw(b'd', b"21\t1\tco").raw(b'd', b"py@x\n22\t1\t\\N").raw(b'c', b"")),
        (Out::new().query("COPY users (id, account_id, age) FROM STDIN CSV"), Stop::Tag(b'G')),
        ready(Out::new().raw(b'd', b"23,1,\"4").raw(b'd', b"x\"\n").raw(b'd', b"24,1,5\n").raw(b'c', b"")),
        ready(Out::new().query("COPY users (id, email) TO STDOUT CSV HEADER")),
        ready(Out::new().query("DELETE FROM users WHERE id > 20")),
        (
            Out::new().run(ALL, &[]).sync().query("SELECT email FROM users WHERE id = 1").run("SELECT 1", &[]).sync(),
            Stop::Ready(3),
        ),
    ]
}

fn played(wired: &Wired, chunk: usize) -> Vec<String> {
    let mut peer = Peer::connect_in(wired.proxy.address(), "app", chunk);
    let mut shown = play(&mut peer, &session(), chunk);
    peer.send_in(&Out::new().query("SELECT pg_sleep(600), email FROM users").0, chunk);
    poll("the statement to be cancelled", || {
        let active = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND wait_event = 'PgSleep'";
        (wired.cluster.psql("app", active).trim() == "1").then_some(())
    });
    let mut canceller = Peer::bare(wired.proxy.address());
    canceller.send_in(&cancel(&peer.key), chunk);
    assert!(canceller.rest().is_empty());
    let cancelled = peer.until_ready(1);
    assert!(cancelled.iter().any(|(tag, body)| *tag == b'E' && field(body, b'C') == "57014"), "{}", show(&cancelled));
    shown.push(show(&peer.until_ready(0)));
    peer.send_in(&Out::new().raw(b'X', b"").0, chunk);
    assert!(peer.rest().is_empty());
    shown
}

#[test]
fn lines_11_27_33_any_split_of_the_bytes_gives_the_same_replies() {
    let wired = wired();
    let whole = played(&wired, usize::MAX);
    assert!(whole[3].contains("a@x"), "{whole:?}");
    for chunk in [1, 2, 3, 7] {
        assert_eq!(played(&wired, chunk), whole, "in pieces of {chunk}");
    }
}

#[test]
fn line_33_what_was_sent_before_the_end_still_counts() {
    let wired = wired();
    let (mut sealed, mut plain) = wired.pair();
    for peer in [&mut sealed, &mut plain] {
        peer.send(
            &insert(insert(Out::new(), "6", "f@x").sync(), "7", "g@x")
                .sync()
                .query("SELECT email FROM users WHERE id = 7")
                .0,
        );
        // Half a message behind whole ones is dropped.
        peer.send(b"Q\0\0\x01");
        peer.finish();
    }
    assert_eq!(show(&sealed.until_ready(3)), show(&plain.until_ready(3)));
    assert!(sealed.rest().is_empty());
    // Gone at once, without reading a reply.
    let mut gone = wired.peer();
    gone.send(&insert(insert(Out::new(), "8", "f@x").sync(), "9", "g@x").sync().raw(b'X', b"").0);
    drop(gone);
    poll("the rows of the client that left", || {
        (wired.cluster.psql("app", "SELECT count(*) FROM users").trim() == "9").then_some(())
    });
    poll("its session to end", || {
        let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'client backend' AND query LIKE 'INSERT INTO users%'";
        (wired.cluster.psql("app", left).trim() == "0").then_some(())
    });
}
