//! What happens to a machine after its creation: start, stop, suspend, resume, destroy; commands inside the guest are in
//! `guest`. The commands and the garbage collector share these; each is idempotent.

mod error;
mod guest;

use blockhost_proto::Layout;
use blockhost_proto::qm::{QmError, QmOptions};
use blockhost_proto::value::{HostIpv6, Seconds, VmName};

use crate::create::World;
use crate::lock::MachineLock;
use crate::plan::snippet_name;
use crate::record::{Status, VmRecord};
use crate::store::{Store, StoreError};
use crate::terraform;
use crate::throttle::Change;
use crate::time::Time;
use crate::undo;

pub use error::LifecycleError;
pub use guest::{guest_exec, update_gecos};

/// How long a guest may take to power off before the plug is pulled.
const SHUTDOWN_S: u16 = 60;

type Result<T> = std::result::Result<T, LifecycleError>;

fn here(world: &World<'_>, record: &VmRecord) -> Result<()> {
    if world.config.is_here(record.node.as_deref()) {
        return Ok(());
    }
    if world.config.is_nobodys(record) {
        return Err(LifecycleError::Nobodys(record.vm_name.clone()));
    }
    Err(LifecycleError::Elsewhere {
        name: record.vm_name.clone(),
        node: record.node.clone().unwrap_or_default(),
        here: world.config.node(),
    })
}

fn living(world: &World<'_>, record: &VmRecord, needed: &'static str) -> Result<()> {
    here(world, record)?;
    if record.status == Status::Destroyed {
        return Err(StoreError::WrongStatus {
            name: record.vm_name.clone(),
            status: record.status,
            needed,
        }
        .into());
    }
    Ok(())
}

/// The lock on the record's machine, and the record as it is then. One of the same name that was made meanwhile is not it.
fn hold(world: &World<'_>, record: &VmRecord) -> Result<(MachineLock, VmRecord)> {
    here(world, record)?;
    let held = hold_of_this_host(world.layout, world.store, record)?;
    here(world, &held.1)?;
    Ok(held)
}

/// The same of a record that is known to be of this host's machine.
pub(crate) fn hold_of_this_host(
    layout: &Layout,
    store: &dyn Store,
    record: &VmRecord,
) -> Result<(MachineLock, VmRecord)> {
    let lock = MachineLock::take(layout, &record.vm_name)?;
    let current = store.get(&record.vm_name)?;
    if (current.vmid, current.created_at) != (record.vmid, record.created_at) {
        return Err(LifecycleError::Replaced(record.vm_name.clone()));
    }
    Ok((lock, current))
}

/// Insists that there is a machine behind the record.
///
/// # Errors
/// [`LifecycleError::Mock`], [`StoreError::WrongStatus`] for one that is destroyed.
pub fn real(world: &World<'_>, record: &VmRecord) -> Result<()> {
    living(world, record, "there is no machine")?;
    if record.mock {
        return Err(LifecycleError::Mock(record.vm_name.clone()));
    }
    Ok(())
}

/// The address that the host has a route to.
pub(crate) fn route_of(record: &VmRecord) -> Option<HostIpv6> {
    record
        .ipv6_address
        .and_then(|address| HostIpv6::try_from(address).ok())
}

/// Starts the machine; a running one is fine. A suspended one has to be resumed instead.
///
/// # Errors
/// [`LifecycleError`].
pub fn start(world: &World<'_>, record: &VmRecord) -> Result<()> {
    let (_lock, record) = hold(world, record)?;
    if record.status != Status::Active {
        let needed = "resume it with blockhost-vm-resume";
        return Err(StoreError::WrongStatus {
            name: record.vm_name,
            status: record.status,
            needed,
        }
        .into());
    }
    if record.mock {
        return Ok(());
    }
    start_with_route(world, &record)?;
    limit(world, &record)
}

/// The route first: the kernel forgets it with the host's end, or with the bridge.
fn start_with_route(world: &World<'_>, record: &VmRecord) -> Result<()> {
    if let Some(address) = route_of(record) {
        world
            .backend
            .route_add(address, &world.config.host.bridge)?;
    }
    Ok(world.backend.start(record.vmid)?)
}

/// Puts the limits of a machine that has just been started in force again.
fn limit(world: &World<'_>, record: &VmRecord) -> Result<()> {
    let Some(action) = record.throttle.action(record.vmid, false, true)? else {
        return Ok(());
    };
    world
        .backend
        .throttle(action)
        .map_err(|source| LifecycleError::Unlimited {
            name: record.vm_name.clone(),
            source,
        })
}

/// What became of a change of limits.
#[derive(Debug, Clone)]
pub struct Throttled {
    /// The record after it.
    pub record: VmRecord,
    /// True when the limits on the network wait for the machine's start.
    pub at_next_start: bool,
}

/// Changes the limits on what a machine may use: in force first, then recorded, so that the record never promises what the
/// backend refused. A crash in between is mended by the same call again.
///
/// # Errors
/// [`LifecycleError`].
pub fn throttle(world: &World<'_>, record: &VmRecord, change: &Change) -> Result<Throttled> {
    // What the caller read, and what is so by now: neither may be made up or destroyed.
    real(world, record)?;
    let (_lock, record) = hold(world, record)?;
    real(world, &record)?;
    let running = world
        .backend
        .status(record.vmid)?
        .is_some_and(|status| status != "stopped");
    if let Some(action) = change.named.action(record.vmid, change.reset, running)? {
        world.backend.throttle(action)?;
    }
    let record = world.store.set_throttle(&record.vm_name, change)?;
    Ok(Throttled {
        at_next_start: !running && change.named.limits_network(),
        record,
    })
}

/// Asks the guest to power off; pulls the plug when it does not. An absent machine is stopped.
///
/// # Errors
/// [`LifecycleError`].
pub fn stop(world: &World<'_>, record: &VmRecord) -> Result<()> {
    living(world, record, "there is nothing to stop")?;
    if record.mock
        || world
            .backend
            .status(record.vmid)?
            .is_none_or(|status| status == "stopped")
    {
        return Ok(());
    }
    match world
        .backend
        .shutdown(record.vmid, Seconds::try_from(SHUTDOWN_S)?)
    {
        Ok(()) => Ok(()),
        Err(_) => Ok(world.backend.stop(record.vmid)?),
    }
}

/// Pulls the plug.
///
/// # Errors
/// [`LifecycleError`].
pub fn kill(world: &World<'_>, record: &VmRecord) -> Result<()> {
    living(world, record, "there is nothing to stop")?;
    if record.mock {
        Ok(())
    } else {
        Ok(world.backend.stop(record.vmid)?)
    }
}

/// Stops the machine and its route and notes it: first phase of the garbage collector. One whose expiry changed since
/// `record` was read is left running, or brought back when it changed in the middle.
///
/// # Errors
/// [`LifecycleError`].
pub fn suspend(world: &World<'_>, record: &VmRecord, at: Time) -> Result<()> {
    let (_lock, current) = hold(world, record)?;
    if current.status == Status::Active && current.expires_at != record.expires_at {
        return Ok(());
    }
    stop(world, &current)?;
    if !current.mock {
        remove_route(world, &current)?;
    }
    let marked = world.store.mark_suspended(&current, at)?;
    if marked.status == Status::Active {
        // Paid for while it was being stopped; nobody else would start it again.
        return bring_back(world, &marked, None).map(drop);
    }
    // Last: an active machine never stays behind that would not come back with the host.
    start_with_host(world, &marked, false)
}

/// Stops a machine that runs though its record says that it is suspended, unless it is paid for: then its resumption is at
/// work, or waits for somebody to look. True when there was something to stop.
///
/// # Errors
/// [`LifecycleError`].
pub fn stop_suspended(world: &World<'_>, record: &VmRecord, now: Time) -> Result<bool> {
    let (_lock, record) = hold(world, record)?;
    if record.status != Status::Suspended || record.expires_at > now || record.mock {
        return Ok(false);
    }
    let runs = world.backend.status(record.vmid)?;
    if runs.is_none_or(|status| status == "stopped") {
        return Ok(false);
    }
    stop(world, &record)?;
    remove_route(world, &record)?;
    start_with_host(world, &record, false)?;
    Ok(true)
}

/// Whether the backend starts the machine with the host: Proxmox VE asks nobody else. One that is not there is fine.
fn start_with_host(world: &World<'_>, record: &VmRecord, onboot: bool) -> Result<()> {
    if record.mock {
        return Ok(());
    }
    match world
        .backend
        .configure(record.vmid, start_with_host_option(onboot)?)
    {
        Err(e) if !e.is_not_found() => Err(e.into()),
        _ => Ok(()),
    }
}

/// The option for it.
pub(crate) fn start_with_host_option(onboot: bool) -> std::result::Result<QmOptions, QmError> {
    let mut options = QmOptions::default();
    options.add("onboot", if onboot { "1" } else { "0" })?;
    Ok(options)
}

fn remove_route(world: &World<'_>, record: &VmRecord) -> Result<()> {
    let Some(address) = route_of(record) else {
        return Ok(());
    };
    match world.backend.route_del(address, &world.config.host.bridge) {
        Err(e) if !e.is_not_found() => Err(e.into()),
        _ => Ok(()),
    }
}

/// Makes a machine active again: started, with its route; with a later expiry when `extend_days` is given.
///
/// # Errors
/// [`LifecycleError`].
pub fn resume(world: &World<'_>, record: &VmRecord, extend_days: Option<u32>) -> Result<VmRecord> {
    let (_lock, record) = hold(world, record)?;
    bring_back(world, &record, extend_days)
}

fn bring_back(world: &World<'_>, record: &VmRecord, extend_days: Option<u32>) -> Result<VmRecord> {
    living(world, record, "it has to be created anew")?;
    start_with_host(world, record, true)?;
    if !record.mock {
        start_with_route(world, record)?;
    }
    let expires_at = extend_days.map(|days| record.expires_at.max(Time::now()).plus_days(days));
    let active = world.store.mark_active(&record.vm_name, expires_at)?;
    if !record.mock {
        // Last: it runs and is paid for, whatever becomes of its limits.
        limit(world, &active)?;
    }
    Ok(active)
}

/// What a destruction did, one sentence each.
pub type Done = Vec<String>;

/// Removes everything that belongs to a name: machine, disks, route, cloud-init file, addresses. The record stays as
/// history. Goes on after a failure, so that a second call has less to do; nothing of that name is fine.
///
/// # Errors
/// [`LifecycleError::Partly`] with everything that failed.
pub fn destroy(world: &World<'_>, name: &VmName) -> Result<Done> {
    let _lock = MachineLock::take(world.layout, name)?;
    destroy_held(world, name)
}

/// The same where the record as it is when nobody else is at the machine any more is `wanted` gone; `None` where it is not,
/// because it was paid for meanwhile, or where there is none.
///
/// # Errors
/// As [`destroy`].
pub fn destroy_if(
    world: &World<'_>,
    name: &VmName,
    wanted: impl Fn(&VmRecord) -> bool,
) -> Result<Option<Done>> {
    let _lock = MachineLock::take(world.layout, name)?;
    match world.store.get(name) {
        Ok(record) if wanted(&record) => destroy_held(world, name).map(Some),
        Ok(_) | Err(StoreError::UnknownVm { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn destroy_held(world: &World<'_>, name: &VmName) -> Result<Done> {
    let mut done = Vec::new();
    if let Some(left) = world
        .store
        .reservations()?
        .into_iter()
        .find(|r| r.name == *name)
    {
        if left.holder().is_alive() && left.pid != std::process::id() {
            return Err(LifecycleError::Busy {
                name: name.clone(),
                maker: left.maker(),
            });
        }
        let undone = undo::undo_abandoned(
            world.store,
            world.backend,
            world.config,
            &world.layout.snippets(),
            &left,
        )?;
        let Some(report) = undone else {
            // Somebody else took it up since we looked.
            return destroy_held(world, name);
        };
        done.extend(report.undone);
        if !report.failed.is_empty() {
            return Err(LifecycleError::Partly {
                name: name.clone(),
                problems: report.failed,
                agent_away: report.agent_away,
            });
        }
    }
    let record = match world.store.get(name) {
        Ok(record) if record.status != Status::Destroyed => record,
        Ok(_) => return Ok(done),
        Err(StoreError::UnknownVm { .. }) => return Ok(done),
        Err(e) => return Err(e.into()),
    };
    here(world, &record)?;
    let mut problems = Vec::new();
    let mut agent_away = false;
    if !record.mock {
        match destroy_machine(world, &record) {
            Ok(true) => done.push(format!("destroyed VM {}", record.vmid)),
            Ok(false) => done.push(format!("there was no VM {}", record.vmid)),
            Err(e) => {
                agent_away |= e.is_agent_away();
                problems.push(e.to_string());
            }
        }
        if let Err(e) = remove_route(world, &record) {
            agent_away |= e.is_agent_away();
            problems.push(e.to_string());
        }
    }
    let snippet = world.layout.snippets().join(snippet_name(name));
    match std::fs::remove_file(&snippet) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            problems.push(format!("{}: {e}", snippet.display()))
        }
        _ => {}
    }
    problems.extend(terraform::remove(world.config, name).err());
    if !problems.is_empty() {
        return Err(LifecycleError::Partly {
            name: name.clone(),
            problems,
            agent_away,
        });
    }
    world.store.mark_destroyed(name, Time::now())?;
    done.push("freed its addresses".into());
    Ok(done)
}

/// False when there was none.
fn destroy_machine(world: &World<'_>, record: &VmRecord) -> Result<bool> {
    let Some(config) = world.backend.config(record.vmid)? else {
        return Ok(false);
    };
    let found = config.get("name").cloned().unwrap_or_default();
    if found != record.vm_name.as_str() {
        return Err(LifecycleError::Foreign {
            name: record.vm_name.clone(),
            vmid: record.vmid.get(),
            found,
        });
    }
    world.backend.stop(record.vmid)?;
    match world.backend.destroy(record.vmid, false) {
        Err(e) if !e.is_not_found() => Err(e.into()),
        _ => Ok(true),
    }
}
