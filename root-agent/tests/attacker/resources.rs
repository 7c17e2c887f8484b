//! Taking all there is: memory, descriptors, processes, disk.

use crate::{Attempt, Tried, c_path, sys};

pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "all-memory",
        run: |_| {
            // Address space alone; nothing is touched.
            for _ in 0..64 {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                sys!(
                    libc::SYS_mmap,
                    0,
                    1usize << 30,
                    libc::PROT_READ,
                    flags,
                    -1,
                    0
                )?;
            }
            Ok(())
        },
    },
    Attempt {
        name: "all-descriptors",
        run: |_| {
            for _ in 0..20_000 {
                sys!(libc::SYS_fcntl, 0, libc::F_DUPFD, 0)?;
            }
            Ok(())
        },
    },
    Attempt {
        name: "all-processes",
        run: |_| {
            for _ in 0..3_000 {
                if sys!(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0)? == 0 {
                    // Until the parent is gone; the group goes with it.
                    std::thread::sleep(std::time::Duration::from_secs(2));
                    std::process::exit(0);
                }
            }
            Ok(())
        },
    },
    Attempt {
        name: "huge-file",
        run: |c| {
            let path = c_path(&c.own.join("attempt-huge"));
            let flags = libc::O_WRONLY | libc::O_CREAT;
            let fd = sys!(libc::SYS_openat, libc::AT_FDCWD, &*path, flags, 0o600)?;
            sys!(libc::SYS_pwrite64, fd, c"x", 1, 1usize << 42).map(drop)
        },
    },
    Attempt {
        name: "lock-memory",
        run: |_| -> Tried { sys!(libc::SYS_mlockall, 3).map(drop) },
    },
];
