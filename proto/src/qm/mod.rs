//! Options of virtual machines (`--memory 2048`, `net0: virtio,bridge=vmbr0`), typed. A value is parsed into its parts and
//! printed back from them, so nothing a client writes reaches `qm` as text. Shared by the agent and the embedded hypervisor.
//! Keys that reach the host (`args`, `hookscript`, `hostpciN`, `usbN`, `lock`, `smbios1`, ...) do not exist here.

mod cloudinit;
mod drive;
mod net;
mod scalar;
mod sshkey;

pub use cloudinit::{CiCustom, CiUser, Ip4Config, Ip6Config, IpConfig, NameServers, SearchDomains};
pub use drive::{DiskSource, DriveBus, DriveSpec};
pub use net::{MacAddress, NetDevice, NetModel};
pub use scalar::{Agent, BootDevice, BootOrder, Choice, Cpu, Description, Tags};
pub use sshkey::SshKeys;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::escape;
use crate::value::{
    IfName, Param, SnippetRef, StorageName, Text, ValueError, VmName, Vmid, decimal,
};

/// A key that is not in the table, or a value that breaks its key's rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QmError {
    /// Not an option of this catalog: misspelled, or one that reaches the host.
    #[error("option \"{key}\" is not allowed")]
    Key {
        /// The key, escaped and cut.
        key: String,
    },
    /// The value breaks the key's rule.
    #[error("option {key}: \"{given}\" is refused: {rule}")]
    Value {
        /// The key.
        key: String,
        /// The value, escaped and cut.
        given: String,
        /// The rule, as a phrase.
        rule: &'static str,
    },
    /// The same key twice.
    #[error("option {key} is given twice")]
    Twice {
        /// The key.
        key: String,
    },
}

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
const PLAIN_KEYS: [(&str, QmKey); 22] = [
    ("agent", QmKey::Agent),
    ("bios", QmKey::Bios),
    ("boot", QmKey::Boot),
    ("cicustom", QmKey::CiCustom),
    ("ciuser", QmKey::CiUser),
    ("cores", QmKey::Cores),
    ("cpu", QmKey::Cpu),
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
        Self::read(id, value).map_err(|rule| QmError::Value {
            key: id.to_string(),
            given: escape::shown(value),
            rule,
        })
    }

    fn read(key: QmKey, value: &str) -> Result<Self, &'static str> {
        let number = |range: std::ops::RangeInclusive<u64>, rule| {
            decimal(value).filter(|n| range.contains(n)).ok_or(rule)
        };
        let flag = || scalar::flag(value).ok_or("0 or 1");
        let choice = |set: &'static [&'static str], rule| Choice::read(set, value).ok_or(rule);
        Ok(match key {
            QmKey::Agent => Self::Agent(Agent::read(value).ok_or(Agent::RULE)?),
            QmKey::Bios => Self::Bios(choice(scalar::BIOS, "seabios or ovmf")?),
            QmKey::Boot => Self::Boot(BootOrder::read(value).ok_or(BootOrder::RULE)?),
            QmKey::CiCustom => Self::CiCustom(CiCustom::read(value).ok_or(CiCustom::RULE)?),
            QmKey::CiUser => Self::CiUser(CiUser::read(value).ok_or(CiUser::RULE)?),
            QmKey::Cores => Self::Cores(narrow(number(1..=256, "an integer from 1 to 256")?)?),
            QmKey::Cpu => Self::Cpu(Cpu::read(value).ok_or(Cpu::RULE)?),
            QmKey::Description => {
                Self::Description(Description::read(value).ok_or(Description::RULE)?)
            }
            QmKey::Drive(bus, index) => {
                Self::Drive(bus, index, DriveSpec::read(value).ok_or(DriveSpec::RULE)?)
            }
            QmKey::IpConfig(index) => {
                Self::IpConfig(index, IpConfig::read(value).ok_or(IpConfig::RULE)?)
            }
            QmKey::Machine => Self::Machine(
                scalar::machine(value).ok_or("pc, q35, pc-i440fx-<n>.<n> or pc-q35-<n>.<n>")?,
            ),
            QmKey::Memory => Self::Memory(narrow(number(
                16..=4_194_304,
                "MiB, an integer from 16 to 4194304",
            )?)?),
            QmKey::Name => Self::Name(VmName::read(value).ok_or(VmName::RULE)?),
            QmKey::NameServer => {
                Self::NameServer(NameServers::read(value).ok_or(NameServers::RULE)?)
            }
            QmKey::Net(index) => Self::Net(index, NetDevice::read(value).ok_or(NetDevice::RULE)?),
            QmKey::Numa => Self::Numa(flag()?),
            QmKey::OnBoot => Self::OnBoot(flag()?),
            QmKey::OsType => Self::OsType(choice(scalar::OSTYPE, "a known system, such as l26")?),
            QmKey::ScsiHw => Self::ScsiHw(choice(
                scalar::SCSIHW,
                "a known controller, such as virtio-scsi-single",
            )?),
            QmKey::SearchDomain => {
                Self::SearchDomain(SearchDomains::read(value).ok_or(SearchDomains::RULE)?)
            }
            QmKey::Serial0 => (value == "socket")
                .then_some(Self::Serial0)
                .ok_or("only socket")?,
            QmKey::Sockets => Self::Sockets(narrow(number(1..=4, "an integer from 1 to 4")?)?),
            QmKey::SshKeys => Self::SshKeys(SshKeys::read(value).ok_or(SshKeys::RULE)?),
            QmKey::Tags => Self::Tags(Tags::read(value).ok_or(Tags::RULE)?),
            QmKey::Vga => Self::Vga(choice(
                scalar::VGA,
                "std, cirrus, vmware, qxl, virtio, serial0 or none",
            )?),
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

fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T, &'static str> {
    T::try_from(number).map_err(|_| "a smaller number")
}

/// A set of options, each key once. In JSON as an object; see also [`QmArgs`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QmOptions(BTreeMap<QmKey, QmOption>);

impl QmOptions {
    /// How many options one request may hold.
    pub const MAX: usize = 256;
    const KIND: &'static str = "set of options";
    const RULE: &'static str = "an object of option -> text or integer";

    /// No options.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`QmError::Twice`] when its key is there already.
    pub fn insert(&mut self, option: QmOption) -> Result<(), QmError> {
        match self.0.entry(option.key()) {
            Entry::Occupied(old) => Err(QmError::Twice {
                key: old.key().to_string(),
            }),
            Entry::Vacant(slot) => {
                slot.insert(option);
                Ok(())
            }
        }
    }

    /// Sets one, replacing what stood there: how `qm set` changes a configuration.
    pub fn set(&mut self, option: QmOption) -> Option<QmOption> {
        self.0.insert(option.key(), option)
    }

    /// Parses and adds one; `key` comes without dashes.
    ///
    /// # Errors
    /// [`QmError`] for a bad key, a bad value, or a key that is there already.
    pub fn add(&mut self, key: &str, value: &str) -> Result<(), QmError> {
        self.insert(QmOption::parse(key, value)?)
    }

    /// The option of that key.
    #[must_use]
    pub fn get(&self, key: QmKey) -> Option<&QmOption> {
        self.0.get(&key)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = &QmOption> {
        self.0.values()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `["--memory", "2048", ...]`, as the command line of `qm` has it.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        self.iter()
            .flat_map(|option| [format!("--{}", option.key()), option.value()])
            .collect()
    }

    /// Bridges that the network devices attach to.
    pub fn bridges(&self) -> impl Iterator<Item = &IfName> {
        self.iter().filter_map(|option| match option {
            QmOption::Net(_, device) => Some(&device.bridge),
            _ => None,
        })
    }

    /// Storages that the drives live on.
    pub fn storages(&self) -> impl Iterator<Item = &StorageName> {
        self.iter().filter_map(|option| match option {
            QmOption::Drive(_, _, drive) => Some(&drive.storage),
            _ => None,
        })
    }

    /// Snippets that cloud-init takes.
    pub fn snippets(&self) -> impl Iterator<Item = &SnippetRef> {
        self.iter()
            .filter_map(|option| match option {
                QmOption::CiCustom(custom) => Some(custom.snippets()),
                _ => None,
            })
            .flatten()
    }

    /// A drive that names an existing disk of another machine than `vmid`: never let one customer attach another's disk.
    #[must_use]
    pub fn foreign_disk(&self, vmid: Vmid) -> Option<(QmKey, u32)> {
        self.iter().find_map(|option| match option {
            QmOption::Drive(_, _, drive) => drive
                .source
                .owner()
                .filter(|owner| *owner != vmid.get())
                .map(|owner| (option.key(), owner)),
            _ => None,
        })
    }

    fn to_object(&self) -> Value {
        Value::Object(
            self.iter()
                .map(|o| (o.key().to_string(), Value::String(o.value())))
                .collect::<Map<_, _>>(),
        )
    }

    fn add_json(&mut self, key: &str, value: &Value) -> Result<(), ValueError> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_u64() => number.to_string(),
            other => {
                return Err(ValueError::of_json(
                    "option value",
                    other,
                    "a text or a non-negative integer",
                ));
            }
        };
        if self.len() == Self::MAX {
            return Err(ValueError::new(Self::KIND, key, "at most 256 options"));
        }
        self.add(key, &text)
            .map_err(|error| from_qm(key, &text, &error))
    }
}

fn from_qm(key: &str, text: &str, error: &QmError) -> ValueError {
    match error {
        QmError::Key { .. } => ValueError::new("option", key, "not a key of this catalog"),
        QmError::Value { rule, .. } => {
            ValueError::new("option value", &format!("{key}={text}"), rule)
        }
        QmError::Twice { .. } => ValueError::new("option", key, "each key once"),
    }
}

impl Param for QmOptions {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let map = value
            .as_object()
            .ok_or_else(|| ValueError::of_json(Self::KIND, value, Self::RULE))?;
        if map.is_empty() {
            return Err(ValueError::new(Self::KIND, "{}", "at least one option"));
        }
        let mut options = Self::new();
        for (key, value) in map {
            options.add_json(key, value)?;
        }
        Ok(options)
    }
    fn to_json(&self) -> Option<Value> {
        Some(self.to_object())
    }
    fn schema() -> Value {
        json!({
            "type": "object",
            "minProperties": 1,
            "maxProperties": Self::MAX,
            "propertyNames": {"pattern": KEY_PATTERN},
            "additionalProperties": {"type": ["string", "integer"]},
        })
    }
}

const KEY_PATTERN: &str = "^(agent|bios|boot|cicustom|ciuser|cores|cpu|description|machine|memory|name|nameserver|numa|onboot|ostype|scsihw|searchdomain|serial0|sockets|sshkeys|tags|vga|(net|ipconfig|ide|sata|scsi|virtio)[0-9]{1,2})$";

/// Options in the forms of a command line: a flat list `["--memory", "2048"]` or pairs `[["--memory", "2048"]]`.
/// Canonical form: pairs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QmArgs(pub QmOptions);

impl std::ops::Deref for QmArgs {
    type Target = QmOptions;
    fn deref(&self) -> &QmOptions {
        &self.0
    }
}

impl From<QmOptions> for QmArgs {
    fn from(options: QmOptions) -> Self {
        Self(options)
    }
}

impl QmArgs {
    const KIND: &'static str = "argument list";
    const RULE: &'static str = "[\"--key\", \"value\", ...] or [[\"--key\", \"value\"], ...]";
}

impl Param for QmArgs {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let wrong = |v: &Value| ValueError::of_json(Self::KIND, v, Self::RULE);
        let items = value.as_array().ok_or_else(|| wrong(value))?;
        let pairs: Vec<(&Value, &Value)> = if items.first().is_some_and(Value::is_array) {
            items
                .iter()
                .map(|item| match item.as_array().map(Vec::as_slice) {
                    Some([key, value]) => Ok((key, value)),
                    _ => Err(wrong(item)),
                })
                .collect::<Result<_, _>>()?
        } else {
            let (pairs, rest) = items.as_chunks::<2>();
            if let [odd] = rest {
                return Err(wrong(odd));
            }
            pairs.iter().map(|[key, value]| (key, value)).collect()
        };
        let mut options = QmOptions::new();
        for (key, value) in pairs {
            let key = key
                .as_str()
                .and_then(|k| k.strip_prefix("--"))
                .ok_or_else(|| wrong(key))?;
            options.add_json(key, value)?;
        }
        Ok(Self(options))
    }
    fn to_json(&self) -> Option<Value> {
        Some(
            self.0
                .iter()
                .map(|o| json!([format!("--{}", o.key()), o.value()]))
                .collect(),
        )
    }
    fn schema() -> Value {
        let pair = json!({
            "type": "array", "minItems": 2, "maxItems": 2,
            "prefixItems": [{"type": "string", "pattern": KEY_PATTERN.replacen('^', "^--", 1)}, {"type": ["string", "integer"]}],
        });
        json!({
            "type": "array",
            "oneOf": [{"items": pair, "minItems": 1}, {"items": {"type": ["string", "integer"]}}],
        })
    }
}

#[cfg(test)]
mod tests;
