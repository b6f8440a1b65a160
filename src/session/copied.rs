//! The rows of the query of an INSERT ... SELECT, between its two steps: collected, opened, and handed to `seal` to be
//! sealed anew. What is sent and in which order: `internal`.
use std::sync::Arc;

use bytes::BytesMut;
use zeroize::{Zeroize, Zeroizing};

use crate::keys::Tenant;
use crate::policy::{Column, OnKeyUnavailable, Read};
use crate::refusal::{Class, Refusal};
use crate::sql::plan::{Copied, CopiedFrom, CopiedTenant, Copies, ResultColumn, Source, StatementPlan};
use crate::types::{self, Format, LogicalType};
use crate::wire::backend;

use super::facts::Facts;
use super::machine::{Fatal, Held, Hold, Machine};
use super::messages::too_large;
use super::open::{Batch, Rows, Session, Shape, Stored, denied};
use super::seal::{Inputs, bad_value, given, of_source};
use super::server_side::{bodies, changed};
use super::shown::Stands;
use super::whose::{confined, missing_tenant, writer};
use super::work::Work;

/// The rows as the server sent them.
#[derive(Default)]
pub(super) struct Sent {
    /// The types of the columns, as the server told them.
    oids: Vec<u32>,
    /// DataRow bodies.
    rows: Vec<Vec<u8>>,
    bytes: usize,
    keys: Rows,
}

/// The values of a row: plain ones in text form, those of sealed columns in binary; `None` for NULL.
pub(super) type CopiedRow = Vec<Option<Zeroizing<Vec<u8>>>>;

/// How far the rows are.
pub(super) enum CopiedRows {
    /// As they came.
    Sent(Sent),
    /// Their values, the sealed ones opened.
    Opened(Vec<CopiedRow>),
}

impl Machine {
    /// Notes what the server says of the query's columns.
    pub(super) fn copied_columns(&mut self, body: &[u8]) -> Result<(), Fatal> {
        let fields = backend::row_description(body)?;
        if let Some(Hold::Source(_, sent)) = &mut self.hold {
            sent.oids = fields.iter().map(|field| field.type_oid).collect();
        }
        Ok(())
    }

    /// Keeps a row of the query. Beyond the limit none is kept: then the statement is refused.
    pub(super) fn copied_row(&mut self, body: &[u8]) {
        if self.copied_bytes(body.len())
            && let Some(Hold::Source(_, sent)) = &mut self.hold
        {
            sent.rows.push(body.to_vec());
        }
    }

    /// Counts the bytes of a row of the query; false when there are too many by now.
    pub(super) fn copied_bytes(&mut self, bytes: usize) -> bool {
        let bytes_max = self.message_bytes_max;
        let Some(Hold::Source(_, sent)) = &mut self.hold else { return false };
        sent.bytes = sent.bytes.saturating_add(bytes);
        let fits = sent.bytes <= bytes_max;
        if !fits {
            sent.rows = Vec::new();
        }
        fits
    }

    /// Opens the rows of the query that is the first step of `plan`, if there are any that are not opened yet. False when
    /// keys must be waited for (the need is left in `client_work`).
    ///
    /// # Errors
    /// Why they cannot be opened, or are not what the target columns take.
    pub(super) fn open_copied(
        &mut self,
        plan: &StatementPlan,
        held: &mut Held,
        facts: &Arc<Facts>,
    ) -> Result<bool, Refusal> {
        let copies = plan.lock.as_ref().and_then(|lock| lock.copies.as_ref());
        let (Some(copies), Some(CopiedRows::Sent(sent))) = (copies, &mut held.copied) else { return Ok(true) };
        if sent.bytes > self.message_bytes_max {
            let refusal = too_large(self.message_bytes_max);
            return Err(Refusal { message: "the rows of INSERT ... SELECT are too large".into(), ..refusal });
        }
        fit(copies, &sent.oids)?;
        if let Some(granted) = held.granted.take() {
            sent.keys.grant(granted);
        }
        let shape = shape(copies, facts);
        let mut batch = read(&shape, sent.rows.iter().map(Vec::as_slice))?;
        let shared = Arc::clone(&self.shared);
        let mut need = batch.keys(&mut sent.keys, &shared.keys.at_hand())?;
        if !(need.open.is_empty() && need.index.is_empty()) {
            let Some(granted) = shared.keys.try_grant(&need) else {
                self.client_work.put(Work::Grant(need));
                return Ok(false);
            };
            sent.keys.grant(granted);
            need = batch.keys(&mut sent.keys, &shared.keys.at_hand())?;
            if !(need.open.is_empty() && need.index.is_empty()) {
                return Err(Refusal::new(Class::Internal, "a key was not granted"));
            }
        }
        // A value that cannot be opened must not become NULL.
        let session = Session { facts, on_unavailable: OnKeyUnavailable::Error };
        let (mut uses, mut out) = (Vec::new(), BytesMut::new());
        let (rows, opened) = batch.open(&sent.keys, &session, &mut uses, &mut out);
        let requests = sent.keys.take_requests();
        let taken = opened.and_then(|()| self.audit(uses, rows, requests)).and_then(|()| take(&out));
        out.as_mut().zeroize();
        held.copied = Some(CopiedRows::Opened(taken?));
        Ok(true)
    }
}

/// The rows that a message waits with, once they are opened.
pub(super) fn opened(held: &Option<CopiedRows>) -> Option<&[CopiedRow]> {
    match held {
        Some(CopiedRows::Opened(rows)) => Some(rows),
        Some(CopiedRows::Sent(_)) | None => None,
    }
}

/// The format codes in which the query's columns are asked for: cells in binary, all else as text.
pub(super) fn formats(copies: &Copies) -> Vec<i16> {
    let of = |column: &ResultColumn| i16::from(!matches!(column, ResultColumn::Plain));
    copies.columns.iter().map(of).chain(std::iter::repeat_n(0, copies.hidden)).collect()
}

/// Refuses a role that may not see what the query reads.
///
/// # Errors
/// 42501.
pub(super) fn may_read(copies: &Copies, facts: &Facts) -> Result<(), Refusal> {
    match copies.columns.iter().find_map(ResultColumn::sealed) {
        Some(column) if facts.read != Read::Open => Err(denied(column)),
        _ => Ok(()),
    }
}

fn shape(copies: &Copies, facts: &Arc<Facts>) -> Shape {
    Shape {
        columns: copies.columns.clone(),
        hidden: copies.hidden,
        formats: formats(copies),
        stored: Stored::Binary,
        facts: facts.clone(),
        given: Stands::default(),
    }
}

fn read<'a>(shape: &'a Shape, rows: impl Iterator<Item = &'a [u8]>) -> Result<Batch<'a>, Refusal> {
    let malformed = |_| Refusal::new(Class::Internal, "a row is malformed");
    Batch::read(shape, rows).map_err(malformed)??.ok_or_else(changed)
}

/// The values of opened rows.
fn take(out: &[u8]) -> Result<Vec<CopiedRow>, Refusal> {
    let own = |value: Option<&[u8]>| value.map(|value| Zeroizing::new(value.to_vec()));
    bodies(out)
        .map(|body| {
            let values = backend::data_row(body).map_err(|_| Refusal::new(Class::Internal, "a row is malformed"))?;
            Ok(values.into_iter().map(own).collect())
        })
        .collect()
}

/// Checks that the query gives values of types that the proxy assigns as Postgres does.
fn fit(copies: &Copies, oids: &[u32]) -> Result<(), Refusal> {
    if oids.len() != copies.columns.len() + copies.hidden {
        return Err(changed());
    }
    for (at, (copied, oid)) in copies.targets.iter().zip(oids).enumerate() {
        let fits = match copied {
            Copied::Plain { type_oid } => keeps(*oid, *type_oid),
            Copied::Unsealed(column) => column.logical.reads(*oid),
            Copied::Sealed | Copied::Constant => true,
        };
        if !fits {
            let message =
                format!("column {} of the query of INSERT ... SELECT is of another type than its target", at + 1);
            return Err(Refusal::new(Class::NotSupported, message).hint("Cast it to the type of the column."));
        }
    }
    Ok(())
}

/// True when the text form of a value of one type is that of the same value of the other, as assigned.
fn keeps(from: u32, to: u32) -> bool {
    from == to || matches!((from, to), (21, 23 | 20 | 1700) | (23, 20 | 1700) | (20, 1700) | (25, 1043) | (1043, 25))
}

/// The places of the rows that get a cell, with their tenants.
///
/// # Errors
/// 55000 where one has none, 42501 where it is not the one the session is confined to.
pub(super) fn tenants(
    (source, from): (&Source, CopiedFrom),
    tenant: &CopiedTenant,
    column: &Column,
    inputs: &Inputs<'_>,
) -> Result<Vec<(usize, Tenant)>, Refusal> {
    let rows = inputs.copied.unwrap_or_default();
    let is_given = |row: &CopiedRow| match from {
        CopiedFrom::Sealed(at) | CopiedFrom::Plain(at) => row.get(at).is_some_and(Option::is_some),
        CopiedFrom::Constant => given(source, inputs).is_some(),
    };
    let places = rows.iter().enumerate().filter(|(_, row)| is_given(row));
    let of = |row: &CopiedRow| match tenant {
        CopiedTenant::Same(tenant) => writer(tenant, column, inputs),
        CopiedTenant::Column { at, type_oid } => {
            let text = row.get(*at).and_then(Option::as_ref).ok_or_else(|| missing_tenant(column))?;
            let name = types::text_of_plain(*type_oid, Format::Text, text).ok_or_else(|| missing_tenant(column))?;
            confined(name.into(), inputs)
        }
    };
    places.map(|(at, row)| Ok((at, of(row)?))).collect()
}

/// The canonical form of the value that one row's cell holds.
///
/// # Errors
/// The error that Postgres gives for a value that is not of the column's type.
///
/// # Secrets
/// The result is plaintext.
pub(super) fn canonical(
    (source, from): (&Source, CopiedFrom),
    row: &CopiedRow,
    logical: LogicalType,
    inputs: &Inputs<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal> {
    let (format, at) = match from {
        CopiedFrom::Constant => return Ok(of_source(source, logical, inputs)?.map(Zeroizing::new)),
        CopiedFrom::Sealed(at) => (Format::Binary, at),
        CopiedFrom::Plain(at) => (Format::Text, at),
    };
    let Some(value) = row.get(at).and_then(Option::as_ref) else { return Ok(None) };
    let mut out = Zeroizing::new(Vec::with_capacity(value.len() + 8));
    types::canonical(logical, format, value, &inputs.facts.style, &mut out).map_err(|error| bad_value(&error))?;
    Ok(Some(out))
}

/// The plain values of a column of all rows.
pub(super) fn plain(at: usize, inputs: &Inputs<'_>) -> impl Iterator<Item = Option<String>> {
    let text = |value: &Zeroizing<Vec<u8>>| String::from_utf8_lossy(value).into_owned();
    inputs.copied.unwrap_or_default().iter().map(move |row| row.get(at).and_then(Option::as_ref).map(text))
}
