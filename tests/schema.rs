//! Does the proxy notice every change of the schema, and only those?
use rowseal::catalog::marks;
use tokio_postgres::NoTls;

use crate::support::postgres::{Cluster, Version};

/// Each changes what names, columns, views, functions or triggers mean.
const CHANGES: [&str; 19] = [
    "create table t (id int, a text)",
    "alter table t add column b int",
    "alter table t rename a to c",
    "alter table t alter c type varchar(7)",
    "alter table t alter b set default 1",
    "alter table t add primary key (id)",
    "create view v as select id from t",
    "create or replace view v as select 1 as id from t",
    "create function f() returns trigger language plpgsql as 'begin return new; end'",
    "create or replace function f() returns trigger language plpgsql as 'begin perform 1; return new; end'",
    "create trigger g before insert on t for each row execute function f()",
    "create domain d as text",
    "create schema s",
    "alter table t rename to u",
    "alter table u set schema s",
    "alter schema s rename to r",
    "create table k () inherits (r.u)",
    "alter table k no inherit r.u",
    "alter table r.u drop column b cascade",
];

#[test]
fn the_marks_of_the_catalogs_change_with_the_schema_and_not_with_the_data() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for version in [Version::V15, Version::V18] {
        let cluster = Cluster::start(version);
        let control = format!("postgres://postgres@{}/postgres", cluster.host_port());
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&control, NoTls).await.unwrap();
            tokio::spawn(connection);
            let mut before = marks(&client).await.unwrap();
            for change in CHANGES {
                client.batch_execute(change).await.unwrap();
                let after = marks(&client).await.unwrap();
                assert_ne!(after, before, "{change}");
                client.batch_execute("begin; create table gone (); rollback").await.unwrap();
                assert_eq!(marks(&client).await.unwrap(), after, "{change}");
                before = after;
            }
            // The first one clears the flag of a table that had children.
            client.batch_execute("analyze").await.unwrap();
            before = marks(&client).await.unwrap();
            for upkeep in [
                "insert into r.u select generate_series(1, 100)",
                "update r.u set id = -id",
                "analyze",
                "vacuum freeze",
            ] {
                client.batch_execute(upkeep).await.unwrap();
                assert_eq!(marks(&client).await.unwrap(), before, "{upkeep}");
            }
            client.batch_execute("drop table k").await.unwrap();
            assert_ne!(marks(&client).await.unwrap(), before);
        });
    }
}
