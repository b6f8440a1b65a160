//! `rowseal tenant register`: a master key of its own for one tenant, or for each of a list.
use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::signal::ctrl_c;

use super::roll;
use crate::cli::connect::{self, Control};
use crate::cli::{Context, Failure};
use crate::config::{Provider, Settings, Wrapping};
use crate::jobs::enrolment::{self, Broken, Count, Plan};
use crate::keys::registry::{Registered, RegistryError};

/// As many keys as AWS KMS makes in a second, where nobody has asked for more.
const AWS_KEYS_PER_SECOND: u32 = 5;

/// Between two lines of progress where there is no terminal.
const LINE_PAUSE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(in crate::cli) struct Register {
    /// The text form of the tenant column's value.
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    name: Option<String>,
    /// How its data keys are wrapped; default as the policy file says.
    #[arg(long, value_parser = wrapping, value_name = "direct|hierarchical")]
    wrapping: Option<Wrapping>,
    /// Register every tenant of a file (- is standard input): one name a line, behind which a tab and its wrapping may
    /// stand; lines that begin with # are comments. Run again after an interruption, it goes on.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Make at most so many keys a second; default 5 with AWS KMS, which usually makes no more.
    #[arg(long, value_name = "N", requires = "from", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    keys_per_second: Option<u32>,
}

fn wrapping(text: &str) -> Result<Wrapping, String> {
    match text {
        "direct" => Ok(Wrapping::Direct),
        "hierarchical" => Ok(Wrapping::Hierarchical),
        _ => Err("direct or hierarchical".to_owned()),
    }
}

pub(super) async fn run(register: Register, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let wrapping = register.wrapping.unwrap_or(settings.keys.wrapping);
    match (&register.name, &register.from) {
        (_, Some(file)) => many(file, (wrapping, register.keys_per_second), &settings, context).await,
        (Some(name), None) => one(name, wrapping, &settings, context).await,
        (None, None) => Err(Failure::Usage("say which tenant, or which file has them".to_owned())),
    }
}

async fn one(name: &str, wrapping: Wrapping, settings: &Settings, context: &Context) -> Result<(), Failure> {
    let wrapping = connect::wrapping(wrapping);
    let registry = Control::of(settings, context.database(settings)?)?.registry().await?;
    let kms = connect::kms(settings).await?;
    let registered = registry.register(name, wrapping, kms.as_ref()).await.map_err(failure)?;
    drop(kms);
    connect::keep_operator_checkpoint(settings, &registry).await;
    let (text, new) = match registered {
        Registered::Now => (format!("tenant {name:?} is registered ({})", wrapping.as_str()), true),
        Registered::Already => (format!("tenant {name:?} was registered before"), false),
    };
    context.output.write(text, &json!({ "tenant": name, "wrapping": wrapping.as_str(), "new": new }))?;
    Ok(())
}

fn failure(error: RegistryError) -> Failure {
    match error {
        RegistryError::Name | RegistryError::Reserved | RegistryError::OtherWrapping(_) | RegistryError::Barred(_) => {
            Failure::Refused(error.to_string())
        }
        error => error.into(),
    }
}

async fn many(
    file: &Path,
    (wrapping, keys_per_second): (Wrapping, Option<u32>),
    settings: &Settings,
    context: &Context,
) -> Result<(), Failure> {
    let entrants = roll::read(file, connect::wrapping(wrapping))?;
    let registry = Arc::new(Control::of(settings, context.database(settings)?)?.registry().await?);
    let Plan { missing, already, refused } = enrolment::plan(&registry, entrants).await?;
    if !refused.is_empty() {
        let told: Vec<_> = refused.iter().map(|(line, error)| (*line, error.to_string())).collect();
        return Err(roll::refused(&format!("{}: nothing was begun", file.display()), &told, Failure::Refused));
    }
    let usual = matches!(settings.keys.provider, Provider::Aws { .. }).then_some(AWS_KEYS_PER_SECOND);
    let (all, kms) = (missing.len(), connect::kms_of_jobs(settings).await?);
    let (shown, so_far) = (Shown::new(context, all), Cell::new(Count { new: 0, already: 0, left: all }));
    let watch = |count: Count| {
        so_far.set(count);
        shown.count(count);
    };
    let work = enrolment::enrol((registry.clone(), kms), missing, keys_per_second.or(usual), &watch, stopped(&shown));
    let outcome = tokio::select! {
        outcome = work => outcome,
        Ok(()) = twice() => Err(Broken::Stopped),
    };
    shown.end();
    connect::keep_operator_checkpoint(settings, &registry).await;
    let count = so_far.get();
    end(outcome, Count { already: count.already + already, ..count }, context)
}

/// Says what was done and, where that is not all, how it goes on.
fn end(outcome: Result<Count, Broken>, count: Count, context: &Context) -> Result<(), Failure> {
    let Count { new, already, left } = count;
    let text = format!("{new} tenants are registered, {already} were registered before");
    let left_over = if left > 0 { format!(", {left} are left") } else { String::new() };
    context.output.write(text + &left_over, &json!({ "new": new, "already": already, "left": left }))?;
    match outcome {
        Ok(_) => Ok(()),
        Err(Broken::Stopped) => Err(anyhow::anyhow!("it was stopped; the same command goes on").into()),
        Err(Broken::Failed(entrant, error)) => {
            let what = format!("line {}, tenant {:?}; the same command goes on", entrant.line, entrant.name);
            Err(anyhow::Error::new(error).context(what).into())
        }
    }
}

/// The first Ctrl-C: those under way are completed.
async fn stopped(shown: &Shown<'_>) {
    match ctrl_c().await {
        Ok(()) => shown.line("completing what was begun; Ctrl-C again ends at once", &json!({ "stopping": true })),
        // Then a signal ends the process as it ends any other.
        Err(_) => std::future::pending().await,
    }
}

async fn twice() -> io::Result<()> {
    ctrl_c().await?;
    ctrl_c().await
}

/// Progress: a bar where a person looks, else lines; JSON for machines.
struct Shown<'a> {
    context: &'a Context,
    bar: Option<ProgressBar>,
    all: usize,
    last_line: Cell<Instant>,
}

impl<'a> Shown<'a> {
    fn new(context: &'a Context, all: usize) -> Self {
        let bar = context.output.draws().then(|| {
            let bar = ProgressBar::with_draw_target(Some(all as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {pos} of {len} tenants, {per_sec}, {eta} left");
            if let Ok(style) = style { bar.with_style(style) } else { bar }
        });
        Shown { context, bar, all, last_line: Cell::new(Instant::now()) }
    }

    fn count(&self, count: Count) {
        let done = self.all - count.left;
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        } else if self.last_line.get().elapsed() >= LINE_PAUSE {
            self.last_line.set(Instant::now());
            self.line(&format!("{done} of {} tenants", self.all), &json!({ "done": done, "all": self.all }));
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

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
