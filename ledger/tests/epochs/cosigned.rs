//! Cosignatures of witnesses: which are kept, and what a log without them may not do.

use super::*;

fn witness(n: u8) -> Cosigner {
    Cosigner::from_bytes(&format!("w{n}.example"), &[n; 32]).expect("valid")
}

fn read(path: &Path, name: &str) -> String {
    std::fs::read_to_string(path.join(name)).expect("there")
}

/// The checkpoint that is published now, with cosignatures of these.
fn cosigned(world: &World, by: &[u8]) -> String {
    let note = read(world.path(), "checkpoint");
    let (body, _) = note.split_once("\n\n").expect("a note");
    let lines: String = by
        .iter()
        .map(|n| witness(*n).cosign(&format!("{body}\n"), 1_700_000_000))
        .collect();
    format!("{note}{lines}")
}

#[test]
fn cosignatures_are_kept_published_counted_and_found_again_after_a_restart() {
    let world = World::with_batches(2);
    let keys = [witness(1).key().clone(), witness(2).key().clone()];
    let (mut writer, _) = world.open();
    writer.publish().expect("published");
    assert_eq!(
        writer
            .cosign(&cosigned(&world, &[1, 9]), &keys)
            .expect("taken"),
        1
    );
    assert_eq!(
        writer
            .cosign(&cosigned(&world, &[2]), &keys)
            .expect("taken"),
        2
    );
    let note = read(world.path(), "checkpoint");
    assert_eq!(note, read(world.path(), "cosigned"));
    assert!(
        note.contains("w1.example") && note.contains("w2.example") && !note.contains("w9.example")
    );
    append(&mut writer, "later");
    writer.publish().expect("published");
    drop(writer);
    std::fs::remove_file(world.path().join("cosigned")).expect("removed");
    let (mut writer, _) = world.open();
    writer.publish().expect("published");
    assert_eq!(
        writer.head().size,
        6,
        "cosignatures are no records, and nothing was torn"
    );
    drop(writer);
    let text = format!(
        "witness A {}\nwitness B {}\ngroup both all A B\nquorum both\n",
        keys[0], keys[1]
    );
    let trust = |text: &str| Trust {
        witnesses: Some(Policy::parse(text).expect("a policy")),
        ..from_first()
    };
    assert_eq!(read(world.path(), "cosigned"), note, "rebuilt from the log");
    let report = check(&world, &trust(&text));
    assert!(report.ok && report.witnessed == Some(4), "{report:?}");
    let third = format!("witness C {}\nquorum C\n", witness(3).key());
    let report = check(&world, &trust(&third));
    assert!(
        first_problem(&report).contains("cosigned by enough"),
        "{report:?}"
    );
}

#[test]
fn cosignatures_of_strangers_of_other_heads_and_of_older_ones_are_refused() {
    let world = World::with_batches(2);
    let keys = [witness(1).key().clone()];
    let (mut writer, _) = world.open();
    writer.publish().expect("published");
    let before = world.bytes();
    let stranger = cosigned(&world, &[2]);
    assert!(matches!(
        writer.cosign(&stranger, &keys),
        Err(CosignError::NoneValid)
    ));
    let own = cosigned(&world, &[1]);
    let larger = own.replacen("\n4\n", "\n5\n", 1);
    assert!(matches!(
        writer.cosign(&larger, &keys),
        Err(CosignError::Unknown { size: 5 })
    ));
    let (body, rest) = own.split_once("\n\n").expect("a note");
    let extended = format!("{body}\nextension\n\n{rest}");
    assert!(matches!(
        writer.cosign(&extended, &keys),
        Err(CosignError::Unknown { .. })
    ));
    assert!(matches!(
        writer.cosign("", &keys),
        Err(CosignError::Note(_))
    ));
    assert_eq!(world.bytes(), before, "nothing was written");
    append(&mut writer, "later");
    writer.publish().expect("published");
    let newer = cosigned(&world, &[1]);
    writer.cosign(&newer, &keys).expect("taken");
    assert!(matches!(
        writer.cosign(&own, &keys),
        Err(CosignError::Older { size: 4, newest: 6 })
    ));
}

#[test]
fn a_log_below_the_head_that_was_cosigned_is_not_opened_for_writing() {
    let world = World::with_batches(2);
    let (mut writer, _) = world.open();
    writer.publish().expect("published");
    let note = cosigned(&world, &[1]);
    writer
        .cosign(&note, &[witness(1).key().clone()])
        .expect("taken");
    drop(writer);
    let (header, frames) = world.frames();
    let kinds: Vec<u8> = frames.iter().map(|frame| frame.1).collect();
    assert_eq!(
        kinds,
        [RECORD, RECORD, COMMIT, RECORD, RECORD, COMMIT, COSIGNATURE]
    );
    let frames: Vec<_> = frames.into_iter().map(|f| (f.1, f.2)).collect();
    // The newest batch is gone and the cosignature of it is still there: no crash does that.
    let cut = [&frames[..3], &frames[6..]].concat();
    world.put_frames(&header, &cut);
    assert!(matches!(world.try_open(), Err(OpenError::Damaged(_))));
    // Cut with the frame, and the checkpoint put back too: the cosigned head tells.
    world.put_frames(&header, &frames[..3]);
    std::fs::remove_file(world.path().join("checkpoint")).expect("removed");
    assert!(matches!(
        world.try_open(),
        Err(OpenError::Rollback {
            published: 4,
            found: 2
        })
    ));
}

#[test]
fn the_proof_of_growth_between_any_two_sizes_is_what_a_witness_accepts() {
    let world = World::with_batches(6);
    let reader = Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads");
    let root = |size: u64| {
        let mut tree = Frontier::new();
        (0..size).for_each(|i| tree.push(reader.leaf(i).expect("a leaf")));
        tree.root()
    };
    let now = reader.size();
    for old in 1..=now {
        let proof = reader.prove_growth(old, now).expect("exists");
        assert!(
            is_consistent((old, &root(old)), (now, &root(now)), &proof),
            "{old}"
        );
    }
    assert!(reader.prove_growth(now + 1, now).is_err());
    assert!(reader.prove_growth(1, now + 1).is_err());
}
