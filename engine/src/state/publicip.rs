//! Public addresses: who has which, out of which pool, and the translations that make it so. An assignment is known by its
//! holder, whose name stands beside the rules as their comment.

use std::collections::BTreeMap;
use std::net::IpAddr;

use blockhost_proto::action::Action;
use blockhost_proto::value::{Comment, NatAddress, Text};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::change::{Planned, Step, step};
use super::fields::{Fields, Place, Wrong};
use super::host::{Host, HostError, read};
use super::kind::{Entry, Kind, Known, Scope};
use crate::network::pools::{self, Claim, Pool};

/// An assignment as the document has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Who has the address.
    pub holder: Comment,
    /// Where packets for it go.
    pub private: NatAddress,
    /// The address; decided from the pools where the document says nothing.
    pub public: Option<NatAddress>,
    /// Every pool of the document.
    pools: std::sync::Arc<Vec<Pool>>,
}

/// An assignment as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The pairs that bear this holder's name.
    pub pairs: Vec<Pair>,
}

/// A translation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The public address.
    pub public: String,
    /// The private one behind it.
    pub private: String,
    /// Whether both directions are there.
    pub whole: bool,
}

/// Public addresses.
#[derive(Debug, Clone, Copy)]
pub struct PublicIp;

impl Kind for PublicIp {
    const NAME: &'static str = "publicip";
    const HANDOVER: &'static str = "take another name for its holder";
    type Wanted = Assignment;
    type Found = Found;

    fn read(&self, mut section: Fields<'_>) -> Result<BTreeMap<String, Assignment>, Wrong> {
        let mut pools = Vec::new();
        for (item, place) in section.list("pools")? {
            pools.push(pool(item, place)?);
        }
        let pools = std::sync::Arc::new(pools);
        let mut all = BTreeMap::new();
        for (item, place) in section.list("assignments")? {
            let mut assignment = assignment(item, place.clone())?;
            assignment.pools = std::sync::Arc::clone(&pools);
            let holder = assignment.holder.to_string();
            if all.insert(holder, assignment).is_some() {
                return Err(Wrong::new(
                    place.key("holder"),
                    "this holder is there twice",
                ));
            }
        }
        section.finish()?;
        Ok(all)
    }

    fn show(&self, wanted: &Assignment) -> Value {
        let mut map = Map::new();
        map.insert("holder".into(), wanted.holder.to_string().into());
        map.insert("private".into(), wanted.private.to_string().into());
        if let Some(public) = wanted.public {
            map.insert("public".into(), public.to_string().into());
        }
        map.into()
    }

    fn revive(&self, _id: &str, shown: &Value) -> Option<Assignment> {
        let mut assignment = assignment(shown, Place::top()).ok()?;
        // What was given is the pools' to give until somebody says otherwise.
        let only = assignment.public?.to_string();
        assignment.pools = std::sync::Arc::new(vec![Pool::new(&only, &[], None).ok()?]);
        Some(assignment)
    }

    fn resolve(
        &self,
        wanted: &mut BTreeMap<String, Assignment>,
        found: &BTreeMap<String, Found>,
        known: &Known,
    ) -> BTreeMap<String, String> {
        let held = held(found, known);
        let pools: Vec<Pool> = match wanted.values().next() {
            Some(first) if wanted.values().all(|w| w.pools == first.pools) => first.pools.to_vec(),
            // Records of several applies, each with its own.
            _ => wanted
                .values()
                .flat_map(|w| w.pools.iter().cloned())
                .collect(),
        };
        let claims: Vec<Claim> = wanted
            .iter()
            .map(|(holder, assignment)| Claim {
                holder: holder.clone(),
                address: assignment.public.map(NatAddress::address),
                v4: assignment.private.address().is_ipv4(),
            })
            .collect();
        let mut refused = BTreeMap::new();
        for (holder, answer) in pools::allocate(&pools, &claims, &held) {
            let address = answer
                .map_err(|error| error.to_string())
                .and_then(|address| {
                    NatAddress::read(&address.to_string()).ok_or_else(|| {
                        format!("{address} is no unicast address; exclude it from its pool")
                    })
                });
            match address {
                Ok(address) => {
                    if let Some(assignment) = wanted.get_mut(&holder) {
                        assignment.public = Some(address);
                    }
                }
                Err(error) => {
                    refused.insert(holder, error);
                }
            }
        }
        refused
    }

    fn look(
        &self,
        host: &mut dyn Host,
        scope: Scope<'_>,
    ) -> Result<BTreeMap<String, Found>, HostError> {
        if matches!(scope, Scope::These(ids) if ids.is_empty()) {
            return Ok(BTreeMap::new());
        }
        let action =
            Action::from_parts("nat-list", &json!({})).map_err(|error| HostError::Answer {
                action: "nat-list",
                what: error.to_string(),
            })?;
        let list = read(host, action)?;
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for pair in list.as_array().into_iter().flatten() {
            let text = |key: &str| pair[key].as_str().unwrap_or_default().to_owned();
            let holder = text("comment");
            if !scope.holds(&holder) {
                continue;
            }
            let entry = found
                .entry(holder)
                .or_insert_with(|| Found { pairs: Vec::new() });
            entry.pairs.push(Pair {
                public: text("public"),
                private: text("private"),
                whole: pair["whole"] == true,
            });
        }
        Ok(found)
    }

    fn plan(
        &self,
        id: &str,
        wanted: &Assignment,
        found: Option<&Found>,
        before: Option<&Entry>,
    ) -> Planned {
        plan(id, wanted, found, before.is_some())
    }

    fn plan_delete(&self, id: &str, found: &Found, before: &Entry) -> Planned {
        let mut planned = Planned::nothing(true);
        let recorded = |pair: &Pair| {
            before.wanted["public"] == pair.public.as_str()
                && before.wanted["private"] == pair.private.as_str()
        };
        for pair in &found.pairs {
            // A pair of that name that the document never spoke of is somebody else's; after an interruption it may be the
            // one before.
            if recorded(pair) || !before.finished {
                planned.differs("public", pair.public.clone(), Value::Null);
                planned.step(unmap(id, pair));
            }
        }
        planned
    }
}

fn pool(item: &Value, place: Place) -> Result<Pool, Wrong> {
    let mut fields = Fields::new(item, place.clone())?;
    let text = |value: &Value, place: Place| {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| Wrong::new(place, "must be a text"))
    };
    let range = match fields.raw("range") {
        Some(value) => text(value, place.key("range"))?,
        None => return Err(Wrong::new(place, "the key \"range\" is missing")),
    };
    let mut exclude = Vec::new();
    for (item, place) in fields.list("exclude")? {
        let one = text(item, place.clone())?;
        Pool::new(&one, &[], None).map_err(|e| Wrong::new(place, e.to_string()))?;
        exclude.push(one);
    }
    let gateway: Option<NatAddress> = fields.get("gateway")?;
    fields.finish()?;
    Pool::new(&range, &exclude, gateway.map(NatAddress::address))
        .map_err(|error| Wrong::new(place.key("range"), error.to_string()))
}

fn assignment(item: &Value, place: Place) -> Result<Assignment, Wrong> {
    let mut fields = Fields::new(item, place)?;
    let assignment = Assignment {
        holder: fields.need("holder")?,
        private: fields.need("private")?,
        public: fields.get("public")?,
        pools: std::sync::Arc::default(),
    };
    if let Some(public) = assignment.public {
        let (out, inside) = (public.address(), assignment.private.address());
        if out.is_ipv4() != inside.is_ipv4() || out == inside {
            let problem = format!("must be another address of the same family as {inside}");
            return Err(fields.wrong("public", problem));
        }
    }
    fields.finish()?;
    Ok(assignment)
}

/// Who holds what: as it is, else as it was recorded. A reboot takes the rules, not the right to the address.
fn held(found: &BTreeMap<String, Found>, known: &Known) -> BTreeMap<String, IpAddr> {
    let mut held = BTreeMap::new();
    for (holder, entry) in known {
        let public = entry.wanted["public"].as_str();
        if let Some(address) = public.and_then(|text| text.parse().ok()) {
            held.insert(holder.clone(), address);
        }
    }
    for (holder, found) in found {
        if let ([pair], false) = (found.pairs.as_slice(), held.contains_key(holder))
            && let Ok(address) = pair.public.parse()
        {
            held.insert(holder.clone(), address);
        }
    }
    held
}

fn params(holder: &str, public: &str, private: &str) -> Value {
    json!({"public": public, "private": private, "comment": holder})
}

fn map(holder: &str, public: &str, private: &str) -> Result<Step, String> {
    let params = params(holder, public, private);
    let undo = step(
        format!("unmap {public} from {private}"),
        "nat-unmap",
        &params,
    )?;
    let say = format!("Mapped {public} to {private} for {holder}");
    Ok(step(say, "nat-map", &params)?.undone_by(undo))
}

fn unmap(holder: &str, pair: &Pair) -> Result<Step, String> {
    let params = params(holder, &pair.public, &pair.private);
    let undo = step(
        format!("map {} to {} again", pair.public, pair.private),
        "nat-map",
        &params,
    )?;
    let say = format!(
        "Unmapped {} from {} for {holder}",
        pair.public, pair.private
    );
    Ok(step(say, "nat-unmap", &params)?.undone_by(undo))
}

fn plan(id: &str, wanted: &Assignment, found: Option<&Found>, known: bool) -> Planned {
    let mut planned = Planned::nothing(true);
    // Without an address the reason stands beside this plan already.
    let Some(public) = wanted.public.map(|public| public.to_string()) else {
        return planned;
    };
    let private = wanted.private.to_string();
    let pairs = found.map_or(&[][..], |found| &found.pairs);
    let is_it = |pair: &Pair| pair.public == public && pair.private == private;
    for pair in pairs.iter().filter(|pair| !is_it(pair)) {
        // Translations bear the name of their holder and nothing else: whose they are, only the record says.
        planned.ours &= known;
        planned.differs("public", pair.public.clone(), public.clone());
        if pair.private != private {
            planned.differs("private", pair.private.clone(), private.clone());
        }
        planned.step(unmap(id, pair).map(Step::releasing));
    }
    match pairs.iter().find(|pair| is_it(pair)) {
        Some(pair) if pair.whole => {}
        Some(_) => {
            planned.differs("whole", false, true);
            planned.step(map(id, &public, &private));
        }
        None => {
            if pairs.is_empty() {
                planned.differs("public", Value::Null, public.clone());
            }
            planned.step(map(id, &public, &private));
        }
    }
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> BTreeMap<String, Assignment> {
        let fields = Fields::new(value, Place::top()).expect("an object");
        PublicIp.read(fields).expect("good")
    }

    fn section() -> Value {
        json!({
            "pools": [{"range": "203.0.113.0/29", "gateway": "203.0.113.1", "exclude": ["203.0.113.2"]}],
            "assignments": [{"holder": "b", "private": "10.0.0.2"}, {"holder": "a", "private": "10.0.0.1"}],
        })
    }

    fn publics(wanted: &BTreeMap<String, Assignment>) -> Vec<String> {
        wanted
            .values()
            .map(|one| {
                one.public
                    .map_or_else(|| "none".to_owned(), |public| public.to_string())
            })
            .collect()
    }

    #[test]
    fn a_holder_keeps_what_was_recorded_even_when_a_reboot_took_the_rules() {
        let mut wanted = read(&section());
        let known = Known::from([(
            "b".to_owned(),
            Entry {
                wanted: json!({"holder": "b", "private": "10.0.0.2", "public": "203.0.113.3"}),
                finished: true,
            },
        )]);
        assert!(
            PublicIp
                .resolve(&mut wanted, &BTreeMap::new(), &known)
                .is_empty()
        );
        assert_eq!(publics(&wanted), ["203.0.113.4", "203.0.113.3"]);
    }

    #[test]
    fn an_empty_pool_is_a_reason_and_not_an_address() {
        let mut value = section();
        value["pools"] = json!([{"range": "203.0.113.9"}]);
        let mut wanted = read(&value);
        let refused = PublicIp.resolve(&mut wanted, &BTreeMap::new(), &Known::new());
        assert_eq!(publics(&wanted), ["203.0.113.9", "none"]);
        assert!(refused["b"].contains("no address"), "{refused:?}");
    }

    #[test]
    fn a_pair_of_somebody_else_with_the_same_name_is_not_taken_away() {
        let wanted = &read(&json!({
            "pools": [{"range": "203.0.113.0/29"}],
            "assignments": [{"holder": "a", "private": "10.0.0.1", "public": "203.0.113.4"}],
        }))["a"];
        let found = Found {
            pairs: vec![Pair {
                public: "203.0.113.5".into(),
                private: "10.0.0.9".into(),
                whole: true,
            }],
        };
        assert!(!plan("a", wanted, Some(&found), false).ours);
        assert!(plan("a", wanted, Some(&found), true).ours);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (value, place) in [
            (
                json!({"pools": [{"range": "203.0.113.1/24"}]}),
                "pools[0].range",
            ),
            (
                json!({"pools": [{"range": "203.0.113.0/24", "exclude": ["x"]}]}),
                "pools[0].exclude[0]",
            ),
            (
                json!({"pools": [{"range": "203.0.113.0/24", "gateway": "fd00::1"}]}),
                "pools[0].range",
            ),
            (
                json!({"assignments": [{"holder": "-x", "private": "10.0.0.1"}]}),
                "assignments[0].holder",
            ),
            (
                json!({"assignments": [{"holder": "a", "private": "127.0.0.1"}]}),
                "assignments[0].private",
            ),
            (
                json!({"assignments": [{"holder": "a", "private": "10.0.0.1", "public": "fd00::1"}]}),
                "assignments[0].public",
            ),
            (
                json!({"assignments": [{"holder": "a", "private": "10.0.0.1", "port": 1}]}),
                "assignments[0].port",
            ),
        ] {
            let fields = Fields::new(&value, Place::top()).expect("an object");
            let wrong = PublicIp.read(fields).expect_err("wrong");
            assert_eq!(wrong.place.to_string(), place);
        }
    }
}
