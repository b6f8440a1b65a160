//! interval: microseconds, days and months, which Postgres keeps apart. Its send format is canonical; [`token_form`] is
//! the length in microseconds that `=` compares, with 30 days to a month and 24 hours to a day.
//!
//! The infinite intervals of Postgres 17 are refused: older servers read their bytes as a finite one.
use std::borrow::Cow;

use super::datetime::{DAY_MICROS, round_to};
use super::interval_scan::scan;
use super::{ValueError, fixed};

const OVERFLOW: ValueError = ValueError::DatetimeOverflow { ty: "interval" };

/// A value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Interval {
    pub(super) micros: i64,
    pub(super) days: i32,
    pub(super) months: i32,
}

const INFINITIES: [Interval; 2] = [
    Interval { micros: i64::MAX, days: i32::MAX, months: i32::MAX },
    Interval { micros: i64::MIN, days: i32::MIN, months: i32::MIN },
];

/// Text to canonical, rounded to these digits of the second.
pub(super) fn canonical_text(
    text: &str,
    interval_style: &str,
    digits: Option<u8>,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let signs_spread = interval_style == "sql_standard";
    checked(scan(text, signs_spread)?)?.encode(digits, out)
}

/// Binary to canonical, rounded to these digits of the second.
pub(super) fn canonical_binary(bytes: &[u8], digits: Option<u8>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    decode(bytes)?.encode(digits, out)
}

/// Reads the binary form.
pub(super) fn decode(bytes: &[u8]) -> Result<Interval, ValueError> {
    let bytes: [u8; 16] = fixed(bytes, "interval")?;
    let (micros, rest) = bytes.split_at(8);
    let (days, months) = rest.split_at(4);
    checked(Interval {
        micros: i64::from_be_bytes(fixed(micros, "interval")?),
        days: i32::from_be_bytes(fixed(days, "interval")?),
        months: i32::from_be_bytes(fixed(months, "interval")?),
    })
}

fn checked(interval: Interval) -> Result<Interval, ValueError> {
    if INFINITIES.contains(&interval) { Err(OVERFLOW) } else { Ok(interval) }
}

impl Interval {
    fn encode(mut self, digits: Option<u8>, out: &mut Vec<u8>) -> Result<(), ValueError> {
        if digits.is_some_and(|digits| digits < super::name::SECOND_DIGITS_MAX) {
            // What rounding would carry past the end of the integer.
            let room = i64::MAX - super::datetime::MICROS;
            if self.micros.unsigned_abs() > room.unsigned_abs() {
                return Err(OVERFLOW);
            }
            self.micros = round_to(self.micros, digits);
        }
        out.extend(self.micros.to_be_bytes());
        out.extend(self.days.to_be_bytes());
        out.extend(self.months.to_be_bytes());
        Ok(())
    }
}

/// The length in microseconds, 16 bytes.
pub(super) fn token_form(canonical: &[u8]) -> Cow<'_, [u8]> {
    let Ok(interval) = decode(canonical) else { return Cow::Borrowed(canonical) };
    let days = i128::from(interval.months) * 30 + i128::from(interval.days);
    let length = days * i128::from(DAY_MICROS) + i128::from(interval.micros);
    Cow::Owned(length.to_be_bytes().to_vec())
}
