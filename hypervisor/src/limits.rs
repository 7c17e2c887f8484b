//! Limits of a machine that runs: operations of its disks in QEMU, its share of the processor in its control group. What
//! is stored holds from the next start in any case; what cannot be in force now is said. And bounds that nobody asked for:
//! what a QEMU that was taken over may have of the host's memory and threads.
#![forbid(unsafe_code)]

use blockhost_proto::qm::QmOption;
use qapi::qmp;
use serde_json::json;

use crate::cgroup::{self, Memory, Processor};
use crate::config::{Props, VmConfig};
use crate::error::Result;
use crate::hardware;
use crate::host::Host;
use crate::machine::Vmid;
use crate::monitor::{Monitor, QMP_LIMIT};
use crate::runtime::{self, Process, State};

/// Name of the object that limits a drive.
pub fn group(drive: &str) -> String {
    format!("limits-{drive}")
}

/// What QEMU may have beside the guest's memory: for its devices, its worker threads, caches of its disks' tables.
const BESIDE_MEMORY: u64 = 512 << 20;
/// What it may have on top where it translates: as much translated code as it keeps.
const TRANSLATED: u64 = 1 << 30;
/// Threads beside one for each processor: 64 for the disks at once, one for each card, a few more, and as many again.
const THREADS: u32 = 256;
/// Processes and threads that all machines have together, less than the agent's unit may have (TasksMax=): whatever they
/// do, the agent can still start one. Enforced by the kernel for the machines' user, with or without control groups.
pub const THREADS_OF_ALL: u64 = 7168;

/// Bounds on what a machine's process may have, far above what it needs: the kernel ends a QEMU that needs more memory.
pub fn bounds(config: &VmConfig, accel: &str) -> Memory {
    let guest = config.number("memory", 512) << 20;
    let translated = if accel == "tcg" { TRANSLATED } else { 0 };
    let bytes = guest + guest / 8 + BESIDE_MEMORY + translated;
    let processors = config.number("cores", 1) * config.number("sockets", 1);
    Memory {
        bytes,
        // The host's to swap, but never more than it could have had.
        swap_bytes: bytes,
        processes: THREADS + u32::try_from(processors).unwrap_or(THREADS),
    }
}

/// Puts the bounds and the processor limits of a machine that has just been started in force. Bounds that cannot be are no
/// more than a line of `qm status --verbose`: nobody asked for them.
pub fn at_start(vmid: Vmid, config: &VmConfig, process: &Process) {
    if let Some(group) = cgroup::placed_in(&process.cgroup) {
        let _ = cgroup::limit_memory(group, bounds(config, &process.accel));
    }
    let wanted = processor(config);
    if wanted != Processor::FREE
        && let Err(why) = cgroup::limit(&process.cgroup, wanted)
    {
        not_in_force(vmid, "processor", &why);
    }
}

/// Brings a running machine to the limits of a changed configuration.
pub fn follow(host: &Host, vmid: Vmid, before: &VmConfig, after: &VmConfig) {
    if let Err(e) = disks(host, vmid, before, after) {
        not_in_force(vmid, "disks", &host.shown(&e.to_string()));
    }
    let wanted = processor(after);
    if wanted != processor(before) {
        let placed = match runtime::state(host, vmid) {
            Ok(State::Running(Some(process))) => process.cgroup,
            _ => "none: its record is gone".to_owned(),
        };
        if let Err(why) = cgroup::limit(&placed, wanted) {
            not_in_force(vmid, "processor", &why);
        }
    }
}

/// Says that a machine that has just been started is not where the host has a place for its limits.
pub fn astray(vmid: Vmid, why: &str) {
    println!(
        "VM {vmid} is bound by no limit on processor, memory and threads: it is not below blockhost-machines.service ({why}); \
         before its next start: systemctl restart blockhost-machines.service blockhost-root-agent.service"
    );
}

fn not_in_force(vmid: Vmid, what: &str, why: &str) {
    println!("limits on the {what} of VM {vmid} are stored but not in force: {why}");
}

/// What the options say; an option that cannot be read counts as none, as everywhere when a configuration was edited.
fn processor(config: &VmConfig) -> Processor {
    let option = |key: &str| QmOption::parse(key, config.get(key)?).ok();
    let mut limits = Processor::FREE;
    if let Some(QmOption::CpuLimit(limit)) = option("cpulimit") {
        limits.hundredths = limit.hundredths();
    }
    if let Some(QmOption::CpuUnits(units)) = option("cpuunits") {
        limits.units = units.get();
    }
    limits
}

fn operations(value: &str) -> (u64, u64) {
    let props = Props::parse(value);
    let limit = |key| hardware::limit(&props, key);
    (limit("iops_rd"), limit("iops_wr"))
}

fn disks(host: &Host, vmid: Vmid, before: &VmConfig, after: &VmConfig) -> Result<()> {
    let changed: Vec<(String, (u64, u64))> = after
        .drives()
        .into_iter()
        // A drive that was not there is not in QEMU yet: it gets its limits with its device.
        .filter_map(|(key, value)| {
            let old = operations(before.get(&key)?);
            let new = operations(value);
            (old != new).then_some((key, new))
        })
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let mut monitor = Monitor::open(host, vmid, QMP_LIMIT)?;
    for (key, (reads, writes)) in changed {
        monitor.run(&qmp::qom_set {
            path: format!("/objects/{}", group(&key)),
            property: "limits".to_owned(),
            value: json!({ "iops-read": reads, "iops-write": writes }),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_machine_is_bounded_from_its_start_in_memory_swap_and_threads() {
        let place = tempfile::tempdir().unwrap();
        for file in ["memory.max", "memory.swap.max", "pids.max"] {
            fs::write(place.path().join(file), "max").unwrap();
        }
        let mut config = VmConfig::default();
        for (key, value) in [("memory", "1024"), ("cores", "2"), ("sockets", "2")] {
            config.set(key, value);
        }
        let process = Process {
            pid: 1,
            start_time: 0,
            boot_id: String::new(),
            accel: "kvm".to_owned(),
            accel_reason: String::new(),
            cgroup: place.path().display().to_string(),
            started: 0,
        };
        at_start("100".parse().unwrap(), &config, &process);
        let read = |file: &str| fs::read_to_string(place.path().join(file)).unwrap();
        let bytes = (1024_u64 + 128 + 512) << 20;
        assert_eq!(read("memory.max"), bytes.to_string());
        assert_eq!(read("memory.swap.max"), bytes.to_string());
        assert_eq!(read("pids.max"), "260");
        assert_eq!(bounds(&config, "tcg").bytes, bytes + (1 << 30));
        let shown = cgroup::bounds_of(&process.cgroup);
        assert_eq!(shown, format!("memory {bytes}, threads 260"));
    }
}
