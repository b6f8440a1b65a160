//! The Merkle tree of RFC 6962, section 2.1, with SHA-256: hashes, roots, inclusion.
//!
//! Pure functions on hashes. [`Tree`] is what a writer or a verifier keeps while leaves come: of each level of tiles
//! the hashes of the tile that is not full yet, so a few kilobytes for any size.
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The width of a full tile.
pub const TILE_WIDTH: usize = 256;
/// How many levels of the tree one level of tiles spans.
const TILE_HEIGHT: u32 = 8;

/// A hash of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Base64, as checkpoints and proofs write it.
    pub fn encode(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// The hash that [`Hash::encode`] wrote; `None` for any other text.
    pub fn decode(text: &str) -> Option<Hash> {
        Some(Hash(STANDARD.decode(text).ok()?.try_into().ok()?))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.encode())
    }
}

/// The hash of an entry.
pub fn leaf(entry: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The hash of a tree whose leaves, or perfect subtrees of one size, have these hashes. The last may be smaller than the
/// others.
pub fn root_of(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => Hash(Sha256::digest([]).into()),
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(split(hashes.len() as u64) as usize);
            node(&root_of(left), &root_of(right))
        }
    }
}

/// The largest power of two below `n`, which is 2 or more.
pub fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// A tile: its level, its index there, its hashes.
pub struct Tile<'a> {
    /// 0 for leaves.
    pub level: usize,
    /// Which one of its level.
    pub index: u64,
    /// 1 to 256 hashes.
    pub hashes: &'a [Hash],
}

/// A tree as it grows.
#[derive(Clone, Default)]
pub struct Tree {
    size: u64,
    /// Of each level of tiles the hashes that are in no full tile.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// A tree of this size, from the hashes of its tiles that are not full.
    pub fn from_levels(size: u64, levels: Vec<Vec<Hash>>) -> Tree {
        Tree { size, levels }
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; `full` is told of each tile that becomes full thereby.
    ///
    /// # Errors
    /// What `full` returns. The tree must not be used any more then.
    pub fn push<E>(&mut self, leaf: Hash, mut full: impl FnMut(Tile<'_>) -> Result<(), E>) -> Result<(), E> {
        self.size += 1;
        let (mut hash, mut level) = (leaf, 0);
        loop {
            if level == self.levels.len() {
                self.levels.push(Vec::with_capacity(TILE_WIDTH));
            }
            let hashes = &mut self.levels[level];
            hashes.push(hash);
            if hashes.len() < TILE_WIDTH {
                return Ok(());
            }
            let index = self.size / width_of(level + 1) - 1;
            full(Tile { level, index, hashes })?;
            hash = root_of(hashes);
            hashes.clear();
            level += 1;
        }
    }

    /// The tiles that are not full.
    pub fn partial(&self) -> impl Iterator<Item = Tile<'_>> {
        let tile = |(level, hashes)| Tile { level, index: self.size / width_of(level + 1), hashes };
        self.levels.iter().map(Vec::as_slice).enumerate().filter(|(_, hashes)| !hashes.is_empty()).map(tile)
    }

    /// Its root.
    pub fn root(&self) -> Hash {
        let mut right: Option<Hash> = None;
        for hashes in &self.levels {
            right = match right {
                None if hashes.is_empty() => None,
                None => Some(root_of(hashes)),
                Some(right) => Some(root_of(&[hashes, &[right][..]].concat())),
            };
        }
        right.unwrap_or_else(|| root_of(&[]))
    }
}

/// How many leaves a hash in a tile of this level stands for. No tree comes near the levels where it would not fit.
pub fn width_of(level: usize) -> u64 {
    1u64.checked_shl(TILE_HEIGHT * level as u32).unwrap_or(u64::MAX)
}

/// The root that follows from a leaf at `index` of a tree of `size` leaves and its inclusion proof; `None` when the proof
/// is not one of that place (RFC 9162, section 2.1.3.2).
pub fn root_by_proof(leaf: Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut root) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            root = node(sibling, &root);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            root = node(&root, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}
