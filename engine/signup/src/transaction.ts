// What becomes of a transaction that was sent: mined, buried under enough blocks, thrown back by a reorganisation, or
// replaced. Nothing is believed that was not seen in the latest look.

import type { Chain, Receipt } from "./chain.ts";
import { Failure } from "./failure.ts";

export type Progress =
  | { readonly state: "sent" }
  | { readonly state: "mined"; readonly confirmations: number; readonly needed: number }
  | { readonly state: "thrown-back" };

/** One look at the chain. */
export interface Look {
  readonly receipt: Receipt | null;
  readonly height: bigint;
  /** Transactions of the account that are mined; the transaction has the number `nonce`. */
  readonly mined: bigint;
  readonly nonce: bigint | null;
}

export type Verdict = Progress | { readonly state: "settled"; readonly receipt: Receipt } | { readonly state: "replaced" };

/** What a look means, after what was said before. */
export function judge(look: Look, before: Progress, needed: number): Verdict {
  const { receipt } = look;
  if (receipt !== null) {
    const above = look.height >= receipt.blockNumber ? Number(look.height - receipt.blockNumber) : 0;
    if (above >= needed) return { state: "settled", receipt };
    return { state: "mined", confirmations: above, needed };
  }
  if (look.nonce !== null && look.mined > look.nonce) return { state: "replaced" };
  return before.state === "sent" ? before : { state: "thrown-back" };
}

/** Nodes behind one name are not always at the same block: several looks in a row have to say that it was replaced. */
const SURE = 4;
/** After so long without being mined, in milliseconds, the visitor is told and may leave. */
const PATIENCE = 20 * 60_000;
const SLOWEST = 4000;

/**
 * Waits until `needed` blocks are on top of the transaction and gives its receipt, whether it succeeded or not.
 * `patience` is in milliseconds.
 */
export async function settle(
  chain: Chain,
  account: string,
  hash: string,
  needed: number,
  report: (progress: Progress) => void,
  patience = PATIENCE,
): Promise<Receipt> {
  const end = Date.now() + patience;
  let progress: Progress = { state: "sent" };
  let nonce: bigint | null = null;
  let replaced = 0;
  let pause = 500;
  report(progress);
  while (Date.now() < end) {
    // A node that does not answer for a while says nothing about the transaction.
    const look: Look | null = await observe(chain, account, hash, nonce).catch(() => null);
    if (look !== null) {
      nonce = look.nonce;
      const verdict = judge(look, progress, needed);
      if (verdict.state === "settled") return verdict.receipt;
      replaced = verdict.state === "replaced" ? replaced + 1 : 0;
      if (replaced >= SURE) {
        throw new Failure("This transaction was replaced or cancelled in your wallet. Look at “My machines” before you try again.");
      }
      if (verdict.state !== "replaced") report((progress = verdict));
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 1.3, SLOWEST);
  }
  throw new Failure(
    "The transaction is still not mined. It may go through later: look at your wallet, and at “My machines” before you try again.",
  );
}

async function observe(chain: Chain, account: string, hash: string, known: bigint | null): Promise<Look> {
  const [receipt, height] = await Promise.all([chain.receipt(hash), chain.height()]);
  if (receipt !== null) return { receipt, height, mined: 0n, nonce: known };
  const nonce = known ?? (await chain.nonce(hash));
  return { receipt, height, mined: nonce === null ? 0n : await chain.minedTransactions(account), nonce };
}
