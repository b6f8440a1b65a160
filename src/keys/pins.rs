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
        Pins { slots: Mutex::new(Vec::new()) }
    }

    /// Takes hold of `epoch`, one that the snapshot has or had. Keys are to be taken from a snapshot read after this.
    /// What is held already is older, and must stay.
    pub(super) fn hold(&self, pin: &mut Pin, epoch: i64, term: u64) {
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

    /// The epoch that can be acknowledged now that `taken_up` has been taken up. It may be less than before: a session may
    /// pin an epoch that was replaced and acknowledged in the same moment. It is given keys of the newer one then.
    pub(super) fn acknowledge(&self, taken_up: i64) -> i64 {
        fence(SeqCst);
        self.smallest().min(taken_up)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// What sessions and the watch on the registry do, one at a time.
    #[derive(Debug, Clone)]
    enum Step {
        /// The registry's epoch moves, and the snapshot with it.
        Change,
        /// The registry is restored to what it was some epochs ago.
        Restore(i64),
        /// A session is given keys under the snapshot that there is.
        Grant(usize),
        /// What a session sent has arrived.
        Release(usize),
        /// A session ends while what it sent may be on its way.
        Vanish(usize),
        /// What has been taken up is acknowledged.
        Acknowledge,
    }

    fn step() -> impl Strategy<Value = Step> {
        let session = 0..4_usize;
        prop_oneof![
            3 => Just(Step::Change),
            1 => (1..4_i64).prop_map(Step::Restore),
            5 => session.clone().prop_map(Step::Grant),
            4 => session.clone().prop_map(Step::Release),
            1 => session.prop_map(Step::Vanish),
            4 => Just(Step::Acknowledge),
        ]
    }

    proptest! {
        /// The model: the oldest epoch that each session was given keys under since it last let go.
        #[test]
        fn no_epoch_is_acknowledged_while_an_older_one_is_held(steps in prop::collection::vec(step(), 1..80)) {
            let (pins, mut epoch) = (Pins::new(), 1);
            let mut sessions: Vec<(Pin, Option<i64>)> = (0..4).map(|_| (Pin::default(), None)).collect();
            let mut vanished = Vec::new();
            for step in steps {
                match step {
                    Step::Change => epoch += 1,
                    Step::Restore(by) => epoch = (epoch - by).max(1),
                    Step::Grant(session) => {
                        let (pin, oldest) = &mut sessions[session];
                        if !pin.is_held() {
                            pins.hold(pin, epoch, 0);
                        }
                        oldest.get_or_insert(epoch);
                    }
                    Step::Release(session) => {
                        sessions[session].0.release();
                        sessions[session].1 = None;
                    }
                    Step::Vanish(session) => {
                        let (_, oldest) = std::mem::take(&mut sessions[session]);
                        vanished.extend(oldest);
                    }
                    Step::Acknowledge => {
                        let acknowledged = pins.acknowledge(epoch);
                        let held: Vec<i64> = sessions.iter().filter_map(|(_, oldest)| *oldest).chain(vanished.clone()).collect();
                        // No more than that, and no less: what is not held does not hold a rotation up.
                        prop_assert_eq!(acknowledged, held.iter().fold(epoch, |least, oldest| least.min(*oldest)));
                        prop_assert_eq!(pins.any(), !held.is_empty());
                    }
                }
            }
        }
    }

    /// The order of writes on both sides is what keeps a grant and an acknowledgement apart.
    #[test]
    fn a_grant_and_an_acknowledgement_do_not_pass_each_other() {
        let (pins, snapshot, acknowledged) = (Pins::new(), AtomicI64::new(1), AtomicI64::new(0));
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut pin = Pin::default();
                    while !is_done.load(SeqCst) {
                        pins.hold(&mut pin, snapshot.load(SeqCst), 0);
                        let granted_under = snapshot.load(SeqCst);
                        // What was acknowledged by now was acknowledged while the keys are held.
                        assert!(acknowledged.load(SeqCst) <= granted_under);
                        pin.release();
                    }
                });
            }
            for epoch in 2..20_000 {
                snapshot.store(epoch, SeqCst);
                acknowledged.store(pins.acknowledge(epoch), SeqCst);
            }
            is_done.store(true, SeqCst);
        });
        assert_eq!(pins.acknowledge(20_000), 20_000);
    }
}
