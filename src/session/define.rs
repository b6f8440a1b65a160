//! DDL that is more than one statement: what follows it runs in its transaction, and the client is told of the whole.
use std::sync::Arc;

use bytes::Bytes;

use crate::refusal::{Class, Refusal};
use crate::sql::plan::{Ddl, StatementPlan};
use crate::wire::backend;

use super::machine::Machine;
use super::named::Reply;
use super::queue::Own;

/// The reply to a definition whose further statements are under way.
pub(super) struct Defined {
    complete: Bytes,
    notice: Option<String>,
    left: usize,
}

/// Refuses a definition that makes nothing because its table exists, until that has been looked at again.
///
/// # Errors
/// The class that makes the session read the schema.
pub(super) fn certain(plans: &[StatementPlan], reloaded: bool) -> Result<(), Refusal> {
    let skipped = |plan: &StatementPlan| plan.ddl.as_ref().is_some_and(|ddl| ddl.is_skipped);
    match !reloaded && plans.iter().any(skipped) {
        true => Err(Refusal::new(Class::UnknownColumn, "it is not certain that a table exists").hint("Try again.")),
        false => Ok(()),
    }
}

impl Machine {
    /// Sends what follows a definition in the extended protocol.
    pub(super) fn follow(&mut self, ddl: &Ddl) {
        self.expect_change();
        for statement in &ddl.then {
            self.put_question(statement.as_bytes(), &[], &[], Own::Follow);
        }
    }

    /// DDL is under way: the schema is read again before it is used.
    pub(super) fn expect_change(&mut self) {
        self.reload = true;
        self.ddl.begin();
        self.own_schema.doubt();
    }

    /// A CommandComplete of a definition, or, in a simple query, of what follows one; false for any other.
    pub(super) fn definition_complete(&mut self, frame: &[u8]) -> bool {
        let ddl: Option<Arc<Ddl>> = match self.queue.reply() {
            Some(Reply::Defines(ddl)) => Some(ddl.clone()),
            Some(Reply::Follows) => None,
            _ => return false,
        };
        match ddl {
            Some(ddl) => {
                let complete = Bytes::copy_from_slice(frame);
                let notice = ddl.notice.clone();
                self.defined = Some(Defined { complete, notice, left: ddl.then.len() + 1 });
                self.followed();
            }
            None => self.followed(),
        }
        self.advance(b'C');
        true
    }

    /// One more statement of a definition is done; after the last one the client is told.
    pub(super) fn followed(&mut self) {
        let Some(defined) = &mut self.defined else { return };
        defined.left = defined.left.saturating_sub(1);
        if defined.left > 0 {
            return;
        }
        if let Some(Defined { complete, notice, .. }) = self.defined.take() {
            if let Some(notice) = notice {
                let fields = [(b'S', &b"NOTICE"[..]), (b'V', b"NOTICE"), (b'C', b"00000"), (b'M', notice.as_bytes())];
                backend::put_notice(&mut self.to_client, b'N', fields.into_iter());
            }
            self.to_client.extend_from_slice(&complete);
        }
    }
}
