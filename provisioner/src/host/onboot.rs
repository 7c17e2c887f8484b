//! What starts with the host: machines and containers of the embedded backend with `onboot: 1`, in the order of their
//! numbers, which both share. Proxmox VE does this itself. Either way the kernel gets the host route of each sold machine
//! again and each its limits, which nothing keeps when its host stops. `blockhost-vm-onboot` calls this, its unit calls that.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use blockhost_proto::Layout;
use blockhost_proto::action::{Ip6RouteAdd, QmSet, QmStatus};
use blockhost_proto::value::{IfName, Seconds, Vmid};
use serde_json::Value;

use super::{Guest, Kind, answered, ask, foreign_backend, rows};
use crate::agent::Agent;
use crate::backend::BackendError;
use crate::config::Config;
use crate::lifecycle::{LifecycleError, hold_of_this_host, route_of, start_with_host_option};
use crate::lock::MachineLock;
use crate::record::{Status, VmRecord};
use crate::store::{self, StoreError};
use crate::time::Time;

/// In what failed: what nobody knew, and so nothing was done about.
const UNKNOWN: [&str; 3] = [
    "the machines' routes and limits",
    "the list of VMs",
    "the list of CTs",
];

/// How long a guest may take to power off.
const SHUTDOWN_S: u16 = 30;

/// A machine that nobody else changes while this is held, and its record since then.
#[derive(Debug)]
pub struct Held {
    /// What nobody changes either.
    pub record: VmRecord,
    /// `None` where nobody else is.
    pub lock: Option<MachineLock>,
}

/// The database of the machines, asked about one again: a start of a host takes its time, and meanwhile some are paid for,
/// suspended or destroyed.
pub trait Now: std::fmt::Debug {
    /// The right to a machine. `None` when it was destroyed or made anew since the record was read: then it is whoever did that
    /// who starts it or not.
    ///
    /// # Errors
    /// [`LifecycleError`].
    fn hold(&self, record: &VmRecord) -> Result<Option<Held>, LifecycleError>;
}

/// The database of the configuration, opened anew for each: a connection to a server would idle while machines start. A server
/// that is away once is away for the whole pass, or each machine would wait for it.
#[derive(Debug)]
pub struct Database<'a> {
    layout: &'a Layout,
    config: &'a Config,
    away: RefCell<Option<(String, String)>>,
}

impl<'a> Database<'a> {
    /// With the locks of this host.
    #[must_use]
    pub fn new(layout: &'a Layout, config: &'a Config) -> Self {
        Self {
            layout,
            config,
            away: RefCell::default(),
        }
    }

    fn current(&self, record: &VmRecord) -> Result<Option<Held>, LifecycleError> {
        let store = store::open(self.config)?;
        let (lock, record) = hold_of_this_host(self.layout, &*store, record)?;
        let here =
            record.status != Status::Destroyed && self.config.is_here(record.node.as_deref());
        let lock = Some(lock);
        Ok(here.then_some(Held { record, lock }))
    }
}

impl Now for Database<'_> {
    fn hold(&self, record: &VmRecord) -> Result<Option<Held>, LifecycleError> {
        if let Some((server, problem)) = self.away.borrow().clone() {
            return Err(StoreError::Server { server, problem }.into());
        }
        match self.current(record) {
            Err(
                LifecycleError::Replaced(_) | LifecycleError::Store(StoreError::UnknownVm { .. }),
            ) => Ok(None),
            Err(LifecycleError::Store(StoreError::Server { server, problem })) => {
                let away = (server.clone(), problem.clone());
                self.away.replace(Some(away));
                Err(StoreError::Server { server, problem }.into())
            }
            other => other,
        }
    }
}

/// What is known of the machines that this host has sold.
#[derive(Debug, Clone, Copy)]
pub enum Sold<'a> {
    /// There are none: the host sells nothing.
    Nothing,
    /// All of them.
    Known {
        /// Records of this host, whatever their status.
        records: &'a [VmRecord],
        /// The bridge of the machines.
        bridge: &'a IfName,
        /// What becomes of them meanwhile.
        now: &'a dyn Now,
    },
    /// The database does not say: a machine with such a number may be one that is suspended.
    Unknown {
        /// The numbers that are given to what is sold.
        vmids: &'a RangeInclusive<u32>,
        /// Why it does not.
        why: &'a str,
    },
}

impl Sold<'_> {
    fn records(&self) -> &[VmRecord] {
        match self {
            Self::Known { records, .. } => records,
            Self::Nothing | Self::Unknown { .. } => &[],
        }
    }

    /// The right to a machine of which there is a record. One that is gone is said.
    fn hold(
        &self,
        record: &VmRecord,
        say: &mut dyn FnMut(&str),
    ) -> Result<Option<Held>, LifecycleError> {
        let held = match self {
            Self::Known { now, .. } => now.hold(record)?,
            Self::Nothing | Self::Unknown { .. } => None,
        };
        if held.is_none() {
            say(&format!(
                "VM {} was destroyed or made anew meanwhile",
                record.vmid
            ));
        }
        Ok(held)
    }

    /// Whether nobody knows if it is to run. Containers are not sold.
    fn may_be_suspended(&self, guest: Guest) -> bool {
        match self {
            Self::Unknown { vmids, .. } => {
                guest.kind == Kind::Machine && vmids.contains(&guest.vmid.get())
            }
            Self::Nothing | Self::Known { .. } => false,
        }
    }
}

/// What one pass is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tries(Option<BTreeSet<String>>);

impl Tries {
    /// Everything, as when the host has started.
    pub const ALL: Self = Self(None);

    /// Only what failed in the pass before, in the words of [`start_all`], and what was not known then: what succeeded may have
    /// been stopped since, by who had a reason.
    #[must_use]
    pub fn again(failed: impl IntoIterator<Item = String>) -> Self {
        Self(Some(failed.into_iter().collect()))
    }

    fn holds(&self, what: &str, unknown: &str) -> bool {
        let failed = |failed: &BTreeSet<String>| failed.contains(what) || failed.contains(unknown);
        self.0.as_ref().is_none_or(failed)
    }

    fn starts(&self, guest: Guest) -> bool {
        self.holds(&guest.to_string(), list_of(guest.kind))
    }

    fn limits(&self, record: &VmRecord) -> bool {
        self.holds(&limits_of(record), UNKNOWN[0])
    }
}

/// Starts all that is to run, with its host route, and limits it as its record says. One that cannot be reached, started or
/// limited keeps no other from it; what failed is returned, everything is said. What is suspended in the database stays off,
/// and what may be it when the database does not answer.
///
/// # Errors
/// When the agent does not say what backend it has.
pub fn start_all(
    agent: &impl Agent,
    sold: Sold<'_>,
    tries: &Tries,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<String>, BackendError> {
    let foreign = foreign_backend(agent)?;
    let records = sold.records();
    // Before the machines: a guest that is up and cannot be reached is down for its owner.
    let mut failed = match sold {
        Sold::Nothing => Vec::new(),
        Sold::Known {
            records, bridge, ..
        } => set_routes(agent, records, bridge, tries, say),
        Sold::Unknown { why, .. } => {
            say(&format!("what is sold is not known: {why}"));
            vec![UNKNOWN[0].to_owned()]
        }
    };
    if let Some(other) = &foreign {
        say(&format!("{other} starts its own"));
    }
    failed.extend(stop_suspended(agent, sold, tries, say));
    if foreign.is_some() {
        failed.extend(limit_running(agent, sold, tries, say));
        return Ok(failed);
    }
    let mut all = Vec::new();
    for kind in Kind::ALL {
        match rows(agent, kind) {
            Ok(list) => all.extend(list.into_iter().map(|row| Guest {
                vmid: row.vmid,
                kind,
            })),
            Err(e) => failed.push(complained(list_of(kind).to_owned(), &e, say)),
        }
    }
    all.sort_unstable();
    for guest in all {
        // Containers are not sold.
        let is_its =
            |record: &&VmRecord| record.vmid == guest.vmid && record.status != Status::Destroyed;
        let record = (guest.kind == Kind::Machine)
            .then(|| records.iter().find(is_its))
            .flatten();
        if tries.starts(guest) {
            failed.extend(start_one(agent, sold, guest, record, say));
        } else if let Some(record) = record.filter(|record| tries.limits(record))
            // It runs since the pass before, as far as that is anybody's business but its owner's.
            && let Err(e) = limit_one(agent, sold, record, say)
        {
            failed.push(complained(limits_of(record), &e, say));
        }
    }
    Ok(failed)
}

/// Says what failed, and why.
fn complained(what: String, why: &dyn Display, say: &mut dyn FnMut(&str)) -> String {
    say(&format!("{what}: {why}"));
    what
}

/// Starts one that is to run, with its limits; what failed of that.
fn start_one(
    agent: &impl Agent,
    sold: Sold<'_>,
    guest: Guest,
    record: Option<&VmRecord>,
    say: &mut dyn FnMut(&str),
) -> Option<String> {
    let what = guest.to_string();
    match wanted(agent, guest.kind, guest.vmid) {
        Ok(true) if sold.may_be_suspended(guest) => {
            let why = "held back, since it may be suspended";
            return Some(complained(what, &why, say));
        }
        Ok(true) => {}
        Ok(false) => return None,
        Err(e) => return Some(complained(what, &e, say)),
    }
    let held = match record.map(|record| sold.hold(record, say)) {
        None => None,
        Some(Ok(Some(held))) => Some(held),
        Some(Ok(None)) => return None,
        Some(Err(e)) => return Some(complained(what, &e, say)),
    };
    let record = held.as_ref().map(|held| &held.record);
    if record.is_some_and(|record| record.status == Status::Suspended) {
        say(&format!("{what} is suspended and stays off"));
        return None;
    }
    if let Err(e) = ask(agent, &guest.kind.start(guest.vmid)) {
        return Some(complained(what, &e, say));
    }
    say(&format!("{what} runs"));
    let record = record?;
    let error = limit(agent, record).err()?;
    Some(complained(limits_of(record), &error, say))
}

/// Sets the host routes that the kernel forgot with the host's end, or with the bridge; one that is there is fine.
fn set_routes(
    agent: &impl Agent,
    records: &[VmRecord],
    bridge: &IfName,
    tries: &Tries,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let mut failed = Vec::new();
    let reached = |record: &&VmRecord| record.status == Status::Active && !record.mock;
    for record in records.iter().filter(reached) {
        let Some(address) = route_of(record) else {
            continue;
        };
        let what = format!("the route to VM {}", record.vmid);
        if !tries.holds(&what, UNKNOWN[0]) {
            continue;
        }
        let action = Ip6RouteAdd {
            address,
            dev: bridge.clone(),
        };
        if let Err(e) = ask(agent, &action.into()) {
            failed.push(complained(what, &e, say));
        }
    }
    failed
}

/// Stops what is suspended and runs all the same, and has it not started with the host any more: machines that were suspended
/// by an earlier version, or started past us. One that is paid for is left to whoever resumes it.
fn stop_suspended(
    agent: &impl Agent,
    sold: Sold<'_>,
    tries: &Tries,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let mut failed = Vec::new();
    for record in sold.records().iter().filter(|record| is_to_be_off(record)) {
        let vmid = record.vmid;
        let what = format!("VM {vmid}, which is suspended");
        if !tries.holds(&what, UNKNOWN[0]) {
            continue;
        }
        match stop_one(agent, sold, record, say) {
            Ok(true) => say(&format!("VM {vmid} is suspended and was stopped")),
            Ok(false) => {}
            Err(e) => {
                say(&format!("VM {vmid} is suspended and may run: {e}"));
                failed.push(what);
            }
        }
    }
    failed
}

fn is_to_be_off(record: &VmRecord) -> bool {
    record.status == Status::Suspended && !record.mock && record.expires_at <= Time::now()
}

/// Stops one, if it is to be off still and runs; whether it did.
fn stop_one(
    agent: &impl Agent,
    sold: Sold<'_>,
    record: &VmRecord,
    say: &mut dyn FnMut(&str),
) -> Result<bool, LifecycleError> {
    let vmid = record.vmid;
    if !running(agent, vmid)? {
        return Ok(false);
    }
    // It may have been paid for, and run by right.
    let Some(held) = sold.hold(record, say)? else {
        return Ok(false);
    };
    if !is_to_be_off(&held.record) || !running(agent, vmid)? {
        return Ok(false);
    }
    let options = start_with_host_option(false)?;
    ask(agent, &QmSet { vmid, options }.into())?;
    stop(agent, vmid)?;
    Ok(true)
}

/// A guest that does not listen loses its power.
fn stop(agent: &impl Agent, vmid: Vmid) -> Result<(), BackendError> {
    let timeout = Seconds::try_from(SHUTDOWN_S)?;
    if ask(agent, &Kind::Machine.shutdown(vmid, timeout)).is_err() {
        ask(agent, &Kind::Machine.stop(vmid))?;
    }
    Ok(())
}

fn list_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Machine => UNKNOWN[1],
        Kind::Container => UNKNOWN[2],
    }
}

fn limits_of(record: &VmRecord) -> String {
    format!("the limits of VM {}", record.vmid)
}

fn limit(agent: &impl Agent, record: &VmRecord) -> Result<(), BackendError> {
    match record.throttle.action(record.vmid, false, true)? {
        Some(action) => ask(agent, &action.into()).map(drop),
        None => Ok(()),
    }
}

/// Limits a machine as its record is now, if it runs; whether it does.
fn limit_one(
    agent: &impl Agent,
    sold: Sold<'_>,
    record: &VmRecord,
    say: &mut dyn FnMut(&str),
) -> Result<bool, LifecycleError> {
    let Some(held) = sold.hold(record, say)? else {
        return Ok(false);
    };
    let running = running(agent, held.record.vmid)?;
    if running {
        limit(agent, &held.record)?;
    }
    Ok(running)
}

/// Limits those that another has started.
fn limit_running(
    agent: &impl Agent,
    sold: Sold<'_>,
    tries: &Tries,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let mut failed = Vec::new();
    let limited = |record: &&VmRecord| {
        record.status == Status::Active && !record.mock && !record.throttle.is_none()
    };
    for record in sold.records().iter().filter(limited) {
        if !tries.limits(record) {
            continue;
        }
        match limit_one(agent, sold, record, say) {
            Ok(true) => say(&format!("VM {} is limited", record.vmid)),
            Ok(false) => {}
            Err(e) => failed.push(complained(limits_of(record), &e, say)),
        }
    }
    failed
}

/// Whether a machine runs; one that is not there does not.
fn running(agent: &impl Agent, vmid: Vmid) -> Result<bool, BackendError> {
    match answered(agent, &QmStatus { vmid }.into()) {
        Err(e) if e.is_not_found() => Ok(false),
        // Its other words are of machines that run: one that its guest put to sleep, one that waits for space on a disk.
        other => Ok(other?.get("status").and_then(Value::as_str) != Some("stopped")),
    }
}

/// Whether it is to run. One that went away meanwhile is not.
fn wanted(agent: &impl Agent, kind: Kind, vmid: Vmid) -> Result<bool, BackendError> {
    let config = match answered(agent, &kind.config(vmid)) {
        Err(e) if e.is_not_found() => return Ok(false),
        other => other?,
    };
    let set = |key: &str| match config.get(key) {
        Some(Value::String(text)) => text == "1",
        Some(value) => value.as_u64() == Some(1),
        None => false,
    };
    Ok(set("onboot") && !set("template"))
}

#[cfg(test)]
#[path = "onboot_tests.rs"]
mod tests;
