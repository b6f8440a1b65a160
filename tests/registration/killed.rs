//! kill -9 of a registration at any moment: started again it completes, with as many keys as tenants.
use std::time::{Duration, Instant};

use serde_json::json;

use super::stage::{check_usable, check_whole, keys_of, list, register, said, start, states};
use crate::kms::proxy::Stage;
use crate::support::guard::poll;

const KILLS: u64 = 44;
const TENANTS: u64 = 180;

/// The calls of a registration.
const CALLS: [&str; 6] = ["CreateKey", "DescribeKey", "ListResourceTags", "GenerateDataKey", "Decrypt", "Encrypt"];

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[test]
fn killed_at_random_moments_each_tenant_has_one_key_in_the_end() {
    let seed = std::env::var("ROWSEAL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_125);
    let mut random = Random(seed);
    let stage = Stage::start("direct");
    let tenants: Vec<String> = (10..10 + TENANTS).map(|n| n.to_string()).collect();
    let line = |n: usize, name: &String| {
        if n.is_multiple_of(3) { format!("{name}\thierarchical\n") } else { format!("{name}\n") }
    };
    let path = list(&stage, &tenants.iter().enumerate().map(|(n, name)| line(n, name)).collect::<String>());
    for kill in 0..KILLS {
        let (call, skip) = (CALLS[random.below(6) as usize], random.below(6));
        let at = match random.below(4) {
            0 => json!({"hold": 1}),
            1 => json!({"stall": 1}),
            2 => json!({"lose_replies": 3}),
            _ => json!({"error_burst": 3, "error_name": "ThrottlingException"}),
        };
        let stopped = stage.server.stopped();
        stage.set(&json!({"latency_ms": random.below(12), "only": call, "skip": skip}));
        stage.set(&at);
        let mut working = start(&stage, &path, &["--keys-per-second", "15"]);
        let end = Instant::now() + Duration::from_millis(60 + random.below(900));
        while Instant::now() < end && stage.server.stopped() == stopped {
            let ended = working.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "seed {seed}, kill {kill}: it ended by itself: {}",
                said(&working.wait_with_output().unwrap())
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        working.kill().unwrap();
        working.wait().unwrap();
        stage.set(&json!({"hold": 0, "stall": 0, "lose_replies": 0, "error_burst": 0, "only": "", "skip": 0, "latency_ms": 0}));
        let keys = keys_of(&stage);
        assert!(
            keys.windows(2).all(|two| two[0] != two[1]),
            "seed {seed}, kill {kill} {at} {call}: two keys: {keys:?}"
        );
    }
    let left = states(&stage).values().filter(|state| *state == "registering").count();
    assert!(left > 0, "seed {seed}: no registration was ever left half-way");
    let done = register(&stage, &path, &["--keys-per-second", "1000"]);
    assert_eq!(done.status.code(), Some(0), "seed {seed}: {}", said(&done));
    check_whole(&stage, &tenants);
    check_usable(&stage, &tenants);
    let log = stage.site.path().join("audit/operator");
    stage.site.run_ok(&["audit", "verify", "--directory", log.to_str().unwrap()]);
}

#[test]
fn a_key_that_the_service_does_not_show_at_once_is_waited_for_by_whoever_goes_on() {
    let stage = Stage::start("direct");
    let path = list(&stage, "10\n");
    let kill_at = |knob: &str| {
        let stopped = stage.server.stopped();
        stage.set(&json!({knob: 1, "only": "CreateKey"}));
        let mut working = start(&stage, &path, &[]);
        poll("CreateKey", || (stage.server.stopped() > stopped).then_some(()));
        working.kill().unwrap();
        working.wait().unwrap();
    };
    kill_at("stall");
    assert_eq!(keys_of(&stage), Vec::<String>::new());
    // Long afterwards somebody goes on, and is killed once the key is made, which the service shows only later.
    stage.cluster.psql(
        "app",
        "UPDATE rowseal.tenant SET created_at = created_at - interval '1 hour' WHERE state = 'registering'",
    );
    stage.set(&json!({"propagation_ms": 2500}));
    kill_at("hold");
    let done = register(&stage, &path, &[]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    stage.set(&json!({"propagation_ms": 0}));
    std::thread::sleep(Duration::from_millis(100));
    check_whole(&stage, &["10".to_owned()]);
    check_usable(&stage, &["10".to_owned()]);
}
