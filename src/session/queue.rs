//! The replies that the server still owes, in order.
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::machine::Prepared;
use super::named::Reply;

/// One message sent to the server whose reply is to come.
#[derive(Debug)]
pub enum Expect {
    /// The login's end: parameters, key data, ReadyForQuery.
    Startup,
    /// ParseComplete. On failure the statement's old entry is restored.
    Parse {
        /// The statement's name.
        name: Bytes,
        /// What stood under the name before.
        before: Option<Arc<Prepared>>,
    },
    /// BindComplete.
    Bind,
    /// Parameter and row description of a statement.
    Statement(Option<Arc<Prepared>>),
    /// Row description of a portal.
    Portal(Option<Reply>),
    /// The same for a simple query that runs as extended messages: its client is not told of no rows.
    QueryPortal(Option<Reply>),
    /// Rows and the end of a portal's execution.
    Execute(Option<Reply>),
    /// CloseComplete, with the statement's name and entry: it goes only when the server did close it.
    Close(Option<(Bytes, Option<Arc<Prepared>>)>),
    /// ReadyForQuery.
    Sync,
    /// The results of a simple query, one entry a statement, then ReadyForQuery; `None` for a plain query.
    Query(Option<Arc<[Option<Reply>]>>, usize),
    /// FunctionCallResponse, then ReadyForQuery.
    Function,
    /// A reply to the proxy's own: swallowed.
    Own(Own),
}

/// What the proxy asked for on its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// A reply without content: Close, Parse or Bind of an internal query.
    Step,
    /// The rows of the facts query; the last reply of that query.
    Facts,
    /// The rows of a lock query; the last reply of that query.
    Lock,
    /// The statement that raises a refusal: its error is the client's.
    Refusal,
    /// The simple query that raises a refusal: its error is the client's, its row description is not.
    RefusalQuery,
    /// ReadyForQuery for the proxy's own Sync.
    Sync,
    /// The query that aborts the transaction after a refusal in mid-result; ReadyForQuery follows.
    Abort,
}

/// A first-in, first-out queue of what is expected.
#[derive(Debug, Default)]
pub struct Queue(VecDeque<Expect>);

impl Queue {
    /// Adds at the end.
    pub fn push(&mut self, expect: Expect) {
        self.0.push_back(expect);
    }

    /// True when a Parse under this name is under way.
    pub fn expects_parse(&self, of: &[u8]) -> bool {
        self.0.iter().any(|expect| matches!(expect, Expect::Parse { name, .. } if **name == *of))
    }

    /// Adds before everything else.
    pub fn push_front(&mut self, expect: Expect) {
        self.0.push_front(expect);
    }

    /// What the next reply belongs to.
    pub fn front(&self) -> Option<&Expect> {
        self.0.front()
    }

    /// The same, to be changed.
    pub fn front_mut(&mut self) -> Option<&mut Expect> {
        self.0.front_mut()
    }

    /// Takes the first entry.
    pub fn pop(&mut self) -> Option<Expect> {
        self.0.pop_front()
    }

    /// True when nothing is expected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many replies are expected.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes everything up to the next Sync, the client's or the proxy's, which stays; second: whether it is the
    /// client's.
    pub fn skip_to_sync(&mut self) -> (Vec<Expect>, bool) {
        let end = self.0.iter().position(|expect| matches!(expect, Expect::Sync | Expect::Own(Own::Sync)));
        let skipped = self.0.drain(..end.unwrap_or(self.0.len())).collect();
        (skipped, matches!(self.0.front(), Some(Expect::Sync)))
    }

    /// The proxy's own Sync is next: its ReadyForQuery is the client's after all. False when it is not.
    pub fn give_sync(&mut self) -> bool {
        match self.0.front_mut() {
            Some(first @ Expect::Own(Own::Sync)) => {
                *first = Expect::Sync;
                true
            }
            _ => false,
        }
    }

    /// Takes out the Syncs that the server eats during COPY IN; how many follow is known only by the client's order,
    /// so all that are queued now go.
    pub fn drop_syncs(&mut self) {
        self.0.retain(|expect| !matches!(expect, Expect::Sync));
    }
}
