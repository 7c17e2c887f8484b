//! Bridges, ports, meters and flows of Open vSwitch, as the agent's `ovs-list` answers them. Names and texts in it are
//! those of the switch: foreign, to be escaped where they are shown.

use std::collections::BTreeMap;

use blockhost_proto::action::{Action, OvsList};
use blockhost_proto::client::tokio::call_once;
use blockhost_proto::layout::Layout;
use serde::{Deserialize, Serialize};

use super::ObserveError;

const ACTION: &str = "ovs-list";

/// The switch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Switch {
    /// Its bridges.
    pub bridges: Vec<Bridge>,
}

impl Switch {
    /// The bridge of this name.
    #[must_use]
    pub fn bridge(&self, name: &str) -> Option<&Bridge> {
        self.bridges.iter().find(|bridge| bridge.name == name)
    }

    /// The port of this name with the bridge that it is on.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<(&Bridge, &Port)> {
        self.bridges
            .iter()
            .find_map(|bridge| Some((bridge, bridge.port(name)?)))
    }
}

/// A bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// Whether the root agent made it.
    #[serde(default)]
    pub ours: bool,
    /// `system` or `netdev`.
    #[serde(default)]
    pub datapath_type: String,
    /// What it does without flows: `standalone` or `secure`.
    #[serde(default)]
    pub fail_mode: String,
    /// Why it does not work, where it does not.
    #[serde(default)]
    pub error: Option<String>,
    /// Its ports, its own one among them.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Whose flows there are, and how many.
    #[serde(default)]
    pub owners: Vec<Owner>,
    /// Its rate limits.
    #[serde(default)]
    pub meters: Vec<Meter>,
    /// Its flows, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<Vec<Flow>>,
    /// Flows that did not fit into the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows_left_out: Option<u64>,
}

impl Bridge {
    /// The port of this name.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports
            .iter()
            .find(|port| port.name.as_deref() == Some(name))
    }
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name; none where the row has none.
    pub name: Option<String>,
    /// Whether the root agent made it.
    #[serde(default)]
    pub ours: bool,
    /// Its OpenFlow number; -1 where the device is missing.
    #[serde(default)]
    pub ofport: Option<i64>,
    /// `system`, `internal`, `vxlan`, ...
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Its VLAN.
    #[serde(default)]
    pub tag: Option<i64>,
    /// The VLANs that it carries tagged.
    #[serde(default)]
    pub trunks: Vec<i64>,
    /// The machine that it belongs to.
    #[serde(default)]
    pub vmid: Option<u32>,
    /// Name of the interface inside the machine, or of the container.
    #[serde(default)]
    pub iface_id: Option<String>,
    /// Hardware address of the machine's end.
    #[serde(default)]
    pub attached_mac: Option<String>,
    /// Hardware address of the host's end.
    #[serde(default)]
    pub mac: Option<String>,
    /// `up` or `down`.
    #[serde(default)]
    pub link: Option<String>,
    /// What the switch says is wrong with the device.
    #[serde(default)]
    pub error: Option<String>,
    /// Whether it has queues or a limit.
    #[serde(default)]
    pub qos: bool,
    /// What went through; none where the switch does not have the device.
    #[serde(default)]
    pub counters: Option<PortCounters>,
}

/// What went through a port, seen from the switch: `rx` is what the device sent into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PortCounters {
    /// Packets into the switch.
    pub rx_packets: u64,
    /// Bytes into the switch.
    pub rx_bytes: u64,
    /// Dropped on the way in.
    pub rx_dropped: u64,
    /// Broken on the way in.
    pub rx_errors: u64,
    /// Packets out of the switch.
    pub tx_packets: u64,
    /// Bytes out of the switch.
    pub tx_bytes: u64,
    /// Dropped on the way out.
    pub tx_dropped: u64,
    /// Failed on the way out.
    pub tx_errors: u64,
}

/// How many flows belong to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The owner; none for flows that the root agent did not set.
    pub owner: Option<String>,
    /// Their cookie.
    pub cookie: String,
    /// Number of flows.
    pub flows: u64,
    /// Packets that they matched.
    pub packets: u64,
    /// Bytes that they matched.
    pub bytes: u64,
}

/// A rate limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Its number.
    pub meter: u32,
    /// `kbps` or `pktps`.
    pub unit: String,
    /// What may pass per second.
    pub rate: u32,
    /// What may pass at once.
    pub burst: u32,
    /// Packets seen.
    pub packets: Option<u64>,
    /// Bytes seen.
    pub bytes: Option<u64>,
    /// Packets dropped.
    pub dropped: Option<u64>,
}

/// A flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Its table.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Whose it is; none for what the root agent did not set.
    pub owner: Option<String>,
    /// Fields and values in hexadecimal, masks behind `/`; none where it is not understood.
    #[serde(rename = "match")]
    pub matching: Option<BTreeMap<String, String>>,
    /// Seconds without a packet until it goes, 0 for never.
    pub idle_timeout: u16,
    /// Seconds until it goes, 0 for never.
    pub hard_timeout: u16,
    /// Packets that it matched.
    pub packets: u64,
    /// Bytes that it matched.
    pub bytes: u64,
}

/// Asks the agent what is on the switch; `None` where there is no switch.
///
/// # Errors
/// [`ObserveError`] where there is one and it does not answer; `not_found` for a bridge that is not there.
pub async fn look_at_switch(
    layout: &Layout,
    list: &OvsList,
) -> Result<Option<Switch>, ObserveError> {
    // The agent cannot tell "not installed" from "does not answer"; the socket's file can.
    if !layout.switch_sockets().join("db.sock").exists() {
        return Ok(None);
    }
    let reply = call_once(layout, &Action::OvsList(list.clone())).await?;
    if reply.extra.contains_key("truncated") {
        return Err(ObserveError::Cut { action: ACTION });
    }
    read(&reply.output).map(Some)
}

fn read(text: &str) -> Result<Switch, ObserveError> {
    let mut switch: Switch = serde_json::from_str(text).map_err(|error| ObserveError::Answer {
        action: ACTION,
        reason: error.to_string(),
    })?;
    // The switch's sets have no order; two looks at one switch are to be equal.
    switch.bridges.sort_by(|a, b| a.name.cmp(&b.name));
    for bridge in &mut switch.bridges {
        bridge.ports.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(switch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_switch_leaves_open_is_none_and_no_error() {
        let text = r#"{"bridges": [{"name": "ovsbr0", "ours": true, "datapath_type": "netdev", "fail_mode": "standalone",
            "ports": [{"name": "vi100", "ours": true, "ofport": -1, "type": "system", "tag": null, "trunks": [], "vmid": 100,
                "iface_id": null, "attached_mac": null, "mac": null, "link": null, "error": "no such device", "qos": false,
                "counters": null}],
            "owners": [{"owner": null, "cookie": "0x0", "flows": 1, "packets": 0, "bytes": 0}],
            "meters": [{"meter": 1, "unit": "kbps", "rate": 1, "burst": 0, "packets": null, "bytes": null, "dropped": null}],
            "flows": [{"table": 0, "priority": 0, "owner": null, "match": null, "idle_timeout": 0, "hard_timeout": 0,
                "packets": 0, "bytes": 0}],
            "flows_left_out": 0}, {"name": "broken", "error": "nothing answers"}]}"#;
        let switch = read(text).expect("understood");
        let (bridge, port) = switch.port("vi100").expect("there");
        assert_eq!((bridge.name.as_str(), port.vmid), ("ovsbr0", Some(100)));
        assert_eq!(port.error.as_deref(), Some("no such device"));
        assert!(switch.bridge("broken").is_some_and(|b| b.error.is_some()));
    }

    #[test]
    fn an_answer_of_another_shape_is_refused_and_not_taken_for_an_empty_switch() {
        for text in ["", "{}", "[]", r#"{"bridges": {}}"#, r#"{"bridges": [{}]}"#] {
            assert!(
                matches!(read(text), Err(ObserveError::Answer { .. })),
                "{text}"
            );
        }
    }
}
