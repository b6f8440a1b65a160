//! date, timestamp and timestamptz: days and microseconds since 2000-01-01 (UTC), with both
//! infinities at the ends of the integer.
use super::datetime_scan::{Scanned, Written, scan};
use super::zone::Zone;
use super::{ValueError, fixed};

const DATE: &str = "date";
pub(super) const TIMESTAMP: &str = "timestamp";
pub(super) const TIMESTAMPTZ: &str = "timestamp with time zone";
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

/// Text to microseconds; an offset is read and dropped, as Postgres does.
pub(super) fn timestamp(bytes: &[u8], digits: Option<u8>) -> Result<i64, ValueError> {
    let micros = match scan(bytes, TIMESTAMP)? {
        Scanned::Infinity => return Ok(i64::MAX),
        Scanned::NegativeInfinity => return Ok(i64::MIN),
        Scanned::Written(written) => in_range(local(&written), TIMESTAMP)?,
    };
    in_range(i128::from(round_to(micros, digits)), TIMESTAMP)
}

/// Text to microseconds; without an offset the session's time zone counts.
pub(super) fn timestamptz(bytes: &[u8], time_zone: &str, digits: Option<u8>) -> Result<i64, ValueError> {
    let micros = match scan(bytes, TIMESTAMPTZ)? {
        Scanned::Infinity => return Ok(i64::MAX),
        Scanned::NegativeInfinity => return Ok(i64::MIN),
        Scanned::Written(written) => instant(&written, time_zone)?,
    };
    in_range(i128::from(round_to(micros, digits)), TIMESTAMPTZ)
}

fn instant(written: &Written, time_zone: &str) -> Result<i64, ValueError> {
    let local = local(written);
    let offset = match written.offset {
        Some(offset) => offset,
        None => {
            let micros = i64::try_from(local).map_err(|_| ValueError::DatetimeOverflow { ty: TIMESTAMPTZ })?;
            local_offset(micros, time_zone)?
        }
    };
    in_range(local - i128::from(offset * MICROS), TIMESTAMPTZ)
}

fn local(written: &Written) -> i128 {
    i128::from(written.day.number()) * i128::from(DAY_MICROS) + i128::from(written.micros)
}

fn in_range(micros: i128, ty: &'static str) -> Result<i64, ValueError> {
    i64::try_from(micros)
        .ok()
        .filter(|micros| (TIMESTAMP_MIN..TIMESTAMP_END).contains(micros))
        .ok_or(ValueError::DatetimeOverflow { ty })
}

/// Rounds half away from zero to this many digits of the second, where they are limited.
pub(super) fn round_to(micros: i64, digits: Option<u8>) -> i64 {
    let Some(unit) = digits.and_then(|digits| 6_u32.checked_sub(digits.into())).map(|zeros| 10_i64.pow(zeros)) else {
        return micros;
    };
    let rounded = micros.saturating_add(if micros < 0 { -(unit / 2) } else { unit / 2 });
    rounded / unit * unit
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

/// Binary to microseconds, of either kind of timestamp.
pub(super) fn instant_binary(bytes: &[u8], ty: &'static str, digits: Option<u8>) -> Result<i64, ValueError> {
    let micros = i64::from_be_bytes(fixed(bytes, ty)?);
    match micros {
        i64::MIN | i64::MAX => Ok(micros),
        TIMESTAMP_MIN..TIMESTAMP_END => in_range(i128::from(round_to(micros, digits)), ty),
        _ => Err(ValueError::DatetimeOverflow { ty }),
    }
}
