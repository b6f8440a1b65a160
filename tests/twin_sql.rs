//! SQL in its breadth: the same statements on plain tables directly and on their sealed twins through the proxy give the
//! same rows, types, tags and errors (T3, T4, T5, E2). docs/sql.md says what is meant to work.
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::postgres::{Cluster, Version, connect_at};
use crate::support::proxy::{Proxy, Site};
use crate::support::raw::{Raw, Text};

mod calls;
mod random;
mod rows;
mod writes;

const POLICY: &str = r#"
[[database]]
name = "app"
control = "{control}/app"

[[database.table]]
name = "public.users"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant", join_group = "emails" }
login = { type = "text", equality = "global", join_group = "logins" }
age = { type = "int4", equality = "tenant" }
ssn = { type = "text" }

[[database.table]]
name = "public.contacts"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant", join_group = "emails" }
login = { type = "text", equality = "global", join_group = "logins" }

[[database.table]]
name = "public.memos"
tenant = { name = "1" }

[database.table.columns]
body = { type = "text", equality = "tenant" }
tag = { type = "varchar(10)", equality = "tenant" }

[[database.table]]
name = "public.\"Mixed\""
tenant = { column = "\"Org\"" }

[database.table.columns]
'"Name"' = { type = "text", equality = "tenant" }

[[database.table]]
name = "public.parts"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant" }

[[database.table]]
name = "public.tagged"
tenant = { column = "org" }

[database.table.columns]
tags = { type = "text[]" }
sizes = { type = "int4[]" }
email = { type = "text", equality = "tenant" }

[[database.table]]
name = "public.short"
tenant = { column = "org" }

[database.table.columns]
email = { type = "text", equality = "tenant" }
"#;

/// Name, columns with `{text}` and the like for sealed types, and what is run afterwards.
const TABLES: &[(&str, &str)] = &[
    (
        "users",
        "(id int8 PRIMARY KEY, account_id int8 NOT NULL, name text, email {text}, login {text}, age {int4}, ssn {text})",
    ),
    ("contacts", "(id int8 PRIMARY KEY, account_id int8 NOT NULL, email {text}, login {text}, note text)"),
    ("memos", "(id int8 PRIMARY KEY, body {text}, tag {varchar})"),
    ("\"Mixed\"", "(id int8 PRIMARY KEY, \"Org\" int8 NOT NULL, \"Name\" {text})"),
    ("orders", "(id int8 PRIMARY KEY, user_id int8, account_id int8, total int4)"),
    ("tagged", "(id int8 PRIMARY KEY, org uuid NOT NULL, tags {text_array}, sizes {int4_array}, email {text})"),
    ("short", "(id int8 PRIMARY KEY, org varchar(3) NOT NULL, email {text})"),
    ("parts", "(id int8 NOT NULL, account_id int8 NOT NULL, email {text}) PARTITION BY LIST (account_id)"),
];

const AFTER: &[&str] = &[
    "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1)",
    "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2)",
    "CREATE UNIQUE INDEX users_email ON users (account_id, {eq(email)})",
    "CREATE UNIQUE INDEX users_login ON users ({eq(login)})",
    "CREATE UNIQUE INDEX memos_body ON memos ({eq(body)})",
    "CREATE VIEW users_view AS SELECT id, account_id, email, name FROM users",
    "CREATE VIEW adults AS SELECT u.id AS number, u.account_id AS account, u.email AS mail FROM users u WHERE u.id < 100",
];

const ROWS: &[&str] = &[
    "INSERT INTO users (id, account_id, name, email, login, age, ssn) VALUES \
     (1, 1, 'Ann', 'ann@x', 'ann', 30, '111'), (2, 1, 'Bob', 'bob@x', 'bob', 30, '222'), \
     (3, 1, 'Cid', NULL, NULL, NULL, NULL), (4, 2, 'Ann', 'ann@x', 'ann2', 41, '444'), \
     (5, 2, 'Eve', '', 'eve', 30, '555')",
    "INSERT INTO contacts (id, account_id, email, login, note) VALUES (1, 1, 'ann@x', 'ann', 'n1'), \
     (2, 1, 'zoe@x', 'zoe', 'n2'), (3, 2, 'ann@x', 'ann2', 'n3'), (4, 2, NULL, NULL, 'n4'), (5, 1, 'ann@x', 'eve', 'n5')",
    "INSERT INTO memos (id, body, tag) VALUES (1, 'a', 'red'), (2, 'b', 'red'), (3, 'c', NULL), (4, NULL, 'blue')",
    "INSERT INTO \"Mixed\" (id, \"Org\", \"Name\") VALUES (1, 1, 'Upper'), (2, 2, 'Lower')",
    "INSERT INTO orders (id, user_id, account_id, total) VALUES (1, 1, 1, 10), (2, 1, 1, 20), (3, 2, 1, 5), (4, 4, 2, 7)",
    "INSERT INTO parts (id, account_id, email) VALUES (1, 1, 'p1'), (2, 2, 'p2'), (3, 1, NULL)",
];

struct Twins {
    cluster: Cluster,
    _site: Site,
    proxy: Proxy,
    plain: Client,
    sealed: Client,
}

/// `{text}` and `{eq(column)}` as either side writes them.
fn written(sql: &str, sealed: bool) -> String {
    let mut out = String::new();
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once('{') {
        let (inner, after) = after.split_once('}').unwrap();
        out.push_str(before);
        match (inner.strip_prefix("eq("), sealed) {
            (Some(column), true) => out.push_str(&format!("rowseal.eq({column}")),
            (Some(column), false) => out.push_str(&format!("({column}")),
            (None, true) => out.push_str(&format!("rowseal.{inner}")),
            (None, false) if inner == "varchar" => out.push_str("varchar(10)"),
            (None, false) if inner.ends_with("_array") => out.push_str(&inner.replace("_array", "[]")),
            (None, false) => out.push_str(inner),
        }
        rest = after;
    }
    out + rest
}

async fn twins() -> Twins {
    twins_on(Version::Any).await
}

async fn twins_on(version: Version) -> Twins {
    let cluster = Cluster::start(version);
    cluster.createdb("app");
    let site = Site::new(&cluster, POLICY);
    site.run_ok(&["setup"]);
    for tenant in ["1", "2", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "abc"] {
        site.run_ok(&["tenant", "register", tenant]);
    }
    cluster.psql("app", "CREATE SCHEMA plain");
    for (schema, sealed) in [("plain", false), ("public", true)] {
        let mut sql = format!("SET search_path = {schema};\n");
        for (name, columns) in TABLES {
            sql += &format!("CREATE TABLE {name} {};\n", written(columns, sealed));
        }
        AFTER.iter().for_each(|after| sql += &format!("{};\n", written(after, sealed)));
        cluster.psql("app", &sql);
    }
    let plain = cluster.connect("app").await;
    plain.batch_execute("SET search_path = plain").await.unwrap();
    let proxy = site.serve();
    let sealed = connect_at(proxy.address(), "app").await;
    let twins = Twins { cluster, _site: site, proxy, plain, sealed };
    for sql in ROWS {
        twins.simple(sql).await.unwrap();
    }
    twins
}

/// What a statement gave; rows in a fixed order, unless the statement asks for one.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Rows(Vec<(String, u32)>, Vec<Vec<Option<Raw>>>),
    Simple(Vec<String>),
    Error(String),
}

fn state(error: &tokio_postgres::Error) -> Outcome {
    let code = error.code().map(SqlState::code);
    Outcome::Error(code.unwrap_or_else(|| panic!("not a server error: {error:?}")).to_owned())
}

async fn extended(client: &Client, sql: &str, types: &[Type], params: &[&(dyn ToSql + Sync)]) -> Outcome {
    let statement = match client.prepare_typed(sql, types).await {
        Ok(statement) => statement,
        Err(error) => return state(&error),
    };
    let columns = statement.columns().iter().map(|c| (c.name().to_owned(), c.type_().oid())).collect();
    match client.query(&statement, params).await {
        Err(error) => state(&error),
        Ok(rows) => {
            let values = |row: &tokio_postgres::Row| (0..row.len()).map(|n| row.get::<_, Option<Raw>>(n)).collect();
            let mut rows: Vec<Vec<Option<Raw>>> = rows.iter().map(values).collect();
            if !is_ordered(sql) {
                rows.sort_by_key(|row| format!("{row:?}"));
            }
            Outcome::Rows(columns, rows)
        }
    }
}

async fn simple(client: &Client, sql: &str) -> Outcome {
    match client.simple_query(sql).await {
        Err(error) => state(&error),
        Ok(messages) => {
            let mut lines: Vec<String> = messages.iter().map(line).collect();
            if !is_ordered(sql) {
                lines.sort();
            }
            Outcome::Simple(lines)
        }
    }
}

/// True when the statement itself ends with ORDER BY.
fn is_ordered(sql: &str) -> bool {
    sql.rfind("ORDER BY") > sql.rfind(')').max(Some(0))
}

fn line(message: &SimpleQueryMessage) -> String {
    match message {
        SimpleQueryMessage::Row(row) => format!("{:?}", (0..row.len()).map(|n| row.get(n)).collect::<Vec<_>>()),
        SimpleQueryMessage::CommandComplete(n) => format!("complete {n}"),
        SimpleQueryMessage::RowDescription(columns) => {
            format!("{:?}", columns.iter().map(|c| c.name()).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

impl Twins {
    async fn simple(&self, sql: &str) -> Result<(), String> {
        let (plain, sealed) = (simple(&self.plain, sql).await, simple(&self.sealed, sql).await);
        same("simple", sql, &plain, &sealed)
    }

    async fn with(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<(), String> {
        self.typed(sql, &[], params).await
    }

    /// With parameters that the client declares to be of these types.
    async fn typed(&self, sql: &str, types: &[Type], params: &[&(dyn ToSql + Sync)]) -> Result<(), String> {
        let plain = extended(&self.plain, sql, types, params).await;
        let sealed = extended(&self.sealed, sql, types, params).await;
        same("extended", sql, &plain, &sealed)
    }

    fn tail(&self) -> String {
        let log = self.proxy.log();
        log[log.floor_char_boundary(log.len().saturating_sub(2000))..].to_owned()
    }
}

fn same(how: &str, sql: &str, plain: &Outcome, sealed: &Outcome) -> Result<(), String> {
    if plain == sealed { Ok(()) } else { Err(format!("{how}: {sql}\n  plain:  {plain:?}\n  sealed: {sealed:?}\n")) }
}

/// Statements without parameters, by what they show.
const STATEMENTS: &[&str] = &[
    // Equality.
    "SELECT id FROM users WHERE account_id = 1 AND email = 'ann@x'",
    "SELECT id FROM users WHERE account_id = 1 AND email <> 'ann@x'",
    // Tenant 9 is not registered: nothing is its, and the others' rows are judged as ever.
    "SELECT id FROM users WHERE account_id = 9 AND email = 'ann@x'",
    "SELECT id FROM users WHERE account_id IN (1, 9) AND email <> 'ann@x'",
    "SELECT id FROM users WHERE account_id IN (1, 9) AND email NOT IN ('ann@x', 'z')",
    "SELECT id FROM users WHERE account_id IN (1, 9) AND email <> ALL (ARRAY['ann@x', 'z'])",
    "SELECT id FROM users WHERE NOT (account_id IN (1, 2, 9) AND email = 'ann@x')",
    "SELECT id FROM users WHERE (account_id IN (1, 9) AND email = 'ann@x') IS FALSE",
    "SELECT id, account_id IN (1, 9) AND email = 'ann@x' FROM users",
    "SELECT id FROM users WHERE account_id = 1 AND NOT (email = 'ann@x')",
    // NULL is nobody's: nothing is found, whatever stands around it.
    "SELECT id FROM users WHERE account_id = NULL AND email = 'ann@x'",
    "SELECT id FROM users WHERE account_id = NULL AND NOT (email = 'ann@x')",
    "SELECT id FROM users WHERE account_id IN (1, NULL) AND email <> 'ann@x'",
    "SELECT id FROM users WHERE name = 'Bob' OR (account_id = NULL AND email <> 'ann@x')",
    "SELECT id FROM users WHERE (account_id = NULL AND email = 'ann@x') IS NOT TRUE",
    "SELECT id, CASE WHEN account_id = NULL AND email = 'ann@x' THEN 'a' ELSE 'b' END FROM users",
    "SELECT count(*) FILTER (WHERE account_id = NULL AND email = 'ann@x'), count(*) FROM users",
    "SELECT o.id, u.id FROM orders o LEFT JOIN users u ON u.account_id = NULL AND u.email = 'ann@x'",
    "SELECT id FROM orders o WHERE NOT EXISTS (SELECT 1 FROM users WHERE account_id = NULL AND email = 'ann@x')",
    "UPDATE users SET email = 'nobody' WHERE id = 1 AND account_id = NULL",
    "DELETE FROM users WHERE account_id = NULL AND email = 'ann@x'",
    // Other ways to name the tenant.
    "SELECT id FROM users WHERE account_id IS NOT DISTINCT FROM 1 AND email = 'ann@x'",
    "SELECT id FROM users WHERE NOT (account_id IS NOT DISTINCT FROM 1 AND email = 'ann@x')",
    "SELECT id FROM users WHERE account_id = ANY ('{1}') AND email <> 'ann@x'",
    "SELECT id FROM users WHERE account_id = ANY ('{1, 2,NULL}'::int4[]) AND email <> 'ann@x'",
    "SELECT id FROM users WHERE account_id = SOME (ARRAY[1, 2]) AND email IN ('ann@x', '')",
    "SELECT id FROM users WHERE account_id = ANY ('{NULL}') AND email = 'ann@x'",
    "SELECT id FROM users WHERE account_id = ANY ('{abc}') AND email = 'ann@x'",
    "SELECT a.id, b.id FROM users a JOIN contacts b ON a.account_id IS NOT DISTINCT FROM b.account_id AND a.email = b.email",
    "UPDATE users SET email = 'ann@x' WHERE id = ANY ('{1}') AND account_id = ANY ('{1}') RETURNING email",
    // Literals in other forms.
    r"UPDATE users SET email = E'\x61\156n\u0040x\\\t\q''\'' WHERE id = 1 AND account_id = E'1'",
    r"SELECT email FROM users WHERE account_id = 1 AND email = U&'\0061nn\+000040x\\\0009q'''''",
    r"SELECT email FROM users WHERE account_id = U&'\0031' AND email = E'ann@x\\\tq\''''",
    r"SELECT id FROM users WHERE account_id = 1 AND email = ANY (ARRAY[E'ann\u0040x', U&'bob\0040x', $a$z$a$])",
    r"UPDATE users SET email = U&'ann\0040x' WHERE id = 1 AND account_id = $$1$$ RETURNING email",
    // What is no number is nobody's either, and Postgres says so.
    "SELECT id FROM users WHERE account_id = 'abc' AND email = 'ann@x'",
    "SELECT id FROM users WHERE account_id = '99999999999999999999' AND email = 'ann@x'",
    "SELECT id FROM users WHERE account_id = '1'::int2 AND email = 'ann@x'",
    "INSERT INTO users (id, account_id, email) VALUES (90, 'abc', 'ann@x')",
    "INSERT INTO users (id, account_id, email) SELECT i, a::int8, m FROM (VALUES (90, '1', 'x'), (91, 'abc', 'y')) AS v(i, a, m)",
    "INSERT INTO users (id, account_id, email) SELECT * FROM unnest(ARRAY[90, 91], ARRAY['1', 'abc']::int8[], ARRAY['x', 'y'])",
    "UPDATE users SET email = 'x' WHERE id = 1 AND account_id = 'abc'",
    "PREPARE misread (text, text) AS SELECT id FROM users WHERE account_id = $1::int8 AND email = $2",
    "EXECUTE misread (' 1', 'ann@x')",
    "EXECUTE misread ('abc', 'ann@x')",
    "EXECUTE misread (NULL, 'ann@x')",
    "DEALLOCATE misread",
    "SELECT id FROM users WHERE account_id = 1 AND email IN ('ann@x', 'bob@x', NULL)",
    "SELECT id FROM users WHERE account_id = 1 AND email NOT IN ('ann@x', 'no')",
    "SELECT id FROM users WHERE account_id = 1 AND email NOT IN ('ann@x', NULL)",
    "SELECT id FROM users WHERE account_id IN (1, 2) AND email = 'ann@x'",
    "SELECT id FROM users WHERE account_id IN (1, 2) AND email = ANY ('{ann@x,zz}')",
    "SELECT id FROM users WHERE (account_id = 1 AND email = 'ann@x') OR (account_id = 2 AND email = '')",
    "SELECT id FROM users WHERE account_id = 1 AND email = ANY ('{ann@x,\"bob@x\",NULL}'::text[])",
    "SELECT id FROM users WHERE account_id = 1 AND email = ANY (ARRAY['ann@x', 'zz'])",
    "SELECT id FROM users WHERE account_id = 1 AND email = ANY (ARRAY['ann@x', NULL]::text[])",
    "SELECT id FROM users WHERE account_id = 1 AND email <> ALL (ARRAY['ann@x'])",
    "SELECT id FROM users WHERE account_id = 1 AND email <> ALL ('{ann@x,NULL}')",
    "SELECT id FROM users WHERE account_id = 1 AND age = ANY ('{30, 41}')",
    "SELECT id FROM users WHERE account_id = 1 AND age = ANY (ARRAY[30, 41])",
    "SELECT id FROM users WHERE account_id = 1 AND email = SOME (ARRAY['bob@x'])",
    "SELECT id FROM users WHERE account_id = 1 AND email IS DISTINCT FROM 'ann@x'",
    "SELECT id FROM users WHERE account_id = 1 AND email IS NOT DISTINCT FROM 'ann@x'",
    "SELECT id FROM users WHERE account_id = 1 AND email IS NOT DISTINCT FROM NULL",
    "SELECT id FROM users WHERE (account_id, email) = (1, 'ann@x')",
    "SELECT id FROM users WHERE (account_id, email) <> (1, 'ann@x')",
    "SELECT id FROM users WHERE (account_id, email) IN ((1, 'ann@x'), (2, ''), (2, 'bob@x'))",
    "SELECT id FROM users WHERE (account_id, email) NOT IN ((1, 'ann@x'), (2, ''))",
    "SELECT id FROM users WHERE account_id = 1 AND (email, id) IN (('ann@x', 1), ('bob@x', 1))",
    "SELECT id, CASE email WHEN 'ann@x' THEN 'a' WHEN 'bob@x' THEN 'b' ELSE 'other' END FROM users WHERE account_id = 1",
    "SELECT id, CASE WHEN email = 'ann@x' THEN 1 ELSE 0 END AS hit FROM users WHERE account_id = 1",
    "SELECT id, email = 'ann@x' FROM users WHERE account_id = 1",
    "SELECT id, NULLIF(email, 'ann@x') FROM users WHERE account_id = 1",
    "SELECT id FROM users WHERE account_id = 1 AND NULLIF(email, 'ann@x') = 'bob@x'",
    "SELECT id FROM users WHERE account_id = 1 AND 'ann@x' = email",
    "SELECT id FROM users WHERE account_id = 1 AND email::text = 'ann@x'::text",
    "SELECT id FROM users WHERE account_id = 1 AND CAST(email AS text) = 'ann@x'",
    "SELECT id FROM memos WHERE tag::text = 'red'",
    "SELECT id FROM users WHERE account_id = 1 AND email = email",
    "SELECT id FROM users WHERE login = 'eve'",
    "SELECT id FROM users WHERE login IN ('eve', 'ann')",
    "SELECT id FROM memos WHERE body = 'a' OR tag = 'blue'",
    "SELECT sum(CASE WHEN email = 'ann@x' THEN 1 ELSE 0 END) FROM users WHERE account_id = 1",
    "SELECT count(*) FILTER (WHERE email = 'ann@x'), count(email) FROM users WHERE account_id = 1",
    // TABLE.
    "TABLE users",
    "TABLE users_view",
    "table memos ORDER BY id DESC LIMIT 2",
    "(TABLE contacts)",
    "WITH w AS (TABLE users) TABLE w",
    "TABLE memos UNION ALL TABLE memos",
    "SELECT x.email FROM (TABLE users) x WHERE x.account_id = 1 AND x.email = 'ann@x'",
    "SELECT id FROM memos WHERE tag IN (SELECT tag FROM (TABLE memos) m WHERE m.id = 1)",
    "INSERT INTO contacts (id, account_id, email, login, note) TABLE contacts ON CONFLICT DO NOTHING",
    "TABLE missing",
    "TABLE\"Mixed\"",
    // Joins.
    "SELECT a.id, b.id FROM users a JOIN users b ON a.account_id = b.account_id AND a.email = b.email",
    "SELECT a.id, b.id FROM users a, contacts b WHERE a.account_id = b.account_id AND a.email = b.email",
    "SELECT u.id, c.id, c.note FROM users u LEFT JOIN contacts c ON c.account_id = u.account_id AND c.email = u.email",
    "SELECT u.id, c.id FROM users u RIGHT JOIN contacts c ON c.account_id = u.account_id AND c.email = u.email",
    "SELECT u.id, c.id FROM users u FULL JOIN contacts c ON c.login = u.login",
    "SELECT u.id, c.id, login FROM users u JOIN contacts c USING (login)",
    "SELECT login, u.id, c.id FROM users u LEFT JOIN contacts c USING (login)",
    "SELECT login, u.id, c.id FROM users u RIGHT JOIN contacts c USING (login)",
    "SELECT login, u.id, v.id FROM users u FULL JOIN (SELECT * FROM users WHERE id <> 2) v USING (login)",
    "SELECT * FROM (SELECT id, account_id, login FROM users WHERE id <> 1) u FULL JOIN (SELECT account_id, login, age FROM users WHERE id <> 2) v USING (account_id, login)",
    "SELECT account_id, email, account_id::int4, u.email AS own, v.id FROM (SELECT * FROM users WHERE id < 3) u FULL JOIN users v USING (account_id, email)",
    "SELECT x.* FROM (SELECT account_id, email FROM users u FULL JOIN users v USING (account_id, email)) x",
    "SELECT tag, body FROM (SELECT tag FROM memos WHERE id < 3) m FULL JOIN memos n USING (tag) WHERE tag = 'red' OR tag = 'blue'",
    "SELECT note, u.id, c.id FROM users u FULL JOIN contacts c USING (account_id, email)",
    "SELECT DISTINCT login FROM users u FULL JOIN users v USING (login)",
    "SELECT login, w.id FROM (SELECT * FROM users WHERE id < 2) u FULL JOIN users v USING (login) FULL JOIN users w USING (login)",
    "SELECT login FROM (SELECT id, login FROM users WHERE id < 2) u NATURAL FULL JOIN users",
    "SELECT * FROM users u JOIN contacts c USING (account_id, email)",
    "SELECT account_id, email, u.name FROM users u JOIN contacts c USING (account_id, email) WHERE account_id = 1",
    "SELECT * FROM (SELECT account_id, email, note FROM contacts) c NATURAL JOIN (SELECT account_id, name FROM users) u",
    "SELECT u.name, total FROM users u NATURAL JOIN (SELECT account_id, total FROM orders) o",
    "SELECT c.id FROM contacts c NATURAL JOIN \"Mixed\" m",
    "SELECT u.id FROM users u WHERE EXISTS (SELECT 1 FROM contacts c WHERE c.account_id = u.account_id AND c.email = u.email)",
    "SELECT u.id FROM users u WHERE NOT EXISTS (SELECT 1 FROM contacts c WHERE c.account_id = u.account_id AND c.email = u.email)",
    "SELECT id FROM users WHERE account_id = 1 AND email IN (SELECT email FROM contacts WHERE account_id = 1)",
    "SELECT id FROM users WHERE account_id = 1 AND email NOT IN (SELECT email FROM contacts WHERE account_id = 1)",
    "SELECT id FROM users WHERE login IN (SELECT login FROM contacts)",
    "SELECT id FROM users WHERE login = ANY (SELECT login FROM contacts WHERE note <> 'n5')",
    "SELECT id FROM users u WHERE (account_id, email) IN (SELECT account_id, email FROM contacts)",
    "SELECT id FROM users u WHERE email IN (SELECT c.email FROM contacts c WHERE c.account_id = u.account_id)",
    "SELECT id FROM users WHERE account_id = 1 AND email = (SELECT email FROM contacts WHERE account_id = 1 AND id = 1)",
    "SELECT id FROM contacts WHERE login IN (SELECT login FROM users UNION SELECT login FROM contacts WHERE id = 2)",
    "SELECT id FROM orders WHERE 'ann' IN (SELECT login FROM users)",
    // Groups.
    "SELECT email, count(*) FROM users WHERE account_id = 1 GROUP BY email",
    "SELECT account_id, email, count(*) FROM users GROUP BY account_id, email",
    "SELECT email AS e, count(*) AS n FROM users WHERE account_id = 1 GROUP BY e",
    "SELECT email, count(*) FROM users WHERE account_id = 1 GROUP BY 1",
    "SELECT login, count(*) FROM contacts GROUP BY login HAVING count(*) > 0",
    "SELECT age, count(*) FROM users WHERE account_id = 1 GROUP BY age HAVING age = 30",
    "SELECT age IS NULL, count(*) FROM users WHERE account_id = 1 GROUP BY age",
    "SELECT age, min(name), count(DISTINCT email) FROM users WHERE account_id = 1 GROUP BY age",
    "SELECT account_id, count(DISTINCT email), count(DISTINCT login) FROM users GROUP BY account_id",
    "SELECT count(DISTINCT email) FROM users WHERE account_id = 1",
    "SELECT u.id, u.email, u.ssn, count(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY u.id",
    "SELECT u.id, u.email, u.ssn, sum(o.total) FROM users u JOIN orders o ON o.user_id = u.id GROUP BY u.id, u.email, u.ssn",
    "SELECT CASE WHEN age = 30 THEN email END FROM users WHERE account_id = 1 GROUP BY age, email",
    "SELECT email FROM users WHERE account_id = 1 GROUP BY email HAVING email IS NOT NULL",
    "SELECT 1 FROM contacts WHERE account_id = 1 GROUP BY email",
    "SELECT name FROM users WHERE account_id = 1 GROUP BY email",
    // DISTINCT.
    "SELECT DISTINCT email FROM contacts WHERE account_id = 1",
    "SELECT DISTINCT account_id, email FROM contacts",
    "SELECT DISTINCT login FROM contacts",
    "SELECT DISTINCT age, name FROM users WHERE account_id = 1 ORDER BY name",
    "SELECT DISTINCT u.* FROM users u JOIN orders o ON o.user_id = u.id",
    "SELECT DISTINCT id, ssn FROM users",
    "SELECT DISTINCT ON (age) age FROM users WHERE account_id = 1",
    "SELECT DISTINCT ON (account_id) account_id, email FROM users ORDER BY account_id, id",
    "SELECT count(*) FROM (SELECT DISTINCT email FROM contacts WHERE account_id = 1) d",
    // Set operations.
    "SELECT email FROM users UNION ALL SELECT email FROM users",
    "SELECT email, id FROM users WHERE id = 1 UNION ALL SELECT NULL, 7",
    "SELECT login FROM users UNION SELECT login FROM users WHERE id < 3",
    "SELECT account_id, email FROM users UNION SELECT account_id, email FROM users",
    "SELECT email FROM users WHERE account_id = 1 UNION SELECT email FROM users WHERE account_id = 1 AND id = 2",
    "SELECT * FROM users WHERE id < 3 UNION SELECT * FROM users WHERE id > 1",
    "SELECT id, ssn FROM users WHERE id < 3 INTERSECT SELECT id, ssn FROM users WHERE id > 1",
    "SELECT id, ssn FROM users EXCEPT SELECT id, ssn FROM users WHERE id > 1",
    "SELECT count(*) FROM (SELECT login FROM users UNION SELECT login FROM users) x",
    "SELECT login FROM users UNION SELECT login FROM users WHERE id < 3 UNION DISTINCT SELECT login FROM users LIMIT 50",
    "SELECT login FROM users INTERSECT SELECT login FROM users WHERE id > 2",
    "SELECT login, name FROM users EXCEPT SELECT login, name FROM users WHERE id > 2 ORDER BY name",
    "SELECT count(*) FROM (SELECT account_id, email FROM users EXCEPT SELECT account_id, email FROM users WHERE id = 1) x",
    "SELECT login FROM users UNION SELECT NULL",
    // Windows.
    "SELECT id, count(*) OVER (PARTITION BY email) FROM contacts WHERE account_id = 1",
    "SELECT id, row_number() OVER (PARTITION BY account_id, email ORDER BY id) FROM contacts",
    "SELECT id, rank() OVER w FROM contacts WINDOW w AS (PARTITION BY login ORDER BY id)",
    "SELECT id, lag(email) OVER (ORDER BY id) FROM users",
    "SELECT id, first_value(email) OVER (PARTITION BY account_id ORDER BY id) AS f FROM users",
    // Any sealed column.
    "SELECT id, ssn IS NULL, ssn IS NOT NULL FROM users",
    "SELECT count(ssn), count(*) FROM users",
    "SELECT id FROM users WHERE ssn IS NOT NULL",
    "SELECT id, coalesce(ssn, NULL) FROM users",
    "SELECT id, coalesce(a.email, b.email) FROM users a JOIN users b USING (id)",
    "SELECT id, coalesce(email, 'none') AS e, coalesce(ssn, '') FROM users",
    "SELECT id, coalesce(age, 0) FROM users",
    "SELECT id, CASE WHEN id = 1 THEN ssn END FROM users",
    "SELECT id, CASE WHEN id = 1 THEN ssn WHEN id = 2 THEN NULL ELSE ssn END FROM users",
    "SELECT id, CASE WHEN id = 1 THEN ssn ELSE 'hidden' END AS shown FROM users",
    "SELECT id FROM users WHERE account_id = 1 AND coalesce(email, '') = ''",
    "SELECT id, email::text, CAST(ssn AS text), age::int4 FROM users",
    "SELECT account_id, (array_agg(ssn ORDER BY id))[1] FROM users GROUP BY account_id",
    "SELECT o.id, (SELECT u.email FROM users u WHERE u.id = o.user_id) FROM orders o",
    "SELECT o.id, (SELECT u.ssn FROM users u WHERE u.id = o.user_id) AS who FROM orders o",
    "SELECT o.id, x.email FROM orders o, LATERAL (SELECT u.email FROM users u WHERE u.id = o.user_id) x",
    "SELECT o.id, x.email FROM orders o LEFT JOIN LATERAL (SELECT u.email FROM users u WHERE u.id = o.user_id LIMIT 1) x ON true",
    "WITH c AS (SELECT id, account_id, email FROM users) SELECT email FROM c WHERE account_id = 1 AND email <> 'bob@x'",
    "WITH c AS (SELECT * FROM users WHERE account_id = 1) SELECT id, email, ssn FROM c WHERE email = 'ann@x'",
    "WITH c (a, b) AS (SELECT account_id, email FROM users) SELECT x.b FROM c x JOIN c y ON x.a = y.a AND x.b = y.b",
    "WITH RECURSIVE r AS (SELECT id, email FROM users WHERE id = 1 UNION ALL SELECT u.id, u.email FROM users u JOIN r ON u.id = r.id + 1) SELECT id, email FROM r",
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i, email FROM n JOIN users ON id = i",
    "WITH a AS (SELECT id FROM users WHERE login = 'eve'), b AS (SELECT * FROM users WHERE id IN (SELECT id FROM a)) SELECT email, login FROM b",
    "SELECT email FROM users WHERE id = 1 FOR UPDATE",
    "SELECT email FROM users WHERE id = 1 FOR UPDATE SKIP LOCKED",
    "SELECT u.email FROM users u JOIN orders o ON o.user_id = u.id WHERE o.id = 1 FOR NO KEY UPDATE OF u NOWAIT",
    "SELECT email FROM users ORDER BY id LIMIT 2 OFFSET 1",
    "SELECT x.b FROM users AS x (a, t, n, b) WHERE x.t = 1 AND x.b = 'ann@x'",
    "SELECT \"Name\", m.\"Org\" FROM \"Mixed\" m WHERE \"Org\" = 1 AND \"Name\" = 'Upper'",
    "SELECT \"Name\", count(*) FROM \"Mixed\" GROUP BY \"Org\", \"Name\"",
    "SELECT id, email FROM parts",
    "SELECT id, email FROM parts WHERE account_id = 1 AND email = 'p1'",
    "SELECT id, email FROM parts_1",
    "SELECT id FROM parts_2 WHERE account_id = 2 AND email = 'p2'",
    "SELECT email FROM ONLY users WHERE id = 1",
    "SELECT id, email, name FROM users_view",
    "SELECT * FROM users_view WHERE account_id = 1 AND email = 'ann@x'",
    "SELECT mail FROM adults WHERE account = 2",
    "SELECT a.number FROM adults a WHERE a.account = 1 AND a.mail = 'bob@x'",
    "SELECT account, mail, count(*) FROM adults GROUP BY account, mail",
    // Writes.
    "INSERT INTO users (id, account_id, email, login) VALUES (10, 1, 'ann@x', 'x10') ON CONFLICT (account_id, email) DO NOTHING",
    "INSERT INTO users (id, account_id, email, login) VALUES (11, 1, 'k@x', 'ann') ON CONFLICT (login) DO NOTHING RETURNING id",
    "INSERT INTO users (id, account_id, email, name) VALUES (12, 1, 'ann@x', 'again') ON CONFLICT (account_id, email) DO UPDATE SET name = EXCLUDED.name, email = EXCLUDED.email RETURNING id, name, email",
    "INSERT INTO users AS t (id, account_id, email) VALUES (1, 1, 'new@x') ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email WHERE t.id = 1",
    "INSERT INTO users (id, account_id, email, ssn) VALUES (1, 1, 'newer@x', '9') ON CONFLICT ON CONSTRAINT users_pkey DO UPDATE SET email = EXCLUDED.email, ssn = EXCLUDED.ssn, name = 'c' RETURNING *",
    "INSERT INTO users (id, account_id, email) VALUES (1, 1, 'ann@x') ON CONFLICT (id) DO UPDATE SET email = 'ann@x' RETURNING email",
    "INSERT INTO users (id, account_id, name, email, login, age, ssn) VALUES (20, 1, 'm', 'mv@x', 'mv', 1, '1')",
    "INSERT INTO users (id, account_id, name, email, login, age, ssn) VALUES (20, 2, 'm', 'mv2@x', 'mv2', 2, '2') ON CONFLICT (id) DO UPDATE SET account_id = EXCLUDED.account_id, email = EXCLUDED.email, login = EXCLUDED.login, age = EXCLUDED.age, ssn = EXCLUDED.ssn",
    "SELECT * FROM users WHERE id = 20",
    "INSERT INTO memos (id, body) VALUES (9, 'a') ON CONFLICT (body) DO UPDATE SET tag = 'dup' RETURNING id, tag, body",
    "INSERT INTO users (id, account_id, email) SELECT 21, 1, 'sel@x' WHERE NOT EXISTS (SELECT 1 FROM users WHERE id = 21)",
    "UPDATE users SET account_id = 1, name = 'same', email = 'same@x' WHERE id = 2 RETURNING *",
    "UPDATE users SET account_id = 1, name = 'moved', email = 'moved@x', login = 'moved', age = 3, ssn = '33' WHERE id = 20",
    "SELECT * FROM users WHERE id = 20",
    "UPDATE users SET email = coalesce('c@x', email), ssn = coalesce(NULL, ssn) WHERE id = 2",
    "UPDATE users SET ssn = CASE id WHEN 1 THEN 'one' WHEN 2 THEN 'two' ELSE ssn END WHERE id < 4",
    "UPDATE users SET (email, name) = ('row@x', 'row') WHERE id = 3 AND account_id = 1 RETURNING email, name",
    "UPDATE users SET ssn = 'from' FROM orders o WHERE o.user_id = users.id AND o.total > 5",
    "UPDATE users u SET ssn = 'byview', name = c.note FROM contacts c WHERE c.account_id = u.account_id AND c.email = u.email AND c.id = 3",
    "SELECT id, email, ssn, name FROM users ORDER BY id",
    "DELETE FROM contacts c USING users u WHERE c.account_id = u.account_id AND c.email = u.email AND u.id = 4 RETURNING c.id, c.email",
    "WITH gone AS (DELETE FROM contacts WHERE id = 2 RETURNING id, account_id, email) SELECT id, email FROM gone",
    "WITH made AS (INSERT INTO contacts (id, account_id, email) VALUES (30, 1, 'made@x') RETURNING *) SELECT id, email FROM made",
    "WITH changed AS (UPDATE contacts SET email = 'ch@x' WHERE id = 30 AND account_id = 1 RETURNING email) SELECT email FROM changed",
    "WITH x AS (SELECT id FROM users WHERE login = 'eve') DELETE FROM orders WHERE user_id IN (SELECT id FROM x)",
    "WITH x AS (SELECT 31 AS id) INSERT INTO contacts (id, account_id, email) VALUES (31, 2, 'w@x') RETURNING id, email",
    "UPDATE contacts SET email = NULL WHERE account_id = 1 AND email = 'ann@x' RETURNING id, email",
    "INSERT INTO users_view (id, account_id, email, name) VALUES (40, 1, 'view@x', 'v') RETURNING id, email",
    "UPDATE users_view SET email = 'view2@x' WHERE account_id = 1 AND id = 40",
    "SELECT id, email FROM users_view WHERE id = 40",
    "DELETE FROM users_view WHERE account_id = 1 AND email = 'view2@x'",
    "UPDATE parts SET email = 'moved' WHERE email IS NOT NULL",
    "INSERT INTO parts_1 (id, account_id, email) VALUES (8, 1, 'direct')",
    "SELECT id, email FROM parts ORDER BY id",
    "INSERT INTO users (id, account_id, email) VALUES (50, 1, 'ann@x'), (51, 1, 'ann@x')",
    "INSERT INTO users AS t (id, account_id, email) VALUES (1, 1, 'up@x') ON CONFLICT (id) DO UPDATE SET email = coalesce(EXCLUDED.email, t.email) RETURNING email",
    "INSERT INTO users AS t (id, account_id, email) VALUES (1, 1, NULL) ON CONFLICT (id) DO UPDATE SET email = coalesce(EXCLUDED.email, t.email) RETURNING email",
    "PREPARE many (text[], int8) AS SELECT id FROM users WHERE account_id = $2 AND email = ANY ($1)",
    "EXECUTE many ('{ann@x,c@x}', 1)",
    "DEALLOCATE many",
    "INSERT INTO users (id, account_id, email, name) VALUES (70, 1, 'ann@x', 'r') ON CONFLICT (account_id, email) DO UPDATE SET name = CASE WHEN users.email IS NOT DISTINCT FROM excluded.email THEN 'same' ELSE 'other' END RETURNING name",
    // A table that stands before the sealed one on the search path.
    "CREATE TEMP TABLE memos (id int8, body text)",
    "INSERT INTO memos (id, body) VALUES (1, 'not sealed')",
    "SELECT id, body FROM memos WHERE body > 'a'",
    "DROP TABLE memos",
    "SELECT id, body, tag FROM memos",
];

/// Statements that the proxy refuses though Postgres could answer them.
const REFUSED: &[&str] = &[
    "SELECT id FROM users WHERE email = 'ann@x'",
    "SELECT email, count(*) FROM users GROUP BY email",
    "SELECT DISTINCT email FROM users",
    "SELECT email FROM users UNION SELECT email FROM users",
    "SELECT login FROM users INTERSECT ALL SELECT login FROM users",
    "SELECT a.id FROM users a JOIN users b ON a.email = b.email",
    "SELECT id FROM users WHERE account_id = 1 AND age BETWEEN 1 AND 5",
    "SELECT id FROM users WHERE account_id = 1 AND email > 'a'",
    "SELECT id FROM users WHERE ssn = '111'",
    "SELECT max(email) FROM users",
    "SELECT email FROM users ORDER BY email",
    "SELECT coalesce(email, ssn) FROM users",
    "SELECT string_agg(email, ',') FROM users",
    "INSERT INTO users (id, account_id, email) SELECT id + 100, account_id, lower(name) FROM users",
    "INSERT INTO users (id, account_id, email) SELECT id + 100, account_id, coalesce(email, 'x') FROM users",
    "WITH c AS (DELETE FROM contacts RETURNING *) INSERT INTO users (id, account_id, email) SELECT id + 100, account_id, email FROM c",
    "WITH c AS (SELECT * FROM contacts) INSERT INTO users (id, account_id, email) SELECT id + 100, account_id, email FROM c RETURNING (SELECT count(*) FROM c)",
    "UPDATE users SET account_id = 2 WHERE id = 1",
    "INSERT INTO users (id, account_id, email) VALUES (1, 2, 'other') ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email",
    "MERGE INTO users u USING orders o ON o.user_id = u.id WHEN MATCHED THEN UPDATE SET email = 'x'",
    "UPDATE users SET email = ssn WHERE id = 1",
    "UPDATE users_view SET email = 'x' WHERE id > 40",
];

async fn with_parameters(twins: &Twins) -> Vec<String> {
    let text = |s: &str| Text(Some(s.to_owned()));
    let (list, none, numbers) = (vec!["ann@x", "bob@x"], None::<Vec<&str>>, vec![30i32, 41]);
    let with_null = vec![Some("ann@x"), None];
    let empty: Vec<&str> = vec![];
    let mut runs: Vec<(&str, Vec<&(dyn ToSql + Sync)>)> = vec![
        ("SELECT id FROM users WHERE account_id = 1 AND email = ANY ($1)", vec![&list]),
        ("SELECT id FROM users WHERE account_id = 1 AND email = ANY ($1::text[])", vec![&list]),
        ("SELECT id FROM users WHERE account_id = 1 AND email <> ALL ($1)", vec![&list]),
        ("SELECT id FROM users WHERE account_id = 1 AND NOT (email = ANY ($1))", vec![&with_null]),
        ("SELECT id FROM users WHERE account_id = 1 AND email = ANY ($1)", vec![&none]),
        ("SELECT id FROM users WHERE account_id = 1 AND email = ANY ($1)", vec![&empty]),
        ("SELECT id FROM users WHERE account_id IN (1, 2) AND email = ANY ($1)", vec![&list]),
        ("SELECT id FROM users WHERE account_id = 1 AND age = ANY ($1)", vec![&numbers]),
        ("SELECT id FROM users WHERE login = ANY ($1)", vec![&list]),
        ("SELECT id FROM memos WHERE tag = ANY ($1)", vec![&list]),
    ];
    let (one, ann, braces, null) = (text("1"), text("ann@x"), text("{ann@x, \"bob@x\"}"), Text(None));
    let (odd, large) = (text("abc"), text("99999999999999999999"));
    let more: Vec<(&str, Vec<&Text>)> = vec![
        ("SELECT id FROM users WHERE account_id = $1 AND email = $2", vec![&null, &ann]),
        ("SELECT id FROM users WHERE account_id IN (1, $1) AND email <> $2", vec![&null, &ann]),
        ("SELECT id FROM users WHERE name = 'Bob' OR (account_id = $1 AND email = ANY ($2))", vec![&null, &braces]),
        ("SELECT id FROM users WHERE account_id = $1 AND email = $2", vec![&odd, &ann]),
        ("SELECT id FROM users WHERE account_id = $1 AND email = $2", vec![&large, &ann]),
        ("INSERT INTO users (id, account_id, email) VALUES (90, $1, $2)", vec![&odd, &ann]),
        ("UPDATE users SET email = $2 WHERE id = 1 AND account_id = $1", vec![&odd, &ann]),
        ("UPDATE users SET email = $2 WHERE id = 1 AND account_id = $1", vec![&null, &ann]),
        ("SELECT id FROM users WHERE account_id = $1 AND email = ANY ($2)", vec![&one, &braces]),
        ("SELECT id FROM users WHERE account_id = $1 AND email IN ($2, $3)", vec![&one, &ann, &null]),
        ("SELECT id FROM users WHERE (account_id, email) = ($1, $2)", vec![&one, &ann]),
        ("SELECT id FROM users WHERE (account_id, email) IN (($1, $2), (2, $2))", vec![&one, &ann]),
        ("SELECT id FROM users WHERE account_id = $1 AND email IS NOT DISTINCT FROM $2", vec![&one, &null]),
        (
            "SELECT id FROM users WHERE account_id = $1 AND CASE email WHEN $2 THEN true ELSE false END",
            vec![&one, &ann],
        ),
        (
            "SELECT u.email, count(*) FROM users u WHERE account_id = $1 GROUP BY u.email HAVING u.email = $2",
            vec![&one, &ann],
        ),
        ("UPDATE users SET account_id = $1, email = $2, ssn = $2 WHERE id = 1 RETURNING id, email", vec![&one, &ann]),
        ("UPDATE users SET email = coalesce($1, email) WHERE id = 1 AND account_id = 1", vec![&null]),
        ("UPDATE users SET ssn = coalesce($1, ssn) WHERE name IS NOT NULL", vec![&ann]),
        (
            "INSERT INTO users (id, account_id, email) VALUES (60, $1, $2) ON CONFLICT (account_id, email) DO UPDATE SET email = EXCLUDED.email",
            vec![&one, &ann],
        ),
        ("SELECT id FROM contacts WHERE $1 IN (SELECT login FROM users)", vec![&ann]),
    ];
    runs.extend(more.into_iter().map(|(sql, params)| (sql, params.into_iter().map(|p| p as _).collect())));
    let mut wrong = Vec::new();
    for (sql, params) in runs {
        wrong.extend(twins.with(sql, &params).await.err());
    }
    let (ages, by_age) = (vec![30i64, 41], "SELECT id FROM users WHERE account_id = 1 AND age = ANY ($1)");
    wrong.extend(twins.typed(by_age, &[Type::INT8_ARRAY], &[&ages]).await.err());
    let by_tag = "SELECT id FROM memos WHERE tag = ANY ($1)";
    wrong.extend(twins.typed(by_tag, &[Type::TEXT_ARRAY], &[&vec!["red", "longer than the column"]]).await.err());
    wrong
}

#[test]
fn statements_on_sealed_tables_give_what_they_give_on_plain_ones() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins().await;
        let mut wrong = Vec::new();
        for sql in STATEMENTS {
            wrong.extend(twins.simple(sql).await.err());
            if !sql.starts_with("EXECUTE") && !sql.starts_with("DROP TABLE") {
                wrong.extend(twins.with(sql, &[]).await.err());
            }
        }
        wrong.extend(with_parameters(&twins).await);
        assert!(wrong.is_empty(), "{} of them differ:\n{}\n{}", wrong.len(), wrong.join("\n"), twins.tail());
    });
}

#[test]
fn what_cannot_be_done_safely_is_refused_by_name() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins().await;
        let mut wrong = Vec::new();
        for sql in REFUSED {
            match simple(&twins.sealed, sql).await {
                Outcome::Error(code) if code == "0A000" => {}
                other => wrong.push(format!("{sql}: {other:?}")),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn a_lookup_uses_the_index_on_tokens() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins().await;
        twins.sealed.batch_execute("SET enable_seqscan = off").await.unwrap();
        for (sql, index) in [
            ("EXPLAIN SELECT id FROM users WHERE account_id = 1 AND email = 'ann@x'", "users_email"),
            ("EXPLAIN SELECT id FROM users WHERE account_id = 1 AND email = ANY ('{ann@x,b}')", "users_email"),
            ("EXPLAIN SELECT id FROM users WHERE login IN ('ann', 'eve')", "users_login"),
            ("EXPLAIN SELECT u.id FROM contacts c JOIN users u ON u.login = c.login", "users_login"),
            ("EXPLAIN SELECT id FROM users_view WHERE account_id = 1 AND email = 'ann@x'", "users_email"),
        ] {
            let Outcome::Simple(plan) = simple(&twins.sealed, sql).await else { panic!("{sql}") };
            assert!(plan.iter().any(|line| line.contains(index)), "{sql}: {plan:#?}");
        }
    });
}
