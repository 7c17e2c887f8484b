//! Plans for devices of the mesh, from what there is to the actions.

use super::*;

fn section(value: &Value) -> Result<BTreeMap<String, Wanted>, Wrong> {
    Mesh.read(Fields::new(value, Place::top()).expect("an object"))
}

fn wanted(networks: &[&str]) -> Wanted {
    let value = json!({"tunnels": [{"name": "wg0", "networks": networks}]});
    section(&value)
        .expect("good")
        .remove("wg0")
        .expect("a tunnel")
}

fn found(routes: &[(&str, bool)]) -> Found {
    Found {
        forwards: true,
        strict: true,
        addresses: vec!["10.8.0.1/24".into()],
        routes: routes
            .iter()
            .map(|(network, ours)| FoundRoute {
                network: (*network).to_owned(),
                ours: *ours,
            })
            .collect(),
        allowed: vec!["10.8.0.2/32".into(), "10.90.0.0/16".into()],
        masquerade: Vec::new(),
        forwards_v6: false,
        loose: false,
    }
}

fn entry(networks: &[&str]) -> Entry {
    Entry::applied(json!({"name": "wg0", "networks": networks}))
}

fn actions(planned: &Planned) -> Vec<String> {
    let steps = planned.steps.iter();
    steps
        .map(|step| format!("{} {}", step.action.name(), step.action.params()))
        .collect()
}

const FORWARD: &str = r#"link-set {"dev":"wg0","forward":true}"#;

fn set(network: &str) -> String {
    format!(r#"route-set {{"dest":"{network}","dev":"wg0","metric":1024}}"#)
}

fn del(network: &str) -> String {
    format!(r#"route-del {{"dest":"{network}","dev":"wg0","metric":1024}}"#)
}

#[test]
fn a_device_that_is_not_there_yet_gets_all_and_one_that_is_as_it_should_be_nothing() {
    let two = wanted(&["10.90.1.0/24", "10.90.2.0/24"]);
    let all = [FORWARD.into(), set("10.90.1.0/24"), set("10.90.2.0/24")];
    assert_eq!(actions(&plan("wg0", &two, None, None)), all);
    let there = found(&[("10.90.1.0/24", true), ("10.90.2.0/24", true)]);
    assert!(plan("wg0", &two, Some(&there), None).is_settled());
    assert!(Mesh.complaints(&two, &there).is_empty());
}

#[test]
fn forwarding_without_a_look_at_sources_is_made_strict_and_taken_back_to_forwarding() {
    let there = Found {
        strict: false,
        ..found(&[])
    };
    let planned = plan("wg0", &wanted(&[]), Some(&there), None);
    assert_eq!(actions(&planned), [FORWARD]);
    assert!(planned.steps[0].undo.is_empty(), "it forwarded before");
    let there = Found {
        forwards: false,
        ..found(&[])
    };
    let planned = plan("wg0", &wanted(&[]), Some(&there), None);
    let undo = planned.steps[0].undo[0].action.params();
    assert_eq!(undo, json!({"dev": "wg0", "forward": false}));
}

#[test]
fn only_routes_that_the_document_spoke_of_go_and_those_of_others_do_not_count() {
    let there = found(&[
        ("10.90.1.0/24", false),
        ("10.90.2.0/24", true),
        ("10.90.3.0/24", true),
    ]);
    let before = entry(&["10.90.2.0/24"]);
    let planned = plan(
        "wg0",
        &wanted(&["10.90.1.0/24"]),
        Some(&there),
        Some(&before),
    );
    assert_eq!(
        actions(&planned),
        [set("10.90.1.0/24"), del("10.90.2.0/24")]
    );
    let gone = Mesh.plan_delete("wg0", &there, &before);
    let off = r#"link-set {"dev":"wg0","forward":false}"#;
    assert_eq!(actions(&gone), [del("10.90.2.0/24"), off.to_owned()]);
}

#[test]
fn a_network_that_no_peer_may_have_is_a_complaint_and_so_is_a_device_without_an_address() {
    let one = wanted(&["10.90.1.0/24", "10.8.0.0/24", "10.0.0.0/8"]);
    let mut there = found(&[]);
    let wrong = Mesh.complaints(&one, &there).join("\n");
    assert!(!wrong.contains("10.90.1.0/24"), "inside a peer's: {wrong}");
    assert!(wrong.contains("10.8.0.0/24 is in no peer's"), "{wrong}");
    assert!(wrong.contains("10.0.0.0/8 is in no peer's"), "{wrong}");
    there.addresses.clear();
    let bridge = Wanted::Bridge(IfName::read("ovsbr0").expect("a name"));
    let wrong = Mesh.complaints(&bridge, &there);
    assert_eq!(wrong, ["the host has no address on ovsbr0"]);
}

#[test]
fn ipv6_networks_need_that_the_host_forwards_ipv6_which_is_switched_on_once_and_taken_back() {
    let read = |value: Value| section(&value).expect("good");
    let six =
        read(json!({"tunnels": [{"name": "wg0", "networks": ["10.90.1.0/24", "fd90::/64"]}]}));
    assert_eq!(six.get(IPV6), Some(&Wanted::Ipv6));
    let need = ResourceRef::new("mesh", IPV6);
    assert!(Mesh.needs("wg0", &six["wg0"]).contains(&need));
    let hidden = read(json!({"tunnels": [{"name": "wg0", "masquerade": ["fd20::/64"]}]}));
    assert!(Mesh.needs("wg0", &hidden["wg0"]).contains(&need));
    let four = read(json!({"tunnels": [{"name": "wg0", "networks": ["10.90.1.0/24"]}]}));
    assert!(!four.contains_key(IPV6) && !Mesh.needs("wg0", &four["wg0"]).contains(&need));
    // Containers may have IPv6 where no tunnel does.
    assert!(read(json!({"bridges": [{"name": "ovsbr0"}], "ipv6": true})).contains_key(IPV6));
    assert!(!read(json!({"ipv6": false})).contains_key(IPV6));

    let off = Found::nothing(false, false);
    let planned = plan(IPV6, &Wanted::Ipv6, Some(&off), None);
    let switch = |on: bool| format!(r#"sysctl-set {{"on":{on},"setting":"ipv6-forwarding"}}"#);
    assert_eq!(actions(&planned), [switch(true)]);
    assert!(planned.ours);
    let undo = planned.steps[0].undo[0].action.params();
    assert_eq!(undo, json!({"setting": "ipv6-forwarding", "on": false}));
    let on = Found {
        forwards: true,
        ..Found::nothing(true, false)
    };
    let before = Entry::applied(json!({"name": IPV6}));
    let planned = plan(IPV6, &Wanted::Ipv6, Some(&on), Some(&before));
    assert!(planned.is_settled() && planned.ours);
    assert_eq!(
        actions(&Mesh.plan_delete(IPV6, &on, &before)),
        [switch(false)]
    );
    // What the operator switched on stays the operator's.
    let planned = plan(IPV6, &Wanted::Ipv6, Some(&on), None);
    assert!(planned.is_settled() && !planned.ours);
    let wrong = Mesh.complaints(&six["wg0"], &found(&[])).join("\n");
    assert!(wrong.contains("does not forward IPv6"), "{wrong}");
    assert!(Mesh.complaints(&Wanted::Ipv6, &on).is_empty());
}

#[test]
fn what_is_hidden_behind_a_tunnel_is_set_before_the_routes_and_is_all_that_the_document_says() {
    let with = |networks: &[&str]| {
        let value = json!({"tunnels": [{"name": "wg0", "networks": ["10.90.1.0/24"], "masquerade": networks}]});
        section(&value)
            .expect("good")
            .remove("wg0")
            .expect("a tunnel")
    };
    let there = |hidden: &[&str]| Found {
        masquerade: hidden.iter().map(|one| (*one).to_owned()).collect(),
        ..found(&[("10.90.1.0/24", true)])
    };
    let spoken = Entry::applied(
        json!({"name": "wg0", "networks": ["10.90.1.0/24"], "masquerade": ["10.20.0.0/24"]}),
    );
    let hide =
        |networks: &str| format!(r#"masquerade-set {{"dev":"wg0","networks":[{networks}]}}"#);
    let one = r#""10.20.0.0/24""#;
    for (wanted, found, before, expected) in [
        (with(&["10.20.0.0/24"]), there(&[]), None, Some(hide(one))),
        (
            with(&["10.20.0.0/24"]),
            there(&["10.20.0.0/24"]),
            None,
            None,
        ),
        (
            with(&["10.20.0.0/24"]),
            there(&["10.21.0.0/24"]),
            Some(&spoken),
            Some(hide(one)),
        ),
        (
            with(&[]),
            there(&["10.20.0.0/24"]),
            Some(&spoken),
            Some(hide("")),
        ),
        // An apply that was killed may have recorded what it never did.
        (with(&[]), there(&["10.20.0.0/24"]), None, Some(hide(""))),
        (with(&[]), there(&[]), Some(&spoken), None),
    ] {
        let planned = plan("wg0", &wanted, Some(&found), before);
        assert_eq!(actions(&planned), expected.into_iter().collect::<Vec<_>>());
        if let Some(step) = planned.steps.first() {
            let undo = step.undo[0].action.params();
            assert_eq!(undo["networks"], json!(found.masquerade));
        }
    }
    let new = plan("wg0", &with(&["10.20.0.0/24"]), None, None);
    assert_eq!(
        actions(&new),
        [FORWARD.to_owned(), hide(one), set("10.90.1.0/24")]
    );
    let gone = Mesh.plan_delete("wg0", &there(&["10.20.0.0/24"]), &spoken);
    assert_eq!(actions(&gone)[0], hide(""));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (value, place) in [
        (json!({"bridges": [{"name": "-x"}]}), "bridges[0].name"),
        (
            json!({"bridges": [{"name": "a"}, {"name": "a"}]}),
            "bridges[1].name",
        ),
        (
            json!({"bridges": [{"name": "a", "networks": []}]}),
            "bridges[0].networks",
        ),
        (json!({"tunnels": [{"networks": []}]}), "tunnels[0]"),
        (
            json!({"tunnels": [{"name": "wg0", "networks": ["0.0.0.0/0"]}]}),
            "tunnels[0].networks[0]",
        ),
        (
            json!({"tunnels": [{"name": "wg0", "networks": ["10.0.0.1/8"]}]}),
            "tunnels[0].networks[0]",
        ),
        (
            json!({"bridges": [{"name": "wg0"}], "tunnels": [{"name": "wg0"}]}),
            "tunnels[0].name",
        ),
        (
            json!({"tunnels": [{"name": "wg0", "networks": ["10.1.0.0/16"]}, {"name": "wg1", "networks": ["10.1.0.0/16"]}]}),
            "tunnels[1].networks",
        ),
        (json!({"tunnel": []}), "tunnel"),
        (json!({"ipv6": "yes"}), "ipv6"),
        (
            json!({"tunnels": [{"name": "wg0", "networks": ["fd90::/64"]}], "ipv6": false}),
            "ipv6",
        ),
        (
            json!({"tunnels": [{"name": "wg0", "masquerade": ["0.0.0.0/0"]}]}),
            "tunnels[0].masquerade",
        ),
        (
            json!({"bridges": [{"name": "a", "masquerade": ["10.20.0.0/24"]}]}),
            "bridges[0].masquerade",
        ),
    ] {
        let wrong = section(&value).expect_err("wrong").to_string();
        assert!(wrong.contains(place), "{value}: {wrong}");
    }
}

#[test]
fn what_was_recorded_comes_back_as_what_it_was() {
    let value = json!({"bridges": [{"name": "ovsbr0"}], "tunnels": [{"name": "wg0", "networks": ["10.90.0.0/24"]}, {"name": "wg1", "masquerade": ["10.20.0.0/24", "fd20::/64"]}]});
    for (id, one) in section(&value).expect("good") {
        assert_eq!(Mesh.revive(&id, &Mesh.show(&one)), Some(one));
    }
}

#[test]
fn routes_of_before_an_interrupted_apply_go_with_those_that_it_was_at() {
    let interrupted = Entry {
        finished: false,
        before: Some(json!({"name": "wg0", "networks": ["10.90.1.0/24"]})),
        ..entry(&["10.90.2.0/24"])
    };
    let both = found(&[("10.90.1.0/24", true), ("10.90.2.0/24", true)]);
    let gone = |planned: Planned| -> Vec<String> {
        let steps = planned.steps.iter();
        let routes = steps.filter(|step| step.action.name() == "route-del");
        let text = |step: &Step| step.action.params()["dest"].as_str().map(str::to_owned);
        routes.filter_map(text).collect()
    };
    let again = wanted(&["10.90.2.0/24"]);
    let planned = plan("wg0", &again, Some(&both), Some(&interrupted));
    assert_eq!(gone(planned), ["10.90.1.0/24"]);
    let planned = Mesh.plan_delete("wg0", &both, &interrupted);
    assert_eq!(gone(planned), ["10.90.1.0/24", "10.90.2.0/24"]);
    // What no document ever spoke of is somebody else's.
    let theirs = found(&[("10.90.1.0/24", false), ("10.90.7.0/24", true)]);
    let planned = Mesh.plan_delete("wg0", &theirs, &interrupted);
    assert_eq!(gone(planned), Vec::<String>::new());
}
