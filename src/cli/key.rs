//! `rowseal key`: the master keys of a tenant, one file for each act on them.
use std::sync::Arc;

use clap::Subcommand;

use super::connect::{self, Control};
use super::{Context, Failure};
use crate::audit::WhoFields;
use crate::config::Settings;
use crate::jobs::custody::TakenUp;
use crate::jobs::worker::Pace;
use crate::jobs::{Custody, Event, JobError, Journal, Watch, Worker, older};
use crate::keys::kms::Kms;
use crate::keys::registry::Registry;

mod confirm;
mod deactivate;
mod operator;
mod progress;
mod purge;
mod reactivate;
mod rewrap;
mod rotate;
pub(super) mod shred;
pub(super) mod status;
mod unpurge;

#[derive(Subcommand)]
pub(super) enum Key {
    /// Give a tenant a new master key, wrap all its data keys with it, and disable the old one; goes on where it stopped.
    Rotate(rotate::Rotate),
    /// Say how rotations are and which versions of the master key there are.
    Status(status::Status),
    /// Wrap again what hangs on an older version that was reactivated, and disable that again.
    Rewrap(rewrap::Rewrap),
    /// Stop every use of a tenant's keys, whatever is cached, and disable them.
    Deactivate(deactivate::Deactivate),
    /// Let the keys of a deactivated tenant be used again; or older versions, for a restored backup.
    Reactivate(reactivate::Reactivate),
    /// Schedule the deletion of versions that were rotated away, if no stored value needs them.
    Purge(purge::Purge),
    /// Cancel the deletion of purged versions.
    Unpurge(unpurge::Unpurge),
}

pub(super) async fn run(command: Key, context: &Context) -> Result<(), Failure> {
    let done = match command {
        Key::Rotate(rotate) => rotate::run(rotate, context).await,
        Key::Status(status) => return status::run(status, context).await,
        Key::Rewrap(rewrap) => rewrap::run(rewrap, context).await,
        Key::Deactivate(deactivate) => deactivate::run(deactivate, context).await,
        Key::Reactivate(reactivate) => reactivate::run(reactivate, context).await,
        Key::Purge(purge) => purge::run(purge, context).await,
        Key::Unpurge(unpurge) => unpurge::run(unpurge, context).await,
    };
    keep_checkpoint(context).await;
    done
}

/// The calls that a command has made are in the log of subcommands, also when it failed: the registry is told how far that
/// goes. What keeps it from being told is no failure of the command.
pub(super) async fn keep_checkpoint(context: &Context) {
    let told = async {
        let settings = context.settings()?;
        let registry = Control::of(&settings, context.database(&settings)?)?.registry().await?;
        connect::keep_operator_checkpoint(&settings, &registry).await;
        Ok::<(), Failure>(())
    };
    if told.await.is_err() {
        tracing::warn!("the audit checkpoint of this command was not kept in the registry");
    }
}

/// What a command that changes keys works with.
struct Bench {
    registry: Registry,
    kms: Arc<dyn Kms>,
    journal: Journal,
    pace: Pace,
}

impl Bench {
    /// `act` is the command, for the audit log.
    async fn open(
        context: &Context,
        (tenant, act): (&str, &str),
        rows_per_second_max: Option<u32>,
    ) -> Result<Bench, Failure> {
        let settings = context.settings()?;
        let database = context.database(&settings)?;
        let control = Control::of(&settings, database)?;
        let journal = journal(&settings, &database.name, &control, (tenant, act));
        let pace = Pace { kms_calls_max: settings.keys.kms_concurrency, rows_per_second_max };
        Ok(Bench { registry: control.registry().await?, kms: connect::kms_of_jobs(&settings).await?, journal, pace })
    }

    /// The worker of a tenant; `None` when it is at work elsewhere.
    async fn worker<'a>(&self, tenant: &str, watch: Watch<'a>) -> Result<Option<Worker<'a>>, Failure> {
        let started =
            Worker::start(&self.registry, self.kms.clone(), self.journal.clone(), tenant, (self.pace, watch)).await;
        started.map_err(failure)
    }

    /// The same; another one at work is a refusal.
    async fn only_worker<'a>(&self, tenant: &str, watch: Watch<'a>) -> Result<Worker<'a>, Failure> {
        let elsewhere = || Failure::Refused(format!("another command works on the keys of tenant {tenant:?}"));
        self.worker(tenant, watch).await?.ok_or_else(elsewhere)
    }

    /// What it takes to act on the keys of a tenant. Versions whose time for a restored backup is over are deactivated
    /// first; that this fails keeps nobody from revoking, for proxies refuse them anyway.
    async fn custody<'a>(&self, tenant: &'a str, watch: Watch<'a>) -> Result<Custody<'a>, Failure> {
        let tools = (self.kms.clone(), self.journal.clone());
        let custody = Custody::new(&self.registry, tools, tenant, watch).await.map_err(failure)?;
        if let Err(error) = older::take_back(&custody).await {
            let text = format!("a version whose time for a restored backup is over was not deactivated: {error}");
            watch(Event::Warning(&text));
        }
        Ok(custody)
    }
}

/// The audit log of commands stands beside that of the proxy, which holds its own.
fn journal(settings: &Settings, database: &str, control: &Control, (tenant, act): (&str, &str)) -> Journal {
    let who = WhoFields {
        database,
        user: &operator::name(),
        role: control.user(),
        client: "local",
        application: act,
        session: 0,
    };
    Journal::new(settings.audit.directory.join("admin"), who, tenant)
}

/// A reason that is one.
fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("say why".to_owned()) } else { Ok(text.to_owned()) }
}

/// How the proxies took a change up, in words.
fn taken_up(taken_up: &TakenUp) -> String {
    let TakenUp { proxies, silent, took } = taken_up;
    let mut text = format!("taken up by {proxies} live proxies after {:.1} s", took.as_secs_f64());
    for id in silent {
        text += &format!("\n  proxy {id} is silent: what it has cached ends with keys.confirm_interval");
    }
    text
}

fn failure(error: JobError) -> Failure {
    match error {
        JobError::Refused(message) => Failure::Refused(message),
        error => error.into(),
    }
}
