//! Cells inside arrays and rows, in text and binary form.
use super::{Finds, Node, Source, Tenants};
use crate::refusal::Refusal;
use crate::session::elements;
use crate::session::server_side::changed;
use crate::sql::inside::{Field, Inside};
use crate::types::{Format, text_of_plain};

/// What a member of an array is.
fn member(array: &Inside, at: usize) -> Result<&Inside, Refusal> {
    match array {
        Inside::Each(member) => Ok(member),
        Inside::Places(places) => places.get(at).ok_or_else(Refusal::damaged),
        _ => Err(Refusal::damaged()),
    }
}

pub(super) fn array_text<'p>(
    source: Source<'_>,
    array: &'p Inside,
    finds: &mut Finds<'_, 'p>,
) -> Result<Node, Refusal> {
    let members = elements::text(source.value).ok_or_else(Refusal::damaged)?;
    let mut nodes = Vec::with_capacity(members.len());
    for (at, value) in members.iter().enumerate() {
        let read = |value: &[u8], finds: &mut Finds<'_, 'p>| {
            Source { value, is_sent: false }.read(member(array, at)?, Format::Text, finds)
        };
        nodes.push(value.as_ref().map(|value| read(value, finds)).transpose()?);
    }
    Ok(Node::ArrayText(nodes))
}

pub(super) fn array_binary<'p>(
    source: Source<'_>,
    array: &'p Inside,
    finds: &mut Finds<'_, 'p>,
) -> Result<Node, Refusal> {
    let mut reader = Reader { source, at: 0 };
    let (dimensions, _flags, _element) = (reader.number()?, reader.number()?, reader.number()?);
    let count = match dimensions {
        0 => 0,
        1 => {
            let count = reader.number()?;
            reader.number()?;
            usize::try_from(count).map_err(|_| Refusal::damaged())?
        }
        _ => return Err(Refusal::damaged()),
    };
    let head = source.bytes(0..reader.at, finds)?;
    let mut nodes = Vec::new();
    for at in 0..count {
        nodes.push(reader.value(member(array, at)?, finds)?);
    }
    reader.end()?;
    let cell = match array {
        Inside::Each(member) => cell_oid(member),
        Inside::Places(places) => places.iter().find_map(cell_oid),
        _ => None,
    };
    Ok(Node::ArrayBinary(head, cell.filter(|_| !finds.sees_cells), nodes))
}

/// The OID of the type that a cell opens to.
fn cell_oid(inside: &Inside) -> Option<u32> {
    match inside {
        Inside::Cell(leaf) => Some(leaf.column.logical.oid()),
        _ => None,
    }
}

pub(super) fn record_binary<'p>(
    source: Source<'_>,
    fields: &'p [Field],
    finds: &mut Finds<'_, 'p>,
) -> Result<Node, Refusal> {
    let mut reader = Reader { source, at: 0 };
    if usize::try_from(reader.number()?) != Ok(fields.len()) {
        return Err(changed());
    }
    let (mut nodes, mut tenants) = (Vec::with_capacity(fields.len()), Tenants::of(fields));
    for (at, field) in fields.iter().enumerate() {
        let oid = reader.number()?.cast_unsigned();
        let start = reader.at + 4;
        let node = reader.value(&field.inside, finds)?;
        if node.is_some() {
            tenants.note(&field.inside, finds);
            name_tenant(&mut tenants, at, (&source.value[start..reader.at], Format::Binary), finds)?;
        }
        let oid = cell_oid(&field.inside).filter(|_| !finds.sees_cells).unwrap_or(oid);
        nodes.push((oid, node));
    }
    reader.end()?;
    tenants.tell(finds);
    Ok(Node::RecordBinary(nodes))
}

pub(super) fn record_text<'p>(
    source: Source<'_>,
    fields: &'p [Field],
    finds: &mut Finds<'_, 'p>,
) -> Result<Node, Refusal> {
    let values = record_fields(source.value).ok_or_else(Refusal::damaged)?;
    if values.len() != fields.len() {
        return Err(changed());
    }
    let (mut nodes, mut tenants) = (Vec::with_capacity(fields.len()), Tenants::of(fields));
    for (at, (value, field)) in values.into_iter().zip(fields).enumerate() {
        let Some(value) = value else {
            nodes.push(None);
            continue;
        };
        let source = Source { value: &value, is_sent: false };
        nodes.push(Some(source.read(&field.inside, Format::Text, finds)?));
        tenants.note(&field.inside, finds);
        name_tenant(&mut tenants, at, (&value, Format::Text), finds)?;
    }
    tenants.tell(finds);
    Ok(Node::RecordText(nodes))
}

fn name_tenant(
    tenants: &mut Tenants,
    at: usize,
    (value, format): (&[u8], Format),
    finds: &mut Finds<'_, '_>,
) -> Result<(), Refusal> {
    if let Some(type_oid) = tenants.type_of(at) {
        let tenant = text_of_plain(type_oid, format, value).ok_or_else(Refusal::damaged)?;
        tenants.name(at, &tenant, finds);
    }
    Ok(())
}

/// The fields of a row in text form, without their quotation marks; a field of no characters is NULL.
fn record_fields(text: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let content = text.strip_prefix(b"(")?.strip_suffix(b")")?;
    let mut fields = Vec::new();
    let mut bytes = content.iter().copied().peekable();
    loop {
        let (mut value, mut quoted, mut is_null) = (Vec::new(), false, true);
        let more = loop {
            match bytes.next() {
                None if quoted => return None,
                None => break false,
                Some(b',') if !quoted => break true,
                Some(b'"') if quoted && bytes.peek() == Some(&b'"') => {
                    bytes.next();
                    value.push(b'"');
                }
                Some(b'"') => quoted = !quoted,
                Some(b'\\') => value.push(bytes.next()?),
                Some(byte) => value.push(byte),
            }
            is_null = false;
        };
        fields.push((!is_null).then_some(value));
        if !more {
            return Some(fields);
        }
    }
}

/// A field of a row, in quotation marks where it would else be read as something other.
pub(super) fn quote_field(text: &[u8], out: &mut Vec<u8>) {
    let special = |b: &u8| matches!(b, b'"' | b'\\' | b'(' | b')' | b',' | b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r');
    if !text.is_empty() && !text.iter().any(special) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Reads a binary form.
struct Reader<'v> {
    source: Source<'v>,
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self) -> Result<i32, Refusal> {
        let bytes = self.source.value.get(self.at..).and_then(<[u8]>::first_chunk::<4>);
        self.at += 4;
        bytes.map(|bytes| i32::from_be_bytes(*bytes)).ok_or_else(Refusal::damaged)
    }

    /// A value behind its length.
    fn value<'p>(&mut self, inside: &'p Inside, finds: &mut Finds<'_, 'p>) -> Result<Option<Node>, Refusal> {
        let length = self.number()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| Refusal::damaged())?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.source.value.len());
        let range = self.at..end.ok_or_else(Refusal::damaged)?;
        self.at = range.end;
        if let Inside::Plain = inside {
            return self.source.raw(range, finds).map(Some);
        }
        let source = Source { value: &self.source.value[range], is_sent: false };
        source.read(inside, Format::Binary, finds).map(Some)
    }

    fn end(&self) -> Result<(), Refusal> {
        if self.at == self.source.value.len() { Ok(()) } else { Err(Refusal::damaged()) }
    }
}
