//! Our formats beside programs that others wrote to the same specifications: canonical JSON, Merkle trees and proofs,
//! tiles, signed notes. Where they differ, one of us is wrong; where a published version of theirs is, it says so here.

mod common;

use blockhost_ledger::consistency::{consistency_proof, is_consistent};
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::export::to_c2sp;
use blockhost_ledger::jcs::{MAX_INTEGER, to_record_vec, to_vec};
use blockhost_ledger::keys::Signer;
use blockhost_ledger::merkle::{Hash, inclusion_proof, leaf_hash, root_from_inclusion, root_of};
use blockhost_ledger::note::{Checkpoint, Vkey};
use blockhost_ledger::reader::Reader;
use blockhost_ledger::record::Phase;
use blockhost_ledger::tiles;
use common::{World, draft, signer};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

// --- canonical JSON ---------------------------------------------------------------------------------------------------

/// Texts with what is written in several ways: controls, quotes, slashes, line separators, and characters on both sides
/// of the surrogates, which sort differently by UTF-16 and by code point.
fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        4 => any::<char>(),
        2 => prop::char::range('\0', '\u{a0}'),
        1 => prop::sample::select(vec!['"', '\\', '/', '\u{2028}', '\u{d7ff}', '\u{e000}', '\u{ffff}', '\u{10000}', '\u{10ffff}', '\u{feff}']),
    ];
    prop::collection::vec(character, 0..8).prop_map(String::from_iter)
}

fn json(key: BoxedStrategy<String>, text: BoxedStrategy<String>) -> impl Strategy<Value = Value> {
    let integer = prop_oneof![
        -MAX_INTEGER..=MAX_INTEGER,
        -1000..=1000_i64,
        Just(MAX_INTEGER),
        Just(-MAX_INTEGER)
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        integer.prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        let map = prop::collection::hash_map(key.clone(), inner.clone(), 0..8);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            map.prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What records may hold.
fn record() -> impl Strategy<Value = Value> {
    json(
        "[A-Za-z0-9_.:-]{1,6}".boxed(),
        text().prop_map(|text| text.replace('\u{7f}', "")).boxed(),
    )
}

proptest! {
    #[test]
    fn two_other_encoders_write_the_same_canonical_bytes(value in json(text().boxed(), text().boxed())) {
        let ours = String::from_utf8(to_vec(&value).expect("integers only")).expect("text");
        prop_assert_eq!(&serde_jcs::to_string(&value).expect("encodes"), &ours);
        prop_assert_eq!(&serde_json_canonicalizer::to_string(&value).expect("encodes"), &ours);
    }
}

#[test]
fn jq_writes_a_thousand_random_records_with_the_same_bytes() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = record();
    let values: Vec<Value> = (0..1000)
        .map(|_| strategy.new_tree(&mut runner).expect("made").current())
        .collect();
    let dir = tempfile::tempdir().expect("temp dir");
    // Written by serde_json in the order of its maps and with its escapes: jq has something to do.
    let input: String = values
        .iter()
        .map(|value| serde_json::to_string_pretty(value).expect("JSON") + "\n")
        .collect();
    std::fs::write(dir.path().join("in"), input).expect("write");
    let Some(output) = tool(dir.path(), "jq", &["-cS", ".", "in"]) else {
        return;
    };
    let lines: Vec<&[u8]> = output
        .strip_suffix(b"\n")
        .expect("lines")
        .split(|b| *b == b'\n')
        .collect();
    assert_eq!(lines.len(), values.len());
    for (line, value) in lines.iter().zip(&values) {
        let ours = to_record_vec(value).expect("a record");
        assert_eq!(*line, ours, "{value}");
    }
}

/// Runs a program; `None`, with a line that says so, where it is not installed.
#[expect(
    clippy::disallowed_methods,
    reason = "a test uses the tools that an operator would"
)]
fn tool(dir: &Path, name: &str, args: &[&str]) -> Option<Vec<u8>> {
    match std::process::Command::new(name)
        .args(args)
        .current_dir(dir)
        .output()
    {
        Ok(output) => {
            assert!(output.status.success(), "{}", output.stderr.escape_ascii());
            Some(output.stdout)
        }
        Err(_) => {
            eprintln!("skipped: {name} is not installed");
            None
        }
    }
}

// --- Merkle trees -----------------------------------------------------------------------------------------------------

type Sha256 = sha2_11::Sha256;
type Theirs = ct_merkle::mem_backed_tree::MemoryBackedTree<Sha256, Vec<u8>>;

fn both(size: usize) -> (Vec<Hash>, Theirs) {
    let mut theirs = Theirs::new();
    let mut ours = Vec::new();
    for i in 0..size {
        let data = format!("record {i}").into_bytes();
        ours.push(leaf_hash(&data));
        theirs.push(data);
    }
    (ours, theirs)
}

#[test]
fn every_root_inclusion_and_consistency_proof_up_to_70_records_is_that_of_ct_merkle() {
    for size in 1..=70 {
        let (ours, theirs) = both(size);
        assert_eq!(root_of(&ours)[..], theirs.root().as_bytes()[..]);
        for index in 0..size {
            let path = inclusion_proof(&ours, index).expect("exists");
            assert_eq!(
                path.concat(),
                theirs.prove_inclusion(index).as_bytes(),
                "{index} of {size}"
            );
        }
        for old in 1..=size {
            let proof = consistency_proof(&ours, old).expect("exists");
            assert_eq!(
                proof.concat(),
                theirs.prove_consistency(size - old).as_bytes(),
                "{old} to {size}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn ct_merkle_accepts_our_proofs_and_refuses_what_we_refuse(
        size in 2_usize..1500, at in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(),
    ) {
        let (ours, theirs) = both(size);
        let (index, old) = (at.index(size), from.index(size) + 1);
        let root = root_of(&ours);
        let mut path = inclusion_proof(&ours, index).expect("exists");
        let record = format!("record {index}").into_bytes();
        let accepted = |path: &[Hash]| {
            let proof = ct_merkle::InclusionProof::<Sha256>::from_bytes(path.concat());
            theirs.root().verify_inclusion(&record, index as u64, &proof).is_ok()
        };
        prop_assert!(accepted(&path));
        let bit = flip.index(path.len());
        path[bit][bit % 32] ^= 1;
        prop_assert!(!accepted(&path));
        prop_assert_ne!(root_from_inclusion(&ours[index], index as u64, size as u64, &path), Some(root));

        let old_root = root_of(&ours[..old]);
        let mut proof = consistency_proof(&ours, old).expect("exists");
        let accepted = |proof: &[Hash]| {
            let proof = ct_merkle::ConsistencyProof::<Sha256>::try_from_bytes(proof.concat()).expect("whole hashes");
            let before = ct_merkle::RootHash::<Sha256>::new(old_root.into(), old as u64);
            theirs.root().verify_consistency(&before, &proof).is_ok()
        };
        let ours_too = |proof: &[Hash]| is_consistent((old as u64, &old_root), (size as u64, &root), proof);
        prop_assert!(accepted(&proof) && ours_too(&proof));
        if !proof.is_empty() {
            let at = flip.index(proof.len());
            proof[at][at % 32] ^= 1;
            prop_assert!(!accepted(&proof) && !ours_too(&proof));
        }
    }
}

// --- tiles ------------------------------------------------------------------------------------------------------------

/// Their paths are those of Go's checksum database, with the tile height in front, and `data` for entries.
fn c2sp(path: &str) -> String {
    let path = path.strip_prefix("tile/8/").expect("height 8");
    format!("tile/{}", path.replacen("data/", "entries/", 1))
}

proptest! {
    #[test]
    fn tlog_tiles_adds_the_same_tiles_when_a_tree_grows(old in 0_u64..200_000, more in 0_u64..200_000) {
        let theirs: BTreeSet<String> = tlog_tiles::Tile::new_tiles(8, old, old + more).iter().map(|tile| c2sp(&tile.path())).collect();
        let ours: BTreeSet<String> = tiles::added(old, old + more).map(|tile| tile.path()).collect();
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn tlog_tiles_names_tiles_the_same(level in 0_u8..=6, index in 0_u64..1 << 15, width in 1_u64..=256, far in 0_u64..1 << 40) {
        // Far to the right there are only tiles of level 0.
        for (level, index) in [(level, index >> (2 * level)), (0, far)] {
            let size = (index * 256 + width) << (8 * u32::from(level));
            let ours = tiles::Tile::at(level, index, size).expect("in the tree");
            let theirs = tlog_tiles::Tile::new(8, level, index, u32::from(ours.width()), false);
            prop_assert_eq!(ours.path(), c2sp(&theirs.path()));
        }
    }
}

/// A directory that we exported, as their client reads it.
struct Exported(PathBuf);

impl tlog_tiles::TileReader for Exported {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &tlog_tiles::Tile| std::fs::read(self.0.join(c2sp(&tile.path())));
        tiles
            .iter()
            .map(|tile| {
                read(tile).map_err(|error| {
                    tlog_tiles::Error::InvalidInput(format!("{}: {error}", tile.path()))
                })
            })
            .collect()
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

#[test]
fn the_client_of_tlog_tiles_proves_from_our_export_what_we_prove() {
    let (world, dir) = (World::new(), tempfile::tempdir().expect("temp dir"));
    let (mut writer, _) = world.open();
    for batch in 0..5 {
        let drafts: Vec<_> = (0..133)
            .map(|i| draft(Phase::Event, &format!("op{batch}.{i}")))
            .collect();
        writer.append(&drafts).expect("appended");
    }
    writer.publish().expect("published");
    let reader = Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads");
    to_c2sp(
        &reader,
        &LedgerDir::open(dir.path()).expect("opens"),
        None,
        &mut |_, _| {},
    )
    .expect("exported");

    let note = std::fs::read(dir.path().join("checkpoint")).expect("read");
    let note = signed_note::Note::from_bytes(&note).expect("their reader takes it");
    let verifier = signed_note::StandardVerifier::new(&signer().vkey().to_string())
        .expect("their reader takes it");
    let known = signed_note::VerifierList::new(vec![Box::new(verifier)]);
    let (verified, unverified) = note.verify(&known).expect("verified");
    assert_eq!((verified.len(), unverified.len()), (1, 0));
    let head = tlog_tiles::Checkpoint::from_bytes(note.text()).expect("their reader takes it");
    assert_eq!((head.origin(), head.size()), (common::NAME, 665));

    let client = Exported(dir.path().to_owned());
    let hashes = tlog_tiles::TileHashReader::new(head.size(), *head.hash(), &client);
    assert_eq!(
        tlog_tiles::tree_hash(head.size(), &hashes).expect("tiles are right"),
        *head.hash()
    );
    let leaves: Vec<Hash> = (0..head.size())
        .map(|index| reader.leaf(index).expect("exists"))
        .collect();
    for index in [0, 1, 255, 256, 511, 512, 600, 664_usize] {
        let theirs =
            tlog_tiles::prove_record(head.size(), index as u64, &hashes).expect("tiles are right");
        let theirs: Vec<Hash> = theirs.iter().map(|hash| hash.0).collect();
        assert_eq!(Some(theirs), inclusion_proof(&leaves, index), "{index}");
        let theirs = tlog_tiles::prove_tree(head.size(), index as u64 + 1, &hashes)
            .expect("tiles are right");
        let theirs: Vec<Hash> = theirs.iter().map(|hash| hash.0).collect();
        assert_eq!(
            Some(theirs),
            consistency_proof(&leaves, index + 1),
            "{}",
            index + 1
        );
    }
    // A changed tile leads to nothing that their client accepts. (Version 0.2.0 lets some tiles through unchecked when
    // several subtrees of the head are in one tile, so the proof is what has to be checked.)
    let tile = dir.path().join("tile/0/001");
    let mut bytes = std::fs::read(&tile).expect("read");
    bytes[40] ^= 1;
    std::fs::write(&tile, bytes).expect("write");
    let accepted = tlog_tiles::prove_record(head.size(), 300, &hashes).is_ok_and(|proof| {
        let leaf = tlog_tiles::Hash(leaves[300]);
        tlog_tiles::check_record(&proof, head.size(), *head.hash(), 300, leaf).is_ok()
    });
    assert!(!accepted);
}

// --- signed notes -----------------------------------------------------------------------------------------------------

proptest! {
    #[test]
    fn notes_are_accepted_by_signed_note_both_ways(seed in any::<[u8; 32]>(), name in "[a-z0-9./-]{1,40}", size in any::<u64>(), root in any::<[u8; 32]>()) {
        use signed_note::Signer as _;
        let ours = Signer::from_bytes(&name, 1, &seed).expect("valid");
        let head = Checkpoint { origin: name.clone(), size, root };
        let note = ours.sign_checkpoint(&head);
        let verifier = signed_note::StandardVerifier::new(&ours.vkey().to_string()).expect("their reader takes it");
        let known = signed_note::VerifierList::new(vec![Box::new(verifier)]);
        let theirs = signed_note::Note::from_bytes(note.as_bytes()).expect("their reader takes it");
        prop_assert!(theirs.verify(&known).is_ok());
        prop_assert_eq!(theirs.to_bytes(), note.as_bytes());
        let body = tlog_tiles::Checkpoint::from_bytes(theirs.text()).expect("their reader takes it");
        prop_assert_eq!((body.origin(), body.size(), body.hash().0), (name.as_str(), size, root));

        // Their key and signature, opened by us.
        let dir = tempfile::tempdir().expect("temp dir");
        ours.store(&LedgerDir::open(dir.path()).expect("opens")).expect("stored");
        let file = std::fs::read_to_string(dir.path().join(blockhost_ledger::keys::file_name(1))).expect("read");
        let signer = signed_note::StandardSigner::new(file.trim_end()).expect("their reader takes our key file");
        prop_assert_eq!((signer.name(), signer.key_id()), (name.as_str(), ours.vkey().id()));
        let mut fresh = signed_note::Note::new(head.body().as_bytes(), &[]).expect("a note");
        fresh.add_sigs(&[&signer]).expect("signed");
        let theirs = String::from_utf8(fresh.to_bytes()).expect("text");
        prop_assert_eq!(ours.vkey().open(&theirs), Ok(head));
    }

    #[test]
    fn what_signed_note_refuses_as_a_note_we_refuse(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let head = Checkpoint { origin: common::NAME.into(), size: 7, root: [7; 32] };
        let mut bytes = signer().sign_checkpoint(&head).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let verifier = signed_note::StandardVerifier::new(&signer().vkey().to_string()).expect("their reader takes it");
        let known = signed_note::VerifierList::new(vec![Box::new(verifier)]);
        let theirs = signed_note::Note::from_bytes(&bytes).is_ok_and(|note| note.verify(&known).is_ok());
        let key: &Vkey = &signer().vkey().clone();
        let ours = String::from_utf8(bytes).is_ok_and(|text| key.open(&text).is_ok());
        prop_assert_eq!(ours, theirs);
    }
}
