//! Single flight: callers that want the same thing at the same time share one act.
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::OnceCell;

/// The acts under way, by what is wanted.
pub(super) struct Flights<K: Hash + Eq, V>(DashMap<K, Arc<OnceCell<V>>>);

impl<K: Hash + Eq + Clone, V: Clone> Flights<K, V> {
    pub(super) fn new() -> Self {
        Flights(DashMap::new())
    }

    /// Acts, or waits for the one who does.
    ///
    /// # Cancel safety
    /// Safe: when the one who acts is dropped, one who waits acts instead.
    pub(super) async fn share<F: Future<Output = V>>(&self, key: K, act: impl FnOnce() -> F) -> V {
        let flight = self.0.entry(key.clone()).or_default().clone();
        let landing = Landing { flights: self, key, flight };
        landing.flight.get_or_init(act).await.clone()
    }
}

/// Takes a flight off the list when it has landed or its caller has gone.
struct Landing<'a, K: Hash + Eq, V> {
    flights: &'a Flights<K, V>,
    key: K,
    flight: Arc<OnceCell<V>>,
}

impl<K: Hash + Eq, V> Drop for Landing<'_, K, V> {
    fn drop(&mut self) {
        self.flights.0.remove_if(&self.key, |_, flight| Arc::ptr_eq(flight, &self.flight));
    }
}
