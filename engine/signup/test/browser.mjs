// The signup page in a real browser, against a real chain with the real contracts. Started by tests/tests/signup.rs:
//   node browser.mjs WORLD.json
// The file names the page, the chain, the contracts and the keys. The last line of the output is a JSON object for the
// caller: the purchase, to be decrypted with the engine's own code.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { Contract, Node, Signer } from "./chain.mjs";
import { scenarios as buying } from "./buying.mjs";
import { scenarios as looking } from "./looking.mjs";
import { scenarios as owning } from "./owning.mjs";

const world = JSON.parse(readFileSync(process.argv[2], "utf8"));
const only = process.argv[3];
const node = new Node(world.rpc);
const operator = new Signer(node, world.operator_key);
const contracts = {
  pos: new Contract(node, "BlockhostSubscriptions", world.subscriptions),
  nft: new Contract(node, "AccessCredentialNFT", world.nft),
  usd: new Contract(node, "MockUSD", world.stablecoin),
};
/** Turns what is right of it around, and what a careless page would execute. */
export const HOSTILE = "\u202e<img src=x onerror=alert(1)>\u0000<script>alert(2)</script>";

async function prepare() {
  const { pos } = contracts;
  const plan = (name, pricePerDayUsdCents) => operator.done(pos.tx("createPlan", { name, pricePerDayUsdCents }));
  await plan("Small", 50n);
  await plan(HOSTILE, 123_456n);
  await plan("Withdrawn", 10n);
  await operator.done(pos.tx("updatePlan", { planId: 3n, name: "Withdrawn", pricePerDayUsdCents: 10n, active: false }));
  await plan("Large, with a name that goes on and on until it has to be cut off somewhere", 250n);
  const coin = await operator.deploy("MockUSD", { name: "Coin", symbol: "COIN", decimals_: 18n });
  const pair = await operator.deploy("MockPair", { first: coin, second: world.stablecoin });
  contracts.coin = new Contract(node, "MockUSD", coin);
  contracts.pair = new Contract(node, "MockPair", pair);
  // One coin is worth 2 dollars.
  await operator.done(contracts.pair.tx("setReserves", { first: 50_000n * 10n ** 18n, second: 100_000n * 10n ** 6n }));
  await operator.done(pos.tx("addPaymentMethod", { token: coin, pair, stablecoin: world.stablecoin }));
}

const browser = await chromium.launch({
  executablePath: world.chromium,
  // Tests run as root, in namespaces of their own.
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
});
try {
  await prepare();
  const test = { world, node, operator, browser, hostile: HOSTILE, ...contracts };
  const result = {};
  for (const [name, run] of Object.entries({ ...looking, ...buying, ...owning })) {
    if (only && !name.includes(only)) continue;
    const begun = Date.now();
    try {
      Object.assign(result, await run(test));
    } catch (error) {
      console.error(`FAILED: ${name}`);
      throw error;
    }
    console.log(`ok: ${name} (${Date.now() - begun} ms)`);
  }
  assert.ok(only || result.userEncrypted, "a purchase was made");
  console.log(JSON.stringify(result));
} finally {
  await browser.close();
}
