//! An administrator knocks, by a transaction on a local chain, at the engine's real binary. What the firewall itself makes
//! of it is the end-to-end test's.

mod common;

use alloy::network::TransactionBuilder as _;
use alloy::primitives::Address;
use alloy::providers::Provider as _;
use alloy::rpc::types::TransactionRequest;
use blockhost_engine::outbox::Outbox;
use common::world::World;
use common::{address, liar, program};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const COMMANDS: &str = r#"{"commands": {"let-me-in": {"action": "knock",
    "params": {"allowed_ports": [22, 8443], "default_duration": 4, "max_duration": 3600}}}}"#;

async fn world() -> Option<World> {
    let world = World::new().await?;
    world.set_engine(&format!(
        "max_fee_gwei: 1000\nadmin: {{wallet_address: '{}', destination_mode: self}}",
        address(2)
    ));
    std::fs::write(world.layout.etc().join("admin-commands.json"), COMMANDS).unwrap();
    Some(world)
}

fn sealed(world: &World, args: &[&str]) -> String {
    let mut all = vec!["admin", "knock", "let-me-in"];
    all.extend_from_slice(args);
    world.operator(&all).trim().to_owned()
}

async fn send(world: &World, from: usize, to: Address, data: &str) {
    let request = TransactionRequest::default()
        .with_to(to)
        .with_input(hex::decode(data.trim_start_matches("0x")).unwrap());
    let sent = world
        .anvil
        .account(from)
        .send_transaction(request)
        .await
        .unwrap();
    assert!(sent.get_receipt().await.unwrap().status());
}

/// What the agent was asked for ports: `open 22 -`, `close 22 192.0.2.7/32`.
fn ports(world: &World) -> Vec<String> {
    world
        .recorded_events()
        .iter()
        .filter_map(|event| {
            let verb = event["action"].as_str()?.strip_prefix("iptables-")?;
            assert_eq!(event["comment"], "blockhost-knock");
            let source = event["source"].as_str().unwrap_or("-");
            Some(format!("{verb} {} {source}", event["port"]))
        })
        .collect()
}

fn noted(world: &World, action: &str) -> Vec<Value> {
    let events = world.recorded_events();
    events
        .into_iter()
        .filter(|event| event["action"] == action)
        .collect()
}

async fn until(world: &World, what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(
            Instant::now() < deadline,
            "{what} did not come: {:?}\n{}",
            ports(world),
            world.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_knock_opens_its_ports_for_its_time_and_is_carried_out_once() {
    let Some(world) = world().await else { return };
    let engine = world.engine(&[]);
    let data = sealed(&world, &["--port", "22", "--source", "192.0.2.0/24"]);
    send(&world, 2, address(2), &data).await;
    until(&world, "the port", || {
        ports(&world) == ["open 22 192.0.2.0/24"]
    })
    .await;
    until(&world, "the end", || ports(&world).len() == 2).await;
    assert_eq!(ports(&world)[1], "close 22 192.0.2.0/24");
    // The same bytes in another transaction, and the same transaction seen by another engine.
    send(&world, 2, address(2), &data).await;
    drop(engine);
    let _engine = world.engine(&[]);
    let fresh = sealed(&world, &["--port", "8443"]);
    send(&world, 2, address(2), &fresh).await;
    until(&world, "the other knock", || ports(&world).len() == 4).await;
    assert_eq!(ports(&world)[2..], ["open 8443 -", "close 8443 -"]);
    assert_eq!(noted(&world, "admin-command").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_the_administrator_and_whatever_is_not_allowed_opens_nothing() {
    let Some(world) = world().await else { return };
    let _engine = world.engine(&[]);
    // Another wallet, another destination, another port, a longer time, an old message.
    send(&world, 1, address(2), &sealed(&world, &["--port", "22"])).await;
    send(&world, 2, address(1), &sealed(&world, &["--port", "22"])).await;
    send(&world, 2, address(2), &sealed(&world, &["--port", "23"])).await;
    send(
        &world,
        2,
        address(2),
        &sealed(&world, &["--port", "22", "--duration", "3601"]),
    )
    .await;
    send(&world, 2, address(2), "0x00112233").await;
    let key = world.server_public_key();
    let old = json!({"command": "let-me-in", "params": {"ports": [22]}, "nonce": "n", "timestamp": 1_700_000_000});
    let old = blockhost_engine::crypto::ecies::encrypt(&key, old.to_string().as_bytes()).unwrap();
    send(&world, 2, address(2), &hex::encode(old)).await;
    // One that is good comes last: then everything before it was looked at.
    send(&world, 2, address(2), &sealed(&world, &["--port", "8443"])).await;
    until(&world, "the good one", || !ports(&world).is_empty()).await;
    assert_eq!(ports(&world), ["open 8443 -"]);
    let refused = noted(&world, "admin-command-refused");
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(world.log().contains("too old"), "{}", world.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_login_only_its_address_stays_and_everything_closes_with_the_engine() {
    let Some(world) = world().await else { return };
    let mut engine = world.engine(&[]);
    send(
        &world,
        2,
        address(2),
        &sealed(&world, &["--port", "22", "--duration", "3000"]),
    )
    .await;
    until(&world, "the port", || ports(&world) == ["open 22 -"]).await;
    // What is no address leaves no sign.
    for (kind, host, leaves) in [
        ("open_session", "host.example", false),
        ("open_session", "$(touch pwned)", false),
        ("close_session", "203.0.113.5", false),
        ("open_session", "198.51.100.7", true),
    ] {
        let hook =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/share/knock-login");
        let done = program(hook)
            .env("PAM_TYPE", kind)
            .env("PAM_RHOST", host)
            .env("BLOCKHOST_ROOT", world.dir.path())
            .env("KNOCK_HEARTBEAT_S", "1")
            .status()
            .unwrap();
        assert!(done.success());
        assert_eq!(
            world.layout.run().join("knock.active").exists(),
            leaves,
            "{kind} {host}"
        );
    }
    until(&world, "the narrow rule", || ports(&world).len() == 3).await;
    assert_eq!(
        ports(&world)[1..],
        ["open 22 198.51.100.7/32", "close 22 -"]
    );
    engine.terminate();
    assert!(engine.wait(Duration::from_secs(60)).success());
    assert_eq!(ports(&world).last().unwrap(), "close 22 198.51.100.7/32");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_engine_left_open_the_next_one_closes_first() {
    let Some(world) = world().await else { return };
    let mut engine = world.engine(&[]);
    send(
        &world,
        2,
        address(2),
        &sealed(&world, &["--port", "22", "--duration", "3000"]),
    )
    .await;
    until(&world, "the port", || ports(&world) == ["open 22 -"]).await;
    engine.child.kill().unwrap();
    engine.child.wait().unwrap();
    let _engine = world.engine(&[]);
    until(&world, "the closing", || ports(&world).len() == 2).await;
    assert_eq!(ports(&world)[1], "close 22 -");
    // The command is still in a block that is read again: it was carried out.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ports(&world).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_whose_own_database_breaks_closes_what_it_opened_and_ends() {
    let Some(world) = world().await else { return };
    let mut engine = world.engine(&[]);
    let data = sealed(&world, &["--port", "22", "--duration", "3600"]);
    send(&world, 2, address(2), &data).await;
    until(&world, "the port", || ports(&world) == ["open 22 -"]).await;
    let outbox = rusqlite::Connection::open(Outbox::path(&world.layout)).unwrap();
    outbox.busy_timeout(Duration::from_secs(10)).unwrap();
    outbox.execute_batch("DROP TABLE jobs").unwrap();
    let status = engine.wait(Duration::from_secs(60));
    assert!(!status.success(), "who watches it has to start it again");
    assert_eq!(ports(&world), ["open 22 -", "close 22 -"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_knock_is_found_among_transactions_of_kinds_that_only_its_chain_has() {
    let Some(world) = world().await else { return };
    // What a rollup puts into each of its blocks, one of them as if the administrator had sent it.
    let port = liar::bent(world.anvil.port, |request, answer| {
        if request["method"] != "eth_getBlockByNumber" || request["params"][1] != true {
            return;
        }
        let Some(all) = answer["result"]["transactions"].as_array_mut() else {
            return;
        };
        for (kind, from) in [("0x7e", Address::repeat_byte(0x11)), ("0x6a", address(2))] {
            all.insert(0, json!({
                "type": kind, "from": from.to_string(), "to": address(2).to_string(), "input": "0x00",
                "hash": format!("0x{}", "7e".repeat(32)), "sourceHash": format!("0x{}", "01".repeat(32)),
                "nonce": "0x0", "value": "0x0", "gas": "0xf4240", "mint": "0x0", "isSystemTx": false,
                "r": "0x0", "s": "0x0", "v": "0x0", "transactionIndex": "0x0",
            }));
        }
    });
    world.set_endpoints(1, &[format!("http://127.0.0.1:{port}")]);
    let _engine = world.engine(&[]);
    let data = sealed(&world, &["--port", "22"]);
    send(&world, 2, address(2), &data).await;
    until(&world, "the port", || {
        ports(&world) == ["open 22 -", "close 22 -"]
    })
    .await;
    assert!(!world.log().contains("cannot be read"), "{}", world.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_close_in_time_at_the_end_and_at_the_start_although_no_node_answers() {
    let Some(world) = world().await else { return };
    // Takes questions and answers none for as long as the test wants.
    let (holds, held) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (own, count) = (holds.clone(), held.clone());
    let port = liar::instead(world.anvil.port, move |_| {
        if own.load(Ordering::SeqCst) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        while own.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    });
    world.set_endpoints(1, &[format!("http://127.0.0.1:{port}")]);
    let knock = async |port: &str, duration: &str| {
        let data = sealed(&world, &["--port", port, "--duration", duration]);
        send(&world, 2, address(2), &data).await;
    };
    // Nobody got an answer, and none of the looks had ended yet, not even by giving up.
    let unanswered = |when: &str| {
        let log = world.log();
        assert!(!log.contains("cannot be read"), "{when}: {log}");
    };

    let mut engine = world.engine(&[]);
    knock("22", "4").await;
    until(&world, "the port", || ports(&world) == ["open 22 -"]).await;
    holds.store(true, Ordering::SeqCst);
    until(&world, "its end", || ports(&world).len() == 2).await;
    unanswered("its time is over");
    holds.store(false, Ordering::SeqCst);

    knock("8443", "3600").await;
    until(&world, "the next", || ports(&world).len() == 3).await;
    holds.store(true, Ordering::SeqCst);
    let before = held.load(Ordering::SeqCst);
    until(&world, "a look", || {
        held.load(Ordering::SeqCst) > before + 1
    })
    .await;
    engine.terminate();
    engine.wait(Duration::from_secs(60));
    assert_eq!(ports(&world)[2..], ["open 8443 -", "close 8443 -"]);
    unanswered("the engine ended");
    holds.store(false, Ordering::SeqCst);

    let mut engine = world.engine(&[]);
    knock("22", "3600").await;
    until(&world, "the last", || ports(&world).len() == 5).await;
    engine.child.kill().unwrap();
    engine.child.wait().unwrap();
    holds.store(true, Ordering::SeqCst);
    let _engine = world.engine(&[]);
    until(&world, "the closing", || ports(&world).len() == 6).await;
    assert_eq!(ports(&world)[4..], ["open 22 -", "close 22 -"]);
    unanswered("the next start");
    holds.store(false, Ordering::SeqCst);
}
