//! Does `rowseal lint` say what the proxy then does?
use std::fs;

use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;
use crate::updates::POLICY;

const SCRIPT: &str = "\\set ON_ERROR_STOP on
select 1;
select email
  from customers where account_id = 'acme' and email = 'a';
insert into customers values ('acme', 'a', '1');
select 1;
copy other (a) from stdin;
1;
\\.
select * from customers where ssn like '1%';
";

fn site(cluster: &Cluster) -> Site {
    cluster.createdb("app");
    let site = Site::new(cluster, POLICY);
    site.run_ok(&["setup"]);
    cluster.psql(
        "app",
        "create table customers (account_id text, email rowseal.text, ssn rowseal.text); create table other (a text)",
    );
    site
}

#[test]
fn a_script_is_judged_statement_by_statement() {
    let cluster = Cluster::start(Version::Any);
    let site = site(&cluster);
    let path = site.path().join("app.sql");
    fs::write(&path, SCRIPT).unwrap();
    let output = site.run(&["lint", path.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout);
    let places = text.lines().filter_map(|line| line.strip_prefix(&format!("{}:", path.display())));
    let verdicts: Vec<String> = places.map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(verdicts, ["2: pass:", "3: rewrite:", "5: rewrite:", "7: pass:", "10: refuse:"], "{text}");
    for expected in [
        "rowseal.eq(email) = <token of email>",
        "values ('acme', <cell of email>, <cell of ssn>)",
        "    0A000: sealed column public.customers.ssn",
        "5 statements: 2 pass, 2 rewritten, 1 refused",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(output.status.code(), Some(2));

    let output = site.run(&["lint", "--json", path.to_str().unwrap()]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let values: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values.len(), 6);
    assert_eq!(values[4]["verdict"], "refuse");
    assert_eq!(values[4]["sqlstate"], "0A000");
    assert_eq!(values[5]["refuse"], 1);

    fs::write(&path, "select 1; select account_id from customers").unwrap();
    assert_eq!(site.run(&["lint", path.to_str().unwrap()]).status.code(), Some(0));
    // A name that the search path does not lead to the sealed table is another one.
    fs::write(&path, "select ssn from customers where ssn like '1%'").unwrap();
    assert_eq!(site.run(&["lint", path.to_str().unwrap()]).status.code(), Some(2));
    let missing = site.run(&["lint", "/does/not/exist.sql"]);
    assert_eq!(missing.status.code(), Some(64));
    assert_eq!(site.run(&["lint"]).status.code(), Some(64));
}

#[test]
fn the_statements_that_the_server_has_counted_are_judged() {
    let cluster = Cluster::start_with(Version::Any, &[("shared_preload_libraries", "pg_stat_statements")]);
    let site = site(&cluster);
    let output = site.run(&["lint", "--from-server"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("pg_stat_statements is not installed"));

    cluster.psql("app", "create schema extensions; create extension pg_stat_statements schema extensions");
    cluster.psql("app", "select account_id from customers where ssn is null");
    cluster.psql("app", "select length(ssn::bytea) from customers");
    let output = site.run(&["lint", "--from-server"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("1 calls: refuse: select length(ssn::bytea) from customers"), "{text}");
    assert!(!text.contains("refuse: select account_id"), "{text}");
}
