//! The mesh: bridges whose containers the host routes, tunnels that lead to others, and the networks behind them. The host
//! forwards the IPv4 packets that come in by these devices and by no others; of IPv6 all or none. Which addresses a device has is the section `net`'s, who is at a
//! tunnel's other end `wireguard`'s; the container's side is in [`super::lxc`].

mod look;

use std::collections::BTreeMap;

use blockhost_netlink::Address;
use blockhost_proto::value::{IfName, Param, RouteNet, RouteNets, Text, WgName};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::change::{Planned, ResourceRef, Step, step};
use super::fields::{Fields, Place, Wrong, wrong_value};
use super::host::{Host, HostError};
use super::kind::{Entry, Kind, Scope};

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
        /// Networks here of which packets leave by it as the host's: nobody there knows a way back to them.
        masquerade: RouteNets,
    },
    /// That the host forwards IPv6, which Linux decides for all devices at once.
    Ipv6,
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
    /// Networks of which packets leave by a tunnel as the host's.
    pub masquerade: Vec<String>,
    /// Whether this host forwards IPv6.
    pub forwards_v6: bool,
    /// Whether the host believes sources on all its devices that it should not.
    #[serde(skip)]
    pub loose: bool,
}

/// The mesh.
#[derive(Debug, Clone, Copy)]
pub struct Mesh;

/// What is missing for IPv6.
pub(super) const NO_IPV6: &str = "this host does not forward IPv6, which Linux decides for all devices at once: say `ipv6: true` in the section mesh";

/// The resource that stands for forwarding IPv6. No device can be called so.
const IPV6: &str = "ipv6:forwarding";

impl Wanted {
    fn name(&self) -> &str {
        match self {
            Self::Bridge(name) => name.as_str(),
            Self::Tunnel { name, .. } => name.as_str(),
            Self::Ipv6 => IPV6,
        }
    }

    fn networks(&self) -> &[RouteNet] {
        match self {
            Self::Bridge(_) | Self::Ipv6 => &[],
            Self::Tunnel { networks, .. } => networks,
        }
    }

    fn masquerade(&self) -> Vec<String> {
        match self {
            Self::Bridge(_) | Self::Ipv6 => Vec::new(),
            Self::Tunnel { masquerade, .. } => {
                masquerade.iter().map(|one| one.to_string()).collect()
            }
        }
    }

    /// Whether IPv6 packets go by it.
    fn is_of_ipv6(&self) -> bool {
        let masquerade = match self {
            Self::Tunnel { masquerade, .. } => Some(masquerade),
            _ => None,
        };
        let hidden = masquerade.into_iter().flat_map(RouteNets::iter);
        let mut all = self.networks().iter().copied().chain(hidden);
        all.any(|network| network.address().is_ipv6())
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
        let needed = all.values().find(|wanted| wanted.is_of_ipv6());
        match (section.get::<bool>("ipv6")?, needed.map(Wanted::name)) {
            (Some(false), Some(name)) => {
                let problem = format!("{name} has IPv6 networks, so IPv6 has to be forwarded");
                return Err(section.wrong("ipv6", problem));
            }
            (Some(true), _) | (None, Some(_)) => {
                all.insert(IPV6.to_owned(), Wanted::Ipv6);
            }
            (None | Some(false), None) => {}
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
        let masquerade = wanted.masquerade();
        if !masquerade.is_empty() {
            map.insert("masquerade".into(), masquerade.into());
        }
        map.into()
    }

    fn revive(&self, id: &str, shown: &Value) -> Option<Wanted> {
        if id == IPV6 {
            return Some(Wanted::Ipv6);
        }
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
        look::look(host, scope)
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
        if id == IPV6 {
            planned.differs("on", true, false);
            planned.step(ipv6(false));
            return planned;
        }
        if !found.masquerade.is_empty() {
            planned.differs("masquerade", found.masquerade.clone(), Value::Null);
            planned.step(masquerade(id, &[], &found.masquerade));
        }
        for network in recorded(before, "networks") {
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
        let mut needs = match wanted {
            Wanted::Bridge(_) => vec![ResourceRef::new("net", id)],
            Wanted::Tunnel { .. } => vec![ResourceRef::new("wireguard", id)],
            Wanted::Ipv6 => Vec::new(),
        };
        if wanted.is_of_ipv6() {
            needs.push(ResourceRef::new(Self::NAME, IPV6));
        }
        needs
    }

    fn is_there(&self, found: &Found) -> bool {
        let routed = || found.routes.iter().any(|route| route.ours);
        found.forwards || !found.masquerade.is_empty() || routed()
    }

    fn complaints(&self, wanted: &Wanted, found: &Found) -> Vec<String> {
        let name = wanted.name();
        let mut wrong = Vec::new();
        if wanted.is_of_ipv6() && !found.forwards_v6 {
            wrong.push(NO_IPV6.to_owned());
        }
        if found.addresses.is_empty() && *wanted != Wanted::Ipv6 {
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
        let bridge = matches!(wanted, Wanted::Bridge(_));
        (found.loose && bridge)
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
    let masquerade = fields.get("masquerade")?.unwrap_or_default();
    fields.finish()?;
    Ok(Wanted::Tunnel {
        name,
        networks,
        masquerade,
    })
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

/// An apply that was killed may have left what was there before it, and what it was at.
fn recorded(before: &Entry, key: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for known in before.may_be_there() {
        let list = known[key].as_array().into_iter().flatten();
        for network in list.filter_map(Value::as_str) {
            if !all.iter().any(|one| one == network) {
                all.push(network.to_owned());
            }
        }
    }
    all
}

fn plan(id: &str, wanted: &Wanted, found: Option<&Found>, before: Option<&Entry>) -> Planned {
    let mut planned = Planned::nothing(true);
    let mut hide = wanted.masquerade();
    hide.sort_unstable();
    let Some(found) = found else {
        planned.notes.push(format!("there is no device {id} yet"));
        planned.step(forward(id, true, false));
        if !hide.is_empty() {
            planned.step(masquerade(id, &hide, &[]));
        }
        for network in wanted.networks() {
            planned.step(route(id, &network.to_string()));
        }
        return planned;
    };
    if *wanted == Wanted::Ipv6 {
        // What was on before is somebody else's to switch off.
        planned.ours = !found.forwards || before.is_some();
        if !found.forwards {
            planned.differs("on", false, true);
            planned.step(ipv6(true));
        }
        return planned;
    }
    if !found.forwards || !found.strict {
        planned.differs("forward", found.forwards && found.strict, true);
        planned.step(forward(id, true, found.forwards));
    }
    // Before the first packet can leave. Nobody but the agent hides anything behind its tunnels, so the document says it all.
    if hide != found.masquerade {
        planned.differs("masquerade", found.masquerade.clone(), hide.clone());
        planned.step(masquerade(id, &hide, &found.masquerade));
    }
    let wanted: Vec<String> = wanted.networks().iter().map(ToString::to_string).collect();
    for network in &wanted {
        if !holds(found, network) {
            planned.differs("networks", Value::Null, network.clone());
            planned.step(route(id, network));
        }
    }
    // Routes that the document never spoke of are somebody else's.
    let before = before.map(|entry| recorded(entry, "networks"));
    for network in before.unwrap_or_default() {
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

fn ipv6(on: bool) -> Result<Step, String> {
    let say = |on: bool| match on {
        true => "This host forwards IPv6",
        false => "This host forwards IPv6 no more",
    };
    let switch = |on: bool| json!({"setting": "ipv6-forwarding", "on": on});
    let undo = step(say(!on), "sysctl-set", &switch(!on))?;
    Ok(step(say(on), "sysctl-set", &switch(on))?.undone_by(undo))
}

/// All that is hidden behind a tunnel's address from now on.
fn masquerade(id: &str, networks: &[String], before: &[String]) -> Result<Step, String> {
    let say = |networks: &[String]| match networks {
        [] => format!("Nothing leaves by {id} as this host any more"),
        _ => format!("{} leave by {id} as this host", networks.join(", ")),
    };
    let params = |networks: &[String]| json!({"dev": id, "networks": networks});
    let undo = step(say(before), "masquerade-set", &params(before))?;
    Ok(step(say(networks), "masquerade-set", &params(networks))?.undone_by(undo))
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
