//! Statements that give a query a name, and those that use it by that name: PREPARE and EXECUTE, DECLARE and FETCH.
//!
//! What a name stands for is known to the session alone. A plan says which name is given or used; the session keeps
//! the names, and [`call`] makes the plan of one EXECUTE.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::Statement;
use sqlparser::tokenizer::Token;

use super::Context;
use super::build::Planner;
use super::ident::folded;
use super::operand::{Kind, Shape, operand};
use super::plan::{Argument, Call, EachTenant, Edit, Named, ParamRole, Piece, Role, Source};
use super::plan::{StatementPlan, TenantSource, Value};
use super::question::Asking;
use super::tenant;
use super::text::Text;
use crate::refusal::{Class, Refusal};

/// Plans a statement that has to do with names; `None` when it does not.
pub(super) fn plan(
    text: &Text<'_>,
    tokens: &Range<usize>,
    (context, asking): (&Context<'_>, &mut Asking),
) -> Result<Option<StatementPlan>, Refusal> {
    let word = |at: usize| if at < tokens.end { text.word(at).unwrap_or_default() } else { String::new() };
    match word(tokens.start).as_str() {
        "prepare" if word(tokens.start + 1) != "transaction" => prepare(text, tokens, (context, asking)).map(Some),
        "execute" => execute(text, tokens, context).map(Some),
        "declare" => declare(text, tokens, (context, asking)).map(Some),
        "fetch" => fetch(text, tokens, context).map(Some),
        "explain" | "create" => Ok(mention(text, tokens, context)),
        _ => Ok(None),
    }
}

fn prepare(
    text: &Text<'_>,
    tokens: &Range<usize>,
    (context, asking): (&Context<'_>, &mut Asking),
) -> Result<StatementPlan, Refusal> {
    let name = name(text, tokens.start + 1).ok_or_else(unread)?;
    let mut at = tokens.start + 2;
    let mut types = Vec::new();
    if text.token(at) == Some(&Token::LParen) {
        let close = closing(text, at, tokens.end).ok_or_else(unread)?;
        types = listed(text, at, close);
        at = close + 1;
    }
    if at >= tokens.end || text.word(at).as_deref() != Some("as") {
        return Err(unread());
    }
    let declared: Vec<u32> = types.iter().map(|range| super::keyed::named(&text.text[range.clone()])).collect();
    let declared = Context { declared: &declared, ..*context };
    let inner = super::plan_statement(text, at + 1..tokens.end, (&declared, asking))?;
    if inner.named.is_some() {
        return Err(unread());
    }
    let outer = Planner::new(context, text, tokens.clone()).bytes();
    if !inner.is_rewritten() {
        let named = Some(Named::Prepare { name, plan: None });
        return Ok(StatementPlan { range: outer, named, tested: inner.tested, ..StatementPlan::default() });
    }
    if inner.lock.is_some() {
        return Err(Refusal::new(
            Class::NotSupported,
            "PREPARE of a statement that runs in two steps is not supported",
        )
        .hint("Send the statement itself; of an UPDATE, pin the row's primary key and tenant."));
    }
    let mut edits: Vec<Edit> = typed(&types, &inner);
    let numbered = |piece: &Piece| match piece {
        Piece::Value(slot) => Piece::Text(format!("${}{}", inner.values[*slot].param, cast(&inner.values[*slot].role))),
        Piece::Text(text) => Piece::Text(text.clone()),
    };
    edits.extend(
        inner.edits.iter().map(|e| Edit { range: e.range.clone(), with: e.with.iter().map(numbered).collect() }),
    );
    let named = Some(Named::Prepare { name, plan: Some([inner].into()) });
    Ok(StatementPlan { range: outer, edits, named, ..StatementPlan::default() })
}

/// The type of a parameter that the proxy computes, where what stands around it may give it none, or another one.
fn cast(role: &Role) -> &'static str {
    match role {
        Role::Seal { .. } | Role::Shown { .. } => "::pg_catalog.bytea",
        Role::SealEach { .. } => "::pg_catalog.bytea[]",
        _ => "",
    }
}

/// The types of PREPARE with bytea, or an array of it, for the parameters that the proxy computes.
fn typed(types: &[Range<usize>], inner: &StatementPlan) -> Vec<Edit> {
    let stored = |at: usize| match inner.params.get(at) {
        Some(ParamRole::Sealed(..)) => Some("pg_catalog.bytea"),
        Some(ParamRole::SealedMany(..)) => Some("pg_catalog.bytea[]"),
        Some(ParamRole::Plain | ParamRole::Both(_) | ParamRole::Unused) | None => None,
    };
    let edit = |(at, range): (usize, &Range<usize>)| {
        Some(Edit { range: range.clone(), with: vec![Piece::Text(stored(at)?.to_owned())] })
    };
    types.iter().enumerate().filter_map(edit).collect()
}

fn execute(text: &Text<'_>, tokens: &Range<usize>, context: &Context<'_>) -> Result<StatementPlan, Refusal> {
    let name = name(text, tokens.start + 1).ok_or_else(unread)?;
    let mut arguments = Vec::new();
    let mut end = text.tokens[tokens.start + 1].range.end;
    if text.token(tokens.start + 2) == Some(&Token::LParen) {
        let close = closing(text, tokens.start + 2, tokens.end).ok_or_else(unread)?;
        if close + 1 != tokens.end {
            return Err(unread());
        }
        let Ok(Statement::Execute { parameters, .. }) = text.parse(tokens) else { return Err(unread()) };
        let ranges = listed(text, tokens.start + 2, close);
        if ranges.len() != parameters.len() {
            return Err(unread());
        }
        for (range, expr) in ranges.into_iter().zip(&parameters) {
            let value = match operand(text, expr).filter(|o| o.range == range && o.casts.is_empty()).map(|o| o.shape) {
                Some(Shape::Literal(literal, kind)) if reads_alike(&literal, kind) => Value::Literal(literal),
                Some(Shape::Null) => Value::Null,
                Some(Shape::Param(_) | Shape::Literal(..)) | None => Value::Expression,
            };
            arguments.push(Argument { range, value });
        }
        end = text.tokens[close].range.end;
    } else if tokens.start + 2 != tokens.end {
        return Err(unread());
    }
    let range = Planner::new(context, text, tokens.clone()).bytes();
    let after_name = text.tokens[tokens.start + 1].range.end..end;
    let named = Some(Named::Execute(Arc::new(Call { name, arguments, list: after_name })));
    Ok(StatementPlan { range, named, ..StatementPlan::default() })
}

/// True for a literal that gives the same value whether it is read as its parameter's type or first as its own.
fn reads_alike(literal: &str, kind: Kind) -> bool {
    let digits = literal.strip_prefix('-').unwrap_or(literal);
    match kind {
        Kind::Quoted | Kind::Bool => true,
        Kind::Number => digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())),
        Kind::QuotedElements | Kind::NumberElements | Kind::BoolElements => false,
    }
}

fn declare(
    text: &Text<'_>,
    tokens: &Range<usize>,
    (context, asking): (&Context<'_>, &mut Asking),
) -> Result<StatementPlan, Refusal> {
    const OPTIONS: &[&str] =
        &["binary", "asensitive", "insensitive", "no", "scroll", "cursor", "with", "without", "hold"];
    let name = name(text, tokens.start + 1).ok_or_else(unread)?;
    let mut at = tokens.start + 2;
    let mut binary = false;
    while at < tokens.end {
        let word = text.word(at).unwrap_or_default();
        at += 1;
        match word.as_str() {
            "for" => break,
            "binary" => binary = true,
            option if OPTIONS.contains(&option) => {}
            _ => return Err(unread()),
        }
    }
    let mut plan = super::plan_statement(text, at..tokens.end, (context, asking))?;
    if plan.named.is_some() || plan.lock.is_some() {
        return Err(unread());
    }
    let columns = if plan.is_rewritten() {
        plan.result.take()
    } else {
        // What passes has parameters too, and they are bound to the cursor.
        let tested = std::mem::take(&mut plan.tested);
        plan = StatementPlan { tested, ..Planner::new(context, text, at..tokens.end).finish(None)? };
        None
    };
    plan.named = Some(Named::Declare { name, binary, columns, hidden: std::mem::take(&mut plan.hidden) });
    plan.result = None;
    plan.range = Planner::new(context, text, tokens.clone()).bytes();
    Ok(plan)
}

/// The name of the cursor is the last word, whatever the direction.
fn fetch(text: &Text<'_>, tokens: &Range<usize>, context: &Context<'_>) -> Result<StatementPlan, Refusal> {
    let last = tokens.end.checked_sub(1).filter(|last| *last > tokens.start);
    let name = last.and_then(|last| name(text, last)).ok_or_else(unread)?;
    let range = Planner::new(context, text, tokens.clone()).bytes();
    Ok(StatementPlan { range, named: Some(Named::Fetch { name }), ..StatementPlan::default() })
}

/// EXPLAIN EXECUTE, CREATE TABLE AS EXECUTE.
fn mention(text: &Text<'_>, tokens: &Range<usize>, context: &Context<'_>) -> Option<StatementPlan> {
    let at = tokens.clone().find(|at| text.word(*at).as_deref() == Some("execute"))?;
    let name = name(text, at + 1)?;
    let range = Planner::new(context, text, tokens.clone()).bytes();
    let keyword = matches!(&*name, "function" | "procedure");
    (!keyword).then(|| StatementPlan { range, named: Some(Named::Mention { name }), ..StatementPlan::default() })
}

/// The prepared statements that a text uses with arguments, but for those that it prepares itself.
///
/// # Errors
/// 0A000 for a text that cannot be read.
pub fn used_with_values(text: &str) -> Result<Vec<Arc<str>>, Refusal> {
    let read = Text::read(text).map_err(|_| unread())?;
    let (mut given, mut used) = (Vec::new(), Vec::new());
    for tokens in read.statements() {
        let at = match read.word(tokens.start).as_deref() {
            Some("prepare") => {
                given.extend(name(&read, tokens.start + 1));
                continue;
            }
            Some("execute") => Some(tokens.start),
            Some("explain" | "create") => tokens.clone().find(|at| read.word(*at).as_deref() == Some("execute")),
            _ => None,
        };
        let Some(at) = at.filter(|at| at + 2 < tokens.end && read.token(at + 2) == Some(&Token::LParen)) else {
            continue;
        };
        let Some(name) = name(&read, at + 1) else { continue };
        if name.contains(char::REPLACEMENT_CHARACTER) {
            return Err(unread());
        }
        if !given.contains(&name) && !used.contains(&name) {
            used.push(name);
        }
    }
    Ok(used)
}

/// The plan of one EXECUTE of a statement that was prepared with `plan`: the arguments take the place of the
/// parameters. Postgres does not look at the arguments of a statement without parameters: they are left out.
///
/// # Errors
/// 0A000 when a sealed argument is an expression, 42601 for another number of arguments than parameters.
pub fn call(plan: &StatementPlan, call: &Call) -> Result<StatementPlan, Refusal> {
    if call.arguments.len() != plan.params.len() && !plan.params.is_empty() {
        return Err(Refusal::new(
            Class::Syntax,
            format!("wrong number of parameters for prepared statement \"{}\"", call.name),
        )
        .detail(format!("Expected {} parameters but got {}.", plan.params.len(), call.arguments.len())));
    }
    let mut values = plan.values.clone();
    for slot in &mut values {
        if let Source::Param(index) = slot.source {
            slot.source = source(call, index)?;
        }
        if let Role::Seal { tenant, .. } | Role::Search { tenant, .. } = &mut slot.role
            && let Some(given) = tenant_given(call, tenant)?
        {
            *tenant = given;
        }
        if let Role::SealEach { tenants, .. } = &mut slot.role {
            match tenants {
                EachTenant::Same(same) => {
                    if let Some(given) = tenant_given(call, same)? {
                        *same = given;
                    }
                }
                EachTenant::Param { index, type_oid, cut } => {
                    let (array, type_oid, cut) = (literal(call, *index)?, *type_oid, *cut);
                    *tenants = EachTenant::Literal { array, type_oid, cut };
                }
                EachTenant::Literal { .. } => {}
            }
        }
        if let Role::SearchMany { tenants, .. } = &mut slot.role {
            for tenant in tenants {
                if let Some(given) = tenant_given(call, tenant)? {
                    *tenant = given;
                }
            }
        }
    }
    let mut with = vec![Piece::Text("(".to_owned())];
    let mut after = call.list.clone();
    let mut edits = Vec::new();
    for number in 0..usize::from(plan.server_params) {
        if number > 0 {
            with.push(Piece::Text(", ".to_owned()));
        }
        let computed = values.iter().position(|slot| usize::from(slot.param) == number + 1);
        match (computed, call.arguments.get(number)) {
            (Some(slot), _) => with.push(Piece::Value(slot)),
            // The client's own text stays in its place.
            (None, Some(argument)) => {
                edits.push(Edit { range: after.start..argument.range.start, with: std::mem::take(&mut with) });
                after.start = argument.range.end;
            }
            (None, None) => with.push(Piece::Text("NULL".to_owned())),
        }
    }
    with.push(Piece::Text(")".to_owned()));
    if plan.server_params > 0 {
        edits.push(Edit { range: after, with });
    } else if !after.is_empty() {
        edits.push(Edit { range: after, with: Vec::new() });
    }
    Ok(StatementPlan {
        edits,
        values,
        result: plan.result.clone(),
        hidden: plan.hidden,
        keys: plan.keys.iter().map(|(index, _)| Ok((*index, source(call, *index)?))).collect::<Result<_, _>>()?,
        sealed_rows: plan.sealed_rows,
        compared: plan.compared.clone(),
        tested: plan.tested.clone(),
        ..StatementPlan::default()
    })
}

fn source(call: &Call, index: u16) -> Result<Source, Refusal> {
    match call.arguments.get(usize::from(index)).map(|argument| &argument.value) {
        Some(Value::Literal(literal)) => Ok(Source::Literal(literal.clone())),
        Some(Value::Null) => Ok(Source::Rows),
        Some(Value::Expression) | None => Err(not_literal(call, index)),
    }
}

/// The tenant that an argument names, where a parameter does; `None` where it is another one's to say.
fn tenant_given(call: &Call, tenant: &TenantSource) -> Result<Option<TenantSource>, Refusal> {
    let TenantSource::Param { index, type_oid, described_oid, may_be_null } = tenant else { return Ok(None) };
    match call.arguments.get(usize::from(*index)).map(|argument| &argument.value) {
        Some(Value::Null) if *may_be_null => Ok(Some(TenantSource::Nobody)),
        _ => {
            let given = literal(call, *index)?;
            let tenant = tenant::literal((*type_oid, *described_oid), &given, Kind::Quoted);
            tenant.map(Some).ok_or_else(|| not_literal(call, *index))
        }
    }
}

fn literal(call: &Call, index: u16) -> Result<Arc<str>, Refusal> {
    match call.arguments.get(usize::from(index)).map(|argument| &argument.value) {
        Some(Value::Literal(literal)) => Ok(literal.clone()),
        _ => Err(not_literal(call, index)),
    }
}

fn not_literal(call: &Call, index: u16) -> Refusal {
    Refusal::new(Class::NotSupported, format!("argument {} of EXECUTE {} must be a literal", index + 1, call.name))
        .hint("A sealed value, and the tenant it is for, must be known to the proxy.")
}

/// The name at a token, folded.
fn name(text: &Text<'_>, at: usize) -> Option<Arc<str>> {
    match text.token(at)? {
        Token::Word(word) => Some(folded(&word.value, word.quote_style.is_some()).into()),
        _ => None,
    }
}

/// The parenthesis that closes the one at `open`.
pub(super) fn closing(text: &Text<'_>, open: usize, end: usize) -> Option<usize> {
    let mut depth = 0usize;
    for at in open..end {
        match text.token(at)? {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The byte ranges of what stands between the commas of a list in parentheses.
fn listed(text: &Text<'_>, open: usize, close: usize) -> Vec<Range<usize>> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0usize, open + 1);
    for at in open + 1..=close {
        match text.token(at) {
            Some(Token::LParen | Token::LBracket) => depth += 1,
            Some(Token::RParen | Token::RBracket) if at < close => depth = depth.saturating_sub(1),
            Some(Token::Comma) if depth > 0 => continue,
            Some(Token::Comma | Token::RParen) => {
                if start < at {
                    found.push(text.tokens[start].range.start..text.tokens[at - 1].range.end);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

fn unread() -> Refusal {
    Refusal::new(Class::NotSupported, "a statement on prepared statements or cursors cannot be read")
        .hint("Write the statement in a simpler form.")
}
