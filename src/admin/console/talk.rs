//! The protocol of the console: simple and extended queries. Bytes of the client are read by `wire`, which checks every
//! length; pgwire's decoder does not.
use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::Visit;
use super::answer::{Replies, Row, TransactionStatus, is_fatal};
use super::command::Command;
use super::text;
use crate::refusal::{Class, Refusal};
use crate::wire::frame::{self, HEADER, Malformed};
use crate::wire::frontend;

/// The largest message of a client of the console.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// How many statements and how many portals there may be at a time.
const NAMES_MAX: usize = 256;

/// What a portal has still to give.
struct Portal {
    command: Option<Command>,
    formats: Vec<i16>,
    /// Once it has run.
    rows: Option<std::vec::IntoIter<Row>>,
    given: usize,
}

/// One client's conversation.
pub(super) struct Talk {
    visit: Arc<Visit>,
    pub(super) replies: Replies,
    /// `None` is the empty statement.
    statements: HashMap<Bytes, Option<Command>>,
    portals: HashMap<Bytes, Portal>,
    status: TransactionStatus,
    /// An error of the extended protocol: nothing is done until Sync.
    skipping: bool,
}

/// Whether the connection goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    More,
    Over,
}

impl Talk {
    pub(super) fn new(visit: Arc<Visit>) -> Talk {
        Talk {
            visit,
            replies: Replies::default(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            status: TransactionStatus::Idle,
            skipping: false,
        }
    }

    /// Says that the next statement may come.
    pub(super) fn ready(&mut self) {
        self.replies.ready(self.status);
    }

    /// Answers one whole message of the client's, if there is one; `None` when more bytes are needed.
    pub(super) async fn answer(&mut self, input: &mut BytesMut) -> Option<Next> {
        let header = match frame::header(input) {
            Ok(header) => header?,
            Err(error) => return Some(self.fail(&broken(error))),
        };
        if header.total > MESSAGE_BYTES_MAX {
            return Some(self.fail(&Refusal::new(Class::TooLarge, "the message is too large for the console")));
        }
        if input.len() < header.total {
            input.reserve(header.total - input.len());
            return None;
        }
        let mut message = input.split_to(header.total).freeze();
        message.advance(HEADER);
        if header.tag == b'X' {
            return Some(Next::Over);
        }
        if self.skipping && header.tag != b'S' {
            return Some(Next::More);
        }
        let done = self.message(header.tag, &message).await;
        Some(done.map_or_else(|refusal| self.error(header.tag, &refusal), |()| Next::More))
    }

    fn fail(&mut self, refusal: &Refusal) -> Next {
        self.replies.error(refusal);
        Next::Over
    }

    fn error(&mut self, tag: u8, refusal: &Refusal) -> Next {
        self.replies.error(refusal);
        if is_fatal(refusal) {
            return Next::Over;
        }
        if self.status == TransactionStatus::Transaction {
            self.status = TransactionStatus::Error;
        }
        if matches!(tag, b'Q' | b'F') {
            self.ready();
        } else {
            self.skipping = true;
        }
        Next::More
    }

    async fn message(&mut self, tag: u8, body: &Bytes) -> Result<(), Refusal> {
        match tag {
            b'Q' => self.query(frontend::query(body).map_err(broken)?).await,
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'D' => self.describe(body),
            b'C' => self.close(body),
            b'E' => self.execute(body).await,
            b'S' => {
                self.skipping = false;
                // Without a transaction, portals end here.
                if self.status == TransactionStatus::Idle {
                    self.portals.clear();
                }
                self.ready();
                Ok(())
            }
            b'H' => Ok(()),
            b'F' => Err(Refusal::new(Class::NotSupported, "the console has no functions to call")),
            // Of a COPY that there is not: as with Postgres, nothing.
            b'd' | b'c' | b'f' => Ok(()),
            _ => Err(Refusal::new(Class::ProtocolViolation, "unexpected message")),
        }
    }

    async fn query(&mut self, text: &[u8]) -> Result<(), Refusal> {
        // A simple query ends the unnamed ones.
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        let statements = text::statements(utf8(text)?)?;
        if statements.is_empty() {
            self.replies.empty();
        }
        for tokens in statements {
            let command = Command::read(&tokens, &self.visit)?;
            let columns = command.columns();
            let (rows, tag) = self.run(&command).await?;
            if let Some(columns) = columns {
                self.replies.description(Some(&columns), &[]);
            }
            rows.iter().for_each(|row| self.replies.row(row, &[]));
            self.replies.complete(&tag);
        }
        self.ready();
        Ok(())
    }

    fn parse(&mut self, body: &Bytes) -> Result<(), Refusal> {
        let parse = frontend::parse(body).map_err(broken)?;
        let command = match &text::statements(utf8(parse.text)?)?[..] {
            [] => None,
            [tokens] => Some(Command::read(tokens, &self.visit)?),
            _ => {
                let message = "cannot insert multiple commands into a prepared statement";
                return Err(Refusal::new(Class::Syntax, message));
            }
        };
        let name = Bytes::copy_from_slice(parse.name);
        bounded(self.statements.len(), "statements")?;
        self.statements.insert(name, command);
        self.replies.parsed();
        Ok(())
    }

    fn bind(&mut self, body: &Bytes) -> Result<(), Refusal> {
        let bind = frontend::bind(body).map_err(broken)?;
        let Some(command) = self.statements.get(bind.statement).cloned() else { return Err(no_such("statement")) };
        if !bind.values.is_empty() {
            let message = "statements of the console have no parameters";
            return Err(Refusal::new(Class::NoParameter, message));
        }
        if bind.result_formats.iter().any(|format| !(0..=1).contains(format)) {
            return Err(Refusal::new(Class::BadParameter, "there is no such format code"));
        }
        bounded(self.portals.len(), "portals")?;
        let portal = Portal { command, formats: bind.result_formats, rows: None, given: 0 };
        self.portals.insert(Bytes::copy_from_slice(bind.portal), portal);
        self.replies.bound();
        Ok(())
    }

    fn describe(&mut self, body: &Bytes) -> Result<(), Refusal> {
        let (kind, name) = frontend::target(body).map_err(broken)?;
        let (command, formats) = if kind == b'S' {
            let command = self.statements.get(name).ok_or_else(|| no_such("statement"))?;
            self.replies.no_parameters();
            (command, &[][..])
        } else {
            let portal = self.portals.get(name).ok_or_else(|| no_such("portal"))?;
            (&portal.command, &portal.formats[..])
        };
        let columns = command.as_ref().and_then(Command::columns);
        self.replies.description(columns.as_deref(), formats);
        Ok(())
    }

    fn close(&mut self, body: &Bytes) -> Result<(), Refusal> {
        let (kind, name) = frontend::target(body).map_err(broken)?;
        if kind == b'S' {
            self.statements.remove(name);
        } else {
            self.portals.remove(name);
        }
        self.replies.closed();
        Ok(())
    }

    async fn execute(&mut self, body: &Bytes) -> Result<(), Refusal> {
        let name = Bytes::copy_from_slice(frontend::execute(body).map_err(broken)?);
        let rows_max = body.last_chunk().map_or(0, |bytes| i32::from_be_bytes(*bytes));
        let Some(mut portal) = self.portals.remove(&name) else { return Err(no_such("portal")) };
        let Some(command) = portal.command.clone() else {
            self.replies.empty();
            self.portals.insert(name, portal);
            return Ok(());
        };
        let (mut rows, tag) = match portal.rows.take() {
            Some(rows) => (rows, String::new()),
            None => {
                let (rows, tag) = self.run(&command).await?;
                (rows.into_iter(), tag)
            }
        };
        let now = usize::try_from(rows_max).ok().filter(|max| *max > 0).unwrap_or(usize::MAX);
        for row in rows.by_ref().take(now) {
            self.replies.row(&row, &portal.formats);
            portal.given += 1;
        }
        if rows.len() > 0 {
            self.replies.suspended();
        } else if command.columns().is_some() {
            self.replies.complete(&counted(&command, portal.given));
        } else {
            self.replies.complete(&tag);
        }
        portal.rows = Some(rows);
        self.portals.insert(name, portal);
        Ok(())
    }

    /// Carries a command out: its rows and the tag of its end.
    async fn run(&mut self, command: &Command) -> Result<(Vec<Row>, String), Refusal> {
        if self.status == TransactionStatus::Error && !matches!(command, Command::Commit | Command::Rollback) {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Refusal::new(Class::Aborted, message));
        }
        let tag = match command {
            Command::Begin => {
                self.status = TransactionStatus::Transaction;
                "BEGIN"
            }
            Command::Commit if self.status == TransactionStatus::Error => self.end("ROLLBACK"),
            Command::Commit => self.end("COMMIT"),
            Command::Rollback => self.end("ROLLBACK"),
            Command::Accepted(tag) => {
                if tag.starts_with("D") && tag.ends_with("ALL") {
                    self.statements.clear();
                }
                tag
            }
            Command::Told(_, value) => return Ok((vec![vec![value.clone()]], counted(command, 1))),
            Command::Show(show) => {
                let rows = self.visit.clone().on_control((show.rows)(self.visit.clone())).await?;
                let tag = counted(command, rows.len());
                return Ok((rows, tag));
            }
            Command::Act(act, rest) => {
                self.visit.count_statement();
                let rows = self.visit.clone().on_control((act.does)(self.visit.clone(), rest.clone())).await?;
                return Ok((rows, counted(command, 0)));
            }
        };
        Ok((Vec::new(), tag.to_owned()))
    }

    fn end(&mut self, tag: &'static str) -> &'static str {
        self.status = TransactionStatus::Idle;
        tag
    }
}

/// The tag of a command that may give rows.
fn counted(command: &Command, rows: usize) -> String {
    match command {
        Command::Show(_) => "SHOW".to_owned(),
        Command::Act(act, _) => act.words.join(" "),
        _ => format!("SELECT {rows}"),
    }
}

fn bounded(count: usize, what: &str) -> Result<(), Refusal> {
    if count < NAMES_MAX {
        return Ok(());
    }
    Err(Refusal::new(Class::TooLarge, format!("too many prepared {what} for the console")))
}

fn utf8(text: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(text).map_err(|_| Refusal::new(Class::BadEncoding, "the console reads UTF-8 only"))
}

fn broken(error: Malformed) -> Refusal {
    Refusal::new(Class::ProtocolViolation, error.to_string())
}

fn no_such(what: &str) -> Refusal {
    Refusal::new(Class::NoTable, format!("there is no such prepared {what}"))
}
