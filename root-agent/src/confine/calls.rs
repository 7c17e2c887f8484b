//! Lists of system calls and socket families by what they are for. What a filter does with them is `syscalls`'.

use crate::sys::SIOCGSKNS;

/// A system call of this architecture, with its name for the printed tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub(super) number: libc::c_long,
    pub(super) name: &'static str,
}

impl Call {
    /// The kernel's name.
    pub fn name(self) -> &'static str {
        self.name.strip_prefix("SYS_").unwrap_or(self.name)
    }
}

macro_rules! calls {
    ($($name:ident),* $(,)?) => {
        &[$(Call { number: libc::$name, name: stringify!($name) }),*]
    };
}

/// A socket family, with its name for the printed tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    pub(super) number: libc::c_int,
    pub(super) name: &'static str,
}

macro_rules! families {
    ($($name:ident),* $(,)?) => {
        &[$(Family { number: libc::$name, name: stringify!($name) }),*]
    };
}
pub(super) use families;

/// Sockets that stay on this machine.
pub const UNIX: &[Family] = families![AF_UNIX];
/// Sockets of virt-customize where it may fetch packages.
pub const UNIX_AND_INTERNET: &[Family] = families![AF_UNIX, AF_INET, AF_INET6];
/// Sockets to the kernel.
pub const NETLINK: &[Family] = families![AF_NETLINK];

/// Memory, time, threads, signals, exit: what any process of ours does.
pub(super) const LIFE: &[Call] = calls![
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_close,
    SYS_fcntl,
    SYS_mmap,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_mprotect,
    SYS_brk,
    SYS_futex,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_getrandom,
    SYS_getpid,
    SYS_gettid,
    SYS_tgkill,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_restart_syscall,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_exit,
    SYS_exit_group,
    SYS_ppoll,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_recvfrom,
    SYS_sendto,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_shutdown,
];

/// Old names of the same calls, on architectures that have them.
#[cfg(target_arch = "x86_64")]
pub(super) const LIFE_OLD: &[Call] = calls![SYS_poll, SYS_epoll_wait, SYS_time];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const LIFE_OLD: &[Call] = calls![];

/// Serving connections that arrive on an open listener. No `socket`, no `connect`, no `open`.
pub(super) const SERVING: &[Call] = calls![
    SYS_accept4,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getpeername,
    SYS_getsockname,
];

/// Files below a directory that Landlock names.
pub(super) const FILES: &[Call] = calls![
    SYS_openat,
    SYS_openat2,
    SYS_pread64,
    SYS_pwrite64,
    SYS_pwritev,
    SYS_pwritev2,
    SYS_preadv,
    SYS_lseek,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_fstatfs,
    SYS_statfs,
    SYS_fsync,
    SYS_fdatasync,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fadvise64,
    SYS_renameat,
    SYS_renameat2,
    SYS_unlinkat,
    SYS_linkat,
    SYS_mkdirat,
    SYS_getdents64,
    SYS_fchmod,
    SYS_fchown,
    SYS_flock,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_readlinkat,
    SYS_getcwd,
    SYS_geteuid,
    SYS_getuid,
    SYS_getegid,
    SYS_getgid,
    SYS_dup,
    SYS_dup3,
    SYS_uname,
];

/// What starting a thread takes besides what [`THREADS`] judges.
pub(super) const THREADING: &[Call] = calls![SYS_clone3, SYS_set_robust_list, SYS_rseq,];

/// Connecting to a socket, and looking which directory is the root.
pub(super) const CONNECTING: &[Call] = calls![
    SYS_socket,
    SYS_connect,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
];
#[cfg(target_arch = "x86_64")]
pub(super) const CONNECTING_OLD: &[Call] = calls![SYS_stat];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const CONNECTING_OLD: &[Call] = &[];
#[cfg(target_arch = "x86_64")]
pub(super) const FILES_OLD: &[Call] = calls![
    SYS_open,
    SYS_stat,
    SYS_lstat,
    SYS_rename,
    SYS_unlink,
    SYS_link,
    SYS_mkdir,
    SYS_rmdir,
    SYS_access,
    SYS_readlink,
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const FILES_OLD: &[Call] = calls![];

/// What no part of the product ever does, whatever it runs: change the kernel, the clock, the mounts, other processes.
pub(super) const TAMPERING: &[Call] = calls![
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_reboot,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_acct,
    SYS_quotactl,
    SYS_swapon,
    SYS_swapoff,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_open_by_handle_at,
    SYS_vhangup,
    SYS_syslog,
];
#[cfg(target_arch = "x86_64")]
pub(super) const TAMPERING_PORTS: &[Call] = calls![SYS_iopl, SYS_ioperm, SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const TAMPERING_PORTS: &[Call] = calls![];

/// Refused where nothing that runs needs a namespace or a mount of its own.
pub(super) const NAMESPACES: &[Call] = calls![
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_setns,
    SYS_unshare,
    SYS_fsopen,
    SYS_fsmount,
    SYS_move_mount,
    SYS_open_tree,
    SYS_mount_setattr,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
];

/// Entering network namespaces, and speaking netlink there. Nothing with a path, no thread, no process.
pub(super) const ENTERING: &[Call] = calls![SYS_bind, SYS_setsockopt, SYS_pidfd_open, SYS_fstat];

/// Refused to programs that have no helpers.
pub(super) const SPAWNING: &[Call] = calls![SYS_clone, SYS_clone3];
#[cfg(target_arch = "x86_64")]
pub(super) const SPAWNING_OLD: &[Call] = calls![SYS_fork, SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const SPAWNING_OLD: &[Call] = &[];

/// A call that an argument decides about. The whole of the conditions has to hold for the verdict on listed calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    pub call: Call,
    /// In words, for the printed tables.
    pub name: &'static str,
    /// Any of these, each with all of its conditions.
    pub cases: &'static [&'static [Condition]],
}

/// What an argument has to be: number of the argument, then the value or mask and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Is(u8, u64),
    IsNot(u8, u64),
    Masked(u8, u64, u64),
}

macro_rules! judged {
    ($($name:ident $words:literal: $cases:expr),* $(,)?) => {
        &[$(Judged {
            call: Call { number: libc::$name, name: stringify!($name) },
            name: $words,
            cases: $cases,
        }),*]
    };
}

const CLONE_THREAD: u64 = 0x0001_0000;
const CLONE_NEWNS: u64 = 0x0002_0000;
const CLONE_NEWCGROUP: u64 = 0x0200_0000;
const CLONE_NEWUTS: u64 = 0x0400_0000;
const CLONE_NEWIPC: u64 = 0x0800_0000;
const CLONE_NEWUSER: u64 = 0x1000_0000;
const CLONE_NEWPID: u64 = 0x2000_0000;
const CLONE_NEWNET: u64 = 0x4000_0000;
const CLONE_NEW: u64 = CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET;
const PR_SET_NAME: u64 = 15;
const NETLINK_ROUTE: u64 = 0;

/// Threads and their names, but no process, no namespace, and nothing that undoes a confinement.
pub(super) const THREADS: &[Judged] = judged![
    SYS_clone "clone (threads)":
        &[&[Condition::Masked(0, CLONE_NEW | CLONE_THREAD, CLONE_THREAD)]],
    SYS_prctl "prctl (names)": &[&[Condition::Is(0, PR_SET_NAME)]],
];

/// `O_CREAT` and what makes `O_TMPFILE` of `O_DIRECTORY`.
const O_MAKES: u64 = 0o2000_0100;
/// Bits that no file of the keys process has: others write, anybody executes, or whoever does is another then.
const IMMODEST_FILE: u64 = 0o7777 & !0o644;
/// The same of its directories.
const IMMODEST_DIRECTORY: u64 = 0o7777 & !0o755;

/// The same, and modes of files that at most their owner writes, and everybody else reads. That is the whole mode, so that no
/// mask has to take something from it; and no `openat2`, whose modes are in memory, where no filter looks.
pub(super) const MODEST_FILES: &[Judged] = judged![
    SYS_clone "clone (threads)":
        &[&[Condition::Masked(0, CLONE_NEW | CLONE_THREAD, CLONE_THREAD)]],
    SYS_prctl "prctl (names)": &[&[Condition::Is(0, PR_SET_NAME)]],
    SYS_fchmod "fchmod (within 0644)": &[&[Condition::Masked(1, IMMODEST_FILE, 0)]],
    SYS_openat "openat (new files within 0644)": &[
        &[Condition::Masked(2, O_MAKES, 0)],
        &[Condition::Masked(3, IMMODEST_FILE, 0)],
    ],
    SYS_mkdirat "mkdirat (within 0755)": &[&[Condition::Masked(2, IMMODEST_DIRECTORY, 0)]],
];

/// Sockets for devices, addresses and routes; the network namespace of another process and no other of its namespaces; and
/// which one a socket is of.
pub(super) const NETWORK_NAMESPACE: &[Judged] = judged![
    SYS_socket "socket (routes)": &[&[Condition::Is(2, NETLINK_ROUTE)]],
    SYS_setns "setns (network)": &[&[Condition::Is(1, CLONE_NEWNET)]],
    SYS_ioctl "ioctl (a socket's namespace)": &[&[Condition::Is(1, SIOCGSKNS)]],
];

/// Refused to whatever needs no namespace and has no business with other processes of its user: without this, a process
/// limits, slows or stops its siblings without a signal.
pub(super) const OTHERS: &[Judged] = judged![
    SYS_clone "clone (namespaces)": &[
        &[Condition::Masked(0, CLONE_NEWNS, CLONE_NEWNS)],
        &[Condition::Masked(0, CLONE_NEWCGROUP, CLONE_NEWCGROUP)],
        &[Condition::Masked(0, CLONE_NEWUTS, CLONE_NEWUTS)],
        &[Condition::Masked(0, CLONE_NEWIPC, CLONE_NEWIPC)],
        &[Condition::Masked(0, CLONE_NEWUSER, CLONE_NEWUSER)],
        &[Condition::Masked(0, CLONE_NEWPID, CLONE_NEWPID)],
        &[Condition::Masked(0, CLONE_NEWNET, CLONE_NEWNET)],
    ],
    SYS_prlimit64 "prlimit64 (others)": &[&[Condition::IsNot(0, 0)]],
    SYS_setpriority "setpriority (others)": &[&[Condition::IsNot(1, 0)]],
    SYS_ioprio_set "ioprio_set (others)": &[&[Condition::IsNot(1, 0)]],
    SYS_sched_setscheduler "sched_setscheduler (others)": &[&[Condition::IsNot(0, 0)]],
    SYS_sched_setparam "sched_setparam (others)": &[&[Condition::IsNot(0, 0)]],
    SYS_sched_setattr "sched_setattr (others)": &[&[Condition::IsNot(0, 0)]],
    // Linux, 32-bit Linux, and the question; not the flags that make memory executable or its layout known.
    SYS_personality "personality (flags)": &[&[
        Condition::IsNot(0, 0),
        Condition::IsNot(0, 8),
        Condition::IsNot(0, 0xffff_ffff),
    ]],
];
