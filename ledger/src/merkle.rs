//! The RFC 6962 Merkle tree over SHA-256: frontier for the writer, inclusion proofs for readers, their verification.
//! Pure functions over hashes; what a leaf contains is known by `record`, where it is stored by `segment`.

use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// RFC 6962 section 2.1: hash of a leaf, SHA-256(0x00 || data). This is a record's `hash`.
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(data)
        .finalize()
        .into()
}

/// RFC 6962 section 2.1: hash of an inner node, SHA-256(0x01 || left || right).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// [`leaf_hash`] of each, many at a time where that is faster.
#[must_use]
pub fn leaf_hashes(leaves: &[&[u8]]) -> Vec<Hash> {
    hashes(Some(0), leaves)
}

/// [`node_hash`] of the first two, the next two, and so on; one that is left over has no partner and no node.
fn node_hashes(children: &[Hash]) -> Vec<Hash> {
    let (pairs, _) = children.as_chunks::<2>();
    let pairs: Vec<&[u8]> = pairs.iter().map(|pair| pair.as_flattened()).collect();
    hashes(Some(1), &pairs)
}

#[cfg(feature = "cli")]
fn hashes(prefix: Option<u8>, messages: &[&[u8]]) -> Vec<Hash> {
    blockhost_sha256::of_each(prefix, messages)
}

/// One after the other: the root agent, which reads little, does not have the other way.
#[cfg(not(feature = "cli"))]
fn hashes(prefix: Option<u8>, messages: &[&[u8]]) -> Vec<Hash> {
    let hash = |message: &&[u8]| {
        let hash = Sha256::new().chain_update(prefix.as_slice());
        hash.chain_update(message).finalize().into()
    };
    messages.iter().map(hash).collect()
}

/// Plain SHA-256, for digests that are not nodes of the tree.
#[must_use]
pub fn sha256(data: &[u8]) -> Hash {
    Sha256::digest(data).into()
}

/// [`sha256`] of each, many at a time where that is faster.
#[cfg(feature = "index")]
pub(crate) fn sha256_of_each(data: &[&[u8]]) -> Vec<Hash> {
    hashes(None, data)
}

/// The root of the empty tree: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    sha256(b"")
}

/// Lower-case hexadecimal, as hashes are written in records and on the command line.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.extend([digit(byte >> 4), digit(byte & 15)].map(char::from));
    }
    out
}

/// The same for a hash, without allocating: readers compare one with every record.
pub(crate) fn hex_digits(hash: &Hash) -> [u8; 64] {
    let mut out = [0; 64];
    let (pairs, _) = out.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(hash) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    out
}

/// The hexadecimal digit of a number below 16. Reckoned and not looked up, so that many are made at a time.
const fn digit(number: u8) -> u8 {
    let letter = if number > 9 { b'a' - 10 - b'0' } else { 0 };
    b'0' + number + letter
}

/// The right edge of a growing tree: the roots of its perfect subtrees, at most 64 of them. Adding a leaf and asking
/// for the root cost O(log n); nothing else of the tree has to be in memory to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The frontier of the empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds one leaf hash at the right.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut size = self.size;
        // Each trailing one-bit of the size is a perfect subtree that the new leaf completes into a larger one.
        while size & 1 == 1 {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
            size >>= 1;
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Adds several leaf hashes at the right, in order.
    pub fn extend(&mut self, leaves: &[Hash]) {
        let mut rest = leaves;
        while !rest.is_empty() {
            // The largest perfect subtree that begins here and that there are leaves for.
            let fits = rest.len().ilog2();
            let level = match self.size {
                0 => fits,
                size => size.trailing_zeros().min(fits),
            };
            let (now, later) = rest.split_at(1 << level);
            self.push_subtree(level, perfect_root(now));
            rest = later;
        }
    }

    /// Adds a perfect subtree of 2^`level` leaves by its root. `false`, and nothing is added, when the tree so far is
    /// not a whole number of such subtrees.
    pub fn push_subtree(&mut self, level: u32, root: Hash) -> bool {
        let Some(leaves) = 1_u64.checked_shl(level) else {
            return false;
        };
        if !self.size.is_multiple_of(leaves) {
            return false;
        }
        let (mut hash, mut size) = (root, self.size >> level);
        while size & 1 == 1 {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
            size >>= 1;
        }
        self.peaks.push(hash);
        self.size += leaves;
        true
    }

    /// The root of the tree of all leaves pushed so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => empty_root(),
            Some(last) => peaks.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

/// The root of the tree over `leaves` (leaf hashes).
#[must_use]
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::new();
    frontier.extend(leaves);
    frontier.root()
}

/// The root over a power of two of leaves, level by level.
fn perfect_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        leaves => {
            let mut level = node_hashes(leaves);
            while level.len() > 1 {
                level = node_hashes(&level);
            }
            level.first().copied().unwrap_or_default()
        }
    }
}

/// RFC 6962 section 2.1.1: the audit path of leaf `index` in the tree over `leaves`, from the leaf's sibling upwards.
/// `None` when there is no such leaf.
#[must_use]
pub fn inclusion_proof(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let mut path = Vec::new();
    let (mut rest, mut at) = (leaves, index);
    while rest.len() > 1 {
        // The largest power of two below the length splits every RFC 6962 tree.
        let split = rest.len().next_power_of_two() / 2;
        let (left, right) = rest.split_at(split);
        if at < split {
            path.push(root_of(right));
            rest = left;
        } else {
            path.push(root_of(left));
            rest = right;
            at -= split;
        }
    }
    path.reverse();
    Some(path)
}

/// The root that an audit path leads to (RFC 9162 section 2.1.3.2); `None` when the path has the wrong length for this
/// index and size, or the index is outside of the tree.
#[must_use]
pub fn root_from_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Leaves of the test vectors shared by the RFC 6962 implementations (certificate-transparency, trillian, sunlight).
    fn vectors() -> Vec<Vec<u8>> {
        [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ]
        .iter()
        .map(|text| {
            (0..text.len())
                .step_by(2)
                .map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex"))
                .collect()
        })
        .collect()
    }

    fn leaves(n: usize) -> Vec<Hash> {
        (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn roots_equal_the_published_rfc_6962_vectors() {
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        assert_eq!(
            hex(&empty_root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let mut frontier = Frontier::new();
        for (data, root) in vectors().iter().zip(roots) {
            frontier.push(leaf_hash(data));
            assert_eq!(hex(&frontier.root()), root, "size {}", frontier.size());
        }
    }

    #[test]
    fn inclusion_proofs_equal_the_published_rfc_6962_vectors() {
        let all: Vec<Hash> = vectors().iter().map(|data| leaf_hash(data)).collect();
        let path = |size: usize, index| -> Vec<String> {
            inclusion_proof(&all[..size], index)
                .expect("exists")
                .iter()
                .map(|h| hex(h))
                .collect()
        };
        assert_eq!(path(1, 0), Vec::<String>::new());
        assert_eq!(
            path(8, 0),
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ]
        );
        assert_eq!(
            path(8, 5),
            [
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
        assert_eq!(
            path(3, 2),
            ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]
        );
    }

    #[test]
    fn every_index_of_every_tree_up_to_300_leaves_is_proved_and_no_other_position_is() {
        let all = leaves(300);
        let mut frontier = Frontier::new();
        for size in 1..=300_usize {
            frontier.push(all[size - 1]);
            let root = frontier.root();
            assert_eq!(root, root_of(&all[..size]));
            for from in [0, 1, size / 3, size / 2] {
                let mut grown = Frontier::new();
                all[..from].iter().for_each(|leaf| grown.push(*leaf));
                grown.extend(&all[from..size]);
                assert_eq!(grown, frontier, "from {from} to {size}");
            }
            for index in 0..size {
                let path = inclusion_proof(&all[..size], index).expect("exists");
                let (i, n) = (index as u64, size as u64);
                assert_eq!(
                    root_from_inclusion(&all[index], i, n, &path),
                    Some(root),
                    "{index} of {size}"
                );
                if i + 1 < n {
                    assert_ne!(
                        root_from_inclusion(&all[index], i + 1, n, &path),
                        Some(root),
                        "moved {index} of {size}"
                    );
                }
                assert_eq!(root_from_inclusion(&all[index], n, n, &path), None);
            }
            assert_eq!(inclusion_proof(&all[..size], size), None);
        }
    }

    proptest! {
        #[test]
        fn a_changed_shortened_or_lengthened_proof_never_leads_to_the_root(
            size in 2_usize..200, at in any::<prop::sample::Index>(), which in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let all = leaves(size);
            let index = at.index(size);
            let root = root_of(&all);
            let path = inclusion_proof(&all, index).expect("exists");
            let verify = |path: &[Hash]| root_from_inclusion(&all[index], index as u64, size as u64, path);
            let mut changed = path.clone();
            let hash = which.index(changed.len());
            changed[hash][usize::from(bit)] ^= 1 << bit;
            prop_assert_ne!(verify(&changed), Some(root));
            prop_assert_ne!(verify(&path[1..]), Some(root));
            let mut longer = path.clone();
            longer.push(all[0]);
            prop_assert_eq!(verify(&longer), None);
        }
    }
}
