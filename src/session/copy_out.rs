//! COPY TO STDOUT of sealed columns: the server's rows are found, their cells opened as those of any result, and they go
//! on in the client's format, one row a message as the server sends them. The server sends them in binary where it can:
//! cells as they are, and all else as the text that it would write itself.
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::keys::Need;
use crate::refusal::Refusal;
use crate::sql::plan::{self, Copy, ResultColumn};
use crate::wire::backend;
use crate::wire::copy::{Block, FILE_END, Field, Format, Header, Piece, Reader, Tuples, Value, Writer, Written};
use crate::wire::copy::{fields, value};
use crate::wire::frame::{self, Malformed};
use crate::wire::frontend::put_value;

use super::copy::{bad_rows, put_names, put_response, width};
use super::facts::Facts;
use super::machine::{Fatal, Machine};
use super::messages::too_large;
use super::named::Reply;
use super::open::{Shape, Stored};
use super::server_side::{Opened, batch_end, bodies, changed, holds_whole_cell};
use super::shown::Stands;
use super::work::Work;

/// A COPY whose rows come from the server.
pub(super) struct Sending {
    copy: Arc<Copy>,
    shape: Arc<Shape>,
    coming: Coming,
    /// The header of binary data: it goes with the first row, as the server sends it.
    ahead: Bytes,
    /// The end of binary data stands behind the rows.
    is_marked: bool,
    /// What is wrong behind them.
    wrong: Option<Refusal>,
}

/// How the server sends them, and those that are to be opened, perhaps once their keys are there.
enum Coming {
    /// In binary, whatever the client asked for.
    Binary(Tuples, Block),
    /// In the client's format, which is text or CSV.
    Lines(Lines),
}

/// Rows as lines.
struct Lines {
    reader: Reader,
    /// The first line is still to come.
    heads: bool,
    rows: Vec<Row>,
}

/// A line taken apart.
struct Row {
    bytes: Bytes,
    fields: Vec<Field>,
}

impl Sending {
    fn new(copy: &Arc<Copy>, plan: &plan::CopyOut, facts: &Arc<Facts>) -> Self {
        let shape = Shape {
            columns: plan.columns.clone(),
            hidden: plan.hidden,
            formats: vec![i16::from(plan.options.format == Format::Binary)],
            stored: if plan.is_binary { Stored::Binary } else { Stored::Text },
            facts: facts.clone(),
            given: Stands::default(),
        };
        let coming = if plan.is_binary {
            Coming::Binary(Tuples::default(), Block::default())
        } else {
            let heads = plan.options.header != Header::None;
            Coming::Lines(Lines { reader: Reader::new(&plan.options, false), heads, rows: Vec::new() })
        };
        Sending {
            copy: copy.clone(),
            shape: Arc::new(shape),
            coming,
            ahead: Bytes::new(),
            is_marked: false,
            wrong: None,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        match &mut self.coming {
            Coming::Binary(tuples, _) => tuples.feed(bytes),
            Coming::Lines(lines) => lines.reader.feed(bytes),
        }
    }

    fn held(&self) -> usize {
        match &self.coming {
            Coming::Binary(tuples, _) => tuples.held(),
            Coming::Lines(lines) => lines.reader.held(),
        }
    }

    /// Takes the rows that are whole; the first line goes to the client at once.
    fn read(&mut self, plan: &plan::CopyOut, out: &mut BytesMut) {
        if self.wrong.is_some() {
            return;
        }
        match &mut self.coming {
            // Those that have waited for keys go first.
            Coming::Binary(_, block) if !block.is_empty() => {}
            Coming::Binary(tuples, block) => match tuples.take() {
                Ok(taken) => {
                    let is_binary = plan.options.format == Format::Binary;
                    self.is_marked |= taken.is_last && is_binary;
                    self.ahead = taken.header.clone().filter(|_| is_binary).unwrap_or(std::mem::take(&mut self.ahead));
                    *block = taken;
                }
                Err(bad) => self.wrong = Some(bad_rows(bad)),
            },
            Coming::Lines(lines) => self.wrong = lines.read(plan, out).err(),
        }
    }
}

impl Lines {
    fn read(&mut self, plan: &plan::CopyOut, out: &mut BytesMut) -> Result<(), Refusal> {
        while let Some(piece) = self.reader.piece(false).map_err(bad_rows)? {
            let Piece::Row(bytes, _) = piece else { continue };
            let fields = fields(&bytes, &plan.options).map_err(bad_rows)?;
            if fields.len() != plan.columns.len() + plan.hidden {
                return Err(changed());
            }
            let row = Row { bytes, fields };
            if std::mem::take(&mut self.heads) { row.put_header(plan, out) } else { self.rows.push(row) }
        }
        Ok(())
    }
}

impl Machine {
    /// CopyOutResponse.
    pub(super) fn copy_out_begins(&mut self, frame: &[u8]) -> Result<(), Fatal> {
        let reply = match self.queue.reply() {
            Some(Reply::Copy(copy, facts)) => Some((copy.clone(), facts.clone())),
            _ => None,
        };
        let Some((copy, facts)) = reply else {
            self.to_client.extend_from_slice(frame);
            return Ok(());
        };
        let Copy::Out(plan) = &*copy else {
            self.break_off(&changed());
            return Ok(());
        };
        if width(frame)? != plan.columns.len() + plan.hidden {
            self.reload = true;
            self.break_off(&changed());
            return Ok(());
        }
        put_response(b'H', (plan.options.format, plan.columns.len()), &mut self.to_client);
        if plan.is_binary {
            put_names((&plan.options, &plan.names), &mut self.to_client);
        }
        self.sending = Some(Box::new(Sending::new(&copy, plan, &facts)));
        Ok(())
    }

    /// The CopyData messages that stand whole in `input`.
    pub(super) fn copy_out_data(&mut self, input: &mut BytesMut) -> Result<(), Fatal> {
        let end = batch_end(input, b'd')?;
        let frames = input.split_to(end);
        let Some(sending) = &mut self.sending else { return Ok(()) };
        bodies(&frames).for_each(|body| sending.feed(body));
        if sending.held() > self.message_bytes_max.saturating_mul(3) + end {
            self.break_off(&too_large(self.message_bytes_max));
            return Ok(());
        }
        self.copy_out_rows()
    }

    /// CopyDone: the server has ended its last row.
    pub(super) fn copy_out_done(&mut self, frame: &[u8]) {
        match self.sending.take() {
            Some(sending) if sending.held() > 0 => self.break_off(&changed()),
            _ => self.to_client.extend_from_slice(frame),
        }
    }

    /// Opens the rows that are whole, and those that have waited for keys.
    pub(super) fn copy_out_rows(&mut self) -> Result<(), Fatal> {
        let Some(mut sending) = self.sending.take() else { return Ok(()) };
        let copy = sending.copy.clone();
        let Copy::Out(plan) = &*copy else { return Ok(()) };
        sending.read(plan, &mut self.to_client);
        if let Some(need) = self.copy_out_open(&mut sending, plan)? {
            self.rows_wait = true;
            self.server_work = Some(Work::Grant(need));
            self.sending = Some(sending);
            return Ok(());
        }
        if let Some(refusal) = sending.wrong {
            self.break_off(&refusal);
            return Ok(());
        }
        if std::mem::take(&mut sending.is_marked) {
            put_data(&mut sending.ahead, &FILE_END, &mut self.to_client);
        }
        self.sending = Some(sending);
        Ok(())
    }

    /// Gives the rows that were read to the client, or says which keys they need.
    fn copy_out_open(&mut self, sending: &mut Sending, plan: &plan::CopyOut) -> Result<Option<Need>, Fatal> {
        let frames = match &sending.coming {
            Coming::Binary(..) => BytesMut::new(),
            Coming::Lines(lines) => as_data_rows(&lines.rows, plan),
        };
        loop {
            // The opened rows come as DataRows; what the client is sent is made of them.
            let client = std::mem::take(&mut self.to_client);
            let result = match &sending.coming {
                Coming::Binary(_, block) => self.open_batch(&sending.shape, block.rows()),
                Coming::Lines(_) => self.open_batch(&sending.shape, bodies(&frames)),
            };
            let opened = std::mem::replace(&mut self.to_client, client);
            let done = match result? {
                Opened::Needs(need) => match self.shared.keys.try_grant(&need) {
                    Some(granted) => {
                        self.rows.grant(granted);
                        continue;
                    }
                    None => return Ok(Some(need)),
                },
                done => done,
            };
            let ahead = &mut sending.ahead;
            match &mut sending.coming {
                Coming::Binary(_, block) => {
                    *block = Block::default();
                    put_rows(&opened, plan, (ahead, &mut self.to_client))?;
                }
                Coming::Lines(lines) => {
                    for (row, body) in lines.rows.drain(..).zip(bodies(&opened)) {
                        row.put(plan, &backend::data_row(body)?, &mut self.to_client);
                    }
                }
            }
            self.rows.release();
            if let Opened::Refused(refusal) = done {
                sending.wrong = Some(refusal);
            }
            return Ok(None);
        }
    }
}

/// Appends opened rows, which are DataRows, in the client's format.
fn put_rows(opened: &[u8], plan: &plan::CopyOut, (ahead, out): (&mut Bytes, &mut BytesMut)) -> Result<(), Malformed> {
    if plan.options.format == Format::Binary {
        bodies(opened).for_each(|row| put_data(ahead, row, out));
        return Ok(());
    }
    let writer = Writer::new(&plan.options, plan.columns.len());
    let mut values = Vec::with_capacity(plan.columns.len());
    out.reserve(opened.len());
    for row in bodies(opened) {
        values.clear();
        backend::data_row_into(row, &mut values)?;
        frame::write(out, b'd', |out| {
            for (at, value) in values.iter().enumerate() {
                writer.field(at, value.map_or(Written::Null, Written::Value), out);
            }
            writer.end(out);
        });
    }
    Ok(())
}

/// Appends a CopyData message.
fn put_data(ahead: &mut Bytes, bytes: &[u8], out: &mut BytesMut) {
    frame::write(out, b'd', |out| {
        out.put_slice(&std::mem::take(ahead));
        out.put_slice(bytes);
    });
}

/// Rows as DataRows of their cells and hidden columns; the other columns are NULL there, unless they hold a cell too,
/// which is then found with the others.
fn as_data_rows(rows: &[Row], plan: &plan::CopyOut) -> BytesMut {
    let mut out = BytesMut::new();
    for row in rows {
        frame::write(&mut out, b'D', |out| {
            out.put_u16(row.fields.len() as u16);
            for (at, field) in row.fields.iter().enumerate() {
                let is_plain = matches!(plan.columns.get(at), Some(ResultColumn::Plain));
                let found = if is_plain && !holds_whole_cell(&row.bytes[field.raw.clone()]) {
                    Value::Null
                } else {
                    value(&row.bytes, field, at, &plan.options)
                };
                match found {
                    Value::Bytes(bytes) => put_value(out, Some(&bytes)),
                    Value::Null | Value::Default => put_value(out, None),
                }
            }
        });
    }
    out
}

impl Row {
    /// Appends the row with its opened values.
    fn put(&self, plan: &plan::CopyOut, opened: &[Option<&[u8]>], out: &mut BytesMut) {
        let writer = Writer::new(&plan.options, plan.columns.len());
        frame::write(out, b'd', |out| {
            for (at, (column, field)) in plan.columns.iter().zip(&self.fields).enumerate() {
                let written = match (column, opened.get(at).copied().flatten()) {
                    (ResultColumn::Plain, _) => Written::Raw(&self.bytes[field.raw.clone()]),
                    (ResultColumn::Sealed { .. } | ResultColumn::Built(_), Some(value)) => Written::Value(value),
                    (ResultColumn::Sealed { .. } | ResultColumn::Built(_), None) => Written::Null,
                };
                writer.field(at, written, out);
            }
            writer.end(out);
        });
    }

    /// Appends the first line, without the names of hidden columns.
    fn put_header(&self, plan: &plan::CopyOut, out: &mut BytesMut) {
        let writer = Writer::new(&plan.options, plan.columns.len());
        frame::write(out, b'd', |out| {
            for (at, field) in self.fields.iter().take(plan.columns.len()).enumerate() {
                writer.field(at, Written::Raw(&self.bytes[field.raw.clone()]), out);
            }
            writer.end(out);
        });
    }
}
