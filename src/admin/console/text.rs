//! The words of a statement. The console has no SQL: words, quoted texts and signs are all there is to tell apart.
use crate::refusal::{Class, Refusal};

/// One word, text or sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word as it is written, or a number.
    Word(String),
    /// A text in single quotes, without them.
    Text(String),
    /// A name in double quotes, without them.
    Name(String),
    /// Anything else.
    Sign(char),
}

impl Token {
    /// True for this word, in any case.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(written) if written.eq_ignore_ascii_case(word))
    }

    /// As it is looked up: words in lower case.
    pub(super) fn folded(&self) -> String {
        match self {
            Token::Word(word) => word.to_lowercase(),
            Token::Text(text) => format!("'{text}'"),
            Token::Name(name) => name.clone(),
            Token::Sign(sign) => sign.to_string(),
        }
    }
}

/// The statements of a text, each without its semicolon; empty ones are left out.
///
/// # Errors
/// 42601 for a quote or comment that does not end.
pub(super) fn statements(text: &str) -> Result<Vec<Vec<Token>>, Refusal> {
    let (mut all, mut now, mut rest) = (Vec::new(), Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = match first {
            ';' => {
                all.push(std::mem::take(&mut now));
                after
            }
            '-' if after.starts_with('-') => after.find('\n').map_or("", |end| &after[end..]),
            '/' if after.starts_with('*') => {
                let end = after[1..].find("*/").ok_or_else(|| unended("comment"))?;
                &after[end + 3..]
            }
            '\'' | '"' => {
                let (quoted, behind) = quoted(after, first)?;
                now.push(if first == '"' { Token::Name(quoted) } else { Token::Text(quoted) });
                behind
            }
            c if c.is_whitespace() => after,
            c if is_word(c) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                now.push(Token::Word(rest[..end].to_owned()));
                &rest[end..]
            }
            c => {
                now.push(Token::Sign(c));
                after
            }
        };
    }
    all.push(now);
    all.retain(|statement| !statement.is_empty());
    Ok(all)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text up to its closing quote, and what stands behind; a doubled quote is one of the text.
fn quoted(text: &str, quote: char) -> Result<(String, &str), Refusal> {
    let (mut read, mut rest) = (String::new(), text);
    loop {
        let end = rest.find(quote).ok_or_else(|| unended("quoted text"))?;
        read.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        let Some(more) = rest.strip_prefix(quote) else { return Ok((read, rest)) };
        read.push(quote);
        rest = more;
    }
}

fn unended(what: &str) -> Refusal {
    Refusal::new(Class::Syntax, format!("a {what} does not end"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn statements_are_cut_where_no_quote_or_comment_is_open() {
        let text = "show /* ; */ Tenants; ; register tenant 'a;''b' -- ;\n in \"x;\"\"y\";";
        let [show, register] = &statements(text).unwrap()[..] else { panic!() };
        assert!(show[0].is("SHOW") && show[1].is("tenants") && show.len() == 2);
        assert_eq!(register[2], Token::Text("a;'b".to_owned()));
        assert_eq!(register[4], Token::Name("x;\"y".to_owned()));
        for open in ["'", "\"a", "/* ", "show 'it''s"] {
            assert_eq!(statements(open).unwrap_err().class, Class::Syntax, "{open}");
        }
        assert!(statements(" ;;\t--").unwrap().is_empty());
    }
}
