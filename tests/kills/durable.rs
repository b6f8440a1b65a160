//! What must be on disk before a key is made, whatever the server's settings are.
use std::collections::BTreeSet;

use serde_json::json;

use crate::rotation::stage::{POLICY, Stage};
use crate::support::guard::poll;
use crate::support::postgres::{Cluster, Version};

/// Commits that are not asked to be on disk stay in memory for longer than this test runs.
const LAZY: [(&str, &str); 2] = [("synchronous_commit", "off"), ("wal_writer_delay", "10s")];

#[test]
fn a_server_that_crashes_forgets_no_key_that_was_made() {
    let mut stage = Stage::on(Cluster::start_with(Version::Any, &LAZY), POLICY, "direct", true);
    for command in [["tenant", "register", "3"], ["key", "rotate", "1"]] {
        stage.cluster.psql("app", "CHECKPOINT");
        let stopped = stage.strict.as_ref().unwrap().stopped();
        stage.set(&json!({"hold": 1, "only": "CreateKey"}));
        let running = stage.begin(&command, &[]);
        poll("the key", || (stage.strict.as_ref().unwrap().stopped() > stopped).then_some(()));
        stage.cluster.crash();
        running.kill();
        stage.cluster.restart();
        stage.calm();
        stage.site.run_ok(&command);
        let tenant = command[2];
        let keys =
            stage.runtime.block_on(async { stage.console().find_by_tag("rowseal:tenant", tenant).await.unwrap() });
        let keys: BTreeSet<String> = keys.iter().map(ToString::to_string).collect();
        let known = stage.cluster.psql("app", &format!("SELECT arn FROM rowseal.master_key WHERE tenant = '{tenant}'"));
        assert_eq!(keys, known.lines().map(str::to_owned).collect(), "{command:?}: a key that nobody knows");
    }
}

#[test]
fn a_server_that_crashes_brings_nothing_back_that_a_purge_has_not_counted() {
    let mut stage = Stage::on(Cluster::start_with(Version::Any, &LAZY), POLICY, "direct", true);
    let proxy = stage.serve();
    let insert = "INSERT INTO people (id, account_id, email, ssn) VALUES (1, 1, 'a@x', 's')";
    stage.cluster.psql_at(proxy.address(), "app", insert).unwrap();
    assert_eq!(proxy.stop(), 0);
    stage.cluster.psql(
        "app",
        "CREATE TABLE backup AS SELECT * FROM ONLY people; ALTER TABLE backup ALTER email TYPE bytea, ALTER ssn TYPE bytea",
    );
    stage.site.run_ok(&["key", "rotate", "1"]);
    stage.cluster.psql("app", "TRUNCATE ONLY people; INSERT INTO people SELECT * FROM backup; CHECKPOINT");
    stage.cluster.psql("app", "DELETE FROM people");
    let stopped = stage.strict.as_ref().unwrap().stopped();
    stage.set(&json!({"hold": 1, "only": "ScheduleKeyDeletion"}));
    let running = stage.begin(&["key", "purge", "1", "--yes"], &[]);
    poll("the deletion", || (stage.strict.as_ref().unwrap().stopped() > stopped).then_some(()));
    stage.cluster.crash();
    running.kill();
    stage.cluster.restart();
    assert_eq!(stage.cluster.psql("app", "SELECT count(*) FROM people"), "0", "a row under a key that will be deleted");
}
