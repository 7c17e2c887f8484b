//! The independent verifier (`verifier/blockhost-ledger-verify.py`) on real ledgers, exports and proofs, on each of them
//! tampered with, on the vectors of RFC 8032, and on bytes that are made to break it.

mod common;

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
        .replace("2048", "4096");
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
        .replace("2048", "4096")
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
        .replace("2048", "4096")
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

/// Flips a bit of every file of a directory at many places, one after the other; the verifier has to find each, but for
/// places where nothing of meaning stands (`harmless`).
fn flips(original: &Path, args: &[&str], harmless: impl Fn(&str, usize, &[u8]) -> bool) {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut lines, mut names) = (Vec::new(), Vec::new());
    let mut files = Vec::new();
    list(original, Path::new(""), &mut files);
    for name in files {
        let bytes = std::fs::read(original.join(&name)).expect("read");
        for at in (0..bytes.len()).step_by((bytes.len() / 23).max(1)) {
            let path = name.to_str().expect("text");
            if harmless(path, at, &bytes) || in_features(&bytes, at) {
                continue;
            }
            let to = dir.path().join(lines.len().to_string());
            copy(original, &to);
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 7);
            std::fs::write(to.join(&name), changed).expect("write");
            lines.push(with_key(&[args, &[text(&to)]].concat()));
            names.push(format!("{path} at {at}"));
        }
    }
    assert!(lines.len() >= 18, "only {}", lines.len());
    let Some(answers) = run_all(&lines) else {
        return;
    };
    let mut same = 0;
    for (name, (code, said)) in names.iter().zip(answers) {
        // Some bits of a zstd frame change nothing of what it holds, the size of its window for one.
        if name.contains(".zst ") && code == 0 {
            same += 1;
            continue;
        }
        assert_eq!(code, 1, "{name}: {said}");
    }
    assert!(
        same <= 2,
        "{same} changes of compressed bytes were not found"
    );
}

/// Features are computed from the records and covered by no hash: only their number and range are looked at.
fn in_features(bytes: &[u8], at: usize) -> bool {
    const KEY: &[u8] = b",\"vector_features\":[";
    let line = bytes[..at].iter().rposition(|b| *b == b'\n').unwrap_or(0);
    bytes[line..at]
        .windows(KEY.len())
        .any(|window| window == KEY)
}

fn list(root: &Path, below: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(root.join(below)).expect("lists") {
        let entry = entry.expect("entry");
        let path = below.join(entry.file_name());
        if entry.path().is_dir() {
            list(root, &path, out);
        } else {
            out.push(path);
        }
    }
}

/// Two sealed segments and a log; with `rotated`, a second key from the first segment on.
fn sealed(rotated: bool) -> World {
    let world = World::new();
    let options = Options {
        segment_records: 300,
        ..common::small()
    };
    let dir = LedgerDir::open(world.path()).expect("opens");
    let (mut writer, _) = Writer::open(dir, signer(), "host", options).expect("opens");
    for batch in 0..14 {
        if rotated && batch == 3 {
            let key = Signer::from_bytes(common::NAME, 2, &[102; 32]).expect("valid");
            writer.rotate(key, &By::default()).expect("rotated");
        }
        let drafts: Vec<_> = (0..50)
            .map(|i| draft(Phase::Event, &format!("op{batch}.{i}")))
            .collect();
        writer.append(&drafts).expect("appended");
    }
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    writer.publish().expect("published");
    assert!(world.path().join("seg/000000000000.zst").exists());
    world
}

#[test]
fn sealed_segments_verify_with_their_records_where_zstd_is_and_by_their_hashes_elsewhere() {
    for rotated in [false, true] {
        let world = sealed(rotated);
        let line = with_key(&[text(world.path())]);
        let Some(answers) = run_all(std::slice::from_ref(&line)) else {
            return;
        };
        let (code, said) = &answers[0];
        let size = reader(&world).size();
        assert_eq!((*code, &said["records"]), (0, &json!(size)), "{said}");
        let found = tool("zstd");
        if found {
            assert_eq!(said["records_not_read"], 0, "{said}");
            assert_eq!(
                said["keys"].as_array().map(Vec::len),
                Some(1 + usize::from(rotated))
            );
        }
        // A record that names the next key has to be read; the hashes of others are enough for the tree.
        let without = run_with(std::slice::from_ref(&line), "yes").expect("runs");
        let (code, said) = &without[0];
        if rotated {
            assert!(
                *code == 2 && said.to_string().contains("install zstd"),
                "{said}"
            );
        } else {
            assert_eq!((*code, &said["records"]), (0, &json!(size)), "{said}");
            assert!(
                said["notes"].to_string().contains("zstd is not installed"),
                "{said}"
            );
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test looks for a tool")]
fn tool(name: &str) -> bool {
    let found = std::process::Command::new(name).arg("--version").output();
    if found.is_err() {
        eprintln!("partly skipped: {name} is not installed");
    }
    found.is_ok()
}

#[test]
fn a_flipped_bit_anywhere_in_sealed_segments_is_found() {
    if !tool("zstd") {
        return;
    }
    let world = sealed(true);
    std::fs::remove_dir_all(world.path().join("blockchain")).expect("removed");
    flips(world.path(), &[], |name, _, _| {
        !name.ends_with(".zst") && !name.ends_with(".hsh")
    });
}

#[test]
fn a_flipped_bit_anywhere_in_a_ledger_is_found() {
    let world = grown(300);
    let last = world
        .bytes()
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("frames");
    flips(world.path(), &[], |name, at, _| {
        // The key is given; the index repeats what the blocks say; behind the last commit stands nothing.
        ["vkey", "writer.lock", "blockchain/index.json"].contains(&name)
            || (name.starts_with("seg/") && at > last)
    });
}

#[test]
fn a_flipped_bit_anywhere_in_an_export_is_found() {
    let (world, dir) = (grown(300), tempfile::tempdir().expect("temp dir"));
    to_c2sp(
        &reader(&world),
        &LedgerDir::open(dir.path()).expect("opens"),
        None,
        &mut |_, _| {},
    )
    .expect("exported");
    flips(dir.path(), &[], |_, _, _| false);
}

#[test]
fn a_flipped_bit_anywhere_in_block_files_is_found() {
    let (world, dir) = (grown(300), tempfile::tempdir().expect("temp dir"));
    to_blocks(
        &reader(&world),
        &LedgerDir::open(dir.path()).expect("opens"),
        &mut |_, _| {},
    )
    .expect("exported");
    let kept = world.path().join("checkpoint");
    flips(
        dir.path(),
        &["--trusted-checkpoint", text(&kept)],
        |name, _, _| name == "index.json",
    );
}

#[test]
fn proofs_and_claims_verify_and_with_any_changed_byte_show_nothing_else() {
    let (world, dir) = (grown(20), tempfile::tempdir().expect("temp dir"));
    let reader = reader(&world);
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("write");
        path
    };
    let proof = reader.prove(9, true).expect("proved");
    let bare = reader.prove(9, false).expect("proved");
    let leaves: Vec<Hash> = (0..20)
        .map(|index| reader.leaf(index).expect("exists"))
        .collect();
    let claim = Claim {
        old_size: 13,
        old_root: root_of(&leaves[..13]),
        proof: consistency_proof(&leaves, 13).expect("exists"),
        new: reader.head().expect("head").note,
        old: None,
    };
    let claim = claim.to_string();
    let record = dir.path().join("record");
    std::fs::write(&record, reader.get(9).expect("exists")).expect("write");
    let Some((code, said)) = run(&[text(&file("proof", &proof))]) else {
        return;
    };
    assert_eq!(
        (code, &said["height"], &said["records"]),
        (0, &json!(10), &json!(20))
    );
    good(run(&[
        "--record",
        text(&record),
        text(&file("bare", &bare)),
    ]));
    let packed = dir.path().join("compact");
    let parsed = TlogProof::parse(&bare).expect("a proof");
    std::fs::write(&packed, pack(&parsed).expect("signed")).expect("write");
    good(run(&["--record", text(&record), text(&packed)]));
    wrong(run(&[text(&packed)]), "does not carry its record");
    let other = file("other", "{}");
    wrong(
        run(&["--record", text(&other), text(&packed)]),
        "does not match",
    );
    wrong(
        run(&[text(&file("bare", &bare))]),
        "does not carry its record",
    );
    wrong(
        run(&[
            "--record",
            text(&file("other", "{}")),
            text(&file("proof", &proof)),
        ]),
        "is not number 9",
    );
    let (code, said) = run(&[text(&file("claim", &claim))]).expect("runs");
    assert_eq!(
        (code, &said["old_records"], &said["old_signed"]),
        (0, &json!(13), &json!(false))
    );
    let (mut lines, mut wanted) = (Vec::new(), Vec::new());
    for (name, original) in [("proof", &proof), ("claim", &claim)] {
        for at in (0..original.len()).step_by(7) {
            let mut bytes = original.clone().into_bytes();
            bytes[at] ^= 1 << (at % 7);
            let path = dir.path().join(format!("{name}.{at}"));
            std::fs::write(&path, bytes).expect("write");
            lines.push(with_key(&[text(&path)]));
            wanted.push(format!("{name} at {at}"));
        }
    }
    for (name, (code, said)) in wanted.iter().zip(run_all(&lines).expect("runs")) {
        assert!(code == 1 || code == 2, "{name}: {said}");
    }
}

#[test]
fn hostile_files_are_refused_in_bounded_time_and_memory() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut lines: Vec<Vec<String>> = Vec::new();
    let mut number = 0;
    let mut place = |name: &str, bytes: &[u8]| {
        number += 1;
        let root = dir.path().join(number.to_string());
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(&path, bytes).expect("write");
        root
    };
    let huge = |prefix: &str| format!("{prefix}{}", "9".repeat(200_000));
    let deep = format!(
        "{{\"block_id\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let mut sealed = b"BHSEALED".to_vec();
    sealed.extend_from_slice(&[0xff; 300]);
    // Half of a frame behind a good header would be an interrupted append; before another segment it is not.
    let mut frame = world_header();
    frame.extend_from_slice(&[0xff; 9]);
    let between = place("seg/000000000000.log", &frame);
    std::fs::write(between.join("seg/000000000001.log"), &frame).expect("write");
    lines.push(with_key(&[text(&between)]));
    for root in [
        place("seg/000000000000.log", &[0xff; 4096]),
        place("seg/000000000000.log", b"BHLEDGER"),
        place("seg/000000000000.hsh", &sealed),
        place("seg/000000000000.hsh", b""),
        place("seg/000000000001.log", &[0; 64]),
        place("block_0000000001.json", deep.as_bytes()),
        place("block_0000000001.json", huge("{\"block_id\":").as_bytes()),
        place(
            "block_0000000001.json",
            b"{\"footprints\":[\"\\ud800\"],\"block_id\":1,\"block_id\":1}",
        ),
        place("block_0000000001.json", b"[]"),
        place("block_0000000001.json", b"\xff"),
    ] {
        lines.push(with_key(&[text(&root)]));
    }
    let note = signer().sign_checkpoint(&blockhost_ledger::note::Checkpoint {
        origin: common::NAME.into(),
        size: u64::MAX,
        root: [1; 32],
    });
    let log = place("tile/x", b"");
    std::fs::write(log.join("checkpoint"), &note).expect("write");
    lines.push(with_key(&[text(&log)]));
    for (name, bytes) in [
        ("p", huge("c2sp.org/tlog-proof@v1\nindex ")),
        (
            "p",
            format!(
                "c2sp.org/tlog-proof@v1\nindex 1\n{}\n{note}",
                "\n".repeat(5000)
            ),
        ),
        (
            "p",
            format!(
                "c2sp.org/tlog-proof@v1\nindex 1\n{}\n{note}",
                format!("{}\n", base(&[0; 32])).repeat(4000)
            ),
        ),
        (
            "p",
            format!(
                "blockhost-ledger/consistency@v1\nold {} {}\n\n{note}",
                u64::MAX,
                base(&[2; 32])
            ),
        ),
        (
            "p",
            format!(
                "blockhost-ledger/consistency@v1\nold 1 {}\n{}\n{note}",
                base(&[1; 32]),
                format!("{}\n", base(&[0; 32])).repeat(65)
            ),
        ),
    ] {
        lines.push(with_key(&[text(&place(name, bytes.as_bytes()).join(name))]));
    }
    let link = place("seg/x", b"");
    std::os::unix::fs::symlink("/dev/zero", link.join("seg/000000000000.log")).expect("linked");
    lines.push(with_key(&[text(&link)]));
    let Some(answers) = run_all(&lines) else {
        return;
    };
    for (line, (code, said)) in lines.iter().zip(answers) {
        assert!(code == 1 || code == 2, "{line:?}: {said}");
    }
}

fn world_header() -> Vec<u8> {
    World::with_batches(1).bytes()[..64].to_vec()
}

fn base(bytes: &[u8]) -> String {
    use base64ct::Encoding as _;
    base64ct::Base64::encode_string(bytes)
}

#[test]
fn the_command_line_says_what_is_wrong_with_it() {
    let world = World::with_batches(1);
    let dir = text(world.path()).to_owned();
    for (code, line) in [
        (2, vec!["/nonexistent".to_owned()]),
        (2, vec!["--key".into(), "/nonexistent".into(), dir.clone()]),
        (
            1,
            vec!["--key".into(), "name+00000000+AAAA".into(), dir.clone()],
        ),
        (2, vec![world.path().join("seg").display().to_string()]),
        (0, vec![dir]),
    ] {
        if let Some(answers) = run_all(std::slice::from_ref(&line)) {
            assert_eq!(answers[0].0, code, "{line:?}: {}", answers[0].1);
        }
    }
}
