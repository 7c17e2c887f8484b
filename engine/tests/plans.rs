//! `bw plan` on a real chain: what is listed, changed, closed and opened, what the contract then takes and refuses, and that
//! nobody's change is lost.

mod common;

use alloy::primitives::U256;
use blockhost_engine::chain::bindings::BlockhostSubscriptions;
use common::bank::{Bank, answer, complaint};
use common::{address, done};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

const BW: &str = env!("CARGO_BIN_EXE_bw");
const OPERATOR: &str = env!("CARGO_BIN_EXE_blockhost");

/// Id, name, cents and state of the plans of an answer.
fn plans(answer: &Value) -> Vec<(u64, &str, &str, bool)> {
    let all = answer["plans"].as_array().unwrap().iter();
    all.map(|plan| {
        (
            plan["id"].as_u64().unwrap(),
            plan["name"].as_str().unwrap(),
            plan["cents_per_day"].as_str().unwrap(),
            plan["active"].as_bool().unwrap(),
        )
    })
    .collect()
}

fn refused(output: &Output, code: i32, part: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", complaint(output));
    assert!(complaint(output).contains(part), "{}", complaint(output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_listed_changed_closed_and_opened_and_the_rest_of_it_stays() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    let plan = |args: &[&str]| bank.run(BW, &[&["plan"], args].concat());
    answer(&plan(&["create", "large", "250", "--json"]));
    let listed = answer(&plan(&["list", "--json"]));
    assert_eq!(listed["contract"], bank.world.pos.to_string());
    let both = [(1, "small", "50", true), (2, "large", "250", true)];
    assert_eq!(plans(&listed), both);
    let shown = plan(&["list"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("2\tlarge\t2.50\topen"), "{shown}");

    // Nothing is sent by what cannot be, what is so, and what is only tried.
    let sent = bank.sent(address(0)).await;
    for (args, code, part) in [
        (&["close", "3"][..], 1, "there is no plan 3"),
        (&["set", "3", "--cents", "1"], 1, "there is no plan 3"),
        (&["set", "1", "--cents", "0"], 2, "0"),
        (&["set", "1", "--name", "a\nb"], 2, "one line"),
        (&["create", "a\tb", "1"], 2, "one line"),
        (&["set", "1"], 2, "--name"),
        (&["close"], 2, "--all"),
        (&["close", "1", "--all"], 2, "--all"),
        (&["open", "0"], 2, "0"),
    ] {
        refused(&plan(args), code, part);
    }
    let so = answer(&plan(&["open", "--all", "--json"]));
    assert_eq!(so["steps"], json!([]));
    assert_eq!(plans(&so), both);
    let tried = answer(&plan(&["close", "--all", "--dry-run", "--json"]));
    assert_eq!(tried["steps"].as_array().unwrap().len(), 2);
    assert_eq!(plans(&tried), both);
    assert_eq!(bank.sent(address(0)).await, sent);

    let set = answer(&plan(&["set", "2", "--cents", "300", "--json"]));
    assert_eq!(plans(&set), [(2, "large", "300", true)]);
    let step = &set["steps"][0];
    assert_eq!(step["state"], "done");
    let record = bank.world.recorded_events().pop().unwrap();
    assert_eq!(record["action"], "contract-called");
    assert_eq!(record["data"]["tx"], step["tx"]);
    let why = record["data"]["why"].as_str().unwrap();
    assert!(
        why.contains("bw plan set 2") && why.contains("3.00"),
        "{why}"
    );
    let set = answer(&plan(&["set", "2", "--name", "huge", "--json"]));
    assert_eq!(plans(&set), [(2, "huge", "300", true)]);

    // Closed, the contract takes neither a purchase nor an extension; what is paid runs on.
    bank.world.buy(10, bank.world.user_encrypted()).await;
    let closed = answer(&plan(&["close", "1", "1", "--json"]));
    assert_eq!(plans(&closed), [(1, "small", "50", false)]);
    assert_eq!(closed["steps"].as_array().unwrap().len(), 1);
    let pos = BlockhostSubscriptions::new(bank.world.pos, bank.world.anvil.account(1));
    let (one, days) = (U256::from(1), U256::from(5));
    let buyer = address(1);
    let buy = pos.buySubscription(one, days, one, vec![1].into());
    let buy = buy.from(buyer);
    assert!(buy.call().await.is_err(), "it is closed");
    let extend = pos.extendSubscription(one, days, one).from(buyer);
    assert!(extend.call().await.is_err(), "it is closed");
    assert!(pos.isSubscriptionActive(one).call().await.unwrap());

    let status = |answer: &[&str]| {
        let done = bank.run(OPERATOR, &[&["status"], answer].concat());
        String::from_utf8(done.stdout).unwrap()
    };
    let before: Value = serde_json::from_str(&status(&["--json"])).unwrap();
    assert_eq!(before["plans"], json!({"open": 1, "closed": 1}));
    assert!(!before["attention"].to_string().contains("plan"));
    let all = plan(&["close", "--all"]);
    assert!(all.status.success(), "{}", complaint(&all));
    assert!(
        complaint(&all).contains("bw plan open 2\n"),
        "only what it closed: {}",
        complaint(&all)
    );
    let said = String::from_utf8(all.stdout).unwrap();
    assert!(
        said.contains("in force: plan 1: \"small\", 0.50 usd a day, closed")
            && said.contains("in force: plan 2: \"huge\", 3.00 usd a day, closed"),
        "{said}"
    );
    let shown = status(&[]);
    assert!(
        shown.contains("plans       0 open, 2 closed")
            && shown.contains("ATTENTION   no plan is open, nothing can be bought"),
        "{shown}"
    );
    let sent = bank.sent(address(0)).await;
    answer(&plan(&["close", "--all", "--json"]));
    assert_eq!(bank.sent(address(0)).await, sent);
    let opened = answer(&plan(&["open", "1", "--json"]));
    assert_eq!(plans(&opened), [(1, "small", "50", true)]);
    buy.call().await.unwrap();
    extend.call().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_while_a_change_waits_for_its_turn_is_not_taken_back_by_it() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    // Whoever pays has this file locked.
    let path = bank.world.layout.state().join("funds.lock");
    let lock = std::fs::File::create(path).unwrap();
    lock.lock().unwrap();
    let mut waits = bank
        .command(BW, &["plan", "close", "1", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Kept open: it has more to say.
    let mut said = BufReader::new(waits.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("another payment"), "{line}");
    let pos = BlockhostSubscriptions::new(bank.world.pos, bank.world.anvil.account(0));
    let changed = pos.updatePlan(U256::from(1), "tiny".into(), U256::from(75), true);
    done(changed.send()).await;
    drop(lock);
    let closed = answer(&waits.wait_with_output().unwrap());
    assert_eq!(plans(&closed), [(1, "tiny", "75", false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_killed_is_ended_first_and_does_not_come_after_the_next_one() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    let stopped = bank.stopped_at(BW, &["plan", "set", "1", "--cents", "60"], "funds:ordered");
    drop(stopped.expect("it stops there"));
    let sent = bank.sent(address(0)).await;
    refused(&bank.run(BW, &["plan", "close", "1"]), 1, "order 1 changes");
    assert_eq!(bank.sent(address(0)).await, sent);
    let goes_on = bank.run(OPERATOR, &["funds", "run"]);
    assert!(goes_on.status.success(), "{}", complaint(&goes_on));
    let closed = answer(&bank.run(BW, &["plan", "close", "1", "--json"]));
    assert_eq!(plans(&closed), [(1, "small", "60", false)]);
}
