//! Which role a session has is followed, however it changes.
use super::*;

/// What is seen of row 2 now: `open`, `mask`, `sealed` or `deny`.
fn sees(peer: &mut Peer, way: Way) -> &'static str {
    let replies = replies(peer, &["SELECT email FROM people WHERE id = 2".to_owned()], way);
    let shown = bytes(&replies);
    match error(&replies).as_deref() {
        Some("42501") => "deny",
        Some(other) => panic!("{other}: {}", show(&replies)),
        None if contains(&shown, SECRETS[0].as_bytes()) => "open",
        None if contains(&shown, MASKS[0].as_bytes()) => "mask",
        None if shows_cell(&shown) => "sealed",
        None => panic!("{}", show(&replies)),
    }
}

#[test]
fn roles_are_followed_on_15() {
    followed(Version::V15);
}

#[test]
fn roles_are_followed_on_18() {
    followed(Version::V18);
}

fn followed(version: Version) {
    let scene = scene(version);
    for way in WAYS {
        let mut peer = Peer::connect(scene.proxy.address(), "app");
        for (statements, expected) in [
            (&["SELECT 1"][..], "open"),
            (&["SET ROLE masked"], "mask"),
            (&["SET SESSION ROLE 'nobody'"], "deny"),
            (&["set /* x */ role = cells"], "sealed"),
            (&["RESET ROLE"], "open"),
            (&["SET ROLE masked", "SET ROLE NONE"], "open"),
            (&["BEGIN", "SET LOCAL ROLE nobody"], "deny"),
            (&["COMMIT"], "open"),
            (&["BEGIN", "SET LOCAL ROLE masked"], "mask"),
            (&["SAVEPOINT s", "SET LOCAL ROLE cells"], "sealed"),
            (&["ROLLBACK TO s"], "mask"),
            (&["RELEASE s", "SET ROLE nobody"], "deny"),
            (&["ROLLBACK"], "open"),
            (&["BEGIN", "SET ROLE masked", "COMMIT"], "mask"),
            (&["BEGIN", "RESET ROLE"], "open"),
            (&["ROLLBACK AND CHAIN"], "mask"),
            (&["SET ROLE cells", "ABORT"], "mask"),
            (&["SET SESSION AUTHORIZATION nobody"], "deny"),
            (&["SET SESSION AUTHORIZATION cells"], "sealed"),
            (&["RESET SESSION AUTHORIZATION"], "open"),
            (&["BEGIN", "SET LOCAL SESSION AUTHORIZATION masked"], "mask"),
            (&["END"], "open"),
            (&["SELECT set_config('role', 'masked', false)"], "mask"),
            (&["SELECT pg_catalog.\"set_config\"('role', 'none', false)"], "open"),
            (&["SELECT become('cells')"], "sealed"),
            (&["DISCARD ALL"], "open"),
            (&["DO $$ BEGIN SET ROLE nobody; END $$"], "deny"),
            (&["RESET ALL"], "deny"),
            (&["SELECT become('none')"], "open"),
            (&["PREPARE p AS SELECT become('masked')", "EXECUTE p"], "mask"),
            (&["DEALLOCATE p", "SET role TO 'none'"], "open"),
            (&["CREATE ROLE IF_NOT", "SET ROLE if_not", "RESET ROLE", "DROP ROLE if_not"], "open"),
        ] {
            for sql in statements {
                let replies = replies(&mut peer, &[(*sql).to_owned()], way);
                assert_eq!(error(&replies), None, "{sql}");
            }
            assert_eq!(sees(&mut peer, way), expected, "{way:?} {statements:?}");
            if expected == "deny" && !show(&replies(&mut peer, &["SELECT 1".to_owned()], Way::Simple)).ends_with("Z(I)")
            {
                // The refusal has failed the transaction.
                peer.ask(if statements.contains(&"SAVEPOINT s") { "ROLLBACK TO s" } else { "SELECT 1" });
            }
        }
    }
}

/// A role that changes in the text or the pipeline of a statement.
#[test]
fn a_change_on_the_way_is_not_overlooked() {
    let scene = scene(Version::Any);
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    let select = "SELECT email FROM people WHERE id = 2";
    for first in [
        "SET ROLE nobody",
        "SELECT set_config('role', 'nobody', false)",
        "SELECT become('nobody')",
        "DO $$ BEGIN SET ROLE nobody; END $$",
        "/* x */ SET ROLE nobody",
        "SELECT 1; SET LOCAL ROLE nobody",
        "BEGIN; SET ROLE nobody",
        "WITH x AS (SELECT become('nobody')) SELECT * FROM x",
    ] {
        let replies = replies(&mut peer, &[format!("{first}; {select}")], Way::Simple);
        assert_eq!(tells(&bytes(&replies)), None, "{first}");
        assert!(error(&replies).is_some(), "{first}");
        peer.ask("ROLLBACK");
        peer.ask("RESET ROLE");
        // In one pipeline.
        if !first.contains(';') || first.starts_with("DO") {
            let run = |out: Out, sql: &str| out.parse("", sql).bind("", "", &[], 0).execute("", 0);
            peer.send(&run(run(Out::new(), first), select).sync().0);
            let replies = peer.until_ready(1);
            assert_eq!(tells(&bytes(&replies)), None, "{first}");
            assert_eq!(error(&replies).as_deref(), Some("42501"), "{first}");
            peer.ask("RESET ROLE");
        }
    }
    assert_eq!(sees(&mut peer, Way::Simple), "open");
    // A cursor shows what the role may see that fetches.
    for sql in ["BEGIN", "DECLARE c CURSOR FOR SELECT email FROM people WHERE id = 2", "SET LOCAL ROLE masked"] {
        peer.ask(sql);
    }
    let shown = bytes(&replies(&mut peer, &["FETCH c".to_owned()], Way::Simple));
    assert!(contains(&shown, MASKS[0].as_bytes()) && tells(&shown).is_none());
    peer.ask("ROLLBACK");
}

/// Settings of roles and databases count from the login on; membership counts, and changes to it made elsewhere.
#[test]
fn membership_and_settings_of_roles_count() {
    let scene = scene(Version::Any);
    scene.cluster.psql("app", "CREATE ROLE app LOGIN IN ROLE opener, masked; ALTER ROLE app SET role = 'masked'");
    let mut app = scene.login("app");
    assert_eq!(sees(&mut app, Way::Text), "mask");
    app.ask("SET ROLE NONE");
    assert_eq!(sees(&mut app, Way::Text), "open");
    // What the session itself grants and revokes.
    let mut dba = Peer::connect(scene.proxy.address(), "app");
    dba.ask("SET SESSION AUTHORIZATION joe");
    assert_eq!(sees(&mut dba, Way::Text), "open");
    for (sql, expected) in [
        ("GRANT nobody TO joe", "deny"),
        ("GRANT masked TO joe", "mask"),
        ("REVOKE masked FROM joe", "deny"),
        ("ALTER GROUP masked ADD USER joe", "mask"),
        ("ALTER ROLE masked RENAME TO veiled", "deny"),
        ("ALTER ROLE veiled RENAME TO masked", "mask"),
        ("BEGIN; REVOKE masked FROM joe", "deny"),
        ("ROLLBACK", "mask"),
    ] {
        dba.ask("RESET SESSION AUTHORIZATION");
        let shown = dba.ask(sql);
        assert!(!shown.contains("E("), "{sql}: {shown}");
        dba.ask("SET SESSION AUTHORIZATION joe");
        assert_eq!(sees(&mut dba, Way::Text), expected, "{sql}");
    }
    // And what another one does: within a second or so, also for a session that has asked long ago.
    let mut joe = scene.login("joe");
    assert_eq!(sees(&mut joe, Way::Text), "mask");
    for (sql, expected) in
        [("REVOKE masked FROM joe", "deny"), ("GRANT opener TO joe", "open"), ("REVOKE opener FROM joe", "deny")]
    {
        scene.cluster.psql("app", sql);
        crate::support::guard::poll(sql, || (sees(&mut joe, Way::Binary) == expected).then_some(()));
    }
}

/// A transaction with an old snapshot answers, and what it saw does not outlive it.
#[test]
fn an_old_snapshot_holds_up_nothing_and_ends_with_its_transaction() {
    let scene = scene(Version::Any);
    scene.cluster.psql("app", "GRANT opener, nobody TO joe");
    let mut joe = scene.login("joe");
    assert_eq!(sees(&mut joe, Way::Text), "open");
    joe.ask("BEGIN ISOLATION LEVEL REPEATABLE READ");
    joe.ask("SELECT count(*) FROM pg_class");
    scene.cluster.psql("app", "REVOKE opener FROM joe");
    let mut other = scene.login("joe");
    let closed = || (sees(&mut other, Way::Text) != "open").then_some(());
    crate::support::guard::poll("the proxy sees the change", closed);
    joe.ask("SELECT email FROM people WHERE id = 2");
    joe.ask("ROLLBACK");
    assert_ne!(sees(&mut joe, Way::Text), "open");
}
