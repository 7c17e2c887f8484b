//! The commands that write for others, as the engine runs them: export, consistency, checkpoint.
#![cfg(feature = "cli")]

mod common;

use blockhost_ledger::cli::{LedgerArgs, command, run};
use blockhost_ledger::record::Phase;
use clap::FromArgMatches as _;
use common::{World, draft, signer};

/// The exit code of a command line; 2 when clap refuses it.
fn code(world: &World, args: &[&str]) -> u8 {
    let Ok(matches) = command().try_get_matches_from(["ledger"].iter().chain(args)) else {
        return 2;
    };
    let args = LedgerArgs::from_arg_matches(&matches).expect("parses");
    let code = run(args, world.path());
    (0..4)
        .find(|n| std::process::ExitCode::from(*n) == code)
        .expect("one of ours")
}

fn text(world: &World, name: &str) -> String {
    world.path().join(name).display().to_string()
}

#[test]
fn a_head_kept_earlier_is_shown_to_be_a_beginning_and_a_rewritten_history_is_not() {
    let world = World::with_batches(3);
    let [kept, claim, by_size, vkey] =
        ["kept", "claim", "by_size", "vkey"].map(|name| text(&world, name));
    std::fs::copy(world.path().join("checkpoint"), &kept).expect("copied");
    let (mut writer, _) = world.open();
    writer
        .append(&[draft(Phase::Event, "later")])
        .expect("appended");
    writer.publish().expect("published");
    drop(writer);
    assert_eq!(code(&world, &["consistency", &kept, "-o", &claim]), 0);
    assert_eq!(
        code(&world, &["verify-consistency", &claim, "--key", &vkey]),
        0
    );
    assert_eq!(
        code(
            &world,
            &[
                "verify-consistency",
                &claim,
                "--key",
                &vkey,
                "--trusted-checkpoint",
                &kept,
                "--json"
            ]
        ),
        0
    );
    assert_eq!(code(&world, &["consistency", "4", "-o", &by_size]), 0);
    assert_eq!(
        code(&world, &["verify-consistency", &by_size, "--key", &vkey]),
        0
    );
    let nothing = text(&world, "nothing");
    assert_eq!(code(&world, &["consistency", "0", "-o", &nothing]), 0);
    assert_eq!(
        code(&world, &["verify-consistency", &nothing, "--key", &vkey]),
        0,
        "every log begins with nothing"
    );
    // About other records than those of the checkpoint that was kept.
    assert_eq!(
        code(
            &world,
            &[
                "verify-consistency",
                &by_size,
                "--key",
                &vkey,
                "--trusted-checkpoint",
                &kept
            ]
        ),
        1
    );
    assert_eq!(
        code(&world, &["consistency", &text(&world, "checkpoint"), &kept]),
        2,
        "the wrong way round"
    );
    assert_eq!(
        code(&world, &["consistency", "8"]),
        2,
        "more than there are"
    );
    let other =
        blockhost_ledger::keys::Signer::from_bytes(common::NAME, 1, &[9; 32]).expect("valid");
    assert_eq!(
        code(
            &world,
            &[
                "verify-consistency",
                &claim,
                "--key",
                &other.vkey().to_string(),
                "--json"
            ]
        ),
        1
    );

    // Rewritten with the right key, longer than before: only the kept checkpoint tells.
    let mut records = world.records();
    records[1] = String::from_utf8(records[1].clone())
        .expect("text")
        .replace("\"memory\":2048", "\"memory\":4096")
        .into_bytes();
    let (header, _) = world.frames();
    world.put_frames(&header, &common::rebuild(&records, &signer()));
    assert_eq!(code(&world, &["consistency", &kept]), 1);
}

#[test]
fn exports_say_what_they_cannot_do_with_their_exit_code() {
    let world = World::with_batches(3);
    let dir = tempfile::tempdir().expect("temp dir");
    let to = |name: &str| dir.path().join(name).display().to_string();
    assert_eq!(code(&world, &["export"]), 2, "nothing to export to");
    assert_eq!(
        code(
            &world,
            &["export", "--c2sp", &to("a"), "--blocks", &to("b")]
        ),
        2
    );
    for _ in 0..2 {
        assert_eq!(code(&world, &["export", "--c2sp", &to("log")]), 0);
        assert_eq!(
            code(&world, &["export", "--blocks", &to("blocks"), "--json"]),
            0
        );
        assert_eq!(code(&world, &["export", "--jsonl", &to("lines")]), 0);
    }
    assert_eq!(
        std::fs::read_to_string(dir.path().join("lines"))
            .expect("read")
            .lines()
            .count(),
        6
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("lists").count(),
        3,
        "no temporary files"
    );
    assert_eq!(code(&world, &["export", "--c2sp", &to("missing/log")]), 3);
    assert_eq!(
        code(&world, &["export", "--jsonl", &to("missing/lines")]),
        3
    );
    assert_eq!(
        code(&World::with_batches(2), &["export", "--c2sp", &to("log")]),
        1,
        "fewer records than exported"
    );
    assert_eq!(code(&World::new(), &["export", "--c2sp", &to("empty")]), 3);
}

#[test]
fn the_checkpoint_is_printed_and_drawn() {
    let world = World::with_batches(3);
    assert_eq!(code(&world, &["checkpoint"]), 0);
    assert_eq!(code(&world, &["checkpoint", "--qr"]), 0);
    assert_eq!(code(&World::new(), &["checkpoint", "--qr"]), 3);
}

#[test]
fn a_compact_proof_verifies_beside_its_record_and_no_other() {
    let world = World::with_batches(3);
    let [proof, record, other, vkey] =
        ["proof", "record", "other", "vkey"].map(|name| text(&world, name));
    assert_eq!(
        code(&world, &["prove", "5", "--compact"]),
        2,
        "binary is not for a terminal"
    );
    assert_eq!(code(&world, &["prove", "5", "--compact", "-o", &proof]), 0);
    let bytes = world.records();
    std::fs::write(&record, &bytes[4]).expect("write");
    std::fs::write(&other, &bytes[3]).expect("write");
    assert_eq!(
        code(
            &world,
            &["verify-proof", &proof, "--key", &vkey, "--record", &record]
        ),
        0
    );
    assert_eq!(
        code(
            &world,
            &["verify-proof", &proof, "--key", &vkey, "--record", &other]
        ),
        1
    );
    assert_eq!(code(&world, &["verify-proof", &proof, "--key", &vkey]), 1);
}
