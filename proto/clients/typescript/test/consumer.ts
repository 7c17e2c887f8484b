// What a program that uses the client may write, and what it may not. Checked by tsc, never run.

import {
  RootAgentClient,
  RootAgentConnectionError,
  RootAgentError,
  RootAgentTimeoutError,
  agentInfo,
  callRootAgent,
  errorCodes,
  generateWallet,
  iptablesClose,
  iptablesOpen,
  ip6RouteAdd,
  qmGuestExec,
  qmList,
  qmSet,
  qmShutdown,
  qmStart,
  timeLimitsS,
  type AgentInfoReply,
  type CallOptions,
  type ErrorCode,
  type Reply,
} from "@blockhost/root-agent";

export async function good(signal: AbortSignal): Promise<void> {
  const reply: Reply = await qmStart(100);
  const index: number | undefined = reply.receipt?.index;
  const wallet = await generateWallet("hot");
  const address: string = wallet.address;
  const keyfile: string = wallet.keyfile;
  await iptablesOpen(443, "tcp", "web");
  await iptablesOpen(443, undefined, "web", "192.0.2.0/24", { timeoutMs: 1000 });
  await iptablesClose(443, "udp", "web");
  await ip6RouteAdd("fd00::1/128", "vmbr0");
  await qmShutdown(100, 60, { signal, dryRun: true });
  await qmSet(100, { memory: 2048, name: "web-1" });
  const exec = await qmGuestExec(100, "true");
  const code: number = exec.exitcode;
  const info: AgentInfoReply = await agentInfo();
  const size: number = info.ledger.size;
  const anything: unknown = (await callRootAgent("generate-wallet", { name: "hot" }, 5000))["address"];
  await callRootAgent("an-action-of-tomorrow", {}, { signal });
  const options: CallOptions = { client: new RootAgentClient({ socketPath: "/run/x.sock", maxConnections: 4 }) };
  await qmList(options);
  const codes: readonly ErrorCode[] = errorCodes;
  const limit: number = timeLimitsS["qm-start"];
  const error = new RootAgentTimeoutError("late");
  const connection: RootAgentConnectionError = error;
  const refused: ErrorCode = new RootAgentError({ ok: false, code: "busy", error: "later" }).code;
  void [index, address, keyfile, code, size, anything, codes, limit, connection, refused];
}

export async function bad(): Promise<void> {
  // @ts-expect-error a vmid is a number
  await qmStart("100");
  // @ts-expect-error the comment is missing
  await iptablesOpen(443, "tcp");
  // @ts-expect-error there is no such protocol
  await iptablesOpen(443, "icmp", "web");
  // @ts-expect-error no wallet without a name
  await generateWallet();
  // @ts-expect-error a start answers no address
  (await qmStart(100)).address;
  // @ts-expect-error flags are no option values
  await qmSet(100, { memory: true });
  // @ts-expect-error there is no such code
  const code: ErrorCode = "nope";
  void code;
}
