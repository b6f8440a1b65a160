//! `rowseal audit`: verifies, reads and proves the audit log.
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Context, Failure, connect};
use crate::audit::{self, Entry, Filter};

mod prove;
mod reconcile;
mod verify;

#[derive(Subcommand)]
pub(super) enum Audit {
    /// Check that nothing was changed, removed, inserted, moved or cut off.
    Verify(verify::Verify),
    /// Show records, oldest first.
    Show(Show),
    /// Compare with the key service's own log: calls that no record tells of, and records of calls it does not know.
    Reconcile(reconcile::Reconcile),
    /// Print the public key that checkpoints are signed with.
    Key(At),
    /// Print the proof that a record is in the log.
    Prove {
        /// The record's number.
        seq: u64,
        #[command(flatten)]
        at: At,
    },
    /// Write the records of one tenant, each with its proof, and nothing of another.
    Export {
        /// The tenant.
        #[arg(long)]
        tenant: String,
        /// A directory, which gets a file for each record, or a file to be made.
        #[arg(value_name = "DIRECTORY|FILE")]
        to: PathBuf,
        #[command(flatten)]
        at: At,
    },
}

/// Where the log is.
#[derive(Args)]
pub(super) struct At {
    /// The log's directory; default as the policy file says.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
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
    #[command(flatten)]
    at: At,
}

pub(super) fn run(command: Audit, context: &Context) -> Result<(), Failure> {
    match command {
        Audit::Verify(verify) => verify::run(verify, context),
        Audit::Show(show) => show_records(show, context),
        Audit::Reconcile(reconcile) => reconcile::run(reconcile, context),
        Audit::Key(at) => key(&directory(at.directory, context)?, context),
        Audit::Prove { seq, at } => prove::prove(&directory(at.directory, context)?, seq, context),
        Audit::Export { tenant, to, at } => prove::export(&directory(at.directory, context)?, &tenant, &to, context),
    }
}

fn directory(given: Option<PathBuf>, context: &Context) -> Result<PathBuf, Failure> {
    given.map_or_else(|| Ok(context.settings()?.audit.directory), Ok)
}

/// The directories of all logs that are meant: those given, else the proxy's and, where there is one, that of subcommands.
fn directories(given: Vec<PathBuf>, context: &Context) -> Result<Vec<PathBuf>, Failure> {
    if !given.is_empty() {
        return Ok(given);
    }
    let directory = directory(None, context)?;
    let operator = directory.join(connect::OPERATOR_DIRECTORY);
    let mut directories = vec![directory, operator];
    // A host on which no proxy runs may have the second alone.
    let is_there = |directory: &PathBuf| directory.join("verifier").exists() || directory.join("audit.jsonl").exists();
    if directories.iter().any(is_there) {
        directories.retain(is_there);
    } else {
        directories.truncate(1);
    }
    Ok(directories)
}

fn key(directory: &Path, context: &Context) -> Result<(), Failure> {
    let key = audit::verifier(directory)?;
    Ok(context.output.write(key.to_string(), &json!({ "log": key.name(), "verifier": key.to_string() }))?)
}

fn show_records(show: Show, context: &Context) -> Result<(), Failure> {
    let directories = directories(show.at.directory.into_iter().collect(), context)?;
    let filter =
        Filter { tenant: show.tenant, role: show.role, column: show.column, since: show.since, until: show.until };
    for directory in directories {
        audit::show::<Failure>(&directory, &filter, |entry| Ok(context.output.write(line(entry), entry)?))?;
    }
    Ok(())
}

fn line(entry: &Entry) -> String {
    let Entry { seq, time, act, database, role, tenant, rows, result, .. } = entry;
    let columns = entry.columns.join(",");
    let detail = entry.detail.as_ref().map_or_else(String::new, |detail| format!(" ({detail:?})"));
    // Names come from clients: no control character of theirs reaches the terminal.
    format!(
        "{seq:>8} {time} {act:<6} {result:<5} {rows:>6} rows  {database} {role:?} for {tenant:?}: {columns:?}{detail}"
    )
}
