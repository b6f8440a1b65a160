//! Schema `rowseal` in the protected database: installed and brought up to date.
//!
//! Owns the SQL that the server itself runs (storage domains, `is_cell`, `eq`, `with_tenant`, `refuse`) and the
//! tables of the registry. A version is a list of statements that ran once, in order, each in the transaction that
//! records it; a version that was released is never edited. Start reading at `schema.sql`.
use tokio_postgres::Client;

/// The steps in order; step n brings the schema to version n + 1.
const STEPS: &[&str] =
    &[include_str!("schema.sql"), include_str!("types.sql"), include_str!("lifecycle.sql"), include_str!("audit.sql")];

/// The version of the schema that this release makes and needs.
pub const LATEST: u32 = STEPS.len() as u32;

/// One installer at a time in one database.
const LOCK: i64 = 0x526f_7753_6561_6c01;

/// What [`install`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    /// The version found; 0 when there was none.
    pub from: u32,
    /// The version now.
    pub to: u32,
}

impl Installed {
    /// True when nothing had to be done.
    pub fn unchanged(self) -> bool {
        self.from == self.to
    }
}

/// Why the schema could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The database was set up by a later release.
    #[error("schema rowseal has version {found}, this release knows up to {known}")]
    Newer {
        /// The version in the database.
        found: u32,
        /// The latest version this release knows.
        known: u32,
    },
    /// The server refused a statement, or the connection failed.
    #[error("schema rowseal could not be installed")]
    Server(#[from] tokio_postgres::Error),
}

/// Installs schema `rowseal` or brings it to the latest version; does nothing when it is there.
///
/// The role needs CREATE on the database and then owns the schema; no superuser.
///
/// # Errors
/// [`SetupError::Newer`] leaves the database as it was; so does an error of the server, which is rolled back.
///
/// # Cancel safety
/// Dropped half-way, the transaction stays open on `client`: drop the client as well.
pub async fn install(client: &Client) -> Result<Installed, SetupError> {
    client.batch_execute("BEGIN; SET LOCAL search_path = pg_catalog; SET LOCAL client_min_messages = warning").await?;
    match upgrade(client).await {
        Ok(installed) => {
            client.batch_execute("COMMIT").await?;
            Ok(installed)
        }
        Err(error) => {
            // The first error is the one to tell.
            let _ = client.batch_execute("ROLLBACK").await;
            Err(error)
        }
    }
}

async fn upgrade(client: &Client) -> Result<Installed, SetupError> {
    client.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let from = version(client).await?;
    if from > LATEST {
        return Err(SetupError::Newer { found: from, known: LATEST });
    }
    if from == 0 {
        create_version_table(client).await?;
    }
    for (step, sql) in STEPS.iter().enumerate().skip(from as usize) {
        client.batch_execute(sql).await?;
        let version = step as i32 + 1;
        client.execute("INSERT INTO rowseal.schema_version (version) VALUES ($1)", &[&version]).await?;
    }
    Ok(Installed { from, to: LATEST })
}

/// A schema that the database's owner made beforehand for the control role is used as it is.
async fn create_version_table(client: &Client) -> Result<(), SetupError> {
    let exists = client.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = 'rowseal'", &[]).await?.is_some();
    if !exists {
        client.batch_execute("CREATE SCHEMA rowseal").await?;
    }
    client
        .batch_execute(
            "CREATE TABLE rowseal.schema_version (
                version pg_catalog.int4 PRIMARY KEY,
                applied_at pg_catalog.timestamptz NOT NULL DEFAULT now()
            )",
        )
        .await?;
    Ok(())
}

/// The version of schema `rowseal` in this database; 0 when it is not installed.
///
/// # Errors
/// An error of the server.
pub async fn version(client: &Client) -> Result<u32, SetupError> {
    let installed = client.query_one("SELECT to_regclass('rowseal.schema_version') IS NOT NULL", &[]).await?;
    if !installed.get::<_, bool>(0) {
        return Ok(0);
    }
    let row = client.query_one("SELECT coalesce(max(version), 0) FROM rowseal.schema_version", &[]).await?;
    Ok(u32::try_from(row.get::<_, i32>(0)).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod cluster;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
