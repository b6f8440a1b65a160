//! Writes of many rows at once, each row with a key of its own (E2), by both protocols and in both formats.
use std::collections::BTreeSet;

use tokio_postgres::types::ToSql;

use super::{Twins, simple, twins_on};
use crate::support::postgres::Version;
use crate::support::raw::Text;

const UNNESTED: &[&str] = &[
    "INSERT INTO users (id, account_id, email) SELECT * FROM UNNEST(('{100,101}')::integer[], ('{1,2}')::bigint[], ('{u1,NULL}')::text[])",
    "INSERT INTO users (id, account_id, email, age) SELECT * FROM UNNEST((ARRAY[102,103])::integer[], (ARRAY[1,1])::bigint[], (ARRAY['it''s','\"q\" \\ b'])::text[], (ARRAY[1,NULL])::integer[]) RETURNING id, email, age",
    "INSERT INTO users (id, account_id, email) SELECT i, 2, m FROM unnest('{104,105,106}'::int[], '{c,b,a}'::text[]) AS u(i, m) WHERE i > 104 ORDER BY i DESC LIMIT 1",
    "INSERT INTO users (id, account_id, email) SELECT n + 119, 1, e FROM unnest('{x1}'::text[]) WITH ORDINALITY AS u(e, n)",
    "INSERT INTO users (id, account_id, email) SELECT unnest('{110,111}'::int8[]), unnest('{1,2}'::int8[]), unnest('{l1,l2}'::text[])",
    "INSERT INTO users (id, account_id, email) SELECT * FROM UNNEST('{1,112}'::int[], '{1,1}'::bigint[], '{again,new}'::text[]) ON CONFLICT (id) DO NOTHING RETURNING id, email",
    "INSERT INTO users (id, account_id, email, name) SELECT * FROM UNNEST('{113,114}'::int[], '{1,1}'::bigint[], '{ann@x,fresh}'::text[], '{n,n}'::text[]) ON CONFLICT (account_id, email) DO UPDATE SET email = EXCLUDED.email, name = EXCLUDED.name RETURNING id, email, name",
    "INSERT INTO users (id, account_id, email) SELECT * FROM UNNEST('{115,115}'::int[], '{1,1}'::bigint[], '{a,b}'::text[])",
    "INSERT INTO users (id, account_id, email) SELECT * FROM UNNEST('{116,117}'::int[], '{1}'::bigint[], '{ok,NULL}'::text[])",
    "INSERT INTO users (id, account_id, age) SELECT * FROM UNNEST('{118}'::int[], '{1}'::bigint[], '{4x}'::int[])",
    "INSERT INTO users (id, account_id, email) SELECT * FROM UNNEST('{118}'::int[], '{1}'::bigint[], 'nothing'::text[])",
    "INSERT INTO users (id, account_id, email) SELECT * FROM UNNEST(NULL::int[], NULL::bigint[], NULL::text[])",
    "INSERT INTO memos (id, body, tag) SELECT * FROM UNNEST('{100,101}'::int[], '{m1,m2}'::text[], '{t1,NULL}'::varchar[]) RETURNING *",
    "INSERT INTO memos (id, body, tag) SELECT * FROM UNNEST('{102,103}'::int[], '{m3,m4}'::text[], '{t1,longer than ten}'::varchar[])",
    "INSERT INTO users (id, account_id, email, age) SELECT * FROM UNNEST(('{140,141,142}'::int2[])::bigint[], ('{1,2,1}'::int2[])::bigint[], ( E'{w1,\\\"w 2\\\",NULL}')::varchar[], ('{30,NULL,-4}'::int2[])::integer[]) RETURNING id, email, age",
    "INSERT INTO users (id, account_id, email) SELECT * FROM UNNEST(ARRAY[143,144], (ARRAY[1,2]::int2[])::bigint[], ((ARRAY['w4','w5']))::text[])",
    "INSERT INTO users (id, account_id, email) SELECT * FROM UNNEST('{145}'::int[], ('{70000}'::int2[])::bigint[], NULL::text[])",
    "INSERT INTO users (id, account_id, age) SELECT * FROM UNNEST('{146}'::int[], ('{1}'::int8[])::int2[], ('{70000}'::int4[])::int4[]) RETURNING age",
    "INSERT INTO memos (id, tag) SELECT * FROM UNNEST('{104}'::int[], ('{w1}')::varchar(10)[]) RETURNING tag",
    "INSERT INTO \"Mixed\" SELECT * FROM UNNEST('{100,101}'::int[], '{1,2}'::bigint[], '{x,y}'::text[])",
    "PREPARE p (int8[], int8[], text[]) AS INSERT INTO users (id, account_id, email) SELECT * FROM unnest($1, $2, $3)",
    "EXECUTE p ('{130,131}', '{1,2}', '{p1,p2}')",
    "DEALLOCATE p",
    "UPDATE users SET email = (CASE WHEN (id = 100) THEN 'case1' WHEN (id = 101) THEN NULL ELSE email END)::text WHERE id IN (100, 101, 102)",
    "UPDATE users SET age = (CASE WHEN (id = 100) THEN 5 WHEN (id = 102) THEN 6 ELSE NULL END)::integer WHERE id IN (100, 101, 102)",
    "UPDATE memos SET tag = (CASE WHEN (id = 100) THEN 'case' END)::varchar(10) WHERE id IN (100, 101) RETURNING id, tag",
    "INSERT INTO users (id, account_id) VALUES (9007199254740992, 1), (9007199254740993, 1)",
    "UPDATE users SET email = NULL, ssn = 'of two' WHERE id = '9007199254740992'::float8 AND account_id = 1",
    "SELECT id, account_id, name, email, age, ssn FROM users ORDER BY id",
    "SELECT id, body, tag FROM memos ORDER BY id",
    "SELECT * FROM \"Mixed\" ORDER BY id",
];

const COPIED: &[&str] = &[
    "INSERT INTO contacts (id, account_id, email) SELECT id + 1000, account_id, email FROM users",
    "INSERT INTO contacts (id, account_id, email, note) SELECT id + 1010, account_id, email, name FROM users WHERE account_id = 1 AND email IN ('ann@x', 'bob@x') RETURNING id, email, note",
    "INSERT INTO contacts SELECT id + 1020, account_id, email, NULL, 'n' FROM users WHERE id < 3 ORDER BY id DESC RETURNING *",
    "INSERT INTO contacts (id, account_id, email) SELECT o.id + 1030, o.account_id, 'const' FROM orders o JOIN users u ON u.id = o.user_id WHERE o.account_id = 1 RETURNING id, email",
    "INSERT INTO contacts (id, account_id, email) SELECT c.id, c.account_id, c.email FROM contacts c ON CONFLICT (id) DO NOTHING",
    "INSERT INTO users (id, account_id, email, name) SELECT id + 300, account_id, email, 'up' FROM users WHERE id IN (1, 2) ON CONFLICT (account_id, email) DO UPDATE SET email = EXCLUDED.email, name = EXCLUDED.name RETURNING id, email, name",
    "INSERT INTO users (id, account_id, email) SELECT id, account_id, email FROM users WHERE id = 1",
    "INSERT INTO users (id, account_id, ssn) SELECT id + 310, account_id, note FROM contacts WHERE note IS NOT NULL AND id < 4 RETURNING id, ssn",
    "INSERT INTO users (id, account_id, age) SELECT id + 320, account_id, total FROM orders WHERE id = 1 RETURNING age",
    "INSERT INTO users (id, account_id, email) WITH x AS (SELECT * FROM \"Mixed\" WHERE id < 3) SELECT id + 330, \"Org\", \"Name\" FROM x RETURNING id, email",
    "INSERT INTO memos (id, body) SELECT id + 300, email FROM users WHERE id = 2 RETURNING body",
    "INSERT INTO memos (id, tag) SELECT id + 310, email FROM contacts WHERE id = 1 RETURNING tag",
    "INSERT INTO memos (id, tag) SELECT id + 320, tag FROM memos WHERE id < 3 RETURNING *",
    "INSERT INTO memos (id, body, tag) SELECT id + 400, body, 'longer than ten' FROM memos WHERE id = 1",
    "INSERT INTO parts (id, account_id, email) SELECT id + 300, account_id, email FROM users WHERE id < 10 RETURNING account_id, email",
    "INSERT INTO users (id, account_id, email) SELECT id + 500, account_id, email FROM users WHERE id > 100000",
    "WITH c AS (SELECT * FROM contacts WHERE account_id = 1 AND email = 'ann@x' AND id < 5) INSERT INTO users (id, account_id, ssn) SELECT id + 340, account_id, email FROM c RETURNING id, ssn",
    "WITH RECURSIVE c AS (SELECT id, account_id, email FROM users WHERE id < 3 UNION ALL SELECT id + 350, account_id, email FROM c WHERE id < 3) INSERT INTO users (id, account_id, ssn) WITH d AS (SELECT * FROM c WHERE id > 300) SELECT id, account_id, email FROM d ORDER BY id RETURNING id, ssn",
    "INSERT INTO users (id, account_id, ssn) (SELECT id + 360, account_id, email FROM contacts WHERE id < 3) RETURNING id, ssn",
    "INSERT INTO users (id, account_id, ssn) ((SELECT id, account_id, 'again' FROM contacts WHERE id < 3)) ON CONFLICT (id) DO NOTHING",
    "INSERT INTO memos TABLE memos ON CONFLICT (id) DO NOTHING",
    "INSERT INTO users (id, account_id, email) SELECT id + 500, NULL, NULL FROM users WHERE id = 1",
    "INSERT INTO users (id, account_id, email) SELECT id + 1 / (id - 1), account_id, email FROM users WHERE id = 1",
    "INSERT INTO users (id, account_id, email) SELECT nothing, account_id, email FROM users WHERE id = 1",
    "SELECT id, account_id, name, email, ssn, age FROM users ORDER BY id",
    "SELECT * FROM contacts ORDER BY id",
    "SELECT id, body, tag FROM memos ORDER BY id",
    "SELECT id, account_id, email FROM parts ORDER BY id",
];

const MERGED: &[&str] = &[
    "MERGE INTO users u USING (VALUES (1, 1, 'merged')) AS s(id, account_id, email) ON u.id = s.id AND u.account_id = s.account_id WHEN MATCHED THEN UPDATE SET email = s.email, name = 'x' WHEN NOT MATCHED THEN INSERT (id, account_id, email) VALUES (s.id, s.account_id, s.email)",
    "MERGE INTO users u USING (VALUES (600, 1, 'fresh')) AS s(id, account_id, email) ON u.id = s.id AND u.account_id = s.account_id WHEN MATCHED THEN UPDATE SET email = s.email, name = 'x' WHEN NOT MATCHED THEN INSERT (id, account_id, email) VALUES (s.id, s.account_id, s.email)",
    "MERGE INTO users USING (SELECT 601 AS id, 2 AS account_id, 'm601' AS mail, NULL AS ssn, 33 AS age) s ON users.id = s.id AND users.account_id = s.account_id WHEN MATCHED AND users.name = 'x' THEN DELETE WHEN MATCHED THEN UPDATE SET email = s.mail, age = s.age WHEN NOT MATCHED THEN INSERT (id, account_id, email, ssn, age) VALUES (s.id, s.account_id, s.mail, s.ssn, s.age)",
    "MERGE INTO users u USING (SELECT 601 AS id) s ON u.id = s.id AND u.account_id = 2 WHEN MATCHED THEN UPDATE SET ssn = 'direct', age = NULL WHEN NOT MATCHED THEN DO NOTHING",
    "MERGE INTO memos m USING (VALUES (600, 'mb', 'mt')) s(id, body, tag) ON m.id = s.id WHEN MATCHED THEN UPDATE SET body = s.body WHEN NOT MATCHED THEN INSERT (id, body, tag) VALUES (s.id, s.body, s.tag)",
    "MERGE INTO memos m USING (VALUES (601, 'mb')) s(id, body) ON m.id = s.id WHEN NOT MATCHED THEN INSERT (id, body) VALUES (s.id, s.body)",
    "MERGE INTO memos m USING (VALUES (602, 'longer than ten')) s(id, tag) ON m.id = s.id WHEN NOT MATCHED THEN INSERT (id, tag) VALUES (s.id, s.tag)",
    "MERGE INTO users u USING orders o ON o.user_id = u.id AND o.id <> 2 WHEN MATCHED THEN UPDATE SET name = o.total::text WHEN NOT MATCHED THEN INSERT (id, account_id, name) VALUES (o.id + 610, o.account_id, 'new')",
    "MERGE INTO users u USING (SELECT DISTINCT account_id, email FROM contacts WHERE account_id = 2) c ON c.account_id = u.account_id AND c.email = u.email WHEN MATCHED THEN UPDATE SET ssn = NULL, age = DEFAULT",
    "MERGE INTO orders o USING users u ON u.id = o.user_id AND u.account_id = 1 AND u.email = 'bob@x' WHEN MATCHED THEN DELETE",
    "MERGE INTO parts p USING (VALUES (600, 2, 'part')) AS s(id, account_id, email) ON p.id = s.id WHEN NOT MATCHED THEN INSERT (id, account_id, email) VALUES (s.id, s.account_id, s.email)",
    "SELECT id, account_id, name, email, ssn, age FROM users ORDER BY id",
    "SELECT id, body, tag FROM memos ORDER BY id",
    "SELECT id, account_id, email FROM parts ORDER BY id",
    "SELECT * FROM orders ORDER BY id",
];

const JOINED: &[&str] = &[
    "UPDATE users u SET email = v.email, name = 'x' FROM (VALUES (1, 1, 'v1'), (4, 2, 'v4'), (2, 1, NULL), (5, 1, 'other tenant')) AS v(id, account_id, email) WHERE u.id = v.id AND u.account_id = v.account_id RETURNING u.id, u.email",
    "UPDATE users SET email = v.mail, ssn = v.ssn FROM (VALUES (1, 'w1', 's1'), (2, 'w2', NULL)) AS v(id, mail, ssn) WHERE users.id = v.id AND users.account_id = 1",
    "UPDATE memos SET tag = v.t FROM (VALUES (1, 'many'), (2, 'many'), (3, 'many')) AS v(id, t) WHERE memos.id = v.id RETURNING memos.id, tag",
    "UPDATE memos SET tag = v.t FROM (VALUES (1, 'longer than ten')) AS v(id, t) WHERE memos.id = v.id",
    "UPDATE users u SET age = v.age FROM (VALUES (1, 1, 41), (2, 1, -1)) AS v(id, account_id, age) WHERE (u.id = v.id) AND (u.account_id = v.account_id)",
    "UPDATE users u SET name = v.name FROM (VALUES (1, 'plain')) AS v(id, name) WHERE u.id = v.id",
    "UPDATE users u SET email = v.email FROM (VALUES (1, 1, 'same'), (2, 1, 'same')) AS v(id, account_id, email) WHERE u.id = v.id AND u.account_id = v.account_id",
    "SELECT id, account_id, name, email, ssn, age FROM users ORDER BY id",
    "SELECT id, body, tag FROM memos ORDER BY id",
];

async fn joined_parameters(twins: &Twins) -> Vec<String> {
    let sql = "UPDATE users u SET email = v.email FROM (VALUES ($1::int8, $2::text), ($3, $4)) AS v(id, email) WHERE u.id = v.id AND u.account_id = $5 RETURNING u.id, u.email";
    let text = |s: &str| Text(Some(s.to_owned()));
    let (one, two, tenant, a, b) = (text("1"), text("2"), text("1"), text("p1"), text("p2"));
    let mut wrong = Vec::new();
    wrong.extend(twins.with(sql, &[&one, &a, &two, &b, &tenant]).await.err());
    wrong.extend(twins.with(sql, &[&1i64, &"b1", &2i64, &None::<&str>, &1i64]).await.err());
    wrong
}

fn joined(version: Version) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins_on(version).await;
        let mut wrong = Vec::new();
        for sql in JOINED {
            wrong.extend(twins.simple(sql).await.err());
        }
        for sql in JOINED {
            wrong.extend(twins.with(sql, &[]).await.err());
        }
        wrong.extend(joined_parameters(&twins).await);
        assert!(wrong.is_empty(), "{} of them differ:\n{}\n{}", wrong.len(), wrong.join("\n"), twins.tail());
        let all = "(SELECT email FROM users UNION ALL SELECT tag FROM memos) x";
        let (rows, keys) = keys(&twins, "email", all, 25);
        assert!(rows > 6 && keys == rows, "{keys} keys for {rows} rows");
    });
}

#[test]
fn each_row_of_values_changes_one_row_on_15() {
    joined(Version::V15);
}

#[test]
fn each_row_of_values_changes_one_row_on_18() {
    joined(Version::V18);
}

async fn merged_parameters(twins: &Twins) -> Vec<String> {
    let upsert = "MERGE INTO users u USING (VALUES ($1::int8, $2::int8, $3::text)) AS s(id, account_id, email) ON u.id = s.id AND u.account_id = s.account_id WHEN MATCHED THEN UPDATE SET email = s.email WHEN NOT MATCHED THEN INSERT (id, account_id, email, name) VALUES (s.id, s.account_id, s.email, $4)";
    let text = |s: &str| Text(Some(s.to_owned()));
    let (id, tenant, mail, name) = (text("700"), text("2"), text("param"), text("n"));
    let mut wrong = Vec::new();
    wrong.extend(twins.with(upsert, &[&id, &tenant, &mail, &name]).await.err());
    wrong.extend(twins.with(upsert, &[&700i64, &2i64, &"again", &"no"]).await.err());
    wrong.extend(twins.with(upsert, &[&701i64, &1i64, &None::<&str>, &"null"]).await.err());
    wrong.extend(
        twins.with("SELECT id, account_id, email, name FROM users WHERE id >= 700 ORDER BY id", &[]).await.err(),
    );
    wrong
}

fn merged(version: Version) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins_on(version).await;
        let mut wrong = Vec::new();
        for sql in MERGED {
            wrong.extend(twins.simple(sql).await.err());
        }
        wrong.extend(merged_parameters(&twins).await);
        for sql in MERGED {
            wrong.extend(twins.with(sql, &[]).await.err());
        }
        assert!(wrong.is_empty(), "{} of them differ:\n{}\n{}", wrong.len(), wrong.join("\n"), twins.tail());
        let (rows, keys) = keys(&twins, "email", "users", 25);
        assert!(rows > 5 && keys == rows, "{keys} keys for {rows} rows");
    });
}

#[test]
fn merge_writes_one_sealed_row_on_15() {
    merged(Version::V15);
}

#[test]
fn merge_writes_one_sealed_row_on_18() {
    merged(Version::V18);
}

async fn copied_parameters(twins: &Twins) -> Vec<String> {
    let by_mail = "INSERT INTO contacts (id, account_id, email, note) SELECT id + $1, account_id, email, $2 FROM users WHERE account_id = $3 AND email = $4 RETURNING id, email, note";
    let constant = "INSERT INTO contacts (id, account_id, email) SELECT o.id + 3010, $1, $2 FROM orders o WHERE o.account_id = 1 RETURNING id, account_id, email";
    let text = |s: &str| Text(Some(s.to_owned()));
    let (base, note, tenant, mail) = (text("3000"), text("p"), text("1"), text("ann@x"));
    let (more, bound, none) = (3002i64, "bound", None::<&str>);
    let runs: Vec<(&str, Vec<&(dyn ToSql + Sync)>)> = vec![
        (by_mail, vec![&base, &note, &tenant, &mail]),
        (by_mail, vec![&more, &"b", &1i64, &"bob@x"]),
        (constant, vec![&1i64, &bound]),
        (constant, vec![&1i64, &none]),
        (
            "INSERT INTO contacts (id, account_id, email) SELECT o.id + 3020, $1, $2 FROM orders o WHERE o.account_id = 1",
            vec![&1i64, &none],
        ),
        ("SELECT * FROM contacts WHERE id >= 3000 ORDER BY id", vec![]),
    ];
    let mut wrong = Vec::new();
    for (sql, params) in runs {
        wrong.extend(twins.with(sql, &params).await.err());
    }
    wrong
}

async fn unnested_parameters(twins: &Twins) -> Vec<String> {
    let (ids, accounts, mails) = (vec![200i32, 201, 202], vec![1i64, 2, 1], vec![Some("b1"), None, Some("b3")]);
    let all = "INSERT INTO users (id, account_id, email) SELECT * FROM UNNEST(($1)::integer[], ($2)::bigint[], ($3)::text[]) RETURNING id, email";
    let one =
        "INSERT INTO users (id, account_id, email) SELECT i, $1, m FROM unnest($2::int8[], $3::text[]) AS u(i, m)";
    let cast = "INSERT INTO memos (id, tag) SELECT * FROM unnest($1::int8[], $2::varchar[]) RETURNING tag";
    let text = |s: &str| Text(Some(s.to_owned()));
    let more = vec![205i64, 206];
    let (texts, tags) = (vec!["c1", "c2"], vec!["binary", "tags"]);
    let (braces, tenants, values) = (text("{207,208}"), text("{1, 2}"), text("{\"d,1\",NULL}"));
    let (long, two) = (vec!["longer than ten"], vec![210i64]);
    let runs: Vec<(&str, Vec<&(dyn ToSql + Sync)>)> = vec![
        (all, vec![&ids, &accounts, &mails]),
        (all, vec![&braces, &tenants, &values]),
        (one, vec![&1i64, &more, &texts]),
        (cast, vec![&more, &tags]),
        (cast, vec![&two, &long]),
        ("SELECT id, account_id, email FROM users WHERE id >= 200 ORDER BY id", vec![]),
        ("SELECT id, tag FROM memos WHERE id >= 200 ORDER BY id", vec![]),
    ];
    let mut wrong = Vec::new();
    for (sql, params) in runs {
        wrong.extend(twins.with(sql, &params).await.err());
    }
    wrong
}

/// The data keys of the sealed rows of a table: as many as rows. `at` is where their ids begin.
fn keys(twins: &Twins, column: &str, table: &str, at: usize) -> (usize, usize) {
    let sql = format!(
        "SELECT encode(substring({column}::bytea from {at} for 16), 'hex') FROM {table} WHERE {column} IS NOT NULL"
    );
    let found = twins.cluster.psql("app", &sql);
    (found.lines().count(), found.lines().collect::<BTreeSet<_>>().len())
}

fn both_ways(version: Version) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins_on(version).await;
        let mut wrong = Vec::new();
        for sql in UNNESTED {
            wrong.extend(twins.simple(sql).await.err());
        }
        wrong.extend(unnested_parameters(&twins).await);
        twins.simple("DELETE FROM users WHERE id >= 100").await.unwrap();
        twins.simple("DELETE FROM memos WHERE id >= 100").await.unwrap();
        for sql in UNNESTED.iter().filter(|sql| !sql.contains("EXECUTE") && !sql.contains("\"Mixed\" SELECT")) {
            wrong.extend(twins.with(sql, &[]).await.err());
        }
        wrong.extend(unnested_parameters(&twins).await);
        assert!(wrong.is_empty(), "{} of them differ:\n{}\n{}", wrong.len(), wrong.join("\n"), twins.tail());
        // Header 8 bytes and token 16, then the id of the data key.
        for (column, table) in [("email", "users"), ("body", "memos"), ("\"Name\"", "\"Mixed\"")] {
            let (rows, keys) = keys(&twins, column, table, 25);
            assert!(rows > 3 && keys == rows, "{table}: {keys} keys for {rows} rows");
        }
        let (rows, keys) = keys(&twins, "ssn", "(SELECT * FROM users WHERE id > 100000) x", 9);
        assert_eq!((rows, keys), (2, 2), "two rows with one value");
    });
}

#[test]
fn unnested_arrays_become_rows_with_keys_of_their_own_on_15() {
    both_ways(Version::V15);
}

#[test]
fn unnested_arrays_become_rows_with_keys_of_their_own_on_18() {
    both_ways(Version::V18);
}

fn copied(version: Version) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins_on(version).await;
        let mut wrong = Vec::new();
        for sql in COPIED {
            wrong.extend(twins.simple(sql).await.err());
        }
        wrong.extend(copied_parameters(&twins).await);
        for sql in ["DELETE FROM users WHERE id >= 100", "DELETE FROM contacts WHERE id >= 100", "DELETE FROM memos WHERE id >= 100", "DELETE FROM parts WHERE id >= 100"] {
            wrong.extend(twins.simple(sql).await.err());
        }
        for sql in COPIED {
            wrong.extend(twins.with(sql, &[]).await.err());
        }
        assert!(wrong.is_empty(), "{} of them differ:\n{}\n{}", wrong.len(), wrong.join("\n"), twins.tail());
        let all = "(SELECT email FROM users UNION ALL SELECT email FROM contacts UNION ALL SELECT email FROM parts UNION ALL SELECT body FROM memos) x";
        let (rows, keys) = keys(&twins, "email", all, 25);
        assert!(rows > 25 && keys == rows, "{keys} keys for {rows} rows");
    });
}

#[test]
fn rows_of_a_query_are_sealed_anew_on_15() {
    copied(Version::V15);
}

#[test]
fn rows_of_a_query_are_sealed_anew_on_18() {
    copied(Version::V18);
}

#[test]
fn an_array_without_tenants_for_its_values_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins_on(Version::Any).await;
        let sql = "INSERT INTO users (id, account_id, email) SELECT * FROM unnest('{1,2}'::int[], '{1}'::int8[], '{a,b}'::text[])";
        let outcome = simple(&twins.sealed, sql).await;
        assert_eq!(outcome, super::Outcome::Error("55000".to_owned()));
    });
}
