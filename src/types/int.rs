//! int2 (for tenants only), int4 and int8. The hexadecimal, octal, binary and underscore forms of Postgres 16 are
//! refused: older servers do not take them.
use super::{ValueError, trimmed};

pub(super) fn int2(bytes: &[u8]) -> Result<i16, ValueError> {
    narrow(parse(bytes, "smallint")?, "smallint")
}

pub(super) fn int4(bytes: &[u8]) -> Result<i32, ValueError> {
    narrow(parse(bytes, "integer")?, "integer")
}

pub(super) fn int8(bytes: &[u8]) -> Result<i64, ValueError> {
    narrow(parse(bytes, "bigint")?, "bigint")
}

fn narrow<T: TryFrom<i128>>(value: i128, ty: &'static str) -> Result<T, ValueError> {
    T::try_from(value).map_err(|_| ValueError::OutOfRange { ty })
}

/// Digits with an optional sign, white space around them. Saturates: what does not fit an i128 fits no integer type.
fn parse(bytes: &[u8], ty: &'static str) -> Result<i128, ValueError> {
    let (negative, digits) = match trimmed(bytes) {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ValueError::BadText { ty });
    }
    let magnitude =
        digits.iter().fold(0_i128, |sum, digit| sum.saturating_mul(10).saturating_add(i128::from(digit - b'0')));
    Ok(if negative { -magnitude } else { magnitude })
}
