//! Do updates of many rows give each row its own key (E2), in every kind of transaction?
use std::collections::BTreeSet;

use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;

const POLICY: &str = r#"
[[database]]
name = "app"
control = "{control}/app"

[[database.table]]
name = "public.customers"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant" }
ssn = { type = "text" }
"#;

#[test]
fn an_update_of_many_rows_gives_each_row_a_key_of_its_own() {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let site = Site::new(&cluster, POLICY);
    site.run_ok(&["setup"]);
    for tenant in ["acme", "globex"] {
        site.run_ok(&["tenant", "register", tenant]);
    }
    cluster.psql("app", "create table customers (account_id text, email rowseal.text, ssn rowseal.text)");
    let proxy = site.serve();
    let run = |sql: &str| cluster.psql_at(proxy.address(), "app", sql).unwrap();

    run("insert into customers values ('acme', 'a', '1'), ('acme', 'b', '2'), ('globex', 'c', '3')");
    run("update customers set ssn = '9'");
    assert_eq!(run("select email, ssn from customers order by account_id"), "a|9\nb|9\nc|9");
    run("begin; update customers set ssn = '4' where account_id = 'acme'; update customers set ssn = '5'; commit");
    run("begin;\nupdate customers set ssn = '6' where account_id = 'acme';\nupdate customers set ssn = '7';\ncommit;");
    assert_eq!(run("select ssn from customers"), "7\n7\n7");

    let ids = cluster.psql("app", "select substring(ssn::bytea from 9 for 16) from customers");
    assert_eq!(ids.lines().collect::<BTreeSet<_>>().len(), 3, "data-key ids of cells without a token");
}
