use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;

fn record(n: u64) -> Record {
    Record {
        act: Act::Open,
        who: Who::new(WhoFields {
            database: "app",
            user: "service",
            role: if n.is_multiple_of(2) { "analyst" } else { "service" },
            client: "127.0.0.1:5000",
            application: "psql \"x\"\n",
            session: 1,
        }),
        statement: n,
        tenant: if n.is_multiple_of(2) { "acme".into() } else { "globex".into() },
        key: Some(KeyId([7; 16])),
        dek_ids: vec![DekId([n as u8; 16])],
        columns: vec!["public.customers.email".into()],
        rows: n,
        result: "ok",
        kms_requests: vec!["request".to_owned()],
        detail: None,
    }
}

fn log_of(records: u64) -> TempDir {
    let directory = TempDir::new().unwrap();
    let audit = Audit::open(directory.path(), Durability::Group).unwrap();
    for n in 1..=records {
        audit.append(&[record(n)]).unwrap();
    }
    directory
}

fn lines(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string(log::path(directory)).unwrap();
    text.split_inclusive('\n').map(str::to_owned).collect()
}

/// Applies `tamper` to the lines of a log of five records and returns what `verify` says.
fn tampered(tamper: impl FnOnce(&mut Vec<String>)) -> String {
    let directory = log_of(5);
    assert_eq!(verify(directory.path()).unwrap().head.seq, 5);
    let mut lines = lines(directory.path());
    tamper(&mut lines);
    fs::write(log::path(directory.path()), lines.concat()).unwrap();
    match verify(directory.path()) {
        Ok(_) => "whole".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_kind_of_tampering_is_found() {
    let changed = "line 2: record 2 was changed";
    assert_eq!(tampered(|_| ()), "whole");
    assert_eq!(tampered(|lines| lines[1] = lines[1].replace("acme", "acm3")), changed);
    assert_eq!(tampered(|lines| lines[1] = lines[1].replace("\"rows\":2", "\"rows\":3")), changed);
    assert_eq!(tampered(|lines| lines[1] = lines[1].replace("\"seq\":2", "\"seq\": 2")), changed);
    assert_eq!(tampered(|lines| drop(lines.remove(2))), "line 3: record 4 stands where record 3 belongs");
    assert_eq!(tampered(|lines| drop(lines.remove(0))), "line 1: record 2 stands where record 1 belongs");
    assert_eq!(tampered(|lines| lines.swap(1, 2)), "line 2: record 3 stands where record 2 belongs");
    assert_eq!(tampered(|lines| lines.insert(3, lines[2].clone())), "line 4: record 3 stands where record 4 belongs");
    assert_eq!(tampered(|lines| lines.insert(3, "\n".to_owned())), "line 4: not a record");
    assert_eq!(tampered(|lines| lines.insert(3, "{}\n".to_owned())), "line 4: not a record");
    assert_eq!(
        tampered(|lines| {
            lines[4].pop();
        }),
        "line 5: the last record is only half written"
    );
    assert_eq!(tampered(|lines| lines[4].truncate(90)), "line 5: the last record is only half written");
    let upper = |lines: &mut Vec<String>| {
        let at = lines[4].len() - 67;
        let hash = lines[4][at..].to_uppercase();
        lines[4].replace_range(at.., &hash);
    };
    assert_eq!(tampered(upper), "line 5: not a record");
}

#[test]
fn a_record_of_another_log_is_found() {
    let other = log_of(5);
    let foreign = lines(other.path()).remove(2);
    let own_third = lines(log_of(5).path()).remove(2);
    assert_ne!(foreign, own_third);
    assert_eq!(tampered(|lines| lines[2] = foreign), "line 3: record 3 does not follow from the one before it");
}

#[test]
fn a_cut_tail_shows_against_a_head_that_was_kept() {
    let directory = log_of(5);
    let head = verify(directory.path()).unwrap().head;
    assert_eq!(verify_from(directory.path(), &head).unwrap().head, head);
    assert_eq!(head.to_string().parse::<Head>(), Ok(head));
    let mut lines = lines(directory.path());
    lines.pop();
    fs::write(log::path(directory.path()), lines.concat()).unwrap();
    assert!(verify(directory.path()).is_ok());
    assert!(matches!(verify_from(directory.path(), &head), Err(VerifyError::NotThrough { known: 5, found: 4 })));
}

#[test]
fn a_restart_goes_on_with_the_chain() {
    let directory = log_of(3);
    let audit = Audit::open(directory.path(), Durability::Strict).unwrap();
    assert_eq!(audit.head().seq, 3);
    audit.append(&[record(4), record(5)]).unwrap();
    audit.append(&[]).unwrap();
    drop(audit);
    assert_eq!(verify(directory.path()).unwrap().head.seq, 5);
}

#[test]
fn a_long_log_is_resumed_from_its_tail() {
    let directory = TempDir::new().unwrap();
    let audit = Audit::open(directory.path(), Durability::Group).unwrap();
    let many: Vec<Record> = (1..=3000).map(record).collect();
    audit.append(&many).unwrap();
    drop(audit);
    assert!(fs::metadata(log::path(directory.path())).unwrap().len() > 1 << 20);
    let audit = Audit::open(directory.path(), Durability::Group).unwrap();
    assert_eq!(audit.head().seq, 3000);
    audit.append(&[record(1)]).unwrap();
    drop(audit);
    assert_eq!(verify(directory.path()).unwrap().head.seq, 3001);
}

#[test]
fn a_torn_last_line_is_set_aside_and_counted() {
    let directory = log_of(3);
    let mut text = lines(directory.path()).concat();
    text.truncate(text.len() - 40);
    fs::write(log::path(directory.path()), text).unwrap();
    assert!(matches!(verify(directory.path()), Err(VerifyError::Torn { line: 3 })));
    let audit = Audit::open(directory.path(), Durability::Group).unwrap();
    assert!(audit.torn_bytes() > 0);
    assert_eq!(audit.head().seq, 2);
    audit.append(&[record(3)]).unwrap();
    drop(audit);
    let verified = verify(directory.path()).unwrap();
    assert_eq!((verified.head.seq, verified.set_aside), (3, 1));
}

#[test]
fn a_damaged_tail_keeps_the_log_from_opening() {
    let directory = log_of(3);
    let text = lines(directory.path()).concat().replace("\"rows\":3", "\"rows\":4");
    fs::write(log::path(directory.path()), text).unwrap();
    assert!(matches!(
        Audit::open(directory.path(), Durability::Group),
        Err(AuditError::Damaged(VerifyError::Changed { seq: 3, .. }))
    ));
}

#[test]
fn one_process_writes_and_nobody_else_reads() {
    let directory = TempDir::new().unwrap();
    let audit = Audit::open(directory.path(), Durability::Group).unwrap();
    assert!(matches!(Audit::open(directory.path(), Durability::Group), Err(AuditError::InUse)));
    drop(audit);
    let mode = fs::metadata(log::path(directory.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(Audit::open(directory.path(), Durability::Group).is_ok());
}

#[test]
fn show_filters_by_tenant_role_column_and_time() {
    let directory = log_of(6);
    let count = |filter: Filter| {
        let mut found = 0;
        show::<VerifyError>(directory.path(), &filter, |_| {
            found += 1;
            Ok(())
        })
        .unwrap();
        found
    };
    let some = |text: &str| Some(text.to_owned());
    let now = jiff::Timestamp::now();
    assert_eq!(count(Filter::default()), 6);
    assert_eq!(count(Filter { tenant: some("acme"), ..Filter::default() }), 3);
    assert_eq!(count(Filter { role: some("service"), ..Filter::default() }), 6);
    assert_eq!(count(Filter { role: some("analyst"), ..Filter::default() }), 3);
    assert_eq!(count(Filter { column: some("public.customers.email"), ..Filter::default() }), 6);
    assert_eq!(count(Filter { column: some("public.customers.ssn"), ..Filter::default() }), 0);
    assert_eq!(count(Filter { since: Some(now), ..Filter::default() }), 0);
    assert_eq!(count(Filter { until: Some(now), ..Filter::default() }), 6);
}

#[test]
fn the_fields_stand_in_a_fixed_order() {
    let directory = log_of(1);
    let line = lines(directory.path()).remove(0);
    let names = [
        "seq",
        "time",
        "act",
        "database",
        "user",
        "role",
        "client",
        "application",
        "session",
        "statement",
        "tenant",
        "key",
        "dek_ids",
        "columns",
        "rows",
        "result",
        "kms_requests",
        "prev",
        "hash",
    ];
    let places: Vec<_> = names.iter().map(|name| line.find(&format!("\"{name}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{line}");
}

#[test]
fn what_was_done_to_a_key_stands_behind_the_rest_and_only_where_it_is_known() {
    let directory = TempDir::new().unwrap();
    let audit = Audit::open(directory.path(), Durability::Group).unwrap();
    audit.append(&[record(1), Record { act: Act::Key, detail: Some("rotate".to_owned()), ..record(2) }]).unwrap();
    let lines = lines(directory.path());
    assert!(!lines[0].contains("detail"), "{}", lines[0]);
    assert!(lines[1].contains("\"kms_requests\":[\"request\"],\"detail\":\"rotate\""), "{}", lines[1]);
    assert_eq!(verify(directory.path()).unwrap().head.seq, 2);
}

#[test]
fn records_of_many_threads_are_one_chain_and_on_disk() {
    let directory = TempDir::new().unwrap();
    let audit = Audit::open(directory.path(), Durability::Strict).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let audit = &audit;
            scope.spawn(move || (0..25).for_each(|n| audit.append(&[record(thread * 100 + n)]).unwrap()));
        }
    });
    assert_eq!(verify(directory.path()).unwrap().head, audit.head());
    assert_eq!(audit.head().seq, 100);
}

#[test]
fn a_disk_that_is_full_fails_the_append_and_leaves_the_chain_whole() {
    // /dev/full takes no byte; a log on it must say so instead of going on.
    let full = fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
    let mut state = log::State::on(full);
    assert!(matches!(state.append(&chain::bodies(&[record(1)])), Err(AuditError::Io(_))));
    assert_eq!(state.head(), Head::EMPTY);
    assert!(matches!(state.append(&chain::bodies(&[record(1)])), Err(AuditError::Failed | AuditError::Io(_))));
}

#[test]
fn records_of_a_group_are_one_chain_in_the_order_they_were_handed_in() {
    for durability in [Durability::Group, Durability::Strict] {
        let directory = TempDir::new().unwrap();
        let audit = Audit::open(directory.path(), durability).unwrap();
        let first = audit.submit(&[record(1), record(2)]);
        let second = audit.submit(&[record(3)]);
        assert_eq!(audit.head().seq, 0);
        audit.commit(&second).unwrap();
        assert_eq!(audit.head().seq, 3);
        audit.commit(&first).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let audit = &audit;
                scope.spawn(move || {
                    for n in 0..50 {
                        let ticket = audit.submit(&[record(thread * 100 + n)]);
                        std::thread::yield_now();
                        audit.commit(&ticket).unwrap();
                    }
                });
            }
        });
        let entries = lines(directory.path());
        assert!(entries.iter().zip(1..4).all(|(line, n)| line.contains(&format!("\"statement\":{n},"))));
        assert_eq!(verify(directory.path()).unwrap().head, audit.head());
        assert_eq!(audit.head().seq, 203);
    }
}

#[test]
fn every_ticket_of_a_group_that_could_not_be_written_fails_and_later_ones_do_not() {
    let directory = TempDir::new().unwrap();
    let audit = Audit::open(directory.path(), Durability::Group).unwrap();
    let written = audit.submit(&[record(1)]);
    audit.commit(&written).unwrap();
    let tickets = [audit.submit(&[record(2)]), audit.submit(&[record(3), record(4)])];
    let good = audit.replace_file(fs::OpenOptions::new().append(true).open("/dev/full").unwrap());
    assert!(audit.commit(&tickets[0]).is_err());
    assert!(audit.commit(&tickets[1]).is_err());
    assert!(audit.is_failing());
    audit.commit(&written).unwrap();
    audit.replace_file(good);
    let later = audit.submit(&[record(5)]);
    audit.commit(&later).unwrap();
    assert!(!audit.is_failing());
    assert!(audit.commit(&tickets[1]).is_err());
    assert_eq!(verify(directory.path()).unwrap().head.seq, 2);
}
