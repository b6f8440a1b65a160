//! Which columns are sealed, whose rows they are, who may read.
//!
//! Plain values made by `config` and never changed; no I/O. [`mask`] is what a masked value looks like.
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use crate::types::LogicalType;

pub mod mask;
#[cfg(test)]
mod tests;

/// The reserved tenant whose index root serves `equality = "global"`.
pub const GLOBAL_TENANT: &str = "_rowseal";

/// What the name of a column that is being sealed or unsealed in place ends with.
pub const SHADOW: &str = "_rowseal";

/// The length of the first part of a policy's mark.
const PLANS_CHARS: usize = 16;

/// The policy of one database.
///
/// # Secrets
/// `control` may hold a password; Debug leaves it out.
#[derive(Clone)]
pub struct Database {
    /// The database's name.
    pub name: Arc<str>,
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
    /// Filled at first use of [`Database::mark`].
    pub mark: OnceLock<String>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.name)
            .field("tables", &self.tables)
            .field("unsealed", &self.unsealed)
            .field("read", &self.read)
            .field("roles", &self.roles)
            .field("on_key_unavailable", &self.on_key_unavailable)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// The entry of a table, by its unquoted schema and name.
    pub fn table(&self, schema: &str, name: &str) -> Option<&Arc<Table>> {
        self.tables.iter().find(|table| table.schema == schema && table.name == name)
    }

    /// What a role may do: its own entry if there is one, else the most permissive of the entries of the roles it is
    /// a member of, else what the database gives to all.
    ///
    /// `member_of` are the names of all roles that `role` is a member of, directly or not.
    pub fn access<S: AsRef<str>>(&self, role: &str, member_of: &[S]) -> Access {
        if let Some(rule) = self.roles.iter().find(|rule| rule.name == role) {
            return Access::of(rule);
        }
        let is_member = |rule: &&RoleRule| member_of.iter().any(|name| name.as_ref() == rule.name);
        let inherited = self.roles.iter().filter(is_member).map(Access::of).reduce(Access::or);
        inherited.unwrap_or(Access { read: self.read, search: self.read == Read::Open })
    }

    /// Tells this policy from another one: whatever differs but for `control` gives another mark. It begins with that of
    /// what statements are planned by.
    pub fn mark(&self) -> &str {
        fn hash(text: &str) -> u64 {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish()
        }
        self.mark.get_or_init(|| {
            let plans = format!("{:?}{:?}", self.unsealed, self.tables);
            format!("{:0PLANS_CHARS$x}{:016x}", hash(&plans), hash(&format!("{self:?}")))
        })
    }

    /// True when statements mean the same under the other policy, whoever may read.
    pub fn plans_like(&self, other: &Database) -> bool {
        self.mark().get(..PLANS_CHARS) == other.mark().get(..PLANS_CHARS)
    }

    /// True when this policy looks after something that passed untouched under the other one.
    pub fn covers_more(&self, other: &Database) -> bool {
        let known = |table: &Table, column: &Column| {
            other.table(&table.schema, &table.name).is_some_and(|table| table.column(&column.name).is_some())
        };
        let is_new = |table: &Arc<Table>| table.columns.iter().any(|column| !known(table, column));
        (self.unsealed, other.unsealed) == (Unsealed::Refuse, Unsealed::Pass) || self.tables.iter().any(is_new)
    }

    /// True when a column has `equality = "global"`, so that the reserved tenant is needed.
    pub fn is_global(&self) -> bool {
        let mut columns = self.tables.iter().flat_map(|table| &table.columns);
        columns.any(|column| column.equality == Some(Equality::Global))
    }
}

/// What a role may do with sealed columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// What it sees.
    pub read: Read,
    /// Whether it may search.
    pub search: bool,
}

impl Access {
    fn of(rule: &RoleRule) -> Self {
        Access { read: rule.read, search: rule.search || rule.read == Read::Open }
    }

    fn or(self, other: Self) -> Self {
        Access { read: self.read.max(other.read), search: self.search || other.search }
    }
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

impl Table {
    /// The entry of a column, by its unquoted name.
    pub fn column(&self, name: &str) -> Option<&Arc<Column>> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The entry of the column that is being sealed in place into the column of this name, which holds its cells until
    /// it takes the other's place.
    pub fn shadowed(&self, name: &str) -> Option<&Arc<Column>> {
        name.strip_suffix(SHADOW).and_then(|name| self.column(name))
    }
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
    pub qualified: Arc<str>,
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

impl From<Padding> for crate::crypto::Padding {
    fn from(padding: Padding) -> Self {
        match padding {
            Padding::None => crate::crypto::Padding::None,
            Padding::Padme => crate::crypto::Padding::Padme,
            Padding::Fixed(n) => crate::crypto::Padding::Fixed(n),
        }
    }
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
    /// A keyed hash: equal values of one tenant look equal.
    Hash,
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
