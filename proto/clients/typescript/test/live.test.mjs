// The client against a live agent, whose `qm` is a script that fails on purpose. Started by tests/tests/clients.rs in a
// world of its own, as root.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { test } from "node:test";

import * as client from "../dist/index.js";

const { RootAgentClient, RootAgentConnectionError, RootAgentError, callRootAgent } = client;
const catalog = JSON.parse(fs.readFileSync(process.env.BLOCKHOST_CATALOG, "utf8")).actions;
const camel = (name) => name.replace(/[-_]([a-z0-9])/g, (_, letter) => letter.toUpperCase());
const nested = (depth) => (depth === 0 ? 1 : [nested(depth - 1)]);

async function refused(code, call) {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof RootAgentError, String(error));
    assert.equal(error.code, code, error.message);
    return error.message.length > 0;
  });
}

test("every code reaches the caller as it is", async () => {
  await refused("unknown_action", callRootAgent("qm-reboot-the-world"));
  await refused("bad_params", callRootAgent("qm-start", { vmid: "100" }));
  await refused("bad_params", client.qmStart(99));
  await refused("bad_params", client.qmStart(1e9));
  await refused("bad_json", callRootAgent("ledger-append", { category: "a", action: "b", data: { x: nested(20) } }));
  await refused("bad_frame", callRootAgent("ledger-append", { data: { x: "y".repeat(1 << 20) } }));
  await refused("forbidden", client.ip6RouteAdd("fd00::1/128", "lo"));
  await refused("not_found", client.qmStart(201));
  await refused("conflict", client.qmStart(202));
  await refused("busy", client.qmStart(203));
  await refused("timeout", client.qmStart(204));
  await refused("failed", client.qmStart(205));
});

test("answers have the fields that their types promise", async () => {
  const wallet = await client.generateWallet("test-node");
  assert.match(wallet.address, /^0x[0-9A-Fa-f]{40}$/);
  assert.ok(wallet.keyfile.endsWith("/test-node.key"));
  assert.match(wallet.receipt.leaf, /^[0-9a-f]{64}$/);
  await refused("conflict", client.generateWallet("test-node"));
  const shell = await client.qmGuestExec(100, "true");
  assert.deepEqual([shell.exitcode, shell.stdout], [3, "hello\n"]);
  const info = await client.agentInfo();
  assert.ok(info.counters.requests > 0 && info.ledger.size > 0);
});

test("a firewall port is opened and closed by the arguments in their known order", async () => {
  await client.iptablesOpen(8443, "tcp", "node-test", "192.0.2.0/24");
  const rules = () => execFileSync("iptables-save", { encoding: "utf8" });
  assert.match(rules(), /192\.0\.2\.0\/24.*dport 8443.*node-test|node-test.*8443/);
  await client.iptablesClose(8443, "tcp", "node-test", "192.0.2.0/24");
  assert.doesNotMatch(rules(), /node-test/);
});

test("text in every script comes and goes unchanged, long output says when it is cut", async () => {
  assert.equal(JSON.parse((await client.qmConfig(100)).output).description, "grüße 💾");
  await client.ledgerAppend("test", "noted", { text: 'grüße 💾 "\\\n' });
  const whole = await client.qmConfig(208);
  assert.equal(JSON.parse(whole.output).description.length, 20_000);
  assert.equal(whole.truncated, undefined);
  assert.equal((await client.qmConfig(209)).truncated, true);
});

test("every example of the catalog passes validation", async () => {
  const wrong = [];
  const forbidden = [];
  for (const action of catalog) {
    const given = action.param_order.map((name) => action.example[name]);
    try {
      const reply = await client[camel(action.name)](...given, { dryRun: true });
      if (reply.receipt !== undefined || reply.output === "") wrong.push([action.name, reply]);
    } catch (error) {
      if (error instanceof RootAgentError && error.code === "forbidden") forbidden.push(action.name);
      else wrong.push([action.name, String(error)]);
    }
  }
  assert.deepEqual(wrong, []);
  assert.ok(forbidden.length < catalog.length / 2, String(forbidden));
});

test("fifty calls at once change the host, a pipeline changes it back", async () => {
  const addresses = Array.from({ length: 50 }, (_, number) => `fd77:b10c::d:${(number + 1).toString(16)}`);
  await Promise.all(addresses.map((address) => client.ip6RouteAdd(`${address}/128`, "vmbr0")));
  const routes = execFileSync("ip", ["-6", "route"], { encoding: "utf8" });
  for (const address of addresses) assert.ok(routes.includes(`${address} dev vmbr0`), address);
  const one = new RootAgentClient();
  const removal = (address) => ["ip6-route-del", { address: `${address}/128`, dev: "vmbr0" }];
  const answers = await one.callMany([...addresses, ...addresses].map(removal));
  const codes = answers.map((answer) => (answer instanceof RootAgentError ? answer.code : "ok"));
  assert.deepEqual(codes, [...Array(50).fill("ok"), ...Array(50).fill("not_found")]);
});

test("giving up early says that it may have happened", async () => {
  await assert.rejects(callRootAgent("qm-start", { vmid: 207 }, 100), (error) => {
    assert.ok(error instanceof RootAgentConnectionError);
    return error.maybeExecuted;
  });
});
