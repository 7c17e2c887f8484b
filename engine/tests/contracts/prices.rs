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
