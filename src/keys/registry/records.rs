//! The records of the registry, and all of them at one moment.
use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::Row;

use super::RegistryError;
use crate::crypto::KeyId;
use crate::hash::HashMap;
use crate::keys::Tenant;
use crate::keys::kms::KeyArn;

/// One statement, so one snapshot of the database: kind, tenant, text, state, three byte strings, milliseconds.
pub(super) const LOAD: &str = "
    SELECT 'epoch', NULL::pg_catalog.text, NULL::pg_catalog.text, value::pg_catalog.text,
        NULL::pg_catalog.bytea, NULL::pg_catalog.bytea, NULL::pg_catalog.bytea, NULL::pg_catalog.int8 FROM rowseal.epoch
    UNION ALL SELECT 'tenant', name, wrapping, state, NULL, NULL, NULL, NULL FROM rowseal.tenant
    UNION ALL SELECT 'master', tenant, arn, state, key_id, canary, NULL,
        (1000 * extract(epoch FROM restore_until))::pg_catalog.int8 FROM rowseal.master_key
    UNION ALL SELECT purpose, tenant, NULL, state, key_id, master_key, wrapped, NULL FROM rowseal.branch_key";

/// How the data keys of a tenant are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrapping {
    /// Each by the KMS.
    Direct,
    /// Each by a branch key, which the KMS wraps.
    Hierarchical,
}

impl Wrapping {
    /// As it is stored and configured.
    pub fn as_str(self) -> &'static str {
        match self {
            Wrapping::Direct => "direct",
            Wrapping::Hierarchical => "hierarchical",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, RegistryError> {
        match text {
            "direct" => Ok(Wrapping::Direct),
            "hierarchical" => Ok(Wrapping::Hierarchical),
            _ => Err(RegistryError::Record("tenant")),
        }
    }
}

/// What a master key version is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MasterState {
    /// Wraps new keys.
    Active,
    /// Being rotated away: opens only.
    Retiring,
    /// Disabled in the KMS and kept.
    Deactivated,
    /// Scheduled for deletion in the KMS.
    Purged,
}

/// Whether a tenant's keys may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// They may.
    Active,
    /// By nobody, until they are reactivated.
    Revoked,
    /// Never again.
    Shredded,
}

impl Standing {
    /// As it is stored; `None` for one of a tenant whose registration has not been completed.
    pub fn parse(text: &str) -> Result<Option<Self>, RegistryError> {
        match text {
            "registering" => Ok(None),
            "active" => Ok(Some(Standing::Active)),
            "revoked" => Ok(Some(Standing::Revoked)),
            "shredded" => Ok(Some(Standing::Shredded)),
            _ => Err(RegistryError::Record("tenant")),
        }
    }

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Revoked => "revoked",
            Standing::Shredded => "shredded",
        }
    }
}

/// A tenant that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// Its name.
    pub name: Tenant,
    /// How its new data keys are wrapped.
    pub wrapping: Wrapping,
    /// The master key for new data keys.
    pub master: KeyId,
    /// The branch key for new data keys, in hierarchical mode.
    pub branch: Option<KeyId>,
    /// The index root.
    pub index: Option<KeyId>,
}

/// One version of a master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterRecord {
    /// Its id in slots.
    pub id: KeyId,
    /// Whose it is; believed only after its tags in the KMS said the same.
    pub tenant: Tenant,
    /// Its name in the KMS.
    pub arn: KeyArn,
    /// What it is used for.
    pub state: MasterState,
    /// That of its tenant.
    pub standing: Standing,
    /// Until when a deactivated version serves a restored backup: milliseconds since 1970 by the database's clock.
    pub until: Option<i64>,
    /// A blob under it whose only use is to be decrypted.
    pub canary: Bytes,
}

/// What a branch key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Wraps data keys.
    Wrap,
    /// Is an index root.
    Index,
}

/// A key that a master key wraps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchRecord {
    /// Its id, in slots too.
    pub id: KeyId,
    /// Whose it is.
    pub tenant: Tenant,
    /// What it is for.
    pub purpose: Purpose,
    /// The master key that wraps it.
    pub master: KeyId,
    /// The KMS's blob.
    pub wrapped: Bytes,
    /// Whether it is the one for new data.
    pub active: bool,
}

/// All records at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Moves with every change.
    pub epoch: i64,
    /// Tenants that can be used, by name.
    pub tenants: HashMap<Tenant, Arc<TenantRecord>>,
    /// Tenants whose keys nobody may use: revoked and shredded ones.
    pub barred: HashMap<Tenant, Standing>,
    /// Names whose registration has not been completed.
    pub registering: Vec<Tenant>,
    /// Master keys by id.
    pub masters: HashMap<KeyId, Arc<MasterRecord>>,
    /// Branch keys and index roots by id.
    pub branches: HashMap<KeyId, Arc<BranchRecord>>,
}

impl Snapshot {
    pub(super) fn from_rows(rows: &[Row]) -> Result<Self, RegistryError> {
        let mut snapshot = Snapshot::default();
        let (mut tenants, mut masters) = (Vec::new(), Vec::new());
        for row in rows {
            match row.get::<_, &str>(0) {
                "epoch" => snapshot.epoch = epoch(row)?,
                "tenant" => {
                    let name = Tenant::from(row.get::<_, &str>(1));
                    match Standing::parse(row.get(3))? {
                        None => snapshot.registering.push(name),
                        Some(Standing::Active) => tenants.push((name, Wrapping::parse(row.get(2))?)),
                        Some(standing) => drop(snapshot.barred.insert(name, standing)),
                    }
                }
                "master" => masters.push(master(row)?),
                purpose => {
                    let branch = branch(purpose, row)?;
                    snapshot.branches.insert(branch.id, Arc::new(branch));
                }
            }
        }
        for mut master in masters {
            master.standing = snapshot.barred.get(&master.tenant).copied().unwrap_or(Standing::Active);
            snapshot.masters.insert(master.id, Arc::new(master));
        }
        snapshot.connect(tenants);
        Ok(snapshot)
    }

    /// Gives each tenant its active keys. A tenant without an active master key cannot be used.
    fn connect(&mut self, tenants: Vec<(Tenant, Wrapping)>) {
        let active = |purpose: Purpose| -> HashMap<Tenant, KeyId> {
            let of_purpose = self.branches.values().filter(|branch| branch.active && branch.purpose == purpose);
            of_purpose.map(|branch| (branch.tenant.clone(), branch.id)).collect()
        };
        let (wrap, index) = (active(Purpose::Wrap), active(Purpose::Index));
        let masters = self.masters.values().filter(|master| master.state == MasterState::Active);
        let masters: HashMap<Tenant, KeyId> = masters.map(|master| (master.tenant.clone(), master.id)).collect();
        for (name, wrapping) in tenants {
            let Some(&master) = masters.get(&name) else { continue };
            let (branch, index) = (wrap.get(&name).copied(), index.get(&name).copied());
            let record = TenantRecord { name: name.clone(), wrapping, master, branch, index };
            self.tenants.insert(name, Arc::new(record));
        }
    }
}

fn epoch(row: &Row) -> Result<i64, RegistryError> {
    row.get::<_, &str>(3).parse().map_err(|_| RegistryError::Record("epoch"))
}

/// The standing of its tenant is still to be looked up.
fn master(row: &Row) -> Result<MasterRecord, RegistryError> {
    let state = match row.get::<_, &str>(3) {
        "active" => MasterState::Active,
        "retiring" => MasterState::Retiring,
        "deactivated" => MasterState::Deactivated,
        "purged" => MasterState::Purged,
        _ => return Err(RegistryError::Record("master_key")),
    };
    Ok(MasterRecord {
        id: key_id(row.get(4))?,
        tenant: row.get::<_, &str>(1).into(),
        arn: KeyArn::new(row.get::<_, &str>(2)),
        state,
        standing: Standing::Active,
        until: row.get(7),
        canary: Bytes::copy_from_slice(row.get(5)),
    })
}

fn branch(purpose: &str, row: &Row) -> Result<BranchRecord, RegistryError> {
    let purpose = match purpose {
        "wrap" => Purpose::Wrap,
        "index" => Purpose::Index,
        _ => return Err(RegistryError::Record("branch_key")),
    };
    Ok(BranchRecord {
        id: key_id(row.get(4))?,
        tenant: row.get::<_, &str>(1).into(),
        purpose,
        master: key_id(row.get(5))?,
        wrapped: Bytes::copy_from_slice(row.get(6)),
        active: row.get::<_, &str>(3) == "active",
    })
}

fn key_id(bytes: &[u8]) -> Result<KeyId, RegistryError> {
    bytes.try_into().map(KeyId).map_err(|_| RegistryError::Record("key"))
}
