//! COPY TO STDOUT of sealed columns: the server's rows are found, their cells opened as those of any result, and they go
//! on in the same format, one row a message as the server sends them.
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::keys::Need;
use crate::refusal::Refusal;
use crate::sql::plan::{self, Copy, ResultColumn};
use crate::wire::backend;
use crate::wire::copy::{Field, Format, Header, Kind, Piece, Reader, Value, Writer, Written, fields, value};
use crate::wire::frame;
use crate::wire::frontend::put_value;

use super::copy::{bad_rows, width};
use super::facts::Facts;
use super::machine::{Fatal, Machine, Work};
use super::messages::too_large;
use super::named::Reply;
use super::open::{Shape, Stored};
use super::server_side::{Opened, batch_end, bodies, changed, holds_whole_cell};

/// A COPY whose rows come from the server.
pub(super) struct Sending {
    copy: Arc<Copy>,
    shape: Arc<Shape>,
    reader: Reader,
    /// The first line is still to come.
    heads: bool,
    /// The header of binary data: it goes with the first row, as the server sends it.
    ahead: Bytes,
    /// Rows that are to be opened, perhaps once their keys are there.
    rows: Vec<Row>,
    /// The end of binary data stands behind them.
    is_marked: bool,
    /// What is wrong behind them.
    wrong: Option<Refusal>,
}

/// A row taken apart.
struct Row {
    bytes: Bytes,
    fields: Vec<Field>,
}

impl Sending {
    fn new(copy: &Arc<Copy>, plan: &plan::CopyOut, facts: &Arc<Facts>) -> Self {
        let is_binary = plan.options.format == Format::Binary;
        let shape = Shape {
            columns: plan.columns.clone(),
            hidden: plan.hidden,
            formats: vec![i16::from(is_binary)],
            stored: if is_binary { Stored::Binary } else { Stored::Text },
            facts: facts.clone(),
        };
        Sending {
            copy: copy.clone(),
            shape: Arc::new(shape),
            reader: Reader::new(&plan.options, false),
            heads: plan.options.header != Header::None,
            ahead: Bytes::new(),
            rows: Vec::new(),
            is_marked: false,
            wrong: None,
        }
    }

    /// Takes the rows that are whole; the first line goes to the client at once.
    fn read(&mut self, plan: &plan::CopyOut, out: &mut BytesMut) {
        while self.wrong.is_none() {
            match self.reader.piece(false) {
                Ok(None) => return,
                Ok(Some(Piece::FileHeader(header))) => self.ahead = header,
                Ok(Some(Piece::End)) => self.is_marked = true,
                Ok(Some(Piece::Row(bytes, _))) => match fields(&bytes, &plan.options) {
                    Ok(found) if found.len() != plan.columns.len() + plan.hidden => self.wrong = Some(changed()),
                    Ok(fields) if std::mem::take(&mut self.heads) => Row { bytes, fields }.put_header(plan, out),
                    Ok(fields) => self.rows.push(Row { bytes, fields }),
                    Err(bad) => self.wrong = Some(bad_rows(bad)),
                },
                Err(bad) => self.wrong = Some(bad_rows(bad)),
            }
        }
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
        let format = i16::from(plan.options.format == Format::Binary);
        frame::write(&mut self.to_client, b'H', |out| {
            out.put_u8(format as u8);
            out.put_u16(plan.columns.len() as u16);
            (0..plan.columns.len()).for_each(|_| out.put_i16(format));
        });
        self.sending = Some(Box::new(Sending::new(&copy, plan, &facts)));
        Ok(())
    }

    /// The CopyData messages that stand whole in `input`.
    pub(super) fn copy_out_data(&mut self, input: &mut BytesMut) -> Result<(), Fatal> {
        let end = batch_end(input, b'd')?;
        let frames = input.split_to(end);
        let Some(sending) = &mut self.sending else { return Ok(()) };
        bodies(&frames).for_each(|body| sending.reader.feed(body));
        if sending.reader.held() > self.shared.message_bytes_max.saturating_mul(3) + end {
            self.break_off(&too_large(self.shared.message_bytes_max));
            return Ok(());
        }
        self.copy_out_rows()
    }

    /// CopyDone: the server has ended its last row.
    pub(super) fn copy_out_done(&mut self, frame: &[u8]) {
        match self.sending.take() {
            Some(sending) if sending.reader.held() > 0 => self.break_off(&changed()),
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
            put_data(&mut sending.ahead, &(-1_i16).to_be_bytes(), &mut self.to_client);
        }
        self.sending = Some(sending);
        Ok(())
    }

    /// Gives the rows that were read to the client, or says which keys they need.
    fn copy_out_open(&mut self, sending: &mut Sending, plan: &plan::CopyOut) -> Result<Option<Need>, Fatal> {
        let frames = as_data_rows(&sending.rows, plan);
        loop {
            // The opened rows come as DataRows; what the client is sent is made of them.
            let client = std::mem::take(&mut self.to_client);
            let result = self.open_batch(&sending.shape, &frames);
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
            for (row, body) in sending.rows.drain(..).zip(bodies(&opened)) {
                row.put(plan, &backend::data_row(body)?, (&mut sending.ahead, &mut self.to_client));
            }
            self.rows.release();
            if let Opened::Refused(refusal) = done {
                sending.wrong = Some(refusal);
            }
            return Ok(None);
        }
    }
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
    fn put(&self, plan: &plan::CopyOut, opened: &[Option<&[u8]>], (ahead, out): (&mut Bytes, &mut BytesMut)) {
        let writer = Writer::new(&plan.options, plan.columns.len());
        let mut row = BytesMut::new();
        writer.start(&mut row);
        for (at, (column, field)) in plan.columns.iter().zip(&self.fields).enumerate() {
            let written = match (column, opened.get(at).copied().flatten()) {
                (ResultColumn::Plain, _) if field.kind == Kind::Null => Written::Null,
                (ResultColumn::Plain, _) => Written::Raw(&self.bytes[field.raw.clone()]),
                (ResultColumn::Sealed { .. } | ResultColumn::Built(_), Some(value)) => Written::Value(value),
                (ResultColumn::Sealed { .. } | ResultColumn::Built(_), None) => Written::Null,
            };
            writer.field(at, written, &mut row);
        }
        writer.end(&mut row);
        put_data(ahead, &row, out);
    }

    /// Appends the first line, without the names of hidden columns.
    fn put_header(&self, plan: &plan::CopyOut, out: &mut BytesMut) {
        let writer = Writer::new(&plan.options, plan.columns.len());
        let mut line = BytesMut::new();
        for (at, field) in self.fields.iter().take(plan.columns.len()).enumerate() {
            writer.field(at, Written::Raw(&self.bytes[field.raw.clone()]), &mut line);
        }
        writer.end(&mut line);
        put_data(&mut Bytes::new(), &line, out);
    }
}
