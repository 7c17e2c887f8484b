//! Integers with a range: machine numbers, ports, durations.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::{Integer, Param, ValueError, decimal};

/// Number of a virtual machine or container: 100..=999999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vmid(u32);

/// TCP or UDP port: 1..=65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(u16);

/// How long to wait, in whole seconds: 1..=600.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(u16);

/// Weight of a machine among the others when the processor is short: 1..=10000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuUnits(u16);

/// Operations per second of a disk: 1..=1000000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iops(u32);

/// Rate of a network interface in kilobits (1000 bits) per second: 8..=100000000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RateKbps(u32);

impl CpuUnits {
    /// The weight.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Iops {
    /// Operations per second.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl RateKbps {
    /// Kilobits per second.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Defines an integer with a range. The range stands in the schema, in the message and in the check.
macro_rules! ranged {
    ($($(#[doc = $doc:literal])+ $Name:ident: $repr:ty, $kind:literal, $min:literal ..= $max:literal;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $Name($repr);

        impl $Name {
            /// The number.
            #[must_use]
            pub const fn get(self) -> $repr {
                self.0
            }
        }

        impl Integer for $Name {
            const KIND: &'static str = $kind;
            const RULE: &'static str = concat!("an integer from ", $min, " to ", $max);
            const MIN: u64 = $min;
            const MAX: u64 = $max;
            fn from_checked(number: u64) -> Option<Self> {
                <$repr>::try_from(number).ok().map(Self)
            }
            fn number(self) -> u64 {
                u64::from(self.0)
            }
        }

        integer_value!($Name: $repr);
    )+};
}

impl Metric {
    /// What a route gets that is asked for without one.
    pub const USUAL: Self = Self(1024);
}

impl Vmid {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Port {
    /// The number, never 0.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Seconds {
    /// Default of `qm-shutdown`.
    pub const SHUTDOWN: Self = Self(120);
    /// Default of `qm-guest-exec`.
    pub const GUEST_EXEC: Self = Self(60);

    /// The number of seconds.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

impl Integer for Vmid {
    const KIND: &'static str = "vmid";
    const RULE: &'static str = "an integer from 100 to 999999";
    const MIN: u64 = 100;
    const MAX: u64 = 999_999;
    fn from_checked(number: u64) -> Option<Self> {
        u32::try_from(number).ok().map(Self)
    }
    fn number(self) -> u64 {
        u64::from(self.0)
    }
}

impl Integer for Port {
    const KIND: &'static str = "port";
    const RULE: &'static str = "an integer from 1 to 65535";
    const MIN: u64 = 1;
    const MAX: u64 = 65_535;
    fn from_checked(number: u64) -> Option<Self> {
        u16::try_from(number).ok().map(Self)
    }
    fn number(self) -> u64 {
        u64::from(self.0)
    }
}

impl Integer for Seconds {
    const KIND: &'static str = "number of seconds";
    const RULE: &'static str = "an integer from 1 to 600";
    const MIN: u64 = 1;
    const MAX: u64 = 600;
    fn from_checked(number: u64) -> Option<Self> {
        u16::try_from(number).ok().map(Self)
    }
    fn number(self) -> u64 {
        u64::from(self.0)
    }
}

impl Integer for CpuUnits {
    const KIND: &'static str = "processor weight";
    const RULE: &'static str = "an integer from 1 to 10000";
    const MIN: u64 = 1;
    const MAX: u64 = 10_000;
    fn from_checked(number: u64) -> Option<Self> {
        u16::try_from(number).ok().map(Self)
    }
    fn number(self) -> u64 {
        u64::from(self.0)
    }
}

impl Integer for Iops {
    const KIND: &'static str = "number of operations per second";
    const RULE: &'static str = "an integer from 1 to 1000000";
    const MIN: u64 = 1;
    const MAX: u64 = 1_000_000;
    fn from_checked(number: u64) -> Option<Self> {
        u32::try_from(number).ok().map(Self)
    }
    fn number(self) -> u64 {
        u64::from(self.0)
    }
}

impl Integer for RateKbps {
    const KIND: &'static str = "rate in kbit/s";
    const RULE: &'static str = "an integer from 8 to 100000000";
    const MIN: u64 = 8;
    const MAX: u64 = 100_000_000;
    fn from_checked(number: u64) -> Option<Self> {
        u32::try_from(number).ok().map(Self)
    }
    fn number(self) -> u64 {
        u64::from(self.0)
    }
}

fn in_range<T: Integer>(number: u64) -> Option<T> {
    if (T::MIN..=T::MAX).contains(&number) {
        T::from_checked(number)
    } else {
        None
    }
}

macro_rules! integer_value {
    ($($ty:ty: $repr:ty),+) => {$(
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.0, f) }
        }
        impl TryFrom<u64> for $ty {
            type Error = ValueError;
            fn try_from(number: u64) -> Result<Self, ValueError> {
                in_range(number).ok_or_else(|| ValueError::new(Self::KIND, &number.to_string(), Self::RULE))
            }
        }
        impl TryFrom<u32> for $ty {
            type Error = ValueError;
            fn try_from(number: u32) -> Result<Self, ValueError> { Self::try_from(u64::from(number)) }
        }
        impl TryFrom<u16> for $ty {
            type Error = ValueError;
            fn try_from(number: u16) -> Result<Self, ValueError> { Self::try_from(u64::from(number)) }
        }
        impl From<$ty> for $repr {
            fn from(value: $ty) -> $repr { value.0 }
        }
        impl FromStr for $ty {
            type Err = ValueError;
            fn from_str(text: &str) -> Result<Self, ValueError> {
                decimal(text).and_then(in_range).ok_or_else(|| ValueError::new(Self::KIND, text, Self::RULE))
            }
        }
        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> { self.0.serialize(out) }
        }
        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                Self::try_from(u64::deserialize(input)?).map_err(serde::de::Error::custom)
            }
        }
        impl Param for $ty {
            fn from_json(value: &Value) -> Result<Self, ValueError> {
                value.as_u64().and_then(in_range).ok_or_else(|| ValueError::of_json(Self::KIND, value, Self::RULE))
            }
            fn to_json(&self) -> Option<Value> { Some(Value::from(self.0)) }
            fn schema() -> Value { json!({"type": "integer", "minimum": Self::MIN, "maximum": Self::MAX}) }
        }
    )+};
}

integer_value!(Vmid: u32, Port: u16, Seconds: u16, CpuUnits: u16, Iops: u32, RateKbps: u32);

ranged! {
    /// Position of an interface among those of one machine: 0..=31.
    IfIndex: u8, "interface index", 0 ..= 31;
    /// Number of a process: 2..=4194304. Never the first one of the host.
    Pid: u32, "process number", 2 ..= 4_194_304;
    /// Number of a namespace, as the kernel shows it in `/proc/PID/ns`: 1..=4294967295.
    NamespaceInode: u32, "namespace number", 1 ..= 4_294_967_295;
    /// VLAN number: 1..=4094.
    VlanTag: u16, "VLAN tag", 1 ..= 4094;
    /// MTU of a bridge or tunnel, in bytes: 1280..=9216. Below 1280 there is no IPv6.
    Mtu: u16, "MTU", 1280 ..= 9216;
    /// Order in which routes to one network are taken, lowest first: 1..=4294967294.
    Metric: u32, "metric", 1 ..= 4_294_967_294;
    /// Number of a queue on a switch port: 0..=65534.
    QueueId: u16, "queue number", 0 ..= 65534;
    /// Number of a meter on a bridge: 1..=65535.
    MeterId: u32, "meter number", 1 ..= 65535;
    /// A rate, in kilobits or packets per second: 1..=400000000.
    Rate: u32, "rate", 1 ..= 400_000_000;
    /// A burst, in kilobits or packets: 1..=400000000.
    Burst: u32, "burst", 1 ..= 400_000_000;
    /// Order in which queues borrow from each other, lowest first: 0..=65535.
    QueuePriority: u16, "queue priority", 0 ..= 65_535;
    /// Table of a switch's pipeline: 0..=253. 254 and 255 are the switch's own.
    TableId: u8, "flow table", 0 ..= 253;
    /// Priority of a flow: 0..=65535, the highest wins.
    FlowPriority: u16, "flow priority", 0 ..= 65_535;
    /// Life of a flow in whole seconds: 1..=65535.
    FlowTimeout: u16, "flow timeout", 1 ..= 65_535;
    /// Seconds between two keepalive packets of a tunnel: 1..=65535.
    Keepalive: u16, "keepalive", 1 ..= 65_535;
    /// Id of an EVM chain: 1..=9007199254740991, the integers that JSON keeps exactly.
    ChainId: u64, "chain id", 1 ..= 9_007_199_254_740_991;
    /// Number of a block on a chain: 0..=9007199254740991.
    BlockNumber: u64, "block number", 0 ..= 9_007_199_254_740_991;
    /// When a broker's allocation ends, in seconds since 1970: 1700000000..=4102444800, from 2023 to 2100.
    LeaseEnd: u64, "end of a lease", 1_700_000_000 ..= 4_102_444_800;
    /// Number of records of a ledger: 1..=9007199254740991.
    LedgerSize: u64, "ledger size", 1 ..= 9_007_199_254_740_991;
}
