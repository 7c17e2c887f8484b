//! What a machine's process does before it becomes QEMU: a session of its own, and a Landlock domain of its own. All
//! machines run as one user; the domain keeps each from the memory and the open files of the others, and leaves it no
//! file to open for writing but the descriptors it was given.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use crate::{exec, sys};

/// Hidden command under which the program runs as the launcher.
pub const COMMAND: &str = "machine-launcher";

/// Becomes the program in the first word, with the others as its arguments. Returns only when that fails.
pub fn run(words: &[String]) -> ExitCode {
    // Fails only for a group leader, which is as good.
    let _ = rustix::process::setsid();
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        eprintln!("{what}: {e}");
        ExitCode::from(7)
    };
    if let Err(e) = sys::own_domain() {
        return failed("Landlock", &e);
    }
    match words.split_first() {
        Some((program, args)) => failed(program, &exec::become_program(program, args)),
        None => failed(COMMAND, &"no program given"),
    }
}
