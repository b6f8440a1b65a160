//! Encryption contexts and tags: what the KMS is told about a key. Ids only; it shows in clear in the KMS's log.
use super::kms::EncryptionContext;
use crate::crypto::DekId;

/// Tag and context pair: whose key it is.
pub const TAG_TENANT: &str = "rowseal:tenant";
/// Tag: the intent that a key was created for.
pub const TAG_INTENT: &str = "rowseal:intent";
/// Tag: the installation that a key was created for.
pub const TAG_DATABASE: &str = "rowseal:database";

/// Context pair: the data key in direct mode.
pub const DEK: &str = "rowseal:dek";
/// Context pair: what another key is for.
pub const PURPOSE: &str = "rowseal:purpose";

/// Of a data key in direct mode.
pub fn dek(tenant: &str, dek_id: DekId) -> EncryptionContext {
    of(tenant).with(DEK, dek_id.to_string())
}

/// Of an index root.
pub fn index(tenant: &str) -> EncryptionContext {
    purpose(tenant, "index")
}

/// Of a branch key.
pub fn branch(tenant: &str) -> EncryptionContext {
    purpose(tenant, "branch")
}

/// Of the blob that is decrypted to see that a master key still can be used.
pub fn canary(tenant: &str) -> EncryptionContext {
    purpose(tenant, "canary")
}

/// Of the round trip that a new master key must pass.
pub fn verify(tenant: &str) -> EncryptionContext {
    purpose(tenant, "verify")
}

fn purpose(tenant: &str, purpose: &str) -> EncryptionContext {
    of(tenant).with(PURPOSE, purpose)
}

fn of(tenant: &str) -> EncryptionContext {
    EncryptionContext::new().with(TAG_TENANT, tenant)
}
