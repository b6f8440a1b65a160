//! ALTER TABLE.
use std::sync::Arc;

use sqlparser::tokenizer::Token;

use super::element::{Fate, differs_in_length, length_of_policy, refuse_default, wrong_type};
use super::words::{Words, Written, whole};
use super::{Definition, Target, refuse_definition, unread};
use crate::policy::{Column, TenantRule};
use crate::refusal::{Class, Refusal};
use crate::sql::Context;
use crate::sql::build::Planner;
use crate::sql::ident::quote;
use crate::sql::plan::StatementPlan;

/// Actions that neither carry a value nor change what a name means, by their first words.
const HARMLESS: &[&[&str]] = &[
    &["owner", "to"],
    &["enable"],
    &["disable"],
    &["force", "row"],
    &["no", "force"],
    &["cluster", "on"],
    &["set", "without"],
    &["set", "logged"],
    &["set", "unlogged"],
    &["set", "tablespace"],
    &["set", "access"],
    &["replica", "identity"],
    &["validate", "constraint"],
    &["rename", "constraint"],
    &["alter", "constraint"],
];

/// The same for ALTER COLUMN.
const HARMLESS_OF_COLUMN: &[&[&str]] = &[
    &["set", "not", "null"],
    &["drop", "not", "null"],
    &["drop", "default"],
    &["set", "storage"],
    &["set", "compression"],
    &["set", "statistics"],
];

/// Plans what follows ALTER TABLE; `None` when the table is none of the policy.
pub(super) fn plan(planner: Planner<'_>, mut words: Words<'_, '_>) -> Result<Option<StatementPlan>, Refusal> {
    let _ = words.eat(&["if", "exists"]);
    let _ = words.eat(&["only"]);
    let Some(parts) = words.qualified() else { return Ok(None) };
    let _ = words.eat_token(&Token::Mul);
    let Some(target) = Target::existing(planner.context, &parts) else {
        return becomes_sealed(planner.context, &parts, words).map(|()| None);
    };
    if target.policy.is_none() {
        return renamed(planner, target, (&parts, words));
    }
    let mut definition = Definition::new(planner, target);
    let actions = words.listed();
    let mut fates = Vec::new();
    for action in &actions {
        fates.push(definition.action(action.clone())?);
    }
    let storage = definition.storage();
    match (actions.first().and_then(Words::bytes), actions.last().and_then(Words::bytes)) {
        (Some(first), Some(last)) if !fates.contains(&Fate::Stays) => {
            // Nothing is left of it: an action that changes nothing, for its reply and its locks.
            let idle =
                storage.or_else(|| definition.idle()).ok_or_else(|| definition.target.refuse("this ALTER TABLE"))?;
            definition.planner.edit(first.start..last.end, idle);
        }
        (Some(_), Some(last)) => {
            definition.leave_out(&actions, &fates);
            if let Some(storage) = storage {
                definition.planner.edit(last.end..last.end, format!(", {storage}"));
            }
        }
        _ => return Err(definition.target.refuse("this ALTER TABLE")),
    }
    definition.finish()
}

/// Plans what follows ALTER VIEW and ALTER MATERIALIZED VIEW; `None` when it shows no cells.
pub(super) fn view(planner: Planner<'_>, mut words: Words<'_, '_>) -> Result<Option<StatementPlan>, Refusal> {
    const HARMLESS_OF_VIEW: &[&[&str]] = &[&["owner", "to"], &["reset"], &["cluster", "on"], &["set", "without"]];
    let _ = words.eat(&["if", "exists"]);
    let Some(parts) = words.qualified() else { return Ok(None) };
    let Some(target) = Target::existing(planner.context, &parts) else {
        return becomes_sealed(planner.context, &parts, words).map(|()| None);
    };
    if target.policy.is_some() {
        return Err(target.refuse("this ALTER VIEW"));
    }
    if HARMLESS_OF_VIEW.iter().any(|start| words.peek(start)) && !words.has_string() && !words.has_query() {
        return Definition::new(planner, target).finish();
    }
    renamed(planner, target, (&parts, words))
}

/// A table or view that shows cells and is none of the policy: a new name for it, or for one of its columns, carries no
/// value, and the columns keep their types, by which cells are known.
fn renamed(
    planner: Planner<'_>,
    target: Target,
    (parts, mut words): (&[String], Words<'_, '_>),
) -> Result<Option<StatementPlan>, Refusal> {
    becomes_sealed(planner.context, parts, words.clone())?;
    let refuse = |target: &Target| target.refuse("this ALTER").hint("RENAME it, or its columns, or drop it.");
    if !words.eat(&["rename"]) || words.has_string() {
        return Err(refuse(&target));
    }
    if !words.eat(&["to"]) {
        let _ = words.eat(&["column"]);
        if words.name().is_none() || !words.eat(&["to"]) {
            return Err(refuse(&target));
        }
    }
    if words.name().is_none() || !words.is_done() {
        return Err(refuse(&target));
    }
    let mut definition = Definition::new(planner, target);
    definition.is_reshaped = true;
    definition.finish()
}

/// Refuses to give the name of a table of the policy to another one: what it holds is not sealed.
fn becomes_sealed(context: &Context<'_>, parts: &[String], mut words: Words<'_, '_>) -> Result<(), Refusal> {
    let (renamed, moved) = (words.eat(&["rename", "to"]), words.eat(&["set", "schema"]));
    let (Some(new), Some(old)) = (words.name(), parts.last()) else { return Ok(()) };
    let table = context.catalog.tables.iter().find(|t| {
        let schema = || parts.len() < 2 || parts[parts.len() - 2] == t.schema;
        (renamed && t.name == new && schema()) || (moved && t.schema == new && t.name == *old)
    });
    match table {
        Some(table) => Err(Refusal::new(
            Class::NotSupported,
            format!("a table cannot become {}.{}, which the policy seals", table.schema, table.name),
        )
        .hint("Create the table by that name through the proxy, and copy the rows with INSERT.")),
        None => Ok(()),
    }
}

impl Definition<'_> {
    fn action(&mut self, mut words: Words<'_, '_>) -> Result<Fate, Refusal> {
        if HARMLESS.iter().any(|start| words.peek(start)) {
            return self.without_value(&words);
        }
        if words.eat(&["add"]) {
            let _ = words.eat(&["column"]);
            self.if_not_exists |= words.eat(&["if", "not", "exists"]);
            return self.element(words);
        }
        if words.eat(&["drop", "constraint"]) {
            return self.drop_constraint(words);
        }
        if words.eat(&["drop"]) {
            self.is_reshaped = true;
            return self.without_value(&words);
        }
        if words.eat(&["alter"]) {
            let _ = words.eat(&["column"]);
            return self.alter_column(words);
        }
        if words.eat(&["rename"]) {
            let _ = words.eat(&["column"]);
            return self.rename(words);
        }
        if (words.eat(&["set"]) || words.eat(&["reset"])) && words.group().is_some() && words.is_done() {
            return Ok(Fate::Stays);
        }
        Err(self.target.refuse("this ALTER TABLE"))
    }

    /// What carries no value passes.
    fn without_value(&self, words: &Words<'_, '_>) -> Result<Fate, Refusal> {
        if words.has_string() { Err(unread(words)) } else { Ok(Fate::Stays) }
    }

    /// A unique index that stands for a constraint goes in its place.
    fn drop_constraint(&mut self, mut words: Words<'_, '_>) -> Result<Fate, Refusal> {
        let if_exists = words.eat(&["if", "exists"]);
        let name = words.name().ok_or_else(|| unread(&words))?;
        let indexes = self.target.relation.as_ref().map(|relation| &relation.unique_indexes);
        if !indexes.is_some_and(|indexes| indexes.iter().any(|index| index.name == name)) {
            return self.without_value(&words);
        }
        let _ = words.eat(&["cascade"]) || words.eat(&["restrict"]);
        if !words.is_done() {
            return Err(unread(&words));
        }
        let if_exists = if if_exists { "IF EXISTS " } else { "" };
        self.then.push(format!("DROP INDEX {if_exists}{}.{}", quote(&self.target.schema), quote(&name)));
        Ok(Fate::Goes)
    }

    fn alter_column(&mut self, mut words: Words<'_, '_>) -> Result<Fate, Refusal> {
        let name = words.name().ok_or_else(|| unread(&words))?;
        if HARMLESS_OF_COLUMN.iter().any(|start| words.peek(start)) {
            return self.without_value(&words);
        }
        let Some(column) = self.column(&name)? else {
            if words.peek(&["add", "generated"]) {
                return Ok(Fate::Stays);
            }
            return self.check_plain(&words, "in an expression of another column").map(|()| Fate::Stays);
        };
        if words.eat(&["set", "default"]) {
            let null = words.eat(&["null"]) && words.is_done();
            return if null { Ok(Fate::Stays) } else { Err(refuse_default(&column)) };
        }
        if words.eat(&["set", "data", "type"]) || words.eat(&["type"]) {
            return self.same_type(&column, words).map(|()| Fate::Goes);
        }
        match words.eat(&["set"]) || words.eat(&["reset"]) {
            true if words.group().is_some() && words.is_done() => Ok(Fate::Stays),
            _ => Err(refuse_definition(&column, "with this ALTER COLUMN")),
        }
    }

    /// The type of a sealed column is the policy's: where the statement says the same, or another length, nothing has to be
    /// done.
    fn same_type(&mut self, column: &Arc<Column>, mut words: Words<'_, '_>) -> Result<(), Refusal> {
        let same = |written: &Words<'_, '_>| match written.read_type() {
            Written::Logical(logical) => logical == whole(column.logical) || differs_in_length(logical, column.logical),
            Written::Domain(domain) => domain == column.logical.domain(),
            Written::Other => false,
        };
        let written = words.type_tokens();
        if !same(&written) {
            return Err(wrong_type(column));
        }
        if matches!(written.read_type(), Written::Logical(logical) if differs_in_length(logical, column.logical)) {
            self.notify(length_of_policy(column));
        }
        if words.eat(&["using"]) {
            let own = words.name().is_some_and(|name| name == column.name);
            let cast = words.is_done() || (words.eat_token(&Token::DoubleColon) && same(&words.type_tokens()));
            if !own || !cast {
                return Err(refuse_definition(column, "in USING"));
            }
        }
        match words.is_done() {
            true => self.external.push(column.name.clone()),
            false => return Err(refuse_definition(column, "with this change of its type")),
        }
        Ok(())
    }

    /// RENAME of the table, or of a column: what the policy names stays what it is.
    fn rename(&mut self, mut words: Words<'_, '_>) -> Result<Fate, Refusal> {
        if words.eat(&["to"]) {
            return Err(self.refuse_rename(format!("table {}.{}", self.target.schema, self.target.name)));
        }
        let old = words.name().ok_or_else(|| unread(&words))?;
        let new = if words.eat(&["to"]) { words.name() } else { None };
        let new = new.ok_or_else(|| unread(&words))?;
        let policy = self.target.policy.as_ref();
        let named = |name: &String| {
            policy.is_some_and(|policy| {
                policy.column(name).is_some() || matches!(&policy.tenant, TenantRule::Column(tenant) if tenant == name)
            })
        };
        match [&old, &new].into_iter().find(|name| named(name)) {
            Some(name) => Err(self.refuse_rename(format!("column {}.{}.{name}", self.target.schema, self.target.name))),
            None => self.without_value(&words),
        }
    }

    fn refuse_rename(&self, what: String) -> Refusal {
        Refusal::new(Class::NotSupported, format!("{what} is named by the policy and cannot be renamed")).hint(
            "Rename it past the proxy together with its policy entry; a sealed column keeps its old name as binding.",
        )
    }

    /// An action that changes nothing.
    fn idle(&self) -> Option<String> {
        let of_unique =
            || self.unique.iter().flat_map(|unique| &unique.sealed).map(|column| column.name.clone()).next();
        let of_table = || {
            let relation = self.target.relation.as_ref()?;
            relation.columns.iter().find(|a| a.sealed.is_some()).map(|a| a.name.clone())
        };
        let name = of_unique().or_else(of_table)?;
        Some(format!("ALTER COLUMN {} SET STORAGE EXTERNAL", quote(&name)))
    }
}
