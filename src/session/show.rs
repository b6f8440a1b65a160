//! How an opened value is shown: in the client's format, or as a part of a document, masked where its role is.
use zeroize::Zeroizing;

use crate::crypto::{self, IndexRoot};
use crate::hex;
use crate::policy::{Column, Mask, Read};
use crate::refusal::Refusal;
use crate::sql::inside::Kind;
use crate::types::{self, Format, LogicalType};

use super::facts::Facts;
use super::seal::bad_value;
use super::shown::Stand;

/// How a value is to be written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As a value of its own.
    Wire(Format),
    /// As a part of a document.
    Part(Kind),
}

/// Appends what stands in place of a cell as a value of the column: to a role that sees cells as the bytes of its text.
pub fn constant(
    column: &Column,
    stand: &Stand<'_>,
    how: How,
    facts: &Facts,
    out: &mut Vec<u8>,
) -> Result<bool, Refusal> {
    let logical = column.logical.without_modifier();
    let mut made = Zeroizing::new(Vec::new());
    let canonical = match stand {
        Stand::Literal(text) if facts.read == Read::Sealed => {
            as_bytea(text.as_bytes(), how, facts, out);
            return Ok(true);
        }
        Stand::Value(value) if facts.read == Read::Sealed => {
            render(logical, How::Wire(Format::Text), value, facts, &mut made)?;
            as_bytea(&made, how, facts, out);
            return Ok(true);
        }
        Stand::Literal(text) => {
            types::canonical(logical, Format::Text, text.as_bytes(), &facts.style, &mut made)
                .map_err(|error| bad_value(&error))?;
            &made[..]
        }
        Stand::Value(value) => value,
    };
    render(logical, how, canonical, facts, out)?;
    Ok(true)
}

/// Appends a canonical value as it is to be shown.
fn render(ty: LogicalType, how: How, canonical: &[u8], facts: &Facts, out: &mut Vec<u8>) -> Result<(), Refusal> {
    match how {
        How::Wire(format) => types::render(ty, format, canonical, &facts.style, out).map_err(|_| Refusal::damaged()),
        How::Part(kind) => {
            types::render_document(ty, kind, canonical, &facts.style, out).map_err(|error| bad_value(&error))
        }
    }
}

/// Appends what a text form of bytea, hex or escape, stands for.
pub fn bytea_text(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if let Some(digits) = text.strip_prefix(b"\\x") {
        return hex::decode_into(digits, out).then_some(());
    }
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [b'\\', after @ ..]) => {
                out.push(b'\\');
                rest = after;
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            (b'\\', _) => return None,
            (byte, after) => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    Some(())
}

/// Appends bytes as a bytea.
pub fn as_bytea(bytes: &[u8], how: How, facts: &Facts, out: &mut Vec<u8>) {
    let rendered = render(LogicalType::Bytea, how, bytes, facts, out);
    debug_assert!(rendered.is_ok(), "bytea always renders");
}

/// An opened value, and what its mask needs.
pub struct Opened<'a> {
    /// Its column.
    pub column: &'a Column,
    /// The value.
    pub plain: &'a crypto::Plaintext,
    /// The index root of its tenant, where the mask is a hash.
    pub root: Option<&'a IndexRoot>,
}

/// True when what the current role sees of a column is made with the index root of the value's tenant.
pub fn hashes(column: &Column, facts: &Facts) -> bool {
    facts.read == Read::Mask && column.mask == Mask::Hash
}

/// Appends an opened value as the client is to see it, masked where its role is; false for NULL.
pub fn show(opened: &Opened<'_>, how: How, facts: &Facts, out: &mut Vec<u8>) -> Result<bool, Refusal> {
    let Opened { column, plain, root } = opened;
    if facts.read == Read::Open {
        render(column.logical, how, plain.value(), facts, out)?;
        return Ok(true);
    }
    if column.mask == Mask::Null {
        return Ok(false);
    }
    let mut whole = Zeroizing::new(Vec::new());
    types::render(column.logical, Format::Text, plain.value(), &facts.style, &mut whole)
        .map_err(|_| Refusal::damaged())?;
    let text = std::str::from_utf8(&whole).map_err(|_| Refusal::damaged())?;
    let hash = || {
        let form = Zeroizing::new(types::token_form(column.logical, plain.value()).into_owned());
        root.map(|root| hex::encode(&crypto::mask_hash(root, column.token_scope(), &form)))
    };
    let masked = crate::policy::mask::apply(&column.mask, text, hash);
    let shown = masked.as_deref().unwrap_or_default().as_bytes();
    match how {
        How::Wire(_) => out.extend_from_slice(shown),
        How::Part(_) if masked.is_some() => types::json_string(shown, out),
        How::Part(_) => {}
    }
    Ok(masked.is_some())
}
