//! A bridge's flows and meters over a change of its `fail_mode`, which the switch takes as an occasion to forget them all. Between
//! the two nothing passes, or everything, for some milliseconds. Where they do not come back the bridge says so until they are set
//! again. Called by `bridges`, `flows` and `list`.

use std::time::Instant;

use blockhost_proto::response::ErrorCode;
use serde_json::json;

use super::error::SwitchError;
use super::flows::{asked, default_flow, digest, known_cookies};
use super::meters::torn;
use super::openflow::connection::BundleError;
use super::openflow::message::{
    Change, Entry, Meter, MeterChange, flow_mod, flow_request, kind, meter_request, part,
};
use super::openflow::stats;
use super::ovsdb::Ovsdb;
use super::rows::{Row, Transaction, Uuid, is_row, set, text_map};
use super::switch::Switch;
use crate::compartment::Failure;

/// Key in a bridge's `external_ids` as long as its flows and meters may be lost by a change of its `fail_mode`.
const LOST: (&str, &str) = ("blockhost-flows-lost", "1");

/// Says in a transaction that the flows and meters of a bridge are lost by it, until [`found_again`].
pub fn mark(t: &mut Transaction, bridge: &Uuid) {
    // Inserting leaves a key that is there.
    let pair = text_map([LOST]);
    t.mutate("Bridge", is_row(bridge), "external_ids", "insert", pair);
}

/// Whether flows and meters of a bridge may be lost.
pub fn lost(bridge: &Row) -> bool {
    bridge.entry("external_ids", LOST.0).is_some()
}

/// Strikes out that they are.
///
/// # Errors
/// [`SwitchError`]
pub fn found_again(db: &mut Ovsdb, bridge: &Uuid, deadline: Instant) -> Result<(), SwitchError> {
    let mut t = Transaction::new();
    let key = set([json!(LOST.0)]);
    t.mutate("Bridge", is_row(bridge), "external_ids", "delete", key);
    db.transact(t, deadline)?;
    Ok(())
}

/// What somebody hears who changes a bridge whose flows are lost.
pub const FORGOTTEN: &str = ", but the flows and meters that it had before may be lost: a change of fail_mode was cut off; set them again \
    (ovs-set-meter, ovs-set-flows of each owner that ovs-list shows)";

/// Whether a bridge has all that was said to be lost, of a switch that has acted on everything since. That is struck out then.
pub fn reappeared(
    switch: &Switch,
    db: &mut Ovsdb,
    name: &str,
    (uuid, row): (&Uuid, &Row),
    deadline: Instant,
) -> bool {
    Kept::of(switch, name, deadline).is_ok_and(|there| there.is_all_of(row))
        && found_again(db, uuid, deadline).is_ok()
}

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

    /// Whether there is nothing to be lost.
    pub const fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.meters.is_empty()
    }

    /// Whether there are flows that could be lost. Meters without any limit nothing.
    pub const fn has_flows(&self) -> bool {
        !self.flows.is_empty()
    }

    /// Whether each owner that the bridge knows has its flows as it set them. Such flows have their meters: the switch takes both
    /// or neither away.
    fn is_all_of(&self, bridge: &Row) -> bool {
        let has = |cookie| {
            let mut its = self.flows.iter().filter(|flow| flow.cookie == cookie);
            match asked(bridge, cookie) {
                Some((_, set)) => digest(its).is_ok_and(|is| is.as_str() == set),
                None => its.next().is_some(),
            }
        };
        // There were some, be it of nobody known.
        self.has_flows() && known_cookies(bridge).all(has)
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
        let broken = |error: SwitchError| lost(error.to_string());
        let mut talk = switch.talk(bridge, deadline).map_err(broken)?;
        let mut there = Vec::new();
        talk.statistics(&meter_request(part::METER_CONFIG), |body| {
            stats::meters(body, |meter| there.push(meter.id)).map_err(torn)
        })
        .map_err(broken)?;
        for meter in self.meters {
            let change = match there.contains(&meter.id) {
                true => MeterChange::Modify,
                false => MeterChange::Add,
            };
            talk.change(kind::METER_MOD, &meter.body(change))
                .map_err(broken)?
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
