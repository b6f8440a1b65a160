//! USING and NATURAL: which columns they merge, and how they are written when a sealed one is among them.
use std::ops::Range;

use sqlparser::ast::{ObjectName, TableFactor};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::unsupported;
use super::extent::closing;
use super::from::{Condition, Side};
use super::ident::parts;
use super::scope::{Coalesced, Scope, ScopeColumn, ScopeRelation};
use super::sealed::{SealedRef, Ty, common_type, only_plain};
use crate::refusal::Refusal;

/// A column in the star of a level: relation, column, merged.
type Place = (usize, usize, bool);

impl Planner<'_> {
    /// `JOIN ... USING (names)`.
    pub(super) fn using<'e>(
        &mut self,
        scope: &mut Scope<'_>,
        (start, right): (usize, usize),
        names: &[ObjectName],
        side: Side,
    ) -> Result<Condition<'e>, Refusal> {
        let fail = || unsupported("this form of USING");
        // A name with a table's in front of it is no SQL, though the parser takes it.
        let bare = |name: &ObjectName| parts(name).filter(|parts| parts.len() == 1)?.pop();
        let spelled: Option<Vec<_>> = names.iter().map(bare).collect();
        let spelled = spelled.ok_or_else(fail)?;
        let pairs = pairs(scope, (start, right), &spelled)?;
        if !rewrites(scope, &pairs) {
            return Ok(merge(scope, start, &pairs, side));
        }
        let range = self.using_range(names.first().ok_or_else(fail)?).ok_or_else(fail)?;
        let (text, condition) = self.join_written(scope, start, &pairs, side)?;
        self.edit(range, text);
        Ok(condition)
    }

    /// `USING (...)` around its first name.
    fn using_range(&self, first: &ObjectName) -> Option<Range<usize>> {
        let sqlparser::ast::ObjectNamePart::Identifier(ident) = first.0.first()? else { return None };
        let open = self.text.token_at(self.text.range(ident.span)?.start)?.checked_sub(1)?;
        let keyword = open.checked_sub(1)?;
        (self.text.word(keyword)? == "using").then_some(())?;
        Some(self.text.tokens[keyword].range.start..self.text.tokens[closing(self.text, open)?].range.end)
    }

    /// NATURAL JOIN: USING over all names that both sides have.
    pub(super) fn natural<'e>(
        &mut self,
        scope: &mut Scope<'_>,
        (start, right): (usize, usize),
        factor: &TableFactor,
        side: Side,
    ) -> Result<Condition<'e>, Refusal> {
        let fail = || unsupported("this NATURAL JOIN");
        if scope.relations.iter().any(|r| r.opaque) {
            return Err(fail());
        }
        let name = |place: &Place| scope.relations[place.0].columns[place.1].name.clone();
        let rights: Vec<_> = scope.star[right..].iter().filter_map(name).collect();
        let common: Vec<_> = scope.star[start..right].iter().filter_map(name).filter(|n| rights.contains(n)).collect();
        let pairs = pairs(scope, (start, right), &common)?;
        if !rewrites(scope, &pairs) {
            return Ok(merge(scope, start, &pairs, side));
        }
        let (keyword, end) = self.natural_place(factor).ok_or_else(fail)?;
        let (text, condition) = self.join_written(scope, start, &pairs, side)?;
        self.edit(keyword, "");
        self.edit(end..end, format!(" {text}"));
        Ok(condition)
    }

    /// The word NATURAL before a table, and where the table with its alias ends.
    fn natural_place(&self, factor: &TableFactor) -> Option<(Range<usize>, usize)> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
        let sqlparser::ast::ObjectNamePart::Identifier(first) = name.0.first()? else { return None };
        let sqlparser::ast::ObjectNamePart::Identifier(last) = name.0.last()? else { return None };
        let start = self.text.token_at(self.text.range(first.span)?.start)?;
        let keyword =
            (start.saturating_sub(5)..start).rev().find(|i| self.text.word(*i).as_deref() == Some("natural"))?;
        let mut end = self.text.range(last.span)?.end;
        if let Some(alias) = alias {
            end = self.text.range(alias.name.span)?.end;
            let next = self.text.token_ending(end)? + 1;
            if self.text.token(next) == Some(&Token::LParen) {
                end = self.text.tokens[closing(self.text, next)?].range.end;
            }
        }
        Some((self.text.tokens[keyword].range.clone(), end))
    }
}

/// The places of the columns that are merged, left and right.
fn pairs(scope: &Scope<'_>, (start, right): (usize, usize), names: &[String]) -> Result<Vec<(Place, Place)>, Refusal> {
    let find = |places: &[Place], name: &str| {
        places.iter().copied().find(|(r, c, _)| {
            let column = &scope.relations[*r].columns[*c];
            !column.hidden && column.name.as_deref() == Some(name)
        })
    };
    names
        .iter()
        .map(|name| {
            let places = (find(&scope.star[start..right], name), find(&scope.star[right..], name));
            let (Some(left), Some(right)) = places else {
                return Err(unsupported("USING over columns that are not known"));
            };
            Ok((left, right))
        })
        .collect()
}

fn column<'s>(scope: &'s Scope<'_>, place: Place) -> &'s ScopeColumn {
    &scope.relations[place.0].columns[place.1]
}

/// True when the join cannot stay as it is written.
fn rewrites(scope: &Scope<'_>, pairs: &[(Place, Place)]) -> bool {
    pairs.iter().any(|(left, right)| {
        let (left, right) = (column(scope, *left), column(scope, *right));
        !matches!((&left.ty, &right.ty), (Ty::Plain, Ty::Plain)) || left.written.is_some()
    })
}

/// Takes the merged columns out of `*` and puts them first, once.
fn move_first(scope: &mut Scope<'_>, start: usize, pairs: &[(Place, Place)], from_right: bool) {
    let is_pair =
        |place: &Place| pairs.iter().any(|(l, r)| (place.0, place.1) == (l.0, l.1) || (place.0, place.1) == (r.0, r.1));
    scope.star.retain(|place| !is_pair(place));
    let merged = pairs.iter().map(|(l, r)| if from_right { (r.0, r.1, true) } else { (l.0, l.1, true) });
    let merged: Vec<_> = merged.collect();
    let start = start.min(scope.star.len());
    scope.star.splice(start..start, merged);
}

/// USING over plain columns, which stays as it is written.
fn merge<'e>(scope: &mut Scope<'_>, start: usize, pairs: &[(Place, Place)], side: Side) -> Condition<'e> {
    let same = pairs.iter().map(|(l, r)| (column(scope, *l).spot, column(scope, *r).spot)).collect();
    for (_, right) in pairs {
        scope.relations[right.0].columns[right.1].hidden = true;
    }
    move_first(scope, start, pairs, false);
    Condition::Using { same, sealed: Vec::new(), is_inner: side == Side::Inner }
}

impl Planner<'_> {
    /// USING written as ON. Bare names then mean the side that is never NULL, or of a FULL JOIN the one that is not.
    fn join_written<'e>(
        &self,
        scope: &mut Scope<'_>,
        start: usize,
        pairs: &[(Place, Place)],
        side: Side,
    ) -> Result<(String, Condition<'e>), Refusal> {
        let (mut terms, mut same, mut sealed) = (Vec::new(), Vec::new(), Vec::new());
        let mut merged = Vec::new();
        for (left, right) in pairs {
            let texts = (text(scope, *left), text(scope, *right));
            let (Some(l), Some(r)) = texts else { return Err(unsupported("this join")) };
            same.push((column(scope, *left).spot, column(scope, *right).spot));
            let either = match (scope.reference(left.0, left.1), scope.reference(right.0, right.1)) {
                (Ty::Plain, Ty::Plain) => {
                    terms.push(format!("{l} = {r}"));
                    (Ty::Plain, Coalesced { tenant: None })
                }
                (Ty::Sealed(a), Ty::Sealed(b)) => {
                    terms.push(format!("rowseal.eq({l}) = rowseal.eq({r})"));
                    let either = match side {
                        Side::Full => self.either(&a, &b, &l)?,
                        Side::Inner | Side::Left | Side::Right => (Ty::Plain, Coalesced { tenant: None }),
                    };
                    sealed.push((a, b));
                    either
                }
                (a, b) => {
                    return only_plain(&a, "in USING")
                        .and(only_plain(&b, "in USING"))
                        .and(Err(unsupported("this join")));
                }
            };
            if side == Side::Full {
                let name = column(scope, *left).name.clone();
                let (written, coalesced) = (Some(format!("coalesce({l}, {r})")), Some(either.1));
                merged.push(ScopeColumn { ty: either.0, written, coalesced, ..ScopeColumn::plain(name) });
                for (relation, column, _) in [left, right] {
                    scope.relations[*relation].columns[*column].hidden = true;
                }
                continue;
            }
            let (kept, hidden) = if side == Side::Right { (right, left) } else { (left, right) };
            let name = if side == Side::Right { r } else { l };
            scope.relations[kept.0].columns[kept.1].written = Some(name);
            scope.relations[hidden.0].columns[hidden.1].hidden = true;
        }
        move_first(scope, start, pairs, side == Side::Right);
        if side == Side::Full {
            // Columns of no relation that has a name.
            let at = scope.relations.len();
            let start = start.min(scope.star.len());
            (0..merged.len()).for_each(|n| scope.star[start + n] = (at, n, true));
            scope.relations.push(ScopeRelation::derived(merged));
        }
        let condition = Condition::Using { same, sealed, is_inner: side == Side::Inner };
        Ok((format!("ON {}", terms.join(" AND ")), condition))
    }

    /// The value of either side, with its tenant where both sides have one in reach. Rows of one side only say nothing of
    /// the other's tenant.
    fn either(&self, a: &SealedRef, b: &SealedRef, left: &str) -> Result<(Ty, Coalesced), Refusal> {
        let mut whole = SealedRef { parts: Vec::new(), ..a.clone() };
        self.add_value(&mut whole, b)?;
        (whole.spot, whole.home, whole.tied, whole.is_stray) = (None, None, Vec::new(), true);
        whole.described = common_type([Some(a.described), Some(b.described)]).unwrap_or(whole.described);
        let tenant = match (&a.tenant, &b.tenant) {
            (Some(a), Some(b)) => Some(format!("CASE WHEN {left} IS NOT NULL THEN {a} ELSE {b} END")),
            _ => None,
        };
        Ok((Ty::Sealed(whole), Coalesced { tenant }))
    }
}

fn text(scope: &Scope<'_>, place: Place) -> Option<String> {
    column(scope, place).written.clone().or_else(|| scope.relations[place.0].written(place.1))
}
