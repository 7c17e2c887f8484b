//! Tunnels in real network namespaces, with the daemon where the kernel has no WireGuard, compared with what `wg` and `ip`
//! say; packets really sent through one.

mod compartment_world;
mod second_net;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{
    Backend, Done, Handler, Identities, Identity, StartInfo, net,
};
use blockhost_root_agent::policy::WireguardChoice;
use compartment_world::{World, again, in_namespace, set_mode, tool, try_tool};
use second_net::SecondNet;
use serde_json::{Value, json};

/// A namespace for networks, and a `/var/run/wireguard` of this test's own: the daemons of all tests would meet there.
fn in_private_world(test: &str, body: impl FnOnce()) {
    again(
        test,
        &[
            "unshare",
            "--net",
            "--mount",
            "--propagation",
            "private",
            "--",
        ],
        || {
            if !try_tool("wireguard-go --version").0 {
                println!("skipped: {test} needs wireguard-go");
                return;
            }
            std::fs::create_dir_all("/run/wireguard").expect("a directory");
            tool("mount -t tmpfs none /run/wireguard");
            body();
        },
    );
}

struct Net {
    world: World,
    handler: Option<Box<dyn Handler>>,
}

impl Net {
    fn new(choice: WireguardChoice) -> Self {
        let mut world = World::new();
        world.policy.wireguard = choice;
        let keys = world.layout.wireguard_keys();
        std::fs::create_dir(&keys).expect("a directory");
        set_mode(&keys, 0o700);
        if choice == WireguardChoice::Userspace {
            let run = world.layout.wireguard_sockets();
            std::fs::create_dir_all(run.parent().expect("a parent")).expect("a directory");
            std::os::unix::fs::symlink("/run/wireguard", run).expect("a link");
        }
        let handler = Some(start(&world));
        Self { world, handler }
    }

    fn restart(&mut self) {
        self.handler = Some(start(&self.world));
    }

    fn ask(&self, verb: &str, params: &Value) -> Result<Done, ErrorCode> {
        let handler = self.handler.as_deref().expect("a handler");
        self.world
            .ask(handler, &format!("wg-{verb}"), params)
            .map_err(|failure| {
                println!("{}", failure.message);
                failure.code
            })
    }

    fn key_file(&self, name: &str) -> PathBuf {
        self.world.layout.wireguard_keys().join(name)
    }
}

/// The compartment's files belong to the user that it becomes; here it stays root.
fn start(world: &World) -> Box<dyn Handler> {
    let root = Identity { uid: 0, gid: 0 };
    net::prepare(&StartInfo {
        layout: &world.layout,
        policy: &world.policy,
        identities: Identities {
            agent: root,
            blockhost: root,
            vm: root,
            image: root,
        },
        backend: Backend::Embedded,
    })
    .expect("a net compartment")
}

/// A daemon in the foreground; gone with the test.
struct Daemon(Child);

impl Daemon {
    #[expect(clippy::disallowed_methods, reason = "a test starts the real daemon")]
    fn start(net: Option<&SecondNet>, name: &str) -> Self {
        let mut words = vec!["wireguard-go".to_owned(), "-f".to_owned(), name.to_owned()];
        if let Some(net) = net {
            let pid = net.pid().to_string();
            words.splice(0..0, ["nsenter".into(), "-t".into(), pid, "-n".into()]);
        }
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("a daemon");
        let daemon = Self(child);
        while !std::path::Path::new(&format!("/run/wireguard/{name}.sock")).exists() {
            std::thread::yield_now();
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wg(what: &str) -> String {
    tool(&format!("wg show wg0 {what}")).trim().to_owned()
}

const SETUP: &str =
    r#"{"name":"wg0","addresses":["10.8.0.1/24","fd77:8::1/64"],"listen_port":51820,"mtu":1400}"#;

fn setup() -> Value {
    serde_json::from_str(SETUP).expect("JSON")
}

#[test]
fn a_tunnel_has_the_key_port_addresses_and_mtu_that_were_asked_for_and_again_changes_nothing() {
    in_private_world(
        "a_tunnel_has_the_key_port_addresses_and_mtu_that_were_asked_for_and_again_changes_nothing",
        || {
            let _daemon = Daemon::start(None, "wg0");
            let mut net = Net::new(WireguardChoice::Userspace);
            let done = net.ask("setup", &setup()).expect("a tunnel");
            let public = done.extra["public_key"].as_str().expect("a key").to_owned();
            assert_eq!(
                (wg("public-key"), wg("listen-port")),
                (public.clone(), "51820".into())
            );
            assert_eq!(done.extra["listen_port"], 51_820);
            let state = || {
                let links: Value =
                    serde_json::from_str(&tool("ip -j addr show wg0")).expect("JSON");
                let link = &links[0];
                let list = link["addr_info"].as_array().expect("addresses");
                let mut addresses: Vec<String> = list
                    .iter()
                    .filter(|a| a["scope"] == "global")
                    .map(|a| format!("{}/{}", a["local"].as_str().expect("text"), a["prefixlen"]))
                    .collect();
                addresses.sort();
                (
                    link["mtu"].as_u64(),
                    addresses,
                    link["ifalias"].as_str().map(str::to_owned),
                )
            };
            let before = state();
            assert_eq!(before.0, Some(1400));
            assert_eq!(before.1, ["10.8.0.1/24", "fd77:8::1/64"]);
            // The private key is as `wg` wrote it, is this user's alone, and makes that public key.
            let file = net.key_file("wg0.key");
            let meta = std::fs::metadata(&file).expect("a key file");
            assert_eq!(meta.mode() & 0o777, 0o600);
            let private = std::fs::read_to_string(&file).expect("a key");
            assert_eq!(private.trim(), wg("private-key"));
            assert!(!done.output.contains(private.trim()));
            // After a restart of the agent the same key comes back, and nothing else changes.
            net.restart();
            let again = net.ask("setup", &setup()).expect("the same tunnel");
            assert_eq!(again.extra["public_key"].as_str(), Some(public.as_str()));
            assert_eq!(state(), before);
            // Not one that somebody else's network has, and not its router's.
            tool("ip link add eth0 type veth peer name wire");
            tool("ip link set eth0 up");
            tool("ip addr add 192.168.1.10/24 dev eth0");
            tool("ip route add default via 192.168.1.1 dev eth0");
            for address in ["192.168.1.1/32", "192.168.1.77/24", "192.168.1.10/25"] {
                let theirs = json!({"name": "wg0", "addresses": [address]});
                let refused = net.ask("setup", &theirs).map(|done| done.output);
                assert_eq!(refused, Err(ErrorCode::Conflict), "{address}");
                assert_eq!(state(), before);
            }
            // Other addresses replace these.
            let other = json!({"name": "wg0", "addresses": ["10.9.0.1/16"]});
            net.ask("setup", &other).expect("other addresses");
            assert_eq!(
                (state().1, wg("listen-port")),
                (vec!["10.9.0.1/16".to_owned()], "51820".into())
            );
        },
    );
}

const PEER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

#[test]
fn the_set_of_peers_is_what_wg_shows_and_is_replaced_as_a_whole() {
    in_private_world(
        "the_set_of_peers_is_what_wg_shows_and_is_replaced_as_a_whole",
        || {
            let _daemon = Daemon::start(None, "wg0");
            let net = Net::new(WireguardChoice::Userspace);
            net.ask("setup", &setup()).expect("a tunnel");
            let set = |peers: Value| net.ask("set-peers", &json!({"name": "wg0", "peers": peers}));
            let done = set(json!([
            {"public_key": PEER, "endpoint": "192.0.2.9:51820", "allowed_ips": ["10.8.0.2/32", "fd77:8::2/128"], "keepalive": 25},
            {"public_key": OTHER, "endpoint": "[2001:db8::9]:7", "allowed_ips": ["10.8.0.3/32"], "preshared": "generate"},
        ]))
        .expect("peers");
            let lines = |what: &str| {
                let mut lines: Vec<String> = wg(what).lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(
                lines("endpoints"),
                [
                    format!("{OTHER}\t[2001:db8::9]:7"),
                    format!("{PEER}\t192.0.2.9:51820")
                ]
            );
            assert_eq!(
                lines("allowed-ips"),
                [
                    format!("{OTHER}\t10.8.0.3/32"),
                    format!("{PEER}\t10.8.0.2/32 fd77:8::2/128")
                ]
            );
            assert_eq!(
                lines("persistent-keepalive"),
                [format!("{OTHER}\toff"), format!("{PEER}\t25")]
            );
            let shared = done.extra["preshared_keys"][OTHER]
                .as_str()
                .expect("a shared key")
                .to_owned();
            assert_eq!(
                lines("preshared-keys"),
                [format!("{OTHER}\t{shared}"), format!("{PEER}\t(none)")]
            );
            // A generated key stays what it is; a peer that is not named goes; a network moves.
            let done = set(json!([
                {"public_key": OTHER, "allowed_ips": ["10.8.0.2/32"], "preshared": "generate"},
            ]))
            .expect("peers");
            assert_eq!(
                done.extra["preshared_keys"][OTHER].as_str(),
                Some(shared.as_str())
            );
            assert_eq!(lines("allowed-ips"), [format!("{OTHER}\t10.8.0.2/32")]);
            let show: Value = serde_json::from_str(
                &net.ask("show", &json!({"name": "wg0"}))
                    .expect("shown")
                    .output,
            )
            .expect("JSON");
            assert_eq!(show["peers"][0]["public_key"], OTHER);
            assert_eq!(
                (&show["peers"][0]["preshared"], &show["listen_port"]),
                (&json!(true), &json!(51_820))
            );
            assert!(!show.to_string().contains(&shared));
            // Without the wish for one the key goes, here and in the file.
            set(json!([{"public_key": OTHER, "allowed_ips": []}])).expect("peers");
            assert_eq!(lines("preshared-keys"), [format!("{OTHER}\t(none)")]);
            assert!(!net.key_file("wg0.psk").exists());
            // A key that was given comes back, also for a device that was made anew, and is told to nobody.
            let given = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
            let peer = |preshared: &str| json!([{"public_key": OTHER, "allowed_ips": [], "preshared": preshared}]);
            assert_eq!(
                set(peer("kept")).err(),
                Some(ErrorCode::NotFound),
                "no key is known"
            );
            set(peer(given)).expect("peers");
            tool(&format!("wg set wg0 peer {OTHER} remove"));
            let done = set(peer("kept")).expect("peers");
            assert!(done.extra.is_empty());
            assert_eq!(lines("preshared-keys"), [format!("{OTHER}\t{given}")]);
            // Who asks for one that is made here gets another.
            let done = set(peer("generate")).expect("peers");
            let made = done.extra["preshared_keys"][OTHER].as_str().expect("a key");
            assert_ne!(made, given);
            assert!(!net.key_file("wg0.given").exists());
            let done = set(peer("kept")).expect("peers");
            assert!(done.extra.is_empty());
            assert_eq!(lines("preshared-keys"), [format!("{OTHER}\t{made}")]);
            set(json!([])).expect("no peers");
            assert_eq!(wg("peers"), "");
        },
    );
}

#[test]
fn packets_go_through_the_tunnel_and_setting_its_peers_again_does_not_end_the_session() {
    in_private_world(
        "packets_go_through_the_tunnel_and_setting_its_peers_again_does_not_end_the_session",
        || {
            let far = SecondNet::new();
            tool(&format!(
                "ip link add wire type veth peer name wire netns {}",
                far.pid()
            ));
            tool("ip addr add 192.168.7.1/24 dev wire");
            tool("ip link set wire up");
            far.run("ip addr add 192.168.7.2/24 dev wire");
            far.run("ip link set wire up");
            let _here = Daemon::start(None, "wg0");
            let _there = Daemon::start(Some(&far), "wg1");
            let net = Net::new(WireguardChoice::Userspace);
            let done = net.ask("setup", &setup()).expect("a tunnel");
            let public = done.extra["public_key"].as_str().expect("a key").to_owned();
            // The other end by hand, with the tools that everybody has.
            let private = net.world.path().join("far.key");
            std::fs::write(&private, tool("wg genkey")).expect("a key");
            let theirs = tool(&format!(
                "wg set wg1 private-key {} listen-port 51821",
                private.display()
            ));
            assert_eq!(theirs, "");
            let theirs = tool("wg show wg1 public-key").trim().to_owned();
            let mut peers = json!([{"public_key": theirs, "endpoint": "192.168.7.2:51821", "allowed_ips": ["10.8.0.2/32"], "preshared": "generate"}]);
            let done = net
                .ask("set-peers", &json!({"name": "wg0", "peers": peers}))
                .expect("peers");
            let shared = net.world.path().join("far.psk");
            let key = done.extra["preshared_keys"][&theirs]
                .as_str()
                .expect("a key");
            std::fs::write(&shared, key).expect("a key");
            tool(&format!(
                "wg set wg1 peer {public} preshared-key {} allowed-ips 10.8.0.1/32",
                shared.display()
            ));
            far.run("ip addr add 10.8.0.2/24 dev wg1");
            far.run("ip link set wg1 up");
            tool("ping -c 3 -W 10 10.8.0.2");
            let handshake = || wg("latest-handshakes");
            let before = handshake();
            assert!(!before.ends_with("\t0"), "{before}");
            // The same peer and one more: the first keeps its session, so no new handshake is made for the next packet.
            peers
                .as_array_mut()
                .expect("a list")
                .push(json!({"public_key": PEER, "allowed_ips": ["10.8.0.9/32"]}));
            net.ask("set-peers", &json!({"name": "wg0", "peers": peers}))
                .expect("peers");
            tool("ping -c 1 -W 10 10.8.0.2");
            assert!(handshake().contains(&before), "{before} {}", handshake());
            // Gone with it: no packet passes any more.
            net.ask("set-peers", &json!({"name": "wg0", "peers": []}))
                .expect("no peers");
            assert!(!try_tool("ping -c 1 -W 1 10.8.0.2").0);
        },
    );
}

#[test]
fn a_tunnel_that_is_torn_down_leaves_no_device_and_no_key() {
    in_private_world(
        "a_tunnel_that_is_torn_down_leaves_no_device_and_no_key",
        || {
            let _daemon = Daemon::start(None, "wg0");
            let net = Net::new(WireguardChoice::Userspace);
            net.ask("setup", &setup()).expect("a tunnel");
            let peers = json!([{"public_key": PEER, "allowed_ips": [], "preshared": "generate"}]);
            net.ask("set-peers", &json!({"name": "wg0", "peers": peers}))
                .expect("peers");
            net.ask("teardown", &json!({"name": "wg0"})).expect("gone");
            assert!(!try_tool("ip link show wg0").0);
            assert_eq!(
                std::fs::read_dir(net.world.layout.wireguard_keys())
                    .expect("a directory")
                    .count(),
                0
            );
            for verb in ["teardown", "show"] {
                assert_eq!(
                    net.ask(verb, &json!({"name": "wg0"})).err(),
                    Some(ErrorCode::NotFound)
                );
            }
        },
    );
}

#[test]
fn a_look_at_a_tunnel_whose_key_file_is_lost_makes_no_other_key() {
    in_private_world(
        "a_look_at_a_tunnel_whose_key_file_is_lost_makes_no_other_key",
        || {
            let _daemon = Daemon::start(None, "wg0");
            let net = Net::new(WireguardChoice::Userspace);
            net.ask("setup", &setup()).expect("a tunnel");
            std::fs::remove_file(net.key_file("wg0.key")).expect("removed");
            let shown = net.ask("show", &json!({"name": "wg0"})).expect("shown");
            let shown: Value = serde_json::from_str(&shown.output).expect("JSON");
            assert_eq!(shown["public_key"], Value::Null);
            assert!(!net.key_file("wg0.key").exists());
        },
    );
}

#[test]
fn a_device_of_somebody_else_is_left_alone() {
    in_private_world("a_device_of_somebody_else_is_left_alone", || {
        tool("ip link add wg0 type veth peer name other");
        tool("ip link add wgx type veth peer name other2");
        tool("ip link set wgx alias theirs");
        let net = Net::new(WireguardChoice::Userspace);
        for name in ["wg0", "wgx"] {
            let before = tool(&format!("ip -d link show {name}"));
            let params = json!({"name": name, "addresses": ["10.8.0.1/24"]});
            assert_eq!(net.ask("setup", &params).err(), Some(ErrorCode::Conflict));
            assert_eq!(
                net.ask("teardown", &json!({"name": name})).err(),
                Some(ErrorCode::Conflict)
            );
            let peers = json!({"name": name, "peers": []});
            assert_eq!(
                net.ask("set-peers", &peers).err(),
                Some(ErrorCode::Conflict)
            );
            assert_eq!(tool(&format!("ip -d link show {name}")), before);
        }
        assert_eq!(
            std::fs::read_dir(net.world.layout.wireguard_keys())
                .expect("a directory")
                .count(),
            0,
            "a key was made for it"
        );
    });
}

#[test]
fn a_host_without_wireguard_says_so_and_nothing_is_left() {
    in_namespace(
        "a_host_without_wireguard_says_so_and_nothing_is_left",
        || {
            let net = Net::new(WireguardChoice::Kernel);
            match net.ask("setup", &setup()) {
                Err(code) => {
                    assert_eq!(code, ErrorCode::Failed);
                    assert!(!try_tool("ip link show wg0").0);
                    println!(
                        "this kernel has no WireGuard: its own path is covered by the layout tests alone"
                    );
                }
                // A kernel that has it: then the whole of its own path.
                Ok(done) => {
                    assert_eq!(
                        Some(wg("public-key").as_str()),
                        done.extra["public_key"].as_str()
                    );
                    let peers = json!([{"public_key": PEER, "endpoint": "192.0.2.9:51820", "allowed_ips": ["10.8.0.2/32"], "keepalive": 25, "preshared": "generate"}]);
                    net.ask("set-peers", &json!({"name": "wg0", "peers": peers}))
                        .expect("peers");
                    assert_eq!(wg("allowed-ips"), format!("{PEER}\t10.8.0.2/32"));
                    let again = net
                        .ask("set-peers", &json!({"name": "wg0", "peers": peers}))
                        .expect("peers");
                    assert!(again.output.contains("0 changed"), "{}", again.output);
                    net.ask("teardown", &json!({"name": "wg0"})).expect("gone");
                    assert!(!try_tool("ip link show wg0").0);
                }
            }
        },
    );
}

#[test]
fn a_key_that_others_could_have_written_is_not_used() {
    in_private_world("a_key_that_others_could_have_written_is_not_used", || {
        let _daemon = Daemon::start(None, "wg0");
        let net = Net::new(WireguardChoice::Userspace);
        let file = net.key_file("wg0.key");
        std::fs::write(&file, "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n").expect("a key");
        set_mode(&file, 0o666);
        assert_eq!(net.ask("setup", &setup()).err(), Some(ErrorCode::Failed));
        std::fs::remove_file(&file).expect("removed");
        std::os::unix::fs::symlink("/etc/shadow", &file).expect("a link");
        assert_eq!(net.ask("setup", &setup()).err(), Some(ErrorCode::Failed));
        std::fs::remove_file(&file).expect("removed");
        std::fs::write(&file, "not a key").expect("a file");
        set_mode(&file, 0o600);
        assert_eq!(net.ask("setup", &setup()).err(), Some(ErrorCode::Failed));
    });
}
