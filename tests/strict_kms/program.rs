//! The strict KMS as a program: `strict-kms [--listen ADDRESS] [--state FILE] [-- COMMAND ...]`.
//!
//! Prints `listening on ADDRESS` when it is ready; or runs a command whose AWS clients it then serves, and ends as that
//! does. `STRICT_KMS_CONTROL` may hold a first setting of the knobs, as the JSON that `POST /_control` takes.
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

// Given its path so that its own modules are looked for beside it, as in the tests that include it.
#[path = "server.rs"]
mod server;

/// A strict stand-in for AWS KMS, for tests.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A file that keeps the keys; without it they end with the process.
    #[arg(long)]
    state: Option<PathBuf>,
    /// A command to run with this service as its AWS KMS.
    #[arg(last = true)]
    command: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let (address, kms) = server::start(arguments.listen, arguments.state).await.context("cannot start")?;
    if let Ok(knobs) = std::env::var("STRICT_KMS_CONTROL") {
        let knobs = serde_json::from_str(&knobs).and_then(|knobs| kms.control(&knobs));
        knobs.context("STRICT_KMS_CONTROL")?;
    }
    if let [program, arguments @ ..] = &*arguments.command {
        return run(program, arguments, address).await;
    }
    writeln!(std::io::stdout(), "listening on {address}")?;
    tokio::signal::ctrl_c().await?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that finds this service where AWS's clients look for one, and gives its exit code. It is the command
/// that a signal of the terminal ends.
async fn run(program: &str, arguments: &[String], address: SocketAddr) -> anyhow::Result<ExitCode> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env("AWS_ENDPOINT_URL_KMS", format!("http://{address}")).kill_on_drop(true);
    for (name, value) in server::ENVIRONMENT {
        command.env(name, value);
    }
    let mut child = command.spawn().with_context(|| format!("{program} cannot be run"))?;
    loop {
        tokio::select! {
            status = child.wait() => {
                let code = status?.code().and_then(|code| u8::try_from(code).ok());
                return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
            }
            signal = tokio::signal::ctrl_c() => signal?,
        }
    }
}
