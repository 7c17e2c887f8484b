// Scenarios of somebody who has machines: access details, their errors, extending, what the operator ended.
import assert from "node:assert/strict";
import { hexToBytes } from "@noble/hashes/utils.js";
import { TestWallet } from "./wallet.mjs";
import { Visitor } from "./visitor.mjs";

const DAY = 86_400n;

async function owner(test, options = {}) {
  const wallet = new TestWallet(test.node, test.world.owner_key);
  const visitor = await Visitor.open(test.browser, test.world.page, { wallets: [[wallet, null]], ...options });
  await visitor.connect();
  await visitor.page.locator("#tokens li").first().waitFor();
  return { wallet, visitor };
}

const token = (visitor, id) => visitor.page.locator(`#tokens li[data-id="${id}"]`);
const open = (visitor, id) => token(visitor, id).getByRole("button", { name: "Show access details" }).click();

export const scenarios = {
  "access details that the engine encrypted open with the wallet's signature alone": async (test) => {
    const { wallet, visitor } = await owner(test, { subtle: false });
    assert.deepEqual(wallet.asked.filter((method) => method === "personal_sign"), []);
    wallet.declines.add("personal_sign");
    await open(visitor, 0);
    await token(visitor, 0).getByText("You declined in your wallet").waitFor();
    wallet.declines.clear();
    await open(visitor, 0);
    await token(visitor, 0).getByText("ssh -p 2222 admin@fd77:b10c::2").waitFor();
    await visitor.accessible("opened access details");
    await visitor.picture(test.world.pictures, "machines");
    // They stay open while the page looks again.
    const looked = visitor.page.waitForResponse((response) => /eth_getBlockByNumber/.test(response.request().postData() ?? ""));
    await visitor.piece("refresh").click();
    await looked;
    await token(visitor, 0).getByText("ssh -p 2222").waitFor();
    await visitor.piece("connect").click();
    await visitor.says("mine-status", "Connect your wallet");
    assert.equal(await visitor.page.getByText("fd77:b10c::2").count(), 0, "a disconnected wallet's details are gone");
    await visitor.close();
  },

  "a machine that was being prepared appears by itself": async (test) => {
    const { wallet, visitor } = await owner(test);
    await test.operator.done(test.usd.tx("mint", { to: wallet.address, amount: 10n ** 9n }));
    // More subscriptions than tokens: the page looks again until there are as many.
    for (let n = 0; n < 4; n++) {
      await visitor.order({ days: "1" });
      await visitor.buy();
      await visitor.says("status", /Subscription \d+ is yours for 1 day\./);
      await visitor.piece("steps").evaluate((steps) => steps.replaceChildren());
      await visitor.piece("status").evaluate((status) => status.replaceChildren());
    }
    await visitor.says("mine-status", "being prepared");
    await open(visitor, 0);
    await token(visitor, 0).getByText("ssh -p 2222").waitFor();
    await test.operator.done(test.nft.tx("mint", { to: wallet.address, userEncrypted: hexToBytes("00") }));
    await token(visitor, 3).waitFor();
    await token(visitor, 0).getByText("ssh -p 2222").waitFor();
    await visitor.piece("mine-status").filter({ hasNotText: "prepared" }).waitFor({ state: "attached" });
    await visitor.close();
  },

  "the command is copied": async (test) => {
    const { visitor } = await owner(test);
    await visitor.context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await open(visitor, 0);
    const copy = token(visitor, 0).getByRole("button", { name: "Copy the ssh command" });
    await copy.click();
    await copy.getByText("Copied", { exact: true }).waitFor();
    assert.equal(await visitor.page.evaluate(() => navigator.clipboard.readText()), "ssh -p 2222 admin@fd77:b10c::2");
    await visitor.close();
  },

  "details for another key are said to be so, hostile ones become no command": async (test) => {
    const { visitor } = await owner(test);
    await open(visitor, 1);
    await token(visitor, 1).getByText("do not open with this wallet's signature").waitFor();
    await open(visitor, 2);
    await token(visitor, 2).getByText("unusual form").waitFor();
    assert.equal(await token(visitor, 2).locator("code").count(), 0);
    assert.match(await token(visitor, 2).textContent(), /-oProxyCommand=<img src=x onerror=alert\(1\)>/);
    // Cut short on the chain.
    await test.operator.done(test.nft.tx("updateUserEncrypted", { tokenId: 1n, userEncrypted: hexToBytes("00".repeat(27)) }));
    await open(visitor, 1);
    await token(visitor, 1).getByText("carries no access details yet").waitFor();
    await visitor.fits();
    await visitor.accessible("errors of tokens");
    await visitor.close();
  },

  "a subscription is extended from its end, an expired one too, a cancelled one not": async (test) => {
    const { wallet, visitor } = await owner(test);
    await test.operator.done(test.usd.tx("mint", { to: wallet.address, amount: 10n ** 9n }));
    await visitor.order({ days: "1" });
    await visitor.buy();
    await visitor.says("status", /is yours for 1 day\./);
    const [id] = await test.pos.read("getSubscriptionsBySubscriber", wallet.address);
    const item = visitor.page.locator("#subscriptions li", { hasText: new RegExp(`Subscription ${id}(?!\\d)`) });
    const expiry = async () => (await test.pos.read("getSubscription", id)).expiresAt;
    const extend = async (days, price) => {
      await item.getByRole("spinbutton").fill(days);
      await item.getByText(price).waitFor();
      await item.getByRole("button", { name: `Extend subscription ${id}` }).click();
    };
    await item.getByText("Active").waitFor();
    const before = await expiry();
    await extend("10", "5 MUSD");
    await visitor.says("status", `Subscription ${id} runs 10 days longer.`);
    assert.equal(await expiry(), before + 10n * DAY);

    await test.node.ask("evm_increaseTime", Number(12n * DAY));
    await test.node.ask("anvil_mine", "0x1");
    await visitor.piece("refresh").click();
    await item.getByText("Expired").waitFor();
    await extend("2", "1 MUSD");
    await item.getByText("Active").waitFor();
    await visitor.accessible("an extended subscription");
    await visitor.picture(test.world.pictures, "extended");

    await test.operator.done(test.pos.tx("cancelSubscription", id));
    await visitor.piece("refresh").click();
    await item.getByText("Cancelled").waitFor();
    assert.equal(await item.getByRole("button").count(), 0);
    await visitor.close();
  },

  "an answer that comes late takes nothing back, and what is typed stays typed": async (test) => {
    const { wallet, visitor } = await owner(test);
    await test.operator.done(test.usd.tx("mint", { to: wallet.address, amount: 10n ** 9n }));
    await visitor.order({ days: "1" });
    await visitor.buy();
    await visitor.says("status", /is yours for 1 day\./);
    const id = (await test.pos.read("getSubscriptionsBySubscriber", wallet.address)).at(-1);
    const item = visitor.page.locator("#subscriptions li", { hasText: new RegExp(`Subscription ${id}(?!\\d)`) });
    await item.getByText("Active").waitFor();
    await item.getByRole("spinbutton").fill("3");
    await item.getByText("1.50 MUSD").waitFor();

    // The first look hears of the time before, but only after the second has heard of the time after.
    let release;
    const held = new Promise((resolve) => (release = resolve));
    let arrived;
    const asked = new Promise((resolve) => (arrived = resolve));
    let first = true;
    const under_way = new Set();
    visitor.page.on("request", (request) => under_way.add(request));
    for (const end of ["requestfinished", "requestfailed"]) visitor.page.on(end, (request) => under_way.delete(request));
    await visitor.page.route((where) => where.protocol !== "file:", async (route) => {
      if (!first || !/eth_getBlockByNumber/.test(route.request().postData() ?? "")) return route.continue();
      first = false;
      const response = await route.fetch();
      arrived(route.request());
      await held;
      return route.fulfill({ response });
    });
    await visitor.piece("refresh").click();
    const late = await asked;
    // Whatever else the first look asks for is answered before the chain goes on.
    for (let quiet = 0; quiet < 5; quiet = under_way.size > 1 ? 0 : quiet + 1) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await test.node.ask("evm_increaseTime", Number(2n * DAY));
    await test.node.ask("anvil_mine", "0x1");
    await visitor.piece("refresh").evaluate((refresh) => refresh.click());
    await item.getByText("Expired").waitFor();
    release();
    const answer = await late.response();
    assert.ok(answer, `the late answer did not arrive: ${late.failure()?.errorText}`);
    await answer.finished();
    await visitor.page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))));
    assert.match(await item.textContent(), /Expired/);
    assert.equal(await item.getByRole("spinbutton").inputValue(), "3");
    await item.getByText("1.50 MUSD").waitFor();

    // The field is taken from nobody, not even when everything around it changes.
    await item.getByRole("spinbutton").focus();
    await visitor.page.keyboard.press("End");
    await wallet.done(test.usd.tx("approve", { spender: test.world.subscriptions, value: 10n ** 6n }));
    await wallet.done(test.pos.tx("extendSubscription", { subscriptionId: id, days_: 1n, paymentMethodId: 1n }));
    await visitor.piece("refresh").evaluate((refresh) => refresh.click());
    await item.getByText("Active").waitFor();
    await visitor.page.keyboard.type("0");
    assert.equal(await item.getByRole("spinbutton").inputValue(), "30");
    await item.getByText("15 MUSD").waitFor();
    await visitor.close();
  },
};
