//! A tenant's keys taken away and given back (K5), and what becomes of versions that rotations left behind (K3, K4): the
//! real binary, two proxies, everything cached.
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::kms::proxy::Stage;
use crate::support::guard::poll;
use crate::support::peer::{Out, Peer, field};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};

const POLICY: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\nNULLS\n[[database.table]]\n\
    name = \"public.users\"\ntenant = { column = \"account_id\" }\n\n[database.table.columns]\n\
    email = { type = \"text\", equality = \"tenant\" }\n";
const TABLE: &str = "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text)";
/// How soon every proxy goes by a change of the registry, as docs/threat-model.md says.
const BOUND: Duration = Duration::from_secs(2);
/// What a machine that does much else adds.
const SLACK: Duration = Duration::from_secs(8);

/// One database behind two proxies with the same keys; the second shows NULL where a key is not available.
struct Pair {
    cluster: Cluster,
    site: Site,
    _other: Site,
    proxies: [Proxy; 2],
}

impl Pair {
    fn start(wrapping: &str) -> Pair {
        let cluster = Cluster::start(Version::Any);
        cluster.createdb("app");
        let site = Site::new(&cluster, &POLICY.replace("NULLS", ""));
        let mut other = Site::new(&cluster, &POLICY.replace("NULLS", "on_key_unavailable = \"null\"\n"));
        let keyring = site.path().join("keyring.toml");
        other.set_environment([("ROWSEAL_KEYS_KEYRING", keyring.to_str().unwrap())]);
        site.run_ok(&["setup"]);
        for tenant in ["1", "2"] {
            site.run_ok(&["tenant", "register", tenant, "--wrapping", wrapping]);
        }
        cluster.psql("app", TABLE);
        let proxies = [site.serve(), other.serve()];
        let mut peer = Peer::connect(proxies[0].address(), "app");
        assert_eq!(
            peer.ask("INSERT INTO users VALUES (1, 1, 'one@x'), (2, 2, 'two@x'), (3, 1, 'three@x')"),
            "C(INSERT 0 3\\x00) Z(I)",
            "{}",
            proxies[0].log()
        );
        Pair { cluster, site, _other: other, proxies }
    }

    fn peers(&self) -> [Peer; 2] {
        self.proxies.each_ref().map(|proxy| Peer::connect(proxy.address(), "app"))
    }

    fn admin_log(&self) -> String {
        let directory = self.site.path().join("audit/admin");
        let verified = self.site.run(&["audit", "verify", "--directory", directory.to_str().unwrap()]);
        assert!(verified.status.success(), "{verified:?}");
        self.site.run_ok(&["audit", "show", "--json", "--directory", directory.to_str().unwrap()])
    }
}

/// The first column of each row, `NULL` for none; or SQLSTATE and message of the error.
fn rows(peer: &mut Peer, sql: &str) -> Result<Vec<String>, (String, String)> {
    peer.send(&Out::new().query(sql).0);
    let mut rows = Vec::new();
    let mut failed = None;
    for (tag, body) in peer.until_ready(1) {
        match tag {
            b'E' => failed = Some((field(&body, b'C'), field(&body, b'M'))),
            b'D' => rows.push(first(&body)),
            _ => {}
        }
    }
    failed.map_or(Ok(rows), Err)
}

fn first(body: &[u8]) -> String {
    match i32::from_be_bytes(body[2..6].try_into().unwrap()) {
        -1 => "NULL".to_owned(),
        length => String::from_utf8_lossy(&body[6..6 + length as usize]).into_owned(),
    }
}

fn refused(tenant: &str) -> Result<Vec<String>, (String, String)> {
    Err(("55000".to_owned(), format!("the key of tenant \"{tenant}\" is not available")))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const ALL: &str = "SELECT email FROM users ORDER BY id";
const ONE: &str = "SELECT email FROM users WHERE account_id = 1 AND email = 'one@x'";
const TWO: &str = "SELECT email FROM users WHERE account_id = 2 AND email = 'two@x'";

#[test]
fn a_deactivated_tenant_is_read_by_no_proxy_and_the_others_notice_nothing() {
    for wrapping in ["direct", "hierarchical"] {
        let pair = Pair::start(wrapping);
        let [mut strict, mut nulls] = pair.peers();
        for peer in [&mut strict, &mut nulls] {
            assert_eq!(rows(peer, ALL).unwrap(), ["one@x", "two@x", "three@x"]);
            assert_eq!(rows(peer, ONE).unwrap(), ["one@x"]);
        }
        let told = pair.site.run_ok(&["key", "deactivate", "1", "--reason", "the customer asked for it"]);
        assert!(told.contains("taken up by 2 live proxies") && told.contains("1 keys were disabled"), "{told}");
        // What the command waited for holds at once, within the bound of when it was written.
        let age =
            "SELECT extract(epoch FROM clock_timestamp() - changed_at)::float8 FROM rowseal.tenant WHERE name = '1'";
        for sql in [
            ALL,
            ONE,
            "INSERT INTO users VALUES (9, 1, 'x')",
            "UPDATE users SET email = 'x' WHERE id = 1 AND account_id = 1",
        ] {
            assert_eq!(rows(&mut strict, sql), refused("1"), "{wrapping} {sql}");
        }
        let age: f64 = pair.cluster.psql("app", age).parse().unwrap();
        assert!(age < (BOUND + SLACK).as_secs_f64(), "{age}");
        assert_eq!(rows(&mut nulls, ALL).unwrap(), ["NULL", "two@x", "NULL"], "{wrapping}");
        assert_eq!(rows(&mut nulls, ONE), refused("1"), "a search needs its index root");
        for (n, peer) in [&mut strict, &mut nulls].into_iter().enumerate() {
            assert_eq!(rows(peer, TWO).unwrap(), ["two@x"], "{wrapping}");
            assert_eq!(rows(peer, &format!("INSERT INTO users VALUES (2{n}, 2, 'x')")), Ok(vec![]), "{wrapping}");
        }
        pair.cluster.psql("app", "DELETE FROM users WHERE id >= 20");
        // It is safe to repeat; what would bring the tenant back by another road is refused.
        pair.site.run_ok(&["key", "deactivate", "1", "--reason", "again"]);
        assert_eq!(pair.site.run(&["tenant", "register", "1", "--wrapping", wrapping]).status.code(), Some(2));
        assert_eq!(pair.site.run(&["key", "rotate", "1"]).status.code(), Some(2));
        assert!(pair.site.run_ok(&["tenant", "list"]).contains("revoked"));
        let told = pair.site.run_ok(&["key", "reactivate", "1", "--reason", "they changed their mind"]);
        assert!(told.contains("taken up by 2 live proxies") && told.contains("1 keys were enabled"), "{told}");
        for peer in [&mut strict, &mut nulls] {
            // A refusal of the key service may be believed for some seconds.
            poll("the tenant to be served", || (rows(peer, ALL).ok()? == ["one@x", "two@x", "three@x"]).then_some(()));
        }
        assert_eq!(rows(&mut strict, "INSERT INTO users VALUES (9, 1, 'x')"), Ok(vec![]));
        recorded_before_it_was_done(&pair.admin_log());
    }
}

fn recorded_before_it_was_done(log: &str) {
    let acts =
        ["revoke the tenant (the customer asked for it)", "disable local", "was disabled", "revoke the tenant (again)"];
    let later = ["reactivate the tenant (they changed their mind)", "enable local", "was enabled"];
    let mut rest = log;
    for act in acts.into_iter().chain(later) {
        let (_, after) = rest.split_once(act).unwrap_or_else(|| panic!("no {act:?} in {rest}"));
        rest = after;
    }
}

#[test]
fn a_result_that_is_being_read_stops_at_the_next_rows() {
    for wrapping in ["direct", "hierarchical"] {
        let pair = Pair::start(wrapping);
        let [mut peer, _] = pair.peers();
        let large = format!("UPDATE users SET email = '{}' WHERE id = 3 AND account_id = 1", "x".repeat(100_000));
        assert!(rows(&mut peer, &large).is_ok());
        pair.cluster.psql(
            "app",
            "INSERT INTO users SELECT 1000 + n, 1, email FROM users, generate_series(1, 600) n WHERE id = 3",
        );
        peer.send(&Out::new().query("SELECT email FROM users WHERE id >= 1000").0);
        assert_eq!(peer.receive().unwrap().0, b'T');
        assert_eq!(peer.receive().unwrap().0, b'D');
        pair.site.run_ok(&["key", "deactivate", "1", "--reason", "now"]);
        let rest = peer.until_ready(1);
        let whole = rest.iter().filter(|(tag, _)| *tag == b'D').count();
        assert!(whole < 599, "{wrapping}: {whole} rows came");
        let (_, error) = rest.iter().find(|(tag, _)| *tag == b'E').unwrap_or_else(|| panic!("{wrapping}: no error"));
        assert_eq!(field(error, b'C'), "55000");
        assert_eq!(rows(&mut peer, TWO).unwrap(), ["two@x"]);
        // COPY out too.
        assert_eq!(rows(&mut peer, "COPY (SELECT email FROM users) TO STDOUT"), refused("1"));
    }
}

#[test]
fn a_row_of_the_registry_is_enough() {
    // Somebody has the registry and not the key service: the keys stay enabled, and are not used.
    let pair = Pair::start("direct");
    let [mut strict, mut nulls] = pair.peers();
    for peer in [&mut strict, &mut nulls] {
        rows(peer, ALL).unwrap();
    }
    pair.cluster.psql("app", "UPDATE rowseal.tenant SET state = 'revoked' WHERE name = '1'");
    let began = Instant::now();
    let stopped = |what: &str, is_done: &mut dyn FnMut() -> bool| {
        poll(what, || is_done().then_some(()));
        assert!(began.elapsed() < BOUND + SLACK, "{what} after {:?}", began.elapsed());
    };
    stopped("an error", &mut || rows(&mut strict, ALL) == refused("1"));
    stopped("NULL", &mut || rows(&mut nulls, ALL).unwrap() == ["NULL", "two@x", "NULL"]);
    pair.cluster.psql("app", "UPDATE rowseal.tenant SET state = 'active' WHERE name = '1'");
    poll("the tenant to be served", || rows(&mut strict, ALL).is_ok().then_some(()));
}

#[test]
fn a_shredded_tenant_never_comes_back() {
    let pair = Pair::start("hierarchical");
    let [mut strict, mut nulls] = pair.peers();
    for peer in [&mut strict, &mut nulls] {
        rows(peer, ALL).unwrap();
    }
    let asked = pair.site.run(&["tenant", "shred", "1", "--reason", "contract ended"]);
    assert_eq!(asked.status.code(), Some(64), "nobody to ask: {}", said(&asked));
    assert_eq!(rows(&mut strict, ONE).unwrap(), ["one@x"]);
    let told = pair.site.run_ok(&["tenant", "shred", "1", "--reason", "contract ended", "--yes"]);
    assert!(told.contains("1 keys will be deleted in 7 days"), "{told}");
    assert_eq!(rows(&mut strict, ALL), refused("1"));
    assert_eq!(rows(&mut strict, "INSERT INTO users VALUES (9, 1, 'x')"), refused("1"));
    assert_eq!(rows(&mut nulls, ALL).unwrap(), ["NULL", "two@x", "NULL"]);
    for back in [
        &["key", "reactivate", "1"][..],
        &["key", "unpurge", "1"],
        &["key", "deactivate", "1", "--reason", "x"],
        &["tenant", "register", "1"],
    ] {
        assert_eq!(pair.site.run(back).status.code(), Some(2), "{back:?}");
    }
    pair.site.run_ok(&["tenant", "shred", "1", "--reason", "again", "--yes"]);
    let key = pair
        .cluster
        .psql("app", "SELECT state, deletion_at > now() + '6 days' FROM rowseal.master_key WHERE tenant = '1'");
    assert_eq!(key, "purged|t");
    let reserved = pair.site.run(&["tenant", "shred", "_rowseal", "--reason", "x", "--yes"]);
    assert_eq!(reserved.status.code(), Some(2));
}

#[test]
fn an_older_version_serves_a_restored_backup_for_a_while_and_is_purged_when_nothing_needs_it() {
    for wrapping in ["direct", "hierarchical"] {
        older_version_serves_a_restored_backup(&Pair::start(wrapping));
    }
}

fn older_version_serves_a_restored_backup(pair: &Pair) {
    let [mut peer, _] = pair.peers();
    let backup = Backup::take(pair);
    pair.site.run_ok(&["key", "rotate", "1"]);
    rows(&mut peer, ALL).unwrap();
    backup.restore(pair);
    let needs = |what: &str| {
        let message = format!("a stored value of tenant \"1\" needs an older version of its key, which {what}");
        Err(("55000".to_owned(), message))
    };
    poll("the deactivated version to be refused", || (rows(&mut peer, ONE) == needs("is deactivated")).then_some(()));
    assert_eq!(rows(&mut peer, TWO).unwrap(), ["two@x"]);
    let refused = pair.site.run(&["key", "purge", "1", "--yes"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("public.users: 2 rows"), "{}", said(&refused));
    // For a while, by the clock of the database.
    pair.site.run_ok(&["key", "reactivate", "1", "--for-restore", "--hours", "2", "--reason", "backup of last week"]);
    poll("the restored rows", || (rows(&mut peer, ALL).ok()? == ["one@x", "two@x", "three@x"]).then_some(()));
    assert_eq!(pair.site.run(&["key", "purge", "1", "--yes"]).status.code(), Some(2), "under way");
    pair.cluster.psql("app", "UPDATE rowseal.master_key SET restore_until = clock_timestamp() + '3 seconds' WHERE version = 1 AND tenant = '1'");
    assert_eq!(rows(&mut peer, ONE).unwrap(), ["one@x"]);
    poll("the time to be over", || (rows(&mut peer, ONE) == needs("is deactivated")).then_some(()));
    let version = "SELECT state, restore_until IS NULL FROM rowseal.master_key WHERE tenant = '1' AND version = 1";
    assert_eq!(pair.cluster.psql("app", version), "retiring|f", "refused before anybody noted it");
    assert!(said(&pair.site.run(&["key", "purge", "1", "--yes"])).contains("public.users: 2 rows"));
    assert_eq!(pair.cluster.psql("app", version), "deactivated|t", "the next command notes it");
    pair.site.run_ok(&["key", "reactivate", "1", "--for-restore"]);
    pair.site.run_ok(&["key", "rewrap", "1"]);
    assert_eq!(pair.cluster.psql("app", version), "deactivated|t");
    poll("the rows under the new key", || (rows(&mut peer, ALL).ok()? == ["one@x", "two@x", "three@x"]).then_some(()));
    purged_and_kept(pair, &mut peer, &backup);
}

fn purged_and_kept(pair: &Pair, peer: &mut Peer, backup: &Backup) {
    let version = "SELECT state, deletion_at IS NULL FROM rowseal.master_key WHERE tenant = '1' AND version = 1";
    assert_eq!(pair.site.run(&["key", "purge", "1"]).status.code(), Some(64), "nobody to ask");
    assert_eq!(pair.cluster.psql("app", version), "deactivated|t");
    pair.site.run_ok(&["key", "purge", "1", "--days", "7", "--yes"]);
    assert_eq!(pair.cluster.psql("app", version), "purged|f");
    assert_eq!(rows(peer, ALL).unwrap(), ["one@x", "two@x", "three@x"]);
    backup.restore(pair);
    let purged = "a stored value of tenant \"1\" needs an older version of its key, which was purged";
    poll("the purged version to be refused", || {
        (rows(peer, ONE) == Err(("55000".to_owned(), purged.to_owned()))).then_some(())
    });
    pair.site.run_ok(&["key", "unpurge", "1", "--reason", "it is needed after all"]);
    assert_eq!(pair.cluster.psql("app", version), "deactivated|t");
    pair.site.run_ok(&["key", "reactivate", "1", "--for-restore"]);
    poll("the restored rows", || (rows(peer, ALL).ok()? == ["one@x", "two@x", "three@x"]).then_some(()));
    let log = pair.admin_log();
    for act in [
        "schedule, in 7 days, the deletion of local",
        "cancel the deletion of local",
        "for a restored backup, for 2 hours: backup of last week",
        "its time for a restored backup is over",
    ] {
        assert!(log.contains(act), "{act}: {log}");
    }
}

/// The rows of the table as pg_dump writes them.
struct Backup(PathBuf);

impl Backup {
    fn take(pair: &Pair) -> Backup {
        let file = pair.site.path().join("users.dump");
        let backup = Backup(file);
        backup.run(
            pair,
            "pg_dump",
            &["-Fc", "-a", "-t", "public.users", "-f", backup.0.to_str().unwrap(), "-d", "app"],
        );
        backup
    }

    /// In place of what is there.
    fn restore(&self, pair: &Pair) {
        pair.cluster.psql("app", "TRUNCATE users");
        self.run(pair, "pg_restore", &["-a", "-d", "app", self.0.to_str().unwrap()]);
    }

    fn run(&self, pair: &Pair, tool: &str, args: &[&str]) {
        let mut command = Command::new(pair.cluster.bin_dir().join(tool));
        command.arg("-h").arg(pair.cluster.socket_dir()).args([
            "-p",
            &pair.cluster.port().to_string(),
            "-U",
            "postgres",
        ]);
        let output = command.args(args).output().unwrap_or_else(|error| panic!("{tool}: {error}"));
        assert!(output.status.success(), "{tool}: {}", said(&output));
    }
}

#[test]
fn keys_of_the_service_are_disabled_enabled_and_scheduled_for_deletion() {
    let stage = Stage::start("direct");
    let proxy = stage.site.serve();
    let mut peer = Peer::connect(proxy.address(), "app");
    let insert = "INSERT INTO users (id, account_id, email) VALUES (1, 1, 'one@x'), (2, 2, 'two@x')";
    assert_eq!(peer.ask(insert), "C(INSERT 0 2\\x00) Z(I)", "{}", proxy.log());
    rows(&mut peer, ALL).unwrap();
    stage.site.run_ok(&["key", "deactivate", "1", "--reason", "test"]);
    assert_eq!(rows(&mut peer, ALL), refused("1"));
    assert_eq!(rows(&mut peer, TWO).unwrap(), ["two@x"]);
    assert_eq!(stage.state_of("1"), "Disabled");
    stage.site.run_ok(&["key", "reactivate", "1"]);
    assert_eq!(stage.state_of("1"), "Enabled");
    poll("the tenant to be served", || (rows(&mut peer, ALL).ok()? == ["one@x", "two@x"]).then_some(()));
    stage.site.run_ok(&["tenant", "shred", "1", "--reason", "test", "--yes"]);
    assert_eq!(stage.state_of("1"), "PendingDeletion");
    assert_eq!(rows(&mut peer, ALL), refused("1"));
}
