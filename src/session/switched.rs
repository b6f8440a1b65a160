//! Statements that were prepared before the schema changed: which of them may have come to mean something else (they are
//! looked at again by [`renewed`](super::renewed)), whatever they name; and statements that wait, while the switch of a column
//! that is sealed or unsealed in place is imminent, so as not to come in its way.
use bytes::Bytes;

use crate::hash::HashMap;
use crate::sql::filter::{ends_transaction, skip_blanks};
use crate::wire::frontend;

use super::machine::{Changes, Fatal, Held, Machine};
use super::messages::names_any;

/// How often the schema is read again before a statement goes on though a switch seems imminent still.
const WAITS_MAX: u32 = 120;
/// How many named statements are remembered. One that was forgotten has to be prepared again once the schema has changed.
const NAMED_MAX: usize = 10_000;

/// A statement that the client has prepared. It has no `Debug` form: there may be literals in its text.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) text: Vec<u8>,
    /// Parameter types the client gave.
    pub(super) oids: Vec<u32>,
    /// The snapshot of the schema that it was last planned against, if the server has what was planned.
    pub(super) version: Option<u64>,
    /// The one of before, while the server may have that under the name.
    before: Option<Before>,
}

/// Another statement that had the name before.
#[derive(Clone, Copy)]
struct Before {
    /// The snapshot that it was last planned against, as in [`Watched`].
    version: Option<u64>,
    /// How many Syncs had been sent when it was prepared anew: up to the next one, what fails there skips its Bind too.
    syncs: u64,
    /// The Parse has not been sent.
    is_refused: bool,
}

impl Watched {
    /// True when the one of before may be meant by what is sent now.
    pub(super) fn is_doubtful(&self, syncs: u64) -> bool {
        self.before.is_some_and(|before| before.syncs < syncs)
    }

    /// True when it was planned against another snapshot, or the one that may be meant instead was.
    pub(super) fn is_behind(&self, version: u64, syncs: u64) -> bool {
        self.version != Some(version)
            || (self.is_doubtful(syncs) && self.before.is_some_and(|before| before.version != Some(version)))
    }

    fn is_all_by(&self, version: u64) -> bool {
        self.version == Some(version) && self.before.is_none_or(|before| before.version == Some(version))
    }
}

/// All statements that the client has prepared by the protocol.
#[derive(Default)]
pub(super) struct Remembered {
    unnamed: Option<Watched>,
    named: HashMap<Bytes, Watched>,
    /// No statement was planned against another snapshot than this one; `None` where that is not so.
    all_by: Option<u64>,
    /// How many Binds have been looked at more closely since that was found out.
    looks: usize,
    /// The snapshot that was known when a statement was forgotten for there were too many.
    lost: Option<u64>,
}

impl Remembered {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Watched> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) }
    }

    fn get_mut(&mut self, name: &[u8]) -> Option<&mut Watched> {
        if name.is_empty() { self.unnamed.as_mut() } else { self.named.get_mut(name) }
    }

    /// True when a statement of this name may have been there that is not known any more.
    pub(super) fn is_lost(&self, name: &[u8]) -> bool {
        self.lost.is_some() && !name.is_empty() && self.get(name).is_none()
    }

    /// The statement is at the server as it was planned against this snapshot, or, with `None`, is not.
    pub(super) fn planned(&mut self, name: &[u8], version: Option<u64>) {
        if let Some(watched) = self.get_mut(name) {
            watched.version = version;
            self.all_by = self.all_by.filter(|all| version == Some(*all));
        }
    }

    /// The last Parse of this name is not sent.
    pub(super) fn refused(&mut self, name: &[u8]) {
        self.planned(name, None);
        if let Some(before) = self.get_mut(name).and_then(|watched| watched.before.as_mut()) {
            before.is_refused = true;
        }
    }

    /// Remembers a statement that is prepared when so many Syncs have been sent.
    fn add(&mut self, name: &[u8], text: &[u8], (oids, version, syncs): (&[u32], u64, u64)) {
        if self.unnamed.is_none() && self.named.is_empty() && self.lost.is_none() {
            self.all_by = Some(version);
        }
        self.all_by = self.all_by.filter(|all| *all == version);
        let watched = if name.is_empty() {
            self.unnamed.get_or_insert_default()
        } else {
            if self.named.len() >= NAMED_MAX && !self.named.contains_key(name) {
                self.lose(version);
            }
            self.named.entry(Bytes::copy_from_slice(name)).or_default()
        };
        if watched.text != text || watched.oids != oids {
            if !watched.text.is_empty() {
                let same = watched.before.is_none_or(|before| before.version == watched.version);
                let of = watched.version.filter(|_| same);
                watched.before = Some(Before { version: of, syncs, is_refused: false });
            }
            watched.text.clear();
            watched.text.extend_from_slice(text);
            watched.oids.clear();
            watched.oids.extend_from_slice(oids);
        }
        watched.version = Some(version);
    }

    fn lose(&mut self, version: u64) {
        let Some(name) = self.named.keys().next().cloned() else { return };
        let of = self.named.remove(&name).and_then(|lost| lost.version).unwrap_or(0);
        self.lost = Some(self.lost.map_or(of, |lost| if lost == of { lost } else { 0 }));
        self.all_by = self.all_by.filter(|all| *all == version);
    }

    /// True when the statement was planned against another snapshot, or may have been.
    fn is_behind(&mut self, name: &[u8], (version, syncs): (u64, u64)) -> bool {
        if self.all_by == Some(version) {
            return false;
        }
        self.looks += 1;
        if self.looks > self.named.len() {
            self.looks = 0;
            let is_same = self.lost.is_none_or(|lost| lost == version)
                && self.named.values().chain(&self.unnamed).all(|watched| watched.is_all_by(version));
            self.all_by = is_same.then_some(version);
        }
        match self.get(name) {
            Some(watched) => watched.is_behind(version, syncs),
            None => self.is_lost(name) && self.lost != Some(version),
        }
    }
}

/// True for what takes no values and gives no rows. The end of a transaction must go on in one that has failed; the others
/// stand alone, so that nothing can be asked in front of them.
fn is_inert(text: &[u8]) -> bool {
    ends_transaction(text) || [&b"discard"[..], b"vacuum"].iter().any(|word| begins_with(text, word))
}

fn begins_with(text: &[u8], word: &[u8]) -> bool {
    skip_blanks(text).get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

impl Machine {
    /// Remembers what the client prepares.
    pub(super) fn watch(&mut self, name: &[u8], text: &[u8], oids: &[u32]) {
        let version = self.with_schema(|schema| schema.catalog.version);
        self.watched.add(name, text, (oids, version, self.queue.syncs()));
    }

    /// The server has taken a Parse of this name.
    pub(super) fn is_prepared(&mut self, name: &[u8]) {
        if let Some(watched) = self.watched.get_mut(name)
            && watched.before.is_some_and(|before| !before.is_refused)
            && !self.queue.expects_parse(name)
        {
            watched.before = None;
        }
    }

    /// The server has closed the statement of this name.
    pub(super) fn is_closed(&mut self, name: &[u8]) {
        if !self.queue.expects_parse(name) {
            if name.is_empty() { self.watched.unnamed = None } else { self.watched.named.remove(name).map_or((), drop) }
        }
    }

    /// True when a Bind of this statement must be looked at, whatever the statement was when it was prepared.
    pub(super) fn is_watched(&mut self, statement: &[u8]) -> bool {
        let version = self.with_schema(|schema| schema.catalog.version);
        let is_watched = self.watched.is_behind(statement, (version, self.queue.syncs()))
            || self.shared.freshness.is_stale()
            || (self.own_schema_is_stale() && !self.is_definition(statement))
            || self.is_switching(statement);
        is_watched && !self.watched.get(statement).is_some_and(|watched| is_inert(&watched.text))
    }

    fn is_switching(&self, statement: &[u8]) -> bool {
        let is_imminent = !self.shared.schema.load().catalog.switching.is_empty();
        is_imminent && self.watched.get(statement).is_some_and(|watched| self.is_in_the_way(&watched.text))
    }

    /// True for DDL that takes no value and gives no row: no other than itself may be what changes the schema.
    fn is_definition(&self, statement: &[u8]) -> bool {
        let defines = |text: &[u8]| {
            [&b"create"[..], b"alter", b"drop"].iter().any(|word| begins_with(text, word)) && !text.contains(&b'$')
        };
        self.fact_statements.get(statement) == Some(&Changes::Schema)
            && self.watched.get(statement).is_some_and(|watched| defines(&watched.text))
    }

    /// A Bind that must not pass as it is; the schema by which it is looked at is no older than the last DDL.
    pub(super) fn look_at_bind(&mut self, held: Held) -> Result<(), Fatal> {
        let (_, name) = frontend::bind_names(&held.body)?;
        let is_own = self.is_definition(name);
        if self.must_read_schema(is_own) { self.wait_for_schema(held) } else { self.resume(held) }
    }

    /// True when this message should wait for a switch that is imminent: it is the first of a transaction, so that nobody
    /// waits for it.
    pub(super) fn waits_for_switch(&self, held: &Held) -> bool {
        if held.waited >= WAITS_MAX || held.locked.is_some() || held.copied.is_some() {
            return false;
        }
        match held.tag {
            b'B' => frontend::bind_names(&held.body)
                .is_ok_and(|(_, name)| self.watched.get(name).is_some_and(|watched| self.is_in_the_way(&watched.text))),
            _ => self.is_in_the_way(&held.body),
        }
    }

    fn is_in_the_way(&self, text: &[u8]) -> bool {
        let schema = self.shared.schema.load();
        let switching = &schema.catalog.switching;
        !switching.is_empty() && self.status == b'I' && self.queue.is_empty() && names_any(text, switching)
    }
}
