//! Money that a reorganisation takes back: it moves again, once, and it is on record. A real chain that forgets blocks, the
//! real programs.

mod common;

use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, U256};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;
use common::bank::{ADMIN, Bank, DEV, answer, complaint, usd};
use common::{address, done};
use serde_json::{Value, json};
use std::process::Output;
use std::time::{Duration, Instant};

const BLOCKHOST: &str = env!("CARGO_BIN_EXE_blockhost");
const BW: &str = env!("CARGO_BIN_EXE_bw");
const SHARES: &str = r#"{"recipients": [{"role": "dev", "percent": 10}]}"#;
const PAID: u64 = 333_333_333;

/// A host with something to pay out, and the block before the round.
async fn ready() -> Option<(Bank, u64)> {
    let bank = Bank::new().await?;
    bank.share(SHARES);
    // A wallet without anything, so that sums are exact.
    let made = bank.run(BLOCKHOST, &["funds", "run"]);
    assert!(made.status.success(), "{}", complaint(&made));
    bank.mint(bank.world.usd, bank.world.pos, U256::from(PAID))
        .await;
    let block = head(&bank).await;
    Some((bank, block))
}

async fn head(bank: &Bank) -> u64 {
    bank.maker().get_block_number().await.unwrap()
}

/// The chain forgets everything above a block, and has as many other blocks instead.
async fn forget_above(bank: &Bank, block: u64) {
    let depth = head(bank).await - block;
    assert!(depth > 0);
    bank.world
        .anvil
        .ask("anvil_reorg", json!([depth, []]))
        .await;
}

fn funds_run(bank: &Bank) -> Output {
    bank.run(BLOCKHOST, &["funds", "run", "--json"])
}

fn newest_round(bank: &Bank) -> Value {
    let status = answer(&bank.run(BLOCKHOST, &["funds", "status", "--json"]));
    let orders = status["orders"].as_array().unwrap().clone();
    orders
        .into_iter()
        .find(|order| order["kind"] == "round")
        .unwrap()
}

fn recorded(bank: &Bank, verb: &str) -> Vec<Value> {
    let events = bank.world.recorded_events().into_iter();
    events.filter(|event| event["action"] == verb).collect()
}

async fn assert_paid_out(bank: &Bank, when: &str) {
    let token = bank.world.usd;
    let left = PAID - 50_000_000;
    for (who, name, expected) in [
        (bank.world.pos, "the contract", 0),
        (bank.hot(), "the hot wallet", 0),
        (address(0), "the server", 50_000_000),
        (DEV, "dev", left / 10),
        (ADMIN, "the admin", left - left / 10),
    ] {
        let has = bank.has(token, who).await;
        assert_eq!(has, U256::from(expected), "{when}: {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_that_a_reorganisation_takes_back_is_paid_again_with_the_same_transactions() {
    let Some((bank, before)) = ready().await else {
        return;
    };
    answer(&funds_run(&bank));
    assert_paid_out(&bank, "at first").await;
    let steps = newest_round(&bank)["steps"].clone();
    let hashes = |steps: &Value| -> Vec<Value> {
        let steps = steps.as_array().unwrap().iter();
        steps.map(|step| step["tx"].clone()).collect()
    };
    let sent = (bank.sent(address(0)).await, bank.sent(bank.hot()).await);
    let ends = recorded(&bank, "funds-paid").len();

    forget_above(&bank, before).await;
    assert_eq!(bank.has(bank.world.usd, DEV).await, U256::ZERO);
    bank.world
        .set_engine("max_fee_gwei: 1000\nfund_manager: {look_every_s: 1}");
    let mut engine = bank.world.engine(&[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let round = newest_round(&bank);
        let taken = recorded(&bank, "funds-taken-back").len();
        if round["state"] == "done" && taken == hashes(&steps).len() {
            break;
        }
        assert!(Instant::now() < deadline, "{round}\n{}", bank.world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.terminate();
    engine.wait(Duration::from_secs(60));

    assert_paid_out(&bank, "again").await;
    assert_eq!(hashes(&newest_round(&bank)["steps"]), hashes(&steps));
    assert_eq!(
        (bank.sent(address(0)).await, bank.sent(bank.hot()).await),
        sent
    );
    let log = bank.world.log();
    assert!(log.contains("taken back by a reorganisation"), "{log}");
    // What happened again is on record again, beside what was taken back.
    let again = recorded(&bank, "funds-paid").len() - ends;
    assert_eq!(again, ends - recorded_before_round(&bank));
    let note = &recorded(&bank, "funds-taken-back")[0]["data"];
    assert_eq!(
        (note["again"].as_bool(), &note["tx"]),
        (Some(true), &hashes(&steps)[0])
    );
}

/// Payments that were recorded while the hot wallet was made.
fn recorded_before_round(bank: &Bank) -> usize {
    let round = newest_round(bank)["order"].clone();
    let paid = recorded(bank, "funds-paid").into_iter();
    paid.filter(|event| event["data"]["order"] != round).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_another_transaction_has_the_nonce_now_the_payment_is_signed_anew_and_happens_once() {
    let Some((bank, before)) = ready().await else {
        return;
    };
    answer(&funds_run(&bank));
    let first = newest_round(&bank)["steps"][0]["tx"].clone();
    forget_above(&bank, before).await;
    // Somebody else with the server's key was quicker.
    let rival = TransactionRequest::default()
        .with_to(address(2))
        .with_value(U256::from(1));
    done(bank.world.anvil.account(0).send_transaction(rival)).await;
    let failed = funds_run(&bank);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        complaint(&failed).contains("did not sign"),
        "{}",
        complaint(&failed)
    );
    answer(&funds_run(&bank));
    assert_paid_out(&bank, "signed anew").await;
    let round = newest_round(&bank);
    assert_eq!(round["state"], "done");
    assert_ne!(round["steps"][0]["tx"], first);
    assert_eq!(round["steps"][0]["attempts_failed"], 1);
    // And nothing of the old ones comes after all.
    bank.world.anvil.ask("anvil_mine", json!([3])).await;
    answer(&funds_run(&bank));
    assert_paid_out(&bank, "later").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_by_hand_that_is_taken_back_arrives_once() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.mint(bank.world.usd, address(0), usd(100)).await;
    // Only what was ordered by hand is looked at here.
    bank.world
        .set_engine("max_fee_gwei: 1000\nfund_manager: {enabled: false}");
    let before = head(&bank).await;
    let sent = bank.run(BW, &["send", "7", "stable", "server", "admin"]);
    assert!(sent.status.success(), "{}", complaint(&sent));
    forget_above(&bank, before).await;
    assert_eq!(bank.has(bank.world.usd, ADMIN).await, U256::ZERO);
    for _ in 0..2 {
        answer(&funds_run(&bank));
        assert_eq!(bank.has(bank.world.usd, ADMIN).await, usd(7));
    }
    assert_eq!(recorded(&bank, "funds-taken-back").len(), 1);
    assert_eq!(recorded(&bank, "funds-paid").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_payment_is_not_signed_anew_while_a_reorganisation_could_still_let_it_succeed() {
    let Some((bank, _)) = ready().await else {
        return;
    };
    let path = bank.world.layout.etc().join("web3-defaults.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let deeper = text.replace("  poll_interval_s", "  confirmations: 3\n  poll_interval_s");
    std::fs::write(&path, deeper).unwrap();
    let token = bank.world.usd;
    let order = newest_round(&bank)["order"].as_i64().unwrap() + 1;
    let point = format!("send:signed funds {order}.1.");
    let stopped = bank.stopped_at(BLOCKHOST, &["funds", "run"], &point);
    assert!(stopped.is_some());
    drop(stopped);
    // Signed, and now there is nothing to withdraw: it is in a block without effect.
    let pos = bank.world.pos.to_string();
    let away = move_out(&bank, bank.world.pos, Address::repeat_byte(9)).await;
    let failed = funds_run(&bank);
    assert!(
        complaint(&failed).contains("reverted"),
        "{}",
        complaint(&failed)
    );
    bank.mint(token, bank.world.pos, away).await;
    bank.world.anvil.ask("anvil_mine", json!([1])).await;
    let early = funds_run(&bank);
    assert_eq!(early.status.code(), Some(1));
    assert!(
        complaint(&early).contains("not deep enough"),
        "{}",
        complaint(&early)
    );
    assert_eq!(bank.has(token, bank.world.pos).await, away, "{pos}");
    bank.world.anvil.ask("anvil_mine", json!([3])).await;
    answer(&funds_run(&bank));
    assert_paid_out(&bank, "deep enough").await;
}

/// How many transactions the host has in blocks, once none of them waits for one.
async fn in_blocks(bank: &Bank) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (mut mined, mut known) = (0, 0);
        for account in [address(0), bank.hot()] {
            mined += bank.sent(account).await;
            let asked = bank.maker().get_transaction_count(account).pending().await;
            known += asked.unwrap();
        }
        if mined == known {
            return mined;
        }
        assert!(Instant::now() < deadline, "{known} were sent");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// From now on a node is asked that has no receipts, or the real one again.
fn ask_one_without_receipts(bank: &Bank, without: bool) {
    let real = bank.world.anvil.port;
    let port = if without {
        common::liar::without_receipts(real)
    } else {
        real
    };
    bank.world
        .set_endpoints(1, &[format!("http://127.0.0.1:{port}")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_no_receipts_of_its_blocks_makes_nobody_pay_again() {
    let Some((bank, _)) = ready().await else {
        return;
    };
    answer(&funds_run(&bank));
    assert_paid_out(&bank, "at first").await;
    let sent = in_blocks(&bank).await;
    // What is new is not looked for here: the wallet's gas would be filled up again.
    bank.world
        .set_engine("max_fee_gwei: 1000\nfund_manager: {enabled: false}");
    ask_one_without_receipts(&bank, true);
    for _ in 0..3 {
        let run = funds_run(&bank);
        assert!(run.status.success(), "{}", complaint(&run));
    }
    assert_paid_out(&bank, "without receipts").await;
    assert_eq!(in_blocks(&bank).await, sent);
    assert_eq!(recorded(&bank, "funds-taken-back"), Vec::<Value>::new());
}

/// The hot wallet pays somebody in a new round, and nobody sees it: the process is killed then. Gives the round's order.
fn pays_unseen(bank: &Bank) -> i64 {
    let order = newest_round(bank)["order"].as_i64().unwrap() + 1;
    let point = format!("send:sent funds {order}.2.");
    let stopped = bank.stopped_at(BLOCKHOST, &["funds", "run"], &point);
    assert!(stopped.is_some());
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_is_in_a_block_without_a_receipt_is_not_made_again() {
    let Some((bank, _)) = ready().await else {
        return;
    };
    pays_unseen(&bank);
    ask_one_without_receipts(&bank, true);
    let sent = in_blocks(&bank).await;
    for _ in 0..2 {
        let failed = funds_run(&bank);
        assert_eq!(failed.status.code(), Some(1));
        let said = complaint(&failed);
        assert!(said.contains("has no receipt of it"), "{said}");
    }
    assert_eq!(
        in_blocks(&bank).await,
        sent,
        "nothing was signed in its place"
    );
    ask_one_without_receipts(&bank, false);
    answer(&funds_run(&bank));
    assert_paid_out(&bank, "with receipts again").await;
    assert_eq!(newest_round(&bank)["steps"][1]["attempts_failed"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_was_held_for_lost_and_is_in_a_block_is_the_payment() {
    let Some((bank, _)) = ready().await else {
        return;
    };
    let order = pays_unseen(&bank);
    // As an engine leaves it that believed a node without receipts.
    let path = bank.world.layout.state().join("outbox.db");
    let outbox = rusqlite::Connection::open(path).unwrap();
    let lost = format!(
        "UPDATE txs SET state = 'dead' WHERE purpose = 'funds {order}.2.0';
         UPDATE order_steps SET attempt = 1 WHERE order_id = {order} AND number = 2;"
    );
    outbox.execute_batch(&lost).unwrap();
    drop(outbox);
    let sent = in_blocks(&bank).await;
    ask_one_without_receipts(&bank, true);
    let failed = funds_run(&bank);
    let said = complaint(&failed);
    assert!(said.contains("has no receipt of it"), "{said}");
    assert_eq!(
        in_blocks(&bank).await,
        sent,
        "nothing was signed in its place"
    );
    ask_one_without_receipts(&bank, false);
    answer(&funds_run(&bank));
    assert_paid_out(&bank, "once").await;
}

/// Takes all of the stablecoin from a contract, as only a local chain lets one.
async fn move_out(bank: &Bank, from: Address, to: Address) -> U256 {
    let all = bank.has(bank.world.usd, from).await;
    bank.set_eth(from, common::bank::ETH).await;
    let anvil = &bank.world.anvil;
    anvil
        .ask("anvil_impersonateAccount", json!([from.to_string()]))
        .await;
    let data = format!("0xa9059cbb{:0>64}{:064x}", hex::encode(to.as_slice()), all);
    let call = json!([{"from": from.to_string(), "to": bank.world.usd.to_string(), "data": data}]);
    anvil.ask("eth_sendTransaction", call).await;
    assert_eq!(bank.has(bank.world.usd, from).await, U256::ZERO);
    all
}
