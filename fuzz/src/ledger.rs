//! Targets of what readers of the ledger meet: segments and proofs that somebody else may have written. They use the
//! crate as any reader does. Also compiled into `tests/tests/fuzz.rs`, which runs them without a fuzzer.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use blockhost_ledger::bundle;
use blockhost_ledger::claim::Claim;
use blockhost_ledger::compact;
use blockhost_ledger::cosign::WitnessKey;
use blockhost_ledger::import::BlockFile;
use blockhost_ledger::keys::Signer;
use blockhost_ledger::merkle::{hex, leaf_hash, sha256};
use blockhost_ledger::note::{Checkpoint, Vkey, parse_decimal, parse_hash};
use blockhost_ledger::plugin::Registry;
use blockhost_ledger::policy::Policy;
use blockhost_ledger::proof::{TlogProof, verify_proof};
use blockhost_ledger::prune;
use blockhost_ledger::sealed::{self, Seal};
use blockhost_ledger::segment::{
    COMMIT, Commit, FRAME_BYTES, FrameReader, HEADER_BYTES, Header, RECORD, Step, checksum,
    file_name, first_of, look_behind, push_frame,
};
use blockhost_ledger::tiles::{self, Tile, TileTree};
use blockhost_ledger::witness::{AddCheckpoint, parse_size};
use blockhost_proto::action::Action;
use blockhost_proto::fuzz::Target;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "ledger_witness",
        seeds: witness_texts,
        run: witness_text,
    },
    Target {
        name: "ledger_segment",
        seeds: segments,
        run: segment,
    },
    Target {
        name: "ledger_sealed",
        seeds: seals,
        run: seal,
    },
    Target {
        name: "ledger_kept",
        seeds: kept_files,
        run: kept_file,
    },
    Target {
        name: "ledger_import",
        seeds: blocks,
        run: block,
    },
    Target {
        name: "ledger_text",
        seeds: texts,
        run: text,
    },
    Target {
        name: "ledger_tiles",
        seeds: tile_files,
        run: tile_file,
    },
];

/// A bundle, first as it was packed and then described by a head; and heads.
fn seals() -> Vec<Vec<u8>> {
    let records: Vec<Vec<u8>> = (0..3)
        .map(|n| format!("{{\"height\":{n},\"prev_hash\":\"{}\"}}", "0".repeat(64)).into_bytes())
        .collect();
    let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let packed = sealed::pack(&slices, &[0; 32]).expect("packs");
    let seal = Seal {
        first_height: 1,
        records: 3,
        root_before: [0; 32],
        prev: [0; 32],
        commit: Commit {
            size: 3,
            root: [0; 32],
            ts_us: 0,
            epoch: 1,
            signature: [0; 64],
        },
        bundles: vec![sealed::Bundle {
            compressed: 1,
            plain: packed.plain,
            elided: false,
            timestamp: 0,
            root: [0; 32],
        }],
        matters: vec![0, 2],
        epochs: Vec::new(),
        cosigned: Vec::new(),
    };
    vec![
        [&[0, 3], &packed.frame[..]].concat(),
        [&[1, 3], &packed.frame[..]].concat(),
        [&[2, 0], &seal.encode()[..]].concat(),
    ]
}

/// Heads of sealed segments are what their writer would have written; frames unpack to bounded bytes, the same with both
/// decoders, and to nothing but records that have the hashes.
fn seal(data: &[u8]) {
    let Some((&[how, count], bytes)) = data.split_first_chunk() else {
        return;
    };
    if how % 3 == 2 {
        let mut bytes = bytes.to_vec();
        // As somebody would who knows the format.
        sealed::mend(&mut bytes);
        if let Ok(seal) = Seal::decode(&bytes) {
            assert_eq!(seal.encode(), bytes);
        }
        return;
    }
    let leaves = vec![[7; 32]; usize::from(count)];
    let unpacked = sealed::unpack(bytes, 4096, how % 3 == 1, &[0; 32], &leaves);
    assert!(unpacked.is_err() || leaves.is_empty());
    if let Some(plain) = sealed::decompress_in_rust(bytes, 4096) {
        assert_eq!(plain.len(), 4096);
    }
}

/// Height of the first record of the segment that was pruned.
const PRUNED_FROM: u64 = 257;

/// The records that a `.kept` may be of.
fn pruned_records() -> Vec<Vec<u8>> {
    let record = |n: u64| {
        let height = PRUNED_FROM + n;
        format!("{{\"action\":\"x\",\"height\":{height},\"phase\":\"anchor\"}}").into_bytes()
    };
    (0..8).map(record).collect()
}

/// Some of them, all, none; and in the wrong order.
fn kept_files() -> Vec<Vec<u8>> {
    let records = pruned_records();
    [
        &[0, 3, 7][..],
        &[0, 1, 2, 3, 4, 5, 6, 7],
        &[],
        &[3, 1],
        &[5, 5],
    ]
    .iter()
    .map(|places| {
        let lines = places.iter().map(|place| records[*place].as_slice());
        lines.flat_map(|line| [line, b"\n"].concat()).collect()
    })
    .collect()
}

/// What is taken from a `.kept` are the records with the hashes that are known, in order, and nothing beside them; so a
/// file is taken exactly when its writer would have written it.
fn kept_file(data: &[u8]) {
    let records = pruned_records();
    let leaves: Vec<_> = records.iter().map(|record| leaf_hash(record)).collect();
    let mut rest = data;
    let mut expected = std::collections::BTreeMap::new();
    for (place, record) in (0_u32..).zip(records) {
        let line = [&record[..], b"\n"].concat();
        if let Some(behind) = rest.strip_prefix(&line[..]) {
            rest = behind;
            expected.insert(place, record);
        }
    }
    let kept = prune::read_kept(data, PRUNED_FROM, &leaves);
    assert_eq!(kept.ok(), rest.is_empty().then_some(expected));
}

const SALT: [u8; 8] = *b"saltsalt";
const HEADER: usize = 64;

fn signer() -> Signer {
    Signer::from_bytes("host.example/blockhost-ledger", 1, &[42; 32]).expect("a good name")
}

/// A header, two records and their commit; once to be taken as it is, once with its checksums made right again.
fn segments() -> Vec<Vec<u8>> {
    let header = Header {
        first_height: 1,
        root_before: [0; 32],
        salt: SALT,
    };
    let record = br#"{"height":1,"op_id":"x"}"#;
    let root = leaf_hash(record);
    let commit = Commit {
        size: 1,
        root,
        ts_us: 1,
        epoch: 1,
        signature: signer().sign_head(1, root),
    };
    let mut frames = Vec::new();
    push_frame(&mut frames, HEADER_BYTES, &SALT, RECORD, record);
    push_frame(&mut frames, HEADER_BYTES, &SALT, COMMIT, &commit.encode());
    push_frame(&mut frames, HEADER_BYTES, &SALT, RECORD, b"{}");
    let segment = [&header.encode()[..], &frames, &[0; 600]].concat();
    vec![[&[0], &segment[..]].concat(), [&[1], &segment[..]].concat()]
}

/// Makes the checksums of all frames right, as somebody would who knows the format.
fn repair(bytes: &mut [u8]) {
    let mut at = HEADER;
    while let Some(head) = bytes.get(at..at + FRAME_BYTES) {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = head[8];
        let Some(payload) = bytes.get(at + FRAME_BYTES..at.saturating_add(FRAME_BYTES + length))
        else {
            return;
        };
        let sum = checksum(&SALT, at as u64, kind, payload);
        bytes[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
        at += FRAME_BYTES + length;
    }
}

/// Every frame lies in the file, one behind the other, and is exactly what its writer would have written there.
fn segment(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(HEADER), 0);
    if let Ok(head) = <&[u8; HEADER]>::try_from(&bytes[..HEADER])
        && let Ok(header) = Header::decode(head)
    {
        assert_eq!(header.encode(), *head);
    }
    if how % 2 == 1 {
        repair(&mut bytes);
    }
    let file = memory(&bytes);
    let mut reader = FrameReader::new(file.as_fd(), "fuzz", SALT);
    let mut end = HEADER_BYTES;
    while let Step::Frame {
        offset,
        kind,
        payload,
    } = reader.next_frame().expect("memory can be read")
    {
        assert_eq!(offset, end);
        let mut again = Vec::new();
        push_frame(&mut again, offset, &SALT, kind, payload);
        let from = usize::try_from(offset).expect("small");
        assert_eq!(bytes.get(from..from + again.len()), Some(&again[..]));
        if let Some(commit) = Commit::decode(payload) {
            assert_eq!(commit.encode(), payload);
        }
        end += again.len() as u64;
    }
    assert_eq!(HEADER as u64, HEADER_BYTES);
    assert_eq!(reader.position(), end);
    assert!(!reader.goes_on().expect("memory can be read"));
    let tail = look_behind(file.as_fd(), "fuzz", &SALT, end).expect("memory can be read");
    assert!(tail.bytes <= bytes.len() as u64 - end);
    assert!(tail.commits.is_sorted_by(|a, b| a.0 < b.0));
    assert!(tail.commits.iter().all(|(offset, _)| *offset >= end));
}

fn memory(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = File::from(fd.expect("memory for a file"));
    file.write_all(bytes).expect("memory for a file");
    file
}

/// A block file of an earlier program: a footprint with right hashes and one with wrong ones.
fn blocks() -> Vec<Vec<u8>> {
    let metadata =
        r#"{"actions":[{"Create":{"resource":"100","config":{"mtu":1.5}}}],"token":"x"}"#;
    let footprint = |content: &str| {
        format!(
            r#"{{"plugin_id":"lxc","operation":"apply","timestamp":1,"data_hash":"{}","content_hash":"{content}","metadata":{metadata},"vector_features":[0.5]}}"#,
            hex(&sha256(metadata.as_bytes()))
        )
    };
    let zeros = "0".repeat(64);
    let good = footprint(&hex(&sha256(b"lxc:apply:1")));
    let file = format!(
        r#"{{"block_id":1,"timestamp":1,"previous_hash":"{zeros}","footprints":[{good},{}],"block_hash":"{zeros}"}}"#,
        footprint(&zeros)
    );
    vec![file.into_bytes()]
}

/// Whatever a file says, an event that comes of it is one that the agent takes, and its secrets are not in it.
fn block(data: &[u8]) {
    let Ok(block) = BlockFile::parse(data) else {
        return;
    };
    let registry = Registry::default();
    let _ = block.follows(None);
    for footprint in &block.footprints {
        let event = footprint.event(&block, &registry);
        assert_eq!(event.check(), Ok(()));
        let taken = Action::from_parts("ledger-append", &event.params());
        assert!(taken.is_ok(), "{taken:?}");
    }
    assert!(block.damage.iter().all(|text| !text.contains('\u{1b}')));
}

fn texts() -> Vec<Vec<u8>> {
    let signer = signer();
    let record = b"{\"height\":1}";
    let checkpoint = Checkpoint {
        origin: signer.vkey().name().to_owned(),
        size: 1,
        root: leaf_hash(record),
    };
    let note = signer.sign_checkpoint(&checkpoint);
    let proof = TlogProof {
        extra: Some(record.to_vec()),
        index: 0,
        path: Vec::new(),
        checkpoint: note.clone(),
    };
    let claim = Claim {
        old_size: 1,
        old_root: leaf_hash(record),
        proof: Vec::new(),
        new: note.clone(),
        old: Some(note.clone()),
    };
    [
        checkpoint.body(),
        note,
        proof.to_string(),
        signer.vkey().to_string(),
        "000000000001.log".to_owned(),
        "tile/0/x001/x234/067.p/8".to_owned(),
        claim.to_string(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// Texts that are accepted are printed as they were; nothing is proved but what was signed.
fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(proof) = TlogProof::parse(text) {
        assert_eq!(
            TlogProof::parse(&proof.to_string()).as_ref().ok(),
            Some(&proof)
        );
        if let Ok(proven) = verify_proof(text, None, signer().vkey()) {
            // The one record that this key ever signed for.
            assert_eq!((proven.index, proven.size), (0, 1));
            assert_eq!(proven.record, b"{\"height\":1}");
        }
    }
    if let Ok(checkpoint) = signer().vkey().open(text) {
        assert_eq!(
            (checkpoint.size, checkpoint.root),
            (1, leaf_hash(b"{\"height\":1}"))
        );
    }
    if let Ok(checkpoint) = Checkpoint::parse_body(text) {
        assert_eq!(
            Checkpoint::parse_body(&checkpoint.body()).ok(),
            Some(checkpoint)
        );
    }
    let _ = Checkpoint::parse_unverified(text);
    if let Ok(claim) = Claim::parse(text) {
        assert_eq!(Claim::parse(&claim.to_string()).as_ref(), Ok(&claim));
        if let Ok(shown) = claim.verify(&[signer().vkey().clone()]) {
            assert_eq!(shown.new, (1, leaf_hash(b"{\"height\":1}")));
        }
    }
    if let Some(tile) = Tile::parse(text) {
        assert_eq!(tile.path(), text);
    }
    if let Ok(key) = Vkey::parse(text) {
        assert_eq!(Vkey::parse(&key.to_string()).ok().as_ref(), Some(&key));
    }
    if let Some(first) = first_of(text) {
        assert_eq!(file_name(first), text);
    }
    if let Some(number) = parse_decimal(text) {
        assert_eq!(number.to_string(), text);
    }
    let _ = parse_hash(text);
}

/// A width, and a bundle or the one tile of a tree of that many records.
fn tile_files() -> Vec<Vec<u8>> {
    let records: [&[u8]; 3] = [b"{}", b"", b"{\"height\":1}"];
    let bundle = bundle::encode(records).expect("short");
    let hashes = tiles::encode(&records.map(leaf_hash));
    vec![[&[2], &bundle[..]].concat(), [&[2], &hashes[..]].concat()]
}

/// What is taken for a bundle is what would be written; hashes from any tile of the right length are computed, from one
/// of another length are not.
fn tile_file(data: &[u8]) {
    let Some((&width, bytes)) = data.split_first() else {
        return;
    };
    // Nobody signed a head of this record alone but for its own proof, which is not among the seeds.
    if let Ok(proof) = compact::unpack(bytes, b"{}") {
        assert!(verify_proof(&proof.to_string(), None, signer().vkey()).is_err());
    }
    let width = u16::from(width) + 1;
    if let Ok(records) = bundle::decode(bytes, width) {
        assert_eq!(records.len(), usize::from(width));
        assert_eq!(bundle::encode(records).as_deref(), Ok(bytes));
    }
    let tile = Tile::at(0, 0, width.into()).expect("in the tree");
    let hashes = tiles::decode(tile, bytes);
    assert_eq!(hashes.is_some(), bytes.len() == usize::from(width) * 32);
    let mut tree = TileTree::new(width.into(), |tile: Tile| {
        // A tree of 256 records has a second tile, with its root alone.
        let end = usize::from(tile.width()) * 32;
        bytes.get(..end).map(<[u8]>::to_vec).ok_or(())
    });
    let last = u64::from(width) - 1;
    let computed = tree.root(width.into()).is_ok() && tree.inclusion(last).is_ok();
    if bytes.len() >= usize::from(width) * 32 {
        assert!(computed && tree.consistency(last).is_ok());
    }
}

/// What a witness and its clients are sent: requests, sizes, policies, keys.
fn witness_texts() -> Vec<Vec<u8>> {
    let note = signer().sign_checkpoint(&Checkpoint {
        origin: signer().vkey().name().to_owned(),
        size: 1,
        root: leaf_hash(b"{}"),
    });
    let request = AddCheckpoint {
        old: 0,
        proof: vec![[7; 32]],
        note,
    };
    let policy = "witness A w.example/a+368ae5a1+BLcGd9LdC7E5RnJrVFgbYRlBFcxrD0rF3rm2Qdk0/MVB http://w:8780\n\
        group g any A\nquorum g\n";
    vec![
        request.to_string().into_bytes(),
        policy.into(),
        b"50\n".to_vec(),
    ]
}

fn witness_text(data: &[u8]) {
    let key = signer().vkey().clone();
    if let Ok(request) = AddCheckpoint::parse(data) {
        assert_eq!(
            request.to_string().as_bytes(),
            data,
            "one text for a request"
        );
        let judged = request.judge(&[key], None);
        assert!(judged.is_err() || request.old == 0);
    }
    if let Some(size) = parse_size(data) {
        assert_eq!(format!("{size}\n").as_bytes(), data);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(policy) = Policy::parse(text) {
        let _ = policy.check(text);
    }
    if let Ok(key) = WitnessKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
}
