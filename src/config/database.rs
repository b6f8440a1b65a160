//! Checks the policy of each database.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::error::{ConfigError, Place, Source};
use super::ident;
use super::raw::{self, At};
use super::{Control, Upstream};
use crate::policy::mask::HASH_CHARS;
use crate::policy::{
    Column, Database, Equality, GLOBAL_TENANT, Mask, OnKeyUnavailable, Padding, Read, RoleRule, Table, TenantRule,
    Unsealed,
};
use crate::types::LogicalType;

const PADDING_MAX: u32 = 1 << 20;
const NAME_BYTES_MAX: usize = 255;
const SYSTEM_SCHEMAS: [&str; 4] = ["pg_catalog", "information_schema", "pg_toast", "rowseal"];
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];

/// Checks all of them.
pub(super) fn databases(
    raw: Vec<raw::Database>,
    upstream: &Upstream,
    source: &Source<'_>,
) -> Result<Vec<Database>, ConfigError> {
    let mut names = HashSet::new();
    for database in &raw {
        not_empty(&database.name, "a database's name", source)?;
        if !names.insert(database.name.value.clone()) {
            let message = format!("database {:?} has two entries", database.name.value);
            return Err(source.error(&database.name.place, message));
        }
    }
    raw.into_iter().map(|database| one(database, upstream, source)).collect()
}

fn one(raw: raw::Database, upstream: &Upstream, source: &Source<'_>) -> Result<Database, ConfigError> {
    let control = control(&raw, source)?;
    check_tls(&control, &raw, upstream, source)?;
    let roles = roles(raw.roles, source)?;
    let mut known = Known::default();
    let mut tables = Vec::with_capacity(raw.tables.len());
    for table in raw.tables {
        tables.push(Arc::new(known.table(table, source)?));
    }
    Ok(Database {
        name: raw.name.value.into(),
        tables,
        unsealed: match raw.unsealed.map_or(raw::Unsealed::Refuse, |at| at.value) {
            raw::Unsealed::Refuse => Unsealed::Refuse,
            raw::Unsealed::Pass => Unsealed::Pass,
        },
        read: read(raw.read.map_or(raw::Read::Open, |at| at.value)),
        roles,
        on_key_unavailable: match raw.on_key_unavailable.map_or(raw::OnKeyUnavailable::Error, |at| at.value) {
            raw::OnKeyUnavailable::Error => OnKeyUnavailable::Error,
            raw::OnKeyUnavailable::Null => OnKeyUnavailable::Null,
        },
        control,
        mark: std::sync::OnceLock::new(),
    })
}

fn control(raw: &raw::Database, source: &Source<'_>) -> Result<String, ConfigError> {
    match (&raw.control, &raw.control_file) {
        (Some(_), Some(file)) => Err(source.error(&file.place, "give control or control_file, not both")),
        (None, None) => Err(source.error(&raw.name.place, "control is missing: how the proxy reaches its registry")),
        (Some(control), None) if matches!(control.place, Place::File(_)) && holds_password(&control.value) => {
            let message = "no password here: use control_file or the environment";
            Err(source.error(&control.place, message))
        }
        (Some(control), None) => Ok(control.value.clone()),
        (None, Some(file)) => read_control(file, source),
    }
}

/// Holds what the control string says of TLS against `[upstream]`.
fn check_tls(control: &str, raw: &raw::Database, upstream: &Upstream, source: &Source<'_>) -> Result<(), ConfigError> {
    let at = raw.control.as_ref().or(raw.control_file.as_ref()).unwrap_or(&raw.name);
    match Control::read(control, upstream, Path::new("")) {
        Ok(_) => Ok(()),
        Err(error) => Err(source.error(&at.place, format!("the control of database {:?}: {error}", raw.name.value))),
    }
}

fn read_control(file: &At<String>, source: &Source<'_>) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(source.relative(&file.value))
        .map_err(|error| source.error(&file.place, format!("{:?} cannot be read: {error}", file.value)))?;
    Ok(text.trim().to_owned())
}

fn holds_password(control: &str) -> bool {
    let lower = control.to_ascii_lowercase();
    let authority = lower.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next());
    let in_url = authority.and_then(|authority| authority.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':'));
    in_url || lower.replace(' ', "").contains("password=")
}

fn roles(raw: Vec<raw::Role>, source: &Source<'_>) -> Result<Vec<RoleRule>, ConfigError> {
    let mut names = HashSet::new();
    let mut rules = Vec::with_capacity(raw.len());
    for role in raw {
        not_empty(&role.name, "a role's name", source)?;
        if !names.insert(role.name.value.clone()) {
            return Err(source.error(&role.name.place, format!("role {:?} has two entries", role.name.value)));
        }
        rules.push(RoleRule {
            name: role.name.value,
            read: read(role.read.value),
            search: role.search.is_some_and(|at| at.value),
        });
    }
    Ok(rules)
}

fn read(raw: raw::Read) -> Read {
    match raw {
        raw::Read::Open => Read::Open,
        raw::Read::Mask => Read::Mask,
        raw::Read::Sealed => Read::Sealed,
        raw::Read::Deny => Read::Deny,
    }
}

/// What the tables read so far have taken.
#[derive(Default)]
struct Known {
    tables: HashSet<(String, String)>,
    bindings: HashMap<String, String>,
    groups: HashMap<String, Group>,
}

/// What the columns of a join group have in common.
struct Group {
    first: String,
    logical: LogicalType,
    equality: Equality,
}

impl Known {
    fn table(&mut self, raw: raw::Table, source: &Source<'_>) -> Result<Table, ConfigError> {
        let (schema, name) = ident::table(&raw.name.value)
            .map_err(|error| source.error(&raw.name.place, format!("table {:?}: {error}", raw.name.value)))?;
        if SYSTEM_SCHEMAS.contains(&schema.as_str()) {
            return Err(source.error(&raw.name.place, format!("tables of schema {schema:?} cannot be sealed")));
        }
        let qualified = format!("{}.{}", ident::quote(&schema), ident::quote(&name));
        if !self.tables.insert((schema.clone(), name.clone())) {
            return Err(source.error(&raw.name.place, format!("table {qualified} has two entries")));
        }
        if raw.columns.is_empty() {
            return Err(source.error(&raw.name.place, format!("table {qualified} has no columns")));
        }
        let tenant = tenant(&raw.tenant, source)?;
        let columns = self.columns(raw.columns, &qualified, &tenant, source)?;
        Ok(Table { schema, name, tenant, columns })
    }

    fn columns(
        &mut self,
        raw: BTreeMap<At<String>, raw::Column>,
        table: &str,
        tenant: &TenantRule,
        source: &Source<'_>,
    ) -> Result<Vec<Arc<Column>>, ConfigError> {
        let mut raw: Vec<_> = raw.into_iter().collect();
        raw.sort_by_key(|(key, _)| start(&key.place));
        let mut columns: Vec<Arc<Column>> = Vec::with_capacity(raw.len());
        for (key, entry) in raw {
            let name = column_name(&key, source)?;
            if columns.iter().any(|column| column.name == name) {
                return Err(source.error(&key.place, format!("column {:?} has two entries", name)));
            }
            if *tenant == TenantRule::Column(name.clone()) {
                let message = "the column that names the tenant cannot be sealed: the proxy must read it";
                return Err(source.error(&key.place, message));
            }
            let column = column(name, entry, table, source)?;
            self.take(&column, &key.place, source)?;
            columns.push(Arc::new(column));
        }
        Ok(columns)
    }

    /// Holds a column against those of the other tables.
    fn take(&mut self, column: &Column, place: &Place, source: &Source<'_>) -> Result<(), ConfigError> {
        if let Some(other) = self.bindings.insert(column.binding.clone(), column.qualified.to_string()) {
            let message = format!("{} and {other} have the same binding {:?}", column.qualified, column.binding);
            return Err(source.error(place, message));
        }
        let (Some(group), Some(equality)) = (&column.join_group, column.equality) else {
            return Ok(());
        };
        let first = self.groups.entry(group.clone()).or_insert_with(|| Group {
            first: column.qualified.to_string(),
            logical: column.logical,
            equality,
        });
        if !comparable(first.logical, column.logical) {
            let message = format!("{} has another type than {} of join group {group:?}", column.qualified, first.first);
            return Err(source.error(place, message));
        }
        if first.equality != equality {
            let message =
                format!("{} has another equality than {} of join group {group:?}", column.qualified, first.first);
            return Err(source.error(place, message));
        }
        Ok(())
    }
}

/// True when equal values of the two types have equal tokens.
fn comparable(a: LogicalType, b: LogicalType) -> bool {
    let family = |logical: LogicalType| match logical.without_modifier() {
        LogicalType::Varchar(_) => LogicalType::Text,
        other => other,
    };
    family(a) == family(b)
}

fn start(place: &Place) -> usize {
    match place {
        Place::File(range) => range.start,
        Place::Variable(_) => 0,
    }
}

fn tenant(raw: &At<raw::Tenant>, source: &Source<'_>) -> Result<TenantRule, ConfigError> {
    match (&raw.value.column, &raw.value.session, &raw.value.name) {
        (Some(column), None, None) => column_name(column, source).map(TenantRule::Column),
        (None, Some(At { value: true, .. }), None) => Ok(TenantRule::Session),
        (None, Some(at), None) => Err(source.error(&at.place, "session is true or absent")),
        (None, None, Some(name)) => fixed_tenant(name, source),
        _ => Err(source.error(&raw.place, "tenant is one of { column = ... }, { session = true }, { name = ... }")),
    }
}

fn fixed_tenant(name: &At<String>, source: &Source<'_>) -> Result<TenantRule, ConfigError> {
    not_empty(name, "a tenant's name", source)?;
    if name.value == GLOBAL_TENANT {
        return Err(source.error(&name.place, format!("tenant {GLOBAL_TENANT:?} is reserved")));
    }
    Ok(TenantRule::Fixed(name.value.as_str().into()))
}

fn column_name(at: &At<String>, source: &Source<'_>) -> Result<String, ConfigError> {
    let name =
        ident::column(&at.value).map_err(|error| source.error(&at.place, format!("column {:?}: {error}", at.value)))?;
    if SYSTEM_COLUMNS.contains(&name.as_str()) {
        return Err(source.error(&at.place, format!("column {name:?} belongs to the server")));
    }
    Ok(name)
}

fn column(name: String, raw: raw::Column, table: &str, source: &Source<'_>) -> Result<Column, ConfigError> {
    let qualified = format!("{table}.{}", ident::quote(&name));
    let logical = logical_type(&raw, source)?;
    let binding = match raw.binding {
        Some(at) => not_empty(&at, "a binding", source).map(|()| at.value)?,
        None => qualified.clone(),
    };
    let equality = raw.equality.as_ref().map(|at| match at.value {
        raw::Equality::Tenant => Equality::Tenant,
        raw::Equality::Global => Equality::Global,
    });
    if let Some(at) = &raw.join_group {
        not_empty(at, "a join group", source)?;
        if equality.is_none() {
            return Err(source.error(&at.place, "join_group needs equality"));
        }
    }
    Ok(Column {
        qualified: qualified.into(),
        name,
        logical,
        equality,
        join_group: raw.join_group.map(|at| at.value),
        binding,
        padding: raw.padding.map_or(Ok(default_padding(logical)), |at| padding(&at, source))?,
        mask: raw.mask.map_or(Ok(Mask::Null), |at| mask(&at, logical, source))?,
    })
}

fn logical_type(raw: &raw::Column, source: &Source<'_>) -> Result<LogicalType, ConfigError> {
    let logical =
        LogicalType::parse(&raw.logical.value).map_err(|error| source.error(&raw.logical.place, error.to_string()))?;
    if let Some(at) = raw.equality.as_ref().filter(|_| !logical.has_equality()) {
        return Err(source.error(&at.place, "json has no equality, in Postgres neither; jsonb has"));
    }
    Ok(logical)
}

fn default_padding(logical: LogicalType) -> Padding {
    if logical.padded_by_default() { Padding::Padme } else { Padding::None }
}

fn padding(at: &At<toml::Value>, source: &Source<'_>) -> Result<Padding, ConfigError> {
    match &at.value {
        toml::Value::String(word) if word == "none" => Ok(Padding::None),
        toml::Value::String(word) if word == "padme" => Ok(Padding::Padme),
        toml::Value::Integer(n) => u32::try_from(*n)
            .ok()
            .filter(|n| (1..=PADDING_MAX).contains(n))
            .map(Padding::Fixed)
            .ok_or_else(|| source.error(&at.place, format!("a fixed padding is 1 to {PADDING_MAX} bytes"))),
        _ => Err(source.error(&at.place, "padding is \"none\", \"padme\" or a number of bytes")),
    }
}

fn mask(at: &At<raw::Mask>, logical: LogicalType, source: &Source<'_>) -> Result<Mask, ConfigError> {
    let raw::Mask { keep_last, keep_first, fixed, hash } = &at.value;
    let mask = match (keep_last, keep_first, fixed, hash) {
        (Some(n), None, None, None) => Mask::KeepLast(n.value),
        (None, Some(n), None, None) => Mask::KeepFirst(n.value),
        (None, None, Some(text), None) => Mask::Fixed(text.value.clone()),
        (None, None, None, Some(At { value: true, .. })) => Mask::Hash,
        (None, None, None, Some(at)) => return Err(source.error(&at.place, "hash is true or absent")),
        _ => {
            let message = "mask is one of { keep_last = n }, { keep_first = n }, { fixed = ... }, { hash = true }";
            return Err(source.error(&at.place, message));
        }
    };
    match (&mask, logical) {
        (Mask::Hash, LogicalType::Varchar(Some(n)) | LogicalType::Bpchar(Some(n))) if n < HASH_CHARS => {
            Err(source.error(&at.place, format!("a hash has {HASH_CHARS} characters, more than {logical}")))
        }
        (Mask::Fixed(text), LogicalType::Varchar(Some(n)) | LogicalType::Bpchar(Some(n)))
            if text.chars().count() > n as usize =>
        {
            Err(source.error(&at.place, format!("the fixed text is longer than {logical}")))
        }
        (_, LogicalType::Text | LogicalType::Varchar(_) | LogicalType::Bpchar(_) | LogicalType::Citext) => Ok(mask),
        _ => Err(source.error(&at.place, "a mask gives text: other types are masked as NULL (leave mask out)")),
    }
}

fn not_empty(at: &At<String>, what: &str, source: &Source<'_>) -> Result<(), ConfigError> {
    match at.value.len() {
        0 => Err(source.error(&at.place, format!("{what} is empty"))),
        n if n > NAME_BYTES_MAX => {
            Err(source.error(&at.place, format!("{what} is longer than {NAME_BYTES_MAX} bytes")))
        }
        _ if at.value.contains('\0') => Err(source.error(&at.place, format!("{what} holds a zero byte"))),
        _ => Ok(()),
    }
}
