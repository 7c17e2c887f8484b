// Asking nodes: our endpoints in order, a wallet's own node as the last. One that is of another chain is not used.

import { Failure, revertData } from "./failure.ts";

/** Longest wait for an answer, in milliseconds. */
const PATIENCE = 15_000;

type Ask = (method: string, params: readonly unknown[]) => Promise<unknown>;

/** What a node says instead of an answer. */
export class NodeError extends Error {
  readonly code: number;
  readonly data: unknown;
  constructor(code: number, message: string, data: unknown) {
    super(message);
    this.code = code;
    this.data = data;
  }
}

interface Endpoint {
  readonly ask: Ask;
  /** Whether it is of the right chain, once that is known. */
  right: boolean;
}

export interface Receipt {
  readonly blockHash: string;
  readonly blockNumber: bigint;
  readonly succeeded: boolean;
  readonly logs: readonly { readonly address: string; readonly topics: readonly string[]; readonly data: string }[];
}

export class Chain {
  readonly #id: number;
  readonly #endpoints: Endpoint[];
  #wallet: Endpoint | null = null;

  constructor(id: number, urls: readonly string[]) {
    this.#id = id;
    this.#endpoints = urls.map((url) => ({ ask: overHttp(url), right: false }));
  }

  /** The node of a connected wallet serves where ours do not answer. */
  useWallet(ask: Ask | null): void {
    this.#wallet = ask && { ask, right: false };
  }

  async ask(method: string, ...params: readonly unknown[]): Promise<unknown> {
    let reason = "";
    for (const endpoint of this.#wallet ? [...this.#endpoints, this.#wallet] : this.#endpoints) {
      try {
        // A wallet changes its chain whenever its owner likes.
        if (!endpoint.right || endpoint === this.#wallet) {
          const id = Number(await endpoint.ask("eth_chainId", []));
          if (id !== this.#id) throw new Error(`it is on chain ${id} instead of ${this.#id}`);
          endpoint.right = true;
        }
        return await endpoint.ask(method, params);
      } catch (error) {
        // The chain's own answer would be the same elsewhere.
        if (revertData(error) !== null || isRevert(error)) throw error;
        reason ||= error instanceof Error ? error.message : String(error);
      }
    }
    throw new Failure(`No node of the chain gives an answer (${reason.slice(0, 200)}). Check your connection and try again.`);
  }

  async call(to: string, data: string, from?: string, block = "latest"): Promise<string> {
    return String(await this.ask("eth_call", from === undefined ? { to, data } : { from, to, data }, block));
  }

  async height(): Promise<bigint> {
    return BigInt(String(await this.ask("eth_blockNumber")));
  }

  /** What the chain's clock says, in seconds. Local clocks are wrong too often to say what has expired. */
  async time(): Promise<number> {
    const block = (await this.ask("eth_getBlockByNumber", "latest", false)) as { timestamp: string };
    return Number(block.timestamp);
  }

  async gasBalance(account: string): Promise<bigint> {
    return BigInt(String(await this.ask("eth_getBalance", account, "latest")));
  }

  async minedTransactions(account: string): Promise<bigint> {
    return BigInt(String(await this.ask("eth_getTransactionCount", account, "latest")));
  }

  /** The number that the account gave to the transaction, or null when no node knows it. */
  async nonce(hash: string): Promise<bigint | null> {
    const transaction = (await this.ask("eth_getTransactionByHash", hash)) as { nonce: string } | null;
    return transaction && BigInt(transaction.nonce);
  }

  async receipt(hash: string): Promise<Receipt | null> {
    const receipt = (await this.ask("eth_getTransactionReceipt", hash)) as
      | (Pick<Receipt, "blockHash" | "logs"> & { blockNumber: string | null; status: string })
      | null;
    if (receipt === null || receipt.blockNumber === null) return null;
    return {
      blockHash: receipt.blockHash,
      blockNumber: BigInt(receipt.blockNumber),
      succeeded: BigInt(receipt.status) === 1n,
      logs: receipt.logs,
    };
  }
}

function isRevert(error: unknown): boolean {
  return error instanceof NodeError && (error.code === 3 || /revert/i.test(error.message));
}

function overHttp(url: string): Ask {
  let id = 0;
  return async (method, params) => {
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ jsonrpc: "2.0", id: ++id, method, params }),
      credentials: "omit",
      referrerPolicy: "no-referrer",
      redirect: "error",
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
    });
    const answer = (await response.json()) as { result?: unknown; error?: { code: number; message: string; data?: unknown } };
    if (answer.error) throw new NodeError(answer.error.code, answer.error.message, answer.error.data);
    if (answer.result === undefined) throw new Error(`the node answers ${response.status} without a result`);
    return answer.result;
  };
}
