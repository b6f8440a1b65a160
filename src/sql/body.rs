//! Bodies of functions and procedures that are given as strings. The server keeps them as they are, and what they do is out of
//! the proxy's sight: one that would store or compare a value of a sealed column is refused, one that reads passes.
use std::ops::Range;

use sqlparser::tokenizer::Token;

use super::operand::escapes_alike;
use super::plan::{CONSTANT, Piece, Source, StatementPlan};
use super::question::Asking;
use super::text::Text;
use super::{Context, call, needle, plan_statement, word};
use crate::hex;
use crate::refusal::{Class, Refusal};

/// How deep strings within strings are looked into.
const DEPTH_MAX: usize = 4;

/// The words that a statement on tables begins with.
const VERBS: &[&str] = &["select", "with", "insert", "update", "delete", "merge"];

/// Refuses a CREATE FUNCTION or PROCEDURE with a value for a sealed table in its body.
///
/// # Errors
/// 0A000; also where it is not sure that there is none.
pub(super) fn judge(text: &Text<'_>, tokens: &Range<usize>, context: &Context<'_>) -> Result<(), Refusal> {
    let at = |n: usize| text.word(tokens.start + n).unwrap_or_default();
    let kind = match (at(0).as_str(), at(1).as_str()) {
        ("create", "or") => at(3),
        ("create", _) => at(1),
        _ => return Ok(()),
    };
    if !matches!(kind.as_str(), "function" | "procedure") {
        return Ok(());
    }
    match tokens.clone().all(|at| string(text, at, context, 0)) {
        true => Ok(()),
        false => Err(refused(&kind)),
    }
}

/// True for a token that is no string, or one without a value for a sealed table.
fn string(text: &Text<'_>, at: usize, context: &Context<'_>, depth: usize) -> bool {
    let raw = || &text.text[text.tokens[at].range.clone()];
    let body = match text.token(at) {
        Some(Token::EscapedStringLiteral(body)) if !escapes_alike(raw()) => return !mentions(body, context),
        Some(Token::SingleQuotedString(body) | Token::EscapedStringLiteral(body)) => body,
        Some(Token::DollarQuotedString(body)) => &body.value,
        Some(token) if super::text::is_string(token) => {
            return !mentions(raw(), context);
        }
        _ => return true,
    };
    if !mentions(body, context) {
        return true;
    }
    let Ok(read) = Text::read(body) else { return false };
    depth < DEPTH_MAX && read.statements().into_iter().all(|tokens| statement(&read, tokens, context, depth))
}

/// True when the name of a sealed table, or of a function that gives its rows, may stand in a text.
fn mentions(body: &str, context: &Context<'_>) -> bool {
    let body = body.to_ascii_lowercase();
    let catalog = context.catalog;
    catalog.needles().iter().any(|name| body.contains(&name.to_ascii_lowercase()))
        || Text::read(&body)
            .is_ok_and(|read| read.statements().iter().any(|tokens| call::calls(&read, tokens, context)))
}

/// True for a statement of a body that has no value for a sealed table.
fn statement(text: &Text<'_>, tokens: Range<usize>, context: &Context<'_>, depth: usize) -> bool {
    let literal = |at: usize| {
        let token = text.token(at);
        matches!(token, Some(Token::Number(..) | Token::DollarQuotedString(_)))
            || token.is_some_and(super::text::is_string)
            || matches!(text.word(at).as_deref(), Some("true" | "false"))
    };
    // Other languages have strings in double quotes.
    let other = |at: usize| {
        let quoted = matches!(text.token(at), Some(Token::Word(found)) if found.quote_style.is_some());
        quoted && word(text, at).is_some_and(|word| !needle(&word, context) && mentions(&word, context))
    };
    if tokens.clone().any(other) {
        return false;
    }
    let bytes = text.tokens[tokens.start].range.start..text.tokens[tokens.end - 1].range.end;
    if !mentions(&text.text[bytes], context) || !tokens.clone().any(literal) {
        return true;
    }
    let named = tokens.clone().any(|at| word(text, at).is_some_and(|word| needle(&word, context)));
    if !named && !call::calls(text, &tokens, context) {
        // In strings only: what is run there, if any, is put together from these.
        return false;
    }
    if !tokens.clone().all(|at| string(text, at, context, depth + 1)) {
        return false;
    }
    // What stands before it is of another language.
    let Some(verb) = tokens.clone().find(|at| text.word(*at).is_some_and(|word| VERBS.contains(&&*word))) else {
        return false;
    };
    // A name that means nothing here is an argument or variable: one of the policy's columns would be refused.
    let mut asking = Asking::default();
    plan_statement(text, verb..tokens.end, (context, &mut asking)).is_ok_and(|plan| !has_value(&plan))
}

fn has_value(plan: &StatementPlan) -> bool {
    let literal = plan.values.iter().any(|slot| matches!(slot.source, Source::Literal(_)));
    let mark = hex::encode(&CONSTANT);
    // One that is to be shown in place of a cell.
    let shown = |piece: &Piece| matches!(piece, Piece::Text(text) if text.contains(&mark));
    let shows = plan.edits.iter().flat_map(|edit| &edit.with).any(shown);
    literal || shows || plan.lock.is_some() || plan.named.is_some() || plan.copy.is_some() || plan.ddl.is_some()
}

fn refused(kind: &str) -> Refusal {
    Refusal::new(Class::NotSupported, format!("a {kind} with values for a sealed table in its body is not supported"))
        .detail("The server keeps the body as it is, and could show them.")
        .hint("Leave statements with such values to the application; a body may read the table, and compare other columns.")
}
