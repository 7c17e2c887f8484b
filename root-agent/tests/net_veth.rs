//! Alternative names in real network namespaces, compared with what `ip` says.

mod compartment_world;

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Handler, net};
use compartment_world::{World, code, in_namespace, tool};
use serde_json::{Value, json};

struct Net {
    world: World,
    handler: Box<dyn Handler>,
}

impl Net {
    fn new() -> Self {
        let world = World::new();
        let handler = world.start(net::prepare).expect("a net compartment");
        Self { world, handler }
    }

    fn rename(&self, params: &Value) -> Result<String, ErrorCode> {
        let result = self.world.ask(&*self.handler, "veth-rename", params);
        match result {
            Ok(done) => Ok(done.extra["name"].as_str().expect("a name").to_owned()),
            Err(failure) => {
                println!("{}", failure.message);
                Err(failure.code)
            }
        }
    }
}

fn names(device: &str) -> Vec<String> {
    let links: Value =
        serde_json::from_str(&tool(&format!("ip -j -d link show {device}"))).expect("JSON");
    let list = links[0]["altnames"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn the_hosts_end_is_found_by_both_names_and_keeps_its_own() {
    in_namespace(
        "the_hosts_end_is_found_by_both_names_and_keeps_its_own",
        || {
            tool("ip link add veth100i0 type veth peer name inside0");
            tool("ip link add veth100i3 type veth peer name inside3");
            let net = Net::new();
            assert_eq!(net.rename(&json!({"vmid": 100})), Ok("vi100".into()));
            assert_eq!(
                net.rename(&json!({"vmid": 100, "index": 3})),
                Ok("vi100_3".into())
            );
            assert_eq!(names("veth100i0"), ["vi100"]);
            assert_eq!(names("veth100i3"), ["vi100_3"]);
            // What the switch and people will do with it.
            tool("ip link set vi100 up");
            // Again is a success and adds nothing.
            assert_eq!(
                net.rename(&json!({"vmid": 100, "index": 0})),
                Ok("vi100".into())
            );
            assert_eq!(names("veth100i0"), ["vi100"]);
        },
    );
}

#[test]
fn a_container_that_is_not_there_is_not_found_and_a_name_of_another_is_not_taken() {
    in_namespace(
        "a_container_that_is_not_there_is_not_found_and_a_name_of_another_is_not_taken",
        || {
            tool("ip link add veth100i0 type veth peer name inside0");
            tool("ip link add veth101i0 type veth peer name inside1");
            tool("ip link add vi102 type veth peer name inside2");
            tool("ip link property add dev veth101i0 altname vi100");
            let net = Net::new();
            assert_eq!(net.rename(&json!({"vmid": 999})), Err(ErrorCode::NotFound));
            assert_eq!(net.rename(&json!({"vmid": 100})), Err(ErrorCode::Conflict));
            assert!(names("veth100i0").is_empty());
            assert_eq!(names("veth101i0"), ["vi100"]);
            // Named so from the start by the embedded backend.
            assert_eq!(net.rename(&json!({"vmid": 102})), Ok("vi102".into()));
        },
    );
}

#[test]
fn a_device_that_only_looks_like_a_containers_is_left_alone() {
    in_namespace(
        "a_device_that_only_looks_like_a_containers_is_left_alone",
        || {
            tool("ip link add veth100i0 type bridge");
            tool("ip link add plain type veth peer name other");
            tool("ip link property add dev plain altname veth101i0");
            let net = Net::new();
            assert_eq!(net.rename(&json!({"vmid": 100})), Err(ErrorCode::Conflict));
            assert_eq!(net.rename(&json!({"vmid": 101})), Err(ErrorCode::NotFound));
            assert!(names("veth100i0").is_empty());
            assert_eq!(names("plain"), ["veth101i0"]);
        },
    );
}

#[test]
fn a_machine_outside_the_policys_range_is_refused() {
    in_namespace("a_machine_outside_the_policys_range_is_refused", || {
        tool("ip link add veth100i0 type veth peer name inside0");
        let world = World::new();
        let handler = world.start(net::prepare).expect("a net compartment");
        // The type refuses what no container can have; the list is the front's and is checked there and in the runner.
        let action = blockhost_proto::Action::from_parts("veth-rename", &json!({"vmid": 100}))
            .expect("valid");
        let mut allow = blockhost_root_agent::allow::Allowlists::default();
        allow.vmids = blockhost_root_agent::allow::Vmids::range(200, 300);
        assert_eq!(allow.check(&action).unwrap_err().code, ErrorCode::Forbidden);
        drop(handler);
        assert_eq!(
            code(world.ask(
                &*world.start(net::prepare).expect("net"),
                "veth-rename",
                &json!({"vmid": 555})
            )),
            ErrorCode::NotFound
        );
    });
}
