//! Each attack that the threat model names is found, with a public key only.
use super::super::tiles::{Kind, Sync, Tiles, put_entry, replace, tile_of};
use super::super::tree::{TILE_WIDTH, Tree, leaf};
use super::*;

/// The entries of a log and what it takes to write them anew: all that somebody can do who has every file but the key.
struct Forger {
    directory: TempDir,
    entries: Vec<Vec<u8>>,
}

impl Forger {
    fn of(count: u64) -> Forger {
        let directory = log_of(count);
        fs::remove_dir_all(directory.path().join("current")).unwrap();
        whole(directory.path());
        let tiles = Tiles::new(directory.path());
        let mut entries = Vec::new();
        for index in 0..count.div_ceil(256) {
            let width = (count - index * 256).min(256) as usize;
            entries.extend(tiles.entries(index, width).unwrap().unwrap());
        }
        Forger { directory, entries }
    }

    /// Writes the bundles, and the hashes too if asked for.
    fn write(&self, is_hashing: bool) {
        let tiles = Tiles::new(self.directory.path());
        for (index, entries) in (0..).zip(self.entries.chunks(TILE_WIDTH)) {
            let mut bundle = Vec::new();
            assert!(entries.iter().all(|entry| put_entry(&mut bundle, entry)));
            tiles.write(Kind::Entries, index, entries.len(), &bundle).unwrap();
        }
        let mut tree = Tree::default();
        for entry in self.entries.iter().take_while(|_| is_hashing) {
            let write = |tile: tree::Tile<'_>| {
                tiles.write(Kind::Hashes(tile.level), tile.index, tile.hashes.len(), &tile_of(tile.hashes))
            };
            tree.push(leaf(entry), write).unwrap();
        }
        for tile in tree.partial() {
            tiles.write(Kind::Hashes(tile.level), tile.index, tile.hashes.len(), &tile_of(tile.hashes)).unwrap();
        }
    }

    fn replace(&mut self, at: usize, from: &str, to: &str) {
        let entry = String::from_utf8(self.entries[at].clone()).unwrap();
        assert!(entry.contains(from), "{entry}");
        self.entries[at] = entry.replacen(from, to, 1).into_bytes();
    }
}

/// Applies `tamper` to the records of a log, and says what is found: with the bundles written anew, and with all tiles.
fn tampered(tamper: impl Fn(&mut Forger)) -> [String; 2] {
    [false, true].map(|is_hashing| {
        let mut forger = Forger::of(600);
        tamper(&mut forger);
        forger.write(is_hashing);
        verify(forger.directory.path(), None, &[]).map_or_else(|fault| fault.to_string(), |_| "whole".to_owned())
    })
}

const NOT_SIGNED: &str = "the records are not those that were signed: their tree has another root";

#[test]
fn a_changed_record_is_named() {
    for at in [0, 1, 255, 256, 300, 599] {
        let found = tampered(|forger| forger.replace(at, "\"act\":\"open\"", "\"act\":\"seal\""));
        assert_eq!(found, [format!("record {} was changed", at + 1), NOT_SIGNED.to_owned()]);
    }
    let found = tampered(|forger| forger.replace(299, "\"act\":\"open\"", "\"act\" : \"open\""));
    assert_eq!(found[0], "record 300 was changed");
    let found = tampered(|forger| forger.entries[299] = b"{}".to_vec());
    assert_eq!(found, ["record 300: not a record"; 2]);
}

#[test]
fn a_removed_record_is_named() {
    let found = tampered(|forger| drop(forger.entries.remove(299)));
    assert_eq!(found, ["record 301 stands where record 300 belongs"; 2]);
    let found = tampered(|forger| drop(forger.entries.remove(0)));
    assert_eq!(found, ["record 2 stands where record 1 belongs"; 2]);
    // With all others numbered anew.
    let renumbered = tampered(|forger| {
        drop(forger.entries.remove(299));
        for at in 299..599 {
            forger.replace(at, &format!("\"seq\":{},", at + 2), &format!("\"seq\":{},", at + 1));
        }
    });
    assert_eq!(renumbered, ["record 300 was changed", NOT_SIGNED]);
}

#[test]
fn an_inserted_or_doubled_record_is_named() {
    let found = tampered(|forger| forger.entries.insert(300, forger.entries[299].clone()));
    assert_eq!(found, ["record 300 stands where record 301 belongs"; 2]);
    let found = tampered(|forger| {
        let forged = String::from_utf8(forger.entries[599].clone()).unwrap().replacen(":600,", ":601,", 1);
        forger.entries.push(forged.into_bytes());
    });
    // Beyond the checkpoint nothing is signed, and nothing beside `current/` counts.
    assert!(found.iter().all(|found| found == "whole"), "{found:?}");
}

#[test]
fn swapped_records_are_named() {
    let found = tampered(|forger| forger.entries.swap(299, 300));
    assert_eq!(found, ["record 301 stands where record 300 belongs"; 2]);
    let found = tampered(|forger| {
        forger.entries.swap(299, 300);
        forger.replace(299, "\"seq\":301,", "\"seq\":300,");
        forger.replace(300, "\"seq\":300,", "\"seq\":301,");
    });
    assert_eq!(found, ["record 300 was changed", NOT_SIGNED]);
}

#[test]
fn a_gap_is_named() {
    let found = tampered(|forger| fs::remove_file(forger.directory.path().join("tile/entries/001")).unwrap());
    // The forger writes it back.
    assert_eq!(found, ["whole"; 2]);
    let directory = log_of(600);
    fs::remove_file(directory.path().join("tile/entries/001")).unwrap();
    assert_eq!(fault(directory.path()), "records from 257 on are missing");
    let directory = log_of(600);
    fs::write(directory.path().join("tile/entries/001"), b"\x00\x02{}\xff").unwrap();
    assert_eq!(fault(directory.path()), "record 257: not a record");
}

#[test]
fn a_tile_of_hashes_that_is_not_the_records_is_named() {
    for (path, first, last) in [("tile/0/001", 257, 512), ("tile/0/002.p/88", 513, 600), ("tile/1/000.p/2", 1, 512)] {
        let directory = log_of(600);
        let path = directory.path().join(path);
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        let found = fault(directory.path());
        assert!(found.contains(&format!("records {first} to {last}")), "{found}");
        fs::remove_file(&path).unwrap();
        assert_eq!(fault(directory.path()), found);
    }
}

#[test]
fn a_line_that_still_stands_beside_the_bundles_is_compared_too() {
    let directory = log_of(5);
    let changed = lines(directory.path()).concat().replacen("\"rows\":3", "\"rows\":4", 1);
    fs::write(last_file(directory.path()), changed).unwrap();
    assert_eq!(fault(directory.path()), "record 3 was changed");
    let refused = Audit::open(directory.path(), Durability::Group).err().unwrap();
    assert!(matches!(refused, AuditError::Damaged(VerifyError::Changed { seq: 3 })), "{refused:?}");
}

#[test]
fn a_cut_tail_shows_against_a_checkpoint_that_was_kept() {
    let directory = log_of(300);
    let (older, kept) = (copy_of(directory.path()), {
        open(directory.path()).append(&records(1..=300)).unwrap();
        note(directory.path())
    });
    let verified = |directory: &Path| verify(directory, None, std::slice::from_ref(&kept));
    assert_eq!(verified(directory.path()).unwrap().checkpoint.size, 600);
    // An older state is whole by itself: it was once valid.
    put_back(older.path(), directory.path());
    assert_eq!(whole(directory.path()).checkpoint.size, 300);
    let found = verified(directory.path()).unwrap_err();
    assert!(matches!(found, VerifyError::Truncated { known: 600, found: 300 }), "{found}");
    // The proxy goes on from there, and signs another log of 600 records and more.
    open(directory.path()).append(&records(1..=299)).unwrap();
    assert!(matches!(verified(directory.path()), Err(VerifyError::Truncated { known: 600, found: 599 })));
    open(directory.path()).append(&[record(300)]).unwrap();
    whole(directory.path());
    assert!(matches!(verified(directory.path()), Err(VerifyError::Forked { size: 600 })));
    open(directory.path()).append(&records(1..=1000)).unwrap();
    assert!(matches!(verified(directory.path()), Err(VerifyError::Forked { size: 600 })));
}

#[test]
fn a_tail_that_was_cut_off_without_a_signature_shows_by_itself() {
    let directory = log_of(600);
    fs::remove_dir_all(directory.path().join("tile/entries/002.p")).unwrap();
    fs::remove_dir_all(directory.path().join("current")).unwrap();
    assert_eq!(fault(directory.path()), "records from 513 on are missing");
    assert!(Audit::open(directory.path(), Durability::Group).is_err());
    let directory = log_of(5);
    let kept = lines(directory.path())[..3].concat();
    fs::write(last_file(directory.path()), kept).unwrap();
    let refused = Audit::open(directory.path(), Durability::Group).err().unwrap();
    assert!(matches!(refused, AuditError::Damaged(VerifyError::Truncated { known: 5, found: 3 })), "{refused:?}");
}

#[test]
fn two_trees_of_one_size_with_good_signatures_are_a_fork() {
    let directory = log_of(10);
    let twin = copy_of(directory.path());
    open(directory.path()).append(&[record(1)]).unwrap();
    open(twin.path()).append(&[record(2)]).unwrap();
    whole(directory.path());
    whole(twin.path());
    let found = verify(directory.path(), None, &[note(twin.path())]).unwrap_err();
    assert!(matches!(found, VerifyError::Forked { size: 11 }), "{found}");
}

#[test]
fn a_checkpoint_that_is_not_signed_or_by_another_is_refused() {
    let (directory, other) = (log_of(5), log_of(5));
    let path = directory.path().join("checkpoint");
    let good = note(directory.path());
    let unsigned = good.lines().take(3).collect::<Vec<_>>().join("\n") + "\n\n";
    let own_name = verifier(directory.path()).unwrap();
    let other_name = verifier(other.path()).unwrap();
    let renamed = note(other.path()).replace(other_name.name(), own_name.name());
    let more = good.replacen("\n5\n", "\n6\n", 1);
    for bad in [unsigned.as_str(), &note(other.path()), &renamed, &more, "", &good.replace("— ", "- "), good.trim_end()]
    {
        fs::write(&path, bad).unwrap();
        let found = verify(directory.path(), None, &[]).unwrap_err();
        assert!(matches!(found, VerifyError::Note(_)), "{bad}: {found}");
        assert!(Audit::open(directory.path(), Durability::Group).is_err(), "{bad}");
        fs::write(&path, &good).unwrap();
        assert!(verify(directory.path(), None, &[bad.to_owned()]).is_err());
    }
    // Signatures of witnesses may stand beside the log's own.
    let witnessed = good.clone() + note(other.path()).lines().last().unwrap() + "\n";
    fs::write(&path, &witnessed).unwrap();
    whole(directory.path());
    fs::remove_file(&path).unwrap();
    assert_eq!(fault(directory.path()), "the log has no checkpoint: nothing in it is signed");
    assert!(Audit::open(directory.path(), Durability::Group).is_err());
}

#[test]
fn a_log_that_was_made_anew_with_another_key_does_not_pass_for_the_old_one() {
    let directory = log_of(5);
    let key = verifier(directory.path()).unwrap();
    let forged = log_of(5);
    let found = verify(forged.path(), Some(&key), &[]).unwrap_err();
    assert!(matches!(found, VerifyError::OtherLog { .. }), "{found}");
    // Also under the old one's name.
    let verifier_file = forged.path().join("verifier");
    fs::remove_dir_all(forged.path().join("tile")).unwrap();
    fs::remove_dir_all(forged.path().join("current")).unwrap();
    fs::remove_file(forged.path().join("checkpoint")).unwrap();
    let own = note::SigningKey::open_or_create(&forged.path().join("signing.key"), key.name()).unwrap();
    replace(&verifier_file, own.verifier().to_string().as_bytes(), Sync::Later).unwrap();
    open(forged.path()).append(&records(1..=5)).unwrap();
    whole(forged.path());
    let found = verify(forged.path(), Some(&key), &[]).unwrap_err();
    assert!(matches!(found, VerifyError::Note(NoteError::Unsigned(_))), "{found}");
}
