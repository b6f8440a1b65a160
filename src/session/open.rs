//! From rows of cells to the client's values. No I/O: [`Rows::needs`] says which keys a batch of rows needs,
//! [`Rows::open`] gives one row when they are there.
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;

use crate::audit::Act;
use crate::crypto::{self, Binding, Cell, DekId, IndexRoot};
use crate::keys::{Granted, KeyError, Need, OpenedDek, Tenant};
use crate::policy::{Column, Mask, OnKeyUnavailable, Read};
use crate::refusal::{Class, Refusal};
use crate::sql::plan::ResultColumn;
use crate::types::{self, Format};
use crate::wire::backend;

use super::facts::Facts;
use super::seal::{Use, index_tenant, other_tenant};

/// How the rows of one result are to be shown.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The plan's output columns.
    pub columns: Arc<[ResultColumn]>,
    /// The format codes the client asked for: none, one for all, or one each.
    pub formats: Vec<i16>,
    /// The format in which the server sends cells: text in a simple query, else binary.
    pub stored: Format,
    /// The session's facts when the statement was sent.
    pub facts: Arc<Facts>,
}

impl Shape {
    /// True when some column holds cells.
    pub fn is_sealed(&self) -> bool {
        self.columns.iter().any(|column| matches!(column, ResultColumn::Sealed { .. }))
    }

    /// The format code the client expects of a column.
    pub fn format(&self, column: usize) -> i16 {
        crate::wire::frontend::format_of(&self.formats, column)
    }
}

/// The keys in use while the rows of one result are opened.
#[derive(Default)]
pub struct Rows {
    deks: HashMap<DekId, Result<Arc<OpenedDek>, KeyError>>,
    index: HashMap<Tenant, Arc<IndexRoot>>,
    kms_requests: Vec<String>,
}

/// A stored value taken apart: the row's tenant, where the statement asked for it, and the cell.
struct Stored<'a> {
    tenant: Option<Cow<'a, [u8]>>,
    bytes: Cow<'a, [u8]>,
}

impl Rows {
    /// Lets go of all keys: after each batch, so that a revoked key stops at the next one.
    pub fn release(&mut self) {
        self.deks.clear();
        self.index.clear();
    }

    /// Adds what was granted.
    pub fn grant(&mut self, granted: Granted) {
        self.deks.extend(granted.open);
        self.index.extend(granted.index);
        self.kms_requests.extend(granted.kms_requests);
    }

    /// Takes the ids of the KMS requests made since the last call.
    pub fn take_requests(&mut self) -> Vec<String> {
        std::mem::take(&mut self.kms_requests)
    }

    /// Adds to `need` what this row needs beyond what is there. Data keys come first; once they are there a second
    /// call says which index roots their tenants need.
    ///
    /// # Errors
    /// XX001 for a value that is not a well-formed cell.
    pub fn needs(&self, shape: &Shape, values: &[Option<&[u8]>], need: &mut Need) -> Result<(), Refusal> {
        for (at, column) in sealed(shape) {
            let Some(Some(value)) = values.get(at) else { continue };
            let stored = stored(column, shape.stored, value)?;
            let cell = Cell::parse(&stored.bytes).map_err(|_| Refusal::damaged())?;
            let slot = cell.slot().owned();
            match self.deks.get(&slot.dek_id) {
                None if need.open.iter().any(|known| known.dek_id == slot.dek_id) => {}
                None => need.open.push(slot),
                Some(Ok(dek)) => {
                    let tenant = index_tenant(policy(column), &dek.tenant);
                    if cell.token.is_some() && !self.index.contains_key(&tenant) && !need.index.contains(&tenant) {
                        need.index.push(tenant);
                    }
                }
                Some(Err(_)) => {}
            }
        }
        Ok(())
    }

    /// Opens one row and appends it as a DataRow in the client's formats.
    ///
    /// # Errors
    /// A [`Refusal`]: nothing is appended then.
    ///
    /// # Secrets
    /// What is appended is plaintext for the client alone.
    pub fn open(
        &self,
        shape: &Shape,
        values: &[Option<&[u8]>],
        session: &Session<'_>,
        uses: &mut Vec<Use>,
        out: &mut BytesMut,
    ) -> Result<(), Refusal> {
        let mut shown: Vec<Option<Cow<'_, [u8]>>> = values.iter().map(|value| value.map(Cow::Borrowed)).collect();
        for (at, column) in sealed(shape) {
            let Some(Some(value)) = values.get(at) else { continue };
            let stored = stored(column, shape.stored, value)?;
            shown[at] = match session.facts.read {
                Read::Sealed => Some(as_bytea(&stored.bytes, shape.format(at), session.facts)),
                Read::Deny => return Err(denied(policy(column))),
                Read::Open | Read::Mask => {
                    self.value(column, &stored, shape.format(at), session, uses)?.map(Cow::Owned)
                }
            };
        }
        backend::put_data_row(out, shown.len(), shown.iter().map(|value| value.as_deref()));
        Ok(())
    }

    fn value(
        &self,
        column: &ResultColumn,
        stored: &Stored<'_>,
        format: i16,
        session: &Session<'_>,
        uses: &mut Vec<Use>,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let cell = Cell::parse(&stored.bytes).map_err(|_| Refusal::damaged())?;
        let slot = cell.slot().owned();
        let dek = match self.deks.get(&slot.dek_id) {
            Some(Ok(dek)) => dek,
            Some(Err(KeyError::Unavailable(_))) if session.on_unavailable == OnKeyUnavailable::Null => return Ok(None),
            Some(Err(error)) => return Err(key_refusal(error)),
            None => return Err(Refusal::damaged()),
        };
        if stored.tenant.as_ref().is_some_and(|tenant| **tenant != *dek.tenant.as_bytes()) {
            return Err(Refusal::damaged());
        }
        if session.facts.tenant.as_ref().is_some_and(|own| *own != dek.tenant) {
            return Err(other_tenant());
        }
        let plain = self.plaintext(&cell, policy(column), dek)?;
        record(uses, policy(column), dek, &slot);
        show(policy(column), &plain, format, session.facts)
    }

    fn plaintext(&self, cell: &Cell<'_>, column: &Column, dek: &OpenedDek) -> Result<crypto::Plaintext, Refusal> {
        let binding = Binding { tenant: &dek.tenant, column: &column.binding };
        let plain = crypto::open(cell, &binding, &dek.dek).map_err(|_| Refusal::damaged())?;
        if plain.type_tag() != column.logical.tag() {
            return Err(Refusal::damaged());
        }
        if cell.token.is_some() {
            let root = self.index.get(&index_tenant(column, &dek.tenant)).ok_or_else(Refusal::damaged)?;
            let token = crypto::token(root, column.token_scope(), &types::token_form(column.logical, plain.value()));
            if !cell.token_matches(&token) {
                return Err(Refusal::damaged());
            }
        }
        Ok(plain)
    }
}

/// What decides how a row is shown, beside its shape.
pub struct Session<'a> {
    /// The session's facts.
    pub facts: &'a Facts,
    /// What a row of a tenant whose key is unavailable gives.
    pub on_unavailable: OnKeyUnavailable,
}

fn sealed(shape: &Shape) -> impl Iterator<Item = (usize, &ResultColumn)> {
    shape.columns.iter().enumerate().filter(|(_, column)| matches!(column, ResultColumn::Sealed { .. }))
}

#[expect(clippy::unreachable, reason = "callers pass what `sealed` filtered")]
fn policy(column: &ResultColumn) -> &Arc<Column> {
    match column {
        ResultColumn::Sealed { column, .. } => column,
        ResultColumn::Plain => unreachable!("a plain column has no policy"),
    }
}

/// Decodes the server's form of a stored value and takes the tenant off its front. The form of
/// `rowseal.with_tenant`: a length of four bytes (negative for NULL), the tenant, the cell.
fn stored<'a>(column: &ResultColumn, format: Format, value: &'a [u8]) -> Result<Stored<'a>, Refusal> {
    let bytes = match format {
        Format::Binary => Cow::Borrowed(value),
        Format::Text => Cow::Owned(bytea_text(value).ok_or_else(Refusal::damaged)?),
    };
    if !matches!(column, ResultColumn::Sealed { with_tenant: true, .. }) {
        return Ok(Stored { tenant: None, bytes });
    }
    let start = bytes.first_chunk::<4>().ok_or_else(Refusal::damaged)?;
    let length = usize::try_from(i32::from_be_bytes(*start)).map_err(|_| Refusal::damaged())?;
    let tenant = bytes.get(4..4 + length).ok_or_else(Refusal::damaged)?.to_vec();
    let cell = bytes[4 + length..].to_vec();
    Ok(Stored { tenant: Some(Cow::Owned(tenant)), bytes: Cow::Owned(cell) })
}

/// Reads the text form of bytea, hex or escape.
fn bytea_text(text: &[u8]) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix(b"\\x") {
        let pairs = digits.as_chunks::<2>();
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
        let bytes = pairs.0.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        return if pairs.1.is_empty() { bytes.collect() } else { None };
    }
    let mut out = Vec::with_capacity(text.len());
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
    Some(out)
}

fn as_bytea(bytes: &[u8], format: i16, facts: &Facts) -> Cow<'static, [u8]> {
    if format == 1 {
        return Cow::Owned(bytes.to_vec());
    }
    let mut out = Vec::new();
    let rendered = types::render(types::LogicalType::Bytea, Format::Text, bytes, &facts.style, &mut out);
    debug_assert!(rendered.is_ok(), "bytea always renders");
    Cow::Owned(out)
}

fn show(column: &Column, plain: &crypto::Plaintext, format: i16, facts: &Facts) -> Result<Option<Vec<u8>>, Refusal> {
    let mut out = Vec::with_capacity(plain.value().len() + 8);
    let wire = if format == 1 { Format::Binary } else { Format::Text };
    if facts.read == Read::Open {
        types::render(column.logical, wire, plain.value(), &facts.style, &mut out).map_err(|_| Refusal::damaged())?;
        return Ok(Some(out));
    }
    if column.mask == Mask::Null {
        return Ok(None);
    }
    types::render(column.logical, Format::Text, plain.value(), &facts.style, &mut out)
        .map_err(|_| Refusal::damaged())?;
    let text = zeroize::Zeroizing::new(String::from_utf8(out).map_err(|_| Refusal::damaged())?);
    Ok(crate::policy::mask::apply(&column.mask, &text).map(String::into_bytes))
}

fn record(uses: &mut Vec<Use>, column: &Column, dek: &OpenedDek, slot: &crypto::OwnedSlot) {
    let key = Some(slot.key_id);
    let at = uses.iter().position(|u| u.key == key && u.tenant == dek.tenant);
    let at = at.unwrap_or_else(|| {
        uses.push(Use { act: Act::Open, tenant: dek.tenant.clone(), key, dek_ids: vec![], columns: vec![] });
        uses.len() - 1
    });
    if uses[at].dek_ids.last() != Some(&slot.dek_id) {
        uses[at].dek_ids.push(slot.dek_id);
    }
    if !uses[at].columns.iter().any(|known| **known == *column.qualified) {
        uses[at].columns.push(column.qualified.as_str().into());
    }
}

/// The refusal of a sealed column to a role that may not see it.
pub fn denied(column: &Column) -> Refusal {
    Refusal::new(Class::Denied, format!("permission denied for sealed column {}", column.qualified))
}

/// What a client is told when a key cannot be had.
pub fn key_refusal(error: &KeyError) -> Refusal {
    match error {
        KeyError::UnknownTenant(_) => Refusal::new(Class::KeyUnavailable, error.to_string())
            .hint("Register it with: rowseal tenant register NAME."),
        KeyError::Unavailable(_) => Refusal::new(Class::KeyUnavailable, error.to_string()),
        KeyError::UnknownKey | KeyError::Damaged => Refusal::damaged(),
        KeyError::Unreachable => Refusal::new(Class::Unreachable, error.to_string()).hint("Try again."),
    }
}
