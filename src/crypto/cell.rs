//! A cell as bytes: parsed without copying, and encoded. No key is needed here. Layout: docs/format.md.
use bytes::Bytes;
use subtle::ConstantTimeEq;

use super::aead::TAG_LEN;
use super::seal::{PREFIX_LEN, SealError};
use super::{DekId, KeyId, OpenError, OwnedSlot, Token, WRAPPED_LEN, WrapAlgorithm};

/// The shortest cell in bytes: no token, no extensions, a one-byte blob and an empty value.
pub const CELL_LEN_MIN: usize = HEADER_LEN + SLOT_FIXED_LEN + 1 + 12 + 32 + PREFIX_LEN + TAG_LEN;

/// The longest cell in bytes: what a `bytea` can hold.
pub const CELL_LEN_MAX: usize = 0x3fff_fffb;

pub(super) const MAGIC: [u8; 3] = [0xC1, 0x52, 0x53];
pub(super) const VERSION: u8 = 1;
pub(super) const SUITE: u8 = 1;
pub(super) const FLAG_PADDED: u8 = 1;
pub(super) const FLAG_EXTENSIONS: u8 = 2;
pub(super) const HEADER_LEN: usize = 8;
/// dek_id, wrap algorithm, key_id and w.
pub(super) const SLOT_FIXED_LEN: usize = 16 + 1 + 16 + 2;
/// Extension types from here on must be understood, or the cell is not opened.
const CRITICAL: u8 = 0x80;

/// Whether bytes start as a cell does. No UTF-8 text does.
pub fn looks_like_cell(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// A well-formed cell, borrowed from the bytes it was parsed from. Nothing in it is authentic before [`super::open`].
pub struct Cell<'a> {
    /// Header bytes 0 to 5: magic, version, suite, flags. Authenticated as they stand.
    pub header: &'a [u8; 6],
    /// The equality token.
    pub token: Option<&'a [u8; 16]>,
    /// The extensions, well-formed and none of them critical.
    pub extensions: &'a [u8],
    slot: Slot<'a>,
    /// The AEAD nonce.
    pub nonce: &'a [u8; 12],
    /// The commitment to the DEK.
    pub commitment: &'a [u8; 32],
    /// The encrypted plaintext without its tag.
    pub ciphertext: &'a [u8],
    /// The AEAD tag.
    pub tag: &'a [u8; TAG_LEN],
}

/// The slot of a cell, borrowed.
#[derive(Clone, Copy)]
pub struct Slot<'a> {
    /// The data key's id.
    pub dek_id: DekId,
    /// How it is wrapped.
    pub algorithm: WrapAlgorithm,
    /// Under which key.
    pub key_id: KeyId,
    /// The wrapped data key.
    pub wrapped: &'a [u8],
}

impl<'a> Cell<'a> {
    /// Reads a cell strictly: every field in its bounds, nothing unknown that matters.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] for anything that is not a well-formed cell of version 1.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, OpenError> {
        let mut rest = Reader(bytes);
        let header: &[u8; 6] = rest.array()?;
        let [token_len, extensions_len] = *rest.array()?;
        check_header(header, extensions_len)?;
        let cell = Self {
            header,
            token: read_token(&mut rest, token_len)?,
            extensions: rest.take(usize::from(extensions_len))?,
            slot: read_slot(&mut rest)?,
            nonce: rest.array()?,
            commitment: rest.array()?,
            ciphertext: rest.take(rest.0.len().checked_sub(TAG_LEN).ok_or(OpenError::Damaged)?)?,
            tag: rest.array()?,
        };
        check_extensions(cell.extensions)?;
        ensure(cell.ciphertext.len() >= PREFIX_LEN)?;
        Ok(cell)
    }

    /// The slot: which key opens this cell. [`Slot::owned`] gives a copy that outlives the bytes.
    pub fn slot(&self) -> &Slot<'a> {
        &self.slot
    }

    /// Whether zero bytes may follow the value.
    pub fn is_padded(&self) -> bool {
        self.header[5] & FLAG_PADDED != 0
    }

    /// Whether the cell carries this token; compared in constant time. Without a token: false.
    pub fn token_matches(&self, token: &Token) -> bool {
        self.token.is_some_and(|own| own.ct_eq(&token.0).into())
    }

    /// Where the slot starts.
    fn slot_offset(&self) -> usize {
        HEADER_LEN + self.token.map_or(0, |token| token.len()) + self.extensions.len()
    }
}

impl OwnedSlot {
    /// Reads a slot that stands alone, as `rowseal.slot(cell)` gives it.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] for anything that is not exactly one well-formed slot.
    pub fn parse(bytes: &[u8]) -> Result<Self, OpenError> {
        let mut rest = Reader(bytes);
        let slot = read_slot(&mut rest)?;
        ensure(rest.0.is_empty())?;
        Ok(slot.owned())
    }

    /// As it stands in a cell; what `rowseal.with_slot(cell, slot)` takes.
    ///
    /// # Errors
    /// [`SealError::BadSlot`] for a wrapped key of a length that cannot be.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SealError> {
        let mut bytes = Vec::with_capacity(SLOT_FIXED_LEN + self.wrapped.len());
        write_slot(self, &mut bytes)?;
        Ok(bytes)
    }

    /// The same, borrowed.
    pub fn as_slot(&self) -> Slot<'_> {
        Slot { dek_id: self.dek_id, algorithm: self.algorithm, key_id: self.key_id, wrapped: &self.wrapped }
    }
}

impl Slot<'_> {
    /// A copy that outlives the cell's bytes.
    pub fn owned(&self) -> OwnedSlot {
        OwnedSlot {
            dek_id: self.dek_id,
            algorithm: self.algorithm,
            key_id: self.key_id,
            wrapped: Bytes::copy_from_slice(self.wrapped),
        }
    }

    fn len(&self) -> usize {
        SLOT_FIXED_LEN + self.wrapped.len()
    }
}

/// The cell with another slot: the same data key, wrapped anew. The payload is copied untouched, no key is needed.
///
/// # Errors
/// [`OpenError::Damaged`] when `cell` is no cell, or `new` is malformed or for another data key: the result would
/// never open.
pub fn replace_slot(cell: &[u8], new: &OwnedSlot) -> Result<Vec<u8>, OpenError> {
    let parsed = Cell::parse(cell)?;
    ensure(parsed.slot.dek_id == new.dek_id)?;
    let start = parsed.slot_offset();
    let payload = &cell[start + parsed.slot.len()..];
    let mut out = Vec::with_capacity(start + SLOT_FIXED_LEN + new.wrapped.len() + payload.len());
    out.extend_from_slice(&cell[..start]);
    write_slot(new, &mut out).map_err(|_| OpenError::Damaged)?;
    out.extend_from_slice(payload);
    Ok(out)
}

/// Header bytes 0 to 5.
pub(super) fn header(padded: bool, extensions: &[u8]) -> [u8; 6] {
    let [a, b, c] = MAGIC;
    let padded = if padded { FLAG_PADDED } else { 0 };
    let extended = if extensions.is_empty() { 0 } else { FLAG_EXTENSIONS };
    [a, b, c, VERSION, SUITE, padded | extended]
}

/// Writes the four fields of a slot; writes nothing on an error.
pub(super) fn write_slot(slot: &OwnedSlot, out: &mut Vec<u8>) -> Result<(), SealError> {
    let wrapped_len = u16::try_from(slot.wrapped.len()).map_err(|_| SealError::BadSlot)?;
    ensure(wrapped_len_fits(slot.algorithm, slot.wrapped.len())).map_err(|_| SealError::BadSlot)?;
    out.extend_from_slice(&slot.dek_id.0);
    out.push(algorithm_byte(slot.algorithm));
    out.extend_from_slice(&slot.key_id.0);
    out.extend_from_slice(&wrapped_len.to_be_bytes());
    out.extend_from_slice(&slot.wrapped);
    Ok(())
}

fn check_header(header: &[u8; 6], extensions_len: u8) -> Result<(), OpenError> {
    let [.., version, suite, flags] = *header;
    ensure(looks_like_cell(header) && version == VERSION && suite == SUITE)?;
    ensure(flags & !(FLAG_PADDED | FLAG_EXTENSIONS) == 0)?;
    ensure((flags & FLAG_EXTENSIONS != 0) == (extensions_len > 0))
}

fn read_token<'a>(rest: &mut Reader<'a>, token_len: u8) -> Result<Option<&'a [u8; 16]>, OpenError> {
    match token_len {
        0 => Ok(None),
        16 => rest.array().map(Some),
        _ => Err(OpenError::Damaged),
    }
}

fn read_slot<'a>(rest: &mut Reader<'a>) -> Result<Slot<'a>, OpenError> {
    let dek_id = DekId(*rest.array()?);
    let [algorithm] = *rest.array()?;
    let algorithm = parse_algorithm(algorithm)?;
    let key_id = KeyId(*rest.array()?);
    let wrapped_len = usize::from(u16::from_be_bytes(*rest.array()?));
    ensure(wrapped_len_fits(algorithm, wrapped_len))?;
    Ok(Slot { dek_id, algorithm, key_id, wrapped: rest.take(wrapped_len)? })
}

/// Type, length, value; types ascending, so each at most once. No critical type is known yet.
fn check_extensions(extensions: &[u8]) -> Result<(), OpenError> {
    let mut rest = Reader(extensions);
    let mut last = None;
    while !rest.0.is_empty() {
        let [kind, len] = *rest.array()?;
        rest.take(usize::from(len))?;
        ensure(kind < CRITICAL && last < Some(kind))?;
        last = Some(kind);
    }
    Ok(())
}

fn algorithm_byte(algorithm: WrapAlgorithm) -> u8 {
    match algorithm {
        WrapAlgorithm::Kms => 1,
        WrapAlgorithm::Branch => 2,
    }
}

fn parse_algorithm(byte: u8) -> Result<WrapAlgorithm, OpenError> {
    match byte {
        1 => Ok(WrapAlgorithm::Kms),
        2 => Ok(WrapAlgorithm::Branch),
        _ => Err(OpenError::Damaged),
    }
}

fn wrapped_len_fits(algorithm: WrapAlgorithm, len: usize) -> bool {
    match algorithm {
        WrapAlgorithm::Kms => len > 0,
        WrapAlgorithm::Branch => len == WRAPPED_LEN,
    }
}

pub(super) fn ensure(holds: bool) -> Result<(), OpenError> {
    if holds { Ok(()) } else { Err(OpenError::Damaged) }
}

/// What is left of some bytes; every read is checked against it.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], OpenError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(OpenError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], OpenError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(OpenError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }
}
