//! The calls that need `unsafe`: what rustix does not wrap. Every function here is a safe interface to one call.
//! No decisions live here; callers are `confine`, `front`, `supervisor` and `child`.
#![allow(unsafe_code)]

pub mod landlock;
pub mod spawn;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Turns a libc return value into a result.
fn check(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// Takes over a descriptor that this process was started with.
///
/// # Errors
/// `EBADF` when there is no such open descriptor, `EINVAL` below 3.
pub fn take_inherited(raw: RawFd) -> io::Result<OwnedFd> {
    if raw < 3 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: F_GETFD only reads the descriptor table; a bad number is reported as EBADF.
    check(unsafe { libc::fcntl(raw, libc::F_GETFD) }.into())?;
    // SAFETY: F_SETFD only changes the close-on-exec flag of a descriptor that was just found open.
    check(unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: the descriptor is open, was made by our parent for us, and callers take each number once, at start,
    // before anything else in this process opens or owns descriptors.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Closes every descriptor from `first` on.
///
/// # Errors
/// The kernel's, for example `ENOSYS` before Linux 5.9.
pub fn close_from(first: RawFd) -> io::Result<()> {
    let first =
        libc::c_uint::try_from(first).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: called at the start of a child before it owns descriptors at or above `first`; nothing refers to them.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) })?;
    Ok(())
}

/// Looks at what is a user's as that user would: with its identity in the eyes of file systems, `/proc` among them, and without
/// the rights of root over files. What tracing and signals go by stays root's, so that the user gets no hold on this process.
/// A user's processes can be looked at then without `CAP_SYS_PTRACE`. Where the calls are filtered away, nothing changes.
pub fn in_the_eyes_of<T>(uid: u32, gid: u32, look: impl FnOnce() -> T) -> T {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            // To what this thread goes by otherwise, which needs no right.
            become_in_files(
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            );
        }
    }
    let _back = Back;
    become_in_files(uid, gid);
    look()
}

fn become_in_files(uid: u32, gid: u32) {
    // SAFETY: sets a number of this thread; a refusal is no error, it leaves it as it is.
    unsafe { libc::setfsgid(gid) };
    // SAFETY: likewise.
    unsafe { libc::setfsuid(uid) };
}

/// Blocks the signals and returns a descriptor they can be read from.
///
/// # Errors
/// The kernel's.
pub fn signal_descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: `set` is initialised and lives through the call; the old mask is not asked for.
    let blocked =
        unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    check(blocked.into())?;
    // SAFETY: `set` is initialised; -1 asks for a new descriptor.
    let raw = check(
        unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }
            .into(),
    )?;
    let raw = RawFd::try_from(raw).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the descriptor is new and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The signal numbers waiting in a descriptor made by [`signal_descriptor`].
pub fn read_signals(fd: BorrowedFd<'_>) -> Vec<i32> {
    let mut found = Vec::new();
    let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
    while rustix::io::read(fd, &mut record).is_ok_and(|n| n == record.len()) {
        // `ssi_signo` is the first field, a native u32.
        if let Some(head) = record.first_chunk::<4>() {
            found.push(i32::try_from(u32::from_ne_bytes(*head)).unwrap_or(0));
        }
    }
    found
}

/// Unblocks every signal; a child inherits its parent's mask.
///
/// # Errors
/// The kernel's.
pub fn unblock_signals() -> io::Result<()> {
    let set = signal_set(&[]);
    // SAFETY: `set` is initialised and lives through the call.
    let unblocked =
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
    check(unblocked.into())?;
    Ok(())
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: an all-zero sigset_t is a valid value; sigemptyset initialises it in any case.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a live, exclusively borrowed sigset_t.
    unsafe { libc::sigemptyset(&raw mut set) };
    for &signal in signals {
        // SAFETY: `set` is initialised; an invalid number is refused by the call and changes nothing.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// Supplementary groups the peer had when it connected (`SO_PEERGROUPS`); empty when the kernel does not say.
pub fn peer_groups(socket: BorrowedFd<'_>) -> Vec<u32> {
    let mut groups = vec![0u32; 256];
    let mut bytes = libc::socklen_t::try_from(groups.len() * 4).unwrap_or(0);
    // SAFETY: the buffer holds `bytes` bytes and outlives the call; the kernel writes at most that and updates `bytes`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    groups.truncate(if result == 0 { bytes as usize / 4 } else { 0 });
    groups
}

/// `SO_PEERPIDFD`, from the kernel's `asm-generic/socket.h`; libc has no name for it yet.
const SO_PEERPIDFD: libc::c_int = 77;

/// A descriptor of the peer's process. `Ok(None)` where the kernel has none to give (not supported, or the peer
/// is gone, which kernels 6.5 to 6.15 report as `EINVAL`).
///
/// # Errors
/// Any other answer of the kernel.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut raw: RawFd = -1;
    let mut bytes: libc::socklen_t = 4;
    // SAFETY: `raw` is a live i32 of the four bytes announced in `bytes`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut raw).cast(),
            &raw mut bytes,
        )
    };
    if result == 0 && raw >= 0 {
        // SAFETY: the kernel installed this descriptor for us in the call above; nobody else knows it.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(raw) }));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT | libc::EINVAL | libc::ESRCH | libc::ENODATA) => Ok(None),
        _ => Err(error),
    }
}

/// The network namespace that a socket is of. Needs `CAP_NET_ADMIN` there.
///
/// # Errors
/// The kernel's.
pub fn socket_namespace(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: SIOCGSKNS takes no argument and touches no memory of ours; it answers with a descriptor or an error.
    let raw = check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) }.into())?;
    let raw = RawFd::try_from(raw).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel made this descriptor for us in the call above; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// From the kernel's `asm-generic/sockios.h`; libc has no name for it.
pub const SIOCGSKNS: libc::c_ulong = 0x894c;

/// Makes the allocator give large buffers back to the kernel as soon as they are freed, and keep one arena.
pub fn tame_allocator() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, 128 * 1024),
        (libc::M_TRIM_THRESHOLD, 256 * 1024),
        (libc::M_ARENA_MAX, 1),
    ] {
        // SAFETY: mallopt only stores a tuning number; called before the first thread starts.
        unsafe { libc::mallopt(parameter, value) };
    }
}
