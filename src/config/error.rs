//! Errors of the configuration and the places they name.
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{file}:{line}:{column}: {message}")]
    Invalid {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// An environment variable is wrong.
    #[error("environment variable {name}: {message}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong.
        message: String,
    },
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// These bytes of the file.
    File(Range<usize>),
    /// An environment variable.
    Variable(String),
}

/// The text of the file, to turn places into lines and columns.
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Source { path, text }
    }

    /// An error at this place.
    pub(super) fn error(&self, place: &Place, message: impl Into<String>) -> ConfigError {
        match place {
            Place::File(range) => self.at(range.start, message.into()),
            Place::Variable(name) => ConfigError::Variable { name: name.clone(), message: message.into() },
        }
    }

    /// The parser's own error.
    pub(super) fn toml(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map_or(0, |span| span.start);
        self.at(start, error.message().lines().collect::<Vec<_>>().join(", "))
    }

    /// A path of the file: relative to the directory that the file is in.
    pub(super) fn relative(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// The file's own path.
    pub(super) fn path(&self) -> &Path {
        self.path
    }

    fn at(&self, offset: usize, message: String) -> ConfigError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConfigError::Invalid {
            file: self.path.display().to_string(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
        }
    }
}
