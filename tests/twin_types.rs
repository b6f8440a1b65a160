//! Every logical type that is not in [`crate::twin`], and arrays of all of them, through the proxy and beside a plain
//! twin: literals and parameters, text and binary, equality, settings of the session, errors (T1, T3, T4).
use rowseal::types::LogicalType;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::postgres::{Cluster, Version, connect_at};
use crate::support::proxy::{Proxy, Site};
use crate::support::raw::{Binary, Raw, Text};

/// SQL type, values in text form, and bad ones.
pub const TYPES: &[(&str, &[&str], &[&str])] = &[
    ("char(5)", &["", "ab", "abc  ", "Zoë ☃"], &["abcdef"]),
    ("bpchar", &["", "ab", "ab   "], &[]),
    ("int2", &["0", "-32768", " 32767 "], &["32768", "1.5", "x"]),
    ("float4", &["0", "-0", "1.1", "3.4e38", "1e-45", "NaN", "-inf", "16777217"], &["1e39", "1e-46", "1,1"]),
    (
        "float8",
        &["0", "-0", "0.1", "1e23", "1.7976931348623157e308", "nan", "Infinity", "123456789.125"],
        &["1e309", ""],
    ),
    ("time", &["00:00", "23:59:59.999999", "24:00:00", "04:05:06.7 +02"], &["24:00:01", "4", "12:60"]),
    ("time(2)", &["12:00:00.005", "23:59:59.999"], &["x"]),
    ("timetz", &["00:00+00", "23:59:59.5-08", "12:00:00+05:30"], &["12:00+16", "25:00+00", "12"]),
    (
        "timestamp",
        &["2024-02-29 12:34:56.789", "0044-03-15 10:00 BC", "infinity", "2024-02-29T00:00Z"],
        &["2024-02-30", "x"],
    ),
    ("timestamp(0)", &["2024-02-29 12:34:56.5", "1999-12-31 23:59:59.999"], &["2024-13-01"]),
    ("timestamptz(1)", &["2024-02-29 12:34:56.75+02"], &["2024-02-29 25:00"]),
    (
        "interval",
        &[
            "1 month",
            "30 days",
            "720:00",
            "1 year 2 mons -3 days +04:05:06.7",
            "P1Y2M3DT4H5M6S",
            "-1-2",
            "0",
            "1.5 days ago",
        ],
        &["1 moon", "1 2", "999999999999 years", "1:60"],
    ),
    ("interval(1)", &["00:00:00.05", "-0.04"], &["x"]),
    ("json", &["{\"b\": 1.50, \"b\" : [ ]}", "\"\\u0000\"", " 1e999 "], &["{", "", "01"]),
    ("inet", &["10.0.0.1", "10.0.0.1/8", "::1", "2001:DB8::1/64", "::ffff:1.2.3.4"], &["10.0.0.256", "::1/129", "x"]),
    ("cidr", &["10.0.0.0/8", "::/0", "2001:db8::/32"], &["10.0.0.1/8", "x"]),
    (
        "text[]",
        &["{}", "{a,\"b c\",NULL,\"null\",\"\"}", " { a , \"q\\\"\\\\\" } ", "[0:1]={x,y}"],
        &["{a", "{a,}", "[1:2]={a}", "a"],
    ),
    ("varchar(3)[]", &["{abc,\"de  \",NULL}"], &["{abcd}"]),
    ("char(3)[]", &["{a,\"b \"}"], &["{abcd}"]),
    ("int2[]", &["{1,2,NULL}"], &["{1,x}", "{40000}"]),
    ("int4[]", &["{}", "{1,2,3}", "{NULL}", "{ -5 }"], &["{1,,2}", "{1.5}", "[2:1]={}"]),
    ("int8[]", &["{9223372036854775807}"], &["{9223372036854775808}"]),
    ("float4[]", &["{1.1,NaN,-0}"], &["{1e99}"]),
    ("float8[]", &["{1.1,NaN,-0}"], &["{x}"]),
    ("numeric(6,2)[]", &["{1,2.345,NaN}"], &["{12345.6}"]),
    ("numeric[]", &["{1.0,2.50}", "{1.00,2.5}"], &["{x}"]),
    ("bool[]", &["{t,false,yes}"], &["{maybe}"]),
    ("date[]", &["{2024-02-29,infinity}"], &["{2024-02-30}"]),
    ("time[]", &["{12:00,23:59:59.5}"], &["{25:00}"]),
    ("timetz[]", &["{12:00+01}"], &["{12:00+16}"]),
    ("timestamp[]", &["{\"2024-02-29 12:00:00\",-infinity}"], &["{x}"]),
    ("timestamptz[]", &["{\"2024-07-01 12:00:00+02\",2024-01-01}"], &["{x}"]),
    ("interval[]", &["{\"1 day\",24:00,NULL}"], &["{x}"]),
    ("uuid[]", &["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"], &["{a0}"]),
    ("json[]", &["{\"{\\\"a\\\": 1}\",null}"], &["{x}"]),
    ("jsonb[]", &["{\"{\\\"b\\\": 1, \\\"a\\\": 1.0}\",1}"], &["{x}"]),
    ("bytea[]", &["{\"\\\\xdead\",abc,\"\"}"], &["{\"\\\\xabc\"}"]),
    ("inet[]", &["{10.0.0.1/8,::1}"], &["{x}"]),
    ("cidr[]", &["{10.0.0.0/8}"], &["{10.0.0.1/8}"]),
];

/// Settings that decide how values are written, and read.
pub const SETTINGS: &[&str] = &[
    "SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard'; SET TimeZone = 'America/New_York'; SET extra_float_digits = 0",
    "SET DateStyle = 'Postgres, MDY'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'Asia/Kolkata'; SET extra_float_digits = -3",
    "SET DateStyle = 'German'; SET IntervalStyle = 'postgres_verbose'; SET bytea_output = 'escape'; SET extra_float_digits = 3",
    "SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; RESET bytea_output",
];

pub fn column(n: usize) -> String {
    format!("c{n}")
}

fn logical(name: &str) -> LogicalType {
    LogicalType::parse(name).unwrap()
}

fn policy() -> String {
    let mut policy =
        "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\nname = \"public.k\"\n\
        tenant = { column = \"account_id\" }\n\n[database.table.columns]\n\
        folded = { type = \"citext\", equality = \"tenant\" }\n"
            .to_owned();
    for (n, (ty, ..)) in TYPES.iter().enumerate() {
        let equality = if logical(ty).has_equality() { ", equality = \"tenant\"" } else { "" };
        policy += &format!("{} = {{ type = \"{ty}\"{equality} }}\n", column(n));
    }
    policy
}

pub struct Twins {
    pub cluster: Cluster,
    _site: Site,
    pub proxy: Proxy,
    plain: Client,
    sealed: Client,
}

pub async fn twins(version: Version) -> Twins {
    let cluster = Cluster::start(version);
    cluster.createdb("app");
    let site = Site::new(&cluster, &policy());
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1", "--wrapping", "hierarchical"]);
    let table = |name: &str, of: fn(&str) -> String| {
        let columns = TYPES.iter().enumerate().map(|(n, (ty, ..))| format!("{} {}", column(n), of(ty)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let folded = of("citext").replace("citext", if name.starts_with("plain") { "text" } else { "citext" });
        format!("CREATE TABLE {name} (id int8 PRIMARY KEY, account_id int8 NOT NULL, folded {folded}, {columns})")
    };
    cluster.psql("app", "CREATE SCHEMA plain");
    cluster.psql("app", &table("plain.k", str::to_owned));
    cluster.psql("app", &table("public.k", |ty| format!("rowseal.{}", logical(ty).domain())));
    let plain = cluster.connect("app").await;
    plain.batch_execute("SET search_path = plain").await.unwrap();
    let proxy = site.serve();
    let sealed = connect_at(proxy.address(), "app").await;
    Twins { cluster, _site: site, proxy, plain, sealed }
}

/// Names, types and values, or an SQLSTATE.
type Outcome = Result<(Vec<(String, u32)>, Vec<Vec<Option<Vec<u8>>>>), String>;

fn state(error: &tokio_postgres::Error) -> String {
    error.code().map(SqlState::code).unwrap_or_else(|| panic!("not a server error: {error:?}")).to_owned()
}

async fn extended(client: &Client, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Outcome {
    let statement = client.prepare(sql).await.map_err(|error| state(&error))?;
    let columns = statement.columns().iter().map(|c| (c.name().to_owned(), c.type_().oid())).collect();
    let rows = client.query(&statement, params).await.map_err(|error| state(&error))?;
    let values =
        |row: &tokio_postgres::Row| (0..row.len()).map(|n| row.get::<_, Option<Raw>>(n).map(|r| r.0)).collect();
    Ok((columns, rows.iter().map(values).collect()))
}

async fn simple(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let messages = client.simple_query(sql).await.map_err(|error| state(&error))?;
    let line = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => format!("{:?}", (0..row.len()).map(|n| row.get(n)).collect::<Vec<_>>()),
        other => format!("{other:?}"),
    };
    Ok(messages.iter().map(line).collect())
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Twins {
    /// Gives what both said.
    async fn simple(&self, sql: &str) -> Result<Vec<String>, String> {
        let (plain, sealed) = (simple(&self.plain, sql).await, simple(&self.sealed, sql).await);
        assert_eq!(plain, sealed, "simple: {sql}\n{}", self.tail());
        plain
    }

    async fn text(&self, sql: &str, value: Option<&str>) -> Outcome {
        let param = Text(value.map(str::to_owned));
        let plain = extended(&self.plain, sql, &[&param]).await;
        assert_eq!(plain, extended(&self.sealed, sql, &[&param]).await, "text {value:?}: {sql}\n{}", self.tail());
        plain
    }

    async fn binary(&self, sql: &str, value: &[u8]) -> Outcome {
        let param = Binary(Some(value.to_vec()));
        let plain = extended(&self.plain, sql, &[&param]).await;
        assert_eq!(plain, extended(&self.sealed, sql, &[&param]).await, "binary {value:?}: {sql}\n{}", self.tail());
        plain
    }

    fn tail(&self) -> String {
        let log = self.proxy.log();
        log[log.floor_char_boundary(log.len().saturating_sub(2000))..].to_owned()
    }
}

/// One value by every road.
async fn value(twins: &Twins, id: i64, column: &str, ty: &str, value: &str) {
    let (q, again) = (quote(value), id + 1);
    let insert = |id: i64, what: &str| format!("INSERT INTO k (id, account_id, {column}) VALUES ({id}, 1, {what})");
    assert!(twins.simple(&insert(id, &q)).await.is_ok(), "{q}::{ty}");
    twins.simple(&format!("SELECT id, {column} FROM k WHERE id = {id}")).await.unwrap();
    assert!(twins.text(&format!("{} RETURNING {column}", insert(again, "$1")), Some(value)).await.is_ok());
    let bytes = extended(&twins.plain, &format!("SELECT {column} FROM k WHERE id = {id}"), &[]).await.unwrap().1;
    let bytes = bytes[0][0].clone().unwrap();
    assert!(twins.binary(&insert(id + 2, "$1"), &bytes).await.is_ok(), "{q}::{ty}");
    twins
        .binary(&format!("UPDATE k SET {column} = $1 WHERE account_id = 1 AND id = {again} RETURNING {column}"), &bytes)
        .await
        .unwrap();
    let short = twins.binary(&insert(id + 3, "$1"), &[]).await;
    if short.is_ok() {
        twins.simple(&format!("DELETE FROM k WHERE id = {}", id + 3)).await.unwrap();
    }
    if !logical(ty).has_equality() {
        return;
    }
    let find = |what: &str| format!("SELECT id FROM k WHERE account_id = 1 AND {column} = {what} ORDER BY id");
    let found = twins.simple(&find(&q)).await.unwrap();
    // A char(n) or a rounded value is not always equal to what was written.
    assert!(found.len() > 4 || ty.contains('('), "{q}::{ty} is not found: {found:?}");
    twins.text(&find("$1"), Some(value)).await.unwrap();
    twins.binary(&find("$1"), &bytes).await.unwrap();
    twins.simple(&find(&format!("{q}::{}", logical(ty).without_modifier()))).await.unwrap();
    if ["time", "timestamp", "interval", "inet", "float8"].contains(&ty) {
        twins.simple(&find(&format!("{ty} {q}"))).await.unwrap();
    }
    twins
        .text(&format!("SELECT id FROM k WHERE account_id = 1 AND {column} IN ($1, {q}) ORDER BY id"), Some(value))
        .await
        .unwrap();
}

async fn every_type(twins: &Twins) {
    let mut id = 0;
    for (n, (ty, values, bad)) in TYPES.iter().enumerate() {
        let column = column(n);
        for text in *values {
            id += 10;
            value(twins, id, &column, ty, text).await;
        }
        for bad in *bad {
            let insert = |what: &str| format!("INSERT INTO k (id, account_id, {column}) VALUES (-1, 1, {what})");
            assert!(twins.simple(&insert(&quote(bad))).await.is_err(), "{bad:?}::{ty}");
            assert!(twins.text(&insert("$1"), Some(bad)).await.is_err(), "{bad:?}::{ty}");
        }
    }
    for settings in SETTINGS {
        twins.simple(settings).await.unwrap();
        let rows = twins.simple("SELECT * FROM k ORDER BY id").await.unwrap();
        assert!(rows.len() > 200, "{}", rows.len());
    }
}

/// Type names with their modifiers, as a client makes them out of RowDescription.
fn described(twins: &Twins) {
    let columns: Vec<String> = (0..TYPES.len()).map(column).collect();
    let sql = |schema: &str| format!("SET search_path = {schema};\nSELECT {} FROM k \\gdesc\n", columns.join(", "));
    let plain = twins.cluster.psql_at(twins.cluster.host_port(), "app", &sql("plain")).unwrap();
    let sealed = twins.cluster.psql_at(twins.proxy.address(), "app", &sql("public")).unwrap();
    assert_eq!(plain, sealed);
    for (ty, ..) in TYPES {
        assert!(plain.contains(&logical(ty).to_string()), "{ty} in {plain}");
    }
}

/// citext is of an extension: found in any case, kept as written, shown as text.
async fn folded(twins: &Twins) {
    for (id, value) in [(9001, "Alice"), (9002, "ALICE"), (9003, "Ärger"), (9004, "bob ")] {
        twins
            .sealed
            .execute("INSERT INTO k (id, account_id, folded) VALUES ($1, 1, $2)", &[&i64::from(id), &value])
            .await
            .unwrap();
    }
    let found = |value: &'static str| async move {
        let sql = "SELECT folded, id FROM k WHERE account_id = 1 AND folded = $1 ORDER BY id";
        let rows = twins.sealed.query(sql, &[&value]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
    };
    assert_eq!(found("aLICE").await, ["Alice", "ALICE"]);
    assert_eq!(found("äRGER").await, ["Ärger"]);
    assert!(found("bob").await.is_empty());
}

/// Numbers without quotation marks, as values and in comparisons.
async fn numbers(twins: &Twins) {
    let rows = [
        ("int2", &["7", "-7", "+7"][..]),
        ("float4", &["1.1", "16777217", "-3e10", "0"]),
        ("float8", &["1.1", "9007199254740993", "1e-7", "-12.50", "0", "9223372036854775807"]),
    ];
    let mut id = 8000;
    for (ty, numbers) in rows {
        let column = column(TYPES.iter().position(|(known, ..)| *known == ty).unwrap());
        for number in numbers {
            id += 1;
            let insert =
                format!("INSERT INTO k (id, account_id, {column}) VALUES ({id}, 1, {number}) RETURNING {column}");
            twins.simple(&insert).await.unwrap();
            if ty != "float4" {
                let find = format!("SELECT id FROM k WHERE account_id = 1 AND {column} = {number} ORDER BY id");
                assert!(twins.simple(&find).await.unwrap().len() > 2, "{find}");
            }
        }
    }
}

/// The constructor of arrays, as some drivers write them into the text of a statement.
async fn constructors(twins: &Twins) {
    let rows = [
        ("text[]", "ARRAY['a', 'b c', NULL, 'null', '', 'q\"\\']", true),
        ("text[]", "ARRAY[NULL]::text[]", true),
        ("varchar(3)[]", "ARRAY['abc', 'd']", false),
        ("int4[]", "ARRAY[1, -2, NULL]", false),
        ("int4[]", "ARRAY['1', '-2']::int4[]", true),
        ("int8[]", "ARRAY[9007199254740993]", false),
        ("numeric[]", "ARRAY[1.50, 2]", false),
        ("bool[]", "ARRAY[true, false]", true),
        ("date[]", "ARRAY['2024-02-29']::date[]", true),
        ("bytea[]", "ARRAY['\\xdead']::bytea[]", true),
    ];
    for (n, (ty, array, compared)) in rows.into_iter().enumerate() {
        let column = column(TYPES.iter().position(|(known, ..)| *known == ty).unwrap());
        let insert =
            format!("INSERT INTO k (id, account_id, {column}) VALUES ({}, 1, {array}) RETURNING {column}", 8500 + n);
        assert!(twins.simple(&insert).await.is_ok(), "{insert}");
        if compared {
            let found = twins
                .simple(&format!("SELECT id FROM k WHERE account_id = 1 AND {column} = {array} ORDER BY id"))
                .await;
            assert!(found.unwrap().len() > 2, "{array}");
        }
    }
}

/// What the proxy alone refuses says why.
async fn refusals(twins: &Twins) {
    let array = column(TYPES.iter().position(|(ty, ..)| *ty == "int4[]").unwrap());
    let time = column(TYPES.iter().position(|(ty, ..)| *ty == "timetz").unwrap());
    twins.simple("SET TimeZone = 'Europe/Berlin'").await.unwrap();
    for (column, value, code) in [(array, "{{1,2},{3,4}}", "0A000"), (time, "12:00", "22007")] {
        let sql = format!("INSERT INTO k (id, account_id, {column}) VALUES (-2, 1, '{value}')");
        let error = twins.sealed.simple_query(&sql).await.unwrap_err();
        assert_eq!(state(&error), code);
        assert!(error.as_db_error().unwrap().hint().is_some(), "{error:?}");
    }
}

/// A value of the wrong type is a value all the same: no error, no log of either side shows it.
async fn secrecy(twins: &Twins) {
    let mut refused = 0;
    for (n, (ty, ..)) in TYPES.iter().enumerate() {
        let value = if ty.ends_with("[]") { "{canary-7f3a}" } else { "canary-7f3a" };
        let insert =
            |what: &str| format!("INSERT INTO k (id, account_id, {}) VALUES ({}, 1, {what})", column(n), 9100 + n);
        let simple = twins.sealed.simple_query(&insert(&quote(value))).await.map(drop);
        let text = twins.sealed.execute(&insert("$1"), &[&Text(Some(value.to_owned()))]).await.map(drop);
        let binary = twins.sealed.execute(&insert("$1"), &[&Binary(Some(value.into()))]).await.map(drop);
        for error in [simple, text, binary].into_iter().filter_map(Result::err) {
            refused += 1;
            assert!(!format!("{error:?}").contains("canary-7f3a"), "{ty}: {error:?}");
        }
    }
    assert!(refused > 2 * TYPES.len(), "{refused}");
    assert!(!twins.cluster.log().contains("canary-7f3a") && !twins.proxy.log().contains("canary-7f3a"));
}

fn check(version: Version) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins(version).await;
        every_type(&twins).await;
        described(&twins);
        folded(&twins).await;
        numbers(&twins).await;
        constructors(&twins).await;
        refusals(&twins).await;
        secrecy(&twins).await;
    });
}

#[test]
fn twins_of_the_other_types_agree_on_postgres_15() {
    check(Version::V15);
}

#[test]
fn twins_of_the_other_types_agree_on_postgres_18() {
    check(Version::V18);
}
