//! The options of COPY, in the present syntax and the old ones. An option that is not known here is refused by name.
use sqlparser::tokenizer::Token;

use super::ident::folded;
use super::operand::escapes_alike;
use super::text::Text;
use crate::refusal::{Class, Refusal};
use crate::wire::copy::{Forced, Format, Header, Options};

/// A place among the tokens of a statement.
pub(super) struct Cursor<'a> {
    pub(super) text: &'a Text<'a>,
    pub(super) at: usize,
    pub(super) end: usize,
}

impl Cursor<'_> {
    pub(super) fn token(&self) -> Option<&Token> {
        if self.at < self.end { self.text.token(self.at) } else { None }
    }

    /// Steps over a keyword; false when something else stands there.
    pub(super) fn takes(&mut self, word: &str) -> bool {
        let found = self.at < self.end && self.text.word(self.at).as_deref() == Some(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn takes_token(&mut self, token: &Token) -> bool {
        let found = self.token() == Some(token);
        self.at += usize::from(found);
        found
    }

    /// A name, folded.
    pub(super) fn name(&mut self) -> Option<String> {
        let Some(Token::Word(word)) = self.token() else { return None };
        let name = folded(&word.value, word.quote_style.is_some());
        self.at += 1;
        Some(name)
    }

    /// A string literal.
    fn string(&mut self) -> Option<String> {
        let text = match self.token()? {
            Token::SingleQuotedString(text) => text.clone(),
            Token::EscapedStringLiteral(text) => {
                let raw = self.text.text.get(self.text.tokens[self.at].range.clone())?;
                escapes_alike(raw).then(|| text.clone())?
            }
            _ => return None,
        };
        self.at += 1;
        Some(text)
    }

    /// Names between commas; with parentheses around them or without.
    pub(super) fn names(&mut self, parentheses: bool) -> Option<Vec<String>> {
        if parentheses && !self.takes_token(&Token::LParen) {
            return None;
        }
        let mut names = vec![self.name()?];
        while self.takes_token(&Token::Comma) {
            names.push(self.name()?);
        }
        if parentheses && !self.takes_token(&Token::RParen) { None } else { Some(names) }
    }
}

/// What the options say, before it is known which columns they name.
#[derive(Default)]
pub(super) struct Said {
    format: Option<Format>,
    delimiter: Option<u8>,
    null: Option<String>,
    default: Option<String>,
    quote: Option<u8>,
    escape: Option<u8>,
    header: Option<Header>,
    freeze: Option<bool>,
    force_quote: Option<Columns>,
    force_not_null: Option<Columns>,
    force_null: Option<Columns>,
    /// The names of the options that are written.
    written: Vec<String>,
    /// One of them is written twice.
    is_doubled: bool,
}

/// Columns as an option names them.
enum Columns {
    All,
    Named(Vec<String>),
}

/// The refusal of an option.
fn refused(option: &str) -> Refusal {
    let (name, rest) =
        option.split_once(' ').map_or((option, String::new()), |(name, rest)| (name, format!(" {rest}")));
    let option = name.to_ascii_uppercase() + &rest;
    Refusal::new(Class::NotSupported, format!("COPY with option {option} is not supported over sealed columns"))
        .hint("docs/sql.md lists the options that are.")
}

impl Said {
    /// BINARY before the table's name.
    pub(super) fn binary() -> Self {
        Said { format: Some(Format::Binary), written: vec!["format".to_owned()], ..Said::default() }
    }

    /// Reads what stands behind the source or target, up to WHERE.
    ///
    /// # Errors
    /// 0A000 for an option that is not known, or a value of it.
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
        let using = cursor.takes("using");
        if cursor.takes("delimiters") {
            self.write("delimiter");
            self.delimiter = Some(one_byte(cursor, "delimiters")?);
        } else if using {
            return Err(refused("using"));
        }
        cursor.takes("with");
        if cursor.takes_token(&Token::LParen) {
            loop {
                let name = cursor.name().ok_or_else(|| refused("list"))?;
                self.write(&name);
                self.option(&name, cursor)?;
                if cursor.takes_token(&Token::RParen) {
                    return Ok(());
                }
                if !cursor.takes_token(&Token::Comma) {
                    return Err(refused(&name));
                }
            }
        }
        while cursor.at < cursor.end && cursor.text.word(cursor.at).as_deref() != Some("where") {
            let name = cursor.name().ok_or_else(|| refused("list"))?;
            self.write(if matches!(name.as_str(), "binary" | "csv") { "format" } else { &name });
            self.old_option(&name, cursor)?;
        }
        Ok(())
    }

    fn write(&mut self, name: &str) {
        self.is_doubled |= self.written.iter().any(|written| written == name);
        self.written.push(name.to_owned());
    }

    fn option(&mut self, name: &str, cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
        match name {
            "format" => {
                let format = cursor.string().or_else(|| cursor.name());
                self.format = Some(match format.as_deref() {
                    Some("text") => Format::Text,
                    Some("csv") => Format::Csv,
                    Some("binary") => Format::Binary,
                    _ => return Err(refused(name)),
                });
            }
            "freeze" => self.freeze = Some(boolean(cursor, name)?),
            "header" => self.header = Some(header(cursor)?),
            "force_quote" => self.force_quote = Some(columns(cursor, name)?),
            "force_not_null" => self.force_not_null = Some(columns(cursor, name)?),
            "force_null" => self.force_null = Some(columns(cursor, name)?),
            // To skip rows, the server would have to see the values that the proxy reads.
            "on_error" => match cursor.string().or_else(|| cursor.name()).as_deref() {
                Some("stop") => {}
                _ => {
                    return Err(refused("on_error other than stop")
                        .hint("Leave it out: the first row that is wrong ends the COPY."));
                }
            },
            "log_verbosity" => drop(cursor.string().or_else(|| cursor.name()).ok_or_else(|| refused(name))?),
            "default" => self.default = Some(cursor.string().ok_or_else(|| refused(name))?),
            "delimiter" | "null" | "quote" | "escape" | "encoding" => self.string_option(name, cursor)?,
            _ => return Err(refused(name)),
        }
        Ok(())
    }

    fn old_option(&mut self, name: &str, cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
        match name {
            "binary" => self.format = Some(Format::Binary),
            "csv" => self.format = Some(Format::Csv),
            "freeze" => self.freeze = Some(true),
            "header" => self.header = Some(Header::Line),
            "encoding" => self.string_option(name, cursor)?,
            "delimiter" | "null" | "quote" | "escape" => {
                cursor.takes("as");
                self.string_option(name, cursor)?;
            }
            "force" if cursor.takes("quote") => {
                self.force_quote = Some(if cursor.takes_token(&Token::Mul) {
                    Columns::All
                } else {
                    Columns::Named(cursor.names(false).ok_or_else(|| refused("force quote"))?)
                });
            }
            "force" => {
                let not = cursor.takes("not");
                let names = if cursor.takes("null") { cursor.names(false) } else { None };
                let names = Some(Columns::Named(names.ok_or_else(|| refused("force"))?));
                *(if not { &mut self.force_not_null } else { &mut self.force_null }) = names;
            }
            _ => return Err(refused(name)),
        }
        Ok(())
    }

    fn string_option(&mut self, name: &str, cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
        match name {
            "delimiter" => self.delimiter = Some(one_byte(cursor, name)?),
            "quote" => self.quote = Some(one_byte(cursor, name)?),
            "escape" => self.escape = Some(one_byte(cursor, name)?),
            "null" => self.null = Some(cursor.string().ok_or_else(|| refused(name))?),
            _ => {
                let encoding = cursor.string().unwrap_or_default().to_ascii_lowercase();
                if !matches!(encoding.as_str(), "utf8" | "utf-8") {
                    return Err(refused("encoding other than UTF8"));
                }
            }
        }
        Ok(())
    }

    /// The options that have the rows in binary between proxy and server, in place of these. `None` where they are that
    /// already, and where every version of Postgres is not sure to take these options: what it says of them is its own.
    pub(super) fn in_binary(&self, options: &Options, is_in: bool) -> Option<&'static str> {
        if options.format == Format::Binary || !self.is_sound(options, is_in) {
            return None;
        }
        Some(match self.freeze {
            None => "(FORMAT binary)",
            Some(true) => "(FORMAT binary, FREEZE true)",
            Some(false) => "(FORMAT binary, FREEZE false)",
        })
    }

    fn is_sound(&self, options: &Options, is_in: bool) -> bool {
        let is_csv = options.format == Format::Csv;
        let has = |name: &str| self.written.iter().any(|written| written == name);
        let is_named = |forced: &Forced| !matches!(forced, Forced::All);
        let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let only_csv = ["quote", "escape", "force", "force_quote", "force_not_null", "force_null"];
        let only_in = options.force_not_null != Forced::None || options.force_null != Forced::None;
        let is_apart = options.delimiter != options.quote && !options.null.contains(&options.quote);
        !self.is_doubled
            && !["default", "on_error", "reject_limit", "log_verbosity"].into_iter().any(has)
            && !breaks(&options.delimiter)
            && !options.null.iter().any(|byte| breaks(byte) || *byte == options.delimiter)
            && (is_csv || (!no_text_delimiter(options.delimiter) && !only_csv.into_iter().any(has)))
            && (!is_csv || is_apart)
            && if is_in {
                options.force_quote == Forced::None
                    && is_named(&options.force_not_null)
                    && is_named(&options.force_null)
            } else {
                !only_in && self.freeze.is_none() && options.header != Header::Match
            }
    }

    /// The options for these columns; `None`: their names are not known.
    ///
    /// # Errors
    /// 0A000 for a column that is not among these.
    pub(super) fn options(&self, names: Option<&[String]>) -> Result<Options, Refusal> {
        let mut options = Options::of(self.format.unwrap_or(Format::Text));
        options.delimiter = self.delimiter.unwrap_or(options.delimiter);
        options.null = self.null.as_ref().map_or(options.null, |null| null.as_bytes().to_vec());
        options.default = self.default.as_ref().map(|default| default.as_bytes().to_vec());
        options.quote = self.quote.unwrap_or(options.quote);
        options.escape = self.escape.unwrap_or(options.quote);
        options.header = self.header.unwrap_or(options.header);
        let forced = |columns: &Option<Columns>| match (columns, names) {
            (None, _) => Ok(Forced::None),
            (Some(Columns::All), _) => Ok(Forced::All),
            (Some(Columns::Named(named)), Some(names)) => {
                let place = |name: &String| names.iter().position(|known| known == name);
                let places: Option<Vec<usize>> = named.iter().map(place).collect();
                places.map(Forced::These).ok_or_else(|| refused("force for a column that is not copied"))
            }
            (Some(Columns::Named(_)), None) => {
                Err(refused("force_quote with names over a query").hint("Write FORCE_QUOTE *."))
            }
        };
        options.force_quote = forced(&self.force_quote)?;
        options.force_not_null = forced(&self.force_not_null)?;
        options.force_null = forced(&self.force_null)?;
        Ok(options)
    }
}

/// What Postgres takes as a delimiter in CSV alone.
fn no_text_delimiter(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'\\')
}

/// Refuses what could not be told from the text form of a cell; to be asked where cells stand among other text.
///
/// # Errors
/// 0A000.
pub(super) fn stand_beside_cells(options: &Options) -> Result<(), Refusal> {
    let in_cell = |byte: u8| byte.is_ascii_alphanumeric();
    if in_cell(options.delimiter) || options.delimiter == b'\\' {
        return Err(refused("delimiter that may stand in a cell"));
    }
    if in_cell(options.quote) || options.quote == b'\\' {
        return Err(refused("quote that may stand in a cell"));
    }
    if in_cell(options.escape) {
        return Err(refused("escape that may stand in a cell"));
    }
    Ok(())
}

fn one_byte(cursor: &mut Cursor<'_>, name: &str) -> Result<u8, Refusal> {
    match cursor.string().unwrap_or_default().as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(refused(name)),
    }
}

fn columns(cursor: &mut Cursor<'_>, name: &str) -> Result<Columns, Refusal> {
    if cursor.takes_token(&Token::Mul) {
        return Ok(Columns::All);
    }
    cursor.names(true).map(Columns::Named).ok_or_else(|| refused(name))
}

/// True where nothing is written.
fn boolean(cursor: &mut Cursor<'_>, name: &str) -> Result<bool, Refusal> {
    if matches!(cursor.token(), Some(Token::Comma | Token::RParen)) {
        return Ok(true);
    }
    let written = match cursor.token() {
        Some(Token::Number(number, false)) => {
            let number = number.clone();
            cursor.at += 1;
            Some(number)
        }
        _ => cursor.string().or_else(|| cursor.name()),
    };
    match written.unwrap_or_default().to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(refused(name)),
    }
}

fn header(cursor: &mut Cursor<'_>) -> Result<Header, Refusal> {
    let at = cursor.at;
    let word = cursor.string().or_else(|| cursor.name());
    if word.is_some_and(|word| word.eq_ignore_ascii_case("match")) {
        return Ok(Header::Match);
    }
    cursor.at = at;
    Ok(if boolean(cursor, "header")? { Header::Line } else { Header::None })
}
