//! A bridge of the switch, changed: options and addresses where it carries addresses of the host, or its flows. From steps that somebody else
//! planned to a plan that loses no route that could not be given back. Pure; called by [`super::Change`].

use std::net::IpAddr;

use blockhost_proto::Action;
use blockhost_proto::value::{BridgeOptions, InterfaceAddress, SwitchIfName, Text};
use serde_json::Value;

use super::plan::{Expect, ExpectLink, ExpectRoute, Plan, PlanError, Step, gateways};
use super::uplink::within;
use crate::network::observe::{Link, Observed, Route};

/// The kernel's number for routes that come and go with addresses.
const BY_ITSELF: u8 = 2;

/// A bridge, changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Reshape {
    /// The bridge.
    pub bridge: SwitchIfName,
    /// What it is about, for people.
    pub what: String,
    /// What is to be done, and what takes it back.
    pub steps: Vec<Step>,
}

/// The plan.
///
/// # Errors
/// [`PlanError`], also where a route would be lost with an address.
pub fn plan(observed: &Observed, change: &Reshape) -> Result<Plan, PlanError> {
    let parts = ["links", "routes", "switch"];
    let unseen =
        |problem: &&crate::network::observe::Problem| parts.contains(&problem.part.as_str());
    if let Some(problem) = observed.problems.iter().find(unseen) {
        return Err(PlanError::Unseen(problem.what.clone()));
    }
    let bridge = change.bridge.as_str();
    let own = observed
        .link(bridge)
        .ok_or_else(|| PlanError::NoDevice(bridge.to_owned()))?;
    let routes: Vec<&Route> = routes_of(observed, bridge).collect();
    let mut expect = Expect {
        routes: routes.iter().map(|route| stays(route, bridge)).collect(),
        ..Expect::default()
    };
    for step in &change.steps {
        let Some(addresses) = addresses_after(&step.forward.0, bridge) else {
            continue;
        };
        if let Some(lost) = routes.iter().find(|route| loses(route, own, &addresses)) {
            return Err(PlanError::LosesRoute {
                dev: bridge.to_owned(),
                destination: lost.destination.clone(),
            });
        }
        let gone = own.addresses.iter().filter(|address| {
            !addresses.contains(address) && InterfaceAddress::read(address).is_some()
        });
        expect.links = vec![ExpectLink {
            dev: bridge.to_owned(),
            mac: None,
            no_addresses: gone.cloned().collect(),
            addresses,
        }];
    }
    // Where nothing leads out of the host by this bridge, nobody outside can tell whether it works. Flows change no device: where
    // no gateway answers before, as after a start, they are set all the same, and are what it takes.
    let leads_out = gateways(observed).iter().any(|(_, dev)| dev == bridge);
    let actions = || change.steps.iter().map(|step| &step.forward.0);
    let of_flows = actions().any(is_of_flows)
        && actions().all(|action| is_of_flows(action) || is_fail_mode(action));
    let leads_out = leads_out && !of_flows;
    Ok(Plan {
        what: change.what.clone(),
        steps: change.steps.clone(),
        expect,
        devices: leads_out.then(|| bridge.to_owned()).into_iter().collect(),
        notes: Vec::new(),
    })
}

fn is_of_flows(action: &Action) -> bool {
    matches!(
        action,
        Action::OvsSetFlows(_) | Action::OvsSetMeter(_) | Action::OvsSetQos(_)
    )
}

/// What becomes of a bridge without flows, and nothing else of it.
fn is_fail_mode(action: &Action) -> bool {
    let Action::OvsAddBr(action) = action else {
        return false;
    };
    let others = BridgeOptions {
        fail_mode: None,
        ..action.options.clone()
    };
    others == BridgeOptions::default()
}

/// All that a step leaves on the bridge, where it is about that.
fn addresses_after(action: &Action, bridge: &str) -> Option<Vec<String>> {
    let Action::LinkSet(set) = action else {
        return None;
    };
    let params = action.params();
    let list = params["addresses"].as_array()?;
    let list = list.iter().filter_map(Value::as_str).map(str::to_owned);
    (set.dev.as_str() == bridge).then(|| list.collect())
}

/// Routes by this device that the kernel does not make by itself.
fn routes_of<'a>(observed: &'a Observed, dev: &'a str) -> impl Iterator<Item = &'a Route> {
    let by = move |route: &&Route| {
        route
            .hops
            .iter()
            .any(|hop| hop.link.as_deref() == Some(dev))
    };
    let all = observed.routes.iter().flatten();
    all.filter(by)
        .filter(|route| route.protocol != BY_ITSELF && !route.destination.starts_with("fe80::"))
}

fn stays(route: &Route, dev: &str) -> ExpectRoute {
    let hop = route
        .hops
        .iter()
        .find(|hop| hop.link.as_deref() == Some(dev));
    ExpectRoute {
        destination: route.destination.clone(),
        dev: dev.to_owned(),
        gateway: hop.and_then(|hop| hop.gateway),
        metric: route.metric,
        table: route.table,
    }
}

/// Whether the route may go with an address: where one of its family is taken away, it stays for sure only if its gateway is
/// in the network of one that was there before and is kept.
fn loses(route: &Route, own: &Link, after: &[String]) -> bool {
    let v4 = !route.destination.contains(':');
    let of_family = |text: &&String| text.contains(':') != v4;
    let of_link = |text: &&String| text.starts_with("fe80:");
    let before: Vec<&String> = own
        .addresses
        .iter()
        .filter(of_family)
        .filter(|text| !of_link(text))
        .collect();
    if before.iter().all(|address| after.contains(address)) {
        return false;
    }
    let kept = || before.iter().filter(|address| after.contains(address));
    let reaches = |address: &str, gateway: IpAddr| {
        InterfaceAddress::read(address)
            .is_some_and(|network| within(network.address(), network.length(), gateway))
    };
    !route.hops.iter().all(|hop| match hop.gateway {
        Some(gateway) => {
            gateway.is_ipv6() && is_of_the_link(gateway)
                || kept().any(|address| reaches(address, gateway))
        }
        None => kept().next().is_some(),
    })
}

fn is_of_the_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::confirm::plan::{Call, Undo};
    use crate::network::observe::Hop;
    use serde_json::json;

    fn route(destination: &str, gateway: Option<&str>, protocol: u8) -> Route {
        Route {
            destination: destination.to_owned(),
            hops: vec![Hop {
                link: Some("ovsbr0".to_owned()),
                gateway: gateway.map(|gateway| gateway.parse().expect("an address")),
            }],
            metric: 100,
            table: 254,
            protocol,
        }
    }

    fn host(routes: Vec<Route>) -> Observed {
        let link = json!({
            "index": 2, "name": "ovsbr0", "altnames": [], "kind": null, "alias": null, "mac": "02:00:00:00:00:01", "mtu": 1500,
            "up": true, "operstate": "up", "carrier": true, "master": null, "lower": null,
            "addresses": ["192.0.2.2/24", "10.0.0.1/24", "fd99::2/64", "fe80::1/64"],
            "counters": {"rx_packets": 0, "rx_bytes": 0, "rx_dropped": 0, "rx_errors": 0,
                "tx_packets": 0, "tx_bytes": 0, "tx_dropped": 0, "tx_errors": 0},
        });
        Observed {
            links: Some(vec![serde_json::from_value(link).expect("a link")]),
            routes: Some(routes),
            ..Observed::default()
        }
    }

    fn change(addresses: &[&str]) -> Reshape {
        let set = |addresses: &[&str]| {
            let params = json!({"dev": "ovsbr0", "addresses": addresses});
            Call(Action::from_parts("link-set", &params).expect("of the catalog"))
        };
        Reshape {
            bridge: "ovsbr0".parse().expect("a name"),
            what: "change ovsbr0".to_owned(),
            steps: vec![Step {
                requires: Vec::new(),
                forward: set(addresses),
                inverse: vec![Undo {
                    only_if: None,
                    call: set(&["192.0.2.2/24", "10.0.0.1/24", "fd99::2/64"]),
                }],
            }],
        }
    }

    #[test]
    fn an_address_whose_gateway_somebody_needs_is_not_taken_away_and_others_are() {
        let routes = || {
            vec![
                route("0.0.0.0/0", Some("192.0.2.1"), 4),
                route("192.0.2.0/24", None, BY_ITSELF),
                route("10.0.0.0/24", None, BY_ITSELF),
            ]
        };
        let good = plan(&host(routes()), &change(&["192.0.2.2/24", "fd99::2/64"])).expect("a plan");
        assert_eq!(good.devices, ["ovsbr0"], "the default gateway is at stake");
        assert_eq!(good.expect.routes.len(), 1, "the kernel's own come and go");
        assert_eq!(good.expect.links[0].no_addresses, ["10.0.0.1/24"]);
        for wrong in [
            &["10.0.0.1/24", "fd99::2/64"][..],
            &["fd99::2/64"],
            // Of the same network, but the kernel takes the route away before it sees that.
            &["192.0.2.3/24", "10.0.0.1/24", "fd99::2/64"],
        ] {
            let error = plan(&host(routes()), &change(wrong)).expect_err("the default route goes");
            assert!(matches!(error, PlanError::LosesRoute { .. }), "{error}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_no_reason_to_ask_a_gateway() {
        let quiet = plan(
            &host(vec![route("10.0.0.0/24", None, BY_ITSELF)]),
            &change(&["10.0.0.1/24"]),
        )
        .expect("a plan");
        assert!(quiet.devices.is_empty());
        // A route without a gateway goes with the last address of its family.
        let direct = || host(vec![route("10.9.0.0/16", None, 4)]);
        assert!(plan(&direct(), &change(&["10.0.0.1/24"])).is_ok());
        assert!(plan(&direct(), &change(&["fd99::2/64"])).is_err());
    }

    #[test]
    fn nobody_plans_on_half_of_a_picture() {
        let mut observed = host(Vec::new());
        observed.problems.push(crate::network::observe::Problem {
            part: "routes".to_owned(),
            what: "torn".to_owned(),
        });
        assert!(matches!(
            plan(&observed, &change(&[])),
            Err(PlanError::Unseen(_))
        ));
        assert!(matches!(
            plan(&Observed::default(), &change(&[])),
            Err(PlanError::NoDevice(_))
        ));
    }
}
