//! The bounds of pools, caches and waits.
use std::time::Duration;

/// Settings of [`Keys`](super::Keys).
#[derive(Debug, Clone)]
pub struct KeysSettings {
    /// How long a key stays usable after the KMS last said that it is: the bound of revocation.
    pub confirm_interval: Duration,
    /// How long a definitive refusal of the KMS is believed without asking again.
    pub refused_for: Duration,
    /// How long one grant may wait.
    pub deadline: Duration,
    /// Ready data keys kept for each active tenant in direct mode; grows with demand.
    pub pool_target: usize,
    /// The most that demand can make of it.
    pub pool_target_max: usize,
    /// KMS calls at a time for opening.
    pub unwraps_max: usize,
    /// KMS calls at a time for fresh data keys.
    pub generates_max: usize,
    /// Bound of the cache of opened data keys, in bytes.
    pub cache_bytes_max: usize,
    /// How long an opened data key stays cached.
    pub cache_ttl: Duration,
    /// A master key unused for this long is no longer confirmed in the background, and its keys are dropped.
    pub active_window: Duration,
    /// How often the registry's epoch is looked at.
    pub epoch_interval: Duration,
    /// Without word from the registry for this long, no fresh keys are given: a rotation may have fenced this proxy.
    pub registry_stale: Duration,
}

impl Default for KeysSettings {
    fn default() -> Self {
        KeysSettings {
            confirm_interval: Duration::from_secs(60),
            refused_for: Duration::from_secs(5),
            deadline: Duration::from_secs(10),
            pool_target: 32,
            pool_target_max: 1024,
            unwraps_max: 64,
            generates_max: 64,
            cache_bytes_max: 64 << 20,
            cache_ttl: Duration::from_secs(600),
            active_window: Duration::from_secs(600),
            epoch_interval: Duration::from_secs(1),
            registry_stale: Duration::from_secs(15),
        }
    }
}
