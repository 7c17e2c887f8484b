//! Actions: every one decodes, comes back, locks what it should, and keeps its secrets.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::catalog::CATALOG;

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

/// One good request per action.
fn examples() -> Vec<(&'static str, Value)> {
    vec![
        ("qm-start", json!({"vmid": 100})),
        ("qm-stop", json!({"vmid": 100})),
        ("qm-template", json!({"vmid": 9000})),
        ("qm-shutdown", json!({"vmid": 999_999, "timeout": 600})),
        ("qm-destroy", json!({"vmid": 100, "template": true})),
        (
            "qm-create",
            json!({"vmid": 100, "name": "web-1", "args": ["--memory", "2048", "--scsi0", "local:4"]}),
        ),
        (
            "qm-set",
            json!({"vmid": 100, "config": {"memory": 4096, "ipconfig0": "ip=dhcp"}}),
        ),
        (
            "qm-importdisk",
            json!({"vmid": 100, "image_path": "debian.qcow2", "storage": "local"}),
        ),
        (
            "qm-clone",
            json!({"vmid": 9000, "newid": 100, "name": "web-1"}),
        ),
        (
            "qm-resize",
            json!({"vmid": 100, "disk": "scsi0", "size": "+10G"}),
        ),
        ("qm-status", json!({"vmid": 100})),
        ("qm-config", json!({"vmid": 100})),
        ("qm-list", json!({})),
        ("qm-metrics", json!({})),
        ("qm-metrics", json!({"vmid": 100})),
        ("qm-guest-ping", json!({"vmid": 100})),
        (
            "qm-guest-exec",
            json!({"vmid": 100, "command": "echo 'a b'\nid"}),
        ),
        (
            "pct-create",
            json!({"vmid": 100, "template": "local:vztmpl/debian-12.tar.zst", "hostname": "web-1", "options": {"rootfs": "local:8", "memory": 512}}),
        ),
        ("pct-start", json!({"vmid": 100})),
        ("pct-stop", json!({"vmid": 100})),
        ("pct-shutdown", json!({"vmid": 100, "timeout": 600})),
        ("pct-destroy", json!({"vmid": 100})),
        ("pct-status", json!({"vmid": 100})),
        ("pct-config", json!({"vmid": 100})),
        ("pct-list", json!({})),
        (
            "pct-set",
            json!({"vmid": 100, "config": {"net0": "name=eth0,bridge=vmbr0,ip=dhcp"}}),
        ),
        ("pct-exec", json!({"vmid": 100, "command": "id"})),
        (
            "vm-throttle",
            json!({"vmid": 100, "cpuunits": 50, "cpulimit": "0.5", "iops_rd": 100, "rate_in_kbps": 1000}),
        ),
        ("pve-set-throttle", json!({"vmid": 100, "cpulimit": 2})),
        ("tc-rate-limit", json!({"vmid": 100, "reset": true})),
        (
            "virt-customize",
            json!({"image_path": "debian.qcow2", "commands": [["--install", "nginx"]]}),
        ),
        (
            "ip6-route-add",
            json!({"address": "2001:DB8::1/128", "dev": "vmbr0"}),
        ),
        (
            "ip6-route-del",
            json!({"address": "fd00::1/128", "dev": "vmbr0"}),
        ),
        (
            "route-set",
            json!({"dest": "FD90::/64", "dev": "wg0", "via": "fe80::2"}),
        ),
        (
            "route-del",
            json!({"dest": "10.90.0.0/24", "dev": "wg0", "metric": 7}),
        ),
        (
            "route-from-set",
            json!({"from": "FD90::/64", "dev": "wg-broker"}),
        ),
        (
            "route-from-del",
            json!({"from": "2001:db8::/32", "dev": "wg-broker"}),
        ),
        (
            "iptables-open",
            json!({"port": 443, "comment": "blockhost-443"}),
        ),
        (
            "iptables-close",
            json!({"port": 53, "proto": "udp", "comment": "dns", "source": "10.0.0.0/8"}),
        ),
        ("iptables-list", json!({})),
        (
            "iptables-set",
            json!({"rules": [{"port": 53, "proto": "udp", "comment": "dns"}, {"port": 22, "comment": "ssh"}]}),
        ),
        (
            "nat-map",
            json!({"public": "203.0.113.7", "private": "10.0.0.7", "comment": "a"}),
        ),
        (
            "nat-unmap",
            json!({"public": "2001:db8::7", "private": "fd00::7", "comment": "a"}),
        ),
        ("nat-list", json!({})),
        (
            "nat-set",
            json!({"pairs": [{"public": "203.0.113.7", "private": "10.0.0.7", "comment": "a"}]}),
        ),
        (
            "proxy-set",
            json!({"address": "203.0.113.7", "dev": "eth0", "behind": "ovsbr0"}),
        ),
        (
            "proxy-del",
            json!({"address": "2001:DB8::7", "dev": "eth0"}),
        ),
        (
            "masquerade-set",
            json!({"dev": "wg0", "networks": ["10.20.0.0/24", "FD20::/64"]}),
        ),
        ("masquerade-list", json!({})),
        (
            "sysctl-set",
            json!({"setting": "ipv6-proxy", "dev": "eth0", "on": true}),
        ),
        ("veth-rename", json!({"vmid": 100})),
        ("link-set", json!({"dev": "ovsbr0", "addresses": []})),
        ("link-handover", json!({"from": "eth0", "to": "ovsbr0"})),
        (
            "ovs-add-br",
            json!({"bridge": "ovsbr0", "options": {"hwaddr": "02:00:00:00:00:aa", "mtu": 9000}}),
        ),
        ("ovs-del-br", json!({"bridge": "ovsbr0"})),
        (
            "ovs-add-port",
            json!({"bridge": "ovsbr0", "port": "vi100", "trunks": [7, 5], "vmid": 100}),
        ),
        ("ovs-del-port", json!({"bridge": "ovsbr0", "port": "vi100"})),
        (
            "ovs-set-flows",
            json!({"bridge": "ovsbr0", "owner": "vm-100", "flows": [{"actions": ["normal"]}]}),
        ),
        (
            "ovs-set-qos",
            json!({"bridge": "ovsbr0", "port": "vi100", "queues": [{"queue": 0, "max_kbps": 9}]}),
        ),
        ("ovs-set-meter", json!({"bridge": "ovsbr0", "meter": 1})),
        ("ovs-list", json!({})),
        (
            "container-look",
            crate::catalog::find("container-look")
                .unwrap()
                .example_params(),
        ),
        (
            "container-attach",
            crate::catalog::find("container-attach")
                .unwrap()
                .example_params(),
        ),
        (
            "container-detach",
            crate::catalog::find("container-detach")
                .unwrap()
                .example_params(),
        ),
        (
            "wg-setup",
            json!({"name": "wg0", "addresses": ["10.8.0.1/24"]}),
        ),
        (
            "wg-set-peers",
            json!({"name": "wg0", "peers": [{"public_key": KEY, "allowed_ips": []}]}),
        ),
        ("wg-teardown", json!({"name": "wg0"})),
        ("wg-show", json!({"name": "wg0"})),
        ("generate-wallet", json!({"name": "hot"})),
        (
            "addressbook-save",
            json!({"entries": {"admin": {"address": "0x52908400098527886e0f7030069857d2e4169ee7"}}}),
        ),
        ("broker-renew", json!({"prefix": "FD77:b10c::/64"})),
        (
            "broker-renew",
            json!({"prefix": "FD77:b10c::/64", "lease_until": 1_800_000_000}),
        ),
        (
            "ledger-append",
            json!({"category": "chain", "action": "subscription-created", "data": {"id": 1}}),
        ),
        (
            "ledger-anchored",
            json!({"chain_id": 1, "contract": "0x52908400098527886e0f7030069857d2e4169ee7", "tx": format!("0x{}", "ab".repeat(32)),
                "block": 0, "size": 6, "root": "cd".repeat(32), "head_size": 8, "proof": ["ef".repeat(32)]}),
        ),
        (
            "ledger-blob",
            crate::catalog::find("ledger-blob")
                .unwrap()
                .example_params(),
        ),
        (
            "ledger-shred",
            crate::catalog::find("ledger-shred")
                .unwrap()
                .example_params(),
        ),
        (
            "ledger-prune",
            crate::catalog::find("ledger-prune")
                .unwrap()
                .example_params(),
        ),
        (
            "ledger-cosign",
            crate::catalog::find("ledger-cosign")
                .unwrap()
                .example_params(),
        ),
        ("ledger-rotate-key", json!({})),
        ("agent-info", json!({})),
    ]
}

#[test]
fn every_action_of_the_catalog_comes_back_from_its_canonical_form() {
    let examples = examples();
    // Some have more than one form.
    let mut names: Vec<&str> = examples.iter().map(|(name, _)| *name).collect();
    names.dedup();
    assert_eq!(names, CATALOG.iter().map(|s| s.name).collect::<Vec<_>>());
    for (name, params) in examples {
        let action = Action::from_parts(name, &params).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(action.name(), name);
        assert_eq!(Action::from_parts(name, &action.params()).unwrap(), action);
        assert!(action.time_limit() <= Duration::from_secs(u64::from(action.spec().time_limit_s)));
        assert!(!action.ledger_resource().is_empty() && !action.ledger_category().is_empty());
    }
}

#[test]
fn defaults_are_written_out_and_absent_parameters_left_out() {
    let open = Action::from_parts("iptables-open", &json!({"port": 443, "comment": "x"})).unwrap();
    assert_eq!(
        open.params(),
        json!({"port": 443, "proto": "tcp", "comment": "x"})
    );
    let shutdown = Action::from_parts("qm-shutdown", &json!({"vmid": 100})).unwrap();
    assert_eq!(shutdown.params(), json!({"vmid": 100, "timeout": 120}));
    assert_eq!(shutdown.time_limit(), Duration::from_secs(150));
}

#[test]
fn actions_on_one_thing_share_a_key_and_others_do_not() {
    let keys = |name: &str, params: Value| {
        Action::from_parts(name, &params)
            .unwrap()
            .resources()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys("qm-clone", json!({"vmid": 9000, "newid": 100, "name": "a"})),
        ["vm:9000", "vm:100"]
    );
    assert_eq!(
        keys(
            "ip6-route-add",
            json!({"address": "FD00:0::1/128", "dev": "a"})
        ),
        ["route:fd00::1/128"]
    );
    assert_eq!(
        keys("generate-wallet", json!({"name": "hot"})),
        ["addressbook", "wallet:hot"]
    );
    assert_eq!(
        keys("addressbook-save", json!({"entries": {}})),
        ["addressbook"]
    );
    assert_eq!(
        keys("link-handover", json!({"from": "eth0", "to": "wg0"})),
        ["link:eth0", "wg:eth0", "link:wg0", "wg:wg0"]
    );
    assert_eq!(
        keys("broker-renew", json!({"prefix": "fd77::/64"})),
        ["broker-allocation"]
    );
    assert_eq!(
        keys("iptables-open", json!({"port": 1, "comment": "a"})),
        ["firewall"]
    );
    assert!(keys("agent-info", json!({})).is_empty());
}

#[test]
fn a_secret_command_is_in_the_ledger_only_as_a_salted_digest() {
    let params = json!({"vmid": 100, "command": "echo hunter2 | chpasswd", "secret": true});
    let action = Action::from_parts("qm-guest-exec", &params).unwrap();
    let salt = [7; 16];
    let metadata = Value::Object(action.ledger_metadata_with(&salt));
    assert!(!metadata.to_string().contains("hunter2"));
    let expected = crate::escape::hex(
        &Sha256::new()
            .chain_update(salt)
            .chain_update(b"echo hunter2 | chpasswd")
            .finalize(),
    );
    assert_eq!(
        metadata["command"],
        json!({"secret_sha256": expected, "salt": "07".repeat(16)})
    );
    assert_ne!(
        action.ledger_metadata(),
        action.ledger_metadata(),
        "two records of one secret must not look alike"
    );
    assert!(!format!("{action:?}").contains("hunter2"));
    let broken = json!({"vmid": 100, "command": "echo hunter2\0", "secret": true});
    assert!(
        !Action::from_parts("qm-guest-exec", &broken)
            .unwrap_err()
            .to_string()
            .contains("hunter2")
    );
    let open = Action::from_parts("qm-guest-exec", &json!({"vmid": 100, "command": "id"})).unwrap();
    assert_eq!(open.ledger_metadata()["command"], "id");
}

#[test]
fn metadata_always_fits_a_record_and_its_alphabet() {
    let long = Action::from_parts(
        "qm-guest-exec",
        &json!({"vmid": 100, "command": "\u{1}".repeat(16_384)}),
    )
    .unwrap();
    let odd = Action::from_parts(
        "qm-guest-exec",
        &json!({"vmid": 100, "command": "a\u{7f}b"}),
    )
    .unwrap();
    let entries: Map<String, Value> = (0..1024)
        .map(|n| {
            (
                format!("wallet-{n}"),
                json!({"address": format!("0x{n:040}"), "keyfile": "x".repeat(100)}),
            )
        })
        .collect();
    let book = Action::from_parts("addressbook-save", &json!({"entries": entries})).unwrap();
    for action in [long, odd, book] {
        let text = Value::Object(action.ledger_metadata()).to_string();
        assert!(
            text.len() <= 40_000 && !text.contains('\u{7f}'),
            "{}: {} bytes",
            action.name(),
            text.len()
        );
    }
}

#[test]
fn errors_name_action_parameter_and_rule() {
    let message =
        |name: &str, params: Value| Action::from_parts(name, &params).unwrap_err().to_string();
    assert_eq!(
        message("qm-start", json!({"vmid": "100"})),
        "qm-start: parameter vmid: \"100\" is not a valid vmid: an integer from 100 to 999999"
    );
    assert_eq!(
        message("qm-start", json!({"vmid": 100, "x": 1})),
        "qm-start: there is no parameter \"x\"; known: vmid"
    );
    assert_eq!(
        message("qm-start", json!({})),
        "qm-start: parameter vmid is missing"
    );
    assert!(
        message("qm-set", json!({"vmid": 100, "options": {"args": "-s"}}))
            .contains("not a key of this catalog")
    );
}
