//! Makes docs/sql.md from the table in `operators` and from statements that are planned on the schema of the case files.
//! The test fails when the file is not what would be made; `UPDATE_DOCS=1` writes it.
use std::fmt::Write;

use super::cases::catalog;
use super::operators::{FUNCTIONS, OPERATORS, Rule};
use super::plan::{Copy, StatementPlan, Verdict};
use super::{Context, Protocol, plan, render};

const INTRODUCTION: &str = "\
# SQL over sealed columns

Made from the planner's own table and from the statements below by the test `docs_are_current`; do not edit by hand.

A statement that names a sealed table is read, every column reference in it is resolved, and the text is edited where a
sealed column stands. The rest of the text stays as the client wrote it. What is not listed here as working is refused with
SQLSTATE 0A000 (or another one that says more) before anything runs.

A sealed column can be used in three ways:
- **Passed on**: selected, returned, given through subqueries, CTEs, views, CASE, COALESCE and aggregates that give one of
  their inputs, and put into JSON, arrays and rows. Every sealed column can. The proxy opens what reaches the client. Where the row's tenant column is in reach,
  it is fetched in a hidden column, or in front of the cell (`rowseal.with_tenant`), and compared.
- **Tested for NULL**: `IS NULL`, `count(column)`. Every sealed column can. NULL is stored as NULL.
- **Compared for equality**: by tokens (`rowseal.eq(column)`), where the policy says `equality`. A token is NULL exactly where
  the value is, so the rules of SQL for NULL hold. An index on `rowseal.eq(column)` serves these lookups.

With `equality = \"tenant\"` tokens of different tenants never match. So a comparison must be confined: the tenant column is
pinned in the same condition (`account_id = $1 AND email = $2`, also within one branch of an OR, or in the same row
constructor, with IN, IS NOT DISTINCT FROM or `= ANY` of an array that stands in the text), is equated in the join, or is among the columns that rows are grouped or told apart by. `equality = \"global\"`
needs none of this.

Order, ranges, LIKE and functions that look into a value are not available.

In the examples `users` has the tenant column `account_id` and the sealed columns `email` and `age` (equality within the tenant),
`login` (global) and `ssn` (not searchable). `user_by_id` returns `SETOF users`, `mail_of` returns `rowseal.text`. `members`, with the tenant column `org_id` and the sealed columns `email` varchar(254) and
`age` (equality within the tenant), `nick` (global) and `phone`, is in the policy and not in the database yet. `$n` beyond the
client's own are values that the proxy adds.
";

/// Headings with statements.
const STATEMENTS: &[(&str, &[&str])] = &[
    (
        "Comparisons",
        &[
            "SELECT id FROM users WHERE account_id = $1 AND email = $2",
            "SELECT id FROM users WHERE account_id = 7 AND email IN ('a', 'b')",
            "SELECT id FROM users WHERE account_id IN (7, 8) AND email <> 'a'",
            "SELECT id FROM users WHERE account_id = $1 AND email = ANY ($2)",
            "SELECT id FROM users WHERE account_id = 7 AND email <> ALL (ARRAY['a', 'b'])",
            "SELECT id FROM users WHERE account_id = 7 AND email IS NOT DISTINCT FROM $1",
            "SELECT id FROM users WHERE (account_id, email) IN ((7, 'a'), (8, 'b'))",
            "SELECT id FROM users WHERE account_id = ANY ('{7,8}') AND email = E'\\u0061'",
            "SELECT id FROM users WHERE account_id = NULL AND email = 'a'",
            "SELECT id FROM users WHERE account_id = 7 AND ($1::text IS NULL OR email = $1)",
            "SELECT id FROM users WHERE account_id = 7 AND ($1 = '' OR email = $1)",
            "SELECT id FROM users WHERE NOT (account_id = NULL AND email = 'a')",
            "SELECT id FROM users WHERE login = 'a'",
            "SELECT id FROM users WHERE email = 'a'",
            "SELECT id FROM users WHERE ssn = 'a'",
            "SELECT id FROM users WHERE account_id = 7 AND email > 'a'",
            "SELECT id FROM users WHERE account_id = 7 AND age BETWEEN 1 AND 5",
            "SELECT id FROM users WHERE account_id = 7 AND email LIKE 'a%'",
            "SELECT id FROM users WHERE account_id = 7 AND email = lower('A')",
        ],
    ),
    (
        "Joins and subqueries",
        &[
            "SELECT a.id FROM users a JOIN users b ON a.account_id = b.account_id AND a.email = b.email",
            "SELECT a.id FROM users a JOIN users b ON a.email = b.email",
            "SELECT u.id FROM users u JOIN logins l USING (login)",
            "SELECT login, a.id, b.id FROM logins a FULL JOIN logins b USING (login)",
            "SELECT login FROM users u FULL JOIN logins l USING (login)",
            "SELECT id FROM logins NATURAL JOIN (SELECT login FROM users) u",
            "SELECT id FROM users WHERE login IN (SELECT login FROM logins)",
            "SELECT id FROM users u WHERE EXISTS (SELECT 1 FROM users v WHERE v.account_id = u.account_id AND v.email = u.email AND v.id <> u.id)",
            "SELECT o.id, (SELECT email FROM users u WHERE u.id = o.user_id) FROM orders o",
            "WITH c AS (SELECT * FROM users WHERE account_id = 7) SELECT email FROM c WHERE email <> 'a'",
        ],
    ),
    (
        "Functions that return rows",
        &[
            "SELECT email FROM user_by_id($1)",
            "SELECT u.*, o.total FROM orders o, LATERAL user_by_id(o.user_id) u",
            "SELECT id FROM user_by_id(1) WHERE account_id = 7 AND email = 'a'",
            "SELECT id FROM user_by_id(1) WHERE email = 'a'",
            "SELECT to_json(user_by_id(1))",
            "SELECT (user_by_id(1)).email",
            "SELECT * FROM ROWS FROM (user_by_id(1), user_by_id(2))",
            "SELECT mail_of(1)",
        ],
    ),
    (
        "Grouping and telling rows apart",
        &[
            "SELECT email, count(*) FROM users WHERE account_id = 7 GROUP BY email",
            "SELECT account_id, email, count(*) FROM users GROUP BY account_id, email",
            "SELECT u.id, u.ssn, count(*) FROM users u JOIN orders o ON o.user_id = u.id GROUP BY u.id, u.ssn",
            "SELECT email, count(*) FROM users GROUP BY email",
            "SELECT DISTINCT login FROM users",
            "SELECT DISTINCT id, ssn FROM users",
            "SELECT count(DISTINCT email) FROM users WHERE account_id = 7",
            "SELECT login FROM users UNION SELECT login FROM logins",
            "SELECT login FROM users UNION SELECT login FROM users WHERE id > 5",
            "SELECT email FROM users UNION ALL SELECT email FROM users",
            "SELECT login FROM users INTERSECT SELECT login FROM users",
            "SELECT id, row_number() OVER (PARTITION BY account_id, email ORDER BY id) FROM users",
            "SELECT email FROM users ORDER BY email",
        ],
    ),
    (
        "Passing values on",
        &[
            "SELECT id, email FROM users",
            "SELECT * FROM users",
            "TABLE logins",
            "SELECT id FROM users WHERE ssn IS NOT NULL",
            "SELECT CASE WHEN id = 1 THEN ssn END AS shown FROM users",
            "SELECT coalesce(email, 'none') AS email FROM users",
            "SELECT coalesce(email, $1) AS email FROM users",
            "SELECT coalesce(email, ssn) FROM users",
            "SELECT account_id, (array_agg(ssn ORDER BY id))[1] AS first FROM users GROUP BY account_id",
            "SELECT email::text FROM users",
            "SELECT email::varchar FROM users",
            "SELECT max(email) FROM users",
            "SELECT email FROM users WHERE id = 1 FOR UPDATE SKIP LOCKED",
        ],
    ),
    (
        "Inside JSON, arrays and rows",
        &[
            "SELECT to_jsonb(u) FROM users u",
            "SELECT coalesce(json_agg(u), '[]') FROM users u",
            "SELECT json_build_object('id', id, 'email', email) FROM users",
            "SELECT o.id, d.data FROM orders o LEFT JOIN LATERAL (SELECT coalesce(jsonb_agg(jsonb_build_object('id', u.id, 'email', u.email)), '[]'::jsonb) AS data FROM users u WHERE u.id = o.user_id) d ON true",
            "SELECT json_agg(row_to_json(x)) FROM (SELECT account_id, email FROM users) x",
            "SELECT json_object_agg(id, email) FROM users",
            "SELECT json_object_agg(email, id) FROM users",
            "SELECT array_agg(email) FROM users",
            "SELECT ARRAY(SELECT email FROM users WHERE account_id = 7)",
            "SELECT ROW(id, email) FROM users",
            "SELECT u, u::text FROM users u",
            "INSERT INTO users (id, account_id, email) VALUES ($1, $2, $3) RETURNING users",
            "SELECT to_jsonb(u) ->> 'email' FROM users u",
            "SELECT id FROM users u ORDER BY to_jsonb(u)",
            "SELECT array_agg(DISTINCT email) FROM users",
            "SELECT row_to_json(u) FROM users u UNION SELECT row_to_json(u) FROM users u",
        ],
    ),
    (
        "Writes",
        &[
            "INSERT INTO users (id, account_id, email) VALUES ($1, $2, $3)",
            "INSERT INTO users (id, email) VALUES (1, 'a')",
            "INSERT INTO users (id, account_id, email) SELECT * FROM unnest($1::int[], $2::bigint[], $3::text[])",
            "INSERT INTO users (account_id, email) SELECT p0::bigint, p1::text FROM (VALUES ($1, $2, 0), ($3, $4, 1)) AS v(p0, p1, n) ORDER BY n RETURNING id",
            "INSERT INTO users (account_id, email) SELECT a, lower(m) FROM (VALUES (7, 'a')) AS v(a, m)",
            "INSERT INTO people (id, account_id, mail) SELECT id, account_id, email FROM users WHERE account_id = 7",
            "INSERT INTO people (id, account_id, mail, nick) SELECT id, account_id, note, $1 FROM contacts",
            "INSERT INTO people (id, account_id, mail) SELECT id, account_id, lower(note) FROM contacts",
            "WITH seven AS (SELECT * FROM users WHERE account_id = 7) INSERT INTO people (id, account_id, mail) SELECT id, account_id, email FROM seven",
            "WITH gone AS (DELETE FROM users RETURNING *) INSERT INTO people (id, account_id, mail) SELECT id, account_id, email FROM gone",
            "INSERT INTO users (id, account_id, email) VALUES (1, 7, 'a') ON CONFLICT (account_id, email) DO NOTHING",
            "INSERT INTO people (id, account_id, mail) VALUES (1, 7, 'a') ON CONFLICT ON CONSTRAINT one_mail DO NOTHING",
            "INSERT INTO users (id, account_id, email) VALUES (1, 7, 'a') ON CONFLICT (id, account_id) DO UPDATE SET email = EXCLUDED.email",
            "INSERT INTO users (id, account_id, email) VALUES (1, 7, 'a') ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email",
            "UPDATE users SET email = $1 WHERE id = $2 AND account_id = $3",
            "UPDATE users SET email = $1 WHERE id = $2",
            "UPDATE users SET email = coalesce($1, email) WHERE id = $2 AND account_id = $3",
            "UPDATE users SET account_id = $1, email = $2 WHERE id = $3",
            "UPDATE users SET email = (CASE WHEN id = 1 THEN $1 WHEN id = 2 THEN $2 END)::text WHERE id IN (1, 2)",
            "UPDATE users u SET email = v.email FROM (VALUES (1, 7, 'a'), (2, 8, 'b')) AS v(id, account_id, email) WHERE u.id = v.id AND u.account_id = v.account_id",
            "UPDATE users SET email = ssn WHERE id = 1",
            "DELETE FROM users WHERE account_id = 7 AND email = 'a' RETURNING id",
            "WITH gone AS (DELETE FROM users WHERE id = 1 RETURNING email) SELECT email FROM gone",
            "MERGE INTO users u USING orders o ON o.user_id = u.id WHEN MATCHED THEN DELETE",
            "MERGE INTO users u USING (VALUES ($1::int, $2::bigint, $3)) AS s(id, account_id, email) ON u.id = s.id AND u.account_id = s.account_id WHEN MATCHED THEN UPDATE SET email = s.email WHEN NOT MATCHED THEN INSERT (id, account_id, email) VALUES (s.id, s.account_id, s.email)",
            "MERGE INTO people p USING contacts c ON c.id = p.id WHEN NOT MATCHED THEN INSERT (id, account_id, mail) VALUES (c.id, c.account_id, c.mail)",
        ],
    ),
    (
        "Definitions",
        &[
            "CREATE TABLE members (id int PRIMARY KEY, org_id int, email varchar(254) NOT NULL, note text DEFAULT '')",
            "CREATE TABLE members (org_id int, nick text UNIQUE, UNIQUE (org_id, email), email varchar(254))",
            "CREATE TABLE members (org_id int, email varchar(75))",
            "CREATE TABLE members (org_id int, email text)",
            "CREATE TABLE members (org_id int, email varchar(254) UNIQUE)",
            "CREATE TABLE members (org_id int, email varchar(254) DEFAULT 'x')",
            "CREATE TABLE members (org_id int, age int CHECK (age > 0))",
            "CREATE TABLE copy (LIKE users)",
            "ALTER TABLE members ADD COLUMN phone text, ADD COLUMN points int DEFAULT 0",
            "ALTER TABLE users ADD CONSTRAINT one_email UNIQUE (account_id, email)",
            "ALTER TABLE users ALTER COLUMN email SET NOT NULL, DROP COLUMN name",
            "ALTER TABLE users ALTER COLUMN email TYPE text",
            "ALTER TABLE users ALTER COLUMN email TYPE varchar(20)",
            "ALTER TABLE members ALTER COLUMN email TYPE varchar(75)",
            "ALTER TABLE users RENAME COLUMN email TO mail",
            "CREATE INDEX CONCURRENTLY i ON users (email varchar_pattern_ops) WHERE email IS NOT NULL",
            "CREATE UNIQUE INDEX i ON users (account_id, email)",
            "CREATE INDEX i ON users (lower(email))",
            "CREATE INDEX i ON users USING gin (email)",
            "DROP TABLE users",
            "CREATE VIEW adults AS SELECT id, account_id, email FROM users WHERE id < 100",
            "CREATE MATERIALIZED VIEW known AS SELECT id, account_id, email FROM users WHERE ssn IS NOT NULL",
            "REFRESH MATERIALIZED VIEW users_view",
            "ALTER VIEW users_view RENAME COLUMN email TO mail",
            "CREATE VIEW found AS SELECT id FROM users WHERE account_id = 7 AND email = 'x'",
            "CREATE VIEW docs AS SELECT to_jsonb(users) FROM users",
            "CREATE TABLE copy AS SELECT * FROM users",
        ],
    ),
    (
        "COPY",
        &[
            "COPY users (id, account_id, email) FROM STDIN",
            "COPY users FROM STDIN WITH (FORMAT csv, HEADER)",
            "COPY users (id, email) FROM STDIN",
            "COPY users (id, account_id, email) FROM STDIN (ON_ERROR ignore)",
            "COPY users (id, account_id, email) FROM STDIN WHERE email IS NOT NULL",
            "COPY users (id, email) TO STDOUT WITH (FORMAT csv, HEADER)",
            "COPY (SELECT id, email FROM users WHERE account_id = 7) TO STDOUT (FORMAT binary)",
            "COPY (SELECT id FROM users) TO STDOUT",
            "COPY users_view TO STDOUT",
            "COPY users TO '/tmp/users'",
        ],
    ),
];

const END: &str = "
## What to know

- A query is planned from the statement and the schema alone. Parameters that stand for sealed values are described to the client
  with the column's own type; the parameter of `= ANY ($1)` with the array type.
- GROUP BY, DISTINCT and UNION show one member of each group: their values are equal, though perhaps not spelled alike (1.0 and 1.00).
  Where the primary key is among the columns, equal rows have the same cell and nothing is rewritten.
- An UPDATE that pins the primary key and the tenant runs in one step. A key is not pinned by a value that is cast, or a parameter that is
  declared, to be of another type than the key's, in which several keys may be equal (citext, float8; integers and numeric are alike), nor by a
  parameter without a declared type that stands elsewhere in the statement too. Any other one that sets a sealed column locks its rows first and
  writes one cell for each. It cannot stand beside WITH, in EXPLAIN, or go through a view.
- An INSERT of unnested arrays, as ORMs send it for many rows, makes each element a cell of its own row: the arrays must be parameters or
  literals, also those that hold the tenants. Its rows may be filtered and limited, but not joined, grouped or multiplied.
- An INSERT of a SELECT from VALUES makes cells of the values themselves: VALUES must stand alone in FROM, and a sealed column takes one of
  its columns, as it is or cast to the sealed column's type, which nothing else may use. Each row says its own tenant. The rows may be filtered, ordered
  and limited by the other columns, but not joined, grouped or multiplied. As in Postgres, parameters and quoted literals without a cast are texts
  there, which must be cast to other types.
- Any other INSERT ... SELECT runs its query first and then inserts the rows, sealed anew for the tenants that they get, in the same transaction.
  A sealed column takes a sealed or a plain column of its type, a literal or a parameter, but no expression. The rows may have
  `limits.message_bytes_max` bytes together. WITH in front of INSERT must only
  read, and is not seen by ON CONFLICT and RETURNING. It cannot stand in EXPLAIN or PREPARE, or go into a view, and
  a role that is not shown plaintext cannot use it on sealed columns.
- A CASE that is cast to the column's own type (`(CASE ... END)::varchar(50)`, as Django's bulk_update sends it) is read as one without the
  cast: a value that is too long fails with 22001 where Postgres would cut it.
- An UPDATE takes values for sealed columns from VALUES in FROM, as bulk updates send them, where WHERE compares the whole primary key
  with VALUES, and the tenant column with VALUES or a constant. VALUES must stand alone in FROM.
- MERGE writes a sealed column only from a source that is one row of literals and parameters; in UPDATE, where ON compares the whole
  primary key and the tenant column with it. From other sources it deletes, and writes what is not sealed. RETURNING is refused.
- A row moves to another tenant only if the same statement replaces all of its sealed columns. A statement that sets the tenant
  column otherwise asks the server to compare, and fails where the tenant would change.
- A value that is stored may be cast to the column's own type, with its length or precision, also around CASE and COALESCE
  (`(CASE WHEN id = 1 THEN 'a' END)::varchar(20)`). A text that such a cast would cut is an error (22001), as it is without the cast.
- FULL JOIN with USING or NATURAL makes `coalesce(a.column, b.column)` of a merged column. A merged sealed column is shown where both are the same
  column of a table (joined with itself); it is compared where both sides are of one tenant whatever the rows.
- CREATE VIEW, also RECURSIVE and with CHECK OPTION, and CREATE MATERIALIZED VIEW pass where the query shows sealed columns as they are and needs no rewriting: it compares none
  and casts none. In a transaction that has
  changed the schema, no view can be read by its sealed columns. What follows it in one text may only define.
- A view is looked through where its own query needs no rewriting: plain selections and joins over plain columns. A partition or child
  table has the policy of its parent.
- COPY works in the formats text, csv and binary, with the options FORMAT, DELIMITER, NULL, DEFAULT, HEADER, QUOTE, ESCAPE,
  FORCE_QUOTE, FORCE_NOT_NULL, FORCE_NULL, FREEZE and ENCODING 'UTF8', in the old syntax too; ON_ERROR stop and LOG_VERBOSITY are left
  to the server. Other options are refused by name: ON_ERROR ignore, because the proxy would have to count and skip rows for the sealed
  values that it reads itself, and the server for the others; FORCE_QUOTE with names over a query, because only the server knows
  the names of a query's columns. A partitioned table is refused by Postgres itself. COPY FROM must carry the tenant column where the tenant is found
  in one, and takes no default for it or for a sealed column. A first line of column names is written anew, not passed on. A
  wrong value ends the COPY with Postgres's SQLSTATE, the line and the column; nothing of it is stored. COPY of a query that
  searches sealed columns goes by the simple protocol only: a prepared COPY takes no parameters, in which the tokens would go.
- Between proxy and server the rows of a COPY are in binary where they can be, whatever format the client speaks. Of COPY TO that is
  every one but of a query with HEADER or one that changes or locks rows. COPY FROM does so where every plain column that it fills is of type
  int2, int4, int8, text, varchar, char, bool, uuid or bytea, and DEFAULT is not used; else the rows go on in the client's format, which costs the server
  twice the time, and DELIMITER, QUOTE and ESCAPE may be no letters or digits. In binary, an error of a plain column's value names line and column
  as Postgres does, without the value; the row itself is not in it.
- Sealed values inside JSON, arrays and rows are opened where the whole value reaches the client, in text and binary form, as Postgres
  would have written them: numbers as numbers, dates as ISO strings, a jsonb as a document. Such a value can be passed on
  through subqueries, CTEs, COALESCE, CASE and aggregates, built into another one, cast to json, jsonb and text, tested for NULL and
  counted. Everything else needs its content and is refused: operators, paths, comparison, ordering, grouping, set operations but UNION ALL.
  An array of sealed values is described with the array type of the column (`text[]`); a row keeps its own type. Beside such a value,
  COALESCE and CASE take one that is built alike, NULL, `'[]'`, `'{}'`, `json_build_array()` and `json_build_object()`.
- Of a whole row, the tenant column is compared with each cell in it. Where a subquery gives cells on without the tenant column
  (`row_to_json(x)` of `(SELECT id, email FROM users) x`), the tenant cannot be compared, as it cannot for the columns of such a subquery.
- In JSON, an object may not have a sealed value under a key that it has twice; keys beside sealed values in a jsonb must be
  literals or text parameters. No arrays are made of sealed arrays, though lists in JSON are.
- CREATE TABLE, ALTER TABLE and CREATE INDEX on a table of the policy make sealed columns, by either protocol. The type in the
  statement must be the policy's, however it is spelled. The length of a varchar or char and the precision of a numeric are the policy's, whatever
  the statement says; a NOTICE tells where they differ. What is shown behind the statement follows it in its transaction, before the
  client is told that it is done; if that fails, all of it fails. In the same transaction, and in other sessions after the commit, the
  table is used at once.
- A UNIQUE over sealed columns becomes a unique index of the constraint's name, or of the name Postgres would give it. `DROP CONSTRAINT`
  finds it, and so does `ON CONFLICT ON CONSTRAINT`. It cannot be deferred, and a foreign key cannot point at it. A tool that looks constraints up in the catalog sees an index over
  an expression in its place: Django, asked to take `unique=True` or `db_index=True` off a sealed field, finds nothing to drop and leaves
  the index; drop it by name (`RunSQL`).
- ALTER COLUMN TYPE to the policy's own type, of whatever length or precision, changes nothing: the policy's counts, and when its
  `varchar(20)` becomes `varchar(10)`, the values that are stored are not looked at. Any other type is refused.
- DEFAULT (other than NULL), CHECK, PRIMARY KEY, REFERENCES, GENERATED, COLLATE and EXCLUDE on a sealed column are refused, so none of
  their literals reaches the server. To add a NOT NULL column to a table with rows, add it without, UPDATE it, then SET NOT NULL. (Django
  sends a DEFAULT for a new field that is not null: make it `null=True` first.)
- An index on a sealed column is one on its token, btree or hash. `text_pattern_ops` and its like are left out, with a NOTICE: LIKE does not
  work on sealed columns. Indexes over an expression of a sealed column are refused; the condition of a partial index may say
  `IS NULL` or `IS NOT NULL` of it.
- The body of a function or procedure, in a string, may read a sealed table, compare its plain columns with values, and name columns and
  arguments. Refused is one with a value for a sealed column, or with any value in a statement on a sealed table that the proxy cannot read
  (PERFORM, SELECT INTO, dynamic SQL, another language than SQL); a body that is no string (`BEGIN ATOMIC`, `RETURN`) if it names one.
- Triggers and row-level security policies pass if their conditions name no sealed column and hold no query. A trigger sees cells.
  DROP of anything passes.
- A table or view that shows cells and is not in the policy may be renamed, and its columns, by ALTER TABLE, ALTER VIEW or ALTER MATERIALIZED
  VIEW. What follows it in one text may only define.
- Tables and columns that the policy names are not renamed through the proxy, and no other table gets such a name. A temporary table, or one
  in another schema, is another table: it is left as it is. A statement in the same text behind one that changes a table's columns is
  refused if it uses the table and is no DDL.
- A function that returns rows of a sealed table (`RETURNS users`, `RETURNS SETOF users`), which is made past the proxy, is read like the table; what it is given as
  arguments is not sealed. Refused by name are calls of functions that return values of a sealed type (`rowseal.text`, also in an array, a
  composite type, OUT or RETURNS TABLE) or rows of a view over sealed columns, and of functions of one name that do not all return the same
  sealed rows, whatever the arguments.
- A literal or parameter beside a sealed column (`coalesce(email, 'none')`, `CASE WHEN ... THEN email ELSE $1 END`) stays with the proxy; the
  server is given a number for it, NULL for NULL. So it can stand in the outermost select list only, and a parameter beside columns of one
  type. To a role that sees cells it is shown as the bytes of its text.
";

fn outcome(statement: &str) -> String {
    let catalog = catalog();
    let context =
        Context { catalog: &catalog, search_path: &["public".to_owned()], protocol: Protocol::Extended, declared: &[] };
    decided(statement, &plan(statement, &context))
}

fn decided(statement: &str, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Ask(asked) => {
            format!("the server is asked for its names first; then: {}", decided(statement, &asked.then))
        }
        Verdict::Pass => "passes as it is".to_owned(),
        Verdict::Refuse(refusal) => format!("refused ({}): {}", refusal.class.sqlstate(), refusal.message),
        Verdict::Rewrite(plans) if !plans.iter().any(StatementPlan::is_rewritten) => "passes as it is".to_owned(),
        Verdict::Rewrite(plans) => rewritten(statement, plans),
    }
}

fn rewritten(statement: &str, plans: &[StatementPlan]) -> String {
    let text = render::render_extended(statement, &plans[0]).text;
    let lock = render::render_lock_extended(&plans[0]).map(|lock| format!("first `{lock}`, then "));
    if let Some(ddl) = &plans[0].ddl {
        let then: String = ddl.then.iter().map(|then| format!(", then `{then}`")).collect();
        let notice = ddl.notice.as_ref().map(|notice| format!(", with the notice \"{notice}\""));
        return format!("`{text}`{then}{}", notice.unwrap_or_default());
    }
    if text == statement {
        let takes_rows = matches!(plans[0].copy.as_deref(), Some(Copy::In(_)));
        let what = match takes_rows {
            true => "its rows are sealed",
            false if plans[0].values.is_empty() => "the result is opened",
            false => "its parameters are sealed",
        };
        return format!("is sent as it is; {what}");
    }
    format!("{}`{text}`", lock.unwrap_or_default())
}

fn table<T>(out: &mut String, entries: &[super::operators::Entry<T>], name: impl Fn(&T) -> String) {
    out.push_str("| | | |\n|---|---|---|\n");
    for entry in entries {
        let verdict = if entry.rule == Rule::Refused { "refused" } else { "works" };
        writeln!(out, "| `{}` | {verdict} | {} |", name(&entry.form).replace('|', "\\|"), entry.note).unwrap();
    }
}

fn document() -> String {
    let mut out = INTRODUCTION.to_owned();
    out.push_str("\n## Operators\n\n");
    table(&mut out, OPERATORS, ToString::to_string);
    out.push_str("\n## Functions\n\n");
    table(&mut out, FUNCTIONS, |name| (*name).to_owned());
    out.push_str("\nAll others are refused over a sealed column.\n");
    for (heading, statements) in STATEMENTS {
        writeln!(out, "\n## {heading}\n").unwrap();
        for statement in *statements {
            writeln!(out, "- `{statement}`<br>\n  {}", outcome(statement)).unwrap();
        }
    }
    out + END
}

#[test]
fn docs_are_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sql.md");
    let made = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(made == kept, "docs/sql.md is not current: run the test with UPDATE_DOCS=1");
}
