//! Equality tokens: equal values of one scope and one root have equal tokens, and nothing else can be computed
//! from them without the root.
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{IndexRoot, derive};

/// The searchable part of a cell.
///
/// Debug shows nothing: tokens of one column tell which rows are equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The key of all tokens of one scope, derived once for many values.
///
/// # Secrets
/// Zeroized on drop; no Debug, Clone or Serialize.
pub struct TokenKey(Zeroizing<[u8; 32]>);

impl TokenKey {
    /// Derives the key. `scope` is the column's binding or its join group (`policy::Column::token_scope`).
    pub fn derive(root: &IndexRoot, scope: &str) -> Self {
        Self(derive::token_key(root, scope))
    }

    /// The token of a canonical value.
    pub fn token(&self, canonical: &[u8]) -> Token {
        Token(authenticate(&self.0, canonical))
    }
}

/// The token of one canonical value: [`TokenKey::derive`] and [`TokenKey::token`] in one step.
pub fn token(root: &IndexRoot, scope: &str, canonical: &[u8]) -> Token {
    TokenKey::derive(root, scope).token(canonical)
}

/// What the `hash` mask shows of one canonical value: equal for equal values of one scope and one root, and nothing that
/// is stored anywhere.
pub fn mask_hash(root: &IndexRoot, scope: &str, canonical: &[u8]) -> [u8; 16] {
    authenticate(&derive::mask_key(root, scope), canonical)
}

/// The first 16 bytes of HMAC-SHA-256.
fn authenticate(key: &[u8; 32], canonical: &[u8]) -> [u8; 16] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(canonical);
    let full: [u8; 32] = mac.finalize().into_bytes().into();
    let mut first = [0; 16];
    first.copy_from_slice(&full[..16]);
    first
}
