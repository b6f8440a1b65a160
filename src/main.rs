//! The binary `rowseal`: reads its arguments, logs to standard error and does what one subcommand says.
use std::process::ExitCode;

use rowseal::cli;

/// A statement allocates some dozens of small pieces of memory.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match cli::arguments(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(shown) => return shown,
    };
    cli::log_to_stderr(&arguments);
    cli::run(arguments)
}
