//! What a subcommand writes: text for people, or a JSON value a line for machines.
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

/// Standard output in one of two forms.
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Output { json }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether progress is drawn: for people at a terminal.
    pub(super) fn draws(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// One result, in the form that was asked for.
    pub(super) fn write(&self, text: impl AsRef<str>, json: &impl Serialize) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut stdout, json)?;
            return writeln!(stdout);
        }
        writeln!(stdout, "{}", text.as_ref())
    }
}

/// Says on standard error what is wrong.
pub(super) fn complain(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "rowseal: {message}");
    ExitCode::from(code)
}

/// True when the reader of standard output went away, as `head` does.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
