//! ON CONFLICT: a sealed column in the target stands for its token; DO UPDATE keeps cells with the tenant of their row.
use std::sync::Arc;

use sqlparser::ast::{
    AssignmentTarget, ConflictTarget, DoUpdate, Expr, Ident, ObjectName, ObjectNamePart, OnConflictAction, OnInsert,
};

use super::build::Planner;
use super::expr::{column_parts, unsupported};
use super::ident::{fold, parts, quote};
use super::insert::Single;
use super::operand::{Operand, operand};
use super::plan::{Role, TenantSource};
use super::scope::{Known, Scope, ScopeRelation, tenant_attribute};
use super::sealed::{SealedRef, Ty, attribute_type, is_null, not_searchable, only_plain, refuse_use};
use super::update::refused_in_server;
use super::write::{Target, is_default, tenant_moved};
use crate::catalog::{Attribute, Relation};
use crate::policy::{Column, Equality, TenantRule};
use crate::refusal::Refusal;

/// Whether the row that is in the way is of the tenant of the proposed one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Neighbour {
    /// Surely, or its sealed columns are all replaced.
    Same,
    /// The statement asks the server.
    Asked,
    /// It cannot be known.
    Unknown,
}

impl Planner<'_> {
    pub(super) fn on_conflict(
        &mut self,
        on: Option<&OnInsert>,
        (base, single): (Option<&Arc<Relation>>, Option<&Single>),
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let conflict = match on {
            None => return Ok(()),
            Some(OnInsert::OnConflict(conflict)) => conflict,
            Some(_) => return Err(unsupported("this INSERT")),
        };
        let mut names = Vec::new();
        if let Some(ConflictTarget::Columns { columns, predicate }) = &conflict.conflict_target {
            if let Some(predicate) = predicate {
                self.plain(predicate, scope, "in ON CONFLICT")?;
            }
            names.extend(columns.iter().map(fold));
            if let Some(base) = base {
                columns.iter().try_for_each(|ident| self.conflict_column(ident, base, &names))?;
            }
        }
        if let (Some(ConflictTarget::OnConstraint(name)), Some(base)) = (&conflict.conflict_target, base) {
            names = self.conflict_constraint(name, base)?;
        }
        match &conflict.action {
            OnConflictAction::DoNothing => Ok(()),
            OnConflictAction::DoUpdate(update) => {
                let base = base.ok_or_else(|| unsupported("ON CONFLICT DO UPDATE on this table"))?;
                self.do_update(update, (base, &names, single), scope)
            }
        }
    }

    /// A column of the conflict target: a sealed one stands for the index on its tokens.
    fn conflict_column(&mut self, ident: &Ident, base: &Arc<Relation>, names: &[String]) -> Result<(), Refusal> {
        let Some(attribute) = base.attribute(&fold(ident)) else {
            self.unknown = Known::No;
            return Ok(());
        };
        if let Some(column) = self.conflict_key(attribute, base, names)? {
            let range = self.text.range(ident.span).ok_or_else(|| unsupported("this ON CONFLICT"))?;
            self.compared.push(column);
            self.wrap(&range, "rowseal.eq(", ")");
        }
        Ok(())
    }

    /// A constraint on sealed columns is an index over their tokens, which the server finds by what it is over. Gives the
    /// names of the columns; of a constraint that the server has itself, none.
    fn conflict_constraint(&mut self, name: &ObjectName, base: &Arc<Relation>) -> Result<Vec<String>, Refusal> {
        let fail = || unsupported("this ON CONFLICT");
        let own = parts(name).filter(|parts| parts.len() == 1).ok_or_else(fail)?;
        let index = base.unique_indexes.iter().find(|index| own == [index.name.as_str()]);
        let Some(index) = index.filter(|index| !index.columns.is_empty()) else { return Ok(Vec::new()) };
        let attribute = |attnum: &i16| base.columns.iter().find(|a| a.attnum == *attnum);
        let key: Vec<&Attribute> = index.columns.iter().map(attribute).collect::<Option<_>>().ok_or_else(fail)?;
        let names: Vec<String> = key.iter().map(|a| a.name.clone()).collect();
        let mut written = Vec::new();
        for attribute in key {
            written.push(match self.conflict_key(attribute, base, &names)? {
                Some(column) => {
                    self.compared.push(column);
                    format!("rowseal.eq({})", quote(&attribute.name))
                }
                None => quote(&attribute.name),
            });
        }
        let [ObjectNamePart::Identifier(ident)] = &name.0[..] else { return Err(fail()) };
        let range = self.text.range(ident.span).ok_or_else(fail)?;
        let on = self.text.token_at(range.start).and_then(|at| at.checked_sub(2)).ok_or_else(fail)?;
        let words = (self.text.word(on), self.text.word(on + 1));
        if !matches!((words.0.as_deref(), words.1.as_deref()), (Some("on"), Some("constraint"))) {
            return Err(fail());
        }
        self.edit(self.text.tokens[on].range.start..range.end, format!("({})", written.join(", ")));
        Ok(names)
    }

    /// The sealed column that a column of the target is, where its tokens are unique as its values are.
    fn conflict_key(
        &self,
        attribute: &Attribute,
        base: &Arc<Relation>,
        names: &[String],
    ) -> Result<Option<Arc<Column>>, Refusal> {
        let ty = attribute_type(base, attribute, self.context.catalog);
        let Ty::Sealed(sealed) = ty else { return only_plain(&ty, "in ON CONFLICT").map(|()| None) };
        let column = sealed.column;
        let confined = match (column.equality, base.policy.as_ref().map(|p| &p.tenant)) {
            (None, _) => return Err(not_searchable(&column)),
            (Some(Equality::Global), _) | (_, Some(TenantRule::Fixed(_))) => true,
            (_, Some(TenantRule::Column(tenant))) => names.contains(tenant),
            (_, Some(TenantRule::Session) | None) => false,
        };
        if !confined {
            return Err(refuse_use(&column, "in ON CONFLICT without the tenant column")
                .hint("Name the tenant column as well, with a unique index on both, or set equality = \"global\"."));
        }
        Ok(Some(column))
    }

    fn do_update(
        &mut self,
        update: &DoUpdate,
        (base, names, single): (&Arc<Relation>, &[String], Option<&Single>),
        outer: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let alias = outer.relations.first().filter(|r| r.aliased).and_then(|r| r.alias.clone());
        let mut scope = Scope::default();
        scope.add(ScopeRelation::table(base, self.context.catalog, alias, self.next_row));
        let mut excluded = ScopeRelation::table(base, self.context.catalog, Some("excluded".into()), self.next_row + 1);
        self.next_row += 2;
        excluded.columns.iter_mut().for_each(|c| c.hidden = true);
        scope.add(excluded);
        let mark = self.facts.len();
        if let Some(tenant) = tenant_attribute(base).filter(|tenant| names.contains(&tenant.name)) {
            // Rows that conflict have the same values in the columns of the target.
            let spot = |r: &ScopeRelation| r.columns.iter().find(|c| c.attnum == tenant.attnum).and_then(|c| c.spot);
            self.learn_same(spot(&scope.relations[0]), spot(&scope.relations[1]));
        }
        self.filter(&scope, Vec::new(), update.selection.as_ref())?;
        let neighbour = self.neighbour(update, base, names)?;
        for assignment in &update.assignments {
            let AssignmentTarget::ColumnName(name) = &assignment.target else {
                return Err(unsupported("a row assignment in ON CONFLICT"));
            };
            let value = &assignment.value;
            match self.target(&scope.relations[0], name)? {
                Target::Sealed(sealed) => {
                    self.conflict_value(&sealed, value, (neighbour, single), &scope)?;
                }
                Target::Tenant(attribute) => self.conflict_tenant(attribute, value, (base, neighbour), &scope)?,
                Target::Plain if is_default(value) => {}
                Target::Plain => self.assigned(value, &scope, "in SET")?,
            }
        }
        self.facts.truncate(mark);
        Ok(())
    }

    /// What is known of the row in the way.
    fn neighbour(&self, update: &DoUpdate, base: &Relation, names: &[String]) -> Result<Neighbour, Refusal> {
        let tenant = match base.policy.as_ref().map(|p| &p.tenant) {
            Some(TenantRule::Fixed(_)) => return Ok(Neighbour::Same),
            Some(TenantRule::Column(tenant)) => tenant,
            Some(TenantRule::Session) | None => return Ok(Neighbour::Unknown),
        };
        let assigned = |column: &str| {
            update.assignments.iter().find(|a| {
                matches!(&a.target, AssignmentTarget::ColumnName(name)
                    if super::ident::parts(name).is_some_and(|p| p == [column]))
            })
        };
        let replaced = |a: &Attribute| assigned(&a.name).is_some_and(|s| is_excluded(&s.value, &a.name));
        let moved = assigned(tenant).is_some_and(|s| is_excluded(&s.value, tenant));
        let all = base.columns.iter().filter(|a| a.is_cell).all(replaced);
        Ok(if names.contains(tenant) || (moved && all) { Neighbour::Same } else { Neighbour::Asked })
    }

    /// The tenant column in DO UPDATE: the proposed one, which must be the old one unless all cells are replaced.
    fn conflict_tenant(
        &mut self,
        attribute: &Attribute,
        value: &Expr,
        (base, neighbour): (&Arc<Relation>, Neighbour),
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        if !is_excluded(value, &attribute.name) {
            return Err(tenant_moved(base));
        }
        if neighbour == Neighbour::Same {
            return Ok(());
        }
        let column = super::scope::first_sealed(base).ok_or_else(|| tenant_moved(base))?;
        self.ask(value, scope, column, super::update::type_of(attribute).ok_or_else(|| tenant_moved(base))?)
    }

    fn conflict_value(
        &mut self,
        target: &SealedRef,
        value: &Expr,
        (neighbour, single): (Neighbour, Option<&Single>),
        scope: &Scope<'_>,
    ) -> Result<(), Refusal> {
        let column = &target.column;
        if operand(self.text, value).is_some_and(|found| is_null(&found)) {
            return Ok(());
        }
        let proposed = scope.relations.get(1).and_then(|r| r.columns.iter().find(|c| c.attnum == target.attnum));
        let Some(Ty::Sealed(proposed)) = proposed.map(|c| &c.ty) else { return Err(unsupported("this ON CONFLICT")) };
        let found = self.stored(column, &[target, proposed], value, scope)?;
        let keeps = column_parts(value).is_some_and(|parts| scope.spot(parts) == target.spot);
        match (neighbour, single) {
            _ if keeps => return Ok(()),
            (Neighbour::Unknown, _) => {
                return Err(refuse_use(column, "in DO UPDATE when the other row's tenant is not known")
                    .hint("Name the tenant column in the conflict target, with a unique index that has it."));
            }
            (_, Some(Single { row, tenant: Some(tenant) })) => self.seal_proposed(column, &found, (*row, tenant)),
            _ if found.is_empty() => {}
            _ => {
                return Err(refuse_use(column, "in DO UPDATE with a value of its own")
                    .hint("Write EXCLUDED and the column's own name."));
            }
        }
        if neighbour == Neighbour::Asked { self.ask(value, scope, column, "pg_catalog.bytea") } else { Ok(()) }
    }

    /// Seals constants that DO UPDATE sets, as the one proposed row's.
    fn seal_proposed(
        &mut self,
        column: &Arc<Column>,
        values: &[Operand],
        (row, tenant): (Option<usize>, &TenantSource),
    ) {
        let row = row.unwrap_or_else(|| {
            self.sealed_rows += usize::from(!values.is_empty());
            self.sealed_rows.saturating_sub(1)
        });
        for value in values {
            let role = Role::Seal { column: Arc::clone(column), row, tenant: tenant.clone() };
            let slot = self.value(value, role);
            self.replace(value.range.clone(), &[slot]);
        }
    }

    /// Puts a value in a CASE that gives it only where the row in the way is of the proposed row's tenant, and raises an
    /// error otherwise.
    fn ask(&mut self, value: &Expr, scope: &Scope<'_>, column: &Column, ty: &str) -> Result<(), Refusal> {
        let fail = || unsupported("this ON CONFLICT");
        let range = super::extent::extent(self.text, value).ok_or_else(fail)?;
        let relation = scope.relations.first().ok_or_else(fail)?;
        let base = relation.base.as_ref().ok_or_else(fail)?;
        let tenant = quote(&tenant_attribute(base).ok_or_else(fail)?.name);
        let alias = quote(relation.alias.as_deref().ok_or_else(fail)?);
        let open = format!("CASE WHEN {alias}.{tenant} IS NOT DISTINCT FROM excluded.{tenant} THEN ");
        self.wrap(&range, open, format!(" ELSE {} END", refused_in_server(column, ty)));
        Ok(())
    }
}

/// True for `EXCLUDED.name`.
fn is_excluded(value: &Expr, name: &str) -> bool {
    let parts = column_parts(value).unwrap_or(&[]);
    matches!(parts, [relation, column] if fold(relation) == "excluded" && fold(column) == name)
}
