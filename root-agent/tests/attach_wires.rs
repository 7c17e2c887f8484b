//! Wires into network namespaces of other processes: real ones, with real packets, compared with what `ip` says there.

mod compartment_world;
mod second_net;

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Backend, Handler, Identities, Identity, attach};
use blockhost_root_agent::confine::irrevocably_confine;
use blockhost_root_agent::confine::profile::{Inputs, profile};
use blockhost_root_agent::ipc::Role;
use blockhost_root_agent::policy::{LandlockChoice, WireguardChoice};
use compartment_world::{GROUP, USER, World, again, again_in, in_namespace, tool, try_tool};
use second_net::SecondNet;
use serde_json::{Map, Value, json};

const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const OTHER: &str = "2222222222222222222222222222222222222222222222222222222222222222";

struct Attach {
    world: World,
    handler: Box<dyn Handler>,
}

impl Attach {
    fn new() -> Self {
        let mut world = World::new();
        world.policy.containers.attach = true;
        let handler = world.start(attach::prepare).expect("an attach compartment");
        Self { world, handler }
    }

    fn ask(&self, name: &str, params: &Value) -> Result<Map<String, Value>, ErrorCode> {
        ask(&self.world, &*self.handler, name, params)
    }

    fn look(&self, pid: u32) -> Result<u64, ErrorCode> {
        let extra = self.ask("container-look", &json!({"pid": pid}))?;
        Ok(extra["netns"].as_u64().expect("a number"))
    }

    /// A wire for a process, with changes to what is usually asked.
    fn wire(&self, pid: u32, changes: Value) -> Result<Map<String, Value>, ErrorCode> {
        self.ask("container-attach", &wire(self.look(pid)?, pid, changes))
    }

    fn detach(&self, container: &str, port: &str) -> Result<Map<String, Value>, ErrorCode> {
        let params = json!({"container": container, "port": port});
        self.ask("container-detach", &params)
    }
}

fn ask(
    world: &World,
    handler: &dyn Handler,
    name: &str,
    params: &Value,
) -> Result<Map<String, Value>, ErrorCode> {
    match world.ask(handler, name, params) {
        Ok(done) => Ok(done.extra),
        Err(failure) => {
            println!("{}", failure.message);
            assert!(!failure.message.contains('\n'));
            Err(failure.code)
        }
    }
}

fn wire(netns: u64, pid: u32, changes: Value) -> Value {
    let mut params = json!({
        "container": ONE, "pid": pid, "netns": netns, "port": "bhc1", "interface": "bh0",
        "addresses": ["10.101.0.7/24"],
    });
    let members = params.as_object_mut().expect("an object");
    let Value::Object(changes) = changes else {
        panic!("changes are an object");
    };
    members.extend(changes);
    params
}

/// Names of the devices here that are not the kernel's own.
fn devices() -> Vec<String> {
    names(&tool("ip -j link show"))
}

fn names(json: &str) -> Vec<String> {
    let list: Vec<Value> = serde_json::from_str(json).expect("JSON");
    let name = |link: &Value| link["ifname"].as_str().expect("a name").to_owned();
    let mut names: Vec<String> = list.iter().map(name).collect();
    names.retain(|name| name != "lo");
    names
}

fn inside(net: &SecondNet) -> Vec<String> {
    names(&net.run("ip -j link show"))
}

#[test]
fn a_wire_carries_packets_and_its_end_inside_is_as_asked() {
    in_namespace(
        "a_wire_carries_packets_and_its_end_inside_is_as_asked",
        || {
            let (attach, net) = (Attach::new(), SecondNet::new());
            let asked = json!({
                "mac": "02:00:00:00:00:07", "mtu": 1420,
                "addresses": ["10.101.0.7/24", "fd0a:101::7/64"],
                "gateway4": "10.101.0.1", "gateway6": "fe80::1",
            });
            let extra = attach.wire(net.pid(), asked.clone()).expect("attached");
            assert_eq!(extra["new"], true);
            assert_eq!(extra["mac"], "02:00:00:00:00:07");
            let shown: Value =
                serde_json::from_str(&net.run("ip -j -d addr show bh0")).expect("JSON");
            assert_eq!(shown[0]["address"], "02:00:00:00:00:07");
            assert_eq!(shown[0]["mtu"], 1420);
            let netns = attach.look(net.pid()).expect("looked");
            let beside = format!("blockhost:container:{ONE} {netns} 10.101.0.7/24 fd0a:101::7/64");
            assert_eq!(shown[0]["ifalias"], beside);
            assert!(tool("ip -d link show bhc1").contains(&beside));
            let routes = net.run("ip route show default") + &net.run("ip -6 route show default");
            assert!(
                routes.contains("default via 10.101.0.1 dev bh0"),
                "{routes}"
            );
            assert!(routes.contains("default via fe80::1 dev bh0"), "{routes}");
            // The host's end has the other address of the network: a real question and a real answer over the wire.
            tool("ip addr add 10.101.0.1/24 dev bhc1");
            tool("ip addr add fd0a:101::1/64 dev bhc1 nodad");
            net.run("ping -c 1 -W 5 10.101.0.1");
            net.run("ping -c 1 -W 5 fd0a:101::1");
            tool("ping -c 1 -W 5 10.101.0.7");

            // The same again changes nothing, other wishes only what differs: the wire stays what it is.
            let index = tool("ip -o link show bhc1");
            assert_eq!(attach.wire(net.pid(), asked).expect("again")["new"], false);
            let less = json!({"addresses": ["10.101.0.8/24"], "mtu": 1300});
            assert_eq!(attach.wire(net.pid(), less).expect("changed")["new"], false);
            let now = net.run("ip addr show bh0");
            assert!(
                now.contains("10.101.0.8/24") && now.contains("mtu 1300"),
                "{now}"
            );
            assert!(
                !now.contains("10.101.0.7/24") && !now.contains("fd0a:101::7"),
                "{now}"
            );
            let routes = net.run("ip route show default") + &net.run("ip -6 route show default");
            assert_eq!(routes.trim(), "", "the routers stayed");
            let number = |line: &str| line.split(':').next().map(str::to_owned);
            assert_eq!(number(&tool("ip -o link show bhc1")), number(&index));

            attach.detach(ONE, "bhc1").expect("detached");
            assert!(devices().is_empty() && inside(&net).is_empty());
            assert_eq!(attach.detach(ONE, "bhc1"), Err(ErrorCode::NotFound));
        },
    );
}

#[test]
fn the_end_inside_has_never_been_a_device_of_the_host() {
    in_namespace("the_end_inside_has_never_been_a_device_of_the_host", || {
        let (attach, net) = (Attach::new(), SecondNet::new());
        // Whoever is on the host could not have seen it: its name is free there, and taken by somebody else all the time.
        tool("ip link add bh0 type bridge");
        attach.wire(net.pid(), json!({})).expect("attached");
        assert_eq!(inside(&net), ["bh0"]);
        let mut here = devices();
        here.sort();
        assert_eq!(here, ["bh0", "bhc1"]);
        assert!(tool("ip -d link show bh0").contains("bridge"));
    });
}

/// A shell that is the first process of all stays outside, as does what it starts first; the test runs in another network.
const BESIDE_THE_FIRST: [&str; 9] = [
    "unshare",
    "--pid",
    "--fork",
    "--mount-proc",
    "--",
    "sh",
    "-c",
    "sleep 1000 & BLOCKHOST_TEST_BESIDE=$! unshare --net -- \"$@\"; exit $?",
    "sh",
];

#[test]
fn a_process_in_the_hosts_network_is_never_entered() {
    let test = "a_process_in_the_hosts_network_is_never_entered";
    again(test, &BESIDE_THE_FIRST, || {
        let attach = Attach::new();
        // This process, in the agent's own namespace; the one in that of the first process of all, where it is not.
        let beside = std::env::var("BLOCKHOST_TEST_BESIDE").expect("a process");
        let beside: u32 = beside.parse().expect("a number");
        assert_ne!(
            number_of("/proc/self/ns/net"),
            number_of(&format!("/proc/{beside}/ns/net"))
        );
        for pid in [std::process::id(), beside] {
            assert_eq!(attach.look(pid), Err(ErrorCode::Forbidden), "{pid}");
            let params = wire(number_of("/proc/self/ns/net"), pid, json!({}));
            let ended = attach.ask("container-attach", &params);
            assert_eq!(ended, Err(ErrorCode::Forbidden), "{pid}");
        }
        assert!(devices().is_empty());
    });
}

fn number_of(path: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).expect("a namespace").ino()
}

#[test]
fn a_process_that_is_not_what_was_looked_at_is_left_alone() {
    in_namespace(
        "a_process_that_is_not_what_was_looked_at_is_left_alone",
        || {
            let attach = Attach::new();
            let (gone, other) = (SecondNet::new(), SecondNet::new());
            let (pid, netns) = (gone.pid(), attach.look(gone.pid()).expect("looked"));
            assert_eq!(netns, number_of(&format!("/proc/{pid}/ns/net")));
            // As if the number of the process had been given to another one meanwhile.
            let mistaken = wire(netns, other.pid(), json!({}));
            let ended = attach.ask("container-attach", &mistaken);
            assert_eq!(ended, Err(ErrorCode::Conflict));
            drop(gone);
            let ended = attach.ask("container-attach", &wire(netns, pid, json!({})));
            assert_eq!(ended, Err(ErrorCode::NotFound));
            assert_eq!(attach.look(pid), Err(ErrorCode::NotFound));
            assert!(devices().is_empty() && inside(&other).is_empty());
            // A thread is no process, and a process that has ended and is not waited for has no namespaces.
            let (send, wait) = std::sync::mpsc::channel::<()>();
            let (tell, told) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                tell.send(rustix::thread::gettid().as_raw_pid())
                    .expect("told");
                let _ = wait.recv();
            });
            let thread_id = u32::try_from(told.recv().expect("a number")).expect("positive");
            assert_eq!(attach.look(thread_id), Err(ErrorCode::NotFound));
            drop(send);
            thread.join().expect("the thread");
            #[expect(
                clippy::disallowed_methods,
                reason = "the test needs a process that ends"
            )]
            let mut ended = std::process::Command::new("true").spawn().expect("true");
            let stat = format!("/proc/{}/stat", ended.id());
            while !std::fs::read_to_string(&stat)
                .expect("stat")
                .contains(") Z ")
            {
                std::thread::yield_now();
            }
            assert_eq!(attach.look(ended.id()), Err(ErrorCode::NotFound));
            ended.wait().expect("waited");
        },
    );
}

#[test]
fn names_of_others_are_neither_used_nor_taken_away() {
    in_namespace("names_of_others_are_neither_used_nor_taken_away", || {
        let (attach, net, second) = (Attach::new(), SecondNet::new(), SecondNet::new());
        let conflict = Err(ErrorCode::Conflict);
        // A device of somebody else on the host, of the same kind, with the very text beside it that ours have.
        tool("ip link add bhc1 type veth peer name away");
        tool(&format!("ip link set bhc1 alias blockhost:container:{ONE}"));
        assert_eq!(attach.wire(net.pid(), json!({})), conflict);
        assert_eq!(attach.detach(ONE, "bhc1"), conflict);
        tool("ip link del bhc1");
        // Only its second name.
        tool("ip link add plain type veth peer name away");
        tool("ip link property add dev plain altname bhc1");
        assert_eq!(attach.wire(net.pid(), json!({})), conflict);
        assert_eq!(attach.detach(ONE, "bhc1"), conflict);
        tool("ip link del plain");
        // An interface of the container's own; nothing of a wire is left behind.
        net.run("ip link add bh0 type bridge");
        assert_eq!(attach.wire(net.pid(), json!({})), conflict);
        assert_eq!((devices().len(), inside(&net)), (0, vec!["bh0".to_owned()]));
        net.run("ip link del bh0");
        // Another container's wire.
        attach.wire(net.pid(), json!({})).expect("attached");
        let theirs = json!({"container": OTHER});
        assert_eq!(attach.wire(second.pid(), theirs), conflict);
        assert_eq!(attach.detach(OTHER, "bhc1"), conflict);
        assert_eq!(inside(&net), ["bh0"]);
        assert!(inside(&second).is_empty());
        // The container names its end differently and gives the name to something else: its own loss.
        net.run("ip link set bh0 down");
        net.run("ip link set bh0 name mine");
        net.run("ip link add bh0 type bridge");
        assert_eq!(attach.wire(net.pid(), json!({})), conflict);
        assert_eq!(devices(), ["bhc1"]);
    });
}

#[test]
fn a_container_that_comes_back_gets_a_new_wire_whatever_is_left_of_the_old_one() {
    let test = "a_container_that_comes_back_gets_a_new_wire_whatever_is_left_of_the_old_one";
    in_namespace(test, || {
        let attach = Attach::new();
        let first = SecondNet::new();
        attach.wire(first.pid(), json!({})).expect("attached");
        // Its network is kept alive, as a manager's bind mount does it, while it runs in a new one.
        let second = SecondNet::new();
        assert_eq!(
            attach.wire(second.pid(), json!({})).expect("anew")["new"],
            true
        );
        assert!(inside(&first).is_empty());
        assert_eq!(inside(&second), ["bh0"]);
        // Gone with everything: the wire goes by itself.
        drop(second);
        while !devices().is_empty() {
            std::thread::yield_now();
        }
        let third = SecondNet::new();
        assert_eq!(
            attach.wire(third.pid(), json!({})).expect("anew")["new"],
            true
        );
    });
}

#[test]
fn what_fails_half_way_leaves_nothing() {
    in_namespace("what_fails_half_way_leaves_nothing", || {
        let (attach, net) = (Attach::new(), SecondNet::new());
        net.run("ip link add own type bridge");
        net.run("ip link set own up");
        net.run("ip addr add 10.5.0.2/24 dev own");
        net.run("ip route add default via 10.5.0.1 metric 1024");
        let router = json!({"gateway4": "10.101.0.1"});
        assert_eq!(
            attach.wire(net.pid(), router.clone()),
            Err(ErrorCode::Failed)
        );
        assert_eq!((devices().len(), inside(&net)), (0, vec!["own".to_owned()]));
        assert!(net.run("ip route show default").contains("10.5.0.1"));
        net.run("ip route del default");
        // The container's manager has another metric: both are there, and its own is preferred.
        net.run("ip route add default via 10.5.0.1");
        attach.wire(net.pid(), router).expect("attached");
        let routes = net.run("ip route show default");
        assert!(
            routes.contains("10.5.0.1") && routes.contains("10.101.0.1"),
            "{routes}"
        );
        attach.detach(ONE, "bhc1").expect("detached");

        let (changed, _) = net.try_run(
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
        );
        if !changed {
            println!("skipped: the kernel's settings cannot be changed here");
            return;
        }
        let six = json!({"addresses": ["10.101.0.7/24", "fd0a:101::7/64"]});
        assert_eq!(attach.wire(net.pid(), six), Err(ErrorCode::Failed));
        assert_eq!((devices().len(), inside(&net)), (0, vec!["own".to_owned()]));
    });
}

/// Confines this process as the compartment is.
fn confine(world: &World) {
    let identity = Identity {
        uid: USER,
        gid: GROUP,
    };
    let inputs = Inputs {
        layout: &world.layout,
        identities: Identities {
            agent: identity,
            blockhost: identity,
            vm: identity,
            image: identity,
        },
        backend: Backend::Embedded,
        landlock: LandlockChoice::Required,
        wireguard: WireguardChoice::Kernel,
        programs: &[],
        image_dirs: &[],
        template_dirs: &[],
        image_network: false,
        attach: world.policy.containers.attach,
    };
    irrevocably_confine(&profile(Role::Attach, &inputs)).expect("confined");
}

#[test]
fn everything_works_with_what_the_compartment_holds_also_for_a_container_in_a_user_namespace() {
    let test =
        "everything_works_with_what_the_compartment_holds_also_for_a_container_in_a_user_namespace";
    let outside = again_in(
        test,
        &["unshare", "--net", "--"],
        |_| {},
        |world| {
            world.policy.containers.attach = true;
            let net = SecondNet::new();
            let mapped = SecondNet::in_user_namespace();
            let handler = world.start(attach::prepare).expect("an attach compartment");
            let pids: Vec<u32> = [Some(&net), mapped.as_ref()]
                .into_iter()
                .flatten()
                .map(SecondNet::pid)
                .collect();
            if mapped.is_none() {
                println!("skipped: this host makes no user namespaces");
            }
            // One system call too many ends the process, so what follows has no assertions that print: a file is not
            // within reach, standard output is open.
            confine(world);
            for pid in pids {
                let look = json!({"pid": pid});
                let netns = ask(world, &*handler, "container-look", &look).expect("looked");
                let netns = netns["netns"].as_u64().expect("a number");
                let wanted = json!({
                    "mtu": 1400, "mac": "02:00:00:00:00:08", "gateway4": "10.101.0.1",
                    "addresses": ["10.101.0.7/24", "fd0a:101::7/64"], "gateway6": "fd0a:101::1",
                });
                let params = wire(netns, pid, wanted);
                for new in [true, false] {
                    let extra = ask(world, &*handler, "container-attach", &params);
                    assert_eq!(extra.expect("attached")["new"], new);
                }
                let gone = json!({"container": ONE, "port": "bhc1"});
                ask(world, &*handler, "container-detach", &gone).expect("detached");
            }
            // What the harness would do now is not on the list.
            std::process::exit(0);
        },
    );
    drop(outside);
}

#[test]
fn where_the_policy_leaves_it_off_nothing_is_done() {
    in_namespace("where_the_policy_leaves_it_off_nothing_is_done", || {
        let mut attach = Attach::new();
        attach.world.policy.containers.attach = false;
        attach.handler = attach.world.start(attach::prepare).expect("a handler");
        let net = SecondNet::new();
        assert_eq!(attach.look(net.pid()), Err(ErrorCode::Forbidden));
        let netns = number_of(&format!("/proc/{}/ns/net", net.pid()));
        let ended = attach.ask("container-attach", &wire(netns, net.pid(), json!({})));
        assert_eq!(ended, Err(ErrorCode::Forbidden));
        assert!(inside(&net).is_empty());
        assert!(try_tool("ip link show bhc1").1.contains("does not exist"));
    });
}
