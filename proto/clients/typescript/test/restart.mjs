// Calls, waits for a line, calls again: in between, the agent is restarted.

import { createInterface } from "node:readline/promises";

import { agentInfo } from "../dist/index.js";

const lines = createInterface({ input: process.stdin });
await agentInfo();
console.log("asked");
await new Promise((resolve) => lines.once("line", resolve));
lines.close();
for (let round = 0; round < 3; round += 1) await agentInfo();
console.log("asked again");
