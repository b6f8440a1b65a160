//! An index on a column that is sealed or unsealed in place: the same index on the column that takes its place.
//!
//! Definitions are read as `pg_get_indexdef` prints them. Sealing goes through the rules of CREATE INDEX, so what is
//! refused there is refused here.
use sqlparser::tokenizer::Token;

use super::words::Words;
use crate::refusal::{Class, Refusal};
use crate::sql::Context;
use crate::sql::ident::quote;
use crate::sql::render::render;
use crate::sql::text::Text;
use crate::types::LogicalType;

/// An index that is to be made again.
#[derive(Debug, Clone, Copy)]
pub struct Moved<'a> {
    /// The column it is on.
    pub column: &'a str,
    /// The column that takes its place.
    pub shadow: &'a str,
    /// The new index's name.
    pub name: &'a str,
}

/// What is written for a part of the index that is over the column.
#[derive(Clone, Copy)]
enum Part {
    Token,
    Value,
}

/// The statement that makes an index on plaintext again over tokens, concurrently. In the context's catalog the column
/// is sealed.
///
/// # Errors
/// A [`Refusal`] for an index that tokens cannot serve.
pub fn sealed_index(definition: &str, context: &Context<'_>, moved: Moved<'_>) -> Result<String, Refusal> {
    let text = Text::read(definition).map_err(|_| unread())?;
    let tokens = text.statements().into_iter().next().ok_or_else(unread)?;
    let plan = super::plan(&text, &tokens, context)?.ok_or_else(unread)?;
    let rendered = render(definition, &[plan], &mut |_, _, _| Err(unread()))?;
    over_shadow(&rendered.text, moved, Part::Token).ok_or_else(unread)
}

/// The statement that makes an index over tokens again on values, concurrently.
///
/// # Errors
/// A [`Refusal`] for one that cannot be read.
pub fn opened_index(definition: &str, moved: Moved<'_>) -> Result<String, Refusal> {
    over_shadow(definition, moved, Part::Value).ok_or_else(unread)
}

/// True when a type as `format_type` prints it is this one.
pub fn is_declared(declared: &str, logical: LogicalType) -> bool {
    let bare = declared.rsplit_once('.').map_or(declared, |(_, base)| base);
    let name = if bare.trim_end_matches("[]") == "citext" { bare } else { declared };
    LogicalType::parse(name).is_ok_and(|found| super::words::whole(found) == super::words::whole(logical))
}

fn over_shadow(definition: &str, moved: Moved<'_>, written: Part) -> Option<String> {
    let text = Text::read(definition).ok()?;
    let mut words = Words::new(&text, text.statements().into_iter().next()?);
    words.eat(&["create"]).then_some(())?;
    let _ = words.eat(&["unique"]);
    words.eat(&["index"]).then_some(())?;
    let mut edits = vec![(text.tokens[words.at].range.clone(), format!("CONCURRENTLY {}", quote(moved.name)))];
    words.name()?;
    words.eat(&["on"]).then_some(())?;
    words.qualified()?;
    words.eat(&["using"]).then_some(())?;
    words.name()?;
    for mut part in words.group()?.listed() {
        let start = part.at;
        let is_call = part.qualified().is_some_and(|name| name == ["rowseal", "eq"]);
        let Some(inside) = part.group().filter(|_| is_call) else { continue };
        if !inside.rest().any(|at| inside.name_at(at).as_deref() == Some(moved.column)) {
            continue;
        }
        let with = match written {
            Part::Token => format!("rowseal.eq({})", quote(moved.shadow)),
            Part::Value => quote(moved.shadow),
        };
        edits.push((text.tokens[start].range.start..text.tokens[part.at - 1].range.end, with));
    }
    for at in words.rest() {
        let is_call = || text.token(at + 1) == Some(&Token::LParen);
        if words.name_at(at).as_deref() == Some(moved.column) && !words.is_dotted(at) && !is_call() {
            edits.push((text.tokens[at].range.clone(), quote(moved.shadow)));
        }
    }
    let mut out = definition.to_owned();
    edits.into_iter().rev().for_each(|(range, with)| out.replace_range(range, &with));
    Some(out)
}

fn unread() -> Refusal {
    Refusal::new(Class::NotSupported, "an index on the column cannot be read")
        .hint("Drop it, and make it anew afterwards.")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_index_over_tokens_becomes_one_over_values() {
        let moved = Moved { column: "email", shadow: "email_rowseal", name: "Later" };
        let definition = "CREATE UNIQUE INDEX one ON public.users USING btree (account_id, rowseal.eq((email)::bytea) DESC, \
                          lower(email2)) NULLS NOT DISTINCT WHERE ((email IS NOT NULL) AND (n > 0))";
        assert_eq!(
            opened_index(definition, moved).unwrap(),
            "CREATE UNIQUE INDEX CONCURRENTLY \"Later\" ON public.users USING btree (account_id, email_rowseal DESC, \
             lower(email2)) NULLS NOT DISTINCT WHERE ((email_rowseal IS NOT NULL) AND (n > 0))"
        );
        assert!(opened_index("CREATE TABLE one (email text)", moved).is_err());
    }

    #[test]
    fn types_are_the_same_however_the_server_prints_them() {
        let same = |declared: &str, policy: &str| is_declared(declared, LogicalType::parse(policy).unwrap());
        assert!(same("character varying(20)", "varchar(20)") && !same("character varying(21)", "varchar(20)"));
        assert!(same("timestamp with time zone", "timestamptz(6)") && same("text[]", "text[]"));
        assert!(same("public.citext", "citext") && !same("public.email_address", "text") && !same("text", "citext"));
    }
}
