//! How long a session holds on to the epoch under which it was given data keys: from before they are asked for until the
//! server has answered, outside of any transaction, a Sync or Query that was sent with the cells or behind them. Then
//! there is no cell left in a buffer, a portal or a transaction.
use crate::keys::{Granted, Keys, Need, Pin};
use crate::refusal::Refusal;
use crate::sql::plan::StatementPlan;

use super::machine::{Held, Machine};
use super::messages::merge;
use super::seal::{self, Inputs};
use super::work::Work;

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
    /// The keys for these plans, or `None` when they must be waited for (the need is left in `client_work`).
    pub(super) fn granted(
        &mut self,
        plans: &[StatementPlan],
        inputs: &Inputs<'_>,
        held: &mut Held,
    ) -> Result<Option<Granted>, Refusal> {
        self.cells_leave(false);
        if let Some(granted) = held.granted.take() {
            return Ok(Some(granted));
        }
        let mut need = Need::default();
        for plan in plans {
            merge(&mut need, seal::needs(plan, inputs)?);
        }
        if need.fresh.is_empty() && need.index.is_empty() && need.seek.is_empty() && need.open.is_empty() {
            return Ok(Some(Granted::default()));
        }
        self.pinned.pin_for(&self.shared.keys, &need);
        if let Some(granted) = self.shared.keys.try_grant(&need) {
            return Ok(Some(granted));
        }
        self.client_work.put(Work::Grant(need));
        Ok(None)
    }

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
