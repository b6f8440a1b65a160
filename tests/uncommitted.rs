//! DDL in a transaction that is still open: what it makes cannot be seen in the schema, and values for it stay here.
use crate::support::peer::Peer;
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
