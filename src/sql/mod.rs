//! What the proxy does to a statement: filter, parse, resolve, plan, edits.
//!
//! [`plan()`] is the way in: text and [`Context`] to a [`Verdict`]. It never sends anything on that it does not
//! understand: what names a sealed table and is not read to the end is refused. Start reading there, then `query` and
//! `write`; `expr` walks expressions with the table in `operators`, and `sealed` says how a sealed value is rewritten.
mod array_literal;
mod body;
mod build;
mod built;
pub mod cache;
mod call;
mod compare;
mod conflict;
mod copied;
mod copy;
mod copy_guard;
mod copy_options;
mod ddl;
mod each;
mod each_array;
mod expr;
mod extent;
mod facts;
pub mod filter;
mod from;
pub(crate) mod ident;
mod insert;
pub mod inside;
mod join;
mod joined;
mod keyed;
mod list;
mod merge;
pub mod missing;
pub mod named;
mod operand;
mod operators;
pub mod plan;
mod query;
mod question;
pub mod render;
mod rows;
mod rowwise;
mod scope;
mod sealed;
mod setop;
mod stray;
mod table;
mod tenant;
mod text;
mod update;
mod utility;
mod value;
mod view;
mod write;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod cases;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod docs;

use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::Statement;
use sqlparser::tokenizer::Token;

use crate::catalog::{Catalog, Relation};
use crate::refusal::{Class, Refusal};
use build::Planner;
pub use ddl::{Moved, is_declared, opened_index, sealed_index};
use plan::{Asked, ResultColumn, StatementPlan, Verdict};
use question::Asking;
use text::{Text, Unread};

/// The protocol a text came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Query.
    Simple,
    /// Parse.
    Extended,
}

/// What a text is planned against.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The schema with its policy.
    pub catalog: &'a Catalog,
    /// The schemas that names without one are looked up in, as `current_schemas(false)` gives them.
    pub search_path: &'a [String],
    /// The protocol it came by.
    pub protocol: Protocol,
    /// The types that its parameters are declared to be of, as Parse and PREPARE give them: 0 where it is left open.
    pub declared: &'a [u32],
}

impl Context<'_> {
    /// The type that a parameter (counted from 0) is declared to be of, if it is.
    fn declared(&self, index: u16) -> Option<u32> {
        const UNKNOWN: u32 = 705;
        self.declared.get(usize::from(index)).copied().filter(|oid| !matches!(*oid, 0 | UNKNOWN))
    }
}

/// Says what is to be done with a text that the filter found to name a sealed relation.
pub fn plan(text: &str, context: &Context<'_>) -> Verdict {
    let mut asking = Asking::default();
    let then = plan_text(text, context, &mut asking).unwrap_or_else(Verdict::Refuse);
    match asking.questions.is_empty() {
        true => then,
        false => Verdict::Ask(Arc::new(Asked { questions: asking.questions, reload: asking.reload, then })),
    }
}

fn plan_text(text: &str, context: &Context<'_>, asking: &mut Asking) -> Result<Verdict, Refusal> {
    let read = Text::read(text).map_err(unread)?;
    let mut plans = Vec::new();
    let mut rewritten = false;
    let mut moved = false;
    let mut renamed = false;
    let mut reshaped = false;
    let mut viewed = false;
    let mut settled = true;
    for tokens in read.statements() {
        if let Some(name) = tokens.clone().find_map(|i| folded_by_locale(&read, i, context)) {
            return Err(spelling(&name));
        }
        if moved && (names_needle(&read, &tokens, context) || call::calls(&read, &tokens, context)) {
            return Err(path_changed());
        }
        moved |= utility::moves_names(&read, &tokens, &context.catalog.setters);
        if viewed && utility::may_read(&read, &tokens) {
            // It may read the view, whose name means nothing yet.
            return Err(not_alone());
        }
        let asked = asking.questions.len();
        let plan = plan_statement(&read, tokens.clone(), (context, asking));
        if asking.questions.len() > asked && !settled {
            // What the statements before it make is not there yet to be asked about.
            asking.questions.clear();
            return Err(not_alone());
        }
        let plan = plan?;
        settled &= utility::leaves_names(&read, &tokens);
        let ddl = matches!(read.word(tokens.start).as_deref(), Some("create" | "alter" | "drop"));
        let named = |i: usize| word(&read, i).is_some_and(|word| needle(&word, context));
        let is_named = tokens.clone().any(named) || call::calls(&read, &tokens, context);
        if (reshaped || renamed && !plan.is_rewritten()) && !ddl && is_named {
            return Err(names_changed());
        }
        if renamed && plan.ddl.as_ref().is_some_and(|ddl| ddl.is_skipped) {
            return Err(names_changed());
        }
        reshaped |= plan.ddl.as_ref().is_some_and(|ddl| ddl.is_reshaped);
        let makes_name = utility::makes_view(&read, &tokens) || utility::gives_name(&read, &tokens);
        viewed |= makes_name && is_named;
        renamed |= utility::renames(&read, &tokens) && names_schema_or_needle(&read, &tokens, context);
        rewritten |= plan.is_rewritten() || !plan.tested.is_empty();
        plans.push(plan);
    }
    Ok(if rewritten { Verdict::Rewrite(plans.into()) } else { Verdict::Pass })
}

fn plan_statement(
    text: &Text<'_>,
    tokens: Range<usize>,
    (context, asking): (&Context<'_>, &mut Asking),
) -> Result<StatementPlan, Refusal> {
    let mut planner = Planner::new(context, text, tokens.clone());
    let empty = StatementPlan { range: planner.bytes(), ..StatementPlan::default() };
    if utility::passes_by_tokens(text, &tokens) {
        return Ok(empty);
    }
    body::judge(text, &tokens, context)?;
    if let Some(plan) = ddl::plan(text, &tokens, context)? {
        return Ok(plan);
    }
    if let Some(plan) = named::plan(text, &tokens, (context, asking))? {
        return Ok(plan);
    }
    if text.word(tokens.start).as_deref() == Some("copy")
        && let Some(relation) = touched(text, &tokens, context)
    {
        return copy::plan(text, &tokens, (context, &relation), asking);
    }
    if let Some(view) = utility::recursive_view(text, &tokens) {
        return recursive_view(&view, (context, asking)).map(|()| empty);
    }
    let statement = match text.parse(&utility::without_ending(text, &tokens)) {
        Ok(statement) => statement,
        Err(place) if call::calls(text, &tokens, context) => {
            return Err(call::rows_from(text, &tokens).unwrap_or_else(|| unread(place)));
        }
        Err(_) if !names_needle(text, &tokens, context) => return Ok(empty),
        Err(_) if only_in_strings(text, &tokens, context) => return Ok(empty),
        Err(place) => {
            let function = touched(text, &tokens, context).filter(|_| utility::makes_function(text, &tokens));
            let function = function.map(|relation| utility::refuse_function(&relation));
            return Err(function.or_else(|| call::rows_from(text, &tokens)).unwrap_or_else(|| unread(place)));
        }
    };
    let Some(relation) = touched(text, &tokens, context) else { return Ok(empty) };
    let result = statement_result(&mut planner, &statement, &relation);
    question::raise(&planner, asking, result.as_ref().err())?;
    match result? {
        Some(result) => planner.finish(result),
        None => Ok(empty),
    }
}

/// Allows a CREATE RECURSIVE VIEW, by what it stands for.
fn recursive_view(view: &str, (context, asking): (&Context<'_>, &mut Asking)) -> Result<(), Refusal> {
    let read = Text::read(view).map_err(unread)?;
    let [tokens] = &read.statements()[..] else { return Err(expr::unsupported("this form of CREATE VIEW")) };
    let asked = asking.questions.len();
    let plan = plan_statement(&read, tokens.clone(), (context, asking))?;
    if asking.questions.len() > asked || plan.is_rewritten() {
        asking.questions.truncate(asked);
        return Err(expr::unsupported("this form of CREATE RECURSIVE VIEW"));
    }
    Ok(())
}

/// Plans a statement; `None` when it passes as it is.
fn statement_result(
    planner: &mut Planner<'_>,
    statement: &Statement,
    relation: &Relation,
) -> Result<Option<Option<Vec<ResultColumn>>>, Refusal> {
    match statement {
        Statement::Query(query) => planner.top_query(query).map(Some),
        Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
            let columns = planner.change(statement, query::List::Top)?;
            columns.map(|columns| planner.result(Some(columns))).transpose().map(Some)
        }
        Statement::Merge(merge) => planner.merge(merge).map(|()| Some(None)),
        Statement::Explain { statement, .. } => {
            let inner = statement_result(planner, statement, relation)?;
            if inner.is_none() || planner.lock.is_some() {
                return Err(utility::refuse_statement("EXPLAIN of this statement", relation));
            }
            // The server plans the hidden columns, and gives none.
            planner.hidden.clear();
            Ok(Some(Some(vec![ResultColumn::Plain])))
        }
        other => utility::passes(planner, other, relation).map(|()| None),
    }
}

/// The first relation that exposes a sealed column and is named in the statement, or whose rows a function there gives.
fn touched(text: &Text<'_>, tokens: &Range<usize>, context: &Context<'_>) -> Option<Arc<Relation>> {
    let needles = context.catalog.needles();
    for index in tokens.clone() {
        let Some(name) = word(text, index).filter(|n| needles.contains(n)) else { continue };
        let dotted = index > tokens.start && text.token(index - 1) == Some(&Token::Period);
        let schema = if dotted { index.checked_sub(2).and_then(|i| word(text, i)) } else { None };
        let found = context.catalog.resolve(context.search_path, schema.as_deref(), &name);
        if let Some(relation) = found.filter(|r| context.catalog.exposes(r)) {
            return Some(Arc::clone(relation));
        }
    }
    call::called(text, tokens, context)
}

/// True when the name of a relation that exposes a sealed column stands anywhere in the statement, also in a string.
fn names_needle(text: &Text<'_>, tokens: &Range<usize>, context: &Context<'_>) -> bool {
    let bytes = Planner::new(context, text, tokens.clone()).bytes();
    let statement = text.text[bytes].to_ascii_lowercase();
    context.catalog.needles().iter().any(|name| {
        let name = name.to_ascii_lowercase();
        statement.contains(&name) || statement.contains(&name.replace('"', "\"\""))
    })
}

/// Refuses a text that makes something of a type of schema `rowseal` and then writes values, which may be meant for it.
///
/// # Errors
/// 0A000; also for a text that cannot be read.
pub fn gives_to_defined(text: &str) -> Result<(), Refusal> {
    let read = Text::read(text).map_err(unread)?;
    let mut seals = false;
    for tokens in read.statements() {
        if seals && utility::writes(&read, &tokens) && read.has_values(&tokens) {
            return Err(names_changed());
        }
        let ddl = matches!(read.word(tokens.start).as_deref(), Some("create" | "alter"));
        seals |= ddl && tokens.clone().any(|i| word(&read, i).as_deref() == Some("rowseal"));
    }
    Ok(())
}

/// True for writes that may be meant for a table of one of these names: it is a name there, or within a string.
pub fn writes_to(text: &str, names: &[String]) -> bool {
    let Ok(read) = Text::read(text) else { return true };
    let named = |i: usize| match word(&read, i) {
        Some(word) => names.contains(&word) || word.eq_ignore_ascii_case("u"),
        None => {
            let string = read.text[read.tokens[i].range.clone()].to_ascii_lowercase();
            names.iter().any(|name| string.contains(&name.to_ascii_lowercase()))
        }
    };
    read.statements().iter().any(|tokens| utility::writes(&read, tokens) && tokens.clone().any(named))
}

/// True when a text has one of these names as a name, not in a string only, and values that might be meant for it. A text
/// that cannot be read is taken for one.
pub fn asks_with_values(text: &str, names: &[String]) -> bool {
    const DDL: &[&str] = &["create", "alter", "drop", "comment", "grant", "revoke"];
    let Ok(read) = Text::read(text) else { return true };
    read.statements().into_iter().any(|tokens| {
        let ddl = read.word(tokens.start).is_some_and(|word| DDL.contains(&&*word));
        let named = |i: usize| word(&read, i).is_some_and(|word| names.contains(&word));
        !ddl && read.has_values(&tokens) && tokens.clone().any(named)
    })
}

/// True for a query that has such names in its plain string literals only, as psql's own queries on the catalog have.
fn only_in_strings(text: &Text<'_>, tokens: &Range<usize>, context: &Context<'_>) -> bool {
    let query = matches!(text.word(tokens.start).as_deref(), Some("select" | "with"));
    let named = |i: usize| word(text, i).is_some_and(|w| context.catalog.needles().contains(&w));
    let quoted = |i: usize| matches!(text.token(i), Some(Token::DollarQuotedString(_)));
    query && !tokens.clone().any(|i| named(i) || quoted(i))
}

/// The name at a token that a database with a one-byte encoding takes for a sealed table's or column's: it also turns
/// letters that are not ASCII into small ones, as its locale says.
fn folded_by_locale(text: &Text<'_>, index: usize, context: &Context<'_>) -> Option<String> {
    let Token::Word(found) = text.token(index)? else { return None };
    if found.quote_style.is_some() || found.value.is_ascii() {
        return None;
    }
    let (name, small) = (ident::folded(&found.value, false), found.value.to_lowercase());
    let columns = || context.catalog.relations.iter().flat_map(|r| &r.columns).filter(|a| a.is_cell || a.is_unsealed);
    let awaited = || context.catalog.tables.iter().any(|table| table.column(&small).is_some());
    let sealed = |small: &str| needle(small, context) || columns().any(|a| a.name == small) || awaited();
    (small != name && sealed(&small)).then_some(name)
}

fn spelling(name: &str) -> Refusal {
    Refusal::new(Class::NotSupported, format!("the name {name} may mean a sealed table or column"))
        .hint("Write it in small letters, or in double quotes.")
}

/// True for the name of a relation that exposes a sealed column.
fn needle(name: &str, context: &Context<'_>) -> bool {
    context.catalog.needles().contains(name)
}

/// True when the statement names such a relation, or a schema as a whole.
fn names_schema_or_needle(text: &Text<'_>, tokens: &Range<usize>, context: &Context<'_>) -> bool {
    tokens.clone().any(|i| word(text, i).is_some_and(|w| w == "schema" || needle(&w, context)))
}

fn names_changed() -> Refusal {
    Refusal::new(
        Class::NotSupported,
        "a statement that names a sealed table cannot follow a change of tables of that name in the same text",
    )
    .hint("Send the statements one by one.")
}

fn not_alone() -> Refusal {
    Refusal::new(
        Class::NotSupported,
        "a name in a statement over sealed columns is not known before the same text is run",
    )
    .hint("Send the statements one by one.")
}

fn path_changed() -> Refusal {
    Refusal::new(
        Class::NotSupported,
        "a statement that names a sealed table cannot follow a change of search_path or role in the same text",
    )
    .hint("Send the statements one by one.")
}

/// The word at a token, folded.
fn word(text: &Text<'_>, index: usize) -> Option<String> {
    match text.token(index)? {
        Token::Word(w) => Some(ident::folded(&w.value, w.quote_style.is_some())),
        _ => None,
    }
}

fn unread(place: Unread) -> Refusal {
    let message = if place.too_complex {
        "a statement over sealed columns is too complex to be read"
    } else {
        "a statement that may touch sealed columns cannot be read"
    };
    Refusal::new(Class::NotSupported, message)
        .detail(format!("Reading stopped at line {}, column {}.", place.line, place.column))
        .hint("Write the statement in a simpler form.")
}
