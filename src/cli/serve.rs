//! `rowseal serve`: runs the proxy.
use crate::config::Settings;

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    anyhow::bail!("this build cannot serve {} yet", settings.listen.address)
}
