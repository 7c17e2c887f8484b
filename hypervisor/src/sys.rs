//! System calls that std lacks: confined opening, the tap ioctl, user lookup, random bytes.
//! The only unsafe code of the crate is the tap ioctl, the Landlock calls, close_range, unshare and setfsuid here.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::host::Ids;

/// Between two tries to lock a file.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Opens `name` below `dir`; no component may be a link or leave the tree.
///
/// # Errors
/// `EXDEV` for escapes, `ELOOP` for links, else as `open`.
pub fn open_beneath(dir: impl AsFd, name: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        dir,
        name,
        flags | OFlags::CLOEXEC,
        mode,
        resolve,
    )?)
}

/// Opens a directory by a path of ours (not a client's). Not through a link: the snippets directory belongs to an
/// unprivileged user, who may put a link to another directory in its place.
///
/// # Errors
/// As `open`.
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        CWD,
        path,
        OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Asks for a lock on a file again and again for as long as `wait`; whether it was had. What somebody has for a moment only is
/// no reason to give up: who looks whether a file is locked, and a program that is being started and still has a copy of what a
/// process had open that was killed.
///
/// # Errors
/// As `flock`.
pub fn lock_within(file: impl AsFd, operation: FlockOperation, wait: Duration) -> io::Result<bool> {
    let end = Instant::now() + wait;
    loop {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
}

/// A path that leads to the directory behind a descriptor, whatever its name is now.
pub fn descriptor_path(dir: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

/// Reads a whole regular file, refusing anything longer than `limit` bytes.
///
/// # Errors
/// `InvalidData` for what is no regular file or too long.
pub fn read_limited(file: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("longer than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

/// Keeps a descriptor open across the next exec.
///
/// # Errors
/// As `fcntl`.
pub fn inherit(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
}

/// Closes every descriptor above standard error on exec, those that were inherited among them.
///
/// # Errors
/// As `close_range`.
#[expect(
    unsafe_code,
    reason = "rustix has no close_range; with this flag it closes nothing now"
)]
pub fn keep_from_children() -> io::Result<()> {
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

/// From now on this process and what it starts can make no file longer than this; whoever tries is ended (SIGXFSZ).
///
/// # Errors
/// The kernel's.
pub fn limit_file_size(bytes: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Fsize).maximum;
    let most = Some(now.unwrap_or(bytes).min(bytes));
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    Ok(setrlimit(Resource::Fsize, limit)?)
}

/// Leaves this thread, and what it starts, without a network and without a way to more privileges by a setuid program.
///
/// # Errors
/// The kernel's; leaving the network needs root's rights in the caller's user name space.
#[expect(
    unsafe_code,
    reason = "unsharing is unsafe for what it may do to descriptors, which a network name space of its own does not touch"
)]
pub fn leave_network() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: only the network name space is left; descriptors and memory stay shared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Bytes from the kernel's random source.
///
/// # Errors
/// When `/dev/urandom` cannot be read.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// uid and gid of a system user, from `/etc/passwd` (a machine's processes never depend on a directory service).
///
/// # Errors
/// When `/etc/passwd` cannot be read; an unknown user is `Ok(None)`.
pub fn lookup_user(name: &str) -> io::Result<Option<(u32, u32)>> {
    let passwd = std::fs::read(Path::new(OsStr::new("/etc/passwd")))?;
    let found = passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = std::str::from_utf8(line).ok()?.split(':');
        (fields.next()? == name).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, fields.next()?.parse().ok()?))
    });
    Ok(found)
}

/// Name of the user with that uid, from `/etc/passwd`.
///
/// # Errors
/// When `/etc/passwd` cannot be read; an unknown user is `Ok(None)`.
pub fn user_name(uid: u32) -> io::Result<Option<String>> {
    let passwd = std::fs::read(Path::new(OsStr::new("/etc/passwd")))?;
    Ok(passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = std::str::from_utf8(line).ok()?.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    }))
}

/// This host's name, as Proxmox's node name.
pub fn node_name() -> String {
    let uname = rustix::system::uname();
    uname
        .nodename()
        .to_str()
        .unwrap_or("localhost")
        .split('.')
        .next()
        .unwrap_or("localhost")
        .to_owned()
}

/// Looks at something in a thread that has this user's identity in the eyes of file systems, `/proc` among them. A unit's
/// ProtectProc= hides from root the processes of others, unless it may trace them. What tracing and signals go by stays the
/// caller's: the user's processes, machines that may be anybody's, get no hold on this one. Who may not become the user sees what
/// it sees.
///
/// # Panics
/// Never; what panics in the thread is `None`.
pub fn seen_by<T: Send>(user: Option<Ids>, look: impl FnOnce() -> T + Send) -> Option<T> {
    let as_user = || {
        if let Some(ids) = user {
            become_in_files(ids);
        }
        look()
    };
    std::thread::scope(|scope| scope.spawn(as_user).join().ok())
}

#[expect(
    unsafe_code,
    reason = "rustix has neither call; they set two numbers of this thread"
)]
fn become_in_files(ids: Ids) {
    // SAFETY: sets a number of this thread and touches no memory; a refusal is no error, it leaves the number as it is.
    unsafe { libc::setfsgid(ids.gid) };
    // SAFETY: likewise.
    unsafe { libc::setfsuid(ids.uid) };
}

/// Creates (or attaches to) the tap device `name` and returns the descriptor that keeps it alive. The device is not
/// persistent: it vanishes with the last descriptor, so a crashed QEMU leaves no port in the bridge.
///
/// # Errors
/// When `/dev/net/tun` cannot be opened or the kernel refuses the name.
pub fn open_tap(name: &str) -> io::Result<OwnedFd> {
    let tun = rustix::fs::open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )?;
    tap::attach(&tun, name)?;
    Ok(tun)
}

#[expect(
    unsafe_code,
    reason = "TUNSETIFF has no safe wrapper; its argument is a plain struct the kernel only reads here"
)]
mod tap {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::ioctl::{Opcode, Setter, ioctl};

    const TUNSETIFF: Opcode = 0x4004_54ca;
    const IFF_TAP: i16 = 0x0002;
    const IFF_NO_PI: i16 = 0x1000;
    const IFF_VNET_HDR: i16 = 0x4000;

    /// `struct ifreq` as TUNSETIFF reads it: 16 bytes of name, flags, padding to 40 bytes.
    #[repr(C)]
    struct IfReq {
        name: [u8; 16],
        flags: i16,
        padding: [u8; 22],
    }

    pub(super) fn attach(tun: &OwnedFd, name: &str) -> io::Result<()> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() > 15 || bytes.contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("'{name}' is no interface name"),
            ));
        }
        let mut request = IfReq {
            name: [0; 16],
            flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
            padding: [0; 22],
        };
        request
            .name
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
        // SAFETY: the opcode is TUNSETIFF, whose argument is a pointer to a `struct ifreq`, which IfReq is.
        let setter = unsafe { Setter::<TUNSETIFF, IfReq>::new(request) };
        // SAFETY: `setter` owns the request for the whole call; the kernel copies it in and writes back at most its size.
        unsafe { ioctl(tun, setter) }?;
        Ok(())
    }
}

/// Puts this process and what it becomes into a Landlock domain of its own, in which no file can be opened for writing,
/// made, removed or renamed. A process of a domain cannot look into one of another, nor, from ABI 6 on, signal anything or
/// reach an abstract socket outside of it. Without Landlock in the kernel nothing happens: whether that is acceptable is
/// the agent's policy.
///
/// # Errors
/// The kernel's, other than that it has no Landlock.
pub fn own_domain() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    landlock::restrict()
}

#[expect(
    unsafe_code,
    reason = "rustix has no Landlock calls; they take plain structs that the kernel only reads"
)]
pub mod landlock {
    //! Landlock's calls.

    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

    /// Write file, remove directory and file, make anything: what the first version of Landlock knows of changing.
    const CHANGES: u64 = 1 << 1 | 0b1_1111_1111 << 4;

    /// Abstract Unix sockets and signals, which ABI 6 knows to keep within a domain.
    const SCOPES: u64 = 0b11;
    const VERSION: u32 = 1;

    /// `struct landlock_ruleset_attr` of ABI 6.
    #[repr(C)]
    struct Attributes {
        files: u64,
        net: u64,
        scoped: u64,
    }

    /// Newest version of Landlock's interface in this kernel; 0 without Landlock.
    pub fn abi() -> i64 {
        // SAFETY: with this flag the call takes no memory and makes nothing.
        let version = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<Attributes>(),
                0usize,
                VERSION,
            )
        };
        version.max(0)
    }

    pub(super) fn restrict() -> io::Result<()> {
        let attributes = Attributes {
            files: CHANGES,
            net: 0,
            scoped: SCOPES,
        };
        let size = if abi() < 6 {
            size_of_val(&attributes.files)
        } else {
            size_of_val(&attributes)
        };
        // SAFETY: the attributes are landlock_ruleset_attr as ABI 6 has it, of which the first field is all of ABI 1.
        let raw = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attributes,
                size,
                0u32,
            )
        };
        if raw < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOSYS | libc::EOPNOTSUPP) => Ok(()),
                _ => Err(error),
            };
        }
        let raw = RawFd::try_from(raw).map_err(io::Error::other)?;
        // SAFETY: the descriptor is new and nobody else knows it.
        let ruleset = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: restricts this thread with a descriptor we own; no memory is passed.
        let done =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0u32) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_as_a_machines_user_gives_it_no_hold_on_itself() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can look as somebody else");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        let (uid, gid) = (64_998, 64_997);
        std::os::unix::fs::chown(&secret, Some(0), Some(0)).unwrap();
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, own).unwrap();
        let looked = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                line.unwrap()
                    .split_ascii_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            (line("Uid:"), line("Gid:"), File::open(&secret).is_ok())
        };
        // Real, effective and saved are what signals and tracing go by; the fourth is that of files.
        let (users, groups, reads) = seen_by(Some(Ids { uid, gid }), looked).unwrap();
        assert_eq!(
            (users.as_str(), groups.as_str()),
            ("0 0 0 64998", "0 0 0 64997")
        );
        assert!(!reads, "it sees what is root's");
        let (users, _, reads) = looked();
        assert_eq!(
            (users.as_str(), reads),
            ("0 0 0 0", true),
            "this thread stays root's"
        );
    }
}
