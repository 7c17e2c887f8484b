//! Gas for the server, bought at a real Uniswap V2.

use super::*;

/// A server with 4 dollars of gas and 30 of the stablecoin.
async fn short_of_gas() -> Option<(Bank, U256)> {
    let bank = Bank::new().await?;
    bank.make_hot(1);
    // Only gas is looked at here.
    bank.world
        .set_engine("max_fee_gwei: 1000\nfund_manager: {min_withdrawal_usd: 1000000}");
    let low = ETH / U256::from(500);
    bank.set_eth(address(0), low).await;
    bank.mint(bank.world.usd, address(0), usd(30)).await;
    Some((bank, low))
}

async fn allowance(bank: &Bank) -> U256 {
    blockhost_engine::chain::bindings::IERC20::new(bank.world.usd, bank.maker())
        .allowance(address(0), bank.router)
        .call()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_little_gas_buys_some_and_leaves_no_allowance_behind() {
    let Some((bank, low)) = short_of_gas().await else {
        return;
    };
    let orders = run(&bank);
    let gas = orders["orders"]
        .as_array()
        .unwrap()
        .iter()
        .find(|order| order["kind"] == "gas")
        .unwrap();
    let steps = gas["steps"].as_array().unwrap();
    assert_eq!(
        (steps[0]["do"].as_str(), steps[1]["do"].as_str()),
        (Some("approve"), Some("swap"))
    );
    let received: U256 = steps[1]["received_wei"].as_str().unwrap().parse().unwrap();
    // 20 dollars at 2000, less Uniswap's 0.3 percent and the depth of the pair.
    assert!(
        received > ETH / U256::from(102) && received < ETH / U256::from(100),
        "{received}"
    );
    assert!(bank.eth(address(0)).await > low, "more than before");
    assert_eq!(allowance(&bank).await, U256::ZERO);
    let verbs: Vec<String> = recorded(&bank).into_iter().map(|(verb, _)| verb).collect();
    assert!(
        verbs.starts_with(&["funds-approved".to_owned(), "funds-swapped".to_owned()]),
        "{verbs:?}"
    );
    // With gas there is nothing to buy.
    let again = run(&bank);
    let again = again["orders"].as_array().unwrap();
    assert!(
        again.iter().all(|order| order["kind"] != "gas"),
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_that_somebody_moves_after_the_quote_makes_the_swap_fail_and_not_lose() {
    let Some((bank, _)) = short_of_gas().await else {
        return;
    };
    let stopped = bank.stopped_at(BLOCKHOST, &["funds", "run"], "send:signed funds 1.2.");
    assert!(stopped.is_some());
    bank.push_price(2_000).await;
    drop(stopped);
    let has = bank.has(bank.world.usd, address(0)).await;
    let failed = bank.run(BLOCKHOST, &["funds", "run"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        complaint(&failed).contains("reverted"),
        "{}",
        complaint(&failed)
    );
    assert_eq!(
        bank.has(bank.world.usd, address(0)).await,
        has,
        "nothing was sold"
    );
    let status = answer(&bank.run(BLOCKHOST, &["funds", "status", "--json"]));
    let orders = status["orders"].as_array().unwrap();
    let states = |kind: &str| -> Vec<&str> {
        let of_kind = orders.iter().filter(|order| order["kind"] == kind);
        of_kind
            .map(|order| order["state"].as_str().unwrap())
            .collect()
    };
    assert_eq!(states("gas"), ["abandoned"]);
    // What had nothing to do with it went on.
    assert_eq!(states("round"), ["done"]);
    // The next look begins anew, by the price of then.
    run(&bank);
    assert_eq!(bank.has(bank.world.usd, address(0)).await, usd(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_in_a_swap_it_happens_once() {
    let Some((bank, _)) = short_of_gas().await else {
        return;
    };
    let sent = bank.sent(address(0)).await;
    let points = [1, 2]
        .into_iter()
        .flat_map(|step: u8| MOMENTS.map(|moment| moment.replace('N', &step.to_string())))
        .chain(["funds:ordered".to_owned(), "funds:quoted".to_owned()]);
    for point in points {
        let before = bank.world.anvil.ask("evm_snapshot", json!([])).await;
        assert!(
            bank.stopped_at(BLOCKHOST, &["funds", "run"], &point)
                .is_some(),
            "{point}"
        );
        run(&bank);
        assert_eq!(
            bank.has(bank.world.usd, address(0)).await,
            usd(10),
            "{point}"
        );
        assert_eq!(allowance(&bank).await, U256::ZERO, "{point}");
        assert_eq!(bank.sent(address(0)).await - sent, 2, "{point}");
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
