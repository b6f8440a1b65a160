//! A throw-away Postgres for tests: a cluster on a socket in a temporary directory, stopped when dropped.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio_postgres::{Client, NoTls};

/// A running server. `None` from [`Cluster::start`] means that no Postgres binaries are installed here.
pub struct Cluster {
    directory: tempfile::TempDir,
    server: Child,
}

impl Cluster {
    pub async fn start() -> Option<Cluster> {
        let binaries = binaries()?;
        let directory = tempfile::tempdir().unwrap();
        let owner = run_as();
        if owner.is_some() {
            assert!(Command::new("chown").arg("postgres").arg(directory.path()).status().unwrap().success());
        }
        let data = directory.path().join("data");
        let made = command(owner, &binaries.join("initdb"))
            .args(["-D".as_ref(), data.as_os_str()])
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let server = command(owner, &binaries.join("postgres"))
            .args(["-D".as_ref(), data.as_os_str(), "-k".as_ref(), directory.path().as_os_str()])
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let cluster = Cluster { directory, server };
        cluster.wait_until_up().await;
        Some(cluster)
    }

    /// A connection string for a role.
    pub fn url(&self, role: &str) -> String {
        format!("host={} user={role} dbname=postgres", self.directory.path().display())
    }

    pub async fn connect(&self, role: &str) -> Client {
        self.try_connect(role).await.unwrap()
    }

    pub async fn connect_to(&self, role: &str, database: &str) -> Client {
        let mut config: tokio_postgres::Config = self.url(role).parse().unwrap();
        let (client, connection) = config.dbname(database).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A client program of the server's release, to run as its superuser.
    pub fn tool(&self, name: &str) -> Command {
        let mut tool = Command::new(binaries().unwrap().join(name));
        tool.env("PGHOST", self.directory.path()).env("PGUSER", "postgres");
        tool
    }

    /// Runs a script; its first error fails the test.
    pub fn restore(&self, database: &str, script: &[u8]) {
        let mut psql = self.tool("psql");
        psql.args(["-qX", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", database]).stdin(Stdio::piped());
        let mut running = psql.spawn().unwrap();
        running.stdin.take().unwrap().write_all(script).unwrap();
        assert!(running.wait().unwrap().success());
    }

    async fn try_connect(&self, role: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(role), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn wait_until_up(&self) {
        for _ in 0..300 {
            if self.try_connect("postgres").await.is_ok() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("postgres does not answer");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SIGQUIT by the process id of our own child: immediate shutdown of the server and its backends.
        let _ = Command::new("kill").args(["-QUIT", &self.server.id().to_string()]).status();
        let _ = self.server.wait();
    }
}

fn binaries() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

/// Postgres refuses to run as root.
fn run_as() -> Option<&'static str> {
    let uid = Command::new("id").arg("-u").output().unwrap().stdout;
    (uid.trim_ascii() == b"0").then_some("postgres")
}

fn command(owner: Option<&str>, program: &Path) -> Command {
    match owner {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()]).arg(program);
            command
        }
    }
}
