//! Contract and the ledger's own verifier agree about every proof.

use super::*;

/// One claim about two trees.
#[derive(Debug, Clone)]
struct Claim {
    old: (u64, Hash),
    new: (u64, Hash),
    proof: Vec<Hash>,
}

impl Claim {
    fn true_one(leaves: &[Hash], old: usize) -> Self {
        Self {
            old: (old as u64, root_of(&leaves[..old])),
            new: (leaves.len() as u64, root_of(leaves)),
            proof: consistency_proof(leaves, old).unwrap(),
        }
    }

    fn passes_in_rust(&self) -> bool {
        let in_bounds = 0 < self.old.0 && self.old.0 < self.new.0 && self.new.0 <= MAX_SIZE;
        in_bounds
            && is_consistent(
                (self.old.0, &self.old.1),
                (self.new.0, &self.new.1),
                &self.proof,
            )
    }

    async fn passes_on_chain(&self, on: &Contract) -> bool {
        let (old, new) = (self.old, self.new);
        let call = on.checkExtension(old.0, old.1.into(), new.0, new.1.into(), words(&self.proof));
        match call.call().await {
            Ok(_) => true,
            Err(e) => {
                decode(&e);
                false
            }
        }
    }

    /// The claim with one thing about it wrong, or another size, which may by chance be right.
    fn changed(mut self, how: Change) -> Self {
        match how {
            Change::Bit(at, bit) if !self.proof.is_empty() => {
                let at = at.index(self.proof.len());
                self.proof[at][bit / 8] ^= 1 << (bit % 8);
            }
            Change::Drop(at) if !self.proof.is_empty() => {
                let at = at.index(self.proof.len());
                self.proof.remove(at);
            }
            Change::Insert(at, hash) => {
                let at = at.index(self.proof.len() + 1);
                self.proof.insert(at, hash);
            }
            Change::Repeat(at) if !self.proof.is_empty() => {
                let at = at.index(self.proof.len());
                self.proof.push(self.proof[at]);
            }
            Change::Swap(a, b) if !self.proof.is_empty() => {
                let (a, b) = (a.index(self.proof.len()), b.index(self.proof.len()));
                self.proof.swap(a, b);
            }
            Change::OldSize(size) => self.old.0 = size,
            Change::NewSize(size) => self.new.0 = size,
            Change::OldRoot(bit) => self.old.1[bit / 8] ^= 1 << (bit % 8),
            Change::NewRoot(bit) => self.new.1[bit / 8] ^= 1 << (bit % 8),
            Change::Turn => std::mem::swap(&mut self.old, &mut self.new),
            Change::Bit(..) | Change::Drop(_) | Change::Repeat(_) | Change::Swap(..) => {
                self.proof.push([0; 32]);
            }
        }
        self
    }
}

#[derive(Debug, Clone)]
enum Change {
    Bit(prop::sample::Index, usize),
    Drop(prop::sample::Index),
    Insert(prop::sample::Index, Hash),
    Repeat(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    OldSize(u64),
    NewSize(u64),
    OldRoot(usize),
    NewRoot(usize),
    Turn,
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..300,
        (0_u32..64).prop_map(|bit| 1 << bit),
        Just(MAX_SIZE),
        Just(MAX_SIZE + 1),
        any::<u64>()
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<prop::sample::Index>(), 0_usize..256).prop_map(|(at, bit)| Change::Bit(at, bit)),
        any::<prop::sample::Index>().prop_map(Change::Drop),
        any::<(prop::sample::Index, Hash)>().prop_map(|(at, hash)| Change::Insert(at, hash)),
        any::<prop::sample::Index>().prop_map(Change::Repeat),
        any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(a, b)| Change::Swap(a, b)),
        size().prop_map(Change::OldSize),
        size().prop_map(Change::NewSize),
        (0_usize..256).prop_map(Change::OldRoot),
        (0_usize..256).prop_map(Change::NewRoot),
        Just(Change::Turn),
    ]
}

/// The root of `size` equal leaves: its perfect subtrees of one size are all the same, so that trees of any size can be
/// had in no time.
fn equal_leaves_root(size: u64) -> Hash {
    if size == 1 {
        return leaf_hash(b"the same");
    }
    let left = size.next_power_of_two() / 2;
    if left * 2 == size {
        let half = equal_leaves_root(left);
        return node_hash(&half, &half);
    }
    node_hash(&equal_leaves_root(left), &equal_leaves_root(size - left))
}

/// RFC 6962 section 2.1.2 word for word, over equal leaves.
fn equal_leaves_proof(old: u64, size: u64, whole: bool) -> Vec<Hash> {
    if old == size {
        return if whole {
            Vec::new()
        } else {
            vec![equal_leaves_root(size)]
        };
    }
    let left = size.next_power_of_two() / 2;
    let (mut proof, sibling) = if old <= left {
        (
            equal_leaves_proof(old, left, whole),
            equal_leaves_root(size - left),
        )
    } else {
        (
            equal_leaves_proof(old - left, size - left, false),
            equal_leaves_root(left),
        )
    };
    proof.push(sibling);
    proof
}

fn equal_leaves_claim(old: u64, new: u64) -> Claim {
    Claim {
        old: (old, equal_leaves_root(old)),
        new: (new, equal_leaves_root(new)),
        proof: equal_leaves_proof(old, new, true),
    }
}

/// Asks the chain about all claims, some at a time, and compares with the ledger's own verifier.
async fn agree(on: &Contract, claims: Vec<Claim>) -> (usize, usize) {
    let mut asked = JoinSet::new();
    let (mut passed, mut refused) = (0, 0);
    let mut compare = |(claim, on_chain): (Claim, bool)| {
        assert_eq!(claim.passes_in_rust(), on_chain, "{claim:?}");
        if on_chain {
            passed += 1;
        } else {
            refused += 1;
        }
    };
    for claim in claims {
        if asked.len() >= 16 {
            compare(asked.join_next().await.unwrap().unwrap());
        }
        let on = on.clone();
        asked.spawn(async move {
            let on_chain = claim.passes_on_chain(&on).await;
            (claim, on_chain)
        });
    }
    while let Some(answer) = asked.join_next().await {
        compare(answer.unwrap());
    }
    (passed, refused)
}

#[tokio::test]
async fn contract_and_ledger_agree_about_every_pair_of_small_sizes() {
    let Some((_anvil, on)) = contract().await else {
        return;
    };
    let all = leaves(48);
    let claims = (2..=all.len())
        .flat_map(|new| (1..new).map(move |old| (old, new)))
        .map(|(old, new)| Claim::true_one(&all[..new], old))
        .collect();
    assert_eq!(agree(&on, claims).await, (48 * 47 / 2, 0));
}

#[tokio::test]
async fn contract_and_ledger_agree_about_proofs_that_were_tampered_with() {
    let Some((_anvil, on)) = contract().await else {
        return;
    };
    let all = leaves(260);
    // Seeded: what fails once fails again.
    let config = Config::default();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = (
        2_usize..=all.len(),
        any::<prop::sample::Index>(),
        prop::collection::vec(change(), 1..3),
    );
    let claims: Vec<Claim> = (0..3000)
        .map(|_| {
            let (new, at, changes) = strategy.new_tree(&mut runner).unwrap().current();
            let old = at.index(new - 1) + 1;
            let claim = Claim::true_one(&all[..new], old);
            changes.into_iter().fold(claim, Claim::changed)
        })
        .collect();
    let (passed, refused) = agree(&on, claims).await;
    assert!(refused > 2500, "{passed} passed, {refused} refused");
}

#[tokio::test]
async fn contract_and_ledger_agree_about_trees_up_to_the_largest_size() {
    let Some((_anvil, on)) = contract().await else {
        return;
    };
    let mut claims = Vec::new();
    for bit in 1..53 {
        let power = 1_u64 << bit;
        for new in [power, power + 1, power * 2 - 1, MAX_SIZE, MAX_SIZE - 1] {
            for old in [1, power / 2, power / 2 + 1, power - 1, power, new - 1] {
                if 0 < old && old < new {
                    claims.push(equal_leaves_claim(old, new));
                }
            }
        }
    }
    let count = claims.len();
    assert!(claims.iter().all(Claim::passes_in_rust));
    assert_eq!(agree(&on, claims).await, (count, 0));
    let beyond = equal_leaves_claim(MAX_SIZE, MAX_SIZE + 1);
    let error = anchor(&on, ORIGIN, beyond.new, &[]).await.unwrap_err();
    assert!(matches!(error, E::SizeTooLarge(e) if e.size == MAX_SIZE + 1));
    assert!(!beyond.passes_on_chain(&on).await);
}

#[tokio::test]
async fn the_published_rfc_6962_vectors_are_accepted() {
    let Some((_anvil, on)) = contract().await else {
        return;
    };
    let roots = [
        (
            1,
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        ),
        (
            2,
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        ),
        (
            5,
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        ),
        (
            6,
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        ),
        (
            8,
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ),
    ];
    let hash = |text: &str| Hash::try_from(hex::decode(text).unwrap()).unwrap();
    let root = |size: u64| hash(roots.iter().find(|(n, _)| *n == size).unwrap().1);
    let published: [(u64, u64, &[&str]); 3] = [
        (
            1,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            6,
            8,
            &[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            5,
            &[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];
    for (old, new, proof) in published {
        let claim = Claim {
            old: (old, root(old)),
            new: (new, root(new)),
            proof: proof.iter().map(|text| hash(text)).collect(),
        };
        assert!(claim.passes_on_chain(&on).await, "{old} of {new}");
    }
}
