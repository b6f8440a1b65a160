//! `keys.auto_register`: a tenant's first writes register it, once, however many there are and through whichever proxy.
use std::net::SocketAddr;

use serde_json::json;

use super::stage::{check_whole, keys_of};
use crate::kms::proxy::{POLICY, Stage};
use crate::support::postgres::{Cluster, Version, connect_at};
use crate::support::proxy::Site;

const WRITES: usize = 100;

fn stage(wrapping: &str) -> Stage {
    Stage::start_on(Cluster::start_with(Version::Any, &[("max_connections", "300")]), wrapping)
}

/// A hundred connections write the first rows of tenant 7 at one time.
fn write(stage: &Stage, addresses: &[SocketAddr]) {
    stage.runtime.block_on(async {
        let mut clients = Vec::new();
        for n in 0..WRITES {
            clients.push(connect_at(addresses[n % addresses.len()], "app").await);
        }
        let writers: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(n, client)| {
                let insert = format!("INSERT INTO users (id, account_id, email) VALUES ({n}, 7, 'user{n}')");
                tokio::spawn(async move { client.batch_execute(&insert).await })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap().unwrap();
        }
    });
}

fn check(stage: &Stage, addresses: &[SocketAddr]) {
    let created = stage.server.log().iter().filter(|entry| entry["operation"] == "CreateKey").count();
    // Beside tenant 7: 1, 2 and the reserved one.
    assert_eq!(created, 3 + 1);
    assert_eq!(keys_of(stage), ["7"]);
    check_whole(stage, &["7".to_owned()]);
    let keys = "SELECT count(DISTINCT rowseal.key_id(email)), count(*) FROM users";
    assert_eq!(stage.cluster.psql("app", keys), format!("1|{WRITES}"));
    for address in addresses {
        let find = "SELECT email FROM users WHERE account_id = 7 AND email = 'user42'";
        assert_eq!(stage.run(*address, find), Ok(vec!["user42".to_owned()]));
    }
}

#[test]
fn a_hundred_first_writes_make_one_key() {
    let mut stage = stage("direct");
    stage.site.set_environment([("ROWSEAL_KEYS_AUTO_REGISTER", "true")]);
    let proxy = stage.site.serve();
    stage.set(&json!({"latency_ms": 30}));
    write(&stage, &[proxy.address()]);
    check(&stage, &[proxy.address()]);
}

#[test]
fn a_hundred_first_writes_through_two_proxies_make_one_key() {
    for wrapping in ["direct", "hierarchical"] {
        let mut stage = stage(wrapping);
        stage.site.set_environment([("ROWSEAL_KEYS_AUTO_REGISTER", "true")]);
        let mut other = Site::new(&stage.cluster, POLICY);
        other.set_environment(stage.site.environment().iter().map(|(name, value)| (&**name, &**value)));
        let proxies = [stage.site.serve(), other.serve()];
        let addresses = proxies.each_ref().map(|proxy| proxy.address());
        stage.set(&json!({"latency_ms": 30}));
        write(&stage, &addresses);
        check(&stage, &addresses);
    }
}
