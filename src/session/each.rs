//! Arrays whose elements become cells of rows of their own: what they hold, and whose rows they are. Pure functions.
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::keys::Tenant;
use crate::policy::Column;
use crate::refusal::Refusal;
use crate::sql::plan::{EachTenant, Source};
use crate::types::{self, Format, LogicalType};

use super::elements::{Array, array};
use super::seal::{Inputs, bad_value, declared, given, members as canonical_members};
use super::whose::{confined, missing_tenant, writer};

/// The canonical form of a member of an array; `None` for NULL.
pub(super) type Member = Option<Zeroizing<Vec<u8>>>;

/// The members of an array as values to be stored in a column; `None` where there is no array.
///
/// # Errors
/// The error that Postgres gives for bytes that are no array of values of this type.
///
/// # Secrets
/// The result is plaintext.
pub(super) fn members(source: &Source, column: &Column, inputs: &Inputs<'_>) -> Result<Option<Vec<Member>>, Refusal> {
    members_as(source, column.logical, inputs)
}

/// The same as values of a type.
///
/// # Errors
/// As [`members`].
pub(super) fn members_as(
    source: &Source,
    logical: LogicalType,
    inputs: &Inputs<'_>,
) -> Result<Option<Vec<Member>>, Refusal> {
    let Some((format, found)) = read(source, inputs)? else { return Ok(None) };
    canonical_members(&found, format, logical, inputs).map(Some)
}

/// The places of the members that are not NULL, with the tenants of the rows they go to.
///
/// # Errors
/// 55000 where one has none, 42501 where it is not the one the session is confined to.
pub(super) fn tenants(
    source: &Source,
    tenants: &EachTenant,
    column: &Column,
    inputs: &Inputs<'_>,
) -> Result<Vec<(usize, Tenant)>, Refusal> {
    let Some((_, found)) = read(source, inputs)? else { return Ok(Vec::new()) };
    let places = found.members.iter().enumerate().filter(|(_, member)| member.is_some()).map(|(at, _)| at);
    let named = match tenants {
        EachTenant::Same(tenant) => {
            let tenant = writer(tenant, column, inputs);
            return places.map(|at| Ok((at, tenant.clone()?))).collect();
        }
        EachTenant::Param { index, type_oid, cut } => (Source::Param(*index), (*type_oid, *cut)),
        EachTenant::Literal { array, type_oid, cut } => (Source::Literal(Arc::clone(array)), (*type_oid, *cut)),
    };
    let names = names(&named.0, named.1, inputs)?;
    let name = |at: usize| names.get(at).cloned().flatten().ok_or_else(|| missing_tenant(column));
    places.map(|at| Ok((at, confined(name(at)?, inputs)?))).collect()
}

/// The tenants that an array of values of a tenant column's type names, each cut to so many characters.
fn names(
    source: &Source,
    (type_oid, cut): (u32, Option<u32>),
    inputs: &Inputs<'_>,
) -> Result<Vec<Option<Tenant>>, Refusal> {
    let Some((format, found)) = read(source, inputs)? else { return Ok(Vec::new()) };
    let element = found.element.unwrap_or(type_oid);
    let name = |member: &[u8]| {
        let read = |oid, format, bytes| types::read_plain(oid, format, bytes).map_err(|error| bad_value(&error));
        let Some(mut text) = read(element, format, member)? else { return Ok(None) };
        let end = cut.and_then(|cut| text.char_indices().nth(usize::try_from(cut).ok()?));
        if let Some((end, _)) = end {
            text.truncate(end);
        }
        // As the column shows it, whatever type the client has given it in.
        Ok(read(type_oid, Format::Text, text.as_bytes())?.map(Tenant::from))
    };
    let names = found.members.iter().map(|member| member.as_deref().map_or(Ok(None), name));
    names.collect()
}

fn read<'v>(source: &'v Source, inputs: &Inputs<'v>) -> Result<Option<(Format, Array<'v>)>, Refusal> {
    let Some((format, bytes)) = given(source, inputs) else { return Ok(None) };
    let oid = match source {
        Source::Param(n) => declared(inputs.oids, usize::from(*n)).unwrap_or(0),
        Source::Literal(_) | Source::Rows => 0,
    };
    Ok(Some((format, array(format, bytes, oid)?)))
}
