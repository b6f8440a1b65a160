//! What a statement asks for: the table of what can be shown, that of what can be done, and the statements with which
//! clients begin of their own accord.
use std::pin::Pin;
use std::sync::Arc;

use super::Visit;
use super::acts;
use super::answer::{Column, Kind, Row, Value, column};
use super::keys;
use super::shows;
use super::text::Token;
use crate::refusal::{Class, Refusal};

pub(super) type Rows = Pin<Box<dyn Future<Output = Result<Vec<Row>, Refusal>> + Send>>;

/// Something that can be shown: `SHOW word`.
pub(super) struct Show {
    pub(super) word: &'static str,
    pub(super) help: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    pub(super) rows: fn(Arc<Visit>) -> Rows,
}

/// Something that can be done. To add one: an entry here and its function in `acts.rs` or `keys.rs`.
pub(super) struct Act {
    /// The words it begins with.
    pub(super) words: &'static [&'static str],
    /// How it is written.
    pub(super) usage: &'static str,
    pub(super) help: &'static str,
    /// What it answers, if anything.
    pub(super) columns: &'static [(&'static str, Kind)],
    /// Does it with what is written behind the words.
    pub(super) does: fn(Arc<Visit>, Vec<Token>) -> Rows,
}

/// What is told of a tenant whose keys were changed.
const CHANGED: &[(&str, Kind)] = &[
    ("database", Kind::Text),
    ("tenant", Kind::Text),
    ("state", Kind::Text),
    ("keys", Kind::Int),
    ("proxies", Kind::Int),
    ("silent_proxies", Kind::Text),
];

pub(super) const ACTS: &[Act] = &[
    Act {
        words: &["RELOAD"],
        usage: "RELOAD",
        help: "read the policy file again; a bad one changes nothing",
        columns: &[],
        does: |visit, rest| Box::pin(acts::reload(visit, rest)),
    },
    Act {
        words: &["REGISTER", "TENANT"],
        usage: "REGISTER TENANT 'name' [DIRECT | HIERARCHICAL] [IN database]",
        help: "give a tenant a master key of its own; safe to repeat",
        columns: &[],
        does: |visit, rest| Box::pin(acts::register(visit, rest)),
    },
    Act {
        words: &["ROTATE", "KEY"],
        usage: "ROTATE KEY 'tenant' [RESEAL] [COMPROMISED REASON 'why'] [IN database]",
        help: "give a tenant another master key, in the background; goes on where it stopped (SHOW ROTATIONS)",
        columns: &[("database", Kind::Text), ("tenant", Kind::Text), ("state", Kind::Text), ("started", Kind::Text)],
        does: |visit, rest| Box::pin(keys::rotate(visit, rest)),
    },
    Act {
        words: &["DEACTIVATE", "KEY"],
        usage: "DEACTIVATE KEY 'tenant' REASON 'why' [IN database]",
        help: "stop every use of a tenant's keys, whatever is cached, and disable them",
        columns: CHANGED,
        does: |visit, rest| Box::pin(keys::deactivate(visit, rest)),
    },
    Act {
        words: &["REACTIVATE", "KEY"],
        usage: "REACTIVATE KEY 'tenant' [REASON 'why'] [IN database]",
        help: "let the keys of a deactivated tenant be used again",
        columns: CHANGED,
        does: |visit, rest| Box::pin(keys::reactivate(visit, rest)),
    },
];

/// What a statement asks for.
#[derive(Clone)]
pub(super) enum Command {
    Show(&'static Show),
    Act(&'static Act, Vec<Token>),
    /// One row of one column, as clients ask for when they begin.
    Told(Column, Value),
    Begin,
    Commit,
    Rollback,
    /// Done by doing nothing.
    Accepted(&'static str),
}

impl Command {
    /// The columns of the answer; `None` where there are no rows.
    pub(super) fn columns(&self) -> Option<Vec<Column>> {
        match self {
            Command::Show(Show { columns, .. }) | Command::Act(Act { columns, .. }, _) => {
                (!columns.is_empty()).then(|| columns.iter().map(|(name, kind)| column(*name, *kind)).collect())
            }
            Command::Told(column, _) => Some(vec![column.clone()]),
            Command::Begin | Command::Commit | Command::Rollback | Command::Accepted(_) => None,
        }
    }

    /// Reads one statement.
    ///
    /// # Errors
    /// 42601 for one that the console does not know.
    pub(super) fn read(tokens: &[Token], visit: &Visit) -> Result<Command, Refusal> {
        if let [first, second] = tokens
            && first.is("show")
            && let Some(show) = shows::SHOWS.iter().find(|show| second.is(show.word))
        {
            return Ok(Command::Show(show));
        }
        let begins = |act: &&Act| {
            act.words.len() <= tokens.len() && act.words.iter().zip(tokens).all(|(word, token)| token.is(word))
        };
        if let Some(act) = ACTS.iter().find(begins) {
            return Ok(Command::Act(act, tokens[act.words.len()..].to_vec()));
        }
        customary(tokens, visit).ok_or_else(unknown)
    }
}

fn unknown() -> Refusal {
    Refusal::new(Class::Syntax, "the console does not know this command").hint("SHOW HELP lists what it knows.")
}

/// Statements that clients send unasked: settings, transactions, and what says where they are.
fn customary(tokens: &[Token], visit: &Visit) -> Option<Command> {
    let folded: Vec<String> = tokens.iter().map(Token::folded).collect();
    let words: Vec<&str> = folded.iter().map(String::as_str).collect();
    Some(match words[..] {
        ["set", ..] => Command::Accepted("SET"),
        ["reset", ..] => Command::Accepted("RESET"),
        ["begin", ..] | ["start", "transaction", ..] => Command::Begin,
        ["commit" | "end", ..] => Command::Commit,
        ["rollback" | "abort", ..] => Command::Rollback,
        ["deallocate", "all"] => Command::Accepted("DEALLOCATE ALL"),
        ["deallocate", ..] => Command::Accepted("DEALLOCATE"),
        ["discard", "all"] => Command::Accepted("DISCARD ALL"),
        ["close", "all"] => Command::Accepted("CLOSE CURSOR ALL"),
        ["unlisten", ..] => Command::Accepted("UNLISTEN"),
        ["show", "transaction", "isolation", "level"] => told("transaction_isolation", "read committed"),
        ["show", name] => return visit.parameter(name).map(|value| told(name.to_owned(), value)),
        ["select", ref what @ ..] => return said(what.strip_prefix(&["pg_catalog", "."]).unwrap_or(what), visit),
        _ => return None,
    })
}

fn said(what: &[&str], visit: &Visit) -> Option<Command> {
    Some(match what {
        ["1"] => Command::Told(column("?column?", Kind::Int), Value::Int(1)),
        ["version", "(", ")"] => told("version", concat!("RowSeal ", env!("CARGO_PKG_VERSION"), " console")),
        ["current_schema", "(", ")"] | ["current_schema"] => told("current_schema", crate::server::console::CONSOLE),
        ["current_database", "(", ")"] => told("current_database", crate::server::console::CONSOLE),
        ["current_user"] => told("current_user", &*visit.role),
        ["session_user"] => told("session_user", &*visit.role),
        ["pg_is_in_recovery", "(", ")"] => Command::Told(column("pg_is_in_recovery", Kind::Bool), Value::Bool(false)),
        _ => return None,
    })
}

fn told(name: impl Into<std::borrow::Cow<'static, str>>, value: impl ToString) -> Command {
    Command::Told(column(name, Kind::Text), Value::text(value))
}
