//! What tokens are worth by their pairs' reserves, and which pairs say nothing.

use super::*;

#[tokio::test]
async fn tokens_are_priced_by_reserves_whichever_side_of_the_pair_they_are_on() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let n = U256::from;
    // 10 tokens against 20 000 USD: 2000 USD each.
    for (token_first, decimals) in [(true, 6), (false, 6), (true, 18), (false, 2)] {
        let stable = 20_000 * 10_u128.pow(u32::from(decimals));
        let (coin, pair, usd) = shop.pair(token_first, 10 * E18, stable, decimals).await;
        let id = shop.pos.nextPaymentMethodId().call().await.unwrap();
        ok!(shop.pos.addPaymentMethod(coin, pair, usd));
        assert_eq!(
            shop.pos.getTokenPriceUsdCents(id).call().await.unwrap(),
            n(200_000)
        );
        // 30 days at 0.50 = 15 USD = 0.0075 tokens, and one percent on top.
        let expected = n(15 * 10 * E18) / n(20_000) * n(101) / n(100);
        assert_eq!(
            shop.pos
                .calculatePayment(n(1), n(30), id)
                .call()
                .await
                .unwrap(),
            expected
        );
        let m = shop.pos.getPaymentMethod(id).call().await.unwrap();
        assert_eq!(
            (
                m.token,
                m.pair,
                m.stablecoin,
                m.tokenDecimals,
                m.stablecoinDecimals,
                m.active
            ),
            (coin, pair, usd, 18, decimals, true)
        );
    }
    assert_eq!(
        shop.pos.getPaymentMethodIds().call().await.unwrap(),
        [n(1), n(2), n(3), n(4), n(5)]
    );
    assert_eq!(
        shop.pos.getTokenPriceUsdCents(n(1)).call().await.unwrap(),
        n(100)
    );
}

#[tokio::test]
async fn a_thin_or_foreign_or_empty_pair_sets_no_price() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let n = U256::from;
    let (coin, pair, usd) = shop.pair(true, E18, 9_999_999_999, 6).await;
    ok!(shop.pos.addPaymentMethod(coin, pair, usd));
    assert!(matches!(
        err!(shop.pos.calculatePayment(n(1), n(1), n(2))),
        E::InsufficientLiquidity(_)
    ));
    ok!(shop.pos.setMinLiquidity(n(9_999_999_999_u64)));
    shop.pos
        .calculatePayment(n(1), n(1), n(2))
        .call()
        .await
        .unwrap();

    // Many base units of a stablecoin with 18 decimals are little money.
    let (coin, pair, usd) = shop.pair(true, E18, 9_999 * E18, 18).await;
    ok!(shop.pos.addPaymentMethod(coin, pair, usd));
    ok!(shop.pos.setMinLiquidity(n(10_000 * USD)));
    assert!(matches!(
        err!(shop.pos.calculatePayment(n(1), n(1), n(3))),
        E::InsufficientLiquidity(_)
    ));

    let foreign = address!("00000000000000000000000000000000000000aa");
    assert!(matches!(
        err!(shop.pos.addPaymentMethod(foreign, pair, usd)),
        E::TokenNotInPair(_)
    ));
    assert!(matches!(
        err!(shop.pos.addPaymentMethod(coin, pair, foreign)),
        E::TokenNotInPair(_)
    ));
    // One token of the pair taken for both.
    assert!(matches!(
        err!(shop.pos.addPaymentMethod(usd, pair, usd)),
        E::TokenNotInPair(_)
    ));
    assert!(matches!(
        err!(shop.pos.addPaymentMethod(Address::ZERO, pair, usd)),
        E::InvalidAddress(_)
    ));

    let (coin, pair, usd) = shop.pair(true, 0, 0, 6).await;
    ok!(shop.pos.addPaymentMethod(coin, pair, usd));
    ok!(shop.pos.setMinLiquidity(U256::ZERO));
    assert!(matches!(
        err!(shop.pos.calculatePayment(n(1), n(1), n(4))),
        E::InsufficientLiquidity(_)
    ));
    assert!(matches!(
        err!(shop.pos.getTokenPriceUsdCents(n(4))),
        E::InsufficientLiquidity(_)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_pushes_a_price_within_a_transaction_cannot_pay_with_it_and_everybody_else_can() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    let n = U256::from;
    // A real pair: 1000 tokens against 30 000 dollars.
    let token = bank.second_token(18, 30).await;
    let pos = BlockhostSubscriptions::new(bank.world.pos, bank.maker());
    let pair = pos.getPaymentMethod(n(2)).call().await.unwrap().pair;
    let (plan, days, method) = (n(1), n(300), n(2));
    // 150 dollars are 5 tokens, and one percent on top.
    let price = pos.calculatePayment(plan, days, method);
    assert_eq!(price.call().await.unwrap(), n(505 * E18 / 100));

    let mover = MarketMover::deploy(bank.maker(), pair, token, bank.world.usd).await;
    let mover = mover.unwrap();
    let loan = common::bank::usd(900_000);
    bank.mint(bank.world.usd, *mover.address(), loan).await;
    assert!(matches!(
        err!(mover.attack(bank.world.pos, plan, days, method)),
        E::PairTradedInThisBlock(_)
    ));
    // Fresh: others have sent from this account, and the instance remembers nonces.
    let mover = MarketMover::new(*mover.address(), bank.maker());
    let sent = mover.attack(bank.world.pos, plan, days, method);
    let receipt = sent.gas(3_000_000).send().await.unwrap();
    assert!(!receipt.get_receipt().await.unwrap().status());
    assert_eq!(bank.has(bank.world.usd, *mover.address()).await, loan);
    assert_eq!(
        pos.getTotalSubscriptionCount().call().await.unwrap(),
        U256::ZERO
    );

    // Somebody trades honestly, and a block later somebody buys.
    bank.mint(token, common::address(1), n(10 * E18)).await;
    let spend = MockUSDInstance::new(token, bank.world.anvil.account(1));
    ok!(spend.approve(bank.world.pos, U256::MAX));
    bank.mint(bank.world.usd, pair, common::bank::usd(30)).await;
    ok!(Pair::new(pair, bank.maker()).sync());
    bank.world.anvil.ask("evm_increaseTime", json!([12])).await;
    bank.world.anvil.ask("evm_mine", json!([])).await;
    let price = price.call().await.unwrap();
    let customer = BlockhostSubscriptionsInstance::new(bank.world.pos, bank.world.anvil.account(1));
    let before = bank.has(token, common::address(1)).await;
    ok!(customer.buySubscription(plan, days, method, Bytes::new()));
    assert_eq!(before - bank.has(token, common::address(1)).await, price);
    assert!(price < n(505 * E18 / 100) && price > n(504 * E18 / 100));
    // An extension is a payment, too.
    ok!(customer.extendSubscription(n(1), n(1), method));
}
