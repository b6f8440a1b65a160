//! The key management service that holds the tenants' master keys.
//!
//! [`Kms`] is what the rest of the proxy knows of it; [`local`] keeps master keys in a keyring file, [`aws`] speaks to
//! AWS KMS, [`Recorded`] puts each call in the audit log, and [`Patient`] asks again when one fails in passing. A master key never leaves its provider: callers hold ARNs, wrapped blobs and, for a while, data keys.
//! Errors carry a class, an operation and a request id, never a value.
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::crypto::Dek;

pub mod aws;
pub mod local;
pub mod patient;
pub mod recorded;

pub use patient::Patient;
pub use recorded::{LogPlace, Recorded, Recorder};

/// What every operation of a [`Kms`] returns.
pub type KmsFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, KmsError>> + Send + 'a>>;

/// Names a master key for ever: an ARN, never an alias. Safe to store and to log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyArn(Arc<str>);

impl KeyArn {
    /// The name of a master key as it was stored.
    pub fn new(arn: impl Into<Arc<str>>) -> Self {
        KeyArn(arn.into())
    }

    /// The text that is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a blob is bound to: names and ids, in the order they were given.
///
/// It shows in clear in the service's own log, so it carries ids only. Two contexts are the same when they have the
/// same pairs, in whatever order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptionContext(Vec<(&'static str, String)>);

impl EncryptionContext {
    /// A context without pairs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more pair; a name given twice keeps the later value.
    #[must_use]
    pub fn with(mut self, name: &'static str, id: impl Into<String>) -> Self {
        self.0.retain(|(other, _)| *other != name);
        self.0.push((name, id.into()));
        self
    }

    /// The pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, id)| (*name, id.as_str()))
    }

    /// One unambiguous form: the pairs sorted by name, each part behind its length, so {a: bc} is not {ab: c}.
    pub fn canonical(&self) -> Vec<u8> {
        let mut pairs: Vec<_> = self.pairs().collect();
        pairs.sort_unstable();
        let mut out = Vec::new();
        for (name, id) in pairs {
            push_prefixed(&mut out, name.as_bytes());
            push_prefixed(&mut out, id.as_bytes());
        }
        out
    }
}

fn push_prefixed(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u64).to_be_bytes());
    out.extend_from_slice(part);
}

/// A fresh data key.
///
/// # Secrets
/// Holds the key itself; zeroized on drop, no Debug.
pub struct DataKey {
    /// The key.
    pub plaintext: Dek,
    /// The key under the master key; to be stored.
    pub blob: Bytes,
    /// The service's own name for the call, for the audit record.
    pub request_id: String,
}

/// What a decryption gives: the plaintext, and the request id for the audit record.
pub type Decrypted = (Zeroizing<Vec<u8>>, String);

/// What an encryption gives: the blob, and the request id for the audit record.
pub type Encrypted = (Bytes, String);

/// One side of a [`Kms::re_encrypt`]: a master key and the context the blob is bound to under it.
#[derive(Debug, Clone, Copy)]
pub struct Under<'a> {
    /// The master key.
    pub key: &'a KeyArn,
    /// The context.
    pub context: &'a EncryptionContext,
}

/// Whether a master key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Usable.
    Enabled,
    /// Refuses every use until it is enabled.
    Disabled,
    /// Will be deleted; refuses every use and cannot be enabled before the deletion is cancelled.
    PendingDeletion,
    /// In a state this proxy does not use; not usable.
    Unavailable,
}

/// A master key as the service describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDescription {
    /// Whether it can be used.
    pub state: KeyState,
    /// Its tags; they say whose key it is.
    pub tags: Vec<(String, String)>,
}

impl KeyDescription {
    /// The value of the tag `name`.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// The waiting period of a deletion, in days, that every provider accepts; other numbers are moved to its ends.
pub const DELETION_DAYS: std::ops::RangeInclusive<u8> = 7..=30;

fn deletion_days(days: u8) -> u8 {
    days.clamp(*DELETION_DAYS.start(), *DELETION_DAYS.end())
}

/// A key management service.
///
/// # Cancel safety
/// A dropped future may have had its effect. Look with [`Kms::find_by_tag`] or [`Kms::describe`] before repeating an
/// operation that is not idempotent.
pub trait Kms: Send + Sync {
    /// How long [`Kms::find_by_tag`] may not know of a key that was just made.
    fn settles_within(&self) -> Duration {
        Duration::ZERO
    }

    /// Creates a master key with these tags. It is never repeated inside: after a transient error the key may exist,
    /// so look for its tag before creating again.
    fn create_key<'a>(&'a self, tags: &'a [(String, String)]) -> KmsFuture<'a, KeyArn>;

    /// All master keys, in whatever state, whose tag `name` has this value.
    fn find_by_tag<'a>(&'a self, name: &'a str, value: &'a str) -> KmsFuture<'a, Vec<KeyArn>>;

    /// A fresh 32-byte key, and the same key wrapped under `key` and bound to `context`.
    fn generate_data_key<'a>(&'a self, key: &'a KeyArn, context: &'a EncryptionContext) -> KmsFuture<'a, DataKey>;

    /// Wraps at most 4,096 bytes under `key`, bound to `context`.
    fn encrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        plaintext: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Encrypted>;

    /// Unwraps a blob made under `key` with `context`; a blob of another key or context is refused.
    fn decrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        blob: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Decrypted>;

    /// Wraps again under another key or context what `blob` holds, without showing it to the caller.
    fn re_encrypt<'a>(&'a self, source: Under<'a>, destination: Under<'a>, blob: &'a [u8]) -> KmsFuture<'a, Encrypted>;

    /// Makes a key refuse every use; gives the request id.
    fn disable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String>;

    /// Makes a disabled key usable again; gives the request id.
    fn enable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String>;

    /// Schedules the deletion of a key after `days` (within [`DELETION_DAYS`]); gives the request id.
    fn schedule_deletion<'a>(&'a self, key: &'a KeyArn, days: u8) -> KmsFuture<'a, String>;

    /// Cancels a deletion; the key is then disabled. Gives the request id.
    fn cancel_deletion<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String>;

    /// State and tags of a key.
    fn describe<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, KeyDescription>;
}

/// What kind of refusal or failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KmsErrorClass {
    /// The key is disabled.
    Disabled,
    /// The key is pending deletion, or in another state in which the operation is not possible.
    PendingDeletion,
    /// There is no such key (any more).
    NotFound,
    /// This proxy may not use the key.
    AccessDenied,
    /// The context, the blob, the key it is claimed to be of, or another part of the request is wrong.
    WrongContextOrBlob,
    /// Credentials, region or endpoint are missing, or the service does not accept them.
    Credentials,
    /// Too many calls for now.
    Throttled,
    /// The service could not be reached, or failed.
    Transient,
    /// The call could not be recorded, so it counts as not made.
    Unrecorded,
}

impl KmsErrorClass {
    /// Whether it is an answer about the key or the blob, which will be the same again.
    pub fn is_definitive(self) -> bool {
        !self.is_passing() && !matches!(self, KmsErrorClass::Credentials | KmsErrorClass::Unrecorded)
    }

    /// Whether the same call may succeed in a moment.
    pub fn is_passing(self) -> bool {
        matches!(self, KmsErrorClass::Throttled | KmsErrorClass::Transient)
    }

    /// Whether the key itself is refused, so that everything cached of it must be dropped. A wrong blob does not
    /// count: a damaged cell must not take its tenant's keys away.
    pub fn revokes_key(self) -> bool {
        self.is_definitive() && self != KmsErrorClass::WrongContextOrBlob
    }

    fn text(self) -> &'static str {
        match self {
            KmsErrorClass::Disabled => "the key is disabled",
            KmsErrorClass::PendingDeletion => "the key is pending deletion or its state does not allow it",
            KmsErrorClass::NotFound => "there is no such key",
            KmsErrorClass::AccessDenied => "access to the key is denied",
            KmsErrorClass::WrongContextOrBlob => "the blob, its key or its context is wrong",
            KmsErrorClass::Credentials => "credentials, region or endpoint are missing or not accepted",
            KmsErrorClass::Throttled => "too many calls",
            KmsErrorClass::Transient => "the key service failed or could not be reached",
            KmsErrorClass::Unrecorded => "the call could not be recorded",
        }
    }
}

/// An operation of the key service that did not succeed. Holds no value of any request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsError {
    /// What kind it was.
    pub class: KmsErrorClass,
    /// The service's own name for the call, if it answered.
    pub request_id: Option<String>,
    /// The operation, in the service's own words (`Decrypt`).
    pub operation: &'static str,
    /// What kept the call from being made or answered; nothing of a request or an answer.
    pub cause: Option<Arc<str>>,
}

impl fmt::Display for KmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kms {}: {}", self.operation, self.class.text())?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, " ({cause})"))
    }
}

impl std::error::Error for KmsError {}

impl KmsError {
    /// An error without request id and cause.
    pub fn new(operation: &'static str, class: KmsErrorClass) -> Self {
        KmsError { class, request_id: None, operation, cause: None }
    }

    /// See [`KmsErrorClass::is_definitive`].
    pub fn is_definitive(&self) -> bool {
        self.class.is_definitive()
    }

    /// See [`KmsErrorClass::revokes_key`].
    pub fn revokes_key(&self) -> bool {
        self.class.revokes_key()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_told_apart_by_their_parts_and_not_by_order() {
        let split = EncryptionContext::new().with("a", "bc").canonical();
        assert_ne!(split, EncryptionContext::new().with("ab", "c").canonical());
        let one = EncryptionContext::new().with("a", "1").with("b", "2");
        let other = EncryptionContext::new().with("b", "2").with("a", "1");
        assert_eq!(one.canonical(), other.canonical());
    }

    #[test]
    fn only_failures_that_pass_are_worth_a_retry() {
        assert!(KmsErrorClass::AccessDenied.is_definitive() && !KmsErrorClass::AccessDenied.is_passing());
        assert!(!KmsErrorClass::Throttled.is_definitive() && KmsErrorClass::Throttled.is_passing());
        for class in [KmsErrorClass::Credentials, KmsErrorClass::Unrecorded] {
            assert!(!class.is_definitive() && !class.is_passing());
        }
        assert!(!KmsErrorClass::WrongContextOrBlob.revokes_key());
        assert!(KmsErrorClass::Disabled.revokes_key());
    }
}
