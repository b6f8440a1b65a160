//! One-dimensional arrays. The canonical form is `array_send`'s: dimensions (0 or 1), whether there are NULLs, the
//! element's OID, then length, lower bound, and each element in its own canonical form behind its length.
use std::borrow::Cow;

use super::{Format, LogicalType, TextStyle, ValueError, is_space};

const BAD: ValueError = ValueError::BadArray;
const BAD_BINARY: ValueError = ValueError::BadBinary { ty: "array" };
/// The most elements that Postgres holds.
const ELEMENTS_MAX: usize = 134_217_727;
/// OIDs from here on are given out by each database.
const BUILT_IN_END: u32 = 10_000;
/// The longest value of Postgres, in bytes.
const BYTES_MAX: usize = 0x3fff_ffff;
/// Text up to here is written whatever it came from; beyond, only if the value itself is long: `{1e131071,…}` takes
/// nine bytes for an element that prints as 131,072.
const TEXT_BYTES_MAX: usize = 64 << 20;
const TEXT_GROWTH_MAX: usize = 16;
const DIMENSIONS_MAX: u32 = 6;
const NULL_LENGTH: [u8; 4] = [0xff; 4];

/// An array of elements in some form; `None` is NULL. Without elements there are no bounds.
struct Array<T> {
    lower: i32,
    elements: Vec<Option<T>>,
}

/// Text to canonical.
pub(super) fn canonical_text(
    element: LogicalType,
    text: &str,
    style: &TextStyle,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let array = Reader::new(text).array()?;
    let start = out.len();
    let head = Head { element, count: array.elements.len(), lower: array.lower, most: bytes_max(element, text.len()) };
    encode(&head, array.elements.iter().map(|value| Ok(value.as_deref())), out, |bytes, out| {
        super::canonical(element, Format::Text, bytes.as_bytes(), style, out)
    })?;
    check_growth(element, &out[start..], style)
}

/// Binary to canonical.
pub(super) fn canonical_binary(
    element: LogicalType,
    bytes: &[u8],
    style: &TextStyle,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let (mut rest, count, lower) = bounds_of(element, bytes)?;
    let head = Head { element, count, lower, most: bytes_max(element, bytes.len()) };
    let start = out.len();
    // Each is looked at before the next, so that of two errors the first is told.
    let values = (0..count).map(|_| take_element(&mut rest));
    encode(&head, values, out, |bytes, out| super::canonical(element, Format::Binary, bytes, style, out))?;
    if !rest.is_empty() {
        return Err(BAD_BINARY);
    }
    check_growth(element, &out[start..], style)
}

/// How long the canonical form may become: of documents, whose numbers grow too, as long as text may.
fn bytes_max(element: LogicalType, input_bytes: usize) -> usize {
    match element {
        LogicalType::Jsonb => TEXT_BYTES_MAX.max(input_bytes.saturating_mul(TEXT_GROWTH_MAX)),
        _ => BYTES_MAX,
    }
}

/// What is sealed must open: refuses now what would be too long as text. Only numbers grow beyond all measure.
fn check_growth(element: LogicalType, canonical: &[u8], style: &TextStyle) -> Result<(), ValueError> {
    match element {
        LogicalType::Numeric(_) => render_text(element, canonical, style, &mut Vec::new()),
        _ => Ok(()),
    }
}

/// Is this a binary array of such elements?
pub(super) fn check(element: LogicalType, canonical: &[u8]) -> Result<(), ValueError> {
    for element_bytes in decode(element, canonical)?.elements.into_iter().flatten() {
        super::render_binary(element, element_bytes, &mut Vec::new())?;
    }
    Ok(())
}

/// Canonical to text: `{a,"b c",NULL}`, with bounds in front when the first is not 1.
pub(super) fn render_text(
    element: LogicalType,
    canonical: &[u8],
    style: &TextStyle,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let Array { lower, elements } = decode(element, canonical)?;
    let end = out.len() + TEXT_BYTES_MAX.max(canonical.len().saturating_mul(TEXT_GROWTH_MAX));
    if !elements.is_empty() && lower != 1 {
        let upper = i64::from(lower) + elements.len() as i64 - 1;
        out.extend(format!("[{lower}:{upper}]=").bytes());
    }
    out.push(b'{');
    let mut text = Vec::new();
    for (i, bytes) in elements.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let Some(bytes) = bytes else {
            out.extend_from_slice(b"NULL");
            continue;
        };
        text.clear();
        super::render_text(element, bytes, style, &mut text)?;
        quote(&text, out);
        if out.len() > end {
            return Err(ValueError::ArrayTooLarge);
        }
    }
    out.push(b'}');
    Ok(())
}

/// The elements of an array, each in its own canonical form.
pub(super) fn elements(element: LogicalType, canonical: &[u8]) -> Result<Vec<Option<&[u8]>>, ValueError> {
    Ok(decode(element, canonical)?.elements)
}

/// An element, in quotation marks where it would else be read as something other.
pub fn quote(text: &[u8], out: &mut Vec<u8>) {
    let special = |b: &u8| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',') || is_space(*b);
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"null") && !text.iter().any(special) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Length and bounds, then the token form of each element behind its length; NULL has length -1 and is equal to NULL,
/// as in Postgres's comparison of arrays.
pub(super) fn token_form(element: LogicalType, canonical: &[u8]) -> Cow<'_, [u8]> {
    let Ok(Array { lower, elements }) = decode(element, canonical) else { return Cow::Borrowed(canonical) };
    let mut out = Vec::with_capacity(canonical.len());
    out.extend((elements.len() as u32).to_be_bytes());
    if !elements.is_empty() {
        out.extend(lower.to_be_bytes());
    }
    for bytes in elements {
        match bytes {
            None => out.extend(NULL_LENGTH),
            Some(bytes) => {
                let form = super::token_form(element, bytes);
                out.extend((form.len() as u32).to_be_bytes());
                out.extend_from_slice(&form);
            }
        }
    }
    Cow::Owned(out)
}

/// What is known of an array before its elements.
struct Head {
    element: LogicalType,
    count: usize,
    lower: i32,
    /// Bytes that its canonical form may take.
    most: usize,
}

impl Head {
    fn check(&self) -> Result<(), ValueError> {
        let padding = match self.element {
            LogicalType::Bpchar(Some(limit)) => limit as usize,
            _ => 0,
        };
        let fits = self.count <= ELEMENTS_MAX
            && self.lower.checked_add(self.count as i32).is_some()
            && self.count.saturating_mul(padding) <= self.most;
        if fits { Ok(()) } else { Err(ValueError::ArrayTooLarge) }
    }
}

fn encode<'a, T: ?Sized + 'a>(
    head: &Head,
    values: impl Iterator<Item = Result<Option<&'a T>, ValueError>>,
    out: &mut Vec<u8>,
    canonical: impl Fn(&T, &mut Vec<u8>) -> Result<(), ValueError>,
) -> Result<(), ValueError> {
    head.check()?;
    let begin = out.len();
    out.extend(u32::from(head.count > 0).to_be_bytes());
    out.extend(0_u32.to_be_bytes());
    out.extend(head.element.oid().to_be_bytes());
    if head.count > 0 {
        out.extend((head.count as u32).to_be_bytes());
        out.extend(head.lower.to_be_bytes());
    }
    for value in values {
        let start = out.len();
        out.extend(NULL_LENGTH);
        match value? {
            None => out[begin + 7] = 1,
            Some(value) => {
                canonical(value, out)?;
                let length = i32::try_from(out.len() - start - 4).map_err(|_| ValueError::ArrayTooLarge)?;
                out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
        if out.len() - begin > head.most {
            return Err(ValueError::ArrayTooLarge);
        }
    }
    Ok(())
}

/// Takes the binary form apart; the elements are not looked at.
fn decode(element: LogicalType, bytes: &[u8]) -> Result<Array<&[u8]>, ValueError> {
    let (mut rest, count, lower) = bounds_of(element, bytes)?;
    let mut elements = Vec::with_capacity(count.min(rest.len() / 4));
    for _ in 0..count {
        elements.push(take_element(&mut rest)?);
    }
    if rest.is_empty() { Ok(Array { lower, elements }) } else { Err(BAD_BINARY) }
}

/// What follows the bounds in the binary form, the number of elements and the lower bound.
fn bounds_of(element: LogicalType, bytes: &[u8]) -> Result<(&[u8], usize, i32), ValueError> {
    let mut rest = bytes;
    let dimensions = take_u32(&mut rest)?;
    let flags = take_u32(&mut rest)?;
    let oid = take_u32(&mut rest)?;
    match dimensions {
        0..=DIMENSIONS_MAX => {}
        _ if dimensions.cast_signed() < 0 => return Err(BAD_BINARY),
        _ => return Err(ValueError::ArrayTooLarge),
    }
    if flags > 1 {
        return Err(BAD_BINARY);
    }
    // As Postgres: OIDs of types that are not built in differ between databases, so they say nothing.
    if oid != element.oid() && oid < BUILT_IN_END {
        return Err(ValueError::ElementType);
    }
    if dimensions > 1 {
        return Err(ValueError::Dimensions);
    }
    let (mut count, mut lower) = (0, 1);
    if dimensions == 1 {
        count = usize::try_from(take_u32(&mut rest)?.cast_signed()).map_err(|_| ValueError::ArrayTooLarge)?;
        lower = take_u32(&mut rest)?.cast_signed();
    }
    if count > ELEMENTS_MAX || lower.checked_add(count as i32).is_none() {
        return Err(ValueError::ArrayTooLarge);
    }
    Ok((rest, count, lower))
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, ValueError> {
    let (number, after) = rest.split_first_chunk::<4>().ok_or(ValueError::Short)?;
    *rest = after;
    Ok(u32::from_be_bytes(*number))
}

fn take_element<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, ValueError> {
    let length = take_u32(rest)?.cast_signed();
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| BAD_BINARY)?;
    let (element, after) = rest.split_at_checked(length).ok_or(BAD_BINARY)?;
    *rest = after;
    Ok(Some(element))
}

/// Reads the text form.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Reader<'a> {
        Reader { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn array(mut self) -> Result<Array<String>, ValueError> {
        self.skip_space();
        let bounds = if self.peek() == Some(b'[') { Some(self.bounds()?) } else { None };
        let elements = self.elements()?;
        self.skip_space();
        if self.at != self.text.len() {
            return Err(BAD);
        }
        match bounds {
            None => Ok(Array { lower: 1, elements }),
            Some((lower, length)) if length == elements.len() as i64 => Ok(Array { lower, elements }),
            Some(_) => Err(BAD),
        }
    }

    /// `[lower:upper]=`: the lower bound and the length.
    fn bounds(&mut self) -> Result<(i32, i64), ValueError> {
        self.at += 1;
        let lower = self.bound()?;
        if !self.take(b':') {
            return Err(BAD);
        }
        let upper = self.bound()?;
        if !self.take(b']') {
            return Err(BAD);
        }
        if self.peek() == Some(b'[') {
            return Err(ValueError::Dimensions);
        }
        if !self.take(b'=') {
            return Err(BAD);
        }
        self.skip_space();
        if upper == i32::MAX {
            return Err(ValueError::ArrayTooLarge);
        }
        if upper < lower {
            return Err(ValueError::BadBounds);
        }
        Ok((lower, i64::from(upper) - i64::from(lower) + 1))
    }

    fn bound(&mut self) -> Result<i32, ValueError> {
        let rest = &self.text[self.at..];
        let sign = usize::from(rest.starts_with(['-', '+']));
        let digits = rest[sign..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(BAD);
        }
        self.at += sign + digits;
        rest[..sign + digits].parse().map_err(|_| ValueError::ArrayTooLarge)
    }

    fn elements(&mut self) -> Result<Vec<Option<String>>, ValueError> {
        if !self.take(b'{') {
            return Err(BAD);
        }
        self.skip_space();
        let mut elements = Vec::new();
        if self.take(b'}') {
            return Ok(elements);
        }
        loop {
            self.skip_space();
            elements.push(match self.peek() {
                Some(b'{') => return Err(ValueError::Dimensions),
                Some(b'"') => Some(self.quoted()?),
                _ => self.bare()?,
            });
            self.skip_space();
            if self.take(b'}') {
                return Ok(elements);
            }
            if !self.take(b',') {
                return Err(BAD);
            }
        }
    }

    fn quoted(&mut self) -> Result<String, ValueError> {
        self.at += 1;
        let mut value = String::new();
        let mut characters = self.text[self.at..].char_indices();
        while let Some((i, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += i + 1;
                    return Ok(value);
                }
                '\\' => value.push(characters.next().ok_or(BAD)?.1),
                _ => value.push(character),
            }
        }
        Err(BAD)
    }

    /// Up to the next comma or brace, without the white space at its end; the word NULL, unless a part is escaped, is
    /// NULL.
    fn bare(&mut self) -> Result<Option<String>, ValueError> {
        let mut value = String::new();
        let mut kept = 0;
        let mut escaped = false;
        let rest = &self.text[self.at..];
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next() {
                Some((i, ',' | '}')) => break i,
                None | Some((_, '{' | '"')) => return Err(BAD),
                Some((_, '\\')) => {
                    value.push(characters.next().ok_or(BAD)?.1);
                    kept = value.len();
                    escaped = true;
                }
                Some((_, character)) => {
                    value.push(character);
                    if !u8::try_from(character).is_ok_and(is_space) {
                        kept = value.len();
                    }
                }
            }
        };
        self.at += end;
        value.truncate(kept);
        match value.as_str() {
            "" => Err(BAD),
            word if !escaped && word.eq_ignore_ascii_case("null") => Ok(None),
            _ => Ok(Some(value)),
        }
    }
}
