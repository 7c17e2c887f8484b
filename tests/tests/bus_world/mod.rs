//! A stage for tests of the bus service: switch, agent, bus, polkit, all real, and callers of every kind.

use std::path::PathBuf;
use std::time::Duration;

use blockhost_tests::command::{RunError, run, with_args};
use blockhost_tests::namespace::test_ran_inside;
use blockhost_tests::switch::{self, Switch};
use blockhost_tests::world::bus::{As, NAME, PATH, Polkit, SystemBus, client, missing};
use blockhost_tests::world::services::{Service, start_agent};
use blockhost_tests::world::{AGENT_ONLY, World, built_programs};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(300);
/// Everything that runs, in the order in which it is to end.
pub struct Stage {
    pub bus: SystemBus,
    pub agent: Service,
    pub switch: Switch,
    pub world: World,
    _directory: tempfile::TempDir,
}

/// A stage, or `None` where the body has run elsewhere or cannot run here.
pub fn stage(test: &str, polkit: Polkit<'_>) -> Option<Stage> {
    let absent = missing(matches!(polkit, Polkit::Rules(_)));
    let absent =
        absent.or_else(|| (!switch::installed()).then(|| "needs openvswitch-switch".to_owned()));
    if let Some(why) = absent {
        println!("skipped: {test} {why}; run: bash scripts/setup.sh");
        return None;
    }
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(test, &init, LIMIT) {
        return None;
    }
    let directory = tempfile::Builder::new()
        .prefix("blockhost-bus-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let programs = [AGENT_ONLY, &["blockhost-bus", "blockhost"]].concat();
    let world = World::create(directory.path(), &built_programs(), &programs).expect("a world");
    let switch = Switch::start(&world.layout.switch_sockets());
    let agent = start_agent(&world).expect("the agent starts");
    let bus = SystemBus::start(&world, polkit).expect("the bus starts");
    Some(Stage {
        bus,
        agent,
        switch,
        world,
        _directory: directory,
    })
}

impl Stage {
    /// A bridge of the userspace datapath, made by the agent.
    pub fn bridge(&self, name: &str) {
        let options = r#"options={"datapath_type":"netdev"}"#;
        let bridge = format!("bridge={name}");
        let words = ["agent", "call", "ovs-add-br", &bridge, options];
        self.world
            .run("blockhost", &words, Duration::from_secs(60))
            .expect("a bridge");
    }

    pub fn records(&self) -> Vec<Value> {
        let words = ["ledger", "export", "--jsonl"];
        let text = self
            .world
            .run("blockhost", &words, Duration::from_secs(60))
            .expect("an export")
            .stdout;
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// Writes down every signal of ours from now on.
    pub fn listen(&self) -> Service {
        let words = ["monitor", "--system", "--dest", NAME, "--object-path", PATH];
        let start = client(As::Blockhost, "gdbus", &words);
        let mut listener = Service::start(&self.world, "signals", start).expect("gdbus starts");
        let log = listener.log().to_owned();
        let ready = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("is owned by"));
        listener
            .wait_until("listening", Duration::from_secs(20), ready)
            .expect("gdbus listens");
        listener
    }

    pub fn end(mut self) {
        self.bus
            .service
            .stop(Duration::from_secs(20))
            .expect("ends when it is asked to");
        self.agent.stop(Duration::from_secs(30)).expect("ends");
    }
}

pub fn signals(listener: &Service) -> String {
    std::fs::read_to_string(listener.log()).expect("a log")
}

/// A container's interface as Proxmox makes it; the other end stands for the container.
pub fn veth(name: &str) {
    let peer = format!("{name}p");
    for words in [
        vec!["link", "add", name, "type", "veth", "peer", "name", &peer],
        vec!["link", "set", name, "up"],
        vec!["link", "set", &peer, "up"],
    ] {
        run(with_args("ip", &words), Duration::from_secs(10)).expect("a device");
    }
}

/// What a method with one string as its answer says, as JSON.
pub fn asked(who: As, method: &str, arguments: &[&str]) -> Value {
    let mut ask = client(
        who,
        "busctl",
        &[
            "--json=short",
            "call",
            "--timeout=60",
            NAME,
            PATH,
            NAME,
            method,
        ],
    );
    ask.args(arguments);
    let output =
        run(ask, Duration::from_secs(90)).unwrap_or_else(|error| panic!("{method}: {error}"));
    let answer: Value = serde_json::from_str(&output.stdout).expect("busctl prints JSON");
    match answer["data"][0].as_str() {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
        None => answer["data"][0].clone(),
    }
}

/// What a refused call is called, as gdbus says it.
pub fn refusal(who: As, method: &str, arguments: &[&str]) -> String {
    let method = format!("{NAME}.{method}");
    let mut ask = client(
        who,
        "gdbus",
        &[
            "call",
            "--system",
            "--timeout",
            "60",
            "--dest",
            NAME,
            "--object-path",
            PATH,
            "--method",
            &method,
        ],
    );
    ask.args(arguments);
    match run(ask, Duration::from_secs(90)) {
        Err(RunError::Failed { stderr, .. }) => stderr,
        other => panic!("{method} {arguments:?} was not refused: {other:?}"),
    }
}
