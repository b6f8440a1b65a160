//! Logical types: text, binary and canonical forms.

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
