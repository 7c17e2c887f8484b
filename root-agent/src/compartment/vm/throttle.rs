//! Limits of a machine. Processor and disks are options of the backend, written back in one `qm set`: every real disk's
//! options are read, changed and printed by the grammar. The network is traffic control on the taps, see [`super::taps`].

use blockhost_proto::action::{TcRateLimit, VmThrottle};
use blockhost_proto::qm::{DriveSpec, QmKey, QmOption, QmOptions};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::Vmid;
use serde_json::{Map, Value};

use super::argv::Command;
use super::cannot_prepare;
use super::taps::{Devices, Rates};
use super::tool::Tool;
use crate::compartment::{Done, Failure, JobCtx};

pub(super) fn run(
    qm: &Tool,
    devices: &Devices,
    wanted: &VmThrottle,
    ctx: &JobCtx<'_>,
) -> Result<Done, Failure> {
    let config = qm.config(wanted.vmid, ctx)?;
    let command = plan(&config, wanted)?;
    let rates = Rates {
        incoming: wanted.rate_in_kbps,
        outgoing: wanted.rate_out_kbps,
        reset: wanted.reset,
    };
    // Looked for first: a machine without its interfaces is refused before anything has changed.
    let taps = devices.of(wanted.vmid, &config, rates)?;
    let mut said = set(qm, command, ctx)?;
    said.extend(devices.apply(&taps, rates)?);
    Ok(outcome(wanted.vmid, &said))
}

/// Only processor and disks.
pub(super) fn options(qm: &Tool, wanted: &VmThrottle, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let config = qm.config(wanted.vmid, ctx)?;
    let said = set(qm, plan(&config, wanted)?, ctx)?;
    Ok(outcome(wanted.vmid, &said))
}

fn set(qm: &Tool, command: Option<Command>, ctx: &JobCtx<'_>) -> Result<Vec<String>, Failure> {
    let Some(command) = command else {
        return Ok(Vec::new());
    };
    let done = qm.done(&command, ctx)?;
    let said = if done.output.is_empty() {
        "the options are set".to_owned()
    } else {
        done.output
    };
    Ok(vec![said])
}

/// Only the network.
pub(super) fn rates(
    qm: &Tool,
    devices: &Devices,
    wanted: &TcRateLimit,
    ctx: &JobCtx<'_>,
) -> Result<Done, Failure> {
    let config = qm.config(wanted.vmid, ctx)?;
    let rates = Rates {
        incoming: wanted.rate_in_kbps,
        outgoing: wanted.rate_out_kbps,
        reset: wanted.reset,
    };
    let taps = devices.of(wanted.vmid, &config, rates)?;
    Ok(outcome(wanted.vmid, &devices.apply(&taps, rates)?))
}

fn outcome(vmid: Vmid, said: &[String]) -> Done {
    let output = if said.is_empty() {
        format!("the limits of VM {vmid} are as asked for already")
    } else {
        said.join("\n")
    };
    Done {
        output,
        ..Done::default()
    }
}

/// The one command that brings processor and disks to what is wanted; `None` when they are there already.
fn plan(config: &Map<String, Value>, wanted: &VmThrottle) -> Result<Option<Command>, Failure> {
    let mut options = QmOptions::new();
    let processor = [
        wanted.cpulimit.map(QmOption::CpuLimit),
        wanted.cpuunits.map(QmOption::CpuUnits),
    ];
    for option in processor.into_iter().flatten() {
        options.set(option);
    }
    for (key, value) in config {
        let Some(key @ QmKey::Drive(bus, index)) = QmKey::read(key) else {
            continue;
        };
        let value = value.as_str().unwrap_or_default();
        if is_empty_cdrom(value) {
            continue;
        }
        let drive = DriveSpec::read(value).ok_or_else(|| not_understood(key, wanted.vmid))?;
        if drive.is_cdrom() {
            continue;
        }
        let limited = drive.with_limits(wanted.iops_rd, wanted.iops_wr, wanted.reset);
        if limited != drive {
            options.set(QmOption::Drive(bus, index, limited));
        }
    }
    let removed: Vec<String> = [QmKey::CpuLimit, QmKey::CpuUnits]
        .into_iter()
        .filter(|key| wanted.reset && options.get(*key).is_none())
        .map(|key| key.to_string())
        .filter(|key| config.contains_key(key))
        .collect();
    if options.is_empty() && removed.is_empty() {
        return Ok(None);
    }
    let mut command = Command::new("set").vm(wanted.vmid);
    if !removed.is_empty() {
        command = command.option("delete", removed.join(","));
    }
    command
        .options(&options)
        .map(Some)
        .map_err(|error| cannot_prepare(&error))
}

/// A drive without a medium, or with the host's own: nothing to limit.
fn is_empty_cdrom(value: &str) -> bool {
    let mut parts = value.split(',');
    matches!(parts.next(), Some("none" | "cdrom")) && parts.any(|part| part == "media=cdrom")
}

/// Writing back options that are not understood could lose them; leaving the disk alone would leave it without a limit.
fn not_understood(key: QmKey, vmid: Vmid) -> Failure {
    Failure::new(
        ErrorCode::Failed,
        format!(
            "drive {key} of VM {vmid} has options that are not known here, so its limits cannot be changed; nothing was changed, set them with the backend's own tools"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_proto::action::Action;
    use serde_json::json;

    fn planned(config: &Value, wanted: Value) -> Result<Option<String>, Failure> {
        let Ok(Action::VmThrottle(wanted)) = Action::from_parts("vm-throttle", &wanted) else {
            panic!("a good request");
        };
        let config = config.as_object().expect("an object");
        let words = |c: Command| c.words().cloned().collect::<Vec<_>>().join(" ");
        plan(config, &wanted).map(|command| command.map(words))
    }

    fn config() -> Value {
        json!({
            "name": "web-1",
            "cpulimit": "2",
            "scsi0": "local:100/vm-100-disk-0.qcow2,iops_rd=10,size=8G,ssd=1",
            "virtio1": "local-lvm:vm-100-disk-1,size=8G",
            "ide2": "local:100/vm-100-cloudinit.qcow2,media=cdrom",
            "ide3": "none,media=cdrom",
            "sata0": "local:iso/debian.iso,media=cdrom,size=600M",
            "unused0": "local:100/vm-100-disk-2.qcow2",
        })
    }

    #[test]
    fn every_real_disk_gets_the_limit_and_nothing_else_changes() {
        let wanted = json!({"vmid": 100, "iops_rd": 100, "iops_wr": 50, "cpulimit": "0.5"});
        assert_eq!(
            planned(&config(), wanted).unwrap().unwrap(),
            "set 100 --cpulimit 0.5 --scsi0 local:100/vm-100-disk-0.qcow2,iops_rd=100,iops_wr=50,size=8G,ssd=1 --virtio1 local-lvm:vm-100-disk-1,iops_rd=100,iops_wr=50,size=8G"
        );
    }

    #[test]
    fn reset_removes_every_limit_and_sets_those_that_are_given() {
        let wanted = json!({"vmid": 100, "reset": true});
        assert_eq!(
            planned(&config(), wanted).unwrap().unwrap(),
            "set 100 --delete cpulimit --scsi0 local:100/vm-100-disk-0.qcow2,size=8G,ssd=1"
        );
        let wanted = json!({"vmid": 100, "reset": true, "cpulimit": 1, "cpuunits": 7});
        assert_eq!(
            planned(&config(), wanted).unwrap().unwrap(),
            "set 100 --cpulimit 1 --cpuunits 7 --scsi0 local:100/vm-100-disk-0.qcow2,size=8G,ssd=1"
        );
        let bare = json!({"name": "a", "scsi0": "local:100/vm-100-disk-0.qcow2,size=8G"});
        let wanted = json!({"vmid": 100, "reset": true});
        assert_eq!(planned(&bare, wanted).unwrap(), None);
    }

    #[test]
    fn a_disk_that_is_not_understood_is_neither_rewritten_nor_passed_over() {
        for odd in [
            "/dev/sda,size=8G",
            "local:100/vm-100-disk-0.qcow2,mbps_rd=5",
            "local:100/vm-100-disk-0.qcow2,iops_rd=5 --args x",
            "",
        ] {
            let config = json!({"scsi0": "local:vm-100-disk-1", "scsi1": odd});
            let failure = planned(&config, json!({"vmid": 100, "iops_rd": 5})).unwrap_err();
            assert_eq!(failure.code, ErrorCode::Failed, "{odd}");
            assert!(failure.message.contains("scsi1"), "{}", failure.message);
        }
    }
}
