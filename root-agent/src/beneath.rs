//! The one way to a file that somebody else may have named or put there: below a directory that is held open, never out of
//! it, never along a link. Used by the compartments that have files; what is opened is judged by them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::path::Arg;

/// To read what may be anything: without waiting for a pipe's other end, without making a terminal ours.
pub const READ_FOREIGN: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Opens what is there already, closed on exec; see openat2(2).
///
/// # Errors
/// `ELOOP` for any link on the way, `EXDEV` for a way out of the directory or onto another file system, else as `open`.
pub fn open_beneath(
    directory: impl AsFd,
    relative: impl Arg,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    openat2(
        directory,
        relative,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}

/// Opens what is there already under this name in the directory itself, for a process whose filter leaves it no `openat2`.
///
/// # Errors
/// `EINVAL` for what is more than a name, `ELOOP` for a link, else as `open`.
pub fn open_entry(directory: impl AsFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    if matches!(name, "" | "." | "..") || name.contains('/') {
        return Err(Errno::INVAL);
    }
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}
