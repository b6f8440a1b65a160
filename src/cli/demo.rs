//! `rowseal demo`: a guided tour on a throw-away Postgres with a local keyring, or with a stand-in for AWS KMS.
//!
//! Everything lives in one new directory, which is removed at the end, as the server is; the proxy runs in this
//! process, made as `rowseal serve` makes it. The values shown are the tour's own. Reading order: [`run`], [`Stage`]
//! (what is set up), `tour` (what is shown), `psql` (the client and its panes), `postgres` (the server).
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::connect::{self, Control};
use super::{Failure, serve};
use crate::config::{self, Settings};
use crate::policy;
use crate::server::{Server, ServerHandle};
use crate::setup;

mod postgres;
mod psql;
mod tour;

use postgres::Postgres;
use psql::Psql;

/// The policy of the tour as it stands in the repository; the way to the server is put in.
const POLICY: &str = include_str!("../../config/demo.toml");
const POLICY_UPSTREAM: &str = "127.0.0.1:5432";
const POLICY_CONTROL: &str = "postgres:///app?user=rowseal";
const POLICY_KEYS: &str = "provider = \"local\"\nkeyring = \"demo-keyring.toml\"";

/// Where AWS's own tools look for the address of the key service.
const AWS_ENDPOINT: &str = "AWS_ENDPOINT_URL_KMS";

const TENANTS: [&str; 2] = ["acme", "globex"];
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(super) struct Demo {
    /// Leave everything running after the tour, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Where the master keys are: `aws` is a stand-in for AWS KMS at the address in AWS_ENDPOINT_URL_KMS.
    #[arg(long, value_enum, default_value = "local")]
    kms: DemoKms,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum DemoKms {
    Local,
    Aws,
}

/// Where the master keys of the tour are.
enum MasterKeys {
    Keyring,
    Aws { endpoint: String },
}

impl MasterKeys {
    /// A stand-in speaks plain HTTP, which AWS does not: keys made for a tour would cost money for ever.
    fn of(kms: DemoKms) -> Result<MasterKeys, Failure> {
        let DemoKms::Aws = kms else { return Ok(MasterKeys::Keyring) };
        match std::env::var(AWS_ENDPOINT) {
            Ok(endpoint) if endpoint.starts_with("http://") => Ok(MasterKeys::Aws { endpoint }),
            _ => Err(Failure::Usage(format!(
                "--kms aws is for a stand-in, whose http:// address {AWS_ENDPOINT} must hold: run `make demo KMS=aws`"
            ))),
        }
    }

    /// As the policy file says it.
    fn setting(&self) -> String {
        match self {
            MasterKeys::Keyring => POLICY_KEYS.to_owned(),
            MasterKeys::Aws { endpoint } => format!("provider = \"aws\"\naws = {{ endpoint = {endpoint:?} }}"),
        }
    }
}

impl std::fmt::Display for MasterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MasterKeys::Keyring => f.write_str("a local keyring"),
            MasterKeys::Aws { endpoint } => write!(f, "AWS KMS (a stand-in at {endpoint})"),
        }
    }
}

/// Runs the tour. Whatever happens, also a signal, the server is stopped and its directory removed.
pub(super) fn run(demo: &Demo) -> Result<(), Failure> {
    let keys = MasterKeys::of(demo.kms)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let scratch = Scratch::new().context("a directory for the demo")?;
        let stage = tokio::select! {
            stage = show(&scratch, keys) => stage?,
            () = signals.stop() => return Err(anyhow::anyhow!("the demo was stopped before its end").into()),
        };
        if demo.keep {
            tour::say_how_to_connect(&stage)?;
            signals.stop().await;
        }
        stage.strike().await;
        Ok(())
    })
}

async fn show(scratch: &Scratch, keys: MasterKeys) -> anyhow::Result<Stage> {
    let stage = Stage::set(scratch, keys).await?;
    tour::show(&stage).await?;
    Ok(stage)
}

/// What ends a demo early, or at all with `--keep`.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// The demo's directory, removed when dropped. Short, because a socket's path must be.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        let mut number = std::process::id();
        loop {
            let path = PathBuf::from(format!("/tmp/rowseal-demo-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => {
                    let scratch = Scratch(path);
                    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o711))?;
                    return Ok(scratch);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number = number.wrapping_add(1),
                Err(error) => return Err(error),
            }
        }
    }

    /// A new directory in it that only its owner may enter.
    fn private(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the tour plays on. The proxy goes before the server, the server before the directory.
struct Stage {
    proxy: Proxy,
    config: PathBuf,
    keys: MasterKeys,
    postgres: Postgres,
}

impl Stage {
    async fn set(scratch: &Scratch, keys: MasterKeys) -> anyhow::Result<Stage> {
        let postgres = Postgres::start(scratch).await?;
        postgres
            .psql()
            .script(&[
                "CREATE ROLE rowseal LOGIN",
                "CREATE ROLE app LOGIN",
                "CREATE ROLE analyst LOGIN",
                "CREATE DATABASE app",
                "GRANT CREATE ON DATABASE app TO rowseal",
            ])
            .await?;
        let config = scratch.private("proxy")?.join("rowseal.toml");
        write_policy(&config, postgres.socket_directory(), &keys)?;
        let mut settings = config::load(&config)?;
        settings.listen.address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        settings.limits.drain_timeout = DRAIN_TIMEOUT;
        for database in &settings.databases {
            install(database, &settings).await.with_context(|| format!("setup of database {:?}", database.name))?;
        }
        create_table(&postgres).await?;
        let proxy = Proxy::start(settings).await?;
        Ok(Stage { proxy, config, keys, postgres })
    }

    /// psql as the application, through the proxy.
    fn app(&self, user: &'static str) -> Psql {
        let (host, port) = (self.proxy.address.ip().to_string(), self.proxy.address.port());
        Psql::new(self.postgres.program("psql"), format!("host={host} port={port} user={user} dbname=app"))
    }

    /// psql on the server itself, as its superuser.
    fn server(&self) -> Psql {
        self.postgres.psql().on("app")
    }

    /// Stops the proxy, then the server.
    async fn strike(self) {
        self.proxy.stop().await;
    }
}

fn write_policy(path: &Path, socket_directory: &Path, keys: &MasterKeys) -> anyhow::Result<()> {
    let directory = socket_directory.display().to_string();
    let control = format!("host={directory} user=rowseal dbname=app");
    let text = POLICY.replace(POLICY_UPSTREAM, &directory).replace(POLICY_CONTROL, &control);
    let text = text.replace(POLICY_KEYS, &keys.setting());
    fs::write(path, text).context("the policy of the demo")
}

/// What `rowseal setup` and `rowseal tenant register` do.
async fn install(database: &policy::Database, settings: &Settings) -> anyhow::Result<()> {
    let kms = connect::kms(settings).await?;
    let control = Control::of(settings, database)?;
    setup::install(&control.client().await?).await?;
    let registry = control.registry().await?;
    registry.register_reserved(kms.as_ref()).await?;
    for tenant in TENANTS {
        registry.register(tenant, connect::wrapping(settings.keys.wrapping), kms.as_ref()).await?;
    }
    Ok(())
}

async fn create_table(postgres: &Postgres) -> anyhow::Result<()> {
    let grants = ["GRANT SELECT, INSERT, UPDATE, DELETE ON customers TO app", "GRANT SELECT ON customers TO analyst"];
    let server = postgres.psql().on("app");
    server.script(&[tour::TABLE]).await?;
    server.script(&grants).await
}

/// The proxy in this process, on a port that the system chose.
struct Proxy {
    address: SocketAddr,
    handle: ServerHandle,
    running: JoinHandle<()>,
}

impl Proxy {
    async fn start(settings: Settings) -> anyhow::Result<Proxy> {
        let prepared = serve::prepare(&settings).await?;
        let server = Server::bind(prepared.server, prepared.sessions).await?;
        let handle = server.handle();
        let address = handle.local_address().context("the proxy has no address")?;
        Ok(Proxy { address, handle, running: tokio::spawn(server.run()) })
    }

    async fn stop(self) {
        self.handle.drain();
        let _ = self.running.await;
    }
}
