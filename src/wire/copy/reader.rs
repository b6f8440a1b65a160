//! Finds where rows end in bytes that come cut anywhere.
use bytes::{Bytes, BytesMut};

use super::binary::{self, Found, Walk};
use super::{Bad, Format, Options};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The header of binary data, whole.
    FileHeader(Bytes),
    /// A row without the end of its line, and the number of the line it ends on (in binary data: of the row), from 1.
    Row(Bytes, u64),
    /// The mark of the end: what follows means nothing.
    End,
}

/// How lines end; the first one says it for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Newline,
    Return,
    Both,
}

/// Collects bytes and gives rows.
#[derive(Debug)]
pub struct Reader {
    format: Format,
    quote: u8,
    /// The escape of CSV where it is not the quote.
    escape: Option<u8>,
    /// Whether `\.` ends CSV too, as it did before Postgres 18.
    marks_csv: bool,
    buffer: BytesMut,
    /// Bytes of the buffer that have been looked at.
    at: usize,
    ends: Option<Ends>,
    is_quoted: bool,
    is_escaped: bool,
    line: u64,
    is_headed: bool,
    is_over: bool,
    walk: Walk,
}

impl Reader {
    /// A reader of nothing yet.
    pub fn new(options: &Options, marks_csv: bool) -> Self {
        Reader {
            format: options.format,
            quote: options.quote,
            escape: Some(options.escape).filter(|escape| *escape != options.quote),
            marks_csv,
            buffer: BytesMut::new(),
            at: 0,
            ends: None,
            is_quoted: false,
            is_escaped: false,
            line: 0,
            is_headed: false,
            is_over: false,
            walk: Walk::default(),
        }
    }

    /// Adds bytes. Behind the end they are dropped.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !self.is_over {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The number of the line (in binary data: the row) that is being read.
    pub fn line(&self) -> u64 {
        self.line + 1
    }

    /// The next piece; `None` until more bytes are there. `is_last`: no more will come.
    ///
    /// # Errors
    /// [`Bad`] for what is not a row.
    pub fn piece(&mut self, is_last: bool) -> Result<Option<Piece>, Bad> {
        if self.is_over {
            return Ok(None);
        }
        let piece = match self.format {
            Format::Binary => self.tuple(is_last)?,
            Format::Text | Format::Csv => self.text_line(is_last)?,
        };
        if piece == Some(Piece::End) {
            self.is_over = true;
            self.buffer.clear();
        }
        Ok(piece)
    }

    fn tuple(&mut self, is_last: bool) -> Result<Option<Piece>, Bad> {
        if !self.is_headed {
            let Some(length) = binary::header(&self.buffer)? else {
                return if is_last { Err(Bad::Signature) } else { Ok(None) };
            };
            self.is_headed = true;
            return Ok(Some(Piece::FileHeader(self.buffer.split_to(length).freeze())));
        }
        match self.walk.go(&self.buffer)? {
            Found::Row(length) => {
                self.line += 1;
                Ok(Some(Piece::Row(self.buffer.split_to(length).freeze(), self.line)))
            }
            Found::End if self.buffer.len() > 2 => Err(Bad::Behind),
            Found::End => Ok(Some(Piece::End)),
            Found::Part if is_last && !self.buffer.is_empty() => Err(Bad::End),
            Found::Part => Ok(None),
        }
    }

    fn text_line(&mut self, is_last: bool) -> Result<Option<Piece>, Bad> {
        while let Some(byte) = self.buffer.get(self.at).copied() {
            let next = self.buffer.get(self.at + 1).copied();
            match byte {
                b'\r' if !self.is_quoted && self.ends != Some(Ends::Return) => {
                    match (self.ends, next) {
                        (Some(Ends::Newline), _) => return Err(Bad::Return),
                        (_, None) if !is_last => return Ok(None),
                        (_, Some(b'\n')) => {
                            self.ends = Some(Ends::Both);
                            return Ok(Some(self.row(2)));
                        }
                        (Some(Ends::Both), _) => return Err(Bad::Return),
                        (_, _) => self.ends = Some(Ends::Return),
                    }
                    return Ok(Some(self.row(1)));
                }
                b'\r' if !self.is_quoted => return Ok(Some(self.row(1))),
                b'\n' if !self.is_quoted => {
                    if !matches!(self.ends, None | Some(Ends::Newline)) {
                        return Err(Bad::Newline);
                    }
                    self.ends = Some(Ends::Newline);
                    return Ok(Some(self.row(1)));
                }
                b'\\' if self.format == Format::Text || (self.marks_csv && self.at == 0) => {
                    match self.backslash(next, is_last)? {
                        Some(Piece::End) => return Ok(Some(Piece::End)),
                        Some(_) => {}
                        None => return Ok(None),
                    }
                }
                _ if self.format == Format::Text => {
                    let rest = &self.buffer[self.at..];
                    self.at += memchr::memchr3(b'\n', b'\r', b'\\', rest).filter(|at| *at > 0).unwrap_or(rest.len());
                }
                byte => {
                    self.csv_byte(byte);
                    self.at += 1;
                }
            }
        }
        // What is left is a row without the end of its line; a quote still open is found when it is taken apart.
        Ok(if is_last && !self.buffer.is_empty() { Some(self.row(0)) } else { None })
    }

    /// Keeps account of quotes.
    fn csv_byte(&mut self, byte: u8) {
        if self.format != Format::Csv {
            return;
        }
        let is_escape = self.escape == Some(byte);
        if self.is_quoted && is_escape {
            self.is_escaped = !self.is_escaped;
        }
        if byte == self.quote && !self.is_escaped {
            self.is_quoted = !self.is_quoted;
        }
        if !is_escape {
            self.is_escaped = false;
        }
        let ends = if self.ends == Some(Ends::Newline) { b'\n' } else { b'\r' };
        self.line += u64::from(self.is_quoted && byte == ends);
    }

    /// A backslash: what follows belongs to it, or is the mark of the end. `None`: more bytes are needed.
    fn backslash(&mut self, next: Option<u8>, is_last: bool) -> Result<Option<Piece>, Bad> {
        let go_on = Ok(Some(Piece::FileHeader(Bytes::new())));
        let is_text = self.format == Format::Text;
        let Some(next) = next else {
            if is_last {
                self.at += 1;
            }
            return if is_last { go_on } else { Ok(None) };
        };
        if next != b'.' {
            if is_text {
                self.at += 2;
            } else {
                self.csv_byte(b'\\');
                self.at += 1;
            }
            return go_on;
        }
        let alone = match (&self.buffer[self.at + 2..], self.ends) {
            ([], _) if !is_last => return Ok(None),
            ([], _) => true,
            ([b'\n', ..], None | Some(Ends::Newline)) | ([b'\r', b'\n', ..], None | Some(Ends::Both)) => true,
            ([b'\r'], None | Some(Ends::Both)) if !is_last => return Ok(None),
            ([b'\r', ..], None | Some(Ends::Return)) => true,
            _ => false,
        };
        match (alone && self.at == 0, is_text) {
            (true, _) => Ok(Some(Piece::End)),
            (false, true) => Err(Bad::Marker),
            (false, false) => {
                self.csv_byte(b'\\');
                self.at += 1;
                go_on
            }
        }
    }

    /// The bytes looked at, as a row; so many behind them end its line.
    fn row(&mut self, end: usize) -> Piece {
        let row = self.buffer.split_to(self.at).freeze();
        let _ = self.buffer.split_to(end);
        (self.at, self.is_quoted, self.is_escaped) = (0, false, false);
        self.line += 1;
        Piece::Row(row, self.line)
    }
}
