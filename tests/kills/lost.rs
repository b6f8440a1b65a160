//! Calls that cannot be made twice: an answer that is lost is no reason to stop.
use serde_json::json;

use crate::rotation::stage::{Stage, assert_ok};
use crate::support::postgres::Version;

#[test]
fn a_lost_answer_to_a_deletion_stops_neither_purge_nor_shred() {
    let stage = Stage::start("direct", Version::Any);
    stage.site.run_ok(&["key", "rotate", "1"]);
    let purge: (&[&str], &str) = (&["key", "purge", "1", "--yes"], "ScheduleKeyDeletion");
    let unpurge: (&[&str], &str) = (&["key", "unpurge", "1"], "CancelKeyDeletion");
    let shred: (&[&str], &str) = (&["tenant", "shred", "1", "--reason", "test", "--yes"], "ScheduleKeyDeletion");
    for (trouble, (command, call)) in
        [("lose_replies", purge), ("lose_replies", unpurge), ("cut", purge), ("cut", unpurge), ("lose_replies", shred)]
    {
        stage.set(&json!({trouble: 1, "only": call}));
        assert_ok(&stage.site.run(command));
        assert_eq!(json!(stage.strict.as_ref().unwrap().knobs())[trouble], 0, "{call} was not made");
    }
    let states = "SELECT DISTINCT state FROM rowseal.master_key WHERE tenant = '1'";
    assert_eq!(stage.cluster.psql("app", states), "purged");
    stage.admin_log();
}
