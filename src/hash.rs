//! The maps that a statement looks into. Their hash is a fast one with a random seed: whoever can choose the keys (names of
//! statements, ids of data keys) cannot see the seed, and hurts no one's session but their own.
pub use foldhash::fast::RandomState;

/// A map shared between threads, under [`RandomState`].
pub type DashMap<K, V> = dashmap::DashMap<K, V, RandomState>;

/// The standard map under [`RandomState`].
pub type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;
