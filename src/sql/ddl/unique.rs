//! UNIQUE over sealed columns: a unique index over their tokens.
use std::sync::Arc;

use super::{Definition, Target, refuse_definition};
use crate::policy::{Column, Equality, TenantRule};
use crate::refusal::Refusal;
use crate::sql::ident::quote;

/// Bytes of a name.
const NAME_MAX: usize = 63;

/// An index that stands for a UNIQUE constraint.
pub(super) struct Unique {
    /// The constraint's name, if it has one.
    pub(super) name: Option<String>,
    /// Its columns.
    pub(super) columns: Vec<String>,
    /// Those of them that are sealed.
    pub(super) sealed: Vec<Arc<Column>>,
    /// False when two NULLs are the same.
    pub(super) distinct: bool,
}

impl Unique {
    /// The statement that makes the index.
    pub(super) fn statement(&self, target: &Target, if_not_exists: bool) -> String {
        let name = self.name.clone().unwrap_or_else(|| default_name(&target.name, &self.columns));
        let part = |column: &String| match self.sealed.iter().any(|sealed| sealed.name == *column) {
            true => format!("rowseal.eq({})", quote(column)),
            false => quote(column),
        };
        let columns: Vec<String> = self.columns.iter().map(part).collect();
        let nulls = if self.distinct { "" } else { " NULLS NOT DISTINCT" };
        let may_be = if if_not_exists { "IF NOT EXISTS " } else { "" };
        format!("CREATE UNIQUE INDEX {may_be}{} ON {} ({}){nulls}", quote(&name), target.written(), columns.join(", "))
    }
}

impl Definition<'_> {
    pub(super) fn add_unique(&mut self, unique: Unique) -> Result<(), Refusal> {
        check_unique(&self.target, &unique.columns, &unique.sealed)?;
        self.unique.push(unique);
        Ok(())
    }
}

/// Refuses a sealed column that cannot be searched.
pub(super) fn check_searchable(column: &Column) -> Result<(), Refusal> {
    match column.equality {
        Some(_) => Ok(()),
        None => Err(refuse_definition(column, "in an index")
            .hint("Give the column equality = \"tenant\" or \"global\" in the policy.")),
    }
}

/// Refuses uniqueness that tokens would not keep as values do: those of different tenants are never equal.
pub(super) fn check_unique(target: &Target, columns: &[String], sealed: &[Arc<Column>]) -> Result<(), Refusal> {
    for column in sealed {
        check_searchable(column)?;
        let confined = column.equality == Some(Equality::Global)
            || match target.policy.as_ref().map(|policy| &policy.tenant) {
                Some(TenantRule::Column(tenant)) => columns.contains(tenant),
                Some(TenantRule::Fixed(_)) => true,
                Some(TenantRule::Session) | None => false,
            };
        if !confined {
            return Err(refuse_definition(column, "in a unique index without the tenant column")
                .hint("Add the tenant column to the index, or set equality = \"global\"."));
        }
    }
    Ok(())
}

/// The name that Postgres gives to a UNIQUE constraint without one.
fn default_name(table: &str, columns: &[String]) -> String {
    let (mut table, mut columns) = (table.to_owned(), columns.join("_"));
    while table.len() + columns.len() + "__key".len() > NAME_MAX {
        let longer = if table.len() > columns.len() { &mut table } else { &mut columns };
        longer.pop();
    }
    format!("{table}_{columns}_key")
}
