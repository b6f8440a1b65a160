//! Values as parts of a json or jsonb that the server would have built of them, as `to_json` and `to_jsonb` do.
use super::{Format, LogicalType, TextStyle, ValueError, array, fixed, jsonb, numeric};

/// The two types of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// `json`: text, as it was written.
    Json,
    /// `jsonb`: always printed alike.
    Jsonb,
}

/// Appends a canonical value as a part of a document.
///
/// # Errors
/// As [`super::render`], and [`ValueError::BadText`] for a json that no jsonb can hold. `out` is then as it was.
///
/// # Secrets
/// `out` holds plaintext.
pub fn render_document(
    ty: LogicalType,
    document: Document,
    canonical: &[u8],
    style: &TextStyle,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let start = out.len();
    let done = render(ty, document, canonical, style, out);
    if done.is_err() {
        out.truncate(start);
    }
    done
}

fn render(
    ty: LogicalType,
    document: Document,
    canonical: &[u8],
    style: &TextStyle,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let text = |style: &TextStyle, out: &mut Vec<u8>| super::render(ty, Format::Text, canonical, style, out);
    match ty {
        LogicalType::Bool => {
            out.extend_from_slice(if fixed::<1>(canonical, "boolean")? == [0] { b"false" } else { b"true" });
        }
        LogicalType::Int2 | LogicalType::Int4 | LogicalType::Int8 => text(style, out)?,
        LogicalType::Float4 | LogicalType::Float8 | LogicalType::Numeric(_) => {
            let mut written = Vec::new();
            text(style, &mut written)?;
            number(&written, document, out)?;
        }
        LogicalType::Json if document == Document::Json => text(style, out)?,
        LogicalType::Json => {
            let mut whole = Vec::new();
            jsonb::canonical(super::text::checked(canonical)?, &mut whole)?;
            out.extend(jsonb::body(&whole)?.bytes());
        }
        LogicalType::Jsonb => text(style, out)?,
        LogicalType::Array(element) => list(element.ty(), document, canonical, style, out)?,
        LogicalType::Date | LogicalType::Timestamp(_) | LogicalType::Timestamptz(_) => {
            let iso = TextStyle { date_style: "XSD".into(), ..style.clone() };
            let mut written = Vec::new();
            text(&iso, &mut written)?;
            json_string(&written, out);
        }
        LogicalType::Text
        | LogicalType::Varchar(_)
        | LogicalType::Bpchar(_)
        | LogicalType::Citext
        | LogicalType::Time(_)
        | LogicalType::Timetz(_)
        | LogicalType::Interval(_)
        | LogicalType::Uuid
        | LogicalType::Bytea
        | LogicalType::Inet
        | LogicalType::Cidr => {
            let mut written = Vec::new();
            text(style, &mut written)?;
            json_string(&written, out);
        }
    }
    Ok(())
}

/// A number; in quotation marks when it is infinite or none. A jsonb holds all numbers as numeric.
fn number(text: &[u8], document: Document, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let is_number = text.last().is_some_and(u8::is_ascii_digit);
    match document {
        _ if !is_number => json_string(text, out),
        Document::Json => out.extend_from_slice(text),
        Document::Jsonb => {
            let mut canonical = Vec::new();
            numeric::canonical_text(text, None, &mut canonical)?;
            numeric::render(&canonical, out)?;
        }
    }
    Ok(())
}

fn list(
    element: LogicalType,
    document: Document,
    canonical: &[u8],
    style: &TextStyle,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    out.push(b'[');
    for (i, bytes) in array::elements(element, canonical)?.into_iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(if document == Document::Json { b"," } else { b", " });
        }
        match bytes {
            None => out.extend_from_slice(b"null"),
            Some(bytes) => render(element, document, bytes, style, out)?,
        }
    }
    out.push(b']');
    Ok(())
}

/// Appends text as a string of JSON, escaped as Postgres does.
pub fn json_string(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text {
        let escape = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                continue;
            }
            _ => {
                out.push(byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', escape]);
    }
    out.push(b'"');
}
