//! Whether a machine runs, and as which process. The truth is a lock that QEMU inherits and holds as long as it lives:
//! no pid file can lie about it, no reused pid can pass for it. Pid and start time are kept beside it for signals, and
//! for a QEMU that drops the lock on purpose.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::config;
use crate::error::{Error, IoContext, Result};
use crate::host::Host;
use crate::machine::Vmid;
use crate::sys;

/// How long a start waits for those who hold the lock of a machine that does not run: who asks for its state takes it for
/// a moment.
const LOOKS_END: Duration = Duration::from_millis(500);

/// What is remembered about a started QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
    /// Boot that both belong to.
    pub boot_id: String,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// Why that one.
    pub accel_reason: String,
    /// Where QEMU was put among the control groups, or why nowhere.
    pub cgroup: String,
    /// Seconds since the epoch when it was started.
    pub started: u64,
}

/// Whether a machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// No QEMU.
    Stopped,
    /// A QEMU lives; its record, unless a crash hit between its start and the writing.
    Running(Option<Process>),
}

/// Boot identity of this kernel.
///
/// # Errors
/// When `/proc` is missing.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path)
        .at("cannot read", path)?
        .trim()
        .to_owned())
}

/// Start time of a process in clock ticks since boot; `None` when it is gone or a zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    (fields.next()? != "Z").then_some(())?;
    fields.nth(18)?.parse().ok()
}

/// The same, also of a machine's process that is hidden from root.
pub fn start_time_of_machine(host: &Host, pid: i32) -> Option<u64> {
    start_time(pid).or_else(|| sys::seen_by(host.machine_user().ok(), || start_time(pid)).flatten())
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

fn alive_path(host: &Host, vmid: Vmid) -> PathBuf {
    host.run_dir().join(format!("{vmid}.alive"))
}

fn record_path(host: &Host, vmid: Vmid) -> PathBuf {
    host.machine_run_dir(vmid).join("process.json")
}

/// Takes the lock that means "runs"; QEMU inherits the descriptor.
///
/// # Errors
/// [`Error::Conflict`] when a QEMU holds it already.
pub fn claim(host: &Host, vmid: Vmid) -> Result<OwnedFd> {
    let path = alive_path(host, vmid);
    // Not for writing: QEMU gets it, and is to have no file that it could fill the run directory with.
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).at("cannot open", &path)?;
    let exclusive = FlockOperation::NonBlockingLockExclusive;
    if !sys::lock_within(&file, exclusive, LOOKS_END).at("cannot lock", &path)? {
        return Err(Error::Conflict(format!("VM {vmid} already running")));
    }
    Ok(file)
}

/// Reads the state of a machine.
///
/// # Errors
/// When the lock cannot be asked.
pub fn state(host: &Host, vmid: Vmid) -> Result<State> {
    let path = alive_path(host, vmid);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(State::Stopped),
        other => other.at("cannot open", &path)?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        // A QEMU that was taken over may let go of the lock; it does not get rid of its record by that.
        Ok(()) => {
            Ok(read_record(host, vmid)
                .map_or(State::Stopped, |process| State::Running(Some(process))))
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(State::Running(read_record(host, vmid))),
        Err(e) => Err(e).at("cannot ask", &path),
    }
}

/// Whether a QEMU of this machine lives.
///
/// # Errors
/// As [`state`].
pub fn is_running(host: &Host, vmid: Vmid) -> Result<bool> {
    Ok(state(host, vmid)? != State::Stopped)
}

/// What was written when the machine was last started, whether or not that process lives.
pub fn recorded(host: &Host, vmid: Vmid) -> Option<Process> {
    serde_json::from_slice(&fs::read(record_path(host, vmid)).ok()?).ok()
}

fn read_record(host: &Host, vmid: Vmid) -> Option<Process> {
    let record = recorded(host, vmid)?;
    (is_it(host, &record) && record.boot_id == boot_id().ok()?).then_some(record)
}

/// Whether what has the number of a record is the process that it was written for.
fn is_it(host: &Host, record: &Process) -> bool {
    match start_time_of_machine(host, record.pid) {
        Some(time) if record.start_time != 0 => time == record.start_time,
        // It was hidden when it was started, or is now: gone, or by a unit's ProtectProc= and a Landlock domain that is older
        // than ours, as after the agent was restarted. Nobody but this machine is in its control group.
        _ => cgroup::holds(&record.cgroup, record.pid),
    }
}

/// Remembers a started QEMU.
///
/// # Errors
/// When the record cannot be written.
pub fn write_record(host: &Host, vmid: Vmid, process: &Process) -> Result<()> {
    let text = serde_json::to_vec(process).map_err(|e| Error::Failed(e.to_string()))?;
    config::write_atomically(&record_path(host, vmid), &text, 0o600)
}

/// Waits until no QEMU of the machine lives; whether that happened in time.
///
/// # Errors
/// As [`state`].
pub fn wait_stopped(host: &Host, vmid: Vmid, limit: Duration) -> Result<bool> {
    let end = Instant::now() + limit;
    loop {
        if !is_running(host, vmid)? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Kills the QEMU of a record. The process is pinned by a pidfd before it is looked at, so the signal can reach no other.
///
/// # Errors
/// When the kernel refuses; a process that is gone is fine.
pub fn kill(host: &Host, process: &Process) -> Result<()> {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return Ok(());
    };
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        other => other.at("cannot open process", process.pid.to_string())?,
    };
    if !is_it(host, process) {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
        Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
        Err(e) => Err(e).at("cannot kill process", process.pid.to_string()),
    }
}

/// Removes the volatile files of a machine that does not run, but its logs.
pub fn clean(host: &Host, vmid: Vmid) {
    let dir = host.machine_run_dir(vmid);
    for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
        let keep = entry.path().extension().is_some_and(|ext| ext == "log");
        if !keep && entry.path().is_dir() {
            let _ = fs::remove_dir_all(entry.path());
        } else if !keep {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Removes everything volatile of a machine that is gone.
pub fn forget(host: &Host, vmid: Vmid) {
    let _ = fs::remove_dir_all(host.machine_run_dir(vmid));
    let _ = fs::remove_file(alive_path(host, vmid));
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_proto::layout::Layout;

    fn host_below(root: &std::path::Path) -> Host {
        Host {
            family: crate::host::Family::Machines,
            layout: Layout::new(root),
            node: "n".to_owned(),
            pins: None,
        }
    }

    #[test]
    fn a_start_goes_on_beside_somebody_who_looks_and_never_beside_a_qemu() {
        let root = tempfile::tempdir().unwrap();
        let host = host_below(root.path());
        let vmid: Vmid = "100".parse().unwrap();
        fs::create_dir_all(host.run_dir()).unwrap();
        drop(claim(&host, vmid).unwrap());
        let looking = fs::File::open(alive_path(&host, vmid)).unwrap();
        rustix::fs::flock(&looking, FlockOperation::LockShared).unwrap();
        let running = std::thread::scope(|scope| {
            let start = scope.spawn(|| claim(&host, vmid));
            std::thread::sleep(Duration::from_millis(20));
            drop(looking);
            start.join().unwrap().unwrap()
        });
        assert!(matches!(claim(&host, vmid), Err(Error::Conflict(_))));
        drop(running);
    }

    #[test]
    fn a_qemu_that_lets_go_of_its_lock_still_runs() {
        let root = tempfile::tempdir().unwrap();
        let host = host_below(root.path());
        let vmid: Vmid = "100".parse().unwrap();
        fs::create_dir_all(host.machine_run_dir(vmid)).unwrap();
        drop(claim(&host, vmid).unwrap());
        // What other tests start meanwhile has the lock until it becomes another program.
        assert!(wait_stopped(&host, vmid, Duration::from_secs(10)).unwrap());
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let mut process = Process {
            pid,
            start_time: start_time(pid).unwrap(),
            boot_id: boot_id().unwrap(),
            accel: "tcg".to_owned(),
            accel_reason: String::new(),
            cgroup: String::new(),
            started: 0,
        };
        write_record(&host, vmid, &process).unwrap();
        assert_eq!(
            state(&host, vmid).unwrap(),
            State::Running(Some(process.clone()))
        );
        let group = root.path().join("group");
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cgroup.procs"), format!("{pid}\n")).unwrap();
        let unseen = Process {
            start_time: 0,
            cgroup: group.display().to_string(),
            ..process.clone()
        };
        write_record(&host, vmid, &unseen).unwrap();
        assert_eq!(state(&host, vmid).unwrap(), State::Running(Some(unseen)));
        process.start_time -= 1;
        write_record(&host, vmid, &process).unwrap();
        assert_eq!(
            state(&host, vmid).unwrap(),
            State::Stopped,
            "another process"
        );
    }
}
