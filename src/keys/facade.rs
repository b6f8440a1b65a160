//! What sessions ask: [`Keys`].
//!
//! `try_grant` looks only into pools and caches; `grant` waits for the KMS. What they share
//! is in `inner.rs`; what runs by itself is in `background.rs`.
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::at_hand::Branch;
use super::fetch::Unwrapped;
use super::inner::Inner;
use super::kms::Kms;
use super::pins::Pin;
use super::registry::{Registered, Registry, RegistryError, Wrapping};
use super::{FreshDek, Granted, KeyError, KeysSettings, Need, OpenedDek, Tenant, background};
use crate::crypto::{DekId, IndexRoot, OwnedSlot, Slot, WrapAlgorithm};

/// Fresh data keys, and the request ids of the calls made for them.
type Fresh = Result<(Vec<FreshDek>, Vec<String>), KeyError>;
/// An index root, and the request id when it was fetched.
type Root = Result<(Arc<IndexRoot>, Option<String>), KeyError>;

/// The keys of one database. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

impl Keys {
    /// Starts serving keys; confirmation and the watch on the registry run in the background until the last clone is
    /// dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(registry: Arc<Registry>, kms: Arc<dyn Kms>, settings: KeysSettings) -> Keys {
        let inner = Inner::new(registry, kms, settings);
        background::start(&inner);
        Keys { inner }
    }

    /// The keys that can be had without waiting, as of now. To be asked at once and dropped.
    pub fn at_hand(&self) -> AtHand<'_> {
        AtHand { inner: &self.inner, now: self.inner.now(), branch: RefCell::new(None) }
    }

    /// Grants from pools and caches, or not at all: no I/O, no waiting.
    pub fn try_grant(&self, need: &Need) -> Option<Granted> {
        let now = self.inner.now();
        let mut granted = Granted::default();
        granted.open.reserve(need.open.len());
        for slot in &need.open {
            granted.open.insert(slot.dek_id, Ok(self.inner.cached_dek(&slot.as_slot(), now)?));
        }
        for tenant in need.index.iter().chain(&need.seek) {
            granted.index.insert(tenant.clone(), self.inner.cached_root(tenant, now)?);
        }
        for (tenant, n) in &need.fresh {
            let Some(deks) = self.inner.pooled(tenant, *n, now) else {
                self.give_back(granted);
                return None;
            };
            granted.fresh.insert(tenant.clone(), deks);
        }
        Some(granted)
    }

    /// Keys that were taken for a grant that did not come about.
    fn give_back(&self, granted: Granted) {
        for (tenant, deks) in granted.fresh {
            self.inner.give_back(&tenant, deks);
        }
    }

    /// Grants after waiting for the KMS where needed, at most for `deadline`.
    ///
    /// # Errors
    /// A fresh key or an index root that cannot be had fails the whole; a slot that does not open stands for itself
    /// in `Granted::open`.
    ///
    /// # Cancel safety
    /// Safe: calls that were made are lost, nothing else.
    pub async fn grant(&self, need: Need) -> Result<Granted, KeyError> {
        let deadline = Instant::now() + self.inner.settings.deadline;
        let certain = timeout_at(deadline, self.inner.learn(&need)).await.unwrap_or(false);
        let sought = need.seek.clone();
        let granted = self.grant_known(need, deadline).await;
        let granted = if certain { granted } else { doubt(granted, &sought) };
        self.withhold(granted?)
    }

    async fn grant_known(&self, need: Need, deadline: Instant) -> Result<Granted, KeyError> {
        let mut granted = Granted::default();
        let (open, fresh, index, sought) = tokio::join!(
            self.open_all(need.open, deadline),
            self.fresh_all(need.fresh, deadline),
            self.roots_all(need.index, deadline),
            self.roots_all(need.seek, deadline)
        );
        let known = |(_, root): &(Tenant, Root)| !matches!(root, Err(KeyError::UnknownTenant(_)));
        let index = index.into_iter().chain(sought.into_iter().filter(known));
        for (id, unwrapped) in open {
            granted.open.insert(id, unwrapped.dek);
            granted.kms_requests.extend(unwrapped.request);
        }
        for (tenant, deks) in fresh {
            let (deks, requests) = deks?;
            granted.fresh.insert(tenant, deks);
            granted.kms_requests.extend(requests);
        }
        for (tenant, root) in index {
            let (root, request) = root?;
            granted.index.insert(tenant, root);
            granted.kms_requests.extend(request);
        }
        granted.kms_requests.sort_unstable();
        granted.kms_requests.dedup();
        Ok(granted)
    }

    /// Takes back what was granted of tenants that were revoked while others' keys were waited for.
    fn withhold(&self, mut granted: Granted) -> Result<Granted, KeyError> {
        let barred = &self.inner.registry.snapshot().barred;
        if barred.is_empty() {
            return Ok(granted);
        }
        if let Some(tenant) =
            granted.fresh.keys().chain(granted.index.keys()).find(|tenant| barred.contains_key(*tenant))
        {
            return Err(KeyError::Unavailable(tenant.clone()));
        }
        for opened in granted.open.values_mut() {
            if let Ok(dek) = opened
                && barred.contains_key(&dek.tenant)
            {
                *opened = Err(KeyError::Unavailable(dek.tenant.clone()));
            }
        }
        Ok(granted)
    }

    async fn open_all(&self, slots: Vec<OwnedSlot>, deadline: Instant) -> Vec<(DekId, Unwrapped)> {
        let now = self.inner.now();
        let (mut done, mut tasks) = (Vec::with_capacity(slots.len()), JoinSet::new());
        for slot in slots {
            if let Some(dek) = self.inner.cached_dek(&slot.as_slot(), now) {
                done.push((slot.dek_id, Unwrapped { dek: Ok(dek), request: None }));
                continue;
            }
            // Stands when its task does not come to an end.
            done.push((slot.dek_id, Unwrapped::failed(KeyError::Unreachable)));
            let inner = self.inner.clone();
            tasks.spawn(async move {
                let opened = timeout_at(deadline, inner.open(&slot)).await;
                (slot.dek_id, opened.unwrap_or_else(|_| Unwrapped::failed(KeyError::Unreachable)))
            });
        }
        while let Some(joined) = tasks.join_next().await {
            done.extend(joined);
        }
        done
    }

    async fn fresh_all(&self, wanted: Vec<(Tenant, usize)>, deadline: Instant) -> Vec<(Tenant, Fresh)> {
        let mut tasks = JoinSet::new();
        for (tenant, n) in wanted {
            let inner = self.inner.clone();
            tasks.spawn(async move {
                let fresh = timeout_at(deadline, inner.fresh(&tenant, n)).await;
                (tenant, fresh.unwrap_or(Err(KeyError::Unreachable)))
            });
        }
        tasks.join_all().await
    }

    async fn roots_all(&self, tenants: Vec<Tenant>, deadline: Instant) -> Vec<(Tenant, Root)> {
        let mut tasks = JoinSet::new();
        for tenant in tenants {
            let inner = self.inner.clone();
            tasks.spawn(async move {
                let root = timeout_at(deadline, inner.root(&tenant)).await;
                (tenant, root.unwrap_or(Err(KeyError::Unreachable)))
            });
        }
        tasks.join_all().await
    }

    /// Registers a tenant, as [`Registry::register`] does, with this database's KMS. Callers that want the same at the
    /// same time share one attempt, and so one connection to the registry, and its outcome.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub async fn register(&self, tenant: &str, wrapping: Wrapping) -> Result<Registered, Arc<RegistryError>> {
        let key = (Tenant::from(tenant), wrapping);
        self.inner.registrations.share(key, || self.register_alone(tenant, wrapping)).await
    }

    async fn register_alone(&self, tenant: &str, wrapping: Wrapping) -> Result<Registered, Arc<RegistryError>> {
        let registered = self.inner.registry.register(tenant, wrapping, &*self.inner.kms).await?;
        self.inner.take_up();
        Ok(registered)
    }

    /// The registry.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.inner.registry
    }

    /// How many opened data keys are cached.
    pub fn cached(&self) -> usize {
        self.inner.deks.len()
    }

    /// Since when nothing was heard of the registry.
    pub fn registry_silence(&self) -> Duration {
        Duration::from_millis(self.inner.lease.age(self.inner.now()))
    }

    /// Holds on to the present epoch, if `pin` holds none yet: to be done before fresh keys are asked for, and until no
    /// cell under them is on its way.
    pub fn pin(&self, pin: &mut Pin) {
        if !pin.is_held() {
            let term = self.inner.lease.term(self.inner.moment());
            self.inner.pins.hold(pin, self.inner.registry.epoch(), term);
        }
    }

    /// Whether cells under keys that were granted since `pin` was taken may still be sent: not once this proxy has been
    /// silent for so long that a rotation may have gone on without it.
    pub fn may_send(&self, pin: &Pin) -> bool {
        !pin.is_held() || self.inner.lease.allows(pin.term(), self.inner.moment())
    }

    /// True while some session holds on to an epoch.
    pub fn is_pinned(&self) -> bool {
        self.inner.pins.any()
    }
}

/// The keys in the caches at one moment.
pub struct AtHand<'a> {
    inner: &'a Inner,
    now: u64,
    /// The last one: neighbours name the same mostly.
    branch: RefCell<Option<Branch>>,
}

impl AtHand<'_> {
    /// The data key of a slot.
    pub fn dek(&self, slot: &Slot<'_>) -> Option<Arc<OpenedDek>> {
        if slot.algorithm != WrapAlgorithm::Branch {
            return self.inner.cached_dek(slot, self.now);
        }
        let mut branch = self.branch.borrow_mut();
        if !branch.as_ref().is_some_and(|branch| branch.is_of(slot)) {
            *branch = self.inner.branch_at_hand(&slot.key_id, self.now);
        }
        branch.as_ref()?.unwrap(slot).ok()
    }

    /// The index root of a tenant.
    pub fn root(&self, tenant: &Tenant) -> Option<Arc<IndexRoot>> {
        self.inner.cached_root(tenant, self.now)
    }
}

/// Without word from the registry, what it does not know may exist all the same.
fn doubt(granted: Result<Granted, KeyError>, sought: &[Tenant]) -> Result<Granted, KeyError> {
    let doubted = |error: KeyError| match error {
        KeyError::UnknownTenant(_) | KeyError::UnknownKey => KeyError::Unreachable,
        KeyError::Unavailable(_)
        | KeyError::Deactivated(_)
        | KeyError::Purged(_)
        | KeyError::Damaged
        | KeyError::Unreachable
        | KeyError::Unrecorded => error,
    };
    let mut granted = granted.map_err(doubted)?;
    if sought.iter().any(|tenant| !granted.index.contains_key(tenant)) {
        return Err(KeyError::Unreachable);
    }
    for opened in granted.open.values_mut() {
        if let Err(error) = opened {
            *error = doubted(error.clone());
        }
    }
    Ok(granted)
}
