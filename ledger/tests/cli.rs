//! The commands as the engine runs them, on a real ledger.
#![cfg(feature = "cli")]

mod common;

use blockhost_ledger::cli::{LedgerArgs, command, run};
use clap::FromArgMatches as _;
use common::{World, signer};

/// The exit code of a command line.
fn code(world: &World, args: &[&str]) -> String {
    let matches = command()
        .try_get_matches_from(["ledger"].iter().chain(args))
        .expect("parses");
    let args = LedgerArgs::from_arg_matches(&matches).expect("parses");
    format!("{:?}", run(args, world.path()))
}

fn good() -> String {
    format!("{:?}", std::process::ExitCode::SUCCESS)
}

fn not_verified() -> String {
    format!("{:?}", std::process::ExitCode::from(1))
}

fn unreadable() -> String {
    format!("{:?}", std::process::ExitCode::from(3))
}

#[test]
fn what_cannot_be_read_is_not_called_unverified() {
    let world = World::new();
    assert_eq!(
        code(&world, &["head"]),
        unreadable(),
        "an empty ledger has no head"
    );
    assert_eq!(code(&world, &["show", "1"]), unreadable());
    assert_eq!(
        code(&world, &["--dir", "/nonexistent", "verify"]),
        unreadable()
    );
    assert_eq!(
        code(&world, &["verify-proof", "/nonexistent", "--key", "x"]),
        unreadable()
    );
}

#[test]
fn every_verb_succeeds_on_a_good_ledger() {
    let world = World::with_batches(3);
    let key = signer().vkey().to_string();
    let proofs = world.path().join("proofs").display().to_string();
    for args in [
        vec!["head"],
        vec!["head", "--json"],
        vec!["list"],
        vec![
            "list",
            "--json",
            "-n",
            "2",
            "--phase",
            "intent",
            "--resource",
            "vm:100",
        ],
        vec![
            "list",
            "--since",
            "2h",
            "--category",
            "compute",
            "--verified",
        ],
        vec![
            "list",
            "--resource",
            "vm:*",
            "--oldest",
            "--verified",
            "--json",
        ],
        vec!["grep", "machine of op1", "--prove", &proofs],
        vec!["grep", "-i", "MACHINE", "--no-index"],
        vec!["stats"],
        vec!["stats", "--json", "--verified"],
        vec!["show", "6"],
        vec!["show", "6", "--raw"],
        vec!["verify", "--key", &key],
        vec!["verify", "--json"],
        vec!["prove", "1", "--bare"],
    ] {
        assert_eq!(code(&world, &args), good(), "{args:?}");
    }
    assert_eq!(code(&world, &["show", "7"]), unreadable());
    // op1 has the records 3 and 4; each proof stands alone.
    let mut names: Vec<_> = std::fs::read_dir(&proofs)
        .expect("written")
        .map(|entry| entry.expect("readable").path().display().to_string())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    for name in names {
        let args = ["verify-proof", &name, "--key", &key];
        assert_eq!(code(&world, &args), good());
    }
}

#[test]
fn a_proof_file_verifies_with_the_right_key_and_record_only() {
    let world = World::with_batches(3);
    let file = |name: &str| world.path().join(name).display().to_string();
    let (proof, record, vkey) = (file("5.tlog-proof"), file("record"), file("vkey"));
    assert_eq!(code(&world, &["prove", "5", "-o", &proof]), good());
    assert_eq!(
        code(&world, &["verify-proof", &proof, "--key", &vkey]),
        good()
    );
    std::fs::write(&record, "{}").expect("write");
    assert_eq!(
        code(
            &world,
            &[
                "verify-proof",
                &proof,
                "--key",
                &vkey,
                "--record",
                &record,
                "--json"
            ]
        ),
        not_verified()
    );
    let other =
        blockhost_ledger::keys::Signer::from_bytes(common::NAME, 1, &[9; 32]).expect("valid");
    let other = other.vkey().to_string();
    assert_eq!(
        code(&world, &["verify-proof", &proof, "--key", &other]),
        not_verified()
    );
    assert_eq!(code(&world, &["verify", "--key", &other]), not_verified());
}

#[test]
fn a_kept_checkpoint_is_compared() {
    let world = World::with_batches(3);
    let kept = world.path().join("kept");
    std::fs::copy(world.path().join("checkpoint"), &kept).expect("copied");
    let args = [
        "verify",
        "--trusted-checkpoint",
        kept.to_str().expect("text"),
    ];
    assert_eq!(code(&world, &args), good());
    std::fs::remove_dir_all(world.path().join("seg")).expect("removed");
    world.age();
    assert_eq!(code(&world, &args), not_verified());
}
