use super::*;
use crate::network::observe::{ManagedDevice, Problem, Switch};
use serde_json::json;

fn observed(port: Value) -> Observed {
    let switch: Switch =
        serde_json::from_value(json!({"bridges": [{"name": "ovsbr0", "ports": [port]}]}))
            .expect("a switch");
    Observed {
        switch: Some(switch),
        ..Observed::default()
    }
}

fn expect() -> Expect {
    Expect {
        ports: vec![("ovsbr0".to_owned(), "eth0".to_owned())],
        ..Expect::default()
    }
}

#[test]
fn a_port_that_is_there_and_does_not_work_is_not_good() {
    let good = observed(json!({"name": "eth0", "ofport": 1}));
    assert_eq!(switch(&expect(), &good), Vec::<String>::new());
    for (port, why) in [
        (json!({"name": "eth1", "ofport": 1}), "no port eth0"),
        (json!({"name": "eth0", "ofport": -1}), "no number"),
        (json!({"name": "eth0"}), "no number"),
        (
            json!({"name": "eth0", "ofport": 1, "error": "no such device"}),
            "no such device",
        ),
    ] {
        let wrong = switch(&expect(), &observed(port));
        assert!(wrong.len() == 1 && wrong[0].contains(why), "{wrong:?}");
    }
    let still = Expect {
        no_ports: vec!["eth0".to_owned()],
        ..Expect::default()
    };
    assert!(!switch(&still, &good).is_empty());
}

#[test]
fn what_could_not_be_read_is_not_good() {
    assert!(!switch(&expect(), &Observed::default()).is_empty());
    for part in ["switch", "links", "routes", "network_manager"] {
        let mut now = observed(json!({"name": "eth0", "ofport": 1}));
        now.problems.push(Problem {
            part: part.to_owned(),
            what: "silence".to_owned(),
        });
        let levels = Levels {
            switch: switch(&expect(), &now),
            links: [links(&expect(), &now), manager(&[], None, &now)].concat(),
            ..Levels::default()
        };
        assert!(!levels.are_good(), "{part}");
    }
}

fn seen_by_manager(state: u32) -> NetworkManager {
    NetworkManager {
        version: "1".to_owned(),
        state: "connected".to_owned(),
        connectivity: "full".to_owned(),
        active_connections: 1,
        total_connections: 1,
        devices: 1,
        device_list: vec![ManagedDevice {
            path: "/d/1".to_owned(),
            interface: "eth0".to_owned(),
            managed: true,
            device_type: 1,
            state,
        }],
    }
}

#[test]
fn a_device_that_worked_for_the_manager_has_to_work_for_it_still() {
    let devices = ["eth0".to_owned()];
    let now = |manager| Observed {
        network_manager: manager,
        ..Observed::default()
    };
    let before = seen_by_manager(ACTIVATED);
    let good = now(Some(seen_by_manager(ACTIVATED)));
    assert_eq!(
        manager(&devices, Some(&before), &good),
        Vec::<String>::new()
    );
    for after in [now(None), now(Some(seen_by_manager(30)))] {
        assert!(!manager(&devices, Some(&before), &after).is_empty());
    }
    // One that did not work before is nobody's fault.
    let before = seen_by_manager(30);
    let after = now(Some(seen_by_manager(20)));
    assert_eq!(
        manager(&devices, Some(&before), &after),
        Vec::<String>::new()
    );
}

#[test]
fn a_receipt_without_a_ledger_or_no_receipt_proves_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let receipts = [("ovs-add-br".to_owned(), None)];
    assert!(!ledger(&Layout::new(root.path()), &receipts).is_empty());
}
