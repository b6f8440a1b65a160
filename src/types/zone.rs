//! Offsets of the session's time zone, from the time zone database of this machine.
//!
//! The server has its own copy. Where the two are of different releases, local times of the zones whose rules changed
//! in between are read and printed differently; times with an offset, and all stored instants, are not concerned.
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::calendar::Day;

/// Seconds from 1970-01-01 to 2000-01-01.
const EPOCH: i64 = 946_684_800;
const DAY: i64 = 86_400;
/// The rules repeat after 400 years of the calendar.
const CYCLE: i64 = 146_097 * DAY;
/// From the year 9000 on, times are looked up in an earlier cycle: the database ends in 9999.
const LOOKUP_MAX: i64 = 2_556_057 * DAY;

/// A time zone.
pub(super) struct Zone(TimeZone);

impl Zone {
    /// The zone of a `TimeZone` setting: a name of the database or a POSIX string such as `<-05>+05`.
    pub(super) fn find(name: &str) -> Option<Zone> {
        TimeZone::get(name).or_else(|_| TimeZone::posix(name)).ok().map(Zone)
    }

    /// Offset (seconds east) of a zone that always has the same.
    pub(super) fn fixed(&self) -> Option<i64> {
        let changes = self.0.following(Timestamp::MIN).next().is_some();
        (!changes).then(|| i64::from(self.0.to_offset(Timestamp::UNIX_EPOCH).seconds()))
    }

    /// Offset (seconds east) and abbreviation at `seconds` (UTC, since 2000-01-01).
    pub(super) fn at(&self, seconds: i64) -> Option<(i64, String)> {
        let time = Timestamp::from_second(repeated(seconds) + EPOCH).ok()?;
        let info = self.0.to_offset_info(time);
        Some((i64::from(info.offset().seconds()), info.abbreviation().to_owned()))
    }

    /// Offset (seconds east) for a local time, in seconds since 2000-01-01 local. Where the clock went forward or
    /// back, the later of the two readings, as Postgres does: the old offset in a gap, the new one in a repeated hour.
    pub(super) fn of_local(&self, local: i64) -> Option<i64> {
        let local = repeated(local);
        let (day, second) = (Day::from_number(local.div_euclid(DAY)), local.rem_euclid(DAY));
        let field = |value: i64| i8::try_from(value).ok();
        let time = DateTime::new(
            i16::try_from(day.year).ok()?,
            i8::try_from(day.month).ok()?,
            i8::try_from(day.day).ok()?,
            field(second / 3600)?,
            field(second / 60 % 60)?,
            field(second % 60)?,
            0,
        )
        .ok()?;
        let utc = self.0.to_ambiguous_timestamp(time).later().ok()?;
        Some(local + EPOCH - utc.as_second())
    }
}

fn repeated(seconds: i64) -> i64 {
    if seconds < LOOKUP_MAX { seconds } else { LOOKUP_MAX - CYCLE + (seconds - LOOKUP_MAX).rem_euclid(CYCLE) }
}
