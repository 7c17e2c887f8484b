//! What really runs under a container's ids, whether or not LXC's monitor is there to tell: the first process of a
//! container may cut itself loose from its monitor, which can be killed, and goes on without it.
#![forbid(unsafe_code)]

use std::fs;
use std::io::ErrorKind;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Error, IoContext, Result};
use crate::keeper::slots::IDS_EACH;

/// A process that is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// As the host counts.
    pub pid: i32,
    /// In a name space of processes below ours: of a container, and not one of the service's helpers with its ids.
    pub contained: bool,
    /// The first one there.
    first: bool,
    uids: Vec<u32>,
}

impl Process {
    /// Whether it has an id of the container whose first one this is.
    pub fn belongs(&self, first_id: u32) -> bool {
        let end = first_id.saturating_add(IDS_EACH);
        self.uids.iter().any(|uid| (first_id..end).contains(uid))
    }

    /// Reads `/proc/<pid>/status`; `None` for one that has ended.
    fn parse(pid: i32, text: &str) -> Option<Self> {
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let threads = field("Threads:").and_then(|word| word.trim().parse::<u32>().ok());
        let state = field("State:").unwrap_or_default().trim_start();
        // One whose first thread has ended looks like one that has ended; the other threads go on.
        if state.starts_with(['Z', 'X']) && threads.is_some_and(|count| count <= 1) {
            return None;
        }
        let spaces: Vec<&str> = field("NSpid:")
            .unwrap_or_default()
            .split_ascii_whitespace()
            .collect();
        Some(Self {
            pid,
            contained: spaces.len() != 1,
            first: spaces.len() == 2 && spaces.last() == Some(&"1"),
            uids: field("Uid:")
                .unwrap_or_default()
                .split_ascii_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect(),
        })
    }

    /// Ends it, if it still is the one that was found.
    fn end(&self, first_id: u32) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        // Its number may have been given to another before it was held.
        if matches!(read(self.pid), Ok(Some(now)) if now.belongs(first_id)) {
            // The service's user owns the name space, and may do that whatever the process's id is.
            let _ = pidfd_send_signal(&held, Signal::KILL);
        }
    }
}

fn read(pid: i32) -> Result<Option<Process>> {
    let path = format!("/proc/{pid}/status");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Process::parse(pid, &text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(e) => Err(e).at("cannot read", path),
    }
}

/// Everything that is alive on this host.
///
/// # Errors
/// When not everything can be seen: nothing is then known to have ended.
pub fn all() -> Result<Vec<Process>> {
    if let Err(e) = fs::read("/proc/1/status") {
        return Err(Error::Environment(format!(
            "the processes of others cannot be seen ({e}): /proc must be mounted without hidepid"
        )));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").at("cannot read", "/proc")? {
        let name = entry.at("cannot read", "/proc")?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            found.extend(read(pid)?);
        }
    }
    Ok(found)
}

/// The process that stands for what is left of a container: its first one where that lives.
pub fn left_over(all: &[Process], first_id: u32) -> Option<i32> {
    let of = || {
        all.iter()
            .filter(|process| process.contained && process.belongs(first_id))
    };
    of().find(|process| process.first)
        .or_else(|| of().next())
        .map(|process| process.pid)
}

/// Ends what runs under a container's ids, its helpers as well where `helpers`; whether there was something.
///
/// # Errors
/// As [`all`].
pub fn end(first_id: u32, helpers: bool) -> Result<bool> {
    let mut some = false;
    for process in all()? {
        if process.belongs(first_id) && (helpers || process.contained) {
            some = true;
            process.end(first_id);
        }
    }
    Ok(some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str, uids: &str, spaces: &str, threads: u32) -> String {
        format!("Name:\tx\nState:\t{state}\nUid:\t{uids}\nNSpid:\t{spaces}\nThreads:\t{threads}\n")
    }

    #[test]
    fn a_process_counts_by_any_of_its_ids_until_its_last_thread_has_ended() {
        let parse = |text: &str| Process::parse(7, text);
        let one = parse(&status("S (sleeping)", "5 5 1000000 5", "7 1", 1)).unwrap();
        assert!(one.belongs(1_000_000) && one.belongs(950_000) && !one.belongs(1_000_001));
        assert!(one.contained && one.first);
        assert_eq!(parse(&status("Z (zombie)", "5 5 5 5", "7 1", 1)), None);
        let headless = parse(&status("Z (zombie)", "5 5 5 5", "7 3", 2)).unwrap();
        assert!(headless.contained && !headless.first);
        let helper = parse(&status("R (running)", "1065535 0 0 0", "7", 1)).unwrap();
        assert!(helper.belongs(1_000_000) && !helper.belongs(1_065_536) && !helper.contained);
        assert_eq!(left_over(std::slice::from_ref(&helper), 1_000_000), None);
        assert_eq!(left_over(&[helper, one], 1_000_000), Some(7));
    }

    #[test]
    fn everything_that_lives_is_seen_ourselves_among_it() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(all().unwrap().iter().any(|process| process.pid == own));
    }
}
