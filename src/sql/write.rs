//! What INSERT, UPDATE and DELETE have in common, and DELETE.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{
    CastKind, Delete, Expr, FromTable, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName,
    SelectItem, TableFactor,
};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::{column_parts, unsupported};
use super::extent::extent;
use super::ident::parts;
use super::operand::{Operand, fits, operand, own_type};
use super::operators::{self, Rule};
use super::query::List;
use super::scope::{Known, Scope, ScopeColumn, ScopeRelation, tenant_attribute};
use super::sealed::{SealedRef, Ty, is_null, refuse_use};
use super::text::Text;
use crate::catalog::{Attribute, Relation};
use crate::policy::Column;
use crate::refusal::Refusal;
use crate::types::LogicalType;

/// What SET assigns to.
pub(super) enum Target<'r> {
    /// A column that is not sealed.
    Plain,
    /// The tenant column of a table with sealed columns.
    Tenant(&'r Attribute),
    /// A sealed column.
    Sealed(SealedRef),
}

impl Planner<'_> {
    /// Plans a DELETE.
    pub(super) fn delete(&mut self, delete: &Delete, list: List) -> Result<Option<Vec<ScopeColumn>>, Refusal> {
        if !delete.tables.is_empty()
            || delete.output.is_some()
            || !delete.order_by.is_empty()
            || delete.limit.is_some()
            || delete.settings.is_some()
            || delete.on_cluster.is_some()
            || !delete.optimizer_hints.is_empty()
        {
            return Err(unsupported("this DELETE"));
        }
        let FromTable::WithFromKeyword(tables) = &delete.from else { return Err(unsupported("this DELETE")) };
        let mark = self.facts.len();
        let mut scope = Scope::default();
        let mut conditions = Vec::new();
        for table in tables {
            if let TableFactor::Table { name, .. } = &table.relation {
                self.refuse_cte(name)?;
            }
        }
        for table in tables.iter().chain(delete.using.iter().flatten()) {
            self.from(table, &mut scope, &mut conditions)?;
        }
        self.filter(&scope, conditions, delete.selection.as_ref())?;
        let columns = self.returning(delete.returning.as_deref(), &scope, list);
        self.facts.truncate(mark);
        columns
    }

    /// RETURNING; `None` without one.
    pub(super) fn returning(
        &mut self,
        items: Option<&[SelectItem]>,
        scope: &Scope<'_>,
        list: List,
    ) -> Result<Option<Vec<ScopeColumn>>, Refusal> {
        let Some(items) = items else { return Ok(None) };
        let columns = self.list(items, scope, list)?;
        let mut columns = columns.ok_or_else(|| unsupported("a result whose columns cannot be counted"))?;
        if self.fetch_tenants(columns.iter_mut(), list) {
            self.hidden_at = Some(self.bytes().end);
        }
        for column in &mut columns {
            if let Ty::Sealed(sealed) | Ty::Many(sealed) = &mut column.ty {
                self.remember(sealed);
            }
        }
        Ok(Some(columns))
    }

    /// The constants that an expression may store in a sealed column: literals, parameters, and COALESCE and CASE over
    /// them and over `own`, the column in the same row.
    ///
    /// # Errors
    /// When the expression may give anything else.
    pub(super) fn stored(
        &mut self,
        column: &Arc<Column>,
        own: &[&SealedRef],
        e: &Expr,
        scope: &Scope<'_>,
    ) -> Result<Vec<Operand>, Refusal> {
        self.stored_as(column, own, (e, true), scope)
    }

    /// `assigned` is true for a constant that is stored itself: it may be cast then as an assignment does.
    fn stored_as(
        &mut self,
        column: &Arc<Column>,
        own: &[&SealedRef],
        (e, assigned): (&Expr, bool),
        scope: &Scope<'_>,
    ) -> Result<Vec<Operand>, Refusal> {
        if let Some(found) = operand(self.text, e) {
            let fits = fits(&found, column.logical, assigned);
            if is_null(&found) {
                if fits && !found.casts.is_empty() {
                    // In the server the column is of another type than the one that the client casts to.
                    self.edit(found.range, "NULL");
                }
                return Ok(Vec::new());
            }
            if !fits {
                return Err(refuse_use(column, "with a value of another type")
                    .hint("Write a quoted literal or a parameter, without a cast to another type."));
            }
            return Ok(vec![found]);
        }
        if column_parts(e).is_some() {
            return self.stored_column(column, own, e, scope).map(|()| Vec::new());
        }
        if let Some(cast) = OwnCast::read(self.text, e, column.logical) {
            return self.stored_cast(column, own, &cast, scope);
        }
        let results: Vec<&Expr> = match e {
            Expr::Nested(inner) => vec![&**inner],
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case_conditions(operand.as_deref(), conditions, scope)?;
                conditions.iter().map(|w| &w.result).chain(else_result.as_deref()).collect()
            }
            Expr::Function(function) => coalesced(function).unwrap_or_default(),
            _ => Vec::new(),
        };
        if results.is_empty() {
            return Err(refuse_use(column, "as the target of an expression").hint("Write a literal or a parameter."));
        }
        let mut found = Vec::new();
        for result in results {
            found.extend(self.stored_as(column, own, (result, false), scope)?);
        }
        Ok(found)
    }

    /// A cast to the column's own type, with its length or around an expression: it becomes one to the type of cells. Where it would cut a text
    /// that is too long, that is an error, as it is without the cast.
    fn stored_cast(
        &mut self,
        column: &Arc<Column>,
        own: &[&SealedRef],
        cast: &OwnCast<'_>,
        scope: &Scope<'_>,
    ) -> Result<Vec<Operand>, Refusal> {
        let mut found = self.stored_as(column, own, (cast.inner, false), scope)?;
        let OwnCast { whole, within, name, .. } = cast;
        match found.as_mut_slice() {
            // The value takes the place of all of it.
            [one] if one.range == *within => {
                one.range = whole.clone();
                one.casts.push(name);
            }
            _ if whole.start < within.start => {
                self.edit(whole.start..within.start, "(");
                self.edit(within.end..whole.end, ")::pg_catalog.bytea");
            }
            // Where all of it is NULL it would else be a text.
            _ => self.edit(within.end..whole.end, "::pg_catalog.bytea"),
        }
        Ok(found)
    }

    /// A column as a value to be stored: only the target itself, whose cell stays as it is.
    fn stored_column(
        &mut self,
        column: &Arc<Column>,
        own: &[&SealedRef],
        e: &Expr,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        match self.expr(e, scope)? {
            Ty::Sealed(found) if found.spot.is_some() && own.iter().any(|own| found.spot == own.spot) => {
                self.raw(&found)
            }
            _ => Err(refuse_use(column, "as the target of another column's value")),
        }
    }
}

/// A cast to a sealed column's own type.
pub(super) struct OwnCast<'e> {
    pub(super) inner: &'e Expr,
    /// Where the cast stands, and the expression in it.
    pub(super) whole: Range<usize>,
    within: Range<usize>,
    /// The type without its length.
    pub(super) name: &'static str,
}

impl<'e> OwnCast<'e> {
    pub(super) fn read(text: &Text<'_>, e: &'e Expr, logical: LogicalType) -> Option<OwnCast<'e>> {
        let Expr::Cast { kind, expr: inner, format: None, .. } = e else { return None };
        let within = extent(text, inner)?;
        let after = text.token_ending(within.end)? + 1;
        let (name, last) = own_type(text, after + 1, logical)?;
        let whole = match kind {
            CastKind::DoubleColon if text.token(after)? == &Token::DoubleColon => {
                within.start..text.tokens[last].range.end
            }
            CastKind::Cast if text.word(after)? == "as" && text.token(last + 1)? == &Token::RParen => {
                let open = text.token_at(within.start)?.checked_sub(1)?;
                let call = text.word(open.checked_sub(1)?)? == "cast" && text.token(open)? == &Token::LParen;
                call.then(|| text.tokens[open - 1].range.start..text.tokens[last + 1].range.end)?
            }
            _ => return None,
        };
        Some(OwnCast { inner, whole, within, name })
    }
}

/// The arguments of COALESCE.
fn coalesced(function: &Function) -> Option<Vec<&Expr>> {
    let name = super::ident::parts(&function.name)?;
    let plain = function.filter.is_none() && function.over.is_none() && function.within_group.is_empty();
    let FunctionArguments::List(list) = &function.args else { return None };
    if operators::function(&name) != Rule::FirstOf || !plain || !list.clauses.is_empty() {
        return None;
    }
    list.args
        .iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e),
            _ => None,
        })
        .collect()
}

impl Planner<'_> {
    /// What SET assigns to.
    pub(super) fn target<'r>(&mut self, relation: &'r ScopeRelation, name: &ObjectName) -> Result<Target<'r>, Refusal> {
        let found = set_target(relation, name)?;
        let lacks =
            |base: &Relation| matches!(parts(name).as_deref(), Some([column]) if base.attribute(column).is_none());
        if relation.base.as_deref().is_some_and(lacks) {
            self.unknown = Known::No;
        }
        Ok(found)
    }
}

fn set_target<'r>(relation: &'r ScopeRelation, name: &ObjectName) -> Result<Target<'r>, Refusal> {
    let parts = parts(name).ok_or_else(|| unsupported("this SET"))?;
    let [column] = parts.as_slice() else { return Err(unsupported("SET of a part of a column")) };
    let Some(base) = &relation.base else { return Ok(Target::Plain) };
    let attribute = known(base, column)?;
    if let (Some(attribute), Some(tenant)) = (attribute, tenant_attribute(base))
        && attribute.attnum == tenant.attnum
        && super::scope::first_sealed(base).is_some()
    {
        return Ok(Target::Tenant(tenant));
    }
    let found = relation.columns.iter().find(|c| attribute.is_some_and(|a| a.attnum == c.attnum));
    match found.map(|c| c.ty.clone()) {
        Some(Ty::Sealed(sealed)) => Ok(Target::Sealed(sealed)),
        Some(Ty::Blocked(refusal)) => Err(refusal),
        Some(Ty::Plain | Ty::Many(_) | Ty::Built(_)) | None => Ok(Target::Plain),
    }
}

/// The refusal to move a row to another tenant.
pub(super) fn tenant_moved(base: &Relation) -> Refusal {
    match super::scope::first_sealed(base) {
        Some(sealed) => refuse_use(sealed, "when its row's tenant column is set"),
        None => unsupported("this SET"),
    }
    .hint("Set every sealed column in the same statement, or delete the row and insert it again.")
}

/// The column of a name. One that only the policy knows is refused: it may have come after the snapshot.
pub(super) fn known<'r>(base: &'r Relation, name: &str) -> Result<Option<&'r Attribute>, Refusal> {
    let attribute = base.attribute(name);
    let policy = base.policy.as_ref().and_then(|p| p.columns.iter().find(|c| c.name == name));
    match (attribute, policy) {
        (None, Some(column)) => {
            Err(refuse_use(column, "before the proxy has seen it in the database").hint("Try again."))
        }
        _ => Ok(attribute),
    }
}

pub(super) fn is_default(e: &Expr) -> bool {
    matches!(e, Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default"))
}

pub(super) fn default_refused(column: &Column) -> Refusal {
    refuse_use(column, "with DEFAULT").hint("Write a literal, a parameter or NULL.")
}
