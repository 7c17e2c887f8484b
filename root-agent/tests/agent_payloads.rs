//! Confidential payloads through the whole agent: who may keep and who may erase, the quota, and kill -9 at every step:
//! a payload has its record or is not there, an erasure that was begun is finished, and the ledger verifies.

mod common;

use std::path::PathBuf;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::verify::{Trust, VerifyReport, verify};
use common::{Agent, BLOCKHOST, World, signal_process, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

const NOBODY: u32 = 65_534;

fn example(action: &str) -> Value {
    let spec = blockhost_proto::catalog::find(action).expect(action);
    json!({"action": action, "params": spec.example_params()})
}

/// The hash of the example's file: the examples of both actions name the same.
fn name() -> String {
    let shred = example("ledger-shred");
    shred["params"]["sha256"]
        .as_str()
        .expect("a hash")
        .to_owned()
}

fn file(world: &World) -> PathBuf {
    let name = name();
    let blobs = world.layout.ledger().join("blobs");
    blobs.join(&name[..2]).join(name)
}

fn verified(world: &World) -> VerifyReport {
    let directory = LedgerDir::open(&world.layout.ledger()).expect("the ledger");
    let report = verify(&directory, &Trust::default(), &mut |_, _| ()).expect("readable");
    assert!(report.ok, "{:?}", report.problems);
    report
}

fn about<'a>(records: &'a [Value], action: &str, phase: &str) -> Vec<&'a Value> {
    let wanted = |r: &&Value| r["action"] == action && r["phase"] == phase;
    records.iter().filter(wanted).collect()
}

#[test]
fn a_service_keeps_a_payload_and_only_who_is_named_erases_it() {
    let policy = "rules:
  - {user: 65534, actions: ['*']}
  - {user: 0, actions: [ledger-shred]}
";
    let agent = Agent::start(policy);
    let mut service = agent.client_as(NOBODY, BLOCKHOST);
    let kept = service.call(&example("ledger-blob"));
    assert_eq!(
        (&kept["ok"], &kept["sha256"]),
        (&json!(true), &json!(name()))
    );
    assert_eq!(service.call(&example("ledger-blob"))["ok"], true, "again");
    let records = agent.world.records();
    let record = about(&records, "ledger-blob", "event")[0];
    assert_eq!(record["uid"], NOBODY);
    assert_eq!(record["plugin_id"], "ledger");
    assert_eq!(record["metadata"]["blob"]["sha256"], name());
    assert!(!record.to_string().contains("ciphertext"), "{record}");
    assert_eq!(verified(&agent.world).blobs, 1);

    let refused = service.call(&example("ledger-shred"));
    assert_eq!(
        refused["code"], "forbidden",
        "a pattern permits it: {refused}"
    );
    assert!(file(&agent.world).exists());
    assert_eq!(
        agent.client().call(&example("ledger-blob"))["code"],
        "forbidden"
    );

    let shredded = agent.client().call(&example("ledger-shred"));
    assert_eq!(shredded["ok"], true, "{shredded}");
    assert!(!file(&agent.world).exists());
    let again = agent.client().call(&example("ledger-shred"));
    assert_eq!(again["code"], "conflict", "{again}");
    let back = service.call(&example("ledger-blob"));
    assert_eq!(back["code"], "conflict", "{back}");
    let report = verified(&agent.world);
    assert_eq!((report.blobs, report.shredded), (0, 1));
    let records = agent.world.records();
    let shreds = about(&records, "ledger-shred", "shred");
    assert_eq!(shreds.len(), 1);
    assert_eq!(
        shreds[0]["metadata"]["reason"],
        example("ledger-shred")["params"]["reason"]
    );
    assert_eq!(about(&records, "ledger-shred", "intent").len(), 2);
    assert_eq!(about(&records, "ledger-shred", "outcome").len(), 2);
}

#[test]
fn a_service_cannot_fill_the_disk_with_payloads() {
    let agent = Agent::start("limits: {ledger_blobs: 0}\n");
    let refused = agent.client().call(&example("ledger-blob"));
    assert_eq!(refused["code"], "failed", "{refused}");
    assert!(
        refused["error"].to_string().contains("limits.ledger_blobs"),
        "{refused}"
    );
    agent.world.write_policy("limits: {ledger_blobs: 1}\n");
    agent.signal(Signal::HUP);
    let taken = wait_for(|| {
        let answer = agent.client().call(&example("ledger-blob"));
        (answer["ok"] == true).then_some(answer)
    });
    assert_eq!(taken["sha256"], name());
}

/// One life that is killed at a step of `request`, and the next one, when it is ready.
fn interrupted(world: World, point: &str, request: &Value, whole: bool) -> Agent {
    let armed = world.layout.root().join("fail-point");
    let action = request["action"].as_str().expect("a name");
    std::fs::write(&armed, format!("ledger stop {point} {action}")).expect("written");
    let mut agent = Agent::start_in(world);
    let reached = format!("fail point {point} reached");
    let before = agent.world.log().matches(&reached).count();
    agent.client().request(request);
    wait_for(|| (agent.world.log().matches(&reached).count() > before).then_some(()));
    if whole {
        signal_process(agent.supervisor(), Signal::KILL);
        agent.wait();
        return Agent::start_in(agent.into_world());
    }
    let old = agent.pid("ledger").expect("the ledger");
    signal_process(old, Signal::KILL);
    agent.wait_for_new("ledger", old);
    agent.wait_until_ready();
    agent
}

#[test]
fn killed_at_any_step_a_payload_has_its_record_or_is_not_there() {
    for (point, whole) in [
        ("gate-heard", false),
        ("gate-payload-kept", true),
        ("gate-payload-kept", false),
        ("ledger-event-writing", true),
        ("ledger-event-half", false),
        ("ledger-event-written", true),
        ("ledger-event-synced", false),
    ] {
        let agent = interrupted(World::new(""), point, &example("ledger-blob"), whole);
        let records = agent.world.records();
        let recorded = !about(&records, "ledger-blob", "event").is_empty();
        // The new life of the ledger sweeps before it works.
        wait_for(|| (file(&agent.world).exists() == recorded).then_some(()));
        let report = verified(&agent.world);
        assert_eq!(report.blobs, u64::from(recorded), "{point}");
        let again = agent.client().call(&example("ledger-blob"));
        assert_eq!(again["ok"], true, "{point}: {again}");
        assert_eq!(verified(&agent.world).blobs, 1, "{point}");
    }
}

#[test]
fn killed_at_any_step_an_erasure_that_was_begun_is_finished() {
    for (point, begun, whole) in [
        ("gate-heard", false, true),
        ("ledger-intent-writing", false, false),
        ("ledger-intent-half", false, true),
        ("ledger-intent-synced", true, false),
        ("gate-recorded", true, true),
        ("gate-finished", true, false),
        ("gate-finished", true, true),
        ("ledger-shred-writing", true, false),
        ("ledger-shred-half", true, true),
        ("ledger-shred-synced", true, false),
        ("ledger-outcome-half", true, false),
        ("gate-answering", true, true),
    ] {
        let mut agent = Agent::start("");
        let kept = agent.client().call(&example("ledger-blob"));
        assert_eq!(kept["ok"], true, "{kept}");
        agent.stop();
        let agent = interrupted(agent.into_world(), point, &example("ledger-shred"), whole);
        let records = wait_for(|| {
            let records = agent.world.records();
            let closed = about(&records, "ledger-shred", "outcome").len();
            (about(&records, "ledger-shred", "intent").len() == closed).then_some(records)
        });
        let shreds = about(&records, "ledger-shred", "shred").len();
        assert_eq!(shreds, usize::from(begun), "{point}");
        assert_eq!(file(&agent.world).exists(), !begun, "{point}");
        let report = verified(&agent.world);
        assert_eq!(report.shredded, u64::from(begun), "{point}");
        let again = agent.client().call(&example("ledger-shred"));
        let expected = if begun { &again["code"] } else { &again["ok"] };
        let wanted = if begun {
            json!("conflict")
        } else {
            json!(true)
        };
        assert_eq!(*expected, wanted, "{point}: {again}");
    }
}

#[test]
fn an_erasure_that_may_be_on_record_after_a_failed_sync_is_not_called_off() {
    let mut agent = Agent::start("");
    let kept = agent.client().call(&example("ledger-blob"));
    assert_eq!(kept["ok"], true, "{kept}");
    agent.stop();
    let world = agent.into_world();
    let armed = world.layout.root().join("fail-point");
    std::fs::write(&armed, "ledger refuse ledger-sync").expect("written");
    let mut agent = Agent::start_in(world);
    let answer = agent.client().call(&example("ledger-shred"));
    assert_eq!(answer["code"], "failed", "{answer}");
    let text = answer["error"].as_str().expect("text");
    assert!(text.contains("erases it if"), "{text}");
    assert!(file(&agent.world).exists(), "nothing was erased unrecorded");
    let old = agent.pid("ledger").expect("the ledger");
    signal_process(old, Signal::KILL);
    agent.wait_for_new("ledger", old);
    agent.wait_until_ready();
    // Nothing took the written pages away, so it is on record here.
    wait_for(|| (!file(&agent.world).exists()).then_some(()));
    wait_for(|| {
        (about(&agent.world.records(), "ledger-shred", "outcome").len() == 1).then_some(())
    });
    assert_eq!(verified(&agent.world).shredded, 1);
}

/// An agent whose ledger stops for good at that point, in whichever thread it is reached.
fn stopping_at(point: &str) -> (Agent, String) {
    let world = World::new("");
    let armed = world.layout.root().join("fail-point");
    std::fs::write(armed, format!("ledger stop {point}")).expect("written");
    (
        Agent::start_in(world),
        format!("fail point {point} reached"),
    )
}

fn append(n: u64) -> Value {
    json!({"action": "ledger-append", "params": {"category": "chain", "action": "e", "data": {"n": n}}})
}

#[test]
fn a_disk_that_is_slow_with_derived_files_or_payloads_holds_up_nobody_else() {
    let (agent, reached) = stopping_at("publish-writing");
    assert_eq!(agent.client().call(&append(0))["ok"], true);
    wait_for(|| agent.world.log().contains(&reached).then_some(()));
    for n in 1..50 {
        assert_eq!(agent.client().call(&append(n))["ok"], true);
    }
    assert_eq!(about(&agent.world.records(), "e", "event").len(), 50);

    let (mut agent, reached) = stopping_at("blob-writing");
    let mut waiting = agent.client();
    waiting.request(&example("ledger-blob"));
    wait_for(|| agent.world.log().contains(&reached).then_some(()));
    for n in 0..50 {
        assert_eq!(agent.client().call(&append(n))["ok"], true);
    }
    // What is not durable has no record.
    signal_process(agent.supervisor(), Signal::KILL);
    agent.wait();
    let agent = Agent::start_in(agent.into_world());
    let records = agent.world.records();
    assert_eq!(about(&records, "e", "event").len(), 50);
    assert!(about(&records, "ledger-blob", "event").is_empty());
    assert_eq!(agent.client().call(&example("ledger-blob"))["ok"], true);
    assert_eq!(verified(&agent.world).blobs, 1);
}
