//! Block files of earlier programs: what is whole becomes events that the agent takes, what was changed is told.
#![cfg(feature = "import")]

use blockhost_ledger::import::{BlockFile, ImportError, MAX_FILE_BYTES};
use blockhost_ledger::merkle::{hex, sha256};
use blockhost_ledger::plugin::Registry;
use blockhost_proto::action::Action;
use serde_json::{Value, json};

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn metadata() -> Value {
    json!({
        "plugin": "lxc",
        "actions": [{"Create": {"resource": "100", "config": {"id": "100", "veth": "vi100", "bridge": "ovsbr0",
            "properties": {"network_type": "netmaker"}}}}],
        "metadata": {"timestamp": 1_729_414_800, "current_hash": "d41d8cd98f00b204e9800998ecf8427e"},
        "result": {"success": true, "changes": ["Created container 100"], "errors": []}
    })
}

/// A footprint as the earlier program made it, of this metadata as text.
fn footprint(plugin: &str, operation: &str, metadata: &str) -> String {
    let content = hex(&sha256(
        format!("{plugin}:{operation}:1729414800").as_bytes(),
    ));
    let data = hex(&sha256(metadata.as_bytes()));
    let features = ["0.123"; 64].join(", ");
    format!(
        r#"{{"plugin_id": "{plugin}", "operation": "{operation}", "timestamp": 1729414800, "data_hash": "{data}",
            "content_hash": "{content}", "metadata": {metadata}, "vector_features": [{features}]}}"#
    )
}

fn block(id: u64, previous: &str, footprints: &[String]) -> String {
    let hash = hex(&sha256(
        format!("{id}{previous}{}", footprints.concat()).as_bytes(),
    ));
    format!(
        r#"{{"block_id": {id}, "timestamp": 1729414800, "previous_hash": "{previous}", "footprints": [{}], "block_hash": "{hash}"}}"#,
        footprints.join(",\n")
    )
}

fn parse(text: &str) -> BlockFile {
    BlockFile::parse(text.as_bytes()).expect("a block")
}

#[test]
fn a_block_of_the_earlier_format_becomes_events_that_the_agent_takes() {
    let footprints = [
        footprint("lxc", "apply", &metadata().to_string()),
        footprint("systemd", "modify", r#"{"b":1,"a":{"z":true}}"#),
        footprint("never-heard-of", "create", "{}"),
    ];
    let block = parse(&block(1, ZEROS, &footprints));
    assert_eq!(
        (block.block_id, block.damage.as_slice(), block.follows(None)),
        (1, &[][..], None)
    );
    let registry = Registry::default();
    let events: Vec<_> = block
        .footprints
        .iter()
        .map(|footprint| footprint.event(&block, &registry))
        .collect();
    let categories: Vec<_> = events.iter().map(|event| event.category.as_str()).collect();
    assert_eq!(categories, ["compute", "settings", "imported"]);
    for (event, footprint) in events.iter().zip(&block.footprints) {
        let params = event.params();
        Action::from_parts("ledger-append", &params).expect("the agent takes it");
        assert_eq!(params["resource"], footprint.resource());
        assert_eq!(params["data"]["original"]["block_hash"], block.block_hash);
    }
    assert_eq!(events[0].metadata["metadata"], metadata());
}

#[test]
fn the_same_file_gives_the_same_ids_and_nothing_else_does() {
    let one = footprint("lxc", "apply", "{}");
    let text = block(1, ZEROS, &[one.clone(), one.clone()]);
    let ids = |text: &str| {
        parse(text)
            .footprints
            .iter()
            .map(|footprint| footprint.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids(&text),
        ids(&text.replace(": ", ":\n ")),
        "white space is nothing"
    );
    assert_ne!(ids(&text)[0], ids(&text)[1], "twice the same is two");
    assert_ne!(ids(&text)[0], ids(&block(2, ZEROS, &[one]))[0]);
}

#[test]
fn every_change_of_a_footprint_is_told_and_the_others_are_kept() {
    let good = footprint("lxc", "apply", &metadata().to_string());
    for (from, to, told) in [
        ("vi100", "vi101", "data_hash"),
        (r#""success":true"#, r#""success":false"#, "data_hash"),
        (
            r#""operation": "apply""#,
            r#""operation": "delete""#,
            "content_hash",
        ),
        (
            r#""timestamp": 1729414800"#,
            r#""timestamp": 1729414801"#,
            "content_hash",
        ),
        (
            r#""plugin_id": "lxc""#,
            r#""plugin_id": "qm""#,
            "content_hash",
        ),
        (
            r#""plugin_id": "lxc""#,
            r#""plugin_id": "l\u001b[2J""#,
            "plugin_id",
        ),
        (
            r#""metadata": {"#,
            r#""metadata": {"plugin":"lxc","#,
            "twice",
        ),
        (
            r#""metadata": {"#,
            r#""metadata": [{}], "x": {"#,
            "metadata",
        ),
        (
            r#""operation": "apply""#,
            r#""operation": "apply", "operation": "apply""#,
            "twice",
        ),
        ("0.123", "[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]", "deep"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let block = parse(&block(1, ZEROS, &[good.clone(), bad, good.clone()]));
        assert_eq!(block.footprints.len(), 2, "{from}");
        let [damage] = block.damage.as_slice() else {
            panic!("{from}: {:?}", block.damage)
        };
        assert!(damage.starts_with("footprint 1: "), "{damage}");
        assert!(!damage.contains('\u{1b}'));
        if told != "twice" && told != "deep" {
            assert!(damage.contains(told), "{from}: {damage}");
        }
    }
}

#[test]
fn blocks_that_do_not_follow_each_other_are_told() {
    let first = parse(&block(1, ZEROS, &[]));
    let follows = |text: &str| parse(text).follows(Some((1, &first.block_hash)));
    assert_eq!(follows(&block(2, &first.block_hash, &[])), None);
    assert!(follows(&block(2, ZEROS, &[])).is_some_and(|why| why.contains("previous_hash")));
    assert!(follows(&block(3, &first.block_hash, &[])).is_some_and(|why| why.contains("missing")));
    assert!(
        parse(&block(1, &first.block_hash, &[]))
            .follows(None)
            .is_some()
    );
}

#[test]
fn secrets_are_taken_out_and_what_the_ledger_cannot_hold_is_named() {
    let registry = Registry::default();
    let event = |metadata: &str| {
        let block = parse(&block(1, ZEROS, &[footprint("net", "apply", metadata)]));
        let event = block.footprints[0].event(&block, &registry);
        Action::from_parts("ledger-append", &event.params()).expect("the agent takes it");
        event.metadata
    };
    let with_secret =
        event(r#"{"wireguard":{"private_key":"c2VjcmV0","mtu":1420.5},"list":[{"token":"abc"}]}"#);
    let text = serde_json::to_string(&with_secret).expect("JSON");
    assert!(
        !text.contains("c2VjcmV0") && !text.contains("abc"),
        "{text}"
    );
    assert_eq!(
        (
            with_secret["redacted"].as_u64(),
            &with_secret["metadata"]["wireguard"]["mtu"]
        ),
        (Some(2), &json!("1420.5"))
    );
    for metadata in [
        r#"{"a key with spaces":1}"#.to_owned(),
        format!(r#"{{"long":"{}"}}"#, "x".repeat(20_000)),
    ] {
        let event = event(&metadata);
        assert!(
            event["metadata_omitted"].is_string() && event.get("metadata").is_none(),
            "{event:?}"
        );
        assert_eq!(
            event["original"]["data_hash"],
            hex(&sha256(metadata.as_bytes()))
        );
    }
}

#[test]
fn block_files_of_this_product_are_confirmed() {
    let head = json!({"block_id": 1, "first_height": 1, "merkle_root": ZEROS, "previous_hash": ZEROS, "timestamp": 5, "tree_size": 0});
    let mut block = head.clone();
    block["block_hash"] = hex(&sha256(head.to_string().as_bytes())).into();
    block["footprints"] = json!([]);
    assert!(parse(&block.to_string()).confirmed);
    block["timestamp"] = 6.into();
    assert!(!parse(&block.to_string()).confirmed);
}

#[test]
fn hostile_files_are_refused_before_they_cost_much() {
    let refused = |bytes: &[u8]| BlockFile::parse(bytes).expect_err("refused");
    assert!(matches!(
        refused(&vec![b' '; MAX_FILE_BYTES + 1]),
        ImportError::TooLarge { .. }
    ));
    assert_eq!(
        refused(b"{\"block_id\": \"\xff\"}"),
        ImportError::NotText { at: 14 }
    );
    let good = block(1, ZEROS, &[]);
    for text in [
        String::new(),
        "[".repeat(1 << 20),
        format!(r#"{{"footprints": {}"#, "[".repeat(1 << 20)),
        good.replacen("{", r#"{"block_id": 2,"#, 1),
        good.replace(r#""block_id": 1"#, r#""block_id": 0"#),
        good.replace(r#""block_id": 1"#, r#""block_id": 18446744073709551615"#),
        good.replace(ZEROS, "0"),
        good.replace(ZEROS, &ZEROS.replace('0', "\\u001b")),
        format!("{good}{good}"),
    ] {
        assert!(
            matches!(refused(text.as_bytes()), ImportError::Shape { .. }),
            "{}",
            &text[..text.len().min(80)]
        );
    }
}
