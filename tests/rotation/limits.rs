//! What keeps a rotation from beginning or from ending, and what it leaves alone.
use super::stage::{FEW, Stage, assert_ok, said};
use crate::support::guard::poll;
use crate::support::postgres::{Version, connect_at};

fn filled(wrapping: &str) -> Stage {
    let stage = Stage::start(wrapping, Version::V15);
    let proxy = stage.serve();
    stage.fill(proxy.address(), FEW);
    assert_eq!(proxy.stop(), 0);
    stage
}

#[test]
fn a_key_is_rotated_once_in_24_hours_unless_it_is_compromised() {
    let stage = filled("hierarchical");
    assert_ok(&stage.rotate(&[]));
    let refused = stage.rotate(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        said(&refused).contains("again in 24 h 0 min") || said(&refused).contains("again in 23 h 5"),
        "{}",
        said(&refused)
    );
    for usage in [
        &["--compromised"][..],
        &["--reason", "x"],
        &["--compromised", "--reason", " "],
        &["--max-rows-per-second", "0"],
    ] {
        assert_eq!(stage.rotate(usage).status.code(), Some(64), "{usage:?}");
    }
    assert_ok(&stage.rotate(&["--compromised", "--reason", "laptop lost"]));
    stage.check_done();
    assert_eq!(stage.arns("'deactivated'").len(), 2);
    let recorded = stage.cluster.psql("app", "SELECT reason FROM rowseal.rotation WHERE compromised");
    assert_eq!(recorded, "laptop lost");
    assert!(stage.admin_log().contains("compromised: laptop lost"));
    assert_eq!(stage.site.run(&["key", "rotate", "nobody"]).status.code(), Some(2));
}

#[test]
fn damaged_cells_keep_the_old_key_and_are_told_by_their_place() {
    for wrapping in ["direct", "hierarchical"] {
        let stage = filled(wrapping);
        // The first byte of the wrapped data key, which the slot ends with.
        let at = "rowseal.slot_offset(email) + rowseal.slot_length(email) - 5";
        let flip =
            format!("UPDATE people SET email = set_byte(email, {at}, get_byte(email, {at}) # 1) WHERE id IN (3, 4)");
        stage.cluster.psql("app", &flip);
        stage.cluster.psql("app", "REFRESH MATERIALIZED VIEW mails");
        let failed = stage.rotate(&["--json"]);
        assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
        assert!(said(&failed).contains("\"damaged_cells\":2"), "{}", said(&failed));
        let place = |id: i64| stage.cluster.psql("app", &format!("SELECT ctid FROM people WHERE id = {id}"));
        for id in [3, 4] {
            let told = format!("public.people ctid {}", place(id));
            assert!(said(&failed).contains(&told), "{told}: {}", said(&failed));
        }
        assert!(said(&failed).contains("2 cells do not unwrap") && !said(&failed).contains("c15253"));
        assert_eq!((stage.state(), stage.arns("'retiring'").len()), ("verifying".to_owned(), 1));
        // The others have been wrapped again; a view shows the two once more.
        assert_eq!(stage.cells_under_old_keys(), 4);
        stage.cluster.psql("app", "DELETE FROM people WHERE id IN (3, 4)");
        assert_ok(&stage.rotate(&[]));
        stage.check_done();
    }
}

#[test]
fn rights_that_are_missing_are_named_before_anything_is_done() {
    let mut stage = filled("hierarchical");
    stage.cluster.psql(
        "app",
        "CREATE ROLE control LOGIN; CREATE ROLE owner; GRANT control TO postgres;
         ALTER SCHEMA rowseal OWNER TO control; ALTER MATERIALIZED VIEW mails OWNER TO owner;
         GRANT SELECT ON mails, people, notes TO control; GRANT SELECT, UPDATE ON events_low, events_high TO control;
         GRANT SELECT, UPDATE (email) ON more_people TO control; REASSIGN OWNED BY control TO control;
         DO $$DECLARE o text; BEGIN
            FOR o IN SELECT format('ALTER TABLE rowseal.%I OWNER TO control', relname) FROM pg_class
                WHERE relnamespace = 'rowseal'::regnamespace AND relkind = 'r' LOOP EXECUTE o; END LOOP;
            FOR o IN SELECT format('ALTER FUNCTION %s OWNER TO control', oid::regprocedure) FROM pg_proc
                WHERE pronamespace = 'rowseal'::regnamespace LOOP EXECUTE o; END LOOP; END$$;
         CREATE POLICY hides ON events_low USING (id < 0); ALTER TABLE events_low ENABLE ROW LEVEL SECURITY",
    );
    let control = format!("postgres://control@{}/app", stage.cluster.host_port());
    stage.site.set_environment([("ROWSEAL_DATABASE_APP_CONTROL", &*control)]);
    let failed = stage.rotate(&[]);
    assert_eq!(failed.status.code(), Some(1));
    let said = said(&failed);
    for right in [
        "GRANT SELECT, UPDATE (email, ssn) ON public.people TO control;",
        "GRANT SELECT, UPDATE (email, ssn) ON public.more_people TO control;",
        "ALTER ROLE control BYPASSRLS;  -- policies hide rows of public.events_low",
        "GRANT owner TO control;  -- who owns public.mails, to refresh it",
        "GRANT postgres TO control;  -- who owns public.notes, to refresh it",
    ] {
        assert!(said.contains(right), "{right}: {said}");
    }
    assert!(!said.contains("events_high"), "{said}");
    assert_eq!(stage.cluster.psql("app", "SELECT count(*) FROM rowseal.rotation"), "0");
    assert_eq!(stage.arns("'active', 'retiring'").len(), 1);
    stage.cluster.psql(
        "app",
        "GRANT SELECT, UPDATE (email, ssn) ON people, more_people TO control; ALTER ROLE control BYPASSRLS;
         GRANT owner TO control; ALTER MATERIALIZED VIEW notes OWNER TO owner; GRANT SELECT ON notes, events, people TO owner",
    );
    // A role like this one may not keep triggers from firing, and says so.
    let rotated = stage.rotate(&[]);
    assert_ok(&rotated);
    assert!(super::stage::said(&rotated).contains("may not silence will run for every row of public.more_people"));
    stage.check_done();
    assert_ne!(stage.cluster.psql("app", "SELECT count(*) FROM more_people WHERE updated_at > '2026-01-01'"), "0");
}

#[test]
fn one_process_rotates_and_others_say_so() {
    let stage = filled("hierarchical");
    let rotating = stage.start_rotation(&["--max-rows-per-second", "20"]);
    poll("rewrapping", || (stage.state() == "rewrapping").then_some(()));
    let refused = stage.rotate(&[]);
    assert_eq!(refused.status.code(), Some(2));
    let said = said(&refused);
    assert!(said.contains("runs elsewhere: rewrapping") && said.contains("pass 1"), "{said}");
    let status = stage.site.run_ok(&["key", "status"]);
    assert!(status.contains("1: active, hierarchical, in rotation since") && status.contains("rewrapping"), "{status}");
    assert_eq!(stage.site.run(&["key", "rewrap", "1"]).status.code(), Some(2));
    rotating.kill();
    // What became known meanwhile is recorded with the rotation that runs.
    assert_ok(&stage.rotate(&["--compromised", "--reason", "found on a forum"]));
    stage.check_done();
    let recorded = stage.cluster.psql("app", "SELECT reason FROM rowseal.rotation WHERE compromised");
    assert_eq!(recorded, "found on a forum");
    assert!(stage.admin_log().contains("declare the key compromised (rotation "));
}

#[test]
fn a_silent_proxy_is_fenced() {
    let stage = filled("hierarchical");
    stage.cluster.psql(
        "app",
        "INSERT INTO rowseal.proxy (id, epoch, heartbeat)
         VALUES ('00000000-0000-0000-0000-000000000001', 0, now() - interval '19 seconds')",
    );
    assert_ok(&stage.rotate(&[]));
    stage.check_done();
    assert_eq!(stage.cluster.psql("app", "SELECT count(*) FROM rowseal.proxy WHERE epoch = 0"), "0");
    assert!(stage.admin_log().contains("fence the silent proxy 00000000"));
}

/// The application changes a cell between the moment its slot is read and the one it is swapped: what it wrote stays.
#[test]
fn a_concurrent_writer_wins() {
    let stage = filled("direct");
    let proxy = stage.serve();
    let mut expected = Stage::expected(FEW);
    // Rewrapping of data keys begins behind that of the index root; its answers are held back.
    stage.set(&serde_json::json!({"hold": 1, "skip": 5, "only": "ReEncrypt"}));
    let stopped = stage.strict.as_ref().unwrap().stopped();
    let rotating = stage.start_rotation(&[]);
    poll("a call on the way", || (stage.strict.as_ref().unwrap().stopped() > stopped).then_some(()));
    let writer = stage.runtime.block_on(connect_at(proxy.address(), "app"));
    for (id, email) in [(0, "changed0"), (1, "changed1"), (2, "changed2")] {
        let update = format!("UPDATE people SET email = '{email}' WHERE id = {id} AND account_id = 1");
        stage.runtime.block_on(writer.batch_execute(&update)).unwrap();
        expected.people.get_mut(&id).unwrap().0 = email.to_owned();
    }
    // The call is given up after some seconds and made again.
    assert_ok(&rotating.wait());
    stage.check_done();
    assert_eq!(stage.contents(proxy.address()), expected);
    stage.check_search(proxy.address(), &expected);
}

#[test]
fn the_key_of_equality_over_all_tenants_is_rotated_like_any_other() {
    for wrapping in ["direct", "hierarchical"] {
        let stage = filled(wrapping);
        assert_ok(&stage.site.run(&["key", "rotate", "_rowseal"]));
        let keys = "SELECT state, arn FROM rowseal.master_key WHERE tenant = '_rowseal' ORDER BY version";
        let keys = stage.cluster.psql("app", keys);
        let states: Vec<_> = keys.lines().filter_map(|row| row.split_once('|')).collect();
        assert_eq!((states[0].0, states[1].0, states.len()), ("deactivated", "active", 2));
        assert_eq!(stage.key_state(states[0].1), rowseal::keys::kms::KeyState::Disabled);
        let proxy = stage.serve();
        stage.check_search(proxy.address(), &Stage::expected(FEW));
    }
}

#[test]
fn a_trigger_that_undoes_the_change_is_no_reason_to_work_for_ever() {
    let stage = filled("hierarchical");
    stage.cluster.psql(
        "app",
        "CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
         CREATE TRIGGER undo BEFORE UPDATE ON events_low FOR EACH ROW EXECUTE FUNCTION undo();
         ALTER TABLE events_low ENABLE ALWAYS TRIGGER undo",
    );
    let failed = stage.rotate(&[]);
    assert_eq!(failed.status.code(), Some(1));
    let said = said(&failed);
    assert!(said.contains("fire ALWAYS will run for every row of public.events_low"), "{said}");
    assert!(said.contains("a trigger or rule of a table undoes it"), "{said}");
    stage.cluster.psql("app", "DROP TRIGGER undo ON events_low");
    assert_ok(&stage.rotate(&[]));
    stage.check_done();
}

#[test]
fn cells_that_cannot_be_reached_are_named_or_waited_for() {
    let stage = filled("hierarchical");
    stage.cluster.psql("app", "CREATE TABLE odd (list rowseal.text[], person people)");
    let failed = stage.rotate(&[]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(said(&failed).contains("public.odd.list, public.odd.person;"), "{}", said(&failed));
    assert_eq!(stage.cluster.psql("app", "SELECT count(*) FROM rowseal.rotation"), "0");
    stage.cluster.psql("app", "DROP TABLE odd");
    let session = stage.runtime.block_on(stage.cluster.connect("app"));
    stage.runtime.block_on(session.batch_execute("CREATE TEMP TABLE copied AS SELECT email FROM people")).unwrap();
    let mut rotating = stage.start_rotation(&[]);
    poll("the wait", || rotating.has_said("temporary tables of other sessions may hold old cells").then_some(()));
    assert!(!rotating.has_ended());
    stage.runtime.block_on(session.batch_execute("DROP TABLE copied")).unwrap();
    assert_ok(&rotating.wait());
    stage.check_done();
}

#[test]
fn tables_that_come_and_go_meanwhile_are_no_reason_to_stop() {
    let stage = filled("hierarchical");
    let proxy = stage.serve();
    stage.cluster.psql("app", "DROP MATERIALIZED VIEW unfilled, notes; CREATE TABLE gone AS SELECT * FROM events");
    let rotating = stage.start_rotation(&["--max-rows-per-second", "40"]);
    poll("rewrapping", || (stage.state() == "rewrapping").then_some(()));
    // Its first rows are still to come.
    stage.cluster.psql("app", "DROP TABLE gone; CREATE TABLE come AS SELECT * FROM events");
    assert_ok(&rotating.wait());
    let left = stage.cluster.psql(
        "app",
        "SELECT count(*) FROM come WHERE rowseal.key_id(note) IN
            (SELECT key_id FROM rowseal.branch_key WHERE tenant = '1' AND state <> 'active')",
    );
    assert_eq!((left.as_str(), stage.state()), ("0", "done".to_owned()));
    assert_eq!(stage.contents(proxy.address()), Stage::expected(FEW));
}

#[test]
fn nothing_is_done_that_cannot_be_recorded() {
    let stage = filled("hierarchical");
    let admin = stage.site.path().join("audit/admin");
    std::fs::create_dir_all(&admin).unwrap();
    std::fs::write(admin.join("audit.jsonl"), "no record\n").unwrap();
    let failed = stage.rotate(&[]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(said(&failed).contains("cannot be recorded, so it is not done"), "{}", said(&failed));
    assert_eq!(stage.cluster.psql("app", "SELECT count(*) FROM rowseal.rotation"), "0");
    assert_eq!(stage.arns("'active'").len(), 1);
}

/// A statement that came before the rotation and waits for a lock has neither a transaction id nor a snapshot yet.
#[test]
fn a_writer_that_waits_for_a_lock_is_waited_for() {
    let stage = filled("hierarchical");
    let (locker, writer) =
        stage.runtime.block_on(async { (stage.cluster.connect("app").await, stage.cluster.connect("app").await) });
    stage.cluster.psql("app", "CREATE TABLE stolen (cell bytea); CREATE TABLE gate ()");
    stage.cluster.psql("app", "INSERT INTO stolen SELECT note FROM events WHERE account_id = 1 LIMIT 1");
    let cell = stage.cluster.psql("app", "SELECT encode(cell, 'hex') FROM stolen");
    stage.runtime.block_on(locker.batch_execute("BEGIN; LOCK TABLE gate")).unwrap();
    // As a proxy's server does with what it was sent: the cell is in the text.
    let insert =
        format!("INSERT INTO events SELECT 20149, 1, decode('{cell}', 'hex') FROM (SELECT count(*) FROM gate) g");
    let waiting = stage.runtime.spawn(async move { writer.batch_execute(&insert).await });
    poll("the wait", || {
        let waits = stage.cluster.psql("app", "SELECT count(*) FROM pg_locks WHERE NOT granted");
        (waits == "1").then_some(())
    });
    let mut rotating = stage.start_rotation(&[]);
    poll("the wait", || rotating.has_said("have not ended").then_some(()));
    assert!(!rotating.has_ended(), "it did not wait");
    stage.runtime.block_on(locker.batch_execute("COMMIT")).unwrap();
    stage.runtime.block_on(waiting).unwrap().unwrap();
    assert_ok(&rotating.wait());
    stage.check_done();
}

#[test]
fn a_reader_from_before_keeps_the_old_key_until_it_ends() {
    let stage = filled("hierarchical");
    let proxy = stage.serve();
    let reader = stage.runtime.block_on(connect_at(proxy.address(), "app"));
    stage.runtime.block_on(async {
        reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        reader.query("SELECT count(*) FROM events", &[]).await.unwrap();
    });
    let rotating = stage.start_rotation(&[]);
    poll("verifying", || (stage.state() == "verifying").then_some(()));
    // It sees the cells as they were, and they open.
    let emails = stage.runtime.block_on(reader.query("SELECT email FROM people", &[])).unwrap();
    assert_eq!(emails.len(), 220);
    stage.runtime.block_on(reader.batch_execute("COMMIT")).unwrap();
    assert_ok(&rotating.wait());
    stage.check_done();
}
