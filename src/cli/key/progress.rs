//! Progress of long work: a bar where a person looks, lines where not, JSON for machines.
use std::io::{IsTerminal, stderr, stdout};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::cli::Context;
use crate::jobs::rewrap::Progress;
use crate::jobs::{Damage, Event, JobError};

/// Between two lines of progress.
const LINE_PAUSE: Duration = Duration::from_secs(2);

/// Shows what a job tells.
pub(super) struct Shown<'a> {
    context: &'a Context,
    bar: Option<ProgressBar>,
    last_line: Mutex<Option<Instant>>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        let is_seen = !context.output.is_json() && stdout().is_terminal() && stderr().is_terminal();
        let bar = is_seen.then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}, blocks {per_sec}, {eta} left");
            if let Ok(style) = style { bar.with_style(style) } else { bar }
        });
        Shown { context, bar, last_line: Mutex::new(None) }
    }

    pub(super) fn event(&self, event: Event<'_>) {
        match event {
            Event::State(state) => self.line(state.as_str(), &json!({ "state": state.as_str() })),
            Event::Waiting(reason) => self.line(&format!("  waiting: {reason}"), &json!({ "waiting": reason })),
            Event::Warning(text) => self.line(&format!("  warning: {text}"), &json!({ "warning": text })),
            Event::Progress(progress) => self.progress(progress),
        }
    }

    fn progress(&self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_length(progress.blocks.max(progress.blocks_done));
            bar.set_position(progress.blocks_done);
            let Progress { pass, table, rows, .. } = progress;
            return bar.set_message(format!("pass {pass}, {table}, {rows} rows"));
        }
        let Ok(mut last) = self.last_line.lock() else { return };
        if last.is_none_or(|last| last.elapsed() >= LINE_PAUSE) {
            *last = Some(Instant::now());
            self.line(&format!("  {progress}"), &json!({ "progress": progress }));
        }
    }

    /// Where nobody reads, the work goes on.
    fn line(&self, text: &str, json: &serde_json::Value) {
        let write = || drop(self.context.output.write(text, json));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// What came of it; machines are told the places of damage one by one.
    pub(super) fn end<T>(&self, outcome: &Result<T, JobError>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Err(JobError::Damaged(Damage { cells, places })) = outcome
            && self.context.output.is_json()
        {
            let places: Vec<_> = places.iter().map(|(table, ctid)| json!({ "table": table, "ctid": ctid })).collect();
            let json = json!({ "damaged_cells": cells, "places": places });
            let _ = self.context.output.write("", &json);
        }
    }
}
