//! Expressions that pass a sealed value on: functions, CASE, casts to the column's own type, scalar subqueries.
use std::sync::Arc;

use sqlparser::ast::{
    CaseWhen, CastKind, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, Query, WindowType,
};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::unsupported;
use super::extent::{call, closing, extent};
use super::ident;
use super::operand::{fits, operand, type_name};
use super::operators::{self, Rule};
use super::plan::Piece;
use super::query::List;
use super::scope::Scope;
use super::sealed::{Part, SealedRef, Ty, cast_type, common_type, is_null, only_plain, refuse_use};
use crate::refusal::Refusal;
use crate::types::LogicalType;

const CALL: &str = "in a function";

impl Planner<'_> {
    /// A function call.
    pub(super) fn function(&mut self, function: &Function, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        let name = ident::parts(&function.name).ok_or_else(|| unsupported("this function call"))?;
        if function.uses_odbc_syntax || !matches!(function.parameters, FunctionArguments::None) {
            return Err(unsupported("this function call"));
        }
        if function.over.is_none() {
            return self.call(&name, function, scope);
        }
        // A window reaches over other rows than the one at hand.
        let own = self.facts.split_off(self.facts_of_all.min(self.facts.len()));
        let ty = self.call(&name, function, scope)?;
        self.facts.extend(own);
        Ok(ty)
    }

    fn call(&mut self, name: &[String], function: &Function, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        let ty = match &function.args {
            FunctionArguments::None => Ty::Plain,
            FunctionArguments::Subquery(query) if name == ["array"] => self.gathered(query, scope)?,
            FunctionArguments::Subquery(query) => {
                only_plain(&self.scalar(query, scope)?, CALL)?;
                Ty::Plain
            }
            FunctionArguments::List(list) if name == ["row"] => self.row_call(list, scope)?,
            FunctionArguments::List(list) => {
                let given = self.value_of_call(name)?;
                let rule = if given.is_some() { Rule::Refused } else { operators::function(name) };
                let ty = self.call_of(rule, function, list, scope)?;
                given.unwrap_or(ty)
            }
        };
        self.order(&function.within_group, scope, "in ORDER BY")?;
        if let Some(filter) = &function.filter {
            self.filtering(filter, scope)?;
        }
        match &function.over {
            Some(WindowType::WindowSpec(spec)) => self.window(spec, scope)?,
            Some(WindowType::NamedWindow(_)) | None => {}
        }
        Ok(ty)
    }

    fn call_of(
        &mut self,
        rule: Rule,
        function: &Function,
        list: &FunctionArgumentList,
        scope: &Scope<'_>,
    ) -> Result<Ty, Refusal> {
        list.clauses.iter().try_for_each(|clause| self.argument_clause(clause, scope))?;
        let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        match (rule, simple(list).as_deref()) {
            (Rule::NullOnly, Some(exprs)) if distinct => self.counted_distinct(exprs, scope).map(|()| Ty::Plain),
            (Rule::Value | Rule::Array, Some([value])) if !distinct => self.passed_on(rule, value, scope),
            (Rule::FirstOf, Some(exprs)) if !distinct => self.merged(exprs, scope, CALL),
            (Rule::Document(make, kind), _) if !distinct => self.document((make, kind), list, scope),
            (Rule::NullIf, Some([value, other])) if !distinct => self.null_if(function, value, other, scope),
            _ => {
                let rule = if distinct { Rule::Refused } else { rule };
                list.args.iter().try_for_each(|arg| self.argument(arg, rule, scope))?;
                Ok(Ty::Plain)
            }
        }
    }

    fn argument_clause(&mut self, clause: &FunctionArgumentClause, scope: &Scope<'_>) -> Result<(), Refusal> {
        match clause {
            FunctionArgumentClause::OrderBy(order) => self.order(order, scope, "in ORDER BY"),
            FunctionArgumentClause::JsonNullClause(_) => Ok(()),
            _ => Err(unsupported("this function call")),
        }
    }

    /// `count(x)`: only whether it is NULL matters.
    pub(super) fn counted(&mut self, e: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        match self.expr(e, scope)? {
            Ty::Plain | Ty::Many(_) | Ty::Built(_) => Ok(()),
            Ty::Sealed(sealed) => {
                self.tested.push(Arc::clone(&sealed.column));
                self.raw(&aggregated(sealed))
            }
            Ty::Blocked(refusal) => Err(refusal),
        }
    }

    /// `count(DISTINCT x)`: counts tokens.
    fn counted_distinct(&mut self, exprs: &[&Expr], scope: &Scope<'_>) -> Result<(), Refusal> {
        for e in exprs {
            match self.expr(e, scope)? {
                Ty::Sealed(sealed) => {
                    self.groupable(&sealed, &scope.grouped)?;
                    self.tokens(&sealed)?;
                }
                ty => only_plain(&ty, "in count(DISTINCT)")?,
            }
        }
        Ok(())
    }

    /// A function that gives its argument, or an array of it.
    fn passed_on(&mut self, rule: Rule, value: &Expr, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        Ok(match self.within_aggregate(true, |planner| planner.expr(value, scope))? {
            Ty::Built(built) if rule == Rule::Array => self.array_of_built(*built)?,
            Ty::Built(built) => Ty::Built(built),
            Ty::Sealed(sealed) => {
                // It may come from another row than the one at hand, and so from another tenant's.
                let confined = self.tenants(&sealed);
                let sealed = aggregated(sealed).computed();
                let described = sealed.described.without_modifier();
                let sealed = SealedRef { home: None, tied: Vec::new(), confined, described, ..sealed };
                if rule == Rule::Array { Ty::Many(sealed) } else { Ty::Sealed(sealed) }
            }
            ty => {
                only_plain(&ty, CALL)?;
                Ty::Plain
            }
        })
    }

    /// CASE.
    pub(super) fn case(
        &mut self,
        subject: Option<&Expr>,
        whens: &[CaseWhen],
        otherwise: Option<&Expr>,
        scope: &Scope<'_>,
    ) -> Result<Ty, Refusal> {
        self.case_conditions(subject, whens, scope)?;
        // ELSE says most about the type.
        let results: Vec<&Expr> = otherwise.into_iter().chain(whens.iter().map(|w| &w.result)).collect();
        let mut ty = self.merged(&results, scope, "in CASE")?;
        if let (Ty::Sealed(sealed), None) = (&mut ty, otherwise) {
            sealed.described = sealed.described.without_modifier();
        }
        Ok(ty)
    }

    /// The subject and conditions of CASE.
    pub(super) fn case_conditions(
        &mut self,
        subject: Option<&Expr>,
        whens: &[CaseWhen],
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let conditions = || whens.iter().map(|w| &w.condition);
        match subject.map(|e| self.expr(e, scope)).transpose()? {
            Some(Ty::Sealed(sealed)) => {
                let one = SealedRef { parts: Vec::new(), ..sealed.clone() };
                conditions().try_for_each(|e| self.case_value(&one, e, scope))?;
                self.tokens(&sealed)
            }
            Some(ty) => {
                only_plain(&ty, "in CASE")?;
                self.all(conditions(), scope, "in CASE")
            }
            None => conditions().try_for_each(|e| {
                self.filters = true;
                self.plain(e, scope, "in CASE")
            }),
        }
    }

    fn case_value(&mut self, sealed: &SealedRef, value: &Expr, scope: &Scope<'_>) -> Result<(), Refusal> {
        if let Ty::Sealed(other) = self.expr(value, scope)? {
            return self.join_tokens(sealed, &other);
        }
        let found = self.search_operand(sealed, value)?;
        if is_null(&found) {
            return Ok(());
        }
        match self.tokens_of(sealed, &found)?.as_slice() {
            [token] => {
                self.replace(found.range, &[*token]);
                Ok(())
            }
            _ => Err(refuse_use(&sealed.column, "in CASE within several tenants")),
        }
    }

    /// One of several expressions: sealed when one of them is; the others must then be of the same column, NULL, or a
    /// constant.
    pub(super) fn merged(&mut self, exprs: &[&Expr], scope: &Scope<'_>, place: &str) -> Result<Ty, Refusal> {
        let types = exprs.iter().map(|e| self.expr(e, scope)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = types.iter().find_map(|ty| if let Ty::Sealed(s) = ty { Some(s) } else { None }) else {
            return self.merged_built(types, exprs, place);
        };
        let mut whole = SealedRef { parts: Vec::new(), ..first.clone() }.computed();
        for (ty, e) in types.iter().zip(exprs) {
            match ty {
                Ty::Sealed(sealed) => self.add_value(&mut whole, sealed)?,
                Ty::Plain => match operand(self.text, e) {
                    Some(found) if is_null(&found) => {}
                    Some(found) if fits(&found, whole.column.logical, false) => {
                        whole.parts.push(Part::Constant(found));
                    }
                    _ => return Err(refuse_use(&whole.column, place)),
                },
                ty => only_plain(ty, place)?,
            }
        }
        let types = types.iter().zip(exprs).map(|(ty, e)| match ty {
            Ty::Sealed(sealed) => Some(sealed.described),
            _ => operand(self.text, e).as_ref().and_then(cast_type),
        });
        whole.described = common_type(types).unwrap_or(whole.described);
        Ok(Ty::Sealed(whole))
    }

    /// Adds another sealed value to those an expression may give.
    pub(super) fn add_value(&self, whole: &mut SealedRef, other: &SealedRef) -> Result<(), Refusal> {
        if other.column.qualified != whole.column.qualified {
            let (a, b) = (&whole.column, &other.column);
            let comparable = a.token_scope() == b.token_scope() && a.logical == b.logical && a.equality == b.equality;
            if !comparable {
                return Err(refuse_use(b, "together with another sealed column in one expression"));
            }
            whole.unreadable = Some("together with another sealed column in one value");
        }
        whole.unreadable = whole.unreadable.or(other.unreadable);
        if whole.home.is_none() || whole.home != other.home {
            let confined = self.tenants(whole).filter(|t| self.tenants(other).as_ref() == Some(t));
            if !self.one_tenant(whole, other) {
                (whole.home, whole.tied) = (None, Vec::new());
            }
            whole.confined = confined;
        }
        whole.parts.extend(other.parts.iter().cloned());
        Ok(())
    }

    /// A cast: to the column's own type it is left out.
    pub(super) fn cast(&mut self, cast: &Expr, inner: &Expr, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        let ty = self.expr(inner, scope)?;
        let mut sealed = match self.settled(ty)? {
            Ty::Sealed(sealed) => sealed,
            Ty::Built(built) => return self.built_in_cast(cast, inner, *built),
            ty => {
                only_plain(&ty, "in a cast")?;
                return Ok(Ty::Plain);
            }
        };
        let refuse = || refuse_use(&sealed.column, "in a cast").hint("Cast to the column's own type only.");
        let Expr::Cast { kind, .. } = cast else { return Err(refuse()) };
        let range = extent(self.text, inner).ok_or_else(refuse)?;
        let after = self.text.token_ending(range.end).ok_or_else(refuse)? + 1;
        let (name, last) = type_name(self.text, after + 1).ok_or_else(refuse)?;
        let described = match (name, sealed.column.logical) {
            ("text", LogicalType::Varchar(_)) => LogicalType::Text,
            ("varchar", LogicalType::Text) => LogicalType::Varchar(None),
            (name, logical) if logical.domain() == name => logical.without_modifier(),
            _ => return Err(refuse()),
        };
        // The value is the same, but it is no longer the column itself.
        sealed.is_stray |= sealed.described != described;
        sealed.described = described;
        match kind {
            CastKind::DoubleColon => self.edit(range.end..self.text.tokens[last].range.end, ""),
            CastKind::Cast if self.text.token(last + 1) == Some(&Token::RParen) => {
                let whole = extent(self.text, cast).ok_or_else(refuse)?;
                self.edit(whole.start..range.start, "(");
                self.edit(range.end..whole.end, ")");
            }
            _ => return Err(refuse()),
        }
        Ok(Ty::Sealed(sealed))
    }

    /// `NULLIF(column, constant)`, as a CASE that compares tokens and gives the column.
    fn null_if(&mut self, call_: &Function, value: &Expr, other: &Expr, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        let (ty, other_ty) = (self.expr(value, scope)?, self.expr(other, scope)?);
        let Ty::Sealed(sealed) = ty else {
            only_plain(&ty, CALL)?;
            only_plain(&other_ty, CALL)?;
            return Ok(Ty::Plain);
        };
        only_plain(&other_ty, "in NULLIF")?;
        let found = self.search_operand(&sealed, other)?;
        let refuse = || refuse_use(&sealed.column, "in this NULLIF");
        let tokens = if is_null(&found) { Vec::new() } else { self.tokens_of(&sealed, &found)? };
        let (text, range) = (sealed.reference_text().map(str::to_owned), extent(self.text, value));
        let (Some(text), Some(range), Some((start, open))) = (text, range, call(self.text, call_)) else {
            return Err(refuse());
        };
        let close = closing(self.text, open).ok_or_else(refuse)?;
        let (head, end) = match &tokens[..] {
            [] => (vec![Piece::Text("(".into())], ")"),
            [token] => {
                self.compared.push(Arc::clone(&sealed.column));
                let case = Piece::Text(format!("CASE rowseal.eq({text}) WHEN "));
                (vec![case, Piece::Value(*token), Piece::Text(" THEN NULL ELSE ".into())], " END")
            }
            _ => return Err(refuse()),
        };
        self.edit_pieces(start..self.text.tokens[open].range.end, head);
        self.edit(range.end..self.text.tokens[close].range.end, end);
        // Two varchars are compared as texts, and the first of the two texts is the result.
        let described = match sealed.described {
            LogicalType::Varchar(_) => LogicalType::Text,
            other => other,
        };
        Ok(Ty::Sealed(SealedRef { described, ..sealed.computed() }))
    }

    /// A subquery that gives one value.
    pub(super) fn scalar(&mut self, query: &Query, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        let columns = self.subquery(query, Some(scope), List::Value)?.unwrap_or_default();
        let single = columns.len() == 1;
        for column in columns {
            match column.ty {
                Ty::Plain => {}
                Ty::Sealed(sealed) if single => return Ok(Ty::Sealed(sealed.computed())),
                ty @ (Ty::Many(_) | Ty::Built(_)) if single => return self.settled(ty),
                ty => only_plain(&ty, "as the result of a subquery")?,
            }
        }
        Ok(Ty::Plain)
    }

    /// EXISTS: the list of the subquery does not matter.
    pub(super) fn exists(&mut self, query: &Query, scope: &Scope<'_>) -> Result<(), Refusal> {
        for column in self.subquery(query, Some(scope), List::Value)?.unwrap_or_default() {
            match column.ty {
                Ty::Plain | Ty::Many(_) | Ty::Built(_) => {}
                Ty::Sealed(sealed) => self.raw(&SealedRef { unreadable: None, ..sealed })?,
                Ty::Blocked(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }
}

/// A value inside an aggregate: there the rows of a group are seen one by one.
pub(super) fn aggregated(mut sealed: SealedRef) -> SealedRef {
    for part in &mut sealed.parts {
        if let Part::Column { is_key, .. } = part {
            *is_key = false;
        }
    }
    sealed
}

/// The arguments, where all of them are expressions without names.
fn simple(list: &FunctionArgumentList) -> Option<Vec<&Expr>> {
    list.args
        .iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e),
            _ => None,
        })
        .collect()
}
