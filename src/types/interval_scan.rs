//! The spellings of intervals: `1 year 2 mons 3 days 04:05:06.7`, `@ 1 day ago`, `1-2`, `3 4:05:06`, `P1Y2M3DT4H5M6.7S`.
//! Postgres reads some more (a unit without number, ISO 8601's alternative form); they are refused.
use super::interval::Interval;
use super::{ValueError, is_space};

const BAD: ValueError = ValueError::BadDatetime { ty: "interval" };
const FIELD_OVERFLOW: ValueError = ValueError::IntervalOverflow;
const OVERFLOW: ValueError = ValueError::DatetimeOverflow { ty: "interval" };
/// Longer texts do not fit Postgres's buffers.
const TEXT_MAX: usize = 200;
const FIELDS_MAX: usize = 25;
const MICROS_OF: [(Unit, i64); 5] = [
    (Unit::Microsecond, 1),
    (Unit::Millisecond, 1000),
    (Unit::Second, 1_000_000),
    (Unit::Minute, 60_000_000),
    (Unit::Hour, 3_600_000_000),
];
const DAY_MICROS: i64 = super::datetime::DAY_MICROS;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Decade,
    Century,
    Millennium,
}

const SECONDS: u32 = 1 << Unit::Microsecond as u32 | 1 << Unit::Millisecond as u32 | 1 << Unit::Second as u32;
const TIME: u32 = SECONDS | 1 << Unit::Minute as u32 | 1 << Unit::Hour as u32;

/// A piece of the text.
enum Field<'a> {
    /// Digits with colons, or a number; `sign` is what stood before it.
    Number {
        sign: Option<u8>,
        text: &'a str,
    },
    Word(String),
}

/// Reads an interval. With `signs_spread` (IntervalStyle sql_standard) a minus at the very front is one of every field,
/// unless another field has a sign of its own.
pub(super) fn scan(text: &str, signs_spread: bool) -> Result<Interval, ValueError> {
    if text.len() > TEXT_MAX {
        return Err(BAD);
    }
    if let Some(rest) = text.strip_prefix('P') {
        return Sum::default().iso_8601(rest);
    }
    let fields = fields(text)?;
    let signs: Vec<Option<u8>> = fields.iter().map(Field::sign).collect();
    let negative = signs_spread && signs.first() == Some(&Some(b'-')) && signs.iter().skip(1).all(Option::is_none);
    Sum::default().fields(&fields, negative)
}

impl Field<'_> {
    fn sign(&self) -> Option<u8> {
        match self {
            Field::Number { sign, .. } => *sign,
            Field::Word(_) => None,
        }
    }
}

fn fields(text: &str) -> Result<Vec<Field<'_>>, ValueError> {
    let mut fields = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        if is_space(first) || matches!(first, b'@' | b',') {
            rest = &rest[1..];
            continue;
        }
        let length = if first.is_ascii_alphabetic() {
            let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            fields.push(Field::Word(rest[..length].to_ascii_lowercase()));
            let glued = rest.as_bytes().get(length).is_some_and(|b| !is_space(*b) && *b != b',');
            if glued {
                return Err(BAD);
            }
            length
        } else {
            let (field, length) = number(rest)?;
            fields.push(field);
            length
        };
        rest = &rest[length..];
    }
    if fields.len() > FIELDS_MAX { Err(BAD) } else { Ok(fields) }
}

/// A number with its sign, and how many bytes it takes.
fn number(rest: &str) -> Result<(Field<'_>, usize), ValueError> {
    let sign = rest.bytes().next().filter(|b| matches!(b, b'+' | b'-'));
    let mut start = usize::from(sign.is_some());
    if sign.is_some() {
        start += rest[start..].bytes().take_while(|b| is_space(*b)).count();
    }
    let body = &rest[start..];
    let length = body.bytes().take_while(|b| b.is_ascii_digit() || matches!(b, b':' | b'.' | b'-')).count();
    let begins = body.bytes().next().is_some_and(|b| b.is_ascii_digit() || (b == b'.' && sign.is_none()));
    let ends = body[..length].bytes().last().is_some_and(|b| b.is_ascii_digit());
    if !begins || !ends {
        return Err(BAD);
    }
    Ok((Field::Number { sign, text: &body[..length] }, start + length))
}

fn unit(word: &str) -> Option<Unit> {
    Some(match word {
        "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" => Unit::Microsecond,
        "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" => Unit::Millisecond,
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Second,
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minute,
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Hour,
        "d" | "day" | "days" => Unit::Day,
        "w" | "week" | "weeks" => Unit::Week,
        "mon" | "mons" | "month" | "months" => Unit::Month,
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Year,
        "dec" | "decs" | "decade" | "decades" => Unit::Decade,
        "c" | "cent" | "century" | "centuries" => Unit::Century,
        "mil" | "mils" | "millennium" | "millennia" => Unit::Millennium,
        _ => return None,
    })
}

/// What the number left of the current place counts.
enum Expected {
    /// Nothing was said: seconds.
    Anything,
    /// A unit was written and has no number yet.
    Written(Unit),
    /// Follows from the field to the right.
    Implied(Unit),
    /// Only a unit, or hours and minutes, may follow `ago`.
    NoNumber,
}

/// What was read so far.
#[derive(Default)]
struct Sum {
    months: i32,
    years: i32,
    days: i32,
    micros: i64,
    seen: u32,
}

impl Sum {
    /// From the right to the left: units stand behind their numbers.
    fn fields(mut self, fields: &[Field<'_>], negative: bool) -> Result<Interval, ValueError> {
        let mut expected = Expected::Anything;
        let mut ago = false;
        for (i, field) in fields.iter().enumerate().rev() {
            expected = match field {
                Field::Word(_) if matches!(expected, Expected::Written(_)) => return Err(BAD),
                Field::Word(word) if word == "ago" && i + 1 == fields.len() => {
                    ago = true;
                    Expected::NoNumber
                }
                Field::Word(word) => Expected::Written(unit(word).ok_or(BAD)?),
                Field::Number { .. } if matches!(expected, Expected::Written(_)) && field.has_colon() => {
                    return Err(BAD);
                }
                Field::Number { sign, text } if field.has_colon() => {
                    self.clock(*sign, text, negative)?;
                    Expected::Implied(Unit::Day)
                }
                Field::Number { sign, text } => self.number(*sign, text, &expected, negative)?,
            };
        }
        if self.seen == 0 || matches!(expected, Expected::Written(_)) {
            return Err(BAD);
        }
        if ago {
            self.negate()?;
        }
        self.done()
    }

    fn see(&mut self, mask: u32) -> Result<(), ValueError> {
        if self.seen & mask != 0 {
            return Err(BAD);
        }
        self.seen |= mask;
        Ok(())
    }

    /// `hh:mm`, `hh:mm:ss` or `hh:mm:ss.f`
    fn clock(&mut self, sign: Option<u8>, text: &str, negative: bool) -> Result<(), ValueError> {
        // A time with a sign that is no time counts as a number that is none.
        let micros = clock_micros(text).map_err(|error| if sign.is_some() { BAD } else { error })?;
        self.micros = if sign == Some(b'-') || negative { -micros } else { micros };
        self.see(TIME)
    }

    fn number(
        &mut self,
        sign: Option<u8>,
        text: &str,
        expected: &Expected,
        negative: bool,
    ) -> Result<Expected, ValueError> {
        let unit = match expected {
            Expected::Anything => Unit::Second,
            Expected::Written(unit) | Expected::Implied(unit) => *unit,
            Expected::NoNumber => return Err(BAD),
        };
        let negative = negative || sign == Some(b'-');
        if let Some((years, months)) = text.split_once('-') {
            let years = whole_digits(years)?.checked_mul(12).ok_or(FIELD_OVERFLOW)?;
            let months = whole_digits(months)?;
            if months > 11 {
                return Err(FIELD_OVERFLOW);
            }
            let months = years.checked_add(months).ok_or(FIELD_OVERFLOW)?;
            self.add(Unit::Month, if negative { -months } else { months }, 0.0)?;
            self.see(1 << Unit::Month as u32)?;
            return Ok(Expected::Implied(Unit::Month));
        }
        let (digits, fraction) = text.split_once('.').map_or((text, ""), |(digits, fraction)| (digits, fraction));
        let value = whole(digits)?;
        let fraction = fraction_of(fraction)?;
        let (value, fraction) = if negative { (-value, -fraction) } else { (value, fraction) };
        self.add(unit, value, fraction)?;
        self.see(if unit == Unit::Second && fraction != 0.0 { SECONDS } else { 1 << unit as u32 })?;
        Ok(Expected::Implied(if unit == Unit::Hour { Unit::Day } else { unit }))
    }

    /// Adds a number of a unit; a fraction goes to the next smaller part, as Postgres spreads it.
    fn add(&mut self, unit: Unit, value: i64, fraction: f64) -> Result<(), ValueError> {
        if let Some((_, micros)) = MICROS_OF.iter().find(|(known, _)| *known == unit) {
            let whole = value.checked_mul(*micros).and_then(|whole| self.micros.checked_add(whole));
            self.micros = whole.ok_or(FIELD_OVERFLOW)?;
            return self.add_micros(fraction, *micros);
        }
        let value = i32::try_from(value).map_err(|_| FIELD_OVERFLOW)?;
        match unit {
            Unit::Day => {
                self.days = self.days.checked_add(value).ok_or(FIELD_OVERFLOW)?;
                self.add_micros(fraction, DAY_MICROS)
            }
            Unit::Week => {
                self.days = value.checked_mul(7).and_then(|n| self.days.checked_add(n)).ok_or(FIELD_OVERFLOW)?;
                self.add_days(fraction, 7)
            }
            Unit::Month => {
                self.months = self.months.checked_add(value).ok_or(FIELD_OVERFLOW)?;
                self.add_days(fraction, 30)
            }
            Unit::Year => self.add_years(value, fraction, 1),
            Unit::Decade => self.add_years(value, fraction, 10),
            Unit::Century => self.add_years(value, fraction, 100),
            Unit::Millennium => self.add_years(value, fraction, 1000),
            Unit::Microsecond | Unit::Millisecond | Unit::Second | Unit::Minute | Unit::Hour => Err(BAD),
        }
    }

    fn add_years(&mut self, value: i32, fraction: f64, years: i32) -> Result<(), ValueError> {
        self.years = value.checked_mul(years).and_then(|n| self.years.checked_add(n)).ok_or(FIELD_OVERFLOW)?;
        let months = (fraction * f64::from(years) * 12.0).round_ties_even() as i32;
        self.months = self.months.checked_add(months).ok_or(FIELD_OVERFLOW)?;
        Ok(())
    }

    fn add_days(&mut self, fraction: f64, days: i32) -> Result<(), ValueError> {
        let scaled = fraction * f64::from(days);
        self.days = self.days.checked_add(scaled as i32).ok_or(FIELD_OVERFLOW)?;
        self.add_micros(scaled - f64::from(scaled as i32), DAY_MICROS)
    }

    /// Cut, then rounded if more than half is left.
    fn add_micros(&mut self, fraction: f64, micros: i64) -> Result<(), ValueError> {
        let scaled = fraction * micros as f64;
        let cut = scaled as i64;
        let left = scaled - cut as f64;
        let rounded = cut + i64::from(left > 0.5) - i64::from(left < -0.5);
        self.micros = self.micros.checked_add(rounded).ok_or(FIELD_OVERFLOW)?;
        Ok(())
    }

    fn negate(&mut self) -> Result<(), ValueError> {
        self.micros = self.micros.checked_neg().ok_or(FIELD_OVERFLOW)?;
        for part in [&mut self.days, &mut self.months, &mut self.years] {
            *part = part.checked_neg().ok_or(FIELD_OVERFLOW)?;
        }
        Ok(())
    }

    fn done(self) -> Result<Interval, ValueError> {
        let months = i64::from(self.years) * 12 + i64::from(self.months);
        let months = i32::try_from(months).map_err(|_| OVERFLOW)?;
        Ok(Interval { micros: self.micros, days: self.days, months })
    }

    /// What follows the `P`: numbers with a letter each; those of times after a `T`.
    fn iso_8601(mut self, mut rest: &str) -> Result<Interval, ValueError> {
        let mut in_time = false;
        let mut complete = false;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('T') {
                (in_time, complete, rest) = (true, false, after);
                continue;
            }
            let minus = rest.starts_with('-');
            let body = rest.strip_prefix('-').unwrap_or(rest);
            let end = body.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
            let (number, after) = body.split_at(end);
            let letter = after.bytes().next().ok_or(BAD)?;
            let unit = iso_unit(letter, in_time).ok_or(BAD)?;
            let (value, fraction) = iso_number(number, unit)?;
            if minus { self.add(unit, -value, -fraction) } else { self.add(unit, value, fraction) }?;
            (complete, rest) = (true, &after[1..]);
        }
        if complete { self.done() } else { Err(BAD) }
    }
}

impl Field<'_> {
    fn has_colon(&self) -> bool {
        matches!(self, Field::Number { text, .. } if text.contains(':'))
    }
}

fn iso_unit(letter: u8, in_time: bool) -> Option<Unit> {
    match (letter, in_time) {
        (b'Y', false) => Some(Unit::Year),
        (b'M', false) => Some(Unit::Month),
        (b'W', false) => Some(Unit::Week),
        (b'D', false) => Some(Unit::Day),
        (b'H', true) => Some(Unit::Hour),
        (b'M', true) => Some(Unit::Minute),
        (b'S', true) => Some(Unit::Second),
        _ => None,
    }
}

/// A fraction only of seconds, and short: releases differ in how exactly they read longer ones.
fn iso_number(text: &str, unit: Unit) -> Result<(i64, f64), ValueError> {
    match text.split_once('.') {
        None => Ok((whole_digits(text)?, 0.0)),
        Some((digits, fraction)) => {
            let short = digits.len() <= 9 && (1..=6).contains(&fraction.len());
            if unit != Unit::Second || !short {
                return Err(BAD);
            }
            Ok((whole_digits(digits)?, fraction_of(fraction)?))
        }
    }
}

/// Of a clock, without sign.
fn clock_micros(text: &str) -> Result<i64, ValueError> {
    let (clock, fraction) = text.split_once('.').map_or((text, None), |(clock, fraction)| (clock, Some(fraction)));
    let parts: Vec<&str> = clock.split(':').collect();
    let (hours, minutes, seconds) = match (&parts[..], fraction) {
        ([hours, minutes], None) => (*hours, *minutes, "0"),
        ([minutes, seconds], Some(_)) => ("0", *minutes, *seconds),
        ([hours, minutes, seconds], _) => (*hours, *minutes, *seconds),
        _ => return Err(BAD),
    };
    let (hours, minutes, seconds) = (whole_digits(hours)?, whole_digits(minutes)?, whole_digits(seconds)?);
    let fraction = (fraction_of(fraction.unwrap_or(""))? * 1e6).round_ties_even() as i64;
    if minutes > 59 || seconds > 60 {
        return Err(FIELD_OVERFLOW);
    }
    let rest = (minutes * 60 + seconds) * 1_000_000 + fraction;
    hours.checked_mul(3_600_000_000).and_then(|micros| micros.checked_add(rest)).ok_or(FIELD_OVERFLOW)
}

/// Digits, or none before a fraction.
fn whole(digits: &str) -> Result<i64, ValueError> {
    if digits.is_empty() { Ok(0) } else { whole_digits(digits) }
}

fn whole_digits(digits: &str) -> Result<i64, ValueError> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BAD);
    }
    digits.parse().map_err(|_| FIELD_OVERFLOW)
}

fn fraction_of(digits: &str) -> Result<f64, ValueError> {
    if digits.is_empty() {
        return Ok(0.0);
    }
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BAD);
    }
    format!("0.{digits}").parse().map_err(|_| BAD)
}
