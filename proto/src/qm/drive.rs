//! `scsiN`, `virtioN`, `ideN`, `sataN`: `<storage>:<size or volume>[,option=value]`. A path of the host or `import-from`
//! cannot be written down in these types.

use std::fmt;

use super::scalar::{Choice, flag};
use crate::value::{DiskSize, Integer as _, Iops, StorageName, Text, VolumeRef, decimal};

/// Where a drive is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DriveBus {
    /// `ide0`..`ide3`
    Ide,
    /// `sata0`..`sata5`
    Sata,
    /// `scsi0`..`scsi30`
    Scsi,
    /// `virtio0`..`virtio15`
    Virtio,
}

impl DriveBus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ide, Self::Sata, Self::Scsi, Self::Virtio];

    /// As it stands in a key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ide => "ide",
            Self::Sata => "sata",
            Self::Scsi => "scsi",
            Self::Virtio => "virtio",
        }
    }

    /// How many drives it takes.
    #[must_use]
    pub const fn count(self) -> u8 {
        match self {
            Self::Ide => 4,
            Self::Sata => 6,
            Self::Scsi => 31,
            Self::Virtio => 16,
        }
    }
}

/// What a drive holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DiskSource {
    /// A new empty disk of that many GiB: 1..=65536.
    NewGib(u32),
    /// The cloud-init drive, made by the backend.
    CloudInit,
    /// An existing volume or ISO image.
    Volume(VolumeRef),
}

impl DiskSource {
    /// The machine whose existing disk this is.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        match self {
            Self::Volume(volume) => volume.owner(),
            Self::NewGib(_) | Self::CloudInit => None,
        }
    }

    /// The machine whose disk this existing one is a linked clone of.
    #[must_use]
    pub fn base_owner(&self) -> Option<u32> {
        match self {
            Self::Volume(volume) => volume.base_owner(),
            Self::NewGib(_) | Self::CloudInit => None,
        }
    }
}

/// One drive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DriveSpec {
    /// Storage that holds it.
    pub storage: StorageName,
    /// What it holds.
    pub source: DiskSource,
    options: Vec<(&'static str, DriveValue)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum DriveValue {
    Choice(Choice),
    Flag(bool),
    Number(u64),
    Size(DiskSize),
}

enum Rule {
    OneOf(&'static [&'static str]),
    Flag,
    Number(u64),
    Size,
}

/// Known options, by name: also the order in which they are printed.
const OPTIONS: &[(&str, Rule)] = &[
    ("aio", Rule::OneOf(&["native", "threads", "io_uring"])),
    ("backup", Rule::Flag),
    (
        "cache",
        Rule::OneOf(&["none", "writethrough", "writeback", "unsafe", "directsync"]),
    ),
    ("detect_zeroes", Rule::Flag),
    ("discard", Rule::OneOf(&["ignore", "on"])),
    ("format", Rule::OneOf(&["raw", "qcow2"])),
    ("iops_rd", Rule::Number(Iops::MAX)),
    ("iops_wr", Rule::Number(Iops::MAX)),
    ("iothread", Rule::Flag),
    ("media", Rule::OneOf(&["cdrom", "disk"])),
    ("replicate", Rule::Flag),
    ("ro", Rule::Flag),
    ("size", Rule::Size),
    ("ssd", Rule::Flag),
];

impl DriveSpec {
    pub(crate) const RULE: &'static str = "<storage>:<GiB, cloudinit or volume>[,known=options], never a path of the host or import-from; a format only for a new disk, an ISO image only as a CD-ROM";

    /// A drive without options.
    #[must_use]
    pub const fn new(storage: StorageName, source: DiskSource) -> Self {
        Self {
            storage,
            source,
            options: Vec::new(),
        }
    }

    /// Reads the option's value.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let (storage, volume) = parts.next()?.split_once(':')?;
        let source = match volume {
            "cloudinit" => DiskSource::CloudInit,
            size if size.bytes().all(|b| b.is_ascii_digit()) => DiskSource::NewGib(
                decimal(size)
                    .filter(|n| (1..=65_536).contains(n))
                    .and_then(|n| n.try_into().ok())?,
            ),
            volume => DiskSource::Volume(VolumeRef::read(volume)?),
        };
        let mut drive = Self::new(StorageName::read(storage)?, source);
        for part in parts {
            let (key, value) = part.split_once('=')?;
            let (name, rule) = OPTIONS.iter().find(|(name, _)| *name == key)?;
            let value = match rule {
                Rule::OneOf(set) => DriveValue::Choice(Choice::read(set, value)?),
                Rule::Flag => DriveValue::Flag(flag(value)?),
                Rule::Number(max) => {
                    DriveValue::Number(decimal(value).filter(|n| (1..=*max).contains(n))?)
                }
                Rule::Size => DriveValue::Size(DiskSize::read(value).filter(|s| !s.is_relative())?),
            };
            match drive
                .options
                .binary_search_by(|(other, _)| (*other).cmp(name))
            {
                Ok(_) => return None,
                Err(at) => drive.options.insert(at, (*name, value)),
            }
        }
        drive.agrees_with_its_source()
    }

    /// The format of something that exists is not a client's to declare: a guest writes a qcow2 header that names a file
    /// of the host into its raw disk, and `format=qcow2` makes QEMU follow it. And an ISO image is shared by machines, so
    /// it is never a disk that one of them could write to.
    fn agrees_with_its_source(mut self) -> Option<Self> {
        let media = self.option("media");
        match &self.source {
            DiskSource::NewGib(_) => Some(self),
            DiskSource::CloudInit => (media.as_deref() != Some("disk")).then_some(self),
            DiskSource::Volume(_) if self.option("format").is_some() => None,
            DiskSource::Volume(volume) if volume.is_iso() => match media.as_deref() {
                None => {
                    let at = self.options.partition_point(|(name, _)| *name < "media");
                    let cdrom = DriveValue::Choice(Choice::read(&["cdrom"], "cdrom")?);
                    self.options.insert(at, ("media", cdrom));
                    Some(self)
                }
                media => (media == Some("cdrom")).then_some(self),
            },
            DiskSource::Volume(_) => Some(self),
        }
    }

    /// The value of a known option, printed: `cache` -> `writeback`, `iothread` -> `1`.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<String> {
        self.options
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.to_string())
    }

    /// True when it is a CD-ROM: the cloud-init drive and ISO images always are.
    #[must_use]
    pub fn is_cdrom(&self) -> bool {
        match &self.source {
            DiskSource::CloudInit => true,
            DiskSource::Volume(volume) if volume.is_iso() => true,
            _ => self.option("media").as_deref() == Some("cdrom"),
        }
    }

    /// The same drive with its source and size as the backend recorded them after making the volume.
    #[must_use]
    pub fn with_volume(&self, volume: VolumeRef, size: Option<DiskSize>) -> Self {
        let mut drive = self.clone();
        drive.source = DiskSource::Volume(volume);
        drive
            .options
            .retain(|(name, _)| *name != "size" && *name != "format");
        if let Some(size) = size {
            let at = drive.options.partition_point(|(name, _)| *name < "size");
            drive.options.insert(at, ("size", DriveValue::Size(size)));
        }
        drive
    }

    /// The same drive with other limits on its operations: those given replace what was there, or everything does.
    #[must_use]
    pub fn with_limits(&self, reads: Option<Iops>, writes: Option<Iops>, reset: bool) -> Self {
        let mut drive = self.clone();
        for (name, limit) in [("iops_rd", reads), ("iops_wr", writes)] {
            if reset || limit.is_some() {
                drive.options.retain(|(known, _)| *known != name);
            }
            if let Some(limit) = limit {
                let at = drive.options.partition_point(|(known, _)| *known < name);
                drive
                    .options
                    .insert(at, (name, DriveValue::Number(limit.number())));
            }
        }
        drive
    }

    /// `<storage>:<volume>` of an existing volume.
    #[must_use]
    pub fn volume_id(&self) -> Option<String> {
        match &self.source {
            DiskSource::Volume(volume) => Some(format!("{}:{volume}", self.storage)),
            DiskSource::NewGib(_) | DiskSource::CloudInit => None,
        }
    }
}

impl fmt::Display for DriveValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Choice(choice) => write!(f, "{choice}"),
            Self::Flag(flag) => write!(f, "{}", u8::from(*flag)),
            Self::Number(number) => write!(f, "{number}"),
            Self::Size(size) => write!(f, "{size}"),
        }
    }
}

impl fmt::Display for DriveSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.storage)?;
        match &self.source {
            DiskSource::NewGib(size) => write!(f, "{size}")?,
            DiskSource::CloudInit => f.write_str("cloudinit")?,
            DiskSource::Volume(volume) => write!(f, "{volume}")?,
        }
        for (name, value) in &self.options {
            write!(f, ",{name}={value}")?;
        }
        Ok(())
    }
}
