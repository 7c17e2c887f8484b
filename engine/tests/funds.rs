//! The funds manager across real process boundaries: a real chain, a real Uniswap V2, kill -9 at every step of every
//! transaction. Whatever happens, the sums are exact and nothing is paid twice.

mod common;

use alloy::primitives::{Address, U256};
use common::address;
use common::bank::{ADMIN, BROKER, Bank, DEV, ETH, answer, complaint, usd};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const BLOCKHOST: &str = env!("CARGO_BIN_EXE_blockhost");
const BW: &str = env!("CARGO_BIN_EXE_bw");
const SHARES: &str = r#"{"enabled": true, "total_percent": 12.5, "recipients": [{"role": "dev", "percent": 10}, {"role": "broker", "bps": 250}]}"#;
/// What customers paid in the tests.
const PAID: u64 = 333_333_333;

/// What everybody has to have after a round of [`PAID`], with [`SHARES`].
async fn assert_paid_out(bank: &Bank, hot: Address, when: &str) {
    let token = bank.world.usd;
    let left = PAID - 50_000_000;
    let (dev, broker) = (left / 10, left * 250 / 10_000);
    for (who, name, expected) in [
        (bank.world.pos, "the contract", 0),
        (hot, "the hot wallet", 0),
        (address(0), "the server", 50_000_000),
        (DEV, "dev", dev),
        (BROKER, "broker", broker),
        (ADMIN, "the admin", left - dev - broker),
    ] {
        let has = bank.has(token, who).await;
        assert_eq!(has, U256::from(expected), "{when}: {name}");
    }
}

fn run(bank: &Bank) -> Value {
    answer(&bank.run(BLOCKHOST, &["funds", "run", "--json"]))
}

/// Movements in the ledger: the verb and the transaction.
fn recorded(bank: &Bank) -> Vec<(String, String)> {
    let events = bank.world.recorded_events().into_iter();
    events
        .filter(|event| event["action"].as_str().unwrap().starts_with("funds-"))
        .map(|event| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&event["action"]), text(&event["data"]["tx"]))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_pays_everybody_exactly_and_every_movement_is_in_the_ledger_with_its_transaction() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.share(SHARES);
    bank.mint(bank.world.usd, bank.world.pos, U256::from(PAID))
        .await;
    let forecast = answer(&bank.run(BLOCKHOST, &["funds", "run", "--dry-run", "--json"]));
    assert_eq!(forecast["makes_hot_wallet"], true);
    assert_eq!(forecast["withdrawals"].as_array().unwrap().len(), 1);
    assert_eq!(forecast["payments"].as_array().unwrap().len(), 5);
    assert!(bank.book()["hot"].is_null(), "a dry run changes nothing");
    let server_sent = bank.sent(address(0)).await;

    let orders = run(&bank);
    let steps = orders["orders"][0]["steps"].as_array().unwrap();
    assert_eq!(orders["orders"][0]["state"], "done");
    assert!(
        steps.iter().all(|step| step["state"] == "done"),
        "{steps:?}"
    );
    let hot = bank.hot();
    assert_paid_out(&bank, hot, "a round").await;
    assert!(bank.eth(hot).await > ETH / U256::from(200), "gas is left");
    assert_eq!(bank.sent(address(0)).await - server_sent, 2);
    assert_eq!(bank.sent(hot).await, 4);
    let recorded = recorded(&bank);
    let verbs: Vec<&str> = recorded.iter().map(|(verb, _)| verb.as_str()).collect();
    assert_eq!(
        verbs,
        [
            "funds-withdrawn",
            "funds-paid",
            "funds-paid",
            "funds-paid",
            "funds-paid",
            "funds-paid"
        ]
    );
    for (step, (_, tx)) in steps.iter().zip(&recorded) {
        assert_eq!(step["tx"], *tx);
    }
    // What is due once a day is not due again, and asked for by hand it finds nothing but the gas that was used.
    run(&bank);
    assert_paid_out(&bank, hot, "again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_token_that_is_worth_it_is_paid_out_by_its_pairs_price_and_the_rest_stays() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.make_hot(1);
    bank.share(r#"{"recipients": [{"role": "0x00000000000000000000000000000000000000A1", "percent": 33.33}]}"#);
    let dear = bank.second_token(18, 30).await;
    let cheap = bank.second_token(8, 20).await;
    let two = U256::from(2) * ETH;
    bank.mint(dear, bank.world.pos, two).await;
    bank.mint(cheap, bank.world.pos, U256::from(249_000_000))
        .await; // 49.80 dollars
    bank.mint(bank.world.usd, bank.world.pos, usd(49)).await;
    let paid_before = bank.has(bank.world.usd, address(1)).await;
    // What the customer's account has of the stablecoin is the hot wallet's here, and is paid out, too.
    run(&bank);
    let one: Address = "0x00000000000000000000000000000000000000A1"
        .parse()
        .unwrap();
    let share = two * U256::from(3333) / U256::from(10_000);
    assert_eq!(bank.has(dear, one).await, share);
    assert_eq!(bank.has(dear, ADMIN).await, two - share);
    assert_eq!(
        bank.has(cheap, bank.world.pos).await,
        U256::from(249_000_000)
    );
    assert_eq!(bank.has(bank.world.usd, bank.world.pos).await, usd(49));
    let left = paid_before - usd(50);
    assert_eq!(
        bank.has(bank.world.usd, one).await + bank.has(bank.world.usd, ADMIN).await,
        left
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_moves_while_anything_about_who_is_paid_is_wrong() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.mint(bank.world.usd, bank.world.pos, U256::from(PAID))
        .await;
    let sent = bank.sent(address(0)).await;
    for (shares, complaint_part) in [
        (
            r#"{"recipients": [{"role": "dev", "percent": 60}, {"role": "broker", "percent": 40.01}]}"#,
            "more than 100 percent",
        ),
        (
            r#"{"recipients": [{"role": "nobody", "percent": 1}]}"#,
            "has no nobody",
        ),
        (
            r#"{"recipients": [{"role": "dev", "percent": 1}"#,
            "revenue-share.json",
        ),
    ] {
        bank.share(shares);
        let failed = bank.run(BLOCKHOST, &["funds", "run"]);
        assert_eq!(failed.status.code(), Some(1), "{shares}");
        assert!(
            complaint(&failed).contains(complaint_part),
            "{}",
            complaint(&failed)
        );
        let checked = bank.run(BLOCKHOST, &["config", "check"]);
        assert!(
            complaint(&checked).contains(complaint_part),
            "{}",
            complaint(&checked)
        );
    }
    bank.share("{}");
    let mut book = bank.book();
    book.as_object_mut().unwrap().remove("admin");
    bank.write_book(book);
    let failed = bank.run(BLOCKHOST, &["funds", "run"]);
    assert!(
        complaint(&failed).contains("has no admin"),
        "{}",
        complaint(&failed)
    );
    assert_eq!(bank.sent(address(0)).await, sent);
    assert_eq!(
        bank.has(bank.world.usd, bank.world.pos).await,
        U256::from(PAID)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_wallet_whose_key_is_anothers_is_found_out_before_anything_moves() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.make_hot(1);
    bank.mint(bank.world.usd, bank.world.pos, U256::from(PAID))
        .await;
    std::fs::write(bank.world.layout.etc().join("hot.key"), common::KEYS[2]).unwrap();
    let sent = bank.sent(address(0)).await;
    let failed = bank.run(BLOCKHOST, &["funds", "run"]);
    assert!(
        complaint(&failed).contains("belongs to"),
        "{}",
        complaint(&failed)
    );
    assert_eq!(
        bank.sent(address(0)).await,
        sent,
        "found out before anything moved"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wallets_trouble_keeps_nothing_else_from_being_done() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.make_hot(1);
    bank.mint(bank.world.usd, address(0), usd(100)).await;
    let args = ["send", "7", "stable", "server", "admin"];
    let stopped = bank.stopped_at(BW, &args, "send:signing funds 1.1.");
    assert!(stopped.is_some());
    drop(stopped);
    std::fs::write(bank.world.layout.etc().join("hot.key"), common::KEYS[2]).unwrap();
    let failed = bank.run(BLOCKHOST, &["funds", "run"]);
    assert_eq!(failed.status.code(), Some(1));
    let words = complaint(&failed);
    assert!(
        words.contains("hot: ") && words.contains("belongs to"),
        "{words}"
    );
    assert_eq!(bank.has(bank.world.usd, ADMIN).await, usd(7));
}

/// Orders as they stand: kind, state, and how many steps.
fn standing(bank: &Bank) -> Vec<(String, String, usize)> {
    let told = answer(&bank.run(BLOCKHOST, &["funds", "status", "--json"]));
    let mut orders: Vec<_> = told["orders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|order| {
            let text = |key: &str| order[key].as_str().unwrap().to_owned();
            let steps = order["steps"].as_array().unwrap().len();
            (text("kind"), text("state"), steps)
        })
        .collect();
    orders.reverse();
    orders
}

/// A payment that waits for its block has left nothing: the balance that a round would share out still has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_payment_that_waits_is_to_move_is_not_shared_out_by_a_round() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.make_hot(1);
    let (token, hot) = (bank.world.usd, address(1));
    let had = bank.has(token, hot).await;
    // Begun by the first look, or by one before the payment was ordered.
    for (begun, earlier) in [(false, 0), (true, 2)] {
        if begun {
            let run = ["funds", "run"];
            assert!(bank.stopped_at(BLOCKHOST, &run, "funds:ordered").is_some());
            bank.mint(token, hot, usd(500)).await;
        }
        bank.world
            .anvil
            .ask("evm_setAutomine", json!([false]))
            .await;
        let number = earlier + usize::from(begun) + 1;
        let args = ["send", "100", "stable", "hot", "dev"];
        let sent = format!("send:sent funds {number}.1.");
        assert!(bank.stopped_at(BW, &args, &sent).is_some());
        let before = standing(&bank);
        assert_eq!(before.len(), number, "{before:?}");
        // Whoever waits for a block is told to come back at once.
        bank.world.set_engine("replace_after_s: 0");
        let waits = bank.run(BLOCKHOST, &["funds", "run"]);
        bank.world.set_engine("replace_after_s: 90");
        assert_eq!(waits.status.code(), Some(1));
        let words = complaint(&waits);
        assert!(
            words.contains(&format!("order {number} is not done")),
            "{words}"
        );
        assert_eq!(standing(&bank), before);
        bank.world.anvil.ask("evm_setAutomine", json!([true])).await;
        bank.world.anvil.ask("evm_mine", json!([])).await;
        run(&bank);
        let after = standing(&bank);
        assert!(
            after.iter().all(|(_, state, _)| state == "done"),
            "{after:?}"
        );
    }
    assert_eq!(bank.has(token, hot).await, U256::ZERO);
    assert_eq!(bank.has(token, DEV).await, usd(200));
    assert_eq!(bank.has(token, address(0)).await, usd(50));
    assert_eq!(bank.has(token, ADMIN).await, had + usd(500) - usd(250));
}

/// The engine of another host may be at work with the same keys: until the database that both use says that it is not, this
/// one reads the chain and signs nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_paid_before_it_is_known_that_no_other_engine_works_with_the_database() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let path = bank.world.layout.etc().join("db.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let server = format!("db_url: 'postgres://blockhost@127.0.0.1:{port}/vms'\n");
    std::fs::write(
        &path,
        text.replace("db_file: /var/lib/blockhost/vms.json\n", &server),
    )
    .unwrap();
    bank.world
        .set_engine("fund_manager: {enabled: true, look_every_s: 1}");
    bank.mint(bank.world.usd, bank.world.pos, U256::from(PAID))
        .await;
    let mut engine = bank.world.engine(&[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait_for = async |done: &dyn Fn() -> bool| {
        while !done() {
            assert!(Instant::now() < deadline, "{}", bank.world.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    wait_for(&|| bank.world.log().contains("payments wait until it is known")).await;
    // It reads on, block after block.
    for bought in 1..=2 {
        bank.world.buy(30, vec![1; 65]).await;
        wait_for(&|| {
            let jobs = bank.world.jobs();
            let purchases = jobs
                .iter()
                .filter(|job| job["event"] == "SubscriptionCreated");
            purchases.filter(|job| job["state"] == "pending").count() == bought
        })
        .await;
    }
    engine.terminate();
    assert!(engine.wait(Duration::from_secs(60)).success());
    assert_eq!(standing(&bank), []);
    assert!(bank.book()["hot"].is_null(), "nor is a wallet made");
}

/// Points where a step's process is killed.
const MOMENTS: [&str; 7] = [
    "funds:before 1.N",
    "send:signing funds 1.N.",
    "send:signed funds 1.N.",
    "send:sent funds 1.N.",
    "send:mined funds 1.N.",
    "send:settled funds 1.N.",
    "funds:after 1.N",
];

async fn killed_in_steps(steps: &[u8], more: &[&str]) {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.share(SHARES);
    bank.make_hot(2);
    let hot = address(2);
    // The maker of the market is the hot wallet here: what it has of the stablecoin goes elsewhere first.
    let rest = bank.has(bank.world.usd, hot).await;
    let token = blockhost_engine::chain::bindings::IERC20::new(bank.world.usd, bank.maker());
    let sent = token
        .transfer(Address::repeat_byte(1), rest)
        .send()
        .await
        .unwrap();
    assert!(sent.get_receipt().await.unwrap().status());
    bank.mint(bank.world.usd, bank.world.pos, U256::from(PAID))
        .await;
    bank.set_eth(hot, ETH / U256::from(1000)).await;
    let (server_sent, hot_sent) = (bank.sent(address(0)).await, bank.sent(hot).await);
    let points = steps
        .iter()
        .flat_map(|step| MOMENTS.map(|moment| moment.replace('N', &step.to_string())))
        .chain(more.iter().map(|point| (*point).to_owned()));
    for point in points {
        let before = bank.world.anvil.ask("evm_snapshot", json!([])).await;
        let stopped = bank.stopped_at(BLOCKHOST, &["funds", "run"], &point);
        assert!(stopped.is_some(), "{point}: never reached");
        drop(stopped);
        run(&bank);
        assert_paid_out(&bank, hot, &point).await;
        assert_eq!(bank.sent(address(0)).await - server_sent, 2, "{point}");
        assert_eq!(bank.sent(hot).await - hot_sent, 4, "{point}");
        assert!(
            bank.world
                .anvil
                .ask("evm_revert", json!([before]))
                .await
                .as_bool()
                .unwrap()
        );
        bank.forget();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_in_the_withdrawal_the_round_goes_on_to_exact_sums() {
    killed_in_steps(&[1], &["funds:ordered", "funds:planned", "funds:advanced"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_in_the_first_payments_the_round_goes_on_to_exact_sums() {
    killed_in_steps(&[2, 3], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_in_the_last_payments_the_round_goes_on_to_exact_sums() {
    killed_in_steps(&[4, 5, 6], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ledger_could_not_hear_of_it_hears_of_later_once() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.make_hot(1);
    bank.mint(bank.world.usd, bank.world.pos, usd(100)).await;
    let socket = bank.world.layout.agent_socket();
    let away = socket.with_extension("away");
    std::fs::rename(&socket, &away).unwrap();
    let orders = run(&bank);
    let steps = orders["orders"][0]["steps"].as_array().unwrap().len();
    assert!(steps >= 3);
    assert_eq!(recorded(&bank), []);
    std::fs::rename(&away, &socket).unwrap();
    run(&bank);
    let heard = recorded(&bank);
    assert_eq!(heard.len(), steps, "{heard:?}");
    run(&bank);
    assert_eq!(recorded(&bank).len(), steps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lies_about_balances_moves_nothing_and_overflows_nothing() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.share(SHARES);
    bank.make_hot(1);
    bank.mint(bank.world.usd, bank.world.pos, usd(100)).await;
    let before = bank.has(bank.world.usd, address(1)).await;
    for lie in [
        "f".repeat(64),
        format!("7{}", "f".repeat(63)),
        format!("{:0>64}", "f".repeat(40)),
    ] {
        let port = common::liar::start(bank.world.anvil.port, "0x70a08231", lie);
        let path = bank.world.layout.etc().join("web3-defaults.yaml");
        let honest = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = honest.lines().map(str::to_owned).collect();
        for line in lines
            .iter_mut()
            .filter(|line| line.trim_start().starts_with("rpc_url:"))
        {
            *line = format!("  rpc_url: 'http://127.0.0.1:{port}'");
        }
        std::fs::write(&path, lines.join("\n")).unwrap();
        let forecast = bank.run(BLOCKHOST, &["funds", "run", "--dry-run", "--json"]);
        assert_ne!(
            forecast.status.code(),
            Some(101),
            "{}",
            complaint(&forecast)
        );
        for _ in 0..3 {
            let done = bank.run(BLOCKHOST, &["funds", "run"]);
            assert_ne!(done.status.code(), Some(101), "{}", complaint(&done));
        }
        std::fs::write(&path, &honest).unwrap();
        // Withdrawing takes what there is, whatever is claimed; nothing else can be paid by a claim.
        for who in [DEV, BROKER, ADMIN] {
            assert_eq!(bank.has(bank.world.usd, who).await, U256::ZERO);
        }
        let all = bank.has(bank.world.usd, bank.world.pos).await
            + bank.has(bank.world.usd, address(1)).await
            + bank.has(bank.world.usd, address(0)).await;
        assert_eq!(all, before + usd(100));
        bank.forget();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engine_and_commands_do_not_take_each_others_nonce() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.world
        .set_engine("max_fee_gwei: 1000\nfund_manager: {enabled: false}");
    bank.mint(bank.world.usd, address(0), usd(100)).await;
    let sent = bank.sent(address(0)).await;
    for _ in 0..6 {
        bank.world.buy(30, bank.world.user_encrypted()).await;
    }
    let mut engine = bank.world.engine(&[]);
    let mut payments: Vec<_> = (0..6)
        .map(|_| {
            bank.command(BW, &["send", "1", "stable", "server", "admin"])
                .spawn()
                .unwrap()
        })
        .collect();
    for payment in &mut payments {
        assert!(payment.wait().unwrap().success());
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while bank.world.minted().await < 6 {
        assert!(Instant::now() < deadline, "{}", bank.world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.terminate();
    engine.wait(Duration::from_secs(60));
    assert_eq!(bank.has(bank.world.usd, ADMIN).await, usd(6));
    assert_eq!(bank.world.minted().await, 6);
    assert!(
        !bank.world.log().contains("overtaken"),
        "{}",
        bank.world.log()
    );
    assert_eq!(
        bank.sent(address(0)).await - sent,
        12,
        "six mints and six payments"
    );
    assert_eq!(recorded(&bank).len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_has_paid_the_engine_puts_on_record_only_once_the_command_cannot() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.world
        .set_engine("fund_manager: {enabled: false, look_every_s: 1}");
    bank.mint(bank.world.usd, address(0), usd(100)).await;
    let args = ["send", "1", "stable", "server", "admin"];
    let command = bank.stopped_at(BW, &args, "funds:after 1.1");
    assert!(command.is_some(), "it ended");
    let mut engine = bank.world.engine(&[]);
    // What the command has paid; the engine pays for gas, too.
    let paid = || -> Vec<Value> {
        let events = bank.world.recorded_events().into_iter();
        events
            .map(|event| event["data"].clone())
            .filter(|data| data["why"] == "bw send")
            .collect()
    };
    // Several looks.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(paid().is_empty(), "{:?}", paid());
    drop(command);
    let deadline = Instant::now() + Duration::from_secs(60);
    while paid().is_empty() {
        assert!(Instant::now() < deadline, "{}", bank.world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.terminate();
    engine.wait(Duration::from_secs(60));
    let paid = paid();
    assert_eq!(paid.len(), 1, "{paid:?}");
    assert_eq!(paid[0]["currency"], bank.world.usd.to_string());
    assert_eq!(bank.has(bank.world.usd, ADMIN).await, usd(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_left_behind_the_engine_replaces_with_a_higher_fee_and_finishes_once() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.world
        .set_engine("replace_after_s: 1\nfund_manager: {enabled: false, look_every_s: 1}");
    bank.mint(bank.world.usd, address(0), usd(100)).await;
    bank.world
        .anvil
        .ask("evm_setAutomine", json!([false]))
        .await;
    let args = ["split", "10", "stable", "1/1", "server", "admin", "dev"];
    assert!(bank.stopped_at(BW, &args, "send:sent funds 1.1.").is_some());
    let mut engine = bank.world.engine(&[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !bank.world.log().contains("replaced with higher fees") {
        assert!(Instant::now() < deadline, "{}", bank.world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bank.world.anvil.ask("evm_setAutomine", json!([true])).await;
    bank.world.anvil.ask("evm_mine", json!([])).await;
    while bank.has(bank.world.usd, DEV).await.is_zero() {
        assert!(Instant::now() < deadline, "{}", bank.world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.terminate();
    engine.wait(Duration::from_secs(60));
    bank.world.anvil.ask("anvil_mine", json!([3])).await;
    assert_eq!(bank.has(bank.world.usd, ADMIN).await, usd(5));
    assert_eq!(bank.has(bank.world.usd, DEV).await, usd(5));
}

#[path = "funds/swaps.rs"]
mod swaps;
