//! Select lists and RETURNING.
use std::ops::Range;

use sqlparser::ast::{Expr, Select, SelectItem, SelectItemQualifiedWildcardKind, WildcardAdditionalOptions};

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::{column_parts, unsupported};
use super::extent::{extent, implied_name};
use super::facts::Spot;
use super::ident::{fold, parts, quote};
use super::operand::operand;
use super::query::{Columns, List};
use super::scope::{Scope, ScopeColumn};
use super::sealed::{Part, Ty};
use crate::refusal::Refusal;

/// Types whose output is what a cast to text gives: int8, int2, int4, text, varchar, uuid. That of bpchar is padded, and
/// bool is t or f.
const SHOWN_AS_CAST: [u32; 6] = [20, 21, 23, 25, 1043, 2950];

impl Planner<'_> {
    /// Walks a select list or RETURNING. Sealed columns are not rewritten yet, but for those behind a star that the
    /// client receives.
    pub(super) fn list(&mut self, items: &[SelectItem], scope: &Scope<'_>, list: List) -> Result<Columns, Refusal> {
        let mut columns = Some(Vec::new());
        for item in items {
            let found = self.item(item, scope, list)?;
            columns = match (columns, found) {
                (Some(mut columns), Some(found)) => {
                    columns.extend(found);
                    Some(columns)
                }
                _ => None,
            };
        }
        Ok(columns)
    }

    fn item(&mut self, item: &SelectItem, scope: &Scope<'_>, list: List) -> Result<Columns, Refusal> {
        match item {
            SelectItem::UnnamedExpr(e) => self.output(e, None, scope).map(|c| Some(vec![c])),
            SelectItem::ExprWithAlias { expr, alias } => {
                self.output(expr, Some(fold(alias)), scope).map(|c| Some(vec![c]))
            }
            SelectItem::Wildcard(options) => {
                check_wildcard(options)?;
                let range = self.text.range(options.wildcard_token.0.span);
                let opaque = scope.relations.iter().any(|r| r.opaque);
                self.star(scope, &scope.star, (opaque, range), list)
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                check_wildcard(options)?;
                let name_parts = parts(name).ok_or_else(|| unsupported("this form of *"))?;
                let index = scope.find_relation(&name_parts).ok_or_else(|| unsupported("this form of *"))?;
                let relation = &scope.relations[index];
                let columns: Vec<_> = (0..relation.columns.len()).map(|c| (index, c, false)).collect();
                let range = self.qualified_star(name);
                self.star(scope, &columns, (relation.opaque, range), list)
            }
            _ => Err(unsupported("this form of select list")),
        }
    }

    fn qualified_star(&self, name: &sqlparser::ast::ObjectName) -> Option<Range<usize>> {
        use sqlparser::ast::ObjectNamePart::Identifier;
        let (Identifier(first), Identifier(last)) = (name.0.first()?, name.0.last()?) else { return None };
        let start = self.text.range(first.span)?.start;
        let last = self.text.token_ending(self.text.range(last.span)?.end)?;
        let star = self.text.tokens.get(last + 2)?;
        (star.token == Token::Mul).then_some(start..star.range.end)
    }

    /// One output expression.
    fn output(&mut self, e: &Expr, alias: Option<String>, scope: &Scope<'_>) -> Result<ScopeColumn, Refusal> {
        let spot = column_parts(e).and_then(|parts| scope.spot(parts));
        let constant = operand(self.text, e);
        let before = self.edits.len();
        let mut ty = self.expr(e, scope)?;
        let edited = self.edits.len() > before;
        let is_sealed = matches!(ty, Ty::Sealed(_) | Ty::Many(_) | Ty::Built(_));
        let labelled = alias.is_some();
        let name = match alias {
            Some(alias) => Some(alias),
            None if is_sealed => implied_name(e),
            None => column_parts(e).and_then(|parts| parts.last()).map(fold),
        };
        match &mut ty {
            Ty::Blocked(refusal) => return Err(refusal.clone()),
            Ty::Sealed(sealed) if !labelled => {
                let range = extent(self.text, e).ok_or_else(|| unsupported("this expression"))?;
                if let Some(name) = name.clone() {
                    sealed.parts.push(Part::Label { at: range.end, name, edited });
                }
            }
            Ty::Plain if edited && !labelled && scope.coalesces() => {
                // A call of coalesce would give a name of its own.
                if let (Some(name), Some(range)) = (implied_name(e), extent(self.text, e)) {
                    self.edit(range.end..range.end, format!(" AS {}", quote(&name)));
                }
            }
            Ty::Plain | Ty::Sealed(_) | Ty::Many(_) | Ty::Built(_) => {}
        }
        Ok(ScopeColumn { ty, spot, constant, ..ScopeColumn::plain(name) })
    }

    /// A star: left as it is, or written out where the client receives it with a sealed column, or where a column of it
    /// is no longer merged by USING.
    fn star(
        &mut self,
        scope: &Scope<'_>,
        columns: &[(usize, usize, bool)],
        (opaque, range): (bool, Option<Range<usize>>),
        list: List,
    ) -> Result<Columns, Refusal> {
        let (beside, merged_in) = (matches!(list, List::Top | List::TopExplicit), list == List::TopMerged);
        let mut found = Vec::with_capacity(columns.len());
        let mut written = Vec::with_capacity(columns.len());
        let (mut sealed_any, mut unmerged) = (false, false);
        for &(r, c, merged) in columns {
            let column = &scope.relations[r].columns[c];
            let mut ty = scope.reference(r, c);
            let name = column.name.as_deref().map(quote);
            let text =
                if merged { column.written.clone().or_else(|| name.clone()) } else { scope.relations[r].written(c) };
            unmerged |= merged && column.written.is_some();
            let label = name.clone().filter(|_| column.coalesced.is_some()).map(|name| format!(" AS {name}"));
            let labelled = |text: Option<String>| text.map(|text| text + label.as_deref().unwrap_or_default());
            let shown = match &mut ty {
                Ty::Blocked(refusal) => return Err(refusal.clone()),
                Ty::Sealed(sealed) => {
                    sealed_any = true;
                    sealed.parts = vec![Part::Star { text: text.clone() }];
                    let tenant = sealed.tenant.take();
                    sealed.beside = tenant.clone().filter(|_| beside);
                    let tenant = tenant.filter(|_| merged_in);
                    sealed.packed = tenant.is_some();
                    match (tenant, &text) {
                        (Some(tenant), Some(text)) => {
                            let name = name.unwrap_or_default();
                            Some(format!("rowseal.with_tenant({text}, {tenant}) AS {name}"))
                        }
                        _ => labelled(text),
                    }
                }
                _ => labelled(text),
            };
            written.push(shown);
            found.push(ScopeColumn { ty, hidden: false, written: None, coalesced: None, ..column.clone() });
        }
        if opaque {
            self.write_star_of_table(range);
            return if sealed_any { Err(unsupported("* over a function's columns")) } else { Ok(None) };
        }
        let tenants_within = merged_in && found.iter().any(|c| matches!(&c.ty, Ty::Sealed(s) if s.packed));
        if list == List::TopExplicit || tenants_within || unmerged {
            self.write_star(scope, written, range)?;
        } else if beside && sealed_any && !has_twice(scope, columns) {
            // As the proxy knows the table, and not as it may be by then.
            self.write_star(scope, written, range)?;
        } else {
            self.write_star_of_table(range);
        }
        Ok(Some(found))
    }

    /// Notes the tenants that are fetched beside the columns of a list the client receives; true when there are some.
    pub(super) fn fetch_tenants<'c>(&mut self, columns: impl Iterator<Item = &'c mut ScopeColumn>, list: List) -> bool {
        if !matches!(list, List::Top | List::TopExplicit) {
            return false;
        }
        for column in columns {
            let Ty::Sealed(sealed) = &mut column.ty else { continue };
            if let (true, [Part::Column { tenant, text, .. }, ..]) =
                (sealed.reference_text().is_some(), &mut sealed.parts[..])
            {
                sealed.beside = tenant.take();
                // A call of coalesce has a name of its own.
                if !text.ends_with(')') {
                    sealed.parts.truncate(1);
                }
            }
            sealed.beside = sealed.beside.take().map(|tenant| self.fetched(tenant, sealed.home));
            if let Some(tenant) = &sealed.beside
                && !self.hidden.contains(tenant)
            {
                self.hidden.push(tenant.clone());
            }
        }
        !self.hidden.is_empty()
    }

    /// How a hidden tenant is fetched. The text form in which it is asked for is mostly what the cast gives, which costs
    /// the server some of a point read; where the query is part of a DECLARE, PREPARE or COPY, the client says which
    /// form it is.
    fn fetched(&self, tenant: String, home: Option<Spot>) -> String {
        let is_whole = self.tokens.start == 0 || self.text.token(self.tokens.start - 1) == Some(&Token::SemiColon);
        match tenant.strip_suffix("::text") {
            Some(column) if is_whole && home.is_some_and(|home| SHOWN_AS_CAST.contains(&home.type_oid)) => {
                column.to_owned()
            }
            _ => tenant,
        }
    }

    /// Writes the hidden tenants at the end of the list, behind all that is written there.
    pub(super) fn write_hidden(&mut self) {
        if let Some(end) = self.hidden_at.take() {
            let hidden: String = self.hidden.iter().map(|tenant| format!(", {tenant} AS rowseal_tenant")).collect();
            self.edit(end..end, hidden);
        }
    }

    /// Where the list of a SELECT ends: before its FROM, which may be neither a label, a field nor a part of
    /// `IS DISTINCT FROM`.
    pub(super) fn select_list_end(&self, select: &Select) -> Option<usize> {
        let start = self.text.range(select.select_token.0.span)?.end;
        let first = self.text.tokens.partition_point(|tok| tok.range.start < start);
        let mut depth = 0usize;
        for (at, tok) in self.text.tokens[..self.tokens.end].iter().enumerate().skip(first) {
            match &tok.token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket => depth = depth.checked_sub(1)?,
                Token::Word(word) if depth == 0 && word.keyword == Keyword::FROM && word.quote_style.is_none() => {
                    let before = self.text.tokens.get(at.checked_sub(1)?)?;
                    let other = match &before.token {
                        Token::Period => true,
                        Token::Word(word) => matches!(word.keyword, Keyword::AS | Keyword::DISTINCT),
                        _ => false,
                    };
                    if !other {
                        return Some(before.range.end);
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn write_star(
        &mut self,
        scope: &Scope<'_>,
        written: Vec<Option<String>>,
        range: Option<Range<usize>>,
    ) -> Result<(), Refusal> {
        let written: Option<Vec<String>> = written.into_iter().collect();
        let mut aliases: Vec<_> = scope.relations.iter().filter_map(|r| r.alias.as_deref()).collect();
        aliases.sort_unstable();
        let unique = aliases.windows(2).all(|w| w[0] != w[1]);
        let mut names: Vec<_> = written.iter().flatten().collect();
        names.sort_unstable();
        let told_apart = names.windows(2).all(|w| w[0] != w[1]);
        match (written, range) {
            (Some(written), Some(range)) if unique && told_apart => self.edit(range, written.join(", ")),
            _ => return Err(unsupported("this form of *")),
        }
        Ok(())
    }
}

/// True when a relation has two columns of one name: they cannot be written out.
fn has_twice(scope: &Scope<'_>, columns: &[(usize, usize, bool)]) -> bool {
    let mut names: Vec<_> =
        columns.iter().map(|&(r, c, _)| (r, scope.relations[r].columns[c].name.as_deref())).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

pub(super) fn check_wildcard(options: &WildcardAdditionalOptions) -> Result<(), Refusal> {
    let plain = options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none();
    if plain { Ok(()) } else { Err(unsupported("this form of *")) }
}
