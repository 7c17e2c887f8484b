// The other side of the chain for the browser test: a client of anvil, the operator with the deployer's key, and the
// contracts by their compiled ABI. Shares no code with the page.
import { readFileSync } from "node:fs";
import { webcrypto } from "node:crypto";
import { bytesToHex, hexToBytes } from "@noble/hashes/utils.js";
import { addr, Transaction } from "micro-eth-signer";
import { createContract, deployContract, events } from "micro-eth-signer/abi.js";

globalThis.crypto ??= webcrypto;

const artifact = (name) =>
  JSON.parse(readFileSync(new URL(`../../contracts/artifacts/${name}.json`, import.meta.url), "utf8"));
const hex = (bytes) => `0x${bytesToHex(bytes)}`;

export class Node {
  constructor(url) {
    this.url = url;
  }

  async ask(method, ...params) {
    const response = await fetch(this.url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
    });
    const { result, error } = await response.json();
    if (error) throw Object.assign(new Error(error.message), error);
    return result;
  }

  async nonce(account) {
    return BigInt(await this.ask("eth_getTransactionCount", account, "pending"));
  }
}

/** Somebody with a key. */
export class Signer {
  constructor(node, key) {
    this.node = node;
    this.key = key;
    this.address = addr.fromPrivateKey(key);
  }

  /** Signs a transaction; gas and fees are more than enough, so that what reverts is mined too. */
  async signed({ to, data, nonce, tip = 1n, chainId = 31337n }) {
    const transaction = Transaction.prepare({
      chainId,
      to: to ?? "0x",
      data,
      nonce: nonce ?? (await this.node.nonce(this.address)),
      value: 0n,
      gasLimit: to === undefined ? 6_000_000n : 1_000_000n,
      maxFeePerGas: (20n + 20n * tip) * 1_000_000_000n,
      maxPriorityFeePerGas: tip * 1_000_000_000n,
    });
    return transaction.signBy(this.key, false).toHex(true);
  }

  async send(request) {
    return this.node.ask("eth_sendRawTransaction", await this.signed(request));
  }

  /** Sends and expects success. */
  async done(request) {
    const hash = await this.send(request);
    let receipt = null;
    for (let look = 0; receipt === null && look < 500; look++) {
      if (look > 0) await new Promise((resolve) => setTimeout(resolve, 20));
      receipt = await this.node.ask("eth_getTransactionReceipt", hash);
    }
    if (receipt?.status !== "0x1") throw new Error(`${hash} is ${receipt === null ? "not mined" : "reverted"}`);
    return receipt;
  }

  async deploy(name, args) {
    const { abi, bytecode } = artifact(name);
    const data = deployContract(abi, bytecode, args);
    const { contractAddress } = await this.done({ data: data.startsWith("0x") ? data : `0x${data}` });
    return contractAddress;
  }
}

/** A contract at an address: `tx` gives a transaction, `read` asks. */
export class Contract {
  constructor(node, name, address) {
    this.node = node;
    this.address = address;
    this.methods = createContract(artifact(name).abi);
  }

  tx(method, args) {
    return { to: this.address, data: hex(this.methods[method].encodeInput(args)) };
  }

  async read(method, args) {
    const { to, data } = this.tx(method, args);
    return this.methods[method].decodeOutput(hexToBytes((await this.node.ask("eth_call", { to, data }, "latest")).slice(2)));
  }
}

/** The newest purchase, as the engine would see it. */
export async function lastPurchase(node, subscriptions) {
  const created = events(artifact("BlockhostSubscriptions").abi.filter(({ type }) => type === "event")).SubscriptionCreated;
  const [topic] = created.topics({
    subscriptionId: null,
    planId: null,
    subscriber: null,
    expiresAt: null,
    paidAmount: null,
    paymentToken: null,
    userEncrypted: null,
  });
  const logs = await node.ask("eth_getLogs", { address: subscriptions, fromBlock: "0x0", topics: [topic] });
  const { topics, data } = logs.at(-1);
  const { userEncrypted, ...rest } = created.decode(topics, data);
  return { ...rest, userEncrypted: hex(userEncrypted), count: logs.length };
}
