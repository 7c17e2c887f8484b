//! Endpoints that fail, lie or lag, and histories that change, on real local chains.

mod common;

use alloy::primitives::{Address, Bytes, U256};
use alloy::providers::Provider;
use blockhost_engine::chain::bindings::{BlockhostSubscriptions, MockUSD};
use blockhost_engine::chain::nonce::{Holder, holder};
use blockhost_engine::chain::{Chain, ChainError};
use blockhost_engine::monitor::{Monitor, MonitorError, Start};
use blockhost_engine::outbox::{JobState, Outbox};
use blockhost_engine::seen::Seen;
use blockhost_proto::Layout;
use blockhost_provisioner::chain_seen::Reading;
use blockhost_provisioner::time::Time;
use common::{Anvil, done};
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);
const DEAD: &str = "http://127.0.0.1:1";

#[tokio::test]
async fn a_dead_endpoint_and_one_on_another_chain_are_passed_over() {
    let (Some(good), Some(foreign)) = (Anvil::start(&[]), Anvil::start(&["--chain-id", "5"]))
    else {
        return;
    };
    let chain = Chain::new(
        31337,
        &[DEAD.into(), foreign.url.clone(), good.url.clone()],
        TIMEOUT,
    )
    .unwrap();
    let (endpoint, head) = chain.select().await.unwrap();
    assert_eq!(
        (endpoint.host(), head),
        (format!("127.0.0.1:{}", good.port).as_str(), 0)
    );
    assert_eq!(
        chain
            .call(
                "the chain id",
                |node| async move { node.get_chain_id().await }
            )
            .await
            .unwrap(),
        31337
    );

    let only_bad = Chain::new(31337, &[DEAD.into(), foreign.url.clone()], TIMEOUT).unwrap();
    let error = only_bad.select().await.unwrap_err().to_string();
    assert!(
        error.contains("is on chain id 5") && error.contains("cannot be reached"),
        "{error}"
    );
}

#[tokio::test]
async fn a_node_that_is_behind_is_passed_over_until_it_has_caught_up() {
    let (Some(behind), Some(ahead)) = (Anvil::start(&[]), Anvil::start(&[])) else {
        return;
    };
    ahead.ask("anvil_mine", serde_json::json!([20])).await;
    let chain = Chain::new(31337, &[behind.url.clone(), ahead.url.clone()], TIMEOUT).unwrap();
    assert_eq!(chain.select().await.unwrap().1, 20);
    behind.ask("anvil_mine", serde_json::json!([18])).await;
    assert_eq!(
        chain.select().await.unwrap().1,
        18,
        "the first in the list is preferred again"
    );
}

#[tokio::test]
async fn a_node_that_dies_between_two_requests_is_replaced_by_the_next() {
    let (Some(first), Some(second)) = (Anvil::start(&[]), Anvil::start(&[])) else {
        return;
    };
    let chain = Chain::new(31337, &[first.url.clone(), second.url.clone()], TIMEOUT).unwrap();
    chain.select().await.unwrap();
    drop(first);
    assert_eq!(
        chain
            .call(
                "the head",
                |node| async move { node.get_block_number().await }
            )
            .await
            .unwrap(),
        0
    );
}

#[tokio::test]
async fn what_a_contract_refuses_is_not_asked_of_the_next_node_and_is_named() {
    let Some(anvil) = Anvil::start(&[]) else {
        return;
    };
    let pos = *BlockhostSubscriptions::deploy(anvil.account(0))
        .await
        .unwrap()
        .address();
    let chain = anvil.chain();
    let error = chain
        .call("reading a plan", |node| async move {
            let pos = BlockhostSubscriptions::new(pos, node);
            pos.getPlan(U256::from(9))
                .call()
                .await
                .map_err(|e| match e {
                    alloy::contract::Error::TransportError(e) => e,
                    other => alloy::transports::RpcError::local_usage(other),
                })
        })
        .await
        .map(drop)
        .unwrap_err();
    assert!(
        matches!(&error, ChainError::Refused { message, .. } if message.contains("PlanNotFound")),
        "{error}"
    );
}

#[tokio::test]
async fn who_used_a_nonce_is_read_from_the_blocks() {
    let Some(anvil) = Anvil::start(&[]) else {
        return;
    };
    let chain = anvil.chain();
    let mut seen = Vec::new();
    for n in 0..4 {
        anvil
            .ask("anvil_mine", serde_json::json!([7 * n + 1]))
            .await;
        let to = alloy::rpc::types::TransactionRequest::default().to(common::address(1));
        let receipt = done(anvil.account(0).send_transaction(to)).await;
        seen.push((receipt.transaction_hash, receipt.block_number.unwrap()));
    }
    anvil.ask("anvil_mine", serde_json::json!([40])).await;
    let (node, _) = chain.select().await.unwrap();
    let account = common::address(0);
    for (nonce, (hash, block)) in (0..).zip(seen.iter().copied()) {
        for hint in [None, Some(block), Some(block + 1), Some(0)] {
            let found = holder(node, account, nonce, hint).await.unwrap();
            assert_eq!(
                found,
                Holder::Transaction { hash, block },
                "{nonce} {hint:?}"
            );
        }
    }
    assert_eq!(
        holder(node, account, 4, Some(seen[3].1)).await.unwrap(),
        Holder::Nobody
    );
    // It was in a block that this node has not seen.
    let error = holder(node, account, 3, Some(1 << 40)).await.unwrap_err();
    assert!(error.to_string().contains("has not seen block"), "{error}");
    // Blocks are read where states are forgotten, up to a limit.
    let port = common::liar::without_states_before(anvil.port, seen[3].1 + 20);
    let full = Chain::new(31337, &[format!("http://127.0.0.1:{port}")], TIMEOUT).unwrap();
    let (forgetful, _) = full.select().await.unwrap();
    for (nonce, (hash, block)) in (0..).zip(seen.iter().copied()) {
        let found = holder(forgetful, account, nonce, None).await.unwrap();
        assert_eq!(found, Holder::Transaction { hash, block }, "{nonce}");
    }
    anvil.ask("anvil_mine", serde_json::json!([500])).await;
    let head = chain.select().await.unwrap().1;
    let port = common::liar::without_states_before(anvil.port, head);
    let full = Chain::new(31337, &[format!("http://127.0.0.1:{port}")], TIMEOUT).unwrap();
    let (forgetful, _) = full.select().await.unwrap();
    let error = holder(forgetful, account, 0, None).await.unwrap_err();
    assert!(error.to_string().contains("missing trie node"), "{error}");
    // A nonce that no transaction used.
    let params = serde_json::json!([common::address(2).to_string(), "0x5"]);
    anvil.ask("anvil_setNonce", params).await;
    anvil.ask("anvil_mine", serde_json::json!([1])).await;
    let error = holder(node, common::address(2), 3, None).await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("nothing is signed in its place"), "{error}");
}

struct Shop {
    anvil: Anvil,
    chain: Chain,
    pos: Address,
    _dir: tempfile::TempDir,
    outbox: Arc<Outbox>,
}

impl Shop {
    async fn open() -> Option<Self> {
        let anvil = Anvil::start(&[])?;
        let owner = anvil.account(0);
        let pos = BlockhostSubscriptions::deploy(owner.clone()).await.unwrap();
        let usd = MockUSD::deploy(owner.clone(), "USD".into(), "USD".into(), 6)
            .await
            .unwrap();
        done(pos.setPrimaryStablecoin(*usd.address()).send()).await;
        done(pos.createPlan("small".into(), U256::from(1)).send()).await;
        done(
            usd.mint(common::address(0), U256::from(1_000_000_000u64))
                .send(),
        )
        .await;
        done(usd.approve(*pos.address(), U256::MAX).send()).await;
        let dir = tempfile::tempdir().unwrap();
        let outbox = Arc::new(Outbox::open(&dir.path().join("outbox.db")).unwrap());
        Some(Self {
            chain: anvil.chain(),
            anvil,
            pos: *pos.address(),
            _dir: dir,
            outbox,
        })
    }

    async fn buy(&self) {
        let pos = BlockhostSubscriptions::new(self.pos, self.anvil.account(0));
        done(
            pos.buySubscription(U256::from(1), U256::from(1), U256::from(1), Bytes::new())
                .send(),
        )
        .await;
    }

    /// Gives until when it is paid then.
    async fn extend(&self, id: u64, days: u64) -> i64 {
        let pos = BlockhostSubscriptions::new(self.pos, self.anvil.account(0));
        let (id, days) = (U256::from(id), U256::from(days));
        done(pos.extendSubscription(id, days, U256::from(1)).send()).await;
        let now = pos.getSubscription(id).call().await.unwrap();
        i64::try_from(now.expiresAt).unwrap()
    }

    fn monitor(&self, confirmations: u64, range: u64) -> Monitor {
        Monitor::new(
            self.pos,
            confirmations,
            Start::Block(0),
            range,
            self.outbox.clone(),
        )
    }

    async fn catch_up(&self, monitor: &mut Monitor) -> usize {
        let mut new = 0;
        loop {
            let progress = monitor.look(&self.chain).await.unwrap();
            new += progress.new_jobs;
            if progress.caught_up {
                return new;
            }
        }
    }

    fn purchases(&self) -> Vec<(u64, JobState, bool)> {
        let mut jobs = self.outbox.list(None, 1000).unwrap();
        jobs.reverse();
        jobs.into_iter()
            .filter(|j| j.event == "SubscriptionCreated")
            .map(|j| (j.subscription_id, j.state, j.orphaned))
            .collect()
    }

    /// Claims up to the first purchase and closes what comes before it.
    fn start_purchase(&self) -> i64 {
        loop {
            let job = self.outbox.claim().unwrap().expect("a job is due");
            if job.event.name() == "SubscriptionCreated" {
                return job.id;
            }
            self.outbox.finish(job.id).unwrap();
        }
    }
}

#[tokio::test]
async fn an_address_without_a_contract_is_an_error_and_not_an_eternal_silence() {
    let Some(anvil) = Anvil::start(&[]) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let outbox = Arc::new(Outbox::open(&dir.path().join("outbox.db")).unwrap());
    let mut monitor = Monitor::new(Address::repeat_byte(7), 0, Start::Deployment, 100, outbox);
    assert!(matches!(
        monitor.look(&anvil.chain()).await,
        Err(MonitorError::NoContract { .. })
    ));
}

#[tokio::test]
async fn events_count_only_with_their_confirmations() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    shop.buy().await;
    let mut monitor = shop.monitor(3, 1000);
    shop.catch_up(&mut monitor).await;
    assert_eq!(shop.purchases(), []);
    shop.anvil.ask("anvil_mine", serde_json::json!([3])).await;
    shop.catch_up(&mut monitor).await;
    assert_eq!(shop.purchases(), [(1, JobState::Pending, false)]);
}

#[tokio::test]
async fn small_pieces_bring_the_same_events_as_one_and_the_beginning_is_found() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    for _ in 0..3 {
        shop.buy().await;
        shop.anvil.ask("anvil_mine", serde_json::json!([7])).await;
    }
    let mut monitor = Monitor::new(shop.pos, 0, Start::Deployment, 2, shop.outbox.clone());
    let jobs = shop.catch_up(&mut monitor).await;
    assert_eq!(
        shop.purchases()
            .iter()
            .map(|(id, ..)| *id)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    // Seen by a monitor that starts anew: nothing is new.
    shop.outbox.roll_back(31337, shop.pos, Some(0)).unwrap();
    assert_eq!(shop.catch_up(&mut shop.monitor(0, 1000)).await, jobs);
    assert_eq!(shop.catch_up(&mut shop.monitor(0, 1000)).await, 0);
}

#[tokio::test]
async fn how_far_the_chain_was_read_is_noted_with_that_blocks_own_time() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::new(root.path());
    std::fs::create_dir_all(layout.etc()).unwrap();
    std::fs::create_dir_all(layout.state()).unwrap();
    std::fs::write(layout.etc().join("web3-defaults.yaml"), "").unwrap();
    // Each as after a start of the engine: one alone notes nothing for a minute.
    let note = async || {
        let mut seen = Seen::new(layout.clone(), shop.pos);
        seen.note(&shop.chain, &shop.outbox).await;
        Reading::of(&layout)
    };
    assert!(
        matches!(note().await, Reading::Unknown(_)),
        "nothing was read"
    );
    let mut monitor = shop.monitor(0, 1000);
    shop.buy().await;
    shop.catch_up(&mut monitor).await;
    let Reading::Upto(seen) = note().await else {
        panic!("it was read");
    };
    let cursor = shop.outbox.cursor(31337, shop.pos).unwrap().unwrap();
    let (node, head) = shop.chain.select().await.unwrap();
    let block = node.provider().get_block_by_number(head.into()).await;
    let made = block.unwrap().unwrap().header.timestamp;
    assert_eq!((seen.block, cursor.number), (head, head));
    assert_eq!(u64::try_from(seen.block_time.unix()), Ok(made));
    assert!(seen.owed.is_empty(), "{seen:?}");
    // A payment is read, and its job waits behind the purchase's; it is entered when that is done.
    let until = shop.extend(1, 30).await;
    shop.catch_up(&mut monitor).await;
    let Reading::Upto(seen) = note().await else {
        panic!("it was read");
    };
    let owed = [("blockhost-001".to_owned(), Time::from_unix(until))];
    assert_eq!(seen.owed, owed.into());
    // What was read is no longer on the chain, and nothing was read anew.
    shop.anvil
        .ask("anvil_reorg", serde_json::json!([1, []]))
        .await;
    assert_eq!(note().await, Reading::Upto(seen));
}

#[tokio::test]
async fn a_reorganisation_takes_back_what_has_not_begun() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let mut monitor = shop.monitor(0, 1000);
    shop.catch_up(&mut monitor).await;
    shop.buy().await;
    shop.catch_up(&mut monitor).await;
    assert_eq!(shop.purchases().len(), 1);
    shop.anvil
        .ask("anvil_reorg", serde_json::json!([1, []]))
        .await;
    let progress = monitor.look(&shop.chain).await.unwrap();
    assert_eq!(progress.rolled_back.unwrap().removed, 1);
    shop.catch_up(&mut monitor).await;
    assert_eq!(shop.purchases(), []);
    // Life goes on with the new history.
    shop.buy().await;
    shop.catch_up(&mut monitor).await;
    assert_eq!(shop.purchases(), [(1, JobState::Pending, false)]);
}

#[tokio::test]
async fn a_reorganisation_reports_what_has_begun_and_does_not_serve_its_id_twice() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let mut monitor = shop.monitor(0, 1000);
    shop.catch_up(&mut monitor).await;
    shop.buy().await;
    shop.catch_up(&mut monitor).await;
    let job = shop.start_purchase();
    shop.anvil
        .ask("anvil_reorg", serde_json::json!([1, []]))
        .await;
    assert_eq!(
        monitor
            .look(&shop.chain)
            .await
            .unwrap()
            .rolled_back
            .unwrap()
            .started,
        [job]
    );
    assert_eq!(shop.purchases(), [(1, JobState::Running, true)]);
    // Somebody else buys and gets the same id: a person has to decide. Another gas limit makes another transaction.
    let pos = BlockhostSubscriptions::new(shop.pos, shop.anvil.account(0));
    done(
        pos.buySubscription(U256::from(1), U256::from(2), U256::from(1), Bytes::new())
            .send(),
    )
    .await;
    shop.catch_up(&mut monitor).await;
    assert_eq!(
        shop.purchases(),
        [(1, JobState::Running, true), (1, JobState::Parked, false)]
    );
}

#[tokio::test]
async fn a_chain_that_was_set_back_is_named_and_read_again_once_it_has_grown_past() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let mut monitor = shop.monitor(0, 1000);
    shop.catch_up(&mut monitor).await;
    let before = shop.anvil.ask("evm_snapshot", serde_json::json!([])).await;
    shop.buy().await;
    shop.anvil.ask("anvil_mine", serde_json::json!([30])).await;
    shop.catch_up(&mut monitor).await;
    let read = monitor.look(&shop.chain).await.unwrap();
    assert_eq!(read.shorter, None);
    assert_eq!(shop.purchases(), [(1, JobState::Pending, false)]);

    let reverted = shop.anvil.ask("evm_revert", serde_json::json!([before]));
    assert_eq!(reverted.await, true);
    // Another history begins, and is shorter for a while: whether the node is only behind cannot be told.
    shop.anvil.ask("anvil_mine", serde_json::json!([3])).await;
    let progress = monitor.look(&shop.chain).await.unwrap();
    let shorter = progress.shorter.expect("it is named");
    assert_eq!(
        (shorter.head, shorter.processed),
        (progress.head, read.head)
    );
    assert!(shorter.to_string().contains("blockchain.rpc_urls"));
    assert_eq!((progress.rolled_back, progress.caught_up), (None, true));
    assert_eq!(shop.purchases(), [(1, JobState::Pending, false)]);

    // Somebody else buys there, and it grows past what was read.
    shop.anvil
        .ask("evm_increaseTime", serde_json::json!([600]))
        .await;
    shop.buy().await;
    shop.anvil.ask("anvil_mine", serde_json::json!([40])).await;
    let progress = monitor.look(&shop.chain).await.unwrap();
    assert_eq!(progress.shorter, None);
    assert_eq!(progress.rolled_back.expect("rolled back").removed, 1);
    shop.catch_up(&mut monitor).await;
    assert_eq!(shop.purchases(), [(1, JobState::Pending, false)]);
    let job = shop.start_purchase();
    let read = shop.outbox.list(None, 1000).unwrap();
    let job = read.iter().find(|one| one.id == job).unwrap();
    assert!(!job.orphaned, "it is the other history's");
}

/// A node that passes everything on to another but has no logs, as one whose index is broken or behind a paywall.
fn without_logs(real: u16) -> String {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = move |mut client: TcpStream| -> std::io::Result<()> {
        let (mut request, mut piece) = (Vec::new(), [0; 4096]);
        let body = loop {
            let n = client.read(&mut piece)?;
            request.extend_from_slice(&piece[..n]);
            let text = String::from_utf8(request.clone()).unwrap().to_lowercase();
            let length = text
                .split_once("content-length: ")
                .and_then(|(_, rest)| rest.split_once('\r')?.0.parse().ok());
            if let (Some((head, body)), Some(length)) = (text.split_once("\r\n\r\n"), length)
                && body.len() >= length
            {
                break request.split_off(head.len() + 4);
            }
            if n == 0 {
                return Ok(());
            }
        };
        let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
        if asked["method"] == "eth_getLogs" {
            let error = serde_json::json!({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32000, "message": "no index"}});
            let error = error.to_string();
            return write!(
                client,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{error}",
                error.len()
            );
        }
        let mut node = TcpStream::connect((Ipv4Addr::LOCALHOST, real))?;
        write!(
            node,
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        node.write_all(&body)?;
        std::io::copy(&mut node, &mut client).map(drop)
    };
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::spawn(move || answer(client.unwrap()));
        }
    });
    url
}

#[tokio::test]
async fn a_node_without_logs_is_passed_over_and_no_event_is_lost() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    shop.buy().await;
    let urls = [without_logs(shop.anvil.port), shop.anvil.url.clone()];
    let chain = Chain::new(31337, &urls, TIMEOUT).unwrap();
    let mut monitor = shop.monitor(0, 1000);
    let mut errors = 0;
    loop {
        match monitor.look(&chain).await {
            Ok(progress) if progress.caught_up => break,
            Ok(_) => {}
            Err(MonitorError::Node { .. }) if errors == 0 => errors += 1,
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(errors, 1);
    assert_eq!(shop.purchases(), [(1, JobState::Pending, false)]);
}

#[tokio::test]
async fn a_node_that_is_only_behind_is_no_reorganisation() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    shop.buy().await;
    shop.catch_up(&mut shop.monitor(0, 1000)).await;
    let before = shop.purchases();
    // The same history, without its newest block.
    let head = shop.outbox.cursor(31337, shop.pos).unwrap().unwrap().number;
    let at = (head - 1).to_string();
    let Some(behind) = Anvil::start(&[
        "--fork-url",
        &shop.anvil.url,
        "--fork-block-number",
        &at,
        "--no-rate-limit",
    ]) else {
        return;
    };
    let progress = shop.monitor(0, 1000).look(&behind.chain()).await.unwrap();
    assert_eq!((progress.rolled_back, progress.caught_up), (None, true));
    assert_eq!(shop.purchases(), before);
}

#[path = "chain/large.rs"]
mod large;
