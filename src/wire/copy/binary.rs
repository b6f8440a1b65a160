//! The binary format: a header, rows of fields with their lengths, an end.
use bytes::{Bytes, BytesMut};

use super::{Bad, Field, Kind};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the extension.
const HEADER: usize = 19;
/// Of the flags, those that change what follows.
const CRITICAL: i32 = 0x7fff_0000;

/// How long the header is, or `None` while it is not all there.
pub(super) fn header(bytes: &[u8]) -> Result<Option<usize>, Bad> {
    let have = bytes.len().min(SIGNATURE.len());
    if bytes[..have] != SIGNATURE[..have] {
        return Err(Bad::Signature);
    }
    let Some(rest) = bytes.get(SIGNATURE.len()..HEADER) else { return Ok(None) };
    let number = |at: usize| rest.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
    let (Some(flags), Some(extension)) = (number(0), number(4)) else { return Err(Bad::FileHeader) };
    let extension = usize::try_from(extension).map_err(|_| Bad::FileHeader)?;
    if flags & CRITICAL != 0 {
        return Err(Bad::FileHeader);
    }
    Ok(if bytes.len() < HEADER + extension { None } else { Some(HEADER + extension) })
}

/// How far a row that starts here has been walked.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Bytes walked.
    at: usize,
    /// Fields still to come; `None` before their number was read.
    left: Option<u16>,
}

/// What stands at the start of some bytes.
pub(super) enum Found {
    /// More bytes are needed.
    Part,
    /// A row of so many bytes.
    Row(usize),
    /// The end of all rows.
    End,
}

impl Walk {
    /// Goes on as far as the bytes do.
    pub(super) fn go(&mut self, bytes: &[u8]) -> Result<Found, Bad> {
        let mut left = match self.left {
            Some(left) => left,
            None => {
                let Some(count) = bytes.first_chunk::<2>() else { return Ok(Found::Part) };
                match i16::from_be_bytes(*count) {
                    -1 => return Ok(Found::End),
                    count => {
                        self.at = 2;
                        u16::try_from(count).map_err(|_| Bad::Count)?
                    }
                }
            }
        };
        while left > 0 {
            self.left = Some(left);
            let Some(length) = bytes.get(self.at..).and_then(|rest| rest.first_chunk::<4>()) else {
                return Ok(Found::Part);
            };
            let length = match i32::from_be_bytes(*length) {
                -1 => 0,
                length => usize::try_from(length).map_err(|_| Bad::End)?,
            };
            if bytes.len() - self.at - 4 < length {
                return Ok(Found::Part);
            }
            self.at += 4 + length;
            left -= 1;
        }
        let length = self.at;
        *self = Walk::default();
        Ok(Found::Row(length))
    }
}

/// Appends the fields of a row.
pub(super) fn fields(row: &[u8], found: &mut Vec<Field>) -> Result<(), Bad> {
    let count = row.first_chunk::<2>().ok_or(Bad::End)?;
    let count = u16::from_be_bytes(*count);
    let mut at = 2;
    for _ in 0..count {
        let length = row.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(Bad::End)?;
        at += 4;
        let (length, kind) = match i32::from_be_bytes(*length) {
            -1 => (0, Kind::Null),
            length => (usize::try_from(length).map_err(|_| Bad::End)?, Kind::Bare),
        };
        let end = at.checked_add(length).filter(|end| *end <= row.len()).ok_or(Bad::End)?;
        found.push(Field { raw: at..end, kind });
        at = end;
    }
    if at == row.len() { Ok(()) } else { Err(Bad::End) }
}

/// What a header of binary rows is without flags or extension.
pub const FILE_HEADER: &[u8; HEADER] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What ends binary rows.
pub const FILE_END: [u8; 2] = (-1_i16).to_be_bytes();

/// Collects binary rows that come cut anywhere and gives them many at a time. A row is written as the body of a DataRow
/// is.
#[derive(Debug, Default)]
pub struct Tuples {
    buffer: BytesMut,
    is_headed: bool,
    is_over: bool,
    walk: Walk,
}

/// Binary rows, one behind the other.
#[derive(Debug, Default)]
pub struct Block {
    /// What stands before all rows, with the first of them.
    pub header: Option<Bytes>,
    /// Their bytes.
    bytes: BytesMut,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// True when no more will come.
    pub is_last: bool,
}

impl Tuples {
    /// Adds bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// All rows that are whole by now.
    ///
    /// # Errors
    /// [`Bad`] for what is not a row.
    pub fn take(&mut self) -> Result<Block, Bad> {
        let mut block = Block::default();
        if !self.is_headed {
            let Some(length) = header(&self.buffer)? else { return Ok(block) };
            self.is_headed = true;
            block.header = Some(self.buffer.split_to(length).freeze());
        }
        let mut start = 0;
        while !self.is_over {
            match self.walk.go(&self.buffer[start..])? {
                Found::Part => break,
                Found::Row(length) => {
                    start += length;
                    block.ends.push(start);
                }
                Found::End => {
                    (self.is_over, block.is_last) = (true, true);
                }
            }
        }
        block.bytes = self.buffer.split_to(start);
        if self.is_over {
            let rest = std::mem::take(&mut self.buffer).split_off(if block.is_last { FILE_END.len() } else { 0 });
            if !rest.is_empty() {
                return Err(Bad::Behind);
            }
        }
        Ok(block)
    }
}

impl Block {
    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let row = &self.bytes[start..*end];
            start = *end;
            row
        })
    }

    /// True when it holds no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}
