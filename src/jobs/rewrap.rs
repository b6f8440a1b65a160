//! Passes over all tables, in which every cell that hangs on an old key gets a slot under the new one.
//!
//! A batch is some rows in the order of the table's file, read, wrapped by the key service without any lock being held,
//! and swapped in one transaction with the record of how far the job has come. A row that somebody else holds is left to the next pass, never
//! waited for, so that no application ever waits in a circle with this job; and a cell that is another one by then stays
//! as it is.
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::journal::Note;
use super::reseal::{Columns, reseal};
use super::tables::{self, SealedColumn, Table, Use};
use super::wraps::{Rewrapped, Wraps};
use super::{Damage, Event, JobError, Worker};
use crate::crypto::{DekId, KeyId, OwnedSlot};

/// Blocks read at a time.
const BLOCKS: u64 = 32;
/// Rows swapped in one transaction.
const ROWS_MAX: u32 = 1000;
/// The same where their cells are read and written whole.
const WHOLE_ROWS_MAX: u32 = 100;
/// Between two passes of which the second finds what others held.
const PASS_PAUSE: Duration = Duration::from_millis(200);
/// Passes in a row that find rows and change none, though nobody holds them.
const IDLE_PASSES_MAX: u32 = 5;

/// How far a job has come; kept with the rotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The pass, counted from 1.
    pub pass: u32,
    /// The table under way.
    pub table: String,
    /// Its oid; those before it are done in this pass.
    pub oid: u32,
    /// The first block of it that is not done.
    pub block: u64,
    /// How many blocks the pass has done, of how many.
    pub blocks_done: u64,
    /// All blocks of the pass.
    pub blocks: u64,
    /// Rows swapped since the beginning, over all passes.
    pub rows: u64,
    /// Cells swapped since the beginning.
    pub cells: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { pass, table, blocks_done, blocks, rows, .. } = self;
        write!(f, "pass {pass}: {blocks_done} of {blocks} blocks, {rows} rows wrapped again, now {table}")
    }
}

/// What one pass found.
#[derive(Debug, Default)]
struct Found {
    /// Rows with cells to be swapped.
    rows: u64,
    /// Of these, the ones that were.
    swapped: u64,
    /// Rows that were left because somebody held them.
    held: u64,
    /// Cells that do not unwrap.
    damage: Damage,
}

/// Rows of one table, as far as they were read.
struct Batch {
    rows: Vec<RowCells>,
    /// The ctid of the last row that was read; `None` when the range is done.
    next: Option<String>,
}

/// One row: its ctid, and its cells under an old key, column by column.
pub(super) struct RowCells {
    ctid: String,
    pub(super) cells: Vec<Option<OldCell>>,
}

/// A cell under an old key.
pub(super) struct OldCell {
    pub(super) slot: Vec<u8>,
    /// All of it, where it is sealed anew.
    pub(super) bytes: Option<Vec<u8>>,
}

/// What is done to the cells of a row.
#[derive(Clone, Copy)]
pub(super) enum Depth<'a> {
    /// Another slot.
    Rewrap,
    /// Another data key and payload.
    Reseal(&'a Columns),
}

/// What is to stand in place of the cells of some rows: slots or whole cells, `None` where there is nothing to replace or
/// a cell does not unwrap.
#[derive(Default)]
pub(super) struct Replaced {
    pub(super) new: Vec<Vec<Option<Vec<u8>>>>,
    pub(super) kms_requests: Vec<String>,
    /// Data keys that were made, and what they hang on.
    pub(super) fresh: Option<(KeyId, Vec<DekId>)>,
}

/// The passes of one job.
pub(super) struct Passes<'a> {
    worker: &'a Worker<'a>,
    wraps: &'a Wraps,
    depth: Depth<'a>,
    /// The keys that nothing is to hang on any more.
    old: Vec<Vec<u8>>,
    /// The rotation that keeps the progress.
    kept_by: Option<&'a str>,
    progress: Progress,
    began: Instant,
    rows_before: u64,
}

impl<'a> Passes<'a> {
    pub(super) fn new(
        worker: &'a Worker<'a>,
        (wraps, depth, old): (&'a Wraps, Depth<'a>, &[KeyId]),
        kept_by: Option<&'a str>,
        progress: Progress,
    ) -> Self {
        let (old, rows_before) = (old.iter().map(|key| key.0.to_vec()).collect(), progress.rows);
        Passes { worker, wraps, depth, old, kept_by, progress, began: Instant::now(), rows_before }
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Passes until one finds nothing that can be swapped; gives what does not unwrap.
    ///
    /// # Errors
    /// The first thing that keeps a row from being swapped, but for damaged cells and rows that others hold.
    pub(super) async fn run(&mut self) -> Result<Damage, JobError> {
        let mut idle = 0;
        // A pass that was broken off has not seen what moved behind it.
        let mut is_whole = self.progress.oid == 0;
        loop {
            let found = self.pass().await?;
            if found.rows == 0 && is_whole {
                return Ok(found.damage);
            }
            is_whole = true;
            idle = if found.swapped > 0 || found.held > 0 { 0 } else { idle + 1 };
            if found.rows > 0 && idle >= IDLE_PASSES_MAX {
                return Err(JobError::Blocked(
                    "rows keep their cells although they are updated: a trigger or rule of a table undoes it"
                        .to_owned(),
                ));
            }
            if found.held > 0 {
                let waiting = format!("{} rows are held by others and will be tried again", found.held);
                self.worker.tell(Event::Waiting(&waiting));
                sleep(PASS_PAUSE).await;
            }
        }
    }

    async fn pass(&mut self) -> Result<Found, JobError> {
        let purpose = Use::Change { silences_triggers: self.worker.silences_triggers };
        let tables = tables::stored(&self.worker.client, purpose).await?;
        let done_to = std::mem::take(&mut self.progress.oid);
        if done_to == 0 {
            self.progress.pass += 1;
            (self.progress.block, self.progress.blocks_done) = (0, 0);
        }
        self.progress.blocks = tables.iter().filter(|table| !table.is_view).map(|table| table.blocks).sum();
        let mut found = Found::default();
        for table in tables.iter().filter(|table| !table.is_view && table.oid >= done_to) {
            let from = if table.oid == done_to { self.progress.block } else { 0 };
            match self.table(table, from, &mut found).await {
                // Dropped or altered meanwhile: the next pass sees what there is.
                Err(error) if is_gone(&error) => found.rows += 1,
                done => done?,
            }
        }
        for view in tables.iter().filter(|table| table.is_view) {
            self.refresh(view, &mut found).await?;
        }
        // The next pass begins at the first table.
        self.progress.oid = 0;
        self.keep().await?;
        Ok(found)
    }

    async fn table(&mut self, table: &Table, from: u64, found: &mut Found) -> Result<(), JobError> {
        let columns = table.own_columns();
        (self.progress.oid, self.progress.table) = (table.oid, table.name.to_string());
        let mut block = from;
        while block < table.blocks && !columns.is_empty() {
            let end = (block + BLOCKS).min(table.blocks);
            let mut after = format!("({block},0)");
            loop {
                let batch = self.read(table, &columns, (&after, end)).await?;
                self.progress.block = if batch.next.is_none() { end } else { block };
                let rows = batch.rows.len() as u64;
                if rows > 0 {
                    self.swap(table, &columns, (batch.rows, found)).await?;
                }
                match batch.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
            self.progress.blocks_done += end - block;
            block = end;
            self.worker.tell(Event::Progress(&self.progress));
        }
        Ok(())
    }

    /// Rows behind `after` and before block `end` that hang on an old key.
    async fn read(
        &self,
        table: &Table,
        columns: &[&SealedColumn],
        (after, end): (&str, u64),
    ) -> Result<Batch, JobError> {
        let (rows_max, is_whole) = match self.depth {
            Depth::Rewrap => (ROWS_MAX, false),
            Depth::Reseal(_) => (WHOLE_ROWS_MAX, true),
        };
        let limit = self.worker.pace.rows_per_second_max.map_or(rows_max, |max| max.clamp(1, rows_max));
        let slot = |column: &&SealedColumn| {
            let column = &column.sql;
            let whole = if is_whole { format!("t.{column}::bytea") } else { "NULL::bytea".to_owned() };
            let hangs = format!("CASE WHEN rowseal.key_id(t.{column}) = ANY ($1) THEN");
            format!("{hangs} rowseal.slot(t.{column}) END, {hangs} {whole} END")
        };
        let slots = columns.iter().map(slot).collect::<Vec<_>>().join(", ");
        let hangs = Table::hangs(columns.iter().copied());
        let read = format!(
            "SELECT t.ctid::text, {slots} FROM ONLY {} AS t WHERE t.ctid > '{after}' AND t.ctid < '({end},0)' AND ({hangs}) \
             ORDER BY t.ctid LIMIT {limit}",
            table.sql
        );
        let failed = || JobError::server(format!("read rows of {}", table.name));
        self.worker.client.batch_execute("BEGIN READ ONLY; SET LOCAL row_security = off").await.map_err(failed())?;
        let rows = match self.worker.client.query(&read, &[&self.old]).await {
            Ok(rows) => rows,
            Err(error) => {
                self.worker.roll_back().await;
                return Err(failed()(error));
            }
        };
        self.worker.commit().await?;
        let rows: Vec<RowCells> = rows.iter().map(|row| row_of(row, columns.len())).collect();
        let next = rows.last().filter(|_| rows.len() as u64 == u64::from(limit)).map(|row| row.ctid.clone());
        Ok(Batch { rows, next })
    }

    async fn swap(
        &mut self,
        table: &Table,
        columns: &[&SealedColumn],
        (rows, found): (Vec<RowCells>, &mut Found),
    ) -> Result<(), JobError> {
        let cells = rows.iter().flat_map(|row| row.cells.iter().flatten());
        let slots: HashSet<Vec<u8>> = cells.map(|cell| cell.slot.clone()).collect();
        self.record(columns, &rows, &slots).await?;
        let replaced = match self.depth {
            Depth::Rewrap => Replaced::slots(self.wraps.rewrap(slots).await?, &rows),
            Depth::Reseal(known) => {
                let names: Vec<Arc<str>> = columns.iter().map(|column| column.name.clone()).collect();
                reseal(self.wraps, known, (&names, &rows)).await?
            }
        };
        self.record_done(&replaced).await?;
        let change = Change::of(&rows, replaced, table, &mut found.damage);
        let (swapped, held) = self.update(table, columns, &change).await?;
        found.rows += change.rows();
        found.swapped += swapped;
        found.held += held;
        self.slow_down().await;
        Ok(())
    }

    /// The use of the data keys is recorded before it happens, a record for each key that they hang on.
    async fn record(
        &self,
        columns: &[&SealedColumn],
        rows: &[RowCells],
        slots: &HashSet<Vec<u8>>,
    ) -> Result<(), JobError> {
        let mut by_key: BTreeMap<Option<KeyId>, Vec<_>> = BTreeMap::new();
        for slot in slots {
            let slot = OwnedSlot::parse(slot).ok();
            let deks = by_key.entry(slot.as_ref().map(|slot| slot.key_id)).or_default();
            deks.extend(slot.map(|slot| slot.dek_id));
        }
        let detail = match self.depth {
            Depth::Rewrap => "wrap data keys again",
            Depth::Reseal(_) => "seal rows anew",
        };
        for (key, mut dek_ids) in by_key {
            dek_ids.sort_unstable();
            dek_ids.dedup();
            let note = Note {
                detail: detail.to_owned(),
                key,
                dek_ids,
                columns: columns.iter().map(|column| column.name.clone()).collect(),
                rows: rows.len() as u64,
                ..Note::default()
            };
            self.worker.journal.note(note).await?;
        }
        Ok(())
    }

    async fn record_done(&self, replaced: &Replaced) -> Result<(), JobError> {
        let kms_requests = replaced.kms_requests.clone();
        let (detail, (key, dek_ids)) = match &replaced.fresh {
            Some((key, dek_ids)) => ("rows are sealed anew with these", (Some(*key), dek_ids.clone())),
            None if kms_requests.is_empty() => return Ok(()),
            None => ("data keys were wrapped again", (None, Vec::new())),
        };
        let detail = detail.to_owned();
        self.worker.journal.note(Note { detail, key, dek_ids, kms_requests, ..Note::default() }).await
    }

    /// One transaction: the cells, and how far the job has come. Gives how many rows were swapped, and how many
    /// others held.
    async fn update(
        &mut self,
        table: &Table,
        columns: &[&SealedColumn],
        change: &Change,
    ) -> Result<(u64, u64), JobError> {
        let before = (self.progress.rows, self.progress.cells);
        self.worker.begin().await?;
        let done = async {
            let (mut swapped, mut held) = (0, 0);
            if change.rows() > 0 {
                let update = update_text(table, columns, self.depth);
                let done = self.worker.client.query_one(&update, &change.parameters()).await;
                let done = done.map_err(JobError::server(format!("update rows of {}", table.name)))?;
                let counted = |at: usize| done.get::<_, i64>(at).unsigned_abs();
                (swapped, held) = (counted(0), change.rows().saturating_sub(counted(2)));
                self.progress.rows += swapped;
                self.progress.cells += counted(1);
            }
            self.keep().await?;
            self.worker.commit().await?;
            Ok((swapped, held))
        }
        .await;
        match done {
            Err(error) => {
                self.worker.roll_back().await;
                (self.progress.rows, self.progress.cells) = before;
                // What others are in the way of is for the next pass.
                if is_contention(&error) { Ok((0, change.rows())) } else { Err(error) }
            }
            done => done,
        }
    }

    async fn keep(&self) -> Result<(), JobError> {
        let Some(id) = self.kept_by else { return Ok(()) };
        let progress =
            serde_json::to_string(&self.progress).map_err(|_| JobError::Internal("progress without a text form"))?;
        let keep =
            "UPDATE rowseal.rotation SET progress = $2::text::jsonb, updated_at = now() WHERE id = $1::text::uuid";
        let kept = self.worker.client.execute(keep, &[&id, &progress]).await;
        kept.map_err(JobError::server("keep the progress"))?;
        Ok(())
    }

    /// The rows of a view are those of its tables, once it is refreshed. What hangs on an old key even then is of a cell
    /// that does not unwrap, or of a view that comes later.
    async fn refresh(&mut self, view: &Table, found: &mut Found) -> Result<(), JobError> {
        let before = self.rows_of(view).await?;
        if before == 0 {
            return Ok(());
        }
        self.worker.tell(Event::Waiting(&format!("{} is refreshed", view.name)));
        let concurrently = if view.refreshes_concurrently { "CONCURRENTLY " } else { "" };
        let refresh = format!("REFRESH MATERIALIZED VIEW {concurrently}{}", view.sql);
        let done = self.worker.client.batch_execute(&refresh).await;
        match done.map_err(JobError::server(format!("refresh {}", view.name))) {
            Err(error) if is_contention(&error) => {
                found.rows += before;
                found.held += before;
                return Ok(());
            }
            done => done?,
        }
        let swapped = before.saturating_sub(self.rows_of(view).await?);
        found.rows += swapped;
        found.swapped += swapped;
        Ok(())
    }

    async fn rows_of(&self, view: &Table) -> Result<u64, JobError> {
        let count = format!("SELECT count(*) FROM {} AS t WHERE {}", view.sql, Table::hangs(&view.columns));
        let counted = self.worker.client.query_one(&count, &[&self.old]).await;
        let rows: i64 = counted.map_err(JobError::server(format!("count the rows of {}", view.name)))?.get(0);
        Ok(rows.unsigned_abs())
    }

    async fn slow_down(&self) {
        let Some(max) = self.worker.pace.rows_per_second_max else { return };
        let rows = self.progress.rows - self.rows_before;
        let due = Duration::from_secs_f64(rows as f64 / f64::from(max.max(1)));
        sleep_until(self.began + due).await;
    }
}

fn row_of(row: &Row, columns: usize) -> RowCells {
    let cell = |at: usize| {
        let slot: Option<Vec<u8>> = row.get(2 * at + 1);
        slot.map(|slot| OldCell { slot, bytes: row.get(2 * at + 2) })
    };
    RowCells { ctid: row.get(0), cells: (0..columns).map(cell).collect() }
}

/// Locks held by others, deadlocks, serialization: as good as new in a moment.
fn is_contention(error: &JobError) -> bool {
    matches!(error, JobError::Server { code, .. } if matches!(&**code, "55P03" | "40P01" | "40001"))
}

impl Replaced {
    fn slots(rewrapped: Rewrapped, rows: &[RowCells]) -> Replaced {
        let new = |cell: &Option<OldCell>| rewrapped.slots.get(&cell.as_ref()?.slot).cloned().flatten();
        let new = rows.iter().map(|row| row.cells.iter().map(new).collect()).collect();
        Replaced { new, kms_requests: rewrapped.kms_requests, fresh: None }
    }
}

/// A table or column that is no longer there, or no longer of its type.
fn is_gone(error: &JobError) -> bool {
    matches!(error, JobError::Server { code, .. } if matches!(&**code, "42P01" | "42703" | "42804" | "42883"))
}

/// What one UPDATE is given: ctids, and for each column the old slots and what is to be in their place.
struct Change {
    ctids: Vec<String>,
    /// Old and new by turns.
    values: Vec<Vec<Option<Vec<u8>>>>,
}

impl Change {
    fn of(rows: &[RowCells], replaced: Replaced, table: &Table, damage: &mut Damage) -> Change {
        let columns = rows.first().map_or(0, |row| row.cells.len());
        let mut change = Change { ctids: Vec::new(), values: vec![Vec::new(); 2 * columns] };
        for (row, new) in rows.iter().zip(replaced.new) {
            for _ in row.cells.iter().zip(&new).filter(|(cell, new)| cell.is_some() && new.is_none()) {
                damage.note(&table.name, &row.ctid);
            }
            if new.iter().all(Option::is_none) {
                continue;
            }
            change.ctids.push(row.ctid.clone());
            for (column, (cell, new)) in row.cells.iter().zip(new).enumerate() {
                let old = cell.as_ref().filter(|_| new.is_some()).map(|cell| cell.slot.clone());
                change.values[2 * column].push(old);
                change.values[2 * column + 1].push(new);
            }
        }
        change
    }

    fn rows(&self) -> u64 {
        self.ctids.len() as u64
    }

    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        let values = self.values.iter().map(|column| column as &(dyn ToSql + Sync));
        std::iter::once(&self.ctids as &(dyn ToSql + Sync)).chain(values).collect()
    }
}

/// Rows that somebody holds are skipped; of the others, those whose cells still have the slots that were read get the new
/// ones; in a rewrap the payload stays where it is. Gives the numbers of rows, of cells, and of
/// rows that nobody held.
fn update_text(table: &Table, columns: &[&SealedColumn], depth: Depth<'_>) -> String {
    let (mut arrays, mut names, mut sets, mut same, mut cells) =
        (String::new(), String::new(), Vec::new(), String::new(), Vec::new());
    for (at, column) in columns.iter().enumerate() {
        let (sql, old, new) = (&column.sql, 2 * at + 2, 2 * at + 3);
        arrays += &format!(", ${old}::bytea[], ${new}::bytea[]");
        names += &format!(", o{at}, n{at}");
        let replaced = match depth {
            Depth::Rewrap => format!("rowseal.with_slot(t.{sql}, n.n{at})"),
            Depth::Reseal(_) => format!("n.n{at}"),
        };
        sets.push(format!("{sql} = CASE WHEN n.o{at} IS NULL THEN t.{sql}::bytea ELSE {replaced} END"));
        same += &format!(" AND (n.o{at} IS NULL OR rowseal.slot(t.{sql}) = n.o{at})");
        cells.push(format!("(n.o{at} IS NOT NULL)::int4"));
    }
    let (table, sets, cells) = (&table.sql, sets.join(", "), cells.join(" + "));
    format!(
        "WITH free AS MATERIALIZED (
            SELECT n.* FROM unnest($1::text[]::tid[]{arrays}) AS n (at{names})
            JOIN ONLY {table} AS t ON t.ctid = n.at FOR NO KEY UPDATE OF t SKIP LOCKED),
        done AS (UPDATE ONLY {table} AS t SET {sets} FROM free AS n WHERE t.ctid = n.at{same} RETURNING {cells} AS cells)
        SELECT count(*), coalesce(sum(cells), 0)::int8, (SELECT count(*) FROM free) FROM done"
    )
}

/// For messages.
pub(super) fn listed(names: &[Arc<str>]) -> String {
    names.join(", ")
}
