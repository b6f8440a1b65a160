//! What a statement costs before it goes to the server: the lexical filter for every text, the plan from the cache for a
//! text that names a sealed table, and the plan that is made anew, beside what
//! sqlparser alone takes for the statement.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rowseal::catalog::{Attribute, Catalog, Relation};
use rowseal::policy::{Column, Equality, Mask, Padding, Table, TenantRule};
use rowseal::sql::cache::Cache;
use rowseal::sql::filter::Filter;
use rowseal::sql::plan::Verdict;
use rowseal::sql::{Context, Protocol, plan};
use rowseal::types::LogicalType;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Statements over the sealed table, by what they do.
const SEALED: [(&str, &str); 4] = [
    ("read", "SELECT id, email FROM customers WHERE id = $1"),
    (
        "three-tables",
        "SELECT c.id, c.email, o.account_id, p.id AS item, count(*) AS lines, max(p.account_id) \
         FROM customers c JOIN plain_1 o ON o.id = c.id AND o.account_id = c.account_id \
         LEFT JOIN plain_2 p ON p.account_id = o.account_id \
         WHERE c.account_id = $1 AND c.email = $2 AND o.id IN ($3, $4, $5) AND p.id IS NOT NULL \
         GROUP BY c.id, c.email, o.account_id, p.id HAVING count(*) > 1 ORDER BY c.id DESC, item LIMIT 50 OFFSET $6",
    ),
    ("search", "SELECT id FROM customers WHERE account_id = $1 AND email = $2"),
    ("insert", "INSERT INTO customers (id, account_id, email) VALUES ($1, $2, $3)"),
];

fn attribute(name: &str, attnum: i16, sealed: Option<Arc<Column>>) -> Attribute {
    let (type_oid, base_type_oid) = if sealed.is_some() { (90_001, 17) } else { (20, 20) };
    let is_cell = sealed.is_some();
    Attribute {
        name: name.to_owned(),
        attnum,
        type_oid,
        base_type_oid,
        typmod: -1,
        type_name: String::new(),
        has_default: false,
        is_generated: false,
        sealed,
        is_cell,
        is_unsealed: false,
    }
}

fn relation(oid: u32, name: String, columns: Vec<Attribute>, policy: Option<Arc<Table>>) -> Relation {
    Relation {
        oid,
        schema: "public".to_owned(),
        name,
        kind: 'r',
        columns,
        primary_key: vec![1],
        unique_indexes: Vec::new(),
        policy,
        definition: None,
    }
}

/// One sealed table among a hundred plain ones.
fn catalog() -> Catalog {
    let email = Arc::new(Column {
        qualified: "public.customers.email".into(),
        name: "email".to_owned(),
        logical: LogicalType::Text,
        equality: Some(Equality::Tenant),
        join_group: None,
        binding: "public.customers.email".to_owned(),
        padding: Padding::Padme,
        mask: Mask::Null,
    });
    let table = Arc::new(Table {
        schema: "public".to_owned(),
        name: "customers".to_owned(),
        tenant: TenantRule::Column("account_id".to_owned()),
        columns: vec![Arc::clone(&email)],
    });
    let columns = vec![attribute("id", 1, None), attribute("account_id", 2, None), attribute("email", 3, Some(email))];
    let mut relations = vec![relation(16_384, "customers".to_owned(), columns, Some(table))];
    relations.extend((1..=100).map(|n| {
        let columns = vec![attribute("id", 1, None), attribute("account_id", 2, None)];
        relation(16_384 + n, format!("plain_{n}"), columns, None)
    }));
    Catalog::of(1, relations, false)
}

fn bench_filter(c: &mut Criterion) {
    let filter = Filter::new(&catalog()).expect("few names");
    let mut group = c.benchmark_group("filter");
    let short = "SELECT abalance FROM pgbench_accounts WHERE aid = $1;".to_owned();
    let long = format!("INSERT INTO plain_1 VALUES {}", vec!["(1, 'some text of a row')"; 2000].join(", "));
    for (name, text) in [("short", short), ("long", long), ("hit", SEALED[0].1.to_owned())] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &text, |b, text| {
            b.iter(|| filter.scan(black_box(text.as_bytes())));
        });
    }
    group.finish();
}

fn bench_plan(c: &mut Criterion) {
    let catalog = catalog();
    let search_path = ["public".to_owned()];
    let context = Context { catalog: &catalog, search_path: &search_path, protocol: Protocol::Extended, declared: &[] };
    let cache = Cache::new(CACHE_BYTES);
    let mut group = c.benchmark_group("plan");
    for (name, text) in SEALED {
        assert!(matches!(cache.plan(text, &context), Verdict::Rewrite(_)), "{name} is rewritten");
        group.bench_with_input(BenchmarkId::new("hit", name), text, |b, text| {
            b.iter(|| cache.plan(black_box(text), &context));
        });
        // What is paid for the tree alone.
        group.bench_with_input(BenchmarkId::new("sqlparser", name), text, |b, text| {
            b.iter(|| Parser::parse_sql(&PostgreSqlDialect {}, black_box(text)).expect("it is SQL"));
        });
        group.bench_with_input(BenchmarkId::new("new", name), text, |b, text| {
            b.iter(|| plan(black_box(text), &context));
        });
    }
    group.finish();
}

criterion_group!(benches, bench_filter, bench_plan);
criterion_main!(benches);
