//! `rowseal tenant`: registers and lists tenants.
use clap::Subcommand;
use serde_json::json;

use super::connect::{self, Control};
use super::{Context, Failure};
use crate::config::Wrapping;
use crate::keys::registry::{Registered, RegistryError, Snapshot, TenantRecord};
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
    },
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
        Tenant::Show { name } => show(&name, context).await,
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
        RegistryError::Name | RegistryError::Reserved | RegistryError::OtherWrapping(_) => {
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
    for name in &snapshot.registering {
        context
            .output
            .write(format!("{name:<32} registering"), &json!({ "tenant": &**name, "state": "registering" }))?;
    }
    Ok(())
}

async fn show(name: &str, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let snapshot = Control::of(&settings, context.database(&settings)?)?.registry().await?.snapshot();
    let Some(tenant) = snapshot.tenants.get(name) else {
        let is_registering = snapshot.registering.iter().any(|other| &**other == name);
        let state = if is_registering { "is not registered to the end: repeat" } else { "is not registered; run" };
        return Err(anyhow::anyhow!("tenant {name:?} {state} `rowseal tenant register`").into());
    };
    context.output.write(format!("{name}: {}", tenant.wrapping.as_str()), &describe(tenant, &snapshot))?;
    for (arn, state) in masters(tenant, &snapshot) {
        context.output.write(format!("  master key {arn}: {state}"), &json!({ "master_key": arn, "state": state }))?;
    }
    Ok(())
}

fn describe(tenant: &TenantRecord, snapshot: &Snapshot) -> serde_json::Value {
    json!({
        "tenant": &*tenant.name,
        "wrapping": tenant.wrapping.as_str(),
        "searchable": tenant.index.is_some(),
        "master_keys": masters(tenant, snapshot).len(),
    })
}

fn masters(tenant: &TenantRecord, snapshot: &Snapshot) -> Vec<(String, String)> {
    let own = snapshot.masters.values().filter(|master| master.tenant == tenant.name);
    let mut masters: Vec<_> =
        own.map(|master| (master.arn.as_str().to_owned(), format!("{:?}", master.state).to_lowercase())).collect();
    masters.sort_unstable();
    masters
}
