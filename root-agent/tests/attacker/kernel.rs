//! The kernel itself: mounts, namespaces, modules, clocks, and the calls whose past is full of holes.

use crate::{Attempt, Tried, sys};

/// Every namespace.
const ALL_NAMESPACES: i32 = libc::CLONE_NEWUSER;

pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "mount",
        run: |_| sys!(libc::SYS_mount, c"none", c"/mnt", c"tmpfs", 0, 0).map(drop),
    },
    Attempt {
        name: "unmount",
        run: |_| sys!(libc::SYS_umount2, c"/mnt", libc::MNT_DETACH).map(drop),
    },
    Attempt {
        name: "mount-by-second-number",
        run: |_| {
            // The number of the same call in the table for x32 programs, where the kernel has one.
            let number = libc::SYS_mount | 0x4000_0000;
            sys!(number, c"none", c"/mnt", c"tmpfs", 0, 0).map(drop)
        },
    },
    Attempt {
        name: "pivot-root",
        run: |_| sys!(libc::SYS_pivot_root, c"/", c"/").map(drop),
    },
    Attempt {
        name: "chroot",
        run: |_| sys!(libc::SYS_chroot, c"/proc").map(drop),
    },
    Attempt {
        name: "open-filesystem",
        run: |_| sys!(libc::SYS_fsopen, c"tmpfs", 0).map(drop),
    },
    Attempt {
        name: "copy-mount",
        run: |_| sys!(libc::SYS_open_tree, libc::AT_FDCWD, c"/", 1).map(drop),
    },
    Attempt {
        name: "change-mount",
        run: |_| {
            let attributes = [0u64; 4];
            sys!(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                c"/",
                0,
                &attributes[..],
                32
            )
            .map(drop)
        },
    },
    Attempt {
        name: "unshare-user",
        run: |_| sys!(libc::SYS_unshare, libc::CLONE_NEWUSER).map(drop),
    },
    Attempt {
        name: "unshare-mounts",
        run: |_| sys!(libc::SYS_unshare, libc::CLONE_NEWNS).map(drop),
    },
    Attempt {
        name: "unshare-network",
        run: |_| sys!(libc::SYS_unshare, libc::CLONE_NEWNET).map(drop),
    },
    Attempt {
        name: "join-namespace",
        run: |_| sys!(libc::SYS_setns, 3, 0).map(drop),
    },
    Attempt {
        name: "join-network-of-sibling",
        run: |c| join(c.sibling, libc::CLONE_NEWNET),
    },
    Attempt {
        name: "join-mounts-of-sibling",
        run: |c| join(c.sibling, libc::CLONE_NEWNS),
    },
    Attempt {
        name: "join-both-of-sibling",
        run: |c| join(c.sibling, libc::CLONE_NEWNET | libc::CLONE_NEWNS),
    },
    Attempt {
        name: "join-users-of-init",
        run: |_| join(1, libc::CLONE_NEWUSER),
    },
    Attempt {
        name: "clone-into-user-namespace",
        run: |_| {
            clone(sys!(
                libc::SYS_clone,
                libc::CLONE_NEWUSER | libc::SIGCHLD,
                0,
                0,
                0,
                0
            ))
        },
    },
    Attempt {
        name: "clone-into-network-namespace",
        run: |_| {
            clone(sys!(
                libc::SYS_clone,
                libc::CLONE_NEWNET | libc::SIGCHLD,
                0,
                0,
                0,
                0
            ))
        },
    },
    Attempt {
        name: "clone3-into-user-namespace",
        run: |_| {
            let arguments = [
                u64::from(ALL_NAMESPACES.unsigned_abs()),
                0,
                0,
                0,
                17,
                0,
                0,
                0,
            ];
            clone(sys!(libc::SYS_clone3, &arguments[..], 64))
        },
    },
    Attempt {
        name: "load-module",
        run: |_| sys!(libc::SYS_init_module, 0, 0, c"").map(drop),
    },
    Attempt {
        name: "load-module-file",
        run: |_| sys!(libc::SYS_finit_module, 3, c"", 0).map(drop),
    },
    Attempt {
        name: "remove-module",
        run: |_| sys!(libc::SYS_delete_module, c"none", 0).map(drop),
    },
    Attempt {
        name: "kexec",
        run: |_| sys!(libc::SYS_kexec_load, 0, 0, 0, 0).map(drop),
    },
    Attempt {
        name: "kexec-file",
        run: |_| sys!(libc::SYS_kexec_file_load, 3, 3, 0, 0, 0).map(drop),
    },
    // With a wrong magic number: would be refused as invalid where the call itself is let through.
    Attempt {
        name: "reboot",
        run: |_| sys!(libc::SYS_reboot, 0, 0, 0, 0).map(drop),
    },
    Attempt {
        name: "bpf",
        run: |_| {
            let attributes = [0u64; 16];
            sys!(libc::SYS_bpf, 5, &attributes[..], 128).map(drop)
        },
    },
    Attempt {
        name: "perf",
        run: |_| {
            let attributes = [0u64; 16];
            sys!(libc::SYS_perf_event_open, &attributes[..], 0, -1, -1, 0).map(drop)
        },
    },
    Attempt {
        name: "io-uring",
        run: |_| {
            let mut parameters = [0u64; 15];
            sys!(libc::SYS_io_uring_setup, 1, &mut parameters[..]).map(drop)
        },
    },
    Attempt {
        name: "keyring",
        run: |_| sys!(libc::SYS_keyctl, 0, -3, 1).map(drop),
    },
    Attempt {
        name: "add-key",
        run: |_| sys!(libc::SYS_add_key, c"user", c"blockhost", c"x", 1, -2).map(drop),
    },
    Attempt {
        name: "request-key",
        run: |_| sys!(libc::SYS_request_key, c"user", c"blockhost", 0, 0).map(drop),
    },
    Attempt {
        name: "userfaultfd",
        run: |_| sys!(libc::SYS_userfaultfd, 1).map(drop),
    },
    Attempt {
        name: "watch-files",
        run: |_| sys!(libc::SYS_fanotify_init, 0, 0).map(drop),
    },
    Attempt {
        name: "personality",
        run: |_| sys!(libc::SYS_personality, 0x0004_0000).map(drop),
    },
    Attempt {
        name: "set-time",
        run: |_| {
            // A time that no clock takes: invalid where the call itself is let through.
            let time = [0i64, -1];
            sys!(libc::SYS_clock_settime, 0, &time[..]).map(drop)
        },
    },
    Attempt {
        name: "adjust-time",
        run: |_| {
            let adjustment = [0u64; 26];
            sys!(libc::SYS_adjtimex, &adjustment[..]).map(drop)
        },
    },
    Attempt {
        name: "host-name",
        run: |_| sys!(libc::SYS_sethostname, c"elsewhere", -1).map(drop),
    },
    Attempt {
        name: "swap",
        run: |_| sys!(libc::SYS_swapon, c"/none", 0).map(drop),
    },
    Attempt {
        name: "accounting",
        run: |_| sys!(libc::SYS_acct, c"/none").map(drop),
    },
    Attempt {
        name: "quota",
        run: |_| sys!(libc::SYS_quotactl, 0, c"/none", 0, 0).map(drop),
    },
    Attempt {
        name: "kernel-log",
        run: |_| sys!(libc::SYS_syslog, 10, 0, 0).map(drop),
    },
    Attempt {
        name: "hang-up",
        run: |_| sys!(libc::SYS_vhangup).map(drop),
    },
    Attempt {
        name: "type-into-terminal",
        run: |_| sys!(libc::SYS_ioctl, 0, libc::TIOCSTI, c"x").map(drop),
    },
    #[cfg(target_arch = "x86_64")]
    Attempt {
        name: "ports",
        run: |_| sys!(libc::SYS_iopl, 3).map(drop),
    },
    #[cfg(target_arch = "x86_64")]
    Attempt {
        name: "old-calls",
        run: |_| sys!(libc::SYS_modify_ldt, 0, 0, 0).map(drop),
    },
];

/// Into namespaces of another process.
fn join(pid: i32, namespaces: i32) -> Tried {
    let process = sys!(libc::SYS_pidfd_open, pid, 0)?;
    sys!(libc::SYS_setns, process, namespaces).map(drop)
}

/// The child of a clone that went through is gone at once.
fn clone(result: Result<usize, i32>) -> Tried {
    if result == Ok(0) {
        std::process::exit(0);
    }
    result.map(drop)
}
