use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

mod chains;
mod crashes;
mod others;
mod proofs;
mod tampering;

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

fn records(numbers: impl IntoIterator<Item = u64>) -> Vec<Record> {
    numbers.into_iter().map(record).collect()
}

fn open(directory: &Path) -> Audit {
    Audit::open(directory, Durability::Group).unwrap()
}

/// A log that was closed in good order.
fn log_of(count: u64) -> TempDir {
    let directory = TempDir::new().unwrap();
    open(directory.path()).append(&records(1..=count)).unwrap();
    directory
}

fn whole(directory: &Path) -> Verified {
    verify(directory, None, &[]).unwrap()
}

fn fault(directory: &Path) -> String {
    verify(directory, None, &[]).map(|_| ()).unwrap_err().to_string()
}

fn note(directory: &Path) -> String {
    fs::read_to_string(directory.join("checkpoint")).unwrap()
}

/// The lines of `current/`.
fn lines(directory: &Path) -> Vec<String> {
    let files = segment::list(directory).unwrap();
    let text: String = files.iter().map(|segment| fs::read_to_string(&segment.path).unwrap()).collect();
    text.split_inclusive('\n').map(str::to_owned).collect()
}

/// The last file of `current/`.
fn last_file(directory: &Path) -> PathBuf {
    segment::list(directory).unwrap().pop().unwrap().path
}

/// A copy of a log, as a thief or a backup makes it.
fn copy_of(directory: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    copy_into(directory, copy.path());
    copy
}

fn copy_into(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_into(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Puts the copy in the log's place.
fn put_back(copy: &Path, directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    copy_into(copy, directory);
}

#[test]
fn a_restart_goes_on_with_the_log() {
    let directory = log_of(3);
    let audit = Audit::open(directory.path(), Durability::Strict).unwrap();
    assert_eq!(audit.size(), 3);
    audit.append(&records(4..=5)).unwrap();
    audit.append(&[]).unwrap();
    let verifier = audit.verifier().clone();
    drop(audit);
    let verified = whole(directory.path());
    assert_eq!((verified.checkpoint.size, verified.unsigned, verified.set_aside), (5, 0, 0));
    assert_eq!((verified.verifier, verified.chain), (verifier, None));
    assert_eq!(whole(log_of(0).path()).checkpoint.size, 0);
}

#[test]
fn a_long_log_is_signed_bundled_and_goes_on() {
    let directory = TempDir::new().unwrap();
    let mut notes = Vec::new();
    for round in 0..12u64 {
        let audit = open(directory.path());
        assert_eq!(audit.size(), 37 * 30 * round);
        for part in 0..30 {
            audit.append(&records(round * 1110 + part * 37..round * 1110 + (part + 1) * 37)).unwrap();
            if part % 7 == 0 {
                audit.publish().unwrap();
                notes.push(audit.checkpoint().unwrap().note.clone());
            }
        }
    }
    let verified = verify(directory.path(), None, &notes).unwrap();
    assert_eq!((verified.checkpoint.size, verified.unsigned), (13_320, 0));
    assert!(lines(directory.path()).len() < 1000, "full bundles do not stay in current/ for ever");
    assert!(directory.path().join("tile/1/000.p/52").exists() && directory.path().join("tile/entries/051").exists());
    let mut partial = 0;
    for entry in fs::read_dir(directory.path().join("tile/entries")).unwrap() {
        partial += usize::from(entry.unwrap().path().is_dir());
    }
    assert!(partial <= 3, "{partial} bundles that are not full");
    let mut seq = 0;
    show::<VerifyError>(directory.path(), &Filter::default(), |entry| {
        seq += 1;
        assert_eq!((entry.seq, entry.statement), (seq, seq - 1));
        Ok(())
    })
    .unwrap();
    assert_eq!(seq, 13_320);
}

#[test]
fn one_process_writes_and_nobody_else_reads() {
    let directory = TempDir::new().unwrap();
    let audit = open(directory.path());
    audit.append(&records(1..300)).unwrap();
    assert!(matches!(Audit::open(directory.path(), Durability::Group), Err(AuditError::InUse)));
    drop(audit);
    let private = |path: PathBuf| assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{path:?}");
    for name in ["signing.key", "checkpoint", "verifier", "lock", "tile/0/000", "tile/entries/000", "tile", "current"] {
        private(directory.path().join(name));
    }
    private(last_file(directory.path()));
    fs::set_permissions(directory.path().join("signing.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Audit::open(directory.path(), Durability::Group), Err(AuditError::Io(_))));
}

#[test]
fn the_key_may_be_elsewhere_and_is_the_logs_for_ever() {
    let (directory, keys) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let key = keys.path().join("log.key");
    let open = |key: &Path| Audit::open_with_key(directory.path(), Durability::Group, Some(key));
    let verifier = open(&key).unwrap().verifier().clone();
    assert!(!directory.path().join("signing.key").exists());
    assert_eq!(*open(&key).unwrap().verifier(), verifier);
    // Another log of the same key has a name of its own.
    let other = TempDir::new().unwrap();
    let audit = Audit::open_with_key(other.path(), Durability::Group, Some(&key)).unwrap();
    assert_ne!(audit.verifier().name(), verifier.name());
    Audit::open(log_of(1).path(), Durability::Group).unwrap();
    let foreign = keys.path().join("foreign.key");
    drop(Audit::open_with_key(TempDir::new().unwrap().path(), Durability::Group, Some(&foreign)).unwrap());
    assert!(matches!(open(&foreign), Err(AuditError::OtherKey)));
    // A key that is gone is not made anew for a log that is there.
    assert!(matches!(open(&keys.path().join("gone.key")), Err(AuditError::Io(_))));
    let secret = fs::read_to_string(&key).unwrap();
    for text in [note(directory.path()), fs::read_to_string(directory.path().join("verifier")).unwrap()] {
        assert!(!text.contains(secret.trim().rsplit('+').next().unwrap()), "{text}");
    }
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
    let directory = TempDir::new().unwrap();
    let detail = Some("canary".to_owned());
    open(directory.path()).append(&[Record { dek_ids: vec![], detail, ..record(1) }, record(2)]).unwrap();
    let lines = lines(directory.path());
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
        "detail",
        "salt",
    ];
    let place = |name: &&str| lines[0].find(&format!("\"{name}\":")).unwrap();
    assert!(names.iter().map(place).is_sorted(), "{}", lines[0]);
    // A detail where there is one; a salt where no data key makes the record hard to guess.
    assert!(!lines[1].contains("detail") && !lines[1].contains("salt"), "{}", lines[1]);
}

#[test]
fn a_record_too_long_for_an_entry_is_several_that_say_the_same() {
    let directory = TempDir::new().unwrap();
    let audit = open(directory.path());
    let long = Record {
        dek_ids: (0..5000u64).map(|n| DekId([n.to_be_bytes(), [1; 8]].concat().try_into().unwrap())).collect(),
        kms_requests: (0..3000).map(|n| format!("{n:036}")).collect(),
        columns: (0..1600).map(|n| format!("public.{}.{n}", "\u{1}".repeat(63)).into()).collect(),
        rows: 6000,
        ..record(1)
    };
    audit.append(&[record(1), long.clone(), Record { dek_ids: vec![], kms_requests: vec![], ..long.clone() }]).unwrap();
    drop(audit);
    let mut found: Vec<Entry> = Vec::new();
    show::<VerifyError>(directory.path(), &Filter::default(), |entry| {
        found.push(entry.clone());
        Ok(())
    })
    .unwrap();
    assert!(found.len() < 200, "{}", found.len());
    let all = |part: fn(&Entry) -> &Vec<String>| {
        let mut all: Vec<String> = found[1..].iter().flat_map(|entry| part(entry).clone()).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        (all.len(), count)
    };
    assert_eq!(all(|entry| &entry.dek_ids), (5000, 5000));
    assert_eq!(all(|entry| &entry.kms_requests), (3000, 3000));
    assert_eq!(all(|entry| &entry.columns).0, 1600);
    assert_eq!(found[1..].iter().map(|entry| entry.rows).sum::<u64>(), 2 * 6000);
    whole(directory.path());
    // What cannot be divided is cut or refused.
    let audit = open(directory.path());
    let endless = Record { detail: Some("x".repeat(100_000)), ..record(1) };
    audit.append(&[Record { kms_requests: vec!["r".repeat(100_000)], ..endless }]).unwrap();
    let refused = Record { tenant: "t".repeat(70_000).into(), ..record(1) };
    assert!(matches!(audit.append(&[refused]), Err(AuditError::TooLong)));
    audit.append(&[record(1)]).unwrap();
    drop(audit);
    whole(directory.path());
}

#[test]
fn records_of_many_threads_are_one_log_and_on_disk() {
    let directory = TempDir::new().unwrap();
    let audit = Audit::open(directory.path(), Durability::Strict).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let audit = &audit;
            scope.spawn(move || (0..25).for_each(|n| audit.append(&[record(thread * 100 + n)]).unwrap()));
        }
        // Checkpoints and new files come in between.
        (0..20).for_each(|_| audit.publish().unwrap());
    });
    assert_eq!(audit.size(), 100);
    drop(audit);
    assert_eq!(whole(directory.path()).checkpoint.size, 100);
}

#[test]
fn a_log_is_verified_and_read_while_it_is_written() {
    let directory = TempDir::new().unwrap();
    let audit = Audit::open(directory.path(), Durability::Relaxed).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..2000 {
                audit.append(&records(n * 5..n * 5 + 5)).unwrap();
                if n % 20 == 0 {
                    audit.publish().unwrap();
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut kept = Vec::new();
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let verified = verify(directory.path(), None, &kept).unwrap();
            kept = vec![note(directory.path())];
            let mut count = 0;
            show::<VerifyError>(directory.path(), &Filter::default(), |entry| {
                count += 1;
                assert_eq!(entry.seq, count);
                Ok(())
            })
            .unwrap();
            assert!(count >= verified.checkpoint.size);
        }
    });
    drop(audit);
    assert_eq!(whole(directory.path()).checkpoint.size, 10_000);
}

#[test]
fn records_of_a_group_are_one_log_in_the_order_they_were_handed_in() {
    for durability in [Durability::Relaxed, Durability::Group, Durability::Strict] {
        let directory = TempDir::new().unwrap();
        let audit = Audit::open(directory.path(), durability).unwrap();
        let first = audit.submit(&records(1..=2));
        let second = audit.submit(&[record(3)]);
        assert_eq!(audit.size(), 0);
        audit.commit(&second).unwrap();
        assert_eq!(audit.size(), 3);
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
        // Nobody waits for this one: it is written all the same.
        let _ = audit.submit(&[record(1000)]);
        assert_eq!(audit.size(), 203);
        drop(audit);
        let entries = lines(directory.path());
        assert!(entries.iter().zip(1..4).all(|(line, n)| line.contains(&format!("\"statement\":{n},"))));
        assert_eq!(whole(directory.path()).checkpoint.size, 204);
    }
}
