//! Writes the rewritten text, and maps positions in it back to the client's text.
use std::fmt::Write;

use super::plan::{Piece, StatementPlan};

/// A rewritten text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// What is sent to the server.
    pub text: String,
    /// Pieces of the text in order: where each starts in the rewritten text and in the client's (bytes), and whether
    /// it was copied.
    spans: Vec<Span>,
}

/// Where the pieces of a rewritten text stand, in characters from 0: enough to map a position without either text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(Vec<Span>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    server: usize,
    client: usize,
    copied: bool,
}

/// Writes the whole text; `slot` writes the value of a plan's slot. What follows a definition stands behind it.
///
/// # Errors
/// Those of `slot`.
///
/// # Secrets
/// None: slots are cells and tokens.
pub fn render<E>(
    text: &str,
    plans: &[StatementPlan],
    slot: &mut dyn FnMut(usize, usize, &mut String) -> Result<(), E>,
) -> Result<Rendered, E> {
    let mut out = Rendered { text: String::with_capacity(text.len() + 64), spans: Vec::new() };
    let mut at = 0;
    for (index, plan) in plans.iter().enumerate() {
        at = render_edits(text, at, (index, plan), slot, &mut out)?;
        if let Some(ddl) = plan.ddl.as_ref().filter(|ddl| !ddl.then.is_empty()) {
            out.copy(text, at, plan.range.end);
            at = plan.range.end;
            out.spans.push(Span { server: out.text.len(), client: at, copied: false });
            ddl.then.iter().for_each(|then| out.text.extend(["; ", then]));
        }
    }
    out.copy(text, at, text.len());
    Ok(out)
}

fn render_edits<E>(
    text: &str,
    mut at: usize,
    (index, plan): (usize, &StatementPlan),
    slot: &mut dyn FnMut(usize, usize, &mut String) -> Result<(), E>,
    out: &mut Rendered,
) -> Result<usize, E> {
    for edit in &plan.edits {
        out.copy(text, at, edit.range.start);
        out.spans.push(Span { server: out.text.len(), client: edit.range.start, copied: false });
        for piece in &edit.with {
            match piece {
                Piece::Text(piece) => out.text.push_str(piece),
                Piece::Value(value) => slot(index, *value, &mut out.text)?,
            }
        }
        at = edit.range.end;
    }
    Ok(at)
}

/// Writes the text of a Parse (one statement) with `$n` for its values; comments around the statement are kept.
pub fn render_extended(text: &str, plan: &StatementPlan) -> Rendered {
    render_numbered(text, plan, (0, text.len()))
}

/// Writes one statement of several with `$n` for its values, without what stands around it.
pub fn render_statement_extended(text: &str, plan: &StatementPlan) -> Rendered {
    render_numbered(text, plan, (plan.range.start, plan.range.end))
}

fn render_numbered(text: &str, plan: &StatementPlan, (from, to): (usize, usize)) -> Rendered {
    let mut out = Rendered::default();
    let mut slot = |_, value: usize, out: &mut String| {
        number(plan, value, out);
        Ok::<(), std::convert::Infallible>(())
    };
    let Ok(at) = render_edits(text, from, (0, plan), &mut slot, &mut out);
    out.copy(text, at, to);
    out
}

/// Writes the lock query of a statement for the extended protocol.
pub fn render_lock_extended(plan: &StatementPlan) -> Option<String> {
    let lock = plan.lock.as_ref()?;
    let mut out = String::new();
    for piece in &lock.pieces {
        match piece {
            Piece::Text(piece) => out.push_str(piece),
            Piece::Value(value) => number(plan, *value, &mut out),
        }
    }
    Some(out)
}

fn number(plan: &StatementPlan, value: usize, out: &mut String) {
    if let Some(slot) = plan.values.get(value) {
        let _ = write!(out, "${}", slot.param);
    }
}

impl Rendered {
    fn copy(&mut self, text: &str, from: usize, to: usize) {
        self.spans.push(Span { server: self.text.len(), client: from, copied: true });
        self.text.push_str(&text[from..to]);
    }

    /// The same pieces counted in characters, as the server counts them.
    pub fn positions(&self, client_text: &str) -> Positions {
        let (mut server, mut client) = (Counted::new(&self.text), Counted::new(client_text));
        let spans = self.spans.iter().map(|span| Span {
            server: server.chars_before(span.server),
            client: client.chars_before(span.client),
            copied: span.copied,
        });
        Positions(spans.collect())
    }
}

/// A text whose characters are counted once, from front to back.
struct Counted<'a> {
    text: &'a str,
    byte: usize,
    chars: usize,
}

impl<'a> Counted<'a> {
    fn new(text: &'a str) -> Self {
        Counted { text, byte: 0, chars: 0 }
    }

    /// How many characters stand before a byte; bytes must be asked for in order.
    fn chars_before(&mut self, byte: usize) -> usize {
        self.chars += self.text.get(self.byte..byte).map_or(0, |between| between.chars().count());
        self.byte = byte;
        self.chars
    }
}

impl Positions {
    /// Maps a position in the rewritten text (characters from 1, as the server reports it) to one in the client's.
    /// Inside an edit: the start of what it replaced.
    pub fn map(&self, position: usize) -> usize {
        let at = position.saturating_sub(1);
        let index = self.0.partition_point(|span| span.server <= at).saturating_sub(1);
        let Some(span) = self.0.get(index) else { return position };
        span.client + 1 + if span.copied { at - span.server } else { 0 }
    }
}
