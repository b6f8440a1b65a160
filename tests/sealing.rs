//! Are existing columns sealed in place, and opened again, while they are written (K6, E2, A1)?
use std::process::Output;

use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;

mod killed;
mod prepared;
mod refused;
mod writers;

const POLICY: &str = r#"
[[database]]
name = "app"
control = "{control}/app"
unsealed = "pass"

[[database.table]]
name = "public.users"
tenant = { column = "account_id" }
[database.table.columns]
email = { type = "text", equality = "tenant" }
note = { type = "text" }

[[database.table]]
name = "public.kinds"
tenant = { name = "acme" }
[database.table.columns]
a_text = { type = "text", equality = "tenant" }
a_varchar = { type = "varchar(12)", equality = "tenant" }
an_int = { type = "int4", equality = "tenant" }
a_date = { type = "date" }
a_jsonb = { type = "jsonb" }
a_numeric = { type = "numeric(12,3)" }
a_bytea = { type = "bytea" }
an_array = { type = "text[]" }
"#;

/// The types of table `kinds`, with values that are easily read wrongly.
const KINDS: &str = "
    CREATE TABLE kinds (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int UNIQUE, a_text text, a_varchar varchar(12),
        an_int int4 NOT NULL, a_date date, a_jsonb jsonb, a_numeric numeric(12,3), a_bytea bytea, an_array text[]);
    CREATE INDEX kinds_int ON kinds (an_int DESC) WHERE a_text IS NOT NULL;
    INSERT INTO kinds (n, a_text, a_varchar, an_int, a_date, a_jsonb, a_numeric, a_bytea, an_array) VALUES
        (1, '', '', 0, '2024-02-29', '{}', 0, '', '{}'),
        (2, 'naïve 日本 👋', 'twelve chars', -2147483648, '0001-01-01 BC', '{\"b\": [1, 1.0, null], \"a\": \"x\\\\u0041\"}',
            -123456789.500, '\\x00ff', ARRAY[NULL, '', 'a,b', 'q\"', E'back\\\\slash']),
        (3, NULL, NULL, 2147483647, NULL, NULL, NULL, NULL, NULL),
        (4, E'line\\nbreak\\ttab \\\\ ''quote''', 'x ', 7, 'infinity', '\"str\"', 'NaN', decode(repeat('ab', 3000), 'hex'),
            '{one}')";
const KIND_COLUMNS: [&str; 8] =
    ["a_text", "a_varchar", "an_int", "a_date", "a_jsonb", "a_numeric", "a_bytea", "an_array"];
const ALL_KINDS: &str =
    "SELECT n, a_text, a_varchar, an_int, a_date, a_jsonb, a_numeric, a_bytea, an_array FROM kinds ORDER BY n";

fn site(cluster: &Cluster) -> Site {
    cluster.createdb("app");
    let site = Site::new(cluster, POLICY);
    site.run_ok(&["setup"]);
    for tenant in ["acme", "1", "2"] {
        site.run_ok(&["tenant", "register", tenant]);
    }
    site
}

fn seal(site: &Site, column: &str, more: &[&str]) -> Output {
    site.run(&[&["column", "seal", column], more].concat())
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_type_is_sealed_and_comes_back_on_15() {
    every_type(Version::V15);
}

#[test]
fn every_type_is_sealed_and_comes_back_on_18() {
    every_type(Version::V18);
}

fn every_type(version: Version) {
    let cluster = Cluster::start(version);
    let site = site(&cluster);
    cluster.psql("app", KINDS);
    let plain = cluster.psql("app", ALL_KINDS);
    for column in KIND_COLUMNS {
        let told = site.run_ok(&["column", "seal", &format!("public.kinds.{column}")]);
        assert!(told.contains("is sealed") && told.contains("locked for"), "{told}");
    }
    let stored = cluster.psql("app", ALL_KINDS);
    assert!(!stored.contains("naïve") && !stored.contains("2024-02-29"), "{stored}");
    let types = "SELECT string_agg(format_type(atttypid, atttypmod) || ' ' || attstorage::text || ' ' || attnotnull, ', ' ORDER BY attname)
        FROM pg_attribute WHERE attrelid = 'kinds'::regclass AND attname ~ '^an?_' AND NOT attisdropped";
    assert_eq!(
        cluster.psql("app", types),
        "rowseal.bytea e false, rowseal.date e false, rowseal.jsonb e false, rowseal.\"numeric\" e false, \
         rowseal.text e false, rowseal.\"varchar\" e false, rowseal.text_array e false, rowseal.int4 e true"
    );
    let proxy = site.serve();
    let ask = |sql: &str| cluster.psql_at(proxy.address(), "app", sql).unwrap();
    assert_eq!(ask(ALL_KINDS), plain);
    assert_eq!(ask("SELECT n FROM kinds WHERE an_int = 7 AND a_varchar = 'x '"), "4");
    assert!(ask("EXPLAIN SELECT n FROM kinds WHERE an_int = 7 AND a_text IS NOT NULL").contains("kinds"), "plan");
    assert!(site.run(&["check"]).status.success(), "{}", error(&site.run(&["check"])));
    for column in KIND_COLUMNS {
        site.run_ok(&["column", "unseal", &format!("public.kinds.{column}")]);
    }
    assert_eq!(cluster.psql("app", ALL_KINDS), plain);
    assert_eq!(
        cluster.psql("app", "SELECT pg_get_indexdef('kinds_int'::regclass)"),
        "CREATE INDEX kinds_int ON public.kinds USING btree (an_int DESC) WHERE (a_text IS NOT NULL)"
    );
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'rowseal%' UNION ALL SELECT count(*) FROM pg_proc
        WHERE proname LIKE 'rowseal%' UNION ALL SELECT count(*) FROM pg_constraint WHERE conname LIKE 'rowseal%'";
    assert_eq!(cluster.psql("app", left), "0\n0\n0");
    let verified = site.run_ok(&["audit", "verify", "--directory", site.path().join("audit/column").to_str().unwrap()]);
    assert!(verified.contains("records"), "{verified}");
}
