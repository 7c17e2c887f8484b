//! `verify --features`: what stands in block files beside the records is what a replay of the records gives, or is named.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::prune::{Order, PRUNE};
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::verify::{Trust, VerifyReport, verify, verify_features};
use blockhost_ledger::writer::{Options, Writer};
use common::{World, draft, signer, small};
use std::path::PathBuf;

/// A published ledger of two whole blocks and a part of one.
fn ledger() -> World {
    let world = World::new();
    let (mut writer, _) = world.open();
    for batch in 0..6 {
        let drafts: Vec<_> = (0..100)
            .map(|n| draft(Phase::Event, &format!("op{batch}.{n}")))
            .collect();
        writer.append(&drafts).expect("appended");
    }
    writer.publish().expect("published");
    drop(writer);
    world
}

fn block(world: &World, number: u32) -> PathBuf {
    world
        .path()
        .join(format!("blockchain/block_{number:010}.json"))
}

fn check(world: &World) -> VerifyReport {
    let ledger = LedgerDir::open(world.path()).expect("opens");
    let trust = Trust {
        key: Some(signer().vkey().clone()),
        ..Trust::default()
    };
    let mut report = verify(&ledger, &trust, &mut |_, _| {}).expect("readable");
    assert!(report.ok, "without a replay: {report:?}");
    verify_features(&ledger, &mut report, &mut |_, _| {}).expect("readable");
    report
}

/// Changes line `line` of a block file; the first record's is 1.
fn edit(world: &World, number: u32, line: usize, change: impl Fn(&str) -> String) {
    let file = block(world, number);
    let text = std::fs::read_to_string(&file).expect("read");
    let lines: Vec<String> = text
        .split('\n')
        .enumerate()
        .map(|(at, text)| match at == line {
            true => change(text),
            false => text.to_owned(),
        })
        .collect();
    let changed = lines.join("\n");
    assert_ne!(changed, text);
    std::fs::write(&file, changed).expect("write");
    world.age();
}

#[test]
fn the_features_of_a_sound_ledger_are_those_of_a_replay_whoever_wrote_them_when() {
    let world = ledger();
    let report = check(&world);
    assert!(report.ok && report.notes.is_empty(), "{report:?}");
    assert_eq!(report.features, Some(600));
    // Written again by another process, a part of it from the middle.
    std::fs::remove_file(block(&world, 2)).expect("removed");
    let (mut writer, _) = world.open();
    writer
        .append(&[draft(Phase::Event, "more")])
        .expect("appended");
    writer.publish().expect("published");
    let report = check(&world);
    assert!(report.ok, "{report:?}");
    assert_eq!(report.features, Some(601));
}

#[test]
fn altered_features_are_found_and_the_block_and_the_record_named() {
    let world = ledger();
    edit(&world, 2, 40, |line| {
        let (record, features) = line.split_once(",\"vector_features\":[").expect("features");
        let (first, rest) = features.split_once(',').expect("a list");
        let other = if first == "0.5" { "0.25" } else { "0.5" };
        format!("{record},\"vector_features\":[{other},{rest}")
    });
    let report = check(&world);
    assert!(!report.ok);
    let [problem] = report.problems.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(problem.height, Some(296));
    assert_eq!(problem.place, "blockchain/block_0000000002.json");
    assert!(
        problem.what.starts_with("feature 0 of the record (")
            && problem.what.contains("is 0.5 here"),
        "{}",
        problem.what
    );
    assert_eq!(
        report.features,
        Some(256 + 40 + 88),
        "up to the first in a block"
    );
}

#[test]
fn features_that_were_exchanged_between_records_or_taken_from_one_are_found() {
    let world = ledger();
    edit(&world, 1, 7, |line| {
        let (record, _) = line.split_once(",\"vector_features\":[").expect("features");
        format!("{record}}},")
    });
    edit(&world, 3, 88, |line| {
        // The last record of all gets what belongs to the first one.
        let (record, _) = line.split_once(",\"vector_features\":[").expect("features");
        let text = std::fs::read_to_string(block(&world, 1)).expect("read");
        let first = text.lines().nth(1).expect("a record");
        let (_, features) = first
            .split_once(",\"vector_features\":[")
            .expect("features");
        let features = features.strip_suffix(',').expect("more follow");
        format!("{record},\"vector_features\":[{features}")
    });
    let report = check(&world);
    let found: Vec<_> = report
        .problems
        .iter()
        .map(|problem| (problem.height, problem.place.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (Some(7), "blockchain/block_0000000001.json"),
            (Some(600), "blockchain/block_0000000003.json"),
        ],
        "{report:?}"
    );
    assert!(report.problems[0].what.contains("has no features here"));
}

#[test]
fn a_block_of_before_there_were_features_is_a_note_and_a_damaged_ledger_is_not_replayed() {
    let world = ledger();
    let file = block(&world, 1);
    let text = std::fs::read(&file).expect("read");
    let without = blockhost_ledger::blocks::without_features(&text);
    std::fs::write(&file, without).expect("write");
    world.age();
    let report = check(&world);
    assert!(report.ok, "{report:?}");
    assert_eq!(report.features, Some(344));
    assert!(report.notes[0].starts_with("1 block file(s) have no features"));

    let mut bytes = world.bytes();
    bytes[2000] ^= 1;
    world.put(&bytes);
    let mut report = world.verify();
    let problems = report.problems.clone();
    let ledger = LedgerDir::open(world.path()).expect("opens");
    verify_features(&ledger, &mut report, &mut |_, _| {}).expect("readable");
    assert_eq!((report.features, &report.problems), (None, &problems));
    assert!(!report.ok);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("were not compared"))
    );
}

#[test]
fn features_that_rest_on_pruned_records_are_a_note() {
    let world = World::new();
    let options = Options {
        segment_records: 512,
        ..small()
    };
    let ledger = LedgerDir::open(world.path()).expect("opens");
    let (mut writer, _) = Writer::open(ledger, signer(), "host", options).expect("opens");
    for _ in 0..12 {
        let drafts = vec![draft(Phase::Event, "op"); 100];
        writer.append(&drafts).expect("appended");
    }
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    writer.publish().expect("published");
    let report = check(&world);
    assert_eq!(
        (report.ok, report.features),
        (true, Some(1200)),
        "{report:?}"
    );
    let all = Order {
        before: u64::MAX,
        kept: std::time::Duration::ZERO,
    };
    let heading = Draft {
        action: PRUNE.to_owned(),
        plugin_id: "ledger".to_owned(),
        ..draft(Phase::Intent, "prune")
    };
    writer.prune(&heading, all).expect("pruned");
    writer.publish().expect("published");
    let report = check(&world);
    assert_eq!((report.ok, report.features), (true, Some(0)), "{report:?}");
    let rest = "rest on records 1 to 512, whose payloads were pruned";
    assert!(
        report.notes.iter().any(|note| note.contains(rest)),
        "{report:?}"
    );
}
