// A visitor's browser with the page open in it, and what the scenarios ask of it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Milliseconds until something that has to happen counts as not happening; nothing waits longer than it must. */
export const PATIENCE = 60_000;

/** Serves these pages by their paths on a port of its own while `work` runs with its address. */
export async function served(pages, work) {
  const server = createServer((request, response) => {
    response.setHeader("content-type", "text/html");
    response.end(pages[request.url] ?? "");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await work(`http://127.0.0.1:${server.address().port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

export class Visitor {
  /**
   * `wallets` are pairs of a test wallet and the name it announces (null: injected). `subtle` false takes WebCrypto's
   * subtle part away, as browsers do where there is no secure context.
   */
  static async open(browser, url, { wallets = [], scheme = "light", viewport, motion, subtle = true, route } = {}) {
    const context = await browser.newContext({
      colorScheme: scheme,
      reducedMotion: motion ?? "no-preference",
      viewport: viewport ?? { width: 1180, height: 900 },
    });
    const page = await context.newPage();
    const visitor = new Visitor();
    Object.assign(visitor, { context, page, problems: [], requests: [], emit: [] });
    page.on("pageerror", (error) => visitor.problems.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error" && !/net::ERR_/.test(message.text())) visitor.problems.push(message.text());
    });
    page.on("dialog", (dialog) => {
      visitor.problems.push(`a dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on("request", (request) => visitor.requests.push(request.url()));
    page.setDefaultTimeout(PATIENCE);
    await page.addInitScript((subtle) => {
      window.violations = [];
      document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
      if (!subtle) Object.defineProperty(Crypto.prototype, "subtle", { value: undefined });
    }, subtle);
    for (const [wallet, name] of wallets) visitor.emit.push(await wallet.install(page, name));
    if (route) await page.route((where) => where.protocol !== "file:", route);
    await page.goto(url);
    return visitor;
  }

  /** Closes the page; nothing may have gone wrong in it that no scenario looked at. */
  async close() {
    assert.deepEqual(this.problems, []);
    assert.deepEqual(await this.page.evaluate(() => window.violations), [], "the page's policy was violated");
    const kept = await this.page.evaluate(() => document.cookie);
    assert.equal(kept, "");
    await this.context.close();
  }

  piece(id) {
    return this.page.locator(`#${id}`);
  }

  /** Waits until a piece of the page says it. */
  async says(id, text) {
    try {
      await this.piece(id).filter({ hasText: text }).waitFor();
    } catch (error) {
      const said = await this.piece(id).textContent();
      throw new Error(`#${id} says ${JSON.stringify(said)} instead of ${text}`, { cause: error });
    }
  }

  async connect() {
    await this.plans();
    await this.piece("connect").click();
    await this.piece("account").waitFor();
  }

  /** Waits for the plans and a price. */
  async plans() {
    await this.page.locator("#plan-list .card").first().waitFor();
    await this.says("total", /\d/);
  }

  async order({ plan = "Small", days = "30", method = "MUSD" } = {}) {
    await this.page.locator("#plan-list .card", { hasText: plan }).locator("input").check();
    await this.piece("days").fill(days);
    await this.piece("method").selectOption({ label: method });
    await this.says("total", new RegExp(`\\d.*${method}`));
    await this.page.locator("#buy:enabled").waitFor();
  }

  async buy() {
    await this.piece("buy").click();
  }

  /** Rules of WCAG 2.2 AA and good practice that are broken at the moment. */
  async accessible(where) {
    await this.page.evaluate(AXE);
    const { violations } = await this.page.evaluate(() =>
      window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"] }),
    );
    const said = violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html} ${node.failureSummary}`));
    assert.deepEqual(said, [], `accessibility of ${where}`);
  }

  /** Nothing sticks out to the right. */
  async fits() {
    const [content, window_] = await this.page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    assert.ok(content <= window_, `the page is ${content} wide in a window of ${window_}`);
  }

  async picture(directory, name) {
    await this.page.screenshot({ path: join(directory, `${name}.png`), fullPage: true });
  }
}
