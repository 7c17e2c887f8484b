// Servers that break every rule. Needs no agent.

import assert from "node:assert/strict";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { test } from "node:test";

import * as client from "../dist/index.js";
import { frame, polite, success, withAgent } from "./fake.mjs";

const { RootAgentClient, RootAgentConnectionError, RootAgentError, RootAgentTimeoutError } = client;
const MIB = 1 << 20;
const catalog = JSON.parse(fs.readFileSync(process.env.BLOCKHOST_CATALOG, "utf8")).actions;
const camel = (name) => name.replace(/[-_]([a-z0-9])/g, (_, letter) => letter.toUpperCase());

async function assertBroken(answer, words) {
  await withAgent(answer, async (agent) => {
    const one = new RootAgentClient({ socketPath: agent.path, timeoutMs: 20_000 });
    const broken = (error) => {
      assert.ok(error instanceof RootAgentConnectionError, String(error));
      assert.match(error.message, words);
      assert.equal(error.maybeExecuted, true);
      return true;
    };
    await assert.rejects(one.call("qm-list"), broken);
    // Whatever came, this connection is not used again.
    await assert.rejects(one.call("qm-list"), RootAgentConnectionError);
    assert.equal(agent.connections, 2);
  });
}

test("an impossible length breaks the connection", async () => {
  for (const length of [0, 16 * MIB + 1, 0x7fffffff, 0xffffffff]) {
    const header = Buffer.alloc(4);
    header.writeUInt32BE(length);
    await assertBroken((_, talk) => talk.send(header), /announced/);
  }
});

test("an answer that ends early is no answer", async () => {
  for (const data of ["", "\0\0", "\0\0\0\x10{", "\0\0\x01\0"]) {
    await assertBroken((_, talk) => (talk.send(data), talk.end()), /closed it without an answer/);
  }
});

test("what is not a JSON object is no answer", async () => {
  const good = '{"ok":true,"output":"","id":"1"}';
  const deep = `{"ok":true,"output":"","id":"1","x":${"[".repeat(200_000)}`;
  for (const payload of ["x", "[]", "null", "true", '"ok"', "{}{}", `${good} x`, `\ufeff${good}`, deep, "NaN"]) {
    await assertBroken((_, talk) => talk.send(frame(payload)), /not valid JSON|not a JSON object/);
  }
  const latin = Buffer.concat([Buffer.from('{"ok":true,"output":"'), Buffer.from([0xff]), Buffer.from('","id":"1"}')]);
  await assertBroken((_, talk) => talk.send(frame(latin)), /not valid JSON/);
});

test("an answer of the wrong shape is no answer", async () => {
  for (const payload of [
    "{}",
    '{"ok":1,"output":"","id":"1"}',
    '{"ok":"true","output":"","id":"1"}',
    '{"ok":true,"id":"1"}',
    '{"ok":true,"output":null,"id":"1"}',
    '{"ok":false,"error":"x","id":"1"}',
    '{"ok":false,"error":["x"],"code":"busy","id":"1"}',
    '{"ok":false,"error":"x","code":7,"id":"1"}',
    '{"__proto__":{"ok":true,"output":"","id":"1"}}',
  ]) {
    await assertBroken((_, talk) => talk.send(frame(payload)), /lacks or misuses/);
  }
});

test("an answer to another question is not taken", async () => {
  for (const mark of ['"2"', '""', "1", "null"]) {
    const payload = `{"ok":true,"output":"","id":${mark}}`;
    await assertBroken((_, talk) => talk.send(frame(payload)), /another question/);
  }
  await assertBroken((_, talk) => talk.send(frame('{"ok":true,"output":""}')), /another question/);
});

test("an answer that nobody asked for is never taken for the next", async () => {
  const answer = (request, talk) => {
    talk.send(success(request, { output: `connection ${talk.number}` }));
    talk.send(frame('{"ok":true,"output":"forged","id":"2"}'));
  };
  await withAgent(answer, async (agent) => {
    const one = new RootAgentClient({ socketPath: agent.path, timeoutMs: 20_000 });
    for (const number of [0, 1, 2]) {
      assert.equal((await one.call("qm-list")).output, `connection ${number}`);
    }
  });
});

test("a late answer is never taken for the next", async () => {
  let late = () => {};
  const answer = (request, talk) => {
    const say = () => talk.send(success(request, { output: `connection ${talk.number}` }));
    if (talk.number === 0) late = say;
    else say();
  };
  await withAgent(answer, async (agent) => {
    const one = new RootAgentClient({ socketPath: agent.path });
    await assert.rejects(one.call("qm-list", {}, { timeoutMs: 200 }), RootAgentTimeoutError);
    late();
    assert.equal((await one.call("qm-list")).output, "connection 1");
  });
});

test("an answer in single bytes is whole in the end", async () => {
  const answer = async (request, talk) => {
    for (const byte of success(request, { output: "grüße 💾" })) {
      talk.send(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await withAgent(answer, async (agent) => {
    const one = new RootAgentClient({ socketPath: agent.path, timeoutMs: 20_000 });
    assert.equal((await one.call("qm-list")).output, "grüße 💾");
  });
});

test("the largest answer that is read arrives whole, and a large request too", async () => {
  const answer = (request, talk) => {
    const empty = success(request).length - 4;
    talk.send(success(request, { output: "x".repeat(16 * MIB - empty) }));
  };
  await withAgent(answer, async (agent) => {
    const one = new RootAgentClient({ socketPath: agent.path, timeoutMs: 60_000 });
    const text = "ü".repeat(4 * MIB);
    assert.ok((await one.call("qm-list", { text })).output.length > 16 * MIB - 100);
    assert.equal(agent.requests[0].params.text, text);
  });
});

test("a refusal is an error with code, message and answer, and the connection stays good", async () => {
  const refuse = (request, talk) =>
    talk.send(frame(JSON.stringify({ ok: false, error: "there is no VM 100", code: "not_found", id: request.id })));
  await withAgent(refuse, async (agent) => {
    const one = new RootAgentClient({ socketPath: agent.path, timeoutMs: 20_000 });
    for (let round = 0; round < 2; round += 1) {
      await assert.rejects(one.call("qm-start", { vmid: 100 }), (error) => {
        assert.ok(error instanceof RootAgentError);
        assert.equal(error.code, "not_found");
        assert.equal(error.message, "there is no VM 100");
        assert.equal(error.response.ok, false);
        return true;
      });
    }
    assert.equal(agent.connections, 1);
  });
});

test("last words about the connection are heard, and it is not used again", async () => {
  const said = frame('{"ok":false,"error":"too many connections","code":"busy"}');
  await withAgent(
    () => {},
    async (agent) => {
      const one = new RootAgentClient({ socketPath: agent.path, timeoutMs: 20_000 });
      for (let round = 1; round <= 5; round += 1) {
        await assert.rejects(one.call("qm-list"), (error) => error instanceof RootAgentError && error.code === "busy");
        assert.equal(agent.connections, round);
      }
    },
    (talk) => (talk.send(said), talk.end()),
  );
});

test("what the agent says while a large request is still being sent is heard", async () => {
  const said = frame('{"ok":false,"error":"frame too long","code":"bad_frame"}');
  await withAgent(
    () => {},
    async (agent) => {
      const one = new RootAgentClient({ socketPath: agent.path, timeoutMs: 20_000 });
      for (let round = 0; round < 20; round += 1) {
        const call = one.call("qm-list", { text: "x".repeat(4 * MIB) });
        await assert.rejects(call, (error) => error instanceof RootAgentError && error.code === "bad_frame");
      }
    },
    ({ socket }) => socket.once("data", () => socket.pause().write(said, () => socket.destroy())),
  );
});

test("a stalled agent is given up on, and its caller may give up before", async () => {
  for (const answer of [() => {}, (_, talk) => talk.send(Buffer.from("\0\0\0\x20{"))]) {
    await withAgent(answer, async (agent) => {
      const one = new RootAgentClient({ socketPath: agent.path });
      await assert.rejects(one.call("qm-list", {}, { timeoutMs: 200 }), (error) => {
        assert.ok(error instanceof RootAgentTimeoutError && error instanceof RootAgentConnectionError);
        assert.match(error.message, /if it began, the ledger has/);
        return error.maybeExecuted;
      });
      const until = new AbortController();
      const call = one.call("qm-list", {}, { signal: until.signal });
      setImmediate(() => until.abort());
      await assert.rejects(call, { name: "AbortError" });
      await assert.rejects(one.call("qm-list", {}, { signal: AbortSignal.abort() }), { name: "AbortError" });
    });
  }
});

test("a call that finds no free connection in time is given up on, and the next one gets it", async () => {
  const waiting = [];
  const answer = (request, talk) => waiting.push(() => talk.send(success(request)));
  await withAgent(answer, async (agent) => {
    const one = new RootAgentClient({ socketPath: agent.path, maxConnections: 1, timeoutMs: 20_000 });
    const first = one.call("qm-list");
    const late = one.call("qm-list", {}, { timeoutMs: 100 });
    await assert.rejects(late, (error) => error instanceof RootAgentTimeoutError && !error.maybeExecuted);
    const second = one.call("qm-list");
    while (waiting.length < 1) await new Promise((resolve) => setImmediate(resolve));
    waiting.shift()();
    await first;
    while (waiting.length < 1) await new Promise((resolve) => setImmediate(resolve));
    waiting.shift()();
    await second;
    assert.equal(agent.connections, 1);
  });
});

test("an agent that is not there is said to be unreachable", async () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "agent-"));
  for (const socketPath of [
    path.join(directory, "missing.sock"),
    directory,
    path.join(directory, "d".repeat(200), "x".repeat(100)),
  ]) {
    const one = new RootAgentClient({ socketPath });
    await assert.rejects(one.call("qm-list"), (error) => {
      assert.ok(error instanceof RootAgentConnectionError, String(error));
      assert.match(error.message, /is blockhost-root-agent running/);
      return !error.maybeExecuted;
    });
  }
  fs.rmdirSync(directory);
});

test("a path too long for an address is reached all the same", async () => {
  await withAgent(polite, async (agent) => {
    const long = path.join(path.dirname(agent.path), "d".repeat(120));
    fs.mkdirSync(long);
    fs.renameSync(agent.path, path.join(long, "agent.sock"));
    const one = new RootAgentClient({ socketPath: path.join(long, "agent.sock"), timeoutMs: 20_000 });
    assert.ok((await one.call("qm-list")).ok);
    assert.ok((await one.call("qm-list")).ok);
    assert.equal(agent.connections, 1);
  });
});

test("a connection that was closed while idle is replaced", async () => {
  const once = (request, talk) => (talk.send(success(request)), talk.end());
  await withAgent(once, async (agent) => {
    const one = new RootAgentClient({ socketPath: agent.path, timeoutMs: 20_000 });
    for (let round = 1; round <= 20; round += 1) {
      assert.ok((await one.call("qm-list")).ok);
      assert.equal(agent.connections, round);
    }
  });
});

test("every function sends exactly the parameters of the catalog, in its order", async () => {
  await withAgent(polite, async (agent) => {
    const callOptions = { client: new RootAgentClient({ socketPath: agent.path, timeoutMs: 20_000 }) };
    for (const action of catalog) {
      const send = client[camel(action.name)];
      assert.equal(typeof send, "function", action.name);
      const values = Object.fromEntries(action.param_order.map((name) => [name, `value of ${name}`]));
      await send(...Object.values(values), callOptions);
      const all = agent.requests.at(-1);
      assert.deepEqual([all.action, all.params], [action.name, values]);
      assert.ok(!("dry_run" in all));
      const needed = action.param_order.map((name) => (action.params.required.includes(name) ? values[name] : undefined));
      await send(...needed, callOptions);
      assert.deepEqual(Object.keys(agent.requests.at(-1).params).sort(), [...action.params.required].sort());
    }
    await client.qmStart(100, { ...callOptions, dryRun: true });
    assert.equal(agent.requests.at(-1).dry_run, true);
  });
});

test("there is a function for every action, and none more", () => {
  const others = ["RootAgentClient", "RootAgentConnectionError", "RootAgentError", "RootAgentTimeoutError"];
  const names = [...catalog.map((action) => camel(action.name)), ...others, "callRootAgent", "errorCodes", "timeLimitsS"];
  assert.deepEqual(Object.keys(client).sort(), names.sort());
});

test("pipelined requests are answered in order over one connection", async () => {
  const answer = (request, talk) => {
    const { number } = request.params;
    const refusal = { ok: false, error: String(number), code: "busy", id: request.id };
    talk.send(number % 7 === 3 ? frame(JSON.stringify(refusal)) : success(request, { output: String(number) }));
  };
  await withAgent(answer, async (agent) => {
    const one = new RootAgentClient({ socketPath: agent.path, timeoutMs: 20_000 });
    const numbers = Array.from({ length: 100 }, (_, number) => number);
    const answers = await one.callMany(numbers.map((number) => ["qm-list", { number }]));
    const said = answers.map((answer) => (answer instanceof RootAgentError ? answer.message : answer.output));
    assert.deepEqual(said, numbers.map(String));
    assert.equal(answers.filter((answer) => answer instanceof RootAgentError).length, 14);
    assert.equal(agent.connections, 1);
  });
});

test("fifty calls at once share few connections and get their own answers", async () => {
  const answer = (request, talk) => talk.send(success(request, { output: String(request.params.number) }));
  await withAgent(answer, async (agent) => {
    const one = new RootAgentClient({ socketPath: agent.path, maxConnections: 8, timeoutMs: 20_000 });
    const numbers = Array.from({ length: 50 }, (_, number) => number);
    const answers = await Promise.all(numbers.map((number) => one.call("qm-list", { number })));
    assert.deepEqual(answers.map((reply) => reply.output), numbers.map(String));
    assert.ok(agent.connections <= 8);
  });
});
