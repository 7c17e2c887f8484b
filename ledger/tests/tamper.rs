//! Somebody changes the files: what is detected, by what, and what has to be kept elsewhere for it.

mod common;

use blockhost_ledger::keys::Signer;
use blockhost_ledger::record::Phase;
use blockhost_ledger::segment::{COMMIT, RECORD};
use blockhost_ledger::writer::OpenError;
use common::{World, draft, rebuild, signer};

fn other_key() -> Signer {
    Signer::from_bytes(common::NAME, 1, &[43; 32]).expect("valid")
}

#[test]
fn an_untouched_ledger_verifies() {
    let world = World::with_batches(4);
    let report = world.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!(
        (
            report.records,
            report.commits,
            report.blocks,
            report.published
        ),
        (8, 4, 1, Some(8))
    );
    let own = world.verify_with(None, None);
    assert!(
        own.ok && !own.key_given && !own.notes.is_empty(),
        "says that the key is not from elsewhere"
    );
}

#[test]
fn a_flipped_bit_anywhere_is_detected_or_lies_in_the_unused_end() {
    let world = World::with_batches(2);
    let good = world.bytes();
    let (_, frames) = world.frames();
    let (offset, _, payload) = frames.last().expect("has frames");
    let end = usize::try_from(*offset).expect("small") + common::HEAD + payload.len();
    for at in 0..end + 64 {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        world.put(&bad);
        // One verification without its retries for a writer at work: those only repeat the same answer.
        let report = world.verify();
        if at < end {
            assert!(!report.ok, "byte {at} was changed and nobody noticed");
        } else {
            assert!(
                report.ok && report.records == 4 && !report.notes.is_empty(),
                "byte {at}: {report:?}"
            );
        }
    }
}

#[test]
fn bytes_moved_to_another_place_fail_the_checksum_of_their_place() {
    let world = World::with_batches(2);
    let (_, frames) = world.frames();
    let mut bytes = world.bytes();
    let at = |n: usize| usize::try_from(frames[n].0).expect("small");
    // Frames 0 and 1 (a batch's two records) change places, whole and unchanged.
    let (a, b, c) = (at(0), at(1), at(2));
    let swapped = [&bytes[b..c], &bytes[a..b]].concat();
    bytes[a..c].copy_from_slice(&swapped);
    world.put(&bytes);
    let problem = world.first_problem();
    assert!(
        problem.starts_with("Some(1)") && problem.contains("checksum"),
        "{problem}"
    );
    assert!(problem.contains("not a crash"), "{problem}");
    assert!(matches!(world.try_open(), Err(OpenError::Damaged(fault)) if fault.height == 1));
}

#[test]
fn swapped_records_with_right_checksums_break_the_heights() {
    let world = World::with_batches(2);
    let (header, frames) = world.frames();
    let mut frames: Vec<_> = frames
        .into_iter()
        .map(|(_, kind, payload)| (kind, payload))
        .collect();
    frames.swap(0, 1);
    world.put_frames(&header, &frames);
    let problem = world.first_problem();
    assert!(
        problem.starts_with("Some(1)") && problem.contains("says height 2"),
        "{problem}"
    );
}

#[test]
fn a_record_deleted_from_the_middle_breaks_the_heights_and_with_them_mended_the_chain() {
    let world = World::with_batches(3);
    let (header, frames) = world.frames();
    let mut frames: Vec<_> = frames
        .into_iter()
        .map(|(_, kind, payload)| (kind, payload))
        .collect();
    frames.remove(3);
    world.put_frames(&header, &frames);
    let problem = world.first_problem();
    assert!(
        problem.starts_with("Some(3)") && problem.contains("says height 4"),
        "{problem}"
    );
    for (kind, payload) in frames.iter_mut().skip(3) {
        if *kind == RECORD {
            let text = String::from_utf8(payload.clone()).expect("text");
            let height = (4..=6)
                .find(|h| text.contains(&format!("\"height\":{h},")))
                .expect("has a height");
            *payload = text
                .replace(
                    &format!("\"height\":{height},"),
                    &format!("\"height\":{},", height - 1),
                )
                .into_bytes();
        }
    }
    world.put_frames(&header, &frames);
    let problem = world.first_problem();
    assert!(
        problem.starts_with("Some(3)") && problem.contains("prev_hash"),
        "{problem}"
    );
}

#[test]
fn a_changed_record_breaks_the_root_that_its_commit_signs() {
    let world = World::with_batches(1);
    let (header, frames) = world.frames();
    let mut frames: Vec<_> = frames
        .into_iter()
        .map(|(_, kind, payload)| (kind, payload))
        .collect();
    let text = String::from_utf8(frames[1].1.clone()).expect("text");
    frames[1].1 = text
        .replace("\"memory\":2048", "\"memory\":4096")
        .into_bytes();
    world.put_frames(&header, &frames);
    let problem = world.first_problem();
    assert!(
        problem.starts_with("Some(1)") && problem.contains("the commit signs 2 records"),
        "{problem}"
    );
}

#[test]
fn a_history_rebuilt_without_the_key_fails_the_signature() {
    let world = World::with_batches(3);
    let (header, _) = world.frames();
    let mut records = world.records();
    records.remove(2);
    world.put_frames(&header, &rebuild(&records, &other_key()));
    let problem = world.first_problem();
    assert!(
        problem.starts_with("Some(1)") && problem.contains("signature of the commit"),
        "{problem}"
    );
    assert!(matches!(world.try_open(), Err(OpenError::Damaged(_))));
}

#[test]
fn with_the_key_beside_it_replaced_too_only_a_key_kept_elsewhere_tells() {
    let world = World::with_batches(3);
    let (header, _) = world.frames();
    let mut records = world.records();
    records.remove(2);
    world.forget_published();
    world.put_frames(&header, &rebuild(&records, &other_key()));
    std::fs::write(
        world.path().join("vkey"),
        format!("{}\n", other_key().vkey()),
    )
    .expect("write");
    let own = world.verify_with(None, None);
    assert!(own.ok && !own.key_given, "consistent in itself: {own:?}");
    assert!(!world.verify().ok);
}

#[test]
fn a_history_rewritten_with_the_current_key_contradicts_the_published_and_any_kept_checkpoint() {
    let world = World::with_batches(3);
    let kept = std::fs::read_to_string(world.path().join("checkpoint")).expect("published");
    let (header, _) = world.frames();
    let mut records = world.records();
    records[2] = String::from_utf8(records[2].clone())
        .expect("text")
        .replace("\"memory\":2048", "\"memory\":4096")
        .into_bytes();
    world.put_frames(&header, &rebuild(&records, &signer()));
    let report = world.verify();
    assert!(
        report
            .problems
            .iter()
            .any(|p| p.place == "checkpoint" && p.what.contains("rewritten")),
        "{report:?}"
    );
    assert!(
        report
            .problems
            .iter()
            .any(|p| p.place.starts_with("blockchain/block_") && p.height == Some(3)),
        "{report:?}"
    );
    assert!(matches!(
        world.try_open(),
        Err(OpenError::Rewritten { published: 6 })
    ));
    world.forget_published();
    assert!(
        world.verify().ok,
        "with the key and everything published here, nothing on this host contradicts it"
    );
    let report = world.verify_with(Some(signer()), Some(kept));
    assert!(
        report
            .problems
            .iter()
            .any(|p| p.what.contains("rewritten") && p.what.contains("kept elsewhere")),
        "{report:?}"
    );
}

#[test]
fn an_end_cut_off_cleanly_is_told_by_the_published_checkpoint_and_by_a_kept_one() {
    let world = World::with_batches(3);
    let kept = std::fs::read_to_string(world.path().join("checkpoint")).expect("published");
    let (header, frames) = world.frames();
    let frames: Vec<_> = frames
        .into_iter()
        .take(6)
        .map(|(_, kind, payload)| (kind, payload))
        .collect();
    assert_eq!(frames.last().map(|(kind, _)| *kind), Some(COMMIT));
    world.put_frames(&header, &frames);
    let problem = world.first_problem();
    assert!(
        problem.starts_with("Some(5) checkpoint") && problem.contains("has only 4"),
        "{problem}"
    );
    assert!(matches!(
        world.try_open(),
        Err(OpenError::Rollback {
            published: 6,
            found: 4
        })
    ));
    world.forget_published();
    assert!(world.verify().ok);
    let report = world.verify_with(Some(signer()), Some(kept));
    assert_eq!(report.problems[0].height, Some(5), "{report:?}");
}

#[test]
fn truncation_at_every_byte_is_noticed() {
    let world = World::with_batches(2);
    let good = world.bytes();
    let (_, frames) = world.frames();
    let (offset, _, payload) = frames.last().expect("has frames");
    let end = usize::try_from(*offset).expect("small") + common::HEAD + payload.len();
    for length in (0..end).step_by(7) {
        world.put(&good[..length]);
        assert!(
            !world.verify().ok,
            "cut to {length} bytes and nobody noticed"
        );
        assert!(
            world.try_open().is_err(),
            "cut to {length} bytes and opened"
        );
        assert_eq!(world.bytes().len(), length, "an alarm changes nothing");
    }
}

#[test]
fn an_old_copy_of_the_segment_put_back_is_told() {
    let world = World::with_batches(2);
    let old = world.bytes();
    let (mut writer, _) = world.open();
    writer.append(&[draft(Phase::Event, "")]).expect("appended");
    writer.publish().expect("published");
    drop(writer);
    world.put(&old);
    assert!(world.first_problem().contains("an old copy was put back"));
    assert!(matches!(
        world.try_open(),
        Err(OpenError::Rollback {
            published: 5,
            found: 4
        })
    ));
}

#[test]
fn changed_missing_and_foreign_block_files_are_told_and_rebuilt_when_removed() {
    let world = World::with_batches(200);
    let block = |n: u32| world.path().join(format!("blockchain/block_{n:010}.json"));
    let good = std::fs::read_to_string(block(1)).expect("block");
    std::fs::write(block(1), good.replacen("2048", "4096", 1)).expect("write");
    let problem = world.first_problem();
    assert!(
        problem.starts_with("Some(1) blockchain/block_0000000001.json"),
        "{problem}"
    );
    std::fs::remove_file(block(1)).expect("removed");
    assert!(world.first_problem().contains("missing"));
    std::fs::write(block(3), "{}").expect("write");
    assert!(
        world
            .verify()
            .problems
            .iter()
            .any(|p| p.what.contains("does not have"))
    );
    std::fs::remove_file(block(3)).expect("removed");
    std::fs::write(world.path().join("blockchain/index.json"), "{}").expect("write");
    assert!(
        world
            .verify()
            .problems
            .iter()
            .any(|p| p.place.ends_with("index.json"))
    );
    let (mut writer, _) = world.open();
    writer.publish().expect("published");
    assert_eq!(std::fs::read_to_string(block(1)).expect("rebuilt"), good);
    let report = world.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!(report.blocks, 2);
    drop(writer);
    std::fs::remove_file(block(2)).expect("removed");
    world.open().0.publish().expect("published");
    assert!(world.verify().ok, "the open block is rebuilt too");
}

#[test]
fn a_forged_or_broken_checkpoint_keeps_the_writer_out() {
    let world = World::with_batches(1);
    let path = world.path().join("checkpoint");
    let good = std::fs::read_to_string(&path).expect("published");
    for bad in [
        good.replace("\n2\n", "\n1\n"),
        String::new(),
        good[..good.len() / 2].to_owned(),
    ] {
        std::fs::write(&path, bad).expect("write");
        assert!(matches!(world.try_open(), Err(OpenError::Checkpoint(_))));
        assert!(world.first_problem().contains("checkpoint"));
    }
}
