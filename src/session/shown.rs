//! The client's own values that matter for how a result is shown: those that may stand in place of a cell, as in
//! `coalesce(column, $1)`, where the server has a marker, and keys beside cells. Pure functions.
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::refusal::Refusal;
use crate::sql::plan::{Constant, Named, ResultColumn, Role, StatementPlan};

use super::seal::{Inputs, given, of_source};

/// A parameter (counted from 0) and its value in canonical form.
type Value = (u16, Zeroizing<Vec<u8>>);

/// The parameters that the rows of one statement may show. Its Debug form leaves their values out.
#[derive(Clone, Default)]
pub struct Stands {
    values: Option<Arc<[Value]>>,
    /// The columns with their keys, where some are parameters.
    columns: Option<Arc<[ResultColumn]>>,
}

impl std::fmt::Debug for Stands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stands({})", self.values.as_ref().map_or(0, |values| values.len()))
    }
}

/// A value to be shown in place of a cell.
pub enum Stand<'a> {
    /// A literal of the statement.
    Literal(&'a str),
    /// A value in canonical form.
    Value(&'a [u8]),
}

impl Stands {
    /// Keeps those of a plan's parameters that its rows may show.
    ///
    /// # Errors
    /// The error that Postgres gives for a value that is not of its column's type.
    ///
    /// # Secrets
    /// They are the client's plaintexts, and are zeroized with the last reply that may show them.
    pub(super) fn of(plan: &StatementPlan, inputs: &Inputs<'_>) -> Result<Stands, Refusal> {
        let mut values: Vec<Value> = Vec::new();
        for slot in &plan.values {
            let Role::Shown { column, param, .. } = &slot.role else { continue };
            let canonical = of_source(&slot.source, column.logical.without_modifier(), inputs)?;
            values.extend(canonical.map(|canonical| (*param, Zeroizing::new(canonical))));
        }
        let columns = match (&plan.named, plan.keys.is_empty()) {
            (_, true) => None,
            (Some(Named::Declare { columns, .. }), false) => columns.as_ref(),
            (_, false) => plan.result.as_ref(),
        };
        let columns = columns.map(|columns| columns.iter().map(|column| bound(column, plan, inputs)).collect());
        Ok(Stands { values: (!values.is_empty()).then(|| values.into()), columns })
    }

    /// The columns of the plan as they are shown.
    pub(super) fn columns(&self, planned: &Arc<[ResultColumn]>) -> Arc<[ResultColumn]> {
        Arc::clone(self.columns.as_ref().unwrap_or(planned))
    }

    /// What stands for a constant.
    ///
    /// # Errors
    /// XX001 for a parameter that is NULL, in whose place there is no marker.
    pub fn stand<'a>(&'a self, constant: &'a Constant) -> Result<Stand<'a>, Refusal> {
        match constant {
            Constant::Literal(text) => Ok(Stand::Literal(text)),
            Constant::Param(index) => {
                let values = self.values.as_deref().unwrap_or_default();
                let found = values.iter().find(|(param, _)| param == index).ok_or_else(Refusal::damaged)?;
                Ok(Stand::Value(&found.1))
            }
        }
    }
}

/// A column with the texts of parameters as its keys.
fn bound(column: &ResultColumn, plan: &StatementPlan, inputs: &Inputs<'_>) -> ResultColumn {
    let ResultColumn::Built(built) = column else { return column.clone() };
    let mut built = (**built).clone();
    built.inside.bind_keys(&|index| {
        let (_, source) = plan.keys.iter().find(|(key, _)| *key == index)?;
        let (_, text) = given(source, inputs)?;
        String::from_utf8(text.to_vec()).ok()
    });
    ResultColumn::Built(Arc::new(built))
}
