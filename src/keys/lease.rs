//! How long this proxy may count on being counted: a rotation does not wait for one that has been silent for longer.
//!
//! The lease begins anew with each heartbeat that the registry has taken. When it has run out, or the proxy's row was gone,
//! the next one is of another *term*: what was granted in an earlier term may be under a key that has been rotated away
//! since, and is not sent any more.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::inner::millis;

/// A moment by two clocks: the one that only goes forward stands still while a machine is suspended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Milliseconds since the start, from 1.
    pub(super) since_start: u64,
    wall: u64,
}

impl Moment {
    /// Now, where the first clock shows `since_start`.
    pub(super) fn at(since_start: u64) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        Moment { since_start, wall }
    }
}

/// The lease. Its moments are those of `inner.rs`.
pub(super) struct Lease {
    length: u64,
    /// 0 before the first one.
    from: AtomicU64,
    from_wall: AtomicU64,
    term: AtomicU64,
    /// Between the two halves of a renewal into another term.
    renewing: AtomicBool,
}

impl Lease {
    pub(super) fn new(length: Duration) -> Self {
        let zero = || AtomicU64::new(0);
        Lease {
            length: millis(length),
            from: zero(),
            from_wall: zero(),
            term: zero(),
            renewing: AtomicBool::new(false),
        }
    }

    /// Whether fresh keys may not be given now.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        let (from, wall) = (self.from.load(SeqCst), self.from_wall.load(SeqCst));
        from == 0 || now.since_start.saturating_sub(from) > self.length || now.wall.saturating_sub(wall) > self.length
    }

    /// The term of what is granted from now on: the next one, while there is no lease.
    pub(super) fn term(&self, now: Moment) -> u64 {
        loop {
            let term = self.term.load(SeqCst);
            let is_over = self.is_over(now);
            if !self.renewing.load(SeqCst) && self.term.load(SeqCst) == term {
                return term + u64::from(is_over);
            }
            std::hint::spin_loop();
        }
    }

    /// Whether what was granted in this term may still be sent. The moment is taken before the term is looked at: one
    /// that is renewed in between is of another term already.
    pub(super) fn allows(&self, term: u64, now: Moment) -> bool {
        !self.is_over(now) && self.term.load(SeqCst) == term
    }

    /// The registry has taken a heartbeat that was sent at `sent`, by a proxy that had taken up the present epoch.
    pub(super) fn renew(&self, sent: Moment) {
        self.renewing.store(true, SeqCst);
        if self.is_over(sent) {
            self.term.fetch_add(1, SeqCst);
        }
        self.from_wall.store(sent.wall, SeqCst);
        self.from.store(sent.since_start, SeqCst);
        self.renewing.store(false, SeqCst);
    }

    /// The registry does not count this proxy: the lease is over.
    pub(super) fn lose(&self) {
        self.from.store(0, SeqCst);
    }

    /// Milliseconds since it was renewed.
    pub(super) fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.from.load(SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(since_start: u64, wall: u64) -> Moment {
        Moment { since_start, wall }
    }

    #[test]
    fn what_was_granted_before_a_silence_is_not_sent_after_it() {
        let lease = Lease::new(Duration::from_millis(15));
        assert!(lease.is_over(moment(1, 1000)), "none before the first heartbeat");
        let first = lease.term(moment(1, 1000));
        lease.renew(moment(2, 1001));
        assert!(lease.allows(first, moment(2, 1001)), "it was waited for");
        lease.renew(moment(10, 1009));
        assert!(lease.allows(first, moment(25, 1024)));
        assert!(!lease.allows(first, moment(26, 1024)), "silent for too long");
        let second = lease.term(moment(26, 1025));
        lease.renew(moment(26, 1025));
        assert!(!lease.allows(first, moment(27, 1026)), "another term");
        assert!(lease.allows(second, moment(27, 1026)));
        // Suspended: the first clock stood still.
        assert!(!lease.allows(second, moment(28, 2000)));
        lease.renew(moment(29, 2001));
        assert!(!lease.allows(second, moment(30, 2002)));
        // Counted out in the midst of it.
        let third = lease.term(moment(30, 2002));
        lease.lose();
        assert!(lease.is_over(moment(31, 2003)) && !lease.allows(third, moment(31, 2003)));
        lease.renew(moment(31, 2003));
        assert!(!lease.allows(third, moment(31, 2003)));
    }
}
