//! Whether a master key can be used: whose it is, when it was last confirmed, when it was refused.
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::inner::{Inner, millis};
use super::kms::{KeyState, KmsError, KmsErrorClass};
use super::master::Master;
use super::registry::{MasterRecord, MasterState, Standing};
use super::{KeyError, context};

impl Inner {
    /// Whether what hangs on the master may be used at `now` without asking the KMS.
    pub(super) fn usable(&self, master: &Master, now: u64) -> bool {
        master.usable(now, millis(self.settings.confirm_interval)) && self.admits(&master.record).is_ok()
    }

    /// Whether the registry lets anybody use this version of a master key now.
    pub(super) fn admits(&self, record: &MasterRecord) -> Result<(), KeyError> {
        let tenant = || record.tenant.clone();
        match (record.standing, record.state) {
            (Standing::Revoked | Standing::Shredded, _) => Err(KeyError::Unavailable(tenant())),
            (Standing::Active, MasterState::Purged) => Err(KeyError::Purged(tenant())),
            (Standing::Active, MasterState::Deactivated) => Err(KeyError::Deactivated(tenant())),
            (Standing::Active, MasterState::Active | MasterState::Retiring) => match record.until {
                Some(until) if self.registry.database_now() >= until => Err(KeyError::Deactivated(tenant())),
                Some(_) | None => Ok(()),
            },
        }
    }

    /// Whether what the KMS has answered by now may still be used: a key may be revoked while it is asked.
    pub(super) fn still_admits(&self, master: &Master) -> Result<(), KeyError> {
        if !master.is_dropped() {
            return self.admits(&master.record);
        }
        let snapshot = self.registry.snapshot();
        self.admits(snapshot.masters.get(&master.record.id).ok_or(KeyError::UnknownKey)?)
    }

    pub(super) fn refuses(&self, master: &Master) -> bool {
        master.is_dropped() || master.refused(self.now(), millis(self.settings.refused_for))
    }

    pub(super) fn not_refused(&self, master: &Master) -> Result<(), KeyError> {
        if master.refused(self.now(), millis(self.settings.refused_for)) {
            return Err(KeyError::Unavailable(master.record.tenant.clone()));
        }
        Ok(())
    }

    /// On first load, and after a refusal, asks the KMS whose key it is.
    pub(super) async fn ready(&self, master: &Arc<Master>) -> Result<(), KeyError> {
        self.not_refused(master)?;
        if master.tags_checked.load(SeqCst) {
            return Ok(());
        }
        let _gate = master.gate.lock().await;
        self.check_tags(master).await
    }

    async fn check_tags(&self, master: &Arc<Master>) -> Result<(), KeyError> {
        self.not_refused(master)?;
        if master.tags_checked.load(SeqCst) {
            return Ok(());
        }
        let key = self.kms.describe(&master.record.arn).await.map_err(|error| self.failed(master, &error))?;
        let named = key.tag(context::TAG_TENANT) == Some(&*master.record.tenant);
        if !named {
            tracing::error!(arn = %master.record.arn, "the tags of a master key do not name its tenant");
        }
        if !named || key.state != KeyState::Enabled {
            self.revoke(master);
            return Err(KeyError::Unavailable(master.record.tenant.clone()));
        }
        master.tags_checked.store(true, SeqCst);
        Ok(())
    }

    /// Asks the KMS whether the key can still be used, unless someone else just did; gives the request id.
    pub(super) async fn confirm(&self, master: &Arc<Master>) -> Result<Option<String>, KeyError> {
        let asked = self.now();
        let _gate = master.gate.lock().await;
        self.check_tags(master).await?;
        if master.confirmed_at() > asked {
            return Ok(None);
        }
        let (began, context) = (self.now(), context::canary(&master.record.tenant));
        match self.kms.decrypt(&master.record.arn, &master.record.canary, &context).await {
            Ok((_, request)) => {
                master.confirm(began);
                Ok(Some(request))
            }
            Err(error) => Err(self.failed(master, &error)),
        }
    }

    /// What an error of the KMS means for the key; a refusal of the key drops everything that hangs on it first.
    pub(super) fn failed(&self, master: &Arc<Master>, error: &KmsError) -> KeyError {
        let arn = &master.record.arn;
        tracing::warn!(%error, request = error.request_id, %arn, "the key service refused or failed");
        if error.revokes_key() {
            self.revoke(master);
            KeyError::Unavailable(master.record.tenant.clone())
        } else if error.class == KmsErrorClass::Unrecorded {
            KeyError::Unrecorded
        } else if error.is_definitive() {
            KeyError::Damaged
        } else {
            KeyError::Unreachable
        }
    }

    fn revoke(&self, master: &Arc<Master>) {
        let already = self.refuses(master);
        master.refuse(self.now());
        if !already {
            self.deks.drop_of(master);
        }
    }
}
