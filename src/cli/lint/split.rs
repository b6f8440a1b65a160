//! Splits a script into statements as psql does: by semicolons outside of quotes, comments and routine bodies. What is
//! for psql itself (lines that begin with a backslash, the data of COPY) is left out.

/// A statement of a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    /// The line it begins in, from 1.
    pub(super) line: usize,
    /// Its text, without the semicolon.
    pub(super) text: &'a str,
}

/// The statements of a script, in order.
pub(super) fn statements(script: &str) -> Vec<Statement<'_>> {
    let mut found = Vec::new();
    let (mut start, mut at) = (0, 0);
    let mut body = Body::default();
    while at < script.len() {
        let rest = &script[at..];
        if script[start..at].trim().is_empty() && rest.starts_with('\\') {
            at += line_length(rest);
            start = at;
        } else if rest.starts_with(';') && !body.is_open() {
            push(&mut found, script, start, at);
            at += 1;
            if reads_data(&script[start..at]) {
                at += data_length(&script[at..]);
            }
            start = at;
            body = Body::default();
        } else {
            let length = token_length(rest);
            body.take(&rest[..length]);
            at += length;
        }
    }
    push(&mut found, script, start, script.len());
    found
}

fn push<'a>(found: &mut Vec<Statement<'a>>, script: &'a str, start: usize, end: usize) {
    let text = script[start..end].trim();
    let begin = start + script[start..end].len() - script[start..end].trim_start().len();
    if !code(text).is_empty() {
        found.push(Statement { line: 1 + script[..begin].matches('\n').count(), text });
    }
}

/// A statement without the blanks and comments that it begins with.
fn code(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        if !(text.starts_with("--") || text.starts_with("/*")) {
            return text;
        }
        text = &text[token_length(text)..];
    }
}

/// The length of the quoted piece, comment, word or character that `text` begins with; at least 1 unless it is empty.
fn token_length(text: &str) -> usize {
    let first = text.chars().next().unwrap_or(' ');
    let second = text[first.len_utf8().min(text.len())..].chars().next().unwrap_or(' ');
    match (first, second) {
        ('-', '-') => line_length(text),
        ('/', '*') => comment_length(text),
        ('e' | 'E', '\'') => 1 + quoted_length(&text[1..], '\'', true),
        ('\'' | '"', _) => quoted_length(text, first, false),
        ('$', _) => dollar_length(text),
        _ if is_word(first) => text.find(|c| !is_word(c) && c != '$').unwrap_or(text.len()),
        _ => first.len_utf8().min(text.len()),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_length(text: &str) -> usize {
    text.find('\n').map_or(text.len(), |at| at + 1)
}

/// Comments nest.
fn comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let step = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (1, 2),
            [b'*', b'/', ..] => (-1, 2),
            _ => (0, 1),
        };
        depth += step.0;
        at += step.1;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn quoted_length(text: &str, quote: char, backslashes: bool) -> usize {
    let mut skip = true;
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut skip) {
            continue;
        }
        if backslashes && c == '\\' {
            skip = true;
        } else if c == quote {
            // A doubled quote begins the next piece, which is as quoted as this one.
            return at + 1;
        }
    }
    text.len()
}

/// `$tag$ ... $tag$`; a parameter or a lone dollar is one character.
fn dollar_length(text: &str) -> usize {
    let Some(end) = text[1..].find('$') else { return 1 };
    let tag = &text[..end + 2];
    let inner = &tag[1..=end];
    if inner.chars().any(|c| !is_word(c)) || inner.starts_with(|c: char| c.is_ascii_digit()) {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len())
}

/// Whether `COPY ... FROM STDIN` has been read, whose data follows in a script.
fn reads_data(statement: &str) -> bool {
    let words: Vec<String> = code(statement).split_whitespace().map(str::to_ascii_lowercase).collect();
    words.first().is_some_and(|word| word == "copy")
        && words.windows(2).any(|pair| pair[0] == "from" && pair[1].trim_end_matches([';', '(']) == "stdin")
}

fn data_length(text: &str) -> usize {
    let mut length = 0;
    for line in text.split_inclusive('\n') {
        length += line.len();
        if line.trim_end() == "\\." {
            return length;
        }
    }
    text.len()
}

/// Knows when a semicolon belongs to a routine's body in SQL: `BEGIN ATOMIC ...; ...; END`.
#[derive(Default)]
struct Body {
    words: Vec<String>,
    depth: usize,
}

impl Body {
    fn take(&mut self, token: &str) {
        if !token.starts_with(is_word) {
            return;
        }
        let word = token.to_ascii_lowercase();
        match word.as_str() {
            "atomic" if self.words.last().is_some_and(|last| last == "begin") && self.is_routine() => self.depth = 1,
            "case" if self.depth > 0 => self.depth += 1,
            "end" if self.depth > 0 => self.depth -= 1,
            _ => {}
        }
        self.words.push(word);
    }

    fn is_routine(&self) -> bool {
        let head: Vec<&str> = self.words.iter().take(4).map(String::as_str).collect();
        matches!(
            head.as_slice(),
            ["create", "function" | "procedure", ..] | ["create", "or", "replace", "function" | "procedure"]
        )
    }

    fn is_open(&self) -> bool {
        self.depth > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(script: &str) -> Vec<(usize, &str)> {
        statements(script).iter().map(|statement| (statement.line, statement.text)).collect()
    }

    #[test]
    fn semicolons_in_quotes_comments_and_bodies_do_not_end_a_statement() {
        let script = "select ';';\n\nselect \";\" -- ; here\n, 'it''s; ' /* ; /* ; */ ; */;\nselect E'\\';', $$;$$, $a$;$$;$a$, $1;select 2";
        assert_eq!(
            split(script),
            [
                (1, "select ';'"),
                (3, "select \";\" -- ; here\n, 'it''s; ' /* ; /* ; */ ; */"),
                (5, "select E'\\';', $$;$$, $a$;$$;$a$, $1"),
                (5, "select 2"),
            ]
        );
        let routine = "create function f() returns int begin atomic select 1; select case when true then 2 end; end";
        assert_eq!(split(&format!("{routine};\nbegin;\nend")), [(1, routine), (2, "begin"), (3, "end")]);
    }

    #[test]
    fn what_is_for_psql_is_left_out() {
        let script = "\\set ON_ERROR_STOP on\n-- only a comment;\nCOPY t (a) FROM stdin;\n1\tit's; so\n\\.\n;;\n\\d t\nselect 1;\n";
        assert_eq!(split(script), [(2, "-- only a comment;\nCOPY t (a) FROM stdin"), (8, "select 1")]);
        assert_eq!(split(""), []);
        assert_eq!(split("select 'open"), [(1, "select 'open")]);
        assert_eq!(split("select 'ä;ö', $ä$;$ä$; x"), [(1, "select 'ä;ö', $ä$;$ä$"), (1, "x")]);
    }
}
