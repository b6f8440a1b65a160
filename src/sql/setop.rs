//! UNION, INTERSECT, EXCEPT and VALUES.
use std::ops::Range;

use sqlparser::ast::{SetExpr, SetOperator, SetQuantifier};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::unsupported;
use super::extent::body_start;
use super::facts::Spot;
use super::ident::quote;
use super::inside::Built;
use super::operand::fits;
use super::query::{Columns, List, has_whole_key};
use super::scope::{Scope, ScopeColumn};
use super::sealed::{Part, SealedRef, Ty, common_type, is_null, not_searchable, only_plain, refuse_use};
use super::tenant::not_pinned;
use crate::policy::Equality;
use crate::refusal::Refusal;

/// The name of a rewritten UNION; no client relation is called so.
const UNITED: &str = "rowseal_u";
/// The name of the second query of a rewritten INTERSECT or EXCEPT.
const SECOND: &str = "rowseal_w";

const PLACE: &str = "in UNION, INTERSECT or EXCEPT";

/// What a set operation gives, and whether it compares rows of different cells.
struct United {
    columns: Columns,
    compares: bool,
    /// The right side of an INTERSECT or EXCEPT of two plain queries, where it can be rewritten.
    pair: Option<Vec<ScopeColumn>>,
}

impl Planner<'_> {
    /// The body of a set operation or VALUES.
    pub(super) fn set_body(
        &mut self,
        body: &SetExpr,
        parent: Option<&Scope<'_>>,
        list: List,
    ) -> Result<Columns, Refusal> {
        let united = self.united(body, parent)?;
        let mut columns = match united.columns {
            Some(columns) if united.compares => columns,
            columns => return Ok(columns),
        };
        let mut first = None;
        for column in &mut columns {
            if let Ty::Sealed(sealed) = &mut column.ty {
                first.get_or_insert(std::sync::Arc::clone(&sealed.column));
                if list == List::Value {
                    sealed.unreadable = Some(PLACE);
                }
            }
        }
        match first {
            Some(_) if list != List::Value && only_unions(body) => self.rewrite_union(body, columns).map(Some),
            Some(_) if list != List::Value && united.pair.is_some() => {
                let right = united.pair.unwrap_or_default();
                self.rewrite_pair(body, columns, &right).map(Some)
            }
            Some(column) if list != List::Value => Err(refuse_use(&column, PLACE)
                .hint("Select the primary key as well, or write the query with EXISTS or NOT EXISTS.")),
            _ => Ok(Some(columns)),
        }
    }

    /// One branch of a set operation, not rewritten yet.
    pub(super) fn branch(&mut self, body: &SetExpr, parent: Option<&Scope<'_>>) -> Result<Columns, Refusal> {
        match body {
            SetExpr::Select(select) => self.select(select, None, parent, List::Value),
            SetExpr::Query(query) => self.query(query, parent, List::Value),
            body => self.set_body(body, parent, List::Value),
        }
    }

    fn united(&mut self, body: &SetExpr, parent: Option<&Scope<'_>>) -> Result<United, Refusal> {
        match body {
            SetExpr::Values(values) => {
                let scope = Scope::below(parent);
                for e in values.rows.iter().flat_map(|row| &row.content) {
                    self.assigned(e, &scope, "in VALUES")?;
                }
                let width = values.rows.first().map_or(0, |row| row.content.len());
                let columns = (1..=width).map(|i| ScopeColumn::plain(Some(format!("column{i}")))).collect();
                Ok(United { columns: Some(columns), compares: false, pair: None })
            }
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let (mut left, mut right) = (self.united(left, parent)?, self.united(right, parent)?);
                for column in left.columns.iter_mut().chain(&mut right.columns).flatten() {
                    let ty = std::mem::replace(&mut column.ty, Ty::Plain);
                    column.ty = self.settled(ty)?;
                }
                let below = left.compares || right.compares;
                let (Some(l), Some(r)) = (left.columns.as_ref(), right.columns.as_ref()) else {
                    let known = left.columns.iter().chain(&right.columns).flatten();
                    known.into_iter().try_for_each(|c| only_plain(&c.ty, PLACE))?;
                    return Ok(United { columns: None, compares: false, pair: None });
                };
                let keeps = *op == SetOperator::Union && *set_quantifier == SetQuantifier::All;
                if !keeps {
                    let built = |c: &&ScopeColumn| matches!(c.ty, Ty::Built(_));
                    l.iter().chain(r).filter(built).try_for_each(|c| only_plain(&c.ty, PLACE))?;
                }
                let compares = !keeps && self.compares(l, r)?;
                let simple = !below && *set_quantifier != SetQuantifier::All && *op != SetOperator::Union;
                let pair = (simple && same_types(l, r)).then(|| r.clone());
                Ok(United { columns: Some(self.combined(l, r)?), compares: below || compares, pair })
            }
            SetExpr::Select(_) | SetExpr::Query(_) => {
                Ok(United { columns: self.branch(body, parent)?, compares: false, pair: None })
            }
            _ => Err(unsupported("this form of query")),
        }
    }

    /// The columns of two branches as those of both.
    fn combined(&self, left: &[ScopeColumn], right: &[ScopeColumn]) -> Result<Vec<ScopeColumn>, Refusal> {
        if left.len() != right.len() {
            left.iter().chain(right).try_for_each(|c| only_plain(&c.ty, PLACE))?;
        }
        left.iter()
            .zip(right)
            .map(|(l, r)| {
                let ty = match (&l.ty, &r.ty) {
                    (Ty::Sealed(a), Ty::Sealed(b)) => {
                        let mut whole = a.clone().computed();
                        let types = [Some(a.described), Some(b.described)];
                        whole.described = common_type(types).unwrap_or(a.described);
                        self.add_value(&mut whole, b)?;
                        Ty::Sealed(whole)
                    }
                    (Ty::Built(a), Ty::Built(b)) if a.is_text == b.is_text && a.inside.is_like(&b.inside) => {
                        Ty::Built(Box::new(Built { has_typmod: a.has_typmod && b.has_typmod, ..(**a).clone() }))
                    }
                    (Ty::Sealed(a), Ty::Plain) => Ty::Sealed(with_constant(a, r)?),
                    (Ty::Plain, Ty::Sealed(b)) => Ty::Sealed(with_constant(b, l)?),
                    (a, b) => {
                        only_plain(a, PLACE)?;
                        only_plain(b, PLACE)?;
                        Ty::Plain
                    }
                };
                let null = l.constant.clone().filter(is_null).filter(|_| r.constant.as_ref().is_some_and(is_null));
                Ok(ScopeColumn { ty, constant: null, ..ScopeColumn::plain(l.name.clone()) })
            })
            .collect()
    }

    /// True when rows of the two branches are compared by sealed columns, and may be.
    fn compares(&self, left: &[ScopeColumn], right: &[ScopeColumn]) -> Result<bool, Refusal> {
        let (lefts, rights) = (spots(left), spots(right));
        let mut compares = false;
        for (l, r) in left.iter().zip(right) {
            let (a, b) = match (&l.ty, &r.ty) {
                (Ty::Sealed(a), Ty::Sealed(b)) => (a, b),
                (Ty::Sealed(one), _) | (_, Ty::Sealed(one)) => {
                    // The other branch has one value for all rows: it takes no part in telling tenants apart.
                    self.groupable(one, &[])?;
                    compares = true;
                    continue;
                }
                _ => continue,
            };
            let same_key = a.table.oid == b.table.oid && same_places(a, b, left, right);
            if same_key && has_whole_key(a, &lefts) && has_whole_key(b, &rights) {
                continue;
            }
            compares = true;
            self.comparable(a, b, (left, right))?;
        }
        Ok(compares)
    }

    fn comparable(
        &self,
        a: &SealedRef,
        b: &SealedRef,
        (left, right): (&[ScopeColumn], &[ScopeColumn]),
    ) -> Result<(), Refusal> {
        match a.column.equality {
            None => Err(not_searchable(&a.column)),
            Some(Equality::Global) => Ok(()),
            Some(Equality::Tenant) => {
                let (in_left, in_right) = (self.same_tenants(a), self.same_tenants(b));
                let has = |c: &ScopeColumn, known: &[Spot]| c.spot.is_some_and(|spot| known.contains(&spot));
                let tenant_beside = left.iter().zip(right).any(|(l, r)| has(l, &in_left) && has(r, &in_right));
                let single = self.tenants(a).is_some_and(|t| t.len() == 1);
                if tenant_beside || (single && self.one_tenant(a, b)) { Ok(()) } else { Err(not_pinned(&a.column)) }
            }
        }
    }

    /// UNION, as DISTINCT ON the tokens of a UNION ALL.
    fn rewrite_union(&mut self, body: &SetExpr, columns: Vec<ScopeColumn>) -> Result<Vec<ScopeColumn>, Refusal> {
        let fail = || unsupported("this form of UNION");
        let tokens = self.body_tokens(body).ok_or_else(fail)?;
        let mut columns = self.rows(columns)?;
        let mut items = Vec::with_capacity(columns.len());
        for at in 0..columns.len() {
            let name = columns[at].name.clone();
            let unique = columns.iter().filter(|c| c.name == name).count() == 1;
            let Ty::Sealed(sealed) = &mut columns[at].ty else {
                items.push((at + 1).to_string());
                continue;
            };
            let name = name.filter(|_| unique).ok_or_else(fail)?;
            items.push(format!("rowseal.eq({UNITED}.{})", quote(&name)));
            self.compared.push(std::sync::Arc::clone(&sealed.column));
            sealed.parts = vec![Part::Star { text: None }];
        }
        let (first, last) = (self.text.tokens[tokens.start].range.start, self.text.tokens[tokens.end - 1].range.end);
        self.edit(first..first, format!("SELECT DISTINCT ON ({}) * FROM (", items.join(", ")));
        self.keep_all(tokens);
        self.edit(last..last, format!(") AS {UNITED}"));
        Ok(columns)
    }

    /// INTERSECT and EXCEPT of two queries, as rows of the first that are, or are not, told apart from all of the
    /// second.
    fn rewrite_pair(
        &mut self,
        body: &SetExpr,
        columns: Vec<ScopeColumn>,
        right: &[ScopeColumn],
    ) -> Result<Vec<ScopeColumn>, Refusal> {
        let fail = || unsupported("this form of INTERSECT or EXCEPT");
        let tokens = self.body_tokens(body).ok_or_else(fail)?;
        let (operation, is_except) = self.operation(&tokens).ok_or_else(fail)?;
        let mut columns = self.rows(columns)?;
        let (mut items, mut terms, mut names, mut list) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for at in 0..columns.len() {
            let name = columns[at].name.clone();
            let unique = columns.iter().filter(|c| c.name == name).count() == 1;
            let name = quote(&name.filter(|_| unique).ok_or_else(fail)?);
            let other = format!("rowseal_{}", at + 1);
            let sealed = matches!(right[at].ty, Ty::Sealed(_));
            let token = |of: String| if sealed { format!("rowseal.eq({of})") } else { of };
            let (own, second) = (token(format!("{UNITED}.{name}")), token(format!("{SECOND}.{other}")));
            terms.push(format!("{own} IS NOT DISTINCT FROM {second}"));
            names.push(other);
            if let Ty::Sealed(sealed) = &mut columns[at].ty {
                self.compared.push(std::sync::Arc::clone(&sealed.column));
                sealed.parts = vec![Part::Star { text: None }];
                items.push(own);
                list.push(format!("{UNITED}.{name}"));
            } else {
                items.push((at + 1).to_string());
                // As in a set operation, the column is no longer that of a table.
                list.push(format!("coalesce({UNITED}.{name}) AS {name}"));
            }
        }
        let (first, last) = (self.text.tokens[tokens.start].range.start, self.text.tokens[tokens.end - 1].range.end);
        let not = if is_except { "NOT " } else { "" };
        self.edit(first..first, format!("SELECT DISTINCT ON ({}) {} FROM (", items.join(", "), list.join(", ")));
        self.edit(operation, format!(") AS {UNITED} WHERE {not}EXISTS (SELECT 1 FROM ("));
        self.edit(last..last, format!(") AS {SECOND}({}) WHERE {})", names.join(", "), terms.join(" AND ")));
        Ok(columns)
    }

    /// Where the one INTERSECT or EXCEPT between these tokens stands, and whether it is EXCEPT.
    fn operation(&self, tokens: &Range<usize>) -> Option<(Range<usize>, bool)> {
        let mut depth = 0usize;
        for index in tokens.clone() {
            match self.text.token(index)? {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.checked_sub(1)?,
                Token::Word(_) if depth == 0 => {
                    let word = self.text.word(index).unwrap_or_default();
                    if word == "intersect" || word == "except" {
                        let distinct = self.text.word(index + 1).as_deref() == Some("distinct");
                        let last = index + usize::from(distinct);
                        return Some((
                            self.text.tokens[index].range.start..self.text.tokens[last].range.end,
                            word == "except",
                        ));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Makes every UNION between these tokens a UNION ALL.
    fn keep_all(&mut self, tokens: Range<usize>) {
        let mut depth = 0usize;
        for index in tokens {
            match self.text.token(index) {
                Some(Token::LParen) => depth += 1,
                Some(Token::RParen) => depth = depth.saturating_sub(1),
                Some(Token::Word(_)) if depth == 0 && self.text.word(index).as_deref() == Some("union") => {
                    let next = self.text.tokens[index + 1].range.clone();
                    let end = self.text.tokens[index].range.end;
                    match self.text.word(index + 1).as_deref() {
                        Some("all") => {}
                        Some("distinct") => self.edit(next, "ALL"),
                        _ => self.edit(end..end, " ALL "),
                    }
                }
                _ => {}
            }
        }
    }

    /// The tokens of the body of a query.
    fn body_tokens(&self, body: &SetExpr) -> Option<Range<usize>> {
        let start = body_start(self.text, body)?;
        let mut depth = 0usize;
        for index in start..self.tokens.end {
            match self.text.token(index)? {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket if depth == 0 => return Some(start..index),
                Token::RParen | Token::RBracket => depth -= 1,
                Token::Word(_) if depth == 0 => {
                    let word = self.text.word(index);
                    if matches!(word.as_deref(), Some("order" | "limit" | "offset" | "fetch" | "for")) {
                        return Some(start..index);
                    }
                }
                _ => {}
            }
        }
        Some(start..self.tokens.end)
    }
}

/// True when no column changes its type in a set operation: each is sealed, or a table column of one type in both.
fn same_types(left: &[ScopeColumn], right: &[ScopeColumn]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(l, r)| match (&l.ty, &r.ty) {
            (Ty::Sealed(_), Ty::Sealed(_)) => true,
            (Ty::Plain, Ty::Plain) => l.spot.is_some_and(|l| r.spot.is_some_and(|r| l.type_oid == r.type_oid)),
            _ => false,
        })
}

/// A sealed value, or a constant beside it in another branch.
fn with_constant(sealed: &SealedRef, other: &ScopeColumn) -> Result<SealedRef, Refusal> {
    let mut whole = sealed.clone().computed();
    whole.described = whole.described.without_modifier();
    match &other.constant {
        Some(found) if is_null(found) => {}
        Some(found) if fits(found, whole.column.logical, false) => whole.parts.push(Part::Constant(found.clone())),
        _ => return Err(refuse_use(&sealed.column, PLACE)),
    }
    Ok(whole)
}

fn spots(columns: &[ScopeColumn]) -> Vec<Spot> {
    columns.iter().filter_map(|c| c.spot).collect()
}

/// True when the primary keys of two values of one table stand at the same places in both branches.
fn same_places(a: &SealedRef, b: &SealedRef, left: &[ScopeColumn], right: &[ScopeColumn]) -> bool {
    let place = |sealed: &SealedRef, columns: &[ScopeColumn], key: i16| {
        let row = sealed.spot?.row;
        columns.iter().position(|c| c.spot.is_some_and(|s| s.row == row && s.attnum == key))
    };
    a.table.primary_key.iter().all(|key| {
        let at = place(a, left, *key);
        at.is_some() && at == place(b, right, *key)
    })
}

/// True for a UNION that tells all rows of its branches apart, and has no other operation than UNION in them.
fn only_unions(body: &SetExpr) -> bool {
    fn unions(body: &SetExpr) -> bool {
        let SetExpr::SetOperation { left, op, set_quantifier, right } = body else { return true };
        let plain = matches!(set_quantifier, SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None);
        *op == SetOperator::Union && plain && unions(left) && unions(right)
    }
    let keeps = matches!(body, SetExpr::SetOperation { set_quantifier: SetQuantifier::All, .. });
    !keeps && unions(body)
}
