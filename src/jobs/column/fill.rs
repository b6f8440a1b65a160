//! Fills the shadows: all rows in the order of their keys, then again and again those that have changed meanwhile.
use std::time::{Duration, Instant};

use tokio_postgres::types::{FromSql, ToSql, Type};
use zeroize::Zeroizing;

use super::convert::{self, Row};
use super::look::Target;
use super::place::{Place, Stage};
use super::{ColumnError, Direction, Event, Job, statements};
use crate::keys::{KeyError, Pin};

/// A value as the server sends it in binary form, of any type.
struct Raw(Zeroizing<Vec<u8>>);

impl FromSql<'_> for Raw {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(Zeroizing::new(raw.to_vec())))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Takes care that not more rows a second are done than is allowed.
struct Pace {
    began: Instant,
    rows: u64,
    rows_per_second_max: Option<u32>,
}

impl Pace {
    async fn keep(&mut self, rows: u64) {
        self.rows += rows;
        let Some(max) = self.rows_per_second_max.filter(|max| *max > 0) else { return };
        let due = Duration::from_secs_f64(self.rows as f64 / f64::from(max));
        tokio::time::sleep(due.saturating_sub(self.began.elapsed())).await;
    }
}

/// Fills the shadows of all rows in the order of their keys, from where the job stands.
pub(super) async fn fill(job: &Job<'_>, target: &Target, place: &mut Place) -> Result<(), ColumnError> {
    let max = job.options.rows_per_second_max;
    let mut pace = Pace { began: Instant::now(), rows: 0, rows_per_second_max: max };
    while place.stage == Stage::Filling {
        (job.watch)(Event::Progress(place.progress.done, place.progress.total));
        let rows = read_behind(job, target, &place.progress.position).await?;
        match rows.last() {
            Some(last) => place.progress.position = last.key.clone(),
            None => place.stage = Stage::Draining,
        }
        let stored = take_over(job, target, &rows, Some(place)).await?;
        pace.keep(stored).await;
    }
    (job.watch)(Event::Progress(place.progress.done, place.progress.total));
    Ok(())
}

/// Fills shadows until few are left to be done, apart from those of rows that others hold.
pub(super) async fn drain(job: &Job<'_>, target: &Target) -> Result<(), ColumnError> {
    loop {
        let rows = read(job, &statements::read_rest(job, target), &[]).await?;
        take_over(job, target, &rows, None).await?;
        if rows.len() < job.options.batch as usize {
            return Ok(());
        }
    }
}

/// Fills what is left, in the transaction that holds the table's lock; false when it is more than a batch.
pub(super) async fn drain_locked(job: &Job<'_>, target: &Target) -> Result<bool, ColumnError> {
    let rows = read(job, &statements::read_rest(job, target), &[]).await?;
    if rows.len() >= job.options.batch as usize {
        return Ok(false);
    }
    store(job, target, &rows).await?;
    Ok(true)
}

async fn read_behind(job: &Job<'_>, target: &Target, position: &[String]) -> Result<Vec<Row>, ColumnError> {
    let goes_on = position.len() == target.key.len();
    let params: Vec<&(dyn ToSql + Sync)> =
        position.iter().filter(|_| goes_on).map(|part| part as &(dyn ToSql + Sync)).collect();
    read(job, &statements::read_by_key(job, target, goes_on), &params).await
}

async fn read(job: &Job<'_>, statement: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, ColumnError> {
    let reading = || ColumnError::server("read rows");
    let mut rows = Vec::new();
    for row in job.client.query(statement, params).await.map_err(reading())? {
        let text = |at: usize| row.try_get::<_, String>(at).map_err(reading());
        let tenant: Option<String> = row.try_get(2).map_err(reading())?;
        let value: Option<Raw> = row.try_get(3).map_err(reading())?;
        rows.push(Row {
            at: text(0)?,
            version: text(1)?,
            tenant: tenant.map(Into::into),
            value: value.map(|raw| raw.0),
            key: (4..row.len()).map(text).collect::<Result<_, _>>()?,
        });
    }
    Ok(rows)
}

/// Stores the shadows of some rows, and where the job stands, at once; gives how many rows were still as they were read.
async fn take_over(
    job: &Job<'_>,
    target: &Target,
    rows: &[Row],
    place: Option<&mut Place>,
) -> Result<u64, ColumnError> {
    let mut pin = pin(job);
    let given = Given::of(job, rows).await?;
    still_allowed(job, &pin)?;
    job.client.batch_execute("BEGIN").await.map_err(ColumnError::server("begin a transaction"))?;
    let stored = given.store(job, target, rows).await?;
    if let Some(place) = place {
        place.progress.done += stored;
        place.save(job.client).await?;
    }
    job.client.batch_execute("COMMIT").await.map_err(ColumnError::server("store rows"))?;
    pin.release();
    Ok(stored)
}

/// A hold on the present epoch: a rotation that begins meanwhile waits until the rows are stored. A job that fails keeps it
/// until its process is gone.
fn pin(job: &Job<'_>) -> Pin {
    let mut pin = Pin::default();
    job.keys.pin(&mut pin);
    pin
}

fn still_allowed(job: &Job<'_>, pin: &Pin) -> Result<(), ColumnError> {
    if job.keys.may_send(pin) { Ok(()) } else { Err(KeyError::Unreachable.into()) }
}

async fn store(job: &Job<'_>, target: &Target, rows: &[Row]) -> Result<u64, ColumnError> {
    let mut pin = pin(job);
    let given = Given::of(job, rows).await?;
    still_allowed(job, &pin)?;
    let stored = given.store(job, target, rows).await?;
    pin.release();
    Ok(stored)
}

/// What is to be stored.
enum Given {
    Cells(Vec<Option<Vec<u8>>>),
    Texts(convert::Texts),
}

impl Given {
    async fn of(job: &Job<'_>, rows: &[Row]) -> Result<Given, ColumnError> {
        match job.direction {
            Direction::Seal => Ok(Given::Cells(convert::seal(job, rows).await?)),
            Direction::Unseal => Ok(Given::Texts(convert::open(job, rows).await?)),
        }
    }

    async fn store(&self, job: &Job<'_>, target: &Target, rows: &[Row]) -> Result<u64, ColumnError> {
        if rows.is_empty() {
            return Ok(0);
        }
        let at: Vec<&str> = rows.iter().map(|row| row.at.as_str()).collect();
        let versions: Vec<&str> = rows.iter().map(|row| row.version.as_str()).collect();
        let values: &(dyn ToSql + Sync) = match self {
            Given::Cells(cells) => cells,
            Given::Texts(texts) => &texts.0,
        };
        let stored = job.client.execute(&statements::store(job, target), &[&at, &versions, values]).await;
        stored.map_err(ColumnError::server("store rows"))
    }
}
