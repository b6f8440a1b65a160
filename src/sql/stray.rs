//! Where a value that is sealed stands a second time in its statement. Beside a plain column, or for one, the client means it
//! for that column, and it is sent on. Where only its being NULL matters, what is made of it does as well: the filter of
//! `$1 IS NULL OR email = $1`. Anywhere else it would reach the server for nothing, and is refused.
use std::ops::Range;

use sqlparser::ast::Expr;

use super::build::Planner;
use super::operand::{Kind, Shape, operand};
use super::plan::{Piece, Role, Source, ValueSlot};
use super::scope::Scope;
use super::sealed::refuse_use;
use crate::policy::Column;
use crate::refusal::Refusal;

/// A literal or parameter that was walked.
pub(super) struct Use {
    shape: Shape,
    /// Its bytes, casts included.
    range: Range<usize>,
    /// True when it stands beside a plain column, or for one.
    is_placed: bool,
    /// True when only its being NULL matters.
    is_tested: bool,
}

impl Use {
    fn is(&self, source: &Source) -> bool {
        match (&self.shape, source) {
            (Shape::Param(index), Source::Param(other)) => index == other,
            (Shape::Literal(text, Kind::Quoted), Source::Literal(other)) => !text.is_empty() && text == other,
            _ => false,
        }
    }
}

impl Planner<'_> {
    /// Notes a literal or parameter.
    pub(super) fn see(&mut self, value: &Expr, is_tested: bool) -> bool {
        let Some(found) = operand(self.text, value) else { return false };
        self.uses.push(Use { shape: found.shape, range: found.range, is_placed: false, is_tested });
        true
    }

    /// Walks what puts its operands beside each other: values beside a plain column are meant for it.
    pub(super) fn beside<T>(&mut self, walk: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let (first, columns) = (self.uses.len(), self.plain_columns);
        let walked = walk(self)?;
        if self.plain_columns > columns {
            self.place(first);
        }
        Ok(walked)
    }

    /// Walks what a plain column is to be.
    pub(super) fn assigned(&mut self, value: &Expr, scope: &Scope<'_>, place: &str) -> Result<(), Refusal> {
        let first = self.uses.len();
        self.plain(value, scope, place)?;
        self.place(first);
        Ok(())
    }

    fn place(&mut self, first: usize) {
        self.uses.iter_mut().skip(first).for_each(|found| found.is_placed = true);
    }

    /// Replaces or refuses what stands a second time where no column is; true when edits were added to the sorted ones.
    ///
    /// # Errors
    /// 0A000 with the column that the value is sealed for.
    pub(super) fn settle_uses(&mut self) -> Result<bool, Refusal> {
        let mut uses = std::mem::take(&mut self.uses);
        uses.retain(|found| !found.is_placed && !self.is_edited(&found.range));
        let before = self.edits.len();
        for found in uses {
            // What a row may show in place of a sealed value is none.
            let is_meant = |slot: &ValueSlot| found.is(&slot.source) && !matches!(slot.role, Role::Shown { .. });
            let mut meant = self.values.iter().enumerate().filter(|(_, slot)| is_meant(slot)).peekable();
            let Some((_, first)) = meant.peek() else { continue };
            let Some(column) = column(first) else { continue };
            let refusal = || {
                refuse_use(column, "with a value that also stands where no column is")
                    .hint("Use another parameter or literal there, or only test whether it IS NULL.")
            };
            let stand_in = meant.find_map(|(at, slot)| Some((at, of_null(&slot.role)?)));
            match stand_in.filter(|_| found.is_tested && self.lock.is_none()) {
                Some((at, cast)) => self.edit_pieces(found.range, vec![Piece::Value(at), Piece::Text(cast.into())]),
                None => return Err(refusal()),
            }
        }
        Ok(self.edits.len() > before)
    }
}

fn column(slot: &ValueSlot) -> Option<&Column> {
    super::build::role_column(&slot.role).map(|column| &**column)
}

/// The type of what is made of a value, where that is NULL exactly when the value is.
fn of_null(role: &Role) -> Option<&'static str> {
    match role {
        Role::Seal { .. } | Role::Search { .. } => Some("::pg_catalog.bytea"),
        Role::SearchMany { .. } => Some("::pg_catalog.bytea[]"),
        _ => None,
    }
}
