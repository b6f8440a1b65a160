//! date and timestamptz: days and microseconds since 2000-01-01 (UTC), with both infinities at the ends of the integer.
use super::datetime_scan::{Scanned, Written, scan};
use super::zone::Zone;
use super::{ValueError, fixed};

const DATE: &str = "date";
const TIMESTAMPTZ: &str = "timestamp with time zone";
/// 4714-11-24 BC.
const DATE_MIN: i32 = -2_451_545;
/// The day after 5874897-12-31.
const DATE_END: i32 = 2_145_031_949;
/// 4714-11-24 00:00:00 BC.
const TIMESTAMP_MIN: i64 = -211_813_488_000_000_000;
/// 294277-01-01 00:00:00.
const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;
pub(super) const MICROS: i64 = 1_000_000;
pub(super) const DAY_MICROS: i64 = 86_400 * MICROS;

/// Text to days; a time of day and an offset are read and dropped, as Postgres does.
pub(super) fn date(bytes: &[u8]) -> Result<i32, ValueError> {
    match scan(bytes, DATE)? {
        Scanned::Infinity => Ok(i32::MAX),
        Scanned::NegativeInfinity => Ok(i32::MIN),
        Scanned::Written(written) => i32::try_from(written.day.number())
            .ok()
            .filter(|days| (DATE_MIN..DATE_END).contains(days))
            .ok_or(ValueError::DatetimeOverflow { ty: DATE }),
    }
}

/// Text to microseconds; without an offset the session's time zone counts.
pub(super) fn timestamptz(bytes: &[u8], time_zone: &str) -> Result<i64, ValueError> {
    match scan(bytes, TIMESTAMPTZ)? {
        Scanned::Infinity => Ok(i64::MAX),
        Scanned::NegativeInfinity => Ok(i64::MIN),
        Scanned::Written(written) => instant(&written, time_zone),
    }
}

fn instant(written: &Written, time_zone: &str) -> Result<i64, ValueError> {
    let overflow = ValueError::DatetimeOverflow { ty: TIMESTAMPTZ };
    let local = i128::from(written.day.number()) * i128::from(DAY_MICROS) + i128::from(written.micros);
    let local = i64::try_from(local).map_err(|_| overflow)?;
    let offset = match written.offset {
        Some(offset) => offset,
        None => local_offset(local, time_zone)?,
    };
    let utc = local.checked_sub(offset * MICROS).ok_or(overflow)?;
    if (TIMESTAMP_MIN..TIMESTAMP_END).contains(&utc) { Ok(utc) } else { Err(overflow) }
}

fn local_offset(local: i64, time_zone: &str) -> Result<i64, ValueError> {
    let zone = Zone::find(time_zone).ok_or(ValueError::BadDatetime { ty: TIMESTAMPTZ })?;
    zone.of_local(local.div_euclid(MICROS)).ok_or(ValueError::DatetimeOverflow { ty: TIMESTAMPTZ })
}

/// Binary to days.
pub(super) fn date_binary(bytes: &[u8]) -> Result<i32, ValueError> {
    let days = i32::from_be_bytes(fixed(bytes, DATE)?);
    match days {
        i32::MIN | i32::MAX | DATE_MIN..DATE_END => Ok(days),
        _ => Err(ValueError::DatetimeOverflow { ty: DATE }),
    }
}

/// Binary to microseconds.
pub(super) fn timestamptz_binary(bytes: &[u8]) -> Result<i64, ValueError> {
    let micros = i64::from_be_bytes(fixed(bytes, TIMESTAMPTZ)?);
    match micros {
        i64::MIN | i64::MAX | TIMESTAMP_MIN..TIMESTAMP_END => Ok(micros),
        _ => Err(ValueError::DatetimeOverflow { ty: TIMESTAMPTZ }),
    }
}
