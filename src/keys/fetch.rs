//! Getting keys: from pools and caches, else from the KMS, each key once at a time.
//!
//! Invariants: nothing cached is used unless its master was confirmed within the interval; a definitive refusal of
//! the KMS drops what hangs on the master before the caller hears of it; a wrong blob harms only itself.
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::cache::DekCache;
use super::kms::{EncryptionContext, KeyState, Kms, KmsError};
use super::master::{Master, Opened};
use super::registry::{BranchRecord, Registry, RegistryError, Snapshot, TenantRecord, Wrapping};
use super::{FreshDek, KeyError, KeysSettings, Need, OpenedDek, Tenant, context};
use crate::crypto::{
    self, BranchKey, Dek, DekId, IndexRoot, KeyId, OwnedSlot, WrapAlgorithm, unwrap_dek, wrap_dek,
};

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
type FlightKey = (DekId, KeyId, Bytes);

/// What all clones of [`Keys`](super::Keys) share.
pub(super) struct Inner {
    pub(super) registry: Arc<Registry>,
    pub(super) kms: Arc<dyn Kms>,
    pub(super) settings: KeysSettings,
    pub(super) runtime: Handle,
    pub(super) deks: DekCache,
    masters: DashMap<KeyId, Arc<Master>>,
    flights: DashMap<FlightKey, Arc<OnceCell<Unwrapped>>>,
    unwraps: Semaphore,
    generates: Semaphore,
    started: Instant,
    /// The epoch whose changes have been taken up; held while they are.
    taken_up: Mutex<i64>,
    registry_seen: AtomicU64,
}

impl Inner {
    pub(super) fn new(registry: Arc<Registry>, kms: Arc<dyn Kms>, settings: KeysSettings) -> Arc<Self> {
        Arc::new(Inner {
            deks: DekCache::new(settings.cache_bytes_max, millis(settings.cache_ttl)),
            unwraps: Semaphore::new(settings.unwraps_max),
            generates: Semaphore::new(settings.generates_max),
            taken_up: Mutex::new(registry.snapshot().epoch),
            registry_seen: AtomicU64::new(1),
            masters: DashMap::new(),
            flights: DashMap::new(),
            started: Instant::now(),
            runtime: Handle::current(),
            registry,
            kms,
            settings,
        })
    }

    /// Milliseconds since the start, from 1.
    pub(super) fn now(&self) -> u64 {
        millis(self.started.elapsed()) + 1
    }

    // ---- from pools and caches ----

    pub(super) fn usable(&self, master: &Master, now: u64) -> bool {
        master.usable(now, millis(self.settings.confirm_interval))
    }

    /// A data key that needs no call: cached, or wrapped by a branch key at hand.
    pub(super) fn cached_dek(&self, slot: &OwnedSlot, now: u64) -> Option<Arc<OpenedDek>> {
        if slot.algorithm == WrapAlgorithm::Branch {
            let record = self.registry.snapshot().branches.get(&slot.key_id)?.clone();
            let master = self.known_master(&record.master)?;
            let branch = self.cached_key(&master, &master.branches, &record, now)?;
            return unwrap_locally(&branch, &record, slot).ok();
        }
        let (opened, master) = self.deks.find(slot, now)?;
        master.touch(now);
        self.usable(&master, now).then_some(opened)
    }

    pub(super) fn cached_root(&self, tenant: &Tenant, now: u64) -> Option<Arc<IndexRoot>> {
        let snapshot = self.registry.snapshot();
        let record = snapshot.branches.get(&snapshot.tenants.get(tenant)?.index?)?;
        let master = self.known_master(&record.master)?;
        self.cached_key(&master, &master.roots, record, now)
    }

    /// A branch key or index root that is open, and was opened from this very record.
    fn cached_key<K>(
        &self,
        master: &Master,
        open: &DashMap<KeyId, Opened<K>>,
        record: &BranchRecord,
        now: u64,
    ) -> Option<Arc<K>> {
        master.touch(now);
        if !self.usable(master, now) {
            return None;
        }
        open.get(&record.id).filter(|opened| *opened.record == *record).map(|opened| opened.key.clone())
    }

    /// `n` fresh data keys that need no call.
    pub(super) fn pooled(self: &Arc<Self>, tenant: &Tenant, n: usize, now: u64) -> Option<Vec<FreshDek>> {
        if self.registry_is_silent() {
            return None;
        }
        let snapshot = self.registry.snapshot();
        let record = snapshot.tenants.get(tenant)?;
        match record.wrapping {
            Wrapping::Direct => {
                let master = self.known_master(&record.master)?;
                master.touch(now);
                master.demand(n, self.settings.pool_target_max);
                let taken = if self.usable(&master, now) { master.take(n) } else { None };
                self.refill(&master);
                taken
            }
            Wrapping::Hierarchical => {
                let branch = snapshot.branches.get(&record.branch?)?;
                let master = self.known_master(&branch.master)?;
                Some(wrap_fresh(&*self.cached_key(&master, &master.branches, branch, now)?, branch, n))
            }
        }
    }

    pub(super) fn give_back(&self, tenant: &Tenant, deks: Vec<FreshDek>) {
        let snapshot = self.registry.snapshot();
        let Some(record) = snapshot.tenants.get(tenant) else { return };
        if let Some(master) = self.known_master(&record.master) {
            // Only what was taken from this pool: a rotation may have come between.
            master.put(deks.into_iter().filter(|dek| dek.slot.key_id == master.record.id));
        }
    }

    fn known_master(&self, id: &KeyId) -> Option<Arc<Master>> {
        self.masters.get(id).map(|master| master.clone())
    }

    pub(super) fn all_masters(&self) -> Vec<Arc<Master>> {
        self.masters.iter().map(|master| master.clone()).collect()
    }

    // ---- the registry ----

    /// Milliseconds since the registry last answered.
    pub(super) fn registry_silence(&self) -> u64 {
        self.now().saturating_sub(self.registry_seen.load(SeqCst))
    }

    /// Whether a rotation may have gone on without this proxy.
    fn registry_is_silent(&self) -> bool {
        self.registry_silence() > millis(self.settings.registry_stale)
    }

    pub(super) async fn refresh(&self) -> Result<(), RegistryError> {
        let began = self.now();
        self.registry.refresh().await?;
        self.registry_seen.fetch_max(began, SeqCst);
        Ok(())
    }

    /// Asks the registry again when it is not known what is needed, or, for fresh keys, when it was silent for long.
    /// False when it did not answer, so that what is unknown may exist all the same.
    pub(super) async fn learn(&self, need: &Need) -> bool {
        if self.knows(need) && (need.fresh.is_empty() || !self.registry_is_silent()) {
            return true;
        }
        let refreshed = self.refresh().await;
        if let Err(error) = &refreshed {
            tracing::warn!(%error, "the registry does not answer");
        }
        self.take_up();
        refreshed.is_ok()
    }

    fn knows(&self, need: &Need) -> bool {
        let snapshot = self.registry.snapshot();
        need.fresh.iter().map(|(tenant, _)| tenant).chain(&need.index).all(|tenant| snapshot.tenants.contains_key(tenant))
            && need.open.iter().all(|slot| master_id(&snapshot, slot).is_some())
    }

    /// Drops the keys whose records have changed since the last epoch; gives the epoch now taken up.
    pub(super) fn take_up(&self) -> i64 {
        let mut taken_up = self.taken_up.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.registry.snapshot();
        if *taken_up == snapshot.epoch {
            return snapshot.epoch;
        }
        self.masters.retain(|id, master| {
            let same = snapshot.masters.get(id).is_some_and(|record| **record == *master.record);
            if !same {
                master.drop_for_good();
            }
            same
        });
        for master in self.all_masters() {
            let same = |record: &BranchRecord| snapshot.branches.get(&record.id).is_some_and(|now| **now == *record);
            master.branches.retain(|_, opened| same(&opened.record));
            master.roots.retain(|_, opened| same(&opened.record));
        }
        self.deks.sweep(self.now());
        *taken_up = snapshot.epoch;
        snapshot.epoch
    }

    fn tenant(snapshot: &Snapshot, tenant: &Tenant) -> Result<Arc<TenantRecord>, KeyError> {
        snapshot.tenants.get(tenant).cloned().ok_or_else(|| KeyError::UnknownTenant(tenant.clone()))
    }

    fn master(&self, snapshot: &Snapshot, id: KeyId) -> Result<Arc<Master>, KeyError> {
        let record = snapshot.masters.get(&id).ok_or(KeyError::UnknownKey)?;
        let made = || Arc::new(Master::new(record.clone(), self.settings.pool_target));
        let mut entry = self.masters.entry(id).or_insert_with(made);
        if *entry.record != **record {
            // Made from an older snapshot while the change was taken up.
            entry.drop_for_good();
            *entry = made();
        }
        entry.touch(self.now());
        Ok(entry.clone())
    }

    // ---- from the KMS ----

    /// Opens one slot; callers that want the same one at the same time share one call.
    pub(super) async fn open(&self, slot: &OwnedSlot) -> Unwrapped {
        let key: FlightKey = (slot.dek_id, slot.key_id, slot.wrapped.clone());
        let flight = self.flights.entry(key.clone()).or_default().clone();
        let landing = Landing { inner: self, key, flight };
        landing.flight.get_or_init(|| self.open_alone(slot)).await.clone()
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
            return unwrap_locally(&branch, record, slot);
        }
        if let Some((opened, of)) = self.deks.find(slot, self.now()).filter(|(_, of)| Arc::ptr_eq(of, &master)) {
            // Cached, but not confirmed of late.
            *request = self.confirm(&of).await?;
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
        let opened = Arc::new(OpenedDek { dek: Dek::from_bytes(*bytes), tenant });
        self.deks.insert(slot, opened.clone(), master.clone(), self.now());
        Ok(opened)
    }

    /// A key of 32 bytes from a blob under this master; tells the master that it works, or does not.
    async fn decrypt(
        &self,
        master: &Arc<Master>,
        blob: &[u8],
        context: &EncryptionContext,
        request: &mut Option<String>,
    ) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let began = self.now();
        match self.kms.decrypt(&master.record.arn, blob, context).await {
            Ok((plaintext, id)) => {
                *request = Some(id);
                master.confirm(began);
                let bytes: &[u8; 32] = plaintext.as_slice().try_into().map_err(|_| KeyError::Damaged)?;
                Ok(Zeroizing::new(*bytes))
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
        self.wrapped_key(master, &master.branches, record, context, |bytes| BranchKey::from_bytes(*bytes)).await
    }

    /// A branch key or index root: the open one when its master is confirmed, else from the KMS.
    async fn wrapped_key<K>(
        &self,
        master: &Arc<Master>,
        open: &DashMap<KeyId, Opened<K>>,
        record: &Arc<BranchRecord>,
        context: EncryptionContext,
        make: impl Fn(&[u8; 32]) -> K,
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
        let key = Arc::new(make(&bytes));
        open.insert(record.id, Opened { record: record.clone(), key: key.clone() });
        Ok((key, request))
    }

    pub(super) async fn root(&self, tenant: &Tenant) -> Result<(Arc<IndexRoot>, Option<String>), KeyError> {
        let snapshot = self.registry.snapshot();
        let id = Self::tenant(&snapshot, tenant)?.index.ok_or(KeyError::UnknownKey)?;
        let record = snapshot.branches.get(&id).ok_or(KeyError::UnknownKey)?;
        let master = self.master(&snapshot, record.master)?;
        let context = context::index(&record.tenant);
        self.wrapped_key(&master, &master.roots, record, context, |bytes| IndexRoot::from_bytes(*bytes)).await
    }

    /// Fresh data keys: from the pool as far as it goes, the rest from the KMS.
    pub(super) async fn fresh(
        self: &Arc<Self>,
        tenant: &Tenant,
        n: usize,
    ) -> Result<(Vec<FreshDek>, Vec<String>), KeyError> {
        if self.registry_is_silent() {
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
        self.refill(&master);
        let missing = n - deks.len();
        let (made, mut requests) = self.generate(&master, missing).await?;
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
        let slot = OwnedSlot {
            dek_id,
            algorithm: WrapAlgorithm::Kms,
            key_id: master.record.id,
            wrapped: made.blob,
        };
        Ok((FreshDek { dek: Dek::from_bytes(*made.plaintext), slot }, made.request_id))
    }

    /// Fills the pool in the background once it is half empty.
    fn refill(self: &Arc<Self>, master: &Arc<Master>) {
        if master.pool_lacks() == 0 || self.refuses(master) || master.refilling.swap(true, SeqCst) {
            return;
        }
        let (inner, master) = (self.clone(), master.clone());
        self.runtime.spawn(async move {
            // An error shows again, and to someone, when a statement needs the key.
            if let Ok((deks, _)) = inner.generate(&master, master.pool_lacks()).await
                && !inner.refuses(&master)
            {
                master.put(deks);
            }
            master.refilling.store(false, SeqCst);
        });
    }

    // ---- whether a master key can be used ----

    fn refuses(&self, master: &Master) -> bool {
        master.is_dropped() || master.refused(self.now(), millis(self.settings.refused_for))
    }

    fn not_refused(&self, master: &Master) -> Result<(), KeyError> {
        if master.refused(self.now(), millis(self.settings.refused_for)) {
            return Err(KeyError::Unavailable(master.record.tenant.clone()));
        }
        Ok(())
    }

    /// On first load, and after a refusal, asks the KMS whose key it is.
    async fn ready(&self, master: &Arc<Master>) -> Result<(), KeyError> {
        self.not_refused(master)?;
        if master.tags_checked.load(SeqCst) {
            return Ok(());
        }
        let _gate = master.gate.lock().await;
        self.check_tags(master).await
    }

    async fn check_tags(&self, master: &Arc<Master>) -> Result<(), KeyError> {
        self.not_refused(master)?;
        if master.tags_checked.load(SeqCst) {
            return Ok(());
        }
        let key = self.kms.describe(&master.record.arn).await.map_err(|error| self.failed(master, &error))?;
        let named = key.tag(context::TAG_TENANT) == Some(&*master.record.tenant);
        if !named {
            tracing::error!(arn = %master.record.arn, "the tags of a master key do not name its tenant");
        }
        if !named || key.state != KeyState::Enabled {
            self.revoke(master);
            return Err(KeyError::Unavailable(master.record.tenant.clone()));
        }
        master.tags_checked.store(true, SeqCst);
        Ok(())
    }

    /// Asks the KMS whether the key can still be used, unless someone else just did; gives the request id.
    pub(super) async fn confirm(&self, master: &Arc<Master>) -> Result<Option<String>, KeyError> {
        let asked = self.now();
        let _gate = master.gate.lock().await;
        self.check_tags(master).await?;
        if master.confirmed_at() > asked {
            return Ok(None);
        }
        let (began, context) = (self.now(), context::canary(&master.record.tenant));
        match self.kms.decrypt(&master.record.arn, &master.record.canary, &context).await {
            Ok((_, request)) => {
                master.confirm(began);
                Ok(Some(request))
            }
            Err(error) => Err(self.failed(master, &error)),
        }
    }

    /// What an error of the KMS means for the key; a refusal of the key drops everything that hangs on it first.
    fn failed(&self, master: &Arc<Master>, error: &KmsError) -> KeyError {
        tracing::warn!(%error, request = error.request_id, arn = %master.record.arn, "the key service refused or failed");
        if error.revokes_key() {
            self.revoke(master);
            KeyError::Unavailable(master.record.tenant.clone())
        } else if error.is_definitive() {
            KeyError::Damaged
        } else {
            KeyError::Unreachable
        }
    }

    fn revoke(&self, master: &Arc<Master>) {
        let already = self.refuses(master);
        master.refuse(self.now());
        if !already {
            self.deks.drop_of(master);
        }
    }
}

/// Takes a flight off the list when it has landed or its caller has gone.
struct Landing<'a> {
    inner: &'a Inner,
    key: FlightKey,
    flight: Arc<OnceCell<Unwrapped>>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.inner.flights.remove_if(&self.key, |_, flight| Arc::ptr_eq(flight, &self.flight));
    }
}

/// Which master key a slot hangs on.
fn master_id(snapshot: &Snapshot, slot: &OwnedSlot) -> Option<KeyId> {
    match slot.algorithm {
        WrapAlgorithm::Kms => snapshot.masters.get(&slot.key_id).map(|master| master.id),
        WrapAlgorithm::Branch => snapshot.branches.get(&slot.key_id).map(|branch| branch.master),
    }
}

fn unwrap_locally(
    branch: &BranchKey,
    record: &BranchRecord,
    slot: &OwnedSlot,
) -> Result<Arc<OpenedDek>, KeyError> {
    let dek = unwrap_dek(branch, &record.tenant, record.id, slot.dek_id, &slot.wrapped);
    let dek = dek.map_err(|_| KeyError::Damaged)?;
    Ok(Arc::new(OpenedDek { dek, tenant: record.tenant.clone() }))
}

/// Fresh data keys under a branch key; ids and keys are drawn in one go.
fn wrap_fresh(branch: &BranchKey, record: &BranchRecord, n: usize) -> Vec<FreshDek> {
    let mut drawn = Zeroizing::new(vec![0u8; n * 48]);
    crypto::fill_random(&mut drawn);
    let (parts, _) = drawn.as_chunks::<48>();
    parts.iter().map(|part| wrap_one(branch, record, part)).collect()
}

fn wrap_one(branch: &BranchKey, record: &BranchRecord, drawn: &[u8; 48]) -> FreshDek {
    let (mut id, mut key) = ([0; 16], Zeroizing::new([0; 32]));
    id.copy_from_slice(&drawn[..16]);
    key.copy_from_slice(&drawn[16..]);
    let (dek_id, dek) = (DekId(id), Dek::from_bytes(*key));
    let wrapped = wrap_dek(branch, &record.tenant, record.id, dek_id, &dek);
    let slot = OwnedSlot {
        dek_id,
        algorithm: WrapAlgorithm::Branch,
        key_id: record.id,
        wrapped: Bytes::copy_from_slice(&wrapped),
    };
    FreshDek { dek, slot }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
