//! Does a guarded program tell its end and die with its owner?
use std::path::Path;

use crate::support::guard::{Guarded, poll};

#[test]
fn a_guarded_program_tells_its_output_and_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let program = Guarded::spawn(dir.path(), Path::new("/bin/sh"), &["-c", "echo said; exit 7"]);
    assert_eq!(program.wait(), 7);
    assert_eq!(program.log(), "said\n");
}

#[test]
fn a_guarded_program_ends_by_signal_and_by_drop() {
    let dir = tempfile::tempdir().unwrap();
    let program = Guarded::spawn(dir.path(), Path::new("/bin/sleep"), &["600"]);
    program.signal("TERM");
    assert_eq!(program.wait(), 128 + 15);
    drop(program);

    let program = Guarded::spawn(dir.path(), Path::new("/bin/sleep"), &["600"]);
    let pid = program.pid().unwrap();
    drop(program);
    poll("the process to be gone", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}
