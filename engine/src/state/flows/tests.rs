//! Plans of flows from what a switch says; what a real one makes of them is in `tests/tests/state_flows.rs`.

use super::*;
use crate::state::fields::Place;

fn section(value: &Value) -> Result<BTreeMap<String, Wanted>, Wrong> {
    section::read(Fields::new(value, Place::top().key("ovsflows"))?)
}

fn wanted(flows: Value) -> Wanted {
    let section_of = json!({"flows": [{"bridge": "br", "owner": "web", "flows": flows}]});
    let mut all = section(&section_of).expect("good");
    all.remove("br/web").expect("there")
}

fn two() -> Wanted {
    wanted(json!([
        {"priority": 1, "match": {"in_port": "vi100"}, "actions": ["drop"]},
        {"priority": 2, "actions": [{"output": "eth1"}]}]))
}

fn policy_of(containers: &[&str]) -> Wanted {
    let containers: Vec<Value> = containers
        .iter()
        .zip(1..)
        .map(|(port, n)| {
            json!({"id": port.trim_start_matches("vi"), "port": port, "mac": format!("02:00:00:00:00:0{n}"), "tenant": "a",
                "addresses": [format!("10.0.0.{n}")], "rate": {"out": {"kbps": 1000}}, "qos": {"max_kbps": 5000}})
        })
        .collect();
    let bridge =
        json!({"bridge": "br", "tenants": [{"name": "a", "zone": 7}], "containers": containers});
    let mut all =
        section(&json!({ "bridges": [bridge] })).unwrap_or_else(|wrong| panic!("{wrong}"));
    all.remove("br").expect("there")
}

fn entry(wanted: &Wanted, finished: bool) -> Entry {
    Entry {
        wanted: Flows.show(wanted),
        finished,
        before: None,
        leaving: false,
    }
}

/// A switch that has been told all of this, with ports of these numbers.
fn told(wanted: &[&Wanted], number: u16) -> Value {
    let mut owners = Vec::new();
    let (mut meters, mut limits) = (Vec::new(), BTreeMap::new());
    let mut note = |set: &OvsSetFlows| {
        let asked = set.flows.fingerprint(|_| Some(number)).expect("numbers");
        owners.push(json!({"owner": set.owner, "flows": set.flows.len(), "as_set": true, "asked": asked.as_str()}));
    };
    for wanted in wanted {
        match wanted {
            Wanted::Owner(set) => note(set),
            Wanted::Policy { compiled, .. } => {
                for action in compiled.actions() {
                    match action {
                        Action::OvsSetFlows(set) => note(set),
                        Action::OvsSetMeter(meter) => {
                            let mut shown = action.params();
                            shown["meter"] = meter.meter.get().into();
                            meters.push(shown);
                        }
                        Action::OvsSetQos(qos) => {
                            limits.insert(
                                qos.port.to_string(),
                                json!({"max_kbps": qos.max_kbps.map(|rate| rate.get())}),
                            );
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }
    let names = ["br", "vi100", "vi101", "eth1"];
    let ports: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "ofport": number, "limits": limits.get(*name)}))
        .collect();
    json!({"name": "br", "ports": ports, "owners": owners, "meters": meters})
}

fn seen(bridge: &Value, owner: Option<&str>) -> Found {
    let observed = Observed::read(&json!({ "bridges": [bridge] })).expect("an answer");
    let (_, bridge) = observed.into_bridges().next().expect("a bridge");
    Found {
        bridge: Arc::new(bridge),
        owner: owner.map(str::to_owned),
    }
}

fn kinds(planned: &Planned) -> Vec<String> {
    planned
        .fields
        .iter()
        .map(|change| change.field.clone())
        .collect()
}

#[test]
fn flows_that_are_there_as_they_were_set_for_the_same_wish_are_left_alone_whatever_is_recorded() {
    let there = seen(&told(&[&two()], 5), Some("web"));
    let other = wanted(json!([{"actions": ["drop"]}]));
    for before in [
        None,
        Some(entry(&two(), true)),
        Some(entry(&two(), false)),
        Some(entry(&other, true)),
    ] {
        let planned = Flows.plan("", &two(), Some(&there), before.as_ref());
        assert!(planned.is_settled(), "{planned:?}");
    }
}

#[test]
fn flows_are_set_when_they_are_others_were_changed_by_hand_or_mean_other_ports() {
    let other = wanted(json!([{"actions": ["drop"]}]));
    let good = told(&[&two()], 5);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut bridge = good.clone();
        change(&mut bridge);
        seen(&bridge, Some("web"))
    };
    for (what, found) in [
        ("none", None),
        ("others", Some(seen(&told(&[&other], 5), Some("web")))),
        (
            "by hand",
            Some(with(&|bridge| bridge["owners"][0]["as_set"] = false.into())),
        ),
        (
            "an old agent's",
            Some(with(&|bridge| bridge["owners"][0]["asked"] = Value::Null)),
        ),
        (
            "another number of the port",
            Some(with(&|bridge| bridge["ports"][1]["ofport"] = 6.into())),
        ),
        (
            "no port",
            Some(with(&|bridge| bridge["ports"][1]["ofport"] = (-1).into())),
        ),
        (
            "said to be lost, until somebody sets them",
            Some(with(&|bridge| bridge["flows_lost"] = true.into())),
        ),
    ] {
        let planned = Flows.plan("", &two(), found.as_ref(), None);
        assert_eq!(planned.steps.len(), 1, "{what}: {planned:?}");
    }
    // Setting these does not bring back what somebody else has lost, again and again.
    let lost = json!({"owner": "else", "flows": 0, "as_set": false});
    let found = with(&|bridge| {
        bridge["flows_lost"] = true.into();
        bridge["owners"]
            .as_array_mut()
            .expect("a list")
            .push(lost.clone());
    });
    assert!(Flows.plan("", &two(), Some(&found), None).is_settled());
}

#[test]
fn what_was_there_is_put_back_only_where_that_is_known() {
    let other = wanted(json!([{"actions": ["drop"]}]));
    let there = seen(&told(&[&other], 5), Some("web"));
    let undo = |found: Option<&Found>, before: Option<Entry>| {
        Flows.plan("", &two(), found, before.as_ref()).steps[0]
            .undo
            .len()
    };
    assert_eq!(undo(None, None), 1);
    assert_eq!(undo(Some(&there), Some(entry(&other, true))), 1);
    assert_eq!(undo(Some(&there), None), 0);
    // Of an apply that was killed the switch itself says how far it came.
    let third = wanted(json!([{"priority": 3, "actions": ["drop"]}]));
    assert_eq!(undo(Some(&there), Some(entry(&other, false))), 1);
    let begun = |wanted: &Wanted| Entry {
        before: Some(Flows.show(&third)),
        ..entry(wanted, false)
    };
    for (found, back) in [(&other, &other), (&third, &third)] {
        let there = seen(&told(&[found], 5), Some("web"));
        let planned = Flows.plan("", &two(), Some(&there), Some(&begun(&other)));
        let undo = planned.steps[0].undo.first().expect("a way back");
        let Wanted::Owner(back) = back else {
            panic!("{back:?}")
        };
        assert_eq!(undo.action, Action::from(back.clone()));
    }
}

#[test]
fn what_was_being_taken_away_when_an_apply_was_killed_has_a_way_back_the_next_time() {
    let leaving = |wanted: &Wanted| Entry {
        before: Some(Flows.show(wanted)),
        leaving: true,
        ..entry(wanted, false)
    };
    let there = seen(&told(&[&two()], 5), Some("web"));
    let planned = Flows.plan_delete("br/web", &there, &leaving(&two()));
    assert_eq!(planned.steps[0].undo.len(), 1, "{planned:?}");

    let one = policy_of(&["vi100"]);
    let mut left = told(&[&one, &two()], 5);
    // The container's flows are gone already.
    let owners = left["owners"].as_array_mut().expect("a list");
    owners.retain(|owner| owner["owner"] != "net.ct.100");
    let planned = Flows.plan_delete("br", &seen(&left, None), &leaving(&one));
    assert!(planned.steps.len() > 2, "{planned:?}");
    assert!(
        planned.steps.iter().all(|step| step.undo.len() == 1),
        "{planned:?}"
    );
}

#[test]
fn flows_need_their_bridge_and_what_they_name_and_a_policy_comes_after_its_containers() {
    let names =
        |list: Vec<ResourceRef>| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
    let needs = names(Flows.needs("", &two()));
    assert_eq!(needs, ["net/br", "net/br/eth1", "net/br/vi100", "lxc/100"]);
    assert!(Flows.after("", &two()).is_empty());

    let policy = json!({"bridge": "br", "outside": [{"port": "eth1"}, {"port": "br"}], "tenants": [{"name": "a", "zone": 7}],
        "containers": [{"id": "100", "port": "vi100", "mac": "02:00:00:00:00:01", "tenant": "a", "addresses": ["10.0.0.1"]}]});
    let all = section(&json!({"bridges": [policy]})).expect("good");
    assert_eq!(
        names(Flows.needs("", &all["br"])),
        ["net/br", "net/br/eth1"]
    );
    assert_eq!(
        names(Flows.after("", &all["br"])),
        ["net/br/vi100", "lxc/100"]
    );
}

#[test]
fn a_container_that_is_not_there_takes_nothing_from_the_others_and_gets_its_flows_when_it_comes() {
    let both = policy_of(&["vi100", "vi101"]);
    let Wanted::Policy { compiled, .. } = &both else {
        panic!("a policy")
    };
    let without = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut bridge = told(&[], 5);
        change(bridge["ports"].as_array_mut().expect("a list"));
        bridge
    };
    let unplugged = without(&|ports| ports.retain(|port| port["name"] != "vi101"));
    let dead = without(&|ports| ports[2]["ofport"] = (-1).into());
    for bridge in [unplugged, dead] {
        let planned = Flows.plan("br", &both, Some(&seen(&bridge, None)), None);
        let sets: Vec<&OvsSetFlows> = planned
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::OvsSetFlows(set) => Some(set),
                _ => None,
            })
            .collect();
        // All owners, and nothing that the switch could not take.
        assert_eq!(sets.len(), compiled.flows.len());
        let named: BTreeSet<&SwitchIfName> =
            sets.iter().flat_map(|set| set.flows.port_names()).collect();
        let named: Vec<&str> = named.into_iter().map(SwitchIfName::as_str).collect();
        assert_eq!(named, ["vi100"]);
        let alone = sets.iter().find(|set| set.owner.as_str() == "net.ct.101");
        let flows = alone.expect("its owner").flows.to_json().expect("flows");
        let to_it = flows
            .as_array()
            .into_iter()
            .flatten()
            .filter(|flow| flow["table"] == 4 && flow["match"].get("reg1").is_some());
        let actions: Vec<&Value> = to_it.map(|flow| &flow["actions"]).collect();
        assert_eq!(actions, [&json!(["drop"]), &json!(["drop"])], "{flows}");
        assert!(
            planned.notes.iter().any(|note| note.contains("vi101")),
            "{planned:?}"
        );
        let awaits: Vec<String> = planned.awaits.iter().map(ToString::to_string).collect();
        assert_eq!(awaits, ["net/br/vi101", "lxc/101"]);

        // Set like that, it is as good as it gets; with the port there, the rest is set, and can be taken back.
        let mut there = bridge.clone();
        let mut set = told(&[], 5);
        set["owners"] = sets
            .iter()
            .map(|set| {
                let asked = set.flows.fingerprint(|_| Some(5)).expect("numbers");
                json!({"owner": set.owner, "flows": set.flows.len(), "as_set": true, "asked": asked.as_str()})
            })
            .collect();
        let full = told(&[&both], 5);
        for bridge in [&mut there, &mut set] {
            bridge["meters"] = full["meters"].clone();
        }
        there["owners"] = set["owners"].clone();
        for port in there["ports"].as_array_mut().expect("a list") {
            if port["name"] == "vi100" {
                port["limits"] = json!({"max_kbps": 5000});
            }
            if port["name"] == "vi101" {
                port["limits"] = json!({"max_kbps": 5000});
            }
        }
        let entry = entry(&both, true);
        let planned = Flows.plan("br", &both, Some(&seen(&there, None)), Some(&entry));
        assert!(planned.is_settled(), "{planned:?}");
        set["ports"] = full["ports"].clone();
        let planned = Flows.plan("br", &both, Some(&seen(&set, None)), Some(&entry));
        let fields = kinds(&planned);
        assert_eq!(
            fields,
            ["flows.net.base", "flows.net.tenant.a", "flows.net.ct.101"]
        );
        assert!(
            planned.steps.iter().all(|step| step.undo.len() == 1),
            "{planned:?}"
        );
    }
    // One that was just attached has no number yet: the agent waits for it.
    let fresh = without(&|ports| ports[2]["ofport"] = Value::Null);
    let planned = Flows.plan("br", &both, Some(&seen(&fresh, None)), None);
    assert!(planned.awaits.is_empty(), "{planned:?}");
}

#[test]
fn a_policy_that_is_in_place_needs_nothing_and_one_container_more_only_what_that_changes() {
    let one = policy_of(&["vi100"]);
    let there = seen(&told(&[&one], 5), None);
    let planned = Flows.plan("br", &one, Some(&there), None);
    assert!(planned.is_settled(), "{planned:?}");
    assert_eq!(
        planned.notes.len(),
        1,
        "eth1 and vi101 are named by nobody: {planned:?}"
    );

    let both = policy_of(&["vi100", "vi101"]);
    let planned = Flows.plan("br", &both, Some(&there), Some(&entry(&one, true)));
    let fields = kinds(&planned);
    for field in ["limits.vi101", "flows.net.ct.101"] {
        assert!(fields.contains(&field.to_owned()), "{fields:?}");
    }
    assert!(
        !fields.contains(&"limits.vi100".to_owned()),
        "an unchanged QoS is sent again: {fields:?}"
    );
    assert!(
        !fields.contains(&"flows.net.ct.100".to_owned()),
        "{fields:?}"
    );
    assert!(
        planned.steps.iter().all(|step| step.undo.len() == 1),
        "all of it can be taken back: {planned:?}"
    );

    // And back: its flows, its meter and its limit go, in that order.
    let there = seen(&told(&[&both], 5), None);
    let planned = Flows.plan("br", &one, Some(&there), Some(&entry(&both, true)));
    let gone: Vec<String> = kinds(&planned)
        .into_iter()
        .filter(|field| !field.starts_with("flows.net.tenant") && field != "flows.net.base")
        .collect();
    assert_eq!(gone[0], "flows.net.ct.101");
    assert!(gone[1].starts_with("meters."), "{gone:?}");
    assert_eq!(gone[2], "limits.vi101");
    assert!(
        planned.steps.iter().all(|step| step.undo.len() == 1),
        "{planned:?}"
    );
}

#[test]
fn a_bridge_with_a_policy_becomes_secure_after_its_flows_are_set_and_only_where_it_is_ours() {
    let one = policy_of(&["vi100"]);
    let bridge = |told_of: &[&Wanted], mode: &str, ours: bool| {
        let mut bridge = told(told_of, 5);
        bridge["fail_mode"] = mode.into();
        bridge["ours"] = ours.into();
        seen(&bridge, None)
    };
    let plan = |found: &Found| Flows.plan("br", &one, Some(found), None);
    let planned = plan(&bridge(&[], "standalone", true));
    let (last, others) = planned.steps.split_last().expect("steps");
    assert_eq!(
        (
            last.action.name(),
            last.action.params()["options"]["fail_mode"].as_str()
        ),
        ("ovs-add-br", Some("secure"))
    );
    assert_eq!(last.undo.len(), 1, "{last:?}");
    assert!(others.len() > 3 && others.iter().all(|step| step.action.name() != "ovs-add-br"));
    // That alone where the flows are there, and with care: it decides what passes.
    let planned = plan(&bridge(&[&one], "standalone", true));
    assert_eq!(kinds(&planned), ["fail_mode"]);
    assert_eq!(
        planned.careful,
        Some(Careful::Flows("br".parse().expect("a name")))
    );
    assert!(plan(&bridge(&[&one], "secure", true)).is_settled());
    let foreign = plan(&bridge(&[&one], "standalone", false));
    assert!(
        foreign.is_settled() && foreign.notes[0].contains("set-fail-mode"),
        "{foreign:?}"
    );
    // Taken away, it is no open switch.
    let gone = Flows.plan_delete("br", &bridge(&[&one], "secure", true), &entry(&one, true));
    assert!(
        gone.notes.iter().any(|note| note.contains("stays secure")),
        "{gone:?}"
    );
}

#[test]
fn flows_are_watched_over_unless_nothing_passes_before_them() {
    let bridge = |mode: &str, owners: Value| {
        let mut bridge = told(&[], 5);
        bridge["fail_mode"] = mode.into();
        bridge["ours"] = true.into();
        bridge["owners"] = owners;
        seen(&bridge, None)
    };
    let strange = json!([{"owner": null, "cookie": "0x0", "flows": 1}]);
    let another = json!([{"owner": "extra", "flows": 1, "as_set": true}]);
    for (mode, owners, first) in [
        ("secure", json!([]), true),
        ("standalone", json!([]), false),
        ("secure", strange, false),
        ("secure", another, false),
    ] {
        for wanted in [two(), policy_of(&["vi100"])] {
            let planned = Flows.plan("br", &wanted, Some(&bridge(mode, owners.clone())), None);
            let is_first = matches!(planned.careful, Some(Careful::FirstFlows(_)));
            assert_eq!(is_first, first, "{mode} {owners} {:?}", planned.careful);
            assert!(planned.careful.is_some());
        }
    }
}

#[test]
fn what_somebody_did_to_a_policy_by_hand_is_made_right() {
    let one = policy_of(&["vi100"]);
    let good = told(&[&one], 5);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut bridge = good.clone();
        change(&mut bridge);
        kinds(&Flows.plan(
            "br",
            &one,
            Some(&seen(&bridge, None)),
            Some(&entry(&one, true)),
        ))
    };
    assert_eq!(
        with(&|bridge| bridge["ports"][1]["limits"]["max_kbps"] = 1.into()),
        ["limits.vi100"]
    );
    assert_eq!(
        with(&|bridge| bridge["ports"][1]["limits"]["foreign"] = true.into()),
        ["limits.vi100"]
    );
    assert!(with(&|bridge| bridge["meters"][0]["rate"] = 7.into())[0].starts_with("meters."));
    assert_eq!(
        with(&|bridge| bridge["owners"][0]["as_set"] = false.into()).len(),
        1
    );
    let sets = good["owners"].as_array().expect("a list").len();
    let again = with(&|bridge| bridge["flows_lost"] = true.into());
    assert_eq!(again.len(), sets, "{again:?}");
    let stray = json!({"owner": "net.ct.7", "flows": 1, "as_set": true});
    assert_eq!(
        with(&|bridge| bridge["owners"]
            .as_array_mut()
            .expect("a list")
            .push(stray.clone())),
        ["flows.net.ct.7"]
    );
}

#[test]
fn a_policy_that_goes_takes_everything_of_it_along_and_nothing_else() {
    let one = policy_of(&["vi100"]);
    let there = seen(&told(&[&one, &two()], 5), None);
    let planned = Flows.plan_delete("br", &there, &entry(&one, true));
    let fields = kinds(&planned);
    assert!(
        fields.contains(&"limits.vi100".to_owned())
            && fields.contains(&"flows.net.base".to_owned())
    );
    assert!(!fields.contains(&"flows.web".to_owned()), "{fields:?}");
    assert!(
        planned.steps.iter().all(|step| step.undo.len() == 1),
        "{planned:?}"
    );
}

#[test]
fn a_mistake_in_a_policy_is_named_with_its_place_in_the_document() {
    let bridge = json!({"bridge": "br", "tenants": [{"name": "a", "zone": 0}]});
    let wrong = section(&json!({ "bridges": [bridge.clone()] })).expect_err("zone 0");
    assert_eq!(
        wrong.place.to_string(),
        "ovsflows.bridges[0].tenants[0].zone"
    );
    let good = json!({"bridge": "br"});
    let flows = json!([{"bridge": "br", "owner": "net.ct.1", "flows": [{"actions": ["drop"]}]}]);
    let wrong =
        section(&json!({"bridges": [good.clone()], "flows": flows})).expect_err("the policy's");
    assert_eq!(wrong.place.to_string(), "ovsflows.flows[0].owner");
    assert!(section(&json!({"flows": flows})).is_ok());
    assert!(
        section(&json!({"bridges": [good.clone(), good]})).is_err(),
        "one bridge twice"
    );
}

#[test]
fn a_policy_comes_back_from_the_record() {
    let one = policy_of(&["vi100"]);
    assert_eq!(Flows.revive("br", &Flows.show(&one)), Some(one));
    assert_eq!(Flows.revive("br/web", &Flows.show(&two())), Some(two()));
    assert_eq!(Flows.revive("br", &json!({"bridge": 7})), None);
}
