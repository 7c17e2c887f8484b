// Scenarios of somebody who buys: what goes right, and everything that goes wrong before and after the money moves.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { TestWallet } from "./wallet.mjs";
import { served, Visitor } from "./visitor.mjs";
import { Contract, lastPurchase, Signer } from "./chain.mjs";

const WRITES = ["eth_sendTransaction"];
let next = 16;

/** A customer with a fresh account that holds what is given. */
async function customer(test, { dollars = 1000n, coins = 0n, ether = 10n } = {}) {
  const wallet = new TestWallet(test.node, (next++).toString(16).padStart(64, "0"));
  await test.node.ask("anvil_setBalance", wallet.address, `0x${(ether * 10n ** 18n).toString(16)}`);
  if (dollars > 0n) await test.operator.done(test.usd.tx("mint", { to: wallet.address, amount: dollars * 10n ** 6n }));
  if (coins > 0n) await test.operator.done(test.coin.tx("mint", { to: wallet.address, amount: coins * 10n ** 18n }));
  return wallet;
}

async function shopping(test, wallet, { page = test.world.page, order = {}, ...options } = {}) {
  const visitor = await Visitor.open(test.browser, page, { wallets: [[wallet, null]], ...options });
  await visitor.connect();
  await visitor.order(order);
  return visitor;
}

const nothingSent = (wallet) => assert.deepEqual(wallet.asked.filter((method) => WRITES.includes(method)), []);
const held = (test, wallet) => test.usd.read("balanceOf", wallet.address);

/** In the very second in which a pair was traded nobody can pay by its price, and the test's chain makes several blocks in one. */
async function nextBlock(test) {
  await test.node.ask("evm_increaseTime", "0x1");
  await test.node.ask("anvil_mine", "0x1");
}

export const scenarios = {
  "a purchase: signed, encrypted to the server, approved to the cent, paid, shown": async (test) => {
    const wallet = await customer(test);
    const visitor = await shopping(test, wallet, { subtle: false });
    await visitor.buy();
    await visitor.says("status", /Subscription \d+ is yours for 30 days/);
    assert.equal(await visitor.page.locator("#steps li.done").count(), 4);
    await visitor.says("subscriptions", /Active/);
    await visitor.says("mine-status", "being prepared");
    await visitor.accessible("after a purchase");
    await visitor.picture(test.world.pictures, "bought");
    assert.equal(wallet.asked.filter((method) => method === "personal_sign").length, 2);
    assert.equal(await held(test, wallet), 985n * 10n ** 6n);
    assert.equal(await test.usd.read("allowance", { owner: wallet.address, spender: test.world.subscriptions }), 0n);
    const kept = await visitor.page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]));
    assert.equal(kept, "[{},{}]", "the signature is kept nowhere");
    const purchase = await lastPurchase(test.node, test.world.subscriptions);
    assert.deepEqual([purchase.planId, purchase.subscriber, purchase.paidAmount], [1n, wallet.address.toLowerCase(), 15n * 10n ** 6n]);

    // Another one in the same visit needs no signature any more, and another ephemeral key.
    await visitor.order({ days: "7" });
    await visitor.buy();
    await visitor.says("status", /Subscription \d+ is yours for 7 days/);
    assert.equal(wallet.asked.filter((method) => method === "personal_sign").length, 2);
    const second = await lastPurchase(test.node, test.world.subscriptions);
    assert.notEqual(second.userEncrypted.slice(0, 132), purchase.userEncrypted.slice(0, 132));
    await visitor.close();
    return { userEncrypted: purchase.userEncrypted, buyerKey: wallet.key };
  },

  "served by a web server it works as from a file": async (test) => {
    await served({ "/": readFileSync(new URL(test.world.page)) }, async (address) => {
      const wallet = await customer(test);
      const visitor = await shopping(test, wallet, { page: `${address}/` });
      await visitor.buy();
      await visitor.says("status", /is yours/);
      for (const url of visitor.requests) {
        assert.ok(url === `${address}/` || url.startsWith("data:") || url.startsWith(test.world.rpc), `asked ${url}`);
      }
      await visitor.close();
    });
  },

  "buying connects first where nobody has": async (test) => {
    const wallet = await customer(test);
    const visitor = await Visitor.open(test.browser, test.world.page, { wallets: [[wallet, "One wallet"]], scheme: "dark" });
    await visitor.plans();
    await visitor.order();
    await visitor.buy();
    await visitor.says("status", /is yours/);
    await visitor.accessible("after a purchase, dark");
    await visitor.picture(test.world.pictures, "bought-dark");
    await visitor.close();
  },

  "a token whose price moves is approved with a ceiling, and above it nothing is taken": async (test) => {
    const wallet = await customer(test, { coins: 1000n });
    const visitor = await shopping(test, wallet, { order: { method: "COIN" } });
    // 15 dollars at 2 dollars a coin, 1 % slippage of the contract's.
    await visitor.says("total", "≈ 7.575 COIN");
    await visitor.says("total-note", "at most 7.80225 COIN");
    await visitor.buy();
    await visitor.says("status", /is yours/);
    assert.equal(await test.coin.read("balanceOf", wallet.address), 1000n * 10n ** 18n - 7_575n * 10n ** 15n);

    // The coin loses half its worth while the wallet asks for the payment.
    const reserves = (coins) => test.operator.done(test.pair.tx("setReserves", { first: coins * 10n ** 18n, second: 10n ** 11n }));
    await visitor.order({ method: "COIN" });
    wallet.beforeSend = async ({ to }) => {
      if (to.toLowerCase() !== test.world.subscriptions.toLowerCase()) return;
      await reserves(100_000n);
      await nextBlock(test);
    };
    await visitor.buy();
    await visitor.says("status", "The price has risen above what you approved");
    assert.equal(await test.coin.read("balanceOf", wallet.address), 1000n * 10n ** 18n - 7_575n * 10n ** 15n);
    wallet.beforeSend = async () => {};

    // And when it has changed since it was shown, nothing is asked of the wallet at all.
    await visitor.order({ method: "COIN", days: "31" });
    const sent = wallet.sent.length;
    await reserves(400_000n);
    await visitor.buy();
    await visitor.says("status", "The price has changed");
    assert.equal(wallet.sent.length, sent);
    // A pair that is too thin has no price.
    await test.operator.done(test.pair.tx("setReserves", { first: 10n, second: 10n }));
    await visitor.piece("days").fill("32");
    await visitor.says("total-note", "too thin for a fair price");
    assert.ok(await visitor.piece("buy").isDisabled());
    await reserves(50_000n);
    await visitor.close();
  },

  "a declined signature, approval or payment is said, and nothing is paid": async (test) => {
    const wallet = await customer(test);
    wallet.declines.add("eth_requestAccounts");
    const visitor = await Visitor.open(test.browser, test.world.page, { wallets: [[wallet, null]] });
    await visitor.plans();
    await visitor.piece("connect").click();
    await visitor.says("notice", "You declined in your wallet");
    wallet.declines = new Set(["personal_sign"]);
    await visitor.connect();
    await visitor.order();
    await visitor.buy();
    await visitor.says("status", "You declined in your wallet. Nothing was paid.");
    assert.equal(await visitor.page.locator("#steps li.failed").textContent(), "Access key (failed)");
    nothingSent(wallet);
    wallet.declines = new Set(WRITES);
    await visitor.page.locator("#buy:enabled").waitFor();
    await visitor.buy();
    await visitor.says("steps", "Approval (failed)");
    await visitor.accessible("a declined approval");
    await visitor.picture(test.world.pictures, "declined");
    wallet.declines.clear();
    wallet.beforeSend = async () => wallet.declines.add("eth_sendTransaction");
    await visitor.page.locator("#buy:enabled").waitFor();
    await visitor.buy();
    await visitor.says("steps", "Payment (failed)");
    assert.equal(await held(test, wallet), 1000n * 10n ** 6n);
    // What was approved then is not approved again.
    wallet.beforeSend = async () => {};
    wallet.declines.clear();
    await visitor.page.locator("#buy:enabled").waitFor();
    await visitor.buy();
    await visitor.says("status", /is yours/);
    assert.equal(wallet.sent.length, 2);
    await visitor.close();
  },

  "a wallet on another chain is switched, or taught the chain, or refused": async (test) => {
    const wallet = await customer(test);
    wallet.chainId = 1;
    wallet.known = new Set([1]);
    wallet.declines.add("wallet_addEthereumChain");
    const visitor = await shopping(test, wallet);
    await visitor.says("chain", "Wallet is not on Local test chain");
    await visitor.buy();
    await visitor.says("status", "You declined");
    wallet.declines.clear();
    wallet.known.add(31337);
    wallet.declines.add("wallet_switchEthereumChain");
    await visitor.page.locator("#buy:enabled").waitFor();
    await visitor.buy();
    await visitor.says("steps", "Right chain (failed)");
    nothingSent(wallet);
    wallet.declines.clear();
    wallet.known.delete(31337);
    await visitor.page.locator("#buy:enabled").waitFor();
    await visitor.buy();
    await visitor.says("status", /is yours/);
    assert.deepEqual([wallet.added.chainName, wallet.added.rpcUrls], ["Local test chain", [test.world.rpc]]);
    await visitor.says("chain", /^Local test chain$/);
    await visitor.close();
  },

  "without enough of the token, or of gas, nothing is asked of the wallet": async (test) => {
    const poor = await customer(test, { dollars: 3n });
    const visitor = await shopping(test, poor);
    await visitor.buy();
    await visitor.says("status", "This costs 15 MUSD, but your wallet holds 3");
    nothingSent(poor);
    assert.ok(!poor.asked.includes("personal_sign"));
    await visitor.close();
    const dry = await customer(test, { ether: 0n });
    const other = await shopping(test, dry);
    await other.buy();
    await other.says("status", "holds no ETH for the chain's fees");
    nothingSent(dry);
    await other.close();
  },

  "a wallet whose signature cannot be a key is found out before anything is paid": async (test) => {
    const hedged = await customer(test);
    hedged.hedged = true;
    const visitor = await shopping(test, hedged);
    await visitor.buy();
    await visitor.says("status", "signs differently each time");
    nothingSent(hedged);
    await visitor.close();

    const liar = await customer(test);
    liar.key = "05".repeat(32);
    const other = await shopping(test, liar);
    await other.buy();
    await other.says("status", "signed with another account");
    nothingSent(liar);
    await other.close();
  },

  "a payment that the contract refuses after it was sent is said with the reason": async (test) => {
    const wallet = await customer(test);
    const sold = (active) => test.operator.done(test.pos.tx("updatePlan", { planId: 1n, name: "Small", pricePerDayUsdCents: 50n, active }));
    wallet.beforeSend = async ({ to }) => {
      if (to.toLowerCase() === test.world.subscriptions.toLowerCase()) await sold(false);
    };
    const visitor = await shopping(test, wallet);
    await visitor.buy();
    await visitor.says("status", "The chain did not accept the payment: This plan is not for sale at the moment.");
    assert.equal(await held(test, wallet), 1000n * 10n ** 6n);
    // Known beforehand, it costs no fee.
    const sent = wallet.sent.length;
    await visitor.page.locator("#buy:enabled").waitFor();
    await visitor.buy();
    await visitor.says("status", /^This plan is not for sale at the moment\.$/);
    assert.equal(wallet.sent.length, sent);
    await sold(true);
    await visitor.close();
  },

  "waiting, confirmations and a reorganisation are said as they are": async (test) => {
    const wallet = await customer(test);
    const visitor = await shopping(test, wallet, { page: test.world.confirming_page });
    // Approved beforehand: this is about one transaction.
    await wallet.done(test.usd.tx("approve", { spender: test.world.subscriptions, value: 15n * 10n ** 6n }));
    await test.node.ask("evm_setAutomine", false);
    try {
      await visitor.buy();
      await visitor.says("status", "Sent. Waiting until it is mined.");
      await visitor.accessible("waiting");
      await visitor.picture(test.world.pictures, "waiting");
      await test.node.ask("anvil_mine", "0x1");
      await visitor.says("status", "Mined. 0 of 2 confirmations.");
      await test.node.ask("anvil_rollback", 1);
      await visitor.says("status", "The chain was reorganised");
      const { raw } = wallet.sent.at(-1);
      await test.node.ask("eth_sendRawTransaction", raw).catch((error) => assert.match(error.message, /already/));
      await test.node.ask("anvil_mine", "0x2");
      await visitor.says("status", "Mined. 1 of 2 confirmations.");
      await test.node.ask("anvil_mine", "0x1");
      await visitor.says("status", /is yours/);
    } finally {
      await test.node.ask("evm_setAutomine", true);
    }
    assert.equal(await held(test, wallet), 985n * 10n ** 6n);
    await visitor.close();
  },

  "a transaction that was replaced in the wallet is not waited for": async (test) => {
    const wallet = await customer(test);
    const visitor = await shopping(test, wallet);
    await test.node.ask("evm_setAutomine", false);
    // It has to be seen by the page before it is gone.
    const seen = visitor.page.waitForResponse((response) => /eth_getTransactionByHash/.test(response.request().postData() ?? ""));
    try {
      await visitor.buy();
      await visitor.says("status", "Sent. Waiting");
      await seen;
      const { nonce } = wallet.sent.at(-1);
      await new Signer(test.node, wallet.key).send({ to: wallet.address, data: "0x", nonce, tip: 9n });
      await test.node.ask("anvil_mine", "0x1");
      await visitor.says("status", "replaced or cancelled in your wallet");
    } finally {
      await test.node.ask("evm_setAutomine", true);
    }
    await visitor.close();
  },

  "a transaction that is not mined for long is not waited for any longer, and not called lost": async (test) => {
    const wallet = await customer(test);
    const visitor = await shopping(test, wallet);
    await visitor.page.clock.install();
    await test.node.ask("evm_setAutomine", false);
    try {
      await visitor.buy();
      await visitor.says("status", "Sent. Waiting");
      await visitor.page.clock.fastForward("21:00");
      await visitor.says("status", "The transaction is still not mined. It may go through later");
    } finally {
      await test.node.ask("evm_setAutomine", true);
      await test.node.ask("anvil_mine", "0x1");
    }
    await visitor.close();
  },

  "a token that changes a permission only by way of zero is taken that way": async (test) => {
    const wallet = await customer(test, { dollars: 0n });
    const token = await test.operator.deploy("CautiousToken", { name: "Cautious", symbol: "CAUT", decimals_: 6n });
    const pair = await test.operator.deploy("MockPair", { first: token, second: test.world.stablecoin });
    const reserves = { first: 10n ** 12n, second: 10n ** 12n };
    await test.operator.done(new Contract(test.node, "MockPair", pair).tx("setReserves", reserves));
    await nextBlock(test);
    await test.operator.done(test.pos.tx("addPaymentMethod", { token, pair, stablecoin: test.world.stablecoin }));
    const cautious = new Contract(test.node, "CautiousToken", token);
    await test.operator.done(cautious.tx("mint", { to: wallet.address, amount: 1000n * 10n ** 6n }));
    // Left behind by an earlier visit, and too little.
    const left = cautious.tx("approve", { spender: test.world.subscriptions, value: 1n });
    await wallet.done(left);
    const visitor = await shopping(test, wallet, { order: { method: "CAUT" } });
    await visitor.buy();
    await visitor.says("status", /is yours/);
    assert.equal(wallet.asked.filter((method) => WRITES.includes(method)).length, 3, "zero, the permission, the payment");
    const { paidAmount, paymentToken } = await lastPurchase(test.node, test.world.subscriptions);
    assert.deepEqual([paymentToken, await cautious.read("balanceOf", wallet.address)], [token.toLowerCase(), 1000n * 10n ** 6n - paidAmount]);
    await visitor.close();
  },
};
