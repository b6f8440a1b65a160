//! Work that the machine leaves to the driver, and which message an answer is for.
use crate::keys::{Granted, Need};
use crate::refusal::Refusal;

use super::machine::{Fatal, Hold, Machine};

/// Work the driver does for the machine, one piece for each direction.
#[derive(Debug, Clone)]
pub enum Work {
    /// Ask the keys; then [`Machine::on_granted`].
    Grant(Need),
    /// Load the schema anew; then [`Machine::on_reloaded`].
    Reload,
}

/// Which direction a piece of work holds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Messages of the client.
    Client,
    /// Replies of the server.
    Server,
}

/// Which piece of work an answer belongs to: a message that fails while it waits leaves its work behind, and the next
/// message that waits must not take that answer for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkId {
    side: Side,
    number: u64,
}

/// Work of the client's direction, the last that came up.
#[derive(Debug, Default)]
pub(super) struct ClientWork {
    /// Until the driver takes it.
    work: Option<Work>,
    number: u64,
}

impl ClientWork {
    /// Leaves this to the driver. Answers to what came up before are late from now on.
    pub fn put(&mut self, work: Work) {
        self.work = Some(work);
        self.number += 1;
    }

    /// Whether an answer is for the last message that waited.
    pub fn is_last(&self, id: WorkId) -> bool {
        id.number == self.number
    }
}

impl Machine {
    /// Work that has come up for one direction since the last call. Its answer is given with the same id.
    pub fn take_work(&mut self, side: Side) -> Option<(WorkId, Work)> {
        match side {
            Side::Client => {
                let number = self.client_work.number;
                self.client_work.work.take().map(|work| (WorkId { side, number }, work))
            }
            // The server is not read while its rows wait, so nothing comes in between.
            Side::Server => self.server_work.take().map(|work| (WorkId { side, number: 0 }, work)),
        }
    }

    /// The answer to [`Work::Grant`].
    ///
    /// # Errors
    /// [`Fatal`] as in [`Machine::on_client`].
    pub fn on_granted(&mut self, id: WorkId, granted: Result<Granted, Refusal>) -> Result<(), Fatal> {
        match id.side {
            Side::Client if self.client_work.is_last(id) => self.client_granted(granted),
            Side::Client => Ok(()),
            Side::Server => self.server_granted(granted),
        }
    }

    fn client_granted(&mut self, granted: Result<Granted, Refusal>) -> Result<(), Fatal> {
        // What waited for these keys may be gone, and another message wait for an answer of the server's by now.
        let mut held = match self.hold.take_if(|hold| matches!(hold, Hold::Keys(_) | Hold::Copy)) {
            Some(Hold::Keys(held)) => held,
            Some(Hold::Copy) => {
                self.copy_granted(granted);
                return Ok(());
            }
            _ => return Ok(()),
        };
        match granted {
            Ok(granted) => {
                held.granted = Some(granted);
                self.resume(held)
            }
            Err(refusal) => self.refuse(held.tag, &refusal),
        }
    }

    fn server_granted(&mut self, granted: Result<Granted, Refusal>) -> Result<(), Fatal> {
        self.rows_wait = false;
        match granted {
            Ok(granted) => {
                self.rows.grant(granted);
                self.copy_out_rows()
            }
            Err(refusal) => {
                self.break_off(&refusal);
                Ok(())
            }
        }
    }
}
