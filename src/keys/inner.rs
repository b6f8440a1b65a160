//! What all clones of [`Keys`](super::Keys) share, and how it follows the registry.
//!
//! The acts on it are in `at_hand.rs` (pools and caches), `fetch.rs` (the KMS) and `trust.rs` (whether a master key
//! can be used).
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::cache::DekCache;
use super::fetch::{FlightKey, Unwrapped};
use super::flight::Flights;
use super::kms::Kms;
use super::master::Master;
use super::registry::{BranchRecord, Registered, Registry, RegistryError, Snapshot, TenantRecord, Wrapping};
use super::{KeyError, KeysSettings, Need, Tenant};
use crate::crypto::{KeyId, OwnedSlot, WrapAlgorithm};
use crate::hash::DashMap;

/// What all clones of [`Keys`](super::Keys) share.
pub(super) struct Inner {
    pub(super) registry: Arc<Registry>,
    pub(super) kms: Arc<dyn Kms>,
    pub(super) settings: KeysSettings,
    pub(super) runtime: Handle,
    pub(super) deks: DekCache,
    pub(super) masters: DashMap<KeyId, Arc<Master>>,
    /// The slots being opened now.
    pub(super) flights: Flights<FlightKey, Unwrapped>,
    /// The tenants being registered now.
    pub(super) registrations: Flights<(Tenant, Wrapping), Result<Registered, Arc<RegistryError>>>,
    pub(super) unwraps: Semaphore,
    pub(super) generates: Semaphore,
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
            masters: DashMap::default(),
            flights: Flights::new(),
            registrations: Flights::new(),
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

    /// Milliseconds since the registry last answered.
    pub(super) fn registry_silence(&self) -> u64 {
        self.now().saturating_sub(self.registry_seen.load(SeqCst))
    }

    /// Whether a rotation may have gone on without this proxy.
    pub(super) fn registry_is_silent(&self) -> bool {
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
        let mut tenants = need.fresh.iter().map(|(tenant, _)| tenant).chain(&need.index).chain(&need.seek);
        tenants.all(|tenant| snapshot.tenants.contains_key(tenant))
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

    pub(super) fn tenant(snapshot: &Snapshot, tenant: &Tenant) -> Result<Arc<TenantRecord>, KeyError> {
        snapshot.tenants.get(tenant).cloned().ok_or_else(|| KeyError::UnknownTenant(tenant.clone()))
    }

    pub(super) fn master(&self, snapshot: &Snapshot, id: KeyId) -> Result<Arc<Master>, KeyError> {
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
}

/// Which master key a slot hangs on.
pub(super) fn master_id(snapshot: &Snapshot, slot: &OwnedSlot) -> Option<KeyId> {
    match slot.algorithm {
        WrapAlgorithm::Kms => snapshot.masters.get(&slot.key_id).map(|master| master.id),
        WrapAlgorithm::Branch => snapshot.branches.get(&slot.key_id).map(|branch| branch.master),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
