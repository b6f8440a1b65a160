//! What keeps rows that are sent in binary from a table whose columns have become of other types: four bytes are an int4
//! and a float4. The server has the last word, which it says when it has locked the table and before it takes a row.
use std::ops::Range;

use super::build::Planner;
use super::ident::quote;
use crate::catalog::{Attribute, Relation};
use crate::types::Exact;

/// Adds a condition that the server can read only where every plain column is of the type that it was planned with, and
/// that is true. The comparison of arrays takes two of one type alone. COALESCE keeps it from being computed, even once;
/// and the columns are those of a NULL of the table's row type, for it needs no right to read them.
///
/// `rest` is where WHERE stands, if there is one, up to the statement's end.
pub(super) fn guard(planner: &mut Planner<'_>, (base, columns): (&Relation, &[&Attribute]), rest: Range<usize>) {
    let row = format!("(NULL::{}.{})", quote(&base.schema), quote(&base.name));
    let plain = columns.iter().filter(|column| column.sealed.is_none());
    let checks: Vec<String> = plain
        .filter_map(|column| {
            let of = Exact::of(column.type_oid)?.name(column.type_oid);
            Some(format!("ARRAY[{row}.{}] OPERATOR(pg_catalog.=) '{{}}'::pg_catalog.{of}[]", quote(&column.name)))
        })
        .collect();
    if checks.is_empty() {
        return;
    }
    let check = format!("COALESCE(true, {})", checks.join(" AND "));
    let text = planner.text;
    let end = text.tokens[rest.end - 1].range.end;
    if rest.is_empty() {
        // Behind the options.
        planner.edit(end..end, format!(" WHERE {check}"));
    } else {
        let condition = text.tokens[rest.start].range.end;
        planner.edit(condition..condition, format!(" {check} AND ("));
        planner.edit(end..end, ")");
    }
}
