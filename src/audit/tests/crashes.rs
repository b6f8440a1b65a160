//! Nothing that was acknowledged is lost, wherever the process or the machine stops.
use super::*;

#[test]
fn a_torn_last_line_is_set_aside_and_counted() {
    let directory = TempDir::new().unwrap();
    let audit = open(directory.path());
    audit.append(&records(1..=2)).unwrap();
    audit.publish().unwrap();
    let crashed = copy_of(directory.path());
    audit.append(&[record(3)]).unwrap();
    let torn = lines(directory.path()).remove(2);
    drop(audit);
    let path = last_file(crashed.path());
    fs::write(&path, lines(crashed.path()).concat() + &torn[..torn.len() - 40]).unwrap();
    assert_eq!(whole(crashed.path()).unsigned, 0);
    let audit = open(crashed.path());
    assert_eq!((audit.torn_bytes(), audit.size()), (torn.len() as u64 - 40, 2));
    audit.append(&[record(3)]).unwrap();
    drop(audit);
    let verified = whole(crashed.path());
    assert_eq!((verified.checkpoint.size, verified.set_aside), (3, 1));
}

/// At every moment of a log's life a copy of its directory is what a crash of the process would leave.
#[test]
fn records_after_the_last_checkpoint_are_signed_by_the_next_start() {
    let directory = TempDir::new().unwrap();
    let audit = open(directory.path());
    let mut size = 0;
    for step in 0..60 {
        audit.append(&records(0..step * 7 % 50)).unwrap();
        size += step * 7 % 50;
        if step % 3 == 0 {
            audit.publish().unwrap();
        }
        let crashed = copy_of(directory.path());
        let verified = whole(crashed.path());
        assert_eq!(verified.checkpoint.size + verified.unsigned, size);
        drop(open(crashed.path()));
        let verified = verify(crashed.path(), None, &[note(directory.path())]).unwrap();
        assert_eq!((verified.checkpoint.size, verified.unsigned), (size, 0));
    }
    assert!(size > 1000 && segment::list(directory.path()).unwrap()[0].number > 1, "files went while this ran");
}

/// A crash of the machine can take what was not synced: tiles, but no records that were acknowledged.
#[test]
fn tiles_that_a_crash_took_are_made_again() {
    let directory = TempDir::new().unwrap();
    let audit = open(directory.path());
    audit.append(&records(1..=2000)).unwrap();
    audit.publish().unwrap();
    audit.append(&records(1..=50)).unwrap();
    audit.publish().unwrap();
    let crashed = copy_of(directory.path());
    let first = lines(crashed.path())[0].clone();
    let first: Entry = serde_json::from_str(&first).unwrap();
    let bundle = (first.seq - 1).div_ceil(256);
    for level in ["0", "1", "entries"] {
        for entry in fs::read_dir(crashed.path().join("tile").join(level)).unwrap() {
            let path = entry.unwrap().path();
            let index: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let is_synced = level != "1" && index < bundle;
            match (path.is_dir(), is_synced) {
                (_, true) => {}
                // Renamed, and empty.
                (true, false) => {
                    fs::read_dir(path).unwrap().for_each(|entry| fs::write(entry.unwrap().path(), "").unwrap())
                }
                (false, false) => fs::remove_file(path).unwrap(),
            }
        }
    }
    assert!(verify(crashed.path(), None, &[]).is_err());
    let kept = note(crashed.path());
    drop(open(crashed.path()));
    assert_eq!(verify(crashed.path(), None, &[kept]).unwrap().checkpoint.size, 2050);
}

#[test]
fn a_start_that_was_cut_short_can_be_repeated() {
    let directory = log_of(0);
    for left in [&["signing.key"][..], &["signing.key", "verifier"], &["signing.key", "verifier", "current"]] {
        let cut = copy_of(directory.path());
        for entry in fs::read_dir(cut.path()).unwrap() {
            let path = entry.unwrap().path();
            if !left.contains(&path.file_name().unwrap().to_str().unwrap()) {
                if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
            }
        }
        open(cut.path()).append(&[record(1)]).unwrap();
        assert_eq!(whole(cut.path()).checkpoint.size, 1);
    }
}

#[test]
fn a_disk_that_is_full_fails_the_append_and_the_log_goes_on_when_it_is_not() {
    let directory = TempDir::new().unwrap();
    let audit = open(directory.path());
    let written = audit.submit(&[record(1)]);
    audit.commit(&written).unwrap();
    let tickets = [audit.submit(&[record(2)]), audit.submit(&records(3..=4))];
    // /dev/full takes no byte and cannot be cut: the worst that can happen to a file.
    let full = || fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
    audit.replace_file(full());
    assert!(audit.commit(&tickets[0]).is_err());
    assert!(audit.commit(&tickets[1]).is_err());
    assert!(audit.is_failing());
    audit.commit(&written).unwrap();
    // The next append makes it whole from the file in its place.
    let later = audit.submit(&[record(5)]);
    audit.commit(&later).unwrap();
    assert!(!audit.is_failing());
    assert!(audit.commit(&tickets[1]).is_err());
    drop(audit);
    assert_eq!(whole(directory.path()).checkpoint.size, 2);
}

/// What was acknowledged and is not on disk may be gone after a sync that failed: then nothing is signed that was not
/// looked at, and nothing is acknowledged on top of it.
#[test]
fn a_log_whose_records_are_lost_stays_failed() {
    for durability in [Durability::Group, Durability::Strict] {
        let directory = TempDir::new().unwrap();
        let audit = Audit::open(directory.path(), durability).unwrap();
        audit.append(&records(1..=3)).unwrap();
        audit.publish().unwrap();
        // Written to a pipe, a record is nowhere; a sync of one is an error.
        let (_reader, pipe) = std::io::pipe().unwrap();
        let file = audit.replace_file(fs::File::from(std::os::fd::OwnedFd::from(pipe)));
        let appended = audit.append(&[record(4)]);
        assert_eq!(appended.is_ok(), durability == Durability::Group, "{appended:?}");
        assert!(audit.publish().is_err());
        let refused = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            audit.append(&[record(5)]).is_err()
        });
        assert!(refused && audit.is_failing());
        assert!(audit.append(&[record(6)]).is_err() && audit.publish().is_err());
        drop((file, audit));
        let verified = whole(directory.path());
        assert_eq!(verified.checkpoint.size + verified.unsigned, 3);
    }
}

#[test]
fn a_sync_that_failed_once_loses_nothing_and_needs_no_restart() {
    use std::os::unix::fs::MetadataExt;
    let directory = TempDir::new().unwrap();
    let audit = Audit::open(directory.path(), Durability::Strict).unwrap();
    audit.append(&records(1..=300)).unwrap();
    audit.publish().unwrap();
    audit.append(&records(1..=3)).unwrap();
    let inode = || fs::metadata(last_file(directory.path())).unwrap().ino();
    let before = inode();
    audit.fail_sync();
    audit.append(&[record(4)]).unwrap();
    assert!(before != inode() && !audit.is_failing());
    audit.append(&records(5..=6)).unwrap();
    drop(audit);
    assert_eq!(whole(directory.path()).checkpoint.size, 306);
}
