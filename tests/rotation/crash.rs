//! kill -9 of the rotating process at any point: started again, it completes, and nothing is lost or left over.
use std::time::{Duration, Instant};

use rowseal::keys::kms::KeyState;
use serde_json::json;

use super::stage::{FEW, Stage, assert_ok, said};
use crate::support::guard::poll;
use crate::support::postgres::Version;

/// Calls to the key service, in the order in which a rotation makes them, and which of their kind.
pub const CALLS: [(&str, u64); 12] = [
    ("CreateKey", 0),
    ("DescribeKey", 0),
    ("GenerateDataKey", 0),
    ("Decrypt", 0),
    ("Encrypt", 0),
    // The index root, then data keys.
    ("ReEncrypt", 0),
    ("DescribeKey", 1),
    ("ReEncrypt", 1),
    ("ReEncrypt", 60),
    ("ReEncrypt", 150),
    ("ReEncrypt", 215),
    ("DisableKey", 0),
];

#[test]
fn killed_before_any_call_to_the_key_service_it_goes_on() {
    killed_at_calls("stall");
}

#[test]
fn killed_behind_any_call_to_the_key_service_it_goes_on() {
    killed_at_calls("hold");
}

/// The proxy is not running, so that calls can be counted.
fn killed_at_calls(knob: &str) {
    let stage = Stage::start("direct", Version::V15);
    let proxy = stage.serve();
    stage.fill(proxy.address(), FEW);
    assert_eq!(proxy.stop(), 0);
    for (call, skip) in CALLS {
        stage.forget_interval();
        let stopped = stage.strict.as_ref().unwrap().stopped();
        stage.set(&json!({knob: 1, "skip": skip, "only": call}));
        let mut rotating = stage.start_rotation(&[]);
        poll(call, || {
            assert!(!rotating.has_ended(), "{call} {skip} was never made");
            (stage.strict.as_ref().unwrap().stopped() > stopped).then_some(())
        });
        rotating.kill();
        stage.calm();
        let before = stage.arns("'active', 'retiring', 'deactivated'").len();
        assert_ok(&stage.rotate(&[]));
        stage.check_done();
        let after = stage.arns("'active', 'retiring', 'deactivated'").len();
        assert!(after - before <= 1, "{call} {skip}: {before} keys, then {after}");
    }
    let proxy = stage.serve();
    let expected = Stage::expected(FEW);
    assert_eq!(stage.contents(proxy.address()), expected);
    stage.check_search(proxy.address(), &expected);
}

#[test]
fn killed_in_any_state_in_direct_mode_it_goes_on() {
    killed_in_states("direct");
}

#[test]
fn killed_in_any_state_in_hierarchical_mode_it_goes_on() {
    killed_in_states("hierarchical");
}

fn killed_in_states(wrapping: &str) {
    let stage = Stage::start(wrapping, Version::V15);
    let proxy = stage.serve();
    stage.fill(proxy.address(), FEW);
    let wait_for = |state: &str| poll(state, || (stage.state() == state).then_some(()));
    // A proxy that does not take up the epoch keeps it switching.
    stage
        .cluster
        .psql("app", "INSERT INTO rowseal.proxy (id, epoch) VALUES ('00000000-0000-0000-0000-000000000001', 0)");
    let rotating = stage.start_rotation(&[]);
    wait_for("switching");
    assert!(stage.cells_under_old_keys() > 200);
    rotating.kill();
    stage.cluster.psql("app", "DELETE FROM rowseal.proxy WHERE epoch = 0");
    // A slow pace keeps it wrapping.
    let rotating = stage.start_rotation(&["--max-rows-per-second", "20"]);
    wait_for("rewrapping");
    let all = stage.cells_under_old_keys();
    poll("progress", || (stage.cells_under_old_keys() < all).then_some(()));
    rotating.kill();
    assert!(stage.cells_under_old_keys() > 0);
    // A transaction from before keeps it verifying.
    let holder = stage.runtime.block_on(stage.cluster.connect("app"));
    stage.runtime.block_on(holder.batch_execute("BEGIN; SELECT pg_current_xact_id()")).unwrap();
    let rotating = stage.start_rotation(&[]);
    wait_for("verifying");
    assert_eq!(stage.arns("'retiring'").len(), 1);
    rotating.kill();
    stage.runtime.block_on(holder.batch_execute("COMMIT")).unwrap();
    assert_ok(&stage.rotate(&[]));
    stage.check_done();
    let expected = Stage::expected(FEW);
    assert_eq!(stage.contents(proxy.address()), expected);
    stage.check_search(proxy.address(), &expected);
}

#[test]
fn a_key_that_is_not_shown_at_once_is_waited_for_by_whoever_goes_on() {
    let stage = Stage::start("direct", Version::V15);
    let proxy = stage.serve();
    stage.fill(proxy.address(), FEW);
    assert_eq!(proxy.stop(), 0);
    let kill_at = |knob: &str| {
        let stopped = stage.strict.as_ref().unwrap().stopped();
        stage.set(&json!({knob: 1, "only": "CreateKey"}));
        let rotating = stage.start_rotation(&[]);
        poll("CreateKey", || (stage.strict.as_ref().unwrap().stopped() > stopped).then_some(()));
        rotating.kill();
    };
    kill_at("stall");
    stage.cluster.psql(
        "app",
        "UPDATE rowseal.rotation SET started_at = started_at - interval '1 hour', updated_at = started_at",
    );
    stage.set(&json!({"propagation_ms": 2500}));
    kill_at("hold");
    stage.calm();
    assert_ok(&stage.rotate(&[]));
    poll("the old key's state", || {
        (stage.key_state(&stage.arns("'deactivated'")[0]) == KeyState::Disabled).then_some(())
    });
    stage.check_done();
}

#[test]
fn killed_at_random_moments_it_goes_on() {
    let seed: u64 = 20_261_124;
    let mut random = seed;
    for wrapping in ["direct", "hierarchical"] {
        let stage = Stage::start(wrapping, Version::V15);
        let proxy = stage.serve();
        stage.fill(proxy.address(), FEW);
        for round in 0..2 {
            stage.forget_interval();
            let (began, mut kills) = (Instant::now(), 0);
            loop {
                let mut rotating = stage.start_rotation(&["--max-rows-per-second", "400"]);
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Longer each time, so that it comes to an end.
                let after = Duration::from_millis(30 + (random >> 33) % (500 + 400 * kills));
                let end = Instant::now() + after;
                while Instant::now() < end && !rotating.has_ended() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                if rotating.has_ended() {
                    let ended = rotating.wait();
                    // The one before was killed when it had done everything.
                    if kills == 0 || !said(&ended).contains("was rotated less than 24 hours ago") {
                        assert_ok(&ended);
                    }
                    break;
                }
                rotating.kill();
                kills += 1;
                assert!(began.elapsed() < Duration::from_secs(120), "seed {seed}, {wrapping}, round {round}: no end");
            }
            stage.check_done();
            assert!(kills > 0, "seed {seed}, {wrapping}, round {round}: it was never killed");
        }
        let expected = Stage::expected(FEW);
        assert_eq!(stage.contents(proxy.address()), expected);
        stage.check_search(proxy.address(), &expected);
    }
}
