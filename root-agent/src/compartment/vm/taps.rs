//! What a machine's network cards may carry: traffic control on the host's ends of its cards, `tap<vmid>i<n>` with either
//! backend. They exist while the machine runs, and so do the limits on them.

use std::sync::{Mutex, PoisonError};

use blockhost_proto::qm::QmKey;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{RateKbps, Vmid};
use serde_json::{Map, Value};

use crate::compartment::Failure;
use blockhost_netlink::{Netlink, NetlinkError, tc};

/// Limits as the machine sees them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// What it may receive.
    pub(super) incoming: Option<RateKbps>,
    /// What it may send.
    pub(super) outgoing: Option<RateKbps>,
    /// Remove what is there first.
    pub(super) reset: bool,
}

/// The kernel's network devices, through a socket opened before confinement; or why there is none.
#[derive(Debug)]
pub(super) struct Devices(Result<Mutex<Netlink>, String>);

impl Devices {
    pub(super) fn open() -> Self {
        Self(
            Netlink::open()
                .map(Mutex::new)
                .map_err(|error| error.to_string()),
        )
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Netlink) -> Result<T, NetlinkError>,
    ) -> Result<T, Failure> {
        let failed = |why: &str| {
            Failure::new(
                ErrorCode::Failed,
                format!(
                    "traffic control failed: {why}; limits on the network may be in force in part, ask again"
                ),
            )
        };
        let netlink = self.0.as_ref().map_err(|why| failed(why))?;
        // Every request stands for itself: one that panicked left nothing behind in the socket that matters.
        let mut netlink = netlink.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut netlink).map_err(|error| failed(&error.to_string()))
    }

    /// The taps of a machine that are to be changed; refused when limits are asked for and there is nothing to put them on.
    pub(super) fn of(
        &self,
        vmid: Vmid,
        config: &Map<String, Value>,
        rates: Rates,
    ) -> Result<Vec<String>, Failure> {
        let limited = rates.incoming.is_some() || rates.outgoing.is_some();
        if !limited && !rates.reset {
            return Ok(Vec::new());
        }
        let taps = self.with(|netlink| {
            let mut there = Vec::new();
            for name in names(vmid, config) {
                // An alternative name leads to a device that is called otherwise: it is not the backend's.
                let found = netlink.link(&name)?.is_some_and(|link| link.name == name);
                there.extend(found.then_some(name));
            }
            Ok(there)
        })?;
        if limited && taps.is_empty() {
            let message = format!(
                "VM {vmid} has no network interface now: interfaces and their limits last while it runs; start it first"
            );
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        Ok(taps)
    }

    /// Brings the taps to what is wanted; says what was done.
    pub(super) fn apply(&self, taps: &[String], rates: Rates) -> Result<Vec<String>, Failure> {
        let (incoming, outgoing) = (
            rates.incoming.map(RateKbps::get),
            rates.outgoing.map(RateKbps::get),
        );
        taps.iter()
            .map(|tap| {
                self.with(|netlink| {
                    if rates.reset {
                        tc::reset(netlink, tap)?;
                    }
                    if incoming.is_some() || outgoing.is_some() {
                        tc::limit(netlink, tap, incoming, outgoing)?;
                    }
                    let limits = tc::limits(netlink, tap)?;
                    let rate = |kbps: Option<u64>| {
                        kbps.map_or_else(|| "no limit".to_owned(), |kbps| format!("{kbps} kbit/s"))
                    };
                    Ok(format!(
                        "{tap}: in {}, out {}",
                        rate(limits.in_kbps),
                        rate(limits.out_kbps)
                    ))
                })
            })
            .collect()
    }
}

fn names(vmid: Vmid, config: &Map<String, Value>) -> Vec<String> {
    config
        .keys()
        .filter_map(|key| match QmKey::read(key) {
            Some(QmKey::Net(index)) => Some(format!("tap{vmid}i{index}")),
            _ => None,
        })
        .collect()
}
