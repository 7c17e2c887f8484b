// Everything that can go wrong, in words for the person who reads them.

import { decodeError } from "micro-eth-signer/abi.js";
import { CONTRACT_ERRORS, TOKEN_ERRORS } from "./abi.ts";

/** What went wrong, in a sentence that can be shown as it is. */
export class Failure extends Error {}

/** The person said no, to this step. */
export class Declined extends Failure {
  constructor() {
    super("You declined in your wallet. Nothing was paid.");
  }
}

const SENTENCES: Record<string, string> = {
  PlanNotFound: "This plan does not exist.",
  PlanNotActive: "This plan is not for sale at the moment.",
  SubscriptionNotFound: "This subscription does not exist.",
  SubscriptionAlreadyCancelled: "This subscription was cancelled and cannot be extended.",
  PaymentMethodNotFound: "This way to pay does not exist any more.",
  PaymentMethodNotActive: "This way to pay is not accepted at the moment.",
  PrimaryStablecoinNotSet: "The operator has not set up payments yet.",
  DaysMustBePositive: "Choose at least one day.",
  InsufficientLiquidity: "The market for this token is too thin for a fair price. Pay with another one.",
  PairTradedInThisBlock: "The price of this token moved a moment ago. Wait for a block and try again.",
  SafeERC20FailedOperation: "The token refused the payment.",
  ERC20InsufficientBalance: "Your wallet does not hold enough of the token.",
  ERC20InsufficientAllowance: "The price has risen above what you approved. Look at the new price and try again.",
};

/** The data of a revert, however deep wallets and nodes wrap it. */
export function revertData(error: unknown, depth = 0): string | null {
  if (typeof error === "string") return /^0x(?:[0-9a-fA-F]{2})+$/.test(error) ? error : null;
  if (typeof error !== "object" || error === null || depth > 4) return null;
  const { data, originalError, error: inner, cause } = error as Record<string, unknown>;
  for (const next of [data, originalError, inner, cause]) {
    const found = revertData(next, depth + 1);
    if (found !== null) return found;
  }
  return null;
}

/** A contract's refusal in words; null when there is none in it. */
export function refusal(error: unknown): string | null {
  const data = revertData(error);
  if (data === null) return null;
  try {
    const decoded = decodeError(data, [...CONTRACT_ERRORS, ...TOKEN_ERRORS]);
    if (decoded === undefined) return null;
    return SENTENCES[decoded.name] ?? `The contract refused: ${decoded.message.slice(0, 200)}`;
  } catch {
    return null;
  }
}

const CODES: Record<number, string> = {
  4100: "The wallet does not permit this for the connected account. Connect again.",
  4200: "This wallet cannot do that.",
  4900: "The wallet has no connection. Check it and try again.",
  4901: "The wallet has no connection to this chain. Check it and try again.",
  [-32002]: "Your wallet is waiting for an earlier answer of yours. Open it.",
};

/** Any error as a sentence. */
export function explain(error: unknown): string {
  if (error instanceof Failure) return error.message;
  const said = refusal(error);
  if (said !== null) return said;
  const { code, message } = (typeof error === "object" && error !== null ? error : {}) as Record<string, unknown>;
  const known = typeof code === "number" ? CODES[code] : undefined;
  if (known !== undefined) return known;
  return typeof message === "string" && message !== "" ? `It did not work: ${message.slice(0, 300)}` : "It did not work.";
}

/** Turns a wallet's way of saying no into ours. */
export function asDeclined(error: unknown): unknown {
  return (error as { code?: unknown } | null)?.code === 4001 ? new Declined() : error;
}
