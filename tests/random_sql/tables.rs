//! The tables that random statements are about, and the values in them: no value of a sealed column can turn up anywhere
//! by chance.
use crate::support::postgres::Cluster;

/// In every sealed text. No hexadecimal digit is in it.
pub const MARK: &str = "zqwxvk";

/// A table whose names need quotes.
pub const ODD: &str = "\"Odd Table\"";

pub const POLICY: &str = r#"
[[database]]
name = "app"
control = "{control}/app"

[[database.table]]
name = "public.people"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant", join_group = "emails" }
login = { type = "text", equality = "global", join_group = "logins" }
age = { type = "int4", equality = "tenant" }
amount = { type = "numeric", equality = "tenant" }
code = { type = "uuid", equality = "global" }
born = { type = "date", equality = "tenant" }
seen = { type = "timestamptz" }
doc = { type = "jsonb" }

[[database.table]]
name = "public.contacts"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant", join_group = "emails" }
login = { type = "text", equality = "global", join_group = "logins" }

[[database.table]]
name = "public.memos"
tenant = { name = "1" }

[database.table.columns]
body = { type = "text", equality = "tenant" }
tag = { type = "varchar(12)", equality = "tenant" }

[[database.table]]
name = "public.parts"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant", join_group = "emails" }
price = { type = "numeric(12,2)", equality = "global" }

[[database.table]]
name = "public.awaited"
tenant = { name = "1" }

[database.table.columns]
x = { type = "text", equality = "tenant" }

[[database.table]]
name = "public.\"Odd Table\""
tenant = { column = "\"Org\"" }

[database.table.columns]
'"Sealed Name"' = { type = "text", equality = "tenant" }
"#;

/// How a column can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eq {
    Plain,
    Sealed,
    Tenant,
    Global,
}

/// The values that a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    Id,
    Tenant,
    Name,
    Group,
    Email,
    Login,
    Age,
    Amount,
    Code,
    Born,
    Moment,
    Document,
    Tag,
    Price,
}

impl Values {
    pub fn texts(self) -> &'static [&'static str] {
        match self {
            Values::Id => &["1", "2", "3", "4", "5", "901"],
            Values::Tenant => &["1", "2"],
            Values::Name => &["Ann", "it's", ""],
            Values::Group => &["7", "8"],
            Values::Email => &["zqwxvk-ann", "zqwxvk-bob", "zqwxvk'q\\", "zqwxvk \u{e9}\u{2603}", ""],
            Values::Login => &["zqwxvk.l1", "zqwxvk.l2", "zqwxvk.l3"],
            Values::Age => &["1731845099", "1204857733", "-1938475610"],
            Values::Amount => &["918273645546372819.25", "564738291019283746.50", "-918273645546372811"],
            Values::Code => &["5f0c9d7e-3b1a-4c2d-8e9f-0a1b2c3d4e5f", "d41c8cd9-8f00-4204-a980-0998ecf8427e"],
            Values::Born => &["1971-08-23", "1903-11-27"],
            Values::Moment => &["1971-08-23 13:14:15.161718+00", "1903-11-27 01:02:03+00"],
            Values::Document => &[r#"{"zqwxvk": 1}"#, r#"[1, "zqwxvkdoc", {"b": null}]"#],
            Values::Tag => &["zqwxvk-red", "zqwxvk-blue"],
            Values::Price => &["4815162342.25", "3141592653.50", "-2718281828.00"],
        }
    }

    pub fn is_number(self) -> bool {
        matches!(self, Values::Id | Values::Tenant | Values::Group | Values::Age | Values::Amount | Values::Price)
    }
}

/// One column.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    /// Its type in the plain twin.
    pub kind: &'static str,
    pub eq: Eq,
    pub values: Values,
}

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Table,
    /// In partitions by tenant.
    Parts,
    /// A view with this query.
    View(&'static str),
}

/// One table or view; the first column is its key.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub kind: Kind,
    pub tenant: Option<&'static str>,
    pub columns: &'static [Column],
}

const fn column(name: &'static str, kind: &'static str, eq: Eq, values: Values) -> Column {
    Column { name, kind, eq, values }
}

pub const TABLES: &[Table] = &[
    Table {
        name: "people",
        kind: Kind::Table,
        tenant: Some("account_id"),
        columns: &[
            column("id", "int8", Eq::Plain, Values::Id),
            column("account_id", "int8", Eq::Plain, Values::Tenant),
            column("name", "text", Eq::Plain, Values::Name),
            column("grp", "int4", Eq::Plain, Values::Group),
            column("email", "text", Eq::Tenant, Values::Email),
            column("login", "text", Eq::Global, Values::Login),
            column("age", "int4", Eq::Tenant, Values::Age),
            column("amount", "numeric", Eq::Tenant, Values::Amount),
            column("code", "uuid", Eq::Global, Values::Code),
            column("born", "date", Eq::Tenant, Values::Born),
            column("seen", "timestamptz", Eq::Sealed, Values::Moment),
            column("doc", "jsonb", Eq::Sealed, Values::Document),
        ],
    },
    Table {
        name: "contacts",
        kind: Kind::Table,
        tenant: Some("account_id"),
        columns: &[
            column("id", "int8", Eq::Plain, Values::Id),
            column("account_id", "int8", Eq::Plain, Values::Tenant),
            column("note", "text", Eq::Plain, Values::Name),
            column("email", "text", Eq::Tenant, Values::Email),
            column("login", "text", Eq::Global, Values::Login),
        ],
    },
    Table {
        name: "memos",
        kind: Kind::Table,
        tenant: None,
        columns: &[
            column("id", "int8", Eq::Plain, Values::Id),
            column("body", "text", Eq::Tenant, Values::Email),
            column("tag", "varchar(12)", Eq::Tenant, Values::Tag),
        ],
    },
    Table {
        name: ODD,
        kind: Kind::Table,
        tenant: Some("\"Org\""),
        columns: &[
            column("\"Id\"", "int8", Eq::Plain, Values::Id),
            column("\"Org\"", "int8", Eq::Plain, Values::Tenant),
            column("plain", "text", Eq::Plain, Values::Name),
            column("\"Sealed Name\"", "text", Eq::Tenant, Values::Email),
        ],
    },
    Table {
        name: "parts",
        kind: Kind::Parts,
        tenant: Some("account_id"),
        columns: &[
            column("id", "int8", Eq::Plain, Values::Id),
            column("account_id", "int8", Eq::Plain, Values::Tenant),
            column("label", "text", Eq::Plain, Values::Name),
            column("email", "text", Eq::Tenant, Values::Email),
            column("price", "numeric(12,2)", Eq::Global, Values::Price),
        ],
    },
];

/// Views over them.
pub const VIEWS: &[Table] = &[
    Table {
        name: "grown",
        kind: Kind::View(
            "SELECT p.id AS number, p.account_id AS account, p.email AS mail, p.login, p.age, p.name FROM people p \
             WHERE p.id < 500",
        ),
        tenant: Some("account"),
        columns: &[
            column("number", "int8", Eq::Plain, Values::Id),
            column("account", "int8", Eq::Plain, Values::Tenant),
            column("mail", "text", Eq::Tenant, Values::Email),
            column("login", "text", Eq::Global, Values::Login),
            column("age", "int4", Eq::Tenant, Values::Age),
            column("name", "text", Eq::Plain, Values::Name),
        ],
    },
    Table {
        name: "\"Tags\"",
        kind: Kind::View("SELECT id, tag AS \"Tag\", body FROM memos"),
        tenant: None,
        columns: &[
            column("id", "int8", Eq::Plain, Values::Id),
            column("\"Tag\"", "varchar(12)", Eq::Tenant, Values::Tag),
            column("body", "text", Eq::Tenant, Values::Email),
        ],
    },
];

impl Table {
    pub fn id(&self) -> &'static str {
        self.columns[0].name
    }

    pub fn column(&self, name: &str) -> &'static Column {
        self.columns.iter().find(|c| c.name == name).unwrap()
    }

    /// Makes it, also without its sealed columns.
    pub fn create(&self, bare: bool) -> String {
        let columns = self.columns_text();
        let kept = columns.split(", ").filter(|column| !(bare && column.contains('{')));
        let (name, columns) = (self.name, kept.collect::<Vec<_>>().join(", "));
        match self.kind {
            Kind::Table => format!("CREATE TABLE {name} ({columns})"),
            Kind::View(query) => format!("CREATE VIEW {name} AS {query}"),
            Kind::Parts => format!(
                "CREATE TABLE {name} ({columns}) PARTITION BY LIST (account_id); \
                 CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES IN (1); \
                 CREATE TABLE {name}_2 PARTITION OF {name} FOR VALUES IN (2)"
            ),
        }
    }

    /// The columns that tell its rows apart.
    pub fn key(&self) -> Vec<&'static str> {
        let tenant = self.tenant.filter(|_| self.kind == Kind::Parts);
        std::iter::once(self.id()).chain(tenant).collect()
    }

    /// Adds what such a table lacks.
    pub fn add_sealed(&self) -> String {
        let columns = self.columns_text();
        let added = columns.split(", ").filter(|column| column.contains('{'));
        let added: Vec<String> = added.map(|column| format!("ADD COLUMN {column}")).collect();
        format!("ALTER TABLE {} {}", self.name, added.join(", "))
    }

    /// What stands in its CREATE TABLE; `{type}` for a sealed column.
    pub fn columns_text(&self) -> String {
        let one = |c: &Column| match (c.name, c.eq) {
            (name, Eq::Plain) if name == self.id() && self.kind == Kind::Parts => format!("{name} {} NOT NULL", c.kind),
            (name, Eq::Plain) if name == self.id() => format!("{name} {} PRIMARY KEY", c.kind),
            (name, Eq::Plain) if Some(name) == self.tenant => format!("{name} {} NOT NULL", c.kind),
            ("name", Eq::Plain) => "name text CHECK (name <> 'bad')".to_owned(),
            (name, Eq::Plain) => format!("{name} {}", c.kind),
            (name, _) => format!("{name} {{{}}}", c.kind),
        };
        self.columns.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// `{type}` as either side writes it.
pub fn written(sql: &str, sealed: bool) -> String {
    let mut out = sql.to_owned();
    for kind in ["text", "varchar(12)", "int4", "numeric", "numeric(12,2)", "uuid", "date", "timestamptz", "jsonb"] {
        let bare = kind.split('(').next().unwrap();
        let own = if sealed { format!("rowseal.{bare}") } else { kind.to_owned() };
        out = out.replace(&format!("{{{kind}}}"), &own);
    }
    out
}

/// Makes the tables, also anew.
pub fn create(sealed: bool) -> String {
    let mut sql = String::new();
    for table in TABLES {
        sql += &format!("DROP TABLE IF EXISTS {} CASCADE; {};", table.name, table.create(false));
    }
    sql += "ALTER TABLE parts ADD PRIMARY KEY (id, account_id);";
    VIEWS.iter().for_each(|view| sql += &format!("{};", view.create(false)));
    let eq = |column: &str| if sealed { format!("rowseal.eq({column})") } else { column.to_owned() };
    sql += &format!("CREATE UNIQUE INDEX memos_body ON memos ({});", eq("body"));
    sql += &format!("CREATE UNIQUE INDEX contacts_email ON contacts (account_id, {}, id);", eq("email"));
    written(&sql, sealed)
}

/// The rows that each case starts with.
pub const ROWS: &[&str] = &[
    "INSERT INTO people (id, account_id, name, grp, email, login, age, amount, code, born, seen, doc) VALUES \
     (1, 1, 'Ann', 7, 'zqwxvk-ann', 'zqwxvk.l1', 1731845099, 918273645546372819.25, \
      '5f0c9d7e-3b1a-4c2d-8e9f-0a1b2c3d4e5f', '1971-08-23', '1971-08-23 13:14:15.161718+00', '{\"zqwxvk\": 1}'), \
     (2, 1, 'Bob', 7, 'zqwxvk-bob', 'zqwxvk.l2', 1731845099, 564738291019283746.50, NULL, '1903-11-27', NULL, 'null'), \
     (3, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), \
     (4, 2, 'Ann', 8, 'zqwxvk-ann', 'zqwxvk.l1', -1938475610, 918273645546372819.25, \
      'd41c8cd9-8f00-4204-a980-0998ecf8427e', '1971-08-23', '1903-11-27 01:02:03+00', '[1, \"zqwxvkdoc\", {\"b\": null}]'), \
     (5, 2, '', 8, '', 'zqwxvk.l3', 1204857733, -918273645546372811, NULL, NULL, NULL, '{}')",
    "INSERT INTO contacts (id, account_id, note, email, login) VALUES (1, 1, 'n', 'zqwxvk-ann', 'zqwxvk.l1'), \
     (2, 1, 'm', 'zqwxvk-zoe', 'zqwxvk.l2'), (3, 2, NULL, 'zqwxvk-ann', NULL), (4, 2, 'n', NULL, 'zqwxvk.l1')",
    "INSERT INTO memos (id, body, tag) VALUES (1, 'zqwxvk-ann', 'zqwxvk-red'), (2, 'zqwxvk-bob', 'zqwxvk-red'), \
     (3, NULL, 'zqwxvk-blue'), (4, '', NULL)",
    "INSERT INTO parts (id, account_id, label, email, price) VALUES (1, 1, 'a', 'zqwxvk-ann', 4815162342.25), \
     (2, 1, 'b', 'zqwxvk-bob', NULL), (1, 2, 'a', 'zqwxvk-ann', 3141592653.5), (4, 2, NULL, NULL, -2718281828)",
    "INSERT INTO \"Odd Table\" (\"Id\", \"Org\", plain, \"Sealed Name\") VALUES (1, 1, 'p', 'zqwxvk-ann'), \
     (2, 2, 'q', 'zqwxvk-ann'), (3, 1, NULL, NULL)",
];

/// Puts the rows aside, where [`RESTORE`] takes them from.
pub fn keep(cluster: &Cluster) {
    let mut sql =
        "CREATE SCHEMA kept; CREATE TABLE orders (id int8 PRIMARY KEY, person_id int8, account_id int8, total int4); \
        INSERT INTO orders VALUES (1, 1, 1, 10), (2, 1, 1, 20), (3, 2, 1, 5), (4, 4, 2, 7);"
            .to_owned();
    for table in TABLES {
        sql += &format!("CREATE TABLE kept.{0} AS SELECT * FROM {0};", table.name);
    }
    cluster.psql("app", &sql);
}

/// Puts the rows back.
pub fn restore() -> String {
    TABLES.iter().map(|t| format!("DELETE FROM {0}; INSERT INTO {0} SELECT * FROM kept.{0};", t.name)).collect()
}
