//! Reads the records of a log in order: those that are signed from the bundles, those that are not yet from `current/`.
//! A proxy at work may write meanwhile.
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::checkpoint::Checkpoint;
use super::record;
use super::segment;
use super::tiles::Tiles;
use super::tree::TILE_WIDTH;
use super::verify::VerifyError;

const WIDTH: u64 = TILE_WIDTH as u64;

/// What comes next.
pub(super) enum Step {
    /// The next of the records that the checkpoint tells of.
    Signed(Vec<u8>),
    /// A record of those once more, as it still stands in `current/`.
    Kept {
        /// Its number.
        seq: u64,
        /// The record.
        entry: Vec<u8>,
    },
    /// The next of those after the checkpoint.
    Unsigned(Vec<u8>),
    /// That was all.
    End,
}

/// The records of a log.
pub(super) struct Records {
    tiles: Tiles,
    /// How many the checkpoint tells of.
    signed: u64,
    /// How many have come.
    count: u64,
    /// The rest of the bundle that is being read.
    bundle: VecDeque<Vec<u8>>,
    /// The files that are still to be read.
    files: Option<VecDeque<BufReader<File>>>,
    directory: std::path::PathBuf,
    /// A line that must wait for records before it.
    line: Option<(u64, Vec<u8>)>,
}

impl Records {
    /// Those of the log in `directory`, of which a checkpoint tells of the first `signed`.
    pub(super) fn new(directory: &Path, signed: u64) -> Records {
        Records {
            tiles: Tiles::new(directory),
            signed,
            count: 0,
            bundle: VecDeque::new(),
            files: None,
            directory: directory.to_owned(),
            line: None,
        }
    }

    /// Those of the log in `directory` and the checkpoint that is there now, whoever signed it.
    pub(super) fn at_present(directory: &Path) -> Result<Records, VerifyError> {
        let size = match std::fs::read_to_string(directory.join("checkpoint")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            note => Checkpoint::unverified(&note?).ok_or(super::NoteError::Form)?.size,
        };
        Ok(Records::new(directory, size))
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Result<Step, VerifyError> {
        if self.count < self.signed {
            return self.next_signed().map(Step::Signed);
        }
        if !self.bundle.is_empty() {
            return Err(VerifyError::Sequence { expected: self.count + 1, found: self.count });
        }
        let Some((seq, entry)) = self.next_line()? else { return Ok(Step::End) };
        let expected = self.count + 1;
        if seq < expected {
            return Ok(Step::Kept { seq, entry });
        }
        if seq == expected {
            self.count += 1;
            return Ok(Step::Unsigned(entry));
        }
        // The file that had it is gone: a proxy at work has made a bundle of it.
        let between = self.tiles.entries(self.count / WIDTH, (self.count % WIDTH) as usize + 1)?;
        let between = between.and_then(|mut entries| entries.pop());
        let between = between.ok_or(VerifyError::Sequence { expected, found: seq })?;
        self.line = Some((seq, entry));
        self.count += 1;
        Ok(Step::Unsigned(between))
    }

    fn next_signed(&mut self) -> Result<Vec<u8>, VerifyError> {
        if self.bundle.is_empty() {
            if !self.count.is_multiple_of(WIDTH) {
                return Err(VerifyError::Gap { seq: self.count + 1 });
            }
            let width = (self.signed - self.count).min(WIDTH) as usize;
            self.bundle = self.tiles.bundle(self.count / WIDTH, width)?.into();
        } else if self.count.is_multiple_of(WIDTH) {
            // More in the bundle than there can be.
            return Err(VerifyError::Sequence { expected: self.count + 1, found: self.count });
        }
        self.count += 1;
        self.bundle.pop_front().ok_or(VerifyError::Gap { seq: self.count })
    }

    fn next_line(&mut self) -> Result<Option<(u64, Vec<u8>)>, VerifyError> {
        if let Some(line) = self.line.take() {
            return Ok(Some(line));
        }
        if self.files.is_none() {
            self.files = Some(self.open_files()?);
        }
        let mut line = Vec::new();
        while let Some(file) = self.files.as_mut().and_then(|files| files.front_mut()) {
            file.read_until(b'\n', &mut line)?;
            // A proxy at work may be writing it, or a crash have cut it.
            if line.pop() == Some(b'\n') {
                let seq = record::seq_of(&line).ok_or(VerifyError::NotARecord { seq: self.count + 1 })?;
                return Ok(Some((seq, line)));
            }
            line.clear();
            self.files.as_mut().and_then(VecDeque::pop_front);
        }
        Ok(None)
    }

    fn open_files(&self) -> Result<VecDeque<BufReader<File>>, VerifyError> {
        let mut files = VecDeque::new();
        for segment in segment::list(&self.directory)? {
            match File::open(segment.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => files.push_back(BufReader::new(file?)),
            }
        }
        Ok(files)
    }
}
