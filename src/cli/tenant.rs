//! `rowseal tenant`: registers and lists tenants.
use clap::Subcommand;
use serde_json::json;

use super::connect::Control;
use super::key::{keep_checkpoint, shred, status};
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
        Tenant::Shred(shred) => {
            let done = shred::run(shred, context).await;
            keep_checkpoint(context).await;
            done
        }
    }
}

/// Each tenant with its state, and of its master keys the active version, how many older ones there are, and what is to
/// become of those.
const LIST: &str = "
    SELECT t.name, t.state, t.wrapping, max(m.version) FILTER (WHERE m.state = 'active'),
        count(*) FILTER (WHERE m.state <> 'active'),
        to_char(max(m.restore_until) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
        to_char(min(m.deletion_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
    FROM rowseal.tenant t LEFT JOIN rowseal.master_key m ON m.tenant = t.name
    WHERE t.name <> $1 GROUP BY t.id ORDER BY t.name";

async fn list(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let client = Control::of(&settings, context.database(&settings)?)?.client().await?;
    client.batch_execute("SET search_path = pg_catalog").await?;
    for row in client.query(LIST, &[&GLOBAL_TENANT]).await? {
        let (name, state, wrapping): (&str, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (version, older): (Option<i32>, i64) = (row.try_get(3)?, row.try_get(4)?);
        let (restore_until, deletion_at): (Option<&str>, Option<&str>) = (row.try_get(5)?, row.try_get(6)?);
        let active = version.map(|version| format!("  version {version}")).unwrap_or_default();
        let others = if older > 0 { format!(", {older} older") } else { String::new() };
        let ends = status::ends(restore_until, deletion_at);
        let text = format!("{name:<32} {state:<12} {wrapping:<12}{active}{others}{ends}");
        let json = json!({
            "tenant": name,
            "state": state,
            "wrapping": wrapping,
            "version": version,
            "older_versions": older,
            "restore_until": restore_until,
            "deletion_at": deletion_at,
        });
        context.output.write(text.trim_end(), &json)?;
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
