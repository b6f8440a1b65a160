//! What a control string says of TLS: `sslmode` and `sslrootcert`.
//!
//! The parser of connection strings knows the first in part and the second not at all, so both are taken out here, before
//! it sees the string. It refuses every other word that it does not know. Without a word of its own, a string means what
//! `[upstream]` says.
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::{Upstream, UpstreamTls};

/// Why the words about TLS cannot be followed. No value of the string is shown: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A known word that would check less than it seems to.
    #[error("sslmode=verify-ca is not supported: write verify-full, which checks the host name too")]
    VerifyCa,
    /// Another word.
    #[error("sslmode is disable, prefer, require or verify-full")]
    Mode,
    /// Roots that nothing would be checked against.
    #[error("sslrootcert is used with sslmode=verify-full or require alone")]
    UnusedRoots,
    /// Anybody can have a certificate of a public root: without the name it proves nothing.
    #[error("sslrootcert=system is used with sslmode=verify-full alone")]
    SystemRoots,
    /// An empty file name.
    #[error("sslrootcert names no file")]
    NoRoots,
}

/// A control string, taken apart.
///
/// # Secrets
/// `text` may hold a password; there is no Debug.
pub struct Control {
    /// The string without its words about TLS.
    pub text: String,
    /// How the connection is protected; a unix socket never is.
    pub tls: UpstreamTls,
    /// Roots for `verify-full` (`None`: those of the operating system). With `require`, if there are any, the chain is
    /// checked against them, but not the name: libpq does the same.
    pub root_certificate: Option<PathBuf>,
}

impl Control {
    /// Reads a libpq connection string or URL. Paths in it are relative to `directory`.
    ///
    /// # Errors
    /// Words about TLS that are unknown or do not fit together. Everything else is for the parser to judge.
    pub fn read(control: &str, upstream: &Upstream, directory: &Path) -> Result<Control, ControlError> {
        let words = if is_url(control) { Words::of_url(control) } else { Words::of_pairs(control) };
        let tls = words.mode.as_deref().map_or(Ok(upstream.tls), mode)?;
        let root_certificate = match (words.roots.as_deref(), tls) {
            (None, _) => upstream.root_certificate.clone(),
            (Some(""), _) => return Err(ControlError::NoRoots),
            (Some(_), UpstreamTls::Disable | UpstreamTls::Prefer) => return Err(ControlError::UnusedRoots),
            (Some("system"), UpstreamTls::Require) => return Err(ControlError::SystemRoots),
            (Some("system"), UpstreamTls::VerifyFull) => None,
            (Some(file), _) => Some(directory.join(file)),
        };
        Ok(Control { text: words.others, tls, root_certificate })
    }
}

fn mode(word: &str) -> Result<UpstreamTls, ControlError> {
    match word {
        "disable" => Ok(UpstreamTls::Disable),
        "prefer" => Ok(UpstreamTls::Prefer),
        "require" => Ok(UpstreamTls::Require),
        "verify-full" => Ok(UpstreamTls::VerifyFull),
        "verify-ca" => Err(ControlError::VerifyCa),
        _ => Err(ControlError::Mode),
    }
}

fn is_url(control: &str) -> bool {
    control.starts_with("postgres://") || control.starts_with("postgresql://")
}

/// The words about TLS, and the string without them. As in libpq the last of several counts.
#[derive(Default)]
struct Words {
    mode: Option<String>,
    roots: Option<String>,
    others: String,
}

impl Words {
    /// `postgres://user@host/database?sslmode=require`; a `?` before an `@` belongs to the password.
    fn of_url(url: &str) -> Words {
        let mut words = Words::default();
        let host = url.find('@').unwrap_or(0);
        let Some(query) = url[host..].find('?').map(|at| host + at) else {
            words.others = url.to_owned();
            return words;
        };
        let mut kept = Vec::new();
        for pair in url[query + 1..].split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
            if !words.take(&decoded(key), decoded(value)) {
                kept.push(pair);
            }
        }
        words.others = url[..query].to_owned();
        if !kept.is_empty() {
            words.others.push('?');
            words.others.push_str(&kept.join("&"));
        }
        words
    }

    /// `host=... sslmode=require`, values quoted or not.
    fn of_pairs(text: &str) -> Words {
        let mut words = Words::default();
        let mut rest = text.trim_start();
        while let Some((key, after)) = rest.split_once('=') {
            let after = after.trim_start();
            let Some((value, length)) = value(after) else { break };
            let (pair, next) = rest.split_at(rest.len() - after.len() + length);
            if !words.take(key.trim_end(), value) {
                words.others.push_str(pair);
                words.others.push(' ');
            }
            rest = next.trim_start();
        }
        // What is no pair is for the parser to refuse.
        words.others.push_str(rest);
        words
    }

    /// False for a word that is not about TLS.
    fn take(&mut self, key: &str, value: String) -> bool {
        match key {
            "sslmode" => self.mode = Some(value),
            "sslrootcert" => self.roots = Some(value),
            _ => return false,
        }
        true
    }
}

/// The value that `text` begins with and how many bytes it takes; `None` if its quote is never closed. A backslash takes
/// the next character as it is.
fn value(text: &str) -> Option<(String, usize)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' if quoted => return Some((value, at + 1)),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            c if c.is_whitespace() && !quoted => return Some((value, at)),
            c => value.push(c),
        }
    }
    (!quoted).then_some((value, text.len()))
}
