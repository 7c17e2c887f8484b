// The page: puts the pieces together and holds what they share, the connected wallet and what the chain was seen to say.

import { Chain } from "./chain.ts";
import { type Config, readConfig } from "./config.ts";
import { explain } from "./failure.ts";
import { type Order, type Step, Till } from "./purchase.ts";
import { fingerprint } from "./secrets.ts";
import { type Plan, Shop } from "./shop.ts";
import { count } from "./text.ts";
import { chooseWallet, showWallet } from "./ui/account.ts";
import { link, make, piece, rows } from "./ui/dom.ts";
import { holdings, showHoldings, showNothing, waitsForToken } from "./ui/machines.ts";
import { OrderForm } from "./ui/order.ts";
import { Steps } from "./ui/steps.ts";
import { discover, Wallet } from "./wallet.ts";

/** Milliseconds between two looks for a machine that is being prepared, while the page is seen. */
const LOOK_EVERY = 8000;

class Page {
  readonly #config: Config;
  readonly #shop: Shop;
  readonly #form: OrderForm;
  #plans: readonly Plan[] = [];
  #wallet: Wallet | null = null;
  #waiting = false;
  /** One payment at a time: two at once would spend one approval. */
  #busy = false;
  /** How often the holdings were asked for, and which of these answers is shown. */
  #look = 0;
  #shown = 0;

  constructor(config: Config) {
    this.#config = config;
    this.#shop = new Shop(config, new Chain(config.chain_id, config.rpc_urls));
    this.#form = new OrderForm(this.#shop, (order) => this.#buy(order));
    piece("connect").addEventListener("click", () => void (this.#wallet === null ? this.#connect() : this.#disconnect()));
    piece("refresh").addEventListener("click", () => void this.#lookAtHoldings(true));
    setInterval(() => {
      if (this.#waiting && !document.hidden && !this.#busy) void this.#lookAtHoldings(false);
    }, LOOK_EVERY);
  }

  async start(): Promise<void> {
    discover();
    showFacts(this.#config);
    await showWallet(this.#config, null);
    await this.#lookAtPlans();
  }

  async #lookAtPlans(): Promise<void> {
    try {
      const [plans, methods] = await Promise.all([this.#shop.plans(), this.#shop.methods()]);
      this.#plans = plans;
      this.#form.show(plans, methods);
      piece("notice").hidden = true;
    } catch (error) {
      piece("plan-list").replaceChildren(make("p", { class: "muted" }, "The plans could not be read."));
      complain(explain(error));
    }
  }

  async #connect(): Promise<void> {
    try {
      const offer = await chooseWallet();
      if (offer === null) return;
      const wallet: Wallet = await Wallet.connect(offer, (what) => {
        if (wallet !== this.#wallet) return;
        if (what === "account") this.#disconnect();
        else void showWallet(this.#config, wallet);
      });
      this.#wallet = wallet;
      this.#shop.chain.useWallet((method, params) => wallet.request(method, params));
      piece("notice").hidden = true;
    } catch (error) {
      complain(explain(error));
      return;
    }
    await showWallet(this.#config, this.#wallet);
    if (this.#plans.length === 0) await this.#lookAtPlans();
    await this.#lookAtHoldings(true);
  }

  /** Forgets the wallet and everything that it opened. */
  #disconnect(): void {
    this.#wallet = null;
    this.#waiting = false;
    this.#shop.chain.useWallet(null);
    void showWallet(this.#config, null);
    showNothing("Connect your wallet to see what is yours.");
  }

  async #lookAtHoldings(asked: boolean): Promise<void> {
    const wallet = this.#wallet;
    if (wallet === null) return;
    // Answers may come in another order than the questions: an older one must not take back what a newer one said.
    const look = ++this.#look;
    const outdated = (): boolean => wallet !== this.#wallet || look < this.#shown;
    try {
      const found = await holdings(this.#shop, wallet.account);
      if (outdated()) return;
      this.#shown = look;
      this.#waiting = waitsForToken(found);
      const { methods } = this.#form;
      const extend = (subscription: bigint, order: Order) => this.#extend(subscription, order);
      showHoldings({ config: this.#config, shop: this.#shop, plans: this.#plans, methods, extend }, wallet, found);
    } catch (error) {
      if (asked && !outdated()) piece("mine-status").textContent = explain(error);
    }
  }

  async #buy(order: Order): Promise<void> {
    if (this.#wallet === null) await this.#connect();
    const wallet = this.#wallet;
    if (wallet === null) return;
    await this.#pay("Your purchase", ["chain", "sign", "approve", "pay"], async (steps) => {
      const id = await new Till(this.#config, this.#shop, wallet, steps).buy(order);
      return `Subscription ${id} is yours for ${count(order.days, "day")}. The machine is being prepared; its access details appear below in a few minutes.`;
    });
  }

  async #extend(subscription: bigint, order: Order): Promise<void> {
    const wallet = this.#wallet;
    if (wallet === null) return;
    await this.#pay("Your extension", ["chain", "approve", "pay"], async (steps) => {
      await new Till(this.#config, this.#shop, wallet, steps).extend(subscription, order);
      return `Subscription ${subscription} runs ${count(order.days, "day")} longer.`;
    });
  }

  async #pay(title: string, list: readonly Step[], work: (steps: Steps) => Promise<string>): Promise<void> {
    if (this.#busy) {
      complain("Wait until the payment under way is finished.");
      return;
    }
    this.#busy = true;
    piece("notice").hidden = true;
    const steps = new Steps(this.#config, title, list);
    try {
      steps.succeed(await work(steps));
    } catch (error) {
      steps.fail(error);
    } finally {
      this.#busy = false;
    }
    await showWallet(this.#config, this.#wallet);
    await this.#lookAtHoldings(true);
  }
}

function complain(text: string): void {
  const notice = piece("notice");
  notice.hidden = false;
  notice.textContent = text;
}

function showFacts(config: Config): void {
  document.documentElement.style.setProperty("--hue", String(config.hue));
  piece("secret").textContent = config.public_secret;
  rows(piece("facts"), [
    ["Chain", `${config.chain_name} (${config.chain_id})`],
    ["Subscriptions", make("span", { class: "mono" }, config.subscription_contract)],
    ["Access tokens", make("span", { class: "mono" }, config.nft_contract)],
    ["Server key", make("span", { class: "mono" }, fingerprint(config.server_public_key))],
  ]);
  const links = [];
  if (config.terms_url !== null) links.push(link(config.terms_url, "Terms"), " ");
  if (config.contact !== null) links.push(link(config.contact, "Contact"));
  piece("links").replaceChildren(...links);
}

// In somebody else's frame, the buttons may be pressed by who does not see them. The policy that forbids frames cannot be
// given from inside a page.
if (window.top === window.self) {
  void new Page(readConfig()).start();
} else {
  complain("This page does not work inside another one. Open it by itself.");
  piece("main").hidden = true;
}
