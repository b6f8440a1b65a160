//! Do updates of many rows give each row its own key (E2), in every kind of transaction?
use std::collections::BTreeSet;

use crate::support::peer::{Out, Peer, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;

pub const POLICY: &str = r#"
[[database]]
name = "app"
control = "{control}/app"

[[database.table]]
name = "public.customers"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant" }
ssn = { type = "text" }
"#;

#[test]
fn an_update_of_many_rows_gives_each_row_a_key_of_its_own() {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let site = Site::new(&cluster, POLICY);
    site.run_ok(&["setup"]);
    for tenant in ["acme", "globex"] {
        site.run_ok(&["tenant", "register", tenant]);
    }
    cluster.psql("app", "create table customers (account_id text, email rowseal.text, ssn rowseal.text)");
    let proxy = site.serve();
    let run = |sql: &str| cluster.psql_at(proxy.address(), "app", sql).unwrap();

    run("insert into customers values ('acme', 'a', '1'), ('acme', 'b', '2'), ('globex', 'c', '3')");
    run("update customers set ssn = '9'");
    assert_eq!(run("select email, ssn from customers order by account_id"), "a|9\nb|9\nc|9");
    run("begin; update customers set ssn = '4' where account_id = 'acme'; update customers set ssn = '5'; commit");
    run("begin;\nupdate customers set ssn = '6' where account_id = 'acme';\nupdate customers set ssn = '7';\ncommit;");
    assert_eq!(run("select ssn from customers"), "7\n7\n7");

    let ids = cluster.psql("app", "select substring(ssn::bytea from 9 for 16) from customers");
    assert_eq!(ids.lines().collect::<BTreeSet<_>>().len(), 3, "data-key ids of cells without a token");
}

#[test]
fn a_policy_table_made_while_the_proxy_runs_is_seen_at_once() {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let site = Site::new(&cluster, POLICY);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "acme"]);
    let proxy = site.serve();
    cluster.psql("app", "create table customers (account_id text, email rowseal.text, ssn rowseal.text)");
    let insert = "insert into customers values ('acme', 'seen-at-once', '1')";
    cluster.psql_at(proxy.address(), "app", insert).unwrap();
    assert_eq!(cluster.psql_at(proxy.address(), "app", "select email from customers").unwrap(), "seen-at-once");
    assert!(!cluster.log().contains("seen-at-once"), "the server was sent a plaintext");
}

/// Newer servers keep an implicit transaction open over a simple query that follows messages without a Sync.
#[test]
fn a_simple_query_is_committed_when_its_answer_is_there() {
    for version in [Version::V15, Version::V18] {
        let cluster = Cluster::start(version);
        cluster.createdb("app");
        let site = Site::new(&cluster, POLICY);
        site.run_ok(&["setup"]);
        site.run_ok(&["tenant", "register", "acme"]);
        cluster.psql("app", "create table customers (account_id text, email rowseal.text, ssn rowseal.text)");
        let proxy = site.serve();
        for sql in [
            "insert into customers values ('acme', 'a', '1'), ('acme', 'b', '1')",
            "update customers set ssn = '2'",
            "update customers set ssn = '2' where account_id = 'acme' returning email",
            "vacuum customers",
            "select ssn from customers",
        ] {
            let mut peer = Peer::connect(proxy.address(), "app");
            let shown = peer.ask(sql);
            assert!(shown.ends_with("Z(I)") && !shown.contains("E("), "{sql}: {shown}");
            // A second statement in the same session, now that its facts are known.
            let again = peer.asked(sql);
            assert!(again.iter().all(|(tag, _)| *tag != 'E'), "{sql} again: {again:?}");
            peer.send(&Out::new().run("vacuum customers", &[]).sync().0);
            let shown = show(&peer.until_ready(1));
            assert!(shown.ends_with("C(VACUUM\\x00) Z(I)"), "{shown}");
            drop(peer);
        }
        assert_eq!(cluster.psql("app", "select count(*) from customers"), "4");
        let mut peer = Peer::connect(proxy.address(), "app");
        assert_eq!(peer.ask("begin"), "C(BEGIN\\x00) Z(T)");
        let shown = peer.ask("update customers set ssn = '3'");
        assert_eq!(shown, "C(UPDATE 4\\x00) Z(T)");
        let shown = peer.ask("update customers set ssn = 1/0 returning ssn");
        assert!(shown.ends_with("Z(E)"), "{shown}");
        let shown = peer.ask("update customers set ssn = '4'");
        assert_eq!(shown, "E(ERROR 25P02) Z(E)");
        assert_eq!(peer.ask("rollback"), "C(ROLLBACK\\x00) Z(I)");
        let shown = peer.ask("update customers set email = '5' where ssn is not null and 1/(account_id::int) > 0");
        assert!(shown.ends_with("Z(I)"), "{shown}");
        assert!(peer.ask("select distinct account_id from customers").ends_with("Z(I)"));
    }
}

const KEYED: &str = r#"
[[database]]
name = "app"
control = "{control}/app"

[[database.table]]
name = "public.coded"
tenant = { column = "account_id" }
columns = { label = { type = "text" } }

[[database.table]]
name = "public.numbered"
tenant = { column = "account_id" }
columns = { label = { type = "text" } }
"#;

/// A client may declare a parameter to be of a type as which several keys are equal: the rows must not share one cell.
#[test]
fn a_key_that_is_compared_as_another_type_does_not_name_one_row() {
    let cluster = Cluster::start(Version::V15);
    cluster.createdb("app");
    let site = Site::new(&cluster, KEYED);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "acme"]);
    cluster.psql(
        "app",
        "create extension citext;
         create function same(text, citext) returns bool immutable language sql as 'select lower($1) = lower($2::text)';
         create operator = (leftarg = text, rightarg = citext, function = same);
         create table coded (code text primary key, account_id text, label rowseal.text);
         create table numbered (id int8 primary key, account_id text, note float8, label rowseal.text)",
    );
    let citext: u32 = cluster.psql("app", "select 'citext'::regtype::oid").parse().unwrap();
    let proxy = site.serve();
    let mut peer = Peer::connect(proxy.address(), "app");
    let mut run = |sql: &str, oids: &[u32], params: &[Option<&str>]| {
        peer.send(&Out::new().parse_as("", sql, oids).bind("", "", params, 0).execute("", 0).sync().0);
        show(&peer.until_ready(1))
    };
    run("insert into coded values ('a', 'acme', '1'), ('A', 'acme', '1'), ('b', 'acme', '1')", &[], &[]);
    let big = "insert into numbered values (9007199254740992, 'acme', 1, '1'), (9007199254740993, 'acme', 9007199254740992, '1')";
    run(big, &[], &[]);
    let keys = |table: &str, label: &str| {
        // A cell without a token has the id of its data key behind the header.
        let read = format!("select substring(label::bytea from 9 for 16) from {table} where rowseal.is_cell(label)");
        let found = cluster.psql("app", &read);
        assert_eq!(found.lines().collect::<BTreeSet<_>>().len(), found.lines().count(), "{label}: {found}");
    };
    let coded = "update coded set label = $2 where code = $1 and account_id = 'acme'";
    let numbered = "update numbered set label = $2 where id = $1 and account_id = 'acme'";
    let twice = "update numbered set label = $2 where note <= $1 and id = $1 and account_id = 'acme'";
    for (sql, oids, key, changed) in [
        (coded, vec![citext], "a", 2),
        (coded, vec![], "a", 1),
        (coded, vec![25, 25], "A", 1),
        (coded, vec![1043], "b", 1),
        (numbered, vec![701], "9007199254740992", 2),
        (numbered, vec![], "9007199254740992", 1),
        (numbered, vec![1700], "9007199254740993", 1),
        (twice, vec![], "9007199254740992", 2),
    ] {
        let shown = run(sql, &oids, &[Some(key), Some("new")]);
        assert!(shown.contains(&format!("C(UPDATE {changed}\\x00)")), "{sql} as {oids:?}: {shown}");
        keys("coded", sql);
        keys("numbered", sql);
    }
}
