//! uuid.
use super::ValueError;

const BAD: ValueError = ValueError::BadText { ty: "uuid" };

/// 32 hexadecimal digits, a hyphen allowed after each second byte's worth of them, optional braces, no white space.
pub(super) fn parse(bytes: &[u8]) -> Result<[u8; 16], ValueError> {
    let mut rest = match bytes {
        [b'{', inner @ .., b'}'] => inner,
        bare => bare,
    };
    let mut value = [0; 16];
    for (i, byte) in value.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else { return Err(BAD) };
        *byte = hex_digit(*high).zip(hex_digit(*low)).map(|(h, l)| h << 4 | l).ok_or(BAD)?;
        rest = match after {
            [b'-', after @ ..] if i % 2 == 1 && i < 15 => after,
            after => after,
        };
    }
    if rest.is_empty() { Ok(value) } else { Err(BAD) }
}

/// Lower case, in groups of 8, 4, 4, 4 and 12.
pub(super) fn render(value: [u8; 16], out: &mut Vec<u8>) {
    for (i, byte) in value.into_iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        push_hex(byte, out);
    }
}

/// The value of a hexadecimal digit.
pub(super) fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Appends two lower-case hexadecimal digits.
pub(super) fn push_hex(byte: u8, out: &mut Vec<u8>) {
    for nibble in [byte >> 4, byte & 15] {
        out.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    }
}
