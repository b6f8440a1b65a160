//! Questions to the server about the names in a message of the client's, which is held meanwhile: whether a statement
//! means something without its values, whether a prepared statement exists. An error is the client's; else the message goes
//! on. A value must not leave before.
use std::sync::Arc;

use crate::refusal::{Class, Refusal};
use crate::sql;
use crate::sql::plan::{Asked, Question, Verdict};
use crate::sql::render::Positions;
use crate::wire::frontend;

use super::internal::OWN;
use super::machine::{Fatal, Held, Hold, Machine};
use super::named::mentions_execute;
use super::queue::{Expect, Own};
use super::redact::redact;
use super::work::Work;

impl Machine {
    /// Holds a message that raises questions: first for the schema, where that may answer them, then for the server.
    pub(super) fn ask_first(&mut self, held: Held, asked: &Asked) {
        if asked.reload && !held.reloaded {
            self.hold = Some(Hold::Schema(Held { reloaded: true, ..held }));
            self.client_work.put(Work::Reload);
            return;
        }
        let refused = match &asked.then {
            Verdict::Refuse(refusal) => Some(refusal.clone()),
            Verdict::Pass | Verdict::Rewrite(_) | Verdict::Ask(_) => None,
        };
        self.ask_names(held, &asked.questions, refused);
    }

    /// Holds a message until the server has said that it knows the names in it. An error of a question is the client's.
    fn ask_names(&mut self, held: Held, questions: &[Question], refused: Option<Refusal>) {
        let out = &mut self.to_server;
        for question in questions {
            match question {
                Question::Names { text, positions } => {
                    frontend::put_close(out, b'S', &OWN);
                    frontend::put_parse(out, &OWN, text.as_bytes(), &[]);
                    self.queue.push(Expect::Own(Own::Step));
                    self.queue.push(Expect::Asked(positions.clone()));
                }
                Question::Prepared(name) => {
                    frontend::put_describe(out, b'S', name.as_bytes());
                    self.queue.push(Expect::Asked(Arc::default()));
                }
            }
        }
        self.end_question(held.tag);
        self.hold = Some(Hold::Names(held, refused));
    }

    /// The verdict on a text, after a question for each statement that it EXECUTEs with arguments and that is not known to
    /// be sealed: there may be none of that name.
    pub(super) fn with_prepared(&self, text: &[u8], verdict: Verdict) -> Result<Verdict, Refusal> {
        if !mentions_execute(text) {
            return Ok(verdict);
        }
        let used = sql::named::used_with_values(&String::from_utf8_lossy(text))?;
        let unsealed = used.into_iter().filter(|name| !self.statements.contains_key(name.as_bytes()));
        let mut questions: Vec<Question> = unsealed.map(Question::Prepared).collect();
        let (reload, then) = match verdict {
            verdict if questions.is_empty() => return Ok(verdict),
            Verdict::Ask(asked) => {
                questions.extend(asked.questions.iter().cloned());
                (asked.reload, asked.then.clone())
            }
            verdict => (false, verdict),
        };
        Ok(Verdict::Ask(Arc::new(Asked { questions, reload, then })))
    }

    /// Swallows the reply to a question about names; after the last one, what was held goes on.
    pub(super) fn asked(&mut self, tag: u8) -> Result<bool, Fatal> {
        let Some(Expect::Asked(_)) = self.queue.front() else { return Ok(false) };
        if matches!(tag, b'1' | b'T' | b'n') {
            self.queue.pop();
            if !self.queue.asks()
                && let Some(Hold::Names(held, _)) = self.hold.take_if(|hold| matches!(hold, Hold::Names(..)))
            {
                self.resume(Held { named: true, ..held })?;
            }
        }
        Ok(true)
    }

    /// What the client is told where the error may come of the question alone, which is not the client's statement.
    pub(super) fn misled(&self, fields: &[(u8, &[u8])]) -> Option<(Refusal, String)> {
        const NAMES: &[&[u8]] = &[b"42703", b"42P01", b"42702", b"3F000", b"42501"];
        let Some(Expect::Asked(positions)) = self.queue.front() else { return None };
        if **positions == Positions::default() {
            return None;
        }
        let code = fields.iter().find(|(field, _)| *field == b'C').map_or(&b""[..], |(_, code)| code);
        let by_values = (code.starts_with(b"42") || code.starts_with(b"22")) && !NAMES.contains(&code);
        let refused = match &self.hold {
            Some(Hold::Names(_, refused)) => refused.clone(),
            _ => None,
        };
        let said = fields.iter().find(|(field, _)| *field == b'M').map_or(&b""[..], |(_, said)| said);
        by_values.then(|| (refused.unwrap_or_else(|| not_asked(said)), String::new()))
    }
}

/// The refusal of a statement that the server does not take without its values, and what it says of that.
fn not_asked(said: &[u8]) -> Refusal {
    let said = String::from_utf8_lossy(&redact(said)).replace(char::is_control, " ");
    Refusal::new(Class::NotSupported, "a name in a statement over sealed columns is not known")
        .detail(format!("The server was asked without the values of the statement, and says: {said}."))
        .hint("Check the names of the columns, or write the name of the table or function in front of each.")
}
