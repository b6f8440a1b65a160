//! `rowseal key unpurge`: purged versions are kept after all, as deactivated ones.
use clap::Args;
use serde_json::json;

use super::progress::Shown;
use super::{failure, open, reason};
use crate::cli::{Context, Failure};
use crate::jobs::bench::NO_REASON;
use crate::jobs::older;

#[derive(Args)]
pub(in crate::cli) struct Unpurge {
    /// The tenant.
    tenant: String,
    /// Why; stands in the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason, default_value = NO_REASON)]
    reason: String,
}

pub(super) async fn run(unpurge: Unpurge, context: &Context) -> Result<(), Failure> {
    let Unpurge { tenant, reason } = unpurge;
    let bench = open(context, (&tenant, "rowseal key unpurge"), None).await?;
    let shown = Shown::new(context);
    let watch = |event: crate::jobs::Event<'_>| shown.event(event);
    let custody = bench.custody(&watch).await.map_err(failure)?;
    let keys = older::unpurge(&custody, &reason).await.map_err(failure)?;
    let mut text = format!("kept, and deactivated, for tenant {tenant:?}:");
    keys.iter().for_each(|key| text += &format!("\n  version {} {}", key.version, key.arn));
    let keys: Vec<&str> = keys.iter().map(|key| key.arn.as_str()).collect();
    Ok(context.output.write(text, &json!({ "tenant": tenant, "keys": keys }))?)
}
