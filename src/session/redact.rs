//! Takes cells and tokens out of the server's own errors and notices.
use std::borrow::Cow;

use memchr::memmem;

/// What stands in their place.
const SEALED: &[u8] = b"[sealed]";
/// Magic of a cell in the hex form of bytea.
const CELL: &[u8] = b"\\xc15253";
/// The function whose value a unique violation shows.
const TOKEN: &[u8] = b"rowseal.eq(";

/// `text` with every cell, and every value of `rowseal.eq`, replaced by `[sealed]`.
pub fn redact(text: &[u8]) -> Cow<'_, [u8]> {
    let with_token = memmem::find(text, TOKEN).is_some();
    let prefix: &[u8] = if with_token { b"\\x" } else { CELL };
    if memmem::find(text, prefix).is_none() && memmem::find(text, b"\\301RS").is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memmem::find(rest, prefix) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(SEALED);
        let tail = &rest[at + 2..];
        let digits = tail.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        rest = &tail[digits..];
    }
    out.extend_from_slice(rest);
    if memmem::find(&out, b"\\301RS").is_some() {
        return Cow::Borrowed(SEALED);
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn cells_and_tokens_go() {
        let cases: [(&str, &str); 4] = [
            ("duplicate key", "duplicate key"),
            ("Failing row contains (1, \\xc15253010100ab, x).", "Failing row contains (1, [sealed], x)."),
            ("Key (rowseal.eq(email))=(\\x00ff) already exists.", "Key (rowseal.eq(email))=([sealed]) already exists."),
            ("plain \\x00ff", "plain \\x00ff"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text.as_bytes()), expected.as_bytes());
        }
    }
}
