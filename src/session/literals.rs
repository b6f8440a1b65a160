//! The literals of a statement, looked at before it runs: Postgres reads them when a statement is prepared.
use std::sync::Arc;

use crate::refusal::Refusal;
use crate::sql::plan::{
    Constant, CopiedTenant, EachTenant, Named, ResultColumn, Role, Source, StatementPlan, TenantSource,
};
use crate::types::{self, Format, LogicalType, ValueError};

use super::cells::{self, writes_cells};
use super::facts::Facts;
use super::seal::{Inputs, bad_value, literal_array};

/// Checks all literals of a statement that is prepared. Their length is looked at when it runs, as in Postgres.
///
/// # Errors
/// The error that Postgres gives for a text that is not of its column's type.
pub(super) fn check(plan: &StatementPlan, facts: &Arc<Facts>) -> Result<(), Refusal> {
    for slot in &plan.values {
        if let Some(error) = tenants(&slot.role).iter().find_map(misread) {
            return Err(bad_value(&error));
        }
        let Source::Literal(text) = &slot.source else { continue };
        match &slot.role {
            Role::Seal { column, .. } | Role::LockedCells { column } if writes_cells(facts) => {
                cells::given((Format::Text, text.as_bytes()), column)?;
            }
            Role::Seal { column, .. }
            | Role::Search { column, .. }
            | Role::Shown { column, .. }
            | Role::CopiedCells { column, .. }
            | Role::LockedCells { column } => {
                read(column.logical, text, facts)?;
            }
            Role::SearchMany { column, .. } | Role::SealEach { column, .. } => {
                let inputs = Inputs { params: &[], formats: &[], oids: &[], facts, locked: None, copied: None };
                literal_array(text, column.logical, &inputs)?;
            }
            Role::CopiedPlain { .. } | Role::LockedTables | Role::LockedRows => {}
        }
    }
    check_shown(plan, facts)
}

/// The tenants that the statement itself names for a value.
fn tenants(role: &Role) -> &[TenantSource] {
    match role {
        Role::Seal { tenant, .. }
        | Role::Search { tenant, .. }
        | Role::SealEach { tenants: EachTenant::Same(tenant), .. }
        | Role::CopiedCells { tenant: CopiedTenant::Same(tenant), .. } => std::slice::from_ref(tenant),
        Role::SearchMany { tenants, .. } => tenants,
        _ => &[],
    }
}

fn misread(tenant: &TenantSource) -> Option<ValueError> {
    match tenant {
        TenantSource::Misread(error) => Some(*error),
        _ => None,
    }
}

/// Checks the literals that the rows of a statement may show, and all of the statement that a PREPARE gives a name.
///
/// # Errors
/// As in [`check`].
pub(super) fn check_shown(plan: &StatementPlan, facts: &Arc<Facts>) -> Result<(), Refusal> {
    if let Some(Named::Prepare { plan: Some(plans), .. }) = &plan.named {
        return plans.iter().try_for_each(|plan| check(plan, facts));
    }
    for column in plan.result.iter().flat_map(|columns| columns.iter()) {
        if let ResultColumn::Sealed { column, constants, .. } = column {
            constants.0.iter().try_for_each(|constant| match constant {
                Constant::Literal(text) => read(column.logical, text, facts),
                Constant::Param(_) => Ok(()),
            })?;
        }
    }
    Ok(())
}

fn read(logical: LogicalType, text: &str, facts: &Facts) -> Result<(), Refusal> {
    let mut canonical = zeroize::Zeroizing::new(Vec::new());
    types::canonical(logical.without_modifier(), Format::Text, text.as_bytes(), &facts.style, &mut canonical)
        .map_err(|error| bad_value(&error))
}
