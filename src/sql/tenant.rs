//! How the tenant of a value is found in a statement.
use super::operand::{Operand, Shape, casts_to, tenant_name};
use super::plan::TenantSource;
use super::scope::ScopeRelation;
use crate::catalog::{Attribute, Relation};
use crate::policy::{Column, TenantRule};
use crate::refusal::{Class, Refusal};

/// The tenant column of a table, if its tenants are found in one.
pub(super) fn tenant_attribute(base: &Relation) -> Option<&Attribute> {
    match &base.policy.as_ref()?.tenant {
        TenantRule::Column(name) => base.attribute(name),
        TenantRule::Session | TenantRule::Fixed(_) => None,
    }
}

/// The tenants that a relation's rows are confined to: by its rule, or by a pinned tenant column.
pub(super) fn pins(relation: &ScopeRelation, base: &Relation) -> Option<Vec<TenantSource>> {
    match &base.policy.as_ref()?.tenant {
        TenantRule::Session => Some(vec![TenantSource::Session]),
        TenantRule::Fixed(name) => Some(vec![TenantSource::Fixed(name.clone())]),
        TenantRule::Column(name) => {
            let attribute = base.attribute(name)?;
            relation
                .pins
                .iter()
                .filter(|pin| pin.attnum == attribute.attnum)
                .find_map(|pin| pin.operands.iter().map(|o| source(attribute, o)).collect())
        }
    }
}

/// The tenant that an operand names as a value of the tenant column.
pub(super) fn source(attribute: &Attribute, operand: &Operand) -> Option<TenantSource> {
    if !casts_to(&operand.casts, attribute.base_type_oid) {
        return None;
    }
    match &operand.shape {
        Shape::Param(index) => Some(TenantSource::Param { index: *index, type_oid: attribute.base_type_oid }),
        Shape::Literal(text, kind) => tenant_name(attribute.base_type_oid, text, *kind).map(TenantSource::Literal),
        Shape::Null => None,
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
