//! The mesh: bridges whose containers the host routes, tunnels that lead to others, and the networks behind them. The host
//! forwards what comes in by these devices and by no others. Which addresses a device has is the section `net`'s, who is at a
//! tunnel's other end `wireguard`'s; the container's side is in [`super::lxc`].

use std::collections::BTreeMap;

use blockhost_netlink::route::{MAIN_TABLE, PROTOCOL};
use blockhost_netlink::{Address, Link};
use blockhost_proto::action::WgShow;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{IfName, Metric, Param, RouteNet, Text, WgName};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::change::{Planned, ResourceRef, Step, step};
use super::fields::{Fields, Place, Wrong, wrong_value};
use super::host::{Host, HostError, read};
use super::kind::{Entry, Kind, Scope};
use super::wireguard::ALIAS;

/// A device of the mesh as the document has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A bridge whose containers the host routes.
    Bridge(IfName),
    /// A tunnel.
    Tunnel {
        /// Its interface.
        name: WgName,
        /// What lies behind it.
        networks: Vec<RouteNet>,
    },
}

/// A route out of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundRoute {
    /// The network.
    pub network: String,
    /// Set through the agent, at the place where it is set here.
    pub ours: bool,
}

/// A device as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Whether IPv4 packets that come in by it are forwarded.
    pub forwards: bool,
    /// Whether only those whose way back leads out of it are.
    pub strict: bool,
    /// The host's addresses on it.
    pub addresses: Vec<String>,
    /// Networks that are reached by it.
    pub routes: Vec<FoundRoute>,
    /// What may come from the peers of a tunnel, and be sent to them.
    pub allowed: Vec<String>,
    /// Whether this host forwards IPv6.
    pub forwards_v6: bool,
    /// Whether the host believes sources on all its devices that it should not.
    #[serde(skip)]
    pub loose: bool,
}

/// The mesh.
#[derive(Debug, Clone, Copy)]
pub struct Mesh;

/// What a host has to do for IPv6 by itself.
pub(crate) const NO_IPV6: &str = "this host does not forward IPv6, which Linux decides for all devices at once: see \
     /usr/share/doc/blockhost/blockhost-ipv6.conf (net.ipv6.conf.all.forwarding = 1) and copy it to /etc/sysctl.d";

impl Wanted {
    fn name(&self) -> &str {
        match self {
            Self::Bridge(name) => name.as_str(),
            Self::Tunnel { name, .. } => name.as_str(),
        }
    }

    fn networks(&self) -> &[RouteNet] {
        match self {
            Self::Bridge(_) => &[],
            Self::Tunnel { networks, .. } => networks,
        }
    }
}

impl Kind for Mesh {
    const NAME: &'static str = "mesh";
    const HANDOVER: &'static str = "take its forwarding and its routes away first";
    type Wanted = Wanted;
    type Found = Found;

    fn read(&self, mut section: Fields<'_>) -> Result<BTreeMap<String, Wanted>, Wrong> {
        let mut all = BTreeMap::new();
        let mut networks: Vec<RouteNet> = Vec::new();
        let mut add = |wanted: Wanted, place: &Place| {
            for network in wanted.networks() {
                if networks.contains(network) {
                    let problem = format!("{network} is there twice");
                    return Err(Wrong::new(place.key("networks"), problem));
                }
                networks.push(*network);
            }
            match all.insert(wanted.name().to_owned(), wanted) {
                Some(_) => Err(Wrong::new(place.key("name"), "this device is there twice")),
                None => Ok(()),
            }
        };
        for (item, place) in section.list("bridges")? {
            let mut fields = Fields::new(item, place.clone())?;
            let wanted = Wanted::Bridge(fields.need("name")?);
            fields.finish()?;
            add(wanted, &place)?;
        }
        for (item, place) in section.list("tunnels")? {
            add(tunnel(item, place.clone())?, &place)?;
        }
        section.finish()?;
        Ok(all)
    }

    fn show(&self, wanted: &Wanted) -> Value {
        let mut map = Map::new();
        map.insert("name".into(), wanted.name().into());
        if let Wanted::Tunnel { networks, .. } = wanted {
            let list = networks.iter().map(ToString::to_string);
            map.insert("networks".into(), list.collect());
        }
        map.into()
    }

    fn revive(&self, _id: &str, shown: &Value) -> Option<Wanted> {
        if shown["networks"].is_array() {
            return tunnel(shown, Place::top()).ok();
        }
        IfName::read(shown["name"].as_str()?).map(Wanted::Bridge)
    }

    fn look(
        &self,
        host: &mut dyn Host,
        scope: Scope<'_>,
    ) -> Result<BTreeMap<String, Found>, HostError> {
        let links = host.links()?;
        let routes = host.routes()?;
        let (forwards_v6, loose) = (host.forwards_v6(), host.is_loose());
        let mut found = BTreeMap::new();
        for link in links.into_iter().filter(|link| scope.holds(&link.name)) {
            // Of all devices those that are in a mesh, or could be.
            if matches!(scope, Scope::Everything) && !link.forwards && !is_tunnel(&link) {
                continue;
            }
            let leads = |route: &&blockhost_netlink::Route| {
                let mut hops = route.hops.iter();
                route.table == MAIN_TABLE
                    && route.leads
                    && hops.any(|hop| hop.device == Some(link.index))
            };
            let out = routes.iter().filter(leads).map(|route| FoundRoute {
                network: text(route.destination),
                ours: route.protocol == PROTOCOL && route.metric == Metric::USUAL.get(),
            });
            let addresses = host.addresses(link.index)?.into_iter().map(text).collect();
            let about = Found {
                forwards: link.forwards,
                strict: link.strict,
                addresses,
                routes: out.collect(),
                allowed: allowed(host, &link)?,
                forwards_v6,
                loose,
            };
            found.insert(link.name, about);
        }
        Ok(found)
    }

    fn plan(
        &self,
        id: &str,
        wanted: &Wanted,
        found: Option<&Found>,
        before: Option<&Entry>,
    ) -> Planned {
        plan(id, wanted, found, before)
    }

    fn plan_delete(&self, id: &str, found: &Found, before: &Entry) -> Planned {
        let mut planned = Planned::nothing(true);
        for network in recorded(before) {
            if holds(found, &network) {
                planned.differs("networks", network.clone(), Value::Null);
                planned.step(route_gone(id, &network));
            }
        }
        if found.forwards {
            planned.differs("forward", true, false);
            planned.step(forward(id, false, true));
        }
        planned
    }

    fn needs(&self, id: &str, wanted: &Wanted) -> Vec<ResourceRef> {
        let section = match wanted {
            Wanted::Bridge(_) => "net",
            Wanted::Tunnel { .. } => "wireguard",
        };
        vec![ResourceRef::new(section, id)]
    }

    fn is_there(&self, found: &Found) -> bool {
        found.forwards || found.routes.iter().any(|route| route.ours)
    }

    fn complaints(&self, wanted: &Wanted, found: &Found) -> Vec<String> {
        let name = wanted.name();
        let mut wrong = Vec::new();
        if found.addresses.is_empty() {
            wrong.push(format!("the host has no address on {name}"));
        }
        // WireGuard sends to nobody what is in no peer's list, and takes it from nobody.
        for network in wanted.networks() {
            if !found.allowed.iter().any(|list| covers(list, *network)) {
                wrong.push(format!(
                    "{network} is in no peer's allowed_ips of {name}, so nothing goes there or comes from there"
                ));
            }
        }
        wrong
    }

    fn remarks(&self, wanted: &Wanted, found: &Found) -> Vec<String> {
        let loose = "net.ipv4.conf.all.rp_filter is 2, which outweighs what each device has: sources are believed that could not \
             be answered; set it to 0 or 1";
        let tunnel = matches!(wanted, Wanted::Tunnel { .. });
        (found.loose && !tunnel)
            .then(|| loose.to_owned())
            .into_iter()
            .collect()
    }
}

fn tunnel(item: &Value, place: Place) -> Result<Wanted, Wrong> {
    let mut fields = Fields::new(item, place)?;
    let name = fields.need("name")?;
    let mut networks = Vec::new();
    for (item, place) in fields.list("networks")? {
        let network = RouteNet::from_json(item);
        networks.push(network.map_err(|error| wrong_value(place, &error))?);
    }
    fields.finish()?;
    Ok(Wanted::Tunnel { name, networks })
}

fn is_tunnel(link: &Link) -> bool {
    link.alias.as_deref() == Some(ALIAS)
}

/// The networks of a tunnel's peers.
fn allowed(host: &mut dyn Host, link: &Link) -> Result<Vec<String>, HostError> {
    let Some(name) = WgName::read(&link.name).filter(|_| is_tunnel(link)) else {
        return Ok(Vec::new());
    };
    let shown = match read(host, WgShow { name }) {
        Ok(shown) => shown,
        // Gone since the list was read, or somebody else's.
        Err(error)
            if matches!(
                error.code(),
                Some(ErrorCode::NotFound | ErrorCode::Conflict)
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let peers = shown["peers"].as_array().into_iter().flatten();
    let lists = peers.flat_map(|peer| peer["allowed_ips"].as_array().into_iter().flatten());
    Ok(lists
        .filter_map(|network| network.as_str().map(str::to_owned))
        .collect())
}

fn text(network: Address) -> String {
    format!("{}/{}", network.address, network.length)
}

/// Whether a network lies in another.
fn covers(list: &str, network: RouteNet) -> bool {
    let Some((address, length)) = list.split_once('/') else {
        return false;
    };
    let (Ok(address), Ok(length)) = (address.parse(), length.parse()) else {
        return false;
    };
    let list = Address { address, length };
    length <= network.length() && list.reaches(network.address())
}

fn holds(found: &Found, network: &str) -> bool {
    let mut routes = found.routes.iter();
    routes.any(|route| route.ours && route.network == network)
}

fn recorded(before: &Entry) -> Vec<String> {
    let list = before.wanted["networks"].as_array().into_iter().flatten();
    list.filter_map(|network| network.as_str().map(str::to_owned))
        .collect()
}

fn plan(id: &str, wanted: &Wanted, found: Option<&Found>, before: Option<&Entry>) -> Planned {
    let mut planned = Planned::nothing(true);
    let Some(found) = found else {
        planned.notes.push(format!("there is no device {id} yet"));
        planned.step(forward(id, true, false));
        for network in wanted.networks() {
            planned.step(route(id, &network.to_string()));
        }
        return planned;
    };
    if !found.forwards || !found.strict {
        planned.differs("forward", found.forwards && found.strict, true);
        planned.step(forward(id, true, found.forwards));
    }
    let wanted: Vec<String> = wanted.networks().iter().map(ToString::to_string).collect();
    let is_v6 = |network: &String| network.contains(':');
    if wanted.iter().any(is_v6) && !found.forwards_v6 {
        planned.block(NO_IPV6);
    }
    for network in &wanted {
        if !holds(found, network) {
            planned.differs("networks", Value::Null, network.clone());
            planned.step(route(id, network));
        }
    }
    // Routes that the document never spoke of are somebody else's.
    for network in before.map(recorded).unwrap_or_default() {
        if !wanted.contains(&network) && holds(found, &network) {
            planned.differs("networks", network.clone(), Value::Null);
            planned.step(route_gone(id, &network).map(Step::releasing));
        }
    }
    planned
}

fn forward(id: &str, on: bool, before: bool) -> Result<Step, String> {
    let say = |on: bool| {
        if on {
            format!("What comes in by {id} is forwarded")
        } else {
            format!("What comes in by {id} is forwarded no more")
        }
    };
    let set = step(say(on), "link-set", &json!({"dev": id, "forward": on}))?;
    if on == before {
        return Ok(set.leaving_nothing());
    }
    let undo = json!({"dev": id, "forward": before});
    Ok(set.undone_by(step(say(before), "link-set", &undo)?))
}

fn route(id: &str, network: &str) -> Result<Step, String> {
    let params = json!({"dest": network, "dev": id});
    let undo = step(
        format!("take the route to {network} from {id}"),
        "route-del",
        &params,
    )?;
    let say = format!("{network} is reached by {id}");
    Ok(step(say, "route-set", &params)?.undone_by(undo))
}

fn route_gone(id: &str, network: &str) -> Result<Step, String> {
    let params = json!({"dest": network, "dev": id});
    let undo = step(
        format!("reach {network} by {id} again"),
        "route-set",
        &params,
    )?;
    let say = format!("{network} is no longer reached by {id}");
    Ok(step(say, "route-del", &params)?.undone_by(undo))
}

#[cfg(test)]
mod tests;
