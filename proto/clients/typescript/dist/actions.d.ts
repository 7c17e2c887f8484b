// Generated from the catalog by `make clients`; do not edit.

import type { CallOptions, Reply } from "./transport.js";

export interface AddressbookSaveEntriesEntry {
  address: string;
  keyfile?: string;
}

export interface AgentInfoCounters {
  connections: number;
  connections_refused: number;
  failed: number;
  in_flight: number;
  open_connections: number;
  refused: number;
  requests: number;
  succeeded: number;
}

export interface AgentInfoLedger {
  root: string;
  size: number;
}

export interface QmImportdiskReply extends Reply {
  /** The volume that was made, such as `local:100/vm-100-disk-0.raw`. */
  volume?: string;
  /** Format of the image: `qcow2` or `raw`. */
  format: string;
}

export interface QmGuestExecReply extends Reply {
  /** Exit code of the command; 128 and the number of the signal that ended it. */
  exitcode: number;
  /** What it wrote; of a long text its beginning and its end. */
  stdout: string;
  /** What it wrote to standard error, likewise. */
  stderr: string;
}

export interface PctExecReply extends Reply {
  /** Exit code of the command; 128 and the number of the signal that ended it. */
  exitcode: number;
  /** What it wrote; of a long text its beginning and its end. */
  stdout: string;
  /** What it wrote to standard error, likewise. */
  stderr: string;
}

export interface GenerateWalletReply extends Reply {
  /** Address of the new wallet, with the checksum of EIP-55. */
  address: string;
  /** Path of the key on the host. */
  keyfile: string;
}

export interface AgentInfoReply extends Reply {
  /** Version of the agent. */
  version: string;
  /** `proxmox` or `embedded`. */
  backend: string;
  /** Landlock ABI in force; 0 without. */
  landlock_abi: number;
  /** Seconds since the agent started. */
  uptime_s: number;
  /** Connections and requests since the front started. */
  counters: AgentInfoCounters;
  /** Number of records and Merkle root of the ledger. */
  ledger: AgentInfoLedger;
}

/**
 * Starts a machine; one that runs already is a success.
 *
 * @param vmid Number of the machine.
 */
export function qmStart(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Stops a machine at once, as if its power were cut; one that is stopped already is a success.
 *
 * @param vmid Number of the machine.
 */
export function qmStop(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Turns a stopped machine into a template.
 *
 * @param vmid Number of the machine.
 */
export function qmTemplate(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Asks the guest to shut down and waits; never forces it. Answers `timeout` when the guest ignores it.
 *
 * @param vmid Number of the machine.
 * @param timeout How long to wait, in seconds. Without it `120`.
 */
export function qmShutdown(vmid: number, timeout?: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Destroys a stopped machine with its disks. Refuses templates unless asked for one.
 *
 * @param vmid Number of the machine.
 * @param template Say true to destroy a template. Without it `false`.
 */
export function qmDestroy(vmid: number, template?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * Creates a machine.
 *
 * @param vmid Number of the new machine.
 * @param name Its name.
 * @param args Its options, as a flat list `["--memory", "2048", ...]` or as pairs `[["--memory", "2048"], ...]`.
 */
export function qmCreate(vmid: number, name: string, args: readonly (readonly (string | number)[])[] | readonly (string | number)[], callOptions?: CallOptions): Promise<Reply>;

/**
 * Changes options of a machine.
 *
 * @param vmid Number of the machine.
 * @param options Options and their new values.
 */
export function qmSet(vmid: number, options: Readonly<Record<string, string | number>>, callOptions?: CallOptions): Promise<Reply>;

/**
 * Imports a disk image as an unused disk of a machine.
 *
 * @param vmid Number of the machine.
 * @param diskPath The image: a path below an allowed image directory.
 * @param storage Storage to import to.
 */
export function qmImportdisk(vmid: number, diskPath: string, storage: string, callOptions?: CallOptions): Promise<QmImportdiskReply>;

/**
 * Clones a machine or template.
 *
 * @param vmid Number of the machine to clone.
 * @param newid Number of the new machine.
 * @param name Name of the new machine.
 * @param full Copy the disks instead of linking to them. Without it `false`.
 */
export function qmClone(vmid: number, newid: number, name: string, full?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * Grows a disk; never shrinks one.
 *
 * @param vmid Number of the machine.
 * @param disk The drive, such as `scsi0`.
 * @param size New size (`20G`) or growth (`+10G`).
 */
export function qmResize(vmid: number, disk: string, size: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * State of a machine, as JSON in `output`.
 * Changes nothing.
 *
 * @param vmid Number of the machine.
 */
export function qmStatus(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Configuration of a machine, as JSON in `output`.
 * Changes nothing.
 *
 * @param vmid Number of the machine.
 */
export function qmConfig(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * All machines, as a JSON array in `output`.
 * Changes nothing.
 */
export function qmList(callOptions?: CallOptions): Promise<Reply>;

/**
 * Asks the guest agent whether it answers.
 * Changes nothing.
 *
 * @param vmid Number of the machine.
 */
export function qmGuestPing(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Runs a command inside the guest, through its agent and its `/bin/sh -c`. Answers `exitcode`, `stdout`,
 * `stderr`.
 *
 * @param vmid Number of the machine.
 * @param command The command line.
 * @param timeout How long it may take, in seconds. Without it `60`.
 * @param secret The command holds a secret: log and ledger keep a salted digest of it. Without it `false`.
 */
export function qmGuestExec(vmid: number, command: string, timeout?: number, secret?: boolean, callOptions?: CallOptions): Promise<QmGuestExecReply>;

/**
 * Creates an unprivileged container. Its root file system is a new volume, so `rootfs` must be among the
 * options.
 *
 * @param vmid Number of the new container.
 * @param template What its root file system is unpacked from: an archive of an allowed storage, or a file below
 * an allowed directory.
 * @param hostname Its host name.
 * @param options Its options and their values.
 */
export function pctCreate(vmid: number, template: string, hostname: string, options: Readonly<Record<string, string | number>>, callOptions?: CallOptions): Promise<Reply>;

/**
 * Starts a container; one that runs already is a success.
 *
 * @param vmid Number of the container.
 */
export function pctStart(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Stops a container at once; one that is stopped already is a success.
 *
 * @param vmid Number of the container.
 */
export function pctStop(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Asks the container to shut down and waits; never forces it. Answers `timeout` when it ignores that.
 *
 * @param vmid Number of the container.
 * @param timeout How long to wait, in seconds. Without it `120`.
 */
export function pctShutdown(vmid: number, timeout?: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Destroys a stopped container with its root file system. Refuses templates unless asked for one.
 *
 * @param vmid Number of the container.
 * @param template Say true to destroy a template. Without it `false`.
 */
export function pctDestroy(vmid: number, template?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * State of a container, as JSON in `output`.
 * Changes nothing.
 *
 * @param vmid Number of the container.
 */
export function pctStatus(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * Configuration of a container, as JSON in `output`.
 * Changes nothing.
 *
 * @param vmid Number of the container.
 */
export function pctConfig(vmid: number, callOptions?: CallOptions): Promise<Reply>;

/**
 * All containers, as a JSON array in `output`.
 * Changes nothing.
 */
export function pctList(callOptions?: CallOptions): Promise<Reply>;

/**
 * Changes options of a container. What belongs to its creation (`rootfs`, `ssh-public-keys`, `unprivileged`)
 * stays.
 *
 * @param vmid Number of the container.
 * @param options Options and their new values.
 */
export function pctSet(vmid: number, options: Readonly<Record<string, string | number>>, callOptions?: CallOptions): Promise<Reply>;

/**
 * Runs a command inside a running container, through its `/bin/sh -c`. Answers `exitcode`, `stdout`, `stderr`.
 *
 * @param vmid Number of the container.
 * @param command The command line.
 * @param timeout How long it may take, in seconds. Without it `60`.
 * @param secret The command holds a secret: log and ledger keep a salted digest of it. Without it `false`.
 */
export function pctExec(vmid: number, command: string, timeout?: number, secret?: boolean, callOptions?: CallOptions): Promise<PctExecReply>;

/**
 * Limits processor, disks and network of a machine. Limits that are not named stay; with `reset` they are
 * removed first.
 *
 * @param vmid Number of the machine.
 * @param cpuunits Weight among the machines when the processor is short.
 * @param cpulimit Cores that it may use at most; 0 for no limit.
 * @param iopsRd Reads per second, of each disk.
 * @param iopsWr Writes per second, of each disk.
 * @param rateInKbps What it may receive, in kilobits (1000 bits) per second, on each interface.
 * @param rateOutKbps What it may send, in kilobits (1000 bits) per second, on each interface.
 * @param reset Remove all limits before setting those that are given. Without it `false`.
 */
export function vmThrottle(vmid: number, cpuunits?: number, cpulimit?: string | number, iopsRd?: number, iopsWr?: number, rateInKbps?: number, rateOutKbps?: number, reset?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * Limits processor and disks of a machine: `vm-throttle` without the network.
 *
 * @param vmid Number of the machine.
 * @param cpuunits Weight among the machines when the processor is short.
 * @param cpulimit Cores that it may use at most; 0 for no limit.
 * @param iopsRd Reads per second, of each disk.
 * @param iopsWr Writes per second, of each disk.
 * @param reset Remove these limits before setting those that are given. Without it `false`.
 */
export function pveSetThrottle(vmid: number, cpuunits?: number, cpulimit?: string | number, iopsRd?: number, iopsWr?: number, reset?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * Limits the network of a machine: `vm-throttle` without processor and disks.
 *
 * @param vmid Number of the machine.
 * @param rateInKbps What it may receive, in kilobits (1000 bits) per second, on each interface.
 * @param rateOutKbps What it may send, in kilobits (1000 bits) per second, on each interface.
 * @param reset Remove these limits before setting those that are given. Without it `false`.
 */
export function tcRateLimit(vmid: number, rateInKbps?: number, rateOutKbps?: number, reset?: boolean, callOptions?: CallOptions): Promise<Reply>;

/**
 * Changes the inside of a disk image, operation by operation, in the order given. The image is replaced only
 * when all of them have succeeded.
 *
 * @param imagePath The image: a path below an allowed image directory.
 * @param commands The operations, each as a list of its name (with or without `--`) and its one argument,
 * written as the tool of that name takes it: `["install", "nginx,curl"]`, `["write", "/etc/motd:hello"]`,
 * `["copy-in", "site:/var/www"]`.
 */
export function virtCustomize(imagePath: string, commands: readonly (readonly string[])[], callOptions?: CallOptions): Promise<Reply>;

/**
 * Sets the route to one address, replacing another; the same again is a success.
 *
 * @param address The address, with `/128`.
 * @param dev The device that leads to it.
 */
export function ip6RouteAdd(address: string, dev: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Deletes the route to one address; `not_found` where there is none.
 *
 * @param address The address, with `/128`.
 * @param dev The device that leads to it.
 */
export function ip6RouteDel(address: string, dev: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Accepts packets to a port; the same again adds nothing.
 *
 * @param port The port.
 * @param proto Transport protocol. Without it `"tcp"`.
 * @param comment Marks the rule as its owner's.
 * @param source Only packets from there; both families where it is missing.
 */
export function iptablesOpen(port: number, proto: "tcp" | "udp" | undefined, comment: string, source?: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Removes exactly the rule that the same parameters opened; `not_found` where there is none.
 *
 * @param port The port.
 * @param proto Transport protocol. Without it `"tcp"`.
 * @param comment The comment that the rule was opened with.
 * @param source The source that the rule was opened with.
 */
export function iptablesClose(port: number, proto: "tcp" | "udp" | undefined, comment: string, source?: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Makes a secp256k1 key in `/etc/blockhost/<name>.key` and an address-book entry. Never overwrites a key.
 * Answers `address` and `keyfile`.
 *
 * @param name Name of the wallet; `admin`, `server`, `dev` and `broker` are refused.
 */
export function generateWallet(name: string, callOptions?: CallOptions): Promise<GenerateWalletReply>;

/**
 * Replaces the address book atomically. Existing entries `admin`, `server`, `dev` and `broker` change or vanish
 * only when uid 0 asks.
 *
 * @param entries Name -> `{"address": "0x...", "keyfile": "name.key"}`; `keyfile` may be missing.
 */
export function addressbookSave(entries: Readonly<Record<string, AddressbookSaveEntriesEntry>>, callOptions?: CallOptions): Promise<Reply>;

/**
 * Records an event in the caller's name. The agent stamps who it was; such a record cannot pass for one of its
 * own.
 *
 * @param category Category of the event, such as `chain` or `network`.
 * @param action What happened, such as `subscription-created`; never the name of an action of this catalog.
 * @param data The details.
 * @param resource What it happened to.
 */
export function ledgerAppend(category: string, action: string, data: Readonly<Record<string, unknown>>, resource?: string, callOptions?: CallOptions): Promise<Reply>;

/**
 * Version, backend, Landlock ABI, uptime, counters and ledger head.
 * Changes nothing.
 */
export function agentInfo(callOptions?: CallOptions): Promise<AgentInfoReply>;
