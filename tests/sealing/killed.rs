//! Does the same command go on where another was killed, and do its other ways out leave nothing behind?
use std::process::{Command, Stdio};
use std::time::Duration;

use super::writers::{USERS, Writer, check_cells, fill, known, stored};
use super::{error, seal, site};
use crate::support::guard::poll;
use crate::support::peer::{Out, Peer};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Site, rowseal};
use crate::support::tap::contains;

/// Times that the work is killed.
const KILLS: u64 = 10;

/// Everything of the schema and the rows that a dry run must leave alone.
const FINGERPRINT: &str = "
    SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM users t
    UNION ALL SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) || attnotnull, ',' ORDER BY attname)
        FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT string_agg(pg_get_indexdef(indexrelid), ',' ORDER BY indexrelid) FROM pg_index
        WHERE indrelid = 'users'::regclass
    UNION ALL SELECT count(*)::text FROM pg_trigger UNION ALL SELECT count(*)::text FROM pg_proc
    UNION ALL SELECT count(*)::text FROM pg_constraint UNION ALL SELECT count(*)::text FROM rowseal.job WHERE finished_at IS NULL";

/// Runs the command and kills it after some time; true if it was still at work.
fn kill_after(site: &Site, args: &[&str], time: Duration) -> bool {
    let mut child = Command::new(rowseal())
        .args(args)
        .arg("--config")
        .arg(site.config())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(time);
    let killed = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    killed
}

#[test]
fn the_same_command_goes_on_after_kill_9() {
    let cluster = Cluster::start(Version::V15);
    let site = site(&cluster);
    cluster.psql("app", USERS);
    let (direct, quiet) = (fill(&cluster, "direct"), fill(&cluster, "quiet"));
    let writing = Writer {
        region: "direct",
        address: cluster.host_port(),
        column: "note",
        through_proxy: false,
        model: direct,
        seed: 3,
    }
    .start();
    let mut seed = 20_261_124_u64;
    let mut killed = 0;
    for attempt in 0..KILLS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let time = Duration::from_millis(150 + (seed >> 33) % 900);
        // The last ones at full speed, so that some come to the indexes and the switch.
        let rate = if attempt < 6 { "400" } else { "1000000" };
        let args = ["column", "seal", "public.users.note", "--batch", "40", "--max-rows-per-second", rate];
        killed += u64::from(kill_after(&site, &args, time));
    }
    let done = seal(&site, "public.users.note", &[]);
    assert!(done.status.success(), "{}", error(&done));
    let (direct, _) = writing.stop();
    assert!(killed >= 8, "only {killed} were killed at work");
    let proxy = site.serve();
    assert_eq!(stored(&cluster, proxy.address(), "direct"), known(&direct));
    assert_eq!(stored(&cluster, proxy.address(), "quiet"), known(&quiet));
    check_cells(&cluster, "note");
    let again = site.run_ok(&["column", "seal", "public.users.note"]);
    assert!(again.contains("is sealed"), "{again}");
    let jobs = "SELECT string_agg(kind || ' ' || target || ' ' || state, ',') FROM rowseal.job";
    assert_eq!(cluster.psql("app", jobs), "seal public.users.note done");
    // Past the proxy the server lets a row go to another tenant, whose cells then are not its own.
    cluster.psql("app", "UPDATE users SET account_id = 3 - account_id WHERE region = 'quiet' AND id = 4");
    let read = "SELECT note FROM users WHERE region = 'quiet' AND id = 4";
    let moved = cluster.psql_at(proxy.address(), "app", read).unwrap_err();
    assert!(moved.contains("could not be opened"), "{moved}");
}

#[test]
fn a_dry_run_changes_nothing_and_an_abort_leaves_nothing() {
    let cluster = Cluster::start(Version::V15);
    let site = site(&cluster);
    cluster.psql("app", USERS);
    fill(&cluster, "direct");
    let before = cluster.psql("app", FINGERPRINT);
    let shown = site.run_ok(&["column", "seal", "public.users.email", "--dry-run"]);
    for part in [
        "ADD COLUMN email_rowseal rowseal.text",
        "CREATE TRIGGER",
        "CREATE UNIQUE INDEX CONCURRENTLY",
        "LOCK TABLE",
        "DROP COLUMN email",
        "SET NOT NULL",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(cluster.psql("app", FINGERPRINT), before);
    let args = ["column", "seal", "public.users.email", "--batch", "20", "--max-rows-per-second", "100"];
    let mut first =
        Command::new(rowseal()).args(args).arg("--config").arg(site.config()).stdout(Stdio::null()).spawn().unwrap();
    let filled = "SELECT count(email_rowseal) FROM users";
    poll("some rows", || cluster.try_psql("app", filled).is_ok_and(|count| count != "0").then_some(()));
    let second = seal(&site, "public.users.email", &[]);
    assert_eq!(second.status.code(), Some(2), "{}", error(&second));
    assert!(error(&second).contains("another process is at work"), "{}", error(&second));
    first.kill().unwrap();
    first.wait().unwrap();
    let proxy = site.serve();
    let ask = |sql: &str| cluster.psql_at(proxy.address(), "app", sql).unwrap();
    // While it is under way: the column is plain, and what stands beside it is never shown as it is stored.
    assert_eq!(ask("SELECT email FROM users WHERE id = 2"), "direct-2-öñ👋@example.org");
    assert_eq!(
        ask("SELECT * FROM users WHERE id = 2"),
        "direct|2|1|direct-2-öñ👋@example.org||0|direct-2-öñ👋@example.org"
    );
    ask("INSERT INTO users VALUES ('x', 1, 1, 'x', NULL)");
    ask("DELETE FROM users WHERE region = 'x'");
    let checked = site.run(&["check"]);
    assert!(checked.status.success(), "the column beside it is known: {checked:?}");
    let other_way = site.run(&["column", "unseal", "public.users.email"]);
    assert_eq!(other_way.status.code(), Some(2), "{}", error(&other_way));
    site.run_ok(&["column", "seal", "public.users.email", "--abort"]);
    assert_eq!(cluster.psql("app", FINGERPRINT), before);
    site.run_ok(&["column", "seal", "public.users.email", "--keep-plain"]);
    assert_eq!(
        ask("SELECT email, email_plain FROM users WHERE id = 2"),
        "direct-2-öñ👋@example.org|direct-2-öñ👋@example.org"
    );
    check_cells(&cluster, "email");
}

#[test]
fn statements_wait_for_a_switch_while_its_job_lives() {
    let cluster = Cluster::start(Version::V15);
    let site = site(&cluster);
    cluster.psql("app", USERS);
    fill(&cluster, "direct");
    // What a job has made and told when it is about to switch.
    cluster.psql(
        "app",
        "ALTER TABLE users ADD COLUMN email_rowseal rowseal.text, ALTER COLUMN email_rowseal SET (n_distinct = -1)",
    );
    let mut job = Peer::connect(cluster.host_port(), "app");
    job.ask("SELECT pg_advisory_lock_shared(1383036755, 'users'::regclass::oid::int8::bit(32)::int4)");
    let proxy = site.serve();
    let mut client = Peer::connect(proxy.address(), "app");
    client.wait_at_most(Duration::from_secs(1));
    client.send(&Out::new().query("SELECT email FROM users WHERE id = 7").0);
    assert!(client.try_receive().is_err(), "it does not wait");
    // Its end is as good as its word.
    drop(job);
    client.wait_at_most(Duration::from_secs(60));
    let answer = client.until_ready(1);
    assert!(answer.iter().any(|(tag, body)| *tag == b'D' && contains(body, b"direct-7-")), "no row");
    // In a transaction that others may wait for, nothing waits.
    let mut job = Peer::connect(cluster.host_port(), "app");
    client.ask("BEGIN; DELETE FROM users WHERE id = 8");
    job.ask("SELECT pg_advisory_lock_shared(1383036755, 'users'::regclass::oid::int8::bit(32)::int4)");
    let shown = client.ask("SELECT email FROM users WHERE id = 7");
    assert!(shown.contains("C("), "{shown}");
}
