//! Reads records back for people.
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::chain;
use super::read::{Records, Step};
use super::record::Entry;
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

/// Hands each wanted record of the log in `directory` to `each`, oldest first, beginning with those of a chain of an
/// earlier release. Verifies nothing; the last line may be half written by a proxy at work and is then left out.
///
/// # Errors
/// [`VerifyError`] where records cannot be read, and what `each` returns.
pub fn show<E: From<VerifyError>>(
    directory: &Path,
    filter: &Filter,
    mut each: impl FnMut(&Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut wanted = |seq: u64, entry: &[u8]| {
        let entry: Entry = serde_json::from_slice(entry).map_err(|_| VerifyError::NotARecord { seq })?;
        if filter.wants(&entry) { each(&entry) } else { Ok(()) }
    };
    let had_chain = show_chain(directory, &mut wanted)?;
    if !had_chain {
        super::verify::verifier(directory)?;
    }
    let mut records = Records::at_present(directory)?;
    let mut seq = 0;
    loop {
        match records.next()? {
            Step::Signed(entry) | Step::Unsigned(entry) => {
                seq += 1;
                wanted(seq, &entry)?;
            }
            Step::Kept { .. } => {}
            Step::End => return Ok(()),
        }
    }
}

/// False when there is none.
fn show_chain<E: From<VerifyError>>(
    directory: &Path,
    wanted: &mut impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<bool, E> {
    let file = match File::open(chain::path(directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file.map_err(VerifyError::from)?,
    };
    let (mut lines, mut line, mut seq) = (BufReader::new(file), Vec::new(), 0);
    while lines.read_until(b'\n', &mut line).map_err(VerifyError::from)? > 0 && line.ends_with(b"\n") {
        seq += 1;
        wanted(seq, &line)?;
        line.clear();
    }
    Ok(true)
}
