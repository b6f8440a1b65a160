//! COPY FROM STDIN into a sealed table: rows are found in what the client sends, their sealed fields are sealed, and they
//! go on in the same format. Of the rows only those are held that wait for keys, and the one that is not whole yet.
use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::keys::{Granted, Need};
use crate::refusal::{Class, Refusal};
use crate::sql::plan::{self, Copy, Role, Source, StatementPlan, TenantSource};
use crate::wire::copy::{Field, Format, Header, Piece, Reader, Value, Writer, Written, fields, value};
use crate::wire::frontend;

use super::copy::{Copying, bad_rows, put_copy_done};
use super::facts::Facts;
use super::machine::{Hold, Machine, Work};
use super::messages::{merge, too_large};
use super::seal::{self, Inputs, Use};

/// Rows, and about how many of their bytes, that are sealed at a time.
const ROWS_MAX: usize = 256;
const BYTES_MAX: usize = 64 * 1024;

/// A COPY whose rows are being received.
pub(super) struct Receiving {
    copy: Arc<Copy>,
    facts: Arc<Facts>,
    reader: Reader,
    /// The largest row that is taken.
    row_bytes_max: usize,
    /// The first line is still to come.
    heads: bool,
    /// Rows that wait for keys.
    waiting: Vec<Row>,
    /// What is wrong behind the rows that have been taken.
    failure: Option<Failure>,
    /// The client has sent all.
    is_ended: bool,
    /// The end of binary data has come.
    is_marked: bool,
}

/// A row taken apart.
struct Row {
    bytes: Bytes,
    line: u64,
    fields: Vec<Field>,
}

/// Why a COPY ends, and where.
struct Failure {
    refusal: Refusal,
    line: u64,
    /// Counted from 0.
    column: Option<usize>,
}

impl Receiving {
    pub(super) fn new((copy, facts): (Arc<Copy>, Arc<Facts>), marks_csv: bool, row_bytes_max: usize) -> Self {
        let options = match &*copy {
            Copy::In(copy) => &copy.options,
            Copy::Out(copy) => &copy.options,
        };
        let (reader, heads) = (Reader::new(options, marks_csv), options.header != Header::None);
        Receiving {
            reader,
            row_bytes_max,
            heads,
            copy,
            facts,
            waiting: Vec::new(),
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

    /// The next rows that are whole. What comes before them goes to `out`. What is wrong is said once the rows before
    /// it have been looked at.
    fn rows(&mut self, copy: &plan::CopyIn, out: &mut BytesMut) -> Result<Vec<Row>, Failure> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < ROWS_MAX && bytes < BYTES_MAX && self.failure.is_none() {
            match self.row(copy, out) {
                Ok(Some(row)) => {
                    bytes += row.bytes.len();
                    rows.push(row);
                }
                Ok(None) => break,
                Err(failure) => self.failure = Some(failure),
            }
        }
        match self.failure.take_if(|_| rows.is_empty()) {
            Some(failure) => Err(failure),
            None => Ok(rows),
        }
    }

    /// The next row.
    fn row(&mut self, copy: &plan::CopyIn, out: &mut BytesMut) -> Result<Option<Row>, Failure> {
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
                None => return Ok(None),
                Some(Piece::Row(row, line)) if row.len() > self.row_bytes_max => {
                    return Err(here(too_large(self.row_bytes_max), line));
                }
                Some(Piece::FileHeader(header)) => frontend::put_raw(out, b'd', &header),
                Some(Piece::End) => self.is_marked = true,
                Some(Piece::Row(line, number)) if self.heads => {
                    self.heads = false;
                    self.header(copy, &line).map_err(|refusal| here(refusal, number))?;
                    put_names(copy, out);
                }
                Some(Piece::Row(bytes, line)) => return Row::read(bytes, line, copy).map(Some),
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

/// Appends the names of the columns as the first line.
fn put_names(copy: &plan::CopyIn, out: &mut BytesMut) {
    let writer = Writer::new(&copy.options, copy.names.len());
    let mut line = BytesMut::new();
    for (at, name) in copy.names.iter().enumerate() {
        writer.field(at, Written::Value(name.as_bytes()), &mut line);
    }
    writer.end(&mut line);
    frontend::put_raw(out, b'd', &line);
}

impl Row {
    fn read(bytes: Bytes, line: u64, copy: &plan::CopyIn) -> Result<Self, Failure> {
        let failure = |message: Refusal| Failure { refusal: message, line, column: None };
        let bad = |message: String| failure(Refusal::new(Class::BadCopy, message));
        let found = fields(&bytes, &copy.options).map_err(|bad| failure(bad_rows(bad)))?;
        let (count, expected) = (found.len(), copy.names.len());
        if copy.options.format == Format::Binary && count != expected {
            return Err(bad(format!("row field count is {count}, expected {expected}")));
        }
        if let Some(missing) = copy.names.get(count) {
            return Err(bad(format!("missing data for column \"{missing}\"")));
        }
        if count > expected {
            return Err(bad("extra data after last expected column".to_owned()));
        }
        Ok(Row { bytes, line, fields: found })
    }

    /// The values that the plan of a row takes; the others stay out.
    fn params(&self, copy: &plan::CopyIn) -> Result<Vec<Option<Cow<'_, [u8]>>>, Failure> {
        let mut params = vec![None; self.fields.len()];
        for slot in &copy.row.values {
            let Source::Param(sealed) = slot.source else { continue };
            let tenant = match &slot.role {
                Role::Seal { tenant: TenantSource::Param { index, .. }, .. } => Some(*index),
                _ => None,
            };
            for column in [Some(sealed), tenant].into_iter().flatten().map(usize::from) {
                let Some(field) = self.fields.get(column) else { continue };
                params[column] = match value(&self.bytes, field, column, &copy.options) {
                    Value::Null => None,
                    Value::Bytes(bytes) => Some(bytes),
                    Value::Default => return Err(self.no_default(copy, column)),
                };
            }
        }
        Ok(params)
    }

    fn no_default(&self, copy: &plan::CopyIn, column: usize) -> Failure {
        let name = copy.names.get(column).map_or("", String::as_str);
        let refusal = Refusal::new(Class::BadCopy, "unexpected default marker in COPY data")
            .detail(format!("Column \"{name}\" must be given: it is sealed, or names the tenant."));
        Failure { refusal, line: self.line, column: None }
    }

    /// Does something with the inputs of the row's plan.
    fn with<T>(
        &self,
        (copy, facts): (&plan::CopyIn, &Arc<Facts>),
        act: impl FnOnce(&Inputs<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Failure> {
        let params = self.params(copy)?;
        let params: Vec<Option<&[u8]>> = params.iter().map(Option::as_deref).collect();
        let formats = [i16::from(copy.options.format == Format::Binary)];
        let inputs = Inputs { params: &params, formats: &formats, oids: &[], facts, locked: None, copied: None };
        act(&inputs).map_err(|refusal| {
            // Postgres looks at the encoding before it knows of columns.
            let is_value = refusal.class != Class::BadEncoding;
            let column = if is_value { at_fault(&copy.row, &inputs, &refusal) } else { None };
            Failure { refusal, line: self.line, column }
        })
    }

    /// Appends the row with its cells.
    fn put(&self, copy: &plan::CopyIn, cells: &[Option<Vec<u8>>], out: &mut BytesMut) {
        let writer = Writer::new(&copy.options, self.fields.len());
        let mut sealed = copy.row.values.iter().zip(cells).peekable();
        writer.start(out);
        for (at, field) in self.fields.iter().enumerate() {
            let is_here =
                |(slot, _): &(&plan::ValueSlot, _)| matches!(slot.source, Source::Param(n) if usize::from(n) == at);
            let written = match sealed.next_if(is_here) {
                Some((_, Some(cell))) => Written::Cell(cell),
                Some((_, None)) => Written::Null,
                None if field.kind == crate::wire::copy::Kind::Null => Written::Null,
                None => Written::Raw(&self.bytes[field.raw.clone()]),
            };
            writer.field(at, written, out);
        }
        writer.end(out);
    }
}

/// The column whose value gives this error; none when it is not one value's.
fn at_fault(plan: &StatementPlan, inputs: &Inputs<'_>, refusal: &Refusal) -> Option<usize> {
    plan.values.iter().find_map(|slot| {
        let alone = StatementPlan { values: vec![slot.clone()], ..StatementPlan::default() };
        let error = seal::compute(&alone, inputs, &mut Granted::default(), &mut Vec::new()).err()?;
        match slot.source {
            Source::Param(column) if error == *refusal => Some(usize::from(column)),
            _ => None,
        }
    })
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
            let (copy, facts) = (receiving.copy.clone(), receiving.facts.clone());
            let Copy::In(plan) = &*copy else { return };
            let rows = match receiving.rows(plan, &mut self.to_server) {
                Ok(rows) => rows,
                Err(failure) => return self.fail_row(failure),
            };
            if rows.is_empty() {
                if receiving.is_ended {
                    self.copy_ends();
                }
                return;
            }
            let need = match needs(&rows, plan, &facts) {
                Ok(need) => need,
                Err(failure) => return self.fail_row(failure),
            };
            match self.shared.keys.try_grant(&need) {
                Some(granted) => self.seal_rows(&rows, (plan, &facts), granted),
                None => {
                    receiving.waiting = rows;
                    self.hold = Some(Hold::Copy);
                    self.client_work = Some(Work::Grant(need));
                    return;
                }
            }
        }
    }

    /// The keys that rows have waited for.
    pub(super) fn copy_granted(&mut self, granted: Result<Granted, Refusal>) {
        let Copying::Sealed(receiving) = &mut self.copy.now else { return };
        let rows = std::mem::take(&mut receiving.waiting);
        let (copy, facts) = (receiving.copy.clone(), receiving.facts.clone());
        let Copy::In(plan) = &*copy else { return };
        match granted {
            Ok(granted) => {
                self.seal_rows(&rows, (plan, &facts), granted);
                self.copy_rows();
            }
            Err(refusal) => {
                let line = rows.first().map_or(0, |row| row.line);
                self.fail_row(Failure { refusal, line, column: None });
            }
        }
    }

    fn seal_rows(&mut self, rows: &[Row], (copy, facts): (&plan::CopyIn, &Arc<Facts>), mut granted: Granted) {
        let (mut out, mut uses) = (BytesMut::new(), Vec::<Use>::new());
        for row in rows {
            let cells = row.with((copy, facts), |inputs| seal::compute(&copy.row, inputs, &mut granted, &mut uses));
            match cells {
                Ok(cells) => row.put(copy, &cells, &mut out),
                Err(failure) => return self.fail_row(failure),
            }
        }
        let line = rows.first().map_or(0, |row| row.line);
        match self.audit(uses, rows.len() as u64, granted.kms_requests) {
            Ok(()) => frontend::put_raw(&mut self.to_server, b'd', &out),
            Err(refusal) => self.fail_row(Failure { refusal, line, column: None }),
        }
    }

    /// All rows are on their way.
    fn copy_ends(&mut self) {
        if let Copying::Sealed(receiving) = &self.copy.now
            && receiving.is_marked
            && receiving.plan().is_some_and(|plan| plan.options.format == Format::Binary)
        {
            let mut mark = BytesMut::new();
            mark.put_i16(-1);
            frontend::put_raw(&mut self.to_server, b'd', &mark);
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

/// The keys that rows need.
fn needs(rows: &[Row], copy: &plan::CopyIn, facts: &Arc<Facts>) -> Result<Need, Failure> {
    let mut need = Need::default();
    for row in rows {
        merge(&mut need, row.with((copy, facts), |inputs| seal::needs(&copy.row, inputs))?);
    }
    Ok(need)
}
