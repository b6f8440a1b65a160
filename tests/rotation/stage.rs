//! A site with several kinds of sealed tables full of rows, and what is checked after a rotation.
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rowseal::keys::kms::aws::{AwsKms, AwsSettings};
use rowseal::keys::kms::local::LocalKms;
use rowseal::keys::kms::{KeyArn, KeyState, Kms};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::strict_kms::{self, StrictKms};
use crate::support::postgres::{Cluster, Version, connect_at};
use crate::support::proxy::{Proxy, Site, rowseal};

pub const POLICY: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n
[[database.table]]\nname = \"public.people\"\ntenant = { column = \"account_id\" }
[database.table.columns]\nemail = { type = \"text\", equality = \"tenant\" }\nssn = { type = \"text\" }\n
[[database.table]]\nname = \"public.events\"\ntenant = { column = \"account_id\" }
[database.table.columns]\nnote = { type = \"text\", equality = \"global\" }\n";

/// An ordinary table with a child, a partitioned one, materialized views with and without a unique index, and a trigger.
const TABLES: &str = "
    CREATE TABLE people (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, ssn rowseal.text,
        seen int4 NOT NULL DEFAULT 0, updated_at timestamptz NOT NULL DEFAULT '2026-01-01');
    ALTER TABLE people ALTER email SET STORAGE EXTERNAL, ALTER ssn SET STORAGE EXTERNAL;
    CREATE UNIQUE INDEX people_email ON people (account_id, rowseal.eq(email));
    CREATE TABLE more_people (PRIMARY KEY (id)) INHERITS (people);
    CREATE TABLE events (id int8, account_id int8 NOT NULL, note rowseal.text) PARTITION BY RANGE (id);
    CREATE TABLE events_low PARTITION OF events FOR VALUES FROM (0) TO (20150);
    CREATE TABLE events_high PARTITION OF events FOR VALUES FROM (20150) TO (30000);
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.updated_at := now(); RETURN NEW; END$$;
    CREATE TRIGGER touch BEFORE UPDATE ON more_people FOR EACH ROW EXECUTE FUNCTION touch()";
const VIEWS: &str = "
    CREATE MATERIALIZED VIEW mails AS SELECT id, account_id, email FROM ONLY people;
    CREATE UNIQUE INDEX ON mails (id);
    CREATE MATERIALIZED VIEW notes AS SELECT id, note FROM events;
    CREATE MATERIALIZED VIEW unfilled AS SELECT id, note FROM events WITH NO DATA";

/// Where the cells are, with their columns.
pub const STORED: [(&str, &str); 7] = [
    ("people", "email"),
    ("people", "ssn"),
    ("more_people", "email"),
    ("events_low", "note"),
    ("events_high", "note"),
    ("mails", "email"),
    ("notes", "note"),
];

/// How many rows each table is given.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    pub people: i64,
    pub more_people: i64,
    pub events: i64,
}

pub const MANY: Rows = Rows { people: 2400, more_people: 300, events: 300 };
pub const FEW: Rows = Rows { people: 200, more_people: 20, events: 20 };

pub struct Stage {
    pub runtime: Runtime,
    /// The strict stand-in in direct mode; in hierarchical mode the keyring file.
    pub strict: Option<Arc<StrictKms>>,
    pub cluster: Cluster,
    pub site: Site,
    endpoint: String,
}

impl Stage {
    /// Tenants 1 and 2, and tables without rows.
    pub fn start(wrapping: &str, version: Version) -> Stage {
        Stage::on(Cluster::start(version), POLICY, wrapping, wrapping == "direct")
    }

    /// The same on a server of the caller's, with a policy of its own and the strict stand-in or not.
    pub fn on(cluster: Cluster, policy: &str, wrapping: &str, is_strict: bool) -> Stage {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut site = Site::new(&cluster, policy);
        site.set_environment([("ROWSEAL_KEYS_WRAPPING", wrapping), ("ROWSEAL_OPERATOR", "ada")]);
        let mut stage = Stage { runtime, strict: None, cluster, site, endpoint: String::new() };
        if is_strict {
            stage.use_strict();
        }
        stage.cluster.createdb("app");
        stage.site.run_ok(&["setup"]);
        for tenant in ["1", "2"] {
            stage.site.run_ok(&["tenant", "register", tenant]);
        }
        stage.cluster.psql("app", TABLES);
        stage
    }

    fn use_strict(&mut self) {
        let (address, server) = self.runtime.block_on(strict_kms::start("127.0.0.1:0".parse().unwrap(), None)).unwrap();
        self.endpoint = format!("http://{address}");
        self.site.set_environment(strict_kms::ENVIRONMENT);
        self.site.set_environment([
            ("ROWSEAL_KEYS_PROVIDER", "aws"),
            ("ROWSEAL_KEYS_AWS_ENDPOINT", &*self.endpoint),
            ("ROWSEAL_KEYS_AWS_REGION", "us-east-1"),
        ]);
        self.strict = Some(server);
    }

    pub fn set(&self, knobs: &Value) {
        self.strict.as_ref().unwrap().control(knobs).unwrap();
    }

    pub fn calm(&self) {
        if self.strict.is_some() {
            self.set(&json!({"stall": 0, "hold": 0, "skip": 0, "lose_replies": 0, "only": "", "caller": ""}));
        }
    }

    /// Fills the tables of both tenants through a proxy and makes the views.
    pub fn fill(&self, address: SocketAddr, rows: Rows) {
        self.runtime.block_on(async {
            let client = connect_at(address, "app").await;
            let person = |id: i64| format!("({id}, {}, '{}', '{}')", account(id), email(id), ssn(id));
            let event = |id: i64| format!("({id}, {}, '{}')", account(id), note(id));
            for (table, first, n, row) in [
                ("people (id, account_id, email, ssn)", 0, rows.people, &person as &dyn Fn(i64) -> String),
                ("more_people (id, account_id, email, ssn)", 10_000, rows.more_people, &person),
                ("events (id, account_id, note)", 20_000, rows.events, &event),
            ] {
                for start in (first..first + n).step_by(300) {
                    let values: Vec<String> = (start..(start + 300).min(first + n)).map(row).collect();
                    client.batch_execute(&format!("INSERT INTO {table} VALUES {}", values.join(", "))).await.unwrap();
                }
            }
        });
        self.cluster.psql("app", VIEWS);
    }

    /// What [`Stage::fill`] wrote.
    pub fn expected(rows: Rows) -> Contents {
        let person = |id: i64| (id, (email(id), Some(ssn(id))));
        let people = (0..rows.people).chain(10_000..10_000 + rows.more_people).map(person).collect();
        Contents { people, events: (20_000..20_000 + rows.events).map(|id| (id, note(id))).collect() }
    }

    /// Everything as a client sees it.
    pub fn contents(&self, address: SocketAddr) -> Contents {
        self.runtime.block_on(async {
            let client = connect_at(address, "app").await;
            let people = client.query("SELECT id, email, ssn FROM people", &[]).await.unwrap();
            let events = client.query("SELECT id, note FROM events", &[]).await.unwrap();
            Contents {
                people: people.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect(),
                events: events.iter().map(|row| (row.get(0), row.get(1))).collect(),
            }
        })
    }

    pub fn rotate(&self, more: &[&str]) -> Output {
        self.site.run(&[&["key", "rotate", "1"], more].concat())
    }

    /// Starts it and does not wait.
    pub fn start_rotation(&self, more: &[&str]) -> Rotating {
        self.begin(&[&["key", "rotate", "1"], more].concat(), &[])
    }

    /// Starts any command, with further variables in its environment, and does not wait.
    pub fn begin(&self, args: &[&str], more: &[(&str, &str)]) -> Rotating {
        let environment = self.site.environment();
        let child = Command::new(rowseal())
            .args(args)
            .arg("--config")
            .arg(self.site.config())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Rotating::of(child)
    }

    /// Rotations of tenant 1 may begin again.
    pub fn forget_interval(&self) {
        self.cluster.psql("app", "UPDATE rowseal.rotation SET started_at = started_at - interval '25 hours'");
    }

    pub fn state(&self) -> String {
        self.cluster.psql("app", "SELECT state FROM rowseal.rotation ORDER BY started_at DESC LIMIT 1")
    }

    /// The service as an operator at its console reaches it.
    pub fn console(&self) -> Box<dyn Kms> {
        if self.strict.is_none() {
            return Box::new(LocalKms::open(self.site.path().join("keyring.toml")).unwrap());
        }
        let settings = AwsSettings { endpoint: Some(self.endpoint.clone()), ..AwsSettings::default() };
        Box::new(AwsKms::with_credentials(&settings, "operator", "operator"))
    }

    pub fn key_state(&self, arn: &str) -> KeyState {
        self.runtime.block_on(self.console().describe(&KeyArn::new(arn))).unwrap().state
    }

    pub fn arns(&self, states: &str) -> Vec<String> {
        let sql =
            format!("SELECT arn FROM rowseal.master_key WHERE tenant = '1' AND state IN ({states}) ORDER BY version");
        self.cluster.psql("app", &sql).lines().map(str::to_owned).collect()
    }

    /// How many cells of tenant 1 hang on another version than the active one.
    pub fn cells_under_old_keys(&self) -> i64 {
        let each = STORED.map(|(table, column)| {
            format!(
                "SELECT count(*) AS n FROM ONLY {table} WHERE rowseal.key_id({column}) IN (
                    SELECT key_id FROM rowseal.master_key WHERE tenant = '1' AND state <> 'active'
                    UNION SELECT key_id FROM rowseal.branch_key WHERE tenant = '1' AND state <> 'active')"
            )
        });
        let sql = format!("SELECT sum(n) FROM ({}) AS counted", each.join(" UNION ALL "));
        self.cluster.psql("app", &sql).parse().unwrap()
    }

    /// What holds after every rotation that is done: the state, one usable key, no cell under another, no key that the
    /// registry does not know.
    #[track_caller]
    pub fn check_done(&self) {
        assert_eq!(self.state(), "done");
        assert_eq!(self.cells_under_old_keys(), 0);
        let (active, old) = (self.arns("'active'"), self.arns("'deactivated'"));
        assert_eq!((active.len(), self.arns("'retiring'").len()), (1, 0));
        assert_eq!(self.key_state(&active[0]), KeyState::Enabled);
        old.iter().for_each(|arn| assert_eq!(self.key_state(arn), KeyState::Disabled, "{arn}"));
        let tagged = self.runtime.block_on(async { self.console().find_by_tag("rowseal:tenant", "1").await.unwrap() });
        let tagged: BTreeSet<String> = tagged.iter().map(ToString::to_string).collect();
        assert_eq!(tagged, active.into_iter().chain(old).collect(), "a key that is not registered");
    }

    /// The row of a person is found by the token of its e-mail.
    #[track_caller]
    pub fn check_search(&self, address: SocketAddr, contents: &Contents) {
        self.runtime.block_on(async {
            let client = connect_at(address, "app").await;
            let find = client.prepare("SELECT id FROM people WHERE account_id = $1 AND email = $2").await.unwrap();
            for (id, (email, _)) in contents.people.iter().step_by(37) {
                let rows = client.query(&find, &[&account(*id), email]).await.unwrap();
                assert_eq!(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [*id], "{email}");
            }
            for (id, note) in contents.events.iter().step_by(7) {
                let rows = client.query("SELECT id FROM events WHERE note = $1", &[note]).await.unwrap();
                assert_eq!(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [*id], "{note}");
            }
        });
    }

    pub fn serve(&self) -> Proxy {
        self.site.serve()
    }

    pub fn admin_log(&self) -> String {
        let directory = self.site.path().join("audit/admin");
        let directory = directory.to_str().unwrap();
        self.site.run_ok(&["audit", "verify", "--directory", directory]);
        self.site.run_ok(&["audit", "show", "--directory", directory, "--json"])
    }
}

/// A command under way, such as `rowseal key rotate`; killed when dropped.
pub struct Rotating {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Rotating {
    fn of(mut child: Child) -> Rotating {
        let mut stdout = child.stdout.take().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let kept = said.clone();
        let reader = std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut part) {
                kept.lock().unwrap().extend_from_slice(&part[..length]);
            }
        });
        Rotating { child, said, reader: Some(reader) }
    }

    /// kill -9.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Whether it has told its operator this by now.
    pub fn has_said(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.said.lock().unwrap()).contains(text)
    }

    pub fn wait(mut self) -> Output {
        let mut stderr = Vec::new();
        self.child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let stdout = std::mem::take(&mut *self.said.lock().unwrap());
        Output { status, stdout, stderr }
    }
}

impl Drop for Rotating {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All rows by id.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Contents {
    pub people: BTreeMap<i64, (String, Option<String>)>,
    pub events: BTreeMap<i64, String>,
}

#[track_caller]
pub fn assert_ok(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
}

/// Both streams.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every tenth row is another tenant's, but for those that clients add while they work.
pub fn account(id: i64) -> i64 {
    if id % 10 == 9 && id < 100_000 { 2 } else { 1 }
}

fn email(id: i64) -> String {
    format!("person{id}@example.com")
}

fn ssn(id: i64) -> String {
    format!("078-05-{id:04}")
}

fn note(id: i64) -> String {
    format!("note {id}")
}
