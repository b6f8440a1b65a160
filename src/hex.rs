//! Hexadecimal digits, as bytea and the log write them.

/// Lower-case hex digits of `bytes`.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    faster_hex::hex_string(bytes)
}

/// Writes the lower-case hex digits of `bytes` into `out`, which is twice as long.
#[must_use]
pub fn write<'a>(bytes: &[u8], out: &'a mut [u8]) -> &'a str {
    debug_assert_eq!(out.len(), 2 * bytes.len());
    faster_hex::hex_encode(bytes, out).map_or("", |digits| digits)
}

/// Appends the bytes that `digits` (of either case) stand for; false, with nothing appended, for anything else.
#[must_use]
pub fn decode_into(digits: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.resize(start + digits.len() / 2, 0);
    let whole = digits.len().is_multiple_of(2) && faster_hex::hex_decode(digits, &mut out[start..]).is_ok();
    if !whole {
        out.truncate(start);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_either_case_are_read_and_others_are_not() {
        let mut out = b"x".to_vec();
        assert!(decode_into(b"00fF7a", &mut out));
        assert_eq!(out, b"x\x00\xff\x7a");
        for bad in [&b"0"[..], b"0g", b"0 ", b"\xc3\xa4"] {
            assert!(!decode_into(bad, &mut out), "{bad:?}");
            assert_eq!(out.len(), 4);
        }
        let long: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut back = Vec::new();
        assert!(decode_into(encode(&long).as_bytes(), &mut back));
        assert_eq!(back, long);
        assert_eq!(encode(b"\x00\xff\x7a"), "00ff7a");
    }
}
