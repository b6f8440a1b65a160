//! What a role that sees cells writes: cells, as it has read them. One is taken only where it would open: under the column's
//! binding, for the tenant of the row, with the token it should have. So a dump can be restored through the proxy, and
//! nothing is sealed twice.
use std::borrow::Cow;

use crate::audit::Act;
use crate::crypto::{Cell, DekId, KeyId, RowKey};
use crate::keys::{Granted, KeyError, Need, Tenant};
use crate::policy::{Column, Read};
use crate::refusal::{Class, Refusal};
use crate::sql::plan::{ParamRole, Role, Source, StatementPlan};
use crate::types::Format;

use super::facts::Facts;
use super::open::{key_refusal, plaintext};
use super::seal::want_index;
use super::show::bytea_text;
use super::whose::index_tenant;

/// OID of bytea: the type that such a role sees sealed columns and writes them in.
pub(super) const BYTEA: u32 = 17;

/// True for a role that writes cells and no values.
pub(super) fn writes_cells(facts: &Facts) -> bool {
    facts.read == Read::Sealed
}

/// True for a parameter (counted from 0) that such a role gives a cell for.
pub(super) fn is_cell_parameter(plan: &StatementPlan, n: usize, facts: &Facts) -> bool {
    let written = |role: &Role| matches!(role, Role::Seal { .. } | Role::LockedCells { .. });
    let given = |source: &Source| matches!(source, Source::Param(at) if usize::from(*at) == n);
    writes_cells(facts)
        && matches!(plan.params.get(n), Some(ParamRole::Sealed(..)))
        && plan.values.iter().any(|slot| written(&slot.role) && given(&slot.source))
}

/// The bytes of a cell that was given as a bytea, in text or binary.
///
/// # Errors
/// 42501 for anything else.
pub(super) fn given<'v>((format, bytes): (Format, &'v [u8]), column: &Column) -> Result<Cow<'v, [u8]>, Refusal> {
    let bytes = match format {
        Format::Binary => Cow::Borrowed(bytes),
        Format::Text => {
            let mut decoded = Vec::new();
            bytea_text(bytes, &mut decoded).ok_or_else(|| misplaced(column))?;
            Cow::Owned(decoded)
        }
    };
    Cell::parse(&bytes).map_err(|_| misplaced(column))?;
    Ok(bytes)
}

/// Adds the keys that [`check`] will want.
///
/// # Errors
/// As [`given`].
pub(super) fn need(need: &mut Need, value: (Format, &[u8]), column: &Column, tenant: &Tenant) -> Result<(), Refusal> {
    let bytes = given(value, column)?;
    want_key(need, &bytes, column)?;
    want_index(need, column, tenant);
    Ok(())
}

/// Adds the data key of a cell.
///
/// # Errors
/// As [`given`].
pub(super) fn want_key(need: &mut Need, cell: &[u8], column: &Column) -> Result<(), Refusal> {
    let slot = Cell::parse(cell).map_err(|_| misplaced(column))?.slot().owned();
    // The cells of a row mostly share one.
    if need.open.last().is_none_or(|known| known.dek_id != slot.dek_id) {
        need.open.push(slot);
    }
    Ok(())
}

/// Says under which keys a cell is, if it would open in this column in a row of this tenant.
///
/// # Errors
/// 42501 when not, whatever the cause; 55000 or 58030 when the key cannot be had, or is being rotated away.
pub(super) fn check(
    bytes: &[u8],
    column: &Column,
    tenant: &Tenant,
    granted: &Granted,
) -> Result<(Act, KeyId, DekId), Refusal> {
    let misplaced = || misplaced(column);
    let cell = Cell::parse(bytes).map_err(|_| misplaced())?;
    let slot = cell.slot();
    let dek = match granted.open.get(&slot.dek_id) {
        Some(Ok(dek)) => dek,
        Some(Err(
            error @ (KeyError::Unavailable(_)
            | KeyError::Deactivated(_)
            | KeyError::Purged(_)
            | KeyError::Unreachable
            | KeyError::Unrecorded),
        )) => return Err(key_refusal(error)),
        Some(Err(KeyError::UnknownTenant(_) | KeyError::UnknownKey | KeyError::Damaged)) | None => {
            return Err(misplaced());
        }
    };
    if dek.tenant != *tenant || cell.token.is_some() != column.equality.is_some() {
        return Err(misplaced());
    }
    let root = granted.index.get(&index_tenant(column, tenant)).map(|root| &**root);
    plaintext(&cell, column, (dek, &RowKey::new(&dek.dek)), root).map_err(|_| misplaced())?;
    if dek.is_leaving {
        let message =
            format!("a cell under a key that is being rotated away cannot be written to {}", column.qualified);
        return Err(Refusal::new(Class::KeyUnavailable, message)
            .hint("Read it anew, or wait until the rotation is done and reactivate the older version."));
    }
    Ok((Act::Open, slot.key_id, slot.dek_id))
}

fn misplaced(column: &Column) -> Refusal {
    Refusal::new(
        Class::Denied,
        format!("a role that sees cells can write to {} only cells that open there", column.qualified),
    )
    .hint("Write cells as they were read, in rows of their own tenant; or write values with another role.")
}

/// The refusal of many rows at once.
pub(super) fn one_by_one(column: &Column) -> Refusal {
    Refusal::new(
        Class::Denied,
        format!("a role that sees cells can write to {} only with VALUES or COPY", column.qualified),
    )
    .hint("Write cells as they were read; or write values with another role.")
}

/// The refusal of one cell for several rows.
pub(super) fn shared(column: &Column) -> Refusal {
    Refusal::new(Class::Denied, format!("one cell cannot be written to {} in several rows", column.qualified))
        .hint("No two rows share a data key.")
}
