//! The allocation file on a real file system: what a renewal keeps, replaces and refuses, also when it is killed.

mod common;
mod compartment_world;
mod crash_world;

use std::os::unix::fs::{MetadataExt, chown, symlink};

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Done, Handler, keys};
use blockhost_root_agent::policy::Policy;
use common::World as AgentWorld;
use compartment_world::{GROUP, World, is_root, set_mode};
use crash_world::{killed_at, verify_ledger};
use serde_json::{Value, json};

const FILE: &str = "broker-allocation.json";
const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

struct Keys {
    world: World,
    handler: Box<dyn Handler>,
}

impl Keys {
    fn new() -> Option<Self> {
        if !is_root() {
            println!("skipped: files of root's need root");
            return None;
        }
        let world = World::new();
        let handler = world.start(keys::prepare).expect("a keys compartment");
        Some(Self { world, handler })
    }

    fn renew(&self, params: &Value) -> Result<Done, ErrorCode> {
        let result = self.world.ask(&*self.handler, "broker-renew", params);
        result.map_err(|failure| {
            println!("{}", failure.message);
            failure.code
        })
    }

    fn path(&self) -> std::path::PathBuf {
        self.world.layout.etc().join(FILE)
    }

    fn put(&self, content: &str) {
        std::fs::write(self.path(), content).expect("a file");
        chown(self.path(), Some(0), Some(GROUP)).expect("an owner");
        set_mode(&self.path(), 0o644);
    }

    fn content(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path()).expect("a file")).expect("JSON")
    }

    fn names(&self) -> usize {
        let count = |directory: &std::path::Path| {
            let entries = std::fs::read_dir(directory).expect("a directory");
            entries.count()
        };
        // The directory where files are made is no file, and nothing stays in it.
        let etc = self.world.layout.etc();
        count(&etc) - 1 + count(&etc.join("unfinished"))
    }
}

#[test]
fn a_first_allocation_is_kept_as_it_was_given_and_everybody_in_the_directory_may_read_it() {
    let Some(keys) = Keys::new() else { return };
    let done = keys
        .renew(&json!({
            "prefix": "2001:DB8:0:1::/64", "gateway": "2001:db8:0:1:0::1",
            "broker_pubkey": KEY, "broker_endpoint": "broker.example:51820",
        }))
        .expect("kept");
    assert_eq!(done.extra["prefix"], "2001:db8:0:1::/64");
    assert!(!done.extra.contains_key("previous"));
    let expected = json!({
        "prefix": "2001:db8:0:1::/64", "gateway": "2001:db8:0:1::1",
        "broker_pubkey": KEY, "broker_endpoint": "broker.example:51820",
    });
    assert_eq!(keys.content(), expected);
    let meta = keys.path().metadata().expect("a file");
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.nlink()),
        (0, GROUP, 0o644, 1)
    );
    keys.renew(&json!({"prefix": "2001:db8:0:1::/64"}))
        .expect("again");
    assert_eq!(keys.content(), expected, "what is left out stays");
    assert_eq!(keys.names(), 1, "nothing unfinished lies about");
}

#[test]
fn another_prefix_is_a_conflict_unless_it_is_meant_and_other_programs_keep_what_they_wrote() {
    let Some(keys) = Keys::new() else { return };
    let old = r#"{"prefix": "fd77::/64", "gateway": "fd77::1", "broker_endpoint": "a:1", "lease": {"until": 7}}"#;
    keys.put(old);
    let other = json!({"prefix": "fd78::/64"});
    assert_eq!(keys.renew(&other).unwrap_err(), ErrorCode::Conflict);
    assert_eq!(std::fs::read_to_string(keys.path()).expect("a file"), old);
    let done = keys
        .renew(&json!({"prefix": "fd78::/64", "replace": true}))
        .expect("it is meant");
    assert_eq!(done.extra["previous"], "fd77::/64");
    let expected = json!({"prefix": "fd78::/64", "lease": {"until": 7}});
    assert_eq!(keys.content(), expected, "a router of the old prefix goes");
    // One bit longer is another one, too.
    let longer = json!({"prefix": "fd78::/65"});
    assert_eq!(keys.renew(&longer).unwrap_err(), ErrorCode::Conflict);
    keys.put(r#"{"prefix": "who knows"}"#);
    assert_eq!(keys.renew(&other).unwrap_err(), ErrorCode::Conflict);
    let done = keys
        .renew(&json!({"prefix": "fd78::/64", "replace": true}))
        .expect("it is meant");
    assert!(!done.extra.contains_key("previous"), "there was none");
}

#[test]
fn a_leases_end_moves_with_each_renewal_and_goes_with_its_prefix() {
    let Some(keys) = Keys::new() else { return };
    keys.renew(&json!({"prefix": "fd77::/64", "lease_until": 1_800_000_000}))
        .expect("kept");
    assert_eq!(keys.content()["lease_until"], 1_800_000_000);
    keys.renew(&json!({"prefix": "fd77::/64", "gateway": "fd77::1"}))
        .expect("kept");
    assert_eq!(keys.content()["lease_until"], 1_800_000_000);
    keys.renew(&json!({"prefix": "fd77::/64", "lease_until": 1_900_000_000}))
        .expect("renewed");
    assert_eq!(keys.content()["lease_until"], 1_900_000_000);
    keys.renew(&json!({"prefix": "fd78::/64", "replace": true}))
        .expect("by hand");
    assert_eq!(keys.content(), json!({"prefix": "fd78::/64"}));
}

#[test]
fn a_file_that_is_damaged_or_could_be_somebody_elses_is_left_alone() {
    let Some(keys) = Keys::new() else { return };
    let renewal = json!({"prefix": "fd77::/64", "replace": true});
    for damaged in [
        "",
        "{",
        "[]",
        "7",
        r#"{"prefix": "fd77::/64", "prefix": "fd78::/64"}"#,
        "{\"prefix\": \"fd77::/64\"} {}",
    ] {
        keys.put(damaged);
        assert_eq!(keys.renew(&renewal).unwrap_err(), ErrorCode::Failed);
        let content = std::fs::read_to_string(keys.path()).expect("a file");
        assert_eq!(content, damaged);
    }
    let good = r#"{"prefix": "fd77::/64"}"#;
    keys.put(good);
    set_mode(&keys.path(), 0o666);
    assert_eq!(keys.renew(&renewal).unwrap_err(), ErrorCode::Failed);
    keys.put(good);
    chown(keys.path(), Some(4711), None).expect("an owner");
    assert_eq!(keys.renew(&renewal).unwrap_err(), ErrorCode::Failed);
    std::fs::remove_file(keys.path()).expect("removed");
    let target = keys.world.path().join("elsewhere");
    std::fs::write(&target, good).expect("a file");
    symlink(&target, keys.path()).expect("a link");
    assert_eq!(keys.renew(&renewal).unwrap_err(), ErrorCode::Failed);
    assert_eq!(std::fs::read_to_string(&target).expect("a file"), good);
    std::fs::remove_file(keys.path()).expect("removed");
    let notes = format!(r#"{{"note": "{}"}}"#, "x".repeat(300 << 10));
    keys.put(&notes);
    assert_eq!(keys.renew(&renewal).unwrap_err(), ErrorCode::Conflict);
    assert_eq!(std::fs::read_to_string(keys.path()).expect("a file"), notes);
}

#[test]
fn a_prefix_outside_the_policys_networks_is_forbidden() {
    let action = |prefix: &str| {
        blockhost_proto::Action::from_parts("broker-renew", &json!({"prefix": prefix}))
            .expect("valid")
    };
    let allow = Policy::default().allow;
    for prefix in ["2001:db8::/32", "fd77::/64"] {
        assert!(allow.check(&action(prefix)).is_ok(), "{prefix}");
    }
    let allow = Policy::parse("allow: {broker_prefixes: ['fd77::/48']}\n", "p")
        .expect("a policy")
        .allow;
    assert!(allow.check(&action("fd77::/64")).is_ok());
    for prefix in ["fd77::/32", "fd77:0:1::/64", "2001:db8::/64"] {
        let refused = allow.check(&action(prefix)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Forbidden, "{}", refused.message);
        assert!(refused.message.contains("broker_prefixes"));
    }
}

#[test]
fn what_the_provisioner_reads_is_what_a_renewal_writes() {
    let Some(keys) = Keys::new() else { return };
    keys.renew(&json!({"prefix": "fd77:b10c::/64", "gateway": "fe80::1"}))
        .expect("kept");
    let content = keys.content();
    // The keys and forms of `provisioner/src/config/broker.rs`.
    assert_eq!(content["prefix"], "fd77:b10c::/64");
    assert_eq!(content["gateway"], "fe80::1");
}

#[test]
fn killed_at_any_step_of_a_renewal_the_file_is_the_old_one_or_the_new_one() {
    let old = r#"{"prefix": "fd77::/64", "lease": 7}"#;
    let renewal =
        json!({"action": "broker-renew", "params": {"prefix": "fd77::/64", "gateway": "fd77::1"}});
    for (point, renewed) in [
        ("keys-created", false),
        ("keys-written", false),
        ("keys-renamed", true),
    ] {
        let world = AgentWorld::new("");
        let path = world.layout.etc().join(FILE);
        std::fs::write(&path, old).expect("a file");
        let (agent, answer) = killed_at("", world, ("keys", point, FILE), &renewal);
        assert_eq!(answer["code"], "internal", "{answer}");
        let content = || -> Value {
            serde_json::from_str(&std::fs::read_to_string(&path).expect("a file")).expect("JSON")
        };
        let before: Value = serde_json::from_str(old).expect("JSON");
        let after = json!({"prefix": "fd77::/64", "gateway": "fd77::1", "lease": 7});
        assert_eq!(content(), if renewed { after.clone() } else { before });
        let answer = agent.client().call(&renewal);
        assert_eq!(answer["ok"], true, "{point}: {answer}");
        assert_eq!(content(), after);
        assert_eq!(agent.world.unfinished(), 0, "{point}");
        verify_ledger(&agent.world);
    }
}
