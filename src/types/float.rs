//! float4 and float8. The canonical form is IEEE 754, big-endian, the sign of zero and the bits of NaN included;
//! [`token_form8`] has one zero and one NaN.
use std::borrow::Cow;
use std::str::FromStr;

use super::{ValueError, trimmed};

/// Decimal digits that a float4 keeps, and a float8.
const DIGITS4: i32 = 6;
const DIGITS8: i32 = 15;
/// The NaN that stands for all of them in tokens.
const NAN4: u32 = 0x7fc0_0000;
const NAN8: u64 = 0x7ff8_0000_0000_0000;
/// Longest shortest form, in digits.
const DIGITS_MAX: usize = 17;

pub(super) fn float4(text: &str) -> Result<f32, ValueError> {
    parse(text, "real", |value: f32| (value == 0.0, value.is_infinite()))
}

pub(super) fn float8(text: &str) -> Result<f64, ValueError> {
    parse(text, "double precision", |value: f64| (value == 0.0, value.is_infinite()))
}

/// A decimal number or a name of a special value, white space around it. The hexadecimal numbers that some C libraries
/// read are refused. Digits that overflow are told before what follows them, as Postgres does.
fn parse<T: FromStr + Copy>(
    text: &str,
    ty: &'static str,
    is_zero_or_infinite: impl Fn(T) -> (bool, bool),
) -> Result<T, ValueError> {
    let bad = ValueError::BadText { ty };
    let text = std::str::from_utf8(trimmed(text.as_bytes())).map_err(|_| bad)?;
    if let Some(special) = special(text) {
        return special.parse().map_err(|_| bad);
    }
    let (number, rest) = text.split_at(decimal_length(text.as_bytes()));
    let value: T = number.parse().map_err(|_| bad)?;
    let (zero, infinite) = is_zero_or_infinite(value);
    let mantissa = number.split(['e', 'E']).next().unwrap_or(number);
    if infinite || (zero && mantissa.bytes().any(|b| matches!(b, b'1'..=b'9'))) {
        return Err(ValueError::OutOfRange { ty });
    }
    if rest.is_empty() { Ok(value) } else { Err(bad) }
}

/// The spelling that Rust reads, of a special value.
fn special(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "nan" => Some("NaN"),
        "infinity" | "+infinity" | "inf" | "+inf" => Some("inf"),
        "-infinity" | "-inf" => Some("-inf"),
        _ => None,
    }
}

/// How many bytes at the start are a decimal number; 0 if there is none.
fn decimal_length(text: &[u8]) -> usize {
    let digits = |from: usize| text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let start = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let whole = digits(start);
    let mut end = start + whole;
    let mut fraction = 0;
    if text.get(end) == Some(&b'.') {
        fraction = digits(end + 1);
        end += 1 + fraction;
    }
    if whole + fraction == 0 {
        return 0;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits((end + 1 + sign).min(text.len()));
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    end
}

/// As Postgres prints a float4 under this `extra_float_digits`.
pub(super) fn render4(value: f32, extra: i32, out: &mut Vec<u8>) {
    let fraction = value.to_bits() & 0x7f_ffff;
    let float = Float {
        exact: &|digits| format!("{:.*e}", digits - 1, value.abs()),
        shortest: format!("{:e}", value.abs()),
        reads_back: &|text| text.parse::<f32>().is_ok_and(|read| read == value.abs()),
        boundaries: boundaries(fraction.into(), (value.to_bits() >> 23 & 0xff) as i32, 23, 127),
        power_of_two: fraction == 0,
    };
    render(class(value.is_nan(), value.is_infinite(), value == 0.0), value.is_sign_negative(), out, |out| {
        if extra > 0 { place(&float.short(), DIGITS4, out) } else { place_rounded(&float, DIGITS4, extra, out) }
    });
}

/// As Postgres prints a float8 under this `extra_float_digits`.
pub(super) fn render8(value: f64, extra: i32, out: &mut Vec<u8>) {
    let fraction = value.to_bits() & 0xf_ffff_ffff_ffff;
    let float = Float {
        exact: &|digits| format!("{:.*e}", digits - 1, value.abs()),
        shortest: format!("{:e}", value.abs()),
        reads_back: &|text| text.parse::<f64>().is_ok_and(|read| read == value.abs()),
        boundaries: boundaries(fraction, (value.to_bits() >> 52 & 0x7ff) as i32, 52, 1023),
        power_of_two: fraction == 0,
    };
    render(class(value.is_nan(), value.is_infinite(), value == 0.0), value.is_sign_negative(), out, |out| {
        if extra > 0 { place(&float.short(), DIGITS8, out) } else { place_rounded(&float, DIGITS8, extra, out) }
    });
}

enum Class {
    Nan,
    Infinite,
    Zero,
    Other,
}

fn class(nan: bool, infinite: bool, zero: bool) -> Class {
    match (nan, infinite, zero) {
        (true, ..) => Class::Nan,
        (_, true, _) => Class::Infinite,
        (.., true) => Class::Zero,
        _ => Class::Other,
    }
}

fn render(class: Class, negative: bool, out: &mut Vec<u8>, digits: impl FnOnce(&mut Vec<u8>)) {
    if negative && !matches!(class, Class::Nan) {
        out.push(b'-');
    }
    match class {
        Class::Nan => out.extend_from_slice(b"NaN"),
        Class::Infinite => out.extend_from_slice(b"Infinity"),
        Class::Zero => out.push(b'0'),
        Class::Other => digits(out),
    }
}

/// The midpoints to the two neighbours of a positive number, each as an odd number (or an even one at the lower side
/// of a power of two) times a power of two.
fn boundaries(fraction: u64, exponent: i32, fraction_bits: u32, bias: i32) -> [(u64, i32); 2] {
    let (mantissa, power) = match exponent {
        0 => (fraction, 1 - bias - fraction_bits as i32),
        _ => (fraction | 1 << fraction_bits, exponent - bias - fraction_bits as i32),
    };
    let lower = if fraction == 0 && exponent > 1 {
        (4 * mantissa - 1, power - 2)
    } else {
        ((2 * mantissa).wrapping_sub(1), power - 1)
    };
    [lower, (2 * mantissa + 1, power - 1)]
}

/// A positive finite number, seen through what its width can do.
struct Float<'a> {
    /// `d.ddde±x` with so many digits, rounded.
    exact: &'a dyn Fn(usize) -> String,
    /// As few digits as read back as the number; they may stand on the border to a neighbour.
    shortest: String,
    reads_back: &'a dyn Fn(&str) -> bool,
    boundaries: [(u64, i32); 2],
    power_of_two: bool,
}

impl Float<'_> {
    /// The fewest digits that read back as the number under any rule of rounding, which is what Postgres prints; of two
    /// equally near, the even one.
    fn short(&self) -> String {
        let fewest = self.shortest.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
        let found = (fewest..=DIGITS_MAX).find_map(|digits| {
            let rounded = (self.exact)(digits);
            let above = self.power_of_two.then(|| next(&rounded)).flatten();
            [Some(rounded), above].into_iter().flatten().find(|text| (self.reads_back)(text) && !self.on_boundary(text))
        });
        found.unwrap_or_else(|| (self.exact)(DIGITS_MAX))
    }

    fn on_boundary(&self, text: &str) -> bool {
        let Some((digits, exponent)) = decimal(text) else { return false };
        self.boundaries.iter().any(|(odd, power)| equal(digits, exponent, *odd, *power))
    }
}

/// The number `d.ddde±x` as an integer times a power of ten, without zeros at its end.
fn decimal(text: &str) -> Option<(u64, i32)> {
    let (mantissa, exponent) = text.split_once('e')?;
    let mut exponent: i32 = exponent.parse().ok()?;
    let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let mut digits: u64 = mantissa.replace('.', "").parse().ok()?;
    exponent -= i32::try_from(fraction).ok()?;
    while digits != 0 && digits.is_multiple_of(10) {
        digits /= 10;
        exponent += 1;
    }
    Some((digits, exponent))
}

/// digits × 10^exponent = odd × 2^power? Both sides have 64 bits and their powers, so powers of five beyond 5^27 and
/// what overflows can only be unequal.
fn equal(digits: u64, exponent: i32, odd: u64, power: i32) -> bool {
    let Some(fives) = 5_u128.checked_pow(exponent.unsigned_abs()) else { return false };
    let (left, right) = match exponent {
        0.. => (u128::from(digits).checked_mul(fives), Some(u128::from(odd))),
        _ => (Some(u128::from(digits)), u128::from(odd).checked_mul(fives)),
    };
    let (Some(left), Some(right)) = (left, right) else { return false };
    // left × 2^exponent = right × 2^power
    let twos = |number: u128| (number >> number.trailing_zeros().min(127), number.trailing_zeros() as i32);
    let ((left, left_twos), (right, right_twos)) = (twos(left), twos(right));
    left == right && left_twos + exponent == right_twos + power
}

/// One more in the last place.
fn next(text: &str) -> Option<String> {
    let (mantissa, exponent) = text.split_once('e')?;
    let digits: u64 = mantissa.replace('.', "").parse().ok()?;
    let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i32);
    Some(format!("{}e{}", digits + 1, exponent.parse::<i32>().ok()? - fraction)).map(|plain| normal(&plain))
}

/// `ddde±x` as `d.dde±x`.
fn normal(plain: &str) -> String {
    let Some((digits, exponent)) = plain.split_once('e') else { return plain.to_owned() };
    let (first, rest) = digits.split_at(1);
    let exponent = exponent.parse::<i32>().unwrap_or(0) + rest.len() as i32;
    if rest.is_empty() { format!("{first}e{exponent}") } else { format!("{first}.{rest}e{exponent}") }
}

/// The digits of `d.ddde±x` where they are due: as an exponent when it is below -4 or not below `fixed_below`.
fn place(scientific: &str, fixed_below: i32, out: &mut Vec<u8>) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mut digits = mantissa.replace('.', "").into_bytes();
    while digits.len() > 1 && digits.last() == Some(&b'0') {
        digits.pop();
    }
    if exponent < -4 || exponent >= fixed_below {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        out.extend(format!("e{sign}{:02}", exponent.abs()).bytes());
        return;
    }
    let digit = |i: i32| usize::try_from(i).ok().and_then(|i| digits.get(i)).copied().unwrap_or(b'0');
    out.extend((exponent.min(0)..=exponent).map(digit));
    let last = i32::try_from(digits.len()).unwrap_or(0) - 1;
    if last > exponent {
        out.push(b'.');
        out.extend((exponent + 1..=last).map(digit));
    }
}

/// C's `%g` with the digits of the type and `extra` (not positive) more.
fn place_rounded(float: &Float<'_>, digits: i32, extra: i32, out: &mut Vec<u8>) {
    let digits = digits.saturating_add(extra).max(1);
    place(&(float.exact)(usize::try_from(digits).unwrap_or(1)), digits, out);
}

/// -0 as 0, and one NaN.
pub(super) fn token_form4(canonical: &[u8]) -> Cow<'_, [u8]> {
    match canonical.try_into().map(f32::from_be_bytes) {
        Ok(value) if value.is_nan() => Cow::Owned(NAN4.to_be_bytes().to_vec()),
        Ok(0.0) => Cow::Owned(vec![0; 4]),
        _ => Cow::Borrowed(canonical),
    }
}

/// -0 as 0, and one NaN.
pub(super) fn token_form8(canonical: &[u8]) -> Cow<'_, [u8]> {
    match canonical.try_into().map(f64::from_be_bytes) {
        Ok(value) if value.is_nan() => Cow::Owned(NAN8.to_be_bytes().to_vec()),
        Ok(0.0) => Cow::Owned(vec![0; 8]),
        _ => Cow::Borrowed(canonical),
    }
}
