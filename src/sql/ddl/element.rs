//! The elements of a table: definitions of columns, and constraints.
use std::sync::Arc;

use sqlparser::tokenizer::Token;

use super::unique::Unique;
use super::words::{Words, Written, whole};
use super::{Definition, refuse_definition, unread};
use crate::policy::Column;
use crate::refusal::{Class, Refusal};
use crate::sql::plan::{Edit, Piece};
use crate::types::LogicalType;

/// What becomes of an element.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    Goes,
}

impl Definition<'_> {
    /// An element of CREATE TABLE, or what ADD adds.
    pub(super) fn element(&mut self, mut words: Words<'_, '_>) -> Result<Fate, Refusal> {
        if words.peek(&["like"]) {
            return Err(self.target.refuse("LIKE"));
        }
        if is_constraint(&words) {
            return self.constraint(words);
        }
        let name = words.name().ok_or_else(|| unread(&words))?;
        match self.column(&name)? {
            Some(column) => self.sealed_column(&column, words)?,
            None => self.plain_column(words)?,
        }
        self.is_reshaped = true;
        Ok(Fate::Stays)
    }

    /// A column that is not sealed: its expressions must not look at those that are.
    fn plain_column(&mut self, mut words: Words<'_, '_>) -> Result<(), Refusal> {
        while !words.is_done() {
            if words.eat(&["references"]) {
                words.qualified().ok_or_else(|| unread(&words))?;
                let _ = words.group();
                continue;
            }
            if words.eat(&["as", "identity"]) {
                // Options of its sequence.
                let _ = words.group();
                continue;
            }
            let before = words.clone();
            match words.group() {
                Some(inside) => self.check_plain(&inside, "in an expression of another column")?,
                None => words.at = before.at + 1,
            }
        }
        Ok(())
    }

    fn sealed_column(&mut self, column: &Arc<Column>, mut words: Words<'_, '_>) -> Result<(), Refusal> {
        let written = words.type_tokens();
        self.take_type(column, &written)?;
        let mut external = true;
        while !words.is_done() {
            external &= self.option(column, &mut words)?;
        }
        if external {
            self.external.push(column.name.clone());
        }
        Ok(())
    }

    /// Puts the domain in the place of the type, which must be the policy's.
    pub(super) fn take_type(&mut self, column: &Column, written: &Words<'_, '_>) -> Result<(), Refusal> {
        let Some(range) = written.bytes() else { return Err(unread(written)) };
        let domain = column.logical.domain();
        match written.read_type() {
            Written::Domain(own) if own == domain => {}
            Written::Logical(logical) if logical == whole(column.logical) => {
                self.planner.edit(range, format!("rowseal.{domain}"));
            }
            Written::Logical(logical) if differs_in_length(logical, column.logical) => {
                self.planner.edit(range, format!("rowseal.{domain}"));
                self.notify(length_of_policy(column));
            }
            Written::Domain(_) | Written::Logical(_) | Written::Other => return Err(wrong_type(column)),
        }
        Ok(())
    }

    /// One option of a sealed column; false when it says how the column is stored.
    fn option(&mut self, column: &Arc<Column>, words: &mut Words<'_, '_>) -> Result<bool, Refusal> {
        let from = words.at;
        let name = constraint_name(words)?;
        if words.eat(&["not", "null"]) {
            let _ = words.eat(&["no", "inherit"]);
        } else if words.eat(&["null"]) {
        } else if words.eat(&["unique"]) {
            let distinct = nulls(words);
            immediate(column, words)?;
            self.cut(from..words.at);
            let columns = vec![column.name.clone()];
            self.add_unique(Unique { name, columns, sealed: vec![column.clone()], distinct })?;
        } else if words.eat(&["default", "null"]) {
            if words.eat_token(&Token::DoubleColon) && words.type_tokens().read_type() == Written::Other {
                return Err(refuse_default(column));
            }
            self.cut(from..words.at);
        } else if words.peek(&["default"]) {
            return Err(refuse_default(column));
        } else if words.eat(&["storage"]) {
            words.name().ok_or_else(|| unread(words))?;
            return Ok(false);
        } else if words.eat(&["compression"]) {
            words.name().ok_or_else(|| unread(words))?;
        } else {
            return Err(refuse_option(column, words));
        }
        Ok(true)
    }

    /// A constraint of the table.
    pub(super) fn constraint(&mut self, mut words: Words<'_, '_>) -> Result<Fate, Refusal> {
        let tokens = words.rest();
        let name = constraint_name(&mut words)?;
        if words.eat(&["unique"]) {
            return self.unique_constraint(name, words);
        }
        if words.eat(&["primary", "key"]) {
            if words.eat(&["using", "index"]) {
                return Ok(Fate::Stays);
            }
            let columns = words.group().ok_or_else(|| unread(&words))?;
            self.check_plain(&columns, "in a primary key")?;
            return self.check_plain(&words, "in a primary key").map(|()| Fate::Stays);
        }
        if words.eat(&["foreign", "key"]) {
            let columns = words.group().ok_or_else(|| unread(&words))?;
            return self.check_plain(&columns, "in a foreign key").map(|()| Fate::Stays);
        }
        if words.peek(&["check"]) || words.peek(&["exclude"]) {
            let place = if words.peek(&["check"]) { "in a CHECK constraint" } else { "in an EXCLUDE constraint" };
            return self.check_plain(&words, place).map(|()| Fate::Stays);
        }
        match words.eat(&["not", "null"]) {
            true => Ok(Fate::Stays),
            false => Err(unread(&words.within(tokens))),
        }
    }

    fn unique_constraint(&mut self, name: Option<String>, mut words: Words<'_, '_>) -> Result<Fate, Refusal> {
        if words.eat(&["using", "index"]) {
            return Ok(Fate::Stays);
        }
        let distinct = nulls(&mut words);
        let list = words.group().ok_or_else(|| unread(&words))?;
        let (mut columns, mut sealed) = (Vec::new(), Vec::new());
        for mut part in list.clone().listed() {
            let column = part.name().ok_or_else(|| unread(&part))?;
            sealed.extend(self.column(&column)?);
            columns.push(column);
            if !part.is_done() && !sealed.is_empty() {
                return Err(unread(&part));
            }
        }
        let Some(first) = sealed.first() else {
            return self.check_plain(&words, "in a constraint").map(|()| Fate::Stays);
        };
        immediate(first, &mut words)?;
        if !words.is_done() {
            return Err(refuse_definition(first, "in a UNIQUE constraint with these options"));
        }
        self.add_unique(Unique { name, columns, sealed, distinct })?;
        Ok(Fate::Goes)
    }

    /// Takes the elements out that go, each with one comma.
    pub(super) fn leave_out(&mut self, elements: &[Words<'_, '_>], fates: &[Fate]) {
        let mut stays_before = false;
        for (at, (element, fate)) in elements.iter().zip(fates).enumerate() {
            let Some(own) = element.bytes().filter(|_| *fate == Fate::Goes) else {
                stays_before = true;
                continue;
            };
            let before = at.checked_sub(1).and_then(|before| elements[before].bytes());
            let after = elements.get(at + 1).and_then(Words::bytes);
            let range = match (before.filter(|_| stays_before), after) {
                (Some(before), _) => before.end..own.end,
                (None, Some(after)) => own.start..after.start,
                (None, None) => own,
            };
            self.planner.edits.push(Edit { range, with: Vec::<Piece>::new() });
        }
    }
}

fn is_constraint(words: &Words<'_, '_>) -> bool {
    const STARTS: &[&[&str]] = &[
        &["constraint"],
        &["unique"],
        &["primary", "key"],
        &["foreign", "key"],
        &["check"],
        &["exclude", "using"],
        &["not", "null"],
    ];
    let exclude = || {
        let mut words = words.clone();
        words.eat(&["exclude"]) && words.group().is_some()
    };
    STARTS.iter().any(|start| words.peek(start)) || exclude()
}

/// Takes CONSTRAINT and a name.
fn constraint_name(words: &mut Words<'_, '_>) -> Result<Option<String>, Refusal> {
    match words.eat(&["constraint"]) {
        true => words.name().map(Some).ok_or_else(|| unread(words)),
        false => Ok(None),
    }
}

/// Takes NULLS [NOT] DISTINCT; true when two NULLs are not the same.
pub(super) fn nulls(words: &mut Words<'_, '_>) -> bool {
    let same = words.eat(&["nulls", "not", "distinct"]);
    let _ = same || words.eat(&["nulls", "distinct"]);
    !same
}

/// Takes what says that a constraint is checked at once; refuses one that is checked later.
fn immediate(column: &Column, words: &mut Words<'_, '_>) -> Result<(), Refusal> {
    while words.eat(&["not", "deferrable"]) || words.eat(&["initially", "immediate"]) {}
    match words.peek(&["deferrable"]) || words.peek(&["initially"]) {
        true => Err(refuse_definition(column, "in a deferrable constraint")
            .hint("Leave DEFERRABLE out: uniqueness of sealed values is kept by an index, which checks at once.")),
        false => Ok(()),
    }
}

pub(super) fn refuse_default(column: &Column) -> Refusal {
    refuse_definition(column, "with a DEFAULT")
        .hint("Let the application give the value; for rows that exist, add the column without NOT NULL and UPDATE it.")
}

fn refuse_option(column: &Column, words: &Words<'_, '_>) -> Refusal {
    let what = match words.name_at(words.at).as_deref() {
        Some("primary") => "as a primary key",
        Some("check") => "with a CHECK constraint",
        Some("references") => "as a foreign key",
        Some("generated") => "as a generated column",
        Some("collate") => "with a COLLATE clause",
        Some("deferrable" | "initially") => "in a deferrable constraint",
        _ => "with this option",
    };
    refuse_definition(column, what)
}

/// True for a type that is the policy's but for its length or precision, which the policy's then takes the place of.
pub(super) fn differs_in_length(written: LogicalType, policy: LogicalType) -> bool {
    let has_length =
        |ty: LogicalType| matches!(ty, LogicalType::Varchar(_) | LogicalType::Bpchar(_) | LogicalType::Numeric(_));
    written != whole(policy) && has_length(written) && written.without_modifier() == policy.without_modifier()
}

pub(super) fn length_of_policy(column: &Column) -> String {
    format!("sealed column {} is of type {}, as the policy says", column.qualified, column.logical)
}

/// The refusal of a type that is not the policy's.
pub(super) fn wrong_type(column: &Column) -> Refusal {
    Refusal::new(
        Class::WrongType,
        format!("column {} has another type here than in the policy, which says {}", column.qualified, column.logical),
    )
    .hint("Give the column the type of its policy entry, or change the entry first.")
}
