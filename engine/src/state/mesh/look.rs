//! What there is of the mesh: devices that forward, the routes and peers of tunnels, and what is hidden behind them.

use std::collections::BTreeMap;

use blockhost_netlink::route::{MAIN_TABLE, PROTOCOL};
use blockhost_netlink::{Address, Link};
use blockhost_proto::action::{MasqueradeList, WgShow};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{Metric, Text as _, WgName};

use super::{Found, FoundRoute, IPV6};
use crate::state::host::{Host, HostError, read};
use crate::state::kind::Scope;
use crate::state::wireguard::ALIAS;

/// Looks.
pub(super) fn look(
    host: &mut dyn Host,
    scope: Scope<'_>,
) -> Result<BTreeMap<String, Found>, HostError> {
    let links = host.links()?;
    let routes = host.routes()?;
    let (forwards_v6, loose) = (host.forwards_v6(), host.is_loose());
    let mut hidden = masquerades(host)?;
    let mut found = BTreeMap::new();
    if scope.holds(IPV6) {
        let about = Found {
            forwards: forwards_v6,
            ..Found::nothing(forwards_v6, loose)
        };
        found.insert(IPV6.to_owned(), about);
    }
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
            masquerade: hidden.remove(&link.name).unwrap_or_default(),
            forwards_v6,
            loose,
        };
        found.insert(link.name, about);
    }
    // Rules outlive their tunnel.
    for (name, masquerade) in hidden {
        if scope.holds(&name) && !found.contains_key(&name) {
            let about = Found {
                masquerade,
                ..Found::nothing(forwards_v6, loose)
            };
            found.insert(name, about);
        }
    }
    Ok(found)
}

impl Found {
    /// What there is of something without a device.
    pub(super) fn nothing(forwards_v6: bool, loose: bool) -> Self {
        Self {
            forwards: false,
            strict: false,
            addresses: Vec::new(),
            routes: Vec::new(),
            allowed: Vec::new(),
            masquerade: Vec::new(),
            forwards_v6,
            loose,
        }
    }
}

/// Networks that are hidden behind tunnels, by tunnel; those whose rule is not in effect are left out.
fn masquerades(host: &mut dyn Host) -> Result<BTreeMap<String, Vec<String>>, HostError> {
    let list = match read(host, MasqueradeList {}) {
        Ok(list) => list,
        // No iptables on this host, or none for us: whoever wants to hide something is told when it is set.
        Err(error) if matches!(error.code(), Some(ErrorCode::Failed | ErrorCode::Forbidden)) => {
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(error),
    };
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in list.as_array().into_iter().flatten() {
        if let (Some(dev), Some(network), true) = (
            one["dev"].as_str(),
            one["network"].as_str(),
            one["whole"] == true,
        ) {
            all.entry(dev.to_owned())
                .or_default()
                .push(network.to_owned());
        }
    }
    all.values_mut().for_each(|list| list.sort_unstable());
    Ok(all)
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
