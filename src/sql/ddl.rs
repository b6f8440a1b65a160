//! DDL on tables of the policy: CREATE TABLE, ALTER TABLE and CREATE INDEX make sealed columns.
//!
//! A sealed column gets the domain of its type, a UNIQUE over it becomes a unique index over tokens, and what would need
//! its values (DEFAULT, CHECK, keys) is refused: no literal meant for it reaches the server. The statements are read
//! token by token and to their end; what is not known here is refused. Start reading at [`plan`].
mod alter;
mod create;
mod element;
mod index;
mod moved;
mod unique;
mod words;

pub use moved::{Moved, is_declared, opened_index, sealed_index};
pub(super) use words::has_query_at;

use std::ops::Range;
use std::sync::Arc;

use super::Context;
use super::build::Planner;
use super::ident::quote;
use super::plan::{Ddl, StatementPlan};
use super::sealed::{Ty, attribute_type, refuse_use};
use super::text::Text;
use super::utility::refuse_statement;
use crate::catalog::Relation;
use crate::policy::{Column, Table};
use crate::refusal::{Class, Refusal};
use words::Words;

/// Plans DDL that has to do with a table of the policy; `None` when it is none, or another kind of statement.
pub(super) fn plan(
    text: &Text<'_>,
    tokens: &Range<usize>,
    context: &Context<'_>,
) -> Result<Option<StatementPlan>, Refusal> {
    let mut words = Words::new(text, tokens.clone());
    let planner = || Planner::new(context, text, tokens.clone());
    if words.eat(&["alter", "table"]) {
        return alter::plan(planner(), words);
    }
    if words.eat(&["alter", "view"]) || words.eat(&["alter", "materialized", "view"]) {
        return alter::view(planner(), words);
    }
    if words.eat(&["alter", "policy"]) {
        return attached(planner(), words);
    }
    if !words.eat(&["create"]) {
        return Ok(None);
    }
    if words.eat(&["policy"]) || words.eat(&["trigger"]) || words.eat(&["constraint", "trigger"]) {
        return attached(planner(), words);
    }
    if words.eat(&["or", "replace", "trigger"]) {
        return attached(planner(), words);
    }
    if words.eat(&["foreign", "table"]) {
        return create::foreign(context, words).map(|()| None);
    }
    let unique = words.eat(&["unique"]);
    if words.eat(&["index"]) {
        return index::plan(planner(), words, unique);
    }
    let _ = words.eat(&["global"]) || words.eat(&["local"]);
    let temporary = words.eat(&["temporary"]) || words.eat(&["temp"]);
    let _ = words.eat(&["unlogged"]);
    match words.eat(&["table"]) && !temporary && !unique {
        true => create::plan(planner(), words),
        false => Ok(None),
    }
}

/// Plans a trigger or a policy for rows, whose conditions must not look at sealed columns; `None` when it is on no table of
/// the policy.
fn attached(planner: Planner<'_>, mut words: Words<'_, '_>) -> Result<Option<StatementPlan>, Refusal> {
    while !words.is_done() && !words.eat(&["on"]) {
        words.skip();
    }
    let target = words.qualified().and_then(|parts| Target::existing(planner.context, &parts));
    let Some(target) = target.filter(|target| target.policy.is_some()) else { return Ok(None) };
    while !words.is_done() {
        match words.group() {
            Some(inside) => target.check_plain(&inside, planner.context, "in a condition of the table")?,
            None => words.at += 1,
        }
    }
    Definition::new(planner, target).finish()
}

/// The table that a statement defines or changes.
struct Target {
    schema: String,
    name: String,
    policy: Option<Arc<Table>>,
    /// The relation as it is, where it is changed and known.
    relation: Option<Arc<Relation>>,
}

impl Target {
    /// The table that CREATE TABLE would make, if the policy has it.
    fn created(context: &Context<'_>, parts: &[String]) -> Option<Target> {
        let own = |schema: &&String| *schema != "pg_catalog" && !schema.starts_with("pg_temp");
        let (schema, name) = match parts {
            [name] => (context.search_path.iter().find(own)?, name),
            [.., schema, name] => (schema, name),
            [] => return None,
        };
        let policy = context.catalog.tables.iter().find(|t| t.schema == *schema && t.name == *name)?;
        Some(Target { schema: schema.clone(), name: name.clone(), policy: Some(policy.clone()), relation: None })
    }

    /// The table that a name means, if it is one of the policy or exposes sealed columns. One of the policy that does
    /// not exist yet counts as if it did: it may have been made just before.
    fn existing(context: &Context<'_>, parts: &[String]) -> Option<Target> {
        match parts {
            [.., schema, name] if parts.len() > 1 => Target::at(context, schema, name).flatten(),
            [name] => context.search_path.iter().find_map(|schema| Target::at(context, schema, name)).flatten(),
            _ => None,
        }
    }

    /// What stands at a name; `None` for nothing, `Some(None)` for a relation that is not sealed.
    fn at(context: &Context<'_>, schema: &str, name: &str) -> Option<Option<Target>> {
        let catalog = context.catalog;
        let relation = catalog.by_name.get(&(schema.to_owned(), name.to_owned())).cloned();
        let entry = || catalog.tables.iter().find(|t| t.schema == schema && t.name == name).cloned();
        let policy = relation.as_ref().and_then(|r| r.policy.clone()).or_else(entry);
        let exposes = relation.as_ref().is_some_and(|r| catalog.exposes(r));
        if relation.is_none() && policy.is_none() {
            return None;
        }
        let target = Target { schema: schema.to_owned(), name: name.to_owned(), policy, relation };
        Some((target.policy.is_some() || exposes).then_some(target))
    }

    /// The sealed column of this name; `None` for a plain one.
    ///
    /// # Errors
    /// For a column that may not be touched: plaintext that is to be sealed, or cells that the policy does not know.
    fn column(&self, name: &str, context: &Context<'_>) -> Result<Option<Arc<Column>>, Refusal> {
        let attribute = self.relation.as_ref().and_then(|r| Some((r, r.attribute(name)?)));
        match attribute.map(|(relation, a)| attribute_type(relation, a, context.catalog)) {
            Some(Ty::Plain | Ty::Built(_)) => Ok(None),
            Some(Ty::Sealed(sealed) | Ty::Many(sealed)) => Ok(Some(sealed.column)),
            Some(Ty::Blocked(refusal)) => Err(refusal),
            None => Ok(self.policy.as_ref().and_then(|policy| policy.column(name)).cloned()),
        }
    }

    /// Refuses expressions over sealed columns, or over the row as a whole, and queries.
    fn check_plain(&self, words: &Words<'_, '_>, context: &Context<'_>, place: &str) -> Result<(), Refusal> {
        if words.has_query() {
            return Err(self.refuse("a query within a definition"));
        }
        for at in words.rest() {
            let Some(name) = words.name_at(at) else { continue };
            if let Some(column) = self.column(&name, context)? {
                return Err(refuse_definition(&column, place));
            }
            if name == self.name && !words.is_dotted(at) {
                return Err(self.refuse("an expression over the whole row"));
            }
        }
        Ok(())
    }

    /// `schema.table`, as it must be written.
    fn written(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// The refusal of a kind of statement on this table.
    fn refuse(&self, what: &str) -> Refusal {
        match &self.relation {
            Some(relation) => refuse_statement(what, relation).hint("Leave it out."),
            None => Refusal::new(
                Class::NotSupported,
                format!("{what} is not supported on table {}.{}", self.schema, self.name),
            )
            .hint("Leave it out."),
        }
    }
}

/// A statement on a table of the policy while it is read.
struct Definition<'a> {
    planner: Planner<'a>,
    target: Target,
    /// Sealed columns whose cells are to be stored as they are.
    external: Vec<String>,
    /// Indexes that stand for UNIQUE.
    unique: Vec<unique::Unique>,
    then: Vec<String>,
    notice: Option<String>,
    /// True when what the statement adds may exist already.
    if_not_exists: bool,
    /// True when the table has other columns afterwards.
    is_reshaped: bool,
    /// True when nothing is made, because it exists.
    is_skipped: bool,
}

impl<'a> Definition<'a> {
    fn new(planner: Planner<'a>, target: Target) -> Self {
        Definition {
            planner,
            target,
            external: vec![],
            unique: vec![],
            then: vec![],
            notice: None,
            if_not_exists: false,
            is_reshaped: false,
            is_skipped: false,
        }
    }

    fn column(&self, name: &str) -> Result<Option<Arc<Column>>, Refusal> {
        self.target.column(name, self.planner.context)
    }

    fn check_plain(&self, words: &Words<'_, '_>, place: &str) -> Result<(), Refusal> {
        self.target.check_plain(words, self.planner.context, place)
    }

    /// Adds to what the client is told.
    fn notify(&mut self, text: String) {
        self.notice = Some(match self.notice.take() {
            Some(before) => format!("{before}; {text}"),
            None => text,
        });
    }

    /// Cuts tokens out of the text, with the blanks before them.
    fn cut(&mut self, tokens: Range<usize>) {
        let text = self.planner.text;
        let start = tokens.start.checked_sub(1).map_or(0, |before| text.tokens[before].range.end);
        self.planner
            .edits
            .push(super::plan::Edit { range: start..text.tokens[tokens.end - 1].range.end, with: vec![] });
    }

    /// The actions that store the cells of the new columns as they are.
    fn storage(&self) -> Option<String> {
        let action = |name: &String| format!("ALTER COLUMN {} SET STORAGE EXTERNAL", quote(name));
        (!self.external.is_empty()).then(|| self.external.iter().map(action).collect::<Vec<_>>().join(", "))
    }

    /// The plan: edits, and what is to follow the statement in its transaction.
    fn finish(mut self) -> Result<Option<StatementPlan>, Refusal> {
        self.then.extend(self.unique.iter().map(|unique| unique.statement(&self.target, self.if_not_exists)));
        let (is_reshaped, is_skipped) = (self.is_reshaped, self.is_skipped);
        let ddl = Ddl { then: self.then, notice: self.notice, is_reshaped, is_skipped };
        let plan = self.planner.finish(None)?;
        Ok(Some(StatementPlan { ddl: Some(Arc::new(ddl)), ..plan }))
    }
}

/// The refusal of something in the definition of a sealed column.
fn refuse_definition(column: &Column, what: &str) -> Refusal {
    refuse_use(column, what).hint("Leave it out: the server has no values of the column, only cells.")
}

/// The refusal of a statement that is not read to its end.
fn unread(words: &Words<'_, '_>) -> Refusal {
    let refusal = Refusal::new(Class::NotSupported, "a definition over sealed columns cannot be read");
    let (line, column) = words.place();
    refusal
        .detail(format!("Reading stopped at line {line}, column {column}."))
        .hint("Write the statement in a simpler form.")
}
