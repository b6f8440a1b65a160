//! The real binary in front of a throw-away Postgres.
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::guard::{Guarded, poll};
use super::postgres::{Cluster, free_port};

/// Where cargo put the binary of this build.
pub fn rowseal() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rowseal"))
}

/// A directory with a configuration file: enough for every subcommand.
pub struct Site {
    dir: tempfile::TempDir,
    listen: SocketAddr,
    environment: Vec<(String, String)>,
}

impl Site {
    /// Writes `rowseal.toml`: listener, upstream, local keyring and audit directory, then `policy` (`[[database]]` and on).
    /// `{control}` in it becomes a connection string without its database: `postgres://postgres@127.0.0.1:PORT`.
    pub fn new(cluster: &Cluster, policy: &str) -> Site {
        Site::with_upstream(cluster.host_port(), cluster, policy)
    }

    /// The same with another way to the server, such as a tap.
    pub fn with_upstream(upstream: SocketAddr, cluster: &Cluster, policy: &str) -> Site {
        let dir = tempfile::Builder::new().prefix("rowseal-site-").tempdir().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let control = format!("postgres://postgres@{}", cluster.host_port());
        let text = format!(
            "[listen]\naddress = \"{listen}\"\n[upstream]\naddress = \"{upstream}\"\ntls = \"disable\"\n\
             [keys]\nprovider = \"local\"\nkeyring = \"keyring.toml\"\n[audit]\ndirectory = \"audit\"\n{}",
            policy.replace("{control}", &control)
        );
        fs::write(dir.path().join("rowseal.toml"), text).unwrap();
        Site { dir, listen, environment: Vec::new() }
    }

    /// With variables for the environment of everything that is run from now on.
    pub fn set_environment<'a>(&mut self, variables: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// The variables that everything is run with.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("rowseal.toml")
    }

    /// Writes the configuration anew with each text replaced by another one; it must be there.
    pub fn rewrite(&self, changes: &[(&str, &str)]) {
        let mut text = fs::read_to_string(self.config()).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{from} is not in {text}");
            text = text.replace(from, to);
        }
        fs::write(self.config(), text).unwrap();
    }

    /// The directory with configuration, keyring and audit log.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the proxy will listen.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Runs another subcommand with this configuration.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The same, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(rowseal());
        command.args(args).arg("--config").arg(self.config());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The same; panics with what it said unless it exits 0. Gives standard output.
    pub fn run_ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rowseal {args:?} ended with {}: {error}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts `rowseal serve` and waits until it listens.
    pub fn serve(&self) -> Proxy {
        let config = self.config();
        let variables: Vec<String> = self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut command: Vec<&str> = variables.iter().map(String::as_str).collect();
        command.extend([rowseal().to_str().unwrap(), "serve", "--config", config.to_str().unwrap()]);
        // env becomes the program, so that signals reach it.
        let guarded = Guarded::spawn(self.path(), Path::new("env"), &command);
        poll("the proxy's port", || {
            assert!(guarded.ended().is_none(), "rowseal ended at once:\n{}", guarded.log());
            TcpStream::connect(self.listen).ok()
        });
        Proxy { guarded, address: self.listen }
    }
}

/// A running proxy; killed when dropped.
pub struct Proxy {
    guarded: Guarded,
    address: SocketAddr,
}

impl Proxy {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.guarded.log()
    }

    /// The size beyond which it can write to no file; `unlimited` for none.
    pub fn limit_file_size(&self, bytes: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
        assert!(status.expect("prlimit").success());
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.guarded.pid().unwrap()
    }

    /// Asks it to read its configuration again; gives what it logs of that.
    pub fn reload(&self) -> String {
        let before = self.log().len();
        self.guarded.signal("HUP");
        poll("the end of the reload", || {
            let log = self.log()[before..].to_owned();
            let ended = |line: &&str| line.contains("is in force") || line.contains("is not taken up");
            log.lines().find(ended).map(str::to_owned)
        })
    }

    /// Asks it to drain and stop; gives its exit code.
    pub fn stop(&self) -> i32 {
        self.guarded.signal("TERM");
        self.guarded.wait()
    }

    /// kill -9.
    pub fn kill(&self) {
        self.guarded.signal("KILL");
        self.guarded.wait();
    }
}
