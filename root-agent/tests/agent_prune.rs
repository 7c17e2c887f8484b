//! Pruning through the whole agent: who may, what is kept for how long, and kill -9 at every step: the payloads are there
//! and nothing says otherwise, or a record says so and they are gone. Everything else stays provable.

mod common;

use std::path::PathBuf;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::keys::Signers;
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::verify::{Trust, VerifyReport, verify};
use blockhost_ledger::writer::{Options, Writer};
use common::{Agent, BLOCKHOST, World, signal_process, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

const NOBODY: u32 = 65_534;
/// Two blocks; the agent's own segments have 65536 records.
const SEGMENT: u64 = 512;
const YOUNG_MAY_GO: &str = "limits: {ledger_retention_days: 0}\n";

fn prune(before: u64) -> Value {
    json!({"action": "ledger-prune", "params": {"before": before, "reason": "a test"}})
}

fn event(n: u64) -> Draft {
    Draft {
        phase: Phase::Event,
        op_id: String::new(),
        plugin_id: "event".to_owned(),
        category: "chain".to_owned(),
        operation: "create".to_owned(),
        action: "x".to_owned(),
        resource: format!("event:{n}"),
        user: "root".to_owned(),
        uid: 0,
        pid: None,
        exe: None,
        unit: None,
        metadata: serde_json::Map::new(),
    }
}

/// A world whose ledger has three sealed segments, written with the agent's own key.
fn world(policy: &str) -> World {
    let mut agent = Agent::start(policy);
    assert!(agent.stop().success(), "{}", agent.world.log());
    let world = agent.into_world();
    let signers = Signers::load_or_generate(&world.layout.ledger_keys(), "h").expect("the keys");
    let options = Options {
        segment_records: SEGMENT,
        ..Options::default()
    };
    let ledger = LedgerDir::open(&world.layout.ledger()).expect("the ledger");
    let (mut writer, _) = Writer::open(ledger, signers, "h", options).expect("opens");
    let drafts: Vec<Draft> = (writer.head().size..3 * SEGMENT + 20).map(event).collect();
    for batch in drafts.chunks(256) {
        writer.append(batch).expect("appended");
    }
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    writer.publish().expect("published");
    world
}

fn segment(world: &World, number: u64, ending: &str) -> PathBuf {
    let first = number * SEGMENT;
    let name = format!("seg/{first:012}.{ending}");
    world.layout.ledger().join(name)
}

fn blocks(world: &World) -> usize {
    let names = std::fs::read_dir(world.layout.ledger().join("blockchain")).expect("listed");
    let names = names.map(|entry| entry.expect("entry").file_name());
    let block = |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(b"block_");
    names.filter(block).count()
}

fn verified(world: &World) -> VerifyReport {
    let directory = LedgerDir::open(&world.layout.ledger()).expect("the ledger");
    let report = verify(&directory, &Trust::default(), &mut |_, _| ()).expect("readable");
    assert!(report.ok, "{:?}", report.problems);
    report
}

fn of(world: &World, phase: &str) -> Vec<Value> {
    let mut records = world.records();
    records.retain(|r| r["action"] == "ledger-prune" && r["phase"] == phase);
    records
}

#[test]
fn root_prunes_segment_by_segment_and_nobody_else_does() {
    let everything = "rules:
  - {user: 65534, actions: ['*', 'ledger-*']}
  - {user: 0, actions: [ledger-prune, agent-info]}
";
    let agent = Agent::start_in(world(&format!("{everything}{YOUNG_MAY_GO}")));
    let refused = agent.client_as(NOBODY, BLOCKHOST).call(&prune(5000));
    assert_eq!(refused["code"], "forbidden", "{refused}");
    let none = agent.client().call(&prune(SEGMENT));
    assert_eq!(none["code"], "not_found", "{none}");
    let dry = agent
        .client()
        .call(&json!({"action": "ledger-prune", "dry_run": true,
        "params": {"before": 5000, "reason": "a test"}}));
    assert_eq!(dry["ok"], true, "{dry}");
    assert!(segment(&agent.world, 0, "zst").exists());

    let done = agent.client().call(&prune(5000));
    assert_eq!(
        (&done["ok"], &done["first"], &done["last"], &done["left"]),
        (&json!(true), &json!(1), &json!(512), &json!(1)),
        "{done}"
    );
    assert!(!segment(&agent.world, 0, "zst").exists() && segment(&agent.world, 1, "zst").exists());
    let done = agent.client().call(&prune(5000));
    assert_eq!((&done["last"], &done["left"]), (&json!(1024), &json!(0)));
    assert!(done["bytes"].as_u64().is_some_and(|bytes| bytes > 1000));
    // The newest sealed one stays.
    assert_eq!(agent.client().call(&prune(5000))["code"], "not_found");
    let said = of(&agent.world, "prune");
    assert_eq!(said.len(), 2);
    assert_eq!(said[1]["height"], done["record"]);
    assert_eq!(
        (
            &said[0]["uid"],
            &said[0]["metadata"]["reason"],
            &said[0]["resource"]
        ),
        (&json!(0), &json!("a test"), &json!("records:1-512"))
    );
    let outcomes = of(&agent.world, "outcome");
    let intents = of(&agent.world, "intent");
    assert_eq!((intents.len(), outcomes.len()), (4, 4));
    assert_eq!(said[0]["op_id"], intents[1]["op_id"]);
    let report = verified(&agent.world);
    assert_eq!((report.pruned[0].first, report.pruned[0].last), (1, 1024));
}

#[test]
fn what_is_younger_than_the_policy_says_is_kept_and_a_new_policy_counts_at_once() {
    let agent = Agent::start_in(world(""));
    let kept = agent.client().call(&prune(5000));
    assert_eq!(kept["code"], "conflict", "{kept}");
    let text = kept["error"].to_string();
    assert!(text.contains("limits.ledger_retention_days"), "{text}");
    assert!(segment(&agent.world, 0, "zst").exists());
    agent.world.write_policy(YOUNG_MAY_GO);
    agent.signal(Signal::HUP);
    wait_for(|| (agent.client().call(&prune(5000))["ok"] == true).then_some(()));
}

#[test]
fn damage_is_reported_and_not_deleted() {
    let world = world(YOUNG_MAY_GO);
    let file = segment(&world, 0, "zst");
    let good = std::fs::read(&file).expect("read");
    let mut bytes = good.clone();
    bytes[good.len() / 2] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    let agent = Agent::start_in(world);
    let refused = agent.client().call(&prune(5000));
    assert_eq!(refused["code"], "failed", "{refused}");
    assert!(refused["error"].to_string().contains("verify"), "{refused}");
    assert_eq!(std::fs::read(&file).expect("still there"), bytes);
    std::fs::write(&file, good).expect("written");
    assert!(of(&agent.world, "prune").is_empty());
}

#[test]
fn killed_at_any_step_it_is_done_and_on_record_or_was_not_begun() {
    for (point, recorded, whole) in [
        ("gate-heard ledger-prune", false, true),
        ("ledger-intent-half ledger-prune", false, false),
        ("gate-recorded ledger-prune", false, true),
        ("prune-kept", false, false),
        ("ledger-prune-writing", false, true),
        ("ledger-prune-half", false, false),
        ("ledger-prune-synced", true, true),
        ("prune-recorded", true, false),
        ("prune-deleted", true, true),
        ("prune-block-removed", true, false),
        ("gate-finished ledger-prune", true, true),
        ("ledger-outcome-half ledger-prune", true, false),
        ("gate-answering ledger-prune", true, true),
    ] {
        let world = world(YOUNG_MAY_GO);
        let before = blocks(&world);
        std::fs::write(
            world.layout.root().join("fail-point"),
            format!("ledger stop {point}"),
        )
        .expect("written");
        let mut agent = Agent::start_in(world);
        agent.client().request(&prune(5000));
        let name = point.split(' ').next().expect("a name");
        let reached = format!("fail point {name} reached");
        wait_for(|| agent.world.log().contains(&reached).then_some(()));
        let agent = if whole {
            signal_process(agent.supervisor(), Signal::KILL);
            agent.wait();
            Agent::start_in(agent.into_world())
        } else {
            let old = agent.pid("ledger").expect("the ledger");
            signal_process(old, Signal::KILL);
            agent.wait_for_new("ledger", old);
            agent.wait_until_ready();
            agent
        };
        let world = &agent.world;
        let outcomes = wait_for(|| {
            let outcomes = of(world, "outcome");
            (of(world, "intent").len() == outcomes.len()).then_some(outcomes)
        });
        assert_eq!(of(world, "prune").len(), usize::from(recorded), "{point}");
        if let Some(outcome) = outcomes.first() {
            let result = &outcome["metadata"]["result"];
            assert_eq!(*result, if recorded { "ok" } else { "error" }, "{point}");
        }
        // The new life sweeps before it works.
        wait_for(|| (segment(world, 0, "zst").exists() != recorded).then_some(()));
        wait_for(|| (segment(world, 0, "kept").exists() == recorded).then_some(()));
        let gone = if recorded { 2 } else { 0 };
        wait_for(|| (blocks(world) == before - gone).then_some(()));
        let report = verified(world);
        assert_eq!(report.pruned.len(), usize::from(recorded), "{point}");
        let next = agent.client().call(&prune(5000));
        let last = if recorded { 1024 } else { 512 };
        assert_eq!(next["last"], last, "{point}: {next}");
        verified(world);
    }
}

#[test]
fn a_disk_that_is_slow_with_what_a_pruning_writes_or_deletes_holds_up_nobody_else() {
    for (point, recorded) in [
        ("prune-kept", 0),
        ("prune-deleted", 1),
        ("prune-block-removed", 1),
    ] {
        let world = world(YOUNG_MAY_GO);
        let armed = world.layout.root().join("fail-point");
        std::fs::write(armed, format!("ledger stop {point}")).expect("written");
        let agent = Agent::start_in(world);
        let mut waiting = agent.client();
        waiting.request(&prune(5000));
        let reached = format!("fail point {point} reached");
        wait_for(|| agent.world.log().contains(&reached).then_some(()));
        let append = json!({"action": "ledger-append", "params": {"category": "chain", "action": "e", "data": {}}});
        for _ in 0..20 {
            assert_eq!(agent.client().call(&append)["ok"], true, "{point}");
        }
        assert_eq!(of(&agent.world, "prune").len(), recorded, "{point}");
        assert!(of(&agent.world, "outcome").is_empty(), "{point}");
    }
}
