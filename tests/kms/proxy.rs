//! AWS KMS behind the whole proxy: the real binary, a real server, the strict stand-in.
use std::collections::{BTreeMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rowseal::keys::kms::aws::{AwsKms, AwsSettings};
use rowseal::keys::kms::{KeyArn, Kms};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use crate::strict_kms::{self, StrictKms};
use crate::support::guard::poll;
use crate::support::postgres::{Cluster, Version, connect_at};
use crate::support::proxy::Site;

pub const POLICY: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\n\
    name = \"public.users\"\ntenant = { column = \"account_id\" }\n\n[database.table.columns]\n\
    email = { type = \"text\", equality = \"tenant\" }\nssn = { type = \"text\" }\n";

const TABLE: &str =
    "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, ssn rowseal.text);
    ALTER TABLE users ALTER email SET STORAGE EXTERNAL, ALTER ssn SET STORAGE EXTERNAL";
pub const INSERT: &str = "INSERT INTO users (id, account_id, email, ssn) VALUES";

/// A site whose proxy keeps its master keys in the strict stand-in.
pub struct Stage {
    pub runtime: Runtime,
    pub server: Arc<StrictKms>,
    pub cluster: Cluster,
    pub site: Site,
    endpoint: String,
}

impl Stage {
    /// Nothing is set up yet.
    pub fn bare(wrapping: &str) -> Stage {
        Stage::bare_on(Cluster::start(Version::Any), wrapping)
    }

    /// The same on a server of the caller's.
    pub fn bare_on(cluster: Cluster, wrapping: &str) -> Stage {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (address, server) = runtime.block_on(strict_kms::start("127.0.0.1:0".parse().unwrap(), None)).unwrap();
        let mut site = Site::new(&cluster, POLICY);
        site.set_environment(strict_kms::ENVIRONMENT);
        let endpoint = format!("http://{address}");
        site.set_environment([
            ("ROWSEAL_KEYS_PROVIDER", "aws"),
            ("ROWSEAL_KEYS_AWS_ENDPOINT", &*endpoint),
            ("ROWSEAL_KEYS_AWS_REGION", "us-east-1"),
            ("ROWSEAL_KEYS_WRAPPING", wrapping),
            ("ROWSEAL_KEYS_CONFIRM_INTERVAL", "2s"),
        ]);
        Stage { runtime, server, cluster, site, endpoint }
    }

    /// With a sealed table and tenants 1 and 2.
    pub fn start(wrapping: &str) -> Stage {
        Stage::start_on(Cluster::start(Version::Any), wrapping)
    }

    /// The same on a server of the caller's.
    pub fn start_on(cluster: Cluster, wrapping: &str) -> Stage {
        let stage = Stage::bare_on(cluster, wrapping);
        stage.cluster.createdb("app");
        stage.set_up();
        stage
    }

    fn set_up(&self) {
        self.site.run_ok(&["setup"]);
        for tenant in ["1", "2"] {
            self.site.run_ok(&["tenant", "register", tenant]);
        }
        self.cluster.psql("app", TABLE);
    }

    pub fn set(&self, knobs: &Value) {
        self.server.control(knobs).unwrap();
    }

    /// Runs one statement on a connection of its own; gives the first value of each row, or the SQLSTATE.
    pub fn run(&self, address: SocketAddr, sql: &str) -> Result<Vec<String>, String> {
        self.runtime.block_on(async { first_values(&connect_at(address, "app").await, sql).await })
    }

    fn arn_of(&self, tenant: &str) -> String {
        self.cluster.psql("app", &format!("SELECT arn FROM rowseal.master_key WHERE tenant = '{tenant}'"))
    }

    /// The service as an operator at its console reaches it.
    pub fn console(&self) -> AwsKms {
        let settings = AwsSettings { endpoint: Some(self.endpoint.clone()), ..AwsSettings::default() };
        AwsKms::with_credentials(&settings, "operator", "operator")
    }

    /// What the service says of the tenant's key.
    pub fn state_of(&self, tenant: &str) -> String {
        let arn = KeyArn::new(self.arn_of(tenant));
        format!("{:?}", self.runtime.block_on(self.console().describe(&arn)).unwrap().state)
    }

    fn disable(&self, arn: &str) {
        self.runtime.block_on(self.console().disable(&KeyArn::new(arn))).unwrap();
    }

    fn enable(&self, arn: &str) {
        self.runtime.block_on(self.console().enable(&KeyArn::new(arn))).unwrap();
    }
}

pub async fn first_values(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let rows = client.query(sql, &[]).await.map_err(|error| sqlstate(&error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub fn sqlstate(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

#[test]
fn both_modes_work_and_many_cold_connections_make_one_call_a_key() {
    for (wrapping, decrypts) in [("direct", 6 + 1), ("hierarchical", 1 + 1)] {
        let stage = Stage::start(wrapping);
        let proxy = stage.site.serve();
        for n in 1..=6 {
            let insert = format!("{INSERT} ({n}, 1, 'user{n}@example.com', NULL), (1{n}, 2, 'other{n}', 'ssn')");
            stage.run(proxy.address(), &insert).unwrap();
        }
        assert!(stage.cluster.psql("app", "SELECT email FROM users").lines().all(|cell| cell.starts_with("\\xc15253")));
        assert_eq!(proxy.stop(), 0, "{}", proxy.log());
        let proxy = stage.site.serve();
        stage.set(&json!({"latency_ms": 100}));
        let from = stage.server.log().len();
        let select = "SELECT email FROM users WHERE account_id = 1 ORDER BY id";
        let all = stage.runtime.block_on(async {
            let tasks: Vec<_> = (0..24)
                .map(|_| {
                    let address = proxy.address();
                    tokio::spawn(async move { first_values(&connect_at(address, "app").await, select).await })
                })
                .collect();
            let mut all = HashSet::new();
            for task in tasks {
                all.insert(task.await.unwrap().unwrap());
            }
            all
        });
        let expected: Vec<String> = (1..=6).map(|n| format!("user{n}@example.com")).collect();
        assert_eq!(all, HashSet::from([expected]), "{wrapping}");
        let mut calls: BTreeMap<String, usize> = BTreeMap::new();
        for entry in stage.server.log().iter().skip(from).filter(|entry| entry["operation"] == "Decrypt") {
            // Confirmations come with time, not with connections.
            if entry["context"]["rowseal:purpose"] != "canary" {
                *calls.entry(entry["context"].to_string()).or_default() += 1;
            }
        }
        assert_eq!(calls.len(), decrypts, "{wrapping}: {calls:?}");
        assert!(calls.values().all(|n| *n == 1), "{wrapping}: {calls:?}");
        audited_calls_were_made(&stage);
    }
}

/// Each request id of the audit log is one that the service has in its own.
fn audited_calls_were_made(stage: &Stage) {
    let log = stage.server.log();
    let known: HashSet<&str> = log.iter().filter_map(|entry| entry["request_id"].as_str()).collect();
    let shown = stage.site.run_ok(&["audit", "show", "--json"]);
    let mut audited = 0;
    for record in shown.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        for id in record["kms_requests"].as_array().into_iter().flatten() {
            assert!(known.contains(id.as_str().unwrap()), "{record}");
            audited += 1;
        }
    }
    assert!(audited > 0, "no call was audited:\n{shown}");
}

#[test]
fn a_key_disabled_at_the_service_stops_its_tenant_alone() {
    for wrapping in ["direct", "hierarchical"] {
        disabled_key_stops_its_tenant_alone(&Stage::start(wrapping));
    }
}

fn disabled_key_stops_its_tenant_alone(stage: &Stage) {
    let proxy = stage.site.serve();
    stage.run(proxy.address(), &format!("{INSERT} (1, 1, 'one', NULL), (2, 2, 'two', NULL)")).unwrap();
    let read = |tenant: u8| stage.run(proxy.address(), &format!("SELECT email FROM users WHERE account_id = {tenant}"));
    assert_eq!((read(1), read(2)), (Ok(vec!["one".to_owned()]), Ok(vec!["two".to_owned()])));
    let arn = stage.arn_of("1");
    stage.disable(&arn);
    let began = Instant::now();
    poll("the refusal", || (read(1) == Err("55000".to_owned())).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(stage.run(proxy.address(), &format!("{INSERT} (3, 1, 'x', NULL)")), Err("55000".to_owned()));
    assert_eq!(read(2), Ok(vec!["two".to_owned()]));
    stage.enable(&arn);
    poll("the key's return", || read(1).is_ok().then_some(()));
}

#[test]
fn a_key_that_is_not_the_tenants_is_not_used() {
    for wrapping in ["direct", "hierarchical"] {
        foreign_key_is_not_used(&Stage::start(wrapping));
    }
}

fn foreign_key_is_not_used(stage: &Stage) {
    let proxy = stage.site.serve();
    stage.run(proxy.address(), &format!("{INSERT} (1, 1, 'one', NULL)")).unwrap();
    let (one, two) = (stage.arn_of("1"), stage.arn_of("2"));
    stage.cluster.psql(
        "app",
        &format!(
            "UPDATE rowseal.master_key SET arn = 'none' WHERE tenant = '1';
             UPDATE rowseal.master_key SET arn = '{one}' WHERE tenant = '2';
             UPDATE rowseal.master_key SET arn = '{two}' WHERE tenant = '1'"
        ),
    );
    for tenant in [2, 1] {
        let mut id = 100 * tenant;
        poll("the refusal", || {
            id += 1;
            let insert = stage.run(proxy.address(), &format!("{INSERT} ({id}, {tenant}, 'x', NULL)"));
            (insert == Err("55000".to_owned())).then_some(())
        });
    }
    assert_eq!(stage.run(proxy.address(), "SELECT email FROM users WHERE id = 1"), Err("55000".to_owned()));
}

#[test]
fn many_first_writes_of_a_tenant_register_it_once() {
    let mut stage = Stage::start("direct");
    stage.site.set_environment([("ROWSEAL_KEYS_AUTO_REGISTER", "true")]);
    let proxy = stage.site.serve();
    stage.set(&json!({"latency_ms": 50}));
    let (from, locks) =
        (stage.server.log().len(), || stage.cluster.log().matches("SELECT pg_catalog.pg_advisory_lock(").count());
    let before = locks();
    stage.runtime.block_on(async {
        let writers: Vec<_> = (0..24)
            .map(|n| {
                let address = proxy.address();
                let insert = format!("{INSERT} ({n}, 7, 'user{n}', NULL)");
                tokio::spawn(async move { first_values(&connect_at(address, "app").await, &insert).await })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap().unwrap();
        }
    });
    let created = stage.server.log().iter().skip(from).filter(|entry| entry["operation"] == "CreateKey").count();
    assert_eq!((created, locks() - before), (1, 1));
    assert_eq!(stage.cluster.psql("app", "SELECT count(*) FROM users"), "24");
}

#[test]
fn what_passes_at_the_service_does_not_reach_the_application() {
    for wrapping in ["direct", "hierarchical"] {
        let stage = Stage::start(wrapping);
        for (n, trouble) in [
            json!({"error_burst": 3, "error_name": "ThrottlingException"}),
            json!({"error_burst": 3, "error_name": "KMSInternalException"}),
            json!({"cut": 3}),
            json!({"lose_replies": 3}),
        ]
        .iter()
        .enumerate()
        {
            let proxy = stage.site.serve();
            stage.set(trouble);
            stage.run(proxy.address(), &format!("{INSERT} ({n}, 1, 'user{n}', 'ssn{n}')")).unwrap();
            let (id, email) = (n as i64, format!("user{n}"));
            drop(proxy);
            let proxy = stage.site.serve();
            stage.set(trouble);
            let sql = format!("SELECT email FROM users WHERE account_id = 1 AND id = {id}");
            assert_eq!(stage.run(proxy.address(), &sql), Ok(vec![email]), "{wrapping}, {trouble}:\n{}", proxy.log());
        }
    }
}

#[test]
fn the_proxy_starts_without_its_key_service_and_recovers() {
    let stage = Stage::start("direct");
    stage.set(&json!({"outage": true}));
    let proxy = stage.site.serve();
    assert_eq!(stage.run(proxy.address(), "SELECT 'plain'::text"), Ok(vec!["plain".to_owned()]));
    let began = Instant::now();
    let insert = format!("{INSERT} (1, 1, 'one', NULL)");
    assert_eq!(stage.run(proxy.address(), &insert), Err("58030".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    stage.set(&json!({"outage": false}));
    stage.run(proxy.address(), &insert).unwrap();
    let read = stage.run(proxy.address(), "SELECT email FROM users WHERE account_id = 1");
    assert_eq!(read, Ok(vec!["one".to_owned()]));
}

#[test]
fn the_proxy_starts_without_a_registry_and_serves_once_it_is_there() {
    let stage = Stage::bare("direct");
    let proxy = stage.site.serve();
    // Databases without a policy are served.
    let plain = stage.cluster.psql_at(proxy.address(), "postgres", "SELECT 'plain'");
    assert_eq!(plain, Ok("plain".to_owned()));
    stage.cluster.createdb("app");
    stage.cluster.psql("app", "CREATE TABLE secret (value text)");
    let told = stage.cluster.psql_at(proxy.address(), "app", "SELECT * FROM secret").unwrap_err();
    assert!(told.contains("this database cannot be served yet") && told.contains("Try again."), "{told}");
    let refused = stage.runtime.block_on(async {
        let conninfo = format!("host=127.0.0.1 port={} user=postgres dbname=app", proxy.address().port());
        tokio_postgres::connect(&conninfo, NoTls).await.err().unwrap()
    });
    assert_eq!(sqlstate(&refused), "58030");
    stage.set_up();
    poll("the database", || stage.cluster.psql_at(proxy.address(), "app", "SELECT 1").ok());
    stage.run(proxy.address(), &format!("{INSERT} (1, 1, 'one', NULL)")).unwrap();
    assert!(stage.cluster.psql("app", "SELECT email FROM users").starts_with("\\xc15253"));
}

#[test]
fn a_registry_that_does_not_answer_keeps_nothing_else_waiting() {
    let mut stage = Stage::start("direct");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let control = format!("postgres://postgres@{}/app", silent.local_addr().unwrap());
    stage.site.set_environment([("ROWSEAL_DATABASE_APP_CONTROL", &*control)]);
    let began = Instant::now();
    let proxy = stage.site.serve();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(stage.cluster.psql_at(proxy.address(), "postgres", "SELECT 'plain'"), Ok("plain".to_owned()));
    let told = stage.cluster.psql_at(proxy.address(), "app", "SELECT 1").unwrap_err();
    assert!(told.contains("this database cannot be served yet"), "{told}");
    assert_eq!(proxy.stop(), 0);
}

#[test]
fn what_is_wrong_with_the_configuration_keeps_the_proxy_from_starting() {
    let mut stage = Stage::bare("direct");
    stage.site.set_environment([("ROWSEAL_DATABASE_APP_CONTROL", "no connection string")]);
    let ended = stage.site.run(&["serve"]);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains("the control of database \"app\""), "{said}");
}

#[test]
fn plaintext_keys_do_not_come_over_the_network_in_clear() {
    let mut stage = Stage::bare("direct");
    stage.site.set_environment([("ROWSEAL_KEYS_AWS_ENDPOINT", "http://10.0.0.1")]);
    for command in ["serve", "check", "setup"] {
        let ended = stage.site.run(&[command]);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(64) && said.contains("is not an https:// address"), "{command}: {said}");
    }
}

#[test]
fn a_registration_says_why_it_failed() {
    let stage = Stage::start("direct");
    stage.set(&json!({"outage": true}));
    let ended = stage.site.run(&["tenant", "register", "3"]);
    let said = String::from_utf8_lossy(&ended.stderr);
    let parts = ["did not carry out the registration", "the key service failed or could not be reached", "connection"];
    assert!(ended.status.code() == Some(1) && parts.iter().all(|part| said.contains(part)), "{said}");
}

#[test]
fn a_proxy_that_stops_leaves_the_list_of_those_that_live() {
    let stage = Stage::start("direct");
    let proxy = stage.site.serve();
    let listed = || stage.cluster.psql("app", "SELECT count(*) FROM rowseal.proxy ");
    poll("the proxy's heartbeat", || (listed() == "1").then_some(()));
    assert_eq!(proxy.stop(), 0, "{}", proxy.log());
    assert_eq!(listed(), "0");
}

#[test]
fn check_says_what_is_wrong_with_the_key_service() {
    let mut stage = Stage::start("direct");
    let check = |stage: &Stage| {
        let output = stage.site.run(&["check"]);
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = check(&stage);
    assert_eq!((code, &*said), (0, "database \"app\": the policy fits\n"));
    let one = stage.arn_of("1");
    stage.disable(&one);
    let (code, said) = check(&stage);
    assert!(code == 0 && said.contains(&format!("the key of tenant \"1\" is not enabled ({one})")), "{code}: {said}");
    stage.enable(&one);
    for (trouble, part) in [
        (json!({"error_burst": 100, "error_name": "UnrecognizedClientException"}), "(UnrecognizedClientException)"),
        (
            json!({"error_burst": 100, "error_name": "ExpiredTokenException"}),
            "credentials, region or endpoint are missing",
        ),
        (json!({"error_burst": 100, "error_name": "AccessDeniedException"}), "access to the key is denied"),
        (json!({"error_burst": 100, "error_name": "NotFoundException"}), "there is no such key"),
    ] {
        stage.set(&trouble);
        let (code, said) = check(&stage);
        assert!(code == 1 && said.contains(part), "{trouble}: {code}: {said}");
        stage.set(&json!({"error_burst": 0}));
    }
    let endpoint = stage.endpoint.clone();
    let region = [("ROWSEAL_KEYS_AWS_REGION", "us-east-1"), ("AWS_REGION", "")];
    for (change, part) in [
        ([("ROWSEAL_KEYS_AWS_ENDPOINT", "http://127.0.0.1:1"), region[0]], "Connection refused"),
        ([("ROWSEAL_KEYS_AWS_REGION", ""), region[1]], "the region is missing or not one"),
        ([("AWS_ACCESS_KEY_ID", ""), region[0]], "no credentials were found"),
    ] {
        stage.site.set_environment(change);
        let (code, said) = check(&stage);
        assert!(
            code == 1 && said.contains("the key service cannot be used") && said.contains(part),
            "{change:?}: {said}"
        );
        stage.site.set_environment([("ROWSEAL_KEYS_AWS_ENDPOINT", &*endpoint)]);
    }
}
