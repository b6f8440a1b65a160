//! `rowseal check`: holds the policy against the live database, and asks the key service for the tenants' keys.
use anyhow::Context as _;
use serde_json::json;

use super::connect::{self, Control};
use super::{Context, Failure};
use crate::admin::check::{Finding, Severity, check, error, warning};
use crate::policy::Database;
use crate::setup;

mod keys;

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let kms = connect::kms(&settings).await?;
    let mut errors = 0;
    for database in context.databases(&settings)? {
        let control = Control::of(&settings, database)?;
        let client = control.client().await?;
        let mut found = check(&client, database).await.with_context(|| format!("database {:?}", database.name))?;
        if setup::version(&client).await? > 0 {
            found.extend(keys::findings(&kms, &control.registry().await?.snapshot()).await);
        }
        for finding in &found {
            write(context, database, finding)?;
        }
        errors += found.iter().filter(|finding| finding.severity == Severity::Error).count();
        if found.is_empty() {
            let text = format!("database {:?}: the policy fits", database.name);
            context.output.write(text, &json!({ "database": database.name, "fits": true }))?;
        }
    }
    if errors > 0 { Err(Failure::Shown) } else { Ok(()) }
}

fn write(context: &Context, database: &Database, finding: &Finding) -> std::io::Result<()> {
    let severity = match finding.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let text = format!("{severity}: database {:?}: {}", database.name, finding.message);
    let json = json!({ "database": database.name, "severity": severity, "message": finding.message });
    context.output.write(text, &json)
}
