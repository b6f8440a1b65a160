//! What `tenant list`, `tenant show` and `key status` say of tenants and the versions of their keys.
use serde_json::Value;

use crate::kms::proxy::Stage;

fn json(stage: &Stage, args: &[&str]) -> Vec<Value> {
    let told = stage.site.run_ok(&[args, &["--json"]].concat());
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of `tenant list`, and of tenant 1 what the three commands say of its older version.
fn older(stage: &Stage) -> (Value, [Value; 2]) {
    let list = json(stage, &["tenant", "list"]).into_iter().find(|line| line["tenant"] == "1").unwrap();
    let version = |args: &[&str]| json(stage, args).into_iter().find(|line| line["version"] == 1).unwrap();
    (list, [version(&["tenant", "show", "1", "--count"]), version(&["key", "status", "1", "--count"])])
}

#[test]
fn versions_are_shown_with_what_is_to_become_of_them() {
    let stage = Stage::start("direct");
    stage.site.run_ok(&["tenant", "register", "big one", "--wrapping", "hierarchical"]);
    stage.cluster.psql("app", "INSERT INTO rowseal.tenant (name, wrapping) VALUES ('half', 'direct')");
    let proxy = stage.site.serve();
    stage.run(proxy.address(), "INSERT INTO users (id, account_id, email, ssn) VALUES (1, 1, 'a', 'b')").unwrap();
    let list = stage.site.run_ok(&["tenant", "list"]);
    let expected = ["1 active direct version 1", "2 active direct version 1", "big one active hierarchical version 1"];
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(list.lines().map(words).collect::<Vec<_>>(), [&expected[..], &["half registering direct"]].concat());

    stage.site.run_ok(&["key", "rotate", "1"]);
    let (listed, versions) = older(&stage);
    assert_eq!((&listed["version"], &listed["older_versions"]), (&Value::from(2), &Value::from(1)));
    assert!(listed["restore_until"].is_null() && listed["deletion_at"].is_null(), "{listed}");
    for version in versions {
        assert_eq!((&version["state"], &version["cells"]), (&Value::from("deactivated"), &Value::from(0)), "{version}");
    }
    stage.site.run_ok(&["key", "reactivate", "1", "--for-restore", "--hours", "3"]);
    let until =
        "SELECT to_char(restore_until AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM rowseal.master_key
        WHERE tenant = '1' AND version = 1";
    let until = Value::from(stage.cluster.psql("app", until));
    let (listed, versions) = older(&stage);
    assert_eq!((&listed["restore_until"], &versions[0]["restore_until"]), (&until, &until));
    assert_eq!(versions[1]["restore_until"], until);
    let told = format!("for a restored backup until {}", until.as_str().unwrap());
    for command in [&["tenant", "list"][..], &["tenant", "show", "1"], &["key", "status", "1"]] {
        assert!(stage.site.run_ok(command).contains(&told), "{command:?}");
    }

    stage.site.run_ok(&["key", "rewrap", "1"]);
    stage.site.run_ok(&["key", "purge", "1", "--days", "9", "--yes"]);
    let (listed, versions) = older(&stage);
    assert!(listed["restore_until"].is_null() && listed["deletion_at"].is_string(), "{listed}");
    for version in versions {
        assert_eq!((&version["state"], &version["deletion_at"]), (&Value::from("purged"), &listed["deletion_at"]));
    }
    assert!(stage.site.run_ok(&["key", "status", "1"]).contains("deleted by the key service on "));
    let counted = json(&stage, &["tenant", "show", "1", "--count"]);
    let active = counted.iter().find(|line| line["version"] == 2).unwrap();
    assert_eq!((&active["state"], &active["cells"]), (&Value::from("active"), &Value::from(2)));
}
