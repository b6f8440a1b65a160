//! INSERT ... SELECT into sealed columns, which runs in two steps: roles, tenants, limits, transactions, cold keys (T1, T5,
//! E2, A1).
use crate::support::peer::{Out, Peer, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::{Tap, contains};

const POLICY: &str = "[limits]\nmessage_bytes_max = 65536\n\n[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n\
    [[database.table]]\nname = \"public.people\"\ntenant = { column = \"account_id\" }\n\n[database.table.columns]\n\
    email = { type = \"text\", equality = \"tenant\" }\nage = { type = \"int4\" }\n\n\
    [[database.role]]\nname = \"masked\"\nread = \"mask\"\n\n[[database.role]]\nname = \"cells\"\nread = \"sealed\"\n\n\
    [[database.role]]\nname = \"nobody\"\nread = \"deny\"\n";

struct Scene {
    cluster: Cluster,
    tap: Tap,
    site: Site,
    proxy: Proxy,
}

fn scene(version: Version) -> Scene {
    let cluster = Cluster::start(version);
    cluster.createdb("app");
    let tap = Tap::start(cluster.host_port());
    let site = Site::with_upstream(tap.address(), &cluster, POLICY);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1"]);
    site.run_ok(&["tenant", "register", "2"]);
    cluster.psql(
        "app",
        "CREATE TABLE people (id int8 PRIMARY KEY, account_id int8, email rowseal.text NOT NULL, age rowseal.int4)",
    );
    cluster.psql("app", "CREATE ROLE masked; CREATE ROLE cells; CREATE ROLE nobody");
    cluster.psql("app", "GRANT SELECT, INSERT ON people TO masked, cells, nobody");
    let proxy = site.serve();
    let mut peer = Peer::connect(proxy.address(), "app");
    let rows = "INSERT INTO people VALUES (1, 1, 'ada@example.com', 7), (2, 1, 'bob@example.com', NULL), (3, 2, 'cy@example.com', 9)";
    assert_eq!(ask(&mut peer, rows), "C(INSERT 0 3) Z(I)");
    Scene { cluster, tap, site, proxy }
}

const COPY: &str =
    "INSERT INTO people SELECT id + 10, account_id, email, age FROM people WHERE account_id = 1 AND id < 10";

fn shown(peer: &mut Peer, ready: usize) -> String {
    show(&peer.until_ready(ready)).replace("\\x00", "")
}

fn ask(peer: &mut Peer, sql: &str) -> String {
    peer.ask(sql).replace("\\x00", "")
}

fn rows(scene: &Scene) -> String {
    scene.cluster.psql("app", "SELECT count(*), count(DISTINCT substring(email::bytea from 25 for 16)) FROM people")
}

#[test]
fn roles_and_tenants_are_heeded() {
    let scene = scene(Version::Any);
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    for role in ["masked", "cells", "nobody"] {
        ask(&mut peer, &format!("SET ROLE {role}"));
        assert_eq!(ask(&mut peer, COPY), "E(ERROR 42501) Z(I)", "{role}");
        peer.send(&Out::new().run(COPY, &[]).sync().0);
        assert!(shown(&mut peer, 1).ends_with("E(ERROR 42501) Z(I)"), "{role}");
    }
    ask(&mut peer, "RESET ROLE");
    // A session of one tenant neither reads nor writes another one's rows.
    ask(&mut peer, "SET rowseal.tenant = '2'");
    assert_eq!(ask(&mut peer, COPY), "E(ERROR 42501) Z(I)");
    assert_eq!(
        ask(&mut peer, "INSERT INTO people SELECT id + 10, 1, email FROM people WHERE account_id = 2"),
        "E(ERROR 42501) Z(I)"
    );
    ask(&mut peer, "RESET rowseal.tenant");
    // Nor does a cell of another tenant's become a row's.
    scene.cluster.psql("app", "CREATE TABLE kept AS SELECT email FROM people WHERE id = 1");
    scene.cluster.psql("app", "UPDATE people SET email = (SELECT email FROM kept) WHERE id = 3");
    assert_eq!(
        ask(&mut peer, "INSERT INTO people SELECT id + 10, account_id, email FROM people WHERE id = 3"),
        "E(ERROR XX001) Z(I)"
    );
    assert_eq!(
        ask(&mut peer, "INSERT INTO people SELECT id + 10, 99, 'x' FROM people WHERE id = 1"),
        "E(ERROR 55000) Z(I)"
    );
    assert_eq!(
        ask(&mut peer, "INSERT INTO people SELECT id + 10, NULL, 'x' FROM people WHERE id = 1"),
        "E(ERROR 55000) Z(I)"
    );
    // From one tenant to another its values are sealed for the other one.
    assert_eq!(
        ask(&mut peer, "INSERT INTO people SELECT id + 20, 2, email FROM people WHERE id = 1"),
        "C(INSERT 0 1) Z(I)"
    );
    assert!(
        ask(&mut peer, "SELECT email FROM people WHERE id = 21 AND account_id = 2 AND email = 'ada@example.com'")
            .contains("ada@")
    );
    assert!(!contains(&scene.tap.to_server(), b"example.com"), "a plaintext reached the server");
    assert!(!scene.proxy.log().contains("example.com") && !scene.cluster.log().contains("example.com"));
    scene.site.run_ok(&["audit", "verify"]);
}

#[test]
fn a_transaction_holds_both_steps() {
    for version in [Version::V15, Version::V18] {
        let scene = scene(version);
        let mut peer = Peer::connect(scene.proxy.address(), "app");
        assert_eq!(ask(&mut peer, "BEGIN"), "C(BEGIN) Z(T)");
        assert_eq!(ask(&mut peer, COPY), "C(INSERT 0 2) Z(T)");
        assert_eq!(ask(&mut peer, "ROLLBACK"), "C(ROLLBACK) Z(I)");
        assert_eq!(rows(&scene), "3|3");
        // An error in the second step: nothing is left, and the session goes on.
        assert_eq!(
            ask(&mut peer, &COPY.replace("id + 10", "CASE id WHEN 1 THEN 50 ELSE 3 END")),
            "E(ERROR 23505) Z(I)"
        );
        assert_eq!(ask(&mut peer, &COPY.replace("email, age", "NULL, age")), "E(ERROR 23502) Z(I)");
        assert_eq!(ask(&mut peer, &COPY.replace("id + 10", "id / (id - 1)")), "E(ERROR 22012) Z(I)");
        assert_eq!(ask(&mut peer, &format!("SELECT 1; {COPY}")), "E(ERROR 0A000) Z(I)");
        assert_eq!(rows(&scene), "3|3");
        assert_eq!(ask(&mut peer, COPY), "C(INSERT 0 2) Z(I)");
        assert_eq!(rows(&scene), "5|5");
        // In a pipeline, with what stands before and behind it.
        let again = COPY.replace("id + 10", "id + $1");
        let out = Out::new()
            .run("INSERT INTO people VALUES (30, 1, 'eve@example.com')", &[])
            .parse("copy", &again)
            .bind("", "copy", &[Some("40")], 0)
            .execute("", 0)
            .bind("", "copy", &[Some("40")], 0)
            .execute("", 0)
            .run("SELECT 1", &[])
            .sync()
            .bind("", "copy", &[Some("60")], 0)
            .execute("", 0)
            .sync();
        peer.send(&out.0);
        let shown = shown(&mut peer, 2);
        assert!(shown.contains("E(ERROR 23505) Z(I)") && shown.ends_with("C(INSERT 0 2) Z(I)"), "{shown}");
        assert_eq!(rows(&scene), "7|7");
        assert_eq!(ask(&mut peer, "BEGIN READ ONLY"), "C(BEGIN) Z(T)");
        assert_eq!(ask(&mut peer, COPY), "E(ERROR 25006) Z(E)");
        assert_eq!(ask(&mut peer, "ROLLBACK"), "C(ROLLBACK) Z(I)");
    }
}

#[test]
fn rows_beyond_the_limit_are_refused_and_nothing_is_stored() {
    let scene = scene(Version::Any);
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    let many = "INSERT INTO people SELECT p.id + 100 * n, account_id, email FROM people p, orders WHERE p.id = 1";
    scene.cluster.psql("app", "CREATE TABLE orders AS SELECT n FROM generate_series(1, 1000) n");
    assert_eq!(ask(&mut peer, many), "E(ERROR 54000) Z(I)");
    peer.send(&Out::new().run(many, &[]).sync().0);
    assert!(shown(&mut peer, 1).ends_with("E(ERROR 54000) Z(I)"));
    assert_eq!(ask(&mut peer, &format!("{many} AND n <= 100")), "C(INSERT 0 100) Z(I)");
    assert_eq!(rows(&scene), "103|103");
    // One row that is larger by itself.
    scene.cluster.psql("app", "CREATE TABLE notes AS SELECT repeat('x', 70000) AS note");
    let one = "INSERT INTO people SELECT id + 5000, account_id, note FROM people, notes WHERE id = 1";
    assert_eq!(ask(&mut peer, one), "E(ERROR 54000) Z(I)");
    peer.send(&Out::new().run(one, &[]).sync().0);
    assert!(shown(&mut peer, 1).ends_with("E(ERROR 54000) Z(I)"));
    assert_eq!(ask(&mut peer, &format!("{many} AND n > 2000")), "C(INSERT 0 0) Z(I)");
}

/// Rows of a table that was made a moment ago, by this session or another one, as an import through a staging table has.
#[test]
fn a_staging_table_is_read_at_once() {
    for version in [Version::V15, Version::V18] {
        let scene = scene(version);
        let mut peer = Peer::connect(scene.proxy.address(), "app");
        scene.cluster.psql(
            "app",
            "CREATE TABLE staged AS SELECT 50 + n AS id, 'stage' || n AS mail FROM generate_series(1, 3) n",
        );
        let sql = "INSERT INTO people (id, account_id, email) SELECT id, 1, mail FROM staged RETURNING email";
        let shown = ask(&mut peer, sql);
        assert!(shown.contains("stage3") && shown.ends_with("C(INSERT 0 3) Z(I)"), "{shown}");
        for sql in
            ["CREATE TEMP TABLE own (n int8, mail varchar(50))", "INSERT INTO own VALUES (61, 'mine'), (62, NULL)"]
        {
            ask(&mut peer, sql);
        }
        let sql = "INSERT INTO people (id, account_id, email) SELECT n, 2, mail FROM own";
        peer.send(&Out::new().run(sql, &[]).sync().0);
        assert!(self::shown(&mut peer, 1).ends_with("E(ERROR 23502) Z(I)"));
        let some = format!("{sql} WHERE mail IS NOT NULL");
        peer.send(&Out::new().run(&some, &[]).sync().0);
        assert!(self::shown(&mut peer, 1).ends_with("C(INSERT 0 1) Z(I)"));
        assert_eq!(rows(&scene), "7|7");
    }
}

#[test]
fn keys_that_are_not_at_hand_are_waited_for() {
    let scene = scene(Version::Any);
    assert_eq!(scene.proxy.stop(), 0);
    for (n, simple) in [(1, true), (2, false)] {
        let proxy = scene.site.serve();
        let mut peer = Peer::connect(proxy.address(), "app");
        let sql = format!(
            "INSERT INTO people SELECT id + {n}00, account_id, email, age FROM people WHERE id < 10 RETURNING email"
        );
        let shown = if simple {
            ask(&mut peer, &sql)
        } else {
            peer.send(&Out::new().run(&sql, &[]).sync().0);
            shown(&mut peer, 1)
        };
        assert!(shown.contains("C(INSERT 0 3) Z(I)") && shown.contains("cy@example.com"), "{shown}");
        assert_eq!(proxy.stop(), 0);
    }
    assert_eq!(rows(&scene), "9|9");
    let shown = scene.site.run_ok(&["audit", "verify"]);
    assert!(!shown.is_empty());
}

const DEFAULTS: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\nname = \"public.t\"\n\
    tenant = { name = \"1\" }\n\n[database.table.columns]\na = { type = \"text\" }\nb = { type = \"text\" }\n\
    c = { type = \"int4\" }\nd = { type = \"text\" }\n";

#[test]
fn a_default_of_null_is_no_value() {
    for version in [Version::V15, Version::V18] {
        let cluster = Cluster::start(version);
        cluster.createdb("app");
        let site = Site::new(&cluster, DEFAULTS);
        site.run_ok(&["setup"]);
        site.run_ok(&["tenant", "register", "1"]);
        cluster.psql(
            "app",
            "CREATE TABLE t (id int8, a rowseal.text DEFAULT NULL, b rowseal.text DEFAULT NULL::rowseal.text, c rowseal.int4 NOT NULL)",
        );
        let proxy = site.serve();
        let mut peer = Peer::connect(proxy.address(), "app");
        assert_eq!(ask(&mut peer, "INSERT INTO t (id, c) VALUES (1, 5)"), "C(INSERT 0 1) Z(I)");
        assert_eq!(ask(&mut peer, "INSERT INTO t (id, a, c) SELECT 2, 'x', 6"), "C(INSERT 0 1) Z(I)");
        assert_eq!(ask(&mut peer, "INSERT INTO t VALUES (3, DEFAULT, DEFAULT, 7)"), "C(INSERT 0 1) Z(I)");
        // What is left out of a column that may not be NULL is the server's to refuse.
        assert_eq!(ask(&mut peer, "INSERT INTO t (id, a) VALUES (4, 'x')"), "E(ERROR 23502) Z(I)");
        assert_eq!(ask(&mut peer, "INSERT INTO t (id, a) SELECT id, a FROM t"), "E(ERROR 23502) Z(I)");
        assert_eq!(ask(&mut peer, "UPDATE t SET a = DEFAULT WHERE id = 2"), "C(UPDATE 1) Z(I)");
        assert_eq!(cluster.psql("app", "SELECT count(*), count(a), count(b), count(c) FROM t"), "3|0|0|3");
        // Within a transaction that changes the table, too.
        for sql in ["BEGIN", "ALTER TABLE t ADD COLUMN n int", "INSERT INTO t (id, c) VALUES (5, 5)", "COMMIT"] {
            let shown = ask(&mut peer, sql);
            assert!(shown.starts_with("C("), "{sql}: {shown}");
        }
        // Another default would be a value that the server makes, one for all rows.
        cluster.psql("app", "ALTER TABLE t ADD COLUMN d rowseal.text, ALTER COLUMN d SET DEFAULT '\\x00'");
        let refused = (0..100).any(|_| ask(&mut peer, "INSERT INTO t (id, c) VALUES (6, 5)") == "E(ERROR 0A000) Z(I)");
        assert!(refused, "a default that is a value was not refused");
        assert_eq!(ask(&mut peer, "UPDATE t SET d = DEFAULT"), "E(ERROR 0A000) Z(I)");
    }
}
