//! Names of files and volumes. They are names under a directory that the agent chose; opening them beneath it is the
//! compartments' work, but nothing that could climb out of it gets this far.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

use super::{StorageName, Text, made_of, text_newtype, text_value};

/// A disk image: a path below an image directory, or, from older clients, the whole path of such a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePath(String);

/// A cloud-init file: `<storage>:snippets/<file>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnippetRef {
    storage: StorageName,
    file: String,
}

/// A plain file name under `/etc/blockhost`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyFile(String);

/// The part of a volume id behind `<storage>:`, naming an existing disk or ISO image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeRef(String);

text_newtype!(ImagePath, KeyFile, VolumeRef);
text_value!(SnippetRef);

/// One component of a path: starts with a letter, digit or `_`, so never `.`, `..`, hidden or an option.
pub(super) fn component(text: &str) -> bool {
    made_of(text, 1..=128, |b| {
        b.is_ascii_alphanumeric() || b"_.+-".contains(&b)
    }) && (text.as_bytes()[0].is_ascii_alphanumeric() || text.starts_with('_'))
}

pub(super) const COMPONENT: &str = "[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}";

impl ImagePath {
    /// True for a whole path as older clients send it.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.0.starts_with('/')
    }

    /// As a path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The last component.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path relative to `directory` (an absolute path of the host, such as `/var/lib/blockhost/images`): the path
    /// itself when it is relative, what follows `directory` when it is a whole path below it, else `None`.
    #[must_use]
    pub fn below(&self, directory: &Path) -> Option<&Path> {
        if self.is_absolute() {
            self.as_path()
                .strip_prefix(directory)
                .ok()
                .filter(|rest| !rest.as_os_str().is_empty())
        } else {
            Some(self.as_path())
        }
    }
}

impl Text for ImagePath {
    const KIND: &'static str = "image path";
    const RULE: &'static str =
        "a file name or path of plain components (letters, digits, _ . + -), without . or ..";
    fn read(text: &str) -> Option<Self> {
        let relative = text.strip_prefix('/').unwrap_or(text);
        (text.len() <= 1024 && relative.split('/').all(component)).then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "maxLength": 1024, "pattern": format!("^/?{COMPONENT}(/{COMPONENT})*$")})
    }
}

impl SnippetRef {
    /// The storage that holds the snippet.
    #[must_use]
    pub const fn storage(&self) -> &StorageName {
        &self.storage
    }

    /// The file's name in the snippets directory.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl fmt::Display for SnippetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:snippets/{}", self.storage, self.file)
    }
}

impl Text for SnippetRef {
    const KIND: &'static str = "snippet";
    const RULE: &'static str = "<storage>:snippets/<plain file name>";
    fn read(text: &str) -> Option<Self> {
        let (storage, file) = text.split_once(":snippets/")?;
        Some(Self {
            storage: StorageName::read(storage)?,
            file: component(file).then(|| file.to_owned())?,
        })
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": format!("^[a-z][a-z0-9-]{{0,31}}:snippets/{COMPONENT}$")})
    }
}

impl KeyFile {
    /// Where key files are.
    pub const DIRECTORY: &'static str = "/etc/blockhost/";

    /// The whole path on a production host.
    #[must_use]
    pub fn absolute(&self) -> String {
        format!("{}{}", Self::DIRECTORY, self.0)
    }
}

impl Text for KeyFile {
    const KIND: &'static str = "key file";
    const RULE: &'static str = "a plain file name under /etc/blockhost/";
    fn read(text: &str) -> Option<Self> {
        let name = text.strip_prefix(Self::DIRECTORY).unwrap_or(text);
        component(name).then(|| Self(name.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": format!("^(/etc/blockhost/)?{COMPONENT}$")})
    }
}

impl VolumeRef {
    /// The machine that a disk volume belongs to; `None` for an ISO image.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        owner(self.0.rsplit('/').next()?)
    }

    /// The machine whose volume a linked clone is based on, where the name says it.
    #[must_use]
    pub fn base_owner(&self) -> Option<u32> {
        let (before, _) = self.0.rsplit_once('/')?;
        before.split('/').find_map(owner)
    }

    /// True for `iso/<file>.iso`: readable by every machine.
    #[must_use]
    pub fn is_iso(&self) -> bool {
        self.0.starts_with("iso/")
    }
}

/// `vm-100-disk-0.qcow2`, `base-100-disk-0`, `vm-100-cloudinit.qcow2` belong to 100.
fn owner(name: &str) -> Option<u32> {
    let rest = name
        .strip_prefix("vm-")
        .or_else(|| name.strip_prefix("base-"))?;
    let (number, rest) = rest.split_once('-')?;
    let known =
        rest.starts_with("disk-") || rest.starts_with("cloudinit") || rest.starts_with("state-");
    if known {
        super::decimal(number).and_then(|n| u32::try_from(n).ok())
    } else {
        None
    }
}

impl Text for VolumeRef {
    const KIND: &'static str = "volume";
    const RULE: &'static str = "[<dir>/]{vm|base}-<vmid>-disk-<n>[.ext], with its base volume in front where it is a linked clone, or iso/<file>.iso";
    fn read(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        if text.len() > 256
            || !parts
                .iter()
                .all(|part| component(part) && !part.contains('+'))
        {
            return None;
        }
        let directory = |part: &str, volume: &str| {
            super::decimal(part).is_some_and(|n| owner(volume).map(u64::from) == Some(n))
        };
        let volume = |part: &str| owner(part).is_some();
        let base = |part: &str| part.starts_with("base-") && volume(part);
        let good = match parts[..] {
            ["iso", file] => file.ends_with(".iso"),
            [disk] => volume(disk),
            [a, disk] => (directory(a, disk) && volume(disk)) || (base(a) && volume(disk)),
            [a, b, c, disk] => directory(a, b) && base(b) && directory(c, disk) && volume(disk),
            _ => false,
        };
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "maxLength": 256, "pattern": "^(iso/[A-Za-z0-9_][A-Za-z0-9_.-]*\\.iso|([0-9]+/)?(base-[0-9]+-disk-[A-Za-z0-9_.-]+/([0-9]+/)?)?(vm|base)-[0-9]+-[A-Za-z0-9_.-]+)$"})
    }
}
