//! Tunnels: interface, addresses and peers. Secret keys never come this way: the private one is the agent's, and of a shared
//! key only the digest is recorded and shown.

use std::collections::BTreeMap;

use blockhost_proto::action::WgShow;
use blockhost_proto::escape;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{
    InterfaceAddresses, Mtu, Param, Port, Preshared, Text, WgName, WgPeer, WgPeers,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::change::{Planned, Step, step};
use super::fields::{Fields, Place, Wrong};
use super::host::{Host, HostError, read};
use super::kind::{Entry, Kind, Scope};

/// What the agent writes beside the devices of its tunnels.
pub(super) const ALIAS: &str = "blockhost: tunnel";

/// A tunnel as the document has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Its interface.
    pub name: WgName,
    /// Its addresses.
    pub addresses: InterfaceAddresses,
    /// The port that it listens on; the agent's choice where the document says nothing.
    pub listen_port: Option<Port>,
    /// Its MTU; the agent's choice where the document says nothing.
    pub mtu: Option<Mtu>,
    /// All its peers; not looked at where the document says nothing.
    pub peers: Option<WgPeers>,
    /// Digests of shared keys that are known only so, from the record. The agent keeps the keys themselves.
    digests: BTreeMap<String, String>,
}

/// A peer as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundPeer {
    /// Where it was heard from last.
    pub endpoint: Option<String>,
    /// Its networks.
    pub allowed_ips: Vec<String>,
    /// Seconds between keepalives.
    pub keepalive: Option<u64>,
    /// Whether there is a shared key.
    pub preshared: bool,
}

/// A tunnel as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Made by the agent.
    pub ours: bool,
    /// What others know it by.
    pub public_key: Option<String>,
    /// The port that it listens on.
    pub listen_port: u64,
    /// Its MTU.
    pub mtu: u64,
    /// Whether it is up.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its peers by public key.
    pub peers: BTreeMap<String, FoundPeer>,
}

/// Tunnels.
#[derive(Debug, Clone, Copy)]
pub struct Wireguard;

impl Kind for Wireguard {
    const NAME: &'static str = "wireguard";
    const HANDOVER: &'static str = "delete it with the tool that made it, or take another name";
    type Wanted = Tunnel;
    type Found = Found;

    fn read(&self, mut section: Fields<'_>) -> Result<BTreeMap<String, Tunnel>, Wrong> {
        let mut tunnels = BTreeMap::new();
        for (item, place) in section.list("tunnels")? {
            let tunnel = tunnel(item, place.clone())?;
            let name = tunnel.name.to_string();
            if tunnels.insert(name, tunnel).is_some() {
                return Err(Wrong::new(place.key("name"), "this tunnel is there twice"));
            }
        }
        section.finish()?;
        Ok(tunnels)
    }

    fn show(&self, wanted: &Tunnel) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        put("name", wanted.name.to_json());
        put("addresses", wanted.addresses.to_json());
        put("listen_port", wanted.listen_port.to_json());
        put("mtu", wanted.mtu.to_json());
        if let Some(peers) = &wanted.peers {
            let list = peers.iter().map(|peer| show_peer(peer, &wanted.digests));
            put("peers", Some(list.collect()));
        }
        Value::Object(map)
    }

    fn revive(&self, _id: &str, shown: &Value) -> Option<Tunnel> {
        let mut value = shown.clone();
        let mut digests = BTreeMap::new();
        for peer in value["peers"].as_array_mut().into_iter().flatten() {
            let digest = peer["preshared"]
                .as_str()
                .and_then(|p| p.strip_prefix("sha256:"));
            let Some(digest) = digest.map(str::to_owned) else {
                continue;
            };
            let key = peer["public_key"].as_str()?.to_owned();
            digests.insert(key, digest);
            peer["preshared"] = Preshared::Kept.to_json()?;
        }
        let mut tunnel = tunnel(&value, Place::top()).ok()?;
        tunnel.digests = digests;
        Some(tunnel)
    }

    fn look(
        &self,
        host: &mut dyn Host,
        scope: Scope<'_>,
    ) -> Result<BTreeMap<String, Found>, HostError> {
        let names: Vec<String> = match scope {
            Scope::These(ids) => ids.iter().cloned().collect(),
            Scope::Everything => host
                .links()?
                .into_iter()
                .filter(|link| link.alias.as_deref() == Some(ALIAS))
                .map(|link| link.name)
                .collect(),
        };
        let mut found = BTreeMap::new();
        for name in names {
            let Some(tunnel) = WgName::read(&name) else {
                continue;
            };
            match read(host, WgShow { name: tunnel }) {
                Ok(shown) => {
                    found.insert(name, understood(&shown));
                }
                Err(error) if error.code() == Some(ErrorCode::NotFound) => {}
                // A device of that name that is none of the agent's.
                Err(error) if error.code() == Some(ErrorCode::Conflict) => {
                    let foreign = Found {
                        ours: false,
                        ..understood(&Value::Null)
                    };
                    found.insert(name, foreign);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn plan(
        &self,
        _id: &str,
        wanted: &Tunnel,
        found: Option<&Found>,
        before: Option<&Entry>,
    ) -> Planned {
        match found {
            None => create(wanted, before),
            Some(found) => change(wanted, found, before, &self.show(wanted)),
        }
    }

    fn plan_delete(&self, id: &str, found: &Found, _before: &Entry) -> Planned {
        let mut planned = Planned::nothing(found.ours);
        planned.differs("name", id, Value::Null);
        // Its private key goes with it: nothing makes the same tunnel again.
        let gone = format!("Removed tunnel {id} with its keys");
        planned.step(step(gone, "wg-teardown", &json!({"name": id})));
        planned
    }
}

fn tunnel(item: &Value, place: Place) -> Result<Tunnel, Wrong> {
    let mut fields = Fields::new(item, place)?;
    let tunnel = Tunnel {
        name: fields.need("name")?,
        addresses: fields.need("addresses")?,
        listen_port: fields.get("listen_port")?,
        mtu: fields.get("mtu")?,
        peers: fields.get("peers")?,
        digests: BTreeMap::new(),
    };
    fields.finish()?;
    Ok(tunnel)
}

fn show_peer(peer: &WgPeer, digests: &BTreeMap<String, String>) -> Value {
    let mut shown = peer.to_json().unwrap_or_default();
    let given = match &peer.preshared {
        // 32 random bytes cannot be found from their digest.
        Some(Preshared::Given(key)) => Some(escape::hex(&Sha256::digest(key.bytes()))),
        _ => digests.get(&peer.public_key.to_string()).cloned(),
    };
    if let Some(digest) = given {
        shown["preshared"] = format!("sha256:{digest}").into();
    }
    shown
}

fn understood(shown: &Value) -> Found {
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    let peers = shown["peers"].as_array().into_iter().flatten();
    Found {
        ours: true,
        public_key: shown["public_key"].as_str().map(str::to_owned),
        listen_port: shown["listen_port"].as_u64().unwrap_or_default(),
        mtu: shown["mtu"].as_u64().unwrap_or_default(),
        up: shown["up"] == true,
        // What the kernel adds by itself is nobody's wish.
        addresses: sorted(
            texts(&shown["addresses"])
                .into_iter()
                .filter(|address| !address.starts_with("fe80:"))
                .collect(),
        ),
        peers: peers
            .filter_map(|peer| {
                let found = FoundPeer {
                    endpoint: peer["endpoint"].as_str().map(str::to_owned),
                    allowed_ips: sorted(texts(&peer["allowed_ips"])),
                    keepalive: peer["keepalive"].as_u64(),
                    preshared: peer["preshared"] == true,
                };
                Some((peer["public_key"].as_str()?.to_owned(), found))
            })
            .collect(),
    }
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

fn setup(tunnel: &Tunnel) -> Value {
    let mut params = json!({"name": tunnel.name, "addresses": tunnel.addresses.to_json()});
    if let Some(port) = tunnel.listen_port.to_json() {
        params["listen_port"] = port;
    }
    if let Some(mtu) = tunnel.mtu.to_json() {
        params["mtu"] = mtu;
    }
    params
}

fn set_peers(tunnel: &Tunnel, peers: &WgPeers) -> Result<Step, String> {
    let name = &tunnel.name;
    let params = json!({"name": name, "peers": peers.to_json()});
    let say = format!("Set the {} peers of {name}", peers.iter().count());
    step(say, "wg-set-peers", &params)
}

fn create(wanted: &Tunnel, before: Option<&Entry>) -> Planned {
    let name = &wanted.name;
    let mut planned = Planned::nothing(true);
    // Taking a tunnel away takes its keys along. One that was there before, and that a start of the machine took, has to come
    // back as what the others know it by: what cannot be made of it now is left for the next time.
    let known = before.is_some_and(|entry| entry.standing().is_some());
    let undo = step(
        format!("remove tunnel {name}"),
        "wg-teardown",
        &json!({"name": name}),
    );
    let made = step(format!("Made tunnel {name}"), "wg-setup", &setup(wanted));
    planned.step(made.and_then(|step| {
        if known {
            return Ok(step);
        }
        Ok(step.undone_by(undo?))
    }));
    if let Some(peers) = wanted
        .peers
        .as_ref()
        .filter(|peers| peers.iter().next().is_some())
    {
        planned.step(set_peers(wanted, peers).map(Step::leaving_nothing));
    }
    planned
}

fn change(wanted: &Tunnel, found: &Found, before: Option<&Entry>, shown: &Value) -> Planned {
    let name = &wanted.name;
    let mut planned = Planned::nothing(found.ours);
    let addresses = sorted(wanted.addresses.iter().map(|a| a.to_string()).collect());
    if addresses != found.addresses {
        planned.differs("addresses", found.addresses.clone(), addresses);
    }
    if let Some(port) = wanted.listen_port.map(|port| u64::from(port.get()))
        && port != found.listen_port
    {
        planned.differs("listen_port", found.listen_port, port);
    }
    if let Some(mtu) = wanted.mtu.map(|mtu| u64::from(mtu.get()))
        && mtu != found.mtu
    {
        planned.differs("mtu", found.mtu, mtu);
    }
    if !found.up && found.ours {
        planned.differs("up", false, true);
    }
    if !planned.fields.is_empty() || !found.ours {
        let mut old = json!({
            "name": name, "addresses": found.addresses,
            "listen_port": found.listen_port, "mtu": found.mtu,
        });
        if found.listen_port == 0 {
            old["listen_port"] = Value::Null;
            if let Some(map) = old.as_object_mut() {
                map.remove("listen_port");
            }
        }
        let set = step(format!("Changed tunnel {name}"), "wg-setup", &setup(wanted));
        // A tunnel whose addresses were all taken away cannot be put back to that.
        let undo = step(format!("put back tunnel {name}"), "wg-setup", &old);
        planned.step(set.map(|set| match undo {
            Ok(undo) => set.undone_by(undo),
            Err(_) => set,
        }));
    }
    if let Some(peers) = &wanted.peers {
        let before = before
            .filter(|entry| entry.finished)
            .map(|entry| &entry.wanted);
        let differ = differences(peers, found, before, shown, &mut planned);
        if differ {
            let undo = old_peers(name, found);
            planned.step(set_peers(wanted, peers).map(|set| match undo {
                Some(undo) => set.undone_by(undo),
                None => set,
            }));
        }
    }
    planned
}

/// The peers as they are, where that can be said: a shared key cannot be read back.
fn old_peers(name: &WgName, found: &Found) -> Option<Step> {
    if found.peers.values().any(|peer| peer.preshared) {
        return None;
    }
    let peers: Vec<Value> = found
        .peers
        .iter()
        .map(|(key, peer)| {
            let mut value = json!({"public_key": key, "allowed_ips": peer.allowed_ips});
            if let Some(endpoint) = &peer.endpoint {
                value["endpoint"] = endpoint.clone().into();
            }
            if let Some(keepalive) = peer.keepalive {
                value["keepalive"] = keepalive.into();
            }
            value
        })
        .collect();
    let say = format!("put back the peers of {name}");
    step(say, "wg-set-peers", &json!({"name": name, "peers": peers})).ok()
}

fn differences(
    wanted: &WgPeers,
    found: &Found,
    before: Option<&Value>,
    shown: &Value,
    planned: &mut Planned,
) -> bool {
    let count = planned.fields.len();
    for peer in wanted.iter() {
        let key = peer.public_key.to_string();
        let field = |what: &str| format!("peers.{key}{what}");
        let Some(there) = found.peers.get(&key) else {
            let shown = peer_in(shown, &key).cloned().unwrap_or_default();
            planned.differs(field(""), Value::Null, shown);
            continue;
        };
        let recorded = before.and_then(|before| peer_in(before, &key));
        let networks = sorted(peer.allowed_ips.iter().map(|net| net.to_string()).collect());
        if networks != there.allowed_ips {
            planned.differs(field(".allowed_ips"), there.allowed_ips.clone(), networks);
        }
        let keepalive = peer.keepalive.map(|seconds| u64::from(seconds.get()));
        if keepalive != there.keepalive {
            planned.differs(field(".keepalive"), there.keepalive, keepalive);
        }
        if let Some(endpoint) = peer.endpoint.map(|endpoint| endpoint.to_string()) {
            // A peer roams: where it was heard from last is as good as what the document said all the time.
            let said = recorded.is_some_and(|r| r["endpoint"] == endpoint.as_str());
            let heard = there.endpoint.is_some();
            if !(said && heard) && there.endpoint.as_ref() != Some(&endpoint) {
                planned.differs(field(".endpoint"), there.endpoint.clone(), endpoint);
            }
        }
        preshared(peer, there, recorded, shown, &field(".preshared"), planned);
    }
    for key in found.peers.keys() {
        if !wanted
            .iter()
            .any(|peer| peer.public_key.to_string() == *key)
        {
            planned.differs(format!("peers.{key}"), "present", Value::Null);
        }
    }
    planned.fields.len() > count
}

/// Whether there is a shared key can be seen, which one it is only known from the record.
fn preshared(
    peer: &WgPeer,
    there: &FoundPeer,
    recorded: Option<&Value>,
    shown: &Value,
    field: &str,
    planned: &mut Planned,
) {
    let wanted = peer_in(shown, &peer.public_key.to_string()).map(|p| p["preshared"].clone());
    let wanted = wanted.unwrap_or_default();
    let from = if there.preshared {
        json!("set")
    } else {
        Value::Null
    };
    let same = match (wanted.is_null(), there.preshared) {
        (true, true) | (false, false) => false,
        (true, false) => true,
        (false, true) => recorded.is_some_and(|r| r["preshared"] == wanted),
    };
    if !same {
        planned.differs(field, from, wanted);
    }
}

fn peer_in<'a>(shown: &'a Value, key: &str) -> Option<&'a Value> {
    let peers = shown["peers"].as_array()?;
    peers.iter().find(|peer| peer["public_key"] == key)
}

#[cfg(test)]
mod tests;
