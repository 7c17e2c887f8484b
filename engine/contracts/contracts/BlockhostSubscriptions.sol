// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// The part of a Uniswap V2 pair that pricing needs.
interface IUniswapV2Pair {
    function token0() external view returns (address);
    function token1() external view returns (address);
    function getReserves() external view returns (uint112 reserve0, uint112 reserve1, uint32 blockTimestampLast);
}

/// Plans, subscriptions and their payment. The engine of a host watches the events and makes the machines.
///
/// Ids start at 1; 0 never exists. Prices are US cents per day. Payment method 1 is the primary stablecoin,
/// taken at face value; methods from 2 on are tokens priced by the reserves of a Uniswap V2 pair.
contract BlockhostSubscriptions is Ownable, ReentrancyGuard {
    using SafeERC20 for IERC20;

    struct Plan {
        string name;
        uint256 pricePerDayUsdCents;
        bool active;
    }

    struct Subscription {
        uint256 planId;
        address subscriber;
        uint256 expiresAt;
        bool cancelled;
    }

    struct PaymentMethod {
        address token;
        // Zero for the primary stablecoin: nothing to convert.
        address pair;
        address stablecoin;
        uint8 tokenDecimals;
        uint8 stablecoinDecimals;
        bool active;
    }

    uint256 public constant STABLECOIN_PAYMENT_ID = 1;
    uint256 private constant MAX_SLIPPAGE_BPS = 1000;
    uint256 private constant BPS = 10_000;
    uint256 private constant CENTS_PER_USD = 100;
    // A signature encrypted to the host takes a few hundred; what is longer only makes events that nodes refuse to hand out.
    uint256 private constant MAX_USER_ENCRYPTED = 8192;

    uint256 public nextPlanId = 1;
    uint256 public nextSubscriptionId = 1;
    uint256 public nextPaymentMethodId = 2;
    // Added to the price of tokens whose value moves between quote and payment.
    uint256 public slippageBps = 100;
    // In millionths of a dollar, whatever the stablecoin's decimals; a thin pair is cheap to push out of price.
    uint256 public minLiquidityUsd = 10_000 * 10 ** 6;

    mapping(uint256 planId => Plan) private plans;
    mapping(uint256 subscriptionId => Subscription) private subscriptions;
    mapping(uint256 paymentMethodId => PaymentMethod) private methods;
    mapping(address subscriber => uint256[]) private owned;
    uint256[] private methodIds;

    event PlanCreated(uint256 indexed planId, string name, uint256 pricePerDayUsdCents);
    event PlanUpdated(uint256 indexed planId, string name, uint256 pricePerDayUsdCents, bool active);
    event SubscriptionCreated(
        uint256 indexed subscriptionId,
        uint256 indexed planId,
        address indexed subscriber,
        uint256 expiresAt,
        uint256 paidAmount,
        address paymentToken,
        bytes userEncrypted
    );
    event SubscriptionExtended(
        uint256 indexed subscriptionId,
        uint256 indexed planId,
        address indexed extendedBy,
        uint256 newExpiresAt,
        uint256 paidAmount,
        address paymentToken
    );
    event SubscriptionCancelled(uint256 indexed subscriptionId, uint256 indexed planId, address indexed subscriber);
    event PrimaryStablecoinSet(address indexed stablecoinAddress, uint8 decimals);
    event PaymentMethodAdded(
        uint256 indexed paymentMethodId, address tokenAddress, address pairAddress, address stablecoinAddress
    );
    event PaymentMethodUpdated(uint256 indexed paymentMethodId, bool active);
    event FundsWithdrawn(address indexed token, address indexed to, uint256 amount);
    event SlippageUpdated(uint256 oldSlippageBps, uint256 newSlippageBps);
    event MinLiquidityUpdated(uint256 oldMinLiquidity, uint256 newMinLiquidity);

    error PlanNotFound(uint256 planId);
    error PlanNotActive(uint256 planId);
    error PlanPriceMustBePositive();
    error SubscriptionNotFound(uint256 subscriptionId);
    error SubscriptionAlreadyCancelled(uint256 subscriptionId);
    error PaymentMethodNotFound(uint256 paymentMethodId);
    error PaymentMethodNotActive(uint256 paymentMethodId);
    error PrimaryStablecoinNotSet();
    error InvalidAddress();
    error DaysMustBePositive();
    error SlippageTooHigh();
    error NoBalanceToWithdraw();
    error TokenNotInPair();
    error InsufficientLiquidity();
    error PairTradedInThisBlock();
    error UserEncryptedTooLong();

    constructor() Ownable(msg.sender) {}

    modifier planExists(uint256 planId) {
        if (planId == 0 || planId >= nextPlanId) revert PlanNotFound(planId);
        _;
    }

    modifier subscriptionExists(uint256 subscriptionId) {
        if (subscriptionId == 0 || subscriptionId >= nextSubscriptionId) revert SubscriptionNotFound(subscriptionId);
        _;
    }

    // ---- for the owner ----

    function createPlan(string calldata name, uint256 pricePerDayUsdCents)
        external
        onlyOwner
        returns (uint256 planId)
    {
        if (pricePerDayUsdCents == 0) revert PlanPriceMustBePositive();
        planId = nextPlanId++;
        plans[planId] = Plan(name, pricePerDayUsdCents, true);
        emit PlanCreated(planId, name, pricePerDayUsdCents);
    }

    function updatePlan(uint256 planId, string calldata name, uint256 pricePerDayUsdCents, bool active)
        external
        onlyOwner
        planExists(planId)
    {
        if (pricePerDayUsdCents == 0) revert PlanPriceMustBePositive();
        plans[planId] = Plan(name, pricePerDayUsdCents, active);
        emit PlanUpdated(planId, name, pricePerDayUsdCents, active);
    }

    /// Ends a subscription now. It can't be extended afterwards.
    function cancelSubscription(uint256 subscriptionId) external onlyOwner subscriptionExists(subscriptionId) {
        Subscription storage s = subscriptions[subscriptionId];
        if (s.cancelled) revert SubscriptionAlreadyCancelled(subscriptionId);
        s.cancelled = true;
        s.expiresAt = block.timestamp;
        emit SubscriptionCancelled(subscriptionId, s.planId, s.subscriber);
    }

    function setPrimaryStablecoin(address stablecoin) external onlyOwner {
        if (stablecoin == address(0)) revert InvalidAddress();
        uint8 decimals = IERC20Metadata(stablecoin).decimals();
        methods[STABLECOIN_PAYMENT_ID] = PaymentMethod(stablecoin, address(0), stablecoin, decimals, decimals, true);
        emit PrimaryStablecoinSet(stablecoin, decimals);
    }

    function addPaymentMethod(address token, address pair, address stablecoin)
        external
        onlyOwner
        returns (uint256 paymentMethodId)
    {
        if (token == address(0) || pair == address(0) || stablecoin == address(0)) revert InvalidAddress();
        (address token0, address token1) = (IUniswapV2Pair(pair).token0(), IUniswapV2Pair(pair).token1());
        bool matches = (token0 == token && token1 == stablecoin) || (token0 == stablecoin && token1 == token);
        if (!matches) revert TokenNotInPair();

        paymentMethodId = nextPaymentMethodId++;
        methods[paymentMethodId] = PaymentMethod(
            token, pair, stablecoin, IERC20Metadata(token).decimals(), IERC20Metadata(stablecoin).decimals(), true
        );
        methodIds.push(paymentMethodId);
        emit PaymentMethodAdded(paymentMethodId, token, pair, stablecoin);
    }

    function updatePaymentMethod(uint256 paymentMethodId, bool active) external onlyOwner {
        existingMethod(paymentMethodId).active = active;
        emit PaymentMethodUpdated(paymentMethodId, active);
    }

    /// Sends the whole balance of one token.
    function withdrawFunds(address token, address to) external onlyOwner {
        if (to == address(0)) revert InvalidAddress();
        uint256 balance = IERC20(token).balanceOf(address(this));
        if (balance == 0) revert NoBalanceToWithdraw();
        IERC20(token).safeTransfer(to, balance);
        emit FundsWithdrawn(token, to, balance);
    }

    function setSlippageBps(uint256 newSlippageBps) external onlyOwner {
        if (newSlippageBps > MAX_SLIPPAGE_BPS) revert SlippageTooHigh();
        emit SlippageUpdated(slippageBps, newSlippageBps);
        slippageBps = newSlippageBps;
    }

    function setMinLiquidity(uint256 newMinLiquidity) external onlyOwner {
        emit MinLiquidityUpdated(minLiquidityUsd, newMinLiquidity);
        minLiquidityUsd = newMinLiquidity;
    }

    // ---- for customers ----

    function buySubscription(uint256 planId, uint256 days_, uint256 paymentMethodId, bytes calldata userEncrypted)
        external
        nonReentrant
        planExists(planId)
        returns (uint256 subscriptionId)
    {
        if (userEncrypted.length > MAX_USER_ENCRYPTED) revert UserEncryptedTooLong();
        (uint256 paid, address token) = takePayment(planId, days_, paymentMethodId);
        uint256 expiresAt = block.timestamp + days_ * 1 days;
        subscriptionId = nextSubscriptionId++;
        subscriptions[subscriptionId] = Subscription(planId, msg.sender, expiresAt, false);
        owned[msg.sender].push(subscriptionId);
        emit SubscriptionCreated(subscriptionId, planId, msg.sender, expiresAt, paid, token, userEncrypted);
    }

    /// Anyone may pay for anyone. Runs on from the expiry while that lies ahead, else from now.
    function extendSubscription(uint256 subscriptionId, uint256 days_, uint256 paymentMethodId)
        external
        nonReentrant
        subscriptionExists(subscriptionId)
    {
        Subscription storage s = subscriptions[subscriptionId];
        if (s.cancelled) revert SubscriptionAlreadyCancelled(subscriptionId);
        (uint256 paid, address token) = takePayment(s.planId, days_, paymentMethodId);
        uint256 expiresAt = Math.max(s.expiresAt, block.timestamp) + days_ * 1 days;
        s.expiresAt = expiresAt;
        emit SubscriptionExtended(subscriptionId, s.planId, msg.sender, expiresAt, paid, token);
    }

    // ---- to read ----

    function getSubscription(uint256 subscriptionId)
        external
        view
        subscriptionExists(subscriptionId)
        returns (uint256 planId, address subscriber, uint256 expiresAt, bool isActive, bool cancelled)
    {
        Subscription storage s = subscriptions[subscriptionId];
        return (s.planId, s.subscriber, s.expiresAt, live(s), s.cancelled);
    }

    function getPlan(uint256 planId)
        external
        view
        planExists(planId)
        returns (string memory name, uint256 pricePerDayUsdCents, bool active)
    {
        Plan storage p = plans[planId];
        return (p.name, p.pricePerDayUsdCents, p.active);
    }

    /// Whole days left, 0 when over.
    function daysRemaining(uint256 subscriptionId)
        external
        view
        subscriptionExists(subscriptionId)
        returns (uint256)
    {
        Subscription storage s = subscriptions[subscriptionId];
        return live(s) ? (s.expiresAt - block.timestamp) / 1 days : 0;
    }

    /// False also for an id that was never sold.
    function isSubscriptionActive(uint256 subscriptionId) external view returns (bool) {
        return live(subscriptions[subscriptionId]);
    }

    /// Zero as long as none is set.
    function getPrimaryStablecoin() external view returns (address) {
        return methods[STABLECOIN_PAYMENT_ID].token;
    }

    /// The primary stablecoin's 1 first, once it is set, then the priced ones.
    function getPaymentMethodIds() external view returns (uint256[] memory ids) {
        uint256 first = methods[STABLECOIN_PAYMENT_ID].token == address(0) ? 0 : 1;
        ids = new uint256[](methodIds.length + first);
        if (first == 1) ids[0] = STABLECOIN_PAYMENT_ID;
        for (uint256 i = 0; i < methodIds.length; i++) {
            ids[i + first] = methodIds[i];
        }
    }

    function getPaymentMethod(uint256 paymentMethodId)
        external
        view
        returns (
            address token,
            address pair,
            address stablecoin,
            uint8 tokenDecimals,
            uint8 stablecoinDecimals,
            bool active
        )
    {
        PaymentMethod storage m = existingMethod(paymentMethodId);
        return (m.token, m.pair, m.stablecoin, m.tokenDecimals, m.stablecoinDecimals, m.active);
    }

    /// What `days_` of a plan cost now, in base units of the method's token.
    function calculatePayment(uint256 planId, uint256 days_, uint256 paymentMethodId)
        external
        view
        planExists(planId)
        returns (uint256)
    {
        return price(planId, days_, existingMethod(paymentMethodId));
    }

    /// US cents for one whole token, without slippage.
    function getTokenPriceUsdCents(uint256 paymentMethodId) external view returns (uint256) {
        PaymentMethod storage m = existingMethod(paymentMethodId);
        if (m.pair == address(0)) return CENTS_PER_USD;
        (uint256 tokenReserve, uint256 stableReserve) = reserves(m);
        return stableReserve * CENTS_PER_USD * 10 ** m.tokenDecimals / (tokenReserve * 10 ** m.stablecoinDecimals);
    }

    function getTotalSubscriptionCount() external view returns (uint256) {
        return nextSubscriptionId - 1;
    }

    function getTotalPlanCount() external view returns (uint256) {
        return nextPlanId - 1;
    }

    function getSubscriptionsBySubscriber(address subscriber) external view returns (uint256[] memory) {
        return owned[subscriber];
    }

    // ---- inside ----

    function live(Subscription storage s) private view returns (bool) {
        return !s.cancelled && s.expiresAt > block.timestamp;
    }

    function existingMethod(uint256 paymentMethodId) private view returns (PaymentMethod storage m) {
        m = methods[paymentMethodId];
        if (m.token == address(0)) {
            if (paymentMethodId == STABLECOIN_PAYMENT_ID) revert PrimaryStablecoinNotSet();
            revert PaymentMethodNotFound(paymentMethodId);
        }
    }

    function takePayment(uint256 planId, uint256 days_, uint256 paymentMethodId)
        private
        returns (uint256 amount, address token)
    {
        if (!plans[planId].active) revert PlanNotActive(planId);
        if (days_ == 0) revert DaysMustBePositive();
        PaymentMethod storage m = existingMethod(paymentMethodId);
        if (!m.active) revert PaymentMethodNotActive(paymentMethodId);
        if (m.pair != address(0)) requireStandingPrice(m.pair);
        amount = price(planId, days_, m);
        token = m.token;
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
    }

    function price(uint256 planId, uint256 days_, PaymentMethod storage m) private view returns (uint256) {
        uint256 usd = plans[planId].pricePerDayUsdCents * days_ * 10 ** m.stablecoinDecimals / CENTS_PER_USD;
        if (m.pair == address(0)) return usd;
        (uint256 tokenReserve, uint256 stableReserve) = reserves(m);
        if (inMillionths(stableReserve, m.stablecoinDecimals) < minLiquidityUsd) revert InsufficientLiquidity();
        // Two divisions, in this order: whoever recomputes the price rounds the same way.
        return Math.mulDiv(Math.mulDiv(usd, tokenReserve, stableReserve), BPS + slippageBps, BPS);
    }

    function reserves(PaymentMethod storage m) private view returns (uint256 tokenReserve, uint256 stableReserve) {
        (uint256 reserve0, uint256 reserve1,) = IUniswapV2Pair(m.pair).getReserves();
        bool tokenFirst = IUniswapV2Pair(m.pair).token0() == m.token;
        (tokenReserve, stableReserve) = tokenFirst ? (reserve0, reserve1) : (reserve1, reserve0);
        // An empty pair has no price, also when the minimum was set to 0.
        if (stableReserve == 0 || tokenReserve == 0) revert InsufficientLiquidity();
    }

    /// Whoever borrows for one transaction can set any price in it. One that stood at the end of an earlier block was open to
    /// everybody who corrects prices. Asked only where money is taken: what is merely read is read within the newest block.
    function requireStandingPrice(address pair) private view {
        (,, uint32 changedAt) = IUniswapV2Pair(pair).getReserves();
        // The pair keeps the time of its last change in 32 bits. Where a chain makes several blocks a second, all of them count.
        if (changedAt == uint32(block.timestamp)) revert PairTradedInThisBlock();
    }

    function inMillionths(uint256 amount, uint8 decimals) private pure returns (uint256) {
        return decimals >= 6 ? amount / 10 ** (decimals - 6) : amount * 10 ** (6 - decimals);
    }
}
