//! `TABLE x`, which the parser does not read, as `SELECT * FROM x`: the letters of the word stand for the three tokens, so
//! that each has a place of its own in the client's text. Where it is not sure to be a query it stays what it is.
use std::ops::Range;

use sqlparser::ast::Select;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Span, Token};

use super::build::Planner;
use super::plan::{Edit, Piece};
use super::text::Tok;

/// How many of the letters stand for each token.
const LETTERS: [u8; 3] = [1, 1, 3];
/// What may follow the name.
const FOLLOWS: &[&str] =
    &["union", "intersect", "except", "order", "limit", "offset", "fetch", "for", "on", "returning"];

/// Puts the tokens of a SELECT in the place of the word, wherever it starts a query.
pub(super) fn read_tables(tokens: &mut Vec<Tok>) {
    let is_table = |tok: &Tok| matches!(&tok.token, Token::Word(w) if w.keyword == Keyword::TABLE);
    if !tokens.iter().any(is_table) {
        return;
    }
    let (mut found, mut first) = (Vec::new(), 0);
    for at in 0..tokens.len() {
        if tokens[at].token == Token::SemiColon {
            first = at + 1;
        }
        if is_table(&tokens[at]) && starts_query(tokens, first, at) && ends_behind_name(tokens, at + 1) {
            found.push(at);
        }
    }
    for at in found.into_iter().rev() {
        let three = parts(&tokens[at]);
        tokens.splice(at..=at, three);
    }
}

fn word(tokens: &[Tok], at: usize) -> Option<String> {
    match &tokens.get(at)?.token {
        Token::Word(w) if w.quote_style.is_none() => Some(w.value.to_ascii_lowercase()),
        _ => None,
    }
}

/// True where a query may start in a statement that begins at `first`.
fn starts_query(tokens: &[Tok], first: usize, at: usize) -> bool {
    if at == first {
        return true;
    }
    let statement = word(tokens, first).unwrap_or_default();
    let before = word(tokens, at - 1);
    let queries =
        || matches!(&*statement, "with" | "select" | "values" | "table" | "insert" | "") || is_outer(&statement);
    match (&tokens[at - 1].token, before.as_deref()) {
        (Token::LParen, _) => true,
        (_, Some("union" | "intersect" | "except")) => queries(),
        (_, Some("all" | "distinct")) => {
            queries() && matches!(word(tokens, at.wrapping_sub(2)).as_deref(), Some("union" | "intersect" | "except"))
        }
        (Token::RParen, _) => matches!(&*statement, "with" | "insert") || is_outer(&statement),
        (_, Some("as")) => statement == "prepare",
        (_, Some("for")) => statement == "declare",
        (_, Some("explain" | "analyze" | "verbose")) => statement == "explain",
        (Token::Word(_), before) => statement == "insert" && before != Some("into"),
        _ => false,
    }
}

/// True for the first word of a statement that has another one in it.
fn is_outer(statement: &str) -> bool {
    matches!(statement, "explain" | "prepare" | "declare")
}

/// True where a name stands and then nothing that could not stand behind `TABLE x`.
fn ends_behind_name(tokens: &[Tok], at: usize) -> bool {
    let is_name = |at: usize| matches!(tokens.get(at).map(|tok| &tok.token), Some(Token::Word(_)));
    let mut end = at + 1;
    if !is_name(at) || word(tokens, at).as_deref() == Some("only") {
        return false;
    }
    while tokens.get(end).is_some_and(|tok| tok.token == Token::Period) && is_name(end + 1) {
        end += 2;
    }
    match tokens.get(end).map(|tok| &tok.token) {
        None | Some(Token::SemiColon | Token::RParen) => true,
        Some(_) => word(tokens, end).is_some_and(|word| FOLLOWS.contains(&&*word)),
    }
}

fn parts(table: &Tok) -> Vec<Tok> {
    let (mut byte, mut place) = (table.range.start, table.span.start);
    let tokens = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
    let part = |(token, letters): (Token, u8)| {
        let (range, start) = (byte..byte + usize::from(letters), place);
        place = Location { column: start.column + u64::from(letters), ..start };
        byte = range.end;
        Tok { token, range, span: Span::new(start, place) }
    };
    tokens.into_iter().zip(LETTERS).map(part).collect()
}

impl Planner<'_> {
    /// Writes the SELECT that `TABLE` stands for, but for its star.
    pub(super) fn write_table(&mut self, select: &Select) -> Option<()> {
        let start = self.text.range(select.select_token.0.span)?;
        if start.len() == "SELECT".len() {
            return Some(());
        }
        let at = self.text.token_at(start.start)?;
        let from = self.text.tokens.get(at + 2)?.range.clone();
        let mut write = |range: Range<usize>, with: &str| {
            self.edits.push(Edit { range, with: vec![Piece::Text(with.into())] });
        };
        write(start, "SELECT");
        write(from, " FROM");
        Some(())
    }

    /// Writes a star that stays one, where it is a letter of `TABLE`.
    pub(super) fn write_star_of_table(&mut self, range: Option<Range<usize>>) {
        if let Some(range) = range.filter(|range| range.len() == 1 && self.text.text[range.clone()] != *"*") {
            self.edits.push(Edit { range, with: vec![Piece::Text(" *".into())] });
        }
    }
}
