//! DDL in a transaction that is still open: what it makes cannot be seen in the schema, and values for it stay here.
use crate::support::peer::{Out, Peer, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::{Tap, contains};

const POLICY: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\nname = \"secure.users\"\n\
    tenant = { column = \"account_id\" }\n\n[database.table.columns]\nemail = { type = \"text\", equality = \"tenant\" }\n";

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
    cluster.psql(
        "app",
        "CREATE SCHEMA secure; CREATE TABLE secure.users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, note text); \
         CREATE SCHEMA plain; CREATE TABLE plain.users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email text, note text)",
    );
    let proxy = site.serve();
    Scene { cluster, _site: site, tap, proxy }
}

#[test]
fn values_for_what_a_transaction_has_moved_or_made_stay_here() {
    let scene = scene();
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    let columns = "(id, account_id, email) VALUES (1, 1, 'canary7f3')";
    for (ddl, used) in [
        (&["ALTER SCHEMA secure RENAME TO safe"][..], "safe.users"),
        (&["ALTER SCHEMA plain RENAME TO old", "ALTER SCHEMA secure RENAME TO plain"], "plain.users"),
        (&["ALTER SCHEMA secure RENAME TO safe", "SET search_path = safe"], "users"),
        (&["DO $$ BEGIN EXECUTE 'ALTER SCHEMA secure RENAME TO safe'; END $$"], "safe.users"),
        (&["CREATE TABLE fresh (id int8, account_id int8, email rowseal.text)"], "fresh"),
        (
            &["CREATE TABLE IF NOT EXISTS plain.\"Fresh\" (id int8, account_id int8, email \"rowseal\".text)"],
            "plain.\"Fresh\"",
        ),
        (
            &["CREATE TABLE fresh (id int8, account_id int8)", "ALTER TABLE fresh ADD COLUMN email rowseal.text"],
            "fresh",
        ),
        (&["CREATE DOMAIN mail AS rowseal.text", "CREATE TABLE fresh (id int8, account_id int8, email mail)"], "fresh"),
        (
            &[
                "CREATE TEMP TABLE fresh (id int8, account_id int8, email rowseal.text)",
                "ALTER TABLE fresh RENAME TO newer",
            ],
            "newer",
        ),
        (&["DO $$ BEGIN CREATE TABLE fresh (id int8, account_id int8, email rowseal.text); END $$"], "fresh"),
        (
            &[
                "CREATE TABLE fresh (id int8, account_id int8, email rowseal.text)",
                "CREATE VIEW seen AS SELECT * FROM fresh",
            ],
            "seen",
        ),
    ] {
        for sql in [
            format!("INSERT INTO {used} {columns}"),
            format!("UPDATE {used} SET email = 'canary7f3'"),
            format!("SELECT id FROM {used} WHERE email = 'canary7f3'"),
            format!("PREPARE p AS INSERT INTO {used} {columns}"),
        ] {
            assert_eq!(peer.ask("BEGIN"), "C(BEGIN\\x00) Z(T)");
            // A definition that is refused makes nothing: the statement behind it then meets a failed transaction.
            let refused = ddl.iter().any(|ddl| peer.ask(ddl).starts_with("E(ERROR 0A000)"));
            assert!(
                !refused || ddl.iter().any(|ddl| ddl.contains("RENAME TO newer") || ddl.contains("VIEW")),
                "{ddl:?}"
            );
            let shown = peer.ask(&sql);
            let code = if refused { "25P02" } else { "0A000" };
            assert!(shown.starts_with(&format!("E(ERROR {code})")), "{ddl:?}, {sql}: {shown}\n{}", scene.proxy.log());
            peer.ask("ROLLBACK");
            peer.ask("RESET search_path");
        }
    }
    // A sealed table does not change its schema alone.
    assert!(peer.ask("ALTER TABLE secure.users SET SCHEMA plain").starts_with("E(ERROR 0A000)"));
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a value reached the server");
    assert!(!scene.cluster.log().contains("canary7f3"), "a value is in the server's log");
}

/// The schema is read again, because of DDL before, while the DDL that matters is held.
#[test]
fn what_is_made_while_the_schema_is_read_is_noted() {
    let scene = scene();
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    for sql in [
        "CREATE TABLE spare (id int8)",
        "BEGIN; CREATE DOMAIN mail AS rowseal.text",
        "CREATE TABLE fresh (id int8, account_id int8, email mail)",
    ] {
        assert!(!peer.ask(sql).contains("E("), "{sql}");
    }
    let shown = peer.ask("INSERT INTO fresh VALUES (1, 1, 'canary7f3')");
    assert!(shown.starts_with("E(ERROR 0A000)"), "{shown}");
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a value reached the server");
}

#[test]
fn what_a_transaction_has_made_is_used_where_nothing_is_sealed() {
    let scene = scene();
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    for sql in [
        "INSERT INTO plain.users VALUES (1, 1, 'x', 'y')",
        "BEGIN",
        "CREATE TABLE notes (id int8, body text)",
        "INSERT INTO notes VALUES (1, 'x')",
        "ALTER TABLE notes RENAME TO remarks",
        "UPDATE remarks SET body = 'y' WHERE id = 1",
        "ALTER TABLE remarks ADD COLUMN more text",
        "UPDATE remarks SET more = 'z' WHERE body = 'y'",
        "COMMIT",
        "INSERT INTO secure.users VALUES (1, 1, 'a@x', 'n')",
        "BEGIN",
        "CREATE TABLE plain.more (id int8)",
        "INSERT INTO plain.users VALUES (2, 1, 'x', 'y')",
        "SELECT email FROM secure.users WHERE account_id = 1 AND email = 'a@x'",
        "COMMIT",
        "BEGIN",
        "CREATE TABLE fresh (id int8, account_id int8, email rowseal.text)",
        "SELECT count(*) FROM fresh",
        "CREATE INDEX ON fresh (id)",
        "COMMIT",
        "INSERT INTO plain.users VALUES (3, 1, 'x', 'y')",
        "SELECT email FROM secure.users WHERE account_id = 1 AND email = 'a@x'",
        "DROP TABLE fresh",
        "CREATE TABLE fresh (id int8, email text)",
        "INSERT INTO fresh VALUES (1, 'x')",
    ] {
        let shown = peer.ask(sql);
        assert!(!shown.contains("E("), "{sql}: {shown}");
    }
}

/// The first statement after the COMMIT already knows what the transaction has made.
#[test]
fn what_a_transaction_has_made_is_known_once_it_is_committed() {
    let scene = scene();
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    for (n, end) in ["COMMIT", "END; SELECT 1", "COMMIT AND CHAIN"].iter().enumerate() {
        for sql in ["BEGIN", &format!("CREATE TABLE fresh{n} (id int8, email rowseal.text)"), end] {
            assert!(!peer.ask(sql).contains("E("), "{sql}");
        }
        let shown = peer.ask(&format!("INSERT INTO fresh{n} VALUES (1, 'canary7f3')"));
        assert!(shown.starts_with("E(ERROR"), "{end}: {shown}");
        peer.ask("ROLLBACK");
    }
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a value reached the server");
}

/// DDL and what uses it in one pipeline, with or without a Sync between them: the server has answered nothing yet.
#[test]
fn a_pipeline_is_planned_with_what_it_has_made() {
    let scene = scene();
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    let fresh =
        ["CREATE TABLE fresh (id int8, account_id int8, email rowseal.text)", "CREATE DOMAIN mail AS rowseal.text"];
    let value = [Some("canary7f3")];
    for (ddl, sql) in [
        (&fresh[..1], "INSERT INTO fresh VALUES (1, 1, $1)"),
        (
            &[fresh[1], "CREATE TABLE fresh (id int8, account_id int8, email mail)"],
            "INSERT INTO fresh VALUES (1, 1, $1)",
        ),
        (&["ALTER SCHEMA secure RENAME TO safe"], "INSERT INTO safe.users VALUES (1, 1, $1)"),
        (&["DO $$ BEGIN EXECUTE 'ALTER SCHEMA secure RENAME TO safe'; END $$"], "UPDATE safe.users SET email = $1"),
    ] {
        for synced in [false, true] {
            let mut out = if synced { Out::new().query("BEGIN") } else { Out::new() };
            for ddl in ddl {
                out = out.run(ddl, &[]);
                out = if synced { out.sync() } else { out };
            }
            let syncs = if synced { ddl.len() + 1 } else { 0 };
            peer.send(&out.run(sql, &value).sync().0);
            let shown = show(&peer.until_ready(syncs + 1));
            assert!(shown.contains("E(ERROR 0A000)"), "{ddl:?}, {sql}: {shown}");
            peer.ask("ROLLBACK");
        }
    }
    // In one text.
    for sql in [
        format!("{}; INSERT INTO fresh VALUES (1, 1, 'canary7f3')", fresh[0]),
        format!(
            "BEGIN; {}; CREATE TABLE fresh (email mail); SELECT 1; INSERT INTO fresh VALUES ('canary7f3')",
            fresh[1]
        ),
        "ALTER TABLE plain.users ADD COLUMN more \"rowseal\".text; UPDATE plain.users SET more = 'canary7f3'"
            .to_owned(),
    ] {
        assert_eq!(peer.ask(&sql), "E(ERROR 0A000) Z(I)", "{sql}");
    }
    // Prepared first, and executed when the schema has been looked at again.
    for begin in ["SELECT 1", "BEGIN"] {
        peer.ask(begin);
        let prepared = Out::new().parse("d", fresh[0]).sync().parse("s", "SELECT 2").sync();
        let executed = prepared.bind("", "d", &[], 0).execute("", 0);
        let executed = executed.parse("i", "INSERT INTO fresh VALUES (1, 1, 'canary7f3')").sync();
        peer.send(&executed.0);
        let shown = show(&peer.until_ready(3));
        assert!(shown.contains("C(CREATE TABLE\\x00) E(ERROR 0A000)"), "{begin}: {shown}");
        peer.ask("ROLLBACK");
        peer.ask("DROP TABLE IF EXISTS fresh");
        peer.ask("DEALLOCATE ALL");
    }
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a value reached the server");
    // What is not sealed goes on, in order.
    let out = Out::new().run("CREATE TABLE notes (id int8, body text)", &[]);
    let out = out.run("INSERT INTO notes VALUES (1, $1)", &[Some("x")]).run("SELECT body FROM notes", &[]);
    let out = out.run("INSERT INTO secure.users VALUES (5, 1, $1, 'n')", &value).run("DROP TABLE notes", &[]).sync();
    peer.send(&out.0);
    let shown = show(&peer.until_ready(1));
    assert!(!shown.contains("E(") && shown.contains("D(\\x00\\x01\\x00\\x00\\x00\\x01x)"), "{shown}");
    assert!(shown.contains("C(INSERT 0 1\\x00) 1 2 n C(DROP TABLE\\x00) Z(I)"), "{shown}");
    assert!(peer.ask("SELECT email FROM secure.users WHERE id = 5").contains("canary7f3"));
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a value reached the server");
}

/// The definition of a view is locked with its tables. A session that holds such a lock, in a transaction of its own, is
/// not kept waiting for what waits for it; nor are others.
#[test]
fn locks_of_a_transaction_hold_up_no_session() {
    let scene = scene();
    let make = "CREATE VIEW seen AS SELECT id, account_id, email FROM secure.users";
    scene.cluster.psql("app", make);
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    peer.wait_at_most(std::time::Duration::from_secs(20));
    for round in 0..3 {
        for sql in ["BEGIN", "ALTER TABLE secure.users ADD COLUMN more text"] {
            assert!(!peer.ask(sql).contains("E("), "{sql}");
        }
        // Something else changes the schema, so that all of it is read again.
        scene.cluster.psql("app", &format!("CREATE TABLE other{round} (id int8)"));
        let shown = peer.ask(&format!("INSERT INTO secure.users VALUES ({round}, 1, 'canary7f3', 'n', 'm')"));
        assert_eq!(shown, "C(INSERT 0 1\\x00) Z(T)");
        let mut other = Peer::connect(scene.proxy.address(), "app");
        other.wait_at_most(std::time::Duration::from_secs(20));
        assert!(!other.ask(&format!("ALTER TABLE other{round} ADD COLUMN x text")).contains("E("));
        assert_eq!(other.ask(&format!("INSERT INTO other{round} VALUES (1, 'x')")), "C(INSERT 0 1\\x00) Z(I)");
        assert!(peer.ask("ROLLBACK").ends_with("Z(I)"));
        // Its definition is read again once the lock has gone.
        crate::support::guard::poll("the view", || {
            let shown = other.ask("SELECT email FROM seen WHERE account_id = 1 AND email = 'canary7f3'");
            shown.ends_with("C(SELECT 0\\x00) Z(I)").then_some(())
        });
    }
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a value reached the server");
}

/// A view that the transaction has made another one is not taken for what it was.
#[test]
fn a_view_that_was_replaced_is_not_read_by_its_old_meaning() {
    let scene = scene();
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    let view = |condition: &str| {
        format!("CREATE OR REPLACE VIEW seen AS SELECT id, account_id, email FROM secure.users WHERE {condition}")
    };
    let search = "SELECT id FROM seen WHERE account_id = 1 AND email = 'canary7f3'";
    assert_eq!(peer.ask(&view("id < 9")), "C(CREATE VIEW\\x00) Z(I)");
    assert!(peer.ask(search).ends_with("C(SELECT 0\\x00) Z(I)"), "a view that is committed is looked through");
    assert_eq!(peer.ask("BEGIN"), "C(BEGIN\\x00) Z(T)");
    assert_eq!(peer.ask(&view("id < 5")), "C(CREATE VIEW\\x00) Z(T)");
    assert_eq!(peer.ask(search), "E(ERROR 0A000) Z(E)");
    assert_eq!(peer.ask("ROLLBACK"), "C(ROLLBACK\\x00) Z(I)");
    assert!(peer.ask(search).ends_with("C(SELECT 0\\x00) Z(I)"));
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a value reached the server");
}

/// What one session has committed, every other knows with its next statement, however it was made.
#[test]
fn what_another_session_has_made_is_known_with_the_next_statement() {
    let scene = scene();
    let (mut maker, mut user) =
        (Peer::connect(scene.proxy.address(), "app"), Peer::connect(scene.proxy.address(), "app"));
    let view = |name: &str| format!("CREATE VIEW {name} AS SELECT id, email AS seen FROM secure.users");
    let roads: [&[&str]; 6] = [
        &["{view}"],
        &["BEGIN", "{view}", "COMMIT"],
        &["BEGIN; {view}; COMMIT"],
        &["BEGIN; {view}; COMMIT; BEGIN"],
        &["BEGIN", "{view}", "COMMIT AND CHAIN"],
        &["CREATE VIEW {name} AS SELECT id, note AS seen FROM secure.users", "DROP VIEW {name}", "{view}"],
    ];
    for (n, road) in roads.iter().enumerate() {
        for within in ["", "BEGIN", "BEGIN; CREATE TEMP TABLE own ()"] {
            let name = format!("seen{n}_{}", within.len());
            user.ask(within);
            for sql in *road {
                let sql = sql.replace("{view}", &view(&name)).replace("{name}", &name);
                assert!(!maker.ask(&sql).contains("E("), "{sql}");
            }
            for sql in [
                format!("UPDATE {name} SET seen = 'canary7f3'"),
                format!("SELECT encode(seen::bytea, 'hex') FROM {name}"),
            ] {
                user.ask("SAVEPOINT s");
                assert_eq!(user.ask(&sql).split(' ').nth(1), Some("0A000)"), "{road:?} {within}: {sql}");
                user.ask("ROLLBACK TO s");
            }
            user.ask("ROLLBACK");
            maker.ask("ROLLBACK");
        }
    }
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a value reached the server");
}

/// A view that the transaction has given another name is known by that one.
#[test]
fn a_view_that_was_renamed_takes_no_plaintext() {
    let scene = scene();
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    let make = "CREATE VIEW seen AS SELECT id, account_id, email FROM secure.users";
    assert_eq!(peer.ask(make), "C(CREATE VIEW\\x00) Z(I)");
    let write = "INSERT INTO shown (id, account_id, email) VALUES (11, 1, 'canary7f3')";
    for text in ["ALTER VIEW seen RENAME TO shown", "ALTER TABLE seen RENAME TO shown"] {
        assert_eq!(peer.ask(&format!("{text}; {write}")), "E(ERROR 0A000) Z(I)", "{text}");
        assert_eq!(peer.ask("BEGIN"), "C(BEGIN\\x00) Z(T)");
        assert!(!peer.ask(text).contains("E("), "{text}");
        assert_eq!(peer.ask(write), "E(ERROR 0A000) Z(E)", "{text}");
        assert_eq!(peer.ask("ROLLBACK"), "C(ROLLBACK\\x00) Z(I)");
    }
    assert!(!peer.ask("ALTER VIEW seen RENAME TO shown").contains("E("));
    assert_eq!(peer.ask(write), "C(INSERT 0 1\\x00) Z(I)");
    assert!(peer.ask("SELECT email FROM shown WHERE account_id = 1 AND email = 'canary7f3'").contains("D("));
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a value reached the server");
}

/// What was prepared when nothing in it was sealed is looked at again before a value is bound to it.
#[test]
fn a_statement_prepared_before_takes_no_value_for_what_has_been_made_since() {
    let scene = scene();
    let (mut maker, mut user) =
        (Peer::connect(scene.proxy.address(), "app"), Peer::connect(scene.proxy.address(), "app"));
    let plain = "CREATE VIEW v AS SELECT id, note AS name FROM plain.users";
    let sealed = "CREATE VIEW v AS SELECT id, email AS name FROM secure.users";
    assert!(!maker.ask("INSERT INTO secure.users VALUES (1, 1, 'a@x', 'n')").contains("E("));
    let (write, read) = ("UPDATE v SET name = $1", "SELECT encode(name::bytea, 'hex') FROM v");
    let roads: [&[&str]; 3] = [
        &["DROP VIEW v", sealed],
        &["BEGIN", "DROP VIEW v", sealed, "COMMIT"],
        &["BEGIN; DROP VIEW v; CREATE VIEW v AS SELECT id, email AS name FROM secure.users; COMMIT"],
    ];
    let prepare = |peer: &mut Peer, (w, r): (&str, &str)| {
        let out = Out::new().parse("other", "SELECT note FROM plain.users WHERE id = $1");
        peer.send(&out.parse(r, read).parse(w, write).sync().0);
        assert_eq!(show(&peer.until_ready(1)), "1 1 1 Z(I)");
    };
    let run = |peer: &mut Peer, name: &str, params: &[Option<&str>]| {
        peer.send(&Out::new().bind("", name, params, 0).execute("", 0).sync().0);
        show(&peer.until_ready(1))
    };
    let value = [Some("canary7f3")];
    for (n, road) in roads.iter().enumerate() {
        for (names, within) in [(["w", "r"], ""), (["", "r"], ""), (["w", "r"], "BEGIN")] {
            let at = format!("{road:?} {names:?} {within}");
            maker.ask("DROP VIEW IF EXISTS v");
            assert!(!maker.ask(plain).contains("E("), "{at}");
            user.ask("DEALLOCATE ALL");
            prepare(&mut user, (names[0], names[1]));
            assert_eq!(run(&mut user, names[0], &[Some("x")]), "2 C(UPDATE 0\\x00) Z(I)", "{at}");
            assert_eq!(run(&mut user, names[1], &[]), "2 C(SELECT 0\\x00) Z(I)", "{at}");
            user.ask(within);
            for sql in *road {
                assert!(!maker.ask(sql).contains("E("), "{at}");
            }
            for (name, params) in [(names[0], &value[..]), (names[1], &[])] {
                user.ask("SAVEPOINT s");
                let shown = run(&mut user, name, params);
                assert!(shown.starts_with("E(ERROR 0A000)"), "{n} {at} {name}: {shown}");
                user.ask("ROLLBACK TO s");
            }
            // What names neither goes on.
            assert!(run(&mut user, "other", &[Some("1")]).contains("C(SELECT 0\\x00)"), "{at}");
            user.ask("ROLLBACK");
        }
    }
    // In a transaction of its own that is not committed, and in one text.
    for within in [true, false] {
        maker.ask("DROP VIEW IF EXISTS v");
        assert!(!maker.ask(plain).contains("E("));
        user.ask("DEALLOCATE ALL");
        prepare(&mut user, ("w", "r"));
        let road = if within { ["BEGIN", "DROP VIEW v", sealed].to_vec() } else { ["DROP VIEW v", sealed].to_vec() };
        for sql in road {
            assert!(!user.ask(sql).contains("E("), "{within}: {sql}");
        }
        let shown = run(&mut user, "w", &value);
        assert!(shown.starts_with("E(ERROR 0A000)"), "{within}: {shown}");
        user.ask("ROLLBACK");
    }
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a value reached the server");
}

/// A statement of which the proxy does not know whether the server has it is not taken for what it was to be.
#[test]
fn a_name_that_the_server_did_not_give_again_keeps_its_meaning() {
    let scene = scene();
    let (mut maker, mut user) =
        (Peer::connect(scene.proxy.address(), "app"), Peer::connect(scene.proxy.address(), "app"));
    assert!(!maker.ask("CREATE VIEW v AS SELECT id, note AS name FROM plain.users").contains("E("));
    user.send(&Out::new().parse("w", "UPDATE v SET name = $1").sync().0);
    assert_eq!(show(&user.until_ready(1)), "1 Z(I)");
    // There is one of that name; and a Close that the server skips closes nothing.
    user.send(&Out::new().parse("w", "SELECT $1::text").sync().parse("x", "SELECT nothing").close('S', "w").sync().0);
    let shown = show(&user.until_ready(2));
    assert!(shown.starts_with("E(ERROR 42P05) Z(I) E(ERROR 42703) Z(I)"), "{shown}");
    for sql in ["DROP VIEW v", "CREATE VIEW v AS SELECT id, email AS name FROM secure.users"] {
        assert!(!maker.ask(sql).contains("E("), "{sql}");
    }
    user.send(&Out::new().bind("", "w", &[Some("canary7f3")], 0).execute("", 0).sync().0);
    let shown = show(&user.until_ready(1));
    assert!(shown.starts_with("E(ERROR 0A000)"), "{shown}");
    // Closed and prepared again, it is as good as any.
    user.send(
        &Out::new()
            .close('S', "w")
            .parse("w", "SELECT $1::text")
            .bind("", "w", &[Some("x")], 0)
            .execute("", 0)
            .sync()
            .0,
    );
    assert!(show(&user.until_ready(1)).contains("C(SELECT 1\\x00) Z(I)"));
    assert!(!maker.ask("CREATE TABLE anything (id int8)").contains("E("));
    user.send(&Out::new().bind("", "w", &[Some("x")], 0).execute("", 0).sync().0);
    assert!(show(&user.until_ready(1)).contains("C(SELECT 1\\x00) Z(I)"));
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a value reached the server");
}
