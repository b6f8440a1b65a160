//! Which columns are sealed, whose rows they are, who may read.
use std::sync::Arc;

use crate::types::LogicalType;

/// The reserved tenant whose index root serves `equality = "global"`.
pub const GLOBAL_TENANT: &str = "_rowseal";

/// The policy of one database.
#[derive(Debug, Clone)]
pub struct Database {
    /// The database's name.
    pub name: String,
    /// The sealed tables.
    pub tables: Vec<Arc<Table>>,
    /// What to do with a policy column that is still plaintext.
    pub unsealed: Unsealed,
    /// For roles that are not listed.
    pub read: Read,
    /// The listed roles.
    pub roles: Vec<RoleRule>,
    /// What a row of a tenant whose key is unavailable gives on a read.
    pub on_key_unavailable: OnKeyUnavailable,
    /// How the proxy reaches its registry (a libpq connection string or URL).
    pub control: String,
}

/// One sealed table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its schema, unquoted and folded as Postgres does.
    pub schema: String,
    /// Its name, unquoted and folded as Postgres does.
    pub name: String,
    /// How the tenant of a row is found.
    pub tenant: TenantRule,
    /// Its sealed columns.
    pub columns: Vec<Arc<Column>>,
}

/// How the tenant of a row is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantRule {
    /// In a column of the row.
    Column(String),
    /// In the session's `rowseal.tenant`.
    Session,
    /// Always this one.
    Fixed(Arc<str>),
}

/// One sealed column.
#[derive(Debug, Clone)]
pub struct Column {
    /// `schema.table.column`, for messages and audit.
    pub qualified: String,
    /// Its name in the table.
    pub name: String,
    /// The type the client sees.
    pub logical: LogicalType,
    /// How it may be searched; `None`: not at all.
    pub equality: Option<Equality>,
    /// Columns with the same group have one token key.
    pub join_group: Option<String>,
    /// The column id that its cells are bound to.
    pub binding: String,
    /// How its plaintexts are padded.
    pub padding: Padding,
    /// How a `mask` role sees it.
    pub mask: Mask,
}

impl Column {
    /// What the token key is derived from: the join group, or the binding.
    pub fn token_scope(&self) -> &str {
        self.join_group.as_deref().unwrap_or(&self.binding)
    }
}

/// The scope of equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equality {
    /// Within one tenant.
    Tenant,
    /// Across tenants, by the reserved tenant's index root.
    Global,
}

/// How plaintexts are padded before sealing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Not at all.
    None,
    /// To Padmé lengths.
    Padme,
    /// To a multiple-free fixed length in bytes; longer values are not padded.
    Fixed(u32),
}

/// How a masked value looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// NULL.
    Null,
    /// All but the last n characters replaced by `*`.
    KeepLast(u32),
    /// All but the first n characters replaced by `*`.
    KeepFirst(u32),
    /// This text.
    Fixed(String),
}

/// What to do with a policy column that is plaintext in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsealed {
    /// Refuse statements on it.
    Refuse,
    /// Let it pass.
    Pass,
}

/// What a read gives when the key is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnKeyUnavailable {
    /// An error.
    Error,
    /// NULL.
    Null,
}

/// What a role sees of sealed columns; ordered from least to most permissive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Read {
    /// Nothing: refused.
    Deny,
    /// The cells as they are.
    Sealed,
    /// Masked values.
    Mask,
    /// Values.
    Open,
}

/// What one role may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRule {
    /// A Postgres role.
    pub name: String,
    /// What it sees.
    pub read: Read,
    /// Whether it may search sealed columns though it may not open them.
    pub search: bool,
}
