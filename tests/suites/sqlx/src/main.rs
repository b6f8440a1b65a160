//! sqlx as a client: pools, prepared statements, binary formats, streams, COPY, transactions. Prints a line `== step` and the
//! answer of each step.
use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, NaiveDate, Utc};
use sqlx::{Column, Executor, FromRow, PgPool, Postgres, QueryBuilder, Row, Statement};

type Error = Box<dyn std::error::Error>;

#[derive(Debug, FromRow)]
#[allow(dead_code, reason = "printed")]
struct Customer {
    id: i32,
    account_id: i32,
    name: String,
    email: String,
    phone: Option<String>,
    ssn: Option<String>,
    birth: Option<NaiveDate>,
    balance: Option<sqlx::types::Decimal>,
    visits: Option<i32>,
    joined: Option<DateTime<Utc>>,
    extra: Option<Json<Extra>>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Extra {
    canary7f3: i32,
}

const SCHEMA: &str = "
CREATE TABLE account (id serial PRIMARY KEY, name varchar(100) NOT NULL UNIQUE);
CREATE TABLE customer (id serial PRIMARY KEY, account_id int NOT NULL REFERENCES account, name varchar(100) NOT NULL,
  email varchar(254) NOT NULL, phone varchar(40), ssn text, birth date, balance numeric(12,2), visits int, joined timestamptz, extra jsonb,
  CONSTRAINT one_email UNIQUE (account_id, email));
CREATE TABLE orders (id serial PRIMARY KEY, account_id int NOT NULL, customer_id int NOT NULL, number int NOT NULL, comment text);
INSERT INTO account (name) VALUES ('one'), ('two'), ('three')";

const INSERT: &str = "INSERT INTO customer (account_id, name, email, phone, ssn, birth, balance, visits, joined, extra) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

fn report(name: &str, answer: Result<String, sqlx::Error>) {
    println!("== {name}");
    match answer {
        Ok(said) => println!("{said}"),
        Err(sqlx::Error::Database(error)) => println!("error {} {}", error.code().unwrap_or_default(), error.message()),
        Err(other) => println!("error {other}"),
    }
}

fn many(customers: Vec<Customer>) -> String {
    customers.iter().map(|c| format!("{c:?}\n")).collect()
}

async fn insert(pool: impl sqlx::PgExecutor<'_>, n: i32, account: i32) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(INSERT)
        .bind(account)
        .bind(format!("name{n}"))
        .bind(format!("canary7f3-{n}@example.com"))
        .bind((n % 5 != 0).then(|| format!("canary7f3-phone-{n}")))
        .bind(format!("canary7f3-ssn-{n}"))
        .bind(NaiveDate::from_ymd_opt(1990, 1, 1 + n as u32 % 28))
        .bind(sqlx::types::Decimal::new(i64::from(n) * 25, 2))
        .bind(7300 + n)
        .bind(DateTime::<Utc>::from_timestamp(1_700_000_000 + i64::from(n), 0))
        .bind(Json(Extra { canary7f3: n }))
        .execute(pool)
        .await?;
    Ok(done.rows_affected())
}

async fn reads(pool: &PgPool) {
    let all = sqlx::query_as::<_, Customer>("SELECT * FROM customer ORDER BY id").fetch_all(pool).await;
    report("all", all.map(many));
    let find = "SELECT * FROM customer WHERE account_id = $1 AND email = $2";
    for n in [3, 6, 99] {
        let found = sqlx::query_as::<_, Customer>(find).bind(1).bind(format!("canary7f3-{n}@example.com"));
        report(&format!("by email {n}"), found.fetch_optional(pool).await.map(|c| format!("{c:?}")));
    }
    let emails: Vec<String> = [3, 6, 30, 4].map(|n| format!("canary7f3-{n}@example.com")).into();
    let any = sqlx::query_scalar::<_, String>("SELECT name FROM customer WHERE account_id = $1 AND email = ANY($2) ORDER BY id");
    report("any", any.bind(1).bind(&emails).fetch_all(pool).await.map(|all| all.join(" ")));
    let mut built = QueryBuilder::<Postgres>::new("SELECT name FROM customer WHERE account_id = ");
    built.push_bind(1).push(" AND email IN (");
    let mut list = built.separated(", ");
    for email in &emails {
        list.push_bind(email);
    }
    built.push(") ORDER BY id");
    report("built in", built.build_query_scalar::<String>().fetch_all(pool).await.map(|all| all.join(" ")));
    let phone = sqlx::query_scalar::<_, Option<String>>("SELECT phone FROM customer WHERE phone IS NULL OR phone = $1 ORDER BY id");
    report("null or equal", phone.bind("canary7f3-phone-7").fetch_all(pool).await.map(|all| format!("{all:?}")));
    let mut stream = sqlx::query_as::<_, (i32, String)>("SELECT id, email FROM customer ORDER BY id").fetch(pool);
    let mut seen = String::new();
    let streamed = loop {
        match stream.try_next().await {
            Ok(Some((id, email))) => seen += &format!("{id} {email}\n"),
            Ok(None) => break Ok(seen),
            Err(error) => break Err(error),
        }
    };
    report("streamed", streamed);
    for (name, sql) in [
        ("like", "SELECT name FROM customer WHERE email LIKE 'canary%'"),
        ("greater", "SELECT name FROM customer WHERE visits > 5"),
        ("order by a sealed column", "SELECT name FROM customer ORDER BY email"),
        ("max of a sealed column", "SELECT max(visits)::text FROM customer"),
        ("without the tenant", "SELECT name FROM customer WHERE email = 'canary7f3-3@example.com'"),
        ("unknown column", "SELECT nothing FROM customer"),
        ("division by zero", "SELECT (1 / 0)::text"),
    ] {
        report(name, sqlx::query_scalar::<_, String>(sql).fetch_all(pool).await.map(|all| all.join(" ")));
    }
    let agg = "SELECT a.name, coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'email', c.email, 'visits', c.visits) ORDER BY c.id) \
         FILTER (WHERE c.id IS NOT NULL), '[]') AS all FROM account a LEFT JOIN customer c ON c.account_id = a.id AND c.id < 8 GROUP BY a.id ORDER BY a.id";
    let agg = sqlx::query(agg).fetch_all(pool).await;
    let text = |row: &PgRow| format!("{} {:?}\n", row.get::<String, _>(0), row.get::<Json<Vec<std::collections::BTreeMap<String, Json<Option<Value>>>>>, _>(1));
    report("json", agg.map(|rows| rows.iter().map(text).collect()));
    let arrays = sqlx::query_as::<_, (i32, Vec<Option<String>>)>("SELECT account_id, array_agg(phone ORDER BY id) FROM customer GROUP BY account_id ORDER BY account_id");
    report("arrays", arrays.fetch_all(pool).await.map(|rows| format!("{rows:?}")));
}

/// Any JSON, as text.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
#[allow(dead_code, reason = "printed")]
enum Value {
    Number(i64),
    Text(String),
}

async fn describe(pool: &PgPool) -> Result<String, sqlx::Error> {
    let told = pool.prepare("SELECT email, balance, joined, extra FROM customer WHERE account_id = $1 AND email = $2 AND visits = $3").await?;
    let columns: Vec<_> = told.columns().iter().map(|c| c.type_info().to_string()).collect();
    Ok(format!("{:?} {columns:?}", told.parameters()))
}

async fn bulk(pool: &PgPool) -> Result<String, sqlx::Error> {
    let mut built = QueryBuilder::<Postgres>::new("INSERT INTO customer (account_id, name, email, visits) ");
    built.push_values(100..160, |mut row, n| {
        row.push_bind(1 + n % 3).push_bind(format!("bulk{n}")).push_bind(format!("canary7f3-bulk-{n}")).push_bind(n);
    });
    built.push(" RETURNING id, email");
    let rows = built.build_query_as::<(i32, String)>().fetch_all(pool).await?;
    Ok(format!("{rows:?}"))
}

async fn unnest(pool: &PgPool) -> Result<String, sqlx::Error> {
    let names: Vec<String> = (0..5).map(|n| format!("unnest{n}")).collect();
    let emails: Vec<String> = (0..5).map(|n| format!("canary7f3-unnest-{n}")).collect();
    let mut tx = pool.begin().await?;
    let done = sqlx::query("INSERT INTO customer (account_id, name, email) SELECT 2, * FROM UNNEST($1::text[], $2::text[])").bind(names).bind(emails);
    let done = done.execute(&mut *tx).await?.rows_affected();
    tx.rollback().await?;
    Ok(done.to_string())
}

async fn transaction(pool: &PgPool) -> Result<String, sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::query("UPDATE customer SET ssn = $1 WHERE id = $2").bind("canary7f3-outer").bind(1).execute(&mut *tx).await?;
    let mut inner = sqlx::Connection::begin(&mut *tx).await?;
    sqlx::query("UPDATE customer SET ssn = $1 WHERE id = $2").bind("canary7f3-inner").bind(1).execute(&mut *inner).await?;
    let failed = insert(&mut *inner, 1, 2).await;
    inner.rollback().await?;
    let ssn: Option<String> = sqlx::query_scalar("SELECT ssn FROM customer WHERE id = 1").fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(format!("{} {ssn:?}", failed.is_err()))
}

async fn copy(pool: &PgPool) -> Result<String, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut copy = connection.copy_in_raw("COPY customer (account_id, name, email, birth) FROM STDIN (FORMAT csv)").await?;
    copy.send(&b"1,copied1,canary7f3-copied-1,2001-02-03\n2,copied2,canary7f3-copied-2,\n"[..]).await?;
    let copied = copy.finish().await?;
    let mut out = connection.copy_out_raw("COPY (SELECT name, email, birth FROM customer WHERE name LIKE 'copied%' ORDER BY id) TO STDOUT").await?;
    let mut seen = Vec::new();
    while let Some(chunk) = out.try_next().await? {
        seen.extend_from_slice(&chunk);
    }
    Ok(format!("{copied}\n{}", String::from_utf8_lossy(&seen)))
}

async fn changes(pool: &PgPool) {
    let update = sqlx::query_scalar::<_, i32>("UPDATE customer SET ssn = $1, birth = NULL, balance = $2 WHERE account_id = $3 AND email = $4 RETURNING id");
    let update = update.bind("canary7f3-upd").bind(sqlx::types::Decimal::new(1234, 2)).bind(1).bind("canary7f3-6@example.com");
    report("update", update.fetch_optional(pool).await.map(|id| format!("{id:?}")));
    let update = sqlx::query("UPDATE customer SET ssn = $1 WHERE visits_of(id) > 0").bind("canary7f3");
    report("update with an unknown function", update.execute(pool).await.map(|d| d.rows_affected().to_string()));
    let update = sqlx::query("UPDATE customer SET ssn = $1, extra = $2 WHERE id BETWEEN 4 AND 9").bind("canary7f3-many").bind(Json(Extra { canary7f3: -1 }));
    report("update many", update.execute(pool).await.map(|d| d.rows_affected().to_string()));
    let upsert = "INSERT INTO customer (account_id, name, email, visits) VALUES ($1, $2, $3, $4) ON CONFLICT (account_id, email) DO UPDATE SET visits = EXCLUDED.visits RETURNING name, visits";
    let upsert = sqlx::query_as::<_, (String, i32)>(upsert).bind(1).bind("upsert").bind("canary7f3-3@example.com").bind(12);
    report("upsert", upsert.fetch_one(pool).await.map(|row| format!("{row:?}")));
    let delete = sqlx::query_as::<_, (i32, String)>("DELETE FROM customer WHERE account_id = $1 AND email = $2 RETURNING id, email");
    report("delete", delete.bind(2).bind("canary7f3-4@example.com").fetch_all(pool).await.map(|rows| format!("{rows:?}")));
    let orders = sqlx::query("INSERT INTO orders (account_id, customer_id, number, comment) VALUES ($1, $2, $3, $4)").bind(1).bind(1).bind(1).bind("canary7f3-comment");
    report("order", orders.execute(pool).await.map(|d| d.rows_affected().to_string()));
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    println!("version 0.8.6");
    let pool = PgPoolOptions::new().max_connections(2).connect_with(PgConnectOptions::new()).await?;
    report("schema", pool.execute(SCHEMA).await.map(|_| String::new()));
    for n in 1..13 {
        report(&format!("insert {n}"), insert(&pool, n, 1 + n % 3).await.map(|n| n.to_string()));
    }
    report("unique violation", insert(&pool, 3, 1).await.map(|n| n.to_string()));
    report("bulk", bulk(&pool).await);
    report("unnest", unnest(&pool).await);
    // Whatever became of it, the sequence goes on from here.
    report("sequence", sqlx::query_scalar::<_, i64>("SELECT setval('customer_id_seq', 1000)").fetch_one(&pool).await.map(|n| n.to_string()));
    report("describe", describe(&pool).await);
    reads(&pool).await;
    changes(&pool).await;
    report("transaction", transaction(&pool).await);
    report("copy", copy(&pool).await);
    let all = sqlx::query_as::<_, Customer>("SELECT * FROM customer ORDER BY id").fetch_all(&pool).await;
    report("at the end", all.map(many));
    pool.close().await;
    Ok(())
}
