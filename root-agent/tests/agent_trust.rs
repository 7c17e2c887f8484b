//! New signing keys and cosignatures through the whole agent: who may, what is left of the old key, kill -9 of the whole
//! agent at every step of a rotation, and which witnesses count.

mod common;

use std::path::Path;

use blockhost_ledger::cosign::Cosigner;
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::note::{Vkey, parse_vkeys};
use blockhost_ledger::verify::{Trust, VerifyReport, verify};
use common::{Agent, BLOCKHOST, World, signal_process, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

const NOBODY: u32 = 65_534;

fn rotate() -> Value {
    json!({"action": "ledger-rotate-key"})
}

fn event() -> Value {
    json!({"action": "ledger-append", "params": {"category": "chain", "action": "x", "data": {}}})
}

/// The key that an operator has taken away at the beginning.
fn first_key(world: &World) -> Vkey {
    let file = world.layout.ledger().join("vkey");
    let text = std::fs::read_to_string(file).expect("published");
    parse_vkeys(&text).expect("keys").remove(0)
}

fn verified(world: &World, first: &Vkey) -> VerifyReport {
    let directory = LedgerDir::open(&world.layout.ledger()).expect("the ledger");
    let trust = Trust {
        key: Some(first.clone()),
        ..Trust::default()
    };
    let report = verify(&directory, &trust, &mut |_, _| ()).expect("readable");
    assert!(report.ok, "{:?}", report.problems);
    report
}

fn keys(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.layout.ledger_keys()).expect("lists");
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[test]
fn root_begins_an_epoch_the_old_key_is_gone_and_the_log_verifies_from_the_first() {
    let agent = Agent::start("");
    let first = first_key(&agent.world);
    assert_eq!(agent.client().call(&event())["ok"], true);
    let answer = agent.client().call(&rotate());
    assert_eq!(
        (&answer["ok"], &answer["epoch"]),
        (&json!(true), &json!(2)),
        "{answer}"
    );
    wait_for(|| (keys(&agent.world) == ["epoch-2.key", "first.vkey"]).then_some(()));
    assert_eq!(agent.client().call(&event())["ok"], true);
    assert_eq!(agent.client().call(&rotate())["epoch"], 3);
    wait_for(|| (keys(&agent.world) == ["epoch-3.key", "first.vkey"]).then_some(()));
    // The next life finds the key of its epoch, and the keys' list is published.
    let agent = Agent::start_in(agent.into_world());
    assert_eq!(agent.client().call(&event())["ok"], true);
    let report = verified(&agent.world, &first);
    let epochs: Vec<_> = report.epochs.iter().map(|e| e.1.clone()).collect();
    let text = std::fs::read_to_string(agent.world.layout.ledger().join("vkey")).expect("there");
    assert_eq!(text.lines().collect::<Vec<_>>(), epochs);
    let records = agent.world.records();
    let begun = records.iter().filter(|r| r["phase"] == "epoch");
    let by: Vec<_> = begun
        .map(|r| (r["uid"].clone(), r["metadata"]["epoch"].clone()))
        .collect();
    assert_eq!(by, [(json!(0), json!(2)), (json!(0), json!(3))]);
    assert!(!agent.world.log().contains("PRIVATE"));
}

#[test]
fn a_service_with_every_right_begins_no_epoch() {
    let agent = Agent::start("rules:\n  - {user: 65534, actions: ['*', 'ledger-*']}\n");
    let answer = agent.client_as(NOBODY, BLOCKHOST).call(&rotate());
    assert_eq!(answer["code"], "forbidden", "{answer}");
    assert_eq!(keys(&agent.world), ["epoch-1.key"]);
}

#[test]
fn killed_at_any_step_of_a_rotation_one_key_signs_on_and_the_log_verifies() {
    for (point, begun) in [
        ("gate-heard", false),
        ("ledger-epoch-writing", false),
        ("ledger-epoch-half", false),
        ("ledger-epoch-synced", true),
        ("ledger-epoch-recorded", true),
    ] {
        let mut agent = Agent::start("");
        let first = first_key(&agent.world);
        agent.stop();
        let world = agent.into_world();
        std::fs::write(
            world.layout.root().join("fail-point"),
            format!("ledger stop {point}\n"),
        )
        .expect("armed");
        let mut agent = Agent::start_in(world);
        agent.client().request(&rotate());
        wait_for(|| {
            agent
                .world
                .log()
                .contains(&format!("{point} reached"))
                .then_some(())
        });
        signal_process(agent.supervisor(), Signal::KILL);
        agent.wait();
        let agent = Agent::start_in(agent.into_world());
        assert_eq!(agent.client().call(&event())["ok"], true, "{point}");
        let report = verified(&agent.world, &first);
        assert_eq!(report.epochs.len(), if begun { 2 } else { 1 }, "{point}");
        let answer = agent.client().call(&rotate());
        let next = if begun { 3 } else { 2 };
        assert_eq!(answer["epoch"], next, "{point}: {answer}");
        let left = format!("epoch-{next}.key");
        wait_for(|| (keys(&agent.world) == [left.as_str(), "first.vkey"]).then_some(()));
        assert_eq!(agent.client().call(&event())["ok"], true, "{point}");
        verified(&agent.world, &first);
    }
}

fn published(path: &Path) -> String {
    wait_for(|| std::fs::read_to_string(path).ok())
}

#[test]
fn cosignatures_of_the_policys_witnesses_are_published_and_make_no_record() {
    let world = World::new("");
    let (good, stranger) = (
        Cosigner::from_bytes("w.example", &[1; 32]).expect("valid"),
        Cosigner::from_bytes("s.example", &[2; 32]).expect("valid"),
    );
    let policy = format!("witness W {} http://127.0.0.1:1\nquorum W\n", good.key());
    std::fs::write(world.layout.etc().join("ledger-witnesses"), policy).expect("written");
    let agent = Agent::start_in(world);
    assert_eq!(agent.client().call(&event())["ok"], true);
    let ledger = agent.world.layout.ledger();
    let note = wait_for(|| {
        let note = std::fs::read_to_string(ledger.join("checkpoint")).ok()?;
        note.contains("\n1\n").then_some(note)
    });
    let body = note
        .split_once("\n\n")
        .map(|(body, _)| format!("{body}\n"))
        .expect("a note");
    let submit = |lines: &str| {
        let params = json!({"checkpoint": format!("{note}{lines}")});
        agent
            .client()
            .call(&json!({"action": "ledger-cosign", "params": params}))
    };
    let refused = submit(&stranger.cosign(&body, 5));
    assert_eq!(refused["ok"], false, "{refused}");
    let lines = format!("{}{}", stranger.cosign(&body, 5), good.cosign(&body, 7));
    let taken = submit(&lines);
    assert_eq!(
        (&taken["ok"], &taken["witnesses"]),
        (&json!(true), &json!(1)),
        "{taken}"
    );
    for name in ["checkpoint", "cosigned"] {
        let note = published(&ledger.join(name));
        assert!(
            note.contains("w.example") && !note.contains("s.example"),
            "{note}"
        );
    }
    assert_eq!(agent.world.records().len(), 1, "the head did not move");
}

#[test]
fn a_disk_that_is_slow_with_cosignatures_holds_up_nobody_else() {
    let world = World::new("");
    let witness = Cosigner::from_bytes("w.example", &[1; 32]).expect("valid");
    let policy = format!("witness W {} http://127.0.0.1:1\nquorum W\n", witness.key());
    std::fs::write(world.layout.etc().join("ledger-witnesses"), policy).expect("written");
    let mut agent = Agent::start_in(world);
    assert_eq!(agent.client().call(&event())["ok"], true);
    assert!(agent.stop().success());
    let world = agent.into_world();
    let note = published(&world.layout.ledger().join("checkpoint"));
    let (body, _) = note.split_once("\n\n").expect("a note");
    let line = witness.cosign(&format!("{body}\n"), 7);
    let armed = world.layout.root().join("fail-point");
    std::fs::write(armed, "ledger stop publish-writing").expect("written");
    let agent = Agent::start_in(world);
    let mut waiting = agent.client();
    let params = json!({"checkpoint": format!("{note}{line}")});
    waiting.request(&json!({"action": "ledger-cosign", "params": params}));
    let reached = "fail point publish-writing reached";
    wait_for(|| agent.world.log().contains(reached).then_some(()));
    for _ in 0..20 {
        assert_eq!(agent.client().call(&event())["ok"], true);
    }
    // It is answered when it is published, and it never is here.
    let cosigned = agent.world.layout.ledger().join("cosigned");
    assert!(!cosigned.exists());
    signal_process(agent.supervisor(), Signal::KILL);
    assert!(waiting.answer().is_none());
    let mut agent = agent;
    agent.wait();
    let _agent = Agent::start_in(agent.into_world());
    wait_for(|| cosigned.exists().then_some(()));
}
