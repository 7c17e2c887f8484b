//! Limits on devices in real network namespaces, compared with what `tc` and `ip` say.

mod compartment_world;
mod second_net;

use blockhost_netlink::{Netlink, tc};
use compartment_world::{in_namespace, tool};
use rustix::io::Errno;
use second_net::SecondNet;
use serde_json::Value;

fn json(words: &str) -> Vec<Value> {
    serde_json::from_str(&tool(words)).expect("JSON")
}

fn device() -> (Netlink, String) {
    tool("ip link add tap100i0 type veth peer name machine");
    tool("ip link set tap100i0 up");
    tool("ip link set machine up");
    let index = json("ip -j link show tap100i0")[0]["ifindex"]
        .as_u64()
        .expect("a number");
    (Netlink::open().expect("netlink"), format!("bhin{index}"))
}

/// Bytes per second of the token bucket at the root of a device.
fn rate(device: &str) -> Option<u64> {
    let list = json(&format!("tc -j -d qdisc show dev {device}"));
    let root = list
        .iter()
        .find(|q| q["root"] == true && q["kind"] == "tbf")?;
    root["options"]["rate"].as_u64()
}

fn second_devices() -> usize {
    let all = json("ip -j link show");
    all.iter()
        .filter(|l| l["ifname"].as_str().is_some_and(|n| n.starts_with("bhin")))
        .count()
}

#[test]
fn limits_of_both_directions_are_what_tc_shows() {
    in_namespace("limits_of_both_directions_are_what_tc_shows", || {
        let (mut netlink, second) = device();
        tc::limit(&mut netlink, "tap100i0", Some(8000), Some(800)).expect("limits");
        assert_eq!(rate("tap100i0"), Some(1_000_000));
        assert_eq!(rate(&second), Some(100_000));
        let filter = tool("tc filter show dev tap100i0 ingress");
        assert!(
            filter.contains("mirred") && filter.contains(&second),
            "{filter}"
        );
        let limits = tc::limits(&mut netlink, "tap100i0").expect("limits");
        assert_eq!((limits.in_kbps, limits.out_kbps), (Some(8000), Some(800)));
    });
}

#[test]
fn one_direction_is_changed_without_touching_the_other_and_again_changes_nothing() {
    in_namespace(
        "one_direction_is_changed_without_touching_the_other_and_again_changes_nothing",
        || {
            let (mut netlink, second) = device();
            tc::limit(&mut netlink, "tap100i0", Some(8000), Some(800)).expect("limits");
            tc::limit(&mut netlink, "tap100i0", None, Some(1600)).expect("limits");
            assert_eq!(
                (rate("tap100i0"), rate(&second)),
                (Some(1_000_000), Some(200_000))
            );
            let before = (
                tool("tc -d qdisc show"),
                tool("tc filter show dev tap100i0 ingress"),
            );
            tc::limit(&mut netlink, "tap100i0", Some(8000), Some(1600)).expect("limits");
            let after = (
                tool("tc -d qdisc show"),
                tool("tc filter show dev tap100i0 ingress"),
            );
            assert_eq!(before, after);
            // More than 32 bits of bytes per second.
            tc::limit(&mut netlink, "tap100i0", Some(100_000_000), None).expect("limits");
            assert_eq!(rate("tap100i0"), Some(12_500_000_000));
        },
    );
}

#[test]
fn a_reset_leaves_the_device_as_it_was_and_another_is_a_success() {
    in_namespace(
        "a_reset_leaves_the_device_as_it_was_and_another_is_a_success",
        || {
            let (mut netlink, _) = device();
            let state = || (tool("tc -d qdisc show"), tool("ip -br link"));
            let before = state();
            tc::limit(&mut netlink, "tap100i0", Some(8000), Some(800)).expect("limits");
            assert_ne!(state(), before);
            tc::reset(&mut netlink, "tap100i0").expect("reset");
            assert_eq!(state(), before);
            tc::reset(&mut netlink, "tap100i0").expect("reset of nothing");
            assert_eq!(state(), before);
        },
    );
}

#[test]
fn what_a_machine_sends_goes_through_its_limit_and_still_arrives() {
    in_namespace(
        "what_a_machine_sends_goes_through_its_limit_and_still_arrives",
        || {
            let (mut netlink, second) = device();
            tc::limit(&mut netlink, "tap100i0", None, Some(8000)).expect("limits");
            let machine = SecondNet::new();
            tool(&format!("ip link set machine netns {}", machine.pid()));
            tool("ip addr add 10.9.0.1/24 dev tap100i0");
            machine.run("ip addr add 10.9.0.2/24 dev machine");
            machine.run("ip link set machine up");
            machine.run("ping -c 2 -W 5 10.9.0.1");
            let counters = &json(&format!("ip -j -s link show {second}"))[0]["stats64"];
            assert!(
                counters["rx"]["packets"].as_u64().is_some_and(|n| n > 0),
                "{counters}"
            );
        },
    );
}

#[test]
fn filters_and_queues_of_others_are_left_alone_by_a_reset() {
    in_namespace(
        "filters_and_queues_of_others_are_left_alone_by_a_reset",
        || {
            let (mut netlink, _) = device();
            tool("tc qdisc add dev tap100i0 root handle 7: tbf rate 1mbit burst 32kb latency 50ms");
            tool("tc qdisc add dev tap100i0 clsact");
            tool(
                "tc filter add dev tap100i0 egress prio 5 protocol all u32 match u32 0 0 action mirred egress mirror dev machine",
            );
            tc::limit(&mut netlink, "tap100i0", None, Some(800)).expect("limits");
            tc::reset(&mut netlink, "tap100i0").expect("reset");
            let qdiscs = tool("tc qdisc show dev tap100i0");
            assert!(
                qdiscs.contains("tbf 7:") && qdiscs.contains("clsact"),
                "{qdiscs}"
            );
            assert!(tool("tc filter show dev tap100i0 egress").contains("pref 5"));
            assert!(!tool("tc filter show dev tap100i0 ingress").contains("mirred"));
        },
    );
}

#[test]
fn a_limit_where_the_container_manager_polices_already_uses_what_is_there() {
    in_namespace(
        "a_limit_where_the_container_manager_polices_already_uses_what_is_there",
        || {
            let (mut netlink, second) = device();
            tool("tc qdisc add dev tap100i0 handle ffff: ingress");
            tc::limit(&mut netlink, "tap100i0", None, Some(800)).expect("limits");
            assert!(tool("tc filter show dev tap100i0 parent ffff:").contains(&second));
            tc::reset(&mut netlink, "tap100i0").expect("reset");
            assert!(tool("tc qdisc show dev tap100i0").contains("ingress"));
            assert!(!tool("tc filter show dev tap100i0 parent ffff:").contains("mirred"));
        },
    );
}

#[test]
fn what_is_left_of_a_machine_that_is_gone_goes_with_the_next_change() {
    in_namespace(
        "what_is_left_of_a_machine_that_is_gone_goes_with_the_next_change",
        || {
            let (mut netlink, _) = device();
            tc::limit(&mut netlink, "tap100i0", None, Some(800)).expect("limits");
            tool("ip link del tap100i0");
            assert_eq!(second_devices(), 1);
            tool("ip link add tap101i0 type veth peer name machine");
            tc::limit(&mut netlink, "tap101i0", Some(800), None).expect("limits");
            assert_eq!(second_devices(), 0);
        },
    );
}

#[test]
fn a_second_device_without_its_mark_because_its_maker_died_is_finished_or_swept() {
    in_namespace(
        "a_second_device_without_its_mark_because_its_maker_died_is_finished_or_swept",
        || {
            let (mut netlink, second) = device();
            // What stands between the two messages that make one.
            tool(&format!("ip link add {second} group 45324 type ifb"));
            tool("ip link add bhin4000000 group 45324 type ifb");
            tc::limit(&mut netlink, "tap100i0", None, Some(800)).expect("limits");
            assert_eq!(rate(&second), Some(100_000));
            assert_eq!(second_devices(), 1, "that of a machine that is gone stays");
            let alias = json(&format!("ip -j link show {second}"))[0]["ifalias"].clone();
            assert!(
                alias
                    .as_str()
                    .is_some_and(|alias| alias.starts_with("blockhost: limits device")),
                "{alias}"
            );
            tc::reset(&mut netlink, "tap100i0").expect("reset");
            assert_eq!(second_devices(), 0);
        },
    );
}

#[test]
fn a_machine_whose_second_device_somebody_removed_is_not_cut_off_for_good() {
    in_namespace(
        "a_machine_whose_second_device_somebody_removed_is_not_cut_off_for_good",
        || {
            let (mut netlink, second) = device();
            tc::limit(&mut netlink, "tap100i0", None, Some(800)).expect("limits");
            tool(&format!("ip link del {second}"));
            tc::limit(&mut netlink, "tap100i0", None, Some(8000)).expect("limits");
            let filter = tool("tc filter show dev tap100i0 ingress");
            assert!(
                filter.contains(&second),
                "it leads to a device that is gone: {filter}"
            );
            assert_eq!(filter.matches("mirred").count(), 1, "{filter}");
        },
    );
}

#[test]
fn a_device_that_is_not_there_is_an_error_and_a_foreign_one_in_our_place_too() {
    in_namespace(
        "a_device_that_is_not_there_is_an_error_and_a_foreign_one_in_our_place_too",
        || {
            let (mut netlink, second) = device();
            let missing = tc::limit(&mut netlink, "tap999i0", Some(1), None).unwrap_err();
            assert_eq!(missing.refusal(), Some(Errno::NODEV));
            tool(&format!("ip link add {second} type ifb"));
            let taken = tc::limit(&mut netlink, "tap100i0", None, Some(8)).unwrap_err();
            assert_eq!(taken.refusal(), Some(Errno::EXIST));
            tc::reset(&mut netlink, "tap100i0").expect("reset");
            assert_eq!(second_devices(), 1, "another's device was removed");
        },
    );
}
