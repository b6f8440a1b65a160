//! A whole rotation while the application works.
use super::load::Load;
use super::stage::{MANY, Stage, assert_ok, said};
use crate::support::postgres::Version;

#[test]
fn a_key_is_rotated_in_direct_mode_while_clients_write() {
    rotates_under_load("direct", Version::V15);
}

#[test]
fn a_key_is_rotated_in_hierarchical_mode_while_clients_write() {
    rotates_under_load("hierarchical", Version::V15);
}

#[test]
fn a_key_is_rotated_on_postgres_18() {
    rotates_under_load("hierarchical", Version::V18);
}

fn rotates_under_load(wrapping: &str, version: Version) {
    let stage = Stage::start(wrapping, version);
    let proxy = stage.serve();
    stage.fill(proxy.address(), MANY);
    let mut expected = Stage::expected(MANY);
    let load = Load::start(&stage, proxy.address());
    let rotated = stage.rotate(&["--json"]);
    let written = load.stop(&stage, &mut expected);
    assert_ok(&rotated);
    assert!(written > 40, "the clients hardly worked: {written} rows");
    stage.check_done();
    assert_eq!(stage.contents(proxy.address()), expected);
    stage.check_search(proxy.address(), &expected);
    assert_eq!(stage.cluster.psql("app", "SELECT count(*) FROM more_people WHERE updated_at > '2026-01-01'"), "0");
    let states: Vec<String> = said(&rotated).lines().filter_map(state).collect();
    let in_order = ["creating", "switching", "rewrapping", "verifying", "deactivating", "done"];
    assert!(in_order.iter().all(|state| states.contains(&(*state).to_owned())), "{states:?}");
    // A proxy that starts with nothing cached reads everything too.
    assert_eq!(proxy.stop(), 0, "{}", proxy.log());
    let proxy = stage.serve();
    assert_eq!(stage.contents(proxy.address()), expected);
    acts_are_audited(&stage);
    let status = stage.site.run_ok(&["key", "status", "1", "--count"]);
    assert!(
        status.contains("rotated 20") && status.contains("deactivated") && status.contains(", 0 cells"),
        "{status}"
    );
    let shown = stage.site.run_ok(&["tenant", "show", "1", "--count"]);
    assert!(shown.contains("version 2") && shown.contains(", 0 cells"), "{shown}");
}

fn state(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(line.get("state")?.as_str()?.to_owned())
}

fn acts_are_audited(stage: &Stage) {
    let log = stage.admin_log();
    for act in [
        "\"rotate ",
        "create a master key (rotation ",
        "was created; switch",
        "wrap data keys again",
        "\"disable ",
        "was disabled",
    ] {
        assert!(log.contains(act), "no record of {act}:\n{log}");
    }
    assert!(log.contains("\"user\":\"ada\"") && !log.contains("example.com"), "{log}");
    let Some(strict) = &stage.strict else { return };
    // Every call that changed or used a key for this is found in the log, by the service's own name for it.
    for entry in
        strict.log().iter().filter(|entry| entry["operation"] == "ReEncrypt" || entry["operation"] == "DisableKey")
    {
        let id = entry["request_id"].as_str().unwrap();
        assert!(log.contains(id), "{entry} is not in the audit log");
    }
}
