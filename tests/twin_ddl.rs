//! The same migration on a plain database directly and on a protected one through the proxy: all replies are equal, by
//! either protocol, whether the statements stand in transactions or not (T1, T5).
use crate::ddl::{Scene, scene};
use crate::support::peer::{Out, Peer, show};
use crate::support::postgres::Version;
use crate::support::tap::contains;

/// Statements in order. Those with `canary7f3` carry values for sealed columns.
const STATEMENTS: &[&str] = &[
    "CREATE TABLE customers (id int PRIMARY KEY, account_id bigint NOT NULL, email varchar(254) NOT NULL, \
     login text UNIQUE, age integer, born timestamptz, price numeric(10,2), note text DEFAULT 'none', \
     CONSTRAINT one_email UNIQUE (account_id, email))",
    "CREATE TABLE customers (id int)",
    "CREATE TABLE IF NOT EXISTS customers (id int, email varchar(254))",
    "INSERT INTO customers (id, account_id, email, login, age, price) VALUES (1, 1, 'canary7f3@a', 'canary7f3-1', 41, 1.50)",
    "INSERT INTO customers (id, account_id, email, login) VALUES (2, 1, 'canary7f3@a', 'canary7f3-2')",
    "INSERT INTO customers (id, account_id, email, login) VALUES (2, 2, 'canary7f3@a', 'canary7f3-1')",
    "INSERT INTO customers (id, account_id, email, login) VALUES (2, 2, 'canary7f3@a', NULL), (3, 2, 'canary7f3@b', NULL)",
    "INSERT INTO customers (id, account_id) VALUES (4, 1)",
    "INSERT INTO customers (id, account_id, email) VALUES (7, 1, 'canary7f3@a') ON CONFLICT ON CONSTRAINT one_email DO NOTHING",
    "INSERT INTO customers (id, account_id, email, login) VALUES (7, 1, 'canary7f3@a', 'canary7f3-3') ON CONFLICT ON CONSTRAINT one_email \
     DO UPDATE SET login = EXCLUDED.login, born = EXCLUDED.born, age = 42 RETURNING *",
    "INSERT INTO customers (id, account_id, email, login) VALUES (8, 1, 'canary7f3@8', 'canary7f3-3') ON CONFLICT ON CONSTRAINT customers_login_key DO NOTHING",
    "INSERT INTO customers (id, account_id, email, login) VALUES (8, 1, 'canary7f3@a', 'canary7f3-9') ON CONFLICT ON CONSTRAINT customers_login_key DO NOTHING",
    "INSERT INTO customers (id, account_id, email) VALUES (8, 1, 'canary7f3@a') ON CONFLICT ON CONSTRAINT nothing DO NOTHING",
    "SELECT * FROM customers ORDER BY id",
    "CREATE VIEW adults AS SELECT id, account_id, email, age FROM customers WHERE id < 100",
    "SELECT * FROM adults ORDER BY id",
    "SELECT id FROM adults WHERE account_id = 1 AND email = 'canary7f3@a'",
    "INSERT INTO adults (id, account_id, email, age) VALUES (6, 2, 'canary7f3@v', 17) RETURNING *",
    "UPDATE adults SET age = 18, email = 'canary7f3@w' WHERE account_id = 2 AND id = 6",
    "CREATE OR REPLACE VIEW adults AS SELECT id, account_id, email, age FROM customers WHERE id < 6",
    "SELECT * FROM adults ORDER BY id",
    "CREATE MATERIALIZED VIEW kept (number, owner, mail) AS SELECT id, account_id, email FROM customers WITH NO DATA",
    "SELECT * FROM kept ORDER BY number",
    "REFRESH MATERIALIZED VIEW kept",
    "SELECT * FROM kept ORDER BY number",
    "SELECT number FROM kept WHERE owner = 2 AND mail = 'canary7f3@w'",
    "ALTER MATERIALIZED VIEW kept RENAME mail TO address",
    "ALTER MATERIALIZED VIEW IF EXISTS kept RENAME TO held",
    "SELECT number FROM held WHERE owner = 2 AND address = 'canary7f3@w'",
    "SELECT * FROM kept",
    "REFRESH MATERIALIZED VIEW held",
    "SELECT * FROM held ORDER BY number",
    "DROP MATERIALIZED VIEW held",
    "ALTER VIEW adults RENAME COLUMN email TO mail",
    "SELECT * FROM adults ORDER BY id",
    "ALTER VIEW adults RENAME TO grown",
    "SELECT id FROM grown WHERE account_id = 1 AND mail = 'canary7f3@a'",
    "UPDATE grown SET mail = 'canary7f3@a' WHERE account_id = 1 AND id = 1 RETURNING mail",
    "SELECT email FROM grown",
    "DROP VIEW grown",
    "CREATE VIEW small AS SELECT id, account_id, email, age FROM customers WHERE id < 60 WITH LOCAL CHECK OPTION",
    "INSERT INTO small (id, account_id, email, age) VALUES (51, 2, 'canary7f3@c', 3) RETURNING *",
    "INSERT INTO small (id, account_id, email) VALUES (61, 2, 'canary7f3@d')",
    "UPDATE small SET id = 61 WHERE id = 51 AND account_id = 2",
    "UPDATE small SET email = 'canary7f3@e' WHERE id = 51 AND account_id = 2 RETURNING email",
    "CREATE VIEW smaller AS SELECT * FROM small WHERE id > 50 WITH CASCADED CHECK OPTION",
    "UPDATE smaller SET id = 50, email = 'canary7f3@f' WHERE id = 51 AND account_id = 2",
    "SELECT id, email FROM smaller WHERE account_id = 2 AND email = 'canary7f3@e'",
    "DELETE FROM smaller WHERE account_id = 2 AND email = 'canary7f3@e'",
    "DROP VIEW smaller",
    "DROP VIEW small",
    "CREATE RECURSIVE VIEW chain (n, owner, mail) AS SELECT id, account_id, email FROM customers WHERE id = 1 \
     UNION ALL SELECT c.id, c.account_id, c.email FROM customers c JOIN chain ON c.id = chain.n + 1",
    "SELECT * FROM chain ORDER BY n",
    "SELECT mail FROM chain WHERE owner = 1",
    "DROP VIEW chain",
    "DELETE FROM customers WHERE id = 6",
    "ALTER TABLE customers ADD COLUMN ssn text, ADD COLUMN points int NOT NULL DEFAULT 3, DROP COLUMN note",
    "ALTER TABLE customers ADD COLUMN ssn text",
    "ALTER TABLE customers ADD COLUMN IF NOT EXISTS ssn text",
    "UPDATE customers SET ssn = 'canary7f3-s' WHERE id = 1",
    "SELECT id, ssn, points FROM customers ORDER BY id",
    "ALTER TABLE customers ALTER COLUMN ssn SET NOT NULL",
    "UPDATE customers SET ssn = 'canary7f3-t'",
    "ALTER TABLE customers ALTER COLUMN ssn SET NOT NULL, ALTER COLUMN points DROP DEFAULT",
    "INSERT INTO customers (id, account_id, email) VALUES (5, 1, 'canary7f3@e')",
    "ALTER TABLE customers DROP CONSTRAINT one_email",
    "ALTER TABLE customers DROP CONSTRAINT one_email",
    "UPDATE customers SET email = 'canary7f3@a' WHERE account_id = 2",
    "ALTER TABLE customers ADD CONSTRAINT one_email UNIQUE (account_id, email)",
    "DELETE FROM customers WHERE account_id = 2 AND email = 'canary7f3@a' AND id = 3",
    "ALTER TABLE customers ADD CONSTRAINT one_email UNIQUE (account_id, email), ADD CONSTRAINT few CHECK (points < 9)",
    "INSERT INTO customers (id, account_id, email, ssn, points) VALUES (5, 1, 'canary7f3@e', 'canary7f3', 10)",
    "INSERT INTO customers (id, account_id, email, ssn, points) VALUES (5, 1, 'canary7f3@a', 'canary7f3', 1)",
    "CREATE INDEX by_email ON customers (email)",
    "CREATE INDEX by_email ON customers (email)",
    "CREATE INDEX IF NOT EXISTS by_email ON customers (email)",
    "CREATE UNIQUE INDEX by_points ON customers (account_id, email) WHERE points > 2",
    "CREATE INDEX by_nothing ON customers (nothing)",
    "DROP INDEX by_email, by_points",
    "ALTER TABLE customers ALTER COLUMN email TYPE varchar(254)",
    "ALTER TABLE customers DROP COLUMN nothing",
    "ALTER TABLE customers DROP COLUMN points, DROP COLUMN IF EXISTS nothing",
    "SELECT * FROM customers ORDER BY id",
    "SELECT count(*) FROM customers WHERE account_id = 1 AND email = 'canary7f3@a'",
    "ALTER TABLE customers DROP COLUMN email",
    "SELECT id, login, age, price FROM customers ORDER BY id",
    "COMMENT ON COLUMN customers.login IS 'sealed'",
    "TRUNCATE customers",
    "DROP TABLE customers",
    "SELECT login FROM customers",
];

#[derive(Clone, Copy, PartialEq, Debug)]
enum By {
    Simple,
    Extended,
}

fn run(peer: &mut Peer, by: By, sql: &str) -> String {
    match by {
        By::Simple => peer.send(&Out::new().query(sql).0),
        By::Extended => peer.send(&Out::new().run(sql, &[]).sync().0),
    }
    show(&peer.until_ready(1))
}

fn peers(scene: &Scene) -> [Peer; 2] {
    [Peer::connect(scene.cluster.host_port(), "plain"), Peer::connect(scene.proxy.address(), "app")]
}

fn check(version: Version) {
    let scene = scene(version);
    scene.cluster.createdb("plain");
    let mut errors = 0;
    for by in [By::Simple, By::Extended] {
        let mut each = peers(&scene);
        for sql in STATEMENTS {
            let [plain, sealed] = each.each_mut().map(|peer| run(peer, by, sql));
            assert_eq!(sealed, plain, "{by:?}: {sql}");
            errors += usize::from(plain.contains("E("));
        }
        // In one transaction, each statement behind a savepoint, and in the end undone.
        for end in ["ROLLBACK", "COMMIT"] {
            // A view that is not committed yet is not looked through.
            let reads_view = |sql: &str| {
                let views = ["adults", "kept", "grown", "held", "small", "smaller", "chain"];
                let named = |word: &str| views.iter().any(|view| sql.contains(&format!("{word} {view}")));
                ["FROM", "INTO", "UPDATE"].into_iter().any(named)
            };
            let statements = STATEMENTS.iter().filter(|sql| !reads_view(sql));
            for sql in ["BEGIN"].iter().chain(statements).chain(&[end]) {
                for sql in ["SAVEPOINT s", sql] {
                    let [plain, sealed] = each.each_mut().map(|peer| run(peer, by, sql));
                    assert_eq!(sealed, plain, "{by:?}, in a transaction: {sql}");
                    let failed = plain.contains("Z(E)");
                    if failed {
                        each.iter_mut().for_each(|peer| drop(run(peer, by, "ROLLBACK TO s")));
                    }
                }
            }
        }
    }
    assert!(errors > 20, "only {errors} errors");
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
}

#[test]
fn migrations_agree_on_postgres_15() {
    check(Version::V15);
}

#[test]
fn migrations_agree_on_postgres_18() {
    check(Version::V18);
}
