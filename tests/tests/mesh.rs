//! Containers that the host routes into a mesh: a real container on a real switch, a real tunnel to another network namespace,
//! and packets both ways; and that nothing passes where no tunnel, no range or no such source belongs.

mod state_ground;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::Client;
use blockhost_tests::command::{run, with_args};
use blockhost_tests::namespace::find;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use state_ground::{Backend, Ground, eventually, ground, ground_with, tool, tunnel_daemon};

/// Another host of the mesh, as a network namespace that lives as long as its holder.
struct Far {
    holder: Child,
    daemon: Option<Child>,
}

fn started(program: &str, words: &[&str]) -> Child {
    #[expect(
        clippy::disallowed_methods,
        reason = "a process that the test holds on to"
    )]
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped());
    command.stdout(Stdio::null()).spawn().expect("a process")
}

impl Far {
    fn new() -> Self {
        let holder = started("unshare", &["--net", "--", "cat"]);
        let far = Self {
            holder,
            daemon: None,
        };
        let own = std::fs::read_link("/proc/self/ns/net").expect("own");
        eventually("another namespace", || {
            std::fs::read_link(far.namespace()).is_ok_and(|its| its != own)
        });
        far
    }

    fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    fn run(&self, words: &str) -> String {
        tool(&format!(
            "nsenter --net={} {words}",
            self.namespace().display()
        ))
    }

    fn pings(&self, words: &str) -> bool {
        let command = format!(
            "--net={} ping -n -c 1 -W 1 {words}",
            self.namespace().display()
        );
        let words: Vec<&str> = command.split_whitespace().collect();
        run(with_args("nsenter", &words), Duration::from_secs(20)).is_ok()
    }

    /// Its end of the wire, of the tunnel and of the network behind it.
    fn wire(&mut self, public_key: &str) -> Option<()> {
        find("wireguard-go")?;
        let namespace = format!("--net={}", self.namespace().display());
        let words = [namespace.as_str(), "wireguard-go", "-f", "wgfar"];
        self.daemon = Some(started("nsenter", &words));
        let socket = PathBuf::from("/run/wireguard/wgfar.sock");
        eventually("the far tunnel", || socket.exists());
        // All that could be spoofed is permitted here: what does not come was held back before.
        let peer = format!(
            "wg set wgfar listen-port 51999 private-key /run/wireguard/far.key peer {public_key} \
             allowed-ips 10.8.0.1/32,10.20.0.0/24,10.66.0.0/16,fd20::/64 endpoint 192.0.2.1:51820"
        );
        self.run(&peer);
        for words in [
            "ip addr add 10.8.0.2/24 dev wgfar",
            "ip link set wgfar up mtu 1380",
            "ip link set lo up",
            "ip addr add 10.90.0.1/32 dev lo",
            "ip addr add 10.91.0.1/32 dev lo",
            "ip addr add fd90::1/128 dev lo",
            "ip route add 10.20.0.0/24 dev wgfar",
            "ip -6 route add fd20::/64 dev wgfar",
            "ip route add 10.66.0.0/16 dev wgfar",
            "iptables-nft -A INPUT -s 10.66.0.0/16 -j ACCEPT",
        ] {
            self.run(words);
        }
        Some(())
    }

    /// Packets that came with a source of somebody else's.
    fn spoofed(&self) -> u64 {
        let text = self.run("iptables-nft-save -c -t filter");
        let line = text.lines().find(|line| line.contains("10.66.0.0/16"));
        let count = line.and_then(|line| line.strip_prefix('[')?.split(':').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("{text}"))
    }

    /// Serves one connection to 10.90.0.1 inside, and gives what `serve` made of it.
    fn serves<T: Send + 'static>(
        &self,
        port: u16,
        serve: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let file = std::fs::File::open(self.namespace()).expect("a namespace");
        let (ready, listens) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("inside");
            let listener = TcpListener::bind(("10.90.0.1", port)).expect("a port");
            ready.send(()).expect("somebody waits");
            serve(listener.accept().expect("a connection").0)
        });
        listens.recv().expect("it listens");
        thread
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        for child in self.daemon.iter_mut().chain([&mut self.holder]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a command inside the container ended with and wrote.
fn inside(ground: &Ground, command: &str) -> (i64, String) {
    let params = json!({"vmid": 100, "command": command, "timeout": 60});
    let action = Action::from_parts("pct-exec", &params).expect("valid");
    let mut client = Client::connect_layout(&ground.world.layout).expect("the agent");
    let reply = client
        .call(&action)
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    let text = |key: &str| reply.extra[key].as_str().unwrap_or_default().to_owned();
    let code = reply.extra["exitcode"].as_i64().expect("a code");
    (code, text("stdout") + &text("stderr"))
}

fn container_pings(ground: &Ground, words: &str) -> bool {
    let name = if words.contains(':') { "ping6" } else { "ping" };
    inside(ground, &format!("{name} -c 1 -W 1 {words}")).0 == 0
}

/// Only what a document names is to forward.
fn nothing_forwards() {
    for key in [
        "ipv4/ip_forward",
        "ipv4/conf/default/forwarding",
        "ipv6/conf/all/forwarding",
    ] {
        std::fs::write(format!("/proc/sys/net/{key}"), "0").expect("a setting");
    }
}

/// Runs a tool of the host in the container's network.
fn within(words: &str) -> String {
    let own = [
        std::fs::read_link("/proc/self/ns/net").expect("own"),
        std::fs::read_link("/proc/1/ns/net").unwrap_or_default(),
    ];
    let its_first_process = || {
        let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
        let mut paths = entries.map(|entry| entry.path());
        paths.find(|path| {
            let command = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            let namespace = std::fs::read_link(path.join("ns/net")).unwrap_or_default();
            command.trim() == "init" && !own.contains(&namespace)
        })
    };
    let path = its_first_process().expect("the container's first process");
    tool(&format!("nsenter --net={}/ns/net {words}", path.display()))
}

const FAR_KEY: &str = "sGZbfPMLRz6fWS5VKHX1LPHzJ2HpjAIxGtXX9P0zWUs=";

fn document(far: &str, mesh: Value, allowed: Value) -> Value {
    json!({"version": 1, "plugins": {
        "net": {"interfaces": [{"name": "ovsbr0", "datapath": "netdev", "ipv4": {"addresses": ["10.20.0.1/24"]}, "ipv6": {"addresses": ["fd20::1/64"]}}]},
        "wireguard": {"tunnels": [{"name": "wg0", "addresses": ["10.8.0.1/24"], "listen_port": 51820, "mtu": 1380,
            "peers": [{"public_key": far, "allowed_ips": allowed, "endpoint": "192.0.2.2:51999"}]}]},
        "mesh": mesh,
        "lxc": {"containers": [{"id": "100", "bridge": "ovsbr0", "properties": {"network_type": "netmaker",
            "template": "local:vztmpl/small.tar.gz", "hostname": "web-1", "memory": 64, "storage": "local",
            "rootfs_size": 1, "ip": "10.20.0.100/24", "gw": "10.20.0.1", "ip6": "fd20::100/64", "gw6": "fd20::1"}}]}}})
}

#[test]
fn a_routed_container_and_the_mesh_reach_each_other_and_nothing_passes_that_does_not_belong() {
    const TEST: &str =
        "a_routed_container_and_the_mesh_reach_each_other_and_nothing_passes_that_does_not_belong";
    let Some(ground) = ground_with(TEST, Backend::Real) else {
        return;
    };
    nothing_forwards();
    let Some(_daemon) = tunnel_daemon(&ground, "wg0") else {
        println!("skipped: {TEST} needs wireguard-go");
        return;
    };
    ground.small_template();
    std::fs::write("/run/wireguard/far.key", format!("{FAR_KEY}\n")).expect("a key");
    let far_public = {
        let words = ["-c", "wg pubkey < /run/wireguard/far.key"];
        let output = run(with_args("sh", &words), Duration::from_secs(10)).expect("a key");
        output.stdout.trim().to_owned()
    };
    let mut far = Far::new();
    tool(&format!(
        "ip link add wire type veth peer name wire netns {}",
        far.holder.id()
    ));
    for words in ["ip addr add 192.0.2.1/24 dev wire", "ip link set wire up"] {
        tool(words);
    }
    for words in ["ip addr add 192.0.2.2/24 dev wire", "ip link set wire up"] {
        far.run(words);
    }
    let mesh = json!({"bridges": [{"name": "ovsbr0"}], "tunnels": [{"name": "wg0", "networks": ["10.90.0.0/24"]}]});
    let ranges = json!(["10.8.0.2/32", "10.90.0.0/24"]);

    // A network that no peer may have: said, and taken back.
    let mut wrong = document(&far_public, mesh.clone(), json!(["10.8.0.2/32"]));
    wrong["plugins"]["lxc"] = json!({});
    let file = ground.document("wrong.json", &wrong.to_string());
    let ended = ground.blockhost(&["apply", "--yes", "--json", &file]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended
            .text
            .contains("10.90.0.0/24 is in no peer's allowed_ips"),
        "{ended:?}"
    );
    assert!(!tool("ip route").contains("10.90.0.0/24"));

    let whole = document(&far_public, mesh, ranges.clone());
    let file = ground.document("state.json", &whole.to_string());
    ground.converge(&file, &[]);
    let setting = |key: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{key}"));
        text.expect("a setting").trim().to_owned()
    };
    for (key, value) in [
        ("ovsbr0/forwarding", "1"),
        ("ovsbr0/rp_filter", "1"),
        ("wg0/forwarding", "1"),
        ("wg0/rp_filter", "1"),
        ("wire/forwarding", "0"),
        ("all/forwarding", "0"),
    ] {
        assert_eq!(setting(key), value, "{key}");
    }
    let public_key = tool("wg show wg0 public-key");
    far.wire(public_key.trim()).expect("wireguard-go");
    // A switch in user space leaves its ports to the kernel, too: there nobody is to answer in the bridge's name.
    std::fs::write("/proc/sys/net/ipv4/conf/vi100/arp_ignore", "8").expect("a setting");
    within("ip neigh flush all");
    // Nor has it anybody who would fill in checksums later: the container's end has to.
    within("ethtool -K eth0 tx off");

    eventually("the container reaches the far network", || {
        container_pings(&ground, "10.90.0.1")
    });
    eventually("and is reached from there", || {
        far.pings("-I 10.90.0.1 10.20.0.100")
    });

    // Its interface got the tunnel's MTU before the first start, at both ends.
    for link in [within("ip link show eth0"), tool("ip link show vi100")] {
        assert!(link.contains("mtu 1380"), "{link}");
    }
    // One that carries more than the tunnel works as well, and is told so by the host. Both ways.
    within("ip link set eth0 mtu 1500");
    for device in ["vi100", "ovsbr0"] {
        tool(&format!("ip link set {device} mtu 1500"));
    }
    let program = std::fs::read(find("busybox").expect("busybox")).expect("a program");
    assert!(program.len() > 100_000);
    let upload = far.serves(7001, |mut stream| {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).map(|_| got)
    });
    let (code, said) = inside(&ground, "nc 10.90.0.1 7001 < /bin/busybox");
    assert_eq!(code, 0, "{said}");
    assert!(upload.join().expect("no panic").expect("all of it") == program);
    let sent = program.clone();
    let download = far.serves(7002, move |mut stream| stream.write_all(&sent));
    let (code, said) = inside(
        &ground,
        "nc 10.90.0.1 7002 < /dev/null | sha256sum; sha256sum < /bin/busybox",
    );
    assert_eq!(code, 0, "{said}");
    download.join().expect("no panic").expect("all of it");
    let sums: Vec<&str> = said.lines().collect();
    assert!(sums.len() == 2 && sums[0] == sums[1], "{said}");

    // A source that is not the container's, and a control that it would have arrived.
    within("ip addr add 10.66.0.5/32 dev eth0");
    assert!(!container_pings(&ground, "-I 10.66.0.5 10.90.0.1"));
    assert_eq!(far.spoofed(), 0, "it was held back on this host");
    std::fs::write("/proc/sys/net/ipv4/conf/ovsbr0/rp_filter", "0").expect("a setting");
    eventually("without the look at sources it arrives", || {
        container_pings(&ground, "-I 10.66.0.5 10.90.0.1");
        far.spoofed() > 0
    });
    let drift = ground.blockhost(&["show-diff"]);
    assert!(
        drift.code == 2 && drift.text.contains("mesh/ovsbr0"),
        "{drift:?}"
    );
    ground.converge(&file, &[]);
    let before = far.spoofed();
    assert!(!container_pings(&ground, "-I 10.66.0.5 10.90.0.1"));
    assert_eq!(far.spoofed(), before);
    assert!(
        !far.pings("-I 10.91.0.1 10.20.0.100"),
        "no range of that peer"
    );
    eventually("its ranges pass", || far.pings("-I 10.90.0.1 10.20.0.100"));

    // Without the range nothing passes, with it again everything.
    let none = json!({"bridges": [{"name": "ovsbr0"}], "tunnels": [{"name": "wg0"}]});
    let closed = document(&far_public, none, json!(["10.8.0.2/32"]));
    let closed = ground.document("closed.json", &closed.to_string());
    ground.converge(&closed, &[]);
    assert!(!tool("ip route").contains("10.90.0.0/24"));
    assert!(!container_pings(&ground, "10.90.0.1"));
    assert!(!far.pings("-I 10.90.0.1 10.20.0.100"));
    ground.converge(&file, &[]);
    eventually("it is reached again", || {
        container_pings(&ground, "10.90.0.1")
    });

    // The far side loses its way back: nothing is answered, until packets leave by the tunnel as this host's.
    far.run("ip route del 10.20.0.0/24 dev wgfar");
    assert!(!container_pings(&ground, "10.90.0.1"));
    let mut hidden = whole.clone();
    hidden["plugins"]["mesh"]["tunnels"][0]["masquerade"] = json!(["10.20.0.0/24"]);
    let hidden = ground.document("hidden.json", &hidden.to_string());
    ground.converge(&hidden, &[]);
    eventually("it is answered when hidden", || {
        container_pings(&ground, "10.90.0.1")
    });
    assert!(
        !container_pings(&ground, "-I 10.66.0.5 10.90.0.1"),
        "a wrong source is not hidden but held back"
    );
    tool("iptables-nft -t nat -F BLOCKHOST-MASQ");
    let drift = ground.blockhost(&["show-diff"]);
    assert!(
        drift.code == 2 && drift.text.contains("mesh/wg0"),
        "{drift:?}"
    );
    assert!(!container_pings(&ground, "10.90.0.1"));
    ground.converge(&hidden, &[]);
    eventually("it is hidden again", || {
        container_pings(&ground, "10.90.0.1")
    });
    ground.converge(&file, &[]);
    assert!(!container_pings(&ground, "10.90.0.1"));
    assert!(!tool("iptables-nft-save -t nat").contains("MASQUERADE"));
    far.run("ip route add 10.20.0.0/24 dev wgfar");
    eventually("the far side knows the way again", || {
        container_pings(&ground, "10.90.0.1")
    });

    // IPv6: a document with such networks has the host forward it, and one without has it stop.
    let forwards = || std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding");
    assert_eq!(forwards().expect("a setting").trim(), "0");
    assert!(!container_pings(&ground, "fd90::1"));
    let six = document(
        &far_public,
        json!({"bridges": [{"name": "ovsbr0"}],
            "tunnels": [{"name": "wg0", "networks": ["10.90.0.0/24", "fd90::/64"]}]}),
        json!(["10.8.0.2/32", "10.90.0.0/24", "fd90::/64"]),
    );
    let six = ground.document("six.json", &six.to_string());
    ground.converge(&six, &[]);
    assert_eq!(forwards().expect("a setting").trim(), "1");
    let shown = ground.blockhost(&["net", "show"]);
    assert!(shown.text.contains("IPv6 from all"), "{shown:?}");
    eventually("the container reaches the far IPv6 network", || {
        container_pings(&ground, "fd90::1")
    });
    eventually("and is reached from there by IPv6", || {
        far.pings("-I fd90::1 fd20::100")
    });
    ground.converge(&file, &["--prune"]);
    assert_eq!(forwards().expect("a setting").trim(), "0");
    assert!(!container_pings(&ground, "fd90::1"));

    // Without the tunnel nothing either; the bridge goes on forwarding for as long as a container needs that.
    let mut alone = whole;
    alone["plugins"]["wireguard"] = json!({});
    alone["plugins"]["mesh"] = json!({"bridges": [{"name": "ovsbr0"}]});
    let alone = ground.document("alone.json", &alone.to_string());
    ground.converge(&alone, &["--prune"]);
    assert!(!container_pings(&ground, "10.90.0.1"));
    assert_eq!(setting("ovsbr0/forwarding"), "1");
    eventually("the container itself is well", || {
        container_pings(&ground, "10.20.0.1")
    });
}

#[test]
fn a_public_address_is_reached_from_the_uplinks_network_while_a_document_gives_it_to_somebody() {
    const TEST: &str = "a_public_address_is_reached_from_the_uplinks_network_while_a_document_gives_it_to_somebody";
    let Some(ground) = ground(TEST) else { return };
    nothing_forwards();
    let (outside, machine) = (Far::new(), Far::new());
    for (far, device, own) in [
        (&outside, "up0", "203.0.113.14/28"),
        (&machine, "vi900", ""),
    ] {
        let holder = far.holder.id();
        tool(&format!(
            "ip link add {device} type veth peer name eth0 netns {holder}"
        ));
        tool(&format!("ip link set {device} up"));
        far.run("ip link set eth0 up");
        if !own.is_empty() {
            tool(&format!("ip addr add {own} dev {device}"));
        }
    }
    outside.run("ip addr add 203.0.113.1/28 dev eth0");
    machine.run("ip addr add 10.0.0.9/24 dev eth0");
    machine.run("ip route add default via 10.0.0.1");
    let document = json!({"version": 1, "plugins": {
        "net": {"interfaces": [{"name": "ovsbr0", "datapath": "netdev", "ports": ["vi900"], "ipv4": {"addresses": ["10.0.0.1/24"]}}]},
        "mesh": {"bridges": [{"name": "ovsbr0"}]},
        "publicip": {
            "pools": [{"range": "203.0.113.0/28", "gateway": "203.0.113.1", "exclude": ["203.0.113.14"],
                "announce": {"uplink": "up0", "behind": "ovsbr0"}}],
            "assignments": [{"holder": "vm-900", "private": "10.0.0.9"}]}}});
    let file = ground.document("state.json", &document.to_string());
    assert!(!outside.pings("203.0.113.2"));
    ground.converge(&file, &[]);
    eventually("it is reached", || outside.pings("203.0.113.2"));
    eventually("and is known as that address outside", || {
        machine.pings("203.0.113.1")
    });
    assert!(!outside.pings("203.0.113.3"), "nobody has it");
    assert!(
        !tool("ip addr").contains("203.0.113.2/"),
        "no service of the host is reached by it"
    );
    // Behind our back.
    tool("ip neigh del proxy 203.0.113.2 dev up0");
    let drift = ground.blockhost(&["show-diff"]);
    assert!(
        drift.code == 2 && drift.text.contains("publicip/vm-900"),
        "{drift:?}"
    );
    ground.converge(&file, &[]);
    let nothing = json!({"version": 1, "plugins": {"net": {}, "mesh": {}, "publicip": {}}});
    let nothing = ground.document("nothing.json", &nothing.to_string());
    ground.converge(&nothing, &["--prune"]);
    assert_eq!(tool("ip neigh show proxy"), "");
    assert!(!tool("ip route").contains("203.0.113.2 "));
    outside.run("ip neigh flush all");
    assert!(!outside.pings("203.0.113.2"));
}
