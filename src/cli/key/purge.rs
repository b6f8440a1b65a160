//! `rowseal key purge`: the deletion of versions that nothing needs (K4).
use clap::Args;
use serde_json::json;

use super::confirm::confirm;
use super::progress::Shown;
use super::{failure, open};
use crate::cli::{Context, Failure};
use crate::jobs::older;

#[derive(Args)]
pub(in crate::cli) struct Purge {
    /// The tenant.
    tenant: String,
    /// After how many days the key service deletes them; until then it can be cancelled.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u8).range(7..=30))]
    days: u8,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(purge: Purge, context: &Context) -> Result<(), Failure> {
    let Purge { tenant, days, yes } = purge;
    let bench = open(context, (&tenant, "rowseal key purge"), None).await?;
    let shown = Shown::new(context);
    let watch = |event: crate::jobs::Event<'_>| shown.event(event);
    let custody = bench.custody(&watch).await.map_err(failure)?;
    // Held until the end, so that nothing is rotated or lent to a restored backup meanwhile.
    let worker = bench.only_worker(&watch).await.map_err(failure)?;
    let mut keys = older::purgeable(&custody, &worker).await.map_err(failure)?;
    let what = format!("{} older versions of the key of tenant {tenant:?} will be deleted in {days} days", keys.len());
    if !yes {
        confirm(&tenant, &what, yes)?;
        // Rows may have been restored while somebody thought about it.
        keys = older::purgeable(&custody, &worker).await.map_err(failure)?;
    }
    older::purge(&custody, &keys, days).await.map_err(failure)?;
    let mut text = format!("{what}, and with them what backups hold under them");
    keys.iter().for_each(|key| text += &format!("\n  version {} {}", key.version, key.arn));
    let keys: Vec<&str> = keys.iter().map(|key| key.arn.as_str()).collect();
    Ok(context.output.write(text, &json!({ "tenant": tenant, "days": days, "keys": keys }))?)
}
