//! System call filters as lists. Processes that never start a program have a list of what they may call, and die at
//! the first other call; processes that do have a list of what neither they nor anything they start may call.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::compartment::Backend;

/// A filter before compilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    calls: Vec<libc::c_long>,
    kind: Kind,
    /// Socket families refused with `EAFNOSUPPORT`.
    families: Vec<libc::c_int>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Everything not listed kills the process.
    Only,
    /// Everything listed fails with `EPERM`.
    AllBut,
}

/// Memory, time, threads, signals, exit: what any process of ours does.
const LIFE: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
];

/// Old names of the same calls, on architectures that have them.
#[cfg(target_arch = "x86_64")]
const LIFE_OLD: &[libc::c_long] = &[libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const LIFE_OLD: &[libc::c_long] = &[];

/// Serving connections that arrive on an open listener. No `socket`, no `connect`, no `open`.
const SERVING: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
];

/// Files below a directory that Landlock names.
const FILES: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_preadv,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_getdents64,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_flock,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_getegid,
    libc::SYS_getgid,
    libc::SYS_umask,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_uname,
    // Threads.
    libc::SYS_clone3,
    libc::SYS_clone,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_prctl,
];
#[cfg(target_arch = "x86_64")]
const FILES_OLD: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_link,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_access,
    libc::SYS_readlink,
];
#[cfg(not(target_arch = "x86_64"))]
const FILES_OLD: &[libc::c_long] = &[];

/// What no part of the product ever does, whatever it runs: change the kernel, the clock, the mounts, other processes.
const TAMPERING: &[libc::c_long] = &[
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_open_by_handle_at,
    libc::SYS_vhangup,
    libc::SYS_syslog,
];
#[cfg(target_arch = "x86_64")]
const TAMPERING_PORTS: &[libc::c_long] = &[libc::SYS_iopl, libc::SYS_ioperm];
#[cfg(not(target_arch = "x86_64"))]
const TAMPERING_PORTS: &[libc::c_long] = &[];

/// Refused where nothing that runs needs a namespace or a mount of its own.
const NAMESPACES: &[libc::c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

impl Filter {
    fn new(kind: Kind, lists: &[&[libc::c_long]]) -> Self {
        let mut calls: Vec<_> = lists.concat();
        calls.sort_unstable();
        calls.dedup();
        Self {
            calls,
            kind,
            families: Vec::new(),
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
        filter.families = vec![
            libc::AF_UNIX,
            libc::AF_VSOCK,
            libc::AF_PACKET,
            libc::AF_BLUETOOTH,
        ];
        filter
    }

    /// Vm: what QEMU and its helpers need stays; what changes the kernel goes.
    pub fn no_kernel_tampering(backend: Backend) -> Self {
        match backend {
            // Proxmox's storage layer mounts and uses namespaces.
            Backend::Proxmox => Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS]),
            Backend::Embedded => Self::new(Kind::AllBut, &[TAMPERING, TAMPERING_PORTS, NAMESPACES]),
        }
    }

    fn compile(&self) -> Result<Vec<BpfProgram>, seccompiler::Error> {
        let arch =
            TargetArch::try_from(std::env::consts::ARCH).map_err(seccompiler::Error::Backend)?;
        let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let (mismatch, matched) = match self.kind {
            Kind::Only => (SeccompAction::KillProcess, SeccompAction::Allow),
            Kind::AllBut => (SeccompAction::Allow, eperm),
        };
        let rules: BTreeMap<i64, Vec<SeccompRule>> =
            self.calls.iter().map(|&call| (call, Vec::new())).collect();
        let mut programs: Vec<BpfProgram> = Vec::new();
        if !self.families.is_empty() {
            // A second, earlier filter: the verdicts of all filters are combined, the strictest wins.
            let mut socket_rules = Vec::new();
            for &family in &self.families {
                let family = u64::from(family.unsigned_abs());
                let condition =
                    SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)?;
                socket_rules.push(SeccompRule::new(vec![condition])?);
            }
            let refuse = SeccompAction::Errno(libc::EAFNOSUPPORT.unsigned_abs());
            let rules = BTreeMap::from([(libc::SYS_socket, socket_rules)]);
            programs
                .push(SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?);
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
