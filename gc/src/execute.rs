//! Looking and doing: no decisions here. One machine that fails does not stop the others.

use std::net::Ipv6Addr;

use blockhost_proto::value::HostIpv6;
use blockhost_provisioner::backend::{Backend, BackendError};
use blockhost_provisioner::create::World;
use blockhost_provisioner::lifecycle;
use blockhost_provisioner::record::{Reservation, Status};
use blockhost_provisioner::store::{Store, StoreError};
use blockhost_provisioner::time::Time;
use blockhost_provisioner::undo;

use crate::plan::{Observed, Plan};

/// Looking failed: nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root agent or the backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Reads the database, and asks the backend where `backend` is given. `routes` are the kernel's, read before.
///
/// # Errors
/// [`ObserveError`].
pub fn observe(
    store: &dyn Store,
    backend: Option<&dyn Backend>,
    routes: Vec<Ipv6Addr>,
) -> Result<Observed, ObserveError> {
    // Machines first: one that is registered in between is then missing rather than unknown, and the next run is right.
    let machines = backend.map(Backend::machines).transpose()?;
    let (live_reservations, dead_reservations) = store
        .reservations()?
        .into_iter()
        .partition(|r| r.holder().is_alive());
    Ok(Observed {
        records: store.list(None)?,
        routes,
        dead_reservations,
        live_reservations,
        machines,
    })
}

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Names suspended.
    pub suspended: Vec<String>,
    /// Names destroyed.
    pub destroyed: Vec<String>,
    /// Names whose leftovers were freed.
    pub freed: Vec<String>,
    /// Name and reason of everything that failed.
    pub failed: Vec<(String, String)>,
}

/// Carries the plan out. Each record is read again before it is touched: it may have been paid for meanwhile.
pub fn execute(world: &World<'_>, plan: &Plan, now: Time, mock: bool) -> Outcome {
    let mut outcome = Outcome::default();
    for vm in &plan.suspend {
        let name = vm.vm_name.to_string();
        match world.store.get(&vm.vm_name) {
            Ok(record) if record.status == Status::Active && record.expires_at <= now => {
                let record = blockhost_provisioner::record::VmRecord {
                    mock: record.mock || mock,
                    ..record
                };
                match lifecycle::suspend(world, &record, now) {
                    Ok(()) => outcome.suspended.push(name),
                    Err(e) => outcome.failed.push((name, format!("suspend: {e}"))),
                }
            }
            Ok(_) => {}
            Err(e) => outcome.failed.push((name, format!("suspend: {e}"))),
        }
    }
    for vm in &plan.destroy {
        let name = vm.vm_name.to_string();
        match world.store.get(&vm.vm_name) {
            Ok(record) if record.status == Status::Suspended => {
                let result = if mock {
                    world
                        .store
                        .mark_destroyed(&vm.vm_name, now)
                        .map(drop)
                        .map_err(Into::into)
                } else {
                    lifecycle::destroy(world, &vm.vm_name).map(drop)
                };
                match result {
                    Ok(()) => outcome.destroyed.push(name),
                    Err(e) => outcome.failed.push((name, format!("destroy: {e}"))),
                }
            }
            Ok(_) => {}
            Err(e) => outcome.failed.push((name, format!("destroy: {e}"))),
        }
    }
    for reservation in &plan.free {
        free(world, reservation, mock, &mut outcome);
    }
    for address in &plan.stray_routes {
        remove_route(world, *address, &mut outcome);
    }
    outcome
}

fn remove_route(world: &World<'_>, address: Ipv6Addr, outcome: &mut Outcome) {
    // A machine in the making may have got the address since the plan was made.
    let taken = |r: &Reservation| r.ipv6 == Some(address);
    if world
        .store
        .reservations()
        .is_ok_and(|list| list.iter().any(taken))
    {
        return;
    }
    let name = format!("route {address}");
    let Ok(host) = HostIpv6::try_from(address) else {
        return;
    };
    match world.backend.route_del(host, &world.config.host.bridge) {
        Ok(()) => outcome.freed.push(name),
        Err(e) if e.is_not_found() => {}
        Err(e) => outcome.failed.push((name, e.to_string())),
    }
}

fn free(world: &World<'_>, reservation: &Reservation, mock: bool, outcome: &mut Outcome) {
    let name = reservation.name.to_string();
    // A new create of that name may have taken over: then there is another reservation, or none.
    match world.store.reservations() {
        Ok(list) if list.contains(reservation) => {}
        Ok(_) => return,
        Err(e) => return outcome.failed.push((name, format!("free: {e}"))),
    }
    let backend = (!reservation.mock && !mock).then_some(world.backend);
    let report = undo::undo(
        world.store,
        backend,
        world.config,
        &world.layout.snippets(),
        reservation,
    );
    if report.is_clean() {
        outcome.freed.push(name);
    } else {
        outcome
            .failed
            .push((name, format!("free: {}", report.failed.join("; "))));
    }
}
