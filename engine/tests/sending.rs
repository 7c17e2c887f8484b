//! Choosing nonces and waiting for blocks, on a real chain whose blocks come when a test wants them: what a node, a stranger
//! with the same key or an empty account can do to an account, and that it always comes to an end.

mod common;

use alloy::network::TransactionBuilder;
use alloy::primitives::U256;
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;
use blockhost_engine::chain::Chain;
use blockhost_engine::chain::tx::Call;
use blockhost_engine::outbox::Outbox;
use blockhost_engine::sending::{SendError, Sender, Sending};
use common::bank::{ADMIN, Bank, ETH, complaint, usd};
use common::{Anvil, address, wallet};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(60);
const BW: &str = env!("CARGO_BIN_EXE_bw");

/// An account whose transactions nobody mines yet.
struct Desk {
    anvil: Anvil,
    chain: Chain,
    outbox: Outbox,
    sender: Sender,
    stop: watch::Receiver<bool>,
    _running: watch::Sender<bool>,
    dir: tempfile::TempDir,
}

impl Desk {
    async fn open() -> Option<Self> {
        let anvil = Anvil::start(&["--no-mining"])?;
        let dir = tempfile::tempdir().unwrap();
        let (running, stop) = watch::channel(false);
        Some(Self {
            chain: anvil.chain(),
            outbox: Outbox::open(&dir.path().join("outbox.db")).unwrap(),
            sender: Sender::new(wallet(0), dir.path().to_owned()),
            stop,
            _running: running,
            dir,
            anvil,
        })
    }

    fn to_send<'a>(&'a self, purpose: &'a str) -> Sending<'a> {
        Sending {
            chain: &self.chain,
            outbox: &self.outbox,
            sender: &self.sender,
            stop: &self.stop,
            // Every look is late.
            replace_after_s: 0,
            job: 0,
            purpose,
            max_fee_gwei: 1000,
        }
    }

    async fn mine(&self) {
        self.anvil.ask("anvil_mine", json!([1])).await;
    }
}

fn pay(wei: U256) -> Call {
    Call::pay(ADMIN, wei)
}

#[tokio::test]
async fn waiting_for_a_block_ends_and_what_was_signed_is_taken_up_again_later() {
    let Some(desk) = Desk::open().await else {
        return;
    };
    let sending = desk.to_send("one");
    let signed = sending.sign_new(pay(U256::ONE)).await.unwrap();
    for looks in 1..=2 {
        let sent = desk.outbox.journaled(0, "one").unwrap();
        let waits = sending.follow(sent).await.unwrap_err();
        assert!(matches!(waits, SendError::Waiting { .. }), "{waits}");
        // Each look also did what was due.
        assert!(desk.outbox.journaled(0, "one").unwrap().len() > looks);
    }
    desk.mine().await;
    let sent = desk.outbox.journaled(0, "one").unwrap();
    assert!(
        sent.iter()
            .all(|row| row.signed.nonce == signed.signed.nonce)
    );
    assert!(sending.follow(sent).await.unwrap().is_some());
    assert_eq!(desk.outbox.journaled(0, "one").unwrap().len(), 1);
}

#[tokio::test]
async fn what_an_account_has_promised_already_it_does_not_have_any_more() {
    let Some(desk) = Desk::open().await else {
        return;
    };
    let has = ETH + ETH / U256::from(2);
    let params = json!([address(0).to_string(), format!("{has:#x}")]);
    desk.anvil.ask("anvil_setBalance", params).await;
    desk.to_send("one").sign_new(pay(ETH)).await.unwrap();
    let refused = desk.to_send("two").sign_new(pay(ETH)).await.unwrap_err();
    assert!(
        matches!(refused, SendError::Poor { needs, .. } if needs > ETH + ETH),
        "{refused}"
    );
    // What it still has it can pay with.
    let third = ETH / U256::from(3);
    desk.to_send("three").sign_new(pay(third)).await.unwrap();
    desk.mine().await;
    let refused = desk.to_send("two").sign_new(pay(ETH)).await.unwrap_err();
    assert!(
        matches!(refused, SendError::Poor { has: left, needs, .. } if left < third && needs < ETH + third),
        "{refused}"
    );
}

#[tokio::test]
async fn a_strangers_transaction_that_vanishes_leaves_a_gap_and_the_next_one_fills_it() {
    let Some(desk) = Desk::open().await else {
        return;
    };
    // Somebody else has the key, too, and was first.
    let foreign = TransactionRequest::default()
        .with_to(address(2))
        .with_value(U256::ONE);
    let foreign = desk
        .anvil
        .account(0)
        .send_transaction(foreign)
        .await
        .unwrap();
    let first = desk.to_send("one").sign_new(pay(U256::ONE)).await.unwrap();
    assert_eq!(first.signed.nonce, 1, "behind the stranger's");
    let hash = json!([foreign.tx_hash().to_string()]);
    desk.anvil.ask("anvil_dropTransaction", hash).await;
    let second = desk.to_send("two").sign_new(pay(U256::ONE)).await.unwrap();
    assert_eq!(second.signed.nonce, 0);
    let third = desk
        .to_send("three")
        .sign_new(pay(U256::ONE))
        .await
        .unwrap();
    assert_eq!(third.signed.nonce, 2);
    desk.mine().await;
    for (purpose, sent) in [("one", first), ("two", second), ("three", third)] {
        let receipt = desk.to_send(purpose).follow(vec![sent]).await.unwrap();
        assert!(receipt.is_some(), "{purpose}");
    }
}

/// What an order that was given up had signed: nobody follows it, and the daily round waits for what may still be mined.
#[tokio::test]
async fn what_nobody_follows_any_more_is_dead_once_a_strangers_transaction_is_deep_at_its_nonce() {
    let Some(desk) = Desk::open().await else {
        return;
    };
    let sending = desk.to_send("funds 1.1.0");
    let signed = sending.sign_new(pay(U256::ONE)).await.unwrap();
    // Replaced, too: all of them have the same nonce.
    let waits = sending.follow(vec![signed]).await.unwrap_err();
    assert!(matches!(waits, SendError::Waiting { .. }), "{waits}");
    let live = || desk.outbox.live_txs(31337, address(0)).unwrap().len();
    assert!(live() > 1);
    let long_ago = "UPDATE txs SET signed_ms = signed_ms - 600000";
    let journal = rusqlite::Connection::open(desk.dir.path().join("outbox.db")).unwrap();
    journal.execute(long_ago, []).unwrap();
    desk.anvil.ask("anvil_dropAllTransactions", json!([])).await;
    let foreign = TransactionRequest::default()
        .with_to(address(2))
        .with_value(U256::ONE)
        .with_nonce(0);
    let account = desk.anvil.account(0);
    let foreign = account.send_transaction(foreign).await.unwrap();
    desk.mine().await;
    foreign.get_receipt().await.unwrap();
    let before = live();
    sending.tend(2).await.unwrap();
    assert_eq!(live(), before, "a reorganisation could still bring it back");
    desk.mine().await;
    desk.mine().await;
    sending.tend(2).await.unwrap();
    assert_eq!(live(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_counts_transactions_nobody_sent_is_not_believed_and_another_is_asked() {
    let Some(desk) = Desk::open().await else {
        return;
    };
    let port = common::liar::bent(desk.anvil.port, |request, answer| {
        if request["method"] == "eth_getTransactionCount" && request["params"][1] == "pending" {
            answer["result"] = json!("0x3e8");
        }
    });
    let lies = format!("http://127.0.0.1:{port}");
    let alone = Chain::new(31337, std::slice::from_ref(&lies), LIMIT).unwrap();
    let sending = Sending {
        chain: &alone,
        ..desk.to_send("one")
    };
    let refused = sending.sign_new(pay(U256::ONE)).await.unwrap_err();
    assert!(
        refused.to_string().contains("counts 1000 transactions"),
        "{refused}"
    );
    assert!(desk.outbox.journaled(0, "one").unwrap().is_empty());
    let both = Chain::new(31337, &[lies, desk.anvil.url.clone()], LIMIT).unwrap();
    let sending = Sending {
        chain: &both,
        ..desk.to_send("one")
    };
    let signed = sending.sign_new(pay(U256::ONE)).await.unwrap();
    assert_eq!(signed.signed.nonce, 0);
    desk.mine().await;
    assert!(sending.follow(vec![signed]).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_another_payment_hears_whose_it_is_and_does_not_wait_for_ever() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.mint(bank.world.usd, address(0), usd(100)).await;
    let args = ["send", "1", "stable", "server", "admin"];
    let first = bank.stopped_at(BW, &args, "funds:before 1.1").unwrap();
    let sent = bank.sent(address(0)).await;
    let second = bank.run(BW, &[&args[..], &["--wait", "1"]].concat());
    assert_eq!(second.status.code(), Some(1), "{}", complaint(&second));
    let words = complaint(&second);
    let whose = format!("(bw, process {})", first.id());
    assert!(
        words.contains(&format!("{whose} and did not end within 1 s")),
        "{words}"
    );
    assert_eq!(bank.sent(address(0)).await, sent);
    drop(first);
    let third = bank.run(BW, &args);
    assert!(third.status.success(), "{}", complaint(&third));
    assert_eq!(bank.has(bank.world.usd, ADMIN).await, usd(1));
}
