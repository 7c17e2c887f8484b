//! Starts our own processes: this executable again, with its descriptors at fixed numbers and nothing else.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// First number that inherited descriptors are placed at, in order.
pub const FIRST_DESCRIPTOR: i32 = 3;

/// Above every number that is placed; sources are moved here first so that placing cannot overwrite one.
const PARKING: i32 = 64;

/// Starts this executable as `internal <role>` with `descriptors` at 3, 4, ... and an empty environment.
/// Standard input and output are `/dev/null`, standard error is ours.
///
/// # Errors
/// When the process cannot be started.
#[expect(
    clippy::disallowed_methods,
    reason = "re-executes ourselves; the exec module is for foreign programs"
)]
pub fn respawn(role: &str, descriptors: &[OwnedFd]) -> io::Result<Child> {
    let sources: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(format!("blockhost-root-agent: {role}"))
        .args(["internal", role])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let place = move || {
        let mut parked = [-1i32; 16];
        for (slot, &source) in parked.iter_mut().zip(&sources) {
            // SAFETY: duplicates an open descriptor of this process; async-signal-safe.
            *slot = unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, PARKING) };
            if *slot < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (target, &source) in (FIRST_DESCRIPTOR..).zip(parked.iter().take(sources.len())) {
            // SAFETY: both numbers are ours; dup2 is async-signal-safe and clears close-on-exec on the copy.
            if unsafe { libc::dup2(source, target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure allocates nothing, takes no lock and calls only async-signal-safe functions.
    unsafe { command.pre_exec(place) };
    command.spawn()
}
