//! A bridge with a hundred ports: how long attaching takes at the beginning and at the end, and the bus service asked for the
//! state of it all. Real switch, real agent, the host's dbus-daemon.

use std::path::Path;
use std::time::{Duration, Instant};

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
    let mut attaching = Vec::new();
    for vmid in 100..100 + PORTS {
        let port = json!({"bridge": "ovsbr0", "port": format!("vi{vmid}"), "kind": "internal", "vmid": vmid,
            "iface_id": format!("ct-{vmid}")});
        let begun = Instant::now();
        ask("ovs-add-port", port).map_err(ScenarioError::Wrong)?;
        attaching.push(begun.elapsed());
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
    let last = Times::new(attaching.split_off(attaching.len() - TENTH));
    attaching.truncate(TENTH);
    let first = Times::new(attaching);
    const FLAT: &str = "attaching a machine's interface, the 91st to 100th of a bridge, p50";
    Ok(Ok(vec![
        Row::time(FLAT, last.p50())
            .beside("1st to 10th", first.p50())
            .ratio_at_most(2.0),
        Row::time(WHAT, times.p50()).at_most(200_000.0),
        Row::time("the same, p99", times.p99()).at_most(200_000.0),
    ]))
}
