//! `rowseal status`: how the databases, their tenants and proxies are.
use serde_json::json;

use super::connect::Control;
use super::{Context, Failure};
use crate::policy::{Database, GLOBAL_TENANT};
use crate::setup;

/// Live proxies first; ages in whole seconds, by the server's clock.
const PROXIES: &str = "
    SELECT id::pg_catalog.text, epoch, extract(epoch FROM pg_catalog.now() - heartbeat)::pg_catalog.int8
    FROM rowseal.proxy ORDER BY heartbeat DESC";
const TENANTS: &str = "SELECT count(*) FROM rowseal.tenant WHERE state = 'active' AND name <> $1";

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    for database in context.databases(&settings)? {
        one(database, &Control::of(&settings, database)?, context).await?;
    }
    Ok(())
}

async fn one(database: &Database, control: &Control, context: &Context) -> Result<(), Failure> {
    let name = &database.name;
    let client = control.client().await?;
    let version = setup::version(&client).await?;
    if version == 0 {
        let text = format!("database {name:?}: schema rowseal is not installed");
        return Ok(context.output.write(text, &json!({ "database": name, "version": 0 }))?);
    }
    let tenants: i64 = client.query_one(TENANTS, &[&GLOBAL_TENANT]).await?.try_get(0)?;
    let text = format!("database {name:?}: schema rowseal version {version}, {tenants} tenants");
    context.output.write(text, &json!({ "database": name, "version": version, "tenants": tenants }))?;
    for row in client.query(PROXIES, &[]).await? {
        let (id, epoch, age): (String, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let text = format!("  proxy {id}: epoch {epoch}, last seen {age} s ago");
        context.output.write(text, &json!({ "database": name, "proxy": id, "epoch": epoch, "seen_seconds": age }))?;
    }
    Ok(())
}
