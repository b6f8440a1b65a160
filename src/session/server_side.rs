//! The server's direction: which replies pass, are swallowed, described anew or opened.
use std::sync::{Arc, LazyLock};

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::Finder;

use crate::keys::Need;
use crate::policy::Read;
use crate::refusal::{Class, Refusal};
use crate::wire::backend;
use crate::wire::frame::{self, HEADER, Header};
use crate::wire::frontend;

use super::copied::CopiedRows;
use super::machine::{Fatal, Held, Hold, Machine, Mute, OUT_BYTES_MAX, Prepared};
use super::messages::{refuse_call, too_large};
use super::named::Reply;
use super::notices::put_error;
use super::open::{Batch, Session, Shape};
use super::queue::{Expect, Own};
use super::work::Work;

/// No cell, nor the text form of one, is shorter.
pub(super) const CELL_BYTES_MIN: usize = 109;

/// Looks for magic, version and suite of a cell, as bytes.
static CELL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\xC1\x52\x53\x01\x01"));
/// For the same in the hex form of bytea.
static CELL_HEX: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\xc152530101"));
/// For the magic of a cell in the escape form of bytea, inside another value too.
static CELL_ESCAPED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\301RS\\"));

impl Machine {
    /// Takes what the server sent: as many whole messages as can go on now are consumed from `input`.
    ///
    /// # Errors
    /// [`Fatal`] when the server breaks the protocol; the session ends then.
    pub fn on_server(&mut self, input: &mut BytesMut) -> Result<(), Fatal> {
        while !input.is_empty() && !self.rows_wait && self.to_client.len() < OUT_BYTES_MAX {
            if self.tunnel {
                self.to_client.extend_from_slice(input);
                input.clear();
                return Ok(());
            }
            if self.server_pass > 0 {
                let n = self.server_pass.min(input.len());
                self.guard(&input[..n])?;
                self.to_client.extend_from_slice(&input[..n]);
                input.advance(n);
                self.server_pass -= n;
                continue;
            }
            if self.server_skip > 0 {
                let n = self.server_skip.min(input.len());
                input.advance(n);
                self.server_skip -= n;
                continue;
            }
            let Some(header) = frame::header(input)? else { break };
            if input.len() < header.total {
                if header.total > self.message_bytes_max && self.large_row(header) {
                    continue;
                }
                input.reserve(header.total - input.len());
                break;
            }
            if matches!(header.tag, b'D' | b'C') && !self.described.is_empty() {
                let described = self.described.split();
                self.to_client.extend_from_slice(&described);
            }
            if header.tag == b'D'
                && self.mute == Mute::Off
                && let Some(shape) = self.current_shape()
            {
                self.sealed_rows(&shape, input)?;
                continue;
            }
            if header.tag == b'd' && self.mute == Mute::Off && self.sending.is_some() {
                self.copy_out_data(input)?;
                continue;
            }
            let frame = input.split_to(header.total);
            self.server_frame(header, &frame)?;
        }
        Ok(())
    }

    /// A row too large to be held: it passes or is dropped as it comes. False when it is to be held all the same: a
    /// cell that a message of the largest size wrote can be read back, also as text, which takes twice the bytes.
    fn large_row(&mut self, header: Header) -> bool {
        match (header.tag, self.mute) {
            (b'D' | b'd', Mute::UntilReady) => self.server_skip = header.total,
            (b'D', Mute::Off) if matches!(self.queue.front(), Some(Expect::Own(Own::Source))) => {
                self.copied_bytes(header.total);
                self.server_skip = header.total;
            }
            (b'D' | b'd', Mute::Off) if self.current_shape().is_none() && self.sending.is_none() => {
                self.server_pass = header.total
            }
            (b'D' | b'd', Mute::Off) if header.total / 3 > self.message_bytes_max => {
                self.break_off(&too_large(self.message_bytes_max));
                self.server_skip = header.total;
            }
            _ => return false,
        }
        true
    }

    /// The shape that rows arriving now belong to, when it has sealed columns.
    pub(super) fn current_shape(&self) -> Option<Arc<Shape>> {
        self.shape_of(self.queue.reply()?)
    }

    fn server_frame(&mut self, header: Header, frame: &[u8]) -> Result<(), Fatal> {
        let body = &frame[HEADER..];
        if header.tag == b'C' {
            self.ddl.completed(body);
        }
        match header.tag {
            b'A' if holds_cell(frame) => self.notification(body),
            b'A' | b'S' => {
                if header.tag == b'S' {
                    self.note_parameter(body);
                }
                self.to_client.extend_from_slice(frame);
            }
            b'N' => self.notice(b'N', body)?,
            b'E' => return self.error(body),
            b'Z' => return self.ready(frame),
            b'W' => {
                self.tunnel = true;
                self.to_client.extend_from_slice(frame);
            }
            // The client does not know that rows are waited for.
            b'G' if self.mute == Mute::UntilReady => self.put_copy_fail(),
            _ if self.mute == Mute::UntilReady => self.advance(header.tag),
            _ if self.own(header.tag, body)? || self.asked(header.tag)? => {}
            b'n' if matches!(self.queue.front(), Some(Expect::QueryPortal(_))) => self.advance(b'n'),
            b'T' => self.describe_rows(frame)?,
            b't' => self.describe_parameters(frame)?,
            b'D' | b'd' | b'V' => {
                if self.guard_row(frame) {
                    self.to_client.extend_from_slice(frame);
                }
            }
            b'G' => self.copy_in_begins(frame)?,
            b'H' => self.copy_out_begins(frame)?,
            b'c' => self.copy_out_done(frame),
            b'C' if self.definition_complete(frame) => {}
            _ => {
                self.to_client.extend_from_slice(frame);
                self.advance(header.tag);
            }
        }
        Ok(())
    }

    /// Moves the queue on after a reply that ends an entry.
    pub(super) fn advance(&mut self, tag: u8) {
        if tag == b'C' {
            self.copy_in = false;
            self.copy.sent = None;
            if let Some(Reply::Gives(given)) = self.queue.reply() {
                self.give(&given.clone());
            }
        }
        let done = match (tag, self.queue.front_mut()) {
            (b'1', Some(Expect::Parse { .. })) => {
                if let Some(Expect::Parse { name, .. }) = self.queue.pop() {
                    self.is_prepared(&name);
                }
                false
            }
            (b'2', Some(Expect::Bind(_))) => true,
            (b'3', Some(Expect::Close(closed))) => {
                let closed = closed.take();
                self.closed(closed);
                true
            }
            (b'T' | b'n', Some(Expect::Statement(_) | Expect::Portal(_) | Expect::QueryPortal(_))) => true,
            (b'C' | b'I' | b's', Some(Expect::Execute(_))) => true,
            (b'C' | b'I', Some(Expect::Query(_, at))) => {
                *at += 1;
                false
            }
            _ => false,
        };
        if done {
            self.queue.pop();
        }
    }

    /// Forgets a statement that the server has closed, unless another one has its name by now.
    fn closed(&mut self, closed: Option<(Bytes, Option<Arc<Prepared>>)>) {
        let Some((name, was)) = closed else { return };
        self.is_closed(&name);
        let same = |now: &Arc<Prepared>| was.as_ref().is_some_and(|was| Arc::ptr_eq(was, now));
        if self.statements.get(&name).is_some_and(same) {
            self.statements.remove(&name);
            self.gone.add(name.clone());
        }
        if !self.fact_statements.is_empty() && !self.queue.expects_parse(&name) {
            self.fact_statements.remove(&name);
        }
    }

    /// Swallows a reply to the proxy's own statement; false when it belongs to the client.
    fn own(&mut self, tag: u8, body: &[u8]) -> Result<bool, Fatal> {
        let own = match self.queue.front() {
            Some(Expect::Own(own)) => own,
            Some(Expect::Renewed { .. }) if tag == b'1' => {
                self.queue.pop();
                return Ok(true);
            }
            _ => return Ok(false),
        };
        match (*own, tag) {
            (Own::Step, b'1' | b'2' | b'3') => {
                self.queue.pop();
            }
            (Own::Facts, b'D') => self.facts_row(body)?,
            (Own::Lock, b'D') => self.locked_row(body)?,
            (Own::Source, b'T') => self.copied_columns(body)?,
            (Own::Source, b'D') => self.copied_row(body),
            (_, b'C') => {
                let own = *own;
                self.queue.pop();
                return self.own_done(own).map(|()| true);
            }
            _ => {}
        }
        Ok(true)
    }

    /// The reply to one of the proxy's statements is complete: what was held goes on.
    fn own_done(&mut self, own: Own) -> Result<(), Fatal> {
        match (own, self.hold.take()) {
            (Own::Facts, Some(Hold::Facts(held))) => {
                if std::mem::take(&mut self.outdated) {
                    return self.ask_facts(held);
                }
                if self.facts.is_none() {
                    return Err(Fatal(Refusal::new(Class::Internal, "session facts not answered")));
                }
                self.resume(Held { told: true, ..held })
            }
            (Own::Follow, hold) => {
                self.hold = hold;
                self.followed();
                Ok(())
            }
            (Own::Lock, Some(Hold::Lock(held, rows))) => self.resume(Held { locked: Some(rows), ..held }),
            (Own::Source, Some(Hold::Source(held, sent))) => {
                self.resume(Held { copied: Some(CopiedRows::Sent(sent)), ..held })
            }
            (_, hold) => {
                self.hold = hold;
                Ok(())
            }
        }
    }

    /// An ErrorResponse: forwarded, and the queue moved on as the server does.
    fn error(&mut self, body: &[u8]) -> Result<(), Fatal> {
        let own = match self.queue.front() {
            Some(Expect::Own(own)) => Some(*own),
            _ => None,
        };
        self.facts = None;
        self.described.clear();
        self.defined = None;
        let fields = backend::notice(body)?;
        let told = self.copy_in_fails(&fields).or_else(|| self.misled(&fields));
        self.sending = None;
        self.rows = super::open::Rows::default();
        match (self.mute, own) {
            (Mute::UntilReady, _) | (_, Some(Own::Abort)) => {}
            _ => match told {
                Some((refusal, context)) => put_error(&mut self.to_client, &refusal, &context),
                None => self.notice(b'E', body)?,
            },
        }
        match self.queue.front() {
            Some(
                Expect::Query(..)
                | Expect::Function
                | Expect::Sync
                | Expect::Startup
                | Expect::Own(Own::Abort | Own::RefusalQuery),
            )
            | None => Ok(()),
            Some(_) => {
                self.fail_pipeline();
                Ok(())
            }
        }
    }

    /// After an error in the extended protocol everything up to the next Sync is skipped by the server.
    fn fail_pipeline(&mut self) {
        let simple = matches!(&self.hold, Some(Hold::Facts(held) | Hold::Names(held, _)) if held.tag == b'Q');
        if self.queue.fail_facts(simple) {
            self.drop_held();
            self.skipping = !simple;
            return;
        }
        let (skipped, synced) = self.queue.skip_to_sync();
        let held = skipped
            .iter()
            .any(|expect| matches!(expect, Expect::Own(Own::Facts | Own::Lock | Own::Source) | Expect::Asked(_)));
        let first_own = matches!(skipped.first(), Some(Expect::Own(_) | Expect::Renewed { .. } | Expect::Asked(_)));
        for expect in skipped.into_iter().rev() {
            match expect {
                Expect::Parse { name, before, .. } => self.restore(name, before),
                Expect::Renewed { name, before } => self.not_renewed(name, before),
                _ => {}
            }
        }
        self.skipping = !synced;
        if !synced && matches!(self.hold, Some(Hold::Keys(_) | Hold::Schema(_))) {
            self.drop_held();
        }
        if !held {
            return;
        }
        // The held message is answered by this error (or skipped with the rest of the pipeline).
        if !matches!(self.hold, Some(Hold::Facts(_) | Hold::Names(..) | Hold::Lock(..) | Hold::Source(..))) {
            return;
        }
        let tag = self.drop_held();
        if tag == Some(b'Q') && first_own && !synced {
            self.skipping = false;
            self.lock_open = false;
            self.queue.push(Expect::Sync);
            frontend::put_empty(&mut self.to_server, b'S');
        }
    }

    fn ready(&mut self, frame: &[u8]) -> Result<(), Fatal> {
        let status = frame.get(HEADER).copied().unwrap_or(b'I');
        let done = self.queue.pop();
        self.status = status;
        self.unpin_if_done();
        if matches!(done, Some(Expect::Own(Own::Sync))) {
            return Ok(());
        }
        self.copy_in_settled();
        if status == b'I' {
            self.own_schema.forget();
            self.ddl.ended(self.queue.is_empty());
        }
        if status == b'I' && self.queue.is_empty() {
            self.portals.clear();
            self.fact_portals.clear();
        }
        if std::mem::replace(&mut self.mute, Mute::Off) == Mute::UntilReady && status == b'T' {
            if !self.queue.is_empty() {
                return Err(Fatal(Refusal::damaged().detail("The transaction could not be aborted in time.")));
            }
            let refusal = Refusal::new(Class::Internal, "transaction aborted after a value could not be opened");
            frontend::put_query(&mut self.to_server, refuse_call(&refusal).as_bytes());
            self.queue.push_front(Expect::Own(Own::Abort));
            return Ok(());
        }
        self.to_client.extend_from_slice(frame);
        Ok(())
    }

    /// Opens the rows that stand whole in `input`, in one batch.
    fn sealed_rows(&mut self, shape: &Arc<Shape>, input: &mut BytesMut) -> Result<(), Fatal> {
        let end = batch_end(input, b'D')?;
        let frames = input.split_to(end);
        let opened = self.open_batch(shape, bodies(&frames))?;
        match opened {
            Opened::Done => self.rows.release(),
            Opened::Refused(refusal) => self.break_off(&refusal),
            Opened::Needs(need) => match self.shared.keys.try_grant(&need) {
                Some(granted) => {
                    self.rows.grant(granted);
                    put_back(input, frames);
                }
                None => {
                    put_back(input, frames);
                    self.rows_wait = true;
                    self.server_work = Some(Work::Grant(need));
                }
            },
        }
        Ok(())
    }

    pub(super) fn open_batch<'a>(
        &mut self,
        shape: &'a Shape,
        rows: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Opened, Fatal> {
        let mut batch = match Batch::read(shape, rows)? {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                self.reload = true;
                return Ok(Opened::Refused(changed()));
            }
            Err(refusal) => return Ok(Opened::Refused(refusal)),
        };
        if matches!(shape.facts.read, Read::Open | Read::Mask) {
            match batch.keys(&mut self.rows, &self.shared.keys.at_hand()) {
                Ok(need) if need.open.is_empty() && need.index.is_empty() => {}
                Ok(need) => return Ok(Opened::Needs(need)),
                Err(refusal) => return Ok(Opened::Refused(refusal)),
            }
        }
        let session = Session { facts: &shape.facts, on_unavailable: shape.facts.policy.on_key_unavailable };
        let (mut uses, start) = (Vec::new(), self.to_client.len());
        let (rows, opened) = batch.open(&self.rows, &session, &mut uses, &mut self.to_client);
        let requests = self.rows.take_requests();
        if let Err(refusal) = self.audit(uses, rows, requests) {
            self.to_client.truncate(start);
            return Ok(Opened::Refused(refusal));
        }
        Ok(opened.map_or_else(Opened::Refused, |()| Opened::Done))
    }

    /// Replaces the rest of the current result by an error; everything up to ReadyForQuery is swallowed.
    pub(super) fn break_off(&mut self, refusal: &Refusal) {
        self.audit_refusal(refusal);
        put_error(&mut self.to_client, refusal, "");
        self.sending = None;
        self.rows = super::open::Rows::default();
        self.mute = Mute::UntilReady;
        if !matches!(self.queue.front(), Some(Expect::Query(..) | Expect::Function)) {
            let (_, synced) = self.queue.skip_to_sync();
            self.skipping = !synced;
            if !synced {
                self.drop_held();
            }
        }
    }

    /// The net under the filter: a row that nobody planned for must not hold a cell. False when it was refused.
    fn guard_row(&mut self, frame: &[u8]) -> bool {
        if !holds_cell(frame) || self.sees_cells() {
            return true;
        }
        self.break_off(&unplanned());
        false
    }

    /// The same for a message too large to be held: the session ends.
    fn guard(&self, bytes: &[u8]) -> Result<(), Fatal> {
        if holds_cell(bytes) && !self.sees_cells() { Err(Fatal(unplanned())) } else { Ok(()) }
    }

    fn sees_cells(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.read == Read::Sealed)
    }
}

/// True when the bytes hold something that begins like a cell, in binary or in the hex form of bytea.
pub(super) fn holds_cell(bytes: &[u8]) -> bool {
    CELL.find_iter(bytes).any(|at| matches!(bytes.get(at + 5..at + 7), Some([0..=3, 0 | 16]) | None))
        || CELL_ESCAPED.find(bytes).is_some()
        || CELL_HEX
            .find_iter(bytes)
            .any(|at| matches!(bytes.get(at + 12..at + 16), Some([b'0', b'0'..=b'3', b'0' | b'1', b'0']) | None))
}

/// The same of a plain value, which is too short for a cell most times.
pub(super) fn holds_whole_cell(bytes: &[u8]) -> bool {
    bytes.len() >= CELL_BYTES_MIN && holds_cell(bytes)
}

pub(super) fn unplanned() -> Refusal {
    Refusal::new(Class::NotSupported, "the result holds sealed values that cannot be opened here")
        .hint("Select the sealed columns by name from their table.")
}

pub(super) fn changed() -> Refusal {
    Refusal::new(Class::NotSupported, "the result is not the one that was planned: the schema has changed")
        .hint("Try again.")
}

/// What came of a batch of rows.
pub(super) enum Opened {
    /// All are with the client.
    Done,
    /// Keys are missing; nothing was done.
    Needs(Need),
    /// The rows before the one that could not be opened are with the client.
    Refused(Refusal),
}

/// Puts frames back before those that follow them.
fn put_back(input: &mut BytesMut, mut frames: BytesMut) {
    frames.unsplit(std::mem::take(input));
    *input = frames;
}

/// Where the run of whole frames of this kind at the start of `input` ends.
pub(super) fn batch_end(input: &[u8], tag: u8) -> Result<usize, Fatal> {
    let mut end = 0;
    while let Some(header) = frame::header(&input[end..])? {
        if header.tag != tag || input.len() - end < header.total {
            break;
        }
        end += header.total;
    }
    Ok(end)
}

/// The bodies of a run of whole frames.
pub(super) fn bodies(mut batch: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let header = frame::header(batch).ok().flatten()?;
        let (frame, rest) = batch.split_at_checked(header.total)?;
        batch = rest;
        Some(&frame[HEADER..])
    })
}
