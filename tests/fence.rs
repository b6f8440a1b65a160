//! What a proxy acknowledges while sealed values are on their way (K2): an epoch in `rowseal.proxy` says that no cell under a
//! key of an earlier one is in a buffer, a portal or a transaction that has not ended. And what was sealed before a silence
//! that a rotation does not wait for is never sent.
use std::path::Path;
use std::time::Duration;

use rowseal::keys::context;
use rowseal::keys::kms::Kms;
use rowseal::keys::kms::local::LocalKms;

use crate::support::guard::poll;
use crate::support::peer::{Out, Peer, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;
use crate::wire::{POLICY, Wired, wired, wired_on};

const INSERT: &str = "INSERT INTO users (id, account_id, email) VALUES";

/// Moves the registry's epoch, as any change of a tenant does; gives the new one.
fn move_epoch(cluster: &Cluster) -> i64 {
    let moved = cluster.psql(
        "app",
        "UPDATE rowseal.tenant SET reason = coalesce(reason, '') || 'x' WHERE name = '2'; SELECT value FROM rowseal.epoch",
    );
    moved.trim().parse().unwrap()
}

/// What the one proxy acknowledges, and what it has taken up.
fn acknowledged(cluster: &Cluster) -> (i64, i64) {
    let row = cluster.psql("app", "SELECT epoch, taken_up FROM rowseal.proxy ORDER BY heartbeat DESC LIMIT 1");
    let (epoch, taken_up) = row.split_once('|').unwrap_or_else(|| panic!("no proxy: {row:?}"));
    (epoch.parse().unwrap(), taken_up.parse().unwrap())
}

/// Moves the epoch and waits until the proxy goes by it; true when it acknowledges it too, at once or with the next two
/// heartbeats.
fn is_let_go(wired: &Wired) -> bool {
    let moved = move_epoch(&wired.cluster);
    poll("the epoch to be taken up", || (acknowledged(&wired.cluster).1 >= moved).then_some(()));
    let beats = || wired.cluster.psql("app", "SELECT max(heartbeat) FROM rowseal.proxy");
    for _ in 0..2 {
        if acknowledged(&wired.cluster).0 >= moved {
            return true;
        }
        let before = beats();
        poll("a heartbeat", || (beats() != before).then_some(()));
    }
    acknowledged(&wired.cluster).0 >= moved
}

#[test]
fn a_transaction_with_sealed_values_holds_the_epoch_until_it_ends() {
    let wired = wired();
    let mut peer = wired.peer();
    assert!(is_let_go(&wired), "nobody has done anything");
    for (n, end) in ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN; COMMIT"].iter().enumerate() {
        peer.ask("BEGIN");
        assert!(peer.ask(&format!("{INSERT} ({n}, 1, 'a@x')")).starts_with("C(INSERT 0 1"));
        assert!(!is_let_go(&wired), "before {end}");
        assert!(peer.ask("SELECT 1").ends_with("Z(T)"));
        assert!(!is_let_go(&wired), "a reply inside the transaction");
        assert!(peer.ask(end).ends_with("Z(I)"));
        assert!(is_let_go(&wired), "after {end}");
    }
    // Failed, it holds until it is over.
    peer.ask("BEGIN");
    peer.ask(&format!("{INSERT} (100, 1, 'a@x')"));
    assert!(peer.ask("SELECT 1/0").ends_with("Z(E)"));
    assert!(!is_let_go(&wired));
    peer.ask("ROLLBACK");
    assert!(is_let_go(&wired));
    // Outside of a transaction the reply is the end; so it is where the statement fails, here or in the server.
    peer.ask(&format!("{INSERT} (101, 1, 'a@x')"));
    assert!(is_let_go(&wired));
    assert!(peer.ask(&format!("{INSERT} (101, 1, 'a@x')")).starts_with("E(ERROR 23505)"));
    assert!(peer.ask(&format!("{INSERT} (102, 3, 'a@x')")).starts_with("E(ERROR 55000)"));
    assert!(peer.ask("UPDATE users SET email = 'b@x', note = 'n' WHERE id = 101").starts_with("C(UPDATE 1"));
    assert!(peer.ask(&format!("{INSERT} (103, 1, 'a@x'); {INSERT} (104, 1, 'a@x')")).ends_with("Z(I)"));
    assert!(is_let_go(&wired));
}

#[test]
fn reads_hold_nothing() {
    let wired = wired();
    let mut peer = wired.peer();
    peer.ask(crate::wire::ROWS);
    peer.ask("BEGIN");
    assert!(peer.ask("SELECT email FROM users WHERE email = 'a@x' AND account_id = 1").ends_with("Z(T)"));
    assert!(peer.ask("UPDATE users SET note = 'plain'").starts_with("C(UPDATE 5"));
    assert!(peer.ask("DELETE FROM users WHERE account_id = 1 AND email = 'b@x'").starts_with("C(DELETE 1"));
    peer.ask("DECLARE c CURSOR FOR SELECT email FROM users");
    assert!(peer.ask("FETCH 1 FROM c").contains("a@x"));
    assert!(is_let_go(&wired));
}

#[test]
fn a_portal_with_sealed_values_holds_the_epoch() {
    for version in [Version::V15, Version::V18] {
        let wired = wired_on(version, "");
        let mut peer = wired.peer();
        let insert = format!("{INSERT} ($1, 1, $2)");
        let bound = Out::new().parse("s", &insert).bind("p", "s", &[Some("1"), Some("a@x")], 0);
        peer.send(&bound.flush().0);
        peer.until(b'2');
        assert!(!is_let_go(&wired), "{version:?}: bound, not executed");
        peer.send(&Out::new().execute("p", 0).flush().0);
        peer.until(b'C');
        assert!(!is_let_go(&wired), "{version:?}: executed, not synced");
        peer.send(&Out::new().sync().0);
        assert_eq!(show(&peer.until_ready(1)), "Z(I)");
        assert!(is_let_go(&wired), "{version:?}: synced");
        // Several in one pipeline: those that come later hold too, though earlier replies are ready.
        peer.send(&Out::new().query("SELECT 1").run("BEGIN", &[]).sync().query("SELECT 2").0);
        peer.until_ready(3);
        let two = Out::new().bind("", "s", &[Some("2"), Some("a@x")], 0).execute("", 0).sync();
        peer.send(&two.bind("", "s", &[Some("3"), Some("a@x")], 0).execute("", 0).sync().query("COMMIT").0);
        assert!(show(&peer.until_ready(2)).ends_with("Z(T)"));
        assert!(show(&peer.until_ready(1)).ends_with("Z(I)"));
        assert!(is_let_go(&wired), "{version:?}: committed");
        assert_eq!(wired.cluster.psql("app", "SELECT count(*) FROM users"), "3");
    }
}

#[test]
fn what_is_pipelined_behind_an_answer_still_holds() {
    let wired = wired();
    let mut peer = wired.peer();
    // The second statement waits in the server for a lock, long after the first was answered outside of a transaction.
    let mut other = Peer::connect(wired.cluster.host_port(), "app");
    other.ask("BEGIN");
    other.ask("LOCK TABLE users IN SHARE MODE");
    let insert = format!("{INSERT} (1, 1, 'a@x')");
    peer.send(&Out::new().query("SELECT 1").query(&insert).query("SELECT 2").0);
    assert!(show(&peer.until_ready(1)).ends_with("Z(I)"));
    assert!(!is_let_go(&wired));
    other.ask("COMMIT");
    assert!(show(&peer.until_ready(2)).contains("INSERT 0 1"));
    assert!(is_let_go(&wired));
}

#[test]
fn copy_holds_the_epoch_until_it_is_committed() {
    let wired = wired();
    let mut peer = wired.peer();
    for way in
        ["COPY users (id, account_id, email) FROM STDIN", "COPY users (id, account_id, email) FROM STDIN (FORMAT csv)"]
    {
        let csv = way.ends_with("csv)");
        let row = |id: u32| if csv { format!("{id},1,a@x\n") } else { format!("{id}\t1\ta@x\n") };
        peer.ask("TRUNCATE users");
        peer.send(&Out::new().query(way).0);
        peer.until(b'G');
        assert!(is_let_go(&wired), "{way}: no row yet");
        peer.send(&Out::new().raw(b'd', row(1).as_bytes()).0);
        poll("the row to be sealed", || (!is_let_go(&wired)).then_some(()));
        peer.send(&Out::new().raw(b'd', row(2).as_bytes()).raw(b'c', b"").0);
        assert!(show(&peer.until_ready(1)).contains("COPY 2"), "{way}");
        assert!(is_let_go(&wired), "{way}: committed");
        // Broken off by the client, and by a row.
        peer.send(&Out::new().query(way).raw(b'd', row(3).as_bytes()).raw(b'f', b"enough\0").0);
        assert!(show(&peer.until_ready(1)).contains("E(ERROR 57014)"), "{way}");
        peer.send(&Out::new().query(way).raw(b'd', row(3).as_bytes()).raw(b'd', b"x\n").raw(b'c', b"").0);
        assert!(show(&peer.until_ready(1)).contains("E(ERROR 22P0"), "{way}");
        assert!(is_let_go(&wired), "{way}: broken off");
    }
    // In the extended protocol, in a transaction; and rows of a query.
    peer.send(&Out::new().run("BEGIN", &[]).run("COPY users (id, account_id, email) FROM STDIN", &[]).sync().0);
    peer.until(b'G');
    peer.send(&Out::new().raw(b'd', b"5\t1\ta@x\n").raw(b'c', b"").sync().0);
    assert!(show(&peer.until_ready(1)).ends_with("Z(T)"));
    assert!(!is_let_go(&wired));
    peer.ask("COMMIT");
    assert!(is_let_go(&wired));
    peer.ask("BEGIN");
    assert!(
        peer.ask("INSERT INTO users (id, account_id, email) SELECT id + 100, 2, email FROM users")
            .contains("INSERT 0 3")
    );
    assert!(!is_let_go(&wired));
    peer.ask("ROLLBACK");
    peer.ask("BEGIN");
    let arrays = "INSERT INTO users (id, account_id, email) SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[])";
    peer.send(&Out::new().run(arrays, &[Some("{7,8}"), Some("{1,2}"), Some("{a@x,b@x}")]).sync().0);
    assert!(show(&peer.until_ready(1)).ends_with("Z(T)"));
    assert!(!is_let_go(&wired));
    peer.ask("COMMIT");
    assert!(is_let_go(&wired));
}

#[test]
fn a_client_that_vanishes_lets_go_once_the_server_has_read_all() {
    let wired = wired();
    let mut peer = wired.peer();
    peer.ask("BEGIN");
    peer.ask(&format!("{INSERT} (1, 1, 'a@x')"));
    assert!(!is_let_go(&wired));
    drop(peer);
    assert!(is_let_go(&wired));
    // The server does not know of the client's end while it waits for a lock; the statement still counts, as it does without
    // a proxy.
    let mut other = Peer::connect(wired.cluster.host_port(), "app");
    other.ask("BEGIN");
    other.ask("LOCK TABLE users IN SHARE MODE");
    let mut peer = wired.peer();
    peer.send(&Out::new().query(&format!("{INSERT} (2, 1, 'a@x')")).0);
    poll("the server to wait", || (wired.cluster.psql("app", WAITING) == "1").then_some(()));
    drop(peer);
    assert!(!is_let_go(&wired));
    other.ask("COMMIT");
    poll("the epoch to be let go", || is_let_go(&wired).then_some(()));
    assert_eq!(wired.cluster.psql("app", "SELECT string_agg(id::text, ',') FROM users"), "2");
}

#[test]
fn a_proxy_that_is_cut_off_while_values_are_on_their_way_stays_on_the_list() {
    let wired = wired_on(Version::Any, "[limits]\ndrain_timeout = \"1s\"\n");
    let mut other = Peer::connect(wired.cluster.host_port(), "app");
    other.ask("BEGIN");
    other.ask("LOCK TABLE users IN SHARE MODE");
    let mut peer = wired.peer();
    peer.send(&Out::new().query(&format!("{INSERT} (1, 1, 'a@x')")).0);
    poll("the server to wait", || (wired.cluster.psql("app", WAITING) == "1").then_some(()));
    assert_eq!(wired.proxy.stop(), 0, "{}", wired.proxy.log());
    // A rotation waits until its silence has lasted; the value arrives after its end.
    let listed = "SELECT count(*) FROM rowseal.proxy";
    assert_eq!(wired.cluster.psql("app", listed), "1");
    other.ask("COMMIT");
    poll("the value", || (wired.cluster.psql("app", "SELECT count(*) FROM users") == "1").then_some(()));
    // One that ends with nothing on its way takes its leave.
    let again = wired.site.serve();
    poll("the new proxy", || (wired.cluster.psql("app", listed) == "2").then_some(()));
    Peer::connect(again.address(), "app").ask(&format!("{INSERT} (2, 1, 'a@x')"));
    assert_eq!(again.stop(), 0);
    assert_eq!(wired.cluster.psql("app", listed), "1");
}

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT%'";

#[test]
fn a_proxy_that_was_counted_out_begins_anew() {
    let wired = wired();
    let mut peer = wired.peer();
    peer.ask(&format!("{INSERT} (1, 1, 'a@x')"));
    let id = wired.cluster.psql("app", "DELETE FROM rowseal.proxy RETURNING id");
    poll("the proxy on the list again", || {
        (wired.cluster.psql("app", &format!("SELECT count(*) FROM rowseal.proxy WHERE id = '{id}'")) == "1")
            .then_some(())
    });
    assert!(peer.ask(&format!("{INSERT} (2, 1, 'a@x')")).ends_with("Z(I)"), "{}", wired.proxy.log());
    assert!(is_let_go(&wired));
    // A session that has sealed something before does not send anything after.
    peer.ask("BEGIN");
    peer.ask(&format!("{INSERT} (3, 1, 'a@x')"));
    let began = wired.cluster.psql("app", "SELECT started_at FROM rowseal.proxy");
    wired.cluster.psql("app", "DELETE FROM rowseal.proxy");
    poll("the proxy on the list again", || {
        let now = wired.cluster.psql("app", "SELECT started_at FROM rowseal.proxy WHERE taken_up IS NOT NULL");
        (!now.is_empty() && now != began).then_some(())
    });
    poll("a heartbeat of the new row", || {
        (wired.cluster.psql("app", "SELECT heartbeat > started_at FROM rowseal.proxy") == "t").then_some(())
    });
    peer.send_anyway(&Out::new().query("COMMIT").0);
    assert_eq!(show(&[peer.receive().unwrap()]), "E(FATAL 58030)");
    assert_eq!(wired.cluster.psql("app", "SELECT string_agg(id::text, ',' ORDER BY id) FROM users"), "1,2");
}

/// Gives tenant 1 another active key, as a rotation does.
fn replace_key(cluster: &Cluster, keyring: &Path) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kms = LocalKms::open(keyring).unwrap();
    let tags = [(context::TAG_TENANT.to_owned(), "1".to_owned())];
    let (arn, canary) = runtime.block_on(async {
        let arn = kms.create_key(&tags).await.unwrap();
        let canary = kms.encrypt(&arn, &[7; 16], &context::canary("1")).await.unwrap().0;
        (arn, canary)
    });
    let canary: String = canary.iter().map(|byte| format!("{byte:02x}")).collect();
    cluster.psql(
        "app",
        &format!(
            "BEGIN; UPDATE rowseal.master_key SET state = 'retiring' WHERE tenant = '1';
             INSERT INTO rowseal.master_key (key_id, tenant, version, provider, arn, state, intent, canary)
             VALUES (uuid_send(gen_random_uuid()), '1', 2, 'local', '{}', 'active', gen_random_uuid(), '\\x{canary}');
             COMMIT",
            arn.as_str()
        ),
    );
    cluster.psql("app", "SELECT encode(key_id, 'hex') FROM rowseal.master_key WHERE tenant = '1' AND state = 'active'")
}

#[test]
fn a_rotation_waits_for_a_transaction_with_sealed_values() {
    let wired = wired();
    let mut peer = wired.peer();
    peer.ask("BEGIN");
    assert!(peer.ask(&format!("{INSERT} (1, 1, 'a@x')")).starts_with("C(INSERT 0 1"));
    std::thread::scope(|scope| {
        let rotation = scope.spawn(|| wired.site.run_ok(&["key", "rotate", "1"]));
        let state = || wired.cluster.psql("app", "SELECT state FROM rowseal.rotation");
        poll("the rotation to wait", || (state() == "switching").then_some(()));
        assert!(!is_let_go(&wired) && state() == "switching", "it goes on while cells may come");
        // Others have the new key already.
        assert!(wired.peer().ask(&format!("{INSERT} (2, 1, 'b@x')")).ends_with("Z(I)"));
        assert!(state() == "switching" && !rotation.is_finished());
        assert!(peer.ask("COMMIT").ends_with("Z(I)"));
        rotation.join().unwrap();
    });
    let keys = "SELECT count(*), count(DISTINCT rowseal.key_id(email)) FROM users";
    assert_eq!(wired.cluster.psql("app", keys), "2|1");
    assert!(peer.ask("SELECT email FROM users").contains("a@x"));
}

#[test]
fn no_cell_under_a_key_that_is_rotated_away_is_written_back() {
    let role = "[[database.role]]\nname = \"keeper\"\nread = \"sealed\"\nsearch = true\n";
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let site = Site::new(&cluster, &format!("{POLICY}\n{role}"));
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1"]);
    let table = "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, \
                 age rowseal.int4, code rowseal.varchar, amount rowseal.numeric, note text); \
                 CREATE ROLE keeper; GRANT ALL ON users TO keeper";
    cluster.psql("app", table);
    let proxy = site.serve();
    let (mut peer, mut keeper) = (Peer::connect(proxy.address(), "app"), Peer::connect(proxy.address(), "app"));
    assert!(peer.ask(&format!("{INSERT} (1, 1, 'a@x')")).ends_with("Z(I)"));
    keeper.ask("SET ROLE keeper");
    let cell = cluster.psql("app", "SELECT email FROM users");
    assert_eq!(keeper.ask(&format!("{INSERT} (2, 1, '{cell}')")), "C(INSERT 0 1\\x00) Z(I)");
    replace_key(&cluster, &site.path().join("keyring.toml"));
    let retried = |id: u32, keeper: &mut Peer| keeper.ask(&format!("{INSERT} ({id}, 1, '{cell}')"));
    let mut id = 2;
    poll("the change to be taken up", || {
        id += 1;
        (retried(id, &mut keeper) == "E(ERROR 55000) Z(I)").then_some(())
    });
    keeper.send(&Out::new().query("COPY users (id, account_id, email) FROM STDIN").0);
    keeper.until(b'G');
    let row = format!("99\t1\t{}\n", cell.replace('\\', "\\\\"));
    keeper.send(&Out::new().raw(b'd', row.as_bytes()).raw(b'c', b"").0);
    assert!(show(&keeper.until_ready(1)).contains("E(ERROR 55000)"));
    // It opens all the same.
    assert!(peer.ask("SELECT email FROM users WHERE id = 1").contains("a@x"));
}

#[test]
fn a_proxy_that_was_stopped_sends_nothing_under_a_key_that_was_rotated_away() {
    let (cluster, site) = site_with_a_short_lease();
    let proxy = site.serve();
    let mut writers: Vec<Peer> = (0..3).map(|_| Peer::connect(proxy.address(), "app")).collect();
    for (n, writer) in writers.iter_mut().enumerate() {
        assert!(writer.ask(&format!("{INSERT} ({n}, 1, 'before@x')")).ends_with("Z(I)"), "{}", proxy.log());
    }
    // One session has sealed more than all buffers on the way hold while the server does not read.
    let mut other = Peer::connect(cluster.host_port(), "app");
    other.ask("SELECT pg_advisory_lock(1)");
    let mut blocked = Peer::connect(proxy.address(), "app");
    // Its facts are known from now on.
    assert!(blocked.ask("SELECT email FROM users WHERE id = 0").contains("before@x"));
    let large = format!("{INSERT} (50, 1, '{}')", "x".repeat(16 << 20));
    blocked.send(&Out::new().query("SELECT pg_advisory_lock(1)").query(&large).0);
    poll("the value to be sealed", || {
        let moved = move_epoch(&cluster);
        poll("the epoch to be taken up", || (acknowledged(&cluster).1 >= moved).then_some(()));
        (acknowledged(&cluster).0 < moved).then_some(())
    });
    signal(proxy.pid(), "STOP");
    for (n, writer) in writers.iter_mut().enumerate() {
        writer.send(&Out::new().query(&format!("{INSERT} (1{n}, 1, 'after@x')")).0);
    }
    std::thread::sleep(LEASE + Duration::from_secs(1));
    let new = replace_key(&cluster, &site.path().join("keyring.toml"));
    signal(proxy.pid(), "CONT");
    for (n, writer) in writers.iter_mut().enumerate() {
        let answer = show(&writer.until_ready(1));
        assert!(answer.starts_with("C(INSERT 0 1"), "writer {n}: {answer}\n{}", proxy.log());
    }
    other.ask("SELECT pg_advisory_unlock(1)");
    let told = String::from_utf8_lossy(&blocked.rest()).into_owned();
    assert!(told.contains("58030"), "{told}");
    let of_new = format!("SELECT id, rowseal.key_id(email) = '\\x{new}' FROM users ORDER BY id");
    assert_eq!(cluster.psql("app", &of_new), "0|f\n1|f\n2|f\n10|t\n11|t\n12|t");
    // What it acknowledges is of now, once the server has dropped the other half.
    let moved = move_epoch(&cluster);
    poll("the epoch to be acknowledged", || (acknowledged(&cluster).0 >= moved).then_some(()));
}

const LEASE: Duration = Duration::from_secs(3);

fn site_with_a_short_lease() -> (Cluster, Site) {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let mut site = Site::new(&cluster, POLICY);
    site.set_environment([("ROWSEAL_KEYS_LEASE", format!("{}s", LEASE.as_secs()).as_str())]);
    site.run_ok(&["setup"]);
    for tenant in ["1", "2"] {
        site.run_ok(&["tenant", "register", tenant]);
    }
    let table = "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, \
                 age rowseal.int4, code rowseal.varchar, amount rowseal.numeric, note text)";
    cluster.psql("app", table);
    (cluster, site)
}

fn signal(pid: u32, name: &str) {
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(sent.success());
}
