//! Do real clients of several languages work (T1)? Each script writes, reads, fails and goes on; it prints the same lines
//! whether it talks to Postgres or through anything between.
use std::net::SocketAddr;

use crate::support::clients::{node, python};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;
use crate::support::tap::{Tap, contains};
use crate::updates::POLICY;

const EXPECTED: &str = "ada@example.com None\nbob@example.com 078-05-1120\n2\n22P02\nstill here";

const TABLE: &str = "create table customers (id serial, account_id text, email text, ssn text)";

const SEALED: &str = "create table customers (id serial, account_id text, email rowseal.text, ssn rowseal.text)";

const PSYCOPG: &str = r#"
import psycopg
with psycopg.connect(autocommit=True) as db:
    with db.cursor() as c:
        c.executemany("insert into customers (account_id, email, ssn) values (%s, %s, %s)",
                      [("acme", "ada@example.com", None), ("acme", "bob@example.com", "078-05-1120")])
        for row in db.cursor(binary=True).execute("select email, ssn from customers where account_id = %s order by id", ["acme"]):
            print(row[0], row[1])
        print(c.execute("select count(*) from customers").fetchone()[0])
        try:
            c.execute("select 'x'::text::int")
        except psycopg.Error as e:
            print(e.sqlstate)
        print(c.execute("select 'still here'").fetchone()[0])
"#;

const ASYNCPG: &str = r#"
import asyncio, asyncpg
async def main():
    db = await asyncpg.connect()
    await db.executemany("insert into customers (account_id, email, ssn) values ($1, $2, $3)",
                         [("acme", "ada@example.com", None), ("acme", "bob@example.com", "078-05-1120")])
    for row in await db.fetch("select email, ssn from customers where account_id = $1 order by id", "acme"):
        print(row["email"], row["ssn"])
    print(await db.fetchval("select count(*) from customers"))
    try:
        await db.fetch("select 'x'::text::int")
    except asyncpg.PostgresError as e:
        print(e.sqlstate)
    print(await db.fetchval("select 'still here'"))
    await db.close()
asyncio.run(main())
"#;

const NODE: &str = r#"
const { Client } = require('pg');
(async () => {
  const db = new Client();
  await db.connect();
  for (const row of [['acme', 'ada@example.com', null], ['acme', 'bob@example.com', '078-05-1120']])
    await db.query('insert into customers (account_id, email, ssn) values ($1, $2, $3)', row);
  const found = await db.query({ name: 'one', text: 'select email, ssn from customers where account_id = $1 order by id', values: ['acme'] });
  for (const row of found.rows) console.log(row.email, row.ssn === null ? 'None' : row.ssn);
  console.log((await db.query('select count(*) from customers')).rows[0].count);
  try { await db.query("select 'x'::text::int"); } catch (e) { console.log(e.code); }
  console.log((await db.query("select 'still here' as s")).rows[0].s);
  await db.end();
})().catch((e) => { console.error(e); process.exit(1); });
"#;

/// Prepared statements, pipelines and cursors of each client.
const PSYCOPG_FURTHER: &str = r#"
import psycopg
with psycopg.connect(autocommit=True) as db:
    db.prepare_threshold = 0
    for n in range(3):
        db.execute("insert into customers (account_id, email, ssn) values (%s, %s, %s)", ["acme", f"p{n}@example.com", str(n)], prepare=True)
    with db.pipeline():
        cursors = [db.execute("select ssn from customers where account_id = %s and email = %s", ["acme", f"p{n}@example.com"], prepare=True) for n in range(3)]
        print([c.fetchone()[0] for c in cursors])
    try:
        with db.pipeline() as pipeline:
            first = db.execute("insert into customers (account_id, email) values ('acme', 'lost@example.com')")
            db.execute("select 1 / 0")
            db.execute("insert into customers (account_id, email) values ('acme', 'never@example.com')")
            pipeline.sync()
    except psycopg.Error as e:
        print(e.sqlstate)
    print(db.execute("select count(*) from customers").fetchone()[0])
    with db.transaction():
        with db.cursor(name="plain") as c:
            c.execute("select n from generate_series(1, 5) n")
            print(len(c.fetchmany(2)), len(c.fetchall()))
    try:
        with db.transaction():
            with db.cursor(name="sealed") as c:
                c.execute("select email from customers order by id")
                print(len(c.fetchall()))
    except psycopg.Error as e:
        print(e.sqlstate)
    print(db.execute("select email from customers order by id limit 1").fetchone()[0])
"#;

const ASYNCPG_FURTHER: &str = r#"
import asyncio, asyncpg
async def main():
    db = await asyncpg.connect()
    insert = await db.prepare("insert into customers (account_id, email, ssn) values ($1, $2, $3)")
    for n in range(3):
        await insert.fetch("acme", f"p{n}@example.com", str(n))
    select = await db.prepare("select ssn from customers where account_id = $1 and email = $2")
    print([await select.fetchval("acme", f"p{n}@example.com") for n in range(3)])
    try:
        async with db.transaction():
            await insert.fetch("acme", "lost@example.com", None)
            await db.fetch("select 1 / 0")
    except asyncpg.PostgresError as e:
        print(e.sqlstate)
    print(await db.fetchval("select count(*) from customers"))
    async with db.transaction():
        print([r["n"] async for r in db.cursor("select n from generate_series(1, 5) n", prefetch=2)])
        print([r["email"] async for r in db.cursor("select email from customers order by id", prefetch=2)])
    print(await db.fetchval("select email from customers order by id limit 1"))
    await db.close()
asyncio.run(main())
"#;

const NODE_FURTHER: &str = r#"
const { Client } = require('pg');
(async () => {
  const db = new Client();
  await db.connect();
  const insert = (n, email) => db.query({ name: 'insert', text: 'insert into customers (account_id, email, ssn) values ($1, $2, $3)', values: ['acme', email, String(n)] });
  const select = (n) => db.query({ name: 'select', text: 'select ssn from customers where account_id = $1 and email = $2', values: ['acme', `p${n}@example.com`] });
  await Promise.all([0, 1, 2].map((n) => insert(n, `p${n}@example.com`)));
  console.log((await Promise.all([0, 1, 2].map(select))).map((r) => r.rows[0].ssn).join());
  const all = await Promise.allSettled([db.query('begin'), insert(3, 'lost@example.com'), db.query('select 1 / 0'), insert(4, 'never@example.com'), db.query('rollback')]);
  console.log(all.map((r) => r.reason ? r.reason.code : 'done').join());
  console.log((await db.query('select count(*) from customers')).rows[0].count);
  console.log((await db.query('select email from customers order by id limit 1')).rows[0].email);
  await db.end();
})().catch((e) => { console.error(e); process.exit(1); });
"#;

/// What each client prints after the table was emptied.
pub fn every_client(address: SocketAddr, db: &str, empty: impl Fn()) -> Vec<(&'static str, Result<String, String>)> {
    let fresh = |name, run: &dyn Fn() -> Result<String, String>| {
        empty();
        (name, run())
    };
    vec![
        fresh("psycopg", &|| python(address, db, PSYCOPG)),
        fresh("asyncpg", &|| python(address, db, ASYNCPG)),
        fresh("node-postgres", &|| node(address, db, NODE)),
    ]
}

#[test]
fn every_client_works_directly_and_a_tap_sees_what_it_sends() {
    let cluster = Cluster::start(Version::Any);
    cluster.psql("postgres", TABLE);
    let tap = Tap::start(cluster.host_port());
    let empty = || drop(cluster.psql("postgres", "truncate customers"));
    for (client, printed) in every_client(tap.address(), "postgres", empty) {
        assert_eq!(printed.as_deref(), Ok(EXPECTED), "{client}");
    }
    assert!(contains(&tap.to_server(), b"078-05-1120"));
    assert!(contains(&tap.to_client(), b"ada@example.com"));
}

/// The same scripts, unchanged, on a sealed table: same output, and no plaintext reaches the server.
#[test]
fn every_client_works_through_the_proxy_on_sealed_columns() {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let tap = Tap::start(cluster.host_port());
    let site = Site::with_upstream(tap.address(), &cluster, POLICY);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "acme"]);
    cluster.psql("app", SEALED);
    let proxy = site.serve();
    let empty = || drop(cluster.psql("app", "truncate customers"));
    for (client, printed) in every_client(proxy.address(), "app", empty) {
        assert_eq!(printed.as_deref(), Ok(EXPECTED), "{client}");
        let stored = cluster.psql("app", "select count(*) from customers where rowseal.is_cell(email)");
        assert_eq!(stored, "2", "{client}");
    }
    for plaintext in ["078-05-1120", "ada@example.com", "bob@example.com"] {
        assert!(!contains(&tap.to_server(), plaintext.as_bytes()), "{plaintext} reached the server");
        assert!(!cluster.log().contains(plaintext), "{plaintext} is in the server's log");
        assert!(!proxy.log().contains(plaintext), "{plaintext} is in the proxy's log");
    }
    assert_eq!(proxy.stop(), 0);
}

/// Prepared statements, pipelines and cursors: the same output directly and through the proxy.
#[test]
fn every_client_prepares_pipelines_and_pages() {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("plain");
    cluster.createdb("app");
    cluster.psql("plain", TABLE);
    let site = Site::new(&cluster, POLICY);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "acme"]);
    cluster.psql("app", SEALED);
    let proxy = site.serve();
    let python_twins = |script| [python(cluster.host_port(), "plain", script), python(proxy.address(), "app", script)];
    let [plain, sealed] = python_twins(PSYCOPG_FURTHER).map(Result::unwrap);
    assert_eq!(plain, "['0', '1', '2']\n22012\n3\n2 3\n3\np0@example.com");
    assert_eq!(sealed, plain);
    let empty = || ["plain", "app"].map(|db| cluster.psql(db, "truncate customers"));
    empty();
    let [plain, sealed] = python_twins(ASYNCPG_FURTHER).map(Result::unwrap);
    assert!(plain.contains("['p0@example.com', 'p1@example.com', 'p2@example.com']"), "{plain}");
    assert_eq!(sealed, plain);
    empty();
    let sealed = node(proxy.address(), "app", NODE_FURTHER).unwrap();
    assert_eq!(sealed, node(cluster.host_port(), "plain", NODE_FURTHER).unwrap());
    assert!(sealed.starts_with("0,1,2\ndone,done,22012,25P02,done\n3\n"), "{sealed}");
}
