//! Rows of a COPY FROM on their way from the client's format to the server's: first taken apart, which says which keys they
//! need, then sealed and written. No I/O.
use std::borrow::Cow;
use std::sync::Arc;

use bytes::BytesMut;
use zeroize::{Zeroize, Zeroizing};

use crate::audit::Act;
use crate::crypto::{KeyId, RowKey, TokenKey};
use crate::keys::{FreshDek, Granted, Need, Tenant};
use crate::policy::Column;
use crate::refusal::{Class, Refusal};
use crate::sql::plan::{self, Role, Source, TenantSource};
use crate::types::{self, Exact, Format as ValueFormat, ValueError};
use crate::wire::copy::{Field, Format, Kind, Options, Value, Writer, Written, fields_into, value};

use super::cells::{self, writes_cells};
use super::copy::bad_rows;
use super::facts::Facts;
use super::seal::{self, Use, bad_value, not_granted};
use super::whose;

/// What is wrong with a row, and in which column (counted from 0) if it is one column's value.
pub(super) type Wrong = (Refusal, Option<usize>);

/// How the rows of one COPY are read and written.
pub(super) struct Form {
    /// What becomes of each column.
    columns: Vec<Part>,
    /// Whose row it is; the same for all sealed columns.
    tenant: Option<TenantSource>,
    /// True when the server takes them in binary, whatever the client sends.
    pub is_binary: bool,
    /// How they are written for the server.
    written: Options,
    /// The server's version, which decides how some texts are read.
    server_version: u32,
}

/// What becomes of a column.
enum Part {
    /// It goes on as it came.
    Raw,
    /// Its text becomes binary.
    Exact(Exact),
    /// It is sealed.
    Sealed(Arc<Column>),
}

impl Form {
    pub(super) fn new(copy: &plan::CopyIn, server_version: u32) -> Self {
        let exact = |at: usize| copy.binary.as_ref().and_then(|columns| columns.get(at).copied().flatten());
        let mut columns: Vec<Part> = (0..copy.names.len()).map(|at| exact(at).map_or(Part::Raw, Part::Exact)).collect();
        let mut whose = None;
        for slot in &copy.row.values {
            let (Source::Param(at), Role::Seal { column, tenant, .. }) = (&slot.source, &slot.role) else { continue };
            if let Some(part) = columns.get_mut(usize::from(*at)) {
                *part = Part::Sealed(column.clone());
                whose = Some(tenant.clone());
            }
        }
        let is_binary = copy.binary.is_some();
        let written = if is_binary { Options::of(Format::Binary) } else { copy.options.clone() };
        Form { columns, tenant: whose, is_binary, written, server_version }
    }
}

/// What rows are taken by.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    pub copy: &'a plan::CopyIn,
    pub form: &'a Form,
    pub facts: &'a Facts,
}

/// Rows that are sealed together.
#[derive(Default)]
pub(super) struct Taken {
    /// Canonical values to be sealed, and the other fields as they are written.
    bytes: Zeroizing<Vec<u8>>,
    items: Vec<Item>,
    rows: Vec<Row>,
    /// The field that named the last tenant, and which of those in `need` it is.
    named: Option<(Vec<u8>, usize)>,
    /// The keys that they need: fresh ones for each tenant, in the order in which the tenants appeared.
    pub need: Need,
}

struct Row {
    line: u64,
    /// Its tenant, when it has a value to be sealed.
    tenant: Option<usize>,
}

/// One field.
#[derive(Clone, Copy)]
struct Item {
    /// Where it ends in the bytes.
    end: usize,
    is_null: bool,
}

impl Taken {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The lines of all rows.
    pub(super) fn lines(&self) -> impl Iterator<Item = u64> {
        self.rows.iter().map(|row| row.line)
    }

    /// Forgets all rows; the memory stays for the next ones.
    pub(super) fn clear(&mut self) {
        self.bytes.zeroize();
        self.items.clear();
        self.rows.clear();
        (self.named, self.need) = (None, Need::default());
    }

    /// Takes one row. After an error it holds what it held before.
    ///
    /// # Errors
    /// What Postgres says of such a row, without the values in it.
    ///
    /// # Secrets
    /// The sealed columns' values are kept until the rows are sealed.
    pub(super) fn take(&mut self, (row, line): (&[u8], u64), by: By<'_>, fields: &mut Vec<Field>) -> Result<(), Wrong> {
        let (items, start) = (self.items.len(), self.bytes.len());
        let (fresh, index, open) = (self.need.fresh.len(), self.need.index.len(), self.need.open.len());
        match self.read(row, by, fields) {
            Ok(tenant) => {
                if let Some((_, count)) = tenant.and_then(|tenant| self.need.fresh.get_mut(tenant)) {
                    *count += usize::from(!writes_cells(by.facts));
                }
                self.rows.push(Row { line, tenant });
                Ok(())
            }
            Err(wrong) => {
                self.items.truncate(items);
                self.bytes.truncate(start);
                // The keys of a tenant that only this row has named are not asked for.
                self.need.fresh.truncate(fresh);
                self.need.index.truncate(index);
                self.need.open.truncate(open);
                self.named = None;
                Err(wrong)
            }
        }
    }

    fn read(&mut self, row: &[u8], by: By<'_>, fields: &mut Vec<Field>) -> Result<Option<usize>, Wrong> {
        // Postgres looks at the encoding of a line before it takes it apart. Where it will not see the line, it is done here.
        if by.form.is_binary && std::str::from_utf8(row).is_err() {
            return Err((bad_value(&ValueError::BadEncoding), None));
        }
        fields.clear();
        fields_into(row, &by.copy.options, fields).map_err(|bad| (bad_rows(bad), None))?;
        check_width(fields.len(), by.copy).map_err(|refusal| (refusal, None))?;
        let mut tenant = None;
        for (at, (part, field)) in by.form.columns.iter().zip(fields.iter()).enumerate() {
            let is_there = match part {
                Part::Raw => {
                    self.bytes.extend_from_slice(row.get(field.raw.clone()).unwrap_or_default());
                    field.kind != Kind::Null
                }
                Part::Exact(exact) => match given(row, (field, at), by)? {
                    None => false,
                    Some(text) => {
                        let read = exact.binary(&text, by.form.server_version, &mut self.bytes);
                        read.map_err(|error| of_column(bad_value(&error), at))?;
                        true
                    }
                },
                Part::Sealed(column) => match given(row, (field, at), by)? {
                    None => false,
                    Some(value) => {
                        self.value(&value, column, by).map_err(|refusal| of_column(refusal, at))?;
                        if tenant.is_none() {
                            let found = self.tenant((row, fields), column, by);
                            tenant = Some(found.map_err(|refusal| of_column(refusal, at))?);
                        }
                        true
                    }
                },
            };
            self.items.push(Item { end: self.bytes.len(), is_null: !is_there });
        }
        // Postgres misses a column when it comes to it.
        missing(fields.len(), by.copy).map_err(|refusal| (refusal, None))?;
        Ok(tenant)
    }

    /// Keeps a value to be sealed; or a cell, where the role writes those.
    fn value(&mut self, value: &[u8], column: &Column, by: By<'_>) -> Result<(), Refusal> {
        if writes_cells(by.facts) {
            let cell = cells::given((value_format(by), value), column)?;
            cells::want_key(&mut self.need, &cell, column)?;
            self.bytes.extend_from_slice(&cell);
            return Ok(());
        }
        types::canonical(column.logical, value_format(by), value, &by.facts.style, &mut self.bytes)
            .map_err(|error| bad_value(&error))
    }

    /// Whose row it is.
    fn tenant(&mut self, (row, fields): (&[u8], &[Field]), column: &Column, by: By<'_>) -> Result<usize, Refusal> {
        let source = by.form.tenant.as_ref().ok_or_else(not_granted)?;
        let mut named_by = None;
        if let TenantSource::Param { index, .. } = source {
            let place = usize::from(*index);
            let Some(field) = fields.get(place) else {
                missing(fields.len(), by.copy)?;
                return Err(not_granted());
            };
            named_by = given(row, (field, place), by).map_err(|(refusal, _)| refusal)?;
        }
        if let Some((before, tenant)) = &self.named
            && named_by.as_deref().unwrap_or_default() == before.as_slice()
            && (named_by.is_some() || !matches!(source, TenantSource::Param { .. }))
        {
            return Ok(*tenant);
        }
        let tenant = match (source, &named_by) {
            (TenantSource::Param { type_oid, .. }, Some(value)) => {
                let name = types::read_plain(*type_oid, value_format(by), value);
                name.map_err(|error| bad_value(&error))?.map(Tenant::from)
            }
            (TenantSource::Param { .. }, None) | (TenantSource::Nobody, _) => None,
            (TenantSource::Misread(error), _) => return Err(bad_value(error)),
            (TenantSource::Fixed(name) | TenantSource::Literal(name), _) => Some(name.clone()),
            (TenantSource::Session, _) => Some(whose::session_tenant(column, by.facts)?),
        };
        let tenant = tenant.ok_or_else(|| whose::missing_tenant(column))?;
        let tenant = whose::confined_to(by.facts, tenant)?;
        let known = self.need.fresh.iter().position(|(known, _)| *known == tenant);
        let at = known.unwrap_or_else(|| {
            for part in &by.form.columns {
                if let Part::Sealed(column) = part {
                    seal::want_index(&mut self.need, column, &tenant);
                }
            }
            self.need.fresh.push((tenant, 0));
            self.need.fresh.len() - 1
        });
        self.named = Some((named_by.unwrap_or_default().into_owned(), at));
        Ok(at)
    }

    /// Seals and writes the rows, up to the first that cannot be. Appends to `uses` what is to be recorded before `out`
    /// leaves.
    ///
    /// # Errors
    /// The number of the row (from 0), and what is wrong.
    pub(super) fn seal(
        &self,
        by: By<'_>,
        granted: &mut Granted,
        uses: &mut Vec<Use>,
        out: &mut BytesMut,
    ) -> Result<(), (usize, Refusal)> {
        let mut tenants: Vec<Writing> =
            self.need.fresh.iter().map(|(tenant, _)| Writing::new(tenant, by.form, granted)).collect();
        let writer = Writer::new(&by.form.written, by.form.columns.len());
        out.reserve(self.bytes.len() + self.items.len() * 16);
        let (mut start, mut cell) = (0, Vec::new());
        for (number, (row, items)) in self.rows.iter().zip(self.items.chunks(by.form.columns.len())).enumerate() {
            let whole = out.len();
            let mut tenant = row.tenant.and_then(|tenant| tenants.get_mut(tenant));
            let mut write = || {
                let sealing = if writes_cells(by.facts) { None } else { tenant.as_mut() };
                let fresh = sealing.map(|tenant| tenant.fresh(uses)).transpose()?;
                let fresh = fresh.as_ref().map(|fresh| (fresh, RowKey::new(&fresh.dek)));
                writer.start(out);
                for (at, (part, item)) in by.form.columns.iter().zip(items).enumerate() {
                    let bytes = &self.bytes[start..item.end];
                    start = item.end;
                    let written = match (part, &mut tenant, &fresh) {
                        _ if item.is_null => Written::Null,
                        (Part::Raw | Part::Exact(_), ..) => Written::Raw(bytes),
                        (Part::Sealed(column), Some(tenant), Some((fresh, key))) => {
                            cell.clear();
                            tenant.seal((column, at), bytes, (fresh, key), &mut cell)?;
                            Written::Cell(&cell)
                        }
                        (Part::Sealed(column), Some(tenant), None) if writes_cells(by.facts) => {
                            tenant.keep(column, bytes, granted, uses)?;
                            Written::Cell(bytes)
                        }
                        (Part::Sealed(_), ..) => return Err(not_granted()),
                    };
                    writer.field(at, written, out);
                }
                writer.end(out);
                Ok(())
            };
            if let Err(refusal) = write() {
                out.truncate(whole);
                return Err((number, refusal));
            }
        }
        Ok(())
    }
}

/// A tenant whose rows are written.
struct Writing<'a> {
    tenant: &'a Tenant,
    /// Keys not used yet.
    deks: Vec<FreshDek>,
    /// For each column: what makes its tokens.
    tokens: Vec<Option<TokenKey>>,
    columns: Vec<Arc<str>>,
    /// Which of the uses it is.
    used: Option<usize>,
}

impl<'a> Writing<'a> {
    fn new(tenant: &'a Tenant, form: &Form, granted: &mut Granted) -> Self {
        let token = |part: &Part| match part {
            Part::Sealed(column) if column.equality.is_some() => {
                let root = granted.index.get(&whose::index_tenant(column, tenant))?;
                Some(TokenKey::derive(root, column.token_scope()))
            }
            _ => None,
        };
        let tokens = form.columns.iter().map(token).collect();
        let name = |part: &Part| match part {
            Part::Sealed(column) => Some(column.qualified.clone()),
            Part::Raw | Part::Exact(_) => None,
        };
        let columns = form.columns.iter().filter_map(name).collect();
        Writing { tenant, deks: granted.fresh.remove(tenant).unwrap_or_default(), tokens, columns, used: None }
    }

    /// The key of the next row.
    fn fresh(&mut self, uses: &mut Vec<Use>) -> Result<FreshDek, Refusal> {
        let fresh = self.deks.pop().ok_or_else(not_granted)?;
        self.using((Act::Seal, fresh.slot.key_id), uses).dek_ids.push(fresh.slot.dek_id);
        Ok(fresh)
    }

    /// Checks a cell that is written as it came.
    fn keep(&mut self, column: &Column, cell: &[u8], granted: &Granted, uses: &mut Vec<Use>) -> Result<(), Refusal> {
        let (act, key, dek) = cells::check(cell, column, self.tenant, granted)?;
        self.using((act, key), uses).dek_ids.push(dek);
        Ok(())
    }

    /// The use of a key that is to be recorded.
    fn using<'u>(&mut self, (act, key): (Act, KeyId), uses: &'u mut Vec<Use>) -> &'u mut Use {
        let used = match self.used {
            Some(used) if uses[used].key == Some(key) => used,
            _ => {
                let (tenant, columns) = (self.tenant.clone(), self.columns.clone());
                let dek_ids = Vec::with_capacity(self.deks.len() + 1);
                uses.push(Use { act, tenant, key: Some(key), dek_ids, columns });
                uses.len() - 1
            }
        };
        self.used = Some(used);
        &mut uses[used]
    }

    fn seal(
        &self,
        (column, at): (&Column, usize),
        value: &[u8],
        fresh: (&FreshDek, &RowKey),
        cell: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let token = match (column.equality, self.tokens.get(at)) {
            (None, _) => None,
            (Some(_), Some(Some(key))) => Some(key.token(&types::token_form(column.logical, value))),
            (Some(_), _) => return Err(not_granted()),
        };
        seal::seal_value((column, self.tenant), (value, token), fresh, cell)
    }
}

/// What is said of one column's value. Postgres looks at the encoding before it knows of columns.
fn of_column(refusal: Refusal, at: usize) -> Wrong {
    let is_value = refusal.class != Class::BadEncoding && refusal.class != Class::BadCopy;
    (refusal, is_value.then_some(at))
}

fn value_format(by: By<'_>) -> ValueFormat {
    if by.copy.options.format == Format::Binary { ValueFormat::Binary } else { ValueFormat::Text }
}

/// What a field stands for; `None` for NULL.
fn given<'r>(row: &'r [u8], (field, at): (&Field, usize), by: By<'_>) -> Result<Option<Cow<'r, [u8]>>, Wrong> {
    match value(row, field, at, &by.copy.options) {
        Value::Null => Ok(None),
        Value::Bytes(bytes) => Ok(Some(bytes)),
        Value::Default => {
            let name = by.copy.names.get(at).map_or("", String::as_str);
            let refusal = Refusal::new(Class::BadCopy, "unexpected default marker in COPY data")
                .detail(format!("Column \"{name}\" must be given: it is sealed, or names the tenant."));
            Err((refusal, None))
        }
    }
}

/// Refuses a row that lacks a column.
fn missing(count: usize, copy: &plan::CopyIn) -> Result<(), Refusal> {
    let missing = |name| Refusal::new(Class::BadCopy, format!("missing data for column \"{name}\""));
    copy.names.get(count).map_or(Ok(()), |name| Err(missing(name)))
}

/// Refuses a row with more fields than there are columns; in binary also one with less.
fn check_width(count: usize, copy: &plan::CopyIn) -> Result<(), Refusal> {
    let bad = |message: String| Err(Refusal::new(Class::BadCopy, message));
    let expected = copy.names.len();
    if copy.options.format == Format::Binary && count != expected {
        return bad(format!("row field count is {count}, expected {expected}"));
    }
    if count > expected {
        return bad("extra data after last expected column".to_owned());
    }
    Ok(())
}
