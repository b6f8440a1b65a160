//! Statements that are neither queries nor writes: the few that pass though they name a sealed table.
use std::ops::Range;

use sqlparser::ast::{AlterTableOperation, CreateIndex, Expr, ObjectType, Statement};

use super::build::Planner;
use super::ident::fold;
use super::text::Text;
use crate::catalog::Relation;
use crate::refusal::{Class, Refusal};

/// Statements that can neither carry nor reveal a value, by their first words.
const HARMLESS: &[&[&str]] = &[
    &["vacuum"], &["analyze"], &["analyse"], &["lock"], &["comment", "on"], &["grant"], &["revoke"], &["truncate"],
    &["reindex"], &["cluster"],
];

/// True when the first words show that the statement cannot carry or reveal a value.
pub(super) fn passes_by_tokens(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    HARMLESS.iter().any(|words| {
        words.iter().enumerate().all(|(i, word)| {
            tokens.start + i < tokens.end && text.word(tokens.start + i).as_deref() == Some(word)
        })
    })
}

/// The refusal of a kind of statement on a sealed table.
pub(super) fn refuse_statement(what: &str, relation: &Relation) -> Refusal {
    let columns: Vec<_> = relation.columns.iter().filter_map(|a| a.sealed.as_ref()).map(|c| c.name.as_str()).collect();
    let refusal = Refusal::new(Class::NotSupported, format!("{what} is not supported on table {}", relation.qualified()));
    match columns.is_empty() {
        true => refusal,
        false => refusal.detail(format!("Its sealed columns are {}.", columns.join(", "))),
    }
    .hint("Use INSERT, UPDATE, DELETE or SELECT with a column list.")
}

/// Passes a parsed statement, or refuses it by name.
pub(super) fn passes(planner: &Planner<'_>, statement: &Statement, relation: &Relation) -> Result<(), Refusal> {
    let refuse = |what: &str| Err(refuse_statement(what, relation));
    match statement {
        Statement::Drop { object_type: ObjectType::Table | ObjectType::View | ObjectType::Index, .. } => Ok(()),
        Statement::CreateIndex(index) if plain_index(index, relation) => Ok(()),
        Statement::CreateIndex(_) => refuse("this index"),
        Statement::AlterTable(alter) => match alter.operations.iter().all(|op| harmless(op, relation)) {
            true => Ok(()),
            false => refuse("this ALTER TABLE"),
        },
        Statement::Copy { .. } => refuse("COPY"),
        Statement::Merge(_) => refuse("MERGE"),
        Statement::CreateView(_) => refuse("CREATE VIEW"),
        Statement::CreateTable(_) => refuse("CREATE TABLE with a reference to it"),
        Statement::Prepare { .. } => refuse("PREPARE"),
        Statement::Declare { .. } => refuse("DECLARE"),
        Statement::CreateFunction(_) | Statement::CreateProcedure { .. } => refuse("CREATE FUNCTION"),
        _ => {
            let first = planner.text.word(planner.tokens.start).unwrap_or_default().to_ascii_uppercase();
            refuse(if first.is_empty() { "this statement" } else { &first })
        }
    }
}

/// An index over plain columns only.
fn plain_index(index: &CreateIndex, relation: &Relation) -> bool {
    let plain = |e: &Expr| {
        matches!(e, Expr::Identifier(i) if relation.attribute(&fold(i)).is_some_and(|a| !a.is_cell && !a.is_unsealed))
    };
    index.predicate.is_none() && index.columns.iter().all(|c| plain(&c.column.expr))
}

fn harmless(operation: &AlterTableOperation, relation: &Relation) -> bool {
    let in_policy = |name: &str| {
        relation.policy.as_ref().is_some_and(|p| p.columns.iter().any(|c| c.name == name))
    };
    match operation {
        AlterTableOperation::OwnerTo { .. }
        | AlterTableOperation::EnableRowLevelSecurity
        | AlterTableOperation::DisableRowLevelSecurity => true,
        AlterTableOperation::AddColumn { column_def, .. } => {
            column_def.options.is_empty() && !in_policy(&fold(&column_def.name))
        }
        _ => false,
    }
}
