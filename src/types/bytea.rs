//! bytea: hex and escape text forms.
use super::ValueError;
use super::uuid::{hex_digit, push_hex};

const BAD: ValueError = ValueError::BadText { ty: "bytea" };

/// Reads `\x...` or the escape form.
pub(super) fn parse(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    match bytes {
        [b'\\', b'x', digits @ ..] => parse_hex(digits, out),
        _ => parse_escape(bytes, out),
    }
}

/// White space may stand between bytes, not inside one.
fn parse_hex(mut digits: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    out.reserve(digits.len() / 2);
    loop {
        digits = match digits {
            [] => return Ok(()),
            [b' ' | b'\n' | b'\t' | b'\r', rest @ ..] => rest,
            [high, low, rest @ ..] => {
                out.push(hex_digit(*high).zip(hex_digit(*low)).map(|(h, l)| h << 4 | l).ok_or(ValueError::BadHex)?);
                rest
            }
            [_] => return Err(ValueError::BadHex),
        };
    }
}

fn parse_escape(mut text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    loop {
        text = match text {
            [] => return Ok(()),
            [b'\\', b'\\', rest @ ..] => {
                out.push(b'\\');
                rest
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            [b'\\', ..] => return Err(BAD),
            [byte, rest @ ..] => {
                out.push(*byte);
                rest
            }
        };
    }
}

/// `bytea_output = hex`.
pub(super) fn render_hex(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(2 + value.len() * 2);
    out.extend_from_slice(b"\\x");
    for byte in value {
        push_hex(*byte, out);
    }
}

/// `bytea_output = escape`.
pub(super) fn render_escape(value: &[u8], out: &mut Vec<u8>) {
    for &byte in value {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x20..=0x7e => out.push(byte),
            _ => out.extend([b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]),
        }
    }
}
