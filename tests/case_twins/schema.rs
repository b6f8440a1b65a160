//! The schema of tests/cases/README on real servers, and the rows that each statement finds.

/// The tenants that are registered. Rows and literals of the cases name no others.
pub const TENANTS: &[&str] = &["1", "2", "3", "4", "7", "8", "acme", "Org"];

/// The policy of so many databases, `app0` and on.
pub fn policy(databases: usize) -> String {
    let one = |n| format!("[[database]]\nname = \"app{n}\"\ncontrol = \"{{control}}/app{n}\"\n{POLICY}");
    (0..databases).map(one).collect()
}

const POLICY: &str = r#"

[[database.table]]
name = "public.users"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant" }
ssn = { type = "text" }
login = { type = "text", equality = "global", join_group = "logins" }
age = { type = "int4", equality = "tenant" }
born = { type = "date" }

[[database.table]]
name = "public.wide"
tenant = { name = "acme" }

[database.table.columns]
v = { type = "varchar(20)", equality = "tenant" }
n = { type = "numeric" }
b = { type = "bool" }
ts = { type = "timestamptz" }
u = { type = "uuid", equality = "tenant" }

[[database.table]]
name = "public.notes"
tenant = { session = true }

[database.table.columns]
body = { type = "text", equality = "tenant" }

[[database.table]]
name = 'public."Odd"'
tenant = { column = '"Org Id"' }

[database.table.columns]
'"Select"' = { type = "text" }

[[database.table]]
name = "public.raw"
tenant = { session = true }

[database.table.columns]
secret = { type = "text" }

[[database.table]]
name = "public.logins"
tenant = { session = true }

[database.table.columns]
login = { type = "text", equality = "global", join_group = "logins" }

[[database.table]]
name = "public.people"
tenant = { column = "account_id" }

[database.table.columns]
mail = { type = "text", equality = "tenant", join_group = "mails" }
nick = { type = "text" }

[[database.table]]
name = "public.contacts"
tenant = { column = "account_id" }

[database.table.columns]
mail = { type = "text", equality = "tenant", join_group = "mails" }
nick = { type = "text", equality = "tenant" }

[[database.table]]
name = "public.coded"
tenant = { column = "account_id" }

[database.table.columns]
label = { type = "text", equality = "tenant" }

[[database.table]]
name = "public.members"
tenant = { column = "org_id" }

[database.table.columns]
email = { type = "varchar(254)", equality = "tenant" }
nick = { type = "text", equality = "global" }
phone = { type = "text" }
age = { type = "int4", equality = "tenant" }
seen = { type = "timestamptz" }
price = { type = "numeric(10,2)" }
tags = { type = "text[]" }
code = { type = "uuid", equality = "tenant" }

[[database.table]]
name = "public.shop_customer"
tenant = { name = "acme" }

[database.table.columns]
name = { type = "varchar(100)", equality = "tenant" }
email = { type = "varchar(254)", equality = "tenant" }
age = { type = "int4", equality = "tenant" }
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
name = "public.clients"
tenant = { name = "acme" }

[database.table.columns]
name = { type = "varchar", equality = "tenant" }
email = { type = "varchar", equality = "tenant" }
age = { type = "int4" }
birth = { type = "date" }
extra = { type = "jsonb" }

[[database.table]]
name = "public.signup"
tenant = { name = "acme" }

[database.table.columns]
name = { type = "varchar(100)", equality = "tenant" }
email = { type = "varchar(254)", equality = "tenant" }
age = { type = "int4" }
birth = { type = "date" }
extra = { type = "json" }
"#;

/// Tables with rows that a statement may change.
pub const TABLES: &[&str] =
    &["users", "wide", "notes", "\"Odd\"", "raw", "logins", "orders", "other.users", "people", "contacts", "coded"];

/// `{type}` for the type of a sealed column, `{eq(column)}` for what an index on it is over.
const SCHEMA: &str = "\
CREATE TABLE users (id int4 PRIMARY KEY, account_id int8, name text, email {text}, ssn {text}, login {text}, \
    age {int4}, born {date});
CREATE TABLE wide (id int4 PRIMARY KEY, v {varchar(20)}, n {numeric}, b {bool}, ts {timestamptz}, u {uuid});
CREATE TABLE notes (id int4 PRIMARY KEY, body {text});
CREATE TABLE \"Odd\" (id int4 PRIMARY KEY, \"Org Id\" text, \"Select\" {text});
CREATE TABLE raw (id int4 PRIMARY KEY, secret text);
CREATE TABLE logins (id int4 PRIMARY KEY, login {text});
CREATE TABLE orders (id int4 PRIMARY KEY, user_id int4, account_id int8, total numeric);
CREATE SCHEMA other;
CREATE TABLE other.users (id int4 PRIMARY KEY, email text);
CREATE TABLE people (id int4 PRIMARY KEY, account_id int8, mail {text}, nick {text});
CREATE TABLE contacts (id int4 PRIMARY KEY, account_id int8, mail {text}, nick {text}, note text);
CREATE TABLE coded (code text PRIMARY KEY, account_id int8, label {text});
CREATE UNIQUE INDEX users_email_key ON users ((coalesce(name, '') || id::text));
ALTER TABLE people ADD CONSTRAINT one_mail UNIQUE (account_id, mail);
ALTER TABLE contacts ADD CONSTRAINT mail_of_all UNIQUE (mail);
CREATE VIEW users_view AS SELECT max(id) AS id, {one(email)} AS email FROM users GROUP BY account_id, {eq(email)};
CREATE VIEW people_view AS SELECT p.id AS number, p.account_id AS account, p.mail FROM people p;
CREATE VIEW mails_of_7 AS SELECT mail FROM people WHERE account_id = 7;
CREATE VIEW \"both\" AS SELECT p.id, p.mail, c.nick FROM people p JOIN contacts c ON c.id = p.id;
CREATE VIEW counted AS SELECT {one(mail)} AS mail, count(*) AS n FROM people GROUP BY account_id, {eq(mail)};
CREATE VIEW nested AS SELECT number, mail FROM people_view;
CREATE FUNCTION user_by_id(int4) RETURNS SETOF users LANGUAGE sql STABLE AS 'SELECT * FROM users WHERE id = $1 OR account_id = $1';
CREATE FUNCTION user_by_id(int8) RETURNS SETOF users LANGUAGE sql STABLE AS 'SELECT * FROM users WHERE id = $1';
CREATE FUNCTION all_notes() RETURNS SETOF notes LANGUAGE sql STABLE AS 'SELECT * FROM notes';
CREATE FUNCTION \"Odd rows\"() RETURNS SETOF \"Odd\" LANGUAGE sql STABLE AS 'SELECT * FROM \"Odd\"';
CREATE FUNCTION raw_rows() RETURNS SETOF raw LANGUAGE sql STABLE AS 'SELECT * FROM raw';
CREATE FUNCTION mail_of(int4) RETURNS {text} LANGUAGE sql STABLE AS 'SELECT mail FROM people WHERE id = $1';
CREATE FUNCTION viewed(int4) RETURNS SETOF people_view LANGUAGE sql STABLE AS 'SELECT * FROM people_view';
CREATE FUNCTION either(int4) RETURNS SETOF users LANGUAGE sql STABLE AS 'SELECT * FROM users WHERE id = $1';
CREATE FUNCTION either(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1';
CREATE FUNCTION other.elsewhere(int4) RETURNS SETOF users LANGUAGE sql STABLE AS 'SELECT * FROM public.users WHERE id = $1';
CREATE FUNCTION total(int4) RETURNS SETOF orders LANGUAGE sql STABLE AS 'SELECT * FROM orders WHERE id = $1';
CREATE FUNCTION enter_tenant(text) RETURNS text LANGUAGE sql AS $$SELECT set_config('rowseal.tenant', $1, false)$$;
CREATE ROLE bob;
CREATE SCHEMA kept;
";

/// What is put into both by the client of each: literals of the cases, in tenants where they look for them.
pub const ROWS: &[&str] = &[
    "INSERT INTO users (id, account_id, name, email, ssn, login, age, born) VALUES \
     (1, 7, 'x', 'SECRET', 'SECRET-1', 'SECRET', 5, '2020-01-01'), (2, 1, 'n', 'SECRET', 'SECRET-2', 'a', 5, NULL), \
     (3, 1, 'x', 'a', NULL, 'b', 41, '2020-01-02'), (4, 1, NULL, '', '', NULL, NULL, NULL), \
     (5, 1, 'a', 'SECRET', 'SECRET', 'x', 1, '1970-01-01'), (6, 2, 'x', 'SECRET', NULL, 'SECRET', 5, NULL), \
     (7, 7, '7', 'x', '', '', 2, '2020-01-01'), (8, 8, 'b', 'b', 'SECRET-8', 'c', -5, NULL), \
     (9, 8, NULL, NULL, NULL, NULL, NULL, NULL)",
    "INSERT INTO wide (id, v, n, b, ts, u) VALUES (1, 'SECRET', 1.5, true, '2020-01-01 00:00:00+00', \
     '00000000-0000-0000-0000-000000000001'), (2, 'a', 5, false, NULL, 'd41c8cd9-8f00-4204-a980-0998ecf8427e'), \
     (3, '', NULL, NULL, NULL, NULL), (4, 'SECRET', -0.50, true, '1970-01-01 01:02:03+00', NULL)",
    "INSERT INTO notes (id, body) VALUES (1, 'SECRET'), (2, 'a'), (3, NULL), (4, ''), (5, 'SECRET')",
    "INSERT INTO \"Odd\" (id, \"Org Id\", \"Select\") VALUES (1, '7', 'SECRET'), (2, 'acme', 'x'), (3, '1', NULL)",
    "INSERT INTO logins (id, login) VALUES (1, 'SECRET'), (2, 'a'), (3, NULL), (4, 'SECRET'), (5, 'zz')",
    "INSERT INTO orders (id, user_id, account_id, total) VALUES (1, 1, 7, 10), (2, 2, 1, 0), (3, 2, 1, 5.50), (4, 6, 2, 7), \
     (5, 99, 8, NULL), (7, 7, 7, 1)",
    "INSERT INTO other.users (id, email) VALUES (1, 'plain'), (2, NULL)",
    "INSERT INTO people (id, account_id, mail, nick) VALUES (1, 7, 'SECRET', 'SECRET'), (2, 1, 'SECRET', 'a'), \
     (3, 7, 'a', NULL), (4, 8, 'b', 'x'), (5, 1, NULL, ''), (6, 1, '', 'SECRET'), (7, 1, 'a', 'x')",
    "INSERT INTO contacts (id, account_id, mail, nick, note) VALUES (1, 7, 'SECRET-c', 'SECRET', 'x'), \
     (2, 1, 'SECRET', 'a', 'n'), (3, 7, 'a', 'x', NULL), (4, 8, 'b', NULL, ''), (5, 1, NULL, 'SECRET', 'x'), (8, 1, '', 'a', 'y')",
    "INSERT INTO coded (code, account_id, label) VALUES ('a', 7, 'SECRET'), ('b', 1, 'a'), ('1', 1, NULL)",
];

/// What a statement about a table that is not there yet needs, in its own transaction.
const AWAITED: &[(&str, &str)] = &[
    (
        "members",
        "CREATE TABLE members (id int8, org_id int8, email varchar(254), nick text, phone text, age int4, seen timestamptz, \
         price numeric(10,2), tags text[], code uuid, note text)",
    ),
    (
        "shop_customer",
        "CREATE TABLE shop_customer (id int8 PRIMARY KEY, name varchar(100), email varchar(254), age int4, birth date, \
         extra jsonb, nick varchar(50), note text, points int4)",
    ),
    (
        "\"Person\"",
        "CREATE TABLE \"Person\" (id int4 PRIMARY KEY, email text, name text, age int4, birth timestamp(3), meta jsonb)",
    ),
    ("clients", "CREATE TABLE clients (id int8, name varchar, email varchar, age int4, birth date, extra jsonb)"),
    (
        "signup",
        "CREATE TABLE signup (id int4, name varchar(100), email varchar(254), age int4, birth date, extra json)",
    ),
];

/// Sets the session's tenant, for a statement on tables that have no other.
pub fn session(sql: &str) -> Option<&'static str> {
    let has = |word: &&str| ["notes", "logins", "all_notes"].contains(&&*word.to_ascii_lowercase());
    words(sql).iter().any(has).then_some("SET LOCAL rowseal.tenant = '7'")
}

fn words(sql: &str) -> Vec<&str> {
    sql.split(|c: char| !c.is_alphanumeric() && !"_.\"".contains(c)).filter(|word| !word.is_empty()).collect()
}

/// What is run before a statement: the session's tenant, the table that it defines, without the columns that it adds, or
/// a way out of the rows that its own would be in conflict with.
pub fn before(sql: &str) -> Vec<String> {
    session(sql).into_iter().map(str::to_owned).chain(awaited(sql)).chain(emptied(sql)).collect()
}

fn emptied(sql: &str) -> Option<String> {
    let words = words(sql);
    let at =
        words.windows(2).position(|at| at[0].eq_ignore_ascii_case("insert") && at[1].eq_ignore_ascii_case("into"))?;
    let table = *words.get(at + 2)?;
    let bare = |name: &str| name.trim_start_matches("public.").to_ascii_lowercase();
    let is_ours = TABLES.iter().any(|ours| bare(ours) == bare(table));
    let is_alone = words.iter().filter(|word| bare(word) == bare(table)).count() == 1;
    let conflicts =
        words.windows(2).any(|at| at[0].eq_ignore_ascii_case("on") && at[1].eq_ignore_ascii_case("conflict"));
    (is_ours && is_alone && !conflicts && !sql.contains(';')).then(|| format!("DELETE FROM {table}"))
}

fn awaited(sql: &str) -> Vec<String> {
    let words = words(sql);
    let bare = |name: &str| name.trim_start_matches("public.").replace('"', "");
    let creates = |name: &str| {
        words.iter().position(|word| word.eq_ignore_ascii_case("table")).is_some_and(|at| {
            let made = words[at.saturating_sub(1)].eq_ignore_ascii_case("create")
                || words[at.saturating_sub(1)].eq_ignore_ascii_case("unlogged");
            made && words[at + 1..].iter().take(4).any(|word| bare(word) == bare(name))
        })
    };
    let Some((name, create)) = AWAITED.iter().find(|(name, _)| words.iter().any(|word| bare(word) == bare(name)))
    else {
        return Vec::new();
    };
    if creates(name) {
        return Vec::new();
    }
    let added = words.windows(3).filter(|at| at[0].eq_ignore_ascii_case("add"));
    let added = added.map(|at| if at[1].eq_ignore_ascii_case("column") { at[2] } else { at[1] });
    let drop = |column: &str| format!("ALTER TABLE {name} DROP COLUMN IF EXISTS {column}");
    let word = |column: &&str| {
        !["constraint", "unique", "check", "primary", "foreign", "if", "generated", "exclude"]
            .contains(&&*column.to_ascii_lowercase())
    };
    std::iter::once((*create).to_owned()).chain(added.filter(word).map(drop)).collect()
}

/// The schema as either side has it.
pub fn create(sealed: bool) -> String {
    let (mut out, mut rest) = (String::new(), SCHEMA);
    while let Some((before, after)) = rest.split_once('{') {
        let (inner, after) = after.split_once('}').unwrap();
        let call = inner.strip_suffix(')').and_then(|inner| inner.split_once('('));
        out += before;
        out += &match (call, sealed) {
            (Some(("eq", column)), true) => format!("rowseal.eq({column})"),
            (Some(("one", column)), true) => format!("(array_agg({column}))[1]::rowseal.text"),
            (Some(("eq" | "one", column)), false) => column.to_owned(),
            (call, true) => format!("rowseal.{}", call.map_or(inner, |(name, _)| name)),
            (_, false) => inner.to_owned(),
        };
        rest = after;
    }
    out += rest;
    // What the proxy makes of such a constraint.
    let constraint = |name: &str| format!("ADD CONSTRAINT {name} UNIQUE (");
    let index = |name: &str, table: &str| format!("ALTER TABLE {table} {}", constraint(name));
    if !sealed {
        return out;
    }
    out.replace(
        &(index("one_mail", "people") + "account_id, mail)"),
        "CREATE UNIQUE INDEX one_mail ON people (account_id, rowseal.eq(mail))",
    )
    .replace(
        &(index("mail_of_all", "contacts") + "mail)"),
        "CREATE UNIQUE INDEX mail_of_all ON contacts (rowseal.eq(mail))",
    )
}

/// Puts the rows aside.
pub fn keep() -> String {
    TABLES.iter().map(|table| format!("CREATE TABLE {} AS SELECT * FROM {table};", kept(table))).collect()
}

/// Puts them back.
pub fn restore() -> String {
    let back = |table: &&str| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM {};", kept(table));
    "DROP VIEW IF EXISTS v;".to_owned() + &TABLES.iter().map(back).collect::<String>()
}

fn kept(table: &str) -> String {
    format!("kept.\"was {}\"", table.replace('"', ""))
}
