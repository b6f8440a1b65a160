//! Clients of other languages, as scripts/bootstrap.sh installs them into `.tools`.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a Python script that finds psycopg and asyncpg; `PGHOST` and `PGPORT` name `address`, the user is postgres.
/// Gives its output, or what it said when it failed.
pub fn python(address: SocketAddr, db: &str, script: &str) -> Result<String, String> {
    let python = tools().join("venv/bin/python");
    output(pg_env(Command::new(python).args(["-c", script]), address, db))
}

/// Runs a Node script that finds `pg`, with the same environment.
pub fn node(address: SocketAddr, db: &str, script: &str) -> Result<String, String> {
    let modules = tools().join("node/node_modules");
    output(pg_env(Command::new("node").args(["-e", script]).env("NODE_PATH", modules), address, db))
}

fn pg_env<'a>(command: &'a mut Command, address: SocketAddr, db: &str) -> &'a mut Command {
    command
        .env("PGHOST", address.ip().to_string())
        .env("PGPORT", address.port().to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", db)
        .env("PGCONNECT_TIMEOUT", "20")
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{error}: run scripts/bootstrap.sh"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools")
}
