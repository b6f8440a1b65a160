//! Where a job stands: its row in `rowseal.job`.
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::{ColumnError, Direction};

const FIND: &str = "SELECT id::pg_catalog.text, kind, state, progress::pg_catalog.text FROM rowseal.job
    WHERE target = $1 AND finished_at IS NULL";
const MAKE: &str = "INSERT INTO rowseal.job (kind, target, state, progress)
    VALUES ($1, $2, 'filling', $3::pg_catalog.text::pg_catalog.jsonb) RETURNING id::pg_catalog.text";
const SAVE: &str = "UPDATE rowseal.job SET state = $2, progress = $3::pg_catalog.text::pg_catalog.jsonb,
    updated_at = pg_catalog.now(), finished_at = CASE WHEN $4 THEN pg_catalog.now() END
    WHERE id = $1::pg_catalog.text::pg_catalog.uuid";

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The rows, in the order of their keys.
    Filling,
    /// Those that have changed since, and the indexes.
    Draining,
    /// The shadow has taken the column's place.
    Finishing,
    /// Nothing any more.
    Done,
    /// Given up.
    Aborted,
}

const STAGES: [(Stage, &str); 5] = [
    (Stage::Filling, "filling"),
    (Stage::Draining, "draining"),
    (Stage::Finishing, "finishing"),
    (Stage::Done, "done"),
    (Stage::Aborted, "aborted"),
];

/// How far it is. Kept with the job; keys of rows, never values of the column.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The key of the last row that was looked at.
    pub(super) position: Vec<String>,
    /// Rows filled.
    pub(super) done: u64,
    /// Rows with a value when it began.
    pub(super) total: u64,
    /// What the switch leaves to be done.
    #[serde(default)]
    pub(super) is_not_null: bool,
}

/// One job.
#[derive(Debug, Clone)]
pub(super) struct Place {
    id: String,
    pub(super) direction: Direction,
    pub(super) stage: Stage,
    pub(super) progress: Progress,
}

impl Place {
    /// Writes where the job stands, in the transaction that is open.
    pub(super) async fn save(&self, client: &Client) -> Result<(), ColumnError> {
        let word = STAGES.iter().find(|(stage, _)| *stage == self.stage).map_or("", |(_, word)| word);
        let is_over = matches!(self.stage, Stage::Done | Stage::Aborted);
        let progress = text(&self.progress)?;
        let saved = client.execute(SAVE, &[&self.id, &word, &progress, &is_over]).await;
        saved.map(drop).map_err(ColumnError::server("write where the job stands"))
    }
}

/// The unfinished job of a column.
pub(super) async fn find(client: &Client, target: &str) -> Result<Option<Place>, ColumnError> {
    let reading = || ColumnError::server("read the table of jobs");
    let Some(row) = client.query_opt(FIND, &[&target]).await.map_err(reading())? else { return Ok(None) };
    let column = |at: usize| row.try_get::<_, String>(at).map_err(reading());
    let (id, kind, state, progress) = (column(0)?, column(1)?, column(2)?, column(3)?);
    let unknown = ColumnError::Internal("the table of jobs has a record that this release does not understand");
    let directions = [Direction::Seal, Direction::Unseal];
    let direction = directions.into_iter().find(|direction| direction.word() == kind);
    let stage = STAGES.iter().find(|(_, word)| *word == state);
    match (direction, stage, serde_json::from_str(&progress)) {
        (Some(direction), Some((stage, _)), Ok(progress)) => Ok(Some(Place { id, direction, stage: *stage, progress })),
        _ => Err(unknown),
    }
}

/// Records a new job, in the transaction that is open.
pub(super) async fn make(
    client: &Client,
    (direction, target): (Direction, &str),
    progress: Progress,
) -> Result<Place, ColumnError> {
    let making = || ColumnError::server("record the job");
    let row = client.query_one(MAKE, &[&direction.word(), &target, &text(&progress)?]).await.map_err(making())?;
    Ok(Place { id: row.try_get(0).map_err(making())?, direction, stage: Stage::Filling, progress })
}

fn text(progress: &Progress) -> Result<String, ColumnError> {
    serde_json::to_string(progress).map_err(|_| ColumnError::Internal("the progress of the job cannot be written"))
}
