//! Keys that need no call and no waiting: from pools and caches, while their master key is confirmed.
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::inner::Inner;
use super::master::{Master, Opened};
use super::registry::{BranchRecord, Wrapping};
use super::{FreshDek, KeyError, OpenedDek, Tenant};
use crate::crypto::{self, BranchKey, BranchWrap, Dek, DekId, IndexRoot, KeyId, OwnedSlot, Slot, WrapAlgorithm};
use crate::hash::DashMap;

/// A branch key made ready for the slots that name it.
pub(super) struct Branch {
    record: Arc<BranchRecord>,
    wrap: BranchWrap,
    is_leaving: bool,
}

impl Branch {
    pub(super) fn new(key: &BranchKey, record: &Arc<BranchRecord>, master: &Master) -> Self {
        Branch { record: record.clone(), wrap: BranchWrap::new(key), is_leaving: master.is_leaving() }
    }

    pub(super) fn is_of(&self, slot: &Slot<'_>) -> bool {
        slot.algorithm == WrapAlgorithm::Branch && slot.key_id == self.record.id
    }

    pub(super) fn unwrap(&self, slot: &Slot<'_>) -> Result<Arc<OpenedDek>, KeyError> {
        let record = &self.record;
        let dek = self.wrap.unwrap(&record.tenant, record.id, slot.dek_id, slot.wrapped);
        let dek = dek.map_err(|_| KeyError::Damaged)?;
        Ok(Arc::new(OpenedDek { dek, tenant: record.tenant.clone(), is_leaving: self.is_leaving }))
    }
}

impl Inner {
    /// A data key that needs no call: cached, or wrapped by a branch key at hand.
    pub(super) fn cached_dek(&self, slot: &Slot<'_>, now: u64) -> Option<Arc<OpenedDek>> {
        if slot.algorithm == WrapAlgorithm::Branch {
            return self.branch_at_hand(&slot.key_id, now)?.unwrap(slot).ok();
        }
        let (opened, master) = self.deks.find(slot, now)?;
        master.touch(now);
        self.usable(&master, now).then_some(opened)
    }

    /// A branch key that needs no call.
    pub(super) fn branch_at_hand(&self, id: &KeyId, now: u64) -> Option<Branch> {
        let record = self.registry.snapshot().branches.get(id)?.clone();
        let master = self.known_master(&record.master)?;
        let key = self.cached_key(&master, &master.branches, &record, now)?;
        Some(Branch::new(&key, &record, &master))
    }

    pub(super) fn cached_root(&self, tenant: &Tenant, now: u64) -> Option<Arc<IndexRoot>> {
        let snapshot = self.registry.snapshot();
        let record = snapshot.branches.get(&snapshot.tenants.get(tenant)?.index?)?;
        let master = self.known_master(&record.master)?;
        self.cached_key(&master, &master.roots, record, now)
    }

    /// A branch key or index root that is open, and was opened from this very record.
    pub(super) fn cached_key<K>(
        &self,
        master: &Master,
        open: &DashMap<KeyId, Opened<K>>,
        record: &BranchRecord,
        now: u64,
    ) -> Option<Arc<K>> {
        master.touch(now);
        if !self.usable(master, now) {
            return None;
        }
        open.get(&record.id).filter(|opened| *opened.record == *record).map(|opened| opened.key.clone())
    }

    /// `n` fresh data keys that need no call.
    pub(super) fn pooled(self: &Arc<Self>, tenant: &Tenant, n: usize, now: u64) -> Option<Vec<FreshDek>> {
        if self.is_unleased() {
            return None;
        }
        let snapshot = self.registry.snapshot();
        let record = snapshot.tenants.get(tenant)?;
        match record.wrapping {
            Wrapping::Direct => {
                let master = self.known_master(&record.master)?;
                master.touch(now);
                master.demand(n, self.settings.pool_target_max);
                let taken = if self.usable(&master, now) { master.take(n) } else { None };
                self.refill(&master);
                taken
            }
            Wrapping::Hierarchical => {
                let branch = snapshot.branches.get(&record.branch?)?;
                let master = self.known_master(&branch.master)?;
                Some(wrap_fresh(&*self.cached_key(&master, &master.branches, branch, now)?, branch, n))
            }
        }
    }

    pub(super) fn give_back(&self, tenant: &Tenant, deks: Vec<FreshDek>) {
        let snapshot = self.registry.snapshot();
        let Some(record) = snapshot.tenants.get(tenant) else { return };
        if let Some(master) = self.known_master(&record.master) {
            // Only what was taken from this pool: a rotation may have come between.
            master.put(deks.into_iter().filter(|dek| dek.slot.key_id == master.record.id));
        }
    }

    fn known_master(&self, id: &KeyId) -> Option<Arc<Master>> {
        self.masters.get(id).map(|master| master.clone())
    }

    pub(super) fn all_masters(&self) -> Vec<Arc<Master>> {
        self.masters.iter().map(|master| master.clone()).collect()
    }
}

/// Fresh data keys under a branch key; ids and keys are drawn in one go.
pub(super) fn wrap_fresh(branch: &BranchKey, record: &BranchRecord, n: usize) -> Vec<FreshDek> {
    let mut drawn = Zeroizing::new(vec![0u8; n * 48]);
    crypto::fill_random(&mut drawn);
    let (parts, _) = drawn.as_chunks::<48>();
    let wrap = BranchWrap::new(branch);
    parts.iter().map(|part| wrap_one(&wrap, record, part)).collect()
}

fn wrap_one(wrap: &BranchWrap, record: &BranchRecord, drawn: &[u8; 48]) -> FreshDek {
    let (id, key) = drawn.split_at(16);
    let mut dek_id = DekId([0; 16]);
    dek_id.0.copy_from_slice(id);
    let dek = Dek::from_slice(key).expect("48 bytes are an id and a key");
    let wrapped = wrap.wrap(&record.tenant, record.id, dek_id, &dek);
    let slot = OwnedSlot {
        dek_id,
        algorithm: WrapAlgorithm::Branch,
        key_id: record.id,
        wrapped: Bytes::copy_from_slice(&wrapped),
    };
    FreshDek { dek, slot }
}
