//! Container options with one value: closed sets, features, the root file system, the time zone.

use std::fmt;

use crate::qm::flag;
use crate::value::{StorageName, Text, decimal, made_of};

pub(super) const ARCH: &[&str] = &["amd64", "i386", "arm64", "armhf", "riscv32", "riscv64"];
/// Without `unmanaged`: what is inside is then nobody's to set up, addresses and keys included.
pub(super) const OSTYPE: &[&str] = &[
    "alpine",
    "archlinux",
    "centos",
    "debian",
    "devuan",
    "fedora",
    "gentoo",
    "nixos",
    "opensuse",
    "ubuntu",
];

/// `features`: what an unprivileged container may do with itself. `mount=` and `mknod` are the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features {
    /// File systems in user space.
    pub fuse: Option<bool>,
    /// The kernel's key rings.
    pub keyctl: Option<bool>,
    /// Containers inside it.
    pub nesting: Option<bool>,
}

impl Features {
    pub(super) const RULE: &'static str = "fuse=0|1, keyctl=0|1, nesting=0|1, each at most once";

    pub(super) fn read(text: &str) -> Option<Self> {
        let mut features = Self::default();
        for part in text.split(',') {
            let (name, value) = part.split_once('=')?;
            let slot = match name {
                "fuse" => &mut features.fuse,
                "keyctl" => &mut features.keyctl,
                "nesting" => &mut features.nesting,
                _ => return None,
            };
            if slot.replace(flag(value)?).is_some() {
                return None;
            }
        }
        Some(features)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lead = "";
        for (name, value) in [
            ("fuse", self.fuse),
            ("keyctl", self.keyctl),
            ("nesting", self.nesting),
        ] {
            if let Some(value) = value {
                write!(f, "{lead}{name}={}", u8::from(value))?;
                lead = ",";
            }
        }
        Ok(())
    }
}

/// `rootfs` of a new container: a new volume, `<storage>:<GiB>`. An existing one, a directory or a device of the host
/// cannot be written down.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RootFs {
    /// Storage that holds it.
    pub storage: StorageName,
    /// Size in GiB: 1..=65536.
    pub gib: u32,
}

impl RootFs {
    pub(super) const RULE: &'static str = "<storage>:<GiB>, a new volume of 1 to 65536 GiB";

    pub(super) fn read(text: &str) -> Option<Self> {
        let (storage, size) = text.split_once(':')?;
        let gib = decimal(size).filter(|n| (1..=65_536).contains(n))?;
        Some(Self {
            storage: StorageName::read(storage)?,
            gib: u32::try_from(gib).ok()?,
        })
    }
}

impl fmt::Display for RootFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.storage, self.gib)
    }
}

/// `timezone`: `host`, or a name of the time zone database such as `Europe/Berlin`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Timezone(String);

impl Timezone {
    pub(super) const RULE: &'static str = "host, or up to three words such as Europe/Berlin";

    /// The backend opens a file of that name below its zone directory: words that begin with a letter cannot leave it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let word = |word: &str| {
            made_of(word, 1..=32, |b| {
                b.is_ascii_alphanumeric() || b"_+-".contains(&b)
            }) && word.as_bytes()[0].is_ascii_alphabetic()
        };
        let words: Vec<&str> = text.split('/').collect();
        (words.len() <= 3 && words.into_iter().all(word)).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Timezone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
