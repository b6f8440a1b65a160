//! INSERT of rows of VALUES that a SELECT reads: each row has a key (E2) and a tenant of its own, by both protocols and in
//! both formats, and the rows come back in order.
use std::collections::BTreeSet;

use tokio_postgres::types::{ToSql, Type};

use super::{Outcome, Twins, extended, simple, twins_on};
use crate::support::postgres::Version;
use crate::support::raw::{Raw, Text};

const WRITTEN: &[&str] = &[
    "INSERT INTO users (id, account_id, email, age) SELECT p0::BIGINT, p1::BIGINT, p2::VARCHAR, p3::INTEGER FROM (VALUES ('100', '1', 'r0', '50', 0), ('101', '2', 'r1', NULL, 1), ('102', '1', NULL, '52', 2)) AS imp_sen(p0, p1, p2, p3, sen_counter) ORDER BY sen_counter RETURNING users.id, users.id AS id__1, email, age",
    "INSERT INTO users (id, account_id, email, age) SELECT p0::BIGINT, p1::BIGINT, p2::VARCHAR, p3::INTEGER FROM (VALUES ('103'::BIGINT, '2'::BIGINT, 'r3'::VARCHAR, '53'::INTEGER, 2), ('104'::BIGINT, '1'::BIGINT, 'r4'::VARCHAR, '54'::INTEGER, 1)) AS imp_sen(p0, p1, p2, p3, sen_counter) ORDER BY sen_counter RETURNING id, email, age",
    "INSERT INTO users (id, account_id, email, ssn) SELECT * FROM (VALUES (105, 1, 'it''s', NULL), (106, 2, '\"q\" \\ b', 's')) v RETURNING id, email, ssn",
    "INSERT INTO users (id, account_id, email) SELECT v.i, 2, m FROM (VALUES (107, 'c'), (108, 'b'), (109, 'a')) AS v(i, m) WHERE i > 107 ORDER BY v.i DESC LIMIT 1 OFFSET 1 RETURNING *",
    "INSERT INTO users (id, account_id, name, email) SELECT column1 + 5, column2, lower(column3), (column4) FROM (VALUES (110, '1', 'N', 'one')) v RETURNING id, name, email",
    "INSERT INTO users (id, account_id, email, age, ssn) SELECT i, a, CAST(m AS text), g, NULL::text FROM (VALUES (116, 1, 'both', 7), (117, 2, NULL, NULL)) AS v(i, a, m, g) RETURNING id, email, age, ssn",
    "INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES (1, 1, 'again'), (118, 1, 'new')) AS v(i, a, m) ON CONFLICT (id) DO NOTHING RETURNING id, email",
    "INSERT INTO users (id, account_id, email, name) SELECT i, a, m, 'n' FROM (VALUES (119, 1, 'ann@x'), (120, 2, 'ann@x'), (121, 1, 'fresh')) AS v(i, a, m) ON CONFLICT (account_id, email) DO UPDATE SET email = EXCLUDED.email, name = EXCLUDED.name RETURNING id, email, name",
    "INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES (100, 1, 'over'), (122, 1, 'added')) AS v(i, a, m) ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email RETURNING id, email",
    "INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES (123, 1, 'one row')) AS v(i, a, m) ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email, ssn = 'set'",
    "INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES (123, 1, 'one row more')) AS v(i, a, m) ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email, ssn = 'set' RETURNING email, ssn",
    "INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES (124, 1, 'same'), (125, 1, 'same')) AS v(i, a, m)",
    "INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES (126, 1, 'x'), (126, 1, 'y')) AS v(i, a, m) ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email",
    "INSERT INTO users (id, account_id, age) SELECT i, a, g::int FROM (VALUES (127, 1, '4x')) AS v(i, a, g)",
    "INSERT INTO users (id, account_id, age) SELECT i, a, g FROM (VALUES (127, 1, 3000000000)) AS v(i, a, g)",
    "INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES (127, NULL, NULL)) AS v(i, a, m)",
    "INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES (128, NULL, NULL), (129, 2, 'kept')) AS v(i, a, m) WHERE a IS NOT NULL",
    "INSERT INTO memos (id, body, tag) SELECT i, b, t::varchar(10) FROM (VALUES (100, 'm1', 't1'), (101, 'm2', NULL)) AS v(i, b, t) RETURNING *",
    "INSERT INTO memos (id, body, tag) SELECT i, b, t FROM (VALUES (102, 'm3', 't1'), (103, 'm4', 'longer than ten')) AS v(i, b, t)",
    "INSERT INTO \"Mixed\" SELECT * FROM (VALUES (100, 1, 'x'), (101, 2, 'y')) AS v RETURNING \"Name\"",
    "INSERT INTO parts (id, account_id, email) SELECT i, a, m FROM (VALUES (100, 1, 'of one'), (101, 2, 'of two')) AS v(i, a, m) RETURNING account_id, email",
    "INSERT INTO users_view (id, account_id, email) SELECT i, a, m FROM (VALUES (130, 1, 'by view')) AS v(i, a, m)",
    "WITH made AS (INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES (131, 1, 'within'), (132, 2, 'within')) AS v(i, a, m) RETURNING id, email) SELECT * FROM made ORDER BY id",
    "PREPARE p AS INSERT INTO users (id, account_id, email, age) SELECT i::int8, a::int8, m, g::int4 FROM (VALUES ($1, $2, $3, $4), ('134', '2', 'p2', NULL)) AS v(i, a, m, g) RETURNING id, email, age",
    "EXECUTE p ('133', '1', 'p1', '7')",
    "DEALLOCATE p",
    "INSERT INTO tagged (id, org, tags, email) SELECT i, o::uuid, t::text[], e FROM (VALUES (1, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{a,\"b c\",NULL}', 'x'), (2, '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}', NULL, 'y')) AS v(i, o, t, e) RETURNING id, tags, email",
    "INSERT INTO tagged (id, org, tags, sizes) SELECT i, o, t, s FROM (VALUES (3, 'a0eebc999c0b4ef8bb6d6bb9bd380a11'::uuid, ARRAY['a', 'b'], '{1,2}'::int4[]), (4, 'A0EEBC99-9C0B4EF8BB6D6BB9BD380A11', '{}', NULL), (5, UUID 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', NULL, NULL)) AS v(i, o, t, s) RETURNING org, tags, sizes",
    "INSERT INTO tagged (id, org, tags) SELECT i, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', t FROM (VALUES (6, '{c}'::text[]), (7, ARRAY[NULL, 'd'])) AS v(i, t) RETURNING tags",
    "INSERT INTO tagged (id, org, tags) SELECT i, o::uuid, t::text[] FROM (VALUES (8, 'no uuid', '{c}')) AS v(i, o, t)",
    "INSERT INTO tagged (id, org, tags) SELECT i, o::uuid, t::text[] FROM (VALUES (8, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{c')) AS v(i, o, t)",
    "SELECT id FROM tagged WHERE org = '{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}' AND email = 'x'",
    "INSERT INTO tagged (id, org, email) SELECT * FROM unnest('{20,21}'::int8[], '{A0EEBC999C0B4EF8BB6D6BB9BD380A11,a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'::uuid[], '{u,v}'::text[]) RETURNING id, org, email",
    "SELECT * FROM tagged ORDER BY id",
    "INSERT INTO short (id, org, email) SELECT * FROM unnest(ARRAY[1, 2], ARRAY['abc', 'abc']::varchar(3)[], ARRAY['x', 'y']) RETURNING email",
    "INSERT INTO short (id, org, email) SELECT * FROM unnest('{3,4}'::int8[], '{abcd,abc}'::varchar(3)[], '{x,y}'::text[]) RETURNING org, email",
    "INSERT INTO short (id, org, email) SELECT * FROM unnest('{5,6}'::int8[], '{abc,abc}'::varchar(9)[], '{x,y}'::varchar[]) RETURNING org, email",
    "SELECT * FROM short ORDER BY id",
    "SELECT id, account_id, name, email, age, ssn FROM users ORDER BY id",
    "SELECT id, body, tag FROM memos ORDER BY id",
    "SELECT * FROM \"Mixed\" ORDER BY id",
    "SELECT id, account_id, email FROM parts ORDER BY id",
];

const MANY: &str = "INSERT INTO users (id, account_id, email, age, name) SELECT p0::BIGINT, p1::INTEGER, p2::VARCHAR, p3::INTEGER, p4::VARCHAR FROM (VALUES ($1, $2, $3, $4, $5, 0), ($6, $7, $8, $9, $10, 1)) AS imp_sen(p0, p1, p2, p3, p4, sen_counter) ORDER BY sen_counter RETURNING users.id, users.id AS id__1, email, age";
const CAST: &str = "INSERT INTO users (id, account_id, email, age) SELECT p0::BIGINT, p1::INTEGER, p2::VARCHAR, p3::INTEGER FROM (VALUES ($1::BIGINT, $2::INTEGER, $3::VARCHAR, $4::INTEGER, 0), ($5::BIGINT, $6::INTEGER, $7::VARCHAR, $8::INTEGER, 1)) AS imp_sen(p0, p1, p2, p3, sen_counter) ORDER BY sen_counter RETURNING id, email, age";
const UPSERT: &str = "INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES ($1::int8, $2::int8, $3::text), ($4, $5, $6)) AS v(i, a, m) ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email RETURNING id, email";

const TAGS: &str = "INSERT INTO tagged (id, org, tags) SELECT i, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid, t::text[] FROM (VALUES ($1::int8, $2), ($3, $4)) AS v(i, t) RETURNING id, tags";
const LISTS: &str =
    "INSERT INTO tagged (id, org, email) SELECT 240, * FROM unnest($1::uuid[], $2::text[]) RETURNING org, email";

fn text(value: &str) -> Text {
    Text(Some(value.to_owned()))
}

async fn parameters(twins: &Twins) -> Vec<String> {
    let none = None::<&str>;
    let written: Vec<Text> = ["210", " 2", "t0", " 60 ", "n", "211", "1", "t1", "61", "m"].map(text).into();
    let written: Vec<&(dyn ToSql + Sync)> = written.iter().map(|one| one as _).collect();
    let declared = [Type::INT4, Type::INT2, Type::TEXT, Type::INT2, Type::VARCHAR];
    let declared = [declared.clone(), declared].concat();
    let (ids, a, b) = ((220i32, 221i32), 2i16, 1i16);
    let (tags, more_tags) = (vec![Some("a"), None], Vec::<Option<&str>>::new());
    let lists = [text("{a,\"b c\"}"), text("{A0EEBC999C0B4EF8BB6D6BB9BD380A11}"), text("{}"), text("{x}")];
    let runs: Vec<(&str, &[Type], Vec<&(dyn ToSql + Sync)>)> = vec![
        (
            TAGS,
            &[Type::INT8, Type::TEXT_ARRAY, Type::INT8, Type::TEXT_ARRAY],
            vec![&230i64, &tags, &231i64, &more_tags],
        ),
        (TAGS, &[Type::INT8], vec![&232i64, &lists[0], &233i64, &lists[2]]),
        (TAGS, &[Type::INT8, Type::TEXT, Type::INT8, Type::TEXT], vec![&234i64, &"{x}", &235i64, &"{y"]),
        (LISTS, &[], vec![&lists[1], &lists[3]]),
        // The server takes them for texts; so in binary, too.
        (MANY, &[], vec![&"200", &"1", &"b0", &"50", &"n", &"201", &"2", &none, &none, &none]),
        (MANY, &[], written),
        (MANY, &declared, vec![&ids.0, &a, &"d0", &7i16, &"n", &ids.1, &b, &none, &8i16, &none]),
        (MANY, &[], vec![&"202", &"1", &"bad", &"5x", &"n", &"203", &"2", &none, &none, &none]),
        (CAST, &[], vec![&230i64, &2i32, &"c0", &70i32, &231i64, &1i32, &none, &None::<i32>]),
        (CAST, &[], vec![&232i64, &1i32, &none, &None::<i32>, &233i64, &2i32, &"c1", &71i32]),
        (UPSERT, &[], vec![&230i64, &2i64, &"u0", &240i64, &1i64, &none]),
        (UPSERT, &[], vec![&240i64, &1i64, &"u1", &241i64, &2i64, &"u2"]),
        ("SELECT id FROM users WHERE account_id = $1::int4 AND email = $2", &[], vec![&2i32, &"c1"]),
        (
            "UPDATE users SET ssn = 'of int2' WHERE id = 233 AND account_id = $1::int2 AND email = 'c1'",
            &[],
            vec![&2i16],
        ),
        ("SELECT id, account_id, name, email, age, ssn FROM users WHERE id >= 200 ORDER BY id", &[], vec![]),
    ];
    let mut wrong = Vec::new();
    for (sql, types, params) in runs {
        wrong.extend(twins.typed(sql, types, &params).await.err());
    }
    wrong
}

/// Which data keys, and how many rows, `columns` of a table have; header 8 bytes, a token of 16 where there is one, then the id.
fn keys(twins: &Twins, columns: &[(&str, usize)], table: &str) -> (BTreeSet<Vec<String>>, usize) {
    let id = |(column, at): &(&str, usize)| format!("encode(substring({column}::bytea from {at} for 16), 'hex')");
    let ids: Vec<String> = columns.iter().map(id).collect();
    let all: Vec<String> = columns.iter().map(|(column, _)| format!("{column} IS NOT NULL")).collect();
    let sql = format!("SELECT {} FROM {table} WHERE {}", ids.join(" || ' ' || "), all.join(" AND "));
    let found = twins.cluster.psql("app", &sql);
    let rows: Vec<Vec<String>> =
        found.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    (rows.iter().cloned().collect(), rows.len())
}

fn rows(version: Version) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins_on(version).await;
        let mut wrong = Vec::new();
        for sql in WRITTEN {
            wrong.extend(twins.simple(sql).await.err());
        }
        wrong.extend(parameters(&twins).await);
        for table in ["users", "memos", "\"Mixed\"", "parts"] {
            wrong.extend(twins.simple(&format!("DELETE FROM {table} WHERE id >= 100")).await.err());
        }
        for sql in WRITTEN.iter().filter(|sql| !sql.contains("EXECUTE")) {
            wrong.extend(twins.with(sql, &[]).await.err());
        }
        wrong.extend(parameters(&twins).await);
        assert!(wrong.is_empty(), "{} of them differ:\n{}\n{}", wrong.len(), wrong.join("\n"), twins.tail());
        for (column, table, least) in [("email", "users", 25), ("body", "memos", 4), ("\"Name\"", "\"Mixed\"", 3)] {
            let (keys, rows) = keys(&twins, &[(column, 25)], table);
            assert!(rows > least && keys.len() == rows, "{table}: {} keys for {rows} rows", keys.len());
        }
        // Rows that one INSERT wrote, and nothing since.
        let whole = "(SELECT * FROM users WHERE id IN (103, 104, 116, 200, 210, 220, 233)) x";
        let (pairs, rows) = keys(&twins, &[("email", 25), ("age", 25)], whole);
        assert!(pairs.iter().all(|pair| pair[0] == pair[1]), "the cells of a row have one key");
        assert_eq!((pairs.len(), rows), (7, 7), "and no two rows have the same");
    });
}

#[test]
fn rows_of_values_have_keys_of_their_own_on_15() {
    rows(Version::V15);
}

#[test]
fn rows_of_values_have_keys_of_their_own_on_18() {
    rows(Version::V18);
}

#[test]
fn rows_of_values_come_back_in_order() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins_on(Version::Any).await;
        let row = |n: usize| format!("({}, {}, 'mail{n}', {n})", 1000 - n, 1 + n % 2);
        let rows: Vec<String> = (0..50).rev().map(row).collect();
        let sql = format!(
            "INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES {}) AS v(i, a, m, n) ORDER BY n RETURNING email",
            rows.join(", ")
        );
        let Outcome::Rows(_, found) = extended(&twins.sealed, &sql, &[], &[]).await else { panic!("no rows") };
        let expected: Vec<_> = (0..50).map(|n| vec![Some(Raw(format!("mail{n}").into_bytes()))]).collect();
        assert_eq!(found, expected);
    });
}

#[test]
fn a_row_of_values_without_a_tenant_for_its_value_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins_on(Version::Any).await;
        let sql = "INSERT INTO users (id, account_id, email) SELECT i, a, m FROM (VALUES (900, 1, 'a'), (901, NULL, 'b')) AS v(i, a, m)";
        assert_eq!(simple(&twins.sealed, sql).await, Outcome::Error("55000".to_owned()));
        let none = None::<i32>;
        let params: [&(dyn ToSql + Sync); 8] = [&900i64, &1i32, &"a", &None::<i32>, &901i64, &none, &"b", &None::<i32>];
        assert_eq!(extended(&twins.sealed, CAST, &[], &params).await, Outcome::Error("55000".to_owned()));
        let params: [&(dyn ToSql + Sync); 10] =
            [&"900", &"no number", &"a", &"1", &"n", &"901", &"2", &"b", &"2", &"n"];
        assert_eq!(extended(&twins.sealed, MANY, &[], &params).await, Outcome::Error("22P02".to_owned()));
        assert_eq!(twins.cluster.psql("app", "SELECT count(*) FROM users WHERE id >= 900").trim(), "0");
    });
}
