//! Choosing nonces and waiting for blocks, on a real chain whose blocks come when a test wants them: what a node, a stranger
//! with the same key or an empty account can do to an account, and that it always comes to an end.

mod common;

use alloy::primitives::U256;
use blockhost_engine::chain::Chain;
use blockhost_engine::chain::tx::Call;
use blockhost_engine::outbox::Outbox;
use blockhost_engine::sending::{SendError, Sender, Sending};
use common::bank::{ADMIN, Bank, ETH, complaint, usd};
use common::{Anvil, address, wallet};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;

const BW: &str = env!("CARGO_BIN_EXE_bw");

/// An account whose transactions nobody mines yet.
struct Desk {
    anvil: Anvil,
    chain: Chain,
    outbox: Outbox,
    sender: Sender,
    stop: watch::Receiver<bool>,
    _running: watch::Sender<bool>,
    _dir: tempfile::TempDir,
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
            _dir: dir,
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
