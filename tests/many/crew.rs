//! One database, three proxies with the same keys and audit logs of their own, and HAProxy before them.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::haproxy::Balancer;
use crate::support::peer::Peer;
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};

pub const PROXIES: usize = 3;

const POLICY: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n
[[database.table]]\nname = \"public.users\"\ntenant = { column = \"account_id\" }
[database.table.columns]\nemail = { type = \"text\", equality = \"tenant\" }\nphone = { type = \"text\" }\n
[[database.table]]\nname = \"public.notes\"\ntenant = { column = \"account_id\" }
[database.table.columns]\ntext = { type = \"text\" }\n";
const TABLE: &str = "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text)";

/// Cells of tenant 1 that hang on another version than the active one.
const UNDER_OLD_KEYS: &str = "SELECT count(*) FROM users WHERE rowseal.key_id(email) IN (
    SELECT key_id FROM rowseal.master_key WHERE tenant = '1' AND state <> 'active'
    UNION SELECT key_id FROM rowseal.branch_key WHERE tenant = '1' AND state <> 'active')";

pub struct Crew {
    pub proxies: Vec<Proxy>,
    balancer: Balancer,
    pub sites: Vec<Site>,
    pub cluster: Cluster,
}

impl Crew {
    /// Tenants 1 and 2, and an empty table.
    pub fn start(wrapping: &str) -> Crew {
        let cluster = Cluster::start_with(Version::Any, &[("max_connections", "100")]);
        cluster.createdb("app");
        let mut sites: Vec<Site> = (0..PROXIES).map(|_| Site::new(&cluster, POLICY)).collect();
        let keyring = sites[0].path().join("keyring.toml");
        for site in &mut sites {
            let wanted = [("ROWSEAL_KEYS_KEYRING", keyring.to_str().unwrap()), ("ROWSEAL_KEYS_WRAPPING", wrapping)];
            site.set_environment(wanted);
        }
        sites[0].run_ok(&["setup"]);
        for tenant in ["1", "2"] {
            sites[0].run_ok(&["tenant", "register", tenant]);
        }
        cluster.psql("app", TABLE);
        let proxies: Vec<Proxy> = sites.iter().map(Site::serve).collect();
        let balancer = Balancer::start(&proxies.iter().map(Proxy::address).collect::<Vec<_>>());
        Crew { proxies, balancer, sites, cluster }
    }

    /// Where a service connects to.
    pub fn front(&self) -> SocketAddr {
        self.balancer.address()
    }

    /// A session of each proxy, not by way of HAProxy.
    pub fn peers(&self) -> Vec<Peer> {
        self.proxies.iter().map(|proxy| Peer::connect(proxy.address(), "app")).collect()
    }

    /// Sessions by way of HAProxy; it gives each proxy the next one.
    pub fn peers_in_front(&self, count: usize) -> Vec<Peer> {
        (0..count).map(|_| Peer::connect(self.front(), "app")).collect()
    }

    pub fn cells_under_old_keys(&self) -> i64 {
        self.cluster.psql("app", UNDER_OLD_KEYS).parse().unwrap()
    }

    pub fn signal(&self, proxy: usize, name: &str) {
        let kill = format!("kill -{name} {}", self.proxies[proxy].pid());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Checks the audit log of each proxy and gives what all of them say, by application.
    #[track_caller]
    pub fn audited(&self) -> Audited {
        let logs = self.sites.iter().flat_map(|site| ["", "operator"].map(|log| site.path().join("audit").join(log)));
        let logs: Vec<PathBuf> = logs.filter(|log| log.is_dir()).collect();
        let logs = logs.iter().map(|log| log.to_str().unwrap());
        let verify: Vec<&str> = ["audit", "verify", "--against", "registry"].into_iter().chain(logs).collect();
        self.sites[0].run_ok(&verify);
        let mut audited = Audited::default();
        for (n, site) in self.sites.iter().enumerate() {
            for line in site.run_ok(&["audit", "show", "--json"]).lines() {
                audited.take(n, &serde_json::from_str(line).unwrap());
            }
        }
        audited
    }
}

/// What audit logs say: which data keys which session used how often, and whose log that is.
#[derive(Debug, Default)]
pub struct Audited {
    /// By application, act and data key.
    pub uses: BTreeMap<(String, String, String), u64>,
    /// The proxy in whose log an application is.
    pub proxy: BTreeMap<String, usize>,
}

impl Audited {
    fn take(&mut self, proxy: usize, record: &Value) {
        let text = |name: &str| record[name].as_str().unwrap().to_owned();
        let deks = record["dek_ids"].as_array().unwrap();
        // What a proxy does by itself, and sessions without a name of their own, are not told apart.
        if deks.is_empty() || text("result") != "ok" || !text("application").starts_with("writer") {
            return;
        }
        let before = self.proxy.insert(text("application"), proxy);
        assert!(before.is_none_or(|before| before == proxy), "one session in two logs: {record}");
        for dek in deks {
            let dek = dek.as_str().unwrap().to_owned();
            *self.uses.entry((text("application"), text("act"), dek)).or_default() += 1;
        }
    }
}
