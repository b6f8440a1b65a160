//! `rowseal setup`: installs schema `rowseal` and registers the reserved tenant.
use anyhow::Context as _;
use serde_json::json;

use super::connect::{self, Control};
use super::{Context, Failure};
use crate::setup;

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let databases = context.databases(&settings)?;
    let kms = connect::kms(&settings).await?;
    let mut registries = Vec::new();
    for database in databases {
        let name = &database.name;
        let control = Control::of(&settings, database)?;
        let client = control.client().await?;
        let installed = setup::install(&client).await.with_context(|| format!("database {name:?}"))?;
        let registry = control.registry().await?;
        registry.register_reserved(kms.as_ref()).await.with_context(|| format!("database {name:?}"))?;
        registries.push(registry);
        let text = if installed.unchanged() {
            format!("database {name:?}: schema rowseal is at version {}, nothing to do", installed.to)
        } else {
            format!("database {name:?}: schema rowseal brought from version {} to {}", installed.from, installed.to)
        };
        context.output.write(text, &json!({ "database": name, "from": installed.from, "to": installed.to }))?;
    }
    drop(kms);
    for registry in registries {
        connect::keep_operator_checkpoint(&settings, &registry).await;
    }
    Ok(())
}
