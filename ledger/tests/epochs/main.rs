//! New signing keys and cosignatures in a real ledger: what verifies from the first key, what a stolen or a current key
//! cannot do, and what is left when the process is killed at any step.

#[path = "../common/mod.rs"]
mod common;
mod cosigned;

use blockhost_ledger::consistency::is_consistent;
use blockhost_ledger::cosign::Cosigner;
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::epochs::By;
use blockhost_ledger::keys::{Signer, Signers, erase_before, prepare_next};
use blockhost_ledger::merkle::{Frontier, leaf_hash};
use blockhost_ledger::note::{Vkey, parse_vkeys};
use blockhost_ledger::policy::Policy;
use blockhost_ledger::reader::Reader;
use blockhost_ledger::record::Phase;
use blockhost_ledger::segment::{COMMIT, COSIGNATURE, Commit, RECORD};
use blockhost_ledger::trust::{CosignError, RotateError};
use blockhost_ledger::verify::{Trust, VerifyReport, verify};
use blockhost_ledger::writer::{OpenError, Writer};
use common::{NAME, World, draft, signer, small};
use std::path::Path;

fn key(epoch: u32) -> Signer {
    if epoch == 1 {
        return signer();
    }
    let byte = 100 + u8::try_from(epoch).expect("small");
    Signer::from_bytes(NAME, epoch, &[byte; 32]).expect("valid")
}

fn append(writer: &mut Writer, op: &str) {
    writer
        .append(&[draft(Phase::Intent, op), draft(Phase::Outcome, op)])
        .expect("appended");
}

/// Three epochs of two records each, and the records that begin the second and the third: 8 records.
fn rotated() -> World {
    let world = World::new();
    let (mut writer, _) = world.open();
    for epoch in 1..=3 {
        if epoch > 1 {
            writer.rotate(key(epoch), &By::default()).expect("rotated");
        }
        append(&mut writer, &format!("op{epoch}"));
        writer.publish().expect("published");
    }
    drop(writer);
    world
}

fn check(world: &World, trust: &Trust) -> VerifyReport {
    let dir = LedgerDir::open(world.path()).expect("opens");
    verify(&dir, trust, &mut |_, _| {}).expect("readable")
}

fn from_first() -> Trust {
    Trust {
        key: Some(key(1).vkey().clone()),
        ..Trust::default()
    }
}

fn first_problem(report: &VerifyReport) -> String {
    let problem = report.problems.first();
    problem.map_or_else(String::new, |p| format!("{:?} {}", p.height, p.what))
}

/// Rewrites the ledger with a change in record `changed` (index), all hashes made right again, each commit signed by
/// what `sign` says: epoch and key.
fn rewrite(world: &World, changed: u64, sign: impl Fn(u32) -> (u32, Signer)) {
    let (header, frames) = world.frames();
    let mut out = Vec::new();
    let mut tree = Frontier::new();
    let mut prev = [0; 32];
    for (_, kind, payload) in frames {
        match kind {
            RECORD => {
                let mut text = String::from_utf8(payload).expect("text");
                let at = text.find("\"prev_hash\":\"").expect("a field") + 13;
                let hex: String = prev.iter().map(|b: &u8| format!("{b:02x}")).collect();
                text.replace_range(at..at + 64, &hex);
                if tree.size() == changed {
                    text = text.replace("\"memory\":2048", "\"memory\":4096");
                }
                prev = leaf_hash(text.as_bytes());
                tree.push(prev);
                out.push((kind, text.into_bytes()));
            }
            COMMIT => {
                let old = Commit::decode(&payload).expect("a commit");
                let (epoch, signer) = sign(old.epoch);
                let commit = Commit {
                    root: tree.root(),
                    epoch,
                    signature: signer.sign_head(tree.size(), tree.root()),
                    ..old
                };
                out.push((kind, commit.encode().to_vec()));
            }
            _ => out.push((kind, payload)),
        }
    }
    world.put_frames(&header, &out);
    world.forget_published();
}

#[test]
fn a_log_of_three_epochs_verifies_from_its_first_key_and_from_no_other() {
    let world = rotated();
    let report = check(&world, &from_first());
    assert!(report.ok, "{report:?}");
    let began: Vec<_> = report
        .epochs
        .iter()
        .map(|epoch| (epoch.0, epoch.2))
        .collect();
    assert_eq!((report.records, began), (8, vec![(1, 0), (2, 3), (3, 6)]));
    let text = std::fs::read_to_string(world.path().join("vkey")).expect("published");
    let keys: Vec<Vkey> = (1..=3).map(|epoch| key(epoch).vkey().clone()).collect();
    assert_eq!(parse_vkeys(&text).expect("keys"), keys, "oldest first");
    let all = Trust {
        later_keys: keys[1..].to_vec(),
        ..from_first()
    };
    assert!(check(&world, &all).ok);
    for epoch in [2, 3] {
        let later = Trust {
            key: Some(key(epoch).vkey().clone()),
            ..Trust::default()
        };
        assert!(!check(&world, &later).ok, "the chain begins with the first");
    }
    // The head carries the signature of the epoch in force, and a proof made now verifies with that key.
    let reader = Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads");
    assert!(
        key(3)
            .vkey()
            .open(&reader.head().expect("a head").note)
            .is_ok()
    );
}

#[test]
fn the_current_key_cannot_alter_what_earlier_epochs_signed() {
    for (changed, what) in [(0, "the first epoch"), (3, "the second epoch")] {
        let world = rotated();
        // Root after two rotations: everything after the change can only be signed with the newest key.
        rewrite(&world, changed, |epoch| (epoch, key(3)));
        let report = check(&world, &from_first());
        assert!(
            first_problem(&report).contains("signature"),
            "{what}: {report:?}"
        );
        let kept = rotated();
        rewrite(&kept, changed, |epoch| {
            if changed > 2 && epoch == 1 {
                (1, key(1))
            } else {
                (epoch, key(3))
            }
        });
        assert!(!check(&kept, &from_first()).ok, "{what}");
    }
    // The epoch of the key itself can be rewritten; that is what checkpoints and witnesses are for.
    let world = rotated();
    let kept = std::fs::read_to_string(world.path().join("checkpoint")).expect("published");
    rewrite(&world, 7, |epoch| (epoch, key(epoch)));
    assert!(
        check(&world, &from_first()).ok,
        "within its own epoch a key can do this"
    );
    let trust = Trust {
        checkpoints: vec![kept],
        ..from_first()
    };
    let report = check(&world, &trust);
    assert!(first_problem(&report).contains("rewritten"), "{report:?}");
}

#[test]
fn an_epoch_that_its_predecessor_did_not_sign_stops_reading_and_writing() {
    let world = rotated();
    // Somebody who has no key adds an epoch of their own: everything from its record on is theirs.
    rewrite(&world, 99, |epoch| match epoch {
        1 => (1, key(1)),
        other => (other, key(9)),
    });
    let report = check(&world, &from_first());
    assert!(first_problem(&report).starts_with("Some(4)"), "{report:?}");
    let signers = Signers::new(key(1).vkey().clone(), vec![key(3)]);
    let dir = LedgerDir::open(world.path()).expect("opens");
    assert!(matches!(
        Writer::open(dir, signers, "host", small()),
        Err(OpenError::Damaged(_))
    ));
}

#[test]
fn a_stolen_old_key_forks_nothing_for_those_who_kept_the_list_of_keys() {
    let world = rotated();
    let second = key(2).vkey().clone();
    // The thief of the first key begins a second epoch of their own in place of the true one.
    let fork = World::new();
    let (mut writer, _) = fork.open();
    append(&mut writer, "op1");
    let thief = Signer::from_bytes(NAME, 2, &[66; 32]).expect("valid");
    writer.rotate(thief, &By::default()).expect("rotated");
    append(&mut writer, "op2");
    drop(writer);
    assert!(check(&world, &from_first()).ok);
    assert!(
        check(&fork, &from_first()).ok,
        "the first key alone does not tell"
    );
    let trust = Trust {
        later_keys: vec![second],
        ..from_first()
    };
    let report = check(&fork, &trust);
    assert!(
        first_problem(&report).contains("epoch 2 has the key"),
        "{report:?}"
    );
}

#[test]
fn a_log_cut_back_to_an_earlier_epoch_is_a_rollback_for_verifier_and_writer() {
    let world = rotated();
    let checkpoint = std::fs::read_to_string(world.path().join("checkpoint")).expect("published");
    let (header, frames) = world.frames();
    let frames: Vec<_> = frames.into_iter().take(3).map(|f| (f.1, f.2)).collect();
    world.put_frames(&header, &frames);
    let report = check(&world, &from_first());
    assert!(
        report.problems.iter().any(|p| p.what.contains("cut off")),
        "{report:?}"
    );
    let signers = Signers::new(key(1).vkey().clone(), vec![key(1), key(3)]);
    let dir = LedgerDir::open(world.path()).expect("opens");
    assert!(matches!(
        Writer::open(dir, signers, "host", small()),
        Err(OpenError::Rollback {
            published: 8,
            found: 2
        })
    ));
    let trust = Trust {
        checkpoints: vec![checkpoint],
        ..from_first()
    };
    assert!(!check(&world, &trust).ok);
}

#[test]
fn only_the_next_new_key_of_this_log_begins_an_epoch() {
    let world = World::with_batches(1);
    let (mut writer, _) = world.open();
    let other = Signer::from_bytes("other/log", 2, &[9; 32]).expect("valid");
    let same = Signer::from_bytes(NAME, 2, &[42; 32]).expect("valid");
    for bad in [key(3), key(1), other, same] {
        assert!(matches!(
            writer.rotate(bad, &By::default()),
            Err(RotateError::Key { wanted: 2, .. })
        ));
    }
    append(&mut writer, "after");
    drop(writer);
    assert!(check(&world, &from_first()).ok);
}

/// A keys directory and a ledger beside it.
struct Keyed {
    world: World,
    keys: tempfile::TempDir,
}

impl Keyed {
    fn new() -> Self {
        Self {
            world: World::new(),
            keys: tempfile::tempdir().expect("temp dir"),
        }
    }

    fn open(&self) -> Writer {
        let signers = Signers::load_or_generate(self.keys.path(), "host").expect("keys");
        let dir = LedgerDir::open(self.world.path()).expect("opens");
        Writer::open(dir, signers, "host", small())
            .expect("opens")
            .0
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.keys.path()).expect("lists");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        names.sort();
        names
    }
}

#[test]
fn whatever_step_of_a_rotation_is_the_last_one_key_can_sign_on_and_the_log_verifies() {
    // The steps: 0 nothing, 1 the new key is durable, 2 it is recorded, 3 used, 4 the old one erased.
    for last in 0..=4 {
        let keyed = Keyed::new();
        let mut writer = keyed.open();
        append(&mut writer, "before");
        let first = writer.epochs().list()[0].key.clone();
        if last >= 1 {
            let next = prepare_next(keyed.keys.path(), 2).expect("made");
            if last >= 2 {
                writer.rotate(next, &By::default()).expect("rotated");
            }
        }
        if last >= 3 {
            append(&mut writer, "used");
        }
        if last >= 4 {
            assert_eq!(erase_before(keyed.keys.path(), 2).expect("erased"), 1);
        }
        drop(writer);
        let mut writer = keyed.open();
        let current = writer.epochs().current().number;
        assert_eq!(current, if last >= 2 { 2 } else { 1 }, "step {last}");
        append(&mut writer, "after");
        // What was interrupted can be done again, and erasing what is over is always allowed.
        erase_before(keyed.keys.path(), current).expect("the current key is there");
        let next = prepare_next(keyed.keys.path(), current + 1).expect("made or found");
        writer.rotate(next, &By::default()).expect("rotated");
        append(&mut writer, "again");
        writer.publish().expect("published");
        erase_before(keyed.keys.path(), current + 1).expect("erased");
        drop(writer);
        let expected = [
            "first.vkey".to_owned(),
            format!("epoch-{}.key", current + 1),
        ];
        let mut files = keyed.files();
        files.sort_by_key(|name| name.starts_with("epoch"));
        assert_eq!(files, expected, "step {last}");
        let trust = Trust {
            key: Some(first),
            ..Trust::default()
        };
        let report = check(&keyed.world, &trust);
        assert!(report.ok, "step {last}: {report:?}");
    }
}

#[test]
fn a_key_that_was_being_erased_or_is_missing_is_handled_and_the_last_key_is_never_erased() {
    let keyed = Keyed::new();
    let mut writer = keyed.open();
    append(&mut writer, "before");
    assert!(
        erase_before(keyed.keys.path(), 2).is_err(),
        "its successor is not there"
    );
    let next = prepare_next(keyed.keys.path(), 2).expect("made");
    writer.rotate(next, &By::default()).expect("rotated");
    drop(writer);
    // Killed between overwriting and removing.
    let old = keyed.keys.path().join("epoch-1.key");
    std::fs::write(keyed.keys.path().join(".erasing"), [0; 90]).expect("written");
    std::fs::remove_file(old).expect("removed");
    drop(keyed.open());
    assert_eq!(erase_before(keyed.keys.path(), 2).expect("erased"), 1);
    assert_eq!(keyed.files(), ["epoch-2.key", "first.vkey"]);
    std::fs::rename(
        keyed.keys.path().join("epoch-2.key"),
        keyed.keys.path().join("epoch-3.key"),
    )
    .expect("renamed");
    let signers = Signers::load_or_generate(keyed.keys.path(), "host").expect("keys");
    let dir = LedgerDir::open(keyed.world.path()).expect("opens");
    let error = Writer::open(dir, signers, "host", small()).expect_err("no key");
    assert!(
        matches!(error, OpenError::NoKey { epoch: 2, .. }),
        "{error}"
    );
}
