//! How often one user may ask, by class of action. The counting is the front's (`front::meter`).

use std::fmt;

use blockhost_proto::action::Action;
use blockhost_proto::catalog::ActionSpec;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::rule::given;

/// What a request costs the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Looks: status, lists, the agent's own facts, dry runs.
    Read,
    /// Changes or removes what is there.
    Change,
    /// Makes something that stays: machines, disks, keys, open ports.
    Create,
    /// A record in the ledger and nothing else.
    Event,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Read, Self::Change, Self::Create, Self::Event];

    /// The class of an action that is really carried out.
    pub fn of(spec: &ActionSpec) -> Self {
        match spec.operation {
            _ if spec.compartment == blockhost_proto::catalog::Compartment::Ledger => Self::Event,
            _ if spec.read_only => Self::Read,
            "create" => Self::Create,
            _ => Self::Change,
        }
    }

    /// The class of a request.
    pub fn of_request(action: &Action, dry_run: bool) -> Self {
        if dry_run {
            Self::Read
        } else {
            Self::of(action.spec())
        }
    }

    /// Its key in the policy file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Change => "change",
            Self::Create => "create",
            Self::Event => "event",
        }
    }
}

/// A token bucket, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// As often as they like.
    Unlimited,
    /// In the long run so many a minute, and so many at once after a quiet time.
    Limited {
        /// Tokens that come in a minute.
        per_minute: u32,
        /// Tokens that the bucket holds.
        burst: u32,
    },
}

/// Highest rate and burst that make sense as a limit.
const MOST: u32 = 10_000_000;

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Unlimited => serializer.serialize_str("unlimited"),
            Self::Limited { per_minute, burst } => Bucket {
                per_minute,
                burst: Some(burst),
            }
            .serialize(serializer),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bucket {
    per_minute: u32,
    #[serde(default, deserialize_with = "given")]
    burst: Option<u32>,
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Rate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`unlimited` or `{per_minute: 600, burst: 1000}`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Rate, E> {
                if text == "unlimited" {
                    return Ok(Rate::Unlimited);
                }
                Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Rate, A::Error> {
                let bucket = Bucket::deserialize(MapAccessDeserializer::new(map))?;
                let burst = bucket.burst.unwrap_or(bucket.per_minute);
                for number in [bucket.per_minute, burst] {
                    if !(1..=MOST).contains(&number) {
                        let text = format!(
                            "{number} is no rate; between 1 and {MOST}, or `unlimited`. \
                             What nobody may do at all is left out of the rules"
                        );
                        return Err(A::Error::custom(text));
                    }
                }
                Ok(Rate::Limited {
                    per_minute: bucket.per_minute,
                    burst,
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `rates:` of the policy file: for each user that a rule without rates of its own lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Looking.
    pub read: Rate,
    /// Changing.
    pub change: Rate,
    /// Making.
    pub create: Rate,
    /// Recording.
    pub event: Rate,
}

impl Default for Rates {
    /// A block of a thousand purchases passes at once; a program that has lost its mind is noticed within minutes.
    fn default() -> Self {
        let limited = |per_minute, burst| Rate::Limited { per_minute, burst };
        Self {
            read: Rate::Unlimited,
            change: limited(12_000, 30_000),
            create: limited(2_400, 10_000),
            event: limited(12_000, 30_000),
        }
    }
}

impl Rates {
    /// The rate of a class.
    pub const fn of(&self, class: Class) -> Rate {
        match class {
            Class::Read => self.read,
            Class::Change => self.change,
            Class::Create => self.create,
            Class::Event => self.event,
        }
    }
}

/// `rates:` of a rule. What is not given is that of the policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnRates {
    /// Looking.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub read: Option<Rate>,
    /// Changing.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub change: Option<Rate>,
    /// Making.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub create: Option<Rate>,
    /// Recording.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub event: Option<Rate>,
}

impl OwnRates {
    /// The rate of a class, where the rule has one.
    pub const fn of(&self, class: Class) -> Option<Rate> {
        match class {
            Class::Read => self.read,
            Class::Change => self.change,
            Class::Create => self.create,
            Class::Event => self.event,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_bucket_or_unlimited_and_nothing_else() {
        let read = |text: &str| serde_saphyr::from_str::<Rates>(text);
        let rates = read("change: {per_minute: 60}\ncreate: {per_minute: 6, burst: 12}\n");
        let rates = rates.expect("valid");
        let limited = |per_minute, burst| Rate::Limited { per_minute, burst };
        assert_eq!(rates.change, limited(60, 60));
        assert_eq!(rates.create, limited(6, 12));
        assert_eq!(rates.read, Rate::Unlimited);
        for text in [
            "change: none\n",
            "change: 60\n",
            "change:\n",
            "change: {per_minute: 0}\n",
            "change: {per_minute: 6, burst: 0}\n",
            "change: {burst: 5}\n",
            "change: {per_minute: 6, burst: }\n",
            "change: {per_minute: -1}\n",
            "change: {per_second: 1}\n",
            "changes: unlimited\n",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rule_has_the_rate_of_each_class_under_the_classs_name() {
        for (at, class) in Class::ALL.into_iter().enumerate() {
            let per_minute = u32::try_from(at).expect("small") + 1;
            let text = format!("{}: {{per_minute: {per_minute}}}\n", class.as_str());
            let own: OwnRates = serde_saphyr::from_str(&text).expect("valid");
            let rates: Rates = serde_saphyr::from_str(&text).expect("valid");
            let limited = Rate::Limited {
                per_minute,
                burst: per_minute,
            };
            for other in Class::ALL {
                assert_eq!(own.of(other), (other == class).then_some(limited), "{text}");
            }
            assert_eq!(rates.of(class), limited, "{text}");
        }
    }

    #[test]
    fn what_a_rate_can_be_is_said_and_where_it_ends() {
        let read = |text: &str| serde_saphyr::from_str::<Rates>(text);
        let error = read("change: 60\n").expect_err("a number").to_string();
        assert!(
            error.contains("`unlimited` or `{per_minute: 600, burst: 1000}`"),
            "{error}"
        );
        assert!(read("change: {per_minute: 10000000, burst: 10000000}\n").is_ok());
        assert!(read("change: {per_minute: 1}\n").is_ok());
        assert!(read("change: {per_minute: 10000001, burst: 1}\n").is_err());
        assert!(read("change: {per_minute: 1, burst: 10000001}\n").is_err());
    }

    #[test]
    fn every_action_has_the_class_of_what_it_costs() {
        let class = |name: &str| Class::of(blockhost_proto::catalog::find(name).expect(name));
        for (name, expected) in [
            ("agent-info", Class::Read),
            ("qm-list", Class::Read),
            ("qm-guest-ping", Class::Read),
            ("qm-create", Class::Create),
            ("qm-clone", Class::Create),
            ("generate-wallet", Class::Create),
            ("iptables-open", Class::Create),
            ("qm-destroy", Class::Change),
            ("ip6-route-add", Class::Change),
            ("addressbook-save", Class::Change),
            ("ledger-append", Class::Event),
            ("ledger-anchored", Class::Event),
        ] {
            assert_eq!(class(name), expected, "{name}");
        }
    }
}
