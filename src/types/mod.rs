//! Logical types: text, binary and canonical forms.
//!
//! A client's value, in whichever form it is sent, becomes its canonical bytes: what Postgres's own send function would
//! give. They are what a cell holds, so neither the session's DateStyle nor a driver's format changes what is stored.
//! Values that cannot be read exactly as Postgres would read them are refused with Postgres's SQLSTATE. No error holds
//! a value. This module imports nothing of ours; one file a type family; start at [`canonical`] and [`render`].
mod array;
mod bool;
mod bpchar;
mod bytea;
mod calendar;
mod datetime;
mod datetime_print;
mod datetime_scan;
mod document;
mod error;
mod exact;
mod float;
mod inet;
mod int;
mod interval;
mod interval_print;
mod interval_scan;
mod json;
mod jsonb;
mod name;
mod numeric;
mod plain;
mod text;
mod time;
mod uuid;
mod zone;

use std::borrow::Cow;

pub use array::quote as quote_element;
pub use document::{Document, json_string, render_document};
pub use error::ValueError;
pub use exact::Exact;
use inet::Flavour;
pub use name::UnknownType;
pub use plain::{read_plain, text_of_plain};

/// The declared type of a sealed column, as the client sees it. Times have the digits of the second that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogicalType {
    /// `text`
    Text,
    /// `varchar` or `varchar(n)`, n in characters
    Varchar(Option<u32>),
    /// `bpchar` or `char(n)`, n in characters
    Bpchar(Option<u32>),
    /// `citext`: text whose `=` does not see the case of letters
    Citext,
    /// `int2`
    Int2,
    /// `int4`
    Int4,
    /// `int8`
    Int8,
    /// `float4`
    Float4,
    /// `float8`
    Float8,
    /// `numeric` or `numeric(precision, scale)`
    Numeric(Option<(u16, i16)>),
    /// `bool`
    Bool,
    /// `date`
    Date,
    /// `time` or `time(digits)`
    Time(Option<u8>),
    /// `timetz` or `timetz(digits)`
    Timetz(Option<u8>),
    /// `timestamp` or `timestamp(digits)`
    Timestamp(Option<u8>),
    /// `timestamptz` or `timestamptz(digits)`
    Timestamptz(Option<u8>),
    /// `interval` or `interval(digits)`
    Interval(Option<u8>),
    /// `uuid`
    Uuid,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// `bytea`
    Bytea,
    /// `inet`
    Inet,
    /// `cidr`
    Cidr,
    /// A one-dimensional array
    Array(Element),
}

/// What a one-dimensional array consists of: a type that is not an array, with its modifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Element {
    kind: Kind,
    typmod: i32,
}

/// A type without its modifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Text,
    Varchar,
    Bpchar,
    Citext,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Bool,
    Date,
    Time,
    Timetz,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    Bytea,
    Inet,
    Cidr,
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
    /// `IntervalStyle`, such as `postgres`.
    pub interval_style: String,
    /// `bytea_output`: hex when true, escape when false.
    pub bytea_hex: bool,
    /// `extra_float_digits`: from 1 on, floats are written as short as their value allows.
    pub extra_float_digits: i32,
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
        Format::Binary => canonical_binary(ty, bytes, style, out),
    };
    if done.is_err() {
        out.truncate(start);
    }
    done
}

fn canonical_text(ty: LogicalType, bytes: &[u8], style: &TextStyle, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let value = text::checked(bytes)?;
    match ty {
        LogicalType::Text | LogicalType::Citext => text::canonical(value, out),
        LogicalType::Varchar(limit) => return text::canonical_limited(value, limit, out),
        LogicalType::Bpchar(limit) => return bpchar::canonical(value, limit, out),
        LogicalType::Int2 => out.extend(int::int2(bytes)?.to_be_bytes()),
        LogicalType::Int4 => out.extend(int::int4(bytes)?.to_be_bytes()),
        LogicalType::Int8 => out.extend(int::int8(bytes)?.to_be_bytes()),
        LogicalType::Float4 => out.extend(float::float4(value)?.to_be_bytes()),
        LogicalType::Float8 => out.extend(float::float8(value)?.to_be_bytes()),
        LogicalType::Numeric(limits) => return numeric::canonical_text(bytes, limits, out),
        LogicalType::Bool => out.push(u8::from(self::bool::parse(bytes)?)),
        LogicalType::Date => out.extend(datetime::date(bytes)?.to_be_bytes()),
        LogicalType::Time(digits) => out.extend(time::time(bytes, digits)?.to_be_bytes()),
        LogicalType::Timetz(digits) => time::timetz(bytes, &style.time_zone, digits)?.encode(out),
        LogicalType::Timestamp(digits) => out.extend(datetime::timestamp(bytes, digits)?.to_be_bytes()),
        LogicalType::Timestamptz(digits) => {
            out.extend(datetime::timestamptz(bytes, &style.time_zone, digits)?.to_be_bytes());
        }
        LogicalType::Interval(digits) => interval::canonical_text(value, &style.interval_style, digits, out)?,
        LogicalType::Uuid => out.extend(self::uuid::parse(bytes)?),
        LogicalType::Json => return json::canonical(value, out),
        LogicalType::Jsonb => return jsonb::canonical(value, out),
        LogicalType::Bytea => return bytea::parse(bytes, out),
        LogicalType::Inet => return inet::canonical_text(value, Flavour::Inet, out),
        LogicalType::Cidr => return inet::canonical_text(value, Flavour::Cidr, out),
        LogicalType::Array(element) => return array::canonical_text(element.ty(), value, style, out),
    }
    Ok(())
}

fn canonical_binary(ty: LogicalType, bytes: &[u8], style: &TextStyle, out: &mut Vec<u8>) -> Result<(), ValueError> {
    match ty {
        LogicalType::Text | LogicalType::Citext => text::canonical(text::checked(bytes)?, out),
        LogicalType::Varchar(limit) => return text::canonical_limited(text::checked(bytes)?, limit, out),
        LogicalType::Bpchar(limit) => return bpchar::canonical(text::checked(bytes)?, limit, out),
        LogicalType::Int2 => out.extend(fixed::<2>(bytes, "smallint")?),
        LogicalType::Int4 => out.extend(fixed::<4>(bytes, "integer")?),
        LogicalType::Int8 => out.extend(fixed::<8>(bytes, "bigint")?),
        LogicalType::Float4 => out.extend(fixed::<4>(bytes, "real")?),
        LogicalType::Float8 => out.extend(fixed::<8>(bytes, "double precision")?),
        LogicalType::Numeric(limits) => return numeric::canonical_binary(bytes, limits, out),
        LogicalType::Bool => out.push(u8::from(fixed::<1>(bytes, "boolean")? != [0])),
        LogicalType::Date => out.extend(datetime::date_binary(bytes)?.to_be_bytes()),
        LogicalType::Time(digits) => out.extend(time::time_binary(bytes, digits)?.to_be_bytes()),
        LogicalType::Timetz(digits) => time::timetz_binary(bytes, digits)?.encode(out),
        LogicalType::Timestamp(digits) => {
            out.extend(datetime::instant_binary(bytes, datetime::TIMESTAMP, digits)?.to_be_bytes());
        }
        LogicalType::Timestamptz(digits) => {
            out.extend(datetime::instant_binary(bytes, datetime::TIMESTAMPTZ, digits)?.to_be_bytes());
        }
        LogicalType::Interval(digits) => interval::canonical_binary(bytes, digits, out)?,
        LogicalType::Uuid => out.extend(fixed::<16>(bytes, "uuid")?),
        LogicalType::Json => return json::canonical(text::checked(bytes)?, out),
        LogicalType::Jsonb => return jsonb::canonical(jsonb::body(bytes)?, out),
        LogicalType::Bytea => out.extend_from_slice(bytes),
        LogicalType::Inet => return inet::canonical_binary(bytes, Flavour::Inet, out),
        LogicalType::Cidr => return inet::canonical_binary(bytes, Flavour::Cidr, out),
        LogicalType::Array(element) => return array::canonical_binary(element.ty(), bytes, style, out),
    }
    Ok(())
}

/// Appends a canonical value to `out` as the server would send it in this format under these settings.
///
/// # Errors
/// [`ValueError::BadBinary`] when `canonical` is not the canonical form of a value of this type;
/// [`ValueError::BadDatetime`] when the session's time zone is unknown here; [`ValueError::ArrayTooLarge`] for an array
/// whose text would be out of all proportion. `out` is then as it was.
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
        LogicalType::Text
        | LogicalType::Varchar(_)
        | LogicalType::Bpchar(_)
        | LogicalType::Citext
        | LogicalType::Json => text::canonical(text::checked(canonical)?, out),
        LogicalType::Int2 => out.extend(i16::from_be_bytes(fixed(canonical, "smallint")?).to_string().bytes()),
        LogicalType::Int4 => out.extend(i32::from_be_bytes(fixed(canonical, "integer")?).to_string().bytes()),
        LogicalType::Int8 => out.extend(i64::from_be_bytes(fixed(canonical, "bigint")?).to_string().bytes()),
        LogicalType::Float4 => {
            float::render4(f32::from_be_bytes(fixed(canonical, "real")?), style.extra_float_digits, out);
        }
        LogicalType::Float8 => {
            float::render8(f64::from_be_bytes(fixed(canonical, "double precision")?), style.extra_float_digits, out);
        }
        LogicalType::Numeric(_) => return numeric::render(canonical, out),
        LogicalType::Bool => out.push(if fixed::<1>(canonical, "boolean")? == [0] { b'f' } else { b't' }),
        LogicalType::Date => datetime_print::date(datetime::date_binary(canonical)?, style, out),
        LogicalType::Time(_) => datetime_print::time(time::time_binary(canonical, None)?, out),
        LogicalType::Timetz(_) => datetime_print::timetz(time::timetz_binary(canonical, None)?, out),
        LogicalType::Timestamp(_) => {
            datetime_print::timestamp(datetime::instant_binary(canonical, datetime::TIMESTAMP, None)?, style, out);
        }
        LogicalType::Timestamptz(_) => {
            let micros = datetime::instant_binary(canonical, datetime::TIMESTAMPTZ, None)?;
            return datetime_print::timestamptz(micros, style, out);
        }
        LogicalType::Interval(_) => interval_print::print(interval::decode(canonical)?, &style.interval_style, out),
        LogicalType::Uuid => self::uuid::render(fixed(canonical, "uuid")?, out),
        LogicalType::Jsonb => out.extend(jsonb::body(canonical)?.bytes()),
        LogicalType::Bytea if style.bytea_hex => bytea::render_hex(canonical, out),
        LogicalType::Bytea => bytea::render_escape(canonical, out),
        LogicalType::Inet => return inet::render(canonical, Flavour::Inet, out),
        LogicalType::Cidr => return inet::render(canonical, Flavour::Cidr, out),
        LogicalType::Array(element) => return array::render_text(element.ty(), canonical, style, out),
    }
    Ok(())
}

/// The canonical form is the binary form; a value with a modifier was fitted to it when it was sealed.
fn render_binary(ty: LogicalType, canonical: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    match ty {
        LogicalType::Text
        | LogicalType::Varchar(_)
        | LogicalType::Bpchar(_)
        | LogicalType::Citext
        | LogicalType::Json => drop(text::checked(canonical)?),
        LogicalType::Int2 => drop(fixed::<2>(canonical, "smallint")?),
        LogicalType::Int4 => drop(fixed::<4>(canonical, "integer")?),
        LogicalType::Int8 => drop(fixed::<8>(canonical, "bigint")?),
        LogicalType::Float4 => drop(fixed::<4>(canonical, "real")?),
        LogicalType::Float8 => drop(fixed::<8>(canonical, "double precision")?),
        LogicalType::Numeric(_) => numeric::check(canonical)?,
        LogicalType::Bool => drop(fixed::<1>(canonical, "boolean")?),
        LogicalType::Date => drop(datetime::date_binary(canonical)?),
        LogicalType::Time(_) => drop(time::time_binary(canonical, None)?),
        LogicalType::Timetz(_) => drop(time::timetz_binary(canonical, None)?),
        LogicalType::Timestamp(_) => drop(datetime::instant_binary(canonical, datetime::TIMESTAMP, None)?),
        LogicalType::Timestamptz(_) => drop(datetime::instant_binary(canonical, datetime::TIMESTAMPTZ, None)?),
        LogicalType::Interval(_) => drop(interval::decode(canonical)?),
        LogicalType::Uuid => drop(fixed::<16>(canonical, "uuid")?),
        LogicalType::Jsonb => drop(jsonb::body(canonical)?),
        LogicalType::Bytea => {}
        LogicalType::Inet => inet::check(canonical, Flavour::Inet)?,
        LogicalType::Cidr => inet::check(canonical, Flavour::Cidr)?,
        LogicalType::Array(element) => array::check(element.ty(), canonical)?,
    }
    out.extend_from_slice(canonical);
    Ok(())
}

/// The bytes a token is computed from: equal for two canonical values exactly when Postgres's `=` holds for them.
///
/// Stored tokens depend on this form as they do on the cell format: it never changes (docs/format.md).
///
/// # Secrets
/// The result is plaintext.
pub fn token_form(ty: LogicalType, canonical: &[u8]) -> Cow<'_, [u8]> {
    match ty {
        LogicalType::Numeric(_) => numeric::token_form(canonical),
        LogicalType::Jsonb => jsonb::token_form(canonical),
        LogicalType::Bpchar(_) => Cow::Borrowed(bpchar::token_form(canonical)),
        LogicalType::Citext => Cow::Owned(text::folded(canonical)),
        LogicalType::Float4 => float::token_form4(canonical),
        LogicalType::Float8 => float::token_form8(canonical),
        LogicalType::Interval(_) => interval::token_form(canonical),
        LogicalType::Array(element) => array::token_form(element.ty(), canonical),
        LogicalType::Text
        | LogicalType::Varchar(_)
        | LogicalType::Int2
        | LogicalType::Int4
        | LogicalType::Int8
        | LogicalType::Bool
        | LogicalType::Date
        | LogicalType::Time(_)
        | LogicalType::Timetz(_)
        | LogicalType::Timestamp(_)
        | LogicalType::Timestamptz(_)
        | LogicalType::Uuid
        | LogicalType::Json
        | LogicalType::Bytea
        | LogicalType::Inet
        | LogicalType::Cidr => Cow::Borrowed(canonical),
    }
}

/// The value's bytes when there are exactly `N` of them. Postgres has a code for too few and one for too many.
fn fixed<const N: usize>(bytes: &[u8], ty: &'static str) -> Result<[u8; N], ValueError> {
    bytes.try_into().map_err(|_| if bytes.len() < N { ValueError::Short } else { ValueError::BadBinary { ty } })
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
