//! `rowseal key status`: rotations and versions of master keys.
use std::collections::HashMap;

use clap::Args;
use serde_json::json;
use tokio_postgres::Client;

use super::failure;
use crate::cli::connect::Control;
use crate::cli::{Context, Failure};
use crate::crypto::KeyId;
use crate::jobs::keyset::KeySet;
use crate::jobs::rotation::{self, Record};
use crate::jobs::{references, tables};

#[derive(Args)]
pub(in crate::cli) struct Status {
    /// The tenant; default all.
    tenant: Option<String>,
    /// Count the cells under each version, which reads all sealed tables.
    #[arg(long)]
    count: bool,
}

pub(super) async fn run(status: Status, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let client = Control::of(&settings, context.database(&settings)?)?.client().await?;
    client.batch_execute("SET search_path = pg_catalog").await?;
    let counts = if status.count { Some(counts(&client).await?) } else { None };
    let tenants = match status.tenant {
        Some(tenant) => vec![tenant],
        None => {
            let rows = client.query("SELECT name FROM rowseal.tenant WHERE state <> 'registering' ORDER BY name", &[]);
            rows.await?.iter().map(|row| row.get(0)).collect()
        }
    };
    for tenant in tenants {
        let keys = KeySet::read(&client, &tenant).await.map_err(failure)?;
        let keys = keys.ok_or_else(|| anyhow::anyhow!("tenant {tenant:?} is not registered"))?;
        let rotation = rotation::latest(&client, &tenant).await.map_err(failure)?;
        write_rotation(&tenant, &keys, rotation.as_ref(), context)?;
        write_versions(&keys, counts.as_ref(), context)?;
    }
    Ok(())
}

fn write_rotation(tenant: &str, keys: &KeySet, rotation: Option<&Record>, context: &Context) -> Result<(), Failure> {
    let (state, wrapping) = (&keys.state, keys.wrapping.as_str());
    let mut text = format!("{tenant}: {state}, {wrapping}");
    match rotation {
        None => text += ", never rotated",
        Some(Record { finished_at: Some(at), .. }) => text += &format!(", rotated {at}"),
        Some(record) => {
            let (state, since) = (record.state, &record.started_at);
            text += &format!(", in rotation since {since}: {state}\n  {}", record.progress);
        }
    }
    let rotation = rotation.map(|record| {
        json!({
            "state": record.state.as_str(),
            "started_at": record.started_at,
            "finished_at": record.finished_at,
            "compromised": record.compromised,
            "progress": record.progress,
        })
    });
    let json = json!({ "tenant": tenant, "state": state, "wrapping": wrapping, "rotation": rotation });
    Ok(context.output.write(text, &json)?)
}

/// The versions of a tenant's master key, with how many cells hang on each.
pub(in crate::cli) fn write_versions(
    keys: &KeySet,
    counts: Option<&HashMap<KeyId, u64>>,
    context: &Context,
) -> Result<(), Failure> {
    for master in &keys.masters {
        let of = |counts: &HashMap<KeyId, u64>| -> u64 {
            keys.ids_under(master.id).iter().filter_map(|id| counts.get(id)).sum()
        };
        let cells = counts.map(of);
        let (arn, state, created) = (&master.arn, &master.state, &master.created_at);
        let counted = cells.map(|cells| format!(", {cells} cells")).unwrap_or_default();
        let ends = ends(master.restore_until.as_deref(), master.deletion_at.as_deref());
        let text = format!("  version {} {arn}: {state}{ends}, made {created}{counted}", master.version);
        let json = json!({
            "master_key": arn.as_str(),
            "version": master.version,
            "state": state,
            "created_at": created,
            "restore_until": master.restore_until,
            "deletion_at": master.deletion_at,
            "cells": cells,
        });
        context.output.write(text, &json)?;
    }
    Ok(())
}

/// What is to become of a version that was rotated away, and when.
pub(in crate::cli) fn ends(restore_until: Option<&str>, deletion_at: Option<&str>) -> String {
    let restore = restore_until.map(|at| format!(", for a restored backup until {at}")).unwrap_or_default();
    let deletion = deletion_at.map(|at| format!(", deleted by the key service on {at}")).unwrap_or_default();
    restore + &deletion
}

/// How many cells hang on each key.
pub(in crate::cli) async fn counts(client: &Client) -> Result<HashMap<KeyId, u64>, Failure> {
    let tables = tables::stored(client, tables::Use::Read).await.map_err(failure)?;
    references::cells_by_key(client, &tables).await.map_err(failure)
}
