//! What stored options mean in QEMU's words: models, controllers, devices, the order of booting. Pure.
#![forbid(unsafe_code)]

use blockhost_proto::qm::{QmKey, QmOption};

use crate::config::{Props, VmConfig};
use crate::error::{Error, Result};

/// CPU model under TCG. Measured in turn on one host: a minbase Debian boots to its agent in 8.3 s with `max`, in 11 s with
/// `Nehalem`; translated vector and string instructions beat the longer code that does without them.
pub(crate) const TCG_CPU: &str = "max";

/// A file that somebody edited gets no further than one that came in by `set`: every stored value is read again by the
/// grammar, so none can carry a second option into QEMU's command line.
pub(crate) fn check_stored(config: &VmConfig) -> Result<()> {
    for (key, value) in config.iter() {
        let known = QmKey::read(key).is_some() && key != "sshkeys";
        if known && let Err(e) = QmOption::parse(key, value) {
            return Err(Error::option(key, e.to_string()));
        }
    }
    let uuid = config.get("smbios1").map(Props::parse).unwrap_or_default();
    if uuid
        .get("uuid")
        .is_some_and(|uuid| !uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'))
    {
        return Err(Error::option("smbios1", "uuid is not valid"));
    }
    Ok(())
}

/// Proxmox's own names of CPU models, in QEMU's words.
pub(crate) fn proxmox_model(model: &str) -> &str {
    match model {
        "x86-64-v2" => "Nehalem",
        "x86-64-v2-AES" => "Westmere",
        "x86-64-v3" => "Haswell-noTSX",
        "x86-64-v4" => "Skylake-Server-noTSX-IBRS",
        other => other,
    }
}

/// Whether `agent` is on.
pub fn agent_enabled(config: &VmConfig) -> bool {
    config.get("agent").map(Props::parse).is_some_and(|props| {
        props.head.as_deref() == Some("1") || props.get("enabled") == Some("1")
    })
}

/// Devices to boot from: as configured, else the first disk.
pub fn boot_order(config: &VmConfig) -> Vec<String> {
    match config
        .get("boot")
        .and_then(|value| value.strip_prefix("order="))
    {
        Some(order) => order.split(';').map(str::to_owned).collect(),
        None => config
            .drives()
            .into_iter()
            .find(|(_, value)| Props::parse(value).get("media") != Some("cdrom"))
            .map(|(key, _)| vec![key])
            .unwrap_or_default(),
    }
}

/// A limit per second; 0 for none.
pub(crate) fn limit(props: &Props, key: &str) -> u64 {
    props
        .get(key)
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

pub(crate) fn scsi_controller(config: &VmConfig) -> Result<&'static str> {
    match config.get("scsihw") {
        // Proxmox's default is an LSI controller; no Linux cloud kernel has its driver.
        None | Some("virtio-scsi-pci" | "virtio-scsi-single") => Ok("virtio-scsi-pci"),
        Some("lsi") => Ok("lsi53c895a"),
        Some("pvscsi") => Ok("pvscsi"),
        Some("megasas") => Ok("megasas"),
        Some(other) => Err(Error::option(
            "scsihw",
            format!(
                "'{}' is not supported by this backend",
                other.escape_default()
            ),
        )),
    }
}

pub(crate) fn device_of(config: &VmConfig, key: &str, cdrom: bool) -> Result<String> {
    let (bus, index) = key.split_at(key.find(|c: char| c.is_ascii_digit()).unwrap_or(key.len()));
    let number: u32 = index
        .parse()
        .map_err(|_| Error::option(key, "no drive name"))?;
    let kind = if cdrom { "cd" } else { "hd" };
    Ok(match bus {
        "virtio" => "virtio-blk-pci".to_owned(),
        "scsi" => format!("scsi-{kind},bus=scsihw0.0,scsi-id={number},lun=0"),
        "sata" => format!("ide-{kind},bus=ahci0.{number}"),
        _ if config
            .get("machine")
            .is_some_and(|machine| machine.contains("q35")) =>
        {
            format!("ide-{kind},bus=ide.{number}")
        }
        _ => format!("ide-{kind},bus=ide.{},unit={}", number / 2, number % 2),
    })
}
