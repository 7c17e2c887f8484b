//! What of a policy can be had while ports of containers are not there: one that is suspended or does not start takes nothing
//! from the others. Nothing comes from such a port and nothing goes to it; everything else is as it is with it. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;

use blockhost_proto::action::{Action, OvsSetFlows};
use blockhost_proto::flow::FlowSet;
use blockhost_proto::value::{Param as _, SwitchIfName};
use serde_json::{Value, json};

use super::Compiled;
use super::seen::ObservedBridge;

/// What goes on with a packet. Without any of it the rest of a flow comes to nothing.
const LEADS_ON: [&str; 4] = ["output", "resubmit", "goto_table", "ct"];

impl Compiled {
    /// The containers' ports that the bridge does not have, or has without a device.
    #[must_use]
    pub fn absent(&self, seen: &ObservedBridge) -> BTreeSet<SwitchIfName> {
        let guests = self.guests.iter();
        guests.filter(|port| seen.lacks(port)).cloned().collect()
    }

    /// As much of it as can be set on the bridge as it is. The switch takes no flow with a port that it does not have.
    #[must_use]
    pub fn as_far_as_possible(&self, seen: &ObservedBridge) -> Cow<'_, Self> {
        let absent = self.absent(seen);
        if absent.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut rest = self.clone();
        for (_, action) in &mut rest.flows {
            if let Action::OvsSetFlows(set) = action {
                leave_out(set, &absent);
            }
        }
        // Limits stand beside a port's row, whether it has a device or not.
        rest.qos.retain(|action| match action {
            Action::OvsSetQos(shape) => seen.has_port(&shape.port),
            _ => true,
        });
        Cow::Owned(rest)
    }
}

fn leave_out(set: &mut OvsSetFlows, absent: &BTreeSet<SwitchIfName>) {
    if set.flows.port_names().is_disjoint(&absent.iter().collect()) {
        return;
    }
    let Some(Value::Array(flows)) = set.flows.to_json() else {
        return;
    };
    let named = |port: &Value| {
        let name = port.as_str();
        name.is_some_and(|name| absent.iter().any(|port| port.as_str() == name))
    };
    let rest = flows
        .into_iter()
        .filter(|flow| !named(&flow["match"]["in_port"]));
    let rest = rest.map(|mut flow| {
        if let Some(actions) = flow["actions"].as_array_mut() {
            let all = actions.len();
            actions.retain(|action| !named(&action["output"]));
            let leads = |action: &Value| {
                action == "in_port" || LEADS_ON.iter().any(|key| action.get(key).is_some())
            };
            if actions.len() < all && !actions.iter().any(leads) {
                *actions = vec![json!("drop")];
            }
        }
        flow
    });
    // Otherwise it stays whole, and the agent refuses it.
    if let Ok(flows) = FlowSet::from_json(&rest.collect()) {
        set.flows = flows;
    }
}
