//! Getting keys from the KMS, each key once at a time.
//!
//! Invariants: nothing cached is used unless its master was confirmed within the interval; a definitive refusal of
//! the KMS drops what hangs on the master before the caller hears of it; a wrong blob harms only itself.
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::at_hand::{Branch, wrap_fresh};
use super::inner::{Inner, master_id};
use super::kms::EncryptionContext;
use super::master::{Master, Opened};
use super::registry::{BranchRecord, Wrapping};
use super::{FreshDek, KeyError, OpenedDek, Tenant, context};
use crate::crypto::{BranchKey, Dek, DekId, IndexRoot, KeyId, OwnedSlot, WrapAlgorithm};
use crate::hash::DashMap;

/// Keys that a refill asks for at a time.
const REFILL_BATCH: usize = 16;

/// What came of one slot.
#[derive(Clone)]
pub(super) struct Unwrapped {
    pub(super) dek: Result<Arc<OpenedDek>, KeyError>,
    /// The KMS's name for the call, when one was made.
    pub(super) request: Option<String>,
}

impl Unwrapped {
    pub(super) fn failed(error: KeyError) -> Self {
        Unwrapped { dek: Err(error), request: None }
    }
}

/// The whole slot, so that a damaged one does not speak for a good one with the same dek_id.
pub(super) type FlightKey = (DekId, KeyId, Bytes);

impl Inner {
    /// Opens one slot; callers that want the same one at the same time share one call.
    pub(super) async fn open(&self, slot: &OwnedSlot) -> Unwrapped {
        let key: FlightKey = (slot.dek_id, slot.key_id, slot.wrapped.clone());
        self.flights.share(key, || self.open_alone(slot)).await
    }

    async fn open_alone(&self, slot: &OwnedSlot) -> Unwrapped {
        let mut request = None;
        let dek = self.try_open(slot, &mut request).await;
        Unwrapped { dek, request }
    }

    async fn try_open(&self, slot: &OwnedSlot, request: &mut Option<String>) -> Result<Arc<OpenedDek>, KeyError> {
        let snapshot = self.registry.snapshot();
        let id = master_id(&snapshot, slot).ok_or(KeyError::UnknownKey)?;
        let master = self.master(&snapshot, id)?;
        if let (WrapAlgorithm::Branch, Some(record)) = (slot.algorithm, snapshot.branches.get(&slot.key_id)) {
            let (branch, made) = self.branch_key(&master, record).await?;
            *request = made;
            return Branch::new(&branch, record, &master).unwrap(&slot.as_slot());
        }
        if let Some((opened, of)) =
            self.deks.find(&slot.as_slot(), self.now()).filter(|(_, of)| Arc::ptr_eq(of, &master))
        {
            // Just fetched by another, or cached and not confirmed of late.
            if !self.usable(&of, self.now()) {
                *request = self.confirm(&of).await?;
            }
            return Ok(opened);
        }
        self.unwrap_by_kms(&master, slot, request).await
    }

    async fn unwrap_by_kms(
        &self,
        master: &Arc<Master>,
        slot: &OwnedSlot,
        request: &mut Option<String>,
    ) -> Result<Arc<OpenedDek>, KeyError> {
        self.ready(master).await?;
        let _permit = self.unwraps.acquire().await.map_err(|_| KeyError::Unreachable)?;
        let tenant = master.record.tenant.clone();
        let context = context::dek(&tenant, slot.dek_id);
        let bytes = self.decrypt(master, &slot.wrapped, &context, request).await?;
        let dek = Dek::from_slice(&bytes).ok_or(KeyError::Damaged)?;
        let opened = Arc::new(OpenedDek { dek, tenant, is_leaving: master.is_leaving() });
        self.deks.insert(slot, opened.clone(), master.clone(), self.now());
        Ok(opened)
    }

    /// What a blob under this master holds; tells the master that it works, or does not.
    async fn decrypt(
        &self,
        master: &Arc<Master>,
        blob: &[u8],
        context: &EncryptionContext,
        request: &mut Option<String>,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let began = self.now();
        match self.kms.decrypt(&master.record.arn, blob, context).await {
            Ok((plaintext, id)) => {
                *request = Some(id);
                master.confirm(began);
                self.still_admits(master)?;
                Ok(plaintext)
            }
            Err(error) => {
                request.clone_from(&error.request_id);
                Err(self.failed(master, &error))
            }
        }
    }

    async fn branch_key(
        &self,
        master: &Arc<Master>,
        record: &Arc<BranchRecord>,
    ) -> Result<(Arc<BranchKey>, Option<String>), KeyError> {
        let context = context::branch(&record.tenant);
        self.wrapped_key(master, &master.branches, record, context, BranchKey::from_slice).await
    }

    /// A branch key or index root: the open one when its master is confirmed, else from the KMS.
    async fn wrapped_key<K>(
        &self,
        master: &Arc<Master>,
        open: &DashMap<KeyId, Opened<K>>,
        record: &Arc<BranchRecord>,
        context: EncryptionContext,
        make: impl Fn(&[u8]) -> Option<K>,
    ) -> Result<(Arc<K>, Option<String>), KeyError> {
        if record.tenant != master.record.tenant {
            return Err(KeyError::Damaged);
        }
        self.ready(master).await?;
        let _gate = master.gate.lock().await;
        if let Some(key) = self.cached_key(master, open, record, self.now()) {
            return Ok((key, None));
        }
        self.not_refused(master)?;
        let mut request = None;
        let bytes = self.decrypt(master, &record.wrapped, &context, &mut request).await?;
        let key = Arc::new(make(&bytes).ok_or(KeyError::Damaged)?);
        open.insert(record.id, Opened { record: record.clone(), key: key.clone() });
        Ok((key, request))
    }

    pub(super) async fn root(&self, tenant: &Tenant) -> Result<(Arc<IndexRoot>, Option<String>), KeyError> {
        let snapshot = self.registry.snapshot();
        let id = Self::tenant(&snapshot, tenant)?.index.ok_or(KeyError::UnknownKey)?;
        let record = snapshot.branches.get(&id).ok_or(KeyError::UnknownKey)?;
        let master = self.master(&snapshot, record.master)?;
        let context = context::index(&record.tenant);
        self.wrapped_key(&master, &master.roots, record, context, IndexRoot::from_slice).await
    }

    /// Fresh data keys: from the pool as far as it goes, the rest from the KMS.
    pub(super) async fn fresh(
        self: &Arc<Self>,
        tenant: &Tenant,
        n: usize,
    ) -> Result<(Vec<FreshDek>, Vec<String>), KeyError> {
        if self.is_unleased() {
            return Err(KeyError::Unreachable);
        }
        let snapshot = self.registry.snapshot();
        let record = Self::tenant(&snapshot, tenant)?;
        if record.wrapping == Wrapping::Hierarchical {
            let id = record.branch.ok_or(KeyError::UnknownKey)?;
            let branch = snapshot.branches.get(&id).ok_or(KeyError::UnknownKey)?;
            let (key, request) = self.branch_key(&self.master(&snapshot, branch.master)?, branch).await?;
            return Ok((wrap_fresh(&key, branch, n), request.into_iter().collect()));
        }
        let master = self.master(&snapshot, record.master)?;
        self.ready(&master).await?;
        let confirmed = if self.usable(&master, self.now()) { None } else { self.confirm(&master).await? };
        master.demand(n, self.settings.pool_target_max);
        let mut deks = master.take_up_to(n);
        // The statement first, the pool behind it.
        let (made, mut requests) = self.generate(&master, n - deks.len()).await?;
        self.refill(&master);
        deks.extend(made);
        requests.extend(confirmed);
        Ok((deks, requests))
    }

    /// Data keys from the KMS, several at a time; the first error ends it.
    async fn generate(
        self: &Arc<Self>,
        master: &Arc<Master>,
        n: usize,
    ) -> Result<(Vec<FreshDek>, Vec<String>), KeyError> {
        let mut tasks = JoinSet::new();
        for _ in 0..n {
            let (inner, master) = (self.clone(), master.clone());
            tasks.spawn(async move { inner.generate_one(&master).await });
        }
        let (mut deks, mut requests) = (Vec::with_capacity(n), Vec::with_capacity(n));
        while let Some(joined) = tasks.join_next().await {
            let (dek, request) = joined.map_err(|_| KeyError::Unreachable)??;
            deks.push(dek);
            requests.push(request);
        }
        Ok((deks, requests))
    }

    async fn generate_one(&self, master: &Arc<Master>) -> Result<(FreshDek, String), KeyError> {
        let _permit = self.generates.acquire().await.map_err(|_| KeyError::Unreachable)?;
        self.not_refused(master)?;
        let (dek_id, began) = (DekId::random(), self.now());
        let context = context::dek(&master.record.tenant, dek_id);
        let made = self.kms.generate_data_key(&master.record.arn, &context).await;
        let made = made.map_err(|error| self.failed(master, &error))?;
        master.confirm(began);
        self.still_admits(master)?;
        let slot = OwnedSlot { dek_id, algorithm: WrapAlgorithm::Kms, key_id: master.record.id, wrapped: made.blob };
        Ok((FreshDek { dek: made.plaintext, slot }, made.request_id))
    }

    /// Fills the pool in the background once it is half empty.
    pub(super) fn refill(self: &Arc<Self>, master: &Arc<Master>) {
        if master.pool_lacks() == 0 || self.refuses(master) || master.refilling.swap(true, SeqCst) {
            return;
        }
        let (inner, master) = (self.clone(), master.clone());
        self.runtime.spawn(async move {
            inner.fill(&master).await;
            master.refilling.store(false, SeqCst);
        });
    }

    /// A few keys at a time, so that a statement that finds the pool empty does not queue behind all of them.
    async fn fill(self: &Arc<Self>, master: &Arc<Master>) {
        let mut lacks = master.pool_lacks();
        while lacks > 0 {
            let some = lacks.min(REFILL_BATCH);
            // An error shows again, and to someone, when a statement needs the key.
            let Ok((deks, _)) = self.generate(master, some).await else { return };
            if self.refuses(master) {
                return;
            }
            master.put(deks);
            lacks -= some;
        }
    }
}
