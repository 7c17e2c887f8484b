//! Proofs and claims with a byte changed, files that are made to break the verifier, and wrong command lines.

use super::*;

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
