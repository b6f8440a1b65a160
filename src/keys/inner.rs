//! What all clones of [`Keys`](super::Keys) share, and how it follows the registry.
//!
//! The acts on it are in `at_hand.rs` (pools and caches), `fetch.rs` (the KMS) and `trust.rs` (whether a master key
//! can be used).
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::cache::DekCache;
use super::fetch::{FlightKey, Unwrapped};
use super::flight::Flights;
use super::kms::Kms;
use super::lease::{Lease, Moment};
use super::master::Master;
use super::pins::Pins;
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
    /// The epochs that sessions hold on to.
    pub(super) pins: Pins,
    pub(super) lease: Lease,
    /// How this proxy last followed the registry; held while it does.
    following: tokio::sync::Mutex<Followed>,
}

/// How a proxy last followed the registry.
#[derive(Default)]
struct Followed {
    /// Its row was there.
    is_listed: bool,
    /// When that began.
    began: Option<Instant>,
}

impl Inner {
    pub(super) fn new(registry: Arc<Registry>, kms: Arc<dyn Kms>, settings: KeysSettings) -> Arc<Self> {
        Arc::new(Inner {
            deks: DekCache::new(settings.cache_bytes_max, millis(settings.cache_ttl)),
            unwraps: Semaphore::new(settings.unwraps_max),
            generates: Semaphore::new(settings.generates_max),
            taken_up: Mutex::new(registry.snapshot().epoch),
            pins: Pins::new(),
            lease: Lease::new(settings.registry_stale),
            following: tokio::sync::Mutex::default(),
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

    /// Now, by the clocks of the lease.
    pub(super) fn moment(&self) -> Moment {
        Moment::at(self.now())
    }

    /// Whether a rotation may have gone on without this proxy.
    pub(super) fn is_unleased(&self) -> bool {
        self.lease.is_over(self.moment())
    }

    /// Says that this proxy lives, takes up the present epoch, drops the keys it affects, and only then acknowledges it:
    /// so that whoever waits for proxies waits for this one before it grants anything. Callers that want the same at the
    /// same time share it.
    ///
    /// # Cancel safety
    /// Safe: the lease is renewed at the end or not at all.
    pub(super) async fn follow(&self) -> Result<(), RegistryError> {
        let asked = Instant::now();
        let mut followed = self.following.lock().await;
        if followed.began.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        let began = Instant::now();
        if !followed.is_listed {
            self.enlist().await?;
            followed.is_listed = true;
        }
        if !self.beat().await? {
            // It was counted out: what it has is of before.
            followed.is_listed = false;
            self.enlist().await?;
            followed.is_listed = true;
            self.beat().await?;
        }
        followed.began = Some(began);
        Ok(())
    }

    /// Enters this proxy into the registry, with nothing left of what it was granted while it was not there.
    async fn enlist(&self) -> Result<(), RegistryError> {
        self.lease.lose();
        self.all_masters().iter().for_each(|master| master.wipe());
        let taken_up = self.take_up();
        self.registry.enlist(self.pins.acknowledge(taken_up), taken_up).await
    }

    /// One heartbeat; false when the registry does not know this proxy.
    async fn beat(&self) -> Result<bool, RegistryError> {
        self.registry.refresh().await?;
        let taken_up = self.take_up();
        let acknowledged = self.pins.acknowledge(taken_up);
        let sent = self.moment();
        let is_listed = self.registry.heartbeat(acknowledged, taken_up).await?;
        if is_listed {
            self.lease.renew(sent);
        }
        Ok(is_listed)
    }

    /// Asks the registry again when it is not known what is needed, or, for fresh keys, when there is no lease.
    /// False when it did not answer, so that what is unknown may exist all the same.
    pub(super) async fn learn(&self, need: &Need) -> bool {
        let answered = if !need.fresh.is_empty() && self.is_unleased() {
            self.follow().await
        } else if self.knows(need) {
            return true;
        } else {
            self.registry.refresh().await
        };
        if let Err(error) = &answered {
            tracing::warn!(%error, "the registry does not answer");
        }
        self.take_up();
        answered.is_ok()
    }

    fn knows(&self, need: &Need) -> bool {
        let snapshot = self.registry.snapshot();
        let mut tenants = need.fresh.iter().map(|(tenant, _)| tenant).chain(&need.index).chain(&need.seek);
        tenants.all(|tenant| snapshot.tenants.contains_key(tenant) || snapshot.barred.contains_key(tenant))
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
        if snapshot.barred.contains_key(tenant) {
            return Err(KeyError::Unavailable(tenant.clone()));
        }
        snapshot.tenants.get(tenant).cloned().ok_or_else(|| KeyError::UnknownTenant(tenant.clone()))
    }

    pub(super) fn master(&self, snapshot: &Snapshot, id: KeyId) -> Result<Arc<Master>, KeyError> {
        let record = snapshot.masters.get(&id).ok_or(KeyError::UnknownKey)?;
        self.admits(record)?;
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
