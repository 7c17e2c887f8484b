//! A proof in as few bytes as it has: what a `.tlog-proof` says without its record, in binary, for a QR code or a label.
//! Opened beside the record, it gives that `.tlog-proof` back; nothing verifies this form by itself.

use crate::merkle::{leaf_hash, root_from_inclusion};
use crate::note::{Checkpoint, is_key_name};
use crate::proof::{ProofError, TlogProof};
use base64ct::{Base64, Encoding as _};

const MAGIC: &[u8; 4] = b"BHP\x01";
/// Most bytes of a compact proof: a key name of 200 bytes and a path of 64 hashes.
pub const MAX_BYTES: usize = 4 + 1 + 200 + 4 + 8 + 8 + 64 + 64 * 32;
const SIGNATURE: usize = 64;

/// The compact form: magic 4, length of the log's name 1, name, key id 4, index 8, size 8 (big end first), Ed25519
/// signature 64, and the hashes of the path. The root is left out: record and path lead to it, and the signature is over
/// it. `None` when the checkpoint has no plain signature of the log itself; cosignatures are left out.
#[must_use]
pub fn pack(proof: &TlogProof) -> Option<Vec<u8>> {
    let head = Checkpoint::parse_unverified(&proof.checkpoint).ok()?;
    // What the body says beyond the three lines would be lost, and with it the signature.
    let lines = proof
        .checkpoint
        .strip_prefix(&head.body())?
        .strip_prefix('\n')?;
    let start = format!("\u{2014} {} ", head.origin);
    let own = lines.lines().find_map(|line| {
        let bytes = Base64::decode_vec(line.strip_prefix(&start)?).ok()?;
        (bytes.len() == 4 + SIGNATURE).then_some(bytes)
    })?;
    let (id, signature) = own.split_at_checked(4)?;
    let mut out = MAGIC.to_vec();
    out.push(u8::try_from(head.origin.len()).ok()?);
    out.extend_from_slice(head.origin.as_bytes());
    out.extend_from_slice(id);
    out.extend_from_slice(&proof.index.to_be_bytes());
    out.extend_from_slice(&head.size.to_be_bytes());
    out.extend_from_slice(signature);
    out.extend_from_slice(&proof.path.concat());
    Some(out)
}

/// Is this a compact proof, by its first bytes?
#[must_use]
pub fn is_compact(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The `.tlog-proof` that a compact one stands for, about `record`. Not verified: that is
/// [`crate::proof::verify_proof`]'s, and about another record its signature is wrong.
///
/// # Errors
/// Not the format, or a path of the wrong length for its index and size.
pub fn unpack(bytes: &[u8], record: &[u8]) -> Result<TlogProof, ProofError> {
    parse(bytes, record).ok_or(ProofError::Shape("it is not a whole compact proof"))
}

fn parse(bytes: &[u8], record: &[u8]) -> Option<TlogProof> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let (length, rest) = bytes.strip_prefix(MAGIC)?.split_first()?;
    let (origin, rest) = rest.split_at_checked(usize::from(*length))?;
    let origin = std::str::from_utf8(origin)
        .ok()
        .filter(|name| is_key_name(name))?;
    let (id, rest) = rest.split_first_chunk::<4>()?;
    let (index, rest) = rest.split_first_chunk::<8>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let (signature, rest) = rest.split_first_chunk::<SIGNATURE>()?;
    let (path, []) = rest.as_chunks::<32>() else {
        return None;
    };
    let (index, size) = (u64::from_be_bytes(*index), u64::from_be_bytes(*size));
    let root = root_from_inclusion(&leaf_hash(record), index, size, path)?;
    let head = Checkpoint {
        origin: origin.to_owned(),
        size,
        root,
    };
    let line = Base64::encode_string(&[&id[..], &signature[..]].concat());
    Some(TlogProof {
        extra: Some(record.to_vec()),
        index,
        path: path.to_vec(),
        checkpoint: format!("{}\n\u{2014} {origin} {line}\n", head.body()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Signer;
    use crate::merkle::{Hash, inclusion_proof, node_hash, root_of};
    use crate::note::NoteError;
    use crate::proof::verify_proof;
    use crate::tiles::{self, Tile, TileTree};
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn signer() -> Signer {
        Signer::from_bytes("host.example/blockhost-ledger", 1, &[3; 32]).expect("valid")
    }

    fn example(size: usize, index: usize) -> TlogProof {
        let leaves: Vec<Hash> = (0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect();
        let (size, root) = (size as u64, root_of(&leaves));
        let origin = signer().vkey().name().to_owned();
        TlogProof {
            extra: Some(index.to_be_bytes().to_vec()),
            index: index as u64,
            path: inclusion_proof(&leaves, index).expect("exists"),
            checkpoint: signer().sign_checkpoint(&Checkpoint { origin, size, root }),
        }
    }

    /// A tree of equal records is known without being written: every subtree of a height has the same hash.
    #[test]
    fn the_proof_of_one_record_among_a_hundred_million_has_at_most_a_kibibyte() {
        const SIZE: u64 = 100_000_000;
        let record = b"{\"one\":\"of many\"}";
        let heights: Vec<Hash> =
            std::iter::successors(Some(leaf_hash(record)), |h| Some(node_hash(h, h)))
                .take(40)
                .collect();
        let mut tree = TileTree::new(SIZE, |tile: Tile| {
            let hash = heights[8 * usize::from(tile.level())];
            Ok::<_, Infallible>(tiles::encode(&vec![hash; usize::from(tile.width())]))
        });
        let origin = signer().vkey().name().to_owned();
        let root = tree.root(SIZE).expect("computed");
        for index in [0, 12_345_678, SIZE / 2, SIZE - 1] {
            let proof = TlogProof {
                extra: None,
                index,
                path: tree.inclusion(index).expect("computed"),
                checkpoint: signer().sign_checkpoint(&Checkpoint {
                    origin: origin.clone(),
                    size: SIZE,
                    root,
                }),
            };
            let text = proof.to_string();
            assert!(verify_proof(&text, Some(record), signer().vkey()).is_ok());
            // 27 hashes in base64 alone are 1215 bytes: the text is the format of others, the compact form is ours.
            assert!(text.len() <= 1536, "{}", text.len());
            let compact = pack(&proof).expect("signed");
            assert!(compact.len() <= 1024, "{}", compact.len());
            let back = unpack(&compact, record).expect("whole").to_string();
            let proven = verify_proof(&back, None, signer().vkey()).expect("proved");
            assert_eq!(
                (proven.index, proven.size, proven.root),
                (index, SIZE, root)
            );
        }
    }

    #[test]
    fn a_compact_proof_gives_the_file_back_and_proves_no_other_record() {
        for (size, index) in [(1, 0), (2, 1), (11, 4), (256, 255), (257, 256)] {
            let proof = example(size, index);
            let compact = pack(&proof).expect("signed");
            let record = index.to_be_bytes();
            assert_eq!(unpack(&compact, &record), Ok(proof.clone()));
            let other = unpack(&compact, b"another").expect("whole").to_string();
            let refused = verify_proof(&other, None, signer().vkey());
            assert!(
                matches!(
                    refused,
                    Err(ProofError::Checkpoint(NoteError::BadSignature { .. }))
                ),
                "{refused:?}"
            );
            for end in 0..compact.len() {
                let cut = unpack(&compact[..end], &record).map(|cut| cut.to_string());
                assert!(
                    cut.is_err()
                        || verify_proof(&cut.expect("whole"), None, signer().vkey()).is_err(),
                    "{end}"
                );
            }
        }
    }

    #[test]
    fn cosignatures_are_left_out_and_a_checkpoint_that_says_more_is_not_packed() {
        let mut proof = example(11, 4);
        let plain = proof.checkpoint.clone();
        proof
            .checkpoint
            .push_str(&format!("\u{2014} w.example/w {}=\n", "A".repeat(103)));
        let back = unpack(&pack(&proof).expect("signed"), &4_usize.to_be_bytes()).expect("whole");
        assert_eq!(back.checkpoint, plain);
        proof.checkpoint = plain.replacen("\n\n", "\nextension\n\n", 1);
        assert_eq!(pack(&proof), None);
    }

    proptest! {
        #[test]
        fn no_changed_byte_makes_it_prove_anything_else(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let proof = example(11, 4);
            let mut compact = pack(&proof).expect("signed");
            let at = at.index(compact.len());
            compact[at] ^= 1 << bit;
            if let Ok(found) = unpack(&compact, &4_usize.to_be_bytes()) {
                prop_assert!(verify_proof(&found.to_string(), None, signer().vkey()).is_err());
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = unpack(&bytes, b"{}");
            let _ = unpack(&[MAGIC, &bytes[..]].concat(), b"{}");
        }
    }
}
