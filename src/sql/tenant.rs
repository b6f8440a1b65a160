//! How the tenant of a value is found in a statement.
use super::operand::{Kind, Operand, Shape, casts_to};
use super::plan::TenantSource;
use crate::policy::Column;
use crate::refusal::{Class, Refusal};
use crate::types::{self, Format, LogicalType};

/// The tenant that an operand names as a value of a tenant column of this type.
pub(super) fn source(type_oid: u32, operand: &Operand) -> Option<TenantSource> {
    let described_oid = described(type_oid, &operand.casts)?;
    match &operand.shape {
        Shape::Param(index) => Some(TenantSource::Param { index: *index, type_oid, described_oid, may_be_null: false }),
        Shape::Literal(text, kind) => literal((type_oid, described_oid), text, *kind),
        Shape::Null => None,
    }
}

/// The tenant that a literal means in a column of the first type, where it is read as one of the second; `None` when unsure.
pub(super) fn literal((type_oid, read_oid): (u32, u32), text: &str, kind: Kind) -> Option<TenantSource> {
    let is_integer = matches!(type_oid, 20 | 21 | 23);
    match kind {
        Kind::Quoted if matches!(type_oid, 20 | 21 | 23 | 25 | 1043 | 2950) => {}
        // One that is larger is of another type.
        Kind::Number if is_integer && text.parse::<i64>().is_ok() => {}
        _ => return None,
    }
    let read = |oid: u32, text: &str| types::read_plain(oid, Format::Text, text.as_bytes());
    let name = match read(read_oid, text) {
        Ok(Some(name)) if read_oid != type_oid => read(type_oid, &name),
        read => read,
    };
    match name {
        Ok(name) => name.map(|name| TenantSource::Literal(name.into())),
        // A number is compared as it is, whatever the column's type.
        Err(_) if kind == Kind::Number => Some(TenantSource::Literal(text.into())),
        Err(error) => Some(TenantSource::Misread(error)),
    }
}

/// The tenants of the rows that a condition leaves in which the tenant column is one of these: NULL is equal to none.
pub(super) fn filtering(type_oid: u32, operands: &[Operand]) -> Option<Vec<TenantSource>> {
    let given = operands.iter().filter(|operand| !matches!(operand.shape, Shape::Null));
    let mut sources: Vec<TenantSource> = given.map(|operand| source(type_oid, operand)).collect::<Option<_>>()?;
    for source in &mut sources {
        if let TenantSource::Param { may_be_null, .. } = source {
            *may_be_null = true;
        }
    }
    if sources.is_empty() {
        sources.push(TenantSource::Nobody);
    }
    Some(sources)
}

/// OID of the type that a parameter has which is cast in this way, innermost first, and stands for a value of a tenant column;
/// `None` when the casts may make another value of it. An integer stays what it is in every integer type, or is an error.
pub(super) fn described(type_oid: u32, casts: &[&'static str]) -> Option<u32> {
    const INTEGERS: [(&str, u32); 3] = [("int2", 21), ("int4", 23), ("int8", 20)];
    if !INTEGERS.iter().any(|(_, oid)| *oid == type_oid) {
        return casts_to(casts, type_oid).then_some(type_oid);
    }
    let oid = |cast: &&str| INTEGERS.iter().find(|(name, _)| name == cast).map(|(_, oid)| *oid);
    let oids: Vec<u32> = casts.iter().map(oid).collect::<Option<_>>()?;
    Some(oids.first().copied().unwrap_or(type_oid))
}

/// The types that a value of a tenant column may be cast to without becoming another one.
pub(super) fn kept(type_oid: u32) -> Vec<LogicalType> {
    match logical(type_oid) {
        Some(LogicalType::Int2 | LogicalType::Int4 | LogicalType::Int8) => {
            vec![LogicalType::Int2, LogicalType::Int4, LogicalType::Int8]
        }
        other => other.into_iter().collect(),
    }
}

/// The type of the values of a tenant column; `None` for one that there is no reading for.
pub(super) fn logical(type_oid: u32) -> Option<LogicalType> {
    match type_oid {
        20 => Some(LogicalType::Int8),
        21 => Some(LogicalType::Int2),
        23 => Some(LogicalType::Int4),
        25 | 1043 => Some(LogicalType::Text),
        2950 => Some(LogicalType::Uuid),
        _ => None,
    }
}

/// The refusal of a search that is not confined to a tenant.
pub(super) fn not_pinned(column: &Column) -> Refusal {
    Refusal::new(
        Class::NotSupported,
        format!("sealed column {} can be compared only within one tenant", column.qualified),
    )
    .hint("Pin the tenant in WHERE, or set equality = \"global\" for the column.")
}

/// The refusal of a write whose tenant is not in the statement.
pub(super) fn no_tenant(column: &Column) -> Refusal {
    Refusal::new(
        Class::KeyUnavailable,
        format!("the tenant of a row for sealed column {} is not known", column.qualified),
    )
    .hint("Give the tenant column a literal or a parameter in the same row.")
}
