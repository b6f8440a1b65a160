//! The proxy's own statements inside the client's stream: facts, locks, refusals. Why they end in Flush and not in Sync:
//! docs/decisions/2026-11-internal-queries.md.
use std::sync::{Arc, LazyLock};

use crate::crypto;
use crate::hex;
use crate::keys::Granted;
use crate::refusal::{Class, Refusal};
use crate::sql;
use crate::sql::plan::{Piece, StatementPlan};
use crate::wire::backend;
use crate::wire::frontend::{self, Param};

use super::copied::{self, Sent};
use super::facts::{self, Told};
use super::machine::{Fatal, Held, Hold, Machine, Unsynced};
use super::messages::{inline, malformed, refuse_call, result_formats, searches_only, server_oids, server_params};
use super::queue::{Expect, Own};
use super::seal::{self, Inputs, LockedRow};
use super::shown::Stands;

/// Name of the proxy's own statements and portals: another one in each process, so that no client has it too.
pub(super) static OWN: LazyLock<Vec<u8>> =
    LazyLock::new(|| format!("rowseal_internal_{}", hex::encode(&crypto::random_bytes::<16>())).into_bytes());

impl Machine {
    /// Sends one of the proxy's own statements inside the client's stream.
    pub(super) fn put_question(&mut self, text: &[u8], oids: &[u32], params: &[Param<'_>], last: Own) {
        self.open_own(text, oids, params, &[]);
        frontend::put_execute(&mut self.to_server, &OWN);
        self.queue.push(Expect::Own(last));
    }

    /// Makes a portal of the proxy's own.
    fn open_own(&mut self, text: &[u8], oids: &[u32], params: &[Param<'_>], formats: &[i16]) {
        let out = &mut self.to_server;
        frontend::put_close(out, b'P', &OWN);
        frontend::put_close(out, b'S', &OWN);
        frontend::put_parse(out, &OWN, text, oids);
        frontend::put_bind(out, &OWN, &OWN, params, formats);
        (0..4).for_each(|_| self.queue.push(Expect::Own(Own::Step)));
    }

    /// Runs the second step of a simple query as extended messages: both steps share one implicit transaction, which
    /// a simple query behind extended messages would not.
    pub(super) fn query_second_step(
        &mut self,
        text: &str,
        plan: &StatementPlan,
        inputs: &Inputs<'_>,
        (values, given): (Vec<Option<Vec<u8>>>, Stands),
    ) {
        self.begins(false);
        let text = sql::render::render_extended(text, plan).text;
        let params = server_params(plan, inputs, values);
        // As at every simple query, the client's unnamed statement goes.
        frontend::put_close(&mut self.to_server, b'S', b"");
        self.queue.push(Expect::Own(Own::Step));
        self.open_own(text.as_bytes(), &server_oids(plan, &[]), &params, &result_formats(plan, &[]));
        let reply = Machine::reply(plan, Some(Vec::new()), (inputs.facts, given));
        frontend::put_describe(&mut self.to_server, b'P', &OWN);
        frontend::put_execute(&mut self.to_server, &OWN);
        frontend::put_empty(&mut self.to_server, b'S');
        self.queue.push(Expect::QueryPortal(reply.clone()));
        self.queue.push(Expect::Execute(reply));
        self.queue.push(Expect::Sync);
        self.lock_open = false;
    }

    /// The same, in the transaction of what follows; asks for the reply at once.
    fn ask(&mut self, text: &[u8], oids: &[u32], params: &[Param<'_>], last: Own) {
        self.put_question(text, oids, params, last);
        frontend::put_empty(&mut self.to_server, b'H');
    }

    /// Holds a message until the server has told the session's facts.
    #[expect(clippy::unnecessary_wraps, reason = "one of the ways a held message goes on")]
    pub(super) fn ask_facts(&mut self, held: Held) -> Result<(), Fatal> {
        let question = facts::question(&self.shared.policy(), self.own_schema.is_wanted());
        self.put_question(question.as_bytes(), &[], &[], Own::Facts);
        self.end_question(held.tag);
        self.hold = Some(Hold::Facts(held));
        Ok(())
    }

    /// The row that answers [`Machine::ask_facts`].
    pub(super) fn facts_row(&mut self, body: &[u8]) -> Result<(), Fatal> {
        let row = backend::data_row(body)?;
        let told = row.first().copied().flatten().and_then(|text| facts::answer(text, &self.shared.policy()));
        match told.ok_or_else(|| Fatal(Refusal::new(Class::Internal, "session facts not understood")))? {
            Told::Facts(facts, seen) => {
                self.facts = Some(Arc::from(facts));
                seen.map_or(Ok(()), |seen| self.see(seen))
            }
            Told::Outdated => {
                self.outdated = true;
                Ok(())
            }
        }
    }

    /// Asks for the replies to a question in front of a message of this kind: by a Sync where that ends nothing of the
    /// client's.
    pub(super) fn end_question(&mut self, tag: u8) {
        // The end of a simple query takes portals with it anyway.
        let shared = if tag == b'Q' { Unsynced::Executed } else { Unsynced::Bound };
        if self.unsynced >= shared {
            frontend::put_empty(&mut self.to_server, b'H');
        } else {
            frontend::put_empty(&mut self.to_server, b'S');
            self.queue.push(Expect::Own(Own::Sync));
        }
    }

    /// Holds a message until the server has locked the rows it updates and said whose they are, or has given the rows that
    /// it inserts.
    pub(super) fn ask_lock(
        &mut self,
        held: Held,
        plan: &StatementPlan,
        inputs: &Inputs<'_>,
        mut granted: Granted,
        oids: &[u32],
    ) -> Result<(), Refusal> {
        let Some(lock) = &plan.lock else { return Err(malformed()) };
        let mut uses = Vec::new();
        let values = seal::compute(&searches_only(plan), inputs, &mut granted, &mut uses)?;
        self.audit(uses, 0, granted.kms_requests)?;
        let asked: (Vec<u8>, Vec<u32>, Vec<Param<'_>>) = if held.tag == b'Q' {
            self.lock_open = true;
            let piece = |piece: &Piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Value(slot) => inline(&plan.values[*slot].role, values[*slot].as_deref()),
            };
            let query: String = lock.pieces.iter().map(piece).collect();
            (query.into_bytes(), Vec::new(), Vec::new())
        } else {
            let query = sql::render::render_lock_extended(plan).unwrap_or_default();
            let params: Vec<Param<'_>> = server_params(plan, inputs, values)
                .into_iter()
                .enumerate()
                .map(
                    |(n, param)| {
                        if lock.uses.contains(&(n as u16 + 1)) { param } else { Param { format: 0, value: None } }
                    },
                )
                .collect();
            let types: Vec<u32> = server_oids(plan, oids)
                .into_iter()
                .enumerate()
                .map(|(n, oid)| if lock.uses.contains(&(n as u16 + 1)) { oid } else { 25 })
                .collect();
            (query.into_bytes(), types, params)
        };
        let (text, types, params) = asked;
        match &lock.copies {
            None => {
                self.ask(&text, &types, &params, Own::Lock);
                self.hold = Some(Hold::Lock(held, Vec::new()));
            }
            Some(copies) => {
                self.open_own(&text, &types, &params, &copied::formats(copies));
                frontend::put_describe(&mut self.to_server, b'P', &OWN);
                frontend::put_execute(&mut self.to_server, &OWN);
                self.queue.push(Expect::Own(Own::Source));
                frontend::put_empty(&mut self.to_server, b'H');
                self.hold = Some(Hold::Source(held, Sent::default()));
            }
        }
        Ok(())
    }

    /// Keeps a row that the lock query gave.
    pub(super) fn locked_row(&mut self, body: &[u8]) -> Result<(), Fatal> {
        let row = backend::data_row(body)?;
        let text = |at: usize| row.get(at).copied().flatten().map(|text| String::from_utf8_lossy(text).into_owned());
        let (Some(table), Some(ctid)) = (text(0), text(1)) else {
            return Err(Fatal(Refusal::new(Class::Internal, "locked row not understood")));
        };
        if let Some(Hold::Lock(_, rows)) = &mut self.hold {
            rows.push(LockedRow { table, row: ctid, tenant: text(2).map(Into::into) });
        }
        Ok(())
    }

    /// Raises a refusal in the server in place of the client's message.
    pub(super) fn refuse(&mut self, tag: u8, refusal: &Refusal) -> Result<(), Fatal> {
        self.audit_refusal(refusal);
        self.begins(true);
        let call = refuse_call(refusal);
        if tag == b'Q' && !self.lock_open {
            self.queue.push(Expect::Own(Own::RefusalQuery));
            frontend::put_query(&mut self.to_server, call.as_bytes());
        } else {
            self.ask(call.as_bytes(), &[], &[], Own::Refusal);
            // The server will skip what follows up to Sync. It is not told either: a Bind there means the statement that
            // was refused, and its values are nothing for an older one of that name.
            self.skipping = tag != b'Q';
            if tag == b'Q' {
                frontend::put_empty(&mut self.to_server, b'S');
                self.queue.push(Expect::Sync);
                self.lock_open = false;
            }
        }
        Ok(())
    }
}
