//! Does the audit log know of every call at the key service, and of no other?
use std::fs;

use serde_json::{Value, json};

use super::proxy::Stage;
use crate::support::guard::poll;

const INSERT: &str = "INSERT INTO users (id, account_id, email, ssn) VALUES";

/// The service's log in a file, after `change`.
fn service_log(stage: &Stage, change: impl Fn(&mut Vec<Value>)) -> String {
    let mut log = stage.server.log();
    change(&mut log);
    let path = stage.site.path().join("kms.log");
    fs::write(&path, log.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn reconcile(stage: &Stage, change: impl Fn(&mut Vec<Value>)) -> (i32, String) {
    let log = service_log(stage, change);
    let output = stage.site.run(&["audit", "reconcile", "--kms-log", &log]);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn count(stage: &Stage, operation: &str, purpose: Option<&str>) -> usize {
    let wanted = |entry: &&Value| {
        entry["operation"] == operation && purpose.is_none_or(|purpose| entry["context"]["rowseal:purpose"] == purpose)
    };
    stage.server.log().iter().filter(wanted).count()
}

#[test]
fn every_call_at_the_service_is_recorded_and_no_other() {
    for wrapping in ["direct", "hierarchical"] {
        let stage = Stage::start(wrapping);
        let proxy = stage.site.serve();
        for n in 0..12 {
            stage.run(proxy.address(), &format!("{INSERT} ({n}, {}, 'user{n}', 'ssn')", n % 2 + 1)).unwrap();
        }
        // Throttled and failed calls count too: each attempt has a name of its own.
        stage.set(&json!({"error_burst": 2, "error_name": "ThrottlingException"}));
        assert_eq!(proxy.stop(), 0);
        let proxy = stage.site.serve();
        stage.run(proxy.address(), "SELECT email FROM users WHERE account_id = 1").unwrap();
        // The proxy's own use of keys: canaries, and pools in direct mode.
        let canaries = count(&stage, "Decrypt", Some("canary"));
        poll("a canary", || (count(&stage, "Decrypt", Some("canary")) > canaries).then_some(()));
        assert_eq!(proxy.stop(), 0);
        assert!(wrapping != "direct" || count(&stage, "GenerateDataKey", None) > 12);
        let (code, said) = reconcile(&stage, |_| ());
        assert!(code == 0, "{wrapping}: {said}");

        let shown = stage.site.run_ok(&["audit", "show", "--json"]);
        for detail in ["CreateKey ", "Encrypt (index) ", "Decrypt (canary) "] {
            assert!(shown.contains("\"act\":\"key\"") && shown.contains(&format!("\"detail\":\"{detail}")), "{detail}");
        }
        // Somebody else used a key.
        let foreign = json!({"request_id": "foreign", "operation": "Decrypt", "key_id": "arn", "outcome": "ok"});
        let (code, said) = reconcile(&stage, |log| log.push(foreign.clone()));
        assert!(code == 1 && said.contains("no record tells of Decrypt of arn (request foreign)"), "{said}");
        // A record tells of a call that nobody made.
        let (code, said) = reconcile(&stage, |log| {
            let at = log.iter().rposition(|entry| entry["operation"] == "Decrypt").unwrap();
            log.remove(at);
        });
        assert!(code == 1 && said.contains("which the key service does not know"), "{said}");
        stage.site.run_ok(&["audit", "verify", "--against", "registry"]);
    }
}

/// A call whose answer was lost has a name that only the service knows.
#[test]
fn a_call_whose_answer_was_lost_is_found() {
    let stage = Stage::start("direct");
    let proxy = stage.site.serve();
    stage.set(&json!({"lose_replies": 1, "only": "GenerateDataKey"}));
    stage.run(proxy.address(), &format!("{INSERT} (1, 1, 'one', 'ssn')")).unwrap();
    // A call that is under way when the proxy stops has no answer either.
    poll("the pool to be full", || {
        let before = count(&stage, "GenerateDataKey", None);
        std::thread::sleep(std::time::Duration::from_millis(500));
        (count(&stage, "GenerateDataKey", None) == before).then_some(())
    });
    assert_eq!(proxy.stop(), 0);
    let (code, said) = reconcile(&stage, |_| ());
    assert!(code == 1 && said.contains("1 not recorded; 0 requests recorded and not known"), "{said}");
}
