//! `rowseal tenant shred`: what a tenant has sealed becomes unreadable for ever.
use clap::Args;
use serde_json::json;

use super::confirm::confirm;
use super::progress::Shown;
use super::{failure, open, reason, taken_up};
use crate::cli::{Context, Failure};
use crate::jobs::revocation;

#[derive(Args)]
pub(in crate::cli) struct Shred {
    /// The tenant.
    name: String,
    /// Why; stands in the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// After how many days the key service deletes its keys. They are refused at once.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u8).range(7..=30))]
    days: u8,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

pub(in crate::cli) async fn run(shred: Shred, context: &Context) -> Result<(), Failure> {
    let Shred { name, reason, days, yes } = shred;
    let bench = open(context, (&name, "rowseal tenant shred"), None).await?;
    bench.refuse_reserved().map_err(failure)?;
    let shown = Shown::new(context);
    let watch = |event: crate::jobs::Event<'_>| shown.event(event);
    let custody = bench.custody(&watch).await.map_err(failure)?;
    confirm(&name, &format!("everything sealed for tenant {name:?} will be unreadable for ever"), yes)?;
    let done = revocation::shred(&custody, days, &reason).await.map_err(failure)?;
    let text = format!(
        "tenant {name:?} is shredded, {}\n{} keys will be deleted in {days} days",
        taken_up(&done.taken_up),
        done.keys
    );
    let json = json!({
        "tenant": name,
        "state": "shredded",
        "keys_scheduled": done.keys,
        "days": days,
        "proxies": done.taken_up.proxies,
        "silent_proxies": done.taken_up.silent,
        "seconds": done.taken_up.took.as_secs_f64(),
    });
    Ok(context.output.write(text, &json)?)
}
