//! The acts on keys, by the code of `rowseal key` ([`Bench`]) and recorded as there, before each is done. A rotation goes on in the
//! background; the others are done when they are answered, or go on behind an answer that they take too long.
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::Visit;
use super::acts::{record, unexpected};
use super::answer::{Row, Value};
use super::text::Token;
use crate::audit::WhoFields;
use crate::jobs::bench;
use crate::jobs::revocation::Done;
use crate::jobs::rotation::{self, Depth, Request};
use crate::jobs::worker::Pace;
use crate::jobs::{Bench, Event, JobError, Journal};
use crate::refusal::{Class, Refusal};
use crate::server::database::Database;

/// What a command means to act on.
struct Aim {
    visit: Arc<Visit>,
    database: Arc<Database>,
    tenant: String,
    /// What is done, for the audit log.
    act: &'static str,
}

impl Aim {
    fn name(&self) -> &Arc<str> {
        &self.database.shared.name
    }

    fn bench(&self) -> Bench {
        let (visit, settings) = (&self.visit, self.visit.running.settings());
        let who = WhoFields {
            database: self.name(),
            user: &visit.role,
            role: &visit.role,
            client: &visit.peer.client,
            application: "rowseal console",
            session: visit.peer.session,
        };
        Bench {
            tenant: self.tenant.clone(),
            registry: self.database.shared.keys.registry().clone(),
            kms: visit.kms.clone(),
            journal: Journal::new(&settings.audit.directory, who, &self.tenant),
            pace: Pace { kms_calls_max: settings.keys.kms_concurrency, rows_per_second_max: None },
        }
    }

    /// Records that it is asked for.
    fn begin(&self, reason: Option<&str>) -> Result<(), Refusal> {
        let detail = reason.map_or_else(|| self.act.to_owned(), |reason| format!("{} ({reason})", self.act));
        record(&self.visit, (self.name(), &self.tenant), &detail, "ok")
    }

    /// Records that it failed; gives what the client is told.
    fn failed(&self, error: &JobError) -> Refusal {
        let refusal = refused(error);
        tracing::warn!(tenant = self.tenant, %error, "{} failed", self.act);
        let detail = format!("{}: failed", self.act);
        match record(&self.visit, (self.name(), &self.tenant), &detail, refusal.class.sqlstate()) {
            Ok(()) => refusal,
            Err(unrecorded) => unrecorded,
        }
    }
}

/// ROTATE KEY tenant [RESEAL] [COMPROMISED REASON 'why'] [IN database].
pub(super) async fn rotate(visit: Arc<Visit>, rest: Vec<Token>) -> Result<Vec<Row>, Refusal> {
    let (tenant, rest) = tenant(&rest)?;
    let (depth, rest) = match rest {
        [word, rest @ ..] if word.is("reseal") => (Depth::Reseal, rest),
        rest => (Depth::Rewrap, rest),
    };
    let (compromised, rest) = match rest {
        [word, rest @ ..] if word.is("compromised") => reason(rest).and_then(given)?,
        rest => (None, rest),
    };
    let database = visit.database_behind(rest)?;
    let aim = Aim { visit, database, tenant, act: "rotate key" };
    aim.begin(compromised.as_deref())?;
    let (control, registry) = (aim.visit.control.clone(), aim.database.shared.keys.registry().clone());
    let (database, tenant) = (aim.name().clone(), aim.tenant.clone());
    let (tells, begun) = oneshot::channel();
    control.spawn(rotate_on(aim, Request { depth, compromised }, tells));
    begun.await.map_err(|_| Refusal::new(Class::Internal, "the rotation did not begin"))??;
    let client = registry.dedicated().await.map_err(|error| refused(&error.into()))?;
    let record = rotation::latest(&client, &tenant).await.map_err(|error| refused(&error))?;
    let record = record.ok_or_else(|| Refusal::new(Class::Internal, "the rotation is not there"))?;
    let state = Value::text(record.state);
    Ok(vec![vec![Value::text(database), Value::Text(tenant), state, Value::Text(record.started_at)]])
}

/// Rotates until it is done; says when it has begun, or why it does not.
async fn rotate_on(aim: Aim, request: Request, tells: oneshot::Sender<Result<(), Refusal>>) {
    let (of, rotations) = ((aim.name().clone(), aim.tenant.clone()), aim.visit.rotations.clone());
    let tells = Mutex::new(Some(tells));
    let first = || tells.lock().unwrap_or_else(PoisonError::into_inner).take();
    let watch = |event: Event<'_>| {
        rotations.tell(&of, event);
        if matches!(event, Event::State(_))
            && let Some(tells) = first()
        {
            // Who asked may be gone; the rotation goes on.
            let _ = tells.send(Ok(()));
        }
    };
    let policy = aim.database.shared.policy();
    let bench = aim.bench();
    let outcome = bench.rotate(&request, &policy, &watch).await;
    let (database, tenant) = (&*of.0, &*of.1);
    let error = match outcome {
        Ok(done) => {
            tracing::info!(database, tenant, rows = done.rows, cells = done.cells, "the key was rotated");
            return rotations.end(&of, String::new());
        }
        Err(error) => error,
    };
    let refusal = aim.failed(&error);
    match first() {
        // It was refused before it began; another one may be at work.
        Some(tells) => drop(tells.send(Err(refusal))),
        None => rotations.end(&of, format!("stopped: {error}")),
    }
}

/// DEACTIVATE KEY tenant REASON 'why' [IN database].
pub(super) async fn deactivate(visit: Arc<Visit>, rest: Vec<Token>) -> Result<Vec<Row>, Refusal> {
    let (tenant, rest) = tenant(&rest)?;
    let (reason, rest) = reason(rest).and_then(given)?;
    let aim = Aim { database: visit.database_behind(rest)?, visit, tenant, act: "deactivate key" };
    change(aim, Change::Deactivate, reason).await
}

/// REACTIVATE KEY tenant [REASON 'why'] [IN database].
pub(super) async fn reactivate(visit: Arc<Visit>, rest: Vec<Token>) -> Result<Vec<Row>, Refusal> {
    let (tenant, rest) = tenant(&rest)?;
    let (reason, rest) = reason(rest)?;
    let aim = Aim { database: visit.database_behind(rest)?, visit, tenant, act: "reactivate key" };
    change(aim, Change::Reactivate, reason).await
}

/// What is done to the keys of a tenant at once.
#[derive(Clone, Copy)]
enum Change {
    Deactivate,
    Reactivate,
}

/// Does it; to the end, though nobody wait for the answer.
async fn change(aim: Aim, change: Change, reason: Option<String>) -> Result<Vec<Row>, Refusal> {
    aim.begin(reason.as_deref())?;
    let reason = reason.unwrap_or_else(|| bench::NO_REASON.to_owned());
    let control = aim.visit.control.clone();
    let work = async move {
        let (bench, act) = (aim.bench(), aim.act);
        let watch = |event: Event<'_>| {
            if let Event::Warning(text) = event {
                tracing::warn!(tenant = aim.tenant, warning = text, "{act}");
            }
        };
        let (state, done) = match change {
            Change::Deactivate => ("revoked", bench.deactivate(&reason, &watch).await),
            Change::Reactivate => ("active", bench.reactivate(&reason, &watch).await),
        };
        let Done { keys, taken_up } = done.map_err(|error| aim.failed(&error))?;
        Ok(vec![vec![
            Value::text(aim.name()),
            Value::text(&aim.tenant),
            Value::text(state),
            Value::count(keys),
            Value::count(taken_up.proxies),
            Value::Text(taken_up.silent.join(", ")),
        ]])
    };
    control.spawn(work).await.map_err(|_| Refusal::new(Class::Internal, "the command failed"))?
}

/// The tenant that is named first, as a word or in quotes.
fn tenant(rest: &[Token]) -> Result<(String, &[Token]), Refusal> {
    match rest {
        [Token::Word(name) | Token::Text(name) | Token::Name(name), rest @ ..] => Ok((name.clone(), rest)),
        _ => Err(Refusal::new(Class::Syntax, "the name of a tenant is missing")
            .hint("SHOW HELP says how each command is written.")),
    }
}

type WithReason<'a> = (Option<String>, &'a [Token]);

fn reason(rest: &[Token]) -> Result<WithReason<'_>, Refusal> {
    match rest {
        [word, Token::Text(why), rest @ ..] if word.is("reason") => {
            let why = bench::reason(why).map_err(|why| Refusal::new(Class::Syntax, why))?;
            Ok((Some(why), rest))
        }
        [word, ..] if word.is("reason") => Err(unexpected()),
        rest => Ok((None, rest)),
    }
}

fn given(reason: WithReason<'_>) -> Result<WithReason<'_>, Refusal> {
    if reason.0.is_some() {
        return Ok(reason);
    }
    Err(Refusal::new(Class::Syntax, "this needs a reason").hint("Say why: REASON '...'. It stands in the audit log."))
}

/// What a client is told of a job that was not done. All texts of jobs are names, numbers and SQLSTATEs.
fn refused(error: &JobError) -> Refusal {
    let again = |refusal: Refusal| refusal.hint("Try again; the same command goes on where this one stopped.");
    match error {
        JobError::Refused(text) | JobError::Blocked(text) => {
            let (message, detail) = text.split_once('\n').unwrap_or((text, ""));
            Refusal::new(Class::KeyUnavailable, message.to_owned()).detail(detail.trim().to_owned())
        }
        JobError::Rights(missing) => Refusal::new(Class::KeyUnavailable, "the control role lacks rights for this")
            .detail(format!("Give them with: {}.", missing.join("; "))),
        JobError::Damaged(_) => Refusal::new(Class::KeyUnavailable, error.to_string()),
        JobError::Registry(error) if !error.is_transient() => Refusal::new(Class::KeyUnavailable, error.to_string()),
        JobError::Server { .. } | JobError::Lost | JobError::Registry(_) | JobError::Kms(_) => {
            again(Refusal::new(Class::Unreachable, error.to_string()))
        }
        JobError::Audit(_) => Refusal::new(Class::Unreachable, "the act could not be recorded, so it is not done")
            .hint("Ask the operator of the proxy."),
        JobError::Internal(text) => Refusal::new(Class::Internal, *text),
    }
}
