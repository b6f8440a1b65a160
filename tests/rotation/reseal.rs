//! The deeper kind of rotation: other data keys and payloads too.
use std::collections::BTreeSet;

use super::load::Load;
use super::stage::{FEW, Stage, assert_ok, said};
use crate::support::guard::poll;
use crate::support::postgres::Version;

/// What of a person's cells must not stay, and what must.
const OF_PEOPLE: &str = "SELECT id, encode(substring(rowseal.slot(email) FOR 16), 'hex'),
    encode(substring(email FROM octet_length(email) - 40), 'hex'), encode(rowseal.eq(email), 'hex'),
    octet_length(email) - rowseal.slot_length(email), octet_length(ssn) - rowseal.slot_length(ssn),
    rowseal.slot(email) = rowseal.slot(ssn) FROM people WHERE account_id = 1 AND id < 100000 ORDER BY id";

#[test]
fn values_are_sealed_anew_while_clients_write() {
    for wrapping in ["direct", "hierarchical"] {
        let stage = Stage::start(wrapping, Version::V15);
        let proxy = stage.serve();
        stage.fill(proxy.address(), FEW);
        let mut expected = Stage::expected(FEW);
        let before = people(&stage);
        let load = Load::start(&stage, proxy.address());
        let rotated = stage.rotate(&["--depth", "reseal"]);
        load.stop(&stage, &mut expected);
        assert_ok(&rotated);
        stage.check_done();
        let after = people(&stage);
        assert_eq!(before.len(), after.len());
        for (old, new) in before.iter().zip(&after) {
            assert_eq!(old[0], new[0]);
            assert!(old[1] != new[1] && old[2] != new[2], "data key or payload of person {} stayed", old[0]);
            // Token, lengths and that the cells of a row share a data key.
            assert_eq!(old[3..], new[3..]);
        }
        let deks: BTreeSet<&String> = after.iter().map(|row| &row[1]).collect();
        assert_eq!(deks.len(), after.len(), "two rows share a data key");
        assert_eq!(stage.contents(proxy.address()), expected);
        stage.check_search(proxy.address(), &expected);
        let log = stage.admin_log();
        assert!(log.contains("seal rows anew") && !log.contains("example.com") && !log.contains("078-05"), "{log}");
    }
}

fn people(stage: &Stage) -> Vec<Vec<String>> {
    let rows = stage.cluster.psql("app", OF_PEOPLE);
    rows.lines().map(|row| row.split('|').map(str::to_owned).collect()).collect()
}

#[test]
fn it_goes_on_at_the_depth_it_was_begun_with() {
    let stage = Stage::start("hierarchical", Version::V15);
    let proxy = stage.serve();
    stage.fill(proxy.address(), FEW);
    let rotating = stage.start_rotation(&["--depth", "reseal", "--max-rows-per-second", "40"]);
    poll("rewrapping", || (stage.state() == "rewrapping").then_some(()));
    let all = stage.cells_under_old_keys();
    poll("progress", || (stage.cells_under_old_keys() < all).then_some(()));
    rotating.kill();
    let refused = stage.rotate(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("with --depth reseal is under way"), "{}", said(&refused));
    // A payload that does not open is damage here, though its data key unwraps.
    let last = "octet_length(note) - 1";
    let flip = format!("UPDATE events SET note = set_byte(note, {last}, get_byte(note, {last}) # 1)");
    let id = stage
        .cluster
        .psql("app", &format!("{flip} WHERE id = (SELECT max(id) FROM events WHERE account_id = 1) RETURNING id"));
    let failed = stage.rotate(&["--depth", "reseal"]);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(said(&failed).contains("1 cells do not unwrap"), "{}", said(&failed));
    stage.cluster.psql("app", &format!("DELETE FROM events WHERE id = {id}"));
    assert_ok(&stage.rotate(&["--depth", "reseal"]));
    stage.check_done();
    let mut expected = Stage::expected(FEW);
    expected.events.remove(&id.parse().unwrap());
    assert_eq!(stage.contents(proxy.address()), expected);
}
