//! `rowseal key reactivate`: the keys of a tenant can be used again (K5); or, for some hours, older versions (K3).
use clap::Args;
use serde_json::json;

use super::progress::Shown;
use super::{failure, open, reason, taken_up};
use crate::cli::{Context, Failure};
use crate::jobs::bench::NO_REASON;
use crate::jobs::{Custody, older};

#[derive(Args)]
pub(in crate::cli) struct Reactivate {
    /// The tenant.
    tenant: String,
    /// Why; stands in the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason, default_value = NO_REASON)]
    reason: String,
    /// Enable the versions that were rotated away, so that a restored backup can be read and wrapped again.
    #[arg(long)]
    for_restore: bool,
    /// For how long.
    #[arg(long, value_name = "N", requires = "for_restore", default_value_t = 24,
        value_parser = clap::value_parser!(u16).range(1..=720))]
    hours: u16,
}

pub(super) async fn run(reactivate: Reactivate, context: &Context) -> Result<(), Failure> {
    let Reactivate { tenant, reason, for_restore, hours } = reactivate;
    let bench = open(context, (&tenant, "rowseal key reactivate"), None).await?;
    let shown = Shown::new(context);
    let watch = |event: crate::jobs::Event<'_>| shown.event(event);
    if for_restore {
        let custody = bench.custody(&watch).await.map_err(failure)?;
        let _worker = bench.only_worker(&watch).await.map_err(failure)?;
        return lend(&custody, (&tenant, &reason, hours), context).await;
    }
    let done = bench.reactivate(&reason, &watch).await.map_err(failure)?;
    let text = format!("tenant {tenant:?} is active, {}\n{} keys were enabled", taken_up(&done.taken_up), done.keys);
    let json = json!({
        "tenant": tenant,
        "state": "active",
        "keys_enabled": done.keys,
        "proxies": done.taken_up.proxies,
        "silent_proxies": done.taken_up.silent,
        "seconds": done.taken_up.took.as_secs_f64(),
    });
    Ok(context.output.write(text, &json)?)
}

async fn lend(
    custody: &Custody<'_>,
    (tenant, reason, hours): (&str, &str, u16),
    context: &Context,
) -> Result<(), Failure> {
    let lent = older::lend(custody, hours, reason).await.map_err(failure)?;
    let mut text = format!("for {hours} hours these versions of the key of tenant {tenant:?} can be used:");
    lent.iter().for_each(|key| text += &format!("\n  version {} {}", key.version, key.arn));
    text += "\nwrap what they hold again with `rowseal key rewrap`, which disables them too";
    let keys: Vec<&str> = lent.iter().map(|key| key.arn.as_str()).collect();
    Ok(context.output.write(text, &json!({ "tenant": tenant, "hours": hours, "keys": keys }))?)
}
