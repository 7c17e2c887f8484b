// The parts of the contracts that the page uses. `build.mjs` compares each with the compiled contracts, so that a changed
// contract cannot be forgotten here.

interface Part<T extends string, N extends string> {
  readonly type: T;
  readonly name: N;
}
const part = <const T extends string, const N extends string>(type: T, name: N): Part<T, N> => ({ type, name });
const uint = <const N extends string>(name: N) => part("uint256", name);

type Parts = readonly Part<string, string>[];
const view = <const N extends string, const I extends Parts, const O extends Parts>(name: N, inputs: I, outputs: O) =>
  ({ type: "function", name, inputs, outputs, stateMutability: "view" }) as const;
const write = <const N extends string, const I extends Parts, const O extends Parts>(name: N, inputs: I, outputs: O) =>
  ({ type: "function", name, inputs, outputs, stateMutability: "nonpayable" }) as const;
const error = <const N extends string, const I extends Parts>(name: N, ...inputs: I) =>
  ({ type: "error", name, inputs }) as const;

export const SUBSCRIPTIONS = [
  view("getTotalPlanCount", [], [uint("")]),
  view("getPlan", [uint("planId")], [part("string", "name"), uint("pricePerDayUsdCents"), part("bool", "active")]),
  view("getPaymentMethodIds", [], [part("uint256[]", "ids")]),
  view(
    "getPaymentMethod",
    [uint("paymentMethodId")],
    [
      part("address", "token"),
      part("address", "pair"),
      part("address", "stablecoin"),
      part("uint8", "tokenDecimals"),
      part("uint8", "stablecoinDecimals"),
      part("bool", "active"),
    ],
  ),
  view("calculatePayment", [uint("planId"), uint("days_"), uint("paymentMethodId")], [uint("")]),
  view("getSubscriptionsBySubscriber", [part("address", "subscriber")], [part("uint256[]", "")]),
  view(
    "getSubscription",
    [uint("subscriptionId")],
    [uint("planId"), part("address", "subscriber"), uint("expiresAt"), part("bool", "isActive"), part("bool", "cancelled")],
  ),
  write(
    "buySubscription",
    [uint("planId"), uint("days_"), uint("paymentMethodId"), part("bytes", "userEncrypted")],
    [uint("subscriptionId")],
  ),
  write("extendSubscription", [uint("subscriptionId"), uint("days_"), uint("paymentMethodId")], []),
] as const;

export const CREDENTIALS = [
  view("balanceOf", [part("address", "owner")], [uint("")]),
  view("tokenOfOwnerByIndex", [part("address", "owner"), uint("index")], [uint("")]),
  view("getUserEncrypted", [uint("tokenId")], [part("bytes", "")]),
] as const;

export const TOKEN = [
  view("symbol", [], [part("string", "")]),
  view("balanceOf", [part("address", "account")], [uint("")]),
  view("allowance", [part("address", "owner"), part("address", "spender")], [uint("")]),
  write("approve", [part("address", "spender"), uint("value")], [part("bool", "")]),
] as const;

/** What the subscription contract says when it refuses. */
export const CONTRACT_ERRORS = [
  error("PlanNotFound", uint("planId")),
  error("PlanNotActive", uint("planId")),
  error("SubscriptionNotFound", uint("subscriptionId")),
  error("SubscriptionAlreadyCancelled", uint("subscriptionId")),
  error("PaymentMethodNotFound", uint("paymentMethodId")),
  error("PaymentMethodNotActive", uint("paymentMethodId")),
  error("PrimaryStablecoinNotSet"),
  error("DaysMustBePositive"),
  error("InsufficientLiquidity"),
  error("PairTradedInThisBlock"),
  error("SafeERC20FailedOperation", part("address", "token")),
] as const;

/** What tokens of OpenZeppelin's making say. */
export const TOKEN_ERRORS = [
  error("ERC20InsufficientBalance", part("address", "sender"), uint("balance"), uint("needed")),
  error("ERC20InsufficientAllowance", part("address", "spender"), uint("allowance"), uint("needed")),
] as const;

/** What a purchase leaves in its receipt. */
export const SUBSCRIPTION_CREATED = {
  type: "event",
  name: "SubscriptionCreated",
  inputs: [
    { ...uint("subscriptionId"), indexed: true },
    { ...uint("planId"), indexed: true },
    { ...part("address", "subscriber"), indexed: true },
    { ...uint("expiresAt"), indexed: false },
    { ...uint("paidAmount"), indexed: false },
    { ...part("address", "paymentToken"), indexed: false },
    { ...part("bytes", "userEncrypted"), indexed: false },
  ],
} as const;
