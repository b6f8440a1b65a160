//! The plan: what the proxy does to one statement. Made by this module, carried out by `session`.
use std::ops::Range;
use std::sync::Arc;

use super::inside::Built;
use crate::policy::Column;
use crate::refusal::Refusal;
use crate::types::{Exact, LogicalType, ValueError};
use crate::wire::copy::Options;

pub use super::question::Question;

/// What is to be done with the text of a Query or a Parse.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Forward byte for byte.
    Pass,
    /// Rewrite. One entry a statement of the text, in order; statements that need nothing have an empty plan.
    Rewrite(Arc<[StatementPlan]>),
    /// Refuse the whole text.
    Refuse(Refusal),
    /// Ask the server first.
    Ask(Arc<Asked>),
}

/// What the server is asked before a text goes to it, without its values.
#[derive(Debug)]
pub struct Asked {
    /// The questions, at least one.
    pub questions: Vec<Question>,
    /// True when the schema is to be read again first: the answer may be in it by now.
    pub reload: bool,
    /// What is to be done when no answer is an error. Never [`Verdict::Ask`].
    pub then: Verdict,
}

/// The plan of one statement.
#[derive(Debug, Default, Clone)]
pub struct StatementPlan {
    /// Where the statement stands in the client's text (bytes, without the semicolon).
    pub range: Range<usize>,
    /// Edits on the client's text: sorted, not overlapping, inside `range`.
    pub edits: Vec<Edit>,
    /// The values that the proxy computes; edits and the lock query name them by index.
    pub values: Vec<ValueSlot>,
    /// One entry for each of the client's parameters `$1..$n`.
    pub params: Vec<ParamRole>,
    /// How many parameters the rewritten statement has in the extended protocol; at least `params.len()`.
    pub server_params: u16,
    /// Output columns in order; `None` when the statement returns no rows.
    pub result: Option<Arc<[ResultColumn]>>,
    /// How many columns the server sends behind those of `result`: tenants, hidden from the client.
    pub hidden: usize,
    /// The client's parameters (counted from 0) that are keys beside sealed values, and where their texts come from.
    pub keys: Vec<(u16, Source)>,
    /// How many rows of sealed values the statement writes (rows of VALUES; 1 for a one-row UPDATE).
    pub sealed_rows: usize,
    /// Set when the statement runs in two steps: first this query, then the edited text.
    pub lock: Option<LockQuery>,
    /// Sealed columns that are compared with each other: a search without a value.
    pub compared: Vec<Arc<Column>>,
    /// Sealed columns of which the statement tells whether they are NULL.
    pub tested: Vec<Arc<Column>>,
    /// Set when the statement gives a name to another one, or uses it by its name.
    pub named: Option<Named>,
    /// Set for a COPY that carries sealed values.
    pub copy: Option<Arc<Copy>>,
    /// Set for DDL that is more than its own text.
    pub ddl: Option<Arc<Ddl>>,
}

impl StatementPlan {
    /// True when there is more to do than to pass the statement on, once it is allowed.
    pub fn is_rewritten(&self) -> bool {
        let sealed = |c: &ResultColumn| !matches!(c, ResultColumn::Plain);
        !self.edits.is_empty()
            || self.lock.is_some()
            || self.named.is_some()
            || self.copy.is_some()
            || self.ddl.as_ref().is_some_and(|ddl| !ddl.then.is_empty() || ddl.notice.is_some())
            || self.result.iter().flat_map(|columns| columns.iter()).any(sealed)
    }
}

/// What belongs to a statement that defines sealed columns, besides its text.
#[derive(Debug, Default)]
pub struct Ddl {
    /// Statements that follow it in its transaction, before the client is told that it is done.
    pub then: Vec<String>,
    /// Something that the client should know.
    pub notice: Option<String>,
    /// True when the table has other columns afterwards.
    pub is_reshaped: bool,
    /// True when it makes nothing, because the table exists as far as is known.
    pub is_skipped: bool,
}

/// A COPY that carries sealed values.
#[derive(Debug)]
pub enum Copy {
    /// FROM STDIN.
    In(CopyIn),
    /// TO STDOUT.
    Out(CopyOut),
}

/// A COPY FROM STDIN.
#[derive(Debug)]
pub struct CopyIn {
    /// The table's name, as Postgres tells it where a row is wrong.
    pub table: String,
    /// The names of the columns copied.
    pub names: Vec<String>,
    /// How the client writes the rows.
    pub options: Options,
    /// The sealed values of one row; its fields are the parameters, counted from 0.
    pub row: Box<StatementPlan>,
    /// Set when the server takes the rows in binary: how the text of each column becomes binary, `None` for a sealed one.
    /// Else it takes them in the client's format.
    pub binary: Option<Vec<Option<Exact>>>,
}

/// A COPY TO STDOUT.
#[derive(Debug)]
pub struct CopyOut {
    /// The columns.
    pub columns: Arc<[ResultColumn]>,
    /// How many columns the server sends behind them: tenants, hidden from the client.
    pub hidden: usize,
    /// How the client is to be sent the rows.
    pub options: Options,
    /// True when the server sends them in binary, but for the client's options as text what is not sealed. Else it sends
    /// them in the client's format.
    pub is_binary: bool,
    /// The names of the columns where a first line is asked for that the server does not send.
    pub names: Vec<String>,
}

/// What a statement has to do with the names of prepared statements and cursors.
#[derive(Debug, Clone)]
pub enum Named {
    /// PREPARE.
    Prepare {
        /// The statement's name.
        name: Arc<str>,
        /// Its plan, of one statement; `None` when it touches no sealed column.
        plan: Option<Arc<[StatementPlan]>>,
    },
    /// EXECUTE.
    Execute(Arc<Call>),
    /// DECLARE.
    Declare {
        /// The cursor's name.
        name: Arc<str>,
        /// True when its rows come in binary.
        binary: bool,
        /// Its columns; `None` when none of them is sealed.
        columns: Option<Arc<[ResultColumn]>>,
        /// How many columns the server sends behind those.
        hidden: usize,
    },
    /// FETCH.
    Fetch {
        /// The cursor's name.
        name: Arc<str>,
    },
    /// EXECUTE within another statement.
    Mention {
        /// The statement's name.
        name: Arc<str>,
    },
}

/// An EXECUTE as it is written.
#[derive(Debug)]
pub struct Call {
    /// The statement's name.
    pub name: Arc<str>,
    /// Its arguments.
    pub arguments: Vec<Argument>,
    /// The bytes of the list of arguments with its parentheses; empty, behind the name, when there is none.
    pub list: Range<usize>,
}

/// An argument of EXECUTE.
#[derive(Debug)]
pub struct Argument {
    /// Where it stands in the client's text.
    pub range: Range<usize>,
    /// Its value.
    pub value: Value,
}

/// The value of an argument.
#[derive(Clone)]
pub enum Value {
    /// A literal: its text value with quoting removed.
    Literal(Arc<str>),
    /// NULL.
    Null,
    /// Something the server computes.
    Expression,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Value::Literal(_) => "Literal(..)",
            Value::Null => "Null",
            Value::Expression => "Expression",
        })
    }
}

/// One replacement in the client's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Byte range in the client's text; empty for an insertion.
    pub range: Range<usize>,
    /// What stands there instead.
    pub with: Vec<Piece>,
}

/// A piece of rewritten text. Its Debug form leaves the text out: a lock query repeats literals of the client's.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text as it is.
    Text(String),
    /// The value of a slot (index into `values`): `$n` of its `param` in the extended protocol, an inline literal with
    /// a cast (`'\x..'::bytea`) in a simple query. The rewritten text must be right with either.
    Value(usize),
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Piece::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Piece::Value(slot) => write!(f, "Value({slot})"),
        }
    }
}

/// One value that the proxy computes when the statement is executed.
#[derive(Debug, Clone)]
pub struct ValueSlot {
    /// Where the plaintext comes from.
    pub source: Source,
    /// What is made of it.
    pub role: Role,
    /// The number (from 1) of the server-side parameter that carries it in the extended protocol. A client parameter
    /// that is used in one place only keeps its number; other uses get numbers above the client's.
    pub param: u16,
    /// The type that Postgres gives to a parameter in its place.
    pub described: LogicalType,
    /// The statement casts it to the column's type itself, so that a text will do.
    pub cast: bool,
}

/// Where a plaintext comes from.
#[derive(Clone)]
pub enum Source {
    /// The client's parameter, counted from 0.
    Param(u16),
    /// A literal of the statement: its text value with quoting removed.
    Literal(Arc<str>),
    /// Nothing: the slot is made from the rows of the lock query alone.
    Rows,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Param(n) => write!(f, "Param({n})"),
            Source::Literal(_) => f.write_str("Literal(..)"),
            Source::Rows => f.write_str("Rows"),
        }
    }
}

/// What is made of a plaintext. A NULL source gives NULL in every role.
#[derive(Debug, Clone)]
pub enum Role {
    /// A cell for one row. All slots with the same `row` share one fresh DEK.
    Seal {
        /// The column written.
        column: Arc<Column>,
        /// Which of the statement's `sealed_rows`, from 0.
        row: usize,
        /// Whose row it is.
        tenant: TenantSource,
    },
    /// An equality token (16 bytes of bytea).
    Search {
        /// The column searched.
        column: Arc<Column>,
        /// Whose index root.
        tenant: TenantSource,
    },
    /// A marker of [`Constants`], as a bytea: the value itself is shown in place of a cell.
    Shown {
        /// The column in whose place it is shown.
        column: Arc<Column>,
        /// The number of the marker.
        number: usize,
        /// The client's parameter, counted from 0.
        param: u16,
    },
    /// The equality tokens of the members of an array, as `bytea[]`: one for each member and tenant.
    SearchMany {
        /// The column searched.
        column: Arc<Column>,
        /// Whose index roots.
        tenants: Vec<TenantSource>,
    },
    /// `bytea[]`: one cell for each member of an array, each under a fresh DEK of its own row. Members at the same place
    /// in arrays of the same `rows` are of one row and share its DEK.
    SealEach {
        /// The column written.
        column: Arc<Column>,
        /// Which of the statement's `sealed_rows`: all rows of the arrays count as one.
        rows: usize,
        /// Whose rows they are.
        tenants: EachTenant,
    },
    /// `bytea[]`: one cell for each locked row, each under a fresh DEK of that row's tenant. Slots of one statement
    /// share the row's DEK.
    LockedCells {
        /// The column written.
        column: Arc<Column>,
    },
    /// `text[]`: a plain value of each row that the first step gave.
    CopiedPlain {
        /// Which of its columns.
        at: usize,
    },
    /// `bytea[]`: one cell for each row that the first step gave, each under a fresh DEK of that row's tenant. Slots of the
    /// same `rows` share the row's DEK.
    CopiedCells {
        /// The column written.
        column: Arc<Column>,
        /// Which of the statement's `sealed_rows`: all rows count as one.
        rows: usize,
        /// Where the value comes from.
        from: CopiedFrom,
        /// Whose rows they are.
        tenant: CopiedTenant,
    },
    /// `oid[]`: tableoid of each locked row.
    LockedTables,
    /// `tid[]`: ctid of each locked row.
    LockedRows,
}

/// How the tenant of a value is found.
#[derive(Clone, PartialEq, Eq)]
pub enum TenantSource {
    /// Named by the policy, or the reserved tenant `_rowseal` for global equality.
    Fixed(Arc<str>),
    /// The session's `rowseal.tenant`.
    Session,
    /// The client's parameter, counted from 0, whose value is of the tenant column's type.
    Param {
        /// Counted from 0.
        index: u16,
        /// OID of the tenant column's type.
        type_oid: u32,
        /// OID of the type that the server takes the parameter for: this one, or a text's that the statement casts to it.
        described_oid: u32,
        /// True where the statement is about no row if the parameter is NULL.
        may_be_null: bool,
    },
    /// NULL, where the statement is about no row then.
    Nobody,
    /// A literal that is not of the tenant column's type.
    Misread(ValueError),
    /// A literal of the statement: the text value, quoting removed.
    Literal(Arc<str>),
}

impl std::fmt::Debug for TenantSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TenantSource::Fixed(_) => "Fixed",
            TenantSource::Session => "Session",
            TenantSource::Param { .. } => "Param",
            TenantSource::Nobody => "Nobody",
            TenantSource::Misread(_) => "Misread",
            TenantSource::Literal(_) => "Literal",
        })
    }
}

impl TenantSource {
    /// True when both name the same tenant, whatever they are.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (TenantSource::Param { index: a, .. }, TenantSource::Param { index: b, .. }) => a == b,
            (a, b) => a == b,
        }
    }
}

/// How the tenants of the rows that arrays are unnested to are found.
#[derive(Clone, PartialEq, Eq)]
pub enum EachTenant {
    /// All are of one.
    Same(TenantSource),
    /// In the client's array parameter, counted from 0, whose members are of the tenant column's type.
    Param {
        /// Counted from 0.
        index: u16,
        /// OID of the tenant column's type.
        type_oid: u32,
        /// How many characters of each are left by a cast.
        cut: Option<u32>,
    },
    /// In an array of literals.
    Literal {
        /// Its text form.
        array: Arc<str>,
        /// OID of the tenant column's type.
        type_oid: u32,
        /// How many characters of each are left by a cast.
        cut: Option<u32>,
    },
}

impl std::fmt::Debug for EachTenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EachTenant::Same(tenant) => write!(f, "Same({tenant:?})"),
            EachTenant::Param { .. } => f.write_str("Param"),
            EachTenant::Literal { .. } => f.write_str("Literal"),
        }
    }
}

/// Where a value comes from that is sealed for each row of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopiedFrom {
    /// A sealed column of the query: its value in binary form.
    Sealed(usize),
    /// A plain column of the query: its value in text form.
    Plain(usize),
    /// The slot's own source.
    Constant,
}

/// How the tenants of the rows of a query are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopiedTenant {
    /// All are of one.
    Same(TenantSource),
    /// In a column of the query.
    Column {
        /// Counted from 0.
        at: usize,
        /// OID of the tenant column's type.
        type_oid: u32,
    },
}

/// The part a client parameter plays.
#[derive(Debug, Clone)]
pub enum ParamRole {
    /// Sent on as it is; the server says its type.
    Plain,
    /// Never sent on: it stands for sealed values or search tokens of this column. The client is told this type.
    Sealed(Arc<Column>, LogicalType),
    /// The same for an array of such values; the client is told the type of arrays of this one.
    SealedMany(Arc<Column>, LogicalType),
    /// Sent on as it is and also used as a sealed value or token under another number.
    Both(Arc<Column>),
    /// Not in the text: NULL is sent.
    Unused,
}

/// One output column.
#[derive(Debug, Clone)]
pub enum ResultColumn {
    /// Whatever the server sends.
    Plain,
    /// Cells to be opened.
    Sealed {
        /// The column they belong to.
        column: Arc<Column>,
        /// Its table, for the row description.
        table_oid: u32,
        /// Its number in the table, for the row description.
        attnum: i16,
        /// The type that the client is told: that of an expression over the column may have another length, or none.
        described: LogicalType,
        /// Where the tenant that the row itself names is found.
        tenant: RowTenant,
        /// Literals of the statement that may stand in place of a cell.
        constants: Constants,
    },
    /// A value that the server builds around cells.
    Built(Arc<Built>),
}

impl ResultColumn {
    /// The sealed column whose values it shows; the first of several.
    pub fn sealed(&self) -> Option<&Arc<Column>> {
        match self {
            ResultColumn::Plain => None,
            ResultColumn::Sealed { column, .. } => Some(column),
            ResultColumn::Built(built) => built.inside.column(),
        }
    }
}

/// Literals and parameters that a result may show in place of a cell, as in `coalesce(column, 'none')`. The server is
/// not told them: it gives a marker with their number ([`CONSTANT`], then the number in four bytes), which is no cell
/// and has no tenant in front.
#[derive(Clone, Default)]
pub struct Constants(pub Arc<[Constant]>);

/// One of [`Constants`].
#[derive(Clone)]
pub enum Constant {
    /// A literal, quoting removed.
    Literal(Arc<str>),
    /// The client's parameter, counted from 0.
    Param(u16),
}

/// How a marker of [`Constants`] begins.
pub const CONSTANT: [u8; 4] = [0xff, 0xff, 0xff, 0xfe];

impl Constants {
    /// The marker with a number.
    pub fn marker(number: usize) -> Option<[u8; 8]> {
        let mut marker = [0; 8];
        marker[..4].copy_from_slice(&CONSTANT);
        marker[4..].copy_from_slice(&u32::try_from(number).ok()?.to_be_bytes());
        Some(marker)
    }
}

impl std::fmt::Debug for Constants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Constants({})", self.0.len())
    }
}

/// Where the server's answer says whose row a cell stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowTenant {
    /// Nowhere: the table has no tenant column, or it is out of reach.
    Unknown,
    /// In front of the cell: the text was edited to `rowseal.with_tenant(cell, tenant)`.
    Prefix,
    /// In a column of its own, counted from 0, as text. It stands behind the client's columns and is hidden from it.
    Column(usize),
}

/// The first step of a statement in two steps. Of an UPDATE: locks the rows and says whose they are. Of an INSERT ... SELECT:
/// its query.
#[derive(Debug, Clone)]
pub struct LockQuery {
    /// For an UPDATE, gives three columns for each row: tableoid, ctid, tenant as text (NULL where the tenant does not come from a
    /// column). Parameters have the same numbers as in the rewritten statement; `Piece::Value` as there.
    pub pieces: Vec<Piece>,
    /// Numbers (from 1) of the server-side parameters that `pieces` uses.
    pub uses: Vec<u16>,
    /// How the tenant is found; `None`: in the third column of each row.
    pub tenant: Option<TenantSource>,
    /// Set when it locks nothing and is the query of an INSERT ... SELECT.
    pub copies: Option<Arc<Copies>>,
}

/// What the query of an INSERT ... SELECT gives.
#[derive(Debug)]
pub struct Copies {
    /// Its columns, one for each target column.
    pub columns: Arc<[ResultColumn]>,
    /// How many columns the server sends behind those: tenants.
    pub hidden: usize,
    /// What is made of each.
    pub targets: Vec<Copied>,
}

/// What is made of a column of such a query.
#[derive(Debug, Clone)]
pub enum Copied {
    /// A value of a plain column, of this type.
    Plain {
        /// OID of the base type of the target column.
        type_oid: u32,
    },
    /// A cell of a sealed one.
    Sealed,
    /// A cell of a value that is stored unsealed.
    Unsealed(Arc<Column>),
    /// Nothing: a constant that the proxy has is sealed in its place.
    Constant,
}
