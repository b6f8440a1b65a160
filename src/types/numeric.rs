//! numeric. The canonical form is `numeric_send`'s: ndigits, weight, sign, display scale, digits to base 10000; the
//! display scale stays (1.0 and 1.00 print as they were written), [`token_form`] drops it.
use std::borrow::Cow;
use std::cmp::Ordering;

use super::{ValueError, trimmed};

const BAD_TEXT: ValueError = ValueError::BadText { ty: "numeric" };
const BAD_BINARY: ValueError = ValueError::BadBinary { ty: "numeric" };
const OVERFLOW: ValueError = ValueError::OutOfRange { ty: "numeric" };

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;
const DSCALE_MAX: i64 = 0x3FFF;
/// What Postgres sends as the display scale of an infinity.
const INFINITY_DSCALE: u16 = 0x20;
/// Exponents from here on are not taken (Postgres: half of the largest int).
const EXPONENT_MAX: i64 = i32::MAX as i64 / 2;

/// A finite number: 0.d₁d₂d₃… × 10^point. `digits` are decimal, without zeros at either end; empty for zero.
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    point: i64,
    dscale: i64,
}

enum Value {
    Finite(Decimal),
    Nan,
    Infinite { negative: bool },
}

/// Text to canonical, rounded to the scale of the type.
pub(super) fn canonical_text(bytes: &[u8], limits: Option<(u16, i16)>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    parse(trimmed(bytes))?.limited(limits)?.encode(out)
}

/// Binary to canonical, rounded to the scale of the type.
pub(super) fn canonical_binary(bytes: &[u8], limits: Option<(u16, i16)>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    decode(bytes)?.limited(limits)?.encode(out)
}

/// Is this a binary numeric?
pub(super) fn check(bytes: &[u8]) -> Result<(), ValueError> {
    decode(bytes).map(drop)
}

/// Canonical to text.
pub(super) fn render(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    match decode(bytes)? {
        Value::Finite(number) => number.print(out),
        Value::Nan => out.extend_from_slice(b"NaN"),
        Value::Infinite { negative: false } => out.extend_from_slice(b"Infinity"),
        Value::Infinite { negative: true } => out.extend_from_slice(b"-Infinity"),
    }
    Ok(())
}

/// Text to text, as Postgres prints what it has read: for numbers inside jsonb.
pub(super) fn normalise(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let Value::Finite(number) = parse(bytes)? else { return Err(BAD_TEXT) };
    number.check_bounds()?;
    number.print(out);
    Ok(())
}

/// The same with the display scale set to 0. Canonical digits have no zeros at either end, so the rest is unique.
pub(super) fn token_form(canonical: &[u8]) -> Cow<'_, [u8]> {
    match canonical {
        [_, _, _, _, 0x00 | 0x40, 0, 0, 0, ..] => Cow::Borrowed(canonical),
        [_, _, _, _, 0x00 | 0x40, 0, _, _, digits @ ..] => Cow::Owned([&canonical[..6], &[0, 0], digits].concat()),
        _ => Cow::Borrowed(canonical),
    }
}

fn parse(text: &[u8]) -> Result<Value, ValueError> {
    match text.to_ascii_lowercase().as_slice() {
        b"nan" => Ok(Value::Nan),
        b"infinity" | b"+infinity" | b"inf" | b"+inf" => Ok(Value::Infinite { negative: false }),
        b"-infinity" | b"-inf" => Ok(Value::Infinite { negative: true }),
        _ => parse_finite(text).map(Value::Finite),
    }
}

fn parse_finite(text: &[u8]) -> Result<Decimal, ValueError> {
    let (negative, unsigned) = split_sign(text);
    let mantissa_end = unsigned.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(unsigned.len());
    let (mantissa, exponent) = unsigned.split_at(mantissa_end);
    let whole_end = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
    let (whole, fraction) = (&mantissa[..whole_end], mantissa.get(whole_end + 1..).unwrap_or_default());
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BAD_TEXT);
    }
    let exponent = parse_exponent(exponent)?;
    let number = Decimal {
        negative,
        digits: digits.iter().map(|digit| digit - b'0').collect(),
        point: whole.len() as i64 + exponent,
        dscale: (fraction.len() as i64 - exponent).max(0),
    };
    Ok(number.stripped())
}

fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

/// `e` and a signed number, or nothing.
fn parse_exponent(text: &[u8]) -> Result<i64, ValueError> {
    let [_, signed @ ..] = text else { return Ok(0) };
    let (negative, digits) = split_sign(signed);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BAD_TEXT);
    }
    let size = digits.iter().fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    match size {
        EXPONENT_MAX.. => Err(OVERFLOW),
        size if negative => Ok(-size),
        size => Ok(size),
    }
}

fn decode(bytes: &[u8]) -> Result<Value, ValueError> {
    let (head, body) = bytes.split_at_checked(8).ok_or(ValueError::Short)?;
    let field = |i: usize| u16::from_be_bytes([head[2 * i], head[2 * i + 1]]);
    match body.len().cmp(&(2 * usize::from(field(0)))) {
        Ordering::Less => return Err(ValueError::Short),
        Ordering::Greater => return Err(BAD_BINARY),
        Ordering::Equal => {}
    }
    let dscale = i64::from(field(3));
    if dscale > DSCALE_MAX {
        return Err(BAD_BINARY);
    }
    let negative = match field(2) {
        POSITIVE => false,
        NEGATIVE => true,
        NAN => return Ok(Value::Nan),
        INFINITY => return Ok(Value::Infinite { negative: false }),
        NEGATIVE_INFINITY => return Ok(Value::Infinite { negative: true }),
        _ => return Err(BAD_BINARY),
    };
    let point = (i64::from(field(1).cast_signed()) + 1) * 4;
    let mut number = Decimal { negative, digits: decimal_digits(body)?, point, dscale };
    number.cut(point + dscale);
    Ok(Value::Finite(number.stripped()))
}

fn decimal_digits(body: &[u8]) -> Result<Vec<u8>, ValueError> {
    let mut digits = Vec::with_capacity(body.len() * 2);
    for pair in body.chunks_exact(2) {
        let group = u16::from_be_bytes([pair[0], pair[1]]);
        if group > 9999 {
            return Err(BAD_BINARY);
        }
        digits.extend([1000, 100, 10, 1].map(|unit| (group / unit % 10) as u8));
    }
    Ok(digits)
}

impl Value {
    /// Applies `numeric(precision, scale)`.
    fn limited(self, limits: Option<(u16, i16)>) -> Result<Value, ValueError> {
        match (self, limits) {
            (Value::Finite(number), Some((precision, scale))) => {
                let rounded = number.rounded(i64::from(scale));
                let fits = rounded.point <= i64::from(precision) - i64::from(scale) || rounded.digits.is_empty();
                if fits { Ok(Value::Finite(rounded)) } else { Err(OVERFLOW) }
            }
            (Value::Infinite { .. }, Some(_)) => Err(OVERFLOW),
            (value, _) => Ok(value),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), ValueError> {
        match self {
            Value::Finite(number) => return number.encode(out),
            Value::Nan => out.extend(header(0, 0, NAN, 0)),
            Value::Infinite { negative: false } => out.extend(header(0, 0, INFINITY, INFINITY_DSCALE)),
            Value::Infinite { negative: true } => out.extend(header(0, 0, NEGATIVE_INFINITY, INFINITY_DSCALE)),
        }
        Ok(())
    }
}

fn header(ndigits: u16, weight: i16, sign: u16, dscale: u16) -> impl Iterator<Item = u8> {
    [ndigits, weight.cast_unsigned(), sign, dscale].into_iter().flat_map(u16::to_be_bytes)
}

impl Decimal {
    /// Without zeros at either end; zero has no sign.
    fn stripped(mut self) -> Decimal {
        let leading = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..leading);
        self.point -= leading as i64;
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        if self.digits.is_empty() {
            self.point = 0;
            self.negative = false;
        }
        self
    }

    /// Keeps this many digits, dropping the rest.
    fn cut(&mut self, keep: i64) {
        self.digits.truncate(usize::try_from(keep.max(0)).unwrap_or(usize::MAX));
    }

    /// Rounded half away from zero to `scale` digits after the point; a negative scale rounds before it.
    fn rounded(mut self, scale: i64) -> Decimal {
        self.dscale = scale.max(0);
        let keep = self.point.saturating_add(scale);
        let up = usize::try_from(keep).ok().and_then(|i| self.digits.get(i)).is_some_and(|digit| *digit >= 5);
        self.cut(keep);
        if up {
            self.add_last_place();
        }
        self.stripped()
    }

    fn add_last_place(&mut self) {
        for digit in self.digits.iter_mut().rev() {
            if *digit < 9 {
                *digit += 1;
                return;
            }
            *digit = 0;
        }
        self.digits.insert(0, 1);
        self.point += 1;
    }

    /// The weight of the first group of four digits, when the number fits Postgres's format.
    fn check_bounds(&self) -> Result<i16, ValueError> {
        if self.dscale > DSCALE_MAX {
            return Err(OVERFLOW);
        }
        if self.digits.is_empty() {
            return Ok(0);
        }
        i16::try_from((self.point - 1).div_euclid(4)).map_err(|_| OVERFLOW)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), ValueError> {
        let weight = self.check_bounds()?;
        let sign = if self.negative { NEGATIVE } else { POSITIVE };
        let dscale = u16::try_from(self.dscale).map_err(|_| OVERFLOW)?;
        let groups = self.groups();
        let ndigits = u16::try_from(groups.len()).map_err(|_| OVERFLOW)?;
        out.extend(header(ndigits, weight, sign, dscale));
        out.extend(groups.into_iter().flat_map(u16::to_be_bytes));
        Ok(())
    }

    /// The digits in groups of four, aligned to the point.
    fn groups(&self) -> Vec<u16> {
        if self.digits.is_empty() {
            return Vec::new();
        }
        let first = usize::try_from((self.point - 1).rem_euclid(4) + 1).unwrap_or(4);
        let (head, tail) = self.digits.split_at(first.min(self.digits.len()));
        let mut groups = vec![group(head, first)];
        groups.extend(tail.chunks(4).map(|digits| group(digits, 4)));
        groups
    }

    fn print(&self, out: &mut Vec<u8>) {
        let digit = |i: i64| usize::try_from(i).ok().and_then(|i| self.digits.get(i)).map_or(b'0', |d| b'0' + d);
        if self.negative {
            out.push(b'-');
        }
        if self.point <= 0 {
            out.push(b'0');
        }
        out.extend((0..self.point).map(digit));
        if self.dscale > 0 {
            out.push(b'.');
            out.extend((self.point..self.point + self.dscale).map(digit));
        }
    }
}

/// The digits as one number, as if zeros followed up to `width` places.
fn group(digits: &[u8], width: usize) -> u16 {
    (0..width).fold(0, |sum, i| sum * 10 + u16::from(digits.get(i).copied().unwrap_or(0)))
}
