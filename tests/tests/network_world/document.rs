//! The policy that the traces are about: who is where.

use serde_json::{Value, json};

use super::{Ground, ground};

/// Two tenants without VLAN (one of them with two containers), one with VLAN 100; an uplink, the host, a router.
pub fn document() -> Value {
    json!({"bridges": [{
        "bridge": "ovsbr0",
        "outside": [
            {"port": "uplink0", "qos": {"max_kbps": 1_000_000, "queues": [{"queue": 1, "min_kbps": 1000}, {"queue": 2, "max_kbps": 500_000}]}},
            {"port": "ovsbr0", "macs": ["02:00:00:00:00:fe"]}],
        "routers": [{"name": "vpn", "port": "vr0", "mac": "02:00:00:00:0a:01"}, {"name": "warp", "mark": 7, "mac": "02:00:00:00:00:fd"}],
        "sets": [
            {"name": "us", "networks": ["192.0.2.0/24", "198.51.100.0/25", "2001:db8:100::/40"]},
            {"name": "office", "networks": ["203.0.113.64/26", "2001:db8:ff::/48"]}],
        "limits": [{"name": "noisy", "from": ["203.0.113.0/26", "2001:db8:bad::/48"], "kbps": 1000, "burst": 100}],
        "tenants": [
            {"name": "a", "zone": 10}, {"name": "b", "zone": 11}, {"name": "c", "zone": 12, "vlan": 100, "internal": "rules", "queue": 2}],
        "containers": [
            {"id": "100", "port": "vi100", "mac": "02:00:00:00:01:64", "tenant": "a", "addresses": ["10.0.1.100", "fd77::100"], "dhcp": true,
                "in": {"accept": [{"proto": "tcp", "ports": [22], "from": ["office"]}, {"proto": "tcp", "ports": [80, "8000-8099"]}, {"proto": "icmp"}],
                    "drop": [{"proto": "any", "from": ["198.51.100.9"]}]},
                "out": {"drop": [{"proto": "tcp", "ports": [25]}]},
                "rate": {"out": {"kbps": 100_000}, "in": {"pktps": 5000}},
                "qos": {"queues": [{"queue": 5, "max_kbps": 50_000}]},
                "classes": [{"proto": "tcp", "ports": [80], "queue": 1}, {"proto": "tcp", "ports": [80], "queue": 5, "way": "in", "side": "own"}],
                "routes": [{"service": "dns", "via": "vpn"}, {"service": "https", "via": "vpn"}, {"to": "us", "via": "vpn"}, {"to": "office", "via": "warp"}]},
            {"id": "101", "port": "vi101", "mac": "02:00:00:00:01:65", "tenant": "a", "addresses": ["10.0.1.101", "fd77::101"],
                "out": {"default": "drop", "accept": [{"proto": "tcp", "ports": [443], "to": ["us", "198.51.100.128/25"]}]}},
            {"id": "102", "port": "vi102", "mac": "02:00:00:00:01:66", "tenant": "b", "addresses": ["10.0.1.102", "fd77::102"],
                "nat": {"source": "203.0.113.200", "publish": [{"proto": "tcp", "port": 8080, "to_port": 80}]}},
            {"id": "103", "port": "vi103", "mac": "02:00:00:00:01:67", "tenant": "c", "addresses": ["10.0.1.100", "fd78::103"],
                "in": {"accept": [{"proto": "tcp", "ports": [443]}]}},
            {"id": "104", "port": "vi104", "mac": "02:00:00:00:01:68", "tenant": "c", "addresses": ["10.0.1.104", "fd78::104"]}]
    }]})
}

/// Its ports, which nobody is behind.
pub const PORTS: [&str; 7] = [
    "uplink0", "vr0", "vi100", "vi101", "vi102", "vi103", "vi104",
];
/// Hardware address of the world outside.
pub const GATEWAY: &str = "02:00:00:00:00:01";

/// A world with a switch that has been told the document.
pub fn prepared(test: &str) -> Option<Ground> {
    let ground = ground(test)?;
    for port in PORTS {
        ground.dangle(port);
    }
    ground.apply(&document());
    Some(ground)
}

/// `dl_src` and `dl_dst`; the last byte says whose.
pub fn between(from: u8, to: u8) -> String {
    format!("dl_src=02:00:00:00:01:{from:02x},dl_dst=02:00:00:00:01:{to:02x}")
}

/// From a container to the world.
pub fn out_of(from: u8) -> String {
    format!("dl_src=02:00:00:00:01:{from:02x},dl_dst={GATEWAY}")
}

/// From the world to a container.
pub fn into(to: u8) -> String {
    format!("dl_src={GATEWAY},dl_dst=02:00:00:00:01:{to:02x}")
}
