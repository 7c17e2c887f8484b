//! Data of every domain becomes events that the agent takes; secrets and what the ledger cannot hold do not.
#![cfg(feature = "import")]

use blockhost_ledger::plugin::{Event, LedgerPlugin, Operation, PluginError, Registry};
use blockhost_proto::action::Action;
use serde_json::{Value, json};

fn process(category: &str, data: Value) -> Result<Vec<Event>, PluginError> {
    Registry::default().process(category, &data)
}

fn one(category: &str, data: Value) -> Event {
    let mut events = process(category, data).expect("taken");
    assert_eq!(events.len(), 1);
    let event = events.remove(0);
    Action::from_parts("ledger-append", &event.params()).expect("the agent takes it");
    event
}

#[test]
fn data_of_every_domain_names_its_category_operation_and_resource() {
    for (category, action, data, stored, operation, resource) in [
        (
            "bridge",
            "created",
            json!({"bridge_name": "ovsbr0", "uplink_interface": "enp2s0"}),
            "network",
            Operation::Create,
            Some("bridge:ovsbr0"),
        ),
        (
            "netmaker",
            "container_integrated",
            json!({"container_id": 7, "port_name": "netmaker-7"}),
            "network",
            Operation::Create,
            Some("port:netmaker-7"),
        ),
        (
            "wireguard",
            "client_configured",
            json!({"gateway": "192.0.2.1:51820"}),
            "network",
            Operation::Modify,
            None,
        ),
        (
            "flow_stats",
            "collected",
            json!({"flows": []}),
            "network",
            Operation::Query,
            None,
        ),
        (
            "vm",
            "destroyed",
            json!({"vmid": 100}),
            "compute",
            Operation::Delete,
            Some("vm:100"),
        ),
        (
            "lxc",
            "created",
            json!({"container_id": "100"}),
            "compute",
            Operation::Create,
            Some("ct:100"),
        ),
        (
            "settings",
            "changed",
            json!({"file": "web3-defaults.yaml"}),
            "settings",
            Operation::Modify,
            Some("file:web3-defaults.yaml"),
        ),
        (
            "users",
            "login",
            json!({"user": "alice"}),
            "users",
            Operation::Create,
            Some("user:alice"),
        ),
        (
            "mount",
            "unmounted",
            json!({"mountpoint": "/srv"}),
            "storage",
            Operation::Delete,
            Some("mount:/srv"),
        ),
        (
            "chain",
            "subscription-extended",
            json!({"subscription": 7, "tx": "0xab"}),
            "chain",
            Operation::Modify,
            Some("subscription:7"),
        ),
        (
            "quantum",
            "entangled",
            json!({"pairs": 2}),
            "quantum",
            Operation::Apply,
            None,
        ),
    ] {
        let event = one(category, json!({"action": action, "data": data}));
        assert_eq!(
            (event.category.as_str(), event.action.as_str()),
            (stored, action)
        );
        assert_eq!(
            (event.operation, event.resource.as_deref()),
            (operation, resource),
            "{category}"
        );
        assert_eq!(event.metadata["operation"], operation.as_str());
        let kind = event.metadata.get("kind").and_then(Value::as_str);
        assert_eq!(kind, (category != stored).then_some(category));
    }
}

#[test]
fn a_change_of_state_gives_an_event_for_each_thing_that_changed() {
    let data = json!({
        "plugin": "lxc",
        "actions": [{"Create": {"resource": "100", "config": {"bridge": "ovsbr0"}}}, {"Delete": {"resource": 101}}],
        "result": {"success": true, "changes": ["Created container 100"], "errors": []},
    });
    let events = process("lxc", data).expect("taken");
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event.action.as_str(),
                event.resource.as_deref().expect("named"),
            )
        })
        .collect();
    assert_eq!(
        told,
        [("compute-create", "lxc:100"), ("compute-delete", "lxc:101")]
    );
    for event in &events {
        Action::from_parts("ledger-append", &event.params()).expect("the agent takes it");
        assert_eq!(
            (
                &event.metadata["plugin"],
                &event.metadata["result"]["success"]
            ),
            (&json!("lxc"), &json!(true))
        );
    }
}

#[test]
fn secrets_are_refused_wherever_they_are_and_their_absence_may_be_told() {
    for (data, path) in [
        (json!({"private_key": "x"}), "private_key"),
        (json!({"wg": {"PresharedKey": "x"}}), "wg.PresharedKey"),
        (
            json!({"list": [{"a": 1}, {"user-password": "x"}]}),
            "list[1].user-password",
        ),
        (json!({"session_token": "x"}), "session_token"),
        (json!({"seed": [1, 2, 3]}), "seed"),
        (
            json!({"note": "-----BEGIN OPENSSH PRIVATE KEY-----"}),
            "note",
        ),
        (json!({"notes": ["AGE-SECRET-KEY-1XYZ"]}), "notes[0]"),
    ] {
        let refused = process("settings", json!({"action": "changed", "data": data}));
        assert_eq!(refused, Err(PluginError::Secret { path: path.into() }));
        let message = refused.expect_err("refused").to_string();
        assert!(!message.contains("AGE-SECRET"), "{message}");
    }
    one(
        "settings",
        json!({"action": "changed", "data": {"password_set": true, "token_id": 7, "public_key": "x", "password": null}}),
    );
}

#[test]
fn data_that_is_no_event_is_refused_saying_where() {
    for (category, data) in [
        ("vm", json!([])),
        ("vm", json!({})),
        ("vm", json!({"action": "x", "actions": []})),
        ("vm", json!({"action": 1})),
        ("vm", json!({"action": "Has Spaces"})),
        ("vm", json!({"action": "x", "data": []})),
        ("vm", json!({"action": "x", "unknown": 1})),
        ("vm", json!({"action": "x", "operation": "explode"})),
        ("vm", json!({"action": "x", "resource": "a b"})),
        ("vm", json!({"action": "x", "resource": ""})),
        ("vm", json!({"action": "x", "data": {"rate": 0.5}})),
        ("vm", json!({"action": "x", "data": {"big": 1_u64 << 60}})),
        ("vm", json!({"action": "x", "data": {"a b": 1}})),
        ("vm", json!({"action": "x", "data": {"t": "a\u{0}"}})),
        (
            "vm",
            json!({"action": "x", "data": {"d": [[[[[[[[[1]]]]]]]]]}}),
        ),
        (
            "vm",
            json!({"action": "x", "data": {"t": "x".repeat(20_000)}}),
        ),
        ("lxc", json!({"actions": {}})),
        ("lxc", json!({"actions": [{"Explode": {}}]})),
        (
            "lxc",
            json!({"actions": [{"Create": {"resource": "1"}, "Delete": {"resource": "1"}}]}),
        ),
        ("lxc", json!({"actions": [{"Create": {"config": {}}}]})),
        ("Not A Name", json!({"action": "x"})),
        ("../etc", json!({"action": "x"})),
    ] {
        let refused = process(category, data.clone());
        assert!(
            matches!(
                refused,
                Err(PluginError::Shape { .. } | PluginError::Size { .. })
            ),
            "{category} {data}: {refused:?}"
        );
    }
}

#[test]
fn a_plugin_of_somebody_else_goes_first_and_is_checked_like_ours() {
    struct Other;
    impl LedgerPlugin for Other {
        fn name(&self) -> &str {
            "other"
        }
        fn categories(&self) -> &[&str] {
            &["vm"]
        }
        fn process_data(&self, data: &Value) -> Result<Vec<Event>, PluginError> {
            let Value::Object(metadata) = data.clone() else {
                return Err(PluginError::Shape {
                    path: "data".into(),
                    rule: "an object",
                });
            };
            Ok(vec![Event {
                category: "other".into(),
                action: "noted".into(),
                resource: None,
                operation: Operation::Apply,
                metadata,
            }])
        }
    }
    let mut registry = Registry::default();
    registry.add(Box::new(Other));
    let events = registry.process("vm", &json!({"a": 1})).expect("taken");
    assert_eq!(
        (events[0].category.as_str(), &events[0].metadata["kind"]),
        ("other", &json!("vm"))
    );
    assert!(matches!(
        registry.process("vm", &json!({"password": "x"})),
        Err(PluginError::Secret { .. })
    ));
    assert!(
        registry
            .find("lxc")
            .is_some_and(|plugin| plugin.name() == "compute")
    );
    assert!(
        registry
            .find("lxc")
            .is_some_and(|plugin| plugin.validate_data(&json!({"action": "x"})).is_ok())
    );
}
