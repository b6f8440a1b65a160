//! From a plan and its inputs to the bytes the server is sent: cells, tokens, arrays of them. No I/O: first
//! [`needs`] says which keys are needed, then [`compute`] uses what was granted.
use std::collections::HashMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::audit::Act;
use crate::crypto::{self, Binding, DekId, KeyId, RowKey};
use crate::hex;
use crate::keys::{FreshDek, Granted, Need, Tenant};
use crate::policy::{Column, Equality};
use crate::refusal::{Class, Refusal};
use crate::sql::plan::{Constants, CopiedFrom, CopiedTenant, Role, Source, StatementPlan, TenantSource, ValueSlot};
use crate::types::{self, Format, LogicalType, ValueError};

use super::cells::{self, writes_cells};
use super::copied::{self, CopiedRow};
use super::each;
use super::facts::Facts;
use super::whose::{changer, confined, index_tenant, locked_tenant, missing_tenant, searched};

/// One of the statement's `sealed_rows`, and which of those that it stands for.
type Row = (usize, usize);

/// One row that the lock query of an UPDATE in two steps gave.
#[derive(Debug, Clone)]
pub struct LockedRow {
    /// Its tableoid, as text.
    pub table: String,
    /// Its ctid, as text.
    pub row: String,
    /// Its tenant, where a column says so.
    pub tenant: Option<Tenant>,
}

/// What a plan is carried out on.
pub struct Inputs<'a> {
    /// The client's parameters.
    pub params: &'a [Option<&'a [u8]>],
    /// Their format codes: none, one for all, or one each.
    pub formats: &'a [i16],
    /// The types the client has declared for them; 0, or none at all, where it left that open.
    pub oids: &'a [u32],
    /// The session's facts.
    pub facts: &'a Arc<Facts>,
    /// The rows of the lock query, once it ran.
    pub locked: Option<&'a [LockedRow]>,
    /// The rows of the query of an INSERT ... SELECT, once they are opened.
    pub(super) copied: Option<&'a [CopiedRow]>,
}

/// A key use to be recorded.
pub struct Use {
    /// Sealed or searched.
    pub act: Act,
    /// Whose key.
    pub tenant: Tenant,
    /// The key that wraps the data keys; none for a search.
    pub key: Option<KeyId>,
    /// The data keys.
    pub dek_ids: Vec<DekId>,
    /// The columns.
    pub columns: Vec<Arc<str>>,
}

/// The keys that `plan` needs for these inputs.
///
/// # Errors
/// A [`Refusal`] when a tenant is missing, or not the one the session is confined to.
pub fn needs(plan: &StatementPlan, inputs: &Inputs<'_>) -> Result<Need, Refusal> {
    let mut need = Need::default();
    let mut rows: HashMap<Row, Tenant> = HashMap::new();
    for slot in &plan.values {
        if is_null(&slot.source, inputs) {
            continue;
        }
        match &slot.role {
            Role::Seal { column, row, tenant } => {
                let Some(tenant) = changer(tenant, column, inputs)? else { continue };
                if let (true, Some(value)) = (writes_cells(inputs.facts), given(&slot.source, inputs)) {
                    cells::need(&mut need, value, column, &tenant)?;
                    continue;
                }
                want_index(&mut need, column, &tenant);
                own_row(&mut rows, (*row, 0), tenant)?;
            }
            Role::SealEach { column, rows: group, tenants } => {
                for (at, tenant) in each::tenants(&slot.source, tenants, column, inputs)? {
                    want_index(&mut need, column, &tenant);
                    own_row(&mut rows, (*group, at), tenant)?;
                }
            }
            Role::Search { column, tenant } => {
                searched(tenant, column, inputs)?.into_iter().for_each(|t| want_search(&mut need, column, t));
            }
            Role::SearchMany { column, tenants } => {
                for tenant in tenants {
                    searched(tenant, column, inputs)?.into_iter().for_each(|t| want_search(&mut need, column, t));
                }
            }
            Role::LockedCells { column } => {
                for (row, locked) in inputs.locked.unwrap_or_default().iter().enumerate() {
                    let tenant = confined(locked_tenant(plan, locked, inputs, column)?, inputs)?;
                    if let (true, Some(value)) = (writes_cells(inputs.facts), given(&slot.source, inputs)) {
                        cells::need(&mut need, value, column, &tenant)?;
                        continue;
                    }
                    want_index(&mut need, column, &tenant);
                    rows.insert((row, 0), tenant);
                }
            }
            Role::CopiedCells { column, rows: group, from, tenant } => {
                for (at, tenant) in copied::tenants((&slot.source, *from), tenant, column, inputs)? {
                    want_index(&mut need, column, &tenant);
                    own_row(&mut rows, (*group, at), tenant)?;
                }
            }
            Role::Shown { .. } | Role::CopiedPlain { .. } | Role::LockedTables | Role::LockedRows => {}
        }
    }
    for tenant in rows.into_values() {
        match need.fresh.iter_mut().find(|(known, _)| *known == tenant) {
            Some((_, count)) => *count += 1,
            None => need.fresh.push((tenant, 1)),
        }
    }
    Ok(need)
}

/// Notes whose row it is.
fn own_row(rows: &mut HashMap<Row, Tenant>, row: Row, tenant: Tenant) -> Result<(), Refusal> {
    match rows.get(&row) {
        Some(before) if *before != tenant => Err(Refusal::new(Class::Internal, "one row with two tenants")),
        Some(_) => Ok(()),
        None => {
            rows.insert(row, tenant);
            Ok(())
        }
    }
}

/// The bytes of every slot, in order: a cell, a token, or the text of an array; `None` for NULL. Appends to `uses`
/// what is to be recorded before the bytes leave.
///
/// # Errors
/// A [`Refusal`] for a value that is not of its column's type, or when a needed key was not granted.
pub fn compute(
    plan: &StatementPlan,
    inputs: &Inputs<'_>,
    granted: &mut Granted,
    uses: &mut Vec<Use>,
) -> Result<Vec<Option<Vec<u8>>>, Refusal> {
    let mut sealer = Sealer { plan, inputs, granted, uses, rows: HashMap::new() };
    (0..plan.values.len()).map(|slot| sealer.slot(slot)).collect()
}

struct Sealer<'a> {
    plan: &'a StatementPlan,
    inputs: &'a Inputs<'a>,
    granted: &'a mut Granted,
    uses: &'a mut Vec<Use>,
    rows: HashMap<Row, FreshDek>,
}

impl Sealer<'_> {
    fn slot(&mut self, slot: usize) -> Result<Option<Vec<u8>>, Refusal> {
        let (plan, inputs) = (self.plan, self.inputs);
        let slot = &plan.values[slot];
        let locked = inputs.locked.unwrap_or_default();
        match &slot.role {
            Role::LockedTables => return Ok(Some(array(locked.iter().map(|row| Some(row.table.clone()))))),
            Role::LockedRows => return Ok(Some(array(locked.iter().map(|row| Some(row.row.clone()))))),
            Role::CopiedPlain { at } => return Ok(Some(array(copied::plain(*at, inputs)))),
            _ => {}
        }
        match &slot.role {
            Role::Seal { column, tenant, .. } if writes_cells(inputs.facts) => {
                let Some(tenant) = changer(tenant, column, inputs)? else { return Ok(None) };
                self.kept(&slot.source, column, &tenant)
            }
            Role::LockedCells { column } if writes_cells(inputs.facts) => {
                let mut cells = Vec::with_capacity(locked.len());
                for row in locked {
                    let tenant = locked_tenant(plan, row, inputs, column)?;
                    let cell = self.kept(&slot.source, column, &tenant)?;
                    if cell.is_some() && locked.len() > 1 {
                        return Err(cells::shared(column));
                    }
                    cells.push(cell.map(|cell| format!("\\x{}", hex::encode(&cell))));
                }
                Ok(Some(array(cells.into_iter())))
            }
            Role::Seal { column, row, tenant } => {
                let Some(canonical) = of_slot(slot, column.logical, inputs)? else { return Ok(None) };
                let Some(tenant) = changer(tenant, column, inputs)? else { return Ok(None) };
                self.cell(column, (*row, 0), &tenant, &canonical).map(Some)
            }
            Role::Search { column, tenant } => {
                // Postgres does not cut or round what is compared.
                let compared = column.logical.without_modifier();
                let Some(canonical) = of_source(&slot.source, compared, inputs)? else { return Ok(None) };
                let tenant = searched(tenant, column, inputs)?;
                self.sought(column, tenant.as_ref(), &canonical).map(|token| Some(token.to_vec()))
            }
            Role::Shown { column, number, .. } => {
                let value = of_source(&slot.source, column.logical.without_modifier(), inputs)?.map(Zeroizing::new);
                Ok(value.and_then(|_| Constants::marker(*number)).map(|marker| marker.to_vec()))
            }
            Role::SearchMany { column, tenants } => self.many(&slot.source, column, tenants),
            Role::SealEach { column, rows, tenants } => {
                let Some(members) = each::members(&slot.source, column, inputs)? else { return Ok(None) };
                let tenants: HashMap<usize, Tenant> =
                    each::tenants(&slot.source, tenants, column, inputs)?.into_iter().collect();
                let cells = members.iter().enumerate().map(|(at, member)| match (member, tenants.get(&at)) {
                    (None, _) => Ok(None),
                    (Some(canonical), Some(tenant)) => {
                        let cell = self.cell(column, (*rows, at), tenant, canonical)?;
                        Ok(Some(format!("\\x{}", hex::encode(&cell))))
                    }
                    (Some(_), None) => Err(missing_tenant(column)),
                });
                Ok(Some(array(cells.collect::<Result<Vec<_>, Refusal>>()?.into_iter())))
            }
            Role::CopiedCells { column, rows, from, tenant } => {
                self.copied((&slot.source, *from), (column, *rows), tenant).map(Some)
            }
            Role::LockedCells { column } => {
                let canonical = of_source(&slot.source, column.logical, inputs)?;
                let cells = locked.iter().enumerate().map(|(row, locked)| match &canonical {
                    None => Ok(None),
                    Some(canonical) => {
                        let tenant = locked_tenant(plan, locked, inputs, column)?;
                        let cell = self.cell(column, (row, 0), &tenant, canonical)?;
                        Ok(Some(format!("\\x{}", hex::encode(&cell))))
                    }
                });
                Ok(Some(array(cells.collect::<Result<Vec<_>, Refusal>>()?.into_iter())))
            }
            Role::CopiedPlain { .. } | Role::LockedTables | Role::LockedRows => Ok(None),
        }
    }

    /// The cells of one column for the rows of a query.
    fn copied(
        &mut self,
        value: (&Source, CopiedFrom),
        (column, rows): (&Arc<Column>, usize),
        tenant: &CopiedTenant,
    ) -> Result<Vec<u8>, Refusal> {
        let inputs = self.inputs;
        let copied = inputs.copied.unwrap_or_default();
        let mut cells = vec![None; copied.len()];
        for (at, tenant) in copied::tenants(value, tenant, column, inputs)? {
            let row = copied.get(at).ok_or_else(not_granted)?;
            let Some(canonical) = copied::canonical(value, row, column.logical, inputs)? else { continue };
            let cell = self.cell(column, (rows, at), &tenant, &canonical)?;
            if let Some(slot) = cells.get_mut(at) {
                *slot = Some(format!("\\x{}", hex::encode(&cell)));
            }
        }
        Ok(array(cells.into_iter()))
    }

    /// The tokens of an array's members, for each of the tenants.
    fn many(
        &mut self,
        source: &Source,
        column: &Arc<Column>,
        tenants: &[TenantSource],
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let inputs = self.inputs;
        let compared = column.logical.without_modifier();
        let Some(members) = each::members_as(source, compared, inputs)? else { return Ok(None) };
        let mut tokens = Vec::with_capacity(members.len() * tenants.len());
        for tenant in tenants {
            let tenant = searched(tenant, column, inputs)?;
            for member in &members {
                let token =
                    member.as_ref().map(|canonical| self.sought(column, tenant.as_ref(), canonical)).transpose()?;
                tokens.push(token.map(|token| format!("\\x{}", hex::encode(&token))));
            }
        }
        Ok(Some(array(tokens.into_iter())))
    }

    fn cell(&mut self, column: &Arc<Column>, row: Row, tenant: &Tenant, value: &[u8]) -> Result<Vec<u8>, Refusal> {
        let is_new = !self.rows.contains_key(&row);
        if is_new {
            let fresh = self.granted.fresh.get_mut(tenant).and_then(Vec::pop).ok_or_else(not_granted)?;
            self.rows.insert(row, fresh);
        }
        let token = match column.equality {
            Some(_) => Some(self.token(column, &index_tenant(column, tenant), value)?),
            None => None,
        };
        let fresh = self.rows.get(&row).ok_or_else(not_granted)?;
        let mut out = Vec::new();
        seal_value((column, tenant), (value, token), (fresh, &RowKey::new(&fresh.dek)), &mut out)?;
        let (key, dek_id) = (fresh.slot.key_id, fresh.slot.dek_id);
        self.record(Act::Seal, tenant, (Some(key), is_new.then_some(dek_id)), column);
        Ok(out)
    }

    /// A cell that is written as it was given.
    fn kept(&mut self, source: &Source, column: &Arc<Column>, tenant: &Tenant) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(value) = given(source, self.inputs) else { return Ok(None) };
        let cell = cells::given(value, column)?.into_owned();
        let (act, key, dek) = cells::check(&cell, column, tenant, self.granted)?;
        let is_new = !self.uses.iter().any(|used| used.dek_ids.last() == Some(&dek));
        self.record(act, tenant, (Some(key), is_new.then_some(dek)), column);
        Ok(Some(cell))
    }

    /// The token to search a tenant's values by. None, or one that is not registered, has none: zeros are equal to no token
    /// of another tenant, as its values would not be.
    fn sought(&mut self, column: &Column, tenant: Option<&Tenant>, canonical: &[u8]) -> Result<[u8; 16], Refusal> {
        let Some(tenant) = tenant else { return Ok([0; 16]) };
        if column.equality != Some(Equality::Global) && !self.granted.index.contains_key(tenant) {
            return Ok([0; 16]);
        }
        self.record(Act::Search, tenant, (None, None), column);
        Ok(self.token(column, tenant, canonical)?.0)
    }

    fn token(&self, column: &Column, tenant: &Tenant, canonical: &[u8]) -> Result<crypto::Token, Refusal> {
        let root = self.granted.index.get(tenant).ok_or_else(not_granted)?;
        Ok(crypto::token(root, column.token_scope(), &types::token_form(column.logical, canonical)))
    }

    /// Notes a key use; a data key with the first cell under it.
    fn record(&mut self, act: Act, tenant: &Tenant, (key, fresh): (Option<KeyId>, Option<DekId>), column: &Column) {
        let same = |u: &&mut Use| u.act == act && u.tenant == *tenant && u.key == key;
        let at = match self.uses.iter().position(|u| u.act == act && u.tenant == *tenant && u.key == key) {
            Some(at) => at,
            None => {
                self.uses.push(Use { act, tenant: tenant.clone(), key, dek_ids: vec![], columns: vec![] });
                self.uses.len() - 1
            }
        };
        let Some(entry) = self.uses.get_mut(at).filter(same) else { return };
        entry.dek_ids.extend(fresh);
        if !entry.columns.iter().any(|known| **known == *column.qualified) {
            entry.columns.push(column.qualified.clone());
        }
    }
}

/// Appends the cell of a canonical value of a column, in a row of a tenant.
///
/// # Errors
/// 54000 for a value that no cell holds.
pub(crate) fn seal_value(
    (column, tenant): (&Column, &Tenant),
    (value, token): (&[u8], Option<crypto::Token>),
    (fresh, key): (&FreshDek, &RowKey),
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let input = crypto::SealInput {
        binding: Binding { tenant, column: &column.binding },
        type_tag: column.logical.tag(),
        value,
        token,
        padding: column.padding.into(),
        slot: &fresh.slot,
    };
    crypto::seal_with(&input, key, crypto::random_bytes(), out)
        .map_err(|_| Refusal::new(Class::TooLarge, format!("a value for column {} is too large", column.qualified)))
}

/// Adds the index root that the tokens of a column need.
pub(crate) fn want_index(need: &mut Need, column: &Column, tenant: &Tenant) {
    if column.equality.is_some() {
        push_unique(&mut need.index, index_tenant(column, tenant));
    }
}

/// Adds the index root that a search needs.
fn want_search(need: &mut Need, column: &Column, tenant: Tenant) {
    let list = if column.equality == Some(Equality::Global) { &mut need.index } else { &mut need.seek };
    push_unique(list, tenant);
}

fn push_unique(list: &mut Vec<Tenant>, tenant: Tenant) {
    if !list.contains(&tenant) {
        list.push(tenant);
    }
}

fn is_null(source: &Source, inputs: &Inputs<'_>) -> bool {
    matches!(source, Source::Param(n) if inputs.params.get(usize::from(*n)).is_none_or(Option::is_none))
}

/// A value as it was given; `None` for NULL.
pub(super) fn given<'v>(source: &'v Source, inputs: &Inputs<'v>) -> Option<(Format, &'v [u8])> {
    match source {
        Source::Rows => None,
        Source::Literal(text) => Some((Format::Text, text.as_bytes())),
        Source::Param(n) => {
            let bytes = inputs.params.get(usize::from(*n)).copied().flatten()?;
            Some((param_format(inputs, *n), bytes))
        }
    }
}

/// The canonical form of the value of a literal or parameter; `None` for NULL.
pub(super) fn of_source(
    source: &Source,
    logical: LogicalType,
    inputs: &Inputs<'_>,
) -> Result<Option<Vec<u8>>, Refusal> {
    of_described(source, (logical, logical.oid()), inputs)
}

/// The same for a slot, whose parameter the client may have been told to be a text that the statement casts.
fn of_slot(slot: &ValueSlot, logical: LogicalType, inputs: &Inputs<'_>) -> Result<Option<Vec<u8>>, Refusal> {
    let casts_text = slot.cast && is_text(slot.described.oid()) && !is_text(logical.oid());
    let told = if casts_text { slot.described.oid() } else { logical.oid() };
    of_described(&slot.source, (logical, told), inputs)
}

fn of_described(
    source: &Source,
    (logical, told): (LogicalType, u32),
    inputs: &Inputs<'_>,
) -> Result<Option<Vec<u8>>, Refusal> {
    let (format, bytes) = match source {
        Source::Rows => return Ok(None),
        Source::Literal(text) => (Format::Text, text.as_bytes()),
        Source::Param(n) => match inputs.params.get(usize::from(*n)).copied().flatten() {
            None => return Ok(None),
            Some(bytes) => (param_format(inputs, *n), bytes),
        },
    };
    let declared = declared_text(source, (logical, told), inputs, bytes)?;
    let (format, bytes) = declared.as_ref().map_or((format, bytes), |text| (Format::Text, text.as_bytes()));
    let mut out = Vec::with_capacity(bytes.len() + 8);
    types::canonical(logical, format, bytes, &inputs.facts.style, &mut out).map_err(|error| bad_value(&error))?;
    Ok(Some(out))
}

/// The canonical forms of the members of an array that is written as a literal.
///
/// # Errors
/// The error that Postgres gives for a text that is no array of this type.
pub(super) fn literal_array(
    text: &str,
    logical: LogicalType,
    inputs: &Inputs<'_>,
) -> Result<Vec<Option<Zeroizing<Vec<u8>>>>, Refusal> {
    let given = super::elements::array(Format::Text, text.as_bytes(), 0)?;
    members(&given, Format::Text, logical.without_modifier(), inputs)
}

/// The canonical forms of an array's members. They may be of another type than the column's where Postgres compares the
/// two without loss: integers with integers, text with text.
pub(super) fn members(
    given: &super::elements::Array<'_>,
    format: Format,
    logical: LogicalType,
    inputs: &Inputs<'_>,
) -> Result<Vec<Option<Zeroizing<Vec<u8>>>>, Refusal> {
    const FAMILIES: [&[u32]; 2] = [&[20, 21, 23], &[25, 1042, 1043]];
    let element = given.element.unwrap_or(logical.oid());
    let follows = |family: &&[u32]| family.contains(&element) && family.contains(&logical.oid());
    if element != logical.oid() && !FAMILIES.iter().any(follows) {
        return Err(Refusal::new(Class::NotSupported, "an array is declared with another type than its sealed column")
            .hint("Leave the parameter's type to the server, or declare the column's own type."));
    }
    let canonical = |member: &[u8]| {
        let mut text = None;
        if format == Format::Binary && element != logical.oid() {
            let read = types::text_of_plain(element, Format::Binary, member);
            let bad = || Refusal::new(Class::BadBinary, "incorrect binary data format in a bind parameter");
            text = Some(Zeroizing::new(read.ok_or_else(bad)?));
        }
        let (format, bytes) = text.as_ref().map_or((format, member), |text| (Format::Text, text.as_bytes()));
        let mut out = Zeroizing::new(Vec::with_capacity(bytes.len() + 8));
        types::canonical(logical, format, bytes, &inputs.facts.style, &mut out).map_err(|error| bad_value(&error))?;
        Ok(out)
    };
    given.members.iter().map(|member| member.as_deref().map(canonical).transpose()).collect()
}

/// The text form of a binary parameter that the client declared to be of another type than the column's.
fn declared_text(
    source: &Source,
    (logical, told): (LogicalType, u32),
    inputs: &Inputs<'_>,
    bytes: &[u8],
) -> Result<Option<Zeroizing<String>>, Refusal> {
    let Source::Param(n) = source else { return Ok(None) };
    let oid = declared(inputs.oids, usize::from(*n)).unwrap_or(told);
    if oid == logical.oid() {
        return Ok(None);
    }
    if param_format(inputs, *n) == Format::Text {
        if is_text(oid) {
            return Ok(None);
        }
        let zoned = bytes.iter().any(|b| *b == b'+' || (b.is_ascii_alphabetic() && *b != b'T'))
            || bytes.iter().filter(|b| **b == b'-').count() > 2;
        // Postgres drops a zone written in a timestamp or date without one.
        return if matches!(logical, LogicalType::Timestamptz(_)) && zoned {
            Err(bad_value(&ValueError::BadDatetime { ty: "timestamp with time zone" }))
        } else {
            Ok(None)
        };
    }
    match types::text_of_plain(oid, Format::Binary, bytes) {
        Some(text) => Ok(Some(Zeroizing::new(text))),
        None if is_text(oid) => Err(bad_value(&ValueError::BadEncoding)),
        None => Err(Refusal::new(Class::BadBinary, "incorrect binary data format in a bind parameter")),
    }
}

/// True for text and varchar, which are read as any type that they are cast to.
pub fn is_text(oid: u32) -> bool {
    matches!(oid, 25 | 1043)
}

/// The type that the client has declared for a parameter (counted from 0), if it has.
pub fn declared(oids: &[u32], n: usize) -> Option<u32> {
    const UNKNOWN: u32 = 705;
    oids.get(n).copied().filter(|oid| !matches!(*oid, 0 | UNKNOWN))
}

pub(super) fn param_format(inputs: &Inputs<'_>, n: u16) -> Format {
    match crate::wire::frontend::format_of(inputs.formats, usize::from(n)) {
        1 => Format::Binary,
        _ => Format::Text,
    }
}

/// A bad value as the error Postgres itself would give, without the value.
pub fn bad_value(error: &ValueError) -> Refusal {
    let class = match error {
        ValueError::BadText { .. } | ValueError::BadArray => Class::BadText,
        ValueError::BadBinary { .. } => Class::BadBinary,
        ValueError::TooLong { .. } => Class::TooLong,
        ValueError::OutOfRange { .. } => Class::OutOfRange,
        ValueError::BadDatetime { .. } | ValueError::NoOffset => Class::BadDatetime,
        ValueError::DatetimeOverflow { .. } => Class::DatetimeOverflow,
        ValueError::BadHex => Class::BadParameter,
        ValueError::BadEncoding => Class::BadEncoding,
        ValueError::OffsetOverflow => Class::OffsetOverflow,
        ValueError::IntervalOverflow => Class::IntervalOverflow,
        ValueError::BadEscape => Class::BadEscape,
        ValueError::BadBounds => Class::BadBounds,
        ValueError::ArrayTooLarge => Class::TooLarge,
        ValueError::Dimensions => Class::NotSupported,
        ValueError::ElementType => Class::ElementType,
        ValueError::Short => Class::ProtocolViolation,
    };
    let refusal = Refusal::new(class, error.to_string());
    match error.hint() {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    }
}

/// A fault of ours.
pub(super) fn not_granted() -> Refusal {
    Refusal::new(Class::Internal, "a key was not granted")
}

/// The text form of a one-dimensional array.
fn array(items: impl Iterator<Item = Option<String>>) -> Vec<u8> {
    let items: Vec<String> = items
        .map(|item| match item {
            None => "NULL".to_owned(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        })
        .collect();
    format!("{{{}}}", items.join(",")).into_bytes()
}
