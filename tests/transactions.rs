//! Where transactions begin and end: what the proxy asks the server on its own account must not hold a client's statement
//! in a transaction it did not open, nor end one it did (T1, T5). On both ends of the range of versions, for Postgres 18
//! changed how extended messages and simple queries share a transaction.
use crate::support::peer::{Out, Peer, show};
use crate::support::postgres::Version;
use crate::support::tap::{Tap, contains};
use crate::wire::{Wired, wired_behind, wired_on};

const VERSIONS: [Version; 2] = [Version::V15, Version::V18];

/// What another session sees.
fn seen(wired: &Wired, where_: &str) -> String {
    wired.cluster.psql("app", &format!("SELECT count(*) FROM users WHERE {where_}"))
}

#[test]
fn a_simple_query_is_committed_when_it_is_answered() {
    for version in VERSIONS {
        let wired = wired_on(version, "");
        // The first statement of a session asks for its facts, and so does one after a change of settings.
        let mut peer = wired.peer();
        for (n, before) in ["", "SET DateStyle = 'ISO'", "SELECT 1/0"].iter().enumerate() {
            peer.ask(before);
            let insert = format!("INSERT INTO users (id, account_id, email) VALUES ({n}, 1, 'x@x')");
            assert_eq!(peer.ask(&insert), "C(INSERT 0 1\\x00) Z(I)", "{version:?} after {before:?}");
            assert_eq!(seen(&wired, &format!("id = {n}")), "1", "{version:?} after {before:?}");
        }
        // An UPDATE in two steps: its lock query goes before it.
        assert_eq!(
            peer.ask("UPDATE users SET email = 'y@x', note = 'n' WHERE id < 2"),
            "C(UPDATE 2\\x00) Z(I)",
            "{version:?}"
        );
        assert_eq!(seen(&wired, "note = 'n'"), "2", "{version:?} {}", wired.cluster.log());
        assert!(
            peer.ask("UPDATE users SET email = 'z@x' WHERE id < 2 RETURNING email").ends_with("C(UPDATE 2\\x00) Z(I)")
        );
        assert_eq!(peer.ask("UPDATE users SET email = 'y@x', account_id = 1/0 WHERE id < 2"), "E(ERROR 0A000) Z(I)");
        assert_eq!(
            peer.ask("UPDATE users SET email = 'y@x', note = 1/0 WHERE id < 2"),
            "E(ERROR 22012) Z(I)",
            "{version:?}"
        );
        assert_eq!(peer.ask("INSERT INTO notes VALUES (77, 'plain')"), "C(INSERT 0 1\\x00) Z(I)", "{version:?}");
        assert_eq!(wired.cluster.psql("app", "SELECT count(*) FROM notes WHERE id = 77"), "1", "{version:?}");
    }
}

#[test]
fn a_transaction_of_the_clients_is_neither_ended_nor_left() {
    for version in VERSIONS {
        let wired = wired_on(version, "");
        let mut peer = wired.peer();
        assert_eq!(peer.ask("BEGIN"), "C(BEGIN\\x00) Z(T)");
        assert_eq!(
            peer.ask("INSERT INTO users (id, account_id, email) VALUES (1, 1, 'x@x')"),
            "C(INSERT 0 1\\x00) Z(T)"
        );
        assert_eq!(peer.ask("UPDATE users SET email = 'y@x', note = 'n' WHERE id < 2"), "C(UPDATE 1\\x00) Z(T)");
        assert_eq!(seen(&wired, "true"), "0", "{version:?}");
        assert_eq!(peer.ask("ROLLBACK"), "C(ROLLBACK\\x00) Z(I)");
        assert_eq!(seen(&wired, "true"), "0", "{version:?}");
        // In a transaction that has failed the question for the facts fails, and its error is the client's.
        for out in [
            Out::new().query("SELECT email FROM users"),
            Out::new().run("SELECT email FROM users", &[]).run("SELECT 1", &[]).sync(),
            Out::new().query("UPDATE users SET email = 'y@x', note = 'n'"),
        ] {
            assert_eq!(peer.ask("BEGIN; SELECT 1/0"), "C(BEGIN\\x00) E(ERROR 22012) Z(E)");
            peer.send(&out.0);
            assert_eq!(show(&peer.until_ready(1)), "E(ERROR 25P02) Z(E)", "{version:?}");
            assert_eq!(peer.ask("ROLLBACK"), "C(ROLLBACK\\x00) Z(I)", "{version:?}");
        }
        // A pipeline without Sync is one transaction, whatever the proxy asks in between.
        let insert = "INSERT INTO users (id, account_id, email) VALUES ($1, 1, $2)";
        let first = Out::new().run("INSERT INTO notes VALUES (78, 'first')", &[]);
        peer.send(&first.run(insert, &[Some("5"), Some("x@x")]).run("SELECT 1/0", &[]).sync().0);
        assert!(show(&peer.until_ready(1)).ends_with("E(ERROR 22012) Z(I)"), "{version:?}");
        assert_eq!(wired.cluster.psql("app", "SELECT count(*) FROM notes WHERE id = 78"), "0", "{version:?}");
        assert_eq!(seen(&wired, "id = 5"), "0", "{version:?}");
    }
}

#[test]
fn statements_that_must_stand_alone_do() {
    for version in VERSIONS {
        let wired = wired_on(version, "");
        for sql in ["VACUUM users", "CREATE INDEX CONCURRENTLY ON users (note)", "REINDEX TABLE CONCURRENTLY users"] {
            let mut plain = Peer::connect(wired.cluster.host_port(), "app");
            for out in [Out::new().query(sql), Out::new().run(sql, &[]).sync()] {
                plain.send(&out.0);
                let expected = show(&plain.until_ready(1));
                assert!(expected.contains("C("), "{version:?} {sql}: {expected}");
                let mut peer = wired.peer();
                peer.send(&out.0);
                assert_eq!(show(&peer.until_ready(1)), expected, "{version:?} {sql}");
            }
        }
    }
}

/// A Parse under a name that is taken fails, and one behind an error is skipped; what is bound behind the next Sync goes
/// to the old statement. Were it taken for the new one, a plaintext would go to the server. What is meant for a sealed
/// statement that failed goes to no other.
#[test]
fn a_bind_waits_until_it_is_known_what_its_statement_is() {
    let wired = wired_behind(Version::Any, Tap::start);
    let (sealed, plain) = (
        "INSERT INTO users (id, account_id, email) VALUES ($1, 1, $2)",
        "INSERT INTO notes (id, body) VALUES ($1, $2)",
    );
    let (bound, refused) = ("2 C(INSERT 0 1\\x00) Z(I)", "E(ERROR 26000) Z(I)");
    for (n, (first, second, then)) in [(sealed, plain, bound), (plain, sealed, refused)].into_iter().enumerate() {
        let (mut peer, id) = (wired.peer(), (60 + n).to_string());
        assert!(peer.ask("SELECT email FROM users").ends_with("Z(I)"));
        let all = Out::new().parse("one", first).sync().parse("one", second).sync();
        let value = format!("undecided-{n}");
        peer.send(&all.bind("", "one", &[Some(&id), Some(&value)], 0).execute("", 0).sync().0);
        assert_eq!(show(&peer.until_ready(3)), format!("1 Z(I) E(ERROR 42P05) Z(I) {then}"), "{first}");
        // The unnamed statement: the second Parse is skipped, for something before it has failed.
        let all = Out::new().parse("", first).sync().bind("", "none", &[], 0).parse("", second).sync();
        peer.send(&all.bind("", "", &[Some(&format!("7{n}")), Some(&value)], 0).execute("", 0).sync().0);
        assert_eq!(show(&peer.until_ready(3)), format!("1 Z(I) E(ERROR 26000) Z(I) {then}"), "{first}");
    }
    assert_eq!(seen(&wired, "id IN (60, 70) AND rowseal.is_cell(email)"), "2");
    assert!(!contains(&wired.tap.as_ref().unwrap().to_server(), b"undecided-"), "a plaintext reached the server");
}

/// The same where the proxy itself refuses the Parse, or the statement is closed again.
#[test]
fn nothing_is_bound_to_a_sealed_statement_that_is_no_more() {
    let wired = wired_behind(Version::Any, Tap::start);
    let mut peer = wired.peer();
    let bind = |out: Out, name| out.bind("", name, &[Some("1"), Some("no-more")], 0).execute("", 0).sync();
    let refused = Out::new().parse("one", "UPDATE users SET email = upper($2) WHERE id = $1").sync();
    let failed =
        Out::new().parse("two", "UPDATE users SET email = $2, nothing = 1 WHERE id = $1 AND account_id = 1").sync();
    let closed =
        Out::new().parse("three", "UPDATE users SET email = $2 WHERE id = $1 AND account_id = 1").close('S', "three");
    for (out, name, before) in [
        (refused, "one", "E(ERROR 0A000) Z(I)"),
        (failed, "two", "E(ERROR 42703) Z(I)"),
        (closed.sync(), "three", "1 3 Z(I)"),
    ] {
        peer.send(&bind(out, name).0);
        assert_eq!(show(&peer.until_ready(2)), format!("{before} E(ERROR 26000) Z(I)"), "{name}");
        assert_eq!(peer.ask(&format!("EXECUTE {name}(1, 'no-more')")), "E(ERROR 0A000) Z(I)");
    }
    peer.send(&Out::new().parse("four", "UPDATE users SET email = $2 WHERE id = $1 AND account_id = 1").sync().0);
    assert_eq!(show(&peer.until_ready(1)), "1 Z(I)");
    assert_eq!(peer.ask("EXECUTE four(100, 'no-more')"), "C(UPDATE 0\\x00) Z(I)");
    assert!(!contains(&wired.tap.as_ref().unwrap().to_server(), b"no-more"), "a plaintext reached the server");
    assert!(!wired.cluster.log().contains("no-more"));
}

/// A simple query has no parameters: none is taken for NULL.
#[test]
fn a_parameter_in_a_simple_query_is_an_error() {
    let wired = wired_on(Version::Any, "");
    let (mut sealed, mut plain) = wired.pair();
    for sql in [
        "SELECT id FROM users WHERE account_id = 1 AND email = $1",
        "INSERT INTO users (id, account_id, email) VALUES (9, 1, $1)",
        "UPDATE users SET email = $1 WHERE account_id = 1 AND id = 1",
        "UPDATE users SET email = $1, note = 'x' WHERE id < 3",
        "DELETE FROM users WHERE account_id = 1 AND email IN ('x', $1)",
    ] {
        assert_eq!(sealed.ask(sql), plain.ask(sql), "{sql}");
        assert_eq!(sealed.ask(sql), "E(ERROR 42P02) Z(I)", "{sql}");
    }
}

/// What is bound behind a refused Parse belongs to the refused statement, whatever else had its name before.
#[test]
fn values_behind_a_refused_parse_stay_with_the_proxy() {
    let wired = wired_behind(Version::Any, Tap::start);
    let mut peer = wired.peer();
    let sealed = "SELECT email FROM users WHERE account_id = $1 AND id = $2";
    peer.send(&Out::new().run(sealed, &[Some("1"), Some("1")]).sync().0);
    assert!(show(&peer.until_ready(1)).ends_with("C(SELECT 0\\x00) Z(I)"));
    let refused = "SELECT id FROM users WHERE email BETWEEN $1 AND $2";
    peer.send(&Out::new().run(refused, &[Some("behind1"), Some("behind2")]).sync().0);
    assert_eq!(show(&peer.until_ready(1)), "E(ERROR 0A000) Z(I)");
    peer.send(&Out::new().parse("", refused).flush().0);
    assert_eq!(show(&peer.until(b'E')), "E(ERROR 0A000)");
    peer.send(&Out::new().bind("", "", &[Some("behind3"), Some("1")], 0).execute("", 0).sync().0);
    assert_eq!(show(&peer.until_ready(1)), "Z(I)");
    let sent = wired.tap.as_ref().unwrap().to_server();
    assert!(!contains(&sent, b"behind"), "{}", sent.escape_ascii());
    assert_eq!(
        peer.ask("SELECT 1"),
        "T(?column?:[0, 0, 0, 0, 0, 23, 0, 4, 255, 255, 255, 255, 0, 0]) D(\\x00\\x01\\x00\\x00\\x00\\x011) C(SELECT 1\\x00) Z(I)"
    );
}
