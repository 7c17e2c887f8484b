//! start, stop, shutdown, reset, status, autostart.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use qapi::qmp;

use crate::accel;
use crate::cgroup;
use crate::config::{VmConfig, VmLock};
use crate::error::{Error, Result};
use crate::exec;
use crate::hardware;
use crate::host::Host;
use crate::launch::{self, Plan};
use crate::list;
use crate::machine::Vmid;
use crate::monitor::{Agent, Monitor, QMP_LIMIT};
use crate::runtime::{self, State};
use crate::start;
use crate::storage::Storages;

/// How long QEMU may take to end after `quit` before it is killed.
const QUIT_LIMIT: Duration = Duration::from_secs(15);
/// How long a guest agent may take to say that it is there, before ACPI is tried instead.
const AGENT_LIMIT: Duration = Duration::from_secs(3);

/// How long QEMU is waited for where its word for a machine's state is only told.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// QEMU's word for a machine that it stopped at a write that found no space.
const NO_SPACE: &str = "io-error";
/// In its place where it says none.
const SILENT: &str = "unresponsive";
/// How long a machine that goes on is watched: it stops again at once where there still is no space.
const WATCHED: Duration = Duration::from_secs(1);

/// Starts a machine. One that runs already is left alone, with a note; one that QEMU stopped because a write found no space
/// goes on with that write.
///
/// # Errors
/// When it is a template or cannot be started.
pub fn start(host: &Host, vmid: Vmid) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    let config = VmConfig::load(host, vmid)?;
    if config.is_template() {
        return Err(Error::Conflict(
            "you can't start a vm if it's a template".to_owned(),
        ));
    }
    if runtime::is_running(host, vmid)? {
        return go_on(host, vmid);
    }
    Storages::load(host)?.sweep(vmid);
    start::start(host, vmid, &config).map(drop)
}

fn go_on(host: &Host, vmid: Vmid) -> Result<()> {
    let stopped = |monitor: &mut Monitor| state_word(monitor) == NO_SPACE;
    let monitor = Monitor::open(host, vmid, LOOK_LIMIT).ok();
    let Some(mut monitor) = monitor.and_then(|mut one| stopped(&mut one).then_some(one)) else {
        eprintln!("VM {vmid} already running");
        return Ok(());
    };
    monitor.run(&qmp::cont {})?;
    let end = Instant::now() + WATCHED;
    while Instant::now() < end {
        if stopped(&mut monitor) {
            return Err(Error::Conflict(format!(
                "VM {vmid} was stopped because a write found no space on the host, and there still is none: free some, then start it again"
            )));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("VM {vmid} had been stopped because a write found no space; it goes on");
    Ok(())
}

/// Ends a machine as pulling the plug does: QEMU quits in order, or is killed when it does not.
///
/// # Errors
/// When QEMU survives both.
pub fn stop(host: &Host, vmid: Vmid) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    // Nothing of it is needed here.
    VmConfig::load(host, vmid)
        .map(drop)
        .or_else(|e| e.is_damage().then_some(()).ok_or(e))?;
    let State::Running(process) = runtime::state(host, vmid)? else {
        runtime::clean(host, vmid);
        return Ok(());
    };
    // QEMU may close the connection before it has answered; only its end counts.
    let asked =
        Monitor::open(host, vmid, QMP_LIMIT).and_then(|mut monitor| monitor.run(&qmp::quit {}));
    let wait = if asked.is_ok() {
        QUIT_LIMIT
    } else {
        Duration::from_millis(500)
    };
    if !runtime::wait_stopped(host, vmid, wait)? {
        eprintln!("VM still running - terminating now with SIGKILL");
        match &process {
            Some(process) => runtime::kill(host, process)?,
            // Started, and nothing was written down: whatever is where it was to be put.
            None => cgroup::unrecorded(host, vmid)
                .iter()
                .for_each(|group| cgroup::end(group)),
        }
        if !runtime::wait_stopped(host, vmid, QMP_LIMIT)? {
            return Err(Error::Failed(format!("VM {vmid}: QEMU cannot be ended")));
        }
    }
    after_stop(host, vmid, process.as_ref());
    Ok(())
}

/// Asks the guest to shut down, by its agent where it answers and else by ACPI, and waits. `force` stops it after that.
///
/// # Errors
/// [`Error::Timeout`] when the guest does not comply.
pub fn shutdown(host: &Host, vmid: Vmid, limit: Duration, force: bool) -> Result<()> {
    let lock = VmLock::take(host, vmid)?;
    let config = VmConfig::load(host, vmid)?;
    let State::Running(process) = runtime::state(host, vmid)? else {
        runtime::clean(host, vmid);
        return Ok(());
    };
    let end = Instant::now() + limit;
    let by_agent = hardware::agent_enabled(&config)
        && Agent::open(host, vmid, AGENT_LIMIT.min(limit))
            .and_then(|mut agent| agent.send(&qapi::qga::guest_shutdown { mode: None }))
            .is_ok();
    if !by_agent {
        let mut monitor = Monitor::open(host, vmid, QMP_LIMIT)?;
        monitor.run(&qmp::system_powerdown {})?;
    }
    if runtime::wait_stopped(host, vmid, end.saturating_duration_since(Instant::now()))? {
        after_stop(host, vmid, process.as_ref());
        return Ok(());
    }
    if force {
        drop(lock);
        return stop(host, vmid);
    }
    Err(Error::Timeout(
        "VM quit/powerdown failed - got timeout".to_owned(),
    ))
}

fn after_stop(host: &Host, vmid: Vmid, process: Option<&runtime::Process>) {
    match process {
        Some(process) => cgroup::placed_in(&process.cgroup)
            .into_iter()
            .for_each(cgroup::remove),
        None => cgroup::unrecorded(host, vmid)
            .iter()
            .for_each(|group| cgroup::remove(group)),
    }
    runtime::clean(host, vmid);
}

/// Resets a running machine.
///
/// # Errors
/// [`Error::NotRunning`] or QEMU's words.
pub fn reset(host: &Host, vmid: Vmid) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    VmConfig::load(host, vmid)?;
    if !runtime::is_running(host, vmid)? {
        return Err(Error::NotRunning {
            family: host.family,
            vmid,
        });
    }
    Monitor::open(host, vmid, QMP_LIMIT)?
        .run(&qmp::system_reset {})
        .map(drop)
}

/// What `qm status` prints.
///
/// # Errors
/// [`Error::NotFound`].
pub fn status(host: &Host, vmid: Vmid, verbose: bool) -> Result<String> {
    let config = VmConfig::load(host, vmid)?;
    let state = runtime::state(host, vmid)?;
    if !verbose {
        return Ok(format!("status: {}\n", told(host, vmid, &state)));
    }
    let word = if state == State::Stopped {
        "stopped"
    } else {
        "running"
    };
    let mut lines = vec![
        format!(
            "cpus: {}",
            config.number("cores", 1) * config.number("sockets", 1)
        ),
        format!("maxdisk: {}", list::boot_disk_bytes(host, &config)),
        format!("maxmem: {}", config.number("memory", 512) << 20),
        format!("status: {word}"),
        format!("vmid: {vmid}"),
    ];
    lines.extend(config.get("name").map(|name| format!("name: {name}")));
    match &state {
        State::Stopped => lines.extend(["qmpstatus: stopped".to_owned(), "uptime: 0".to_owned()]),
        State::Running(process) => {
            let word = qmp_status(host, vmid, QMP_LIMIT);
            lines.push(format!("qmpstatus: {}", word.as_deref().unwrap_or(SILENT)));
            if let Some(process) = process {
                lines.push(format!("pid: {}", process.pid));
                lines.push(format!(
                    "uptime: {}",
                    runtime::now().saturating_sub(process.started)
                ));
                lines.push(format!(
                    "accel: {} ({})",
                    process.accel, process.accel_reason
                ));
                lines.push(format!("cgroup: {}", process.cgroup));
                lines.push(format!("bounds: {}", cgroup::bounds_of(&process.cgroup)));
            }
        }
    }
    lines.sort_unstable();
    Ok(lines.join("\n") + "\n")
}

/// A machine's state as one word, as Proxmox tells it: QEMU's own word (`running`, `paused`, `io-error`...) where it says one.
pub(crate) fn told(host: &Host, vmid: Vmid, state: &State) -> String {
    match state {
        State::Stopped => "stopped".to_owned(),
        State::Running(_) => {
            qmp_status(host, vmid, LOOK_LIMIT).unwrap_or_else(|| "running".to_owned())
        }
    }
}

/// QEMU's own word for its state, if it says one in time.
fn qmp_status(host: &Host, vmid: Vmid, limit: Duration) -> Option<String> {
    let mut monitor = Monitor::open(host, vmid, limit).ok()?;
    Some(state_word(&mut monitor)).filter(|word| word != SILENT)
}

/// QEMU's own word for its state, over an open session.
pub(crate) fn state_word(monitor: &mut Monitor) -> String {
    match monitor.run(&qmp::query_status {}) {
        Ok(status) => {
            let word = serde_json::to_value(status.status).ok();
            word.and_then(|word| word.as_str().map(str::to_owned))
                .unwrap_or_else(|| "running".to_owned())
        }
        Err(_) => SILENT.to_owned(),
    }
}

/// What `qm showcmd` prints.
///
/// # Errors
/// When the configuration cannot be run here.
pub fn showcmd(host: &Host, vmid: Vmid, verbose: bool) -> Result<String> {
    let config = VmConfig::load(host, vmid)?;
    let qemu = exec::find(launch::QEMU, "qemu-system-x86")?;
    let choice = accel::choose(host, &qemu)?;
    let plan = Plan::show(host, vmid, &config, choice.kind)?;
    let quoted: Vec<String> = plan.args.iter().map(|arg| shell_quoted(arg)).collect();
    let mut text = format!("{} {}\n", qemu.display(), quoted.join(" "));
    if verbose {
        text.push_str(&format!(
            "# accelerator: {} ({})\n",
            choice.kind.as_str(),
            choice.reason
        ));
        text.push_str(&format!("# control group: {}\n", cgroup::plan(host, vmid)));
        text.push_str("# at a start, files, taps and sockets are handed over as descriptors\n");
    }
    Ok(text)
}

fn shell_quoted(arg: &str) -> String {
    let plain = !arg.is_empty()
        && arg
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./=,:+@%".contains(&b));
    if plain {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', "'\\''"))
    }
}

/// Starts every machine with `onboot: 1`; one that fails does not stop the others.
///
/// # Errors
/// When at least one could not be started.
pub fn autostart(host: &Host) -> Result<()> {
    let mut failed = Vec::new();
    for vmid in VmConfig::all(host)? {
        let started = match VmConfig::load(host, vmid) {
            Ok(config) if config.flag("onboot") && !config.is_template() => {
                println!("Starting VM {vmid}");
                start(host, vmid)
            }
            Ok(_) => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(e) = started {
            eprintln!("VM {vmid}: {}", host.shown(&e.to_string()));
            failed.push(vmid.to_string());
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Error::Failed(format!("not started: {}", failed.join(", "))))
    }
}
