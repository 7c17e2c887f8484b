//! The independent verifier (`verifier/blockhost-ledger-verify.py`) on real ledgers, exports and proofs, on each of them
//! tampered with, on the vectors of RFC 8032, and on bytes that are made to break it.

#[path = "../common/mod.rs"]
mod common;
mod flips;
mod hostile;

use blockhost_ledger::claim::Claim;
use blockhost_ledger::compact::pack;
use blockhost_ledger::consistency::consistency_proof;
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::epochs::By;
use blockhost_ledger::export::{to_blocks, to_c2sp};
use blockhost_ledger::keys::Signer;
use blockhost_ledger::merkle::{Hash, root_of};
use blockhost_ledger::proof::TlogProof;
use blockhost_ledger::reader::Reader;
use blockhost_ledger::record::Phase;
use blockhost_ledger::segment::{COMMIT, RECORD};
use blockhost_ledger::writer::{Options, Writer};
use common::{World, draft, rebuild, signer};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const PROGRAM: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/verifier/blockhost-ledger-verify.py"
);

/// Runs command lines of the verifier in one interpreter; exit code and JSON of each. `None` where there is no Python.
fn run_all(lines: &[Vec<String>]) -> Option<Vec<(i64, Value)>> {
    run_with(lines, "")
}

/// The same; with `without`, as on a machine that has no tools but Python.
#[expect(
    clippy::disallowed_methods,
    reason = "a test runs the program that it is about"
)]
fn run_with(lines: &[Vec<String>], without: &str) -> Option<Vec<(i64, Value)>> {
    const DRIVER: &str = r"
import contextlib, importlib.util, io, json, os, sys
if os.environ.get('WITHOUT_TOOLS'):
    os.environ['PATH'] = '/nonexistent'
spec = importlib.util.spec_from_file_location('verifier', sys.argv[1])
verifier = importlib.util.module_from_spec(spec)
sys.dont_write_bytecode = True
spec.loader.exec_module(verifier)
for line in json.load(sys.stdin):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = verifier.main(line)
    print(json.dumps([code, json.loads(out.getvalue())]))
";
    let child = std::process::Command::new("python3")
        .args(["-c", DRIVER, PROGRAM])
        .env("WITHOUT_TOOLS", without)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: python3 is not installed");
        return None;
    };
    let input = json!(
        lines
            .iter()
            .map(|line| [&["--json".to_owned()], &line[..]].concat())
            .collect::<Vec<_>>()
    );
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.to_string().as_bytes())
        .expect("written");
    let output = child.wait_with_output().expect("runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8(output.stderr).expect("text")
    );
    let text = String::from_utf8(output.stdout).expect("text");
    let answers: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an answer"))
        .collect();
    assert_eq!(answers.len(), lines.len());
    Some(answers)
}

/// Runs one command line with the right key.
fn run(args: &[&str]) -> Option<(i64, Value)> {
    run_all(&[with_key(args)]).map(|mut answers| answers.remove(0))
}

fn with_key(args: &[&str]) -> Vec<String> {
    let key = signer().vkey().to_string();
    ["--key", key.as_str()]
        .iter()
        .chain(args)
        .map(ToString::to_string)
        .collect()
}

fn good(answer: Option<(i64, Value)>) {
    if let Some((code, said)) = answer {
        assert_eq!(code, 0, "{said}");
    }
}

/// Not verified, with these words somewhere.
fn wrong(answer: Option<(i64, Value)>, words: &str) {
    if let Some((code, said)) = answer {
        assert_eq!(code, 1, "{said}");
        assert!(
            said.to_string().contains(words),
            "{words:?} is not in {said}"
        );
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn reader(world: &World) -> Reader {
    Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads")
}

fn grown(count: usize) -> World {
    let world = World::new();
    let (mut writer, _) = world.open();
    for batch in 0..count.div_ceil(100) {
        let drafts: Vec<_> = (0..100.min(count - batch * 100))
            .map(|i| draft(Phase::Event, &format!("op{batch}.{i}")))
            .collect();
        writer.append(&drafts).expect("appended");
    }
    writer.publish().expect("published");
    drop(writer);
    world
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[test]
fn the_vectors_of_rfc_8032_and_their_forgeries_are_told_apart() {
    // Section 7.1: key, message, signature of TEST 1, 2 and 3.
    let vectors = [
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ];
    let script = format!(
        r#"
import importlib.util, sys
sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location('verifier', {PROGRAM:?})
v = importlib.util.module_from_spec(spec)
spec.loader.exec_module(v)
h = bytes.fromhex
for key, message, signature in {vectors:?}:
    key, message, signature = h(key), h(message), h(signature)
    assert v.ed25519_verify(key, message, signature), key.hex()
    for bit in range(0, 512, 7):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not v.ed25519_verify(key, message, bytes(changed)), bit
    assert not v.ed25519_verify(key, message + b'x', signature)
    # The same number modulo the order of the group: a second signature nobody made.
    s = int.from_bytes(signature[32:], 'little') + v.L
    assert not v.ed25519_verify(key, message, signature[:32] + s.to_bytes(32, 'little'))
# Keys of small order 'sign' anything; points off the curve and second encodings are none.
one, zero = (1).to_bytes(32, 'little'), bytes(32)
assert not v.ed25519_verify(one, b'anything', one + zero)
assert not v.ed25519_verify(zero, b'anything', zero + zero)
assert v._point((v.P + 1).to_bytes(32, 'little')) is None
assert v._point((2).to_bytes(32, 'little')) is None
assert v.crc32c(b'123456789') == 0xe3069283
assert v.canonical_bytes({{'\u20ac': 1, '\U0001f600': 2, '\ufb33': '\x1f\x7f"'}}).decode() == '{{"\u20ac":1,"\U0001f600":2,"\ufb33":"\\u001f\x7f\\""}}'
"#
    );
    python(&script);
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test runs the program that it is about"
)]
fn python(script: &str) {
    let Ok(output) = std::process::Command::new("python3")
        .args(["-c", script])
        .output()
    else {
        eprintln!("skipped: python3 is not installed");
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8(output.stderr).expect("text")
    );
}

#[test]
fn a_real_ledger_its_block_files_and_its_export_verify() {
    let world = grown(700);
    let checkpoint = world.path().join("checkpoint");
    let kept = ["--trusted-checkpoint", text(&checkpoint)];
    let Some((code, said)) = run(&[kept[0], kept[1], "--all-signatures", text(world.path())])
    else {
        return;
    };
    assert_eq!(
        (code, &said["records"], &said["signatures"]),
        (0, &json!(700), &said["commits"]),
        "{said}"
    );
    assert_eq!(
        said["root"],
        blockhost_ledger::merkle::hex(&reader(&world).head().expect("head").root)
    );
    // Without a key from elsewhere it says what that does not show; without any it does not call it good.
    let dir = text(world.path()).to_owned();
    let (code, said) = run_all(&[vec![dir.clone()]]).expect("runs").remove(0);
    assert!(
        code == 0
            && said["notes"][0]
                .as_str()
                .expect("a note")
                .contains("not that it is authentic"),
        "{said}"
    );
    std::fs::remove_file(world.path().join("vkey")).expect("removed");
    wrong(
        run_all(&[vec![dir]]).map(|mut all| all.remove(0)),
        "no verifier key",
    );

    let blocks = world.path().join("blockchain");
    good(run(&[kept[0], kept[1], text(&blocks)]));
    let export = tempfile::tempdir().expect("temp dir");
    let target = LedgerDir::open(export.path()).expect("opens");
    to_c2sp(&reader_with_key(&world), &target, None, &mut |_, _| {}).expect("exported");
    good(run(&[kept[0], kept[1], text(export.path())]));
}

fn reader_with_key(world: &World) -> Reader {
    Reader::open(
        LedgerDir::open(world.path()).expect("opens"),
        Some(signer().vkey().clone()),
    )
    .expect("reads")
}

#[test]
fn a_ledger_with_three_keys_verifies_from_the_first_and_not_from_another() {
    let world = World::new();
    let (mut writer, _) = world.open();
    for epoch in 1..=3_u8 {
        if epoch > 1 {
            let key =
                Signer::from_bytes(common::NAME, epoch.into(), &[100 + epoch; 32]).expect("valid");
            writer.rotate(key, &By::default()).expect("rotated");
        }
        writer
            .append(&[draft(Phase::Event, "op")])
            .expect("appended");
    }
    writer.publish().expect("published");
    let last = Signer::from_bytes(common::NAME, 3, &[103; 32])
        .expect("valid")
        .vkey()
        .to_string();
    let Some((code, said)) = run(&[text(world.path())]) else {
        return;
    };
    assert_eq!(
        (code, said["keys"].as_array().map(Vec::len)),
        (0, Some(3)),
        "{said}"
    );
    let from_last = vec!["--key".to_owned(), last, text(world.path()).to_owned()];
    wrong(
        run_all(&[from_last]).map(|mut all| all.remove(0)),
        "was not made by",
    );
}

#[test]
fn each_kind_of_tampering_is_found() {
    let world = World::with_batches(5);
    let kept = world.path().join("kept");
    std::fs::copy(world.path().join("checkpoint"), &kept).expect("copied");
    let (header, frames) = world.frames();
    let plain: Vec<(u8, Vec<u8>)> = frames
        .iter()
        .map(|(_, kind, payload)| (*kind, payload.clone()))
        .collect();
    let dir = text(world.path());

    let mut removed = plain.clone();
    removed.remove(1);
    world.put_frames(&header, &removed);
    wrong(run(&[dir]), "height");
    let mut swapped = plain.clone();
    swapped.swap(0, 1);
    world.put_frames(&header, &swapped);
    wrong(run(&[dir]), "records were moved");
    let mut changed = plain.clone();
    let record = String::from_utf8(changed[0].1.clone())
        .expect("text")
        .replace("\"memory\":2048", "\"memory\":4096");
    changed[0].1 = record.into_bytes();
    world.put_frames(&header, &changed);
    wrong(run(&[dir]), "prev_hash");
    // The last record has none behind it: the root tells.
    let mut changed = plain.clone();
    let last = changed
        .iter()
        .rposition(|(kind, _)| *kind == RECORD)
        .expect("a record");
    changed[last].1 = String::from_utf8(changed[last].1.clone())
        .expect("text")
        .replace("\"memory\":2048", "\"memory\":4096")
        .into_bytes();
    world.put_frames(&header, &changed);
    wrong(run(&[dir]), "the commit signs");
    // The end cut off: the published checkpoint tells; without it, the one kept elsewhere.
    let short: Vec<_> = plain[..plain.len() - 3].to_vec();
    assert_eq!(short.last().map(|(kind, _)| *kind), Some(COMMIT));
    world.put_frames(&header, &short);
    wrong(run(&[dir]), "cut off");
    world.forget_published();
    wrong(run(&["--trusted-checkpoint", text(&kept), dir]), "cut off");
    // Rewritten with another key, and with the right one.
    let records: Vec<Vec<u8>> = plain
        .iter()
        .filter(|(kind, _)| *kind == RECORD)
        .map(|(_, payload)| payload.clone())
        .collect();
    let mut lies = records.clone();
    lies[2] = String::from_utf8(lies[2].clone())
        .expect("text")
        .replace("\"memory\":2048", "\"memory\":4096")
        .into_bytes();
    let thief = Signer::from_bytes(common::NAME, 1, &[9; 32]).expect("valid");
    world.put_frames(&header, &rebuild(&lies, &thief));
    wrong(run(&[dir]), "was not made by");
    world.put_frames(&header, &rebuild(&lies, &signer()));
    good(run(&[dir]));
    wrong(
        run(&["--trusted-checkpoint", text(&kept), dir]),
        "rewritten",
    );
}

#[test]
fn a_torn_end_is_no_tampering_and_a_hole_before_a_commit_is_none_of_a_crash() {
    let world = World::with_batches(3);
    let whole = world.bytes();
    let (_, frames) = world.frames();
    let second = usize::try_from(frames[3].0).expect("small");
    let mut torn = whole.clone();
    // Not the last byte that is not zero: a signature may end with a zero.
    let (at, _, payload) = frames.last().expect("a commit");
    let end = usize::try_from(*at).expect("small") + common::HEAD + payload.len();
    torn.splice(end..end, *b"half of a frame");
    world.put(&torn);
    let Some((code, said)) = run(&[text(world.path())]) else {
        return;
    };
    assert!(
        code == 0
            && said["notes"]
                .to_string()
                .contains("15 bytes behind the last commit"),
        "{said}"
    );
    let mut hole = whole;
    hole[second + 20] ^= 1;
    world.put(&hole);
    wrong(run(&[text(world.path())]), "a commit follows");
}
