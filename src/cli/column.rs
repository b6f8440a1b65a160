//! `rowseal column`: seals existing plaintext columns in place, and opens them again.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::connect::{self, Control};
use super::output::Output;
use super::{Context, Failure, serve};
use crate::config::Settings;
use crate::jobs::column::{ColumnError, Direction, Event, Job, Journal, Options, Outcome};
use crate::keys::Keys;
use crate::policy::{self, Unsealed};

/// Between two lines of progress where there is no terminal.
const LINE_PAUSE: Duration = Duration::from_secs(5);

#[derive(Subcommand)]
pub(super) enum Column {
    /// Seal a plaintext column in place, while it is used. Run again after an interruption, it goes on.
    Seal {
        #[command(flatten)]
        work: Work,
        /// Drop indexes that cannot serve a sealed column.
        #[arg(long)]
        drop_indexes: bool,
        /// Leave the plaintext column under the name COLUMN_plain.
        #[arg(long)]
        keep_plain: bool,
    },
    /// Open a sealed column: its values are plaintext again. Needs `unsealed = "pass"`.
    Unseal {
        #[command(flatten)]
        work: Work,
    },
}

#[derive(Args)]
pub(super) struct Work {
    /// The column, as the policy has it.
    #[arg(value_name = "SCHEMA.TABLE.COLUMN")]
    column: String,
    /// Show every statement, and change nothing.
    #[arg(long, conflicts_with = "abort")]
    dry_run: bool,
    /// Give a job up that was begun, and remove what it has made.
    #[arg(long)]
    abort: bool,
    /// Rows in one transaction.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// At most so many rows a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_rows_per_second: Option<u32>,
    /// How long one attempt at the switch waits for the table, in milliseconds; others wait behind it.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    lock_timeout: u64,
}

pub(super) async fn run(command: Column, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let database = context.database(&settings)?;
    let (direction, work, drops_indexes, keeps_plain) = match command {
        Column::Seal { work, drop_indexes, keep_plain } => (Direction::Seal, work, drop_indexes, keep_plain),
        Column::Unseal { work } => (Direction::Unseal, work, false, false),
    };
    let (table, column) = entry(database, &work.column)?;
    let options = Options {
        batch: work.batch,
        rows_per_second_max: work.max_rows_per_second,
        drops_indexes,
        keeps_plain,
        lock_timeout: Duration::from_millis(work.lock_timeout),
        auto_register: settings.keys.auto_register.then(|| connect::wrapping(settings.keys.wrapping)),
    };
    let registry = Arc::new(Control::of(&settings, database)?.registry().await?);
    let client = registry.dedicated().await?;
    let log = connect::column_log(&settings);
    let kms = connect::kms_recorded(&settings, log.clone()).await?;
    let keys = Keys::new(registry.clone(), kms, serve::keys_settings(&settings));
    let journal = Journal::new(log, &database.name, &operator());
    let teller = Teller::new(&context.output);
    let watch = |event: Event<'_>| teller.tell(event);
    let job = Job {
        client: &client,
        keys: &keys,
        journal: &journal,
        database,
        table,
        column,
        direction,
        options: &options,
        watch: &watch,
    };
    let done = match (work.dry_run, work.abort) {
        (true, _) => job.dry_run().await,
        (_, true) => job.abort().await,
        _ => job.run().await,
    };
    // A rotation need not wait for this one any more. Should the registry not answer, it will notice the silence.
    let _ = registry.farewell().await;
    teller.rest();
    let outcome = done.map_err(failure)?;
    tell_outcome(&job, outcome, &context.output, &settings)
}

fn entry<'d>(
    database: &'d policy::Database,
    name: &str,
) -> Result<(&'d policy::Table, &'d Arc<policy::Column>), Failure> {
    let columns = database.tables.iter().flat_map(|table| table.columns.iter().map(move |column| (&**table, column)));
    let mut named = columns.filter(|(_, column)| *column.qualified == *name);
    named.next().ok_or_else(|| {
        Failure::Usage(format!(
            "the policy of database {:?} has no column {name:?}: write its entry first",
            database.name
        ))
    })
}

/// Who runs the command, for the audit log.
fn operator() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty());
    let by_number = || format!("uid {}", rustix::process::getuid().as_raw());
    named("ROWSEAL_OPERATOR").or_else(|| named("USER")).or_else(|| named("LOGNAME")).unwrap_or_else(by_number)
}

fn failure(error: ColumnError) -> Failure {
    match error {
        ColumnError::Refused(reasons) => Failure::Refused(reasons.join("\nrowseal: ")),
        error => error.into(),
    }
}

fn tell_outcome(job: &Job<'_>, outcome: Outcome, output: &Output, settings: &Settings) -> Result<(), Failure> {
    let name = &job.column.qualified;
    let (text, word) = match (outcome, job.direction) {
        (Outcome::Shown, _) => return Ok(()),
        (Outcome::Already, Direction::Seal) => (format!("column {name} is sealed"), "already"),
        (Outcome::Already, Direction::Unseal) => (format!("column {name} is plaintext"), "already"),
        (Outcome::Aborted, _) => (format!("column {name} is as it was"), "aborted"),
        (Outcome::Done, Direction::Seal) => (sealed(job, settings), "done"),
        (Outcome::Done, Direction::Unseal) => (
            format!(
                "column {name} is plaintext. It is the last column of its table now. Take its entry out of the policy."
            ),
            "done",
        ),
    };
    let json = json!({ "column": &**name, "direction": job.direction.word(), "outcome": word });
    Ok(output.write(text, &json)?)
}

fn sealed(job: &Job<'_>, settings: &Settings) -> String {
    let (name, table) = (&job.column.qualified, format!("{}.{}", job.table.schema, job.table.name));
    let mut lines = vec![
        format!("column {name} is sealed. It is the last column of its table now."),
        format!(
            "Its plaintext is still on disk: in old row versions until `VACUUM FULL {table}` has written the table anew, in the \
             write-ahead log, on replicas until they have followed, and in every backup made so far."
        ),
    ];
    if job.options.keeps_plain {
        lines.push(format!("Column {name}_plain still has it, too: drop it when you are sure."));
    }
    let passes = settings.database(&job.database.name).is_some_and(|database| database.unsealed == Unsealed::Pass);
    if passes {
        lines.push("Set unsealed = \"refuse\" again once all columns are sealed.".to_owned());
    }
    lines.join("\n")
}

/// Tells how the work goes on: a bar on a terminal, else lines; JSON where it is asked for.
struct Teller<'a> {
    output: &'a Output,
    bar: Option<ProgressBar>,
    told: Mutex<Told>,
}

/// What was told last.
struct Told {
    began: Instant,
    first: Option<u64>,
    line: Option<Instant>,
}

impl<'a> Teller<'a> {
    fn new(output: &'a Output) -> Self {
        let bar = output.draws().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} rows, {per_sec}, {eta} left");
            style.map(|style| bar.set_style(style)).map_or_else(|_| ProgressBar::hidden(), |()| bar)
        });
        Teller { output, bar, told: Mutex::new(Told { began: Instant::now(), first: None, line: None }) }
    }

    fn tell(&self, event: Event<'_>) {
        // Nobody reads on where writing fails; the work goes on.
        let _ = match event {
            Event::Statement(text) => self.output.write(format!("{text};"), &json!({ "statement": text })),
            Event::Note(text) => self.write(text, &json!({ "note": text })),
            Event::Switched(held) => {
                let held = held.as_millis();
                self.write(&format!("the table was locked for {held} ms"), &json!({ "locked_ms": held }))
            }
            Event::Progress(done, total) => self.progress(done, total),
        };
    }

    fn write(&self, text: &str, json: &serde_json::Value) -> std::io::Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.write(text, json)),
            None => self.output.write(text, json),
        }
    }

    fn progress(&self, done: u64, total: u64) -> std::io::Result<()> {
        if let Some(bar) = &self.bar {
            bar.set_length(total.max(done));
            bar.set_position(done);
            return Ok(());
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *told.first.get_or_insert(done);
        if done < total && told.line.is_some_and(|line| line.elapsed() < LINE_PAUSE) {
            return Ok(());
        }
        told.line = Some(Instant::now());
        let rate = (done - first) as f64 / told.began.elapsed().as_secs_f64().max(0.001);
        let left = if rate > 0.0 {
            format!(", {:.0} s left", total.saturating_sub(done) as f64 / rate)
        } else {
            String::new()
        };
        let json = json!({ "done": done, "total": total, "rows_per_second": rate.round() });
        self.output.write(format!("{done} of {total} rows, {rate:.0} a second{left}"), &json)
    }

    /// Takes the bar away.
    fn rest(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
