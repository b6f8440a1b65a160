//! Master keys in a keyring file: for one machine, with no cloud.
//!
//! The file is TOML, mode 0600, rewritten whole (new file, fsync, rename, fsync of the directory) under a lock file
//! beside it, so several processes may share it. Every operation looks whether the file was replaced since it was
//! read, so a key that another process disables is refused here from then on. Key states are enforced as AWS KMS
//! enforces them. Who can read the file can open everything: see docs/threat-model.md.
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use self::file::{Keys, MasterKey, Ring, StoredState, is_past, unix_now};
use super::{
    DataKey, Decrypted, Encrypted, EncryptionContext, KeyArn, KeyDescription, KeyState, Kms, KmsError, KmsErrorClass,
    KmsFuture, Under, deletion_days,
};
use crate::crypto::Dek;
use crate::crypto::keyring::{keyring_open, keyring_seal};

mod file;

pub use file::KeyringError;

const PLAINTEXT_MAX: usize = 4096;
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// The keyring file as a [`Kms`].
///
/// # Secrets
/// Holds the master keys of all tenants; no Debug.
pub struct LocalKms {
    ring: Arc<Ring>,
}

impl LocalKms {
    /// Opens an existing keyring.
    ///
    /// # Errors
    /// [`KeyringError::Permissions`] when anyone but the owner may read it, and what else keeps it from being read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyringError> {
        Ok(LocalKms { ring: Arc::new(Ring::open(path.into())?) })
    }

    /// Opens a keyring, or makes an empty one with mode 0600.
    ///
    /// # Errors
    /// As [`LocalKms::open`].
    pub fn open_or_create(path: impl Into<PathBuf>) -> Result<Self, KeyringError> {
        Ok(LocalKms { ring: Arc::new(Ring::open_or_create(path.into())?) })
    }

    async fn change<T, F>(&self, operation: &'static str, change: F) -> Result<T, KmsError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Keys) -> Result<T, KmsErrorClass> + Send + 'static,
    {
        let ring = self.ring.clone();
        let done = tokio::task::spawn_blocking(move || ring.change(change)).await;
        done.unwrap_or(Err(KmsErrorClass::Transient)).map_err(|class| KmsError::new(operation, class))
    }

    async fn set_state<F>(&self, operation: &'static str, key: &KeyArn, next: F) -> Result<String, KmsError>
    where
        F: FnOnce(StoredState) -> Result<StoredState, KmsErrorClass> + Send + 'static,
    {
        let key = key.clone();
        self.change(operation, move |keys| {
            let entry = keys.get_mut(&key).ok_or(KmsErrorClass::NotFound)?;
            entry.state = next(entry.state)?;
            request_id()
        })
        .await
    }

    /// Uses the keys as they are now in the file.
    fn with_keys<T>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&Keys) -> Result<T, KmsErrorClass>,
    ) -> Result<T, KmsError> {
        self.ring.current().and_then(|keys| act(&keys)).map_err(|class| KmsError::new(operation, class))
    }
}

impl Kms for LocalKms {
    fn create_key<'a>(&'a self, tags: &'a [(String, String)]) -> KmsFuture<'a, KeyArn> {
        let tags = tags.iter().cloned().collect();
        Box::pin(self.change("CreateKey", move |keys| {
            let arn = KeyArn::new(format!("local:key/{}", uuid::Uuid::from_bytes(*random::<16>()?)));
            let material = Arc::new(random::<32>()?);
            keys.insert(arn.clone(), MasterKey { state: StoredState::Enabled, tags, material });
            Ok(arn)
        }))
    }

    fn find_by_tag<'a>(&'a self, name: &'a str, value: &'a str) -> KmsFuture<'a, Vec<KeyArn>> {
        Box::pin(async move {
            self.with_keys("ListKeys", |keys| {
                let found = keys.iter().filter(|(_, key)| key.tags.get(name).is_some_and(|v| v == value));
                Ok(found.map(|(arn, _)| arn.clone()).collect())
            })
        })
    }

    fn generate_data_key<'a>(&'a self, key: &'a KeyArn, context: &'a EncryptionContext) -> KmsFuture<'a, DataKey> {
        Box::pin(async move {
            self.with_keys("GenerateDataKey", |keys| {
                let plaintext = Dek::random();
                let blob = wrap(keys, Under { key, context }, plaintext.expose())?;
                Ok(DataKey { plaintext, blob, request_id: request_id()? })
            })
        })
    }

    fn encrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        plaintext: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Encrypted> {
        Box::pin(async move {
            self.with_keys("Encrypt", |keys| Ok((wrap(keys, Under { key, context }, plaintext)?, request_id()?)))
        })
    }

    fn decrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        blob: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Decrypted> {
        Box::pin(async move {
            self.with_keys("Decrypt", |keys| Ok((unwrap(keys, Under { key, context }, blob)?, request_id()?)))
        })
    }

    fn re_encrypt<'a>(&'a self, source: Under<'a>, destination: Under<'a>, blob: &'a [u8]) -> KmsFuture<'a, Encrypted> {
        Box::pin(async move {
            self.with_keys("ReEncrypt", |keys| {
                let plaintext = unwrap(keys, source, blob)?;
                Ok((wrap(keys, destination, &plaintext)?, request_id()?))
            })
        })
    }

    fn disable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        Box::pin(self.set_state("DisableKey", key, |state| match state {
            StoredState::Enabled | StoredState::Disabled => Ok(StoredState::Disabled),
            StoredState::PendingDeletion { .. } => Err(KmsErrorClass::PendingDeletion),
        }))
    }

    fn enable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        Box::pin(self.set_state("EnableKey", key, |state| match state {
            StoredState::Enabled | StoredState::Disabled => Ok(StoredState::Enabled),
            StoredState::PendingDeletion { .. } => Err(KmsErrorClass::PendingDeletion),
        }))
    }

    fn schedule_deletion<'a>(&'a self, key: &'a KeyArn, days: u8) -> KmsFuture<'a, String> {
        let at_unix = unix_now().saturating_add(u64::from(deletion_days(days)) * DAY_SECONDS);
        Box::pin(self.set_state("ScheduleKeyDeletion", key, move |state| match state {
            StoredState::Enabled | StoredState::Disabled => Ok(StoredState::PendingDeletion { at_unix }),
            StoredState::PendingDeletion { .. } => Err(KmsErrorClass::PendingDeletion),
        }))
    }

    fn cancel_deletion<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        Box::pin(self.set_state("CancelKeyDeletion", key, |state| match state {
            StoredState::PendingDeletion { .. } => Ok(StoredState::Disabled),
            StoredState::Enabled | StoredState::Disabled => Err(KmsErrorClass::PendingDeletion),
        }))
    }

    fn describe<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, KeyDescription> {
        Box::pin(async move {
            self.with_keys("DescribeKey", |keys| {
                let entry = live(keys, key)?;
                let state = match entry.state {
                    StoredState::Enabled => KeyState::Enabled,
                    StoredState::Disabled => KeyState::Disabled,
                    StoredState::PendingDeletion { .. } => KeyState::PendingDeletion,
                };
                Ok(KeyDescription { state, tags: entry.tags.clone().into_iter().collect() })
            })
        })
    }
}

fn wrap(keys: &Keys, under: Under<'_>, plaintext: &[u8]) -> Result<Bytes, KmsErrorClass> {
    if plaintext.is_empty() || plaintext.len() > PLAINTEXT_MAX {
        return Err(KmsErrorClass::WrongContextOrBlob);
    }
    let key = usable(keys, under.key)?;
    let sealed = keyring_seal(&key.material, &aad(under), plaintext).map_err(|_| KmsErrorClass::Transient)?;
    Ok(sealed.into())
}

fn unwrap(keys: &Keys, under: Under<'_>, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, KmsErrorClass> {
    let key = usable(keys, under.key)?;
    keyring_open(&key.material, &aad(under), blob).map_err(|_| KmsErrorClass::WrongContextOrBlob)
}

fn aad(under: Under<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    super::push_prefixed(&mut out, under.key.as_str().as_bytes());
    out.extend_from_slice(&under.context.canonical());
    out
}

fn live<'k>(keys: &'k Keys, key: &KeyArn) -> Result<&'k MasterKey, KmsErrorClass> {
    let entry = keys.get(key).ok_or(KmsErrorClass::NotFound)?;
    if is_past(entry.state) { Err(KmsErrorClass::NotFound) } else { Ok(entry) }
}

fn usable<'k>(keys: &'k Keys, key: &KeyArn) -> Result<&'k MasterKey, KmsErrorClass> {
    let entry = live(keys, key)?;
    match entry.state {
        StoredState::Enabled => Ok(entry),
        StoredState::Disabled => Err(KmsErrorClass::Disabled),
        StoredState::PendingDeletion { .. } => Err(KmsErrorClass::PendingDeletion),
    }
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, KmsErrorClass> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut()).map_err(|_| KmsErrorClass::Transient)?;
    Ok(bytes)
}

/// A name for one call, as AWS gives one, so that audit records look the same with every provider.
fn request_id() -> Result<String, KmsErrorClass> {
    Ok(format!("local-{}", uuid::Uuid::from_bytes(*random::<16>()?)))
}
