//! What is at work when something is killed, and where in it.
use std::time::Duration;

use super::Random;
use crate::rotation::crash::CALLS;

/// A job on keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Rotate,
    Register,
    Seal,
    Unseal,
    Purge,
    Shred,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The process that does the act.
    Command,
    Proxy,
    /// The whole server.
    Postgres,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The key service has been asked, and has not acted; which of the calls of this name.
    Before(&'static str, u64),
    /// It has acted, and its answer has not come.
    Behind(&'static str, u64),
    /// A rotation is in this state.
    State(&'static str),
    /// So long after its start.
    Moment(Duration),
}

const REGISTRATION: [(&str, u64); 6] =
    [("CreateKey", 0), ("DescribeKey", 0), ("GenerateDataKey", 0), ("Decrypt", 0), ("Encrypt", 0), ("Encrypt", 1)];
const PURGE: [(&str, u64); 3] = [("DescribeKey", 0), ("ScheduleKeyDeletion", 0), ("ScheduleKeyDeletion", 1)];
const SHRED: [(&str, u64); 2] = [("DescribeKey", 0), ("ScheduleKeyDeletion", 0)];
const SEAL: [(&str, u64); 4] = [("DescribeKey", 0), ("GenerateDataKey", 0), ("GenerateDataKey", 40), ("Decrypt", 0)];
const UNSEAL: [(&str, u64); 3] = [("DescribeKey", 0), ("Decrypt", 0), ("Decrypt", 60)];
const SEARCH: [&str; 2] = ["ListKeys", "ListResourceTags"];
const STATES: [&str; 3] = ["switching", "rewrapping", "verifying"];

impl Act {
    /// The calls to the key service that it makes; a run that has less to do may not come to the last of them.
    fn calls(self) -> &'static [(&'static str, u64)] {
        match self {
            Act::Rotate => &CALLS,
            Act::Register => &REGISTRATION,
            Act::Seal => &SEAL,
            Act::Unseal => &UNSEAL,
            Act::Purge => &PURGE,
            Act::Shred => &SHRED,
        }
    }

    /// One of the points at which it may be killed.
    pub fn point(self, random: &mut Random) -> Point {
        match random.below(8) {
            0 | 1 => Point::Moment(Duration::from_millis(20 + random.below(1200))),
            2 | 3 if self == Act::Rotate => Point::State(random.one(&STATES)),
            2..=5 => {
                let (call, skip) = random.one(self.calls());
                Point::Behind(call, skip)
            }
            _ => {
                let (call, skip) = random.one(self.calls());
                Point::Before(call, skip)
            }
        }
    }

    /// The same for one that has been broken off before: it looks first for a key that may have been made.
    pub fn point_of_resumed(self, random: &mut Random) -> Point {
        match (random.below(3), self) {
            (0, _) => Point::Moment(Duration::from_millis(20 + random.below(900))),
            (1, Act::Rotate | Act::Register) if random.below(2) == 0 => Point::Before(random.one(&SEARCH), 0),
            (1, Act::Rotate | Act::Register) => Point::Behind(random.one(&SEARCH), 0),
            _ => self.point(random),
        }
    }

    /// The command line, without what makes it slow enough for a point.
    pub fn command(self, tenant: &str) -> Vec<&str> {
        match self {
            Act::Rotate => vec!["key", "rotate", "1"],
            Act::Register => vec!["tenant", "register", tenant],
            Act::Seal => vec!["column", "seal", "public.visits.place", "--batch", "20"],
            Act::Unseal => vec!["column", "unseal", "public.visits.place", "--batch", "20"],
            Act::Purge => vec!["key", "purge", "1", "--yes"],
            Act::Shred => vec!["tenant", "shred", tenant, "--reason", "storm", "--yes"],
        }
    }

    /// What makes it slow enough.
    pub fn pace(self, point: Point) -> &'static [&'static str] {
        match (self, point) {
            (Act::Rotate, Point::State("rewrapping")) => &["--max-rows-per-second", "60"],
            (Act::Rotate, Point::Moment(_)) => &["--max-rows-per-second", "300"],
            (Act::Seal | Act::Unseal, Point::Moment(_)) => &["--max-rows-per-second", "200"],
            _ => &[],
        }
    }
}
