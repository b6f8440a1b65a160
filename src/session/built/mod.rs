//! Cells inside values that the server built: found, and written anew with what they open to. No I/O, no keys: who calls
//! says what a cell opens to.
//!
//! [`read`] takes a value apart as the plan says it is made: into bytes that stay and cells; [`write()`] puts it together
//! again. `json` reads documents, `sql` arrays and rows in text and binary form. Bytes that stay must not hold a cell.
mod json;
mod sql;

use std::ops::Range;

use zeroize::Zeroizing;

use super::server_side::{holds_cell, unplanned};
use super::show::{How, bytea_text};
use crate::refusal::Refusal;
use crate::sql::inside::{Built, Field, Inside, Kind, Leaf, Whose};
use crate::types::{Format, quote_element};

/// A value taken apart.
pub enum Node {
    /// Bytes that stay as they are.
    Raw(Bytes),
    /// A cell (its number) as a value of its own in this format.
    Cell(usize, Format),
    /// A cell as a part of a document.
    Part(usize, Kind),
    /// One after the other.
    Row(Vec<Node>),
    /// `{a,b}`; `None` is NULL.
    ArrayText(Vec<Option<Node>>),
    /// A binary array: what precedes its members, and the OID of their type for the client, if it is another one.
    ArrayBinary(Bytes, Option<u32>, Vec<Option<Node>>),
    /// `(a,b)`
    RecordText(Vec<Option<Node>>),
    /// A binary row: OID of the type and value of each field.
    RecordBinary(Vec<(u32, Option<Node>)>),
}

/// Where bytes stand.
#[derive(Clone)]
pub enum Bytes {
    /// In the value as the server sent it.
    Sent(Range<usize>),
    /// Among those that were decoded.
    Decoded(Range<usize>),
}

/// A cell found inside a value, with where its bytes stand among those that were decoded.
pub struct Inner<'p> {
    /// What the plan says of it.
    pub leaf: &'p Leaf,
    /// Its bytes; a marker for a literal.
    pub bytes: Range<usize>,
    /// The tenant that a field beside it names; `None` when that is NULL or not there.
    pub beside: Option<Range<usize>>,
}

/// What is known of the values of one result while they are taken apart.
pub struct Finds<'a, 'p> {
    /// Receives decoded bytes.
    pub decoded: &'a mut Vec<u8>,
    /// Receives the cells.
    pub cells: &'a mut Vec<Inner<'p>>,
    /// True for a reader that may see cells.
    pub sees_cells: bool,
}

/// Takes a value apart.
///
/// # Errors
/// XX001 for one that is not made as planned; a refusal when bytes that stay hold a cell.
pub fn read<'p>(built: &'p Built, format: Format, value: &[u8], finds: &mut Finds<'_, 'p>) -> Result<Node, Refusal> {
    let format = if built.is_text { Format::Text } else { format };
    Source { value, is_sent: true }.read(&built.inside, format, finds)
}

/// OID and modifier of the type that an array of cells is for the client.
pub fn array_type(built: &Built) -> Option<(u32, i32)> {
    let cell = |inside: &Inside| match inside {
        Inside::Cell(leaf) => Some(leaf.column.logical),
        _ => None,
    };
    let logical = match &built.inside {
        _ if built.is_text => None,
        Inside::Each(member) => cell(member),
        Inside::Places(places) => places.iter().find_map(cell),
        _ => None,
    }?;
    Some((logical.array_oid(), if built.has_typmod { logical.typmod() } else { -1 }))
}

/// Bytes that are taken apart: a value, or a part of one without its quotation marks.
#[derive(Clone, Copy)]
struct Source<'v> {
    value: &'v [u8],
    /// True for the value as it was sent.
    is_sent: bool,
}

impl Source<'_> {
    fn read<'p>(self, inside: &'p Inside, format: Format, finds: &mut Finds<'_, 'p>) -> Result<Node, Refusal> {
        match (inside, format) {
            (Inside::Plain, _) => self.raw(0..self.value.len(), finds),
            (Inside::Cell(leaf), _) => self.cell(leaf, format, finds),
            (Inside::Json(document, kind), _) => {
                let version = usize::from(*kind == Kind::Jsonb && format == Format::Binary);
                json::read(self, document, version, finds)
            }
            (Inside::Each(_) | Inside::Places(_), Format::Text) => sql::array_text(self, inside, finds),
            (Inside::Each(_) | Inside::Places(_), Format::Binary) => sql::array_binary(self, inside, finds),
            (Inside::Fields(fields), Format::Text) => sql::record_text(self, fields, finds),
            (Inside::Fields(fields), Format::Binary) => sql::record_binary(self, fields, finds),
            (Inside::Map(_) | Inside::Ordered(_), _) => Err(Refusal::damaged()),
        }
    }

    /// Bytes that stay.
    fn raw(self, range: Range<usize>, finds: &mut Finds<'_, '_>) -> Result<Node, Refusal> {
        self.bytes(range, finds).map(Node::Raw)
    }

    fn bytes(self, range: Range<usize>, finds: &mut Finds<'_, '_>) -> Result<Bytes, Refusal> {
        let bytes = self.value.get(range.clone()).ok_or_else(Refusal::damaged)?;
        if !finds.sees_cells && holds_cell(bytes) {
            return Err(unplanned());
        }
        if self.is_sent {
            return Ok(Bytes::Sent(range));
        }
        let start = finds.decoded.len();
        finds.decoded.extend_from_slice(bytes);
        Ok(Bytes::Decoded(start..finds.decoded.len()))
    }

    /// A cell as a value of its own: bytea in this format.
    fn cell<'p>(self, leaf: &'p Leaf, format: Format, finds: &mut Finds<'_, 'p>) -> Result<Node, Refusal> {
        let start = finds.decoded.len();
        match format {
            Format::Binary => finds.decoded.extend_from_slice(self.value),
            Format::Text => bytea_text(self.value, finds.decoded).ok_or_else(Refusal::damaged)?,
        }
        let bytes = start..finds.decoded.len();
        finds.cells.push(Inner { leaf, bytes, beside: None });
        Ok(Node::Cell(finds.cells.len() - 1, format))
    }
}

/// The tenants that fields of one row name for cells beside them.
struct Tenants {
    /// Fields that name one, with the OIDs of their types.
    wanted: Vec<(usize, u32)>,
    /// Cells, with the field that names their tenant.
    cells: Vec<(usize, usize)>,
    /// Fields, with the tenant they name.
    named: Vec<(usize, Range<usize>)>,
}

impl Tenants {
    fn of(fields: &[Field]) -> Self {
        let mut wanted = Vec::new();
        for field in fields {
            if let Inside::Cell(Leaf { whose: Whose::Beside { field, type_oid }, .. }) = &field.inside
                && !wanted.contains(&(*field, *type_oid))
            {
                wanted.push((*field, *type_oid));
            }
        }
        Tenants { wanted, cells: Vec::new(), named: Vec::new() }
    }

    /// The type of a field that names a tenant.
    fn type_of(&self, field: usize) -> Option<u32> {
        self.wanted.iter().find(|(wanted, _)| *wanted == field).map(|(_, type_oid)| *type_oid)
    }

    /// Notes that the last cell found has its tenant beside it, if so.
    fn note(&mut self, inside: &Inside, finds: &Finds<'_, '_>) {
        if let Inside::Cell(Leaf { whose: Whose::Beside { field, .. }, .. }) = inside
            && let Some(last) = finds.cells.len().checked_sub(1)
        {
            self.cells.push((last, *field));
        }
    }

    /// Notes what a field names.
    fn name(&mut self, field: usize, tenant: &str, finds: &mut Finds<'_, '_>) {
        let start = finds.decoded.len();
        finds.decoded.extend_from_slice(tenant.as_bytes());
        self.named.push((field, start..finds.decoded.len()));
    }

    /// Tells each cell the tenant beside it.
    fn tell(self, finds: &mut Finds<'_, '_>) {
        for (cell, field) in self.cells {
            finds.cells[cell].beside = self.named.iter().find(|(named, _)| *named == field).map(|(_, at)| at.clone());
        }
    }
}

/// What is written in place of cells.
pub trait Opens {
    /// Bytes that stay.
    fn bytes(&self, bytes: &Bytes) -> &[u8];

    /// Appends what a cell opens to; false for NULL.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn cell(&mut self, cell: usize, how: How, out: &mut Vec<u8>) -> Result<bool, Refusal>;
}

/// Appends a value with what its cells open to; false for NULL.
///
/// # Errors
/// When a cell cannot be opened; what stands in `out` is then not whole.
///
/// # Secrets
/// What is appended is plaintext for the client alone.
pub fn write(node: &Node, opens: &mut dyn Opens, out: &mut Vec<u8>) -> Result<bool, Refusal> {
    match node {
        Node::Raw(bytes) => out.extend_from_slice(opens.bytes(bytes)),
        Node::Cell(cell, format) => return opens.cell(*cell, How::Wire(*format), out),
        Node::Part(cell, kind) => {
            if !opens.cell(*cell, How::Part(*kind), out)? {
                out.extend_from_slice(b"null");
            }
        }
        Node::Row(nodes) => {
            for node in nodes {
                write(node, opens, out)?;
            }
        }
        Node::ArrayText(members) => write_list(members, (b'{', b'}', b"NULL", quote_element), opens, out)?,
        Node::RecordText(fields) => write_list(fields, (b'(', b')', b"", sql::quote_field), opens, out)?,
        Node::ArrayBinary(head, oid, members) => {
            let start = out.len();
            out.extend_from_slice(opens.bytes(head));
            if let (Some(oid), Some(place)) = (oid, out.get_mut(start + 8..start + 12)) {
                place.copy_from_slice(&oid.to_be_bytes());
            }
            let mut nulls = false;
            for member in members {
                nulls |= !write_counted(member.as_ref(), opens, out)?;
            }
            if let Some(flags) = out.get_mut(start + 4..start + 8) {
                flags.copy_from_slice(&u32::from(nulls).to_be_bytes());
            }
        }
        Node::RecordBinary(fields) => {
            let count = u32::try_from(fields.len()).map_err(|_| Refusal::damaged())?;
            out.extend_from_slice(&count.to_be_bytes());
            for (oid, field) in fields {
                out.extend_from_slice(&oid.to_be_bytes());
                write_counted(field.as_ref(), opens, out)?;
            }
        }
    }
    Ok(true)
}

type Quotes = (u8, u8, &'static [u8], fn(&[u8], &mut Vec<u8>));

fn write_list(
    members: &[Option<Node>],
    (open, close, null, quote): Quotes,
    opens: &mut dyn Opens,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    out.push(open);
    for (at, member) in members.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let mut text = Zeroizing::new(Vec::new());
        match member {
            Some(node) if write(node, opens, &mut text)? => quote(&text, out),
            _ => out.extend_from_slice(null),
        }
    }
    out.push(close);
    Ok(())
}

/// Appends a value behind its length; false for NULL.
fn write_counted(node: Option<&Node>, opens: &mut dyn Opens, out: &mut Vec<u8>) -> Result<bool, Refusal> {
    let start = out.len();
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    let Some(node) = node else { return Ok(false) };
    if !write(node, opens, out)? {
        return Ok(false);
    }
    let length = i32::try_from(out.len() - start - 4).map_err(|_| Refusal::damaged())?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(true)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
