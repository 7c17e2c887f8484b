//! Options with one value: closed sets, CPU, boot order, agent, tags, description.

use std::fmt;

use super::{DriveBus, QmKey};
use crate::value::made_of;

pub(crate) const BIOS: &[&str] = &["seabios", "ovmf"];
pub(crate) const OSTYPE: &[&str] = &[
    "other", "wxp", "w2k", "w2k3", "w2k8", "wvista", "win7", "win8", "win10", "win11", "l24",
    "l26", "solaris",
];
pub(crate) const SCSIHW: &[&str] = &[
    "lsi",
    "lsi53c810",
    "virtio-scsi-pci",
    "virtio-scsi-single",
    "megasas",
    "pvscsi",
];
pub(crate) const VGA: &[&str] = &[
    "std", "cirrus", "vmware", "qxl", "virtio", "serial0", "none",
];
const CPU_MODELS: &[&str] = &[
    "host",
    "max",
    "kvm32",
    "kvm64",
    "qemu32",
    "qemu64",
    "x86-64-v2",
    "x86-64-v2-AES",
    "x86-64-v3",
    "x86-64-v4",
    "Conroe",
    "Penryn",
    "Nehalem",
    "Nehalem-IBRS",
    "Westmere",
    "Westmere-IBRS",
    "SandyBridge",
    "SandyBridge-IBRS",
    "IvyBridge",
    "IvyBridge-IBRS",
    "Haswell",
    "Haswell-IBRS",
    "Haswell-noTSX",
    "Haswell-noTSX-IBRS",
    "Broadwell",
    "Broadwell-IBRS",
    "Broadwell-noTSX",
    "Broadwell-noTSX-IBRS",
    "Skylake-Client",
    "Skylake-Client-IBRS",
    "Skylake-Client-noTSX-IBRS",
    "Skylake-Server",
    "Skylake-Server-IBRS",
    "Skylake-Server-noTSX-IBRS",
    "Cascadelake-Server",
    "Cascadelake-Server-noTSX",
    "Cooperlake",
    "Icelake-Client",
    "Icelake-Client-noTSX",
    "Icelake-Server",
    "Icelake-Server-noTSX",
    "SapphireRapids",
    "KnightsMill",
    "Opteron_G1",
    "Opteron_G2",
    "Opteron_G3",
    "Opteron_G4",
    "Opteron_G5",
    "EPYC",
    "EPYC-IBPB",
    "EPYC-Rome",
    "EPYC-Milan",
    "EPYC-Genoa",
    "athlon",
    "phenom",
    "core2duo",
    "coreduo",
    "486",
    "pentium",
    "pentium2",
    "pentium3",
];
const CPU_FLAGS: &[&str] = &[
    "md-clear",
    "pcid",
    "spec-ctrl",
    "ssbd",
    "ibpb",
    "virt-ssbd",
    "amd-ssbd",
    "amd-no-ssb",
    "pdpe1gb",
    "hv-tlbflush",
    "hv-evmcs",
    "aes",
];

/// `0` or `1`.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// A value out of a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Choice(String);

impl Choice {
    pub(crate) fn read(set: &[&str], text: &str) -> Option<Self> {
        set.contains(&text).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `pc`, `q35`, or a versioned form of them.
pub(crate) fn machine(text: &str) -> Option<Choice> {
    let version = |v: &str| {
        v.split_once('.').is_some_and(|(major, minor)| {
            made_of(major, 1..=2, |b| b.is_ascii_digit())
                && made_of(minor, 1..=2, |b| b.is_ascii_digit())
        })
    };
    let good = matches!(text, "pc" | "q35")
        || text.strip_prefix("pc-i440fx-").is_some_and(version)
        || text.strip_prefix("pc-q35-").is_some_and(version);
    good.then(|| Choice(text.to_owned()))
}

/// `cpu`: a model and flags switched on or off, `x86-64-v2-AES,flags=+aes;-pcid`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cpu {
    /// Model.
    pub model: Choice,
    /// Flags with true for on, in the order given.
    pub flags: Vec<(Choice, bool)>,
}

impl Cpu {
    pub(crate) const RULE: &'static str = "a known model, then ,flags=+flag;-flag with known flags";

    pub(crate) fn read(text: &str) -> Option<Self> {
        let (model, flags) = match text.split_once(",flags=") {
            Some((model, flags)) => (model, Some(flags)),
            None => (text, None),
        };
        let mut list: Vec<(Choice, bool)> = Vec::new();
        for item in flags.into_iter().flat_map(|f| f.split(';')) {
            let on = match item.as_bytes().first()? {
                b'+' => true,
                b'-' => false,
                _ => return None,
            };
            let flag = Choice::read(CPU_FLAGS, &item[1..])?;
            if list.iter().any(|(other, _)| *other == flag) {
                return None;
            }
            list.push((flag, on));
        }
        Some(Self {
            model: Choice::read(CPU_MODELS, model)?,
            flags: list,
        })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.model)?;
        for (i, (flag, on)) in self.flags.iter().enumerate() {
            let lead = if i == 0 { ",flags=" } else { ";" };
            write!(f, "{lead}{}{flag}", if *on { '+' } else { '-' })?;
        }
        Ok(())
    }
}

/// A device to boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootDevice {
    /// A drive, such as `scsi0`.
    Drive(DriveBus, u8),
    /// A network device, such as `net0`.
    Net(u8),
}

impl BootDevice {
    /// As an option key.
    #[must_use]
    pub const fn key(self) -> QmKey {
        match self {
            Self::Drive(bus, index) => QmKey::Drive(bus, index),
            Self::Net(index) => QmKey::Net(index),
        }
    }
}

/// `boot`: `order=scsi0;ide2;net0`, each device once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BootOrder(pub Vec<BootDevice>);

impl BootOrder {
    pub(crate) const RULE: &'static str =
        "order=<device>;<device>, drives and network devices, each once";

    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut order = Vec::new();
        for name in text.strip_prefix("order=")?.split(';') {
            let device = match QmKey::read(name)? {
                QmKey::Drive(bus, index) => BootDevice::Drive(bus, index),
                QmKey::Net(index) => BootDevice::Net(index),
                _ => return None,
            };
            if order.contains(&device) || order.len() == 16 {
                return None;
            }
            order.push(device);
        }
        Some(Self(order))
    }
}

impl fmt::Display for BootOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("order=")?;
        for (i, device) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ";" }, device.key())?;
        }
        Ok(())
    }
}

/// `agent`: whether the guest agent is expected; `1`, `0`, `enabled=1,fstrim_cloned_disks=1,type=virtio`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Agent {
    /// Expected.
    pub enabled: bool,
    /// Trim disks after a clone.
    pub fstrim_cloned_disks: bool,
}

impl Agent {
    pub(crate) const RULE: &'static str =
        "0, 1 or enabled=0|1, then optionally fstrim_cloned_disks=0|1";

    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let first = parts.next()?;
        let enabled = flag(first.strip_prefix("enabled=").unwrap_or(first))?;
        let fstrim_cloned_disks = match parts.next() {
            Some(part) => flag(part.strip_prefix("fstrim_cloned_disks=")?)?,
            None => false,
        };
        parts.next().is_none().then_some(Self {
            enabled,
            fstrim_cloned_disks,
        })
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", u8::from(self.enabled))?;
        if self.fstrim_cloned_disks {
            f.write_str(",fstrim_cloned_disks=1")
        } else {
            Ok(())
        }
    }
}

/// `tags`: `web;customer-7`, lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tags(pub Vec<Choice>);

impl Tags {
    pub(crate) const RULE: &'static str = "up to 32 tags of a-z, 0-9, _ + . and - separated by ;";

    pub(crate) fn read(text: &str) -> Option<Self> {
        let tags: Vec<&str> = text.split(';').collect();
        let tag = |tag: &&str| {
            made_of(tag, 1..=64, |b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || b"_+.-".contains(&b)
            }) && (tag.as_bytes()[0].is_ascii_alphanumeric() || tag.starts_with('_'))
        };
        (tags.len() <= 32 && tags.iter().all(tag))
            .then(|| Self(tags.into_iter().map(|t| Choice(t.to_owned())).collect()))
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, tag) in self.0.iter().enumerate() {
            write!(f, "{}{tag}", if i == 0 { "" } else { ";" })?;
        }
        Ok(())
    }
}

/// `description`: printable ASCII on one line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Description(String);

impl Description {
    pub(crate) const RULE: &'static str =
        "1 to 1024 printable ASCII characters on one line, not starting with - or space";

    pub(crate) fn read(text: &str) -> Option<Self> {
        let good = made_of(text, 1..=1024, |b| (b' '..=b'~').contains(&b))
            && !text.starts_with(['-', ' '])
            && !text.ends_with(' ');
        good.then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
