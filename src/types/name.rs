//! The names and catalog facts of the logical types. A new type is a [`Kind`] and its row.
use std::fmt;

use super::{Element, Kind, LogicalType};

/// A type name that no sealed column can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("type \"{name}\" cannot be sealed")]
pub struct UnknownType {
    /// The name as it was written.
    pub name: String,
}

const VARCHAR_MAX: u32 = 10_485_760;
const PRECISION_MAX: u16 = 1000;
/// Digits of the second that times keep.
pub(super) const SECOND_DIGITS_MAX: u8 = 6;
/// The upper half of an interval's modifier when all its fields are kept.
const INTERVAL_FULL_RANGE: i32 = 0x7fff << 16;
/// Stands in the tag of an array beside its element's tag.
const ARRAY_TAG: u8 = 0x80;

/// What `pg_type` says of a type.
pub(super) struct Facts {
    /// `typname`, also the domain in schema `rowseal`.
    pub(super) name: &'static str,
    /// As `format_type` prints it.
    pub(super) shown: &'static str,
    /// What precedes and follows the modifier when there is one.
    around_modifier: (&'static str, &'static str),
    /// The domain for arrays of it in schema `rowseal`.
    array: &'static str,
    pub(super) oid: u32,
    array_oid: u32,
    typlen: i16,
}

/// `shown`, the modifier follows at its end.
macro_rules! facts {
    ($name:literal, $shown:literal, $oid:literal, $array_oid:literal, $typlen:literal) => {
        facts!($name, $shown, ($shown, ""), $oid, $array_oid, $typlen)
    };
    ($name:literal, $shown:literal, $around:expr, $oid:literal, $array_oid:literal, $typlen:literal) => {
        &Facts {
            name: $name,
            shown: $shown,
            around_modifier: $around,
            array: concat!($name, "_array"),
            oid: $oid,
            array_oid: $array_oid,
            typlen: $typlen,
        }
    };
}

impl Kind {
    const ALL: [Kind; 23] = [
        Kind::Text,
        Kind::Varchar,
        Kind::Int4,
        Kind::Int8,
        Kind::Bool,
        Kind::Date,
        Kind::Timestamptz,
        Kind::Numeric,
        Kind::Uuid,
        Kind::Jsonb,
        Kind::Bytea,
        Kind::Bpchar,
        Kind::Citext,
        Kind::Int2,
        Kind::Float4,
        Kind::Float8,
        Kind::Time,
        Kind::Timetz,
        Kind::Timestamp,
        Kind::Interval,
        Kind::Json,
        Kind::Inet,
        Kind::Cidr,
    ];

    /// citext has no fixed OID of its own (the server's is an extension): clients see text.
    pub(super) fn facts(self) -> &'static Facts {
        match self {
            Kind::Text => facts!("text", "text", 25, 1009, -1),
            Kind::Varchar => facts!("varchar", "character varying", 1043, 1015, -1),
            Kind::Bpchar => facts!("bpchar", "bpchar", ("character", ""), 1042, 1014, -1),
            Kind::Citext => facts!("citext", "citext", 25, 1009, -1),
            Kind::Int2 => facts!("int2", "smallint", 21, 1005, 2),
            Kind::Int4 => facts!("int4", "integer", 23, 1007, 4),
            Kind::Int8 => facts!("int8", "bigint", 20, 1016, 8),
            Kind::Float4 => facts!("float4", "real", 700, 1021, 4),
            Kind::Float8 => facts!("float8", "double precision", 701, 1022, 8),
            Kind::Numeric => facts!("numeric", "numeric", 1700, 1231, -1),
            Kind::Bool => facts!("bool", "boolean", 16, 1000, 1),
            Kind::Date => facts!("date", "date", 1082, 1182, 4),
            Kind::Time => facts!("time", "time without time zone", ("time", " without time zone"), 1083, 1183, 8),
            Kind::Timetz => facts!("timetz", "time with time zone", ("time", " with time zone"), 1266, 1270, 12),
            Kind::Timestamp => {
                facts!("timestamp", "timestamp without time zone", ("timestamp", " without time zone"), 1114, 1115, 8)
            }
            Kind::Timestamptz => {
                facts!("timestamptz", "timestamp with time zone", ("timestamp", " with time zone"), 1184, 1185, 8)
            }
            Kind::Interval => facts!("interval", "interval", 1186, 1187, 16),
            Kind::Uuid => facts!("uuid", "uuid", 2950, 2951, 16),
            Kind::Json => facts!("json", "json", 114, 199, -1),
            Kind::Jsonb => facts!("jsonb", "jsonb", 3802, 3807, -1),
            Kind::Bytea => facts!("bytea", "bytea", 17, 1001, -1),
            Kind::Inet => facts!("inet", "inet", 869, 1041, -1),
            Kind::Cidr => facts!("cidr", "cidr", 650, 651, -1),
        }
    }

    /// Stored in cells (docs/format.md): a number once given never changes.
    fn tag(self) -> u8 {
        match self {
            Kind::Text => 1,
            Kind::Varchar => 2,
            Kind::Int4 => 3,
            Kind::Int8 => 4,
            Kind::Bool => 5,
            Kind::Date => 6,
            Kind::Timestamptz => 7,
            Kind::Numeric => 8,
            Kind::Uuid => 9,
            Kind::Jsonb => 10,
            Kind::Bytea => 11,
            Kind::Bpchar => 12,
            Kind::Citext => 13,
            Kind::Int2 => 14,
            Kind::Float4 => 15,
            Kind::Float8 => 16,
            Kind::Time => 17,
            Kind::Timetz => 18,
            Kind::Timestamp => 19,
            Kind::Interval => 20,
            Kind::Json => 21,
            Kind::Inet => 22,
            Kind::Cidr => 23,
        }
    }

    /// The kind of a type name without modifier, lower case.
    fn named(name: &str) -> Option<Kind> {
        let synonym = match name {
            "int" => "int4",
            "decimal" => "numeric",
            "float" => "float8",
            "char" | "character" => "bpchar",
            "time without time zone" => "time",
            "timestamp without time zone" => "timestamp",
            other => other,
        };
        Kind::ALL.into_iter().find(|kind| kind.facts().name == synonym || kind.facts().shown == synonym)
    }
}

impl LogicalType {
    /// Reads the SQL name of a type, with its modifier where it has one: `varchar(20)`, `numeric(10,2)`, `text[]`,
    /// `timestamp(3) with time zone`. `char` is `char(1)`, as in SQL.
    ///
    /// # Errors
    /// [`UnknownType`] when it is none of the logical types or its modifier is out of Postgres's bounds.
    pub fn parse(sql: &str) -> Result<LogicalType, UnknownType> {
        parse_name(sql).ok_or_else(|| UnknownType { name: sql.to_owned() })
    }

    /// Every type that is not an array, without modifier.
    pub fn all() -> impl Iterator<Item = LogicalType> {
        Kind::ALL.into_iter().map(|kind| Element { kind, typmod: -1 }.ty())
    }

    /// OID of the type in `pg_type`.
    pub fn oid(&self) -> u32 {
        match self {
            LogicalType::Array(element) => element.kind.facts().array_oid,
            scalar => scalar.kind().facts().oid,
        }
    }

    /// OID of the type of an array of this one; 0 for an array, of which there are none.
    pub fn array_oid(&self) -> u32 {
        Element::of(*self).map_or(0, |element| LogicalType::Array(element).oid())
    }

    /// True when a parameter declared to be of that type is read as a value of this one, as Postgres's own casts would
    /// give it. In binary form such a value goes through [`super::text_of_plain`].
    pub fn reads(&self, type_oid: u32) -> bool {
        type_oid == self.oid()
            || match self {
                LogicalType::Text | LogicalType::Varchar(_) | LogicalType::Bpchar(_) | LogicalType::Citext => {
                    matches!(type_oid, 25 | 1043)
                }
                LogicalType::Int2 | LogicalType::Int4 | LogicalType::Int8 | LogicalType::Numeric(_) => {
                    matches!(type_oid, 20 | 21 | 23)
                }
                LogicalType::Timestamptz(_) => matches!(type_oid, 1082 | 1114),
                LogicalType::Jsonb => type_oid == 114,
                _ => false,
            }
    }

    /// `typlen`, as RowDescription gives it: bytes, or -1 for a type of varying length.
    pub fn typlen(&self) -> i16 {
        match self {
            LogicalType::Array(_) => -1,
            scalar => scalar.kind().facts().typlen,
        }
    }

    /// `atttypmod`, as RowDescription gives it; -1 without one. An array has its element's.
    pub fn typmod(&self) -> i32 {
        match *self {
            LogicalType::Varchar(Some(limit)) | LogicalType::Bpchar(Some(limit)) => {
                i32::try_from(limit).map_or(-1, |n| n.saturating_add(4))
            }
            LogicalType::Numeric(Some((precision, scale))) => {
                ((i32::from(precision) << 16) | (i32::from(scale) & 0x7ff)) + 4
            }
            LogicalType::Time(Some(digits))
            | LogicalType::Timetz(Some(digits))
            | LogicalType::Timestamp(Some(digits))
            | LogicalType::Timestamptz(Some(digits)) => i32::from(digits),
            LogicalType::Interval(Some(digits)) => INTERVAL_FULL_RANGE | i32::from(digits),
            LogicalType::Array(element) => element.typmod,
            _ => -1,
        }
    }

    /// The type tag that stands first in a cell's plaintext. Stored, so a number once given never changes; the list is
    /// in docs/format.md.
    pub fn tag(&self) -> u8 {
        match self {
            LogicalType::Array(element) => ARRAY_TAG | element.kind.tag(),
            scalar => scalar.kind().tag(),
        }
    }

    /// Name of the type's domain in schema `rowseal`.
    pub fn domain(&self) -> &'static str {
        match self {
            LogicalType::Array(element) => element.kind.facts().array,
            scalar => scalar.kind().facts().name,
        }
    }

    /// True when cells of the type are padded unless the policy says otherwise: where the length tells something.
    pub fn padded_by_default(&self) -> bool {
        matches!(
            self,
            LogicalType::Text
                | LogicalType::Varchar(_)
                | LogicalType::Bpchar(_)
                | LogicalType::Citext
                | LogicalType::Bytea
                | LogicalType::Json
                | LogicalType::Jsonb
                | LogicalType::Array(_)
        )
    }

    /// False for json and arrays of it, which have no `=` in Postgres.
    pub fn has_equality(&self) -> bool {
        match self {
            LogicalType::Array(element) => element.kind != Kind::Json,
            scalar => scalar.kind() != Kind::Json,
        }
    }

    /// The same type without length, precision or scale: as which Postgres reads what is compared with a column.
    #[must_use]
    pub fn without_modifier(self) -> LogicalType {
        match self {
            LogicalType::Array(element) => LogicalType::Array(Element { typmod: -1, ..element }),
            scalar => Element { kind: scalar.kind(), typmod: -1 }.ty(),
        }
    }

    /// Which type it is, of an array its element's.
    pub(super) fn kind(&self) -> Kind {
        match self {
            LogicalType::Text => Kind::Text,
            LogicalType::Varchar(_) => Kind::Varchar,
            LogicalType::Bpchar(_) => Kind::Bpchar,
            LogicalType::Citext => Kind::Citext,
            LogicalType::Int2 => Kind::Int2,
            LogicalType::Int4 => Kind::Int4,
            LogicalType::Int8 => Kind::Int8,
            LogicalType::Float4 => Kind::Float4,
            LogicalType::Float8 => Kind::Float8,
            LogicalType::Numeric(_) => Kind::Numeric,
            LogicalType::Bool => Kind::Bool,
            LogicalType::Date => Kind::Date,
            LogicalType::Time(_) => Kind::Time,
            LogicalType::Timetz(_) => Kind::Timetz,
            LogicalType::Timestamp(_) => Kind::Timestamp,
            LogicalType::Timestamptz(_) => Kind::Timestamptz,
            LogicalType::Interval(_) => Kind::Interval,
            LogicalType::Uuid => Kind::Uuid,
            LogicalType::Json => Kind::Json,
            LogicalType::Jsonb => Kind::Jsonb,
            LogicalType::Bytea => Kind::Bytea,
            LogicalType::Inet => Kind::Inet,
            LogicalType::Cidr => Kind::Cidr,
            LogicalType::Array(element) => element.kind,
        }
    }
}

impl Element {
    /// The element of arrays of this type; `None` for arrays: there are none of arrays.
    pub fn of(ty: LogicalType) -> Option<Element> {
        match ty {
            LogicalType::Array(_) => None,
            scalar => Some(Element { kind: scalar.kind(), typmod: scalar.typmod() }),
        }
    }

    /// The type of the elements.
    pub fn ty(self) -> LogicalType {
        let typmod = (self.typmod >= 0).then_some(self.typmod);
        let limit = typmod.map(|n| (n - 4).unsigned_abs());
        let digits = typmod.map(|n| (n & 0xff) as u8);
        match self.kind {
            Kind::Text => LogicalType::Text,
            Kind::Varchar => LogicalType::Varchar(limit),
            Kind::Bpchar => LogicalType::Bpchar(limit),
            Kind::Citext => LogicalType::Citext,
            Kind::Int2 => LogicalType::Int2,
            Kind::Int4 => LogicalType::Int4,
            Kind::Int8 => LogicalType::Int8,
            Kind::Float4 => LogicalType::Float4,
            Kind::Float8 => LogicalType::Float8,
            Kind::Numeric => LogicalType::Numeric(typmod.map(precision_and_scale)),
            Kind::Bool => LogicalType::Bool,
            Kind::Date => LogicalType::Date,
            Kind::Time => LogicalType::Time(digits),
            Kind::Timetz => LogicalType::Timetz(digits),
            Kind::Timestamp => LogicalType::Timestamp(digits),
            Kind::Timestamptz => LogicalType::Timestamptz(digits),
            Kind::Interval => LogicalType::Interval(digits),
            Kind::Uuid => LogicalType::Uuid,
            Kind::Json => LogicalType::Json,
            Kind::Jsonb => LogicalType::Jsonb,
            Kind::Bytea => LogicalType::Bytea,
            Kind::Inet => LogicalType::Inet,
            Kind::Cidr => LogicalType::Cidr,
        }
    }
}

/// The scale has eleven bits with a sign.
fn precision_and_scale(typmod: i32) -> (u16, i16) {
    let packed = typmod - 4;
    let scale = ((packed & 0x7ff) ^ 0x400) - 0x400;
    ((packed >> 16) as u16, scale as i16)
}

/// The SQL name, as `format_type` prints it; [`LogicalType::parse`] reads it back.
impl fmt::Display for LogicalType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let LogicalType::Array(element) = self {
            return write!(f, "{}[]", element.ty());
        }
        let facts = self.kind().facts();
        let (before, after) = facts.around_modifier;
        match *self {
            LogicalType::Varchar(Some(limit)) | LogicalType::Bpchar(Some(limit)) => write!(f, "{before}({limit})"),
            LogicalType::Numeric(Some((precision, scale))) => write!(f, "{before}({precision},{scale})"),
            LogicalType::Time(Some(digits))
            | LogicalType::Timetz(Some(digits))
            | LogicalType::Timestamp(Some(digits))
            | LogicalType::Timestamptz(Some(digits))
            | LogicalType::Interval(Some(digits)) => write!(f, "{before}({digits}){after}"),
            _ => f.write_str(facts.shown),
        }
    }
}

fn parse_name(sql: &str) -> Option<LogicalType> {
    let lower = sql.trim().to_ascii_lowercase();
    match lower.strip_suffix("[]") {
        Some(element) => Element::of(scalar(element)?).map(LogicalType::Array),
        None => scalar(&lower),
    }
}

fn scalar(lower: &str) -> Option<LogicalType> {
    let (name, modifier) = split_modifier(lower)?;
    let words = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let base = words.strip_prefix("pg_catalog.").unwrap_or(&words);
    let kind = Kind::named(base)?;
    match modifier {
        None if base == "char" || base == "character" => Some(LogicalType::Bpchar(Some(1))),
        None => Some(Element { kind, typmod: -1 }.ty()),
        Some(text) => with_modifier(kind, text),
    }
}

/// Splits `name(modifier)`, where words may follow the modifier; `None` when the brackets do not fit.
fn split_modifier(sql: &str) -> Option<(String, Option<&str>)> {
    match sql.split_once('(') {
        None => Some((sql.to_owned(), None)),
        Some((name, rest)) => {
            let (modifier, after) = rest.split_once(')')?;
            Some((format!("{name} {after}"), Some(modifier)))
        }
    }
}

fn with_modifier(kind: Kind, text: &str) -> Option<LogicalType> {
    match kind {
        Kind::Varchar => limit(text).map(|n| LogicalType::Varchar(Some(n))),
        Kind::Bpchar => limit(text).map(|n| LogicalType::Bpchar(Some(n))),
        Kind::Numeric => numeric(text),
        Kind::Time => digits(text).map(|n| LogicalType::Time(Some(n))),
        Kind::Timetz => digits(text).map(|n| LogicalType::Timetz(Some(n))),
        Kind::Timestamp => digits(text).map(|n| LogicalType::Timestamp(Some(n))),
        Kind::Timestamptz => digits(text).map(|n| LogicalType::Timestamptz(Some(n))),
        Kind::Interval => digits(text).map(|n| LogicalType::Interval(Some(n))),
        _ => None,
    }
}

fn limit(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|n| (1..=VARCHAR_MAX).contains(n))
}

fn digits(text: &str) -> Option<u8> {
    text.trim().parse().ok().filter(|n| *n <= SECOND_DIGITS_MAX)
}

fn numeric(text: &str) -> Option<LogicalType> {
    let (precision, scale) = text.split_once(',').unwrap_or((text, "0"));
    let precision = precision.trim().parse().ok()?;
    let scale = scale.trim().parse().ok()?;
    let fits = (1..=PRECISION_MAX).contains(&precision) && (-1000..=1000).contains(&scale);
    fits.then_some(LogicalType::Numeric(Some((precision, scale))))
}
