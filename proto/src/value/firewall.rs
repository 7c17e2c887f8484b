//! Whole lists of what the firewall holds: ports that are open, public addresses with the private ones behind them.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value, json};

use super::{Comment, L4Proto, List, NatAddress, Object, Param, Port, SourceNet, ValueError};

/// One open port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenPort {
    /// The port.
    pub port: Port,
    /// Transport protocol; `tcp` where it is missing.
    pub proto: L4Proto,
    /// Marks the rule as its owner's.
    pub comment: Comment,
    /// Only packets from there; both families where it is missing.
    pub source: Option<SourceNet>,
}

/// All open ports: at most 4096, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenPorts(Vec<OpenPort>);

/// A public address that stands for a private one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatPair {
    /// The public address.
    pub public: NatAddress,
    /// The private address behind it, of the same family.
    pub private: NatAddress,
    /// Marks the pair as its owner's.
    pub comment: Comment,
}

/// All pairs: at most 4096, no address in two of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NatPairs(Vec<NatPair>);

fn object<const N: usize>(keys: [&str; N], values: [Option<Value>; N]) -> Value {
    let map: Map<String, Value> = keys
        .iter()
        .zip(values)
        .filter_map(|(key, value)| Some(((*key).to_owned(), value?)))
        .collect();
    Value::Object(map)
}

impl OpenPort {
    const KIND: &'static str = "open port";
    const KEYS: [&'static str; 4] = ["port", "proto", "comment", "source"];
    const RULE: &'static str = "an object with port, comment and optionally proto, source";
}

impl fmt::Display for OpenPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.proto)?;
        if let Some(source) = self.source {
            write!(f, " from {source}")?;
        }
        write!(f, " ({})", self.comment)
    }
}

impl Param for OpenPort {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let object = Object::read(Self::KIND, Self::RULE, value, &Self::KEYS)?;
        Ok(Self {
            port: object.need("port")?,
            proto: object.get("proto")?.unwrap_or(L4Proto::Tcp),
            comment: object.need("comment")?,
            source: object.get("source")?,
        })
    }
    fn to_json(&self) -> Option<Value> {
        let values = [
            self.port.to_json(),
            self.proto.to_json(),
            self.comment.to_json(),
            self.source.to_json(),
        ];
        Some(object(Self::KEYS, values))
    }
    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "port": Port::schema(),
                "proto": L4Proto::schema(),
                "comment": Comment::schema(),
                "source": SourceNet::schema(),
            },
            "required": ["port", "comment"],
            "additionalProperties": false,
        })
    }
}

impl OpenPorts {
    /// The ports, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &OpenPort> {
        self.0.iter()
    }
}

impl List for OpenPorts {
    const KIND: &'static str = "list of open ports";
    const RULE: &'static str = "at most 4096 ports, each once";
    const MAX: usize = 4096;
    type Item = OpenPort;
    fn from_items(items: Vec<OpenPort>) -> Result<Self, ValueError> {
        super::object::each_once::<Self>(items).map(Self)
    }
    fn items(&self) -> &[OpenPort] {
        &self.0
    }
}

impl NatPair {
    const KIND: &'static str = "pair of addresses";
    const KEYS: [&'static str; 3] = ["public", "private", "comment"];
    const RULE: &'static str =
        "an object with public and private, two addresses of one family, and comment";
}

impl fmt::Display for NatPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} ({})", self.public, self.private, self.comment)
    }
}

impl Param for NatPair {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let object = Object::read(Self::KIND, Self::RULE, value, &Self::KEYS)?;
        let pair = Self {
            public: object.need("public")?,
            private: object.need("private")?,
            comment: object.need("comment")?,
        };
        let (public, private) = (pair.public.address(), pair.private.address());
        if public == private || public.is_ipv4() != private.is_ipv4() {
            let given = pair.to_string();
            return Err(ValueError::new(Self::KIND, &given, Self::RULE));
        }
        Ok(pair)
    }
    fn to_json(&self) -> Option<Value> {
        let values = [
            self.public.to_json(),
            self.private.to_json(),
            self.comment.to_json(),
        ];
        Some(object(Self::KEYS, values))
    }
    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "public": NatAddress::schema(),
                "private": NatAddress::schema(),
                "comment": Comment::schema(),
            },
            "required": Self::KEYS,
            "additionalProperties": false,
        })
    }
}

impl NatPairs {
    /// The pairs, by public address.
    pub fn iter(&self) -> impl Iterator<Item = &NatPair> {
        self.0.iter()
    }
}

impl List for NatPairs {
    const KIND: &'static str = "list of pairs";
    const RULE: &'static str =
        "at most 4096 pairs, no public and no private address in two of them";
    const MAX: usize = 4096;
    type Item = NatPair;
    fn from_items(mut items: Vec<NatPair>) -> Result<Self, ValueError> {
        items.sort_unstable();
        let (mut publics, mut privates) = (BTreeSet::new(), BTreeSet::new());
        let twice = |pair: &&NatPair| {
            let new = publics.insert(pair.public) & privates.insert(pair.private);
            !new
        };
        match items.iter().find(twice) {
            Some(pair) => {
                let given = pair.to_string();
                Err(ValueError::new(Self::KIND, &given, Self::RULE))
            }
            None => Ok(Self(items)),
        }
    }
    fn items(&self) -> &[NatPair] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_ports_holds_each_once_whatever_way_it_is_written() {
        let port = |text: Value| OpenPorts::from_json(&json!([{"port": 22, "comment": "a"}, text]));
        for (other, good) in [
            (json!({"port": 22, "comment": "b"}), true),
            (json!({"port": 22, "comment": "a", "proto": "udp"}), true),
            (
                json!({"port": 22, "comment": "a", "source": "10.0.0.0/8"}),
                true,
            ),
            (json!({"port": 22, "comment": "a"}), false),
            (json!({"port": 22, "comment": "a", "proto": "tcp"}), false),
            (json!({"port": 22}), false),
            (json!({"port": 22, "comment": "a", "jump": "DROP"}), false),
            (json!(["22", "a"]), false),
        ] {
            assert_eq!(port(other.clone()).is_ok(), good, "{other}");
        }
        let list = port(json!({"port": 1, "comment": "c"}))
            .expect("good")
            .to_json();
        let proto =
            |port: u16, comment: &str| json!({"port": port, "proto": "tcp", "comment": comment});
        assert_eq!(
            list,
            Some(json!([proto(1, "c"), proto(22, "a")])),
            "sorted, with what was left out"
        );
    }

    #[test]
    fn no_address_is_in_two_pairs_and_no_pair_of_two_families() {
        let pair = |public: &str, private: &str| json!({"public": public, "private": private, "comment": "a"});
        let first = pair("203.0.113.7", "10.0.0.7");
        for (second, good) in [
            (pair("203.0.113.8", "10.0.0.8"), true),
            (pair("2001:db8::7", "fd00::7"), true),
            (pair("203.0.113.7", "10.0.0.8"), false),
            (pair("203.0.113.8", "10.0.0.7"), false),
            (pair("203.0.113.8", "fd00::8"), false),
            (pair("203.0.113.8", "203.0.113.8"), false),
        ] {
            let list = NatPairs::from_json(&json!([first, second]));
            assert_eq!(list.is_ok(), good, "{second}");
        }
    }
}
