// The part that is written by hand: connections, frames, errors. Connections are kept and used again; one on which
// anything went wrong never is, so that an answer cannot be taken for that of another question.
// @ts-check

import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";

import { timeLimitsS } from "./catalog.js";

/** @typedef {import("./transport.js").Reply} Reply */
/** @typedef {import("./transport.js").Refusal} Refusal */
/** @typedef {import("./transport.js").Params} Params */
/** @typedef {import("./transport.js").CallOptions} CallOptions */
/** @typedef {Reply & Params} AnyReply */

/** Answers longer than this are not read. Larger than the agent's default, which an operator may raise. */
const MAX_ANSWER = 16 << 20;
/** Requests under way at a time on one connection; half of what the agent allows. */
const MAX_PIPELINED = 16;
/** Added to an action's own limit: time in queues of the agent before it starts. */
const QUEUE_ALLOWANCE_MS = 60_000;
/** Pause before connecting again while the agent's queue of new connections is full. */
const RETRY_PAUSE_MS = 10;
/** The longest that a timer of Node takes; more would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Longer paths do not fit into a socket address. */
const SUN_PATH_MAX = 107;
const HEADER = 4;

export class RootAgentError extends Error {
  /** @param {Refusal} response */
  constructor(response) {
    super(response.error);
    this.name = "RootAgentError";
    this.code = response.code;
    this.response = response;
  }
}

export class RootAgentConnectionError extends Error {
  /**
   * @param {string} message
   * @param {boolean} [maybeExecuted]
   */
  constructor(message, maybeExecuted = false) {
    super(message);
    this.name = "RootAgentConnectionError";
    this.maybeExecuted = maybeExecuted;
  }
}

export class RootAgentTimeoutError extends RootAgentConnectionError {
  /**
   * @param {string} message
   * @param {boolean} [maybeExecuted]
   */
  constructor(message, maybeExecuted = false) {
    super(message, maybeExecuted);
    this.name = "RootAgentTimeoutError";
  }
}

/** @param {string} what */
function broken(what) {
  return new RootAgentConnectionError(`the connection to the root agent is broken: ${what}`, true);
}

function defaultSocket() {
  return path.join(process.env["BLOCKHOST_ROOT"] || "/", "run/blockhost/root-agent.sock");
}

/**
 * @param {string} action
 * @param {Params} params
 * @param {string} id
 * @param {boolean} dryRun
 */
function encode(action, params, id, dryRun) {
  const payload = Buffer.from(JSON.stringify({ action, params, id, ...(dryRun ? { dry_run: true } : {}) }), "utf8");
  const frame = Buffer.allocUnsafe(HEADER + payload.length);
  frame.writeUInt32BE(payload.length, 0);
  payload.copy(frame, HEADER);
  return frame;
}

/**
 * The answer to the request of that id. Throws RootAgentError for a refusal without id: it is about the connection, and
 * the last thing that comes.
 *
 * @param {Buffer} payload
 * @param {string} id
 * @returns {AnyReply | Refusal}
 */
function parseAnswer(payload, id) {
  let answer;
  try {
    // ignoreBOM keeps the mark in the text, where it is not JSON.
    answer = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(payload));
  } catch (error) {
    throw broken(`the answer is not valid JSON: ${error instanceof Error ? error.message : error}`);
  }
  if (typeof answer !== "object" || answer === null || Array.isArray(answer)) {
    throw broken("the answer is not a JSON object");
  }
  const fields = answer.ok === true ? ["output"] : ["error", "code"];
  if (typeof answer.ok !== "boolean" || !fields.every((field) => typeof answer[field] === "string")) {
    throw broken(`the answer lacks or misuses one of the fields ok, ${fields.join(", ")}`);
  }
  if (!answer.ok && answer.id === undefined) {
    throw new RootAgentError(answer);
  }
  if (answer.id !== id) {
    throw broken("the answer belongs to another question");
  }
  return answer;
}

/** One open socket. Whoever waits for a frame is told of its end, too. */
class Connection {
  /**
   * @param {string} socketPath
   * @param {net.Socket} socket
   */
  constructor(socketPath, socket) {
    this.socketPath = socketPath;
    this.socket = socket;
    this.nextId = 1;
    /** @type {Buffer[]} */
    this.chunks = [];
    this.buffered = 0;
    /** @type {Error | undefined} */
    this.ended = undefined;
    /** @type {{resolve: (payload: Buffer) => void, reject: (error: Error) => void} | undefined} */
    this.waiting = undefined;
    /** @param {Buffer} chunk */
    const arrived = (chunk) => {
      this.chunks.push(chunk);
      this.buffered += chunk.length;
      this.deliver();
    };
    socket.on("data", arrived);
    socket.on("last-words", arrived);
    socket.on("end", () => this.finish(broken("the agent closed it without an answer")));
    socket.on("error", (error) => this.finish(broken(error.message)));
    socket.on("close", () => this.finish(broken("it was closed")));
  }

  /**
   * @param {string} socketPath
   * @param {AbortSignal} signal
   * @returns {Promise<Connection>}
   */
  static async open(socketPath, signal) {
    for (;;) {
      try {
        return new Connection(socketPath, await connect(socketPath, signal));
      } catch (error) {
        const code = error instanceof Error && "code" in error ? error.code : undefined;
        if (code !== "EAGAIN") {
          if (signal.aborted) throw error;
          const why = error instanceof Error ? error.message : String(error);
          throw new RootAgentConnectionError(
            `cannot reach the root agent at ${socketPath}: ${why}; is blockhost-root-agent running, and are you in group blockhost?`,
          );
        }
        await new Promise((resolve) => setTimeout(resolve, RETRY_PAUSE_MS));
      }
      signal.throwIfAborted();
    }
  }

  /** Open, and nothing has come unasked. */
  get usable() {
    return this.ended === undefined && this.buffered === 0 && !this.socket.destroyed;
  }

  close() {
    this.socket.destroy();
  }

  /** @param {Error} error */
  finish(error) {
    this.ended ??= error;
    this.waiting?.reject(this.ended);
    this.waiting = undefined;
  }

  deliver() {
    if (this.waiting === undefined) return;
    try {
      const payload = this.take();
      if (payload !== undefined) {
        this.waiting.resolve(payload);
        this.waiting = undefined;
      }
    } catch (error) {
      this.finish(/** @type {Error} */ (error));
    }
  }

  /** @returns {Buffer | undefined} */
  take() {
    if (this.buffered < HEADER) return undefined;
    if (/** @type {Buffer} */ (this.chunks[0]).length < HEADER) this.join();
    const length = /** @type {Buffer} */ (this.chunks[0]).readUInt32BE(0);
    if (length === 0) throw broken("it announced an empty answer");
    if (length > MAX_ANSWER) throw broken(`it announced an answer of ${length} bytes, the limit is ${MAX_ANSWER}`);
    if (this.buffered < HEADER + length) return undefined;
    const all = this.join();
    const rest = all.subarray(HEADER + length);
    this.chunks = rest.length > 0 ? [rest] : [];
    this.buffered = rest.length;
    return all.subarray(HEADER, HEADER + length);
  }

  join() {
    const all = this.chunks.length === 1 ? /** @type {Buffer} */ (this.chunks[0]) : Buffer.concat(this.chunks);
    this.chunks = [all];
    return all;
  }

  /** @returns {Promise<Buffer>} */
  frame() {
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.deliver();
      if (this.waiting !== undefined && this.ended !== undefined) this.finish(this.ended);
    });
  }

  /**
   * Sends all requests, then reads as many answers.
   *
   * @param {(readonly [string, Params?])[]} requests
   * @param {boolean} dryRun
   */
  async exchange(requests, dryRun) {
    const first = this.nextId;
    this.nextId += requests.length;
    const frames = requests.map(([action, params], at) => encode(action, params ?? {}, String(first + at), dryRun));
    this.socket.ref();
    this.socket.write(frames.length === 1 ? /** @type {Buffer} */ (frames[0]) : Buffer.concat(frames));
    const answers = [];
    for (let at = 0; at < requests.length; at += 1) {
      answers.push(parseAnswer(await this.frame(), String(first + at)));
    }
    this.socket.unref();
    return answers;
  }
}

/**
 * @param {string} socketPath
 * @param {AbortSignal} signal
 * @returns {Promise<net.Socket>}
 */
function connect(socketPath, signal) {
  return new Promise((resolve, reject) => {
    const { name, release } = shortened(socketPath);
    const socket = withLastWords(new net.Socket());
    socket.connect({ path: name });
    const settle = () => {
      release();
      signal.removeEventListener("abort", abort);
    };
    const abort = () => {
      settle();
      socket.destroy();
      reject(signal.reason);
    };
    signal.addEventListener("abort", abort);
    socket.once("connect", () => {
      settle();
      socket.removeAllListeners("error");
      resolve(socket);
    });
    socket.once("error", (error) => {
      settle();
      reject(error);
    });
  });
}

/**
 * A write that fails ends a socket of Node at once, with what the agent has said before it closed still unread: that
 * the frame is too long, for instance. This one reads that first.
 *
 * @param {net.Socket} socket
 */
function withLastWords(socket) {
  const destroy = socket._destroy;
  socket._destroy = (error, callback) => {
    const { fd } = /** @type {{_handle?: {fd?: number}}} */ (/** @type {unknown} */ (socket))._handle ?? {};
    if (error !== null && typeof fd === "number" && fd >= 0) {
      const chunk = Buffer.alloc(1 << 16);
      try {
        for (let got = fs.readSync(fd, chunk); got > 0; got = fs.readSync(fd, chunk)) {
          socket.emit("last-words", Buffer.from(chunk.subarray(0, got)));
        }
      } catch {
        // Nothing more is there.
      }
    }
    destroy.call(socket, error, callback);
  };
  return socket;
}

/**
 * A path that fits: the directory is opened and named by its descriptor where the whole path is too long.
 *
 * @param {string} socketPath
 */
function shortened(socketPath) {
  if (Buffer.byteLength(socketPath) <= SUN_PATH_MAX) return { name: socketPath, release: () => {} };
  const directory = fs.openSync(path.dirname(socketPath), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  let open = true;
  const release = () => {
    if (open) fs.closeSync(directory);
    open = false;
  };
  return { name: `/proc/self/fd/${directory}/${path.basename(socketPath)}`, release };
}

export class RootAgentClient {
  /** @param {import("./transport.js").ClientOptions} [options] */
  constructor(options = {}) {
    this.#socketPath = options.socketPath;
    this.#timeoutMs = options.timeoutMs;
    this.#free = options.maxConnections ?? 16;
  }

  /** @type {string | undefined} */
  #socketPath;
  /** @type {number | undefined} */
  #timeoutMs;
  /** Calls that may begin now. */
  #free;
  /** @type {(() => void)[]} */
  #queue = [];
  /** @type {Connection[]} */
  #idle = [];

  /**
   * @param {string} action
   * @param {Params} [params]
   * @param {CallOptions} [options]
   * @returns {Promise<AnyReply>}
   */
  async call(action, params = {}, options = {}) {
    const limit = options.timeoutMs ?? this.#timeoutMs ?? timeLimitMs(action) + QUEUE_ALLOWANCE_MS;
    const [answer] = await this.#exchange([[action, params]], options, limit);
    if (answer === undefined || !answer.ok) throw new RootAgentError(/** @type {Refusal} */ (answer));
    return answer;
  }

  /**
   * @param {Iterable<readonly [string, Params?]>} requests
   * @param {CallOptions} [options]
   */
  async callMany(requests, options = {}) {
    const asked = [...requests];
    const together = asked.reduce((sum, [action]) => sum + timeLimitMs(action), QUEUE_ALLOWANCE_MS);
    const limit = options.timeoutMs ?? this.#timeoutMs ?? together;
    const answers = [];
    for (let at = 0; at < asked.length; at += MAX_PIPELINED) {
      answers.push(...(await this.#exchange(asked.slice(at, at + MAX_PIPELINED), options, limit)));
    }
    return answers.map((answer) => (answer.ok ? answer : new RootAgentError(answer)));
  }

  close() {
    for (const connection of this.#idle.splice(0)) connection.close();
  }

  /**
   * @param {(readonly [string, Params?])[]} requests
   * @param {CallOptions} options
   * @param {number} limit
   */
  async #exchange(requests, options, limit) {
    const until = new AbortController();
    const seconds = limit / 1000;
    let asked = false;
    const timer = setTimeout(
      () =>
        until.abort(
          asked
            ? new RootAgentTimeoutError(
                `no answer from the root agent within ${seconds} s; if it began, the ledger has what became of it`,
                true,
              )
            : new RootAgentTimeoutError(`no connection to the root agent became free within ${seconds} s`),
        ),
      Math.min(Math.max(limit, 0), MAX_TIMER_MS),
    );
    const given = options.signal;
    const abort = () => until.abort(given?.reason);
    if (given?.aborted) abort();
    given?.addEventListener("abort", abort);
    try {
      await this.#slot(until.signal);
      /** @type {Connection | undefined} */
      let connection;
      try {
        connection = await this.#connection(until.signal);
        const used = connection;
        // Ends whoever waits for a frame.
        const stop = () => {
          used.finish(until.signal.reason);
          used.close();
        };
        until.signal.throwIfAborted();
        until.signal.addEventListener("abort", stop);
        asked = true;
        try {
          const answers = await connection.exchange(requests, options.dryRun ?? false);
          this.#idle.push(connection);
          return answers;
        } finally {
          until.signal.removeEventListener("abort", stop);
        }
      } catch (error) {
        connection?.close();
        throw error;
      } finally {
        this.#free += 1;
        this.#queue.shift()?.();
      }
    } finally {
      clearTimeout(timer);
      given?.removeEventListener("abort", abort);
    }
  }

  /**
   * Waits until a call may begin, in order of arrival.
   *
   * @param {AbortSignal} signal
   */
  async #slot(signal) {
    while (this.#free === 0) {
      await new Promise((resolve, reject) => {
        const go = () => {
          signal.removeEventListener("abort", leave);
          resolve(undefined);
        };
        const leave = () => {
          this.#queue = this.#queue.filter((waiting) => waiting !== go);
          reject(signal.reason);
        };
        this.#queue.push(go);
        signal.addEventListener("abort", leave, { once: true });
      });
    }
    if (signal.aborted) {
      // Whoever woke this one meant somebody who goes on.
      this.#queue.shift()?.();
      throw signal.reason;
    }
    this.#free -= 1;
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<Connection>}
   */
  async #connection(signal) {
    const socketPath = this.#socketPath ?? defaultSocket();
    // An agent that was restarted, or has closed what was idle for long, is noticed before anything is asked: connecting
    // anew cannot make anything happen twice.
    if (this.#idle.length > 0) await lookAtSockets();
    for (;;) {
      const connection = this.#idle.pop();
      if (connection === undefined) {
        const fresh = await Connection.open(socketPath, signal);
        // An agent with too many connections says so and closes; after a failed write that could not be read any more.
        await lookAtSockets();
        return fresh;
      }
      if (connection.socketPath === socketPath && connection.usable) return connection;
      connection.close();
    }
  }
}

/** Between two of these lies a whole round of the event loop, with what has happened to every socket. */
async function lookAtSockets() {
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
}

/** @param {string} action */
function timeLimitMs(action) {
  const limits = /** @type {Readonly<Record<string, number>>} */ (timeLimitsS);
  const own = Object.hasOwn(limits, action) ? limits[action] : undefined;
  return 1000 * (own ?? Math.max(...Object.values(limits)));
}

const shared = new RootAgentClient();

/**
 * @param {string} action
 * @param {Params} [params]
 * @param {number | CallOptions} [timeoutMs]
 */
export function callRootAgent(action, params, timeoutMs) {
  const options = typeof timeoutMs === "number" ? { timeoutMs } : (timeoutMs ?? {});
  return (options.client ?? shared).call(action, params, options);
}

/**
 * @template {Reply} R
 * @param {string} action
 * @param {Params} params
 * @param {CallOptions} [options]
 * @returns {Promise<R>}
 */
export function invoke(action, params, options = {}) {
  return /** @type {Promise<R>} */ (/** @type {Promise<unknown>} */ ((options.client ?? shared).call(action, params, options)));
}
