//! Values inside what the server builds: JSON, arrays and rows over sealed columns give byte for byte what they give over
//! plain ones, in every protocol and format (T3, T4). What cannot be opened is refused, and no cell reaches a client (T5).
use crate::support::peer::{Message, Out, Peer, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::{twin, twin_types};

mod guarded;
mod stand_ins;

/// Columns that are sealed, with their type and values.
fn columns() -> Vec<(String, &'static str, Vec<&'static str>)> {
    let first = twin::TYPES.iter().map(|(name, ty, values, _)| ((*name).to_owned(), *ty, values.to_vec()));
    let others = twin_types::TYPES.iter().enumerate();
    let mut all: Vec<_> =
        first.chain(others.map(|(n, (ty, values, _))| (twin_types::column(n), *ty, values.to_vec()))).collect();
    // A json that no jsonb can hold.
    all.iter_mut().for_each(|(_, _, values)| values.retain(|value| !value.contains("\\u0000")));
    all
}

fn domain(ty: &str) -> String {
    let logical = rowseal::types::LogicalType::parse(ty).unwrap();
    format!("rowseal.{}", logical.domain())
}

fn policy() -> String {
    let mut policy = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\n\
        name = \"public.t\"\ntenant = { column = \"account_id\" }\n\n[database.table.columns]\n"
        .to_owned();
    for (name, ty, _) in columns() {
        policy += &format!("{name} = {{ type = \"{ty}\" }}\n");
    }
    policy
        + "\n[[database.table]]\nname = \"public.users\"\ntenant = { column = \"account_id\" }\n\n\
           [database.table.columns]\nemail = { type = \"text\", equality = \"tenant\" }\nage = { type = \"int4\" }\n\
           doc = { type = \"jsonb\" }\n\n\
           [[database.table]]\nname = \"public.notes\"\ntenant = { name = \"1\" }\n\n\
           [database.table.columns]\nbody = { type = \"text\" }\n"
}

/// A plain schema to be used directly and a sealed one behind the proxy, and what was found to differ between them.
struct Pair {
    cluster: Cluster,
    _site: Site,
    proxy: Proxy,
    plain: Peer,
    sealed: Peer,
    /// OIDs that differ between the two: of the sealed tables' row types, and those of the plain ones.
    oids: Vec<([u8; 4], [u8; 4])>,
    cases: usize,
    differences: Vec<String>,
}

fn pair(version: Version) -> Pair {
    let cluster = Cluster::start(version);
    cluster.createdb("app");
    let site = Site::new(&cluster, &policy());
    site.run_ok(&["setup"]);
    for tenant in ["1", "2"] {
        site.run_ok(&["tenant", "register", tenant]);
    }
    cluster.psql("app", "CREATE SCHEMA plain");
    for (schema, is_sealed) in [("plain", false), ("public", true)] {
        let of = |ty: &str| if is_sealed { domain(ty) } else { ty.to_owned() };
        let all: Vec<String> = columns().iter().map(|(name, ty, _)| format!("{name} {}", of(ty))).collect();
        let sql = format!(
            "SET search_path = {schema};
            CREATE TABLE t (id int8 PRIMARY KEY, account_id int8 NOT NULL, note text, {});
            CREATE TABLE users (id int4 PRIMARY KEY, account_id int8 NOT NULL, name text, email {}, age {}, doc {});
            CREATE TABLE notes (id int4 PRIMARY KEY, user_id int4, body {}, posted timestamptz);
            CREATE TABLE orders (id int4 PRIMARY KEY, user_id int4, total numeric);
            CREATE VIEW people AS SELECT id, account_id, email FROM users;",
            all.join(", "),
            of("text"),
            of("int4"),
            of("jsonb"),
            of("text"),
        );
        cluster.psql("app", &sql);
    }
    let proxy = site.serve();
    let mut plain = Peer::connect(cluster.host_port(), "app");
    assert!(plain.ask("SET search_path = plain").ends_with("Z(I)"));
    let sealed = Peer::connect(proxy.address(), "app");
    let oid = |name: &str| {
        let oid = cluster.psql("app", &format!("SELECT '{name}'::regtype::oid"));
        oid.trim().parse::<u32>().unwrap().to_be_bytes()
    };
    let names = ["t", "users", "notes", "t[]", "users[]", "notes[]"];
    let oids = names.map(|name| (oid(&format!("public.{name}")), oid(&format!("plain.{name}")))).to_vec();
    let mut pair = Pair { cluster, _site: site, proxy, plain, sealed, oids, cases: 0, differences: Vec::new() };
    pair.fill();
    pair
}

impl Pair {
    fn compare(&mut self, what: &str, out: &Out) {
        self.cases += 1;
        self.plain.send(&out.0);
        let expected = self.plain.until_ready(1);
        self.sealed.send(&out.0);
        let got: Vec<Message> = self.sealed.until_ready(1).into_iter().map(|m| self.with_plain_oids(m)).collect();
        let (expected, got) = (show(&expected), show(&got));
        if expected.contains("E(ERROR") && !what.contains("fails") {
            self.differences.push(format!("{what}\n  is wrong: {expected}"));
        }
        if expected != got {
            let at = expected.bytes().zip(got.bytes()).take_while(|(a, b)| a == b).count().saturating_sub(120);
            let cut = |text: &str| text.get(at..(at + 700).min(text.len())).unwrap_or(text).to_owned();
            self.differences.push(format!("{what}\n  plain:  {}\n  sealed: {}", cut(&expected), cut(&got)));
        }
    }

    fn with_plain_oids(&self, (tag, mut body): Message) -> Message {
        if tag == b'T' || tag == b'D' {
            for (sealed, plain) in &self.oids {
                let found: Vec<usize> = memchr::memmem::find_iter(&body, sealed).collect();
                found.into_iter().for_each(|at| body[at..at + 4].copy_from_slice(plain));
            }
        }
        (tag, body)
    }

    /// By the simple protocol, and by the extended one in text, in binary and described.
    fn same(&mut self, sql: &str) {
        self.compare(sql, &Out::new().query(sql));
        for format in [0, 1] {
            let out = Out::new().parse("", sql).describe('S', "").bind_as("", &[], &[format]).describe('P', "");
            self.compare(&format!("{sql} as {format}"), &out.execute("", 0).sync());
        }
    }

    /// The same of a statement that may fail when it is run again.
    fn same_fails(&mut self, sql: &str) {
        self.compare(sql, &Out::new().query(sql));
        for format in [0, 1] {
            let out = Out::new().parse("", sql).describe('S', "").bind_as("", &[], &[format]).describe('P', "");
            self.compare(&format!("{sql} as {format}, or fails"), &out.execute("", 0).sync());
        }
    }

    fn fill(&mut self) {
        let columns = columns();
        let names: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
        for row in 0..100_usize {
            let value = |(at, (_, _, values)): (usize, &(String, &str, Vec<&str>))| {
                let value = values.get((row * 7 + at) % (values.len() + 1));
                value.map_or("NULL".to_owned(), |value| twin::quote(value))
            };
            let values: Vec<String> = columns.iter().enumerate().map(value).collect();
            let sql = format!(
                "INSERT INTO t (id, account_id, note, {}) VALUES ({row}, {}, 'n \"{row}\", \\(x)', {})",
                names.join(", "),
                1 + row % 2,
                values.join(", ")
            );
            self.compare("insert", &Out::new().query(&sql));
        }
        for sql in [
            "INSERT INTO users (id, account_id, name, email, age, doc) VALUES \
             (1, 1, 'Ann', 'ann@x', 30, '{\"b\": 1.50, \"a\": [true, null, \"x\"]}'), \
             (2, 1, 'Bob', 'bob \"the\" (b), {x} \\ ☃', NULL, NULL), (3, 2, NULL, '', 7, '[]'), \
             (4, 2, 'Dee', NULL, -1, '\"s\"')",
            "INSERT INTO notes (id, user_id, body, posted) VALUES (1, 1, 'first', '2024-02-29 12:00+00'), \
             (2, 1, E'tab\\tnew\\nline', NULL), (3, 2, 'third', '1999-12-31 23:59:59.5+00'), (4, 9, NULL, NULL)",
            "INSERT INTO orders (id, user_id, total) VALUES (1, 1, 10.50), (2, 1, 20), (3, 3, 'NaN')",
        ] {
            self.compare(sql, &Out::new().query(sql));
        }
    }

    fn done(self, cases_min: usize) {
        let log = self.proxy.log();
        assert!(!log.contains("panicked"), "{log}");
        let all = self.differences.join("\n");
        assert!(self.differences.is_empty(), "{} of {} cases differ\n{all}", self.differences.len(), self.cases);
        assert!(self.cases >= cases_min, "only {} cases", self.cases);
    }
}

/// Documents of every type, alone and within others.
fn documents(pair: &mut Pair) {
    for (name, ..) in columns() {
        pair.same(&format!("SELECT id, to_json({name}), to_jsonb({name}) AS b FROM t ORDER BY id"));
        pair.same(&format!("SELECT json_build_object('id', id, 'v', {name}) FROM t ORDER BY id"));
        pair.same(&format!("SELECT jsonb_agg({name} ORDER BY id) FROM t"));
        pair.same(&format!("SELECT jsonb_build_array({name}, NULL, {name})::text FROM t ORDER BY id"));
        pair.same(&format!("SELECT json_agg({name} ORDER BY id) FROM t"));
        pair.same(&format!("SELECT json_agg({name} ORDER BY id)::jsonb, jsonb_agg({name} ORDER BY id)::json FROM t"));
    }
    for sql in [
        "SELECT to_json(t) FROM t ORDER BY id",
        "SELECT to_jsonb(t.*) FROM t ORDER BY id",
        "SELECT row_to_json(x, true) FROM (SELECT * FROM t ORDER BY id) x",
        "SELECT coalesce(json_agg(t ORDER BY id), '[]') FROM t",
        "SELECT coalesce(jsonb_agg(t ORDER BY id), '[]'::jsonb) FROM t WHERE id > 1000",
        "SELECT json_agg(t ORDER BY id)::jsonb, jsonb_agg(t ORDER BY id)::json, json_agg(t ORDER BY id)::text FROM t",
        "SELECT account_id, jsonb_object_agg(id, t) FROM t GROUP BY account_id ORDER BY 1",
        "SELECT json_object_agg(id, c_text ORDER BY id) FROM t",
    ] {
        pair.same(sql);
    }
}

/// Arrays and rows of every type.
fn arrays_and_rows(pair: &mut Pair) {
    for (name, ty, _) in columns() {
        let not_array = !ty.ends_with("[]");
        if not_array {
            pair.same(&format!("SELECT array_agg({name} ORDER BY id), count(*) FROM t"));
            pair.same(&format!("SELECT ARRAY(SELECT {name} FROM t ORDER BY id) AS a"));
            pair.same(&format!("SELECT ARRAY[{name}, NULL, {name}] FROM t ORDER BY id"));
            pair.same(&format!("SELECT coalesce(array_agg({name} ORDER BY id), '{{}}')::text FROM t"));
            pair.same(&format!("SELECT array_to_json(array_agg({name} ORDER BY id), true) FROM t"));
        }
        pair.same(&format!("SELECT ROW({name}, id, note) FROM t ORDER BY id"));
        pair.same(&format!("SELECT (id, {name})::text FROM t ORDER BY id"));
        pair.same(&format!("SELECT array_agg(ROW({name}, note) ORDER BY id) FROM t"));
        pair.same(&format!("SELECT ROW(id, to_jsonb({name}), json_build_object('k', {name})) FROM t ORDER BY id"));
    }
    for sql in [
        "SELECT t FROM t ORDER BY id",
        "SELECT t, id, c_text FROM t ORDER BY id",
        "SELECT t::text FROM t ORDER BY id",
        "SELECT ROW(t.*) FROM t ORDER BY id",
        "SELECT array_agg(t ORDER BY id) FROM t",
        "SELECT ARRAY(SELECT t FROM t ORDER BY id)",
        "SELECT x FROM (SELECT id, account_id, c_text, c_jsonb FROM t) x ORDER BY id",
        "SELECT to_json(ROW(id, c_text, t)) FROM t ORDER BY id",
        "SELECT ROW(users, email, ROW(doc, email)) FROM users ORDER BY id",
        "SELECT array_agg(to_jsonb(u) ORDER BY id), array_agg(json_build_array(email, doc) ORDER BY id) FROM users u",
        "SELECT to_json(array_agg(u ORDER BY id)) FROM users u",
        "SELECT account_id, array_agg(email ORDER BY id)::text[], array_agg(age) FROM users GROUP BY account_id ORDER BY 1",
        "SELECT array_agg(email) FROM users WHERE id > 99",
        "SELECT ARRAY(SELECT email FROM users WHERE id > 99)",
        "SELECT x.emails, to_json(x) FROM (SELECT array_agg(email ORDER BY id) AS emails FROM users) x",
        "SELECT jsonb_agg(x) FROM (SELECT account_id, array_agg(email ORDER BY id) AS emails FROM users GROUP BY 1 ORDER BY 1) x",
        "SELECT coalesce((SELECT array_agg(n ORDER BY n.id) FROM notes n WHERE n.user_id = u.id), '{}') FROM users u ORDER BY id",
        "SELECT n, u.email FROM notes n LEFT JOIN users u ON u.id = n.user_id ORDER BY n.id",
        "INSERT INTO users (id, account_id, email, age) VALUES (50, 1, 'new \"one\"', 3) RETURNING users, to_jsonb(users), email",
        "UPDATE users SET email = 'changed', age = NULL WHERE id = 50 AND account_id = 1 RETURNING users.*, users, ROW(email, age)",
        "UPDATE users SET email = 'again' WHERE id > 49 RETURNING to_json(users), array[email]",
        "DELETE FROM users WHERE id = 50 RETURNING users, row_to_json(users.*)",
    ] {
        pair.same_fails(sql);
    }
}

/// Settings of the session under which values are written otherwise, also those that a document does not heed.
fn settings(pair: &mut Pair) {
    for setting in twin_types::SETTINGS {
        pair.compare(setting, &Out::new().query(setting));
        for sql in [
            "SELECT to_json(t) FROM t ORDER BY id",
            "SELECT to_jsonb(t) FROM t ORDER BY id",
            "SELECT t FROM t ORDER BY id",
            "SELECT array_agg(c_timestamptz ORDER BY id), array_agg(c_bytea ORDER BY id) FROM t",
        ] {
            pair.same(sql);
        }
    }
}

/// Forms that applications and their libraries send.
const STATEMENTS: &[&str] = &[
    "SELECT u.*, to_json(u) FROM users u ORDER BY id",
    "SELECT email, to_json(u) AS j, u.id, email AS again FROM users u ORDER BY id",
    "SELECT row_to_json(u) FROM users u(a, b, c, d, e, f) ORDER BY a",
    "SELECT row_to_json(x) FROM (SELECT id, email AS mail, account_id FROM users) x ORDER BY x.id",
    "SELECT to_json(p) FROM people p ORDER BY id",
    "SELECT jsonb_build_object('id', id, 'email', email, 'age', age, 'doc', doc, 'sub', json_build_array(email, doc)) FROM users ORDER BY id",
    "SELECT json_build_object('id', id, 'doc', to_jsonb(u), 'also', to_json(doc)) FROM users u ORDER BY id",
    "SELECT json_build_object('e', coalesce(email, 'none \"q\"'), 'a', coalesce(age, 0)) FROM users ORDER BY id",
    "SELECT account_id, json_agg(json_build_object('email', email, 'id', id) ORDER BY id) FROM users GROUP BY account_id ORDER BY 1",
    "SELECT account_id, email, json_agg(id ORDER BY id) AS ids, json_build_object('email', email) AS j FROM users GROUP BY account_id, email ORDER BY min(id)",
    "SELECT account_id, json_agg(u ORDER BY id) FILTER (WHERE age > 0 IS NULL OR id > 1) FROM (SELECT id, account_id, email, 5 AS age FROM users) u GROUP BY account_id ORDER BY 1",
    "SELECT json_build_object(name || id, email, name || id, age, 'k', to_json(u)) FROM users u WHERE name IS NOT NULL ORDER BY id",
    "SELECT array_agg(email ORDER BY id) FROM users UNION ALL SELECT array_agg(email ORDER BY id DESC) FROM users",
    "SELECT CASE WHEN id < 3 THEN to_jsonb(u) END FROM users u ORDER BY id",
    "SELECT CASE WHEN id < 3 THEN json_build_object('e', email) ELSE json_build_object('e', email) END AS c FROM users ORDER BY id",
    "SELECT coalesce(json_agg(email ORDER BY id), json_build_array()) FROM users WHERE id > 99",
    "SELECT coalesce((SELECT jsonb_agg(n ORDER BY n.id) FROM notes n WHERE n.user_id = u.id), '[]'), u.id FROM users u ORDER BY u.id",
    "SELECT u.id, d.data FROM users u LEFT JOIN LATERAL (SELECT coalesce(json_agg(json_build_array(n.id, n.body, n.posted) ORDER BY n.id), '[]'::json) AS data FROM notes n WHERE n.user_id = u.id) d ON true ORDER BY u.id",
    "SELECT u.id, row_to_json(n) FROM users u LEFT JOIN notes n ON n.user_id = u.id ORDER BY u.id, n.id",
    "SELECT o.id, (SELECT to_json(u) FROM users u WHERE u.id = o.user_id) FROM orders o ORDER BY o.id",
    // Hasura
    r#"SELECT coalesce(json_agg("root"), '[]') AS "root" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_root.base"."id" AS "id", "_root.base"."email" AS "email", "_root.ar.root.notes"."notes" AS "notes") AS "_e")) AS "root" FROM (SELECT * FROM "users" WHERE ('true') ORDER BY id) AS "_root.base" LEFT OUTER JOIN LATERAL (SELECT coalesce(json_agg("notes"), '[]') AS "notes" FROM (SELECT row_to_json((SELECT "_e" FROM (SELECT "_n.base"."body" AS "body") AS "_e")) AS "notes" FROM (SELECT * FROM "notes" WHERE ("_root.base"."id") = ("user_id") ORDER BY id) AS "_n.base") AS "_n") AS "_root.ar.root.notes" ON ('true')) AS "_root""#,
    // PostgREST
    r#"WITH pgrst_source AS (SELECT "users"."id", "users"."email", COALESCE("users_notes_1"."users_notes_1", '[]') AS "notes" FROM "users" LEFT JOIN LATERAL (SELECT json_agg("users_notes_1") AS "users_notes_1" FROM (SELECT "notes_1"."id", "notes_1"."body" FROM "notes" AS "notes_1" WHERE "notes_1"."user_id" = "users"."id" ORDER BY "notes_1"."id") AS "users_notes_1") AS "users_notes_1" ON TRUE ORDER BY "users"."id" LIMIT 5 OFFSET 0) SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total, coalesce(json_agg(_postgrest_t), '[]')::character varying AS body FROM (SELECT * FROM pgrst_source) _postgrest_t"#,
    // Prisma
    r#"SELECT "t0"."id", "t0"."email", "users_notes"."__prisma_data__" AS "notes" FROM "users" AS "t0" LEFT JOIN LATERAL (SELECT COALESCE(JSONB_AGG("__prisma_data__"), '[]') AS "__prisma_data__" FROM (SELECT "t3"."__prisma_data__" FROM (SELECT JSONB_BUILD_OBJECT('id', "t2"."id", 'body', "t2"."body", 'posted', "t2"."posted") AS "__prisma_data__" FROM (SELECT "t1".* FROM "notes" AS "t1" WHERE "t0"."id" = "t1"."user_id" ORDER BY "t1"."id") AS "t2") AS "t3") AS "t4") AS "users_notes" ON TRUE ORDER BY "t0"."id""#,
    // Drizzle
    r#"select "users"."id", "users"."email", "users_notes"."data" as "notes" from "users" "users" left join lateral (select coalesce(json_agg(json_build_array("users_notes"."id", "users_notes"."body")), '[]'::json) as "data" from (select * from "notes" "users_notes" where "users_notes"."user_id" = "users"."id" order by "users_notes"."id") "users_notes") "users_notes" on true order by "users"."id""#,
    "SELECT id, to_json(u) FROM users u WHERE id < 3 UNION ALL SELECT id, to_json(u) FROM users u WHERE id >= 3 ORDER BY id",
    "WITH c AS (SELECT json_agg(u ORDER BY id) AS doc FROM users u) SELECT doc, to_jsonb(c) FROM c",
    "SELECT first_value(to_json(u)) OVER (ORDER BY id), json_agg(email) OVER (ORDER BY id) FROM users u ORDER BY id",
    "SELECT count(u), count(u.*) FROM users u",
    "SELECT u.id, u IS NULL, n IS NOT NULL FROM users u LEFT JOIN notes n ON n.id = 77 ORDER BY u.id",
    "SELECT to_json(o) FROM orders o ORDER BY id",
];

/// Roads other than a statement of its own: cursors, statements prepared in SQL, COPY; and large values.
fn other_roads(pair: &mut Pair) {
    for sql in [
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT to_json(t), array_agg(c_int4) OVER (ORDER BY id), t FROM t ORDER BY id",
        "FETCH 3 FROM c",
        "DECLARE b BINARY CURSOR FOR SELECT to_jsonb(t), array_agg(c_int4) OVER (ORDER BY id), t FROM t ORDER BY id",
        "FETCH 3 FROM b",
        "COMMIT",
        "PREPARE p AS SELECT json_agg(u ORDER BY id) FROM users u WHERE id < $1",
        "EXECUTE p(3)",
        "EXECUTE p(30)",
        "COPY (SELECT id, to_json(u), u, ROW(email, age) FROM users u ORDER BY id) TO STDOUT",
        "COPY (SELECT id, to_json(u), email, array_agg(email) OVER (ORDER BY id) FROM users u ORDER BY id) TO STDOUT (FORMAT csv)",
        "COPY (SELECT to_jsonb(t), t FROM t ORDER BY id) TO STDOUT (FORMAT binary)",
        "SELECT to_json(u) FROM users u WHERE id = 1; SELECT array_agg(email ORDER BY id) FROM users",
    ] {
        pair.compare(sql, &Out::new().query(sql));
    }
    for rows in 0..3 {
        let values: Vec<String> = (0..1000)
            .map(|row| 1000 * (rows + 1) + row)
            .map(|id| format!("({id}, 1, 'name {id}', '{id} \"quoted\" \\ {}', {id}, NULL)", "x".repeat(id % 300)))
            .collect();
        let insert = format!("INSERT INTO users (id, account_id, name, email, age, doc) VALUES {}", values.join(", "));
        pair.compare("rows", &Out::new().query(&insert));
    }
    pair.same("SELECT json_agg(u ORDER BY id) FROM users u");
    pair.same("SELECT jsonb_object_agg(id, json_build_array(email, age)) FROM users u");
    pair.same("SELECT array_agg(email ORDER BY id), array_agg(u ORDER BY id) FROM users u");
}

#[test]
fn other_roads_agree_on_postgres_15() {
    let mut pair = pair(Version::V15);
    other_roads(&mut pair);
    pair.done(30);
}

#[test]
fn other_roads_agree_on_postgres_18() {
    let mut pair = pair(Version::V18);
    other_roads(&mut pair);
    pair.done(30);
}

#[test]
fn arrays_and_rows_agree_on_postgres_15() {
    let mut pair = pair(Version::V15);
    arrays_and_rows(&mut pair);
    settings(&mut pair);
    pair.done(900);
}

#[test]
fn arrays_and_rows_agree_on_postgres_18() {
    let mut pair = pair(Version::V18);
    arrays_and_rows(&mut pair);
    settings(&mut pair);
    pair.done(900);
}

#[test]
fn documents_agree_on_postgres_15() {
    let mut pair = pair(Version::V15);
    documents(&mut pair);
    STATEMENTS.iter().for_each(|sql| pair.same(sql));
    pair.done(700);
}

#[test]
fn documents_agree_on_postgres_18() {
    let mut pair = pair(Version::V18);
    documents(&mut pair);
    STATEMENTS.iter().for_each(|sql| pair.same(sql));
    for sql in [
        "SELECT json_agg_strict(email ORDER BY id), jsonb_object_agg_strict(id, email) FROM users",
        "SELECT json_object_agg_unique(id, u) FROM (SELECT * FROM users ORDER BY id) u",
        "SELECT any_value(to_json(u)) FROM users u WHERE id = 1",
    ] {
        pair.same(sql);
    }
    pair.done(700);
}
