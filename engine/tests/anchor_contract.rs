//! `LedgerAnchor` on a real local chain: that it agrees with the ledger's own verifier about every proof, keeps each
//! account's logs apart, never goes back, and what it costs.

mod common;

use alloy::primitives::{Address, B256, keccak256};
use alloy::providers::{DynProvider, Provider};
use alloy::sol_types::SolInterface;
use blockhost_engine::chain::bindings::LedgerAnchor::{
    self, LedgerAnchorErrors as E, LedgerAnchorInstance,
};
use blockhost_ledger::consistency::{consistency_proof, is_consistent};
use blockhost_ledger::merkle::{Hash, leaf_hash, node_hash, root_of};
use common::Anvil;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::task::JoinSet;

/// JSON's largest exact integer: the ledger has no greater height.
const MAX_SIZE: u64 = (1 << 53) - 1;
const ORIGIN: B256 = B256::repeat_byte(0x0a);

type Contract = LedgerAnchorInstance<DynProvider>;

async fn contract() -> Option<(Anvil, Contract)> {
    let anvil = Anvil::start(&[])?;
    let contract = LedgerAnchor::deploy(anvil.account(0)).await.unwrap();
    Some((anvil, contract))
}

fn words(hashes: &[Hash]) -> Vec<B256> {
    hashes.iter().map(|hash| B256::from(*hash)).collect()
}

fn decode(error: &alloy::contract::Error) -> E {
    let data = error
        .as_revert_data()
        .unwrap_or_else(|| panic!("no revert data: {error}"));
    E::abi_decode(&data).unwrap_or_else(|_| panic!("not an error of the contract: {data}"))
}

/// Anchors in a transaction, and what it used of gas; or the error with which it would revert.
async fn anchor(on: &Contract, origin: B256, head: (u64, Hash), proof: &[Hash]) -> Result<u64, E> {
    let call = on.anchor(origin, head.0, head.1.into(), words(proof));
    if let Err(e) = call.call().await {
        return Err(decode(&e));
    }
    let receipt = call.send().await.unwrap().get_receipt().await.unwrap();
    assert!(receipt.status(), "accepted when asked, reverted when sent");
    Ok(receipt.gas_used)
}

fn leaves(n: usize) -> Vec<Hash> {
    (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

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

#[tokio::test]
async fn an_anchored_log_grows_and_can_neither_shrink_nor_be_replaced() {
    let Some((anvil, on)) = contract().await else {
        return;
    };
    let all = leaves(20);
    let head = |size: usize| (size as u64, root_of(&all[..size]));
    let proof = |old: usize, new: usize| consistency_proof(&all[..new], old).unwrap();

    let error = anchor(&on, ORIGIN, (0, [0; 32]), &[]).await.unwrap_err();
    assert!(matches!(error, E::EmptyLedger(_)), "{error:?}");
    let error = anchor(&on, ORIGIN, head(7), &[[1; 32]]).await.unwrap_err();
    assert!(matches!(error, E::WrongProofLength(e) if e.given == alloy::primitives::U256::ONE));
    anchor(&on, ORIGIN, head(7), &[]).await.unwrap();
    anchor(&on, ORIGIN, head(13), &proof(7, 13)).await.unwrap();

    let error = anchor(&on, ORIGIN, head(12), &[]).await.unwrap_err();
    assert!(matches!(error, E::Rollback(e) if (e.anchoredSize, e.offeredSize) == (13, 12)));
    let error = anchor(&on, ORIGIN, head(13), &[]).await.unwrap_err();
    assert!(matches!(error, E::AlreadyAnchored(e) if e.size == 13));
    let error = anchor(&on, ORIGIN, (13, [9; 32]), &[]).await.unwrap_err();
    assert!(matches!(error, E::Fork(e) if e.size == 13 && e.offeredRoot == [9; 32]));
    // A history with another record 3 has its own proofs, and they lead to another old root.
    let mut rewritten = all.clone();
    rewritten[3] = leaf_hash(b"rewritten");
    let forged = consistency_proof(&rewritten[..20], 13).unwrap();
    let error = anchor(&on, ORIGIN, (20, root_of(&rewritten)), &forged)
        .await
        .unwrap_err();
    assert!(matches!(error, E::OldRootMismatch(_)), "{error:?}");
    let error = anchor(&on, ORIGIN, (20, root_of(&rewritten)), &proof(13, 20))
        .await
        .unwrap_err();
    assert!(matches!(error, E::NewRootMismatch(_)), "{error:?}");

    let kept = on.latest(common::address(0), ORIGIN).call().await.unwrap();
    let block = anvil
        .account(0)
        .get_block_by_number(kept.blockNumber.into())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (kept.size, kept.root.0, kept.count, kept.time),
        (13, head(13).1, 2, block.header.timestamp)
    );
    let events = on.Anchored_filter().from_block(0).query().await.unwrap();
    let events: Vec<_> = events
        .into_iter()
        .map(|(event, log)| {
            assert_eq!(event.owner, common::address(0));
            (
                event.count,
                event.size,
                event.root.0,
                event.previousBlock,
                log.block_number.unwrap(),
            )
        })
        .collect();
    let first = events[0].4;
    assert_eq!(
        events,
        [
            (1, 7, head(7).1, 0, first),
            (2, 13, head(13).1, first, kept.blockNumber)
        ]
    );
}

#[tokio::test]
async fn nobody_can_anchor_for_or_in_the_way_of_another_account_or_log() {
    let Some((anvil, on)) = contract().await else {
        return;
    };
    let stranger = LedgerAnchorInstance::new(*on.address(), anvil.account(1));
    let all = leaves(9);
    let head = |size: usize| (size as u64, root_of(&all[..size]));
    // First of all the stranger takes the name, with the largest size there is.
    anchor(&stranger, ORIGIN, (MAX_SIZE, [1; 32]), &[])
        .await
        .unwrap();
    anchor(&on, ORIGIN, head(4), &[]).await.unwrap();
    let other = B256::repeat_byte(0x0b);
    anchor(&on, other, head(2), &[]).await.unwrap();
    let size = async |owner: Address, origin: B256| {
        let kept = on.latest(owner, origin).call().await.unwrap();
        (kept.size, kept.count)
    };
    assert_eq!(size(common::address(0), ORIGIN).await, (4, 1));
    assert_eq!(size(common::address(0), other).await, (2, 1));
    assert_eq!(size(common::address(1), ORIGIN).await, (MAX_SIZE, 1));
    assert_eq!(size(common::address(2), ORIGIN).await, (0, 0));
}

#[tokio::test]
async fn the_contract_has_no_owner_takes_no_money_and_cannot_be_changed() {
    let Some((anvil, on)) = contract().await else {
        return;
    };
    let code = anvil.account(0).get_code_at(*on.address()).await.unwrap();
    let selectors: Vec<[u8; 4]> = LedgerAnchor::LedgerAnchorCalls::selectors().collect();
    let expected = [
        "anchor(bytes32,uint64,bytes32,bytes32[])",
        "latest(address,bytes32)",
        "checkExtension(uint64,bytes32,uint64,bytes32,bytes32[])",
        "MAX_SIZE()",
    ];
    let mut expected: Vec<[u8; 4]> = expected
        .iter()
        .map(|name| keccak256(name)[..4].try_into().unwrap())
        .collect();
    expected.sort_unstable();
    let mut found = selectors;
    found.sort_unstable();
    assert_eq!(found, expected, "nothing else can be called");
    // DELEGATECALL, CALLCODE and SELFDESTRUCT do not occur as instructions.
    let mut at = 0;
    while at < code.len() {
        assert!(
            !matches!(code[at], 0xf2 | 0xf4 | 0xff),
            "opcode {:#x} at {at}",
            code[at]
        );
        at += 1 + match code[at] {
            push @ 0x60..=0x7f => usize::from(push - 0x5f),
            _ => 0,
        };
    }
    let paid = on
        .anchor(ORIGIN, 1, B256::ZERO, Vec::new())
        .value(alloy::primitives::U256::from(1));
    assert!(paid.call().await.is_err(), "money would be lost in it");
}

/// What docs/ledger.md says about the price, and no more.
#[tokio::test]
async fn an_anchor_costs_no_more_gas_than_the_documentation_says() {
    let Some((_anvil, on)) = contract().await else {
        return;
    };
    // Growth, and the most gas. Gas is deterministic; the few bytes of calldata that are zero by chance are the slack.
    let rows = [
        (0, 1, 71_000),
        (1, 100, 48_000),
        (10_000, 1_000_000, 65_000),
        (1_000_000, 100_000_000, 74_000),
        (99_999_999, 100_000_000, 80_000),
    ];
    let mut table = String::new();
    let mut wrong = Vec::new();
    for (i, (old, new, most)) in rows.into_iter().enumerate() {
        let origin = B256::with_last_byte(u8::try_from(i).unwrap() + 1);
        let proof = if old > 0 {
            let claim = equal_leaves_claim(old, new);
            anchor(&on, origin, claim.old, &[]).await.unwrap();
            claim.proof
        } else {
            Vec::new()
        };
        let gas = anchor(&on, origin, (new, equal_leaves_root(new)), &proof)
            .await
            .unwrap();
        table.push_str(&format!("| {old} | {new} | {} | {gas} |\n", proof.len()));
        if gas > most || gas * 100 < most * 95 {
            wrong.push((old, new, gas, most));
        }
    }
    eprintln!("| from | to | hashes | gas |\n{table}");
    assert_eq!(
        wrong,
        [],
        "update the bounds here and the table in docs/ledger.md"
    );
}
