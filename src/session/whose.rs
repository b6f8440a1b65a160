//! Whose row it is: the tenant that a statement, a row or the session names, and whether the session may work for it.
use crate::keys::Tenant;
use crate::policy::{Column, Equality, GLOBAL_TENANT};
use crate::refusal::{Class, Refusal};
use crate::sql::plan::{StatementPlan, TenantSource};
use crate::types::{self, Format};

use super::facts::Facts;
use super::seal::{Inputs, LockedRow, bad_value, declared, is_text, param_format};

/// The tenant whose index root makes the tokens of `column` in a row of `tenant`.
pub(crate) fn index_tenant(column: &Column, tenant: &Tenant) -> Tenant {
    match column.equality {
        Some(Equality::Global) => GLOBAL_TENANT.into(),
        Some(Equality::Tenant) | None => tenant.clone(),
    }
}

/// The tenant of a row that an UPDATE in two steps has locked.
///
/// # Errors
/// 55000 where none is named.
pub(super) fn locked_tenant(
    plan: &StatementPlan,
    row: &LockedRow,
    inputs: &Inputs<'_>,
    column: &Column,
) -> Result<Tenant, Refusal> {
    match plan.lock.as_ref().and_then(|lock| lock.tenant.as_ref()) {
        Some(source) => named(source, column, inputs),
        None => row.tenant.clone().ok_or_else(|| missing_tenant(column)),
    }
}

/// The tenant that a row is written for.
///
/// # Errors
/// 55000 where none is named, 42501 for another one than the session's.
pub(super) fn writer(source: &TenantSource, column: &Column, inputs: &Inputs<'_>) -> Result<Tenant, Refusal> {
    confined(named(source, column, inputs)?, inputs)
}

/// The same of a row that is there; `None` where the statement is about no row because the tenant is NULL.
///
/// # Errors
/// As in [`writer`].
pub(super) fn changer(source: &TenantSource, column: &Column, inputs: &Inputs<'_>) -> Result<Option<Tenant>, Refusal> {
    if is_nobody(source, inputs) { Ok(None) } else { writer(source, column, inputs).map(Some) }
}

/// The tenant whose tokens are searched for; `None` where the statement is about no row because the tenant is NULL. A global column is searched with the reserved tenant's tokens, which
/// confinement does not concern: it is enforced when a cell is opened.
///
/// # Errors
/// 55000 where none is named, 42501 for another one than the session's.
pub(super) fn searched(source: &TenantSource, column: &Column, inputs: &Inputs<'_>) -> Result<Option<Tenant>, Refusal> {
    if is_nobody(source, inputs) {
        return Ok(None);
    }
    let tenant = named(source, column, inputs)?;
    let tenant = if column.equality == Some(Equality::Global) { tenant } else { confined(tenant, inputs)? };
    Ok(Some(tenant))
}

/// True for a tenant that is NULL, where the statement is about no row then.
fn is_nobody(source: &TenantSource, inputs: &Inputs<'_>) -> bool {
    match source {
        TenantSource::Nobody => true,
        TenantSource::Param { index, may_be_null: true, .. } => {
            inputs.params.get(usize::from(*index)).is_some_and(Option::is_none)
        }
        _ => false,
    }
}

fn named(source: &TenantSource, column: &Column, inputs: &Inputs<'_>) -> Result<Tenant, Refusal> {
    match source {
        TenantSource::Fixed(name) | TenantSource::Literal(name) => Ok(name.clone()),
        TenantSource::Session => session_tenant(column, inputs.facts),
        TenantSource::Nobody => Err(missing_tenant(column)),
        TenantSource::Misread(error) => Err(bad_value(error)),
        TenantSource::Param { index, type_oid, described_oid, .. } => {
            let bytes = inputs.params.get(usize::from(*index)).copied().flatten();
            let bytes = bytes.ok_or_else(|| missing_tenant(column))?;
            let oid = declared(inputs.oids, usize::from(*index)).unwrap_or(*described_oid);
            let read = |oid, format, bytes| types::read_plain(oid, format, bytes).map_err(|error| bad_value(&error));
            let text = match read(oid, param_format(inputs, *index), bytes)? {
                Some(text) if is_text(oid) => read(*type_oid, Format::Text, text.as_bytes())?,
                text => text,
            };
            text.map(Into::into).ok_or_else(|| missing_tenant(column))
        }
    }
}

/// The tenant that the session has set.
///
/// # Errors
/// 55000 where it has set none.
pub(super) fn session_tenant(column: &Column, facts: &Facts) -> Result<Tenant, Refusal> {
    facts.tenant.clone().ok_or_else(|| {
        missing_tenant(column).hint("Set rowseal.tenant in this session to the tenant whose rows are meant.")
    })
}

/// As [`confined_to`], for a statement.
///
/// # Errors
/// 42501 for another tenant.
pub(super) fn confined(tenant: Tenant, inputs: &Inputs<'_>) -> Result<Tenant, Refusal> {
    confined_to(inputs.facts, tenant)
}

/// Refuses a tenant other than the one the session is confined to.
///
/// # Errors
/// 42501 for another tenant.
pub(super) fn confined_to(facts: &Facts, tenant: Tenant) -> Result<Tenant, Refusal> {
    match &facts.tenant {
        Some(own) if *own != tenant => Err(other_tenant()),
        _ => Ok(tenant),
    }
}

/// The refusal of a row of another tenant than the session's.
pub(super) fn other_tenant() -> Refusal {
    Refusal::new(Class::Denied, "the row belongs to another tenant than this session's")
        .hint("Reset rowseal.tenant to work on rows of several tenants.")
}

/// The refusal of a row whose tenant is nowhere said.
pub(super) fn missing_tenant(column: &Column) -> Refusal {
    Refusal::new(
        Class::KeyUnavailable,
        format!("the tenant of the row is not known, which column {} needs", column.qualified),
    )
    .hint("Give the tenant column a value, not NULL; in VALUES also in the rows that WHERE leaves out.")
}
