//! HAProxy in front of several proxies: what a service that has more than one of them connects to.
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use super::guard::{Guarded, poll};
use super::postgres::free_port;

/// As docs/operations.md shows it, with shorter times: a proxy that gives no answer is left out, and its sessions are cut.
const CONFIG: &str = "
global
    maxconn 500
defaults
    mode tcp
    timeout connect 2s
    timeout client 10m
    timeout server 10m
    timeout check 1s
    retries 3
    option redispatch
listen rowseal
    bind LISTEN
    balance roundrobin
    option pgsql-check user postgres
    default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
";

/// A running HAProxy; killed when dropped.
pub struct Balancer {
    guarded: Guarded,
    listen: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Balancer {
    /// Spreads connections over these, one after the other.
    pub fn start(proxies: &[SocketAddr]) -> Balancer {
        let dir = tempfile::Builder::new().prefix("rowseal-haproxy-").tempdir().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut text = CONFIG.replace("LISTEN", &listen.to_string());
        for (n, proxy) in proxies.iter().enumerate() {
            text += &format!("    server proxy{n} {proxy}\n");
        }
        let config = dir.path().join("haproxy.cfg");
        fs::write(&config, text).unwrap();
        let guarded = Guarded::spawn(dir.path(), &program(), &["-db", "-f", config.to_str().unwrap()]);
        poll("HAProxy's port", || {
            assert!(guarded.ended().is_none(), "HAProxy ended at once:\n{}", guarded.log());
            TcpStream::connect(listen).ok()
        });
        Balancer { guarded, listen, _dir: dir }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.guarded.log()
    }
}

/// Distributions put it where an ordinary user's PATH does not look.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(more).map(|dir| dir.join("haproxy")).find(|file| file.is_file());
    found.expect("no haproxy: run scripts/bootstrap.sh")
}
