// The page's pure parts, each as bundled for the page: bytes against the vectors of other implementations, words, verdicts.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { webcrypto } from "node:crypto";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

globalThis.crypto ??= webcrypto;

async function load(name) {
  const entry = fileURLToPath(new URL(`../src/${name}.ts`, import.meta.url));
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, write: false, format: "esm", logLevel: "error" });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`);
}
const [secrets, text, transaction, failure] = await Promise.all(["secrets", "text", "transaction", "failure"].map(load));
const vectors = JSON.parse(readFileSync(new URL("../../src/crypto/vectors.json", import.meta.url), "utf8"));
const bytes = (hex) => Uint8Array.from(Buffer.from(hex.replace(/^0x/, ""), "hex"));

test("what is sealed to the server has the bytes of other implementations", () => {
  const { public_key, ephemeral_private_key, iv, plaintext, ciphertext } = vectors.ecies;
  const sealed = secrets.sealToServer(public_key, plaintext, bytes(ephemeral_private_key), bytes(iv));
  assert.equal(`0x${Buffer.from(sealed).toString("hex")}`, ciphertext);
});

test("access details of other implementations open, and a changed bit is noticed", () => {
  const { signature, plaintext, ciphertext } = vectors.buyer;
  assert.deepEqual(secrets.openDetails(signature, bytes(ciphertext)), JSON.parse(plaintext));
  const damaged = bytes(ciphertext);
  for (let n = 0; n < damaged.length; n++) {
    damaged[n] ^= 1;
    assert.throws(() => secrets.openDetails(signature, damaged), /do not open/);
    damaged[n] ^= 1;
  }
});

test("a key that is no point of the curve is refused", () => {
  assert.throws(() => secrets.sealToServer(`04${"11".repeat(64)}`, "x"));
});

test("only what a shell and ssh take as it stands becomes a command", () => {
  const access = (changed) => ({ hostname: "h.example", port: 22, username: "admin", ...changed });
  for (const [changed, command] of [
    [{}, "ssh admin@h.example"],
    [{ port: 2222, hostname: "192.0.2.1" }, "ssh -p 2222 admin@192.0.2.1"],
    [{ hostname: "2001:db8::1" }, "ssh admin@2001:db8::1"],
    [{ hostname: "::1" }, "ssh admin@::1"],
  ]) {
    assert.equal(secrets.sshCommand(access(changed)), command);
  }
  for (const hostname of ["-oProxyCommand=x", "", "a b", "a;b", "$(x)", "a`b", "a\nb", "h\u202e", "ä", "a/b", ".", "a:b:c;d"]) {
    assert.equal(secrets.sshCommand(access({ hostname })), null, hostname);
  }
  for (const username of ["-l", "", "a b", "a@b", "root;x", "ü"]) assert.equal(secrets.sshCommand(access({ username })), null, username);
  for (const port of [0, -1, 1.5, 65_536, Number.NaN]) assert.equal(secrets.sshCommand(access({ port })), null, String(port));
});

test("foreign text loses what hides or turns other text", () => {
  assert.equal(text.tidy("\u202eevil\u0000\n  name\u200b ", 60), "evil name");
  assert.equal(text.tidy("x".repeat(99), 10), `${"x".repeat(9)}…`);
  assert.equal(text.tidy("😀😀😀", 2), "😀…");
});

test("amounts keep every digit that counts", () => {
  for (const [units, decimals, said] of [
    [15_000_000n, 6, "15"],
    [3_500_000n, 6, "3.50"],
    [1n, 6, "0.000001"],
    [1_234_567_890n, 6, "1,234.56789"],
    [7n, 0, "7"],
    [15n, 1, "1.5"],
    [0n, 18, "0"],
  ]) {
    assert.equal(text.amount(units, decimals), said);
  }
  assert.equal(text.roughly(1n, 18), "0.000001", "rounded up, never to nothing");
  assert.equal(text.dollars(123_456n), "$1,234.56");
  assert.equal(text.size({ cores: 1, memory_mb: 1024, disk_gb: 10 }), "1 CPU, 1 GB memory, 10 GB disk");
  assert.equal(text.size({ cores: 16, memory_mb: 1536, disk_gb: 2 }), "16 CPUs, 1536 MB memory, 2 GB disk");
  assert.equal(text.moment(2n ** 255n), "the far future");
});

test("a look at the chain is believed only as far as it goes", () => {
  const receipt = { blockHash: "0x1", blockNumber: 10n, succeeded: true, logs: [] };
  const sent = { state: "sent" };
  const mined = { state: "mined", confirmations: 0, needed: 2 };
  const look = (changed) => ({ receipt: null, height: 10n, mined: 0n, nonce: 5n, ...changed });
  for (const [changed, before, verdict] of [
    [{}, sent, "sent"],
    [{ receipt }, sent, "mined"],
    [{ receipt, height: 11n }, mined, "mined"],
    [{ receipt, height: 12n }, mined, "settled"],
    [{ receipt, height: 9n }, sent, "mined"], // two nodes behind one name
    [{ height: 9n }, mined, "thrown-back"],
    [{}, { state: "thrown-back" }, "thrown-back"],
    [{ mined: 5n }, sent, "sent"],
    [{ mined: 6n }, sent, "replaced"],
    [{ mined: 6n }, mined, "replaced"],
    [{ mined: 6n, nonce: null }, sent, "sent"],
  ]) {
    assert.equal(transaction.judge(look(changed), before, 2).state, verdict);
  }
});

test("a refusal is found however deep it is wrapped, and everything else is a sentence too", () => {
  const data = "0x2c7f9dc7";
  const { revertData, explain } = failure;
  for (const error of [{ data }, { data: { data } }, { data: { originalError: { data } } }, { cause: { error: { data } } }]) {
    assert.equal(revertData(error), data);
  }
  const loop = {};
  loop.cause = loop;
  assert.equal(revertData(loop), null);
  assert.match(explain({ code: -32002 }), /waiting for an earlier answer/);
  assert.match(explain({ message: "x".repeat(5000) }), /^It did not work: x{300}$/);
  assert.match(explain({ data: "0x1a7b234a" }), /moved a moment ago/, "PairTradedInThisBlock()");
  assert.equal(explain(null), "It did not work.");
  assert.match(explain({ data: `0x08c379a0${"0".repeat(10)}` }), /It did not work/, "cut off inside");
});
