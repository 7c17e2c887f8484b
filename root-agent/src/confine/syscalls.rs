//! System call filters as lists. Processes that never start a program have a list of what they may call, and die at
//! the first other call; processes that do have a list of what neither they nor anything they start may call.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::compartment::Backend;

/// A system call of this architecture, with its name for the printed tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    number: libc::c_long,
    name: &'static str,
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
    number: libc::c_int,
    name: &'static str,
}

macro_rules! families {
    ($($name:ident),* $(,)?) => {
        &[$(Family { number: libc::$name, name: stringify!($name) }),*]
    };
}

/// Sockets that stay on this machine.
pub const UNIX: &[Family] = families![AF_UNIX];
/// Sockets of virt-customize where it may fetch packages.
pub const UNIX_AND_INTERNET: &[Family] = families![AF_UNIX, AF_INET, AF_INET6];
/// Sockets to the kernel.
pub const NETLINK: &[Family] = families![AF_NETLINK];

/// Which sockets may be made; others are refused with `EAFNOSUPPORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Families {
    Any,
    AllBut(&'static [Family]),
    Only(&'static [Family]),
}

/// A filter before compilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    calls: Vec<Call>,
    kind: Kind,
    judged: &'static [Judged],
    families: Families,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Everything not listed kills the process.
    Only,
    /// Everything listed fails with `EPERM`.
    AllBut,
}

/// Memory, time, threads, signals, exit: what any process of ours does.
const LIFE: &[Call] = calls![
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
const LIFE_OLD: &[Call] = calls![SYS_poll, SYS_epoll_wait, SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const LIFE_OLD: &[Call] = calls![];

/// Serving connections that arrive on an open listener. No `socket`, no `connect`, no `open`.
const SERVING: &[Call] = calls![
    SYS_accept4,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getpeername,
    SYS_getsockname,
];

/// Files below a directory that Landlock names.
const FILES: &[Call] = calls![
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
    SYS_umask,
    SYS_dup,
    SYS_dup3,
    SYS_uname,
];

/// What starting a thread takes besides what [`THREADS`] judges.
const THREADING: &[Call] = calls![SYS_clone3, SYS_set_robust_list, SYS_rseq,];

/// Connecting to a socket, and looking which directory is the root.
const CONNECTING: &[Call] = calls![
    SYS_socket,
    SYS_connect,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
];
#[cfg(target_arch = "x86_64")]
const CONNECTING_OLD: &[Call] = calls![SYS_stat];
#[cfg(not(target_arch = "x86_64"))]
const CONNECTING_OLD: &[Call] = &[];
#[cfg(target_arch = "x86_64")]
const FILES_OLD: &[Call] = calls![
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
const FILES_OLD: &[Call] = calls![];

/// What no part of the product ever does, whatever it runs: change the kernel, the clock, the mounts, other processes.
const TAMPERING: &[Call] = calls![
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
const TAMPERING_PORTS: &[Call] = calls![SYS_iopl, SYS_ioperm, SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const TAMPERING_PORTS: &[Call] = calls![];

/// Refused where nothing that runs needs a namespace or a mount of its own.
const NAMESPACES: &[Call] = calls![
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

/// Refused to programs that have no helpers.
const SPAWNING: &[Call] = calls![SYS_clone, SYS_clone3];
#[cfg(target_arch = "x86_64")]
const SPAWNING_OLD: &[Call] = calls![SYS_fork, SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const SPAWNING_OLD: &[Call] = &[];

/// A call that an argument decides about. The whole of the conditions has to hold for the verdict on listed calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Judged {
    call: Call,
    /// In words, for the printed tables.
    name: &'static str,
    /// Any of these, each with all of its conditions.
    cases: &'static [&'static [Condition]],
}

/// What an argument has to be: number of the argument, then the value or mask and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
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

/// Threads and their names, but no process, no namespace, and nothing that undoes a confinement.
const THREADS: &[Judged] = judged![
    SYS_clone "clone (threads)":
        &[&[Condition::Masked(0, CLONE_NEW | CLONE_THREAD, CLONE_THREAD)]],
    SYS_prctl "prctl (names)": &[&[Condition::Is(0, PR_SET_NAME)]],
];

/// Refused to whatever needs no namespace and has no business with other processes of its user: without this, a process
/// limits, slows or stops its siblings without a signal.
const OTHERS: &[Judged] = judged![
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

impl Condition {
    fn compile(self) -> Result<SeccompCondition, seccompiler::Error> {
        let (argument, comparison, value) = match self {
            Self::Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
            Self::IsNot(argument, value) => (argument, SeccompCmpOp::Ne, value),
            Self::Masked(argument, mask, value) => (argument, SeccompCmpOp::MaskedEq(mask), value),
        };
        // Each of these arguments is an int or fits one.
        Ok(SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            comparison,
            value,
        )?)
    }
}

impl Judged {
    fn compile(&self) -> Result<Vec<SeccompRule>, seccompiler::Error> {
        let rule = |case: &&[Condition]| {
            let conditions = case.iter().map(|condition| condition.compile());
            Ok(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?)
        };
        self.cases.iter().map(rule).collect()
    }
}

impl Filter {
    fn new(kind: Kind, lists: &[&[Call]]) -> Self {
        let mut calls: Vec<_> = lists.concat();
        calls.sort_unstable();
        calls.dedup();
        Self {
            calls,
            kind,
            judged: match kind {
                Kind::Only => &[],
                Kind::AllBut => OTHERS,
            },
            families: Families::Any,
        }
    }

    /// The front: connections and nothing else.
    pub fn sockets_only() -> Self {
        Self::new(Kind::Only, &[LIFE, LIFE_OLD, SERVING])
    }

    /// Ledger and keys: files, no sockets of their own, no programs.
    pub fn files_only() -> Self {
        Self {
            judged: THREADS,
            ..Self::new(Kind::Only, &[LIFE, LIFE_OLD, FILES, FILES_OLD, THREADING])
        }
    }

    /// Ovs: connections to unix sockets, no files, no programs.
    pub fn unix_clients() -> Self {
        Self {
            judged: THREADS,
            families: Families::Only(UNIX),
            ..Self::new(
                Kind::Only,
                &[LIFE, LIFE_OLD, CONNECTING, CONNECTING_OLD, THREADING],
            )
        }
    }

    /// Net: programs, but no way to a unix socket of the host, which Landlock below ABI 9 does not guard.
    pub fn no_unix_sockets() -> Self {
        let mut filter = Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS, NAMESPACES]);
        filter.families = Families::AllBut(families![
            AF_UNIX,
            AF_VSOCK,
            AF_PACKET,
            AF_BLUETOOTH,
            AF_ALG
        ]);
        filter
    }

    /// Net where tunnels are a daemon's: its control socket is a unix socket. The agent turns its own users away, so its
    /// own socket stays closed to this process.
    pub fn unix_sockets_for_tunnels() -> Self {
        let mut filter = Self::no_unix_sockets();
        filter.families = Families::AllBut(families![AF_VSOCK, AF_PACKET, AF_BLUETOOTH, AF_ALG]);
        filter
    }

    /// A program that is run: nothing that changes the kernel, and no sockets but of these families.
    pub fn program(sockets: &'static [Family]) -> Self {
        let mut filter = Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS, NAMESPACES]);
        filter.families = Families::Only(sockets);
        filter
    }

    /// The same for a program that starts no others.
    pub fn lone_program(sockets: &'static [Family]) -> Self {
        let mut filter = Self::new(
            Kind::AllBut,
            &[
                TAMPERING,
                TAMPERING_PORTS,
                NAMESPACES,
                SPAWNING,
                SPAWNING_OLD,
            ],
        );
        filter.families = Families::Only(sockets);
        filter
    }

    /// Whether the calls named are the only ones (else: all but those), and their names.
    pub fn calls(&self) -> (bool, impl Iterator<Item = &'static str>) {
        let only = self.kind == Kind::Only;
        let judged = self.judged.iter().map(|judged| judged.name);
        (
            only,
            self.calls.iter().map(|call| call.name()).chain(judged),
        )
    }

    /// Which sockets may be made, in words.
    pub fn sockets(&self) -> String {
        let names = |list: &[Family]| {
            let names: Vec<&str> = list.iter().map(|family| family.name).collect();
            names.join(", ")
        };
        let makes = |call: &Call| call.number == libc::SYS_socket;
        match self.families {
            _ if self.kind == Kind::Only && !self.calls.iter().any(makes) => "none".to_owned(),
            Families::Only([]) => "none".to_owned(),
            Families::Only(list) => format!("only {}", names(list)),
            Families::AllBut(list) => format!("any but {}", names(list)),
            Families::Any => "any".to_owned(),
        }
    }

    /// Vm: what QEMU and its helpers need stays; what changes the kernel goes.
    pub fn no_kernel_tampering(backend: Backend) -> Self {
        match backend {
            // Proxmox's storage layer mounts and uses namespaces.
            Backend::Proxmox => Self {
                judged: &[],
                ..Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS])
            },
            Backend::Embedded => Self {
                families: Families::AllBut(families![AF_VSOCK, AF_BLUETOOTH, AF_ALG]),
                ..Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS, NAMESPACES])
            },
        }
    }

    /// The programs to load, in this order.
    ///
    /// # Errors
    /// When this architecture is not known to the compiler.
    pub fn compile(&self) -> Result<Vec<BpfProgram>, seccompiler::Error> {
        let arch =
            TargetArch::try_from(std::env::consts::ARCH).map_err(seccompiler::Error::Backend)?;
        let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let (mismatch, matched) = match self.kind {
            Kind::Only => (SeccompAction::KillProcess, SeccompAction::Allow),
            Kind::AllBut => (SeccompAction::Allow, eperm),
        };
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for judged in self.judged {
            rules.insert(judged.call.number, judged.compile()?);
        }
        // Without conditions the verdict is on every such call.
        rules.extend(self.calls.iter().map(|call| (call.number, Vec::new())));
        let mut programs: Vec<BpfProgram> = Vec::new();
        if self.kind == Kind::AllBut {
            programs.push(no_second_numbers());
        }
        if !self.judged.is_empty() {
            // Its flags are in memory, where no filter looks. Told that it does not exist, the C library takes `clone`.
            let action = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
            let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
            programs
                .push(SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()?);
        }
        let family = |family: &Family, comparison| {
            let number = u64::from(family.number.unsigned_abs());
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, comparison, number)
        };
        let refused: Vec<SeccompRule> = match self.families {
            Families::Any => Vec::new(),
            Families::AllBut(list) => list
                .iter()
                .map(|f| SeccompRule::new(vec![family(f, SeccompCmpOp::Eq)?]))
                .collect::<Result<_, _>>()?,
            // All conditions of one rule have to hold: it is none of them.
            Families::Only(list @ [_, ..]) => vec![SeccompRule::new(
                list.iter()
                    .map(|f| family(f, SeccompCmpOp::Ne))
                    .collect::<Result<_, _>>()?,
            )?],
            Families::Only([]) => Vec::new(),
        };
        if self.families == Families::Only(&[]) || !refused.is_empty() {
            // A second, earlier filter: the verdicts of all filters are combined, the strictest wins. An empty list of
            // conditions holds always.
            let action = SeccompAction::Errno(libc::EAFNOSUPPORT.unsigned_abs());
            let rules = BTreeMap::from([(libc::SYS_socket, refused)]);
            programs
                .push(SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()?);
        }
        programs.push(SeccompFilter::new(rules, mismatch, matched, arch)?.try_into()?);
        Ok(programs)
    }
}

/// Refuses, with `EPERM`, every call whose number has the bit of x86's third table (x32): a kernel with that table knows each
/// call under a second number, which a list of refused numbers does not have. Elsewhere no call has such a number.
fn no_second_numbers() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let statement = |code: u32, k: u32| sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: 0,
        jf: 0,
        k,
    };
    // The number is the first word of what a filter sees.
    let load = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let at_least = sock_filter {
        jf: 1,
        ..statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32)
    };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    let end = |verdict| statement(libc::BPF_RET | libc::BPF_K, verdict);
    vec![load, at_least, end(refuse), end(libc::SECCOMP_RET_ALLOW)]
}

/// Puts the filter in force for this thread and everything it starts.
///
/// # Errors
/// When it does not compile or the kernel refuses it.
pub fn apply(filter: &Filter) -> io::Result<()> {
    let programs = filter.compile().map_err(io::Error::other)?;
    for program in &programs {
        seccompiler::apply_filter(program).map_err(io::Error::other)?;
    }
    Ok(())
}
