//! The bus service asked for the state of a network with a hundred ports: real switch, real agent, the host's dbus-daemon.

use std::path::Path;
use std::time::Duration;

use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::Client;
use serde_json::json;

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
/// The service tells what it saw of the switch for a quarter of a second; each request here has to look.
const PAUSE: Duration = Duration::from_millis(300);

/// Its lines of the table, or why there are none. Puts another `/run` over the world's, so it comes last.
pub(super) fn rows(world: &World) -> Result<Result<Vec<Row>, String>, ScenarioError> {
    let without = missing(false)
        .or_else(|| (!switch::installed()).then(|| "needs openvswitch-switch".to_owned()));
    if let Some(why) = without {
        return Ok(Err(format!("state query over D-Bus: {why}")));
    }
    let _switch = Switch::start(&world.layout.switch_sockets());
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
    for vmid in 100..100 + PORTS {
        let port = json!({"bridge": "ovsbr0", "port": format!("vi{vmid}"), "kind": "internal", "vmid": vmid,
            "iface_id": format!("ct-{vmid}")});
        ask("ovs-add-port", port).map_err(ScenarioError::Wrong)?;
    }
    let mut bus = SystemBus::start(world, Polkit::Absent)?;
    let mut connection = greet(Path::new("/run/dbus/system_bus_socket"))?;
    let mut times = Vec::new();
    for serial in 2..2 + REQUESTS {
        std::thread::sleep(PAUSE);
        let serial = u32::try_from(serial).unwrap_or(2);
        let request = wire::dbus_call(serial, NAME, PATH, NAME, "GetSystemNetworkState");
        times.push(connection.ask_well(&request)?);
    }
    let times = Times::new(times);
    bus.service.stop(Duration::from_secs(20))?;
    bus.daemon.stop(Duration::from_secs(5))?;
    const WHAT: &str = "GetSystemNetworkState over D-Bus, 100 ports, p50";
    Ok(Ok(vec![
        Row::time(WHAT, times.p50()).at_most(200_000.0),
        Row::time("the same, p99", times.p99()).at_most(200_000.0),
    ]))
}
