//! Migrations through the proxy: do tables of the policy come into being sealed, by either protocol, and are they used at
//! once (T1, T6, E2)?
use crate::support::peer::{Out, Peer, field, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::{Tap, contains};

const POLICY: &str = r#"
[[database]]
name = "app"
control = "{control}/app"

[[database.table]]
name = "public.customers"
tenant = { column = "account_id" }
[database.table.columns]
email = { type = "varchar(254)", equality = "tenant" }
login = { type = "text", equality = "global" }
ssn = { type = "text" }
age = { type = "int4" }
born = { type = "timestamptz" }
tags = { type = "text[]" }
price = { type = "numeric(10,2)" }

[[database.table]]
name = "public.shop_customer"
tenant = { name = "acme" }
[database.table.columns]
name = { type = "varchar(100)", equality = "tenant" }
email = { type = "varchar(254)", equality = "tenant" }
age = { type = "int4" }
birth = { type = "date" }
extra = { type = "jsonb" }
nick = { type = "varchar(50)", equality = "tenant" }

[[database.table]]
name = 'public."Person"'
tenant = { name = "acme" }
[database.table.columns]
email = { type = "text", equality = "tenant" }
name = { type = "text", equality = "tenant" }
age = { type = "int4" }
birth = { type = "timestamp(3)" }
meta = { type = "jsonb" }

[[database.table]]
name = "public.people"
tenant = { name = "acme" }
[database.table.columns]
email = { type = "varchar", equality = "tenant" }
name = { type = "varchar", equality = "tenant" }
age = { type = "int4" }
birth = { type = "date" }
extra = { type = "jsonb" }

[[database.table]]
name = "public.account"
tenant = { name = "acme" }
[database.table.columns]
email = { type = "varchar(254)", equality = "tenant" }
name = { type = "varchar(100)", equality = "tenant" }
age = { type = "int4" }
birth = { type = "date" }
extra = { type = "json" }
"#;

pub struct Scene {
    pub cluster: Cluster,
    pub site: Site,
    pub tap: Tap,
    pub proxy: Proxy,
}

pub fn scene(version: Version) -> Scene {
    let cluster = Cluster::start(version);
    cluster.createdb("app");
    let tap = Tap::start(cluster.host_port());
    let site = Site::with_upstream(tap.address(), &cluster, POLICY);
    site.run_ok(&["setup"]);
    for tenant in ["acme", "1", "2"] {
        site.run_ok(&["tenant", "register", tenant]);
    }
    let proxy = site.serve();
    Scene { cluster, site, tap, proxy }
}

/// By which messages a statement is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Simple,
    Extended,
}

const BOTH: [By; 2] = [By::Simple, By::Extended];

fn ask(peer: &mut Peer, by: By, sql: &str) -> String {
    match by {
        By::Simple => peer.send(&Out::new().query(sql).0),
        By::Extended => peer.send(&Out::new().run(sql, &[]).sync().0),
    }
    let messages = peer.until_ready(1);
    let told = messages.iter().filter(|(tag, _)| *tag == b'E').map(|(_, body)| field(body, b'M'));
    show(&messages) + &told.map(|text| format!(" {text}")).collect::<String>()
}

fn ok(peer: &mut Peer, by: By, sql: &str) -> String {
    let shown = ask(peer, by, sql);
    assert!(!shown.contains("E("), "{by:?} {sql}: {shown}");
    shown
}

fn refused(peer: &mut Peer, by: By, sql: &str, sqlstate: &str) {
    let shown = ask(peer, by, sql);
    assert!(shown.contains(&format!("E(ERROR {sqlstate})")), "{by:?} {sql}: {shown}");
}

const CUSTOMERS: &str = "CREATE TABLE customers (id bigserial PRIMARY KEY, account_id bigint NOT NULL, \
    email character varying(254) NOT NULL, login text UNIQUE, ssn text DEFAULT NULL::text, age integer, \
    born timestamp with time zone, tags text[], note text DEFAULT 'none', CONSTRAINT one_email UNIQUE (account_id, email))";

fn types(scene: &Scene, table: &str) -> String {
    scene.cluster.psql(
        "app",
        &format!(
            "select attname, format_type(atttypid, atttypmod), attstorage, attnotnull from pg_attribute \
             where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped order by attnum"
        ),
    )
}

fn indexes(scene: &Scene, table: &str) -> String {
    scene
        .cluster
        .psql("app", &format!("select indexdef from pg_indexes where tablename = '{table}' order by indexname"))
}

fn a_table_is_made_sealed(version: Version) {
    let scene = scene(version);
    for by in BOTH {
        let mut peer = Peer::connect(scene.proxy.address(), "app");
        let shown = ok(&mut peer, by, CUSTOMERS);
        // One reply for one statement, whatever follows it.
        assert_eq!(shown.matches("C(").count(), 1, "{shown}");
        assert!(shown.ends_with("C(CREATE TABLE\\x00) Z(I)"), "{shown}");
        assert_eq!(
            types(&scene, "customers"),
            "id|bigint|p|t\naccount_id|bigint|p|t\nemail|rowseal.\"varchar\"|e|t\nlogin|rowseal.text|e|f\n\
             ssn|rowseal.text|e|f\nage|rowseal.int4|e|f\nborn|rowseal.\"timestamptz\"|e|f\ntags|rowseal.text_array|e|f\n\
             note|text|x|f"
                .replace("rowseal.\"timestamptz\"", &domain(&scene, "timestamptz"))
                .replace("rowseal.\"varchar\"", &domain(&scene, "varchar"))
        );
        let indexes = indexes(&scene, "customers");
        assert!(
            indexes.contains("UNIQUE INDEX customers_login_key ON public.customers USING btree (rowseal.eq("),
            "{indexes}"
        );
        assert!(indexes.contains("UNIQUE INDEX one_email ON public.customers USING btree (account_id, rowseal.eq("));

        // The same session uses it at once.
        let insert = |id: u32, tenant: u32, email: &str, login: &str| {
            format!(
                "INSERT INTO customers (id, account_id, email, login, ssn, age, tags) \
                 VALUES ({id}, {tenant}, '{email}', '{login}', 'canary7f3', 41, '{{a,b}}')"
            )
        };
        ok(&mut peer, by, &insert(1, 1, "canary7f3@a", "l1"));
        ok(&mut peer, by, &insert(2, 2, "canary7f3@a", "l2"));
        refused(&mut peer, by, &insert(3, 1, "canary7f3@a", "l3"), "23505");
        refused(&mut peer, by, &insert(3, 1, "canary7f3@b", "l1"), "23505");
        refused(&mut peer, by, "INSERT INTO customers (account_id, ssn) VALUES (1, 'x')", "23502");
        let shown = ok(&mut peer, by, "SELECT email, ssn, age, tags, note FROM customers WHERE account_id = 1");
        assert!(shown.contains("canary7f3@a") && shown.contains("41") && shown.contains("{a,b}"), "{shown}");
        let found = ok(&mut peer, by, "SELECT id FROM customers WHERE login = 'l2'");
        assert!(found.contains("D("), "{found}");
        // So does another one, at once.
        let mut other = Peer::connect(scene.proxy.address(), "app");
        assert!(ok(&mut other, by, "SELECT ssn FROM customers WHERE id = 2").contains("canary7f3"));

        // And the operator's tools are content.
        let check = String::from_utf8(scene.site.run(&["check"]).stdout).unwrap();
        assert!(!check.contains("customers lacks") && !check.contains("public.customers.email"), "{check}");
        ok(&mut peer, by, "DROP TABLE customers");
    }
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    assert!(!scene.cluster.log().contains("canary7f3"));
}

/// As format_type writes a domain, which depends on the version.
fn domain(scene: &Scene, name: &str) -> String {
    scene.cluster.psql("app", &format!("select format_type(('rowseal.' || quote_ident('{name}'))::regtype, -1)"))
}

#[test]
fn a_table_is_made_sealed_on_15() {
    a_table_is_made_sealed(Version::V15);
}

#[test]
fn a_table_is_made_sealed_on_18() {
    a_table_is_made_sealed(Version::V18);
}

fn a_migration_is_one_transaction(version: Version) {
    let scene = scene(version);
    for by in BOTH {
        let mut peer = Peer::connect(scene.proxy.address(), "app");
        for undone in [true, false] {
            ok(&mut peer, by, "BEGIN");
            ok(
                &mut peer,
                by,
                "CREATE TABLE customers (id int PRIMARY KEY, account_id bigint, email varchar(254), other text)",
            );
            ok(&mut peer, by, "CREATE UNIQUE INDEX u ON customers (account_id, email)");
            ok(&mut peer, by, "INSERT INTO customers (id, account_id, email) VALUES (1, 1, 'canary7f3@a')");
            ok(&mut peer, by, "SAVEPOINT s");
            ok(
                &mut peer,
                by,
                "ALTER TABLE customers ADD COLUMN ssn text, ADD COLUMN n int DEFAULT 7, DROP COLUMN other",
            );
            ok(&mut peer, by, "UPDATE customers SET ssn = 'canary7f3-1'");
            refused(
                &mut peer,
                by,
                "INSERT INTO customers (id, account_id, email) VALUES (2, 1, 'canary7f3@a')",
                "23505",
            );
            ok(&mut peer, by, "ROLLBACK TO SAVEPOINT s");
            refused(&mut peer, by, "UPDATE customers SET ssn = 'lost'", "0A000");
            ok(&mut peer, by, "ROLLBACK TO SAVEPOINT s");
            ok(&mut peer, by, "ALTER TABLE customers ADD COLUMN ssn text");
            ok(&mut peer, by, "UPDATE customers SET ssn = 'canary7f3-2' WHERE id = 1");
            let shown = ok(&mut peer, by, "SELECT id, email, ssn FROM customers");
            assert!(shown.contains("canary7f3@a") && shown.contains("canary7f3-2"), "{shown}");
            ok(&mut peer, by, if undone { "ROLLBACK" } else { "COMMIT" });
            if undone {
                refused(&mut peer, by, "SELECT email FROM customers", "42P01");
            }
        }
        let shown =
            ok(&mut peer, by, "SELECT email, ssn FROM customers WHERE account_id = 1 AND email = 'canary7f3@a'");
        assert!(shown.contains("canary7f3-2"), "{shown}");
        ok(&mut peer, by, "DROP TABLE customers");
    }
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
}

#[test]
fn a_migration_is_one_transaction_on_15() {
    a_migration_is_one_transaction(Version::V15);
}

#[test]
fn a_migration_is_one_transaction_on_18() {
    a_migration_is_one_transaction(Version::V18);
}

/// However the bytes are cut on either side.
#[test]
fn replies_come_in_pieces() {
    let mut scene = scene(Version::Any);
    scene.proxy.kill();
    scene.tap = Tap::start_in(scene.cluster.host_port(), &[1, 3, 7]);
    let config = std::fs::read_to_string(scene.site.config()).unwrap();
    let upstream = config.lines().skip_while(|line| *line != "[upstream]").nth(1).unwrap().to_owned();
    let config = config.replace(&upstream, &format!("address = \"{}\"", scene.tap.address()));
    std::fs::write(scene.site.config(), config).unwrap();
    scene.proxy = scene.site.serve();
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    peer.send_in(&Out::new().query(CUSTOMERS).query("DROP TABLE customers").0, 3);
    let shown = show(&peer.until_ready(2));
    assert_eq!(shown, "C(CREATE TABLE\\x00) Z(I) C(DROP TABLE\\x00) Z(I)");
    peer.send_in(&Out::new().run(CUSTOMERS, &[]).run("SELECT email FROM customers", &[]).sync().0, 5);
    let shown = show(&peer.until_ready(1));
    assert!(
        shown.starts_with("1 2 n C(CREATE TABLE\\x00) 1 2 T(email") && shown.ends_with("C(SELECT 0\\x00) Z(I)"),
        "{shown}"
    );
}

/// What follows a statement fails with it: nothing is left behind, and the client is told once.
#[test]
fn a_definition_fails_as_a_whole() {
    for version in [Version::V15, Version::V18] {
        let scene = scene(version);
        scene.cluster.psql("app", "CREATE TABLE x (n int); CREATE INDEX one_email ON x (n)");
        for by in BOTH {
            let mut peer = Peer::connect(scene.proxy.address(), "app");
            let shown = ask(&mut peer, by, CUSTOMERS);
            assert!(shown.contains("E(ERROR 42P07) Z(I)") && !shown.contains("C("), "{shown}");
            assert_eq!(scene.cluster.psql("app", "SELECT to_regclass('customers') IS NULL"), "t");
            ok(&mut peer, by, "BEGIN");
            assert!(ask(&mut peer, by, CUSTOMERS).contains("E(ERROR 42P07) Z(E)"));
            ok(&mut peer, by, "ROLLBACK");
            assert!(ok(&mut peer, by, "SELECT 'after'").contains("after"));
        }
        // In a pipeline what stands behind it is skipped.
        let mut peer = Peer::connect(scene.proxy.address(), "app");
        peer.send(
            &Out::new().run(CUSTOMERS, &[]).run("SELECT 'skipped'", &[]).sync().run("SELECT 'done'", &[]).sync().0,
        );
        let shown = show(&peer.until_ready(2));
        assert!(shown.contains("42P07") && !shown.contains("skipped") && shown.contains("done"), "{shown}");
        scene.cluster.psql("app", "DROP TABLE x");
        // And one that succeeds does not disturb it.
        peer.send(&Out::new().run("SELECT 'before'", &[]).run(CUSTOMERS, &[]).run("SELECT 'behind'", &[]).sync().0);
        let shown = show(&peer.until_ready(1));
        assert!(shown.contains("before") && shown.contains("C(CREATE TABLE") && shown.contains("behind"), "{shown}");
        assert_eq!(shown.matches("C(").count(), 3, "{shown}");
        // Several statements in one text have one reply each.
        let shown = ok(&mut peer, By::Simple, &format!("DROP TABLE customers; {CUSTOMERS} -- end\n; SELECT 1"));
        assert_eq!(shown.matches("C(").count(), 3, "{shown}");
    }
}

/// Values in definitions stay with the proxy.
#[test]
fn no_literal_of_a_definition_reaches_the_server() {
    let scene = scene(Version::Any);
    for by in BOTH {
        let mut peer = Peer::connect(scene.proxy.address(), "app");
        for sql in [
            "CREATE TABLE customers (id int, account_id int, email varchar(254) DEFAULT 'canary7f3')",
            "CREATE TABLE IF NOT EXISTS customers (id int, email varchar(254) CHECK (email <> 'canary7f3'))",
            "CREATE TABLE public.customers (id int, email varchar(254), CHECK (email <> 'canary7f3'))",
            "CREATE TABLE customers AS SELECT 1 AS account_id, 'canary7f3' AS email",
            "CREATE TABLE customers (account_id, email) AS VALUES (1, 'canary7f3')",
            "SELECT 1 AS account_id, 'canary7f3' AS email INTO customers",
            "CREATE TABLE customers (execute int, email varchar(254) DEFAULT 'canary7f3')",
            "ALTER TABLE customers ADD COLUMN email varchar(254) NOT NULL DEFAULT 'canary7f3'",
            "ALTER TABLE customers ALTER COLUMN email SET DEFAULT 'canary7f3'",
            "CREATE INDEX ON customers (id) WHERE email = 'canary7f3'",
        ] {
            refused(&mut peer, by, sql, "0A000");
        }
        refused(&mut peer, by, "CREATE TABLE customers (email text DEFAULT 'canary7f3')", "42804");
        refused(&mut peer, by, "CREATE TABLE customers (email int DEFAULT 'canary7f3')", "42804");
    }
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a literal reached the server");
    assert!(!scene.cluster.log().contains("canary7f3"));
}

/// Also without a Sync between, and where the policy does not list the table.
#[test]
fn a_session_sees_its_own_tables_before_they_are_committed() {
    for version in [Version::V15, Version::V18] {
        let scene = scene(version);
        let mut peer = Peer::connect(scene.proxy.address(), "app");
        let insert = "INSERT INTO customers (id, account_id, email) VALUES ($1, $2, $3)";
        peer.send(
            &Out::new()
                .run(CUSTOMERS, &[])
                .run(insert, &[Some("1"), Some("1"), Some("canary7f3@a")])
                .run("ALTER TABLE customers DROP COLUMN note, ADD COLUMN price numeric(10,2)", &[])
                .run("UPDATE customers SET price = '12.34' WHERE id = 1 AND account_id = 1", &[])
                .run("SELECT email, price FROM customers", &[])
                .sync()
                .0,
        );
        let shown = show(&peer.until_ready(1));
        assert!(shown.contains("canary7f3@a") && shown.contains("12.34") && !shown.contains("E("), "{shown}");
        scene.cluster.psql("app", "CREATE DOMAIN mail AS rowseal.text; CREATE TABLE nested (a mail)");
        for by in BOTH {
            ok(&mut peer, by, "BEGIN");
            ok(&mut peer, by, "CREATE TABLE loose (a rowseal.text)");
            refused(&mut peer, by, "INSERT INTO loose VALUES ('canary7f3')", "0A000");
            ok(&mut peer, by, "ROLLBACK");
            // A domain over a domain of ours, which the session is not asked for.
            ok(&mut peer, by, "BEGIN");
            ok(&mut peer, by, "CREATE TABLE other ()");
            refused(&mut peer, by, "INSERT INTO nested VALUES ('canary7f3')", "0A000");
            ok(&mut peer, by, "ROLLBACK");
        }
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
        assert!(!contains(&scene.tap.to_server(), b"12.34"), "a plaintext reached the server");
    }
}

#[test]
fn partitions_are_sealed_as_their_table_is() {
    for version in [Version::V15, Version::V18] {
        let scene = scene(version);
        let mut peer = Peer::connect(scene.proxy.address(), "app");
        for by in BOTH {
            for sql in [
                "CREATE TABLE customers (id int, account_id bigint, email varchar(254), ssn text, UNIQUE (account_id, email)) \
                 PARTITION BY LIST (account_id)",
                "CREATE TABLE customers_1 PARTITION OF customers FOR VALUES IN (1)",
                "CREATE TABLE customers_rest PARTITION OF customers DEFAULT",
                "INSERT INTO customers VALUES (1, 1, 'canary7f3@a', 'x'), (2, 2, 'canary7f3@a', 'y')",
                "INSERT INTO customers_1 (id, account_id, email) VALUES (3, 1, 'canary7f3@b')",
            ] {
                ok(&mut peer, by, sql);
            }
            refused(&mut peer, by, "INSERT INTO customers_1 VALUES (4, 1, 'canary7f3@b')", "23505");
            let shown = ok(&mut peer, by, "SELECT ssn FROM customers WHERE account_id = 2 AND email = 'canary7f3@a'");
            assert!(shown.contains("D("), "{shown}");
            assert!(types(&scene, "customers_1").contains(&format!("email|{}|e", domain(&scene, "varchar"))));
            ok(&mut peer, by, "DROP TABLE customers");
        }
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    }
}

#[test]
fn constraints_and_types_are_altered() {
    for version in [Version::V15, Version::V18] {
        let scene = scene(version);
        let mut peer = Peer::connect(scene.proxy.address(), "app");
        for by in BOTH {
            for sql in [
                "CREATE TABLE customers (id int PRIMARY KEY, account_id bigint, email varchar(254), other text, made text)",
                "ALTER TABLE customers ADD CONSTRAINT one UNIQUE (account_id, email)",
                "INSERT INTO customers VALUES (1, 1, 'a', 'b')",
                "ALTER TABLE customers ALTER COLUMN email SET NOT NULL, ALTER COLUMN email SET STATISTICS 50",
                "ALTER TABLE customers ALTER COLUMN email TYPE varchar(254) USING email::varchar(254)",
                "ALTER TABLE customers ALTER COLUMN email DROP NOT NULL, ALTER COLUMN other SET DEFAULT 'plain'",
                "ALTER TABLE customers ADD COLUMN IF NOT EXISTS login text UNIQUE, ADD price decimal(10, 2)",
                "ALTER TABLE customers ADD COLUMN IF NOT EXISTS login text UNIQUE",
                "UPDATE customers SET login = 'me', price = '3.50'",
            ] {
                ok(&mut peer, by, sql);
            }
            refused(&mut peer, by, "INSERT INTO customers VALUES (2, 1, 'a')", "23505");
            for sql in [
                "ALTER TABLE customers DROP CONSTRAINT one",
                "INSERT INTO customers VALUES (2, 1, 'a')",
                "ALTER TABLE customers DROP CONSTRAINT IF EXISTS one",
                "ALTER TABLE customers DROP CONSTRAINT customers_login_key, DROP COLUMN other",
                "DELETE FROM customers WHERE id = 2",
                "CREATE INDEX CONCURRENTLY mails_like ON customers (email varchar_pattern_ops)",
                "CREATE INDEX mails_hash ON customers USING hash (email) WHERE email IS NOT NULL",
                "DROP INDEX CONCURRENTLY mails_like",
                "ALTER TABLE customers RENAME COLUMN made TO kept",
                "COMMENT ON COLUMN customers.email IS 'sealed'",
            ] {
                ok(&mut peer, by, sql);
            }
            let shown = ok(&mut peer, by, "SELECT email, login, price FROM customers");
            assert!(shown.contains("me") && shown.contains("3.50"), "{shown}");
            refused(&mut peer, by, "ALTER TABLE customers DROP CONSTRAINT one", "42704");
            refused(&mut peer, by, "ALTER TABLE customers RENAME COLUMN email TO mail", "0A000");
            refused(&mut peer, by, "ALTER TABLE customers ALTER COLUMN email TYPE text", "42804");
            assert!(types(&scene, "customers").contains(&format!("email|{}|e", domain(&scene, "varchar"))));
            ok(&mut peer, by, "DROP TABLE customers");
        }
    }
}

/// As Prisma writes a migration: one text. The second one is what Rails sends, statement by statement.
const PRISMA: &str = r#"-- CreateTable
CREATE TABLE "Person" (
    "id" SERIAL NOT NULL,
    "email" TEXT NOT NULL,
    "name" TEXT,
    "age" INTEGER,
    "birth" TIMESTAMP(3),
    "meta" JSONB,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" TIMESTAMP(3) NOT NULL,

    CONSTRAINT "Person_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "Post" ("id" SERIAL NOT NULL, "authorId" INTEGER, CONSTRAINT "Post_pkey" PRIMARY KEY ("id"));

-- CreateIndex
CREATE UNIQUE INDEX "Person_email_key" ON "Person"("email");

-- CreateIndex
CREATE INDEX "Person_name_idx" ON "Person"("name");

-- AddForeignKey
ALTER TABLE "Post" ADD CONSTRAINT "Post_authorId_fkey" FOREIGN KEY ("authorId") REFERENCES "Person"("id") ON DELETE SET NULL ON UPDATE CASCADE;
"#;

const RAILS: [&str; 7] = [
    "BEGIN",
    r#"CREATE TABLE "people" ("id" bigserial primary key, "name" character varying, "email" character varying NOT NULL, "age" integer, "birth" date, "created_at" timestamp(6) NOT NULL)"#,
    r#"CREATE UNIQUE INDEX "index_people_on_email" ON "people" ("email")"#,
    r#"ALTER TABLE "people" ADD "extra" jsonb"#,
    r#"ALTER TABLE "people" ALTER COLUMN "name" SET NOT NULL"#,
    r#"INSERT INTO "people" ("name", "email", "age", "birth", "extra", "created_at") VALUES ('canary7f3', 'canary7f3@a', 41, '2001-02-03', '{"canary7f3": 1}', '2026-01-01') RETURNING "id""#,
    "COMMIT",
];

#[test]
fn what_prisma_and_rails_send_is_carried_out() {
    for version in [Version::V15, Version::V18] {
        let scene = scene(version);
        let mut peer = Peer::connect(scene.proxy.address(), "app");
        ok(&mut peer, By::Simple, PRISMA);
        ok(
            &mut peer,
            By::Simple,
            "-- AlterTable\nALTER TABLE \"Person\" DROP COLUMN \"age\",\nADD COLUMN     \"score\" INTEGER NOT NULL DEFAULT 0;\n",
        );
        for sql in RAILS {
            ok(&mut peer, By::Extended, sql);
        }
        let insert = "INSERT INTO public.\"Person\" (\"email\", \"birth\", \"meta\", \"updatedAt\") \
            VALUES ('canary7f3@p', '2001-02-03 04:05:06.789', '{\"canary7f3\": 2}', now()) RETURNING \"email\", \"birth\", \"meta\", \"score\"";
        let shown = ok(&mut peer, By::Extended, insert);
        assert!(shown.contains("canary7f3@p") && shown.contains("2001-02-03 04:05:06.789"), "{shown}");
        refused(&mut peer, By::Extended, insert, "23505");
        refused(&mut peer, By::Simple, RAILS[5], "23505");
        for by in BOTH {
            let shown = ok(&mut peer, by, "SELECT name, age, birth, extra FROM people WHERE email = 'canary7f3@a'");
            assert!(shown.contains("2001-02-03") && shown.contains("41"), "{shown}");
            assert!(ok(&mut peer, by, "SELECT id FROM \"Person\" WHERE email = 'canary7f3@p'").contains("D("));
        }
        assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    }
}

/// The index that Django makes for LIKE becomes one that serves =, and the client is told.
#[test]
fn an_index_for_like_comes_with_a_notice() {
    let scene = scene(Version::Any);
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    for by in BOTH {
        ok(&mut peer, by, "CREATE TABLE customers (id int, account_id int, email varchar(254))");
        let shown = ok(&mut peer, by, "CREATE INDEX mails ON customers (email varchar_pattern_ops)");
        assert!(shown.contains("N(") && shown.contains("C(CREATE INDEX"), "{shown}");
        ok(&mut peer, by, "DROP TABLE customers");
    }
}

#[test]
fn psql_describes_a_table_and_lint_shows_its_definition() {
    let scene = scene(Version::V15);
    let psql = |sql: &str| scene.cluster.psql_at(scene.proxy.address(), "app", sql);
    psql(CUSTOMERS).unwrap();
    let described = psql("\\d customers").unwrap();
    assert!(
        described.contains("email|rowseal.\"varchar\"||not null")
            || described.contains("email|rowseal.varchar||not null"),
        "{described}"
    );
    let described =
        psql("\\pset tuples_only off \\\\ \\d customers").unwrap_or_default() + &psql("\\di+ one_email").unwrap();
    assert!(described.contains("one_email|index"), "{described}");
    let path = scene.site.path().join("migration.sql");
    std::fs::write(
        &path,
        "create table account (id int, email varchar(254) unique);\ncreate table people (email text);\n\
         alter table people rename to y;\ncreate index on account (email text_pattern_ops);\n",
    )
    .unwrap();
    let lint = String::from_utf8(scene.site.run(&["lint", path.to_str().unwrap()]).stdout).unwrap();
    for expected in [
        "create table account (id int, email rowseal.varchar); ALTER TABLE public.account ALTER COLUMN email SET \
         STORAGE EXTERNAL; CREATE UNIQUE INDEX account_email_key ON public.account (rowseal.eq(email))",
        "42804: column public.people.email has another type here than in the policy, which says character varying",
        "0A000: table public.people is named by the policy and cannot be renamed",
        "-- the index on sealed column public.account.email serves = only, not LIKE",
    ] {
        assert!(lint.contains(expected), "{expected}: {lint}");
    }
}
