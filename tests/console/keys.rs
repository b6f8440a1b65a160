//! What the console does to keys: the same as `rowseal key`, recorded as there.
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{POLICY, psql, start};
use crate::support::guard::poll;
use crate::support::postgres::Cluster;
use crate::support::proxy::{Proxy, Site};

/// A proxy that lives and takes nothing up.
const SILENT: &str = "INSERT INTO rowseal.proxy (id, epoch, heartbeat)
    VALUES ('00000000-0000-0000-0000-000000000001', 0, now() + interval '1 hour')";
const SILENT_GONE: &str = "DELETE FROM rowseal.proxy WHERE id = '00000000-0000-0000-0000-000000000001'";

fn rows(cluster: &Cluster, proxy: &Proxy) {
    psql(cluster, proxy, "dba", "REGISTER TENANT 'acme'; REGISTER TENANT 'zeta'").unwrap();
    let values = (0..50).map(|n| format!("({n}, '{}', 'user{n}@x', {n})", if n < 40 { "acme" } else { "zeta" }));
    let insert = format!("INSERT INTO users VALUES {}", values.collect::<Vec<_>>().join(", "));
    cluster.psql_at(proxy.address(), "app", &insert).unwrap();
}

fn readable(cluster: &Cluster, proxy: &Proxy, tenant: &str) -> Result<String, String> {
    let select = format!("SELECT count(*) FROM (SELECT email FROM users WHERE account_id = '{tenant}') t");
    let emails = format!("SELECT email FROM users WHERE account_id = '{tenant}' ORDER BY id LIMIT 1");
    cluster.psql_at(proxy.address(), "app", &emails)?;
    cluster.psql_at(proxy.address(), "app", &select)
}

/// What was done to keys, once it is verified.
fn done(site: &Site) -> String {
    let directory = site.path().join("audit/admin");
    let directory = directory.to_str().unwrap();
    site.run_ok(&["audit", "verify", "--directory", directory]);
    site.run_ok(&["audit", "show", "--json", "--directory", directory])
}

fn rotated(cluster: &Cluster, proxy: &Proxy, times: usize) {
    poll("the end of the rotation", || {
        let shown = psql(cluster, proxy, "dba", "SHOW ROTATIONS").unwrap();
        let done = shown.lines().filter(|line| line.starts_with("app|acme|done|") && line.ends_with("|f|"));
        (done.count() == times).then_some(())
    });
}

#[test]
fn a_key_is_rotated_in_the_background() {
    let (cluster, site, proxy) = start(POLICY, &[]);
    rows(&cluster, &proxy);
    let ask = |sql: &str| psql(&cluster, &proxy, "dba", sql);
    cluster.psql("app", SILENT);
    let begun = ask("ROTATE KEY acme").unwrap();
    assert!(begun.starts_with("app|acme|creating|20") || begun.starts_with("app|acme|switching|20"), "{begun}");
    poll("what it waits for", || {
        let shown = ask("SHOW ROTATIONS").unwrap();
        let waits = "|t|waiting: 1 proxies have not taken up the new key yet";
        (shown.starts_with("app|acme|switching|") && shown.ends_with(waits)).then_some(())
    });
    // One at a time, from wherever; the other one is not disturbed.
    let elsewhere = ask("rotate key 'acme' in app").unwrap_err();
    assert!(elsewhere.contains("the rotation of tenant \"acme\" runs elsewhere: switching"), "{elsewhere}");
    let elsewhere = site.run(&["key", "rotate", "acme"]);
    assert_eq!(elsewhere.status.code(), Some(2), "{elsewhere:?}");
    assert!(ask("SHOW ROTATIONS").unwrap().contains("|t|waiting"));
    cluster.psql("app", SILENT_GONE);
    rotated(&cluster, &proxy, 1);
    let shown = ask("SHOW ROTATIONS").unwrap();
    let fields: Vec<&str> = shown.split('|').collect();
    assert_eq!((fields[6], fields[7], fields[8]), ("40", "80", "f"), "{shown}");
    assert_eq!(readable(&cluster, &proxy, "acme").unwrap(), "40");
    let keys = ask("SHOW KEYS").unwrap();
    let of = |state: &str| keys.lines().filter(|line| line.contains("|acme|") && line.ends_with(state)).count();
    assert_eq!((of("|active"), of("|deactivated")), (1, 1), "{keys}");

    let young = ask("ROTATE KEY 'acme'").unwrap_err();
    assert!(young.contains("was rotated less than 24 hours ago"), "{young}");
    let begun = ask("ROTATE KEY 'acme' RESEAL COMPROMISED REASON 'a lost laptop'").unwrap();
    assert!(begun.starts_with("app|acme|"), "{begun}");
    rotated(&cluster, &proxy, 2);
    assert_eq!(readable(&cluster, &proxy, "acme").unwrap(), "40");

    let done = done(&site);
    let acts = ["rotate local:key/", "create a master key", "was disabled: the rotation is done", "a lost laptop"];
    for act in acts {
        let line = done.lines().find(|line| line.contains(act)).unwrap_or_else(|| panic!("{act}: {done}"));
        assert!(line.contains("\"dba\"") && line.contains("rowseal console") && line.contains("acme"), "{line}");
    }
    let asked = site.run_ok(&["audit", "show", "--json"]);
    assert_eq!(asked.matches("\"rotate key\"").count(), 3, "{asked}");
    assert_eq!(asked.matches("\"rotate key (a lost laptop)\"").count(), 1, "{asked}");
    assert_eq!(asked.matches("\"rotate key: failed\"").count(), 2, "{asked}");
}

/// The proxy is killed in the middle; another one goes on, and so does the command line.
#[test]
fn a_rotation_goes_on_where_a_killed_proxy_left_it() {
    let (cluster, site, proxy) = start(POLICY, &[]);
    rows(&cluster, &proxy);
    cluster.psql("app", SILENT);
    psql(&cluster, &proxy, "dba", "ROTATE KEY acme").unwrap();
    poll("the rotation under way", || {
        psql(&cluster, &proxy, "dba", "SHOW ROTATIONS").unwrap().contains("|switching|").then_some(())
    });
    proxy.kill();
    let proxy = site.serve();
    let shown = psql(&cluster, &proxy, "dba", "SHOW ROTATIONS").unwrap();
    assert!(shown.starts_with("app|acme|switching|") && shown.ends_with("|f|"), "{shown}");
    cluster.psql("app", "DELETE FROM rowseal.proxy WHERE heartbeat > now() + interval '1 minute'");
    let begun = psql(&cluster, &proxy, "dba", "ROTATE KEY acme").unwrap();
    assert!(begun.starts_with("app|acme|switching|"), "{begun}");
    rotated(&cluster, &proxy, 1);
    assert_eq!(readable(&cluster, &proxy, "acme").unwrap(), "40");
}

#[test]
fn a_tenant_is_revoked_and_taken_back() {
    let (cluster, site, proxy) = start(POLICY, &[]);
    rows(&cluster, &proxy);
    let ask = |sql: &str| psql(&cluster, &proxy, "dba", sql);
    assert_eq!(readable(&cluster, &proxy, "acme").unwrap(), "40");
    assert!(ask("DEACTIVATE KEY acme").unwrap_err().contains("this needs a reason"));
    assert!(ask("DEACTIVATE KEY acme REASON ' '").unwrap_err().contains("say why"));
    assert_eq!(readable(&cluster, &proxy, "acme").unwrap(), "40");
    assert_eq!(ask("DEACTIVATE KEY acme REASON 'the contract ended'").unwrap(), "app|acme|revoked|1|1|");
    let gone = readable(&cluster, &proxy, "acme").unwrap_err();
    assert!(gone.contains("the key of tenant \"acme\" is not available"), "{gone}");
    assert_eq!(readable(&cluster, &proxy, "zeta").unwrap(), "10");
    assert!(ask("SHOW TENANTS").unwrap().contains("app|acme|revoked|"));
    assert!(ask("ROTATE KEY acme").unwrap_err().contains("only an active one is rotated"));
    assert_eq!(ask("REACTIVATE KEY 'acme' REASON 'they are back' IN app").unwrap(), "app|acme|active|1|1|");
    // A proxy that the key service has refused believes that for some seconds more.
    poll("the tenant's values", || readable(&cluster, &proxy, "acme").ok().filter(|count| count == "40"));
    for (wrong, said) in [
        ("REACTIVATE KEY acme", "tenant \"acme\" is active"),
        ("DEACTIVATE KEY nobody REASON 'x'", "tenant \"nobody\" is not registered"),
        ("DEACTIVATE KEY _rowseal REASON 'x'", "serve all tenants"),
        ("ROTATE KEY nobody", "tenant \"nobody\" is not registered"),
        ("ROTATE KEY", "the name of a tenant is missing"),
        ("ROTATE KEY acme COMPROMISED", "this needs a reason"),
        ("ROTATE KEY acme REASON 'x'", "is not understood"),
        ("REACTIVATE KEY acme IN nowhere", "no database of this name"),
    ] {
        let refused = ask(wrong).unwrap_err();
        assert!(refused.contains(said), "{wrong}: {refused}");
    }
    let done = done(&site);
    for act in ["revoke the tenant (the contract ended)", "was disabled", "reactivate the tenant (they are back)"] {
        assert!(done.lines().any(|line| line.contains(act) && line.contains("\"dba\"")), "{act}: {done}");
    }
}

async fn driver(proxy: &Proxy) -> Client {
    let conninfo = format!("host=127.0.0.1 port={} user=dba dbname=rowseal", proxy.address().port());
    let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn drivers_act_on_keys_by_the_extended_protocol() {
    let (cluster, site, proxy) = start(POLICY, &[]);
    let (client, code) = (driver(&proxy).await, |error: tokio_postgres::Error| error.code().unwrap().code().to_owned());
    rows(&cluster, &proxy);
    let deactivate = client.prepare("DEACTIVATE KEY 'acme' REASON 'it''s over'").await.unwrap();
    let names: Vec<&str> = deactivate.columns().iter().map(|column| column.name()).collect();
    assert_eq!(names, ["database", "tenant", "state", "keys", "proxies", "silent_proxies"]);
    let row = client.query_one(&deactivate, &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(2), row.get::<_, i64>(3), row.get::<_, i64>(4)), ("revoked", 1, 1));
    assert!(readable(&cluster, &proxy, "acme").is_err());
    assert_eq!(code(client.query("ROTATE KEY 'acme'", &[]).await.unwrap_err()), "55000");
    // What is done is told though nobody asks for the row.
    assert_eq!(client.execute("REACTIVATE KEY 'acme'", &[]).await.unwrap(), 0);
    assert_eq!(code(client.execute("REACTIVATE KEY 'acme'", &[]).await.unwrap_err()), "55000");
    assert_eq!(code(client.query("DEACTIVATE KEY 'acme'", &[]).await.unwrap_err()), "42601");
    let row = client.query_one("ROTATE KEY 'acme'", &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("app", "acme"));
    rotated(&cluster, &proxy, 1);
    let row = client.query_one("SHOW ROTATIONS", &[]).await.unwrap();
    assert_eq!(
        (row.get::<_, &str>("state"), row.get::<_, i64>("rows"), row.get::<_, bool>("here")),
        ("done", 40, false)
    );
    let simple = client.simple_query("ROTATE KEY 'zeta'; SHOW VERSION").await.unwrap();
    let is_zeta =
        |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(row) if row.get(1) == Some("zeta"));
    assert!(simple.iter().any(is_zeta), "{simple:?}");
    poll("the tenant's values", || readable(&cluster, &proxy, "acme").ok().filter(|count| count == "40"));
    assert!(done(&site).contains("revoke the tenant (it's over)"));
}
