//! jsonb. The canonical form is `jsonb_send`'s: version byte 1 and the text that Postgres prints. So a document is
//! read whole, its objects' keys are sorted and made unique (the last one counts), its numbers written as numeric.
//! [`token_form`] further drops the trailing zeros of numbers, which Postgres's `=` does not see.
use std::borrow::Cow;

use super::{ValueError, numeric, text};

const BAD: ValueError = ValueError::BadText { ty: "json" };
const VERSION: u8 = 1;
/// Deeper documents are refused; each level costs stack.
const DEPTH_MAX: usize = 512;
/// Most bytes of printed numbers in one document: `1e131071` is 8 bytes that print as 131,072.
const NUMBER_BYTES_MAX: usize = 64 << 20;

enum Json {
    /// null, true, false, or a number as Postgres prints it.
    Bare(Vec<u8>),
    String(String),
    Array(Vec<Json>),
    /// Sorted by length of key, then bytes of key.
    Object(Vec<(String, Json)>),
}

/// The document of a binary jsonb.
pub(super) fn body(bytes: &[u8]) -> Result<&str, ValueError> {
    match bytes {
        [] => Err(ValueError::Short),
        [VERSION, document @ ..] => text::checked(document),
        _ => Err(ValueError::BadBinary { ty: "jsonb" }),
    }
}

/// Text of a document to canonical bytes.
pub(super) fn canonical(document: &str, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let mut reader = Reader { text: document.as_bytes(), at: 0, number_bytes: 0 };
    let json = reader.value(0)?;
    reader.skip_space();
    if reader.at != reader.text.len() {
        return Err(BAD);
    }
    out.push(VERSION);
    json.print(out);
    Ok(())
}

/// The canonical bytes with `1.50` written as `1.5` and `1.0` as `1`.
pub(super) fn token_form(canonical: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(canonical, b"0").is_none() || memchr::memchr(b'.', canonical).is_none() {
        return Cow::Borrowed(canonical);
    }
    let mut out = Vec::with_capacity(canonical.len());
    let mut rest = canonical;
    while let Some(first) = rest.first() {
        let (token, after) = rest.split_at(token_length(*first, rest));
        out.extend_from_slice(if first.is_ascii_digit() { without_trailing_zeros(token) } else { token });
        rest = after;
    }
    Cow::Owned(out)
}

/// Length of the string, the number or the single byte that stands first.
fn token_length(first: u8, rest: &[u8]) -> usize {
    match first {
        b'"' => string_length(rest),
        b'0'..=b'9' => rest.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count(),
        _ => 1,
    }
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    rest.len()
}

fn without_trailing_zeros(number: &[u8]) -> &[u8] {
    if !number.contains(&b'.') {
        return number;
    }
    let end = number.iter().rposition(|b| *b != b'0').map_or(0, |last| last + 1);
    number[..end].strip_suffix(b".").unwrap_or(&number[..end])
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    number_bytes: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Skips white space, then takes the byte if it is this one.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), ValueError> {
        if self.take(byte) { Ok(()) } else { Err(BAD) }
    }

    fn value(&mut self, depth: usize) -> Result<Json, ValueError> {
        if depth > DEPTH_MAX {
            return Err(BAD);
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, ValueError> {
        self.expect(b'{')?;
        let mut members = Vec::new();
        if self.take(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.expect(b':')?;
            members.push((key, self.value(depth + 1)?));
            if !self.take(b',') {
                break;
            }
        }
        self.expect(b'}')?;
        Ok(Json::Object(unique(members)))
    }

    fn array(&mut self, depth: usize) -> Result<Json, ValueError> {
        self.expect(b'[')?;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if !self.take(b',') {
                break;
            }
        }
        self.expect(b']')?;
        Ok(Json::Array(items))
    }

    fn word(&mut self) -> Result<Json, ValueError> {
        let length = self.text[self.at..].iter().take_while(|b| is_word(**b)).count();
        let word = &self.text[self.at..self.at + length];
        self.at += length;
        match word {
            b"null" | b"true" | b"false" => Ok(Json::Bare(word.to_vec())),
            _ => Err(BAD),
        }
    }

    /// JSON's grammar for numbers, which is narrower than numeric's.
    fn number(&mut self) -> Result<Json, ValueError> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        if self.peek().is_some_and(is_word) {
            return Err(BAD);
        }
        let mut printed = Vec::new();
        numeric::normalise(&self.text[start..self.at], &mut printed)?;
        self.number_bytes += printed.len();
        if self.number_bytes > NUMBER_BYTES_MAX.max(self.text.len()) {
            return Err(ValueError::OutOfRange { ty: "jsonb" });
        }
        Ok(Json::Bare(printed))
    }

    /// At least one digit.
    fn digits(&mut self) -> Result<(), ValueError> {
        let count = self.text[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += count;
        if count > 0 { Ok(()) } else { Err(BAD) }
    }

    fn string(&mut self) -> Result<String, ValueError> {
        if self.peek() != Some(b'"') {
            return Err(BAD);
        }
        self.at += 1;
        let mut value = Vec::new();
        loop {
            let byte = self.peek().ok_or(BAD)?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(value).map_err(|_| ValueError::BadEncoding),
                b'\\' => {
                    let character = self.escape()?;
                    value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                0..0x20 => return Err(BAD),
                _ => value.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Result<char, ValueError> {
        let byte = self.peek().ok_or(BAD)?;
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' => Ok(char::from(byte)),
            b'b' => Ok('\u{8}'),
            b'f' => Ok('\u{c}'),
            b'n' => Ok('\n'),
            b'r' => Ok('\r'),
            b't' => Ok('\t'),
            b'u' => self.unicode_escape(),
            _ => Err(BAD),
        }
    }

    /// Four hexadecimal digits, two times for a surrogate pair; U+0000 cannot be stored.
    fn unicode_escape(&mut self) -> Result<char, ValueError> {
        let first = self.hex4()?;
        let code = match first {
            0xD800..0xDC00 if self.text[self.at..].starts_with(b"\\u") => {
                self.at += 2;
                let second = self.hex4()?.checked_sub(0xDC00).filter(|low| *low < 0x400).ok_or(BAD)?;
                0x10000 + ((first - 0xD800) << 10) + second
            }
            _ => first,
        };
        match code {
            0 => Err(ValueError::BadEscape),
            _ => char::from_u32(code).ok_or(BAD),
        }
    }

    fn hex4(&mut self) -> Result<u32, ValueError> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(BAD)?;
        self.at += 4;
        digits.iter().try_fold(0, |sum, digit| {
            super::uuid::hex_digit(*digit).map(|value| sum << 4 | u32::from(value)).ok_or(BAD)
        })
    }
}

/// What the lexer takes as part of a word, so that `1a` and `truex` are one bad token.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Sorted by length, then bytes; of equal keys the last stays.
fn unique(mut members: Vec<(String, Json)>) -> Vec<(String, Json)> {
    members.reverse();
    members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.as_bytes().cmp(b.as_bytes())));
    members.dedup_by(|later, kept| later.0 == kept.0);
    members
}

impl Json {
    fn print(&self, out: &mut Vec<u8>) {
        match self {
            Json::Bare(word) => out.extend_from_slice(word),
            Json::String(value) => print_string(value, out),
            Json::Array(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    separate(i, out);
                    item.print(out);
                }
                out.push(b']');
            }
            Json::Object(members) => {
                out.push(b'{');
                for (i, (key, value)) in members.iter().enumerate() {
                    separate(i, out);
                    print_string(key, out);
                    out.extend_from_slice(b": ");
                    value.print(out);
                }
                out.push(b'}');
            }
        }
    }
}

fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.extend_from_slice(b", ");
    }
}

fn print_string(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                super::uuid::push_hex(byte, out);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
