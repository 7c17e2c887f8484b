//! Looks at the world, and carries a plan out. One machine that fails does not stop the others.

use std::collections::BTreeSet;

use blockhost_proto::escape;
use blockhost_proto::value::{HostIpv6, Vmid};
use blockhost_provisioner::backend::{BackendError, SwitchPort};
use blockhost_provisioner::create::World;
use blockhost_provisioner::record::{Status, VmRecord};
use blockhost_provisioner::store::StoreError;
use blockhost_provisioner::{lifecycle, undo};

use crate::plan::{Observed, Plan, Route, TooMany, Wishes, plan};
use crate::routes;

/// Why a run could not even begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The list of machines.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The kernel's routes.
    #[error("reading the kernel's routes: {0}")]
    Routes(std::io::Error),
    /// The guard.
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// What became of one thing in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `suspend`, `stop`, `destroy`, `free`, `route` or `port`.
    pub phase: &'static str,
    /// Machine or address.
    pub what: String,
    /// What was wrong, where something was.
    pub failure: Option<String>,
}

/// Looks at the world. The order matters: whatever has a route or a machine at the time of those looks is in the
/// database by the time it is read, because a create reserves before it acts.
///
/// # Errors
/// [`RunError`].
pub fn observe(world: &World<'_>, mock: bool) -> Result<Observed, RunError> {
    let routes = if mock { Vec::new() } else { own_routes(world)? };
    let (ports, containers) = if mock {
        (Vec::new(), None)
    } else {
        own_ports(world)?
    };
    let (machines, running) = if mock {
        (None, BTreeSet::new())
    } else {
        let (all, running) = own_machines(world)?;
        (Some(all), running)
    };
    let (records, reservations) = world.store.everything()?;
    let (in_the_making, abandoned) = reservations
        .into_iter()
        .filter(|r| r.mock == mock)
        .partition(|r| r.holder().is_alive());
    // Without an agent, real machines are out of reach, and their records must keep saying what is true of them.
    let records = records.into_iter().filter(|r| !mock || r.mock).collect();
    Ok(Observed {
        records,
        abandoned,
        in_the_making,
        machines,
        running,
        containers,
        routes,
        ports,
    })
}

type Ports = (Vec<SwitchPort>, Option<BTreeSet<Vmid>>);

/// Ports inside our range, and the containers that may have some of them. A host without a switch has none; one without
/// containers cannot say so, and then no port is judged.
fn own_ports(world: &World<'_>) -> Result<Ports, RunError> {
    if !world.layout.switch_sockets().join("db.sock").exists() {
        return Ok((Vec::new(), None));
    }
    let range = &world.config.db.vmids;
    let mut ports = world.backend.switch_ports()?;
    ports.retain(|port| range.contains(&port.vmid.get()));
    if ports.is_empty() {
        return Ok((ports, None));
    }
    let containers = world.backend.containers().ok();
    Ok((ports, containers.map(|list| list.into_iter().collect())))
}

fn own_routes(world: &World<'_>) -> Result<Vec<Route>, RunError> {
    let (Some(pool), Some(broker)) = (&world.config.db.ipv6_pool, &world.config.broker) else {
        return Ok(Vec::new());
    };
    let (Some(first), Some(last)) = (broker.prefix.at(pool.start), broker.prefix.at(pool.end))
    else {
        return Ok(Vec::new());
    };
    let table = match std::fs::read_to_string(routes::TABLE) {
        Ok(table) => table,
        // A kernel without IPv6 has no such routes.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(RunError::Routes(e)),
    };
    let bridge = world.config.host.bridge.to_string();
    let mut found = routes::host_routes(&table, |address| (first..=last).contains(&address));
    found.retain(|route| route.device == bridge);
    Ok(found)
}

/// All of our range, and those that are not off.
fn own_machines(world: &World<'_>) -> Result<(BTreeSet<Vmid>, BTreeSet<Vmid>), RunError> {
    let range = &world.config.db.vmids;
    let template = world.config.host.template_vmid;
    let mut all = world.backend.machines()?;
    all.retain(|machine| range.contains(&machine.vmid.get()) && machine.vmid != template);
    let running = all.iter().filter(|machine| machine.status != "stopped");
    let running = running.map(|machine| machine.vmid).collect();
    Ok((
        all.into_iter().map(|machine| machine.vmid).collect(),
        running,
    ))
}

/// Carries the plan out and tells `report` of each part. True when everything succeeded.
///
/// # Errors
/// [`RunError::TooMany`] before anything is touched.
pub fn execute(
    world: &World<'_>,
    decided: &Plan,
    wishes: &Wishes,
    mut report: impl FnMut(&Event),
) -> Result<bool, RunError> {
    if let Some(guard) = decided.too_many {
        return Err(guard.into());
    }
    let mut clean = true;
    let mut tell = |phase, what: String, result: Result<(), String>| {
        clean &= result.is_ok();
        let failure = result.err();
        report(&Event {
            phase,
            what,
            failure,
        });
    };
    for record in &decided.suspend {
        if world.interrupt.is_raised() {
            break;
        }
        if let Some(result) = suspend(world, record, wishes) {
            tell("suspend", record.vm_name.to_string(), result);
        }
    }
    for record in &decided.stop {
        if world.interrupt.is_raised() {
            break;
        }
        let stopped = lifecycle::stop_suspended(world, record, wishes.now);
        if let Some(result) = stopped
            .map_err(|e| e.to_string())
            .map(|done| done.then_some(()))
            .transpose()
        {
            tell("stop", record.vm_name.to_string(), result);
        }
    }
    for record in &decided.destroy {
        if world.interrupt.is_raised() {
            break;
        }
        if let Some(result) = destroy(world, record, wishes) {
            tell("destroy", record.vm_name.to_string(), result);
        }
    }
    for left in &decided.free {
        let undone = undo::undo_abandoned(
            world.store,
            world.backend,
            world.config,
            &world.layout.snippets(),
            left,
        );
        let result = match undone {
            // Its maker was started again since the plan was made.
            Ok(None) => continue,
            Ok(Some(report)) if report.is_clean() => Ok(()),
            Ok(Some(report)) => Err(report.failed.join("; ")),
            Err(e) => Err(e.to_string()),
        };
        tell("free", left.name.to_string(), result);
    }
    for route in &decided.routes {
        if let Some(result) = remove_route(world, route) {
            tell("route", route.address.to_string(), result);
        }
    }
    for port in &decided.ports {
        if let Some(result) = remove_port(world, port) {
            tell("port", format!("{}/{}", port.bridge, port.port), result);
        }
    }
    Ok(clean)
}

/// What is to become of one machine, by its record of now: it may have been extended or destroyed since the plan was
/// made, which then is not ours to undo.
fn decide(current: &VmRecord, wishes: &Wishes) -> Plan {
    let observed = Observed {
        records: vec![current.clone()],
        ..Observed::default()
    };
    plan(&observed, wishes)
}

fn suspend(world: &World<'_>, record: &VmRecord, wishes: &Wishes) -> Option<Result<(), String>> {
    let current = match world.store.get(&record.vm_name) {
        Ok(current) => current,
        Err(StoreError::UnknownVm { .. }) => return None,
        Err(e) => return Some(Err(e.to_string())),
    };
    let due = decide(&current, wishes).suspend.pop()?;
    Some(lifecycle::suspend(world, &due, wishes.now).map_err(|e| e.to_string()))
}

/// Decided while nobody else can resume it: between a look and the deed its owner may pay.
fn destroy(world: &World<'_>, record: &VmRecord, wishes: &Wishes) -> Option<Result<(), String>> {
    let due = |current: &VmRecord| !decide(current, wishes).destroy.is_empty();
    let done = lifecycle::destroy_if(world, &record.vm_name, due).map_err(|e| e.to_string());
    done.transpose().map(|done| done.map(drop))
}

fn remove_route(world: &World<'_>, route: &Route) -> Option<Result<(), String>> {
    // The address may have been given to a new machine since the plan was made.
    match in_use(world, route) {
        Ok(true) => return None,
        Ok(false) => {}
        Err(e) => return Some(Err(e.to_string())),
    }
    let address = match HostIpv6::try_from(route.address) {
        Ok(address) => address,
        Err(e) => return Some(Err(e.to_string())),
    };
    match world.backend.route_del(address, &world.config.host.bridge) {
        Err(e) if !e.is_not_found() => Some(Err(escape::shown(&e.to_string()))),
        _ => Some(Ok(())),
    }
}

fn remove_port(world: &World<'_>, port: &SwitchPort) -> Option<Result<(), String>> {
    // The number may have been given to a new machine since the plan was made.
    match number_in_use(world, port) {
        Ok(true) => return None,
        Ok(false) => {}
        Err(e) => return Some(Err(e.to_string())),
    }
    match world.backend.switch_port_del(port) {
        Err(e) if !e.is_not_found() => Some(Err(escape::shown(&e.to_string()))),
        _ => Some(Ok(())),
    }
}

fn number_in_use(world: &World<'_>, port: &SwitchPort) -> Result<bool, RunError> {
    let reserved = world
        .store
        .reservations()?
        .iter()
        .any(|r| r.vmid == port.vmid);
    let held = world
        .store
        .list(None)?
        .iter()
        .any(|r| r.status != Status::Destroyed && r.vmid == port.vmid);
    Ok(reserved || held || world.backend.containers()?.contains(&port.vmid))
}

fn in_use(world: &World<'_>, route: &Route) -> Result<bool, StoreError> {
    let reserved = world
        .store
        .reservations()?
        .iter()
        .any(|r| r.ipv6 == Some(route.address));
    let held = world
        .store
        .list(None)?
        .iter()
        .any(|r| r.status != Status::Destroyed && r.ipv6_address == Some(route.address));
    Ok(reserved || held)
}
