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

/// What a command line prints, as another process, to standard output and standard error.
fn spoken(world: &World, args: &[&str]) -> (String, String) {
    #[expect(clippy::disallowed_methods, reason = "this very program")]
    let output = std::process::Command::new(std::env::current_exe().expect("known"))
        .args(["--exact", "speak", "--nocapture", "--ignored"])
        .env("LEDGER_DIR", world.path())
        .env("LEDGER_ARGS", args.join("\n"))
        .output()
        .expect("runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (text(&output.stdout), text(&output.stderr))
}

#[test]
#[ignore = "a part of the tests that read what is printed"]
fn speak() {
    let (Ok(dir), Ok(args)) = (std::env::var("LEDGER_DIR"), std::env::var("LEDGER_ARGS")) else {
        return;
    };
    let args = ["ledger"].into_iter().chain(args.split('\n'));
    let matches = command().try_get_matches_from(args).expect("parses");
    let args = LedgerArgs::from_arg_matches(&matches).expect("parses");
    println!();
    let _ = run(args, std::path::Path::new(&dir));
}

/// The line of JSON among the lines of the test's own program.
fn json(world: &World, args: &[&str]) -> serde_json::Value {
    let (out, errors) = spoken(world, args);
    let line = out.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("{out}{errors}"))).expect("JSON")
}

#[test]
fn a_proof_and_a_checkpoint_can_be_had_as_json() {
    let world = World::with_batches(3);
    let file = |name: &str| world.path().join(name).display().to_string();
    let (proof, small, vkey) = (file("p"), file("c"), file("vkey"));
    let told = json(&world, &["prove", "5", "--json"]);
    assert_eq!((&told["height"], &told["records"]), (&5.into(), &6.into()));
    std::fs::write(&proof, told["proof"].as_str().expect("text")).expect("written");
    let verify = ["verify-proof", &proof, "--key", &vkey];
    assert_eq!(code(&world, &verify), good());
    let told = json(&world, &["prove", "5", "--compact", "-o", &small, "--json"]);
    let length = std::fs::metadata(&small).expect("written").len();
    assert_eq!(
        (&told["bytes"], &told["height"]),
        (&length.into(), &5.into())
    );
    let head = json(&world, &["head", "--json"]);
    assert_eq!(
        json(&world, &["checkpoint", "--json"])["root"],
        head["root"]
    );
}

#[test]
fn names_of_others_files_do_nothing_to_a_terminal() {
    let world = World::with_batches(3);
    let name = "block_\u{1b}[2J\u{202e}.json";
    let (_, errors) = spoken(&world, &["verify-proof", name, "--key", &"x".repeat(3)]);
    assert!(!errors.contains('\u{1b}') && !errors.contains('\u{202e}'));
    let missing = world.path().join(name).display().to_string();
    let key = signer().vkey().to_string();
    let (_, errors) = spoken(&world, &["verify-proof", &missing, "--key", &key]);
    assert!(errors.contains("\\u{1b}[2J\\u{202e}"), "{errors:?}");
    assert!(!errors.contains('\u{1b}') && !errors.contains('\u{202e}'));
}

#[test]
fn a_directory_without_records_is_said_to_be_one() {
    let world = World::new();
    let (_, errors) = spoken(&world, &["list"]);
    assert!(errors.contains("there are no records in "), "{errors:?}");
    let (_, errors) = spoken(&World::with_batches(1), &["list"]);
    assert!(!errors.contains("no records"), "{errors:?}");
}

#[test]
fn every_verb_says_with_examples_how_it_is_used() {
    for verb in command().get_subcommands() {
        let help = verb.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        assert!(help.contains("Examples:"), "{}", verb.get_name());
        let json = verb.get_arguments().any(|arg| arg.get_id() == "json");
        // A claim is its own format; what keeps payloads has verbs of its own.
        let other = ["consistency", "blob"].contains(&verb.get_name());
        assert!(json || other, "{}", verb.get_name());
    }
}
