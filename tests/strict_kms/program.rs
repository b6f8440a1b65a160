//! The strict KMS as a program: `strict-kms [--listen ADDRESS] [--state FILE]`.
//!
//! Prints `listening on ADDRESS` when it is ready. `STRICT_KMS_CONTROL` may hold a first setting of the knobs, as the
//! JSON that `POST /_control` takes.
use std::io::Write;
use std::path::PathBuf;

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
    listen: std::net::SocketAddr,
    /// A file that keeps the keys; without it they end with the process.
    #[arg(long)]
    state: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (address, kms) = server::start(arguments.listen, arguments.state).await.context("cannot start")?;
    if let Ok(knobs) = std::env::var("STRICT_KMS_CONTROL") {
        let knobs = serde_json::from_str(&knobs).and_then(|knobs| kms.control(&knobs));
        knobs.context("STRICT_KMS_CONTROL")?;
    }
    writeln!(std::io::stdout(), "listening on {address}")?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
