//! Cells inside JSON as the server prints it. The text stays, byte for byte, but for the strings that are cells.
use std::ops::Range;

use super::{Bytes, Finds, Inner, Node, Source, Tenants};
use crate::refusal::Refusal;
use crate::session::show::bytea_text;
use crate::sql::inside::{Field, Inside, Kind, Leaf};
use crate::types::{Format, LogicalType, text_of_plain};

/// Takes a document apart that starts at `start`.
pub(super) fn read<'p>(
    source: Source<'_>,
    document: &'p Inside,
    start: usize,
    finds: &mut Finds<'_, 'p>,
) -> Result<Node, Refusal> {
    let mut reader = Reader { source, at: start, kept: 0, nodes: Vec::new(), finds };
    reader.value(document)?;
    reader.skip_space();
    if reader.at != source.value.len() {
        return Err(Refusal::damaged());
    }
    reader.keep(source.value.len())?;
    Ok(Node::Row(reader.nodes))
}

static PLAIN: Inside = Inside::Plain;

struct Reader<'a, 'f, 'p> {
    source: Source<'a>,
    at: usize,
    /// Up to here all is in `nodes`.
    kept: usize,
    nodes: Vec<Node>,
    finds: &'a mut Finds<'f, 'p>,
}

impl<'p> Reader<'_, '_, 'p> {
    fn peek(&self) -> Option<u8> {
        self.source.value.get(self.at).copied()
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

    fn expect(&mut self, byte: u8) -> Result<(), Refusal> {
        if self.take(byte) { Ok(()) } else { Err(Refusal::damaged()) }
    }

    /// Keeps what stands before `end`.
    fn keep(&mut self, end: usize) -> Result<(), Refusal> {
        if self.kept < end {
            let node = self.source.raw(self.kept..end, self.finds)?;
            self.nodes.push(node);
        }
        self.kept = end;
        Ok(())
    }

    /// One value. Where it is of another kind than planned (an empty list in place of a row, NULL) it stays.
    fn value(&mut self, inside: &'p Inside) -> Result<(), Refusal> {
        self.skip_space();
        match (inside, self.peek()) {
            (Inside::Json(inside, _), _) => self.value(inside),
            (Inside::Cell(leaf), Some(b'"')) => self.cell(leaf),
            (Inside::Each(member), Some(b'[')) => self.list(breaks_lines(member), |_| Some(&**member)),
            (Inside::Places(places), Some(b'[')) => self.list(false, |at| places.get(at)),
            (Inside::Fields(fields), Some(b'{')) => self.object(fields),
            (Inside::Map(value), Some(b'{')) => self.members(|reader, _| reader.value(value)),
            (Inside::Ordered(values), Some(b'{')) => {
                let mut values = values.iter();
                self.members(|reader, _| reader.value(values.next().unwrap_or(&PLAIN)))
            }
            _ => self.skip_value(),
        }
    }

    fn cell(&mut self, leaf: &'p Leaf) -> Result<(), Refusal> {
        let start = self.at;
        let string = self.string()?;
        let text = unescaped(&self.source.value[string])?;
        self.keep(start)?;
        self.kept = self.at;
        let start = self.finds.decoded.len();
        bytea_text(&text, self.finds.decoded).ok_or_else(Refusal::damaged)?;
        let bytes = start..self.finds.decoded.len();
        self.finds.cells.push(Inner { leaf, bytes, beside: None });
        self.nodes.push(Node::Part(self.finds.cells.len() - 1, leaf.kind));
        Ok(())
    }

    fn list(&mut self, breaks_lines: bool, place: impl Fn(usize) -> Option<&'p Inside>) -> Result<(), Refusal> {
        self.expect(b'[')?;
        if self.take(b']') {
            return Ok(());
        }
        for at in 0.. {
            self.skip_space();
            if breaks_lines && at > 0 && self.peek() == Some(b'"') {
                self.break_line()?;
            }
            self.value(place(at).unwrap_or(&PLAIN))?;
            if !self.take(b',') {
                break;
            }
        }
        self.expect(b']')
    }

    fn break_line(&mut self) -> Result<(), Refusal> {
        self.keep(self.at)?;
        let start = self.finds.decoded.len();
        self.finds.decoded.extend_from_slice(b"\n ");
        self.nodes.push(Node::Raw(Bytes::Decoded(start..start + 2)));
        Ok(())
    }

    /// The members of an object; `each` reads the value of the key that stands at these bytes.
    fn members(&mut self, mut each: impl FnMut(&mut Self, Range<usize>) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.expect(b':')?;
            each(self, key)?;
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    fn object(&mut self, fields: &'p [Field]) -> Result<(), Refusal> {
        let (mut tenants, mut next) = (Tenants::of(fields), 0);
        self.members(|reader, key| {
            let key = unescaped(&reader.source.value[key])?;
            // Most times the keys come as they are planned.
            let is_key = |field: &Field| field.name.as_bytes() == &key[..];
            let expected = fields.get(next).is_some_and(is_key).then_some(next);
            let Some(at) = expected.or_else(|| fields.iter().position(is_key)) else {
                return reader.value(&PLAIN);
            };
            next = at + 1;
            let inside = &fields[at].inside;
            let cells = reader.finds.cells.len();
            reader.skip_space();
            let start = reader.at;
            reader.value(inside)?;
            if reader.finds.cells.len() > cells {
                tenants.note(inside, reader.finds);
            }
            if let Some(type_oid) = tenants.type_of(at)
                && let Some(tenant) = plain(&reader.source.value[start..reader.at], type_oid)?
            {
                tenants.name(at, &tenant, reader.finds);
            }
            Ok(())
        })?;
        tenants.tell(self.finds);
        Ok(())
    }

    /// Skips a value, however deep, without looking into it.
    fn skip_value(&mut self) -> Result<(), Refusal> {
        let mut depth = 0usize;
        loop {
            self.skip_space();
            match self.peek().ok_or_else(Refusal::damaged)? {
                b'"' => {
                    self.string()?;
                }
                b'[' | b'{' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b']' | b'}' => {
                    depth = depth.checked_sub(1).ok_or_else(Refusal::damaged)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                b',' | b':' => return Err(Refusal::damaged()),
                _ => self.skip_word(),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Skips a number, true, false or null.
    fn skip_word(&mut self) {
        let ends = |b: u8| matches!(b, b',' | b':' | b']' | b'}' | b'[' | b'{' | b'"' | b' ' | b'\t' | b'\n' | b'\r');
        while self.peek().is_some_and(|b| !ends(b)) {
            self.at += 1;
        }
    }

    /// Takes a string; gives where its content stands.
    fn string(&mut self) -> Result<Range<usize>, Refusal> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let rest = self.source.value.get(self.at..).ok_or_else(Refusal::damaged)?;
            let stop = memchr::memchr2(b'"', b'\\', rest).ok_or_else(Refusal::damaged)?;
            self.at += stop + 1;
            if rest[stop] == b'"' {
                return Ok(start..self.at - 1);
            }
            self.at += 1;
        }
    }
}

/// True for members of a json list that are lists themselves: json_agg begins a line before each but the first, and did
/// not see that these cells are lists.
fn breaks_lines(member: &Inside) -> bool {
    matches!(member, Inside::Cell(Leaf { column, kind: Kind::Json, .. }) if matches!(column.logical, LogicalType::Array(_)))
}

/// The text of a plain value; `None` for null.
fn plain(value: &[u8], type_oid: u32) -> Result<Option<String>, Refusal> {
    let text = match value {
        b"null" => return Ok(None),
        [b'"', content @ .., b'"'] => unescaped(content)?,
        other => other.to_vec(),
    };
    text_of_plain(type_oid, Format::Text, &text).map(Some).ok_or_else(Refusal::damaged)
}

/// What a string of JSON stands for.
fn unescaped(content: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let (escape, after) = rest.split_first().ok_or_else(Refusal::damaged)?;
        rest = after;
        let plain = match escape {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                // In UTF-8 databases Postgres escapes nothing but control characters.
                let digits = rest.split_at_checked(4).ok_or_else(Refusal::damaged)?;
                let code = std::str::from_utf8(digits.0).ok().and_then(|d| u32::from_str_radix(d, 16).ok());
                let character = code.and_then(char::from_u32).ok_or_else(Refusal::damaged)?;
                rest = digits.1;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            other => *other,
        };
        out.push(plain);
    }
    out.extend_from_slice(rest);
    Ok(out)
}
