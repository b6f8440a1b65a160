//! Statements that are neither queries nor writes: the few that pass though they name a sealed table.
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{AlterTableOperation, CreateIndex, Expr, ObjectName, ObjectType, Statement};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::unsupported;
use super::ident::{fold, parts};
use super::sealed::refuse_use;
use super::text::Text;
use crate::catalog::Relation;
use crate::policy::{Equality, TenantRule};
use crate::refusal::{Class, Refusal};

/// Statements that can neither carry nor reveal a value, by their first words.
const HARMLESS: &[&[&str]] = &[
    &["vacuum"],
    &["analyze"],
    &["analyse"],
    &["lock"],
    &["comment", "on"],
    &["grant"],
    &["revoke"],
    &["truncate"],
    &["reindex"],
    &["cluster"],
];

/// True when the first words show that the statement cannot carry or reveal a value.
pub(super) fn passes_by_tokens(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    HARMLESS.iter().any(|words| {
        words
            .iter()
            .enumerate()
            .all(|(i, word)| tokens.start + i < tokens.end && text.word(tokens.start + i).as_deref() == Some(word))
    })
}

/// True when the statement may change which relation a name means: search_path, role, or all settings.
pub(super) fn moves_names(text: &Text<'_>, tokens: &Range<usize>, setters: &HashSet<String>) -> bool {
    const MOVING: &[&str] =
        &["search_path", "schema", "role", "authorization", "all", "discard", "rollback", "abort", "do", "call"];
    let word = |i: usize| text.word(i).unwrap_or_default();
    let first = word(tokens.start);
    let setting = matches!(first.as_str(), "set" | "reset" | "discard" | "rollback" | "abort" | "do" | "call");
    let quoted = matches!(text.token(tokens.start + 1), Some(Token::Word(w)) if w.quote_style.is_some());
    let symbol = |name: &&String| !name.starts_with(|c: char| c == '_' || c.is_alphanumeric());
    let bytes = text.tokens[tokens.start].range.start..text.tokens[tokens.end - 1].range.end;
    setters.iter().filter(symbol).any(|name| text.text[bytes.clone()].contains(&**name))
        || (setting && (quoted || tokens.clone().any(|i| MOVING.contains(&word(i).as_str()))))
        || tokens.clone().any(|i| {
            let Some(Token::Word(w)) = text.token(i) else { return false };
            let word = w.value.to_ascii_lowercase();
            matches!(word.as_str(), "set_config" | "pg_settings" | "execute") || setters.contains(&word)
        })
}

/// True when the statement is of a kind that neither makes, changes nor drops what names mean.
pub(super) fn leaves_names(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    const KINDS: &[&str] = &[
        "select",
        "with",
        "values",
        "table",
        "insert",
        "update",
        "delete",
        "begin",
        "start",
        "savepoint",
        "release",
        "commit",
        "end",
        "show",
        "set",
        "reset",
        "explain",
        "declare",
        "fetch",
        "move",
        "close",
        "lock",
    ];
    text.word(tokens.start).is_some_and(|word| KINDS.contains(&&*word))
}

/// True when the statement may change which relation a name means by renaming or dropping one.
pub(super) fn renames(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    matches!(text.word(tokens.start).as_deref(), Some("alter" | "drop" | "discard"))
}

/// The refusal of a kind of statement on a sealed table.
pub(super) fn refuse_statement(what: &str, relation: &Relation) -> Refusal {
    let columns: Vec<_> = relation.columns.iter().filter_map(|a| a.sealed.as_ref()).map(|c| c.name.as_str()).collect();
    let refusal =
        Refusal::new(Class::NotSupported, format!("{what} is not supported on table {}", relation.qualified()));
    match columns.is_empty() {
        true => refusal,
        false => refusal.detail(format!("Its sealed columns are {}.", columns.join(", "))),
    }
    .hint("Use INSERT, UPDATE, DELETE or SELECT with a column list.")
}

/// Passes a parsed statement, or refuses it by name.
pub(super) fn passes(planner: &mut Planner<'_>, statement: &Statement, relation: &Relation) -> Result<(), Refusal> {
    let refuse = |what: &str| Err(refuse_statement(what, relation));
    match statement {
        Statement::Drop { object_type: ObjectType::Table | ObjectType::View | ObjectType::Index, .. } => Ok(()),
        Statement::AlterTable(alter) => match planner.named(&alter.name)? {
            Some(table) if alter.operations.iter().all(|op| harmless(op, &table)) => Ok(()),
            Some(table) => Err(refuse_statement("this ALTER TABLE", &table)),
            None => Ok(()),
        },
        Statement::CreateTable(create)
            if create.query.is_none()
                && create.like.is_none()
                && create.clone.is_none()
                && create.inherits.is_none()
                && create.partition_of.is_none() =>
        {
            Ok(())
        }
        Statement::Copy { .. } => refuse("this form of COPY"),
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

impl Planner<'_> {
    /// The relation of a name, if it exposes a sealed column.
    fn named(&mut self, name: &ObjectName) -> Result<Option<Arc<Relation>>, Refusal> {
        let parts = parts(name).ok_or_else(|| unsupported("this table name"))?;
        let base = self.relation(&parts)?.base;
        Ok(base.filter(|b| self.context.catalog.exposes(b)))
    }

    /// An index: searchable sealed columns become expressions over their tokens.
    pub(super) fn create_index(&mut self, index: &CreateIndex) -> Result<(), Refusal> {
        let Some(relation) = self.named(&index.table_name)? else { return Ok(()) };
        let relation = &*relation;
        let refused = || refuse_statement("this index", relation);
        if index.predicate.is_some() || !index.include.is_empty() {
            return Err(refused());
        }
        let mut sealed = Vec::new();
        let mut names = Vec::new();
        for column in &index.columns {
            let Expr::Identifier(ident) = &column.column.expr else { return Err(refused()) };
            let attribute = relation.attribute(&fold(ident)).ok_or_else(refused)?;
            names.push(attribute.name.as_str());
            match &attribute.sealed {
                Some(policy) if policy.equality.is_some() => sealed.push((policy, ident)),
                None if !attribute.is_cell && !attribute.is_unsealed => {}
                _ => return Err(refused()),
            }
        }
        for (policy, ident) in sealed {
            let confined = policy.equality == Some(Equality::Global)
                || match relation.policy.as_ref().map(|p| &p.tenant) {
                    Some(TenantRule::Column(tenant)) => names.contains(&tenant.as_str()),
                    Some(TenantRule::Fixed(_)) => true,
                    Some(TenantRule::Session) | None => false,
                };
            if index.unique && !confined {
                return Err(refuse_use(policy, "in a unique index without the tenant column")
                    .hint("Add the tenant column to the index, or set equality = \"global\"."));
            }
            let range = self.text.range(ident.span).ok_or_else(refused)?;
            self.wrap(&range, "rowseal.eq(", ")");
        }
        Ok(())
    }
}

fn harmless(operation: &AlterTableOperation, relation: &Relation) -> bool {
    let in_policy = |name: &str| relation.policy.as_ref().is_some_and(|p| p.columns.iter().any(|c| c.name == name));
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
