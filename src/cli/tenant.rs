//! `rowseal tenant`: registers and lists tenants.
use clap::Subcommand;
use serde_json::json;

use super::connect::{self, Control};
use super::key::{keep_checkpoint, shred, status};
use super::{Context, Failure};
use crate::config::Wrapping;
use crate::jobs::keyset::KeySet;
use crate::keys::registry::{Registered, RegistryError};
use crate::policy::GLOBAL_TENANT;

#[derive(Subcommand)]
pub(super) enum Tenant {
    /// Give a tenant a master key of its own; safe to repeat.
    Register {
        /// The text form of the tenant column's value.
        name: String,
        /// How its data keys are wrapped; default as the policy file says.
        #[arg(long, value_parser = wrapping, value_name = "direct|hierarchical")]
        wrapping: Option<Wrapping>,
    },
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

fn wrapping(text: &str) -> Result<Wrapping, String> {
    match text {
        "direct" => Ok(Wrapping::Direct),
        "hierarchical" => Ok(Wrapping::Hierarchical),
        _ => Err("direct or hierarchical".to_owned()),
    }
}

pub(super) async fn run(command: Tenant, context: &Context) -> Result<(), Failure> {
    match command {
        Tenant::Register { name, wrapping } => register(&name, wrapping, context).await,
        Tenant::List => list(context).await,
        Tenant::Show { name, count } => show(&name, count, context).await,
        Tenant::Shred(shred) => {
            let done = shred::run(shred, context).await;
            keep_checkpoint(context).await;
            done
        }
    }
}

async fn register(name: &str, wrapping: Option<Wrapping>, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let database = context.database(&settings)?;
    let wrapping = connect::wrapping(wrapping.unwrap_or(settings.keys.wrapping));
    let registry = Control::of(&settings, database)?.registry().await?;
    let kms = connect::kms(&settings).await?;
    let registered = registry.register(name, wrapping, kms.as_ref()).await.map_err(failure)?;
    drop(kms);
    connect::keep_operator_checkpoint(&settings, &registry).await;
    let (text, new) = match registered {
        Registered::Now => (format!("tenant {name:?} is registered ({})", wrapping.as_str()), true),
        Registered::Already => (format!("tenant {name:?} was registered before"), false),
    };
    context.output.write(text, &json!({ "tenant": name, "wrapping": wrapping.as_str(), "new": new }))?;
    Ok(())
}

fn failure(error: RegistryError) -> Failure {
    match error {
        RegistryError::Name | RegistryError::Reserved | RegistryError::OtherWrapping(_) | RegistryError::Barred(_) => {
            Failure::Refused(error.to_string())
        }
        error => error.into(),
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
