//! `rowseal audit`: verifies and reads the audit log.
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Context, Failure};
use crate::audit::{self, Entry, Filter, Head};

#[derive(Subcommand)]
pub(super) enum Audit {
    /// Check that no record was changed, removed, inserted or moved.
    Verify {
        /// A head that an earlier verify gave: the log must go through it, so that a cut tail shows.
        #[arg(long, value_name = "NUMBER:HASH")]
        head: Option<Head>,
        /// The log's directory; default as the policy file says.
        #[arg(long, value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
    },
    /// Show records, oldest first.
    Show(Show),
}

#[derive(Args)]
pub(super) struct Show {
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Of this login or current role.
    #[arg(long)]
    role: Option<String>,
    /// Of this column, as schema.table.column.
    #[arg(long)]
    column: Option<String>,
    /// Not before this time, such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::Timestamp>,
    /// Before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<jiff::Timestamp>,
    /// The log's directory; default as the policy file says.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

pub(super) fn run(command: Audit, context: &Context) -> Result<(), Failure> {
    match command {
        Audit::Verify { head, directory } => verify(head, directory, context),
        Audit::Show(show) => show_records(show, context),
    }
}

fn directory(given: Option<PathBuf>, context: &Context) -> Result<PathBuf, Failure> {
    given.map_or_else(|| Ok(context.settings()?.audit.directory), Ok)
}

fn verify(head: Option<Head>, given: Option<PathBuf>, context: &Context) -> Result<(), Failure> {
    let directory = directory(given, context)?;
    let verified = audit::verify_from(&directory, &head.unwrap_or(Head::EMPTY))?;
    let head = verified.head;
    let text = format!(
        "{} records, none changed, removed, inserted or moved; {} half-written lines set aside\nhead {head}",
        head.seq, verified.set_aside
    );
    let json = json!({ "records": head.seq, "head": head.to_string(), "set_aside": verified.set_aside });
    Ok(context.output.write(text, &json)?)
}

fn show_records(show: Show, context: &Context) -> Result<(), Failure> {
    let directory = directory(show.directory, context)?;
    let filter =
        Filter { tenant: show.tenant, role: show.role, column: show.column, since: show.since, until: show.until };
    audit::show::<Failure>(&directory, &filter, |entry| Ok(context.output.write(line(entry), entry)?))
}

fn line(entry: &Entry) -> String {
    let Entry { seq, time, act, database, role, tenant, rows, result, .. } = entry;
    let columns = entry.columns.join(",");
    // Names come from clients: no control character of theirs reaches the terminal.
    format!("{seq:>8} {time} {act:<6} {result:<5} {rows:>6} rows  {database} {role:?} for {tenant:?}: {columns:?}")
}
