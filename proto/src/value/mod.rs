//! Validated values: a value of one of these types obeys its rule, so nobody behind the decoder checks again.
//! Texts are ASCII, without NUL, newline or leading dash; what comes out is canonical. One file per subject.

mod anchor;
mod blob;
mod broker;
mod cpu;
mod file;
mod firewall;
mod guest;
mod name;
mod net;
mod number;
mod object;
mod ovs;
mod prefix;
mod setting;
mod template;
mod text;
mod wallet;
mod wireguard;

pub use anchor::{HashPath, Sha256Hex, TxHash};
pub use blob::{AgeFile, is_age_file};
pub use broker::{BrokerEndpoint, GatewayIpv6, MachinePrefix};
pub use cpu::CpuLimit;
pub use file::{ImagePath, KeyFile, SnippetRef, VolumeRef};
pub use firewall::{NatPair, NatPairs, OpenPort, OpenPorts};
pub use guest::{FileMode, GuestPath, GuestText, PackageName};
pub use name::{Comment, ContainerId, EventName, IfName, StorageName, VmName};
pub use net::{HostIpv6, L4Proto, SourceNet};
pub(crate) use net::{routable_v4, routable_v6};
pub use number::{
    BlockNumber, Burst, ChainId, CpuUnits, FlowPriority, FlowTimeout, IfIndex, Iops, Keepalive,
    LeaseEnd, LedgerSize, MeterId, Metric, Mtu, NamespaceInode, Pid, Port, QueueId, QueuePriority,
    Rate, RateKbps, Seconds, TableId, VlanTag, Vmid,
};
pub(crate) use object::{List, Object, choice};
pub use ovs::{
    BridgeOptions, DatapathType, FailMode, FlowOwner, MeterUnit, PortKind, Queue, Queues,
    RESERVED_PORTS, SwitchIfName, Trunks,
};
pub use prefix::{
    DeviceAddresses, InterfaceAddress, InterfaceAddresses, Ipv4Prefix, Ipv6Prefix, NatAddress,
    NextHop, RouteNet, RouteNets,
};
pub use setting::HostSetting;
pub use template::TemplateRef;
pub use text::{DiskSize, GuestCommand};
pub use wallet::{
    AddressBook, AddressEntry, EthAddress, NewWalletName, RESERVED_WALLETS, WalletName,
};
pub use wireguard::{AllowedIp, AllowedIps, Preshared, WgEndpoint, WgKey, WgName, WgPeer, WgPeers};

use serde_json::Value;

use crate::{escape, json};

/// A value that breaks its type's rule. `given` is escaped and cut, safe for any log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{given}\" is not a valid {kind}: {rule}")]
pub struct ValueError {
    /// What it should have been, such as `vmid`.
    pub kind: &'static str,
    /// What was given.
    pub given: String,
    /// The rule, as a phrase.
    pub rule: &'static str,
}

impl ValueError {
    /// An error that quotes `given`.
    #[must_use]
    pub fn new(kind: &'static str, given: &str, rule: &'static str) -> Self {
        Self {
            kind,
            given: escape::shown(given),
            rule,
        }
    }

    /// The same error, with the place inside a larger value in front of what was given.
    #[must_use]
    pub fn within(mut self, place: &str) -> Self {
        self.given = format!("{place}: {}", self.given);
        escape::cut(&mut self.given, 300);
        self
    }

    /// An error about a JSON value of the wrong kind.
    #[must_use]
    pub fn of_json(kind: &'static str, given: &Value, rule: &'static str) -> Self {
        let shown = match given {
            Value::String(text) => escape::shown(text),
            Value::Number(number) => escape::shown(&number.to_string()),
            other => json::kind(other).to_owned(),
        };
        Self {
            kind,
            given: shown,
            rule,
        }
    }
}

/// A value that has one textual form.
pub trait Text: Sized {
    /// What it is called in messages and in the schema's titles.
    const KIND: &'static str;
    /// Its rule, as a phrase that ends a sentence.
    const RULE: &'static str;
    /// False for texts that may hold a secret: messages then give their length only.
    const QUOTED: bool = true;
    /// Checks and takes `text`.
    fn read(text: &str) -> Option<Self>;
    /// JSON Schema of the textual form.
    fn text_schema() -> Value;
}

/// A value that is an integer in JSON.
pub trait Integer: Sized + Copy {
    /// What it is called in messages.
    const KIND: &'static str;
    /// Its rule, as a phrase.
    const RULE: &'static str;
    /// The smallest allowed.
    const MIN: u64;
    /// The largest allowed.
    const MAX: u64;
    /// Takes a number that is already known to be in range.
    fn from_checked(number: u64) -> Option<Self>;
    /// The number.
    fn number(self) -> u64;
    /// Reads decimal digits, without sign, leading zero or space.
    #[must_use]
    fn from_decimal(text: &str) -> Option<Self> {
        decimal(text)
            .filter(|number| (Self::MIN..=Self::MAX).contains(number))
            .and_then(Self::from_checked)
    }
}

/// A parameter of an action: how it comes out of JSON, goes back, and is described.
pub trait Param: Sized {
    /// True when the parameter may be missing because of its type.
    const OPTIONAL: bool = false;
    /// Reads it.
    ///
    /// # Errors
    /// [`ValueError`] with the rule that was broken.
    fn from_json(value: &Value) -> Result<Self, ValueError>;
    /// Canonical form; `None` when the parameter is left out.
    fn to_json(&self) -> Option<Value>;
    /// JSON Schema of everything that is accepted.
    fn schema() -> Value;
    /// What a missing parameter means.
    #[must_use]
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Param> Param for Option<T> {
    const OPTIONAL: bool = true;
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        T::from_json(value).map(Some)
    }
    fn to_json(&self) -> Option<Value> {
        self.as_ref().and_then(Param::to_json)
    }
    fn schema() -> Value {
        T::schema()
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl Param for bool {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        value
            .as_bool()
            .ok_or_else(|| ValueError::of_json("flag", value, "true or false"))
    }
    fn to_json(&self) -> Option<Value> {
        Some(Value::Bool(*self))
    }
    fn schema() -> Value {
        serde_json::json!({"type": "boolean"})
    }
}

/// Reads a value from a text where it stands, without a copy of it.
pub(crate) struct FromText<T>(pub(crate) std::marker::PhantomData<T>);

impl<T: std::str::FromStr<Err = ValueError>> serde::de::Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Gives a [`Text`] type its conversions. `Display` is written by hand: it is the canonical form.
macro_rules! text_value {
    ($($ty:ty),+ $(,)?) => {$(
        impl std::str::FromStr for $ty {
            type Err = $crate::value::ValueError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                <Self as $crate::value::Text>::read(text).ok_or_else(|| {
                    $crate::value::refused::<Self>(text)
                })
            }
        }
        impl TryFrom<&str> for $ty {
            type Error = $crate::value::ValueError;
            fn try_from(text: &str) -> Result<Self, Self::Error> { text.parse() }
        }
        impl TryFrom<String> for $ty {
            type Error = $crate::value::ValueError;
            fn try_from(text: String) -> Result<Self, Self::Error> { text.parse() }
        }
        impl serde::Serialize for $ty {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> { out.collect_str(self) }
        }
        impl<'de> serde::Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                input.deserialize_str($crate::value::FromText(std::marker::PhantomData))
            }
        }
        impl $crate::value::Param for $ty {
            fn from_json(value: &serde_json::Value) -> Result<Self, $crate::value::ValueError> {
                match value {
                    serde_json::Value::String(text) => text.parse(),
                    other => Err($crate::value::ValueError::of_json(
                        <Self as $crate::value::Text>::KIND, other, <Self as $crate::value::Text>::RULE)),
                }
            }
            fn to_json(&self) -> Option<serde_json::Value> { Some(serde_json::Value::String(self.to_string())) }
            fn schema() -> serde_json::Value { <Self as $crate::value::Text>::text_schema() }
        }
    )+};
}

/// Gives a type that wraps its own text in field 0 its `Display` and `as_str`.
macro_rules! text_newtype {
    ($($ty:ty),+ $(,)?) => {$(
        impl $ty {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl AsRef<str> for $ty {
            fn as_ref(&self) -> &str { &self.0 }
        }
        impl std::fmt::Display for $ty {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(&self.0) }
        }
        $crate::value::text_value!($ty);
    )+};
}

pub(crate) use {text_newtype, text_value};

/// The error for a text that breaks its type's rule.
pub(crate) fn refused<T: Text>(text: &str) -> ValueError {
    if T::QUOTED {
        ValueError::new(T::KIND, text, T::RULE)
    } else {
        ValueError::new(T::KIND, &format!("{} bytes", text.len()), T::RULE)
    }
}

/// Decimal digits only: no sign, no leading zero, no space.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Length within `range` and every byte allowed by `test`.
pub(crate) fn made_of(
    text: &str,
    range: std::ops::RangeInclusive<usize>,
    test: impl Fn(u8) -> bool,
) -> bool {
    range.contains(&text.len()) && text.bytes().all(test)
}

#[cfg(test)]
mod edges;
#[cfg(test)]
mod edges_address;
#[cfg(test)]
mod edges_lists;
#[cfg(test)]
mod edges_network;
#[cfg(test)]
mod edges_tunnel;
#[cfg(test)]
mod tests;
