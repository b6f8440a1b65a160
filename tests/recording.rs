//! Does a key use that cannot be recorded not happen (A4), and does the proxy recover when it can be again?
use std::fs;

use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;
use crate::updates::POLICY;

#[test]
fn nothing_is_opened_or_sealed_while_the_audit_log_cannot_be_written() {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let site = Site::new(&cluster, POLICY);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "acme"]);
    cluster.psql("app", "create table customers (account_id text, email rowseal.text, ssn rowseal.text)");
    let proxy = site.serve();
    let run = |sql: &str| cluster.psql_at(proxy.address(), "app", sql);
    for _ in 0..20 {
        run("insert into customers values ('acme', 'kept@example.com', '1')").unwrap();
    }
    let log = site.path().join("audit/current/000000000001.jsonl");
    // Also what fills the pool of keys, behind the statements, cannot be recorded now.
    proxy.limit_file_size(&fs::metadata(&log).unwrap().len().to_string());

    // A statement that is under way when it comes out may lose its session, those after it only their turn.
    for (at, sql) in [
        "select email from customers limit 1",
        "select email from customers limit 1",
        "insert into customers values ('acme', 'lost@example.com', '2')",
        "update customers set ssn = '3'",
        "select count(*) from customers where account_id = 'acme' and email = 'kept@example.com'",
    ]
    .into_iter()
    .enumerate()
    {
        let error = run(sql).unwrap_err();
        let severity = if at == 0 && error.contains("FATAL") { "FATAL" } else { "ERROR" };
        assert!(error.contains(&format!("{severity}:  the key use could not be recorded")), "{sql}: {error}");
        assert!(!error.contains("example.com"), "{sql}: {error}");
    }
    assert_eq!(run("select count(*), account_id from customers group by 2").unwrap(), "20|acme");
    assert_eq!(cluster.psql("app", "select count(*) from customers"), "20");

    proxy.limit_file_size("unlimited");
    assert_eq!(run("select distinct ssn is null, min(account_id) from customers group by 1").unwrap(), "f|acme");
    assert_eq!(run("select email, ssn from customers limit 1").unwrap(), "kept@example.com|1");
    run("insert into customers values ('acme', 'again@example.com', '4')").unwrap();
    assert_eq!(proxy.stop(), 0);
    site.run_ok(&["audit", "verify"]);
}
