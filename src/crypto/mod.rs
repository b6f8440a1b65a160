//! The cell format and its cryptography; pure functions on bytes.
//!
//! The stored bytes are described in `docs/format.md`, which is normative: where this code and that page differ, the
//! code is wrong. Start reading in `derive.rs`, the whole key derivation on one page, then `seal.rs` and `open.rs`.
//! This module imports nothing of ours, makes no I/O except for drawing random bytes, and its errors never say which
//! check failed.
mod aead;
mod cell;
mod derive;
pub mod keyring;
mod open;
mod padding;
mod random;
mod seal;
#[cfg(test)]
mod tests;
mod token;
mod wrap;

use std::fmt;

use bytes::Bytes;
use zeroize::{Zeroize, Zeroizing};

pub use cell::{CELL_LEN_MAX, CELL_LEN_MIN, Cell, Slot, looks_like_cell, replace_slot};
pub use open::{OpenError, check_token, open, open_with};
pub use padding::Padding;
pub use random::{fill_random, random_bytes};
pub use seal::{SealError, SealInput, seal, seal_with};
pub use token::{Token, TokenKey, mask_hash, token};
pub use wrap::{BranchWrap, WRAPPED_LEN, unwrap_dek, wrap_dek};

/// Identifies a data key: 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DekId(pub [u8; 16]);

/// Identifies a version of a master key or a branch key: 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 16]);

/// How a DEK in a slot is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WrapAlgorithm {
    /// 01: a KMS blob.
    Kms,
    /// 02: under a branch key.
    Branch,
}

/// The slot of a cell: all that rotation replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedSlot {
    /// The data key's id.
    pub dek_id: DekId,
    /// How it is wrapped.
    pub algorithm: WrapAlgorithm,
    /// Under which key.
    pub key_id: KeyId,
    /// The wrapped data key.
    pub wrapped: Bytes,
}

/// Where a cell belongs. Authenticated with it, so that a cell moved elsewhere does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The name of the tenant whose row it is.
    pub tenant: &'a str,
    /// The policy's column id (`policy::Column::binding`).
    pub column: &'a str,
}

/// The data key of one row.
///
/// # Secrets
/// Zeroized on drop; no Debug, Clone or Serialize.
pub struct Dek(Box<Zeroizing<[u8; 32]>>);

/// A data key made ready for the cells of its row.
///
/// # Secrets
/// As good as the key; to be dropped with it. No Debug, Clone or Serialize.
pub struct RowKey(derive::Root);

impl RowKey {
    /// Makes a key ready.
    pub fn new(dek: &Dek) -> Self {
        RowKey(derive::Root::new(dek.expose()))
    }
}

/// The key between master key and data keys in hierarchical mode.
///
/// # Secrets
/// Zeroized on drop; no Debug, Clone or Serialize.
pub struct BranchKey(Box<Zeroizing<[u8; 32]>>);

/// The random key of a tenant from which its token keys are derived.
///
/// # Secrets
/// Zeroized on drop; no Debug, Clone or Serialize.
pub struct IndexRoot(Box<Zeroizing<[u8; 32]>>);

/// An opened value: its type tag and the canonical value.
///
/// # Secrets
/// Zeroized on drop; no Debug, Clone or Serialize.
pub struct Plaintext {
    /// Type tag 1 ‖ value length 4 ‖ value, the padding already cut off. Made only by `open`, which checks this shape.
    bytes: Zeroizing<Vec<u8>>,
}

/// What is common to the three kinds of key: made from bytes or at random, and exposed by name only.
macro_rules! key_of_32_bytes {
    ($name:ident) => {
        impl $name {
            /// Takes the key's bytes and wipes the argument. The caller wipes other copies of its own, of which each move of
            /// an array makes one: where that matters, [`Self::from_slice`].
            pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
                let mut key = Self(Box::new(Zeroizing::new([0; 32])));
                key.0.copy_from_slice(&bytes);
                bytes.zeroize();
                key
            }

            /// Copies a key into a place of its own, where moving it leaves no copies behind; `None` for another length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                let mut key = Self(Box::new(Zeroizing::new([0; 32])));
                (bytes.len() == key.0.len()).then(|| key.0.copy_from_slice(bytes))?;
                Some(key)
            }

            /// A fresh key from the operating system's generator.
            pub fn random() -> Self {
                let mut key = Self(Box::new(Zeroizing::new([0; 32])));
                fill_random(key.0.as_mut_slice());
                key
            }

            /// The key itself, in place.
            ///
            /// # Secrets
            /// For wrapping and derivation only; a copy must be zeroized.
            pub fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }
    };
}

key_of_32_bytes!(Dek);
key_of_32_bytes!(BranchKey);
key_of_32_bytes!(IndexRoot);

/// What is common to the two kinds of id.
macro_rules! id_of_16_bytes {
    ($name:ident) => {
        impl $name {
            /// A fresh id.
            pub fn random() -> Self {
                Self(random_bytes())
            }
        }

        /// 32 lower-case hex digits.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

id_of_16_bytes!(DekId);
id_of_16_bytes!(KeyId);

impl Plaintext {
    /// Which logical type the value is of; the tags are given out by `types`.
    pub fn type_tag(&self) -> u8 {
        self.bytes.first().copied().unwrap_or_default()
    }

    /// The canonical value, without padding.
    pub fn value(&self) -> &[u8] {
        self.bytes.get(seal::PREFIX_LEN..).unwrap_or_default()
    }
}
