// What the contracts say: plans, ways to pay, prices, subscriptions, tokens. Reading only, but for the calls that it
// encodes for others to send.

import { bytesToHex, hexToBytes } from "@noble/hashes/utils.js";
import { createContract, events } from "micro-eth-signer/abi.js";
import { CREDENTIALS, SUBSCRIPTION_CREATED, SUBSCRIPTIONS, TOKEN } from "./abi.ts";
import type { Chain, Receipt } from "./chain.ts";
import type { Config, Machine } from "./config.ts";
import { short, tidy } from "./text.ts";

const pos = createContract(SUBSCRIPTIONS);
const nft = createContract(CREDENTIALS);
const erc20 = createContract(TOKEN);
const created = events([SUBSCRIPTION_CREATED]).SubscriptionCreated;
const CREATED_TOPIC = created.topics({
  subscriptionId: null,
  planId: null,
  subscriber: null,
  expiresAt: null,
  paidAmount: null,
  paymentToken: null,
  userEncrypted: null,
})[0];

/** More than anybody would read; what a contract lists beyond it is left out. */
const MOST = 200n;

export interface Plan {
  readonly id: bigint;
  readonly name: string;
  readonly cents: bigint;
  readonly active: boolean;
  /** What a purchase of it gives. */
  readonly machine: Machine;
}

export interface Method {
  readonly id: bigint;
  readonly token: string;
  readonly symbol: string;
  readonly decimals: number;
  /** Its price follows a market and may change between the quote and the payment. */
  readonly floating: boolean;
}

export interface Subscription {
  readonly id: bigint;
  readonly planId: bigint;
  readonly expiresAt: bigint;
  readonly active: boolean;
  readonly cancelled: boolean;
}

interface Codec<I, O> {
  encodeInput(input: I): Uint8Array;
  decodeOutput(output: Uint8Array): O;
}

export class Shop {
  readonly chain: Chain;
  readonly contract: string;
  readonly #credentials: string;
  readonly #machine: (plan: bigint) => Machine;

  constructor(config: Config, chain: Chain) {
    this.chain = chain;
    this.contract = config.subscription_contract;
    this.#credentials = config.nft_contract;
    this.#machine = (plan) => config.machines[String(plan)] ?? config.machine;
  }

  async #read<I, O>(to: string, method: Codec<I, O>, input: I): Promise<O> {
    const answer = await this.chain.call(to, hex(method.encodeInput(input)));
    return method.decodeOutput(hexToBytes(answer.slice(2)));
  }

  async plan(id: bigint): Promise<Plan> {
    const { name, pricePerDayUsdCents, active } = await this.#read(this.contract, pos.getPlan, id);
    return { id, name: tidy(name, 60) || `Plan ${id}`, cents: pricePerDayUsdCents, active, machine: this.#machine(id) };
  }

  /** All plans, also those that are not sold any more: subscriptions name them. */
  async plans(): Promise<Plan[]> {
    const total = await this.#read(this.contract, pos.getTotalPlanCount as Codec<undefined, bigint>, undefined);
    return each(upTo(total), (n) => this.plan(n + 1n));
  }

  async methods(): Promise<Method[]> {
    const ids = await this.#read(this.contract, pos.getPaymentMethodIds as Codec<undefined, bigint[]>, undefined);
    const methods = await each(ids.slice(0, Number(MOST)), async (id) => {
      const { token, pair, tokenDecimals, active } = await this.#read(this.contract, pos.getPaymentMethod, id);
      if (!active) return null;
      return { id, token, symbol: await this.#symbol(token), decimals: Number(tokenDecimals), floating: BigInt(pair) !== 0n };
    });
    return methods.filter((method) => method !== null);
  }

  async #symbol(token: string): Promise<string> {
    // Old tokens have none, or one of another type.
    const symbol = await this.#read(token, erc20.symbol as Codec<undefined, string>, undefined).catch(() => "");
    return tidy(symbol, 12) || `token ${short(token)}`;
  }

  price(planId: bigint, days: bigint, method: Method): Promise<bigint> {
    return this.#read(this.contract, pos.calculatePayment, { planId, days_: days, paymentMethodId: method.id });
  }

  balance(method: Method, account: string): Promise<bigint> {
    return this.#read(method.token, erc20.balanceOf, account);
  }

  allowance(method: Method, account: string): Promise<bigint> {
    return this.#read(method.token, erc20.allowance, { owner: account, spender: this.contract });
  }

  async subscriptions(account: string): Promise<Subscription[]> {
    const ids = await this.#read(this.contract, pos.getSubscriptionsBySubscriber, account);
    return each(ids.reverse().slice(0, Number(MOST)), (id) => this.subscription(id));
  }

  async subscription(id: bigint): Promise<Subscription> {
    const { planId, expiresAt, isActive, cancelled } = await this.#read(this.contract, pos.getSubscription, id);
    return { id, planId, expiresAt, active: isActive, cancelled };
  }

  /** The ids of an account's tokens, the newest first: a contract lists them in the order they came. */
  async tokens(account: string): Promise<bigint[]> {
    const count = await this.#read(this.#credentials, nft.balanceOf, account);
    const ids = await each(upTo(count), (n) =>
      this.#read(this.#credentials, nft.tokenOfOwnerByIndex, { owner: account, index: count - 1n - n }),
    );
    return ids.sort((a, b) => Number(b - a));
  }

  sealedAccess(token: bigint): Promise<Uint8Array> {
    return this.#read(this.#credentials, nft.getUserEncrypted, token);
  }

  approval(units: bigint): string {
    return hex(erc20.approve.encodeInput({ spender: this.contract, value: units }));
  }

  purchase(planId: bigint, days: bigint, method: Method, sealed: Uint8Array): string {
    return hex(pos.buySubscription.encodeInput({ planId, days_: days, paymentMethodId: method.id, userEncrypted: sealed }));
  }

  extension(subscriptionId: bigint, days: bigint, method: Method): string {
    return hex(pos.extendSubscription.encodeInput({ subscriptionId, days_: days, paymentMethodId: method.id }));
  }

  /** The subscription that a purchase made. */
  bought(receipt: Receipt): bigint | null {
    const log = receipt.logs.find(
      ({ address, topics }) => address.toLowerCase() === this.contract.toLowerCase() && topics[0] === CREATED_TOPIC,
    );
    return log?.topics[1] === undefined ? null : BigInt(log.topics[1]);
  }
}

const hex = (bytes: Uint8Array): string => `0x${bytesToHex(bytes)}`;

/** 0, 1, … as many as there are, but no more than anybody would read. */
function upTo(count: bigint): bigint[] {
  return Array.from({ length: Number(count < MOST ? count : MOST) }, (_, n) => BigInt(n));
}

/** Eight questions at a time: public nodes refuse more. */
async function each<A, B>(items: readonly A[], ask: (item: A) => Promise<B>): Promise<B[]> {
  const answers: B[] = new Array<B>(items.length);
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let n = next++; n < items.length; n = next++) answers[n] = await ask(items[n] as A);
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  return answers;
}
