//! SIGHUP (P2): the policy file is read again while sessions run. A good one takes effect in all of them, no statement
//! fails for it; a bad one changes nothing and says why in the log.
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use tokio_postgres::{Client, NoTls};

use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};

const POLICY: &str = r#"[[database]]
name = "app"
control = "{control}/app"

[[database.table]]
name = "public.users"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant", mask = { keep_last = 2 } }

[[database.role]]
name = "analyst"
read = "open"
"#;

const OPEN: (&str, &str) = ("name = \"analyst\"\nread = \"open\"", "name = \"analyst\"\nread = \"mask\"");

fn start(environment: &[(&str, &str)]) -> (Cluster, Site, Proxy) {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    cluster.psql("postgres", "CREATE ROLE analyst LOGIN");
    let mut site = Site::new(&cluster, POLICY);
    site.set_environment(environment.iter().copied());
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1"]);
    cluster.psql(
        "app",
        "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, note text);
         ALTER TABLE users ALTER email SET STORAGE EXTERNAL; GRANT ALL ON users TO analyst; GRANT CREATE ON SCHEMA public TO analyst",
    );
    let proxy = site.serve();
    (cluster, site, proxy)
}

async fn connect(proxy: &Proxy, user: &str) -> Client {
    let address = proxy.address();
    let conninfo = format!("host={} port={} user={user} dbname=app", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < Duration::from_secs(2), "not within 2 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Two clients that go on all the time, each with statements that it has prepared once.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    rounds: AtomicU64,
    /// What the analyst saw last.
    seen: Mutex<String>,
}

impl Load {
    async fn write(self: Arc<Self>, client: Client) {
        let insert = client.prepare("INSERT INTO users (id, account_id, email) VALUES ($1, $2, $3)").await.unwrap();
        let select = client.prepare("SELECT email FROM users WHERE account_id = $1 AND id = $2").await.unwrap();
        for id in 1000i64.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            client.execute(&insert, &[&id, &1i64, &format!("user{id}@example.com")]).await.unwrap();
            let row = client.query_one(&select, &[&1i64, &id]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), format!("user{id}@example.com"));
            let update = format!("UPDATE users SET email = 'x{id}' WHERE account_id = 1 AND id = {id}");
            client.simple_query(&update).await.unwrap();
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn read(self: Arc<Self>, client: Client) {
        let select = client.prepare("SELECT email FROM users WHERE id = $1").await.unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            let prepared: String = client.query_one(&select, &[&1i64]).await.unwrap().get(0);
            client.batch_execute("BEGIN; SELECT email FROM users WHERE id = 1; COMMIT").await.unwrap();
            *self.seen.lock().unwrap() = prepared;
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn sees(&self, text: &str) {
        eventually(text, async || *self.seen.lock().unwrap() == text).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_takes_effect_in_sessions_that_run_and_fails_no_statement() {
    let (_cluster, site, proxy) = start(&[]);
    let searcher = connect(&proxy, "postgres").await;
    searcher.batch_execute("INSERT INTO users VALUES (1, 1, 'ann@example.com')").await.unwrap();
    let search = searcher.prepare("SELECT id FROM users WHERE account_id = $1 AND email = $2").await.unwrap();
    assert_eq!(searcher.query(&search, &[&1i64, &"ann@example.com"]).await.unwrap().len(), 1);
    let load = Arc::new(Load::default());
    let writes = tokio::spawn(load.clone().write(connect(&proxy, "postgres").await));
    let reads = tokio::spawn(load.clone().read(connect(&proxy, "analyst").await));
    load.sees("ann@example.com").await;

    site.rewrite(&[OPEN]);
    assert!(proxy.reload().contains("is in force"));
    load.sees("*************om").await;

    site.rewrite(&[("keep_last = 2", "keep_last = 4")]);
    assert!(proxy.reload().contains("is in force"));
    load.sees("***********.com").await;

    site.rewrite(&[("equality = \"tenant\", ", "")]);
    assert!(proxy.reload().contains("is in force"));
    for error in [
        searcher.query(&search, &[&1i64, &"ann@example.com"]).await.unwrap_err(),
        searcher
            .query("SELECT id FROM users WHERE account_id = 1 AND email = 'ann@example.com'", &[])
            .await
            .unwrap_err(),
    ] {
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.message().contains("email")), ("0A000", true), "{error}");
    }
    let rounds = load.rounds.load(Ordering::Relaxed);
    eventually("the load goes on", async || load.rounds.load(Ordering::Relaxed) > rounds + 10).await;
    load.stop.store(true, Ordering::Relaxed);
    writes.await.unwrap();
    reads.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_file_is_in_the_log_and_changes_nothing() {
    let (_cluster, site, proxy) = start(&[]);
    let client = connect(&proxy, "analyst").await;
    client.batch_execute("INSERT INTO users VALUES (1, 1, 'ann@example.com')").await.unwrap();
    let good = fs::read_to_string(site.config()).unwrap();
    let new_table = "[[database.table]]\nname = \"public.more\"\ntenant = { column = \"a\" }\n[database.table.columns]\nb = { type = \"text\" }\n\n[[database.role]]";
    let other = "[[database]]\nname = \"other\"\ncontrol = \"host=nowhere\"\n\n[[database]]\nname = \"app\"";
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[OPEN, ("keep_last", "keep_lost")], "rowseal.toml:"),
        (&[OPEN, ("read = \"mask\"", "read = \"masked\"")], "unknown variant"),
        (&[OPEN, ("email = {", "note = { type = \"text\" }\nemail = {")], "is plaintext"),
        (&[OPEN, ("type = \"text\"", "type = \"varchar(9)\"")], "the policy needs rowseal.varchar"),
        (&[OPEN, ("tls = \"disable\"", "tls = \"prefer\"")], "upstream cannot change while the proxy runs"),
        (&[OPEN, ("[[database]]\nname = \"app\"", other)], "the list of databases cannot change"),
        (&[OPEN, ("/app\"", "/app?application_name=x\"")], "control of database"),
        (&[OPEN, ("provider = \"local\"", "provider = \"local\"\npool_size = 3")], "keys cannot change"),
    ];
    for (changes, words) in cases {
        site.rewrite(changes);
        let line = proxy.reload();
        assert!(line.contains("is not taken up") && line.contains(words), "{words}: {line}");
        let seen: String = client.query_one("SELECT email FROM users", &[]).await.unwrap().get(0);
        assert_eq!(seen, "ann@example.com", "{words}");
        fs::write(site.config(), &good).unwrap();
    }
    let (line, column) = (1 + good[..good.find("keep_last").unwrap()].matches('\n').count(), "rowseal.toml");
    site.rewrite(&[("keep_last", "keep_lost")]);
    assert!(proxy.reload().contains(&format!("{column}:{line}:")));
    fs::write(site.config(), &good).unwrap();
    site.rewrite(&[("[[database.role]]", new_table)]);
    assert!(proxy.reload().contains("is in force"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_prepared_unseen_is_not_executed_when_the_policy_grows() {
    let (cluster, site, proxy) = start(&[]);
    cluster.psql("app", "CREATE TABLE later (a text, b text)");
    let idle = connect(&proxy, "postgres").await;
    let busy = connect(&proxy, "postgres").await;
    let unseen = idle.prepare("INSERT INTO later VALUES ($1, $2)").await.unwrap();
    idle.execute(&unseen, &[&"1", &"b"]).await.unwrap();
    busy.batch_execute("BEGIN; INSERT INTO later VALUES ('1', 'c')").await.unwrap();
    let more = "[[database.table]]\nname = \"public.later\"\ntenant = { column = \"a\" }\n[database.table.columns]\nb = { type = \"text\" }\n\n[[database.role]]";
    site.rewrite(&[("name = \"app\"", "name = \"app\"\nunsealed = \"pass\""), ("[[database.role]]", more)]);
    assert!(proxy.reload().contains("is in force"));
    eventually("the idle session ends", async || idle.is_closed()).await;
    assert!(idle.execute(&unseen, &[&"1", &"d"]).await.is_err());
    busy.batch_execute("INSERT INTO later VALUES ('1', 'e'); COMMIT").await.unwrap();
    eventually("the other one ends behind its transaction", async || busy.is_closed()).await;
    assert_eq!(cluster.psql("app", "SELECT string_agg(b, ' ' ORDER BY b) FROM later"), "b c e");
    assert!(connect(&proxy, "postgres").await.batch_execute("INSERT INTO later VALUES ('1', 'f')").await.is_ok());
    site.rewrite(&[("unsealed = \"pass\"", "unsealed = \"refuse\"")]);
    assert!(proxy.reload().contains("is plaintext"), "statements that work would be refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_defines_something_goes_on_under_the_new_policy() {
    let (_cluster, site, proxy) = start(&[]);
    let client = connect(&proxy, "analyst").await;
    client.batch_execute("INSERT INTO users VALUES (1, 1, 'ann@example.com')").await.unwrap();
    client.batch_execute("BEGIN; CREATE TABLE mine (id int8)").await.unwrap();
    let email = "SELECT email FROM users WHERE id = 1";
    assert_eq!(client.query_one(email, &[]).await.unwrap().get::<_, String>(0), "ann@example.com");
    client.batch_execute("PREPARE by_name AS SELECT email FROM users WHERE id = 1").await.unwrap();
    site.rewrite(&[OPEN, ("keep_last = 2", "keep_last = 3")]);
    assert!(proxy.reload().contains("is in force"));
    assert_eq!(client.query_one(email, &[]).await.unwrap().get::<_, String>(0), "************com");
    client.batch_execute("INSERT INTO users VALUES (2, 1, 'bob'); INSERT INTO mine VALUES (1); COMMIT").await.unwrap();
    let error = client.batch_execute("EXECUTE by_name").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000");
    client
        .batch_execute("DEALLOCATE by_name; PREPARE by_name AS SELECT email FROM users; EXECUTE by_name")
        .await
        .unwrap_err();
    client.batch_execute("DEALLOCATE ALL; SELECT * FROM mine").await.unwrap();
}

#[test]
fn limits_and_certificates_are_exchanged_too() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("now.crt"), dir.path().join("now.key"));
    let make = |name: &str| {
        let pair = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&pair).unwrap();
        let root = dir.path().join(name);
        fs::write(&root, made.pem()).unwrap();
        fs::write(&certificate, made.pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        root
    };
    let one = make("one.pem");
    let environment = [
        ("ROWSEAL_LISTEN_TLS_CERTIFICATE", certificate.to_str().unwrap()),
        ("ROWSEAL_LISTEN_TLS_KEY", key.to_str().unwrap()),
    ];
    let (cluster, site, proxy) = start(&environment);
    let ask = |root: &Path| {
        let conninfo = format!("app sslmode=verify-ca sslrootcert={}", root.display());
        cluster.psql_at(proxy.address(), &conninfo, "SELECT 'TLS'")
    };
    assert_eq!(ask(&one).unwrap(), "TLS");
    let two = make("two.pem");
    assert_eq!(ask(&one).unwrap(), "TLS", "not before it is told");
    assert!(proxy.reload().contains("is in force"));
    assert_eq!(ask(&two).unwrap(), "TLS");
    assert!(ask(&one).unwrap_err().contains("certificate"));
    fs::write(&key, "nothing").unwrap();
    assert!(proxy.reload().contains("a key"));
    assert_eq!(ask(&two).unwrap(), "TLS");

    make("three.pem");
    site.rewrite(&[("[audit]", "[limits]\nconnections_max = 1\n[audit]")]);
    assert!(proxy.reload().contains("is in force"));
    let (_first, full) = (ask_forever(&cluster, &proxy), "too many connections to the proxy");
    let refused =
        crate::support::guard::poll("the bound", || cluster.psql_at(proxy.address(), "app", "SELECT 1").err());
    assert!(refused.contains(full), "{refused}");
}

/// A session that stays.
fn ask_forever(_cluster: &Cluster, proxy: &Proxy) -> crate::support::peer::Peer {
    crate::support::peer::Peer::connect(proxy.address(), "app")
}
