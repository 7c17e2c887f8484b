//! Full segments become compressed ones: nothing is lost and nothing looks different, whatever interrupts it; and what
//! is damaged afterwards is found.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::epochs::By;
use blockhost_ledger::keys::Signer;
use blockhost_ledger::merkle::{hex, leaf_hash};
use blockhost_ledger::proof::verify_proof;
use blockhost_ledger::reader::{ReadError, Reader};
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::sealed;
use blockhost_ledger::writer::{OpenError, Options, Recovery, Writer};
use common::{World, draft, signer, small};
use std::path::Path;

/// Segments of two whole bundles and a part of one.
const SEGMENT: u64 = 600;

fn try_open(dir: &Path) -> Result<(Writer, Recovery), OpenError> {
    let options = Options {
        segment_records: SEGMENT,
        ..small()
    };
    Writer::open(LedgerDir::open(dir)?, signer(), "host", options)
}

fn open(dir: &Path) -> (Writer, Recovery) {
    try_open(dir).expect("opens")
}

fn seal_all(writer: &mut Writer) {
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
}

/// A ledger of `records` records in batches of 50: every third pair of intent and outcome is apart by a segment.
fn ledger(records: usize) -> (World, Writer) {
    let world = World::new();
    let (mut writer, _) = open(world.path());
    let drafts: Vec<Draft> = (0..records)
        .map(|n| match n {
            n if n % 3 == 0 => draft(Phase::Intent, &format!("op{n}")),
            n if n % 3 == 1 && n > 700 => draft(Phase::Outcome, &format!("op{}", n - 601 - n % 3)),
            n => draft(Phase::Event, &format!("e{n}")),
        })
        .collect();
    for batch in drafts.chunks(50) {
        writer.append(batch).expect("appended");
    }
    (world, writer)
}

fn reader(world: &World) -> Reader {
    Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads")
}

fn all(reader: &Reader) -> Vec<Vec<u8>> {
    let records = reader.records(0);
    records.map(|record| record.expect("readable").1).collect()
}

fn names(world: &World) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(world.path().join("seg"))
        .expect("listed")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_sealed_ledger_gives_the_same_records_proofs_head_and_open_intents() {
    let (world, mut writer) = ledger(1650);
    writer.publish().expect("published");
    let before = reader(&world);
    let (records, head) = (all(&before), before.head().expect("head"));
    let open_before = {
        drop(writer);
        let (again, recovery) = open(world.path());
        writer = again;
        recovery.open_intents
    };
    seal_all(&mut writer);
    let segments: Vec<String> = names(&world);
    assert_eq!(
        segments
            .iter()
            .filter(|name| !name.starts_with('.'))
            .collect::<Vec<_>>(),
        [
            "000000000000.hsh",
            "000000000000.zst",
            "000000000600.hsh",
            "000000000600.zst",
            "000000001200.log"
        ]
    );
    // The reader from before has the logs that are gone; the new one has what took their place.
    let after = reader(&world);
    assert_eq!(all(&before), records);
    assert_eq!(all(&after), records);
    assert_eq!(after.head().expect("head"), head);
    for index in [0, 255, 256, 511, 512, 599, 600, 855, 856, 1199, 1200, 1649] {
        let at = usize::try_from(index).expect("small");
        assert_eq!(after.leaf(index), Some(leaf_hash(&records[at])));
        let proof = after.prove(index, true).expect("proved");
        verify_proof(&proof, None, signer().vkey()).expect("verifies");
        assert_eq!(proof, before.prove(index, true).expect("proved"));
    }
    assert_eq!(after.leaf(1650), None);
    assert!(matches!(after.get(1650), Err(ReadError::NoRecord { .. })));
    assert_eq!(
        after.leaves(250, 1300).expect("there"),
        records[250..1300]
            .iter()
            .map(|r| leaf_hash(r))
            .collect::<Vec<_>>()
    );
    let report = world.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.records, report.segments), (1650, 3));
    drop(writer);
    let (mut writer, recovery) = open(world.path());
    assert_eq!(recovery.open_intents, open_before);
    assert!(open_before.len() > 100, "{}", open_before.len());
    writer.append(&[draft(Phase::Event, "")]).expect("appended");
    // Blocks are made again from sealed segments too.
    std::fs::remove_dir_all(world.path().join("blockchain")).expect("removed");
    drop(writer);
    let (mut writer, _) = open(world.path());
    writer.publish().expect("published");
    let report = world.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.records, report.blocks), (1651, 7));
}

#[test]
fn what_is_sealed_decompresses_with_other_tools_to_entry_bundles_without_prev_hash() {
    let (world, mut writer) = ledger(600);
    writer.append(&[draft(Phase::Event, "")]).expect("appended");
    let records = all(&reader(&world));
    seal_all(&mut writer);
    let sealed = std::fs::read(world.path().join("seg/000000000000.zst")).expect("read");
    let plain = zstd_of_others(&sealed);
    let (mut rest, mut found) = (&plain[..], Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (record, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
        found.push(record.to_vec());
        rest = after;
    }
    let mut prev = [0; 32];
    let expected: Vec<Vec<u8>> = records[..600]
        .iter()
        .map(|record| {
            let text = String::from_utf8(record.clone()).expect("text");
            let short = text.replace(
                &format!("\"prev_hash\":\"{}\"", hex(&prev)),
                "\"prev_hash\":\"\"",
            );
            prev = leaf_hash(record);
            short.into_bytes()
        })
        .collect();
    assert_eq!(found, expected);
}

/// What the C implementation makes of it.
fn zstd_of_others(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::decode_all(bytes).expect("it is zstd")
}

#[test]
fn records_that_cannot_be_rebuilt_from_less_are_kept_whole_and_both_decoders_agree() {
    let chained: Vec<Vec<u8>> = {
        let (world, _writer) = ledger(300);
        all(&reader(&world))
    };
    let slices: Vec<&[u8]> = chained[..256].iter().map(Vec::as_slice).collect();
    let packed = sealed::pack(&slices, &[0; 32]).expect("packs");
    assert!(packed.elided);
    let plain = usize::try_from(packed.plain).expect("small");
    assert_eq!(
        sealed::decompress_in_rust(&packed.frame, plain).expect("decodes"),
        zstd_of_others(&packed.frame)
    );
    assert!(sealed::decompress_in_rust(&packed.frame, plain - 1).is_none());
    assert!(sealed::decompress_in_rust(&packed.frame, plain + 1).is_none());
    let odd: [&[&[u8]]; 5] = [
        &[b""],
        &[b"{}", b"\"prev_hash\":\"\"", b"\"prev_hash\":\""],
        &[&chained[5]],
        &[&chained[0], b"", &chained[1]],
        &[&[7; 65_535], &[0; 65_535]],
    ];
    for records in odd {
        let packed = sealed::pack(records, &[0; 32]).expect("packs");
        assert!(!packed.elided);
        let leaves: Vec<_> = records.iter().map(|record| leaf_hash(record)).collect();
        let unpacked = sealed::unpack(&packed.frame, packed.plain, false, &[0; 32], &leaves);
        assert!(
            unpacked
                .expect("unpacks")
                .iter()
                .eq(records.iter().copied())
        );
    }
}

#[test]
fn every_flipped_byte_of_a_sealed_segment_is_found_and_no_wrong_record_is_ever_given() {
    let (world, mut writer) = ledger(700);
    writer.publish().expect("published");
    let records = all(&reader(&world));
    seal_all(&mut writer);
    drop(writer);
    world.age();
    age(&world);
    for name in ["000000000000.zst", "000000000000.hsh"] {
        let path = world.path().join("seg").join(name);
        let good = std::fs::read(&path).expect("read");
        let step = good.len() / 11;
        for at in (0..good.len()).step_by(step).chain([good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 0x11;
            std::fs::write(&path, &bad).expect("written");
            age(&world);
            let report = world.verify();
            assert!(!report.ok, "{name}, byte {at}: not noticed");
            assert!(
                report.problems[0].place.starts_with("seg/000000000000."),
                "{report:?}"
            );
            let opened = Reader::open(LedgerDir::open(world.path()).expect("opens"), None);
            let Ok(reader) = opened else { continue };
            for (index, record) in records.iter().enumerate().step_by(37) {
                if let Ok(found) = reader.get(index as u64) {
                    assert_eq!(&found, record);
                }
            }
        }
        for bad in [
            &good[..good.len() - 1],
            &good[..0],
            &[&good[..], &[0]].concat(),
        ] {
            std::fs::write(&path, bad).expect("written");
            age(&world);
            assert!(!world.verify().ok);
            assert!(matches!(try_open(world.path()), Err(OpenError::Damaged(_))));
        }
        std::fs::remove_file(&path).expect("removed");
        age(&world);
        assert!(
            world.try_verify().is_err() || !world.verify().ok,
            "{name}: not missed"
        );
        std::fs::write(&path, &good).expect("written");
        assert!(world.verify().ok);
    }
}

/// The verifier that shares no code with this one says the same.
#[expect(
    clippy::disallowed_methods,
    reason = "another program's opinion is wanted"
)]
fn others_verify(dir: &Path) {
    let program = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/verifier/blockhost-ledger-verify.py"
    );
    let key = signer().vkey().to_string();
    let output = std::process::Command::new("python3")
        .args([program, "--key", &key, "--json"])
        .arg(dir)
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: python3 is not installed");
        return;
    };
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}");
}

fn age(world: &World) {
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for name in ["seg", "."] {
        let dir = std::fs::File::open(world.path().join(name)).expect("opens");
        dir.set_modified(old).expect("owner");
    }
    for name in names(world) {
        let file = std::fs::File::open(world.path().join("seg").join(name)).expect("opens");
        file.set_modified(old).expect("owner");
    }
}

#[test]
fn readers_beside_the_sealing_never_miss_a_record() {
    let (world, mut writer) = ledger(1250);
    let records = all(&reader(&world));
    let finished = std::sync::atomic::AtomicBool::new(false);
    let (done, world, records) = (&finished, &world, &records);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut rounds = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) || rounds < 3 {
                let reader = reader(world);
                for index in [0_usize, 300, 599, 600, 1199, 1249] {
                    assert_eq!(reader.get(index as u64).expect("readable"), records[index]);
                }
                rounds += 1;
            }
        });
        for _ in 0..6 {
            seal_all(&mut writer);
            // Fill and seal more, so that there are many switches.
            for _ in 0..12 {
                writer
                    .append(&vec![draft(Phase::Event, ""); 50])
                    .expect("appended");
            }
        }
        seal_all(&mut writer);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        reading.join().expect("reader");
    });
    assert!(world.verify().ok);
}

#[test]
fn interrupted_after_any_step_sealing_is_begun_again_and_nothing_is_lost_or_doubled() {
    let (world, mut writer) = ledger(650);
    writer.publish().expect("published");
    let records = all(&reader(&world));
    let mut steps = 0;
    loop {
        for _ in 0..steps {
            writer.seal_step().expect("a step");
        }
        let done = !writer.wants_sealing();
        // Killed: whatever is there stays there.
        drop(writer);
        assert_eq!(all(&reader(&world)), records, "after {steps} steps");
        let report = world.verify();
        assert!(report.ok, "after {steps} steps: {report:?}");
        let (again, recovery) = open(world.path());
        assert_eq!((again.head().size, recovery.torn_bytes), (650, 0));
        let left = names(&world);
        assert_eq!(
            left.len(),
            if done { 3 } else { 2 },
            "after {steps} steps: {left:?}"
        );
        writer = again;
        if done {
            break;
        }
        steps += 1;
    }
    assert!(
        steps >= 7,
        "three bundles, the hashes, two names, the log: {steps}"
    );
    assert_eq!(all(&reader(&world)), records);
}

#[test]
fn a_log_that_is_gone_already_is_no_reason_to_seal_again_and_again() {
    let (world, mut writer) = ledger(650);
    let sealed = world.path().join("seg/000000000000.hsh");
    while !sealed.exists() {
        writer.seal_step().expect("sealed");
    }
    // As after a removal whose sync failed: the name is gone, the step is tried again.
    std::fs::remove_file(world.segment()).expect("there until the last step");
    seal_all(&mut writer);
    assert_eq!(all(&reader(&world)).len(), 650);
    drop(writer);
    open(world.path());
}

#[test]
fn a_batch_over_the_end_of_a_segment_is_whole_in_both_and_growth_is_proved_across_them() {
    let (world, mut writer) = ledger(590);
    let batch: Vec<Draft> = (0..40)
        .map(|n| draft(Phase::Event, &format!("x{n}")))
        .collect();
    let appended = writer.append(&batch).expect("appended");
    assert_eq!(appended.len(), 40);
    assert_eq!(names(&world), ["000000000000.log", "000000000600.log"]);
    seal_all(&mut writer);
    let reader = reader(&world);
    let leaves = reader.leaves(0, 630).expect("there");
    for (at, appended) in appended.iter().enumerate() {
        assert_eq!(leaves[590 + at], appended.leaf);
    }
    for old in [
        0_usize, 1, 2, 3, 255, 256, 257, 512, 599, 600, 601, 629, 630,
    ] {
        assert_eq!(
            Some(reader.prove_growth(old as u64, 630).expect("proved")),
            blockhost_ledger::consistency::consistency_proof(&leaves, old),
            "from {old}"
        );
    }
    assert!(reader.prove_growth(631, 631).is_err());
    // One bad draft, before or behind the border, and nothing of the batch counts.
    for at in [0, 39] {
        let mut bad = vec![draft(Phase::Event, ""); 580];
        bad[at].action = "a b".into();
        let error = writer.append(&bad).expect_err("refused").to_string();
        assert!(error.starts_with(&format!("draft {at} ")), "{error}");
        assert_eq!(writer.head().size, 630);
    }
}

#[test]
fn keys_and_cosignatures_of_sealed_segments_are_followed_without_their_logs() {
    let (world, mut writer) = ledger(300);
    let next = Signer::from_bytes(common::NAME, 2, &[43; 32]).expect("valid name");
    writer.rotate(next, &By::default()).expect("rotated");
    for _ in 0..7 {
        writer
            .append(&vec![draft(Phase::Event, ""); 50])
            .expect("appended");
    }
    seal_all(&mut writer);
    assert!(!names(&world).contains(&"000000000000.log".to_owned()));
    writer.publish().expect("published");
    let report = world.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.epochs.len(), report.records), (2, 651));
    others_verify(world.path());
    let path = world.path().join("seg/000000000000.hsh");
    let bytes = std::fs::read(&path).expect("read");
    let fixed = bytes[..sealed::FIXED_BYTES]
        .try_into()
        .expect("long enough");
    let head = sealed::Seal::head_bytes(fixed).expect("good");
    let seal = sealed::Seal::decode(&bytes[..head]).expect("good");
    assert_eq!(seal.encode(), &bytes[..head]);
    let mut forged = [
        sealed::Seal {
            epochs: Vec::new(),
            ..seal.clone()
        },
        seal.clone(),
        seal.clone(),
    ];
    forged[1].epochs[0].1.signature[0] ^= 1;
    forged[2].epochs[0].0 -= 1;
    for forged in forged {
        let forged = [&forged.encode()[..], &bytes[head..]].concat();
        std::fs::write(&path, forged).expect("written");
        age(&world);
        let report = world.verify();
        assert!(
            !report.ok && report.problems[0].place.starts_with("seg/"),
            "{report:?}"
        );
    }
}
