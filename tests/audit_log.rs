//! The audit log as outsiders see it: the real binary, public keys, the registry, stolen and restored directories.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::guard::poll;
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::updates::POLICY;

struct Scene {
    cluster: Cluster,
    site: Site,
}

impl Scene {
    fn start() -> Scene {
        let cluster = Cluster::start(Version::Any);
        cluster.createdb("app");
        let site = Site::new(&cluster, POLICY);
        site.run_ok(&["setup"]);
        for tenant in ["acme", "globex"] {
            site.run_ok(&["tenant", "register", tenant]);
        }
        cluster.psql("app", "create table customers (account_id text, email rowseal.text, ssn rowseal.text)");
        Scene { cluster, site }
    }

    fn insert(&self, proxy: &Proxy, tenant: &str, count: usize) {
        for n in 0..count {
            let insert = format!("insert into customers values ('{tenant}', 'user{n}@{tenant}.example', '{n}')");
            self.cluster.psql_at(proxy.address(), "app", &insert).unwrap();
        }
    }

    fn directory(&self) -> PathBuf {
        self.site.path().join("audit")
    }

    fn verify(&self, args: &[&str]) -> (i32, String) {
        said(&self.site.run(&[&["audit", "verify"], args].concat()))
    }

    fn registry(&self, column: &str) -> String {
        let key = self.site.run_ok(&["audit", "key"]);
        let of_proxy = format!("rowseal.audit_checkpoint where verifier = '{}'", key.trim());
        self.cluster.psql("app", &format!("select {column} from {of_proxy}"))
    }
}

fn said(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn the_registry_shows_an_older_state_a_fork_and_a_log_that_is_missing() {
    let scene = Scene::start();
    let directory = scene.directory();
    let proxy = scene.site.serve();
    scene.insert(&proxy, "acme", 3);
    assert_eq!(proxy.stop(), 0);
    let older = scene.site.path().join("older");
    copy(&directory, &older);
    let proxy = scene.site.serve();
    scene.insert(&proxy, "acme", 3);
    // Also while it runs, a few seconds behind.
    let size = || scene.registry("tree_size").parse::<u64>().unwrap();
    let before = size();
    scene.insert(&proxy, "acme", 1);
    poll("the checkpoint", || (size() > before).then_some(()));
    assert_eq!(scene.verify(&["--against", "registry"]).0, 0);
    assert_eq!(proxy.stop(), 0);
    let (code, text) = scene.verify(&["--against", "registry"]);
    assert_eq!((code, text.matches("none changed").count()), (0, 2), "{text}");
    let note = scene.registry("note") + "\n";
    assert_eq!(note, fs::read_to_string(directory.join("checkpoint")).unwrap());
    assert_eq!(scene.registry("verifier"), scene.site.run_ok(&["audit", "key"]).trim());

    // An older state put back is whole by itself, and shows against the registry.
    let newest = scene.site.path().join("newest");
    fs::rename(&directory, &newest).unwrap();
    copy(&older, &directory);
    assert_eq!(scene.verify(&[]).0, 0);
    let (code, text) = scene.verify(&["--against", "registry"]);
    assert!(code == 1 && text.contains("an older state put in its place"), "{text}");
    // A proxy that goes on from it says so, does not hide it in the registry, and signs a fork.
    let proxy = scene.site.serve();
    scene.insert(&proxy, "globex", 10);
    assert_eq!(proxy.stop(), 0);
    assert!(proxy.log().contains("it was put back to an older state"), "{}", proxy.log());
    assert_eq!(scene.registry("note") + "\n", note);
    let (code, text) = scene.verify(&["--against", "registry"]);
    assert!(code == 1 && text.contains("two different logs"), "{text}");

    // A log that is gone, and a new one in its place.
    fs::remove_dir_all(&directory).unwrap();
    let proxy = scene.site.serve();
    scene.insert(&proxy, "acme", 1);
    assert_eq!(proxy.stop(), 0);
    assert_eq!(scene.verify(&[]).0, 0);
    let (code, text) = scene.verify(&["--against", "registry"]);
    assert!(code == 1 && text.contains("missing logs: rowseal/audit/"), "{text}");
    assert_eq!(scene.verify(&["--against", "registry", "--allow-missing"]).0, 0);
    let all = [directory.to_str().unwrap(), newest.to_str().unwrap()];
    let operator = newest.join("operator");
    let all = [&all[..], &[operator.to_str().unwrap(), "--against", "registry"]].concat();
    assert_eq!(scene.verify(&all).0, 0);
    // One that the registry never saw.
    scene.cluster.psql("app", "delete from rowseal.audit_checkpoint");
    let (code, text) = scene.verify(&["--against", "registry"]);
    assert!(code == 1 && text.contains("the registry does not know this log"), "{text}");
}

#[test]
fn the_registry_goes_forward_only_and_is_nobody_elses() {
    let scene = Scene::start();
    let proxy = scene.site.serve();
    scene.insert(&proxy, "acme", 1);
    assert_eq!(proxy.stop(), 0);
    scene.cluster.psql("app", "create role app login");
    for sql in ["select * from rowseal.audit_checkpoint", "delete from rowseal.audit_checkpoint"] {
        let refused = scene.cluster.psql_at(scene.cluster.host_port(), "app", &format!("set role app; {sql}"));
        assert!(refused.unwrap_err().contains("permission denied"), "{sql}");
    }
    for change in ["tree_size = tree_size - 1", "verifier = 'another'", "origin = 'another'"] {
        let sql = format!("update rowseal.audit_checkpoint set {change}");
        let refused = scene.cluster.psql_at(scene.cluster.host_port(), "app", &sql);
        assert!(refused.unwrap_err().contains("does not go back"), "{change}");
    }
}

#[test]
fn what_was_answered_before_a_kill_is_in_the_log_and_signed_by_the_next_start() {
    let scene = Scene::start();
    let proxy = scene.site.serve();
    scene.insert(&proxy, "acme", 20);
    proxy.kill();
    let (code, text) = scene.verify(&[]);
    assert_eq!(code, 0, "{text}");
    let count = || {
        let shown = scene.site.run_ok(&["audit", "show", "--json", "--tenant", "acme"]);
        shown.matches("\"act\":\"seal\"").count()
    };
    assert_eq!(count(), 20);
    assert_eq!(scene.site.serve().stop(), 0);
    let (code, text) = scene.verify(&["--against", "registry"]);
    assert!(code == 0 && text.contains("; 0 not signed yet"), "{text}");
    assert_eq!(count(), 20);
}

#[test]
fn an_export_of_a_tenant_is_checked_by_who_has_only_the_public_key() {
    let scene = Scene::start();
    let proxy = scene.site.serve();
    for tenant in ["acme", "globex", "acme"] {
        scene.insert(&proxy, tenant, 3);
    }
    assert_eq!(proxy.stop(), 0);
    let path = |name: &str| scene.site.path().join(name).to_str().unwrap().to_owned();
    let (key, file, files) = (scene.site.run_ok(&["audit", "key"]), path("acme.tlog-proof"), path("acme"));
    fs::create_dir(&files).unwrap();
    for to in [&file, &files] {
        scene.site.run_ok(&["audit", "export", "--tenant", "acme", to]);
    }
    assert_ne!(scene.site.run(&["audit", "export", "--tenant", "acme", &file]).status.code(), Some(0));
    let proofs = fs::read_to_string(&file).unwrap();
    assert!(!proofs.contains("globex"));
    // The log is elsewhere, or gone.
    fs::remove_dir_all(scene.directory()).unwrap();
    for from in [&file, &files] {
        let held = scene.site.run_ok(&["audit", "verify", "--proof", from, "--key", key.trim(), "--json"]);
        let seals = held.matches("\"act\":\"seal\"").count();
        assert!(seals == 6 && !held.contains("globex") && held.contains("\"tenant\":\"acme\""), "{held}");
    }
    let line = proofs.lines().nth(1).unwrap();
    let forged = proofs.replacen(line, &line.replacen('e', "f", 1), 1);
    fs::write(&file, forged).unwrap();
    let (code, text) = scene.verify(&["--proof", &file, "--key", key.trim()]);
    assert_eq!(code, 1, "{text}");
}

#[test]
fn one_record_is_proved() {
    let scene = Scene::start();
    let proxy = scene.site.serve();
    scene.insert(&proxy, "acme", 1);
    assert_eq!(proxy.stop(), 0);
    let file = scene.site.path().join("one.tlog-proof");
    let proof = scene.site.run_ok(&["audit", "prove", "1"]);
    assert!(proof.starts_with("c2sp.org/tlog-proof@v1\nextra "), "{proof}");
    fs::write(&file, proof).unwrap();
    let key = scene.site.run_ok(&["audit", "key"]);
    let (code, text) = scene.verify(&["--proof", file.to_str().unwrap(), "--key", key.trim()]);
    assert!(code == 0 && text.contains("record 1 of rowseal/audit/"), "{text}");
    assert_eq!(said(&scene.site.run(&["audit", "prove", "100000"])).0, 1);
}

#[test]
fn a_log_of_an_earlier_release_is_read_and_followed() {
    let scene = Scene::start();
    let chain = include_str!("data/audit/chain.jsonl");
    fs::write(scene.directory().join("audit.jsonl"), chain).unwrap();
    let head = "5:c7391f434dfac9b2c49eaa8bc89556c098a04efcc120f060516a7840b8aa6fea";
    let (code, text) = scene.verify(&["--head", head, "--directory", scene.directory().to_str().unwrap()]);
    assert!(code == 0 && text.contains(head), "{text}");
    let proxy = scene.site.serve();
    scene.insert(&proxy, "acme", 1);
    assert_eq!(proxy.stop(), 0);
    let (code, text) = scene.verify(&["--against", "registry"]);
    assert!(code == 0 && text.contains("5 records of an earlier release"), "{text}");
    let shown = scene.site.run_ok(&["audit", "show", "--tenant", "globex"]);
    assert_eq!(shown.matches("public.customers.email").count(), 3, "{shown}");
    fs::write(scene.directory().join("audit.jsonl"), chain.replacen("\"rows\":3", "\"rows\":4", 1)).unwrap();
    let (code, text) = scene.verify(&[]);
    assert!(code == 1 && text.contains("record 3 was changed"), "{text}");
}
