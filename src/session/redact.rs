//! Takes cells and tokens out of the server's own errors and notices.
use std::borrow::Cow;

use memchr::memmem;

/// What stands in their place.
const SEALED: &[u8] = b"[sealed]";
/// Magic of a cell in the hex form of bytea.
const CELL: &[u8] = b"\\xc15253";
/// The same in the escape form.
const CELL_ESCAPED: &[u8] = b"\\301RS";
/// The function whose value a unique violation shows.
const TOKEN: &[u8] = b"rowseal.eq(";

/// `text` with every cell, and every value of `rowseal.eq`, replaced by `[sealed]`.
pub fn redact(text: &[u8]) -> Cow<'_, [u8]> {
    let with_token = memmem::find(text, TOKEN).is_some();
    let cells = memmem::find(text, CELL).is_some() || memmem::find(text, CELL_ESCAPED).is_some();
    if !with_token && !cells {
        return Cow::Borrowed(text);
    }
    let text = if with_token { without_tokens(text) } else { Cow::Borrowed(text) };
    let out = without_hex(&text, CELL);
    if memmem::find(&out, CELL_ESCAPED).is_some() {
        return Cow::Borrowed(SEALED);
    }
    Cow::Owned(out)
}

/// `text` without the hexadecimal digits that begin so.
fn without_hex(text: &[u8], start: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memmem::find(rest, start) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(SEALED);
        let tail = &rest[at + 2..];
        let digits = tail.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        rest = &tail[digits..];
    }
    out.extend_from_slice(rest);
    out
}

/// `Key (a, rowseal.eq(b))=(1, token) already exists.` without its tokens, in whatever form bytea is written: what stands
/// in their places goes, or all values of the key where it is not sure which those are.
fn without_tokens(text: &[u8]) -> Cow<'_, [u8]> {
    let between: &[u8] = if memmem::find(text, b")=(").is_some() { b")=(" } else { b") = (" };
    let whole = Cow::Borrowed(SEALED);
    let Some(middle) = memmem::find(text, between) else { return Cow::Owned(without_hex(text, b"\\x")) };
    // An exclusion constraint names two keys: they are not told apart here.
    if memmem::find(&text[middle + 1..], between).is_some() {
        return whole;
    }
    let (head, tail) = (&text[..middle], &text[middle + between.len()..]);
    let (Some(open), Some(close)) = (memchr::memchr(b'(', head), memchr::memrchr(b')', tail)) else { return whole };
    let keys = keys(&head[open + 1..]);
    let values: Vec<&[u8]> = split(&tail[..close]);
    let shown = |(key, value): (&&[u8], &&[u8])| {
        if memmem::find(key, TOKEN).is_some() { SEALED.to_vec() } else { value.to_vec() }
    };
    let shown = match keys.len() == values.len() {
        true => keys.iter().zip(&values).map(shown).collect::<Vec<_>>().join(&b", "[..]),
        false => SEALED.to_vec(),
    };
    Cow::Owned([&text[..middle], between, &shown, &tail[close..]].concat())
}

fn split(text: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut start = 0;
    for comma in memmem::find_iter(text, b", ") {
        parts.push(&text[start..comma]);
        start = comma + 2;
    }
    parts.push(&text[start..]);
    parts
}

/// The columns and expressions of a key; commas within parentheses part nothing.
fn keys(text: &[u8]) -> Vec<&[u8]> {
    let (mut keys, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                keys.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    keys.push(&text[start..]);
    keys
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn cells_and_tokens_go() {
        let cases: [(&str, &str); 13] = [
            ("duplicate key", "duplicate key"),
            ("Failing row contains (1, \\xc15253010100ab, x).", "Failing row contains (1, [sealed], x)."),
            ("Key (rowseal.eq(email))=(\\x00ff) already exists.", "Key (rowseal.eq(email))=([sealed]) already exists."),
            ("plain \\x00ff", "plain \\x00ff"),
            // The escape form of a token, with parentheses, a comma or what looks like the hex form in it.
            (
                "Key (id, rowseal.eq(a))=(7, \\000)ab\\\\x1234) already exists.",
                "Key (id, rowseal.eq(a))=(7, [sealed]) already exists.",
            ),
            (
                "Key (rowseal.eq(a), id)=(\\377, q, 7) already exists.",
                "Key (rowseal.eq(a), id)=([sealed]) already exists.",
            ),
            (
                "Schl\u{fc}ssel \u{bb}(lower(a, b), rowseal.eq(c))=(x, \\x00ff)\u{ab} existiert bereits.",
                "Schl\u{fc}ssel \u{bb}(lower(a, b), rowseal.eq(c))=(x, [sealed])\u{ab} existiert bereits.",
            ),
            ("Key (rowseal.eq(a))=(\\001)=(\\002) already exists.", "[sealed]"),
            ("Key (rowseal.eq(a))=(1) conflicts with existing key (rowseal.eq(a))=(2).", "[sealed]"),
            (
                "Partition key of the failing row contains (rowseal.eq(a)) = (\\000).",
                "Partition key of the failing row contains (rowseal.eq(a)) = ([sealed]).",
            ),
            ("WHERE rowseal.eq(a) = '\\x00ff'", "WHERE rowseal.eq(a) = '[sealed]'"),
            ("function rowseal.eq(text) does not exist", "function rowseal.eq(text) does not exist"),
            ("Row (\\301RS\\001) is wrong", "[sealed]"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text.as_bytes()), expected.as_bytes());
        }
    }
}
