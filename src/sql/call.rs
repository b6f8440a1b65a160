//! Calls of functions that give cells: rows of a sealed table are read as the table's own, with less that is sure of them;
//! other cells are refused, for nobody knows what column they are of.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{ObjectName, TableAlias};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::built::whole_row;
use super::expr::unsupported;
use super::from::set_alias;
use super::ident::parts;
use super::scope::{Scope, ScopeColumn, ScopeRelation};
use super::sealed::Ty;
use super::text::Text;
use super::{Context, word};
use crate::catalog::{Gives, Relation};
use crate::refusal::{Class, Refusal};

/// What a statement may do that names a function and does not call it, by its first word.
const DEFINING: &[&str] = &["create", "alter", "drop", "comment", "grant", "revoke", "do", "security"];

/// True when the statement calls a function that gives cells.
pub(super) fn calls(text: &Text<'_>, tokens: &Range<usize>, context: &Context<'_>) -> bool {
    !defines(text, tokens) && tokens.clone().any(|at| called_at(text, tokens, at, context).is_some())
}

/// The table whose rows a call in the statement gives; where that is not known, what stands for the function in messages.
pub(super) fn called(text: &Text<'_>, tokens: &Range<usize>, context: &Context<'_>) -> Option<Arc<Relation>> {
    if defines(text, tokens) {
        return None;
    }
    tokens.clone().find_map(|at| match called_at(text, tokens, at, context)? {
        Gives::Rows(relation) => Some(relation),
        Gives::Unclear => Some(Arc::new(stand_in(word(text, at)?))),
    })
}

/// Not what is made of a query's rows: that runs the query, or keeps it for those who read.
fn defines(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    const BEFORE: &[&str] =
        &["create", "or", "replace", "global", "local", "temp", "temporary", "unlogged", "materialized"];
    let word = |at: &usize| text.word(*at);
    let defines = word(&tokens.start).is_some_and(|word| DEFINING.contains(&&*word));
    let made = tokens.clone().find(|at| !word(at).is_some_and(|word| BEFORE.contains(&&*word)));
    defines && !made.and_then(|at| word(&at)).is_some_and(|word| matches!(&*word, "table" | "view"))
}

/// What the call gives whose name stands at a token.
fn called_at(text: &Text<'_>, tokens: &Range<usize>, at: usize, context: &Context<'_>) -> Option<Gives> {
    let is_call = at + 1 < tokens.end && text.token(at + 1) == Some(&Token::LParen);
    let name = word(text, at).filter(|_| is_call)?;
    let dotted = at >= tokens.start + 2 && text.token(at - 1) == Some(&Token::Period);
    let schema = if dotted { word(text, at - 2) } else { None };
    context.catalog.call(context.search_path, schema.as_deref(), &name)
}

fn stand_in(name: String) -> Relation {
    Relation {
        oid: 0,
        schema: "function".into(),
        name,
        kind: 'c',
        columns: Vec::new(),
        primary_key: Vec::new(),
        unique_indexes: Vec::new(),
        policy: None,
        definition: None,
    }
}

impl Planner<'_> {
    /// Adds a function in FROM, whose arguments have been walked, to the scope.
    pub(super) fn add_call(
        &mut self,
        name: &ObjectName,
        (with_ordinality, alias): (bool, Option<&TableAlias>),
        scope: &mut Scope<'_>,
    ) -> Result<(), Refusal> {
        let name = parts(name).ok_or_else(|| unsupported("this function call"))?;
        let Some(mut relation) = self.rows_of_call(&name)? else { return self.add_opaque(alias, scope) };
        if with_ordinality {
            relation.columns.push(ScopeColumn::plain(Some("ordinality".into())));
            // A row with a number is of no table's type any more, and its fields have the names that the alias gives.
            relation.base = None;
        }
        set_alias(&mut relation, alias)?;
        scope.add(relation);
        Ok(())
    }

    /// What a call gives as a value; `None` when that is nothing sealed.
    pub(super) fn value_of_call(&mut self, name: &[String]) -> Result<Option<Ty>, Refusal> {
        self.rows_of_call(name)?.as_ref().map(whole_row).transpose()
    }

    /// The rows that a call gives, if they are of a sealed table. The function may have made them of anything: they have no
    /// key, and the server does not tell that they are the table's.
    fn rows_of_call(&mut self, name: &[String]) -> Result<Option<ScopeRelation>, Refusal> {
        let (schema, bare) = match name {
            [name] => (None, name),
            [.., schema, name] => (Some(schema.as_str()), name),
            [] => return Ok(None),
        };
        let catalog = self.context.catalog;
        let table = match catalog.call(self.context.search_path, schema, bare) {
            None => return Ok(None),
            Some(Gives::Unclear) => return Err(unclear(bare)),
            Some(Gives::Rows(table)) => table,
        };
        let (primary_key, unique_indexes) = (Vec::new(), Vec::new());
        let made = Relation { kind: 'c', primary_key, unique_indexes, definition: None, ..(*table).clone() };
        let row = self.row();
        let mut relation = ScopeRelation::table(&Arc::new(made), catalog, Some(bare.clone()), row);
        for column in &mut relation.columns {
            if let Ty::Sealed(sealed) = &mut column.ty {
                sealed.is_stray = true;
            }
        }
        Ok(Some(relation))
    }
}

/// A field of a value that a call gives.
pub(super) fn field_of_call() -> Refusal {
    Refusal::new(Class::NotSupported, "a field of the row that a function gives is not supported for a sealed table")
        .hint("Write SELECT column FROM function(...).")
}

/// The refusal of ROWS FROM, where a statement that cannot be read has it.
pub(super) fn rows_from(text: &Text<'_>, tokens: &Range<usize>) -> Option<Refusal> {
    let is_it = |at: usize| {
        let words = text.word(at).as_deref() == Some("rows") && text.word(at + 1).as_deref() == Some("from");
        words && text.token(at + 2) == Some(&Token::LParen)
    };
    tokens.clone().any(is_it).then(|| {
        Refusal::new(Class::NotSupported, "ROWS FROM is not supported in a statement over sealed columns")
            .hint("Call each function in a FROM item of its own, WITH ORDINALITY to join their rows by number.")
    })
}

fn unclear(name: &str) -> Refusal {
    Refusal::new(
        Class::NotSupported,
        format!("function {name} gives sealed values of which it is not known what column they are of"),
    )
    .hint("Let it return rows of their table (RETURNS SETOF table), all functions of this name alike, and write SELECT column FROM function(...).")
}
