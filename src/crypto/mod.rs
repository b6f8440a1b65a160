//! The cell format and its cryptography; pure functions on bytes.
pub mod keyring;

use bytes::Bytes;

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

/// The data key of one row.
///
/// # Secrets
/// Zeroized on drop; no Debug, Clone or Serialize.
pub struct Dek(Box<zeroize::Zeroizing<[u8; 32]>>);

/// The key between master key and data keys in hierarchical mode.
///
/// # Secrets
/// Zeroized on drop; no Debug, Clone or Serialize.
pub struct BranchKey(Box<zeroize::Zeroizing<[u8; 32]>>);

/// The random key of a tenant from which its token keys are derived.
///
/// # Secrets
/// Zeroized on drop; no Debug, Clone or Serialize.
pub struct IndexRoot(Box<zeroize::Zeroizing<[u8; 32]>>);

/// An opened value: one type tag byte and the canonical value.
///
/// # Secrets
/// Zeroized on drop; no Debug, Clone or Serialize.
pub struct Plaintext {
    bytes: zeroize::Zeroizing<Vec<u8>>,
}
