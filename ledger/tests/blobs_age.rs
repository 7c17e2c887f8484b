//! Confidential payloads as their owners handle them: `blockhost ledger blob` on a real ledger, whose writer does here
//! what the root agent's does, and Debian's own `age` beside ours in both directions.
#![cfg(feature = "age")]

mod common;

use base64ct::{Base64, Encoding as _};
use blockhost_ledger::blobs::{self, Quota, Store};
use blockhost_ledger::blobs_age::{AgeError, decrypt, encrypt};
use blockhost_ledger::cli::{LedgerArgs, command, run_with};
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::merkle::{hex, sha256};
use blockhost_ledger::record::{Draft, Phase};
use clap::FromArgMatches as _;
use common::{World, draft};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const LARGE: Quota = Quota {
    blobs: 100,
    bytes: 1 << 20,
};

/// An identity and its recipient.
fn keys() -> (String, String) {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    use age::secrecy::ExposeSecret as _;
    (identity.to_string().expose_secret().to_owned(), recipient)
}

/// What the agent does for these two actions, without the agent.
fn carry_out(world: &World, name: &str, params: &Value) -> Result<Value, String> {
    let (mut writer, recovery) = world.open();
    let ledger = LedgerDir::open(world.path()).expect("opens");
    let (mut store, _) = Store::open(ledger, recovery.blobs).expect("opens");
    let heading = |phase, op_id: &str, resource: String| Draft {
        plugin_id: blobs::PLUGIN.into(),
        action: name.into(),
        resource,
        metadata: serde_json::Map::new(),
        ..draft(phase, op_id)
    };
    if name == blobs::PUT {
        let text = params["ciphertext"].as_str().expect("text");
        let bytes = Base64::decode_vec(text).expect("base64");
        let hash = store.put(&bytes, LARGE).map_err(|e| e.to_string())?;
        let event = params["action"].as_str().expect("text");
        let data = serde_json::Map::new();
        let record = Draft {
            metadata: blobs::metadata(&hash, bytes.len(), event, &data),
            ..heading(Phase::Event, "", "x".into())
        };
        writer.append(&[record]).expect("appended");
    } else {
        let hash = blobs::parse_hash(params["sha256"].as_str().expect("text")).expect("a hash");
        store.erase(&hash).map_err(|e| e.to_string())?;
        let intent = heading(Phase::Intent, "op1", blobs::resource(&hash));
        let record = blobs::shred_record(&intent, &hash, serde_json::Map::new());
        let outcome = heading(Phase::Outcome, "op1", blobs::resource(&hash));
        writer.append(&[intent, record, outcome]).expect("appended");
    }
    writer.publish().expect("published");
    Ok(json!({}))
}

/// The exit code of a command line.
fn code(world: &World, args: &[&str]) -> String {
    let matches = command()
        .try_get_matches_from(["ledger", "blob"].iter().chain(args))
        .expect("parses");
    let args = LedgerArgs::from_arg_matches(&matches).expect("parses");
    let ask = |name: &str, params: &Value| carry_out(world, name, params);
    format!("{:?}", run_with(args, world.path(), Some(&ask)))
}

fn exit(code: u8) -> String {
    format!("{:?}", std::process::ExitCode::from(code))
}

/// The one payload there is.
fn only_blob(world: &World) -> PathBuf {
    let mut found = Vec::new();
    for dir in std::fs::read_dir(world.path().join("blobs")).expect("there") {
        let files = std::fs::read_dir(dir.expect("readable").path()).expect("there");
        found.extend(files.map(|file| file.expect("readable").path()));
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn written(dir: &Path, name: &str, text: &str) -> String {
    let file = dir.join(name);
    std::fs::write(&file, text).expect("written");
    file.display().to_string()
}

#[test]
fn a_payload_goes_in_encrypted_comes_back_to_its_owner_only_and_is_shredded() {
    let world = World::new();
    let outside = tempfile::tempdir().expect("directory");
    let (secret, recipient) = keys();
    let (stranger, _) = keys();
    let recipients = written(
        outside.path(),
        "r.txt",
        &format!("# tenant\n\n{recipient}\n"),
    );
    let key = written(
        outside.path(),
        "tenant.key",
        &format!("# made today\n{secret}\n"),
    );
    let other = written(outside.path(), "other.key", &stranger);
    let plain = written(outside.path(), "plain.txt", "terms of contract 7");
    let out = outside.path().join("out.txt");
    let output = out.display().to_string();
    let put = [
        "put",
        &plain,
        "--recipients",
        &recipients,
        "--event",
        "terms",
    ];
    assert_eq!(code(&world, &put), exit(0));
    let file = only_blob(&world);
    let bytes = std::fs::read(&file).expect("readable");
    assert!(!bytes.windows(8).any(|part| part == b"contract"));
    let name = hex(&sha256(&bytes));
    let get = |key: &str| code(&world, &["get", &name, "--identity", key, "-o", &output]);
    assert_eq!(get(&other), exit(3), "another key");
    assert!(!out.exists());
    assert_eq!(get(&key), exit(0));
    assert_eq!(std::fs::read(&out).expect("there"), b"terms of contract 7");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(&out).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        get(&key),
        exit(3),
        "a file that is there is not overwritten"
    );

    std::fs::write(&file, &bytes[..bytes.len() - 1]).expect("altered");
    std::fs::remove_file(&out).expect("removed");
    assert_eq!(get(&key), exit(1), "an altered payload is not decrypted");
    assert!(!out.exists());
    std::fs::write(&file, &bytes).expect("mended");

    assert_eq!(code(&world, &["list", "--json"]), exit(0));
    assert_eq!(
        code(&world, &["shred", &name, "--reason", "asked for"]),
        exit(0)
    );
    assert!(!file.exists());
    assert_eq!(get(&key), exit(3));
    assert_eq!(
        code(&world, &["shred", &name, "--reason", "again"]),
        exit(3)
    );
    assert_eq!(code(&world, &["list"]), exit(0));
    let report = world.verify();
    assert!(report.ok && report.shredded == 1, "{report:?}");
}

#[test]
fn without_a_recipient_nothing_is_encrypted_and_no_secret_is_quoted() {
    assert!(matches!(encrypt("# nobody\n", b"x"), Err(AgeError::Nobody)));
    assert!(matches!(
        encrypt("\nage1nonsense\n", b"x"),
        Err(AgeError::Recipient { line: 2, .. })
    ));
    let (secret, recipient) = keys();
    // The secret key in the place of the public one.
    let error = encrypt(&secret, b"x")
        .expect_err("no recipient")
        .to_string();
    assert!(!error.contains(&secret[20..40]), "{error}");
    let many = format!("{recipient}\n").repeat(33);
    assert!(matches!(encrypt(&many, b"x"), Err(AgeError::TooMany)));
    let large = vec![0; (1 << 20) + 1];
    assert!(matches!(encrypt(&recipient, &large), Err(AgeError::Size)));
    assert!(matches!(decrypt("", b"x"), Err(AgeError::Nobody)));
    assert!(matches!(
        decrypt(&recipient, b"x"),
        Err(AgeError::Identity { line: 1, .. })
    ));
}

#[test]
fn every_bit_that_is_changed_in_a_payload_is_noticed() {
    let (secret, recipient) = keys();
    let bytes = encrypt(&recipient, b"terms").expect("encrypted");
    assert_eq!(decrypt(&secret, &bytes).expect("decrypted"), b"terms");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(decrypt(&secret, &changed).is_err(), "byte {at}");
    }
    for length in 0..bytes.len() {
        assert!(
            decrypt(&secret, &bytes[..length]).is_err(),
            "cut at {length}"
        );
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the other program of the comparison"
)]
fn debians_age_reads_what_we_encrypt_and_we_read_what_it_encrypts() {
    let version = std::process::Command::new("age").arg("--version").output();
    if version.is_err() {
        eprintln!("skipped: there is no program `age` here (package age)");
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    let (secret, recipient) = keys();
    let (_, another) = keys();
    let key = written(dir.path(), "key", &secret);
    for plain in [&b""[..], b"terms of contract 7", &[0xa5; 70_000]] {
        let recipients = format!("{another}\n{recipient}\n");
        let theirs = written(dir.path(), "in.age", "");
        std::fs::write(&theirs, encrypt(&recipients, plain).expect("encrypted")).expect("written");
        let out = std::process::Command::new("age")
            .args(["-d", "-i", &key, &theirs])
            .output()
            .expect("runs");
        assert!(out.status.success(), "{out:?}");
        assert_eq!(out.stdout, plain);
        let file = dir.path().join("plain");
        std::fs::write(&file, plain).expect("written");
        let out = std::process::Command::new("age")
            .args(["-r", &recipient])
            .arg(&file)
            .output()
            .expect("runs");
        assert!(out.status.success(), "{out:?}");
        assert_eq!(decrypt(&secret, &out.stdout).expect("decrypted"), plain);
    }
}
