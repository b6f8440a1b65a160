//! sqlsmith: statements made from a seed over tables that are not sealed, in a database that has a sealed one. Whatever they are,
//! the answer is the same directly and through the proxy (T2).
use std::process::Command;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::Outcome;
use crate::compare::Known;
use crate::programs::Program;
use crate::run::{Sides, home};
use crate::support::postgres::connect_at;

const SEED: &str = "20261124";
const COUNT: &str = "3000";

/// No statement is worth more of the run's time than this.
const STATEMENT_TIMEOUT: &str = "SET statement_timeout = '1s'";

/// Nor all of them together.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Tables of many types; the sealed ones of the policy stand beside them.
const TABLES: &str = "CREATE SCHEMA smith; \
    CREATE TABLE smith.kinds (id int PRIMARY KEY, small int2, big int8, price numeric(10,2), ratio float8, name text, code varchar(10), \
      day date, at timestamptz, span interval, flag bool, doc jsonb, tags text[], key uuid, raw bytea, net inet); \
    CREATE TABLE smith.parts (id int PRIMARY KEY, kind int REFERENCES smith.kinds, label text, weight float4); \
    CREATE VIEW smith.both AS SELECT k.id, k.name, p.label, p.weight FROM smith.kinds k LEFT JOIN smith.parts p ON p.kind = k.id; \
    INSERT INTO smith.kinds SELECT n, n, n * 1000000007::int8, n * 1.25, n / 3.0, 'name' || n, 'c' || n, date '2024-01-01' + n, \
      timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', n * interval '1 minute', n % 2 = 0, jsonb_build_object('n', n), \
      ARRAY['a', n::text], md5(n::text)::uuid, decode(md5(n::text), 'hex'), '10.0.0.1' FROM generate_series(1, 30) n; \
    INSERT INTO smith.parts SELECT n, 1 + n % 30, 'part' || n, n FROM generate_series(1, 60) n; \
    CREATE ROLE smith LOGIN; GRANT USAGE ON SCHEMA smith TO smith; GRANT ALL ON ALL TABLES IN SCHEMA smith TO smith";

/// Runs what sqlsmith makes, each statement in a transaction that is rolled back: twice directly, then through the proxy.
pub fn run(program: &Program, _: &Known) -> Outcome {
    let policy = std::fs::read_to_string(home().join(program.policy)).unwrap();
    let sides = Sides::start(&policy, &["1", "2", "3"]);
    sides
        .cluster
        .psql_at(sides.proxy.address(), "app", &std::fs::read_to_string(home().join("schema.sql")).unwrap())
        .unwrap();
    sides.cluster.psql("app", TABLES);
    // It reads the catalog of a database without the sealed tables.
    sides.cluster.psql("plain", &TABLES.replace("CREATE ROLE smith LOGIN; ", ""));
    let statements = made(&sides);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut outcome = runtime.block_on(compared(&sides, &statements));
    outcome.version = version();
    outcome
}

fn version() -> String {
    let asked = Command::new("dpkg-query").args(["-W", "-f", "${Version}", "sqlsmith"]).output();
    let version = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    format!("{version} seed {SEED}")
}

/// The statements of the seed, as sqlsmith prints them.
fn made(sides: &Sides) -> Vec<String> {
    let target = format!("host=127.0.0.1 port={} dbname=plain user=smith", sides.cluster.port());
    let output = Command::new("sqlsmith")
        .args([&format!("--target={target}"), "--dry-run", "--exclude-catalog"])
        .args([&format!("--seed={SEED}"), &format!("--max-queries={COUNT}")])
        .output()
        .expect("sqlsmith: run scripts/bootstrap.sh --suites");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split(";\n").map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
}

/// What became of a statement.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Rows(u64, Vec<Vec<Option<String>>>),
    Error(String, String),
}

async fn compared(sides: &Sides, statements: &[String]) -> Outcome {
    let mut outcome = Outcome { version: String::new(), answers: 0, known: 0, wrong: Vec::new() };
    let mut direct = smith(sides, false).await;
    // Another connection: some answers tell of their own.
    let mut other = smith(sides, false).await;
    let mut proxied = smith(sides, true).await;
    let started = Instant::now();
    let (mut unsteady, mut rows, mut errors) = (0, 0, 0);
    for statement in statements {
        if started.elapsed() > TIMEOUT {
            break;
        }
        let first = answer(&mut direct, statement).await;
        let second = answer(&mut other, statement).await;
        let through = answer(&mut proxied, statement).await;
        for (client, proxy) in [(&mut direct, false), (&mut other, false), (&mut proxied, true)] {
            if client.is_closed() {
                *client = smith(sides, proxy).await;
            }
        }
        let timed_out = matches!(&first, Answer::Error(state, _) if state == "57014");
        if first != second || timed_out || (first != through && is_unsteady(&mut direct, statement, &first).await) {
            unsteady += 1;
            continue;
        }
        outcome.answers += 1;
        match &first {
            Answer::Rows(..) => rows += 1,
            Answer::Error(..) => errors += 1,
        }
        if first != through {
            outcome.wrong.push(format!(
                "  {statement}\n    plain:   {}\n    proxied: {}",
                short(&first),
                short(&through)
            ));
        }
    }
    println!("sqlsmith: {} statements, {rows} with rows, {errors} errors, {unsteady} not compared", statements.len());
    if rows < 200 || outcome.answers < 1000 {
        outcome.wrong.push("  too few statements were compared".to_owned());
    }
    outcome
}

/// True if a statement does not always answer alike: a sample, a time, a random number.
async fn is_unsteady(client: &mut Client, statement: &str, first: &Answer) -> bool {
    if statement.contains(" tablesample ") {
        return true;
    }
    for _ in 0..20 {
        if answer(client, statement).await != *first {
            return true;
        }
    }
    false
}

fn short(answer: &Answer) -> String {
    format!("{answer:?}").chars().take(300).collect()
}

async fn smith(sides: &Sides, proxied: bool) -> Client {
    let address = if proxied { sides.proxy.address() } else { sides.cluster.host_port() };
    let client = connect_at(address, "app").await;
    client.batch_execute(&format!("SET SESSION AUTHORIZATION smith; {STATEMENT_TIMEOUT}")).await.unwrap();
    client
}

async fn answer(client: &mut Client, statement: &str) -> Answer {
    let _ = client.batch_execute("BEGIN").await;
    let answer = match client.simple_query(statement).await {
        Ok(messages) => rows_of(&messages),
        Err(error) => {
            let told = error.as_db_error();
            Answer::Error(
                told.map(|e| e.code().code().to_owned()).unwrap_or_else(|| "lost".to_owned()),
                told.map(|e| e.message().to_owned()).unwrap_or_else(|| error.to_string()),
            )
        }
    };
    let _ = client.batch_execute("ROLLBACK").await;
    answer
}

fn rows_of(messages: &[SimpleQueryMessage]) -> Answer {
    let (mut count, mut rows) = (0, Vec::new());
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|n| row.get(n).map(str::to_owned)).collect());
            }
            SimpleQueryMessage::CommandComplete(affected) => count = *affected,
            _ => {}
        }
    }
    Answer::Rows(count, rows)
}
