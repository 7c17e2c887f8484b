//! The last heads of the ledger, to check cheaply that a claimed earlier head is one of this history: whoever claims it
//! proves that a head from here only added to it. Pure; the gate remembers a head after every append.

use std::collections::VecDeque;

use blockhost_ledger::consistency::is_consistent;
use blockhost_ledger::merkle::Hash;
use blockhost_proto::action::LedgerAnchored;
use blockhost_proto::response::ErrorCode;

use crate::compartment::Failure;

/// How many heads are kept: whoever reads the ledger and then asks is a few appends late, not thousands.
const KEPT: usize = 4096;

/// Sizes and roots, oldest first.
#[derive(Debug, Default)]
pub struct Heads(VecDeque<(u64, Hash)>);

impl Heads {
    /// Remembers the head after an append.
    pub fn remember(&mut self, size: u64, root: Hash) {
        if self.0.back().is_some_and(|(last, _)| *last == size) {
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((size, root));
    }

    /// Whether the anchored head is one of this ledger's.
    ///
    /// # Errors
    /// `busy` when the head it is proved from is none of the last ones: the claim may be true, read the head again.
    /// `bad_params` when it is proved to be of another history, or not proved.
    pub fn check(&self, claim: &LedgerAnchored) -> Result<(), Failure> {
        let size = claim.head_size.get();
        let found = self.0.binary_search_by_key(&size, |(size, _)| *size);
        let Some((_, root)) = found.ok().and_then(|at| self.0.get(at)) else {
            let message = format!(
                "the ledger had no head of {size} records lately; read its head again and prove from that"
            );
            return Err(Failure::new(ErrorCode::Busy, message));
        };
        let anchored = (claim.size.get(), &claim.root.bytes());
        if is_consistent(anchored, (size, root), &claim.proof.hashes()) {
            return Ok(());
        }
        let message = format!(
            "the proof does not show that {} was the root of this ledger's first {} records",
            claim.root, claim.size
        );
        Err(Failure::new(ErrorCode::BadParams, message))
    }
}

#[cfg(test)]
mod tests {
    use blockhost_ledger::consistency::consistency_proof;
    use blockhost_ledger::merkle::{hex, leaf_hash, root_of};
    use blockhost_proto::action::Action;
    use serde_json::json;

    use super::*;

    fn claim(leaves: &[Hash], size: usize, head: usize, root: &Hash) -> LedgerAnchored {
        let proof = consistency_proof(&leaves[..head], size).expect("exists");
        let proof: Vec<String> = proof.iter().map(|hash| hex(hash)).collect();
        let params = json!({"chain_id": 1, "contract": format!("0x{}", "11".repeat(20)), "tx": format!("0x{}", "22".repeat(32)),
            "block": 3, "size": size, "root": hex(root), "head_size": head, "proof": proof});
        match Action::from_parts("ledger-anchored", &params).expect("valid") {
            Action::LedgerAnchored(action) => action,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_roots_of_this_history_pass_whatever_proof_comes_with_another() {
        let ours: Vec<Hash> = (0..40_u8).map(|i| leaf_hash(&[i])).collect();
        let mut theirs = ours.clone();
        theirs[5] = leaf_hash(b"other");
        let mut heads = Heads::default();
        for size in 1..=ours.len() {
            heads.remember(size as u64, root_of(&ours[..size]));
        }
        for size in 1..=ours.len() {
            for head in size..=ours.len() {
                let root = root_of(&ours[..size]);
                let code = |claim: &LedgerAnchored| heads.check(claim).err().map(|f| f.code);
                assert_eq!(code(&claim(&ours, size, head, &root)), None);
                let other = root_of(&theirs[..size]);
                if other != root {
                    for proof_of in [&ours, &theirs] {
                        let claim = claim(proof_of, size, head, &other);
                        assert_eq!(code(&claim), Some(ErrorCode::BadParams), "{size} of {head}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_head_that_is_not_one_of_the_last_is_not_guessed_about() {
        let leaves: Vec<Hash> = (0..8_u8).map(|i| leaf_hash(&[i])).collect();
        let mut heads = Heads::default();
        let claim = claim(&leaves, 4, 8, &root_of(&leaves[..4]));
        assert_eq!(
            heads.check(&claim).expect_err("empty").code,
            ErrorCode::Busy
        );
        heads.remember(8, root_of(&leaves));
        heads.check(&claim).expect("known");
        for size in 9..9 + KEPT as u64 {
            heads.remember(size, [0; 32]);
        }
        assert_eq!(heads.0.len(), KEPT, "it does not grow");
        assert_eq!(heads.check(&claim).expect_err("gone").code, ErrorCode::Busy);
    }
}
