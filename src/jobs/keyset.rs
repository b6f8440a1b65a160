//! All versions of a tenant's keys, as the registry has them now; also those that no proxy uses any more.
use bytes::Bytes;
use tokio_postgres::{Client, Row};

use super::JobError;
use crate::crypto::KeyId;
use crate::keys::kms::KeyArn;
use crate::keys::registry::Wrapping;

/// One version of a master key.
#[derive(Debug, Clone)]
pub struct MasterKey {
    /// Its id in slots.
    pub id: KeyId,
    /// Counted from 1.
    pub version: i32,
    /// Its name in the key service.
    pub arn: KeyArn,
    /// `active`, `retiring`, `deactivated` or `purged`.
    pub state: String,
    /// When it was made, by the server's clock.
    pub created_at: String,
    /// Until when it is lent to a restored backup.
    pub restore_until: Option<String>,
    /// When the key service deletes it.
    pub deletion_at: Option<String>,
}

/// A key that a master key wraps.
#[derive(Debug, Clone)]
pub struct WrappedKey {
    /// Its id.
    pub id: KeyId,
    /// True for an index root, false for a branch key.
    pub is_index: bool,
    /// What wraps it.
    pub master: KeyId,
    /// The key service's blob.
    pub wrapped: Bytes,
    /// Whether it is the one for new data.
    pub is_active: bool,
}

/// The keys of one tenant.
#[derive(Debug, Clone)]
pub struct KeySet {
    /// How its data keys are wrapped.
    pub wrapping: Wrapping,
    /// `active`, `revoked` ...
    pub state: String,
    /// Its master keys, oldest first.
    pub masters: Vec<MasterKey>,
    /// What they wrap.
    pub wrapped: Vec<WrappedKey>,
}

const TENANT: &str = "SELECT wrapping, state FROM rowseal.tenant WHERE name = $1";
const MASTERS: &str = "SELECT key_id, version, arn, state,
    to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    to_char(restore_until AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    to_char(deletion_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
    FROM rowseal.master_key WHERE tenant = $1 ORDER BY version";
const WRAPPED: &str = "SELECT key_id, purpose = 'index', master_key, wrapped, state = 'active'
    FROM rowseal.branch_key WHERE tenant = $1 ORDER BY created_at, key_id";

impl KeySet {
    /// Reads them; `None` for a tenant that is not there.
    ///
    /// # Errors
    /// A server that does not answer, or a record that this release does not understand.
    pub async fn read(client: &Client, tenant: &str) -> Result<Option<KeySet>, JobError> {
        let failed = || JobError::server("read the registry");
        let Some(found) = client.query_opt(TENANT, &[&tenant]).await.map_err(failed())? else { return Ok(None) };
        let wrapping = match found.get::<_, &str>(0) {
            "direct" => Wrapping::Direct,
            "hierarchical" => Wrapping::Hierarchical,
            _ => return Err(JobError::Internal("a wrapping mode that this release does not know")),
        };
        let masters = client.query(MASTERS, &[&tenant]).await.map_err(failed())?;
        let wrapped = client.query(WRAPPED, &[&tenant]).await.map_err(failed())?;
        Ok(Some(KeySet {
            wrapping,
            state: found.get(1),
            masters: masters.iter().map(master).collect::<Result<_, _>>()?,
            wrapped: wrapped.iter().map(wrapped_key).collect::<Result<_, _>>()?,
        }))
    }

    /// The master key with this id.
    pub fn master(&self, id: KeyId) -> Option<&MasterKey> {
        self.masters.iter().find(|master| master.id == id)
    }

    /// The master key for new data.
    pub fn active(&self) -> Option<&MasterKey> {
        self.masters.iter().find(|master| master.state == "active")
    }

    /// The branch key for new data.
    pub fn active_branch(&self) -> Option<&WrappedKey> {
        self.branches().find(|key| key.is_active)
    }

    /// All branch keys.
    pub fn branches(&self) -> impl Iterator<Item = &WrappedKey> {
        self.wrapped.iter().filter(|key| !key.is_index)
    }

    /// What may stand as key id in a cell that hangs on this master key: itself, and the branch keys under it.
    pub fn ids_under(&self, master: KeyId) -> Vec<KeyId> {
        let branches = self.branches().filter(|key| key.master == master).map(|key| key.id);
        std::iter::once(master).chain(branches).collect()
    }
}

fn master(row: &Row) -> Result<MasterKey, JobError> {
    Ok(MasterKey {
        id: key_id(row.get(0))?,
        version: row.get(1),
        arn: KeyArn::new(row.get::<_, &str>(2)),
        state: row.get(3),
        created_at: row.get(4),
        restore_until: row.get(5),
        deletion_at: row.get(6),
    })
}

fn wrapped_key(row: &Row) -> Result<WrappedKey, JobError> {
    Ok(WrappedKey {
        id: key_id(row.get(0))?,
        is_index: row.get(1),
        master: key_id(row.get(2))?,
        wrapped: Bytes::copy_from_slice(row.get(3)),
        is_active: row.get(4),
    })
}

/// An id as it is stored.
pub(super) fn key_id(bytes: &[u8]) -> Result<KeyId, JobError> {
    bytes.try_into().map(KeyId).map_err(|_| JobError::Internal("a key id that is not 16 bytes long"))
}
