//! Which epochs sessions still hold on to.
//!
//! A session pins the present epoch before it is given fresh data keys and lets go once no cell under them is on its way.
//! What a proxy acknowledges is the smallest epoch that is pinned. Both sides run free of each other's locks: a session
//! writes its pin *before* it reads the registry's snapshot, the proxy replaces the snapshot *before* it reads the pins.
//! So either the pin is seen, or the session sees the newer snapshot. Why: docs/decisions/2026-11-key-lifecycle.md.
use std::sync::atomic::{AtomicI64, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, PoisonError};

/// What a slot holds that pins nothing.
const FREE: i64 = i64::MAX;

/// The pins of all sessions of one database.
pub(super) struct Pins {
    /// One for each session that has pinned something once.
    slots: Mutex<Vec<Arc<AtomicI64>>>,
    /// The largest epoch acknowledged so far.
    acknowledged: AtomicI64,
}

/// One session's hold on an epoch. Dropped while it holds, it holds for ever: whoever sent cells must see to it that they
/// have arrived.
#[derive(Default)]
pub struct Pin {
    slot: Option<Arc<AtomicI64>>,
    /// The term of the lease in which it was taken.
    term: u64,
    is_held: bool,
}

impl Pin {
    /// True from when the epoch was pinned until it is released.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Lets go: no cell is on its way any more.
    pub fn release(&mut self) {
        if let (true, Some(slot)) = (std::mem::take(&mut self.is_held), &self.slot) {
            slot.store(FREE, SeqCst);
        }
    }

    pub(super) fn term(&self) -> u64 {
        self.term
    }
}

impl Pins {
    pub(super) fn new() -> Self {
        Pins { slots: Mutex::new(Vec::new()), acknowledged: AtomicI64::new(0) }
    }

    /// Takes hold of `epoch`, one that the snapshot has or had. Keys are to be taken from a snapshot read after this.
    /// What is held already is older, and stays.
    pub(super) fn hold(&self, pin: &mut Pin, epoch: i64, term: u64) {
        if pin.is_held {
            return;
        }
        let slot = pin.slot.get_or_insert_with(|| self.slot());
        slot.store(epoch, SeqCst);
        fence(SeqCst);
        (pin.term, pin.is_held) = (term, true);
    }

    fn slot(&self) -> Arc<AtomicI64> {
        let slot = Arc::new(AtomicI64::new(FREE));
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(slot.clone());
        slot
    }

    /// The epoch that can be acknowledged now that `taken_up` has been taken up. Never less than before, for a pin that is
    /// older than what was acknowledged before it was seen is given keys of a newer snapshot; never more than `taken_up`,
    /// also where a restored registry has gone back. One call at a time.
    pub(super) fn acknowledge(&self, taken_up: i64) -> i64 {
        fence(SeqCst);
        let acknowledged = self.smallest().max(self.acknowledged.load(SeqCst)).min(taken_up);
        self.acknowledged.store(acknowledged, SeqCst);
        acknowledged
    }

    /// True while some session holds on to an epoch.
    pub(super) fn any(&self) -> bool {
        self.smallest() != FREE
    }

    /// Forgets the slots of sessions that are gone, too.
    fn smallest(&self) -> i64 {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|slot| Arc::strong_count(slot) > 1 || slot.load(SeqCst) != FREE);
        slots.iter().map(|slot| slot.load(SeqCst)).min().unwrap_or(FREE)
    }
}
