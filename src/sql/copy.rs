//! COPY of a table or of the rows of a query, from and to the client. Its options are in `copy_options`.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::Context;
use super::build::Planner;
use super::copy_options::{Cursor, Said, stand_beside_cells};
use super::expr::unsupported;
use super::ident::{folded, quote};
use super::plan::{Constants, Copy, CopyIn, CopyOut, Edit, Piece, ResultColumn, Role, RowTenant, Source};
use super::plan::{StatementPlan, TenantSource, ValueSlot};
use super::question::Asking;
use super::scope::tenant_attribute;
use super::sealed::{Ty, attribute_type};
use super::tenant;
use super::text::Text;
use super::utility::refuse_statement;
use super::write::{default_refused, known};
use crate::catalog::{Attribute, Relation};
use crate::policy::TenantRule;
use crate::refusal::Refusal;
use crate::types::Exact;
use crate::wire::copy::{Format, Header, Options};

/// Plans a COPY that names a sealed table.
pub(super) fn plan(
    text: &Text<'_>,
    tokens: &Range<usize>,
    (context, touched): (&Context<'_>, &Relation),
    asking: &mut Asking,
) -> Result<StatementPlan, Refusal> {
    let mut cursor = Cursor { text, at: tokens.start + 1, end: tokens.end };
    if cursor.token() == Some(&Token::LParen) {
        return query(cursor, tokens, (context, touched), asking);
    }
    let mut said = if cursor.takes("binary") { Said::binary() } else { Said::default() };
    let name = Name::read(&mut cursor).ok_or_else(|| unsupported("this table name"))?;
    let resolved = context.catalog.resolve(context.search_path, name.schema.as_deref(), &name.name);
    let columns_at = cursor.at;
    let given = if cursor.token() == Some(&Token::LParen) {
        Some(cursor.names(true).ok_or_else(|| unsupported("this column list"))?)
    } else {
        None
    };
    let source_end = text.tokens[cursor.at - 1].range.end;
    let is_in = direction(&mut cursor, touched)?;
    let options_at = cursor.at;
    said.read(&mut cursor)?;
    let options_end = cursor.at;
    let planner = Planner::new(context, text, tokens.clone());
    let Some(base) = resolved.filter(|base| context.catalog.exposes(base)) else {
        // The sealed table is named elsewhere: in a condition, say.
        let rest = cursor.at == cursor.end;
        let empty = StatementPlan { range: planner.bytes(), ..StatementPlan::default() };
        return if rest { Ok(empty) } else { Err(refuse_statement("this COPY", touched)) };
    };
    if !is_in && base.kind == 'p' {
        // Postgres refuses it in its own words.
        return Ok(StatementPlan { range: planner.bytes(), ..StatementPlan::default() });
    }
    let columns = columns(base, given.as_deref(), context)?;
    let where_at = cursor.at;
    if is_in {
        condition(&mut cursor, base)?;
    }
    if cursor.at != cursor.end {
        return Err(refuse_statement("this form of COPY", base));
    }
    if columns.iter().all(|column| column.sealed.is_none()) {
        return Ok(StatementPlan { range: planner.bytes(), ..StatementPlan::default() });
    }
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let options = said.options(Some(&names))?;
    let in_binary = said.in_binary(&options, is_in).map(|put| in_place(text, options_at..options_end, put));
    let form = Form { options, in_binary, names };
    if is_in {
        let list_at = if given.is_some() { None } else { Some(source_end) };
        return rows_in(planner, (base, &columns), (list_at, where_at..tokens.end), form);
    }
    let start = text.tokens[name.first].range.start;
    let table = start..text.tokens[columns_at - 1].range.end;
    rows_out(planner, (base, &columns), (table, start..source_end), form)
}

/// In which form rows are carried.
struct Form {
    options: Options,
    /// What puts the options of the binary format in the place of those that are written, where that is possible.
    in_binary: Option<Edit>,
    names: Vec<String>,
}

/// COPY ... FROM: the list of columns is written out behind `list_at` where there is none.
fn rows_in(
    mut planner: Planner<'_>,
    (base, columns): (&Relation, &[&Attribute]),
    (list_at, condition): (Option<usize>, Range<usize>),
    Form { options, in_binary, names }: Form,
) -> Result<StatementPlan, Refusal> {
    if let Some(at) = list_at {
        let list: Vec<String> = names.iter().map(|name| quote(name)).collect();
        planner.edit(at..at, format!(" ({})", list.join(", ")));
    }
    // What stands before it in the same text may change a type.
    let is_first = planner.tokens.start == 0;
    let binary = in_binary.as_ref().filter(|_| is_first).and_then(|_| exact(columns));
    if binary.is_none() && options.format != Format::Binary {
        stand_beside_cells(&options)?;
    }
    if binary.is_some() {
        planner.edits.extend(in_binary);
        super::copy_guard::guard(&mut planner, (base, columns), condition);
    }
    let row = Box::new(row_plan(base, columns)?);
    let copy = Copy::In(CopyIn { table: base.name.clone(), names, options, row, binary });
    with_copy(planner, copy)
}

/// COPY ... TO: a query stands in the place of the table.
fn rows_out(
    mut planner: Planner<'_>,
    (base, columns): (&Arc<Relation>, &[&Attribute]),
    (table, source): (Range<usize>, Range<usize>),
    Form { options, in_binary, names }: Form,
) -> Result<StatementPlan, Refusal> {
    let table = &planner.text.text[table];
    let (list, result, hidden) = selected(base, columns, in_binary.is_some());
    planner.edit(source, format!("(SELECT {list} FROM ONLY {table})"));
    let is_binary = in_binary.is_some() || options.format == Format::Binary;
    if !is_binary {
        stand_beside_cells(&options)?;
    }
    planner.edits.extend(in_binary);
    let names = if options.header == Header::None { Vec::new() } else { names };
    with_copy(planner, Copy::Out(CopyOut { columns: result.into(), hidden, options, is_binary, names }))
}

/// Options in place of those that are written.
fn in_place(text: &Text<'_>, written: Range<usize>, options: &str) -> Edit {
    let piece = |text: String| vec![Piece::Text(text)];
    let behind = text.tokens[written.start - 1].range.end;
    if written.is_empty() {
        return Edit { range: behind..behind, with: piece(format!(" {options}")) };
    }
    let range = text.tokens[written.start].range.start..text.tokens[written.end - 1].range.end;
    Edit { range, with: piece(options.to_owned()) }
}

/// How the columns' fields are read for rows in binary; `None` where one of them means something to the server alone.
fn exact(columns: &[&Attribute]) -> Option<Vec<Option<Exact>>> {
    let read = |column: &&Attribute| match (&column.sealed, column.is_cell) {
        (Some(_), _) => Some(None),
        (None, true) => None,
        (None, false) => Exact::of(column.type_oid).map(Some),
    };
    columns.iter().map(read).collect()
}

fn with_copy(planner: Planner<'_>, copy: Copy) -> Result<StatementPlan, Refusal> {
    let plan = planner.finish(None)?;
    Ok(StatementPlan { copy: Some(Arc::new(copy)), ..plan })
}

/// `COPY (query) TO STDOUT`.
fn query(
    mut cursor: Cursor<'_>,
    tokens: &Range<usize>,
    (context, touched): (&Context<'_>, &Relation),
    asking: &mut Asking,
) -> Result<StatementPlan, Refusal> {
    let text = cursor.text;
    let close = super::named::closing(text, cursor.at, tokens.end).ok_or_else(|| unsupported("this COPY"))?;
    let inner = cursor.at + 1..close;
    if inner.is_empty() {
        return Err(unsupported("this COPY"));
    }
    cursor.at = close + 1;
    if direction(&mut cursor, touched)? {
        return Err(refuse_statement("this form of COPY", touched));
    }
    let (mut said, options_at) = (Said::default(), cursor.at);
    said.read(&mut cursor)?;
    if cursor.at != cursor.end {
        return Err(refuse_statement("this form of COPY", touched));
    }
    let options_end = cursor.at;
    let is_read = is_query(text, inner.clone());
    let within = text.tokens[inner.start].range.start..text.tokens[inner.end - 1].range.end;
    let plan = super::plan_statement(text, inner, (context, asking))?;
    let range = Planner::new(context, text, tokens.clone()).bytes();
    if !plan.is_rewritten() {
        return Ok(StatementPlan { range, tested: plan.tested, ..StatementPlan::default() });
    }
    let columns = match &plan.result {
        Some(columns) if plan.lock.is_none() && plan.named.is_none() && plan.copy.is_none() => columns.clone(),
        _ => return Err(refuse_statement("COPY of this statement", touched)),
    };
    let options = said.options(None)?;
    let in_binary = said.in_binary(&options, false).filter(|_| is_read && options.header == Header::None);
    let is_binary = in_binary.is_some() || options.format == Format::Binary;
    if !is_binary {
        stand_beside_cells(&options)?;
    }
    let mut edits = plan.edits;
    if let Some(put) = in_binary {
        let insert = |at: usize, text: String| Edit { range: at..at, with: vec![Piece::Text(text)] };
        if columns.iter().any(|column| !matches!(column, ResultColumn::Sealed { .. })) {
            let (before, after) = as_text(&columns, plan.hidden);
            edits.insert(0, insert(within.start, before));
            edits.push(insert(within.end, after));
        }
        edits.push(in_place(text, options_at..options_end, put));
    }
    let hidden = plan.hidden;
    let copy = Some(Arc::new(Copy::Out(CopyOut { columns, hidden, options, is_binary, names: Vec::new() })));
    Ok(StatementPlan { range, edits, result: None, hidden: 0, copy, ..plan })
}

/// True for a statement that may stand as a subquery: it reads, and changes or locks nothing.
fn is_query(text: &Text<'_>, tokens: Range<usize>) -> bool {
    const OTHERS: [&str; 6] = ["insert", "update", "delete", "merge", "into", "for"];
    let begins = |word: &str| matches!(word, "select" | "values" | "with");
    text.word(tokens.start).is_some_and(|word| begins(&word))
        && tokens.into_iter().all(|at| text.word(at).is_none_or(|word| !OTHERS.contains(&word.as_str())))
}

/// What stands around a query so that its plain columns come as text. It is not taken apart there by the planner: each
/// of its values is computed once.
fn as_text(columns: &[ResultColumn], hidden: usize) -> (String, String) {
    let names: Vec<String> = (0..columns.len() + hidden).map(|at| format!("c{at}")).collect();
    let list: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(at, name)| match columns.get(at) {
            Some(ResultColumn::Plain | ResultColumn::Built(_)) => text_of(name),
            Some(ResultColumn::Sealed { .. }) | None => name.clone(),
        })
        .collect();
    let before = format!("SELECT {} FROM (SELECT * FROM (", list.join(", "));
    (before, format!(") AS copied OFFSET 0) AS copied ({})", names.join(", ")))
}

/// The text that the type's own output function gives: a cast is another thing for some types.
fn text_of(value: &str) -> String {
    format!("CASE WHEN {value} IS NOT DISTINCT FROM NULL THEN NULL ELSE pg_catalog.concat({value}) END")
}

/// True for FROM STDIN, false for TO STDOUT.
fn direction(cursor: &mut Cursor<'_>, relation: &Relation) -> Result<bool, Refusal> {
    let is_in = cursor.takes("from");
    if !is_in && !cursor.takes("to") {
        return Err(refuse_statement("this form of COPY", relation));
    }
    // Postgres takes either word in either direction.
    if cursor.takes("stdin") || cursor.takes("stdout") {
        return Ok(is_in);
    }
    let what = if cursor.takes("program") { "COPY with a program" } else { "COPY with a file of the server" };
    Err(refuse_statement(what, relation).hint("Use COPY FROM STDIN or TO STDOUT, which is \\copy in psql."))
}

/// The name of a table as it is written.
struct Name {
    /// Its first token.
    first: usize,
    schema: Option<String>,
    name: String,
}

impl Name {
    fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        let first = cursor.at;
        let mut parts = vec![cursor.name()?];
        while cursor.takes_token(&Token::Period) {
            parts.push(cursor.name()?);
        }
        let name = parts.pop()?;
        (parts.len() <= 2).then(|| Name { first, schema: parts.pop(), name })
    }
}

/// The columns that are copied, in order.
fn columns<'r>(
    base: &'r Arc<Relation>,
    given: Option<&[String]>,
    context: &Context<'_>,
) -> Result<Vec<&'r Attribute>, Refusal> {
    if !matches!(base.kind, 'r' | 'p') {
        return Err(refuse_statement("COPY of a view or foreign table", base)
            .hint("Use COPY (SELECT ...) TO STDOUT, or the table behind it."));
    }
    let columns: Vec<&Attribute> = match given {
        None => base.columns.iter().filter(|column| !column.is_generated).collect(),
        Some(names) => {
            let found: Result<Vec<_>, _> = names.iter().map(|name| known(base, name)).collect();
            let found: Option<Vec<_>> = found?.into_iter().collect();
            found.ok_or_else(|| unsupported("a column that the table does not have"))?
        }
    };
    for column in &columns {
        if let Ty::Blocked(refusal) = attribute_type(base, column, context.catalog) {
            return Err(refusal);
        }
    }
    Ok(columns)
}

/// Steps over WHERE. Its condition is the server's where it names neither a sealed column nor the row as a whole, nor
/// anything that may be a misspelt column.
fn condition(cursor: &mut Cursor<'_>, base: &Relation) -> Result<(), Refusal> {
    if !cursor.takes("where") {
        return Ok(());
    }
    while cursor.at < cursor.end {
        if let Some(Token::Word(word)) = cursor.token() {
            let name = folded(&word.value, word.quote_style.is_some());
            let is_cell = |column: &Attribute| column.name == name && (column.is_cell || column.sealed.is_some());
            if name == base.name || base.columns.iter().any(is_cell) {
                return Err(refuse_statement("a condition of COPY over sealed columns", base));
            }
            if word.keyword == Keyword::NoKeyword && base.attribute(&name).is_none() && !is_no_column(cursor) {
                return Err(refuse_statement("a condition of COPY with a name that is not known", base));
            }
        }
        cursor.at += 1;
    }
    Ok(())
}

/// True for a name that is a function's or a type's by what stands around it.
fn is_no_column(cursor: &Cursor<'_>) -> bool {
    let before = cursor.at.checked_sub(1);
    cursor.text.token(cursor.at + 1) == Some(&Token::LParen)
        || before.is_some_and(|before| {
            cursor.text.token(before) == Some(&Token::DoubleColon) || cursor.text.word(before).as_deref() == Some("as")
        })
}

/// How the sealed values of one row are made: the fields of the row are its parameters.
fn row_plan(base: &Relation, columns: &[&Attribute]) -> Result<StatementPlan, Refusal> {
    let place = |at: usize| u16::try_from(at).map_err(|_| unsupported("so many columns"));
    for column in &base.columns {
        let given = columns.iter().any(|given| given.attnum == column.attnum);
        if let (Some(sealed), true, false) = (&column.sealed, column.has_default, given) {
            return Err(default_refused(sealed));
        }
    }
    let tenant = match base.policy.as_ref().map(|policy| &policy.tenant) {
        Some(TenantRule::Session) => Some(TenantSource::Session),
        Some(TenantRule::Fixed(name)) => Some(TenantSource::Fixed(name.clone())),
        Some(TenantRule::Column(name)) => match columns.iter().position(|column| column.name == *name) {
            Some(at) => Some(TenantSource::Param {
                index: place(at)?,
                type_oid: columns[at].base_type_oid,
                described_oid: columns[at].base_type_oid,
                may_be_null: false,
            }),
            None => None,
        },
        None => None,
    };
    let mut values = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let Some(sealed) = &column.sealed else { continue };
        let tenant = tenant.clone().ok_or_else(|| {
            tenant::no_tenant(sealed).hint("Name the tenant column among the columns that are copied.")
        })?;
        let role = Role::Seal { column: Arc::clone(sealed), row: 0, tenant };
        let source = Source::Param(place(at)?);
        values.push(ValueSlot { source, role, param: 0, described: sealed.logical, cast: false });
    }
    Ok(StatementPlan { values, sealed_rows: 1, ..StatementPlan::default() })
}

/// The select list in place of the table, what it gives, and how many columns stand behind those: the tenant of the row.
/// `in_text`: plain columns come as text among binary ones.
fn selected(base: &Arc<Relation>, columns: &[&Attribute], in_text: bool) -> (String, Vec<ResultColumn>, usize) {
    let tenant = tenant_attribute(base).map(|column| quote(&column.name));
    let (mut list, mut result) = (Vec::new(), Vec::new());
    for column in columns {
        let name = quote(&column.name);
        let Some(sealed) = &column.sealed else {
            list.push(if in_text { text_of(&name) } else { name });
            result.push(ResultColumn::Plain);
            continue;
        };
        list.push(name);
        result.push(ResultColumn::Sealed {
            column: Arc::clone(sealed),
            table_oid: base.oid,
            attnum: column.attnum,
            described: sealed.logical,
            tenant: if tenant.is_some() { RowTenant::Column(columns.len()) } else { RowTenant::Unknown },
            constants: Constants::default(),
        });
    }
    let hidden = usize::from(tenant.is_some());
    list.extend(tenant.map(|tenant| format!("{tenant}::text")));
    (list.join(", "), result, hidden)
}
