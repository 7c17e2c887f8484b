//! What happens in the child between fork and exec. The only unsafe code of the agent's exec path: three system calls
//! in a place where nothing may allocate, lock or panic.
#![expect(
    unsafe_code,
    reason = "CommandExt::pre_exec is the one way to act between fork and exec; each use is argued for"
)]

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::sandbox::Sandbox;
use rustix::process::{Signal, set_parent_process_death_signal, setsid};

/// Makes the child a session of its own that dies with the thread that waits for it, and closes every descriptor above
/// standard error on exec but `pass`. What `sandbox` holds is put in force last; the caller keeps it alive over the spawn.
pub(super) fn isolate(command: &mut Command, pass: Vec<RawFd>, sandbox: Option<&Sandbox>) {
    let sandbox = sandbox.map(Sandbox::laid_out);
    let between = move || -> io::Result<()> {
        setsid()?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        close_all_on_exec()?;
        for &fd in &pass {
            keep_on_exec(fd)?;
        }
        if let Some(sandbox) = &sandbox {
            sandbox.enter()?;
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child of a possibly threaded process. It makes plain system calls on
    // memory that was allocated before the fork, and neither allocates nor locks nor panics.
    unsafe { command.pre_exec(between) };
}

fn close_all_on_exec() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC takes three integers, touches no memory and closes nothing now.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn keep_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: F_SETFD takes an integer and touches no memory; `fd` is held open by the parent across the spawn, and a
    // wrong number would only be answered with EBADF.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
