//! The latest checkpoint of every audit log, kept where the proxy that signed it cannot take it back.
use tokio_postgres::types::ToSql;

use super::{Registry, RegistryError};
use crate::audit::{Published, VerifierKey};

/// What is kept of a log.
#[derive(Debug, Clone)]
pub struct KeptCheckpoint {
    /// Its name.
    pub origin: String,
    /// Its public key, if it was kept too.
    pub verifier: Option<String>,
    /// The signed note.
    pub note: String,
}

/// The one that was looked at is replaced, and no other.
const KEEP: &str = "
    INSERT INTO rowseal.audit_checkpoint AS kept (log_id, origin, verifier, tree_size, root_hash, note, proxy)
    VALUES ($1, $2, $3, $4, $5, $6, $7::pg_catalog.text::pg_catalog.uuid)
    ON CONFLICT (log_id) DO UPDATE SET tree_size = excluded.tree_size, root_hash = excluded.root_hash,
        note = excluded.note, proxy = excluded.proxy, written_at = pg_catalog.now()
    WHERE kept.tree_size < excluded.tree_size AND kept.verifier = excluded.verifier AND kept.note = $8";

impl Registry {
    /// Keeps a checkpoint, if the log goes through the one that is kept, which `goes_through` says of a note. False where it
    /// does not: the log was put back to an older state, or there are two of them. What was signed of a log stays then, to be
    /// seen by `audit verify`.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn keep_checkpoint(
        &self,
        published: &Published,
        verifier: &VerifierKey,
        goes_through: impl Fn(&str) -> bool,
    ) -> Result<bool, RegistryError> {
        let checkpoint = &published.checkpoint;
        let log = checkpoint.origin.rsplit('/').next().unwrap_or(&checkpoint.origin);
        let client = self.client().await?;
        let read = "SELECT note FROM rowseal.audit_checkpoint WHERE log_id = $1";
        let kept: Option<String> = self.timed(client.query_opt(read, &[&log])).await?.map(|row| row.get(0));
        match &kept {
            Some(kept) if *kept == published.note => return Ok(true),
            Some(kept) if !goes_through(kept) => return Ok(false),
            _ => {}
        }
        let size = i64::try_from(checkpoint.size).unwrap_or(i64::MAX);
        let (verifier, root) = (verifier.to_string(), &checkpoint.root.0[..]);
        let row: [&(dyn ToSql + Sync); 8] =
            [&log, &checkpoint.origin, &verifier, &size, &root, &published.note, &self.proxy, &kept];
        Ok(self.timed(client.execute(KEEP, &row)).await? > 0)
    }

    /// What is kept of all logs.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn checkpoints(&self) -> Result<Vec<KeptCheckpoint>, RegistryError> {
        let client = self.client().await?;
        let read = "SELECT origin, verifier, note FROM rowseal.audit_checkpoint ORDER BY log_id";
        let rows = self.timed(client.query(read, &[])).await?;
        let kept = |row: &tokio_postgres::Row| KeptCheckpoint {
            origin: row.get(0),
            verifier: Some(row.get(1)),
            note: row.get(2),
        };
        Ok(rows.iter().map(kept).collect())
    }
}
