//! `link-handover`: everything that a device carries, given to another. At each moment every address and every route is on
//! one of the two devices at least: it is given before it is taken. That is why an interrupted move can be repeated, and why
//! a move that fails can be undone step by step.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use blockhost_netlink::carry::OwnAddress;
use blockhost_netlink::table::TableRoute;
use blockhost_netlink::{Address, Link, Netlink, NetlinkError};
use blockhost_proto::action::LinkHandover;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::IfName;
use rustix::io::Errno;
use serde_json::Map;

use super::devices::{self, BRIDGES, Devices, listed, named};
use crate::allow::Allowlists;
use crate::compartment::{Done, Failure, before_undo};
use crate::failpoint;

/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;

/// How often the lists are read again before a device that others change at the same time is given up.
const ROUNDS: usize = 4;

/// How long a switch in user space may take to come to terms with its device, and how often that is looked at. It takes its
/// device down and up again when it hears of a change, and with that go IPv6 addresses and all routes.
const SETTLE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// So many times in a row nothing may be missing.
const QUIET: usize = 3;

/// Something that was done, as it has to be undone.
enum Step {
    /// The hardware address that was there before.
    Hardware(Vec<u8>),
    Up,
    Given(OwnAddress),
    Routed(TableRoute),
    Unrouted(TableRoute),
    Taken(OwnAddress),
}

impl Step {
    const fn name(&self) -> &'static str {
        match self {
            Self::Hardware(_) => "hardware",
            Self::Up => "up",
            Self::Given(_) => "given",
            Self::Routed(_) => "routed",
            Self::Unrouted(_) => "unrouted",
            Self::Taken(_) => "taken",
        }
    }
}

/// Why a move ended before its end.
enum Stop {
    Kernel {
        what: String,
        error: NetlinkError,
    },
    /// The device still carries something, however often that was taken.
    Restless,
    /// The device loses what it is given.
    Unsettled,
    TooLate,
}

struct Move<'a> {
    netlink: &'a mut Netlink,
    from: Link,
    to: Link,
    keep: Vec<Address>,
    until: Instant,
    done: Vec<Step>,
    routes: usize,
}

/// What a device carries that is to be moved.
struct Load {
    addresses: Vec<OwnAddress>,
    routes: Vec<TableRoute>,
}

impl Devices {
    pub(super) fn hand_over(
        &self,
        action: &LinkHandover,
        allow: &Allowlists,
        deadline: Instant,
    ) -> Result<Done, Failure> {
        let mut netlink = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let from = end(&mut netlink, &action.from, allow)?;
        let to = end(&mut netlink, &action.to, allow)?;
        let keep = action.keep.iter().flat_map(|list| list.iter());
        let mut moving = Move {
            netlink: &mut netlink,
            from,
            to,
            keep: keep
                .map(|kept| Address {
                    address: kept.address(),
                    length: kept.length(),
                })
                .collect(),
            until: before_undo(deadline),
            done: Vec::new(),
            routes: 0,
        };
        moving.refuse_what_is_shared(action)?;
        if let Err(stop) = moving.run() {
            let left = moving.undo();
            return Err(stopped(action, &stop, &left));
        }
        let (routes, index) = (moving.routes, moving.to.index);
        let addresses = listed(&mut netlink, index)
            .map_err(|e| devices::failure(&action.to, "cannot be read back", &e))?;
        let output = format!(
            "{} carries what {} carried: {}; {routes} routes moved",
            action.to,
            action.from,
            addresses.join(", ")
        );
        let mut extra = Map::new();
        extra.insert("addresses".into(), addresses.into());
        extra.insert("routes".into(), routes.into());
        Ok(Done { output, extra })
    }
}

/// One end of a move: an uplink, or a bridge that is one.
fn end(netlink: &mut Netlink, dev: &IfName, allow: &Allowlists) -> Result<Link, Failure> {
    let link = named(netlink, dev)?;
    let port = netlink
        .port(link.index)
        .map_err(|error| devices::failure(dev, "could not be looked up", &error))?;
    if port.layer == ETHERNET && (is_bridge(&link) || allow.names_uplink(dev.as_str())) {
        return Ok(link);
    }
    let message = format!(
        "{dev} is neither an Ethernet uplink of the policy nor a bridge; it was left alone"
    );
    Err(Failure::new(ErrorCode::Conflict, message))
}

fn stopped(action: &LinkHandover, stop: &Stop, left: &[String]) -> Failure {
    let LinkHandover { from, to, .. } = action;
    let (code, why) = match stop {
        Stop::Kernel { what, error } => {
            let failure = devices::failure(to, what, error);
            (failure.code, failure.message)
        }
        Stop::Restless => (
            ErrorCode::Conflict,
            format!(
                "{from} gets addresses or routes again as often as they are taken; stop the program that manages it first"
            ),
        ),
        Stop::Unsettled => (
            ErrorCode::Conflict,
            format!(
                "the program behind {to} takes it down or changes its hardware address again and again; give the bridge the address of {from} (`hwaddr` of ovs-add-br) first"
            ),
        ),
        Stop::TooLate => (
            ErrorCode::Timeout,
            "there was no time left for all of it".to_owned(),
        ),
    };
    let undone = if left.is_empty() {
        format!("{from} has everything as before")
    } else {
        format!("not all could be undone: {}", left.join("; "))
    };
    Failure::new(
        code,
        format!("{from} was not handed over to {to}: {why}; {undone}"),
    )
}

impl Move<'_> {
    /// Before anything is touched: a route over several devices cannot be moved from one of them.
    fn refuse_what_is_shared(&mut self, action: &LinkHandover) -> Result<(), Failure> {
        let routes = self
            .netlink
            .table_routes(self.from.index)
            .map_err(|error| devices::failure(&action.from, "could not be looked at", &error))?;
        match routes.iter().find(|route| route.is_shared()) {
            None => Ok(()),
            Some(route) => {
                let message = format!(
                    "the route to {} goes out of several devices or through a next hop of its own; replace it by a plain one first",
                    route.shown()
                );
                Err(Failure::new(ErrorCode::Conflict, message))
            }
        }
    }

    fn run(&mut self) -> Result<(), Stop> {
        for _ in 0..ROUNDS {
            let load = self.load()?;
            self.give_for_good(&load)?;
            if load.addresses.is_empty() && load.routes.is_empty() {
                return Ok(());
            }
            self.take(&load)?;
        }
        Err(Stop::Restless)
    }

    /// Gives, and for a switch in user space looks whether it stays. Nothing was taken yet: whatever happens to the device
    /// meanwhile, or to this process, the other one has it.
    fn give_for_good(&mut self, load: &Load) -> Result<(), Stop> {
        let settles = self.to.kind.as_deref() == Some("tun");
        let until = Instant::now() + SETTLE;
        let mut quiet = 0;
        loop {
            let before = self.done.len();
            let given = self.take_hardware_address().and_then(|()| self.give(load));
            match given {
                Ok(()) if !settles => return Ok(()),
                Ok(()) if self.done.len() == before => quiet += 1,
                Ok(()) => quiet = 0,
                // In the moment in which it is down.
                Err(Stop::Kernel { .. }) if settles && Instant::now() < until => quiet = 0,
                Err(stop) => return Err(stop),
            }
            if quiet == QUIET {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(Stop::Unsettled);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn take_hardware_address(&mut self) -> Result<(), Stop> {
        let what = "did not get the hardware address";
        let (from, to) = (self.from.index, self.to.index);
        let wanted = kernel(what, self.netlink.port(from))?.hardware;
        let present = kernel(what, self.netlink.port(to))?.hardware;
        // The address is the uplink's: it is what the network behind it knows, whatever a bridge has come to have since.
        let adopts = is_bridge(&self.to) || !is_bridge(&self.from);
        // A bridge that was not told its address takes that of a port, and loses it with the port: it is told once.
        let told = self.to.kind.as_deref() != Some("bridge") || !self.done.is_empty();
        if adopts && is_a_devices(&wanted) && !(told && wanted == present) {
            kernel(what, self.netlink.set_hardware(to, &wanted))?;
            self.did(Step::Hardware(present))?;
        }
        let what = "did not come up";
        let present = kernel(what, self.netlink.link_by_index(to))?;
        if present.is_some_and(|link| !link.up) {
            kernel(what, self.netlink.link_up(to, None))?;
            self.did(Step::Up)?;
        }
        Ok(())
    }

    /// What `from` carries that is to go.
    fn load(&mut self) -> Result<Load, Stop> {
        let index = self.from.index;
        let own = kernel("cannot be prepared", self.netlink.own_addresses(index))?;
        let addresses: Vec<OwnAddress> = own
            .into_iter()
            .filter(|own| !own.is_automatic() && !self.keep.contains(&own.address))
            .collect();
        let routes = kernel("cannot be prepared", self.netlink.table_routes(index))?;
        let stays = |route: &TableRoute| {
            route.is_of_the_link()
                || route.leads_to().is_some_and(|to| {
                    self.keep.iter().any(|kept| kept.reaches(to))
                        && !addresses.iter().any(|own| own.address.reaches(to))
                })
        };
        let routes = routes.into_iter().filter(|route| !stays(route)).collect();
        Ok(Load { addresses, routes })
    }

    fn give(&mut self, load: &Load) -> Result<(), Stop> {
        let to = self.to.index;
        let what = "cannot be looked at";
        let present = kernel(what, self.netlink.own_addresses(to))?;
        // The kernel puts a new IPv6 address before the others and a new IPv4 one behind them.
        let (v6, v4): (Vec<_>, Vec<_>) = load
            .addresses
            .iter()
            .partition(|own| own.address.address.is_ipv6());
        for own in v4.into_iter().chain(v6.into_iter().rev()) {
            if present.iter().any(|other| other.address == own.address) {
                continue;
            }
            let names = (self.from.name.as_str(), self.to.name.as_str());
            let given = self.netlink.give_address(own, to, names);
            kernel(&format!("did not get {}", own.address.address), given)?;
            self.did(Step::Given(own.clone()))?;
        }
        let present = kernel(what, self.netlink.table_routes(to))?;
        for route in &load.routes {
            if present.iter().any(|other| other.is_like(route)) {
                continue;
            }
            match self.netlink.give_route(route, to) {
                Err(error) if error.refusal() == Some(Errno::EXIST) => continue,
                given => kernel(
                    &format!("did not get the route to {}", route.shown()),
                    given,
                )?,
            }
            self.did(Step::Routed(route.clone()))?;
        }
        Ok(())
    }

    /// Routes first: with its last IPv4 address a device loses all of them.
    fn take(&mut self, load: &Load) -> Result<(), Stop> {
        let from = self.from.index;
        for route in load.routes.iter().rev() {
            match self.netlink.take_route(route, from) {
                // It went with another one.
                Err(error) if error.refusal() == Some(Errno::SRCH) => continue,
                taken => kernel(&format!("has the route to {} twice", route.shown()), taken)?,
            }
            self.routes += 1;
            self.did(Step::Unrouted(route.clone()))?;
        }
        // The last first: secondary addresses would go with the first of their network.
        for own in load.addresses.iter().rev() {
            match self.netlink.take_address(own, from) {
                Err(error) if error.refusal() == Some(Errno::ADDRNOTAVAIL) => continue,
                taken => kernel(&format!("has {} twice", own.address.address), taken)?,
            }
            self.did(Step::Taken(own.clone()))?;
        }
        Ok(())
    }

    fn did(&mut self, step: Step) -> Result<(), Stop> {
        failpoint::reach("net-handover", step.name().as_bytes());
        self.done.push(step);
        if Instant::now() < self.until {
            Ok(())
        } else {
            Err(Stop::TooLate)
        }
    }

    /// Takes back what was done, the last first; what that did not succeed for, in words.
    fn undo(&mut self) -> Vec<String> {
        let (from, to) = (self.from.index, self.to.index);
        let own_name = (self.from.name.as_str(), self.from.name.as_str());
        let mut left = Vec::new();
        while let Some(step) = self.done.pop() {
            let result = match &step {
                Step::Hardware(before) => self.netlink.set_hardware(to, before),
                Step::Up => self.netlink.link_down(to),
                Step::Given(own) => self.netlink.take_address(own, to),
                Step::Routed(route) => self.netlink.take_route(route, to),
                Step::Unrouted(route) => self.netlink.give_route(route, from),
                Step::Taken(own) => self.netlink.give_address(own, from, own_name),
            };
            match result {
                Ok(()) => {}
                // Came or went by itself with another step.
                Err(error)
                    if matches!(
                        error.refusal(),
                        Some(Errno::EXIST | Errno::SRCH | Errno::ADDRNOTAVAIL)
                    ) => {}
                Err(error) => left.push(format!("{}: {error}", step.shown())),
            }
        }
        left
    }
}

impl Step {
    fn shown(&self) -> String {
        match self {
            Self::Hardware(_) | Self::Up => self.name().to_owned(),
            Self::Given(own) | Self::Taken(own) => own.address.address.to_string(),
            Self::Routed(route) | Self::Unrouted(route) => format!("route to {}", route.shown()),
        }
    }
}

fn is_bridge(link: &Link) -> bool {
    link.kind.as_deref().is_some_and(|k| BRIDGES.contains(&k))
}

/// The address of one device: not of a group, and not that of a bridge without ports.
fn is_a_devices(hardware: &[u8]) -> bool {
    let group = hardware.first().is_none_or(|first| first & 1 == 1);
    hardware.len() == 6 && !group && hardware.iter().any(|byte| *byte != 0)
}

fn kernel<T>(what: &str, result: Result<T, NetlinkError>) -> Result<T, Stop> {
    result.map_err(|error| Stop::Kernel {
        what: what.to_owned(),
        error,
    })
}
