//! Switches: kinds of bridges and ports, VLANs, queues, and whose a flow is.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    Burst, EventName, List, Mtu, Object, Param, QueueId, QueuePriority, Rate, Text, ValueError,
    VlanTag, choice, made_of, text_newtype,
};
use crate::qm::MacAddress;

choice! {
    /// What forwards a bridge's packets.
    DatapathType, "datapath type", "system or netdev", {
        /// The kernel module.
        System = "system",
        /// The switch process itself.
        Netdev = "netdev",
    }
}

choice! {
    /// What a bridge does where no flow says anything and no controller is there.
    FailMode, "fail mode", "standalone or secure", {
        /// It learns and forwards like any switch.
        Standalone = "standalone",
        /// It drops.
        Secure = "secure",
    }
}

choice! {
    /// What a port is.
    PortKind, "port type", "system or internal", {
        /// A network device that exists already.
        System = "system",
        /// A device that the switch makes.
        Internal = "internal",
    }
}

choice! {
    /// What a meter counts.
    MeterUnit, "meter unit", "kbps or pktps", {
        /// Kilobits per second.
        Kbps = "kbps",
        /// Packets per second.
        Pktps = "pktps",
    }
}

/// Names that mean something else to a switch, in any case; no port or bridge may be called so.
pub const RESERVED_PORTS: [&str; 11] = [
    "all",
    "any",
    "controller",
    "flood",
    "in_port",
    "local",
    "none",
    "normal",
    "table",
    "unset",
    "drop",
];

/// Name of a bridge or a port: an interface name that no tool takes for a number or for a reserved port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwitchIfName(String);

/// Whose flows these are. Each owner's flows are replaced as a whole and carry its cookie.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowOwner(String);

text_newtype!(SwitchIfName, FlowOwner);

impl Text for SwitchIfName {
    const KIND: &'static str = "switch port name";
    const RULE: &'static str = "1 to 15 of A-Z, a-z, 0-9, _ . and -, beginning with a letter, none of the switch's reserved words";
    fn read(text: &str) -> Option<Self> {
        let good = made_of(text, 1..=15, |b| {
            b.is_ascii_alphanumeric() || b"_.-".contains(&b)
        }) && text.as_bytes()[0].is_ascii_alphabetic()
            && !RESERVED_PORTS
                .iter()
                .any(|word| word.eq_ignore_ascii_case(text));
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.-]{0,14}$"})
    }
}

impl FlowOwner {
    /// First 16 bits of every cookie that this agent writes.
    pub const COOKIE_MARK: u64 = 0xb10c;

    /// The cookie of its flows: the mark, then 48 bits of the SHA-256 of the name.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        let hash = Sha256::digest(self.0.as_bytes());
        let low = hash
            .iter()
            .take(6)
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Self::COOKIE_MARK << 48 | low
    }
}

impl Text for FlowOwner {
    const KIND: &'static str = "flow owner";
    const RULE: &'static str = <EventName as Text>::RULE;
    fn read(text: &str) -> Option<Self> {
        EventName::read(text).map(|name| Self(name.as_str().to_owned()))
    }
    fn text_schema() -> Value {
        EventName::text_schema()
    }
}

/// VLANs that a trunk port carries: 1 to 4094 tags, each once, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trunks(Vec<VlanTag>);

impl Trunks {
    /// The tags.
    pub fn iter(&self) -> impl Iterator<Item = VlanTag> + '_ {
        self.0.iter().copied()
    }
}

impl List for Trunks {
    const KIND: &'static str = "list of VLAN tags";
    const RULE: &'static str = "1 to 4094 tags, each once";
    const MAX: usize = 4094;
    type Item = VlanTag;
    fn from_items(items: Vec<VlanTag>) -> Result<Self, ValueError> {
        if items.is_empty() {
            return Err(ValueError::new(Self::KIND, "[]", Self::RULE));
        }
        super::object::each_once::<Self>(items).map(Self)
    }
    fn items(&self) -> &[VlanTag] {
        &self.0
    }
}

/// How a bridge is made; what is missing is the switch's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BridgeOptions {
    /// What forwards.
    pub datapath_type: Option<DatapathType>,
    /// What happens without flows.
    pub fail_mode: Option<FailMode>,
    /// Hardware address of the bridge.
    pub hwaddr: Option<MacAddress>,
    /// MTU of the bridge's own interface.
    pub mtu: Option<Mtu>,
    /// Whether multicast goes only where it was asked for.
    pub mcast_snooping: Option<bool>,
}

impl BridgeOptions {
    const KIND: &'static str = "set of bridge options";
    const RULE: &'static str = "an object of datapath_type, fail_mode, hwaddr, mtu, mcast_snooping; other columns of the switch are not for clients";
    const KEYS: [&'static str; 5] = [
        "datapath_type",
        "fail_mode",
        "hwaddr",
        "mtu",
        "mcast_snooping",
    ];
}

fn object<const N: usize>(keys: [&str; N], values: [Option<Value>; N]) -> Option<Value> {
    let map: Map<String, Value> = keys
        .into_iter()
        .zip(values)
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    Some(Value::Object(map))
}

impl Param for BridgeOptions {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let object = Object::read(Self::KIND, Self::RULE, value, &Self::KEYS)?;
        Ok(Self {
            datapath_type: object.get("datapath_type")?,
            fail_mode: object.get("fail_mode")?,
            hwaddr: object.get("hwaddr")?,
            mtu: object.get("mtu")?,
            mcast_snooping: object.get("mcast_snooping")?,
        })
    }
    fn to_json(&self) -> Option<Value> {
        object(
            Self::KEYS,
            [
                self.datapath_type.to_json(),
                self.fail_mode.to_json(),
                self.hwaddr.to_json(),
                self.mtu.to_json(),
                self.mcast_snooping.to_json(),
            ],
        )
    }
    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "datapath_type": DatapathType::schema(),
                "fail_mode": FailMode::schema(),
                "hwaddr": MacAddress::schema(),
                "mtu": Mtu::schema(),
                "mcast_snooping": bool::schema(),
            },
            "additionalProperties": false,
        })
    }
}

/// One queue of a port (`linux-htb`). At least one rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Its number, what `set_queue` names.
    pub queue: QueueId,
    /// Guaranteed, in kbit/s.
    pub min_kbps: Option<Rate>,
    /// At most, in kbit/s.
    pub max_kbps: Option<Rate>,
    /// Burst in kbit.
    pub burst_kbit: Option<Burst>,
    /// Who borrows first.
    pub priority: Option<QueuePriority>,
}

impl Queue {
    const KIND: &'static str = "queue";
    const RULE: &'static str = "an object of queue, min_kbps, max_kbps, burst_kbit, priority with at least one rate, min_kbps not above max_kbps";
    const KEYS: [&'static str; 5] = ["queue", "min_kbps", "max_kbps", "burst_kbit", "priority"];
}

impl Param for Queue {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let object = Object::read(Self::KIND, Self::RULE, value, &Self::KEYS)?;
        let queue = Self {
            queue: object.need("queue")?,
            min_kbps: object.get("min_kbps")?,
            max_kbps: object.get("max_kbps")?,
            burst_kbit: object.get("burst_kbit")?,
            priority: object.get("priority")?,
        };
        let good = match (queue.min_kbps, queue.max_kbps) {
            (None, None) => false,
            (Some(min), Some(max)) => min <= max,
            _ => true,
        };
        if good {
            Ok(queue)
        } else {
            Err(ValueError::new(
                Self::KIND,
                &queue.queue.to_string(),
                Self::RULE,
            ))
        }
    }
    fn to_json(&self) -> Option<Value> {
        object(
            Self::KEYS,
            [
                self.queue.to_json(),
                self.min_kbps.to_json(),
                self.max_kbps.to_json(),
                self.burst_kbit.to_json(),
                self.priority.to_json(),
            ],
        )
    }
    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "queue": QueueId::schema(),
                "min_kbps": Rate::schema(),
                "max_kbps": Rate::schema(),
                "burst_kbit": Burst::schema(),
                "priority": QueuePriority::schema(),
            },
            "required": ["queue"],
            "additionalProperties": false,
        })
    }
}

/// The queues of a port: at most 256, each number once, sorted. None removes them all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Queues(Vec<Queue>);

impl Queues {
    /// The queues, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Queue> {
        self.0.iter()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl List for Queues {
    const KIND: &'static str = "list of queues";
    const RULE: &'static str = "at most 256 queues, each number once";
    const MAX: usize = 256;
    type Item = Queue;
    fn from_items(mut items: Vec<Queue>) -> Result<Self, ValueError> {
        items.sort_by_key(|queue| queue.queue);
        match items.windows(2).find(|pair| pair[0].queue == pair[1].queue) {
            Some(pair) => Err(ValueError::new(
                Self::KIND,
                &pair[0].queue.to_string(),
                Self::RULE,
            )),
            None => Ok(Self(items)),
        }
    }
    fn items(&self) -> &[Queue] {
        &self.0
    }
}
