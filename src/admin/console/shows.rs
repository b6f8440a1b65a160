//! What can be shown. Nothing here is a secret: no value, no literal, no key, no password.
use std::sync::Arc;

use super::Visit;
use super::answer::{Kind::*, Row, Value};
use super::command::{ACTS, Show};
use crate::admin::facts;
use crate::admin::rotations::Told;
use crate::config::{Provider, Settings};
use crate::jobs::rewrap::Progress;
use crate::jobs::rotation;
use crate::keys::registry::Wrapping;
use crate::policy::{Column, Equality, Mask, TenantRule};
use crate::refusal::{Class, Refusal};
use crate::server::database::Database;

/// How many rotations of a database are shown.
const ROTATIONS_MAX: i64 = 1000;

pub(super) const SHOWS: &[Show] = &[
    Show {
        word: "tenants",
        help: "the tenants and how their data keys are wrapped",
        columns: &[
            ("database", Text),
            ("tenant", Text),
            ("state", Text),
            ("wrapping", Text),
            ("searchable", Bool),
            ("master_keys", Int),
        ],
        rows: |visit| Box::pin(tenants(visit)),
    },
    Show {
        word: "keys",
        help: "the versions of the tenants' master keys",
        columns: &[("database", Text), ("tenant", Text), ("master_key", Text), ("state", Text)],
        rows: |visit| Box::pin(keys(visit)),
    },
    Show {
        word: "rotations",
        help: "rotations of master keys and how far they are, the latest first; those that this proxy does, with what it waits for",
        columns: &[
            ("database", Text),
            ("tenant", Text),
            ("state", Text),
            ("pass", Int),
            ("blocks_done", Int),
            ("blocks", Int),
            ("rows", Int),
            ("cells", Int),
            ("compromised", Bool),
            ("started", Text),
            ("finished", Text),
            ("here", Bool),
            ("note", Text),
        ],
        rows: |visit| Box::pin(rotations(visit)),
    },
    Show {
        word: "columns",
        help: "the columns of the policy, and whether the database holds cells in them",
        columns: &[
            ("database", Text),
            ("table", Text),
            ("column", Text),
            ("type", Text),
            ("search", Text),
            ("mask", Text),
            ("tenant", Text),
            ("state", Text),
        ],
        rows: |visit| Box::pin(columns(visit)),
    },
    Show {
        word: "databases",
        help: "the databases of the policy",
        columns: &[("database", Text), ("state", Text), ("schema_version", Int), ("tenants", Int), ("tables", Int)],
        rows: |visit| Box::pin(databases(visit)),
    },
    Show {
        word: "proxies",
        help: "the proxies that serve each database",
        columns: &[("database", Text), ("proxy", Text), ("epoch", Int), ("seen_seconds", Int), ("this_one", Bool)],
        rows: |visit| Box::pin(proxies(visit)),
    },
    Show {
        word: "sessions",
        help: "the sessions on this proxy",
        columns: &[
            ("id", Int),
            ("database", Text),
            ("user", Text),
            ("client", Text),
            ("application", Text),
            ("state", Text),
            ("since", Text),
        ],
        rows: |visit| Box::pin(async move { Ok(sessions(&visit)) }),
    },
    Show {
        word: "cache",
        help: "what this proxy holds in its caches",
        columns: &[
            ("database", Text),
            ("plans", Int),
            ("plan_bytes", Int),
            ("data_keys", Int),
            ("registry_epoch", Int),
            ("registry_silence_ms", Int),
        ],
        rows: |visit| Box::pin(async move { Ok(cache(&visit)) }),
    },
    Show {
        word: "statements",
        help: "the plans in the cache, by fingerprint",
        columns: &[("database", Text), ("fingerprint", Text), ("plan", Text), ("bytes", Int)],
        rows: |visit| Box::pin(async move { Ok(statements(&visit)) }),
    },
    Show {
        word: "audit",
        help: "how the audit log of this proxy is",
        columns: &[("directory", Text), ("durability", Text), ("records", Int), ("failing", Bool), ("torn_bytes", Int)],
        rows: |visit| Box::pin(async move { Ok(audit(&visit)) }),
    },
    Show {
        word: "config",
        help: "the settings in force",
        columns: &[("setting", Text), ("value", Text)],
        rows: |visit| Box::pin(async move { Ok(config(&visit.running.settings())) }),
    },
    Show {
        word: "version",
        help: "the version of the proxy",
        columns: &[("version", Text)],
        rows: |_| Box::pin(async { Ok(vec![vec![Value::text(env!("CARGO_PKG_VERSION"))]]) }),
    },
    Show {
        word: "help",
        help: "this list",
        columns: &[("command", Text), ("what", Text)],
        rows: |_| Box::pin(async { Ok(help()) }),
    },
];

fn help() -> Vec<Row> {
    let shows = SHOWS.iter().map(|show| (format!("SHOW {}", show.word.to_uppercase()), show.help));
    let acts = ACTS.iter().map(|act| (act.usage.to_owned(), act.help));
    shows.chain(acts).map(|(command, what)| vec![Value::Text(command), Value::text(what)]).collect()
}

fn unanswered(error: &dyn std::error::Error) -> Refusal {
    tracing::warn!(error = crate::admin::chain(error), "the console could not ask a database");
    Refusal::new(Class::Unreachable, "a database of the policy does not answer").hint("Try again.")
}

/// The databases that are open, by name.
fn open(visit: &Visit) -> impl Iterator<Item = (Value, Arc<Database>)> {
    let all = visit.running.databases().into_iter();
    all.filter_map(|(name, database)| Some((Value::text(name), database?)))
}

async fn tenants(visit: Arc<Visit>) -> Result<Vec<Row>, Refusal> {
    let mut rows = Vec::new();
    for (name, database) in open(&visit) {
        let registry = database.shared.keys.registry();
        registry.refresh().await.map_err(|error| unanswered(&error))?;
        rows.extend(facts::tenants(&registry.snapshot()).into_iter().map(|tenant| {
            vec![
                name.clone(),
                Value::text(&tenant.name),
                Value::text(tenant.state),
                tenant.wrapping.map_or(Value::Null, |wrapping: Wrapping| Value::text(wrapping.as_str())),
                Value::Bool(tenant.searchable),
                Value::count(tenant.master_keys),
            ]
        }));
    }
    Ok(rows)
}

async fn keys(visit: Arc<Visit>) -> Result<Vec<Row>, Refusal> {
    let mut rows = Vec::new();
    for (name, database) in open(&visit) {
        let registry = database.shared.keys.registry();
        registry.refresh().await.map_err(|error| unanswered(&error))?;
        let mut keys: Vec<_> = facts::keys(&registry.snapshot()).collect();
        keys.sort_by(|a, b| (&a.tenant, &a.arn).cmp(&(&b.tenant, &b.arn)));
        rows.extend(
            keys.into_iter()
                .map(|key| vec![name.clone(), Value::text(key.tenant), Value::Text(key.arn), Value::Text(key.state)]),
        );
    }
    Ok(rows)
}

async fn rotations(visit: Arc<Visit>) -> Result<Vec<Row>, Refusal> {
    let mut rows = Vec::new();
    for (name, database) in open(&visit) {
        let client = database.connection().await.map_err(|error| unanswered(&error))?;
        for record in rotation::recent(&client, ROTATIONS_MAX).await.map_err(|error| unanswered(&error))? {
            let told = visit.rotations.told(&database.shared.name, &record.tenant);
            let Progress { pass, blocks_done, blocks, rows: changed, cells, .. } = record.progress;
            // What was told is of the one that is not done.
            let told = if record.finished_at.is_none() { told } else { Told::default() };
            rows.push(vec![
                name.clone(),
                Value::Text(record.tenant),
                Value::text(record.state),
                Value::count(pass),
                Value::count(blocks_done),
                Value::count(blocks),
                Value::count(changed),
                Value::count(cells),
                Value::Bool(record.compromised.is_some()),
                Value::Text(record.started_at),
                record.finished_at.map_or(Value::Null, Value::Text),
                Value::Bool(told.is_running),
                Value::Text(told.note),
            ]);
        }
    }
    Ok(rows)
}

async fn columns(visit: Arc<Visit>) -> Result<Vec<Row>, Refusal> {
    let mut rows = Vec::new();
    for (name, database) in open(&visit) {
        let schema = database.shared.schema.load_full();
        for table in &schema.policy.tables {
            let relation = schema.catalog.by_name.get(&(table.schema.clone(), table.name.clone()));
            let tenant = match &table.tenant {
                TenantRule::Column(column) => format!("column {column}"),
                TenantRule::Session => "session".to_owned(),
                TenantRule::Fixed(tenant) => format!("'{tenant}'"),
            };
            for column in &table.columns {
                let state = match relation.and_then(|relation| relation.attribute(&column.name)) {
                    None => "missing",
                    Some(attribute) if attribute.sealed.is_some() => "sealed",
                    Some(_) => "plaintext",
                };
                let [kind, search, mask] = rules(column);
                let table = Value::Text(format!("{}.{}", table.schema, table.name));
                let column = Value::text(&column.name);
                rows.push(vec![
                    name.clone(),
                    table,
                    column,
                    kind,
                    search,
                    mask,
                    Value::text(&tenant),
                    Value::text(state),
                ]);
            }
        }
    }
    Ok(rows)
}

/// Type, search and mask of a column.
fn rules(column: &Column) -> [Value; 3] {
    let search = match column.equality {
        None => Value::Null,
        Some(Equality::Tenant) => Value::text("within a tenant"),
        Some(Equality::Global) => Value::text("across tenants"),
    };
    let mask = match &column.mask {
        Mask::Null => "NULL".to_owned(),
        Mask::KeepLast(n) => format!("keep_last = {n}"),
        Mask::KeepFirst(n) => format!("keep_first = {n}"),
        Mask::Fixed(_) => "fixed".to_owned(),
        Mask::Hash => "hash".to_owned(),
    };
    [Value::text(column.logical), search, Value::Text(mask)]
}

async fn databases(visit: Arc<Visit>) -> Result<Vec<Row>, Refusal> {
    let mut rows = Vec::new();
    for (name, database) in visit.running.databases() {
        let name = Value::text(name);
        let Some(database) = database else {
            rows.push(vec![name, Value::text("cannot be served yet"), Value::Null, Value::Null, Value::Null]);
            continue;
        };
        let client = database.connection().await.map_err(|error| unanswered(&error))?;
        let status = facts::status(&client).await.map_err(|error| unanswered(&error))?;
        let tables = Value::count(database.shared.policy().tables.len());
        rows.push(vec![name, Value::text("open"), Value::count(status.version), Value::Int(status.tenants), tables]);
    }
    Ok(rows)
}

async fn proxies(visit: Arc<Visit>) -> Result<Vec<Row>, Refusal> {
    let mut rows = Vec::new();
    for (name, database) in open(&visit) {
        let client = database.connection().await.map_err(|error| unanswered(&error))?;
        let status = facts::status(&client).await.map_err(|error| unanswered(&error))?;
        let this = database.shared.keys.registry().proxy_id();
        rows.extend(status.proxies.into_iter().map(|proxy| {
            let is_this = Value::Bool(proxy.id == this);
            vec![name.clone(), Value::Text(proxy.id), Value::Int(proxy.epoch), Value::Int(proxy.seen_seconds), is_this]
        }));
    }
    Ok(rows)
}

fn sessions(visit: &Visit) -> Vec<Row> {
    let row = |session: &Arc<crate::server::live::LiveSession>| {
        let since = jiff::Timestamp::try_from(session.since)
            .map_or(Value::Null, |since| Value::text(since.round(jiff::Unit::Second).unwrap_or(since)));
        vec![
            Value::count(session.id),
            Value::text(&session.database),
            Value::text(&session.user),
            Value::text(&session.client),
            Value::text(&session.application),
            Value::text(session.state()),
            since,
        ]
    };
    visit.live.list().iter().map(row).collect()
}

fn cache(visit: &Visit) -> Vec<Row> {
    let row = |(name, database): (Value, Arc<Database>)| {
        let shared = &database.shared;
        vec![
            name,
            Value::count(shared.plans.entries().len()),
            Value::count(shared.plans.bytes()),
            Value::count(shared.keys.cached()),
            Value::Int(shared.keys.registry().snapshot().epoch),
            Value::count(shared.keys.registry_silence().as_millis()),
        ]
    };
    open(visit).map(row).collect()
}

fn statements(visit: &Visit) -> Vec<Row> {
    let of = |(name, database): (Value, Arc<Database>)| {
        let entries = database.shared.plans.entries().into_iter();
        entries.map(move |(fingerprint, plan, bytes)| {
            vec![name.clone(), Value::Text(format!("{fingerprint:016x}")), Value::text(plan), Value::count(bytes)]
        })
    };
    open(visit).flat_map(of).collect()
}

fn audit(visit: &Visit) -> Vec<Row> {
    let settings = visit.running.settings();
    vec![vec![
        Value::text(settings.audit.directory.display()),
        Value::Text(format!("{:?}", settings.audit.durability).to_lowercase()),
        Value::count(visit.audit.size()),
        Value::Bool(visit.audit.is_failing()),
        Value::count(visit.audit.torn_bytes()),
    ]]
}

/// The settings by the names of the file. What may hold a password is left out.
fn config(settings: &Settings) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut set = |name: &str, value: String| rows.push(vec![Value::text(name), Value::Text(value)]);
    let path = |path: &std::path::Path| path.display().to_string();
    set("file", path(&settings.file));
    set("listen.address", settings.listen.address.to_string());
    if let Some(tls) = &settings.listen.tls {
        set("listen.tls.certificate", path(&tls.certificate));
        set("listen.tls.key", path(&tls.key));
    }
    set("upstream.address", settings.upstream.address.to_string());
    set("upstream.tls", format!("{:?}", settings.upstream.tls).to_lowercase());
    if let Some(address) = settings.admin {
        set("admin.address", address.to_string());
    }
    set("admin.console", settings.console.join(", "));
    match &settings.keys.provider {
        Provider::Local { keyring } => {
            set("keys.provider", "local".to_owned());
            set("keys.keyring", path(keyring));
        }
        Provider::Aws { region, .. } => {
            set("keys.provider", "aws".to_owned());
            set("keys.aws.region", region.clone().unwrap_or_default());
        }
    }
    set("keys.wrapping", format!("{:?}", settings.keys.wrapping).to_lowercase());
    set("keys.auto_register", settings.keys.auto_register.to_string());
    set("keys.confirm_interval", format!("{:?}", settings.keys.confirm_interval));
    set("keys.cache_bytes_max", settings.keys.cache_bytes_max.to_string());
    set("keys.pool_size", settings.keys.pool_size.to_string());
    set("keys.kms_concurrency", settings.keys.kms_concurrency.to_string());
    set("audit.directory", path(&settings.audit.directory));
    set("audit.durability", format!("{:?}", settings.audit.durability).to_lowercase());
    set("limits.connections_max", settings.limits.connections_max.to_string());
    set("limits.message_bytes_max", settings.limits.message_bytes_max.to_string());
    set("limits.plan_bytes_max", settings.limits.plan_bytes_max.to_string());
    set("limits.login_timeout", format!("{:?}", settings.limits.login_timeout));
    set("limits.drain_timeout", format!("{:?}", settings.limits.drain_timeout));
    for database in &settings.databases {
        let key = |name: &str| format!("database {}: {name}", database.name);
        set(&key("unsealed"), format!("{:?}", database.unsealed).to_lowercase());
        set(&key("read"), format!("{:?}", database.read).to_lowercase());
        set(&key("on_key_unavailable"), format!("{:?}", database.on_key_unavailable).to_lowercase());
        set(&key("tables"), database.tables.len().to_string());
        for role in &database.roles {
            let search = if role.search { ", search" } else { "" };
            set(&key(&format!("role {}", role.name)), format!("{:?}{search}", role.read).to_lowercase());
        }
    }
    rows
}
