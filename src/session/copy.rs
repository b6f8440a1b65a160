//! COPY: which way a message of the client's goes while rows may be on their way. A row meant for a sealed table is
//! forwarded by `copy_in` alone, or not at all; `copy_out` opens the rows that come back.
use bytes::{Buf, BufMut, BytesMut};

use crate::refusal::{Class, Refusal};
use crate::sql::plan::{Copy, StatementPlan};
use crate::wire::copy::{Bad, FILE_HEADER, Forced, Format, Options, Writer, Written};
use crate::wire::frame::{self, HEADER, Header, Malformed};
use crate::wire::frontend;
use crate::wire::read::Reader;

use super::copy_in::Receiving;
use super::copy_lines::SentLines;
use super::machine::{Fatal, Machine};
use super::named::Reply;
use super::queue::Expect;

/// What the client's rows are for.
#[derive(Default)]
pub(super) enum Copying {
    /// No COPY is known to take any.
    #[default]
    Nothing,
    /// A COPY that the server has begun, into a table that is not sealed.
    Plain,
    /// A COPY that the server has begun, into a sealed table.
    Sealed(Box<Receiving>),
    /// A COPY that has failed: the client may not know yet.
    Failed,
}

/// The state of COPY FROM STDIN.
#[derive(Default)]
pub(super) struct CopyIn {
    pub now: Copying,
    /// Bytes of a CopyData message still to come that belong to a sealed COPY.
    pub left: usize,
    /// The last message that could begin a COPY may have meant a sealed table.
    pub may_be_sealed: bool,
    /// Ends that were sent before the server said that the COPY has begun.
    pub early_ends: usize,
    /// What the client is told in place of the server's error, and where it happened.
    pub failure: Option<(Refusal, String)>,
    /// The server's version.
    pub version: u32,
    /// Which of the client's lines the rows came from that the server is sent in binary.
    pub sent: Option<SentLines>,
}

/// What becomes of a message of a COPY.
enum Road {
    Pass,
    Wait,
    Seal,
    Drop,
}

impl Machine {
    /// A Query or Execute is on its way: rows that follow are for it.
    pub(super) fn begins(&mut self, is_sealed: bool) {
        self.copy.may_be_sealed = is_sealed;
        if matches!(self.copy.now, Copying::Failed) {
            self.copy.now = Copying::Nothing;
        }
    }

    /// Rows wait while it is open whether the server takes them for a sealed table. Where the last COPY was refused or
    /// has failed they are dropped: the server would not look at them, but be told.
    fn road(&self) -> Road {
        match &self.copy.now {
            Copying::Sealed(_) => Road::Seal,
            Copying::Plain => Road::Pass,
            Copying::Failed => Road::Drop,
            Copying::Nothing if self.queue.awaits_copy_in() => Road::Wait,
            Copying::Nothing if self.copy.may_be_sealed => Road::Drop,
            Copying::Nothing => Road::Pass,
        }
    }

    /// CopyData, CopyDone or CopyFail; false when it has to wait.
    pub(super) fn copy_message(&mut self, header: Header, input: &mut BytesMut) -> Result<bool, Fatal> {
        let is_end = header.tag != b'd';
        match self.road() {
            Road::Wait => {
                self.undecided = true;
                return Ok(false);
            }
            Road::Drop => self.client_skip = header.total,
            Road::Pass => {
                self.client_pass = header.total;
                if is_end {
                    let was = std::mem::take(&mut self.copy.now);
                    self.copy.early_ends += usize::from(matches!(was, Copying::Nothing));
                }
            }
            Road::Seal if !is_end => {
                input.advance(HEADER);
                self.copy.left = header.total - HEADER;
            }
            Road::Seal if header.tag == b'f' => {
                self.client_pass = header.total;
                self.copy.now = Copying::Failed;
            }
            Road::Seal if header.total != HEADER => return Err(Malformed.into()),
            Road::Seal => {
                input.advance(HEADER);
                self.copy_in = false;
                self.copy_done();
                return Ok(true);
            }
        }
        self.copy_in &= !is_end;
        Ok(true)
    }

    /// CopyInResponse: the server waits for rows.
    pub(super) fn copy_in_begins(&mut self, frame: &[u8]) -> Result<(), Fatal> {
        self.copy_in = true;
        self.after_copy = false;
        if matches!(self.queue.front(), Some(Expect::Execute(_))) {
            self.queue.drop_syncs();
        }
        self.copy.sent = None;
        let reply = match self.queue.reply() {
            Some(Reply::Copy(copy, facts)) => Some((copy.clone(), facts.clone())),
            _ => None,
        };
        if let Some((copy, facts)) = reply
            && let Copy::In(plan) = &*copy
        {
            put_response(b'G', (plan.options.format, plan.names.len()), &mut self.to_client);
            let is_planned = width(frame)? == plan.names.len();
            let row_bytes_max = self.message_bytes_max;
            let receiving = Receiving::new((copy.clone(), plan), facts, self.copy.version, row_bytes_max);
            self.copy.now = Copying::Sealed(Box::new(receiving));
            if !is_planned {
                self.reload = true;
                self.fail_copy(super::server_side::changed(), String::new());
            } else if plan.binary.is_some() {
                self.copy.sent = Some(SentLines::new(&plan.table));
                frontend::put_raw(&mut self.to_server, b'd', FILE_HEADER);
            }
            return Ok(());
        }
        self.to_client.extend_from_slice(frame);
        if self.copy.early_ends > 0 {
            self.copy.early_ends -= 1;
        } else {
            self.copy.now = Copying::Plain;
        }
        Ok(())
    }

    /// An error has ended the COPY under way. What the client is told in place of it, where the proxy has asked for it.
    pub(super) fn copy_in_fails(&mut self, fields: &[(u8, &[u8])]) -> Option<(Refusal, String)> {
        self.copy_in = false;
        if matches!(self.copy.now, Copying::Sealed(_) | Copying::Plain) {
            self.copy.now = Copying::Failed;
        }
        let has = |code: u8, with: &[u8]| {
            fields.iter().any(|(found, text)| *found == code && memchr::memmem::find(text, with).is_some())
        };
        self.copy.failure.take().filter(|_| has(b'C', b"57014") && has(b'M', MARK))
    }

    /// The server answers nothing more of what came before.
    pub(super) fn copy_in_settled(&mut self) {
        self.copy_in = false;
        self.copy.failure = None;
        self.copy.sent = None;
        if self.queue.is_empty() {
            self.copy.early_ends = 0;
        }
    }

    /// Ends the COPY in the server.
    pub(super) fn put_copy_fail(&mut self) {
        frame::write(&mut self.to_server, b'f', |out| frame::put_cstr(out, MARK));
    }

    /// ParameterStatus: the server says its version.
    pub(super) fn note_parameter(&mut self, body: &[u8]) {
        let version = body.strip_prefix(b"server_version\0").unwrap_or_default();
        let digits = version.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if let Some(major) = std::str::from_utf8(&version[..digits]).ok().and_then(|text| text.parse::<u32>().ok()) {
            self.copy.version = major;
        }
    }
}

/// What the server is told when the proxy ends a COPY.
pub(super) const MARK: &[u8] = b"a row was refused by rowseal";

/// How many columns a CopyInResponse or CopyOutResponse speaks of.
pub(super) fn width(frame: &[u8]) -> Result<usize, Malformed> {
    let mut reader = Reader::new(&frame[HEADER..]);
    reader.byte()?;
    reader.count()
}

/// Appends a CopyInResponse (`G`) or CopyOutResponse (`H`) for so many columns in the client's format.
pub(super) fn put_response(tag: u8, (format, columns): (Format, usize), out: &mut BytesMut) {
    let code = i16::from(format == Format::Binary);
    frame::write(out, tag, |out| {
        out.put_u8(code as u8);
        out.put_u16(columns as u16);
        (0..columns).for_each(|_| out.put_i16(code));
    });
}

/// Appends the names of columns as the first line of rows; nothing where there are none.
pub(super) fn put_names((options, names): (&Options, &[String]), out: &mut BytesMut) {
    if names.is_empty() {
        return;
    }
    // Postgres quotes names only where they need it.
    let options = Options { force_quote: Forced::None, ..options.clone() };
    let writer = Writer::new(&options, names.len());
    frame::write(out, b'd', |out| {
        for (at, name) in names.iter().enumerate() {
            writer.field(at, Written::Value(name.as_bytes()), out);
        }
        writer.end(out);
    });
}

/// Rows that are not in the form of one.
pub(super) fn bad_rows(bad: Bad) -> Refusal {
    Refusal::new(Class::BadCopy, bad.to_string())
}

/// Refuses, in the extended protocol, a COPY with values in its query: it takes no parameters.
///
/// # Errors
/// 0A000.
pub(super) fn without_values(plan: &StatementPlan) -> Result<(), Refusal> {
    match plan.copy {
        Some(_) if !plan.values.is_empty() => {
            Err(Refusal::new(Class::NotSupported, "COPY of a query that searches sealed columns cannot be prepared")
                .hint("Send it as a simple query."))
        }
        _ => Ok(()),
    }
}

/// True for a statement that takes rows for a sealed table.
pub(super) fn takes_rows(plan: &StatementPlan) -> bool {
    matches!(plan.copy.as_deref(), Some(Copy::In(_)))
}

/// Appends a CopyDone.
pub(super) fn put_copy_done(out: &mut BytesMut) {
    frontend::put_empty(out, b'c');
}
