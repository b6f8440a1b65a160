//! psql through the proxy to a real Postgres with TLS and SCRAM.
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use super::*;

const SETUP: &str = r#"
set -e
bin=$1; cd "$2"
"$bin/initdb" -D data -U postgres -A scram-sha-256 --pwfile=password -N >/dev/null
cp server.pem server.key data/
chmod 600 data/server.key
cat >>data/postgresql.conf <<END
listen_addresses = '127.0.0.1'
port = $3
unix_socket_directories = '$2'
fsync = off
ssl = on
ssl_cert_file = 'server.pem'
ssl_key_file = 'server.key'
END
exec "$bin/postgres" -D data >log 2>&1
"#;

/// A server that shows `certificate`; its password is "secret".
struct Postgres {
    process: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Postgres {
    async fn start(certificate: &Certificate) -> Postgres {
        let directory = tempfile::tempdir().unwrap();
        open_to_all(directory.path(), 0o777);
        for (from, name) in [(certificate.certificate(), "server.pem"), (certificate.key(), "server.key")] {
            std::fs::copy(from, directory.path().join(name)).unwrap();
            open_to_all(&directory.path().join(name), 0o644);
        }
        std::fs::write(directory.path().join("password"), "secret\n").unwrap();
        open_to_all(&directory.path().join("password"), 0o644);
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = as_server_user()
            .args(["sh", "-c", SETUP, "setup"])
            .arg(bin_directory())
            .arg(directory.path())
            .arg(address.port().to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let server = Postgres { process, address, directory };
        server.until_ready().await;
        server
    }

    async fn until_ready(&self) {
        let direct = format!("host={} port={} sslmode=disable", self.address.ip(), self.address.port());
        for _ in 0..600 {
            if psql(&direct, "select 1").await.status.success() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("Postgres does not start: {:?}", std::fs::read_to_string(self.directory.path().join("log")));
    }

    fn over_unix(&self) -> Upstream {
        let directory = self.directory.path().to_owned();
        let address = UpstreamAddress::Unix { directory, port: self.address.port() };
        Upstream { address, tls: UpstreamTls::Disable, connect_timeout: PATIENCE }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.process.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let _ = self.process.wait();
    }
}

fn open_to_all(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn bin_directory() -> std::path::PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("these tests need Postgres");
    versions.map(|version| version.unwrap().path().join("bin")).find(|bin| bin.join("initdb").exists()).unwrap()
}

/// Postgres refuses to run as root.
fn as_server_user() -> Command {
    if !rustix::process::getuid().is_root() {
        return Command::new("env");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
    command
}

async fn psql(connection: &str, statement: &str) -> Output {
    let conninfo = format!("user=postgres dbname=postgres password=secret connect_timeout=10 {connection}");
    tokio::process::Command::new(bin_directory().join("psql"))
        .args(["-X", "-A", "-t", "-d", &conninfo, "-c", statement])
        .env("PGSSLROOTCERT", "/nonexistent")
        .output()
        .await
        .unwrap()
}

/// What psql prints through the proxy, or its complaint.
async fn through(proxy: &ServerHandle, options: &str, statement: &str) -> String {
    let port = proxy.local_address().unwrap().port();
    let output = psql(&format!("host=localhost hostaddr=127.0.0.1 port={port} {options}"), statement).await;
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn wire_38_scram_over_every_pair_of_hops() {
    let (own, other) = (Certificate::new(), Certificate::new());
    let postgres = Postgres::start(&own).await;
    let over_tls = || upstream_at(postgres.address, UpstreamTls::require().unwrap());
    let same = start(over_tls(), |settings| settings.tls = Some(Arc::new(own.listen()))).await;
    let different = start(over_tls(), |settings| settings.tls = Some(Arc::new(other.listen()))).await;
    let unix = start(postgres.over_unix(), |settings| settings.tls = Some(Arc::new(other.listen()))).await;
    let clear = start(upstream_at(postgres.address, UpstreamTls::Disable), |_| {}).await;
    let refused = "channel binding cannot work through this proxy";
    for (proxy, options, expected) in [
        (&same, "sslmode=require channel_binding=require", "42\n"),
        (&same, "sslmode=require", "42\n"),
        (&same, "sslmode=disable", "42\n"),
        (&different, "sslmode=require channel_binding=disable", "42\n"),
        (&different, "sslmode=require", refused),
        (&different, "sslmode=require channel_binding=require", refused),
        (&different, "sslmode=disable", "42\n"),
        (&unix, "sslmode=require", "42\n"),
        (&unix, "sslmode=disable", "42\n"),
        (&unix, "sslmode=require channel_binding=require", "channel binding"),
        (&clear, "", "42\n"),
        (&clear, "password=wrong", "password authentication failed"),
        (&clear, "user=nobody", "password authentication failed"),
        (&clear, "dbname=nowhere", "database \"nowhere\" does not exist"),
    ] {
        let printed = through(proxy, options, "select 42").await;
        assert!(printed.contains(expected), "{options}: {printed}");
    }
}

#[tokio::test]
async fn the_server_certificate_is_verified_when_asked_for() {
    let (own, other) = (Certificate::new(), Certificate::new());
    let postgres = Postgres::start(&own).await;
    for (roots, host, expected) in [
        (&own, "localhost", "t\n"),
        (&own, "127.0.0.1", "handshake with the server failed"),
        (&other, "localhost", "handshake with the server failed"),
    ] {
        let address = UpstreamAddress::Tcp { host: host.to_owned(), port: postgres.address.port() };
        let tls = UpstreamTls::verify_full(Some(&roots.certificate())).unwrap();
        let proxy = start(Upstream { address, tls, connect_timeout: PATIENCE }, |_| {}).await;
        let printed = through(&proxy, "", "select ssl from pg_stat_ssl where pid = pg_backend_pid()").await;
        assert!(printed.contains(expected), "{host}: {printed}");
    }
}

#[tokio::test]
async fn wire_11_psql_cancels_through_the_proxy() {
    let own = Certificate::new();
    let postgres = Postgres::start(&own).await;
    let upstream = upstream_at(postgres.address, UpstreamTls::prefer().unwrap());
    let proxy = start(upstream, |settings| settings.tls = Some(Arc::new(own.listen()))).await;
    let port = proxy.local_address().unwrap().port();
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres password=secret sslmode=require");
    let sleeper = tokio::process::Command::new(bin_directory().join("psql"))
        .args(["-X", "-d", &conninfo, "-c", "select pg_sleep(60)"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let asleep = "select count(*) from pg_stat_activity where query ~ '^select pg_sleep' and state = 'active'";
    for _ in 0..200 {
        if through(&proxy, "", asleep).await == "1\n" {
            break;
        }
    }
    let pid = rustix::process::Pid::from_raw(sleeper.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = timeout(PATIENCE, sleeper.wait_with_output()).await.unwrap().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("canceling statement due to user request"), "{complaint}");
}
