//! Values to cells, each row under a fresh data key, and cells to values. Key uses are recorded before anything is stored.
use std::collections::HashMap;
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use super::{ColumnError, Job};
use crate::audit::{Act, Record};
use crate::crypto::{self, Cell, DekId, KeyId, RowKey};
use crate::keys::{Granted, KeyError, Need, Tenant};
use crate::session::open::plaintext;
use crate::session::seal::{seal_value, want_index};
use crate::session::whose::index_tenant;
use crate::types::{self, Format, TextStyle};

/// How often keys are asked for while the key service cannot be reached.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// One row as it was read.
///
/// # Secrets
/// `value` may be plaintext; no Debug.
pub(super) struct Row {
    /// Its ctid and xmin: this version of it and no other.
    pub(super) at: String,
    pub(super) version: String,
    pub(super) tenant: Option<Tenant>,
    /// In binary form.
    pub(super) value: Option<Zeroizing<Vec<u8>>>,
    pub(super) key: Vec<String>,
}

/// Texts that are wiped when they were sent.
pub(super) struct Texts(pub(super) Vec<Option<String>>);

impl Drop for Texts {
    fn drop(&mut self) {
        self.0.iter_mut().flatten().for_each(Zeroize::zeroize);
    }
}

/// Key uses of one batch, by tenant and key.
#[derive(Default)]
struct Uses(HashMap<(Tenant, KeyId), Vec<DekId>>);

impl Uses {
    fn note(&mut self, tenant: &Tenant, key: KeyId, dek: DekId) {
        self.0.entry((tenant.clone(), key)).or_default().push(dek);
    }
}

/// A cell for each value.
pub(super) async fn seal(job: &Job<'_>, rows: &[Row]) -> Result<Vec<Option<Vec<u8>>>, ColumnError> {
    let mut need = Need::default();
    for row in rows.iter().filter(|row| row.value.is_some()) {
        let tenant = whose(job, row)?;
        want_index(&mut need, job.column, tenant);
        match need.fresh.iter_mut().find(|(known, _)| known == tenant) {
            Some((_, count)) => *count += 1,
            None => need.fresh.push((tenant.clone(), 1)),
        }
    }
    let mut granted = grant(job, need).await?;
    let (mut uses, mut cells) = (Uses::default(), Vec::with_capacity(rows.len()));
    for row in rows {
        cells.push(match &row.value {
            Some(value) => Some(cell(job, (row, value), &mut granted, &mut uses)?),
            None => None,
        });
    }
    record(job, Act::Seal, uses, granted.kms_requests).await?;
    Ok(cells)
}

fn cell(
    job: &Job<'_>,
    (row, value): (&Row, &[u8]),
    granted: &mut Granted,
    uses: &mut Uses,
) -> Result<Vec<u8>, ColumnError> {
    let (column, tenant) = (job.column, whose(job, row)?);
    let mut canonical = Zeroizing::new(Vec::with_capacity(value.len() + 8));
    types::canonical(column.logical, Format::Binary, value, &style(), &mut canonical)
        .map_err(|error| unfit(job, row, error.to_string()))?;
    let token = match column.equality {
        Some(_) => {
            let root = granted.index.get(&index_tenant(column, tenant)).ok_or_else(not_granted)?;
            Some(crypto::token(root, column.token_scope(), &types::token_form(column.logical, &canonical)))
        }
        None => None,
    };
    let fresh = granted.fresh.get_mut(tenant).and_then(Vec::pop).ok_or_else(not_granted)?;
    let mut out = Vec::new();
    seal_value((column, tenant), (&canonical, token), (&fresh, &RowKey::new(&fresh.dek)), &mut out)
        .map_err(|refusal| unfit(job, row, refusal.message.into_owned()))?;
    uses.note(tenant, fresh.slot.key_id, fresh.slot.dek_id);
    Ok(out)
}

/// The text of each cell's value, as the server reads it.
pub(super) async fn open(job: &Job<'_>, rows: &[Row]) -> Result<Texts, ColumnError> {
    let mut need = Need::default();
    let mut cells = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(value) = &row.value else {
            cells.push(None);
            continue;
        };
        let cell = Cell::parse(value).map_err(|_| damaged(job, row))?;
        if need.open.iter().all(|slot| slot.dek_id != cell.slot().dek_id) {
            need.open.push(cell.slot().owned());
        }
        want_index(&mut need, job.column, whose(job, row)?);
        cells.push(Some(cell));
    }
    let granted = grant(job, need).await?;
    let (mut uses, mut texts) = (Uses::default(), Texts(Vec::with_capacity(rows.len())));
    for (row, cell) in rows.iter().zip(cells) {
        texts.0.push(match cell {
            Some(cell) => Some(text(job, (row, &cell), &granted, &mut uses)?),
            None => None,
        });
    }
    record(job, Act::Open, uses, granted.kms_requests).await?;
    Ok(texts)
}

fn text(
    job: &Job<'_>,
    (row, cell): (&Row, &Cell<'_>),
    granted: &Granted,
    uses: &mut Uses,
) -> Result<String, ColumnError> {
    let (column, slot) = (job.column, cell.slot());
    let dek = granted.open.get(&slot.dek_id).ok_or_else(not_granted)?.as_ref().map_err(Clone::clone)?;
    if dek.tenant != *whose(job, row)? {
        return Err(damaged(job, row));
    }
    let root = granted.index.get(&index_tenant(column, &dek.tenant)).map(|root| &**root);
    let plain = plaintext(cell, column, (dek, &RowKey::new(&dek.dek)), root).map_err(|_| damaged(job, row))?;
    let mut out = Vec::new();
    types::render(column.logical, Format::Text, plain.value(), &style(), &mut out)
        .map_err(|error| unfit(job, row, error.to_string()))?;
    uses.note(&dek.tenant, slot.key_id, slot.dek_id);
    String::from_utf8(out).map_err(|error| {
        error.into_bytes().zeroize();
        damaged(job, row)
    })
}

/// Asks for keys; registers a tenant that has come meanwhile, where that is allowed.
async fn grant(job: &Job<'_>, need: Need) -> Result<Granted, ColumnError> {
    for attempt in 1.. {
        if let Some(granted) = job.keys.try_grant(&need) {
            return Ok(granted);
        }
        match (job.keys.grant(need.clone()).await, job.options.auto_register) {
            (Ok(granted), _) => return Ok(granted),
            (Err(KeyError::UnknownTenant(tenant)), Some(wrapping)) => drop(job.keys.register(&tenant, wrapping).await?),
            (Err(KeyError::Unreachable), _) if attempt < ATTEMPTS => tokio::time::sleep(PAUSE).await,
            (Err(error), _) => {
                refused(job, &error).await?;
                return Err(error.into());
            }
        }
    }
    Err(not_granted())
}

async fn record(job: &Job<'_>, act: Act, uses: Uses, requests: Vec<String>) -> Result<(), ColumnError> {
    let who = job.journal.who(&format!("rowseal column {}", job.direction.word()));
    let record = |((tenant, key), dek_ids): ((Tenant, KeyId), Vec<DekId>)| Record {
        act,
        who: who.clone(),
        statement: 0,
        tenant,
        key: Some(key),
        rows: dek_ids.len() as u64,
        dek_ids,
        columns: vec![job.column.qualified.clone()],
        result: "ok",
        kms_requests: requests.clone(),
        detail: None,
    };
    let records: Vec<Record> = uses.0.into_iter().map(record).collect();
    if records.is_empty() { Ok(()) } else { job.journal.append(&records).await }
}

/// Records that keys could not be had.
async fn refused(job: &Job<'_>, error: &KeyError) -> Result<(), ColumnError> {
    let tenant = match error {
        KeyError::UnknownTenant(tenant)
        | KeyError::Unavailable(tenant)
        | KeyError::Deactivated(tenant)
        | KeyError::Purged(tenant) => tenant.clone(),
        KeyError::UnknownKey | KeyError::Damaged | KeyError::Unreachable | KeyError::Unrecorded => "".into(),
    };
    let record = Record {
        act: Act::Refuse,
        who: job.journal.who(&format!("rowseal column {}", job.direction.word())),
        statement: 0,
        tenant,
        key: None,
        dek_ids: vec![],
        columns: vec![job.column.qualified.clone()],
        rows: 0,
        result: crate::session::open::key_refusal(error).class.sqlstate(),
        kms_requests: vec![],
        detail: None,
    };
    job.journal.append(&[record]).await
}

fn whose<'r>(job: &Job<'_>, row: &'r Row) -> Result<&'r Tenant, ColumnError> {
    row.tenant.as_ref().ok_or_else(|| ColumnError::NoTenant(format!("{}.{}", job.table.schema, job.table.name)))
}

fn unfit(job: &Job<'_>, row: &Row, why: String) -> ColumnError {
    ColumnError::Value { column: job.column.qualified.clone(), row: row.at.clone(), why }
}

fn damaged(job: &Job<'_>, row: &Row) -> ColumnError {
    unfit(job, row, "the stored value could not be opened".to_owned())
}

fn not_granted() -> ColumnError {
    ColumnError::Internal("a key was not granted")
}

/// How the session's server reads texts, as `prepare` has set it.
fn style() -> TextStyle {
    TextStyle {
        date_style: "ISO, MDY".to_owned(),
        time_zone: "UTC".to_owned(),
        interval_style: "postgres".to_owned(),
        bytea_hex: true,
        extra_float_digits: 1,
    }
}
