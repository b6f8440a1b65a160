//! int2, int4 and int8. The hexadecimal, octal, binary and underscore forms of Postgres 16 are
//! refused: older servers do not take them.
use super::{ValueError, trimmed};

pub(super) fn int2(bytes: &[u8]) -> Result<i16, ValueError> {
    parse(bytes, "smallint")
}

pub(super) fn int4(bytes: &[u8]) -> Result<i32, ValueError> {
    parse(bytes, "integer")
}

pub(super) fn int8(bytes: &[u8]) -> Result<i64, ValueError> {
    parse(bytes, "bigint")
}

/// Digits with an optional sign, white space around them. Digits that overflow are told before what follows them, as
/// Postgres does; the sum saturates, and what does not fit an i128 fits no integer type.
fn parse<T: TryFrom<i128>>(bytes: &[u8], ty: &'static str) -> Result<T, ValueError> {
    let (negative, unsigned) = match trimmed(bytes) {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (digits, rest) = unsigned.split_at(unsigned.iter().take_while(|b| b.is_ascii_digit()).count());
    let size = digits.iter().fold(0_i128, |sum, digit| sum.saturating_mul(10).saturating_add(i128::from(digit - b'0')));
    let value = T::try_from(if negative { -size } else { size }).map_err(|_| ValueError::OutOfRange { ty })?;
    if digits.is_empty() || !rest.is_empty() {
        return Err(ValueError::BadText { ty });
    }
    Ok(value)
}
