//! One version of a master key as this proxy uses it: when it was last confirmed, what hangs on it.
//!
//! Everything cached of a tenant hangs on a [`Master`] and is usable only while the master is. Times are milliseconds
//! of the clock in `inner.rs`; 0 is "never".
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::FreshDek;
use super::registry::{BranchRecord, MasterRecord, MasterState};
use crate::crypto::{BranchKey, IndexRoot, KeyId};
use crate::hash::{DashMap, RandomState};

/// A key that the master key wraps, opened, with the record it was opened from.
pub(super) struct Opened<K> {
    pub(super) record: Arc<BranchRecord>,
    pub(super) key: Arc<K>,
}

/// One version of a master key in use.
pub(super) struct Master {
    pub(super) record: Arc<MasterRecord>,
    /// One confirmation or first load at a time.
    pub(super) gate: tokio::sync::Mutex<()>,
    /// True once the KMS's tags named the tenant.
    pub(super) tags_checked: AtomicBool,
    pub(super) refilling: AtomicBool,
    pub(super) branches: DashMap<KeyId, Opened<BranchKey>>,
    pub(super) roots: DashMap<KeyId, Opened<IndexRoot>>,
    confirmed: AtomicU64,
    refused: AtomicU64,
    used: AtomicU64,
    dropped: AtomicBool,
    pool: Mutex<VecDeque<FreshDek>>,
    pool_target: AtomicUsize,
}

impl Master {
    pub(super) fn new(record: Arc<MasterRecord>, pool_target: usize) -> Self {
        Master {
            record,
            gate: tokio::sync::Mutex::new(()),
            tags_checked: AtomicBool::new(false),
            refilling: AtomicBool::new(false),
            branches: DashMap::with_hasher_and_shard_amount(RandomState::default(), 2),
            roots: DashMap::with_hasher_and_shard_amount(RandomState::default(), 2),
            confirmed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            used: AtomicU64::new(0),
            dropped: AtomicBool::new(false),
            pool: Mutex::new(VecDeque::new()),
            pool_target: AtomicUsize::new(pool_target),
        }
    }

    /// Whether it is being rotated away, and not lent to a restored backup.
    pub(super) fn is_leaving(&self) -> bool {
        self.record.state == MasterState::Retiring && self.record.until.is_none()
    }

    /// Whether cached keys may be used at `now`.
    pub(super) fn usable(&self, now: u64, interval: u64) -> bool {
        let confirmed = self.confirmed.load(SeqCst);
        confirmed != 0 && now.saturating_sub(confirmed) < interval && !self.dropped.load(SeqCst)
    }

    pub(super) fn confirmed_at(&self) -> u64 {
        self.confirmed.load(SeqCst)
    }

    /// The KMS used the key for a call that began at `began`. A call that began before a refusal confirms nothing.
    pub(super) fn confirm(&self, began: u64) {
        if began > self.refused.load(SeqCst) {
            self.confirmed.fetch_max(began, SeqCst);
        }
    }

    /// The KMS refused the key at `now`: nothing that hangs on it is usable, and it is dropped.
    pub(super) fn refuse(&self, now: u64) {
        self.refused.fetch_max(now, SeqCst);
        self.confirmed.store(0, SeqCst);
        self.tags_checked.store(false, SeqCst);
        self.wipe();
    }

    /// Whether a refusal is still believed at `now`.
    pub(super) fn refused(&self, now: u64, believed_for: u64) -> bool {
        let refused = self.refused.load(SeqCst);
        refused != 0 && now.saturating_sub(refused) < believed_for
    }

    /// Its record is gone or has changed: this object will not be used again.
    pub(super) fn drop_for_good(&self) {
        self.dropped.store(true, SeqCst);
        self.wipe();
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.dropped.load(SeqCst)
    }

    /// Drops the keys that hang on it, except those in the cache of data keys.
    pub(super) fn wipe(&self) {
        self.lock_pool().clear();
        self.branches.clear();
        self.roots.clear();
    }

    pub(super) fn touch(&self, now: u64) {
        if self.used.load(SeqCst) != now {
            self.used.store(now, SeqCst);
        }
    }

    pub(super) fn used_within(&self, now: u64, window: u64) -> bool {
        now.saturating_sub(self.used.load(SeqCst)) < window
    }

    /// `n` ready keys, or none.
    pub(super) fn take(&self, n: usize) -> Option<Vec<FreshDek>> {
        let mut pool = self.lock_pool();
        (pool.len() >= n).then(|| pool.drain(..n).collect())
    }

    /// As many ready keys as there are, at most `n`.
    pub(super) fn take_up_to(&self, n: usize) -> Vec<FreshDek> {
        let mut pool = self.lock_pool();
        let n = n.min(pool.len());
        pool.drain(..n).collect()
    }

    pub(super) fn put(&self, deks: impl IntoIterator<Item = FreshDek>) {
        self.lock_pool().extend(deks);
    }

    /// How many keys the pool lacks, once it is less than half full; else 0.
    pub(super) fn pool_lacks(&self) -> usize {
        let (target, ready) = (self.pool_target.load(SeqCst), self.lock_pool().len());
        if ready * 2 > target { 0 } else { target - ready }
    }

    /// A statement wanted `n` keys at once: the pool should hold two such.
    pub(super) fn demand(&self, n: usize, max: usize) {
        self.pool_target.fetch_max((2 * n).min(max), SeqCst);
    }

    /// Demand is forgotten by halves.
    pub(super) fn forget_demand(&self, least: usize) {
        let target = self.pool_target.load(SeqCst);
        self.pool_target.store((target / 2).max(least), SeqCst);
    }

    /// A panic elsewhere cannot leave the pool half changed.
    fn lock_pool(&self) -> MutexGuard<'_, VecDeque<FreshDek>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
