//! time and timetz: microseconds since midnight, up to a whole day; timetz has its offset beside them.
use super::datetime::{DAY_MICROS, round_to};
use super::datetime_scan::scan_time;
use super::zone::Zone;
use super::{ValueError, fixed};

const TIME: &str = "time";
const TIMETZ: &str = "time with time zone";
/// Seconds from which on an offset is refused.
const OFFSET_END: i32 = 16 * 3600;

/// A time of day and where on earth.
#[derive(Clone, Copy)]
pub(super) struct ZonedTime {
    pub(super) micros: i64,
    /// Seconds west of UTC, as Postgres stores it.
    pub(super) west: i32,
}

impl ZonedTime {
    /// Appends the canonical form.
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend(self.micros.to_be_bytes());
        out.extend(self.west.to_be_bytes());
    }
}

/// Text to microseconds; an offset is read and dropped, as Postgres does.
pub(super) fn time(bytes: &[u8], digits: Option<u8>) -> Result<i64, ValueError> {
    scan_time(bytes, TIME).map(|(micros, _)| round_to(micros, digits))
}

/// Text with an offset. Without one the session's time zone counts, if its offset is always the same: else it would
/// depend on the day.
pub(super) fn timetz(bytes: &[u8], time_zone: &str, digits: Option<u8>) -> Result<ZonedTime, ValueError> {
    let (micros, offset) = scan_time(bytes, TIMETZ)?;
    let offset = match offset {
        Some(offset) => offset,
        None => Zone::find(time_zone).and_then(|zone| zone.fixed()).ok_or(ValueError::NoOffset)?,
    };
    let west = i32::try_from(-offset).map_err(|_| ValueError::OffsetOverflow)?;
    Ok(ZonedTime { micros: round_to(micros, digits), west })
}

/// Binary to microseconds.
pub(super) fn time_binary(bytes: &[u8], digits: Option<u8>) -> Result<i64, ValueError> {
    let micros = i64::from_be_bytes(fixed(bytes, TIME)?);
    match micros {
        0..=DAY_MICROS => Ok(round_to(micros, digits)),
        _ => Err(ValueError::DatetimeOverflow { ty: TIME }),
    }
}

/// Binary to a time with its offset.
pub(super) fn timetz_binary(bytes: &[u8], digits: Option<u8>) -> Result<ZonedTime, ValueError> {
    let bytes: [u8; 12] = fixed(bytes, TIMETZ)?;
    let (micros, west) = bytes.split_at(8);
    let micros = time_binary(micros, digits)?;
    let west = i32::from_be_bytes(fixed(west, TIMETZ)?);
    if west.unsigned_abs() >= OFFSET_END.unsigned_abs() {
        return Err(ValueError::OffsetOverflow);
    }
    Ok(ZonedTime { micros, west })
}
