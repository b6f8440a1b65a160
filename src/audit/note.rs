//! Signed notes with Ed25519 (c2sp.org/signed-note): a text, and who signed it. The only home of ed25519_dalek.
use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::crypto::random_bytes;

/// The type of Ed25519 keys and signatures.
const ED25519: u8 = 1;
/// No note of ours comes near it.
const NOTE_BYTES_MAX: usize = 64 * 1024;

/// What is wrong with a key or a note.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoteError {
    /// A text that is not a verifier key.
    #[error("a verifier key is written as name+id+key")]
    VerifierKey,
    /// A file that does not hold a signing key.
    #[error("the file does not hold a signing key of a note")]
    SigningKey,
    /// A text that is not a signed note.
    #[error("not a signed note")]
    Form,
    /// No signature of the key that was asked for.
    #[error("not signed by {0}")]
    Unsigned(String),
    /// A signature that says it is of this key and is not.
    #[error("the signature of {0} is wrong")]
    Wrong(String),
}

/// Who may be believed: a name and a public key.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: VerifyingKey,
}

impl VerifierKey {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> [u8; 4] {
        id(&self.name, self.key.as_bytes())
    }

    /// The text of a note that this key has signed.
    ///
    /// # Errors
    /// [`NoteError`]; signatures of other keys are passed over.
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        if note.len() > NOTE_BYTES_MAX || note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(NoteError::Form);
        }
        let end = note.rfind("\n\n").ok_or(NoteError::Form)? + 1;
        let (text, signatures) = (&note[..end], &note[end + 1..]);
        if !signatures.ends_with('\n') {
            return Err(NoteError::Form);
        }
        let mut is_signed = false;
        for line in signatures.lines() {
            let line = line.strip_prefix("— ").ok_or(NoteError::Form)?;
            let (name, signature) = line.split_once(' ').ok_or(NoteError::Form)?;
            let signature = STANDARD.decode(signature).map_err(|_| NoteError::Form)?;
            let (key, signature) = signature.split_at_checked(4).ok_or(NoteError::Form)?;
            if name == self.name && key == self.id() {
                self.check(text, signature)?;
                is_signed = true;
            }
        }
        if is_signed { Ok(text) } else { Err(NoteError::Unsigned(self.name.clone())) }
    }

    fn check(&self, text: &str, signature: &[u8]) -> Result<(), NoteError> {
        let wrong = || NoteError::Wrong(self.name.clone());
        let signature = Signature::from_slice(signature).map_err(|_| wrong())?;
        self.key.verify_strict(text.as_bytes(), &signature).map_err(|_| wrong())
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ED25519], &self.key.as_bytes()[..]].concat());
        write!(f, "{}+{}+{key}", self.name, crate::hex::encode(&self.id()))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::VerifierKey);
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::VerifierKey)?;
        let Some((&ED25519, key)) = key.split_first() else { return Err(NoteError::VerifierKey) };
        let key: &[u8; 32] = key.try_into().map_err(|_| NoteError::VerifierKey)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| NoteError::VerifierKey)?;
        let key = VerifierKey { name: name.to_owned(), key };
        let fits = is_name(name) && !key.key.is_weak() && id == crate::hex::encode(&key.id());
        if fits { Ok(key) } else { Err(NoteError::VerifierKey) }
    }
}

/// Who signs.
///
/// # Secrets
/// Holds the private key, which is zeroized on drop; no Debug.
pub struct SigningKey {
    name: String,
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// The key in a file that only its owner can read; a new one, for `name`, if there is none. The key signs for `name`
    /// whoever it was made for.
    ///
    /// # Errors
    /// The disk, or a file with something else in it.
    pub fn open_or_create(path: &Path, name: &str) -> io::Result<SigningKey> {
        match std::fs::read_to_string(path) {
            Ok(text) => SigningKey::read(&Zeroizing::new(text), name)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => SigningKey::create(path, name),
            Err(error) => Err(error),
        }
    }

    fn create(path: &Path, name: &str) -> io::Result<SigningKey> {
        let seed = Zeroizing::new(random_bytes::<32>());
        let key = SigningKey { name: name.to_owned(), key: ed25519_dalek::SigningKey::from_bytes(&seed) };
        let secret = Zeroizing::new([&[ED25519], &seed[..]].concat());
        let encoded = Zeroizing::new(STANDARD.encode(&*secret));
        let id = crate::hex::encode(&key.verifier().id());
        let text = Zeroizing::new(format!("PRIVATE+KEY+{name}+{id}+{}\n", *encoded));
        let new = path.with_extension("new");
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Not over a key that another process has made meanwhile.
        std::fs::hard_link(&new, path)?;
        std::fs::remove_file(&new)?;
        Ok(key)
    }

    fn read(text: &str, name: &str) -> Result<SigningKey, NoteError> {
        let key = text.trim().splitn(5, '+').nth(4).filter(|_| text.starts_with("PRIVATE+KEY+"));
        let key =
            Zeroizing::new(STANDARD.decode(key.ok_or(NoteError::SigningKey)?).map_err(|_| NoteError::SigningKey)?);
        let Some((&ED25519, seed)) = key.split_first() else { return Err(NoteError::SigningKey) };
        let seed: &[u8; 32] = seed.try_into().map_err(|_| NoteError::SigningKey)?;
        Ok(SigningKey { name: name.to_owned(), key: ed25519_dalek::SigningKey::from_bytes(seed) })
    }

    /// The public part.
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// A note of this text, which ends with a newline.
    pub fn sign(&self, text: &str) -> String {
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let signature = STANDARD.encode([&self.verifier().id()[..], &signature].concat());
        format!("{text}\n— {} {signature}\n", self.name)
    }
}

fn id(name: &str, key: &[u8; 32]) -> [u8; 4] {
    let hash: [u8; 32] =
        Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key).finalize().into();
    [hash[0], hash[1], hash[2], hash[3]]
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+' || c.is_control())
}
