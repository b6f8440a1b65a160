//! `rowseal status`: how the databases, their tenants and proxies are.
use serde_json::json;

use super::connect::Control;
use super::{Context, Failure};
use crate::admin::facts;
use crate::policy::Database;

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    for database in context.databases(&settings)? {
        one(database, &Control::of(&settings, database)?, context).await?;
    }
    Ok(())
}

async fn one(database: &Database, control: &Control, context: &Context) -> Result<(), Failure> {
    let name = &database.name;
    let facts::Status { version, tenants, proxies } = facts::status(&control.client().await?).await?;
    if version == 0 {
        let text = format!("database {name:?}: schema rowseal is not installed");
        return Ok(context.output.write(text, &json!({ "database": name, "version": 0 }))?);
    }
    let text = format!("database {name:?}: schema rowseal version {version}, {tenants} tenants");
    context.output.write(text, &json!({ "database": name, "version": version, "tenants": tenants }))?;
    for facts::ProxyFacts { id, epoch, seen_seconds } in proxies {
        let text = format!("  proxy {id}: epoch {epoch}, last seen {seen_seconds} s ago");
        let json = json!({ "database": name, "proxy": id, "epoch": epoch, "seen_seconds": seen_seconds });
        context.output.write(text, &json)?;
    }
    Ok(())
}
