//! Confidential payloads: durable before their record, erased for good, and every proof valid all the same. What
//! disappears, changes or comes back without a record is found.

mod common;

use blockhost_ledger::blobs::{self, BLOBS, EraseError, PutError, Quota, State, Store};
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::merkle::{Hash, hex, sha256};
use blockhost_ledger::proof::verify_proof;
use blockhost_ledger::reader::Reader;
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::writer::{Options, Writer};
use common::{World, draft, signer, small};
use std::path::PathBuf;

const LARGE: Quota = Quota {
    blobs: 100,
    bytes: 1 << 20,
};

fn dir(world: &World) -> LedgerDir {
    LedgerDir::open(world.path()).expect("opens")
}

fn file(world: &World, hash: &Hash) -> PathBuf {
    let name = hex(hash);
    world.path().join(BLOBS).join(&name[..2]).join(name)
}

fn open(world: &World) -> (Writer, Store, u64) {
    let (writer, recovery) = world.open();
    let (store, orphans) = Store::open(dir(world), recovery.blobs).expect("opens");
    (writer, store, orphans)
}

fn put_record(hash: &Hash, bytes: usize) -> Draft {
    Draft {
        plugin_id: blobs::PLUGIN.into(),
        action: blobs::PUT.into(),
        resource: "tenant:7".into(),
        metadata: blobs::metadata(hash, bytes, "network-created", &serde_json::Map::new()),
        ..draft(Phase::Event, "")
    }
}

fn shred(phase: Phase, op_id: &str, hash: &Hash) -> Draft {
    Draft {
        plugin_id: blobs::PLUGIN.into(),
        action: blobs::SHRED.into(),
        resource: blobs::resource(hash),
        metadata: serde_json::Map::new(),
        ..draft(phase, op_id)
    }
}

fn keep(writer: &mut Writer, store: &mut Store, bytes: &[u8]) -> Hash {
    let hash = store.put(bytes, LARGE).expect("taken");
    let appended = writer
        .append(&[put_record(&hash, bytes.len())])
        .expect("appended");
    store.recorded(hash, appended[0].height);
    hash
}

fn erase(writer: &mut Writer, store: &mut Store, op_id: &str, hash: &Hash) {
    let intent = shred(Phase::Intent, op_id, hash);
    writer
        .append(std::slice::from_ref(&intent))
        .expect("appended");
    store.erase(hash).expect("erased");
    let record = blobs::shred_record(&intent, hash, serde_json::Map::new());
    writer
        .append(&[record, shred(Phase::Outcome, op_id, hash)])
        .expect("appended");
}

/// A published ledger with a payload, and one record more.
fn with_blob(content: &[u8]) -> (World, Hash) {
    let world = World::new();
    let (mut writer, mut store, _) = open(&world);
    let hash = keep(&mut writer, &mut store, content);
    writer.append(&[draft(Phase::Event, "")]).expect("appended");
    writer.publish().expect("published");
    drop(writer);
    world.age();
    (world, hash)
}

#[test]
fn a_kept_payload_is_counted_and_its_bytes_come_back() {
    let (world, hash) = with_blob(b"secret");
    let report = world.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.blobs, report.shredded), (1, 0));
    assert_eq!(
        blobs::read(&dir(&world), &hash).expect("read").as_deref(),
        Some(&b"secret"[..])
    );
    let (_, store, orphans) = open(&world);
    assert_eq!(orphans, 0);
    assert_eq!(store.index().kept(), (1, 6));
    assert_eq!(store.index().get(&hash).map(|blob| blob.height), Some(1));
}

#[test]
fn a_payload_that_disappears_without_a_shred_record_is_a_problem() {
    let (world, hash) = with_blob(b"secret");
    std::fs::remove_file(file(&world, &hash)).expect("removed");
    let problem = world.first_problem();
    assert!(problem.starts_with("Some(1)"), "{problem}");
    assert!(problem.contains("missing"), "{problem}");
}

#[test]
fn a_payload_that_was_altered_cut_or_replaced_by_a_link_is_a_problem() {
    let (world, hash) = with_blob(b"secret");
    for bytes in [&b"Secret"[..], b"secre", b"secrets", b""] {
        std::fs::write(file(&world, &hash), bytes).expect("written");
        assert!(world.first_problem().contains("altered"));
    }
    let elsewhere = world.path().join("elsewhere");
    std::fs::write(&elsewhere, b"secret").expect("written");
    std::fs::remove_file(file(&world, &hash)).expect("removed");
    std::os::unix::fs::symlink(&elsewhere, file(&world, &hash)).expect("linked");
    assert!(world.first_problem().contains("cannot be read"));
}

#[test]
fn a_huge_file_in_the_place_of_a_payload_is_not_read_into_memory() {
    let (world, hash) = with_blob(b"secret");
    let large = std::fs::File::create(file(&world, &hash)).expect("made");
    large.set_len(1 << 42).expect("sparse");
    assert!(world.first_problem().contains("cannot be read"));
}

#[test]
fn after_shredding_the_bytes_are_gone_and_every_proof_is_still_valid() {
    let (world, hash) = with_blob(b"secret");
    let (mut writer, mut store, _) = open(&world);
    let before = writer.head().clone();
    erase(&mut writer, &mut store, "op1", &hash);
    writer.publish().expect("published");
    drop(writer);
    assert!(!file(&world, &hash).exists());
    let report = world.verify_with(Some(signer()), Some(before.note));
    assert!(report.ok, "{report:?}");
    assert_eq!((report.blobs, report.shredded), (0, 1));
    let reader = Reader::open(dir(&world), None).expect("reads");
    let text = reader.prove(0, true).expect("proved");
    verify_proof(&text, None, signer().vkey()).expect("valid");
    let (_, store, _) = open(&world);
    assert_eq!(
        store.index().get(&hash).map(|blob| blob.state),
        Some(State::Shredded(4))
    );
    assert_eq!(
        store.index().kept(),
        (0, 0),
        "it frees its part of the quota"
    );
}

#[test]
fn a_shredded_payload_that_comes_back_is_a_problem_and_is_not_taken_again() {
    let (world, hash) = with_blob(b"secret");
    let (mut writer, mut store, _) = open(&world);
    erase(&mut writer, &mut store, "op1", &hash);
    for _ in 0..2 {
        assert!(matches!(
            store.put(b"secret", LARGE),
            Err(PutError::Shredded { .. })
        ));
    }
    assert!(matches!(
        store.erase(&hash),
        Err(EraseError::Already { .. })
    ));
    drop(writer);
    std::fs::write(file(&world, &hash), b"secret").expect("put back");
    world.age();
    assert!(world.first_problem().contains("put back"));
    let (_, mut store, orphans) = open(&world);
    assert_eq!(orphans, 1, "a start finishes what the log says");
    assert!(matches!(
        store.put(b"secret", LARGE),
        Err(PutError::Shredded { .. })
    ));
}

#[test]
fn what_nobody_committed_to_cannot_be_erased() {
    let (world, _) = with_blob(b"secret");
    let (_, mut store, _) = open(&world);
    assert!(matches!(
        store.erase(&sha256(b"other")),
        Err(EraseError::Unknown { .. })
    ));
}

#[test]
fn a_writer_that_ended_between_file_and_record_leaves_nothing_behind() {
    let (world, hash) = with_blob(b"secret");
    let (writer, mut store, _) = open(&world);
    let lost = store.put(b"lost", LARGE).expect("taken");
    let halfway = file(&world, &lost).with_file_name(format!(".{}.new", hex(&lost)));
    std::fs::write(&halfway, b"lo").expect("written");
    let foreign = file(&world, &lost).with_file_name("README");
    std::fs::write(&foreign, b"not ours").expect("written");
    drop((writer, store));
    let report = world.verify();
    assert!(report.ok && report.notes.len() == 3, "{report:?}");
    let (_, store, orphans) = open(&world);
    assert_eq!(orphans, 2);
    assert!(!file(&world, &lost).exists() && !halfway.exists());
    assert!(
        foreign.exists(),
        "somebody else's file is not ours to remove"
    );
    assert!(store.index().get(&hash).is_some() && file(&world, &hash).exists());
}

#[test]
fn an_erasure_that_was_interrupted_is_no_damage_and_is_told_from_one() {
    for erased in [false, true] {
        let (world, hash) = with_blob(b"secret");
        let (mut writer, mut store, _) = open(&world);
        writer
            .append(&[shred(Phase::Intent, "op1", &hash)])
            .expect("appended");
        if erased {
            store.erase(&hash).expect("erased");
        }
        drop((writer, store));
        let report = world.verify();
        assert!(report.ok, "{report:?}");
        assert_eq!(
            report
                .notes
                .iter()
                .any(|note| note.contains("record 3 began")),
            erased,
            "{report:?}"
        );
        let (mut writer, recovery) = world.open();
        assert_eq!(recovery.open_intents.len(), 1);
        let (mut store, _) = Store::open(dir(&world), recovery.blobs).expect("opens");
        store
            .erase(&hash)
            .expect("finished, whether or not the file is there");
        let intent = shred(Phase::Intent, "op1", &hash);
        let record = blobs::shred_record(&intent, &hash, serde_json::Map::new());
        writer
            .append(&[record, shred(Phase::Outcome, "op1", &hash)])
            .expect("appended");
        writer.publish().expect("published");
        drop(writer);
        let report = world.verify();
        assert!(report.ok && report.shredded == 1, "{report:?}");
    }
}

#[test]
fn an_erasure_that_failed_does_not_excuse_a_missing_payload() {
    let (world, hash) = with_blob(b"secret");
    let (mut writer, _, _) = open(&world);
    writer
        .append(&[
            shred(Phase::Intent, "op1", &hash),
            shred(Phase::Outcome, "op1", &hash),
        ])
        .expect("appended");
    writer.publish().expect("published");
    drop(writer);
    std::fs::remove_file(file(&world, &hash)).expect("removed");
    world.age();
    assert!(world.first_problem().contains("missing"));
}

#[test]
fn a_clients_event_cannot_pass_for_a_shred_record() {
    let (world, hash) = with_blob(b"secret");
    let (mut writer, _, _) = open(&world);
    let forged = Draft {
        plugin_id: "event".into(),
        ..shred(Phase::Event, "", &hash)
    };
    let imitated = Draft {
        action: "x".into(),
        resource: "{\"action\":\"ledger-shred\",\"phase\":\"shred\"".into(),
        ..forged.clone()
    };
    writer.append(&[forged, imitated]).expect("appended");
    writer.publish().expect("published");
    drop(writer);
    std::fs::remove_file(file(&world, &hash)).expect("removed");
    world.age();
    assert!(world.first_problem().contains("missing"));
}

#[test]
fn the_quota_holds_for_number_and_bytes_also_before_anything_is_recorded() {
    let world = World::new();
    let (mut writer, mut store, _) = open(&world);
    let quota = Quota {
        blobs: 2,
        bytes: 10,
    };
    assert!(matches!(
        store.put(b"elevenbytes", quota),
        Err(PutError::Quota { .. })
    ));
    let first = store.put(b"1111", quota).expect("taken");
    store
        .put(b"1111", quota)
        .expect("the same again costs nothing");
    store.put(b"2222", quota).expect("taken");
    assert!(matches!(
        store.put(b"3", quota),
        Err(PutError::Quota { blobs: 2, .. })
    ));
    store.withdraw(first, false);
    assert!(
        file(&world, &first).exists(),
        "somebody else's record may come"
    );
    store.withdraw(first, false);
    assert!(!file(&world, &first).exists());
    store.put(b"333333", quota).expect("there is room again");
    let larger = Quota { blobs: 9, ..quota };
    assert!(matches!(
        store.put(b"4", larger),
        Err(PutError::Quota { bytes: 10, .. })
    ));
    writer
        .append(&[draft(Phase::Event, "")])
        .expect("the log takes records as before");
}

#[test]
fn a_record_that_may_be_on_the_disk_keeps_its_payload_until_the_next_start() {
    let world = World::new();
    let (mut writer, mut store, _) = open(&world);
    let hash = store.put(b"maybe", LARGE).expect("taken");
    // The append reports a failed sync, and the record is there all the same.
    writer.append(&[put_record(&hash, 5)]).expect("appended");
    store.withdraw(hash, true);
    writer.publish().expect("published");
    drop((writer, store));
    let report = world.verify();
    assert!(report.ok && report.blobs == 1, "{report:?}");
    let (_, _, orphans) = open(&world);
    assert_eq!(orphans, 0);
}

#[test]
fn names_of_payloads_are_64_hexadecimal_digits_and_nothing_else() {
    let good = hex(&sha256(b"x"));
    assert_eq!(blobs::parse_hash(&good), Some(sha256(b"x")));
    let resource = blobs::resource(&sha256(b"x"));
    assert_eq!(blobs::parse_resource(&resource), Some(sha256(b"x")));
    for bad in [
        "",
        &good[1..],
        &good.to_uppercase(),
        &format!("{good}0"),
        &format!("../{}", &good[3..]),
        &"\u{e9}".repeat(32),
    ] {
        assert_eq!(blobs::parse_hash(bad), None, "{bad}");
        assert_eq!(blobs::parse_resource(&format!("blob:{bad}")), None);
    }
    assert_eq!(blobs::parse_resource(&good), None);
}

#[test]
fn what_was_said_of_payloads_is_known_after_their_segment_was_sealed() {
    let world = World::new();
    let reopen = || {
        let options = Options {
            segment_records: 300,
            ..small()
        };
        let (writer, recovery) =
            Writer::open(dir(&world), signer(), "host", options).expect("opens");
        let (store, orphans) = Store::open(dir(&world), recovery.blobs).expect("opens");
        (writer, store, orphans)
    };
    let (mut writer, mut store, _) = reopen();
    let kept = keep(&mut writer, &mut store, b"kept");
    let gone = keep(&mut writer, &mut store, b"gone");
    erase(&mut writer, &mut store, "op1", &gone);
    for _ in 0..10 {
        writer
            .append(&vec![draft(Phase::Event, ""); 50])
            .expect("appended");
    }
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    writer.publish().expect("published");
    drop((writer, store));
    assert!(!world.segment().exists(), "the first segment was sealed");
    let report = world.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.blobs, report.shredded), (1, 1));
    let (_writer, mut store, orphans) = reopen();
    assert_eq!(orphans, 0, "a kept payload is nobody's leftover");
    assert!(file(&world, &kept).exists());
    assert!(matches!(
        store.put(b"gone", LARGE),
        Err(PutError::Shredded { .. })
    ));
    store.erase(&kept).expect("it is known");
}
