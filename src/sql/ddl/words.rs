//! Reads a statement's tokens, one after the other.
use std::ops::Range;

use sqlparser::tokenizer::Token;

use crate::sql::extent::closing;
use crate::sql::text::{Text, is_string};
use crate::types::LogicalType;

/// Words that end a type in the definition of a column.
const OPTIONS: &[&str] = &[
    "collate",
    "constraint",
    "not",
    "null",
    "check",
    "default",
    "generated",
    "unique",
    "primary",
    "references",
    "deferrable",
    "initially",
    "storage",
    "compression",
    "using",
];

/// The tokens from `at` to `end`.
#[derive(Clone)]
pub(super) struct Words<'a, 't> {
    text: &'a Text<'t>,
    pub(super) at: usize,
    end: usize,
}

/// A type as it stands in a definition.
#[derive(PartialEq, Eq)]
pub(super) enum Written {
    /// A domain of schema `rowseal`.
    Domain(String),
    /// A logical type.
    Logical(LogicalType),
    /// Anything else.
    Other,
}

impl<'a, 't> Words<'a, 't> {
    pub(super) fn new(text: &'a Text<'t>, tokens: Range<usize>) -> Self {
        Words { text, at: tokens.start, end: tokens.end }
    }

    /// The same from the next token of this statement to another end.
    pub(super) fn within(&self, tokens: Range<usize>) -> Self {
        Words { text: self.text, at: tokens.start, end: tokens.end }
    }

    /// The tokens that are left.
    pub(super) fn rest(&self) -> Range<usize> {
        self.at..self.end
    }

    pub(super) fn is_done(&self) -> bool {
        self.at >= self.end
    }

    fn token(&self, at: usize) -> Option<&Token> {
        (at < self.end).then(|| self.text.token(at)).flatten()
    }

    /// True when these keywords come next.
    pub(super) fn peek(&self, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(i, word)| self.at + i < self.end && self.text.word(self.at + i).as_deref() == Some(*word))
    }

    /// Takes these keywords if they come next.
    pub(super) fn eat(&mut self, words: &[&str]) -> bool {
        let found = self.peek(words);
        self.at += if found { words.len() } else { 0 };
        found
    }

    /// True when a string stands in what is left.
    pub(super) fn has_string(&self) -> bool {
        let string = |token: &Token| is_string(token) || matches!(token, Token::DollarQuotedString(_));
        self.rest().any(|at| self.text.token(at).is_some_and(string))
    }

    /// True when a query stands in what is left.
    pub(super) fn has_query(&self) -> bool {
        self.rest().any(|at| has_query_at(self.text, at))
    }

    /// True when this token comes next.
    pub(super) fn peek_token(&self, token: &Token) -> bool {
        self.token(self.at) == Some(token)
    }

    /// Takes a token if it comes next.
    pub(super) fn eat_token(&mut self, token: &Token) -> bool {
        let found = self.peek_token(token);
        self.at += usize::from(found);
        found
    }

    /// The identifier at a token, folded.
    pub(super) fn name_at(&self, at: usize) -> Option<String> {
        self.token(at).and_then(|_| crate::sql::word(self.text, at))
    }

    /// Takes an identifier.
    pub(super) fn name(&mut self) -> Option<String> {
        let name = self.name_at(self.at)?;
        self.at += 1;
        Some(name)
    }

    /// Takes an identifier with its schema.
    pub(super) fn qualified(&mut self) -> Option<Vec<String>> {
        let mut parts = vec![self.name()?];
        while self.eat_token(&Token::Period) {
            parts.push(self.name()?);
        }
        Some(parts)
    }

    /// True when a name is qualified, or qualifies another one.
    pub(super) fn is_dotted(&self, at: usize) -> bool {
        let period = |at: Option<usize>| at.and_then(|at| self.text.token(at)) == Some(&Token::Period);
        period(at.checked_sub(1)) || period(Some(at + 1))
    }

    /// Takes a group in parentheses or brackets: what stands inside.
    pub(super) fn group(&mut self) -> Option<Words<'a, 't>> {
        let close = closing(self.text, self.at).filter(|close| *close < self.end)?;
        let inside = self.within(self.at + 1..close);
        self.at = close + 1;
        Some(inside)
    }

    /// Takes whatever comes next; a group is one thing.
    pub(super) fn skip(&mut self) {
        if self.group().is_none() {
            self.at += 1;
        }
    }

    /// What is left, cut at commas outside of groups; nothing for nothing.
    pub(super) fn listed(mut self) -> Vec<Words<'a, 't>> {
        let (mut parts, mut start) = (Vec::new(), self.at);
        if self.is_done() {
            return parts;
        }
        while !self.is_done() {
            let comma = self.token(self.at) == Some(&Token::Comma);
            if comma {
                parts.push(self.within(start..self.at));
                start = self.at + 1;
            }
            self.skip();
        }
        parts.push(self.within(start..self.end));
        parts
    }

    /// Takes the tokens of a type.
    pub(super) fn type_tokens(&mut self) -> Words<'a, 't> {
        let start = self.at;
        while !self.is_done() && !self.text.word(self.at).is_some_and(|word| OPTIONS.contains(&&*word)) {
            self.skip();
        }
        self.within(start..self.at)
    }

    /// What is left, read as a type.
    pub(super) fn read_type(&self) -> Written {
        let name = self.normal();
        if let Some(domain) = name.strip_prefix("rowseal.").or_else(|| name.strip_prefix("\"rowseal\".")) {
            return Written::Domain(domain.trim_matches('"').to_owned());
        }
        let bare = name.split_once('.').filter(|(_, base)| base.trim_end_matches("[]") == "citext");
        match LogicalType::parse(bare.map_or(&*name, |(_, base)| base)) {
            Ok(logical) => Written::Logical(whole(logical)),
            Err(_) => Written::Other,
        }
    }

    /// The tokens with one blank between words, in lower case; sizes of arrays are left out, as Postgres does.
    fn normal(&self) -> String {
        let mut out = String::new();
        for at in self.rest() {
            match self.text.token(at) {
                Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("array") => {
                    if self.text.token(at + 1) != Some(&Token::LBracket) || at + 1 >= self.end {
                        out.push_str("[]");
                    }
                }
                Some(Token::Number(..)) if self.text.token(at.saturating_sub(1)) == Some(&Token::LBracket) => {}
                Some(Token::Word(_)) => {
                    if out.ends_with(|c: char| !matches!(c, '.' | '(')) {
                        out.push(' ');
                    }
                    out.push_str(&self.text.text[self.text.tokens[at].range.clone()].to_ascii_lowercase());
                }
                _ => out.push_str(&self.text.text[self.text.tokens[at].range.clone()]),
            }
        }
        out
    }

    /// True where a whole operand of a condition starts.
    pub(super) fn is_at_operand(&self) -> bool {
        let before = self.at.checked_sub(1);
        let word = before.and_then(|before| self.text.word(before)).unwrap_or_default();
        matches!(word.as_str(), "where" | "and" | "or" | "not")
            || before.and_then(|before| self.text.token(before)) == Some(&Token::LParen)
    }

    /// True where a whole operand of a condition has ended.
    pub(super) fn is_at_end_of_operand(&self) -> bool {
        self.peek(&["and"]) || self.peek(&["or"]) || self.token(self.at) == Some(&Token::RParen)
    }

    /// The bytes of what is left.
    pub(super) fn bytes(&self) -> Option<Range<usize>> {
        (!self.is_done()).then(|| self.text.tokens[self.at].range.start..self.text.tokens[self.end - 1].range.end)
    }

    /// Line and character, from 1, where reading stopped.
    pub(super) fn place(&self) -> (usize, usize) {
        let byte = self.text.tokens.get(self.at).map_or(self.text.text.len(), |tok| tok.range.start);
        let before = &self.text.text[..byte];
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }
}

/// True where a query starts within an expression.
pub(in crate::sql) fn has_query_at(text: &Text<'_>, at: usize) -> bool {
    text.word(at).is_some_and(|word| matches!(word.as_str(), "select" | "table" | "values" | "with"))
        && at.checked_sub(1).and_then(|before| text.token(before)) == Some(&Token::LParen)
}

/// The type with the digits of the second left out where all are kept.
pub(super) fn whole(logical: LogicalType) -> LogicalType {
    match logical {
        LogicalType::Time(Some(6)) => LogicalType::Time(None),
        LogicalType::Timetz(Some(6)) => LogicalType::Timetz(None),
        LogicalType::Timestamp(Some(6)) => LogicalType::Timestamp(None),
        LogicalType::Timestamptz(Some(6)) => LogicalType::Timestamptz(None),
        LogicalType::Interval(Some(6)) => LogicalType::Interval(None),
        other => other,
    }
}
