//! RFC 6962 consistency proofs: that a later tree only added to an earlier one. Pure functions over hashes, beside
//! [`crate::merkle`]; who keeps earlier heads, and where, is known by the callers.

use crate::merkle::{Hash, empty_root, node_hash, root_of};

/// RFC 6962 section 2.1.2: the proof that the tree over the first `old` of `leaves` is a beginning of the tree over all
/// of them. Empty for `old` 0 and for all leaves. `None` when there are not that many leaves.
#[must_use]
pub fn consistency_proof(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    if old > leaves.len() {
        return None;
    }
    let mut proof = Vec::new();
    let (mut rest, mut kept, mut whole) = (leaves, old, true);
    while kept > 0 && kept < rest.len() {
        // The largest power of two below the length splits every RFC 6962 tree.
        let split = rest.len().next_power_of_two() / 2;
        let (left, right) = rest.split_at(split);
        if kept <= split {
            proof.push(root_of(right));
            rest = left;
        } else {
            proof.push(root_of(left));
            rest = right;
            kept -= split;
            // From here on the old root itself is no node of the new tree, so the verifier needs the parts of it.
            whole = false;
        }
    }
    if kept > 0 && !whole {
        proof.push(root_of(rest));
    }
    proof.reverse();
    Some(proof)
}

/// Whether the proof shows that the tree of size `new` with root `new_root` only added to that of size `old` with root
/// `old_root` (RFC 9162 section 2.1.4.2). A size that shrank is never consistent.
#[must_use]
pub fn is_consistent(
    (old, old_root): (u64, &Hash),
    (new, new_root): (u64, &Hash),
    proof: &[Hash],
) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    // A power of two is a node of the new tree: the proof leaves out what the verifier has.
    let (seed, path) = if old.is_power_of_two() {
        (*old_root, proof)
    } else {
        match proof.split_first() {
            Some((first, path)) => (*first, path),
            None => return false,
        }
    };
    let shift = (old - 1).trailing_ones();
    let (mut node, mut last) = ((old - 1) >> shift, (new - 1) >> shift);
    let (mut old_hash, mut new_hash) = (seed, seed);
    for hash in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(hash, &old_hash);
            new_hash = node_hash(hash, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::{hex, leaf_hash};

    fn leaves(n: usize) -> Vec<Hash> {
        (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    /// The leaves that the RFC 6962 implementations share as test vectors.
    fn shared() -> Vec<Hash> {
        let data: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        data.iter().map(|leaf| leaf_hash(leaf)).collect()
    }

    #[test]
    fn proofs_equal_the_published_rfc_6962_vectors() {
        let all = shared();
        let proof = |old, new: usize| -> Vec<String> {
            let proof = consistency_proof(&all[..new], old).expect("exists");
            proof.iter().map(|hash| hex(hash)).collect()
        };
        assert_eq!(proof(1, 1), Vec::<String>::new());
        assert_eq!(
            proof(1, 8),
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ]
        );
        assert_eq!(
            proof(6, 8),
            [
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
        assert_eq!(
            proof(2, 5),
            [
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ]
        );
    }

    #[test]
    fn every_pair_of_sizes_up_to_130_is_proved_and_no_other_size_passes_for_it() {
        let all = leaves(130);
        let roots: Vec<Hash> = (0..=all.len()).map(|size| root_of(&all[..size])).collect();
        for new in 0..=all.len() {
            for old in 0..=new {
                let proof = consistency_proof(&all[..new], old).expect("exists");
                let check = |old: usize, new: usize| {
                    is_consistent((old as u64, &roots[old]), (new as u64, &roots[new]), &proof)
                };
                assert!(check(old, new), "{old} of {new}");
                assert!(old == new || !check(new, old), "rollback of {new} to {old}");
                if old > 0 && old < new {
                    let other = if old > 1 { old - 1 } else { old + 1 };
                    assert!(
                        other == new || !check(other, new),
                        "{other} for {old} of {new}"
                    );
                }
            }
            assert_eq!(consistency_proof(&all[..new], new + 1), None);
        }
    }

    #[test]
    fn a_history_that_was_rewritten_has_no_proof() {
        let (old, new) = (5, 9);
        let before = leaves(new);
        let mut after = before.clone();
        after[2] = leaf_hash(b"rewritten");
        let kept = root_of(&before[..old]);
        let proof = consistency_proof(&after, old).expect("exists");
        assert!(!is_consistent(
            (old as u64, &kept),
            (new as u64, &root_of(&after)),
            &proof
        ));
    }

    proptest! {
        #[test]
        fn a_changed_shortened_or_lengthened_proof_never_passes(
            new in 2_usize..200, at in any::<prop::sample::Index>(), which in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let all = leaves(new);
            let old = at.index(new - 1) + 1;
            let (old_root, new_root) = (root_of(&all[..old]), root_of(&all));
            let proof = consistency_proof(&all, old).expect("exists");
            let passes = |proof: &[Hash]| is_consistent((old as u64, &old_root), (new as u64, &new_root), proof);
            prop_assert!(passes(&proof));
            let mut changed = proof.clone();
            let hash = which.index(changed.len());
            changed[hash][usize::from(bit)] ^= 1 << bit;
            prop_assert!(!passes(&changed));
            prop_assert!(!passes(&proof[1..]));
            let mut longer = proof.clone();
            longer.push(all[0]);
            prop_assert!(!passes(&longer));
        }

        #[test]
        fn arbitrary_sizes_and_hashes_are_refused_and_never_panic(
            old in any::<u64>(), new in any::<u64>(), hashes in prop::collection::vec(any::<Hash>(), 0..70),
        ) {
            let root = [7; 32];
            prop_assert!(!is_consistent((old, &root), (new, &[8; 32]), &hashes));
        }
    }
}
