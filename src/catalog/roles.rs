//! Which roles there are, of those that the policy names, and who is a member of which: a mark that changes with it. The
//! server's copy of it is looked at every second, and a session's facts hold for as long as theirs is the same.
use tokio_postgres::{Client, Error};

use crate::hex;
use crate::policy::Database;

/// An SQL condition: the name in this column of `pg_roles` is one of the policy's. Names are compared as UTF-8, so that the
/// question does not depend on `client_encoding`.
pub fn is_named(column: &str, policy: &Database) -> String {
    let names: Vec<String> =
        policy.roles.iter().map(|rule| format!("'{}'", hex::encode(rule.name.as_bytes()))).collect();
    format!("{} OPERATOR(pg_catalog.=) ANY (ARRAY[{}]::pg_catalog.text[])", hex_name(column), names.join(", "))
}

fn hex_name(column: &str) -> String {
    format!("pg_catalog.encode(pg_catalog.convert_to({column}::pg_catalog.text, 'UTF8'), 'hex')")
}

/// True when a mark was asked for under this policy.
pub fn is_under(mark: &str, policy: &Database) -> bool {
    mark.strip_prefix(policy.mark()).is_some_and(|rest| rest.starts_with('/'))
}

/// An SQL expression that gives the mark. It begins with that of the policy, so what is known of a role under one policy is
/// not taken for what it may do under another. Every change of membership makes a row of a later transaction or takes one
/// away.
pub fn mark(policy: &Database) -> String {
    format!(
        "pg_catalog.concat('{}/', (SELECT pg_catalog.concat(pg_catalog.count(*), ':', \
         pg_catalog.sum(g.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_auth_members g), '/', \
         (SELECT pg_catalog.string_agg(pg_catalog.concat(n.oid, ':', {}), ',' ORDER BY n.oid) \
         FROM pg_catalog.pg_roles n WHERE {}))",
        policy.mark(),
        hex_name("n.rolname"),
        is_named("n.rolname", policy)
    )
}

/// Asks for the mark.
///
/// # Errors
/// When the query fails.
pub async fn read(client: &Client, policy: &Database) -> Result<String, Error> {
    client.query_one(&format!("SELECT {}", mark(policy)), &[]).await?.try_get(0)
}
