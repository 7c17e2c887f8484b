//! The checks of docs/ledger.md done with tools that nobody here wrote: sha256sum, jq, openssl, Python's hashlib.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::reader::Reader;
use common::World;

/// Runs a shell script in the ledger's directory; `None` when a tool is missing here.
#[expect(
    clippy::disallowed_methods,
    reason = "a test uses the tools that an operator would"
)]
fn sh(world: &World, tools: &[&str], script: &str) -> Option<String> {
    for tool in tools {
        let found = std::process::Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output()
            .expect("sh");
        if !found.status.success() {
            eprintln!("skipped: {tool} is not installed");
            return None;
        }
    }
    let output = std::process::Command::new("sh")
        .args(["-ec", script])
        .current_dir(world.path())
        .output()
        .expect("sh");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8(output.stderr).expect("text")
    );
    Some(text)
}

#[test]
fn jq_and_sha256sum_agree_on_records_chain_blocks_and_digests() {
    let world = World::with_batches(3);
    let script = r#"
        B=blockchain/block_0000000001.json
        for i in 0 1 2 3 4; do
            hash=$({ printf '\0'; jq -cjS ".footprints[$i] | del(.hash, .vector_features)" $B; } | sha256sum | cut -c1-64)
            test "$hash" = "$(jq -r ".footprints[$i].hash" $B)"
            test "$hash" = "$(jq -r ".footprints[$((i+1))].prev_hash" $B)"
            test "$(jq -cjS ".footprints[$i].metadata" $B | sha256sum | cut -c1-64)" = "$(jq -r ".footprints[$i].data_hash" $B)"
            test "$(jq ".footprints[$i].vector_features | length" $B)" = 64
            features=$(jq -c ".footprints[$i].vector_features" $B)
            grep -qF "$(jq -r ".footprints[$i].hash" $B)\",\"vector_features\":$features}" $B
        done
        test "$(jq -cjS 'del(.block_hash, .footprints)' $B | sha256sum | cut -c1-64)" = "$(jq -r .block_hash $B)"
        test "$(jq -r '.blocks[0].block_hash' blockchain/index.json)" = "$(jq -r .block_hash $B)"
    "#;
    sh(&world, &["jq", "sha256sum"], script);
}

#[test]
fn openssl_verifies_the_signature_of_the_checkpoint() {
    let world = World::with_batches(3);
    let script = r#"
        head -n 3 checkpoint > body
        tail -n 1 checkpoint | cut -d' ' -f3 | base64 -d | tail -c 64 > signature
        { printf '\060\052\060\005\006\003\053\145\160\003\041\000'; cut -d+ -f3- vkey | base64 -d | tail -c 32; } > key.der
        openssl pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -in body -sigfile signature
    "#;
    if let Some(said) = sh(&world, &["openssl", "base64"], script) {
        assert!(said.contains("Verified Successfully"), "{said}");
    }
}

#[test]
fn a_few_lines_of_python_verify_the_path_of_a_proof_file() {
    let world = World::with_batches(7);
    let reader = Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads");
    std::fs::write(
        world.path().join("p"),
        reader.prove(9, true).expect("proved"),
    )
    .expect("write");
    let script = r#"python3 - <<'END'
import base64, hashlib
sha = lambda data: hashlib.sha256(data).digest()
head, note = open('p').read().split('\n\n', 1)
magic, extra, index, *path = head.split('\n')
origin, size, root = note.split('\n')[:3]
node, last = int(index.split()[1]), int(size) - 1
h = sha(b'\0' + base64.b64decode(extra.split()[1]))
for sibling in map(base64.b64decode, path):
    if node % 2 or node == last:
        h = sha(b'\1' + sibling + h)
        while node % 2 == 0 and node: node //= 2; last //= 2
    else:
        h = sha(b'\1' + h + sibling)
    node //= 2; last //= 2
assert last == 0 and h == base64.b64decode(root)
print('proved', int(index.split()[1]), 'of', size)
END"#;
    if let Some(said) = sh(&world, &["python3"], script) {
        assert_eq!(said, "proved 9 of 14\n");
    }
}

/// The code of the documentation that begins with this line, as it stands there.
fn documented(first: &str) -> String {
    let text = include_str!("../../docs/ledger.md");
    let start = text
        .find(&format!("```\n{first}\n"))
        .expect("the documentation has it");
    let code = &text[start + 4..];
    code[..code.find("```").expect("it ends")].to_owned()
}

#[test]
fn the_shell_of_the_documentation_walks_from_every_record_to_the_root() {
    let script = documented("P=42.tlog-proof");
    let world = World::with_batches(25);
    let reader = Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads");
    // Left and right edges, and where the path skips levels.
    for index in [0, 1, 31, 32, 41, 47, 48, 49] {
        let proof = reader.prove(index, true).expect("proved");
        std::fs::write(world.path().join("42.tlog-proof"), proof).expect("write");
        let Some(said) = sh(&world, &["sha256sum", "basenc"], &script) else {
            return;
        };
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines.len() == 2 && lines[0] == lines[1], "{index}: {said}");
    }
    let proof = reader.prove(41, true).expect("proved");
    let moved = proof.replace("index 41", "index 40");
    std::fs::write(world.path().join("42.tlog-proof"), moved).expect("write");
    let said = sh(&world, &["sha256sum", "basenc"], &script).expect("tools are there");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() == 2 && lines[0] != lines[1], "{said}");
}
