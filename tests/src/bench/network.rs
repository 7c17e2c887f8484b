//! A bridge with a hundred ports: how long attaching takes at the beginning and at the end, and the bus service asked for the
//! state of it all. Real switch, real agent, the host's dbus-daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::Client;
use serde_json::json;

use super::load::Connection;
use super::peers::greet;
use super::row::Row;
use super::times::Times;
use super::wire;
use crate::scenario::ScenarioError;
use crate::switch::{self, Switch};
use crate::world::World;
use crate::world::bus::{NAME, PATH, Polkit, SystemBus, missing};

const PORTS: u32 = 100;
const REQUESTS: usize = 40;
/// So many at the beginning and so many at the end are compared.
const TENTH: usize = 10;
/// The service tells what it saw of the switch for a quarter of a second; each request here has to look.
const PAUSE: Duration = Duration::from_millis(300);

/// Its lines of the table, or why there are none. Puts another `/run` over the world's, so it comes last.
pub(super) fn rows(world: &World) -> Result<Result<Vec<Row>, String>, ScenarioError> {
    let without = missing(false)
        .or_else(|| (!switch::installed()).then(|| "needs openvswitch-switch".to_owned()));
    if let Some(why) = without {
        return Ok(Err(format!("state query over D-Bus: {why}")));
    }
    let switch = Switch::start(&world.layout.switch_sockets());
    let mut agent = Client::connect_layout(&world.layout)
        .map_err(|error| ScenarioError::Wrong(error.to_string()))?;
    let mut ask = |name: &str, params| {
        let action = Action::from_parts(name, &params).map_err(|error| error.to_string())?;
        agent.call(&action).map_err(|error| error.to_string())
    };
    ask(
        "ovs-add-br",
        json!({"bridge": "ovsbr0", "options": {"datapath_type": "netdev"}}),
    )
    .map_err(ScenarioError::Wrong)?;
    let (mut attaching, mut by_tool) = (Vec::new(), Vec::new());
    for vmid in 100..100 + PORTS {
        let port = json!({"bridge": "ovsbr0", "port": format!("vi{vmid}"), "kind": "internal", "vmid": vmid,
            "iface_id": format!("ct-{vmid}")});
        let begun = Instant::now();
        ask("ovs-add-port", port).map_err(ScenarioError::Wrong)?;
        attaching.push(begun.elapsed());
        // The switch's own tool on the same switch in the same moment: what grows of both is the switch's.
        if attaching.len() <= TENTH || attaching.len() > PORTS as usize - TENTH {
            by_tool.push(attached_by_tool(&switch));
        }
    }
    let mut bus = SystemBus::start(world, Polkit::Absent)?;
    let mut connection = greet(Path::new("/run/dbus/system_bus_socket"))?;
    let network = asked(&mut connection, 2, "GetSystemNetworkState", None)?;
    let query = asked(&mut connection, 2 + REQUESTS, "QueryState", Some(""))?;
    bus.service.stop(Duration::from_secs(20))?;
    bus.daemon.stop(Duration::from_secs(5))?;
    const WHAT: &str = "GetSystemNetworkState over D-Bus, 100 ports, p50";
    const QUERY: &str = "QueryState of all plugins over D-Bus, 100 ports, p50";
    let ends = |mut times: Vec<Duration>| {
        let last = Times::new(times.split_off(times.len() - TENTH));
        times.truncate(TENTH);
        (Times::new(times), last)
    };
    let (first, last) = ends(attaching);
    let (first_by_tool, last_by_tool) = ends(by_tool);
    const FLAT: &str = "attaching a machine's interface, the 91st to 100th of a bridge, p50";
    Ok(Ok(vec![
        Row::time(FLAT, last.p50())
            .beside("1st to 10th", first.p50())
            .ratio_at_most(2.0),
        Row::time(FLAT, last.p50()).beside("ovs-vsctl, 91st to 100th", last_by_tool.p50()),
        Row::time("ovs-vsctl add-port there, p50", last_by_tool.p50())
            .beside("1st to 10th", first_by_tool.p50()),
        Row::time(WHAT, network.p50()).at_most(200_000.0),
        Row::time("the same, p99", network.p99()).at_most(200_000.0),
        Row::time(QUERY, query.p50()).at_most(200_000.0),
        Row::time("the same, p99", query.p99()).at_most(200_000.0),
    ]))
}

/// One method, as often as it is measured.
fn asked(
    connection: &mut Connection,
    first: usize,
    method: &str,
    argument: Option<&str>,
) -> Result<Times, ScenarioError> {
    let mut times = Vec::new();
    for serial in first..first + REQUESTS {
        std::thread::sleep(PAUSE);
        let serial = u32::try_from(serial).unwrap_or(2);
        let request = wire::dbus_message(serial, [NAME, PATH, NAME, method], argument);
        times.push(connection.ask_well(&request)?);
    }
    Ok(Times::new(times))
}

/// A port more by the switch's own tool, which is taken away again.
fn attached_by_tool(switch: &Switch) -> Duration {
    let words = [
        "add-port",
        "ovsbr0",
        "more",
        "--",
        "set",
        "interface",
        "more",
        "type=internal",
    ];
    let begun = Instant::now();
    switch.run("ovs-vsctl", &words);
    let took = begun.elapsed();
    switch.run("ovs-vsctl", &["del-port", "ovsbr0", "more"]);
    took
}
