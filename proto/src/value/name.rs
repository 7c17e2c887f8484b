//! Names: of machines, interfaces, storages, firewall comments, events.

use serde_json::{Value, json};

use super::{Text, made_of, text_newtype};

/// Name of a virtual machine: a lower-case DNS label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmName(String);

/// Name of a network interface, as the kernel takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

/// Name of a storage of the backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageName(String);

/// Comment that marks a firewall rule as ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comment(String);

/// Full id of a container of Docker, Podman or the like: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// Category or action name of an event that a service writes into the ledger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventName(String);

text_newtype!(VmName, IfName, StorageName, Comment, ContainerId, EventName);

impl Text for VmName {
    const KIND: &'static str = "VM name";
    const RULE: &'static str = "1 to 63 of a-z, 0-9 and -, neither starting nor ending with -";
    fn read(text: &str) -> Option<Self> {
        let good = made_of(text, 1..=63, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
        }) && !text.starts_with('-')
            && !text.ends_with('-');
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"})
    }
}

impl Text for IfName {
    const KIND: &'static str = "interface name";
    const RULE: &'static str =
        "1 to 15 of A-Z, a-z, 0-9, _ . and -, not starting with -, not . or ..";
    fn read(text: &str) -> Option<Self> {
        let good = made_of(text, 1..=15, |b| {
            b.is_ascii_alphanumeric() || b"_.-".contains(&b)
        }) && !text.starts_with('-')
            && text != "."
            && text != "..";
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^(?!\\.{1,2}$)[A-Za-z0-9_.][A-Za-z0-9_.-]{0,14}$"})
    }
}

impl Text for StorageName {
    const KIND: &'static str = "storage name";
    const RULE: &'static str = "a letter a-z, then up to 31 of a-z, 0-9 and -";
    fn read(text: &str) -> Option<Self> {
        let good = made_of(text, 1..=32, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
        }) && text.as_bytes()[0].is_ascii_lowercase();
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[a-z][a-z0-9-]{0,31}$"})
    }
}

impl Text for Comment {
    const KIND: &'static str = "comment";
    const RULE: &'static str = "1 to 64 of A-Z, a-z, 0-9 and -, not starting with -";
    fn read(text: &str) -> Option<Self> {
        let good = made_of(text, 1..=64, |b| b.is_ascii_alphanumeric() || b == b'-')
            && !text.starts_with('-');
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9-]{0,63}$"})
    }
}

impl Text for ContainerId {
    const KIND: &'static str = "container id";
    const RULE: &'static str = "64 of 0-9 and a-f";
    fn read(text: &str) -> Option<Self> {
        made_of(text, 64..=64, |b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            .then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9a-f]{64}$"})
    }
}

impl Text for EventName {
    const KIND: &'static str = "event name";
    const RULE: &'static str = "a letter or digit, then up to 63 of a-z, 0-9, _ . and -";
    fn read(text: &str) -> Option<Self> {
        let good = made_of(text, 1..=64, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b)
        }) && text.as_bytes()[0].is_ascii_alphanumeric();
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[a-z0-9][a-z0-9_.-]{0,63}$"})
    }
}
