// Scenarios of somebody who looks: no wallet, hostile names, other browsers' settings, nodes that fail.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { TestWallet } from "./wallet.mjs";
import { served, Visitor } from "./visitor.mjs";

const NOBODY = "01".repeat(32);

export const scenarios = {
  "plans and prices are read without a wallet, and nothing but the chain is asked": async ({ world, browser }) => {
    const visitor = await Visitor.open(browser, world.page);
    await visitor.plans();
    const names = await visitor.page.locator("#plan-list .card b").allTextContents();
    assert.equal(names.length, 3, names.join());
    assert.match(await visitor.page.locator("#plan-list .card").first().textContent(), /Small.*\$0\.50 a day1 CPU, 1 GB memory, 10 GB disk$/);
    assert.match(await visitor.page.locator("#plan-list .card").last().textContent(), /4 CPUs, 6500 MB memory, 80 GB disk$/);
    await visitor.says("total", "15 MUSD");
    await visitor.page.locator('.preset[data-days="7"]').click();
    await visitor.says("total", "3.50 MUSD");
    for (const url of visitor.requests) assert.ok(url === world.page || url.startsWith("data:") || url.startsWith(world.rpc), `asked ${url}`);
    await visitor.picture(world.pictures, "light");
    await visitor.close();
  },

  "a hostile plan name stays text": async ({ world, browser }) => {
    const visitor = await Visitor.open(browser, world.page);
    await visitor.plans();
    const hostile = visitor.page.locator("#plan-list .card", { hasText: "onerror" });
    assert.equal(await hostile.locator("b").textContent(), "<img src=x onerror=alert(1)> <script>alert(2)</script>");
    assert.match(await hostile.textContent(), /\$1,234\.56/);
    assert.equal(await visitor.page.locator("main img, main script").count(), 0);
    // And if the page's own script tried, the policy would not let it.
    const stopped = await visitor.page.evaluate(() => {
      const attempts = [
        () => (document.body.innerHTML = "<b>x</b>"),
        () => (document.createElement("script").textContent = "window.executed = true"),
        () => document.body.setAttribute("onclick", "window.executed = true"),
      ];
      const refused = (attempt) => {
        try {
          attempt();
          return false;
        } catch {
          return true;
        }
      };
      document.body.click();
      return [...attempts.map(refused), window.executed ?? null];
    });
    assert.deepEqual(stopped, [true, true, true, null]);
    await visitor.context.close();
  },

  "days that are none are said and cannot be bought": async ({ world, browser }) => {
    const visitor = await Visitor.open(browser, world.page);
    await visitor.plans();
    for (const days of ["0", "-1", "1.5", "", "3651", "1e3"]) {
      await visitor.piece("days").fill(days);
      await visitor.says("days-error", "whole number of days");
      assert.ok(await visitor.piece("buy").isDisabled(), days);
    }
    await visitor.accessible("a wrong number of days");
    await visitor.piece("days").fill("3650");
    await visitor.says("total", "1,825 MUSD");
    assert.equal(await visitor.piece("days-error").textContent(), "");
    await visitor.close();
  },

  "without a wallet the visitor is told what is needed": async ({ world, browser }) => {
    const visitor = await Visitor.open(browser, world.page);
    await visitor.plans();
    await visitor.piece("connect").click();
    await visitor.says("wallet-list", "No wallet was found");
    await visitor.accessible("the empty list of wallets");
    await visitor.page.keyboard.press("Escape");
    await visitor.piece("wallets").waitFor({ state: "hidden" });
    await visitor.close();
  },

  "several wallets are offered by name and the chosen one is used": async ({ world, browser, node }) => {
    const [one, two] = [new TestWallet(node, NOBODY), new TestWallet(node, "02".repeat(32))];
    const visitor = await Visitor.open(browser, world.page, { wallets: [[one, "First wallet"], [two, "Second wallet"]] });
    await visitor.plans();
    await visitor.piece("connect").click();
    const offered = await visitor.page.locator("#wallet-list button").allTextContents();
    assert.deepEqual(offered, ["First wallet", "Second wallet"]);
    await visitor.accessible("the list of wallets");
    await visitor.picture(world.pictures, "wallets");
    await visitor.page.locator("#wallet-list button", { hasText: "Second" }).click();
    await visitor.says("account", two.address.slice(-4));
    assert.deepEqual(one.asked, []);
    // The wallet's owner goes to another account: what belonged to the first is gone from the page.
    await visitor.says("mine-status", "Nothing yet");
    await visitor.emit[1]("accountsChanged", [one.address]);
    await visitor.says("mine-status", "Connect your wallet");
    await visitor.close();
  },

  "it is usable with the keyboard alone, in the order that is seen": async ({ world, browser, node }) => {
    const wallet = new TestWallet(node, NOBODY);
    const visitor = await Visitor.open(browser, world.page, { wallets: [[wallet, null]] });
    await visitor.plans();
    const { page } = visitor;
    const focused = () => page.evaluate(() => document.activeElement?.id || document.activeElement?.className || document.activeElement?.getAttribute("name"));
    const order = [];
    for (let n = 0; n < 10; n++) {
      await page.keyboard.press("Tab");
      order.push(await focused());
    }
    assert.deepEqual(order, ["skip", "connect", "plan", "days", "preset", "preset", "preset", "preset", "method", "buy"]);
    const seen = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(seen, "solid", "what has the focus is outlined");
    await page.locator("#plan-list input").first().focus();
    await page.keyboard.press("ArrowDown");
    await visitor.says("total", "37,036.80 MUSD");
    await visitor.piece("connect").focus();
    await page.keyboard.press("Enter");
    await visitor.piece("account").waitFor();
    await visitor.close();
  },

  "dark, small, and without motion": async ({ world, browser }) => {
    const options = { scheme: "dark", viewport: { width: 340, height: 700 }, motion: "reduce" };
    const visitor = await Visitor.open(browser, world.page, options);
    await visitor.plans();
    await visitor.fits();
    await visitor.accessible("dark and small");
    const moves = await visitor.page.evaluate(() => getComputedStyle(document.querySelector(".card")).transitionDuration);
    assert.equal(moves, "0s");
    await visitor.picture(world.pictures, "dark-small");
    await visitor.close();
  },

  "text is readable in every colour that an operator can choose": async ({ world, browser }) => {
    for (const scheme of ["light", "dark"]) {
      const visitor = await Visitor.open(browser, world.page, { scheme });
      await visitor.plans();
      for (let hue = 0; hue < 360; hue += 30) {
        await visitor.page.evaluate((hue) => document.documentElement.style.setProperty("--hue", hue), String(hue));
        await visitor.accessible(`hue ${hue}, ${scheme}`);
      }
      await visitor.close();
    }
  },

  "nodes that do not answer, or are of another chain, are said": async ({ world, browser, node }) => {
    const dead = await Visitor.open(browser, world.page, { route: (route) => route.abort() });
    await dead.says("notice", "No node of the chain gives an answer");
    await dead.accessible("no node");
    await dead.close();

    const other = (route) => {
      const { method, id } = route.request().postDataJSON();
      const result = method === "eth_chainId" ? "0x1" : "0x";
      return route.fulfill({ json: { jsonrpc: "2.0", id, result }, headers: { "access-control-allow-origin": "*" } });
    };
    const lost = await Visitor.open(browser, world.page, { route: other });
    await lost.says("notice", "it is on chain 1 instead of 31337");
    await lost.close();

    // A wallet's own node stands in.
    const wallet = new TestWallet(node, NOBODY);
    const helped = await Visitor.open(browser, world.page, { wallets: [[wallet, null]], route: (route) => route.abort() });
    await helped.says("notice", "No node");
    await helped.piece("connect").click();
    await helped.plans();
    await helped.says("mine-status", "Nothing yet");
    await helped.close();
  },

  "in somebody else's frame it does nothing": async ({ world, browser }) => {
    const page = readFileSync(new URL(world.page));
    const frame = '<title>x</title><iframe src="/page" width="900" height="900"></iframe>';
    await served({ "/page": page, "/": frame }, async (address) => {
      const context = await browser.newContext();
      const outer = await context.newPage();
      await outer.goto(`${address}/`);
      const inner = outer.frameLocator("iframe");
      await inner.locator("#notice", { hasText: "does not work inside another one" }).waitFor();
      assert.equal(await inner.locator("#main").isVisible(), false);
      await inner.locator("#connect").click();
      assert.equal(await inner.locator("#wallets[open]").count(), 0);
      await context.close();
    });
  },
};
