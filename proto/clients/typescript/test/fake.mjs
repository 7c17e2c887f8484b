// An agent that is not one: it answers what a test says, and keeps what it was asked.

import * as fs from "node:fs/promises";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";

export function frame(payload) {
  const bytes = Buffer.from(payload);
  const header = Buffer.alloc(4);
  header.writeUInt32BE(bytes.length);
  return Buffer.concat([header, bytes]);
}

export function success(request, fields = {}) {
  return frame(JSON.stringify({ ok: true, output: "", id: request.id, ...fields }));
}

/** Runs `check(agent)` while an agent answers every request by `answer(request, talk)`. */
export async function withAgent(answer, check, greet = () => {}) {
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), "agent-"));
  const agent = { path: path.join(directory, "agent.sock"), requests: [], connections: 0 };
  const open = new Set();
  const server = net.createServer((socket) => {
    const talk = { socket, number: agent.connections, send: (bytes) => socket.write(bytes), end: () => socket.end() };
    agent.connections += 1;
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    socket.on("error", () => {});
    greet(talk);
    let pending = Buffer.alloc(0);
    socket.on("data", (chunk) => {
      pending = Buffer.concat([pending, chunk]);
      while (pending.length >= 4 && pending.length >= 4 + pending.readUInt32BE(0)) {
        const length = pending.readUInt32BE(0);
        const request = JSON.parse(pending.subarray(4, 4 + length).toString("utf8"));
        pending = pending.subarray(4 + length);
        agent.requests.push(request);
        answer(request, talk);
      }
    });
  });
  await new Promise((resolve) => server.listen(agent.path, resolve));
  try {
    await check(agent);
  } finally {
    for (const socket of open) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    await fs.rm(directory, { recursive: true });
  }
}

export const polite = (request, talk) => talk.send(success(request));
