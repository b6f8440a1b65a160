//! `rowseal lint`: what the proxy would do with each statement of a script, or of pg_stat_statements.
use std::collections::HashSet;
use std::fmt::Write;
use std::io::Read;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio_postgres::Client;

use super::connect::Control;
use super::{Context, Failure};
use crate::catalog::{self, Catalog};
use crate::config::ident;
use crate::sql::filter::Filter;
use crate::sql::plan::{Role, StatementPlan, Verdict};
use crate::sql::{self, Protocol, render};

mod split;

/// How much of a statement is shown, in characters.
const SHOWN: usize = 100;
const STATISTICS: &str = "
    SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'";

/// Arguments of `lint`.
#[derive(Args)]
#[group(id = "source", required = true, multiple = false, args = ["file", "from_server"])]
pub(super) struct Lint {
    /// A script as psql reads it; - for standard input.
    file: Option<PathBuf>,
    /// The statements that the server has counted (extension pg_stat_statements).
    #[arg(long)]
    from_server: bool,
    /// The schemas in which names are looked up, with commas between; else those of the control role.
    #[arg(long, value_name = "SCHEMAS", value_delimiter = ',')]
    search_path: Vec<String>,
}

/// A statement and where it is from.
struct Source {
    place: String,
    text: String,
}

/// What the proxy would do with a statement.
enum Found {
    Pass,
    Rewrite(String),
    Refuse(crate::refusal::Refusal),
}

pub(super) async fn run(lint: &Lint, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let database = context.database(&settings)?;
    let client = Control::of(&settings, database)?.client().await?;
    let catalog = catalog::load(&client, database, None).await?;
    let filter = Filter::new(&catalog)?;
    let search_path = search_path(lint, &client).await?;
    let (mut counts, mut seen) = ([0; 3], HashSet::new());
    for source in sources(lint, &client).await? {
        if seen.insert(source.text.clone()) {
            let found = found(&source.text, &catalog, &filter, &search_path);
            counts[number(&found)] += 1;
            write(context, &source, &found)?;
        }
    }
    let [passed, rewritten, refused] = counts;
    let text =
        format!("{} statements: {passed} pass, {rewritten} rewritten, {refused} refused", counts.iter().sum::<usize>());
    context.output.write(text, &json!({ "pass": passed, "rewrite": rewritten, "refuse": refused }))?;
    if refused > 0 {
        Err(Failure::Refused(format!("statements that the proxy would refuse: {refused}")))
    } else {
        Ok(())
    }
}

async fn search_path(lint: &Lint, client: &Client) -> Result<Vec<String>, Failure> {
    if !lint.search_path.is_empty() {
        return Ok(lint.search_path.iter().map(|schema| schema.trim().to_owned()).collect());
    }
    Ok(client.query_one("SELECT pg_catalog.current_schemas(false)::pg_catalog.text[]", &[]).await?.try_get(0)?)
}

async fn sources(lint: &Lint, client: &Client) -> Result<Vec<Source>, Failure> {
    let Some(path) = &lint.file else { return counted(client).await };
    let (mut script, name) = (String::new(), path.display());
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut script).context("standard input cannot be read")?;
    } else {
        script =
            std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{name} cannot be read: {error}")))?;
    }
    let statements = split::statements(&script).into_iter();
    Ok(statements.map(|s| Source { place: format!("{name}:{}", s.line), text: s.text.to_owned() }).collect())
}

async fn counted(client: &Client) -> Result<Vec<Source>, Failure> {
    let schema = client.query_opt(STATISTICS, &[]).await?;
    let schema: String = schema.map(|row| row.try_get(0)).transpose()?.ok_or_else(|| {
        Failure::Failed(anyhow::anyhow!("extension pg_stat_statements is not installed in the database"))
    })?;
    let query = format!(
        "SELECT query, sum(calls)::pg_catalog.int8 FROM {}.pg_stat_statements WHERE dbid = (SELECT oid FROM \
         pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) GROUP BY query ORDER BY 2 DESC, 1",
        ident::quote(&schema)
    );
    let mut sources = Vec::new();
    for row in client.query(&query, &[]).await? {
        let calls: i64 = row.try_get(1)?;
        sources.push(Source { place: format!("{calls} calls"), text: row.try_get(0)? });
    }
    Ok(sources)
}

fn found(text: &str, catalog: &Catalog, filter: &Filter, search_path: &[String]) -> Found {
    if !filter.scan(text.as_bytes()).touches {
        return Found::Pass;
    }
    // A statement with parameters can only come by the extended protocol.
    let has_parameters = text.as_bytes().windows(2).any(|pair| pair[0] == b'$' && pair[1].is_ascii_digit());
    let protocol = if has_parameters { Protocol::Extended } else { Protocol::Simple };
    decided(text, &sql::plan(text, &sql::Context { catalog, search_path, protocol, declared: &[] }))
}

/// What is done where the server, if it is asked, knows all names.
fn decided(text: &str, verdict: &Verdict) -> Found {
    match verdict {
        Verdict::Ask(asked) => decided(text, &asked.then),
        Verdict::Pass => Found::Pass,
        Verdict::Refuse(refusal) => Found::Refuse(refusal.clone()),
        // It is looked at for the roles that may not ask whether a value is NULL.
        Verdict::Rewrite(plans) if plans.iter().all(|plan| !plan.is_rewritten()) => Found::Pass,
        Verdict::Rewrite(plans) => Found::Rewrite(rewritten(text, plans)),
    }
}

/// The text that the server would see, with names in place of what the proxy computes.
fn rewritten(text: &str, plans: &[StatementPlan]) -> String {
    let mut slot = |plan: usize, value: usize, out: &mut String| {
        let role = plans.get(plan).and_then(|plan| plan.values.get(value)).map(|value| &value.role);
        write!(out, "<{}>", role.map_or_else(String::new, describe))
    };
    let text = render::render(text, plans, &mut slot).map(|rendered| rendered.text).unwrap_or_default();
    let notices = plans.iter().filter_map(|plan| plan.ddl.as_ref()?.notice.as_ref());
    notices.fold(text, |text, notice| format!("{text}\n-- {notice}"))
}

fn describe(role: &Role) -> String {
    match role {
        Role::Seal { column, .. } => format!("cell of {}", column.name),
        Role::Search { column, .. } => format!("token of {}", column.name),
        Role::Shown { column, .. } => format!("marker in place of a value shown for {}", column.name),
        Role::SearchMany { column, .. } => format!("tokens of {}", column.name),
        Role::SealEach { column, .. } => format!("cells of {}, one a member", column.name),
        Role::LockedCells { column } => format!("cells of {}, one a row", column.name),
        Role::CopiedPlain { .. } => "values of the query's rows".to_owned(),
        Role::CopiedCells { column, .. } => format!("cells of {}, one for each row of the query", column.name),
        Role::LockedTables => "tables of the locked rows".to_owned(),
        Role::LockedRows => "places of the locked rows".to_owned(),
    }
}

fn number(found: &Found) -> usize {
    match found {
        Found::Pass => 0,
        Found::Rewrite(_) => 1,
        Found::Refuse(_) => 2,
    }
}

fn write(context: &Context, Source { place, text }: &Source, found: &Found) -> Result<(), Failure> {
    let shown = shortened(text);
    let (lines, json) = match found {
        Found::Pass => (format!("{place}: pass: {shown}"), json!({ "verdict": "pass" })),
        Found::Rewrite(rewritten) => (
            format!("{place}: rewrite: {shown}\n    {}", rewritten.trim().replace('\n', "\n    ")),
            json!({ "verdict": "rewrite", "rewritten": rewritten }),
        ),
        Found::Refuse(refusal) => {
            let mut lines = format!("{place}: refuse: {shown}\n    {}: {}", refusal.class.sqlstate(), refusal.message);
            for part in [&refusal.detail, &refusal.hint].into_iter().filter(|part| !part.is_empty()) {
                let _ = write!(lines, "\n    {part}");
            }
            let (message, detail, hint) = (&refusal.message, &refusal.detail, &refusal.hint);
            let sqlstate = refusal.class.sqlstate();
            (
                lines,
                json!({ "verdict": "refuse", "sqlstate": sqlstate, "message": message, "detail": detail, "hint": hint }),
            )
        }
    };
    let mut whole = json!({ "place": place, "statement": text });
    if let (Some(whole), serde_json::Value::Object(json)) = (whole.as_object_mut(), json) {
        whole.extend(json);
    }
    Ok(context.output.write(lines, &whole)?)
}

/// A statement on one line, cut.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{} ...", &line[..cut]),
        None => line,
    }
}
