//! How long it takes to put an uplink on a new bridge of a real switch (userspace datapath), judged on all four levels, and
//! what is lost on the way. The gateway is in a network namespace of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::row::Row;
use crate::command::{command, run, with_args};
use crate::scenario::ScenarioError;
use crate::world::services::Service;
use crate::world::{World, at};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const LIMIT: Duration = Duration::from_secs(30);
/// Promised in docs/specification.md, in microseconds as the table has them.
const ALLOWED_US: f64 = 2e6;

/// What the agent's policy has to allow for it, beside what the other measurements of a switch need.
pub(super) const ALLOW: &str = "  uplinks: [bench0]\n  ovs_ports: [bench0, 'vi*']\n  \
     ovs_bridges: [benchbr0, ovsbr0, ovsbr1]\n";

/// Measures; without a switch on this machine the reason is noted.
pub(super) fn rows(world: &World, not_run: &mut Vec<String>) -> Result<Vec<Row>, ScenarioError> {
    if !Path::new(SCHEMA).exists() {
        not_run
            .push("uplink on a switch: the package openvswitch-switch is not installed".to_owned());
        return Ok(Vec::new());
    }
    let (mut database, mut daemon) = start_switch(world)?;
    let mut outside = Service::start(
        world,
        "outside",
        with_args("unshare", &["--net", "sleep", "600"]),
    )?;
    wire(&outside)?;
    let words = [
        "net",
        "uplink",
        "attach",
        "--bridge",
        "benchbr0",
        "--uplink",
        "bench0",
        "--datapath",
        "netdev",
        "--json",
    ];
    let begun = Instant::now();
    let output = world.run("blockhost", &words, LIMIT)?;
    let whole = begun.elapsed();
    let report: Value = serde_json::from_str(output.last_line())
        .map_err(|error| ScenarioError::Wrong(format!("uplink attach: {error}")))?;
    if report["outcome"] != "confirmed" {
        return Err(ScenarioError::Wrong(format!("uplink attach: {report}")));
    }
    let judged = Duration::from_millis(report["took_ms"].as_u64().unwrap_or(u64::MAX));
    let gap = Duration::from_millis(report["loss"]["longest_gap_ms"].as_u64().unwrap_or(0));
    let lost = format!(
        "the same, longest gap between answers ({} of {} echoes lost)",
        report["loss"]["lost"], report["loss"]["sent"]
    );
    // What ends by the signal itself has ended as well.
    for service in [&mut daemon, &mut database, &mut outside] {
        let _ = service.stop(LIMIT);
    }
    Ok(vec![
        Row::time("new bridge, uplink handed over and judged", judged).at_most(ALLOWED_US),
        Row::time("the same, the whole command", whole),
        Row::time(&lost, gap),
    ])
}

fn ip(words: &str) -> Result<(), ScenarioError> {
    let words: Vec<&str> = words.split(' ').collect();
    run(with_args("ip", &words), LIMIT)
        .map(drop)
        .map_err(|error| ScenarioError::Wrong(error.to_string()))
}

/// `bench0` with an address and a default route, and a gateway behind it.
fn wire(outside: &Service) -> Result<(), ScenarioError> {
    let pid = outside.pid();
    let own = std::fs::read_link("/proc/self/ns/net");
    let until = Instant::now() + LIMIT;
    // The process is there at once, its namespace a moment later.
    while std::fs::read_link(format!("/proc/{pid}/ns/net")).ok() == own.as_ref().ok().cloned() {
        if Instant::now() > until {
            return Err(ScenarioError::Wrong(
                "no second network namespace".to_owned(),
            ));
        }
        std::thread::yield_now();
    }
    ip(&format!(
        "link add bench0 type veth peer name wire netns {pid}"
    ))?;
    for words in ["ip link set wire up", "ip addr add 192.0.2.1/24 dev wire"] {
        let target = pid.to_string();
        let mut inside = with_args("nsenter", &["-t", &target, "-n"]);
        inside.args(words.split(' '));
        run(inside, LIMIT).map_err(|error| ScenarioError::Wrong(error.to_string()))?;
    }
    ip("link set bench0 up")?;
    ip("addr add 192.0.2.2/24 dev bench0")?;
    ip("route add default via 192.0.2.1 dev bench0 metric 100")?;
    let path = Path::new("/proc/sys/net/ipv4/ping_group_range");
    at("writing", path, std::fs::write(path, "0 2147483647"))?;
    Ok(())
}

fn start_switch(world: &World) -> Result<(Service, Service), ScenarioError> {
    let directory = world.layout.switch_sockets();
    at("making", &directory, std::fs::create_dir_all(&directory))?;
    let (file, socket) = (directory.join("conf.db"), directory.join("db.sock"));
    // Of the switch of another measurement.
    let _ = std::fs::remove_file(&file);
    let wrong = |error: crate::command::RunError| ScenarioError::Wrong(error.to_string());
    let mut create = command("ovsdb-tool");
    create.arg("create").arg(&file).arg(SCHEMA);
    run(create, LIMIT).map_err(wrong)?;
    let program = |name: &str| {
        let mut program = command(name);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            program.env(variable, &directory);
        }
        program
            .args(["--no-chdir", "--pidfile"])
            .stdin(Stdio::null());
        program
    };
    let mut database = program("ovsdb-server");
    database
        .arg(format!("--remote=punix:{}", socket.display()))
        .arg(&file);
    let database = Service::start(world, "ovsdb-server", database)?;
    let until = Instant::now() + LIMIT;
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        if Instant::now() > until {
            return Err(ScenarioError::Wrong(
                "ovsdb-server does not come up".to_owned(),
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut init = command("ovs-vsctl");
    init.arg("--no-wait")
        .arg(format!("--db=unix:{}", socket.display()))
        .arg("init");
    run(init, LIMIT).map_err(wrong)?;
    let mut daemon = program("ovs-vswitchd");
    daemon.arg(format!("unix:{}", socket.display()));
    Ok((database, Service::start(world, "ovs-vswitchd", daemon)?))
}
