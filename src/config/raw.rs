//! The file as written: every key that exists, nothing checked but its TOML type.
use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::error::Place;
use super::{UpstreamTls, Wrapping};
use crate::audit::Durability;

/// A value and where it stands.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Spanned<T>", bound = "T: Deserialize<'de>")]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<T> From<Spanned<T>> for At<T> {
    fn from(spanned: Spanned<T>) -> Self {
        let place = Place::File(spanned.span());
        At { value: spanned.into_inner(), place }
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T: Ord> PartialOrd for At<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> Ord for At<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.value.cmp(&other.value)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) listen: Listen,
    #[serde(default)]
    pub(super) upstream: Upstream,
    pub(super) admin: Option<Admin>,
    #[serde(default)]
    pub(super) keys: Keys,
    #[serde(default)]
    pub(super) audit: Audit,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default, rename = "database")]
    pub(super) databases: Vec<Database>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) address: Option<At<String>>,
    pub(super) tls: Option<Tls>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: At<String>,
    pub(super) key: At<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Upstream {
    pub(super) address: Option<At<String>>,
    pub(super) tls: Option<At<UpstreamTls>>,
    pub(super) root_certificate: Option<At<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) address: Option<At<String>>,
    pub(super) console: Option<At<Vec<String>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ProviderName {
    Local,
    Aws,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Keys {
    pub(super) provider: Option<At<ProviderName>>,
    pub(super) keyring: Option<At<String>>,
    pub(super) wrapping: Option<At<Wrapping>>,
    pub(super) auto_register: Option<At<bool>>,
    pub(super) confirm_interval: Option<At<String>>,
    pub(super) lease: Option<At<String>>,
    pub(super) cache_bytes_max: Option<At<u64>>,
    pub(super) pool_size: Option<At<u64>>,
    pub(super) kms_concurrency: Option<At<u64>>,
    pub(super) aws: Aws,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Aws {
    pub(super) region: Option<At<String>>,
    pub(super) endpoint: Option<At<String>>,
    pub(super) profile: Option<At<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Audit {
    pub(super) directory: Option<At<String>>,
    pub(super) durability: Option<At<Durability>>,
    pub(super) key: Option<At<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) connections_max: Option<At<u64>>,
    pub(super) message_bytes_max: Option<At<u64>>,
    pub(super) plan_bytes_max: Option<At<u64>>,
    pub(super) login_timeout: Option<At<String>>,
    pub(super) drain_timeout: Option<At<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    pub(super) name: At<String>,
    pub(super) unsealed: Option<At<Unsealed>>,
    pub(super) read: Option<At<Read>>,
    pub(super) on_key_unavailable: Option<At<OnKeyUnavailable>>,
    pub(super) control: Option<At<String>>,
    pub(super) control_file: Option<At<String>>,
    #[serde(default, rename = "table")]
    pub(super) tables: Vec<Table>,
    #[serde(default, rename = "role")]
    pub(super) roles: Vec<Role>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unsealed {
    Refuse,
    Pass,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Read {
    Open,
    Mask,
    Sealed,
    Deny,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnKeyUnavailable {
    Error,
    Null,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) name: At<String>,
    pub(super) tenant: At<Tenant>,
    #[serde(default)]
    pub(super) columns: BTreeMap<At<String>, Column>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tenant {
    pub(super) column: Option<At<String>>,
    pub(super) session: Option<At<bool>>,
    pub(super) name: Option<At<String>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Equality {
    Tenant,
    Global,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Column {
    #[serde(rename = "type")]
    pub(super) logical: At<String>,
    pub(super) equality: Option<At<Equality>>,
    pub(super) join_group: Option<At<String>>,
    pub(super) binding: Option<At<String>>,
    pub(super) padding: Option<At<toml::Value>>,
    pub(super) mask: Option<At<Mask>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Mask {
    pub(super) keep_last: Option<At<u32>>,
    pub(super) keep_first: Option<At<u32>>,
    pub(super) fixed: Option<At<String>>,
    pub(super) hash: Option<At<bool>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Role {
    pub(super) name: At<String>,
    pub(super) read: At<Read>,
    pub(super) search: Option<At<bool>>,
}
