//! A bridge's flows and meters over a change of its `fail_mode`, which the switch takes as an occasion to forget them all. Between
//! the two nothing passes, or everything, for some milliseconds. Called by `bridges`.

use std::time::Instant;

use blockhost_proto::response::ErrorCode;

use super::flows::default_flow;
use super::meters::torn;
use super::openflow::connection::BundleError;
use super::openflow::message::{
    Change, Entry, Meter, MeterChange, flow_mod, flow_request, kind, meter_request, part,
};
use super::openflow::stats;
use super::switch::Switch;
use crate::compartment::Failure;

/// What a bridge has before.
#[derive(Debug)]
pub struct Kept {
    flows: Vec<Entry>,
    meters: Vec<Meter>,
}

impl Kept {
    /// Looks at what there is.
    ///
    /// # Errors
    /// The switch's.
    pub fn of(switch: &Switch, bridge: &str, deadline: Instant) -> Result<Self, Failure> {
        let (mut flows, mut meters) = (Vec::new(), Vec::new());
        let mut talk = switch.talk(bridge, deadline)?;
        talk.statistics(&flow_request(0, 0), |body| {
            stats::flows(body, |flow| flows.push(flow.entry)).map_err(torn)
        })?;
        talk.statistics(&meter_request(part::METER_CONFIG), |body| {
            stats::meters(body, |meter| {
                meters.push(Meter {
                    id: meter.id,
                    packets: meter.packets,
                    rate: meter.rate,
                    burst: Some(meter.burst).filter(|burst| *burst > 0),
                });
            })
            .map_err(torn)
        })?;
        // The switch's own, which it makes where it belongs.
        let default = default_flow();
        flows.retain(|flow| *flow != default);
        Ok(Self { flows, meters })
    }

    /// Has the switch have it again, all flows or none.
    ///
    /// # Errors
    /// `failed`: flows are missing then, and have to be set again.
    pub fn put_back(self, switch: &Switch, bridge: &str, deadline: Instant) -> Result<(), Failure> {
        let lost = |why: String| {
            let message = format!(
                "bridge {bridge} has its fail_mode, but not all of its flows and meters any more, set them again: {why}"
            );
            Failure::new(ErrorCode::Failed, message)
        };
        let mut talk = switch.talk(bridge, deadline)?;
        let mut there = Vec::new();
        talk.statistics(&meter_request(part::METER_CONFIG), |body| {
            stats::meters(body, |meter| there.push(meter.id)).map_err(torn)
        })?;
        for meter in self.meters {
            let change = match there.contains(&meter.id) {
                true => MeterChange::Modify,
                false => MeterChange::Add,
            };
            talk.change(kind::METER_MOD, &meter.body(change))?
                .map_err(|error| lost(format!("meter {}: {error}", meter.id)))?;
        }
        let flows = self.flows.iter();
        let bodies: Vec<Vec<u8>> = flows.map(|flow| flow_mod(Change::Add, flow)).collect();
        if !bodies.is_empty() {
            talk.bundle(kind::FLOW_MOD, &bodies)
                .map_err(|error| match error {
                    BundleError::Message { index, error } => lost(format!("flow {index}: {error}")),
                    BundleError::TooLong { index } => lost(format!("flow {index} is too long")),
                    BundleError::Switch(error) => lost(error.to_string()),
                })?;
        }
        Ok(())
    }
}
