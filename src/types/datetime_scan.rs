//! The ISO spellings of dates and times: `2024-01-31`, `20240131`, `2024-01-31T23:59:59.5Z`, `2024-01-31 23:59 +01:30`,
//! `0044-03-15 BC`, `infinity`. Postgres reads many more; those depend on settings, clocks or word lists, and are
//! refused.
use super::calendar::Day;
use super::datetime::{DAY_MICROS, MICROS};
use super::{ValueError, is_space, trimmed};

/// What stood in the text.
pub(super) enum Scanned {
    Infinity,
    NegativeInfinity,
    Written(Written),
}

/// A date, with a time of day and an offset where they were written.
pub(super) struct Written {
    pub(super) day: Day,
    /// Since midnight; up to a whole day.
    pub(super) micros: i64,
    /// Seconds east of UTC.
    pub(super) offset: Option<i64>,
}

/// Largest hours of an offset.
const OFFSET_HOURS_MAX: i64 = 15;

/// Reads a value of the type named `ty`.
pub(super) fn scan(bytes: &[u8], ty: &'static str) -> Result<Scanned, ValueError> {
    let text = trimmed(bytes);
    if text.eq_ignore_ascii_case(b"infinity") {
        return Ok(Scanned::Infinity);
    }
    if text.eq_ignore_ascii_case(b"-infinity") {
        return Ok(Scanned::NegativeInfinity);
    }
    Scanner { rest: text, ty }.written().map(Scanned::Written)
}

/// Reads a time of day with an offset, if one follows: microseconds since midnight and seconds east of UTC.
pub(super) fn scan_time(bytes: &[u8], ty: &'static str) -> Result<(i64, Option<i64>), ValueError> {
    let mut scanner = Scanner { rest: trimmed(bytes), ty };
    let micros = scanner.time_of_day()?;
    let offset = scanner.offset(true)?;
    if !scanner.rest.is_empty() {
        return Err(scanner.bad());
    }
    Ok((scanner.within_day(micros)?, offset))
}

struct Scanner<'a> {
    rest: &'a [u8],
    ty: &'static str,
}

impl<'a> Scanner<'a> {
    fn bad(&self) -> ValueError {
        ValueError::BadDatetime { ty: self.ty }
    }

    fn overflow(&self) -> ValueError {
        ValueError::DatetimeOverflow { ty: self.ty }
    }

    fn written(&mut self) -> Result<Written, ValueError> {
        let (year, month, day) = self.date()?;
        let micros = self.time()?;
        let offset = self.offset(micros.is_some())?;
        let year = self.era(year)?;
        if !self.rest.is_empty() {
            return Err(self.bad());
        }
        let day = self.narrow_day(year, month, day)?;
        Ok(Written { day, micros: micros.unwrap_or(0), offset })
    }

    fn narrow_day(&self, year: i64, month: i64, day: i64) -> Result<Day, ValueError> {
        let (month, day) = u8::try_from(month).ok().zip(u8::try_from(day).ok()).ok_or(self.overflow())?;
        let day = Day { year, month, day };
        if day.exists() { Ok(day) } else { Err(self.overflow()) }
    }

    /// Year, month and day as written: four digits and more of a year first, or eight digits together.
    fn date(&mut self) -> Result<(i64, i64, i64), ValueError> {
        let first = self.digits();
        let separator = self.rest.first().copied();
        match (first.len(), separator) {
            (4..=7, Some(separator @ (b'-' | b'/'))) => {
                let month = self.day_or_month(separator)?;
                Ok((value(first), month, self.day_or_month(separator)?))
            }
            (8, separator) if separator != Some(b'-') && separator != Some(b'/') => {
                Ok((value(&first[..4]), value(&first[4..6]), value(&first[6..])))
            }
            _ => Err(self.bad()),
        }
    }

    /// `T` or white space and `hh:mm`, `hh:mm:ss` or `hh:mm:ss.f`, if that is what follows.
    fn time(&mut self) -> Result<Option<i64>, ValueError> {
        let start = self.rest;
        match self.rest {
            [b'T' | b't', rest @ ..] => self.rest = rest,
            [space, ..] if is_space(*space) => self.skip_space(),
            _ => return Ok(None),
        }
        if !self.rest.first().is_some_and(u8::is_ascii_digit) {
            self.rest = start;
            return Ok(None);
        }
        let micros = self.time_of_day()?;
        self.within_day(micros).map(Some)
    }

    /// Microseconds of `hh:mm`, `hh:mm:ss`, `hh:mm:ss.f` or `mm:ss.f`.
    fn time_of_day(&mut self) -> Result<i64, ValueError> {
        let first = self.number()?;
        let second = self.after(b':')?;
        let (hour, minute, second, fraction) = match self.rest.first() {
            Some(b':') => (first, second, self.after(b':')?, self.fraction()?),
            Some(b'.') => (0, first, second, self.fraction()?),
            _ => (first, second, 0, 0),
        };
        if matches!(self.rest.first(), Some(b':' | b'.')) {
            return Err(self.bad());
        }
        if minute > 59 || second > 60 {
            return Err(self.overflow());
        }
        Ok(((hour * 60 + minute) * 60 + second) * MICROS + fraction)
    }

    fn within_day(&self, micros: i64) -> Result<i64, ValueError> {
        if micros > DAY_MICROS { Err(self.overflow()) } else { Ok(micros) }
    }

    /// Microseconds of `.f`, rounded from the double as Postgres does.
    fn fraction(&mut self) -> Result<i64, ValueError> {
        let [b'.', rest @ ..] = self.rest else { return Ok(0) };
        self.rest = rest;
        let digits = self.digits();
        let written = std::str::from_utf8(digits).ok().filter(|text| !text.is_empty()).ok_or(self.bad())?;
        let fraction: f64 = format!("0.{written}").parse().map_err(|_| self.bad())?;
        Ok((fraction * MICROS as f64).round_ties_even() as i64)
    }

    /// `Z`, `UTC`, `GMT` or a signed offset, if one follows. After a bare date it must stand apart.
    fn offset(&mut self, after_time: bool) -> Result<Option<i64>, ValueError> {
        let start = self.rest;
        self.skip_space();
        let apart = self.rest.len() < start.len();
        if !after_time && !apart {
            return Ok(None);
        }
        if let [sign @ (b'+' | b'-'), rest @ ..] = self.rest {
            self.rest = rest;
            let size = self.signed_offset()?;
            return Ok(Some(if *sign == b'-' { -size } else { size }));
        }
        if after_time && self.take_word(&[b"z", b"utc", b"gmt"]) {
            return Ok(Some(0));
        }
        self.rest = start;
        Ok(None)
    }

    /// `h`, `hh`, `hhmm`, `hh:mm` or `hh:mm:ss`, in seconds.
    fn signed_offset(&mut self) -> Result<i64, ValueError> {
        let first = self.digits();
        let colon = self.rest.first() == Some(&b':');
        let (hours, mut minutes) = match (first.len(), colon) {
            (1 | 2, _) => (value(first), 0),
            (3 | 4, false) => (value(first) / 100, value(first) % 100),
            _ => return Err(self.bad()),
        };
        let mut seconds = 0;
        if colon {
            minutes = self.after(b':')?;
        }
        if colon && self.rest.first() == Some(&b':') {
            seconds = self.after(b':')?;
        }
        if hours > OFFSET_HOURS_MAX || minutes > 59 || seconds > 59 {
            return Err(ValueError::OffsetOverflow);
        }
        Ok((hours * 60 + minutes) * 60 + seconds)
    }

    /// The astronomical year, after `BC` or `AD` if one follows.
    fn era(&mut self, year: i64) -> Result<i64, ValueError> {
        let start = self.rest;
        self.skip_space();
        let apart = self.rest.len() < start.len();
        let before = apart && self.take_word(&[b"bc"]);
        let after = apart && !before && self.take_word(&[b"ad"]);
        if !before && !after {
            self.rest = start;
        }
        match year {
            ..=0 => Err(self.overflow()),
            year if before => Ok(1 - year),
            year => Ok(year),
        }
    }

    /// Takes one of the words (lower case), whole, in any case.
    fn take_word(&mut self, words: &[&[u8]]) -> bool {
        let length = self.rest.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
        let (word, rest) = self.rest.split_at(length);
        let found = words.iter().any(|known| word.eq_ignore_ascii_case(known));
        if found {
            self.rest = rest;
        }
        found
    }

    fn skip_space(&mut self) {
        let count = self.rest.iter().take_while(|b| is_space(**b)).count();
        self.rest = &self.rest[count..];
    }

    fn digits(&mut self) -> &'a [u8] {
        let (digits, rest) = self.rest.split_at(self.rest.iter().take_while(|b| b.is_ascii_digit()).count());
        self.rest = rest;
        digits
    }

    /// A number of one to eight digits.
    fn number(&mut self) -> Result<i64, ValueError> {
        let digits = self.digits();
        if (1..=8).contains(&digits.len()) { Ok(value(digits)) } else { Err(self.bad()) }
    }

    /// The same after this byte.
    fn after(&mut self, byte: u8) -> Result<i64, ValueError> {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                self.number()
            }
            _ => Err(self.bad()),
        }
    }

    /// One or two digits, after the separator.
    fn day_or_month(&mut self, separator: u8) -> Result<i64, ValueError> {
        let before = self.rest.len();
        let number = self.after(separator)?;
        if before - self.rest.len() <= 3 { Ok(number) } else { Err(self.bad()) }
    }
}

/// At most eight digits.
fn value(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
}
