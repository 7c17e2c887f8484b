//! System call filters as lists. Processes that never start a program have a list of what they may call, and die at
//! the first other call; processes that do have a list of what neither they nor anything they start may call.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
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
    SYS_fchmodat,
    SYS_fchown,
    SYS_fchownat,
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
    // Threads.
    SYS_clone3,
    SYS_clone,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_prctl,
];
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
    SYS_chmod,
    SYS_chown,
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
const TAMPERING_PORTS: &[Call] = calls![SYS_iopl, SYS_ioperm];
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

impl Filter {
    fn new(kind: Kind, lists: &[&[Call]]) -> Self {
        let mut calls: Vec<_> = lists.concat();
        calls.sort_unstable();
        calls.dedup();
        Self {
            calls,
            kind,
            families: Families::Any,
        }
    }

    /// The front: connections and nothing else.
    pub fn sockets_only() -> Self {
        Self::new(Kind::Only, &[LIFE, LIFE_OLD, SERVING])
    }

    /// Ledger and keys: files, no sockets of their own, no programs.
    pub fn files_only() -> Self {
        Self::new(Kind::Only, &[LIFE, LIFE_OLD, FILES, FILES_OLD])
    }

    /// Net: programs, but no way to a unix socket of the host, which Landlock below ABI 9 does not guard.
    pub fn no_unix_sockets() -> Self {
        let mut filter = Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS, NAMESPACES]);
        filter.families = Families::AllBut(families![AF_UNIX, AF_VSOCK, AF_PACKET, AF_BLUETOOTH]);
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
        (only, self.calls.iter().map(|call| call.name()))
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
            Backend::Proxmox => Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS]),
            Backend::Embedded => Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS, NAMESPACES]),
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
        let rules: BTreeMap<i64, Vec<SeccompRule>> = self
            .calls
            .iter()
            .map(|call| (call.number, Vec::new()))
            .collect();
        let mut programs: Vec<BpfProgram> = Vec::new();
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
