//! What runs by itself: confirming the keys in use, following the registry. Ends when [`Keys`](super::Keys) is gone.
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::inner::Inner;

/// Canaries decrypted at a time.
const CONFIRMATIONS_MAX: usize = 16;

pub(super) fn start(inner: &Arc<Inner>) {
    // A third, so that one lost call does not make a key unusable.
    every(inner, inner.settings.confirm_interval / 3, confirm_used);
    every(inner, inner.settings.epoch_interval, follow_registry);
}

fn every<F>(inner: &Arc<Inner>, period: Duration, act: impl Fn(Arc<Inner>) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let weak = Arc::downgrade(inner);
    let mut ticks = interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    inner.runtime.spawn(async move {
        loop {
            ticks.tick().await;
            let Some(inner) = weak.upgrade() else { return };
            act(inner).await;
        }
    });
}

/// Decrypts a canary of every master key that was used lately; drops the keys of the others.
async fn confirm_used(inner: Arc<Inner>) {
    let (now, window) = (inner.now(), inner.settings.active_window.as_millis() as u64);
    let mut tasks = JoinSet::new();
    for master in inner.all_masters() {
        master.forget_demand(inner.settings.pool_target);
        if !master.used_within(now, window) {
            master.wipe();
            continue;
        }
        if tasks.len() >= CONFIRMATIONS_MAX {
            tasks.join_next().await;
        }
        let (inner, deadline) = (inner.clone(), inner.settings.deadline);
        // Its outcome is kept in the master; without one in time, the keys expire.
        tasks.spawn(async move { drop(timeout(deadline, inner.confirm(&master)).await) });
    }
    while tasks.join_next().await.is_some() {}
    inner.deks.sweep(inner.now());
}

/// Takes up a new epoch, drops the keys it affects, and only then acknowledges it.
async fn follow_registry(inner: Arc<Inner>) {
    if let Err(error) = inner.follow().await {
        tracing::warn!(%error, "the registry does not answer");
    }
}
