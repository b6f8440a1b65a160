//! The tables of the case files, as the catalog would have them.
use std::sync::Arc;

use crate::catalog::{Attribute, Catalog, Function, Relation, UniqueIndex};
use crate::policy::{Column, Equality, Mask, Padding, Table, TenantRule};
use crate::types::LogicalType;

const CELL: u32 = 90_000;

fn column(table: &str, name: &str, logical: LogicalType, equality: Option<Equality>) -> Arc<Column> {
    let qualified = format!("{table}.{name}");
    Arc::new(Column {
        binding: qualified.clone(),
        join_group: matches!(name, "login" | "mail").then(|| format!("{name}s")),
        qualified: qualified.into(),
        name: name.to_owned(),
        logical,
        equality,
        padding: Padding::None,
        mask: Mask::Null,
    })
}

fn attribute(name: &str, attnum: usize, oid: u32) -> Attribute {
    Attribute {
        name: name.to_owned(),
        attnum: i16::try_from(attnum).unwrap(),
        type_oid: oid,
        base_type_oid: if oid == CELL { 17 } else { oid },
        typmod: -1,
        type_name: match oid {
            20 => "pg_catalog.int8".into(),
            23 => "pg_catalog.int4".into(),
            25 => "pg_catalog.text".into(),
            1700 => "pg_catalog.numeric".into(),
            _ => "rowseal.cell".into(),
        },
        has_default: false,
        is_generated: false,
        sealed: None,
        is_cell: oid == CELL,
        is_unsealed: false,
    }
}

/// A relation from `name type` pairs; the first column is the primary key of a table.
fn relation(
    oid: u32,
    name: (&str, &str),
    columns: &[(&str, u32)],
    policy: Option<(TenantRule, Vec<Arc<Column>>)>,
) -> Relation {
    let mut attributes: Vec<_> = columns.iter().enumerate().map(|(i, (n, t))| attribute(n, i + 1, *t)).collect();
    let policy = policy.map(|(tenant, columns)| {
        for a in &mut attributes {
            if let Some(column) = columns.iter().find(|c| c.name == a.name) {
                a.is_unsealed = !a.is_cell;
                a.sealed = a.is_cell.then(|| Arc::clone(column));
            }
        }
        Arc::new(Table { schema: name.0.into(), name: name.1.into(), tenant, columns })
    });
    Relation {
        oid,
        schema: name.0.into(),
        name: name.1.into(),
        kind: 'r',
        columns: attributes,
        primary_key: vec![1],
        unique_indexes: match name.1 {
            "users" => vec![UniqueIndex { name: "users_email_key".into(), columns: vec![] }],
            "people" => vec![UniqueIndex { name: "one_mail".into(), columns: vec![2, 3] }],
            "contacts" => vec![UniqueIndex { name: "mail_of_all".into(), columns: vec![3] }],
            _ => vec![],
        },
        policy,
        definition: None,
    }
}

/// A view with what it selects.
fn view((oid, name): (u32, &str), columns: &[(&str, u32)], definition: &str) -> Relation {
    let definition = Some(definition.to_owned());
    Relation { kind: 'v', primary_key: vec![], definition, ..relation(oid, ("public", name), columns, None) }
}

/// Tables of the policy that do not exist yet.
fn missing() -> Vec<Table> {
    use LogicalType::{Date, Int4, Json, Jsonb, Numeric, Text, Timestamp, Timestamptz, Uuid, Varchar};
    let table = |name: &str, tenant: TenantRule, columns: &[(&str, LogicalType, Option<Equality>)]| {
        let qualified = format!("public.{name}");
        let columns = columns.iter().map(|(name, ty, equality)| column(&qualified, name, *ty, *equality)).collect();
        Table { schema: "public".into(), name: name.into(), tenant, columns }
    };
    let tenant = Some(Equality::Tenant);
    let acme = || TenantRule::Fixed("acme".into());
    vec![
        table(
            "members",
            TenantRule::Column("org_id".into()),
            &[
                ("email", Varchar(Some(254)), tenant),
                ("nick", Text, Some(Equality::Global)),
                ("phone", Text, None),
                ("age", Int4, tenant),
                ("seen", Timestamptz(None), None),
                ("price", Numeric(Some((10, 2))), None),
                ("tags", LogicalType::parse("text[]").unwrap(), None),
                ("code", Uuid, tenant),
            ],
        ),
        table(
            "shop_customer",
            acme(),
            &[
                ("name", Varchar(Some(100)), tenant),
                ("email", Varchar(Some(254)), tenant),
                ("age", Int4, tenant),
                ("birth", Date, None),
                ("extra", Jsonb, None),
                ("nick", Varchar(Some(50)), tenant),
            ],
        ),
        table(
            "Person",
            acme(),
            &[
                ("email", Text, tenant),
                ("name", Text, tenant),
                ("age", Int4, None),
                ("birth", Timestamp(Some(3)), None),
                ("meta", Jsonb, None),
            ],
        ),
        table(
            "clients",
            acme(),
            &[
                ("name", Varchar(None), tenant),
                ("email", Varchar(None), tenant),
                ("age", Int4, None),
                ("birth", Date, None),
                ("extra", Jsonb, None),
            ],
        ),
        table(
            "signup",
            acme(),
            &[
                ("name", Varchar(Some(100)), tenant),
                ("email", Varchar(Some(254)), tenant),
                ("age", Int4, None),
                ("birth", Date, None),
                ("extra", Json, None),
            ],
        ),
    ]
}

/// The schema of the case files; tests/cases/README says what is in it.
pub(in crate::sql) fn catalog() -> Catalog {
    use LogicalType::{Bool, Date, Int4, Numeric, Text, Timestamptz, Uuid, Varchar};
    let t = "public.users";
    let users = vec![
        column(t, "email", Text, Some(Equality::Tenant)),
        column(t, "ssn", Text, None),
        column(t, "login", Text, Some(Equality::Global)),
        column(t, "age", Int4, Some(Equality::Tenant)),
        column(t, "born", Date, None),
    ];
    let wide = vec![
        column("public.wide", "v", Varchar(Some(20)), Some(Equality::Tenant)),
        column("public.wide", "n", Numeric(None), None),
        column("public.wide", "b", Bool, None),
        column("public.wide", "ts", Timestamptz(None), None),
        column("public.wide", "u", Uuid, Some(Equality::Tenant)),
    ];
    let notes = vec![column("public.notes", "body", Text, Some(Equality::Tenant))];
    let odd = vec![column("public.Odd", "Select", Text, None)];
    let raw = vec![column("public.raw", "secret", Text, None)];
    let logins = vec![column("public.logins", "login", Text, Some(Equality::Global))];
    let people = vec![
        column("public.people", "mail", Text, Some(Equality::Tenant)),
        column("public.people", "nick", Text, None),
    ];
    let contacts = vec![
        column("public.contacts", "mail", Text, Some(Equality::Tenant)),
        column("public.contacts", "nick", Text, Some(Equality::Tenant)),
    ];
    let tenant = |name: &str| TenantRule::Column(name.into());
    let relations = vec![
        relation(
            1001,
            ("public", "users"),
            &[
                ("id", 23),
                ("account_id", 20),
                ("name", 25),
                ("email", CELL),
                ("ssn", CELL),
                ("login", CELL),
                ("age", CELL),
                ("born", CELL),
            ],
            Some((tenant("account_id"), users)),
        ),
        relation(
            1002,
            ("public", "wide"),
            &[("id", 23), ("v", CELL), ("n", CELL), ("b", CELL), ("ts", CELL), ("u", CELL)],
            Some((TenantRule::Fixed("acme".into()), wide)),
        ),
        relation(1003, ("public", "notes"), &[("id", 23), ("body", CELL)], Some((TenantRule::Session, notes))),
        relation(
            1004,
            ("public", "Odd"),
            &[("id", 23), ("Org Id", 25), ("Select", CELL)],
            Some((tenant("Org Id"), odd)),
        ),
        relation(1005, ("public", "raw"), &[("id", 23), ("secret", 25)], Some((TenantRule::Session, raw))),
        relation(1006, ("public", "logins"), &[("id", 23), ("login", CELL)], Some((TenantRule::Session, logins))),
        relation(1007, ("public", "orders"), &[("id", 23), ("user_id", 23), ("account_id", 20), ("total", 1700)], None),
        relation(1008, ("other", "users"), &[("id", 23), ("email", 25)], None),
        relation(1009, ("public", "users_view"), &[("id", 23), ("email", CELL)], None),
        relation(
            1010,
            ("public", "people"),
            &[("id", 23), ("account_id", 20), ("mail", CELL), ("nick", CELL)],
            Some((tenant("account_id"), people)),
        ),
        relation(
            1011,
            ("public", "contacts"),
            &[("id", 23), ("account_id", 20), ("mail", CELL), ("nick", CELL), ("note", 25)],
            Some((tenant("account_id"), contacts)),
        ),
        relation(
            1017,
            ("public", "coded"),
            &[("code", 25), ("account_id", 20), ("label", CELL)],
            Some((tenant("account_id"), vec![column("public.coded", "label", Text, Some(Equality::Tenant))])),
        ),
        view(
            (1012, "people_view"),
            &[("number", 23), ("account", 20), ("mail", CELL)],
            " SELECT p.id AS number, p.account_id AS account, p.mail FROM public.people p;",
        ),
        view((1013, "mails_of_7"), &[("mail", CELL)], "SELECT mail FROM public.people WHERE (people.account_id = 7)"),
        view(
            (1014, "both"),
            &[("id", 23), ("mail", CELL), ("nick", CELL)],
            "SELECT p.id, p.mail, c.nick FROM (public.people p JOIN public.contacts c ON ((c.id = p.id)))",
        ),
        view((1015, "counted"), &[("mail", CELL), ("n", 20)], "SELECT mail, count(*) FROM public.people GROUP BY mail"),
        view((1016, "nested"), &[("number", 23), ("mail", CELL)], "SELECT number, mail FROM public.people_view"),
    ];
    let mut tables: Vec<_> = relations.iter().filter_map(|r| r.policy.clone()).collect();
    tables.extend(missing().into_iter().map(Arc::new));
    let mut catalog = Catalog::of(1, relations, false);
    catalog.take_policy(&tables);
    catalog.setters.insert("enter_tenant".to_owned());
    let function = |(schema, name): (&str, &str), rel, cells| Function {
        schema: schema.to_owned(),
        name: name.to_owned(),
        rel,
        cells,
    };
    catalog.functions = vec![
        function(("public", "user_by_id"), 1001, true),
        function(("public", "user_by_id"), 1001, true),
        function(("public", "all_notes"), 1003, true),
        function(("public", "Odd rows"), 1004, true),
        function(("public", "raw_rows"), 1005, false),
        function(("public", "mail_of"), 0, true),
        function(("public", "viewed"), 1012, true),
        function(("public", "either"), 1001, true),
        function(("public", "either"), 0, false),
        function(("other", "elsewhere"), 1001, true),
        function(("public", "total"), 1007, false),
    ];
    catalog
}
