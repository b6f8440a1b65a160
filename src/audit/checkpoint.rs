//! What a log says of itself, signed: how many records it has and the root of their tree (c2sp.org/tlog-checkpoint).
use super::note::{NoteError, SigningKey, VerifierKey};
use super::tree::Hash;

/// The state of a log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many records.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
}

impl Checkpoint {
    /// The note that says it.
    pub fn sign(&self, key: &SigningKey) -> String {
        key.sign(&format!("{}\n{}\n{}\n", self.origin, self.size, self.root.encode()))
    }

    /// What a note says that is signed by `key`, about the log of that name.
    ///
    /// # Errors
    /// [`NoteError`]: not a checkpoint, not signed by that key, or about another log.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Checkpoint, NoteError> {
        let checkpoint = Checkpoint::parse(key.open(note)?).ok_or(NoteError::Form)?;
        if checkpoint.origin == key.name() { Ok(checkpoint) } else { Err(NoteError::Unsigned(key.name().to_owned())) }
    }

    /// What a note says, whoever signed it: nothing to rely on.
    pub fn unverified(note: &str) -> Option<Checkpoint> {
        Checkpoint::parse(&note[..note.find("\n\n")? + 1])
    }

    fn parse(text: &str) -> Option<Checkpoint> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let number: u64 = size.parse().ok()?;
        let is_strict = !origin.is_empty() && number.to_string() == size && lines.all(|line| !line.is_empty());
        is_strict.then_some(Checkpoint { origin: origin.to_owned(), size: number, root: Hash::decode(root)? })
    }
}
