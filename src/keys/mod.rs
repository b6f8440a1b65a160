//! Key hierarchy, pools and caches, the KMS providers, the registry.
//!
//! A session says what it [`Need`]s and is [`Granted`] it: at once when everything is pooled or cached
//! (`Keys::try_grant`), else after waiting (`Keys::grant`).
mod at_hand;
mod background;
mod cache;
pub mod context;
mod facade;
mod fetch;
mod flight;
mod inner;
pub mod kms;
mod lease;
mod master;
mod pins;
pub mod registry;
mod settings;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod trust;

use std::collections::HashMap;
use std::sync::Arc;

use crate::crypto::{Dek, DekId, IndexRoot, OwnedSlot};

pub use facade::{AtHand, Keys};
pub use pins::Pin;
pub use settings::KeysSettings;

/// A tenant's name: the text form of the tenant column's (or setting's) value.
pub type Tenant = Arc<str>;

/// What a statement or a batch of rows needs before it can go on.
#[derive(Debug, Default, Clone)]
pub struct Need {
    /// Fresh data keys: how many for which tenant. A tenant appears once.
    pub fresh: Vec<(Tenant, usize)>,
    /// Slots of cells to be opened, each dek_id once.
    pub open: Vec<OwnedSlot>,
    /// Tenants whose index root is needed, each once.
    pub index: Vec<Tenant>,
    /// Tenants whose index root is only searched with, each once. One that is not registered has none: there is nothing to
    /// be found.
    pub seek: Vec<Tenant>,
}

/// A fresh data key with the slot to be stored beside the data.
pub struct FreshDek {
    /// The key; used for one row and dropped.
    pub dek: Dek,
    /// What is stored.
    pub slot: OwnedSlot,
}

/// A data key from a stored slot, with the tenant that the registry and the KMS say it belongs to.
pub struct OpenedDek {
    /// The key.
    pub dek: Dek,
    /// Whose it is.
    pub tenant: Tenant,
    /// The master key that it hangs on is being rotated away: nothing new is to hang on it.
    pub is_leaving: bool,
}

/// What was granted.
#[derive(Default)]
pub struct Granted {
    /// As many as needed for each tenant.
    pub fresh: HashMap<Tenant, Vec<FreshDek>>,
    /// By dek_id; an error stands for this key alone.
    pub open: HashMap<DekId, Result<Arc<OpenedDek>, KeyError>>,
    /// By tenant.
    pub index: HashMap<Tenant, Arc<IndexRoot>>,
    /// KMS request ids of the calls made for this grant.
    pub kms_requests: Vec<String>,
}

/// Why a key cannot be had. Holds ids only.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// No such tenant is registered.
    #[error("tenant \"{0}\" is not registered")]
    UnknownTenant(Tenant),
    /// The tenant is revoked, or its key is disabled, pending deletion or destroyed.
    #[error("the key of tenant \"{0}\" is not available")]
    Unavailable(Tenant),
    /// The slot hangs on a version that was rotated away and deactivated.
    #[error("a stored value of tenant \"{0}\" needs an older version of its key, which is deactivated")]
    Deactivated(Tenant),
    /// The slot hangs on a version that was purged.
    #[error("a stored value of tenant \"{0}\" needs an older version of its key, which was purged")]
    Purged(Tenant),
    /// The slot names a key that the registry does not know.
    #[error("a stored value names a key that is not registered")]
    UnknownKey,
    /// The slot does not unwrap: damaged or foreign.
    #[error("a stored data key cannot be unwrapped")]
    Damaged,
    /// The KMS or the registry cannot be reached now; worth a retry.
    #[error("the key service cannot be reached")]
    Unreachable,
    /// What was asked of the KMS could not be recorded; worth a retry when the audit log can be written again.
    #[error("the key use could not be recorded")]
    Unrecorded,
}
