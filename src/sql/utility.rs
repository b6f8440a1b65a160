//! Statements that are neither queries nor writes: the few that pass though they name a sealed table.
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{ObjectName, Statement};
use sqlparser::tokenizer::Token;

use super::build::Planner;
use super::ddl::has_query_at;
use super::expr::unsupported;
use super::ident::parts;
use super::text::Text;
use crate::catalog::Relation;
use crate::refusal::{Class, Refusal};

/// Statements that can neither carry nor reveal a value, by their first words.
const HARMLESS: &[&[&str]] = &[
    &["vacuum"],
    &["analyze"],
    &["analyse"],
    &["lock"],
    &["comment", "on"],
    &["grant"],
    &["revoke"],
    &["truncate"],
    &["reindex"],
    &["refresh", "materialized", "view"],
    &["cluster"],
    &["drop"],
    &["create", "sequence"],
    &["alter", "sequence"],
    &["set", "constraints"],
    // Their names are none of tables.
    &["savepoint"],
    &["release"],
    &["listen"],
    &["unlisten"],
];

/// True when the first words show that the statement cannot carry or reveal a value.
pub(super) fn passes_by_tokens(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    starts_with(text, tokens, HARMLESS)
}

/// True for DDL on tables and indexes, and for what can neither carry nor reveal a value.
pub(super) fn defines(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    const TABLES: &[&[&str]] = &[
        &["create", "table"],
        &["create", "unlogged", "table"],
        &["create", "index"],
        &["create", "unique", "index"],
        &["alter", "table"],
    ];
    starts_with(text, tokens, TABLES) || passes_by_tokens(text, tokens)
}

/// True for CREATE VIEW in its forms.
pub(super) fn makes_view(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    let word = |at: usize| text.word(at).unwrap_or_default();
    let between = |word: &str| matches!(word, "or" | "replace" | "temp" | "temporary" | "recursive" | "materialized");
    let made = (tokens.start + 1..tokens.end).find(|&at| !between(&word(at)));
    word(tokens.start) == "create" && made.is_some_and(|at| word(at) == "view")
}

/// True for an ALTER that may give a table or view another name.
pub(super) fn gives_name(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    let moves = |at: usize| matches!(text.word(at).as_deref(), Some("rename" | "schema"));
    starts_with(text, tokens, &[&["alter"]]) && tokens.clone().any(moves)
}

/// The tokens of CREATE VIEW without what may stand at its end and the parser does not know: WITH [NO] DATA, and WITH CHECK
/// OPTION, by which the server judges the rows that are written through the view as it does those that it shows.
pub(super) fn without_ending(text: &Text<'_>, tokens: &Range<usize>) -> Range<usize> {
    const ENDS: &[&[&str]] = &[
        &["with", "data"],
        &["with", "no", "data"],
        &["with", "check", "option"],
        &["with", "local", "check", "option"],
        &["with", "cascaded", "check", "option"],
    ];
    let start = |words: &[&str]| tokens.end.saturating_sub(words.len());
    let ends =
        |words: &&&[&str]| start(words) > tokens.start && starts_with(text, &(start(words)..tokens.end), &[words]);
    let ending = ENDS.iter().find(ends).filter(|_| makes_view(text, tokens));
    tokens.start..ending.map_or(tokens.end, |words| start(words))
}

/// CREATE RECURSIVE VIEW as the CREATE VIEW that it stands for; `None` for another statement, and for one that is not read.
pub(super) fn recursive_view(text: &Text<'_>, tokens: &Range<usize>) -> Option<String> {
    let word = |at: usize| text.word(at).unwrap_or_default();
    makes_view(text, tokens).then_some(())?;
    let view = (tokens.start..tokens.end).find(|&at| word(at) == "view")?;
    (word(view - 1) == "recursive").then_some(())?;
    let open = (view + 1..tokens.end).find(|&at| text.token(at) == Some(&Token::LParen))?;
    let close = super::extent::closing(text, open)?;
    let mut body = close + 1;
    if word(body) == "with" && text.token(body + 1) == Some(&Token::LParen) {
        body = super::extent::closing(text, body + 1)? + 1;
    }
    (word(body) == "as" && body + 1 < tokens.end && open > view + 1).then_some(())?;
    let bytes = |from: usize, to: usize| &text.text[text.tokens[from].range.start..text.tokens[to].range.end];
    let (name, own, columns) = (bytes(view + 1, open - 1), bytes(open - 1, open - 1), bytes(open, close));
    let list = columns.strip_prefix('(')?.strip_suffix(')')?;
    let body = bytes(body + 1, tokens.end - 1);
    Some(format!("CREATE VIEW {name} AS WITH RECURSIVE {own} {columns} AS ({body}\n) SELECT {list} FROM {own}"))
}

/// True when the statement may read a view: it neither defines something, nor sets, begins or ends something.
pub(super) fn may_read(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    const OTHERS: &[&[&str]] = &[
        &["begin"],
        &["start", "transaction"],
        &["commit"],
        &["end"],
        &["set"],
        &["reset"],
        &["savepoint"],
        &["release"],
    ];
    !defines(text, tokens) && !makes_view(text, tokens) && !starts_with(text, tokens, OTHERS)
}

/// True when the statement may write values: it has a word of such a statement and is not [`defines`].
pub(super) fn writes(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    const WORDS: &[&str] = &["insert", "update", "merge", "copy", "execute", "u&"];
    let bytes = text.tokens[tokens.start].range.start..text.tokens[tokens.end - 1].range.end;
    let statement = text.text[bytes].to_ascii_lowercase();
    !defines(text, tokens) && WORDS.iter().any(|word| statement.contains(word))
}

fn starts_with(text: &Text<'_>, tokens: &Range<usize>, starts: &[&[&str]]) -> bool {
    starts.iter().any(|words| {
        words
            .iter()
            .enumerate()
            .all(|(i, word)| tokens.start + i < tokens.end && text.word(tokens.start + i).as_deref() == Some(word))
    })
}

/// True when the statement may change which relation a name means: search_path, role, or all settings.
pub(super) fn moves_names(text: &Text<'_>, tokens: &Range<usize>, setters: &HashSet<String>) -> bool {
    const MOVING: &[&str] =
        &["search_path", "schema", "role", "authorization", "all", "discard", "rollback", "abort", "do", "call"];
    let word = |i: usize| text.word(i).unwrap_or_default();
    let first = word(tokens.start);
    let setting = matches!(first.as_str(), "set" | "reset" | "discard" | "rollback" | "abort" | "do" | "call");
    let quoted = matches!(text.token(tokens.start + 1), Some(Token::Word(w)) if w.quote_style.is_some());
    let symbol = |name: &&String| !name.starts_with(|c: char| c == '_' || c.is_alphanumeric());
    let bytes = text.tokens[tokens.start].range.start..text.tokens[tokens.end - 1].range.end;
    setters.iter().filter(symbol).any(|name| text.text[bytes.clone()].contains(&**name))
        || (setting && (quoted || tokens.clone().any(|i| MOVING.contains(&word(i).as_str()))))
        || tokens.clone().any(|i| {
            let Some(Token::Word(w)) = text.token(i) else { return false };
            let word = w.value.to_ascii_lowercase();
            matches!(word.as_str(), "set_config" | "pg_settings" | "execute") || setters.contains(&word)
        })
}

/// True when the statement is of a kind that neither makes, changes nor drops what names mean, nor ends the transaction,
/// which an error in a later statement would then not take back.
pub(super) fn leaves_names(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    const KINDS: &[&str] = &[
        "select",
        "with",
        "values",
        "table",
        "insert",
        "update",
        "delete",
        "merge",
        "begin",
        "start",
        "savepoint",
        "release",
        "show",
        "set",
        "reset",
        "explain",
        "declare",
        "fetch",
        "move",
        "close",
        "lock",
    ];
    text.word(tokens.start).is_some_and(|word| KINDS.contains(&&*word))
}

/// True when the statement may change which relation a name means by renaming or dropping one.
pub(super) fn renames(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    matches!(text.word(tokens.start).as_deref(), Some("alter" | "drop" | "discard"))
}

/// The refusal of a kind of statement on a sealed table.
pub(super) fn refuse_statement(what: &str, relation: &Relation) -> Refusal {
    let columns: Vec<_> = relation.columns.iter().filter_map(|a| a.sealed.as_ref()).map(|c| c.name.as_str()).collect();
    let refusal =
        Refusal::new(Class::NotSupported, format!("{what} is not supported on table {}", relation.qualified()));
    match columns.is_empty() {
        true => refusal,
        false => refusal.detail(format!("Its sealed columns are {}.", columns.join(", "))),
    }
    .hint("Use INSERT, UPDATE, DELETE or SELECT with a column list.")
}

/// True for CREATE FUNCTION and CREATE PROCEDURE.
pub(super) fn makes_function(text: &Text<'_>, tokens: &Range<usize>) -> bool {
    let starts: &[&[&str]] = &[
        &["create", "function"],
        &["create", "procedure"],
        &["create", "or", "replace", "function"],
        &["create", "or", "replace", "procedure"],
    ];
    starts_with(text, tokens, starts)
}

/// The refusal of a function whose definition names a sealed table outside of a string.
pub(super) fn refuse_function(relation: &Relation) -> Refusal {
    refuse_statement("CREATE FUNCTION with its rows as argument or result, or with a body that is no string,", relation)
        .hint(
            "Make it past the proxy, on a connection to the server itself; it can be called through the proxy, and a function \
             that RETURNS SETOF the table is read like the table. A function that returns plain columns can be made here.",
        )
}

/// Passes a parsed statement, or refuses it by name.
pub(super) fn passes(planner: &mut Planner<'_>, statement: &Statement, relation: &Relation) -> Result<(), Refusal> {
    let refuse = |what: &str| Err(refuse_statement(what, relation));
    match statement {
        // On another table; those on sealed ones are planned by `ddl`.
        Statement::AlterTable(alter) => match planner.named(&alter.name)? {
            Some(table) => Err(refuse_statement("this ALTER TABLE", &table)),
            None if has_query(planner) => refuse("ALTER TABLE with a query"),
            None => Ok(()),
        },
        Statement::CreateTable(create)
            if create.query.is_none()
                && create.like.is_none()
                && create.clone.is_none()
                && create.inherits.is_none()
                && create.partition_of.is_none()
                && !has_query(planner) =>
        {
            Ok(())
        }
        Statement::Copy { .. } => refuse("this form of COPY"),
        Statement::CreateView(create) => planner.create_view(create),
        Statement::CreateTable(create) if create.query.is_some() => Err(refuse_statement("CREATE TABLE AS", relation)
            .hint(
                "Create the table through the proxy, with its entry in the policy, and fill it with INSERT ... SELECT.",
            )),
        Statement::CreateTable(_) => refuse("CREATE TABLE with a reference to it"),
        Statement::Prepare { .. } => refuse("PREPARE"),
        Statement::Declare { .. } => refuse("DECLARE"),
        Statement::CreateFunction(_) | Statement::CreateProcedure { .. } => Err(refuse_function(relation)),
        _ => {
            let first = planner.text.word(planner.tokens.start).unwrap_or_default().to_ascii_uppercase();
            refuse(if first.is_empty() { "this statement" } else { &first })
        }
    }
}

/// True when a query stands in parentheses: a definition has none, or it is not known what it compares.
fn has_query(planner: &Planner<'_>) -> bool {
    planner.tokens.clone().any(|at| has_query_at(planner.text, at))
}

impl Planner<'_> {
    /// The relation of a name, if it exposes a sealed column.
    fn named(&mut self, name: &ObjectName) -> Result<Option<Arc<Relation>>, Refusal> {
        let parts = parts(name).ok_or_else(|| unsupported("this table name"))?;
        let base = self.relation(&parts)?.base;
        Ok(base.filter(|b| self.context.catalog.exposes(b)))
    }
}
