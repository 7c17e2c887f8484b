//! Policies that are wrong, and what is said about them.

use super::*;

/// Every object of a document with its place as errors write it, and as JSON pointer.
fn objects(value: &Value, place: &str, pointer: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            found.push((place.to_owned(), pointer.to_owned()));
            for (key, inner) in map {
                objects(
                    inner,
                    &format!("{place}.{key}"),
                    &format!("{pointer}/{key}"),
                    found,
                );
            }
        }
        Value::Array(items) => {
            for (at, inner) in items.iter().enumerate() {
                objects(
                    inner,
                    &format!("{place}[{at}]"),
                    &format!("{pointer}/{at}"),
                    found,
                );
            }
        }
        _ => {}
    }
}

#[test]
fn an_unknown_key_is_refused_in_every_object_with_its_place() {
    let mut places = Vec::new();
    objects(&example(), "ovsflows", "", &mut places);
    assert!(places.len() > 30);
    for (place, pointer) in places {
        let mut wrong = example();
        wrong.pointer_mut(&pointer).expect("there")["surprise"] = json!(1);
        let error = read(&wrong).expect_err(&place).to_string();
        // Queues are read by the catalog, which names the queue and not the place inside.
        let near = place.split(".queues[").next().expect("a place");
        assert!(
            error.starts_with(near) && error.contains("surprise"),
            "{place}: {error}"
        );
    }
}

#[test]
fn a_list_in_place_of_an_object_is_refused_everywhere_and_so_is_a_null() {
    let mut places = Vec::new();
    objects(&example(), "ovsflows", "", &mut places);
    for (place, pointer) in places {
        for other in [
            json!([]),
            json!(["a", "b"]),
            json!(null),
            json!("x"),
            json!(7),
        ] {
            let mut wrong = example();
            *wrong.pointer_mut(&pointer).expect("there") = other.clone();
            let error = read(&wrong).expect_err(&place).to_string();
            let near = place.split(".queues[").next().expect("a place");
            assert!(error.starts_with(near), "{place}: {other}: {error}");
        }
    }
}

#[test]
fn what_a_switch_cannot_do_is_refused_with_the_reason() {
    for (key, wish) in [
        ("delay", Wish::Delay),
        ("jitter_ms", Wish::Delay),
        ("timing", Wish::Delay),
        ("fragment", Wish::Fragment),
        ("allow", Wish::Allow),
        ("rate_limit", Wish::Rate),
        ("mtu", Wish::Mtu),
        ("mss_clamp", Wish::Mss),
        ("nat66", Wish::NatIpv6),
    ] {
        let mut wrong = example();
        wrong["bridges"][0]["containers"][1][key] = json!(20);
        let error = read(&wrong).expect_err(key);
        assert_eq!(
            error.place,
            format!("ovsflows.bridges[0].containers[1].{key}")
        );
        assert_eq!(error.problem, Problem::Impossible(wish), "{key}");
    }
    let mut wrong = example();
    wrong["bridges"][0]["containers"][1]["nat"]["source"] = json!("2001:db8::1");
    let error = read(&wrong).expect_err("IPv6");
    assert_eq!(error.problem, Problem::Impossible(Wish::NatIpv6));
    wrong = example();
    wrong["bridges"][0]["containers"][1]["out"]["default"] = json!("allow");
    assert_eq!(
        read(&wrong).expect_err("allow").problem,
        Problem::Impossible(Wish::Allow)
    );
}

#[test]
fn a_zone_is_one_tenants_on_one_bridge_of_them_all() {
    // One table of connections serves every bridge of a datapath.
    let mut two = example();
    let mut second = json!({"bridge": "ovsbr1", "tenants": [{"name": "acme", "zone": 12}]});
    bridges_push(&mut two, &second);
    read(&two).expect("zones of their own");
    second["tenants"][0]["zone"] = json!(11);
    two["bridges"][1] = second;
    let error = read(&two).expect_err("the zone of another");
    assert_eq!(error.place, "ovsflows.bridges[1].tenants[0]");
    assert!(
        error
            .to_string()
            .contains("zone 11 is also at ovsflows.bridges[0].tenants[1]"),
        "{error}"
    );
}

fn bridges_push(document: &mut Value, bridge: &Value) {
    let bridges = document["bridges"].as_array_mut().expect("a list");
    bridges.push(bridge.clone());
}

#[test]
fn every_mistake_names_its_place() {
    let container = |at: usize, key: &str| format!("/bridges/0/containers/{at}/{key}");
    for (pointer, value, place, words) in [
        (
            "/bridges/0/bridge",
            json!("all"),
            "bridges[0].bridge",
            "switch port name",
        ),
        (
            "/bridges/0/fragments",
            json!("cut"),
            "bridges[0].fragments",
            "track, drop",
        ),
        (
            "/bridges/0/tenants/1/zone",
            json!(10),
            "bridges[0].tenants[1]",
            "zone 10 is also at",
        ),
        (
            "/bridges/0/tenants/1/zone",
            json!(0),
            "bridges[0].tenants[1].zone",
            "zone from 1",
        ),
        (
            "/bridges/0/tenants/1/zone",
            json!(65536),
            "bridges[0].tenants[1].zone",
            "zone from 1",
        ),
        (
            "/bridges/0/tenants/1/queue",
            json!(9),
            "bridges[0].tenants[1]",
            "no port outside has a queue 9",
        ),
        (
            "/bridges/0/routers/0/mark",
            json!(3),
            "bridges[0].routers[0]",
            "either a port, or a mark",
        ),
        (
            "/bridges/0/routers/0/vlan",
            json!(7),
            "bridges[0].routers[0]",
            "no tenant has VLAN 7",
        ),
        (
            "/bridges/0/sets/0/networks",
            json!(["192.0.2.1/24"]),
            "bridges[0].sets[0].networks[0]",
            "host bits",
        ),
        (
            "/bridges/0/sets/0/networks",
            json!([]),
            "bridges[0].sets[0]",
            "without networks",
        ),
        (
            "/bridges/0/sets/0/name",
            json!("office"),
            "bridges[0].sets[1]",
            "set office is also at",
        ),
        (
            "/bridges/0/limits/0/pktps",
            json!(1),
            "bridges[0].limits[0]",
            "kbps",
        ),
        (
            "/bridges/0/outside/1/port",
            json!("uplink0"),
            "bridges[0].outside[1]",
            "port uplink0 is also at",
        ),
        (
            &container(1, "tenant"),
            json!("nobody"),
            "bridges[0].containers[1].tenant",
            "no tenant \"nobody\"",
        ),
        (
            &container(1, "mac"),
            json!("02:00:00:00:01:64"),
            "bridges[0].containers[1]",
            "is also at ovsflows.bridges[0].containers[0]",
        ),
        (
            &container(1, "mac"),
            json!("01:00:00:00:01:64"),
            "bridges[0].containers[1].mac",
            "unicast",
        ),
        (
            &container(1, "port"),
            json!("vi100"),
            "bridges[0].containers[1]",
            "port vi100 is also at",
        ),
        (
            &container(1, "id"),
            json!("100"),
            "bridges[0].containers[1]",
            "container 100 is also at",
        ),
        (
            &container(1, "id"),
            json!("x".repeat(41)),
            "bridges[0].containers[1].id",
            "40 characters",
        ),
        (
            &container(1, "addresses"),
            json!(["10.0.1.100"]),
            "bridges[0].containers[1].addresses[0]",
            "address 10.0.1.100 is also at",
        ),
        (
            &container(1, "addresses"),
            json!([]),
            "bridges[0].containers[1].addresses",
            "0 addresses",
        ),
        (
            &container(1, "addresses"),
            json!(["127.0.0.1"]),
            "bridges[0].containers[1].addresses[0]",
            "loopback",
        ),
        (
            &container(1, "addresses"),
            json!(["fd77::1"]),
            "bridges[0].containers[1].nat",
            "no IPv4 address",
        ),
        (
            &container(1, "nat/source"),
            json!("10.0.1.100"),
            "bridges[0].containers[1].nat",
            "is also at",
        ),
        (
            &container(1, "nat/publish/0/proto"),
            json!("icmp"),
            "bridges[0].containers[1].nat.publish[0].proto",
            "tcp, udp, sctp",
        ),
        (
            &container(1, "out/accept/0/to/0"),
            json!("mars"),
            "bridges[0].containers[1].out.accept[0]",
            "no set \"mars\"",
        ),
        (
            &container(1, "out/accept/0/ports/0"),
            json!("9-8"),
            "bridges[0].containers[1].out.accept[0].ports[0]",
            "not above",
        ),
        (
            &container(1, "out/accept/0/ports/0"),
            json!("+8"),
            "bridges[0].containers[1].out.accept[0].ports[0]",
            "port",
        ),
        (
            &container(1, "out/default"),
            json!("accept"),
            "bridges[0].containers[1].out.accept",
            "says nothing",
        ),
        (
            &container(0, "in/accept/2/ports"),
            json!([1]),
            "bridges[0].containers[0].in.accept[2].ports",
            "only tcp",
        ),
        (
            &container(0, "in/accept/0/to"),
            json!(["us"]),
            "bridges[0].containers[0].in.accept[0].to",
            "no key \"to\"",
        ),
        (
            &container(0, "classes/1/queue"),
            json!(1),
            "bridges[0].containers[0].classes[1]",
            "no queue 1",
        ),
        (
            &container(0, "routes/0/via"),
            json!("tor"),
            "bridges[0].containers[0].routes[0].via",
            "no router \"tor\"",
        ),
        (
            &container(0, "routes/0/service"),
            json!("smtp"),
            "bridges[0].containers[0].routes[0].service",
            "dns, https",
        ),
        (
            &container(0, "routes/2/to"),
            json!("mars"),
            "bridges[0].containers[0].routes[2].to",
            "no set",
        ),
        (
            &container(2, "routes"),
            json!([{"service": "dns", "via": "vpn"}]),
            "bridges[0].containers[2].routes[0].via",
            "not in the VLAN",
        ),
    ] {
        let mut wrong = example();
        let (parent, key) = pointer.rsplit_once('/').expect("a parent");
        match wrong.pointer_mut(parent).expect("there") {
            Value::Array(items) => items[key.parse::<usize>().expect("an index")] = value.clone(),
            other => other[key] = value.clone(),
        }
        let error = read(&wrong).expect_err(pointer).to_string();
        let place = format!("ovsflows.{place}: ");
        assert!(
            error.starts_with(&place) && error.contains(words),
            "{pointer} = {value}: {error}"
        );
    }
}
