//! Public addresses: who has which, out of which pool, the translations that make it so, and the answers on the uplink where
//! others ask for them. An assignment is known by its holder, whose name stands beside the rules as their comment.

mod section;

use std::collections::BTreeMap;
use std::net::IpAddr;

use blockhost_proto::action::Action;
use blockhost_proto::value::{Comment, IfName, NatAddress, Text};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::change::{Planned, ResourceRef, Step, step};
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
    /// Where the address is answered for; its pool decides.
    pub announce: Option<Announce>,
    /// Every pool of the document.
    pools: std::sync::Arc<Vec<Offer>>,
}

/// Where others ask for the addresses of a pool, and what leads to who has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    /// The device that leads out of the host.
    pub uplink: IfName,
    /// The bridge of the private addresses.
    pub behind: IfName,
}

/// A pool as the document has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    pool: Pool,
    announce: Option<Announce>,
}

/// An assignment as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The pairs that bear this holder's name.
    pub pairs: Vec<Pair>,
    /// Where their public addresses are answered for, through the agent.
    pub announced: Vec<Announced>,
}

/// An address that is answered for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Announced {
    /// The address.
    pub address: String,
    /// On which device.
    pub uplink: String,
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
            pools.push(section::offer(item, place)?);
        }
        let pools = std::sync::Arc::new(pools);
        let mut all = BTreeMap::new();
        for (item, place) in section.list("assignments")? {
            let mut assignment = section::assignment(item, place.clone())?;
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
        if let Some(Announce { uplink, behind }) = &wanted.announce {
            let announce = json!({"uplink": uplink.as_str(), "behind": behind.as_str()});
            map.insert("announce".into(), announce);
        }
        map.into()
    }

    fn revive(&self, _id: &str, shown: &Value) -> Option<Assignment> {
        let mut shown = shown.clone();
        let announce = recorded(&shown);
        shown.as_object_mut()?.remove("announce");
        let mut assignment = section::assignment(&shown, Place::top()).ok()?;
        assignment.announce.clone_from(&announce);
        // What was given is the pools' to give until somebody says otherwise.
        let only = assignment.public?.to_string();
        let pool = Pool::new(&only, &[], None).ok()?;
        assignment.pools = std::sync::Arc::new(vec![Offer { pool, announce }]);
        Some(assignment)
    }

    fn resolve(
        &self,
        wanted: &mut BTreeMap<String, Assignment>,
        found: &BTreeMap<String, Found>,
        known: &Known,
    ) -> BTreeMap<String, String> {
        let held = held(found, known);
        let offers: Vec<Offer> = match wanted.values().next() {
            Some(first) if wanted.values().all(|w| w.pools == first.pools) => first.pools.to_vec(),
            // Records of several applies, each with its own.
            _ => wanted
                .values()
                .flat_map(|w| w.pools.iter().cloned())
                .collect(),
        };
        let pools: Vec<Pool> = offers.iter().map(|offer| offer.pool.clone()).collect();
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
                        let from = |offer: &&Offer| offer.pool.holds(address.address());
                        let offer = offers.iter().find(from);
                        assignment.announce = offer.and_then(|offer| offer.announce.clone());
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
        let action =
            Action::from_parts("nat-list", &json!({})).map_err(|error| HostError::Answer {
                action: "nat-list",
                what: error.to_string(),
            })?;
        let list = read(host, action)?;
        let proxies = host.proxies()?;
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for pair in list.as_array().into_iter().flatten() {
            let text = |key: &str| pair[key].as_str().unwrap_or_default().to_owned();
            let holder = text("comment");
            if !scope.holds(&holder) {
                continue;
            }
            let entry = found.entry(holder).or_insert_with(|| Found {
                pairs: Vec::new(),
                announced: Vec::new(),
            });
            let public = text("public");
            let of_it = proxies
                .iter()
                .filter(|(_, address)| address.to_string() == public);
            entry.announced.extend(of_it.map(|(uplink, _)| Announced {
                address: public.clone(),
                uplink: uplink.clone(),
            }));
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
        plan(id, wanted, found, before)
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
                for step in withdrawals(found, &pair.public, before, None) {
                    planned.step(step);
                }
                planned.step(unmap(id, pair));
            }
        }
        planned
    }

    fn needs(&self, _id: &str, wanted: &Assignment) -> Vec<ResourceRef> {
        let behind = wanted.announce.as_ref().map(|announce| &announce.behind);
        behind
            .map(|behind| ResourceRef::new("net", behind.as_str()))
            .into_iter()
            .collect()
    }
}

/// Where it was recorded to be answered for.
fn recorded(shown: &Value) -> Option<Announce> {
    let name = |key: &str| IfName::read(shown["announce"][key].as_str()?);
    Some(Announce {
        uplink: name("uplink")?,
        behind: name("behind")?,
    })
}

/// What ends the answers for an address of ours, but for those on one device.
fn withdrawals(
    found: &Found,
    address: &str,
    before: &Entry,
    but: Option<&Announce>,
) -> Vec<Result<Step, String>> {
    let is_it = |one: &&Announced| {
        one.address == address && but.is_none_or(|but| but.uplink.as_str() != one.uplink)
    };
    let recorded = recorded(&before.wanted);
    let all = found.announced.iter().filter(is_it);
    all.map(|one| {
        let behind = recorded
            .as_ref()
            .filter(|on| on.uplink.as_str() == one.uplink);
        withdraw(address, &one.uplink, behind).map(Step::releasing)
    })
    .collect()
}

fn proxy(address: &str, Announce { uplink, behind }: &Announce) -> Value {
    json!({"address": address, "dev": uplink.as_str(), "behind": behind.as_str()})
}

fn announce(address: &str, on: &Announce) -> Result<Step, String> {
    let params = proxy(address, on);
    let undo = step(
        format!("answer for {address} on {} no more", on.uplink),
        "proxy-del",
        &json!({"address": address, "dev": on.uplink.as_str()}),
    )?;
    let say = format!("{address} is answered for on {}", on.uplink);
    Ok(step(say, "proxy-set", &params)?.undone_by(undo))
}

/// Without knowing what it led to it cannot be put back.
fn withdraw(address: &str, uplink: &str, before: Option<&Announce>) -> Result<Step, String> {
    let say = format!("{address} is answered for on {uplink} no more");
    let params = json!({"address": address, "dev": uplink});
    let withdrawn = step(say, "proxy-del", &params)?;
    let Some(before) = before else {
        return Ok(withdrawn.leaving_nothing());
    };
    let undo = step(
        format!("answer for {address} on {uplink} again"),
        "proxy-set",
        &proxy(address, before),
    )?;
    Ok(withdrawn.undone_by(undo))
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

fn plan(id: &str, wanted: &Assignment, found: Option<&Found>, before: Option<&Entry>) -> Planned {
    let mut planned = Planned::nothing(true);
    // Without an address the reason stands beside this plan already.
    let Some(public) = wanted.public.map(|public| public.to_string()) else {
        return planned;
    };
    let private = wanted.private.to_string();
    let pairs = found.map_or(&[][..], |found| &found.pairs);
    let is_it = |pair: &Pair| pair.public == public && pair.private == private;
    // Translations bear the name of their holder and nothing else: whose they are, only the record says. One that is as it
    // should be but was made by hand stays its maker's, and is not taken away with the document.
    planned.ours = before.is_some() || pairs.is_empty();
    if !planned.ours && pairs.iter().any(is_it) {
        let note = format!("{public} was mapped to {private} by somebody else, and stays theirs");
        planned.notes.push(note);
    }
    for pair in pairs.iter().filter(|pair| !is_it(pair)) {
        planned.differs("public", pair.public.clone(), public.clone());
        if pair.private != private {
            planned.differs("private", pair.private.clone(), private.clone());
        }
        if let (Some(found), Some(before)) = (found.filter(|_| pair.public != public), before) {
            for step in withdrawals(found, &pair.public, before, None) {
                planned.step(step);
            }
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
    // Others may ask for it when it leads somewhere.
    let on = |uplink: &IfName| {
        let mut there = found.iter().flat_map(|found| &found.announced);
        there.any(|one| one.address == public && one.uplink == uplink.as_str())
    };
    if let (Some(found), Some(before)) = (found, before) {
        let gone = withdrawals(found, &public, before, wanted.announce.as_ref());
        if !gone.is_empty() {
            planned.differs("announce", true, Value::Null);
        }
        for step in gone {
            planned.step(step);
        }
    }
    // What leads to it is not looked at; the record says what was set.
    let led = |behind: &IfName| {
        before.is_none_or(|before| {
            before.finished && recorded(&before.wanted).is_none_or(|on| on.behind == *behind)
        })
    };
    if let Some(wanted) = wanted
        .announce
        .as_ref()
        .filter(|wanted| !on(&wanted.uplink) || !led(&wanted.behind))
    {
        planned.differs("announce", Value::Null, wanted.uplink.to_string());
        planned.step(announce(&public, wanted));
    }
    planned
}

#[cfg(test)]
mod tests;
