// Buying and extending, step by step. Before the wallet is asked for money, everything that can be known is checked:
// chain, price, balance, that the buyer will be able to read the result, and that the contract would accept.

import type { Config } from "./config.ts";
import { explain, Failure, refusal } from "./failure.ts";
import { sealToServer } from "./secrets.ts";
import type { Method, Shop } from "./shop.ts";
import { amount, roughly } from "./text.ts";
import { type Progress, settle } from "./transaction.ts";
import type { Wallet } from "./wallet.ts";

export type Step = "chain" | "sign" | "approve" | "pay";

export interface Reporter {
  /** A step has begun; `note` says what the visitor has to do or what is waited for. */
  begin(step: Step, note: string): void;
  /** News of the transaction of the present step. */
  progress(hash: string, progress: Progress): void;
  done(step: Step): void;
}

export interface Order {
  readonly planId: bigint;
  readonly days: bigint;
  readonly method: Method;
  /** The price that the visitor has seen, in base units of the token. */
  readonly seen: bigint;
}

/** What may be taken at most: the price itself, or 3 % more where a market moves it meanwhile. */
export function ceiling(price: bigint, method: Method): bigint {
  return method.floating ? (price * 103n + 99n) / 100n : price;
}

export class Till {
  readonly #config: Config;
  readonly #shop: Shop;
  readonly #wallet: Wallet;
  readonly #report: Reporter;

  constructor(config: Config, shop: Shop, wallet: Wallet, report: Reporter) {
    this.#config = config;
    this.#shop = shop;
    this.#wallet = wallet;
    this.#report = report;
  }

  /** The new subscription's id. */
  async buy(order: Order): Promise<bigint> {
    await this.#useChain();
    await this.#checkMoney(order);
    this.#report.begin("sign", "Sign the access message in your wallet. It asks twice, to see that it signs alike each time; it costs nothing.");
    const signature = await this.#wallet.repeatableSignature(this.#config.public_secret);
    this.#report.done("sign");
    const sealed = sealToServer(this.#config.server_public_key, signature);
    const receipt = await this.#pay(order, this.#shop.purchase(order.planId, order.days, order.method, sealed));
    const id = this.#shop.bought(receipt);
    if (id === null) throw new Failure("The payment went through but no subscription was found in it. Look at “My machines”.");
    return id;
  }

  async extend(subscription: bigint, order: Order): Promise<void> {
    await this.#useChain();
    await this.#checkMoney(order);
    await this.#pay(order, this.#shop.extension(subscription, order.days, order.method));
  }

  async #useChain(): Promise<void> {
    this.#report.begin("chain", `Checking that your wallet is on ${this.#config.chain_name}. It may ask you to switch.`);
    await this.#wallet.useChain(this.#config);
    this.#report.done("chain");
  }

  async #checkMoney({ planId, days, method, seen }: Order): Promise<void> {
    const price = await this.#shop.price(planId, days, method);
    if (price > ceiling(seen, method)) {
      throw new Failure(`The price has changed to ${roughly(price, method.decimals)} ${method.symbol} meanwhile. Look at it and try again.`);
    }
    const [balance, gas] = await Promise.all([
      this.#shop.balance(method, this.#wallet.account),
      this.#shop.chain.gasBalance(this.#wallet.account),
    ]);
    if (balance < price) {
      throw new Failure(
        `This costs ${amount(price, method.decimals)} ${method.symbol}, but your wallet holds ${amount(balance, method.decimals)}. Nothing was paid.`,
      );
    }
    if (gas === 0n) throw new Failure(`Your wallet holds no ${this.#config.currency} for the chain's fees. Nothing was paid.`);
  }

  async #pay(order: Order, data: string) {
    await this.#approve(order);
    this.#report.begin("pay", "Confirm the payment in your wallet.");
    await this.#wouldBeTaken(this.#shop.contract, data);
    const receipt = await this.#send("pay", this.#shop.contract, data, this.#config.confirmations);
    this.#report.done("pay");
    return receipt;
  }

  async #approve({ method, seen }: Order): Promise<void> {
    const most = ceiling(seen, method);
    const allowed = await this.#shop.allowance(method, this.#wallet.account);
    if (allowed < most) {
      const said = `${roughly(most, method.decimals)} ${method.symbol}`;
      this.#report.begin("approve", `Approve ${method.floating ? "at most " : ""}${said} in your wallet. Nothing is paid yet.`);
      const data = this.#shop.approval(most);
      // Some tokens change a permission only by way of zero.
      if (allowed > 0n && !(await this.#isTaken(method.token, data))) {
        await this.#send("approve", method.token, this.#shop.approval(0n), 0);
      }
      await this.#send("approve", method.token, data, 0);
      if (!(await this.#isAllowed(method, most))) {
        throw new Failure(`You approved less than ${said}, so nothing was paid. Try again and leave the amount as it is.`);
      }
    }
    this.#report.done("approve");
  }

  async #send(step: Step, to: string, data: string, confirmations: number) {
    const hash = await this.#wallet.send(to, data);
    const receipt = await settle(this.#shop.chain, this.#wallet.account, hash, confirmations, (progress) =>
      this.#report.progress(hash, progress),
    );
    if (!receipt.succeeded) {
      const block = `0x${receipt.blockNumber.toString(16)}`;
      const reason = await this.#reason(to, data, block);
      throw new Failure(`The chain did not accept ${step === "pay" ? "the payment" : "the approval"}: ${reason}`);
    }
    return receipt;
  }

  async #reason(to: string, data: string, block: string): Promise<string> {
    try {
      await this.#shop.chain.call(to, data, this.#wallet.account, block);
      return "the transaction ran out of gas, or something changed while it waited. Only the chain's fee was paid.";
    } catch (error) {
      return explain(error);
    }
  }

  /** The node that is asked now may be a block behind the one that knew the approval. */
  async #isAllowed(method: Method, most: bigint): Promise<boolean> {
    for (let look = 0; look < 5; look++) {
      if ((await this.#shop.allowance(method, this.#wallet.account)) >= most) return true;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    return false;
  }

  async #isTaken(to: string, data: string): Promise<boolean> {
    return this.#shop.chain.call(to, data, this.#wallet.account).then(
      () => true,
      () => false,
    );
  }

  /** Tries it without sending: a refusal costs no fee this way. */
  async #wouldBeTaken(to: string, data: string): Promise<void> {
    try {
      await this.#shop.chain.call(to, data, this.#wallet.account);
    } catch (error) {
      throw new Failure(refusal(error) ?? explain(error));
    }
  }
}
