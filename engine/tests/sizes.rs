//! Which machine a plan gives: from the setting to the command that makes it, with tries in between, and what is said of a
//! setting that cannot be.

mod common;

use alloy::primitives::{Bytes, U256};
use blockhost_engine::chain::bindings::BlockhostSubscriptions;
use common::world::World;
use common::{done, program};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Has these plans in the configuration, and one try for a job.
fn set(world: &World, plans: &str) {
    let text = format!(
        "server: {{key_file: '/etc/blockhost/server.key'}}\nengine: {{first_retry_s: 1, max_attempts: 1}}\nplans: {plans}\n"
    );
    std::fs::write(world.layout.etc().join("blockhost.yaml"), text).unwrap();
}

async fn buy(world: &World, plan: u64) {
    let pos = BlockhostSubscriptions::new(world.pos, world.anvil.account(1));
    let sealed = Bytes::from(world.user_encrypted());
    let (days, method) = (U256::from(10), U256::from(1));
    let bought = pos.buySubscription(U256::from(plan), days, method, sealed);
    done(bought.send()).await;
}

fn once(world: &World) -> bool {
    world.engine(&["--once"]).wait(LIMIT).success()
}

async fn until_done(world: &World) {
    let _engine = world.engine(&[]);
    let deadline = Instant::now() + LIMIT;
    while world.state_of("SubscriptionCreated") != "done" {
        assert!(Instant::now() < deadline, "{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_plans_give_two_machines_and_what_was_bought_is_on_record() {
    let Some(world) = World::new().await else {
        return;
    };
    let pos = BlockhostSubscriptions::new(world.pos, world.anvil.account(0));
    done(pos.createPlan("large".into(), U256::from(250)).send()).await;
    set(&world, "{2: {cores: 4, memory_mb: 8192, disk_gb: 80}}");
    buy(&world, 1).await;
    buy(&world, 2).await;
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.machine("blockhost-001")["size"], "1 1024 10");
    assert_eq!(world.machine("blockhost-002")["size"], "4 8192 80");
    let events = world.recorded_events();
    let bought = |subscription: u64| {
        let of = |event: &&Value| event["data"]["subscription"] == subscription;
        let data = &events.iter().find(of).unwrap()["data"];
        (data["plan"].clone(), data["size"].clone())
    };
    let large = json!({"cores": 4, "memory_mb": 8192, "disk_gb": 80});
    assert_eq!(bought(2), (json!(2), large.clone()));
    assert_eq!(bought(1).1["memory_mb"], 1024);
    let list = |more: &[&str]| {
        let done = program(env!("CARGO_BIN_EXE_bw"))
            .args([&["plan", "list"], more].concat())
            .env("BLOCKHOST_ROOT", world.dir.path())
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr].map(|said| String::from_utf8(said).unwrap());
        (said, done.status.code())
    };
    let ([json, _], code) = list(&["--json"]);
    let listed: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&listed["plans"][1]["machine"], code), (&large, Some(0)));
    let ([shown, _], _) = list(&[]);
    assert!(
        shown.contains("2\tlarge\t2.50\topen\t4 cores, 8192 MB, 80 GB"),
        "{shown}"
    );

    // Whoever wrote a name in place of a number is sent to this list.
    set(&world, "{large: {cores: 4}}");
    let ([json, problem], code) = list(&["--json"]);
    let listed: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(listed["plans"][1]["id"], 2);
    assert_eq!(listed["plans"][1]["machine"], Value::Null);
    assert_eq!(code, Some(1));
    assert!(
        problem.contains("plans.large") && problem.contains("bw plan list"),
        "{problem}"
    );
    let ([shown, problem], code) = list(&[]);
    assert!(shown.contains("2\tlarge\t2.50\topen\t?\n"), "{shown}");
    assert!(problem.contains("plans.large"), "{problem}");
    assert_eq!(code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_changes_between_two_tries_changes_nothing_that_is_bought() {
    let Some(world) = World::new().await else {
        return;
    };
    set(&world, "{1: {cores: 2}}");
    buy(&world, 1).await;
    // Settled, and killed before anything is made.
    world.crash_once("create:before");
    assert!(!once(&world));
    assert!(world.has_crashed());
    set(&world, "{1: {cores: 8, memory_mb: 512}}");
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.machine("blockhost-001")["size"], "2 1024 10");
    // The next one who buys gets the new one, and the machine of the first stays as it is.
    buy(&world, 1).await;
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.machine("blockhost-001")["size"], "2 1024 10");
    assert_eq!(world.machine("blockhost-002")["size"], "8 512 10");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_that_could_not_be_had_is_corrected_and_the_job_tried_again_by_hand() {
    let Some(world) = World::new().await else {
        return;
    };
    set(&world, "{1: {memory_mb: 4194304}}");
    let fails = world.dir.path().join("fail-create");
    std::fs::write(&fails, "cannot allocate memory").unwrap();
    buy(&world, 1).await;
    assert!(!once(&world));
    assert_eq!(world.state_of("SubscriptionCreated"), "parked");
    std::fs::remove_file(fails).unwrap();
    set(&world, "{1: {memory_mb: 4096}}");
    let jobs = world.jobs();
    let job = jobs.iter().find(|job| job["state"] == "parked").unwrap();
    world.operator(&["jobs", "retry", &job["id"].to_string()]);
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.machine("blockhost-001")["size"], "1 4096 10");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_stands_when_its_job_is_tried_again_by_hand_is_on_record_as_large_as_it_is()
{
    let Some(world) = World::new().await else {
        return;
    };
    set(&world, "{1: {cores: 2}}");
    buy(&world, 1).await;
    // Made, and killed before that was written down; then there was something to decide.
    world.crash_once("create:after");
    assert!(!once(&world));
    assert!(world.has_crashed());
    let vm = "blockhost-001";
    let owner = world.machine(vm)["wallet_address"].clone();
    world.change_machine(vm, "wallet_address", Value::Null);
    assert!(!once(&world));
    assert_eq!(world.state_of("SubscriptionCreated"), "parked");
    world.change_machine(vm, "wallet_address", owner);
    set(&world, "{1: {cores: 8}}");
    let jobs = world.jobs();
    let job = jobs.iter().find(|job| job["state"] == "parked").unwrap();
    world.operator(&["jobs", "retry", &job["id"].to_string()]);
    assert!(once(&world), "{}", world.log());
    assert_eq!(world.machine(vm)["size"], "2 1024 10");
    let events = world.recorded_events();
    let made = events
        .iter()
        .find(|event| event["action"] == "subscription-created")
        .unwrap();
    assert_eq!(made["data"]["size"]["cores"], 2, "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_setting_cannot_be_read_a_purchase_waits_and_gets_no_other_machine() {
    let Some(world) = World::new().await else {
        return;
    };
    set(&world, "{1: {cores: 0}}");
    buy(&world, 1).await;
    assert!(!once(&world));
    assert_eq!(world.state_of("SubscriptionCreated"), "pending");
    let job = world.jobs().into_iter().next_back().unwrap();
    let error = job["last_error"].as_str().unwrap();
    assert!(error.contains("plans.1.cores"), "{error}");
    assert_eq!(world.effects(), Vec::<String>::new());
    set(&world, "{1: {cores: 3}}");
    until_done(&world).await;
    assert_eq!(world.machine("blockhost-001")["size"], "3 1024 10");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_the_contract_does_not_have_and_a_size_that_cannot_be_are_named() {
    let Some(world) = World::new().await else {
        return;
    };
    let check = || {
        let done = program(env!("CARGO_BIN_EXE_blockhost"))
            .args(["config", "check", "--json"])
            .env("BLOCKHOST_ROOT", world.dir.path())
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&done.stdout).unwrap();
        let list = |key: &str| said[key].to_string();
        (list("problems"), list("warnings"), said["values"].clone())
    };
    set(&world, "{1: {cores: 2}}");
    let (before, _, values) = check();
    assert!(!before.contains("plans"), "{before}");
    assert_eq!(values["plans.1"], "2 cores, 1024 MB, 10 GB");
    assert_eq!(values["plans.otherwise"], "1 core, 1024 MB, 10 GB");
    set(
        &world,
        "\n  1: {cores: 2}\n  2: {cores: 2}\n  7: {cores: 2}",
    );
    let (problems, warnings, _) = check();
    assert!(
        problems.contains("blockhost.yaml:6: key \\\"plans.7\\\": the contract has no such plan")
            && !problems.contains("plans.2"),
        "{problems}"
    );
    assert!(
        warnings.contains("plans.2") && warnings.contains("the next one"),
        "{warnings}"
    );
    set(&world, "\n  1: {disk_gb: 1}");
    let (problems, _, _) = check();
    assert!(
        problems.contains("blockhost.yaml:4: key \\\"plans.1.disk_gb\\\": 1 is not"),
        "{problems}"
    );
    // Nobody to ask is no mistake of the file.
    set(&world, "{7: {cores: 2}}");
    world.set_endpoints(1, &["http://127.0.0.1:1".into()]);
    let (problems, warnings, _) = check();
    assert!(!problems.contains("plans"), "{problems}");
    assert!(warnings.contains("is not known"), "{warnings}");
}
