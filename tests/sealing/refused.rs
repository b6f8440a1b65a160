//! What cannot survive is refused by name, before anything is changed.
use super::writers::{USERS, fill};
use super::{POLICY, error, seal, site};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;

/// What is made, what takes it back, and what the refusal of sealing `email` says.
const TOGETHER: &[(&str, &str, &[&str])] = &[
    ("CREATE VIEW shown AS SELECT email FROM users", "DROP VIEW shown", &["view public.shown", "through the proxy"]),
    (
        "CREATE MATERIALIZED VIEW kept AS SELECT lower(email) AS e FROM users",
        "DROP MATERIALIZED VIEW kept",
        &["materialized view public.kept"],
    ),
    (
        "ALTER TABLE users ADD CONSTRAINT looks_right CHECK (email <> 'no')",
        "ALTER TABLE users DROP CONSTRAINT looks_right",
        &["looks_right", "cannot check cells"],
    ),
    (
        "ALTER TABLE users ALTER COLUMN email SET DEFAULT 'nobody@example.org'",
        "ALTER TABLE users ALTER COLUMN email DROP DEFAULT",
        &["has a DEFAULT", "DROP DEFAULT"],
    ),
    (
        "ALTER TABLE users ADD COLUMN loud text GENERATED ALWAYS AS (upper(email)) STORED",
        "ALTER TABLE users DROP COLUMN loud",
        &["column loud", "drop the generated column"],
    ),
    (
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER on_email AFTER UPDATE OF email ON users FOR EACH ROW EXECUTE FUNCTION nothing()",
        "DROP FUNCTION nothing CASCADE",
        &["trigger on_email", "UPDATE OF"],
    ),
    (
        "CREATE FUNCTION nothing2() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER \"~~last\" BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION nothing2()",
        "DROP FUNCTION nothing2 CASCADE",
        &["\"~~last\"", "sorts before"],
    ),
    ("CREATE POLICY own ON users USING (email = current_user)", "DROP POLICY own ON users", &["policy own"]),
    (
        "CREATE STATISTICS both_of ON email, note FROM users",
        "DROP STATISTICS both_of",
        &["statistics object public.both_of"],
    ),
    ("CREATE PUBLICATION out FOR TABLE users", "DROP PUBLICATION out", &["publication \"out\""]),
    (
        "CREATE TABLE other (a int, e text, CONSTRAINT there FOREIGN KEY (a, e) REFERENCES users (account_id, email))",
        "DROP TABLE other",
        &["there", "drop the foreign key"],
    ),
    (
        "CREATE FUNCTION latest() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT max(email) FROM users; END",
        "DROP FUNCTION latest",
        &["function public.latest()"],
    ),
    ("CREATE INDEX lowered ON users (lower(email))", "DROP INDEX lowered", &["index lowered", "--drop-indexes"]),
    ("CREATE INDEX beside ON users (n) INCLUDE (email)", "DROP INDEX beside", &["index beside", "--drop-indexes"]),
    ("CREATE UNIQUE INDEX alone ON users (email, region, id)", "DROP INDEX alone", &["index alone", "tenant column"]),
    ("CREATE TABLE child () INHERITS (users)", "DROP TABLE child", &["parent or child"]),
    (
        "ALTER TABLE users FORCE ROW LEVEL SECURITY, ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE users NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY",
        &["ROW LEVEL SECURITY"],
    ),
];

/// The same for what would be in each other's way.
const ALONE: &[(&str, &str, &[&str])] = &[
    (
        "ALTER TABLE users DROP CONSTRAINT one_email, ADD CONSTRAINT one_email UNIQUE (account_id, email) DEFERRABLE",
        "ALTER TABLE users DROP CONSTRAINT one_email, ADD CONSTRAINT one_email UNIQUE (account_id, email)",
        &["one_email is deferrable"],
    ),
    (
        "ALTER TABLE users DROP CONSTRAINT users_pkey",
        "ALTER TABLE users ADD PRIMARY KEY (region, id)",
        &["no primary key"],
    ),
    (
        "ALTER TABLE users DROP CONSTRAINT users_pkey, ADD PRIMARY KEY (account_id, email)",
        "ALTER TABLE users DROP CONSTRAINT users_pkey, ADD PRIMARY KEY (region, id)",
        &["part of the primary key"],
    ),
    (
        "ALTER TABLE users RENAME TO users_; CREATE TABLE users (id int PRIMARY KEY, account_id int, email text) PARTITION BY HASH (id)",
        "DROP TABLE users; ALTER TABLE users_ RENAME TO users",
        &["is partitioned"],
    ),
    (
        "ALTER TABLE users ALTER COLUMN email TYPE varchar(200)",
        "ALTER TABLE users ALTER COLUMN email TYPE text",
        &["has type character varying(200), the policy says text"],
    ),
    (
        "ALTER TABLE users ALTER account_id DROP NOT NULL; UPDATE users SET account_id = NULL WHERE id IN (1, 2)",
        "UPDATE users SET account_id = 1 + id % 2 WHERE account_id IS NULL; ALTER TABLE users ALTER account_id SET NOT NULL",
        &["2 rows", "no tenant"],
    ),
    (
        "INSERT INTO users (region, id, account_id, email) VALUES ('x', 1, 77, 'x'), ('x', 2, 78, 'x')",
        "DELETE FROM users WHERE region = 'x'",
        &["2 tenants are not registered", "\"77\", \"78\""],
    ),
    (
        "ALTER TABLE users ADD COLUMN email_rowseal text",
        "ALTER TABLE users DROP COLUMN email_rowseal",
        &["has a column email_rowseal already"],
    ),
];

#[test]
fn what_cannot_survive_is_refused_by_name() {
    let cluster = Cluster::start(Version::V15);
    let site = site(&cluster);
    cluster.psql("app", USERS);
    fill(&cluster, "direct");
    let mut groups = vec![TOGETHER];
    groups.extend(ALONE.iter().map(std::slice::from_ref));
    for group in groups {
        group.iter().for_each(|(made, ..)| drop(cluster.psql("app", made)));
        let refused = seal(&site, "public.users.email", &[]);
        let text = error(&refused);
        assert_eq!(refused.status.code(), Some(2), "{text}");
        for (made, _, said) in group {
            said.iter().for_each(|part| assert!(text.contains(part), "{made}: {part}: {text}"));
        }
        assert!(!text.contains("example.org"), "{text}");
        group.iter().rev().for_each(|(_, undone, _)| drop(cluster.psql("app", undone)));
    }
    let traces = "SELECT count(*) FROM pg_attribute WHERE attname = 'email_rowseal' AND NOT attisdropped
        UNION ALL SELECT count(*) FROM rowseal.job UNION ALL SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal
            AND tgrelid = 'users'::regclass";
    assert_eq!(cluster.psql("app", traces), "0\n0\n0");
    let unknown = seal(&site, "public.users.nothing", &[]);
    assert_eq!(unknown.status.code(), Some(64), "{}", error(&unknown));
    // All at once, and some of it may go.
    cluster.psql("app", "CREATE VIEW shown AS SELECT email FROM users; CREATE INDEX lowered ON users (lower(email))");
    let text = error(&seal(&site, "public.users.email", &[]));
    assert!(text.contains("view public.shown") && text.contains("index lowered"), "{text}");
    cluster.psql("app", "DROP VIEW shown");
    let done = seal(&site, "public.users.email", &["--drop-indexes"]);
    assert!(done.status.success(), "{}", error(&done));
    let indexes = "SELECT string_agg(indexname, ',' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'users'";
    assert_eq!(cluster.psql("app", indexes), "by_email,one_email,users_pkey");
}

#[test]
fn unsealing_needs_a_policy_that_lets_plaintext_pass() {
    let cluster = Cluster::start(Version::V15);
    let first = site(&cluster);
    cluster.psql("app", USERS);
    fill(&cluster, "direct");
    first.run_ok(&["column", "seal", "public.users.email"]);
    let config = first.config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("unsealed = \"pass\"", "unsealed = \"refuse\"")).unwrap();
    let refused = first.run(&["column", "unseal", "public.users.email"]);
    assert_eq!(refused.status.code(), Some(2), "{}", error(&refused));
    assert!(error(&refused).contains("unsealed = \"pass\""), "{}", error(&refused));
}

#[test]
fn a_control_role_without_rights_is_told_what_it_needs() {
    let cluster = Cluster::start(Version::V15);
    cluster.createdb("app");
    cluster.psql("app", USERS);
    cluster.psql(
        "app",
        "CREATE ROLE keeper LOGIN; GRANT CREATE ON DATABASE app TO keeper; CREATE ROLE owner; ALTER TABLE users OWNER TO owner;
         GRANT CREATE ON SCHEMA public TO owner;
         CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := 1000; RETURN NEW; END';
         CREATE TRIGGER stamp BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION stamp()",
    );
    fill(&cluster, "direct");
    let control = format!("postgres://keeper@{}", cluster.host_port());
    let site = Site::new(&cluster, &POLICY.replace("{control}", &control));
    site.run_ok(&["setup"]);
    for tenant in ["1", "2"] {
        site.run_ok(&["tenant", "register", tenant]);
    }
    let refused = seal(&site, "public.users.email", &[]);
    let text = error(&refused);
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(text.contains("belongs to owner") && text.contains("trigger stamp would fire"), "{text}");
    cluster.psql("app", "GRANT owner TO keeper; GRANT SET ON PARAMETER session_replication_role TO keeper");
    let done = seal(&site, "public.users.email", &[]);
    assert!(done.status.success(), "{}", error(&done));
    assert_eq!(cluster.psql("app", "SELECT count(*) FROM users WHERE n <> 0"), "0", "the trigger fired");
}
