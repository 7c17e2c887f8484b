//! `ovs-*`: bridges, ports, flows, queues and meters of Open vSwitch. The ovs compartment speaks OVSDB and OpenFlow.

use super::{ParamError, ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::flow::FlowSet;
use crate::qm::MacAddress;
use crate::value::{
    BridgeOptions, Burst, EventName, FlowOwner, MeterId, MeterUnit, PortKind, Queues, Rate,
    SwitchIfName, Trunks, VlanTag, Vmid,
};

fn bridge_key(bridge: &SwitchIfName) -> Vec<ResourceKey> {
    vec![ResourceKey::named(format!("ovs:{bridge}"))]
}

action! {
    /// Makes a bridge and waits until the switch has it; one that this agent made already is a success, and is changed to these
    /// options. Its flows and meters stay when `fail_mode` changes, with which the switch alone would drop them. Where they may be
    /// lost (the switch stands still, the agent is killed) it fails and says so; asked for again it succeeds with `flows_lost`, which
    /// `ovs-list` says as well, until the flows are there again.
    OvsAddBr = "ovs-add-br", family "ovs", compartment Ovs, capabilities &[],
    time_limit_s 30, read_only false, ledger "ovs" / "network" / "create",
    {
        /// The bridge.
        bridge: SwitchIfName,
        /// How it is made.
        options: BridgeOptions = BridgeOptions::default(),
    }
    resources |a| bridge_key(&a.bridge),
    resource |a| format!("bridge:{}", a.bridge),
    example r#"{"bridge": "ovsbr0", "options": {"datapath_type": "system", "fail_mode": "standalone"}}"#,
}

action! {
    /// Deletes a bridge that this agent made, with its ports and flows; `not_found` where there is none, `conflict` where the host has
    /// its own addresses or way out on a device of it.
    OvsDelBr = "ovs-del-br", family "ovs", compartment Ovs, capabilities &[],
    time_limit_s 30, read_only false, ledger "ovs" / "network" / "delete",
    {
        /// The bridge.
        bridge: SwitchIfName,
    }
    resources |a| bridge_key(&a.bridge),
    resource |a| format!("bridge:{}", a.bridge),
    example r#"{"bridge": "ovsbr0"}"#,
}

action! {
    /// Attaches a port, waits until the switch has acted, and reports what the switch says about the device.
    OvsAddPort = "ovs-add-port", family "ovs", compartment Ovs, capabilities &[],
    time_limit_s 30, read_only false, ledger "ovs" / "network" / "create",
    {
        /// The bridge.
        bridge: SwitchIfName,
        /// The device.
        port: SwitchIfName,
        /// Its VLAN: packets come and go without the tag.
        tag: Option<VlanTag>,
        /// VLANs that it carries tagged.
        trunks: Option<Trunks>,
        /// The machine that it belongs to, kept beside the port.
        vmid: Option<Vmid>,
        /// `internal` makes the device, `system` takes an existing one.
        kind: PortKind = PortKind::System,
        /// Hardware address of the machine's end, kept beside the port.
        attached_mac: Option<MacAddress>,
        /// Name of the interface inside the machine, kept beside the port.
        iface_id: Option<EventName>,
    }
    resources |a| bridge_key(&a.bridge),
    resource |a| format!("ovs:{}/{}", a.bridge, a.port),
    returns &[FieldSpec::integer("ofport", "The port's OpenFlow number.")],
    example r#"{"bridge": "ovsbr0", "port": "vi100", "tag": 7, "vmid": 100}"#,
}

action! {
    /// Detaches a port that this agent attached; `not_found` where there is none, `conflict` for an internal one whose device has
    /// the host's own addresses or way out, and for one of `allow.uplinks` that the host's only way out leads over, unless another
    /// of them is on the same bridge and VLANs and has carrier.
    OvsDelPort = "ovs-del-port", family "ovs", compartment Ovs, capabilities &[],
    time_limit_s 30, read_only false, ledger "ovs" / "network" / "delete",
    {
        /// The bridge.
        bridge: SwitchIfName,
        /// The device.
        port: SwitchIfName,
    }
    resources |a| bridge_key(&a.bridge),
    resource |a| format!("ovs:{}/{}", a.bridge, a.port),
    example r#"{"bridge": "ovsbr0", "port": "vi100"}"#,
}

action! {
    /// Replaces all flows of one owner on a bridge, all or nothing; an empty list removes them. Answers how many were
    /// added, changed and removed.
    OvsSetFlows = "ovs-set-flows", family "ovs", compartment Ovs, capabilities &[],
    time_limit_s 60, read_only false, ledger "ovs" / "network" / "apply",
    {
        /// The bridge.
        bridge: SwitchIfName,
        /// Whose flows they are. Other owners' flows stay.
        owner: FlowOwner,
        /// The flows, see "Flows" below.
        flows: FlowSet,
    }
    resources |a| bridge_key(&a.bridge),
    resource |a| format!("flows:{}/{}", a.bridge, a.owner),
    returns &[
        FieldSpec::integer("added", "Flows that were not there before."),
        FieldSpec::integer("changed", "Flows whose actions or timeouts are others now."),
        FieldSpec::integer("removed", "Flows that are gone."),
    ],
    example r#"{"bridge": "ovsbr0", "owner": "vm-100", "flows": [{"table": 0, "priority": 100, "match": {"in_port": "vi100", "dl_src": "02:00:00:00:00:64"}, "actions": [{"resubmit": 1}]}]}"#,
}

action! {
    /// Sets a port's limit and queues, replacing those it had; without `max_kbps` and queues it removes them.
    OvsSetQos = "ovs-set-qos", family "ovs", compartment Ovs, capabilities &[],
    time_limit_s 30, read_only false, ledger "ovs" / "network" / "apply",
    {
        /// The bridge.
        bridge: SwitchIfName,
        /// The port.
        port: SwitchIfName,
        /// What all of its traffic to the machine may use, in kbit/s.
        max_kbps: Option<Rate>,
        /// Its queues, for `set_queue`.
        queues: Queues = Queues::default(),
        /// What the machine may send, in kbit/s; more is dropped.
        ingress_kbps: Option<Rate>,
        /// Burst of `ingress_kbps`, in kbit.
        ingress_burst_kbit: Option<Burst>,
    }
    check |a| if a.ingress_burst_kbit.is_some() && a.ingress_kbps.is_none() {
        Err(ParamError::Together { what: "ingress_burst_kbit means nothing without ingress_kbps".to_owned() })
    } else {
        Ok(())
    },
    resources |a| bridge_key(&a.bridge),
    resource |a| format!("ovs:{}/{}", a.bridge, a.port),
    example r#"{"bridge": "ovsbr0", "port": "vi100", "max_kbps": 100000, "queues": [{"queue": 1, "min_kbps": 1000}]}"#,
}

action! {
    /// Sets a meter of a bridge; without `rate` it removes the meter.
    OvsSetMeter = "ovs-set-meter", family "ovs", compartment Ovs, capabilities &[],
    time_limit_s 30, read_only false, ledger "ovs" / "network" / "apply",
    {
        /// The bridge.
        bridge: SwitchIfName,
        /// Its number, what the flow action `meter` names.
        meter: MeterId,
        /// What it counts.
        unit: MeterUnit = MeterUnit::Kbps,
        /// What may pass per second; more is dropped.
        rate: Option<Rate>,
        /// What may pass at once, in kilobits or packets.
        burst: Option<Burst>,
    }
    check |a| if a.burst.is_some() && a.rate.is_none() {
        Err(ParamError::Together { what: "burst means nothing without rate".to_owned() })
    } else {
        Ok(())
    },
    resources |a| bridge_key(&a.bridge),
    resource |a| format!("meter:{}/{}", a.bridge, a.meter),
    example r#"{"bridge": "ovsbr0", "meter": 1, "unit": "kbps", "rate": 10000}"#,
}

action! {
    /// Bridges, ports, flows and counters, as JSON in `output`.
    OvsList = "ovs-list", family "ovs", compartment Ovs, capabilities &[],
    time_limit_s 30, read_only true, ledger "ovs" / "network" / "query",
    {
        /// Only this bridge.
        bridge: Option<SwitchIfName>,
        /// With the flows and their counters.
        flows: bool = false,
        /// Only flows of this owner.
        owner: Option<FlowOwner>,
    }
    resource |a| a.bridge.as_ref().map_or_else(|| "ovs".to_owned(), |bridge| format!("bridge:{bridge}")),
    example r#"{"bridge": "ovsbr0", "flows": true}"#,
}
