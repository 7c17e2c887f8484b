//! Machines and chain drift apart, really: tokens change hands, a reorganisation takes a mint away, somebody edits the
//! database. The engine's real binary, a local chain with the contracts, a provisioner of scripts.

mod common;

use alloy::primitives::U256;
use blockhost_engine::chain::bindings::{AccessCredentialNFT, MockUSD};
use common::world::World;
use common::{address, done};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NAME: &str = "blockhost-001";

async fn sold() -> Option<World> {
    let world = World::new().await?;
    world.set_engine("max_fee_gwei: 1000\nreconcile: {every_s: 1}");
    world.buy(10, world.user_encrypted()).await;
    Some(world)
}

/// Waits until it is so. The engine's log is shown when it does not come.
async fn until(world: &World, what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(
            Instant::now() < deadline,
            "{what} did not come:\n{}",
            world.log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The customer sends the credential to somebody else.
async fn pass_on(world: &World) {
    let nft = AccessCredentialNFT::new(world.nft, world.anvil.account(1));
    let sent = nft
        .transferFrom(address(1), address(2), U256::ZERO)
        .send()
        .await
        .unwrap();
    assert!(sent.get_receipt().await.unwrap().status());
}

async fn until_sold(world: &World) {
    until(world, "the purchase", async || {
        purchase(world)["state"] == "done"
    })
    .await;
}

/// The job of the purchase; null before the engine knows it.
fn purchase(world: &World) -> Value {
    let jobs = serde_json::from_str::<Vec<Value>>(&world.operator(&["jobs", "--json"]));
    let mut jobs = jobs.unwrap_or_default().into_iter();
    jobs.find(|job| job["event"] == "SubscriptionCreated")
        .unwrap_or_default()
}

fn report(world: &World) -> Value {
    serde_json::from_str(&world.operator(&["reconcile", "--json"])).unwrap_or_default()
}

fn problems(world: &World) -> Vec<String> {
    let report = report(world);
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    findings
        .iter()
        .map(|f| f["problem"].as_str().unwrap().to_owned())
        .collect()
}

fn recorded(world: &World, problem: &str) -> usize {
    let events = world.recorded_events();
    let of =
        |event: &&Value| event["action"] == "reconciled" && event["data"]["problem"] == problem;
    events.iter().filter(of).count()
}

/// New blocks, so that what happened has been read and is no longer at the head.
async fn mine(world: &World, blocks: u64) {
    world
        .anvil
        .ask("anvil_mine", json!([format!("{blocks:#x}")]))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_follows_its_credential_to_the_new_owner_once() {
    let Some(world) = sold().await else { return };
    let _engine = world.engine(&[]);
    until_sold(&world).await;
    pass_on(&world).await;
    until(&world, "the new owner", async || {
        let machine = world.machine(NAME);
        machine["wallet_address"] == address(2).to_string() && machine["gecos_synced"] == true
    })
    .await;
    let told = format!("gecos {NAME} {} 0", address(2));
    assert_eq!(
        world.effects().iter().filter(|line| **line == told).count(),
        1
    );
    until(&world, "the report", async || {
        report(&world)["repaired"][0]["problem"] == "owner-changed" && problems(&world).is_empty()
    })
    .await;
    assert_eq!(recorded(&world, "owner-changed"), 1);
    assert_eq!(world.minted().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_could_not_be_told_is_told_later() {
    let Some(world) = sold().await else { return };
    let _engine = world.engine(&[]);
    until_sold(&world).await;
    let fails = world.dir.path().join("fail-update-gecos");
    std::fs::write(&fails, "the guest does not answer").unwrap();
    pass_on(&world).await;
    until(&world, "a guest that is behind", async || {
        problems(&world) == ["guest-behind"]
    })
    .await;
    assert_eq!(world.machine(NAME)["gecos_synced"], false);
    std::fs::remove_file(&fails).unwrap();
    until(&world, "the guest", async || {
        world.machine(NAME)["gecos_synced"] == true
    })
    .await;
    assert_eq!(recorded(&world, "owner-changed"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mint_that_a_reorganisation_took_back_happens_again_and_once() {
    let Some(world) = sold().await else { return };
    let before = world.anvil.ask("evm_snapshot", json!([])).await;
    let _engine = world.engine(&[]);
    until_sold(&world).await;
    assert_eq!(world.minted().await, 1);
    assert_eq!(world.anvil.ask("evm_revert", json!([before])).await, true);
    assert_eq!(world.minted().await, 0);
    mine(&world, 3).await;
    until(&world, "the second mint", async || {
        world.minted().await == 1
    })
    .await;
    mine(&world, 3).await;
    until(&world, "quiet", async || {
        problems(&world).is_empty() && report(&world)["repaired"][0]["problem"] == "mint-taken-back"
    })
    .await;
    assert_eq!(recorded(&world, "mint-taken-back"), 1);
    assert_eq!(world.minted().await, 1);
    assert_eq!(world.machine(NAME)["nft_token_id"], 0);
    let created = world
        .effects()
        .iter()
        .filter(|line| line.starts_with("create"))
        .count();
    assert_eq!(created, 1);
}

/// The worst that a reorganisation can do here: the number of our token goes to a stranger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stranger_who_gets_the_number_of_a_lost_token_does_not_get_the_machine() {
    let Some(world) = sold().await else { return };
    let before = world.anvil.ask("evm_snapshot", json!([])).await;
    let engine = world.engine(&[]);
    until_sold(&world).await;
    drop(engine);
    assert_eq!(world.anvil.ask("evm_revert", json!([before])).await, true);
    // With the nonce of our mint, and the token's number.
    let nft = AccessCredentialNFT::new(world.nft, world.anvil.account(0));
    let sent = nft
        .mint(address(2), "0x01".parse().unwrap())
        .send()
        .await
        .unwrap();
    assert!(sent.get_receipt().await.unwrap().status());
    mine(&world, 3).await;
    assert_eq!(nft.ownerOf(U256::ZERO).call().await.unwrap(), address(2));
    let _engine = world.engine(&[]);
    until(&world, "the new token", async || {
        world.machine(NAME)["nft_token_id"] == 1
    })
    .await;
    assert_eq!(nft.ownerOf(U256::from(1)).call().await.unwrap(), address(1));
    mine(&world, 3).await;
    until(&world, "quiet", async || {
        purchase(&world)["state"] == "done" && problems(&world).is_empty()
    })
    .await;
    assert_eq!(
        world.machine(NAME)["wallet_address"],
        address(1).to_string()
    );
    let stranger = address(2).to_string();
    assert!(
        !world.effects().iter().any(|line| line.contains(&stranger)),
        "{:?}",
        world.effects()
    );
    assert_eq!(world.minted().await, 2);
}

/// Records as a reorganisation leaves them that exchanges two mints: each machine has the other one's token.
fn exchange_tokens(world: &World, [a, b]: [(&str, u64); 2]) {
    let path = world.layout.state().join("vms.json");
    let mut all: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for ((name, _), (_, token)) in [(a, b), (b, a)] {
        assert_ne!(all["vms"][name]["nft_token_id"], token);
        all["vms"][name]["nft_token_id"] = token.into();
        all["reserved_nft_tokens"][token.to_string()]["vm_name"] = name.into();
    }
    std::fs::write(path, all.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tokens_that_a_reorganisation_exchanged_get_back_to_their_machines_also_when_killed_between()
 {
    let Some(world) = sold().await else { return };
    world.buy(10, world.user_encrypted()).await;
    let first = world.engine(&[]);
    let other = "blockhost-002";
    until(&world, "both purchases", async || {
        // Nothing before the engine has made its outbox.
        let jobs = serde_json::from_str::<Vec<Value>>(&world.operator(&["jobs", "--json"]));
        let jobs = jobs.unwrap_or_default();
        let mut bought = jobs
            .iter()
            .filter(|job| job["event"] == "SubscriptionCreated");
        bought.clone().count() == 2 && bought.all(|job| job["state"] == "done")
    })
    .await;
    drop(first);
    let tokens = [NAME, other].map(|name| world.machine(name)["nft_token_id"].clone());
    let [one, two] = tokens.clone().map(|token| token.as_u64().unwrap());
    exchange_tokens(&world, [(NAME, one), (other, two)]);
    let killed = world.engine_with(&[], &[("BLOCKHOST_FAIL_POINT", "reconcile:disowned")]);
    until(&world, "the fail point", async || {
        world.log().contains("blockhost fail point")
    })
    .await;
    drop(killed);
    let _engine = world.engine(&[]);
    until(&world, "their own tokens", async || {
        [NAME, other].map(|name| world.machine(name)["nft_token_id"].clone()) == tokens
    })
    .await;
    until(&world, "quiet", async || problems(&world).is_empty()).await;
    assert_eq!(world.minted().await, 2);
    let created = world.effects();
    let created = created.iter().filter(|line| line.starts_with("create"));
    assert_eq!(created.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_that_is_not_the_contracts_is_mended_and_a_paid_machine_resumed() {
    let Some(world) = sold().await else { return };
    let _engine = world.engine(&[]);
    until_sold(&world).await;
    let paid = world.machine(NAME)["expires_at"].clone();
    world.change_machine(NAME, "expires_at", json!("2020-01-01T00:00:00Z"));
    world.change_machine(NAME, "status", json!("suspended"));
    until(&world, "the paid time", async || {
        world.machine(NAME)["expires_at"] == paid && world.machine(NAME)["status"] == "active"
    })
    .await;
    assert_eq!(recorded(&world, "expiry-differs"), 1);
    assert!(world.effects().contains(&format!("resume {NAME}")));
}

/// One receipt that proves nothing must not end the comparison of all the others, nor a time beyond what the database can
/// hold be mended for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mint_that_proves_no_token_and_a_time_without_end_keep_nobody_from_being_mended() {
    let Some(world) = sold().await else { return };
    let other = "blockhost-002";
    let usd = MockUSD::new(world.usd, world.owner.clone());
    done(usd.mint(address(1), U256::from(10_u64.pow(13))).send()).await;
    world.buy(3_000_000, world.user_encrypted()).await;
    let first = world.engine(&[]);
    until(&world, "both purchases", async || {
        world.minted().await == 2 && world.jobs().iter().all(|job| job["state"] == "done")
    })
    .await;
    drop(first);
    let paid = world.machine(other)["expires_at"].clone();
    assert!(paid.as_str().unwrap().starts_with("9999"), "{paid}");
    // A transaction that is on the chain and minted nothing.
    let outbox = rusqlite::Connection::open(world.layout.state().join("outbox.db")).unwrap();
    let changed = outbox.execute(
        "UPDATE txs SET hash = (SELECT tx_hash FROM jobs WHERE id = job_id) WHERE purpose = 'mint' AND job_id =
         (SELECT min(id) FROM jobs WHERE event = 'SubscriptionCreated')",
        [],
    );
    assert_eq!(changed, Ok(1));
    drop(outbox);
    world.change_machine(other, "expires_at", json!("2020-01-01T00:00:00Z"));
    let _engine = world.engine(&[]);
    until(&world, "the paid time", async || {
        world.machine(other)["expires_at"] == paid && problems(&world).is_empty()
    })
    .await;
    for _ in 0..3 {
        let looked = report(&world)["looked_at"].clone();
        until(&world, "another look", async || {
            report(&world)["looked_at"] != looked
        })
        .await;
    }
    assert_eq!(recorded(&world, "expiry-differs"), 1);
    assert_eq!(world.log().matches("proves no token").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_that_failed_is_tried_until_the_paid_machine_runs() {
    let Some(world) = sold().await else { return };
    let _engine = world.engine(&[]);
    until_sold(&world).await;
    let fails = world.dir.path().join("fail-resume");
    std::fs::write(&fails, "no memory").unwrap();
    let paid = world.machine(NAME)["expires_at"].clone();
    world.change_machine(NAME, "expires_at", json!("2020-01-01T00:00:00Z"));
    world.change_machine(NAME, "status", json!("suspended"));
    until(&world, "the paid time and what is left to do", async || {
        world.machine(NAME)["expires_at"] == paid && problems(&world) == ["not-resumed"]
    })
    .await;
    assert_eq!(recorded(&world, "not-resumed"), 0, "nothing was mended yet");
    std::fs::remove_file(&fails).unwrap();
    until(&world, "the machine", async || {
        world.machine(NAME)["status"] == "active" && problems(&world).is_empty()
    })
    .await;
    assert_eq!(recorded(&world, "not-resumed"), 1);
    assert_eq!(recorded(&world, "expiry-differs"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_active_machine_that_does_not_run_needs_somebody_until_it_runs() {
    let Some(world) = sold().await else { return };
    let _engine = world.engine(&[]);
    until_sold(&world).await;
    let stopped = world.dir.path().join("stopped");
    std::fs::write(&stopped, NAME).unwrap();
    until(&world, "the finding", async || {
        problems(&world) == ["not-running"]
    })
    .await;
    let status = world.operator(&["status", "--json"]);
    assert!(status.contains("active and does not run"), "{status}");
    std::fs::remove_file(&stopped).unwrap();
    until(&world, "quiet", async || problems(&world).is_empty()).await;
}

/// What garbage collection looks at is the recorded time alone: with it behind the paid one, the machine is destroyed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_that_was_paid_while_a_job_is_parked_is_entered_and_the_job_stays_parked() {
    let Some(world) = sold().await else { return };
    let first = world.engine(&[]);
    until_sold(&world).await;
    let old = world.machine(NAME)["expires_at"].clone();
    // Parked, as its machine is gone; then somebody puts that back.
    world.change_machine(NAME, "status", json!("destroyed"));
    world.extend(1, 10).await;
    let extensions = || -> Vec<Value> {
        let of = |job: &Value| job["event"] == "SubscriptionExtended";
        let jobs = world.jobs().into_iter().filter(of);
        jobs.map(|job| job["state"].clone()).collect()
    };
    until(&world, "the parked job", async || {
        extensions() == ["parked"]
    })
    .await;
    world.extend(1, 5).await;
    until(&world, "the second extension", async || {
        extensions() == ["parked", "pending"]
    })
    .await;
    drop(first);
    world.change_machine(NAME, "status", json!("suspended"));
    let _engine = world.engine(&[]);
    let seconds = |text: &Value| {
        let time: jiff::Timestamp = text.as_str().unwrap().parse().unwrap();
        time.as_second()
    };
    until(&world, "the paid time", async || {
        let machine = world.machine(NAME);
        seconds(&machine["expires_at"]) - seconds(&old) == 15 * 86_400
            && machine["status"] == "active"
    })
    .await;
    assert_eq!(extensions(), ["parked", "pending"]);
    // The parked one, let go, does not take the time of the second one back.
    let parked = world.jobs();
    let parked = parked.iter().find(|job| job["state"] == "parked").unwrap();
    world.operator(&["jobs", "retry", &parked["id"].to_string()]);
    until(&world, "the end of both", async || {
        world.jobs().iter().all(|job| job["state"] == "done")
    })
    .await;
    assert_eq!(
        seconds(&world.machine(NAME)["expires_at"]) - seconds(&old),
        15 * 86_400
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_on_another_host_is_left_as_it_is() {
    let Some(world) = sold().await else { return };
    let first = world.engine(&[]);
    until_sold(&world).await;
    drop(first);
    world.change_machine(NAME, "node", json!("elsewhere"));
    world.change_machine(NAME, "expires_at", json!("2020-01-01T00:00:00Z"));
    let record = world.machine(NAME);
    let _engine = world.engine(&[]);
    for _ in 0..3 {
        let looked = report(&world)["looked_at"].clone();
        until(&world, "another look", async || {
            report(&world)["looked_at"] != looked
        })
        .await;
    }
    assert_eq!(problems(&world), Vec::<String>::new());
    assert_eq!(world.machine(NAME), record);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_person_can_decide_is_reported_and_nothing_is_destroyed_or_made() {
    let Some(world) = sold().await else { return };
    let _engine = world.engine(&[]);
    until_sold(&world).await;
    world.change_machine(NAME, "status", json!("destroyed"));
    until(&world, "the finding", async || {
        problems(&world) == ["no-machine"]
    })
    .await;
    let text = world.operator(&["reconcile"]);
    assert!(
        text.contains("subscription 1 is paid") && text.contains("for you"),
        "{text}"
    );
    let said = world.log().matches("do not fit").count();
    assert_eq!(said, 1, "{}", world.log());
    let effects = world.effects();
    // Two more looks change nothing and say nothing new.
    let looked = report(&world)["looked_at"].clone();
    until(&world, "another look", async || {
        report(&world)["looked_at"] != looked
    })
    .await;
    assert_eq!(world.effects(), effects);
    assert_eq!(world.log().matches("do not fit").count(), 1);
}
