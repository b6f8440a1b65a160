//! The same tree, tiles, notes and proofs as others make and read them: RFC 6962's own vectors, and the implementation of
//! c2sp.org/tlog-tiles and c2sp.org/signed-note in the crates tlog_tiles and signed_note.
use signed_note::{Note, StandardVerifier, Verifier, VerifierList};
use tlog_tiles::{HashReader, Tile, TileHashReader, TileReader};

use super::super::tree::{Tree, leaf};
use super::*;

/// Roots of the trees over the first n of eight inputs, from the reference implementation of Certificate Transparency.
#[test]
fn the_roots_are_those_of_certificate_transparency() {
    let inputs: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut tree = Tree::default();
    assert_eq!(crate::hex::encode(&tree.root().0), roots[0]);
    for (input, root) in inputs.iter().zip(&roots[1..]) {
        tree.push(leaf(input), |_| Ok::<_, ()>(())).unwrap();
        assert_eq!(crate::hex::encode(&tree.root().0), *root);
    }
}

/// The tiles of a log as the other implementation finds them: by its own paths.
struct Files<'a>(&'a Path);

impl TileReader for Files<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        // Theirs has the height in front, as the Go checksum database does.
        Ok(tiles.iter().map(|tile| fs::read(self.0.join(path_of(tile))).unwrap()).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

fn path_of(tile: &Tile) -> String {
    tile.path().replacen("tile/8/", "tile/", 1).replacen("/data/", "/entries/", 1)
}

fn checkpoint_as_others_read_it(directory: &Path) -> tlog_tiles::Checkpoint {
    let key = verifier(directory).unwrap();
    let theirs = StandardVerifier::new(&key.to_string()).unwrap();
    assert_eq!(theirs.name(), key.name());
    let note = Note::from_bytes(note(directory).as_bytes()).unwrap();
    let (signed, unsigned) = note.verify(&VerifierList::new(vec![Box::new(theirs)])).unwrap();
    assert_eq!((signed.len(), unsigned.len()), (1, 0));
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    assert_eq!(checkpoint.origin(), key.name());
    checkpoint
}

#[test]
fn checkpoints_tiles_and_proofs_hold_in_another_implementation() {
    for size in [1, 2, 255, 256, 257, 1000, 66_000] {
        let directory = log_of(size);
        let checkpoint = checkpoint_as_others_read_it(directory.path());
        assert_eq!(checkpoint.size(), size);
        let files = Files(directory.path());
        let hashes = TileHashReader::new(size, *checkpoint.hash(), &files);
        assert_eq!(tlog_tiles::tree_hash(size, &hashes).unwrap(), *checkpoint.hash());
        for index in [0, size / 3, size / 2, size - 1] {
            let proof = prove(directory.path(), index + 1).unwrap().unwrap();
            let theirs = tlog_tiles::prove_record(size, index, &hashes).unwrap();
            let ours: Vec<_> = proof.hashes.iter().map(|hash| tlog_tiles::Hash(hash.0)).collect();
            assert_eq!(ours, theirs);
            let record = tlog_tiles::record_hash(&proof.entry);
            tlog_tiles::check_record(&ours, size, *checkpoint.hash(), index, record).unwrap();
        }
        // The tiles that another would fetch for this size are all there, entries too.
        let exists = |tile: &Tile| assert!(directory.path().join(path_of(tile)).exists(), "{}", path_of(tile));
        for mut tile in Tile::new_tiles(8, 0, size) {
            exists(&tile);
            if tile.level() == 0 {
                tile.set_is_data();
                exists(&tile);
            }
        }
    }
}

#[test]
fn two_checkpoints_of_a_log_are_consistent_for_others_too() {
    let directory = log_of(300);
    let older = checkpoint_as_others_read_it(directory.path());
    open(directory.path()).append(&records(1..=700)).unwrap();
    let newer = checkpoint_as_others_read_it(directory.path());
    let files = Files(directory.path());
    let hashes = TileHashReader::new(newer.size(), *newer.hash(), &files);
    let proof = tlog_tiles::prove_tree(newer.size(), older.size(), &hashes).unwrap();
    tlog_tiles::check_tree(&proof, newer.size(), *newer.hash(), older.size(), *older.hash()).unwrap();
    let read: &dyn HashReader = &hashes;
    assert_eq!(read.read_hashes(&[0]).unwrap().len(), 1);
}

#[test]
fn a_note_of_another_implementation_is_read_as_they_read_it() {
    // The example of c2sp.org/signed-note's tests in Go: a key, a text, a signature.
    let key: VerifierKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
    let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    let signed = format!(
        "{text}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    );
    assert_eq!(key.open(&signed).unwrap(), text);
    assert!(StandardVerifier::new(&key.to_string()).is_ok());
    for bad in [
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+AhpcxQcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2Qc=",
        "PeterNeumann+c74f20a3",
        "",
    ] {
        assert!(bad.parse::<VerifierKey>().is_err(), "{bad}");
    }
}
