//! Master keys in a keyring file: for one machine, with no cloud.
//!
//! The file is TOML, mode 0600, rewritten whole (new file, fsync, rename, fsync of the directory) under a lock file
//! beside it, so several processes may share it. Every operation looks whether the file was replaced since it was
//! read, so a key that another process disables is refused here from then on. Key states are enforced as AWS KMS
//! enforces them. Who can read the file can open everything: see docs/threat-model.md.
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{
    DELETION_DAYS, DataKey, Decrypted, Encrypted, EncryptionContext, KeyArn, KeyDescription, KeyState, Kms, KmsError,
    KmsErrorClass, KmsFuture, Under,
};
use crate::crypto::keyring::{keyring_open, keyring_seal};

const VERSION: u32 = 1;
const PLAINTEXT_MAX: usize = 4096;
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Why a keyring cannot be used. Holds no content of the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// There is no such file.
    #[error("there is no keyring at {}", .0.display())]
    Missing(PathBuf),
    /// Others than the owner may read or write it.
    #[error("the keyring {} has mode {mode:04o}, so others can read it; run: chmod 600 {}", path.display(), path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a keyring, or damaged.
    #[error("{} is not a keyring of version {VERSION}, or it is damaged", .0.display())]
    Malformed(PathBuf),
    /// Reading, writing or locking failed.
    #[error("the keyring {} cannot be used: {kind}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        kind: io::ErrorKind,
    },
}

/// The keyring file as a [`Kms`].
///
/// # Secrets
/// Holds the master keys of all tenants; no Debug.
pub struct LocalKms {
    ring: Arc<Ring>,
}

struct Ring {
    path: PathBuf,
    loaded: RwLock<Loaded>,
}

struct Loaded {
    stamp: Stamp,
    keys: Arc<Keys>,
}

/// Which file it was: it changes with every rewrite.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Stamp {
    device: u64,
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
    bytes: u64,
}

type Keys = BTreeMap<KeyArn, MasterKey>;

#[derive(Clone)]
struct MasterKey {
    state: StoredState,
    tags: BTreeMap<String, String>,
    material: Arc<Zeroizing<[u8; 32]>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
enum StoredState {
    Enabled,
    Disabled,
    PendingDeletion { at_unix: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RingFile {
    version: u32,
    #[serde(default)]
    key: Vec<KeyEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    arn: String,
    material: String,
    state: StoredState,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

impl Drop for KeyEntry {
    fn drop(&mut self) {
        self.material.zeroize();
    }
}

impl LocalKms {
    /// Opens an existing keyring.
    ///
    /// # Errors
    /// [`KeyringError::Permissions`] when anyone but the owner may read it, and what else keeps it from being read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyringError> {
        let path = path.into();
        let (stamp, keys) = read(&path)?;
        let loaded = RwLock::new(Loaded { stamp, keys: Arc::new(keys) });
        Ok(LocalKms { ring: Arc::new(Ring { path, loaded }) })
    }

    /// Opens a keyring, or makes an empty one with mode 0600.
    ///
    /// # Errors
    /// As [`LocalKms::open`].
    pub fn open_or_create(path: impl Into<PathBuf>) -> Result<Self, KeyringError> {
        let path = path.into();
        let locked = lock(&path)?;
        if !path.exists() {
            replace(&path, &Keys::new())?;
        }
        drop(locked);
        Self::open(path)
    }

    async fn change<T, F>(&self, operation: &'static str, change: F) -> Result<T, KmsError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Keys) -> Result<T, KmsErrorClass> + Send + 'static,
    {
        let ring = self.ring.clone();
        let done = tokio::task::spawn_blocking(move || ring.change(change)).await;
        done.unwrap_or(Err(KmsErrorClass::Transient)).map_err(|class| failed(operation, class))
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

    fn current(&self, operation: &'static str) -> Result<Arc<Keys>, KmsError> {
        self.ring.current().map_err(|class| failed(operation, class))
    }
}

impl Ring {
    /// The keys as the file has them now.
    fn current(&self) -> Result<Arc<Keys>, KmsErrorClass> {
        let now = stamp_of(&self.path).map_err(unusable)?;
        {
            let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
            if loaded.stamp == now {
                return Ok(loaded.keys.clone());
            }
        }
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        let (stamp, keys) = read(&self.path).map_err(unusable)?;
        *loaded = Loaded { stamp, keys: Arc::new(keys) };
        Ok(loaded.keys.clone())
    }

    /// Reads, changes and rewrites the file while no other process does.
    fn change<T>(&self, change: impl FnOnce(&mut Keys) -> Result<T, KmsErrorClass>) -> Result<T, KmsErrorClass> {
        let locked = lock(&self.path).map_err(unusable)?;
        let (_, mut keys) = read(&self.path).map_err(unusable)?;
        let result = change(&mut keys)?;
        replace(&self.path, &keys).map_err(unusable)?;
        drop(locked);
        Ok(result)
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
            let keys = self.current("ListKeys")?;
            let found = keys.iter().filter(|(_, key)| key.tags.get(name).is_some_and(|v| v == value));
            Ok(found.map(|(arn, _)| arn.clone()).collect())
        })
    }

    fn generate_data_key<'a>(&'a self, key: &'a KeyArn, context: &'a EncryptionContext) -> KmsFuture<'a, DataKey> {
        Box::pin(async move {
            let make = |keys: &Keys| {
                let plaintext = random::<32>()?;
                let blob = wrap(keys, Under { key, context }, plaintext.as_ref())?;
                Ok(DataKey { plaintext, blob, request_id: request_id()? })
            };
            make(&*self.current("GenerateDataKey")?).map_err(|class| failed("GenerateDataKey", class))
        })
    }

    fn encrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        plaintext: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Encrypted> {
        Box::pin(async move {
            let make = |keys: &Keys| Ok((wrap(keys, Under { key, context }, plaintext)?, request_id()?));
            make(&*self.current("Encrypt")?).map_err(|class| failed("Encrypt", class))
        })
    }

    fn decrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        blob: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Decrypted> {
        Box::pin(async move {
            let make = |keys: &Keys| Ok((unwrap(keys, Under { key, context }, blob)?, request_id()?));
            make(&*self.current("Decrypt")?).map_err(|class| failed("Decrypt", class))
        })
    }

    fn re_encrypt<'a>(&'a self, source: Under<'a>, destination: Under<'a>, blob: &'a [u8]) -> KmsFuture<'a, Encrypted> {
        Box::pin(async move {
            let make = |keys: &Keys| {
                let plaintext = unwrap(keys, source, blob)?;
                Ok((wrap(keys, destination, &plaintext)?, request_id()?))
            };
            make(&*self.current("ReEncrypt")?).map_err(|class| failed("ReEncrypt", class))
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
        let days = days.clamp(*DELETION_DAYS.start(), *DELETION_DAYS.end());
        let at_unix = unix_now().saturating_add(u64::from(days) * DAY_SECONDS);
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
            let keys = self.current("DescribeKey")?;
            let entry = live(&keys, key).map_err(|class| failed("DescribeKey", class))?;
            let state = match entry.state {
                StoredState::Enabled => KeyState::Enabled,
                StoredState::Disabled => KeyState::Disabled,
                StoredState::PendingDeletion { .. } => KeyState::PendingDeletion,
            };
            Ok(KeyDescription { state, tags: entry.tags.clone().into_iter().collect() })
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

fn is_past(state: StoredState) -> bool {
    matches!(state, StoredState::PendingDeletion { at_unix } if at_unix <= unix_now())
}

fn read(path: &Path) -> Result<(Stamp, Keys), KeyringError> {
    let file = File::open(path).map_err(|e| io_error(path, &e))?;
    let metadata = file.metadata().map_err(|e| io_error(path, &e))?;
    check_mode(path, &metadata)?;
    let text = Zeroizing::new(io::read_to_string(&file).map_err(|e| io_error(path, &e))?);
    // The parser's error quotes the line it stumbles on, so it is dropped.
    let ring: RingFile = toml::from_str(&text).map_err(|_| KeyringError::Malformed(path.into()))?;
    if ring.version != VERSION {
        return Err(KeyringError::Malformed(path.into()));
    }
    let mut keys = Keys::new();
    for entry in ring.key.iter().filter(|entry| !is_past(entry.state)) {
        let material = decode(&entry.material).ok_or_else(|| KeyringError::Malformed(path.into()))?;
        let key = MasterKey { state: entry.state, tags: entry.tags.clone(), material: Arc::new(material) };
        keys.insert(KeyArn::new(entry.arn.as_str()), key);
    }
    Ok((stamp(&metadata), keys))
}

fn decode(material: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(STANDARD.decode(material).ok()?);
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return None;
    }
    key.copy_from_slice(&bytes);
    Some(key)
}

/// Puts a new file in the place of the old one, so that a crash leaves the one or the other whole.
fn replace(path: &Path, keys: &Keys) -> Result<(), KeyringError> {
    let key = keys.iter().map(|(arn, key)| KeyEntry {
        arn: arn.as_str().to_owned(),
        material: STANDARD.encode(key.material.as_slice()),
        state: key.state,
        tags: key.tags.clone(),
    });
    let ring = RingFile { version: VERSION, key: key.collect() };
    let text = Zeroizing::new(toml::to_string(&ring).map_err(|_| KeyringError::Malformed(path.into()))?);
    write_and_rename(path, text.as_bytes()).map_err(|e| io_error(path, &e))
}

fn write_and_rename(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Waits until no other process changes the keyring. Unlocked when the file is dropped.
fn lock(path: &Path) -> Result<File, KeyringError> {
    let open = || {
        let path = beside(path, ".lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|e| io_error(path, &e))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyringError> {
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyringError::Permissions { path: path.into(), mode });
    }
    Ok(())
}

fn stamp_of(path: &Path) -> Result<Stamp, KeyringError> {
    let metadata = fs::metadata(path).map_err(|e| io_error(path, &e))?;
    check_mode(path, &metadata)?;
    Ok(stamp(&metadata))
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec(),
        bytes: metadata.len(),
    }
}

fn io_error(path: &Path, error: &io::Error) -> KeyringError {
    match error.kind() {
        io::ErrorKind::NotFound => KeyringError::Missing(path.into()),
        kind => KeyringError::Io { path: path.into(), kind },
    }
}

fn unusable(error: KeyringError) -> KmsErrorClass {
    tracing::error!(%error, "keyring");
    KmsErrorClass::Transient
}

fn failed(operation: &'static str, class: KmsErrorClass) -> KmsError {
    KmsError { class, request_id: None, operation }
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

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
