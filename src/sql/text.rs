//! The statement's text as tokens with byte ranges, split into statements.
use std::ops::Range;

use sqlparser::ast::Statement;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace};

/// How many operators may be open at one place: bounds the depth of the tree.
const OPERATORS_MAX: usize = 400;
const DEPTH_MAX: usize = 50;

/// Where reading failed: line and column, counted from 1 (0 when unknown).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) too_complex: bool,
}

/// A significant token (no blanks, no comments).
#[derive(Debug)]
pub(super) struct Tok {
    pub(super) token: Token,
    pub(super) range: Range<usize>,
    pub(super) span: Span,
}

/// A text as tokens.
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: Vec<Tok>,
}

/// A place in a text, as the tokenizer counts (lines and characters from 1) and in bytes.
struct Place {
    line: u64,
    column: u64,
    byte: usize,
}

impl Place {
    fn location(&self) -> Location {
        Location { line: self.line, column: self.column }
    }

    /// Goes on to a location; `None` when it is not ahead in the text.
    fn advance(&mut self, text: &str, to: Location) -> Option<()> {
        let mut chars = text.get(self.byte..)?.chars();
        while self.location() != to {
            let c = chars.next()?;
            self.byte += c.len_utf8();
            (self.line, self.column) = if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        Some(())
    }
}

impl<'a> Text<'a> {
    /// Reads the text's tokens. Refuses what the parser's tokenizer reads in another way than Postgres.
    pub(super) fn read(text: &'a str) -> Result<Self, Unread> {
        let dialect = PostgreSqlDialect {};
        let raw = Tokenizer::new(&dialect, text).tokenize_with_location().map_err(|e| at(e.location))?;
        let mut read = Text { text, tokens: Vec::with_capacity(raw.len() / 2 + 1) };
        let mut place = Place { line: 1, column: 1, byte: 0 };
        for TokenWithSpan { token, span } in raw {
            let start = place.byte;
            if place.location() != span.start || matches!(token, Token::CopyData { .. }) {
                return Err(at(span.start));
            }
            place.advance(text, span.end).ok_or(at(span.start))?;
            let range = start..place.byte;
            match token {
                Token::EOF => {}
                Token::Whitespace(ws) => check_blank(&ws, &text[range]).ok_or(at(span.start))?,
                token => read.tokens.push(Tok { token, range, span }),
            }
        }
        if place.byte != text.len() {
            return Err(Unread { line: 0, column: 0, too_complex: false });
        }
        super::table::read_tables(&mut read.tokens);
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), Unread> {
        for pair in self.tokens.windows(2) {
            let touching = pair[0].range.end == pair[1].range.start;
            let unicode = touching
                && matches!(&pair[0].token, Token::Ampersand)
                && matches!(&pair[1].token, Token::Word(w) if w.quote_style.is_some());
            if unicode || (is_string(&pair[0].token) && is_string(&pair[1].token)) {
                return Err(at(pair[1].span.start));
            }
        }
        self.check_depth()
    }

    fn check_depth(&self) -> Result<(), Unread> {
        let mut stack = vec![0usize];
        let mut total = 0usize;
        for tok in &self.tokens {
            match &tok.token {
                Token::LParen | Token::LBracket => stack.push(0),
                Token::RParen | Token::RBracket => {
                    total -= stack.pop().unwrap_or(0).min(total);
                    if stack.is_empty() {
                        stack.push(0);
                    }
                }
                Token::Comma | Token::SemiColon => {
                    if let Some(top) = stack.last_mut() {
                        total -= *top;
                        *top = 0;
                    }
                }
                token if deepens(token) => {
                    total += 1;
                    if let Some(top) = stack.last_mut() {
                        *top += 1;
                    }
                }
                _ => {}
            }
            if total > OPERATORS_MAX || stack.len() > DEPTH_MAX {
                return Err(Unread { too_complex: true, ..at(tok.span.start) });
            }
        }
        Ok(())
    }

    /// Ranges of token indexes, one for each statement that is not empty.
    pub(super) fn statements(&self) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut start = 0;
        for (i, tok) in self.tokens.iter().enumerate() {
            if tok.token == Token::SemiColon {
                if start < i {
                    found.push(start..i);
                }
                start = i + 1;
            }
        }
        if start < self.tokens.len() {
            found.push(start..self.tokens.len());
        }
        found
    }

    /// True when a statement has literals or parameters.
    pub(super) fn has_values(&self, statement: &Range<usize>) -> bool {
        let is_value = |token: &Token| {
            is_string(token)
                || matches!(token, Token::Number(..) | Token::Placeholder(_) | Token::DollarQuotedString(_))
        };
        self.tokens[statement.clone()].iter().any(|tok| is_value(&tok.token))
    }

    /// Parses one statement; all of its tokens must be used.
    pub(super) fn parse(&self, statement: &Range<usize>) -> Result<Statement, Unread> {
        let kept = statement.clone().filter(|index| !self.weakens_lock(*index));
        let tokens: Vec<_> =
            kept.map(|i| TokenWithSpan { token: self.tokens[i].token.clone(), span: self.tokens[i].span }).collect();
        let start = tokens.first().map_or(Location::empty(), |t| t.span.start);
        let dialect = PostgreSqlDialect {};
        let mut parser = Parser::new(&dialect).with_recursion_limit(DEPTH_MAX).with_tokens_with_locations(tokens);
        let parsed = parser.parse_statement();
        let stop = parser.peek_token();
        match parsed {
            Ok(parsed) if stop.token == Token::EOF => Ok(parsed),
            _ if stop.token == Token::EOF => Err(at(start)),
            _ => Err(at(stop.span.start)),
        }
    }

    /// True for NO and KEY in `FOR NO KEY UPDATE` and `FOR KEY SHARE`, which the parser does not know: for a plan, the
    /// strength of a lock does not matter.
    fn weakens_lock(&self, index: usize) -> bool {
        let words = |from: usize, expected: &[&str]| {
            expected.iter().enumerate().all(|(i, word)| self.word(from + i).as_deref() == Some(word))
        };
        const NO_KEY: &[&str] = &["for", "no", "key", "update"];
        let Token::Word(word) = &self.tokens[index].token else { return false };
        match word.value.to_ascii_lowercase().as_str() {
            "no" => index > 0 && words(index - 1, NO_KEY),
            "key" => {
                (index > 1 && words(index - 2, NO_KEY)) || (index > 0 && words(index - 1, &["for", "key", "share"]))
            }
            _ => false,
        }
    }

    /// The bytes of a span that starts and ends with tokens.
    pub(super) fn range(&self, span: Span) -> Option<Range<usize>> {
        let first = self.tokens.binary_search_by_key(&span.start, |t| t.span.start).ok()?;
        let last = self.tokens.binary_search_by_key(&span.end, |t| t.span.end).ok()?;
        Some(self.tokens[first].range.start..self.tokens[last].range.end)
    }

    /// Index of the token that starts at this byte.
    pub(super) fn token_at(&self, start: usize) -> Option<usize> {
        self.tokens.binary_search_by_key(&start, |t| t.range.start).ok()
    }

    /// Index of the token that ends at this byte.
    pub(super) fn token_ending(&self, end: usize) -> Option<usize> {
        self.tokens.binary_search_by_key(&end, |t| t.range.end).ok()
    }

    /// The token, if there is one.
    pub(super) fn token(&self, index: usize) -> Option<&Token> {
        self.tokens.get(index).map(|t| &t.token)
    }

    /// The keyword at an index (unquoted word, lower case).
    pub(super) fn word(&self, index: usize) -> Option<String> {
        match self.token(index)? {
            Token::Word(w) if w.quote_style.is_none() => Some(w.value.to_ascii_lowercase()),
            _ => None,
        }
    }
}

fn at(location: Location) -> Unread {
    Unread { line: location.line, column: location.column, too_complex: false }
}

/// What is blank for Postgres: ASCII blanks, and `--` and `/* */` comments. `None` for anything else.
fn check_blank(blank: &Whitespace, text: &str) -> Option<()> {
    let same = match blank {
        Whitespace::SingleLineComment { prefix, comment } => {
            prefix == "--" && !comment.trim_end().contains(['\r', '\n'])
        }
        Whitespace::MultiLineComment(_) => true,
        Whitespace::Space | Whitespace::Newline | Whitespace::Tab => text.bytes().all(|b| b" \t\r\n\x0c".contains(&b)),
    };
    same.then_some(())
}

/// True for every form of string literal.
pub(super) fn is_string(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_)
    )
}

fn deepens(token: &Token) -> bool {
    match token {
        Token::Word(w) => matches!(
            w.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::IN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::JOIN
                | Keyword::CASE
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::OPERATOR
                | Keyword::EXPLAIN
                | Keyword::SIMILAR
                | Keyword::SELECT
        ),
        Token::Number(..) | Token::Placeholder(_) | Token::Period | Token::Colon => false,
        token => !is_string(token) && !matches!(token, Token::DollarQuotedString(_) | Token::LBrace | Token::RBrace),
    }
}
