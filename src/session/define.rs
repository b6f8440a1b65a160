//! DDL that is more than one statement: what follows it runs in its transaction, and the client is told of the whole.
use std::sync::Arc;

use bytes::Bytes;

use crate::sql::plan::Ddl;
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

impl Machine {
    /// Sends what follows a definition in the extended protocol.
    pub(super) fn follow(&mut self, ddl: &Ddl) {
        self.reload = true;
        self.own_schema.doubt();
        for statement in &ddl.then {
            self.put_question(statement.as_bytes(), &[], &[], Own::Follow);
        }
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
