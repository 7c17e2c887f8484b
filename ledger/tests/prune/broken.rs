//! What is gone without a record, records that a client makes up, and prunings that were interrupted.

use super::*;

#[test]
fn what_is_gone_without_a_record_or_kept_wrongly_is_damage() {
    let (world, mut writer) = ledger();
    writer.prune(&heading(), ALL).expect("pruned");
    drop(writer);
    let segments = world.path().join("seg");
    let damaged = |what: &str, height: u64| {
        age(&world);
        let report = world.verify();
        let first = report.problems.first().expect(what);
        assert_eq!(first.height, Some(height), "{what}: {report:?}");
        assert!(first.place.starts_with("seg/"), "{what}: {report:?}");
    };
    // Another segment, with what the pruned one kept, and without.
    let other = std::fs::read(segments.join("000000000512.zst")).expect("read");
    std::fs::remove_file(segments.join("000000000512.zst")).expect("removed");
    damaged("no record", 513);
    assert!(matches!(try_open(world.path()), Err(OpenError::Damaged(_))));
    std::fs::write(segments.join("000000000512.kept"), b"").expect("written");
    damaged("an empty .kept", 513);
    assert!(matches!(try_open(world.path()), Err(OpenError::Damaged(_))));
    std::fs::write(segments.join("000000000512.zst"), other).expect("written");
    // What was kept, changed in every way.
    let path = segments.join("000000000000.kept");
    let good = std::fs::read(&path).expect("read");
    let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 3);
    let swapped = [lines[1], lines[0], lines[2]].concat();
    let twice = [lines[0], lines[0], lines[1], lines[2]].concat();
    let mut flipped = good.clone();
    flipped[40] ^= 1;
    for (what, bad) in [
        ("cut", &good[..good.len() - 1]),
        ("without the open intent", &[lines[1], lines[2]].concat()),
        ("without the anchor", &[lines[0], lines[2]].concat()),
        ("swapped", &swapped),
        ("twice", &twice),
        ("flipped", &flipped),
        ("empty lines", &[&good[..], b"\n\n"].concat()),
        ("nothing", b""),
    ] {
        std::fs::write(&path, bad).expect("written");
        age(&world);
        let report = world.verify();
        let first = report.problems.first().expect(what);
        assert!(first.place.starts_with("seg/"), "{what}: {report:?}");
        assert!(
            matches!(try_open(world.path()), Err(OpenError::Damaged(_))),
            "{what}"
        );
    }
    std::fs::remove_file(&path).expect("removed");
    damaged("no .kept", 1);
    std::fs::write(&path, &good).expect("written");
    // The hashes of a pruned segment are the ones that were recorded, also where no signature covers them.
    let hashes = segments.join("000000000000.hsh");
    let good = std::fs::read(&hashes).expect("read");
    let mut bad = good.clone();
    let head = bad.len() - 512 * 32;
    // The time of the first bundle.
    bad[216 + 9] ^= 1;
    blockhost_ledger::sealed::mend(&mut bad[..head]);
    std::fs::write(&hashes, &bad).expect("written");
    damaged("another time", 1);
    std::fs::write(&hashes, &good).expect("written");
    age(&world);
    let report = world.verify();
    assert!(
        report
            .problems
            .iter()
            .all(|one| one.place.starts_with("blobs/")),
        "{report:?}"
    );
}

#[test]
fn a_client_cannot_say_that_something_was_pruned() {
    let (world, mut writer) = ledger();
    let (pruned, _) = writer.prune(&heading(), ALL).expect("pruned");
    drop(writer);
    let segments = world.path().join("seg");
    std::fs::copy(
        segments.join("000000000000.kept"),
        segments.join("000000000512.kept"),
    )
    .expect("copied");
    let (mut writer, _) = open(&world);
    assert!(!segments.join("000000000512.kept").exists(), "an orphan");
    let said = json!({"first_height": 513, "records": 512, "root": hex(&[0; 32]), "bytes": 1,
        "hashes_sha256": hex(&pruned.hashes), "kept_sha256": hex(&blockhost_ledger::merkle::sha256(b""))});
    let metadata = said.as_object().expect("an object").clone();
    // The words of the gate in everything but the phase, or the part of the product.
    let event = Draft {
        phase: Phase::Event,
        metadata: metadata.clone(),
        ..heading()
    };
    let foreign = Draft {
        phase: Phase::Prune,
        plugin_id: "event".to_owned(),
        metadata,
        ..heading()
    };
    writer.append(&[event, foreign]).expect("appended");
    writer.publish().expect("published");
    drop(writer);
    std::fs::write(segments.join("000000000512.kept"), b"").expect("written");
    std::fs::remove_file(segments.join("000000000512.zst")).expect("removed");
    age(&world);
    assert_eq!(world.verify().problems[0].height, Some(513));
    assert!(matches!(try_open(world.path()), Err(OpenError::Damaged(_))));
}

#[test]
fn interrupted_after_any_step_it_is_not_begun_or_finished() {
    let (world, mut writer) = ledger();
    let saved = |name: &str| {
        (
            name.to_owned(),
            std::fs::read(world.path().join(name)).expect(name),
        )
    };
    let files = [
        saved("seg/000000000000.zst"),
        saved("blockchain/block_0000000001.json"),
        saved("blockchain/block_0000000002.json"),
    ];
    writer.prune(&heading(), ALL).expect("pruned");
    drop(writer);
    // Killed after the record, and after some of the deleting: what was deleted last is put back first.
    for back in 1..=files.len() {
        for (name, bytes) in files.iter().rev().take(back) {
            std::fs::write(world.path().join(name), bytes).expect("put back");
        }
        let report = world.verify();
        assert!(
            report
                .problems
                .iter()
                .all(|one| one.place.starts_with("blobs/")),
            "{report:?}"
        );
        assert!(report.notes.iter().any(|note| note.contains("the agent")));
        assert_eq!(reader(&world).get(0).is_ok(), back == files.len());
        open(&world);
        for (name, _) in &files {
            assert!(!world.path().join(name).exists(), "{name} after {back}");
        }
    }
    // Where what has to stay is not as it was recorded, the payloads stay too.
    let (zst, bytes) = &files[0];
    std::fs::write(world.path().join(zst), bytes).expect("put back");
    std::fs::write(world.path().join("seg/000000000000.kept"), b"").expect("written");
    open(&world);
    assert!(world.path().join(zst).exists());
}
