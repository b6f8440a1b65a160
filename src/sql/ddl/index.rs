//! CREATE INDEX.
use std::sync::Arc;

use sqlparser::tokenizer::Token;

use super::element::nulls;
use super::unique::{check_searchable, check_unique};
use super::words::Words;
use super::{Definition, Target, refuse_definition, unread};
use crate::policy::Column;
use crate::refusal::Refusal;
use crate::sql::build::Planner;
use crate::sql::plan::StatementPlan;

/// Operator classes by which a btree or hash index would compare values of the logical types, or by which an index serves
/// LIKE.
const CLASSES: &[&str] = &[
    "text",
    "varchar",
    "bpchar",
    "citext",
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "bool",
    "date",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "interval",
    "uuid",
    "jsonb",
    "bytea",
    "inet",
    "cidr",
    "array",
    "text_pattern",
    "varchar_pattern",
    "bpchar_pattern",
];

/// The name of the column that a part of an index is, and the column if it is sealed.
type Part = Result<(Option<String>, Option<Arc<Column>>), Refusal>;

/// Plans what follows CREATE [UNIQUE] INDEX; `None` when it cannot be read and is on no table of the policy.
pub(super) fn plan(
    planner: Planner<'_>,
    mut words: Words<'_, '_>,
    unique: bool,
) -> Result<Option<StatementPlan>, Refusal> {
    let _ = words.eat(&["concurrently"]);
    let _ = words.eat(&["if", "not", "exists"]);
    if !words.peek(&["on"]) && words.qualified().is_none() {
        return Ok(None);
    }
    if !words.eat(&["on"]) {
        return Ok(None);
    }
    let _ = words.eat(&["only"]);
    let Some(parts) = words.qualified() else { return Ok(None) };
    let Some(target) = Target::existing(planner.context, &parts) else {
        // An index is made of its own table's columns alone.
        if words.has_query() {
            return Ok(None);
        }
        return Ok(Some(StatementPlan { range: planner.bytes(), ..StatementPlan::default() }));
    };
    let mut definition = Definition::new(planner, target);
    let method = if words.eat(&["using"]) { words.name() } else { Some("btree".to_owned()) };
    let method = method.ok_or_else(|| unread(&words))?;
    let list = words.group().ok_or_else(|| unread(&words))?;
    let (mut columns, mut sealed) = (Vec::new(), Vec::new());
    for part in list.listed() {
        let (name, column) = definition.index_part(part)?;
        columns.extend(name);
        sealed.extend(column);
    }
    if let Some(column) = sealed.first().filter(|_| !matches!(method.as_str(), "btree" | "hash")) {
        return Err(refuse_definition(column, "in an index of this kind").hint("Use btree or hash."));
    }
    if unique {
        check_unique(&definition.target, &columns, &sealed)?;
    }
    definition.index_tail(words)?;
    definition.finish()
}

impl Definition<'_> {
    /// The sealed column whose token a part of an index is already: `rowseal.eq(column)`, also as Postgres prints it.
    fn token_of(&self, words: &mut Words<'_, '_>) -> Result<Option<Arc<Column>>, Refusal> {
        let mut rest = words.clone();
        if rest.qualified().is_none_or(|parts| parts != ["rowseal", "eq"]) {
            return Ok(None);
        }
        let Some(mut inside) = rest.group() else { return Ok(None) };
        if let Some(column) = inside.group() {
            let cast = inside.eat_token(&Token::DoubleColon) && inside.eat(&["bytea"]) && inside.is_done();
            if !cast {
                return Ok(None);
            }
            inside = column;
        }
        let name = inside.name().filter(|_| inside.is_done());
        let column = name.map(|name| self.column(&name)).transpose()?.flatten();
        if column.is_some() {
            *words = rest;
        }
        Ok(column)
    }

    /// One part of an index: the name of its column, if it is one, and the column if it is sealed.
    fn index_part(&mut self, mut words: Words<'_, '_>) -> Part {
        let part = words.clone();
        if let Some(column) = self.token_of(&mut words)? {
            return self.index_order(&column, words);
        }
        let Some(name) = words.name() else {
            return self.check_plain(&part, "in an expression of an index").map(|()| (None, None));
        };
        let Some(column) = self.column(&name)? else {
            let is_call = words.clone().group().is_some() || words.peek_token(&Token::Period);
            return self
                .check_plain(&words, "in an expression of an index")
                .map(|()| ((!is_call).then_some(name), None));
        };
        check_searchable(&column)?;
        let Some(range) = part.within(part.at..words.at).bytes() else { return Err(unread(&part)) };
        self.planner.wrap(&range, "rowseal.eq(", ")");
        let order = ["asc", "desc", "nulls"];
        if !words.is_done() && !order.iter().any(|word| words.peek(&[word])) {
            self.operator_class(&column, &mut words)?;
        }
        self.index_order(&column, words)
    }

    /// What is left of a part of an index on a sealed column.
    fn index_order(&self, column: &Arc<Column>, mut words: Words<'_, '_>) -> Part {
        let _ = words.eat(&["asc"]) || words.eat(&["desc"]);
        let _ = words.eat(&["nulls", "first"]) || words.eat(&["nulls", "last"]);
        match words.is_done() {
            true => Ok((Some(column.name.clone()), Some(column.clone()))),
            false => Err(refuse_definition(column, "in this index")),
        }
    }

    /// Takes an operator class for values; tokens have their own.
    fn operator_class(&mut self, column: &Column, words: &mut Words<'_, '_>) -> Result<(), Refusal> {
        let from = words.at;
        let class = words.qualified().and_then(|mut parts| parts.pop()).unwrap_or_default();
        let known = class.strip_suffix("_ops").is_some_and(|class| CLASSES.contains(&class));
        if !known || words.group().is_some() {
            return Err(refuse_definition(column, "with this operator class").hint("Leave the operator class out."));
        }
        self.cut(from..words.at);
        if class.ends_with("_pattern_ops") {
            self.notify(format!("the index on sealed column {} serves = only, not LIKE", column.qualified));
        }
        Ok(())
    }

    /// What may stand behind the list of an index.
    fn index_tail(&self, mut words: Words<'_, '_>) -> Result<(), Refusal> {
        while !words.is_done() {
            let from = words.at;
            if words.eat(&["include"]) {
                let columns = words.group().ok_or_else(|| unread(&words))?;
                self.check_plain(&columns, "in INCLUDE of an index")?;
            } else if words.eat(&["with"]) {
                words.group().ok_or_else(|| unread(&words))?;
            } else if words.eat(&["tablespace"]) {
                words.name().ok_or_else(|| unread(&words))?;
            } else if words.eat(&["where"]) {
                return self.predicate(words);
            } else {
                nulls(&mut words);
            }
            if words.at == from {
                return Err(unread(&words));
            }
        }
        Ok(())
    }

    /// The condition of a partial index: of a sealed column it may ask only whether it is NULL.
    fn predicate(&self, words: Words<'_, '_>) -> Result<(), Refusal> {
        let mut rest = words;
        while !rest.is_done() {
            let tested = rest.is_at_operand().then(|| rest.clone()).and_then(|mut operand| {
                let name = operand.qualified()?.pop()?;
                let is = operand.eat(&["is", "null"]) || operand.eat(&["is", "not", "null"]);
                let ends = operand.is_done() || operand.is_at_end_of_operand();
                (is && ends).then_some((name, operand.at))
            });
            match tested {
                Some((name, behind)) if self.column(&name)?.is_some() => rest.at = behind,
                _ => {
                    self.check_plain(&rest.within(rest.at..rest.at + 1), "in the condition of an index")?;
                    rest.at += 1;
                }
            }
        }
        Ok(())
    }
}
