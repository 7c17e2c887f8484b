//! The switch driven through a whole agent: allowlist, records, threads and a killed compartment, all under the
//! confinement of the real process.

mod common;
mod compartment_world;
mod ovs_world;

use common::{Agent, signal_process};
use compartment_world::{World, in_namespace};
use ovs_world::{Switch, veth};
use rustix::process::Signal;
use serde_json::{Value, json};

fn call(action: &str, params: Value) -> Value {
    json!({"action": action, "params": params})
}

#[test]
fn an_agent_drives_the_switch_and_a_killed_ovs_process_comes_back_to_it() {
    if !ovs_world::possible() {
        println!("skipped: needs root and the package openvswitch-switch");
        return;
    }
    const TEST: &str = "an_agent_drives_the_switch_and_a_killed_ovs_process_comes_back_to_it";
    in_namespace(TEST, || {
        let world = common::World::new("");
        let switch = Switch::start_in(World::at(world.layout.root()));
        let mut agent = Agent::start_in(world);
        let mut client = agent.client();
        let netdev = json!({"datapath_type": "netdev"});
        for bridge in ["ovsbr0", "ovsbr1"] {
            let answer = client.call(&call(
                "ovs-add-br",
                json!({"bridge": bridge, "options": netdev}),
            ));
            assert_eq!(answer["ok"], true, "{answer}");
        }
        let answer = client.call(&call(
            "ovs-add-br",
            json!({"bridge": "elsewhere", "options": netdev}),
        ));
        assert_eq!(answer["code"], "forbidden", "{answer}");
        assert_eq!(switch.vsctl("list-br"), "ovsbr0\novsbr1");

        let own = agent.pid("ovs").expect("the process");
        let root = std::fs::read_link(format!("/proc/{own}/root")).expect("a link");
        assert_eq!(
            root,
            switch.directory(),
            "it sees more than the switch's directory"
        );

        // Both bridges at once, so that threads come and go inside the filter.
        for round in 0..10 {
            for bridge in ["ovsbr0", "ovsbr1"] {
                let flows = json!([{"priority": round + 1, "actions": ["drop"]}]);
                client.request(&call(
                    "ovs-set-flows",
                    json!({"bridge": bridge, "owner": "a", "flows": flows}),
                ));
            }
        }
        for _ in 0..20 {
            let answer = client.answer().expect("an answer");
            assert_eq!(answer["ok"], true, "{answer}");
        }
        assert_eq!(switch.flows("ovsbr0").len(), 2);

        signal_process(own, Signal::KILL);
        let new = agent.wait_for_new("ovs", own);
        assert_ne!(own, new);
        veth("vi100");
        let answer = client.call(&call(
            "ovs-add-port",
            json!({"bridge": "ovsbr0", "port": "vi100"}),
        ));
        assert_eq!(answer["ok"], true, "{answer}");
        assert!(
            answer["ofport"].is_u64() && answer["receipt"].is_object(),
            "{answer}"
        );
        let answer = client.call(&call(
            "ovs-add-port",
            json!({"bridge": "ovsbr0", "port": "vi999"}),
        ));
        assert_eq!(answer["code"], "failed", "{answer}");
        agent.stop();
    });
}
