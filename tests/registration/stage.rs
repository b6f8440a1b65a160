//! What the tests of registration share.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use rowseal::keys::kms::{KeyState, Kms};

use crate::kms::proxy::Stage;
use crate::support::proxy::Proxy;

/// A list of tenants in the site's directory.
pub fn list(stage: &Stage, text: &str) -> PathBuf {
    let path = stage.site.path().join("tenants");
    std::fs::write(&path, text).unwrap();
    path
}

/// Registers a list; does not wait.
pub fn start(stage: &Stage, path: &Path, more: &[&str]) -> Child {
    let mut command = stage.site.command(&[&["tenant", "register", "--from", path.to_str().unwrap()], more].concat());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Registers a list.
pub fn register(stage: &Stage, path: &Path, more: &[&str]) -> Output {
    start(stage, path, more).wait_with_output().unwrap()
}

/// Both streams.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The tenants and their states, without the ones that every test begins with.
pub fn states(stage: &Stage) -> BTreeMap<String, String> {
    let rows = stage.cluster.psql("app", "SELECT name, state FROM rowseal.tenant WHERE name !~ '^(_rowseal|1|2)$'");
    rows.lines().filter_map(|row| row.split_once('|')).map(|(name, state)| (name.into(), state.into())).collect()
}

/// Whose the keys in the service are, by their tags; a tenant with two keys stands there twice.
pub fn keys_of(stage: &Stage) -> Vec<String> {
    let installation = stage.cluster.psql("app", "SELECT id FROM rowseal.installation");
    stage.runtime.block_on(async {
        let console = stage.console();
        let mut owners = Vec::new();
        for arn in console.find_by_tag("rowseal:database", &installation).await.unwrap() {
            let key = console.describe(&arn).await.unwrap();
            assert_eq!(key.state, KeyState::Enabled, "{arn}");
            owners.push(key.tag("rowseal:tenant").unwrap().to_owned());
        }
        owners.retain(|owner| !["_rowseal", "1", "2"].contains(&&**owner));
        owners.sort();
        owners
    })
}

/// Each tenant is active and has one key, and no key is another's.
#[track_caller]
pub fn check_whole(stage: &Stage, tenants: &[String]) {
    let expected: BTreeSet<String> = tenants.iter().cloned().collect();
    let states = states(stage);
    assert!(states.values().all(|state| state == "active"), "{states:?}");
    assert_eq!(states.into_keys().collect::<BTreeSet<_>>(), expected);
    assert_eq!(keys_of(stage), expected.into_iter().collect::<Vec<_>>());
}

/// Something is sealed for each tenant, which has a number for its name, and another process opens and finds it.
#[track_caller]
pub fn check_usable(stage: &Stage, tenants: &[String]) {
    let told = |proxy: &Proxy, sql: &str| stage.run(proxy.address(), sql).unwrap_or_else(|e| panic!("{e}: {sql}"));
    let proxy = stage.site.serve();
    let rows: Vec<String> = tenants.iter().map(|name| format!("({name}, {name}, 'mail{name}', 'ssn')")).collect();
    told(&proxy, &format!("INSERT INTO users (id, account_id, email, ssn) VALUES {}", rows.join(", ")));
    proxy.kill();
    let proxy = stage.site.serve();
    for name in tenants {
        let find = format!("SELECT ssn FROM users WHERE account_id = {name} AND email = 'mail{name}'");
        assert_eq!(told(&proxy, &find), ["ssn"], "{name}");
    }
}
