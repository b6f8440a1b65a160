//! `rowseal audit reconcile`: the audit log beside the key service's own.
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::super::{Context, Failure};
use crate::audit::{self, Filter};

#[derive(Args)]
pub(in super::super) struct Reconcile {
    /// The key service's log: a JSON object a line, with `request_id` and `operation`, or as CloudTrail names them.
    #[arg(long, value_name = "FILE")]
    kms_log: PathBuf,
    /// The directories of the logs of all proxies; default the one that the policy file names.
    #[arg(value_name = "DIRECTORY")]
    directories: Vec<PathBuf>,
    /// Records before this time need not be in the key service's log.
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::Timestamp>,
    /// Records from this time on need not be in it.
    #[arg(long, value_name = "TIME")]
    until: Option<jiff::Timestamp>,
}

pub(super) fn run(reconcile: Reconcile, context: &Context) -> Result<(), Failure> {
    let directories = super::directories(reconcile.directories, context)?;
    let filter = Filter { since: reconcile.since, until: reconcile.until, ..Filter::default() };
    let file = File::open(&reconcile.kms_log).with_context(|| format!("{}", reconcile.kms_log.display()))?;
    let found = audit::reconcile(&directories, &filter, BufReader::new(file))?;
    for call in &found.unexplained {
        let key = call.key.as_deref().unwrap_or("a key it does not name");
        let text = format!("no record tells of {} of {key} (request {})", call.operation, call.request_id);
        let json = json!({ "unexplained": call.request_id, "operation": call.operation, "key": call.key });
        context.output.write(text, &json)?;
    }
    for recorded in &found.unknown {
        let directory = recorded.directory.display().to_string();
        let text = format!(
            "record {} of {directory} tells of request {:?}, which the key service does not know",
            recorded.seq, recorded.request_id
        );
        let json = json!({ "unknown": recorded.request_id, "seq": recorded.seq, "directory": directory });
        context.output.write(text, &json)?;
    }
    let (unexplained, unknown) = (found.unexplained.len(), found.unknown.len());
    let text = format!("{} calls: {unexplained} not recorded; {unknown} requests recorded and not known", found.calls);
    context.output.write(text, &json!({ "calls": found.calls, "unexplained": unexplained, "unknown": unknown }))?;
    if unexplained + unknown == 0 { Ok(()) } else { Err(Failure::Shown) }
}
