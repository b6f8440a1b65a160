//! Fields of CSV: quotes, a delimiter.
use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::{Bad, Field, Kind, Options};

/// Appends the fields of a row.
pub(super) fn fields(row: &[u8], options: &Options, found: &mut Vec<Field>) -> Result<(), Bad> {
    let mut start = 0;
    loop {
        let (end, kind) = walk(row, start, options, &mut |_| ())?;
        found.push(Field { raw: start..end, kind });
        if end == row.len() {
            return Ok(());
        }
        start = end + 1;
    }
}

/// What a field stands for.
pub(super) fn unquoted<'a>(raw: &'a [u8], options: &Options) -> Cow<'a, [u8]> {
    let mut out = Vec::with_capacity(raw.len());
    // The field has been found by the same walk: it goes to its end.
    let walked = walk(raw, 0, options, &mut |byte| out.push(byte));
    debug_assert!(walked.is_ok(), "a field that was found");
    Cow::Owned(out)
}

/// Goes through one field; gives where it ends, at a delimiter or the end of the row.
fn walk(row: &[u8], start: usize, options: &Options, each: &mut dyn FnMut(u8)) -> Result<(usize, Kind), Bad> {
    let (mut at, mut kind) = (start, Kind::Bare);
    loop {
        match row.get(at) {
            None => return Ok((at, kind)),
            Some(byte) if *byte == options.delimiter => return Ok((at, kind)),
            Some(byte) if *byte == options.quote => {
                kind = Kind::Quoted;
                at = quoted(row, at + 1, options, each)?;
            }
            Some(byte) => {
                each(*byte);
                at += 1;
            }
        }
    }
}

/// Goes on from behind a quote to behind the one that ends it.
fn quoted(row: &[u8], mut at: usize, options: &Options, each: &mut dyn FnMut(u8)) -> Result<usize, Bad> {
    loop {
        let byte = *row.get(at).ok_or(Bad::Quote)?;
        at += 1;
        if byte == options.escape
            && let Some(next) = row.get(at).filter(|next| **next == options.escape || **next == options.quote)
        {
            each(*next);
            at += 1;
            continue;
        }
        if byte == options.quote {
            return Ok(at);
        }
        each(byte);
    }
}

/// Appends a value, in quotes where they are asked for or needed.
pub(super) fn put(value: &[u8], options: &Options, is_quoted: bool, out: &mut BytesMut) {
    let special = |byte: &u8| *byte == options.delimiter || *byte == options.quote || matches!(byte, b'\n' | b'\r');
    if !is_quoted && *value != options.null[..] && !value.iter().any(special) {
        return out.put_slice(value);
    }
    out.reserve(value.len() + 2);
    out.put_u8(options.quote);
    let mut rest = value;
    while let Some(at) = rest.iter().position(|byte| *byte == options.quote || *byte == options.escape) {
        out.put_slice(&rest[..at]);
        out.put_slice(&[options.escape, rest[at]]);
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
    out.put_u8(options.quote);
}
