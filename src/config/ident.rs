//! SQL identifiers as they stand in the policy: quoting, folding and bounds as in Postgres.

/// The longest identifier in bytes. Postgres cuts longer ones; here they are errors.
pub const IDENT_BYTES_MAX: usize = 63;

/// Why a text is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentError {
    /// Nothing between dots or quotes.
    #[error("an identifier is empty")]
    Empty,
    /// A quote that is not closed.
    #[error("a quoted identifier is not closed")]
    Unclosed,
    /// A character that needs quotes.
    #[error("character {0:?} needs double quotes in an identifier")]
    Character(char),
    /// A zero byte.
    #[error("an identifier holds a zero byte")]
    Zero,
    /// More than 63 bytes.
    #[error("an identifier is longer than 63 bytes")]
    TooLong,
    /// Not the number of parts that is asked for.
    #[error("a table is written with its schema, as in public.customers")]
    NotQualified,
    /// More than one part where one is asked for.
    #[error("a column is written without its table")]
    Qualified,
}

/// Reads `schema.table`: unquoted parts are folded, quoted ones keep their case.
///
/// # Errors
/// [`IdentError`].
pub fn table(text: &str) -> Result<(String, String), IdentError> {
    let mut parts = parts(text)?.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(schema), Some(name), None) => Ok((schema, name)),
        _ => Err(IdentError::NotQualified),
    }
}

/// Reads the name of a column.
///
/// # Errors
/// [`IdentError`].
pub fn column(text: &str) -> Result<String, IdentError> {
    let mut parts = parts(text)?.into_iter();
    match (parts.next(), parts.next()) {
        (Some(name), None) => Ok(name),
        _ => Err(IdentError::Qualified),
    }
}

/// An identifier as it is written in SQL: with quotes where it needs them.
pub fn quote(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn parts(text: &str) -> Result<Vec<String>, IdentError> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_part(quoted)?,
            None => plain_part(rest)?,
        };
        parts.push(bounded(part)?);
        if after.is_empty() {
            return Ok(parts);
        }
        rest = after.strip_prefix('.').ok_or_else(|| misplaced(after))?;
    }
}

fn quoted_part(text: &str) -> Result<(String, &str), IdentError> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or(IdentError::Unclosed)?;
        part.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                part.push('"');
                rest = after;
            }
            None => return Ok((part, rest)),
        }
    }
}

fn plain_part(text: &str) -> Result<(String, &str), IdentError> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
    if let Some(c) = text.chars().next().filter(|&c| c != '.' && !first(c)) {
        return Err(IdentError::Character(c));
    }
    let later = |c: char| first(c) || c.is_ascii_digit() || c == '$';
    let end = text.find(|c| !later(c)).unwrap_or(text.len());
    Ok((text[..end].to_ascii_lowercase(), &text[end..]))
}

fn misplaced(after: &str) -> IdentError {
    IdentError::Character(after.chars().next().unwrap_or('"'))
}

fn bounded(part: String) -> Result<String, IdentError> {
    match part.len() {
        0 => Err(IdentError::Empty),
        n if n > IDENT_BYTES_MAX => Err(IdentError::TooLong),
        _ if part.contains('\0') => Err(IdentError::Zero),
        _ => Ok(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_fold_and_quote_as_in_postgres() {
        let ok = |text: &str, schema: &str, name: &str| {
            assert_eq!(table(text), Ok((schema.to_owned(), name.to_owned())), "{text}");
        };
        ok("public.customers", "public", "customers");
        ok("Public.CUSTOMERS", "public", "customers");
        ok("public.\"Orders\"", "public", "Orders");
        ok("\"a.b\".\"c\"\"d\"", "a.b", "c\"d");
        ok("public.straße", "public", "straße");
        ok("public.ÄPFEL", "public", "Äpfel");
        ok("public.a$1", "public", "a$1");
    }

    #[test]
    fn bad_identifiers_say_why() {
        let bad = |text: &str, error: IdentError| assert_eq!(table(text), Err(error), "{text}");
        bad("customers", IdentError::NotQualified);
        bad("a.b.c", IdentError::NotQualified);
        bad("", IdentError::Empty);
        bad("public.", IdentError::Empty);
        bad(".customers", IdentError::Empty);
        bad("public.\"\"", IdentError::Empty);
        bad("public.\"open", IdentError::Unclosed);
        bad("public.my table", IdentError::Character(' '));
        bad("public.1st", IdentError::Character('1'));
        bad("\"a\"b.c", IdentError::Character('b'));
        bad(&format!("public.{}", "x".repeat(64)), IdentError::TooLong);
        assert_eq!(column("a.b"), Err(IdentError::Qualified));
    }

    #[test]
    fn quoting_gives_back_what_was_read() {
        for name in ["customers", "Orders", "a.b", "with \"quotes\"", "1st"] {
            assert_eq!(column(&quote(name)).as_deref(), Ok(name));
        }
    }
}
