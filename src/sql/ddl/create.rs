//! CREATE TABLE.
use super::element::Fate;
use super::words::Words;
use super::{Definition, Target, unread};
use crate::refusal::Refusal;
use crate::sql::Context;
use crate::sql::build::Planner;
use crate::sql::plan::StatementPlan;

/// Plans what follows CREATE TABLE; `None` when the table is none of the policy.
pub(super) fn plan(planner: Planner<'_>, mut words: Words<'_, '_>) -> Result<Option<StatementPlan>, Refusal> {
    let if_not_exists = words.eat(&["if", "not", "exists"]);
    let Some(parts) = words.qualified() else { return Ok(None) };
    let Some(target) = Target::created(planner.context, &parts) else { return partition(planner, words) };
    let exists = planner.context.catalog.by_name.contains_key(&(target.schema.clone(), target.name.clone()));
    let mut definition = Definition { if_not_exists, ..Definition::new(planner, target) };
    let Some(list) = words.group() else {
        return Err(definition.target.refuse("this form of CREATE TABLE"));
    };
    let elements = list.listed();
    let fates = elements.iter().map(|element| definition.element(element.clone()));
    let fates: Vec<Fate> = fates.collect::<Result<_, _>>()?;
    definition.leave_out(&elements, &fates);
    definition.tail(words)?;
    if if_not_exists && exists {
        // It is not made.
        definition.is_skipped = true;
        (definition.external, definition.unique, definition.notice) = (vec![], vec![], None);
    } else if let Some(storage) = definition.storage() {
        definition.then.push(format!("ALTER TABLE {} {storage}", definition.target.written()));
    }
    definition.is_reshaped = true;
    definition.finish()
}

/// A partition of a sealed table, without a list of columns, has the columns of its parent.
fn partition(planner: Planner<'_>, mut words: Words<'_, '_>) -> Result<Option<StatementPlan>, Refusal> {
    if !words.eat(&["partition", "of"]) {
        return Ok(None);
    }
    let parent = words.qualified().and_then(|parts| Target::existing(planner.context, &parts));
    let bound = words.peek(&["for", "values"]) || words.peek(&["default"]);
    match parent.filter(|parent| parent.policy.is_some() && bound) {
        Some(parent) => {
            parent.check_plain(&words, planner.context, "in the bounds of a partition")?;
            Definition { is_reshaped: true, ..Definition::new(planner, parent) }.finish()
        }
        None => Ok(None),
    }
}

/// A foreign table in the place of one of the policy would take its values in clear text.
pub(super) fn foreign(context: &Context<'_>, mut words: Words<'_, '_>) -> Result<(), Refusal> {
    let _ = words.eat(&["if", "not", "exists"]);
    let target = words.qualified().and_then(|parts| Target::created(context, &parts));
    target.map_or(Ok(()), |target| Err(target.refuse("CREATE FOREIGN TABLE")))
}

impl Definition<'_> {
    /// What may stand behind the list of columns, and in front of nothing else.
    fn tail(&self, mut words: Words<'_, '_>) -> Result<(), Refusal> {
        while !words.is_done() {
            if words.eat(&["partition", "by"]) {
                words.name().ok_or_else(|| unread(&words))?;
                let key = words.group().ok_or_else(|| unread(&words))?;
                self.check_plain(&key, "in a partition key")?;
            } else if words.eat(&["with"]) {
                words.group().ok_or_else(|| unread(&words))?;
            } else if words.eat(&["using"]) || words.eat(&["tablespace"]) {
                words.name().ok_or_else(|| unread(&words))?;
            } else if !words.eat(&["without", "oids"]) {
                return Err(self.target.refuse("this form of CREATE TABLE"));
            }
        }
        Ok(())
    }
}
