//! The client's own values that a result may show in place of a cell, as in `coalesce(column, $1)`. The server has a marker
//! in their place. Pure functions.
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::refusal::Refusal;
use crate::sql::plan::{Constant, Role, StatementPlan};

use super::seal::{Inputs, of_source};

/// A parameter (counted from 0) and its value in canonical form.
type Value = (u16, Zeroizing<Vec<u8>>);

/// The parameters that the rows of one statement may show. Its Debug form leaves their values out.
#[derive(Clone, Default)]
pub struct Stands(Option<Arc<[Value]>>);

impl std::fmt::Debug for Stands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stands({})", self.0.as_ref().map_or(0, |values| values.len()))
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
        Ok(Stands((!values.is_empty()).then(|| values.into())))
    }

    /// What stands for a constant.
    ///
    /// # Errors
    /// XX001 for a parameter that is NULL, in whose place there is no marker.
    pub fn stand<'a>(&'a self, constant: &'a Constant) -> Result<Stand<'a>, Refusal> {
        match constant {
            Constant::Literal(text) => Ok(Stand::Literal(text)),
            Constant::Param(index) => {
                let values = self.0.as_deref().unwrap_or_default();
                let found = values.iter().find(|(param, _)| param == index).ok_or_else(Refusal::damaged)?;
                Ok(Stand::Value(&found.1))
            }
        }
    }
}
