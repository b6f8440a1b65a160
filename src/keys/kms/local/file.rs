//! The keyring file itself: who may read it, how it is read and how it is replaced.
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::super::{KeyArn, KmsErrorClass};

const VERSION: u32 = 1;

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

pub(super) struct Ring {
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

pub(super) type Keys = BTreeMap<KeyArn, MasterKey>;

#[derive(Clone)]
pub(super) struct MasterKey {
    pub(super) state: StoredState,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) material: Arc<Zeroizing<[u8; 32]>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub(super) enum StoredState {
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

impl Ring {
    /// An existing keyring.
    pub(super) fn open(path: PathBuf) -> Result<Self, KeyringError> {
        // A rewrite renames onto the path, so it must be the file's own and not that of a link to it.
        let path = fs::canonicalize(&path).map_err(|e| io_error(&path, &e))?;
        let (stamp, keys) = read(&path)?;
        let loaded = RwLock::new(Loaded { stamp, keys: Arc::new(keys) });
        Ok(Ring { path, loaded })
    }

    /// A keyring, made empty if there is none.
    pub(super) fn open_or_create(path: PathBuf) -> Result<Self, KeyringError> {
        // Only "not found" means that there is none: any other error must not end in an empty keyring over a full one.
        let is_missing = || match fs::symlink_metadata(&path) {
            Ok(_) => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(e) => Err(io_error(&path, &e)),
        };
        if is_missing()? {
            let locked = lock(&path)?;
            if is_missing()? {
                replace(&path, &Keys::new())?;
            }
            drop(locked);
        }
        Self::open(path)
    }

    /// The keys as the file has them now.
    pub(super) fn current(&self) -> Result<Arc<Keys>, KmsErrorClass> {
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
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut Keys) -> Result<T, KmsErrorClass>,
    ) -> Result<T, KmsErrorClass> {
        let locked = lock(&self.path).map_err(unusable)?;
        let (_, mut keys) = read(&self.path).map_err(unusable)?;
        let result = change(&mut keys)?;
        replace(&self.path, &keys).map_err(unusable)?;
        drop(locked);
        Ok(result)
    }
}

pub(super) fn is_past(state: StoredState) -> bool {
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
        if keys.insert(KeyArn::new(entry.arn.as_str()), key).is_some() {
            return Err(KeyringError::Malformed(path.into()));
        }
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

pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
