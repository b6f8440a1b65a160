//! `rowseal key`: the master keys of a tenant, one file for each act on them.
use std::sync::Arc;

use clap::Subcommand;

use super::connect::{self, Control};
use super::{Context, Failure};
use crate::audit::WhoFields;
use crate::jobs::bench::reason;
use crate::jobs::custody::TakenUp;
use crate::jobs::worker::Pace;
use crate::jobs::{Bench, JobError, Journal};

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

/// What a command that changes keys works with. `act` is the command, for the audit log.
async fn open(
    context: &Context,
    (tenant, act): (&str, &str),
    rows_per_second_max: Option<u32>,
) -> Result<Bench, Failure> {
    let settings = context.settings()?;
    let database = context.database(&settings)?;
    let control = Control::of(&settings, database)?;
    let who = WhoFields {
        database: &database.name,
        user: &operator::name(),
        role: control.user(),
        client: "local",
        application: act,
        session: 0,
    };
    let journal = Journal::new(&settings.audit.directory, who, tenant);
    let pace = Pace { kms_calls_max: settings.keys.kms_concurrency, rows_per_second_max };
    let registry = Arc::new(control.registry().await?);
    Ok(Bench { tenant: tenant.to_owned(), registry, kms: connect::kms_of_jobs(&settings).await?, journal, pace })
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
