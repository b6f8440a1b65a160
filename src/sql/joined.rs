//! UPDATE ... FROM (VALUES ...): many rows at once, each with a value of its own. Each row of VALUES gets a data key of its
//! own (E2), which is sound where it changes one row at most: WHERE compares the whole primary key with its columns.
use sqlparser::ast::{AssignmentTarget, Expr, TableFactor, TableWithJoins, Update};

use super::build::Planner;
use super::keyed::{Equal, place};
use super::operand::{Operand, operand};
use super::plan::TenantSource;
use super::rows::{Fed, values_of};
use super::scope::{Scope, tenant_attribute};
use super::sealed::{Ty, refuse_use};
use super::tenant;
use super::write::Target;
use crate::catalog::Relation;
use crate::policy::TenantRule;
use crate::refusal::Refusal;

/// The rows of VALUES that an UPDATE takes values for sealed columns from.
pub(super) struct Joined<'e> {
    rows: Vec<&'e [Expr]>,
    /// The sealed column that each of its columns goes to.
    fed: Vec<Option<Fed>>,
}

impl Planner<'_> {
    /// Finds the columns of VALUES that SET gives to sealed columns; nothing else may use them then. `None` when there are
    /// none.
    ///
    /// # Errors
    /// When two sealed columns get the same.
    pub(super) fn joined_values<'e>(
        &mut self,
        update: &'e Update,
        from: &'e [TableWithJoins],
        scope: &mut Scope<'_>,
    ) -> Result<Option<Joined<'e>>, Refusal> {
        let [TableWithJoins { relation: TableFactor::Derived { lateral: false, subquery, sample: None, .. }, joins }] =
            from
        else {
            return Ok(None);
        };
        let Some(values) = values_of(subquery) else { return Ok(None) };
        if !joins.is_empty() || scope.relations.len() != 2 {
            return Ok(None);
        }
        let mut fed: Vec<Option<Fed>> = Vec::new();
        fed.resize_with(scope.relations[1].columns.len(), || None);
        for assignment in &update.assignments {
            let AssignmentTarget::ColumnName(name) = &assignment.target else { continue };
            let Some((1, at)) = place(&assignment.value, scope) else { continue };
            let Target::Sealed(sealed) = self.target(&scope.relations[0], name)? else { continue };
            match &mut fed[at] {
                Some(_) => return Err(refuse_use(&sealed.column, "with a value that another column gets too")),
                entry => *entry = Some(Fed { column: sealed.column, uncast: None }),
            }
        }
        for (at, column) in fed.iter().enumerate() {
            let Some(Fed { column, .. }) = column else { continue };
            let refusal = refuse_use(column, "in UPDATE but as the value of its column");
            scope.relations[1].columns[at].ty = Ty::Blocked(refusal);
        }
        let rows: Vec<&[Expr]> = values.rows.iter().map(|row| &row.content[..]).collect();
        Ok(fed.iter().any(Option::is_some).then_some(Joined { rows, fed }))
    }

    /// Makes cells of the values.
    ///
    /// # Errors
    /// When a row of VALUES may change several rows, or does not say whose its row is, or holds more than constants.
    pub(super) fn seal_joined(
        &mut self,
        joined: &Joined<'_>,
        update: &Update,
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let Some(Fed { column: first, .. }) = joined.fed.iter().flatten().next() else { return Ok(()) };
        let refuse = |what: &str| refuse_use(first, what);
        let Some(base) = scope.relations[0].base.as_ref().filter(|base| matches!(base.kind, 'r' | 'p')) else {
            return Err(refuse("as the target of another column's value"));
        };
        let equals = update.selection.as_ref().map(|e| self.equals(e, scope)).unwrap_or_default();
        let constant = |equal: &Equal| match equal {
            Equal::Column(at) => joined.rows.iter().map(|row| operand(self.text, row.get(*at)?)).collect(),
            Equal::Constant(found) => Some(vec![found.clone()]),
        };
        let tells = |attnum: i16, equal: &Equal| {
            let found: Option<Vec<Operand>> = constant(equal);
            found.is_some_and(|found| found.iter().all(|found| self.tells_apart(base, attnum, found)))
        };
        let compared = |key: &i16| equals.iter().any(|(attnum, equal)| attnum == key && tells(*attnum, equal));
        if base.primary_key.is_empty() || !base.primary_key.iter().all(compared) {
            return Err(refuse("in an UPDATE that may change several rows for one of VALUES")
                .hint("Compare every column of the primary key with VALUES in WHERE, with AND between, and no casts to another type (as to citext)."));
        }
        for row in &joined.rows {
            let tenant = self.joined_tenant(base, row, &equals);
            let hint = "Compare the tenant column with VALUES in WHERE, too, or with a constant.";
            self.seal_fed(&joined.fed, row, (tenant.as_ref(), hint))?;
        }
        Ok(())
    }

    fn joined_tenant(&self, base: &Relation, row: &[Expr], equals: &[(i16, Equal)]) -> Option<TenantSource> {
        let attribute = match base.policy.as_ref().map(|policy| &policy.tenant)? {
            TenantRule::Column(_) => tenant_attribute(base)?,
            TenantRule::Session | TenantRule::Fixed(_) => return self.row_tenant(base, &[], &[]),
        };
        let (_, equal) = equals.iter().find(|(attnum, _)| *attnum == attribute.attnum)?;
        let found = match equal {
            Equal::Column(at) => operand(self.text, row.get(*at)?)?,
            Equal::Constant(found) => found.clone(),
        };
        tenant::source(attribute.base_type_oid, &found)
    }
}
