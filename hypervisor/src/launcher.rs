//! What a machine's process does before it becomes QEMU: a session of its own, and a Landlock domain of its own. All
//! machines run as one user; the domain keeps each from the memory and the open files of the others and from signalling
//! them, and leaves it no file to open for writing but the descriptors it was given.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::THREADS_OF_ALL;
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
    let now = getrlimit(Resource::Nproc).maximum;
    let most = Some(now.unwrap_or(THREADS_OF_ALL).min(THREADS_OF_ALL));
    let threads = Rlimit {
        current: most,
        maximum: most,
    };
    if let Err(e) = setrlimit(Resource::Nproc, threads) {
        return failed("the number of threads", &e);
    }
    if let Err(e) = sys::own_domain() {
        return failed("Landlock", &e);
    }
    match words.split_first() {
        Some((program, args)) => failed(program, &exec::become_program(program, args)),
        None => failed(COMMAND, &"no program given"),
    }
}
