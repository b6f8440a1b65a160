//! Values of tenant columns, which are not sealed: their text form names the tenant.
use super::{Format, ValueError, fixed, int, text, uuid};

/// Most bytes of a `name`.
const NAME_BYTES_MAX: usize = 63;

/// The text of a value as the server's `::text` would print it, for the types a tenant column may have: int2, int4,
/// int8, text, varchar, bpchar, uuid, name. `None` for other types and for values that are not of the type.
pub fn text_of_plain(type_oid: u32, format: Format, bytes: &[u8]) -> Option<String> {
    read_plain(type_oid, format, bytes).ok().flatten()
}

/// The same; `None` for other types.
///
/// # Errors
/// What Postgres says of a value that is not of the type.
pub fn read_plain(type_oid: u32, format: Format, bytes: &[u8]) -> Result<Option<String>, ValueError> {
    let text = match type_oid {
        20 => int_text(format, bytes, |b| fixed(b, "bigint").map(i64::from_be_bytes), int::int8),
        21 => int_text(format, bytes, |b| fixed(b, "smallint").map(i16::from_be_bytes), int::int2),
        23 => int_text(format, bytes, |b| fixed(b, "integer").map(i32::from_be_bytes), int::int4),
        25 | 1043 => checked(bytes),
        1042 => checked(bytes).map(|value| value.trim_end_matches(' ').to_owned()),
        19 => name_text(format, bytes),
        2950 => uuid_text(format, bytes),
        _ => return Ok(None),
    };
    text.map(Some)
}

type Read<T> = fn(&[u8]) -> Result<T, ValueError>;

fn int_text<T: ToString>(
    format: Format,
    bytes: &[u8],
    binary: Read<T>,
    written: Read<T>,
) -> Result<String, ValueError> {
    let value = match format {
        Format::Binary => binary(bytes),
        Format::Text => text::checked(bytes).and_then(|_| written(bytes)),
    };
    value.map(|number| number.to_string())
}

fn checked(bytes: &[u8]) -> Result<String, ValueError> {
    text::checked(bytes).map(str::to_owned)
}

/// The text form is cut at the end of a character; the binary form must fit.
fn name_text(format: Format, bytes: &[u8]) -> Result<String, ValueError> {
    let mut value = checked(bytes)?;
    if format == Format::Binary && value.len() > NAME_BYTES_MAX {
        return Err(ValueError::BadBinary { ty: "name" });
    }
    value.truncate(value.floor_char_boundary(NAME_BYTES_MAX));
    Ok(value)
}

fn uuid_text(format: Format, bytes: &[u8]) -> Result<String, ValueError> {
    let value = match format {
        Format::Binary => fixed(bytes, "uuid")?,
        Format::Text => uuid::parse(bytes)?,
    };
    let mut text = Vec::with_capacity(36);
    uuid::render(value, &mut text);
    String::from_utf8(text).map_err(|_| ValueError::BadText { ty: "uuid" })
}
