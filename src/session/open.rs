//! From rows of cells to the client's values. No I/O: a [`Batch`] of rows says which keys it needs, and is opened when
//! they are there.
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use zeroize::Zeroize;

use crate::audit::Act;
use crate::crypto::{self, Binding, Cell, DekId, IndexRoot, RowKey, Slot};
use crate::keys::{AtHand, Granted, KeyError, Need, OpenedDek, Tenant};
use crate::policy::{Column, OnKeyUnavailable, Read};
use crate::refusal::{Class, Refusal};
use crate::sql::inside::{Built, Leaf, Whose};
use crate::sql::plan::{CONSTANT, Constants, ResultColumn, RowTenant};
use crate::types::{self, Format};
use crate::wire::backend;
use crate::wire::frame::Malformed;
use crate::wire::frontend::put_value;

use super::built::{self, Bytes, Finds, Inner, Node, Opens};
use super::facts::Facts;
use super::seal::Use;
use super::server_side::{CELL_BYTES_MIN, holds_whole_cell, unplanned};
use super::show::{How, Opened as Shown, as_bytea, bytea_text, constant, hashes, show};
use super::shown::{Stand, Stands};
use super::whose::{index_tenant, other_tenant};

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
    /// The client's values that may be shown in place of cells.
    pub given: Stands,
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
        self.columns.iter().any(|column| !matches!(column, ResultColumn::Plain))
    }

    /// The format in which the server sends the values that it builds around cells.
    fn built(&self, column: usize) -> Format {
        match self.stored {
            Stored::Binary | Stored::AsAsked if self.format(column) == 1 => Format::Binary,
            Stored::Text | Stored::Binary | Stored::AsAsked => Format::Text,
        }
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
    cells: Vec<Found<'a>>,
    /// The values that the server built around cells, in order, with their place in the batch's values.
    built: Vec<(usize, Node)>,
    /// The keys of the cells; cells of one row share one.
    deks: Vec<Result<Arc<OpenedDek>, KeyError>>,
    /// Which of them each cell has, once all are there.
    dek_of: Vec<usize>,
}

/// One cell of a batch.
struct Found<'a> {
    /// Its place in the batch's values.
    value: usize,
    column: &'a Arc<Column>,
    /// Where its bytes stand: in the value, or in what was decoded.
    bytes: Range<usize>,
    is_decoded: bool,
    /// The tenant of its row.
    named: Named,
    /// What stands in place of a cell.
    constant: Option<Stand<'a>>,
}

/// What the server's answer says of the tenant of a cell's row.
enum Named {
    /// Nothing.
    Unknown,
    /// It stands where the cell does: among the same bytes.
    At(Range<usize>),
    /// It is in a hidden column.
    Column(usize),
    /// It should be there and is not.
    Missing,
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
        let mut batch = Batch {
            shape,
            width,
            values: vec![],
            decoded: vec![],
            cells: vec![],
            built: vec![],
            deks: vec![],
            dek_of: vec![],
        };
        for body in rows {
            if backend::data_row_into(body, &mut batch.values)? != width {
                return Ok(Ok(None));
            }
            let start = batch.values.len() - width;
            match batch.is_as_planned(start) {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(None)),
                Err(refusal) => return Ok(Err(refusal)),
            }
            for at in 0..shape.columns.len() {
                let Some(value) = batch.values[start + at] else { continue };
                if let Err(refusal) = batch.find(start + at, value) {
                    return Ok(Err(refusal));
                }
            }
        }
        Ok(Ok(Some(batch)))
    }

    /// The net under the plan: columns that it takes for plain hold no cell, unless the role sees cells. False where one
    /// is a cell: the columns are others by now.
    ///
    /// # Errors
    /// 0A000 where there is one inside a value.
    fn is_as_planned(&self, start: usize) -> Result<bool, Refusal> {
        if self.shape.facts.read == Read::Sealed {
            return Ok(true);
        }
        let row = self.shape.columns.iter().zip(&self.values[start..]);
        let plain = row.filter(|(column, _)| matches!(column, ResultColumn::Plain)).filter_map(|(_, value)| *value);
        let mut is_inside = false;
        for value in plain {
            if begins_as_cell(value) {
                return Ok(false);
            }
            is_inside |= holds_whole_cell(value);
        }
        if is_inside { Err(unplanned()) } else { Ok(true) }
    }

    /// Finds the cells of a value.
    fn find(&mut self, value: usize, bytes: &'a [u8]) -> Result<(), Refusal> {
        let shape = self.shape;
        match &shape.columns[value % self.width] {
            ResultColumn::Plain => Ok(()),
            ResultColumn::Built(built) => self.find_inside(value, built, bytes),
            ResultColumn::Sealed { column, tenant, constants, .. } => {
                let (range, is_decoded) = match shape.stored(value % self.width) {
                    Format::Binary => (0..bytes.len(), false),
                    Format::Text => {
                        let start = self.decoded.len();
                        bytea_text(bytes, &mut self.decoded).ok_or_else(Refusal::damaged)?;
                        (start..self.decoded.len(), true)
                    }
                };
                let named = match tenant {
                    RowTenant::Column(hidden) => Named::Column(*hidden),
                    RowTenant::Unknown | RowTenant::Prefix => Named::Unknown,
                };
                let found = Found { value, column, bytes: range, is_decoded, named, constant: None };
                self.add(found, *tenant == RowTenant::Prefix, constants)
            }
        }
    }

    fn find_inside(&mut self, value: usize, built: &'a Built, bytes: &[u8]) -> Result<(), Refusal> {
        let sees_cells = self.shape.facts.read == Read::Sealed;
        let format = self.shape.built(value % self.width);
        let mut inner = Vec::new();
        let mut finds = Finds { decoded: &mut self.decoded, cells: &mut inner, sees_cells };
        let node = built::read(built, format, bytes, &mut finds)?;
        self.built.push((value, node));
        inner.into_iter().try_for_each(|cell| self.add_inner(value, cell))
    }

    fn add_inner(&mut self, value: usize, Inner { leaf, bytes, beside }: Inner<'a>) -> Result<(), Refusal> {
        let Leaf { column, whose, constants, .. } = leaf;
        let named = match (whose, beside) {
            (Whose::Beside { .. }, Some(tenant)) => Named::At(tenant),
            (Whose::Beside { .. }, None) => Named::Missing,
            (Whose::Unknown | Whose::Prefix, _) => Named::Unknown,
        };
        let found = Found { value, column, bytes, is_decoded: true, named, constant: None };
        self.add(found, *whose == Whose::Prefix, constants)
    }

    /// Adds a cell, with the tenant in front of it if there is one, or a marker of what stands in its place.
    fn add(&mut self, mut found: Found<'a>, has_prefix: bool, constants: &'a Constants) -> Result<(), Refusal> {
        if let Some((mark, number)) = self.bytes(&found).split_first_chunk::<4>()
            && *mark == CONSTANT
            && !constants.0.is_empty()
        {
            let number: &[u8; 4] = number.try_into().map_err(|_| Refusal::damaged())?;
            let number = usize::try_from(u32::from_be_bytes(*number)).map_err(|_| Refusal::damaged())?;
            let constant = constants.0.get(number).ok_or_else(Refusal::damaged)?;
            found.constant = Some(self.shape.given.stand(constant)?);
        } else if has_prefix {
            let start = self.bytes(&found).first_chunk::<4>().ok_or_else(Refusal::damaged)?;
            let length = usize::try_from(i32::from_be_bytes(*start)).map_err(|_| Refusal::damaged())?;
            let tenant = found.bytes.start + 4;
            let cell = tenant.checked_add(length).filter(|at| *at <= found.bytes.end).ok_or_else(Refusal::damaged)?;
            found.named = Named::At(tenant..cell);
            found.bytes.start = cell;
        }
        self.cells.push(found);
        Ok(())
    }

    fn source(&self, found: &Found<'_>) -> &[u8] {
        if found.is_decoded { &self.decoded } else { self.values[found.value].unwrap_or_default() }
    }

    fn bytes(&self, found: &Found<'_>) -> &[u8] {
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
        let (mut need, mut needed) = (Need::default(), HashSet::new());
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
                        if needed.insert(slot.dek_id) {
                            need.open.push(slot.owned());
                        }
                        continue;
                    }
                },
            };
            last = Some((slot.dek_id, at));
            dek_of.push(at);
            let Ok(dek) = &deks[at] else { continue };
            let token = cell.token.is_some().then(|| index_tenant(found.column, &dek.tenant));
            let hash = hashes(found.column, &self.shape.facts).then(|| dek.tenant.clone());
            for tenant in [token, hash].into_iter().flatten() {
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
        let (mut cells, mut built) = (0, self.built.iter().peekable());
        let (mut shown, mut key) = (Vec::new(), None);
        for (number, row) in self.values.chunks_exact(self.width).enumerate() {
            let start = out.len();
            let opened = backend::try_put_data_row(out, self.shape.columns.len(), |at, out| {
                let value = number * self.width + at;
                let key = &mut key;
                let mut opening = Opening { batch: self, value: row[at], first: cells, row, rows, session, uses, key };
                let is_there = if let Some((_, node)) = built.next_if(|(place, _)| *place == value) {
                    while self.cells.get(cells).is_some_and(|found| found.value == value) {
                        cells += 1;
                    }
                    built::write(node, &mut opening, &mut shown)
                } else if self.cells.get(cells).is_some_and(|found| found.value == value) {
                    cells += 1;
                    opening.cell(0, How::Wire(self.wire(at)), &mut shown)
                } else {
                    put_value(out, row[at]);
                    return Ok(());
                };
                put_value(out, is_there?.then_some(&shown[..]));
                shown.zeroize();
                Ok(())
            });
            if let Err(refusal) = opened {
                shown.zeroize();
                out.truncate(start);
                return (number as u64, Err(refusal));
            }
        }
        (self.rows() as u64, Ok(()))
    }

    /// The format that the client asked for.
    fn wire(&self, column: usize) -> Format {
        if self.shape.format(column) == 1 { Format::Binary } else { Format::Text }
    }
}

/// A value of a batch that is being opened.
struct Opening<'o, 'a> {
    batch: &'o Batch<'a>,
    /// As the server sent it.
    value: Option<&'a [u8]>,
    /// The number of the first cell in it.
    first: usize,
    row: &'o [Option<&'a [u8]>],
    rows: &'o Rows,
    session: &'o Session<'o>,
    uses: &'o mut Vec<Use>,
    /// The key of the cell before this one, and which of the batch's it is.
    key: &'o mut Option<(usize, RowKey)>,
}

impl Opens for Opening<'_, '_> {
    fn bytes(&self, bytes: &Bytes) -> &[u8] {
        match bytes {
            Bytes::Decoded(range) => &self.batch.decoded[range.clone()],
            Bytes::Sent(range) => &self.value.unwrap_or_default()[range.clone()],
        }
    }

    fn cell(&mut self, cell: usize, how: How, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        let (batch, session) = (self.batch, self.session);
        let found = batch.cells.get(self.first + cell).ok_or_else(Refusal::damaged)?;
        if let Some(stand) = &found.constant {
            return constant(found.column, stand, how, session.facts, out);
        }
        let bytes = batch.bytes(found);
        match session.facts.read {
            Read::Sealed => {
                as_bytea(bytes, how, session.facts, out);
                return Ok(true);
            }
            Read::Deny => return Err(denied(found.column)),
            Read::Open | Read::Mask => {}
        }
        let cell_of = Cell::parse(bytes).map_err(|_| Refusal::damaged())?;
        let place = batch.dek_of.get(self.first + cell).copied().ok_or_else(Refusal::damaged)?;
        let dek = match batch.deks.get(place) {
            Some(Ok(dek)) => dek,
            Some(Err(KeyError::Unavailable(_) | KeyError::Deactivated(_) | KeyError::Purged(_)))
                if session.on_unavailable == OnKeyUnavailable::Null =>
            {
                return Ok(false);
            }
            Some(Err(error)) => return Err(key_refusal(error)),
            None => return Err(Refusal::damaged()),
        };
        let named = match &found.named {
            Named::Unknown => None,
            Named::At(tenant) => Some(&batch.source(found)[tenant.clone()]),
            Named::Column(hidden) => Some(self.row.get(*hidden).copied().flatten().ok_or_else(Refusal::damaged)?),
            Named::Missing => return Err(Refusal::damaged()),
        };
        if named.is_some_and(|tenant| *tenant != *dek.tenant.as_bytes()) {
            return Err(Refusal::damaged());
        }
        if session.facts.tenant.as_ref().is_some_and(|own| *own != dek.tenant) {
            return Err(other_tenant());
        }
        if self.key.as_ref().is_none_or(|(of, _)| *of != place) {
            *self.key = Some((place, RowKey::new(&dek.dek)));
        }
        let Some((_, key)) = self.key else { return Err(Refusal::damaged()) };
        let root = self.rows.root(&index_tenant(found.column, &dek.tenant));
        let plain = plaintext(&cell_of, found.column, (dek, key), root)?;
        record(self.uses, found.column, dek, cell_of.slot());
        let root =
            hashes(found.column, session.facts).then(|| self.rows.root(&dek.tenant).ok_or_else(Refusal::damaged));
        show(&Shown { column: found.column, plain: &plain, root: root.transpose()? }, how, session.facts, out)
    }
}

/// True for a value that begins as a cell does, in binary or in the hex form of bytea, and is long enough for one.
fn begins_as_cell(value: &[u8]) -> bool {
    value.len() >= CELL_BYTES_MIN && (value.starts_with(b"\xC1\x52\x53\x01\x01") || value.starts_with(b"\\xc152530101"))
}

/// Opens a cell under the column's binding. `root` is that of the tenant whose root makes the column's tokens.
///
/// # Errors
/// XX001, whatever is wrong.
pub(crate) fn plaintext(
    cell: &Cell<'_>,
    column: &Column,
    (dek, key): (&OpenedDek, &RowKey),
    root: Option<&IndexRoot>,
) -> Result<crypto::Plaintext, Refusal> {
    let binding = Binding { tenant: &dek.tenant, column: &column.binding };
    let plain = crypto::open_with(cell, &binding, key).map_err(|_| Refusal::damaged())?;
    if plain.type_tag() != column.logical.tag() {
        return Err(Refusal::damaged());
    }
    if cell.token.is_some() {
        let root = root.ok_or_else(Refusal::damaged)?;
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
        KeyError::Deactivated(tenant) => Refusal::new(Class::KeyUnavailable, error.to_string())
            .detail("It was sealed before a rotation and was brought back, as from a backup.")
            .hint(format!("Ask the operator to run: rowseal key reactivate \"{tenant}\" --for-restore.")),
        KeyError::Purged(tenant) => Refusal::new(Class::KeyUnavailable, error.to_string())
            .detail("Once the key is deleted the value is lost for ever.")
            .hint(format!("Until then the operator can run: rowseal key unpurge \"{tenant}\".")),
        KeyError::UnknownKey | KeyError::Damaged => Refusal::damaged(),
        KeyError::Unreachable => Refusal::new(Class::Unreachable, error.to_string()).hint("Try again."),
        KeyError::Unrecorded => Refusal::unrecorded(),
    }
}
