//! `rowseal tenant register --from`: what it takes, what it refuses, how fast it is, and how it is stopped.
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stage::{check_usable, check_whole, keys_of, list, register, said, start, states};
use crate::kms::proxy::Stage;
use crate::support::guard::poll;

fn names(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}

#[test]
fn a_list_is_registered_once_and_no_faster_than_keys_are_made() {
    let stage = Stage::start("direct");
    let path = list(&stage, "# customers\n10\n11\thierarchical\r\n\n12\tdirect\n13\n14\n15\n10\n16\n17\n18\n19\n20");
    let began = Instant::now();
    let first = register(&stage, &path, &["--json"]);
    // The first at once, ten more at five a second.
    assert!(began.elapsed() > Duration::from_millis(1900), "{:?}", began.elapsed());
    let end = |output| serde_json::from_str::<Value>(said(output).lines().last().unwrap()).unwrap();
    assert_eq!(end(&first), json!({"new": 11, "already": 0, "left": 0}));
    assert_eq!(first.status.code(), Some(0));
    let from = stage.server.log().len();
    let again = register(&stage, &path, &[]);
    assert_eq!(said(&again), "0 tenants are registered, 11 were registered before\n");
    assert_eq!(stage.server.log().len(), from, "calls for tenants that are there");
    let modes = stage.cluster.psql("app", "SELECT name FROM rowseal.tenant WHERE wrapping = 'hierarchical'");
    assert_eq!(modes, "11");
    // Standard input, and what is missing beside what is there.
    let mut piped = stage.site.command(&["tenant", "register", "--from", "-", "--keys-per-second", "100"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"20\n21\n").unwrap();
    let piped = piped.wait_with_output().unwrap();
    assert_eq!(said(&piped), "1 tenants are registered, 1 were registered before\n");
    check_whole(&stage, &names(10..22));
    check_usable(&stage, &names(10..22));
}

#[test]
fn nothing_is_begun_for_a_list_with_a_mistake() {
    let stage = Stage::start("direct");
    stage.site.run_ok(&["tenant", "register", "revoked"]);
    stage.site.run_ok(&["key", "deactivate", "revoked", "--reason", "test"]);
    let from = stage.server.log().len();
    for (text, code, lines) in [
        ("10\n11\tboth\n12\nx*y\n", 64, &["line 2: behind the tab", "line 4: a tenant's name has"][..]),
        ("10\n_rowseal\n", 64, &["line 2: tenant names that begin with \"_rowseal\" are reserved"]),
        ("10\n10\thierarchical\n", 64, &["line 2: the same tenant in another mode"]),
        (
            "10\n2\thierarchical\n\nrevoked\n",
            2,
            &["line 2: the tenant is registered with direct", "line 4: the tenant is revoked"],
        ),
    ] {
        let refused = register(&stage, &list(&stage, text), &[]);
        assert_eq!(refused.status.code(), Some(code), "{text:?}: {}", said(&refused));
        let told = said(&refused);
        assert!(told.contains("nothing was begun") && lines.iter().all(|line| told.contains(line)), "{told}");
        assert!(!told.contains("x*y") && !told.contains("both"), "{told}");
    }
    let absent = register(&stage, &stage.site.path().join("absent"), &[]);
    assert_eq!(absent.status.code(), Some(64), "{}", said(&absent));
    assert_eq!(stage.site.run(&["tenant", "register"]).status.code(), Some(64));
    assert_eq!(stage.site.run(&["tenant", "register", "3", "--from", "x"]).status.code(), Some(64));
    assert_eq!(states(&stage).into_keys().collect::<Vec<_>>(), ["revoked"]);
    assert_eq!(stage.server.log().len(), from);
}

#[test]
fn a_service_that_makes_fewer_keys_is_asked_again() {
    let stage = Stage::start("hierarchical");
    stage.set(&json!({"creates_per_second": 4}));
    let path = list(&stage, &names(10..34).join("\n"));
    let done = register(&stage, &path, &["--keys-per-second", "200"]);
    let told = said(&done);
    assert!(told.ends_with("\n24 tenants are registered, 0 were registered before\n"), "{told}");
    assert!(told.contains(" of 24 tenants\n"), "no progress: {told}");
    let throttled = stage.server.log().iter().filter(|entry| entry["outcome"] == "ThrottlingException").count();
    assert!(throttled > 0, "it was never throttled");
    check_whole(&stage, &names(10..34));
    // One that makes none at all is not waited for without end, and what was begun is completed later.
    stage.set(&json!({"error_burst": 1_000_000, "error_name": "AccessDeniedException", "only": "CreateKey"}));
    let path = list(&stage, &names(10..44).join("\n"));
    let failed = register(&stage, &path, &["--keys-per-second", "200"]);
    let told = said(&failed);
    assert_eq!(failed.status.code(), Some(1), "{told}");
    let parts =
        ["0 tenants are registered, 24 were registered before, 10 are left", "the same command goes on", "denied"];
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    stage.set(&json!({"error_burst": 0, "creates_per_second": 0}));
    assert_eq!(register(&stage, &path, &["--keys-per-second", "200"]).status.code(), Some(0));
    check_whole(&stage, &names(10..44));
}

#[test]
fn ctrl_c_completes_what_was_begun_and_begins_nothing_else() {
    let stage = Stage::start("direct");
    stage.set(&json!({"latency_ms": 40}));
    let path = list(&stage, &names(10..200).join("\n"));
    let working = start(&stage, &path, &["--keys-per-second", "20"]);
    poll("some tenants", || (states(&stage).len() > 5).then_some(()));
    let pid = working.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let stopped = working.wait_with_output().unwrap();
    let told = said(&stopped);
    assert_eq!(stopped.status.code(), Some(1), "{told}");
    assert!(told.contains("completing what was begun") && told.contains("the same command goes on"), "{told}");
    let done: Vec<String> = states(&stage).into_keys().collect();
    assert!(done.len() < 190, "it was too late: {told}");
    assert!(told.contains(&format!("{} tenants are registered, 0 were", done.len())), "{told}");
    check_whole(&stage, &done);
    assert_eq!(keys_of(&stage).len(), done.len());
}
