//! Which options exist. A key that is not here cannot be asked for: it is misspelled, or it reaches the host.

use std::fmt;

use super::{
    Agent, BootOrder, CiCustom, CiUser, Cpu, Description, DriveBus, DriveSpec, IpConfig,
    NameServers, NetDevice, SearchDomains, SshKeys, Tags,
};
use crate::value::{CpuLimit, CpuUnits, Integer as _, Text as _, VmName, decimal};

/// Name of an option, with its index where it has one. Ordered as `qm config` prints them: by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QmKey {
    /// `agent`
    Agent,
    /// `bios`
    Bios,
    /// `boot`
    Boot,
    /// `cicustom`
    CiCustom,
    /// `ciuser`
    CiUser,
    /// `cores`
    Cores,
    /// `cpu`
    Cpu,
    /// `cpulimit`
    CpuLimit,
    /// `cpuunits`
    CpuUnits,
    /// `description`
    Description,
    /// `ideN`, `sataN`, `scsiN`, `virtioN`
    Drive(DriveBus, u8),
    /// `ipconfigN`
    IpConfig(u8),
    /// `machine`
    Machine,
    /// `memory`
    Memory,
    /// `name`
    Name,
    /// `nameserver`
    NameServer,
    /// `netN`
    Net(u8),
    /// `numa`
    Numa,
    /// `onboot`
    OnBoot,
    /// `ostype`
    OsType,
    /// `scsihw`
    ScsiHw,
    /// `searchdomain`
    SearchDomain,
    /// `serial0`
    Serial0,
    /// `sockets`
    Sockets,
    /// `sshkeys`
    SshKeys,
    /// `tags`
    Tags,
    /// `vga`
    Vga,
}

/// The keys without an index, by name.
pub(super) const PLAIN_KEYS: [(&str, QmKey); 24] = [
    ("agent", QmKey::Agent),
    ("bios", QmKey::Bios),
    ("boot", QmKey::Boot),
    ("cicustom", QmKey::CiCustom),
    ("ciuser", QmKey::CiUser),
    ("cores", QmKey::Cores),
    ("cpu", QmKey::Cpu),
    ("cpulimit", QmKey::CpuLimit),
    ("cpuunits", QmKey::CpuUnits),
    ("description", QmKey::Description),
    ("machine", QmKey::Machine),
    ("memory", QmKey::Memory),
    ("name", QmKey::Name),
    ("nameserver", QmKey::NameServer),
    ("numa", QmKey::Numa),
    ("onboot", QmKey::OnBoot),
    ("ostype", QmKey::OsType),
    ("scsihw", QmKey::ScsiHw),
    ("searchdomain", QmKey::SearchDomain),
    ("serial0", QmKey::Serial0),
    ("sockets", QmKey::Sockets),
    ("sshkeys", QmKey::SshKeys),
    ("tags", QmKey::Tags),
    ("vga", QmKey::Vga),
];

/// What clients may name, from `^` to `$`.
pub(super) const KEY_PATTERN: &str = "^(agent|bios|boot|cicustom|ciuser|cores|cpu|description|machine|memory|name|nameserver|numa|onboot|ostype|scsihw|searchdomain|serial0|sockets|sshkeys|tags|vga|(net|ipconfig|ide|sata|scsi|virtio)[0-9]{1,2})$";

/// How many `netN` and `ipconfigN` there are.
const MAX_NETS: u8 = 32;

impl QmKey {
    /// The key of that name; `None` for everything that is not in the table.
    #[must_use]
    pub fn read(name: &str) -> Option<Self> {
        if let Some((_, key)) = PLAIN_KEYS.iter().find(|(plain, _)| *plain == name) {
            return Some(*key);
        }
        let indexed = |prefix: &str, count: u8| {
            let index = u8::try_from(decimal(name.strip_prefix(prefix)?)?).ok()?;
            (index < count).then_some(index)
        };
        if let Some(index) = indexed("net", MAX_NETS) {
            return Some(Self::Net(index));
        }
        if let Some(index) = indexed("ipconfig", MAX_NETS) {
            return Some(Self::IpConfig(index));
        }
        DriveBus::ALL
            .into_iter()
            .find_map(|bus| indexed(bus.as_str(), bus.count()).map(|i| Self::Drive(bus, i)))
    }
}

impl QmKey {
    /// False for the limits on the processor: `vm-throttle` sets them, so that policy can give that right alone.
    #[must_use]
    pub const fn is_for_clients(self) -> bool {
        !matches!(self, Self::CpuLimit | Self::CpuUnits)
    }

    /// The rule of its values, as a phrase: for messages and for the protocol reference.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Agent => Agent::RULE,
            Self::Bios => "seabios or ovmf",
            Self::Boot => BootOrder::RULE,
            Self::CiCustom => CiCustom::RULE,
            Self::CiUser => CiUser::RULE,
            Self::Cores => "an integer from 1 to 256",
            Self::Cpu => Cpu::RULE,
            Self::CpuLimit => CpuLimit::RULE,
            Self::CpuUnits => CpuUnits::RULE,
            Self::Description => Description::RULE,
            Self::Drive(..) => DriveSpec::RULE,
            Self::IpConfig(_) => IpConfig::RULE,
            Self::Machine => "pc, q35, pc-i440fx-<n>.<n> or pc-q35-<n>.<n>",
            Self::Memory => "MiB, an integer from 16 to 4194304",
            Self::Name => VmName::RULE,
            Self::NameServer => NameServers::RULE,
            Self::Net(_) => NetDevice::RULE,
            Self::Numa | Self::OnBoot => "0 or 1",
            Self::OsType => {
                "other, wxp, w2k, w2k3, w2k8, wvista, win7, win8, win10, win11, l24, l26 or solaris"
            }
            Self::ScsiHw => {
                "lsi, lsi53c810, virtio-scsi-pci, virtio-scsi-single, megasas or pvscsi"
            }
            Self::SearchDomain => SearchDomains::RULE,
            Self::Serial0 => "only socket",
            Self::Sockets => "an integer from 1 to 4",
            Self::SshKeys => SshKeys::RULE,
            Self::Tags => Tags::RULE,
            Self::Vga => "std, cirrus, vmware, qxl, virtio, serial0 or none",
        }
    }

    /// Every option with its rule, indexed ones as `net0..net31`: for the protocol reference.
    #[must_use]
    pub fn reference() -> Vec<(String, &'static str)> {
        let last = |count: u8| count - 1;
        let mut list: Vec<(String, &'static str)> = PLAIN_KEYS
            .iter()
            .filter(|(_, key)| key.is_for_clients())
            .map(|(name, key)| ((*name).to_owned(), key.rule()))
            .collect();
        for bus in DriveBus::ALL {
            let name = bus.as_str();
            list.push((
                format!("{name}0..{name}{}", last(bus.count())),
                DriveSpec::RULE,
            ));
        }
        list.push((format!("net0..net{}", last(MAX_NETS)), NetDevice::RULE));
        list.push((
            format!("ipconfig0..ipconfig{}", last(MAX_NETS)),
            IpConfig::RULE,
        ));
        list.sort();
        list
    }
}

impl fmt::Display for QmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drive(bus, index) => write!(f, "{}{index}", bus.as_str()),
            Self::IpConfig(index) => write!(f, "ipconfig{index}"),
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

impl Ord for QmKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

impl PartialOrd for QmKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
