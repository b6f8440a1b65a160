//! Opening: a cell becomes a value again.
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::cell::{Cell, ensure};
use super::seal::PREFIX_LEN;
use super::{Binding, Dek, Plaintext, RowKey, Token, aead, derive};

/// Why stored bytes did not open. One variant on purpose: who can write cells must not learn which check they failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a cell, damaged, or of another key, tenant or column.
    #[error("a stored value is damaged or does not belong here")]
    Damaged,
}

impl From<aead::Rejected> for OpenError {
    fn from(_: aead::Rejected) -> Self {
        Self::Damaged
    }
}

/// Opens one cell.
///
/// `binding` (tenant and column) is authenticated with the bytes, so a cell pasted into another column fails
/// instead of giving a believable wrong value. Layout: docs/format.md.
///
/// The token is not looked at: only the caller knows whether the column is searchable and under which root. In a
/// searchable column the caller computes the token of the opened value and calls [`check_token`] before the value
/// goes anywhere.
///
/// # Errors
/// [`OpenError::Damaged`] for every failed check.
///
/// # Secrets
/// The result is plaintext: it goes to the client's buffer or is dropped, never logged.
pub fn open(cell: &Cell<'_>, binding: &Binding<'_>, dek: &Dek) -> Result<Plaintext, OpenError> {
    open_with(cell, binding, &RowKey::new(dek))
}

/// As [`open`], with a key that opens several cells of a row.
///
/// # Errors
/// As [`open`].
pub fn open_with(cell: &Cell<'_>, binding: &Binding<'_>, key: &RowKey) -> Result<Plaintext, OpenError> {
    let [.., suite, _flags] = *cell.header;
    let keys = derive::cell_keys(&key.0, suite, binding.column);
    ensure(keys.commitment.ct_eq(cell.commitment).into())?;
    let aad = derive::cell_aad(binding, cell.header, cell.extensions, &cell.slot().dek_id);
    let mut bytes = Zeroizing::new(cell.ciphertext.to_vec());
    aead::decrypt(&keys.encryption, cell.nonce, &aad, &mut bytes, cell.tag)?;
    let value_end = value_end(&bytes, cell.is_padded())?;
    bytes.truncate(value_end);
    Ok(Plaintext { bytes })
}

/// Checks that the cell of an opened value carries the token of that value. Whoever opens a cell of a searchable
/// column calls this: the token is outside what [`open`] authenticates.
///
/// # Errors
/// [`OpenError::Damaged`] when the token is another one or is missing. A caller that wants to read cells from before
/// the column became searchable asks `cell.token.is_some()` first.
pub fn check_token(cell: &Cell<'_>, expected: &Token) -> Result<(), OpenError> {
    ensure(cell.token_matches(expected))
}

/// Where the value ends in tag ‖ length ‖ value ‖ padding. What follows must be zero, or nothing if not padded.
fn value_end(plaintext: &[u8], padded: bool) -> Result<usize, OpenError> {
    let ([_type_tag, length @ ..], rest) = plaintext.split_first_chunk::<PREFIX_LEN>().ok_or(OpenError::Damaged)?;
    let value_len = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| OpenError::Damaged)?;
    let padding = rest.get(value_len..).ok_or(OpenError::Damaged)?;
    ensure(padding.is_empty() || padded)?;
    ensure(padding.iter().all(|byte| *byte == 0))?;
    Ok(PREFIX_LEN + value_len)
}
