//! The binary `rowseal`: reads its arguments, logs to standard error, keeps its memory to itself and does what one
//! subcommand says.
use std::process::ExitCode;

use mimalloc::MiMalloc;
use rowseal::cli;
use rowseal::server::listener::forbid_core_dumps;
use zeroizing_alloc::ZeroAlloc;

/// A statement allocates some dozens of small pieces of memory. Each is zeroed when it is freed: keys pass through buffers
/// that are not ours to wipe, such as those of the client that speaks to the key service.
#[global_allocator]
static MEMORY: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

fn main() -> ExitCode {
    let arguments = match cli::arguments(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(shown) => return shown,
    };
    cli::log_to_stderr(&arguments);
    forbid_core_dumps();
    cli::run(arguments)
}
