//! Collects edits and values while a statement is walked, and makes the plan of them.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::tokenizer::Token;

use super::Context;
use super::facts::Fact;
use super::operand::{Operand, Shape, parameter};
use super::plan::{Constant, Edit, LockQuery, ParamRole, Piece, ResultColumn, Role, Source, StatementPlan, ValueSlot};
use super::scope::{Known, ScopeColumn};
use super::stray::Use;
use super::text::Text;
use crate::policy::Column;
use crate::refusal::{Class, Refusal};
use crate::types::LogicalType;

/// The state of planning one statement.
pub(super) struct Planner<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) text: &'a Text<'a>,
    /// Token indexes of the statement.
    pub(super) tokens: Range<usize>,
    pub(super) edits: Vec<Edit>,
    pub(super) values: Vec<ValueSlot>,
    pub(super) sealed_rows: usize,
    pub(super) lock: Option<LockQuery>,
    pub(super) compared: Vec<Arc<Column>>,
    pub(super) tested: Vec<Arc<Column>>,
    /// Common table expressions in scope, innermost last: name, the first table number used inside, columns.
    pub(super) ctes: Vec<(String, u32, Vec<ScopeColumn>)>,
    /// What holds of the rows at the place that is walked.
    pub(super) facts: Vec<Fact>,
    /// How many of the facts hold for every row of the innermost query, and not for the row at hand alone.
    pub(super) facts_of_all: usize,
    /// Numbers the occurrences of tables.
    pub(super) next_row: u32,
    /// The tenants fetched beside the client's columns, as they are written.
    pub(super) hidden: Vec<String>,
    /// Where they are to be written.
    pub(super) hidden_at: Option<usize>,
    /// The literals and parameters that the output column at hand may show.
    pub(super) constants: Vec<Constant>,
    /// The parameters that are keys of jsonb objects with sealed values.
    pub(super) keys: Vec<u16>,
    /// How many views this text is inside of.
    pub(super) view_depth: usize,
    /// True inside a WITH: a statement there cannot run in two steps.
    pub(super) is_inner: bool,
    /// True behind a WITH in front of the statement that changes rows, or is no plain query.
    pub(super) follows_changes: bool,
    /// Whether all names that were walked mean something; the worst of them.
    pub(super) unknown: Known,
    /// True inside the arguments of an aggregate.
    pub(super) in_aggregate: bool,
    /// True for a condition about to be walked for which NULL is as good as false, or of which such facts are learned.
    pub(super) filters: bool,
    /// The literals and parameters that were walked.
    pub(super) uses: Vec<Use>,
    /// How many references to plain columns were walked.
    pub(super) plain_columns: usize,
}

impl<'a> Planner<'a> {
    pub(super) fn new(context: &'a Context<'a>, text: &'a Text<'a>, tokens: Range<usize>) -> Self {
        Planner {
            context,
            text,
            tokens,
            edits: Vec::new(),
            values: Vec::new(),
            sealed_rows: 0,
            lock: None,
            compared: Vec::new(),
            tested: Vec::new(),
            ctes: Vec::new(),
            facts: Vec::new(),
            facts_of_all: 0,
            next_row: 1,
            hidden: Vec::new(),
            hidden_at: None,
            constants: Vec::new(),
            keys: Vec::new(),
            view_depth: 0,
            is_inner: false,
            follows_changes: false,
            unknown: Known::Yes,
            in_aggregate: false,
            filters: false,
            uses: Vec::new(),
            plain_columns: 0,
        }
    }

    /// The bytes of the statement.
    pub(super) fn bytes(&self) -> Range<usize> {
        let first = self.text.tokens[self.tokens.start].range.start;
        let last = self.tokens.end.checked_sub(1).map_or(first, |i| self.text.tokens[i].range.end);
        first..last
    }

    /// Replaces a range by text.
    pub(super) fn edit(&mut self, range: Range<usize>, with: impl Into<String>) {
        self.edit_pieces(range, vec![Piece::Text(with.into())]);
    }

    /// Adds an edit; keeps what it writes apart from words that touch the replaced text.
    pub(super) fn edit_pieces(&mut self, range: Range<usize>, mut with: Vec<Piece>) {
        let bytes = self.text.text.as_bytes();
        let joins = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | 0x80..));
        if !range.is_empty() && range.start > 0 && joins(bytes.get(range.start - 1)) {
            with.insert(0, Piece::Text(" ".into()));
        }
        if !range.is_empty() && joins(bytes.get(range.end)) {
            with.push(Piece::Text(" ".into()));
        }
        self.edits.push(Edit { range, with });
    }

    /// Inserts text before and after a range.
    pub(super) fn wrap(&mut self, range: &Range<usize>, before: impl Into<String>, after: impl Into<String>) {
        self.edit(range.start..range.start, before);
        self.edit(range.end..range.end, after);
    }

    /// A new value; its server parameter is numbered by [`Planner::finish`].
    pub(super) fn value(&mut self, operand: &Operand, role: Role) -> usize {
        let source = match &operand.shape {
            Shape::Param(index) => Source::Param(*index),
            Shape::Literal(text, _) => Source::Literal(Arc::clone(text)),
            Shape::Null => Source::Rows,
        };
        let slot = self.slot(source, role);
        if let Some(Ok(first)) = operand.casts.first().map(|cast| LogicalType::parse(cast)) {
            self.values[slot].described = first;
            self.values[slot].cast = !matches!(first, LogicalType::Array(_));
        }
        slot
    }

    /// A new value from any source.
    pub(super) fn slot(&mut self, source: Source, role: Role) -> usize {
        let described = match (&role, role_column(&role).map(|column| column.logical)) {
            // A varchar is compared as text.
            (Role::Search { .. } | Role::SearchMany { .. }, Some(LogicalType::Varchar(_))) | (_, None) => {
                LogicalType::Text
            }
            (_, Some(own)) => own,
        };
        self.values.push(ValueSlot { source, role, param: 0, described, cast: false });
        self.values.len() - 1
    }

    /// Says that these values are taken for varchars, not for texts.
    pub(super) fn as_varchars(&mut self, operand: &Operand, slots: &[usize]) {
        for slot in slots.iter().filter(|_| operand.casts.is_empty()) {
            let described = &mut self.values[*slot].described;
            if *described == LogicalType::Text {
                *described = LogicalType::Varchar(None);
            }
        }
    }

    /// Replaces an operand by values, separated by commas.
    pub(super) fn replace(&mut self, range: Range<usize>, values: &[usize]) {
        let with = listed(values);
        self.edit_pieces(range, with);
    }

    /// Replaces an operand by a list of values in parentheses.
    pub(super) fn replace_list(&mut self, range: Range<usize>, values: &[usize]) {
        let mut with = listed(values);
        with.insert(0, Piece::Text("(".into()));
        with.push(Piece::Text(")".into()));
        self.edit_pieces(range, with);
    }

    /// Sorts the edits and numbers the parameters.
    ///
    /// # Errors
    /// When edits overlap, or a parameter stands for two types.
    pub(super) fn finish(mut self, result: Option<Vec<ResultColumn>>) -> Result<StatementPlan, Refusal> {
        self.sort_edits()?;
        if self.settle_uses()? {
            self.sort_edits()?;
        }
        let (count, plain) = self.client_params()?;
        let mut params = vec![ParamRole::Plain; usize::from(count)];
        let mut next = count;
        for value in &mut self.values {
            let index = match &value.source {
                Source::Param(index) => Some(usize::from(*index)),
                Source::Literal(_) | Source::Rows => None,
            };
            let role = index.and_then(|i| params.get_mut(i).map(|role| (i, role)));
            let keeps = match (role, role_column(&value.role)) {
                (Some((i, role)), Some(column)) => {
                    let many = matches!(value.role, Role::SearchMany { .. } | Role::SealEach { .. });
                    take_param(role, plain[i], (column, many, value.described))?.then_some(i)
                }
                _ => None,
            };
            value.param = match keeps.and_then(|i| u16::try_from(i + 1).ok()) {
                Some(number) => number,
                None => {
                    next = next.checked_add(1).ok_or_else(too_many)?;
                    next
                }
            };
        }
        for (role, plain) in params.iter_mut().zip(plain) {
            if matches!(role, ParamRole::Plain) && !plain {
                *role = ParamRole::Unused;
            }
        }
        let lock = self.lock.take().map(|lock| number_lock(lock, &self.values));
        Ok(StatementPlan {
            range: self.bytes(),
            edits: self.edits,
            values: self.values,
            params,
            server_params: next,
            result: result.map(Into::into),
            hidden: self.hidden.len(),
            keys: self.keys.iter().map(|index| (*index, Source::Param(*index))).collect(),
            sealed_rows: self.sealed_rows,
            lock,
            compared: self.compared,
            tested: self.tested,
            named: None,
            copy: None,
            ddl: None,
        })
    }

    fn sort_edits(&mut self) -> Result<(), Refusal> {
        self.edits.sort_by_key(|e| (e.range.start, e.range.end));
        match self.edits.windows(2).any(|w| w[0].range.end > w[1].range.start) {
            true => Err(Refusal::new(Class::NotSupported, "this statement over sealed columns cannot be rewritten")),
            false => Ok(()),
        }
    }

    /// True when an edit covers these bytes; the edits must be sorted.
    pub(super) fn is_edited(&self, range: &Range<usize>) -> bool {
        let before = self.edits.partition_point(|e| e.range.start <= range.start);
        self.edits[..before].last().is_some_and(|e| range.end <= e.range.end)
    }

    /// How many parameters the client has, and which of them stay in the rewritten text.
    fn client_params(&self) -> Result<(u16, Vec<bool>), Refusal> {
        let mut plain: Vec<bool> = Vec::new();
        for tok in &self.text.tokens[self.tokens.clone()] {
            let Token::Placeholder(name) = &tok.token else { continue };
            let index =
                parameter(name).ok_or_else(|| Refusal::new(Class::NotSupported, "a parameter must be written $n"))?;
            let index = usize::from(index);
            if plain.len() <= index {
                plain.resize(index + 1, false);
            }
            plain[index] |= !self.is_edited(&tok.range);
        }
        let count = u16::try_from(plain.len()).map_err(|_| too_many())?;
        Ok((count, plain))
    }
}

/// Values separated by commas.
fn listed(values: &[usize]) -> Vec<Piece> {
    let mut with = Vec::with_capacity(2 * values.len() + 2);
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            with.push(Piece::Text(", ".into()));
        }
        with.push(Piece::Value(*value));
    }
    with
}

fn too_many() -> Refusal {
    Refusal::new(Class::NotSupported, "the rewritten statement has too many parameters")
        .hint("Write fewer rows in one statement.")
}

/// Gives a client parameter to a value; true when the value keeps its number.
fn take_param(
    role: &mut ParamRole,
    plain: bool,
    (column, many, described): (&Arc<Column>, bool, LogicalType),
) -> Result<bool, Refusal> {
    match role {
        ParamRole::Plain if many && !plain => {
            *role = ParamRole::SealedMany(Arc::clone(column), described);
            Ok(true)
        }
        ParamRole::SealedMany(first, _) if many && first.logical == column.logical => Ok(false),
        ParamRole::Plain if plain => {
            *role = ParamRole::Both(Arc::clone(column));
            Ok(false)
        }
        ParamRole::Plain => {
            *role = ParamRole::Sealed(Arc::clone(column), described);
            Ok(true)
        }
        ParamRole::Sealed(first, _) | ParamRole::Both(first) if first.logical == column.logical && !many => Ok(false),
        ParamRole::Sealed(..) | ParamRole::SealedMany(..) | ParamRole::Both(_) | ParamRole::Unused => {
            Err(super::sealed::refuse_use(column, "with a parameter that also stands for another type"))
        }
    }
}

/// The column whose type a value's parameter has.
pub(super) fn role_column(role: &Role) -> Option<&Arc<Column>> {
    match role {
        Role::Seal { column, .. }
        | Role::Search { column, .. }
        | Role::Shown { column, .. }
        | Role::SearchMany { column, .. }
        | Role::SealEach { column, .. }
        | Role::CopiedCells { column, .. }
        | Role::LockedCells { column } => Some(column),
        Role::CopiedPlain { .. } | Role::LockedTables | Role::LockedRows => None,
    }
}

/// Adds the numbers of the values to those of the client's parameters.
fn number_lock(mut lock: LockQuery, values: &[ValueSlot]) -> LockQuery {
    for piece in &lock.pieces {
        if let Piece::Value(index) = piece {
            lock.uses.push(values[*index].param);
        }
    }
    lock.uses.sort_unstable();
    lock.uses.dedup();
    lock
}

/// The refusal of a name that means nothing here though the policy has a sealed column of that name in a table at hand:
/// the column may have come after the snapshot of the schema.
pub(super) fn unknown_column() -> Refusal {
    Refusal::new(Class::UnknownColumn, "a sealed column is not where the statement names it")
        .detail("The proxy has not seen it in the database, or the name before it is wrong.")
        .hint("Check the names of the columns and tables, or try again.")
}
