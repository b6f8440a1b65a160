//! The names and catalog facts of the logical types.
use std::fmt;

use super::LogicalType;

/// A type name that no sealed column can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("type \"{name}\" cannot be sealed")]
pub struct UnknownType {
    /// The name as it was written.
    pub name: String,
}

const VARCHAR_MAX: u32 = 10_485_760;
const PRECISION_MAX: u16 = 1000;

impl LogicalType {
    /// Reads the SQL name of a type, with its modifier where it has one: `varchar(20)`, `numeric(10,2)`.
    ///
    /// # Errors
    /// [`UnknownType`] when it is none of the logical types or its modifier is out of Postgres's bounds.
    pub fn parse(sql: &str) -> Result<LogicalType, UnknownType> {
        parse_name(sql).ok_or_else(|| UnknownType { name: sql.to_owned() })
    }

    /// OID of the type in `pg_type`.
    pub fn oid(&self) -> u32 {
        match self {
            LogicalType::Bool => 16,
            LogicalType::Bytea => 17,
            LogicalType::Int8 => 20,
            LogicalType::Int4 => 23,
            LogicalType::Text => 25,
            LogicalType::Varchar(_) => 1043,
            LogicalType::Date => 1082,
            LogicalType::Timestamptz => 1184,
            LogicalType::Numeric(_) => 1700,
            LogicalType::Uuid => 2950,
            LogicalType::Jsonb => 3802,
        }
    }

    /// True when a parameter declared to be of that type is read as a value of this one, as Postgres's own casts would
    /// give it. In binary form such a value goes through [`super::text_of_plain`].
    pub fn reads(&self, type_oid: u32) -> bool {
        type_oid == self.oid()
            || match self {
                LogicalType::Text | LogicalType::Varchar(_) => matches!(type_oid, 25 | 1043),
                LogicalType::Int4 | LogicalType::Int8 | LogicalType::Numeric(_) => matches!(type_oid, 20 | 21 | 23),
                LogicalType::Timestamptz => matches!(type_oid, 1082 | 1114),
                LogicalType::Jsonb => type_oid == 114,
                LogicalType::Bool | LogicalType::Bytea | LogicalType::Date | LogicalType::Uuid => false,
            }
    }

    /// `typlen`, as RowDescription gives it: bytes, or -1 for a type of varying length.
    pub fn typlen(&self) -> i16 {
        match self {
            LogicalType::Bool => 1,
            LogicalType::Int4 | LogicalType::Date => 4,
            LogicalType::Int8 | LogicalType::Timestamptz => 8,
            LogicalType::Uuid => 16,
            LogicalType::Text
            | LogicalType::Varchar(_)
            | LogicalType::Numeric(_)
            | LogicalType::Jsonb
            | LogicalType::Bytea => -1,
        }
    }

    /// `atttypmod`, as RowDescription gives it; -1 without one.
    pub fn typmod(&self) -> i32 {
        match *self {
            LogicalType::Varchar(Some(limit)) => i32::try_from(limit).map_or(-1, |n| n.saturating_add(4)),
            LogicalType::Numeric(Some((precision, scale))) => {
                ((i32::from(precision) << 16) | (i32::from(scale) & 0x7ff)) + 4
            }
            _ => -1,
        }
    }

    /// The type tag that stands first in a cell's plaintext. Stored, so a number once given never changes:
    /// 1 text, 2 varchar, 3 int4, 4 int8, 5 bool, 6 date, 7 timestamptz, 8 numeric, 9 uuid, 10 jsonb, 11 bytea.
    pub fn tag(&self) -> u8 {
        match self {
            LogicalType::Text => 1,
            LogicalType::Varchar(_) => 2,
            LogicalType::Int4 => 3,
            LogicalType::Int8 => 4,
            LogicalType::Bool => 5,
            LogicalType::Date => 6,
            LogicalType::Timestamptz => 7,
            LogicalType::Numeric(_) => 8,
            LogicalType::Uuid => 9,
            LogicalType::Jsonb => 10,
            LogicalType::Bytea => 11,
        }
    }

    /// Name of the type's domain in schema `rowseal`.
    pub fn domain(&self) -> &'static str {
        match self {
            LogicalType::Text => "text",
            LogicalType::Varchar(_) => "varchar",
            LogicalType::Int4 => "int4",
            LogicalType::Int8 => "int8",
            LogicalType::Bool => "bool",
            LogicalType::Date => "date",
            LogicalType::Timestamptz => "timestamptz",
            LogicalType::Numeric(_) => "numeric",
            LogicalType::Uuid => "uuid",
            LogicalType::Jsonb => "jsonb",
            LogicalType::Bytea => "bytea",
        }
    }

    /// True when cells of the type are padded unless the policy says otherwise: where the length tells something.
    pub fn padded_by_default(&self) -> bool {
        matches!(self, LogicalType::Text | LogicalType::Varchar(_) | LogicalType::Bytea | LogicalType::Jsonb)
    }
}

/// The SQL name, as `format_type` prints it; [`LogicalType::parse`] reads it back.
impl fmt::Display for LogicalType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogicalType::Varchar(Some(limit)) => return write!(f, "character varying({limit})"),
            LogicalType::Numeric(Some((precision, scale))) => return write!(f, "numeric({precision},{scale})"),
            LogicalType::Text => "text",
            LogicalType::Varchar(None) => "character varying",
            LogicalType::Int4 => "integer",
            LogicalType::Int8 => "bigint",
            LogicalType::Bool => "boolean",
            LogicalType::Date => "date",
            LogicalType::Timestamptz => "timestamp with time zone",
            LogicalType::Numeric(None) => "numeric",
            LogicalType::Uuid => "uuid",
            LogicalType::Jsonb => "jsonb",
            LogicalType::Bytea => "bytea",
        })
    }
}

fn parse_name(sql: &str) -> Option<LogicalType> {
    let lower = sql.trim().to_ascii_lowercase();
    let (name, modifier) = split_modifier(&lower)?;
    let words = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let base = words.strip_prefix("pg_catalog.").unwrap_or(&words);
    match (base, modifier) {
        ("varchar" | "character varying", _) => varchar(modifier),
        ("numeric" | "decimal", _) => numeric(modifier),
        (_, Some(_)) => None,
        ("text", None) => Some(LogicalType::Text),
        ("int4" | "integer" | "int", None) => Some(LogicalType::Int4),
        ("int8" | "bigint", None) => Some(LogicalType::Int8),
        ("bool" | "boolean", None) => Some(LogicalType::Bool),
        ("date", None) => Some(LogicalType::Date),
        ("timestamptz" | "timestamp with time zone", None) => Some(LogicalType::Timestamptz),
        ("uuid", None) => Some(LogicalType::Uuid),
        ("jsonb", None) => Some(LogicalType::Jsonb),
        ("bytea", None) => Some(LogicalType::Bytea),
        _ => None,
    }
}

/// Splits `name(modifier)`; `None` when the brackets do not fit.
fn split_modifier(sql: &str) -> Option<(&str, Option<&str>)> {
    match sql.split_once('(') {
        None => Some((sql, None)),
        Some((name, rest)) => Some((name, Some(rest.strip_suffix(')')?))),
    }
}

fn varchar(modifier: Option<&str>) -> Option<LogicalType> {
    let Some(text) = modifier else { return Some(LogicalType::Varchar(None)) };
    let limit = text.trim().parse().ok()?;
    (1..=VARCHAR_MAX).contains(&limit).then_some(LogicalType::Varchar(Some(limit)))
}

fn numeric(modifier: Option<&str>) -> Option<LogicalType> {
    let Some(text) = modifier else { return Some(LogicalType::Numeric(None)) };
    let (precision, scale) = text.split_once(',').unwrap_or((text, "0"));
    let precision = precision.trim().parse().ok()?;
    let scale = scale.trim().parse().ok()?;
    let fits = (1..=PRECISION_MAX).contains(&precision) && (-1000..=1000).contains(&scale);
    fits.then_some(LogicalType::Numeric(Some((precision, scale))))
}
