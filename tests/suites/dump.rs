//! pg_dump and pg_restore: cells move to another server as they are, and open there with the registry and the keys; a dump
//! of plaintext goes back through a proxy into sealed columns.
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::compare::{Known, compare};
use crate::programs::Program;
use crate::run::{CANARY, Sides, home, keep};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};

/// What both sides must hold in the end.
const ROWS: &str = "SELECT * FROM account ORDER BY id; SELECT * FROM customer ORDER BY id; SELECT * FROM orders ORDER BY id; \
    SELECT last_value FROM customer_id_seq; SELECT name FROM customer WHERE account_id = 1 AND email = 'canary7f3-bob@example.com'";

/// A server that dumps are restored to.
struct Target {
    cluster: Cluster,
    site: Site,
}

/// What was said on either side, as steps.
#[derive(Default)]
struct Said {
    plain: String,
    sealed: String,
    wrong: Vec<String>,
}

impl Said {
    fn step(&mut self, name: &str, plain: &str, sealed: &str) {
        self.plain += &format!("\n== {name}\n{plain}");
        self.sealed += &format!("\n== {name}\n{sealed}");
    }

    fn must(&mut self, rule: &str, holds: bool) {
        if !holds {
            self.wrong.push(format!("  {rule}"));
        }
    }
}

/// Dumps and restores in every way.
pub fn run(program: &Program, known: &Known) -> Outcome {
    let policy = std::fs::read_to_string(home().join(program.policy)).unwrap()
        + "\n[[database.role]]\nname = \"backup\"\nread = \"sealed\"\n";
    let sides = Sides::start(&policy, &["1", "2", "3"]);
    let version = sides.cluster.psql("postgres", "SHOW server_version");
    let version = version.split(' ').next().unwrap_or_default();
    let mut said =
        Said { plain: format!("version {version}"), sealed: format!("version {version}"), ..Said::default() };
    let (plain, sealed) = ((sides.cluster.host_port(), "plain"), (sides.proxy.address(), "app"));
    sides.cluster.psql("postgres", "CREATE ROLE backup LOGIN; GRANT pg_read_all_data TO backup");
    let fill = home().join("shop.sql");
    let [filled, refilled] =
        [plain, sealed].map(|at| tool(&sides.cluster, "psql", at, "postgres", &["-Xqf", &text(&fill)]));
    said.step("fill", &filled, &refilled);
    let dir = tempfile::tempdir().unwrap();
    cells(&sides, &policy, dir.path(), &mut said);
    for (name, options) in [
        ("COPY", &[][..]),
        ("INSERT", &["--inserts"]),
        ("INSERT with columns", &["--column-inserts", "--rows-per-insert=3"]),
    ] {
        plaintext(&sides, &policy, (name, options), dir.path(), &mut said);
    }
    keep(program.name, &said.plain, &said.sealed);
    let mut outcome = compare(program.name, &said.plain, &said.sealed, known);
    outcome.wrong.extend(said.wrong);
    outcome.wrong.extend(sides.broken());
    outcome
}

/// A role that sees cells dumps them; restored directly on another server, they open through a proxy there.
fn cells(sides: &Sides, policy: &str, dir: &Path, said: &mut Said) {
    let file = |name: &str| text(&dir.join(name));
    let at = [(sides.cluster.host_port(), "plain", "plain.dump"), (sides.proxy.address(), "app", "cells.dump")];
    let [plain, sealed] = at.map(|(address, db, name)| {
        tool(&sides.cluster, "pg_dump", (address, db), "backup", &["-Fc", "-f", &file(name)])
    });
    said.step("dump of cells", &plain, &sealed);
    tool(&sides.cluster, "pg_dump", (sides.proxy.address(), "app"), "backup", &["-f", &file("cells.sql")]);
    let written = std::fs::read_to_string(dir.join("cells.sql")).unwrap_or_default();
    said.must("a dump of cells has the cells", written.contains("\\\\xc15253"));
    said.must("a dump of cells has no plaintext", !written.contains(CANARY));
    let target = target(policy, Some(&sides.site));
    let address = target.cluster.host_port();
    let [plain, sealed] = at.map(|(_, db, name)| {
        tool(&sides.cluster, "pg_restore", (address, db), "postgres", &["--exit-on-error", "-d", db, &file(name)])
    });
    said.step("restored directly", &plain, &sealed);
    let proxy = target.site.serve();
    said.compare_rows("opened elsewhere", &target, &proxy);
    let insert = "INSERT INTO orders (account_id, customer_id, number, comment) VALUES (1, 1, 9, 'canary7f3-after') RETURNING comment";
    let [plain, sealed] = [(address, "plain"), (proxy.address(), "app")].map(|at| rows(&target.cluster, at, insert));
    said.step("written elsewhere", &plain, &sealed);
}

impl Said {
    fn compare_rows(&mut self, name: &str, target: &Target, proxy: &Proxy) {
        let at = [(target.cluster.host_port(), "plain"), (proxy.address(), "app")];
        let [plain, sealed] = at.map(|at| rows(&target.cluster, at, ROWS));
        self.must(&format!("{name}: rows"), plain.contains(CANARY));
        self.step(name, &plain, &sealed);
    }
}

/// A role that sees plaintext dumps it through the proxy; it is restored through another proxy.
fn plaintext(sides: &Sides, policy: &str, (name, options): (&str, &[&str]), dir: &Path, said: &mut Said) {
    let target = target(policy, None);
    target.site.run_ok(&["setup"]);
    for tenant in ["1", "2", "3"] {
        target.site.run_ok(&["tenant", "register", tenant]);
    }
    let proxy = target.site.serve();
    let from = [(sides.cluster.host_port(), "plain"), (sides.proxy.address(), "app")];
    let to = [(target.cluster.host_port(), "plain"), (proxy.address(), "app")];
    let file = text(&dir.join("plaintext.sql"));
    let mut done = Vec::new();
    for (from, to) in from.into_iter().zip(to) {
        let args = [&["-N", "rowseal", "-f", &file][..], options].concat();
        let dumped = tool(&sides.cluster, "pg_dump", from, "postgres", &args);
        let has = std::fs::read_to_string(&file).unwrap_or_default().contains(CANARY);
        let restored = tool(&sides.cluster, "psql", to, "postgres", &["-Xqf", &file, "-v", "ON_ERROR_STOP=1"]);
        done.push(format!("{dumped}{restored}with values: {has}"));
    }
    said.step(&format!("dumped and restored by {name}"), &done[0], &done[1]);
    said.compare_rows(&format!("restored by {name}"), &target, &proxy);
    let cells = target.cluster.psql("app", "SELECT bool_and(rowseal.is_cell(email)) AND count(*) = 4 FROM customer");
    said.must(&format!("restored by {name}: cells"), cells == "t");
    let dump = tool(&sides.cluster, "pg_dump", from[1], "postgres", &["-N", "rowseal", "--schema-only", "-f", &file]);
    said.must(&format!("a dump of the schema: {dump}"), dump.is_empty());
}

/// Another server; with `keys`, those of another site.
fn target(policy: &str, keys: Option<&Site>) -> Target {
    let cluster = Cluster::start(Version::V15);
    cluster.createdb("plain");
    cluster.createdb("app");
    cluster.psql("postgres", "CREATE ROLE backup LOGIN");
    let mut site = Site::new(&cluster, policy);
    site.set_environment([("ROWSEAL_LOG", "info")]);
    if let Some(keys) = keys {
        std::fs::copy(keys.path().join("keyring.toml"), site.path().join("keyring.toml")).unwrap();
    }
    Target { cluster, site }
}

fn rows(cluster: &Cluster, (address, db): (SocketAddr, &str), sql: &str) -> String {
    cluster.psql_at(address, db, sql).unwrap_or_else(|error| error)
}

/// Runs a tool of Postgres on a database; gives all it says.
fn tool(cluster: &Cluster, name: &str, (address, db): (SocketAddr, &str), user: &str, args: &[&str]) -> String {
    let output = Command::new(cluster.bin_dir().join(name))
        .args(args)
        .env("PGHOST", address.ip().to_string())
        .env("PGPORT", address.port().to_string())
        .env("PGUSER", user)
        .env("PGDATABASE", db)
        .output()
        .unwrap();
    let failed = if output.status.success() { "" } else { "failed\n" };
    format!("{}{}{failed}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
