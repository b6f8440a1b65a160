//! Functions that give rows of a sealed table: what they give is what they give over a plain one, and cells of no column
//! that is known are refused by name.
use super::{Outcome, Twins, extended, simple, twins_on};
use crate::support::postgres::Version;

/// For each side, with its schema and its type of text.
const FUNCTIONS: &str = "\
    CREATE FUNCTION user_by_id(int8) RETURNS users LANGUAGE sql STABLE AS 'SELECT * FROM {schema}.users WHERE id = $1';\
    CREATE FUNCTION users_of(of int8) RETURNS SETOF users LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT * FROM {schema}.users WHERE account_id = of ORDER BY id; END';\
    CREATE FUNCTION users_of(of text) RETURNS SETOF users LANGUAGE sql AS 'SELECT * FROM {schema}.users WHERE name = of';\
    CREATE FUNCTION moved(int8) RETURNS SETOF users LANGUAGE sql AS 'SELECT id, 3 - account_id, name, email, login, age, ssn FROM {schema}.users WHERE id = $1';\
    CREATE FUNCTION memos_like(text) RETURNS SETOF memos LANGUAGE sql AS 'SELECT * FROM {schema}.memos';\
    CREATE FUNCTION \"Upper rows\"() RETURNS SETOF \"Mixed\" LANGUAGE sql AS 'SELECT * FROM {schema}.\"Mixed\"';\
    CREATE FUNCTION emails() RETURNS TABLE (id int8, email {text}) LANGUAGE sql AS 'SELECT id, email FROM {schema}.users';\
    CREATE FUNCTION email_of(int8) RETURNS {text} LANGUAGE sql AS 'SELECT email FROM {schema}.users WHERE id = $1';\
    CREATE FUNCTION out_of(int8, OUT a int8, OUT b {text}) LANGUAGE sql AS 'SELECT id, email FROM {schema}.users WHERE id = $1';\
    CREATE FUNCTION list_of(int8) RETURNS {text}[] LANGUAGE sql AS 'SELECT ARRAY[email] FROM {schema}.users WHERE id = $1';\
    CREATE FUNCTION viewed() RETURNS SETOF users_view LANGUAGE sql AS 'SELECT * FROM {schema}.users_view';\
    CREATE FUNCTION mixed(int8) RETURNS SETOF users LANGUAGE sql AS 'SELECT * FROM {schema}.users WHERE id = $1';\
    CREATE FUNCTION mixed(text) RETURNS text LANGUAGE sql AS 'SELECT $1';\
    CREATE VIEW by_call AS SELECT id, account_id, email FROM user_by_id(1);";

const STATEMENTS: &[&str] = &[
    "SELECT * FROM user_by_id(1)",
    "SELECT email FROM user_by_id(3)",
    "SELECT * FROM user_by_id(1000)",
    "SELECT * FROM users_of(1) ORDER BY id",
    "SELECT * FROM users_of('Ann')",
    "SELECT u.*, o.total FROM users_of(1) u JOIN orders o ON o.user_id = u.id",
    "SELECT o.id, u.email, u.age FROM orders o, LATERAL user_by_id(o.user_id) u",
    "SELECT o.id, u.email FROM orders o LEFT JOIN user_by_id(o.user_id) AS u ON u.id = o.user_id",
    "SELECT user_by_id.email FROM user_by_id(2)",
    "SELECT c, e FROM users_of(2) AS u(a, b, c, e)",
    "SELECT * FROM users_of(1) WITH ORDINALITY",
    "SELECT n, e FROM users_of(1) WITH ORDINALITY AS u(a, b, c, e, l, g, s, n) WHERE n > 1",
    "SELECT id FROM users_of(1) WHERE account_id = 1 AND email = 'ann@x'",
    "SELECT id, email FROM users_of(2) u WHERE u.account_id IN (1, 2) AND u.email IN ('ann@x', 'no')",
    "SELECT id FROM users_of(1) WHERE login = 'bob'",
    "SELECT id FROM users_of(1) WHERE ssn IS NULL",
    "SELECT c.id, u.email FROM users_of(1) u JOIN contacts c ON c.account_id = u.account_id AND c.email = u.email",
    "SELECT id, f.email, u.name FROM users u JOIN users_of(1) f USING (id)",
    "SELECT f.email FROM user_by_id(1) NATURAL JOIN (SELECT id, email AS mail FROM users) u, user_by_id(2) f",
    "SELECT id, name FROM user_by_id(1) WHERE account_id = 1 AND (account_id, email) IN (SELECT account_id, email FROM contacts)",
    "SELECT u.email FROM users u WHERE EXISTS (SELECT FROM user_by_id(u.id) f WHERE f.account_id = u.account_id AND f.email = u.email)",
    "SELECT account_id, email, count(*) FROM users_of(1) GROUP BY account_id, email",
    "SELECT DISTINCT account_id, age FROM users_of(1)",
    "SELECT body, tag FROM memos_like('x')",
    "SELECT id FROM memos_like('x') WHERE body = 'b'",
    "SELECT * FROM \"Upper rows\"()",
    "SELECT to_json(u) FROM user_by_id(1) u",
    "SELECT to_jsonb(u) FROM users_of(1) WITH ORDINALITY u",
    "SELECT to_json(u) FROM users_of(1) u(number)",
    "SELECT json_agg(u ORDER BY u.id) FROM users_of(2) u",
    "SELECT to_json(user_by_id(4))",
    "SELECT user_by_id(4)::text",
    "SELECT id, to_json(user_by_id(user_id)) FROM orders",
    "SELECT to_json(users_of(1))",
    "SELECT id FROM orders WHERE user_by_id(user_id) IS NOT NULL",
    "SELECT email FROM users WHERE id = 1 UNION ALL SELECT email FROM user_by_id(4)",
    "WITH w AS (SELECT * FROM users_of(1)) SELECT email FROM w WHERE id < 3",
    "SELECT (SELECT email FROM user_by_id(o.user_id)) FROM orders o",
    "SELECT id, email FROM by_call",
    "SELECT id FROM by_call WHERE account_id = 1 AND email = 'ann@x'",
    "SELECT nothing FROM user_by_id(1)",
    "SELECT * FROM user_by_id(1, 2)",
    "INSERT INTO contacts (id, account_id, email) SELECT id + 900, account_id, email FROM users_of(1) RETURNING id, email",
    "DELETE FROM contacts USING users_of(1) u WHERE contacts.id = u.id + 900 RETURNING u.email",
];

/// A CREATE FUNCTION that names a sealed table outside its body is refused: here it is put together in the server.
const IN_ORDER: &[&str] = &[
    "PREPARE p AS SELECT email FROM user_by_id($1)",
    "EXECUTE p (2)",
    "BEGIN",
    "DO $$ BEGIN EXECUTE 'CREATE FUNCTION late() RETURNS SETOF us' || 'ers LANGUAGE sql AS ''SELECT * FROM us' || 'ers'''; END $$",
    "SELECT id, email FROM late()",
    "DROP FUNCTION late()",
    "DECLARE c CURSOR FOR SELECT email FROM users_of(1)",
    "FETCH ALL FROM c",
    "ROLLBACK",
    "COMMENT ON FUNCTION user_by_id(int8) IS 'x'",
    "ALTER FUNCTION user_by_id(int8) VOLATILE",
    "SELECT mixed_up FROM user_by_id(1)",
    "CREATE FUNCTION ids_of(a int8) RETURNS SETOF int8 LANGUAGE sql AS 'SELECT id FROM users WHERE account_id = a AND id > 1 ORDER BY id'",
    "SELECT * FROM ids_of(1)",
    "CREATE FUNCTION many_of(a int8) RETURNS int8 LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT count(email) FROM users WHERE account_id = a); END $$",
    "SELECT many_of(1)",
    "DROP FUNCTION ids_of, many_of",
];

/// Refused by name, never broken off at a cell.
const REFUSED: &[&str] = &[
    "SELECT email_of(1)",
    "SELECT * FROM email_of(1)",
    "SELECT id, email_of(id) FROM orders",
    "SELECT * FROM emails()",
    "SELECT id FROM public.emails() e",
    "SELECT b FROM out_of(1)",
    "SELECT list_of(1)",
    "SELECT email FROM viewed()",
    "SELECT email FROM mixed(1)",
    "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'INSERT INTO users (id, account_id, email) VALUES (70, 1, ''in a body'')'",
    "CREATE PROCEDURE f() LANGUAGE plpgsql AS $$ BEGIN UPDATE users SET email = 'in a body' WHERE id = 1; END $$",
    "CREATE FUNCTION f() RETURNS int8 LANGUAGE sql AS 'SELECT id FROM users WHERE account_id = 1 AND email = ''in a body'''",
    "CREATE FUNCTION f() RETURNS void LANGUAGE sql BEGIN ATOMIC INSERT INTO users (id, account_id, email) VALUES (70, 1, 'in a body'); END",
    "CREATE FUNCTION f() RETURNS int8 RETURN (SELECT id FROM users WHERE account_id = 1 AND email = 'in a body')",
    "SELECT (user_by_id(1)).email",
    "SELECT (user_by_id(1)).*",
    "SELECT * FROM ROWS FROM (user_by_id(1), user_by_id(2))",
    "SELECT login FROM users u FULL JOIN contacts c USING (login)",
    "SELECT id FROM users_of(1) WHERE email = 'ann@x'",
    "SELECT user_by_id(id) FROM users WHERE email_of(1) = 'x'",
    "COPY (SELECT email_of(1)) TO STDOUT",
];

#[test]
fn rows_of_functions_are_those_of_their_table_on_15() {
    run(Version::V15);
}

#[test]
fn rows_of_functions_are_those_of_their_table_on_18() {
    run(Version::V18);
}

fn run(version: Version) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins_on(version).await;
        for (schema, text) in [("plain", "text"), ("public", "rowseal.text")] {
            let functions = FUNCTIONS.replace("{schema}", schema).replace("{text}", text);
            twins.cluster.psql("app", &format!("SET search_path = {schema}; {functions}"));
        }
        known(&twins).await;
        let mut wrong = Vec::new();
        for sql in STATEMENTS {
            wrong.extend(twins.simple(sql).await.err());
            wrong.extend(twins.with(sql, &[]).await.err());
        }
        for sql in IN_ORDER {
            wrong.extend(twins.simple(sql).await.err());
        }
        wrong.extend(twins.with("SELECT email FROM user_by_id($1)", &[&2i64]).await.err());
        let sql = "SELECT id FROM users_of($1::int8) WHERE account_id = $1 AND email = $2";
        wrong.extend(twins.with(sql, &[&1i64, &"bob@x"]).await.err());
        for sql in REFUSED {
            for outcome in [simple(&twins.sealed, sql).await, extended(&twins.sealed, sql, &[], &[]).await] {
                if outcome != Outcome::Error("0A000".into()) {
                    wrong.push(format!("{sql}: {outcome:?}"));
                }
            }
        }
        // A function that gives a value with another tenant beside it.
        for sql in ["SELECT email FROM moved(1)", "SELECT to_json(m) FROM moved(1) m", "SELECT to_json(moved(1))"] {
            let outcome = simple(&twins.sealed, sql).await;
            if outcome != Outcome::Error("XX001".into()) {
                wrong.push(format!("{sql}: {outcome:?}"));
            }
        }
        assert!(!twins.cluster.log().contains("in a body"), "the server was sent the body of a function");
        assert!(wrong.is_empty(), "{} are wrong:\n{}\n{}", wrong.len(), wrong.join("\n"), twins.tail());
    });
}

/// Waits until the proxy knows the functions that were made beside it: it asks the server anew behind DDL of its own.
async fn known(twins: &Twins) {
    for side in [&twins.plain, &twins.sealed] {
        side.batch_execute("CREATE TABLE nothing_else (id int8)").await.unwrap();
        side.batch_execute("DROP TABLE nothing_else").await.unwrap();
    }
}
