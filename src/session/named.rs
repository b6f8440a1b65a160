//! What the session knows by name: the cursors that it declared over sealed columns, and statements prepared in SQL.
use std::sync::Arc;

use bytes::Bytes;

use crate::refusal::{Class, Refusal};
use crate::sql::named;
use crate::sql::plan::{Call, Copy, Ddl, Named, ResultColumn, StatementPlan};
use crate::sql::render::Positions;

use super::facts::Facts;
use super::machine::{Machine, Prepared};
use super::messages::{allowed, shape};
use super::open::{Shape, Stored};
use super::shown::Stands;

/// What becomes of one statement's reply.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Its rows are shown in this way.
    Rows(Arc<Shape>),
    /// Its rows are shown as the cursor's columns say when they come: it may be declared just before.
    Fetch(Arc<Fetched>),
    /// Once it succeeds, a name stands for something new.
    Gives(Arc<Given>),
    /// It is a COPY of sealed values.
    Copy(Arc<Copy>, Arc<Facts>),
    /// It is DDL, which is done when the statements behind it are.
    Defines(Arc<Ddl>),
    /// In a simple query, one of these statements.
    Follows,
}

/// A FETCH under way.
#[derive(Debug)]
pub struct Fetched {
    cursor: Arc<str>,
    /// The format codes the client asked for; `None` in a simple query.
    formats: Option<Vec<i16>>,
    facts: Arc<Facts>,
}

/// A name and what it stands for; `None` for something that touches no sealed column.
#[derive(Debug)]
pub enum Given {
    /// A cursor.
    Cursor(Arc<str>, Option<Cursor>),
    /// A prepared statement.
    Statement(Bytes, Option<Arc<Prepared>>),
}

/// A cursor over sealed columns.
#[derive(Debug, Clone)]
pub struct Cursor {
    columns: Arc<[ResultColumn]>,
    hidden: usize,
    binary: bool,
    /// The session's facts when it was declared.
    facts: Arc<Facts>,
    given: Stands,
}

impl Reply {
    /// The same with the places in the text that was sent of a PREPARE, which is analysed once it is executed.
    pub fn placed(self, positions: &Arc<Positions>) -> Self {
        match self {
            Reply::Gives(given) => match &*given {
                Given::Statement(name, Some(prepared)) => {
                    let prepared = Prepared { positions: positions.clone(), ..Prepared::clone(prepared) };
                    Reply::Gives(Arc::new(Given::Statement(name.clone(), Some(Arc::new(prepared)))))
                }
                _ => Reply::Gives(given),
            },
            other => other,
        }
    }

    /// Where the pieces of a PREPARE's text stand.
    pub fn positions(&self) -> Option<&Positions> {
        match self {
            Reply::Gives(given) => match &**given {
                Given::Statement(_, Some(prepared)) => Some(&prepared.positions),
                _ => None,
            },
            _ => None,
        }
    }

    /// True for a COPY that takes rows for a sealed table.
    pub fn takes_rows(&self) -> bool {
        matches!(self, Reply::Copy(copy, _) if matches!(**copy, Copy::In(_)))
    }
}

impl Machine {
    /// What becomes of the reply to a statement; `None` when it is passed on. `formats` are the client's, `None` in a
    /// simple query.
    pub(super) fn reply(
        plan: &StatementPlan,
        formats: Option<Vec<i16>>,
        (facts, given): (&Arc<Facts>, Stands),
    ) -> Option<Reply> {
        let facts = || facts.clone();
        if let Some(copy) = &plan.copy {
            return Some(Reply::Copy(copy.clone(), facts()));
        }
        if let Some(ddl) = &plan.ddl {
            return Some(Reply::Defines(ddl.clone()));
        }
        match &plan.named {
            None | Some(Named::Execute(_) | Named::Mention { .. }) => {
                let stored = if formats.is_some() { Stored::Binary } else { Stored::Text };
                shape(plan, formats.unwrap_or_default(), stored, (&facts(), given)).map(Reply::Rows)
            }
            Some(Named::Fetch { name }) => {
                Some(Reply::Fetch(Arc::new(Fetched { cursor: name.clone(), formats, facts: facts() })))
            }
            Some(Named::Declare { name, binary, columns, hidden }) => {
                let (hidden, binary) = (*hidden, *binary);
                let cursor = columns.as_ref().map(|columns| Cursor {
                    columns: given.columns(columns),
                    hidden,
                    binary,
                    facts: facts(),
                    given,
                });
                Some(Reply::Gives(Arc::new(Given::Cursor(name.clone(), cursor))))
            }
            Some(Named::Prepare { name, plan }) => {
                let prepared = plan.clone().map(|plan| {
                    Arc::new(Prepared { plan, oids: Vec::new(), facts: facts(), positions: Arc::default(), text: None })
                });
                let name = Bytes::copy_from_slice(name.as_bytes());
                Some(Reply::Gives(Arc::new(Given::Statement(name, prepared))))
            }
        }
    }

    /// What becomes of the reply of a portal; a cursor declared in SQL is one too.
    pub(super) fn portal(&self, name: &[u8]) -> Option<Reply> {
        if let Some(reply) = self.portals.get(name) {
            return Some(reply.clone());
        }
        let (cursor, declared) = self.cursors.get_key_value(std::str::from_utf8(name).ok()?)?;
        let facts = self.facts.as_ref().unwrap_or(&declared.facts).clone();
        Some(Reply::Fetch(Arc::new(Fetched { cursor: cursor.clone(), formats: None, facts })))
    }

    /// How the rows of a reply are shown now.
    pub(super) fn shape_of(&self, reply: &Reply) -> Option<Arc<Shape>> {
        match reply {
            Reply::Rows(shape) => Some(shape.clone()),
            Reply::Fetch(fetched) => self.fetched_shape(&fetched.cursor, fetched.formats.as_deref(), &fetched.facts),
            Reply::Gives(_) | Reply::Copy(..) | Reply::Defines(_) | Reply::Follows => None,
        }
    }

    /// How the rows of a cursor are shown.
    pub(super) fn fetched_shape(
        &self,
        cursor: &str,
        formats: Option<&[i16]>,
        facts: &Arc<Facts>,
    ) -> Option<Arc<Shape>> {
        let cursor = self.cursors.get(cursor)?;
        let (formats, stored) = match formats {
            Some(formats) => (formats.to_vec(), Stored::AsAsked),
            None if cursor.binary => (vec![1], Stored::Binary),
            None => (Vec::new(), Stored::Text),
        };
        let (columns, hidden) = (cursor.columns.clone(), cursor.hidden);
        let given = cursor.given.clone();
        Some(Arc::new(Shape { columns, hidden, formats, stored, facts: facts.clone(), given }))
    }

    /// The client's result formats for a FETCH, with those of the columns that the client does not know of.
    pub(super) fn fetch_formats(&self, plan: &StatementPlan, client: &[i16]) -> Option<Vec<i16>> {
        let Some(Named::Fetch { name }) = &plan.named else { return None };
        let hidden = self.cursors.get(name).map_or(0, |cursor| cursor.hidden);
        let more = if client.len() > 1 { hidden } else { 0 };
        Some(client.iter().copied().chain(std::iter::repeat_n(0, more)).collect())
    }

    /// A statement that gives a name has succeeded.
    pub(super) fn give(&mut self, given: &Given) {
        match given {
            Given::Cursor(name, Some(cursor)) => {
                self.cursors.insert(name.clone(), cursor.clone());
            }
            Given::Cursor(name, None) => {
                self.cursors.remove(name);
            }
            Given::Statement(name, Some(prepared)) => {
                self.passed.remove(name);
                self.gone.remove(name);
                self.statements.insert(name.clone(), prepared.clone());
            }
            Given::Statement(name, None) => {
                self.passed.remove(name);
                self.gone.remove(name);
                self.statements.remove(name);
            }
        }
    }

    /// True when a text that names no sealed table must be looked at all the same, for the names in it.
    pub(super) fn may_name(&self, text: &[u8], sql_prepare: bool) -> bool {
        let named = !(self.statements.is_empty() && self.cursors.is_empty());
        named && (sql_prepare || mentions_execute(text))
    }

    /// Puts the plan of the statement meant in the place of each EXECUTE.
    ///
    /// # Errors
    /// 0A000 for a use of a name that cannot be followed.
    pub(super) fn resolve_names(
        &self,
        plans: Arc<[StatementPlan]>,
        facts: &Arc<Facts>,
    ) -> Result<Arc<[StatementPlan]>, Refusal> {
        if plans.iter().all(|plan| !matches!(plan.named, Some(Named::Execute(_) | Named::Mention { .. }))) {
            return Ok(plans);
        }
        let mut given: Vec<&str> = Vec::new();
        let mut resolved = Vec::with_capacity(plans.len());
        for plan in plans.iter() {
            if let Some(Named::Prepare { name, .. }) = &plan.named {
                given.push(name);
            }
            resolved.push(self.resolve(plan, &given, facts)?);
        }
        Ok(resolved.into())
    }

    fn resolve(&self, plan: &StatementPlan, given: &[&str], facts: &Arc<Facts>) -> Result<StatementPlan, Refusal> {
        match &plan.named {
            Some(Named::Execute(call)) if given.contains(&&*call.name) => Err(together(&call.name)),
            Some(Named::Mention { name }) if given.contains(&&**name) => Err(together(name)),
            Some(Named::Mention { name }) if self.statements.contains_key(name.as_bytes()) => Err(Refusal::new(
                Class::NotSupported,
                format!("prepared statement \"{name}\" over sealed columns cannot be used within another statement"),
            )
            .hint("EXECUTE it by itself.")),
            Some(Named::Execute(call)) => match self.statements.get(call.name.as_bytes()) {
                Some(prepared) => {
                    let called = called(prepared, call, facts)?;
                    Ok(StatementPlan { range: plan.range.clone(), ..called })
                }
                None => Ok(plan.clone()),
            },
            _ => Ok(plan.clone()),
        }
    }

    /// Refuses the use of a sealed statement's name in the extended protocol.
    ///
    /// # Errors
    /// 0A000.
    pub(super) fn refuse_names(&self, plan: &StatementPlan) -> Result<(), Refusal> {
        let name = match &plan.named {
            Some(Named::Execute(call)) => &call.name,
            Some(Named::Mention { name }) => name,
            _ => return Ok(()),
        };
        if !self.statements.contains_key(name.as_bytes()) {
            return Ok(());
        }
        Err(Refusal::new(Class::NotSupported, format!("EXECUTE of \"{name}\" over sealed columns cannot be prepared"))
            .hint("Bind the statement itself, or send EXECUTE as a simple query."))
    }
}

fn called(prepared: &Prepared, call: &Call, facts: &Arc<Facts>) -> Result<StatementPlan, Refusal> {
    prepared.same_schemas(facts)?;
    let [plan] = &prepared.plan[..] else { return Err(together(&call.name)) };
    if plan.lock.is_some() || plan.named.is_some() {
        return Err(Refusal::new(
            Class::NotSupported,
            format!("EXECUTE of \"{}\", which runs in two steps, is not supported", call.name),
        )
        .hint("Bind the statement itself."));
    }
    let called = named::call(plan, call)?;
    allowed(std::slice::from_ref(&called), facts)?;
    Ok(called)
}

fn together(name: &str) -> Refusal {
    Refusal::new(
        Class::NotSupported,
        format!("prepared statement \"{name}\" cannot be prepared and executed in one query"),
    )
    .hint("Send the statements one by one.")
}

/// True when the word EXECUTE stands anywhere in the text, in any case.
pub(super) fn mentions_execute(text: &[u8]) -> bool {
    const WORD: &[u8] = b"execute";
    memchr::memchr2_iter(b'x', b'X', text)
        .filter_map(|at| text.get(at.checked_sub(1)?..at + WORD.len() - 1))
        .any(|found| found.eq_ignore_ascii_case(WORD))
}
