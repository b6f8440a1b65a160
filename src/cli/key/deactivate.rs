//! `rowseal key deactivate`: nobody uses the keys of a tenant any more (K5).
use clap::Args;
use serde_json::json;

use super::progress::Shown;
use super::{failure, open, reason, taken_up};
use crate::cli::{Context, Failure};

#[derive(Args)]
pub(in crate::cli) struct Deactivate {
    /// The tenant.
    tenant: String,
    /// Why; stands in the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
}

pub(super) async fn run(deactivate: Deactivate, context: &Context) -> Result<(), Failure> {
    let Deactivate { tenant, reason } = deactivate;
    let bench = open(context, (&tenant, "rowseal key deactivate"), None).await?;
    let shown = Shown::new(context);
    let watch = |event: crate::jobs::Event<'_>| shown.event(event);
    let done = bench.deactivate(&reason, &watch).await.map_err(failure)?;
    let text = format!("tenant {tenant:?} is revoked, {}\n{} keys were disabled", taken_up(&done.taken_up), done.keys);
    let json = json!({
        "tenant": tenant,
        "state": "revoked",
        "keys_disabled": done.keys,
        "proxies": done.taken_up.proxies,
        "silent_proxies": done.taken_up.silent,
        "seconds": done.taken_up.took.as_secs_f64(),
    });
    Ok(context.output.write(text, &json)?)
}
