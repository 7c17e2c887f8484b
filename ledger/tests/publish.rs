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

/// Blocks that a page and a half of the index list, and a bit of one.
const LONG: usize = 256 * 256 + 20 * 256 + 7;

#[expect(
    clippy::disallowed_methods,
    reason = "a test uses the tools that an operator would"
)]
fn run(world: &World, program: &str, args: &[&str]) -> Option<(bool, String)> {
    let command = std::process::Command::new(program)
        .args(args)
        .current_dir(world.path())
        .output();
    let Ok(output) = command else {
        eprintln!("skipped: {program} is not installed");
        return None;
    };
    let text = String::from_utf8(output.stdout).expect("text");
    Some((output.status.success(), text))
}

#[test]
fn a_page_of_the_index_is_written_once_and_what_is_missing_or_wrong_is_told() {
    use std::os::unix::fs::MetadataExt as _;
    let world = World::new();
    let (mut writer, _) = world.open();
    let mut event = draft(Phase::Event, "");
    event.metadata.clear();
    for count in (0..LONG).step_by(1024).map(|n| (LONG - n).min(1024)) {
        writer
            .append(&vec![event.clone(); count])
            .expect("appended");
    }
    writer.publish().expect("published");
    let blocks = world.path().join("blockchain");
    let page = blocks.join("index_0000000001.json");
    let inode = || std::fs::metadata(&page).expect("there").ino();
    let first = inode();
    writer.append(&[event.clone()]).expect("appended");
    writer.publish().expect("published");
    assert_eq!(inode(), first, "it is not written again");
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(blocks.join("index.json")).expect("read"))
            .expect("JSON");
    assert_eq!(
        (&index["pages"], index["blocks"].as_array().map(Vec::len)),
        (&1.into(), Some(21))
    );
    assert_eq!(index["blocks"][0]["block_id"], 257);
    let all =
        "cat blockchain/index_*.json blockchain/index.json | jq -c '.blocks[].block_id' | wc -l";
    if let Some((true, said)) = run(&world, "sh", &["-c", all]) {
        assert_eq!(said.trim(), "277");
    }
    drop(writer);
    let python = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/verifier/blockhost-ledger-verify.py"
    );
    let key = common::signer().vkey().to_string();
    let others = || run(&world, "python3", &[python, "--key", &key, "."]);
    assert!(others().is_none_or(|(good, _)| good));
    assert!(world.verify().ok);

    let good = std::fs::read(&page).expect("read");
    let told = |what: &str| {
        world.age();
        let report = world.verify();
        assert!(
            report.problems.iter().any(|p| p.what.contains(what)),
            "{what}: {report:?}"
        );
    };
    std::fs::write(&page, &good[..good.len() - 9]).expect("written");
    told("not what the segments say");
    std::fs::remove_file(&page).expect("removed");
    told("is missing");
    assert!(others().is_none_or(|(good, _)| !good));
    let foreign = blocks.join("index_0000000002.json");
    let (mut writer, _) = world.open();
    writer.publish().expect("published");
    drop(writer);
    assert_eq!(std::fs::read(&page).expect("made again"), good);
    std::fs::write(&foreign, &good).expect("written");
    told("does not have");
}
