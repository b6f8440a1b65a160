//! The real binary in front of a throw-away server, with a local keyring and its own directory.
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::postgres::{Cluster, free_port};

/// A running `rowseal serve`.
pub struct Proxy {
    child: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

/// Directories and files of one proxy, before it runs.
pub struct Site {
    dir: tempfile::TempDir,
    address: SocketAddr,
}

impl Site {
    /// Writes a configuration for database `app` of `cluster`; `policy` is appended to it.
    pub fn new(cluster: &Cluster, wrapping: &str, policy: &str) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = format!(
            "[listen]\naddress = \"{address}\"\n\n[upstream]\naddress = \"{server}\"\ntls = \"disable\"\n\n\
             [keys]\nprovider = \"local\"\nkeyring = \"keyring.toml\"\nwrapping = \"{wrapping}\"\n\n\
             [audit]\ndirectory = \"audit\"\n\n[[database]]\nname = \"app\"\n\
             control = \"postgres://postgres@{server}/app\"\n\n{policy}",
            server = cluster.host_port(),
        );
        fs::write(dir.path().join("rowseal.toml"), config).unwrap();
        Site { dir, address }
    }

    /// Runs a subcommand to its end and gives its output; panics when it fails.
    pub fn rowseal(&self, args: &[&str]) -> String {
        let output = command(self.dir.path()).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "rowseal {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Starts the proxy with everything logged, and waits until it listens.
    pub fn serve(self) -> Proxy {
        let log = File::create(self.dir.path().join("log")).unwrap();
        let child = command(self.dir.path())
            .arg("serve")
            .env("RUST_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut proxy = Proxy { child, address: self.address, dir: self.dir };
        let started = Instant::now();
        while TcpStream::connect(proxy.address).is_err() {
            assert!(proxy.child.try_wait().unwrap().is_none(), "serve ended: {}", proxy.log());
            assert!(started.elapsed() < Duration::from_secs(60), "serve does not listen: {}", proxy.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy
    }
}

impl Proxy {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its directory: configuration, keyring, audit log.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Runs another subcommand beside it.
    pub fn rowseal(&self, args: &[&str]) -> std::process::Output {
        command(self.dir.path()).args(args).output().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rowseal"));
    command.current_dir(dir).env("ROWSEAL_CONFIG", dir.join("rowseal.toml"));
    command
}
