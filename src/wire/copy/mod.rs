//! The rows of COPY in its three formats: where one ends, what its fields are, how one is written. Pure functions on
//! bytes, which read exactly as Postgres does (copyfromparse.c, copyto.c): what is forwarded is split there once more.
//!
//! [`Reader`] finds rows in bytes that are cut anywhere; [`fields`] takes one apart, [`value`] gives what a field means,
//! [`Writer`] writes one.
mod binary;
mod csv;
mod reader;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
mod text;

use std::borrow::Cow;
use std::ops::Range;

use bytes::{BufMut, BytesMut};

pub use binary::{Block, FILE_END, FILE_HEADER, Tuples};
pub use reader::{Piece, Reader};

/// How the rows of one COPY are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The format.
    pub format: Format,
    /// Stands between fields.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: Vec<u8>,
    /// What stands for the column's default (COPY FROM).
    pub default: Option<Vec<u8>>,
    /// The quote of CSV.
    pub quote: u8,
    /// What makes a quote inside quotes one of the value.
    pub escape: u8,
    /// Whether the first line names the columns.
    pub header: Header,
    /// Columns whose values are quoted always (COPY TO).
    pub force_quote: Forced,
    /// Columns in which what stands for NULL is a value unless it is quoted (COPY FROM).
    pub force_not_null: Forced,
    /// Columns in which what stands for NULL is NULL though it is quoted (COPY FROM).
    pub force_null: Forced,
}

impl Options {
    /// What Postgres takes where nothing is said.
    pub fn of(format: Format) -> Self {
        let csv = format == Format::Csv;
        Options {
            format,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { Vec::new() } else { b"\\N".to_vec() },
            default: None,
            quote: b'"',
            escape: b'"',
            header: Header::None,
            force_quote: Forced::None,
            force_not_null: Forced::None,
            force_null: Forced::None,
        }
    }
}

/// A format of COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text`
    Text,
    /// `csv`
    Csv,
    /// `binary`
    Binary,
}

/// The first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Is a row.
    None,
    /// Names the columns; skipped when read.
    Line,
    /// Must name the columns as they are.
    Match,
}

/// The columns that an option is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forced {
    /// None of them.
    None,
    /// All.
    All,
    /// These, counted from 0.
    These(Vec<usize>),
}

impl Forced {
    fn has(&self, column: usize) -> bool {
        match self {
            Forced::None => false,
            Forced::All => true,
            Forced::These(columns) => columns.contains(&column),
        }
    }
}

/// Bytes that are not rows of COPY: 22P04. Messages are Postgres's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// A carriage return where lines end in another way.
    #[error("literal carriage return found in data")]
    Return,
    /// A newline where lines end in another way.
    #[error("literal newline found in data")]
    Newline,
    /// `\.` with something else on its line.
    #[error("end-of-copy marker is not alone on its line")]
    Marker,
    /// A quote that does not end.
    #[error("unterminated CSV quoted field")]
    Quote,
    /// Not the start of binary data.
    #[error("COPY file signature not recognized")]
    Signature,
    /// A header of binary data that cannot be read.
    #[error("invalid COPY file header")]
    FileHeader,
    /// Binary data that end within a row, or a length that cannot be.
    #[error("unexpected EOF in COPY data")]
    End,
    /// Binary data behind their end.
    #[error("received copy data after EOF marker")]
    Behind,
    /// A row of binary data with another number of fields.
    #[error("row field count is not that of the columns")]
    Count,
}

impl Bad {
    /// True for what stands before all rows.
    pub fn is_ahead(self) -> bool {
        matches!(self, Bad::Signature | Bad::FileHeader)
    }
}

/// One field of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its bytes as they came, in the row.
    pub raw: Range<usize>,
    /// How it came.
    pub kind: Kind,
}

/// How a field came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Plain.
    Bare,
    /// With quotes somewhere in it.
    Quoted,
    /// As the length of NULL.
    Null,
}

/// What a field means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// The column's default.
    Default,
    /// These bytes.
    Bytes(Cow<'a, [u8]>),
}

/// Takes a row apart.
///
/// # Errors
/// [`Bad`] when it is not one.
pub fn fields(row: &[u8], options: &Options) -> Result<Vec<Field>, Bad> {
    let mut found = Vec::new();
    fields_into(row, options, &mut found)?;
    Ok(found)
}

/// Takes a row apart; appends its fields, perhaps some of them where there is an error.
///
/// # Errors
/// [`Bad`] when it is not one.
pub fn fields_into(row: &[u8], options: &Options, found: &mut Vec<Field>) -> Result<(), Bad> {
    match options.format {
        Format::Text => {
            text::fields(row, options.delimiter, found);
            Ok(())
        }
        Format::Csv => csv::fields(row, options, found),
        Format::Binary => binary::fields(row, found),
    }
}

/// What a field of a column (counted from 0) means.
pub fn value<'a>(row: &'a [u8], field: &Field, column: usize, options: &Options) -> Value<'a> {
    let raw = row.get(field.raw.clone()).unwrap_or_default();
    match options.format {
        Format::Binary if field.kind == Kind::Null => Value::Null,
        Format::Binary => Value::Bytes(Cow::Borrowed(raw)),
        Format::Text if raw == options.null => Value::Null,
        Format::Text if options.default.as_deref() == Some(raw) => Value::Default,
        Format::Text => Value::Bytes(text::unescaped(raw)),
        Format::Csv => {
            let value = if field.kind == Kind::Quoted { csv::unquoted(raw, options) } else { Cow::Borrowed(raw) };
            let (bare, is_null) = (field.kind != Kind::Quoted, *value == options.null[..]);
            if is_null && (if bare { !options.force_not_null.has(column) } else { options.force_null.has(column) }) {
                Value::Null
            } else if bare && !is_null && options.default.as_deref() == Some(&value) {
                Value::Default
            } else {
                Value::Bytes(value)
            }
        }
    }
}

/// Writes rows.
pub struct Writer<'a> {
    options: &'a Options,
    /// How many columns a row has.
    width: usize,
}

/// What is written as a field.
#[derive(Debug, Clone, Copy)]
pub enum Written<'a> {
    /// A field as it came.
    Raw(&'a [u8]),
    /// NULL.
    Null,
    /// The bytes of a value of bytea.
    Cell(&'a [u8]),
    /// A value: its text form, or its binary one.
    Value(&'a [u8]),
}

impl<'a> Writer<'a> {
    /// A writer of rows of so many columns.
    pub fn new(options: &'a Options, width: usize) -> Self {
        Writer { options, width }
    }

    /// Begins a row.
    pub fn start(&self, out: &mut BytesMut) {
        if self.options.format == Format::Binary {
            out.put_u16(self.width as u16);
        }
    }

    /// Appends the next field of a row, of this column.
    ///
    /// # Secrets
    /// A [`Written::Value`] is plaintext: it goes to the client.
    pub fn field(&self, column: usize, written: Written<'_>, out: &mut BytesMut) {
        let options = self.options;
        if options.format == Format::Binary {
            let value = match written {
                Written::Null => None,
                Written::Raw(bytes) | Written::Cell(bytes) | Written::Value(bytes) => Some(bytes),
            };
            return super::frontend::put_value(out, value);
        }
        if column > 0 {
            out.put_u8(options.delimiter);
        }
        match written {
            Written::Raw(bytes) => out.put_slice(bytes),
            // Bare, it would be a value there: it came in quotes.
            Written::Null if options.force_not_null.has(column) => csv::put(&options.null, options, true, out),
            Written::Null => out.put_slice(&options.null),
            Written::Cell(bytes) if options.format == Format::Csv => {
                out.put_slice(&[options.quote, b'\\', b'x']);
                put_hex(bytes, out);
                out.put_u8(options.quote);
            }
            Written::Cell(bytes) => {
                out.put_slice(b"\\\\x");
                put_hex(bytes, out);
            }
            Written::Value(bytes) if options.format == Format::Csv => {
                let is_quoted = options.force_quote.has(column);
                csv::put(bytes, options, is_quoted || (self.width == 1 && bytes == b"\\."), out);
            }
            Written::Value(bytes) => text::put(bytes, options.delimiter, out),
        }
    }

    /// Ends a row.
    pub fn end(&self, out: &mut BytesMut) {
        if self.options.format != Format::Binary {
            out.put_u8(b'\n');
        }
    }
}

fn put_hex(bytes: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    for (pair, byte) in out[start..].chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}
