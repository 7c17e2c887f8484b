//! What becomes of a purchase that is not through when its machine is to go: with the engine's binary, a real chain and a
//! provisioner of scripts.

mod common;

use common::world::World;
use serde_json::json;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const VM: &str = "blockhost-001";

fn once(world: &World) -> bool {
    world.engine(&["--once"]).wait(LIMIT).success()
}

/// Has every job that waits due now.
fn all_due(world: &World) {
    let path = world.layout.state().join("outbox.db");
    let outbox = rusqlite::Connection::open(path).unwrap();
    outbox
        .execute("UPDATE jobs SET not_before_ms = 0", [])
        .unwrap();
}

/// A machine for which nothing was minted yet: gas is too dear.
async fn made_and_not_minted() -> Option<World> {
    let world = World::new().await?;
    world.set_engine("max_fee_gwei: 0");
    world.buy(30, world.user_encrypted()).await;
    assert!(!once(&world));
    assert_eq!(world.state_of("SubscriptionCreated"), "pending");
    assert_eq!(world.effects().len(), 1, "{:?}", world.effects());
    world.set_engine("max_fee_gwei: 1000");
    Some(world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_minted_for_a_purchase_whose_cancellation_waits_for_the_agent() {
    let Some(world) = made_and_not_minted().await else {
        return;
    };
    let socket = world.layout.agent_socket();
    std::fs::rename(&socket, socket.with_extension("away")).unwrap();
    world.cancel(1).await;
    assert!(!once(&world));
    assert_eq!(world.state_of("SubscriptionCancelled"), "pending");
    assert_eq!(world.machine(VM)["status"], "destroyed");
    // The purchase is due, with cheap gas, and before the cancellation in every order.
    all_due(&world);
    assert!(!once(&world));
    let jobs = world.jobs();
    let of = |event: &str| jobs.iter().find(|job| job["event"] == event).unwrap();
    let end = &of("SubscriptionCancelled")["id"];
    assert_eq!(&of("SubscriptionCreated")["behind"], end);
    let shown = world.operator(&["jobs"]);
    assert!(shown.contains(&format!("behind job {end}")), "{shown}");
    assert_eq!(world.minted().await, 0);

    std::fs::rename(socket.with_extension("away"), &socket).unwrap();
    let _engine = world.engine(&[]);
    let deadline = Instant::now() + LIMIT;
    while world.state_of("SubscriptionCancelled") != "done" {
        assert!(Instant::now() < deadline, "{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.state_of("SubscriptionCreated"), "superseded");
    assert_eq!(world.minted().await, 0);
    assert_eq!(world.effects().len(), 2, "{:?}", world.effects());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_gone_before_its_credential_was_minted_gets_none() {
    let Some(world) = made_and_not_minted().await else {
        return;
    };
    world.change_machine(VM, "status", "destroyed".into());
    all_due(&world);
    assert!(!once(&world));
    assert_eq!(world.state_of("SubscriptionCreated"), "parked");
    let jobs = world.jobs();
    let error = jobs.last().unwrap()["last_error"].as_str().unwrap();
    assert!(error.contains("was made and is gone"), "{error}");
    assert_eq!(world.minted().await, 0);
    assert_eq!(world.effects().len(), 1, "{:?}", world.effects());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_whose_cancellation_the_chain_took_back_is_served_anew_by_hand() {
    let Some(world) = made_and_not_minted().await else {
        return;
    };
    let head = async || {
        let head = world.anvil.ask("eth_blockNumber", json!([])).await;
        u64::from_str_radix(head.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    };
    let before = head().await;
    world.cancel(1).await;
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.state_of("SubscriptionCreated"), "superseded");
    assert_eq!(world.machine(VM)["status"], "destroyed");
    let depth = head().await - before;
    world.anvil.ask("anvil_reorg", json!([depth, []])).await;
    world.anvil.ask("anvil_mine", json!([2])).await;
    once(&world);
    let jobs = world.jobs();
    let of = |event: &str| jobs.iter().find(|job| job["event"] == event).unwrap();
    assert_eq!(of("SubscriptionCancelled")["orphaned"], true);
    world.operator(&[
        "jobs",
        "retry",
        &of("SubscriptionCreated")["id"].to_string(),
    ]);
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.state_of("SubscriptionCreated"), "done");
    assert_eq!(world.machine(VM)["status"], "active");
    assert_eq!(world.minted().await, 1);
}
