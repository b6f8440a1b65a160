//! Arguments and subcommands, one file each.
//!
//! A subcommand loads the settings, does one thing and writes what it found through `Output`. Exit codes: 0 done,
//! 1 failed, 2 refused by a rule, 64 usage or configuration. Only here and in `main` may errors be `anyhow`: nothing
//! of this module is ever sent to a client.
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Settings};
use crate::policy;

mod audit;
mod check;
mod column;
mod connect;
mod demo;
mod key;
mod lint;
mod output;
pub mod serve;
mod setup;
mod status;
mod tenant;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

use output::Output;

const FAILED: u8 = 1;
const REFUSED: u8 = 2;
const USAGE: u8 = 64;

/// A transparent encryption proxy in front of Postgres.
#[derive(Parser)]
#[command(name = "rowseal", version, arg_required_else_help = true)]
pub struct Arguments {
    /// The policy file.
    #[arg(long, global = true, value_name = "FILE", default_value = "rowseal.toml", env = "ROWSEAL_CONFIG")]
    config: PathBuf,
    /// Write JSON for machines.
    #[arg(long, global = true)]
    json: bool,
    /// The database, where the policy has several.
    #[arg(long, global = true, value_name = "NAME")]
    database: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy.
    Serve,
    /// Show sealed and open views side by side on a throw-away Postgres.
    Demo(demo::Demo),
    /// Install or upgrade schema rowseal in a database; safe to repeat.
    Setup,
    /// Hold the policy against the live database.
    Check,
    /// Say for each statement of a script what the proxy would do: pass, rewrite, refuse and why.
    Lint(lint::Lint),
    /// Register and list tenants.
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// Rotate master keys and say how they are.
    #[command(subcommand)]
    Key(key::Key),
    /// Seal existing plaintext columns in place, and open them again.
    #[command(subcommand)]
    Column(column::Column),
    /// Verify and read the audit log.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Say how the databases, their tenants and proxies are.
    Status,
}

/// Why a subcommand did not do what was asked.
#[derive(Debug)]
enum Failure {
    /// Exit code 64.
    Usage(String),
    /// Exit code 2.
    Refused(String),
    /// Exit code 1.
    Failed(anyhow::Error),
    /// Exit code 1; what is wrong has been written already.
    Shown,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Failed(error.into())
    }
}

/// What the subcommands share.
struct Context {
    config: PathBuf,
    database: Option<String>,
    output: Output,
}

impl Context {
    fn settings(&self) -> Result<Settings, Failure> {
        config::load(&self.config).map_err(|error| Failure::Usage(error.to_string()))
    }

    /// The databases that are meant: the one of `--database`, else all of the policy.
    fn databases<'a>(&self, settings: &'a Settings) -> Result<Vec<&'a policy::Database>, Failure> {
        match &self.database {
            None => Ok(settings.databases.iter().collect()),
            Some(name) => settings
                .database(name)
                .map(|database| vec![database])
                .ok_or_else(|| Failure::Usage(format!("the policy has no database {name:?}"))),
        }
    }

    /// The one database that is meant.
    fn database<'a>(&self, settings: &'a Settings) -> Result<&'a policy::Database, Failure> {
        match self.databases(settings)?.as_slice() {
            [database] => Ok(database),
            [] => Err(Failure::Usage("the policy has no database".to_owned())),
            _ => Err(Failure::Usage("the policy has several databases: say which with --database".to_owned())),
        }
    }
}

/// Reads the arguments. Help, the version and errors are shown here.
///
/// # Errors
/// The exit code of what was shown: 0 for help and version, else 64.
pub fn arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, ExitCode> {
    Arguments::try_parse_from(arguments).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
    })
}

/// Does what the subcommand says and returns the exit code.
pub fn run(arguments: Arguments) -> ExitCode {
    let context =
        Context { config: arguments.config, database: arguments.database, output: Output::new(arguments.json) };
    match dispatch(arguments.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn dispatch(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Serve => Ok(serve::run(context.settings()?)?),
        Command::Demo(demo) => demo::run(&demo),
        Command::Setup => connect::block_on(setup::run(context)),
        Command::Check => connect::block_on(check::run(context)),
        Command::Lint(lint) => connect::block_on(lint::run(&lint, context)),
        Command::Tenant(command) => connect::block_on(tenant::run(command, context)),
        Command::Key(command) => connect::block_on(key::run(command, context)),
        Command::Column(command) => connect::block_on(column::run(command, context)),
        Command::Audit(command) => audit::run(command, context),
        Command::Status => connect::block_on(status::run(context)),
    }
}

fn report(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Usage(message) => output::complain(message, USAGE),
        Failure::Refused(message) => output::complain(message, REFUSED),
        Failure::Failed(error) if output::is_broken_pipe(error) => ExitCode::SUCCESS,
        Failure::Failed(error) => output::complain(&format!("{error:#}"), FAILED),
        Failure::Shown => ExitCode::from(FAILED),
    }
}

/// Logs to standard error; `ROWSEAL_LOG` filters as `RUST_LOG` does, `ROWSEAL_LOG_FORMAT=json` writes JSON. The demo,
/// whose output is for reading, logs only errors by itself.
///
/// # Secrets
/// Other crates may log what they were given, so of them only warnings and errors are shown, whatever the filter
/// says, and records of the `log` crate (sqlparser's hold statements) are not taken over at all.
pub fn log_to_stderr(arguments: &Arguments) {
    use tracing_subscriber::filter::{EnvFilter, FilterFn};
    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::{Layer, SubscriberExt};

    let usual = if matches!(arguments.command, Command::Demo(_)) { "error" } else { "info" };
    let filter = EnvFilter::try_from_env("ROWSEAL_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let ours = FilterFn::new(|event| event.target().starts_with("rowseal") || *event.level() <= tracing::Level::WARN);
    let is_json = std::env::var("ROWSEAL_LOG_FORMAT").is_ok_and(|format| format == "json");
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = if is_json { layer.json().boxed() } else { layer.boxed() };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(ours)).with(filter);
    let _ = tracing::subscriber::set_global_default(subscriber);
}
