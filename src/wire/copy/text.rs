//! Fields of the text format: backslash escapes, a delimiter.
use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::{Field, Kind};

/// Appends the fields of a line.
pub(super) fn fields(line: &[u8], delimiter: u8, found: &mut Vec<Field>) {
    let (mut start, mut at) = (0, 0);
    while let Some(next) = memchr::memchr2(delimiter, b'\\', &line[at..]) {
        at += next;
        if line[at] == delimiter {
            found.push(Field { raw: start..at, kind: Kind::Bare });
            start = at + 1;
            at += 1;
        } else {
            at = (at + 2).min(line.len());
        }
    }
    found.push(Field { raw: start..line.len(), kind: Kind::Bare });
}

/// What a field stands for.
pub(super) fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let Some((escape, tail)) = rest.split_first() else { break };
        rest = tail;
        out.push(match escape {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'0'..=b'7' => {
                let (value, after) = digits(escape - b'0', rest, (8, 2));
                rest = after;
                value
            }
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                let (value, after) = digits(0, rest, (16, 2));
                rest = after;
                value
            }
            other => *other,
        });
    }
    Cow::Owned(out)
}

/// Reads at most `most` digits of this base behind a value.
fn digits(mut value: u8, mut rest: &[u8], (base, most): (u8, usize)) -> (u8, &[u8]) {
    for _ in 0..most {
        let digit = rest.first().and_then(|byte| char::from(*byte).to_digit(u32::from(base)));
        let Some(digit) = digit else { break };
        value = value.wrapping_mul(base).wrapping_add(digit as u8);
        rest = &rest[1..];
    }
    (value, rest)
}

/// Appends a value.
pub(super) fn put(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    out.reserve(value.len());
    let is_special = |byte: &u8| *byte == delimiter || *byte == b'\\' || matches!(*byte, 8..=13);
    let mut rest = value;
    while let Some(at) = rest.iter().position(is_special) {
        out.put_slice(&rest[..at]);
        // A delimiter that has a letter of its own is written with it.
        let letter = match rest[at] {
            8 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            11 => b'v',
            12 => b'f',
            b'\r' => b'r',
            byte => byte,
        };
        out.put_slice(&[b'\\', letter]);
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
}
