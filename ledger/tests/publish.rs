//! Publishing that fails half-way is taken up again, and what it writes then is what it would have written at once.

mod common;

use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::writer::Writer;
use common::{World, draft};

/// More than one full block.
const RECORDS: usize = 300;

fn fill(writer: &mut Writer) {
    let drafts: Vec<Draft> = (0..RECORDS)
        .map(|n| draft(Phase::Event, &format!("e{n}")))
        .collect();
    writer.append(&drafts).expect("appended");
}

fn features(world: &World, block: &str) -> usize {
    let text = std::fs::read_to_string(world.path().join(block)).expect("there");
    text.matches("\"vector_features\":").count()
}

#[test]
fn a_full_block_keeps_its_features_when_publishing_failed_behind_it() {
    let world = World::new();
    let (mut writer, _) = world.open();
    writer.publish().expect("published");
    // What comes behind the blocks cannot be written, as on a full disk.
    let index = world.path().join("blockchain/index.json");
    std::fs::remove_file(&index).expect("removed");
    std::fs::create_dir(&index).expect("in the way");
    fill(&mut writer);
    for _ in 0..2 {
        writer.publish().expect_err("the index is in the way");
    }
    std::fs::remove_dir(&index).expect("removed");
    writer.publish().expect("published");
    assert_eq!(
        [
            features(&world, "blockchain/block_0000000001.json"),
            features(&world, "blockchain/block_0000000002.json"),
        ],
        [256, RECORDS - 256]
    );
    assert!(world.verify().ok);
}
