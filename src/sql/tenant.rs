//! How the tenant of a value is found in a statement.
use super::operand::{Operand, Shape, casts_to, tenant_name};
use super::plan::TenantSource;
use crate::policy::Column;
use crate::refusal::{Class, Refusal};
use crate::types::LogicalType;

/// The tenant that an operand names as a value of a tenant column of this type.
pub(super) fn source(type_oid: u32, operand: &Operand) -> Option<TenantSource> {
    if !casts_to(&operand.casts, type_oid) {
        return None;
    }
    match &operand.shape {
        Shape::Param(index) => Some(TenantSource::Param { index: *index, type_oid, described_oid: type_oid }),
        Shape::Literal(text, kind) => tenant_name(type_oid, text, *kind).map(TenantSource::Literal),
        Shape::Null => None,
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
