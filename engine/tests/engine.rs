//! The engine's binary from the event to the closed job, across real process boundaries: a real chain, a provisioner of
//! scripts, kill -9 at every boundary.

mod common;

use alloy::primitives::{B256, U256};
use blockhost_engine::chain::bindings::AccessCredentialNFT;
use blockhost_engine::crypto::buyer::BuyerKey;
use common::address;
use common::world::World;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const VM: &str = "blockhost-001";

fn once(world: &World) -> bool {
    world.engine(&["--once"]).wait(LIMIT).success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_that_cannot_be_decrypted_is_parked_before_anything_is_created() {
    let Some(world) = World::new().await else {
        return;
    };
    world.buy(30, vec![4; 200]).await;
    assert!(!once(&world));
    assert_eq!(world.state_of("SubscriptionCreated"), "parked");
    assert_eq!(world.effects(), Vec::<String>::new());
    assert_eq!(world.minted().await, 0);
    // Retrying it by hand changes nothing about that, and a cancellation closes it.
    world.operator(&[
        "jobs",
        "retry",
        &world.jobs().last().unwrap()["id"].to_string(),
    ]);
    assert!(!once(&world));
    assert_eq!(world.state_of("SubscriptionCreated"), "parked");
    world.cancel(1).await;
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.state_of("SubscriptionCreated"), "superseded");
    assert!(
        !world
            .effects()
            .iter()
            .any(|effect| effect.starts_with("create"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_provisioner_is_tried_again_and_parked_at_last_and_nothing_is_minted() {
    let Some(world) = World::new().await else {
        return;
    };
    std::fs::write(
        world.dir.path().join("fail-create"),
        "no space left in the pool",
    )
    .unwrap();
    world.buy(30, world.user_encrypted()).await;
    let mut engine = world.engine(&[]);
    let deadline = Instant::now() + LIMIT;
    while world.layout.state().join("outbox.db").metadata().is_err()
        || !world.log().contains("parked after its last attempt")
    {
        assert!(Instant::now() < deadline, "{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let job = world
        .jobs()
        .into_iter()
        .find(|job| job["event"] == "SubscriptionCreated")
        .unwrap();
    assert_eq!(
        (job["attempts"].as_u64(), job["state"].as_str()),
        (Some(3), Some("parked"))
    );
    assert!(
        job["last_error"]
            .as_str()
            .unwrap()
            .contains("no space left in the pool")
    );
    assert_eq!(world.minted().await, 0);
    // The cause is gone, the operator retries, the running engine notices.
    std::fs::remove_file(world.dir.path().join("fail-create")).unwrap();
    world.operator(&["jobs", "retry", &job["id"].to_string()]);
    while world.state_of("SubscriptionCreated") != "done" {
        assert!(Instant::now() < deadline + LIMIT, "{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.terminate();
    assert!(
        engine.wait(LIMIT).success(),
        "SIGTERM ends it in good order"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_gas_is_too_dear_a_job_waits_for_longer_than_its_attempts_and_goes_on_by_itself() {
    let Some(world) = World::new().await else {
        return;
    };
    world.set_engine("max_fee_gwei: 0");
    world.buy(30, world.user_encrypted()).await;
    let engine = world.engine(&[]);
    let deadline = Instant::now() + LIMIT;
    // As many as park a job that fails for a reason of its own (engine.max_attempts in this world).
    while world.log().matches("job waits").count() < 3 {
        assert!(Instant::now() < deadline, "{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_ne!(world.state_of("SubscriptionCreated"), "parked");
    drop(engine);
    world.set_engine("max_fee_gwei: 1000");
    let _engine = world.engine(&[]);
    while world.state_of("SubscriptionCreated") != "done" {
        assert!(Instant::now() < deadline + LIMIT, "{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.minted().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_becomes_one_machine_and_a_credential_that_only_the_buyer_can_read() {
    let Some(world) = World::new().await else {
        return;
    };
    world.buy(30, world.user_encrypted()).await;
    assert!(once(&world), "{}", world.log());

    let buyer = address(1).to_string();
    assert_eq!(
        world.effects(),
        [
            format!("create {VM} {buyer} 30"),
            format!("gecos {VM} {buyer} 0")
        ]
    );
    let nft = AccessCredentialNFT::new(world.nft, world.owner.clone());
    assert_eq!(nft.ownerOf(U256::ZERO).call().await.unwrap(), address(1));
    let sealed = nft.getUserEncrypted(U256::ZERO).call().await.unwrap();
    let plain = BuyerKey::from_signature(&world.signature())
        .unwrap()
        .decrypt(&sealed)
        .unwrap();
    let access: serde_json::Value = serde_json::from_slice(&plain).unwrap();
    assert_eq!(
        access,
        serde_json::json!({"hostname": "fd77:b10c::2", "port": 22, "username": "tenant"})
    );

    let machine = world.machine(VM);
    assert_eq!(
        (
            machine["nft_token_id"].as_u64(),
            machine["nft_minted"].as_bool(),
            machine["gecos_synced"].as_bool()
        ),
        (Some(0), Some(true), Some(true))
    );
    assert_eq!(
        world.recorded().last().map(String::as_str),
        Some("subscription-created")
    );
    // Nothing is left to do, and looking again does nothing.
    assert!(once(&world));
    assert_eq!(world.effects().len(), 2);
    assert_eq!(world.minted().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_outbox_neither_creates_nor_mints_again() {
    let Some(world) = World::new().await else {
        return;
    };
    world.buy(30, world.user_encrypted()).await;
    assert!(once(&world), "{}", world.log());
    for name in ["outbox.db", "outbox.db-wal", "outbox.db-shm"] {
        let _ = std::fs::remove_file(world.layout.state().join(name));
    }
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.minted().await, 1);
    assert_eq!(
        world
            .effects()
            .iter()
            .filter(|effect| effect.starts_with("create"))
            .count(),
        1
    );
}

/// Two engines on one database would each sell the other's machines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_on_another_host_is_not_taken_over_for_a_purchase() {
    let Some(world) = World::new().await else {
        return;
    };
    world.buy(30, world.user_encrypted()).await;
    assert!(once(&world), "{}", world.log());
    let effects = world.effects();
    for name in ["outbox.db", "outbox.db-wal", "outbox.db-shm"] {
        let _ = std::fs::remove_file(world.layout.state().join(name));
    }
    world.change_machine(VM, "node", "elsewhere".into());
    assert!(!once(&world));
    assert_eq!(world.state_of("SubscriptionCreated"), "parked");
    assert!(world.log().contains("on the host elsewhere"));
    assert_eq!(world.effects(), effects);
    assert_eq!(world.minted().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extension_and_cancellation_follow_the_purchase_in_order() {
    let Some(world) = World::new().await else {
        return;
    };
    world.buy(30, world.user_encrypted()).await;
    world.extend(1, 10).await;
    assert!(once(&world), "{}", world.log());
    let until = |world: &World| {
        world.machine(VM)["expires_at"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
            .as_second()
    };
    let days = (until(&world) - jiff::Timestamp::now().as_second()) / 86_400;
    assert!((39..=40).contains(&days), "{days}");
    assert!(
        !world
            .effects()
            .iter()
            .any(|effect| effect.starts_with("resume")),
        "an active machine is not resumed"
    );

    world.change_machine(VM, "status", "suspended".into());
    world.change_machine(VM, "suspended_at", "2026-01-01T00:00:00Z".into());
    let before = until(&world);
    world.extend(1, 5).await;
    assert!(once(&world), "{}", world.log());
    assert_eq!(until(&world) - before, 5 * 86_400);
    assert_eq!(world.effects().last().unwrap(), &format!("resume {VM}"));

    world.cancel(1).await;
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.effects().last().unwrap(), &format!("destroy {VM}"));
    assert_eq!(world.machine(VM)["status"], "destroyed");
    let recorded = world.recorded();
    assert_eq!(
        recorded[recorded.len() - 4..],
        [
            "subscription-created",
            "subscription-extended",
            "subscription-extended",
            "subscription-cancelled"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extending_a_machine_that_is_gone_is_parked_for_a_decision() {
    let Some(world) = World::new().await else {
        return;
    };
    world.buy(30, world.user_encrypted()).await;
    assert!(once(&world), "{}", world.log());
    world.change_machine(VM, "status", "destroyed".into());
    world.extend(1, 10).await;
    assert!(!once(&world));
    assert_eq!(world.state_of("SubscriptionExtended"), "parked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_job_that_can_never_succeed_is_closed_on_record_and_frees_those_behind_it() {
    let Some(world) = World::new().await else {
        return;
    };
    world.buy(30, vec![4; 200]).await;
    world.extend(1, 10).await;
    assert!(!once(&world));
    let id = |event: &str| {
        let jobs = world.jobs();
        let job = jobs.iter().find(|job| job["event"] == event).unwrap();
        job["id"].to_string()
    };
    let (purchase, extension) = (id("SubscriptionCreated"), id("SubscriptionExtended"));
    let close = |id: &str, why: &str| world.operator(&["jobs", "close", id, "--why", why]);
    // One that is not parked, one without a reason, and with nobody to record it.
    close(&extension, "no machine");
    close(&purchase, " ");
    let socket = world.layout.agent_socket();
    std::fs::rename(&socket, socket.with_extension("away")).unwrap();
    close(&purchase, "refunded");
    std::fs::rename(socket.with_extension("away"), &socket).unwrap();
    assert_eq!(world.state_of("SubscriptionCreated"), "parked");
    assert_eq!(world.state_of("SubscriptionExtended"), "pending");
    assert!(!world.recorded().contains(&"job-closed".to_owned()));

    close(&purchase, "refunded by hand");
    assert_eq!(world.state_of("SubscriptionCreated"), "superseded");
    let events = world.recorded_events();
    let closed: Vec<_> = events
        .iter()
        .filter(|event| event["action"] == "job-closed")
        .collect();
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["resource"], "subscription:1");
    assert_eq!(closed[0]["data"]["why"], "refunded by hand");
    assert!(!once(&world), "the extension has no machine");
    assert_eq!(world.state_of("SubscriptionExtended"), "parked");
    close(&extension, "refunded by hand");
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.effects(), Vec::<String>::new());
}

/// A node that left a purchase out, or a first block that was too late: the customer has paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_that_was_not_seen_is_read_again_and_served_and_one_that_is_over_is_not() {
    let Some(world) = World::new().await else {
        return;
    };
    world.buy(30, world.user_encrypted()).await;
    world.buy(30, world.user_encrypted()).await;
    world.cancel(2).await;
    world.anvil.ask("anvil_mine", serde_json::json!([2])).await;
    let head = world
        .anvil
        .ask("eth_blockNumber", serde_json::json!([]))
        .await;
    let head = u64::from_str_radix(head.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
    let path = world.layout.etc().join("web3-defaults.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let late = format!("  poll_interval_s: 1\n  start_block: {head}\n");
    std::fs::write(&path, text.replace("  poll_interval_s: 1\n", &late)).unwrap();
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.jobs(), Vec::<serde_json::Value>::new());

    let read = |from: &str| {
        let text = world.operator(&["jobs", "read", "--from", from, "--json"]);
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default()
    };
    let again = read("0");
    assert_eq!(again["over"], serde_json::json!([2]), "{again}");
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.state_of("SubscriptionCreated"), "done");
    let buyer = address(1).to_string();
    assert_eq!(world.effects()[0], format!("create {VM} {buyer} 30"));
    assert_eq!(world.effects().len(), 2, "{:?}", world.effects());
    assert_eq!(world.minted().await, 1);
    // What is known stays as it is, and what is not read yet is not taken over here.
    let jobs = world.jobs();
    assert_eq!(read("0")["new"], 0);
    assert_eq!(world.jobs(), jobs);
    assert_eq!(read(&(head + 1000).to_string()), serde_json::Value::Null);
}

/// Waits until the log says so.
async fn until_log(world: &World, text: &str) {
    let deadline = Instant::now() + LIMIT;
    while !world.log().contains(text) {
        assert!(
            Instant::now() < deadline,
            "never said {text:?}:\n{}",
            world.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mint_that_is_not_mined_is_replaced_at_the_same_nonce_and_happens_once() {
    let Some(world) = World::new().await else {
        return;
    };
    world.set_engine("replace_after_s: 1");
    world.buy(30, world.user_encrypted()).await;
    world
        .anvil
        .ask("evm_setAutomine", serde_json::json!([false]))
        .await;
    let mut engine = world.engine(&["--once"]);
    until_log(&world, "replaced with higher fees").await;
    world
        .anvil
        .ask("evm_setAutomine", serde_json::json!([true]))
        .await;
    world.anvil.ask("evm_mine", serde_json::json!([])).await;
    assert!(engine.wait(LIMIT).success(), "{}", world.log());
    world.anvil.ask("anvil_mine", serde_json::json!([3])).await;
    assert_eq!(world.minted().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_chain_that_stands_still_bidding_ends_at_a_few_times_the_asked_fee() {
    let Some(world) = World::new().await else {
        return;
    };
    world.set_engine("replace_after_s: 0");
    world.buy(30, world.user_encrypted()).await;
    world
        .anvil
        .ask("evm_setAutomine", serde_json::json!([false]))
        .await;
    let mut engine = world.engine(&["--once"]);
    until_log(&world, "replaced with higher fees").await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    // 1.25 to the power of 6 is the last below 4.
    let bids = world.log().matches("replaced with higher fees").count();
    assert!(bids <= 6, "{bids}");
    world
        .anvil
        .ask("evm_setAutomine", serde_json::json!([true]))
        .await;
    world.anvil.ask("evm_mine", serde_json::json!([])).await;
    assert!(engine.wait(LIMIT).success(), "{}", world.log());
    assert_eq!(world.minted().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mint_whose_nonce_another_transaction_takes_is_signed_anew_and_happens_once() {
    use alloy::network::TransactionBuilder;
    use alloy::providers::Provider;
    let Some(world) = World::new().await else {
        return;
    };
    world.buy(30, world.user_encrypted()).await;
    world
        .anvil
        .ask("evm_setAutomine", serde_json::json!([false]))
        .await;
    let mut engine = world.engine(&["--once"]);
    until_log(&world, "mint signed").await;
    let account = world.anvil.account(0);
    let nonce = account.get_transaction_count(address(0)).await.unwrap();
    let rival = alloy::rpc::types::TransactionRequest::default()
        .with_to(address(2))
        .with_value(U256::from(1))
        .with_nonce(nonce)
        .with_max_fee_per_gas(500_000_000_000)
        .with_max_priority_fee_per_gas(100_000_000_000);
    let sent = account.send_transaction(rival).await.unwrap();
    world
        .anvil
        .ask("evm_setAutomine", serde_json::json!([true]))
        .await;
    world.anvil.ask("evm_mine", serde_json::json!([])).await;
    sent.get_receipt().await.unwrap();
    assert!(engine.wait(LIMIT).success(), "{}", world.log());
    assert!(
        world.log().contains("overtaken by another transaction"),
        "{}",
        world.log()
    );
    assert_eq!(world.minted().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_purchases_at_once_each_get_one_machine_and_one_credential() {
    let Some(world) = World::new().await else {
        return;
    };
    for _ in 0..6 {
        world.buy(30, world.user_encrypted()).await;
    }
    let mut engine = world.engine(&[]);
    let deadline = Instant::now() + LIMIT;
    while world.minted().await < 6 || world.jobs().iter().any(|job| job["state"] != "done") {
        assert!(Instant::now() < deadline, "{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.terminate();
    assert!(engine.wait(LIMIT).success());
    assert_eq!(world.minted().await, 6);
    let mut tokens: Vec<u64> = (1..=6)
        .map(|id| {
            world.machine(&format!("blockhost-{id:03}"))["nft_token_id"]
                .as_u64()
                .unwrap()
        })
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mint_that_stays_out_of_the_blocks_keeps_nobody_else_waiting_and_happens_once_in_the_end()
{
    let Some(world) = World::new().await else {
        return;
    };
    // One worker, and a node that swallows what it is sent.
    let swallows = Arc::new(AtomicBool::new(true));
    let own = swallows.clone();
    let port = common::liar::instead(world.anvil.port, move |request| {
        let swallowed = request["method"] == "eth_sendRawTransaction" && own.load(Ordering::SeqCst);
        swallowed.then(|| ("result", serde_json::json!(B256::ZERO.to_string())))
    });
    world.set_engine("replace_after_s: 1\n  workers: 1");
    world.set_endpoints(1, &[format!("http://127.0.0.1:{port}")]);
    for _ in 0..2 {
        world.buy(30, world.user_encrypted()).await;
    }
    let mut engine = world.engine(&[]);
    let deadline = Instant::now() + LIMIT;
    let created = |effect: &String| effect.starts_with("create");
    while world.effects().iter().filter(|one| created(one)).count() < 2 {
        assert!(Instant::now() < deadline, "{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.minted().await, 0);
    swallows.store(false, Ordering::SeqCst);
    while world.minted().await < 2 || world.jobs().iter().any(|job| job["state"] != "done") {
        assert!(Instant::now() < deadline + LIMIT, "{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.terminate();
    assert!(engine.wait(LIMIT).success());
    assert_eq!(world.minted().await, 2);
    // Waiting is no failure, however often.
    for job in world.jobs() {
        let waits = job["waits"].as_u64().unwrap_or(0);
        let counted = job["attempts"].as_u64().unwrap() - waits;
        assert_eq!(counted, 1, "{job}\n{}", world.log());
    }
    assert!(world.log().contains("job waits"), "{}", world.log());
}

/// The promise of the outbox: whenever the engine is killed, one machine and one credential come of one purchase.
async fn killed_at(point: &'static str) {
    let Some(world) = World::new().await else {
        return;
    };
    world.buy(30, world.user_encrypted()).await;
    world.crash_once(point);
    let status = world.engine(&["--once"]).wait(LIMIT);
    assert!(
        !status.success() && world.has_crashed(),
        "{point}: was not killed ({status}); log:\n{}",
        world.log()
    );
    assert!(
        once(&world),
        "{point}: does not go on; log:\n{}",
        world.log()
    );
    assert_eq!(
        world
            .effects()
            .iter()
            .filter(|effect| effect.starts_with("create"))
            .count(),
        1,
        "{point}: {:?}",
        world.effects()
    );
    assert_eq!(world.minted().await, 1, "{point}; log:\n{}", world.log());
    assert_eq!(world.state_of("SubscriptionCreated"), "done", "{point}");
    assert_eq!(world.machine(VM)["nft_token_id"], 0, "{point}");
    assert!(
        world.effects().last().unwrap().starts_with("gecos"),
        "{point}"
    );
}

macro_rules! killed {
    ($($name:ident: $point:literal),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            killed_at($point).await;
        }
    )*};
}

killed! {
    killed_before_the_machine_is_created: "create:before",
    killed_after_the_machine_is_created_and_before_its_answer: "create:after",
    killed_while_reading_logs: "rpc:eth_getLogs:before",
    killed_while_estimating_gas: "rpc:eth_estimateGas:after",
    killed_after_signing_and_before_the_network_sees_the_mint: "rpc:eth_sendRawTransaction:before",
    killed_after_the_network_took_the_mint: "rpc:eth_sendRawTransaction:after",
    killed_before_reading_the_receipt: "rpc:eth_getTransactionReceipt:before",
    killed_with_the_receipt_on_its_way: "rpc:eth_getTransactionReceipt:after",
    killed_before_the_guest_is_told: "update-gecos:before",
    killed_after_the_guest_is_told: "update-gecos:after",
    killed_before_the_ledger_hears_of_it: "ledger:before",
    killed_after_the_ledger_heard_of_it: "ledger:after",
}
