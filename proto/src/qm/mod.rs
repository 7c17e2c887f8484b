//! Options of virtual machines (`--memory 2048`, `net0: virtio,bridge=vmbr0`), typed. A value is parsed into its parts and
//! printed back from them, so nothing a client writes reaches `qm` as text. Shared by the agent and the embedded hypervisor.
//! Keys that reach the host (`args`, `hookscript`, `hostpciN`, `usbN`, `lock`, `smbios1`, ...) do not exist here.

mod cloudinit;
mod drive;
mod key;
mod net;
mod scalar;
mod set;
mod sshkey;

pub use cloudinit::{CiCustom, CiUser, Ip4Config, Ip6Config, IpConfig, NameServers, SearchDomains};
pub use drive::{DiskSource, DriveBus, DriveSpec};
pub use key::QmKey;
pub use net::{MacAddress, NetDevice, NetModel};
pub use scalar::{Agent, BootDevice, BootOrder, Choice, Cpu, Description, Tags};
pub use set::{QmArgs, QmOptions};
pub use sshkey::SshKeys;
pub(crate) use sshkey::base64;
#[cfg(test)]
pub(crate) use sshkey::to_base64;

pub(crate) use net::{number, rate, thousandths};
pub(crate) use scalar::flag;

use crate::escape;
use crate::options::OneOption;
pub use crate::options::OptionError as QmError;
use crate::value::{CpuLimit, CpuUnits, Integer, Text, VmName, decimal};

/// One option with its value. The variant's index belongs to the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QmOption {
    /// `agent`
    Agent(Agent),
    /// `bios`: seabios, ovmf
    Bios(Choice),
    /// `boot`: `order=scsi0;net0`
    Boot(BootOrder),
    /// `cicustom`: `user=local:snippets/x.yaml`
    CiCustom(CiCustom),
    /// `ciuser`
    CiUser(CiUser),
    /// `cores`: 1..=256
    Cores(u16),
    /// `cpu`
    Cpu(Cpu),
    /// `cpulimit`, in cores; only by `vm-throttle`
    CpuLimit(CpuLimit),
    /// `cpuunits`, the weight among machines; only by `vm-throttle`
    CpuUnits(CpuUnits),
    /// `description`
    Description(Description),
    /// `scsi0` and so on
    Drive(DriveBus, u8, DriveSpec),
    /// `ipconfig0` and so on
    IpConfig(u8, IpConfig),
    /// `machine`
    Machine(Choice),
    /// `memory` in MiB: 16..=4194304
    Memory(u32),
    /// `name`
    Name(VmName),
    /// `nameserver`
    NameServer(NameServers),
    /// `net0` and so on
    Net(u8, NetDevice),
    /// `numa`
    Numa(bool),
    /// `onboot`
    OnBoot(bool),
    /// `ostype`
    OsType(Choice),
    /// `scsihw`
    ScsiHw(Choice),
    /// `searchdomain`
    SearchDomain(SearchDomains),
    /// `serial0`: always `socket`, never a device of the host
    Serial0,
    /// `sockets`: 1..=4
    Sockets(u8),
    /// `sshkeys`, one key per line
    SshKeys(SshKeys),
    /// `tags`
    Tags(Tags),
    /// `vga`
    Vga(Choice),
}

impl QmOption {
    /// Reads one option. `key` comes without dashes.
    ///
    /// # Errors
    /// [`QmError`] for a key that is not in the table or a value that breaks its rule.
    pub fn parse(key: &str, value: &str) -> Result<Self, QmError> {
        let Some(id) = QmKey::read(key) else {
            return Err(QmError::Key {
                key: escape::shown(key),
            });
        };
        Self::read(id, value).ok_or_else(|| QmError::Value {
            key: id.to_string(),
            given: escape::shown(value),
            rule: id.rule(),
        })
    }

    fn read(key: QmKey, value: &str) -> Option<Self> {
        let number =
            |range: std::ops::RangeInclusive<u64>| decimal(value).filter(|n| range.contains(n));
        let choice = |set: &'static [&'static str]| Choice::read(set, value);
        Some(match key {
            QmKey::Agent => Self::Agent(Agent::read(value)?),
            QmKey::Bios => Self::Bios(choice(scalar::BIOS)?),
            QmKey::Boot => Self::Boot(BootOrder::read(value)?),
            QmKey::CiCustom => Self::CiCustom(CiCustom::read(value)?),
            QmKey::CiUser => Self::CiUser(CiUser::read(value)?),
            QmKey::Cores => Self::Cores(number(1..=256)?.try_into().ok()?),
            QmKey::Cpu => Self::Cpu(Cpu::read(value)?),
            QmKey::CpuLimit => Self::CpuLimit(CpuLimit::read(value)?),
            QmKey::CpuUnits => Self::CpuUnits(CpuUnits::from_decimal(value)?),
            QmKey::Description => Self::Description(Description::read(value)?),
            QmKey::Drive(bus, index) => Self::Drive(bus, index, DriveSpec::read(value)?),
            QmKey::IpConfig(index) => Self::IpConfig(index, IpConfig::read(value)?),
            QmKey::Machine => Self::Machine(scalar::machine(value)?),
            QmKey::Memory => Self::Memory(number(16..=4_194_304)?.try_into().ok()?),
            QmKey::Name => Self::Name(VmName::read(value)?),
            QmKey::NameServer => Self::NameServer(NameServers::read(value)?),
            QmKey::Net(index) => Self::Net(index, NetDevice::read(value)?),
            QmKey::Numa => Self::Numa(scalar::flag(value)?),
            QmKey::OnBoot => Self::OnBoot(scalar::flag(value)?),
            QmKey::OsType => Self::OsType(choice(scalar::OSTYPE)?),
            QmKey::ScsiHw => Self::ScsiHw(choice(scalar::SCSIHW)?),
            QmKey::SearchDomain => Self::SearchDomain(SearchDomains::read(value)?),
            QmKey::Serial0 => (value == "socket").then_some(Self::Serial0)?,
            QmKey::Sockets => Self::Sockets(number(1..=4)?.try_into().ok()?),
            QmKey::SshKeys => Self::SshKeys(SshKeys::read(value)?),
            QmKey::Tags => Self::Tags(Tags::read(value)?),
            QmKey::Vga => Self::Vga(choice(scalar::VGA)?),
        })
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> QmKey {
        match self {
            Self::Agent(_) => QmKey::Agent,
            Self::Bios(_) => QmKey::Bios,
            Self::Boot(_) => QmKey::Boot,
            Self::CiCustom(_) => QmKey::CiCustom,
            Self::CiUser(_) => QmKey::CiUser,
            Self::Cores(_) => QmKey::Cores,
            Self::Cpu(_) => QmKey::Cpu,
            Self::CpuLimit(_) => QmKey::CpuLimit,
            Self::CpuUnits(_) => QmKey::CpuUnits,
            Self::Description(_) => QmKey::Description,
            Self::Drive(bus, index, _) => QmKey::Drive(*bus, *index),
            Self::IpConfig(index, _) => QmKey::IpConfig(*index),
            Self::Machine(_) => QmKey::Machine,
            Self::Memory(_) => QmKey::Memory,
            Self::Name(_) => QmKey::Name,
            Self::NameServer(_) => QmKey::NameServer,
            Self::Net(index, _) => QmKey::Net(*index),
            Self::Numa(_) => QmKey::Numa,
            Self::OnBoot(_) => QmKey::OnBoot,
            Self::OsType(_) => QmKey::OsType,
            Self::ScsiHw(_) => QmKey::ScsiHw,
            Self::SearchDomain(_) => QmKey::SearchDomain,
            Self::Serial0 => QmKey::Serial0,
            Self::Sockets(_) => QmKey::Sockets,
            Self::SshKeys(_) => QmKey::SshKeys,
            Self::Tags(_) => QmKey::Tags,
            Self::Vga(_) => QmKey::Vga,
        }
    }

    /// The value in canonical form, as it goes to `qm` and into a configuration.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::Agent(v) => v.to_string(),
            Self::Bios(v) | Self::Machine(v) | Self::OsType(v) | Self::ScsiHw(v) | Self::Vga(v) => {
                v.to_string()
            }
            Self::Boot(v) => v.to_string(),
            Self::CiCustom(v) => v.to_string(),
            Self::CiUser(v) => v.to_string(),
            Self::Cores(v) => v.to_string(),
            Self::Cpu(v) => v.to_string(),
            Self::CpuLimit(v) => v.to_string(),
            Self::CpuUnits(v) => v.to_string(),
            Self::Description(v) => v.to_string(),
            Self::Drive(_, _, v) => v.to_string(),
            Self::IpConfig(_, v) => v.to_string(),
            Self::Memory(v) => v.to_string(),
            Self::Name(v) => v.to_string(),
            Self::NameServer(v) => v.to_string(),
            Self::Net(_, v) => v.to_string(),
            Self::Numa(v) | Self::OnBoot(v) => u8::from(*v).to_string(),
            Self::SearchDomain(v) => v.to_string(),
            Self::Serial0 => "socket".to_owned(),
            Self::Sockets(v) => v.to_string(),
            Self::SshKeys(v) => v.to_string(),
            Self::Tags(v) => v.to_string(),
        }
    }
}

impl OneOption for QmOption {
    type Key = QmKey;
    const KIND: &'static str = "set of options";
    const KEY_PATTERN: &'static str = key::KEY_PATTERN;
    fn parse(key: &str, value: &str) -> Result<Self, QmError> {
        Self::parse(key, value)
    }
    fn key(&self) -> QmKey {
        self.key()
    }
    fn value(&self) -> String {
        self.value()
    }
    fn is_for_clients(&self) -> bool {
        self.key().is_for_clients()
    }
}

#[cfg(test)]
mod edges;
#[cfg(test)]
mod tests;
