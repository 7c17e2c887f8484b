//! The contracts' behaviour, on a real local chain: who may do what, what things cost, what each error means.

mod common;

use alloy::primitives::{Address, Bytes, U256, address};
use alloy::providers::{DynProvider, Provider};
use alloy::sol;
use alloy::sol_types::{SolCall, SolEvent, SolInterface};
use blockhost_engine::chain::bindings::BlockhostSubscriptions::{
    self, BlockhostSubscriptionsErrors, BlockhostSubscriptionsErrors as E,
    BlockhostSubscriptionsInstance,
};
use blockhost_engine::chain::bindings::MockUSD::{self, MockUSDInstance};
use common::Anvil;
use common::bank::Bank;
use serde_json::json;

sol!(
    #[sol(rpc)]
    MockPair,
    "contracts/artifacts/MockPair.json"
);
sol!(
    #[sol(rpc)]
    ReentrantToken,
    "contracts/artifacts/ReentrantToken.json"
);

sol!(
    #[sol(rpc)]
    MarketMover,
    "contracts/artifacts/MarketMover.json"
);
sol! {
    #[sol(rpc)]
    interface Pair {
        function sync() external;
    }
}

const DAY: u64 = 86_400;
const USD: u64 = 1_000_000;

struct Shop {
    anvil: Anvil,
    owner: DynProvider,
    pos: BlockhostSubscriptionsInstance<DynProvider>,
    /// The same contract, called by a customer.
    customer: BlockhostSubscriptionsInstance<DynProvider>,
    usd: MockUSDInstance<DynProvider>,
}

/// Runs a transaction and checks that it was not reverted.
macro_rules! ok {
    ($call:expr) => {{
        let receipt = $call
            .send()
            .await
            .expect("accepted")
            .get_receipt()
            .await
            .expect("mined");
        assert!(receipt.status(), "reverted");
        receipt
    }};
}

/// The custom error with which a call reverts.
macro_rules! err {
    ($call:expr) => {{
        let error = $call.call().await.map(drop).expect_err("must revert");
        let data = error
            .as_revert_data()
            .unwrap_or_else(|| panic!("no revert data: {error}"));
        BlockhostSubscriptionsErrors::abi_decode(&data)
            .unwrap_or_else(|_| panic!("not an error of the contract: {data}"))
    }};
}

impl Shop {
    /// A shop with plan 1 at 0.50 USD a day, a stablecoin of 6 decimals, and a customer who has 1000 of it.
    async fn open() -> Option<Self> {
        let anvil = Anvil::start(&[])?;
        let owner = anvil.account(0);
        let pos = BlockhostSubscriptions::deploy(owner.clone()).await.unwrap();
        let usd = MockUSD::deploy(owner.clone(), "Mock USD".into(), "MUSD".into(), 6)
            .await
            .unwrap();
        ok!(pos.setPrimaryStablecoin(*usd.address()));
        ok!(pos.createPlan("small".into(), U256::from(50)));
        ok!(usd.mint(common::address(1), U256::from(1000 * USD)));
        let customer = BlockhostSubscriptionsInstance::new(*pos.address(), anvil.account(1));
        let spend = MockUSDInstance::new(*usd.address(), anvil.account(1));
        ok!(spend.approve(*pos.address(), U256::MAX));
        Some(Self {
            anvil,
            owner,
            pos,
            customer,
            usd,
        })
    }

    async fn now(&self) -> u64 {
        self.owner
            .get_block_by_number(alloy::eips::BlockNumberOrTag::Latest)
            .await
            .unwrap()
            .unwrap()
            .header
            .timestamp
    }

    /// A pair with these reserves of a new 18-decimals token and of a stablecoin, and the token.
    async fn pair(
        &self,
        token_first: bool,
        token: u128,
        stable: u128,
        stable_decimals: u8,
    ) -> (Address, Address, Address) {
        let coin = MockUSD::deploy(self.owner.clone(), "Token".into(), "TOK".into(), 18)
            .await
            .unwrap();
        let usd = MockUSD::deploy(
            self.owner.clone(),
            "USD".into(),
            "USD".into(),
            stable_decimals,
        )
        .await
        .unwrap();
        let (coin, usd) = (*coin.address(), *usd.address());
        let (first, second) = if token_first {
            (coin, usd)
        } else {
            (usd, coin)
        };
        let pair = MockPair::deploy(self.owner.clone(), first, second)
            .await
            .unwrap();
        let (a, b) = if token_first {
            (token, stable)
        } else {
            (stable, token)
        };
        let reserve = |n: u128| alloy::primitives::Uint::<112, 2>::from(n);
        ok!(pair.setReserves(reserve(a), reserve(b)));
        (coin, *pair.address(), usd)
    }
}

const E18: u128 = 1_000_000_000_000_000_000;

#[test]
fn the_committed_bytecode_is_what_the_sources_compile_to() {
    if !common::contracts_dir().join("node_modules/solc").exists() {
        eprintln!("skipped: no compiler; run `npm ci` in engine/contracts");
        return;
    }
    let build = common::contracts_dir().join("build.mjs");
    let Ok(done) = common::program("node").arg(build).arg("--check").output() else {
        eprintln!("skipped: no node in PATH");
        return;
    };
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8(done.stderr).unwrap()
    );
}

#[tokio::test]
async fn nobody_but_the_owner_may_change_prices_cancel_or_withdraw() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let c = &shop.customer;
    let any = Address::repeat_byte(1);
    for error in [
        err!(c.createPlan("x".into(), U256::from(1))),
        err!(c.updatePlan(U256::from(1), "x".into(), U256::from(1), true)),
        err!(c.cancelSubscription(U256::from(1))),
        err!(c.setPrimaryStablecoin(any)),
        err!(c.addPaymentMethod(any, any, any)),
        err!(c.updatePaymentMethod(U256::from(1), false)),
        err!(c.withdrawFunds(any, any)),
        err!(c.setSlippageBps(U256::from(1))),
        err!(c.setMinLiquidity(U256::from(1))),
    ] {
        assert!(
            matches!(error, E::OwnableUnauthorizedAccount(_)),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn what_does_not_exist_or_is_not_active_is_named() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let (pos, c) = (&shop.pos, &shop.customer);
    let n = U256::from;
    let none = Bytes::new();
    for id in [0u64, 2] {
        assert!(
            matches!(err!(c.buySubscription(n(id), n(1), n(1), none.clone())), E::PlanNotFound(e) if e.planId == n(id))
        );
        assert!(matches!(err!(c.getPlan(n(id))), E::PlanNotFound(_)));
        assert!(matches!(
            err!(c.calculatePayment(n(id), n(1), n(1))),
            E::PlanNotFound(_)
        ));
        assert!(matches!(
            err!(pos.updatePlan(n(id), "x".into(), n(1), true)),
            E::PlanNotFound(_)
        ));
        assert!(
            matches!(err!(c.getSubscription(n(id))), E::SubscriptionNotFound(e) if e.subscriptionId == n(id))
        );
        assert!(matches!(
            err!(c.extendSubscription(n(id), n(1), n(1))),
            E::SubscriptionNotFound(_)
        ));
        assert!(matches!(
            err!(pos.cancelSubscription(n(id))),
            E::SubscriptionNotFound(_)
        ));
        assert!(
            matches!(err!(c.getPaymentMethod(n(id))), E::PaymentMethodNotFound(e) if e.paymentMethodId == n(id))
        );
        assert!(matches!(
            err!(c.buySubscription(n(1), n(1), n(id), none.clone())),
            E::PaymentMethodNotFound(_)
        ));
        assert!(!c.isSubscriptionActive(n(id)).call().await.unwrap());
    }
    assert!(matches!(
        err!(c.buySubscription(n(1), n(0), n(1), none.clone())),
        E::DaysMustBePositive(_)
    ));
    assert!(matches!(
        err!(pos.createPlan("x".into(), n(0))),
        E::PlanPriceMustBePositive(_)
    ));
    assert!(matches!(
        err!(pos.setPrimaryStablecoin(Address::ZERO)),
        E::InvalidAddress(_)
    ));
    assert!(matches!(
        err!(pos.withdrawFunds(*shop.usd.address(), Address::ZERO)),
        E::InvalidAddress(_)
    ));
    assert!(matches!(
        err!(pos.withdrawFunds(*shop.usd.address(), common::address(2))),
        E::NoBalanceToWithdraw(_)
    ));
    assert!(matches!(
        err!(pos.setSlippageBps(n(1001))),
        E::SlippageTooHigh(_)
    ));

    ok!(pos.updatePlan(n(1), "small".into(), n(50), false));
    assert!(matches!(
        err!(c.buySubscription(n(1), n(1), n(1), none.clone())),
        E::PlanNotActive(_)
    ));
    ok!(pos.updatePlan(n(1), "small".into(), n(50), true));
    ok!(pos.updatePaymentMethod(n(1), false));
    assert!(matches!(
        err!(c.buySubscription(n(1), n(1), n(1), none.clone())),
        E::PaymentMethodNotActive(_)
    ));

    let bare = BlockhostSubscriptions::deploy(shop.owner.clone())
        .await
        .unwrap();
    ok!(bare.createPlan("x".into(), n(1)));
    assert!(matches!(
        err!(bare.buySubscription(n(1), n(1), n(1), none)),
        E::PrimaryStablecoinNotSet(_)
    ));
    assert_eq!(
        bare.getPrimaryStablecoin().call().await.unwrap(),
        Address::ZERO
    );
    assert!(bare.getPaymentMethodIds().call().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_token_that_calls_back_cannot_buy_twice_for_one_payment() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let token = ReentrantToken::deploy(shop.owner.clone()).await.unwrap();
    ok!(shop.pos.setPrimaryStablecoin(*token.address()));
    ok!(token.mint(common::address(1), U256::from(E18) * U256::from(1000)));
    let again = BlockhostSubscriptions::buySubscriptionCall {
        planId: U256::from(1),
        days_: U256::from(1),
        paymentMethodId: U256::from(1),
        userEncrypted: Bytes::new(),
    };
    ok!(token.setCallback(again.abi_encode().into()));
    let error = err!(shop.customer.buySubscription(
        U256::from(1),
        U256::from(1),
        U256::from(1),
        Bytes::new()
    ));
    assert!(
        matches!(error, E::ReentrancyGuardReentrantCall(_)),
        "{error:?}"
    );
    assert_eq!(
        shop.pos.getTotalSubscriptionCount().call().await.unwrap(),
        U256::ZERO
    );
}

#[tokio::test]
async fn a_purchase_costs_the_plans_price_and_every_fact_is_in_its_event() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let n = U256::from;
    assert_eq!(
        shop.customer
            .calculatePayment(n(1), n(30), n(1))
            .call()
            .await
            .unwrap(),
        n(15 * USD)
    );
    let receipt =
        ok!(shop
            .customer
            .buySubscription(n(1), n(30), n(1), Bytes::from_static(b"sealed")));
    let log = receipt
        .logs()
        .iter()
        .find_map(|log| BlockhostSubscriptions::SubscriptionCreated::decode_log(&log.inner).ok())
        .unwrap();
    let expires = shop.now().await + 30 * DAY;
    assert_eq!(
        (log.subscriptionId, log.planId, log.subscriber),
        (n(1), n(1), common::address(1))
    );
    assert_eq!(
        (log.expiresAt, log.paidAmount, log.paymentToken),
        (n(expires), n(15 * USD), *shop.usd.address())
    );
    assert_eq!(log.userEncrypted.as_ref(), b"sealed");
    let raw = receipt
        .logs()
        .iter()
        .find(|raw| raw.topics().len() == 4 && raw.address() == *shop.pos.address());
    assert_eq!(
        raw.unwrap().topics()[3],
        common::topic(common::address(1)),
        "the subscriber is indexed"
    );

    assert_eq!(
        shop.usd
            .balanceOf(*shop.pos.address())
            .call()
            .await
            .unwrap(),
        n(15 * USD)
    );
    let s = shop.pos.getSubscription(n(1)).call().await.unwrap();
    assert_eq!(
        (s.planId, s.subscriber, s.expiresAt, s.isActive, s.cancelled),
        (n(1), common::address(1), n(expires), true, false)
    );
    assert_eq!(shop.pos.daysRemaining(n(1)).call().await.unwrap(), n(30));
    assert_eq!(
        shop.pos
            .getSubscriptionsBySubscriber(common::address(1))
            .call()
            .await
            .unwrap(),
        [n(1)]
    );
    assert_eq!(shop.pos.nextSubscriptionId().call().await.unwrap(), n(2));

    ok!(shop
        .pos
        .withdrawFunds(*shop.usd.address(), common::address(2)));
    assert_eq!(
        shop.usd.balanceOf(common::address(2)).call().await.unwrap(),
        n(15 * USD)
    );
}

#[tokio::test]
async fn what_a_buyer_tells_the_host_has_an_end() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let n = U256::from;
    let buy = |length: usize| {
        let sealed = Bytes::from(vec![7; length]);
        shop.customer.buySubscription(n(1), n(1), n(1), sealed)
    };
    assert!(matches!(err!(buy(8193)), E::UserEncryptedTooLong(_)));
    ok!(buy(8192));
}

#[tokio::test]
async fn an_extension_runs_on_from_the_expiry_or_from_now_and_anyone_may_pay() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let n = U256::from;
    ok!(shop
        .customer
        .buySubscription(n(1), n(10), n(1), Bytes::new()));
    let before = shop
        .pos
        .getSubscription(n(1))
        .call()
        .await
        .unwrap()
        .expiresAt;
    // The owner pays for the customer.
    ok!(shop.usd.mint(common::address(0), n(100 * USD)));
    ok!(shop.usd.approve(*shop.pos.address(), U256::MAX));
    let receipt = ok!(shop.pos.extendSubscription(n(1), n(5), n(1)));
    let log = receipt
        .logs()
        .iter()
        .find_map(|log| BlockhostSubscriptions::SubscriptionExtended::decode_log(&log.inner).ok())
        .unwrap();
    assert_eq!(
        (log.extendedBy, log.newExpiresAt, log.paidAmount),
        (common::address(0), before + n(5 * DAY), n(5 * USD / 2))
    );

    shop.anvil
        .ask("evm_increaseTime", serde_json::json!([100 * DAY]))
        .await;
    shop.anvil.ask("evm_mine", serde_json::json!([])).await;
    assert!(!shop.pos.isSubscriptionActive(n(1)).call().await.unwrap());
    assert_eq!(
        shop.pos.daysRemaining(n(1)).call().await.unwrap(),
        U256::ZERO
    );
    ok!(shop.customer.extendSubscription(n(1), n(1), n(1)));
    assert_eq!(
        shop.pos
            .getSubscription(n(1))
            .call()
            .await
            .unwrap()
            .expiresAt,
        n(shop.now().await + DAY)
    );
}

#[tokio::test]
async fn a_cancelled_subscription_is_over_for_good() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let n = U256::from;
    ok!(shop
        .customer
        .buySubscription(n(1), n(10), n(1), Bytes::new()));
    ok!(shop.pos.cancelSubscription(n(1)));
    let s = shop.pos.getSubscription(n(1)).call().await.unwrap();
    assert_eq!(
        (s.isActive, s.cancelled, s.expiresAt),
        (false, true, n(shop.now().await))
    );
    assert!(
        matches!(err!(shop.pos.cancelSubscription(n(1))), E::SubscriptionAlreadyCancelled(e) if e.subscriptionId == n(1))
    );
    assert!(matches!(
        err!(shop.customer.extendSubscription(n(1), n(1), n(1))),
        E::SubscriptionAlreadyCancelled(_)
    ));
}

#[tokio::test]
async fn settings_say_their_old_and_new_value() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let n = U256::from;
    let receipt = ok!(shop.pos.setSlippageBps(n(1000)));
    let log =
        BlockhostSubscriptions::SlippageUpdated::decode_log(&receipt.logs()[0].inner).unwrap();
    assert_eq!((log.oldSlippageBps, log.newSlippageBps), (n(100), n(1000)));
    let receipt = ok!(shop.pos.setMinLiquidity(n(5)));
    let log =
        BlockhostSubscriptions::MinLiquidityUpdated::decode_log(&receipt.logs()[0].inner).unwrap();
    assert_eq!(
        (log.oldMinLiquidity, log.newMinLiquidity),
        (n(10_000 * USD), n(5))
    );
}

#[path = "contracts/credentials.rs"]
mod credentials;
#[path = "contracts/prices.rs"]
mod prices;
