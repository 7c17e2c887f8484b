//! What guests behind a Linux bridge may send, with frames that go through the kernel: written to a tap as QEMU writes them,
//! read from a neighbour's. And with machines that really run: the rules are there while the machine is.

#[allow(dead_code, reason = "not all of it is used here")]
mod common;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

use blockhost_hypervisor::exec::{self, Run};
use blockhost_hypervisor::guard::frames::{
    self, ASKS, Frame, MAC, ONLY_V4, OTHER_MAC, SOLD, guard,
};
use blockhost_hypervisor::net;
use blockhost_netlink::{Netlink, tc};
use blockhost_proto::qm::{IpConfig, MacAddress, NetDevice};
use common::World;
use common::apart::namespaces;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

/// What stands before each frame on a tap, all zero: no checksum or size is left to the host.
const HEADER: usize = 10;

/// A network of this thread's own with a bridge; it ends with the process that holds it.
struct Ground(Child);

impl Ground {
    fn new() -> Option<Self> {
        match Self::build() {
            Ok(ground) => Some(ground),
            Err(reason) => {
                eprintln!("skipped: {reason}");
                None
            }
        }
    }

    fn build() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let ground = Ground(namespaces()?);
        let space =
            File::open(format!("/proc/{}/ns/net", ground.0.id())).map_err(|e| e.to_string())?;
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| e.to_string())?;
        run("ip link add vmbr0 type bridge mcast_snooping 0 stp_state 0");
        // The frames have no checksums, which a firewall of the host that looks into bridges would insist on.
        for family in ["ip", "ip6", "arp"] {
            let setting = format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables");
            let _ = std::fs::write(setting, "0");
        }
        run("ip link set vmbr0 up");
        tap(199, [2, 0, 0, 0, 0, 1], "", "").map_err(|e| e.to_string())?;
        Ok(ground)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program in this thread's network; what it printed.
fn run(words: &str) -> String {
    let mut words = words.split(' ');
    let program = exec::find(words.next().unwrap(), "iproute2").unwrap();
    Run::new(program, words).output().unwrap()
}

/// A card's tap in the bridge, made as the product makes it.
fn tap(
    vmid: u32,
    mac: [u8; 6],
    more: &str,
    ip: &str,
) -> Result<OwnedFd, blockhost_hypervisor::error::Error> {
    let mac = MacAddress::new(mac).unwrap();
    let card = NetDevice::read(&format!("virtio={mac},bridge=vmbr0{more}")).unwrap();
    let ip = IpConfig::read(ip);
    net::plug(vmid.to_string().parse().unwrap(), 0, &card, ip)
}

fn guarded(ip: &str) -> OwnedFd {
    tap(100, MAC, ",firewall=1", ip).unwrap()
}

fn send(from: &OwnedFd, frame: &[u8]) {
    let bytes = [&[0; HEADER][..], frame].concat();
    assert_eq!(rustix::io::write(from, &bytes).unwrap(), bytes.len());
}

fn receive(at: &OwnedFd) -> Vec<u8> {
    let long = Timespec {
        tv_sec: 120,
        tv_nsec: 0,
    };
    let ready = poll(&mut [PollFd::new(at, PollFlags::IN)], Some(&long)).unwrap();
    assert_eq!(ready, 1, "nothing arrives, not even what may");
    let mut bytes = vec![0; 4096];
    let length = rustix::io::read(at, &mut bytes).unwrap();
    bytes[HEADER..length].to_vec()
}

/// Which of the frames arrive. Each is followed by one that may pass, so that nothing has to be waited for in vain.
fn arriving(frames: &[Frame], from: &OwnedFd, at: &OwnedFd) -> Vec<(&'static str, bool)> {
    let first = &frames[0];
    assert!(first.passes);
    let mut found = Vec::new();
    for (number, frame) in (0u16..).zip(frames) {
        let mut marker = first.bytes.clone();
        let end = marker.len() - 2;
        marker[end..].copy_from_slice(&(0x8000 + number).to_be_bytes());
        send(from, &frame.bytes);
        send(from, &marker);
        let mut arrived = false;
        loop {
            let received = receive(at);
            if received == marker {
                break;
            }
            arrived |= received == frame.bytes;
        }
        found.push((frame.what, arrived));
    }
    found
}

fn expected(frames: &[Frame]) -> Vec<(&'static str, bool)> {
    frames.iter().map(|f| (f.what, f.passes)).collect()
}

/// The programs on a device, as `tc` shows them.
fn programs(device: &str) -> Vec<Value> {
    let text = run(&format!("tc -j filter show dev {device} ingress"));
    let list: Vec<Value> = serde_json::from_str(&text).unwrap();
    let options = list.iter().filter_map(|filter| filter.get("options"));
    options
        .filter(|options| options["direct-action"] == true)
        .map(|options| options["bytecode"]["insns"].clone())
        .collect()
}

fn meant(ip: &str) -> Value {
    let program = guard(ip).program().unwrap();
    program
        .iter()
        .map(|i| json!({"code": i.code, "jt": i.yes, "jf": i.no, "k": i.k}))
        .collect()
}

#[test]
fn what_is_not_a_guests_own_does_not_arrive_and_what_is_does() {
    let Some(_ground) = Ground::new() else { return };
    let neighbour = tap(101, OTHER_MAC, "", "").unwrap();
    let sold = frames::of_sold();
    // Without the rules everything arrives: it is they who keep it away.
    let open = tap(102, MAC, ",firewall=0", SOLD).unwrap();
    for (what, arrived) in arriving(&sold, &open, &neighbour) {
        assert!(arrived, "{what}");
    }
    drop(open);
    for (ip, list) in [
        (SOLD, &sold),
        (ASKS, &frames::of_unknown()),
        ("", &frames::of_unknown()),
        (ONLY_V4, &frames::of_only_v4()),
    ] {
        // A new one of the same name each time, with the rules of its own addresses.
        let guest = guarded(ip);
        assert_eq!(arriving(list, &guest, &neighbour), expected(list), "{ip}");
        assert_eq!(programs("tap100i0"), [meant(ip)], "{ip}");
    }
}

#[test]
fn a_limit_on_what_a_guest_sends_neither_lets_more_pass_nor_is_passed_by() {
    let Some(_ground) = Ground::new() else { return };
    let neighbour = tap(101, OTHER_MAC, "", "").unwrap();
    let guest = guarded(SOLD);
    let sold = frames::of_sold();
    let mut netlink = Netlink::open().unwrap();
    if let Err(e) = tc::limit(&mut netlink, "tap100i0", None, Some(1_000_000)) {
        eprintln!("skipped: no limits can be set here: {e}");
        return;
    }
    assert_eq!(arriving(&sold, &guest, &neighbour), expected(&sold));
    let index = netlink.link("tap100i0").unwrap().unwrap().index;
    let shown = run(&format!("ip -j -s link show bhin{index}"));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let limited = shown[0]["stats64"]["rx"]["packets"].as_u64().unwrap();
    let passing = sold.iter().filter(|frame| frame.passes).count() + sold.len();
    // And what the host itself says there.
    assert!(limited >= passing as u64, "{limited} of {passing}");
    tc::reset(&mut netlink, "tap100i0").unwrap();
    assert_eq!(programs("tap100i0"), [meant(SOLD)]);
    // As a host's firewall does when it is loaded again.
    if let Ok(nft) = exec::find("nft", "nftables") {
        Run::new(nft, ["flush", "ruleset"]).output().unwrap();
    }
    assert_eq!(arriving(&sold, &guest, &neighbour), expected(&sold));
}

#[test]
fn what_cannot_be_guarded_is_not_plugged_in() {
    let Some(_ground) = Ground::new() else { return };
    let card = NetDevice::read("virtio,bridge=vmbr0,firewall=1").unwrap();
    let refused = net::plug("100".parse().unwrap(), 0, &card, None).unwrap_err();
    assert!(
        refused.to_string().contains("hardware address"),
        "{refused}"
    );
    let refused = guard(SOLD).put_in_force("tap100i0").unwrap_err();
    assert!(refused.to_string().contains("'tap100i0'"), "{refused}");
    // Not beside another program either, which might be asked first.
    let _guest = guarded(SOLD);
    let refused = guard(ONLY_V4).put_in_force("tap100i0").unwrap_err();
    assert!(refused.to_string().contains("exists"), "{refused}");
    assert_eq!(programs("tap100i0"), [meant(SOLD)]);
}

#[test]
fn the_rules_are_there_while_their_machine_is() {
    let Some(world) = World::new() else { return };
    let filters = |vmid: &str| {
        let device = format!("tap{vmid}i0");
        world
            .inside("tc", &["filter", "show", "dev", &device, "ingress"])
            .output
    };
    for vmid in ["100", "101"] {
        let net = ["--net0", "virtio,bridge=vmbr0,firewall=1"];
        let ip = format!("ip=10.9.0.{vmid}/24");
        let sizes = ["--memory", "32", "--ipconfig0", &ip];
        world.ok(&[&["create", vmid][..], &net, &sizes].concat());
    }
    std::thread::scope(|scope| {
        for vmid in ["100", "101"] {
            let world = &world;
            scope.spawn(move || world.ok(&["start", vmid]));
        }
    });
    let (first, second) = (filters("100"), filters("101"));
    assert!(
        first.contains("direct-action") && second.contains("direct-action"),
        "{first}{second}"
    );
    assert_ne!(first, second, "each has its own addresses");
    let pid = world.field("100", "pid");
    world.inside("kill", &["-KILL", &pid]);
    let links = || world.inside("ip", &["-brief", "link"]).output;
    let end = Instant::now() + Duration::from_secs(120);
    // A process that is on its way out counts as a machine that runs, until it has let go of everything.
    while links().contains("tap100i0") || !world.ok(&["status", "100"]).contains("stopped") {
        assert!(Instant::now() < end, "{}", links());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(filters("101"), second);
    world.ok(&["start", "100"]);
    assert_eq!(filters("100"), first, "again");
    std::thread::scope(|scope| {
        for vmid in ["100", "101"] {
            let world = &world;
            scope.spawn(move || world.ok(&["stop", vmid]));
        }
    });
    assert!(!links().contains("tap"), "{}", links());
    // What somebody wrote into the file reaches no rule, and the machine does not run without them.
    let file = world.path("var/lib/blockhost/qm/100.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    for hostile in ["ip=10.9.0.100/24; drop", "ip=::/0", "ip=0.0.0.0/0", ""] {
        let changed = text.replace("ip=10.9.0.100/24", hostile);
        std::fs::write(&file, changed).unwrap();
        assert!(!world.qm(&["start", "100"]).status.success(), "{hostile}");
        assert!(!links().contains("tap"), "{}", links());
    }
}

#[test]
fn a_real_guest_is_reached_under_its_own_addresses_and_under_no_other() {
    let Some(world) = World::new() else { return };
    let Some(image) = world.guest_image() else {
        return;
    };
    for args in [
        &["addr", "add", "10.9.0.1/24", "dev", "vmbr0"][..],
        &["addr", "add", "fd09::1/64", "dev", "vmbr0", "nodad"],
    ] {
        assert!(world.inside("ip", args).status.success());
    }
    world.guest("100", &image);
    let net = ["--net0", "virtio,bridge=vmbr0,firewall=1"];
    world.ok(&[&["set", "100"][..], &net, &["--ipconfig0", SOLD]].concat());
    world.ok(&["start", "100"]);
    world.wait_agent("100");
    let shell = |command: &str| {
        world.ok(&["guest", "exec", "100", "--", "/bin/sh", "-c", command]);
    };
    shell(
        "ip link set eth0 up; for a in 10.9.0.5/24 10.9.0.9/24 fd09::5/64 fd09::9/64; do ip addr add $a dev eth0; done",
    );
    let answers = |address: &str| {
        let ping = world.inside("ping", &["-c", "1", "-W", "2", address]);
        ping.status.success()
    };
    let end = Instant::now() + Duration::from_secs(120);
    for address in ["10.9.0.5", "fd09::5"] {
        while !answers(address) {
            assert!(Instant::now() < end, "{address}");
        }
    }
    for address in ["10.9.0.9", "fd09::9"] {
        assert!(!answers(address), "{address}");
    }
    world.ok(&["stop", "100"]);
}
