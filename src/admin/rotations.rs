//! The rotations that this proxy works on in the background, and what they last told. How far they are is in the registry.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::jobs::Event;

/// A rotation by its database and tenant.
type Of = (Arc<str>, String);

/// All that were begun here since the proxy started.
#[derive(Debug, Default)]
pub struct Rotations(Mutex<HashMap<Of, Told>>);

/// What a rotation has told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Whether it is still at work here.
    pub is_running: bool,
    /// What it waits for, what it warns of, or why it stopped; empty where there is nothing to say.
    pub note: String,
}

impl Rotations {
    /// One at work tells something.
    pub(super) fn tell(&self, of: &Of, event: Event<'_>) {
        let note = match event {
            Event::Waiting(reason) => Some(format!("waiting: {reason}")),
            Event::Warning(text) => Some(format!("warning: {text}")),
            Event::State(_) => Some(String::new()),
            Event::Progress(_) => None,
        };
        self.change(of, |told| {
            told.is_running = true;
            if let Some(note) = note {
                told.note = note;
            }
        });
    }

    /// One at work has come to its end, or stopped; `why` is empty where it is done.
    pub(super) fn end(&self, of: &Of, why: String) {
        self.change(of, |told| *told = Told { is_running: false, note: why });
    }

    /// What one has told here.
    pub fn told(&self, database: &Arc<str>, tenant: &str) -> Told {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(database.clone(), tenant.to_owned())).cloned().unwrap_or_default()
    }

    fn change(&self, of: &Of, change: impl FnOnce(&mut Told)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(of.clone()).or_default());
    }
}
