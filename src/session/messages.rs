//! From plans to the messages that carry them: inline values, parameters, types, formats. Pure functions.
use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::hex;
use crate::policy::Read;
use crate::refusal::{Class, Refusal};
use crate::sql::filter::Hits;
use crate::sql::plan::{Copy, Named, ParamRole, Role, Source, StatementPlan, ValueSlot};
use crate::wire::frame::{HEADER, Header};
use crate::wire::frontend::{self, Param, format_of};

use super::cells::{self, BYTEA, is_cell_parameter, writes_cells};
use super::facts::{Facts, quote};
use super::open::{Shape, Stored, denied};
use super::seal::{self, Inputs};
use super::shown::Stands;

/// How much of a Bind is awaited before its names are looked at.
pub(super) const BIND_NAMES: usize = 4096;

/// The statement that raises `refusal` in the server.
pub(super) fn refuse_call(refusal: &Refusal) -> String {
    format!(
        "SELECT rowseal.refuse({}, {}, {}, {})",
        quote(refusal.class.sqlstate()),
        quote(&refusal.message),
        quote(&refusal.detail),
        quote(&refusal.hint)
    )
}

/// Refuses a plan whose sealed columns the current role may not see or search, or a session that is not in UTF-8.
pub(super) fn allowed(plans: &[StatementPlan], facts: &Facts) -> Result<(), Refusal> {
    if !facts.utf8 {
        return Err(Refusal::new(Class::NotSupported, "sealed columns need client_encoding UTF8")
            .hint("SET client_encoding = 'UTF8'."));
    }
    for plan in plans {
        if let Some(copies) = plan.lock.as_ref().and_then(|lock| lock.copies.as_ref()) {
            super::copied::may_read(copies, facts)?;
        }
        for slot in &plan.values {
            match &slot.role {
                Role::Search { column, .. } | Role::SearchMany { column, .. } if !facts.search => {
                    return Err(denied(column));
                }
                Role::SealEach { column, .. } | Role::CopiedCells { column, .. } if writes_cells(facts) => {
                    return Err(cells::one_by_one(column));
                }
                _ => {}
            }
        }
        if let (false, Some(column)) = (facts.search, plan.compared.first()) {
            return Err(denied(column));
        }
        if let (Read::Deny, false, Some(column)) = (facts.read, facts.search, plan.tested.first()) {
            return Err(denied(column));
        }
        let copied = match plan.copy.as_deref() {
            Some(Copy::Out(copy)) => Some(&copy.columns),
            Some(Copy::In(_)) | None => None,
        };
        let declared = match &plan.named {
            Some(Named::Declare { columns, .. }) => columns.as_ref(),
            _ => None,
        };
        for column in plan.result.iter().chain(copied).chain(declared).flat_map(|columns| columns.iter()) {
            if let Some(column) = column.sealed()
                && facts.read == Read::Deny
            {
                return Err(denied(column));
            }
        }
    }
    Ok(())
}

/// Refuses a query in which a setting may change before a statement that was planned under the old one; the end of a
/// transaction takes back what was set in it.
pub(super) fn settled(text: &[u8], plans: &[StatementPlan]) -> Result<(), Refusal> {
    let changes = |plan: &StatementPlan| {
        let statement = text.get(plan.range.clone()).unwrap_or_default().trim_ascii_start().to_ascii_lowercase();
        let leading =
            [&b"set"[..], b"reset", b"discard", b"rollback", b"abort", b"commit", b"end", b"do", b"call", b"/*", b"--"];
        leading.iter().any(|word| statement.starts_with(word))
            || memchr::memmem::find(&statement, b"set_config").is_some()
    };
    let opens =
        |plan: &StatementPlan| plan.result.iter().flat_map(|columns| columns.iter()).any(|c| c.sealed().is_some());
    let sealed =
        |plan: &StatementPlan| !plan.values.is_empty() || !plan.edits.is_empty() || plan.copy.is_some() || opens(plan);
    let last_sealed = plans.iter().rposition(|plan| plan.ddl.is_none() && sealed(plan));
    if plans.iter().take(last_sealed.unwrap_or(0)).any(changes) {
        return Err(Refusal::new(Class::NotSupported, "a query that changes settings cannot also use sealed columns")
            .hint("Send the statements one by one."));
    }
    Ok(())
}

/// The text of a statement over sealed tables. Refuses one that the server would read in another way than the proxy: backslashes that escape,
/// characters of another encoding.
pub(super) fn readable<'a>(text: &'a [u8], facts: &Facts) -> Result<&'a str, Refusal> {
    let refuse = |what: &'static str, hint: &'static str| Err(Refusal::new(Class::NotSupported, what).hint(hint));
    if !facts.utf8 && !text.is_ascii() {
        return refuse("sealed columns need client_encoding UTF8", "SET client_encoding = 'UTF8'.");
    }
    let invalid = || Refusal::new(Class::BadEncoding, "invalid byte sequence for encoding \"UTF8\"");
    let text = std::str::from_utf8(text).map_err(|_| invalid())?;
    if !facts.conforming && text.contains('\\') {
        return refuse(
            "a backslash in a statement over sealed columns needs standard_conforming_strings",
            "SET standard_conforming_strings = on.",
        );
    }
    Ok(text)
}

/// The refusal of a message that is larger than the proxy holds.
pub(super) fn too_large(bytes_max: usize) -> Refusal {
    Refusal::new(Class::TooLarge, "a message that uses sealed columns is too large")
        .detail(format!("The limit is {bytes_max} bytes."))
        .hint("The operator of the proxy can raise limits.message_bytes_max.")
}

pub(super) fn malformed() -> Refusal {
    Refusal::new(Class::ProtocolViolation, "invalid message format")
}

pub(super) fn merge(into: &mut crate::keys::Need, other: crate::keys::Need) {
    for (tenant, count) in other.fresh {
        match into.fresh.iter_mut().find(|(known, _)| *known == tenant) {
            Some((_, sum)) => *sum += count,
            None => into.fresh.push((tenant, count)),
        }
    }
    for slot in other.open {
        if !into.open.iter().any(|known| known.dek_id == slot.dek_id) {
            into.open.push(slot);
        }
    }
    for tenant in other.index {
        if !into.index.contains(&tenant) {
            into.index.push(tenant);
        }
    }
    for tenant in other.seek {
        if !into.seek.contains(&tenant) {
            into.seek.push(tenant);
        }
    }
}

/// The same plan with nothing to compute but its search tokens, for the lock query.
pub(super) fn searches_only(plan: &StatementPlan) -> StatementPlan {
    let values = plan.values.iter().map(|slot| {
        let mut slot = slot.clone();
        if !matches!(slot.role, Role::Search { .. } | Role::SearchMany { .. }) {
            slot.role = Role::LockedRows;
        }
        slot
    });
    StatementPlan { values: values.collect(), ..StatementPlan::default() }
}

/// A slot's bytes as an inline expression.
pub(super) fn inline(role: &Role, value: Option<&[u8]>) -> String {
    match (role, value) {
        (Role::LockedTables, Some(text)) => format!("'{}'::pg_catalog.oid[]", String::from_utf8_lossy(text)),
        (Role::LockedRows, Some(text)) => format!("'{}'::pg_catalog.tid[]", String::from_utf8_lossy(text)),
        (Role::CopiedPlain { .. }, text) => match text {
            Some(text) => format!(
                " E'{}'::pg_catalog.text[]",
                String::from_utf8_lossy(text).replace('\\', "\\\\").replace('\'', "''")
            ),
            None => "NULL::pg_catalog.text[]".to_owned(),
        },
        (
            Role::LockedCells { .. } | Role::SearchMany { .. } | Role::SealEach { .. } | Role::CopiedCells { .. },
            Some(text),
        ) => {
            format!(" E'{}'::pg_catalog.bytea[]", String::from_utf8_lossy(text).replace('\\', "\\\\"))
        }
        (Role::Seal { .. } | Role::Search { .. } | Role::Shown { .. }, Some(bytes)) => {
            format!("pg_catalog.decode('{}', 'hex')", hex::encode(bytes))
        }
        (Role::SearchMany { .. } | Role::SealEach { .. }, None) => "NULL::pg_catalog.bytea[]".to_owned(),
        (_, None) => "NULL::pg_catalog.bytea".to_owned(),
    }
}

/// OIDs for the rewritten Parse: the client's for plain parameters, bytea or an array for the proxy's.
pub(super) fn server_oids(plan: &StatementPlan, client: &[u32]) -> Vec<u32> {
    let mut oids = vec![0; usize::from(plan.server_params)];
    let plain = client.iter().take(oids.len()).enumerate();
    plain.for_each(|(n, oid)| oids[n] = *oid);
    for slot in &plan.values {
        if let Some(oid) = usize::from(slot.param).checked_sub(1).and_then(|n| oids.get_mut(n)) {
            *oid = match slot.role {
                Role::Seal { .. } | Role::Search { .. } | Role::Shown { .. } => BYTEA,
                Role::LockedCells { .. }
                | Role::SearchMany { .. }
                | Role::SealEach { .. }
                | Role::CopiedCells { .. } => 1001,
                Role::CopiedPlain { .. } => 1009,
                Role::LockedTables => 1028,
                Role::LockedRows => 1010,
            };
        }
    }
    oids
}

/// Refuses a parameter declared to be of a type whose values are not read as those of its sealed column.
pub(super) fn declared_fit(plan: &StatementPlan, oids: &[u32], facts: &Facts) -> Result<(), Refusal> {
    for (n, role) in plan.params.iter().enumerate() {
        let (ParamRole::Sealed(column, _) | ParamRole::Both(column), Some(oid)) = (role, seal::declared(oids, n))
        else {
            continue;
        };
        let of_it = |slot: &&ValueSlot| matches!(slot.source, Source::Param(p) if usize::from(p) == n);
        let cast = seal::is_text(oid) && plan.values.iter().filter(of_it).all(|slot| slot.cast);
        let reads = if is_cell_parameter(plan, n, facts) { oid == BYTEA } else { cast || column.logical.reads(oid) };
        if !reads {
            let message =
                format!("parameter ${} is declared with another type than column {}", n + 1, column.qualified);
            return Err(
                Refusal::new(Class::NotSupported, message).hint("Leave its type to the server, or cast nothing.")
            );
        }
    }
    Ok(())
}

/// Refuses a Bind with another number of parameters than its statement has, or with formats that there are not, as
/// Postgres does.
pub(super) fn bind_fits(bind: &frontend::Bind<'_>, plan: &StatementPlan) -> Result<(), Refusal> {
    let (formats, given, wanted) = (bind.formats.len(), bind.values.len(), plan.params.len());
    if formats > 1 && formats != given {
        let message = format!("bind message has {formats} parameter formats but {given} parameters");
        return Err(Refusal::new(Class::ProtocolViolation, message));
    }
    if given != wanted {
        let name = String::from_utf8_lossy(bind.statement);
        let message =
            format!("bind message supplies {given} parameters, but prepared statement \"{name}\" requires {wanted}");
        return Err(Refusal::new(Class::ProtocolViolation, message));
    }
    if let Some(format) = (0..given).map(|n| format_of(&bind.formats, n)).find(|format| !matches!(format, 0 | 1)) {
        return Err(Refusal::new(Class::BadParameter, format!("unsupported format code: {format}")));
    }
    let results = bind.result_formats.len();
    match &plan.result {
        Some(columns) if results > 1 && results != columns.len() => Err(Refusal::new(
            Class::ProtocolViolation,
            format!("bind message has {results} result formats but query has {} columns", columns.len()),
        )),
        _ => Ok(()),
    }
}

pub(super) fn server_params<'a>(
    plan: &StatementPlan,
    inputs: &Inputs<'a>,
    values: Vec<Option<Vec<u8>>>,
) -> Vec<Param<'a>> {
    let mut params: Vec<Param<'a>> = (0..usize::from(plan.server_params))
        .map(|n| match plan.params.get(n) {
            Some(ParamRole::Plain | ParamRole::Both(_)) => Param {
                format: format_of(inputs.formats, n),
                value: inputs.params.get(n).copied().flatten().map(Cow::Borrowed),
            },
            Some(ParamRole::Sealed(..) | ParamRole::SealedMany(..) | ParamRole::Unused) | None => {
                Param { format: 0, value: None }
            }
        })
        .collect();
    for (slot, value) in plan.values.iter().zip(values) {
        if let Some(param) = usize::from(slot.param).checked_sub(1).and_then(|n| params.get_mut(n)) {
            let binary = matches!(slot.role, Role::Seal { .. } | Role::Search { .. } | Role::Shown { .. });
            *param = Param { format: i16::from(binary), value: value.map(Cow::Owned) };
        }
    }
    params
}

/// The client's result formats with binary for the columns that hold cells.
pub(super) fn result_formats(plan: &StatementPlan, client: &[i16]) -> Vec<i16> {
    match &plan.result {
        None => client.to_vec(),
        Some(columns) => columns
            .iter()
            .enumerate()
            .map(|(n, column)| match column {
                crate::sql::plan::ResultColumn::Plain | crate::sql::plan::ResultColumn::Built(_) => {
                    format_of(client, n)
                }
                crate::sql::plan::ResultColumn::Sealed { .. } => match format_of(client, n) {
                    0 | 1 => 1,
                    unknown => unknown,
                },
            })
            .chain(std::iter::repeat_n(0, plan.hidden))
            .collect(),
    }
}

/// How the rows of a statement are shown; `None` when no column is sealed.
pub(super) fn shape(
    plan: &StatementPlan,
    formats: Vec<i16>,
    stored: Stored,
    (facts, given): (&Arc<Facts>, Stands),
) -> Option<Arc<Shape>> {
    let columns = plan.result.as_ref()?;
    let shape =
        Shape { columns: given.columns(columns), hidden: plan.hidden, formats, stored, facts: facts.clone(), given };
    shape.is_sealed().then(|| Arc::new(shape))
}

/// True when the text has one of these names in it, in any case and anywhere.
pub(super) fn names_any(text: &[u8], names: &[String]) -> bool {
    !names.is_empty() && {
        let text = text.to_ascii_lowercase();
        names.iter().any(|name| memchr::memmem::find(&text, name.to_ascii_lowercase().as_bytes()).is_some())
    }
}

/// True when the text is DDL that may name a type of schema `rowseal`.
pub(super) fn defines_sealed(text: &[u8], hits: Hits) -> bool {
    hits.ddl && memchr::memmem::find(&text.to_ascii_lowercase(), b"rowseal").is_some()
}

/// True when the text may EXECUTE one of these statements.
pub(super) fn names_prepared<'a>(text: &[u8], mut names: impl Iterator<Item = &'a Bytes>) -> bool {
    let text = text.to_ascii_lowercase();
    memchr::memmem::find(&text, b"execute").is_some()
        && names.any(|name| !name.is_empty() && memchr::memmem::find(&text, &name.to_ascii_lowercase()).is_some())
}

/// The refusal of such a text.
pub(super) fn executes_sealed() -> Refusal {
    Refusal::new(Class::NotSupported, "EXECUTE of a statement over sealed columns that is not prepared any more")
        .hint("Prepare it again.")
}

/// The refusal of a write to a policy table that does not exist as far as other connections can see.
pub(super) fn not_yet() -> Refusal {
    Refusal::new(Class::NotSupported, "a table of the policy does not exist yet")
        .hint("Create it with its sealed columns and commit before writing to it.")
}

pub(super) fn after_ddl() -> Refusal {
    let message = "a table with the name of a sealed one cannot be written to after DDL in the same transaction";
    Refusal::new(Class::NotSupported, message)
        .hint("Commit first, or write the table with its schema in a transaction of its own.")
}

/// True while a Bind has not arrived far enough to show which statement it is for.
pub(super) fn names_awaited(header: Header, input: &BytesMut) -> bool {
    let have = input.len().min(header.total);
    have < header.total.min(BIND_NAMES) && frontend::bind_names(&input[HEADER..have]).is_err()
}
