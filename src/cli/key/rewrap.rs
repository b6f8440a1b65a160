//! `rowseal key rewrap`: the active master key for cells that hang on an older one (K3).
use clap::Args;
use serde_json::json;

use super::progress::Shown;
use super::{failure, open};
use crate::cli::{Context, Failure};
use crate::jobs::strays;

#[derive(Args)]
pub(in crate::cli) struct Rewrap {
    /// The tenant.
    tenant: String,
    /// Change at most so many rows in a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_rows_per_second: Option<u32>,
}

pub(super) async fn run(rewrap: Rewrap, context: &Context) -> Result<(), Failure> {
    let tenant = rewrap.tenant;
    let bench = open(context, (&tenant, "rowseal key rewrap"), rewrap.max_rows_per_second).await?;
    let shown = Shown::new(context);
    let watch = |event: crate::jobs::Event<'_>| shown.event(event);
    let worker = bench.only_worker(&watch).await.map_err(failure)?;
    let done = strays::rewrap(&worker).await;
    shown.end(&done);
    let done = done.map_err(failure)?;
    let mut text = format!("tenant {tenant:?}: {} rows, {} cells were wrapped again", done.rows, done.cells);
    done.disabled.iter().for_each(|arn| text += &format!("\n  {arn} is disabled again"));
    let json = json!({ "tenant": tenant, "rows": done.rows, "cells": done.cells, "disabled": done.disabled });
    context.output.write(text, &json)?;
    if done.out_of_reach.is_empty() {
        return Ok(());
    }
    for (table, rows) in &done.out_of_reach {
        let text = format!("  {table}: {rows} rows hang on a version that is disabled");
        context.output.write(text, &json!({ "table": &**table, "rows_out_of_reach": rows }))?;
    }
    Err(Failure::Shown)
}
