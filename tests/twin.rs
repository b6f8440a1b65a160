//! The same statements on a plain table directly and on its sealed twin through the proxy: results, types, tags and
//! errors must be equal (T1, T3, T4, T5, E2, E4).
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::postgres::{Cluster, Version, connect_at};
use crate::support::proxy::{Proxy, Site};
use crate::support::raw::{Binary, Raw, Text};

/// Column, SQL type, values in text form, and bad input, where there is any.
pub const TYPES: &[(&str, &str, &[&str], Option<&str>)] = &[
    ("c_text", "text", &["", "alice@example.com", "Zoë ☃ 'quoted' \\ back", "x\ty"], None),
    ("c_varchar", "varchar(20)", &["", "short", "exactly twenty chars"], Some("longer than twenty characters")),
    ("c_int4", "int4", &["0", "-2147483648", "2147483647", " 42 "], Some("4x2")),
    ("c_int8", "int8", &["0", "-9223372036854775808", "9007199254740993"], Some("9223372036854775808")),
    ("c_bool", "bool", &["t", "false", "yes", "0"], Some("maybe")),
    ("c_date", "date", &["2024-02-29", "0001-01-01", "infinity"], Some("2023-02-30")),
    (
        "c_timestamptz",
        "timestamptz",
        &["2024-02-29 12:34:56.789+02", "1999-12-31T23:59:59Z", "-infinity"],
        Some("2024-13-01 00:00"),
    ),
    ("c_numeric", "numeric(12,2)", &["0", "-1234.5", "9999999999.99", "NaN", "1.005"], Some("99999999999")),
    (
        "c_uuid",
        "uuid",
        &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12}"],
        Some("a0eebc99"),
    ),
    ("c_jsonb", "jsonb", &["{\"b\": 1.50, \"a\": [true, null, \"x\"]}", "[]", "\"s\"", "1e3"], Some("{\"a\":}")),
    ("c_bytea", "bytea", &["\\x", "\\xdeadbeef", "\\xc15253010100"], Some("\\xzz")),
];

fn policy() -> String {
    let mut policy = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\nname = \"public.t\"\ntenant = { column = \"account_id\" }\n\n[database.table.columns]\n".to_owned();
    for (column, ty, _, _) in TYPES {
        policy += &format!("{column} = {{ type = \"{ty}\", equality = \"tenant\" }}\n");
    }
    policy
}

/// A cluster with the tables and the proxy in front of it: `plain.t` to be used directly, `public.t` through the proxy.
pub struct Tables {
    pub cluster: Cluster,
    pub site: Site,
    pub proxy: Proxy,
}

pub fn tables(version: Version, wrapping: &str) -> Tables {
    let cluster = Cluster::start(version);
    cluster.createdb("app");
    let site = Site::new(&cluster, &policy());
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1", "--wrapping", wrapping]);
    site.run_ok(&["tenant", "register", "2", "--wrapping", wrapping]);
    let columns = |domain: bool| {
        let column = |(name, ty, _, _): &(&str, &str, _, _)| {
            let bare = ty.split('(').next().unwrap();
            if domain { format!("{name} rowseal.{bare}") } else { format!("{name} {ty}") }
        };
        let all: Vec<String> = TYPES.iter().map(column).collect();
        format!("(id int8 PRIMARY KEY, account_id int8 NOT NULL, note text, {})", all.join(", "))
    };
    cluster.psql("app", "CREATE SCHEMA plain");
    cluster.psql("app", &format!("CREATE TABLE plain.t {}", columns(false)));
    cluster.psql("app", &format!("CREATE TABLE public.t {}", columns(true)));
    let proxy = site.serve();
    Tables { cluster, site, proxy }
}

struct Twins {
    tables: Tables,
    plain: Client,
    sealed: Client,
}

async fn twins(version: Version, wrapping: &str) -> Twins {
    let tables = tables(version, wrapping);
    let plain = tables.cluster.connect("app").await;
    plain.batch_execute("SET search_path = plain").await.unwrap();
    let sealed = connect_at(tables.proxy.address(), "app").await;
    Twins { tables, plain, sealed }
}

/// What a statement gave, in terms that can be compared.
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

async fn extended(client: &Client, sql: &str, params: &[&(dyn tokio_postgres::types::ToSql + Sync)]) -> Outcome {
    let statement = match client.prepare(sql).await {
        Ok(statement) => statement,
        Err(error) => return state(&error),
    };
    let columns = statement.columns().iter().map(|c| (c.name().to_owned(), c.type_().oid())).collect();
    match client.query(&statement, params).await {
        Err(error) => state(&error),
        Ok(rows) => Outcome::Rows(
            columns,
            rows.iter().map(|row| (0..row.len()).map(|n| row.get::<_, Option<Raw>>(n)).collect()).collect(),
        ),
    }
}

async fn simple(client: &Client, sql: &str) -> Outcome {
    match client.simple_query(sql).await {
        Err(error) => state(&error),
        Ok(messages) => Outcome::Simple(messages.iter().map(line).collect()),
    }
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
    async fn simple(&self, sql: &str) {
        let (plain, sealed) = (simple(&self.plain, sql).await, simple(&self.sealed, sql).await);
        assert_eq!(plain, sealed, "simple: {sql}\n{}", self.tail());
    }

    async fn text(&self, sql: &str, params: &[Option<&str>]) {
        let params: Vec<Text> = params.iter().map(|p| Text(p.map(str::to_owned))).collect();
        let params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = params.iter().map(|p| p as _).collect();
        let (plain, sealed) = (extended(&self.plain, sql, &params).await, extended(&self.sealed, sql, &params).await);
        assert_eq!(plain, sealed, "extended, text: {sql}\n{}", self.tail());
    }

    async fn binary(&self, sql: &str, params: &[Option<Vec<u8>>]) {
        let params: Vec<Binary> = params.iter().map(|p| Binary(p.clone())).collect();
        let params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = params.iter().map(|p| p as _).collect();
        let (plain, sealed) = (extended(&self.plain, sql, &params).await, extended(&self.sealed, sql, &params).await);
        assert_eq!(plain, sealed, "extended, binary: {sql}\n{}", self.tail());
    }

    async fn binary_of(&self, value: &str, ty: &str) -> Option<Vec<u8>> {
        let sql = format!("SELECT {}::{ty}", quote(value));
        let row = self.plain.query_one(&sql, &[]).await.unwrap();
        row.get::<_, Option<Raw>>(0).map(|raw| raw.0)
    }

    fn tail(&self) -> String {
        let log = self.tables.proxy.log();
        log[log.floor_char_boundary(log.len().saturating_sub(2000))..].to_owned()
    }
}

pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

async fn every_type(twins: &Twins) -> usize {
    let (mut id, mut cases) = (100, 0);
    for (column, ty, values, bad) in TYPES {
        for value in *values {
            let q = quote(value);
            id += 10;
            twins.simple(&format!("INSERT INTO t (id, account_id, {column}) VALUES ({id}, 1, {q})")).await;
            twins.simple(&format!("SELECT id, {column}, note FROM t WHERE id = {id}")).await;
            twins.simple(&format!("SELECT id FROM t WHERE account_id = 1 AND {column} = {q} ORDER BY id")).await;
            twins
                .text(
                    &format!(
                        "INSERT INTO t (id, account_id, {column}) VALUES ({}, 2, $1) RETURNING id, {column}",
                        id + 1
                    ),
                    &[Some(value)],
                )
                .await;
            twins.text(&format!("SELECT {column} AS it FROM t WHERE id = {}", id + 1), &[]).await;
            twins
                .text(&format!("SELECT id FROM t WHERE account_id = 2 AND $1 = {column} ORDER BY id"), &[Some(value)])
                .await;
            let bytes = twins.binary_of(value, ty).await;
            twins
                .binary(
                    &format!("INSERT INTO t (id, account_id, {column}) VALUES ({}, 1, $1)", id + 2),
                    std::slice::from_ref(&bytes),
                )
                .await;
            twins
                .binary(
                    &format!("UPDATE t SET {column} = $1 WHERE account_id = 1 AND id = {} RETURNING {column}", id + 2),
                    std::slice::from_ref(&bytes),
                )
                .await;
            twins
                .binary(
                    &format!("SELECT {column}, id FROM t WHERE account_id = 1 AND {column} IN ($1) ORDER BY id"),
                    &[bytes],
                )
                .await;
            cases += 9;
        }
        if let Some(bad) = bad {
            twins.simple(&format!("INSERT INTO t (id, account_id, {column}) VALUES (1, 1, {})", quote(bad))).await;
            twins.text(&format!("INSERT INTO t (id, account_id, {column}) VALUES (1, 1, $1)"), &[Some(bad)]).await;
            cases += 2;
        }
        twins.text(&format!("SELECT id FROM t WHERE account_id = 1 AND {column} = $1"), &[None]).await;
        twins.text(&format!("UPDATE t SET {column} = $1 WHERE account_id = 2"), &[None]).await;
        twins.simple(&format!("SELECT count(*) FROM t WHERE {column} IS NULL")).await;
        cases += 3;
    }
    cases
}

pub const STATEMENTS: &[&str] = &[
    "INSERT INTO t (id, account_id, c_text, c_int4) VALUES (1, 1, 'one', 1), (2, 1, 'two', NULL), (3, 2, 'three', 3)",
    "INSERT INTO t (id, account_id, c_text) VALUES (4, 1, DEFAULT) RETURNING *",
    "INSERT INTO t (id, account_id, c_text) VALUES (1, 1, 'again')",
    "INSERT INTO t (id, account_id, c_text) VALUES (5, NULL, NULL)",
    "SELECT * FROM t WHERE id < 10 ORDER BY id",
    "SELECT u.id, u.c_text AS mail FROM t u WHERE u.id < 10 ORDER BY u.id DESC",
    "SELECT a.c_text, b.c_text FROM t a JOIN t b ON a.account_id = b.account_id WHERE a.id = 1 AND b.id = 2",
    "SELECT s.c_text FROM (SELECT id, c_text FROM t WHERE id < 10) s ORDER BY s.id",
    "SELECT id FROM t WHERE account_id = 1 AND c_text = 'two'",
    "SELECT id FROM t WHERE account_id = 1 AND c_text <> 'two' AND id < 10 ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_text IN ('one', 'two') AND id < 10 ORDER BY id",
    "SELECT id FROM t WHERE c_text IS NOT NULL AND id < 10 ORDER BY id",
    "SELECT count(c_text) FROM t WHERE id < 10",
    "UPDATE t SET c_text = 'changed' WHERE id = 1",
    "UPDATE t SET c_text = 'both', c_int4 = 7 WHERE id IN (1, 2) RETURNING id, c_text, c_int4",
    "UPDATE t SET c_text = c_text WHERE id = 3",
    "UPDATE t SET c_text = NULL WHERE id = 3",
    "UPDATE t SET note = 'n' WHERE id < 10",
    "UPDATE t AS x SET c_text = 'aliased' WHERE x.id < 3",
    "SELECT id, c_text, c_int4, note FROM t WHERE id < 10 ORDER BY id",
    "DELETE FROM t WHERE account_id = 1 AND c_text = 'aliased' AND id = 2",
    "DELETE FROM t WHERE id = 3 RETURNING id, c_text",
    "SELECT 1 AS one; SELECT c_text FROM t WHERE id = 1; SELECT 2",
    "BEGIN; INSERT INTO t (id, account_id, c_text) VALUES (9, 1, 'in one query'); COMMIT",
    "SELECT c_text FROM t WHERE id = 9 -- a comment\n",
    "/* leading */ SELECT c_text /* inner */ FROM t WHERE id = 9",
    "SELECT nothing FROM t",
    "SELECT id FROM t WHERE 1/0 = 1 AND id = 9",
    "",
];

async fn statements(twins: &Twins) -> usize {
    for sql in STATEMENTS {
        twins.simple(sql).await;
    }
    for sql in STATEMENTS.iter().filter(|sql| !sql.contains(';')) {
        twins.text(sql, &[]).await;
    }
    STATEMENTS.len() * 2 - 2
}

/// Casts that change nothing of a value: carried out.
const CASTS: &[&str] = &[
    "INSERT INTO t (id, account_id, c_numeric) VALUES (7001, 1, '1.005'::numeric) RETURNING c_numeric",
    "SELECT id FROM t WHERE account_id = 1 AND c_numeric = '1.01'::numeric ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_numeric = '1.005'::numeric ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_numeric = CAST('1.010' AS numeric) ORDER BY id",
    "INSERT INTO t (id, account_id, c_varchar, c_int8) VALUES (7002, 1, 'short'::varchar, '5'::int8) RETURNING c_varchar",
    "SELECT id FROM t WHERE account_id = 1 AND c_varchar = 'short'::varchar ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_varchar = 'short'::text ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_varchar = 'short and far too long for it' ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_int8 = '5'::int8 ORDER BY id",
    "UPDATE t SET c_varchar = (CASE WHEN id = 7002 THEN 'again' ELSE NULL END)::varchar(20) WHERE id = 7002 RETURNING c_varchar",
    "UPDATE t SET c_numeric = CAST(CASE WHEN id < 0 THEN 1 ELSE 2.005 END AS numeric(12,2)) WHERE id > 7000 AND id < 7002 RETURNING c_numeric",
    "UPDATE t SET c_numeric = '1.005'::decimal(12, 2), c_int4 = NULL::int4, c_varchar = NULL::varchar(20) WHERE id = 7002 RETURNING c_numeric, c_int4, c_varchar",
    "INSERT INTO t (id, account_id, c_numeric, c_text) VALUES (7005, 1, NULL::numeric, NULL::text) RETURNING c_numeric, c_text",
];

/// Casts that round, cut, pad or fail: as Postgres does, or refused.
const CHANGING_CASTS: &[&str] = &[
    "SELECT id FROM t WHERE account_id = 1 AND c_numeric = '1.005'::numeric(12,2) ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_numeric = '1.012'::numeric(3, 1) ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_numeric = CAST('1.005' AS decimal(12,2)) ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_numeric IN ('1.005'::numeric(12,2), 2) ORDER BY id",
    "INSERT INTO t (id, account_id, c_numeric) VALUES (7003, 1, '1.25'::numeric(3,1)) RETURNING c_numeric",
    "UPDATE t SET c_numeric = '1.25'::numeric(3,1) WHERE account_id = 1 AND id = 7001 RETURNING c_numeric",
    "SELECT id FROM t WHERE account_id = 1 AND c_varchar = 'shorter'::varchar(5) ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_varchar = 'shorter'::character varying(5) ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_varchar = 'short'::char(10) ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_varchar = 'short  '::bpchar ORDER BY id",
    "INSERT INTO t (id, account_id, c_varchar) VALUES (7004, 1, 'far too long for the column'::varchar(5)) RETURNING c_varchar",
    "SELECT id FROM t WHERE account_id = 1 AND c_int8 = '99999999999'::int4 ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_int8 = '5'::int2 ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_int4 = '5.4'::numeric::int4 ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_timestamptz = '2024-02-29 12:34:56.789+02'::timestamptz(0) ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_timestamptz = '2024-02-29 12:34:56+05'::timestamp ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_date = '2024-02-29 23:59'::timestamp::date ORDER BY id",
    "SELECT id FROM t WHERE account_id = 1 AND c_text = 'x'::name::text ORDER BY id",
];

async fn casts(twins: &Twins) -> usize {
    for sql in CASTS {
        twins.simple(sql).await;
    }
    let refused = Outcome::Error("0A000".to_owned());
    for sql in CHANGING_CASTS {
        let (plain, sealed) = (simple(&twins.plain, sql).await, simple(&twins.sealed, sql).await);
        assert!(sealed == plain || sealed == refused, "{sql}: {plain:?}, sealed: {sealed:?}");
        if sealed != plain {
            // What only the plain twin did is undone.
            simple(&twins.plain, "DELETE FROM t WHERE id > 7002").await;
        }
    }
    CASTS.len() + CHANGING_CASTS.len()
}

fn check(version: Version, wrapping: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins(version, wrapping).await;
        let cases = every_type(&twins).await + statements(&twins).await + casts(&twins).await;
        assert!(cases >= 120, "only {cases} cases");
    });
}

#[test]
fn twins_agree_on_postgres_15_direct() {
    check(Version::V15, "direct");
}

#[test]
fn twins_agree_on_postgres_18_hierarchical() {
    check(Version::V18, "hierarchical");
}
