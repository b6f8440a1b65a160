//! AES-256-GCM on a buffer in place: the only file that knows the `aes_gcm` crate.
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

/// Length of the authentication tag in bytes.
pub(super) const TAG_LEN: usize = 16;

/// The AEAD would not do it: not authentic, or far too long. Says no more on purpose.
#[derive(Debug)]
pub(super) struct Rejected;

/// Encrypts `buffer` in place and returns the tag.
pub(super) fn encrypt(
    key: &[u8; 32],
    nonce: &[u8; 12],
    aad: &[u8],
    buffer: &mut [u8],
) -> Result<[u8; TAG_LEN], Rejected> {
    Aes256Gcm::new(key.into())
        .encrypt_inout_detached(nonce.into(), aad, buffer.into())
        .map(Into::into)
        .map_err(|_| Rejected)
}

/// Checks the tag, then decrypts `buffer` in place. On an error the buffer is as it was.
pub(super) fn decrypt(
    key: &[u8; 32],
    nonce: &[u8; 12],
    aad: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> Result<(), Rejected> {
    Aes256Gcm::new(key.into())
        .decrypt_inout_detached(nonce.into(), aad, buffer.into(), tag.into())
        .map_err(|_| Rejected)
}
