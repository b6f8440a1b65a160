//! COPY FROM STDIN into a sealed table: rows are found in what the client sends, their sealed fields are sealed, and they
//! go on, in binary where all other columns mean the same there, else in the same format. Of the rows only those are held
//! that wait for keys, and the one that is not whole yet.
use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Buf, BytesMut};

use crate::keys::Granted;
use crate::refusal::{Class, Refusal};
use crate::sql::plan::{self, Copy};
use crate::wire::copy::{FILE_END, Field, Format, Header, Piece, Reader, Value, fields, value};
use crate::wire::frontend;

use super::copy::{Copying, bad_rows, put_copy_done, put_names};
use super::copy_rows::{By, Form, Taken};
use super::facts::Facts;
use super::machine::{Hold, Machine};
use super::messages::too_large;
use super::seal::Use;
use super::work::Work;

/// Rows, and about how many of their bytes, that are sealed at a time.
const ROWS_MAX: usize = 256;
const BYTES_MAX: usize = 64 * 1024;

/// A COPY whose rows are being received.
pub(super) struct Receiving {
    copy: Arc<Copy>,
    facts: Arc<Facts>,
    form: Form,
    reader: Reader,
    /// The largest row that is taken.
    row_bytes_max: usize,
    /// The first line is still to come.
    heads: bool,
    /// Rows that have been taken; between two calls, those that wait for keys.
    taken: Taken,
    fields: Vec<Field>,
    /// What is wrong behind the rows that have been taken.
    failure: Option<Failure>,
    /// The client has sent all.
    is_ended: bool,
    /// The end of binary data has come.
    is_marked: bool,
}

/// Why a COPY ends, and where.
struct Failure {
    refusal: Refusal,
    line: u64,
    /// Counted from 0.
    column: Option<usize>,
}

impl Receiving {
    /// `version`: the server's.
    pub(super) fn new(
        (copy, plan): (Arc<Copy>, &plan::CopyIn),
        facts: Arc<Facts>,
        version: u32,
        row_bytes_max: usize,
    ) -> Self {
        // Before Postgres 18 `\.` ends CSV too.
        let (reader, heads) =
            (Reader::new(&plan.options, (1..18).contains(&version)), plan.options.header != Header::None);
        Receiving {
            reader,
            row_bytes_max,
            heads,
            form: Form::new(plan, version),
            copy,
            facts,
            taken: Taken::default(),
            fields: Vec::new(),
            failure: None,
            is_ended: false,
            is_marked: false,
        }
    }

    fn plan(&self) -> Option<&plan::CopyIn> {
        match &*self.copy {
            Copy::In(copy) => Some(copy),
            Copy::Out(_) => None,
        }
    }

    /// Takes the next rows that are whole. What comes before them goes to `out`. What is wrong is said once the rows
    /// before it are gone.
    fn rows(&mut self, copy: &plan::CopyIn, out: &mut BytesMut) -> Result<(), Failure> {
        let mut bytes = 0;
        while self.taken.len() < ROWS_MAX && bytes < BYTES_MAX && self.failure.is_none() {
            match self.row(copy, out) {
                Ok(Some(taken)) => bytes += taken,
                Ok(None) => break,
                Err(failure) => self.failure = Some(failure),
            }
        }
        match self.failure.take_if(|_| self.taken.len() == 0) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Takes the next row; gives its length.
    fn row(&mut self, copy: &plan::CopyIn, out: &mut BytesMut) -> Result<Option<usize>, Failure> {
        let here = |refusal: Refusal, line: u64| Failure { refusal, line, column: None };
        loop {
            let piece = self.reader.piece(self.is_ended).map_err(|bad| {
                let line = if bad.is_ahead() { 0 } else { self.reader.line() };
                here(bad_rows(bad), line)
            })?;
            match piece {
                // A row that is not whole yet is held no longer than one that is.
                None if self.reader.held() > self.row_bytes_max => {
                    return Err(here(too_large(self.row_bytes_max), self.reader.line()));
                }
                // No line at all is one without names.
                None if self.is_ended && std::mem::take(&mut self.heads) => {
                    self.header(copy, b"").map_err(|refusal| here(refusal, 1))?;
                }
                None => return Ok(None),
                Some(Piece::Row(row, line)) if row.len() > self.row_bytes_max => {
                    return Err(here(too_large(self.row_bytes_max), line));
                }
                Some(Piece::FileHeader(header)) => frontend::put_raw(out, b'd', &header),
                Some(Piece::End) => self.is_marked = true,
                Some(Piece::Row(line, number)) if self.heads => {
                    self.heads = false;
                    self.header(copy, &line).map_err(|refusal| here(refusal, number))?;
                    if !self.form.is_binary {
                        put_names((&copy.options, &copy.names), out);
                    }
                }
                Some(Piece::Row(row, line)) => {
                    let by = By { copy, form: &self.form, facts: &self.facts };
                    let taken = self.taken.take((&row, line), by, &mut self.fields);
                    taken.map_err(|(refusal, column)| Failure { refusal, line, column })?;
                    return Ok(Some(row.len()));
                }
            }
        }
    }

    /// The first line is not passed on, for it may be a row; where it must name the columns, that is checked here.
    fn header(&self, copy: &plan::CopyIn, line: &[u8]) -> Result<(), Refusal> {
        if copy.options.header != Header::Match {
            return Ok(());
        }
        let bad = |what: String| Refusal::new(Class::BadCopy, what);
        let found = fields(line, &copy.options).map_err(bad_rows)?;
        if found.len() != copy.names.len() {
            let (found, expected) = (found.len(), copy.names.len());
            return Err(bad(format!("wrong number of fields in header line: got {found}, expected {expected}")));
        }
        for (at, (field, name)) in found.iter().zip(&copy.names).enumerate() {
            if value(line, field, at, &copy.options) != Value::Bytes(Cow::Borrowed(name.as_bytes())) {
                let at = at + 1;
                return Err(bad(format!("column name mismatch in header line field {at}: expected \"{name}\"")));
            }
        }
        Ok(())
    }
}

impl Machine {
    /// Takes what there is of a CopyData message.
    pub(super) fn copy_bytes(&mut self, input: &mut BytesMut) {
        let n = self.copy.left.min(input.len()).min(BYTES_MAX);
        if let Copying::Sealed(receiving) = &mut self.copy.now {
            receiving.reader.feed(&input[..n]);
        }
        input.advance(n);
        self.copy.left -= n;
        self.copy_rows();
    }

    /// CopyDone: what is left is the last row.
    pub(super) fn copy_done(&mut self) {
        if let Copying::Sealed(receiving) = &mut self.copy.now {
            receiving.is_ended = true;
        }
        self.copy_rows();
    }

    /// Seals the rows that are whole, as far as keys are at hand.
    pub(super) fn copy_rows(&mut self) {
        while let Copying::Sealed(receiving) = &mut self.copy.now {
            let copy = receiving.copy.clone();
            let Copy::In(plan) = &*copy else { return };
            if let Err(failure) = receiving.rows(plan, &mut self.to_server) {
                return self.fail_row(failure);
            }
            if receiving.taken.len() == 0 {
                if receiving.is_ended {
                    self.copy_ends();
                }
                return;
            }
            let need = &receiving.taken.need;
            self.pinned.pin_for(&self.shared.keys, need);
            match self.shared.keys.try_grant(need) {
                Some(granted) => self.seal_rows(plan, granted),
                None => {
                    self.client_work.put(Work::Grant(need.clone()));
                    self.hold = Some(Hold::Copy);
                    return;
                }
            }
        }
    }

    /// The keys that rows have waited for.
    pub(super) fn copy_granted(&mut self, granted: Result<Granted, Refusal>) {
        let Copying::Sealed(receiving) = &mut self.copy.now else { return };
        let copy = receiving.copy.clone();
        let Copy::In(plan) = &*copy else { return };
        match granted {
            Ok(granted) => {
                self.seal_rows(plan, granted);
                self.copy_rows();
            }
            Err(refusal) => {
                let line = receiving.taken.lines().next().unwrap_or(0);
                self.fail_row(Failure { refusal, line, column: None });
            }
        }
    }

    /// Sends the rows that have been taken.
    fn seal_rows(&mut self, plan: &plan::CopyIn, mut granted: Granted) {
        self.cells_leave(true);
        let Copying::Sealed(receiving) = &mut self.copy.now else { return };
        let by = By { copy: plan, form: &receiving.form, facts: &receiving.facts };
        let (mut out, mut uses) = (BytesMut::new(), Vec::<Use>::new());
        let sealed = receiving.taken.seal(by, &mut granted, &mut uses, &mut out);
        let lines: Vec<u64> = receiving.taken.lines().collect();
        receiving.taken.clear();
        let whole = sealed.as_ref().map_or_else(|(row, _)| *row, |()| lines.len());
        let line = |row: usize| lines.get(row).copied().unwrap_or(0);
        if let Err(refusal) = self.audit(uses, whole as u64, granted.kms_requests) {
            return self.fail_row(Failure { refusal, line: line(0), column: None });
        }
        if let Some(sent) = &mut self.copy.sent {
            lines[..whole].iter().for_each(|line| sent.note(*line));
        }
        if !out.is_empty() {
            frontend::put_raw(&mut self.to_server, b'd', &out);
        }
        if let Err((row, refusal)) = sealed {
            self.fail_row(Failure { refusal, line: line(row), column: None });
        }
    }

    /// All rows are on their way.
    fn copy_ends(&mut self) {
        if let Copying::Sealed(receiving) = &self.copy.now
            && (receiving.form.is_binary
                || (receiving.is_marked && receiving.plan().is_some_and(|plan| plan.options.format == Format::Binary)))
        {
            frontend::put_raw(&mut self.to_server, b'd', &FILE_END);
        }
        put_copy_done(&mut self.to_server);
        self.copy.now = Copying::Nothing;
    }

    fn fail_row(&mut self, failure: Failure) {
        let mut context = String::new();
        if let Copying::Sealed(receiving) = &self.copy.now
            && let Some(plan) = receiving.plan()
        {
            if failure.line > 0 {
                context = format!("COPY {}, line {}", plan.table, failure.line);
            }
            if let Some(name) = failure.column.and_then(|column| plan.names.get(column)) {
                context = format!("{context}, column {name}");
            }
        }
        self.fail_copy(failure.refusal, context);
    }

    /// Ends the COPY in the server, whose error the client then gets in these words.
    pub(super) fn fail_copy(&mut self, refusal: Refusal, context: String) {
        self.audit_refusal(&refusal);
        self.put_copy_fail();
        (self.copy_in, self.copy.now) = (false, Copying::Failed);
        self.copy.failure = Some((refusal, context));
    }
}
