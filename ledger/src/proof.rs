//! `.tlog-proof` files (C2SP tlog-proof): writing, reading, and verifying one offline with nothing but the log's key.

use crate::merkle::{Hash, leaf_hash, root_from_inclusion};
use crate::note::{NoteError, Vkey, parse_decimal, parse_hash};
use base64ct::{Base64, Encoding as _};

const MAGIC: &str = "c2sp.org/tlog-proof@v1";
/// Longest path of a tree that has 64-bit sizes.
const MAX_PATH: usize = 64;
/// Largest proof file that is read: a record in base64, a path, a checkpoint with signatures.
pub const MAX_PROOF_BYTES: usize = 256 * 1024;

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not the format.
    #[error("not a proof file: {0}")]
    Shape(&'static str),
    /// The proof carries no record and none was given.
    #[error("the proof does not carry its record; give the record's exact bytes (--record FILE)")]
    NoRecord,
    /// The checkpoint is not signed by the key.
    #[error("the checkpoint in the proof: {0}")]
    Checkpoint(#[from] NoteError),
    /// The record is not at this place of the signed tree.
    #[error(
        "the record is not number {index} of the {size} records of the signed head: the record, the path or the index was changed"
    )]
    NotIncluded {
        /// Leaf index that the proof claims.
        index: u64,
        /// Size of the signed tree.
        size: u64,
    },
}

/// The parts of a proof file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// Extra data; here the record's bytes, so that the file is complete. Believed only because its hash is proved.
    pub extra: Option<Vec<u8>>,
    /// Leaf index, from 0.
    pub index: u64,
    /// Audit path, from the leaf's sibling upwards.
    pub path: Vec<Hash>,
    /// The signed head.
    pub checkpoint: String,
}

/// What a verified proof proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Leaf index, from 0.
    pub index: u64,
    /// Number of records of the signed head.
    pub size: u64,
    /// Root of the signed head.
    pub root: Hash,
    /// The record's bytes.
    pub record: Vec<u8>,
}

impl TlogProof {
    /// Reads a proof file.
    ///
    /// # Errors
    /// Anything that is not exactly the format.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let bad = ProofError::Shape;
        if text.len() > MAX_PROOF_BYTES {
            return Err(bad("it is larger than 256 KiB"));
        }
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or(bad("there is no empty line before the checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(MAGIC) {
            return Err(bad("the first line is not c2sp.org/tlog-proof@v1"));
        }
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            Some(encoded) => {
                let extra =
                    Base64::decode_vec(encoded).map_err(|_| bad("the extra line is not base64"))?;
                lines.next();
                Some(extra)
            }
            None => None,
        };
        let index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(parse_decimal);
        let index = index.ok_or(bad("there is no line `index N`"))?;
        let path: Option<Vec<Hash>> = lines.map(parse_hash).collect();
        let path = path.ok_or(bad("a line of the path is not a base64 hash"))?;
        if path.len() > MAX_PATH {
            return Err(bad("the path is longer than any tree is high"));
        }
        Ok(Self {
            extra,
            index,
            path,
            checkpoint: checkpoint.to_owned(),
        })
    }
}

impl std::fmt::Display for TlogProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{MAGIC}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", Base64::encode_string(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.path {
            writeln!(f, "{}", Base64::encode_string(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Verifies a proof file against a key that the caller trusts. `record` (exact bytes) goes before the one in the file.
///
/// # Errors
/// The format, the signature or the path is wrong, or there is no record; see [`ProofError`].
pub fn verify_proof(text: &str, record: Option<&[u8]>, key: &Vkey) -> Result<Proven, ProofError> {
    let proof = TlogProof::parse(text)?;
    let record = record
        .or(proof.extra.as_deref())
        .ok_or(ProofError::NoRecord)?
        .to_vec();
    let head = key.open(&proof.checkpoint)?;
    let reached = root_from_inclusion(&leaf_hash(&record), proof.index, head.size, &proof.path);
    if reached != Some(head.root) {
        return Err(ProofError::NotIncluded {
            index: proof.index,
            size: head.size,
        });
    }
    Ok(Proven {
        index: proof.index,
        size: head.size,
        root: head.root,
        record,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Signer;
    use crate::merkle::{inclusion_proof, root_of};
    use crate::note::Checkpoint;
    use proptest::prelude::*;

    fn example(size: usize, index: usize) -> (Signer, String) {
        let signer = Signer::from_bytes("h/l", 1, &[3; 32]).expect("valid");
        let leaves: Vec<Hash> = (0..size)
            .map(|i| leaf_hash(format!("record {i}").as_bytes()))
            .collect();
        let head = Checkpoint {
            origin: "h/l".into(),
            size: size as u64,
            root: root_of(&leaves),
        };
        let proof = TlogProof {
            extra: Some(format!("record {index}").into_bytes()),
            index: index as u64,
            path: inclusion_proof(&leaves, index).expect("exists"),
            checkpoint: signer.sign_checkpoint(&head),
        };
        (signer, proof.to_string())
    }

    #[test]
    fn another_record_index_key_or_checkpoint_is_refused() {
        let (signer, text) = example(11, 4);
        assert_eq!(
            verify_proof(&text, None, signer.vkey())
                .expect("proved")
                .record,
            b"record 4"
        );
        assert!(matches!(
            verify_proof(&text, Some(b"record 5"), signer.vkey()),
            Err(ProofError::NotIncluded { .. })
        ));
        let moved = text.replace("index 4", "index 5");
        assert!(matches!(
            verify_proof(&moved, None, signer.vkey()),
            Err(ProofError::NotIncluded { .. })
        ));
        let other = Signer::from_bytes("h/l", 1, &[4; 32]).expect("valid");
        assert!(matches!(
            verify_proof(&text, None, other.vkey()),
            Err(ProofError::Checkpoint(NoteError::NoSignature { .. }))
        ));
        let larger = text.replace("\nh/l\n11\n", "\nh/l\n12\n");
        assert!(matches!(
            verify_proof(&larger, None, signer.vkey()),
            Err(ProofError::Checkpoint(NoteError::BadSignature { .. }))
        ));
        let bare: String = text
            .lines()
            .filter(|line| !line.starts_with("extra"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(
            verify_proof(&bare, None, signer.vkey()),
            Err(ProofError::NoRecord)
        );
        assert!(verify_proof(&bare, Some(b"record 4"), signer.vkey()).is_ok());
    }

    #[test]
    fn the_file_of_a_single_record_has_no_path_and_round_trips() {
        let (signer, text) = example(1, 0);
        assert_eq!(TlogProof::parse(&text).expect("parses").to_string(), text);
        assert!(verify_proof(&text, None, signer.vkey()).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_proof_reader_panic(text in any::<String>(), body in "[a-zA-Z0-9+/= \n]{0,200}") {
            let _ = TlogProof::parse(&text);
            let _ = TlogProof::parse(&format!("{MAGIC}\n{body}"));
        }

        #[test]
        fn a_proof_with_any_changed_byte_never_proves_another_record(at in any::<prop::sample::Index>(), bit in 0_u8..7) {
            let (signer, text) = example(11, 4);
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes)
                && let Ok(proven) = verify_proof(&text, None, signer.vkey())
            {
                prop_assert_eq!((proven.index, proven.record), (4, b"record 4".to_vec()));
            }
        }
    }
}
