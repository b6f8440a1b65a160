//! A data key's wrapping replaced by another, one slot after the other.
//!
//! In direct mode the key service does it and the data key never leaves it. In hierarchical mode the data key is in
//! memory for a moment, between the old branch key and the new one.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::journal::Note;
use super::keyset::{KeySet, MasterKey, WrappedKey};
use super::{JobError, Worker};
use crate::crypto::{BranchKey, BranchWrap, KeyId, OwnedSlot, WrapAlgorithm};
use crate::keys::context::{self, TAG_TENANT};
use crate::keys::kms::{KeyArn, Kms, KmsError, KmsErrorClass, Under};
use crate::keys::registry::Wrapping;

/// What slots hang on now.
pub(super) enum From {
    Master(KeyArn),
    Branch(BranchWrap),
}

/// What they are to hang on.
pub(super) enum To {
    Master(KeyId, KeyArn),
    Branch(KeyId, BranchWrap),
}

/// The ways from some old keys to the new one.
pub(super) struct Wraps {
    pub(super) kms: Arc<dyn Kms>,
    pub(super) tenant: Arc<str>,
    pub(super) from: HashMap<KeyId, From>,
    pub(super) to: To,
    pub(super) calls_max: usize,
    /// The key service's names for the calls that opened branch keys.
    opening_requests: Vec<String>,
}

/// What came of some slots: `None` for one that does not unwrap.
#[derive(Default)]
pub(super) struct Rewrapped {
    pub(super) slots: HashMap<Vec<u8>, Option<Vec<u8>>>,
    pub(super) kms_requests: Vec<String>,
}

impl Wraps {
    /// The ways from every key under the master keys `old` to the tenant's active one. Asks the key service whose keys
    /// these are, and in hierarchical mode for the branch keys.
    ///
    /// # Errors
    /// What the key service says; a master key that is not the tenant's.
    pub(super) async fn open(
        kms: Arc<dyn Kms>,
        tenant: Arc<str>,
        keys: &KeySet,
        old: &[KeyId],
        calls_max: usize,
    ) -> Result<Wraps, JobError> {
        let new = keys.active().ok_or(JobError::Internal("the tenant has no active master key"))?;
        let mut wraps = Wraps {
            to: To::Master(new.id, new.arn.clone()),
            from: HashMap::new(),
            opening_requests: Vec::new(),
            kms,
            tenant,
            calls_max,
        };
        for id in old {
            let master = keys.master(*id).ok_or(JobError::Internal("a master key that is not in the registry"))?;
            wraps.check_owner(master).await?;
            match keys.wrapping {
                Wrapping::Direct => drop(wraps.from.insert(*id, From::Master(master.arn.clone()))),
                Wrapping::Hierarchical => wraps.add_branches(keys, master).await?,
            }
        }
        if keys.wrapping == Wrapping::Hierarchical {
            let branch = keys.active_branch().ok_or(JobError::Internal("the tenant has no active branch key"))?;
            wraps.check_owner(new).await?;
            wraps.to = To::Branch(branch.id, wraps.branch(new, branch).await?);
        }
        Ok(wraps)
    }

    /// The key service, not the database, says whose key it is.
    async fn check_owner(&self, master: &MasterKey) -> Result<(), JobError> {
        let described = self.kms.describe(&master.arn).await?;
        if described.tag(TAG_TENANT) == Some(&*self.tenant) {
            return Ok(());
        }
        Err(JobError::Blocked(format!("the key service says that {} is not a key of this tenant", master.arn)))
    }

    async fn add_branches(&mut self, keys: &KeySet, master: &MasterKey) -> Result<(), JobError> {
        for branch in keys.branches().filter(|branch| branch.master == master.id) {
            let opened = self.branch(master, branch).await?;
            self.from.insert(branch.id, From::Branch(opened));
        }
        Ok(())
    }

    async fn branch(&mut self, master: &MasterKey, branch: &WrappedKey) -> Result<BranchWrap, JobError> {
        let (bytes, request) = self.kms.decrypt(&master.arn, &branch.wrapped, &context::branch(&self.tenant)).await?;
        self.opening_requests.push(request);
        let key = BranchKey::from_slice(&bytes);
        Ok(BranchWrap::new(&key.ok_or(JobError::Internal("a branch key that is not 32 bytes long"))?))
    }

    /// The calls that opened branch keys, for the audit log.
    pub(super) async fn record_opening(&self, worker: &Worker<'_>, key: Option<KeyId>) -> Result<(), JobError> {
        if self.opening_requests.is_empty() {
            return Ok(());
        }
        let (detail, kms_requests) = ("branch keys were opened".to_owned(), self.opening_requests.clone());
        worker.journal.note(Note { detail, key, kms_requests, ..Note::default() }).await
    }

    /// Wraps again what these slots hold, each once.
    ///
    /// # Errors
    /// What the key service says of the keys, or that it cannot be reached. A slot that does not unwrap is no error.
    pub(super) async fn rewrap(&self, slots: HashSet<Vec<u8>>) -> Result<Rewrapped, JobError> {
        let (mut done, mut calls) = (Rewrapped::default(), JoinSet::new());
        for bytes in slots {
            let slot = OwnedSlot::parse(&bytes).ok();
            let way = slot.and_then(|slot| Some((self.from.get(&slot.key_id)?, slot)));
            match (way, &self.to) {
                (Some((From::Master(old), slot)), To::Master(id, new)) if slot.algorithm == WrapAlgorithm::Kms => {
                    while calls.len() >= self.calls_max {
                        done.take(calls.join_next().await)?;
                    }
                    calls.spawn(self.by_kms(bytes, slot, (old.clone(), (*id, new.clone()))));
                }
                (Some((From::Branch(old), slot)), To::Branch(id, new)) => {
                    done.slots.insert(bytes, self.by_branch(&slot, old, (*id, new)));
                }
                _ => drop(done.slots.insert(bytes, None)),
            }
        }
        while let Some(call) = calls.join_next().await {
            done.take(Some(call))?;
        }
        Ok(done)
    }

    fn by_kms(
        &self,
        bytes: Vec<u8>,
        slot: OwnedSlot,
        (old, (id, new)): (KeyArn, (KeyId, KeyArn)),
    ) -> impl Future<Output = Called> + Send + 'static {
        let (kms, context) = (self.kms.clone(), context::dek(&self.tenant, slot.dek_id));
        async move {
            let (source, destination) =
                (Under { key: &old, context: &context }, Under { key: &new, context: &context });
            let done = kms.re_encrypt(source, destination, &slot.wrapped).await;
            (bytes, done.map(|(wrapped, request)| (OwnedSlot { key_id: id, wrapped, ..slot }, request)))
        }
    }

    fn by_branch(&self, slot: &OwnedSlot, old: &BranchWrap, (id, new): (KeyId, &BranchWrap)) -> Option<Vec<u8>> {
        if slot.algorithm != WrapAlgorithm::Branch {
            return None;
        }
        let dek = old.unwrap(&self.tenant, slot.key_id, slot.dek_id, &slot.wrapped).ok()?;
        let wrapped = Bytes::copy_from_slice(&new.wrap(&self.tenant, id, slot.dek_id, &dek));
        OwnedSlot { key_id: id, wrapped, ..slot.clone() }.to_bytes().ok()
    }
}

/// The old slot, and the new one with the call's name.
type Called = (Vec<u8>, Result<(OwnedSlot, String), KmsError>);

impl Rewrapped {
    fn take(&mut self, call: Option<Result<Called, tokio::task::JoinError>>) -> Result<(), JobError> {
        let Some(call) = call else { return Ok(()) };
        let (bytes, done) = call.map_err(|_| JobError::Internal("a call to the key service was given up"))?;
        match done {
            Ok((slot, request)) => {
                self.kms_requests.push(request);
                self.slots.insert(bytes, slot.to_bytes().ok());
            }
            Err(error) if error.class == KmsErrorClass::WrongContextOrBlob => {
                self.kms_requests.extend(error.request_id);
                self.slots.insert(bytes, None);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
