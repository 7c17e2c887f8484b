//! What holds for policies of all shapes.

use super::*;
use proptest::prelude::*;

/// Policies of all shapes: some containers of some tenants with some of everything.
fn any_policy() -> impl Strategy<Value = Value> {
    let container = (0usize..3, any::<[bool; 8]>(), 1u16..9000, 0u16..40);
    (proptest::collection::vec(container, 0..8), any::<[bool; 4]>()).prop_map(|(containers, on)| {
        let tenant = |n: usize| {
            let mut tenant = json!({"name": format!("t{n}"), "zone": n + 1});
            if n == 1 && on[0] {
                tenant["vlan"] = json!(100);
            }
            if n == 2 && on[1] {
                tenant["internal"] = json!("rules");
            }
            tenant
        };
        let containers: Vec<Value> = containers
            .into_iter()
            .enumerate()
            .map(|(n, (tenant, has, first, more))| {
                let mut c = json!({"id": format!("c{n}"), "port": format!("vi{}", 100 + n), "tenant": format!("t{tenant}"),
                    "mac": format!("02:00:00:00:00:{n:02x}"), "addresses": [format!("10.0.0.{}", n + 1)], "dhcp": has[0]});
                let ports = json!([format!("{first}-{}", first + more)]);
                if has[1] {
                    c["addresses"] = json!([format!("10.0.0.{}", n + 1), format!("fd00::{:x}", n + 1)]);
                }
                if has[2] {
                    c["in"] = json!({"accept": [{"proto": "tcp", "ports": ports, "from": ["a", "192.0.2.0/24"]}, {"proto": "icmp"}],
                        "drop": [{"proto": "any", "from": ["b"]}]});
                }
                if has[3] {
                    c["out"] = json!({"default": "drop", "accept": [{"proto": "udp", "ports": ports, "to": ["a", "b", "2001:db8::/32"]}]});
                }
                if has[4] {
                    c["rate"] = json!({"out": {"kbps": 1000}, "in": {"pktps": 10, "burst": 5}});
                }
                if has[5] {
                    c["nat"] = json!({"source": format!("203.0.113.{}", n + 1), "publish": [{"proto": "tcp", "port": 80}]});
                }
                if has[6] && !(tenant == 1 && on[0]) {
                    c["routes"] = json!([{"to": "b", "via": "r"}, {"service": "dns", "via": "r"}, {"to": "a", "via": "m"}]);
                }
                if has[7] {
                    c["classes"] = json!([{"proto": "tcp", "ports": ports, "queue": 1}, {"proto": "any", "queue": 1, "side": "own"}]);
                }
                c
            })
            .collect();
        json!({"bridges": [{"bridge": "ovsbr0", "fragments": if on[2] { "drop" } else { "track" },
            "outside": [{"port": "uplink0", "qos": {"queues": [{"queue": 1, "max_kbps": 9000}]}}, {"port": "ovsbr0", "macs": ["02:00:00:00:ff:01"]}],
            "routers": [{"name": "r", "port": "vr0", "mac": "02:00:00:00:ff:02"}, {"name": "m", "mark": 1, "mac": "02:00:00:00:ff:03"}],
            "sets": [{"name": "a", "networks": ["192.0.2.0/24", "2001:db8::/32", "198.51.100.0/24"]}, {"name": "b", "networks": ["192.0.2.0/25"]}],
            "limits": if on[3] { json!([{"name": "l", "from": ["203.0.113.0/24"], "pktps": 100}]) } else { json!([]) },
            "tenants": [tenant(0), tenant(1), tenant(2)], "containers": containers}]})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_policy_compiles_to_flows_in_distinct_places(document in any_policy()) {
        let compiled = compiled(&document);
        let mut places = HashMap::new();
        for (owner, flow) in flows(&compiled) {
            let place = format!("{:?}", flow.identity());
            prop_assert_eq!(places.insert(place, owner), None, "{}", flow);
        }
    }

    #[test]
    fn the_order_of_containers_changes_no_containers_flows(document in any_policy()) {
        let mut turned = document.clone();
        if let Some(list) = turned["bridges"][0]["containers"].as_array_mut() {
            list.reverse();
        }
        let (one, other) = (compiled(&document), compiled(&turned));
        let own = |compiled: &Compiled| -> Vec<(FlowOwner, Action)> {
            compiled.flows.iter().filter(|(owner, _)| owner.as_str().starts_with("net.ct.")).cloned().collect()
        };
        prop_assert_eq!(own(&one), own(&other));
        prop_assert_eq!(&one.meters, &other.meters);
    }

    #[test]
    fn each_rule_of_access_holds_for_both_families(document in any_policy()) {
        // Every new connection that IPv4 may begin without addresses in the rule, IPv6 may begin as well.
        let flows = flows(&compiled(&document));
        let shape = |flow: &Flow, family: u128| -> Option<String> {
            let of = flow.matching.get(Field::DlType).map(|bits| bits.value) == Some(family);
            let address = [Field::NwSrc, Field::NwDst, Field::Ipv6Src, Field::Ipv6Dst];
            let bound = address.iter().any(|field| flow.matching.get(*field).is_some());
            let conjunction = flow.matching.get(Field::ConjId).is_some();
            if !of || bound || conjunction || !(2..=3).contains(&flow.table.get()) {
                return None;
            }
            let rest: Vec<String> = flow.matching.fields()
                .filter(|(field, _)| *field != Field::DlType)
                .map(|(field, bits)| match (field, bits.value) {
                    (Field::NwProto, 1 | 58) => "icmp".to_owned(),
                    // Who asks for addresses has another port in each family.
                    (Field::TpDst, 68 | 546) if flow.priority.get() == 19_000 => "a client".to_owned(),
                    _ => format!("{field:?} {bits:?}"),
                })
                .collect();
            Some(format!("{} {} {rest:?}", flow.table, flow.priority))
        };
        let of = |family: u128| -> BTreeSet<String> { flows.iter().filter_map(|(_, flow)| shape(flow, family)).collect() };
        prop_assert_eq!(of(0x800), of(0x86dd));
    }
}
