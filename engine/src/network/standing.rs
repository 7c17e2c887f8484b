//! What of the firewall stands by the ledger: every port that was opened and not closed, every public address that was mapped
//! and not unmapped, folded out of the records of the root agent. Pure; [`super::restore`] reads the ledger and has the agent
//! make it so.

use std::collections::{BTreeMap, BTreeSet};

use blockhost_ledger::query::Fields;
use blockhost_proto::action::{Action, IptablesSet, NatSet};
use blockhost_proto::escape;
use blockhost_proto::value::{NatPair, NatPairs, OpenPort, OpenPorts, Param};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Beginnings of the comments of ports that are open for a moment only: those that the engine opens for a knock, and those that an
/// operator opens by hand for the same reason. None of them outlives a start.
pub const MOMENTARY: [&str; 2] = ["blockhost-knock", "knock-"];

/// What an action changes. One that failed to take away is taken to have done so: what was given up does not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Deed {
    Open(OpenPort),
    Close(OpenPort),
    Ports(List<OpenPort>),
    Map(NatPair),
    Unmap(NatPair),
    Pairs(List<NatPair>),
}

/// A whole list, or what a record keeps of one that does not fit it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum List<T> {
    Whole(BTreeSet<T>),
    Digest(String),
}

/// The same of ports and of pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept<T> {
    all: BTreeSet<T>,
    /// Height of the last record that named all of them.
    since: u64,
    /// Height of a list that cannot be known.
    lost: Option<u64>,
    /// Whether one was added or taken away since that record, or may have been.
    since_changed: bool,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            all: BTreeSet::new(),
            since: 0,
            lost: None,
            since_changed: false,
        }
    }
}

/// Records, as far as they were seen.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    /// Begun and not ended, by operation.
    begun: BTreeMap<String, Deed>,
    ports: Kept<OpenPort>,
    pairs: Kept<NatPair>,
    seen: bool,
}

/// What stands by the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Ports.
    pub ports: BTreeSet<OpenPort>,
    /// Public addresses.
    pub pairs: BTreeSet<NatPair>,
    /// What the ledger should say and does not any more, in sentences.
    pub gaps: Vec<String>,
    /// Whether anything of this kind was ever done here.
    pub seen: bool,
    /// Whether the last records of both kinds named all of them: older ones are not needed any more.
    pub settled: bool,
}

impl Standing {
    /// Whether the same ports and pairs stand.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        (&self.ports, &self.pairs) == (&other.ports, &other.pairs)
    }

    /// The ports, as the agent is asked for them.
    ///
    /// # Errors
    /// There are more of them than one request takes.
    pub fn ports_action(&self) -> Result<IptablesSet, String> {
        let list: Value = self.ports.iter().filter_map(Param::to_json).collect();
        let rules = OpenPorts::from_json(&list).map_err(|error| error.to_string())?;
        Ok(IptablesSet { rules })
    }

    /// The pairs, likewise.
    ///
    /// # Errors
    /// There are more of them than one request takes.
    pub fn pairs_action(&self) -> Result<NatSet, String> {
        let list: Value = self.pairs.iter().filter_map(Param::to_json).collect();
        let pairs = NatPairs::from_json(&list).map_err(|error| error.to_string())?;
        Ok(NatSet { pairs })
    }
}

impl Fold {
    /// Takes in the next record.
    pub fn see(&mut self, height: u64, record: &[u8]) {
        let fields = Fields::of(record);
        if fields.plugin_id != "net" || fields.category != "network" {
            return;
        }
        match &*fields.phase {
            "intent" => {
                let deed = metadata(record).and_then(|given| Deed::read(&fields.action, given));
                if let Some(deed) = deed {
                    self.seen = true;
                    self.begun.insert(fields.op_id.into_owned(), deed);
                }
            }
            "outcome" => {
                if let Some(deed) = self.begun.remove(&*fields.op_id) {
                    let done = metadata(record).is_some_and(|told| told["result"] == "ok");
                    self.apply(height, deed, done);
                }
            }
            _ => {}
        }
    }

    fn apply(&mut self, height: u64, deed: Deed, done: bool) {
        match &deed {
            Deed::Open(_) | Deed::Close(_) => self.ports.since_changed = true,
            Deed::Map(_) | Deed::Unmap(_) => self.pairs.since_changed = true,
            Deed::Ports(_) | Deed::Pairs(_) => {}
        }
        match deed {
            Deed::Open(port) if done => {
                self.ports.all.insert(port);
            }
            Deed::Map(pair) if done => {
                // An agent that was killed may have unmapped what had an address of it without saying so.
                let other =
                    |there: &NatPair| there.public != pair.public && there.private != pair.private;
                self.pairs.all.retain(other);
                self.pairs.all.insert(pair);
            }
            Deed::Open(_) | Deed::Map(_) => {}
            Deed::Close(port) => {
                self.ports.all.remove(&port);
            }
            Deed::Unmap(pair) => {
                self.pairs.all.remove(&pair);
            }
            Deed::Ports(list) => self.ports.replace(height, list, done, is_lasting),
            Deed::Pairs(list) => self.pairs.replace(height, list, done, |_| true),
        }
    }

    /// What stands. `pruned` are the heights whose records have no payloads any more.
    #[must_use]
    pub fn standing(&self, pruned: &[(u64, u64)]) -> Standing {
        let mut now = self.clone();
        // What was begun and has not ended may still be done; what is given up is given up.
        for deed in std::mem::take(&mut now.begun).into_values() {
            now.apply(0, deed, false);
        }
        let mut gaps = now.ports.gaps("open ports", pruned);
        gaps.extend(now.pairs.gaps("mapped addresses", pruned));
        let settled = now.ports.is_settled() && now.pairs.is_settled();
        Standing {
            ports: now.ports.all.into_iter().filter(is_lasting).collect(),
            pairs: now.pairs.all,
            gaps,
            settled,
            seen: now.seen,
        }
    }
}

/// Whether a port is open for longer than a moment.
fn is_lasting(port: &OpenPort) -> bool {
    let comment = port.comment.as_str();
    !MOMENTARY
        .iter()
        .any(|beginning| comment.starts_with(beginning))
}

impl<T: Ord + Clone + Param> Kept<T> {
    fn replace(&mut self, height: u64, list: List<T>, done: bool, lasts: impl Fn(&T) -> bool) {
        match list {
            List::Whole(list) if done => {
                *self = Self {
                    all: list,
                    since: height,
                    lost: None,
                    since_changed: false,
                };
            }
            // Whichever of the two it is now: what is in both.
            List::Whole(list) => {
                self.all.retain(|one| list.contains(one));
                self.since_changed = true;
            }
            List::Digest(digest) => {
                // Restoring asks for what stands by the records before, and those are known.
                let lasting: BTreeSet<T> =
                    self.all.iter().filter(|one| lasts(one)).cloned().collect();
                if digest_of(&lasting) == digest {
                    self.all = lasting;
                    if done {
                        self.since = height;
                    }
                    self.since_changed = !done;
                } else {
                    self.all.clear();
                    self.lost = Some(height);
                }
            }
        }
    }

    /// Whether the last record of this kind named all of them.
    fn is_settled(&self) -> bool {
        self.since > 0 && !self.since_changed && self.lost.is_none()
    }

    fn gaps(&self, what: &str, pruned: &[(u64, u64)]) -> Vec<String> {
        let mut gaps = Vec::new();
        if let Some(height) = self.lost {
            gaps.push(format!(
                "record {height} set a list of {what} that it does not hold whole; what was on it is not known"
            ));
        }
        let before = |range: &&(u64, u64)| range.1 > self.since;
        if let Some((first, last)) = pruned.iter().find(before) {
            gaps.push(format!(
                "the payloads of records {first} to {last} were pruned, so {what} of before are not known; \
                 `blockhost net restore` before pruning keeps them"
            ));
        }
        gaps
    }
}

/// As the agent's record has it of a value that is too large for it.
fn digest_of<T: Param>(list: &BTreeSet<T>) -> String {
    let list: Value = list.iter().filter_map(Param::to_json).collect();
    escape::hex(&Sha256::digest(list.to_string().as_bytes()))
}

fn metadata(record: &[u8]) -> Option<Map<String, Value>> {
    let mut record: Value = serde_json::from_slice(record).ok()?;
    match record["metadata"].take() {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

impl Deed {
    fn read(action: &str, mut params: Map<String, Value>) -> Option<Self> {
        // By which right it was done.
        params.remove("right");
        let digest = |key: &str| params.get(key)?["sha256"].as_str().map(str::to_owned);
        match action {
            "iptables-set" if digest("rules").is_some() => {
                return digest("rules").map(|text| Self::Ports(List::Digest(text)));
            }
            "nat-set" if digest("pairs").is_some() => {
                return digest("pairs").map(|text| Self::Pairs(List::Digest(text)));
            }
            "iptables-open" | "iptables-close" | "iptables-set" | "nat-map" | "nat-unmap"
            | "nat-set" => {}
            _ => return None,
        }
        let pair = |public, private, comment| NatPair {
            public,
            private,
            comment,
        };
        Some(
            match Action::from_parts(action, &Value::Object(params)).ok()? {
                Action::IptablesOpen(open) => Self::Open(OpenPort {
                    port: open.port,
                    proto: open.proto,
                    comment: open.comment,
                    source: open.source,
                }),
                Action::IptablesClose(close) => Self::Close(OpenPort {
                    port: close.port,
                    proto: close.proto,
                    comment: close.comment,
                    source: close.source,
                }),
                Action::IptablesSet(set) => {
                    Self::Ports(List::Whole(set.rules.iter().cloned().collect()))
                }
                Action::NatMap(map) => Self::Map(pair(map.public, map.private, map.comment)),
                Action::NatUnmap(unmap) => {
                    Self::Unmap(pair(unmap.public, unmap.private, unmap.comment))
                }
                Action::NatSet(set) => {
                    Self::Pairs(List::Whole(set.pairs.iter().cloned().collect()))
                }
                _ => return None,
            },
        )
    }
}

#[cfg(test)]
mod tests;
