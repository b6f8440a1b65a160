//! How long a session holds on to the epoch under which it was given data keys: from before they are asked for until the
//! server has answered, outside of any transaction, a Sync or Query that was sent with the cells or behind them. Then
//! there is no cell left in a buffer, a portal or a transaction.
use crate::keys::{Keys, Need, Pin};

use super::machine::Machine;

/// The pin of one session.
#[derive(Default)]
pub(super) struct Pinned {
    pin: Pin,
    /// How many ReadyForQuery were owed for what was sent before the last cells.
    behind: u64,
}

impl Pinned {
    /// Pins the epoch where keys are about to be asked for that cells are sealed under, or that given cells are under.
    pub(super) fn pin_for(&mut self, keys: &Keys, need: &Need) {
        if !(need.fresh.is_empty() && need.open.is_empty()) {
            keys.pin(&mut self.pin);
        }
    }
}

impl Machine {
    /// Notes that cells may be among what is sent now: with a message that is still to be expected, or inside the one
    /// whose reply is awaited first.
    pub(super) fn cells_leave(&mut self, inside: bool) {
        let owed = if inside { self.queue.readies_done() } else { self.queue.readies() };
        self.pinned.behind = self.pinned.behind.max(owed);
    }

    /// The server is outside of any transaction: lets go if it has read all cells. A message that waits may wait with keys.
    pub(super) fn unpin_if_done(&mut self) {
        if self.status != b'I' {
            return;
        }
        if self.pinned.pin.is_held() && self.hold.is_none() && self.queue.readies_done() > self.pinned.behind {
            self.pinned.pin.release();
        }
    }

    /// True while cells may be on their way to the server, or in a transaction that has not ended.
    pub fn is_pinned(&self) -> bool {
        self.pinned.pin.is_held()
    }

    /// Whether what is in [`Machine::to_server`] may still be sent.
    pub fn may_send(&self) -> bool {
        self.shared.keys.may_send(&self.pinned.pin)
    }

    /// The server has closed: nothing is on its way any more.
    pub fn on_server_gone(&mut self) {
        self.pinned.pin.release();
    }
}
