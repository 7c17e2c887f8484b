// The part that is written by hand: connections, frames, errors. The functions per action are in actions.d.ts.

import type { ActionName, ErrorCode } from "./catalog.js";

/** Where the ledger holds what happened. */
export interface Receipt {
  /** Leaf index, from 0. */
  index: number;
  /** Leaf hash of RFC 6962, 64 hex digits. */
  leaf: string;
}

/** A success. Fields of the action come beside these; after a dry run they are missing. */
export interface Reply {
  ok: true;
  /** Text for people, or JSON where the action says so. */
  output: string;
  id?: string;
  receipt?: Receipt;
  /** The output was too long for one answer and is cut. */
  truncated?: boolean;
}

/** The answer of an agent that said no, or tried and failed. */
export interface Refusal {
  ok: false;
  /** One sentence. */
  error: string;
  code: ErrorCode;
  id?: string;
  receipt?: Receipt;
  truncated?: boolean;
}

/** Parameters of an action by name. One that is `undefined` is left out. */
export type Params = Readonly<Record<string, unknown>>;

export interface CallOptions {
  /** How long to wait for the answer, in milliseconds. Without it what the action may take, and a minute for queues. */
  timeoutMs?: number;
  /** Have it checked and authorised, and not done. */
  dryRun?: boolean;
  /** Gives up when it fires; whether the action happened is then in the ledger. */
  signal?: AbortSignal;
  /** The client to use instead of the one that all calls share. */
  client?: RootAgentClient;
}

export interface ClientOptions {
  /** The agent's socket; without it that of this host, or of the world in `BLOCKHOST_ROOT`. */
  socketPath?: string;
  /** How long to wait for an answer, in milliseconds, where a call does not say. */
  timeoutMs?: number;
  /** Calls under way at a time; more wait for one to end. Without it 16. */
  maxConnections?: number;
}

/** The agent said no, or tried and failed. */
export class RootAgentError extends Error {
  constructor(response: Refusal);
  readonly code: ErrorCode;
  /** The whole answer. */
  readonly response: Refusal;
}

/** The agent could not be reached, the connection broke, or what came is not this protocol. */
export class RootAgentConnectionError extends Error {
  constructor(message: string, maybeExecuted?: boolean);
  /** The request may have reached the agent: the ledger tells what happened. */
  readonly maybeExecuted: boolean;
}

/** No answer in time. */
export class RootAgentTimeoutError extends RootAgentConnectionError {}

/** Keeps connections and uses them again. None of them keeps the process from ending. */
export class RootAgentClient {
  constructor(options?: ClientOptions);

  /**
   * Asks for an action and waits for its answer.
   *
   * @throws RootAgentError the agent refused it, or tried and failed.
   * @throws RootAgentConnectionError there was no answer.
   */
  call(action: ActionName | (string & {}), params?: Params, options?: CallOptions): Promise<Reply & Params>;

  /**
   * Asks for many actions over one connection without waiting in between; answers come in the same order. A refusal
   * stands in the list as the error it is; when the connection breaks, all is rejected.
   */
  callMany(
    requests: Iterable<readonly [action: ActionName | (string & {}), params?: Params]>,
    options?: CallOptions,
  ): Promise<((Reply & Params) | RootAgentError)[]>;

  /** Closes idle connections. The client can be used on; it then connects anew. */
  close(): void;
}

/** Asks for an action by name. The last argument is the time limit in milliseconds, or more than that. */
export function callRootAgent(
  action: ActionName | (string & {}),
  params?: Params,
  timeoutMs?: number | CallOptions,
): Promise<Reply & Params>;

/** For the functions per action. */
export function invoke<R extends Reply>(action: ActionName, params: Params, options?: CallOptions): Promise<R>;
