//! Wrapping under a master key of the keyring file.
//!
//! Each message has its own AES-256-GCM key, derived from the master key and 16 random bytes, so that one master key
//! may wrap as many data keys as a table has rows: random 96-bit nonces under one key would run out at 2^32.
//!
//! Layout: salt 16 ‖ nonce 12 ‖ ciphertext and tag.
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

const SALT: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;
/// How many bytes longer the sealed form is than the plaintext.
pub const KEYRING_OVERHEAD: usize = SALT + NONCE + TAG;
const LABEL: &[u8] = b"rowseal/v1/keyring";

/// Why a message was not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyringCryptoError {
    /// Damaged, of another key, or with other associated data.
    #[error("the wrapped key does not open")]
    Damaged,
}

/// Seals `plaintext` under `key`, authenticated together with `aad`.
///
/// # Errors
/// [`KeyringCryptoError::Damaged`] for a plaintext that is too large to be sealed.
pub fn keyring_seal(key: &[u8; 32], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyringCryptoError> {
    let mut out = vec![0; SALT + NONCE];
    super::fill_random(&mut out);
    let (salt, nonce) = out.split_at(SALT);
    let nonce = Nonce::try_from(nonce).map_err(|_| KeyringCryptoError::Damaged)?;
    let sealed =
        cipher(key, salt)?.encrypt(&nonce, Payload { msg: plaintext, aad }).map_err(|_| KeyringCryptoError::Damaged)?;
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// Opens what [`keyring_seal`] made.
///
/// # Errors
/// [`KeyringCryptoError::Damaged`] for every failed check.
///
/// # Secrets
/// The result is a key; it is zeroized on drop.
pub fn keyring_open(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyringCryptoError> {
    let (salt, rest) = sealed.split_at_checked(SALT).ok_or(KeyringCryptoError::Damaged)?;
    let (nonce, rest) = rest.split_at_checked(NONCE).ok_or(KeyringCryptoError::Damaged)?;
    let nonce = Nonce::try_from(nonce).map_err(|_| KeyringCryptoError::Damaged)?;
    let opened =
        cipher(key, salt)?.decrypt(&nonce, Payload { msg: rest, aad }).map_err(|_| KeyringCryptoError::Damaged)?;
    Ok(Zeroizing::new(opened))
}

fn cipher(key: &[u8; 32], salt: &[u8]) -> Result<Aes256Gcm, KeyringCryptoError> {
    let mut message_key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::from_prk(key)
        .map_err(|_| KeyringCryptoError::Damaged)?
        .expand_multi_info(&[LABEL, salt], message_key.as_mut())
        .map_err(|_| KeyringCryptoError::Damaged)?;
    Aes256Gcm::new_from_slice(message_key.as_ref()).map_err(|_| KeyringCryptoError::Damaged)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let key = [7; 32];
        let sealed = keyring_seal(&key, b"context", b"a key").unwrap();
        assert_eq!(sealed.len(), 5 + KEYRING_OVERHEAD);
        assert_eq!(keyring_open(&key, b"context", &sealed).unwrap().as_slice(), b"a key");
        assert_eq!(keyring_open(&key, b"contexT", &sealed), Err(KeyringCryptoError::Damaged));
        assert_eq!(keyring_open(&[8; 32], b"context", &sealed), Err(KeyringCryptoError::Damaged));
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            assert_eq!(keyring_open(&key, b"context", &broken), Err(KeyringCryptoError::Damaged));
            assert_eq!(keyring_open(&key, b"context", &sealed[..at]), Err(KeyringCryptoError::Damaged));
        }
    }
}
