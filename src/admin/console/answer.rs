//! What the console answers: rows of a few types, in the form the client asked for. The only home of pgwire.
use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{DataRow, FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
pub(super) use pgwire::messages::response::TransactionStatus;
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse, ErrorResponse, ReadyForQuery};

use crate::refusal::{Class, Refusal};
use crate::wire::frontend::format_of;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Bool,
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: Cow<'static, str>,
    pub(super) kind: Kind,
}

/// A value of an answer; it has the type of its column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Int(i64),
    Bool(bool),
    Null,
}

/// One row.
pub(super) type Row = Vec<Value>;

impl Value {
    pub(super) fn text(text: impl ToString) -> Value {
        Value::Text(text.to_string())
    }

    /// Counts, which never come near the bound.
    pub(super) fn count(count: impl TryInto<i64>) -> Value {
        count.try_into().map_or(Value::Null, Value::Int)
    }

    fn put(&self, format: i16, out: &mut BytesMut) {
        let sized = |bytes: &[u8], out: &mut BytesMut| {
            out.put_i32(bytes.len() as i32);
            out.put_slice(bytes);
        };
        match (self, format) {
            (Value::Null, _) => out.put_i32(-1),
            (Value::Text(text), _) => sized(text.as_bytes(), out),
            (Value::Int(int), 1) => sized(&int.to_be_bytes(), out),
            (Value::Int(int), _) => sized(int.to_string().as_bytes(), out),
            (Value::Bool(truth), 1) => sized(&[u8::from(*truth)], out),
            (Value::Bool(truth), _) => sized(if *truth { b"t" } else { b"f" }, out),
        }
    }
}

impl Kind {
    /// Type OID and length, as in `pg_type`.
    fn type_of(self) -> (u32, i16) {
        match self {
            Kind::Text => (25, -1),
            Kind::Int => (20, 8),
            Kind::Bool => (16, 1),
        }
    }
}

/// Messages for the client, in order.
#[derive(Default)]
pub(super) struct Replies(pub(super) BytesMut);

impl Replies {
    fn put(&mut self, message: PgWireBackendMessage) {
        if message.encode(&mut self.0).is_err() {
            tracing::error!("an answer of the console is larger than a message can be");
        }
    }

    pub(super) fn description(&mut self, columns: Option<&[Column]>, formats: &[i16]) {
        let Some(columns) = columns else { return self.put(PgWireBackendMessage::NoData(NoData::new())) };
        let field = |(at, column): (usize, &Column)| {
            let (oid, size) = column.kind.type_of();
            FieldDescription::new(column.name.clone().into_owned(), 0, 0, oid, size, -1, format_of(formats, at))
        };
        let fields = columns.iter().enumerate().map(field).collect();
        self.put(PgWireBackendMessage::RowDescription(RowDescription::new(fields)));
    }

    pub(super) fn no_parameters(&mut self) {
        self.put(PgWireBackendMessage::ParameterDescription(ParameterDescription::new(Vec::new())));
    }

    pub(super) fn row(&mut self, row: &Row, formats: &[i16]) {
        let mut data = BytesMut::new();
        row.iter().enumerate().for_each(|(at, value)| value.put(format_of(formats, at), &mut data));
        self.put(PgWireBackendMessage::DataRow(DataRow::new(data, row.len() as i16)));
    }

    pub(super) fn complete(&mut self, tag: &str) {
        self.put(PgWireBackendMessage::CommandComplete(CommandComplete::new(tag.to_owned())));
    }

    pub(super) fn empty(&mut self) {
        self.put(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()));
    }

    pub(super) fn suspended(&mut self) {
        self.put(PgWireBackendMessage::PortalSuspended(PortalSuspended::new()));
    }

    pub(super) fn parsed(&mut self) {
        self.put(PgWireBackendMessage::ParseComplete(ParseComplete::new()));
    }

    pub(super) fn bound(&mut self) {
        self.put(PgWireBackendMessage::BindComplete(BindComplete::new()));
    }

    pub(super) fn closed(&mut self) {
        self.put(PgWireBackendMessage::CloseComplete(CloseComplete::new()));
    }

    pub(super) fn ready(&mut self, status: TransactionStatus) {
        self.put(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(status)));
    }

    pub(super) fn error(&mut self, refusal: &Refusal) {
        let severity = if is_fatal(refusal) { "FATAL" } else { "ERROR" };
        let fields = [
            (b'S', severity),
            (b'V', severity),
            (b'C', refusal.class.sqlstate()),
            (b'M', &*refusal.message),
            (b'D', &*refusal.detail),
            (b'H', &*refusal.hint),
        ];
        let fields = fields.into_iter().filter(|(_, text)| !text.is_empty());
        let fields = fields.map(|(code, text)| (code, text.replace('\0', " "))).collect();
        self.put(PgWireBackendMessage::ErrorResponse(ErrorResponse::new(fields)));
    }
}

/// True for what ends the connection.
pub(super) fn is_fatal(refusal: &Refusal) -> bool {
    matches!(refusal.class, Class::ProtocolViolation | Class::TooLarge | Class::Stopping)
}

/// A column by name and type.
pub(super) fn column(name: impl Into<Cow<'static, str>>, kind: Kind) -> Column {
    Column { name: name.into(), kind }
}
