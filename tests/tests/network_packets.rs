//! Real packets between network namespaces, through a real switch whose flows a real root agent has set: what the policy
//! says passes, and nothing else does.

mod network_world;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use blockhost_engine::network::accounts::Accounts;
use blockhost_tests::switch::eventually;
use network_world::{Ground, ground, inside, pings, reaches, tool};
use serde_json::{Value, json};

const GATEWAY: &str = "02:00:00:00:00:01";
/// What table 0 drops because it is not the container's own.
const REST: u32 = 40_000;
const SPOOFED_NEIGHBOURS: u32 = 49_000;

fn document(containers: &Value) -> Value {
    json!({"bridges": [{
        "bridge": "ovsbr0", "outside": [{"port": "uplink0"}],
        "tenants": [{"name": "a", "zone": 10}, {"name": "b", "zone": 11}], "containers": containers}]})
}

fn container(number: u8, tenant: &str) -> Value {
    json!({"id": number.to_string(), "port": format!("vi{number}"), "mac": format!("02:00:00:00:01:{number:02x}"),
        "tenant": tenant, "addresses": [format!("10.0.1.{number}"), format!("fd77::{number}")]})
}

fn attach(ground: &Ground, number: u8) {
    let mac = format!("02:00:00:00:01:{number:02x}");
    let addresses = [format!("10.0.1.{number}/24"), format!("fd77::{number}/64")];
    ground.attach(
        &format!("vi{number}"),
        &format!("c{number}"),
        &mac,
        &[&addresses[0], &addresses[1]],
    );
}

/// The world behind the uplink.
fn world(ground: &Ground) {
    ground.attach("uplink0", "world", GATEWAY, &["10.0.1.1/24", "fd77::1/64"]);
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

/// Whether a connection comes about that has to, and a byte goes each way; who the server has seen.
fn talks(from: &str, to: &str, server: SocketAddr, asked: SocketAddr) -> Option<IpAddr> {
    talks_within(from, to, server, asked, Duration::from_secs(120))
}

/// Whether a connection that must not come about does so within a second or two.
fn gets_through(from: &str, to: &str, server: SocketAddr, asked: SocketAddr) -> bool {
    talks_within(from, to, server, asked, Duration::from_secs(2)).is_some()
}

fn talks_within(
    from: &str,
    to: &str,
    server: SocketAddr,
    asked: SocketAddr,
    time: Duration,
) -> Option<IpAddr> {
    let listener = inside(to, || TcpListener::bind(server).expect("a server"));
    let waits = listener.try_clone().expect("a copy");
    std::thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let (mut stream, peer) = waits.accept().ok()?;
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            stream.write_all(&byte).ok()?;
            Some(peer.ip())
        });
        let answered = inside(from, || {
            let mut stream = TcpStream::connect_timeout(&asked, time).ok()?;
            stream
                .set_read_timeout(Some(Duration::from_secs(120)))
                .ok()?;
            stream.write_all(b"x").ok()?;
            stream.read_exact(&mut [0]).ok()
        });
        if answered.is_none() {
            // The server waits still: a connection of its own ends that.
            inside(to, || {
                drop(TcpStream::connect_timeout(
                    &server,
                    Duration::from_secs(120),
                ))
            });
        }
        let seen = serving.join().expect("no panic");
        answered.and(seen)
    })
}

#[test]
fn pings_and_connections_pass_as_the_policy_says_in_both_families() {
    let Some(ground) = ground("pings_and_connections_pass_as_the_policy_says_in_both_families")
    else {
        return;
    };
    world(&ground);
    for number in [100, 101, 102] {
        attach(&ground, number);
    }
    let (mut a, b, c) = (
        container(100, "a"),
        container(101, "a"),
        container(102, "b"),
    );
    a["in"] = json!({"accept": [{"proto": "tcp", "ports": [80]}, {"proto": "icmp"}]});
    assert!(
        !pings("c100", "10.0.1.1"),
        "a secure bridge without flows passes nothing"
    );
    ground.apply(&document(&json!([a, b, c])));

    for target in ["10.0.1.1", "fd77::1", "10.0.1.101", "fd77::101"] {
        assert!(reaches("c100", target), "100 to {target}");
    }
    // Another tenant is not there, not even for neighbour discovery.
    for target in ["10.0.1.102", "fd77::102"] {
        assert!(!pings("c100", target), "100 to {target}");
        let known = tool("ip netns exec c102 ip neigh");
        assert!(!known.contains("02:00:00:00:01:64"), "{known}");
    }
    assert!(reaches("c102", "fd77::1"), "102 to the world");
    for (target, good) in [
        ("10.0.1.100", true),
        ("fd77::100", true),
        ("10.0.1.101", false),
        ("fd77::101", false),
    ] {
        let found = match good {
            true => reaches("world", target),
            false => pings("world", target),
        };
        assert_eq!(found, good, "the world to {target}");
    }
    for (address, port, good) in [
        ("10.0.1.100", 80, true),
        ("fd77::100", 80, true),
        ("10.0.1.100", 81, false),
        ("fd77::100", 81, false),
    ] {
        let there = at(address, port);
        let seen = match good {
            true => talks("world", "c100", there, there).is_some(),
            false => gets_through("world", "c100", there, there),
        };
        assert_eq!(seen, good, "the world to {there}");
    }
    for (from, address) in [("c101", "10.0.1.1"), ("c102", "fd77::1")] {
        let there = at(address, 993);
        assert!(
            talks(from, "world", there, there).is_some(),
            "{from} to {there}"
        );
    }
    let neighbour = at("10.0.1.101", 4000);
    assert!(
        talks("c100", "c101", neighbour, neighbour).is_some(),
        "within the tenant"
    );
    assert!(
        !gets_through("c102", "c101", neighbour, neighbour),
        "from another tenant"
    );
    ground.stop();
}

#[test]
fn spoofed_sources_and_neighbours_stay_at_the_port() {
    let Some(ground) = ground("spoofed_sources_and_neighbours_stay_at_the_port") else {
        return;
    };
    world(&ground);
    for number in [100, 101] {
        attach(&ground, number);
    }
    ground.apply(&document(&json!([
        container(100, "a"),
        container(101, "a")
    ])));
    assert!(reaches("c100", "10.0.1.1") && reaches("c100", "fd77::1"));

    // Addresses that it has only by its own word.
    let dropped = || ground.hits(0, REST, "vi100");
    let before = dropped();
    tool("ip netns exec c100 ip addr add 10.0.1.77/24 dev eth0");
    tool("ip netns exec c100 ip addr add fd77::77/64 dev eth0 nodad");
    assert!(!pings("c100", "-I 10.0.1.77 10.0.1.1"));
    assert!(!pings("c100", "-I fd77::77 fd77::1"));
    assert!(
        eventually(|| dropped() > before),
        "it was not dropped at the port"
    );

    // It says that it is the gateway: its neighbour still finds the real one.
    tool("ip netns exec c100 ip addr add 10.0.1.1/32 dev eth0");
    tool("ip netns exec c100 ip addr add fd77::1/128 dev eth0 nodad");
    let lies = || dropped() + ground.hits(0, SPOOFED_NEIGHBOURS, "vi100");
    let before = lies();
    for target in ["10.0.1.1", "fd77::1"] {
        for _ in 0..3 {
            tool("ip netns exec c101 ip neigh flush all");
            assert!(reaches("c101", target), "101 to {target}");
            let known = tool(&format!("ip netns exec c101 ip neigh show {target}"));
            assert!(known.contains(GATEWAY), "{known}");
        }
    }
    // Counters of flows that the datapath has cached come late.
    let lied = eventually(|| lies() >= before + 2);
    assert!(
        lied,
        "nobody lied, so nothing was tested: {}",
        lies() - before
    );

    // Another hardware address.
    tool("ip netns exec c101 ip link set eth0 down");
    tool("ip netns exec c101 ip link set eth0 address 02:00:00:00:01:77");
    tool("ip netns exec c101 ip link set eth0 up");
    let before = ground.hits(0, REST, "vi101");
    assert!(!pings("c101", "10.0.1.1"));
    // Counters of cached flows come late.
    assert!(
        eventually(|| ground.hits(0, REST, "vi101") > before),
        "it was not dropped at the port"
    );
    ground.stop();
}

/// How many of `count` packets, sent as fast as possible, arrive.
fn arrives(from: &str, count: usize) -> usize {
    let receiver = inside("world", || UdpSocket::bind("10.0.1.1:0").expect("a socket"));
    let to = receiver.local_addr().expect("an address");
    let patience = |time| receiver.set_read_timeout(Some(time)).expect("a limit");
    // On a busy machine the first is a while on its way; behind it they are close together.
    patience(Duration::from_secs(60));
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let mut seen = 0;
            while receiver.recv(&mut [0; 16]).is_ok() {
                seen += 1;
                patience(Duration::from_secs(2));
            }
            seen
        });
        inside(from, || {
            let sender = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            for _ in 0..count {
                sender.send_to(b"x", to).expect("sent");
            }
        });
        counting.join().expect("no panic")
    })
}

#[test]
fn a_limited_container_gets_a_fraction_through_of_what_another_does() {
    let Some(ground) = ground("a_limited_container_gets_a_fraction_through_of_what_another_does")
    else {
        return;
    };
    world(&ground);
    for number in [100, 101] {
        attach(&ground, number);
    }
    let (mut limited, free) = (container(100, "a"), container(101, "a"));
    limited["rate"] = json!({"out": {"pktps": 20, "burst": 10}});
    ground.apply(&document(&json!([limited, free])));
    // Neighbours know each other before it counts.
    assert!(reaches("c100", "10.0.1.1") && reaches("c101", "10.0.1.1"));
    let (limited, free) = (arrives("c100", 200), arrives("c101", 200));
    assert!(free > 150, "{free} of 200 without a limit");
    assert!(
        limited > 0 && limited * 2 < free,
        "{limited} with a limit, {free} without"
    );
    let listed: Value =
        serde_json::from_str(&ground.must("ovs-list", json!({"bridge": "ovsbr0"})).output)
            .expect("JSON");
    let dropped = listed["bridges"][0]["meters"][0]["dropped"]
        .as_u64()
        .expect("a counter");
    assert!(dropped > 100, "{dropped}");
    ground.stop();
}

#[test]
fn a_translation_a_router_and_a_vlan_carry_real_connections() {
    let Some(ground) = ground("a_translation_a_router_and_a_vlan_carry_real_connections") else {
        return;
    };
    // The other end of the uplink is a switch with a VLAN: this kernel may have no tagged interfaces of its own.
    tool("ip link add uplink0 type veth peer name far0");
    for end in ["uplink0", "far0"] {
        tool(&format!("ip link set {end} up"));
    }
    ground.must(
        "ovs-add-port",
        json!({"bridge": "ovsbr0", "port": "uplink0"}),
    );
    ground
        .switch
        .vsctl("add-br far -- set Bridge far datapath_type=netdev -- add-port far far0");
    ground.far(
        "far1",
        "world",
        GATEWAY,
        &["10.0.1.1/24", "fd77::1/64", "10.0.2.2/24"],
        "",
    );
    ground.far(
        "far2",
        "tagged",
        "02:00:00:00:00:02",
        &["10.0.2.1/24"],
        "tag=100",
    );
    for number in [100, 102] {
        attach(&ground, number);
    }
    ground.attach(
        "vi103",
        "c103",
        "02:00:00:00:01:67",
        &["10.0.2.103/24", "fd78::103/64"],
    );
    ground.attach("vr0", "router", "02:00:00:00:0a:01", &["10.0.1.3/24"]);
    tool("ip netns exec router ip addr add 198.18.0.53/32 dev lo");
    tool("ip netns exec c100 ip route add default via 10.0.1.1");
    let (mut a, mut b) = (container(100, "a"), container(102, "b"));
    a["routes"] = json!([{"service": "dns", "via": "vpn"}]);
    b["nat"] =
        json!({"source": "10.0.1.200", "publish": [{"proto": "tcp", "port": 8080, "to_port": 80}]});
    let tagged = json!({"id": "103", "port": "vi103", "mac": "02:00:00:00:01:67", "tenant": "c", "addresses": ["10.0.2.103", "fd78::103"]});
    let mut document = document(&json!([a, b, tagged]));
    let bridge = &mut document["bridges"][0];
    bridge["routers"] = json!([{"name": "vpn", "port": "vr0", "mac": "02:00:00:00:0a:01"}]);
    bridge["tenants"]
        .as_array_mut()
        .expect("tenants")
        .push(json!({"name": "c", "zone": 12, "vlan": 100}));
    ground.apply(&document);

    // Translated: the world sees the public address, finds it by ARP, and reaches the published port.
    let server = at("10.0.1.1", 993);
    assert_eq!(
        talks("c102", "world", server, server),
        Some("10.0.1.200".parse().expect("an address"))
    );
    assert!(reaches("c102", "10.0.1.1"), "ICMP is translated, too");
    let own = at("10.0.1.102", 80);
    assert!(
        talks("world", "c102", own, at("10.0.1.200", 8080)).is_some(),
        "the published port"
    );
    assert!(
        !gets_through("world", "c102", own, at("10.0.1.200", 80)),
        "another port"
    );
    let server6 = at("fd77::1", 993);
    assert_eq!(
        talks("c102", "world", server6, server6),
        Some("fd77::102".parse().expect("an address"))
    );

    // DNS goes to the router, whatever the container's routes say, and its answer comes back.
    let answers = |port: u16, time: Duration| {
        let server = inside("router", || {
            UdpSocket::bind(at("198.18.0.53", port)).expect("a socket")
        });
        server.set_read_timeout(Some(time)).expect("a limit");
        std::thread::scope(|scope| {
            let serving = scope.spawn(move || {
                let mut buffer = [0; 16];
                let (length, peer) = server.recv_from(&mut buffer).ok()?;
                server.send_to(&buffer[..length], peer).ok()
            });
            let answered = inside("c100", || {
                let socket = UdpSocket::bind("10.0.1.100:0").expect("a socket");
                socket.set_read_timeout(Some(time)).expect("a limit");
                socket
                    .send_to(b"question", at("198.18.0.53", port))
                    .expect("sent");
                socket.recv(&mut [0; 16]).is_ok()
            });
            serving.join().expect("no panic").is_some() && answered
        })
    };
    assert!(answers(53, Duration::from_secs(60)), "DNS by the router");
    assert!(
        !answers(54, Duration::from_secs(2)),
        "what is not DNS goes to the gateway, which knows no way"
    );

    // The VLAN: tagged outside, untagged inside, and nobody from elsewhere.
    assert!(reaches("c103", "10.0.2.1"), "by VLAN 100");
    assert!(
        reaches("tagged", "10.0.2.1") && !pings("tagged", "10.0.2.103"),
        "nobody may begin there"
    );
    assert!(!pings("c103", "10.0.2.2"), "without the tag");
    ground.stop();
}

/// The records of flow statistics in the world's ledger.
fn recorded(ground: &Ground) -> Vec<Value> {
    let directory =
        blockhost_ledger::dir::LedgerDir::open(&ground.world.layout.ledger()).expect("a ledger");
    let reader =
        blockhost_ledger::reader::Reader::open(directory, None).expect("a readable ledger");
    reader
        .records(0)
        .map(|item| serde_json::from_slice::<Value>(&item.expect("a record").1).expect("JSON"))
        .filter(|record| record.to_string().contains("flow-stats"))
        .collect()
}

#[test]
fn what_goes_through_is_recorded_by_owner_and_port_also_after_the_switch_was_restarted() {
    let Some(mut ground) = ground(
        "what_goes_through_is_recorded_by_owner_and_port_also_after_the_switch_was_restarted",
    ) else {
        return;
    };
    world(&ground);
    attach(&ground, 100);
    ground.attach("vi102", "c102", "02:00:00:00:01:66", &["10.0.1.102/24"]);
    let document = document(&json!([container(100, "a"), container(102, "b")]));
    ground.apply(&document);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut accounts = Accounts::new(ground.world.layout.clone());
    let mut settle = || runtime.block_on(accounts.settle()).expect("settled");
    assert_eq!(settle(), 0, "the first look only begins");
    assert_eq!(recorded(&ground).len(), 0);
    assert!(reaches("c100", "10.0.1.1"));
    // Counters of cached flows reach the tables about twice a second.
    assert!(eventually(|| settle() > 0), "nothing was recorded");
    let count = |records: &[Value], owner: &str, key: &str| -> u64 {
        let of = |record: &Value| record["metadata"]["owners"][owner][key].as_u64();
        records.iter().filter_map(of).sum()
    };
    let records = recorded(&ground);
    let first = records.first().expect("a record");
    assert_eq!(
        (&first["category"], &first["resource"]),
        (&json!("network"), &json!("bridge:ovsbr0")),
        "{first}"
    );
    assert!(count(&records, "net.ct.100", "packets") > 0, "{records:?}");
    assert_eq!(
        count(&records, "net.ct.102", "packets"),
        0,
        "who was quiet is not in it: {records:?}"
    );
    assert!(
        first["metadata"]["ports"]["vi100"]["rx_packets"].as_u64() > Some(0),
        "{first}"
    );

    // A switch that begins anew: its counters are less than before, and are not taken for a flood.
    for _ in 0..20 {
        assert!(reaches("c100", "10.0.1.1"));
    }
    assert!(eventually(|| settle() > 0));
    let before = recorded(&ground).len();
    ground.switch.kill_daemon();
    ground.switch.start_daemon();
    let up = || {
        ground
            .ask("ovs-list", &json!({"bridge": "ovsbr0"}))
            .is_ok_and(|reply| !reply.output.contains("\"error\":\""))
    };
    assert!(eventually(up), "the switch does not come back");
    ground.apply(&document);
    assert!(reaches("c100", "10.0.1.1"));
    // The ports' counters are there at once, those of cached flows a moment later.
    let told = || {
        count(
            &recorded(&ground).split_off(before),
            "net.ct.100",
            "packets",
        )
    };
    assert!(eventually(|| {
        settle();
        told() > 0
    }));
    let packets = told();
    assert!(packets < 2000, "{packets}");
    let records = recorded(&ground).split_off(before);
    let marked = |record: &Value| record["metadata"]["began_anew"] == true;
    assert!(records.iter().any(marked), "{records:?}");
    ground.stop();
}
