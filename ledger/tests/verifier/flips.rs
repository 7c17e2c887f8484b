//! One bit flipped anywhere, in a ledger, sealed or not, in an export, in block files.

use super::*;

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
