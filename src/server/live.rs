//! The sessions there are, for who asks.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// One session.
pub struct LiveSession {
    /// Its number on this proxy.
    pub id: u64,
    /// Its database.
    pub database: String,
    /// The role that logged in.
    pub user: String,
    /// Where the client is.
    pub client: Arc<str>,
    /// `application_name`.
    pub application: Arc<str>,
    /// When its login was done.
    pub since: SystemTime,
    /// What [`LiveSession::state`] is told from.
    pub status: Arc<AtomicU8>,
}

impl LiveSession {
    /// For sessions whose bytes are not looked at.
    pub const RELAYED: u8 = b'R';
    /// For those of the console.
    pub const CONSOLE: u8 = b'C';

    /// What it does, in the words of `pg_stat_activity` where there are some.
    pub fn state(&self) -> &'static str {
        match self.status.load(Ordering::Relaxed) {
            b'I' => "idle",
            b'T' => "idle in transaction",
            b'E' => "idle in transaction (aborted)",
            Self::RELAYED => "passed through",
            Self::CONSOLE => "console",
            _ => "active",
        }
    }
}

/// All of them.
#[derive(Default)]
pub struct Live(Mutex<BTreeMap<u64, Arc<LiveSession>>>);

/// One session among them; dropped when it ends.
pub struct Present {
    live: Arc<Live>,
    id: u64,
}

impl Live {
    /// A session has begun.
    pub fn enter(self: &Arc<Self>, session: LiveSession) -> Present {
        let id = session.id;
        self.sessions().insert(id, Arc::new(session));
        Present { live: self.clone(), id }
    }

    /// Those that there are now, oldest first.
    pub fn list(&self) -> Vec<Arc<LiveSession>> {
        self.sessions().values().cloned().collect()
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<LiveSession>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.live.sessions().remove(&self.id);
    }
}
