//! One program on both sides, each run in an environment that names only its database.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::compare::{Known, compare};
use crate::programs::Program;
use crate::support::guard::Guarded;
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::{Tap, contains};

/// In every value that a program writes into a sealed column and that is long enough.
pub const CANARY: &str = "canary7f3";

/// How long a program may take on one side.
const TIMEOUT: Duration = Duration::from_secs(240);

/// Both sides: database `plain` directly, database `app` through a proxy with taps before the server.
pub struct Sides {
    pub cluster: Cluster,
    pub site: Site,
    pub tap: Tap,
    pub proxy: Proxy,
}

impl Sides {
    /// Starts everything; `policy` is the part of the configuration that begins with `[[database]]`.
    pub fn start(policy: &str, tenants: &[&str]) -> Sides {
        let cluster = Cluster::start(Version::V15);
        cluster.createdb("plain");
        cluster.createdb("app");
        let tap = Tap::start(cluster.host_port());
        let mut site = Site::with_upstream(tap.address(), &cluster, policy);
        site.set_environment([("ROWSEAL_LOG", "info")]);
        site.run_ok(&["setup"]);
        for tenant in tenants {
            site.run_ok(&["tenant", "register", tenant]);
        }
        let proxy = site.serve();
        Sides { cluster, site, tap, proxy }
    }

    /// What the program says on the plain database, and on the sealed one.
    pub fn both(&self, command: &[&str]) -> [String; 2] {
        let plain = self.run(command, self.cluster.port(), "plain");
        self.tap.take_to_server();
        let sealed = self.run(command, self.proxy.address().port(), "app");
        [plain, sealed]
    }

    fn run(&self, command: &[&str], port: u16, database: &str) -> String {
        let dir = tempfile::Builder::new().prefix("rowseal-suite-").tempdir().unwrap();
        let path = format!("PATH={}:{}", self.cluster.bin_dir().display(), std::env::var("PATH").unwrap_or_default());
        let tools = tools();
        let modules = format!("NODE_PATH={}", tools.join("node/node_modules").display());
        let place = [
            format!("PGPORT={port}"),
            format!("PGDATABASE={database}"),
            format!("SUITES_TOOLS={}", tools.display()),
            format!("SUITES_TMP={}", dir.path().display()),
        ];
        let fixed = [
            "PGHOST=127.0.0.1",
            "PGUSER=postgres",
            "PGCONNECT_TIMEOUT=20",
            "LC_ALL=C.UTF-8",
            "TZ=UTC",
            "NODE_NO_WARNINGS=1",
            "PYTHONDONTWRITEBYTECODE=1",
        ];
        let mut args: Vec<&str> = fixed.to_vec();
        args.extend(place.iter().map(String::as_str));
        args.extend([path.as_str(), modules.as_str()]);
        args.extend(command);
        let program = Guarded::spawn(dir.path(), Path::new("env"), &args);
        let started = Instant::now();
        while program.ended().is_none() {
            assert!(started.elapsed() < TIMEOUT, "{command:?} on {database} has not ended:\n{}", program.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        let (ended, log) = (program.ended(), program.log());
        assert!(ended == Some(0), "{command:?} on {database} ended with {ended:?}:\n{log}");
        log
    }

    /// What must hold of the sealed side besides its answers, each broken rule ready to be shown.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = self.columns_without_cells();
        if contains(&self.tap.to_server(), CANARY.as_bytes()) {
            broken.push("  a plaintext reached the server".to_owned());
        }
        if self.proxy.log().contains(CANARY) {
            broken.push("  a plaintext is in the proxy's log".to_owned());
        }
        broken
    }

    /// Every column of the policy must be sealed and hold cells, or the run has shown nothing.
    fn columns_without_cells(&self) -> Vec<String> {
        let policy: toml::Table = toml::from_str(&std::fs::read_to_string(self.site.config()).unwrap()).unwrap();
        let mut broken = Vec::new();
        for table in policy["database"][0]["table"].as_array().unwrap() {
            let name = table["name"].as_str().unwrap();
            for column in table["columns"].as_table().unwrap().keys() {
                let count = format!("SELECT count(*) > 0 FROM {name} WHERE rowseal.is_cell({column})");
                if self.cluster.try_psql("app", &count).as_deref() != Ok("t") {
                    broken.push(format!("  no cell in {name}.{column}"));
                }
            }
        }
        broken
    }
}

/// Runs a program's command on both sides; its policy stands beside it.
pub fn twice(program: &Program, known: &Known) -> Outcome {
    let home = home();
    let policy = std::fs::read_to_string(home.join(program.policy)).unwrap();
    let sides = Sides::start(&policy, &["1", "2", "3", "main"]);
    let files: Vec<String> = program.command.iter().map(|word| placed(word, &home)).collect();
    let command: Vec<&str> = files.iter().map(String::as_str).collect();
    let [plain, sealed] = sides.both(&command);
    keep(program.name, &plain, &sealed);
    let mut outcome = compare(program.name, &plain, &sealed, known);
    outcome.wrong.extend(sides.broken());
    outcome
}

/// Where `SUITES_OUT` names a folder, what was said is left there for whoever wants to read it.
pub fn keep(program: &str, plain: &str, sealed: &str) {
    if let Some(folder) = std::env::var_os("SUITES_OUT") {
        for (side, said) in [("plain", plain), ("sealed", sealed)] {
            std::fs::write(Path::new(&folder).join(format!("{program}.{side}")), said).unwrap();
        }
    }
}

/// A word of a command: `{tools}` and `{here}` are folders.
fn placed(word: &str, home: &Path) -> String {
    word.replace("{tools}", &tools().to_string_lossy()).replace("{here}", &home.to_string_lossy())
}

/// The folder tests/suites.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suites")
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/suites")
}
