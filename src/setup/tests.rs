//! Does the schema do what the proxy counts on? Against a real Postgres.
use super::cluster::Cluster;
use super::*;
use crate::types::{Element, LogicalType};

/// A well-formed cell with a token (or none) and the given payload length; not one that opens.
fn cell(token: bool) -> Vec<u8> {
    let mut bytes = vec![0xc1, 0x52, 0x53, 1, 1, 0, if token { 16 } else { 0 }, 0];
    if token {
        bytes.extend([7; 16]);
    }
    bytes.extend([1; 16]);
    bytes.push(1);
    bytes.extend([2; 16]);
    bytes.extend([0, 60]);
    bytes.extend([3; 60 + 12 + 32 + 5 + 16]);
    bytes
}

async fn code(client: &Client, sql: &str) -> String {
    client.batch_execute(sql).await.unwrap_err().code().unwrap().code().to_owned()
}

#[tokio::test]
async fn installs_without_superuser_and_twice() {
    let Some(cluster) = Cluster::start().await else { return };
    let root = cluster.connect("postgres").await;
    root.batch_execute(
        "CREATE ROLE control LOGIN; CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE postgres TO control",
    )
    .await
    .unwrap();
    let control = cluster.connect("control").await;
    assert_eq!(install(&control).await.unwrap(), Installed { from: 0, to: LATEST });
    assert!(install(&control).await.unwrap().unchanged());
    root.batch_execute("CREATE SCHEMA app AUTHORIZATION app").await.unwrap();
    let app = cluster.connect("app").await;
    domains_hold(&app).await;
    helpers_work(&app).await;
    refusals_are_errors(&app).await;
    assert_eq!(code(&app, "SELECT * FROM rowseal.tenant").await, "42501");
    assert_eq!(code(&app, "SELECT * FROM rowseal.schema_version").await, "42501");
    control.batch_execute("INSERT INTO rowseal.schema_version VALUES (1000)").await.unwrap();
    assert!(matches!(install(&control).await, Err(SetupError::Newer { found: 1000, .. })));
}

async fn domains_hold(app: &Client) {
    app.batch_execute(
        "CREATE TABLE app.t (id int primary key, email rowseal.text, a rowseal.varchar, b rowseal.int4, c rowseal.int8,
            d rowseal.bool, e rowseal.date, f rowseal.timestamptz, g rowseal.numeric, h rowseal.uuid, i rowseal.jsonb,
            j rowseal.bytea);
         CREATE UNIQUE INDEX ON app.t (rowseal.eq(email))",
    )
    .await
    .unwrap();
    assert_eq!(code(app, "INSERT INTO app.t (id, email) VALUES (1, 'a@b.example')").await, "23514");
    let insert = "INSERT INTO app.t (id, email) VALUES ($1, $2::bytea)";
    let good = cell(true);
    for broken in [&good[..7], &good[..107], &good[..good.len() - 1], b"", &[&b"x"[..], &good[1..]].concat()] {
        assert!(app.execute(insert, &[&1i32, &broken]).await.is_err());
    }
    let mut long = good.clone();
    long[7] = 255;
    assert!(app.execute(insert, &[&1i32, &long]).await.is_err());
    app.execute(insert, &[&1i32, &good]).await.unwrap();
    app.execute(insert, &[&2i32, &cell(false)]).await.unwrap();
    app.execute(insert, &[&3i32, &None::<Vec<u8>>]).await.unwrap();
    assert_eq!(app.execute(insert, &[&4i32, &good]).await.unwrap_err().code().unwrap().code(), "23505");
}

/// Whoever set up an earlier release gets the domains that were added since.
#[tokio::test]
async fn an_older_schema_is_brought_up_to_date() {
    let Some(cluster) = Cluster::start().await else { return };
    let client = cluster.connect("postgres").await;
    client.batch_execute("CREATE SCHEMA rowseal; SET search_path = pg_catalog").await.unwrap();
    create_version_table(&client).await.unwrap();
    client.batch_execute(STEPS[0]).await.unwrap();
    client.batch_execute("INSERT INTO rowseal.schema_version (version) VALUES (1)").await.unwrap();
    assert_eq!(install(&client).await.unwrap(), Installed { from: 1, to: LATEST });
    let rows = client
        .query("SELECT typname::text FROM pg_type WHERE typnamespace = 'rowseal'::regnamespace AND typtype = 'd'", &[])
        .await
        .unwrap();
    let mut found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut needed: Vec<&str> = LogicalType::all().flat_map(|ty| [ty.domain(), array_of(ty).domain()]).collect();
    found.sort();
    needed.sort_unstable();
    assert_eq!(found, needed);
    client
        .batch_execute("CREATE ROLE app; SET ROLE app; CREATE TEMP TABLE t (a rowseal.interval_array)")
        .await
        .unwrap();
}

fn array_of(ty: LogicalType) -> LogicalType {
    LogicalType::Array(Element::of(ty).unwrap())
}

async fn helpers_work(app: &Client) {
    let rows = app.query("SELECT rowseal.eq(email) FROM app.t ORDER BY id", &[]).await.unwrap();
    let tokens: Vec<Option<Vec<u8>>> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(tokens, [Some(vec![7; 16]), None, None]);
    let row = app
        .query_one(
            "SELECT rowseal.with_tenant(email, 'né'), rowseal.with_tenant(email, NULL), rowseal.with_tenant(NULL, 'x')
             FROM app.t WHERE id = 1",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, Vec<u8>>(0), [&[0, 0, 0, 3][..], "né".as_bytes(), &cell(true)].concat());
    assert_eq!(row.get::<_, Vec<u8>>(1), [&[0xff; 4][..], &cell(true)].concat());
    assert_eq!(row.get::<_, Option<Vec<u8>>>(2), None);
    let plan = explain(app, "SELECT 1 FROM app.t WHERE rowseal.eq(email) = '\\x01'").await;
    assert!(plan.contains("Index Cond"), "{plan}");
    let plan = explain(app, "SELECT rowseal.with_tenant(email, id::text) FROM app.t").await;
    assert!(!plan.contains("with_tenant"), "{plan}");
}

async fn explain(app: &Client, sql: &str) -> String {
    app.batch_execute("SET enable_seqscan = off").await.unwrap();
    let rows = app.query(&format!("EXPLAIN (VERBOSE, COSTS OFF) {sql}"), &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
}

async fn refusals_are_errors(app: &Client) {
    for (detail, hint) in [("", ""), ("A detail.", ""), ("", "A hint."), ("A detail.", "A hint.")] {
        let error = app
            .execute("SELECT rowseal.refuse('0A000', 'it''s % refused', $1, $2)", &[&detail, &hint])
            .await
            .unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.message()), ("0A000", "it's % refused"));
        assert_eq!(error.detail().unwrap_or(""), detail);
        assert_eq!(error.hint().unwrap_or(""), hint);
    }
}

/// The check runs on whatever anybody tries to store: it must judge, never fail.
#[tokio::test]
async fn is_cell_judges_any_bytes() {
    let Some(cluster) = Cluster::start().await else { return };
    let client = cluster.connect("postgres").await;
    install(&client).await.unwrap();
    let any = "SELECT count(*) FILTER (WHERE rowseal.is_cell(cell)), count(rowseal.eq(cell)), count(*)
        FROM generate_series(0, 450) n, unnest('{00,10,11,ff}'::text[]) token, unnest('{00,01,ff}'::text[]) extensions,
            unnest('{00,01,ff}'::text[]) filler,
            LATERAL (SELECT substring(decode('c15253010100' || token || extensions || repeat(filler, 450), 'hex')
                FROM 1 FOR n) AS cell) made";
    let row = client.query_one(any, &[]).await.unwrap();
    let (cells, tokens, all) = (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2));
    assert!(0 < cells && cells < all / 2 && 0 < tokens && tokens < all, "{cells} {tokens} {all}");
}

#[tokio::test]
async fn a_dump_restores_with_its_cells_and_registry() {
    let Some(cluster) = Cluster::start().await else { return };
    let client = cluster.connect("postgres").await;
    install(&client).await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (id int primary key, email rowseal.text);
             CREATE UNIQUE INDEX ON t (rowseal.eq(email));
             CREATE VIEW v AS SELECT rowseal.with_tenant(email, 'x') FROM t;
             INSERT INTO rowseal.tenant (name, wrapping) VALUES ('acme', 'direct')",
        )
        .await
        .unwrap();
    client.execute("INSERT INTO t VALUES (1, $1::bytea)", &[&cell(true)]).await.unwrap();
    client.batch_execute("CREATE DATABASE copy").await.unwrap();
    let dump = cluster.tool("pg_dump").args(["-d", "postgres"]).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    cluster.restore("copy", &dump.stdout);
    let copy = cluster.connect_to("postgres", "copy").await;
    let row = copy.query_one("SELECT email::bytea FROM t WHERE rowseal.eq(email) IS NOT NULL", &[]).await.unwrap();
    assert_eq!(row.get::<_, Vec<u8>>(0), cell(true));
    assert!(install(&copy).await.unwrap().unchanged());
    let row = copy.query_one("SELECT name FROM rowseal.tenant", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "acme");
}
