//! Options as they come on the command line, and what setting one does: volumes made, MAC addresses chosen, keys read
//! from files. The grammar of the values is the catalog's (`blockhost_proto::qm`), so nothing here re-parses text.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;

use blockhost_proto::qm::{DiskSource, DriveSpec, MacAddress, QmKey, QmOption, SshKeys};

use crate::config::{self, Props, VmConfig};
use crate::error::{Error, IoContext, Result};
use crate::host::Host;
use crate::image;
use crate::machine::Vmid;
use crate::storage::{Storages, Volume};
use crate::sys;

/// Longest file of SSH keys.
const KEYS_LIMIT: u64 = 64 * 1024;

/// One change of a configuration.
#[derive(Debug, Clone)]
pub enum Change {
    /// Set an option of the grammar.
    Set(Box<QmOption>),
    /// Remove an option by its key (`--delete`).
    Delete(String),
}

/// Reads `--key value`, `-key value` and `--key=value` as Proxmox does, for machines and containers alike.
///
/// # Errors
/// [`Error::Option`] for what is no option, and for one without its value.
pub fn read_pairs(args: &[String]) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let name = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err(Error::option(
                arg.escape_default().to_string(),
                "expected an option such as --memory 2048",
            ));
        };
        let (key, value) = match name.split_once('=') {
            Some((key, value)) => (key, value.to_owned()),
            None => match rest.next() {
                Some(value) => (name, value.clone()),
                None => return Err(Error::option(name, "option needs a value")),
            },
        };
        pairs.push((key.to_owned(), value));
    }
    Ok(pairs)
}

/// The keys in the value of `--delete`.
pub fn deleted_keys(value: &str) -> impl Iterator<Item = &str> {
    value.split([',', ';', ' ']).filter(|key| !key.is_empty())
}

/// The changes that a command line asks for.
///
/// # Errors
/// [`Error::Option`] for a key or value outside the grammar.
pub fn read_args(args: &[String]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for (key, value) in read_pairs(args)? {
        let key = key.as_str();
        match key {
            "delete" => changes.extend(deleted_keys(&value).map(deletion)),
            "sshkeys" => changes.push(Change::Set(Box::new(QmOption::SshKeys(read_keys(
                key, &value,
            )?)))),
            _ => {
                let option =
                    QmOption::parse(key, &value).map_err(|e| Error::option(key, e.to_string()))?;
                changes.push(Change::Set(Box::new(option)));
            }
        }
    }
    Ok(changes)
}

fn deletion(key: &str) -> Change {
    Change::Delete(key.to_owned())
}

/// Keys from the text itself, its percent-encoded form, or (as in Proxmox) a file of that name.
///
/// # Errors
/// When they are none, or the file cannot be read.
pub fn read_keys(option: &str, value: &str) -> Result<SshKeys> {
    let bad = |problem: &str| Error::option(option, problem.to_owned());
    if let Some(keys) = SshKeys::read(value).or_else(|| SshKeys::from_percent_encoded(value)) {
        return Ok(keys);
    }
    if !value.starts_with('/') {
        return Err(bad(
            "neither OpenSSH public keys, one per line, nor the absolute path of a file with them",
        ));
    }
    let mut text = String::new();
    let file = File::open(value).at("cannot open", value)?;
    file.take(KEYS_LIMIT)
        .read_to_string(&mut text)
        .at("cannot read", value)?;
    SshKeys::read(text.trim_end())
        .ok_or_else(|| bad("the file holds something else than OpenSSH public keys"))
}

/// Applies changes to a configuration, making the volumes they ask for. On an error the volumes made so far are removed
/// again and the configuration must be thrown away.
///
/// # Errors
/// When a value cannot be used on this host.
pub fn apply(
    host: &Host,
    storages: &Storages,
    vmid: Vmid,
    config: &mut VmConfig,
    changes: Vec<Change>,
) -> Result<()> {
    let mut made = Vec::new();
    let result = changes.into_iter().try_for_each(|change| match change {
        Change::Set(option) => set(host, storages, vmid, config, *option, &mut made),
        Change::Delete(key) => delete(storages, config, &key),
    });
    if result.is_err() {
        for volume in &made {
            let _ = storages.free(volume);
        }
    }
    result
}

fn set(
    host: &Host,
    storages: &Storages,
    vmid: Vmid,
    config: &mut VmConfig,
    option: QmOption,
    made: &mut Vec<Volume>,
) -> Result<()> {
    let key = option.key().to_string();
    let value = match option {
        QmOption::Drive(_, _, drive) => {
            let value = drive_value(host, storages, vmid, &key, &drive, made)?;
            let volume = volume_of(&value);
            // A disk that gets a place is no longer unused; one that loses its place becomes so.
            let unused: Vec<String> = config
                .numbered("unused")
                .into_iter()
                .filter(|(_, held)| volume_of(held) == volume)
                .map(|(n, _)| format!("unused{n}"))
                .collect();
            for key in unused {
                config.remove(&key);
            }
            if config.get(&key).and_then(volume_of) != volume {
                detach(config, &key);
            }
            value
        }
        QmOption::Net(index, mut device) => {
            if device.mac.is_none() {
                let kept = config.get(&key).and_then(stored_mac);
                device.mac = Some(kept.map_or_else(random_mac, Ok)?);
            }
            QmOption::Net(index, device).value()
        }
        QmOption::SshKeys(keys) => keys.to_percent_encoded(),
        other => other.value(),
    };
    config.set(key, value);
    Ok(())
}

fn drive_value(
    host: &Host,
    storages: &Storages,
    vmid: Vmid,
    key: &str,
    drive: &DriveSpec,
    made: &mut Vec<Volume>,
) -> Result<String> {
    let storage = drive.storage.to_string();
    storages.root(&storage)?;
    if drive
        .option("format")
        .is_some_and(|format| format != "qcow2")
    {
        return Err(Error::option(key, "this backend keeps disks as qcow2 only"));
    }
    let text = drive.to_string();
    let mut props = Props::parse(&text);
    props.pairs.retain(|(name, _)| name != "format");
    match &drive.source {
        DiskSource::NewGib(gib) => {
            let volume = storages.allocate(host, &storage, vmid)?;
            made.push(volume.clone());
            image::create(host, storages, &volume, Some(u64::from(*gib) << 30))?;
            props.head = Some(volume.to_string());
            props.set("size", format!("{gib}G"));
        }
        DiskSource::CloudInit => {
            props.head = Some(format!("{storage}:{vmid}/vm-{vmid}-cloudinit.qcow2"));
            props.set("media", "cdrom");
        }
        DiskSource::Volume(name) => {
            let wrong =
                |problem: &str| Error::option(key, format!("volume '{storage}:{name}': {problem}"));
            let volume = Volume::parse(&format!("{storage}:{name}"))
                .ok_or_else(|| wrong("expected <storage>:<vmid>/vm-<vmid>-disk-<n>.qcow2"))?;
            if volume.vmid != vmid {
                return Err(wrong("belongs to another machine"));
            }
            if !volume.is_cloudinit() {
                let bytes = image::virtual_size(storages, &volume)?;
                props.head = Some(volume.to_string());
                props.set("size", size_text(bytes));
            }
        }
    }
    Ok(props.to_string())
}

fn delete(storages: &Storages, config: &mut VmConfig, key: &str) -> Result<()> {
    if config::index_of(key, "unused").is_some() {
        if let Some(volume) = config.remove(key).as_deref().and_then(volume_of) {
            storages.free(&volume)?;
        }
        return Ok(());
    }
    match QmKey::read(key) {
        Some(QmKey::Drive(..)) => {
            detach(config, key);
            config.remove(key);
            Ok(())
        }
        Some(_) => {
            config.remove(key);
            Ok(())
        }
        None => Err(Error::option(
            "delete",
            format!("unknown setting '{}'", key.escape_default()),
        )),
    }
}

/// Keeps the disk of a drive that is about to go, as `unusedN`.
fn detach(config: &mut VmConfig, key: &str) {
    if let Some(volume) = config
        .get(key)
        .and_then(volume_of)
        .filter(|volume| !volume.is_cloudinit())
    {
        let unused = config.free_unused();
        config.set(unused, volume.to_string());
    }
}

/// The volume in a stored drive value.
pub fn volume_of(value: &str) -> Option<Volume> {
    Volume::parse(&Props::parse(value).head?)
}

/// MAC address in a stored `netN` value.
pub fn stored_mac(value: &str) -> Option<MacAddress> {
    match QmOption::parse("net0", value) {
        Ok(QmOption::Net(_, device)) => device.mac,
        _ => None,
    }
}

/// A new address in Proxmox's own range.
pub fn random_mac() -> Result<MacAddress> {
    let [a, b, c] = sys::random::<3>().at("cannot read", "/dev/urandom")?;
    MacAddress::new([0xbc, 0x24, 0x11, a, b, c])
        .ok_or_else(|| Error::Failed("no MAC address".to_owned()))
}

/// A size as Proxmox prints it: the largest unit that fits without a remainder.
pub fn size_text(bytes: u64) -> String {
    let units = [
        (1u64 << 40, "T"),
        (1 << 30, "G"),
        (1 << 20, "M"),
        (1 << 10, "K"),
    ];
    units
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(
            || bytes.to_string(),
            |(unit, letter)| format!("{}{letter}", bytes / unit),
        )
}

/// Reads `20G`, `512M`, `1073741824`.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (text.len() - 1, 10),
        b'M' => (text.len() - 1, 20),
        b'G' => (text.len() - 1, 30),
        b'T' => (text.len() - 1, 40),
        _ => (text.len(), 0),
    };
    let digits = text.get(..digits)?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(())?;
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_as_they_were_meant() {
        for (bytes, text) in [
            (10 << 30, "10G"),
            (1536 << 20, "1536M"),
            (512, "512"),
            (2 << 40, "2T"),
        ] {
            assert_eq!(size_text(bytes), text);
            assert_eq!(parse_size(text), Some(bytes));
        }
        for bad in ["", "G", "+1G", "1.5G", "99999999999999T", "-1"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn options_that_reach_the_host_are_refused() {
        for args in [
            ["--args", "-drive file=/etc/shadow"],
            ["--scsi0", "/dev/sda"],
            ["--scsi0", "local:0,import-from=/etc/shadow"],
            ["--hookscript", "local:snippets/x"],
            ["--memory", "1"],
            ["memory", "512"],
            ["--net0", "virtio,bridge=vmbr0,script=/x"],
        ] {
            let args = args.map(str::to_owned);
            assert!(read_args(&args).is_err(), "{args:?}");
        }
        assert!(read_args(&["--memory".to_owned()]).is_err());
    }
}
