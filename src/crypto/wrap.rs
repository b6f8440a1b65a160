//! BranchWrap a DEK under a branch key (hierarchical mode). In direct mode the KMS does it.
use zeroize::Zeroizing;

use super::aead::{self, TAG_LEN};
use super::{BranchKey, Dek, DekId, KeyId, OpenError, derive, random_bytes};

/// Length of a DEK wrapped under a branch key: iv 12, encrypted key 32, tag 16.
pub const WRAPPED_LEN: usize = 60;

/// A branch key made ready for many data keys.
///
/// # Secrets
/// As good as the key; to be dropped with the batch it is for. No Debug, Clone or Serialize.
pub struct BranchWrap(derive::Root);

impl BranchWrap {
    /// Makes a key ready.
    pub fn new(branch: &BranchKey) -> Self {
        BranchWrap(derive::Root::new(branch.expose()))
    }

    /// As [`wrap_dek`].
    pub fn wrap(&self, tenant: &str, key_id: KeyId, dek_id: DekId, dek: &Dek) -> [u8; WRAPPED_LEN] {
        let aad = derive::wrap_aad(tenant, &key_id, &dek_id);
        wrap_with_iv(&derive::wrap_key(&self.0, &dek_id), random_bytes(), &aad, dek)
    }

    /// As [`unwrap_dek`].
    ///
    /// # Errors
    /// [`OpenError::Damaged`] for every failed check.
    pub fn unwrap(&self, tenant: &str, key_id: KeyId, dek_id: DekId, wrapped: &[u8]) -> Result<Dek, OpenError> {
        let wrapped: &[u8; WRAPPED_LEN] = wrapped.try_into().map_err(|_| OpenError::Damaged)?;
        let (iv, rest) = wrapped.split_first_chunk::<12>().ok_or(OpenError::Damaged)?;
        let (encrypted, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(OpenError::Damaged)?;
        let mut dek = Dek(Box::new(Zeroizing::new([0; 32])));
        dek.0.copy_from_slice(encrypted);
        let aad = derive::wrap_aad(tenant, &key_id, &dek_id);
        aead::decrypt(&derive::wrap_key(&self.0, &dek_id), iv, &aad, dek.0.as_mut_slice(), tag)?;
        Ok(dek)
    }
}

/// Wraps a DEK under a tenant's branch key `key_id`.
pub fn wrap_dek(branch: &BranchKey, tenant: &str, key_id: KeyId, dek_id: DekId, dek: &Dek) -> [u8; WRAPPED_LEN] {
    BranchWrap::new(branch).wrap(tenant, key_id, dek_id, dek)
}

/// Unwraps a DEK that was wrapped for this tenant, key and data key id.
///
/// # Errors
/// [`OpenError::Damaged`] for every failed check.
pub fn unwrap_dek(
    branch: &BranchKey,
    tenant: &str,
    key_id: KeyId,
    dek_id: DekId,
    wrapped: &[u8],
) -> Result<Dek, OpenError> {
    BranchWrap::new(branch).unwrap(tenant, key_id, dek_id, wrapped)
}

/// The wrap itself. The iv is an argument for the test vectors' sake.
pub(super) fn wrap_with_iv(key: &[u8; 32], iv: [u8; 12], aad: &[u8], dek: &Dek) -> [u8; WRAPPED_LEN] {
    let mut wrapped = [0; WRAPPED_LEN];
    wrapped[..12].copy_from_slice(&iv);
    wrapped[12..44].copy_from_slice(dek.expose());
    let tag = aead::encrypt(key, &iv, aad, &mut wrapped[12..44]).expect("32 bytes are not too long");
    wrapped[44..].copy_from_slice(&tag);
    wrapped
}
