//! `rowseal demo` as a newcomer runs it: it shows both views, ends well and leaves nothing behind (A1).
use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::strict_kms;
use crate::support::guard::{Guarded, poll};
use crate::support::proxy::rowseal;

/// Directories of demos, and processes that have one on their command line.
fn traces(pid: u32) -> BTreeSet<String> {
    let name = format!("rowseal-demo-{pid}");
    let entries = |folder| fs::read_dir(folder).into_iter().flatten().flatten();
    let directories = entries("/tmp").map(|entry| entry.path().display().to_string());
    let processes = entries("/proc").filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let processes = processes.map(|line| String::from_utf8_lossy(&line).into_owned());
    directories.chain(processes).filter(|text| text.contains(&name)).collect()
}

fn demo(args: &[&str]) -> Command {
    let mut demo = Command::new(rowseal());
    demo.arg("demo").args(args).env_remove("ROWSEAL_LOG").env_remove("AWS_ENDPOINT_URL_KMS");
    demo.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    demo
}

#[test]
fn the_demo_shows_values_and_cells_and_leaves_nothing() {
    let shown = tour(&mut demo(&[]));
    assert!(shown.contains("a local keyring") && shown.contains("local:key/"), "{shown}");
}

#[test]
fn the_demo_keeps_its_master_keys_in_aws_kms_if_asked_to() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (address, kms) = runtime.block_on(strict_kms::start("127.0.0.1:0".parse().unwrap(), None)).unwrap();
    let endpoint = format!("http://{address}");
    let mut demo = demo(&["--kms", "aws"]);
    demo.envs(strict_kms::ENVIRONMENT).env("AWS_ENDPOINT_URL_KMS", &endpoint);
    let shown = tour(&mut demo);
    assert!(shown.contains(&format!("AWS KMS (a stand-in at {endpoint})")), "{shown}");
    for tenant in ["acme", "globex"] {
        let key = shown.lines().find(|line| line.contains(tenant) && line.contains("arn:aws:kms:"));
        let arn = key.and_then(|line| line.rsplit('|').next()).unwrap().trim();
        let log = kms.log();
        assert!(log.iter().any(|entry| entry["operation"] == "GenerateDataKey" && entry["key_id"] == arn), "{arn}");
    }
}

#[test]
fn the_demo_makes_no_keys_at_aws_itself() {
    for endpoint in ["", "https://kms.eu-central-1.amazonaws.com"] {
        let output = demo(&["--kms", "aws"]).env("AWS_ENDPOINT_URL_KMS", endpoint).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("make demo KMS=aws"), "{output:?}");
    }
}

/// Runs the tour to its end; gives what it showed.
fn tour(demo: &mut Command) -> String {
    let child = demo.spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}:\n{shown}\n{said}", output.status);
    let row = shown.lines().find(|line| line.contains("078-05-1120") && line.contains(r"\xc1525301"));
    assert!(row.is_some_and(|row| row.contains("ada@example.com")), "no row with both views:\n{shown}");
    for part in ["HINT:", "violates check constraint", "in 0 of ", "*******1120"] {
        assert!(shown.contains(part), "{part:?} is missing:\n{shown}");
    }
    assert_eq!(said, "", "the demo complains");
    assert_eq!(traces(pid), BTreeSet::new());
    shown.into_owned()
}

#[test]
fn a_demo_that_is_kept_can_be_connected_to_and_ends_at_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Guarded::spawn(dir.path(), rowseal(), &["demo", "--keep"]);
    let line = poll("how to connect", || {
        assert!(kept.ended().is_none(), "the demo ended:\n{}", kept.log());
        let log = kept.log();
        log.contains("the policy ")
            .then(|| log.lines().find(|line| line.starts_with("through RowSeal ")).map(str::to_owned))?
    });
    let words: Vec<&str> = line.split_whitespace().skip(2).collect();
    let seen =
        Command::new(words[0]).args(["-XAtc", "SELECT email FROM customers"]).args(&words[1..]).output().unwrap();
    assert!(String::from_utf8_lossy(&seen.stdout).contains("bob@example.com"), "{seen:?}");
    let pid = kept.pid().unwrap();
    assert!(!traces(pid).is_empty());
    kept.signal("INT");
    assert_eq!(kept.wait(), 0, "{}", kept.log());
    assert_eq!(traces(pid), BTreeSet::new());
}
