//! The edges of what actions say of their parameters together, and of what the ledger gets: the last that is good and the
//! first that is not.

use serde_json::{Value, json};

use super::*;
use crate::catalog;
use crate::value::Text;

/// The example of the catalog with some parameters changed or, by a null, taken out.
fn changed(name: &str, changes: &Value) -> Result<Action, String> {
    let mut params = catalog::find(name).expect(name).example_params();
    for (key, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            params.as_object_mut().expect("an object").remove(key);
        } else {
            params[key] = value.clone();
        }
    }
    Action::from_parts(name, &params).map_err(|e| e.to_string())
}

fn check(name: &str, good: &[Value], bad: &[(Value, &str)]) {
    for changes in good {
        let action = changed(name, changes);
        assert!(action.is_ok(), "{name} {changes}: {action:?}");
    }
    for (changes, why) in bad {
        let error = changed(name, changes).expect_err(&changes.to_string());
        assert!(error.contains(why), "{name} {changes}: {error}");
    }
}

fn read<T: Text>(good: &[&str], bad: &[&str]) {
    for text in good {
        assert!(T::read(text).is_some(), "{} {text:?} is refused", T::KIND);
    }
    for text in bad {
        assert!(T::read(text).is_none(), "{} {text:?} is accepted", T::KIND);
    }
}

#[test]
fn what_parameters_say_together_is_checked_for_each_action() {
    check(
        "container-attach",
        &[
            json!({"gateway4": null, "gateway6": null}),
            json!({"gateway4": "10.101.0.254"}),
            json!({"gateway6": "fd0a:101::1"}),
            json!({"gateway6": "fe80::7"}),
        ],
        &[
            (json!({"gateway4": "10.101.1.1"}), "in no network"),
            (json!({"gateway6": "fd0a:102::1"}), "in no network"),
            (json!({"gateway4": "fd0a:101::1"}), "other family"),
            (json!({"gateway6": "10.101.0.1"}), "other family"),
        ],
    );
    check(
        "broker-renew",
        &[
            json!({"gateway": null}),
            json!({"gateway": "fe80::1"}),
            json!({"gateway": "2001:db8:b10c::ffff"}),
        ],
        &[(json!({"gateway": "2001:db8:b10d::1"}), "neither in")],
    );
    for name in ["nat-map", "nat-unmap"] {
        check(
            name,
            &[json!({"public": "2001:db8::7", "private": "fd00::7"})],
            &[
                (json!({"public": "2001:db8::7"}), "of one family"),
                (json!({"private": "fd00::7"}), "of one family"),
                (json!({"private": "203.0.113.7"}), "two addresses"),
            ],
        );
    }
    check(
        "route-set",
        &[
            json!({"via": null, "src": null}),
            json!({"dest": "fd00:9::/64", "via": "fe80::1", "src": "fd00:8::1"}),
        ],
        &[
            (json!({"via": "fe80::1"}), "via must be of the family"),
            (json!({"src": "fd00:8::1"}), "src must be of the family"),
            (json!({"dest": "fd00:9::/64", "src": null}), "via must be"),
        ],
    );
    check(
        "qm-set",
        &[json!({"options": {"scsi1": "local:vm-100-disk-1"}})],
        &[(
            json!({"options": {"scsi1": "local:vm-101-disk-1"}}),
            "of machine 101",
        )],
    );
    let nothing = json!({"cpuunits": null, "cpulimit": null, "iops_rd": null, "iops_wr": null,
        "rate_in_kbps": null, "rate_out_kbps": null});
    let mut reset = nothing.clone();
    reset["reset"] = json!(true);
    for name in ["vm-throttle", "pve-set-throttle", "tc-rate-limit"] {
        let only = |all: &Value| {
            let known = catalog::find(name).expect(name).example_params();
            let all = all.as_object().expect("an object").clone();
            let kept = all.into_iter();
            let kept = kept.filter(|(key, _)| key == "reset" || known.get(key).is_some());
            Value::Object(kept.collect())
        };
        check(
            name,
            &[only(&reset)],
            &[(only(&nothing), "nothing to change")],
        );
    }
    check(
        "proxy-set",
        &[],
        &[(json!({"behind": "eth0"}), "two devices")],
    );
    check(
        "link-handover",
        &[],
        &[(json!({"to": "ovsbr0"}), "two devices")],
    );
}

#[test]
fn what_an_event_holds_is_bounded_in_depth_size_and_alphabet() {
    fn arrays(depth: usize) -> Value {
        (0..depth).fold(json!(1), |inner, _| json!([inner]))
    }
    fn objects(depth: usize) -> Value {
        (0..depth).fold(json!(1), |inner, _| json!({ "a": inner }))
    }
    let with = |value: Value| json!({"data": {"a": value}});
    let keyed = |key: &str| json!({"data": {key: 1}});
    let inner = |key: &str| with(json!({key: 1}));
    // `{"a":"` and `"}` around it.
    let long = |bytes: usize| with("x".repeat(bytes - 8).into());
    check(
        "ledger-append",
        &[
            with(arrays(6)),
            with(objects(6)),
            with(json!((1_i64 << 53) - 1)),
            with(json!(1 - (1_i64 << 53))),
            with(json!("\u{1}\u{7e}é\n")),
            keyed(&"k".repeat(64)),
            keyed("A-z_0.9:"),
            inner("A-z_0.9:"),
            long(16_384),
        ],
        &[
            (with(arrays(7)), "8 deep"),
            (with(objects(7)), "8 deep"),
            (with(json!(1_i64 << 53)), "2^53-1"),
            (with(json!(-(1_i64 << 53))), "2^53-1"),
            (with(json!(1.5)), "2^53-1"),
            (with(json!("a\0")), "without NUL"),
            (with(json!(["a", "\u{7f}"])), "without NUL"),
            (keyed(&"k".repeat(65)), "1 to 64"),
            (keyed(""), "1 to 64"),
            (keyed("a b"), "1 to 64"),
            (keyed("ä"), "1 to 64"),
            (inner("a/b"), "1 to 64"),
            (long(16_385), "16384 bytes"),
            (json!({"data": [1]}), "an object"),
            (json!({"data": "x"}), "an object"),
            (json!({"action": "qm-start"}), "an action of the agent"),
        ],
    );
    let event = changed("ledger-append", &with(json!([7]))).expect("valid");
    assert_eq!(event.params()["data"], json!({"a": [7]}));
    let blob = json!({"action": "qm-start"});
    check("ledger-blob", &[], &[(blob, "an action of the agent")]);
}

#[test]
fn reasons_and_checkpoints_are_of_their_alphabet_from_the_first_character_on() {
    read::<ledger::Reason>(
        &["a", "~ -", &"a".repeat(200)],
        &["", " ", " a", "-a", "a\nb", "é", "\u{7f}", &"a".repeat(201)],
    );
    let note = |head: &str, signed: &str| format!("{head}\n\n\u{2014} {signed}\n");
    let longest = note("a", &"b".repeat(32_768 - 8));
    assert_eq!(longest.len(), 32_768);
    read::<trust::CosignedCheckpoint>(
        &[
            &note("a", "b"),
            &note("a\nc", "b\n\u{2014} d"),
            &note("\u{2014}", "b"),
            &longest,
        ],
        &[
            "",
            "\n",
            "a\n",
            "a\n\n\u{2014} b",
            "a\n\u{2014} b\n",
            &format!("{}\n", note("a", "b")),
            &note("", "b"),
            &note(" a", "b"),
            &note("a", "b\u{7f}"),
            &note("a\t", "b"),
            &note("é", "b"),
            &note("a", "b\r"),
            &note("a", &"b".repeat(32_768 - 7)),
        ],
    );
}

#[test]
fn each_action_locks_the_things_that_it_names() {
    let container = "container:4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01";
    for (name, keys) in [
        ("container-attach", &[container, "link:bhc7xk2mq4a"][..]),
        ("container-detach", &[container, "link:bhc7xk2mq4a"]),
        ("ip6-route-add", &["route:fd00:b10c::100/128"]),
        ("route-set", &["route:10.90.0.0/24"]),
        ("route-del", &["route:10.90.0.0/24"]),
        ("proxy-set", &["proxy:203.0.113.7", "route:203.0.113.7/32"]),
        ("proxy-del", &["proxy:203.0.113.7", "route:203.0.113.7/32"]),
        ("link-set", &["link:ovsbr0", "wg:ovsbr0"]),
        (
            "link-handover",
            &["link:ovsbr0", "wg:ovsbr0", "link:eth0", "wg:eth0"],
        ),
        ("nat-map", &["firewall"]),
        ("nat-set", &["firewall"]),
        ("ovs-list", &[]),
        ("qm-clone", &["vm:9000", "vm:100"]),
        ("veth-rename", &["vm:100"]),
    ] {
        let action = changed(name, &json!({})).expect("an example");
        let found = action.resources();
        let found: Vec<&str> = found.iter().map(ResourceKey::as_str).collect();
        assert_eq!(found, keys, "{name}");
    }
    // A template is read by any number of clones at once; what an action changes is its alone.
    let clone = changed("qm-clone", &json!({})).expect("an example");
    let claims = clone.claims();
    let claims: Vec<_> = claims
        .iter()
        .map(|(key, shared)| (key.as_str(), *shared))
        .collect();
    assert_eq!(claims, [("vm:9000", true), ("vm:100", false)]);
    for spec in catalog::CATALOG
        .iter()
        .filter(|spec| spec.name != "qm-clone")
    {
        let action = changed(spec.name, &json!({})).expect("an example");
        assert!(
            action
                .claims()
                .iter()
                .all(|(_, shared)| *shared == spec.read_only),
            "{}",
            spec.name
        );
    }
    // One key for all that is done to one switch, and to one tunnel.
    for (names, mark) in [
        (
            &[
                "ovs-add-br",
                "ovs-del-br",
                "ovs-add-port",
                "ovs-set-flows",
                "ovs-set-meter",
            ][..],
            "ovsbr0",
        ),
        (&["wg-setup", "wg-set-peers", "wg-teardown"], "wg0"),
    ] {
        for name in names {
            let keys = changed(name, &json!({})).expect("an example").resources();
            assert!(
                keys.iter().any(|key| key.as_str().ends_with(mark)),
                "{name}: {keys:?}"
            );
        }
    }
}

#[test]
fn an_interface_is_found_and_named_by_its_number() {
    for (index, managed, wanted) in [
        (json!(null), "veth100i0", "vi100"),
        (json!(0), "veth100i0", "vi100"),
        (json!(1), "veth100i1", "vi100_1"),
        (json!(7), "veth100i7", "vi100_7"),
    ] {
        let Ok(Action::VethRename(rename)) = changed("veth-rename", &json!({ "index": index }))
        else {
            panic!("{index}")
        };
        assert_eq!(
            (rename.managed_name(), rename.wanted_name()),
            (managed.into(), wanted.into())
        );
    }
}

#[test]
fn an_events_category_is_its_own_and_an_actions_that_of_the_catalog() {
    let category = |name: &str| {
        changed(name, &json!({}))
            .expect("an example")
            .ledger_category()
    };
    assert_eq!(category("ledger-append"), "chain");
    assert_eq!(category("ledger-blob"), "network");
    assert_eq!(category("qm-start"), "compute");
    assert_eq!(category("nat-map"), "network");
}

#[test]
fn what_is_too_long_for_a_record_is_there_as_a_digest() {
    let kept = |text: &str| {
        let action = changed("ledger-append", &json!({"data": {"a": text}})).expect("valid");
        action.ledger_metadata_with(&[0; 16])["data"]["a"].clone()
    };
    let whole = "x".repeat(4096);
    assert_eq!(kept(&whole), json!(whole));
    let cut = kept(&"x".repeat(4097));
    // printf 'x%.0s' $(seq 4097) | sha256sum
    assert_eq!(cut["bytes"], 4097);
    assert_eq!(cut["sha256"].as_str().map(str::len), Some(64));
    let begins = cut["begins"].as_str().expect("the beginning");
    assert!(begins.starts_with("xxxx") && begins.len() < 300, "{begins}");
}

#[test]
fn parameters_that_are_too_long_together_are_there_as_digests_and_short_ones_as_they_are() {
    let customize = |path: usize, last: usize| {
        let append = |bytes: usize| json!(["append-line", format!("/a:{}", "x".repeat(bytes))]);
        let mut commands = vec![append(4000); 8];
        commands.push(append(last));
        let params = json!({"image_path": format!("{0}/{0}/{1}", "c".repeat(100), "d".repeat(path - 202)), "commands": commands});
        Action::from_parts("virt-customize", &params).expect("valid")
    };
    // A path of 254 characters is a text of 256 in quotes.
    for (path, whole) in [(254, true), (255, false)] {
        let size = |last| customize(path, last).params().to_string().len();
        let last = 1 + 32_768 - size(1);
        assert_eq!(size(last), 32_768);
        let longest = customize(path, last);
        let kept = Value::Object(longest.ledger_metadata_with(&[0; 16]));
        assert_eq!(kept, longest.params(), "as it is");
        let longer = customize(path, last + 1);
        let kept = longer.ledger_metadata_with(&[0; 16]);
        assert_eq!(
            kept["commands"]["bytes"],
            longer.params()["commands"].to_string().len()
        );
        assert_eq!(kept["image_path"].is_string(), whole, "{path}");
    }
}

#[test]
fn what_a_wrong_operation_shows_of_its_argument_is_no_contents() {
    for (name, argument, shown) in [
        ("install", "a b!", "install a b!"),
        ("install", "secret:x!", "install secret:x!"),
        ("delete", "/a/../b", "delete /a/../b"),
        ("write", "/etc/../a:secret", "write 16 bytes"),
        ("write", "secret", "write 6 bytes"),
        ("append-line", "secret", "append-line 6 bytes"),
    ] {
        let error = ImageOp::parse(name, argument)
            .expect_err(argument)
            .to_string();
        assert!(error.contains(shown), "{error}");
    }
    let op = ImageOp::parse("--install", "nginx").expect("valid");
    assert_eq!(op.to_string(), "install");
}
