//! The consistency claim: a text file that shows, offline, that a signed head only added to an earlier one. What
//! C2SP tlog-witness sends to a witness, with a first line that says what it is and, when there is one, the earlier
//! head's own signature. Written by `consistency`, read by `verify-consistency` and by others' tools.

use crate::consistency::is_consistent;
use crate::merkle::Hash;
use crate::note::{Checkpoint, NoteError, Vkey, open_with, parse_decimal, parse_hash, short_name};
use base64ct::{Base64, Encoding as _};

const MAGIC: &str = "blockhost-ledger/consistency@v1";
/// A proof between trees with 64-bit sizes has at most one hash more than such a tree is high.
const MAX_PROOF: usize = 65;
/// Largest claim that is read: a proof and two checkpoints with signatures.
pub const MAX_CLAIM_BYTES: usize = 160 * 1024;

/// Why a claim shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Not the format.
    #[error("not a consistency file: {0}")]
    Shape(&'static str),
    /// The newer head is not signed by the key.
    #[error("the newer checkpoint: {0}")]
    New(NoteError),
    /// The older head claims to be signed by the key and is not, or is of another log.
    #[error("the older checkpoint: {0}")]
    Old(NoteError),
    /// The older head in the file is not the one that the proof is about.
    #[error(
        "the older checkpoint in the file is not the {size} records that its proof begins with"
    )]
    OtherOld {
        /// Size that the proof begins with.
        size: u64,
    },
    /// The newer head is signed by a key that was replaced before the older head was made.
    #[error(
        "the newer checkpoint is signed by {new}, which {old} of the older one replaced: whoever has that old key made it"
    )]
    Replaced {
        /// Key of the newer head, for messages.
        new: String,
        /// Key of the older head.
        old: String,
    },
    /// The newer tree is not the older one with records added.
    #[error(
        "the {new} records of the newer checkpoint do not begin with the {old} records of the older one: the history was rewritten, or the proof was changed"
    )]
    Inconsistent {
        /// Size of the older tree.
        old: u64,
        /// Size of the newer tree.
        new: u64,
    },
}

/// The parts of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Size of the older tree.
    pub old_size: u64,
    /// Root of the older tree.
    pub old_root: Hash,
    /// RFC 6962 consistency proof.
    pub proof: Vec<Hash>,
    /// The newer head, a signed note.
    pub new: String,
    /// The older head as a signed note, when its signer is to be shown too.
    pub old: Option<String>,
}

/// What a verified claim shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Size and root of the older tree.
    pub old: (u64, Hash),
    /// Size and root of the newer tree, signed.
    pub new: (u64, Hash),
    /// The older head was signed by one of the keys.
    pub old_signed: bool,
}

impl Claim {
    /// Reads a claim.
    ///
    /// # Errors
    /// Anything that is not exactly the format.
    pub fn parse(text: &str) -> Result<Self, ClaimError> {
        let bad = ClaimError::Shape;
        if text.len() > MAX_CLAIM_BYTES {
            return Err(bad("it is larger than 160 KiB"));
        }
        let (head, notes) = text
            .split_once("\n\n")
            .ok_or(bad("there is no empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(MAGIC) {
            return Err(bad("the first line is not blockhost-ledger/consistency@v1"));
        }
        let mut old = lines.next().unwrap_or_default().splitn(3, ' ');
        let (Some("old"), Some(size), Some(root)) = (old.next(), old.next(), old.next()) else {
            return Err(bad("there is no line `old SIZE ROOT`"));
        };
        let (Some(old_size), Some(old_root)) = (parse_decimal(size), parse_hash(root)) else {
            return Err(bad(
                "the line `old SIZE ROOT` has no size or no base64 root",
            ));
        };
        let mut proof = Vec::new();
        for line in lines {
            let hash = parse_hash(line).filter(|_| proof.len() < MAX_PROOF);
            proof.push(hash.ok_or(bad(
                "a line of the proof is not a hash, or there are too many",
            ))?);
        }
        // A checkpoint has one empty line, so two of them have three.
        let (new, old) = match notes
            .match_indices("\n\n")
            .map(|(at, _)| at)
            .collect::<Vec<_>>()[..]
        {
            [_] => (notes.to_owned(), None),
            [_, at, _] => (notes[..=at].to_owned(), Some(notes[at + 2..].to_owned())),
            _ => return Err(bad("it does not have one or two checkpoints")),
        };
        Ok(Self {
            old_size,
            old_root,
            proof,
            new,
            old,
        })
    }

    /// Checks everything that the claim says against the keys that the caller trusts: those of one log, oldest first. Of
    /// these the newer head may not have an earlier one than the older head.
    ///
    /// # Errors
    /// A signature or the proof is wrong; see [`ClaimError`].
    pub fn verify(&self, keys: &[Vkey]) -> Result<Shown, ClaimError> {
        let (new_key, new) = open_with(keys, &self.new).map_err(ClaimError::New)?;
        let mut old_signed = false;
        if let Some(note) = &self.old {
            let old = match open_with(keys, note) {
                Ok((key, old)) => {
                    // A size is of one epoch, and a larger one not of an earlier epoch.
                    if key > new_key || (key != new_key && old.size == new.size) {
                        let name = |at: usize| keys.get(at).map(short_name).unwrap_or_default();
                        let (new, old) = (name(new_key), name(key));
                        return Err(ClaimError::Replaced { new, old });
                    }
                    old_signed = true;
                    old
                }
                // A key that the caller does not have may have signed it: its size and root are still compared.
                Err(NoteError::NoSignature { .. }) => {
                    Checkpoint::parse_unverified(note).map_err(ClaimError::Old)?
                }
                Err(error) => return Err(ClaimError::Old(error)),
            };
            if (old.size, old.root) != (self.old_size, self.old_root) || old.origin != new.origin {
                let size = self.old_size;
                return Err(ClaimError::OtherOld { size });
            }
        }
        let (before, after) = ((self.old_size, &self.old_root), (new.size, &new.root));
        if !is_consistent(before, after, &self.proof) {
            let (old, new) = (self.old_size, new.size);
            return Err(ClaimError::Inconsistent { old, new });
        }
        Ok(Shown {
            old: (self.old_size, self.old_root),
            new: (new.size, new.root),
            old_signed,
        })
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let root = Base64::encode_string(&self.old_root);
        writeln!(f, "{MAGIC}\nold {} {root}", self.old_size)?;
        for hash in &self.proof {
            writeln!(f, "{}", Base64::encode_string(hash))?;
        }
        write!(f, "\n{}", self.new)?;
        match &self.old {
            Some(old) => write!(f, "\n{old}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consistency::consistency_proof;
    use crate::keys::Signer;
    use crate::merkle::{leaf_hash, root_of};
    use proptest::prelude::*;

    fn signer(seed: u8) -> Signer {
        Signer::from_bytes("h/l", 1, &[seed; 32]).expect("valid")
    }

    fn keys(seeds: &[u8]) -> Vec<Vkey> {
        let keys = seeds.iter().map(|seed| signer(*seed).vkey().clone());
        keys.collect()
    }

    fn note(signer: &Signer, leaves: &[Hash]) -> String {
        signer.sign_checkpoint(&Checkpoint {
            origin: "h/l".into(),
            size: leaves.len() as u64,
            root: root_of(leaves),
        })
    }

    fn example(old: usize, new: usize) -> Claim {
        let leaves: Vec<Hash> = (0..new).map(|i| leaf_hash(&i.to_be_bytes())).collect();
        Claim {
            old_size: old as u64,
            old_root: root_of(&leaves[..old]),
            proof: consistency_proof(&leaves, old).expect("exists"),
            new: note(&signer(3), &leaves),
            old: Some(note(&signer(3), &leaves[..old])),
        }
    }

    #[test]
    fn claims_read_back_as_they_were_written_and_show_what_they_say() {
        for (old, new) in [(1, 1), (1, 2), (3, 11), (8, 11), (11, 11), (64, 100)] {
            let mut claim = example(old, new);
            let shown = claim.verify(&keys(&[3])).expect("consistent");
            assert_eq!(
                (shown.old.0, shown.new.0, shown.old_signed),
                (old as u64, new as u64, true)
            );
            assert_eq!(Claim::parse(&claim.to_string()), Ok(claim.clone()));
            claim.old = None;
            assert_eq!(Claim::parse(&claim.to_string()), Ok(claim.clone()));
            assert!(!claim.verify(&keys(&[3])).expect("consistent").old_signed);
        }
    }

    #[test]
    fn another_key_root_size_or_older_checkpoint_is_refused() {
        let good = example(5, 11);
        assert!(matches!(
            good.verify(&keys(&[4])),
            Err(ClaimError::New(NoteError::NoSignature { .. }))
        ));
        let rewritten = Claim {
            old_root: [7; 32],
            old: None,
            ..good.clone()
        };
        let inconsistent = Err(ClaimError::Inconsistent { old: 5, new: 11 });
        assert_eq!(rewritten.verify(&keys(&[3])), inconsistent);
        let smaller = Claim {
            old_size: 4,
            old: None,
            ..good.clone()
        };
        assert!(smaller.verify(&keys(&[3])).is_err());
        let backwards = Claim {
            old_size: 12,
            old: None,
            ..good.clone()
        };
        assert!(backwards.verify(&keys(&[3])).is_err());
        let swapped = Claim {
            old: Some(good.new.clone()),
            ..good.clone()
        };
        assert_eq!(
            swapped.verify(&keys(&[3])),
            Err(ClaimError::OtherOld { size: 5 })
        );
        let forged = Claim {
            old: good.old.as_ref().map(|note| note.replace("\n5\n", "\n6\n")),
            ..good.clone()
        };
        assert!(matches!(
            forged.verify(&keys(&[3])),
            Err(ClaimError::Old(NoteError::BadSignature { .. }))
        ));
    }

    #[test]
    fn a_leaked_old_key_signs_no_head_after_one_of_a_later_key() {
        let leaves: Vec<Hash> = (0..11_usize).map(|i| leaf_hash(&i.to_be_bytes())).collect();
        let mut claim = example(5, 11);
        claim.old = Some(note(&signer(9), &leaves[..5]));
        let refused = claim.verify(&keys(&[3, 9]));
        assert!(
            matches!(refused, Err(ClaimError::Replaced { .. })),
            "{refused:?}"
        );
        // Nor the same head again: one size is of one epoch.
        let mut same = example(11, 11);
        same.old = Some(note(&signer(9), &leaves));
        for both in [[3, 9], [9, 3]] {
            let refused = same.verify(&keys(&both));
            assert!(
                matches!(refused, Err(ClaimError::Replaced { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn an_older_checkpoint_of_an_earlier_key_is_compared_but_not_called_signed() {
        let mut claim = example(5, 11);
        let leaves: Vec<Hash> = (0..5_usize).map(|i| leaf_hash(&i.to_be_bytes())).collect();
        claim.old = Some(note(&signer(9), &leaves));
        assert!(!claim.verify(&keys(&[3])).expect("consistent").old_signed);
        // With both keys it is, when its own is the earlier one.
        assert!(claim.verify(&keys(&[9, 3])).expect("consistent").old_signed);
        claim.old = Some(note(&signer(9), &leaves[..4]));
        assert_eq!(
            claim.verify(&keys(&[3])),
            Err(ClaimError::OtherOld { size: 5 })
        );
    }

    #[test]
    fn other_texts_are_no_claims() {
        let good = example(5, 11).to_string();
        for bad in [
            String::new(),
            good.replace("@v1", "@v2"),
            good.replace("old 5", "old 05"),
            good.replace("old 5", "new 5"),
            good.replacen('\n', "\n\n", 1),
            good.replacen("\n\n", "\n", 3),
            format!("{good}\n{good}"),
            format!(
                "{MAGIC}\nold 5 {}\n{}\n{}",
                Base64::encode_string(&[0; 32]),
                format!("{}\n", Base64::encode_string(&[0; 32])).repeat(66),
                example(5, 11).new
            ),
        ] {
            assert!(Claim::parse(&bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_claim_with_any_changed_byte_never_shows_something_else(at in any::<prop::sample::Index>(), bit in 0_u8..7) {
            let good = example(5, 11);
            let shown = good.verify(&keys(&[3])).expect("consistent");
            let mut bytes = good.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes)
                && let Ok(claim) = Claim::parse(&text)
                && let Ok(found) = claim.verify(&keys(&[3]))
            {
                prop_assert_eq!((found.old, found.new), (shown.old, shown.new));
            }
        }

        #[test]
        fn no_text_makes_the_reader_of_claims_panic(text in any::<String>(), body in "[a-z0-9+/= \n]{0,200}") {
            let _ = Claim::parse(&text);
            let _ = Claim::parse(&format!("{MAGIC}\nold 1 {body}"));
        }
    }
}
