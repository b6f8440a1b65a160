//! Registering many tenants: several at a time, no faster than the key service makes keys, and to be gone on with.
//!
//! What is remembered between two runs stands in the registry and in the tags of keys, as for one tenant
//! (`keys/registry/register.rs`): the same list again completes what is missing.
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::keys::kms::Kms;
use crate::keys::registry::{Registered, Registry, RegistryError, Standing, Wrapping};

/// Registrations under way at one time.
const AT_ONCE: usize = 8;

/// What fails in passing is tried again behind pauses of one second, two, and so on up to this one.
const LAST_PAUSE: Duration = Duration::from_secs(16);

/// A tenant to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrant {
    /// Its name, checked.
    pub name: Arc<str>,
    /// How its data keys are to be wrapped.
    pub wrapping: Wrapping,
    /// Where it stands in the list.
    pub line: usize,
}

/// What the registry knows of a list.
#[derive(Debug, Default)]
pub struct Plan {
    /// Those to be registered; those whose registration was begun come last, for they may have to be searched for.
    pub missing: VecDeque<Entrant>,
    /// How many are registered already.
    pub already: usize,
    /// Those that cannot be, by line, with the reason.
    pub refused: Vec<(usize, RegistryError)>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// How many were registered.
    pub new: usize,
    /// How many turned out to be registered already.
    pub already: usize,
    /// How many are left.
    pub left: usize,
}

/// Why it ended before its end.
#[derive(Debug)]
pub enum Broken {
    /// Somebody asked for it.
    Stopped,
    /// This tenant could not be registered.
    Failed(Entrant, RegistryError),
}

/// Looks up who is registered already. Changes nothing.
///
/// # Errors
/// The server did not answer.
pub async fn plan(registry: &Registry, entrants: Vec<Entrant>) -> Result<Plan, RegistryError> {
    let known = registry.entries().await?;
    let (mut plan, mut begun) = (Plan::default(), VecDeque::new());
    for entrant in entrants {
        match known.get(&*entrant.name) {
            None => plan.missing.push_back(entrant),
            Some(entry) if entry.wrapping != entrant.wrapping => {
                plan.refused.push((entrant.line, RegistryError::OtherWrapping(entry.wrapping)));
            }
            Some(entry) => match entry.standing {
                None => begun.push_back(entrant),
                Some(Standing::Active) => plan.already += 1,
                Some(standing) => plan.refused.push((entrant.line, RegistryError::Barred(standing))),
            },
        }
    }
    plan.missing.append(&mut begun);
    Ok(plan)
}

/// Registers them all, beginning at most `keys_per_second_max` in a second. Once `stop` comes or one fails, those under
/// way are completed and no other is begun.
///
/// # Cancel safety
/// As after a crash: a new plan goes on.
pub async fn enrol(
    (registry, kms): (Arc<Registry>, Arc<dyn Kms>),
    mut missing: VecDeque<Entrant>,
    keys_per_second_max: Option<u32>,
    watch: &dyn Fn(Count),
    stop: impl Future<Output = ()>,
) -> Result<Count, Broken> {
    let (mut under_way, mut ticks, mut stop) = (JoinSet::new(), keys_per_second_max.map(ticks), pin!(stop));
    let mut count = Count { new: 0, already: 0, left: missing.len() };
    let mut broken = None;
    while !under_way.is_empty() || (broken.is_none() && !missing.is_empty()) {
        let may_begin = broken.is_none() && !missing.is_empty() && under_way.len() < AT_ONCE;
        tokio::select! {
            () = &mut stop, if broken.is_none() => broken = Some(Broken::Stopped),
            Some(ended) = under_way.join_next() => match ended {
                Ok((_, Ok(registered))) => {
                    count.left -= 1;
                    match registered {
                        Registered::Now => count.new += 1,
                        Registered::Already => count.already += 1,
                    }
                    watch(count);
                }
                Ok((entrant, Err(error))) => {
                    if !matches!(broken, Some(Broken::Failed(..))) {
                        broken = Some(Broken::Failed(entrant, error));
                    }
                }
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            },
            () = next(&mut ticks), if may_begin => {
                let Some(entrant) = missing.pop_front() else { continue };
                under_way.spawn(register(registry.clone(), kms.clone(), entrant));
            }
        }
    }
    // Stopped when nothing was left to begin, it is whole all the same.
    broken.filter(|_| count.left > 0).map_or(Ok(count), Err)
}

fn ticks(per_second: u32) -> Interval {
    let mut ticks = interval(Duration::from_secs(1) / per_second.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn next(ticks: &mut Option<Interval>) {
    if let Some(ticks) = ticks {
        ticks.tick().await;
    }
}

/// Registers one, again while that fails in passing: throttled, cut off, out of reach.
async fn register(
    registry: Arc<Registry>,
    kms: Arc<dyn Kms>,
    entrant: Entrant,
) -> (Entrant, Result<Registered, RegistryError>) {
    let mut pause = Duration::from_secs(1);
    loop {
        match registry.register_only(&entrant.name, entrant.wrapping, &*kms).await {
            Err(error) if passes(&error) && pause <= LAST_PAUSE => {
                tracing::warn!(%error, tenant = &*entrant.name, "the registration is tried again");
                sleep(pause).await;
                pause *= 2;
            }
            outcome => return (entrant, outcome),
        }
    }
}

/// What the server itself refuses it will refuse again.
fn passes(error: &RegistryError) -> bool {
    let is_refusal = matches!(error, RegistryError::Server(error) if error.as_db_error().is_some());
    let is_unrecorded = matches!(error, RegistryError::Kms(error) if !error.class.is_passing());
    error.is_transient() && !is_refusal && !is_unrecorded
}
