//! The console (O5): database `rowseal` on the proxy's port, for psql and drivers. Who comes is proven by the server, who may
//! come in says the policy, and nothing that is shown is a secret.
use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::support::clients::python;
use crate::support::guard::poll;
use crate::support::peer::{Out, Peer, field, show, startup};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};

mod keys;

const POLICY: &str = r#"[admin]
console = ["dba"]

[[database]]
name = "app"
control = "{control}/app"

[[database.table]]
name = "public.users"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant", mask = { fixed = "canary7f3" } }
age = { type = "int4" }
later = { type = "text" }
"#;

fn start(policy: &str, environment: &[(&str, &str)]) -> (Cluster, Site, Proxy) {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    cluster.psql(
        "postgres",
        "CREATE ROLE dba LOGIN PASSWORD 'dba-secret'; CREATE ROLE helper LOGIN IN ROLE dba; CREATE ROLE stranger LOGIN",
    );
    let mut site = Site::new(&cluster, policy);
    site.set_environment(environment.iter().copied());
    site.run_ok(&["setup"]);
    cluster.psql(
        "app",
        "CREATE TABLE users (id int8 PRIMARY KEY, account_id text NOT NULL, email rowseal.text, age rowseal.int4);
         ALTER TABLE users ALTER email SET STORAGE EXTERNAL, ALTER age SET STORAGE EXTERNAL",
    );
    let proxy = site.serve();
    (cluster, site, proxy)
}

/// What psql prints as a role.
fn psql(cluster: &Cluster, proxy: &Proxy, user: &str, sql: &str) -> Result<String, String> {
    cluster.psql_at(proxy.address(), &format!("rowseal user={user}"), sql)
}

#[test]
fn psql_sees_how_the_proxy_is_and_registers_tenants() {
    let (cluster, site, proxy) = start(POLICY, &[]);
    let ask = |sql: &str| psql(&cluster, &proxy, "dba", sql).unwrap();
    assert_eq!(ask("SHOW VERSION"), env!("CARGO_PKG_VERSION"));
    assert_eq!(ask("show Tenants;"), "");
    assert_eq!(ask("REGISTER TENANT 'acme'; SHOW TENANTS"), "app|acme|active|direct|t|1");
    assert_eq!(ask("register tenant 'acme' direct in app; REGISTER TENANT 'x-1' HIERARCHICAL"), "");
    assert_eq!(ask("SHOW TENANTS"), "app|acme|active|direct|t|1\napp|x-1|active|hierarchical|t|1");
    let refused = psql(&cluster, &proxy, "dba", "REGISTER TENANT 'o''neil'").unwrap_err();
    assert!(refused.contains("letters, digits"), "{refused}");
    let listed = site.run_ok(&["tenant", "list"]);
    assert!(listed.contains("acme") && listed.contains("active       direct"), "{listed}");

    let users = |sql: &str| cluster.psql_at(proxy.address(), "app", sql);
    users("INSERT INTO users VALUES (1, 'acme', 'ann@example.com', 40)").unwrap();
    assert_eq!(users("SELECT email FROM users WHERE account_id = 'acme'").unwrap(), "ann@example.com");
    users("INSERT INTO users VALUES (2, 'other', 'ann@example.com', 40)").unwrap_err();

    let keys = ask("SHOW KEYS");
    assert!(keys.contains("app|acme|local:key/") && keys.lines().all(|line| line.ends_with("|active")), "{keys}");
    assert_eq!(ask("SHOW ROTATIONS"), "");
    assert_eq!(
        ask("SHOW COLUMNS"),
        "app|public.users|email|text|within a tenant|fixed|column account_id|sealed\n\
         app|public.users|age|integer||NULL|column account_id|sealed\n\
         app|public.users|later|text||NULL|column account_id|missing"
    );
    assert!(ask("SHOW DATABASES").starts_with("app|open|"));
    assert!(ask("SHOW PROXIES").lines().any(|line| line.ends_with("|t")));
    let session = ask("SHOW SESSIONS");
    assert!(session.contains("|rowseal|dba|127.0.0.1:") && session.contains("|psql|console|20"), "{session}");
    let mut idle = Peer::connect(proxy.address(), "app");
    idle.ask("BEGIN");
    poll("the session in its transaction", || {
        ask("SHOW SESSIONS").contains("|app|postgres|").then_some(())?;
        ask("SHOW SESSIONS").contains("|idle in transaction|").then_some(())
    });
    let cache = ask("SHOW CACHE");
    let counts: Vec<&str> = cache.split('|').collect();
    assert!(counts[0] == "app" && counts[1] != "0" && counts[2] != "0", "{cache}");
    let statements = ask("SHOW STATEMENTS");
    assert!(statements.contains("|rewrite|") && !statements.contains("example"), "{statements}");
    let audit = ask("SHOW AUDIT");
    assert!(audit.contains("|group|") && audit.ends_with("|f|0") && !audit.contains("|group|0|"), "{audit}");
    let config = ask("SHOW CONFIG");
    assert!(config.contains("admin.console|dba") && config.contains("keys.provider|local"), "{config}");
    let help = ask("SHOW HELP");
    assert!(help.contains("SHOW TENANTS|") && help.contains("REGISTER TENANT 'name'"), "{help}");

    let recorded = site.run_ok(&["audit", "show", "--json"]);
    let act =
        recorded.lines().find(|line| line.contains("register tenant, direct")).unwrap_or_else(|| panic!("{recorded}"));
    assert!(act.contains("acme") && act.contains("dba") && act.contains("psql"), "{act}");
}

#[test]
fn who_may_not_come_in_stays_out() {
    let (cluster, site, proxy) = start(POLICY, &[]);
    assert_eq!(psql(&cluster, &proxy, "helper", "SELECT 1").unwrap(), "1");
    for user in ["stranger", "postgres"] {
        let refused = psql(&cluster, &proxy, user, "SHOW TENANTS").unwrap_err();
        assert!(refused.contains(&format!("FATAL:  role \"{user}\" may not use the console")), "{refused}");
    }
    assert!(psql(&cluster, &proxy, "nobody", "SELECT 1").unwrap_err().contains("role \"nobody\" does not exist"));
    let mut peer = Peer::bare(proxy.address());
    peer.send(&startup(&[("user", "stranger"), ("database", "rowseal")]));
    let messages = peer.rest();
    let error = messages.windows(5).position(|window| window == b"SFATA").unwrap();
    assert_eq!(field(&messages[error..], b'C'), "42501");

    // The list is read again with the rest; the role that a client is named by is not the database it means.
    site.rewrite(&[("console = [\"dba\"]", "console = [\"stranger\"]")]);
    assert_eq!(psql(&cluster, &proxy, "dba", "RELOAD").unwrap(), "");
    assert!(psql(&cluster, &proxy, "dba", "SELECT 1").unwrap_err().contains("may not use the console"));
    assert_eq!(psql(&cluster, &proxy, "stranger", "SELECT 1").unwrap(), "1");
    site.rewrite(&[("console = [\"stranger\"]", "console = []")]);
    assert_eq!(psql(&cluster, &proxy, "stranger", "RELOAD").unwrap(), "");
    assert!(psql(&cluster, &proxy, "stranger", "SELECT 1").unwrap_err().contains("lets nobody into its console"));
}

#[test]
fn a_bad_file_is_refused_in_the_console_too() {
    let (cluster, site, proxy) = start(POLICY, &[]);
    site.rewrite(&[("equality", "equalty")]);
    let refused = psql(&cluster, &proxy, "dba", "RELOAD").unwrap_err();
    assert!(refused.contains("everything stays as it is") && refused.contains("rowseal.toml:"), "{refused}");
    assert!(proxy.log().contains("is not taken up"));
    site.rewrite(&[("equalty", "equality"), ("equality = \"tenant\", ", "")]);
    assert_eq!(psql(&cluster, &proxy, "dba", "RELOAD").unwrap(), "");
    assert!(psql(&cluster, &proxy, "dba", "SHOW COLUMNS").unwrap().contains("|email|text||fixed|"));
    assert_eq!(site.run_ok(&["audit", "show", "--json"]).matches("reload the policy file").count(), 3);
    assert!(proxy.reload().contains("is in force"));
    let recorded = site.run_ok(&["audit", "show", "--json"]);
    // The commands that made the site have a file of their own, which may come behind.
    let reloads: Vec<&str> = recorded.lines().filter(|line| line.contains("reload the policy file")).collect();
    assert_eq!(reloads.len(), 4, "{recorded}");
    assert!(reloads[3].contains("\"client\":\"signal\"") && reloads[3].contains("\"result\":\"ok\""), "{recorded}");
}

#[test]
fn the_server_judges_passwords_and_tls_is_that_of_the_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("proxy.crt"), dir.path().join("proxy.key"));
    let pair = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&pair).unwrap();
    fs::write(&certificate, made.pem()).unwrap();
    fs::write(&key, pair.serialize_pem()).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let environment = [
        ("ROWSEAL_LISTEN_TLS_CERTIFICATE", &*text(&certificate)),
        ("ROWSEAL_LISTEN_TLS_KEY", &*text(&key)),
        ("ROWSEAL_ADMIN_CONSOLE", "another, dba"),
    ];
    let (cluster, _site, proxy) = start(&POLICY.replace("[\"dba\"]", "[]"), &environment);
    cluster.prepend_hba("host all dba all scram-sha-256");
    poll("the password", || {
        psql(&cluster, &proxy, "dba password=wrong", "SELECT 1").err().filter(|error| error.contains("password"))
    });
    let error = psql(&cluster, &proxy, "dba password=wrong", "SELECT 1").unwrap_err();
    assert!(error.contains("password authentication failed for user \"dba\""), "{error}");
    let tls = format!("dba password=dba-secret sslmode=verify-ca sslrootcert={}", certificate.display());
    for words in ["dba password=dba-secret sslmode=disable", &*tls] {
        assert!(
            psql(&cluster, &proxy, words, "SHOW CONFIG").unwrap().contains("admin.console|another, dba"),
            "{words}"
        );
    }
}

#[tokio::test]
async fn drivers_use_the_extended_protocol() {
    let (_cluster, site, proxy) = start(POLICY, &[]);
    let conninfo = format!("host=127.0.0.1 port={} user=dba dbname=rowseal", proxy.address().port());
    let (mut client, connection) = tokio_postgres::connect(&conninfo, NoTls).await.unwrap();
    tokio::spawn(connection);
    site.run_ok(&["tenant", "register", "acme"]);
    site.run_ok(&["tenant", "register", "zeta"]);
    let tenants = client.prepare("SHOW TENANTS").await.unwrap();
    let names: Vec<&str> = tenants.columns().iter().map(|column| column.name()).collect();
    assert_eq!(names, ["database", "tenant", "state", "wrapping", "searchable", "master_keys"]);
    for _ in 0..2 {
        let rows = client.query(&tenants, &[]).await.unwrap();
        let row = &rows[1];
        assert_eq!((row.get::<_, &str>(1), row.get::<_, bool>(4), row.get::<_, i64>(5)), ("zeta", true, 1));
    }
    for (wrong, code) in [
        ("SHOW SECRETS", "42601"),
        ("DELETE FROM users", "42601"),
        ("SHOW 'tenants", "42601"),
        ("REGISTER TENANT x", "42601"),
        ("ROTATE KEY", "42601"),
        ("REGISTER TENANT 'x' IN nowhere", "22023"),
    ] {
        let error = client.query(wrong, &[]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), code, "{wrong}");
        assert_eq!(client.simple_query(wrong).await.unwrap_err().code().unwrap().code(), code, "{wrong}");
    }
    let hint = client.query("SHOW SECRETS", &[]).await.unwrap_err();
    assert_eq!(hint.as_db_error().unwrap().hint(), Some("SHOW HELP lists what it knows."));
    assert_eq!(client.execute("REGISTER TENANT 'late'", &[]).await.unwrap(), 0);
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind(&tenants, &[]).await.unwrap();
    let mut read = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 2).await.unwrap();
        read.extend(rows.iter().map(|row| row.get::<_, String>(1)));
        if rows.len() < 2 {
            break;
        }
    }
    assert_eq!(read, ["acme", "late", "zeta"]);
    transaction.batch_execute("SHOW NOTHING").await.unwrap_err();
    let aborted = transaction.batch_execute("SHOW VERSION").await.unwrap_err();
    assert_eq!(aborted.code().unwrap().code(), "25P02");
    transaction.rollback().await.unwrap();
    let several = client.simple_query("SET a = 'b;c'; SHOW VERSION; ; SHOW search_path; SELECT 1").await.unwrap();
    let rows = several.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count();
    assert_eq!(rows, 3);
    assert!(client.simple_query(" ; -- nothing").await.unwrap().len() <= 1);
    client.batch_execute("DISCARD ALL").await.unwrap();
    assert!(client.query_one("SELECT version()", &[]).await.unwrap().get::<_, &str>(0).starts_with("RowSeal "));
}

#[test]
fn python_drivers_work() {
    let (_cluster, site, proxy) = start(POLICY, &[]);
    site.run_ok(&["tenant", "register", "acme"]);
    let psycopg = r#"
import psycopg
with psycopg.connect(user="dba") as db:
    print(db.execute("SHOW TENANTS").fetchall())
    print(db.execute("SHOW TENANTS", prepare=True).fetchone()[5])
    db.commit()
    try:
        db.execute("SHOW SECRETS")
    except psycopg.Error as e:
        print(e.sqlstate)
    db.rollback()
    print(db.cursor(binary=True).execute("SHOW PROXIES").fetchone()[4], db.info.server_version > 0)
"#;
    let asyncpg = r#"
import asyncio, asyncpg
async def main():
    db = await asyncpg.connect(user="dba")
    print([tuple(row) for row in await db.fetch("SHOW TENANTS")])
    print(await db.fetchval("SHOW TENANTS", column=5))
    try:
        await db.fetch("SHOW SECRETS")
    except asyncpg.PostgresError as e:
        print(e.sqlstate)
    async with db.transaction():
        print(await db.fetchval("SHOW PROXIES", column=4), True)
    await db.close()
asyncio.run(main())
"#;
    for script in [psycopg, asyncpg] {
        let said = python(proxy.address(), "rowseal", script).unwrap();
        assert_eq!(said, "[('app', 'acme', 'active', 'direct', True, 1)]\n1\n42601\nTrue True", "{script}");
    }
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let (_cluster, _site, proxy) = start(POLICY, &[]);
    let console = || {
        let mut peer = Peer::bare(proxy.address());
        peer.send(&startup(&[("user", "dba"), ("database", "rowseal")]));
        peer.until_ready(1);
        peer
    };
    let mut witness = console();
    let long = [&b"Q\0\x7f\xff\xff"[..], &[b'x'; 100]].concat();
    let cases: &[(&[u8], &str)] = &[
        (b"?\0\0\0\x04", "08P01"),
        (b"Q\0\0\0\x03", "08P01"),
        (b"Q\xff\xff\xff\xff", "08P01"),
        (&long, "54000"),
        (b"Q\0\0\0\x06ab", "08P01"),
        (b"P\0\0\0\x07a\0b", "08P01"),
        (b"P\0\0\0\x08\0\0\xff\xff", "08P01"),
        (b"B\0\0\0\x06\0\0", "08P01"),
        (b"D\0\0\0\x04", "08P01"),
        (b"E\0\0\0\x05\0", "08P01"),
        (b"p\0\0\0\x09word\0", "08P01"),
    ];
    for (bytes, code) in cases {
        let mut peer = console();
        peer.send(bytes);
        let said = peer.rest();
        assert_eq!((said.first(), &*field(&said[5..], b'C')), (Some(&b'E'), *code), "{bytes:?}");
        assert!(show(&witness_answers(&mut witness)).contains("0.1.0"));
    }
    // What is wrong but well-formed is an error, and the connection goes on; half a message is nothing.
    let mut peer = console();
    peer.send(&Out::new().bind("", "nowhere", &[], 0).query("SHOW VERSION").sync().0);
    let said = show(&peer.until_ready(1));
    assert!(said.contains("42P01") && !said.contains("0.1.0"), "{said}");
    peer.send(&Out::new().parse("", "SHOW VERSION").bind("", "", &[Some("x")], 0).sync().0);
    assert!(show(&peer.until_ready(1)).contains("42P02"));
    peer.send(&Out::new().raw(b'Q', b"SHOW \xff\0").0);
    assert!(show(&peer.until_ready(1)).contains("22021"));
    assert!(peer.ask("SHOW VERSION").contains("0.1.0"));
    peer.send(b"Q\0\0");
    drop(peer);
    assert!(show(&witness_answers(&mut witness)).contains("0.1.0"));
    assert!(!proxy.log().contains("panic"), "{}", proxy.log());
    drop(witness);
    assert_eq!(proxy.stop(), 0);
}

fn witness_answers(witness: &mut Peer) -> Vec<(u8, Vec<u8>)> {
    witness.send(&Out::new().query("SHOW VERSION").0);
    witness.until_ready(1)
}

/// A3: what an operator sees holds no value, no literal and no password; nor does what the proxy says of the console.
#[test]
fn nothing_that_is_shown_is_a_secret() {
    const MARK: &str = "canary7f3";
    let cluster = Cluster::start(Version::Any);
    let control = format!("postgres://postgres:canary7f3-password@{}/app", cluster.host_port());
    cluster.createdb("app");
    cluster.psql("postgres", "CREATE ROLE dba LOGIN PASSWORD 'canary7f3-dba'");
    let mut site = Site::new(&cluster, POLICY);
    site.set_environment([("ROWSEAL_LOG", "trace"), ("ROWSEAL_DATABASE_APP_CONTROL", &*control)]);
    site.run_ok(&["setup"]);
    cluster.psql(
        "app",
        "CREATE TABLE users (id int8 PRIMARY KEY, account_id text NOT NULL, email rowseal.text, age rowseal.int4)",
    );
    let proxy = site.serve();
    let ask = |sql: &str| psql(&cluster, &proxy, "dba password=canary7f3-dba", sql);
    ask("REGISTER TENANT 'acme'").unwrap();
    for n in 0..20 {
        let users = |sql: &str| cluster.psql_at(proxy.address(), "app", sql);
        users(&format!("INSERT INTO users VALUES ({n}, 'acme', '{MARK}-{n}', {n})")).unwrap();
        users(&format!("SELECT id FROM users WHERE account_id = 'acme' AND email = '{MARK}-{n}'")).unwrap();
        let _ = users(&format!("SELECT id FROM users WHERE email LIKE '{MARK}-{n}%'"));
    }
    let help = ask("SHOW HELP").unwrap();
    let shows: Vec<&str> =
        help.lines().filter_map(|line| line.split('|').next()).filter(|c| c.starts_with("SHOW")).collect();
    assert!(shows.len() >= 12, "{help}");
    for show in shows {
        let shown = ask(show).unwrap();
        assert!(!shown.contains(MARK), "{show}: {shown}");
    }
    for wrong in [
        format!("SELECT '{MARK}'"),
        format!("SHOW {MARK}"),
        format!("REGISTER TENANT '{MARK}!'"),
        format!("REGISTER TENANT 'x' '{MARK}'"),
    ] {
        let said = ask(&wrong).unwrap_err();
        let error = said.lines().filter(|line| !line.starts_with("LINE")).collect::<String>();
        assert!(!error.contains(MARK), "{wrong}: {error}");
    }
    assert!(!proxy.log().contains(MARK), "in the log");
}
