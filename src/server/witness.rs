//! Keeps the latest checkpoint of this proxy's audit log in the registry, so that a log that is cut later shows.
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::audit::Audit;
use crate::keys::registry::{Registry, RegistryError};

/// How often it is looked whether there is a new checkpoint.
const KEEP_EVERY: Duration = Duration::from_secs(3);

/// Brings checkpoints to the registry of one database.
pub(super) struct Witness {
    audit: Arc<Audit>,
    registry: Arc<Registry>,
    database: Arc<str>,
    /// Held while a checkpoint is brought.
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    /// The size of the last checkpoint that was brought.
    size: Option<u64>,
    /// Trouble is told of once.
    is_troubled: bool,
}

impl Witness {
    pub(super) fn new(audit: Arc<Audit>, registry: Arc<Registry>, database: Arc<str>) -> Arc<Witness> {
        let witness = Arc::new(Witness { audit, registry, database, said: Mutex::default() });
        tokio::spawn(watch(Arc::downgrade(&witness)));
        witness
    }

    /// Brings a checkpoint of all that was appended up to now: the last act before the proxy ends.
    pub(super) async fn keep_last(&self) {
        let audit = self.audit.clone();
        match tokio::task::spawn_blocking(move || audit.publish()).await {
            Ok(Ok(())) => self.keep().await,
            Ok(Err(error)) => tracing::error!(%error, "no last checkpoint of the audit log"),
            Err(_) => {}
        }
    }

    /// Brings the latest checkpoint, if it is new.
    async fn keep(&self) {
        let mut said = self.said.lock().await;
        let Some(published) = self.audit.checkpoint() else { return };
        let size = Some(published.checkpoint.size);
        if said.size == size {
            return;
        }
        let goes_through = |note: &str| self.audit.goes_through(note);
        let kept = self.registry.keep_checkpoint(&published, self.audit.verifier(), goes_through).await;
        if let Ok(true) = kept {
            said.size = size;
        }
        self.tell(kept, &mut said.is_troubled);
    }

    fn tell(&self, kept: Result<bool, RegistryError>, is_troubled: &mut bool) {
        let was_troubled = std::mem::replace(is_troubled, !matches!(kept, Ok(true)));
        let database = &self.database;
        match kept {
            Ok(true) if was_troubled => tracing::info!(%database, "audit checkpoints are kept in the registry again"),
            Ok(true) => {}
            Ok(false) if was_troubled => {}
            Ok(false) => tracing::error!(
                %database,
                "this audit log does not go through the checkpoint in the registry: it was put back to an older state, or \
                 another proxy writes under its name; run `rowseal audit verify --against registry`"
            ),
            Err(_) if was_troubled => {}
            Err(error) => tracing::warn!(%database, %error, "an audit checkpoint was not kept in the registry"),
        }
    }
}

async fn watch(witness: std::sync::Weak<Witness>) {
    let mut ticks = tokio::time::interval(KEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(witness) = witness.upgrade() else { return };
        witness.keep().await;
    }
}
