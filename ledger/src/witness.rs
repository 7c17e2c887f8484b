//! C2SP tlog-witness without its HTTP: reading an `add-checkpoint` request, judging it against what the witness saw
//! last, and writing one. Remembering durably and answering is the program's (`blockhost-witness`).

use crate::consistency::is_consistent;
use crate::merkle::{Hash, empty_root};
use crate::note::{Checkpoint, NoteError, Vkey, parse_decimal, parse_hash, parts};
use base64ct::{Base64, Encoding as _};

/// Largest request that is read, bytes: 63 hashes and a checkpoint with room for signatures.
pub const MAX_REQUEST_BYTES: usize = 32 * 1024;
/// Most lines of a consistency proof.
pub const MAX_PROOF_LINES: usize = 63;

/// An `add-checkpoint` request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the client believes the witness has cosigned last.
    pub old: u64,
    /// That the log only grew since.
    pub proof: Vec<Hash>,
    /// The signed checkpoint.
    pub note: String,
}

/// A head as a witness remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Number of records.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
}

/// Why a checkpoint is not cosigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a request.
    #[error("not an add-checkpoint request: {0}")]
    Malformed(&'static str),
    /// The note in it.
    #[error(transparent)]
    Note(NoteError),
    /// Nobody configured this log.
    #[error("this witness does not know the log")]
    UnknownLog,
    /// Not by a key of the log.
    #[error("no signature of a key that this witness trusts for the log verifies")]
    NotSigned,
    /// The old size is larger than the new one.
    #[error("the old size {old} is larger than the checkpoint's {new}")]
    OldLarger {
        /// The old size.
        old: u64,
        /// The checkpoint's.
        new: u64,
    },
    /// The client has another size in mind than the witness.
    #[error("the last checkpoint cosigned here has {0} records")]
    Stale(u64),
    /// The same size with another root: two histories.
    #[error("another root was cosigned here for {0} records: the log shows two histories")]
    Split(u64),
    /// The proof does not show that the log only grew.
    #[error("the consistency proof from {old} to {new} records does not verify")]
    Proof {
        /// From this size.
        old: u64,
        /// To this.
        new: u64,
    },
}

impl Refusal {
    /// The HTTP status that tlog-witness asks for.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Note(_) | Self::OldLarger { .. } => 400,
            Self::NotSigned => 403,
            Self::UnknownLog => 404,
            Self::Stale(_) | Self::Split(_) => 409,
            Self::Proof { .. } => 422,
        }
    }
}

impl AddCheckpoint {
    /// Reads a request's body.
    ///
    /// # Errors
    /// Anything that is not exactly the format.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let bad = Refusal::Malformed;
        if body.len() > MAX_REQUEST_BYTES {
            return Err(bad("it is larger than 32 KiB"));
        }
        let text = std::str::from_utf8(body).map_err(|_| bad("it is not text"))?;
        let (head, note) = text
            .split_once("\n\n")
            .ok_or(bad("there is no empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        let old = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(parse_decimal)
            .ok_or(bad("the first line is not `old N`"))?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == MAX_PROOF_LINES {
                return Err(bad("the proof has more than 63 lines"));
            }
            let hash = parse_hash(line).ok_or(bad("a line of the proof is not a base64 hash"))?;
            proof.push(hash);
        }
        Checkpoint::parse_unverified(note).map_err(Refusal::Note)?;
        Ok(Self {
            old,
            proof,
            note: note.to_owned(),
        })
    }

    /// The head that the request asks to have cosigned; nothing of it is checked.
    ///
    /// # Errors
    /// The note is none; never after [`Self::parse`].
    pub fn claim(&self) -> Result<Checkpoint, Refusal> {
        Checkpoint::parse_unverified(&self.note).map_err(Refusal::Note)
    }

    /// The text that a witness signs.
    ///
    /// # Errors
    /// The note is none; never after [`Self::parse`].
    pub fn body(&self) -> Result<&str, Refusal> {
        Ok(parts(&self.note).map_err(Refusal::Note)?.0)
    }

    /// Judges the request by the keys that are trusted for its log (none: the log is unknown) and by what was cosigned
    /// last. The head it gives may be cosigned once it is remembered.
    ///
    /// # Errors
    /// [`Refusal`], in the order of the specification.
    pub fn judge(&self, keys: &[Vkey], last: Option<&Seen>) -> Result<Checkpoint, Refusal> {
        let claim = self.claim()?;
        if keys.is_empty() {
            return Err(Refusal::UnknownLog);
        }
        // A note may carry signatures of keys not known here, and one good one is enough.
        let signed = keys
            .iter()
            .any(|key| key.name() == claim.origin && key.open(&self.note).is_ok());
        if !signed {
            return Err(Refusal::NotSigned);
        }
        let (old, new) = (self.old, claim.size);
        if old > new {
            return Err(Refusal::OldLarger { old, new });
        }
        let last = last.copied().unwrap_or(Seen {
            size: 0,
            root: empty_root(),
        });
        if old != last.size {
            return Err(Refusal::Stale(last.size));
        }
        if new == last.size && claim.root != last.root {
            return Err(Refusal::Split(new));
        }
        if !is_consistent((old, &last.root), (new, &claim.root), &self.proof) {
            return Err(Refusal::Proof { old, new });
        }
        Ok(claim)
    }
}

impl std::fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{}", Base64::encode_string(hash))?;
        }
        write!(f, "\n{}", self.note)
    }
}

/// Reads the body of a `409 Conflict` of type `text/x.tlog.size`.
#[must_use]
pub fn parse_size(body: &[u8]) -> Option<u64> {
    parse_decimal(std::str::from_utf8(body).ok()?.strip_suffix('\n')?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consistency::consistency_proof;
    use crate::keys::Signer;
    use crate::merkle::{leaf_hash, root_of};
    use proptest::prelude::*;

    fn signer() -> Signer {
        Signer::from_bytes("h/log", 1, &[3; 32]).expect("valid")
    }

    fn leaves(history: u8, count: u64) -> Vec<Hash> {
        (0..count)
            .map(|n| leaf_hash(&[&[history][..], &n.to_be_bytes()].concat()))
            .collect()
    }

    fn seen(history: u8, size: u64) -> Seen {
        let root = root_of(&leaves(history, size));
        Seen { size, root }
    }

    fn request(history: u8, old: u64, size: u64) -> AddCheckpoint {
        let leaves = leaves(history, size);
        let head = Checkpoint {
            origin: "h/log".into(),
            size,
            root: root_of(&leaves),
        };
        let old_leaves = usize::try_from(old).expect("small");
        AddCheckpoint {
            old,
            proof: consistency_proof(&leaves, old_leaves).unwrap_or_default(),
            note: signer().sign_checkpoint(&head),
        }
    }

    #[test]
    fn growth_is_cosigned_and_every_lie_gets_the_status_of_the_specification() {
        let keys = [signer().vkey().clone()];
        let good = request(1, 5, 9);
        let judge = |request: &AddCheckpoint, last: Option<Seen>| {
            request.judge(&keys, last.as_ref()).map(|c| c.size)
        };
        assert_eq!(judge(&request(1, 0, 5), None), Ok(5));
        assert_eq!(judge(&good, Some(seen(1, 5))), Ok(9));
        assert_eq!(judge(&request(1, 9, 9), Some(seen(1, 9))), Ok(9), "again");
        let status = |request: &AddCheckpoint, last: Option<Seen>| {
            judge(request, last).map_err(|e| e.status())
        };
        assert_eq!(good.judge(&[], None), Err(Refusal::UnknownLog));
        let stranger = Signer::from_bytes("h/log", 1, &[4; 32]).expect("valid");
        let strangers = [stranger.vkey().clone()];
        assert_eq!(good.judge(&strangers, None), Err(Refusal::NotSigned));
        // Rollback, whichever old size it is dressed in.
        assert_eq!(
            judge(&request(1, 0, 5), Some(seen(1, 9))),
            Err(Refusal::Stale(9))
        );
        let dressed = AddCheckpoint {
            old: 9,
            ..request(1, 0, 5)
        };
        assert_eq!(status(&dressed, Some(seen(1, 9))), Err(400));
        // Another history: of the same size, and grown.
        assert_eq!(
            judge(&request(2, 9, 9), Some(seen(1, 9))),
            Err(Refusal::Split(9))
        );
        assert_eq!(status(&request(2, 5, 9), Some(seen(1, 5))), Err(422));
        let bare = AddCheckpoint {
            proof: Vec::new(),
            ..good.clone()
        };
        assert_eq!(status(&bare, Some(seen(1, 5))), Err(422));
        let extra = AddCheckpoint {
            proof: vec![[0; 32]],
            ..request(1, 0, 5)
        };
        assert_eq!(status(&extra, None), Err(422), "the proof from 0 is empty");
    }

    #[test]
    fn an_empty_log_with_a_root_that_is_not_the_empty_trees_is_refused() {
        let head = Checkpoint {
            origin: "h/log".into(),
            size: 0,
            root: [7; 32],
        };
        let request = AddCheckpoint {
            old: 0,
            proof: Vec::new(),
            note: signer().sign_checkpoint(&head),
        };
        let keys = [signer().vkey().clone()];
        assert_eq!(request.judge(&keys, None), Err(Refusal::Split(0)));
    }

    #[test]
    fn requests_round_trip_and_what_is_not_exactly_one_is_malformed() {
        let good = request(1, 5, 9).to_string();
        assert_eq!(AddCheckpoint::parse(good.as_bytes()), Ok(request(1, 5, 9)));
        let line = format!("{}\n", Base64::encode_string(&[0; 32]));
        for bad in [
            String::new(),
            good.replacen("old 5", "old 05", 1),
            good.replacen("old 5", "old +5", 1),
            good.replacen("old 5", "old  5", 1),
            good.replacen("old 5", "Old 5", 1),
            good.replacen("old 5", "old 18446744073709551616", 1),
            good.replacen("old 5\n", "old 5\r\n", 1),
            good.replacen("old 5\n", "old 5\nAAAA\n", 1),
            good.replacen("old 5\n", &format!("old 5\n{}", line.repeat(64)), 1),
            good.replacen("\n\n", "\n", 1),
            good.trim_end().to_owned(),
            format!("{good}{}", "x".repeat(MAX_REQUEST_BYTES)),
        ] {
            let refusal = AddCheckpoint::parse(bad.as_bytes()).expect_err(&bad);
            assert_eq!(refusal.status(), 400, "{bad}");
        }
        assert!(AddCheckpoint::parse(b"old 0\n\n\xff").is_err());
    }

    #[test]
    fn a_size_is_a_decimal_line() {
        assert_eq!(parse_size(b"50\n"), Some(50));
        for bad in [&b"50"[..], b"050\n", b"\n", b"5\n\n", b"-5\n", b"\xff\n"] {
            assert_eq!(parse_size(bad), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_request_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "(old [0-9]{1,3}\n)?[A-Za-z0-9+/= \n]{0,200}",
        ) {
            let _ = AddCheckpoint::parse(&bytes);
            let _ = AddCheckpoint::parse(text.as_bytes());
            let _ = parse_size(&bytes);
        }

        #[test]
        fn a_request_with_any_changed_byte_never_has_another_head_cosigned(at in any::<prop::sample::Index>(), bit in 0_u8..7) {
            let good = request(1, 5, 9);
            let mut bytes = good.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let keys = [signer().vkey().clone()];
            if let Ok(request) = AddCheckpoint::parse(&bytes)
                && let Ok(head) = request.judge(&keys, Some(&seen(1, 5)))
            {
                prop_assert_eq!(head, good.claim().expect("a head"));
            }
        }
    }
}
