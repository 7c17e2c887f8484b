//! Other processes: signals, memory, descriptors, limits; and one's own identity.

use crate::{Attempt, sys};

const SYS_PIDFD_GETFD: libc::c_long = 438;
const PTRACE_SEIZE: i32 = 0x4206;
const KCMP_FILE: i32 = 0;

pub const ATTEMPTS: &[Attempt] = &[
    // Signal 0 asks the same questions as a real one and harms nobody.
    Attempt {
        name: "signal-sibling",
        run: |c| sys!(libc::SYS_kill, c.sibling, 0).map(drop),
    },
    Attempt {
        name: "signal-supervisor",
        run: |c| sys!(libc::SYS_kill, c.supervisor, 0).map(drop),
    },
    Attempt {
        name: "signal-init",
        run: |_| sys!(libc::SYS_kill, 1, 0).map(drop),
    },
    Attempt {
        name: "signal-sibling-thread",
        run: |c| sys!(libc::SYS_tgkill, c.sibling, c.sibling, libc::SIGURG).map(drop),
    },
    Attempt {
        name: "signal-supervisor-thread",
        run: |c| sys!(libc::SYS_tgkill, c.supervisor, c.supervisor, libc::SIGURG).map(drop),
    },
    Attempt {
        name: "signal-sibling-by-descriptor",
        run: |c| {
            let fd = sys!(libc::SYS_pidfd_open, c.sibling, 0)?;
            sys!(libc::SYS_pidfd_send_signal, fd, 0, 0, 0).map(drop)
        },
    },
    Attempt {
        name: "trace-sibling",
        run: |c| sys!(libc::SYS_ptrace, PTRACE_SEIZE, c.sibling, 0, 0).map(drop),
    },
    Attempt {
        name: "trace-supervisor",
        run: |c| sys!(libc::SYS_ptrace, PTRACE_SEIZE, c.supervisor, 0, 0).map(drop),
    },
    Attempt {
        name: "read-sibling-memory",
        run: |c| sys!(libc::SYS_process_vm_readv, c.sibling, 0, 0, 0, 0, 0).map(drop),
    },
    Attempt {
        name: "take-siblings-descriptor",
        run: |c| {
            let fd = sys!(libc::SYS_pidfd_open, c.sibling, 0)?;
            sys!(SYS_PIDFD_GETFD, fd, 3, 0).map(drop)
        },
    },
    Attempt {
        name: "take-supervisors-descriptor",
        run: |c| {
            let fd = sys!(libc::SYS_pidfd_open, c.supervisor, 0)?;
            sys!(SYS_PIDFD_GETFD, fd, 3, 0).map(drop)
        },
    },
    Attempt {
        name: "compare-descriptors",
        run: |c| sys!(libc::SYS_kcmp, c.sibling, c.supervisor, KCMP_FILE, 3, 3).map(drop),
    },
    Attempt {
        name: "limit-sibling",
        run: |c| {
            let limit = [100u64, 100];
            sys!(
                libc::SYS_prlimit64,
                c.sibling,
                libc::RLIMIT_CPU,
                &limit[..],
                0
            )
            .map(drop)
        },
    },
    Attempt {
        name: "slow-sibling",
        run: |c| sys!(libc::SYS_setpriority, 0, c.sibling, 1).map(drop),
    },
    Attempt {
        name: "schedule-sibling",
        run: |c| {
            let parameter = [0i32];
            sys!(libc::SYS_sched_setscheduler, c.sibling, 5, &parameter[..]).map(drop)
        },
    },
    Attempt {
        name: "real-time",
        run: |_| {
            let parameter = [10i32];
            sys!(
                libc::SYS_sched_setscheduler,
                0,
                libc::SCHED_FIFO,
                &parameter[..]
            )
            .map(drop)
        },
    },
    Attempt {
        name: "advise-sibling",
        run: |c| {
            let fd = sys!(libc::SYS_pidfd_open, c.sibling, 0)?;
            sys!(libc::SYS_process_madvise, fd, 0, 0, libc::MADV_COLD, 0).map(drop)
        },
    },
    // Identity.
    Attempt {
        name: "become-root",
        run: |_| sys!(libc::SYS_setresuid, 0, 0, 0).map(drop),
    },
    Attempt {
        name: "become-other",
        run: |_| sys!(libc::SYS_setresuid, 1234, 1234, 1234).map(drop),
    },
    Attempt {
        name: "join-root-group",
        run: |_| sys!(libc::SYS_setresgid, 0, 0, 0).map(drop),
    },
    Attempt {
        name: "add-groups",
        run: |_| {
            let groups = [0u32];
            sys!(libc::SYS_setgroups, 1, &groups[..]).map(drop)
        },
    },
    Attempt {
        name: "raise-capabilities",
        run: |_| {
            let header = [0x2008_0522u32, 0];
            let all = [u32::MAX, u32::MAX, u32::MAX, 0x1ff, 0x1ff, 0x1ff];
            sys!(libc::SYS_capset, &header[..], &all[..]).map(drop)
        },
    },
    Attempt {
        name: "raise-ambient",
        run: |_| {
            const CAP_SYS_ADMIN: i32 = 21;
            sys!(
                libc::SYS_prctl,
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                CAP_SYS_ADMIN,
                0,
                0
            )
            .map(drop)
        },
    },
    Attempt {
        name: "secure-bits",
        run: |_| sys!(libc::SYS_prctl, libc::PR_SET_SECUREBITS, 0x2f).map(drop),
    },
    Attempt {
        name: "become-dumpable",
        run: |_| sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1).map(drop),
    },
    Attempt {
        name: "outlive-supervisor",
        run: |_| sys!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, 0).map(drop),
    },
    Attempt {
        name: "allow-tracer",
        run: |_| sys!(libc::SYS_prctl, libc::PR_SET_PTRACER, usize::MAX).map(drop),
    },
    Attempt {
        name: "lift-no-new-privileges",
        run: |_| sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0).map(drop),
    },
    Attempt {
        name: "raise-own-limit",
        run: |_| {
            let limit = [1u64 << 20, 1 << 20];
            sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &limit[..], 0).map(drop)
        },
    },
];
