//! Acts on the keys of a tenant as an operator asks for them, from the command line or from the console.
use std::sync::Arc;

use super::revocation::{self, Done};
use super::rotation::{self, Request};
use super::worker::Pace;
use super::{Custody, Event, JobError, Journal, Watch, Worker, older};
use crate::keys::kms::Kms;
use crate::keys::registry::Registry;
use crate::policy::{self, GLOBAL_TENANT};

/// What it takes to act on the keys of one tenant.
pub struct Bench {
    /// The tenant.
    pub tenant: String,
    /// Where its keys are registered.
    pub registry: Arc<Registry>,
    /// The key service; each call is recorded.
    pub kms: Arc<dyn Kms>,
    /// Where each act is recorded before it is done.
    pub journal: Journal,
    /// How fast it may go.
    pub pace: Pace,
}

impl Bench {
    /// The worker of the tenant; `None` when it is at work elsewhere.
    ///
    /// # Errors
    /// A server that does not answer.
    pub async fn worker<'a>(&self, watch: Watch<'a>) -> Result<Option<Worker<'a>>, JobError> {
        let (kms, journal) = (self.kms.clone(), self.journal.clone());
        Worker::start(&self.registry, kms, journal, &self.tenant, (self.pace, watch)).await
    }

    /// The same; another one at work is a refusal.
    ///
    /// # Errors
    /// [`JobError::Refused`] for that, or a server that does not answer.
    pub async fn only_worker<'a>(&self, watch: Watch<'a>) -> Result<Worker<'a>, JobError> {
        self.worker(watch).await?.ok_or_else(|| self.elsewhere())
    }

    fn elsewhere(&self) -> JobError {
        JobError::Refused(format!("another command works on the keys of tenant {:?}", self.tenant))
    }

    /// What it takes to act on the keys themselves. Versions whose time for a restored backup is over are deactivated
    /// first; that this fails keeps nobody from revoking, for proxies refuse them anyway.
    ///
    /// # Errors
    /// A server that does not answer.
    pub async fn custody<'a>(&'a self, watch: Watch<'a>) -> Result<Custody<'a>, JobError> {
        let tools = (self.kms.clone(), self.journal.clone());
        let custody = Custody::new(&self.registry, tools, &self.tenant, watch).await?;
        if let Err(error) = older::take_back(&custody).await {
            let text = format!("a version whose time for a restored backup is over was not deactivated: {error}");
            watch(Event::Warning(&text));
        }
        Ok(custody)
    }

    /// Refuses what would be the end of all tenants.
    ///
    /// # Errors
    /// [`JobError::Refused`] for the tenant that is nobody's.
    pub fn refuse_reserved(&self) -> Result<(), JobError> {
        if self.tenant.starts_with(GLOBAL_TENANT) {
            return Err(JobError::Refused("the keys of this name serve all tenants".to_owned()));
        }
        Ok(())
    }

    /// Gives the tenant another master key, or goes on with doing so.
    ///
    /// # Errors
    /// As [`rotation::rotate`]; [`JobError::Refused`] where it runs elsewhere.
    ///
    /// # Cancel safety
    /// As after a crash.
    pub async fn rotate(
        &self,
        request: &Request,
        policy: &policy::Database,
        watch: Watch<'_>,
    ) -> Result<rotation::Done, JobError> {
        let Some(worker) = self.worker(watch).await? else {
            let running = rotation::latest(&self.registry.dedicated().await?, &self.tenant).await?;
            return Err(match running.filter(|record| record.finished_at.is_none()) {
                None => self.elsewhere(),
                Some(record) => {
                    let (tenant, state, progress) = (&self.tenant, record.state, &record.progress);
                    JobError::Refused(format!(
                        "the rotation of tenant {tenant:?} runs elsewhere: {state}\n  {progress}"
                    ))
                }
            });
        };
        rotation::rotate(&worker, request, policy).await
    }

    /// Stops every use of the tenant's keys (K5).
    ///
    /// # Errors
    /// As [`revocation::revoke`]; [`JobError::Refused`] for the keys that serve all tenants.
    ///
    /// # Cancel safety
    /// As after a crash.
    pub async fn deactivate(&self, reason: &str, watch: Watch<'_>) -> Result<Done, JobError> {
        self.refuse_reserved()?;
        revocation::revoke(&self.custody(watch).await?, reason).await
    }

    /// Lets the keys of a deactivated tenant be used again.
    ///
    /// # Errors
    /// As [`revocation::reactivate`].
    ///
    /// # Cancel safety
    /// As after a crash.
    pub async fn reactivate(&self, reason: &str, watch: Watch<'_>) -> Result<Done, JobError> {
        revocation::reactivate(&self.custody(watch).await?, reason).await
    }
}

/// What stands in the audit log where a reason may be left out.
pub const NO_REASON: &str = "no reason given";

/// A reason that is one.
///
/// # Errors
/// In words, for one without any.
pub fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("say why".to_owned()) } else { Ok(text.to_owned()) }
}
