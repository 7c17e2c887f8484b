//! Starting a planned QEMU as the machine user, in its own session, and waiting until it answers.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::config::VmConfig;
use crate::error::{Error, IoContext, Result};
use crate::exec::{self, Run};
use crate::host::Host;
use crate::launch::{Plan, QEMU};
use crate::machine::Vmid;
use crate::monitor::Monitor;
use crate::runtime::{self, Process};
use crate::{accel, cgroup, console, launcher, limits};

/// How long a started QEMU may take until its monitor answers.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How long its log is waited for when it did not.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Starts the machine; the caller holds its lock and knows that it is stopped.
///
/// # Errors
/// When it cannot be started; everything made for it is gone again then.
pub fn start(host: &Host, vmid: Vmid, config: &VmConfig) -> Result<Process> {
    let ids = host.machine_user()?;
    let qemu = exec::find(QEMU, "qemu-system-x86")?;
    prepare_run_dir(host, vmid)?;
    let alive = runtime::claim(host, vmid)?;
    let choice = accel::choose(host, &qemu)?;
    let plan = Plan::open(host, vmid, config, choice.kind)?;
    let dir_path = host.machine_run_dir(vmid);
    let (words, mut writer) = console::start(host, vmid, ids, console::QEMU_LOGS)?;
    let stderr = fs::File::from(words);
    let stdout = stderr.try_clone().at("cannot use", &dir_path)?;
    let args = std::iter::once(qemu.display().to_string()).chain(plan.args.iter().cloned());
    let keep: Vec<BorrowedFd<'_>> = plan.held.iter().chain([&alive]).map(AsFd::as_fd).collect();
    // This very program replaces itself by QEMU: same process, own session, so neither a signal to the caller's group nor
    // the end of its terminal reaches the machine.
    let words = std::iter::once(launcher::COMMAND.to_owned()).chain(args);
    let mut child = Run::new("/proc/self/exe", words)
        .shown_as("blockhost-qm")
        .user(ids)
        .keep(keep)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()?;
    // From here on the descriptors are QEMU's alone.
    drop(plan);
    let pid = i32::try_from(child.id()).map_err(|e| Error::Failed(e.to_string()))?;
    let placed = cgroup::place(host, vmid, pid);
    if let Some(why) = placed.astray {
        limits::astray(vmid, &why);
    }
    let process = Process {
        pid,
        start_time: runtime::start_time_of_machine(host, pid).unwrap_or(0),
        boot_id: runtime::boot_id()?,
        accel: choice.kind.as_str().to_owned(),
        accel_reason: choice.reason,
        cgroup: placed.group,
        started: runtime::now(),
    };
    limits::at_start(vmid, config, &process);
    let ready = runtime::write_record(host, vmid, &process)
        .and_then(|()| wait_ready(host, vmid, &mut child));
    if let Err(e) = ready {
        let _ = child.kill();
        let _ = child.wait();
        // The last of its words are on their way until the writer has seen the end, too.
        let end = Instant::now() + LAST_WORDS;
        while matches!(writer.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let words = fs::read(dir_path.join(console::QEMU_LOGS[0])).unwrap_or_default();
        let tail: Vec<&[u8]> = words
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .collect();
        let tail: Vec<String> = tail
            .iter()
            .rev()
            .take(5)
            .rev()
            .map(|line| line.escape_ascii().to_string())
            .collect();
        drop(alive);
        runtime::clean(host, vmid);
        return Err(Error::Failed(format!(
            "start failed: QEMU exited or did not answer: {e}\n{}",
            tail.join("\n")
        )));
    }
    Ok(process)
}

fn prepare_run_dir(host: &Host, vmid: Vmid) -> Result<()> {
    let dir = host.machine_run_dir(vmid);
    fs::create_dir_all(&dir).at("cannot create", &dir)?;
    for dir in [&host.run_dir(), &dir] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).at("cannot close", dir)?;
    }
    runtime::clean(host, vmid);
    Ok(())
}

/// Waits until QEMU has set everything up and answers.
fn wait_ready(host: &Host, vmid: Vmid, child: &mut Child) -> Result<()> {
    let end = Instant::now() + READY_LIMIT;
    loop {
        if let Some(status) = child.try_wait().at("cannot wait for", QEMU)? {
            return Err(Error::Failed(format!("{status}")));
        }
        // The sockets listen from the start, so this waits for QEMU's first word, or for its end.
        let left = end.saturating_duration_since(Instant::now());
        match Monitor::open(host, vmid, left.min(Duration::from_millis(500))) {
            Ok(_) => return Ok(()),
            Err(e) if Instant::now() >= end => return Err(e),
            Err(_) => {}
        }
    }
}
