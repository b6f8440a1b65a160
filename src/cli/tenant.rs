//! `rowseal tenant`: registers and lists tenants.
use clap::Subcommand;
use serde_json::json;

use super::connect::Control;
use super::key::{shred, status};
use super::{Context, Failure};
use crate::jobs::keyset::KeySet;
use crate::policy::GLOBAL_TENANT;

mod register;
mod roll;

#[derive(Subcommand)]
pub(super) enum Tenant {
    /// Give a tenant a master key of its own, or every tenant of a file; safe to repeat.
    Register(register::Register),
    /// List all tenants.
    List,
    /// Show one tenant and its keys.
    Show {
        /// Its name.
        name: String,
        /// Count the cells under each version of its master key, which reads all sealed tables.
        #[arg(long)]
        count: bool,
    },
    /// Make everything that is sealed for a tenant unreadable for ever.
    Shred(shred::Shred),
}

pub(super) async fn run(command: Tenant, context: &Context) -> Result<(), Failure> {
    match command {
        Tenant::Register(register) => register::run(register, context).await,
        Tenant::List => list(context).await,
        Tenant::Show { name, count } => show(&name, count, context).await,
        Tenant::Shred(shred) => shred::run(shred, context).await,
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let snapshot = Control::of(&settings, context.database(&settings)?)?.registry().await?.snapshot();
    let mut tenants: Vec<_> = snapshot.tenants.values().filter(|tenant| &*tenant.name != GLOBAL_TENANT).collect();
    tenants.sort_by(|a, b| a.name.cmp(&b.name));
    for tenant in tenants {
        let wrapping = tenant.wrapping.as_str();
        let text = format!("{:<32} active       {wrapping}", tenant.name);
        context.output.write(text, &json!({ "tenant": &*tenant.name, "state": "active", "wrapping": wrapping }))?;
    }
    let mut barred: Vec<_> = snapshot.barred.iter().collect();
    barred.sort_by_key(|(name, _)| *name);
    for (name, standing) in barred {
        let state = standing.as_str();
        context.output.write(format!("{name:<32} {state}"), &json!({ "tenant": &**name, "state": state }))?;
    }
    for name in &snapshot.registering {
        context
            .output
            .write(format!("{name:<32} registering"), &json!({ "tenant": &**name, "state": "registering" }))?;
    }
    Ok(())
}

async fn show(name: &str, count: bool, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let registry = Control::of(&settings, context.database(&settings)?)?.registry().await?;
    let snapshot = registry.snapshot();
    let client = registry.dedicated().await?;
    client.batch_execute("SET search_path = pg_catalog").await?;
    let keys = KeySet::read(&client, name).await?.filter(|keys| keys.state != "registering");
    let Some(keys) = keys else {
        let is_registering = snapshot.registering.iter().any(|other| &**other == name);
        let state = if is_registering { "is not registered to the end: repeat" } else { "is not registered; run" };
        return Err(anyhow::anyhow!("tenant {name:?} {state} `rowseal tenant register`").into());
    };
    let state = if keys.state == "active" { String::new() } else { format!(", {}", keys.state) };
    context.output.write(format!("{name}: {}{state}", keys.wrapping.as_str()), &describe(name, &keys))?;
    let counts = if count { Some(status::counts(&client).await?) } else { None };
    status::write_versions(&keys, counts.as_ref(), context)
}

fn describe(name: &str, keys: &KeySet) -> serde_json::Value {
    json!({
        "tenant": name,
        "state": keys.state,
        "wrapping": keys.wrapping.as_str(),
        "searchable": keys.wrapped.iter().any(|key| key.is_index && key.is_active),
        "master_keys": keys.masters.len(),
    })
}
