//! Pruning: payloads of old segments go, and nothing that could be proved before cannot be proved after. What is gone
//! without a record that says so is damage, and what is interrupted is finished.

mod broken;
#[path = "../common/mod.rs"]
mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::epochs::By;
use blockhost_ledger::export::{to_blocks, to_c2sp, to_jsonl};
use blockhost_ledger::follow::Follower;
use blockhost_ledger::keys::{Signer, Signers};
use blockhost_ledger::merkle::{hex, leaf_hash};
use blockhost_ledger::proof::verify_proof;
use blockhost_ledger::prune::{Order, PRUNE, PruneError, Range};
use blockhost_ledger::reader::{ReadError, Reader};
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::segment::{COMMIT, FrameReader, Header, Step};
use blockhost_ledger::writer::{OpenError, Options, Recovery, Writer};
use common::{World, draft, signer, small};
use serde_json::json;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

/// Segments of two whole blocks.
const SEGMENT: u64 = 512;
const ALL: Order = Order {
    before: u64::MAX,
    kept: Duration::ZERO,
};
const DAY: Duration = Duration::from_secs(24 * 3600);

fn second() -> Signer {
    Signer::from_bytes(common::NAME, 2, &[43; 32]).expect("valid name")
}

fn try_open(dir: &Path) -> Result<(Writer, Recovery), OpenError> {
    let options = Options {
        segment_records: SEGMENT,
        ..small()
    };
    let signers: Signers = signer().into();
    Writer::open(LedgerDir::open(dir)?, signers, "host", options)
}

fn open(world: &World) -> (Writer, Recovery) {
    try_open(world.path()).expect("opens")
}

fn reader(world: &World) -> Reader {
    Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads")
}

fn heading() -> Draft {
    Draft {
        action: PRUNE.to_owned(),
        plugin_id: "ledger".to_owned(),
        ..draft(Phase::Intent, "prune1")
    }
}

/// What a start must know about a payload and an anchor of the oldest segment, an intent that stays open, and records.
fn drafts(records: usize) -> Vec<Draft> {
    let blob = |n: usize| Draft {
        action: "ledger-blob".to_owned(),
        plugin_id: "ledger".to_owned(),
        metadata: json!({"blob": {"bytes": 5, "sha256": hex(&[7; 32])}, "event": "kept"})
            .as_object()
            .expect("an object")
            .clone(),
        ..draft(Phase::Event, &format!("blob{n}"))
    };
    (0..records)
        .map(|n| match n {
            3 => draft(Phase::Intent, "still-open"),
            5 => draft(Phase::Anchor, ""),
            9 => blob(n),
            n => draft(Phase::Event, &format!("e{n}")),
        })
        .collect()
}

/// A published ledger of three sealed segments and a part of one.
fn ledger() -> (World, Writer) {
    let world = World::new();
    let (mut writer, _) = open(&world);
    for batch in drafts(1700).chunks(64) {
        writer.append(batch).expect("appended");
    }
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    writer.publish().expect("published");
    (world, writer)
}

fn age(world: &World) {
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    world.age();
    let seg = world.path().join("seg");
    let names = std::fs::read_dir(&seg).expect("listed");
    for path in names.map(|entry| entry.expect("entry").path()).chain([seg]) {
        let file = std::fs::File::open(path).expect("opens");
        file.set_modified(old).expect("owner");
    }
}

#[test]
fn what_is_pruned_is_gone_and_every_proof_stays() {
    let (world, mut writer) = ledger();
    let before = reader(&world);
    let records: Vec<Vec<u8>> = before.records(0).map(|one| one.expect("read").1).collect();
    let old_head = before.head().expect("head");
    let proofs = [0, 511, 512, 1699].map(|index| before.prove(index, false).expect("proved"));
    let (pruned, appended) = writer.prune(&heading(), ALL).expect("pruned");
    assert_eq!((pruned.first_height, pruned.last_height()), (1, 512));
    assert_eq!((pruned.by, appended.height), (1701, 1701));
    assert!(!world.path().join("seg/000000000000.zst").exists());
    assert!(world.path().join("seg/000000000512.zst").exists());
    for (id, there) in [(1, false), (2, false), (3, true)] {
        let file = format!("blockchain/block_{id:010}.json");
        assert_eq!(world.path().join(file).exists(), there, "block {id}");
    }
    writer.publish().expect("published");

    let after = reader(&world);
    assert!(matches!(
        after.get(0),
        Err(ReadError::Pruned {
            height: 1,
            by: 1701
        })
    ));
    assert!(matches!(
        after.prove(0, true),
        Err(ReadError::Pruned { .. })
    ));
    let range = Range {
        first: 1,
        last: 512,
        by: 1701,
    };
    assert_eq!(after.pruned(), [range]);
    // What a start needs, and what says that something was anchored, is kept; everything behind is as it was.
    let kept: Vec<u64> = after.records(0).map(|one| one.expect("read").0).collect();
    let expected: Vec<u64> = [3, 5, 9].into_iter().chain(512..1701).collect();
    assert_eq!(kept, expected);
    for index in [3_usize, 5, 9, 512, 1699] {
        assert_eq!(after.get(index as u64).expect("read"), records[index]);
    }
    for (index, record) in records.iter().enumerate() {
        assert_eq!(after.leaf(index as u64), Some(leaf_hash(record)));
    }
    for (index, old) in [0_u64, 511, 512, 1699].into_iter().zip(proofs) {
        let at = usize::try_from(index).expect("small");
        let proof = after.prove(index, false).expect("proved");
        // Whoever kept the record can still prove that it was there, with the old proof and with a new one.
        for proof in [&proof, &old] {
            verify_proof(proof, Some(&records[at]), signer().vkey()).expect("verifies");
        }
    }
    let leaves = after.leaves(0, 1701).expect("there");
    assert_eq!(
        Some(after.prove_growth(old_head.size, 1701).expect("proved")),
        blockhost_ledger::consistency::consistency_proof(&leaves, 1700)
    );
    let report = world.verify_with(Some(signer()), Some(old_head.note));
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert!(report.problems[0].place.starts_with("blobs/"), "{report:?}");
    assert_eq!((report.records, report.pruned.len()), (1701, 1));
    assert_eq!(report.blocks, 5);
    assert!(report.notes.iter().any(|note| note.contains("1 to 512")));
}

/// What the verifier that shares no code with this one says; `None` where there is no Python.
#[expect(
    clippy::disallowed_methods,
    reason = "another program's opinion is wanted"
)]
fn others_say(world: &World) -> Option<(bool, String)> {
    let program = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/verifier/blockhost-ledger-verify.py"
    );
    let key = signer().vkey().to_string();
    let output = std::process::Command::new("python3")
        .args([program, "--key", &key, "--json"])
        .arg(world.path())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: python3 is not installed");
        return None;
    };
    let text = String::from_utf8(output.stdout).expect("text");
    Some((output.status.success(), text))
}

#[test]
fn the_independent_verifier_judges_alike() {
    let (world, mut writer) = ledger();
    writer.prune(&heading(), ALL).expect("pruned");
    writer.publish().expect("published");
    drop(writer);
    let Some((good, text)) = others_say(&world) else {
        return;
    };
    assert!(good, "{text}");
    assert!(text.contains("records 1 to 512 were pruned"), "{text}");
    let segments = world.path().join("seg");
    let kept = segments.join("000000000000.kept");
    let right = std::fs::read(&kept).expect("read");
    for bad in [&right[..right.len() - 1], b"", b"{}\n"] {
        std::fs::write(&kept, bad).expect("written");
        let said = others_say(&world);
        assert!(said.is_some_and(|(good, _)| !good), "a wrong .kept");
    }
    std::fs::write(&kept, &right).expect("written");
    std::fs::remove_file(segments.join("000000000512.zst")).expect("removed");
    std::fs::write(segments.join("000000000512.kept"), b"").expect("written");
    let said = others_say(&world);
    assert!(said.is_some_and(|(good, text)| !good && text.contains("000000000512.zst is missing")));
}

#[test]
fn a_record_that_nobody_signed_says_nothing_about_what_is_gone() {
    let (world, mut writer) = ledger();
    writer.prune(&heading(), ALL).expect("pruned");
    drop(writer);
    world.forget_published();
    assert!(others_say(&world).is_none_or(|(good, _)| good));
    // The record of the pruning stays, the commit behind it goes: anybody can write such a one.
    let log = world.path().join("seg/000000001536.log");
    let mut bytes = std::fs::read(&log).expect("read");
    let header = Header::decode(bytes[..64].try_into().expect("64 bytes")).expect("a header");
    let file = std::fs::File::open(&log).expect("opens");
    let mut frames = FrameReader::new(file.as_fd(), "segment", header.salt);
    let mut last = None;
    while let Step::Frame { offset, kind, .. } = frames.next_frame().expect("readable") {
        if kind == COMMIT {
            last = Some(usize::try_from(offset).expect("small"));
        }
    }
    bytes[last.expect("a commit")..].fill(0);
    std::fs::write(&log, &bytes).expect("written");
    age(&world);
    let report = world.verify();
    assert_eq!(report.problems[0].height, Some(1), "{report:?}");
    let said = others_say(&world);
    assert!(
        said.is_none_or(|(good, _)| !good),
        "the other one believed it"
    );
}

#[test]
fn a_start_knows_what_it_knew_and_nothing_comes_back() {
    let (world, mut writer) = ledger();
    drop(writer);
    let (again, before) = open(&world);
    writer = again;
    writer.prune(&heading(), ALL).expect("pruned");
    writer.prune(&heading(), ALL).expect("pruned");
    drop(writer);
    let (mut writer, after) = open(&world);
    let by: Vec<u64> = after.prunes.iter().map(|pruned| pruned.by).collect();
    assert_eq!(by, [1701, 1702]);
    let known = Recovery {
        prunes: Vec::new(),
        ..after.clone()
    };
    assert_eq!(known, before);
    assert_eq!(after.open_intents[0].op_id, "still-open");
    assert_eq!(after.blobs.kept(), (1, 5));
    // The newest sealed segment is not pruned, and none is pruned twice.
    let refused = writer.prune(&heading(), ALL);
    assert!(matches!(refused, Err(PruneError::Nothing { .. })));
    writer.publish().expect("published");
    assert!(
        !world
            .path()
            .join("blockchain/block_0000000001.json")
            .exists()
    );
    let by = 1702;
    let pruned = [Range {
        first: 1,
        last: 1024,
        by,
    }];
    assert_eq!(world.verify().pruned, pruned);
    // Records about prunings are themselves kept when their segment is pruned.
    for batch in drafts(1400).chunks(64) {
        writer.append(batch).expect("appended");
    }
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    for _ in 0..3 {
        writer.prune(&heading(), ALL).expect("pruned");
    }
    assert_eq!(reader(&world).pruned()[0].last, 512 * 5);
    drop(writer);
    open(&world);
    let notes = world.verify();
    assert!(
        notes
            .problems
            .iter()
            .all(|one| one.place.starts_with("blobs/"))
    );
}

#[test]
fn only_what_is_old_and_below_the_height_is_pruned() {
    let (world, mut writer) = ledger();
    let young = Order {
        before: 10_000,
        kept: DAY,
    };
    let refused = writer.prune(&heading(), young).expect_err("refused");
    assert!(refused.to_string().contains("limits.ledger_retention_days"));
    for before in [0, 1, 512] {
        let order = Order { before, ..ALL };
        let refused = writer.prune(&heading(), order);
        assert!(
            matches!(refused, Err(PruneError::Nothing { .. })),
            "{before}"
        );
    }
    assert_eq!(writer.head().size, 1700, "nothing was recorded either");
    let order = Order { before: 513, ..ALL };
    writer.prune(&heading(), order).expect("pruned");
    assert!(writer.prune(&heading(), order).is_err());
    // A damaged one is evidence.
    let path = world.path().join("seg/000000000512.zst");
    let mut bytes = std::fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let refused = writer.prune(&heading(), ALL);
    assert!(
        matches!(refused, Err(PruneError::Damaged(..))),
        "{refused:?}"
    );
    assert!(path.exists());
}

#[test]
fn keys_of_a_pruned_segment_are_followed_without_its_records() {
    let world = World::new();
    let (mut writer, _) = open(&world);
    writer.append(&drafts(30)).expect("appended");
    writer.rotate(second(), &By::default()).expect("rotated");
    for batch in drafts(1500).chunks(64) {
        writer.append(batch).expect("appended");
    }
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    writer.publish().expect("published");
    let heads = writer.epochs().list().len();
    writer.prune(&heading(), ALL).expect("pruned");
    let reader = reader(&world);
    assert_eq!(reader.epochs().expect("keys").list().len(), heads);
    let report = world.verify();
    assert!(
        report
            .problems
            .iter()
            .all(|one| one.place.starts_with("blobs/")),
        "{report:?}"
    );
    assert_eq!(report.epochs.len(), 2);
}

#[test]
fn exports_and_followers_pass_over_what_is_gone() {
    let (world, mut writer) = ledger();
    writer.prune(&heading(), ALL).expect("pruned");
    writer.publish().expect("published");
    let reader = reader(&world);
    let quiet = &mut |_, _| {};
    let target = tempfile::tempdir().expect("temp dir");
    let dir = || LedgerDir::open(target.path()).expect("opens");
    let done = to_c2sp(&reader, &dir(), None, quiet).expect("exported");
    assert_eq!((done.records, done.pruned), (1701, 512));
    assert!(target.path().join("tile/0/001").exists());
    assert!(!target.path().join("tile/entries/001").exists());
    assert!(target.path().join("tile/entries/002").exists());
    let blocks = tempfile::tempdir().expect("temp dir");
    let done = to_blocks(
        &reader,
        &LedgerDir::open(blocks.path()).expect("opens"),
        quiet,
    );
    assert_eq!(done.expect("exported").pruned, 512);
    for name in [
        "index.json",
        "block_0000000003.json",
        "block_0000000007.json",
    ] {
        let ours = std::fs::read(world.path().join("blockchain").join(name)).expect("read");
        let theirs = std::fs::read(blocks.path().join(name)).expect("read");
        if name == "index.json" {
            assert_eq!(ours, theirs);
        }
        let head = |bytes: &[u8]| bytes.split(|b| *b == b'\n').next().map(<[u8]>::to_vec);
        assert_eq!(head(&ours), head(&theirs), "{name}");
    }
    let mut lines = Vec::new();
    let done = to_jsonl(&reader, &mut lines, quiet).expect("exported");
    assert_eq!(done.pruned, 509);
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 1192);
    let mut seen = 0;
    let ledger = LedgerDir::open(world.path()).expect("opens");
    let follower = Follower::open(ledger, None, &mut |_, _, _| seen += 1).expect("follows");
    assert_eq!(seen, 1192);
    assert_eq!(follower.root(), reader.head().expect("head").root);
}

#[test]
fn who_reads_while_it_is_pruned_misses_nothing_unsaid() {
    let (world, mut writer) = ledger();
    let zst = world.path().join("seg/000000000000.zst");
    let before = reader(&world);
    let bytes = std::fs::read(&zst).expect("read");
    writer.prune(&heading(), ALL).expect("pruned");
    // Opened before there was a record: what is gone is no record that may be left out.
    let gone = before.get(0).expect_err("gone");
    assert!(
        matches!(gone, ReadError::Changed { height: 1, .. }),
        "{gone}"
    );
    assert!(before.records(0).any(|record| record.is_err()));
    // Opened between the record and the deletion.
    std::fs::write(&zst, &bytes).expect("put back");
    let between = reader(&world);
    assert_eq!(between.records(0).count(), 1701);
    let between = reader(&world);
    std::fs::remove_file(&zst).expect("removed");
    let gone = between.get(0);
    assert!(
        matches!(gone, Err(ReadError::Pruned { by: 1701, .. })),
        "{gone:?}"
    );
    let left = between.records(0).map(|record| record.expect("read").0);
    let expected: Vec<u64> = [3, 5, 9].into_iter().chain(512..1701).collect();
    assert_eq!(left.collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_left_is_counted_by_names_and_by_the_times_of_blocks() {
    let world = World::new();
    let (mut writer, _) = open(&world);
    for batch in drafts(8 * 512 + 20).chunks(64) {
        writer.append(batch).expect("appended");
    }
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    let left = |writer: &Writer, before: u64, kept: Duration| {
        let order = Order { before, kept };
        writer.prunable(order).expect("counted")
    };
    // The newest sealed one stays, and one that reaches the height, too.
    assert_eq!(left(&writer, u64::MAX, Duration::ZERO), 7);
    assert_eq!(left(&writer, 3 * SEGMENT + 1, Duration::ZERO), 3);
    assert_eq!(left(&writer, 3 * SEGMENT, Duration::ZERO), 2);
    assert_eq!(left(&writer, u64::MAX, DAY), 0);
    writer.prune(&heading(), ALL).expect("pruned");
    assert_eq!(left(&writer, u64::MAX, Duration::ZERO), 6);
    // What is not looked into may be whatever it is.
    for first in [512, 1024, 2048] {
        std::fs::write(world.path().join(format!("seg/{first:012}.hsh")), "x").expect("written");
    }
    assert_eq!(left(&writer, u64::MAX, Duration::ZERO), 6);
}
