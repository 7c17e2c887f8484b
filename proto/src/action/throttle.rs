//! Limits on what a machine may use: `vm-throttle`, and its two halves under the names that older clients know. Processor
//! and disks are options of the backend, the network is traffic control on the machine's taps.

use super::qm::VM;
use super::{ParamError, ResourceKey, action};
use crate::value::{CpuLimit, CpuUnits, Iops, RateKbps, Vmid};

/// A request that would change nothing is a mistake.
fn something(given: bool, names: &str) -> Result<(), ParamError> {
    if given {
        return Ok(());
    }
    Err(ParamError::Together {
        what: format!("nothing to change: give {names}, or reset true"),
    })
}

action! {
    /// Limits processor, disks and network of a machine. Limits that are not named stay; with `reset` they are removed first.
    /// Those on processor and disks are kept with its options; those on the network last while it runs.
    VmThrottle = "vm-throttle", family "vm", compartment Vm, capabilities VM,
    time_limit_s 120, read_only false, ledger "throttle" / "compute" / "modify",
    {
        /// Number of the machine.
        vmid: Vmid,
        /// Weight among the machines when the processor is short.
        cpuunits: Option<CpuUnits>,
        /// Cores that it may use at most; 0 for no limit.
        cpulimit: Option<CpuLimit>,
        /// Reads per second, of each disk.
        iops_rd: Option<Iops>,
        /// Writes per second, of each disk.
        iops_wr: Option<Iops>,
        /// What it may receive, in kilobits (1000 bits) per second, on each interface.
        rate_in_kbps: Option<RateKbps>,
        /// What it may send, in kilobits (1000 bits) per second, on each interface.
        rate_out_kbps: Option<RateKbps>,
        /// Remove all limits before setting those that are given.
        reset: bool = false,
    }
    check |a| something(
        a.reset || a.cpuunits.is_some() || a.cpulimit.is_some() || a.iops_rd.is_some() || a.iops_wr.is_some()
            || a.rate_in_kbps.is_some() || a.rate_out_kbps.is_some(),
        "cpuunits, cpulimit, iops_rd, iops_wr, rate_in_kbps or rate_out_kbps",
    ),
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("vm:{}", a.vmid),
    example r#"{"vmid": 100, "cpulimit": "0.5", "iops_rd": 500, "iops_wr": 500, "rate_in_kbps": 100000, "rate_out_kbps": 20000}"#,
}

action! {
    /// Limits processor and disks of a machine: `vm-throttle` without the network.
    PveSetThrottle = "pve-set-throttle", family "pve", compartment Vm, capabilities VM,
    time_limit_s 120, read_only false, ledger "throttle" / "compute" / "modify",
    {
        /// Number of the machine.
        vmid: Vmid,
        /// Weight among the machines when the processor is short.
        cpuunits: Option<CpuUnits>,
        /// Cores that it may use at most; 0 for no limit.
        cpulimit: Option<CpuLimit>,
        /// Reads per second, of each disk.
        iops_rd: Option<Iops>,
        /// Writes per second, of each disk.
        iops_wr: Option<Iops>,
        /// Remove these limits before setting those that are given.
        reset: bool = false,
    }
    check |a| something(
        a.reset || a.cpuunits.is_some() || a.cpulimit.is_some() || a.iops_rd.is_some() || a.iops_wr.is_some(),
        "cpuunits, cpulimit, iops_rd or iops_wr",
    ),
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("vm:{}", a.vmid),
    example r#"{"vmid": 100, "cpuunits": 50, "cpulimit": 1}"#,
}

action! {
    /// Limits the network of a machine: `vm-throttle` without processor and disks. Its limits last while the machine runs.
    TcRateLimit = "tc-rate-limit", family "tc", compartment Vm, capabilities VM,
    time_limit_s 60, read_only false, ledger "throttle" / "network" / "modify",
    {
        /// Number of the machine.
        vmid: Vmid,
        /// What it may receive, in kilobits (1000 bits) per second, on each interface.
        rate_in_kbps: Option<RateKbps>,
        /// What it may send, in kilobits (1000 bits) per second, on each interface.
        rate_out_kbps: Option<RateKbps>,
        /// Remove these limits before setting those that are given.
        reset: bool = false,
    }
    check |a| something(
        a.reset || a.rate_in_kbps.is_some() || a.rate_out_kbps.is_some(),
        "rate_in_kbps or rate_out_kbps",
    ),
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("vm:{}", a.vmid),
    example r#"{"vmid": 100, "rate_out_kbps": 20000}"#,
}

impl From<&PveSetThrottle> for VmThrottle {
    fn from(half: &PveSetThrottle) -> Self {
        Self {
            vmid: half.vmid,
            cpuunits: half.cpuunits,
            cpulimit: half.cpulimit,
            iops_rd: half.iops_rd,
            iops_wr: half.iops_wr,
            rate_in_kbps: None,
            rate_out_kbps: None,
            reset: half.reset,
        }
    }
}
