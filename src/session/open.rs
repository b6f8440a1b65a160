//! From rows of cells to the client's values. No I/O: a [`Batch`] of rows says which keys it needs, and is opened when
//! they are there.
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use zeroize::{Zeroize, Zeroizing};

use crate::audit::Act;
use crate::crypto::{self, Binding, Cell, DekId, IndexRoot, Slot};
use crate::hex;
use crate::keys::{AtHand, Granted, KeyError, Need, OpenedDek, Tenant};
use crate::policy::{Column, Mask, OnKeyUnavailable, Read};
use crate::refusal::{Class, Refusal};
use crate::sql::plan::{CONSTANT, ResultColumn, RowTenant};
use crate::types::{self, Format};
use crate::wire::backend;
use crate::wire::frame::Malformed;
use crate::wire::frontend::put_value;

use super::facts::Facts;
use super::seal::{Use, bad_value, index_tenant, other_tenant};

/// How the rows of one result are to be shown.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The plan's output columns.
    pub columns: Arc<[ResultColumn]>,
    /// How many columns the server sends behind them that the client is not to see.
    pub hidden: usize,
    /// The format codes the client asked for: none, one for all, or one each.
    pub formats: Vec<i16>,
    /// The format in which the server sends cells.
    pub stored: Stored,
    /// The session's facts when the statement was sent.
    pub facts: Arc<Facts>,
}

/// The format in which the server sends cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Text: in a simple query.
    Text,
    /// Binary: the proxy asked for it.
    Binary,
    /// The one that the client asked for: from a cursor.
    AsAsked,
}

impl Shape {
    /// The format in which the server sends the cells of a column.
    pub fn stored(&self, column: usize) -> Format {
        match self.stored {
            Stored::Text => Format::Text,
            Stored::Binary => Format::Binary,
            Stored::AsAsked if self.format(column) == 1 => Format::Binary,
            Stored::AsAsked => Format::Text,
        }
    }

    /// True when some column holds cells.
    pub fn is_sealed(&self) -> bool {
        self.columns.iter().any(|column| matches!(column, ResultColumn::Sealed { .. }))
    }

    /// The format code the client expects of a column.
    pub fn format(&self, column: usize) -> i16 {
        crate::wire::frontend::format_of(&self.formats, column)
    }
}

/// The keys that were waited for while the rows of one result are opened, and the index roots in use.
#[derive(Default)]
pub struct Rows {
    waited: HashMap<DekId, Result<Arc<OpenedDek>, KeyError>>,
    roots: Vec<(Tenant, Arc<IndexRoot>)>,
    kms_requests: Vec<String>,
}

impl Rows {
    /// Lets go of all keys: after each batch, so that a revoked key stops at the next one.
    pub fn release(&mut self) {
        self.waited.clear();
        self.roots.clear();
    }

    /// Adds what was granted.
    pub fn grant(&mut self, granted: Granted) {
        self.waited.extend(granted.open);
        self.roots.extend(granted.index);
        self.kms_requests.extend(granted.kms_requests);
    }

    /// Takes the ids of the KMS requests made since the last call.
    pub fn take_requests(&mut self) -> Vec<String> {
        std::mem::take(&mut self.kms_requests)
    }

    fn dek(&self, slot: &Slot<'_>, at_hand: &AtHand<'_>) -> Option<Result<Arc<OpenedDek>, KeyError>> {
        let waited = if self.waited.is_empty() { None } else { self.waited.get(&slot.dek_id).cloned() };
        waited.or_else(|| at_hand.dek(slot).map(Ok))
    }

    /// True when the index root of `tenant` is there, now or from the cache.
    fn has_root(&mut self, tenant: &Tenant, at_hand: &AtHand<'_>) -> bool {
        if self.root(tenant).is_some() {
            return true;
        }
        let found = at_hand.root(tenant);
        self.roots.extend(found.map(|root| (tenant.clone(), root)));
        self.root(tenant).is_some()
    }

    fn root(&self, tenant: &Tenant) -> Option<&IndexRoot> {
        self.roots.iter().find(|(known, _)| known == tenant).map(|(_, root)| &**root)
    }
}

/// A run of rows taken apart: once for the keys and for the values alike.
pub struct Batch<'a> {
    shape: &'a Shape,
    /// How many columns the server sent.
    width: usize,
    /// The server's values, row after row.
    values: Vec<Option<&'a [u8]>>,
    /// Bytes of cells that came as text.
    decoded: Vec<u8>,
    /// The cells, in order.
    cells: Vec<Found>,
    /// The keys of the cells; cells of one row share one.
    deks: Vec<Result<Arc<OpenedDek>, KeyError>>,
    /// Which of them each cell has, once all are there.
    dek_of: Vec<usize>,
}

/// One cell of a batch.
struct Found {
    /// Its place in the batch's values.
    value: usize,
    /// Where its bytes stand: in the value, or in what was decoded.
    bytes: Range<usize>,
    /// The tenant in front of it, where the statement asked for it there.
    prefix: Option<Range<usize>>,
    /// The number of the literal that stands in place of a cell.
    constant: Option<usize>,
}

impl<'a> Batch<'a> {
    /// Takes the rows apart. `None` for a row with other columns than planned: their number, or a cell where there is none.
    ///
    /// # Errors
    /// [`Malformed`] when a row is not a DataRow; XX001 for a sealed value that is not in the form of one.
    pub fn read(
        shape: &'a Shape,
        rows: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Result<Option<Batch<'a>>, Refusal>, Malformed> {
        let width = shape.columns.len() + shape.hidden;
        let mut batch =
            Batch { shape, width, values: vec![], decoded: vec![], cells: vec![], deks: vec![], dek_of: vec![] };
        for body in rows {
            if backend::data_row_into(body, &mut batch.values)? != width {
                return Ok(Ok(None));
            }
            let start = batch.values.len() - width;
            if !batch.is_as_planned(start) {
                return Ok(Ok(None));
            }
            for (at, tenant) in sealed(shape) {
                let Some(value) = batch.values[start + at] else { continue };
                if let Err(refusal) = batch.find(start + at, tenant, value) {
                    return Ok(Err(refusal));
                }
            }
        }
        Ok(Ok(Some(batch)))
    }

    /// False for a row with a cell where the plan has none: its columns are others by now.
    fn is_as_planned(&self, start: usize) -> bool {
        let is_plain = |at: usize| matches!(self.shape.columns.get(at), Some(ResultColumn::Plain));
        let holds = |value: &Option<&[u8]>| value.is_some_and(begins_as_cell);
        let cells = self.values[start..].iter().enumerate().any(|(at, value)| is_plain(at) && holds(value));
        !cells || self.shape.facts.read == Read::Sealed
    }

    fn find(&mut self, value: usize, tenant: RowTenant, bytes: &[u8]) -> Result<(), Refusal> {
        let whole = match self.shape.stored(value % self.width) {
            Format::Binary => 0..bytes.len(),
            Format::Text => {
                let start = self.decoded.len();
                bytea_text(bytes, &mut self.decoded).ok_or_else(Refusal::damaged)?;
                start..self.decoded.len()
            }
        };
        let mut found = Found { value, bytes: whole, prefix: None, constant: None };
        if let ResultColumn::Sealed { constants, .. } = &self.shape.columns[value % self.width]
            && let Some((mark, number)) = self.bytes(&found).split_first_chunk::<4>()
            && *mark == CONSTANT
            && !constants.0.is_empty()
        {
            let number = number.try_into().map_err(|_| Refusal::damaged())?;
            found.constant = usize::try_from(u32::from_be_bytes(number)).ok();
            self.cells.push(found);
            return Ok(());
        }
        if tenant == RowTenant::Prefix {
            let start = self.bytes(&found).first_chunk::<4>().ok_or_else(Refusal::damaged)?;
            let length = usize::try_from(i32::from_be_bytes(*start)).map_err(|_| Refusal::damaged())?;
            let tenant = found.bytes.start + 4;
            let cell = tenant.checked_add(length).filter(|at| *at <= found.bytes.end).ok_or_else(Refusal::damaged)?;
            found.prefix = Some(tenant..cell);
            found.bytes.start = cell;
        }
        self.cells.push(found);
        Ok(())
    }

    fn source(&self, found: &Found) -> &[u8] {
        match self.shape.stored(found.value % self.width) {
            Format::Binary => self.values[found.value].unwrap_or_default(),
            Format::Text => &self.decoded,
        }
    }

    fn bytes(&self, found: &Found) -> &[u8] {
        &self.source(found)[found.bytes.clone()]
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// Finds the keys of all cells in `rows` and the caches; what is neither here nor there comes back as a need.
    ///
    /// # Errors
    /// XX001 for a value that is not a well-formed cell.
    pub fn keys(&mut self, rows: &mut Rows, at_hand: &AtHand<'_>) -> Result<Need, Refusal> {
        let mut need = Need::default();
        let (mut deks, mut dek_of) = (Vec::new(), Vec::with_capacity(self.cells.len()));
        let mut last: Option<(DekId, usize)> = None;
        for found in &self.cells {
            if found.constant.is_some() {
                dek_of.push(usize::MAX);
                continue;
            }
            let cell = Cell::parse(self.bytes(found)).map_err(|_| Refusal::damaged())?;
            let slot = cell.slot();
            let at = match last {
                Some((id, at)) if id == slot.dek_id => at,
                _ => match rows.dek(slot, at_hand) {
                    Some(dek) => {
                        deks.push(dek);
                        deks.len() - 1
                    }
                    None => {
                        if need.open.iter().all(|known| known.dek_id != slot.dek_id) {
                            need.open.push(slot.owned());
                        }
                        continue;
                    }
                },
            };
            last = Some((slot.dek_id, at));
            dek_of.push(at);
            let column = &self.shape.columns[found.value % self.width];
            if let (true, ResultColumn::Sealed { column, .. }, Ok(dek)) = (cell.token.is_some(), column, &deks[at]) {
                let tenant = index_tenant(column, &dek.tenant);
                if !rows.has_root(&tenant, at_hand) && !need.index.contains(&tenant) {
                    need.index.push(tenant);
                }
            }
        }
        (self.deks, self.dek_of) = (deks, dek_of);
        Ok(need)
    }

    /// Appends the rows as DataRows in the client's formats. Gives how many rows went out whole, and why not all did.
    ///
    /// # Secrets
    /// What is appended is plaintext for the client alone.
    pub fn open(
        &self,
        rows: &Rows,
        session: &Session<'_>,
        uses: &mut Vec<Use>,
        out: &mut BytesMut,
    ) -> (u64, Result<(), Refusal>) {
        let mut cells = self.cells.iter().enumerate().peekable();
        let mut shown = Vec::new();
        for (number, row) in self.values.chunks_exact(self.width).enumerate() {
            let start = out.len();
            let opened = backend::try_put_data_row(out, self.shape.columns.len(), |at, out| {
                let value = number * self.width + at;
                match cells.next_if(|(_, found)| found.value == value) {
                    None => put_value(out, row[at]),
                    Some((cell, found)) => {
                        let dek = self.dek_of.get(cell).and_then(|at| self.deks.get(*at));
                        let is_there = self.show((found, dek), row, (rows, session), uses, &mut shown)?;
                        put_value(out, is_there.then_some(&shown[..]));
                        shown.zeroize();
                    }
                }
                Ok(())
            });
            if let Err(refusal) = opened {
                out.truncate(start);
                return (number as u64, Err(refusal));
            }
        }
        (self.rows() as u64, Ok(()))
    }

    /// Appends one value as the client is to see it; false for NULL.
    fn show(
        &self,
        (found, dek): (&Found, Option<&Result<Arc<OpenedDek>, KeyError>>),
        row: &[Option<&[u8]>],
        (rows, session): (&Rows, &Session<'_>),
        uses: &mut Vec<Use>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        let at = found.value % self.width;
        let ResultColumn::Sealed { column, tenant, constants, .. } = &self.shape.columns[at] else {
            return Err(Refusal::damaged());
        };
        if let Some(number) = found.constant {
            let text = constants.0.get(number).ok_or_else(Refusal::damaged)?;
            return constant(column, text, self.shape.format(at), session.facts, out);
        }
        let bytes = self.bytes(found);
        match session.facts.read {
            Read::Sealed => {
                as_bytea(bytes, self.shape.format(at), session.facts, out);
                return Ok(true);
            }
            Read::Deny => return Err(denied(column)),
            Read::Open | Read::Mask => {}
        }
        let cell = Cell::parse(bytes).map_err(|_| Refusal::damaged())?;
        let dek = match dek {
            Some(Ok(dek)) => dek,
            Some(Err(KeyError::Unavailable(_))) if session.on_unavailable == OnKeyUnavailable::Null => {
                return Ok(false);
            }
            Some(Err(error)) => return Err(key_refusal(error)),
            None => return Err(Refusal::damaged()),
        };
        let named = match tenant {
            RowTenant::Unknown => None,
            RowTenant::Prefix => found.prefix.clone().map(|prefix| &self.source(found)[prefix]),
            RowTenant::Column(hidden) => Some(row.get(*hidden).copied().flatten().ok_or_else(Refusal::damaged)?),
        };
        if named.is_some_and(|tenant| *tenant != *dek.tenant.as_bytes()) {
            return Err(Refusal::damaged());
        }
        if session.facts.tenant.as_ref().is_some_and(|own| *own != dek.tenant) {
            return Err(other_tenant());
        }
        let plain = plaintext(&cell, column, dek, rows)?;
        record(uses, column, dek, cell.slot());
        show(column, &plain, self.shape.format(at), session.facts, out)
    }
}

/// True for a value that begins as a cell does, in binary or in the hex form of bytea.
fn begins_as_cell(value: &[u8]) -> bool {
    value.starts_with(b"\xC1\x52\x53\x01\x01") || value.starts_with(b"\\xc152530101")
}

/// Appends a literal of the statement as a value of the column.
fn constant(column: &Column, text: &str, format: i16, facts: &Facts, out: &mut Vec<u8>) -> Result<bool, Refusal> {
    if facts.read == Read::Sealed {
        as_bytea(text.as_bytes(), format, facts, out);
        return Ok(true);
    }
    let wire = if format == 1 { Format::Binary } else { Format::Text };
    let mut canonical = Vec::new();
    let logical = column.logical.without_modifier();
    types::canonical(logical, Format::Text, text.as_bytes(), &facts.style, &mut canonical)
        .map_err(|error| bad_value(&error))?;
    types::render(logical, wire, &canonical, &facts.style, out).map_err(|_| Refusal::damaged())?;
    Ok(true)
}

fn plaintext(cell: &Cell<'_>, column: &Column, dek: &OpenedDek, rows: &Rows) -> Result<crypto::Plaintext, Refusal> {
    let binding = Binding { tenant: &dek.tenant, column: &column.binding };
    let plain = crypto::open(cell, &binding, &dek.dek).map_err(|_| Refusal::damaged())?;
    if plain.type_tag() != column.logical.tag() {
        return Err(Refusal::damaged());
    }
    if cell.token.is_some() {
        let root = rows.root(&index_tenant(column, &dek.tenant)).ok_or_else(Refusal::damaged)?;
        let token = crypto::token(root, column.token_scope(), &types::token_form(column.logical, plain.value()));
        if !cell.token_matches(&token) {
            return Err(Refusal::damaged());
        }
    }
    Ok(plain)
}

/// What decides how a row is shown, beside its shape.
pub struct Session<'a> {
    /// The session's facts.
    pub facts: &'a Facts,
    /// What a row of a tenant whose key is unavailable gives.
    pub on_unavailable: OnKeyUnavailable,
}

fn sealed(shape: &Shape) -> impl Iterator<Item = (usize, RowTenant)> {
    shape.columns.iter().enumerate().filter_map(|(at, column)| match column {
        ResultColumn::Sealed { tenant, .. } => Some((at, *tenant)),
        ResultColumn::Plain => None,
    })
}

/// Appends what a text form of bytea, hex or escape, stands for.
fn bytea_text(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
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

fn as_bytea(bytes: &[u8], format: i16, facts: &Facts, out: &mut Vec<u8>) {
    let wire = if format == 1 { Format::Binary } else { Format::Text };
    let rendered = types::render(types::LogicalType::Bytea, wire, bytes, &facts.style, out);
    debug_assert!(rendered.is_ok(), "bytea always renders");
}

/// Appends an opened value in the client's format, masked where its role is; false for NULL.
fn show(
    column: &Column,
    plain: &crypto::Plaintext,
    format: i16,
    facts: &Facts,
    out: &mut Vec<u8>,
) -> Result<bool, Refusal> {
    let wire = if format == 1 { Format::Binary } else { Format::Text };
    if facts.read == Read::Open {
        types::render(column.logical, wire, plain.value(), &facts.style, out).map_err(|_| Refusal::damaged())?;
        return Ok(true);
    }
    if column.mask == Mask::Null {
        return Ok(false);
    }
    let mut whole = Zeroizing::new(Vec::new());
    types::render(column.logical, Format::Text, plain.value(), &facts.style, &mut whole)
        .map_err(|_| Refusal::damaged())?;
    let text = std::str::from_utf8(&whole).map_err(|_| Refusal::damaged())?;
    let masked = crate::policy::mask::apply(&column.mask, text);
    out.extend_from_slice(masked.as_deref().unwrap_or_default().as_bytes());
    Ok(masked.is_some())
}

fn record(uses: &mut Vec<Use>, column: &Column, dek: &OpenedDek, slot: &Slot<'_>) {
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
        uses[at].columns.push(column.qualified.clone());
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
