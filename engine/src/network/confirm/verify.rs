//! The four levels that a change is judged on: what the switch says, what the kernel and NetworkManager say, what can be
//! reached, what the ledger has. Comparing is pure; looking is elsewhere (`observe`, [`super::probe`]).

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::reader::{ReadError, Reader};
use blockhost_proto::layout::Layout;
use blockhost_proto::response::Receipt;
use serde::Serialize;
use serde_json::Value;

use super::plan::{Condition, Expect, ExpectLink};
use crate::network::observe::{Link, NetworkManager, Observed};

/// NetworkManager's number for a device that works.
const ACTIVATED: u32 = 100;

/// What is wrong on each level; nothing is good.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Levels {
    /// Bridges and ports.
    pub switch: Vec<String>,
    /// Devices, addresses, routes, NetworkManager.
    pub links: Vec<String>,
    /// Gateways and probes.
    pub reachability: Vec<String>,
    /// Receipts.
    pub ledger: Vec<String>,
}

impl Levels {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn are_good(&self) -> bool {
        self.all().next().is_none()
    }

    /// Everything that is wrong, with its level.
    pub fn all(&self) -> impl Iterator<Item = String> + '_ {
        [
            ("switch", &self.switch),
            ("links", &self.links),
            ("reachability", &self.reachability),
            ("ledger", &self.ledger),
        ]
        .into_iter()
        .flat_map(|(level, list)| list.iter().map(move |what| format!("{level}: {what}")))
    }
}

/// The first level: what the switch says of the ports.
#[must_use]
pub fn switch(expect: &Expect, observed: &Observed) -> Vec<String> {
    let mut wrong = unread(observed, &["switch"]);
    let find = |name: &str| observed.switch.as_ref().and_then(|s| s.port(name));
    if observed.switch.is_none() && !(expect.ports.is_empty() && expect.no_ports.is_empty()) {
        wrong.push("the switch does not answer".to_owned());
        return wrong;
    }
    for (bridge, name) in &expect.ports {
        match find(name) {
            None => wrong.push(format!("there is no port {name}")),
            Some((on, _)) if on.name != *bridge => {
                wrong.push(format!("port {name} is on {}, not on {bridge}", on.name));
            }
            Some((on, port)) => {
                if let Some(error) = on.error.as_ref().or(port.error.as_ref()) {
                    wrong.push(format!("port {name}: {error}"));
                } else if port.ofport.is_none_or(|number| number < 1) {
                    wrong.push(format!("port {name} has no number on {bridge}"));
                }
            }
        }
    }
    for name in &expect.no_ports {
        if let Some((on, _)) = find(name) {
            wrong.push(format!("port {name} is still on {}", on.name));
        }
    }
    wrong
}

/// The second level: what the kernel says of devices and routes.
#[must_use]
pub fn links(expect: &Expect, observed: &Observed) -> Vec<String> {
    let mut wrong = unread(observed, &["links", "routes"]);
    for wanted in &expect.links {
        match observed.link(&wanted.dev) {
            None => wrong.push(format!("there is no device {}", wanted.dev)),
            Some(link) => wrong.extend(link_differs(wanted, link)),
        }
    }
    for wanted in &expect.routes {
        let there = observed.routes.iter().flatten().any(|route| {
            route.destination == wanted.destination
                && route.metric == wanted.metric
                && route.table == wanted.table
                && route.hops.iter().any(|hop| {
                    hop.link.as_deref() == Some(&*wanted.dev) && hop.gateway == wanted.gateway
                })
        });
        if !there {
            wrong.push(format!(
                "there is no route to {} through {}",
                wanted.destination, wanted.dev
            ));
        }
    }
    wrong
}

fn link_differs(wanted: &ExpectLink, link: &Link) -> Vec<String> {
    let dev = &wanted.dev;
    let mut wrong = Vec::new();
    if !link.up {
        wrong.push(format!("{dev} is down"));
    }
    if wanted.mac.is_some() && wanted.mac != link.mac {
        let found = link.mac.as_deref().unwrap_or("none");
        let mac = wanted.mac.as_deref().unwrap_or("none");
        wrong.push(format!(
            "{dev} has the hardware address {found} and not {mac}"
        ));
    }
    for address in &wanted.addresses {
        if !link.addresses.contains(address) {
            wrong.push(format!("{dev} has no address {address}"));
        }
    }
    for address in &wanted.no_addresses {
        if link.addresses.contains(address) {
            wrong.push(format!("{dev} still has the address {address}"));
        }
    }
    wrong
}

/// The second level, where NetworkManager runs: a device that worked for it works still.
#[must_use]
pub fn manager(
    devices: &[String],
    before: Option<&NetworkManager>,
    after: &Observed,
) -> Vec<String> {
    let mut wrong = unread(after, &["network_manager"]);
    let Some(before) = before else {
        return wrong;
    };
    let Some(now) = after.network_manager.as_ref() else {
        if wrong.is_empty() {
            wrong.push("NetworkManager is gone".to_owned());
        }
        return wrong;
    };
    let state = |of: &NetworkManager, dev: &str| {
        let device = of.device_list.iter().find(|d| d.interface == dev);
        device.map(|device| device.state)
    };
    for dev in devices {
        let (was, is) = (state(before, dev), state(now, dev));
        if was == Some(ACTIVATED) && is != was {
            let is = is.map_or_else(|| "gone".to_owned(), |state| format!("in state {state}"));
            wrong.push(format!("{dev} was active for NetworkManager and is {is}"));
        }
    }
    wrong
}

fn unread(observed: &Observed, parts: &[&str]) -> Vec<String> {
    let of_these = |part: &str| parts.contains(&part);
    let problems = observed.problems.iter();
    problems
        .filter(|problem| of_these(&problem.part))
        .map(|problem| problem.what.clone())
        .collect()
}

/// Whether something is so on these devices.
#[must_use]
pub fn holds(condition: &Condition, links: &[Link]) -> bool {
    let find = |dev: &str| links.iter().find(|link| link.is_called(dev));
    match condition {
        Condition::Hardware { dev, mac } => {
            find(dev).is_some_and(|link| link.mac.as_ref() == Some(mac))
        }
        Condition::Carries {
            dev,
            mac,
            addresses,
        } => find(dev).is_some_and(|link| {
            (mac.is_some() && link.mac == *mac)
                || addresses
                    .iter()
                    .any(|wanted| link.addresses.contains(wanted))
        }),
    }
}

/// The fourth level: each receipt names the record of an outcome, of that action, with that hash, in a ledger that is
/// consistent.
#[must_use]
pub fn ledger(layout: &Layout, receipts: &[(String, Option<Receipt>)]) -> Vec<String> {
    let opened = LedgerDir::open(&layout.ledger())
        .map_err(ReadError::from)
        .and_then(|directory| Reader::open(directory, None));
    let reader = match opened {
        Ok(reader) => reader,
        Err(error) => return vec![error.to_string()],
    };
    let mut wrong = Vec::new();
    for (action, receipt) in receipts {
        match receipt {
            None => wrong.push(format!("{action} was answered without a receipt")),
            Some(receipt) => {
                if let Err(why) = proved(&reader, action, receipt) {
                    wrong.push(format!("{action}, receipt {}: {why}", receipt.index));
                }
            }
        }
    }
    wrong
}

fn proved(reader: &Reader, action: &str, receipt: &Receipt) -> Result<(), String> {
    let of = |error: ReadError| error.to_string();
    let leaf = reader
        .leaf(receipt.index)
        .ok_or("there is no such record yet")?;
    if blockhost_ledger::merkle::hex(&leaf) != receipt.leaf {
        return Err("the record there is another one".to_owned());
    }
    let record: Value = serde_json::from_slice(&reader.get(receipt.index).map_err(of)?)
        .map_err(|e| e.to_string())?;
    if record["phase"] != "outcome" || record["action"] != action {
        return Err("the record there is not its outcome".to_owned());
    }
    reader.prove(receipt.index, false).map(drop).map_err(of)
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
