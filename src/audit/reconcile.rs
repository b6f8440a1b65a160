//! Holds audit logs against the key service's own log: what one knows of and the other does not.
use std::collections::{HashMap, HashSet};
use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::record::Entry;
use super::show::{Filter, show};
use super::verify::VerifyError;

/// Operations that use or change no key.
const HARMLESS: [&str; 8] =
    ["Describe", "List", "Get", "TagResource", "UntagResource", "CreateAlias", "UpdateAlias", "DeleteAlias"];

/// Why logs cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// An audit log cannot be read.
    #[error("the audit log in {}", .0.display())]
    Audit(PathBuf, #[source] VerifyError),
    /// The key service's log cannot be read.
    #[error("the key service's log cannot be read")]
    Read(#[from] std::io::Error),
    /// A line of it that is not one.
    #[error("line {0} of the key service's log is not a JSON object with a request id and an operation")]
    Line(usize),
}

/// A line of the key service's log; the other names are CloudTrail's.
#[derive(Debug, Clone, Deserialize)]
struct Line {
    #[serde(alias = "requestID")]
    request_id: String,
    #[serde(alias = "eventName")]
    operation: String,
    key_id: Option<String>,
    #[serde(rename = "eventSource")]
    source: Option<String>,
}

/// A call that the key service knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsCall {
    /// The service's name for it.
    pub request_id: String,
    /// What was asked.
    pub operation: String,
    /// Of which key, where the log says so.
    pub key: Option<String>,
}

/// A request id in an audit record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRequest {
    /// The directory of the log.
    pub directory: PathBuf,
    /// The record.
    pub seq: u64,
    /// The id.
    pub request_id: String,
}

/// What one side knows of and the other does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// How many calls of the service's log were looked at.
    pub calls: usize,
    /// Calls that no record tells of.
    pub unexplained: Vec<KmsCall>,
    /// Requests in records that the service does not know.
    pub unknown: Vec<RecordedRequest>,
}

/// Compares the audit logs in these directories with the key service's log, one JSON object a line. Of the records those
/// that `filter` wants must be known to the service: its log is of some time only.
///
/// # Errors
/// [`ReconcileError`].
pub fn reconcile(
    directories: &[PathBuf],
    filter: &Filter,
    kms_log: impl BufRead,
) -> Result<Reconciled, ReconcileError> {
    let (mut requests, mut created) = (HashMap::new(), HashSet::new());
    for directory in directories {
        read(directory, filter, &mut requests, &mut created)?;
    }
    let (mut reconciled, mut seen) = (Reconciled::default(), HashSet::new());
    for (number, line) in kms_log.lines().enumerate() {
        let line: Line = serde_json::from_str(&line?).map_err(|_| ReconcileError::Line(number + 1))?;
        let is_other = line.source.as_ref().is_some_and(|source| source != "kms.amazonaws.com");
        if is_other || HARMLESS.iter().any(|name| line.operation.starts_with(name)) {
            continue;
        }
        reconciled.calls += 1;
        // The answer to this one names the key, and not the request.
        let is_created =
            || line.operation == "CreateKey" && line.key_id.as_ref().is_some_and(|key| created.contains(key));
        if !requests.contains_key(&line.request_id) && !is_created() {
            let Line { request_id, operation, key_id: key, .. } = line.clone();
            reconciled.unexplained.push(KmsCall { request_id, operation, key });
        }
        seen.insert(line.request_id);
    }
    let unknown = requests.into_iter().filter(|(id, _)| !seen.contains(id)).filter_map(|(_, recorded)| recorded);
    reconciled.unknown = unknown.collect();
    reconciled.unknown.sort_by(|a, b| (&a.directory, a.seq, &a.request_id).cmp(&(&b.directory, b.seq, &b.request_id)));
    Ok(reconciled)
}

/// All requests that the records of a log tell of, and where the first that is wanted does.
fn read(
    directory: &Path,
    filter: &Filter,
    requests: &mut HashMap<String, Option<RecordedRequest>>,
    created: &mut HashSet<String>,
) -> Result<(), ReconcileError> {
    let each = |entry: &Entry| -> Result<(), VerifyError> {
        if let Some(key) = entry.detail.as_ref().and_then(|detail| detail.strip_prefix("CreateKey ")) {
            created.insert(key.to_owned());
        }
        for id in entry.kms_requests.iter().filter(|id| !id.is_empty()) {
            let known = requests.entry(id.clone()).or_default();
            if known.is_none() && filter.wants(entry) {
                let (directory, seq) = (directory.to_owned(), entry.seq);
                *known = Some(RecordedRequest { directory, seq, request_id: id.clone() });
            }
        }
        Ok(())
    };
    show(directory, &Filter::default(), each).map_err(|error| ReconcileError::Audit(directory.to_owned(), error))
}
