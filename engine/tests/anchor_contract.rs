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

#[path = "anchor_contract/agreement.rs"]
mod agreement;
