//! Logical types: text, binary and canonical forms.
//!
//! A client's value, in whichever form it is sent, becomes its canonical bytes: what Postgres's own send function would
//! give. They are what a cell holds, so neither the session's DateStyle nor a driver's format changes what is stored.
//! Values that cannot be read exactly as Postgres would read them are refused with Postgres's SQLSTATE. No error holds
//! a value. This module imports nothing of ours; one file a type family; start at [`canonical`] and [`render`].
mod bool;
mod bytea;
mod calendar;
mod datetime;
mod datetime_print;
mod datetime_scan;
mod error;
mod int;
mod jsonb;
mod name;
mod numeric;
mod plain;
mod text;
mod uuid;
mod zone;

use std::borrow::Cow;

pub use error::ValueError;
pub use name::UnknownType;
pub use plain::text_of_plain;

/// The declared type of a sealed column, as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogicalType {
    /// `text`
    Text,
    /// `varchar` or `varchar(n)`, n in characters
    Varchar(Option<u32>),
    /// `int4`
    Int4,
    /// `int8`
    Int8,
    /// `bool`
    Bool,
    /// `date`
    Date,
    /// `timestamptz`
    Timestamptz,
    /// `numeric` or `numeric(precision, scale)`
    Numeric(Option<(u16, i16)>),
    /// `uuid`
    Uuid,
    /// `jsonb`
    Jsonb,
    /// `bytea`
    Bytea,
}

/// A wire format: format code 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Format code 0.
    Text,
    /// Format code 1.
    Binary,
}

/// The session settings that decide how values are written as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextStyle {
    /// `DateStyle`, as the server reports it, such as `ISO, MDY`.
    pub date_style: String,
    /// `TimeZone`, as the server reports it.
    pub time_zone: String,
    /// `bytea_output`: hex when true, escape when false.
    pub bytea_hex: bool,
}

/// Appends the canonical form of a client's value to `out`.
///
/// `bytes` is the value as it stands in a Bind, a literal (quoting removed) or a COPY field (escapes removed). The
/// canonical form is Postgres's binary send format of the value after the type modifier was applied.
///
/// # Errors
/// [`ValueError`] with the SQLSTATE that Postgres gives for the type; `out` is then as it was.
///
/// # Secrets
/// `out` holds plaintext.
pub fn canonical(
    ty: LogicalType,
    format: Format,
    bytes: &[u8],
    style: &TextStyle,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let start = out.len();
    let done = match format {
        Format::Text => canonical_text(ty, bytes, style, out),
        Format::Binary => canonical_binary(ty, bytes, out),
    };
    if done.is_err() {
        out.truncate(start);
    }
    done
}

fn canonical_text(ty: LogicalType, bytes: &[u8], style: &TextStyle, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let value = text::checked(bytes)?;
    match ty {
        LogicalType::Text => text::canonical(value, out),
        LogicalType::Varchar(limit) => return text::canonical_limited(value, limit, out),
        LogicalType::Int4 => out.extend(int::int4(bytes)?.to_be_bytes()),
        LogicalType::Int8 => out.extend(int::int8(bytes)?.to_be_bytes()),
        LogicalType::Bool => out.push(u8::from(self::bool::parse(bytes)?)),
        LogicalType::Date => out.extend(datetime::date(bytes)?.to_be_bytes()),
        LogicalType::Timestamptz => out.extend(datetime::timestamptz(bytes, &style.time_zone)?.to_be_bytes()),
        LogicalType::Numeric(limits) => return numeric::canonical_text(bytes, limits, out),
        LogicalType::Uuid => out.extend(self::uuid::parse(bytes)?),
        LogicalType::Jsonb => return jsonb::canonical(value, out),
        LogicalType::Bytea => return bytea::parse(bytes, out),
    }
    Ok(())
}

fn canonical_binary(ty: LogicalType, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    match ty {
        LogicalType::Text => text::canonical(text::checked(bytes)?, out),
        LogicalType::Varchar(limit) => return text::canonical_limited(text::checked(bytes)?, limit, out),
        LogicalType::Int4 => out.extend(fixed::<4>(bytes, "integer")?),
        LogicalType::Int8 => out.extend(fixed::<8>(bytes, "bigint")?),
        LogicalType::Bool => out.push(u8::from(fixed::<1>(bytes, "boolean")? != [0])),
        LogicalType::Date => out.extend(datetime::date_binary(bytes)?.to_be_bytes()),
        LogicalType::Timestamptz => out.extend(datetime::timestamptz_binary(bytes)?.to_be_bytes()),
        LogicalType::Numeric(limits) => return numeric::canonical_binary(bytes, limits, out),
        LogicalType::Uuid => out.extend(fixed::<16>(bytes, "uuid")?),
        LogicalType::Jsonb => return jsonb::canonical(jsonb::body(bytes)?, out),
        LogicalType::Bytea => out.extend_from_slice(bytes),
    }
    Ok(())
}

/// Appends a canonical value to `out` as the server would send it in this format under these settings.
///
/// # Errors
/// [`ValueError::BadBinary`] when `canonical` is not the canonical form of a value of this type;
/// [`ValueError::BadDatetime`] when the session's time zone is unknown here. `out` is then as it was.
///
/// # Secrets
/// `out` holds plaintext.
pub fn render(
    ty: LogicalType,
    format: Format,
    canonical: &[u8],
    style: &TextStyle,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let start = out.len();
    let done = match format {
        Format::Text => render_text(ty, canonical, style, out),
        Format::Binary => render_binary(ty, canonical, out),
    };
    if done.is_err() {
        out.truncate(start);
    }
    done
}

fn render_text(ty: LogicalType, canonical: &[u8], style: &TextStyle, out: &mut Vec<u8>) -> Result<(), ValueError> {
    match ty {
        LogicalType::Text | LogicalType::Varchar(_) => text::canonical(text::checked(canonical)?, out),
        LogicalType::Int4 => out.extend(i32::from_be_bytes(fixed(canonical, "integer")?).to_string().bytes()),
        LogicalType::Int8 => out.extend(i64::from_be_bytes(fixed(canonical, "bigint")?).to_string().bytes()),
        LogicalType::Bool => out.push(if fixed::<1>(canonical, "boolean")? == [0] { b'f' } else { b't' }),
        LogicalType::Date => datetime_print::date(datetime::date_binary(canonical)?, style, out),
        LogicalType::Timestamptz => {
            return datetime_print::timestamptz(datetime::timestamptz_binary(canonical)?, style, out);
        }
        LogicalType::Numeric(_) => return numeric::render(canonical, out),
        LogicalType::Uuid => self::uuid::render(fixed(canonical, "uuid")?, out),
        LogicalType::Jsonb => out.extend(jsonb::body(canonical)?.bytes()),
        LogicalType::Bytea if style.bytea_hex => bytea::render_hex(canonical, out),
        LogicalType::Bytea => bytea::render_escape(canonical, out),
    }
    Ok(())
}

fn render_binary(ty: LogicalType, canonical: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    match ty {
        LogicalType::Text | LogicalType::Varchar(_) => drop(text::checked(canonical)?),
        LogicalType::Int4 => drop(fixed::<4>(canonical, "integer")?),
        LogicalType::Int8 => drop(fixed::<8>(canonical, "bigint")?),
        LogicalType::Bool => drop(fixed::<1>(canonical, "boolean")?),
        LogicalType::Date => drop(datetime::date_binary(canonical)?),
        LogicalType::Timestamptz => drop(datetime::timestamptz_binary(canonical)?),
        LogicalType::Numeric(_) => numeric::check(canonical)?,
        LogicalType::Uuid => drop(fixed::<16>(canonical, "uuid")?),
        LogicalType::Jsonb => drop(jsonb::body(canonical)?),
        LogicalType::Bytea => {}
    }
    out.extend_from_slice(canonical);
    Ok(())
}

/// The bytes a token is computed from: equal for two canonical values exactly when Postgres's `=` holds for them.
///
/// # Secrets
/// The result is plaintext.
pub fn token_form(ty: LogicalType, canonical: &[u8]) -> Cow<'_, [u8]> {
    match ty {
        LogicalType::Numeric(_) => numeric::token_form(canonical),
        LogicalType::Jsonb => jsonb::token_form(canonical),
        LogicalType::Text
        | LogicalType::Varchar(_)
        | LogicalType::Int4
        | LogicalType::Int8
        | LogicalType::Bool
        | LogicalType::Date
        | LogicalType::Timestamptz
        | LogicalType::Uuid
        | LogicalType::Bytea => Cow::Borrowed(canonical),
    }
}

/// The value's bytes when there are exactly `N` of them.
fn fixed<const N: usize>(bytes: &[u8], ty: &'static str) -> Result<[u8; N], ValueError> {
    bytes.try_into().map_err(|_| ValueError::BadBinary { ty })
}

/// What Postgres's input functions skip: C's isspace.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// The value without white space at both ends.
fn trimmed(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_space(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_space(*last)
    {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests;
