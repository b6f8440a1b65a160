//! Plans by statement, shared by all sessions and bounded in bytes.
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::plan::{Copy, Question, Verdict};
use super::{Context, Protocol, plan};
use crate::hash::DashMap;

/// What a plan costs besides its text, at the least.
const ENTRY_BYTES: usize = 512;

struct Entry {
    text: Box<str>,
    search_path: Box<[String]>,
    catalog_version: u64,
    protocol: Protocol,
    declared: Box<[u32]>,
    verdict: Verdict,
    bytes: usize,
}

/// The plan cache.
pub struct Cache {
    hasher: RandomState,
    entries: DashMap<u64, Arc<Entry>>,
    bytes: AtomicUsize,
    bytes_max: AtomicUsize,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Cache {
    /// An empty cache that holds at most about `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Cache {
            hasher: RandomState::new(),
            entries: DashMap::default(),
            bytes: AtomicUsize::new(0),
            bytes_max: bytes_max.into(),
        }
    }

    /// From now on it holds at most about `bytes_max` bytes; entries beyond go when others come.
    pub fn hold_at_most(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// The verdict on a text: the cached one, or a new one.
    pub fn plan(&self, text: &str, context: &Context<'_>) -> Verdict {
        let how = (context.catalog.version, context.protocol, context.declared);
        let key = self.hasher.hash_one((text, context.search_path, how));
        if let Some(entry) = self.entries.get(&key).filter(|e| e.is_for(text, context)) {
            return entry.verdict.clone();
        }
        let verdict = plan(text, context);
        self.insert(key, text, context, &verdict);
        verdict
    }

    /// About how many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What it holds, without any text: a fingerprint that means nothing to another process, what is done with the
    /// statement, and about how many bytes that takes.
    pub fn entries(&self) -> Vec<(u64, &'static str, usize)> {
        let word = |verdict: &Verdict| match verdict {
            Verdict::Pass => "pass",
            Verdict::Rewrite(_) => "rewrite",
            Verdict::Refuse(_) => "refuse",
            Verdict::Ask(_) => "ask the server",
        };
        self.entries.iter().map(|entry| (*entry.key(), word(&entry.verdict), entry.bytes)).collect()
    }

    fn insert(&self, key: u64, text: &str, context: &Context<'_>, verdict: &Verdict) {
        let bytes = ENTRY_BYTES + 2 * text.len() + 4 * context.declared.len() + weight(verdict);
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        if bytes > bytes_max / 16 {
            return;
        }
        if self.bytes.load(Ordering::Relaxed) + bytes > bytes_max {
            self.evict();
        }
        let entry = Arc::new(Entry {
            text: text.into(),
            search_path: context.search_path.into(),
            catalog_version: context.catalog.version,
            protocol: context.protocol,
            declared: context.declared.into(),
            verdict: verdict.clone(),
            bytes,
        });
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(old) = self.entries.insert(key, entry) {
            self.bytes.fetch_sub(old.bytes, Ordering::Relaxed);
        }
    }

    /// Drops about half of the entries; which ones does not matter (the map's order is random).
    fn evict(&self) {
        let mut keep = false;
        self.entries.retain(|_, entry| {
            keep = !keep;
            if !keep {
                self.bytes.fetch_sub(entry.bytes, Ordering::Relaxed);
            }
            keep
        });
    }
}

impl Entry {
    fn is_for(&self, text: &str, context: &Context<'_>) -> bool {
        *self.text == *text
            && *self.search_path == *context.search_path
            && self.catalog_version == context.catalog.version
            && self.protocol == context.protocol
            && *self.declared == *context.declared
    }
}

/// About how many bytes a verdict holds.
fn weight(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Pass | Verdict::Refuse(_) => 0,
        Verdict::Ask(asked) => {
            let text = |question: &Question| match question {
                Question::Names { text, .. } => 4 * text.len(),
                Question::Prepared(name) => name.len(),
            };
            asked.questions.iter().map(text).sum::<usize>() + weight(&asked.then)
        }
        Verdict::Rewrite(plans) => plans
            .iter()
            .map(|p| {
                let columns = p.result.as_ref().map_or(0, |columns| columns.len());
                let copied = match p.copy.as_deref() {
                    Some(Copy::In(copy)) => 256 + 64 * copy.names.len() + 160 * copy.row.values.len(),
                    Some(Copy::Out(copy)) => 256 + 64 * copy.columns.len(),
                    None => 0,
                };
                256 + 160 * (p.edits.len() + p.values.len()) + 32 * (p.params.len() + columns) + copied
            })
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_the_same_plan_and_stays_bounded() {
        let catalog = crate::sql::cases::catalog();
        let path = ["public".to_owned()];
        let context = Context { catalog: &catalog, search_path: &path, protocol: Protocol::Extended, declared: &[] };
        let cache = Cache::new(100_000);
        let planned = |text: &str| match cache.plan(text, &context) {
            Verdict::Rewrite(plans) => plans,
            other => panic!("{other:?}"),
        };
        let text = "SELECT email FROM users";
        assert!(Arc::ptr_eq(&planned(text), &planned(text)));
        let other = Context { search_path: &["other".to_owned()], ..context };
        assert!(matches!(cache.plan(text, &other), Verdict::Pass));
        for n in 0..2000 {
            planned(&format!("SELECT email FROM users WHERE id = {n}"));
        }
        assert!(cache.bytes.load(Ordering::Relaxed) <= 100_000);
        assert!(cache.entries.len() < 200);
    }
}
