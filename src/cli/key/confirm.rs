//! What cannot be taken back is confirmed first.
use std::io::{IsTerminal, Write, stderr, stdin};

use crate::cli::Failure;

/// Has the tenant's name typed, unless `--yes` was said.
///
/// # Errors
/// Another name; or nobody there to ask.
pub(super) fn confirm(tenant: &str, what: &str, is_given: bool) -> Result<(), Failure> {
    if is_given {
        return Ok(());
    }
    if !stdin().is_terminal() {
        return Err(Failure::Usage(format!("{what}: say --yes where nobody can be asked")));
    }
    write!(stderr(), "{what}.\nType the name of the tenant to go on: ")?;
    let mut typed = String::new();
    stdin().read_line(&mut typed)?;
    if typed.trim_end_matches(['\r', '\n']) == tenant {
        return Ok(());
    }
    Err(Failure::Refused("that is another name: nothing was done".to_owned()))
}
