//! Process 1 of a private world: starts one program, collects the orphans, ends with that program's status.
//! When it ends, the kernel ends everything else in the namespace.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use blockhost_tests::command::command;
use rustix::process::{Pid, WaitOptions, wait};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!(
            "blockhost-world-init: no program given; it is started by blockhost-demo and the tests only"
        );
        return ExitCode::from(64);
    };
    let child = match command(&program).args(arguments).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!(
                "blockhost-world-init: cannot start {}: {error}",
                program.display()
            );
            return ExitCode::from(127);
        }
    };
    let child = Pid::from_child(&child);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child => {
                let code = status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            // An orphan: collected, nobody asks for its status.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                eprintln!("blockhost-world-init: waiting failed: {error}");
                return ExitCode::from(1);
            }
        }
    }
}
