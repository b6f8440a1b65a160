//! The replies that the server still owes, in order.
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::machine::Prepared;
use super::named::{Given, Reply};
use crate::sql::render::Positions;

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
        /// Where the pieces of a rewritten text stand.
        positions: Option<Arc<Positions>>,
    },
    /// BindComplete, and where the pieces of a rewritten text stand, for the server may analyse it anew.
    Bind(Option<Arc<Positions>>),
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
    /// The results of a simple query, then ReadyForQuery; `None` for a plain query. The number: results complete so far.
    Query(Option<Rewritten>, usize),
    /// FunctionCallResponse, then ReadyForQuery.
    Function,
    /// The reply to a question about names: swallowed, but an error is the client's. With where the pieces of the text asked
    /// about stand.
    Asked(Arc<Positions>),
    /// ParseComplete of a statement that the proxy prepared again: swallowed. On failure its old entry is restored.
    Renewed {
        /// The statement's name.
        name: Bytes,
        /// What stood under the name before.
        before: Option<Arc<Prepared>>,
    },
    /// A reply to the proxy's own: swallowed.
    Own(Own),
}

impl Expect {
    /// True when this ends in a ReadyForQuery.
    fn ends_ready(&self) -> bool {
        match self {
            Expect::Startup | Expect::Sync | Expect::Query(..) | Expect::Function => true,
            Expect::Own(own) => matches!(own, Own::Sync | Own::RefusalQuery | Own::Abort),
            Expect::Parse { .. }
            | Expect::Bind(_)
            | Expect::Statement(_)
            | Expect::Portal(_)
            | Expect::QueryPortal(_)
            | Expect::Execute(_)
            | Expect::Close(_)
            | Expect::Renewed { .. }
            | Expect::Asked(_) => false,
        }
    }

    /// True when this is the reply to a PREPARE of such a name.
    fn prepares(&self, is_meant: impl Fn(&[u8]) -> bool) -> bool {
        let gives = |reply: &Reply| matches!(reply, Reply::Gives(given) if matches!(&**given, Given::Statement(of, _) if is_meant(of)));
        match self {
            Expect::Execute(Some(reply)) => gives(reply),
            Expect::Query(Some(rewritten), _) => rewritten.replies.iter().flatten().any(gives),
            _ => false,
        }
    }
}

/// A simple query whose text was rewritten.
#[derive(Debug)]
pub struct Rewritten {
    /// One entry a statement.
    pub replies: Arc<[Option<Reply>]>,
    /// Where the pieces of the text stand.
    pub positions: Positions,
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
    /// The rows of the query of an INSERT ... SELECT, with their description; the last reply of that query.
    Source,
    /// A statement that follows the client's DDL.
    Follow,
    /// The statement that raises a refusal: its error is the client's.
    Refusal,
    /// The simple query that raises a refusal: its error is the client's, its row description is not.
    RefusalQuery,
    /// The query that aborts the transaction after a refusal in mid-result; ReadyForQuery follows.
    Abort,
    /// The ReadyForQuery after the facts query.
    Sync,
}

/// A first-in, first-out queue of what is expected.
#[derive(Debug, Default)]
pub struct Queue {
    expected: VecDeque<Expect>,
    /// A PREPARE may be among them: there was one since nothing was expected.
    may_prepare: bool,
    syncs: u64,
    syncs_answered: u64,
    /// How many messages were sent that end in a ReadyForQuery, and how many of them are answered, or never will be.
    readies: u64,
    readies_done: u64,
}

impl Queue {
    /// Adds at the end.
    pub fn push(&mut self, expect: Expect) {
        self.syncs += u64::from(matches!(expect, Expect::Sync));
        self.readies += u64::from(expect.ends_ready());
        self.may_prepare = (self.may_prepare && !self.is_empty()) || expect.prepares(|_| true);
        self.expected.push_back(expect);
    }

    /// True when a Parse under this name is under way.
    pub fn expects_parse(&self, of: &[u8]) -> bool {
        self.expected.iter().any(|expect| matches!(expect, Expect::Parse { name, .. } if **name == *of))
    }

    /// What the next Parse of this name under way is to restore if it fails.
    pub fn before_next_parse(&mut self, of: &[u8]) -> Option<&mut Option<Arc<Prepared>>> {
        self.expected.iter_mut().find_map(|expect| match expect {
            Expect::Parse { name, before, .. } if **name == *of => Some(before),
            _ => None,
        })
    }

    /// How many Syncs of the client's have been sent.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// True when a message sent before the Sync of this number (from 0) may still turn out to have failed, or to have
    /// been skipped, while one sent now would be carried out.
    pub fn is_undecided(&self, sync: u64) -> bool {
        sync < self.syncs && self.syncs_answered <= sync
    }

    /// Adds before everything else.
    pub fn push_front(&mut self, expect: Expect) {
        self.readies += u64::from(expect.ends_ready());
        self.expected.push_front(expect);
    }

    /// What the next reply belongs to.
    pub fn front(&self) -> Option<&Expect> {
        self.expected.front()
    }

    /// The same, to be changed.
    pub fn front_mut(&mut self) -> Option<&mut Expect> {
        self.expected.front_mut()
    }

    /// Where the pieces of the rewritten text stand that the next reply belongs to.
    pub fn positions(&self) -> Option<&Positions> {
        match self.expected.front()? {
            Expect::Query(rewritten, _) => rewritten.as_ref().map(|rewritten| &rewritten.positions),
            Expect::Parse { positions, .. } | Expect::Bind(positions) => positions.as_deref(),
            Expect::Asked(positions) => Some(positions),
            Expect::Execute(Some(reply)) => reply.positions(),
            _ => None,
        }
    }

    /// What becomes of the reply under way.
    pub fn reply(&self) -> Option<&Reply> {
        match self.expected.front()? {
            Expect::Execute(reply) => reply.as_ref(),
            Expect::Query(Some(rewritten), at) => rewritten.replies.get(*at)?.as_ref(),
            _ => None,
        }
    }

    /// True when a PREPARE of this name is under way. Asked for each Bind, so a long queue is not looked through for nothing.
    pub fn prepares(&self, name: &[u8]) -> bool {
        self.may_prepare && self.expected.iter().any(|expect| expect.prepares(|of| *of == *name))
    }

    /// True when the rows of a COPY into a sealed table are to come, or may still be under way.
    pub fn awaits_copy_in(&self) -> bool {
        self.expected.iter().any(|expect| match expect {
            Expect::Execute(Some(reply)) => reply.takes_rows(),
            Expect::Query(Some(rewritten), at) => rewritten.replies.iter().skip(*at).flatten().any(Reply::takes_rows),
            _ => false,
        })
    }

    /// Takes the first entry.
    pub fn pop(&mut self) -> Option<Expect> {
        let done = self.expected.pop_front();
        self.syncs_answered += u64::from(matches!(done, Some(Expect::Sync)));
        self.readies_done += u64::from(done.as_ref().is_some_and(Expect::ends_ready));
        done
    }

    /// How many messages that end in a ReadyForQuery have been sent.
    pub fn readies(&self) -> u64 {
        self.readies
    }

    /// How many of them are answered, or never will be.
    pub fn readies_done(&self) -> u64 {
        self.readies_done
    }

    /// True when questions about names are still to be answered.
    pub fn asks(&self) -> bool {
        self.expected.iter().any(|expect| matches!(expect, Expect::Asked(_)))
    }

    /// True when nothing is expected.
    pub fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }

    /// True when replies are expected and all will come without a further message: the last is a ReadyForQuery.
    pub fn ends_ready(&self) -> bool {
        matches!(self.expected.back(), Some(Expect::Sync | Expect::Query(..) | Expect::Function))
    }

    /// How many replies are expected.
    pub fn len(&self) -> usize {
        self.expected.len()
    }

    /// Takes everything up to the next Sync, which stays; second: whether there is one of the client's.
    pub fn skip_to_sync(&mut self) -> (Vec<Expect>, bool) {
        let sync = self.expected.iter().position(|expect| matches!(expect, Expect::Sync | Expect::Own(Own::Sync)));
        let of_client = sync.is_some_and(|at| matches!(self.expected.get(at), Some(Expect::Sync)));
        let skipped: Vec<Expect> = self.expected.drain(..sync.unwrap_or(self.expected.len())).collect();
        self.readies_done += skipped.iter().filter(|expect| expect.ends_ready()).count() as u64;
        (skipped, of_client)
    }

    /// The failed facts query, or question about names, with the Sync behind it, the last of all, is answered: by that Sync's ReadyForQuery where
    /// the client waits for one. False when no such query stands in front.
    pub fn fail_facts(&mut self, ready_for_client: bool) -> bool {
        let asked = matches!(self.expected.front(), Some(Expect::Own(Own::Step | Own::Facts) | Expect::Asked(_)));
        if !asked || !matches!(self.expected.back(), Some(Expect::Own(Own::Sync))) {
            return false;
        }
        self.readies_done = self.readies;
        self.expected.clear();
        self.push(if ready_for_client { Expect::Sync } else { Expect::Own(Own::Sync) });
        true
    }

    /// Takes out the Syncs that the server eats during COPY IN; how many follow is known only by the client's order,
    /// so all that are queued now go.
    pub fn drop_syncs(&mut self) {
        let before = self.expected.len();
        self.expected.retain(|expect| !matches!(expect, Expect::Sync));
        let dropped = (before - self.expected.len()) as u64;
        self.syncs_answered += dropped;
        self.readies_done += dropped;
    }
}
