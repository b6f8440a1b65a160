//! Runs the case files of tests/cases: statement → rewritten text, or refusal. `UPDATE_CASES=1` writes what is found.
use std::fmt::Write;

use proptest::prelude::*;

use super::filter::Filter;
use super::inside::{Inside, Whose};
use super::plan::{
    Constant, CopiedTenant, Copy, EachTenant, ParamRole, Question, ResultColumn, Role, RowTenant, Source,
    StatementPlan, TenantSource, Verdict,
};
use super::{Context, Protocol, plan, render};
use crate::catalog::Catalog;

mod tables;

pub(super) use tables::catalog;

fn describe(text: &str, plans: &[StatementPlan]) -> String {
    let mut out = String::new();
    let number = |plan: usize, slot: usize, out: &mut String| write!(out, "${}", plans[plan].values[slot].param);
    let mut number = number;
    let rendered = render::render(text, plans, &mut number).unwrap();
    writeln!(out, "{}", rendered.text).unwrap();
    for plan in plans {
        if let Some(ddl) = &plan.ddl {
            ddl.notice.iter().for_each(|notice| writeln!(out, "notice {notice}").unwrap());
        }
        if let Some(lock) = render::render_lock_extended(plan) {
            let uses = &plan.lock.as_ref().unwrap().uses;
            writeln!(out, "lock {lock} uses {uses:?}").unwrap();
            if let Some(copies) = &plan.lock.as_ref().unwrap().copies {
                let columns: Vec<_> = copies.columns.iter().map(describe_result).collect();
                writeln!(out, "copies {} hidden {}", columns.join(" "), copies.hidden).unwrap();
            }
        }
        for value in &plan.values {
            writeln!(out, "${} {}", value.param, describe_value(&value.source, &value.role)).unwrap();
        }
        let params: Vec<_> = plan.params.iter().map(describe_param).collect();
        if params.iter().any(|p| p != "plain") {
            writeln!(out, "params {} of {}", params.join(" "), plan.server_params).unwrap();
        }
        if let Some(copy) = &plan.copy {
            writeln!(out, "{}", describe_copy(copy)).unwrap();
        }
        if let Some(result) = &plan.result {
            let columns: Vec<_> = result.iter().map(describe_result).collect();
            writeln!(out, "gives {}", columns.join(" ")).unwrap();
        }
    }
    out
}

fn describe_copy(copy: &Copy) -> String {
    match copy {
        Copy::In(copy) => {
            let values = copy.row.values.iter().map(|slot| describe_value(&slot.source, &slot.role));
            let values: Vec<_> = values.collect();
            format!("copy {} ({}) {}", copy.table, copy.names.join(", "), values.join("; "))
        }
        Copy::Out(copy) => {
            let columns: Vec<_> = copy.columns.iter().map(describe_result).collect();
            format!("copy ({}) hidden {}", columns.join(", "), copy.hidden)
        }
    }
}

fn describe_value(source: &Source, role: &Role) -> String {
    let source = match source {
        Source::Param(n) => format!("param {n}"),
        Source::Literal(s) => format!("literal {s}"),
        Source::Rows => "rows".into(),
    };
    let role = match role {
        Role::Seal { column, row, tenant } => format!("seal {} row {row} of {}", column.name, describe_tenant(tenant)),
        Role::Search { column, tenant } => format!("search {} of {}", column.name, describe_tenant(tenant)),
        Role::Shown { column, number, .. } => format!("marker {number} in place of {}", column.name),
        Role::SearchMany { column, tenants } => {
            let tenants: Vec<_> = tenants.iter().map(describe_tenant).collect();
            format!("search many {} of {}", column.name, tenants.join(", "))
        }
        Role::SealEach { column, rows, tenants } => {
            format!("seal each {} rows {rows} of {}", column.name, describe_each(tenants))
        }
        Role::LockedCells { column } => format!("cells {}", column.name),
        Role::CopiedPlain { at } => format!("values of column {at}"),
        Role::CopiedCells { column, rows, from, tenant } => {
            let tenant = match tenant {
                CopiedTenant::Same(tenant) => describe_tenant(tenant),
                CopiedTenant::Column { at, type_oid } => format!("column {at} ({type_oid})"),
            };
            format!("seal {} rows {rows} of {tenant} {from:?}", column.name)
        }
        Role::LockedTables => "tables".into(),
        Role::LockedRows => "ctids".into(),
    };
    format!("{role} from {source}")
}

fn describe_tenant(tenant: &TenantSource) -> String {
    match tenant {
        TenantSource::Fixed(name) => format!("fixed {name}"),
        TenantSource::Session => "session".into(),
        TenantSource::Param { index, type_oid, described_oid, may_be_null } => {
            let from = if type_oid == described_oid { String::new() } else { format!(" from {described_oid}") };
            format!("param {index}{} ({type_oid}{from})", if *may_be_null { " or none" } else { "" })
        }
        TenantSource::Nobody => "nobody".into(),
        TenantSource::Misread(error) => format!("misread ({error})"),
        TenantSource::Literal(name) => format!("literal {name}"),
    }
}

fn describe_constant(constant: &Constant) -> String {
    match constant {
        Constant::Literal(text) => format!(" or {text}"),
        Constant::Param(index) => format!(" or param {index}"),
    }
}

fn describe_cut(cut: Option<u32>) -> String {
    cut.map_or_else(String::new, |cut| format!(" cut to {cut}"))
}

fn describe_each(tenants: &EachTenant) -> String {
    match tenants {
        EachTenant::Same(tenant) => describe_tenant(tenant),
        EachTenant::Param { index, type_oid, cut } => {
            format!("each of param {index} ({type_oid}){}", describe_cut(*cut))
        }
        EachTenant::Literal { array, type_oid, cut } => {
            format!("each of literal {array} ({type_oid}){}", describe_cut(*cut))
        }
    }
}

fn describe_param(role: &ParamRole) -> String {
    match role {
        ParamRole::Plain => "plain".into(),
        ParamRole::Sealed(c, _) => format!("sealed:{}", c.name),
        ParamRole::SealedMany(c, _) => format!("many:{}", c.name),
        ParamRole::Both(c) => format!("both:{}", c.name),
        ParamRole::Unused => "unused".into(),
    }
}

fn describe_result(column: &ResultColumn) -> String {
    match column {
        ResultColumn::Plain => "-".into(),
        ResultColumn::Sealed { column, attnum, described, tenant, constants, .. } => {
            let tenant = match tenant {
                RowTenant::Unknown => String::new(),
                RowTenant::Prefix => "+tenant".to_owned(),
                RowTenant::Column(at) => format!("+tenant@{at}"),
            };
            let constants: String = constants.0.iter().map(describe_constant).collect();
            let own = *described == column.logical;
            let described = if own { String::new() } else { format!(":{}", described.domain()) };
            format!("{}/{attnum}{described}{tenant}{constants}", column.name)
        }
        ResultColumn::Built(built) => {
            let text = if built.is_text { "::text" } else { "" };
            format!("{}{text}", describe_inside(&built.inside))
        }
    }
}

fn describe_inside(inside: &Inside) -> String {
    let all = |insides: &[Inside]| insides.iter().map(describe_inside).collect::<Vec<_>>().join(", ");
    match inside {
        Inside::Plain => "-".into(),
        Inside::Cell(leaf) => {
            let tenant = match leaf.whose {
                Whose::Unknown => String::new(),
                Whose::Prefix => "+tenant".into(),
                Whose::Beside { field, .. } => format!("+tenant@{field}"),
            };
            let constants: String = leaf.constants.0.iter().map(describe_constant).collect();
            format!("{}{tenant}{constants}", leaf.column.name)
        }
        Inside::Each(inside) => format!("[{}...]", describe_inside(inside)),
        Inside::Places(insides) => format!("[{}]", all(insides)),
        Inside::Ordered(insides) => format!("{{{}}}", all(insides)),
        Inside::Map(inside) => format!("{{*: {}}}", describe_inside(inside)),
        Inside::Fields(fields) => {
            let sealed = fields.iter().filter(|field| field.inside.column().is_some());
            let fields: Vec<_> =
                sealed.map(|field| format!("{}: {}", field.name, describe_inside(&field.inside))).collect();
            format!("({})", fields.join(", "))
        }
        Inside::Json(inside, kind) => format!("{kind:?}{}", describe_inside(inside)),
    }
}

fn found(statement: &str, catalog: &Catalog, filter: &Filter) -> String {
    if !filter.scan(statement.as_bytes()).touches {
        return "no hit\n".into();
    }
    let context = Context { catalog, search_path: &["public".to_owned()], protocol: Protocol::Extended, declared: &[] };
    described(statement, &plan(statement, &context))
}

fn described(statement: &str, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => "pass\n".into(),
        Verdict::Refuse(refusal) => format!("refuse {} {}\n", refusal.class.sqlstate(), refusal.message),
        Verdict::Rewrite(plans) if !plans.iter().any(StatementPlan::is_rewritten) => {
            let mut tested: Vec<_> = plans.iter().flat_map(|p| &p.tested).map(|c| &*c.qualified).collect();
            tested.dedup();
            format!("pass\ntests {}\n", tested.join(", "))
        }
        Verdict::Rewrite(plans) => describe(statement, plans),
        Verdict::Ask(asked) => {
            let reload = if asked.reload { " anew" } else { "" };
            let asks: String =
                asked.questions.iter().map(|question| format!("ask{reload} {}\n", question_text(question))).collect();
            asks + &described(statement, &asked.then)
        }
    }
}

fn question_text(question: &Question) -> &str {
    match question {
        Question::Names { text, .. } => text,
        Question::Prepared(name) => name,
    }
}

/// A case: lines `> statement`, then what is expected, then an empty line. Other lines starting with `#` are comments.
fn run(file: &str, cases: &str) -> (String, usize, Vec<String>) {
    let (catalog, mut written, mut wrong, mut count) = (catalog(), String::new(), Vec::new(), 0);
    let filter = Filter::new(&catalog).unwrap();
    for block in cases.split("\n\n").map(|b| b.trim_matches('\n')).filter(|b| !b.is_empty()) {
        let (comments, rest): (Vec<_>, Vec<_>) = block.lines().partition(|l| l.starts_with('#'));
        let (statement, expected): (Vec<_>, Vec<_>) = rest.into_iter().partition(|l| l.starts_with("> "));
        comments.iter().chain(&statement).for_each(|l| writeln!(written, "{l}").unwrap());
        if !statement.is_empty() {
            count += 1;
            let text = statement.iter().map(|l| &l[2..]).collect::<Vec<_>>().join("\n");
            let found = found(&text, &catalog, &filter);
            if found.trim() != expected.join("\n").trim() {
                wrong.push(format!("{file}: {text}\nexpected:\n{}\nfound:\n{found}", expected.join("\n")));
            }
            written.push_str(&found);
        }
        written.push('\n');
    }
    (written, count, wrong)
}

fn case_files() -> Vec<std::path::PathBuf> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "case")).collect()
}

/// In the case files SECRET is what is meant for a sealed column.
#[test]
fn no_statement_takes_a_sealed_literal_to_the_server() {
    let (catalog, mut seen, mut leaks) = (catalog(), 0, Vec::new());
    for path in case_files() {
        let cases = std::fs::read_to_string(&path).unwrap();
        for block in cases.split("\n\n").filter(|block| block.contains("SECRET")) {
            let statement: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix("> ")).collect();
            let sent = sent(&statement.join("\n"), &catalog);
            seen += 1;
            leaks.extend(sent.filter(|sent| sent.contains("SECRET")));
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    assert!(seen >= 200, "only {seen} statements have one");
}

#[test]
fn case_files_hold() {
    let (mut total, mut failures) = (0, Vec::new());
    for path in case_files() {
        let cases = std::fs::read_to_string(&path).unwrap();
        let (written, count, wrong) = run(&path.file_name().unwrap().to_string_lossy(), &cases);
        total += count;
        if std::env::var_os("UPDATE_CASES").is_some() {
            std::fs::write(&path, written).unwrap();
        } else {
            failures.extend(wrong);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(total >= 1000, "only {total} cases were found");
}

/// The text that the server sees in place of a statement, for checks on what it must not hold.
fn sent(statement: &str, catalog: &Catalog) -> Option<String> {
    let context = Context { catalog, search_path: &["public".to_owned()], protocol: Protocol::Simple, declared: &[] };
    sent_by(statement, &plan(statement, &context))
}

fn sent_by(statement: &str, verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Ask(asked) => {
            let asks: Vec<&str> = asked.questions.iter().map(question_text).collect();
            Some(asks.join("\n") + &sent_by(statement, &asked.then).unwrap_or_default())
        }
        Verdict::Pass => Some(statement.to_owned()),
        Verdict::Refuse(_) => None,
        Verdict::Rewrite(plans) => {
            let mut slot = |_: usize, _: usize, out: &mut String| write!(out, "'\\x'::bytea");
            let text = render::render(statement, plans, &mut slot).unwrap().text;
            Some(plans.iter().filter_map(render::render_lock_extended).fold(text, |text, lock| text + "\n" + &lock))
        }
    }
}

#[test]
fn positions_map_back() {
    let catalog = catalog();
    let text = "SELECT é, email FROM users WHERE nme = 1";
    let context =
        Context { catalog: &catalog, search_path: &["public".to_owned()], protocol: Protocol::Extended, declared: &[] };
    let Verdict::Ask(asked) = plan(text, &context) else { panic!("not asked") };
    let Question::Names { text: asks, positions: asked_positions } = &asked.questions[0] else {
        panic!("another question")
    };
    let Verdict::Rewrite(plans) = &asked.then else { panic!("not rewritten") };
    let rendered = render::render_extended(text, &plans[0]);
    let chars = |text: &str, word: &str| text[..text.find(word).unwrap()].chars().count() + 1;
    let server = chars(&rendered.text, "nme");
    let positions = rendered.positions(text);
    assert_eq!(positions.map(server), chars(text, "nme"));
    assert_eq!(positions.map(8), 8);
    let (asks, positions) = (&**asks, asked_positions);
    assert_eq!(positions.map(chars(asks, "nme")), chars(text, "nme"));
}

#[test]
fn blanks_are_read_as_postgres_reads_them() {
    let catalog = catalog();
    let crlf = sent("SELECT id,\r\n\temail -- c\r\nFROM users\r\n", &catalog).unwrap();
    assert!(crlf.contains("email, users.account_id AS rowseal_tenant -- c\r\nFROM users"), "{crlf}");
    for text in ["SELECT email\u{a0}FROM users", "SELECT email FROM\u{3000}users", "SELECT email FROM\u{85}users"] {
        let sent = sent(text, &catalog);
        assert!(sent.is_none() || sent.as_deref() == Some(text), "{sent:?}");
    }
    let hidden = sent("-- x\rINSERT INTO users (id, account_id, email) VALUES (1, 2, 'SECRET')", &catalog);
    assert!(!hidden.unwrap_or_default().contains("SECRET"));
}

#[test]
fn deep_statements_are_refused_without_overflow() {
    let catalog = catalog();
    for text in [
        format!("SELECT * FROM users WHERE {}1=1", "(".repeat(5000)),
        format!("SELECT * FROM users WHERE {}true", "NOT ".repeat(50_000)),
        format!("SELECT * FROM users WHERE id = 1{}", " + 1".repeat(50_000)),
        format!("SELECT * FROM users{}", " UNION SELECT 1".repeat(20_000)),
        format!("SELECT -{}1 FROM users", " -".repeat(20_000)),
    ] {
        assert_eq!(sent(&text, &catalog), None);
    }
}

#[test]
fn many_parameters_are_numbered() {
    let row = |n: usize| format!("(${}, ${}, ${})", 3 * n + 1, 3 * n + 2, 3 * n + 3);
    let rows: Vec<_> = (0..5000).map(row).collect();
    let text = format!("INSERT INTO users (id, account_id, email) VALUES {}", rows.join(", "));
    let catalog = catalog();
    let context =
        Context { catalog: &catalog, search_path: &["public".to_owned()], protocol: Protocol::Extended, declared: &[] };
    let Verdict::Rewrite(plans) = plan(&text, &context) else { panic!("not rewritten") };
    assert_eq!((plans[0].server_params, plans[0].sealed_rows, plans[0].values.len()), (15_000, 5000, 5000));
    assert!(matches!(plans[0].params[2], ParamRole::Sealed(..)) && matches!(plans[0].params[1], ParamRole::Plain));
}

#[test]
fn many_rows_are_planned() {
    let row = "(1, 2, 'n', 'SECRET-a', -5)";
    let text = format!("INSERT INTO users (id, account_id, name, email, age) VALUES {}", vec![row; 3000].join(", "));
    let sent = sent(&text, &catalog()).unwrap();
    assert!(!sent.contains("SECRET") && !sent.contains("-5"));
}

proptest! {
    #[test]
    fn garbage_never_panics(text in "(?s)[ -~\\n;'\"éü$]{0,80}") {
        let _ = sent(&format!("{text} users {text}"), &catalog());
    }

    #[test]
    fn word_salad_never_leaks(words in proptest::collection::vec(prop_oneof![
        Just("SELECT"), Just("*"), Just("email"), Just("FROM"), Just("users"), Just("u"), Just("WHERE"), Just("="),
        Just("'SECRET'"), Just("AND"), Just("account_id"), Just("1"), Just("("), Just(")"), Just(","), Just("INSERT INTO"),
        Just("VALUES"), Just("UPDATE"), Just("SET"), Just("IN"), Just("id"), Just("RETURNING"), Just("count"),
        Just("::text"), Just("JOIN"), Just("ON"), Just("orders"), Just("."), Just(";"), Just("ORDER BY"), Just("DELETE FROM"),
    ], 1..24)) {
        let text = words.join(" ");
        let _ = sent(&text, &catalog());
    }

    #[test]
    fn unread_text_never_passes(tail in "[ -~]{0,40}") {
        let text = format!("SELECT email FROM users WHERE (( {tail}");
        let catalog = catalog();
        let dialect = sqlparser::dialect::PostgreSqlDialect {};
        if sqlparser::parser::Parser::parse_sql(&dialect, &text).is_err() && !tail.contains(';') {
            prop_assert_eq!(sent(&text, &catalog), None);
        }
    }
}
