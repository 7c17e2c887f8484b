//! Landlock, as far as this kernel offers it: rules are paths with rights, everything not named is refused.
//! Bits unknown to the running ABI are masked out, so one table serves every kernel.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::check;

/// Execute a file.
pub const EXECUTE: u64 = 1;
/// Open for writing.
pub const WRITE_FILE: u64 = 1 << 1;
/// Open for reading.
pub const READ_FILE: u64 = 1 << 2;
/// List a directory.
pub const READ_DIR: u64 = 1 << 3;
/// Remove and make every kind of entry but device nodes.
pub const EDIT_DIR: u64 =
    REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM | REFER;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const MAKE_SYM: u64 = 1 << 12;
/// Link or rename across directories (ABI 2).
const REFER: u64 = 1 << 13;
/// Truncate (ABI 3).
pub const TRUNCATE: u64 = 1 << 14;
/// Device ioctl (ABI 5).
pub const IOCTL_DEV: u64 = 1 << 15;

/// Rights that make sense on something that is not a directory.
const FILE_RIGHTS: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

/// Read files and list directories.
pub const READ: u64 = READ_FILE | READ_DIR;
/// Read and execute.
pub const READ_EXECUTE: u64 = READ | EXECUTE;
/// Put whole files there, also in the place of others, and take them away; what is in them cannot be changed, and directories
/// stay where they are.
pub const EXCHANGE: u64 = REMOVE_FILE | MAKE_REG | REFER;
/// Read, write, create, remove.
pub const READ_WRITE: u64 = READ | WRITE_FILE | TRUNCATE | EDIT_DIR;

/// Rights in words, for the printed tables.
pub fn words(rights: u64) -> Vec<&'static str> {
    [
        (READ_FILE, "read"),
        (READ_DIR, "list"),
        (EXECUTE, "execute"),
        (WRITE_FILE, "write"),
        (MAKE_REG, "create and remove"),
        (IOCTL_DEV, "device ioctl"),
    ]
    .into_iter()
    .filter(|(right, _)| rights & right != 0)
    .map(|(_, word)| word)
    .collect()
}

/// TCP bind and connect (ABI 4).
const NET_ALL: u64 = 3;
const NET_CONNECT: u64 = 2;
/// Abstract unix sockets and signals to processes outside (ABI 6).
const SCOPE_ALL: u64 = 3;

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: RawFd,
}

#[repr(C)]
struct NetPortAttr {
    allowed_access: u64,
    port: u64,
}

/// What the process may still reach.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    /// Path and rights; paths that do not exist are left out.
    pub paths: Vec<(std::path::PathBuf, u64)>,
    /// Whether TCP ports may be bound and connected to.
    pub tcp: bool,
    /// TCP ports that may be connected to all the same.
    pub connect: &'static [u16],
    /// Whether signals may be sent to processes outside.
    pub signals: bool,
}

/// The ABI of the running kernel; 0 without Landlock.
pub fn abi() -> u32 {
    // SAFETY: a null attribute of size 0 with LANDLOCK_CREATE_RULESET_VERSION (1) only asks for a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            1u32,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

fn handled_fs(abi: u32) -> u64 {
    let all =
        EXECUTE | WRITE_FILE | READ | EDIT_DIR | MAKE_CHAR | MAKE_BLOCK | TRUNCATE | IOCTL_DEV;
    match abi {
        0 => 0,
        1 => all & !(REFER | TRUNCATE | IOCTL_DEV),
        2 => all & !(TRUNCATE | IOCTL_DEV),
        3 | 4 => all & !IOCTL_DEV,
        _ => all,
    }
}

/// Puts a prepared ruleset in force for the calling thread and its children. Allocates nothing, so that it may be called
/// between fork and exec.
///
/// # Errors
/// The kernel's: no such ruleset, `no_new_privs` not set, or more than 16 layers.
pub fn enforce(ruleset: RawFd) -> io::Result<()> {
    // SAFETY: restricts this thread; passes two integers and no memory, and a number that is no ruleset is refused.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0u32) })?;
    Ok(())
}

/// Makes a ruleset that [`enforce`] can put in force any number of times.
///
/// # Errors
/// The kernel's; a path that does not exist is not an error.
pub fn prepare(rules: &Ruleset) -> io::Result<OwnedFd> {
    let abi = abi();
    let handled = handled_fs(abi);
    let scope = if rules.signals {
        SCOPE_ALL & !2
    } else {
        SCOPE_ALL
    };
    let attr = RulesetAttr {
        handled_access_fs: handled,
        handled_access_net: if abi >= 4 && !rules.tcp { NET_ALL } else { 0 },
        scoped: if abi >= 6 { scope } else { 0 },
    };
    let size: usize = match abi {
        0 => return Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        1..=3 => 8,
        4 | 5 => 16,
        _ => 24,
    };
    // SAFETY: `attr` is a live struct of at least `size` bytes laid out as the kernel's landlock_ruleset_attr.
    let raw = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attr,
            size,
            0u32,
        )
    })?;
    let raw = RawFd::try_from(raw).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the descriptor is new and nobody else knows it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(raw) };
    for (path, rights) in &rules.paths {
        add_path(&ruleset, path, rights & handled)?;
    }
    if attr.handled_access_net != 0 {
        for &port in rules.connect {
            add_port(&ruleset, port)?;
        }
    }
    Ok(ruleset)
}

fn add_port(ruleset: &OwnedFd, port: u16) -> io::Result<()> {
    let attr = NetPortAttr {
        allowed_access: NET_CONNECT,
        port: port.into(),
    };
    // SAFETY: `attr` is laid out as landlock_net_port_attr and lives through the call; the descriptor is open. 2 is
    // LANDLOCK_RULE_NET_PORT.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            2u32,
            &raw const attr,
            0u32,
        )
    })?;
    Ok(())
}

fn add_path(ruleset: &OwnedFd, path: &Path, rights: u64) -> io::Result<()> {
    let target = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(target) => target,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let is_dir = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode).is_dir();
    let allowed_access = if is_dir { rights } else { rights & FILE_RIGHTS };
    let attr = PathBeneathAttr {
        allowed_access,
        parent_fd: target.as_raw_fd(),
    };
    // SAFETY: `attr` is laid out as landlock_path_beneath_attr (packed) and lives through the call; both descriptors are open.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            1u32,
            &raw const attr,
            0u32,
        )
    })?;
    Ok(())
}
