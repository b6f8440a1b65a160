//! Sealing: a value becomes a cell.
use super::aead::{self, TAG_LEN};
use super::cell::{self, CELL_LEN_MAX, HEADER_LEN, SLOT_FIXED_LEN};
use super::{Binding, Dek, OwnedSlot, Padding, RowKey, Token, derive};

/// Type tag 1 and value length 4, in front of the value.
pub(super) const PREFIX_LEN: usize = 5;

/// One value to be sealed and what surrounds it.
pub struct SealInput<'a> {
    /// Where the cell will belong.
    pub binding: Binding<'a>,
    /// Which logical type the value is of.
    pub type_tag: u8,
    /// The canonical value.
    pub value: &'a [u8],
    /// What equality finds it by; `None` where the column is not searchable.
    pub token: Option<Token>,
    /// How its length is hidden.
    pub padding: Padding,
    /// The slot that belongs to the data key.
    pub slot: &'a OwnedSlot,
}

/// Why a value could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The cell would be longer than Postgres can store.
    #[error("a sealed value of {value_len} bytes is too long to be stored")]
    TooLong {
        /// Of the value, in bytes.
        value_len: usize,
    },
    /// The slot has a wrapped key of a length that its algorithm cannot have.
    #[error("the wrapped data key has an impossible length")]
    BadSlot,
}

/// Seals one value: appends its cell to `out`. On an error `out` is as it was.
///
/// `nonce` must be fresh and random ([`super::random_bytes`]; drawn by the caller so that a batch costs one system
/// call). `dek` must be the key that `input.slot` wraps; that is not checked here. Layout: docs/format.md.
///
/// # Errors
/// [`SealError::TooLong`] and [`SealError::BadSlot`].
///
/// # Secrets
/// The value stands in `out` in clear only while this function runs, never in memory that is freed by growing `out`.
pub fn seal(input: &SealInput<'_>, dek: &Dek, nonce: [u8; 12], out: &mut Vec<u8>) -> Result<(), SealError> {
    seal_with(input, &RowKey::new(dek), nonce, out)
}

/// As [`seal`], with a key that seals several cells of a row.
///
/// # Errors
/// As [`seal`].
pub fn seal_with(input: &SealInput<'_>, key: &RowKey, nonce: [u8; 12], out: &mut Vec<u8>) -> Result<(), SealError> {
    let start = out.len();
    let sealed = append_cell(input, key, &nonce, out);
    if sealed.is_err() {
        out.truncate(start);
    }
    sealed
}

fn append_cell(input: &SealInput<'_>, key: &RowKey, nonce: &[u8; 12], out: &mut Vec<u8>) -> Result<(), SealError> {
    let too_long = SealError::TooLong { value_len: input.value.len() };
    let plaintext_len = input.padding.plaintext_len(input.value.len());
    let cell_len = cell_len(input, plaintext_len).filter(|len| *len <= CELL_LEN_MAX).ok_or(too_long)?;
    let value_len = u32::try_from(input.value.len()).map_err(|_| too_long)?;
    let keys = derive::cell_keys(&key.0, cell::SUITE, input.binding.column);
    let header = cell::header(input.padding != Padding::None, &[]);
    let aad = derive::cell_aad(&input.binding, &header, &[], &input.slot.dek_id);

    out.reserve(cell_len);
    out.extend_from_slice(&header);
    write_token(input.token.as_ref(), out);
    cell::write_slot(input.slot, out)?;
    out.extend_from_slice(nonce);
    out.extend_from_slice(&keys.commitment);
    let start = out.len();
    out.push(input.type_tag);
    out.extend_from_slice(&value_len.to_be_bytes());
    out.extend_from_slice(input.value);
    out.resize(start + plaintext_len, 0);
    let tag = aead::encrypt(&keys.encryption, nonce, &aad, &mut out[start..]).map_err(|_| too_long)?;
    out.extend_from_slice(&tag);
    Ok(())
}

/// Header bytes 6 and 7, then the token. Version 1 writes no extensions.
fn write_token(token: Option<&Token>, out: &mut Vec<u8>) {
    let token: &[u8] = token.map_or(&[], |token| &token.0);
    out.extend_from_slice(&[token.len() as u8, 0]);
    out.extend_from_slice(token);
}

fn cell_len(input: &SealInput<'_>, plaintext_len: usize) -> Option<usize> {
    let token_len = input.token.map_or(0, |token| token.0.len());
    let head = HEADER_LEN + token_len + SLOT_FIXED_LEN + input.slot.wrapped.len() + 12 + 32;
    plaintext_len.checked_add(head + TAG_LEN)
}
