//! Views: their columns are those of the query behind them. That query cannot be edited; a view whose query would have
//! to be is not looked through, and not made through the proxy.
use std::sync::Arc;

use sqlparser::ast::{CreateTableOptions, CreateView, Statement};

use super::Context;
use super::build::Planner;
use super::expr::unsupported;
use super::query::List;
use super::scope::{ScopeColumn, ScopeRelation};
use super::sealed::{SealedRef, Ty, refuse_use};
use super::text::Text;
use crate::catalog::{Attribute, Relation};
use crate::policy::{Column, Table, TenantRule};
use crate::refusal::Refusal;

/// How deep views may stand in views.
const DEPTH_MAX: usize = 16;

impl Planner<'_> {
    /// Plans CREATE VIEW and CREATE MATERIALIZED VIEW, which pass as they are: a view can show sealed columns as they stand,
    /// and all else that the server does with their cells.
    ///
    /// # Errors
    /// When the query holds a value for a sealed column, or would have to be edited, or when what the view shows would not be
    /// known for cells by the types of its columns.
    pub(super) fn create_view(&mut self, create: &CreateView) -> Result<(), Refusal> {
        let is_plain = create.to.is_none()
            && create.params.is_none()
            && create.cluster_by.is_empty()
            && matches!(create.options, CreateTableOptions::None | CreateTableOptions::With(_))
            && create.columns.iter().all(|column| column.data_type.is_none() && column.options.is_none());
        if !is_plain {
            return Err(unsupported("this form of CREATE VIEW"));
        }
        let columns = self.query(&create.query, None, List::Rows)?;
        let columns = columns.ok_or_else(|| unsupported("a view whose columns cannot be counted"))?;
        for column in self.rows(columns)? {
            match column.ty {
                Ty::Plain => {}
                Ty::Sealed(sealed) if sealed.is_column => {}
                Ty::Sealed(sealed) | Ty::Many(sealed) => {
                    return Err(refuse_use(&sealed.column, "in an expression of a view"));
                }
                Ty::Built(_) => return Err(unsupported("a view that builds values around sealed ones")),
                Ty::Blocked(refusal) => return Err(refusal),
            }
        }
        if self.values.is_empty() && self.edits.is_empty() && self.lock.is_none() {
            return Ok(());
        }
        Err(unsupported("a view whose query would have to be rewritten")
            .hint("Let the view show the sealed columns as they are; compare and cast them where it is read."))
    }

    /// A view in FROM or as a target. Where all of its sealed columns come from one row of one table and the tenant can
    /// be seen, it is like a table with a policy of its own.
    pub(super) fn view(&mut self, view: &Arc<Relation>) -> ScopeRelation {
        let row = self.row();
        let Some(columns) = self.view_columns(view) else {
            return ScopeRelation::table(view, self.context.catalog, None, row);
        };
        if let Some(like) = like_table(view, &columns) {
            return ScopeRelation::table(&Arc::new(like), self.context.catalog, None, row);
        }
        let mut columns = self.fresh(columns, 0);
        for (column, attribute) in columns.iter_mut().zip(&view.columns) {
            (column.name, column.attnum) = (Some(attribute.name.clone()), attribute.attnum);
            if let Ty::Sealed(sealed) = &mut column.ty {
                (sealed.table, sealed.attnum, sealed.is_column) = (Arc::clone(view), attribute.attnum, true);
                sealed.is_stray = false;
            }
        }
        ScopeRelation {
            alias: Some(view.name.clone()),
            aliased: false,
            base: Some(Arc::clone(view)),
            ..ScopeRelation::derived(columns)
        }
    }

    /// The columns of the query behind a view, as they are for a reader; `None` when it cannot be looked through.
    fn view_columns(&self, view: &Relation) -> Option<Vec<ScopeColumn>> {
        if self.view_depth >= DEPTH_MAX {
            return None;
        }
        let definition = view.definition.as_deref()?;
        let text = Text::read(definition).ok()?;
        let [tokens] = &text.statements()[..] else { return None };
        let Ok(Statement::Query(query)) = text.parse(tokens) else { return None };
        let context = Context { search_path: &[], ..*self.context };
        let mut inside = Planner::new(&context, &text, tokens.clone());
        inside.view_depth = self.view_depth + 1;
        let columns = inside.query(&query, None, List::Rows).ok()??;
        let columns = inside.rows(columns).ok()?;
        let untouched = inside.edits.is_empty() && inside.values.is_empty();
        let as_declared = columns.len() == view.columns.len()
            && columns.iter().zip(&view.columns).all(|(column, a)| matches!(column.ty, Ty::Sealed(_)) == a.is_cell)
            && !columns.iter().any(|column| matches!(column.ty, Ty::Built(_)));
        (untouched && as_declared).then_some(columns)
    }
}

/// The view as a table with a policy.
fn like_table(view: &Relation, columns: &[ScopeColumn]) -> Option<Relation> {
    let sealed: Vec<&SealedRef> =
        columns.iter().filter_map(|c| if let Ty::Sealed(s) = &c.ty { Some(s) } else { None }).collect();
    let first = *sealed.first()?;
    let spot = first.spot?;
    if sealed.iter().any(|s| s.spot.is_none_or(|other| other.row != spot.row)) {
        return None;
    }
    let place =
        |row: u32, attnum: i16| columns.iter().position(|c| c.spot.is_some_and(|s| (s.row, s.attnum) == (row, attnum)));
    let tenant = match (&first.table.policy.as_ref()?.tenant, first.home) {
        (TenantRule::Column(_), Some(home)) => {
            TenantRule::Column(view.columns.get(place(home.row, home.attnum)?)?.name.clone())
        }
        (TenantRule::Column(_), None) => return None,
        (rule, _) => rule.clone(),
    };
    let key: Option<Vec<i16>> = first
        .table
        .primary_key
        .iter()
        .map(|attnum| Some(view.columns.get(place(spot.row, *attnum)?)?.attnum))
        .collect();
    let attributes: Vec<Attribute> =
        view.columns.iter().zip(columns).map(|(a, column)| attribute(a, &column.ty)).collect();
    let policy: Vec<Arc<Column>> = attributes.iter().filter_map(|a| a.sealed.clone()).collect();
    Some(Relation {
        oid: view.oid,
        schema: view.schema.clone(),
        name: view.name.clone(),
        kind: view.kind,
        columns: attributes,
        primary_key: key.unwrap_or_default(),
        unique_indexes: Vec::new(),
        policy: Some(Arc::new(Table { schema: view.schema.clone(), name: view.name.clone(), tenant, columns: policy })),
        definition: None,
    })
}

fn attribute(a: &Attribute, ty: &Ty) -> Attribute {
    Attribute {
        name: a.name.clone(),
        attnum: a.attnum,
        type_oid: a.type_oid,
        base_type_oid: a.base_type_oid,
        typmod: a.typmod,
        type_name: a.type_name.clone(),
        has_default: a.has_default,
        is_generated: a.is_generated,
        sealed: if let Ty::Sealed(sealed) = ty { Some(Arc::clone(&sealed.column)) } else { None },
        is_cell: a.is_cell,
        is_unsealed: false,
    }
}
