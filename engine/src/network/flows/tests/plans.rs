//! From compiled flows and an answer of `ovs-list` to what is still needed.

use super::*;

fn observed(bridges: Value) -> Observed {
    Observed::read(&json!({ "bridges": bridges })).expect("an answer of ovs-list")
}

fn ports(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name})).collect()
}

const PORTS: [&str; 6] = ["ovsbr0", "uplink0", "vr_vpn", "vi100", "vi101", "vi102"];

#[test]
fn a_plan_sets_what_differs_and_takes_away_what_is_gone() {
    let desired = [compiled(&example())];
    let (id, _) = desired[0].meters.iter().next().expect("a meter");
    let Action::OvsSetMeter(meter) = &desired[0].meters[id] else {
        panic!();
    };
    let there = json!({"meter": id, "unit": meter.unit, "rate": meter.rate.expect("set").get(),
        "burst": meter.burst.map_or(0, |burst| burst.get())});
    let mut names = PORTS.to_vec();
    names.push("tap7");
    let seen = observed(json!([{"name": "ovsbr0", "ports": ports(&names),
        "owners": [{"owner": "net.ct.77"}, {"owner": "net.tenant.old"}, {"owner": "vm-5"}, {"owner": null}],
        "meters": [there, {"meter": 1, "unit": "kbps", "rate": 5, "burst": 0},
            {"meter": 40_000, "unit": "kbps", "rate": 5, "burst": 0}]}]));
    let steps = plan(&desired, &seen).expect("a plan");
    let told: Vec<String> = steps
        .actions
        .iter()
        .map(|action| format!("{} {}", action.name(), action.ledger_resource()))
        .collect();
    let meters = told
        .iter()
        .filter(|step| step.starts_with("ovs-set-meter"))
        .count();
    assert_eq!(
        meters,
        2 + 1,
        "two that are not there, one that is gone: {told:?}"
    );
    let tail: Vec<&str> = told
        .iter()
        .rev()
        .take(3)
        .rev()
        .map(String::as_str)
        .collect();
    assert_eq!(
        tail,
        [
            "ovs-set-flows flows:ovsbr0/net.ct.77",
            "ovs-set-flows flows:ovsbr0/net.tenant.old",
            "ovs-set-meter meter:ovsbr0/40000"
        ],
        "containers before their tenant, meters when nothing uses them; others' are left alone"
    );
    assert_eq!(steps.strangers.len(), 1, "{:?}", steps.strangers);
    assert_eq!(steps.strangers[0].1, "tap7");
    let cleared = clear(&desired[0].bridge, &seen).expect("there");
    assert_eq!(cleared.len(), 4, "two owners, two meters of ours");
}

#[test]
fn a_plan_for_what_is_not_there_says_what_to_make_first() {
    let desired = [compiled(&example())];
    let error = plan(&desired, &observed(json!([])))
        .expect_err("no bridge")
        .to_string();
    assert!(error.contains("no bridge ovsbr0"), "{error}");
    let seen = observed(
        json!([{"name": "ovsbr0", "ports": ports(&["ovsbr0", "uplink0", "vi100"]), "owners": [], "meters": []}]),
    );
    let error = plan(&desired, &seen).expect_err("no ports").to_string();
    assert!(error.contains("vi101, vi102, vr_vpn"), "{error}");
    for torn in [
        json!({}),
        json!({"bridges": {}}),
        json!({"bridges": [{"name": 1}]}),
        json!({"bridges": [{"name": "a", "ports": []}]}),
    ] {
        assert!(Observed::read(&torn).is_err(), "{torn}");
    }
}
