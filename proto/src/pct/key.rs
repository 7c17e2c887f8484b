//! Which options of containers exist. A key that is not here cannot be asked for: it is misspelled, or it reaches the host.

use std::fmt;

use super::{ContainerNet, Features, RootFs, Timezone};
use crate::qm::{Description, NameServers, SearchDomains, SshKeys, Tags};
use crate::value::{CpuLimit, CpuUnits, Integer as _, Text as _, VmName, decimal};

/// Name of an option, with its index where it has one. Ordered by name, as `pct config` prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PctKey {
    /// `arch`
    Arch,
    /// `cores`
    Cores,
    /// `cpulimit`
    CpuLimit,
    /// `cpuunits`
    CpuUnits,
    /// `description`
    Description,
    /// `features`
    Features,
    /// `hostname`
    Hostname,
    /// `memory`
    Memory,
    /// `nameserver`
    NameServer,
    /// `netN`
    Net(u8),
    /// `onboot`
    OnBoot,
    /// `ostype`
    OsType,
    /// `rootfs`
    RootFs,
    /// `searchdomain`
    SearchDomain,
    /// `ssh-public-keys`
    SshPublicKeys,
    /// `swap`
    Swap,
    /// `tags`
    Tags,
    /// `timezone`
    Timezone,
    /// `unprivileged`
    Unprivileged,
}

/// The keys without an index, by name.
pub(super) const PLAIN_KEYS: [(&str, PctKey); 18] = [
    ("arch", PctKey::Arch),
    ("cores", PctKey::Cores),
    ("cpulimit", PctKey::CpuLimit),
    ("cpuunits", PctKey::CpuUnits),
    ("description", PctKey::Description),
    ("features", PctKey::Features),
    ("hostname", PctKey::Hostname),
    ("memory", PctKey::Memory),
    ("nameserver", PctKey::NameServer),
    ("onboot", PctKey::OnBoot),
    ("ostype", PctKey::OsType),
    ("rootfs", PctKey::RootFs),
    ("searchdomain", PctKey::SearchDomain),
    ("ssh-public-keys", PctKey::SshPublicKeys),
    ("swap", PctKey::Swap),
    ("tags", PctKey::Tags),
    ("timezone", PctKey::Timezone),
    ("unprivileged", PctKey::Unprivileged),
];

/// What clients may name, from `^` to `$`.
pub(super) const KEY_PATTERN: &str = "^(arch|cores|cpulimit|cpuunits|description|features|hostname|memory|nameserver|onboot|ostype|rootfs|searchdomain|ssh-public-keys|swap|tags|timezone|unprivileged|net[0-9]{1,2})$";

/// How many `netN` there are.
const MAX_NETS: u8 = 32;

impl PctKey {
    /// The key of that name; `None` for everything that is not in the table.
    #[must_use]
    pub fn read(name: &str) -> Option<Self> {
        if let Some((_, key)) = PLAIN_KEYS.iter().find(|(plain, _)| *plain == name) {
            return Some(*key);
        }
        let index = u8::try_from(decimal(name.strip_prefix("net")?)?).ok()?;
        (index < MAX_NETS).then_some(Self::Net(index))
    }

    /// The rule of its values, as a phrase: for messages and for the protocol reference.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Arch => "amd64, i386, arm64, armhf, riscv32 or riscv64",
            Self::Cores => "an integer from 1 to 256",
            Self::CpuLimit => CpuLimit::RULE,
            Self::CpuUnits => CpuUnits::RULE,
            Self::Description => Description::RULE,
            Self::Features => Features::RULE,
            Self::Hostname => VmName::RULE,
            Self::Memory => "MiB, an integer from 16 to 4194304",
            Self::NameServer => NameServers::RULE,
            Self::Net(_) => ContainerNet::RULE,
            Self::OnBoot => "0 or 1",
            Self::OsType => {
                "alpine, archlinux, centos, debian, devuan, fedora, gentoo, nixos, opensuse or ubuntu"
            }
            Self::RootFs => RootFs::RULE,
            Self::SearchDomain => SearchDomains::RULE,
            Self::SshPublicKeys => SshKeys::RULE,
            Self::Swap => "MiB, an integer from 0 to 4194304",
            Self::Tags => Tags::RULE,
            Self::Timezone => Timezone::RULE,
            Self::Unprivileged => "only 1: root of a privileged container is root of the host",
        }
    }

    /// Every option with its rule, for the protocol reference.
    #[must_use]
    pub fn reference() -> Vec<(String, &'static str)> {
        let mut list: Vec<(String, &'static str)> = PLAIN_KEYS
            .iter()
            .map(|(name, key)| ((*name).to_owned(), key.rule()))
            .collect();
        list.push((format!("net0..net{}", MAX_NETS - 1), ContainerNet::RULE));
        list.sort();
        list
    }
}

impl fmt::Display for PctKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(index) => write!(f, "net{index}"),
            plain => f.write_str(
                PLAIN_KEYS
                    .iter()
                    .find(|(_, key)| key == plain)
                    .map_or("", |(name, _)| name),
            ),
        }
    }
}

impl Ord for PctKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

impl PartialOrd for PctKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
