//! The logs of a machine, its serial console's and QEMU's own: at most two files of 1 MiB each, written by a tiny process
//! that reads from a pipe, holds nothing but three descriptors and ends with QEMU. QEMU itself holds no file that it
//! could fill the run directory with.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Child;

use rustix::fs::{Mode, OFlags};

use crate::error::{IoContext, Result};
use crate::exec::Run;
use crate::host::{Host, Ids};
use crate::machine::Vmid;

/// Size at which the log changes to its other file.
const LOG_LIMIT: u64 = 1 << 20;
/// Hidden command under which the program runs as the log writer.
pub const COMMAND: &str = "console-log-writer";

/// File names of a log: the one written first, the one it changes to.
pub type Names = [&'static str; 2];
/// The serial console's.
pub const LOGS: Names = ["console.log", "console-2.log"];
/// QEMU's own words.
pub const QEMU_LOGS: Names = ["qemu.log", "qemu-2.log"];

/// Starts the writer; the returned descriptor is QEMU's end.
///
/// # Errors
/// When a file, the pipe or the process cannot be made.
pub fn start(host: &Host, vmid: Vmid, ids: Ids, names: Names) -> Result<(OwnedFd, Child)> {
    let dir_path = host.machine_run_dir(vmid);
    let dir = crate::sys::open_dir(&dir_path).at("cannot open", &dir_path)?;
    let log = |name: &str| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        crate::sys::open_beneath(&dir, Path::new(name), flags, Mode::from_raw_mode(0o600))
            .map(File::from)
            .at("cannot open", dir_path.join(name))
    };
    let (from_qemu, to_log) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .at("cannot make a pipe for", &dir_path)?;
    // This very program; the link works also where the directories above it are closed to the machine user.
    let child = Run::new("/proc/self/exe", [COMMAND])
        .shown_as("blockhost-qm")
        .user(ids)
        .stdin(File::from(from_qemu))
        .stdout(log(names[0])?)
        .stderr(log(names[1])?)
        .spawn()?;
    Ok((to_log, child))
}

/// The writer itself: standard input to standard output and error in turn. Ends when the last writer is gone.
pub fn run() -> std::process::ExitCode {
    let copy = || -> std::io::Result<()> {
        // Fails only for a group leader, which is as good.
        let _ = rustix::process::setsid();
        let mut from = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let mut logs = [
            File::from(std::io::stdout().as_fd().try_clone_to_owned()?),
            File::from(std::io::stderr().as_fd().try_clone_to_owned()?),
        ];
        pump(&mut from, &mut logs, LOG_LIMIT)
    };
    match copy() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(_) => std::process::ExitCode::FAILURE,
    }
}

fn pump(from: &mut impl Read, logs: &mut [File; 2], limit: u64) -> std::io::Result<()> {
    let mut buffer = [0; 8192];
    let mut written = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        if written + read as u64 > limit {
            logs.swap(0, 1);
            let [log, _] = logs;
            let _ = log.set_len(0).and_then(|()| std::io::Seek::rewind(log));
            written = 0;
        }
        let [log, _] = logs;
        // What finds no space is lost, but the reading goes on: the machine must not feel its log.
        let _ = log.write_all(buffer.get(..read).unwrap_or_default());
        written += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_without_space_does_not_stop_the_reading() {
        let full = || {
            let mut options = File::options();
            options.write(true).open("/dev/full").unwrap()
        };
        let mut talk = std::io::repeat(b'x').take(100_000);
        pump(&mut talk, &mut [full(), full()], 20_000).unwrap();
        assert_eq!(talk.limit(), 0);
    }

    #[test]
    fn a_talkative_guest_fills_no_disk_and_its_last_words_stay() {
        let mut logs = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let mut talk = std::io::repeat(b'x').take(100_000).chain(&b"the end"[..]);
        pump(&mut talk, &mut logs, 20_000).unwrap();
        let sizes: Vec<u64> = logs
            .iter()
            .map(|log| log.metadata().unwrap().len())
            .collect();
        assert!(sizes.iter().all(|size| *size <= 20_000), "{sizes:?}");
        let mut text = Vec::new();
        std::io::Seek::rewind(&mut logs[0]).unwrap();
        logs[0].read_to_end(&mut text).unwrap();
        assert!(text.ends_with(b"the end"));
    }
}
