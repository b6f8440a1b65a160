//! Type names.
use crate::types::LogicalType;

/// Reads a type as it is written in SQL.
pub(super) fn logical_type(text: &str) -> Result<LogicalType, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (name, arguments) = match lower.split_once('(') {
        Some((name, rest)) => (name.trim(), rest.strip_suffix(')')),
        None => (lower.as_str(), None),
    };
    let numbers: Option<Vec<i64>> = arguments.map(|list| {
        list.split(',')
            .filter_map(|n| n.trim().parse().ok())
            .collect()
    });
    let logical = match (name, numbers.as_deref()) {
        ("text", None) => LogicalType::Text,
        ("varchar" | "character varying", None) => LogicalType::Varchar(None),
        ("varchar" | "character varying", Some([n @ 1..=10_485_760])) => {
            LogicalType::Varchar(u32::try_from(*n).ok())
        }
        ("int4" | "integer" | "int", None) => LogicalType::Int4,
        ("int8" | "bigint", None) => LogicalType::Int8,
        ("bool" | "boolean", None) => LogicalType::Bool,
        ("date", None) => LogicalType::Date,
        ("timestamptz" | "timestamp with time zone", None) => LogicalType::Timestamptz,
        ("numeric" | "decimal", None) => LogicalType::Numeric(None),
        ("numeric" | "decimal", Some([p @ 1..=1000, s @ 0..=1000])) => {
            LogicalType::Numeric(Some((*p as u16, *s as i16)))
        }
        ("uuid", None) => LogicalType::Uuid,
        ("jsonb", None) => LogicalType::Jsonb,
        ("bytea", None) => LogicalType::Bytea,
        _ => return Err(format!("unknown type {text:?}")),
    };
    Ok(logical)
}
