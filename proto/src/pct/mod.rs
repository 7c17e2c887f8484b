//! Options of containers (`--memory 512`, `net0: name=eth0,bridge=vmbr0`), typed like those of machines in [`crate::qm`]
//! and sharing their values. Keys that reach the host (`mpN`, `devN`, `lxc.*`, `hookscript`, `features: mount=`, ...) do
//! not exist here, and a container whose root is the host's root cannot be asked for.

mod key;
mod net;
mod scalar;

pub use key::PctKey;
pub use net::ContainerNet;
pub use scalar::{Features, RootFs, Timezone};

use crate::escape;
use crate::options::{OneOption, OptionError, Options};
use crate::qm::{Choice, Description, NameServers, SearchDomains, SshKeys, Tags, flag};
use crate::value::{CpuLimit, CpuUnits, IfName, Integer, StorageName, Text, VmName, decimal};

/// A set of container options, each key once, in JSON as an object.
pub type PctOptions = Options<PctOption>;

/// One option with its value. The variant's index belongs to the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PctOption {
    /// `arch`
    Arch(Choice),
    /// `cores`: 1..=256
    Cores(u16),
    /// `cpulimit`, in cores
    CpuLimit(CpuLimit),
    /// `cpuunits`, the weight among machines
    CpuUnits(CpuUnits),
    /// `description`
    Description(Description),
    /// `features`: `nesting=1,keyctl=1`
    Features(Features),
    /// `hostname`
    Hostname(VmName),
    /// `memory` in MiB: 16..=4194304
    Memory(u32),
    /// `nameserver`
    NameServer(NameServers),
    /// `net0` and so on
    Net(u8, ContainerNet),
    /// `onboot`
    OnBoot(bool),
    /// `ostype`
    OsType(Choice),
    /// `rootfs`, when the container is created: `<storage>:<GiB>`
    RootFs(RootFs),
    /// `searchdomain`
    SearchDomain(SearchDomains),
    /// `ssh-public-keys`, one key per line, when the container is created
    SshPublicKeys(SshKeys),
    /// `swap` in MiB: 0..=4194304
    Swap(u32),
    /// `tags`
    Tags(Tags),
    /// `timezone`
    Timezone(Timezone),
    /// `unprivileged`: always 1
    Unprivileged,
}

impl PctOption {
    fn read(key: PctKey, value: &str) -> Option<Self> {
        let number =
            |range: std::ops::RangeInclusive<u64>| decimal(value).filter(|n| range.contains(n));
        let choice = |set: &'static [&'static str]| Choice::read(set, value);
        Some(match key {
            PctKey::Arch => Self::Arch(choice(scalar::ARCH)?),
            PctKey::Cores => Self::Cores(number(1..=256)?.try_into().ok()?),
            PctKey::CpuLimit => Self::CpuLimit(CpuLimit::read(value)?),
            PctKey::CpuUnits => Self::CpuUnits(CpuUnits::from_decimal(value)?),
            PctKey::Description => Self::Description(Description::read(value)?),
            PctKey::Features => Self::Features(Features::read(value)?),
            PctKey::Hostname => Self::Hostname(VmName::read(value)?),
            PctKey::Memory => Self::Memory(number(16..=4_194_304)?.try_into().ok()?),
            PctKey::NameServer => Self::NameServer(NameServers::read(value)?),
            PctKey::Net(index) => Self::Net(index, ContainerNet::read(value)?),
            PctKey::OnBoot => Self::OnBoot(flag(value)?),
            PctKey::OsType => Self::OsType(choice(scalar::OSTYPE)?),
            PctKey::RootFs => Self::RootFs(RootFs::read(value)?),
            PctKey::SearchDomain => Self::SearchDomain(SearchDomains::read(value)?),
            PctKey::SshPublicKeys => Self::SshPublicKeys(SshKeys::read(value)?),
            PctKey::Swap => Self::Swap(number(0..=4_194_304)?.try_into().ok()?),
            PctKey::Tags => Self::Tags(Tags::read(value)?),
            PctKey::Timezone => Self::Timezone(Timezone::read(value)?),
            PctKey::Unprivileged => (value == "1").then_some(Self::Unprivileged)?,
        })
    }
}

impl OneOption for PctOption {
    type Key = PctKey;
    const KIND: &'static str = "set of container options";
    const KEY_PATTERN: &'static str = key::KEY_PATTERN;

    fn parse(key: &str, value: &str) -> Result<Self, OptionError> {
        let Some(id) = PctKey::read(key) else {
            return Err(OptionError::Key {
                key: escape::shown(key),
            });
        };
        Self::read(id, value).ok_or_else(|| OptionError::Value {
            key: id.to_string(),
            given: escape::shown(value),
            rule: id.rule(),
        })
    }

    fn key(&self) -> PctKey {
        match self {
            Self::Arch(_) => PctKey::Arch,
            Self::Cores(_) => PctKey::Cores,
            Self::CpuLimit(_) => PctKey::CpuLimit,
            Self::CpuUnits(_) => PctKey::CpuUnits,
            Self::Description(_) => PctKey::Description,
            Self::Features(_) => PctKey::Features,
            Self::Hostname(_) => PctKey::Hostname,
            Self::Memory(_) => PctKey::Memory,
            Self::NameServer(_) => PctKey::NameServer,
            Self::Net(index, _) => PctKey::Net(*index),
            Self::OnBoot(_) => PctKey::OnBoot,
            Self::OsType(_) => PctKey::OsType,
            Self::RootFs(_) => PctKey::RootFs,
            Self::SearchDomain(_) => PctKey::SearchDomain,
            Self::SshPublicKeys(_) => PctKey::SshPublicKeys,
            Self::Swap(_) => PctKey::Swap,
            Self::Tags(_) => PctKey::Tags,
            Self::Timezone(_) => PctKey::Timezone,
            Self::Unprivileged => PctKey::Unprivileged,
        }
    }

    fn value(&self) -> String {
        match self {
            Self::Arch(v) | Self::OsType(v) => v.to_string(),
            Self::Cores(v) => v.to_string(),
            Self::CpuLimit(v) => v.to_string(),
            Self::CpuUnits(v) => v.to_string(),
            Self::Description(v) => v.to_string(),
            Self::Features(v) => v.to_string(),
            Self::Hostname(v) => v.to_string(),
            Self::Memory(v) | Self::Swap(v) => v.to_string(),
            Self::NameServer(v) => v.to_string(),
            Self::Net(_, v) => v.to_string(),
            Self::OnBoot(v) => u8::from(*v).to_string(),
            Self::RootFs(v) => v.to_string(),
            Self::SearchDomain(v) => v.to_string(),
            Self::SshPublicKeys(v) => v.to_string(),
            Self::Tags(v) => v.to_string(),
            Self::Timezone(v) => v.to_string(),
            Self::Unprivileged => "1".to_owned(),
        }
    }
}

impl PctOptions {
    /// Bridges that the interfaces attach to.
    pub fn bridges(&self) -> impl Iterator<Item = &IfName> {
        self.iter().filter_map(|option| match option {
            PctOption::Net(_, net) => Some(&net.bridge),
            _ => None,
        })
    }

    /// The storage of the root file system.
    #[must_use]
    pub fn root_storage(&self) -> Option<&StorageName> {
        match self.get(PctKey::RootFs) {
            Some(PctOption::RootFs(root)) => Some(&root.storage),
            _ => None,
        }
    }

    /// The first option that only `pct-create` takes.
    #[must_use]
    pub fn only_at_creation(&self) -> Option<PctKey> {
        self.iter().map(OneOption::key).find(|key| {
            matches!(
                key,
                PctKey::RootFs | PctKey::SshPublicKeys | PctKey::Unprivileged
            )
        })
    }
}

#[cfg(test)]
mod tests;
