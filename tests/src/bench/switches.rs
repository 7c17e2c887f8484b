//! A real switch (userspace datapath) beside its own tools: ten thousand flows, a change of ten of them, ports. Ours with
//! both records of each action durable, the tools with none.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockhost_proto::action::Action;
use serde_json::{Value, json};

use super::load::Connection;
use super::row::Row;
use super::times::{Round, Times, in_turns};
use super::wire::frame;
use crate::command::{run, with_args};
use crate::scenario::ScenarioError;
use crate::switch::{self, Switch};
use crate::world::{World, at};

const FLOWS: u32 = 10_000;
/// How often ten thousand flows are set, in turns.
const SETS: usize = 10;
/// How often a port is attached, in turns.
const PORTS: usize = 50;
const OFCTL: &str = "ovs-ofctl";
const VSCTL: &str = "ovs-vsctl";
const OWNER: &str = "bench";

fn wrong(what: impl std::fmt::Display) -> ScenarioError {
    ScenarioError::Wrong(what.to_string())
}

/// Measures, or says why it cannot.
pub(super) fn measure(
    world: &World,
    ours: &mut Connection,
    not_run: &mut Vec<String>,
) -> Result<Vec<Row>, ScenarioError> {
    if !switch::installed() {
        not_run.push("switch: the package openvswitch-switch is not installed".to_owned());
        return Ok(Vec::new());
    }
    let switch = Switch::start(&world.layout.switch_sockets());
    for bridge in ["ovsbr0", "ovsbr1"] {
        let options = json!({"datapath_type": "netdev", "fail_mode": "secure"});
        let params = json!({"bridge": bridge, "options": options});
        ours.ask_well(&frame(&json!({"action": "ovs-add-br", "params": params})))?;
    }
    let mut rows = flows(&switch, ours)?;
    rows.extend(ports(&switch, ours)?);
    Ok(rows)
}

/// Flows to that many addresses; `other` of them do something else.
fn set(other: u32) -> Value {
    let flow = |action: &str, numbers: std::ops::Range<u32>| {
        let rows: Vec<Value> = numbers
            .map(|n| json!([std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()]))
            .collect();
        json!({"priority": 100, "match": {"in_port": 1, "dl_type": "ip"}, "actions": [action],
            "columns": ["/match/nw_dst"], "rows": rows})
    };
    let mut flows = vec![flow("in_port", other..FLOWS)];
    if other > 0 {
        flows.push(flow("drop", 0..other));
    }
    flows.into()
}

fn request(flows: &Value) -> Value {
    json!({"action": "ovs-set-flows", "params": {"bridge": "ovsbr0", "owner": OWNER, "flows": flows}})
}

/// The same flows in a file for the switch's own tool.
fn file(switch: &Switch, name: &str, flows: &Value) -> Result<PathBuf, ScenarioError> {
    let request = request(flows);
    let action = Action::from_parts("ovs-set-flows", &request["params"]).map_err(wrong)?;
    let Action::OvsSetFlows(action) = action else {
        return Err(wrong("another action"));
    };
    let text: String = action
        .flows
        .iter()
        .map(|flow| format!("{flow}\n"))
        .collect();
    let path = switch.directory().join(name);
    at("writing", &path, std::fs::write(&path, text))?;
    Ok(path)
}

/// What one run of a tool takes.
fn tool(switch: &Switch, program: &str, arguments: &[&str]) -> Duration {
    let begun = Instant::now();
    switch.run(program, arguments);
    begun.elapsed()
}

fn bundle(switch: &Switch, verb: &str, path: &Path) -> Duration {
    let path = path.display().to_string();
    let words = ["-O", "OpenFlow14", "--bundle", verb, "ovsbr1", &path];
    tool(switch, OFCTL, &words)
}

fn flows(switch: &Switch, ours: &mut Connection) -> Result<Vec<Row>, ScenarioError> {
    let (all, changed) = (frame(&request(&set(0))), frame(&request(&set(10))));
    let none = frame(&request(&json!([])));
    let all_file = file(switch, "all.txt", &set(0))?;
    let changed_file = file(switch, "changed.txt", &set(10))?;
    let mut changes = (Vec::new(), Vec::new());
    let mut by_agent = |count: usize| -> Result<Times, ScenarioError> {
        let mut times = Vec::new();
        for _ in 0..count {
            times.push(ours.ask_well(&all)?);
            changes.0.push(ours.ask_well(&changed)?);
            ours.ask_well(&none)?;
        }
        Ok(Times::new(times))
    };
    let mut by_tool = |count: usize| -> Result<Times, ScenarioError> {
        let mut times = Vec::new();
        for _ in 0..count {
            times.push(bundle(switch, "add-flows", &all_file));
            changes
                .1
                .push(bundle(switch, "replace-flows", &changed_file));
            switch.run(OFCTL, &["-O", "OpenFlow14", "del-flows", "ovsbr1"]);
        }
        Ok(Times::new(times))
    };
    let rounds: &mut [&mut dyn Round] = &mut [&mut by_agent, &mut by_tool];
    let taken = in_turns(SETS, rounds)?;
    let [ours, tool] = &taken[..] else {
        return Err(wrong("nothing was measured"));
    };
    let (changed, replaced) = (Times::new(changes.0), Times::new(changes.1));
    Ok(vec![
        Row::time("10 000 flows set in one bundle, p50", ours.p50())
            .beside("ovs-ofctl add-flows", tool.p50())
            .ratio_at_most(1.3),
        Row::time("the same 10 000 with 10 others, p50", changed.p50())
            .beside("ovs-ofctl replace-flows", replaced.p50()),
        Row::time("the same 10 000 with 10 others, p50", changed.p50())
            .beside("itself, all 10 000", ours.p50()),
    ])
}

fn ports(switch: &Switch, ours: &mut Connection) -> Result<Vec<Row>, ScenarioError> {
    let limit = Duration::from_secs(10);
    for number in 0..3 {
        let (name, peer) = (
            format!("vi{}", 1000 + number),
            format!("vp{}", 1000 + number),
        );
        let words = ["link", "add", &name, "type", "veth", "peer", "name", &peer];
        run(with_args("ip", &words), limit).map_err(wrong)?;
    }
    // Taken away again each time: the switch takes longer the more ports it has.
    let call = |action: &str| {
        frame(&json!({"action": action, "params": {"bridge": "ovsbr0", "port": "vi1000"}}))
    };
    let mut by_agent = |count: usize| -> Result<Times, ScenarioError> {
        let mut times = Vec::new();
        for _ in 0..count {
            times.push(ours.ask_well(&call("ovs-add-port"))?);
            ours.ask_well(&call("ovs-del-port"))?;
        }
        Ok(Times::new(times))
    };
    let by_vsctl = |port: &'static str, more: &'static [&'static str]| {
        move |count: usize| -> Result<Times, ScenarioError> {
            let words = [more, &["add-port", "ovsbr1", port]].concat();
            let times = (0..count).map(|_| {
                let took = tool(switch, VSCTL, &words);
                switch.run(VSCTL, &["del-port", "ovsbr1", port]);
                took
            });
            Ok(Times::new(times.collect()))
        }
    };
    let mut by_tool = by_vsctl("vi1001", &[]);
    let mut at_once = by_vsctl("vi1002", &["--no-wait"]);
    let rounds: &mut [&mut dyn Round] = &mut [&mut by_agent, &mut by_tool, &mut at_once];
    let taken = in_turns(PORTS, rounds)?;
    let [ours, tool, at_once] = &taken[..] else {
        return Err(wrong("nothing was measured"));
    };
    let what = "ovs-add-port, p50 (ours with two durable records; both wait for the switch)";
    Ok(vec![
        Row::time(what, ours.p50())
            .beside("ovs-vsctl add-port", tool.p50())
            .ratio_at_most(0.2),
        Row::time(what, ours.p50()).beside("ovs-vsctl --no-wait", at_once.p50()),
        Row::time("ovs-add-port, p99", ours.p99()).beside("ovs-vsctl add-port", tool.p99()),
    ])
}
