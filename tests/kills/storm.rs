//! One database, one proxy, two clients, and kills; after each everything must be as if nothing had been.
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rowseal::keys::kms::{KeyArn, KeyState};
use serde_json::json;

use super::Random;
use super::acts::{Act, Point, Victim};
use super::writers::{VISITS_CHANGED, Writers, place};
use crate::rotation::stage::{Contents, FEW, POLICY, Rotating, Stage, said};
use crate::support::guard::poll;
use crate::support::postgres::{Cluster, Version, connect_at};
use crate::support::proxy::Proxy;

const VISITS: i64 = 150;
/// How long a command may take, and how long one may be on its way to a point.
const PATIENCE: Duration = Duration::from_secs(150);
const TO_THE_POINT: Duration = Duration::from_secs(20);
/// How long after its death a process is counted out: what it had sent has been read by then.
const COUNTED_OUT: Duration = Duration::from_secs(2);
/// The access key that marks the calls of commands.
const JOB: [(&str, &str); 1] = [("AWS_ACCESS_KEY_ID", "job")];
/// In the list of proxies, but no process.
const NOBODY: &str = "00000000-0000-0000-0000-000000000001";

pub struct Storm {
    stage: Stage,
    proxy: Proxy,
    /// Its id in the registry.
    proxy_id: String,
    writers: Option<Writers>,
    /// Processes that were killed, and when.
    dead: Vec<(String, Instant)>,
    tenants: u32,
    shredded: Vec<String>,
    registered: Vec<String>,
}

impl Storm {
    pub fn start(wrapping: &str) -> Storm {
        let cluster = Cluster::start_with(Version::Any, &[("synchronous_commit", "on"), ("log_statement", "none")]);
        let head = "control = \"{control}/app\"\n";
        let policy = POLICY.replace(head, &format!("{head}unsealed = \"pass\"\n"))
            + "\n[[database.table]]\nname = \"public.visits\"\ntenant = { column = \"account_id\" }\n\
               [database.table.columns]\nplace = { type = \"text\" }\n";
        let stage = Stage::on(cluster, &policy, wrapping, true);
        let fill = format!(
            "CREATE TABLE visits (id int8 PRIMARY KEY, account_id int8 NOT NULL, place text);
             INSERT INTO visits SELECT id, 1, 'place ' || id FROM generate_series(0, {VISITS} - 1) id"
        );
        stage.cluster.psql("app", &fill);
        let proxy = stage.serve();
        stage.fill(proxy.address(), FEW);
        let writers = Some(Writers::start(&stage.runtime, proxy.address()));
        let mut storm = Storm {
            stage,
            proxy,
            proxy_id: String::new(),
            writers,
            dead: Vec::new(),
            tenants: 0,
            shredded: Vec::new(),
            registered: Vec::new(),
        };
        storm.proxy_id = storm.new_proxy(&BTreeSet::new());
        storm
    }

    /// Does something, kills something in it, sets it going again, and looks at everything. Gives what was killed, which is
    /// nothing where the act ended before it came to the point.
    pub fn strike(&mut self, random: &mut Random) -> Vec<String> {
        let act = self.choose(random);
        let tenant = self.prepare(act);
        let point = act.point(random);
        let victim = random.one(&[Victim::Command, Victim::Command, Victim::Command, Victim::Proxy, Victim::Postgres]);
        let command = act.command(&tenant);
        let mut killed = Vec::new();
        if self.kill_at(&command, (act, point), victim) {
            killed.push(format!("{act:?} {victim:?}, {point:?}"));
        }
        // Started again, it may be killed again.
        if random.below(4) == 0 {
            let point = act.point_of_resumed(random);
            if self.kill_at(&command, (act, point), Victim::Command) {
                killed.push(format!("{act:?} Command, again, {point:?}"));
            }
        }
        self.resume(&command, act);
        self.check();
        killed
    }

    fn choose(&self, random: &mut Random) -> Act {
        match random.below(12) {
            0 | 1 => Act::Register,
            2..=4 if self.is_sealed() => Act::Unseal,
            2..=4 => Act::Seal,
            5 if !self.stage.arns("'deactivated'").is_empty() => Act::Purge,
            6 => Act::Shred,
            _ => Act::Rotate,
        }
    }

    fn is_sealed(&self) -> bool {
        let kind = "SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'visits'::regclass AND attname = 'place'";
        self.stage.cluster.psql("app", kind) != "text"
    }

    /// What must be there before the act; gives whose keys it is about.
    fn prepare(&mut self, act: Act) -> String {
        self.tenants += 1;
        let tenant = format!("t{}", self.tenants);
        match act {
            Act::Rotate => self.stage.forget_interval(),
            Act::Register => self.registered.push(tenant.clone()),
            Act::Shred => {
                self.stage.site.run_ok(&["tenant", "register", &tenant]);
                self.shredded.push(tenant.clone());
            }
            Act::Seal | Act::Unseal | Act::Purge => {}
        }
        tenant
    }

    /// True if something was killed at that point; false if the command ended before.
    fn kill_at(&mut self, command: &[&str], (act, point): (Act, Point), victim: Victim) -> bool {
        let stopped = self.stage.strict.as_ref().unwrap().stopped();
        let holder = self.arm(point);
        let mut running = self.stage.begin(&[command, act.pace(point)].concat(), &JOB);
        let reached = self.comes_to(point, &mut running, stopped);
        if reached && victim == Victim::Command {
            running.kill();
            self.calm(holder);
            self.bury_commands();
            return true;
        }
        if reached {
            self.kill(victim);
        }
        self.calm(holder);
        let output = self.until_ended(running);
        // A command that loses its server ends; the death of a proxy is none of its business.
        let may_fail = reached && victim == Victim::Postgres;
        assert!(may_fail || is_at_work(&output) || self.is_done(&output, act), "{act:?}: {}", said(&output));
        self.bury_commands();
        reached
    }

    /// Sees to it that a command stops at the point; gives the transaction that holds it there, if one does.
    fn arm(&self, point: Point) -> Option<tokio_postgres::Client> {
        let stop = |knob: &str, call: &str, skip: u64| json!({knob: 1, "skip": skip, "only": call, "caller": JOB[0].1});
        match point {
            Point::Before(call, skip) => self.stage.set(&stop("stall", call, skip)),
            Point::Behind(call, skip) => self.stage.set(&stop("hold", call, skip)),
            Point::State("switching") => {
                let insert = format!("INSERT INTO rowseal.proxy (id, epoch) VALUES ('{NOBODY}', 0)");
                self.stage.cluster.psql("app", &insert);
            }
            Point::State("verifying") => {
                let client = self.stage.runtime.block_on(self.stage.cluster.connect("app"));
                self.stage.runtime.block_on(client.batch_execute("BEGIN; SELECT pg_current_xact_id()")).unwrap();
                return Some(client);
            }
            Point::State(_) | Point::Moment(_) => {}
        }
        None
    }

    /// False if the command ends before. One that takes another way than usual is killed wherever it is.
    fn comes_to(&mut self, point: Point, running: &mut Rotating, stopped: u64) -> bool {
        let began = Instant::now();
        while !running.has_ended() {
            let is_there = match point {
                Point::Before(..) | Point::Behind(..) => self.stage.strict.as_ref().unwrap().stopped() > stopped,
                Point::State(state) => self.stage.state() == state,
                Point::Moment(after) => began.elapsed() >= after,
            };
            if is_there || began.elapsed() > TO_THE_POINT {
                return true;
            }
            self.count_out();
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Command => unreachable!(),
            Victim::Postgres => {
                self.stage.cluster.crash();
                self.stage.cluster.restart();
            }
            Victim::Proxy => {
                self.proxy.kill();
                self.dead.push((self.proxy_id.clone(), Instant::now()));
                let before = self.proxies();
                self.proxy = self.stage.serve();
                self.proxy_id = self.new_proxy(&before);
            }
        }
    }

    fn calm(&self, holder: Option<tokio_postgres::Client>) {
        self.stage.calm();
        drop(holder);
        self.stage.cluster.psql("app", &format!("DELETE FROM rowseal.proxy WHERE id = '{NOBODY}'"));
    }

    fn proxies(&self) -> BTreeSet<String> {
        let ids = self.stage.cluster.psql("app", "SELECT id FROM rowseal.proxy");
        ids.lines().map(str::to_owned).collect()
    }

    fn new_proxy(&self, before: &BTreeSet<String>) -> String {
        poll("the proxy on the list", || self.proxies().difference(before).next().cloned())
    }

    /// No command is running: whoever else is on the list is dead.
    fn bury_commands(&mut self) {
        for id in self.proxies() {
            if id != self.proxy_id && self.dead.iter().all(|(dead, _)| *dead != id) {
                self.dead.push((id, Instant::now()));
            }
        }
    }

    /// What time would do: the dead are silent for longer than anybody waits.
    fn count_out(&mut self) {
        let of_old = |(_, since): &(String, Instant)| since.elapsed() > COUNTED_OUT;
        let ids: Vec<String> = self.dead.iter().filter(|dead| of_old(dead)).map(|(id, _)| format!("'{id}'")).collect();
        if ids.is_empty() {
            return;
        }
        let age = format!(
            "UPDATE rowseal.proxy SET heartbeat = heartbeat - interval '1 minute' WHERE id IN ({})",
            ids.join(", ")
        );
        if self.stage.cluster.try_psql("app", &age).is_ok() {
            self.dead.retain(|dead| !of_old(dead));
        }
    }

    fn until_ended(&mut self, mut running: Rotating) -> std::process::Output {
        let began = Instant::now();
        while !running.has_ended() {
            assert!(began.elapsed() < PATIENCE, "it does not end");
            self.count_out();
            std::thread::sleep(Duration::from_millis(20));
        }
        running.wait()
    }

    /// Starts it once more and waits for its end. The server may not have noticed yet that the one before is dead.
    #[track_caller]
    fn resume(&mut self, command: &[&str], act: Act) {
        let began = Instant::now();
        let output = loop {
            let running = self.stage.begin(command, &JOB);
            let output = self.until_ended(running);
            if !is_at_work(&output) || began.elapsed() > PATIENCE {
                break output;
            }
        };
        assert!(self.is_done(&output, act), "{act:?} did not go on: {}", said(&output));
        self.bury_commands();
    }

    /// Of a purge that was done before there is nothing left to do.
    fn is_done(&self, output: &std::process::Output, act: Act) -> bool {
        match output.status.code() {
            Some(0) => true,
            Some(2) => match act {
                Act::Purge => self.stage.arns("'deactivated'").is_empty(),
                // Done before, it is once in 24 hours.
                Act::Rotate => self.stage.state() == "done" && said(output).contains("less than 24 hours ago"),
                _ => false,
            },
            _ => false,
        }
    }

    /// What holds whenever nothing is under way.
    #[track_caller]
    fn check(&self) {
        let registry = |sql: &str| self.stage.cluster.psql("app", sql);
        assert_eq!(registry("SELECT count(*) FROM rowseal.rotation WHERE state <> 'done'"), "0");
        assert_eq!(registry("SELECT count(*) FROM rowseal.job WHERE finished_at IS NULL"), "0");
        assert_eq!(self.stage.cells_under_old_keys() + self.visits_under_old_keys(), 0, "cells under an old key");
        self.check_keys(
            "1",
            &[
                ("active", KeyState::Enabled),
                ("deactivated", KeyState::Disabled),
                ("purged", KeyState::PendingDeletion),
            ],
        );
        for tenant in &self.registered {
            self.check_keys(tenant, &[("active", KeyState::Enabled)]);
        }
        for tenant in &self.shredded {
            self.check_keys(tenant, &[("purged", KeyState::PendingDeletion)]);
            assert_eq!(registry(&format!("SELECT state FROM rowseal.tenant WHERE name = '{tenant}'")), "shredded");
        }
        self.writers.as_ref().unwrap().check();
        let (shown, visits) = self.shown();
        let expected = Stage::expected(FEW);
        let filled = |shown: &Contents| {
            shown
                .people
                .iter()
                .filter(|(id, _)| **id < 100_000)
                .map(|(id, row)| (*id, row.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(filled(&shown), expected.people);
        assert_eq!(shown.events, expected.events);
        let untouched: Vec<_> = visits.into_iter().filter(|(id, _)| *id >= VISITS_CHANGED).collect();
        assert_eq!(untouched, (VISITS_CHANGED..VISITS).map(|id| (id, place(id))).collect::<Vec<_>>());
    }

    /// The keys of a tenant are in one of these states, in the registry and in the key service; there is one in the first of
    /// them, and none that the registry does not know.
    #[track_caller]
    fn check_keys(&self, tenant: &str, states: &[(&str, KeyState)]) {
        let keys = format!("SELECT arn, state FROM rowseal.master_key WHERE tenant = '{tenant}'");
        let keys = self.stage.cluster.psql("app", &keys);
        let keys: Vec<(&str, &str)> = keys.lines().map(|row| row.split_once('|').unwrap()).collect();
        assert_eq!(keys.iter().filter(|(_, state)| *state == states[0].0).count(), 1, "tenant {tenant}: {keys:?}");
        for (arn, state) in &keys {
            let expected = states.iter().find(|(name, _)| name == state);
            assert_eq!(
                Some(self.stage.key_state(arn)),
                expected.map(|(_, state)| *state),
                "tenant {tenant}: {arn} {state}"
            );
        }
        assert_eq!(
            self.tagged("rowseal:tenant", tenant),
            keys.iter().map(|(arn, _)| (*arn).to_owned()).collect(),
            "keys by tag"
        );
    }

    fn tagged(&self, tag: &str, value: &str) -> BTreeSet<String> {
        let found = self.stage.runtime.block_on(async { self.stage.console().find_by_tag(tag, value).await.unwrap() });
        found.iter().map(KeyArn::to_string).collect()
    }

    fn visits_under_old_keys(&self) -> i64 {
        if !self.is_sealed() {
            return 0;
        }
        let count = "SELECT count(*) FROM visits WHERE rowseal.key_id(place) NOT IN (
            SELECT key_id FROM rowseal.master_key WHERE tenant = '1' AND state = 'active'
            UNION SELECT key_id FROM rowseal.branch_key WHERE tenant = '1' AND state = 'active' AND purpose = 'wrap')";
        self.stage.cluster.psql("app", count).parse().unwrap()
    }

    /// Everything as a client sees it. A proxy that has just started, or whose server has, may have to be asked again.
    fn shown(&self) -> (Contents, BTreeMap<i64, String>) {
        poll("the rows", || {
            self.stage.runtime.block_on(async {
                let client = connect_at(self.proxy.address(), "app").await;
                let people = client.query("SELECT id, email, ssn FROM people", &[]).await.ok()?;
                let events = client.query("SELECT id, note FROM events", &[]).await.ok()?;
                let visits = client.query("SELECT id, place FROM visits ORDER BY id", &[]).await.ok()?;
                let contents = Contents {
                    people: people.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect(),
                    events: events.iter().map(|row| (row.get(0), row.get(1))).collect(),
                };
                Some((contents, visits.iter().map(|row| (row.get(0), row.get(1))).collect()))
            })
        })
    }

    /// The clients stop; every row is what they know, every key is known, and every log verifies.
    pub fn end(mut self) {
        let models = self.writers.take().unwrap().stop(&self.stage.runtime);
        let (shown, visits) = self.shown();
        for model in &models {
            assert!(model.answers > 50, "a client hardly worked: {} answers", model.answers);
            for (id, possible) in &model.people {
                let held = shown.people.get(id).map(|(email, _)| email.clone());
                assert!(possible.contains(&held), "row {id} of people holds {held:?}, not one of {possible:?}");
            }
            for (id, possible) in &model.visits {
                let held = visits.get(id).cloned();
                assert!(possible.contains(&held), "row {id} of visits holds {held:?}, not one of {possible:?}");
            }
        }
        let known = |(id, _): &(&i64, _)| **id < 100_000 || models.iter().any(|model| model.people.contains_key(*id));
        assert!(shown.people.iter().all(|row| known(&row)), "a row that nobody wrote");
        let database = self.stage.cluster.psql("app", "SELECT id FROM rowseal.installation");
        let registered = self.stage.cluster.psql("app", "SELECT arn FROM rowseal.master_key");
        assert_eq!(self.tagged("rowseal:database", &database), registered.lines().map(str::to_owned).collect(), "keys");
        assert_eq!(self.proxy.stop(), 0);
        self.stage.site.run_ok(&["audit", "verify", "--against", "registry"]);
        for log in ["admin", "column"] {
            let directory = self.stage.site.path().join("audit").join(log);
            if directory.is_dir() {
                self.stage.site.run_ok(&["audit", "verify", "--directory", directory.to_str().unwrap()]);
            }
        }
    }
}

/// Refused because the lock is held.
fn is_at_work(output: &std::process::Output) -> bool {
    let told = ["another command works", "runs elsewhere", "another process is at work"];
    output.status.code() == Some(2) && told.iter().any(|text| said(output).contains(text))
}
