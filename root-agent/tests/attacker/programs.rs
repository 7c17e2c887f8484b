//! Programs: by path, by the loader, from memory.

use crate::{Attempt, Tried, sys};

const SYS_EXECVEAT: libc::c_long = libc::SYS_execveat;

pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "execute-shell",
        run: |_| execute(c"/bin/sh", &[c"sh", c"-c", c":"]),
    },
    Attempt {
        name: "execute-true",
        run: |_| execute(c"/usr/bin/true", &[c"true"]),
    },
    Attempt {
        name: "execute-setuid",
        run: |_| execute(c"/usr/bin/passwd", &[c"passwd", c"--help"]),
    },
    Attempt {
        name: "execute-by-loader",
        run: |_| {
            execute(
                c"/lib64/ld-linux-x86-64.so.2",
                &[c"ld.so", c"/usr/bin/true"],
            )
        },
    },
    Attempt {
        name: "execute-own-file",
        run: |c| {
            execute(
                &crate::c_path(&c.own.join("attempt-program")),
                &[c"program"],
            )
        },
    },
    Attempt {
        name: "make-file-in-memory",
        run: |_| sys!(libc::SYS_memfd_create, c"x", 0).map(drop),
    },
    Attempt {
        name: "execute-from-memory",
        run: |_| {
            let fd = sys!(libc::SYS_memfd_create, c"x", 0)?;
            let program = b"#!/bin/true\n";
            sys!(libc::SYS_write, fd, &program[..], program.len())?;
            let nothing = [0usize];
            sys!(
                SYS_EXECVEAT,
                fd,
                c"",
                &nothing[..],
                &nothing[..],
                libc::AT_EMPTY_PATH
            )
            .map(drop)
        },
    },
    Attempt {
        name: "fork",
        run: |_| {
            let result = sys!(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
            if result == Ok(0) {
                std::process::exit(0);
            }
            result.map(drop)
        },
    },
    Attempt {
        name: "thread",
        run: |_| {
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(|| ())
                .map(drop)
                .map_err(|error| error.raw_os_error().unwrap_or(201))
        },
    },
];

fn execute(path: &std::ffi::CStr, words: &[&std::ffi::CStr]) -> Tried {
    let mut arguments: Vec<usize> = words.iter().map(|word| word.as_ptr() as usize).collect();
    arguments.push(0);
    let environment = [0usize];
    sys!(libc::SYS_execve, path, &arguments[..], &environment[..]).map(drop)
}
