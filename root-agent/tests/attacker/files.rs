//! Files: reading what is another's, writing where nothing is to be written, changing what cannot be opened.

use std::path::{Path, PathBuf};

use libc::{AT_FDCWD, O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR, O_WRONLY};

use crate::{Attempt, Context, Tried, c_path, sys};

pub const ATTEMPTS: &[Attempt] = &[
    // Reading.
    Attempt {
        name: "read-shadow",
        run: |_| read("/etc/shadow"),
    },
    Attempt {
        name: "read-passwd",
        run: |_| read("/etc/passwd"),
    },
    Attempt {
        name: "list-root-home",
        run: |_| open("/root", O_RDONLY | O_DIRECTORY),
    },
    Attempt {
        name: "read-policy",
        run: |c| read(c.root.join("etc/blockhost/root-agent.yaml")),
    },
    Attempt {
        name: "read-wallet",
        run: |c| read(c.root.join("etc/blockhost/hot.key")),
    },
    Attempt {
        name: "read-signing-key",
        run: |c| read(c.root.join("etc/blockhost/ledger/epoch-1.key")),
    },
    Attempt {
        name: "read-ledger",
        run: |c| read(c.root.join("var/lib/blockhost-ledger/seg/000000000000.log")),
    },
    Attempt {
        name: "read-state",
        run: |c| read(c.root.join("var/lib/blockhost/vms.json")),
    },
    Attempt {
        name: "read-canary",
        run: |c| read(&c.canary),
    },
    Attempt {
        name: "read-shadow-by-openat2",
        run: |_| {
            let how = [0u64; 3];
            sys!(libc::SYS_openat2, AT_FDCWD, c"/etc/shadow", &how[..], 24).map(drop)
        },
    },
    Attempt {
        name: "read-by-handle",
        run: |_| {
            let handle = [0u64; 18];
            sys!(libc::SYS_open_by_handle_at, AT_FDCWD, &handle[..], O_RDONLY).map(drop)
        },
    },
    Attempt {
        name: "read-through-link-in-own",
        run: |c| read(c.own.join("link-out")),
    },
    // Writing.
    Attempt {
        name: "write-own",
        run: |c| write(c.own.join("attempt-own")),
    },
    Attempt {
        name: "write-etc",
        run: |_| write("/etc/blockhost-attempt"),
    },
    Attempt {
        name: "write-usr",
        run: |_| write("/usr/blockhost-attempt"),
    },
    Attempt {
        name: "write-root",
        run: |_| write("/blockhost-attempt"),
    },
    Attempt {
        name: "write-tmp",
        run: |_| write("/tmp/blockhost-attempt"),
    },
    Attempt {
        name: "write-var-tmp",
        run: |_| write("/var/tmp/blockhost-attempt"),
    },
    Attempt {
        name: "write-dev-shm",
        run: |_| write("/dev/shm/blockhost-attempt"),
    },
    Attempt {
        name: "write-ledger",
        run: |c| write(c.root.join("var/lib/blockhost-ledger/attempt")),
    },
    Attempt {
        name: "write-wallets",
        run: |c| write(c.root.join("etc/blockhost/attempt.key")),
    },
    Attempt {
        name: "write-state",
        run: |c| write(c.root.join("var/lib/blockhost/attempt")),
    },
    Attempt {
        name: "write-canary",
        run: |c| open(&c.canary, O_WRONLY),
    },
    Attempt {
        name: "remove-canary",
        run: |c| sys!(libc::SYS_unlinkat, AT_FDCWD, &*c_path(&c.canary), 0).map(drop),
    },
    Attempt {
        name: "replace-canary",
        run: |c| {
            let own = c.own.join("attempt-replace");
            sys!(
                libc::SYS_renameat2,
                AT_FDCWD,
                &*c_path(&own),
                AT_FDCWD,
                &*c_path(&c.canary),
                0
            )
            .map(drop)
        },
    },
    // Without opening: what Landlock does not see.
    Attempt {
        name: "truncate-canary",
        run: |c| sys!(libc::SYS_truncate, &*c_path(&c.canary), 0).map(drop),
    },
    Attempt {
        name: "chmod-canary",
        run: |c| sys!(libc::SYS_fchmodat, AT_FDCWD, &*c_path(&c.canary), 0o4777).map(drop),
    },
    Attempt {
        name: "chmod2-canary",
        run: |c| {
            const FCHMODAT2: libc::c_long = 452;
            sys!(FCHMODAT2, AT_FDCWD, &*c_path(&c.canary), 0o4777, 0).map(drop)
        },
    },
    Attempt {
        name: "chown-canary",
        run: |c| {
            sys!(
                libc::SYS_fchownat,
                AT_FDCWD,
                &*c_path(&c.canary),
                0,
                65534,
                0
            )
            .map(drop)
        },
    },
    Attempt {
        name: "chmod-canary-by-descriptor",
        run: |c| {
            let fd = sys!(
                libc::SYS_openat,
                AT_FDCWD,
                &*c_path(&c.canary),
                libc::O_PATH,
                0
            )?;
            sys!(
                libc::SYS_fchmodat,
                AT_FDCWD,
                &*c_path(Path::new(&format!("/proc/self/fd/{fd}"))),
                0o4777
            )
            .map(drop)
        },
    },
    Attempt {
        name: "touch-canary",
        run: |c| sys!(libc::SYS_utimensat, AT_FDCWD, &*c_path(&c.canary), 0, 0).map(drop),
    },
    Attempt {
        name: "label-canary",
        run: |c| {
            sys!(
                libc::SYS_setxattr,
                &*c_path(&c.canary),
                c"user.blockhost",
                c"x",
                1,
                0
            )
            .map(drop)
        },
    },
    // Names that lead out or in.
    Attempt {
        name: "make-link-in-own",
        run: |c| {
            sys!(
                libc::SYS_symlinkat,
                c"/etc/shadow",
                AT_FDCWD,
                &*c_path(&c.own.join("attempt-link"))
            )
            .map(drop)
        },
    },
    Attempt {
        name: "hard-link-canary-into-own",
        run: |c| {
            let to = c_path(&c.own.join("attempt-hard"));
            sys!(
                libc::SYS_linkat,
                AT_FDCWD,
                &*c_path(&c.canary),
                AT_FDCWD,
                &*to,
                0
            )
            .map(drop)
        },
    },
    Attempt {
        name: "hard-link-own-to-tmp",
        run: |c| {
            let from = c_path(&c.own.join("attempt-move"));
            sys!(
                libc::SYS_linkat,
                AT_FDCWD,
                &*from,
                AT_FDCWD,
                c"/tmp/blockhost-attempt-hard",
                0
            )
            .map(drop)
        },
    },
    Attempt {
        name: "move-own-beside-canary",
        run: |c| {
            let to = c.canary.with_file_name("attempt-moved");
            let from = c_path(&c.own.join("attempt-move"));
            sys!(
                libc::SYS_renameat2,
                AT_FDCWD,
                &*from,
                AT_FDCWD,
                &*c_path(&to),
                0
            )
            .map(drop)
        },
    },
    Attempt {
        name: "make-block-device",
        run: |c| node(c, libc::S_IFBLK),
    },
    Attempt {
        name: "make-character-device",
        run: |c| node(c, libc::S_IFCHR),
    },
    // The policy: whoever writes it is root at the next start.
    Attempt {
        name: "write-policy",
        run: |c| open(policy(c), O_WRONLY),
    },
    Attempt {
        name: "open-policy-to-all",
        run: |c| {
            let fd = sys!(libc::SYS_openat, AT_FDCWD, &*c_path(&policy(c)), O_RDONLY)?;
            sys!(libc::SYS_fchmod, fd, 0o666).map(drop)
        },
    },
    // Files that others may change then, or that make another of whoever runs them.
    Attempt {
        name: "take-off-mask",
        run: |_| sys!(libc::SYS_umask, 0).map(drop),
    },
    Attempt {
        name: "make-file-for-all",
        run: |c| make(c, "attempt-for-all", 0o666),
    },
    Attempt {
        name: "make-file-for-all-by-openat2",
        run: |c| {
            let path = c_path(&c.own.join("attempt-for-all-too"));
            let how = [u64::from((O_CREAT | O_WRONLY).unsigned_abs()), 0o666, 0];
            sys!(libc::SYS_openat2, AT_FDCWD, &*path, &how[..], 24).map(drop)
        },
    },
    Attempt {
        name: "make-setuid-file",
        run: |c| make(c, "attempt-setuid", 0o4755),
    },
    Attempt {
        name: "make-directory-for-all",
        run: |c| {
            let path = c_path(&c.own.join("attempt-directory"));
            sys!(libc::SYS_mkdirat, AT_FDCWD, &*path, 0o777).map(drop)
        },
    },
    Attempt {
        name: "move-policy-into-own",
        run: |c| rename(&policy(c), &c.own.join("attempt-policy")),
    },
    Attempt {
        name: "make-directory-beside-policy",
        run: |c| {
            let directory = c.root.join("etc/blockhost/attempt-directory");
            sys!(libc::SYS_mkdirat, AT_FDCWD, &*c_path(&directory), 0o755).map(drop)
        },
    },
    Attempt {
        name: "move-signing-keys-away",
        run: |c| {
            let etc = c.root.join("etc/blockhost");
            rename(&etc.join("ledger"), &etc.join("attempt-ledger"))
        },
    },
    Attempt {
        name: "put-policy-in-place",
        run: |c| {
            let made = c.own.join("attempt-policy");
            write(&made)?;
            rename(&made, &policy(c))
        },
    },
    // Files that are not files.
    Attempt {
        name: "memory-device",
        run: |_| open("/dev/mem", O_RDWR),
    },
    Attempt {
        name: "kernel-log-device",
        run: |_| open("/dev/kmsg", O_RDWR),
    },
    Attempt {
        name: "kernel-setting",
        run: |_| open("/proc/sys/kernel/core_pattern", O_WRONLY),
    },
    Attempt {
        name: "sysrq",
        run: |_| open("/proc/sysrq-trigger", O_WRONLY),
    },
    Attempt {
        name: "sys-write",
        run: |_| open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY),
    },
    Attempt {
        name: "control-group-of-all",
        run: |_| open("/sys/fs/cgroup/cgroup.procs", O_WRONLY),
    },
    Attempt {
        name: "init-memory",
        run: |_| read("/proc/1/mem"),
    },
    Attempt {
        name: "init-environment",
        run: |_| read("/proc/1/environ"),
    },
    Attempt {
        name: "sibling-memory",
        run: |c| read(format!("/proc/{}/mem", c.sibling)),
    },
    Attempt {
        name: "sibling-environment",
        run: |c| read(format!("/proc/{}/environ", c.sibling)),
    },
    Attempt {
        name: "sibling-descriptors",
        run: |c| open(format!("/proc/{}/fd/2", c.sibling), O_RDONLY),
    },
    Attempt {
        name: "sibling-root",
        run: |c| read(format!("/proc/{}/root/etc/shadow", c.sibling)),
    },
    Attempt {
        name: "sibling-oom-score",
        run: |c| open(format!("/proc/{}/oom_score_adj", c.sibling), O_WRONLY),
    },
    Attempt {
        name: "supervisor-memory",
        run: |c| open(format!("/proc/{}/mem", c.supervisor), O_RDWR),
    },
];

fn open(path: impl AsRef<Path>, flags: i32) -> Tried {
    sys!(
        libc::SYS_openat,
        AT_FDCWD,
        &*c_path(path.as_ref()),
        flags,
        0o600
    )
    .map(drop)
}

fn make(context: &Context, name: &str, mode: u32) -> Tried {
    let path = c_path(&context.own.join(name));
    sys!(libc::SYS_openat, AT_FDCWD, &*path, O_WRONLY | O_CREAT, mode).map(drop)
}

fn read(path: impl AsRef<Path>) -> Tried {
    open(path, O_RDONLY)
}

fn write(path: impl AsRef<Path>) -> Tried {
    open(path, O_WRONLY | O_CREAT)
}

fn policy(context: &Context) -> PathBuf {
    context.root.join("etc/blockhost/root-agent.yaml")
}

fn rename(from: &Path, to: &Path) -> Tried {
    let (from, to) = (c_path(from), c_path(to));
    sys!(libc::SYS_renameat2, AT_FDCWD, &*from, AT_FDCWD, &*to, 0).map(drop)
}

fn node(context: &Context, kind: libc::mode_t) -> Tried {
    let path = c_path(&context.own.join("attempt-device"));
    sys!(libc::SYS_mknodat, AT_FDCWD, &*path, kind | 0o600, 0x0103).map(drop)
}
