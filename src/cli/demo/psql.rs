//! psql as the demo runs it, and two of its outputs side by side.
use std::path::PathBuf;
use std::process::{Output, Stdio};

use anyhow::Context as _;
use tokio::process::Command;

/// One way to connect.
pub(super) struct Psql {
    program: PathBuf,
    target: String,
}

impl Psql {
    /// `target` is a libpq connection string.
    pub(super) fn new(program: PathBuf, target: String) -> Psql {
        Psql { program, target }
    }

    /// The same on another database; the last one named counts.
    pub(super) fn on(self, database: &str) -> Psql {
        Psql { target: format!("{} dbname={database}", self.target), ..self }
    }

    /// What psql prints for a statement that must succeed.
    pub(super) async fn run(&self, sql: &str) -> anyhow::Result<String> {
        let output = self.output(sql).await?;
        anyhow::ensure!(output.status.success(), "psql failed at {sql}\n{}", text(&output.stderr));
        Ok(text(&output.stdout))
    }

    /// The error psql prints for a statement that must not succeed.
    pub(super) async fn refused(&self, sql: &str) -> anyhow::Result<String> {
        let output = self.output(sql).await?;
        anyhow::ensure!(!output.status.success(), "this should have been refused: {sql}");
        Ok(text(&output.stderr))
    }

    /// Statements of which only success counts.
    pub(super) async fn script(&self, statements: &[&str]) -> anyhow::Result<()> {
        for sql in statements {
            self.run(sql).await?;
        }
        Ok(())
    }

    async fn output(&self, sql: &str) -> anyhow::Result<Output> {
        let mut psql = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                psql.env_remove(name);
            }
        }
        psql.args(["-X", "-P", "pager=off", "-P", "footer=off", "-P", "null=(null)", "-v", "ON_ERROR_STOP=1"])
            .args(["-d", &self.target, "-c", sql])
            .env("PGCONNECT_TIMEOUT", "20")
            .env("PGCLIENTENCODING", "UTF8")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        psql.output().await.with_context(|| format!("{} cannot be run", self.program.display()))
    }
}

/// Two outputs beside each other, each under its title.
pub(super) fn side_by_side(left: (&str, &str), right: (&str, &str)) -> String {
    let width = left.1.lines().chain([left.0]).map(|line| line.chars().count()).max().unwrap_or(0);
    let lines = |(title, output): (&str, &str)| -> Vec<String> {
        [title, ""].into_iter().chain(output.lines()).map(str::to_owned).collect()
    };
    let (left, right) = (lines(left), lines(right));
    let line = |list: &[String], at: usize| list.get(at).cloned().unwrap_or_default();
    let both = |at| format!("{:width$}    {}", line(&left, at), line(&right, at)).trim_end().to_owned();
    (0..left.len().max(right.len())).map(both).collect::<Vec<_>>().join("\n")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::side_by_side;

    #[test]
    fn panes_of_different_length_stand_beside_each_other() {
        let shown = side_by_side(("app", "a…\nlonger"), ("table", "x"));
        assert_eq!(shown, "app       table\n\na…        x\nlonger");
    }
}
