//! A real switch of a test's own and the handler that drives it: the userspace datapath, its files under the world's
//! root, in a network namespace of its own, gone with the test.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

// The end-to-end tests and the benchmark run the same switch; that crate is too large to depend on.
#[path = "../../../tests/src/switch.rs"]
mod processes;

#[allow(unused_imports, reason = "every test binary uses its own part of this")]
pub use processes::eventually;

use std::ops::{Deref, DerefMut};

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Done, Failure, Handler, ovs};
use serde_json::{Value, json};

use crate::compartment_world::{World, in_namespace, is_root, tool};

/// A world with a switch and the handler that drives it.
pub struct Switch {
    // Before the world, so that it ends before its files go.
    processes: processes::Switch,
    pub world: World,
    pub handler: Box<dyn Handler>,
}

impl Deref for Switch {
    type Target = processes::Switch;
    fn deref(&self) -> &Self::Target {
        &self.processes
    }
}

impl DerefMut for Switch {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.processes
    }
}

/// Runs `body` in a network namespace with a running switch; says so where there is none to be had.
pub fn with_switch(test: &str, body: impl FnOnce(&mut Switch)) {
    if !processes::installed() {
        println!("skipped: {test} needs the package openvswitch-switch");
        return;
    }
    in_namespace(test, || {
        tool("ip link set lo up");
        body(&mut Switch::start());
    });
}

/// Whether these tests can run at all, for those that do not use [`with_switch`].
pub fn possible() -> bool {
    is_root() && processes::installed()
}

impl Switch {
    pub fn start() -> Self {
        Self::start_in(World::new())
    }

    /// In a world that is there already, as an agent's is.
    pub fn start_in(world: World) -> Self {
        let handler = world.start(ovs::prepare).expect("an ovs compartment");
        // The directory was not there when the handler was made: as on a host where the switch is installed later.
        Self {
            processes: processes::Switch::start(&world.layout.switch_sockets()),
            handler,
            world,
        }
    }

    /// Stops ovs-vswitchd where it is, or lets it go on.
    pub fn freeze_daemon(&self, frozen: bool) {
        let id = self.daemon_id();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        tool(&format!("kill {signal} {id}"));
    }

    pub fn ask(&self, name: &str, params: &Value) -> Result<Done, Failure> {
        self.world.ask(&*self.handler, name, params)
    }

    /// An action that must succeed.
    pub fn must(&self, name: &str, params: &Value) -> Done {
        match self.ask(name, params) {
            Ok(done) => done,
            Err(failure) => panic!("{name} {params}: {}\n{}", failure.message, self.log()),
        }
    }

    /// A bridge of the userspace datapath.
    pub fn bridge(&self, name: &str) {
        self.must(
            "ovs-add-br",
            &json!({"bridge": name, "options": {"datapath_type": "netdev"}}),
        );
    }

    pub fn list(&self, params: &Value) -> Value {
        serde_json::from_str(&self.must("ovs-list", params).output).expect("JSON")
    }
}

/// It came to nothing, with this code and these words in one line.
pub fn failed(result: Result<Done, Failure>, code: ErrorCode, text: &str) {
    let failure = result.expect_err("it must not succeed");
    assert_eq!(failure.code, code, "{}", failure.message);
    assert!(failure.message.contains(text), "{}", failure.message);
    assert!(!failure.message.contains('\n'), "{}", failure.message);
}

/// An Ethernet device with its other end, both up.
pub fn veth(name: &str) {
    tool(&format!(
        "ip link add {name} type veth peer name {name}-peer"
    ));
    for end in [name.to_owned(), format!("{name}-peer")] {
        tool(&format!("ip link set {end} up"));
    }
}
