//! Values sealed anew under a data key of their own: the deeper kind of rotation, for when data keys may be known too.
//!
//! Each row gets a fresh data key for those of its cells that hang on the old master key. The values are opened in this
//! process and sealed at once, with their type, their token and the padding of their column.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::JobError;
use super::rewrap::{Replaced, RowCells};
use super::tables::Table;
use super::worker::LOCK_TIMEOUT;
use super::wraps::{From, To, Wraps};
use crate::catalog;
use crate::crypto::{
    self, Binding, BranchWrap, Cell, Dek, DekId, KeyId, OwnedSlot, RowKey, SealInput, Token, WrapAlgorithm,
    random_bytes,
};
use crate::keys::context;
use crate::keys::kms::KmsErrorClass;
use crate::policy;

/// What the policy says of the sealed columns, by table and column name as the audit log has them.
pub(super) struct Columns(HashMap<Arc<str>, Arc<policy::Column>>);

impl Columns {
    /// The policy's entries of all columns of these tables; a partition or child has its parent's.
    ///
    /// # Errors
    /// [`JobError::Blocked`] for a column that the policy does not know: what its cells are bound to is not known then.
    pub(super) async fn read(client: &Client, policy: &policy::Database, tables: &[Table]) -> Result<Self, JobError> {
        let catalog = catalog::load(client, policy, None).await;
        let catalog = catalog.map_err(|_| JobError::Internal("the catalog cannot be read"))?;
        client.batch_execute(LOCK_TIMEOUT).await.map_err(JobError::server("prepare the session"))?;
        let mut columns = HashMap::new();
        for table in tables.iter().filter(|table| !table.is_view) {
            let relation = catalog.by_oid.get(&table.oid);
            for column in table.own_columns() {
                let plain = column.name.strip_prefix(&*table.name).and_then(|name| name.strip_prefix('.'));
                let entry = relation.zip(plain).and_then(|(relation, name)| relation.attribute(name)?.sealed.clone());
                let unknown = || {
                    let hint = "add it, so that it is known what its cells are bound to";
                    JobError::Blocked(format!("{} is not in the policy: {hint}", column.name))
                };
                columns.insert(column.name.clone(), entry.ok_or_else(unknown)?);
            }
        }
        Ok(Columns(columns))
    }
}

/// Data keys that were opened, by their slots; `None` for one that does not unwrap.
type Opened = HashMap<Vec<u8>, Option<RowKey>>;

/// A fresh data key with its slot.
type Fresh = (Dek, OwnedSlot);

/// Opens and seals anew the cells of these rows.
///
/// # Errors
/// What the key service says of the keys, or that it cannot be reached. A cell that does not open is no error.
///
/// # Secrets
/// Values are in memory one at a time, and wiped.
pub(super) async fn reseal(
    wraps: &Wraps,
    known: &Columns,
    (columns, rows): (&[Arc<str>], &[RowCells]),
) -> Result<Replaced, JobError> {
    let slots = rows.iter().flat_map(|row| row.cells.iter().flatten().map(|cell| cell.slot.clone())).collect();
    let mut kms_requests = Vec::new();
    let opened = wraps.open_all(slots, &mut kms_requests).await?;
    let fresh = wraps.fresh(rows.len(), &mut kms_requests).await?;
    let mut new = Vec::with_capacity(rows.len());
    for (row, (dek, slot)) in rows.iter().zip(&fresh) {
        let key = RowKey::new(dek);
        let cell = |(column, cell): (&Arc<str>, &Option<super::rewrap::OldCell>)| {
            let (cell, column) = (cell.as_ref()?, known.0.get(column)?);
            again(wraps, column, (opened.get(&cell.slot)?.as_ref()?, cell.bytes.as_deref()?), (&key, slot))
        };
        new.push(columns.iter().zip(&row.cells).map(cell).collect());
    }
    let dek_ids = fresh.iter().map(|(_, slot)| slot.dek_id).collect();
    Ok(Replaced { new, kms_requests, fresh: Some((wraps.new_key(), dek_ids)) })
}

/// One cell: opened with the old key, sealed with the new one. `None` when it does not open.
fn again(
    wraps: &Wraps,
    column: &policy::Column,
    (old, bytes): (&RowKey, &[u8]),
    (key, slot): (&RowKey, &OwnedSlot),
) -> Option<Vec<u8>> {
    let cell = Cell::parse(bytes).ok()?;
    let binding = Binding { tenant: &wraps.tenant, column: &column.binding };
    let value = crypto::open_with(&cell, &binding, old).ok()?;
    let padding = if cell.is_padded() { column.padding.into() } else { crypto::Padding::None };
    let (type_tag, token) = (value.type_tag(), cell.token.map(|token| Token(*token)));
    let input = SealInput { binding, type_tag, value: value.value(), token, padding, slot };
    let mut out = Vec::with_capacity(bytes.len());
    crypto::seal_with(&input, key, random_bytes(), &mut out).ok()?;
    Some(out)
}

impl Wraps {
    fn new_key(&self) -> KeyId {
        match &self.to {
            To::Master(id, _) | To::Branch(id, _) => *id,
        }
    }

    /// Opens the data keys of these slots, each once.
    async fn open_all(&self, slots: HashSet<Vec<u8>>, requests: &mut Vec<String>) -> Result<Opened, JobError> {
        let (mut opened, mut calls) = (Opened::new(), JoinSet::new());
        for bytes in slots {
            let slot = OwnedSlot::parse(&bytes).ok();
            let way = slot.and_then(|slot| Some((self.from.get(&slot.key_id)?, slot)));
            match way {
                Some((From::Master(old), slot)) if slot.algorithm == WrapAlgorithm::Kms => {
                    let (kms, context, old) = (self.kms.clone(), context::dek(&self.tenant, slot.dek_id), old.clone());
                    if calls.len() >= self.calls_max {
                        taken(calls.join_next().await, &mut opened, requests)?;
                    }
                    calls.spawn(async move { (bytes, kms.decrypt(&old, &slot.wrapped, &context).await) });
                }
                Some((From::Branch(old), slot)) if slot.algorithm == WrapAlgorithm::Branch => {
                    let dek = old.unwrap(&self.tenant, slot.key_id, slot.dek_id, &slot.wrapped).ok();
                    opened.insert(bytes, dek.map(|dek| RowKey::new(&dek)));
                }
                _ => drop(opened.insert(bytes, None)),
            }
        }
        while let Some(call) = calls.join_next().await {
            taken(Some(call), &mut opened, requests)?;
        }
        Ok(opened)
    }

    /// So many fresh data keys under the new key.
    async fn fresh(&self, n: usize, requests: &mut Vec<String>) -> Result<Vec<Fresh>, JobError> {
        let (id, arn) = match &self.to {
            To::Branch(id, wrap) => return Ok((0..n).map(|_| self.fresh_by_branch(*id, wrap)).collect()),
            To::Master(id, arn) => (*id, arn),
        };
        let (mut fresh, mut calls) = (Vec::with_capacity(n), JoinSet::new());
        let mut take = |call: Result<_, tokio::task::JoinError>| -> Result<(), JobError> {
            let (dek_id, made): (DekId, Result<crate::keys::kms::DataKey, _>) = call.map_err(|_| GIVEN_UP)?;
            let made = made?;
            let slot = OwnedSlot { dek_id, algorithm: WrapAlgorithm::Kms, key_id: id, wrapped: made.blob };
            fresh.push((made.plaintext, slot));
            requests.push(made.request_id);
            Ok(())
        };
        for _ in 0..n {
            if calls.len() >= self.calls_max
                && let Some(call) = calls.join_next().await
            {
                take(call)?;
            }
            let (dek_id, kms, arn) = (DekId::random(), self.kms.clone(), arn.clone());
            let context = context::dek(&self.tenant, dek_id);
            calls.spawn(async move { (dek_id, kms.generate_data_key(&arn, &context).await) });
        }
        while let Some(call) = calls.join_next().await {
            take(call)?;
        }
        Ok(fresh)
    }

    fn fresh_by_branch(&self, key_id: KeyId, wrap: &BranchWrap) -> Fresh {
        let (dek_id, dek) = (DekId::random(), Dek::random());
        let wrapped = Bytes::copy_from_slice(&wrap.wrap(&self.tenant, key_id, dek_id, &dek));
        (dek, OwnedSlot { dek_id, algorithm: WrapAlgorithm::Branch, key_id, wrapped })
    }
}

const GIVEN_UP: JobError = JobError::Internal("a call to the key service was given up");

type Decrypted = (Vec<u8>, Result<crate::keys::kms::Decrypted, crate::keys::kms::KmsError>);

fn taken(
    call: Option<Result<Decrypted, tokio::task::JoinError>>,
    opened: &mut Opened,
    requests: &mut Vec<String>,
) -> Result<(), JobError> {
    let Some(call) = call else { return Ok(()) };
    let (bytes, done) = call.map_err(|_| GIVEN_UP)?;
    match done {
        Ok((key, request)) => {
            requests.push(request);
            opened.insert(bytes, Dek::from_slice(&key).map(|dek| RowKey::new(&dek)));
        }
        Err(error) if error.class == KmsErrorClass::WrongContextOrBlob => {
            requests.extend(error.request_id);
            opened.insert(bytes, None);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
