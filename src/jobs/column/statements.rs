//! All SQL that changes something, as text: what a dry run shows is what is run.
use super::look::{Found, Target, own};
use super::{Direction, Job};
use crate::sql::ident::quote;

/// The trigger sorts behind those of others, so that it sees rows as they are stored.
pub(super) fn trigger_name(found: &Found) -> String {
    format!("~{}", own(found, "mark"))
}

fn function_name(found: &Found) -> String {
    format!("rowseal.{}", own(found, "mark"))
}

/// Every statement of the work, in order.
pub(super) fn all(job: &Job<'_>, target: &Target) -> Vec<String> {
    let mut all = prepare(job, target);
    all.push(format!("{} -- in batches of {}", read_by_key(job, target, true), job.options.batch));
    all.push(format!("{} -- for each batch", store(job, target)));
    all.push(index_of_rest(target));
    all.extend(target.indexes.iter().filter_map(|index| index.remade.as_ref()).map(|(_, statement)| statement.clone()));
    all.push(format!("{} -- until there are none", read_rest(job, target)));
    all.push(announce(&target.found));
    all.push("BEGIN".to_owned());
    all.push(lock(target));
    all.extend(switch(job, target));
    all.push("COMMIT".to_owned());
    if target.found.is_not_null {
        all.extend(not_null(&target.found));
        all.push(drop_check(&target.found));
    }
    all.push(analyze(&target.found));
    all
}

/// The shadow, and the trigger that empties it; in one transaction.
///
/// A column whose type has a constraint would be made by writing the table anew, under a lock. So the domain is without
/// its constraint for the moment; other sessions never see it so. New values are checked as before; NOT VALID says only
/// that old ones, of which the new column has none, were not looked at again.
pub(super) fn prepare(job: &Job<'_>, target: &Target) -> Vec<String> {
    let (found, ty) = (&target.found, &target.shadow_type);
    let (table, shadow) = (&found.table, quote(&found.shadow));
    let mut all = Vec::new();
    match job.direction {
        Direction::Seal => all.extend([
            format!("ALTER DOMAIN {ty} DROP CONSTRAINT is_cell"),
            format!("ALTER TABLE {table} ADD COLUMN {shadow} {ty}, ALTER COLUMN {shadow} SET STORAGE EXTERNAL"),
            format!("ALTER DOMAIN {ty} ADD CONSTRAINT is_cell CHECK (rowseal.is_cell(value)) NOT VALID"),
        ]),
        Direction::Unseal => all.push(format!("ALTER TABLE {table} ADD COLUMN {shadow} {ty}")),
    }
    let (function, trigger) = (function_name(found), quote(&trigger_name(found)));
    all.extend([
        mark(target),
        format!("REVOKE ALL ON FUNCTION {function}() FROM PUBLIC"),
        format!(
            "CREATE TRIGGER {trigger} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
        ),
        format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"),
    ]);
    all
}

/// The trigger's function. Values are compared by their bytes: two that are equal may yet differ, as 1.0 and 1.00 do.
fn mark(target: &Target) -> String {
    let found = &target.found;
    let (column, shadow) = (quote(&found.column), quote(&found.shadow));
    let mut parts = vec![column];
    parts.extend(target.tenant_column.clone());
    let row = |of: &str| parts.iter().map(|part| format!("{of}.{part}")).collect::<Vec<_>>().join(", ");
    format!(
        "CREATE FUNCTION {}() RETURNS pg_catalog.trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.{shadow} := NULL;
    ELSIF ROW({})::record *<> ROW({})::record THEN
        NEW.{shadow} := NULL;
    END IF;
    RETURN NEW;
END
$body$",
        function_name(found),
        row("NEW"),
        row("OLD")
    )
}

/// True of a row that is still to be done, in a table called `t`.
fn to_do(found: &Found) -> String {
    format!("({} IS NULL) <> ({} IS NULL)", quote(&found.column), quote(&found.shadow))
}

/// What is read of a row: where it stands, which version it is, its tenant, its value, its key.
fn columns(job: &Job<'_>, target: &Target) -> String {
    let value = match job.direction {
        Direction::Seal => format!("t.{}", quote(&target.found.column)),
        Direction::Unseal => format!("t.{}::bytea", quote(&target.found.column)),
    };
    let key: Vec<String> = target.key.iter().map(|part| format!("t.{}::text", part.name)).collect();
    format!("t.ctid::text, t.xmin::text, {}, {value}, {}", target.tenant, key.join(", "))
}

/// The next rows behind a key, which has one parameter for each of its columns; from the start without one.
pub(super) fn read_by_key(job: &Job<'_>, target: &Target, goes_on: bool) -> String {
    let found = &target.found;
    let names: Vec<String> = target.key.iter().map(|part| format!("t.{}", part.name)).collect();
    let names = names.join(", ");
    let behind = if goes_on {
        let values = target.key.iter().enumerate().map(|(at, part)| format!("${}::text::{}", at + 1, part.declared));
        format!(" AND ({names}) > ({})", values.collect::<Vec<_>>().join(", "))
    } else {
        String::new()
    };
    format!(
        "SELECT {} FROM ONLY {} t WHERE {}{behind} ORDER BY {names} LIMIT {}",
        columns(job, target),
        found.table,
        to_do(found),
        job.options.batch
    )
}

/// Rows that are still to be done and that nobody holds, in no order, by the index that holds just those.
pub(super) fn read_rest(job: &Job<'_>, target: &Target) -> String {
    let found = &target.found;
    format!(
        "SELECT {} FROM ONLY {} t WHERE {} LIMIT {} FOR NO KEY UPDATE OF t SKIP LOCKED",
        columns(job, target),
        found.table,
        to_do(found),
        job.options.batch
    )
}

/// How many rows are still to be done.
pub(super) fn count_rest(found: &Found) -> String {
    format!("SELECT count(*) FROM ONLY {} t WHERE {}", found.table, to_do(found))
}

/// Stores the shadows of rows that are still what they were when they were read. Rows that others hold are left for
/// later, so that nobody waits for more than one row, and there is no deadlock.
pub(super) fn store(job: &Job<'_>, target: &Target) -> String {
    let (table, shadow) = (&target.found.table, quote(&target.found.shadow));
    let (given, cast) = match job.direction {
        Direction::Seal => ("bytea", String::new()),
        Direction::Unseal => ("text", format!("::{}", target.shadow_type)),
    };
    format!(
        "WITH held AS MATERIALIZED (SELECT t.ctid AS at, b.value FROM unnest($1::text[]::tid[], $2::text[]::xid[], $3::{given}[]) \
         AS b (at, version, value) JOIN ONLY {table} t ON t.ctid = b.at AND t.xmin = b.version \
         FOR NO KEY UPDATE OF t SKIP LOCKED) \
         UPDATE ONLY {table} t SET {shadow} = held.value{cast} FROM held WHERE t.ctid = held.at"
    )
}

/// The index that holds just the rows that are still to be done.
pub(super) fn index_of_rest(target: &Target) -> String {
    let key: Vec<&str> = target.key.iter().map(|part| part.name.as_str()).collect();
    let (name, found) = (target.own("todo"), &target.found);
    format!("CREATE INDEX CONCURRENTLY {name} ON {} ({}) WHERE {}", found.table, key.join(", "), to_do(found))
}

/// Tells the proxies, which read the catalogs all the time, that the switch is imminent: statements on the table wait for it
/// there instead of at the server, where they would be read as the column was before.
pub(super) fn announce(found: &Found) -> String {
    format!("ALTER TABLE {} ALTER COLUMN {} SET (n_distinct = -1)", found.table, quote(&found.shadow))
}

/// Takes the announcement back.
pub(super) fn recall(found: &Found) -> String {
    format!("ALTER TABLE {} ALTER COLUMN {} RESET (n_distinct)", found.table, quote(&found.shadow))
}

/// Nobody else reads or writes the table until the switch is committed.
pub(super) fn lock(target: &Target) -> String {
    format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", target.found.table)
}

/// Puts the shadow in the column's place. Only the catalogs change, so it takes no time.
pub(super) fn switch(job: &Job<'_>, target: &Target) -> Vec<String> {
    let found = &target.found;
    let (table, column, shadow) = (&found.table, quote(&found.column), quote(&found.shadow));
    let mut all = remove_trigger(found);
    all.push(recall(found));
    for index in &target.indexes {
        all.push(match &index.constraint {
            Some(constraint) => format!("ALTER TABLE {table} DROP CONSTRAINT {}", quote(constraint)),
            None => format!("DROP INDEX {}", qualified(&index.schema, &index.name)),
        });
    }
    all.push(format!("DROP INDEX {}", qualified(&job.table.schema, &target.own("todo"))));
    match job.options.keeps_plain {
        true => {
            let plain = quote(&format!("{}_plain", found.column));
            all.push(format!("ALTER TABLE {table} RENAME COLUMN {column} TO {plain}"));
            all.push(format!("ALTER TABLE {table} ALTER COLUMN {plain} DROP NOT NULL"));
        }
        false => all.push(format!("ALTER TABLE {table} DROP COLUMN {column}")),
    }
    all.push(format!("ALTER TABLE {table} RENAME COLUMN {shadow} TO {column}"));
    for index in &target.indexes {
        if let Some((temporary, _)) = &index.remade {
            all.push(format!("ALTER INDEX {} RENAME TO {}", qualified(&index.schema, temporary), quote(&index.name)));
        }
    }
    if found.is_not_null {
        let check = quote(&not_null_name(found));
        all.push(format!("ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID"));
    }
    all.extend(target.grants.iter().cloned());
    if let Some(comment) = &found.comment {
        all.push(format!("COMMENT ON COLUMN {table}.{column} IS {}", literal(comment)));
    }
    all
}

fn remove_trigger(found: &Found) -> Vec<String> {
    vec![
        format!("DROP TRIGGER IF EXISTS {} ON {}", quote(&trigger_name(found)), found.table),
        format!("DROP FUNCTION IF EXISTS {}()", function_name(found)),
    ]
}

/// Makes the column NOT NULL: its rows are looked at without a lock, and not again with one.
pub(super) fn not_null(found: &Found) -> Vec<String> {
    let (table, column, check) = (&found.table, quote(&found.column), quote(&not_null_name(found)));
    vec![
        format!("ALTER TABLE {table} VALIDATE CONSTRAINT {check}"),
        format!("ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL"),
    ]
}

/// Drops the constraint that has kept NULL out until the column was NOT NULL.
pub(super) fn drop_check(found: &Found) -> String {
    format!("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}", found.table, quote(&not_null_name(found)))
}

fn not_null_name(found: &Found) -> String {
    format!("rowseal_not_null_{}", found.column)
}

/// Lets the planner know the new column and its indexes.
pub(super) fn analyze(found: &Found) -> String {
    format!("ANALYZE {}", found.table)
}

/// Removes every trace of a job that is given up.
pub(super) fn abort(found: &Found) -> Vec<String> {
    let mut all = remove_trigger(found);
    // Its indexes go with it.
    all.push(format!("ALTER TABLE {} DROP COLUMN IF EXISTS {}", found.table, quote(&found.shadow)));
    all
}

fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}

/// A string as it must be written, whatever the server takes backslashes for.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}
