//! Opened data keys of direct mode, by dek_id: bounded in bytes and in time, second-chance eviction.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::OpenedDek;
use super::master::Master;
use crate::crypto::{DekId, KeyId, OwnedSlot, Slot};
use crate::hash::DashMap;

/// What one entry costs: key, ids, reference counts, its share of table and queue; rounded up.
const ENTRY_BYTES: usize = 320;

/// How many recently used entries eviction passes by before it takes one anyway.
const CHANCES: usize = 16;

struct Entry {
    opened: Arc<OpenedDek>,
    key_id: KeyId,
    master: Arc<Master>,
    inserted: u64,
    used: AtomicBool,
}

/// The cache.
pub(super) struct DekCache {
    entries: DashMap<DekId, Entry>,
    order: Mutex<VecDeque<DekId>>,
    entries_max: usize,
    ttl: u64,
}

impl DekCache {
    pub(super) fn new(bytes_max: usize, ttl: u64) -> Self {
        let entries_max = (bytes_max / ENTRY_BYTES).max(1);
        DekCache { entries: DashMap::default(), order: Mutex::new(VecDeque::new()), entries_max, ttl }
    }

    /// The key of this slot with the master it hangs on; whether the master is usable is for the caller to see.
    pub(super) fn find(&self, slot: &Slot<'_>, now: u64) -> Option<(Arc<OpenedDek>, Arc<Master>)> {
        let entry = self.entries.get(&slot.dek_id)?;
        if entry.key_id != slot.key_id || now.saturating_sub(entry.inserted) >= self.ttl {
            return None;
        }
        if !entry.used.load(Relaxed) {
            entry.used.store(true, Relaxed);
        }
        Some((entry.opened.clone(), entry.master.clone()))
    }

    pub(super) fn insert(&self, slot: &OwnedSlot, opened: Arc<OpenedDek>, master: Arc<Master>, now: u64) {
        let entry = Entry { opened, key_id: slot.key_id, master, inserted: now, used: AtomicBool::new(false) };
        if self.entries.insert(slot.dek_id, entry).is_none() {
            self.enqueue(slot.dek_id);
        }
    }

    fn enqueue(&self, id: DekId) {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push_back(id);
        let mut chances = CHANCES;
        while self.entries.len() > self.entries_max {
            let Some(oldest) = order.pop_front() else { return };
            let used = self.entries.get(&oldest).is_some_and(|entry| entry.used.swap(false, Relaxed));
            if used && chances > 0 {
                chances -= 1;
                order.push_back(oldest);
            } else {
                self.entries.remove(&oldest);
            }
        }
    }

    /// Drops what hangs on this master.
    pub(super) fn drop_of(&self, master: &Arc<Master>) {
        self.keep(|entry| !Arc::ptr_eq(&entry.master, master));
    }

    /// Drops what has grown too old or hangs on a master that is gone.
    pub(super) fn sweep(&self, now: u64) {
        self.keep(|entry| now.saturating_sub(entry.inserted) < self.ttl && !entry.master.is_dropped());
    }

    fn keep(&self, keep: impl Fn(&Entry) -> bool) {
        self.entries.retain(|_, entry| keep(entry));
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.retain(|id| self.entries.contains_key(id));
    }

    /// How many keys are cached.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
