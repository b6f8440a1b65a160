//! Reads records back for people.
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::chain::Entry;
use super::log;
use super::verify::VerifyError;

/// Which records are wanted; what is `None` or empty does not filter.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Of this login or current role.
    pub role: Option<String>,
    /// Of this column, as `schema.table.column`.
    pub column: Option<String>,
    /// Not before.
    pub since: Option<jiff::Timestamp>,
    /// Before.
    pub until: Option<jiff::Timestamp>,
}

impl Filter {
    /// True when a record is wanted. One whose time cannot be read is.
    pub fn wants(&self, entry: &Entry) -> bool {
        let is =
            |wanted: &Option<String>, found: &[&str]| wanted.as_deref().is_none_or(|wanted| found.contains(&wanted));
        let time = entry.time.parse::<jiff::Timestamp>().ok();
        let not_before = |since| time.is_none_or(|time| time >= since);
        let before = |until| time.is_none_or(|time| time < until);
        is(&self.tenant, &[&entry.tenant])
            && is(&self.role, &[&entry.user, &entry.role])
            && self.column.as_ref().is_none_or(|column| entry.columns.contains(column))
            && self.since.is_none_or(not_before)
            && self.until.is_none_or(before)
    }
}

/// Hands each wanted record of the log in `directory` to `each`, oldest first. Does not verify the chain; the last
/// line may be half written by a proxy at work and is then left out.
///
/// # Errors
/// [`VerifyError::Read`] and [`VerifyError::NotARecord`], and what `each` returns.
pub fn show<E: From<VerifyError>>(
    directory: &Path,
    filter: &Filter,
    mut each: impl FnMut(&Entry) -> Result<(), E>,
) -> Result<(), E> {
    let file = File::open(log::path(directory)).map_err(VerifyError::from)?;
    let mut lines = BufReader::new(file);
    let mut text = Vec::new();
    let mut line = 0;
    while lines.read_until(b'\n', &mut text).map_err(VerifyError::from)? > 0 && text.ends_with(b"\n") {
        line += 1;
        let entry: Entry = serde_json::from_slice(&text).map_err(|_| VerifyError::NotARecord { line })?;
        if filter.wants(&entry) {
            each(&entry)?;
        }
        text.clear();
    }
    Ok(())
}
