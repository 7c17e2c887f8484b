//! `qm list`: the table of machines, in Proxmox's columns.
#![forbid(unsafe_code)]

use crate::beside::side_by_side;
use crate::config::VmConfig;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::machine::Vmid;
use crate::metrics::AT_ONCE;
use crate::runtime::{self, State};
use crate::storage::Storages;
use crate::{hardware, image, options, power};

/// The table; empty text without machines, as in Proxmox.
///
/// # Errors
/// When the configurations cannot be listed. A damaged one is a row with that word, not an error.
pub fn table(host: &Host) -> Result<String> {
    let mut text = String::new();
    let vmids = VmConfig::all(host)?;
    for (vmid, state) in vmids.iter().zip(states(host, &vmids)) {
        let vmid = *vmid;
        if text.is_empty() {
            text = row("VMID", "NAME", "STATUS", "MEM(MB)", "BOOTDISK(GB)", "PID");
        }
        let config = match VmConfig::load(host, vmid) {
            Ok(config) => config,
            Err(e) => {
                eprintln!("{e}");
                text.push_str(&row(&vmid.to_string(), "-", "damaged", "0", "0.00", "0"));
                continue;
            }
        };
        let (status, pid) = state?;
        let name = config
            .get("name")
            .map_or_else(|| format!("VM {vmid}"), str::to_owned);
        let hundredths = boot_disk_bytes(host, &config).saturating_mul(100) >> 30;
        let disk = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        let memory = config.number("memory", 512).to_string();
        text.push_str(&row(
            &vmid.to_string(),
            &name,
            &status,
            &memory,
            &disk,
            &pid.to_string(),
        ));
    }
    Ok(text)
}

/// Word and process of each machine. All that run are asked at once: one that hangs is waited for.
fn states(host: &Host, vmids: &[Vmid]) -> Vec<Result<(String, i32)>> {
    let ask = |vmid: Vmid| {
        let state = runtime::state(host, vmid)?;
        let pid = match &state {
            State::Running(Some(process)) => process.pid,
            _ => 0,
        };
        Ok((power::told(host, vmid, &state), pid))
    };
    let lost = || Err(Error::Failed("a thread ended".to_owned()));
    side_by_side(vmids, AT_ONCE, ask, lost)
}

fn row(vmid: &str, name: &str, status: &str, memory: &str, disk: &str, pid: &str) -> String {
    format!("{vmid:>10} {name:<20} {status:<10} {memory:<10} {disk:>12} {pid:<10}\n")
}

/// Size of the disk a machine boots from; 0 without one.
pub fn boot_disk_bytes(host: &Host, config: &VmConfig) -> u64 {
    let first = hardware::boot_order(config)
        .into_iter()
        .find_map(|key| config.get(&key).and_then(options::volume_of));
    let size = |volume| image::virtual_size(&Storages::load(host)?, &volume);
    first.and_then(|volume| size(volume).ok()).unwrap_or(0)
}
