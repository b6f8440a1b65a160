//! Statements on a table of the policy that does not exist: which table Postgres would not find.
use sqlparser::ast::{
    FromTable, ObjectName, SetExpr, Statement, TableFactor, TableObject, TableWithJoins, UpdateTableFromKind,
};

use super::Context;
use super::ident::parts;
use super::text::Text;

/// The name, as Postgres writes it, of a table of the policy that the statement cannot do without and that does not exist
/// in this snapshot; `None` when unsure. Only for a text of one statement, which cannot make the table itself.
pub fn missing_table(text: &str, context: &Context<'_>) -> Option<String> {
    let read = Text::read(text).ok()?;
    let statements = read.statements();
    let [tokens] = &statements[..] else { return None };
    let statement = read.parse(tokens).ok()?;
    let names = used(&statement)?;
    names.into_iter().find_map(|name| absent(name, context))
}

/// The tables that a plain statement names first; those behind a WITH may be its own.
fn used(statement: &Statement) -> Option<Vec<&ObjectName>> {
    let mut names = Vec::new();
    match statement {
        Statement::Query(query) if query.with.is_none() => {
            let SetExpr::Select(select) = &*query.body else { return None };
            select.from.iter().for_each(|table| of_tables(table, &mut names));
        }
        Statement::Insert(insert) => match &insert.table {
            TableObject::TableName(name) => names.push(name),
            _ => return None,
        },
        Statement::Update(update) => {
            of_tables(&update.table, &mut names);
            if let Some(UpdateTableFromKind::AfterSet(from)) = &update.from {
                from.iter().for_each(|table| of_tables(table, &mut names));
            }
        }
        Statement::Delete(delete) => {
            let FromTable::WithFromKeyword(tables) = &delete.from else { return None };
            tables.iter().chain(delete.using.iter().flatten()).for_each(|table| of_tables(table, &mut names));
        }
        _ => return None,
    }
    Some(names)
}

fn of_tables<'s>(table: &'s TableWithJoins, names: &mut Vec<&'s ObjectName>) {
    let factors = std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation));
    for factor in factors {
        if let TableFactor::Table { name, args: None, .. } = factor {
            names.push(name);
        }
    }
}

fn absent(name: &ObjectName, context: &Context<'_>) -> Option<String> {
    let named = parts(name)?;
    let (schema, table) = match named.as_slice() {
        [table] => (None, table),
        // Of a schema that is on the path it is sure that it exists.
        [schema, table] if context.search_path.contains(schema) => (Some(schema.as_str()), table),
        _ => return None,
    };
    let catalog = context.catalog;
    let missing = catalog.missing.contains(table) && catalog.resolve(context.search_path, schema, table).is_none();
    missing.then(|| named.join("."))
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::*;

    fn found(text: &str) -> Option<String> {
        let mut catalog = super::super::cases::catalog();
        catalog.missing = vec!["later".to_owned(), "users".to_owned()];
        let path = ["public".to_owned()];
        missing_table(
            text,
            &Context { catalog: &catalog, search_path: &path, protocol: Protocol::Simple, declared: &[] },
        )
    }

    #[test]
    fn a_table_is_missing_only_where_it_is_sure() {
        for (text, name) in [
            ("SELECT 1 FROM later WHERE x = 'a'", Some("later")),
            ("SELECT 1 FROM orders o JOIN public.later l ON l.x = 'a'", Some("public.later")),
            ("INSERT INTO later VALUES ('a')", Some("later")),
            ("UPDATE later SET x = 'a'", Some("later")),
            ("DELETE FROM later WHERE x = 'a'", Some("later")),
            ("WITH later AS (SELECT 1) SELECT 'a' FROM later", None),
            ("SELECT 'a' FROM other.later", None),
            ("SELECT 'a' FROM users", None),
            ("CREATE TABLE later (x text); INSERT INTO later VALUES ('a')", None),
            ("SELECT 'a' FROM (SELECT 1 FROM later) x", None),
            ("SELECT 'a' FROM later('a')", None),
        ] {
            assert_eq!(found(text).as_deref(), name, "{text}");
        }
    }
}
