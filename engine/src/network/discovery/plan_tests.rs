//! Plans for containers, from tables of what is wanted and what is there.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn id(number: u8) -> ContainerId {
    format!("{number:02x}").repeat(32).parse().unwrap()
}

fn networks() -> BTreeMap<String, ContainerNetwork> {
    let text = "mesh: {bridge: ovsbr1, ipv4: 10.101.0.0/29, gateway4: 10.101.0.1, ipv6: 'fd0a:101::/64', mtu: 1420, tag: 7}\n";
    serde_saphyr::from_str(text).unwrap()
}

fn running(number: u8) -> Candidate {
    Candidate {
        id: id(number),
        name: format!("c{number}"),
        network: "mesh".to_owned(),
        addresses: None,
        state: State::Running {
            pid: Pid::try_from(4242_u32).unwrap(),
            netns: NamespaceInode::try_from(u32::from(number) + 1).unwrap(),
        },
    }
}

fn link(name: &str, alias: &str) -> Link {
    serde_json::from_value(json!({"index": 9, "name": name, "altnames": [], "kind": "veth", "alias": alias, "mac": null,
        "mtu": 1420, "up": true, "operstate": "up", "carrier": true, "master": null, "lower": null,
        "addresses": [], "counters": {"rx_packets": 0, "rx_bytes": 0, "rx_dropped": 0, "rx_errors": 0,
        "tx_packets": 0, "tx_bytes": 0, "tx_dropped": 0, "tx_errors": 0}}))
    .unwrap()
}

fn switch(ports: &serde_json::Value) -> Switch {
    serde_json::from_value(
        json!({"bridges": [{"name": "ovsbr0"}, {"name": "ovsbr1", "ports": ports}]}),
    )
    .unwrap()
}

/// The host after a plan was carried out.
fn done(plan: &Plan) -> (Vec<Link>, Switch) {
    let mut links = Vec::new();
    let mut ports = Vec::new();
    for row in &plan.rows {
        if let Fate::Attach(work) = &row.fate {
            let wire = work.wire.as_ref().unwrap();
            links.push(link(row.port.as_str(), &beside(wire)));
            ports.push(
                json!({"name": row.port, "ours": true, "tag": 7, "iface_id": row.candidate.id}),
            );
        }
    }
    (links, switch(&json!(ports)))
}

fn why(plan: &Plan, number: u8) -> &str {
    let row = plan
        .rows
        .iter()
        .find(|row| row.candidate.id == id(number))
        .unwrap();
    match &row.fate {
        Fate::Not(why) | Fate::Kept(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_carried_out_needs_nothing_more() {
    let candidates = [running(1), running(2), running(3)];
    let first = plan(&networks(), &candidates, &[], Some(&switch(&json!([]))));
    assert!(
        first
            .rows
            .iter()
            .all(|row| matches!(row.fate, Fate::Attach(_)))
    );
    let all: BTreeSet<_> = first.rows.iter().flat_map(|row| &row.addresses).collect();
    assert_eq!(
        all.len(),
        6,
        "each has an address of each family for itself"
    );
    let (links, switch) = done(&first);
    let second = plan(&networks(), &candidates, &links, Some(&switch));
    assert!(
        second.rows.iter().all(|row| row.fate == Fate::Attached),
        "{second:?}"
    );
    assert!(second.removals.is_empty());
}

#[test]
fn who_stops_loses_wire_and_port_and_nobody_else_anything() {
    let first = plan(
        &networks(),
        &[running(1), running(2)],
        &[],
        Some(&switch(&json!([]))),
    );
    let (links, switch) = done(&first);
    for gone in [
        None,
        Some(Candidate {
            state: State::Stopped,
            ..running(1)
        }),
    ] {
        let candidates: Vec<_> = gone.into_iter().chain([running(2)]).collect();
        let plan = plan(&networks(), &candidates, &links, Some(&switch));
        let [
            Removal {
                port: Some(port),
                wire: Some(wire),
            },
        ] = &plan.removals[..]
        else {
            panic!("{plan:?}");
        };
        assert_eq!((&wire.container, &wire.port), (&id(1), &port.port));
        assert_eq!(port.bridge.as_str(), "ovsbr1");
    }
    // The wire went with the container: the port is left.
    let plan = plan(&networks(), &[running(2)], &links[1..], Some(&switch));
    assert!(
        matches!(
            &plan.removals[..],
            [Removal {
                port: Some(_),
                wire: None
            }]
        ),
        "{plan:?}"
    );
}

#[test]
fn who_comes_back_gets_a_new_wire_with_its_old_address_and_a_new_port() {
    let first = plan(&networks(), &[running(1)], &[], Some(&switch(&json!([]))));
    let (links, switch) = done(&first);
    let netns = NamespaceInode::try_from(99_u32).unwrap();
    let pid = Pid::try_from(77_u32).unwrap();
    let anew = Candidate {
        state: State::Running { pid, netns },
        ..running(1)
    };
    for links in [&links[..], &[]] {
        let plan = plan(
            &networks(),
            std::slice::from_ref(&anew),
            links,
            Some(&switch),
        );
        let Fate::Attach(work) = &plan.rows[0].fate else {
            panic!("{plan:?}");
        };
        let Fate::Attach(before) = &first.rows[0].fate else {
            panic!("{first:?}");
        };
        let (now, then) = (work.wire.as_ref().unwrap(), before.wire.as_ref().unwrap());
        assert_eq!(now.netns, netns);
        assert!(now.mac.is_some(), "neighbours remember it");
        assert_eq!((now.mac, work.port.attached_mac), (then.mac, then.mac));
        assert!(
            work.before.is_some(),
            "the switch has to look for the new device"
        );
        assert_eq!(plan.rows[0].addresses, first.rows[0].addresses);
        assert!(plan.removals.is_empty());
    }
}

#[test]
fn a_label_gets_the_address_that_it_asks_for_or_the_reason_why_not() {
    let asks = |number, text: &str| Candidate {
        addresses: Some(text.to_owned()),
        ..running(number)
    };
    let on =
        |candidates: &[Candidate]| plan(&networks(), candidates, &[], Some(&switch(&json!([]))));
    let good = on(&[asks(1, "10.101.0.3, fd0a:101::3")]);
    let texts: Vec<_> = good.rows[0]
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(texts, ["10.101.0.3/29", "fd0a:101::3/64"]);
    for (text, reason) in [
        ("10.101.0.1", "taken"),
        ("10.102.0.1", "in no network"),
        ("10.101.0.3,10.101.0.4", "in no network"),
        ("10.101.0.0", "not an address of a host"),
        ("10.101.0.7", "not an address of a host"),
        ("10.101.0.3/24", "no address"),
        ("\u{1b}[2J; rm -rf /", "no address"),
        ("", "no address"),
    ] {
        let plan = on(&[asks(1, text)]);
        assert!(why(&plan, 1).contains(reason), "{text}: {}", why(&plan, 1));
        assert!(!why(&plan, 1).contains('\u{1b}'));
    }
    let both = on(&[asks(1, "10.101.0.3"), asks(2, "10.101.0.3")]);
    assert!(matches!(both.rows[0].fate, Fate::Attach(_)));
    assert!(why(&both, 2).contains("taken"));
}

#[test]
fn a_full_network_says_so() {
    // Six hosts, one of them the router.
    let many: Vec<Candidate> = (1..=6).map(running).collect();
    let plan = plan(&networks(), &many, &[], Some(&switch(&json!([]))));
    let without = plan
        .rows
        .iter()
        .filter(|row| matches!(&row.fate, Fate::Not(why) if why.contains("no free address")));
    assert_eq!(without.count(), 1);
}

#[test]
fn no_container_gets_an_address_of_the_host_itself() {
    let mut bridge = link("ovsbr1", "");
    bridge.addresses = ["10.101.0.6/29", "fd0a:101::6/64", "fe80::1/64"]
        .map(str::to_owned)
        .into();
    let hosts: [IpAddr; 2] = [
        "10.101.0.6".parse().unwrap(),
        "fd0a:101::6".parse().unwrap(),
    ];
    // Of six, one is the router's and one the host's.
    let many: Vec<Candidate> = (1..=6).map(running).collect();
    let there = switch(&json!([]));
    let plan_of = |candidates: &[Candidate], links: &[Link]| {
        plan(&networks(), candidates, links, Some(&there))
    };
    let plan = plan_of(&many, std::slice::from_ref(&bridge));
    let given = plan.rows.iter().flat_map(|row| &row.addresses);
    let given: Vec<IpAddr> = given.map(|address| address.address()).collect();
    assert!(
        given.iter().all(|address| !hosts.contains(address)),
        "{given:?}"
    );
    assert_eq!(given.iter().filter(|address| address.is_ipv4()).count(), 4);
    let asks = Candidate {
        addresses: Some("10.101.0.6".to_owned()),
        ..running(1)
    };
    assert!(why(&plan_of(&[asks], std::slice::from_ref(&bridge)), 1).contains("taken"));
    // One that has it from before gets another.
    let first = plan_of(&[running(1)], &[]);
    let (mut links, _) = done(&first);
    bridge.addresses = first.rows[0]
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    links.push(bridge);
    let again = plan_of(&[running(1)], &links);
    assert!(
        again.rows[0]
            .addresses
            .iter()
            .all(|own| !first.rows[0].addresses.contains(own)),
        "{again:?}"
    );
    // Nor the router's, whoever comes before.
    let (links, _) = done(&first);
    let unknown = Candidate {
        state: State::Unknown("it does not answer".to_owned()),
        ..running(1)
    };
    let others: Vec<Candidate> = (2..=6).map(running).collect();
    let plan = plan_of(&[vec![unknown], others].concat(), &links);
    let given = plan.rows.iter().flat_map(|row| &row.addresses);
    assert!(
        given.clone().all(|own| own.to_string() != "10.101.0.1/29"),
        "{plan:?}"
    );
}

#[test]
fn what_nothing_is_known_about_stays_and_what_has_no_place_goes() {
    let first = plan(&networks(), &[running(1)], &[], Some(&switch(&json!([]))));
    let (links, there) = done(&first);
    let state = State::Unknown("it does not answer".to_owned());
    let unknown = Candidate {
        state,
        ..running(1)
    };
    let kept = plan(&networks(), &[unknown], &links, Some(&there));
    assert_eq!(why(&kept, 1), "it does not answer");
    assert!(kept.removals.is_empty());
    let blind = plan(&networks(), &[running(1)], &links, None);
    assert!(matches!(blind.rows[0].fate, Fate::Kept(_)) && blind.removals.is_empty());
    for (candidate, reason) in [
        (
            Candidate {
                network: "\u{202e}other".to_owned(),
                ..running(1)
            },
            "not in network.yaml",
        ),
        (
            Candidate {
                state: State::Unsuitable("host".to_owned()),
                ..running(1)
            },
            "host",
        ),
    ] {
        let gone = plan(&networks(), &[candidate], &links, Some(&there));
        assert!(why(&gone, 1).contains(reason));
        assert!(!why(&gone, 1).contains('\u{202e}'));
        assert_eq!(gone.removals.len(), 1);
    }
    let mut elsewhere = networks();
    elsewhere.get_mut("mesh").unwrap().bridge = "ovsbr7".parse().unwrap();
    let gone = plan(&elsewhere, &[running(1)], &links, Some(&there));
    assert!(why(&gone, 1).contains("no bridge"));
}

#[test]
fn ports_and_devices_of_others_are_left_alone() {
    let own = id(9);
    let ports = json!([
        {"name": "bhcforeign", "ours": false, "iface_id": own},
        {"name": "vi100", "ours": true, "iface_id": own},
        {"name": "bhcother", "ours": true, "iface_id": "web-1"},
        {"name": "bhcother2", "ours": true},
    ]);
    let links = [
        link("bhcmine", "somebody:container:x"),
        link("bhcjunk", "blockhost:container:not-an-id 7"),
        link("eth0", ""),
    ];
    let plan = plan(&networks(), &[], &links, Some(&switch(&ports)));
    assert_eq!(plan, Plan::default());
}

proptest! {
    #[test]
    fn no_two_containers_share_an_address_and_every_address_is_of_its_network(
        numbers in proptest::collection::btree_set(any::<u8>(), 0..7), asked in proptest::collection::vec(0u8..9, 7),
    ) {
        let candidates: Vec<Candidate> = numbers.iter().zip(&asked).map(|(number, asked)| Candidate {
            addresses: (*asked < 4).then(|| format!("10.101.0.{asked}")),
            ..running(*number)
        }).collect();
        let plan = plan(&networks(), &candidates, &[], Some(&switch(&json!([]))));
        let mut seen = BTreeSet::new();
        for row in &plan.rows {
            for address in &row.addresses {
                prop_assert!(seen.insert(address.address()));
                prop_assert_ne!(address.to_string(), "10.101.0.1/29");
                prop_assert!(address.to_string().starts_with("10.101.0.") || address.to_string().starts_with("fd0a:101:"));
            }
        }
    }
}
