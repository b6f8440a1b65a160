//! `rowseal key rotate`: another master key for a tenant.
use clap::Args;
use serde_json::json;

use super::progress::Shown;
use super::{failure, open, reason};
use crate::cli::{Context, Failure};
use crate::jobs::rotation::{Depth, Request};

#[derive(Args)]
pub(in crate::cli) struct Rotate {
    /// The tenant.
    tenant: String,
    /// The key may be known to others: rotate it although it was rotated less than 24 hours ago.
    #[arg(long, requires = "reason")]
    compromised: bool,
    /// Why it counts as compromised; stands in the audit log.
    #[arg(long, requires = "compromised", value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
    /// What is done to each cell: its data key wrapped by the new key, or its value sealed anew under a new data key.
    #[arg(long, value_parser = depth, value_name = "rewrap|reseal", default_value = "rewrap")]
    depth: Depth,
    /// Change at most so many rows in a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_rows_per_second: Option<u32>,
}

fn depth(text: &str) -> Result<Depth, String> {
    let all = [Depth::Rewrap, Depth::Reseal];
    all.into_iter().find(|depth| depth.as_str() == text).ok_or_else(|| "rewrap or reseal".to_owned())
}

pub(super) async fn run(rotate: Rotate, context: &Context) -> Result<(), Failure> {
    let Rotate { tenant, reason, depth, max_rows_per_second, .. } = rotate;
    let settings = context.settings()?;
    let policy = context.database(&settings)?;
    let bench = open(context, (&tenant, "rowseal key rotate"), max_rows_per_second).await?;
    let shown = Shown::new(context);
    let watch = |event: crate::jobs::Event<'_>| shown.event(event);
    let done = bench.rotate(&Request { depth, compromised: reason }, policy, &watch).await;
    shown.end(&done);
    let done = done.map_err(failure)?;
    let text = format!(
        "tenant {tenant:?} has a new master key: {} rows, {} cells were wrapped again\n  new {}\n  old {} (disabled)",
        done.rows, done.cells, done.new, done.old
    );
    let json =
        json!({ "tenant": tenant, "rows": done.rows, "cells": done.cells, "new_key": done.new, "old_key": done.old });
    Ok(context.output.write(text, &json)?)
}
