//! Limits of a machine that runs: operations of its disks in QEMU, its share of the processor in its control group. What
//! is stored holds from the next start in any case; what cannot be in force now is said.
#![forbid(unsafe_code)]

use blockhost_proto::qm::QmOption;
use qapi::qmp;
use serde_json::json;

use crate::cgroup::{self, Processor};
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

/// Puts the processor limits of a machine that has just been started in force.
pub fn at_start(vmid: Vmid, config: &VmConfig, process: &Process) {
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
