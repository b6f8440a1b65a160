//! What the server is asked before a statement goes to it: where a name in it means nothing that the proxy knows, the
//! value beside it may be meant for a sealed column of nearly that name. The server is given the statement without its
//! values to analyse, and says itself what is wrong; where nothing is, the statement follows.
use std::ops::Range;
use std::sync::Arc;

use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::expr::is_name;
use super::plan::{Edit, Piece, Role, StatementPlan, ValueSlot};
use super::render::{Positions, render_statement_extended};
use super::scope::Known;
use super::text::{Text, is_string};
use crate::refusal::{Class, Refusal};

/// A question to the server. Its answer is an error, which is the client's, or nothing.
#[derive(Debug, Clone)]
pub enum Question {
    /// Whether a statement means something, without its values.
    Names {
        /// The text to be analysed, and never to be executed.
        text: Arc<str>,
        /// Where its pieces stand in the client's text.
        positions: Arc<Positions>,
    },
    /// Whether there is a prepared statement of this name.
    Prepared(Arc<str>),
}

/// The questions that a text raises.
#[derive(Debug, Default)]
pub(super) struct Asking {
    pub(super) questions: Vec<Question>,
    /// True when a name would be known if the schema were: it may have changed a moment ago.
    pub(super) reload: bool,
}

/// What stands in place of a value.
enum StandIn {
    Text(&'static str),
    /// The value stays: it is a column's number.
    Itself,
}

/// Adds the question that a statement raises which has been walked: with a name that is not known, and with values, or
/// refused.
///
/// # Errors
/// The refusal of a statement whose values cannot all be taken out.
pub(super) fn raise(planner: &Planner<'_>, asking: &mut Asking, refused: Option<&Refusal>) -> Result<(), Refusal> {
    let tokens = planner.tokens.clone();
    let has_value = tokens.clone().any(|at| is_value(planner.text, at));
    if planner.unknown == Known::Yes || !(has_value || refused.is_some()) {
        return Ok(());
    }
    // What was not walked to its end may have a value in double quotes.
    if refused.is_some() && tokens.clone().any(|at| is_odd(planner.text, at)) {
        return Ok(());
    }
    let stripped = without_values(planner).ok_or_else(unclear)?;
    let rendered = render_statement_extended(planner.text.text, &stripped);
    let positions = Arc::new(rendered.positions(planner.text.text));
    asking.questions.push(Question::Names { text: rendered.text.into(), positions });
    let late = refused.is_some_and(|refusal| refusal.class == Class::UnknownColumn);
    asking.reload |= planner.unknown == Known::No || late;
    Ok(())
}

/// The statement as it would be sent, with other values in place of its own; `None` where it is not clear what could
/// stand there.
fn without_values(walked: &Planner<'_>) -> Option<StatementPlan> {
    let (text, tokens) = (walked.text, &walked.tokens);
    let mut planner = Planner::new(walked.context, text, tokens.clone());
    planner.edits = walked.edits.iter().map(|edit| without_slots(edit, &walked.values)).collect();
    planner.edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let rewritten: Vec<Range<usize>> = planner.edits.iter().map(|edit| edit.range.clone()).collect();
    if rewritten.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return None;
    }
    for at in tokens.clone().filter(|at| is_value(text, *at)) {
        let range = text.tokens[at].range.clone();
        let before = rewritten.partition_point(|edit| edit.start <= range.start);
        if rewritten[..before].last().is_some_and(|edit| range.end <= edit.end) {
            continue;
        }
        match stand_in(text, tokens, at)? {
            StandIn::Text(with) => planner.edit(range, with),
            StandIn::Itself => {}
        }
    }
    planner.edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    Some(StatementPlan { range: planner.bytes(), edits: planner.edits, ..StatementPlan::default() })
}

/// An edit with NULL in place of what the proxy would compute.
fn without_slots(edit: &Edit, values: &[ValueSlot]) -> Edit {
    let null = |slot: usize| match values[slot].role {
        Role::Seal { .. } | Role::Search { .. } | Role::Shown { .. } => "NULL::pg_catalog.bytea",
        Role::SearchMany { .. } | Role::SealEach { .. } | Role::CopiedCells { .. } | Role::LockedCells { .. } => {
            "NULL::pg_catalog.bytea[]"
        }
        Role::CopiedPlain { .. } => "NULL::pg_catalog.text[]",
        Role::LockedTables | Role::LockedRows => "NULL",
    };
    let with = edit.with.iter().map(|piece| match piece {
        Piece::Value(slot) => Piece::Text(null(*slot).to_owned()),
        Piece::Text(text) => Piece::Text(text.clone()),
    });
    Edit { range: edit.range.clone(), with: with.collect() }
}

/// True for a word in double quotes that is hardly a name.
fn is_odd(text: &Text<'_>, at: usize) -> bool {
    matches!(text.token(at), Some(Token::Word(word)) if word.quote_style.is_some() && !is_name(&word.value))
}

fn is_value(text: &Text<'_>, at: usize) -> bool {
    match text.token(at) {
        Some(Token::Number(..) | Token::Placeholder(_) | Token::DollarQuotedString(_)) => true,
        Some(Token::Word(_)) => text.word(at).as_deref() == Some("false"),
        Some(token) => is_string(token),
        None => false,
    }
}

fn stand_in(text: &Text<'_>, tokens: &Range<usize>, at: usize) -> Option<StandIn> {
    let with = match text.token(at)? {
        Token::Number(digits, _) if digits.len() <= 3 && is_column_number(text, tokens, at) => {
            return Some(StandIn::Itself);
        }
        Token::Number(digits, _) if digits.contains(['.', 'e', 'E']) => "1.0",
        Token::Number(..) => "1",
        Token::Placeholder(_) => "NULL",
        Token::Word(_) => "true",
        Token::HexStringLiteral(_) | Token::SingleQuotedByteStringLiteral(_) => "B'0'",
        _ => string(text, tokens, at)?,
    };
    Some(StandIn::Text(with))
}

/// What stands in place of a string: NULL, whose type is as open as that of a string; behind a type, a value of it.
fn string(text: &Text<'_>, tokens: &Range<usize>, at: usize) -> Option<&'static str> {
    /// What an expression may follow.
    const BEFORE: &[&str] = &[
        "select",
        "distinct",
        "all",
        "any",
        "some",
        "where",
        "and",
        "or",
        "not",
        "in",
        "like",
        "ilike",
        "similar",
        "to",
        "escape",
        "when",
        "then",
        "else",
        "case",
        "from",
        "for",
        "between",
        "symmetric",
        "by",
        "having",
        "limit",
        "offset",
        "returning",
        "set",
        "on",
        "using",
        "both",
        "leading",
        "trailing",
        "placing",
        "return",
    ];
    let before = at.checked_sub(1).filter(|before| tokens.contains(before))?;
    match text.token(before)? {
        Token::Word(word) if word.quote_style.is_some() => None,
        Token::Word(_) => match text.word(before)?.as_str() {
            word if BEFORE.contains(&word) => Some("NULL"),
            word => of_type(word),
        },
        Token::LParen if before > tokens.start && text.word(before - 1).as_deref() == Some("extract") => Some("'year'"),
        Token::RParen => operator(text, tokens, before).then_some("NULL"),
        Token::RBracket => None,
        _ => Some("NULL"),
    }
}

/// A value of a type, by the last word of its name.
fn of_type(word: &str) -> Option<&'static str> {
    match word {
        "date" | "timestamp" | "timestamptz" | "zone" => Some("'epoch'"),
        "time" | "timetz" => Some("'allballs'"),
        "interval" | "int2" | "int4" | "int8" | "smallint" | "int" | "integer" | "bigint" | "numeric" | "decimal"
        | "real" | "float" | "float4" | "float8" | "precision" => Some("'0'"),
        "text" | "varchar" | "char" | "bpchar" | "varying" | "name" | "bytea" => Some("''"),
        "bool" | "boolean" => Some("'t'"),
        "uuid" => Some("'00000000-0000-0000-0000-000000000000'"),
        "json" | "jsonb" => Some("'null'"),
        "inet" | "cidr" => Some("'0.0.0.0'"),
        _ => None,
    }
}

/// True for the parenthesis that closes `OPERATOR(schema.=)`.
fn operator(text: &Text<'_>, tokens: &Range<usize>, close: usize) -> bool {
    (tokens.start..close)
        .rev()
        .take(8)
        .find(|at| text.token(*at) == Some(&Token::LParen))
        .and_then(|open| open.checked_sub(1))
        .is_some_and(|at| text.word(at).as_deref() == Some("operator"))
}

/// True for a number that is a whole item of GROUP BY or ORDER BY.
fn is_column_number(text: &Text<'_>, tokens: &Range<usize>, at: usize) -> bool {
    const LOOKED_AT: usize = 200;
    let ends = at + 1 >= tokens.end
        || matches!(text.token(at + 1), Some(Token::Comma | Token::RParen | Token::SemiColon | Token::Word(_)));
    let by = |i: usize| {
        text.word(i).as_deref() == Some("by")
            && i.checked_sub(1).and_then(|i| text.word(i)).is_some_and(|word| matches!(&*word, "group" | "order"))
    };
    let mut depth = 0usize;
    for i in (tokens.start..at).rev().take(LOOKED_AT) {
        match text.token(i) {
            Some(Token::RParen | Token::RBracket) => depth += 1,
            Some(Token::LParen | Token::LBracket) if depth == 0 => return false,
            Some(Token::LParen | Token::LBracket) => depth -= 1,
            Some(Token::Word(_)) if depth == 0 && by(i) => {
                let item = i + 1 == at || text.token(at - 1) == Some(&Token::Comma);
                return ends && item;
            }
            Some(Token::Word(word)) if depth == 0 && word.quote_style.is_none() => {
                let clause =
                    ["select", "from", "where", "set", "values", "having", "limit", "offset", "returning", "on"];
                if text.word(i).is_some_and(|word| clause.contains(&word.as_str())) {
                    return false;
                }
            }
            _ => {}
        }
    }
    false
}

fn unclear() -> Refusal {
    Refusal::new(Class::UnknownColumn, "a name in a statement over sealed columns is not known")
        .detail("The server cannot be asked about it without being told the values of the statement.")
        .hint("Check the names of the columns, or write the statement in a simpler form.")
}
